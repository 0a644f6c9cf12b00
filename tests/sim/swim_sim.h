/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_SWIM_SIM_H
#define TESTS_SWIM_SIM_H

/*
 * Membership cores of up to ten thousand nodes on a virtual clock: everything
 * that happens is an event in one queue and all chance comes from one seed, so
 * a run can be repeated exactly. swim_sim.c is the nodes: what the glue around
 * a core does; swim_net.c the queue and the network between them; swim_check.c
 * what is checked and measured.
 *
 * A slot is an address: one process after the other lives there. A life is one
 * process with one node id; lives are numbered in the order of their birth. At
 * the start life i is in slot i.
 *
 * Checked after every step (the invariants of member/swim_core.h): changes
 * continue what was reported before and obey the order of states; the dead
 * stay dead; nobody but its owner raises an incarnation; a verdict by silence
 * needs something received; the dead change nothing; packets keep to their
 * budget. Now and then the whole table of the node is compared with what it
 * has reported. The first violation ends the run: see `failure`.
 */

#include "base/base.h"
#include "base/random.h"
#include "member/swim_core.h"

#define SWIM_US 1000ull
#define SWIM_MS (1000 * SWIM_US)
#define SWIM_S (1000 * SWIM_MS)
#define SWIM_NEVER UINT64_MAX
#define SWIM_NO_LIFE UINT32_MAX
#define SWIM_SIDES_MAX 4u
#define SWIM_SEEDS_MAX 5u
#define SWIM_CHANCE 100000u /* what chances are parts of */

struct swim_sim_config {
    uint64_t seed;
    uint32_t nodes;          /* that run at the start */
    uint32_t lives_max;      /* node ids there may be; 0: 2 * nodes */
    bool is_apart;           /* at the start each knows itself alone */
    bool will_rejoin;        /* who is excluded ends, and comes back under a
                                new id after rejoin_ns to twice of that */
    uint64_t rejoin_ns;
    bool has_no_shadow;      /* opinions are not checked: saves 4 B a pair */
    struct tri_swim_config core; /* a life's own fields are filled in */
    uint32_t loss, duplicate, late; /* chances of a packet */
    uint64_t delay_min_ns, delay_max_ns; /* one way */
    uint64_t late_max_ns;    /* more, for those that are late */
    uint32_t clock_ppm;      /* clocks run by up to this faster or slower */
    uint32_t inbox_max;      /* packets that wait for a stopped node */
    uint32_t records_max;    /* packets kept to be replayed */
};

struct swim_wire;

struct swim_boxes { /* packets that wait, in order */
    struct swim_wire *first, **last;
    uint32_t len;
};

/* What others think of a life that has ended, or not. */
struct swim_verdict {
    uint64_t suspect_ns;  /* the first suspicion */
    uint64_t dead_ns;     /* the first that has it DEAD or LEFT, */
    uint64_t last_ns;     /* the last one so far, */
    uint32_t knowing;     /* how many */
};

struct swim_life {
    uint64_t id;
    uint32_t slot;
    struct tri_swim *core;   /* NULL: it has ended */
    int64_t clock_ns;        /* what its clock shows at 0 */
    int32_t clock_ppm;
    uint64_t wake_ns;        /* a WAKE is in the queue for then */
    uint64_t stopped_until_ns; /* does nothing */
    uint64_t blocked_until_ns; /* sends and receives nothing */
    uint64_t clogged_until_ns; /* what it sends and receives waits */
    struct swim_boxes inbox, outbox;
    uint8_t side;
    uint32_t loss_in, loss_out; /* chances, beside the network's */
    bool is_joined, is_excluded, is_leaving, has_crashed;
    bool was_impaired;       /* a fault was its own: no healthy member */
    uint64_t born_ns, joined_ns, excluded_ns, ended_ns;
    uint64_t heard_ns;       /* its own clock, at the last packet */
    uint64_t steps;
    uint32_t spins;          /* steps without progress of time */
    uint64_t spin_ns;
    uint32_t seeds[SWIM_SEEDS_MAX]; /* slots */
    uint32_t seeds_len;
    struct swim_verdict verdict;
    uint64_t sent, sent_bytes;  /* since swim_sim_count_anew */
    uint64_t second;
    uint32_t sent_second, peak; /* packets of a second, the most */
};

struct swim_stats {
    uint64_t events, packets, lost, cardless;
    uint64_t bytes_max;        /* of a packet */
    uint64_t suspicions;       /* of lives that run, by their prober */
    uint64_t false_deaths;     /* a member has one DEAD that runs; */
    uint64_t false_deaths_healthy; /* one that had no fault of its own */
    uint64_t deaths_by_timer;  /* first hand */
    uint64_t by_kind[TRI_SWIM_KIND_LAST + 1];
};

struct swim_event;

struct swim_sim {
    struct swim_sim_config config;
    struct tri_random random;
    uint64_t now_ns;
    uint64_t hash;             /* of all that happened */
    uint64_t events_seq;
    struct swim_event *events; /* a heap */
    size_t events_len, events_max;
    struct swim_life *lives;
    uint32_t lives_len, lives_max;
    uint32_t *slots;           /* the life that is there, the last one */
    uint32_t slots_len;
    uint32_t *index;           /* lives by id */
    uint64_t index_mask;
    uint32_t *shadow;          /* opinions: observer, subject */
    uint64_t *cards;           /* bits: observer, subject */
    bool is_cut[SWIM_SIDES_MAX][SWIM_SIDES_MAX]; /* from, to */
    struct swim_wire **records;
    uint32_t records_len;
    uint64_t records_seen;
    struct swim_stats stats;
    char failure[256];         /* "" while all is well */
    bool is_traced;            /* TROUPE_TEST_SIM_TRACE: to stderr */
    struct tri_swim_packet packet;    /* being delivered */
    struct tri_swim_effects effects;
};

/* Nothing goes wrong; 10 to 20 ms on the way. */
struct swim_sim_config swim_sim_calm(uint64_t seed, uint32_t nodes,
                                     enum tri_swim_profile profile);

/* Ends the process when there is no memory. */
struct swim_sim *swim_sim_create(const struct swim_sim_config *config);
void swim_sim_destroy(struct swim_sim **sim);

/* Runs what happens until then, or until something is wrong: false. */
bool swim_sim_run(struct swim_sim *sim, uint64_t until_ns);
bool swim_sim_run_for(struct swim_sim *sim, uint64_t ns);

/* Runs until it holds, looking every step_ns; SWIM_NEVER when it did not at
 * the limit, else the time passed. */
uint64_t swim_sim_run_until(struct swim_sim *sim,
                            bool (*holds)(struct swim_sim *sim),
                            uint64_t step_ns, uint64_t limit_ns);

/* --- what happens to nodes ------------------------------------------------ */

void swim_sim_crash(struct swim_sim *sim, uint32_t life);
/* A new life in that slot, whose old one ends when it has not; knows itself
 * alone. */
uint32_t swim_sim_restart(struct swim_sim *sim, uint32_t slot);
/* By these slots, at most SWIM_SEEDS_MAX. */
void swim_sim_join(struct swim_sim *sim, uint32_t life, const uint32_t *slots,
                   uint32_t slots_len);
/* By some slots at random. */
void swim_sim_join_any(struct swim_sim *sim, uint32_t life);
void swim_sim_leave(struct swim_sim *sim, uint32_t life);
void swim_sim_stop(struct swim_sim *sim, uint32_t life, uint64_t ns);
void swim_sim_block(struct swim_sim *sim, uint32_t life, uint64_t ns);
void swim_sim_clog(struct swim_sim *sim, uint32_t life, uint64_t ns);
void swim_sim_evidence(struct swim_sim *sim, uint32_t observer,
                       uint32_t about, enum tri_swim_evidence evidence);

/* --- what happens to the network ------------------------------------------ */

/* Between sides, in both directions or from one to the other only. */
void swim_sim_cut(struct swim_sim *sim, unsigned a, unsigned b);
void swim_sim_cut_one_way(struct swim_sim *sim, unsigned from, unsigned to);
void swim_sim_heal(struct swim_sim *sim);
/* `count` random ones of the recorded packets of `from` come (again) to the
 * slots that they were for. `from` may be another simulation: then without its
 * JOINs, which name nobody and are kept apart by cluster id and key alone. */
void swim_sim_replay(struct swim_sim *sim, const struct swim_sim *from,
                     uint32_t count);

/* --- what can be seen ----------------------------------------------------- */

static inline bool swim_life_runs(const struct swim_life *life)
{
    return life->core != NULL;
}

uint32_t swim_sim_running(const struct swim_sim *sim);
/* A running life, not `but`, at random. */
uint32_t swim_sim_some(struct swim_sim *sim, uint32_t but);
/* Every running life lists exactly those that run, all ALIVE, and has their
 * cards. */
bool swim_sim_agrees(struct swim_sim *sim);
/* What stands against that, in words; static. */
const char *swim_sim_disagreement(const struct swim_sim *sim);
/* How many running ones do not have it DEAD or LEFT. */
uint32_t swim_sim_unaware(const struct swim_sim *sim, uint32_t life);
/* Nobody who runs has one alive that does not. */
bool swim_sim_dead_known(struct swim_sim *sim);

/* Counters of traffic from 0. */
void swim_sim_count_anew(struct swim_sim *sim);
uint64_t swim_sim_sent(const struct swim_sim *sim);
uint32_t swim_sim_peak(const struct swim_sim *sim);

/* --- between the files ---------------------------------------------------- */

enum swim_event_kind { SWIM_WAKE, SWIM_ARRIVE, SWIM_GO_ON, SWIM_REJOIN };

struct swim_event {
    uint64_t at_ns, seq;
    uint32_t kind;
    uint32_t life;           /* of ARRIVE: the slot */
    struct swim_wire *wire;
};

/* A packet on its way, as long as it has to be. */
struct swim_wire {
    struct swim_wire *next;
    uint32_t from, to;       /* life, slot */
    uint32_t bytes;          /* here */
    unsigned char data[];
};

void *swim_sim_alloc(size_t count, size_t bytes);
void swim_sim_post(struct swim_sim *sim, enum swim_event_kind kind,
                   uint32_t life, uint64_t at_ns, struct swim_wire *wire);
bool swim_sim_next(struct swim_sim *sim, uint64_t until_ns,
                   struct swim_event *event_p);
void swim_sim_send(struct swim_sim *sim, uint32_t life,
                   const struct tri_swim_packet *packet, uint64_t answers);
void swim_sim_flush_outbox(struct swim_sim *sim, struct swim_life *life);
void swim_wire_open(const struct swim_wire *wire,
                    struct tri_swim_packet *packet_p);
void swim_boxes_put(struct swim_boxes *boxes, struct swim_wire *wire);
struct swim_wire *swim_boxes_take(struct swim_boxes *boxes);
void swim_net_fini(struct swim_sim *sim);

uint32_t swim_sim_life_of(const struct swim_sim *sim, uint64_t id);
bool swim_sim_has_card(const struct swim_sim *sim, uint32_t observer,
                       uint32_t subject);
void swim_sim_give_card(struct swim_sim *sim, uint32_t observer,
                        uint32_t subject);
uint64_t swim_life_local_ns(const struct swim_life *life, uint64_t now_ns);

static inline bool swim_sim_chance(struct swim_sim *sim, uint32_t chance)
{
    return chance > 0 && tri_random_below(&sim->random, SWIM_CHANCE) < chance;
}

static inline uint64_t swim_sim_between(struct swim_sim *sim, uint64_t min,
                                        uint64_t max)
{
    return min + (max > min ? tri_random_next(&sim->random) % (max - min + 1)
                            : 0);
}

static inline void swim_sim_mark(struct swim_sim *sim, uint64_t a, uint64_t b)
{
    sim->hash = tri_mix64(sim->hash ^ tri_mix64(a) ^ (b * 3));
}

/* Only when traced. */
void swim_sim_trace(const struct swim_sim *sim, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void swim_sim_fail(struct swim_sim *sim, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The step before: what it may not change. */
struct swim_before {
    uint64_t from;       /* of the packet; 0: none */
    uint64_t digest;
    bool is_from_dead;
};
void swim_check_before(struct swim_sim *sim, uint32_t life,
                       const struct tri_swim_event *event,
                       struct swim_before *before_p);
void swim_check_step(struct swim_sim *sim, uint32_t life,
                     const struct tri_swim_event *event,
                     const struct swim_before *before);
void swim_check_packet(struct swim_sim *sim, uint32_t life,
                       const struct tri_swim_packet *packet);
/* The members it was created with. */
void swim_check_start(struct swim_sim *sim, uint32_t observer,
                      uint32_t subject);
uint32_t swim_sim_packet_bytes(const struct swim_sim *sim,
                               const struct tri_swim_packet *packet);

#endif
