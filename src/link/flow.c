/* SPDX-License-Identifier: BSD-3-Clause */
#include "link/flow.h"

#include <stdlib.h>

#include "link/link_internal.h"
#include "message/pool.h"

/* With this share of the bound parked, senders to further full mailboxes are
 * stopped: a short burst costs no STOP and GO, and a stream few. */
#define STOP_SHARE 4u

/* --- receiver: what is parked --------------------------------------------- */

/* The messages of one peer for one actor. */
struct tri_parked {
    struct tri_parked *next, **link; /* of the peer's list */
    struct tri_parked *bucket_next;
    struct tri_message *first, *last;
    uint32_t slot, generation;
    bool stopped; /* its senders were told */
};

static size_t cost_of(const struct tri_message *message)
{
    return message->bytes + sizeof(*message);
}

static struct tri_parked **bucket_of(const struct tri_parking *parking,
                                     uint32_t slot)
{
    return &parking->buckets[slot % TRI_PARKED_BUCKETS];
}

static struct tri_parked *find(const struct tri_parking *parking,
                               uint32_t slot, uint32_t generation)
{
    struct tri_parked *parked = parking->first != NULL
                                    ? *bucket_of(parking, slot)
                                    : NULL;

    while (parked != NULL &&
           (parked->slot != slot || parked->generation != generation))
        parked = parked->bucket_next;
    return parked;
}

static void set_full(struct tri_peer *peer)
{
    struct tri_link *link = peer->link;

    /* A transport that keeps nothing for us would lose it. */
    peer->parking_full = peer->transport->ops->resume != NULL &&
                         (peer->parking.refused ||
                          peer->parking.bytes >= link->config.parked_bytes_max);
}

static struct tri_parked *add(struct tri_peer *peer, uint32_t slot,
                              uint32_t generation)
{
    struct tri_parking *parking = &peer->parking;
    struct tri_parked *parked = malloc(sizeof(*parked));
    struct tri_parked **bucket;

    if (parking->buckets == NULL)
        parking->buckets = calloc(TRI_PARKED_BUCKETS,
                                  sizeof(*parking->buckets));
    if (parked == NULL || parking->buckets == NULL) {
        free(parked);
        return NULL;
    }
    bucket = bucket_of(parking, slot);
    *parked = (struct tri_parked){ .slot = slot, .generation = generation };
    parked->bucket_next = *bucket;
    *bucket = parked;
    parked->next = parking->first;
    parked->link = &parking->first;
    if (parked->next != NULL)
        parked->next->link = &parked->next;
    parking->first = parked;
    parking->bytes += sizeof(*parked);
    return parked;
}

static void drop(struct tri_peer *peer, struct tri_parked *parked)
{
    struct tri_parking *parking = &peer->parking;
    struct tri_parked **bucket = bucket_of(parking, parked->slot);

    while (*bucket != parked)
        bucket = &(*bucket)->bucket_next;
    *bucket = parked->bucket_next;
    *parked->link = parked->next;
    if (parked->next != NULL)
        parked->next->link = parked->link;
    parking->bytes -= sizeof(*parked);
    free(parked);
}

static int tell(struct tri_peer *peer, enum tri_record_kind kind,
                 const struct tri_parked *parked)
{
    struct tri_record record = {
        .kind = (uint8_t)kind,
        .slot = parked->slot,
        .generation = parked->generation,
        .sender_node = peer->link->config.node,
    };

    return tri_link_send(peer, &record, "", TRI_SEND_FORCED);
}

bool tri_flow_has_parked(const struct tri_peer *peer, uint32_t slot,
                         uint32_t generation)
{
    return find(&peer->parking, slot, generation) != NULL;
}

int tri_flow_park(struct tri_peer *peer, struct tri_message *message)
{
    struct tri_parked *parked = find(&peer->parking, message->slot,
                                     message->generation);

    if (parked == NULL)
        parked = add(peer, message->slot, message->generation);
    if (parked == NULL)
        return TROUPE_ENOMEM;
    message->next = NULL;
    if (parked->first == NULL)
        parked->first = message;
    else
        parked->last->next = message;
    parked->last = message;
    peer->parking.bytes += cost_of(message);
    atomic_fetch_add_explicit(&peer->parked_len, 1, memory_order_relaxed);
    set_full(peer);
    /* Without memory for a STOP the peer stops later, at the bound. */
    if (!parked->stopped &&
        peer->parking.bytes >= peer->link->config.parked_bytes_max / STOP_SHARE)
        parked->stopped = tell(peer, TRI_MAILBOX_STOP, parked) == 0;
    return 0;
}

int tri_flow_mark(struct tri_peer *peer, uint32_t *marked_p)
{
    *marked_p = 0;
    for (struct tri_parked *parked = peer->parking.first; parked != NULL;
         parked = parked->next) {
        struct tri_message *marker = tri_message_alloc(0);

        if (marker == NULL)
            return TROUPE_ENOMEM;
        marker->kind = TRI_MARKER;
        marker->slot = parked->slot;
        marker->generation = parked->generation;
        tri_flow_park(peer, marker); /* behind others: it needs no memory */
        ++*marked_p;
    }
    return 0;
}

bool tri_flow_refuse(struct tri_peer *peer)
{
    peer->parking.refused = true;
    return false;
}

/* True when none is left. */
static bool push(struct tri_peer *peer, struct tri_parked *parked)
{
    struct tri_link_events *events = &peer->link->config.events;
    struct tri_message *message;

    while ((message = parked->first) != NULL) {
        struct tri_message *next = message->next;
        size_t cost = cost_of(message);

        if (!events->unpark(events->context, peer, message)) {
            message->next = next; /* the attempt may have used it */
            return false;
        }
        parked->first = next;
        peer->parking.bytes -= cost;
        /* release: who sees none finds them in their mailboxes */
        atomic_fetch_sub_explicit(&peer->parked_len, 1, memory_order_release);
    }
    return true;
}

static void reopen(struct tri_peer *peer)
{
    struct tri_transport *transport = peer->transport;
    bool refused = peer->parking.refused;

    if (!peer->parking_full ||
        peer->parking.bytes > peer->link->config.parked_bytes_max / 2)
        return;
    peer->parking.refused = false;
    set_full(peer);
    tri_pull_answer_held(peer);
    if (refused)
        transport->ops->resume(transport, peer);
}

static void run_peer(struct tri_peer *peer)
{
    struct tri_parked *parked, *next;

    for (parked = peer->parking.first; parked != NULL; parked = next) {
        next = parked->next;
        if (!push(peer, parked))
            continue;
        /* A GO must not get lost: senders may wait for it. A peer that died
         * needs none. */
        if (parked->stopped &&
            tell(peer, TRI_MAILBOX_GO, parked) == TROUPE_ENOMEM)
            tri_link_kick_flow(peer->link);
        else
            drop(peer, parked);
    }
    reopen(peer);
}

void tri_flow_run(struct tri_link *link)
{
    /* Before the mailboxes are looked at: a later kick comes again. */
    atomic_exchange_explicit(&link->flow_kicked, 0, memory_order_seq_cst);
    for (uint32_t i = 0; i < tri_link_peers_len(link); i++)
        if (link->peers[i].parking.first != NULL)
            run_peer(&link->peers[i]);
}

static void orphan(struct tri_link *link, struct tri_message *message)
{
    struct tri_link_events *events = &link->config.events;

    if (events->orphaned != NULL)
        events->orphaned(events->context, message);
    else
        tri_message_free(message);
}

/* Of a peer that may not have been set. */
static void drop_parked(struct tri_peer *peer, bool is_orphan)
{
    struct tri_parking *parking = &peer->parking;

    while (parking->first != NULL) {
        struct tri_parked *parked = parking->first;

        while (parked->first != NULL) {
            struct tri_message *message = parked->first;

            parked->first = message->next;
            if (is_orphan)
                orphan(peer->link, message);
            else
                tri_message_free(message);
        }
        drop(peer, parked);
    }
    free(parking->buckets);
    *parking = (struct tri_parking){ 0 };
    peer->parking_full = false;
    atomic_store_explicit(&peer->parked_len, 0, memory_order_release);
}

void tri_flow_orphan_parked(struct tri_peer *peer)
{
    drop_parked(peer, true);
}

void tri_flow_fini(struct tri_peer *peer)
{
    drop_parked(peer, false);
    free(peer->stopped);
    peer->stopped = NULL;
    atomic_store_explicit(&peer->stopped_len, 0, memory_order_relaxed);
}

/* --- sender: the stopped set ---------------------------------------------- */

/*
 * One writer, who holds the poll lock; readers look at up to
 * TRI_STOPPED_PROBES places. A reader that misses a change sends one message
 * more, or one later; who waits is woken after the change.
 */

static uint64_t key_of(uint32_t slot, uint32_t generation)
{
    return (uint64_t)generation << 32 | slot; /* 0: slot 0, no actor */
}

/* The place of a key, or NULL. key 0: a free place for another one. */
static _Atomic uint64_t *place_of(_Atomic uint64_t *set, uint64_t key,
                                  uint64_t wanted)
{
    uint64_t at = tri_mix64(key);

    for (unsigned i = 0; i < TRI_STOPPED_PROBES; i++) {
        _Atomic uint64_t *place = &set[(at + i) % TRI_STOPPED_LEN];

        if (atomic_load_explicit(place, memory_order_relaxed) == wanted)
            return place;
    }
    return NULL;
}

static void add_stopped(struct tri_peer *peer, uint64_t key)
{
    _Atomic uint64_t *set = atomic_load_explicit(&peer->stopped,
                                                 memory_order_relaxed);
    _Atomic uint64_t *place;

    if (set == NULL) {
        set = calloc(TRI_STOPPED_LEN, sizeof(*set));
        if (set == NULL)
            return;
        /* Pairs with the acquire load of tri_flow_is_stopped. */
        atomic_store_explicit(&peer->stopped, set, memory_order_release);
    }
    place = place_of(set, key, 0);
    if (key == 0 || place == NULL || place_of(set, key, key) != NULL)
        return;
    atomic_store_explicit(place, key, memory_order_relaxed);
    atomic_fetch_add_explicit(&peer->stopped_len, 1, memory_order_relaxed);
}

static void remove_stopped(struct tri_peer *peer, uint64_t key)
{
    struct tri_link_events *events = &peer->link->config.events;
    _Atomic uint64_t *set = atomic_load_explicit(&peer->stopped,
                                                 memory_order_relaxed);
    _Atomic uint64_t *place = set != NULL && key != 0
                                  ? place_of(set, key, key)
                                  : NULL;

    if (place == NULL)
        return;
    atomic_store_explicit(place, 0, memory_order_relaxed);
    atomic_fetch_sub_explicit(&peer->stopped_len, 1, memory_order_relaxed);
    events->room(events->context);
}

void tri_flow_on_mailbox(struct tri_peer *peer,
                         const struct tri_record *record)
{
    uint64_t key = key_of(record->slot, record->generation);

    if (record->kind == TRI_MAILBOX_STOP)
        add_stopped(peer, key);
    else
        remove_stopped(peer, key);
}

bool tri_flow_is_stopped(struct tri_peer *peer, uint32_t slot,
                         uint32_t generation)
{
    /* Pairs with the release store of add_stopped. */
    _Atomic uint64_t *set = atomic_load_explicit(&peer->stopped,
                                                 memory_order_acquire);
    uint64_t key = key_of(slot, generation);

    return set != NULL && key != 0 && !tri_peer_is_dead(peer) &&
           place_of(set, key, key) != NULL;
}
