/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ranks are killed in the midst of collectives, at random microseconds: the
 * last one, then the first. All others get EVIEW soon, adopt the next view, and
 * go on together; results are right for the members there are, and what was
 * given to a call that failed is not written to afterwards.
 *
 *   coll_kill [fabric] [large] [BACKEND]
 *
 * large: sums of up to 64 MiB, else of up to 1 MiB. fabric: not by shared
 * memory, but over the network, also on one host. On two hosts with two ranks
 * each the members that are left are first alike on both, then not, and in the
 * end one on each.
 */
#include <stdatomic.h>

#include "base/base.h"
#include "base/clock.h"
#include "base/random.h"
#include "leave.h"

#include <pthread.h>

enum {
    RANKS = 4,
    SIZES = 5,
    SOON_MS = 60000,
    PATTERN = 0x37,
    PROMPT_MS = 30000, /* on a machine that is busy, of the largest */
};

static const struct plan {
    int calls; /* at least, and until two are dead */
    size_t counts[SIZES]; /* by turns */
    size_t count_max;
    int ends[RANKS]; /* in the midst of which call each is killed; 0: never */
    unsigned us_max; /* since that began */
} plans[] = {
    { .calls = 300,
      .counts = { 1, 100, 5000, 70000, 1 << 18 },
      .count_max = 1 << 18,
      .ends = { 200, 0, 0, 60 },
      .us_max = 2000 },
    { .calls = 8,
      .counts = { 2, 1 << 24, 1 << 20, 1 << 22, 70000 },
      .count_max = 1 << 24,
      .ends = { 6, 0, 0, 1 },
      .us_max = 100000 },
};
static const struct plan *plan = &plans[0];

static troupe_t *troupe;
static troupe_group_t *group;
static float *in, *out, *given;
static _Atomic int call_now;
static struct tri_random rng;

static void *killer(void *arg)
{
    unsigned us = tri_random_below(&rng, plan->us_max);

    (void)arg;
    while (atomic_load(&call_now) < plan->ends[test_rank])
        usleep(20);
    usleep(us);
    kill(getpid(), SIGKILL);
    return NULL;
}

static void be_killed(void)
{
    pthread_t thread;

    if (plan->ends[test_rank] != 0)
        MUST(pthread_create(&thread, NULL, killer, NULL));
}

/* All that live go on at the same call: the furthest. */
static void go_on_together(double since_ms)
{
    double ended_ms = test_now_ms();
    troupe_view_t view;
    int32_t own, next;
    int rc;

    do {
        MUST(troupe_group_update(group, 0, SOON_MS, &view));
        own = atomic_load(&call_now);
        rc = troupe_allreduce(group, &own, &next, 1, TROUPE_INT32, TROUPE_MAX,
                              SOON_MS);
        if (rc != 0)
            CHECK_EQ(rc, TROUPE_EVIEW);
    } while (rc == TROUPE_EVIEW);
    MUST(rc);
    atomic_store(&call_now, next);
    printf("rank %d: epoch %llu, %u members, %.1f ms after the call began, of "
           "which the call took %.1f\n",
           test_rank, (unsigned long long)view.epoch, view.active,
           test_now_ms() - since_ms, ended_ms - since_ms);
    CHECK(test_now_ms() - since_ms < PROMPT_MS);
}

static void check_result(const float *result, size_t count)
{
    troupe_view_t view;
    size_t wrong = 0;

    troupe_group_view(group, &view);
    for (size_t i = 0; i < count; i++)
        wrong += result[i] != (float)view.active * in[i];
    CHECK_EQ((long long)wrong, 0);
}

/* The same on all members: of the view. */
static int is_over(void)
{
    troupe_view_t view;

    troupe_group_view(group, &view);
    return atomic_load(&call_now) >= plan->calls && view.active <= 2;
}

/* What was given to the call that failed, until the next one has ended. */
static int is_untouched(void)
{
    const unsigned char *bytes = (const unsigned char *)given;
    size_t len = plan->count_max * sizeof(float);

    return bytes[0] == PATTERN && memcmp(bytes, bytes + 1, len - 1) == 0;
}

static void calls(void)
{
    int failed = 0;

    while (!is_over()) {
        int now = atomic_fetch_add(&call_now, 1) + 1;
        size_t count = plan->counts[now % SIZES];
        double begin_ms = test_now_ms();
        int rc = troupe_allreduce(group, in, out, count, TROUPE_FLOAT,
                                  TROUPE_SUM, SOON_MS);

        if (rc == 0) {
            check_result(out, count);
            continue;
        }
        CHECK_EQ(rc, TROUPE_EVIEW);
        failed++;
        /* The buffer is kept, and not to be written any more. */
        given = out;
        memset(given, PATTERN, plan->count_max * sizeof(float));
        out = malloc(plan->count_max * sizeof(float));
        go_on_together(begin_ms);
        CHECK(is_untouched());
    }
    CHECK(given == NULL || is_untouched());
    CHECK(failed >= 1);
}

int main(int argc, char **argv)
{
    const char *text = getenv("TROUPE_TEST_SEED"), *backend = "native";
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : tri_now_ns();
    troupe_group_options_t options;
    troupe_view_t view;
    int size;

    for (; argc > 1; argc--, argv++)
        if (strcmp(argv[1], "fabric") == 0)
            setenv("TROUPE_TRANSPORT", "fabric", 1);
        else if (strcmp(argv[1], "large") == 0)
            plan = &plans[1];
        else
            backend = argv[1];
    troupe = test_start_at(MPI_THREAD_MULTIPLE, &size, NULL);
    atexit(leave_failed);
    CHECK_EQ(size, RANKS);
    printf("rank %d: TROUPE_TEST_SEED=%llu\n", test_rank,
           (unsigned long long)seed);
    tri_random_init(&rng, tri_mix64(seed + (uint64_t)test_rank));
    troupe_group_options_init(&options);
    options.backend = backend;
    MUST(troupe_group_create(troupe, "all", &options, &group));
    in = malloc(plan->count_max * sizeof(float));
    out = malloc(plan->count_max * sizeof(float));
    for (size_t i = 0; i < plan->count_max; i++)
        in[i] = (float)(i % 100);
    be_killed();
    calls();
    troupe_group_view(group, &view);
    CHECK_EQ(view.active, 2);
    /* The other is not left alone in the last call; in this one it may be. */
    (void)troupe_barrier(group, SOON_MS);
    leave();
}
