/* SPDX-License-Identifier: BSD-3-Clause */
#include "actor/asks.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "message/pool.h"
#include "message/type.h"

#define TRI_ASKS_PER_BLOCK 256u
#define TICK_NS (TRI_ASKS_TICK_MS * TRI_NS_PER_MS)

int tri_asks_init(struct tri_asks *asks, uint32_t asks_max,
                  const struct tri_asks_events *events)
{
    memset(asks, 0, sizeof(*asks));
    asks->events = *events;
    asks->asks_max = asks_max;
    asks->blocks = calloc(asks_max / TRI_ASKS_PER_BLOCK + 1,
                          sizeof(*asks->blocks));
    asks->wheel_tick = tri_now_ns() / TICK_NS;
    atomic_store(&asks->next_wake_ns, TRI_NS_NEVER);
    return asks->blocks != NULL ? 0 : TROUPE_ENOMEM;
}

static struct tri_ask *entry(struct tri_asks *asks, uint32_t slot)
{
    return &asks->blocks[slot / TRI_ASKS_PER_BLOCK][slot % TRI_ASKS_PER_BLOCK];
}

void tri_asks_fini(struct tri_asks *asks)
{
    for (uint32_t i = 0; i < asks->len; i++)
        if (entry(asks, i)->result != NULL)
            tri_message_free(entry(asks, i)->result);
    for (uint32_t i = 0; i * TRI_ASKS_PER_BLOCK < asks->len; i++)
        free(asks->blocks[i]);
    free(asks->blocks);
    asks->blocks = NULL;
}

/* --- the table, under the lock ---------------------------------------------- */

static int add_entry_locked(struct tri_asks *asks, struct tri_ask **ask_p)
{
    uint32_t block = asks->len / TRI_ASKS_PER_BLOCK;
    struct tri_ask *ask;

    assert(tri_lock_is_held(&asks->lock));
    if (asks->len >= asks->asks_max)
        return TROUPE_ELIMIT;
    if (asks->blocks[block] == NULL) {
        asks->blocks[block] = calloc(TRI_ASKS_PER_BLOCK, sizeof(*ask));
        if (asks->blocks[block] == NULL)
            return TROUPE_ENOMEM;
    }
    ask = entry(asks, asks->len);
    /* its id's lower half; the generation makes the upper */
    ask->outcome.slot = asks->len++;
    *ask_p = ask;
    return 0;
}

static uint64_t id_of(const struct tri_ask *ask)
{
    return ((uint64_t)ask->generation << 32) | ask->outcome.slot;
}

static struct tri_ask *find_locked(struct tri_asks *asks, uint64_t id)
{
    uint32_t slot = (uint32_t)id;
    struct tri_ask *ask;

    assert(tri_lock_is_held(&asks->lock));
    if (slot >= asks->len)
        return NULL;
    ask = entry(asks, slot);
    return ask->state == TRI_ASK_PENDING && ask->generation == id >> 32 ? ask
                                                                        : NULL;
}

static void wheel_add_locked(struct tri_asks *asks, struct tri_ask *ask)
{
    /* The asker may have lost its core until after its own deadline: never
     * into a bucket that was turned already. */
    uint64_t tick = tri_max(ask->deadline_ns / TICK_NS, asks->wheel_tick) + 1;
    struct tri_ask **bucket = &asks->wheel[tick % TRI_ASKS_WHEEL_LEN];

    assert(tri_lock_is_held(&asks->lock));
    ask->wheel_next = *bucket;
    ask->wheel_link = bucket;
    if (*bucket != NULL)
        (*bucket)->wheel_link = &ask->wheel_next;
    *bucket = ask;
    asks->wheel_len++;
    if (ask->deadline_ns < atomic_load_explicit(&asks->next_wake_ns,
                                                memory_order_relaxed))
        atomic_store_explicit(&asks->next_wake_ns, ask->deadline_ns,
                              memory_order_relaxed);
}

static void wheel_remove_locked(struct tri_asks *asks, struct tri_ask *ask)
{
    assert(tri_lock_is_held(&asks->lock));
    if (ask->wheel_link == NULL)
        return;
    *ask->wheel_link = ask->wheel_next;
    if (ask->wheel_next != NULL)
        ask->wheel_next->wheel_link = ask->wheel_link;
    ask->wheel_link = NULL;
    asks->wheel_len--;
}

static void free_locked(struct tri_asks *asks, struct tri_ask *ask)
{
    assert(tri_lock_is_held(&asks->lock));
    ask->state = TRI_ASK_FREE;
    ask->free_next = asks->free_first;
    asks->free_first = ask;
}

int tri_asks_begin(struct tri_asks *asks, const struct tri_ask_spec *spec,
                   uint64_t *id_p)
{
    struct tri_ask *ask;
    int rc = 0;

    tri_lock_acquire(&asks->lock);
    ask = asks->free_first;
    if (ask != NULL)
        asks->free_first = ask->free_next;
    else
        rc = add_entry_locked(asks, &ask);
    if (rc == 0) {
        ask->state = TRI_ASK_PENDING;
        ask->generation++;
        ask->waiter = spec->waiter;
        ask->type = spec->type;
        ask->result_bytes = spec->type != NULL ? spec->type->result_bytes
                                               : spec->result_bytes;
        ask->callee_node = spec->callee_node;
        ask->deadline_ns = spec->deadline_ns;
        ask->actor_slot = spec->actor_slot;
        ask->actor_generation = spec->actor_generation;
        ask->invoke = spec->invoke;
        ask->then = spec->then;
        ask->arg = spec->arg;
        ask->result = NULL;
        ask->error = 0;
        if (spec->waiter == NULL)
            wheel_add_locked(asks, ask);
        *id_p = id_of(ask);
    }
    tri_lock_release(&asks->lock);
    return rc;
}

bool tri_asks_cancel(struct tri_asks *asks, uint64_t id)
{
    struct tri_ask *ask;

    tri_lock_acquire(&asks->lock);
    ask = find_locked(asks, id);
    if (ask != NULL) {
        wheel_remove_locked(asks, ask); /* an actor's */
        free_locked(asks, ask);
    }
    tri_lock_release(&asks->lock);
    return ask != NULL;
}

/* --- ends ------------------------------------------------------------------------ */

static bool fits(const struct tri_ask *ask, uint32_t type, size_t bytes)
{
    if (ask->type == NULL)
        return bytes == ask->result_bytes;
    return type == ask->type->hash && tri_type_result_fits(ask->type, bytes);
}

/*
 * The waiter may be gone as soon as done is set, so its worker is read before.
 */
static struct tri_worker *finish_waiter_locked(struct tri_asks *asks,
                                               struct tri_ask *ask, int error)
{
    struct tri_waiter *waiter = ask->waiter;
    struct tri_worker *worker = waiter->worker;

    assert(tri_lock_is_held(&asks->lock));
    waiter->error = error;
    free_locked(asks, ask);
    /* release: pairs with the acquire in tri_wait */
    atomic_store_explicit(&waiter->done, 1, memory_order_release);
    return worker;
}

static void finish_actor_locked(struct tri_asks *asks, struct tri_ask *ask,
                                int error, struct tri_message *result)
{
    struct tri_message *outcome = &ask->outcome;

    assert(tri_lock_is_held(&asks->lock));
    wheel_remove_locked(asks, ask);
    ask->state = TRI_ASK_DONE;
    ask->error = error;
    ask->result = result;
    outcome->kind = TRI_THEN;
    outcome->size_class = TRI_CLASS_EMBEDDED;
    outcome->generation = ask->actor_generation;
}

static bool finish(struct tri_asks *asks, uint64_t id, int error, uint32_t type,
                   const void *payload, size_t bytes,
                   struct tri_message *message)
{
    struct tri_worker *worker = NULL;
    struct tri_message *copy = message;
    struct tri_ask *ask;
    bool is_waiter = false;

    tri_lock_acquire(&asks->lock);
    ask = find_locked(asks, id);
    if (ask == NULL) {
        tri_lock_release(&asks->lock);
        return false;
    }
    if (error == 0 && !fits(ask, type, bytes))
        error = TROUPE_ETYPE;
    is_waiter = ask->waiter != NULL;
    if (error == 0 && copy == NULL && (!is_waiter || ask->waiter->take)) {
        copy = tri_message_alloc(bytes);
        if (copy == NULL)
            error = TROUPE_ENOMEM;
        else if (bytes > 0)
            memcpy(copy->payload, payload, bytes);
    }
    if (copy != NULL)
        copy->fixed_bytes = ask->result_bytes;
    if (is_waiter) {
        if (error == 0 && ask->waiter->take) {
            ask->waiter->message = copy;
            message = NULL;
        } else if (error == 0 && ask->waiter->result != NULL) {
            if (ask->result_bytes > 0)
                memcpy(ask->waiter->result, payload, ask->result_bytes);
        }
        worker = finish_waiter_locked(asks, ask, error);
    } else {
        finish_actor_locked(asks, ask, error, error == 0 ? copy : NULL);
        if (error == 0)
            message = NULL;
    }
    tri_lock_release(&asks->lock);
    if (message != NULL)
        tri_message_free(message);
    if (!is_waiter)
        asks->events.deliver(asks->events.context, ask);
    else if (worker != NULL)
        asks->events.wake(asks->events.context, worker);
    return true;
}

bool tri_asks_complete(struct tri_asks *asks, uint64_t id, int error,
                       uint32_t type, const void *payload, size_t bytes)
{
    return finish(asks, id, error, type, payload, bytes, NULL);
}

bool tri_asks_complete_message(struct tri_asks *asks, uint64_t id,
                               struct tri_message *message)
{
    if (finish(asks, id, message->value, message->type, message->payload,
               message->bytes, message))
        return true;
    tri_message_free(message);
    return false;
}

void tri_asks_fail_node(struct tri_asks *asks, uint64_t node, int error)
{
    uint32_t len;

    tri_lock_acquire(&asks->lock);
    len = asks->len;
    tri_lock_release(&asks->lock);
    for (uint32_t i = 0; i < len; i++) {
        struct tri_ask *ask = entry(asks, i);
        bool hit;
        uint64_t id;

        tri_lock_acquire(&asks->lock);
        hit = ask->state == TRI_ASK_PENDING && ask->callee_node == node;
        id = id_of(ask);
        tri_lock_release(&asks->lock);
        if (hit)
            finish(asks, id, error, 0, NULL, 0, NULL);
    }
}

/* An entry of this bucket that is due, or NULL. */
static struct tri_ask *due_locked(struct tri_asks *asks, uint64_t tick,
                                  uint64_t now_ns)
{
    struct tri_ask *ask = asks->wheel[tick % TRI_ASKS_WHEEL_LEN];

    assert(tri_lock_is_held(&asks->lock));
    while (ask != NULL && ask->deadline_ns > now_ns)
        ask = ask->wheel_next;
    return ask;
}

static void expire_bucket(struct tri_asks *asks, uint64_t tick, uint64_t now_ns)
{
    for (;;) {
        struct tri_ask *ask;
        uint64_t id = 0;

        tri_lock_acquire(&asks->lock);
        ask = due_locked(asks, tick, now_ns);
        if (ask != NULL)
            id = id_of(ask);
        tri_lock_release(&asks->lock);
        if (ask == NULL)
            return;
        finish(asks, id, TROUPE_ETIMEDOUT, 0, NULL, 0, NULL);
    }
}

/* The first tick from now on whose bucket holds anything. */
static uint64_t next_wake_locked(struct tri_asks *asks, uint64_t now_tick)
{
    assert(tri_lock_is_held(&asks->lock));
    if (asks->wheel_len == 0)
        return TRI_NS_NEVER;
    for (uint64_t i = 1; i < TRI_ASKS_WHEEL_LEN; i++)
        if (asks->wheel[(now_tick + i) % TRI_ASKS_WHEEL_LEN] != NULL)
            return (now_tick + i) * TICK_NS;
    return (now_tick + TRI_ASKS_WHEEL_LEN) * TICK_NS;
}

uint64_t tri_asks_expire(struct tri_asks *asks, uint64_t now_ns)
{
    uint64_t now_tick = now_ns / TICK_NS;
    uint64_t tick, wake;

    tri_lock_acquire(&asks->lock);
    tick = asks->wheel_tick;
    asks->wheel_tick = now_tick; /* first: what is added meanwhile is later */
    tri_lock_release(&asks->lock);
    if (now_tick - tick > TRI_ASKS_WHEEL_LEN)
        tick = now_tick - TRI_ASKS_WHEEL_LEN;
    for (; tick <= now_tick; tick++)
        expire_bucket(asks, tick, now_ns);
    tri_lock_acquire(&asks->lock);
    wake = next_wake_locked(asks, now_tick);
    atomic_store_explicit(&asks->next_wake_ns, wake, memory_order_seq_cst);
    tri_lock_release(&asks->lock);
    return wake;
}

void tri_asks_end(struct tri_asks *asks, struct tri_ask *ask)
{
    struct tri_message *result = ask->result;

    ask->result = NULL;
    if (result != NULL)
        tri_message_free(result);
    tri_lock_acquire(&asks->lock);
    free_locked(asks, ask);
    tri_lock_release(&asks->lock);
}
