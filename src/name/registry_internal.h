/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_REGISTRY_INTERNAL_H
#define TRI_REGISTRY_INTERNAL_H

/*
 * What the registry's files share: registry_table.c keeps owners and entries,
 * registry_core.c says what is sent when, registry_digest.c answers.
 */

#include "name/registry_core.h"

/* A packet of news that came before what belongs in front of it. */
struct tri_registry_early {
    uint64_t from;
    uint32_t bytes; /* 0: none */
    unsigned char body[TRI_REGISTRY_BODY_MAX];
};

/* Two answers in full, and some news. */
#define TRI_REGISTRY_EARLY_MAX 20u

struct tri_registry {
    struct tri_registry_config config;
    struct tri_registry_sink sink;
    struct tri_random random;
    struct tri_registry_metrics metrics;
    uint64_t now_ns; /* of the event being handled */

    /* the table */
    struct tri_registry_entry *entries; /* touched as far as they are used */
    struct tri_registry_entry *entries_free;
    uint32_t entries_used; /* ever */
    uint32_t entries_len;  /* now, tombstones included */
    struct tri_registry_entry **buckets;
    uint32_t buckets_mask;
    struct tri_registry_owner *owners;
    struct tri_registry_owner *owners_free;
    uint32_t owners_used;
    struct tri_registry_owner **members; /* by node id */
    uint32_t members_len;
    struct tri_registry_owner *self;
    uint64_t hashes[TRI_REGISTRY_BUCKETS]; /* of (owner, version) */
    uint64_t counter;   /* Lamport's clock */
    uint32_t tombstones; /* own */

    /* what is to be done */
    int64_t credit;      /* bytes that may be sent */
    uint64_t credit_ns;  /* when that was so */
    bool has_news;
    uint64_t push_ns;    /* when the next round of news goes */
    uint64_t pushed_ns;  /* when the last one went */
    uint64_t push_gap_ns; /* to the next one; doubles up to gossip_ns */
    bool is_behind;      /* somebody has more than we do */
    uint64_t retry_ns;   /* when to ask again */
    uint64_t digest_due_ns;
    uint64_t digest_gap_ns; /* of who has joined; doubles */
    uint64_t soon_until_ns;
    uint64_t collect_ns;
    uint32_t round_robin; /* members whose news came last */

    struct tri_registry_early early[TRI_REGISTRY_EARLY_MAX];
    uint32_t early_next; /* to be overwritten */
};

/* --- registry_table.c ----------------------------------------------------- */

int tri_registry_table_init(struct tri_registry *registry);
void tri_registry_table_fini(struct tri_registry *registry);

struct tri_registry_owner *
tri_registry_owner(const struct tri_registry *registry, uint64_t node);

/* Where a node id is in `members`, or would be. */
uint32_t tri_registry_place(const struct tri_registry *registry, uint64_t node);

/* The new owner, or NULL: known already, or the table is full. */
struct tri_registry_owner *tri_registry_owner_add(struct tri_registry *registry,
                                                  uint64_t node);
/* Its entries go with it. */
void tri_registry_owner_remove(struct tri_registry *registry,
                               struct tri_registry_owner *owner);

/* Raises or resets the version reached, and the hashes with it. */
void tri_registry_set_version(struct tri_registry *registry,
                              struct tri_registry_owner *owner,
                              uint64_t version);

/*
 * Puts an entry, the newest of its owner, into the table. NULL: the table is
 * full.
 */
struct tri_registry_entry *
tri_registry_put(struct tri_registry *registry,
                 struct tri_registry_owner *owner,
                 const struct tri_registry_item *item);

/* What an entry looks like when it travels. */
struct tri_registry_item
tri_registry_item_of(const struct tri_registry_entry *entry);

/* The owner's entry of that name, tombstones included, or NULL. */
struct tri_registry_entry *
tri_registry_entry_of(struct tri_registry *registry,
                      const struct tri_registry_owner *owner, const char *name,
                      size_t name_len);

/* Frees tombstones of the owner up to a version. */
void tri_registry_collect(struct tri_registry *registry,
                          struct tri_registry_owner *owner, uint64_t upto);

/* Before the owner's list is taken as a whole, and after. */
void tri_registry_make_stale(struct tri_registry_owner *owner);
void tri_registry_sweep(struct tri_registry *registry,
                        struct tri_registry_owner *owner);

/* Withdraws own entries of that name if an earlier holder has it. */
void tri_registry_settle(struct tri_registry *registry, const char *name,
                         size_t name_len);

/* Gives an own entry the next version. Errors: ELIMIT. */
int tri_registry_write(struct tri_registry *registry,
                       struct tri_registry_item *item);

/* --- registry_core.c ------------------------------------------------------ */

/* The owner's versions after `before` are news. */
void tri_registry_news(struct tri_registry *registry,
                       struct tri_registry_owner *owner, uint64_t before);

void tri_registry_send(struct tri_registry *registry, uint64_t to,
                       const struct tri_registry_writer *writer);

/* One of the other members; there has to be one. */
uint64_t tri_registry_random_other(struct tri_registry *registry);

static inline uint32_t tri_registry_others(const struct tri_registry *registry)
{
    return registry->members_len - 1;
}

/* Threads that bring an event may have looked at the clock in another order. */
static inline void tri_registry_pass_time(struct tri_registry *registry,
                                          uint64_t now_ns)
{
    if (registry->now_ns < now_ns)
        registry->now_ns = now_ns;
}

/* Of a list that is being taken anew, there is nothing to tell. */
static inline bool
tri_registry_is_whole(const struct tri_registry_owner *owner)
{
    return owner->version >= owner->collected && owner->stale_len == 0;
}

/* The header of a section that goes up to what we have. */
static inline struct tri_registry_section
tri_registry_section_of(const struct tri_registry_owner *owner)
{
    return (struct tri_registry_section){
        .owner = owner->node,
        .version = owner->version,
        .collected = owner->collected,
        .upto = owner->version,
    };
}

/* --- registry_digest.c ---------------------------------------------------- */

/* Until the next digest. */
uint64_t tri_registry_digest_ns(struct tri_registry *registry);
void tri_registry_send_digest(struct tri_registry *registry);

/* What came from a member. */
void tri_registry_take_request(struct tri_registry *registry, uint64_t from,
                               struct tri_registry_reader *reader);
void tri_registry_take_digest(struct tri_registry *registry, uint64_t from,
                              uint64_t hash);
void tri_registry_take_buckets(struct tri_registry *registry, uint64_t from,
                               struct tri_registry_reader *reader);
void tri_registry_take_versions(struct tri_registry *registry, uint64_t from,
                                struct tri_registry_reader *reader);

#endif
