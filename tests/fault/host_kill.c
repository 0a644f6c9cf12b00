/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A host is lost with all that runs on it: the last rank, and what mpirun has
 * there. The others go on among themselves, the job with them, and asks of the
 * lost rank end, by its death or by their deadline.
 */
#include <stdatomic.h>
#include <unistd.h>

#include "board.h"
#include "hosts.h"

enum {
    PINGS = 50,
    PING_MS = 500,
    RANKS_MAX = 64,
};

#define guest_messages(TELL, ASK)                                              \
    ASK(guest, ping, (int32_t number;), (int32_t number; int32_t rank;))
TROUPE_PROTOCOL(guest)

struct guest {
    int unused;
};

static _Atomic int *finished; /* on the board: survivors */
static guest_ref_t guests[RANKS_MAX];

static int on_ping(troupe_self_t *self, struct guest *g, const guest_ping_t *m)
{
    (void)g;
    return guest_ping_reply(self, (guest_ping_result_t){ m->number,
                                                         troupe_rank(self) });
}

TROUPE_ACTOR(guest, struct guest, .ping = on_ping)

static void ping_all(troupe_t *troupe, int size)
{
    for (int k = 0; k < PINGS; k++)
        for (int i = 0; i < size; i++) {
            guest_ping_result_t result = { 0, -1 };

            CHECK_EQ(guest_ping(troupe, guests[i], (guest_ping_t){ k },
                                TEST_SOON_MS, &result),
                     0);
            CHECK_EQ(result.number, k);
            CHECK_EQ(result.rank, i);
        }
}

static void kill_last(troupe_t *troupe, int lost)
{
    guest_ping_result_t result;
    int rc;

    CHECK(hosts_run("signal %d KILL", lost));
    rc = guest_ping(troupe, guests[lost], (guest_ping_t){ 0 }, PING_MS,
                    &result);
    CHECK(rc == TROUPE_ETIMEDOUT || rc == TROUPE_ENODE);
    ping_all(troupe, lost);
}

/* Nobody leaves before all have finished. No message says so: what the last one
 * is owed would be lost with who leaves before it, and the end of a process on
 * another host is known late, or never to who hears nobody else. */
static void finish_together(troupe_t *troupe, int survivors)
{
    atomic_fetch_add(finished, 1);
    board_await(troupe, finished, survivors, TEST_SOON_MS);
}

int main(void)
{
    char address[TEST_ADDRESS_BYTES];
    troupe_t *troupe;
    guest_ref_t own;
    int size, lost;

    troupe = test_start(&size, NULL);
    CHECK(size >= 2 && size <= RANKS_MAX);
    lost = size - 1;
    finished = board_open("host_kill", sizeof(*finished));
    MUST(guest_spawn(troupe, "guest", NULL, &own));
    for (int i = 0; i < size; i++)
        MUST(guest_resolve(troupe, test_address(address, i, "guest"),
                           TEST_SOON_MS, &guests[i]));
    ping_all(troupe, size);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == lost)
        (void)troupe_serve(troupe, TROUPE_FOREVER); /* until it is killed */
    if (test_rank == 0)
        kill_last(troupe, lost);
    else
        ping_all(troupe, lost);
    finish_together(troupe, lost);
    /* MPI_Finalize may hang after a death, so nobody calls it. */
    printf("rank %d: %s\n", test_rank, test_failures ? "FAILED" : "ok");
    fflush(NULL);
    _exit(test_status());
}
