/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Stopping a node, in steps, each bounded by what is left of the deadline:
 *   1. quiet: all living ranks have come here, and their messages are
 *      delivered and handled (a quiesce); actors that keep themselves busy are
 *      not waited for longer than half the time;
 *   2. all actors stop, here;
 *   3. members of other jobs, if there are any, are told that this node leaves;
 *      then the threads end;
 *   4. all ranks have come here, so nobody takes an exit for a death.
 * What went to members of other jobs is drained in the first step; they go on.
 * When a rank has died, MPI's collectives could hang. Then step 4 is a goodbye
 * among those who exchanged messages, before their threads end.
 * troupe_leave is for a rank that goes while the others go on: it does as a
 * member of another job would, and waits for nobody but the delivery of what it
 * sent.
 */

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "group/group.h"
#include "group/view.h"
#include "message/pool.h"
#include "mpi/finalize.h"
#include "node/node.h"
#include "node/report.h"

struct stop {
    troupe_t *troupe;
    uint64_t deadline_ns;
    uint64_t quiet_deadline_ns;
    bool failed; /* MPI is not to be used any more */
    bool alone;  /* this rank leaves, the others go on */
    int rc;      /* what troupe_stop says: was anything left? */
};

static bool has_lost_ranks(const troupe_t *troupe)
{
    const struct tri_runtime *runtime = &troupe->runtime;

    for (int i = 0; i < runtime->size; i++)
        if (i != runtime->rank && tri_peer_is_dead(&runtime->link.peers[i]))
            return true;
    return false;
}

bool tri_node_has_lost_ranks(void *arg)
{
    struct troupe *troupe = arg;

    if (!has_lost_ranks(troupe))
        return false;
    tri_link_say_bye(&troupe->runtime.link);
    return true;
}

/* Members of other jobs are no ranks: they go on, and are not waited for. */
static bool has_joined(const troupe_t *troupe)
{
    return tri_member_has_joined(troupe->runtime.member);
}

/* --- 1. quiet ------------------------------------------------------------------- */

/* Serves in short naps, since nothing wakes this thread for what it waits. */
static int wait_in_naps(struct stop *stop, struct tri_seat *seat,
                        bool (*done)(void *arg), uint64_t deadline_ns)
{
    int rc;

    do {
        uint64_t nap_ns = tri_min(tri_now_ns() + TRI_NS_PER_MS, deadline_ns);

        rc = tri_wait(seat, done, stop, nap_ns);
    } while (rc != 0 && tri_now_ns() < deadline_ns);
    return rc;
}

/* The others go on, and see this rank leave. Without it MPI_Finalize hangs. */
static void become_quiet_alone(struct stop *stop, struct tri_seat *seat)
{
    stop->failed = true;
    tri_finalize_bar();
    if (tri_group_drain(&stop->troupe->runtime, seat,
                        stop->quiet_deadline_ns) != 0) {
        tri_warn("leaving although not all that was sent is handled");
        stop->rc = TROUPE_ETIMEDOUT;
    }
}

static void become_quiet(struct stop *stop, struct tri_seat *seat)
{
    struct tri_runtime *runtime = &stop->troupe->runtime;
    bool is_drained = true;
    int rc;

    if (stop->alone) {
        become_quiet_alone(stop, seat);
        return;
    }
    tri_member_stopping(runtime->member, false);
    rc = tri_group_quiesce(runtime, seat, "troupe_stop",
                           stop->quiet_deadline_ns, stop->deadline_ns);
    /* With ETIMEDOUT not all are here, or they do not answer. */
    tri_member_stopping(runtime->member, rc != TROUPE_ETIMEDOUT);
    /* A quiesce is about ranks alone. */
    if (has_joined(stop->troupe))
        is_drained =
            tri_group_drain(runtime, seat, stop->quiet_deadline_ns) == 0;
    if (rc != 0 || !is_drained)
        tri_warn("stopping although not all is quiet (option stop_timeout_ms is "
                 "%u; ranks that only serve others call troupe_serve until all "
                 "come to stop)",
                 runtime->options.stop_timeout_ms);
    /* ESTOPPING is about actors that are too busy to be waited for. */
    if (rc == TROUPE_ETIMEDOUT || !is_drained)
        stop->rc = TROUPE_ETIMEDOUT;
    stop->failed = rc == TROUPE_ETIMEDOUT || has_lost_ranks(stop->troupe);
}

/* --- 2. actors --------------------------------------------------------------------- */

static void stop_owned(struct tri_runtime *runtime, struct tri_actor *actor,
                       struct tri_worker *guest)
{
    if (actor->actor_class != NULL)
        actor->stopping = true;
    /* ends in this turn, or is only sorted out */
    if (tri_actor_run(guest->self, actor))
        tri_schedule(&runtime->scheduler, actor);
}

static void send_stop(struct tri_runtime *runtime, uint32_t slot,
                      uint32_t generation)
{
    struct tri_message *message = tri_message_alloc(0);

    if (message == NULL)
        return; /* the next round tries again */
    message->kind = TRI_STOP;
    message->slot = slot;
    message->generation = generation;
    if (tri_deliver(runtime, message, false) != 0)
        tri_message_free(message);
}

/* Idle actors are stopped here and now; busy ones are told. */
static void stop_actors(struct tri_runtime *runtime, struct tri_seat *seat)
{
    uint32_t len = tri_actor_table_len(&runtime->actors);

    for (uint32_t slot = 1; slot <= len; slot++) {
        struct tri_actor *actor = tri_actor_table_cell(&runtime->actors, slot);
        uint32_t generation = atomic_load(&actor->generation);

        if ((generation & 1) == 0)
            continue;
        if (tri_mailbox_claim(&actor->mailbox))
            stop_owned(runtime, actor, seat->guest);
        else
            send_stop(runtime, slot, generation);
    }
}

static bool has_no_actors(void *arg)
{
    struct stop *stop = arg;

    return tri_scheduler_actors(&stop->troupe->runtime.scheduler) == 0;
}

static void end_actors(struct stop *stop, struct tri_seat *seat)
{
    struct tri_runtime *runtime = &stop->troupe->runtime;

    runtime->leaves_alone = stop->alone;
    atomic_store(&runtime->stopping, 1);
    stop_actors(runtime, seat);
    if (wait_in_naps(stop, seat, has_no_actors, stop->deadline_ns) == 0)
        return;
    tri_error("%u actors did not stop in time",
              tri_scheduler_actors(&runtime->scheduler));
    stop->rc = TROUPE_ETIMEDOUT;
}

/* --- what MPI still does for this node ------------------------------------------- */

static bool has_grown(void *arg)
{
    struct stop *stop = arg;

    return tri_grow_is_over(stop->troupe);
}

/* Left behind, it would bar MPI's end. */
static void end_growth(struct stop *stop, struct tri_seat *seat)
{
    (void)wait_in_naps(stop, seat, has_grown, stop->deadline_ns);
    tri_grow_end(stop->troupe);
}

/* --- 3. leaving --------------------------------------------------------------------- */

/* How long others may take to hear that we leave. */
#define LEAVE_NS (1000 * TRI_NS_PER_MS)

static bool has_left(void *arg)
{
    struct stop *stop = arg;

    return tri_member_has_left(stop->troupe->runtime.member);
}

static void leave(struct stop *stop, struct tri_seat *seat)
{
    struct tri_member *member = stop->troupe->runtime.member;
    uint64_t until_ns = tri_min(tri_now_ns() + LEAVE_NS, stop->deadline_ns);

    if (!has_joined(stop->troupe) && !stop->alone)
        return;
    tri_member_leave(member);
    if (wait_in_naps(stop, seat, has_left, until_ns) != 0)
        tri_info("not all members were told that this node leaves");
}

/* --- 4. together ------------------------------------------------------------------- */

static bool has_said_bye(void *arg)
{
    struct stop *stop = arg;

    return tri_link_all_left(&stop->troupe->runtime.link);
}

/* Among survivors, and to who joined: an exit right after this is not taken for
 * a death. */
static void say_bye(struct stop *stop, struct tri_seat *seat)
{
    bool has_lost = has_lost_ranks(stop->troupe) && !stop->alone;

    /* Before anybody's goodbye, after which a peer's end is no death. */
    if (has_lost)
        tri_finalize_bar();
    if (!has_lost && !has_joined(stop->troupe) && !stop->alone)
        return;
    tri_link_say_bye(&stop->troupe->runtime.link);
    if (has_lost &&
        wait_in_naps(stop, seat, has_said_bye, stop->deadline_ns) != 0)
        tri_warn("not all surviving ranks came to troupe_stop in time");
}

/* Without threads and without serving: nobody sends any more. */
static void leave_together(struct stop *stop)
{
    struct tri_job *job = stop->troupe->job;

    if (job == NULL || stop->failed)
        return;
    stop->failed = true; /* unless it comes back */
    if (tri_job_barrier_start(job) != 0)
        return;
    while (tri_now_ns() < stop->deadline_ns) {
        if (tri_job_barrier_test(job)) {
            stop->failed = false;
            return;
        }
        sched_yield();
    }
    tri_error("not all ranks came to troupe_stop in time");
}

/* --- stop --------------------------------------------------------------------------- */

static int stop_node(troupe_t **troupe_p, bool alone)
{
    troupe_t *troupe = troupe_p != NULL ? *troupe_p : NULL;
    struct stop stop = { .troupe = troupe };
    struct tri_seat seat;
    uint64_t timeout_ns;

    if (troupe == NULL)
        return TROUPE_EINVAL;
    if (tri_worker_current() != NULL ||
        !pthread_equal(pthread_self(), troupe->runtime.starter) ||
        !tri_seat_take(&troupe->runtime, &seat))
        return TROUPE_ECONTEXT;
    timeout_ns = troupe->runtime.options.stop_timeout_ms * TRI_NS_PER_MS;
    stop.deadline_ns = tri_now_ns() + timeout_ns;
    stop.quiet_deadline_ns = stop.deadline_ns - timeout_ns / 2;
    stop.alone = alone && troupe->runtime.size > 1;
    *troupe_p = NULL;
    tri_finalize_ask(NULL, NULL);
    become_quiet(&stop, &seat);
    /* All are here: who goes now is missed by no group. */
    tri_views_close_groups(&troupe->runtime);
    end_actors(&stop, &seat);
    end_growth(&stop, &seat);
    say_bye(&stop, &seat);
    leave(&stop, &seat);
    tri_seat_leave(&seat);
    tri_refusals_log(&troupe->runtime.link.refusals);
    /* A thread that only waits for a core gets what time is left. */
    if (tri_scheduler_stop(&troupe->runtime.scheduler,
                           tri_max(tri_now_ns() + TRI_NS_PER_MS * 100,
                                   stop.deadline_ns)) != 0) {
        /* A thread still runs in there: its memory cannot be given back. */
        tri_report_stopped(troupe, TROUPE_ETIMEDOUT);
        atomic_store(&tri_node_running, NULL);
        return TROUPE_ETIMEDOUT;
    }
    leave_together(&stop);
    tri_report_stopped(troupe, stop.rc);
    tri_node_free(troupe, !stop.failed);
    return stop.rc;
}

int troupe_stop(troupe_t **troupe_p)
{
    return stop_node(troupe_p, false);
}

int troupe_leave(troupe_t **troupe_p)
{
    return stop_node(troupe_p, true);
}
