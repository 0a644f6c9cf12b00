/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The control thread. It runs no user code, so it is there when all workers
 * compute and the program's own thread sits in MPI. It
 *   - handles the transports' slow events: connections, deaths;
 *   - ends asks that are past their deadline;
 *   - runs membership, and what is built on it (runtime->control_run);
 *   - while the node is active, looks around every millisecond: it hands the
 *     poll role to a parked worker when nobody has it, takes it when there is
 *     none, and frees a runnable actor from behind a handler that computes.
 * When nothing has happened for some ticks, and somebody sleeps on the bell,
 * it sleeps without a tick until the next deadline: an idle node uses no CPU.
 */

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "actor/runtime.h"
#include "base/clock.h"
#include "message/pool.h"

#define TICK_MS 1
/* Ticks without any turn or poll before the tick is switched off. */
#define QUIET_TICKS 8u
#define POLL_BUDGET 256u
#define EVENTS_LEN 8

struct control {
    struct tri_scheduler *scheduler;
    bool holding;     /* the poll role */
    bool watching;    /* the wait descriptor is in our epoll set */
    bool armed;       /* the bell */
    uint32_t polls_seen;
    uint64_t turns_seen; /* of all workers */
    uint32_t quiet_ticks;
    uint64_t last_tick_ns;
    bool hook_has_more; /* than it did at once */
    struct tri_pool_trim trim;
};

void tri_control_kick(struct tri_scheduler *scheduler)
{
    uint64_t one = 1;

    if (write(scheduler->control_event_fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: it is awake already */
}

static uint64_t sleeping_workers(struct tri_scheduler *scheduler)
{
    return atomic_load_explicit(&scheduler->idle, memory_order_relaxed) &
           ((1ull << scheduler->workers_len) - 1);
}

/* --- the poll role ------------------------------------------------------------ */

static void watch(struct control *control, bool on)
{
    struct tri_scheduler *scheduler = control->scheduler;
    struct epoll_event event = { .events = EPOLLIN,
                                 .data.fd = scheduler->wait_fd };

    if (control->watching == on)
        return;
    epoll_ctl(scheduler->control_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL,
              scheduler->wait_fd, &event);
    control->watching = on;
}

static void disarm(struct control *control)
{
    if (!control->armed)
        return;
    tri_bell_disarm(&control->scheduler->runtime->bell);
    atomic_store_explicit(&control->scheduler->poll_asleep, 0,
                          memory_order_relaxed);
    control->armed = false;
}

/* Arms the bell before a sleep. False: there is work already. */
static bool arm(struct control *control)
{
    struct tri_scheduler *scheduler = control->scheduler;

    atomic_store_explicit(&scheduler->poll_asleep, 1, memory_order_relaxed);
    tri_bell_arm(&scheduler->runtime->bell);
    control->armed = true;
    if (tri_link_pending(&scheduler->runtime->link) ||
        atomic_load_explicit(&scheduler->guest_wants, memory_order_relaxed)) {
        disarm(control);
        return false;
    }
    return true;
}

static void give_role_up(struct control *control)
{
    if (!control->holding)
        return;
    disarm(control);
    watch(control, false);
    control->holding = false;
    atomic_store_explicit(&control->scheduler->poll_by_control, 0,
                          memory_order_relaxed);
    tri_poll_release(control->scheduler);
}

/* Polls in the role; true when anything came in. */
static bool poll_once(struct control *control)
{
    struct tri_scheduler *scheduler = control->scheduler;

    if (!control->holding && !tri_poll_try(scheduler))
        return false;
    control->holding = true;
    atomic_store_explicit(&scheduler->poll_by_control, 1,
                          memory_order_relaxed);
    return tri_link_poll(&scheduler->runtime->link, POLL_BUDGET) > 0;
}

/*
 * Sees to it that somebody polls. Returns true when the control thread may
 * sleep as far as polling is concerned.
 */
static bool look_after_polling(struct control *control, bool tick)
{
    struct tri_scheduler *scheduler = control->scheduler;
    uint32_t polls = atomic_load_explicit(&scheduler->polls,
                                          memory_order_relaxed);
    bool got_some;

    if (!scheduler->has_peers)
        return true;
    if (control->holding && (sleeping_workers(scheduler) != 0 ||
                             atomic_load_explicit(&scheduler->guest_wants,
                                                  memory_order_relaxed)))
        give_role_up(control); /* one of them takes it */
    if (!control->holding) {
        bool free = !atomic_load_explicit(&scheduler->poll_held,
                                          memory_order_relaxed);
        bool unused = polls == control->polls_seen;

        if (tick)
            control->polls_seen = polls;
        if (!free || !unused || !tick)
            return !free && atomic_load_explicit(&scheduler->poll_asleep,
                                                 memory_order_relaxed);
        if (sleeping_workers(scheduler) != 0) {
            tri_scheduler_wake_one(scheduler);
            return false;
        }
    }
    got_some = poll_once(control);
    control->polls_seen = atomic_load_explicit(&scheduler->polls,
                                               memory_order_relaxed);
    if (!control->holding || got_some)
        return false; /* a tick's pause before the bell may ring again */
    watch(control, true);
    return arm(control);
}

/* --- ticks ----------------------------------------------------------------------- */

/*
 * Frees actors from behind a handler that has not returned for a tick. True:
 * there is such a handler. It may make more work at any time and wakes nobody
 * for it, so the ticks have to go on.
 */
static bool rescue_worker(struct tri_scheduler *scheduler,
                          struct tri_worker *worker)
{
    uint64_t turns = atomic_load_explicit(&worker->turns,
                                          memory_order_relaxed);
    bool stuck = turns == worker->turns_seen &&
                 atomic_load_explicit(&worker->running, memory_order_relaxed);

    worker->turns_seen = turns;
    atomic_store_explicit(&worker->stuck, stuck, memory_order_relaxed);
    if (stuck && sleeping_workers(scheduler) != 0 && /* who could run it */
        (atomic_load_explicit(&worker->next, memory_order_relaxed) != NULL ||
         tri_worker_has_queue(worker))) {
        tri_worker_rescue_next(worker);
        tri_scheduler_wake_one(scheduler);
    }
    return stuck;
}

static bool rescue(struct tri_scheduler *scheduler)
{
    bool any = false;

    for (uint32_t i = 0; i <= scheduler->workers_len; i++)
        any |= rescue_worker(scheduler, &scheduler->workers[i]);
    return any;
}

/* True when nothing happened since the last tick. */
static bool is_quiet(struct control *control)
{
    struct tri_scheduler *scheduler = control->scheduler;
    uint64_t turns = atomic_load_explicit(&scheduler->polls,
                                          memory_order_relaxed);
    bool quiet;

    for (uint32_t i = 0; i <= scheduler->workers_len; i++)
        turns += atomic_load_explicit(&scheduler->workers[i].turns,
                                      memory_order_relaxed);
    quiet = turns == control->turns_seen;
    control->turns_seen = turns;
    return quiet;
}

/* All workers sleep, and somebody sleeps on the bell. */
static bool is_at_rest(struct control *control)
{
    struct tri_scheduler *scheduler = control->scheduler;

    return sleeping_workers(scheduler) ==
               (1ull << scheduler->workers_len) - 1 &&
           (!scheduler->has_peers ||
            atomic_load_explicit(&scheduler->poll_asleep,
                                 memory_order_relaxed));
}

static int timeout_of(struct control *control, uint64_t wake_ns, bool may_sleep)
{
    struct tri_scheduler *scheduler = control->scheduler;

    if (control->hook_has_more)
        return 0;
    if (!may_sleep || control->quiet_ticks < QUIET_TICKS)
        return TICK_MS;
    atomic_store_explicit(&scheduler->control_deep, 1, memory_order_relaxed);
    /* Pairs with the fences of who makes an ask with an earlier deadline, and
     * of who wakes up: what they did before they looked is seen now. */
    tri_fence_full();
    if (!is_at_rest(control)) {
        atomic_store_explicit(&scheduler->control_deep, 0,
                              memory_order_relaxed);
        return TICK_MS;
    }
    wake_ns = tri_min(wake_ns, atomic_load_explicit(
                                   &scheduler->runtime->asks.next_wake_ns,
                                   memory_order_relaxed));
    return wake_ns == TRI_NS_NEVER ? -1
                                   : (int)tri_ms_left(wake_ns, tri_now_ns());
}

static bool is_ready(int fd, const struct epoll_event *events, int len)
{
    for (int i = 0; i < len; i++)
        if (events[i].data.fd == fd)
            return true;
    return false;
}

/* Membership. Returns when it wants to be called again. */
static uint64_t run_hook(struct control *control, uint64_t now_ns,
                         const struct epoll_event *events, int len)
{
    struct tri_runtime *runtime = control->scheduler->runtime;
    uint64_t due_ns;

    if (runtime->control_run == NULL)
        return TRI_NS_NEVER;
    due_ns = runtime->control_run(runtime, now_ns,
                                  is_ready(runtime->control_fd, events, len));
    control->hook_has_more = due_ns <= now_ns;
    return due_ns;
}

static void handle_events(struct control *control)
{
    struct tri_scheduler *scheduler = control->scheduler;
    struct tri_link *link = &scheduler->runtime->link;
    uint64_t count;

    if (read(scheduler->control_event_fd, &count, sizeof(count)) > 0)
        control->quiet_ticks = 0;
    for (uint32_t i = 0; i < link->transports_len; i++)
        if (link->transports[i]->ops->control != NULL)
            link->transports[i]->ops->control(link->transports[i]);
}

void *tri_control_main(void *arg)
{
    struct tri_scheduler *scheduler = arg;
    struct control control = { .scheduler = scheduler };
    struct epoll_event events[EVENTS_LEN];
    int timeout_ms = TICK_MS;

    tri_thread_favour();
    while (!atomic_load_explicit(&scheduler->stop, memory_order_relaxed)) {
        uint64_t now_ns, wake_ns;
        bool tick, may_sleep;
        int events_len = epoll_wait(scheduler->control_fd, events, EVENTS_LEN,
                                    timeout_ms);

        atomic_store_explicit(&scheduler->control_deep, 0,
                              memory_order_relaxed);
        disarm(&control);
        now_ns = tri_now_ns();
        tick = now_ns - control.last_tick_ns >= TICK_MS * TRI_NS_PER_MS;
        handle_events(&control);
        wake_ns = run_hook(&control, now_ns, events, events_len);
        wake_ns = tri_min(wake_ns, tri_asks_expire(&scheduler->runtime->asks,
                                                   now_ns));
        may_sleep = look_after_polling(&control, tick);
        if (tick) {
            control.last_tick_ns = now_ns;
            if (tri_pool_trim(&control.trim, now_ns) || rescue(scheduler) ||
                !is_quiet(&control))
                control.quiet_ticks = 0;
            else
                control.quiet_ticks++;
        }
        timeout_ms = timeout_of(&control, wake_ns, may_sleep);
    }
    give_role_up(&control);
    tri_pool_thread_fini();
    return NULL;
}
