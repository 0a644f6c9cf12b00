/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Messages find their actor, or the reason why not finds who sent them.
 */

#include <string.h>

#include "actor/runtime.h"
#include "base/clock.h"
#include "base/log.h"
#include "message/pool.h"

/* Payload of a TRI_REFUSED record. */
struct refusal {
    uint64_t to_node;
    uint32_t bytes;
    uint32_t reserved;
};

int tri_deliver(struct tri_runtime *runtime, struct tri_message *message,
                bool bounded)
{
    struct tri_actor *actor = tri_actor_find(&runtime->actors, message->slot,
                                             message->generation);

    return tri_likely(actor != NULL)
               ? tri_deliver_to(runtime, actor, message, bounded)
               : TROUPE_ENOACTOR;
}

int tri_actor_event(struct tri_runtime *runtime, uint32_t slot,
                    uint32_t generation, unsigned index, const void *payload,
                    size_t bytes)
{
    struct tri_message *message = tri_message_alloc(bytes);
    int rc;

    assert(index >= TROUPE_ON_DOWN && index <= UINT16_MAX);
    if (message == NULL)
        return TROUPE_ENOMEM;
    message->kind = TRI_EVENT;
    message->index = (uint16_t)index;
    message->slot = slot;
    message->generation = generation;
    message->sender.node = runtime->node;
    if (bytes > 0)
        memcpy(message->payload, payload, bytes);
    rc = tri_deliver(runtime, message, false);
    if (rc != 0)
        tri_message_free(message);
    return rc;
}

/* --- what could not be delivered ------------------------------------------ */

static void tell_sender(struct tri_runtime *runtime,
                        const troupe_dead_letter_t *letter)
{
    struct tri_message *message;

    if (letter->sender.slot == 0)
        return;
    message = tri_message_alloc(sizeof(*letter));
    if (message == NULL)
        return; /* the store has it */
    message->kind = TRI_UNDELIVERED;
    message->slot = letter->sender.slot;
    message->generation = letter->sender.generation;
    memcpy(message->payload, letter, sizeof(*letter));
    /* bounded: a sender that drowns in notices finds them in the store */
    if (tri_deliver(runtime, message, true) != 0)
        tri_message_free(message);
}

void tri_dead_letter(struct tri_runtime *runtime,
                     const troupe_dead_letter_t *letter)
{
    tri_debug("dead letter: %s", troupe_strerror(letter->reason));
    tri_dead_letters_add(&runtime->dead_letters, letter);
    tell_sender(runtime, letter);
}

static troupe_dead_letter_t letter_of(const struct tri_message *message,
                                      uint64_t to_node, int reason)
{
    return (troupe_dead_letter_t){
        .to = { to_node, message->slot, message->generation },
        .sender = message->sender,
        .reason = reason,
        .type = message->type,
        .index = message->index,
        .is_ask = message->kind == TRI_ASK,
        .bytes = message->bytes,
    };
}

static void refuse_remote(struct tri_runtime *runtime,
                          const struct tri_message *message, uint64_t to_node,
                          int reason)
{
    struct tri_peer *peer = tri_link_find(&runtime->link, message->sender.node);
    struct refusal refusal = { .to_node = to_node, .bytes = message->bytes };
    struct tri_record record;

    if (peer == NULL)
        return; /* nobody left to tell */
    tri_record_of_message(message, &record);
    record.kind = TRI_REFUSED;
    record.value = reason;
    record.total_bytes = sizeof(refusal);
    if (message->kind != TRI_ASK)
        record.ask = 0;
    tri_link_send(peer, &record, &refusal, TRI_SEND_FORCED);
}

/* A message for to_node that ends here. */
static void refuse_to(struct tri_runtime *runtime, struct tri_message *message,
                      uint64_t to_node, int reason)
{
    switch (message->kind) {
    case TRI_THEN:
        tri_asks_end(&runtime->asks, tri_ask_of_outcome(message));
        return; /* it was the message's memory */
    case TRI_RESOLVE:
    case TRI_SPAWN:
        tri_asks_complete(&runtime->asks, message->ask, reason, 0, NULL, 0);
        break;
    case TRI_MONITOR:
    case TRI_LINK:
        tri_watch_undelivered(runtime, message, to_node, reason);
        break;
    case TRI_MARKER:
        tri_message_free(message);
        tri_marker_met(runtime);
        return;
    case TRI_TELL:
    case TRI_ASK:
        if (message->sender.node != runtime->node) {
            refuse_remote(runtime, message, to_node, reason);
        } else {
            troupe_dead_letter_t letter = letter_of(message, to_node, reason);

            if (message->kind == TRI_ASK)
                tri_asks_complete(&runtime->asks, message->ask, reason, 0, NULL,
                                  0);
            tri_dead_letter(runtime, &letter);
        }
        break;
    default:
        break;
    }
    tri_message_free(message);
}

void tri_refuse(struct tri_runtime *runtime, struct tri_message *message,
                int reason)
{
    refuse_to(runtime, message, runtime->node, reason);
}

/* --- answers -------------------------------------------------------------- */

int tri_answer(struct tri_runtime *runtime, uint64_t node, uint64_t ask,
               int error, uint32_t type, uint16_t index, const void *payload,
               size_t bytes)
{
    struct tri_record record = {
        .kind = TRI_REPLY,
        .index = index,
        .type = type,
        .total_bytes = (uint32_t)bytes,
        .sender_node = runtime->node,
        .ask = ask,
        .value = error,
    };
    struct tri_peer *peer;

    if (node == runtime->node) {
        /* an answer that nobody waits for any more is no error */
        tri_asks_complete(&runtime->asks, ask, error, type, payload, bytes);
        return 0;
    }
    peer = tri_link_find(&runtime->link, node);
    return peer != NULL ? tri_link_send(peer, &record, payload, TRI_SEND_FORCED)
                        : TROUPE_ENODE;
}

void tri_resolve(struct tri_runtime *runtime, const struct tri_record *record,
                 const void *name, size_t name_len, uint32_t timeout_ms)
{
    struct tri_lookup lookup = {
        .node = record->sender_node,
        .ask = record->ask,
        .protocol = record->type,
    };
    troupe_ref_t ref;
    int rc = TROUPE_EPROTO;

    if (tri_name_is_valid(name, name_len)) {
        memcpy(lookup.text, name, name_len);
        lookup.deadline_ns = tri_deadline_ns((int)timeout_ms);
        rc = tri_names_find_or_wait(&runtime->names, &lookup, &ref);
    }
    if (rc == TROUPE_ENONAME)
        return; /* when it appears */
    tri_answer(runtime, lookup.node, lookup.ask, rc, 0, 0, &ref,
               rc == 0 ? sizeof(ref) : 0);
}

static void refused(struct tri_runtime *runtime,
                    const struct tri_record *record, const void *payload)
{
    struct refusal refusal;
    troupe_dead_letter_t letter;

    if (record->bytes != sizeof(refusal) || record->value >= 0)
        return;
    memcpy(&refusal, payload, sizeof(refusal));
    letter = (troupe_dead_letter_t){
        .to = { refusal.to_node, record->slot, record->generation },
        .sender = { record->sender_node, record->sender_slot,
                    record->sender_generation },
        .reason = record->value,
        .type = record->type,
        .index = record->index,
        .is_ask = record->ask != 0,
        .bytes = refusal.bytes,
    };
    if (letter.is_ask)
        tri_asks_complete(&runtime->asks, record->ask, record->value, 0, NULL,
                          0);
    tri_dead_letter(runtime, &letter);
}

/* --- what the link raises ------------------------------------------------- */

/* The time an ask has left, as its sender says. */
static uint32_t ms_left_of(int32_t value)
{
    return value > 0 ? (uint32_t)value : 0;
}

static uint32_t deadline_of(int32_t value)
{
    return tri_coarse_ms() + ms_left_of(value);
}

/* A header on the stack, for a message of which no more is known. */
static void header_init(struct tri_message *header,
                        const struct tri_record *record)
{
    *header = (struct tri_message){
        .bytes = record->total_bytes,
        .index = record->index,
        .kind = record->kind,
        .size_class = TRI_CLASS_EMBEDDED,
        .sender = { record->sender_node, record->sender_slot,
                    record->sender_generation },
        .ask = record->ask,
        .type = record->type,
        .slot = record->slot,
        .generation = record->generation,
    };
}

static void refuse_record(struct tri_runtime *runtime,
                          const struct tri_record *record, int reason)
{
    struct tri_message header;

    header_init(&header, record);
    if (record->kind == TRI_TELL || record->kind == TRI_ASK)
        tri_refuse(runtime, &header, reason);
    else if (record->kind == TRI_REPLY)
        tri_asks_complete(&runtime->asks, record->ask, reason, 0, NULL, 0);
    else if (record->kind == TRI_SPAWN)
        tri_answer(runtime, record->sender_node, record->ask, reason, 0, 0,
                   NULL, 0);
}

static bool is_bounded(const struct tri_message *message)
{
    return message->kind == TRI_TELL || message->kind == TRI_ASK;
}

/* wait_p: as tri_deliver_or_await. Stops and events get in beyond the limit. */
static int deliver_or_await(struct tri_runtime *runtime,
                            struct tri_message *message, bool *wait_p)
{
    *wait_p = false;
    return is_bounded(message)
               ? tri_deliver_or_await(runtime, message, wait_p)
               : tri_deliver(runtime, message, false);
}

/*
 * A message of another node. It is parked when its mailbox is full, so that its
 * sender is slowed down, and behind others that are.
 */
static __attribute__((noinline)) void
deliver_or_park(struct tri_runtime *runtime, struct tri_peer *peer,
                struct tri_message *message)
{
    bool park = tri_link_has_parked(peer, message->slot, message->generation);
    int rc = TROUPE_EFULL;

    if (!park)
        rc = deliver_or_await(runtime, message, &park);
    if (rc == TROUPE_EFULL && park)
        rc = tri_flow_park(peer, message);
    if (rc != 0)
        tri_refuse(runtime, message, rc);
}

static void deliver_from(struct tri_runtime *runtime, struct tri_peer *peer,
                         struct tri_message *message)
{
    struct tri_actor *actor = tri_actor_find(&runtime->actors, message->slot,
                                             message->generation);

    if (tri_likely(actor != NULL &&
                   atomic_load_explicit(&peer->parked_len,
                                        memory_order_relaxed) == 0)) {
        enum tri_push pushed = tri_mailbox_push(&actor->mailbox, message,
                                                message->kind != TRI_STOP);

        if (pushed == TRI_PUSH_OWNER)
            tri_schedule(&runtime->scheduler, actor);
        if (tri_likely(pushed != TRI_PUSH_FULL))
            return;
    }
    deliver_or_park(runtime, peer, message);
}

/* --- batches -------------------------------------------------------------- */

/* Longer ones would make the first message wait. */
#define BATCH_LEN_MAX 32u

/* They do not all fit: one by one, the oldest first. */
static __attribute__((noinline)) void
deliver_singly(struct tri_runtime *runtime, const struct tri_batch *batch)
{
    struct tri_message *message = batch->newest, *next, *oldest = NULL;

    batch->oldest->next = NULL;
    for (; message != NULL; message = next) {
        next = message->next;
        message->next = oldest;
        oldest = message;
    }
    for (message = oldest; message != NULL; message = next) {
        next = message->next;
        deliver_from(runtime, batch->peer, message);
    }
}

static void batch_end(struct tri_runtime *runtime)
{
    struct tri_batch batch = runtime->batch;
    enum tri_push pushed;

    if (batch.actor == NULL)
        return;
    runtime->batch.actor = NULL;
    pushed = tri_mailbox_push_chain(&batch.actor->mailbox, batch.newest,
                                    batch.oldest, batch.len);
    if (pushed == TRI_PUSH_OWNER)
        tri_schedule(&runtime->scheduler, batch.actor);
    else if (tri_unlikely(pushed == TRI_PUSH_FULL))
        deliver_singly(runtime, &batch);
}

static inline bool batch_add(struct tri_batch *batch, struct tri_peer *peer,
                             struct tri_message *message)
{
    if (batch->actor == NULL || batch->slot != message->slot ||
        batch->generation != message->generation || batch->peer != peer ||
        batch->len == BATCH_LEN_MAX)
        return false;
    message->next = batch->newest;
    batch->newest = message;
    batch->len++;
    return true;
}

/* As deliver_from, in time. */
static void deliver_soon(struct tri_runtime *runtime, struct tri_peer *peer,
                         struct tri_message *message)
{
    struct tri_batch *batch = &runtime->batch;
    struct tri_actor *actor;

    if (tri_likely(batch_add(batch, peer, message)))
        return;
    batch_end(runtime);
    actor = tri_actor_find(&runtime->actors, message->slot,
                           message->generation);
    if (tri_unlikely(actor == NULL ||
                     atomic_load_explicit(&peer->parked_len,
                                          memory_order_relaxed) != 0)) {
        deliver_from(runtime, peer, message);
        return;
    }
    *batch = (struct tri_batch){
        .actor = actor,
        .peer = peer,
        .newest = message,
        .oldest = message,
        .len = 1,
        .slot = message->slot,
        .generation = message->generation,
    };
}

static void on_settled(void *context)
{
    batch_end(context);
}

static void take_record(struct tri_runtime *runtime, struct tri_peer *peer,
                        const struct tri_record *record, const void *payload)
{
    struct tri_message *message;

    message = tri_message_of_record(record);
    if (tri_unlikely(message == NULL)) {
        refuse_record(runtime, record, TROUPE_ENOMEM);
        return;
    }
    if (record->bytes > 0)
        memcpy(message->payload, payload, record->bytes);
    if (record->kind == TRI_ASK)
        message->deadline_ms = deadline_of(record->value);
    if (tri_likely(record->kind != TRI_STOP)) {
        deliver_soon(runtime, peer, message);
        return;
    }
    batch_end(runtime);
    deliver_from(runtime, peer, message);
}

/* Errors are negative, also those that a stranger sends. */
static int error_of(int32_t value)
{
    return value <= 0 ? value : TROUPE_EPROTO;
}

/* Of layers that are not there while the node starts. */
static void above_record(struct tri_runtime *runtime, struct tri_peer *peer,
                         const struct tri_record *record, const void *payload)
{
    if (record->kind == TRI_VIEW && runtime->view_record != NULL)
        runtime->view_record(runtime, peer, record, payload);
    else if ((record->kind == TRI_COLL || record->kind == TRI_COLL_CONTROL) &&
             runtime->tensor_record != NULL)
        runtime->tensor_record(runtime, peer, record, payload);
    else if ((record->kind == TRI_STATE || record->kind == TRI_STATE_CONTROL) &&
             runtime->state_record != NULL)
        runtime->state_record(runtime, peer, record, payload);
}

static void on_record(void *context, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload)
{
    struct tri_runtime *runtime = context;

    switch (record->kind) {
    case TRI_TELL:
    case TRI_ASK:
    case TRI_STOP:
        take_record(runtime, peer, record, payload);
        break;
    case TRI_REPLY:
        if (tri_unlikely(!tri_asks_complete(
                &runtime->asks, record->ask, error_of(record->value),
                record->type, payload, record->bytes)))
            tri_spawn_unwanted(runtime, peer, record, payload);
        break;
    case TRI_SPAWN:
        tri_spawn_record(runtime, peer, record->ask, payload, record->bytes);
        break;
    case TRI_REFUSED:
        refused(runtime, record, payload);
        break;
    case TRI_RESOLVE:
        tri_resolve(runtime, record, payload, record->bytes,
                    ms_left_of(record->value));
        break;
    case TRI_DOWN:
        batch_end(runtime); /* it is behind what came before it */
        tri_watch_record(runtime, peer, record);
        break;
    case TRI_MONITOR:
    case TRI_DEMONITOR:
    case TRI_LINK:
    case TRI_UNLINK:
        tri_watch_record(runtime, peer, record);
        break;
    case TRI_DRAIN:
    case TRI_DRAIN_REPLIES:
    case TRI_DRAINED:
    case TRI_QUIESCE:
        batch_end(runtime); /* a drain is behind what came before it */
        if (runtime->group_record != NULL)
            runtime->group_record(runtime, peer, record, payload);
        break;
    default:
        above_record(runtime, peer, record, payload);
        break;
    }
}

static void on_message(void *context, struct tri_peer *peer,
                       struct tri_message *message)
{
    struct tri_runtime *runtime = context;

    if (message->kind == TRI_REPLY) {
        message->value = error_of(message->value);
        tri_asks_complete_message(&runtime->asks, message->ask, message);
        return;
    }
    if (message->kind == TRI_COLL && runtime->tensor_message != NULL) {
        runtime->tensor_message(runtime, peer, message);
        return;
    }
    if (message->kind == TRI_STATE && runtime->state_message != NULL) {
        runtime->state_message(runtime, peer, message);
        return;
    }
    if (message->kind == TRI_SPAWN)
        tri_spawn_record(runtime, peer, message->ask, message->payload,
                         message->bytes);
    if (message->kind != TRI_ASK && message->kind != TRI_TELL) {
        tri_message_free(message); /* no other kind is large */
        return;
    }
    if (message->kind == TRI_ASK) {
        message->deadline_ms = deadline_of(message->value);
        message->value = 0;
    }
    batch_end(runtime);
    deliver_from(runtime, peer, message);
}

static bool on_unpark(void *context, struct tri_peer *peer,
                      struct tri_message *message)
{
    struct tri_runtime *runtime = context;
    bool wait;
    int rc;

    if (tri_unlikely(message->kind == TRI_MARKER)) {
        tri_message_free(message);
        runtime->group_unparked(runtime, peer);
        return true;
    }
    rc = deliver_or_await(runtime, message, &wait);
    if (rc == TROUPE_EFULL && wait)
        return false;
    if (rc != 0)
        tri_refuse(runtime, message, rc);
    return true;
}

/* What the peer said goes with it. That an actor of it has ended is our own
 * word, and is said once: it is not lost for a mailbox that is full. */
static void on_orphaned(void *context, struct tri_message *message)
{
    struct tri_runtime *runtime = context;
    bool is_ours = message->kind == TRI_EVENT || message->kind == TRI_LINKED;

    if (!is_ours || tri_deliver(runtime, message, false) != 0)
        tri_message_free(message);
}

static void on_room(void *context)
{
    tri_room(context);
}

static void on_refused(void *context, struct tri_peer *peer,
                       const struct tri_record *record, int reason)
{
    (void)peer;
    refuse_record(context, record, reason);
}

static void on_undelivered(void *context, struct tri_peer *peer,
                           struct tri_message *message, int reason)
{
    refuse_to(context, message, peer->node, reason);
}

static void on_lost(void *context, struct tri_peer *peer,
                    const struct tri_record *record, int reason)
{
    struct tri_message header;

    header_init(&header, record);
    refuse_to(context, &header, peer->node, reason);
}

static void on_died(void *context, struct tri_peer *peer)
{
    struct tri_runtime *runtime = context;
    char label[TRI_PEER_LABEL_BYTES];

    /* Who stops does not listen any more, and cannot tell whether a member of
     * another job, which may stop at the same moment, has left or died. Who
     * leaves alone is that to the other ranks: they may leave, too. */
    if (tri_peer_has_left(peer))
        tri_info("%s has left", tri_peer_label(peer, label));
    else if (atomic_load(&runtime->stopping) &&
             (peer->rank < 0 || runtime->leaves_alone))
        tri_info("%s is gone", tri_peer_label(peer, label));
    else
        tri_warn("%s has died: %s", tri_peer_label(peer, label), peer->why);
    tri_actors_node_gone(runtime, peer->node, TROUPE_ENODE);
    tri_room(runtime); /* in vain */
    troupe_wake((troupe_from_t){ .context_ = runtime });
}

struct tri_link_events tri_delivery_link_events(struct tri_runtime *runtime)
{
    return (struct tri_link_events){
        .context = runtime,
        .record = on_record,
        .message = on_message,
        .unpark = on_unpark,
        .orphaned = on_orphaned,
        .room = on_room,
        .refused = on_refused,
        .undelivered = on_undelivered,
        .lost = on_lost,
        .died = on_died,
        .settled = on_settled,
    };
}

/* --- what the asks raise -------------------------------------------------- */

static void on_wake(void *context, struct tri_worker *worker)
{
    (void)context;
    if (worker != tri_worker_current())
        tri_worker_wake(worker);
}

static void on_outcome(void *context, struct tri_ask *ask)
{
    struct tri_runtime *runtime = context;
    struct tri_actor *actor = tri_actor_find(&runtime->actors, ask->actor_slot,
                                             ask->actor_generation);

    if (actor == NULL)
        tri_asks_end(&runtime->asks, ask);
    else if (tri_mailbox_push(&actor->mailbox, &ask->outcome, false) ==
             TRI_PUSH_OWNER)
        tri_schedule(&runtime->scheduler, actor);
}

struct tri_asks_events tri_delivery_asks_events(struct tri_runtime *runtime)
{
    return (struct tri_asks_events){
        .context = runtime,
        .wake = on_wake,
        .deliver = on_outcome,
    };
}
