/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_DIRECTORY_H
#define TRI_DIRECTORY_H

/*
 * The node's directory: the registry of all names (name/registry_core.h) with a
 * lock, a clock and the membership's datagrams, and who watches it.
 *
 * The control thread runs it as a client of src/member; threads and handlers
 * look names up and register their own under the same mutex, which nobody
 * holds while he sends or sleeps. Watchers are told with the mutex held: that
 * is a push into a mailbox, and it keeps the events in the order of the
 * changes, whichever threads make them.
 */

#include <pthread.h>

#include <troupe/name.h>

#include "actor/runtime.h"
#include "member/member.h"
#include "name/registry_core.h"

/* Actors that watch, on one node. */
#define TRI_WATCHES_MAX 4096u
/* Packets of one step; more are dropped, and asked for again. */
#define TRI_DIRECTORY_OUT_MAX 96u
/* Names whose turns (TROUPE_RESOLVE_ROUND_ROBIN) are told apart. */
#define TRI_DIRECTORY_TURNS 256u

struct tri_name_watch {
    uint32_t id; /* 0: free */
    uint32_t slot;
    uint32_t generation;
    uint16_t prefix_len;
    char prefix[TRI_NAME_LEN_MAX + 1];
};

/* An own name that an earlier holder elsewhere has. */
struct tri_loss {
    struct tri_loss *next;
    troupe_ref_t ref;
    char name[TRI_NAME_LEN_MAX + 1];
};

struct tri_directory {
    struct tri_runtime *runtime;
    _Atomic uint32_t waiting; /* threads that wait for a name */

    pthread_mutex_t mutex; /* what follows */
    struct tri_registry *registry;
    struct tri_name_watch *watches;
    uint32_t watches_len; /* places ever used */
    uint32_t watches_max; /* of memory */
    uint32_t watch_ids;
    struct tri_loss *losses;
    struct tri_random random;
    troupe_ref_t turns[TRI_DIRECTORY_TURNS];
    uint64_t full; /* as the registry last said */

    struct { /* of the control thread alone */
        uint32_t len;
        struct tri_directory_packet {
            uint64_t to;
            uint32_t bytes;
            unsigned char body[TRI_REGISTRY_BODY_MAX];
        } packets[TRI_DIRECTORY_OUT_MAX];
    } out;
};

/*
 * Makes the node's directory and joins it to the table of its own names and,
 * if there is one, to its membership. Before the threads start.
 * Errors: ENOMEM, ELIMIT.
 */
int tri_directory_open(struct tri_runtime *runtime);

/* This node is out of the cluster: its actors lose their strictly unique names
 * and are told. The control thread. */
void tri_directory_lose_strict(struct tri_runtime *runtime);

/* The threads have ended. */
void tri_directory_close(struct tri_runtime *runtime);

/* What is looked for. */
struct tri_query {
    const char *name;
    size_t name_len;
    uint32_t protocol; /* hash, or 0: anything */
    uint64_t node;     /* 0: anywhere */
    const troupe_resolve_options_t *options;
};

/*
 * Chooses an instance by the query's policy. Any thread.
 * Errors: ENONAME, ETYPE (all instances have another protocol).
 */
int tri_directory_find(struct tri_directory *directory,
                       const struct tri_query *query, troupe_ref_t *ref_p);

/* Tells who watches the entry's name. */
void tri_directory_tell_locked(struct tri_directory *directory, uint32_t what,
                               const struct tri_registry_entry *entry);

static inline troupe_ref_t
tri_directory_ref(const struct tri_registry_entry *entry)
{
    return (troupe_ref_t){ entry->owner->node, entry->slot,
                           entry->generation };
}

/* enum troupe_unique */
static inline uint32_t
tri_directory_unique(const struct tri_registry_entry *entry)
{
    if ((entry->flags & TRI_ENTRY_STRICT) != 0)
        return TROUPE_UNIQUE_STRICT;
    return (entry->flags & TRI_ENTRY_UNIQUE) != 0 ? TROUPE_UNIQUE_SOON
                                                  : TROUPE_UNIQUE_NOT;
}

/* An order of refs: below 0, 0, above 0. */
static inline int tri_directory_compare(troupe_ref_t a, troupe_ref_t b)
{
    if (a.node != b.node)
        return a.node < b.node ? -1 : 1;
    if (a.slot != b.slot)
        return a.slot < b.slot ? -1 : 1;
    return (a.generation > b.generation) - (a.generation < b.generation);
}

#endif
