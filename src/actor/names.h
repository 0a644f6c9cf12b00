/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_NAMES_H
#define TRI_NAMES_H

/*
 * Names of one node's actors, and who waits for a name to appear. A hash
 * table with chains, under a mutex: names are looked up once and refs used.
 */

#include <pthread.h>

#include <troupe/actor.h>

#include "base/base.h"

#define TRI_NAME_LEN_MAX 255u
#define TRI_TAGS_LEN_MAX 255u
/* Lookups that wait for names to appear, at one node. */
#define TRI_LOOKUPS_MAX 4096u

/* An actor of this node says its name. */
struct tri_name_claim {
    const char *text;
    const char *tags; /* NULL: none */
    uint32_t protocol; /* hash */
    bool unique;       /* in the cluster */
    bool strict;       /* unique, and all others agreed to it */
    troupe_ref_t ref;
};

/*
 * Who tells other nodes: src/name, which is above. Called with the table's
 * mutex held, so that its order is the table's. NULL: nobody.
 */
struct tri_names_hooks {
    void *context;
    /* Errors: EEXIST, ELIMIT, …: the name is not added. */
    int (*adding)(void *context, const struct tri_name_claim *claim);
    void (*removing)(void *context, const char *text, troupe_ref_t ref);
};

struct tri_name {
    struct tri_name *next;
    uint32_t protocol; /* hash */
    bool unlisted;     /* nobody finds it any more */
    troupe_ref_t ref;
    char text[]; /* ends in a zero */
};

/* A lookup that waits: an ask to be answered. */
struct tri_lookup {
    struct tri_lookup *next;
    uint64_t node; /* the asker */
    uint64_t ask;
    uint64_t deadline_ns;
    uint32_t protocol; /* hash, or 0: anything */
    char text[TRI_NAME_LEN_MAX + 1];
};

struct tri_names {
    pthread_mutex_t mutex;
    struct tri_name **buckets;
    uint32_t buckets_len; /* a power of two; grows with the names */
    uint32_t names_len;
    struct tri_lookup *lookups;
    uint32_t lookups_len;
    struct tri_names_hooks hooks;
};

/* Errors: ENOMEM. */
int tri_names_init(struct tri_names *names);
void tri_names_fini(struct tri_names *names);

/* True for the characters that a name may have. */
bool tri_name_has_char(char c);

/*
 * A name is 1 to TRI_NAME_LEN_MAX of these characters. What is wrong with
 * another text is told: where, and in words (static).
 * Errors: EINVAL.
 */
int tri_name_check(const char *text, size_t len, size_t *position_p,
                   const char **reason_p);

bool tri_name_is_valid(const char *text, size_t len);

/*
 * Adds a name. *answered_p: the lookups that waited for it, to be answered
 * and freed by the caller. Errors: EEXIST, ENOMEM, those of the hook.
 */
int tri_names_add(struct tri_names *names, const struct tri_name_claim *claim,
                  struct tri_name **name_p, struct tri_lookup **answered_p);

void tri_names_remove(struct tri_names *names, struct tri_name *name);

/* An actor loses its name: nobody finds it any more, another may take it. It
 * stays the actor's, to be removed. */
void tri_names_unlist(struct tri_names *names, const char *text,
                      troupe_ref_t ref);

/*
 * Finds a name. Errors: ENONAME, ETYPE (it has another protocol than the one
 * asked for, unless that is 0).
 */
int tri_names_find(struct tri_names *names, const char *text, uint32_t protocol,
                   troupe_ref_t *ref_p);

/*
 * Finds a name, or keeps the lookup until it appears or is past its deadline.
 * Errors: ETYPE, ENONAME (kept; will be answered), ENOMEM, ELIMIT.
 */
int tri_names_find_or_wait(struct tri_names *names,
                           const struct tri_lookup *lookup,
                           troupe_ref_t *ref_p);

#endif
