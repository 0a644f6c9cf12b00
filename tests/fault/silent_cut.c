/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A job of several hosts, one of which is cut off silently: a rank on each,
 * all talk to all over the fabric; for a second nothing gets to or from the
 * last host. What the others ask of it meets its deadline, since nobody says
 * that it is gone: no connection is reset, no host called unreachable. They go
 * on talking among themselves, and when the cut is healed with it, too, over
 * the connections that there were.
 */
#include <stdatomic.h>
#include <unistd.h>

#include "../mpi/test.h"
#include "hosts.h"

enum {
    PINGS = 50,
    CUT_MS = 1000,
    PING_MS = 300, /* a deadline while the cut lasts */
    RANKS_MAX = 64,
};

#define guest_messages(TELL, ASK)                                              \
    ASK(guest, ping, (int32_t number;), (int32_t number; int32_t rank;))       \
    ASK(guest, leave, (), (int32_t unused;))
TROUPE_PROTOCOL(guest)

struct guest {
    int unused;
};

static atomic_int may_leave;

static int on_ping(troupe_self_t *self, struct guest *g, const guest_ping_t *m)
{
    (void)g;
    return guest_ping_reply(self, (guest_ping_result_t){ m->number,
                                                         troupe_rank(self) });
}

static int on_leave(troupe_self_t *self, struct guest *g,
                    const guest_leave_t *m)
{
    (void)g, (void)m;
    atomic_store(&may_leave, 1);
    troupe_wake(self);
    return guest_leave_reply(self, (guest_leave_result_t){ 0 });
}

TROUPE_ACTOR(guest, struct guest, .ping = on_ping, .leave = on_leave)

static guest_ref_t guests[RANKS_MAX];

static int ping(troupe_t *troupe, int rank, int timeout_ms)
{
    static int32_t number;
    guest_ping_result_t result = { 0, -1 };
    int rc = guest_ping(troupe, guests[rank], (guest_ping_t){ ++number },
                        timeout_ms, &result);

    if (rc == 0) {
        CHECK_EQ(result.number, number);
        CHECK_EQ(result.rank, rank);
    }
    return rc;
}

static void meet(troupe_t *troupe, int size)
{
    char address[TEST_ADDRESS_BYTES];
    troupe_stats_t stats;
    guest_ref_t own;

    MUST(guest_spawn(troupe, "guest", NULL, &own));
    for (int i = 0; i < size; i++)
        MUST(guest_resolve(troupe, test_address(address, i, "guest"),
                           TEST_SOON_MS, &guests[i]));
    for (int k = 0; k < PINGS; k++)
        for (int i = 0; i < size; i++)
            CHECK_EQ(ping(troupe, i, TEST_SOON_MS), 0);
    troupe_stats(troupe, &stats);
    CHECK_EQ(stats.peers_fabric, size - 1);
    CHECK_EQ(stats.peers_ring, 0);
}

static void count_complaints(int size, long counts_p[RANKS_MAX])
{
    for (int i = 0; i < size; i++) {
        counts_p[i] = hosts_number("complaints %d", i);
        CHECK(counts_p[i] >= 0);
    }
}

/* On rank 0. The last rank's host is the one that is cut off. */
static void cut_and_heal(troupe_t *troupe, int size)
{
    long before[RANKS_MAX], healed[RANKS_MAX];
    int lost = size - 1;
    double begin;

    count_complaints(size, before);
    CHECK(hosts_run("cut %d", lost));
    begin = test_now_ms();
    while (test_now_ms() < begin + CUT_MS) {
        CHECK_EQ(ping(troupe, lost, PING_MS), TROUPE_ETIMEDOUT);
        for (int i = 1; i < lost; i++)
            CHECK_EQ(ping(troupe, i, TEST_SOON_MS), 0);
    }
    CHECK(hosts_run("heal %d", lost));
    CHECK_EQ(ping(troupe, lost, TEST_SOON_MS), 0);
    printf("healed after %.0f ms, answered after %.0f\n", CUT_MS + 0.0,
           test_now_ms() - begin);
    count_complaints(size, healed);
    for (int i = 0; i < size; i++)
        CHECK_EQ(healed[i], before[i]);
}

static int is_over(void *unused)
{
    (void)unused;
    return atomic_load(&may_leave);
}

int main(void)
{
    troupe_options_t options;
    troupe_t *troupe;
    int size;

    troupe_options_init(&options);
    options.membership = "cloud"; /* nobody is to die of the cut */
    troupe = test_start(&size, &options);
    CHECK(size >= 2 && size <= RANKS_MAX);
    meet(troupe, size);
    /* When the second one is over all are connected for it, and may have
     * refused a call that crossed theirs. */
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0) {
        guest_leave_result_t result;

        cut_and_heal(troupe, size);
        for (int i = 1; i < size; i++)
            MUST(guest_leave(troupe, guests[i], (guest_leave_t){},
                             TEST_SOON_MS, &result));
    } else {
        MUST(troupe_serve_until(troupe, is_over, NULL, 3 * TEST_SOON_MS));
    }
    return test_end(troupe);
}
