/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_TRAINING_H
#define TROUPE_TRAINING_H

/*
 * Elastic training: steps that all members commit, or none, while ranks die,
 * are drained and join.
 *
 *     troupe_training_open(troupe, "run", &options, &training);
 *     troupe_state_register(training, "weights", w, bytes, TROUPE_REPLICATED);
 *     while (troupe_step_begin(training, &step) == 0) {
 *         gradients(w, &step, grad);
 *         troupe_step_allreduce(&step, grad, n, TROUPE_FLOAT, TROUPE_SUM);
 *         if (troupe_step_commit(&step) == TROUPE_COMMITTED)
 *             apply(w, grad);
 *     }
 *     troupe_training_close(&training, timeout_ms);
 *
 * A step is a transaction. begin adopts the agreed view, gives this member its
 * samples, and fetches the registered state if this member has just come.
 * Reductions keep their results in the library's memory. commit votes: when all
 * members hold all results, they are written to the buffers, on all members,
 * or, after a death, on none of those that go on. RETRY: nothing has changed;
 * the loop begins the same step again, with other members.
 *
 * Nobody is special: who dies, also while it leads an agreement, costs the
 * others a retried step at most.
 */

#include <troupe/group.h>
#include <troupe/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_training troupe_training_t;

enum troupe_last_batch {
    TROUPE_LAST_DROP,  /* what does not fill a batch is left out */
    TROUPE_LAST_SHORT, /* the last batch of an epoch is smaller */
};

typedef struct troupe_training_options {
    troupe_group_options_t group; /* elastic; size_min below: it pauses */
    uint64_t samples;      /* of the data set; 0: no sampler */
    uint64_t batch;        /* samples of a step, over all members: constant,
                              whatever their number. 1 */
    uint64_t epochs;       /* until begin says FINISHED; 0: for ever */
    uint64_t seed;         /* of the order of samples, another each epoch */
    int last_batch;        /* enum troupe_last_batch */
    int pause_timeout_ms;  /* below size_min for so long: EPAUSED. 600000 */
    int step_timeout_ms;   /* without a death known, a step that takes longer
                              than this in a reduction or vote is retried in a
                              new view; 0: 10 times the median, 5 s at least.
                              While a member fetches the state, 1 s more for
                              each 10 MB of that, in either case. At most
                              pause_timeout_ms */
    int retries_max;       /* of one step in a row, by whichever members, then
                              all get EVIEW; 16 */
    int drain_signals;     /* SIGTERM and SIGUSR1 drain this member; 1 */
} troupe_training_options_t;

void troupe_training_options_init(troupe_training_options_t *options);

/*
 * Opens the training: makes its group over all ranks of the job, or, on a node
 * that is not one of the ranks it was made of (joined, spawned, started again),
 * joins it. Collective among the ranks of the job. The same options everywhere.
 * Context: one thread, the one that started the node; all other calls of this
 * file, too. Errors: as troupe_group_create and _join.
 */
int troupe_training_open(troupe_t *troupe, const char *name,
                         const troupe_training_options_t *options,
                         troupe_training_t **training_p);

/*
 * Ends this member's part, and frees *training_p, also on error, but for
 * ECONTEXT: then it is another thread's, and as before. After FINISHED all are
 * done; after ECANCELED it has left. Before, it leaves at the others' next
 * boundary, up to timeout_ms; as they then wait for it in the step that they are
 * in, it is to be drained rather than closed. With timeout_ms 0, or when that
 * has passed, the others go on as after a death.
 */
int troupe_training_close(troupe_training_t **training_p, int timeout_ms);

troupe_group_t *troupe_training_group(troupe_training_t *training);

/* --- state ----------------------------------------------------------------- */

enum troupe_state_kind {
    TROUPE_REPLICATED, /* equal on all members between commit and begin, e.g.
                          weights; who joins gets it from its peers */
    TROUPE_PRIVATE,    /* each member's own; its buddy keeps copies of it, as of
                          the last commits */
};

/*
 * Registers memory. The same names, sizes and kinds in the same order on all
 * members, before the first begin; who joins with others is refused
 * (EMISMATCH). The library reads it between begin and commit, where the program
 * must not change it, and writes it in begin, on a member that has just come.
 * Ownership: the memory is the caller's and must live until close.
 * Errors: EINVAL, EEXIST, ELIMIT (64), ENOMEM.
 */
int troupe_state_register(troupe_training_t *training, const char *name,
                          void *data, size_t bytes,
                          enum troupe_state_kind kind);

/*
 * The private state of a member that died, as its buddy, this member, has it:
 * copied to data. Returns 0, or ENONAME: there is none (left) for this member.
 * *node_p: whose; *step_p: as of before that step. Once for each: one member
 * has it, from when a begin, or a commit, has ended well in the view without
 * the dead one. There is room for the last 32 at most.
 * Errors: EINVAL, ENONAME.
 */
int troupe_state_orphan(troupe_training_t *training, const char *name,
                        void *data, size_t bytes, uint64_t *node_p,
                        uint64_t *step_p);

/* --- steps ------------------------------------------------------------------ */

#define TROUPE_COMMITTED 1
#define TROUPE_RETRY 2
#define TROUPE_FINISHED 3

/* What this member does in a step. Valid until the next begin. */
typedef struct troupe_step {
    uint64_t step;      /* number of the step, from 0: steps committed before */
    uint64_t epoch;     /* of the data set */
    uint64_t first;     /* of this member's samples: places in the epoch's */
    uint64_t samples;   /* order, so many; troupe_step_sample names them */
    uint64_t batch;     /* of all members in this step */
    double weight;      /* samples / batch */
    uint32_t index;     /* of this member in the view, */
    uint32_t members;   /* of so many that take part */
    uint64_t view;      /* epoch of the view */
    uint32_t retry;     /* how often this member has begun it before */
    uint32_t is_synced; /* 1: state was fetched from peers in this begin */
    troupe_training_t *training;
} troupe_step_t;

/*
 * Begins a step: 0, with *step_p; or FINISHED, after the last epoch, on all
 * members alike: also who came too late for a step has the state then. A spare,
 * and who joins, waits here until it is needed, serving actors; a spare that
 * was not hears FINISHED, too, and its memory is not that of the end. Below
 * size_min all wait here.
 * Blocking: see pause_timeout_ms.
 * Errors: EPAUSED, EEXCLUDED, EVIEW (retries_max), EMISMATCH (state differs:
 * before the first step all of it is compared, then 16 KiB in each step, others
 * each time, so a difference in 1 GiB may be found as late as 65,536 steps on),
 * ECANCELED (this member was drained: close it), ENODE (all that had the state
 * are gone), ELIMIT (this host is kept out), ENOMEM, EINVAL (a step is open).
 */
int troupe_step_begin(troupe_training_t *training, troupe_step_t *step_p);

/* The i-th of this member's samples: a number below options.samples. A pure
 * function of seed, epoch and place: each sample comes once an epoch. */
uint64_t troupe_step_sample(const troupe_step_t *step, uint64_t i);

/*
 * Reduces `data` over the members; the result is written there by the commit,
 * until then the caller must leave it alone. Returns at once or when it is
 * done; any number in a step, the same on all members in the same order.
 * TROUPE_AVG is per member, whose shares differ: for the batch's mean use SUM
 * and step->weight.
 * Errors: EINVAL, EMISMATCH, ELIMIT (65536 in a step), ENOMEM; commit says the
 * same then, but the step may be cancelled. A death is no error here, but of
 * commit.
 */
int troupe_step_allreduce(const troupe_step_t *step, void *data, size_t count,
                          enum troupe_datatype type, enum troupe_op op);

/*
 * Ends the step. COMMITTED: all reductions are in their buffers, on all
 * members. RETRY: nothing was written. FINISHED: as of begin, for a spare.
 * Errors: EINVAL (no step is open), EPAUSED (as of begin; it may be called
 * again), EMISMATCH, EEXCLUDED, ECANCELED, ENODE, ELIMIT, ENOMEM: as of begin,
 * or what a reduction of the step has failed with; begin says the same from
 * then on.
 */
int troupe_step_commit(const troupe_step_t *step);

/*
 * Withdraws from the step, for all: it is retried (for example a NaN), or, with
 * skip, counts as committed without results, its samples used: the next begin
 * is of the step behind it. Instead of commit; returns RETRY, here and on the
 * others, as nothing was written. Those that had not begun a step that is
 * skipped never see it. It costs all a change of view.
 * Errors: those of commit. EPAUSED: the step is withdrawn from, and commit
 * tells what becomes of it; EINVAL: after EPAUSED, it is too late to withdraw.
 */
int troupe_step_cancel(const troupe_step_t *step, int skip);

/* --- buckets: many small tensors, reduced together --------------------------- */

typedef struct troupe_buckets troupe_buckets_t;

/*
 * Tensors of one type, registered once in the same order on all members (in
 * the order in which gradients become ready, as a rule), are fused into buckets
 * of about bucket_bytes. ready says that one is complete in this step; a bucket
 * is reduced when all of its tensors are, in the order of buckets, while the
 * program computes the others. commit of the step writes the results.
 * Ownership: tensors are the caller's, and must live until buckets are
 * destroyed and the step that they were ready in is over. destroy is possible
 * at any time; results of buckets that are under way are written all the same.
 * Errors: create EINVAL, ENOMEM; add EINVAL (also after the first ready),
 * ELIMIT (1048576), ENOMEM; ready EINVAL (also twice in a step), ENOMEM, and those of
 * troupe_step_allreduce.
 */
int troupe_buckets_create(troupe_training_t *training, enum troupe_datatype type,
                          enum troupe_op op, size_t bucket_bytes,
                          troupe_buckets_t **buckets_p);
int troupe_buckets_add(troupe_buckets_t *buckets, void *data, size_t count);
int troupe_buckets_ready(troupe_buckets_t *buckets, const troupe_step_t *step,
                         uint32_t tensor);
void troupe_buckets_destroy(troupe_buckets_t **buckets_p);

/* --- people and schedulers ---------------------------------------------------- */

/* This member leaves after the step it is in, without disturbing the others:
 * its next begin says ECANCELED. Also on SIGTERM and SIGUSR1; the latter ends
 * the process before the first training is opened, and, if the program has no
 * handler for it, is kept for the next training when all are closed. Any thread
 * or actor; `node` may be another member, or 0: this one. Errors: EINVAL, ENODE,
 * ENOMEM. */
int troupe_training_drain(troupe_training_t *training, uint64_t node);

/* Keeps a host (troupe_member_t.host) out for so long: who comes from there
 * hears ELIMIT; members stay. Also what happens by itself to a host whose last
 * members died twice within five minutes: 10 s, doubling up to an hour, from
 * 10 s again after an hour without that. A host of which a member is left is
 * never kept out by itself. ms 0:
 * lets them in again, as far as it was this member that blocked it. Errors:
 * EINVAL. */
int troupe_training_block(troupe_training_t *training, uint64_t host,
                          uint32_t ms);

typedef struct troupe_training_stats {
    uint64_t steps;       /* committed */
    uint64_t retries;     /* steps begun again */
    uint64_t views;       /* adopted */
    uint64_t losses;      /* members that died */
    uint64_t joins;
    uint64_t synced_bytes;   /* of state fetched here */
    uint64_t recover_last_ns; /* from when a loss, or what it brought about,
                                 was seen here to the next commit: the last, */
    uint64_t recover_max_ns;  /* the longest */
    uint64_t vote_ns;        /* spent in votes, all steps */
    uint64_t reduce_ns;      /* waiting for reductions */
    uint64_t copies;         /* of private state here that a buddy has got */
} troupe_training_stats_t;

void troupe_training_stats(const troupe_training_t *training,
                           troupe_training_stats_t *stats_p);

enum troupe_training_what {
    TROUPE_TRAINING_VIEW = 1,  /* another view was adopted */
    TROUPE_TRAINING_RETRY,     /* a step was aborted */
    TROUPE_TRAINING_SYNCED,    /* state was fetched here */
    TROUPE_TRAINING_PAUSED,
    TROUPE_TRAINING_RESUMED,
    TROUPE_TRAINING_DRAINING,  /* this member was asked to leave */
    TROUPE_TRAINING_BLOCKED,   /* a host */
    TROUPE_TRAINING_STRAGGLER, /* a member is late again and again */
};

typedef struct troupe_training_event {
    uint32_t what; /* enum troupe_training_what */
    uint32_t lost;
    uint64_t step;
    uint64_t node;  /* whom it is about; 0: this one, or all */
    uint64_t time_ns; /* CLOCK_MONOTONIC */
    troupe_view_t view;
} troupe_training_event_t;

#define TROUPE_TRAINING_EVENTS_MAX 1024
size_t troupe_training_events_take(troupe_training_t *training,
                                   troupe_training_event_t *events,
                                   size_t events_len_max);

#ifdef __cplusplus
}
#endif

#endif
