/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A group over hosts that are cut in two: at most one side goes on. That is the
 * greater one, or of two halves the one with the first member. The other side
 * pauses, and when the cut is healed learns that it is out, for good.
 */
#include "board.h"
#include "hosts.h"
#include "leave.h"

enum {
    RANKS_MAX = 8,
    PAUSE_MS = 300,
    /* Who was cut off hears of it when the others look for the dead. */
    EXCLUSION_MS = 60000,
};

struct board {
    _Atomic int moved;  /* ranks that go on without the others */
    _Atomic int paused; /* that do not */
    _Atomic int healed;
    _Atomic int ended;
    _Atomic int checked; /* by who goes on: until then none leaves */
    _Atomic uint64_t digest;
};

static struct board *board;
static troupe_t *troupe;
static int size, kept; /* ranks, and those of the side that goes on */

static void await(_Atomic int *counter, int wanted)
{
    board_await(troupe, counter, wanted, EXCLUSION_MS);
}

/* The group may hear of it before the list of members. */
static void await_exclusion(void)
{
    for (int i = 0; i < EXCLUSION_MS && !troupe_is_excluded(troupe); i++)
        (void)troupe_serve(troupe, 1);
    CHECK_EQ(troupe_is_excluded(troupe), 1);
}

static int is_changing(void *group)
{
    return troupe_group_is_changing(group);
}

static void go_on(troupe_group_t *group)
{
    troupe_view_t view;
    uint64_t none = 0;

    troupe_group_view(group, &view);
    while (view.len > (uint32_t)kept && test_failures == 0) {
        CHECK_EQ(troupe_serve_until(troupe, is_changing, group, EXCLUSION_MS),
                 0);
        CHECK_EQ(troupe_group_update(group, 0, EXCLUSION_MS, &view), 0);
    }
    CHECK_EQ(view.len, kept);
    CHECK_EQ(view.index, test_rank);
    atomic_fetch_add(&board->moved, 1);
    if (test_rank == 0) {
        await(&board->paused, size - kept);
        CHECK(hosts_run("heal"));
        atomic_store(&board->healed, 1);
    }
    await(&board->ended, size - kept);
    CHECK_EQ(troupe_group_update(group, 0, TEST_SOON_MS, &view), 0);
    CHECK_EQ(view.len, kept);
    if (!atomic_compare_exchange_strong(&board->digest, &none, view.digest))
        CHECK(none == view.digest);
    CHECK_EQ(troupe_is_excluded(troupe), 0);
    atomic_fetch_add(&board->checked, 1);
    await(&board->checked, kept);
}

static void be_left(troupe_group_t *group)
{
    troupe_view_t view;
    int rc;

    CHECK_EQ(troupe_serve_until(troupe, is_changing, group, EXCLUSION_MS), 0);
    /* Until the others have gone on, and some time more. */
    do {
        rc = troupe_group_update(group, 0, PAUSE_MS, &view);
        CHECK(rc == TROUPE_EPAUSED || rc == TROUPE_ETIMEDOUT);
    } while (atomic_load(&board->moved) < kept && test_failures == 0);
    /* It pauses when it knows how many it has lost, which fewer find later. */
    for (int i = 0; i < EXCLUSION_MS / PAUSE_MS && rc == TROUPE_ETIMEDOUT; i++)
        rc = troupe_group_update(group, 0, PAUSE_MS, &view);
    CHECK_EQ(rc, TROUPE_EPAUSED);
    atomic_fetch_add(&board->paused, 1);
    await(&board->healed, 1);
    do
        rc = troupe_group_update(group, 0, EXCLUSION_MS, &view);
    while (rc == TROUPE_EPAUSED && test_failures == 0);
    CHECK_EQ(rc, TROUPE_EEXCLUDED);
    await_exclusion();
    troupe_group_view(group, &view);
    CHECK_EQ((long long)view.epoch, 1);
    atomic_fetch_add(&board->ended, 1);
}

int main(void)
{
    troupe_options_t options;
    troupe_group_t *group;

    troupe_options_init(&options);
    options.membership = "fast";
    options.log = "error";
    troupe = test_start(&size, &options);
    atexit(leave_failed);
    if (size < 4 || size > RANKS_MAX)
        MUST(TROUPE_EINVAL);
    kept = (size + 1) / 2;
    board = board_open("view_cut", sizeof(*board));
    MUST(troupe_group_create(troupe, "cut", NULL, &group));
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        CHECK(hosts_part(kept, size));
    if (test_rank < kept)
        go_on(group);
    else
        be_left(group);
    troupe_group_close(&group);
    leave();
}
