/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_TRAITS_CORE_H
#define TRI_TRAITS_CORE_H

/*
 * How members learn what others say of themselves (member/traits.h): by gossip
 * when it is new, by comparing with a random member now and then for what the
 * gossip missed.
 *
 * Pure: events in, effects out; no clock, no I/O, no allocation but at create,
 * seeded randomness.
 *
 *   gossip    What is new is sent to `fanout` random members in a round, the
 *             least sent first, ceil((ln n + 7) / (1 - loss)) times in all; the
 *             first round leaves at once.
 *   exchange  HASH to a random member. If its hash is another, it lists what it
 *             knows, part by part (KNOWN, WANT); each side sends the other what
 *             that lacks. More often while a node is new.
 *
 * Invariants (tests/sim/test_traits.c):
 *   1. What is known of a node never gets older; only its owner makes it newer.
 *   2. Of a node that is not a member nothing is kept.
 *   3. All datagrams together keep to bytes_per_s, but for a burst of half a
 *      second's worth: with much to tell it takes longer, not more.
 *   4. When nothing changes any more, all get to know the same.
 */

#include "member/traits.h"

struct tri_traits_core;

struct tri_traits_config {
    uint64_t node;
    uint64_t seed;          /* of the randomness */
    uint32_t members_max;   /* this one included */
    double loss;            /* assumed; 0.05 */
    uint32_t fanout;        /* 3 */
    uint64_t gossip_ns;     /* between rounds; 100 ms */
    uint64_t exchange_ns;   /* 10 s; a tenth of that for a new node */
    uint32_t bytes_per_s;   /* 16 KiB */
    uint32_t overhead_bytes; /* of a datagram, beside the body; 108 */
};

/* Defaults for everything but node, seed and members_max. */
void tri_traits_config_init(struct tri_traits_config *config);

enum tri_traits_event_kind {
    TRI_TRAITS_TICK,
    TRI_TRAITS_PACKET, /* from `node` */
    TRI_TRAITS_JOINED, /* `node` is a member */
    TRI_TRAITS_GONE,   /* … and is one no more */
    TRI_TRAITS_OWN,    /* this node's own are `traits` now */
};

struct tri_traits_event {
    enum tri_traits_event_kind kind;
    uint64_t now_ns;
    uint64_t node;
    const struct tri_traits_packet *packet;
    const struct tri_traits *traits;
};

#define TRI_TRAITS_SENDS_MAX 12

struct tri_traits_send {
    uint64_t to;
    uint32_t bytes;
    unsigned char body[TRI_TRAITS_BODY_MAX];
};

/* What a step asks for. Cleared by the step first. */
struct tri_traits_effects {
    uint32_t sends_len;
    uint32_t changes_len;
    /* Traits of others that are newer now; valid until the next step. */
    const struct tri_traits *changes[TRI_TRAITS_NEWS_MAX];
    struct tri_traits_send sends[TRI_TRAITS_SENDS_MAX];
};

/* Errors: ENOMEM, EINVAL. */
int tri_traits_core_create(const struct tri_traits_config *config,
                           struct tri_traits_core **core_p);
void tri_traits_core_destroy(struct tri_traits_core **core_p);

/* Handles one event. Never fails: of more members than members_max nothing is
 * known. */
void tri_traits_core_step(struct tri_traits_core *core,
                          const struct tri_traits_event *event,
                          struct tri_traits_effects *effects);

/* When the next TICK is due; UINT64_MAX: not by time. */
uint64_t tri_traits_core_due_ns(const struct tri_traits_core *core);

/* What is known of a node, or NULL: it is no member. */
const struct tri_traits *
tri_traits_core_get(const struct tri_traits_core *core, uint64_t node);

/* Equal when two nodes know the same. */
uint64_t tri_traits_core_hash(const struct tri_traits_core *core);

#endif
