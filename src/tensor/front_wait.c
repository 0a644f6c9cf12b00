/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Who moves collectives on.
 *
 * The thread that waits does: first it polls for some microseconds, where there
 * are cores enough, then it serves actors and yields, then naps between looks,
 * as shared memory rings no bell, and in the end sleeps on the node's bell for
 * 1 to 10 ms at a time: records and the end of the view ring it. What nobody
 * waits for is moved by the mover, a thread that is made at the first such call
 * and sleeps when there is none, but for back ends that only the starting
 * thread may call: that one moves them in all of its waits, and when it tests
 * them.
 */

#include <sched.h>
#include <time.h>

#include "base/clock.h"
#include "message/pool.h"
#include "tensor/front.h"

/* Looks before the first system call: about what a small collective takes. */
#define SPINS 400u
/* Since the last move: so long yields, so long naps. With more ranks than cores
 * a yield lets the one run that is waited for. */
#define YIELDS_NS (2 * TRI_NS_PER_MS)
#define NAPS_NS (10 * TRI_NS_PER_MS)
#define NAP_NS (50 * 1000)
/* Sleeps: a hundredth of that time, so that who comes late is not held up for
 * more; within these. */
#define SLEEP_PART 100u
#define SLEEP_NS_MIN TRI_NS_PER_MS
#define SLEEP_NS_MAX (10 * TRI_NS_PER_MS)
/* The mover's naps grow from NAP_NS to this. */
#define MOVER_NAP_NS_MAX TRI_NS_PER_MS

struct wait {
    struct tri_front *front;
    struct troupe_collective *entry;
};

static bool is_done(const struct troupe_collective *entry)
{
    /* Pairs with the release store of tri_front_finish_locked. */
    return atomic_load_explicit(&entry->done, memory_order_acquire);
}

/* For tri_wait: drives, too. */
static bool drive_until_done(void *arg)
{
    struct wait *wait = arg;

    if (is_done(wait->entry))
        return true;
    tri_front_drive(wait->front);
    return is_done(wait->entry);
}

/* Polls where that is no waste. */
static bool spin(struct wait *wait)
{
    struct tri_runtime *runtime = wait->front->tensor->runtime;
    unsigned spins = runtime->scheduler.spin_ns > 0 ? SPINS : 1;

    for (unsigned i = 0; i < spins; i++) {
        if (drive_until_done(wait))
            return true;
        tri_cpu_relax();
    }
    return false;
}

static void nap(void)
{
    struct timespec ts = { .tv_nsec = NAP_NS };

    nanosleep(&ts, NULL);
}

static uint64_t sleep_ns(uint64_t quiet_ns)
{
    return tri_min(tri_max(quiet_ns / SLEEP_PART, SLEEP_NS_MIN), SLEEP_NS_MAX);
}

/* One round of waiting, when nothing has moved for quiet_ns. True: done. */
static bool wait_round(struct wait *wait, struct tri_seat *seat,
                       uint64_t quiet_ns, uint64_t until_ns)
{
    bool polled_only = atomic_load_explicit(&wait->front->needs_starter,
                                            memory_order_relaxed);

    if (quiet_ns >= NAPS_NS && !polled_only)
        return tri_wait(seat, drive_until_done, wait, until_ns) == 0;
    tri_serve_once(seat);
    if (drive_until_done(wait))
        return true;
    if (quiet_ns < YIELDS_NS || polled_only)
        sched_yield();
    else
        nap();
    return false;
}

static int wait_serving(struct wait *wait, uint64_t deadline_ns)
{
    struct tri_front *front = wait->front;
    uint64_t now_ns = tri_now_ns(), moved_ns = now_ns;
    uint32_t moves = 0;
    struct tri_seat seat;
    int rc = 0;

    tri_seat_take(front->tensor->runtime, &seat);
    while (!drive_until_done(wait)) {
        uint32_t moves_now = atomic_load_explicit(&front->moves,
                                                  memory_order_relaxed);

        now_ns = tri_now_ns();
        if (now_ns >= deadline_ns) {
            rc = TROUPE_ETIMEDOUT;
            break;
        }
        if (moves_now != moves)
            moved_ns = now_ns;
        moves = moves_now;
        if (wait_round(wait, &seat, now_ns - moved_ns,
                       tri_min(deadline_ns,
                               now_ns + sleep_ns(now_ns - moved_ns))))
            break;
    }
    tri_seat_leave(&seat);
    return rc;
}

int tri_front_wait(struct tri_front *front, struct troupe_collective *entry,
                   uint64_t deadline_ns)
{
    struct wait wait = { .front = front, .entry = entry };
    int rc = 0;

    atomic_fetch_add_explicit(&front->waiters, 1, memory_order_relaxed);
    if (!spin(&wait))
        rc = wait_serving(&wait, deadline_ns);
    atomic_fetch_sub_explicit(&front->waiters, 1, memory_order_relaxed);
    if (atomic_load_explicit(&front->under_way, memory_order_relaxed) > 0)
        tri_front_kick_mover(front->tensor);
    return rc;
}

/* --- fronts, one by one --------------------------------------------------- */

/* The one behind `front` (NULL: the first) that is worth driving, held; lets go
 * of `front`. */
static struct tri_front *next_busy(struct tri_tensor *tensor,
                                   struct tri_front *front,
                                   bool (*is_busy)(struct tri_front *front))
{
    struct tri_front *next;

    tri_lock_acquire(&tensor->lock);
    next = front != NULL ? front->next : tensor->fronts;
    while (next != NULL && !is_busy(next))
        next = next->next;
    if (next != NULL)
        next->users++;
    if (front != NULL)
        front->users--;
    tri_lock_release(&tensor->lock);
    return next;
}

/* --- the mover ------------------------------------------------------------ */

static bool is_unattended(struct tri_front *front)
{
    return atomic_load_explicit(&front->under_way, memory_order_relaxed) > 0 &&
           atomic_load_explicit(&front->waiters, memory_order_relaxed) == 0;
}

/* Returns how many entries are under way that nobody waits for. */
static uint32_t move_all(struct tri_tensor *tensor)
{
    struct tri_front *front = next_busy(tensor, NULL, is_unattended);
    uint32_t left = 0;

    for (; front != NULL; front = next_busy(tensor, front, is_unattended)) {
        tri_front_drive(front);
        if (atomic_load_explicit(&front->needs_starter, memory_order_relaxed))
            tri_wake_guest(tensor->runtime);
        left += atomic_load_explicit(&front->under_way, memory_order_relaxed);
    }
    return left;
}

static void *mover(void *arg)
{
    struct tri_tensor *tensor = arg;
    uint64_t nap_ns = NAP_NS;
    uint32_t before = 0;

    while (!atomic_load_explicit(&tensor->mover_stops, memory_order_acquire)) {
        uint32_t left = move_all(tensor);

        if (left == 0) {
            tri_park(&tensor->mover_parker, TRI_NS_NEVER);
            nap_ns = NAP_NS;
        } else {
            nap_ns = left != before ? NAP_NS
                                    : tri_min(nap_ns + nap_ns / 4,
                                              MOVER_NAP_NS_MAX);
            tri_park(&tensor->mover_parker, tri_now_ns() + nap_ns);
        }
        before = left;
    }
    tri_pool_thread_fini();
    return NULL;
}

void tri_front_kick_mover(struct tri_tensor *tensor)
{
    if (atomic_load_explicit(&tensor->mover_started, memory_order_acquire))
        tri_unpark(&tensor->mover_parker);
}

int tri_front_need_mover(struct tri_tensor *tensor)
{
    int rc = 0;

    if (atomic_load_explicit(&tensor->mover_started, memory_order_acquire))
        return 0;
    tri_lock_acquire(&tensor->lock);
    if (!atomic_load_explicit(&tensor->mover_started, memory_order_relaxed)) {
        rc = tri_thread_create(&tensor->mover, "troupe-mover", mover, tensor);
        atomic_store_explicit(&tensor->mover_started, rc == 0,
                              memory_order_release);
    }
    tri_lock_release(&tensor->lock);
    return rc;
}

void tri_front_stop_mover(struct tri_tensor *tensor)
{
    if (!atomic_load_explicit(&tensor->mover_started, memory_order_acquire))
        return;
    atomic_store_explicit(&tensor->mover_stops, true, memory_order_release);
    tri_unpark(&tensor->mover_parker);
    (void)tri_thread_join(tensor->mover, TRI_NS_NEVER);
    atomic_store_explicit(&tensor->mover_started, false, memory_order_relaxed);
}

/* --- the starting thread, in any of its waits ----------------------------- */

static bool wants_starter(struct tri_front *front)
{
    return atomic_load_explicit(&front->needs_starter, memory_order_relaxed) &&
           atomic_load_explicit(&front->under_way, memory_order_relaxed) > 0 &&
           atomic_load_explicit(&front->waiters, memory_order_relaxed) == 0;
}

/* An actor was first to call, in this view or at all: the team is opened
 * here. */
static void open_and_drive(struct tri_tensor *tensor, struct tri_front *front)
{
    struct troupe_group *group = tri_view_find(tensor->runtime,
                                               front->group_id);
    int rc = 0;

    if (!tri_lock_try(&front->lock))
        return;
    if ((!front->has_team || front->left) && group != NULL)
        rc = tri_front_team_locked(front, group);
    else if (!front->has_team && group == NULL)
        rc = TROUPE_ECANCELED; /* it was closed before it had a front */
    if (rc != 0 && front->first != NULL)
        tri_front_end_team_locked(front, rc);
    if (!front->has_team)
        front->ended = 0; /* no team has: the next call asks again */
    tri_front_drive_locked(front);
    tri_lock_release(&front->lock);
}

bool tri_front_hook(struct tri_runtime *runtime)
{
    struct tri_tensor *tensor = runtime->tensor;
    struct tri_front *front = next_busy(tensor, NULL, wants_starter);
    bool again = false;

    for (; front != NULL; front = next_busy(tensor, front, wants_starter)) {
        open_and_drive(tensor, front);
        again |= wants_starter(front);
    }
    return again;
}
