/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ranks of a training get signals that ask them to leave, SIGTERM and SIGUSR1:
 * each leaves after a step, and for the others no step is lost nor done twice.
 * Two are asked in the same step. Samples of the data set are used once.
 */
#include "steps.h"

enum {
    EPOCHS = 4,
    FIRST_STEP = 15, /* rank 1 is asked, by SIGTERM */
    OTHERS_STEP = 50, /* ranks 2 and 3, by SIGUSR1 and SIGTERM */
};

static int events;

static void await_notice(struct steps *steps)
{
    double end = test_now_ms() + TEST_SOON_MS;

    while (events == 0 && test_now_ms() < end) {
        events += steps_events(steps, TROUPE_TRAINING_DRAINING);
        troupe_serve(steps->troupe, 1);
    }
    CHECK_EQ(events, 1);
}

/* All are there until the victims have got it: it says in which step. */
static void ask(struct steps *steps, const troupe_step_t *step)
{
    bool first = step->step == FIRST_STEP, others = step->step == OTHERS_STEP;

    CHECK_EQ(step->retry, 0);
    if (step->step > FIRST_STEP + 1)
        CHECK(step->members <= 3);
    if (step->step > OTHERS_STEP + 2)
        CHECK_EQ(step->members, 1);
    if (test_rank == 0 && first)
        CHECK_EQ(kill(atomic_load(&ledger->pids[1]), SIGTERM), 0);
    if (test_rank == 0 && others) {
        CHECK_EQ(kill(atomic_load(&ledger->pids[2]), SIGUSR1), 0);
        CHECK_EQ(kill(atomic_load(&ledger->pids[3]), SIGTERM), 0);
    }
    if ((first && test_rank == 1) || (others && test_rank >= 2))
        await_notice(steps);
}

int main(void)
{
    int size;
    troupe_t *troupe = test_start(&size, NULL);
    struct steps steps = { .troupe = troupe,
                           .row = test_rank,
                           .epochs = EPOCHS,
                           .before = ask };
    troupe_training_stats_t stats;
    char path[PATH_BYTES] = "";
    int rc;

    atexit(leave_failed);
    if (size != 4)
        MUST(TROUPE_EINVAL);
    steps_share(path);
    if (test_rank == 0)
        unlink(path);
    steps_open(&steps, "drain");
    rc = steps_run(&steps);
    CHECK_EQ(rc, test_rank == 0 ? TROUPE_FINISHED : TROUPE_ECANCELED);
    if (rc == TROUPE_FINISHED)
        steps_check(&steps);
    troupe_training_stats(steps.training, &stats);
    CHECK_EQ(stats.losses, 0);
    CHECK_EQ(stats.retries, 0);
    steps_close(&steps);
    CHECK_EQ(troupe_stop(&troupe), 0);
    leave();
}
