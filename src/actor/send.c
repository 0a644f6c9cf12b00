/* SPDX-License-Identifier: BSD-3-Clause */

/* The public calls that send: tell, ask, reply, forward. */

#include <string.h>

#include "actor/runtime.h"
#include "base/clock.h"
#include "message/pool.h"
#include "message/type.h"

static troupe_ref_t sender_of(const struct tri_runtime *runtime,
                              const troupe_self_t *self)
{
    const struct tri_actor *actor = self != NULL ? self->actor : NULL;

    if (actor == NULL)
        return (troupe_ref_t){ .node = runtime->node };
    return (troupe_ref_t){
        .node = runtime->node,
        .slot = actor->slot,
        .generation = tri_actor_generation(actor),
    };
}

static int check_size(const struct tri_runtime *runtime, size_t bytes)
{
    return bytes <= runtime->options.message_bytes_max ? 0 : TROUPE_ETOOBIG;
}

/* --- sending a message, wherever to --------------------------------------- */

/* What is to be sent, before it has memory. */
struct parcel {
    struct tri_record record;
    const void *payload;
    uint64_t to_node;
    uint32_t timeout_ms; /* asks */
};

static void parcel_init(struct parcel *parcel, enum tri_record_kind kind,
                        troupe_ref_t to, troupe_ref_t sender,
                        const void *payload, size_t bytes)
{
    parcel->record = (struct tri_record){
        .kind = (uint8_t)kind,
        .total_bytes = (uint32_t)bytes,
        .slot = to.slot,
        .generation = to.generation,
        .sender_node = sender.node,
        .sender_slot = sender.slot,
        .sender_generation = sender.generation,
    };
    parcel->payload = payload;
    parcel->timeout_ms = 0;
    parcel->to_node = to.node;
}

static troupe_ref_t parcel_to(const struct parcel *parcel)
{
    return (troupe_ref_t){ parcel->to_node, parcel->record.slot,
                           parcel->record.generation };
}

static void parcel_set_type(struct parcel *parcel, troupe_type_t *type)
{
    parcel->record.type = tri_type_hash(type);
    parcel->record.index = type->index;
}

static void parcel_set_ask(struct parcel *parcel, uint64_t ask,
                           uint32_t timeout_ms)
{
    parcel->record.ask = ask;
    parcel->timeout_ms = timeout_ms;
    parcel->record.value = (int32_t)timeout_ms;
}

static int send_local(struct tri_runtime *runtime, const struct parcel *parcel,
                      bool bounded)
{
    struct tri_message *message = tri_message_of_record(&parcel->record);
    int rc;

    if (tri_unlikely(message == NULL))
        return TROUPE_ENOMEM;
    message->value = 0;
    if (parcel->record.kind == TRI_ASK)
        message->deadline_ms = tri_coarse_ms() + parcel->timeout_ms;
    if (parcel->record.total_bytes > 0)
        memcpy(message->payload, parcel->payload, parcel->record.total_bytes);
    rc = tri_deliver(runtime, message, bounded);
    if (tri_unlikely(rc != 0))
        tri_message_free(message);
    return rc;
}

/* Who is no actor can wait for room. */
static enum tri_send_how how_of(const struct tri_runtime *runtime,
                                uint32_t sender_slot, bool bounded)
{
    if (!bounded)
        return TRI_SEND_FORCED;
    return sender_slot == 0 && runtime->options.send_timeout_ms > 0
               ? TRI_SEND_PATIENT
               : TRI_SEND_BOUNDED;
}

/* What this node asks itself. False: it is no such record. */
static bool request_here(struct tri_runtime *runtime,
                         const struct parcel *parcel)
{
    switch (parcel->record.kind) {
    case TRI_MONITOR:
        tri_watch_here(runtime, &parcel->record);
        return true;
    case TRI_RESOLVE:
        tri_resolve(runtime, &parcel->record, parcel->payload,
                    parcel->record.total_bytes, parcel->timeout_ms);
        return true;
    default:
        return false;
    }
}

static int send_parcel(struct tri_runtime *runtime, const struct parcel *parcel)
{
    bool bounded = parcel->record.kind != TRI_STOP;
    struct tri_peer *peer;

    if (parcel->to_node == runtime->node) {
        if (tri_unlikely(request_here(runtime, parcel)))
            return 0;
        return send_local(runtime, parcel, bounded);
    }
    peer = tri_link_find(&runtime->link, parcel->to_node);
    if (tri_unlikely(peer == NULL))
        return TROUPE_ENODE;
    if (bounded && tri_link_is_stopped(peer, parcel->record.slot,
                                       parcel->record.generation))
        return TROUPE_EFULL;
    return tri_link_send(peer, &parcel->record, parcel->payload,
                         how_of(runtime, parcel->record.sender_slot, bounded));
}

static int check_message(const struct tri_runtime *runtime, troupe_type_t *type,
                         const void *message, size_t bytes)
{
    if (runtime == NULL || type == NULL || (message == NULL && bytes > 0))
        return TROUPE_EINVAL;
    return check_size(runtime, bytes);
}

/* A tell on this node: most messages, so without a record in between. */
static int tell_here(struct tri_runtime *runtime, const troupe_self_t *self,
                     troupe_ref_t to, troupe_type_t *type, const void *content,
                     size_t bytes)
{
    struct tri_actor *actor = tri_actor_find(&runtime->actors, to.slot,
                                             to.generation);
    struct tri_message *message;
    int rc;

    if (tri_unlikely(actor == NULL))
        return TROUPE_ENOACTOR;
    message = tri_message_take(bytes);
    if (tri_unlikely(message == NULL))
        return TROUPE_ENOMEM;
    message->kind = TRI_TELL;
    message->index = type->index;
    message->type = tri_type_hash(type);
    message->ask = 0;
    message->slot = to.slot;
    message->generation = to.generation;
    message->value = 0;
    message->sender = sender_of(runtime, self);
    if (tri_likely(bytes == sizeof(uint64_t)))
        memcpy(message->payload, content, sizeof(uint64_t));
    else if (bytes > 0)
        memcpy(message->payload, content, bytes);
    rc = tri_deliver_to(runtime, actor, message, true);
    if (tri_unlikely(rc != 0))
        tri_message_give(message);
    return rc;
}

/* --- waiting for room ----------------------------------------------------- */

/* A handler must not wait: it would hold up its worker. */
static bool is_in_handler(const troupe_self_t *self)
{
    struct tri_worker *worker = tri_worker_current();

    return self != NULL || worker != NULL;
}

/* A send from a thread of the program found no room: waits for some, in a seat
 * of its own. */
static __attribute__((noinline)) int
wait_for_room(struct tri_runtime *runtime, const troupe_self_t *self,
              troupe_ref_t to, int (*attempt)(void *arg), void *arg)
{
    uint32_t timeout_ms = runtime->options.send_timeout_ms;
    struct tri_seat seat;
    int rc;

    if (is_in_handler(self) || timeout_ms == 0)
        return TROUPE_EFULL;
    tri_seat_take(runtime, &seat);
    rc = tri_send_waiting(&seat, to, attempt, arg,
                          tri_deadline_ns((int)timeout_ms));
    tri_seat_leave(&seat);
    return rc;
}

/* --- tell ----------------------------------------------------------------- */

static inline int tell(struct tri_runtime *runtime, const troupe_self_t *self,
                       troupe_ref_t to, troupe_type_t *type,
                       const void *message, size_t bytes)
{
    struct parcel parcel;

    if (tri_likely(to.node == runtime->node))
        return tell_here(runtime, self, to, type, message, bytes);
    parcel_init(&parcel, TRI_TELL, to, sender_of(runtime, self), message,
                bytes);
    parcel_set_type(&parcel, type);
    return send_parcel(runtime, &parcel);
}

/* The arguments of a tell that found no room. */
struct late_tell {
    struct tri_runtime *runtime;
    troupe_ref_t to;
    troupe_type_t *type;
    const void *message;
    size_t bytes;
};

static int tell_again(void *arg)
{
    struct late_tell *late = arg;

    return tell(late->runtime, NULL, late->to, late->type, late->message,
                late->bytes);
}

int troupe_tell(troupe_from_t from, troupe_ref_t to, troupe_type_t *type,
                const void *message, size_t bytes)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);
    int rc = check_message(runtime, type, message, bytes);

    if (tri_unlikely(rc != 0))
        return rc;
    rc = tell(runtime, self, to, type, message, bytes);
    if (tri_unlikely(rc == TROUPE_EFULL)) {
        struct late_tell late = { runtime, to, type, message, bytes };

        rc = wait_for_room(runtime, self, to, tell_again, &late);
    }
    return rc;
}

int troupe_stop_actor(troupe_from_t from, troupe_ref_t ref)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);
    struct parcel parcel;

    if (runtime == NULL)
        return TROUPE_EINVAL;
    parcel_init(&parcel, TRI_STOP, ref, sender_of(runtime, self), NULL, 0);
    return send_parcel(runtime, &parcel);
}

/* Moves a message to its receiver; on error it stays the caller's. */
static int send_message(struct tri_runtime *runtime,
                        struct tri_message *message, troupe_ref_t to,
                        bool bounded)
{
    struct tri_peer *peer;

    message->slot = to.slot;
    message->generation = to.generation;
    if (to.node == runtime->node)
        return tri_deliver(runtime, message, bounded);
    peer = tri_link_find(&runtime->link, to.node);
    if (peer == NULL)
        return TROUPE_ENODE;
    if (bounded && tri_link_is_stopped(peer, to.slot, to.generation))
        return TROUPE_EFULL;
    return tri_link_send_message(
        peer, message, how_of(runtime, message->sender.slot, bounded));
}

/* --- moving a message ----------------------------------------------------- */

struct late_send {
    struct tri_runtime *runtime;
    struct tri_message *message;
    troupe_ref_t to;
};

static int send_again(void *arg)
{
    struct late_send *late = arg;

    return send_message(late->runtime, late->message, late->to, true);
}

int tri_send_now(struct tri_runtime *runtime, struct tri_message *message,
                 troupe_ref_t to)
{
    message->kind = TRI_TELL;
    message->ask = 0;
    message->sender = sender_of(runtime, NULL);
    return send_message(runtime, message, to, true);
}

int troupe_send(troupe_from_t from, troupe_ref_t to, void *content)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);
    struct tri_message *message;
    int rc;

    if (runtime == NULL || content == NULL)
        return TROUPE_EINVAL;
    message = tri_message_of(content);
    message->kind = TRI_TELL; /* a kept ask is passed on as a tell */
    message->ask = 0;
    message->sender = sender_of(runtime, self);
    rc = send_message(runtime, message, to, true);
    if (tri_unlikely(rc == TROUPE_EFULL)) {
        struct late_send late = { runtime, message, to };

        rc = wait_for_room(runtime, self, to, send_again, &late);
    }
    return rc;
}

/* --- asking and waiting --------------------------------------------------- */

static bool is_done(void *arg)
{
    struct tri_waiter *waiter = arg;

    /* acquire: pairs with the release in finish_waiter_locked */
    return atomic_load_explicit(&waiter->done, memory_order_acquire) != 0;
}

/* 0 means the default. Negative: EINVAL. */
static int timeout_of(const struct tri_runtime *runtime, int timeout_ms,
                      uint32_t *timeout_ms_p)
{
    if (timeout_ms < 0)
        return TROUPE_EINVAL;
    *timeout_ms_p = timeout_ms == 0 ? runtime->options.ask_timeout_ms
                                    : (uint32_t)timeout_ms;
    return 0;
}

static int wait_for(struct tri_runtime *runtime, struct tri_seat *seat,
                 struct tri_waiter *waiter, uint64_t id, uint64_t deadline_ns)
{
    int rc = tri_wait(seat, is_done, waiter, deadline_ns);

    if (rc != 0 && tri_asks_cancel(&runtime->asks, id))
        return rc;
    return waiter->error; /* it ended, at the last moment perhaps */
}

/* Sends what was prepared, or built in place: then it is gone on success. */
static int send_request(struct tri_runtime *runtime,
                        const struct parcel *parcel,
                        struct tri_message *built)
{
    if (built == NULL)
        return send_parcel(runtime, parcel);
    built->kind = TRI_ASK;
    built->ask = parcel->record.ask;
    built->deadline_ms = tri_coarse_ms() + parcel->timeout_ms;
    built->sender = (troupe_ref_t){ .node = runtime->node };
    return send_message(runtime, built, parcel_to(parcel), true);
}

struct late_request {
    struct tri_runtime *runtime;
    struct parcel *parcel;
    struct tri_message *built;
    uint64_t deadline_ns;
};

/* The callee gets what is left of the time. */
static int request_again(void *arg)
{
    struct late_request *late = arg;

    parcel_set_ask(late->parcel, late->parcel->record.ask,
                   tri_ms_left(late->deadline_ns, tri_now_ns()));
    return send_request(late->runtime, late->parcel, late->built);
}

/* Sends a prepared request and waits in a seat of its own. */
static int ask_and_wait(struct tri_runtime *runtime, struct parcel *parcel,
                        struct tri_message *built, const troupe_type_t *type,
                        uint32_t result_bytes, struct tri_waiter *waiter,
                        uint32_t timeout_ms)
{
    struct tri_seat seat;
    struct tri_ask_spec spec = {
        .waiter = waiter,
        .type = type,
        .result_bytes = result_bytes,
        .callee_node = parcel->to_node,
        .deadline_ns = tri_deadline_ns((int)timeout_ms),
    };
    uint64_t id;
    int rc;

    tri_seat_take(runtime, &seat);
    waiter->worker = seat.guest;
    rc = tri_asks_begin(&runtime->asks, &spec, &id);
    if (rc == 0) {
        parcel_set_ask(parcel, id, timeout_ms);
        rc = send_request(runtime, parcel, built);
        if (rc == TROUPE_EFULL) {
            struct late_request late = { runtime, parcel, built,
                                         spec.deadline_ns };

            rc = tri_send_waiting(&seat, parcel_to(parcel), request_again,
                                  &late, spec.deadline_ns);
        }
        if (rc == 0) {
            built = NULL;
            rc = wait_for(runtime, &seat, waiter, id, spec.deadline_ns);
        } else if (!tri_asks_cancel(&runtime->asks, id)) {
            rc = waiter->error; /* the node died in between */
        }
    }
    if (built != NULL)
        tri_message_free(built); /* it was not sent */
    tri_seat_leave(&seat);
    return rc;
}

static int ask(troupe_from_t from, troupe_ref_t to, troupe_type_t *type,
               const void *message, size_t bytes, int timeout_ms,
               struct tri_waiter *waiter)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);
    struct parcel parcel;
    uint32_t ms;
    int rc = check_message(runtime, type, message, bytes);

    if (rc == 0 && is_in_handler(self))
        rc = TROUPE_ECONTEXT;
    if (rc == 0)
        rc = timeout_of(runtime, timeout_ms, &ms);
    if (rc != 0)
        return rc;
    parcel_init(&parcel, TRI_ASK, to, sender_of(runtime, self), message,
                bytes);
    parcel_set_type(&parcel, type);
    return ask_and_wait(runtime, &parcel, NULL, type, 0, waiter, ms);
}

int troupe_ask(troupe_from_t from, troupe_ref_t to, troupe_type_t *type,
               const void *message, size_t bytes, int timeout_ms,
               void *result_p)
{
    struct tri_waiter waiter = { .result = result_p };

    return ask(from, to, type, message, bytes, timeout_ms, &waiter);
}

int troupe_ask_take(troupe_from_t from, troupe_ref_t to, troupe_type_t *type,
                    const void *message, size_t bytes, int timeout_ms,
                    const void **result_p)
{
    struct tri_waiter waiter = { .take = true };
    int rc = ask(from, to, type, message, bytes, timeout_ms, &waiter);

    if (rc == 0)
        *result_p = waiter.message->payload;
    return rc;
}

int troupe_ask_send(troupe_from_t from, troupe_ref_t to, void *content,
                    int timeout_ms, void *result_p)
{
    struct tri_waiter waiter = { .result = result_p };
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);
    struct tri_message *built;
    struct parcel parcel;
    uint32_t ms;
    int rc;

    if (content == NULL)
        return TROUPE_EINVAL;
    built = tri_message_of(content);
    rc = runtime == NULL ? TROUPE_EINVAL : timeout_of(runtime, timeout_ms, &ms);
    if (rc == 0 && is_in_handler(self))
        rc = TROUPE_ECONTEXT;
    if (rc != 0) {
        tri_message_free(built);
        return rc;
    }
    parcel_init(&parcel, TRI_ASK, to, sender_of(runtime, self), NULL, 0);
    return ask_and_wait(runtime, &parcel, built, built->made_of, 0, &waiter,
                        ms);
}

int tri_ask_name(struct tri_runtime *runtime, uint64_t node, const char *name,
                 size_t name_len, uint32_t protocol, uint32_t timeout_ms,
                 troupe_ref_t *ref_p)
{
    struct tri_waiter waiter = { .result = ref_p };
    troupe_ref_t to = { .node = node };
    troupe_ref_t me = { .node = runtime->node };
    struct parcel parcel;
    int rc;

    if (is_in_handler(NULL))
        return TROUPE_ECONTEXT;
    parcel_init(&parcel, TRI_RESOLVE, to, me, name, name_len);
    parcel.record.type = protocol;
    rc = ask_and_wait(runtime, &parcel, NULL, NULL, sizeof(*ref_p), &waiter,
                      timeout_ms);
    return rc == TROUPE_ETIMEDOUT ? TROUPE_ENONAME : rc;
}

int tri_request_wait(struct tri_runtime *runtime,
                     const struct tri_request *request, int timeout_ms,
                     void *result_p, uint64_t *ask_p)
{
    struct tri_waiter waiter = { .result = result_p };
    troupe_ref_t me = { .node = runtime->node };
    struct parcel parcel;
    uint32_t ms;
    int rc = timeout_of(runtime, timeout_ms, &ms);

    if (rc == 0 && is_in_handler(NULL))
        rc = TROUPE_ECONTEXT;
    if (rc != 0)
        return rc;
    parcel_init(&parcel, request->kind, request->to, me, request->payload,
                request->bytes);
    parcel.record.index = request->index;
    rc = ask_and_wait(runtime, &parcel, NULL, NULL, request->result_bytes,
                      &waiter, ms);
    *ask_p = parcel.record.ask;
    return rc;
}

/* --- asking from an actor ------------------------------------------------- */

/* The control thread may be about to sleep longer than that. Pairs with its
 * fence in timeout_of. */
static void began(struct tri_runtime *runtime, uint64_t deadline_ns)
{
    if (deadline_ns > atomic_load_explicit(&runtime->asks.next_wake_ns,
                                           memory_order_relaxed))
        return;
    tri_fence_full();
    tri_control_touch(&runtime->scheduler);
}

int troupe_ask_then(troupe_self_t *self, troupe_ref_t to, troupe_type_t *type,
                    const void *message, size_t bytes, int timeout_ms,
                    troupe_invoke_fn_t invoke, troupe_any_fn_t then, void *arg)
{
    struct tri_runtime *runtime = self != NULL ? self->runtime : NULL;
    struct tri_ask_spec spec;
    struct parcel parcel;
    uint64_t id;
    uint32_t ms;
    int rc = check_message(runtime, type, message, bytes);

    if (rc == 0 && (invoke == NULL || then == NULL || self->actor == NULL))
        rc = TROUPE_EINVAL;
    if (rc == 0)
        rc = timeout_of(runtime, timeout_ms, &ms);
    if (rc != 0)
        return rc;
    parcel_init(&parcel, TRI_ASK, to, troupe_self_ref(self), message, bytes);
    parcel_set_type(&parcel, type);
    spec = (struct tri_ask_spec){
        .type = type,
        .callee_node = to.node,
        .deadline_ns = tri_deadline_ns((int)ms),
        .actor_slot = parcel.record.sender_slot,
        .actor_generation = parcel.record.sender_generation,
        .invoke = invoke,
        .then = then,
        .arg = arg,
    };
    rc = tri_asks_begin(&runtime->asks, &spec, &id);
    if (rc != 0)
        return rc;
    parcel_set_ask(&parcel, id, ms);
    rc = send_parcel(runtime, &parcel);
    if (rc != 0) {
        /* it may have ended by the death of the node: then `then` says so */
        return tri_asks_cancel(&runtime->asks, id) ? rc : 0;
    }
    began(runtime, spec.deadline_ns);
    return 0;
}

static int request_begin(troupe_self_t *self,
                         const struct tri_request *request, uint32_t ms,
                         troupe_invoke_fn_t invoke, troupe_any_fn_t then,
                         void *arg, uint64_t *ask_p)
{
    troupe_ref_t me = troupe_self_ref(self);
    struct tri_ask_spec spec = {
        .result_bytes = request->result_bytes,
        .callee_node = request->to.node,
        .deadline_ns = tri_deadline_ns((int)ms),
        .actor_slot = me.slot,
        .actor_generation = me.generation,
        .invoke = invoke,
        .then = then,
        .arg = arg,
    };
    int rc = tri_asks_begin(&self->runtime->asks, &spec, ask_p);

    if (rc == 0)
        began(self->runtime, spec.deadline_ns);
    return rc;
}

int tri_request_begin(troupe_self_t *self, const struct tri_request *request,
                      int timeout_ms, troupe_invoke_fn_t invoke,
                      troupe_any_fn_t then, void *arg, uint64_t *ask_p)
{
    uint32_t ms;
    int rc = timeout_of(self->runtime, timeout_ms, &ms);

    return rc == 0 ? request_begin(self, request, ms, invoke, then, arg, ask_p)
                   : rc;
}

int tri_request_then(troupe_self_t *self, const struct tri_request *request,
                     int timeout_ms, troupe_invoke_fn_t invoke,
                     troupe_any_fn_t then, void *arg)
{
    struct tri_runtime *runtime = self->runtime;
    struct parcel parcel;
    uint64_t id;
    uint32_t ms;
    int rc = timeout_of(runtime, timeout_ms, &ms);

    if (rc == 0)
        rc = request_begin(self, request, ms, invoke, then, arg, &id);
    if (rc != 0)
        return rc;
    parcel_init(&parcel, request->kind, request->to, troupe_self_ref(self),
                request->payload, request->bytes);
    parcel.record.index = request->index;
    parcel_set_ask(&parcel, id, ms);
    rc = send_parcel(runtime, &parcel);
    /* as in troupe_ask_then */
    return rc != 0 && tri_asks_cancel(&runtime->asks, id) ? rc : 0;
}

/* --- replying ------------------------------------------------------------- */

/* The ask being handled, if it still wants an answer. */
static bool has_open_ask(const troupe_self_t *self)
{
    return self != NULL && self->in_message && self->open.node != 0;
}

/* Takes the right to answer; the first answer counts. */
static troupe_token_t take_open_ask(troupe_self_t *self)
{
    troupe_token_t open = self->open;

    self->open.node = 0;
    return open;
}

static int answer(struct tri_runtime *runtime, troupe_token_t token, int error,
                  const void *result, size_t bytes)
{
    return tri_answer(runtime, token.node, token.ask, error, token.type,
                      token.index, result, bytes);
}

int troupe_reply(troupe_self_t *self, troupe_type_t *type, const void *result,
                 size_t bytes)
{
    int rc;

    if (!has_open_ask(self) || type == NULL || (result == NULL && bytes > 0))
        return TROUPE_EINVAL;
    if (tri_type_hash(type) != self->open.type)
        return TROUPE_ETYPE;
    rc = check_size(self->runtime, bytes);
    if (rc != 0)
        return rc;
    return answer(self->runtime, take_open_ask(self), 0, result, bytes);
}

/* On success the result is the library's. */
static int answer_with(struct tri_runtime *runtime, troupe_token_t token,
                       struct tri_message *reply)
{
    struct tri_peer *peer;

    if (reply->type != token.type)
        return TROUPE_ETYPE;
    reply->kind = TRI_REPLY;
    reply->ask = token.ask;
    reply->value = 0;
    reply->sender = (troupe_ref_t){ .node = runtime->node };
    if (token.node == runtime->node) {
        tri_asks_complete_message(&runtime->asks, reply->ask, reply);
        return 0;
    }
    peer = tri_link_find(&runtime->link, token.node);
    return peer != NULL ? tri_link_send_message(peer, reply, TRI_SEND_FORCED)
                        : TROUPE_ENODE;
}

int troupe_reply_send(troupe_self_t *self, void *result)
{
    int rc;

    if (!has_open_ask(self) || result == NULL)
        return TROUPE_EINVAL;
    rc = answer_with(self->runtime, self->open, tri_message_of(result));
    if (rc == 0)
        take_open_ask(self);
    return rc;
}

int troupe_reply_send_to(troupe_from_t from, troupe_token_t token, void *result)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);

    if (runtime == NULL || token.node == 0 || result == NULL)
        return TROUPE_EINVAL;
    return answer_with(runtime, token, tri_message_of(result));
}

int troupe_reply_error(troupe_self_t *self, int error)
{
    if (!has_open_ask(self) || error >= 0)
        return TROUPE_EINVAL;
    return answer(self->runtime, take_open_ask(self), error, NULL, 0);
}

troupe_token_t troupe_reply_later(troupe_self_t *self)
{
    return has_open_ask(self) ? take_open_ask(self) : (troupe_token_t){ 0 };
}

int troupe_reply_to(troupe_from_t from, troupe_token_t token,
                    troupe_type_t *type, const void *result, size_t bytes)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);

    if (runtime == NULL || token.node == 0 || type == NULL ||
        (result == NULL && bytes > 0))
        return TROUPE_EINVAL;
    if (tri_type_hash(type) != token.type)
        return TROUPE_ETYPE;
    if (check_size(runtime, bytes) != 0)
        return TROUPE_ETOOBIG;
    return answer(runtime, token, 0, result, bytes);
}

int troupe_reply_error_to(troupe_from_t from, troupe_token_t token, int error)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);

    if (runtime == NULL || token.node == 0 || error >= 0)
        return TROUPE_EINVAL;
    return answer(runtime, token, error, NULL, 0);
}

/* --- the message being handled -------------------------------------------- */

int troupe_forward(troupe_self_t *self, troupe_ref_t to)
{
    int rc;

    if (self == NULL || self->message == NULL || self->kept ||
        (self->kind != TRI_TELL &&
         (self->kind != TRI_ASK || self->open.node == 0)))
        return TROUPE_EINVAL;
    rc = send_message(self->runtime, self->message, to, true);
    if (rc != 0)
        return rc;
    self->message = NULL; /* the receiver's now */
    self->open.node = 0;
    return 0;
}

const void *troupe_keep(troupe_self_t *self)
{
    struct tri_message *message = self != NULL ? self->message : NULL;

    if (message == NULL || self->kept ||
        (self->kind != TRI_TELL && self->kind != TRI_ASK &&
         self->kind != TRI_THEN))
        return NULL;
    if (self->kind == TRI_THEN) {
        struct tri_ask *entry = tri_ask_of_outcome(message);
        struct tri_message *result = entry->result;

        entry->result = NULL;
        return result != NULL ? result->payload : NULL;
    }
    message->made_of =
        &self->actor->actor_class->protocol->types[message->index];
    message->fixed_bytes = message->made_of->bytes;
    self->kept = true;
    return message->payload;
}

size_t troupe_tail_bytes(const troupe_self_t *self)
{
    const struct tri_message *message = self->message;
    const troupe_protocol_t *protocol;

    if (message == NULL)
        return 0;
    if (self->kind == TRI_THEN) {
        const struct tri_ask *entry =
            tri_container_of(message, const struct tri_ask, outcome);

        return entry->result != NULL
                   ? entry->result->bytes - entry->result->fixed_bytes
                   : 0;
    }
    protocol = self->actor->actor_class->protocol;
    return message->index < protocol->types_len
               ? message->bytes - protocol->types[message->index].bytes
               : 0;
}

troupe_ref_t troupe_sender(const troupe_self_t *self)
{
    return self->message != NULL ? self->message->sender : (troupe_ref_t){ 0 };
}
