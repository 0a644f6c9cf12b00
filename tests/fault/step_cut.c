/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A training over hosts that are cut in two, in the midst of its steps. At most
 * one side commits: the greater one, or of two halves the one with the first
 * member. The other side's steps end when the cut is healed, with EEXCLUDED;
 * its nodes stop, start again as new ones, join, get the state, and are there
 * until the end. Nobody came to something else in any step.
 */
#include "board.h"
#include "hosts.h"
#include "steps.h"

enum {
    RANKS_MAX = 8,
    EPOCHS = 20,
    CUT_STEP = 10,
    ALONE_STEPS = 10, /* of the side that goes on, before it is healed */
    /* From here on it waits for the others: they hear of it when those look for
     * the dead. */
    LATE_STEP = EPOCHS * EPOCH_STEPS - 100,
    PORT = 7700,
};

struct board {
    _Atomic uint64_t split; /* the first step without the others */
    _Atomic int back;       /* members that have come again */
};

static struct board *board;
static int size, kept; /* ranks, and those of the side that goes on */
static char key_file[128];
static double began_ms;

static void open_board(void)
{
    const char *folder = getenv("TEST_HOSTS_DIR");

    if (folder == NULL)
        MUST(TROUPE_EINVAL);
    board = board_open("step_cut", sizeof(*board));
    snprintf(key_file, sizeof(key_file), "%s/step_cut.key", folder);
}

static void write_key(void)
{
    int fd = open(key_file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    CHECK(fd >= 0);
    for (unsigned i = 0; i < 32; i++)
        dprintf(fd, "%02x", i * 7 & 255);
    close(fd);
}

static void tell(const char *what)
{
    printf("rank %d: %s after %.1f s\n", test_rank, what,
           (test_now_ms() - began_ms) / 1e3);
}

/* --- who goes on ------------------------------------------------------------
 */

static void go_on(struct steps *steps, const troupe_step_t *step)
{
    static bool is_healed;
    uint64_t split = atomic_load(&board->split);
    int ms = 1;

    if (test_rank == 0 && step->step == CUT_STEP && step->retry == 0) {
        CHECK(hosts_part(kept, size));
        tell("cut");
    }
    if (step->members == (uint32_t)kept && split == 0) {
        atomic_store(&board->split, step->step); /* all store the same */
        split = step->step;
    }
    if (test_rank == 0 && split > 0 && !is_healed &&
        step->step >= split + ALONE_STEPS) {
        CHECK(hosts_run("heal"));
        tell("healed");
        is_healed = true;
    }
    if (atomic_load(&board->back) < size - kept)
        ms = step->step < LATE_STEP ? 50 : 1000;
    troupe_serve(steps->troupe, ms);
}

/* --- who is left ------------------------------------------------------------
 */

static void linger(struct steps *steps, const troupe_step_t *step)
{
    (void)step;
    troupe_serve(steps->troupe, 1);
}

static void come_back(struct steps *steps)
{
    troupe_options_t options;
    char port[16];

    troupe_options_init(&options);
    options.membership = "fast";
    options.log = "error";
    options.key_file = key_file;
    options.mpi = "off";
    snprintf(port, sizeof(port), "%d", PORT + 1);
    options.listen = port;
    options.seeds = "10.77.0.2:7700";
    MUST(troupe_start(&steps->troupe, &options));
    *steps = (struct steps){ .troupe = steps->troupe,
                             .row = size + test_rank,
                             .epochs = EPOCHS,
                             .extra_len = 1000,
                             .before = linger };
    steps_open(steps, "cut");
}

static void be_left(struct steps *steps)
{
    uint64_t last = 0, split;
    int rc = steps_run(steps);

    CHECK_EQ(rc, TROUPE_EEXCLUDED);
    /* The group may hear of it before the list of members. */
    for (int i = 0; i < TEST_SOON_MS && !troupe_is_excluded(steps->troupe); i++)
        troupe_serve(steps->troupe, 1);
    CHECK_EQ(troupe_is_excluded(steps->troupe), 1);
    for (uint64_t step = 0; step < EPOCHS * EPOCH_STEPS; step++)
        if (atomic_load(&ledger->hashes[test_rank][step]) != 0)
            last = step;
    split = atomic_load(&board->split);
    tell("knows that it is out");
    printf("rank %d: committed until step %llu; the others went on in %llu\n",
           test_rank, (unsigned long long)last, (unsigned long long)split);
    CHECK(split > 0 && last < split);
    (void)troupe_training_close(&steps->training, 0);
    (void)troupe_stop(&steps->troupe);
    free(steps->used);
    come_back(steps);
    tell("is back");
    atomic_fetch_add(&board->back, 1);
}

int main(void)
{
    troupe_options_t options;
    struct steps steps = { .row = 0 };
    char path[PATH_BYTES] = "", port[16];

    MPI_Init(NULL, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    atexit(leave_failed);
    if (size < 4 || size > RANKS_MAX)
        MUST(TROUPE_EINVAL);
    kept = (size + 1) / 2;
    open_board();
    if (test_rank == 0)
        write_key();
    troupe_options_init(&options);
    options.membership = "fast";
    options.log = "error";
    options.key_file = key_file;
    snprintf(port, sizeof(port), "%d", PORT);
    options.listen = port;
    MUST(troupe_start(&steps.troupe, &options));
    steps = (struct steps){ .troupe = steps.troupe,
                            .row = test_rank,
                            .epochs = EPOCHS,
                            .extra_len = 1000,
                            .before = test_rank < kept ? go_on : linger };
    began_ms = test_now_ms();
    steps_share(path);
    if (test_rank == 0)
        unlink(path);
    steps_open(&steps, "cut");
    if (test_rank >= kept)
        be_left(&steps);
    CHECK_EQ(steps_run(&steps), TROUPE_FINISHED);
    steps_check(&steps);
    CHECK_EQ(steps.members_most, size);
    tell("done");
    steps_close(&steps);
    CHECK_EQ(troupe_stop(&steps.troupe), 0);
    leave();
}
