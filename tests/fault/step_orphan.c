/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Private state of ranks that are killed in the midst of a training: exactly
 * one of those that are left, the dead one's buddy, has a copy of it, whole, as
 * of the end of one step. One after the other is killed, all but two.
 */
#include <pthread.h>

#include "steps.h"

enum {
    EPOCHS = 4,
    FIRST_STEP = 10,
    LATE_STEP = EPOCHS * EPOCH_STEPS / 2,
    WORDS = 150000, /* three chunks */
};

struct private {
    uint64_t row;
    uint64_t committed; /* steps */
    uint64_t words[WORDS];
};

static int size;
static struct private own, orphan;
static uint64_t nodes[ROWS_MAX];


static uint64_t word_of(const struct private *private, uint64_t i)
{
    return tri_mix64(private->row << 40 ^ private->committed << 20 ^ i);
}

static void fill(struct private *private)
{
    for (uint64_t i = 0; i < WORDS; i++)
        private->words[i] = word_of(private, i);
}

static void check_whole(const struct private *private)
{
    for (uint64_t i = 0; i < WORDS; i++)
        if (private->words[i] != word_of(private, i)) {
            CHECK(private->words[i] == word_of(private, i));
            return;
        }
}

/* The ledger's results count who was found. */
static void maybe_take(struct steps *steps)
{
    uint64_t node, step;

    while (troupe_state_orphan(steps->training, "own", &orphan, sizeof(orphan),
                               &node, &step) == 0) {
        CHECK(orphan.row < (uint64_t)size && nodes[orphan.row] == node);
        CHECK_EQ(orphan.committed, step);
        check_whole(&orphan);
        printf("rank %d: has the state of rank %d before step %d\n", test_rank,
               (int)orphan.row, (int)step);
        atomic_fetch_add(&ledger->results[orphan.row], 1);
    }
}

/* Whether its buddy of this view has a copy. It makes one in each begin, when
 * the one before has arrived. */
static bool has_copy(struct steps *steps, const troupe_step_t *step)
{
    static uint64_t view, copies;
    troupe_training_stats_t stats;

    troupe_training_stats(steps->training, &stats);
    if (step->view != view) {
        view = step->view;
        copies = stats.copies;
    }
    return stats.copies > copies;
}

/* The last one of those that are left, in some step. */
static void maybe_die(struct steps *steps, const troupe_step_t *step)
{
    static bool dying;
    bool is_safe = has_copy(steps, step);
    pthread_t thread;

    maybe_take(steps);
    /* The training is not to be over before all copies have arrived. */
    if (step->members > 2 && step->step >= FIRST_STEP)
        troupe_serve(steps->troupe, step->step < LATE_STEP ? 1 : 50);
    if (dying || !is_safe || test_rank < 2 ||
        step->members != (uint32_t)test_rank + 1 || step->step < FIRST_STEP)
        return;
    dying = true;
    pthread_create(&thread, NULL, steps_die_in_us,
                   (void *)(uintptr_t)(tri_mix64((uint64_t)getpid()) % 9000));
}

static void change(struct steps *steps, const troupe_step_t *step)
{
    (void)steps;
    own.committed = step->step + 1;
    fill(&own);
}

static void check_found(void)
{
    double end = test_now_ms() + TEST_SOON_MS;

    for (int row = 2; row < size; row++) {
        while (atomic_load(&ledger->results[row]) == 0 && test_now_ms() < end)
            usleep(1000);
        CHECK_EQ(atomic_load(&ledger->results[row]), 1);
    }
}

int main(void)
{
    troupe_t *troupe = test_start(&size, NULL);
    struct steps steps = { .troupe = troupe,
                           .row = test_rank,
                           .epochs = EPOCHS,
                           .before = maybe_die,
                           .after = change };
    char path[PATH_BYTES] = "";
    char small = 0;

    atexit(leave_failed);
    steps_share(path);
    if (test_rank == 0)
        unlink(path);
    steps_open(&steps, "orphan");
    own.row = (uint64_t)test_rank;
    fill(&own);
    MUST(troupe_state_register(steps.training, "own", &own, sizeof(own),
                               TROUPE_PRIVATE));
    MUST(troupe_state_register(steps.training, "small", &small, 1,
                               TROUPE_PRIVATE));
    for (int i = 0; i < size; i++)
        nodes[i] =
            troupe_group_node(troupe_training_group(steps.training),
                              (uint32_t)i);
    CHECK_EQ(troupe_state_orphan(steps.training, "own", &orphan,
                                 sizeof(orphan), NULL, NULL),
             TROUPE_ENONAME);
    CHECK_EQ(troupe_state_orphan(steps.training, "none", &orphan,
                                 sizeof(orphan), NULL, NULL),
             TROUPE_EINVAL);
    CHECK_EQ(steps_run(&steps), TROUPE_FINISHED);
    maybe_take(&steps);
    steps_check(&steps);
    check_found();
    steps_close(&steps);
    CHECK_EQ(troupe_stop(&troupe), 0);
    leave();
}
