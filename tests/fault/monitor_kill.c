/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kill -9 of a rank: whoever watches its actors or the node, or is linked to
 * them, is told TROUPE_ENODE, once, and nothing of it stays in the tables. The
 * victim watched the survivors, too.
 *
 * As kill.c it needs mpirun --enable-recovery, and ends mpirun after a fault.
 */
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "leave.h"
#include "actor/runtime.h"

enum { VICTIM = 1, RANKS_MAX = 64, WATCHES = 50 };

#define eye_messages(TELL, ASK)                                               \
    ASK(eye, watch, (troupe_ref_t ref;), (int32_t error;))                    \
    ASK(eye, tie, (troupe_ref_t ref;), (int32_t error;))                      \
    ASK(eye, who, (), (int32_t pid;))                                         \
    ASK(eye, finished, (), (int32_t unused;))                                 \
    ASK(eye, seen, (), (int32_t actors; int32_t nodes; int32_t links;         \
                        int32_t others;))
TROUPE_PROTOCOL(eye)

struct eye {
    eye_seen_result_t seen;
};

static atomic_int finished;

/* The actor several times, and its node. */
static int on_watch(troupe_self_t *self, struct eye *e, const eye_watch_t *m)
{
    int rc = 0;

    (void)e;
    for (int i = 0; rc == 0 && i < WATCHES; i++)
        rc = troupe_monitor(self, m->ref, NULL);
    if (rc == 0)
        rc = troupe_monitor_node(self, m->ref.node, NULL);
    return eye_watch_reply(self, (eye_watch_result_t){ rc });
}

static int on_tie(troupe_self_t *self, struct eye *e, const eye_tie_t *m)
{
    (void)e;
    return eye_tie_reply(self,
                         (eye_tie_result_t){ troupe_link(self, m->ref) });
}

static int on_who(troupe_self_t *self, struct eye *e, const eye_who_t *m)
{
    (void)e, (void)m;
    return eye_who_reply(self, (eye_who_result_t){ getpid() });
}

static int on_finished(troupe_self_t *self, struct eye *e,
                       const eye_finished_t *m)
{
    (void)e, (void)m;
    atomic_fetch_add(&finished, 1);
    troupe_wake(self);
    return eye_finished_reply(self, (eye_finished_result_t){ 0 });
}

static int on_seen(troupe_self_t *self, struct eye *e, const eye_seen_t *m)
{
    (void)m;
    return eye_seen_reply(self, e->seen);
}

static int on_down(troupe_self_t *self, struct eye *e,
                   const troupe_down_t *down)
{
    (void)self;
    if (down->reason != TROUPE_ENODE || down->ref.node != down->node)
        e->seen.others++;
    else if (down->monitor == 0)
        e->seen.links++;
    else if (down->ref.slot == 0)
        e->seen.nodes++;
    else
        e->seen.actors++;
    return 0;
}

TROUPE_ACTOR(eye, struct eye, .watch = on_watch, .tie = on_tie, .who = on_who,
             .finished = on_finished, .seen = on_seen, .on_down = on_down)
TROUPE_ACTOR_AS(blind, eye, struct eye, .tie = on_tie)

/* --- before --------------------------------------------------------------- */

static void check_watch(troupe_t *troupe, eye_ref_t who, eye_ref_t whom)
{
    eye_watch_result_t result = { -1 };

    MUST(eye_watch(troupe, who, (eye_watch_t){ whom.ref }, TEST_SOON_MS,
                   &result));
    CHECK_EQ(result.error, 0);
}

static void check_tie(troupe_t *troupe, eye_ref_t who, eye_ref_t whom)
{
    eye_tie_result_t result = { -1 };

    MUST(eye_tie(troupe, who, (eye_tie_t){ whom.ref }, TEST_SOON_MS, &result));
    CHECK_EQ(result.error, 0);
}

/* Each way round between a survivor and the victim. */
static void tie_up(troupe_t *troupe, eye_ref_t mine, eye_ref_t blind,
                   eye_ref_t victim)
{
    check_watch(troupe, mine, victim);
    check_tie(troupe, mine, victim);
    check_watch(troupe, victim, mine);
    check_tie(troupe, blind, victim);
    check_tie(troupe, victim, mine);
}

/* --- after ---------------------------------------------------------------- */

static uint32_t used(troupe_t *troupe)
{
    return tri_monitors_used(&((struct tri_runtime *)troupe)->monitors);
}

static void check_told(troupe_t *troupe, eye_ref_t mine, eye_ref_t blind,
                       eye_ref_t victim)
{
    double end = test_now_ms() + TEST_SOON_MS;
    eye_seen_result_t seen = { 0 };
    int reason = 0;

    MUST(troupe_wait_down(troupe, victim.ref, TEST_SOON_MS, &reason));
    CHECK_EQ(reason, TROUPE_ENODE);
    MUST(troupe_wait_down(troupe, blind.ref, TEST_SOON_MS, &reason));
    CHECK(reason == TROUPE_ELINKED || reason == TROUPE_ENOACTOR);
    do
        MUST(eye_seen(troupe, mine, (eye_seen_t){}, TEST_SOON_MS, &seen));
    while ((seen.actors < WATCHES || seen.nodes < 1 || seen.links < 1 ||
            used(troupe) > 0) &&
           test_now_ms() < end);
    CHECK_EQ(seen.actors, WATCHES);
    CHECK_EQ(seen.nodes, 1);
    CHECK_EQ(seen.links, 1);
    CHECK_EQ(seen.others, 0);
    CHECK_EQ(used(troupe), 0);
}

/* What is watched after the death is told of at once. */
static void check_late(troupe_t *troupe, eye_ref_t mine, eye_ref_t victim)
{
    double end = test_now_ms() + TEST_SOON_MS;
    eye_seen_result_t seen = { 0 };

    check_watch(troupe, mine, victim);
    check_tie(troupe, mine, victim);
    do
        MUST(eye_seen(troupe, mine, (eye_seen_t){}, TEST_SOON_MS, &seen));
    while ((seen.actors < 2 * WATCHES || seen.nodes < 2 || seen.links < 2 ||
            used(troupe) > 0) &&
           test_now_ms() < end);
    CHECK_EQ(seen.actors, 2 * WATCHES);
    CHECK_EQ(seen.nodes, 2);
    CHECK_EQ(seen.links, 2);
    CHECK_EQ(used(troupe), 0);
}

static int all_finished(void *arg)
{
    return atomic_load(&finished) == *(int *)arg;
}

/* As in kill.c. */
static void finish_together(troupe_t *troupe, const eye_ref_t *eyes, int size)
{
    int survivors = size - 1;

    for (int i = 0; i < size; i++) {
        int rc = i == VICTIM ? 0
                             : eye_finished(troupe, eyes[i],
                                            (eye_finished_t){}, TEST_SOON_MS,
                                            NULL);

        CHECK(rc == 0 || rc == TROUPE_ENODE);
    }
    CHECK_EQ(troupe_serve_until(troupe, all_finished, &survivors,
                                TEST_SOON_MS),
             0);
}

int main(void)
{
    char address[TEST_ADDRESS_BYTES];
    eye_ref_t eyes[RANKS_MAX], mine, blind;
    eye_who_result_t who;
    int size;
    troupe_t *troupe = test_start(&size, NULL);

    atexit(leave_failed);
    if (size < 3 || size > RANKS_MAX)
        MUST(TROUPE_EINVAL);
    MUST(eye_spawn(troupe, "eye", NULL, &mine));
    MUST(blind_spawn(troupe, NULL, NULL, &blind));
    for (int i = 0; i < size; i++)
        MUST(eye_resolve(troupe, test_address(address, i, "eye"),
                         TEST_SOON_MS, &eyes[i]));
    if (test_rank != VICTIM)
        tie_up(troupe, mine, blind, eyes[VICTIM]);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == VICTIM) {
        troupe_serve(troupe, 2 * TEST_SOON_MS);
        MUST(TROUPE_ETIMEDOUT); /* nobody killed us */
    }
    if (test_rank == 0) {
        MUST(eye_who(troupe, eyes[VICTIM], (eye_who_t){}, TEST_SOON_MS, &who));
        CHECK_EQ(kill(who.pid, SIGKILL), 0);
    }
    check_told(troupe, mine, blind, eyes[VICTIM]);
    check_late(troupe, mine, eyes[VICTIM]);
    finish_together(troupe, eyes, size);
    CHECK_EQ(troupe_stop(&troupe), 0);
    leave();
}
