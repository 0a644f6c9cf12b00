/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Large messages that the receiver reads from the sender's memory.
 *
 *     sender                                receiver
 *     first in the outbox: PULL ->          reads it, part by part, a part
 *     nothing of the outbox follows         each poll; nothing else of this
 *                                           sender is delivered meanwhile
 *                        <- PULLED, 0       delivers it
 *     frees it, goes on
 *                        <- PULLED, error   drops what it has
 *     sends it and all later ones
 *     in pieces
 *
 * Invariants:
 *  1. At most one message of a peer is exposed, and it is the first of the
 *     outbox: order, back-pressure (outbox_bytes) and the peer's death are the
 *     outbox's, and a refused message goes again before all others.
 *  2. `exposed` is the message's id while it may be read, and is cleared before
 *     the message is let go for any other reason than an answer. The receiver
 *     reads it after the message: a message taken back in the meantime, or one
 *     of another process that got the pid, is dropped.
 *  3. An answer passes the outbox, so two nodes that pull from each other do
 *     not wait for each other. It needs no memory.
 *  4. A message counts as sent with its first PULL or piece, not again when it
 *     goes in pieces afterwards, and as received when it is delivered, refused
 *     or found to be taken back.
 */

#include <string.h>

#include "link/link_internal.h"
#include "message/pool.h"

/* Read in one poll: about 100 us, in which other peers wait. */
#define PART_BYTES (1u << 20)

/* --- sender ----------------------------------------------------------------- */

bool tri_pull_is_wanted_locked(struct tri_peer *peer)
{
    const struct tri_message *message = peer->outbox_first;
    struct tri_transport *transport = peer->transport;
    size_t bytes_min;

    assert(tri_lock_is_held(&peer->lock));
    if (tri_likely(message->bytes <= transport->record_bytes_max) ||
        peer->outbox_offset > 0 || peer->no_pull ||
        transport->ops->pull_bytes_min == NULL)
        return false;
    if (message->kind != TRI_TELL && message->kind != TRI_ASK &&
        message->kind != TRI_REPLY)
        return false;
    bytes_min = transport->ops->pull_bytes_min(transport);
    return bytes_min > 0 && message->bytes >= bytes_min;
}

int tri_pull_expose_locked(struct tri_peer *peer)
{
    const struct tri_transport_ops *ops = peer->transport->ops;
    struct tri_message *message = peer->outbox_first;
    struct tri_pull pull = { .kind = message->kind };
    struct tri_span span;
    int rc;

    assert(tri_lock_is_held(&peer->lock) && !tri_pull_is_exposed(peer));
    rc = ops->reserve(peer->channel, TRI_LANE_DATA, sizeof(pull), &span);
    if (rc != 0)
        return rc;
    /* Not a number that another process may have at the same place. */
    pull.id = tri_mix64(peer->link->config.node + ++peer->exposures) | 1;
    pull.address = (uintptr_t)message->payload;
    pull.guard_address = (uintptr_t)&peer->exposed;
    tri_peer_header(message, span.record);
    span.record->kind = TRI_PULL;
    span.record->bytes = sizeof(pull);
    memcpy(span.payload, &pull, sizeof(pull));
    if (!peer->first_counted)
        tri_count_one(&peer->sent);
    peer->first_counted = true;
    /* Seen by who sees the PULL. */
    atomic_store_explicit(&peer->exposed, pull.id, memory_order_release);
    ops->commit(peer->channel);
    return 0;
}

void tri_pull_settle_locked(struct tri_peer *peer)
{
    uint64_t id = atomic_load_explicit(&peer->exposed, memory_order_relaxed);

    assert(tri_lock_is_held(&peer->lock));
    /* Pairs with the release store of tri_pull_on_pulled. */
    if (id == 0 ||
        atomic_load_explicit(&peer->pulled, memory_order_acquire) != id)
        return;
    atomic_store_explicit(&peer->exposed, 0, memory_order_relaxed);
    if (atomic_load_explicit(&peer->pulled_value, memory_order_relaxed) == 0)
        tri_message_free(tri_peer_pop_outbox_locked(peer));
    else
        peer->no_pull = true;
}

void tri_pull_withdraw_locked(struct tri_peer *peer)
{
    assert(tri_lock_is_held(&peer->lock));
    if (!tri_pull_is_exposed(peer))
        return;
    atomic_store_explicit(&peer->exposed, 0, memory_order_relaxed);
    /* Before the message's memory is used again. */
    tri_fence_full();
}

void tri_pull_on_pulled(struct tri_peer *peer, const struct tri_record *record)
{
    /* An answer about a message that was taken back comes too late. */
    if (record->ask == 0 ||
        record->ask !=
            atomic_load_explicit(&peer->exposed, memory_order_relaxed))
        return;
    atomic_store_explicit(&peer->pulled_value, record->value,
                          memory_order_relaxed);
    /* Pairs with the acquire load of tri_pull_settle_locked. */
    atomic_store_explicit(&peer->pulled, record->ask, memory_order_release);
    tri_peer_kick(peer);
}

/* --- receiver --------------------------------------------------------------- */

/* An answer to an older PULL that was never written is of no use to anybody:
 * its sender has taken that message back. */
static void answer(struct tri_peer *peer, uint64_t id, int value)
{
    atomic_store_explicit(&peer->answer_value, value, memory_order_relaxed);
    /* Pairs with the acquire load of tri_pull_answer_locked. */
    atomic_store_explicit(&peer->answer, id, memory_order_release);
    tri_peer_kick(peer);
}

int tri_pull_answer_locked(struct tri_peer *peer)
{
    const struct tri_transport_ops *ops = peer->transport->ops;
    struct tri_span span;
    uint64_t id;
    int rc;

    assert(tri_lock_is_held(&peer->lock));
    /* Pairs with the release store of answer. */
    id = atomic_load_explicit(&peer->answer, memory_order_acquire);
    if (id == 0)
        return 0;
    rc = ops->reserve(peer->channel, TRI_LANE_CONTROL, 0, &span);
    if (rc != 0)
        return rc;
    *span.record = (struct tri_record){
        .kind = TRI_PULLED,
        .ask = id,
        .value = atomic_load_explicit(&peer->answer_value,
                                      memory_order_relaxed),
    };
    ops->commit(peer->channel);
    /* Unless there is a new one, whose kick comes. */
    atomic_compare_exchange_strong_explicit(&peer->answer, &id, 0,
                                            memory_order_relaxed,
                                            memory_order_relaxed);
    return 0;
}

static bool is_sound(const struct tri_pull *pull)
{
    uint8_t bits = 0;

    for (size_t i = 0; i < sizeof(pull->reserved); i++)
        bits |= pull->reserved[i];
    return pull->id != 0 && bits == 0 &&
           (pull->kind == TRI_TELL || pull->kind == TRI_ASK ||
            pull->kind == TRI_REPLY);
}

/* False: nothing is to be read. */
static bool begin(struct tri_link *link, struct tri_peer *peer,
                  const struct tri_record *record, const void *payload)
{
    struct tri_link_events *events = &link->config.events;
    struct tri_record header = *record;
    bool fits = record->total_bytes <= link->config.message_bytes_max;

    memcpy(&peer->pull, payload, tri_min(record->bytes, sizeof(peer->pull)));
    if (record->bytes != sizeof(peer->pull) || !is_sound(&peer->pull)) {
        tri_link_garbage(link, "a malformed PULL");
        return false;
    }
    tri_peer_begin(peer);
    header.kind = peer->pull.kind;
    if (fits)
        peer->partial = tri_message_of_record(&header);
    if (peer->partial == NULL) {
        tri_count_one(&peer->received);
        answer(peer, peer->pull.id, 0); /* it is not to be sent again */
        events->refused(events->context, peer, &header,
                        fits ? TROUPE_ENOMEM : TROUPE_ETOOBIG);
        return false;
    }
    peer->partial_bytes = 0;
    peer->pulling = true;
    return true;
}

/* The whole message was read, or cannot be. */
static void end(struct tri_link *link, struct tri_peer *peer, int error)
{
    struct tri_link_events *events = &link->config.events;
    struct tri_message *message = peer->partial;

    peer->partial = NULL;
    peer->pulling = false;
    if (error == 0) {
        tri_count_one(&peer->received);
        answer(peer, peer->pull.id, 0);
        events->message(events->context, peer, message);
        return;
    }
    tri_message_free(message);
    if (error == TROUPE_ENODE)
        tri_count_one(&peer->received); /* and nobody waits for an answer */
    else
        answer(peer, peer->pull.id, error);
}

/* Errors: as tri_transport_ops.pull; ENODE also when it was taken back. */
static int check_guard(struct tri_peer *peer)
{
    struct tri_transport *transport = peer->transport;
    uint64_t guard;
    int error = transport->ops->pull(transport, peer->node,
                                     peer->pull.guard_address, &guard,
                                     sizeof(guard));

    return error == 0 && guard != peer->pull.id ? TROUPE_ENODE : error;
}

bool tri_pull_on_pull(void *context, void *peer_,
                      const struct tri_record *record, const void *payload)
{
    struct tri_link *link = context;
    struct tri_peer *peer = peer_;
    struct tri_transport *transport = peer->transport;
    uint32_t bytes;
    int error, guard;

    if (!peer->pulling && !begin(link, peer, record, payload))
        return true;
    bytes = (uint32_t)tri_min(peer->partial->bytes - peer->partial_bytes,
                              PART_BYTES);
    error = transport->ops->pull(transport, peer->node,
                                 peer->pull.address + peer->partial_bytes,
                                 peer->partial->payload + peer->partial_bytes,
                                 bytes);
    peer->partial_bytes += bytes;
    if (error == 0 && peer->partial_bytes < peer->partial->bytes)
        return false;
    /* Also after a failure: memory that was taken back may be gone. */
    guard = check_guard(peer);
    end(link, peer, guard != 0 ? guard : error);
    return true;
}
