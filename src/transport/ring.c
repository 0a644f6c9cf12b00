/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The transport between processes of one host: a segment of shared memory with
 * two SPSC queues (ring_queue.h) for each ordered pair of nodes that talks,
 * made by the sender at its first connect, and a doorbell for each node.
 *
 * Lanes: data has one queue, control and replies share the other, the urgent
 * one, which poll looks at first. Replies leave room for some control records
 * there. A data queue whose record the link refuses is left alone until it says
 * `resume`; the records stay in the segment, where the sender finds the queue
 * full.
 *
 * Memory: an inbound segment takes at most 11 MiB / peers_len (rounded up to a
 * power of two), but at least 48 KiB and at most 552 KiB, so that the segments
 * of all who send to a node stay within max(11 MiB, peers_len * 48 KiB). Pages
 * count when first written: 12 KiB for a message, up to half of the whole while
 * no large ones are sent.
 *
 *                  data                    urgent
 *     peers_len    lines    slots          lines   slots          segment
 *     up to 16   128 KiB   8 x 32 KiB     32 KiB   4 x 32 KiB     552 KiB
 *           32    64 KiB   5 x 32 KiB     16 KiB   2 x 32 KiB     312 KiB
 *           64    32 KiB   5 x 16 KiB      8 KiB   2 x 16 KiB     160 KiB
 *          128    16 KiB   5 x  8 KiB      8 KiB   2 x  8 KiB      88 KiB
 *   256 and up     8 KiB   2 x  8 KiB      8 KiB   1 x  8 KiB      48 KiB
 *
 * A record's payload is at most a slot.
 *
 * Shares are cut for the peers_len that are known at start. Nodes that join
 * later come on top, with segments of the same size; peers_max only bounds
 * their number.
 *
 * Descriptors: two a peer (its pidfd and its eventfd), five during the
 * handshake.
 */

#include "transport/ring.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "os/shm.h"

#define SHARE_OF_NODE (8u << 20)
#define SHARE_MIN (32u << 10)
#define SHARE_MAX (512u << 10)
#define RING_BYTES_MIN (8u << 10)
#define RING_BYTES_MAX (128u << 10)
#define SLOT_BYTES_MIN (8u << 10)
#define SLOTS_MAX 8u
/* The urgent queue has a quarter of the lines, within these. */
#define URGENT_BYTES_MIN (8u << 10)
#define URGENT_BYTES_MAX (32u << 10)
/* Lines of the urgent queue that replies leave to control. */
#define CONTROL_LINES 16u

/* Records taken from one ring before the next one has its turn. */
#define TURN_RECORDS 64u
/* Channels told at once that they are writable. */
#define WRITABLE_MAX 16u

struct ring_address {
    uint64_t node;
    uint32_t version;
    uint32_t pid; /* for a reader's eye */
};

static struct ring *ring_of(struct tri_transport *transport)
{
    return tri_container_of(transport, struct ring, base);
}

static struct ring_channel *channel_of(struct tri_channel *channel)
{
    return tri_container_of(channel, struct ring_channel, base);
}

/* For the data queue. */
static struct tri_ring_shape data_shape(uint32_t peers_len)
{
    size_t share = SHARE_OF_NODE / tri_max(tri_pow2_up(peers_len), 1);
    size_t lines, slot, slots;

    share = tri_min(tri_max(share, SHARE_MIN), SHARE_MAX);
    lines = tri_min(tri_max(share / 4, RING_BYTES_MIN), RING_BYTES_MAX);
    slot = tri_min(tri_max(share / 8, SLOT_BYTES_MIN), TRI_RECORD_BYTES_MAX);
    slots = tri_min((share - lines - TRI_RING_CONTROL_BYTES) / slot, SLOTS_MAX);
    return (struct tri_ring_shape){
        .line_count = (uint32_t)(lines / TRI_RING_LINE),
        .slot_count = (uint32_t)slots,
        .slot_bytes = (uint32_t)slot,
    };
}

static struct tri_ring_shape urgent_shape(const struct tri_ring_shape *data)
{
    size_t lines = (size_t)data->line_count * TRI_RING_LINE / 4;

    lines = tri_min(tri_max(lines, URGENT_BYTES_MIN), URGENT_BYTES_MAX);
    return (struct tri_ring_shape){
        .line_count = (uint32_t)(lines / TRI_RING_LINE),
        .slot_count = data->slot_count / 2,
        .slot_bytes = data->slot_bytes,
    };
}

static int ring_open(const struct tri_transport_config *config,
                     struct tri_transport **transport_p)
{
    struct ring *ring = calloc(1, sizeof(*ring));
    int error;

    if (!ring)
        goto fail;
    ring->config = *config;
    ring->shapes[RING_DATA] = data_shape(ring_peers_len(ring));
    ring->shapes[RING_URGENT] = urgent_shape(&ring->shapes[RING_DATA]);
    ring->cma = (int)config->cma;
    /* One more than peers: a node may talk to itself. */
    ring->ins_max = config->peers_max + 1;
    ring->ins = calloc(ring->ins_max, sizeof(*ring->ins));
    if (!ring->ins)
        goto fail_ring;
    error = ring_listen(ring);
    if (error) {
        free(ring->ins);
        free(ring);
        return error;
    }
    pthread_mutex_init(&ring->lock, NULL);
    ring->base.ops = &tri_transport_ring;
    ring->base.record_bytes_max = ring->shapes[RING_DATA].slot_bytes;
    *transport_p = &ring->base;
    return 0;

fail_ring:
    free(ring);
fail:
    tri_error("ring: out of memory");
    return TROUPE_ENOMEM;
}

static void ring_address(struct tri_transport *transport,
                         struct tri_address *address_p)
{
    struct ring_address address = { .node = ring_of(transport)->config.node,
                                    .version = RING_VERSION,
                                    .pid = (uint32_t)getpid() };

    *address_p = (struct tri_address){ .bytes = sizeof(address) };
    memcpy(address_p->data, &address, sizeof(address));
}

static int ring_connect(struct tri_transport *transport, uint64_t node,
                        const struct tri_address *address, void *peer,
                        struct tri_channel **channel_p)
{
    struct ring *ring = ring_of(transport);
    struct ring_address target;
    struct ring_channel *channel;
    int error;

    if (address->bytes != sizeof(target))
        return TROUPE_ETRANSPORT;
    memcpy(&target, address->data, sizeof(target));
    if (target.node != node || target.version != RING_VERSION)
        return TROUPE_ETRANSPORT;
    channel = aligned_alloc(TRI_CACHE_LINE, sizeof(*channel));
    if (!channel)
        return TROUPE_ENOMEM;
    memset(channel, 0, sizeof(*channel));
    channel->base.transport = transport;
    channel->context = peer;
    channel->map_bytes = ring_segment_bytes(ring->shapes, RING_QUEUES);
    error = tri_shm_create("troupe-ring", channel->map_bytes,
                           &channel->segment_fd, &channel->map);
    if (error)
        goto fail_channel;
    for (unsigned q = 0; q < RING_QUEUES; q++)
        tri_ring_tx_init(&channel->tx[q],
                         (char *)channel->map +
                             ring_segment_bytes(ring->shapes, q),
                         &ring->shapes[q]);
    error = ring_call(ring, node, channel);
    if (error)
        goto fail_map;
    *channel_p = &channel->base;
    return 0;

fail_map:
    close(channel->segment_fd);
    tri_shm_unmap(channel->map, channel->map_bytes);
fail_channel:
    free(channel);
    return error;
}

/* Tells the peer's poller that there is something. */
static inline void ring_bell(struct ring_channel *channel)
{
    /* Pairs with the release store in handle_welcome_locked. */
    struct tri_bell *bell =
        atomic_load_explicit(&channel->bell, memory_order_acquire);

    if (tri_unlikely(!bell)) {
        /* Once more behind a fence: either we see the bell, or who attaches
         * it and rings then makes the peer see our record. */
        tri_fence_full();
        bell = atomic_load_explicit(&channel->bell, memory_order_acquire);
        if (!bell)
            return;
    }
    tri_bell_ring(bell);
}

static void set_waiting(struct ring *ring, struct ring_channel *channel,
                        enum ring_queue q, bool waiting)
{
    if (atomic_exchange(&channel->waiting[q], waiting) == waiting)
        return;
    if (waiting)
        atomic_fetch_add(&ring->waiting, 1);
    else
        atomic_fetch_sub(&ring->waiting, 1);
}

/* Lets go of a channel that nobody points to any more. */
static void channel_free_locked(struct ring *ring,
                                struct ring_channel *channel,
                                enum tri_ring_end end)
{
    for (unsigned q = 0; q < RING_QUEUES; q++) {
        tri_ring_tx_close(&channel->tx[q], end);
        set_waiting(ring, channel, q, false);
    }
    ring_bell(channel);
    ring_retry_end_locked(ring, channel);
    tri_shm_unmap(channel->map, channel->map_bytes);
    ring_peer_release_locked(ring, channel->peer);
    free(channel);
}

static void ring_disconnect(struct tri_channel *base)
{
    struct ring_channel *channel = channel_of(base);
    struct ring *ring = ring_of(base->transport);
    struct ring_channel **link = &ring->channels;

    pthread_mutex_lock(&ring->lock);
    while (*link != channel)
        link = &(*link)->next;
    *link = channel->next;
    for (struct ring_shake *s = ring->shakes; s; s = s->next)
        if (s->channel == channel)
            s->channel = NULL;
    channel_free_locked(ring, channel, TRI_RING_DISCONNECTED);
    pthread_mutex_unlock(&ring->lock);
}

static bool peer_is_gone(const struct ring_channel *channel)
{
    return atomic_load_explicit(&channel->dead, memory_order_relaxed) ||
           atomic_load_explicit(&channel->tx[RING_DATA].control->gone,
                                memory_order_relaxed);
}

static inline enum ring_queue queue_of(enum tri_lane lane)
{
    return lane == TRI_LANE_DATA ? RING_DATA : RING_URGENT;
}

static inline uint32_t keep_of(enum tri_lane lane)
{
    return lane == TRI_LANE_REPLY ? CONTROL_LINES : 0;
}

/* No room: asks to be told when there is. */
static __attribute__((noinline)) int wait_for_room(
    struct ring_channel *channel, enum tri_lane lane, size_t bytes,
    struct tri_span *span_p)
{
    struct ring *ring = ring_of(channel->base.transport);
    struct tri_ring_tx *tx = &channel->tx[queue_of(lane)];

    if (peer_is_gone(channel))
        return TROUPE_ENODE;
    if (!tri_ring_tx_want(tx, bytes, keep_of(lane)))
        return tri_ring_reserve(tx, bytes, keep_of(lane), span_p);
    set_waiting(ring, channel, queue_of(lane), true);
    /* Pairs with the fence of tri_bell_arm. */
    tri_fence_full();
    /* Who sleeps may have looked before that; who polls will look again. The
     * consumer rings for the room, but not for its end. */
    if (peer_is_gone(channel) || tri_ring_has_room(tx->control))
        tri_bell_ring(ring->config.bell);
    return TROUPE_EFULL;
}

static int ring_reserve(struct tri_channel *base, enum tri_lane lane,
                        size_t bytes, struct tri_span *span_p)
{
    struct ring_channel *channel = channel_of(base);
    int error;

    assert(bytes <= base->transport->record_bytes_max);
    if (tri_unlikely(
            atomic_load_explicit(&channel->dead, memory_order_relaxed)))
        return TROUPE_ENODE;
    channel->lane = lane;
    error = tri_ring_reserve(&channel->tx[queue_of(lane)], bytes,
                             keep_of(lane), span_p);
    return tri_likely(!error) ? 0
                              : wait_for_room(channel, lane, bytes, span_p);
}

static void ring_commit(struct tri_channel *base)
{
    struct ring_channel *channel = channel_of(base);
    struct tri_ring_tx *tx = &channel->tx[queue_of(channel->lane)];

    assert(tx->header.bytes <= base->transport->record_bytes_max);
    tri_ring_commit(tx, channel->lane == TRI_LANE_CONTROL ? TRI_RING_MARK : 0);
    ring_bell(channel);
}

static void ring_each_unread(struct tri_channel *base,
                             void (*unread)(void *context,
                                            const struct tri_record *record,
                                            const void *payload),
                             void *context)
{
    struct ring_channel *channel = channel_of(base);

    for (unsigned q = 0; q < RING_QUEUES; q++)
        tri_ring_tx_each_unread(&channel->tx[q], unread, context);
}

static uint64_t ring_unread(struct tri_channel *base)
{
    struct ring_channel *channel = channel_of(base);
    uint64_t unread = 0;

    for (unsigned q = 0; q < RING_QUEUES; q++)
        unread += tri_ring_tx_unread(&channel->tx[q]);
    return unread;
}

/*
 * The inbound ring of this place whose queue q is polled: the oldest one where
 * it is not over. A data queue whose records are refused so holds up the data
 * of the peer's next connection, but not the rest of it.
 */
static inline struct ring_in *in_of(struct ring *ring, unsigned slot,
                                    enum ring_queue q)
{
    /* Both pair with the release stores of show_in_locked. */
    struct ring_in *in =
        atomic_load_explicit(&ring->ins[slot], memory_order_acquire);

    while (in && tri_unlikely(in->over[q]))
        in = atomic_load_explicit(&in->next, memory_order_acquire);
    return in;
}

static bool is_over(const struct ring_in *in)
{
    return in->over[RING_URGENT] && in->over[RING_DATA];
}

/* Takes an inbound ring off the list; the peer's next one takes its place. */
static void drop_in(struct ring *ring, unsigned slot, struct ring_in *in)
{
    struct ring_peer *peer = in->peer;

    for (unsigned q = 0; q < RING_QUEUES; q++) {
        tri_ring_tell_head(&in->rx[q]);
        atomic_store(&in->rx[q].control->gone, 1);
    }
    pthread_mutex_lock(&ring->lock);
    assert(peer->first_in == in);
    peer->first_in = atomic_load(&in->next);
    atomic_store(&ring->ins[slot], peer->first_in);
    if (!peer->dead)
        tri_bell_ring(&peer->bell);
    ring_peer_release_locked(ring, peer);
    pthread_mutex_unlock(&ring->lock);
    tri_shm_unmap(in->map, in->map_bytes);
    free(in);
}

/* A ring came to its end, by its producer's will, its death or because of
 * garbage. Drops it, and tells of it. */
static void end_in(struct ring *ring, unsigned slot, struct ring_in *in)
{
    const struct tri_transport_events *events = &ring->config.events;
    uint64_t node = in->peer->node;
    void *context = in->context;
    bool garbage = in->garbage;
    bool lost = garbage || in->rx[RING_DATA].end == TRI_RING_LEFT;

    drop_in(ring, slot, in);
    if (events->ended)
        events->ended(events->context, context);
    if (garbage) {
        tri_warn("ring: malformed record from node %016" PRIx64, node);
        events->garbage(events->context, "ring: malformed record");
    }
    if (lost)
        events->lost(events->context, node, TRI_EVIDENCE_STRONG);
}

/* A pass over a queue found nothing more, or had its share. */
static inline void end_pass(struct ring_in *in, enum ring_queue q,
                            enum tri_ring_found found, bool progress)
{
    if (tri_unlikely(found == TRI_RING_CLOSED)) {
        in->over[q] = true;
    } else if (tri_unlikely(found == TRI_RING_GARBAGE)) {
        /* What its other queue holds is worth no more. */
        in->garbage = true;
        in->over[RING_URGENT] = in->over[RING_DATA] = true;
    } else if (tri_unlikely(tri_ring_settle(&in->rx[q], progress))) {
        tri_bell_ring(&in->peer->bell);
    }
}

/* A record was taken from a ring that is forsaken. False: it was the last. */
static __attribute__((noinline)) bool count_rest(struct ring_in *in,
                                                 enum ring_queue q)
{
    in->over[q] = --in->rest[q] == 0;
    return !in->over[q];
}

/* False: no other one of this queue is to be taken. */
static inline bool take_record(struct ring_in *in, enum ring_queue q)
{
    tri_ring_release(&in->rx[q]);
    return tri_likely(!in->forsaken) || count_rest(in, q);
}

/* Raises one record's event. False: it is not done with it, or refuses it. */
static inline bool raise_record(struct ring *ring, struct ring_in *in,
                                enum tri_lane lane,
                                const struct tri_record *record,
                                const void *payload)
{
    const struct tri_transport_events *events = &ring->config.events;

    if (tri_unlikely(record->kind == TRI_PULL) && events->pull)
        return events->pull(events->context, in->context, record, payload);
    return events->record(events->context, in->context, lane, record, payload);
}

/* A PULL that is not done keeps its place; a large reply so holds up control
 * for as long as it is read. */
static unsigned poll_urgent(struct ring *ring, struct ring_in *in,
                            unsigned budget)
{
    struct tri_ring_rx *rx = &in->rx[RING_URGENT];
    enum tri_ring_found found = TRI_RING_RECORD;
    struct tri_record record;
    const void *payload;
    unsigned n = 0;

    while (n < budget && (found = tri_ring_next(rx, &record, &payload)) ==
                             TRI_RING_RECORD) {
        enum tri_lane lane = rx->take_mark ? TRI_LANE_CONTROL : TRI_LANE_REPLY;

        n++;
        if (!raise_record(ring, in, lane, &record, payload)) {
            assert(record.kind == TRI_PULL);
            break;
        }
        if (!take_record(in, RING_URGENT))
            break;
    }
    end_pass(in, RING_URGENT, found, n > 0);
    return n;
}

/* The link does not take the first record: it stays where it is, and costs
 * nothing until it is resumed. */
static __attribute__((noinline)) void refuse(struct ring_in *in)
{
    in->refused = true;
    if (tri_ring_pause(&in->rx[RING_DATA]))
        tri_bell_ring(&in->peer->bell);
}

static unsigned poll_data(struct ring *ring, struct ring_in *in,
                          unsigned budget)
{
    struct tri_ring_rx *rx = &in->rx[RING_DATA];
    enum tri_ring_found found = TRI_RING_RECORD;
    struct tri_record record;
    const void *payload;
    unsigned n = 0;

    while (n < budget && (found = tri_ring_next(rx, &record, &payload)) ==
                             TRI_RING_RECORD) {
        if (tri_unlikely(!raise_record(ring, in, TRI_LANE_DATA, &record,
                                       payload))) {
            if (record.kind != TRI_PULL) {
                refuse(in);
                return n;
            }
            n++; /* a part was read; others first */
            break;
        }
        n++;
        if (!take_record(in, RING_DATA))
            break;
    }
    end_pass(in, RING_DATA, found, n > 0);
    return n;
}

/* A channel said EFULL and need not any more. */
static bool can_go_on(const struct ring_channel *channel, enum ring_queue q)
{
    /* Acquire: the needs were written before. */
    return atomic_load_explicit(&channel->waiting[q], memory_order_acquire) &&
           (peer_is_gone(channel) ||
            tri_ring_has_room(channel->tx[q].control));
}

/* Collects channels that can go on. Returns how many. */
static unsigned take_writable(struct ring *ring, void **contexts)
{
    unsigned n = 0;

    pthread_mutex_lock(&ring->lock);
    for (struct ring_channel *c = ring->channels; c; c = c->next) {
        bool can = false;

        if (n == WRITABLE_MAX)
            break;
        for (unsigned q = 0; q < RING_QUEUES; q++)
            if (can_go_on(c, q)) {
                set_waiting(ring, c, q, false);
                can = true;
            }
        if (can)
            contexts[n++] = c->context;
    }
    pthread_mutex_unlock(&ring->lock);
    return n;
}

static void tell_writable(struct ring *ring)
{
    const struct tri_transport_events *events = &ring->config.events;
    void *contexts[WRITABLE_MAX];
    unsigned n;

    do {
        n = take_writable(ring, contexts);
        for (unsigned i = 0; i < n; i++)
            events->writable(events->context, contexts[i]);
    } while (n == WRITABLE_MAX);
}

/* The peer is dead, or the link says so. */
static bool peer_is_dead(struct ring *ring, const struct ring_in *in)
{
    bool dead;

    if (in->forsaken)
        return true;
    pthread_mutex_lock(&ring->lock);
    dead = in->peer->dead;
    pthread_mutex_unlock(&ring->lock);
    return dead;
}

static bool is_drained(const struct ring_in *in, enum ring_queue q)
{
    return in->over[q] || tri_ring_is_empty(&in->rx[q]);
}

/*
 * What the dead have written before is delivered; then their rings go. One with
 * refused records waits for `resume`.
 */
static void drop_dead(struct ring *ring)
{
    bool more = false;

    atomic_store(&ring->deaths, false);
    for (unsigned i = 0; i < atomic_load(&ring->ins_count); i++) {
        struct ring_in *in = atomic_load(&ring->ins[i]);

        if (!in || !peer_is_dead(ring, in))
            continue;
        if (!is_drained(in, RING_URGENT) ||
            (!in->refused && !is_drained(in, RING_DATA))) {
            more = true;
        } else if (!in->refused) {
            more |= atomic_load(&in->next) != NULL;
            end_in(ring, i, in);
        }
    }
    if (more)
        atomic_store(&ring->deaths, true);
}

/* The place whose turn it is; the next call gives the next one. */
static inline unsigned take_turn(struct ring *ring, enum ring_queue q,
                                 unsigned count)
{
    unsigned slot = ring->turns[q] < count ? ring->turns[q] : 0;

    ring->turns[q] = slot + 1;
    return slot;
}

static unsigned poll_urgents(struct ring *ring, unsigned count,
                             unsigned budget)
{
    unsigned n = 0;

    for (unsigned i = 0; i < count && n < budget; i++) {
        unsigned slot = take_turn(ring, RING_URGENT, count);
        struct ring_in *in = in_of(ring, slot, RING_URGENT);

        if (in && !tri_ring_is_quiet(&in->rx[RING_URGENT]))
            n += poll_urgent(ring, in,
                             (unsigned)tri_min(budget - n, TURN_RECORDS));
    }
    return n;
}

static unsigned poll_datas(struct ring *ring, unsigned count, unsigned budget)
{
    unsigned n = 0;

    for (unsigned i = 0; i < count && n < budget; i++) {
        unsigned slot = take_turn(ring, RING_DATA, count);
        struct ring_in *in = in_of(ring, slot, RING_DATA);

        if (in && tri_likely(!in->refused))
            n += poll_data(ring, in,
                           (unsigned)tri_min(budget - n, TURN_RECORDS));
        in = atomic_load_explicit(&ring->ins[slot], memory_order_relaxed);
        if (tri_unlikely(in && is_over(in)))
            end_in(ring, slot, in);
    }
    return n;
}

/* Each kind of queue has the whole budget, so that a flood of one does not stop
 * the other. */
static unsigned ring_poll(struct tri_transport *transport, unsigned budget)
{
    struct ring *ring = ring_of(transport);
    unsigned count =
        atomic_load_explicit(&ring->ins_count, memory_order_acquire);
    unsigned n = poll_urgents(ring, count, budget);

    n += poll_datas(ring, count, budget);
    if (tri_unlikely(
            atomic_load_explicit(&ring->waiting, memory_order_relaxed)))
        tell_writable(ring);
    if (tri_unlikely(
            atomic_load_explicit(&ring->deaths, memory_order_relaxed)))
        drop_dead(ring);
    return n;
}

/* The link holds its node for dead, which may go on writing: what is in there
 * now is delivered, then it ends. Each record has a line of its own. */
static void forsake(struct ring *ring, struct ring_in *in)
{
    if (in->forsaken)
        return;
    in->forsaken = true;
    for (unsigned q = 0; q < RING_QUEUES; q++)
        in->rest[q] = in->rx[q].shape.line_count;
    atomic_store(&ring->deaths, true);
}

static void resume_in(struct ring *ring, struct ring_in *in)
{
    const struct tri_transport_events *events = &ring->config.events;

    if (events->address &&
        !events->address(events->context, in->peer->node))
        forsake(ring, in);
    if (!in->refused)
        return;
    in->refused = false;
    if (peer_is_dead(ring, in))
        atomic_store(&ring->deaths, true);
}

/* Only marks it: the next poll, which `pending` asks for, raises it again. */
static void ring_resume(struct tri_transport *transport, void *peer)
{
    struct ring *ring = ring_of(transport);
    unsigned count =
        atomic_load_explicit(&ring->ins_count, memory_order_acquire);

    for (unsigned slot = 0; slot < count; slot++) {
        struct ring_in *in =
            atomic_load_explicit(&ring->ins[slot], memory_order_acquire);

        for (; in && in->context == peer; in = atomic_load(&in->next))
            resume_in(ring, in);
    }
}

static bool ring_is_forgotten(struct tri_transport *transport,
                              const void *peer)
{
    struct ring *ring = ring_of(transport);
    unsigned count =
        atomic_load_explicit(&ring->ins_count, memory_order_acquire);
    bool found = false;

    for (unsigned slot = 0; slot < count && !found; slot++) {
        const struct ring_in *in =
            atomic_load_explicit(&ring->ins[slot], memory_order_acquire);

        found = in && in->context == peer;
    }
    pthread_mutex_lock(&ring->lock);
    for (struct ring_channel *c = ring->channels; c && !found; c = c->next)
        found = c->context == peer;
    pthread_mutex_unlock(&ring->lock);
    return !found;
}

static bool any_writable(struct ring *ring)
{
    bool any = false;

    pthread_mutex_lock(&ring->lock);
    for (struct ring_channel *c = ring->channels; c && !any; c = c->next)
        any = can_go_on(c, RING_URGENT) || can_go_on(c, RING_DATA);
    pthread_mutex_unlock(&ring->lock);
    return any;
}

static bool ring_pending(struct tri_transport *transport)
{
    struct ring *ring = ring_of(transport);
    unsigned count =
        atomic_load_explicit(&ring->ins_count, memory_order_acquire);

    if (atomic_load(&ring->deaths))
        return true;
    for (unsigned slot = 0; slot < count; slot++) {
        const struct ring_in *in = in_of(ring, slot, RING_URGENT);

        if (in && tri_ring_pending(&in->rx[RING_URGENT]))
            return true;
        in = in_of(ring, slot, RING_DATA);
        if (in && !in->refused && tri_ring_pending(&in->rx[RING_DATA]))
            return true;
        in = atomic_load_explicit(&ring->ins[slot], memory_order_relaxed);
        if (in && is_over(in))
            return true;
    }
    return atomic_load(&ring->waiting) && any_writable(ring);
}

static int ring_wait_fd(struct tri_transport *transport)
{
    (void)transport;
    return -1;
}

static int ring_control_fd(struct tri_transport *transport)
{
    return ring_of(transport)->epoll_fd;
}

static void ring_close(struct tri_transport *transport)
{
    struct ring *ring = ring_of(transport);

    pthread_mutex_lock(&ring->lock);
    while (ring->channels) {
        struct ring_channel *channel = ring->channels;

        ring->channels = channel->next;
        channel_free_locked(ring, channel, TRI_RING_LEFT);
    }
    pthread_mutex_unlock(&ring->lock);
    for (unsigned i = 0; i < ring->ins_max; i++)
        while (atomic_load(&ring->ins[i]))
            drop_in(ring, i, atomic_load(&ring->ins[i]));
    ring_hang_up(ring);
    assert(!ring->peers);
    pthread_mutex_destroy(&ring->lock);
    free(ring->ins);
    free(ring);
}

const struct tri_transport_ops tri_transport_ring = {
    .name = "ring",
    .open = ring_open,
    .close = ring_close,
    .address = ring_address,
    .connect = ring_connect,
    .disconnect = ring_disconnect,
    .reserve = ring_reserve,
    .commit = ring_commit,
    .each_unread = ring_each_unread,
    .unread = ring_unread,
    .pull_bytes_min = ring_pull_bytes_min,
    .pull = ring_pull,
    .poll = ring_poll,
    .pending = ring_pending,
    .resume = ring_resume,
    .is_forgotten = ring_is_forgotten,
    .wait_fd = ring_wait_fd,
    .control_fd = ring_control_fd,
    .control = ring_control,
};
