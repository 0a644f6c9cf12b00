/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who waits for a slow member in a collective lets others have its core: the
 * last rank is late, and the others' threads, all together, run for a small
 * part of the time that they wait. And what members that are ahead send a slow
 * one is bounded: they are not ahead by more than some calls.
 */
#include <time.h>

#include "test.h"

#include <troupe/tensor.h>

enum {
    LATE_MS = 1000,
    PART = 2, /* of which at most one is run; much less when not sanitized */
    TRIES = 5, /* who came late itself has not waited */
    FLOATS = 300000,
    AHEAD_LEN = 200, /* calls of a root, started before any is waited for */
    AHEAD_FLOATS = 1 << 16,
    KEPT_BYTES_MAX = 24 << 20, /* of the 50 MiB of all, and rounded up */
};

static troupe_t *troupe;
static troupe_group_t *group;
static int size;
static float *in, *out;

static double cpu_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void be_late(void)
{
    struct timespec ts = { .tv_sec = LATE_MS / 1000,
                           .tv_nsec = LATE_MS % 1000 * 1000000 };

    if (test_rank == size - 1)
        nanosleep(&ts, NULL);
}

/* True: it waited long enough to judge by, and ran for a small part of that. */
static int has_waited(size_t count)
{
    double waited_ms, ran_ms;

    MUST(troupe_barrier(group, TEST_SOON_MS));
    waited_ms = test_now_ms();
    ran_ms = cpu_ms();
    be_late();
    MUST(troupe_allreduce(group, in, out, count, TROUPE_FLOAT, TROUPE_SUM,
                          TEST_SOON_MS));
    waited_ms = test_now_ms() - waited_ms;
    ran_ms = cpu_ms() - ran_ms;
    printf("rank %d: %zu floats: ran %.0f of %.0f ms\n", test_rank, count,
           ran_ms, waited_ms);
    for (size_t i = 0; i < count; i++)
        if (out[i] != (float)(size * (size + 1) / 2)) {
            CHECK_EQ((long long)out[i], size * (size + 1) / 2);
            break;
        }
    return waited_ms > LATE_MS / 2 && ran_ms < waited_ms / PART;
}

/* Each in one of the tries. */
static void wait_for_one(size_t count)
{
    int has = 0, all = 0;

    for (int i = 0; i < TRIES && !all; i++) {
        has |= has_waited(count);
        MPI_Allreduce(&has, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    }
    CHECK(has);
}

/* The first rank begins with all calls; what reaches the last one before it
 * makes its own is kept there. */
static void ahead(void)
{
    static troupe_collective_t *calls[AHEAD_LEN];
    float *data = malloc(AHEAD_LEN * AHEAD_FLOATS * sizeof(float));
    troupe_stats_t stats;
    size_t wrong = 0;

    for (size_t i = 0; i < AHEAD_LEN * AHEAD_FLOATS; i++)
        data[i] = test_rank == 0 ? (float)(i % 1000) : -1;
    MUST(troupe_barrier(group, TEST_SOON_MS));
    be_late();
    troupe_stats(troupe, &stats);
    printf("rank %d: keeps %llu bytes\n", test_rank,
           (unsigned long long)stats.messages_bytes);
    CHECK(stats.messages_bytes < KEPT_BYTES_MAX);
    for (size_t i = 0; i < AHEAD_LEN; i++)
        MUST(troupe_bcast_start(troupe, group,
                                data + i * AHEAD_FLOATS, AHEAD_FLOATS,
                                TROUPE_FLOAT, 0, &calls[i]));
    for (size_t i = 0; i < AHEAD_LEN; i++)
        MUST(troupe_collective_wait(&calls[i], TEST_SOON_MS));
    for (size_t i = 0; i < AHEAD_LEN * AHEAD_FLOATS; i++)
        wrong += data[i] != (float)(i % 1000);
    CHECK_EQ((long long)wrong, 0);
    free(data);
}

int main(void)
{
    troupe_group_options_t options;

    troupe = test_start(&size, NULL);
    troupe_group_options_init(&options);
    options.backend = "native";
    MUST(troupe_group_create(troupe, "late", &options, &group));
    in = malloc(FLOATS * sizeof(float));
    out = malloc(FLOATS * sizeof(float));
    for (size_t i = 0; i < FLOATS; i++)
        in[i] = (float)(test_rank + 1);
    wait_for_one(1);
    wait_for_one(FLOATS);
    ahead();
    MUST(troupe_barrier(group, TEST_SOON_MS));
    troupe_group_close(&group);
    free(in);
    free(out);
    return test_end(troupe);
}
