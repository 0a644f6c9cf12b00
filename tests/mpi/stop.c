/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * troupe_stop delivers what was sent before it, by any rank: each rank sends
 * to all and stops at once, without waiting for anything.
 */
#include <stdatomic.h>

#include "test.h"

enum { TELLS = 300, TAIL_BYTES = 3000, RANKS_MAX = 64 };

#define bin_messages(TELL, ASK)                                               \
    TELL(bin, drop, (int64_t value; unsigned char tail[];))
TROUPE_PROTOCOL(bin)

struct bin {
    int64_t drops;
};

static atomic_long handled, stopped_with = -1;

static int on_drop(troupe_self_t *self, struct bin *b, const bin_drop_t *m)
{
    (void)m;
    CHECK(troupe_tail_bytes(self) == 0 ||
          troupe_tail_bytes(self) == TAIL_BYTES);
    b->drops++;
    atomic_fetch_add(&handled, 1);
    return 0;
}

static void on_stop(troupe_self_t *self, struct bin *b, int reason)
{
    (void)self;
    CHECK_EQ(reason, 0);
    atomic_store(&stopped_with, b->drops);
}

TROUPE_ACTOR(bin, struct bin, .drop = on_drop, .on_stop = on_stop)

/* Refused by the way to it, not by the bin: that is counted as not sent. */
static int drop(troupe_t *troupe, bin_ref_t to, int number)
{
    bin_drop_t *m = bin_drop_new(troupe, number % 10 == 0 ? TAIL_BYTES : 0);
    int rc;

    if (!m)
        return 0;
    rc = bin_drop_send(troupe, to, m);
    if (rc != 0)
        troupe_drop(m);
    if (rc != TROUPE_EFULL)
        CHECK_EQ(rc, 0);
    return rc == 0;
}

int main(void)
{
    troupe_spawn_options_t roomy = { .name = "bin", .mailbox_len_max = 65535 };
    char address[TEST_ADDRESS_BYTES];
    bin_ref_t bins[RANKS_MAX], mine;
    long sent = 0, counts[2], sums[2];
    int size;
    troupe_t *troupe = test_start(&size, NULL);

    MUST(bin_spawn_with(troupe, &roomy, NULL, &mine));
    for (int i = 0; i < size && i < RANKS_MAX; i++)
        MUST(bin_resolve(troupe, test_address(address, i, "bin"), TEST_SOON_MS,
                         &bins[i]));
    /* Not before all have found all: names go with the first stop. */
    MPI_Barrier(MPI_COMM_WORLD);
    for (int n = 0; n < TELLS; n++)
        for (int i = 0; i < size && i < RANKS_MAX; i++)
            sent += drop(troupe, bins[i], n);
    MUST(troupe_stop(&troupe));

    CHECK_EQ(atomic_load(&stopped_with), atomic_load(&handled));
    counts[0] = sent;
    counts[1] = atomic_load(&handled);
    MPI_Allreduce(counts, sums, 2, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    CHECK_EQ(sums[1], sums[0]);
    CHECK(sums[0] > 0);
    MPI_Finalize();
    return test_status();
}
