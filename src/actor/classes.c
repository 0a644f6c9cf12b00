/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Two kinds of entries. TROUPE_ACTOR adds its class by itself, before main or
 * when its shared library is loaded; two source files may do so with one name,
 * each for itself. Who registers a class by hand owns its name, and wins.
 */

#include "actor/classes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "message/type.h"
#include "wire/spawn.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static troupe_class_entry_t *added;      /* by TROUPE_ACTOR */
static troupe_class_entry_t *registered; /* by hand; ours to free, never */
static uint32_t registered_len;

void troupe_class_add_(troupe_class_entry_t *entry)
{
    pthread_mutex_lock(&mutex);
    entry->next = added;
    added = entry;
    pthread_mutex_unlock(&mutex);
}

void troupe_class_remove_(troupe_class_entry_t *entry)
{
    troupe_class_entry_t **link = &added;

    pthread_mutex_lock(&mutex);
    while (*link != NULL && *link != entry)
        link = &(*link)->next;
    if (*link != NULL)
        *link = entry->next;
    pthread_mutex_unlock(&mutex);
}

static bool has_name(const troupe_class_t *actor_class, const char *name,
                     size_t name_len)
{
    return strlen(actor_class->name) == name_len &&
           memcmp(actor_class->name, name, name_len) == 0;
}

static const troupe_class_t *find_registered(const char *name, size_t name_len)
{
    for (troupe_class_entry_t *e = registered; e != NULL; e = e->next)
        if (has_name(e->actor_class, name, name_len))
            return e->actor_class;
    return NULL;
}

static int register_locked(const troupe_class_t *actor_class)
{
    const troupe_class_t *other = find_registered(actor_class->name,
                                                  strlen(actor_class->name));
    troupe_class_entry_t *entry;

    if (other != NULL)
        return other == actor_class ? 0 : TROUPE_EEXIST;
    if (registered_len >= TRI_CLASSES_MAX)
        return TROUPE_ELIMIT;
    entry = malloc(sizeof(*entry));
    if (entry == NULL)
        return TROUPE_ENOMEM;
    *entry = (troupe_class_entry_t){ actor_class, registered };
    registered = entry;
    registered_len++;
    return 0;
}

int troupe_class_register(const troupe_class_t *actor_class)
{
    int rc;

    if (actor_class == NULL || actor_class->name == NULL ||
        actor_class->receive == NULL || actor_class->protocol == NULL ||
        !tri_class_name_is_valid(actor_class->name, strlen(actor_class->name)))
        return TROUPE_EINVAL;
    pthread_mutex_lock(&mutex);
    rc = register_locked(actor_class);
    pthread_mutex_unlock(&mutex);
    return rc;
}

static bool has_layout(const troupe_class_t *actor_class, uint32_t layout,
                       size_t state_bytes)
{
    return actor_class->state_bytes == state_bytes &&
           tri_protocol_hash(actor_class->protocol) == layout;
}

static int find_locked(const char *name, size_t name_len, uint32_t layout,
                       size_t state_bytes, const troupe_class_t **class_p)
{
    const troupe_class_t *found = find_registered(name, name_len);
    unsigned names = found != NULL, fit = 0;

    if (found != NULL) {
        fit = has_layout(found, layout, state_bytes);
    } else {
        for (troupe_class_entry_t *e = added; e != NULL; e = e->next) {
            if (!has_name(e->actor_class, name, name_len))
                continue;
            names++;
            if (!has_layout(e->actor_class, layout, state_bytes))
                continue;
            fit++;
            found = e->actor_class;
        }
    }
    if (fit == 1)
        *class_p = found;
    else if (fit > 1)
        tri_warn("%u classes of this program are called '%.*s': rename all but "
                 "one, or choose one with troupe_class_register",
                 fit, (int)name_len, name);
    return fit == 1 ? 0 : names > 0 && fit == 0 ? TROUPE_ETYPE : TROUPE_ECLASS;
}

int tri_classes_find(const char *name, size_t name_len, uint32_t layout,
                     size_t state_bytes, const troupe_class_t **class_p)
{
    int rc;

    pthread_mutex_lock(&mutex);
    rc = find_locked(name, name_len, layout, state_bytes, class_p);
    pthread_mutex_unlock(&mutex);
    return rc;
}
