/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The calls of a step. Reductions read the program's buffers until they are
 * done and write memory of the library; commit waits for all, votes, and copies
 * what they came to into the buffers.
 *
 * The vote is an allreduce of a few numbers, MAX; what is to be equal or a
 * minimum goes as its complement, too. Beside "all are prepared" it says whether
 * somebody wants a boundary, so that all make one in their next begin, whether
 * replicated state is the same everywhere (a part of it each time), and who was
 * the last.
 */

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "tensor/training.h"

/* Reductions under way at once, below TROUPE_COLLECTIVES_MAX by far. */
#define UNDER_WAY_MAX 64u
#define REDUCTIONS_MAX 65536u
/* Who is later than the first one by half of that one's time, and by so much, in
 * eight of the last ten steps, is a straggler. */
#define LATE_US 2000u
#define LATE_TIMES 8u
/* How long all wait for each other in the end. */
#define FINISH_MS 5000
/* What ends at once may take so long on a busy machine. */
#define DROP_MS 10000

enum {
    VOTE_STEP,
    VOTE_STEP_MIN,
    VOTE_STATE,
    VOTE_STATE_MIN,
    VOTE_BOUNDARY,
    VOTE_LAST,  /* microseconds of work, and the place, of the slowest; */
    VOTE_FIRST, /* of the fastest, as its complement */
    VOTE_LEN,
};

/* --- reductions --------------------------------------------------------------- */

/*
 * Ends them all: none of them reads the program's memory then. Their view is
 * over, as a rule, and they end at once. One that does not, after an error of
 * this member alone, keeps its result's memory, and its bucket, for good.
 */
void tri_step_drop(struct troupe_training *training)
{
    for (uint32_t i = 0; i < training->reductions_len; i++) {
        struct tri_reduction *reduction = &training->reductions[i];

        if (reduction->collective == NULL ||
            troupe_collective_wait(&reduction->collective, DROP_MS) !=
                TROUPE_ETIMEDOUT) {
            if (reduction->bucket != NULL)
                tri_bucket_release(reduction->bucket);
            continue;
        }
        tri_error("a reduction of step %llu does not end",
                  (unsigned long long)training->step.step);
        reduction->collective = NULL;
        reduction->result = NULL;
        reduction->result_bytes_max = 0;
    }
    training->reductions_len = 0;
    training->reductions_ended = 0;
}

static void note_failure(struct troupe_training *training, int rc)
{
    rc = tri_training_failed(training, rc);
    if (rc == TROUPE_EVIEW)
        training->is_over = true;
    else if (rc != 0 && training->failure == 0)
        training->failure = rc;
}

/* Until at most `rest` are under way. The oldest come first. */
static void end_reductions(struct troupe_training *training, uint32_t rest)
{
    uint64_t begin_ns = tri_now_ns();

    while (training->reductions_len - training->reductions_ended > rest &&
           !training->is_over && training->failure == 0) {
        struct tri_reduction *reduction =
            &training->reductions[training->reductions_ended];
        int rc = troupe_collective_wait(&reduction->collective,
                                        tri_training_timeout_ms(training));

        if (rc == 0)
            training->reductions_ended++;
        else
            note_failure(training, rc);
    }
    training->waited_ns += tri_now_ns() - begin_ns;
    training->stats.reduce_ns += tri_now_ns() - begin_ns;
}

/* One more, with room for its result; NULL: no memory. */
static struct tri_reduction *add_reduction(struct troupe_training *training,
                                           size_t bytes)
{
    struct tri_reduction *reduction;

    if (training->reductions_len == training->reductions_max) {
        uint32_t max = training->reductions_max * 2 + 8;

        reduction = realloc(training->reductions, max * sizeof(*reduction));
        if (reduction == NULL)
            return NULL;
        memset(&reduction[training->reductions_max], 0,
               (max - training->reductions_max) * sizeof(*reduction));
        training->reductions = reduction;
        training->reductions_max = max;
    }
    reduction = &training->reductions[training->reductions_len];
    if (reduction->result_bytes_max < bytes) {
        void *result = aligned_alloc(TRI_CACHE_LINE,
                                     tri_align_up(bytes, TRI_CACHE_LINE));

        if (result == NULL)
            return NULL;
        free(reduction->result);
        reduction->result = result;
        reduction->result_bytes_max = tri_align_up(bytes, TRI_CACHE_LINE);
    }
    return reduction;
}

int tri_step_refuse(struct troupe_training *training, int rc)
{
    if (!training->is_over && training->failure == 0)
        training->failure = rc;
    return rc;
}

/* EVIEW: the step is over. */
static int start_reduction(struct troupe_training *training, const void *in,
                           void *data, const struct tri_bucket *bucket,
                           size_t count, enum troupe_datatype type,
                           enum troupe_op op)
{
    struct tri_reduction *reduction;
    size_t bytes;
    int rc;

    if (__builtin_mul_overflow(count, troupe_datatype_bytes(type), &bytes) ||
        (count > 0 && bytes == 0))
        return TROUPE_EINVAL;
    if (training->reductions_len >= REDUCTIONS_MAX)
        return TROUPE_ELIMIT;
    end_reductions(training, UNDER_WAY_MAX - 1);
    if (training->is_over || training->failure != 0)
        return training->failure; /* the step is over: commit says so */
    reduction = add_reduction(training, bytes);
    if (reduction == NULL)
        return TROUPE_ENOMEM;
    reduction->bucket = bucket;
    reduction->data = data;
    reduction->bytes = bytes;
    rc = troupe_allreduce_start((troupe_from_t){ .troupe_ = training->troupe },
                                training->group, in, reduction->result, count,
                                type, op, &reduction->collective);
    if (rc == 0) {
        training->reductions_len++;
        if (bucket != NULL)
            tri_bucket_hold(bucket);
        return 0;
    }
    return tri_training_failed(training, rc);
}

int tri_step_reduce(struct troupe_training *training, const void *in,
                    void *data, const struct tri_bucket *bucket, size_t count,
                    enum troupe_datatype type, enum troupe_op op)
{
    int rc = start_reduction(training, in, data, bucket, count, type, op);

    if (rc != TROUPE_EVIEW)
        return rc != 0 ? tri_step_refuse(training, rc) : 0;
    training->is_over = true;
    return 0;
}

static int check_step(const troupe_step_t *step)
{
    int rc = step != NULL ? tri_training_check(step->training) : TROUPE_EINVAL;

    if (rc == 0 && (!step->training->is_open ||
                    step->step != step->training->step.step))
        rc = TROUPE_EINVAL;
    return rc;
}

int troupe_step_allreduce(const troupe_step_t *step, void *data, size_t count,
                          enum troupe_datatype type, enum troupe_op op)
{
    int rc = check_step(step);

    if (rc != 0)
        return rc;
    if (data == NULL && count > 0)
        return tri_step_refuse(step->training, TROUPE_EINVAL);
    tri_buddy_pump(step->training);
    return tri_step_reduce(step->training, data, data, NULL, count, type, op);
}

static void store_results(struct troupe_training *training)
{
    for (uint32_t i = 0; i < training->reductions_len; i++) {
        const struct tri_reduction *reduction = &training->reductions[i];

        if (reduction->bucket != NULL)
            tri_bucket_store(reduction->bucket, reduction->result);
        else if (reduction->bytes > 0)
            memcpy(reduction->data, reduction->result, reduction->bytes);
    }
}

/* --- the vote ----------------------------------------------------------------- */

static void fill_vote(struct troupe_training *training,
                      uint64_t vote[VOTE_LEN])
{
    uint64_t us = training->worked_ns / 1000;
    uint64_t place = training->step.index;
    uint64_t late = tri_min(us, UINT64_MAX >> 16) << 16 |
                    tri_min(place, UINT16_MAX);

    vote[VOTE_STEP] = training->core.committed;
    vote[VOTE_STEP_MIN] = ~vote[VOTE_STEP];
    vote[VOTE_STATE] = tri_state_hash_part(&training->states, vote[VOTE_STEP]);
    vote[VOTE_STATE_MIN] = ~vote[VOTE_STATE];
    training->leave_said = tri_training_wants_out(training);
    vote[VOTE_BOUNDARY] = training->leave_said ||
                          tri_view_wants_boundary(training->group);
    vote[VOTE_LAST] = late;
    vote[VOTE_FIRST] = ~late;
}

static void note_straggler(struct troupe_training *training,
                           const uint64_t vote[VOTE_LEN])
{
    struct tri_straggler *straggler = &training->straggler;
    uint64_t last_us = vote[VOTE_LAST] >> 16;
    uint64_t first_us = ~vote[VOTE_FIRST] >> 16;
    uint32_t place = vote[VOTE_LAST] & UINT16_MAX;
    uint64_t node;

    if (last_us < first_us + first_us / 2 || last_us < first_us + LATE_US) {
        /* two good steps take back what eight bad ones are worth */
        straggler->times -= tri_min(straggler->times, LATE_TIMES / 2);
        return;
    }
    node = troupe_group_node(training->group, place);
    if (node != straggler->node)
        *straggler = (struct tri_straggler){ .node = node };
    if (++straggler->times == LATE_TIMES) {
        straggler->times = 0;
        tri_training_event(training, TROUPE_TRAINING_STRAGGLER, node);
    }
}

static int judge_vote(struct troupe_training *training,
                      const uint64_t vote[VOTE_LEN])
{
    if (vote[VOTE_STEP] != ~vote[VOTE_STEP_MIN]) {
        tri_error("members vote for different steps");
        return TROUPE_EMISMATCH;
    }
    if (vote[VOTE_STATE] != ~vote[VOTE_STATE_MIN]) {
        tri_error("replicated state is not the same on all members in step "
                  "%llu; who differs is seen by what each of them says:",
                  (unsigned long long)training->core.committed);
        tri_state_log_part(&training->states, training->runtime->node,
                           training->core.committed);
        return TROUPE_EMISMATCH;
    }
    training->boundary_due = vote[VOTE_BOUNDARY] != 0;
    training->leave_due = training->leave_said;
    note_straggler(training, vote);
    return 0;
}

static int run_vote(struct troupe_training *training)
{
    uint64_t own[VOTE_LEN], vote[VOTE_LEN];
    uint64_t begin_ns = tri_now_ns();
    int rc;

    fill_vote(training, own);
    rc = troupe_allreduce(training->group, own, vote, VOTE_LEN, TROUPE_UINT64,
                          TROUPE_MAX, tri_training_timeout_ms(training));
    training->stats.vote_ns += tri_now_ns() - begin_ns;
    return rc == 0 ? judge_vote(training, vote)
                   : tri_training_failed(training, rc);
}

/* --- how a step ends ---------------------------------------------------------- */

static void close_step(struct troupe_training *training)
{
    tri_step_drop(training);
    tri_state_close_window(training);
    training->is_open = false;
}

static int committed(struct troupe_training *training)
{
    uint64_t now_ns = tri_now_ns();

    store_results(training);
    close_step(training);
    training->times.ns[training->times.len++ % TRI_STEP_TIMES_LEN] =
        now_ns - training->begun_ns;
    training->stats.steps++;
    training->retry = 0;
    training->patience = 0;
    if (training->lost_ns != 0) {
        training->stats.recover_last_ns = now_ns - training->lost_ns;
        training->stats.recover_max_ns =
            tri_max(training->stats.recover_max_ns,
                    training->stats.recover_last_ns);
        training->lost_ns = 0;
    }
    return TROUPE_COMMITTED;
}

static int retried(struct troupe_training *training)
{
    close_step(training);
    training->retry++;
    training->stats.retries++;
    tri_training_event(training, TROUPE_TRAINING_RETRY, 0);
    return TROUPE_RETRY;
}

static int skipped(struct troupe_training *training)
{
    close_step(training);
    training->retry = 0;
    training->stats.steps++;
    return TROUPE_RETRY;
}

static int end_as(struct troupe_training *training,
                  enum tri_step_outcome outcome)
{
    switch (outcome) {
    case TRI_STEP_COMMIT:
        return committed(training);
    case TRI_STEP_SKIP:
        return skipped(training);
    default:
        return retried(training);
    }
}

/* Only the members of the next view together know what becomes of it. */
static int end_in_next_view(struct troupe_training *training)
{
    int rc;

    /* What is given out of the state from now on may be other than before: the
     * program may change it when it has heard of a step that is withdrawn. */
    tri_state_close_window(training);
    rc = tri_training_settle(training);
    /* FINISHED: it may have been the last step that is needed, and begin says so
     * again. */
    if (rc == 0 || (rc == TROUPE_FINISHED &&
                    training->outcome != TRI_STEP_NOTHING))
        return end_as(training, training->outcome);
    /* The results are kept, and the outcome, if it is known already; commit may
     * be called again. */
    if (rc == TROUPE_EPAUSED)
        return rc;
    close_step(training);
    training->ended = rc; /* the results are gone */
    return rc;
}

int troupe_step_commit(const troupe_step_t *step)
{
    int rc = check_step(step);
    struct troupe_training *training;

    if (rc != 0)
        return rc;
    training = step->training;
    /* A call before was told EPAUSED when all knew what becomes of the step. */
    if (training->outcome != TRI_STEP_NOTHING)
        return end_in_next_view(training);
    tri_buddy_pump(training);
    training->worked_ns =
        tri_now_ns() - training->begun_ns - training->waited_ns;
    end_reductions(training, 0);
    if (training->failure == 0 && !training->is_over) {
        tri_step_prepared(&training->core);
        rc = run_vote(training);
        if (rc == 0) {
            tri_step_voted(&training->core);
            training->is_fetched = false; /* who votes has the state */
            training->undone = 0;
            return committed(training);
        }
        if (rc == TROUPE_EVIEW)
            training->is_over = true;
        else
            training->failure = rc;
    }
    if (training->failure != 0) {
        rc = training->failure;
        close_step(training);
        training->ended = rc;
        return rc;
    }
    if (tri_step_over(&training->core)) {
        training->undone++; /* by all: nobody has voted */
        return retried(training);
    }
    return end_in_next_view(training);
}

int troupe_step_cancel(const troupe_step_t *step, int skip)
{
    int rc = check_step(step);
    struct troupe_training *training;

    if (rc != 0)
        return rc;
    training = step->training;
    /* After EPAUSED it is not this member's to say any more. */
    if (training->core.phase != TRI_STEP_OPEN)
        return TROUPE_EINVAL;
    tri_step_cancel(&training->core, skip != 0);
    /* The others wait for what this member will not reduce: in another view
     * they hear why. */
    if (!training->is_over)
        tri_view_renew(training->group);
    training->is_over = true;
    (void)tri_step_over(&training->core);
    return end_in_next_view(training);
}

/* --- begin ---------------------------------------------------------------------- */

static void fill_step(struct troupe_training *training, bool is_synced)
{
    struct tri_share share;
    uint32_t index = (uint32_t)training->view.index;

    tri_sampler_share(&training->sampler, training->core.committed, index,
                      training->view.active, &share);
    training->step = (troupe_step_t){
        .step = training->core.committed,
        .epoch = share.epoch,
        .first = share.first,
        .samples = share.samples,
        .batch = share.batch,
        .weight = share.batch > 0
                      ? (double)share.samples / (double)share.batch
                      : 1.0 / training->view.active,
        .index = index,
        .members = training->view.active,
        .view = training->view.epoch,
        .retry = training->retry,
        .is_synced = is_synced,
        .training = training,
    };
}

/* The peers that have the state: all that are no newer than the one that is
 * known to. Those that are new, too, say NOT_YET until they have it. */
static int fetch(struct troupe_training *training)
{
    uint64_t *sources = calloc(training->view.active, sizeof(*sources));
    uint32_t len = 0;
    int rc;

    if (sources == NULL)
        return TROUPE_ENOMEM;
    for (uint32_t i = 0; i < training->view.active; i++)
        if (training->has_state_at[i])
            sources[len++] = training->nodes[i];
    rc = tri_fetch_run(training, sources, len);
    free(sources);
    if (rc == 0) {
        tri_step_synced(&training->core);
        tri_training_event(training, TROUPE_TRAINING_SYNCED, 0);
    }
    return tri_training_failed(training, rc);
}

/* All are done; nobody leaves before all know it, as far as that can be. Who
 * was let in behind the last step fetches the state meanwhile. */
static int finish(struct troupe_training *training)
{
    int rc;

    tri_state_open_window(training, training->core.committed);
    rc = troupe_barrier(training->group,
                        FINISH_MS + tri_training_fetch_ms(training));
    tri_state_close_window(training);
    if (rc == TROUPE_EVIEW)
        return rc;
    for (uint32_t i = training->view.active; i < training->view.len; i++) {
        struct tri_state_head head = { .what = TRI_STATE_FINISHED,
                                       .group = training->group_id };

        tri_state_send(training->runtime,
                       troupe_group_node(training->group, i), &head, NULL,
                       TRI_SEND_FORCED);
    }
    training->ended = TROUPE_FINISHED;
    return TROUPE_FINISHED;
}

/* All members, also who has just come, know the same number; and nobody goes
 * before all have heard it. */
static int give_up(struct troupe_training *training)
{
    tri_error("step %llu was begun %u times in vain",
              (unsigned long long)training->core.committed, training->undone);
    (void)troupe_barrier(training->group, TRI_TRAINING_HEARD_MS);
    training->ended = TROUPE_EVIEW;
    return TROUPE_EVIEW;
}

/* 0: a step may begin. */
static int prepare_step(struct troupe_training *training, bool *is_synced_p)
{
    bool is_finished;
    int rc;

    if (training->leave_due && !tri_view_is_over(training->group))
        return tri_training_leave(training, TROUPE_ECANCELED);
    rc = tri_training_settle(training);
    if (rc != 0)
        return rc;
    is_finished = tri_sampler_is_finished(&training->sampler,
                                          training->core.committed);
    if (!is_finished &&
        training->undone > (uint32_t)training->options.retries_max)
        return give_up(training);
    if ((training->core.flags & TRI_STEP_HAS_STATE) == 0) {
        rc = fetch(training);
        if (rc != 0)
            return rc;
        *is_synced_p = true;
    }
    return is_finished ? finish(training) : 0;
}

int troupe_step_begin(troupe_training_t *training, troupe_step_t *step_p)
{
    bool is_synced = false;
    int rc = tri_training_check(training);

    if (rc != 0 || step_p == NULL)
        return rc != 0 ? rc : TROUPE_EINVAL;
    if (training->is_open)
        return TROUPE_EINVAL; /* a step is to be committed or cancelled */
    if (training->ended != 0)
        return training->ended;
    training->states.is_sealed = true;
    do
        rc = prepare_step(training, &is_synced);
    while (rc == TROUPE_EVIEW && training->ended == 0);
    if (rc != 0) {
        training->ended = rc == TROUPE_EPAUSED ? 0 : rc;
        return rc;
    }
    tri_step_begin(&training->core);
    fill_step(training, is_synced);
    training->is_open = true;
    training->is_over = false;
    training->outcome = TRI_STEP_NOTHING;
    training->failure = 0;
    training->attempts++;
    training->begun_ns = tri_now_ns();
    training->waited_ns = 0;
    tri_buddy_begin(training);
    tri_state_open_window(training, training->core.committed);
    *step_p = training->step;
    return 0;
}

uint64_t troupe_step_sample(const troupe_step_t *step, uint64_t i)
{
    const struct troupe_training *training = step->training;

    assert(i < step->samples);
    return tri_sampler_sample(&training->sampler, step->epoch, step->first + i);
}
