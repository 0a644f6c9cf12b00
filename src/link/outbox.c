/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What is sent to one peer: its channel, its outboxes, its lock.
 *
 * Invariants:
 *  1. Each lane has an outbox of its own. A message goes into the channel past
 *     it only when it is empty, so a lane keeps its order.
 *  2. Control goes before replies, replies before data, record by record: a
 *     large message waits between its pieces. A lane of which the channel takes
 *     no more holds up no other.
 *  3. The first message of an outbox is the only one that may be half sent, or
 *     exposed (pull.c).
 *  4. Only the data outbox has a bound. There are no more replies than asks,
 *     which are bounded where they are made, and control records answer
 *     something or travel once in a while.
 */

#include <sched.h>
#include <string.h>

#include "base/clock.h"
#include "link/link_internal.h"
#include "message/pool.h"

/* Two flushes of one peer closer than this are worth joining. */
#define FLUSH_GAP_NS 5000

/* What waits for a full channel on behalf of those who could wait themselves:
 * enough to go on with, little enough to stay in a cache. */
#define PATIENT_BYTES_MAX (64u << 10)

/* --- flushing ------------------------------------------------------------- */

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

void tri_peer_mark_dirty(struct tri_peer *peer)
{
    mark_dirty(peer);
}

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

/* --- writing to a channel ------------------------------------------------- */

/* Messages whose PULL may be lost, or may have been answered. */
static void give_up_exposed_locked(struct tri_peer *peer)
{
    struct tri_link_events *events = &peer->link->config.events;

    tri_pull_settle_locked(peer);
    for (int lane = 0; lane < TRI_LANES; lane++) {
        struct tri_outbox *outbox = &peer->outboxes[lane];

        if (!tri_pull_is_exposed(outbox))
            continue;
        tri_pull_withdraw_locked(peer, outbox);
        events->undelivered(events->context, peer,
                            tri_peer_pop_locked(peer, outbox),
                            TROUPE_ETRANSPORT);
    }
}

static void report_unread_locked(struct tri_peer *peer, int reason);

/*
 * Ends a channel whose connection closed, so that the next send connects anew.
 * What was under way is lost, and told of, unless it is known to have arrived;
 * a message that was half sent begins again.
 */
static void drop_channel_locked(struct tri_peer *peer)
{
    assert(tri_lock_is_held(&peer->lock));
    report_unread_locked(peer, TROUPE_ETRANSPORT);
    give_up_exposed_locked(peer);
    atomic_store_explicit(&peer->broken, 0, memory_order_relaxed);
    if (peer->channel != NULL)
        peer->transport->ops->disconnect(peer->channel);
    peer->channel = NULL;
    peer->told_lost = false;
    for (int lane = 0; lane < TRI_LANES; lane++)
        peer->outboxes[lane].offset = 0;
}

static int connect_locked(struct tri_peer *peer)
{
    const struct tri_transport_ops *ops = peer->transport->ops;
    int rc;

    assert(tri_lock_is_held(&peer->lock));
    if (tri_unlikely(atomic_load_explicit(&peer->broken,
                                          memory_order_relaxed))) {
        if (tri_peer_is_dead(peer))
            return TROUPE_ENODE; /* tri_link_kill is about to say why */
        drop_channel_locked(peer);
    }
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
 * Writes payload from `offset` on as one record of the lane. The first record
 * of a message carries its header; the others are MORE.
 */
static inline int write_locked(struct tri_peer *peer, enum tri_lane lane,
                               const struct tri_record *header,
                               const void *payload, uint32_t offset,
                               uint32_t *bytes_p)
{
    const struct tri_transport_ops *ops = peer->transport->ops;
    uint32_t bytes = (uint32_t)tri_min(header->total_bytes - offset,
                                       peer->transport->record_bytes_max);
    struct tri_span span;
    int rc;

    assert(tri_lock_is_held(&peer->lock));
    rc = ops->reserve(peer->channel, lane, bytes, &span);
    if (rc != 0)
        return rc;
    *span.record = *header;
    if (offset > 0) /* with the header, for who finds this piece alone */
        span.record->kind = TRI_MORE;
    else if (tri_likely(!peer->outboxes[lane].first_counted &&
                        lane != TRI_LANE_CONTROL))
        tri_count_one(&peer->sent);
    span.record->bytes = bytes;
    if (bytes > 0)
        memcpy(span.payload, (const char *)payload + offset, bytes);
    ops->commit(peer->channel);
    *bytes_p = bytes;
    return 0;
}

/* Moves what others put into the inbox behind the list, oldest first. */
static void take_inbox_locked(struct tri_outbox *outbox)
{
    struct tri_message *message, *next, *first = NULL, *last = NULL;

    if (atomic_load_explicit(&outbox->inbox, memory_order_relaxed) == NULL)
        return;
    message = atomic_exchange_explicit(&outbox->inbox, NULL,
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
    if (outbox->first == NULL)
        outbox->first = first;
    else
        outbox->last->next = first;
    outbox->last = last;
}

struct tri_message *tri_peer_pop_locked(struct tri_peer *peer,
                                        struct tri_outbox *outbox)
{
    struct tri_message *message = outbox->first;

    (void)peer;
    assert(tri_lock_is_held(&peer->lock));
    outbox->first = message->next;
    if (outbox->first == NULL)
        outbox->last = NULL;
    outbox->offset = 0;
    outbox->first_counted = false;
    /* release: who sees it gone sees it counted; pairs with
     * tri_peer_is_waiting */
    atomic_fetch_sub_explicit(&outbox->bytes,
                              message->bytes + sizeof(*message),
                              memory_order_release);
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

/* --- what goes with a channel --------------------------------------------- */

/* The messages of which a channel's unread records are, lane by lane. */
struct unread {
    struct tri_peer *peer;
    int reason;
    struct tri_record latest[TRI_LANES]; /* kind 0: none yet */
};

/* Somebody here has to know that it did not arrive: nobody waits for others. */
static bool is_missed(uint8_t kind)
{
    switch (kind) {
    case TRI_TELL:
    case TRI_ASK:
    case TRI_RESOLVE:
    case TRI_SPAWN:
    case TRI_MONITOR:
    case TRI_LINK:
        return true;
    default:
        return false;
    }
}

static void report_lost(struct unread *unread, enum tri_lane lane)
{
    struct tri_link_events *events = &unread->peer->link->config.events;
    struct tri_record *record = &unread->latest[lane];

    /* A PULL's message is still in its outbox. */
    if (is_missed(record->kind))
        events->lost(events->context, unread->peer, record, unread->reason);
}

/* One letter a message: only the first of its records counts, which may be a
 * MORE when the peer has read those before. */
static void on_unread(void *context, const struct tri_record *record,
                      const void *payload)
{
    struct unread *unread = context;
    bool is_more = record->kind == TRI_MORE;
    enum tri_lane lane = is_more ? tri_lane_of_more(record)
                                 : tri_lane_of(record->kind);
    struct tri_record *latest = &unread->latest[lane];

    (void)payload;
    if (is_more && latest->kind != 0)
        return;
    report_lost(unread, lane);
    *latest = *record;
    if (is_more && lane == TRI_LANE_DATA)
        latest->kind = record->ask != 0 ? TRI_ASK : TRI_TELL;
}

static void report_unread_locked(struct tri_peer *peer, int reason)
{
    struct unread unread = { .peer = peer, .reason = reason };

    assert(tri_lock_is_held(&peer->lock));
    if (peer->channel == NULL || peer->told_lost ||
        peer->transport->ops->each_unread == NULL)
        return;
    peer->told_lost = true;
    peer->transport->ops->each_unread(peer->channel, on_unread, &unread);
    for (enum tri_lane lane = 0; lane < TRI_LANES; lane++)
        /* The last one that is half sent will be undelivered. If none of its
         * records is unread, nothing before it is. */
        if (peer->outboxes[lane].offset == 0)
            report_lost(&unread, lane);
}

static void drop_outboxes_locked(struct tri_peer *peer, int reason)
{
    struct tri_link_events *events = &peer->link->config.events;

    assert(tri_lock_is_held(&peer->lock));
    tri_pull_settle_locked(peer);
    for (int lane = 0; lane < TRI_LANES; lane++) {
        struct tri_outbox *outbox = &peer->outboxes[lane];

        tri_pull_withdraw_locked(peer, outbox);
        take_inbox_locked(outbox);
        while (outbox->first != NULL)
            events->undelivered(events->context, peer,
                                tri_peer_pop_locked(peer, outbox), reason);
    }
}

void tri_peer_free_outboxes(struct tri_peer *peer)
{
    tri_lock_acquire(&peer->lock);
    for (int lane = 0; lane < TRI_LANES; lane++) {
        struct tri_outbox *outbox = &peer->outboxes[lane];

        tri_pull_withdraw_locked(peer, outbox);
        take_inbox_locked(outbox);
        while (outbox->first != NULL)
            tri_message_free(tri_peer_pop_locked(peer, outbox));
    }
    tri_lock_release(&peer->lock);
}

/* Sends one record of an outbox's first message, or lets the peer have it. */
static int send_piece_locked(struct tri_peer *peer, enum tri_lane lane)
{
    struct tri_outbox *outbox = &peer->outboxes[lane];
    struct tri_message *message = outbox->first;
    struct tri_record header;
    uint32_t bytes;
    int rc;

    if (tri_pull_is_wanted_locked(peer, outbox))
        return tri_pull_expose_locked(peer, lane);
    tri_peer_header(message, &header);
    rc = write_locked(peer, lane, &header, message->payload, outbox->offset,
                      &bytes);
    if (rc != 0)
        return rc;
    outbox->first_counted = true; /* also if it has to begin again */
    outbox->offset += bytes;
    if (outbox->offset >= message->bytes)
        tri_message_free(tri_peer_pop_locked(peer, outbox));
    return 0;
}

/* The first lane that has something to send, but for those in the mask;
 * TRI_LANES: none has. */
static enum tri_lane next_lane_locked(struct tri_peer *peer, unsigned full)
{
    enum tri_lane lane;

    assert(tri_lock_is_held(&peer->lock));
    for (lane = 0; lane < TRI_LANES; lane++) {
        struct tri_outbox *outbox = &peer->outboxes[lane];

        take_inbox_locked(outbox);
        if (outbox->first != NULL && !tri_pull_is_exposed(outbox) &&
            !(full >> lane & 1))
            break;
    }
    return lane;
}

static size_t patient_bytes_max(const struct tri_peer *peer)
{
    return tri_min(peer->link->config.outbox_bytes_max, PATIENT_BYTES_MAX);
}

static void tell_room_locked(struct tri_peer *peer)
{
    struct tri_link *link = peer->link;
    struct tri_outbox *outbox = &peer->outboxes[TRI_LANE_DATA];

    assert(tri_lock_is_held(&peer->lock));
    tri_fence_full(); /* pairs with the one of claim_or_want_room */
    if (tri_likely(!atomic_load_explicit(&outbox->room_wanted,
                                         memory_order_relaxed)) ||
        atomic_load_explicit(&outbox->bytes, memory_order_relaxed) >
            patient_bytes_max(peer) / 2)
        return;
    atomic_store_explicit(&outbox->room_wanted, false, memory_order_relaxed);
    link->config.events.room(link->config.events.context);
}

static bool is_idle_locked(struct tri_peer *peer)
{
    for (int lane = 0; lane < TRI_LANES; lane++) {
        take_inbox_locked(&peer->outboxes[lane]);
        if (peer->outboxes[lane].first != NULL)
            return false;
    }
    return !tri_pull_has_answer(peer);
}

/* Writes as much of the outboxes as the channel takes. */
static void pump_locked(struct tri_peer *peer)
{
    unsigned full = 0; /* lanes, as a mask */
    bool wrote = false;
    enum tri_lane lane;
    int rc;

    tri_pull_settle_locked(peer);
    if (is_idle_locked(peer)) {
        tell_room_locked(peer);
        return;
    }
    rc = connect_locked(peer);
    if (rc == 0)
        rc = tri_pull_answer_locked(peer);
    if (rc == TROUPE_EFULL) {
        full |= 1u << TRI_LANE_CONTROL;
        rc = 0;
    }
    while (rc == 0 && (lane = next_lane_locked(peer, full)) != TRI_LANES) {
        rc = send_piece_locked(peer, lane);
        wrote |= rc == 0;
        if (rc == TROUPE_EFULL) {
            full |= 1u << lane;
            rc = 0;
        }
    }
    if (wrote || full != 0)
        flush_locked(peer);
    if (rc == TROUPE_ENODE)
        report_unread_locked(peer, rc); /* now: before what was behind it */
    if (rc != 0)
        drop_outboxes_locked(peer, rc);
    tell_room_locked(peer);
}

/* --- the peer's lock ------------------------------------------------------ */

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

static bool outbox_is_empty_locked(struct tri_outbox *outbox)
{
    return outbox->first == NULL &&
           atomic_load_explicit(&outbox->inbox, memory_order_relaxed) == NULL;
}

/* --- sending -------------------------------------------------------------- */

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
static inline int send_directly(struct tri_peer *peer, enum tri_lane lane,
                                const struct tri_record *record,
                                const void *payload)
{
    int rc = TROUPE_EFULL;
    uint32_t bytes;

    if (record->total_bytes > peer->transport->record_bytes_max ||
        !peer_lock_try(peer))
        return TROUPE_EFULL;
    if (tri_likely(outbox_is_empty_locked(&peer->outboxes[lane]))) {
        rc = tri_likely(is_connected_locked(peer)) ? 0 : connect_locked(peer);
        if (rc == 0)
            rc = write_locked(peer, lane, record, payload, 0, &bytes);
        if (rc == 0)
            after_commit_locked(peer);
    }
    peer_unlock(peer);
    return rc;
}

/* One message may always wait, however large it is. */
static bool claim_room(struct tri_peer *peer, struct tri_outbox *outbox,
                       size_t bytes, enum tri_send_how how)
{
    size_t before = atomic_fetch_add_explicit(&outbox->bytes, bytes,
                                              memory_order_relaxed);
    size_t max = how == TRI_SEND_PATIENT ? patient_bytes_max(peer)
                                         : peer->link->config.outbox_bytes_max;

    if (before == 0 || before + bytes <= max)
        return true;
    atomic_fetch_sub_explicit(&outbox->bytes, bytes, memory_order_relaxed);
    return false;
}

/* As claim_room; if there is none, `room` will be raised when there is. */
static bool claim_or_want_room(struct tri_peer *peer, struct tri_outbox *outbox,
                               size_t bytes, enum tri_send_how how)
{
    if (claim_room(peer, outbox, bytes, how))
        return true;
    atomic_store_explicit(&outbox->room_wanted, true, memory_order_relaxed);
    tri_fence_full(); /* pairs with the one of tell_room_locked */
    return claim_room(peer, outbox, bytes, how);
}

static int add_to_outbox(struct tri_peer *peer, enum tri_lane lane,
                         struct tri_message *message, enum tri_send_how how)
{
    struct tri_outbox *outbox = &peer->outboxes[lane];
    size_t bytes = message->bytes + sizeof(*message);
    struct tri_message *first;

    if (tri_unlikely(message->slot == 0 && (message->kind == TRI_TELL ||
                                            message->kind == TRI_ASK))) {
        /* nobody is there, and tri_lane_of_more relies on it */
        return TROUPE_ENOACTOR;
    }
    if (lane != TRI_LANE_DATA || how == TRI_SEND_FORCED)
        atomic_fetch_add_explicit(&outbox->bytes, bytes, memory_order_relaxed);
    else if (!claim_or_want_room(peer, outbox, bytes, how))
        return TROUPE_EFULL;
    first = atomic_load_explicit(&outbox->inbox, memory_order_relaxed);
    do {
        message->next = first;
    } while (!atomic_compare_exchange_weak_explicit(
        &outbox->inbox, &first, message, memory_order_release,
        memory_order_relaxed));
    tri_peer_kick(peer);
    return 0;
}

static __attribute__((noinline)) int
send_later(struct tri_peer *peer, enum tri_lane lane,
           const struct tri_record *record, const void *payload, enum tri_send_how how)
{
    struct tri_message *message = tri_message_of_record(record);
    int rc;

    if (message == NULL)
        return TROUPE_ENOMEM;
    if (record->kind == TRI_ASK || record->kind == TRI_RESOLVE)
        message->deadline_ms = tri_coarse_ms() + (uint32_t)record->value;
    if (record->total_bytes > 0)
        memcpy(message->payload, payload, record->total_bytes);
    rc = add_to_outbox(peer, lane, message, how);
    if (rc != 0)
        tri_message_free(message);
    return rc;
}

static inline int send_on(struct tri_peer *peer, enum tri_lane lane,
                          const struct tri_record *record, const void *payload,
                          enum tri_send_how how)
{
    int rc;

    if (tri_unlikely(tri_peer_is_dead(peer)))
        return TROUPE_ENODE;
    rc = send_directly(peer, lane, record, payload);
    return tri_likely(rc != TROUPE_EFULL)
               ? rc
               : send_later(peer, lane, record, payload, how);
}

int tri_link_send(struct tri_peer *peer, const struct tri_record *record,
                  const void *payload, enum tri_send_how how)
{
    return send_on(peer, tri_lane_of(record->kind), record, payload, how);
}

int tri_link_send_message(struct tri_peer *peer, struct tri_message *message,
                          enum tri_send_how how)
{
    enum tri_lane lane = tri_lane_of(message->kind);
    struct tri_record record;
    int rc;

    if (tri_unlikely(tri_peer_is_dead(peer)))
        return TROUPE_ENODE;
    tri_peer_header(message, &record);
    rc = send_directly(peer, lane, &record, message->payload);
    if (rc == 0)
        tri_message_free(message);
    if (rc != TROUPE_EFULL)
        return rc;
    return add_to_outbox(peer, lane, message, how);
}

void tri_peer_say_bye(struct tri_peer *peer)
{
    struct tri_record record = { .kind = TRI_BYE,
                                 .sender_node = peer->link->config.node };

    for (enum tri_lane lane = 0; lane < TRI_LANES; lane++) {
        record.index = (uint16_t)lane;
        send_on(peer, lane, &record, "", true);
    }
}

/* --- death ---------------------------------------------------------------- */

/*
 * What the dying peer had sent may still arrive; it is delivered. The channel
 * is closed under the lock, so that no sender is in it.
 */
void tri_link_kill_for(struct tri_peer *peer, const char *why)
{
    struct tri_link_events *events = &peer->link->config.events;

    if (atomic_exchange_explicit(&peer->state, TRI_PEER_DEAD,
                                 memory_order_acq_rel) == TRI_PEER_DEAD)
        return;
    peer->why = why;
    /* release: who sees the number finds the peer dead */
    atomic_fetch_add_explicit(&peer->link->deaths, 1, memory_order_release);
    tri_lock_acquire(&peer->lock);
    /* As in peer_run_locked: nobody waits for us while others are called. */
    atomic_store_explicit(&peer->lock.held, LOCK_LONG, memory_order_relaxed);
    tri_fence_full();
    report_unread_locked(peer, TROUPE_ENODE);
    drop_outboxes_locked(peer, TROUPE_ENODE);
    drop_channel_locked(peer);
    peer_unlock(peer);
    events->died(events->context, peer);
}

void tri_link_kill(struct tri_peer *peer)
{
    tri_link_kill_for(peer, "its process has ended");
}
