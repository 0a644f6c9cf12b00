/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * How much waits here: what the control thread can tell by looking at queues
 * that others work on. Cells never move and are not given back, so an actor
 * that left a queue meanwhile can still be looked at; the figure is a guess.
 */

#include "actor/runtime.h"

/* Actors of one queue looked at; the others are taken to be like them. */
#define LOOK_MAX 32u

static uint64_t messages_of(struct tri_actor *actor)
{
    uint64_t word = atomic_load_explicit(&actor->mailbox.word,
                                         memory_order_relaxed);
    uint64_t new_ones = word == TRI_MAILBOX_IDLE ? 0 : word >> 48;

    return new_ones + atomic_load_explicit(&actor->mailbox.backlog,
                                           memory_order_relaxed);
}

static void count(struct tri_load *load, struct tri_actor *actor)
{
    if (actor == NULL)
        return;
    load->actors++;
    load->messages += messages_of(actor);
}

/* A queue of `len`, of which some were looked at. */
static void add_queue(struct tri_load *load, const struct tri_load *looked,
                      uint64_t len)
{
    load->actors += len;
    if (looked->actors > 0)
        load->messages += looked->messages * len / looked->actors;
}

static void count_worker(struct tri_load *load, struct tri_worker *worker)
{
    struct tri_load looked = { 0 };
    uint32_t head = atomic_load_explicit(&worker->head, memory_order_acquire);
    /* acquire: pairs with the release of a push; the places are filled */
    uint32_t tail = atomic_load_explicit(&worker->tail, memory_order_acquire);
    uint32_t len = tail - head <= TRI_QUEUE_LEN ? tail - head : 0;
    uint32_t running = atomic_load_explicit(&worker->running,
                                            memory_order_relaxed);

    if (running != 0)
        count(load, tri_actor_table_cell(&worker->runtime->actors, running));
    /* acquire: pairs with the release of who puts it there */
    count(load, atomic_load_explicit(&worker->next, memory_order_acquire));
    for (uint32_t i = 0; i < tri_min(len, LOOK_MAX); i++)
        count(&looked,
              atomic_load_explicit(&worker->queue[(head + i) % TRI_QUEUE_LEN],
                                   memory_order_relaxed));
    add_queue(load, &looked, len);
}

static void count_shared(struct tri_load *load, struct tri_scheduler *scheduler)
{
    struct tri_load looked = { 0 };
    uint32_t len = atomic_load_explicit(&scheduler->len, memory_order_relaxed);

    if (len == 0)
        return;
    tri_lock_acquire(&scheduler->lock);
    for (struct tri_actor *actor = scheduler->first;
         actor != NULL && looked.actors < LOOK_MAX; actor = actor->queue_next)
        count(&looked, actor);
    tri_lock_release(&scheduler->lock);
    add_queue(load, &looked, len);
}

struct tri_load tri_scheduler_load(struct tri_scheduler *scheduler)
{
    struct tri_load load = { 0 };

    for (uint32_t i = 0; i <= scheduler->workers_len; i++)
        count_worker(&load, &scheduler->workers[i]);
    count_shared(&load, scheduler);
    return load;
}
