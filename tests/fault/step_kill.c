/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ranks kill themselves at random microseconds of a training, one after the
 * other, or two at once: while they compute, reduce, vote, or agree on a view.
 * Those that are left go on: whoever commits a step comes to the same bits,
 * also who dies afterwards, and each sample is used once.
 *
 *   step_kill [kills at once [MiB of gradients]]
 *
 * TROUPE_TEST_SEED replays a schedule, as far as it is the seed's.
 */
#include <pthread.h>

#include "steps.h"

enum { EPOCHS = 2 };

static int size, at_once = 1;
static uint64_t seed;

/* --- death -------------------------------------------------------------------- */

/* In which round this rank dies; the last one does not. Ranks die in an order
 * that the seed shuffles. */
static int round_of(int rank)
{
    int order[ROWS_MAX], place = 0;

    for (int i = 0; i < size; i++)
        order[i] = i;
    for (int i = size - 1; i > 0; i--) {
        int k = (int)(tri_mix64(seed + (uint64_t)i) % (uint64_t)(i + 1));
        int other = order[i];

        order[i] = order[k];
        order[k] = other;
    }
    while (order[place] != rank)
        place++;
    return place >= size - 1 - (size - 2) % at_once ? -1 : place / at_once;
}

/* Rounds are some steps apart, so that most deaths come one by one, and some
 * while the one before is being dealt with. */
static uint64_t step_of(int round)
{
    return 3 + (uint64_t)round * 9 +
           tri_mix64(seed ^ (uint64_t)(round + 99)) % 7;
}

static void maybe_die(struct steps *steps, const troupe_step_t *step)
{
    static bool dying;
    int round = round_of(test_rank);
    pthread_t thread;
    uint64_t us;

    (void)steps;
    if (dying || round < 0 || step->step != step_of(round))
        return;
    dying = true;
    us = tri_mix64(seed * 31 + (uint64_t)test_rank) % 3000;
    pthread_create(&thread, NULL, steps_die_in_us, (void *)(uintptr_t)us);
}

int main(int argc, char **argv)
{
    troupe_t *troupe = test_start(&size, NULL);
    const char *text = getenv("TROUPE_TEST_SEED");
    struct steps steps = { .troupe = troupe,
                           .row = test_rank,
                           .epochs = EPOCHS,
                           .before = maybe_die };
    char path[PATH_BYTES] = "";

    atexit(leave_failed);
    if (size < 2 || size > ROWS_MAX)
        MUST(TROUPE_EINVAL);
    at_once = argc > 1 ? atoi(argv[1]) : 1;
    steps.extra_len = argc > 2 ? (size_t)atoi(argv[2]) * 262144 : 1000;
    seed = text != NULL ? strtoull(text, NULL, 0)
                        : (uint64_t)(test_now_ms() * 1000);
    MPI_Bcast(&seed, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    steps.seed = seed;
    if (test_rank == 0)
        printf("TROUPE_TEST_SEED=%llu\n", (unsigned long long)seed);
    steps_share(path);
    if (test_rank == 0)
        unlink(path);
    steps_open(&steps, "kill");
    CHECK_EQ(steps_run(&steps), TROUPE_FINISHED);
    steps_check(&steps);
    steps_close(&steps);
    CHECK_EQ(troupe_stop(&troupe), 0);
    leave();
}
