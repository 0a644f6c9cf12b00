/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A group over hosts that are cut in two: at most one side goes on. That is the
 * greater one, or of two halves the one with the first member. The other side
 * pauses, and when the cut is healed learns that it is out, for good.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../mpi/test.h"
#include "hosts.h"

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
    _Atomic uint64_t digest;
};

static struct board *board;
static troupe_t *troupe;
static int size, kept; /* ranks, and those of the side that goes on */

/* MPI_Finalize may hang after a death, so nobody calls it. */
static void leave(void)
{
    printf("rank %d: %s\n", test_rank, test_failures ? "FAILED" : "ok");
    fflush(NULL);
    _exit(test_status());
}

static void leave_failed(void)
{
    test_failures++;
    leave();
}

/* Hosts share their files. */
static void open_board(void)
{
    char path[128] = "";
    int fd = -1;

    if (test_rank == 0) {
        snprintf(path, sizeof(path), "%s/view_cut", getenv("TEST_HOSTS_DIR"));
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || ftruncate(fd, sizeof(*board)) != 0)
            MUST(TROUPE_ESYSTEM);
    }
    MPI_Bcast(path, sizeof(path), MPI_CHAR, 0, MPI_COMM_WORLD);
    if (test_rank != 0)
        fd = open(path, O_RDWR);
    board = fd < 0 ? MAP_FAILED
                   : mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
                          MAP_SHARED, fd, 0);
    if (board == MAP_FAILED)
        MUST(TROUPE_ESYSTEM);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        unlink(path);
}

struct until {
    _Atomic int *counter;
    int wanted;
};

static int has_come(void *arg)
{
    struct until *until = arg;

    return atomic_load(until->counter) >= until->wanted;
}

static void wait_for(_Atomic int *counter, int wanted)
{
    struct until until = { counter, wanted };

    for (int i = 0; i < EXCLUSION_MS && !has_come(&until); i++)
        (void)troupe_serve(troupe, 1);
    CHECK(has_come(&until));
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
        wait_for(&board->paused, size - kept);
        CHECK(hosts_run("heal"));
        atomic_store(&board->healed, 1);
    }
    wait_for(&board->ended, size - kept);
    CHECK_EQ(troupe_group_update(group, 0, TEST_SOON_MS, &view), 0);
    CHECK_EQ(view.len, kept);
    if (!atomic_compare_exchange_strong(&board->digest, &none, view.digest))
        CHECK(none == view.digest);
    CHECK_EQ(troupe_is_excluded(troupe), 0);
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
    wait_for(&board->healed, 1);
    do
        rc = troupe_group_update(group, 0, EXCLUSION_MS, &view);
    while (rc == TROUPE_EPAUSED && test_failures == 0);
    CHECK_EQ(rc, TROUPE_EEXCLUDED);
    CHECK_EQ(troupe_is_excluded(troupe), 1);
    troupe_group_view(group, &view);
    CHECK_EQ((long long)view.epoch, 1);
    atomic_fetch_add(&board->ended, 1);
}

static void cut(void)
{
    for (int i = kept; i < size; i++)
        for (int k = 0; k < kept; k++)
            CHECK(hosts_run("cut %d %d", i, k));
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
    open_board();
    MUST(troupe_group_create(troupe, "cut", NULL, &group));
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        cut();
    if (test_rank < kept)
        go_on(group);
    else
        be_left(group);
    troupe_group_close(&group);
    leave();
}
