/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_REGISTRY_CORE_H
#define TRI_REGISTRY_CORE_H

/*
 * The registry: the names of all actors of the cluster, held by every node.
 * Pure: events in, packets and changes out. No clock (time is in the event), no
 * I/O, no allocation but at init, seeded randomness. tests/sim drives this file
 * on a virtual clock.
 *
 * Each node owns its entries and alone writes them: every registration and
 * withdrawal takes the next of its versions. What travels are sections: all of
 * an owner's entries with versions in (base, upto]. Who has reached base and
 * takes a section has reached upto, so that a part of a list is a prefix of it.
 * News goes at once to a few members, and from them to others, some times; who
 * finds a gap, or hears of a version that it lacks, asks for the rest; and now
 * and then two members compare digests, which heals what was lost.
 *
 * A withdrawn name stays as a deleted entry (a tombstone) until the owner
 * collects it: from then on who has not reached `collected` takes the owner's
 * list anew, as a whole. Entries of before stay visible until that is there.
 *
 * Of a name that anybody registered as unique one holder remains: the one with
 * the smallest stamp (epoch, counter, node id). An owner that learns of a
 * smaller one withdraws its own and is told LOST. A strict one comes before all
 * that are not, and is not lost to another strict one: the nodes have agreed to
 * the later, so the earlier is gone, and word of that under way.
 *
 * Invariants (tests/sim checks them):
 *   1. Only the owner makes versions; a node's (collected, version) of an owner
 *      never goes back.
 *   2. A node that has reached a version holds no entry that the owner changed
 *      at or before it: what was withdrawn does not come back.
 *   3. There are no entries of nodes that are not members; news of them is
 *      dropped. A node id that is gone never is a member again.
 *   4. When all is quiet all members hold the same entries, and of each unique
 *      name one.
 *   5. Table, packets and traffic are bounded: when the table is full, versions
 *      stand still.
 */

#include "base/base.h"
#include "base/random.h"
#include "name/registry_packet.h"

#define TRI_REGISTRY_NAME_MAX 255u

struct tri_registry_owner;

/* One name of one node. Read only, but for the core. */
struct tri_registry_entry {
    struct tri_registry_owner *owner;
    struct tri_registry_entry *older; /* of the owner, by version */
    struct tri_registry_entry *newer;
    struct tri_registry_entry *next; /* in a bucket, or in the free list */
    uint64_t version;
    struct tri_stamp stamp;
    uint64_t deleted_ns; /* own tombstones: since when */
    uint32_t slot;
    uint32_t generation;
    uint32_t protocol; /* hash */
    uint32_t hash;     /* of the name */
    uint8_t flags;     /* TRI_ENTRY_… */
    bool stale;        /* of before a reset; goes when the list is whole */
    uint16_t name_len;
    uint16_t tags_len;
    char name[TRI_REGISTRY_NAME_MAX + 1]; /* ends in a zero, as tags do */
    char tags[TRI_REGISTRY_TAGS_MAX + 1];
};

struct tri_registry_owner {
    uint64_t node;
    uint64_t version;   /* reached */
    uint64_t collected;
    uint64_t known;     /* the highest version heard of */
    uint64_t source;    /* by whom */
    uint64_t asked_ns;  /* for the rest; 0: never */
    uint32_t asked;     /* times since the last answer */
    uint32_t left;      /* how often the news is to be passed on */
    uint64_t fresh_from; /* the news are the versions after this one */
    bool urgent;        /* the news was not passed on yet */
    bool pushed;        /* `known` came as news: what is asked for is, too */
    bool pulled;        /* all of it is old: it is not passed on */
    bool suspect;
    uint32_t stale_len;
    struct tri_registry_entry *oldest, *newest;
    struct tri_registry_owner *next; /* in the free list */
};

struct tri_registry_config {
    uint64_t node;
    uint64_t seed;
    uint32_t entries_max; /* tombstones included */
    uint32_t owners_max;  /* this node included */
    uint32_t fanout;
    uint32_t budget_bytes; /* a second, over a longer time */
    uint32_t burst_bytes;  /* what may be saved up: for who begins with many
                              names, or has to tell a joiner of them */
    uint64_t push_ns;      /* between two rounds of news; doubles as long as
                              they are the same, up to */
    uint64_t gossip_ns;
    uint64_t retry_ns;     /* until what was asked for is asked for again */
    uint64_t digest_first_ns; /* of who has joined; doubles up to */
    uint64_t digest_soon_ns;  /* in the first time after a join */
    uint64_t digest_ns;    /* later; grows with the cluster */
    uint64_t soon_ns;      /* how long that first time is */
    uint64_t tombstone_ns; /* at least, before they are collected */
    uint32_t tombstone_rumours; /* and so many times what a rumour takes */
};

/* The defaults of all but node and seed. */
void tri_registry_config_init(struct tri_registry_config *config);

enum tri_registry_what {
    TRI_REGISTRY_ADDED = 1,
    TRI_REGISTRY_REMOVED, /* the entry is still as it was */
    TRI_REGISTRY_LOST, /* one of our own, to an earlier one; REMOVED follows */
};

/* What a step asks for. Calls, since an owner's end changes any number of
 * entries at once; they must not call the core. */
struct tri_registry_sink {
    void *context;
    void (*send)(void *context, uint64_t to, const void *body, size_t bytes);
    void (*changed)(void *context, enum tri_registry_what what,
                    const struct tri_registry_entry *entry);
};

enum tri_registry_event_kind {
    TRI_REGISTRY_TICK,
    TRI_REGISTRY_PACKET,
    TRI_REGISTRY_JOINED, /* also what is known from the start */
    TRI_REGISTRY_SUSPECTED,
    TRI_REGISTRY_RECOVERED,
    TRI_REGISTRY_GONE, /* dead or left: for good */
};

struct tri_registry_event {
    enum tri_registry_event_kind kind;
    uint64_t now_ns;
    uint64_t node;    /* who it is about, or who sent the packet */
    const void *body; /* PACKET */
    size_t body_bytes;
};

struct tri_registry_metrics {
    uint64_t packets_out, bytes_out;
    uint64_t requests, resets, digests;
    uint64_t full;    /* entries for which there was no room */
    uint64_t unknown; /* sections of nodes that are no members */
    uint64_t lost;
};

struct tri_registry;

/* Errors: ENOMEM, EINVAL. */
int tri_registry_create(const struct tri_registry_config *config,
                        const struct tri_registry_sink *sink,
                        struct tri_registry **registry_p);
void tri_registry_destroy(struct tri_registry **registry_p);

/* Handles one event. Returns NULL, or what is wrong with the packet. */
const char *tri_registry_step(struct tri_registry *registry,
                              const struct tri_registry_event *event);

/* When the next TICK is due; UINT64_MAX: not by time. */
uint64_t tri_registry_due_ns(const struct tri_registry *registry);

/* What a node says of an actor of its own. */
struct tri_registry_claim {
    const char *name;
    const char *tags; /* NULL: none */
    uint32_t slot;
    uint32_t generation;
    uint32_t protocol;
    bool unique;
    bool strict; /* with unique: all nodes have agreed, it is not taken */
};

/*
 * Registers a name of this node. It is due to be told others at once.
 * Errors: EEXIST (this node has it, or it is unique: here or where somebody is
 * known to have it), ELIMIT, EINVAL (a length).
 */
int tri_registry_add(struct tri_registry *registry, uint64_t now_ns,
                     const struct tri_registry_claim *claim);

/* Withdraws a name of this node, if it still belongs to that actor. */
void tri_registry_withdraw(struct tri_registry *registry, uint64_t now_ns,
                           const char *name, uint32_t slot,
                           uint32_t generation);

/* The others went on without this node: its strictly unique names are lost. */
void tri_registry_lose_strict(struct tri_registry *registry, uint64_t now_ns);

/* --- looking -------------------------------------------------------------- */

/* Walks the instances of a name; of a unique one the holder. */
struct tri_registry_walk {
    struct tri_registry *registry;
    const char *name;
    size_t name_len;
    uint32_t hash;
    const struct tri_registry_entry *at;
    bool is_unique;
};

const struct tri_registry_entry *
tri_registry_first(struct tri_registry *registry, const char *name,
                   size_t name_len, struct tri_registry_walk *walk_p);
const struct tri_registry_entry *
tri_registry_next(struct tri_registry_walk *walk);

/* Walks all entries, in no order: index from 0, grows; NULL: no more.
 * Tombstones are left out. */
const struct tri_registry_entry *
tri_registry_each(const struct tri_registry *registry, uint32_t *index_p);

/* True when the entry is the one that counts: see tri_registry_first. */
bool tri_registry_holds(struct tri_registry *registry,
                        const struct tri_registry_entry *entry);

/* What is known of an owner, or NULL: no member. */
const struct tri_registry_owner *
tri_registry_owner_of(const struct tri_registry *registry, uint64_t node);

uint64_t tri_registry_digest(const struct tri_registry *registry);
uint32_t tri_registry_len(const struct tri_registry *registry); /* entries */
struct tri_registry_metrics
tri_registry_metrics(const struct tri_registry *registry);

#endif
