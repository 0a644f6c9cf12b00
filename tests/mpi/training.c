/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Training without failures: sums are right, each sample is used once an epoch,
 * steps are cancelled and skipped by all, or take too long, buckets, a member
 * that is drained, calls and registrations that do not match or cannot be made.
 */
#include <stdbool.h>
#include <unistd.h>

#include <troupe/training.h>

#include "test.h"

enum {
    SAMPLES = 103,
    BATCH = 10,
    EPOCHS = 2,
    STEPS = 11, /* of an epoch */
    LONG = 10000,
    WAIT_MS = 20000,
    LATE_US = 20000,
    STEP_MS = 500,
    MANY = 1000,
};

static int size;

static troupe_training_options_t options_of(uint64_t epochs)
{
    troupe_training_options_t options;

    troupe_training_options_init(&options);
    options.samples = SAMPLES;
    options.batch = BATCH;
    options.epochs = epochs;
    options.seed = 5;
    options.last_batch = TROUPE_LAST_SHORT;
    /* By default a member that stands still for 5 s ends the step. */
    options.step_timeout_ms = TEST_SOON_MS;
    return options;
}

static troupe_training_t *open_training(troupe_t *troupe, const char *name,
                                        uint64_t epochs)
{
    troupe_training_options_t options = options_of(epochs);
    troupe_training_t *training;

    MUST(troupe_training_open(troupe, name, &options, &training));
    return training;
}

/* How often each sample is used in this step, by all after the commit. */
static void count_samples(const troupe_step_t *step, uint32_t counts[SAMPLES])
{
    memset(counts, 0, SAMPLES * sizeof(counts[0]));
    for (uint64_t i = 0; i < step->samples; i++)
        counts[troupe_step_sample(step, i)]++;
}

static void check_used(const uint32_t used[SAMPLES], uint32_t times)
{
    for (int i = 0; i < SAMPLES; i++)
        if (used[i] != times) {
            CHECK_EQ(used[i], times);
            return;
        }
}

static void check_step(const troupe_step_t *step, uint64_t number)
{
    CHECK_EQ(step->step, number);
    CHECK_EQ(step->epoch, number / STEPS);
    CHECK_EQ(step->members, size);
    CHECK_EQ(step->index, test_rank);
    CHECK_EQ(step->batch, number % STEPS == STEPS - 1 ? SAMPLES % BATCH
                                                      : BATCH);
}

/* A run to its end: small and large sums, in place and many at once. */
static void test_run(troupe_t *troupe)
{
    troupe_training_t *training = open_training(troupe, "run", EPOCHS);
    static uint32_t counts[SAMPLES], used[SAMPLES];
    static double large[LONG];
    troupe_training_stats_t stats;
    uint64_t number = 0;
    troupe_step_t step;
    int rc;

    MUST(troupe_state_register(training, "used", used, sizeof(used),
                               TROUPE_REPLICATED));
    while ((rc = troupe_step_begin(training, &step)) == 0) {
        float one[100];

        check_step(&step, number++);
        count_samples(&step, counts);
        for (int i = 0; i < LONG; i++)
            large[i] = (test_rank + 1) * (i % 7);
        MUST(troupe_step_allreduce(&step, counts, SAMPLES, TROUPE_UINT32,
                                   TROUPE_SUM));
        MUST(troupe_step_allreduce(&step, large, LONG, TROUPE_DOUBLE,
                                   TROUPE_SUM));
        for (int i = 0; i < 100; i++) {
            one[i] = (float)(test_rank + i);
            MUST(troupe_step_allreduce(&step, &one[i], 1, TROUPE_FLOAT,
                                       TROUPE_MAX));
        }
        CHECK_EQ(troupe_step_commit(&step), TROUPE_COMMITTED);
        for (int i = 0; i < SAMPLES; i++)
            used[i] += counts[i];
        CHECK(large[5] == 5.0 * size * (size + 1) / 2);
        CHECK(large[LONG - 1] ==
              (LONG - 1) % 7 * (double)size * (size + 1) / 2);
        for (int i = 0; i < 100; i++)
            CHECK(one[i] == (float)(size - 1 + i));
    }
    CHECK_EQ(rc, TROUPE_FINISHED);
    CHECK_EQ(number, EPOCHS * STEPS);
    check_used(used, EPOCHS);
    troupe_training_stats(training, &stats);
    CHECK_EQ(stats.steps, EPOCHS * STEPS);
    CHECK_EQ(stats.retries, 0);
    MUST(troupe_training_close(&training, WAIT_MS));
}

/* The last rank withdraws from step 3, once, and has step 5 skipped. */
static void test_cancel(troupe_t *troupe)
{
    troupe_training_t *training = open_training(troupe, "cancel", 1);
    static uint32_t counts[SAMPLES], used[SAMPLES];
    uint32_t retries = 0;
    uint64_t steps = 0;
    troupe_step_t step;
    int rc;

    while ((rc = troupe_step_begin(training, &step)) == 0) {
        uint32_t first[SAMPLES];
        bool withdraws = test_rank == size - 1 &&
                         ((step.step == 3 && step.retry == 0) ||
                          step.step == 5);

        count_samples(&step, counts);
        memcpy(first, counts, sizeof(first));
        if (!withdraws)
            MUST(troupe_step_allreduce(&step, counts, SAMPLES, TROUPE_UINT32,
                                       TROUPE_SUM));
        rc = withdraws ? troupe_step_cancel(&step, step.step == 5)
                       : troupe_step_commit(&step);
        if (rc == TROUPE_RETRY) {
            CHECK(memcmp(first, counts, sizeof(first)) == 0);
            retries++;
            continue;
        }
        CHECK_EQ(rc, TROUPE_COMMITTED);
        CHECK(step.step != 5);
        steps++;
        for (int i = 0; i < SAMPLES; i++)
            used[i] += counts[i];
    }
    CHECK_EQ(rc, TROUPE_FINISHED);
    /* others may hear of it before they begin the step */
    CHECK(retries >= 2 || test_rank < size - 1);
    CHECK_EQ(steps, STEPS - 1);
    rc = 0;
    for (int i = 0; i < SAMPLES; i++)
        rc += used[i] == 1;
    CHECK_EQ(rc, SAMPLES - BATCH);
    MUST(troupe_training_close(&training, WAIT_MS));
}

/* The last rank is later in step 1 than a step may be, until the others have
 * done something about it. Nobody has died: all go on. */
static void test_step_timeout(troupe_t *troupe)
{
    troupe_training_options_t options = options_of(1);
    static uint32_t counts[SAMPLES], used[SAMPLES];
    bool is_late = test_rank == size - 1 && size > 1;
    troupe_training_t *training;
    troupe_training_stats_t stats;
    troupe_step_t step;
    int rc;

    options.step_timeout_ms = STEP_MS;
    options.retries_max = MANY; /* on a busy machine other steps, too */
    MUST(troupe_training_open(troupe, "timeout", &options, &training));
    while ((rc = troupe_step_begin(training, &step)) == 0) {
        double end = test_now_ms() + TEST_SOON_MS;
        bool waits = is_late && step.step == 1;

        count_samples(&step, counts);
        while (waits && test_now_ms() < end &&
               !troupe_group_is_changing(troupe_training_group(training)))
            troupe_serve(troupe, 1);
        MUST(troupe_step_allreduce(&step, counts, SAMPLES, TROUPE_UINT32,
                                   TROUPE_SUM));
        rc = troupe_step_commit(&step);
        if (waits) {
            CHECK_EQ(rc, TROUPE_RETRY);
            is_late = false;
        }
        for (int i = 0; rc == TROUPE_COMMITTED && i < SAMPLES; i++)
            used[i] += counts[i];
    }
    CHECK_EQ(rc, TROUPE_FINISHED);
    CHECK(!is_late);
    check_used(used, 1);
    troupe_training_stats(training, &stats);
    CHECK_EQ(stats.steps, STEPS);
    CHECK_EQ(stats.losses, 0);
    MUST(troupe_training_close(&training, WAIT_MS));
}

/* One that is never committed: all hear so, and none goes on. */
static void test_gives_up(troupe_t *troupe)
{
    troupe_training_options_t options = options_of(1);
    troupe_training_t *training;
    int64_t one = 1;
    troupe_step_t step;
    int rc, begun = 0;

    options.retries_max = 2;
    MUST(troupe_training_open(troupe, "vain", &options, &training));
    while ((rc = troupe_step_begin(training, &step)) == 0) {
        begun++;
        if (test_rank == size - 1) {
            CHECK_EQ(troupe_step_cancel(&step, 0), TROUPE_RETRY);
            continue;
        }
        MUST(troupe_step_allreduce(&step, &one, 1, TROUPE_INT64, TROUPE_SUM));
        CHECK_EQ(troupe_step_commit(&step), TROUPE_RETRY);
    }
    CHECK_EQ(rc, TROUPE_EVIEW);
    CHECK_EQ(troupe_step_begin(training, &step), TROUPE_EVIEW);
    CHECK(begun <= 1 + options.retries_max);
    MPI_Barrier(MPI_COMM_WORLD); /* nobody leaves while another begins */
    troupe_training_close(&training, 0);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* Tensors get ready in another order on each rank. */
static void test_buckets(troupe_t *troupe)
{
    enum { TENSORS = 37, COUNT = 50 };
    troupe_training_t *training = open_training(troupe, "buckets", 1);
    static float tensors[TENSORS][COUNT];
    troupe_buckets_t *buckets;
    troupe_step_t step;
    int rc;

    MUST(troupe_buckets_create(training, TROUPE_FLOAT, TROUPE_SUM,
                               5 * COUNT * sizeof(float), &buckets));
    for (int i = 0; i < TENSORS; i++)
        MUST(troupe_buckets_add(buckets, tensors[i],
                                (size_t)(i % 4 == 3 ? COUNT : 1 + i % 4)));
    while ((rc = troupe_step_begin(training, &step)) == 0) {
        for (int n = 0; n < TENSORS; n++) {
            int i = (n * 10 + test_rank * 3) % TENSORS;

            for (int k = 0; k < COUNT; k++)
                tensors[i][k] = (float)(i + test_rank);
            MUST(troupe_buckets_ready(buckets, &step, (uint32_t)i));
        }
        CHECK_EQ(troupe_step_commit(&step), TROUPE_COMMITTED);
        for (int i = 0; i < TENSORS; i++)
            CHECK(tensors[i][0] == (float)(i * size + size * (size - 1) / 2));
        CHECK(tensors[3][COUNT - 1] ==
              (float)(3 * size + size * (size - 1) / 2));
    }
    CHECK_EQ(rc, TROUPE_FINISHED);
    troupe_buckets_destroy(&buckets);
    MUST(troupe_training_close(&training, WAIT_MS));
}

/* Destroyed between ready and commit, which writes the results all the same. */
static void test_buckets_destroyed(troupe_t *troupe)
{
    troupe_training_t *training = open_training(troupe, "destroyed", 1);
    float tensors[3][2];
    troupe_buckets_t *buckets;
    troupe_step_t step;

    MUST(troupe_buckets_create(training, TROUPE_FLOAT, TROUPE_SUM,
                               4 * sizeof(float), &buckets));
    for (int i = 0; i < 3; i++)
        MUST(troupe_buckets_add(buckets, tensors[i], 2));
    MUST(troupe_step_begin(training, &step));
    for (uint32_t i = 0; i < 3; i++) {
        tensors[i][0] = tensors[i][1] = (float)i + 1;
        MUST(troupe_buckets_ready(buckets, &step, i));
    }
    troupe_buckets_destroy(&buckets);
    CHECK(buckets == NULL);
    CHECK_EQ(troupe_step_commit(&step), TROUPE_COMMITTED);
    for (int i = 0; i < 3; i++)
        CHECK(tensors[i][1] == (float)((i + 1) * size));
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_training_close(&training, 0);
}

/* Until this member has heard that it is to leave. */
static void await_drain(troupe_t *troupe, troupe_training_t *training)
{
    double end = test_now_ms() + TEST_SOON_MS;
    troupe_training_event_t event;

    while (test_now_ms() < end) {
        while (troupe_training_events_take(training, &event, 1) > 0)
            if (event.what == TROUPE_TRAINING_DRAINING)
                return;
        troupe_serve(troupe, 1);
    }
    MUST(TROUPE_ETIMEDOUT);
}

/* Rank 0 is asked to leave in step 4, by the last one; the others go on. */
static void test_drain(troupe_t *troupe)
{
    troupe_training_t *training = open_training(troupe, "drain", EPOCHS);
    static uint32_t counts[SAMPLES], used[SAMPLES];
    troupe_training_stats_t stats;
    troupe_step_t step;
    int rc, left = size > 1;

    MUST(troupe_state_register(training, "used", used, sizeof(used),
                               TROUPE_REPLICATED));
    while ((rc = troupe_step_begin(training, &step)) == 0) {
        count_samples(&step, counts);
        if (step.step == 4 && test_rank == size - 1 && size > 1)
            MUST(troupe_training_drain(
                training, troupe_group_node(troupe_training_group(training),
                                            0)));
        if (step.step == 5 && test_rank == 0 && size > 1)
            await_drain(troupe, training);
        MUST(troupe_step_allreduce(&step, counts, SAMPLES, TROUPE_UINT32,
                                   TROUPE_SUM));
        CHECK_EQ(troupe_step_commit(&step), TROUPE_COMMITTED);
        for (int i = 0; i < SAMPLES; i++)
            used[i] += counts[i];
    }
    CHECK_EQ(rc, left && test_rank == 0 ? TROUPE_ECANCELED : TROUPE_FINISHED);
    troupe_training_stats(training, &stats);
    CHECK_EQ(stats.retries, 0);
    CHECK_EQ(stats.losses, 0);
    if (rc == TROUPE_FINISHED) {
        check_used(used, EPOCHS);
        CHECK_EQ(step.members, size - left);
    }
    MUST(troupe_training_close(&training, WAIT_MS));
}

static bool sees_straggler(troupe_training_t *training)
{
    troupe_training_event_t event;
    uint64_t last = troupe_group_node(troupe_training_group(training),
                                      (uint32_t)size - 1);

    while (troupe_training_events_take(training, &event, 1) > 0)
        if (event.what == TROUPE_TRAINING_STRAGGLER && event.node == last)
            return true;
    return false;
}

/* The last rank is late in each step, until all have heard of it. */
static void test_straggler(troupe_t *troupe)
{
    troupe_training_t *training = open_training(troupe, "late", 0);
    double end = test_now_ms() + TEST_SOON_MS;
    bool seen = size == 1;
    int32_t all = 0;
    troupe_step_t step;

    while (all == 0) {
        MUST(troupe_step_begin(training, &step));
        all = seen || test_now_ms() > end;
        if (test_rank == size - 1)
            usleep(LATE_US);
        MUST(troupe_step_allreduce(&step, &all, 1, TROUPE_INT32, TROUPE_MIN));
        CHECK_EQ(troupe_step_commit(&step), TROUPE_COMMITTED);
        seen |= sees_straggler(training);
    }
    CHECK(seen);
    MPI_Barrier(MPI_COMM_WORLD); /* nobody leaves while another commits */
    troupe_training_close(&training, 0);
}

/* One rank reduces another number of elements: all hear of it, whichever call
 * they are in. */
static void test_mismatch(troupe_t *troupe)
{
    troupe_training_t *training = open_training(troupe, "mismatch", 1);
    static uint32_t counts[SAMPLES];
    troupe_step_t step;
    int rc = troupe_step_begin(training, &step);

    if (rc == 0) {
        rc = troupe_step_allreduce(&step, counts, SAMPLES - (test_rank == 1),
                                   TROUPE_UINT32, TROUPE_SUM);
        CHECK(rc == 0 || rc == TROUPE_EMISMATCH);
        rc = troupe_step_commit(&step);
    }
    CHECK_EQ(rc, size > 1 ? TROUPE_EMISMATCH : TROUPE_COMMITTED);
    MPI_Barrier(MPI_COMM_WORLD); /* who leaves tells the others something else */
    troupe_training_close(&training, 0);
}

/* The last rank's second reduction cannot be started, and it does not look: it
 * hears so from commit, and leaves. The others go on without it, and nobody
 * takes its step for good. */
static void test_not_started(troupe_t *troupe)
{
    troupe_training_options_t options = options_of(1);
    static uint32_t counts[SAMPLES], used[SAMPLES];
    bool is_last = test_rank == size - 1;
    troupe_training_t *training;
    troupe_step_t step;
    int rc;

    options.step_timeout_ms = STEP_MS;
    options.retries_max = MANY; /* on a busy machine other steps, too */
    MUST(troupe_training_open(troupe, "unable", &options, &training));
    while ((rc = troupe_step_begin(training, &step)) == 0) {
        int64_t one = 1;

        count_samples(&step, counts);
        MUST(troupe_step_allreduce(&step, counts, SAMPLES, TROUPE_UINT32,
                                   TROUPE_SUM));
        (void)troupe_step_allreduce(&step, is_last ? NULL : &one, 1,
                                    TROUPE_INT64, TROUPE_SUM);
        rc = troupe_step_commit(&step);
        if (rc < 0)
            break;
        CHECK(!is_last);
        CHECK(rc == TROUPE_RETRY || one == size - 1);
        for (int i = 0; rc == TROUPE_COMMITTED && i < SAMPLES; i++)
            used[i] += counts[i];
    }
    CHECK_EQ(rc, is_last ? TROUPE_EINVAL : TROUPE_FINISHED);
    CHECK(!is_last || troupe_step_begin(training, &step) == TROUPE_EINVAL);
    check_used(used, is_last ? 0 : 1);
    troupe_training_close(&training, WAIT_MS);
}

/* Ranks begin with other state. */
static void test_other_state(troupe_t *troupe)
{
    troupe_training_t *training = open_training(troupe, "state", 1);
    uint64_t state = test_rank == 1;
    troupe_step_t step;
    int rc;

    MUST(troupe_state_register(training, "state", &state, sizeof(state),
                               TROUPE_REPLICATED));
    CHECK_EQ(troupe_state_register(training, "state", &state, sizeof(state),
                                   TROUPE_PRIVATE),
             TROUPE_EEXIST);
    rc = troupe_step_begin(training, &step);
    CHECK_EQ(rc, size > 1 ? TROUPE_EMISMATCH : 0);
    if (rc == 0)
        CHECK_EQ(troupe_step_commit(&step), TROUPE_COMMITTED);
    MPI_Barrier(MPI_COMM_WORLD); /* nobody leaves while another begins */
    troupe_training_close(&training, 0);
}

/* One rank applies something else to it: all hear of it in the next step. */
static void test_state_differs(troupe_t *troupe)
{
    troupe_training_t *training = open_training(troupe, "differs", 1);
    uint64_t state = 0;
    troupe_step_t step;
    int rc = 0;

    MUST(troupe_state_register(training, "state", &state, sizeof(state),
                               TROUPE_REPLICATED));
    for (int i = 0; i < 2; i++) {
        MUST(troupe_step_begin(training, &step));
        rc = troupe_step_commit(&step);
        CHECK_EQ(rc, i == 1 && size > 1 ? TROUPE_EMISMATCH : TROUPE_COMMITTED);
        state += test_rank == 1;
    }
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_training_close(&training, 0);
}

/* Too few are left to go on: commit says so, and may be called again, but who
 * has voted cannot withdraw. */
static void test_paused(troupe_t *troupe)
{
    troupe_training_options_t options = options_of(1);
    troupe_training_t *training;
    int64_t one = 1;
    troupe_step_t step;
    int rc;

    options.group.size_min = (uint32_t)size;
    options.pause_timeout_ms = 100;
    options.step_timeout_ms = 0; /* is no longer than that */
    MUST(troupe_training_open(troupe, "paused", &options, &training));
    MUST(troupe_step_begin(training, &step));
    MPI_Barrier(MPI_COMM_WORLD); /* nobody leaves while another begins */
    MUST(troupe_step_allreduce(&step, &one, 1, TROUPE_INT64, TROUPE_SUM));
    if (size > 1 && test_rank < size - 1) {
        rc = troupe_step_commit(&step);
        if (rc == TROUPE_EPAUSED) {
            CHECK_EQ(troupe_step_cancel(&step, 0), TROUPE_EINVAL);
            rc = troupe_step_commit(&step);
            CHECK_EQ(rc, TROUPE_EPAUSED);
        }
        /* RETRY: it heard of the others' end before it voted */
        CHECK(rc == TROUPE_EPAUSED || rc == TROUPE_RETRY);
        CHECK_EQ(one, 1);
    }
    troupe_training_close(&training, 0);
    MPI_Barrier(MPI_COMM_WORLD);
}

static void test_refused(troupe_t *troupe)
{
    troupe_training_options_t options = options_of(1);
    troupe_training_t *training = NULL;

    options.batch = 0;
    CHECK_EQ(troupe_training_open(troupe, "bad", &options, &training),
             TROUPE_EINVAL);
    options = options_of(1);
    options.group.elastic = 0;
    CHECK_EQ(troupe_training_open(troupe, "bad", &options, &training),
             TROUPE_EINVAL);
    options = options_of(1);
    options.step_timeout_ms = 2 * STEP_MS;
    options.pause_timeout_ms = STEP_MS;
    CHECK_EQ(troupe_training_open(troupe, "bad", &options, &training),
             TROUPE_EINVAL);
    CHECK(training == NULL);
    CHECK_EQ(troupe_training_close(&training, 0), 0);
}

int main(void)
{
    troupe_t *troupe = test_start(&size, NULL);

    test_refused(troupe);
    test_paused(troupe);
    test_run(troupe);
    test_cancel(troupe);
    test_step_timeout(troupe);
    test_gives_up(troupe);
    test_buckets(troupe);
    test_buckets_destroyed(troupe);
    test_drain(troupe);
    test_straggler(troupe);
    test_mismatch(troupe);
    test_not_started(troupe);
    test_other_state(troupe);
    test_state_differs(troupe);
    return test_end(troupe);
}
