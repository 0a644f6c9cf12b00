/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A rank is stopped (SIGSTOP) in the midst of a training, and goes on later.
 * For a short while: the others wait for it, and no view changes. Until the
 * others hold it for dead and go on without it: when it wakes it is told so,
 * and nobody has written into its program's memory, nor into theirs.
 *
 *   step_stop short|long
 *
 * TROUPE_TEST_STOP_S: long: for so many seconds at least; 0.
 */
#include <sys/wait.h>

#include "steps.h"

enum {
    EPOCHS = 4,
    VICTIM = 1,
    STOP_STEP = 40,
    SHORT_MS = 300,
    CANARIES = 1 << 16,
    AFTER_STEPS = 10, /* that the others do before the victim wakes */
};

static uint64_t canaries[CANARIES];
static bool is_long;
static double stop_ms; /* at least */
static uint64_t views;

static void fill_canaries(void)
{
    for (size_t i = 0; i < CANARIES; i++)
        canaries[i] = tri_mix64(i + 1);
}

static void check_canaries(void)
{
    for (size_t i = 0; i < CANARIES; i++)
        if (canaries[i] != tri_mix64(i + 1)) {
            CHECK(canaries[i] == tri_mix64(i + 1));
            return;
        }
}

/* Whether the others have gone on without it. */
static bool others_went_on(void)
{
    return atomic_load(&ledger->hashes[0][STOP_STEP + AFTER_STEPS]) != 0;
}

/* A process that no stop of ours can stop wakes it again. */
static void stop_victim(void)
{
    pid_t victim = atomic_load(&ledger->pids[VICTIM]), waker;
    double least = test_now_ms() + stop_ms, end = least + TEST_SOON_MS;

    CHECK_EQ(kill(victim, SIGSTOP), 0);
    waker = fork();
    if (waker == 0) {
        usleep(SHORT_MS * 1000);
        while (is_long && test_now_ms() < end &&
               (!others_went_on() || test_now_ms() < least))
            usleep(1000);
        kill(victim, SIGCONT);
        _exit(0);
    }
    CHECK(waker > 0);
}

static void disturb(struct steps *steps, const troupe_step_t *step)
{
    troupe_view_t view;

    troupe_serve(steps->troupe, 1); /* so that a stop meets all of a step */
    if (test_rank == 0 && step->step == STOP_STEP && step->retry == 0)
        stop_victim();
    troupe_group_view(troupe_training_group(steps->training), &view);
    views = view.epoch;
}

/* Those that held it for dead are there when it wakes, and tell it. */
static void await_victim(troupe_t *troupe)
{
    double end = test_now_ms() + stop_ms + TEST_SOON_MS;

    while (atomic_load(&ledger->results[VICTIM]) == 0 && test_now_ms() < end)
        troupe_serve(troupe, 1);
    CHECK_EQ(atomic_load(&ledger->results[VICTIM]), TROUPE_EEXCLUDED);
}

static void check_end(struct steps *steps, int rc)
{
    check_canaries();
    if (is_long && test_rank == VICTIM) {
        CHECK_EQ(rc, TROUPE_EEXCLUDED);
        atomic_store(&ledger->results[VICTIM], rc);
    } else {
        CHECK_EQ(rc, TROUPE_FINISHED);
        CHECK_EQ(views, is_long ? 2 : 1);
        steps_check(steps);
        if (is_long)
            await_victim(steps->troupe);
    }
    steps_close(steps);
}

int main(int argc, char **argv)
{
    int size;
    troupe_t *troupe;
    troupe_options_t options;
    struct steps steps = { .row = 0 };
    char path[PATH_BYTES] = "";

    is_long = argc > 1 && strcmp(argv[1], "long") == 0;
    if (is_long && getenv("TROUPE_TEST_STOP_S") != NULL)
        stop_ms = atof(getenv("TROUPE_TEST_STOP_S")) * 1000;
    troupe_options_init(&options);
    if (is_long)
        options.membership = "fast";
    troupe = test_start(&size, &options);
    atexit(leave_failed);
    steps = (struct steps){ .troupe = troupe,
                            .row = test_rank,
                            .epochs = EPOCHS,
                            .extra_len = 50000,
                            .before = disturb };
    steps_share(path);
    if (test_rank == 0)
        unlink(path);
    fill_canaries();
    steps_open(&steps, "stop");
    check_end(&steps, steps_run(&steps));
    check_canaries();
    CHECK_EQ(troupe_stop(&troupe), 0);
    check_canaries();
    if (test_rank == 0)
        while (wait(NULL) > 0)
            ;
    leave();
}
