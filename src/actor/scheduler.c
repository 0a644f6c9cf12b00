/* SPDX-License-Identifier: BSD-3-Clause */
#include "actor/scheduler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "actor/runtime.h"
#include "base/clock.h"
#include "base/log.h"
#include "message/pool.h"

/* Turns out of `next` in a row before the queue has its turn. */
#define NEXT_STREAK_MAX 16u
/* Every so many turns the shared queue goes first (a prime, as in Go). */
#define SHARED_FIRST_EVERY 61u
/* Actors moved from the shared queue at once. */
#define SHARED_BATCH 32u
/*
 * A queue this long is stolen from at once. A shorter one is left to its
 * owner, whose caches have the actors' data, unless it does not get to it: a
 * thief that spins watches it for WATCH_NS, the control thread for a tick.
 */
#define STEAL_LEN_MIN 3u
#define WATCH_NS 5000u
#define WAKE_EVERY 32u
/* Turns between two polls of a busy worker. */
#define TURNS_PER_POLL 8u

static _Thread_local struct tri_worker *current
    __attribute__((tls_model("initial-exec")));

struct tri_worker *tri_worker_current(void)
{
    return current;
}

void tri_worker_set_current(struct tri_worker *worker)
{
    current = worker;
}

static uint32_t all_len(const struct tri_scheduler *scheduler)
{
    return scheduler->workers_len + 1;
}

/* --- the shared queue --------------------------------------------------------- */

static void shared_push(struct tri_scheduler *scheduler,
                        struct tri_actor *first, struct tri_actor *last,
                        uint32_t n)
{
    last->queue_next = NULL;
    tri_lock_acquire(&scheduler->lock);
    if (scheduler->last != NULL)
        scheduler->last->queue_next = first;
    else
        scheduler->first = first;
    scheduler->last = last;
    atomic_fetch_add_explicit(&scheduler->len, n, memory_order_relaxed);
    tri_lock_release(&scheduler->lock);
}

static struct tri_actor *shared_pop_locked(struct tri_scheduler *scheduler)
{
    struct tri_actor *actor = scheduler->first;

    assert(tri_lock_is_held(&scheduler->lock));
    if (actor == NULL)
        return NULL;
    scheduler->first = actor->queue_next;
    if (scheduler->first == NULL)
        scheduler->last = NULL;
    atomic_fetch_sub_explicit(&scheduler->len, 1, memory_order_relaxed);
    return actor;
}

/* --- a worker's own queue -------------------------------------------------------- */

static uint32_t queue_len(struct tri_worker *worker)
{
    uint32_t head = atomic_load_explicit(&worker->head, memory_order_acquire);
    uint32_t tail = atomic_load_explicit(&worker->tail, memory_order_acquire);
    uint32_t n = tail - head;

    return n <= TRI_QUEUE_LEN ? n : 0; /* head was read before a pop */
}

/* Takes the oldest. Owner and thieves. */
static struct tri_actor *queue_pop(struct tri_worker *worker)
{
    uint32_t head = atomic_load_explicit(&worker->head, memory_order_acquire);

    for (;;) {
        /* acquire: pairs with the release in queue_push */
        uint32_t tail = atomic_load_explicit(&worker->tail,
                                             memory_order_acquire);
        struct tri_actor *actor;

        if (head == tail)
            return NULL;
        actor = atomic_load_explicit(&worker->queue[head % TRI_QUEUE_LEN],
                                     memory_order_relaxed);
        /* The entry is ours only if nobody took it meanwhile. release: the
         * owner must not refill the place before it was read. */
        if (atomic_compare_exchange_weak_explicit(
                &worker->head, &head, head + 1, memory_order_acq_rel,
                memory_order_acquire))
            return actor;
    }
}

/* Moves half of a full queue to the shared one. */
static void queue_overflow(struct tri_worker *worker, struct tri_actor *actor)
{
    struct tri_actor *first = actor, *last = actor;
    uint32_t n = 1;

    for (; n < TRI_QUEUE_LEN / 2; n++) {
        struct tri_actor *moved = queue_pop(worker);

        if (moved == NULL)
            break;
        if (n == 1)
            first = moved;
        else
            last->queue_next = moved;
        last = moved;
    }
    if (last != actor)
        last->queue_next = actor;
    shared_push(&worker->runtime->scheduler, first, actor, n);
}

/* Adds at the end. Owner only. */
static void queue_push(struct tri_worker *worker, struct tri_actor *actor)
{
    uint32_t tail = atomic_load_explicit(&worker->tail, memory_order_relaxed);
    /* acquire: pairs with the release of a pop, before its place is reused */
    uint32_t head = atomic_load_explicit(&worker->head, memory_order_acquire);

    if (tri_unlikely(tail - head >= TRI_QUEUE_LEN)) {
        queue_overflow(worker, actor);
        return;
    }
    atomic_store_explicit(&worker->queue[tail % TRI_QUEUE_LEN], actor,
                          memory_order_relaxed);
    atomic_store_explicit(&worker->tail, tail + 1, memory_order_release);
}

static struct tri_actor *take_next(struct tri_worker *worker)
{
    if (atomic_load_explicit(&worker->next, memory_order_relaxed) == NULL)
        return NULL;
    /* an exchange, because the control thread may rescue it */
    return atomic_exchange_explicit(&worker->next, NULL, memory_order_acquire);
}

void tri_worker_rescue_next(struct tri_worker *worker)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;
    struct tri_actor *actor;

    /* Before the actor is nowhere: for tri_scheduler_is_quiet. */
    atomic_store(&scheduler->rescuing, 1);
    actor = take_next(worker);
    if (actor != NULL)
        shared_push(scheduler, actor, actor, 1);
    atomic_store(&scheduler->rescuing, 0);
}

void tri_worker_hand_over(struct tri_worker *worker)
{
    struct tri_actor *actor = take_next(worker);
    bool moved = actor != NULL;

    if (actor != NULL)
        shared_push(&worker->runtime->scheduler, actor, actor, 1);
    while ((actor = queue_pop(worker)) != NULL) {
        shared_push(&worker->runtime->scheduler, actor, actor, 1);
        moved = true;
    }
    if (moved)
        tri_scheduler_wake_one(&worker->runtime->scheduler);
}

/* --- waking ----------------------------------------------------------------------- */

void tri_worker_wake(struct tri_worker *worker)
{
    if (atomic_load_explicit(&worker->state, memory_order_acquire) ==
        TRI_WORKER_POLLING)
        tri_bell_ring_always(&worker->runtime->bell);
    tri_unpark(&worker->parker);
}

void tri_scheduler_wake_one(struct tri_scheduler *scheduler)
{
    uint64_t idle;

    /* Pairs with the fence of a worker that goes to sleep: it sees the work,
     * or we see it idle. */
    tri_fence_full();
    if (atomic_load_explicit(&scheduler->searching, memory_order_relaxed) > 0)
        return;
    idle = atomic_load_explicit(&scheduler->idle, memory_order_relaxed);
    while (idle != 0) {
        uint64_t bit = idle & -idle;

        if (atomic_fetch_and_explicit(&scheduler->idle, ~bit,
                                      memory_order_acq_rel) & bit) {
            tri_worker_wake(&scheduler->workers[__builtin_ctzll(bit)]);
            return;
        }
        idle &= ~bit;
    }
}

void tri_schedule(struct tri_scheduler *scheduler, struct tri_actor *actor)
{
    struct tri_worker *worker = current;
    struct tri_actor *displaced;

    if (tri_unlikely(worker == NULL ||
                     &worker->runtime->scheduler != scheduler)) {
        shared_push(scheduler, actor, actor, 1);
        tri_scheduler_wake_one(scheduler);
        return;
    }
    displaced = atomic_load_explicit(&worker->next, memory_order_relaxed);
    if (tri_likely(displaced == NULL)) {
        atomic_store_explicit(&worker->next, actor, memory_order_release);
        return;
    }
    displaced = atomic_exchange_explicit(&worker->next, actor,
                                         memory_order_acq_rel);
    if (displaced != NULL) {
        queue_push(worker, displaced);
        /* Once is enough: who goes to sleep later looks at the queue first.
         * Another helper when it goes on growing. */
        if (queue_len(worker) % WAKE_EVERY == STEAL_LEN_MIN)
            tri_scheduler_wake_one(scheduler);
    }
}

/* --- finding work ------------------------------------------------------------------- */

static struct tri_actor *take_shared(struct tri_worker *worker)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;
    struct tri_actor *batch[SHARED_BATCH];
    uint32_t n = 0, share;

    if (atomic_load_explicit(&scheduler->len, memory_order_relaxed) == 0)
        return NULL;
    tri_lock_acquire(&scheduler->lock);
    share = atomic_load_explicit(&scheduler->len, memory_order_relaxed) /
                all_len(scheduler) + 1;
    while (n < tri_min(share, SHARED_BATCH) &&
           (batch[n] = shared_pop_locked(scheduler)) != NULL)
        n++;
    tri_lock_release(&scheduler->lock);
    for (uint32_t i = 1; i < n; i++)
        queue_push(worker, batch[i]);
    return n > 0 ? batch[0] : NULL;
}

/* True when a thief should help itself; see STEAL_LEN_MIN. */
static bool is_worth_stealing(struct tri_worker *worker,
                              struct tri_worker *victim)
{
    struct tri_watch *watch = &worker->watches[victim->index];
    uint32_t len = queue_len(victim);
    uint32_t head;
    uint64_t now_ns;

    if (len == 0 || victim == worker)
        return false;
    if (len >= STEAL_LEN_MIN ||
        atomic_load_explicit(&victim->stuck, memory_order_relaxed))
        return true;
    head = atomic_load_explicit(&victim->head, memory_order_relaxed);
    now_ns = tri_now_ns();
    if (watch->head != head || watch->since_ns == 0) {
        watch->head = head;
        watch->since_ns = now_ns;
        return false;
    }
    return now_ns - watch->since_ns > WATCH_NS;
}

/* Takes half of a random other worker's queue. */
static struct tri_actor *steal(struct tri_worker *worker)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;
    uint32_t first = tri_random_below(&worker->random, all_len(scheduler));

    for (uint32_t i = 0; i < all_len(scheduler); i++) {
        struct tri_worker *victim =
            &scheduler->workers[(first + i) % all_len(scheduler)];
        struct tri_actor *actor;
        uint32_t half;

        if (!is_worth_stealing(worker, victim))
            continue;
        half = (queue_len(victim) + 1) / 2;
        actor = queue_pop(victim);
        if (actor == NULL)
            continue;
        for (uint32_t n = 1; n < half; n++) {
            struct tri_actor *more = queue_pop(victim);

            if (more == NULL)
                break;
            queue_push(worker, more);
        }
        return actor;
    }
    return NULL;
}

static struct tri_actor *pick(struct tri_worker *worker)
{
    struct tri_actor *actor;

    if (tri_unlikely(++worker->ticks % SHARED_FIRST_EVERY == 0) &&
        (actor = take_shared(worker)) != NULL)
        return actor;
    actor = take_next(worker);
    if (actor != NULL) {
        if (tri_likely(++worker->next_streak < NEXT_STREAK_MAX))
            return actor;
        queue_push(worker, actor);
    }
    worker->next_streak = 0;
    actor = queue_pop(worker);
    if (actor == NULL)
        actor = take_shared(worker);
    if (actor == NULL && all_len(&worker->runtime->scheduler) > 1)
        actor = steal(worker);
    return actor;
}

bool tri_scheduler_has_work(struct tri_scheduler *scheduler)
{
    return atomic_load_explicit(&scheduler->len, memory_order_relaxed) > 0;
}

bool tri_worker_could_steal(struct tri_worker *worker)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;

    for (uint32_t i = 0; i < all_len(scheduler); i++)
        if (is_worth_stealing(worker, &scheduler->workers[i]))
            return true;
    return false;
}

bool tri_worker_run_one(struct tri_worker *worker)
{
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;
    struct tri_actor *actor = pick(worker);

    if (actor == NULL)
        return false;
    /* release: what the control thread sees running has these turns */
    atomic_store_explicit(&worker->running, actor->slot,
                          memory_order_relaxed);
    if (tri_actor_run(worker->self, actor))
        queue_push(worker, actor);
    atomic_store_explicit(&worker->running, 0, memory_order_relaxed);
    atomic_store_explicit(
        &worker->turns,
        atomic_load_explicit(&worker->turns, memory_order_relaxed) + 1,
        memory_order_relaxed);
    if (scheduler->has_peers && ++worker->turns_since_poll >= TURNS_PER_POLL)
        tri_worker_poll(worker);
    return true;
}

uint32_t tri_scheduler_actors(struct tri_scheduler *scheduler)
{
    uint32_t alive = atomic_load(&scheduler->runtime->actors.alive);
    uint32_t kept = 0;

    for (uint32_t i = 0; i < all_len(scheduler); i++)
        kept += atomic_load_explicit(&scheduler->workers[i].cells.len,
                                     memory_order_relaxed);
    return alive > kept ? alive - kept : 0;
}

static uint64_t turns_of_all(struct tri_scheduler *scheduler)
{
    uint64_t turns = 0;

    for (uint32_t i = 0; i < all_len(scheduler); i++)
        turns += atomic_load(&scheduler->workers[i].turns);
    return turns;
}

/* No worker has an actor in hand, nor has the guest. */
static bool are_all_idle(struct tri_scheduler *scheduler)
{
    struct tri_worker *guest = &scheduler->workers[scheduler->workers_len];
    uint64_t wanted = (1ull << scheduler->workers_len) - 1;

    if (tri_worker_current() != guest &&
        tri_lock_is_held(&scheduler->guest_lock))
        wanted |= 1ull << guest->index;
    return (atomic_load(&scheduler->idle) & wanted) == wanted &&
           !atomic_load(&scheduler->rescuing);
}

static bool are_queues_empty(struct tri_scheduler *scheduler)
{
    if (tri_scheduler_has_work(scheduler))
        return false;
    for (uint32_t i = 0; i < all_len(scheduler); i++)
        if (atomic_load(&scheduler->workers[i].next) != NULL ||
            queue_len(&scheduler->workers[i]) > 0)
            return false;
    return true;
}

/*
 * The looks are not one moment. But if all were idle at the first look, then
 * what there was to run was in a queue; it leaves one only into the hands of a
 * worker that is not idle any more, and whose turn will count.
 */
bool tri_scheduler_is_quiet(struct tri_scheduler *scheduler)
{
    uint64_t turns = turns_of_all(scheduler);

    return are_all_idle(scheduler) && are_queues_empty(scheduler) &&
           are_all_idle(scheduler) && turns_of_all(scheduler) == turns;
}

/* --- threads ----------------------------------------------------------------------- */

static bool should_stop(void *arg)
{
    struct tri_scheduler *scheduler = arg;

    return atomic_load_explicit(&scheduler->stop, memory_order_relaxed);
}

static void *worker_main(void *arg)
{
    struct tri_worker *worker = arg;
    struct tri_scheduler *scheduler = &worker->runtime->scheduler;

    tri_worker_set_current(worker);
    while (!should_stop(scheduler))
        if (!tri_worker_run_one(worker))
            tri_worker_idle(worker, should_stop, scheduler, TRI_NS_NEVER);
    tri_worker_hand_over(worker);
    tri_pool_thread_fini();
    return NULL;
}

static int add_fd(int epoll_fd, int fd)
{
    struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0
               ? 0
               : TROUPE_ESYSTEM;
}

static int open_fds(struct tri_scheduler *scheduler, struct tri_runtime *runtime)
{
    struct tri_link *link = &runtime->link;
    int rc;

    scheduler->wait_fd = epoll_create1(EPOLL_CLOEXEC);
    scheduler->control_fd = epoll_create1(EPOLL_CLOEXEC);
    scheduler->control_event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (scheduler->wait_fd < 0 || scheduler->control_fd < 0 ||
        scheduler->control_event_fd < 0)
        return TROUPE_ESYSTEM;
    rc = add_fd(scheduler->wait_fd, runtime->bell.event_fd);
    if (rc == 0)
        rc = add_fd(scheduler->control_fd, scheduler->control_event_fd);
    for (uint32_t i = 0; rc == 0 && i < link->transports_len; i++) {
        struct tri_transport *transport = link->transports[i];
        int fd = transport->ops->wait_fd(transport);

        if (fd >= 0)
            rc = add_fd(scheduler->wait_fd, fd);
        else if (fd == -2)
            scheduler->wait_fd_is_blind = true;
        if (rc == 0 && transport->ops->control_fd != NULL)
            rc = add_fd(scheduler->control_fd,
                        transport->ops->control_fd(transport));
    }
    if (rc == 0 && runtime->control_run != NULL)
        rc = add_fd(scheduler->control_fd, runtime->control_fd);
    return rc;
}

static int init_workers(struct tri_scheduler *scheduler,
                        struct tri_runtime *runtime)
{
    size_t bytes = sizeof(struct tri_worker) * all_len(scheduler);

    scheduler->workers = aligned_alloc(TRI_CACHE_LINE,
                                       tri_align_up(bytes, TRI_CACHE_LINE));
    if (scheduler->workers == NULL)
        return TROUPE_ENOMEM;
    memset(scheduler->workers, 0, bytes);
    for (uint32_t i = 0; i < all_len(scheduler); i++) {
        struct tri_worker *worker = &scheduler->workers[i];

        worker->runtime = runtime;
        worker->index = i;
        tri_random_init(&worker->random, runtime->node + i);
        worker->self = calloc(1, sizeof(*worker->self));
        worker->watches = calloc(all_len(scheduler), sizeof(*worker->watches));
        if (worker->self == NULL || worker->watches == NULL)
            return TROUPE_ENOMEM;
        worker->self->context_kind = TRI_CONTEXT_SELF;
        worker->self->runtime = runtime;
    }
    return 0;
}

int tri_scheduler_init(struct tri_scheduler *scheduler,
                       struct tri_runtime *runtime,
                       const struct tri_scheduler_config *config)
{
    int rc;

    memset(scheduler, 0, sizeof(*scheduler));
    scheduler->runtime = runtime;
    scheduler->workers_len = (uint32_t)tri_min(config->workers_len,
                                               TRI_WORKERS_MAX);
    scheduler->spin_ns = (uint64_t)config->spin_us * 1000;
    scheduler->yields = config->yields;
    scheduler->has_peers = runtime->link.transports_len > 0;
    scheduler->wait_fd = -1;
    scheduler->control_fd = -1;
    scheduler->control_event_fd = -1;
    rc = init_workers(scheduler, runtime);
    if (rc == 0)
        rc = open_fds(scheduler, runtime);
    if (rc == TROUPE_ESYSTEM)
        tri_error("cannot make the runtime's descriptors: %s", strerror(errno));
    if (rc != 0)
        tri_scheduler_fini(scheduler);
    return rc;
}

int tri_scheduler_start(struct tri_scheduler *scheduler)
{
    int rc = 0;

    while (rc == 0 && scheduler->started_len < scheduler->workers_len) {
        struct tri_worker *worker =
            &scheduler->workers[scheduler->started_len];
        char name[16];

        snprintf(name, sizeof(name), "troupe-w%u", worker->index);
        rc = tri_thread_create(&worker->thread, name, worker_main, worker);
        if (rc == 0)
            scheduler->started_len++;
    }
    if (rc == 0)
        rc = tri_thread_create(&scheduler->control_thread, TRI_CONTROL_THREAD,
                               tri_control_main, scheduler);
    scheduler->control_started = rc == 0;
    if (rc != 0)
        tri_scheduler_stop(scheduler, TRI_NS_NEVER);
    return rc;
}

int tri_scheduler_stop(struct tri_scheduler *scheduler, uint64_t deadline_ns)
{
    int rc = 0;

    atomic_store(&scheduler->stop, 1);
    tri_bell_ring_always(&scheduler->runtime->bell);
    tri_control_kick(scheduler);
    if (scheduler->control_started &&
        tri_thread_join(scheduler->control_thread, deadline_ns) != 0)
        rc = TROUPE_ETIMEDOUT;
    scheduler->control_started = false;
    for (uint32_t i = 0; i < scheduler->started_len; i++) {
        tri_worker_wake(&scheduler->workers[i]);
        if (tri_thread_join(scheduler->workers[i].thread, deadline_ns) != 0) {
            tri_error("worker %u does not return from a handler", i);
            rc = TROUPE_ETIMEDOUT;
        }
    }
    if (rc == 0)
        scheduler->started_len = 0;
    return rc;
}

void tri_scheduler_fini(struct tri_scheduler *scheduler)
{
    for (uint32_t i = 0;
         scheduler->workers != NULL && i < all_len(scheduler); i++) {
        free(scheduler->workers[i].self);
        free(scheduler->workers[i].watches);
    }
    free(scheduler->workers);
    scheduler->workers = NULL;
    if (scheduler->wait_fd >= 0)
        close(scheduler->wait_fd);
    if (scheduler->control_fd >= 0)
        close(scheduler->control_fd);
    if (scheduler->control_event_fd >= 0)
        close(scheduler->control_event_fd);
}
