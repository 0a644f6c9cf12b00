/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The table of peers: how one comes in, and how its slot gets free again.
 *
 *     NONE --describe--> NEW --connect--> UP --tri_link_kill--> DEAD
 *      ^                                                         |
 *      |                                        the next reap:   v
 *      |                                          ALIVE -> FOUND: is found,
 *      |                                            and known to be dead
 *      |                            a grace later, FOUND -> REMOVED: out of the
 *      |                              buckets; the next poll buries it
 *      |            buried, and a grace later, REMOVED -> FREE (a rank: DONE)
 *      +------------------------- reuse, for another node -------+
 *
 * Invariants:
 *  1. One thread changes the table: the control thread, or who starts the node
 *     before there is one. All others only read, without a lock: a peer is
 *     whole before it is in a bucket or below peers_len.
 *  2. A peer that leaves its bucket keeps its own link to the next one until
 *     its slot is reused, so who is walking over it gets on.
 *  3. A slot is reused when nothing names the peer: its transport says so, it
 *     is on no list of dirty peers, and whoever had its pointer has returned.
 *
 * Why a grace is enough for that last point. Threads get a peer's pointer from
 * the table or from a transport's event and let go of it before they return
 * from the call: none keeps one. A call takes microseconds; a thread without a
 * core may be stuck in it for a while, but not for 30 s of a process that runs
 * its control thread 30 times in them.
 *
 * Slots of ranks are never reused: runtime->size and ranks are indexes of them.
 */

#include <stdio.h>
#include <sys/mman.h>

#include "link/link_internal.h"

const char *tri_peer_label(const struct tri_peer *peer,
                           char text[TRI_PEER_LABEL_BYTES])
{
    if (peer->rank >= 0)
        snprintf(text, TRI_PEER_LABEL_BYTES, "rank %d", peer->rank);
    else
        snprintf(text, TRI_PEER_LABEL_BYTES, "node %016llx",
                 (unsigned long long)peer->node);
    return text;
}

/* --- memory --------------------------------------------------------------- */

static size_t peers_bytes(const struct tri_link *link)
{
    return sizeof(*link->peers) * tri_max(link->config.peers_max, 1);
}

static size_t buckets_bytes(const struct tri_link *link)
{
    return sizeof(*link->by_node) * ((size_t)link->by_node_mask + 1);
}

/* Zeroed, and no memory before it is written to; or NULL. */
static void *reserve(size_t bytes)
{
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return data != MAP_FAILED ? data : NULL;
}

int tri_link_peers_init(struct tri_link *link)
{
    uint64_t buckets = tri_pow2_up((uint64_t)link->config.peers_max * 2 + 1);

    link->by_node_mask = (uint32_t)buckets - 1;
    link->peers = reserve(peers_bytes(link));
    link->by_node = reserve(buckets_bytes(link));
    link->peers_len = link->config.peers_len;
    if (link->peers != NULL && link->by_node != NULL)
        return 0;
    tri_link_peers_fini(link);
    return TROUPE_ENOMEM;
}

void tri_link_peers_fini(struct tri_link *link)
{
    if (link->peers != NULL)
        munmap(link->peers, peers_bytes(link));
    if (link->by_node != NULL)
        munmap((void *)link->by_node, buckets_bytes(link));
    link->peers = NULL;
    link->by_node = NULL;
}

/* --- the buckets ---------------------------------------------------------- */

static struct tri_peer *_Atomic *bucket_of(struct tri_link *link,
                                           uint64_t node)
{
    return &link->by_node[tri_mix64(node) & link->by_node_mask];
}

static void insert(struct tri_peer *peer)
{
    struct tri_peer *_Atomic *bucket = bucket_of(peer->link, peer->node);

    atomic_store_explicit(&peer->bucket_next,
                          atomic_load_explicit(bucket, memory_order_relaxed),
                          memory_order_relaxed);
    /* Pairs with the acquire loads of tri_link_find. */
    atomic_store_explicit(bucket, peer, memory_order_release);
}

static void remove_peer(struct tri_peer *peer)
{
    struct tri_peer *_Atomic *at = bucket_of(peer->link, peer->node);
    struct tri_peer *other;

    while ((other = atomic_load_explicit(at, memory_order_relaxed)) != peer)
        at = &other->bucket_next;
    /* release: what comes behind is older than this change, but is published
     * by it once more */
    atomic_store_explicit(
        at, atomic_load_explicit(&peer->bucket_next, memory_order_relaxed),
        memory_order_release);
}

/* --- adding --------------------------------------------------------------- */

/* Fills in a slot that nobody looks at and that holds nothing. */
static void peer_describe(struct tri_link *link, struct tri_peer *peer,
                          int rank, uint64_t node,
                          struct tri_transport *transport,
                          const struct tri_address *address)
{
    peer->link = link;
    peer->node = node;
    peer->rank = rank;
    peer->transport = transport;
    peer->address = *address;
    insert(peer);
    /* Pairs with the acquire load of tri_peer_is_used. */
    atomic_store_explicit(&peer->state, TRI_PEER_NEW, memory_order_release);
}

void tri_link_set_peer(struct tri_link *link, int rank, uint64_t node,
                       struct tri_transport *transport,
                       const struct tri_address *address)
{
    assert(rank >= 0 && (uint32_t)rank < link->config.peers_len);
    peer_describe(link, &link->peers[rank], rank, node, transport, address);
}

static void outbox_reset(struct tri_outbox *outbox)
{
    assert(outbox->first == NULL && atomic_load(&outbox->inbox) == NULL);
    assert(atomic_load(&outbox->bytes) == 0);
    atomic_store_explicit(&outbox->exposed, 0, memory_order_relaxed);
    atomic_store_explicit(&outbox->pulled, 0, memory_order_relaxed);
    outbox->last = NULL;
    outbox->offset = 0;
    outbox->first_counted = false;
    atomic_store_explicit(&outbox->room_wanted, false, memory_order_relaxed);
}

/* As at first. Others may still count what all peers sent, so one by one. */
static void peer_reset(struct tri_peer *peer)
{
    atomic_store_explicit(&peer->state, TRI_PEER_NONE, memory_order_relaxed);
    peer->reaping = TRI_REAP_ALIVE;
    atomic_store_explicit(&peer->burial, TRI_BURIAL_NONE,
                          memory_order_relaxed);
    atomic_store_explicit(&peer->again, 0, memory_order_relaxed);
    atomic_store_explicit(&peer->left, 0, memory_order_relaxed);
    atomic_store_explicit(&peer->broken, 0, memory_order_relaxed);
    peer->last_flush_ns = 0;
    atomic_store_explicit(&peer->sent, 0, memory_order_relaxed);
    peer->no_pull = peer->doomed = peer->told_lost = false;
    for (int lane = 0; lane < TRI_LANES; lane++) {
        outbox_reset(&peer->outboxes[lane]);
        atomic_store_explicit(&peer->pullings[lane].answer, 0,
                              memory_order_relaxed);
        peer->pullings[lane].active = peer->pullings[lane].held = false;
    }
    atomic_store_explicit(&peer->received, 0, memory_order_relaxed);
    atomic_store_explicit(&peer->heard, 0, memory_order_relaxed);
    /* release: who finds it so finds that the peer is not dead, too: mourn */
    atomic_store_explicit(&peer->mourned, false, memory_order_release);
    assert(peer->channel == NULL && peer->stopped == NULL);
    assert(peer->parking.first == NULL && peer->parking.buckets == NULL);
}

/* A slot whose last peer is long dead, made fit for another; or NULL. */
static struct tri_peer *reuse(struct tri_link *link)
{
    struct tri_peer *peer = &link->peers[link->config.peers_len];

    if (link->free_len == 0)
        return NULL;
    while (peer->reaping != TRI_REAP_FREE)
        peer++;
    link->free_len--;
    atomic_fetch_add_explicit(&link->past_sent, tri_peer_count(&peer->sent),
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&link->past_received,
                              tri_peer_count(&peer->received),
                              memory_order_relaxed);
    peer_reset(peer);
    return peer;
}

bool tri_link_has_room(struct tri_link *link)
{
    return link->free_len > 0 ||
           tri_link_peers_len(link) < link->config.peers_max;
}

int tri_link_add_peer(struct tri_link *link, uint64_t node,
                      struct tri_transport *transport,
                      const struct tri_address *address,
                      struct tri_peer **peer_p)
{
    uint32_t len = tri_link_peers_len(link);
    struct tri_peer *peer;

    if (node == 0 || node == link->config.node)
        return TROUPE_EINVAL;
    if (tri_link_find(link, node) != NULL)
        return TROUPE_EEXIST;
    peer = reuse(link);
    if (peer == NULL && len == link->config.peers_max)
        return TROUPE_ELIMIT;
    if (peer == NULL) {
        peer_describe(link, &link->peers[len], -1, node, transport, address);
        peer = &link->peers[len];
        /* Pairs with the acquire load of tri_link_peers_len. */
        atomic_store_explicit(&link->peers_len, len + 1,
                              memory_order_release);
    } else {
        peer_describe(link, peer, -1, node, transport, address);
    }
    if (peer_p != NULL)
        *peer_p = peer;
    return 0;
}

/* --- letting go ----------------------------------------------------------- */

/*
 * What poll has of a dead peer. Messages that still wait in front of full
 * mailboxes are orphaned: their sender has been dead for a grace, and nobody is
 * there to be told.
 */
void tri_link_bury(struct tri_link *link)
{
    atomic_store_explicit(&link->burials, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < tri_link_peers_len(link); i++) {
        struct tri_peer *peer = &link->peers[i];
        struct tri_transport *transport = peer->transport;

        /* acquire: pairs with the release of want_burial */
        if (atomic_load_explicit(&peer->burial, memory_order_acquire) !=
            TRI_BURIAL_WANTED)
            continue;
        tri_flow_orphan_parked(peer);
        /* What it left goes on, as the data lane is taken again. */
        if (transport->ops->resume != NULL)
            transport->ops->resume(transport, peer);
        if (transport->ops->is_forgotten != NULL &&
            !transport->ops->is_forgotten(transport, peer))
            continue; /* the next reap asks again */
        tri_peer_free_arrivals(peer);
        tri_flow_orphan_parked(peer); /* resume may have brought some */
        /* release: pairs with the acquire of is_buried */
        atomic_store_explicit(&peer->burial, TRI_BURIAL_DONE,
                              memory_order_release);
    }
}

static void want_burial(struct tri_peer *peer)
{
    /* release: pairs with the acquire of tri_link_bury */
    atomic_store_explicit(&peer->burial, TRI_BURIAL_WANTED,
                          memory_order_release);
    atomic_store_explicit(&peer->link->burials, 1, memory_order_relaxed);
}

static bool is_buried(struct tri_peer *peer)
{
    return atomic_load_explicit(&peer->burial, memory_order_acquire) ==
               TRI_BURIAL_DONE &&
           atomic_load_explicit(&peer->dirty, memory_order_acquire) == 0;
}

static void reap_step(struct tri_peer *peer, enum tri_reaping reaping,
                      uint64_t now_ns)
{
    peer->reaping = reaping;
    peer->reap_call = peer->link->reap_calls;
    peer->reap_ns = now_ns;
}

static bool is_grace_over(const struct tri_peer *peer, uint64_t now_ns)
{
    return peer->link->reap_calls - peer->reap_call >= TRI_REAP_CALLS &&
           now_ns - peer->reap_ns >= TRI_REAP_NS;
}

static void reap_removed(struct tri_peer *peer, uint64_t now_ns)
{
    struct tri_link *link = peer->link;

    if (!is_buried(peer)) {
        want_burial(peer);
        return;
    }
    if (!is_grace_over(peer, now_ns))
        return;
    tri_flow_fini(peer);
    link->reaped++;
    peer->reaping = peer->rank >= 0 ? TRI_REAP_DONE : TRI_REAP_FREE;
    link->free_len += peer->reaping == TRI_REAP_FREE;
}

static void reap_peer(struct tri_peer *peer, uint64_t now_ns)
{
    switch (peer->reaping) {
    case TRI_REAP_ALIVE:
        reap_step(peer, TRI_REAP_FOUND, now_ns);
        break;
    case TRI_REAP_FOUND:
        if (!is_grace_over(peer, now_ns))
            break;
        if (peer->rank < 0)
            remove_peer(peer);
        want_burial(peer);
        reap_step(peer, TRI_REAP_REMOVED, now_ns);
        break;
    case TRI_REAP_REMOVED:
        reap_removed(peer, now_ns);
        break;
    case TRI_REAP_DONE:
    case TRI_REAP_FREE:
        break;
    }
}

bool tri_link_reap(struct tri_link *link, uint64_t now_ns)
{
    link->reap_calls++;
    /* acquire: who sees the number finds the peers dead */
    if (tri_likely(atomic_load_explicit(&link->deaths, memory_order_acquire) ==
                   link->reaped))
        return false;
    for (uint32_t i = 0; i < tri_link_peers_len(link); i++)
        if (tri_peer_is_dead(&link->peers[i]))
            reap_peer(&link->peers[i], now_ns);
    return atomic_load_explicit(&link->burials, memory_order_relaxed) != 0;
}
