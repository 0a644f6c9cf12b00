/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SWIM_INTERNAL_H
#define TRI_SWIM_INTERNAL_H

/*
 * What the files of the SWIM core share; see swim_core.h for the protocol.
 *
 *   swim_core.c    life, events, the clock's work, what users ask
 *   swim_table.c   records, the order of probing, the digest
 *   swim_opinion.c what news do to the table: precedence, suspicion, exclusion
 *   swim_gossip.c  rumours and the packets they travel in
 *   swim_probe.c   probes, helpers, local health
 *   swim_sync.c    digests, lists of members, joining, leaving, the dead,
 *                  addresses where others may live
 *
 * A record is 32 bytes, its place in the index at most 16 and in the order 4.
 * Rumours and details (suspicions, deaths) are in arrays of their own, whose
 * memory is touched only as far as it is needed. 4096 nodes that know each
 * other fit into 1 GB.
 */

#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "member/swim_core.h"

#define NONE UINT32_MAX
#define OWN 0u /* record 0 is this node's */

/* Rumours by how often they were sent: 63 times at most, which the formula
 * reaches at a loss of 74 % among 10,000. */
#define LEVELS 64
/* A suspicion's accusers that are told apart: alpha - 1 are used. */
#define ACCUSERS_MAX 5
#define HEALTH_MAX 7u
/* The periodic probe, and those that evidence asks for at once. */
#define PROBES_MAX 8
#define HELPERS_MAX 8
/* Probes run for others. Each member asks k others at a time; more than 32 ask
 * one node only when a good part of a cluster falls silent, and then a nack at
 * once says enough. */
#define RELAYS_MAX 32
#define URGENT_MAX 16
#define SESSIONS_MAX 64
#define SEEDS_MAX 64
#define RTTS 64
/* Packets in one answer to a joiner: half of what a step can send. */
#define WINDOW 8u
/* Up to so many members a leaver tells them itself. */
#define TELL_ALL_MAX 64u

struct record {
    uint64_t node;
    uint32_t incarnation;
    uint32_t order;  /* place in the order of probing; NONE: not there */
    uint32_t rumour; /* news on the way about it; or NONE */
    uint32_t detail; /* suspicion or death; or NONE */
    uint8_t state;
    uint8_t evidence;
    bool strong; /* strong evidence came and no answer since */
    bool unmet;  /* was dead when first heard of: nobody has its card */
    bool turned; /* has told us that we are dead to it */
    uint8_t reserved[3];
};

struct detail {
    uint64_t since_ns;
    uint64_t min_ns, max_ns; /* a suspicion's length */
    uint64_t called_ns;     /* the last call went out; 0: not yet */
    uint64_t accusers[ACCUSERS_MAX];
    uint8_t accusers_len;
    uint8_t confirmations;  /* K: wanted */
    bool answered;          /* the last call, by somebody who agrees */
    bool doubtful;          /* this node was away or deaf meanwhile */
    uint32_t place;         /* in suspects; free: the next free one */
};

struct rumour {
    uint32_t prev, next; /* of its level, circular; free: the next free one */
    uint32_t record;
    uint8_t sent;
    bool with_card;
};

enum probe_stage {
    PROBE_FREE,
    PROBE_PINGED, /* once */
    PROBE_AGAIN,  /* twice */
    PROBE_ASKED,  /* helpers, too */
};

struct probe {
    enum probe_stage stage;
    uint32_t sequence; /* of the first ping; the second's is one more */
    uint64_t node;
    uint64_t start_ns, again_ns, asked_ns, end_ns;
    uint64_t heard; /* count of what was received, at the start */
    uint64_t helpers[HELPERS_MAX];
    uint32_t helpers_len;
    uint32_t nacks; /* bit i: helpers[i] */
};

struct relay {
    uint64_t requester; /* 0: free */
    uint64_t target;
    uint32_t wanted;   /* the requester's sequence */
    uint32_t sequence; /* ours */
    uint64_t nack_ns;  /* never: it was sent */
    uint64_t end_ns;
};

struct session {
    uint64_t node;
    uint64_t until_ns;
};

enum join_phase {
    JOIN_NONE,    /* a member, or alone */
    JOIN_SEEDS,   /* no seed has answered yet */
    JOIN_PULLING, /* fetching the list */
    JOIN_MERGING, /* a member; fetching that of others it did not know of */
};

struct join {
    enum join_phase phase;
    uint32_t seeds_len, seed_at, round;
    uint8_t seeds[SEEDS_MAX]; /* in the order of trying */
    uint64_t due_ns;
    uint64_t helper; /* who gives the list */
    uint32_t cursor;
    uint32_t tries;
    uint32_t helpers; /* that were asked in vain, one after the other */
    uint32_t retries; /* JOIN_RETRYs since a part of the list came */
    uint32_t window_end; /* cursor behind what was asked for, when known */
    struct {
        uint32_t start, end;
    } ahead[WINDOW]; /* chunks that came before those in front of them */
    uint32_t ahead_len;
};

struct tri_swim {
    struct tri_swim_config config;
    struct tri_random random;
    struct tri_swim_effects *effects; /* of the step that runs */
    bool started, silent, leaving, excluded;
    uint64_t now_ns, last_ns, due_ns;

    struct record *records;
    uint32_t records_len;
    uint32_t *index;                /* hash of the node id; linear probing */
    uint32_t index_mask;
    uint32_t *order; /* ALIVE and SUSPECT, without this node */
    uint32_t order_len, order_at;
    uint32_t counts[TRI_SWIM_STATE_LAST + 1];
    uint64_t lowest;
    bool lowest_stale;
    uint64_t view_epoch; /* own */
    uint64_t buckets[TRI_SWIM_BUCKETS];
    uint64_t forget_ns; /* not before is a search for a free slot of use */

    struct detail *details;
    uint32_t details_len, details_free;
    uint32_t *suspects; /* records */
    uint32_t suspects_len;
    uint64_t suspects_due_ns; /* no suspicion ends earlier */

    struct rumour *rumours;
    uint32_t rumours_len, rumours_free;
    uint32_t levels[LEVELS];
    uint64_t levels_used; /* bit i: level i has rumours */
    uint64_t gossiped_ns, retold_ns, asked_ns;
    uint32_t filled; /* packets that took rumours along; see G5 */
    uint32_t tell_at; /* leaving: place in the order; or NONE */

    struct probe probes[PROBES_MAX]; /* 0: the periodic one */
    struct relay relays[RELAYS_MAX];
    uint64_t urgent[URGENT_MAX];
    uint32_t urgent_len;
    uint64_t probe_ns; /* when the next periodic one starts */
    uint32_t sequence;
    uint64_t heard, heard_ns; /* packets received; the last time */
    uint64_t call_ns;         /* deaf: when to call somebody again */
    bool postponed;           /* rule A keeps a suspicion's end back */
    uint32_t health;
    uint32_t rtts[RTTS];
    uint32_t rtts_at, rtt_us;

    struct session sessions[SESSIONS_MAX];
    struct join join;
    uint64_t digest_ns, announce_ns, linger_ns;
    uint64_t knock_ns;       /* in silence: no address is called before, */
    uint64_t knock_pause_ns; /* after this pause; 0: somebody was heard */
    uint64_t knocked_ns;     /* an address was called and nobody new has
                                answered yet; 0: none */
    uint64_t digest_pause_ns; /* after a join: doubles to the usual; 0: none */
    uint64_t announce_pause_ns; /* after a death: as digest_pause_ns */
    uint64_t winner; /* who excluded us, for the larger side; or 0 */
    uint64_t hint_ns;
    uint32_t hints_len; /* still to be sent */

    struct tri_swim_metrics metrics;
};

static inline bool is_live(unsigned state)
{
    return state == TRI_SWIM_ALIVE || state == TRI_SWIM_SUSPECT;
}

static inline uint32_t live_len(const struct tri_swim *swim)
{
    return swim->counts[TRI_SWIM_ALIVE] + swim->counts[TRI_SWIM_SUSPECT];
}

/* Without the list: it serves none, and asks to be asked later. */
static inline bool is_joining(const struct tri_swim *swim)
{
    return swim->join.phase == JOIN_SEEDS || swim->join.phase == JOIN_PULLING;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline bool has_rule(const struct tri_swim *swim, uint32_t without)
{
    return (swim->config.ablate & without) == 0;
}

/* The period as the health stretches it. */
static inline uint64_t own_period_ns(const struct tri_swim *swim)
{
    return swim->config.times.period * (swim->health + 1);
}

static inline uint64_t random_ns(struct tri_swim *swim, uint64_t below)
{
    return below == 0 ? 0 : tri_random_next(&swim->random) % below;
}

/* --- swim_table.c --- */

int tri_swim_table_init(struct tri_swim *swim);
void tri_swim_table_fini(struct tri_swim *swim);

/* The record of a node, or NONE. */
uint32_t tri_swim_find(const struct tri_swim *swim, uint64_t node);

/* A new record, UNKNOWN; NONE: no room, and none of the dead is old enough. */
uint32_t tri_swim_record_add(struct tri_swim *swim, uint64_t node);

/* Gives a record the state, incarnation and evidence of the news, and keeps
 * counts, order, digest and detail true. A detail of SUSPECT, DEAD and LEFT
 * starts with the news' accuser. */
void tri_swim_record_set(struct tri_swim *swim, uint32_t index,
                         const struct tri_rumour *news);

uint64_t tri_swim_lowest(struct tri_swim *swim);

/* A living member, not this one and not `except`; NONE: there is none. */
uint32_t tri_swim_random_member(struct tri_swim *swim, uint64_t except);

/* The next to be probed; NONE: no members. */
uint32_t tri_swim_next_in_order(struct tri_swim *swim);

static inline uint32_t bucket_of(uint64_t node)
{
    return (uint32_t)(tri_mix64(node) >> 58);
}

/* --- swim_opinion.c --- */

/* News from a packet (or from here). Returns true when they changed
 * something. `spread`: pass on what is new. */
bool tri_swim_hear(struct tri_swim *swim, const struct tri_rumour *news,
                   bool spread);

/* Suspicion or death, as found here. */
void tri_swim_accuse(struct tri_swim *swim, uint32_t index,
                     enum tri_swim_state state,
                     enum tri_swim_evidence evidence);

/* Strong evidence about a living member: its suspicion, now or later, is as
 * short as it can be. */
void tri_swim_strong(struct tri_swim *swim, uint32_t index);

/* This node was away for so long, or deaf: suspicions go on from where they
 * were, and no verdict comes without a last call. */
void tri_swim_suspicions_shift(struct tri_swim *swim, uint64_t gap_ns);

/* A member has told what it knows about a node: nothing better. */
void tri_swim_call_answered(struct tri_swim *swim, uint64_t node);

/* Ends what suspicions are over. */
void tri_swim_suspicions_tick(struct tri_swim *swim);

/* Somebody says that this node is dead to its side. */
void tri_swim_told_excluded(struct tri_swim *swim,
                            const struct tri_swim_packet *packet,
                            bool from_dead);

/* A member says that its excluder is `target`, whom we never met. */
void tri_swim_follow_excluded(struct tri_swim *swim,
                              const struct tri_swim_packet *packet);

double tri_swim_ln(uint32_t n);

/* --- swim_gossip.c --- */

int tri_swim_gossip_init(struct tri_swim *swim);
void tri_swim_gossip_fini(struct tri_swim *swim);

/* The record's opinion is news: it is sent from now on, from count 0. */
void tri_swim_rumour_start(struct tri_swim *swim, uint32_t index,
                           bool with_card);
void tri_swim_rumour_drop(struct tri_swim *swim, uint32_t index);

/* The record as a rumour; of several accusers the turn-th. */
void tri_swim_rumour_of(const struct tri_swim *swim, uint32_t index,
                        uint32_t turn, bool with_card,
                        struct tri_rumour *rumour_p);

/* A packet among the effects, its header filled in; NULL: there is no room,
 * or this node says nothing any more. */
struct tri_swim_packet *tri_swim_send(struct tri_swim *swim, unsigned kind,
                                      uint64_t to);

/* Room for a rumour in the packet's budget? If so it is added. */
bool tri_swim_put(struct tri_swim *swim, struct tri_swim_packet *packet,
                  const struct tri_rumour *rumour);

/* Adds rumours, those sent least first, and counts them as sent. */
void tri_swim_fill(struct tri_swim *swim, struct tri_swim_packet *packet);

uint64_t tri_swim_gossip_due(const struct tri_swim *swim);
void tri_swim_gossip_tick(struct tri_swim *swim);

/* --- swim_probe.c --- */

void tri_swim_health_add(struct tri_swim *swim, int by);
uint64_t tri_swim_probes_due(const struct tri_swim *swim);
void tri_swim_probes_tick(struct tri_swim *swim);
void tri_swim_probes_drop(struct tri_swim *swim);
/* One that belongs to no probe. False: there was no room. */
bool tri_swim_ping(struct tri_swim *swim, uint32_t index);

void tri_swim_urgent(struct tri_swim *swim, uint64_t node);

/* An answer, or other traffic, of a node that may be being probed. */
void tri_swim_answered(struct tri_swim *swim, uint64_t node);

void tri_swim_on_ping(struct tri_swim *swim,
                      const struct tri_swim_packet *packet);
void tri_swim_on_ack(struct tri_swim *swim,
                     const struct tri_swim_packet *packet);
void tri_swim_on_ping_req(struct tri_swim *swim,
                          const struct tri_swim_packet *packet);
void tri_swim_on_nack(struct tri_swim *swim,
                      const struct tri_swim_packet *packet);

/* --- swim_sync.c --- */

uint64_t tri_swim_sync_due(const struct tri_swim *swim);
void tri_swim_sync_tick(struct tri_swim *swim);
void tri_swim_digest_soon(struct tri_swim *swim);
void tri_swim_announce_soon(struct tri_swim *swim);
void tri_swim_join_start(struct tri_swim *swim, uint32_t seeds_len);
void tri_swim_leave_start(struct tri_swim *swim);

/* Asks a suspect, and some others about it. False: there was no room. */
bool tri_swim_last_call(struct tri_swim *swim, uint32_t index);
/* Asks some about many suspects, and the first few of these. Returns how many
 * found room, from the first on; 0: there was none. */
uint32_t tri_swim_last_calls(struct tri_swim *swim, const uint32_t *indexes,
                             uint32_t len);
void tri_swim_ask_about(struct tri_swim *swim, uint64_t to, uint64_t node);

void tri_swim_on_join(struct tri_swim *swim,
                      const struct tri_swim_packet *packet);
void tri_swim_on_join_retry(struct tri_swim *swim,
                            const struct tri_swim_packet *packet);
void tri_swim_on_digest(struct tri_swim *swim,
                        const struct tri_swim_packet *packet);
void tri_swim_on_buckets(struct tri_swim *swim,
                         const struct tri_swim_packet *packet);
void tri_swim_on_state_req(struct tri_swim *swim,
                           const struct tri_swim_packet *packet);
void tri_swim_on_state(struct tri_swim *swim,
                       const struct tri_swim_packet *packet);

/* The list of a stranger: true when it answers a call of ours to an address,
 * so that it is wanted. */
bool tri_swim_merge_start(struct tri_swim *swim,
                          const struct tri_swim_packet *packet);

#endif
