/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SCHEDULER_H
#define TRI_SCHEDULER_H

/*
 * Who runs which actor when.
 *
 * Workers are threads; one more, the *guest*, stands for a thread of the
 * program that waits in a troupe call and serves meanwhile. Each has a slot
 * `next` for the newest runnable actor, which it runs first because its data
 * is warm, and a bounded queue, first in first out, from which idle workers
 * steal half (as the Go scheduler does: Vyukov 2012; the slot as in Go and
 * Tokio). What does not fit, and what comes from other threads, goes to the
 * shared queue.
 *
 * One worker at a time holds the *poll role*: it polls the transports, first
 * spinning, then yielding, then asleep on the bell. Others that are idle park.
 * The guest has the first right to the role. A worker that finds work gives
 * the role up and wakes nobody for it: the control thread sees within a tick
 * or two that the role is free and hands it on, or takes it when everybody
 * computes. So an exchange between two ranks costs no wake-up of a third
 * thread, and at most one thread of a rank spins.
 *
 * Waking: who makes work that it will not run itself soon wakes one parked
 * worker, unless somebody is searching already; a searcher that finds work
 * wakes the next one if there is more. An actor or two in a queue are no
 * reason: their owner is faster than a wake-up, and when it is not, because it
 * computes, the control thread sees that.
 */

#include <pthread.h>

#include "actor/actor.h"
#include "base/random.h"
#include "os/thread.h"

/* The control thread's name, by which others of the host find it. */
#define TRI_CONTROL_THREAD "troupe-control"

struct tri_runtime;
struct tri_worker;
struct troupe_self;

#define TRI_WORKERS_MAX 62u /* and the guest; one bit each in a word */
#define TRI_QUEUE_LEN 256u

enum tri_worker_state {
    TRI_WORKER_BUSY,
    TRI_WORKER_PARKED,  /* on its parker */
    TRI_WORKER_POLLING, /* asleep in the poll role: the bell wakes it */
};

/* A thief's memory of a queue it looked at. */
struct tri_watch {
    uint32_t head;
    uint64_t since_ns; /* 0: never */
};

struct tri_worker {
    /* owner */
    struct tri_runtime *runtime;
    struct troupe_self *self;
    uint32_t index;
    uint32_t turns_since_poll;
    uint32_t next_streak; /* turns from `next` in a row */
    uint32_t ticks;
    struct tri_random random;
    struct tri_watch *watches; /* by worker */
    struct tri_cells cells;
    pthread_t thread;

    /* owner writes, control thread reads */
    _Atomic uint64_t turns __attribute__((aligned(TRI_CACHE_LINE)));
    _Atomic uint32_t running; /* slot of the actor whose turn it is, or 0 */
    _Atomic uint32_t stuck;   /* control thread's: no turn ended for a tick */
    uint64_t turns_seen;      /* control thread's */
    struct tri_actor *_Atomic next; /* owner puts; owner or control takes */

    /* queue: owner adds at tail, owner and thieves take at head */
    _Atomic uint32_t head __attribute__((aligned(TRI_CACHE_LINE)));
    _Atomic uint32_t tail;
    struct tri_actor *_Atomic queue[TRI_QUEUE_LEN];

    /* wakers */
    _Atomic uint32_t state __attribute__((aligned(TRI_CACHE_LINE)));
    struct tri_parker parker;
} __attribute__((aligned(TRI_CACHE_LINE)));

struct tri_scheduler {
    struct tri_runtime *runtime;
    struct tri_worker *workers; /* the last one is the guest */
    uint32_t workers_len;       /* without the guest */
    uint32_t started_len;
    uint64_t spin_ns;
    uint32_t yields;
    bool has_peers;
    int wait_fd; /* epoll: the bell and the transports */
    bool wait_fd_is_blind; /* a transport has none: poll every millisecond */

    _Atomic uint32_t stop __attribute__((aligned(TRI_CACHE_LINE)));
    _Atomic uint32_t searching; /* workers that look for work */
    _Atomic uint64_t idle;      /* bits of workers asleep */
    _Atomic uint32_t rescuing;  /* the control thread has an actor in hand */

    /* the poll role */
    _Atomic uint32_t poll_held __attribute__((aligned(TRI_CACHE_LINE)));
    _Atomic uint32_t poll_asleep;  /* its holder sleeps on the bell */
    _Atomic uint32_t guest_wants;  /* the guest waits for it */
    _Atomic uint32_t poll_by_control; /* its holder is the control thread */
    _Atomic uint32_t polls;        /* grows with each acquisition */

    /* the guest's seat */
    struct tri_lock guest_lock __attribute__((aligned(TRI_CACHE_LINE)));

    /* the shared queue */
    struct tri_lock lock __attribute__((aligned(TRI_CACHE_LINE)));
    struct tri_actor *first;
    struct tri_actor *last;
    _Atomic uint32_t len;

    /* the control thread, see control.c */
    pthread_t control_thread;
    bool control_started;
    int control_fd;       /* epoll: kick, transports' control */
    int control_event_fd; /* kick */
    _Atomic uint32_t control_deep; /* asleep without a tick */
};

/* --- scheduler.c ---------------------------------------------------------- */

struct tri_scheduler_config {
    uint32_t workers_len;
    uint32_t spin_us;
    uint32_t yields;
};

/* Prepares everything; link and bell of the runtime stand already.
 * Errors: ENOMEM, ESYSTEM. */
int tri_scheduler_init(struct tri_scheduler *scheduler,
                       struct tri_runtime *runtime,
                       const struct tri_scheduler_config *config);

/* Starts the threads. Errors: ENOMEM, ESYSTEM. */
int tri_scheduler_start(struct tri_scheduler *scheduler);

/* Ends the threads. Errors: ETIMEDOUT (a worker does not return from a
 * handler; nothing it may use can be freed). */
int tri_scheduler_stop(struct tri_scheduler *scheduler, uint64_t deadline_ns);

void tri_scheduler_fini(struct tri_scheduler *scheduler);

/* The worker that runs on this thread, or NULL. */
struct tri_worker *tri_worker_current(void);
void tri_worker_set_current(struct tri_worker *worker);

/* Has an owned actor run. Any thread. */
void tri_schedule(struct tri_scheduler *scheduler, struct tri_actor *actor);

/* Runs one turn if there is anything to run here or to be stolen. */
bool tri_worker_run_one(struct tri_worker *worker);

/* True when the shared queue holds something. */
bool tri_scheduler_has_work(struct tri_scheduler *scheduler);

/* True when another worker's queue is worth stealing from. Owner only. */
bool tri_worker_could_steal(struct tri_worker *worker);

/* True when this worker has anything in its own queue. Any thread. */
static inline bool tri_worker_has_queue(struct tri_worker *worker)
{
    return atomic_load_explicit(&worker->head, memory_order_relaxed) !=
           atomic_load_explicit(&worker->tail, memory_order_relaxed);
}

/* Has a worker poll at the end of its turn. Owner only. */
static inline void tri_worker_poll_soon(struct tri_worker *worker)
{
    worker->turns_since_poll = UINT32_MAX - 1;
}

/* Wakes one sleeping worker, if nobody is searching. */
void tri_scheduler_wake_one(struct tri_scheduler *scheduler);

/* Wakes this worker from its sleep. */
void tri_worker_wake(struct tri_worker *worker);

/* Moves what this worker was to run to the shared queue. Owner only. */
void tri_worker_hand_over(struct tri_worker *worker);

/* Moves a stuck worker's `next` to the shared queue. Any thread. */
void tri_worker_rescue_next(struct tri_worker *worker);

/* Actors alive on this node. Any thread; a moment's figure. */
uint32_t tri_scheduler_actors(struct tri_scheduler *scheduler);

/* What waits here, as far as it can be told by looking: actors that run or can
 * run, and messages in their mailboxes. Any thread; load.c. */
struct tri_load {
    uint64_t actors;
    uint64_t messages;
};
struct tri_load tri_scheduler_load(struct tri_scheduler *scheduler);

/*
 * True when at some moment of the call no actor ran or waited to run. The
 * calling thread counts as one that runs none, if it is the guest.
 */
bool tri_scheduler_is_quiet(struct tri_scheduler *scheduler);

/* --- poll.c: the poll role ------------------------------------------------ */

/*
 * Polls in the role, then sleeps, until there is work, `wanted` returns true,
 * or the deadline. True: there was a reason before it had to sleep.
 */
bool tri_worker_idle(struct tri_worker *worker, bool (*wanted)(void *arg),
                     void *arg, uint64_t deadline_ns);

/* Polls once if the role is free. */
void tri_worker_poll(struct tri_worker *worker);

/* Polls once as the guest, whoever has the role. */
void tri_guest_poll(struct tri_worker *guest);

bool tri_poll_try(struct tri_scheduler *scheduler);
void tri_poll_release(struct tri_scheduler *scheduler);

/* Makes the role's holder look up, if it sleeps. */
void tri_poll_kick(struct tri_scheduler *scheduler);

/* --- control.c ------------------------------------------------------------ */

void *tri_control_main(void *scheduler);

/* Makes the control thread look at its timers and ticks again. */
void tri_control_kick(struct tri_scheduler *scheduler);

/* Called by threads that come out of a sleep, after they have said so with a
 * locked operation or a full fence. */
static inline void tri_control_touch(struct tri_scheduler *scheduler)
{
    if (atomic_load_explicit(&scheduler->control_deep, memory_order_relaxed))
        tri_control_kick(scheduler);
}

#endif
