/* SPDX-License-Identifier: BSD-3-Clause */
#include "link/link_internal.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "message/pool.h"

/* Two flushes of one peer closer than this are worth joining. */
#define FLUSH_GAP_NS 5000

/* --- headers ---------------------------------------------------------------- */

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

/* --- flushing ----------------------------------------------------------------- */

static void mark_dirty(struct tri_peer *peer)
{
    struct tri_link *link = peer->link;
    struct tri_peer *first;

    if (atomic_exchange_explicit(&peer->dirty, 1, memory_order_acq_rel))
        return;
    first = atomic_load_explicit(&link->dirty, memory_order_relaxed);
    do {
        peer->dirty_next = first;
    } while (!atomic_compare_exchange_weak_explicit(
        &link->dirty, &first, peer, memory_order_release,
        memory_order_relaxed));
}

static void flush_locked(struct tri_peer *peer)
{
    const struct tri_transport_ops *ops = peer->transport->ops;

    assert(tri_lock_is_held(&peer->lock));
    if (peer->channel != NULL && ops->flush != NULL)
        ops->flush(peer->channel);
}

static bool peer_lock_try(struct tri_peer *peer);
static void peer_unlock(struct tri_peer *peer);

void tri_link_flush(struct tri_link *link)
{
    struct tri_peer *peer, *next;

    if (!tri_link_is_dirty(link))
        return;
    peer = atomic_exchange_explicit(&link->dirty, NULL, memory_order_acquire);
    for (; peer != NULL; peer = next) {
        next = peer->dirty_next;
        atomic_store_explicit(&peer->dirty, 0, memory_order_release);
        if (peer_lock_try(peer)) {
            flush_locked(peer);
            peer_unlock(peer);
        } else {
            mark_dirty(peer); /* its holder may be done with its own flush */
        }
    }
}

/* --- writing to a channel ------------------------------------------------------- */

/* A message whose PULL may be lost, or may have been answered. */
static void give_up_exposed_locked(struct tri_peer *peer)
{
    struct tri_link_events *events = &peer->link->config.events;

    tri_pull_settle_locked(peer);
    if (tri_likely(!tri_pull_is_exposed(peer)))
        return;
    tri_pull_withdraw_locked(peer);
    events->undelivered(events->context, peer, tri_peer_pop_outbox_locked(peer),
                        TROUPE_ETRANSPORT);
}

/*
 * Ends a channel whose connection closed, so that the next send connects anew.
 * What was under way is lost; a message that was half sent begins again.
 */
static void drop_channel_locked(struct tri_peer *peer)
{
    assert(tri_lock_is_held(&peer->lock));
    give_up_exposed_locked(peer);
    atomic_store_explicit(&peer->broken, 0, memory_order_relaxed);
    if (peer->channel != NULL)
        peer->transport->ops->disconnect(peer->channel);
    peer->channel = NULL;
    peer->outbox_offset = 0;
}

static int connect_locked(struct tri_peer *peer)
{
    const struct tri_transport_ops *ops = peer->transport->ops;
    int rc;

    assert(tri_lock_is_held(&peer->lock));
    if (tri_unlikely(atomic_load_explicit(&peer->broken,
                                          memory_order_relaxed)))
        drop_channel_locked(peer);
    if (peer->channel != NULL)
        return 0;
    if (tri_peer_is_dead(peer))
        return TROUPE_ENODE;
    rc = ops->connect(peer->transport, peer->node, &peer->address, peer,
                      &peer->channel);
    if (rc == 0)
        atomic_store_explicit(&peer->state, TRI_PEER_UP, memory_order_relaxed);
    else if (rc == TROUPE_ENODE)
        peer->doomed = true;
    return rc;
}

/*
 * Writes payload from `offset` on as one record. The first record of a message
 * carries its header; the others are MORE.
 */
static int write_locked(struct tri_peer *peer, const struct tri_record *header,
                        const void *payload, uint32_t offset, uint32_t *bytes_p)
{
    const struct tri_transport_ops *ops = peer->transport->ops;
    uint32_t bytes = (uint32_t)tri_min(header->total_bytes - offset,
                                       peer->transport->record_bytes_max);
    struct tri_span span;
    int rc;

    assert(tri_lock_is_held(&peer->lock));
    rc = ops->reserve(peer->channel, tri_lane_of(header->kind), bytes,
                      &span);
    if (rc != 0)
        return rc;
    if (offset == 0) {
        *span.record = *header;
        if (tri_likely(!peer->first_counted))
            tri_count_one(&peer->sent);
    } else {
        *span.record = *header; /* for who finds this piece alone */
        span.record->kind = TRI_MORE;
    }
    span.record->bytes = bytes;
    if (bytes > 0)
        memcpy(span.payload, (const char *)payload + offset, bytes);
    ops->commit(peer->channel);
    *bytes_p = bytes;
    return 0;
}

/* Moves what others put into the inbox behind the outbox, oldest first. */
static void take_inbox_locked(struct tri_peer *peer)
{
    struct tri_message *message, *next, *first = NULL, *last = NULL;

    assert(tri_lock_is_held(&peer->lock));
    if (atomic_load_explicit(&peer->inbox, memory_order_relaxed) == NULL)
        return;
    message = atomic_exchange_explicit(&peer->inbox, NULL,
                                       memory_order_acquire);
    for (; message != NULL; message = next) {
        next = message->next;
        message->next = first;
        if (first == NULL)
            last = message;
        first = message;
    }
    if (first == NULL)
        return;
    if (peer->outbox_first == NULL)
        peer->outbox_first = first;
    else
        peer->outbox_last->next = first;
    peer->outbox_last = last;
}

struct tri_message *tri_peer_pop_outbox_locked(struct tri_peer *peer)
{
    struct tri_message *message = peer->outbox_first;

    assert(tri_lock_is_held(&peer->lock));
    peer->outbox_first = message->next;
    if (peer->outbox_first == NULL)
        peer->outbox_last = NULL;
    peer->outbox_offset = 0;
    peer->first_counted = false;
    atomic_fetch_sub_explicit(&peer->outbox_bytes,
                              message->bytes + sizeof(*message),
                              memory_order_relaxed);
    return message;
}

/* Messages have a deadline, which is a point in time here; records travel
 * with the time that is left. */
void tri_peer_header(const struct tri_message *message,
                     struct tri_record *record_p)
{
    int32_t left;

    tri_record_of_message(message, record_p);
    if (message->kind != TRI_ASK && message->kind != TRI_RESOLVE)
        return;
    left = (int32_t)(message->deadline_ms - tri_coarse_ms());
    record_p->value = left > 0 ? left : 0;
}

static int write_first_locked(struct tri_peer *peer)
{
    struct tri_message *message = peer->outbox_first;
    struct tri_record header;
    uint32_t bytes;
    int rc;

    assert(tri_lock_is_held(&peer->lock));
    tri_peer_header(message, &header);
    do {
        rc = write_locked(peer, &header, message->payload, peer->outbox_offset,
                          &bytes);
        if (rc != 0)
            return rc;
        peer->first_counted = true; /* also if it has to begin again */
        peer->outbox_offset += bytes;
    } while (peer->outbox_offset < message->bytes);
    return 0;
}

static void drop_outbox_locked(struct tri_peer *peer, int reason)
{
    struct tri_link_events *events = &peer->link->config.events;

    assert(tri_lock_is_held(&peer->lock));
    tri_pull_settle_locked(peer);
    tri_pull_withdraw_locked(peer);
    take_inbox_locked(peer);
    while (peer->outbox_first != NULL)
        events->undelivered(events->context, peer,
                            tri_peer_pop_outbox_locked(peer), reason);
}

/* Sends the first message of the outbox, or lets the peer have it. */
static int send_first_locked(struct tri_peer *peer)
{
    int rc;

    if (tri_pull_is_wanted_locked(peer))
        return tri_pull_expose_locked(peer);
    rc = write_first_locked(peer);
    if (rc == 0)
        tri_message_free(tri_peer_pop_outbox_locked(peer));
    return rc;
}

/* Writes as much of the outbox as the channel takes. */
static void pump_locked(struct tri_peer *peer)
{
    bool wrote = false;
    int rc = 0;

    assert(tri_lock_is_held(&peer->lock));
    take_inbox_locked(peer);
    tri_pull_settle_locked(peer);
    if (peer->outbox_first == NULL && !tri_pull_has_answer(peer))
        return;
    rc = connect_locked(peer);
    if (rc == 0)
        rc = tri_pull_answer_locked(peer);
    while (rc == 0 && peer->outbox_first != NULL &&
           !tri_pull_is_exposed(peer)) {
        rc = send_first_locked(peer);
        wrote |= rc == 0;
        if (peer->outbox_first == NULL)
            take_inbox_locked(peer);
    }
    if (wrote || rc == TROUPE_EFULL)
        flush_locked(peer);
    if (rc != 0 && rc != TROUPE_EFULL)
        drop_outbox_locked(peer, rc);
}

/* --- the peer's lock ----------------------------------------------------------- */

/*
 * Who finds the lock held leaves a mark (`again`) and the holder looks at it
 * after its release. That is Dekker's pattern, and wants full fences; but a
 * fence after a record was written waits until the other core has the line.
 * So the holder of a short section (one record) goes without, and who left a
 * mark stays until it got the lock, or the mark was seen, or the holder began
 * a long section, which does have a fence at its end.
 */
enum { LOCK_FREE, LOCK_SHORT, LOCK_LONG };

static bool peer_lock_try(struct tri_peer *peer)
{
    return tri_lock_try(&peer->lock); /* LOCK_SHORT */
}

static void peer_run_locked(struct tri_peer *peer)
{
    assert(tri_lock_is_held(&peer->lock));
    atomic_store_explicit(&peer->lock.held, LOCK_LONG, memory_order_relaxed);
    /* Before the inbox is looked at: what was pushed before a mark that this
     * wipes out is seen now, a later mark at the end. */
    atomic_exchange_explicit(&peer->again, 0, memory_order_seq_cst);
    tri_fence_full();
    pump_locked(peer);
}

static void peer_unlock(struct tri_peer *peer)
{
    for (;;) {
        bool was_long = atomic_load_explicit(&peer->lock.held,
                                             memory_order_relaxed) ==
                        LOCK_LONG;
        bool doomed = peer->doomed;

        tri_lock_release(&peer->lock);
        if (tri_unlikely(doomed) && !tri_peer_is_dead(peer))
            tri_link_kill(peer);
        if (was_long)
            tri_fence_full();
        if (tri_likely(!atomic_load_explicit(&peer->again,
                                             memory_order_relaxed)) ||
            !peer_lock_try(peer))
            return; /* nothing was left, or the next holder looks */
        peer_run_locked(peer);
    }
}

void tri_peer_kick(struct tri_peer *peer)
{
    unsigned rounds = 0;

    atomic_store_explicit(&peer->again, 1, memory_order_relaxed);
    tri_fence_full();
    while (!peer_lock_try(peer)) {
        if (atomic_load_explicit(&peer->lock.held, memory_order_relaxed) ==
                LOCK_LONG ||
            !atomic_load_explicit(&peer->again, memory_order_relaxed))
            return;
        if (++rounds < 64)
            tri_cpu_relax();
        else
            sched_yield();
    }
    peer_run_locked(peer);
    peer_unlock(peer);
}

static bool outbox_is_empty_locked(struct tri_peer *peer)
{
    return peer->outbox_first == NULL &&
           atomic_load_explicit(&peer->inbox, memory_order_relaxed) == NULL;
}

/* --- sending ---------------------------------------------------------------------- */

/* A transport that gathers records into frames: send them now when the last
 * flush is long ago, else when the sender's turn or the poller comes. */
static void after_commit_locked(struct tri_peer *peer)
{
    uint64_t now;

    if (peer->transport->ops->flush == NULL)
        return;
    now = tri_now_ns();
    if (now - peer->last_flush_ns > FLUSH_GAP_NS) {
        flush_locked(peer);
        peer->last_flush_ns = now;
    } else {
        mark_dirty(peer);
    }
}

static bool is_connected_locked(struct tri_peer *peer)
{
    return peer->channel != NULL &&
           !atomic_load_explicit(&peer->broken, memory_order_relaxed);
}

/* The straight way: 0, or EFULL when it has to be the outbox. */
static int send_directly(struct tri_peer *peer, const struct tri_record *record,
                         const void *payload)
{
    int rc = TROUPE_EFULL;
    uint32_t bytes;

    if (record->total_bytes > peer->transport->record_bytes_max ||
        !peer_lock_try(peer))
        return TROUPE_EFULL;
    if (tri_likely(outbox_is_empty_locked(peer))) {
        rc = tri_likely(is_connected_locked(peer)) ? 0 : connect_locked(peer);
        if (rc == 0)
            rc = write_locked(peer, record, payload, 0, &bytes);
        if (rc == 0)
            after_commit_locked(peer);
    }
    peer_unlock(peer);
    return rc;
}

static int add_to_outbox(struct tri_peer *peer, struct tri_message *message,
                         bool forced)
{
    size_t bytes = message->bytes + sizeof(*message);
    size_t before = atomic_fetch_add_explicit(&peer->outbox_bytes, bytes,
                                              memory_order_relaxed);
    struct tri_message *first;

    /* One message may always wait, however large it is. */
    if (!forced && before > 0 &&
        before + bytes > peer->link->config.outbox_bytes_max) {
        atomic_fetch_sub_explicit(&peer->outbox_bytes, bytes,
                                  memory_order_relaxed);
        return TROUPE_EFULL;
    }
    first = atomic_load_explicit(&peer->inbox, memory_order_relaxed);
    do {
        message->next = first;
    } while (!atomic_compare_exchange_weak_explicit(
        &peer->inbox, &first, message, memory_order_release,
        memory_order_relaxed));
    tri_peer_kick(peer);
    return 0;
}

int tri_link_send(struct tri_peer *peer, const struct tri_record *record,
                  const void *payload, bool forced)
{
    struct tri_message *message;
    int rc;

    if (tri_unlikely(tri_peer_is_dead(peer)))
        return TROUPE_ENODE;
    rc = send_directly(peer, record, payload);
    if (tri_likely(rc != TROUPE_EFULL))
        return rc;
    message = tri_message_of_record(record);
    if (message == NULL)
        return TROUPE_ENOMEM;
    if (record->kind == TRI_ASK || record->kind == TRI_RESOLVE)
        message->deadline_ms = tri_coarse_ms() + (uint32_t)record->value;
    if (record->total_bytes > 0)
        memcpy(message->payload, payload, record->total_bytes);
    rc = add_to_outbox(peer, message, forced);
    if (rc != 0)
        tri_message_free(message);
    return rc;
}

int tri_link_send_message(struct tri_peer *peer, struct tri_message *message,
                          bool forced)
{
    struct tri_record record;
    int rc;

    if (tri_unlikely(tri_peer_is_dead(peer)))
        return TROUPE_ENODE;
    tri_peer_header(message, &record);
    rc = send_directly(peer, &record, message->payload);
    if (rc == 0)
        tri_message_free(message);
    if (rc != TROUPE_EFULL)
        return rc;
    return add_to_outbox(peer, message, forced);
}

/* --- receiving ----------------------------------------------------------------------- */

static void *on_accept(void *context, uint64_t node)
{
    struct tri_peer *peer = tri_link_find(context, node);

    return peer != NULL && !tri_peer_is_dead(peer) ? peer : NULL;
}

static const struct tri_address *on_address(void *context, uint64_t node)
{
    struct tri_peer *peer = tri_link_find(context, node);

    return peer != NULL ? &peer->address : NULL;
}

void tri_link_garbage(struct tri_link *link, const char *reason)
{
    if (atomic_fetch_add_explicit(&link->garbage, 1, memory_order_relaxed) == 0)
        tri_warn("dropped foreign or malformed data: %s", reason);
}

static void on_garbage(void *context, const char *reason)
{
    tri_link_garbage(context, reason);
}

static void count_received(struct tri_peer *peer)
{
    tri_count_one(&peer->received);
}

/* The first piece of a large message. */
static void begin_partial(struct tri_link *link, struct tri_peer *peer,
                          const struct tri_record *record, const void *payload)
{
    struct tri_link_events *events = &link->config.events;

    if (record->total_bytes <= link->config.message_bytes_max)
        peer->partial = tri_message_of_record(record);
    if (peer->partial == NULL) {
        peer->skip_bytes = record->total_bytes - record->bytes;
        count_received(peer);
        events->refused(events->context, peer, record,
                        record->total_bytes > link->config.message_bytes_max
                            ? TROUPE_ETOOBIG
                            : TROUPE_ENOMEM);
        return;
    }
    memcpy(peer->partial->payload, payload, record->bytes);
    peer->partial_bytes = record->bytes;
}

static void on_more(struct tri_link *link, struct tri_peer *peer,
                    const struct tri_record *record, const void *payload)
{
    struct tri_link_events *events = &link->config.events;
    struct tri_message *message = peer->partial;

    if (peer->skip_bytes > 0) {
        peer->skip_bytes -= (uint32_t)tri_min(record->bytes, peer->skip_bytes);
        return;
    }
    if (message == NULL ||
        record->bytes > message->bytes - peer->partial_bytes) {
        on_garbage(link, "a piece of a message that did not begin");
        return;
    }
    memcpy(message->payload + peer->partial_bytes, payload, record->bytes);
    peer->partial_bytes += record->bytes;
    if (peer->partial_bytes == message->bytes) {
        peer->partial = NULL;
        count_received(peer);
        events->message(events->context, peer, message);
    }
}

static void give_up_partial(struct tri_peer *peer)
{
    if (tri_unlikely(peer->partial != NULL))
        tri_message_free(peer->partial);
    peer->partial = NULL;
    peer->pulling = false;
    peer->skip_bytes = 0;
}

void tri_peer_begin(struct tri_peer *peer)
{
    if (tri_unlikely(peer->partial != NULL))
        tri_link_garbage(peer->link, "a message broke off");
    give_up_partial(peer);
}

static void take_record(void *context, void *peer_,
                        const struct tri_record *record, const void *payload)
{
    struct tri_link *link = context;
    struct tri_peer *peer = peer_;

    if (tri_unlikely(record->kind == TRI_MORE)) {
        on_more(link, peer, record, payload);
        return;
    }
    if (tri_unlikely(record->kind == TRI_PULLED)) {
        tri_pull_on_pulled(peer, record);
        return;
    }
    if (tri_unlikely(record->kind == TRI_PULL)) {
        on_garbage(link, "a PULL over a transport that has none");
        return;
    }
    tri_peer_begin(peer);
    if (tri_unlikely(record->kind == TRI_BYE)) {
        count_received(peer);
        atomic_store_explicit(&peer->left, 1, memory_order_relaxed);
        return;
    }
    if (tri_unlikely(record->total_bytes > record->bytes)) {
        begin_partial(link, peer, record, payload);
        return;
    }
    count_received(peer);
    link->config.events.record(link->config.events.context, peer, record,
                               payload);
}

static bool on_record(void *context, void *peer, enum tri_lane lane,
                      const struct tri_record *record, const void *payload)
{
    (void)lane;
    take_record(context, peer, record, payload);
    return true;
}

static void on_ended(void *context, void *peer)
{
    (void)context;
    give_up_partial(peer);
}

static void on_lost(void *context, uint64_t node, enum tri_evidence evidence)
{
    struct tri_peer *peer = tri_link_find(context, node);

    if (peer == NULL || tri_peer_is_dead(peer))
        return;
    if (evidence == TRI_EVIDENCE_PROOF)
        tri_link_kill(peer);
    else if (!atomic_exchange(&peer->broken, 1))
        tri_info("the connection to rank %d closed", peer->rank);
    if (tri_pull_is_exposed(peer))
        tri_peer_kick(peer); /* nothing else would end its wait */
}

static void on_writable(void *context, void *peer)
{
    (void)context;
    mark_dirty(peer);
    tri_peer_kick(peer);
}

struct tri_transport_events tri_link_transport_events(struct tri_link *link)
{
    return (struct tri_transport_events){
        .context = link,
        .accept = on_accept,
        .address = on_address,
        .record = on_record,
        .pull = tri_pull_on_pull,
        .lost = on_lost,
        .ended = on_ended,
        .garbage = on_garbage,
        .writable = on_writable,
    };
}

/*
 * What the dying peer had sent may still arrive; it is delivered. The channel
 * is closed under the lock, so that no sender is in it.
 */
void tri_link_kill(struct tri_peer *peer)
{
    struct tri_link_events *events = &peer->link->config.events;

    if (atomic_exchange_explicit(&peer->state, TRI_PEER_DEAD,
                                 memory_order_acq_rel) == TRI_PEER_DEAD)
        return;
    tri_lock_acquire(&peer->lock);
    /* As in peer_run_locked: nobody waits for us while others are called. */
    atomic_store_explicit(&peer->lock.held, LOCK_LONG, memory_order_relaxed);
    tri_fence_full();
    drop_outbox_locked(peer, TROUPE_ENODE);
    drop_channel_locked(peer);
    peer_unlock(peer);
    events->died(events->context, peer);
}

/* --- leaving ---------------------------------------------------------------------------- */

static bool had_to_do_with(struct tri_peer *peer)
{
    return peer->link != NULL && !tri_peer_is_dead(peer) &&
           (atomic_load_explicit(&peer->state, memory_order_relaxed) ==
                TRI_PEER_UP ||
            atomic_load_explicit(&peer->received, memory_order_relaxed) > 0);
}

void tri_link_say_bye(struct tri_link *link)
{
    struct tri_record record = { .kind = TRI_BYE,
                                 .sender_node = link->config.node };

    for (uint32_t i = 0; i < link->config.peers_len; i++)
        if (had_to_do_with(&link->peers[i]))
            tri_link_send(&link->peers[i], &record, NULL, true);
}

bool tri_link_all_left(struct tri_link *link)
{
    for (uint32_t i = 0; i < link->config.peers_len; i++)
        if (had_to_do_with(&link->peers[i]) &&
            !atomic_load_explicit(&link->peers[i].left, memory_order_relaxed))
            return false;
    return true;
}

/* --- polling --------------------------------------------------------------------------- */

unsigned tri_link_poll(struct tri_link *link, unsigned budget)
{
    unsigned n = 0;

    tri_link_flush(link);
    for (uint32_t i = 0; i < link->transports_len; i++)
        n += link->transports[i]->ops->poll(link->transports[i], budget);
    return n;
}

bool tri_link_pending(struct tri_link *link)
{
    if (tri_link_is_dirty(link))
        return true;
    for (uint32_t i = 0; i < link->transports_len; i++)
        if (link->transports[i]->ops->pending(link->transports[i]))
            return true;
    return false;
}

struct tri_link_census tri_link_census(struct tri_link *link)
{
    struct tri_link_census census = { 0 };

    for (uint32_t i = 0; i < link->config.peers_len; i++) {
        struct tri_peer *peer = &link->peers[i];

        census.sent += atomic_load_explicit(&peer->sent, memory_order_relaxed);
        census.received += atomic_load_explicit(&peer->received,
                                                memory_order_relaxed);
        if (atomic_load_explicit(&peer->outbox_bytes, memory_order_relaxed) > 0)
            census.waiting = true;
    }
    census.waiting |= tri_link_is_dirty(link);
    return census;
}

/* --- life -------------------------------------------------------------------------------- */

int tri_link_init(struct tri_link *link, const struct tri_link_config *config)
{
    size_t bytes = tri_align_up(sizeof(struct tri_peer), TRI_CACHE_LINE);
    uint64_t buckets = tri_pow2_up((uint64_t)config->peers_len * 2 + 1);

    *link = (struct tri_link){ .config = *config };
    link->peers = aligned_alloc(TRI_CACHE_LINE,
                                bytes * tri_max(config->peers_len, 1));
    link->by_node = calloc(buckets, sizeof(*link->by_node));
    link->by_node_mask = (uint32_t)buckets - 1;
    if (link->peers == NULL || link->by_node == NULL) {
        free(link->peers);
        free(link->by_node);
        return TROUPE_ENOMEM;
    }
    memset(link->peers, 0, bytes * tri_max(config->peers_len, 1));
    return 0;
}

void tri_link_add_transport(struct tri_link *link,
                            struct tri_transport *transport)
{
    assert(link->transports_len < TRI_LINK_TRANSPORTS_MAX);
    link->transports[link->transports_len++] = transport;
}

void tri_link_set_peer(struct tri_link *link, int rank, uint64_t node,
                       struct tri_transport *transport,
                       const struct tri_address *address)
{
    struct tri_peer *peer = &link->peers[rank];
    uint64_t i = tri_mix64(node);

    peer->link = link;
    peer->node = node;
    peer->rank = rank;
    peer->transport = transport;
    peer->address = *address;
    while (link->by_node[i & link->by_node_mask] != NULL)
        i++;
    link->by_node[i & link->by_node_mask] = peer;
}

static void free_outbox(struct tri_peer *peer)
{
    tri_lock_acquire(&peer->lock);
    tri_pull_withdraw_locked(peer);
    take_inbox_locked(peer);
    while (peer->outbox_first != NULL)
        tri_message_free(tri_peer_pop_outbox_locked(peer));
    tri_lock_release(&peer->lock);
}

void tri_link_fini(struct tri_link *link)
{
    for (uint32_t i = 0; i < link->config.peers_len; i++) {
        struct tri_peer *peer = &link->peers[i];

        free_outbox(peer);
        if (peer->partial != NULL)
            tri_message_free(peer->partial);
    }
    for (uint32_t i = 0; i < link->transports_len; i++)
        link->transports[i]->ops->close(link->transports[i]);
    free(link->peers);
    free(link->by_node);
}
