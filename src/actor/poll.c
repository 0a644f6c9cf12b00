/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The poll role, and what a worker does that has nothing to run.
 *
 *     busy ──nothing to run──> searching ──role is taken──> parked
 *       ^                         │ role                      │
 *       │<──work, wanted──────  polling                       │
 *       │                         │ spun and yielded in vain  │
 *       │<──bell────────── asleep in the role                 │
 *       └──<─────────────────unparked─────────────────────────┘
 *
 * Who goes to sleep announces it (idle bit, bell), then looks once more; who
 * makes work or changes a condition publishes it, then looks for sleepers.
 * Both have a full fence between, so one of them sees the other.
 */

#include <sched.h>
#include <sys/epoll.h>

#include "actor/runtime.h"
#include "base/clock.h"

/* Records taken in by one poll. */
#define POLL_BUDGET 64u
/* Empty polls between two looks at the clock and at other workers' queues,
 * whose owners a closer look would slow down. */
#define POLLS_PER_LOOK 16u

bool tri_poll_try(struct tri_scheduler *scheduler)
{
    if (atomic_load_explicit(&scheduler->poll_held, memory_order_relaxed) ||
        atomic_exchange_explicit(&scheduler->poll_held, 1,
                                 memory_order_acquire))
        return false;
    atomic_store_explicit(
        &scheduler->polls,
        atomic_load_explicit(&scheduler->polls, memory_order_relaxed) + 1,
        memory_order_relaxed);
    return true;
}

void tri_poll_release(struct tri_scheduler *scheduler)
{
    atomic_store_explicit(&scheduler->poll_held, 0, memory_order_release);
}

void tri_poll_kick(struct tri_scheduler *scheduler)
{
    tri_fence_full(); /* the request, before the look at who sleeps */
    if (atomic_load_explicit(&scheduler->poll_asleep, memory_order_relaxed))
        tri_bell_ring_always(&scheduler->runtime->bell);
}

void tri_worker_poll(struct tri_worker *worker)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;

    worker->turns_since_poll = 0;
    if (!tri_poll_try(scheduler)) {
        tri_link_flush(&worker->runtime->link);
        return;
    }
    tri_link_poll(&worker->runtime->link, POLL_BUDGET);
    tri_poll_release(scheduler);
}

static bool is_guest(const struct tri_worker *worker)
{
    return worker->index == worker->runtime->scheduler.workers_len;
}

/* The guest waits for the role, and this is not the guest. */
static bool must_yield_role(struct tri_worker *worker)
{
    return !is_guest(worker) &&
           atomic_load_explicit(&worker->runtime->scheduler.guest_wants,
                                memory_order_relaxed);
}

/* What is cheap to look at. */
static bool has_reason(struct tri_worker *worker, bool (*wanted)(void *arg),
                       void *arg)
{
    return atomic_load_explicit(&worker->next, memory_order_relaxed) != NULL ||
           tri_worker_has_queue(worker) ||
           tri_scheduler_has_work(&worker->runtime->scheduler) || wanted(arg);
}

static bool has_any_reason(struct tri_worker *worker,
                           bool (*wanted)(void *arg), void *arg)
{
    return has_reason(worker, wanted, arg) || tri_worker_could_steal(worker);
}

/* Polls for a while. True: there is a reason to stop idling. Role held. */
static bool spin(struct tri_worker *worker, bool (*wanted)(void *arg),
                 void *arg)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;
    bool spinning = scheduler->spin_ns > 0;
    uint64_t until_ns = 0;
    unsigned polls = 0, yields = 0;

    for (;;) {
        bool look = ++polls % POLLS_PER_LOOK == 0 || !spinning;

        if (tri_link_poll(&worker->runtime->link, POLL_BUDGET) > 0 ||
            has_reason(worker, wanted, arg) ||
            (look && tri_worker_could_steal(worker)))
            return true;
        if (must_yield_role(worker))
            return false;
        if (look && spinning) {
            uint64_t now_ns = tri_now_ns();

            if (until_ns == 0)
                until_ns = now_ns + scheduler->spin_ns;
            spinning = now_ns < until_ns;
        }
        if (spinning)
            tri_cpu_relax();
        else if (yields++ < scheduler->yields)
            sched_yield();
        else
            return false;
    }
}

static void announce_idle(struct tri_worker *worker,
                          enum tri_worker_state state)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;

    atomic_store_explicit(&worker->state, state, memory_order_release);
    atomic_fetch_or_explicit(&scheduler->idle, 1ull << worker->index,
                             memory_order_acq_rel);
    atomic_fetch_sub_explicit(&scheduler->searching, 1, memory_order_acq_rel);
    tri_fence_full();
}

static void withdraw_idle(struct tri_worker *worker)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;

    atomic_fetch_and_explicit(&scheduler->idle, ~(1ull << worker->index),
                              memory_order_seq_cst);
    atomic_store_explicit(&worker->state, TRI_WORKER_BUSY,
                          memory_order_release);
}

static int epoll_timeout(struct tri_scheduler *scheduler, uint64_t deadline_ns)
{
    if (scheduler->wait_fd_is_blind)
        return 1;
    if (deadline_ns == TRI_NS_NEVER)
        return -1;
    return (int)tri_ms_left(deadline_ns, tri_now_ns());
}

/* Sleeps on the bell and the transports. Role held. */
static void sleep_polling(struct tri_worker *worker, bool (*wanted)(void *arg),
                          void *arg, uint64_t deadline_ns)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;
    struct epoll_event event;

    atomic_store_explicit(&scheduler->poll_asleep, 1, memory_order_relaxed);
    announce_idle(worker, TRI_WORKER_POLLING);
    tri_bell_arm(&worker->runtime->bell);
    if (!tri_link_pending(&worker->runtime->link) &&
        !has_any_reason(worker, wanted, arg) && !must_yield_role(worker))
        epoll_wait(scheduler->wait_fd, &event, 1,
                   epoll_timeout(scheduler, deadline_ns));
    tri_bell_disarm(&worker->runtime->bell);
    atomic_store_explicit(&scheduler->poll_asleep, 0, memory_order_relaxed);
    withdraw_idle(worker);
    tri_control_touch(scheduler);
    tri_link_poll(&worker->runtime->link, POLL_BUDGET);
}

static void sleep_parked(struct tri_worker *worker, bool (*wanted)(void *arg),
                         void *arg, uint64_t deadline_ns)
{
    announce_idle(worker, TRI_WORKER_PARKED);
    if (!has_any_reason(worker, wanted, arg))
        tri_park(&worker->parker, deadline_ns);
    withdraw_idle(worker);
    tri_control_touch(&worker->runtime->scheduler);
}

/* The guest asks for the role and gets it from whoever holds it. */
static bool guest_claim(struct tri_scheduler *scheduler)
{
    atomic_store_explicit(&scheduler->guest_wants, 1, memory_order_relaxed);
    tri_poll_kick(scheduler);
    /* The holder polls or wakes up now, and then gives way. */
    for (unsigned i = 0; i < 200; i++) {
        if (tri_poll_try(scheduler))
            return true;
        if (i < 20)
            tri_cpu_relax();
        else
            sched_yield();
    }
    return false; /* it delivers something long; try again after a nap */
}

void tri_guest_poll(struct tri_worker *guest)
{
    struct tri_scheduler *scheduler = &guest->runtime->scheduler;

    guest->turns_since_poll = 0;
    /* A worker that sleeps in the role may share this thread's core, and not
     * get to run as long as the program comes back here again and again. */
    if (tri_poll_try(scheduler) || guest_claim(scheduler)) {
        tri_link_poll(&guest->runtime->link, POLL_BUDGET);
        tri_poll_release(scheduler);
    }
    atomic_store_explicit(&scheduler->guest_wants, 0, memory_order_relaxed);
}

static bool idle(struct tri_worker *worker, bool (*wanted)(void *arg),
                 void *arg, uint64_t deadline_ns)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;
    bool role;

    atomic_fetch_add_explicit(&scheduler->searching, 1, memory_order_acq_rel);
    role = !must_yield_role(worker) && tri_poll_try(scheduler);
    if (!role && is_guest(worker))
        role = guest_claim(scheduler);
    if (role && spin(worker, wanted, arg)) {
        atomic_fetch_sub_explicit(&scheduler->searching, 1,
                                  memory_order_acq_rel);
        tri_poll_release(scheduler);
        if (tri_scheduler_has_work(scheduler))
            tri_scheduler_wake_one(scheduler);
        return true;
    }
    if (role && !must_yield_role(worker)) {
        sleep_polling(worker, wanted, arg, deadline_ns);
        tri_poll_release(scheduler);
        return false;
    }
    if (role)
        tri_poll_release(scheduler);
    if (is_guest(worker)) /* without the role: look again soon */
        deadline_ns = tri_min(deadline_ns, tri_deadline_ns(1));
    else if (atomic_load_explicit(&scheduler->poll_by_control,
                                  memory_order_relaxed))
        tri_control_kick(scheduler); /* it gives the role to who is idle */
    sleep_parked(worker, wanted, arg, deadline_ns);
    return false;
}

bool tri_worker_idle(struct tri_worker *worker, bool (*wanted)(void *arg),
                     void *arg, uint64_t deadline_ns)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;
    bool had_reason = idle(worker, wanted, arg, deadline_ns);

    /* The guest's right to the role ends when it may run a handler: that can
     * take long, and others have to poll meanwhile. */
    if (is_guest(worker) &&
        atomic_load_explicit(&scheduler->guest_wants, memory_order_relaxed))
        atomic_store_explicit(&scheduler->guest_wants, 0,
                              memory_order_relaxed);
    return had_reason;
}
