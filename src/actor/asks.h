/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_ASKS_H
#define TRI_ASKS_H

/*
 * Pending asks of this node: each ends exactly once, with a result, an error
 * or its deadline. An ask is named by slot and generation in 64 bits; what
 * arrives for one that has ended is dropped.
 *
 * Two kinds of asker. A *waiter* is a thread that waits and watches its own
 * deadline. An *actor* gets a TRI_THEN message; its deadlines are kept in a
 * hashed timing wheel (Varghese and Lauck 1987, scheme 6) that the control
 * thread turns.
 *
 *     free --begin--> pending --complete/expire/fail--> done --> free
 *                        +------------cancel------------------>
 *
 * A waiter's entry is free once it is done; an actor's entry lives on in
 * state done, it is the TRI_THEN message, until tri_asks_end.
 */

#include <troupe/message.h>

#include "base/lock.h"
#include "message/message.h"

#define TRI_ASKS_WHEEL_LEN 1024u
#define TRI_ASKS_TICK_MS 4u

/* A thread that waits; on its stack. */
struct tri_waiter {
    void *result;        /* where a small result goes; NULL: not wanted */
    bool take;           /* the whole result as a message instead */
    struct tri_message *message; /* the result, if take */
    int error;
    _Atomic uint32_t done; /* written last */
    struct tri_worker *worker; /* to be woken; NULL: look yourself */
};

enum tri_ask_state {
    TRI_ASK_FREE,
    TRI_ASK_PENDING,
    TRI_ASK_DONE,
};

struct tri_ask {
    enum tri_ask_state state;
    uint32_t generation;
    struct tri_waiter *waiter; /* NULL: an actor asks */
    const troupe_type_t *type; /* NULL: the result's bytes are the node's own */
    uint32_t result_bytes;
    uint64_t callee_node;
    uint64_t deadline_ns;
    struct tri_ask *wheel_next, **wheel_link; /* NULL link: not in it */
    struct tri_ask *free_next;

    /* an actor's */
    uint32_t actor_slot;
    uint32_t actor_generation;
    troupe_invoke_fn_t invoke;
    troupe_any_fn_t then;
    void *arg;
    struct tri_message *result;
    int error;
    struct tri_message outcome; /* TRI_THEN, embedded: never lacks memory */
};

struct tri_asks_events {
    void *context;
    /* Wakes a waiter's thread. Called without the lock. */
    void (*wake)(void *context, struct tri_worker *worker);
    /* Sends entry->outcome to its actor. Called without the lock. */
    void (*deliver)(void *context, struct tri_ask *ask);
};

struct tri_asks {
    struct tri_asks_events events;
    struct tri_lock lock;
    struct tri_ask **blocks; /* of TRI_ASKS_PER_BLOCK */
    uint32_t asks_max;
    uint32_t len; /* entries ever used */
    struct tri_ask *free_first;
    struct tri_ask *wheel[TRI_ASKS_WHEEL_LEN];
    uint64_t wheel_tick; /* turned up to here */
    uint32_t wheel_len;
    _Atomic uint64_t next_wake_ns; /* no deadline of an actor's ask before */
};

int tri_asks_init(struct tri_asks *asks, uint32_t asks_max,
                  const struct tri_asks_events *events);
void tri_asks_fini(struct tri_asks *asks);

/* What a new ask needs; either waiter or the actor's fields. */
struct tri_ask_spec {
    struct tri_waiter *waiter;
    const troupe_type_t *type;
    uint32_t result_bytes; /* when type is NULL */
    uint64_t callee_node;
    uint64_t deadline_ns;
    uint32_t actor_slot;
    uint32_t actor_generation;
    troupe_invoke_fn_t invoke;
    troupe_any_fn_t then;
    void *arg;
};

/* Errors: ELIMIT (asks_max), ENOMEM. Any thread. */
int tri_asks_begin(struct tri_asks *asks, const struct tri_ask_spec *spec,
                   uint64_t *id_p);

/* The asker gives up, or the request could not be sent. False: it has ended
 * already; the waiter is done, or the actor's outcome is on its way. */
bool tri_asks_cancel(struct tri_asks *asks, uint64_t id);

/*
 * A reply arrived: an error, or a result, of which the payload is copied
 * (complete) or the message is owned (complete_message). True when it was
 * waited for. Any thread.
 */
bool tri_asks_complete(struct tri_asks *asks, uint64_t id, int error,
                       uint32_t type, const void *payload, size_t bytes);
bool tri_asks_complete_message(struct tri_asks *asks, uint64_t id,
                               struct tri_message *message);

/* Everything asked of a dead node fails. Any thread. */
void tri_asks_fail_node(struct tri_asks *asks, uint64_t node, int error);

/* Ends what is due. Returns when to come again. Control thread. */
uint64_t tri_asks_expire(struct tri_asks *asks, uint64_t now_ns);

/* The actor's entry behind a TRI_THEN message; then its end. */
static inline struct tri_ask *tri_ask_of_outcome(struct tri_message *outcome)
{
    return tri_container_of(outcome, struct tri_ask, outcome);
}

void tri_asks_end(struct tri_asks *asks, struct tri_ask *ask);

#endif
