/* SPDX-License-Identifier: BSD-3-Clause */
#include "link/link_internal.h"

#include "base/log.h"
#include "message/pool.h"

/* --- headers -------------------------------------------------------------- */

void tri_record_of_message(const struct tri_message *message,
                           struct tri_record *record_p)
{
    *record_p = (struct tri_record){
        .kind = message->kind,
        .index = message->index,
        .type = message->type,
        .total_bytes = message->bytes,
        .slot = message->slot,
        .generation = message->generation,
        .sender_node = message->sender.node,
        .sender_slot = message->sender.slot,
        .sender_generation = message->sender.generation,
        .ask = message->ask,
        .value = message->value,
    };
}

struct tri_message *tri_message_of_record(const struct tri_record *record)
{
    struct tri_message *message = tri_message_alloc(record->total_bytes);

    if (message == NULL)
        return NULL;
    message->kind = record->kind;
    message->index = record->index;
    message->type = record->type;
    message->slot = record->slot;
    message->generation = record->generation;
    message->sender.node = record->sender_node;
    message->sender.slot = record->sender_slot;
    message->sender.generation = record->sender_generation;
    message->ask = record->ask;
    message->value = record->value;
    return message;
}

/* --- what transports raise ------------------------------------------------ */

static void *on_accept(void *context, uint64_t node)
{
    struct tri_peer *peer = tri_link_find(context, node);

    return peer != NULL && !tri_peer_is_dead(peer) ? peer : NULL;
}

static bool on_is_gone(void *context, uint64_t node)
{
    struct tri_peer *peer = tri_link_find(context, node);

    return peer != NULL && tri_peer_is_dead(peer);
}

static const struct tri_address *on_address(void *context, uint64_t node)
{
    struct tri_peer *peer = tri_link_find(context, node);

    return peer != NULL && !tri_peer_is_dead(peer) ? &peer->address : NULL;
}

void tri_link_garbage(struct tri_link *link, const char *reason)
{
    tri_refusals_count(&link->refusals, reason);
}

static void on_garbage(void *context, const char *reason)
{
    tri_link_garbage(context, reason);
}

static void suspect(struct tri_peer *peer)
{
    const struct tri_link_events *events = &peer->link->config.events;
    char label[TRI_PEER_LABEL_BYTES];

    tri_info("a connection to %s closed", tri_peer_label(peer, label));
    if (events->suspect != NULL)
        events->suspect(events->context, peer);
}

static void on_lost(void *context, uint64_t node, enum tri_evidence evidence)
{
    struct tri_peer *peer = tri_link_find(context, node);

    if (peer == NULL || tri_peer_is_dead(peer))
        return;
    if (evidence == TRI_EVIDENCE_PROOF)
        tri_link_kill(peer);
    else if (!atomic_exchange(&peer->broken, 1))
        suspect(peer);
    for (int lane = 0; lane < TRI_LANES; lane++)
        if (tri_pull_is_exposed(&peer->outboxes[lane]))
            tri_peer_kick(peer); /* nothing else would end its wait */
}

static void on_broke(void *context, uint64_t node)
{
    struct tri_peer *peer = tri_link_find(context, node);

    if (peer != NULL && !tri_peer_is_dead(peer))
        suspect(peer);
}

static void on_heard(void *context, void *peer)
{
    (void)context;
    tri_peer_hear(peer);
}

static void on_writable(void *context, void *peer)
{
    (void)context;
    tri_peer_mark_dirty(peer);
    tri_peer_kick(peer);
}

struct tri_transport_events tri_link_transport_events(struct tri_link *link)
{
    return (struct tri_transport_events){
        .context = link,
        .accept = on_accept,
        .is_gone = on_is_gone,
        .address = on_address,
        .record = tri_peer_on_record,
        .pull = tri_pull_on_pull,
        .lost = on_lost,
        .broke = on_broke,
        .heard = on_heard,
        .ended = tri_peer_on_ended,
        .garbage = on_garbage,
        .writable = on_writable,
    };
}

/* --- leaving -------------------------------------------------------------- */

static bool had_to_do_with(struct tri_peer *peer)
{
    return tri_peer_is_used(peer) && !tri_peer_is_dead(peer) &&
           (atomic_load_explicit(&peer->state, memory_order_relaxed) ==
                TRI_PEER_UP ||
            atomic_load_explicit(&peer->received, memory_order_relaxed) > 0);
}

void tri_link_say_bye(struct tri_link *link)
{
    for (uint32_t i = 0; i < tri_link_peers_len(link); i++)
        if (had_to_do_with(&link->peers[i]))
            tri_peer_say_bye(&link->peers[i]);
}

bool tri_link_all_left(struct tri_link *link)
{
    for (uint32_t i = 0; i < link->config.peers_len; i++)
        if (had_to_do_with(&link->peers[i]) &&
            !tri_peer_has_left(&link->peers[i]))
            return false;
    return true;
}

/* --- polling -------------------------------------------------------------- */

static bool has_mourning(struct tri_link *link)
{
    /* acquire: who sees the number finds the peers dead */
    return tri_unlikely(atomic_load_explicit(&link->deaths,
                                             memory_order_acquire) !=
                        link->mourned);
}

/* Tells the transports of the dead. What has no channel, because we never sent
 * to that peer, would otherwise stay. */
static void mourn(struct tri_link *link)
{
    for (uint32_t i = 0; i < tri_link_peers_len(link); i++) {
        struct tri_peer *peer = &link->peers[i];

        /* acquire: pairs with the release of a slot that is used again, whose
         * last peer is not to be mourned twice */
        if (!tri_peer_is_used(peer) ||
            atomic_load_explicit(&peer->mourned, memory_order_acquire) ||
            !tri_peer_is_dead(peer))
            continue;
        atomic_store_explicit(&peer->mourned, true, memory_order_relaxed);
        link->mourned++;
        if (peer->transport->ops->resume != NULL)
            peer->transport->ops->resume(peer->transport, peer);
    }
}

unsigned tri_link_poll(struct tri_link *link, unsigned budget)
{
    unsigned n = 0;

    tri_link_flush(link);
    if (tri_unlikely(atomic_load_explicit(&link->flow_kicked,
                                          memory_order_relaxed)))
        tri_flow_run(link);
    if (has_mourning(link))
        mourn(link);
    if (tri_unlikely(atomic_load_explicit(&link->burials,
                                          memory_order_relaxed)))
        tri_link_bury(link);
    for (uint32_t i = 0; i < link->transports_len; i++)
        n += link->transports[i]->ops->poll(link->transports[i], budget);
    tri_link_settle(link);
    return n;
}

bool tri_link_pending(struct tri_link *link)
{
    if (tri_link_is_dirty(link) || has_mourning(link) ||
        atomic_load_explicit(&link->burials, memory_order_relaxed) ||
        atomic_load_explicit(&link->flow_kicked, memory_order_relaxed))
        return true;
    for (uint32_t i = 0; i < link->transports_len; i++)
        if (link->transports[i]->ops->pending(link->transports[i]))
            return true;
    return false;
}

struct tri_link_census tri_link_census(struct tri_link *link)
{
    struct tri_link_census census = {
        .sent = atomic_load_explicit(&link->past_sent, memory_order_relaxed),
        .received = atomic_load_explicit(&link->past_received,
                                         memory_order_relaxed),
    };

    for (uint32_t i = 0; i < tri_link_peers_len(link); i++) {
        struct tri_peer *peer = &link->peers[i];

        census.sent += tri_peer_count(&peer->sent);
        census.received += tri_peer_count(&peer->received);
        if (atomic_load_explicit(&peer->parked_len, memory_order_relaxed) > 0)
            census.waiting = true;
        for (int lane = 0; lane < TRI_LANES; lane++)
            census.waiting |= atomic_load_explicit(&peer->outboxes[lane].bytes,
                                                   memory_order_relaxed) > 0;
    }
    census.waiting |= tri_link_is_dirty(link);
    return census;
}

/* --- life ----------------------------------------------------------------- */

int tri_link_init(struct tri_link *link, const struct tri_link_config *config)
{
    *link = (struct tri_link){ .config = *config };
    link->config.peers_max = tri_max(config->peers_max, config->peers_len);
    return tri_link_peers_init(link);
}

void tri_link_add_transport(struct tri_link *link,
                            struct tri_transport *transport)
{
    assert(link->transports_len < TRI_LINK_TRANSPORTS_MAX);
    link->transports[link->transports_len++] = transport;
}

void tri_link_fini(struct tri_link *link)
{
    for (uint32_t i = 0; i < tri_link_peers_len(link); i++) {
        struct tri_peer *peer = &link->peers[i];

        tri_peer_free_outboxes(peer);
        tri_peer_free_arrivals(peer);
        tri_flow_fini(peer);
    }
    for (uint32_t i = 0; i < link->transports_len; i++)
        link->transports[i]->ops->close(link->transports[i]);
    tri_link_peers_fini(link);
}
