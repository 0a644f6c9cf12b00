/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

/*
 * Session cores of several nodes on a virtual clock: everything that happens
 * is an event in one queue and all chance comes from one seed, so a run can be
 * repeated exactly. sim.c is the nodes: what the glue around a core does, and
 * what is checked after each event. sim_line.c is the lines between them and
 * the faults.
 *
 * Checked all the time: the invariants of the cores; frames come once and in
 * order of their lane, as stored; nothing is freed that has not arrived; no
 * more than a window is unconsumed. At the end, by sim_check_rest.
 */

#include "link/session_core.h"
#include "../unit/unit.h"

#define SIM_NODES_MAX 4u
#define SIM_OLD_FRAMES 32u
#define SIM_US 1000ull
#define SIM_MS (1000 * SIM_US)
#define SIM_S (1000 * SIM_MS)

/* Chances are in 1/1000. Those of faults end at faults_until_ns. */
struct sim_config {
    uint64_t seed;
    unsigned nodes;
    uint64_t faults_until_ns;
    uint64_t fault_gap_ns;      /* mean time between random faults; 0: none */
    unsigned loss, duplicate;   /* of frames on the wire */
    unsigned fail;              /* completions that say so */
    unsigned no_memory;         /* to hold */
    uint32_t line_frames_max;   /* that the carrier takes */
    uint64_t latency_ns;
    uint64_t consume_ns;        /* the longest for a data frame */
    uint32_t budget[TRI_LANES]; /* frames to be sent to each peer */
    uint32_t frame_bytes_max;
};

/* Bytes of a frame's header, and of what it stands for. */
struct sim_copy {
    unsigned char header[TRI_FRAME_HEADER_BYTES];
    uint32_t bytes;
    uint64_t payload;
};

struct sim_frame {
    struct tri_stored stored; /* unused in an ACK frame */
    struct sim_copy copy;
    uint8_t from, to;
    bool is_stored;
};

struct sim_held {
    struct tri_held held;
    uint64_t payload;
};

/* A line from one node to another. */
struct sim_line {
    uint64_t connection;
    uint64_t sent_ns, arrive_ns; /* of the last frame: the order is kept */
    uint64_t black_until_ns;     /* takes frames, and loses them */
    uint64_t dead_until_ns;      /* fails them */
    uint32_t in_flight;
    bool is_full; /* somebody was told so */
    struct sim_copy old[SIM_OLD_FRAMES];
    unsigned old_len;
};

/* One node's side of a session. */
struct sim_side {
    struct tri_session session;
    bool is_open;
    uint32_t backlog[TRI_LANES]; /* to be stored */
    uint32_t budget[TRI_LANES];  /* to come into the backlog */
    uint64_t stored[TRI_LANES];  /* payloads are numbered, by lane */
    uint64_t delivered[TRI_LANES];
    uint64_t delivered_ns[TRI_LANES]; /* the last time */
    uint64_t unconsumed[TRI_LANES];   /* bytes */
    uint64_t frames;   /* in memory: stored and not returned */
    uint64_t returned; /* to their owner */
    uint64_t rest;     /* of those: at the end, not acknowledged */
    struct sim_line line;
};

struct sim_node {
    struct sim_side sides[SIM_NODES_MAX]; /* by peer */
    uint64_t stopped_until_ns;
    uint64_t lazy_until_ns; /* consumes no data */
    uint64_t wake_ns;
    bool is_dead;
};

struct sim_stats {
    uint64_t events;
    uint64_t handed;  /* stored frames */
    uint64_t acks;    /* ACK frames */
    uint64_t dropped; /* verdicts */
    uint64_t held;
    uint64_t lost; /* on the wire, */
    uint64_t lost_stored; /* stored ones of those */
    uint64_t faults;
};

struct sim_event;

struct sim {
    struct sim_config config;
    struct tri_random random;
    uint64_t now_ns;
    uint64_t events_seq;
    struct sim_event **events; /* a heap */
    size_t events_len, events_max;
    struct sim_node nodes[SIM_NODES_MAX];
    uint64_t die_at_event; /* the victim does; 0: nobody */
    unsigned victim;
    struct sim_stats stats;
};

/* A configuration with nothing going wrong, and one that is all random. */
struct sim_config sim_calm_config(uint64_t seed);
struct sim_config sim_random_config(uint64_t seed);

struct sim *sim_create(const struct sim_config *config);
void sim_destroy(struct sim **sim);

/* Runs what happens until then, or all that there is. False: nothing is left
 * to happen: the system rests. */
bool sim_run(struct sim *sim, uint64_t until_ns);

/* Ends the test if not everything was delivered, or something is left. */
void sim_check_rest(struct sim *sim);

/* Frames that a node wants to send. */
void sim_send(struct sim *sim, unsigned from, unsigned to, enum tri_lane lane,
              uint32_t frames);

/* --- faults: sim_line.c -------------------------------------------------- */

/* The connection breaks, in both directions. */
void sim_reset(struct sim *sim, unsigned a, unsigned b);
/* What leaves is lost, in one direction. */
void sim_black_hole(struct sim *sim, unsigned from, unsigned to,
                    uint64_t until_ns);
/* A node does nothing; or takes no data from its queue. */
void sim_stop_node(struct sim *sim, unsigned node, uint64_t until_ns);
void sim_stop_consumer(struct sim *sim, unsigned node, uint64_t until_ns);
/* The others learn it later. */
void sim_kill(struct sim *sim, unsigned node);
/* A random one of these, or a frame that comes again. */
void sim_random_fault(struct sim *sim);

/* --- between the two files ----------------------------------------------- */

enum sim_kind {
    SIM_WAKE,    /* node: has to look at its timers */
    SIM_PRODUCE, /* node wants to send more to peer */
    SIM_CONSUME, /* node consumes `bytes` of data from peer */
    SIM_SENT,    /* node's carrier is done with `frame` */
    SIM_ARRIVE,  /* at node, from peer: `copy` */
    SIM_BROKE,   /* node's line to peer */
    SIM_LEARN,   /* node learns that peer is dead */
    SIM_FAULT,
};

struct sim_event {
    uint64_t at_ns, seq;
    enum sim_kind kind;
    uint8_t node, peer;
    bool ok;
    uint32_t bytes;
    uint64_t connection;
    struct sim_frame *frame;
    struct sim_copy copy;
};

/* Ends the test, naming the seed. */
void sim_fail(struct sim *sim, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline struct sim_side *sim_side(struct sim *sim, unsigned node,
                                        unsigned peer)
{
    assert(node != peer && node < sim->config.nodes &&
           peer < sim->config.nodes);
    return &sim->nodes[node].sides[peer];
}

/* True with this chance in 1000. */
static inline bool sim_chance(struct sim *sim, unsigned chance)
{
    return tri_random_below(&sim->random, 1000) < chance;
}

/* From 0 to max_ns, below 4 s. */
static inline uint64_t sim_some_ns(struct sim *sim, uint64_t max_ns)
{
    return tri_random_below(&sim->random, (uint32_t)max_ns + 1);
}

/* True while faults may happen. */
static inline bool sim_is_faulty(const struct sim *sim)
{
    return sim->now_ns < sim->config.faults_until_ns;
}

/* Puts an event into the queue; the caller fills in what the kind wants
 * before the next event is taken. */
struct sim_event *sim_post(struct sim *sim, enum sim_kind kind, unsigned node,
                           unsigned peer, uint64_t at_ns);

/* The carrier: false when it is full. */
bool sim_line_send(struct sim *sim, struct sim_frame *frame);
/* It is done with a frame: which goes onto the wire, or not. Returns whether
 * it says that it did. */
bool sim_line_sent(struct sim *sim, struct sim_frame *frame,
                   uint64_t connection, bool ok);

#endif
