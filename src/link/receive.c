/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What arrives from a peer: records, and messages in pieces, one at a time on
 * each lane. All with the poll lock held.
 */

#include <string.h>

#include "link/link_internal.h"
#include "message/pool.h"

static void give_up(struct tri_peer *peer, int lane)
{
    struct tri_arrival *arrival = &peer->arrivals[lane];

    if (arrival->partial != NULL)
        tri_message_free(arrival->partial);
    arrival->partial = NULL;
    arrival->skip_bytes = 0;
    peer->pullings[lane].active = false;
}

void tri_peer_begin_anew(struct tri_peer *peer, enum tri_lane lane)
{
    if (peer->arrivals[lane].partial != NULL)
        tri_link_garbage(peer->link, "a message broke off");
    give_up(peer, lane);
}

/*
 * After it was handed up: who reads the count finds what became of the message,
 * in a mailbox or refused. Control does not count: it says nothing about what
 * actors do, and the counting itself travels there.
 */
static void count_received(struct tri_peer *peer, unsigned lane)
{
    struct tri_link *link = peer->link;

    if (tri_unlikely(lane == TRI_LANE_CONTROL)) {
        tri_peer_hear(peer);
        return;
    }
    if (tri_unlikely(link->recent != peer)) {
        tri_link_settle(link);
        link->recent = peer;
    }
    link->recent_len++;
}

void tri_link_settle(struct tri_link *link)
{
    struct tri_link_events *events = &link->config.events;
    struct tri_peer *peer = link->recent;

    if (link->recent_len == 0)
        return;
    if (events->settled != NULL)
        events->settled(events->context);
    /* one writer: the poll lock; release: as in tri_count_one */
    atomic_store_explicit(
        &peer->received,
        atomic_load_explicit(&peer->received, memory_order_relaxed) +
            link->recent_len,
        memory_order_release);
    link->recent_len = 0;
}

/* The first piece of a large message. */
static void begin_pieces(struct tri_link *link, struct tri_peer *peer,
                         enum tri_lane lane, const struct tri_record *record,
                         const void *payload)
{
    struct tri_link_events *events = &link->config.events;
    struct tri_arrival *arrival = &peer->arrivals[lane];

    if (record->total_bytes <= link->config.message_bytes_max)
        arrival->partial = tri_message_of_record(record);
    if (arrival->partial == NULL) {
        arrival->skip_bytes = record->total_bytes - record->bytes;
        events->refused(events->context, peer, record,
                        record->total_bytes > link->config.message_bytes_max
                            ? TROUPE_ETOOBIG
                            : TROUPE_ENOMEM);
        count_received(peer, lane);
        return;
    }
    memcpy(arrival->partial->payload, payload, record->bytes);
    arrival->partial_bytes = record->bytes;
}

static void on_more(struct tri_link *link, struct tri_peer *peer,
                    const struct tri_record *record, const void *payload)
{
    struct tri_link_events *events = &link->config.events;
    enum tri_lane lane = tri_lane_of_more(record);
    struct tri_arrival *arrival = &peer->arrivals[lane];
    struct tri_message *message = arrival->partial;

    if (arrival->skip_bytes > 0) {
        arrival->skip_bytes -= (uint32_t)tri_min(record->bytes,
                                                 arrival->skip_bytes);
        return;
    }
    if (message == NULL || peer->pullings[lane].active ||
        record->bytes > message->bytes - arrival->partial_bytes) {
        tri_link_garbage(link, "a piece of a message that did not begin");
        return;
    }
    memcpy(message->payload + arrival->partial_bytes, payload, record->bytes);
    arrival->partial_bytes += record->bytes;
    if (arrival->partial_bytes == message->bytes) {
        arrival->partial = NULL;
        events->message(events->context, peer, message);
        count_received(peer, lane);
    }
}

static void on_bye(struct tri_peer *peer, const struct tri_record *record)
{
    if (record->index >= TRI_LANES)
        return;
    atomic_fetch_or_explicit(&peer->left, 1u << record->index,
                             memory_order_relaxed);
    count_received(peer, record->index);
}

/* Records of the link's own. False: it is none of them. */
static __attribute__((noinline)) bool
on_own(struct tri_link *link, struct tri_peer *peer,
       const struct tri_record *record, const void *payload)
{
    tri_peer_hear(peer);
    switch (record->kind) {
    case TRI_MORE:
        on_more(link, peer, record, payload);
        return true;
    case TRI_PULLED:
        tri_pull_on_pulled(peer, record);
        return true;
    case TRI_PULL:
        tri_link_garbage(link, "a PULL over a transport that has none");
        return true;
    case TRI_BYE:
        on_bye(peer, record);
        return true;
    case TRI_MAILBOX_STOP:
    case TRI_MAILBOX_GO:
        tri_flow_on_mailbox(peer, record);
        return true;
    default:
        return false;
    }
}

bool tri_peer_on_record(void *context, void *peer_, enum tri_lane lane,
                        const struct tri_record *record, const void *payload)
{
    struct tri_link *link = context;
    struct tri_peer *peer = peer_;

    /* The rest of a message that was begun takes no more memory. */
    if (tri_unlikely(peer->parking_full) && lane == TRI_LANE_DATA &&
        record->kind != TRI_MORE)
        return tri_flow_refuse(peer);
    /* kinds below are those of messages */
    if (tri_unlikely(record->kind >= TRI_MORE) &&
        on_own(link, peer, record, payload))
        return true;
    lane = tri_lane_of(record->kind); /* whatever lane it came on */
    tri_peer_begin(peer, lane);
    if (tri_unlikely(record->total_bytes > record->bytes)) {
        tri_peer_hear(peer);
        begin_pieces(link, peer, lane, record, payload);
        return true;
    }
    link->config.events.record(link->config.events.context, peer, record,
                               payload);
    count_received(peer, lane);
    return true;
}

void tri_peer_on_ended(void *context, void *peer_)
{
    struct tri_peer *peer = peer_;

    (void)context;
    for (int lane = 0; lane < TRI_LANES; lane++)
        give_up(peer, lane);
}

void tri_peer_free_arrivals(struct tri_peer *peer)
{
    for (int lane = 0; lane < TRI_LANES; lane++)
        give_up(peer, lane);
}
