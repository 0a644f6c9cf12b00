/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Chains of messages that bounce between ranks; troupe_quiesce returns when
 * all have come to their end, which plain MPI confirms. Then one rank stays
 * away, and the others are told that it was that one.
 */
#include <stdatomic.h>

#include "test.h"

enum { PHASES = 25, CHAINS = 40, HOPS = 30, RANKS_MAX = 64, SHORT_MS = 400 };

#define ball_messages(TELL, ASK)                                              \
    TELL(ball, pass, (uint32_t hops; uint32_t seed;))
TROUPE_PROTOCOL(ball)

struct ball {
    int64_t unused;
};

static ball_ref_t players[RANKS_MAX];
static int ranks;
static atomic_long sent, handled;

/* Refused by the way to it: then it is not under way. */
static void pass(troupe_from_t from, uint32_t hops, uint32_t seed)
{
    uint32_t next = seed * 1664525u + 1013904223u;
    int rc = ball_pass(from, players[(next >> 16) % (uint32_t)ranks],
                       (ball_pass_t){ hops, next });

    if (rc == 0)
        atomic_fetch_add(&sent, 1);
    else
        CHECK_EQ(rc, TROUPE_EFULL);
}

static int on_pass(troupe_self_t *self, struct ball *b, const ball_pass_t *m)
{
    (void)b;
    if (m->hops > 0)
        pass(self, m->hops - 1, m->seed);
    atomic_fetch_add(&handled, 1);
    return 0;
}

TROUPE_ACTOR(ball, struct ball, .pass = on_pass)

static void check_all_handled(void)
{
    long counts[2] = { atomic_load(&sent), atomic_load(&handled) }, sums[2];

    MPI_Allreduce(counts, sums, 2, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    CHECK_EQ(sums[1], sums[0]);
    CHECK(sums[0] > 0);
}

/* Without this rank, whose absence is all that the others are told of. */
static int is_only_absent(troupe_t *troupe, int absent)
{
    troupe_busy_t busy[RANKS_MAX] = { 0 };

    if (test_rank == absent)
        return 1;
    CHECK_EQ(troupe_quiesce(troupe, SHORT_MS), TROUPE_ETIMEDOUT);
    return troupe_busy(troupe, busy, RANKS_MAX) == 1 &&
           busy[0].rank == absent && busy[0].what == TROUPE_BUSY_ABSENT;
}

/* A rank without a core is absent, too; then all try again. */
static void check_absent(troupe_t *troupe, int absent)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    int good, go_on;

    do {
        good = is_only_absent(troupe, absent);
        go_on = !good && test_now_ms() < end_ms;
        MPI_Allreduce(MPI_IN_PLACE, &go_on, 1, MPI_INT, MPI_MAX,
                      MPI_COMM_WORLD);
    } while (go_on);
    CHECK(good);
    MUST(troupe_quiesce(troupe, TEST_SOON_MS));
}

int main(void)
{
    char address[TEST_ADDRESS_BYTES];
    troupe_t *troupe = test_start(&ranks, NULL);

    MUST(ball_spawn(troupe, "ball", NULL, &players[test_rank]));
    for (int i = 0; i < ranks && i < RANKS_MAX; i++)
        MUST(ball_resolve(troupe, test_address(address, i, "ball"),
                          TEST_SOON_MS, &players[i]));
    MPI_Barrier(MPI_COMM_WORLD); /* all know all */
    CHECK_EQ(troupe_quiesce(NULL, 0), TROUPE_EINVAL);
    CHECK_EQ(troupe_quiesce(troupe, -2), TROUPE_EINVAL);
    for (uint32_t phase = 0; phase < PHASES; phase++) {
        for (uint32_t n = 0; n < CHAINS; n++)
            pass(troupe, HOPS,
                 phase * 7919 + n * 104729 + (uint32_t)test_rank);
        MUST(troupe_quiesce(troupe, TEST_SOON_MS));
        check_all_handled();
    }
    if (ranks > 1 && test_has_workers(troupe)) {
        check_absent(troupe, 0);
        check_absent(troupe, ranks - 1);
    }
    return test_end(troupe);
}
