/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Large messages that the receiver reads from the sender's memory.
 *
 *     sender                                receiver
 *     first in an outbox: PULL ->           reads it, part by part, a part
 *     nothing of the outbox follows         each poll
 *                        <- PULLED, 0       delivers it
 *     frees it, goes on
 *                        <- PULLED, error   drops what it has
 *     sends it and all later ones
 *     in pieces
 *
 * Invariants:
 *  1. At most one message of a lane is exposed, and it is the first of its
 *     outbox: order, back-pressure and the peer's death are the outbox's, and
 *     a refused message goes again before all others of the lane.
 *  2. `exposed` is the message's id while it may be read, and is cleared before
 *     the message is let go for any other reason than an answer. The receiver
 *     reads it after the message: a message taken back in the meantime, or one
 *     of another process that got the pid, is dropped.
 *  3. An answer passes the outboxes, so two nodes that pull from each other do
 *     not wait for each other. It needs no memory.
 *  4. While the data lane is not taken (flow.h), a message is pulled and its
 *     answer held back: no other follows.
 *  5. A message counts as sent with its first PULL or piece, not again when it
 *     goes in pieces afterwards, and as received when it is delivered, refused
 *     or found to be taken back.
 */

#include <string.h>

#include "link/link_internal.h"
#include "message/pool.h"

/* Read in one poll: about 100 us, in which other peers wait. */
#define PART_BYTES (1u << 20)

/* --- sender --------------------------------------------------------------- */

bool tri_pull_is_wanted_locked(struct tri_peer *peer,
                               const struct tri_outbox *outbox)
{
    const struct tri_message *message = outbox->first;
    struct tri_transport *transport = peer->transport;
    size_t bytes_min;

    assert(tri_lock_is_held(&peer->lock));
    if (tri_likely(message->bytes <= transport->record_bytes_max) ||
        outbox->offset > 0 || peer->no_pull ||
        transport->ops->pull_bytes_min == NULL)
        return false;
    if (message->kind != TRI_TELL && message->kind != TRI_ASK &&
        message->kind != TRI_REPLY)
        return false;
    bytes_min = transport->ops->pull_bytes_min(transport);
    return bytes_min > 0 && message->bytes >= bytes_min;
}

int tri_pull_expose_locked(struct tri_peer *peer, enum tri_lane lane)
{
    const struct tri_transport_ops *ops = peer->transport->ops;
    struct tri_outbox *outbox = &peer->outboxes[lane];
    struct tri_message *message = outbox->first;
    struct tri_pull pull = { .kind = message->kind };
    struct tri_span span;
    int rc;

    assert(tri_lock_is_held(&peer->lock) && !tri_pull_is_exposed(outbox));
    rc = ops->reserve(peer->channel, lane, sizeof(pull), &span);
    if (rc != 0)
        return rc;
    /* Not a number that another process may have at the same place. */
    pull.id = tri_mix64(peer->link->config.node + ++peer->exposures) | 1;
    pull.address = (uintptr_t)message->payload;
    pull.guard_address = (uintptr_t)&outbox->exposed;
    tri_peer_header(message, span.record);
    span.record->kind = TRI_PULL;
    span.record->bytes = sizeof(pull);
    memcpy(span.payload, &pull, sizeof(pull));
    if (!outbox->first_counted)
        tri_count_one(&peer->sent);
    outbox->first_counted = true;
    /* Seen by who sees the PULL. */
    atomic_store_explicit(&outbox->exposed, pull.id, memory_order_release);
    ops->commit(peer->channel);
    return 0;
}

static void settle_locked(struct tri_peer *peer, struct tri_outbox *outbox)
{
    uint64_t id = atomic_load_explicit(&outbox->exposed, memory_order_relaxed);

    /* Pairs with the release store of tri_pull_on_pulled. */
    if (tri_likely(id == 0) ||
        atomic_load_explicit(&outbox->pulled, memory_order_acquire) != id)
        return;
    atomic_store_explicit(&outbox->exposed, 0, memory_order_relaxed);
    if (atomic_load_explicit(&outbox->pulled_value, memory_order_relaxed) == 0)
        tri_message_free(tri_peer_pop_locked(peer, outbox));
    else
        peer->no_pull = true;
}

void tri_pull_settle_locked(struct tri_peer *peer)
{
    assert(tri_lock_is_held(&peer->lock));
    for (int lane = 0; lane < TRI_LANES; lane++)
        settle_locked(peer, &peer->outboxes[lane]);
}

void tri_pull_withdraw_locked(struct tri_peer *peer, struct tri_outbox *outbox)
{
    assert(tri_lock_is_held(&peer->lock));
    (void)peer;
    if (!tri_pull_is_exposed(outbox))
        return;
    atomic_store_explicit(&outbox->exposed, 0, memory_order_relaxed);
    /* Before the message's memory is used again. */
    tri_fence_full();
}

/* The outbox whose exposed message has this id, or NULL. */
static struct tri_outbox *exposed_as(struct tri_peer *peer, uint64_t id)
{
    for (int lane = 0; id != 0 && lane < TRI_LANES; lane++)
        if (atomic_load_explicit(&peer->outboxes[lane].exposed,
                                 memory_order_relaxed) == id)
            return &peer->outboxes[lane];
    return NULL;
}

void tri_pull_on_pulled(struct tri_peer *peer, const struct tri_record *record)
{
    struct tri_outbox *outbox = exposed_as(peer, record->ask);

    if (outbox == NULL)
        return; /* about a message that was taken back: too late */
    atomic_store_explicit(&outbox->pulled_value, record->value,
                          memory_order_relaxed);
    /* Pairs with the acquire load of settle_locked. */
    atomic_store_explicit(&outbox->pulled, record->ask, memory_order_release);
    tri_peer_kick(peer);
}

/* --- receiver ------------------------------------------------------------- */

/* An answer to an older PULL that was never written is of no use to anybody:
 * its sender has taken that message back. */
static void answer(struct tri_peer *peer, struct tri_pulling *pulling,
                   int value)
{
    atomic_store_explicit(&pulling->answer_value, value, memory_order_relaxed);
    /* Pairs with the acquire load of answer_locked. */
    atomic_store_explicit(&pulling->answer, pulling->pull.id,
                          memory_order_release);
    tri_peer_kick(peer);
}

static int answer_locked(struct tri_peer *peer, struct tri_pulling *pulling)
{
    const struct tri_transport_ops *ops = peer->transport->ops;
    struct tri_span span;
    uint64_t id;
    int rc;

    /* Pairs with the release store of answer. */
    id = atomic_load_explicit(&pulling->answer, memory_order_acquire);
    if (id == 0)
        return 0;
    rc = ops->reserve(peer->channel, TRI_LANE_CONTROL, 0, &span);
    if (rc != 0)
        return rc;
    *span.record = (struct tri_record){
        .kind = TRI_PULLED,
        .ask = id,
        .value = atomic_load_explicit(&pulling->answer_value,
                                      memory_order_relaxed),
    };
    ops->commit(peer->channel);
    /* Unless there is a new one, whose kick comes. */
    atomic_compare_exchange_strong_explicit(&pulling->answer, &id, 0,
                                            memory_order_relaxed,
                                            memory_order_relaxed);
    return 0;
}

int tri_pull_answer_locked(struct tri_peer *peer)
{
    int rc = 0;

    assert(tri_lock_is_held(&peer->lock));
    for (int lane = 0; rc == 0 && lane < TRI_LANES; lane++)
        rc = answer_locked(peer, &peer->pullings[lane]);
    return rc;
}

static bool is_sound(const struct tri_record *record,
                     const struct tri_pull *pull)
{
    uint8_t bits = 0;

    for (size_t i = 0; i < sizeof(pull->reserved); i++)
        bits |= pull->reserved[i];
    return record->bytes == sizeof(*pull) && pull->id != 0 && bits == 0 &&
           (pull->kind == TRI_TELL || pull->kind == TRI_ASK ||
            pull->kind == TRI_REPLY);
}

/* False: nothing is to be read. */
static bool begin(struct tri_link *link, struct tri_peer *peer,
                  const struct tri_record *record, const struct tri_pull *pull)
{
    struct tri_link_events *events = &link->config.events;
    enum tri_lane lane = tri_lane_of(pull->kind);
    struct tri_arrival *arrival = &peer->arrivals[lane];
    struct tri_record header = *record;
    bool fits = record->total_bytes <= link->config.message_bytes_max;

    tri_peer_begin(peer, lane);
    peer->pullings[lane].pull = *pull;
    header.kind = pull->kind;
    if (fits)
        arrival->partial = tri_message_of_record(&header);
    if (arrival->partial == NULL) {
        answer(peer, &peer->pullings[lane], 0); /* not to be sent again */
        events->refused(events->context, peer, &header,
                        fits ? TROUPE_ENOMEM : TROUPE_ETOOBIG);
        tri_count_one(&peer->received);
        return false;
    }
    arrival->partial_bytes = 0;
    peer->pullings[lane].active = true;
    return true;
}

/* The whole message was read, or cannot be. */
static void end(struct tri_link *link, struct tri_peer *peer,
                enum tri_lane lane, int error)
{
    struct tri_link_events *events = &link->config.events;
    struct tri_arrival *arrival = &peer->arrivals[lane];
    struct tri_message *message = arrival->partial;

    arrival->partial = NULL;
    peer->pullings[lane].active = false;
    if (error == 0) {
        events->message(events->context, peer, message);
        tri_count_one(&peer->received);
        /* Data follows when it is answered. */
        peer->pullings[lane].held = lane == TRI_LANE_DATA && peer->parking_full;
        if (!peer->pullings[lane].held)
            answer(peer, &peer->pullings[lane], 0);
        return;
    }
    tri_message_free(message);
    if (error == TROUPE_ENODE)
        tri_count_one(&peer->received); /* and nobody waits for an answer */
    else
        answer(peer, &peer->pullings[lane], error);
}

void tri_pull_answer_held(struct tri_peer *peer)
{
    struct tri_pulling *pulling = &peer->pullings[TRI_LANE_DATA];

    if (!pulling->held)
        return;
    pulling->held = false;
    answer(peer, pulling, 0);
}

/* Errors: as tri_transport_ops.pull; ENODE also when it was taken back. */
static int check_guard(struct tri_peer *peer, const struct tri_pull *pull)
{
    struct tri_transport *transport = peer->transport;
    uint64_t guard;
    int error = transport->ops->pull(transport, peer->node,
                                     pull->guard_address, &guard,
                                     sizeof(guard));

    return error == 0 && guard != pull->id ? TROUPE_ENODE : error;
}

bool tri_pull_on_pull(void *context, void *peer_,
                      const struct tri_record *record, const void *payload)
{
    struct tri_link *link = context;
    struct tri_peer *peer = peer_;
    struct tri_transport *transport = peer->transport;
    struct tri_pull pull = { .id = 0 };
    struct tri_arrival *arrival;
    enum tri_lane lane;
    uint32_t bytes;
    int error, guard;

    memcpy(&pull, payload, tri_min(record->bytes, sizeof(pull)));
    if (!is_sound(record, &pull)) {
        tri_link_garbage(link, "a malformed PULL");
        return true;
    }
    tri_peer_hear(peer);
    lane = tri_lane_of(pull.kind);
    arrival = &peer->arrivals[lane];
    if ((!peer->pullings[lane].active ||
         peer->pullings[lane].pull.id != pull.id) &&
        !begin(link, peer, record, &pull))
        return true;
    bytes = (uint32_t)tri_min(arrival->partial->bytes - arrival->partial_bytes,
                              PART_BYTES);
    error = transport->ops->pull(transport, peer->node,
                                 pull.address + arrival->partial_bytes,
                                 arrival->partial->payload +
                                     arrival->partial_bytes,
                                 bytes);
    arrival->partial_bytes += bytes;
    if (error == 0 && arrival->partial_bytes < arrival->partial->bytes)
        return false;
    /* Also after a failure: memory that was taken back may be gone. */
    guard = check_guard(peer, &pull);
    end(link, peer, lane, guard != 0 ? guard : error);
    return true;
}
