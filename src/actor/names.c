/* SPDX-License-Identifier: BSD-3-Clause */
#include "actor/names.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define BUCKETS_LEN_FIRST 64u

int tri_names_init(struct tri_names *names)
{
    *names = (struct tri_names){ .buckets_len = BUCKETS_LEN_FIRST };
    names->buckets = calloc(names->buckets_len, sizeof(*names->buckets));
    if (names->buckets == NULL)
        return TROUPE_ENOMEM;
    pthread_mutex_init(&names->mutex, NULL);
    return 0;
}

void tri_names_fini(struct tri_names *names)
{
    if (names->buckets == NULL)
        return;
    for (uint32_t i = 0; i < names->buckets_len; i++) {
        struct tri_name *name = names->buckets[i];

        while (name != NULL) {
            struct tri_name *next = name->next;

            free(name);
            name = next;
        }
    }
    while (names->lookups != NULL) {
        struct tri_lookup *next = names->lookups->next;

        free(names->lookups);
        names->lookups = next;
    }
    free(names->buckets);
    names->buckets = NULL;
    pthread_mutex_destroy(&names->mutex);
}

bool tri_name_has_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-' ||
           c == '/';
}

int tri_name_check(const char *text, size_t len, size_t *position_p,
                   const char **reason_p)
{
    size_t i = 0;

    while (i < len && i < TRI_NAME_LEN_MAX && tri_name_has_char(text[i]))
        i++;
    if (len > 0 && i == len)
        return 0;
    *position_p = i;
    if (len == 0)
        *reason_p = "a name is missing";
    else if (i == TRI_NAME_LEN_MAX)
        *reason_p = "a name has at most 255 bytes";
    else
        *reason_p = "a name consists of A-Z a-z 0-9 _ . - /";
    return TROUPE_EINVAL;
}

bool tri_name_is_valid(const char *text, size_t len)
{
    size_t position;
    const char *reason;

    return tri_name_check(text, len, &position, &reason) == 0;
}

static struct tri_name **bucket_locked(struct tri_names *names,
                                       const char *text)
{
    uint32_t hash = tri_fnv32(TRI_FNV32_OFFSET, text, strlen(text));

    return &names->buckets[hash & (names->buckets_len - 1)];
}

static struct tri_name *find_locked(struct tri_names *names, const char *text)
{
    struct tri_name *name = *bucket_locked(names, text);

    while (name != NULL && strcmp(name->text, text) != 0)
        name = name->next;
    return name;
}

/* Doubles the table; when memory lacks, chains just get longer. */
static void grow_locked(struct tri_names *names)
{
    uint32_t old_len = names->buckets_len;
    struct tri_name **old = names->buckets;
    struct tri_name **buckets = calloc((size_t)old_len * 2, sizeof(*buckets));

    if (buckets == NULL)
        return;
    names->buckets = buckets;
    names->buckets_len = old_len * 2;
    for (uint32_t i = 0; i < old_len; i++) {
        while (old[i] != NULL) {
            struct tri_name *name = old[i];
            struct tri_name **bucket = bucket_locked(names, name->text);

            old[i] = name->next;
            name->next = *bucket;
            *bucket = name;
        }
    }
    free(old);
}

/* Unlinks the lookups that wait for this name (NULL: none), and frees those
 * past their time, whose askers have given up. */
static struct tri_lookup *take_lookups_locked(struct tri_names *names,
                                              const char *text)
{
    struct tri_lookup **link = &names->lookups;
    struct tri_lookup *taken = NULL;
    uint64_t now_ns = names->lookups != NULL ? tri_now_ns() : 0;

    while (*link != NULL) {
        struct tri_lookup *lookup = *link;
        bool matches = text != NULL && strcmp(lookup->text, text) == 0;

        if (!matches && lookup->deadline_ns > now_ns) {
            link = &lookup->next;
            continue;
        }
        *link = lookup->next;
        names->lookups_len--;
        if (matches) {
            lookup->next = taken;
            taken = lookup;
        } else {
            free(lookup);
        }
    }
    return taken;
}

static int add_locked(struct tri_names *names,
                      const struct tri_name_claim *claim,
                      struct tri_name *name)
{
    struct tri_name **bucket;
    int rc;

    if (find_locked(names, claim->text) != NULL)
        return TROUPE_EEXIST;
    if (names->hooks.adding != NULL) {
        rc = names->hooks.adding(names->hooks.context, claim);
        if (rc != 0)
            return rc;
    }
    if (names->names_len >= names->buckets_len)
        grow_locked(names);
    bucket = bucket_locked(names, claim->text);
    name->next = *bucket;
    *bucket = name;
    names->names_len++;
    return 0;
}

int tri_names_add(struct tri_names *names, const struct tri_name_claim *claim,
                  struct tri_name **name_p, struct tri_lookup **answered_p)
{
    size_t text_bytes = strlen(claim->text) + 1;
    struct tri_name *name = malloc(sizeof(*name) + text_bytes);
    int rc;

    if (name == NULL)
        return TROUPE_ENOMEM;
    name->protocol = claim->protocol;
    name->ref = claim->ref;
    name->unlisted = false;
    memcpy(name->text, claim->text, text_bytes);
    pthread_mutex_lock(&names->mutex);
    rc = add_locked(names, claim, name);
    if (rc == 0)
        *answered_p = take_lookups_locked(names, claim->text);
    pthread_mutex_unlock(&names->mutex);
    if (rc != 0)
        free(name);
    else
        *name_p = name;
    return rc;
}

static void unlink_locked(struct tri_names *names, struct tri_name *name)
{
    struct tri_name **link = bucket_locked(names, name->text);

    while (*link != name)
        link = &(*link)->next;
    *link = name->next;
    names->names_len--;
}

void tri_names_remove(struct tri_names *names, struct tri_name *name)
{
    pthread_mutex_lock(&names->mutex);
    if (!name->unlisted) {
        unlink_locked(names, name);
        if (names->hooks.removing != NULL)
            names->hooks.removing(names->hooks.context, name->text,
                                  name->ref);
    }
    pthread_mutex_unlock(&names->mutex);
    free(name);
}

void tri_names_unlist(struct tri_names *names, const char *text,
                      troupe_ref_t ref)
{
    struct tri_name *name;

    pthread_mutex_lock(&names->mutex);
    name = find_locked(names, text);
    if (name != NULL && troupe_ref_equal(name->ref, ref)) {
        unlink_locked(names, name);
        name->unlisted = true;
    }
    pthread_mutex_unlock(&names->mutex);
}

static int match_locked(struct tri_names *names, const char *text,
                        uint32_t protocol, troupe_ref_t *ref_p)
{
    const struct tri_name *name = find_locked(names, text);

    if (name == NULL)
        return TROUPE_ENONAME;
    if (protocol != 0 && protocol != name->protocol)
        return TROUPE_ETYPE;
    *ref_p = name->ref;
    return 0;
}

int tri_names_find(struct tri_names *names, const char *text, uint32_t protocol,
                   troupe_ref_t *ref_p)
{
    int rc;

    pthread_mutex_lock(&names->mutex);
    rc = match_locked(names, text, protocol, ref_p);
    pthread_mutex_unlock(&names->mutex);
    return rc;
}

int tri_names_find_or_wait(struct tri_names *names,
                           const struct tri_lookup *lookup, troupe_ref_t *ref_p)
{
    struct tri_lookup *waiting = malloc(sizeof(*waiting));
    int rc;

    if (waiting == NULL)
        return TROUPE_ENOMEM;
    *waiting = *lookup;
    pthread_mutex_lock(&names->mutex);
    rc = match_locked(names, lookup->text, lookup->protocol, ref_p);
    if (rc == TROUPE_ENONAME && names->lookups_len >= TRI_LOOKUPS_MAX)
        take_lookups_locked(names, NULL);
    if (rc == TROUPE_ENONAME && names->lookups_len >= TRI_LOOKUPS_MAX)
        rc = TROUPE_ELIMIT;
    if (rc == TROUPE_ENONAME) {
        waiting->next = names->lookups;
        names->lookups = waiting;
        names->lookups_len++;
        waiting = NULL;
    }
    pthread_mutex_unlock(&names->mutex);
    free(waiting);
    return rc;
}
