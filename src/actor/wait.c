/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Threads of the program that wait in a call. One of them at a time takes the
 * guest's seat and serves the node's actors meanwhile; others look at their
 * condition every millisecond.
 */

#include "actor/runtime.h"
#include "base/clock.h"

#define LOOK_MS 1
/* Turns or short waits of the guest between two looks at the clock. */
#define ROUNDS_PER_CLOCK 16u

bool tri_seat_take(struct tri_runtime *runtime, struct tri_seat *seat)
{
    struct tri_scheduler *scheduler = &runtime->scheduler;

    seat->runtime = runtime;
    seat->guest = NULL;
    seat->is_late = false;
    if (tri_worker_current() == NULL &&
        tri_lock_try(&scheduler->guest_lock)) {
        seat->guest = &scheduler->workers[scheduler->workers_len];
        tri_worker_set_current(seat->guest);
    }
    return seat->guest != NULL;
}

void tri_seat_leave(struct tri_seat *seat)
{
    struct tri_scheduler *scheduler = &seat->runtime->scheduler;

    if (seat->guest == NULL)
        return;
    tri_worker_set_current(NULL);
    tri_worker_hand_over(seat->guest);
    if (atomic_load_explicit(&scheduler->guest_wants, memory_order_relaxed))
        atomic_store_explicit(&scheduler->guest_wants, 0,
                              memory_order_relaxed);
    tri_link_flush(&seat->runtime->link);
    tri_lock_release(&scheduler->guest_lock);
    /* Nobody is woken to poll now: the control thread sees to it. */
    tri_control_touch(scheduler);
}

/* MPI requests can only be tested, and MPI moves them only then: as long as
 * some are pending this thread does not sleep. */
static uint64_t limit_for_hook(struct tri_runtime *runtime,
                               uint64_t deadline_ns)
{
    bool (*hooks[])(struct tri_runtime *) = { runtime->wait_hook,
                                              runtime->tensor_hook };
    bool again = false;

    if ((hooks[0] == NULL && hooks[1] == NULL) ||
        !pthread_equal(pthread_self(), runtime->starter))
        return deadline_ns;
    for (size_t i = 0; i < tri_array_len(hooks); i++)
        if (hooks[i] != NULL)
            again |= hooks[i](runtime);
    return again ? 0 : deadline_ns;
}

static int wait_as_guest(struct tri_seat *seat, bool (*done)(void *arg),
                         void *arg, uint64_t deadline_ns)
{
    struct tri_worker *guest = seat->guest;
    unsigned rounds = 0;

    while (!done(arg)) {
        bool busy = tri_worker_run_one(guest);

        if (!busy) {
            uint64_t until_ns = limit_for_hook(seat->runtime, deadline_ns);

            if (seat->is_late)
                until_ns = tri_min(until_ns, tri_deadline_ns(LOOK_MS));
            busy = tri_worker_idle(guest, done, arg, until_ns);
        }
        /* the clock costs as much as a message: not for each of them */
        if (busy && ++rounds % ROUNDS_PER_CLOCK != 0)
            continue;
        if (deadline_ns != TRI_NS_NEVER && tri_now_ns() >= deadline_ns)
            return done(arg) ? 0 : TROUPE_ETIMEDOUT;
    }
    return 0;
}

static int wait_aside(struct tri_seat *seat, bool (*done)(void *arg), void *arg,
                      uint64_t deadline_ns)
{
    struct tri_parker parker = { 0 };

    while (!done(arg)) {
        if (tri_now_ns() >= deadline_ns)
            return TROUPE_ETIMEDOUT;
        if (tri_seat_take(seat->runtime, seat)) {
            seat->is_late = true;
            return wait_as_guest(seat, done, arg, deadline_ns);
        }
        tri_park(&parker, tri_min(tri_deadline_ns(LOOK_MS), deadline_ns));
    }
    return 0;
}

int tri_wait(struct tri_seat *seat, bool (*done)(void *arg), void *arg,
             uint64_t deadline_ns)
{
    return seat->guest != NULL
               ? wait_as_guest(seat, done, arg, deadline_ns)
               : wait_aside(seat, done, arg, deadline_ns);
}

void tri_serve_once(struct tri_seat *seat)
{
    if (seat->guest == NULL)
        return;
    limit_for_hook(seat->runtime, TRI_NS_NEVER);
    tri_guest_poll(seat->guest);
    for (unsigned i = 0; i < TRI_TURN_LEN; i++)
        if (!tri_worker_run_one(seat->guest))
            break;
}

void tri_wake_guest(struct tri_runtime *runtime)
{
    struct tri_scheduler *scheduler = &runtime->scheduler;
    struct tri_worker *guest = &scheduler->workers[scheduler->workers_len];

    /* Pairs with the fence of a guest that goes to sleep. */
    tri_fence_full();
    if (guest != tri_worker_current() &&
        (atomic_load_explicit(&scheduler->idle, memory_order_relaxed) >>
         guest->index) & 1)
        tri_worker_wake(guest);
}
