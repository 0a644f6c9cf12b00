/* SPDX-License-Identifier: BSD-3-Clause */

/* The public calls that list names and watch them. */

#include <stdlib.h>
#include <string.h>

#include "name/directory.h"

/* --- telling watchers ----------------------------------------------------- */

static void fill_event(troupe_name_event_t *event, uint32_t what,
                       const struct tri_registry_entry *entry)
{
    memset(event, 0, sizeof(*event));
    event->what = what;
    event->ref = tri_directory_ref(entry);
    event->unique = tri_directory_unique(entry);
    memcpy(event->name, entry->name, entry->name_len);
    memcpy(event->tags, entry->tags, entry->tags_len);
}

static bool is_watched(const struct tri_name_watch *watch,
                       const struct tri_registry_entry *entry)
{
    return watch->id != 0 && watch->prefix_len <= entry->name_len &&
           memcmp(watch->prefix, entry->name, watch->prefix_len) == 0;
}

/* A watch ends with its actor. */
static void tell_locked(struct tri_directory *directory,
                        struct tri_name_watch *watch,
                        troupe_name_event_t *event)
{
    event->watch = watch->id;
    if (tri_actor_event(directory->runtime, watch->slot, watch->generation,
                        TROUPE_ON_NAME, event,
                        sizeof(*event)) == TROUPE_ENOACTOR)
        watch->id = 0;
}

void tri_directory_tell_locked(struct tri_directory *directory, uint32_t what,
                               const struct tri_registry_entry *entry)
{
    troupe_name_event_t event = { .what = 0 };

    for (uint32_t i = 0; i < directory->watches_len; i++) {
        if (!is_watched(&directory->watches[i], entry))
            continue;
        if (event.what == 0)
            fill_event(&event, what, entry);
        tell_locked(directory, &directory->watches[i], &event);
    }
}

/* --- lists ---------------------------------------------------------------- */

static struct tri_directory *directory_of(troupe_from_t from)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);

    return runtime != NULL ? runtime->directory : NULL;
}

static bool has_prefix(const struct tri_registry_entry *entry,
                       const char *prefix, size_t prefix_len)
{
    return prefix_len <= entry->name_len &&
           memcmp(entry->name, prefix, prefix_len) == 0;
}

static void fill_name(troupe_name_t *name,
                      const struct tri_registry_entry *entry)
{
    memset(name, 0, sizeof(*name));
    name->ref = tri_directory_ref(entry);
    name->unique = tri_directory_unique(entry);
    name->suspect = entry->owner->suspect;
    memcpy(name->name, entry->name, entry->name_len);
    memcpy(name->tags, entry->tags, entry->tags_len);
}

static int by_name(const void *a, const void *b)
{
    const troupe_name_t *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    return order != 0 ? order : tri_directory_compare(x->ref, y->ref);
}

size_t troupe_names_list(troupe_from_t from, const char *prefix,
                         troupe_name_t *list, size_t list_len_max)
{
    struct tri_directory *directory = directory_of(from);
    size_t prefix_len, len = 0;
    const struct tri_registry_entry *entry;
    uint32_t index = 0;

    if (directory == NULL)
        return 0;
    prefix = prefix != NULL ? prefix : "";
    prefix_len = strlen(prefix);
    pthread_mutex_lock(&directory->mutex);
    while ((entry = tri_registry_each(directory->registry, &index)) != NULL) {
        if (!has_prefix(entry, prefix, prefix_len) ||
            !tri_registry_holds(directory->registry, entry))
            continue;
        if (len < list_len_max)
            fill_name(&list[len], entry);
        len++;
    }
    pthread_mutex_unlock(&directory->mutex);
    if (list_len_max > 0)
        qsort(list, tri_min(len, list_len_max), sizeof(*list), by_name);
    return len;
}

/* --- watches -------------------------------------------------------------- */

/* A place: a free one, one of an actor that ended, or a new one. */
static int take_watch_locked(struct tri_directory *directory,
                             struct tri_name_watch **watch_p)
{
    uint32_t max = directory->watches_max;
    struct tri_name_watch *watches = directory->watches;

    for (uint32_t i = 0; i < directory->watches_len; i++) {
        if (watches[i].id == 0 ||
            tri_actor_find(&directory->runtime->actors, watches[i].slot,
                           watches[i].generation) == NULL) {
            *watch_p = &watches[i];
            return 0;
        }
    }
    if (directory->watches_len == TRI_WATCHES_MAX)
        return TROUPE_ELIMIT;
    if (directory->watches_len == max) {
        max = max == 0 ? 16 : 2 * max;
        watches = realloc(watches, max * sizeof(*watches));
        if (watches == NULL)
            return TROUPE_ENOMEM;
        directory->watches = watches;
        directory->watches_max = max;
    }
    *watch_p = &watches[directory->watches_len++];
    return 0;
}

/* The names that are there already come first. */
static void replay_locked(struct tri_directory *directory,
                          struct tri_name_watch *watch)
{
    const struct tri_registry_entry *entry;
    troupe_name_event_t event;
    uint32_t index = 0;

    while ((entry = tri_registry_each(directory->registry, &index)) != NULL) {
        if (!is_watched(watch, entry))
            continue;
        fill_event(&event, TROUPE_NAME_ADDED, entry);
        tell_locked(directory, watch, &event);
    }
}

int troupe_names_watch(troupe_self_t *self, const char *prefix,
                       uint32_t *watch_p)
{
    struct tri_directory *directory =
        self != NULL ? self->runtime->directory : NULL;
    size_t prefix_len = prefix != NULL ? strlen(prefix) : 0;
    struct tri_name_watch *watch;
    int rc;

    if (directory == NULL || self->actor == NULL ||
        prefix_len > TRI_NAME_LEN_MAX)
        return TROUPE_EINVAL;
    pthread_mutex_lock(&directory->mutex);
    rc = take_watch_locked(directory, &watch);
    if (rc == 0) {
        *watch = (struct tri_name_watch){
            .id = ++directory->watch_ids,
            .slot = self->actor->slot,
            .generation = tri_actor_generation(self->actor),
            .prefix_len = (uint16_t)prefix_len,
        };
        memcpy(watch->prefix, prefix_len > 0 ? prefix : "", prefix_len);
        if (watch_p != NULL)
            *watch_p = watch->id;
        replay_locked(directory, watch);
    }
    pthread_mutex_unlock(&directory->mutex);
    return rc;
}

void troupe_names_unwatch(troupe_self_t *self, uint32_t watch)
{
    struct tri_directory *directory = self->runtime->directory;

    if (directory == NULL || watch == 0)
        return;
    pthread_mutex_lock(&directory->mutex);
    for (uint32_t i = 0; i < directory->watches_len; i++)
        if (directory->watches[i].id == watch &&
            directory->watches[i].slot == self->actor->slot)
            directory->watches[i].id = 0;
    pthread_mutex_unlock(&directory->mutex);
}
