/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * troupe_drain returns when all that a rank sent has been handled, small and
 * large, here and elsewhere, as plain MPI confirms. An actor that is stuck in
 * its handler is named.
 */
#include <stdatomic.h>

#include "test.h"

enum { PHASES = 20, TELLS = 60, RANKS_MAX = 64, SHORT_MS = 400,
       LARGE_BYTES = 200000 };

#define sink_messages(TELL, ASK)                                              \
    TELL(sink, drop, (int64_t value; unsigned char tail[];))                  \
    TELL(sink, stick, ())
TROUPE_PROTOCOL(sink)

struct sink {
    int64_t unused;
};

static sink_ref_t sinks[RANKS_MAX];
static int ranks;
static atomic_long sent, handled;
static atomic_int released;

static int on_drop(troupe_self_t *self, struct sink *s, const sink_drop_t *m)
{
    (void)self, (void)s, (void)m;
    atomic_fetch_add(&handled, 1);
    return 0;
}

static int on_stick(troupe_self_t *self, struct sink *s, const sink_stick_t *m)
{
    double end = test_now_ms() + TEST_SOON_MS;

    (void)self, (void)s, (void)m;
    while (!atomic_load(&released) && test_now_ms() < end)
        ;
    return 0;
}

TROUPE_ACTOR(sink, struct sink, .drop = on_drop, .stick = on_stick)

static void drop(troupe_t *troupe, sink_ref_t to, size_t tail_bytes)
{
    sink_drop_t *m = sink_drop_new(troupe, tail_bytes);
    int rc = m ? sink_drop_send(troupe, to, m) : TROUPE_ENOMEM;

    if (rc == 0) {
        atomic_fetch_add(&sent, 1);
        return;
    }
    if (m)
        troupe_drop(m);
    CHECK_EQ(rc, TROUPE_EFULL);
}

static void check_drained(troupe_t *troupe, uint32_t phase)
{
    long counts[2], sums[2];

    for (uint32_t n = 0; n < TELLS; n++)
        for (int i = 0; i < ranks; i++)
            drop(troupe, sinks[i],
                 (n + phase) % 20 == 0 ? LARGE_BYTES : n % 7);
    MUST(troupe_drain(troupe, TEST_SOON_MS));
    counts[0] = atomic_load(&sent);
    MPI_Barrier(MPI_COMM_WORLD); /* others have drained, too */
    counts[1] = atomic_load(&handled);
    MPI_Allreduce(counts, sums, 2, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    CHECK_EQ(sums[1], sums[0]);
    CHECK(sums[0] > 0);
}

static void check_stuck(troupe_t *troupe, int stuck)
{
    double end = test_now_ms() + TEST_SOON_MS / 2;
    troupe_busy_t busy = { 0 };

    if (test_rank == 0) {
        MUST(sink_stick(troupe, sinks[stuck], (sink_stick_t){}));
        /* A rank that has no core says nothing of its actors. */
        do {
            CHECK_EQ(troupe_drain(troupe, SHORT_MS), TROUPE_ETIMEDOUT);
            CHECK_EQ((long long)troupe_busy(troupe, &busy, 1), 1);
        } while (busy.what != TROUPE_BUSY_ACTOR && test_now_ms() < end);
        CHECK_EQ(busy.rank, stuck);
        CHECK_EQ(busy.what, TROUPE_BUSY_ACTOR);
        CHECK_EQ(busy.actor.slot, sinks[stuck].ref.slot);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    atomic_store(&released, 1);
    MUST(troupe_drain(troupe, TEST_SOON_MS));
    MPI_Barrier(MPI_COMM_WORLD);
    atomic_store(&released, 0);
    MPI_Barrier(MPI_COMM_WORLD);
}

int main(void)
{
    /* Full soon, so that messages wait in front of it, too. */
    troupe_spawn_options_t small = { .name = "sink", .mailbox_len_max = 8 };
    char address[TEST_ADDRESS_BYTES];
    troupe_t *troupe = test_start(&ranks, NULL);

    MUST(sink_spawn_with(troupe, &small, NULL, &sinks[test_rank]));
    for (int i = 0; i < ranks && i < RANKS_MAX; i++)
        MUST(sink_resolve(troupe, test_address(address, i, "sink"),
                          TEST_SOON_MS, &sinks[i]));
    CHECK_EQ(troupe_drain(NULL, 0), TROUPE_EINVAL);
    CHECK_EQ(troupe_drain(troupe, -2), TROUPE_EINVAL);
    if (test_has_workers(troupe)) { /* who wait in MPI serve meanwhile */
        for (uint32_t phase = 0; phase < PHASES; phase++)
            check_drained(troupe, phase);
        if (ranks > 1) /* alone, it is we who would run the stuck handler */
            check_stuck(troupe, ranks - 1);
    }
    return test_end(troupe);
}
