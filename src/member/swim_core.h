/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SWIM_CORE_H
#define TRI_SWIM_CORE_H

/*
 * Membership: SWIM (Das, Gupta, Motivala, DSN 2002) with Lifeguard (Dadgar,
 * Phillips, Currey, 2017) and what doc/failure.md adds to them: evidence
 * classes, no verdict by a node that heard nothing (rule A), a guard against
 * pauses of our own (rule B), a transmission count that grows with ln n, and
 * death that is final for a node id.
 *
 * Pure: events in, effects out. No clock (time is in the event, monotonic), no
 * I/O, no allocation but at init, seeded randomness. Packets are structures
 * here; member/packet.h makes bytes of them. tests/sim drives this file on a
 * virtual clock.
 *
 *               +-- refuted ---+
 *               v              |
 *   (unknown) ALIVE --probe--> SUSPECT --timer--> DEAD   (final)
 *               |  \--------proof-----------------^
 *               +------------- leave -----------> LEFT   (final)
 *
 * Invariants (tests/sim checks them after every event):
 *   1. An incarnation never goes back; only its owner raises it.
 *   2. Within one incarnation an opinion goes ALIVE, SUSPECT, DEAD only.
 *   3. DEAD and LEFT are never left under one node id, for as long as the
 *      record is kept: a node that was declared dead comes back under a new
 *      id. Records of the dead go when room is needed, oldest first, and not
 *      before `forget_ns`.
 *   4. No suspicion comes from a probe during which this node received nothing
 *      from anybody, and no death from a suspicion's timer while it received
 *      nothing for a period (two, among three members): rule A. Two members
 *      alone are exempt, as there nobody else could be heard; suspicions last
 *      twice as long instead.
 *   5. Packets keep to their budget; table, rumours and effects are bounded.
 *   6. What a node that is DEAD or LEFT here says changes nothing here but
 *      that it is told so (EXCLUDED), or that this node learns that it is on
 *      the smaller side of a cluster that fell apart.
 *
 * Death is final, so it wins whatever the incarnation: who has declared it can
 * not take it back, and all others have to follow for opinions to agree. A
 * refutation is in time only while it meets SUSPECT.
 *
 * Cards (how to reach a node) are not kept here. A node is added only by a
 * rumour with_card; one heard of without is asked for (STATE_REQ target). The
 * caller keeps the cards of the dead, too: they are called again (ANNOUNCE).
 * Packets may go `to` a node that is not in the table, in answer to one that
 * came from it: the caller sends them to where that came from, or drops them.
 */

#include "base/base.h"

enum tri_swim_state {
    TRI_SWIM_UNKNOWN, /* not in the table */
    TRI_SWIM_ALIVE,
    TRI_SWIM_SUSPECT,
    TRI_SWIM_DEAD,
    TRI_SWIM_LEFT,
    TRI_SWIM_STATE_LAST = TRI_SWIM_LEFT,
};

/* How sure an accusation is. */
enum tri_swim_evidence {
    TRI_SWIM_NO_EVIDENCE, /* of ALIVE and LEFT */
    TRI_SWIM_WEAK,        /* silence */
    TRI_SWIM_STRONG,      /* a connection closed, an address is unreachable:
                             probe now, suspicion starts at its minimum */
    TRI_SWIM_PROOF,       /* its process has ended: DEAD at once */
    TRI_SWIM_EVIDENCE_LAST = TRI_SWIM_PROOF,
};

/* News about one node. */
struct tri_rumour {
    uint64_t node;
    uint64_t accuser;     /* of SUSPECT and DEAD; else 0 */
    uint32_t incarnation;
    uint8_t state;        /* enum tri_swim_state */
    uint8_t evidence;     /* enum tri_swim_evidence */
    uint8_t with_card;    /* its card (how to reach it) travels along */
    uint8_t reserved;
};

/* Rumours that fit into a packet by number; by bytes, see config. */
#define TRI_SWIM_RUMOURS_MAX 48
#define TRI_SWIM_BUCKETS 64

enum tri_swim_kind {
    TRI_SWIM_PING = 1,
    TRI_SWIM_ACK,
    TRI_SWIM_PING_REQ, /* ping `target` for me */
    TRI_SWIM_NACK,     /* the target of PING_REQ has not answered yet */
    TRI_SWIM_GOSSIP,   /* rumours alone */
    TRI_SWIM_JOIN,     /* to an address, who is there is not known: to = 0 */
    TRI_SWIM_JOIN_RETRY, /* come again in retry_ms */
    TRI_SWIM_DIGEST,   /* hash of all */
    TRI_SWIM_BUCKETS_, /* hash of each bucket; asks for what differs */
    TRI_SWIM_STATE_REQ, /* entries from `cursor` on, of the buckets in `mask`
                          (0: all living members); or of `target` alone; or,
                          with cards, of those that its rumours name */
    TRI_SWIM_STATE,    /* rumours from the table, from `start` on; cursor: where
                          to go on, or UINT32_MAX: that was all */
    TRI_SWIM_ANNOUNCE, /* to one believed dead: we are here */
    TRI_SWIM_EXCLUDED, /* you are dead or left to me, for good. With a target:
                          that one has excluded me, ask it about yourself */
    TRI_SWIM_KIND_LAST = TRI_SWIM_EXCLUDED,
};

/* Flags of STATE_REQ and STATE. */
#define TRI_SWIM_CARDS 1u    /* entries with cards are wanted, are here */
#define TRI_SWIM_ASK_BACK 2u /* STATE_REQ: ask me for the same buckets */
#define TRI_SWIM_MORE 4u     /* STATE: further ones follow unasked */
#define TRI_SWIM_FLAGS_ALL 7u

#define TRI_SWIM_CURSOR_END UINT32_MAX

/* JOIN being sent, for `seed`: to where `target`, a node of the table, is or
 * was to be found. */
#define TRI_SWIM_SEED_NONE UINT8_MAX

struct tri_swim_packet {
    uint8_t kind;
    uint8_t seed;         /* JOIN being sent: which seed (not on the wire) */
    uint8_t flags;        /* STATE_REQ, STATE */
    uint8_t reserved;
    uint32_t rumours_len;
    uint64_t from;
    uint64_t to;
    uint64_t target;      /* PING_REQ, ACK through a helper, STATE_REQ, STATE,
                             EXCLUDED; JOIN being sent, see seed; else 0 */
    uint32_t incarnation; /* the sender's; all kinds */
    uint32_t alive_len;   /* all kinds: the sender's side, that is members that
                             are ALIVE to it (not SUSPECT), itself included */
    uint64_t lowest;      /* and the lowest node id among them; all kinds */
    uint64_t view_epoch;  /* as the datagram's header: of an agreed view, 0:
                             none; all kinds */
    uint32_t sequence;    /* PING, ACK, PING_REQ, NACK */
    uint32_t delay_us;    /* ACK: from receive to send; the caller may set it */
    uint32_t start;       /* STATE */
    uint32_t cursor;      /* STATE_REQ, STATE */
    uint32_t retry_ms;    /* JOIN_RETRY */
    uint32_t rumour_bytes; /* being sent: what the rumours take at most (not
                              on the wire) */
    uint64_t mask;        /* STATE_REQ, STATE: buckets, bit i: bucket i */
    uint64_t digest;      /* DIGEST, BUCKETS_ */
    uint64_t buckets[TRI_SWIM_BUCKETS]; /* BUCKETS_ only; else undefined */
    struct tri_rumour rumours[TRI_SWIM_RUMOURS_MAX]; /* the first rumours_len */
};

/* All durations in ns. doc/failure.md gives the reasons for the defaults. */
struct tri_swim_times {
    uint64_t period;          /* T: one probe */
    uint64_t timeout;         /* of a direct ping, at least */
    uint64_t gossip;          /* between two rounds of gossip; the first after
                                 a rest leaves at once */
    uint64_t digest;          /* between two digest exchanges, small cluster */
    uint64_t announce;        /* to the dead; in silence, to addresses */
    uint64_t pause_guard;     /* rule B: late by more than this is a pause */
    uint64_t forget;          /* how long the dead are remembered at least */
    uint64_t join_backoff_min, join_backoff_max;
    uint64_t linger_max;      /* after a leave */
};

enum tri_swim_profile {
    TRI_SWIM_HPC,   /* T 500 ms, timeout 150 ms: the default */
    TRI_SWIM_FAST,  /* T 200 ms, timeout 60 ms */
    TRI_SWIM_CLOUD, /* T 1 s, timeout 300 ms */
    TRI_SWIM_TEST,  /* T 100 ms, timeout 30 ms */
};

struct tri_swim_times tri_swim_times_of(enum tri_swim_profile profile);

/* For tests: rules that can be taken out, to see that something fails then. */
#define TRI_SWIM_WITHOUT_RULE_A 1u
#define TRI_SWIM_WITHOUT_RULE_B 2u
#define TRI_SWIM_WITHOUT_LN_N 4u     /* in the transmission count */
#define TRI_SWIM_WITHOUT_FINALITY 8u /* of DEAD */
/* Health, confirmations (a suspicion lasts its minimum), telling the suspect.
 * With rule A and rule B gone, too, it is plain SWIM. */
#define TRI_SWIM_WITHOUT_LIFEGUARD 16u
#define TRI_SWIM_PLAIN                                                         \
    (TRI_SWIM_WITHOUT_LIFEGUARD | TRI_SWIM_WITHOUT_RULE_A |                    \
     TRI_SWIM_WITHOUT_RULE_B)

struct tri_swim_config {
    uint64_t node;          /* not 0 */
    uint64_t seed;          /* of the randomness */
    uint32_t members_max;   /* records, own and dead ones included */
    struct tri_swim_times times;
    double loss;            /* assumed; 0.05 */
    uint32_t helpers;       /* k of an indirect probe; 3 */
    uint32_t fanout;        /* of gossip; 3 */
    uint32_t alpha, beta;   /* of the suspicion's length; 4, 6 */
    uint32_t packet_bytes_max;  /* 1400: what budget packets keep to */
    uint32_t header_bytes;      /* of a packet without rumours, tag included */
    uint32_t rumour_bytes;      /* of a rumour */
    uint32_t card_bytes;        /* at most, of a card beside it */
    /* Of a node's card, so that as many as fit go into a packet; 0: not known,
     * it may be as large as any. NULL: all are. */
    uint32_t (*card_bytes_of)(void *context, uint64_t node);
    uint32_t snapshots_max;     /* joiners served at once; 16 (at most 64) */
    uint32_t ablate;            /* TRI_SWIM_WITHOUT_...; 0 */
    /* Whether a silent member is known to wait for a core: then it is not dead,
     * and its verdict waits for another period. NULL: nobody knows. */
    bool (*is_starved)(void *context, uint64_t node);
    void *context;
};

/* Defaults for everything but node, seed and members_max. */
void tri_swim_config_init(struct tri_swim_config *config,
                          enum tri_swim_profile profile);

enum tri_swim_event_kind {
    TRI_SWIM_TICK,     /* time has come: all that arrived before was handed in */
    TRI_SWIM_PACKET,
    TRI_SWIM_EVIDENCE, /* about `node`, of class `evidence` */
    TRI_SWIM_HEARD,    /* `node` was heard from elsewhere (data traffic): as
                          good as an ack of a running probe, but refutes no
                          accusation */
    TRI_SWIM_DO_JOIN,  /* by seeds; `seeds_len` of them */
    TRI_SWIM_DO_LEAVE,
};

struct tri_swim_event {
    enum tri_swim_event_kind kind;
    uint64_t now_ns;
    uint64_t node;
    enum tri_swim_evidence evidence; /* WEAK: probe now */
    uint32_t seeds_len;              /* 64 at most are used */
    const struct tri_swim_packet *packet;
};

/* Something is different now; to be told to users. */
struct tri_swim_change {
    uint64_t node;
    uint64_t accuser;
    uint32_t incarnation;
    uint8_t before; /* enum tri_swim_state; UNKNOWN: it joined */
    uint8_t after;
    uint8_t evidence;
};

#define TRI_SWIM_SENDS_MAX 16
#define TRI_SWIM_CHANGES_MAX 64

/* What a step asks for. Cleared by the step first. */
struct tri_swim_effects {
    uint32_t sends_len;
    uint32_t changes_len;
    bool joined;   /* the list is complete */
    bool left;     /* the leave was told to enough members, or its time is up */
    bool excluded; /* the others hold us for dead, for good; once. It says
                      nothing from then on but that to its side */
    struct tri_swim_packet sends[TRI_SWIM_SENDS_MAX];
    struct tri_swim_change changes[TRI_SWIM_CHANGES_MAX];
};

/* Counters, and the health. */
struct tri_swim_metrics {
    uint64_t probes, probes_failed, dropped_by_rule_a, pauses;
    uint64_t starved; /* verdicts that waited, see is_starved */
    uint64_t suspicions, deaths, refutations; /* refutations of our own */
    uint64_t packets_in, packets_out, rumours_dropped;
    uint64_t refused; /* packets from the dead, to others, nonsense */
    uint32_t health;  /* LHM, 0..7 */
    uint32_t rtt_us;  /* p99 of the recent direct acks; 0: none yet */
};

struct tri_swim;

/* Errors: ENOMEM, EINVAL. */
int tri_swim_create(const struct tri_swim_config *config,
                    struct tri_swim **swim_p);
void tri_swim_destroy(struct tri_swim **swim_p);

/* A member that is known from the start (through MPI), alive, incarnation 0.
 * Before the first step; no change is reported. Errors: ELIMIT, EEXIST. */
int tri_swim_add(struct tri_swim *swim, uint64_t node);

/*
 * Handles one event. The caller carries out the effects before the next.
 * A packet's card, where a rumour has one, is with the caller, who keeps it
 * when a change says that the node joined. Never fails: what is full is
 * counted, and healed by a digest later.
 */
void tri_swim_step(struct tri_swim *swim, const struct tri_swim_event *event,
                   struct tri_swim_effects *effects);

/* When the next TICK is due; UINT64_MAX: not by time. */
uint64_t tri_swim_due_ns(const struct tri_swim *swim);

enum tri_swim_state tri_swim_state_of(const struct tri_swim *swim,
                                      uint64_t node);

/* Walks the table: index from 0 while it returns true. */
bool tri_swim_get(const struct tri_swim *swim, uint32_t index,
                  struct tri_rumour *rumour_p);

/* The sender's view_epoch from now on: what agreed views say of two sides is
 * more than their sizes. */
void tri_swim_set_view(struct tri_swim *swim, uint64_t view_epoch);

uint32_t tri_swim_alive_len(const struct tri_swim *swim); /* own included */
uint32_t tri_swim_incarnation(const struct tri_swim *swim);
uint64_t tri_swim_digest(const struct tri_swim *swim);
struct tri_swim_metrics tri_swim_metrics(const struct tri_swim *swim);

/* How often a rumour is passed on in a cluster of n; how long a suspicion
 * lasts at least. For tests and tables. */
uint32_t tri_swim_transmissions(uint32_t n, double loss);
uint64_t tri_swim_suspicion_min_ns(const struct tri_swim_config *config,
                                   uint32_t n);

#endif
