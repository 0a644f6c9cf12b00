/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * One turn of an actor, by its owner (mailbox.h).
 *
 *     cell free ──spawn──> started? ──on_start──> handling ──┬─> more: queued
 *                                                   │  ^     └─> IDLE
 *                                                   │  └──push───────┘
 *                              stop, exit, failure ─┘
 *                                      │
 *                          on_stop, generation + 1, strays refused, cell free
 *
 * A message carries the generation it was sent to. When that is not the
 * actor's (the sender was overtaken by its end), the message is a stray and
 * is refused here. A free cell can get strays, too: it is then run with no
 * class and only sorts them out.
 */

#include <stdlib.h>

#include "actor/runtime.h"
#include "base/log.h"
#include "message/pool.h"
#include "message/type.h"

/* --- taken messages ------------------------------------------------------- */

static bool is_urgent(const struct tri_message *message)
{
    return message->kind == TRI_THEN;
}

/*
 * Takes what is new. It comes newest first: walking it, each goes before the
 * last one walked, behind what was taken earlier. Outcomes of asks go before
 * all data.
 */
static void take(struct tri_actor *actor)
{
    struct tri_message *message, *next;
    struct tri_message *data = NULL, *data_last = NULL;
    struct tri_message *urgent = NULL, *urgent_last = NULL;
    uint32_t n;

    if (tri_unlikely(atomic_load_explicit(&actor->overflow,
                                          memory_order_relaxed) ==
                     TROUPE_DROP_OLD)) {
        tri_lock_acquire(&actor->take_lock);
        message = tri_mailbox_take(&actor->mailbox, &n);
        tri_lock_release(&actor->take_lock);
    } else {
        message = tri_mailbox_take(&actor->mailbox, &n);
    }
    /* counted anew: the mailbox's own count saturates */
    for (n = 0; message != NULL; message = next, n++) {
        next = message->next;
        if (tri_unlikely(is_urgent(message))) {
            message->next = urgent;
            urgent = message;
            if (urgent_last == NULL)
                urgent_last = message;
        } else {
            message->next = data;
            data = message;
            if (data_last == NULL)
                data_last = message;
        }
    }
    if (data != NULL) {
        if (actor->first == NULL)
            actor->first = data;
        else
            actor->last->next = data;
        actor->last = data_last;
    }
    if (tri_unlikely(urgent != NULL)) {
        struct tri_message **link = actor->last_urgent != NULL
                                        ? &actor->last_urgent->next
                                        : &actor->first;

        urgent_last->next = *link;
        *link = urgent;
        actor->last_urgent = urgent_last;
        if (urgent_last->next == NULL)
            actor->last = urgent_last;
    }
    actor->taken_len += n;
    if (n > 1) /* room is made when the turn ends: until then, senders count */
        atomic_store_explicit(&actor->mailbox.backlog, actor->taken_len,
                              memory_order_relaxed);
}

/* The oldest of what was taken. */
static struct tri_message *pop(struct tri_actor *actor)
{
    struct tri_message *message = actor->first;

    if (message == NULL)
        return NULL;
    actor->first = message->next;
    if (actor->first == NULL)
        actor->last = NULL;
    if (message == actor->last_urgent)
        actor->last_urgent = NULL;
    actor->taken_len--;
    return message;
}

/* --- one message ---------------------------------------------------------- */

static int receive(struct troupe_self *self, unsigned index,
                   const void *payload)
{
    struct tri_actor *actor = self->actor;

    return actor->actor_class->receive(self, actor->state, index, payload);
}

static bool is_understood(const struct tri_actor *actor,
                          const struct tri_message *message)
{
    troupe_protocol_t *protocol = actor->actor_class->protocol;
    troupe_type_t *type;

    if (message->index >= protocol->types_len)
        return false;
    type = &protocol->types[message->index];
    return tri_type_hash(type) == message->type &&
           tri_type_fits(type, message->bytes) &&
           (message->kind == TRI_ASK) == (type->result_fields != NULL);
}

static void log_misunderstood(const struct tri_actor *actor,
                              const struct tri_message *message)
{
    troupe_protocol_t *protocol = actor->actor_class->protocol;
    const char *name = actor->actor_class->name;
    const troupe_type_t *type;

    if (message->index >= protocol->types_len) {
        tri_warn("an actor of class %s got message %u, but protocol %s has %u",
                 name, message->index, protocol->name, protocol->types_len);
        return;
    }
    type = &protocol->types[message->index];
    if (is_understood(actor, message))
        tri_warn("class %s has no handler for %s", name, type->name);
    else
        tri_warn("an actor of class %s got message %u with another layout: "
                 "here it is %s %s of %u bytes, the sender's has %u",
                 name, message->index, type->name, type->fields, type->bytes,
                 message->bytes);
}

/*
 * What is left of a message after its handler. rc: what that returned. The
 * message itself is not looked at when it has another owner by now.
 */
static void finish_message(struct troupe_self *self, int rc)
{
    struct tri_message *message = self->message;

    self->message = NULL;
    self->in_message = false;
    if (rc == TROUPE_ETYPE && message != NULL && !self->kept &&
        (self->kind == TRI_TELL || self->open.node != 0)) {
        log_misunderstood(self->actor, message);
        tri_refuse(self->runtime, message, TROUPE_ETYPE);
        return;
    }
    if (self->open.node != 0)
        tri_answer(self->runtime, self->open.node, self->open.ask,
                   rc < 0 ? TROUPE_EFAILED : TROUPE_ENOREPLY, 0, 0, NULL, 0);
    if (self->kind == TRI_THEN)
        tri_asks_end(&self->runtime->asks, tri_ask_of_outcome(message));
    else if (message != NULL && !self->kept)
        tri_message_free(message);
}

static int handle_then(struct troupe_self *self, struct tri_message *message)
{
    struct tri_ask *ask = tri_ask_of_outcome(message);

    return ask->invoke(self, self->actor->state, ask->error,
                       ask->result != NULL ? ask->result->payload : NULL,
                       ask->arg, ask->then);
}

static int handle_event(struct troupe_self *self, struct tri_message *message)
{
    int rc;

    if (message->ask != 0 &&
        !tri_monitors_met(&self->runtime->monitors, message->ask))
        return 0; /* not wanted any more */
    rc = receive(self, message->index, message->payload);
    if (rc != TROUPE_ETYPE)
        return rc;
    /* It has no handler. */
    return message->kind == TRI_LINKED ? TROUPE_ELINKED : 0;
}

/* Returns what makes the actor fail: a negative code, or 0. */
static int handle(struct troupe_self *self, struct tri_message *message)
{
    struct tri_actor *actor = self->actor;
    int rc;

    self->message = message;
    self->in_message = true;
    self->kind = message->kind;
    self->kept = false;
    self->open.node = 0;
    if (message->kind == TRI_ASK)
        self->open = (troupe_token_t){
            .node = message->sender.node,
            .ask = message->ask,
            .type = message->type,
            .index = message->index,
        };
    switch (message->kind) {
    case TRI_TELL:
    case TRI_ASK:
        rc = tri_likely(is_understood(actor, message))
                 ? receive(self, message->index, message->payload)
                 : TROUPE_ETYPE;
        break;
    case TRI_THEN:
        rc = handle_then(self, message);
        break;
    case TRI_UNDELIVERED:
        rc = receive(self, TROUPE_ON_UNDELIVERED, message->payload);
        break;
    case TRI_EVENT:
    case TRI_LINKED:
        rc = handle_event(self, message);
        break;
    default: /* TRI_STOP */
        rc = 0;
        actor->stopping = true;
    }
    if (tri_likely(rc == 0 && self->kind == TRI_TELL &&
                   self->message == message && !self->kept)) {
        self->message = NULL;
        self->in_message = false;
        tri_message_give(message);
        return 0;
    }
    finish_message(self, rc);
    if (rc == TROUPE_ETYPE && (self->kind == TRI_TELL || self->kind == TRI_ASK))
        return 0; /* refused */
    return rc < 0 ? rc : 0;
}

/* --- life and end --------------------------------------------------------- */

static void stop_actor(struct troupe_self *self)
{
    struct tri_actor *actor = self->actor;
    int reason = actor->stop_reason;

    if (reason != 0)
        tri_warn("an actor of class %s%s%s failed: %s",
                 actor->actor_class->name, actor->name != NULL ? ", " : "",
                 actor->name != NULL ? actor->name->text : "",
                 troupe_strerror(reason));
    if (actor->name != NULL)
        tri_names_remove(&self->runtime->names, actor->name);
    actor->name = NULL;
    /* From here on nobody finds it: who sees what on_stop does sees it gone. */
    tri_actor_generation_advance(actor);
    if (actor->started)
        receive(self, TROUPE_ON_STOP, &reason);
    /* Behind all that it sent. */
    tri_watch_end(self->runtime, actor, reason);
    if (actor->state != actor->small_state)
        free(actor->state);
    actor->state = NULL;
    actor->actor_class = NULL;
    actor->started = false;
    actor->stopping = false;
    actor->stop_reason = 0;
}

/* Turns after which who waits is told of any room: senders that do not wait may
 * keep the mailbox above half for ever. */
#define AWAITED_TURNS 8u

static bool is_awaited(struct tri_actor *actor)
{
    /* seq_cst: see tri_mailbox_release */
    return tri_unlikely(atomic_load_explicit(&actor->awaited,
                                             memory_order_seq_cst) != 0);
}

/* The end of a turn, the room published: tells who waits when there is enough
 * of it, so that mailboxes are not stopped and started for each message. */
static __attribute__((noinline)) void tell_of_room(struct troupe_self *self,
                                                   struct tri_actor *actor)
{
    uint32_t limit = atomic_load_explicit(&actor->mailbox.limit,
                                          memory_order_relaxed);
    uint16_t turns = atomic_load_explicit(&actor->awaited,
                                          memory_order_relaxed);

    if (actor->taken_len > limit / 2 &&
        (turns < AWAITED_TURNS || actor->taken_len >= limit))
        atomic_store_explicit(&actor->awaited,
                              (uint16_t)tri_min(turns + 1u, AWAITED_TURNS),
                              memory_order_relaxed);
    else
        tri_room_in(self->runtime, actor);
}

/* A cell without an actor: refuses strays until none are left. */
static void sort_out(struct troupe_self *self)
{
    struct tri_actor *actor = self->actor;
    struct tri_message *message;

    do {
        if (!tri_mailbox_is_empty(&actor->mailbox))
            take(actor);
        while ((message = pop(actor)) != NULL)
            tri_refuse(self->runtime, message, TROUPE_ENOACTOR);
        atomic_store_explicit(&actor->mailbox.backlog, 0,
                              memory_order_relaxed);
    } while (!tri_mailbox_release(&actor->mailbox));
    if (is_awaited(actor)) /* for a message that will be refused */
        tri_room_in(self->runtime, actor);
}

static void end_actor(struct troupe_self *self)
{
    struct tri_actor *actor = self->actor;

    stop_actor(self);
    sort_out(self);
    tri_cells_put(&self->runtime->actors, tri_worker_cells(), actor);
}

static void start_actor(struct troupe_self *self)
{
    struct tri_actor *actor = self->actor;
    int rc;

    actor->started = true;
    rc = receive(self, TROUPE_ON_START, NULL);
    if (rc < 0) {
        actor->stopping = true;
        actor->stop_reason = rc;
    }
}

/*
 * Handles up to a turn's messages, of those that are there when the turn
 * begins: what an actor sends to itself, or gets in answer, waits until others
 * had their turn. Stops early when the actor ends.
 */
static void handle_some(struct troupe_self *self)
{
    struct tri_actor *actor = self->actor;
    uint32_t generation = atomic_load_explicit(&actor->generation,
                                               memory_order_relaxed);
    struct tri_message *message;

    if (!tri_mailbox_is_empty(&actor->mailbox))
        take(actor);
    for (unsigned left = TRI_TURN_LEN; left > 0 && !actor->stopping; left--) {
        int rc;

        message = pop(actor);
        if (message == NULL)
            return;
        if (tri_unlikely(message->generation != generation)) {
            tri_refuse(self->runtime, message, TROUPE_ENOACTOR);
            continue;
        }
        rc = handle(self, message);
        if (tri_unlikely(rc != 0)) {
            actor->stopping = true;
            actor->stop_reason = rc;
        }
    }
}

/* troupe_fail comes back here, out of a handler at any depth. */
static void turn(struct troupe_self *self)
{
    if (tri_unlikely(_setjmp(self->failed) != 0)) {
        if (self->in_message)
            finish_message(self, self->failure);
        self->actor->stopping = true;
        self->actor->stop_reason = self->failure;
        return;
    }
    /* stopping already: its spawn failed, nobody knows it */
    if (tri_unlikely(!self->actor->started) && !self->actor->stopping)
        start_actor(self);
    handle_some(self);
}

bool tri_actor_run(struct troupe_self *self, struct tri_actor *actor)
{
    self->actor = actor;
    self->message = NULL;
    if (tri_unlikely(actor->actor_class == NULL)) {
        sort_out(self);
        self->actor = NULL;
        return false;
    }
    turn(self);
    if (tri_unlikely(actor->stopping)) {
        end_actor(self);
        self->actor = NULL;
        return false;
    }
    self->actor = NULL;
    if (atomic_load_explicit(&actor->mailbox.backlog, memory_order_relaxed) !=
        actor->taken_len)
        atomic_store_explicit(&actor->mailbox.backlog, actor->taken_len,
                              memory_order_relaxed);
    if (is_awaited(actor))
        tell_of_room(self, actor);
    if (actor->first != NULL || !tri_mailbox_release(&actor->mailbox))
        return true;
    if (is_awaited(actor)) /* set behind the last look */
        tri_room_in(self->runtime, actor);
    return false;
}
