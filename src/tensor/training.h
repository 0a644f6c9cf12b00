/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_TRAINING_H
#define TRI_TRAINING_H

/*
 * What the files of elastic training know of each other: training.c (open,
 * close, people), step.c (the program's calls), settle.c (views), state.c
 * (registered memory), fetch.c (who is new gets it), buddy.c (copies of private
 * state), bucket.c.
 *
 * Who may touch what: the thread that started the node has all of it. Records
 * come to whoever polls; what they look at is marked "mutex", that of all
 * trainings of the process, see state.c.
 */

#include <pthread.h>

#include <troupe/training.h>

#include "actor/runtime.h"
#include "group/view.h"
#include "tensor/sampler.h"
#include "tensor/state.h"
#include "tensor/step_core.h"

struct tri_bucket;

/* How long members that cannot go on wait for each other. */
#define TRI_TRAINING_HEARD_MS 2000

/* One reduction of the step under way. */
struct tri_reduction {
    troupe_collective_t *collective; /* NULL: done */
    const struct tri_bucket *bucket; /* where the result goes; NULL: */
    void *data;                      /* there */
    unsigned char *result;           /* kept from step to step */
    size_t result_bytes_max;
    size_t bytes;
};

/* How long the last steps took. */
#define TRI_STEP_TIMES_LEN 31u

struct tri_step_times {
    uint64_t ns[TRI_STEP_TIMES_LEN];
    uint64_t len;
};

/* Steps in which the same member was the last by far. */
struct tri_straggler {
    uint64_t node;
    uint32_t times; /* of the last ones; see step.c */
};

/* A host that is kept out. */
#define TRI_BLOCKS_MAX 16u

struct tri_block {
    uint64_t host; /* 0: free */
    uint64_t until_ns;
    uint64_t losses_ns[2]; /* when its last members died */
    uint32_t times;
};

struct troupe_training {
    troupe_t *troupe;
    struct tri_runtime *runtime;
    troupe_group_t *group; /* NULL: left */
    troupe_training_options_t options;
    struct tri_sampler sampler;
    struct tri_states states; /* parts of it: mutex */
    struct troupe_training *next; /* mutex */
    uint64_t group_id;

    /* the view */
    struct tri_step_core core;
    troupe_view_t view;
    bool has_view;
    bool is_reconciled;
    bool is_refused;   /* somebody is to leave, before any step */
    bool is_fetched;   /* a member has no state yet: others wait for it */
    bool boundary_due; /* the vote has said so, to all */
    bool is_paused;
    uint64_t *nodes;   /* active members of the adopted view, their hosts, */
    uint64_t *hosts;   /* and whether they have the state */
    bool *has_state_at;
    uint32_t nodes_len;
    struct tri_block blocks[TRI_BLOCKS_MAX];

    /* the end */
    int ended;          /* what begin returns from now on; 0: goes on */
    bool leave_due;     /* all know that this member leaves */
    bool leave_said;    /* in the vote under way */
    _Atomic bool drain; /* any thread */
    bool is_drain_told;
    _Atomic bool finished_said; /* mutex: to a spare, that all are done */
    uint32_t notices_seen;
    bool has_notices;

    /* the step */
    troupe_step_t step;
    bool is_open;   /* between begin and commit */
    bool is_over;   /* EVIEW was seen in it */
    enum tri_step_outcome outcome; /* of it; NOTHING: not known yet */
    int failure;    /* of a reduction, other than that */
    struct tri_reduction *reductions;
    uint32_t reductions_len, reductions_max, reductions_ended;
    uint64_t attempts; /* steps begun, those that were retried, too */
    uint32_t retry;    /* of this step, here */
    uint32_t undone;   /* the same, by whoever began it: all members know the
                          same number when they have reconciled */
    uint64_t begun_ns;
    uint64_t waited_ns;  /* for others, in this step */
    uint64_t worked_ns;  /* from begin to commit, without that */
    uint32_t patience; /* timeouts in a row */
    struct tri_step_times times;
    struct tri_straggler straggler;
    uint64_t lost_ns; /* when EVIEW was seen; 0: not since the last commit */

    troupe_training_stats_t stats;
    troupe_training_event_t *events;
    uint64_t events_first, events_last;
    uint32_t events_lost;
};

/* --- training.c ------------------------------------------------------------ */

void tri_training_event(struct troupe_training *training,
                        enum troupe_training_what what, uint64_t node);

/* Whether this member was asked to leave: by a call, another member, a signal.
 */
bool tri_training_wants_out(struct troupe_training *training);

/* Leaves the group; begin says `why` from now on. Returns it. */
int tri_training_leave(struct troupe_training *training, int why);

/* Errors: ECONTEXT, EINVAL. */
int tri_training_check(const struct troupe_training *training);

/* --- settle.c -------------------------------------------------------------- */

/*
 * Adopts the newest view, and reconciles with its members; waits as a spare and
 * while the group is too small. What became of the step under way is in
 * training->outcome, also when this ends with an error after it was known.
 * Errors: those of troupe_step_begin; TROUPE_FINISHED for a spare that the
 * others do not need any more.
 */
int tri_training_settle(struct troupe_training *training);

/* What a call of a collective says that did not end well: EVIEW means that the
 * view is over, or soon will be. Others are the program's to hear. */
int tri_training_failed(struct troupe_training *training, int rc);

/* What is known of a host's misfortunes; an old entry may be given up. */
struct tri_block *tri_training_block_of(struct troupe_training *training,
                                        uint64_t host);

/* A host's last member died: says whether the host is to be kept out now. */
bool tri_training_block_loss(struct tri_block *block, uint64_t now_ns);

/* So much longer others wait while a member fetches the state; 0: none does. */
int tri_training_fetch_ms(const struct troupe_training *training);

/* How long a collective may take; longer while a member fetches the state, as
 * the others wait for it in the step. */
int tri_training_timeout_ms(const struct troupe_training *training);

/* --- step.c ------------------------------------------------------------------ */

/* As troupe_step_allreduce, from `in`; the result goes to data, or the bucket's
 * tensors. */
int tri_step_reduce(struct troupe_training *training, const void *in,
                    void *data, const struct tri_bucket *bucket, size_t count,
                    enum troupe_datatype type, enum troupe_op op);

/* A reduction of the open step cannot be started: without it this member votes
 * for nothing, and commit says why. Returns rc. */
int tri_step_refuse(struct troupe_training *training, int rc);

/* Ends the reductions of a step whose view is over or whose group is closed;
 * nothing is written to the program's memory. */
void tri_step_drop(struct troupe_training *training);

/* --- buddy.c ----------------------------------------------------------------- */

/* A member of the view before is in this one no more. Who left the cluster in an
 * orderly way has not died, and leaves no orphan. */
bool tri_buddy_has_died(struct troupe_training *training,
                        const struct tri_view *view, uint64_t node);

/* --- bucket.c ---------------------------------------------------------------- */

/* A reduction has it from when it has started; its step frees what is destroyed
 * meanwhile. */
void tri_bucket_hold(const struct tri_bucket *bucket);
void tri_bucket_release(const struct tri_bucket *bucket);

/* Copies a bucket's result to its tensors. */
void tri_bucket_store(const struct tri_bucket *bucket, const void *result);

#endif
