/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A rank dies while others wait in troupe_quiesce, with messages under way to
 * it: the lowest one, which coordinates. The others write it off, with or
 * without all of them in the call, and name who really is missing.
 */
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "leave.h"

enum { VICTIM = 0, LATE = 3, RANKS = 4, TELLS = 50, SHORT_MS = 600 };

#define peer_messages(TELL, ASK)                                              \
    TELL(peer, die, ())                                                       \
    TELL(peer, nothing, ())                                                   \
    TELL(peer, expired, ())
TROUPE_PROTOCOL(peer)

struct peer {
    int32_t unused;
};

static atomic_int expired;

static int on_die(troupe_self_t *self, struct peer *p, const peer_die_t *m)
{
    (void)self, (void)p, (void)m;
    raise(SIGKILL);
    return 0;
}

static int on_nothing(troupe_self_t *self, struct peer *p,
                      const peer_nothing_t *m)
{
    (void)self, (void)p, (void)m;
    return 0;
}

static int on_expired(troupe_self_t *self, struct peer *p,
                      const peer_expired_t *m)
{
    (void)p, (void)m;
    atomic_fetch_add(&expired, 1);
    troupe_wake(self);
    return 0;
}

TROUPE_ACTOR(peer, struct peer, .die = on_die, .nothing = on_nothing,
             .expired = on_expired)

static int is_dead(void *troupe)
{
    return !troupe_rank_alive((troupe_t *)troupe, VICTIM);
}

static int have_expired(void *arg)
{
    (void)arg;
    return atomic_load(&expired) == RANKS - 2;
}

/* The late one kills, and only then comes. */
static void quiesce_over_a_death(troupe_t *troupe, const peer_ref_t *peers)
{
    for (int i = 0; i < TELLS; i++)
        for (int j = 0; j < RANKS; j++) {
            int rc = peer_nothing(troupe, peers[j], (peer_nothing_t){});

            if (j != VICTIM || rc != TROUPE_ENODE) /* it may be dead already */
                MUST(rc);
        }
    if (test_rank == LATE) {
        MUST(peer_die(troupe, peers[VICTIM], (peer_die_t){}));
        MUST(troupe_serve_until(troupe, is_dead, troupe, TEST_SOON_MS));
    }
    CHECK_EQ(troupe_quiesce(troupe, TEST_SOON_MS), 0);
    /* The one that leads now knew of it; the others may hear of it later. */
    CHECK_EQ(troupe_serve_until(troupe, is_dead, troupe, TEST_SOON_MS), 0);
}

static int is_only_late(troupe_t *troupe)
{
    troupe_busy_t busy[RANKS] = { 0 };

    return troupe_busy(troupe, busy, RANKS) == 1 && busy[0].rank == LATE &&
           busy[0].what == TROUPE_BUSY_ABSENT;
}

/* One that has no core is late, too: so it is looked at until only the one is
 * that waits to be told. */
static void check_report(troupe_t *troupe, const peer_ref_t *peers)
{
    double end_ms = test_now_ms() + 2 * TEST_SOON_MS;
    int told = 0, rc;

    if (test_rank == LATE) {
        MUST(troupe_serve_until(troupe, have_expired, NULL, TEST_SOON_MS));
        told = 1;
    }
    CHECK_EQ(troupe_drain(troupe, TEST_SOON_MS), 0);
    do {
        rc = troupe_quiesce(troupe, told ? TEST_SOON_MS : SHORT_MS);
        if (!told && rc == TROUPE_ETIMEDOUT && is_only_late(troupe)) {
            told = 1;
            MUST(peer_expired(troupe, peers[LATE], (peer_expired_t){}));
        }
    } while (rc == TROUPE_ETIMEDOUT && test_now_ms() < end_ms);
    CHECK_EQ(rc, 0);
    CHECK(told);
}

int main(void)
{
    peer_ref_t peers[RANKS];
    char address[TEST_ADDRESS_BYTES];
    double begin;
    int size;
    troupe_t *troupe = test_start(&size, NULL);

    atexit(leave_failed);
    if (size != RANKS)
        MUST(TROUPE_EINVAL);
    MUST(peer_spawn(troupe, "peer", NULL, &peers[test_rank]));
    for (int i = 0; i < size; i++)
        MUST(peer_resolve(troupe, test_address(address, i, "peer"),
                          TEST_SOON_MS, &peers[i]));
    MPI_Barrier(MPI_COMM_WORLD);
    quiesce_over_a_death(troupe, peers);
    check_report(troupe, peers);
    begin = test_now_ms();
    CHECK_EQ(troupe_stop(&troupe), 0);
    CHECK(test_now_ms() - begin < TEST_SOON_MS); /* stop waits for 60 s */
    leave();
}
