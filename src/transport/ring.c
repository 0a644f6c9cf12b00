/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The transport between processes of one host: an SPSC queue in shared memory
 * (ring_queue.h) for each ordered pair of nodes that talks, made by the sender
 * at its first connect, and a doorbell for each node.
 *
 * Memory: an inbound segment takes at most 8 MiB / peers_max (rounded up to a
 * power of two), but at least 28 KiB and at most 388 KiB, so that the segments
 * of all who send to a node stay within max(8 MiB, peers_max * 28 KiB). Pages
 * count when first written.
 *
 *     peers_max     lines   slots       record payload   segment
 *     up to 16    128 KiB   8 x 32 KiB          32 KiB   388 KiB
 *           32     64 KiB   5 x 32 KiB          32 KiB   228 KiB
 *           64     32 KiB   5 x 16 KiB          16 KiB   116 KiB
 *          128     16 KiB   5 x  8 KiB           8 KiB    60 KiB
 *   256 and up      8 KiB   2 x  8 KiB           8 KiB    28 KiB
 *
 * Descriptors: two a peer (its pidfd and its eventfd), four during the
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

static struct tri_ring_shape shape_for(uint32_t peers_max)
{
    size_t share = SHARE_OF_NODE / tri_max(tri_pow2_up(peers_max), 1);
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

static int ring_open(const struct tri_transport_config *config,
                     struct tri_transport **transport_p)
{
    struct ring *ring = calloc(1, sizeof(*ring));
    int error;

    if (!ring)
        goto fail;
    ring->config = *config;
    ring->shape = shape_for(config->peers_max);
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
    ring->base.record_bytes_max = ring->shape.slot_bytes;
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
    void *map;
    int fd, error;

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
    channel->map_bytes = tri_ring_bytes(&ring->shape);
    error = tri_shm_create("troupe-ring", channel->map_bytes, &fd, &map);
    if (error)
        goto fail_channel;
    tri_ring_tx_init(&channel->tx, map, &ring->shape);
    error = ring_call(ring, node, channel, fd);
    close(fd);
    if (error)
        goto fail_map;
    *channel_p = &channel->base;
    return 0;

fail_map:
    tri_shm_unmap(map, channel->map_bytes);
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
                        bool waiting)
{
    if (atomic_exchange(&channel->waiting, waiting) == waiting)
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
    tri_ring_tx_close(&channel->tx, end);
    ring_bell(channel);
    set_waiting(ring, channel, false);
    tri_shm_unmap(channel->tx.control, channel->map_bytes);
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
           atomic_load_explicit(&channel->tx.control->gone,
                                memory_order_relaxed);
}

/* No room: asks to be told when there is. */
static __attribute__((noinline)) int wait_for_room(
    struct ring_channel *channel, size_t bytes, struct tri_span *span_p)
{
    struct ring *ring = ring_of(channel->base.transport);

    if (peer_is_gone(channel))
        return TROUPE_ENODE;
    if (!tri_ring_tx_want(&channel->tx, bytes))
        return tri_ring_reserve(&channel->tx, bytes, span_p);
    set_waiting(ring, channel, true);
    /* Pairs with the fence of tri_bell_arm. */
    tri_fence_full();
    /* Who sleeps may have looked before that; who polls will look again. The
     * consumer rings for the room, but not for its end. */
    if (peer_is_gone(channel) || tri_ring_has_room(channel->tx.control))
        tri_bell_ring(ring->config.bell);
    return TROUPE_EFULL;
}

static int ring_reserve(struct tri_channel *base, enum tri_lane lane,
                        size_t bytes, struct tri_span *span_p)
{
    struct ring_channel *channel = channel_of(base);
    int error;

    assert(bytes <= base->transport->record_bytes_max);
    (void)lane;
    if (tri_unlikely(
            atomic_load_explicit(&channel->dead, memory_order_relaxed)))
        return TROUPE_ENODE;
    error = tri_ring_reserve(&channel->tx, bytes, span_p);
    return tri_likely(!error) ? 0 : wait_for_room(channel, bytes, span_p);
}

static void ring_commit(struct tri_channel *base)
{
    struct ring_channel *channel = channel_of(base);

    assert(channel->tx.header.bytes <= base->transport->record_bytes_max);
    tri_ring_commit(&channel->tx);
    ring_bell(channel);
}

static uint64_t ring_unread(struct tri_channel *base)
{
    struct ring_channel *channel = channel_of(base);

    /* What nobody will read is not worth waiting for. */
    return peer_is_gone(channel) ? 0 : tri_ring_tx_unread(&channel->tx);
}

/* Takes an inbound ring off the list; the peer's next one takes its place. */
static void drop_in(struct ring *ring, unsigned slot, struct ring_in *in)
{
    struct ring_peer *peer = in->peer;

    atomic_store(&in->rx.control->gone, 1);
    pthread_mutex_lock(&ring->lock);
    assert(peer->first_in == in);
    peer->first_in = in->next;
    atomic_store(&ring->ins[slot], in->next);
    if (!peer->dead)
        tri_bell_ring(&peer->bell);
    ring_peer_release_locked(ring, peer);
    pthread_mutex_unlock(&ring->lock);
    tri_shm_unmap(in->rx.control, in->map_bytes);
    free(in);
}

/* As drop_in, and tells of it. */
static void finish_in(struct ring *ring, unsigned slot, struct ring_in *in)
{
    const struct tri_transport_events *events = &ring->config.events;
    void *context = in->context;

    drop_in(ring, slot, in);
    if (events->ended)
        events->ended(events->context, context);
}

/* A ring came to its end, by its producer's will or because of garbage. */
static void end_in(struct ring *ring, unsigned slot, struct ring_in *in,
                   enum tri_ring_found found)
{
    const struct tri_transport_events *events = &ring->config.events;
    uint64_t node = in->peer->node;
    bool lost = found == TRI_RING_GARBAGE || in->rx.end == TRI_RING_LEFT;

    finish_in(ring, slot, in);
    if (found == TRI_RING_GARBAGE) {
        tri_warn("ring: malformed record from node %016" PRIx64, node);
        events->garbage(events->context, "ring: malformed record");
    }
    if (lost)
        events->lost(events->context, node, TRI_EVIDENCE_STRONG);
}

static unsigned poll_in(struct ring *ring, unsigned slot, struct ring_in *in,
                        unsigned budget)
{
    const struct tri_transport_events *events = &ring->config.events;
    enum tri_ring_found found = TRI_RING_RECORD;
    struct tri_record record;
    const void *payload;
    unsigned n = 0;

    while (n < budget &&
           (found = tri_ring_next(&in->rx, &record, &payload)) ==
               TRI_RING_RECORD) {
        n++;
        if (tri_likely(record.kind != TRI_PULL) || !events->pull)
            events->record(events->context, in->context,
                           tri_lane_of(record.kind), &record, payload);
        else if (!events->pull(events->context, in->context, &record, payload))
            break; /* others first; the record stays where it is */
        tri_ring_release(&in->rx);
    }
    if (tri_unlikely(found == TRI_RING_CLOSED || found == TRI_RING_GARBAGE))
        end_in(ring, slot, in, found);
    else if (tri_unlikely(tri_ring_settle(&in->rx, n > 0)))
        tri_bell_ring(&in->peer->bell);
    return n;
}

/* Collects channels that can go on. Returns how many. */
static unsigned take_writable(struct ring *ring, void **contexts)
{
    unsigned n = 0;

    pthread_mutex_lock(&ring->lock);
    for (struct ring_channel *c = ring->channels; c; c = c->next) {
        if (n == WRITABLE_MAX)
            break;
        /* Acquire: the needs were written before. */
        if (!atomic_load_explicit(&c->waiting, memory_order_acquire))
            continue;
        if (!peer_is_gone(c) && !tri_ring_has_room(c->tx.control))
            continue;
        set_waiting(ring, c, false);
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

/* What the dead have written before is delivered; then their rings go. */
static void drop_dead(struct ring *ring)
{
    bool more = false;

    atomic_store(&ring->deaths, false);
    for (unsigned i = 0; i < atomic_load(&ring->ins_count); i++) {
        struct ring_in *in = atomic_load(&ring->ins[i]);
        bool dead;

        if (!in)
            continue;
        pthread_mutex_lock(&ring->lock);
        dead = in->peer->dead;
        pthread_mutex_unlock(&ring->lock);
        if (!dead)
            continue;
        more |= !tri_ring_is_empty(&in->rx) || in->next;
        if (tri_ring_is_empty(&in->rx))
            finish_in(ring, i, in);
    }
    if (more)
        atomic_store(&ring->deaths, true);
}

static unsigned ring_poll(struct tri_transport *transport, unsigned budget)
{
    struct ring *ring = ring_of(transport);
    unsigned count =
        atomic_load_explicit(&ring->ins_count, memory_order_acquire);
    unsigned n = 0;

    for (unsigned i = 0; i < count && n < budget; i++) {
        unsigned slot = ring->turn < count ? ring->turn : 0;
        /* Pairs with the release store of show_in_locked. */
        struct ring_in *in =
            atomic_load_explicit(&ring->ins[slot], memory_order_acquire);

        ring->turn = slot + 1;
        if (in)
            n += poll_in(ring, slot, in,
                         (unsigned)tri_min(budget - n, TURN_RECORDS));
    }
    if (tri_unlikely(
            atomic_load_explicit(&ring->waiting, memory_order_relaxed)))
        tell_writable(ring);
    if (tri_unlikely(
            atomic_load_explicit(&ring->deaths, memory_order_relaxed)))
        drop_dead(ring);
    return n;
}

static bool any_writable(struct ring *ring)
{
    bool any = false;

    pthread_mutex_lock(&ring->lock);
    for (struct ring_channel *c = ring->channels; c && !any; c = c->next)
        any = atomic_load_explicit(&c->waiting, memory_order_acquire) &&
              (peer_is_gone(c) || tri_ring_has_room(c->tx.control));
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
    for (unsigned i = 0; i < count; i++) {
        const struct ring_in *in =
            atomic_load_explicit(&ring->ins[i], memory_order_acquire);

        if (in && tri_ring_pending(&in->rx))
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
    .unread = ring_unread,
    .pull_bytes_min = ring_pull_bytes_min,
    .pull = ring_pull,
    .poll = ring_poll,
    .pending = ring_pending,
    .wait_fd = ring_wait_fd,
    .control_fd = ring_control_fd,
    .control = ring_control,
};
