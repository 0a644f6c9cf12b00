/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The holder of a strictly unique name is killed, round after round, while all
 * others claim the name: one of them gets it, when they have agreed on a view
 * without the dead.
 */
#include "board.h"
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

static void await(_Atomic int *counter, int wanted)
{
    board_await(troupe, counter, wanted, 2 * TEST_SOON_MS);
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
    board = board_open("strict_kill", sizeof(*board));
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
