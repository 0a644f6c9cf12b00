/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The holder of a strictly unique name is killed, round after round, while all
 * others claim the name: one of them gets it, when they have agreed on a view
 * without the dead.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "leave.h"

enum { RANKS = 5, ROUNDS = 4 };

#define crown_messages(TELL, ASK) TELL(crown, nothing, ())
TROUPE_PROTOCOL(crown)

struct crown {
    int32_t unused;
};

static int on_nothing(troupe_self_t *self, struct crown *c,
                      const crown_nothing_t *m)
{
    (void)self, (void)c, (void)m;
    return 0;
}

TROUPE_ACTOR(crown, struct crown, .nothing = on_nothing)

struct board {
    _Atomic int wins[ROUNDS];
    _Atomic int losses[ROUNDS]; /* who found it taken, after that */
    _Atomic int ended;
    double killed_ms[ROUNDS];
};

static struct board *board;
static troupe_t *troupe;

/* A file without a name, of rank 0, which the others open through /proc. */
static void open_board(void)
{
    int ids[2] = { getpid(), -1 };
    char path[64];
    int fd;

    if (test_rank == 0) {
        ids[1] = memfd_create("strict_kill", 0);
        if (ids[1] < 0 || ftruncate(ids[1], sizeof(*board)) != 0)
            MUST(TROUPE_ESYSTEM);
    }
    MPI_Bcast(ids, 2, MPI_INT, 0, MPI_COMM_WORLD);
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", ids[0], ids[1]);
    fd = open(path, O_RDWR);
    board = fd < 0 ? MAP_FAILED
                   : mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
                          MAP_SHARED, fd, 0);
    if (board == MAP_FAILED)
        MUST(TROUPE_ESYSTEM);
    MPI_Barrier(MPI_COMM_WORLD);
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

static void await(_Atomic int *counter, int wanted)
{
    struct until until = { counter, wanted };

    for (int i = 0; i < 2 * TEST_SOON_MS && !has_come(&until); i++)
        (void)troupe_serve(troupe, 1);
    CHECK(has_come(&until));
}

static int claim(void)
{
    troupe_spawn_options_t strict = { .name = "the/crown",
                                      .unique = TROUPE_UNIQUE_STRICT };
    crown_ref_t ref;
    int rc = crown_spawn_with(troupe, &strict, NULL, &ref);

    if (rc != TROUPE_EEXIST)
        CHECK_EQ(rc, 0);
    return rc;
}

/* True: this rank has it now. */
static int claim_until_won(int round)
{
    double end_ms = test_now_ms() + 2 * TEST_SOON_MS;

    while (test_now_ms() < end_ms && test_failures == 0) {
        int was_won = atomic_load(&board->wins[round]) > 0;

        if (claim() == 0) {
            atomic_fetch_add(&board->wins[round], 1);
            return 1;
        }
        if (was_won) /* the holder lives, and nobody else gets it */
            return 0;
    }
    CHECK(!"claimed in time");
    return 0;
}

int main(void)
{
    troupe_options_t options;
    int size;

    troupe_options_init(&options);
    options.strict_names = 1;
    options.log = "error";
    troupe = test_start(&size, &options);
    atexit(leave_failed);
    if (size != RANKS)
        MUST(TROUPE_EINVAL);
    open_board();
    for (int round = 0; round < ROUNDS && test_failures == 0; round++) {
        int living = RANKS - round;

        if (claim_until_won(round)) {
            if (round > 0)
                printf("rank %d: had it %.1f ms after the kill\n", test_rank,
                       test_now_ms() - board->killed_ms[round - 1]);
            fflush(stdout);
            await(&board->losses[round], living - 1);
            CHECK_EQ(atomic_load(&board->wins[round]), 1);
            if (round == ROUNDS - 1)
                break;
            board->killed_ms[round] = test_now_ms();
            raise(SIGKILL);
        }
        atomic_fetch_add(&board->losses[round], 1);
        await(&board->losses[round], living - 1);
    }
    atomic_fetch_add(&board->ended, 1);
    await(&board->ended, RANKS - ROUNDS + 1);
    CHECK_EQ(troupe_stop(&troupe), 0);
    leave();
}
