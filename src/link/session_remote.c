/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The table of remotes; how one begins and ends.
 *
 * An address, as it is exchanged:
 *
 *      0            1            2      3
 *      | version min| version max| seal | 0 | the carrier's address …
 *
 * So two nodes agree on a version before the first frame: the highest that
 * both speak.
 */
#include "link/session_internal.h"

#include <stdlib.h>

#include "base/log.h"

#define ADDRESS_HEADER_BYTES 4

void tri_session_address(struct tri_transport *base,
                         struct tri_address *address_p)
{
    struct session_transport *transport = tri_session_transport_of(base);
    struct tri_address inner = { 0 };

    transport->carrier->ops->address(transport->carrier, &inner);
    assert(inner.bytes + ADDRESS_HEADER_BYTES <= TRI_ADDRESS_BYTES_MAX);
    *address_p = (struct tri_address){
        .bytes = (uint16_t)(inner.bytes + ADDRESS_HEADER_BYTES),
        .data = { TRI_FRAME_VERSION_MIN, TRI_FRAME_VERSION_MAX,
                  (uint8_t)transport->config.seal, 0 },
    };
    memcpy(address_p->data + ADDRESS_HEADER_BYTES, inner.data, inner.bytes);
}

uint16_t tri_session_port(struct tri_transport *base)
{
    struct tri_carrier *carrier = tri_session_transport_of(base)->carrier;

    return carrier->ops->port != NULL ? carrier->ops->port(carrier) : 0;
}

/* The version to speak; 0: none, or the address is no good. Logged. */
static uint8_t address_check(const struct session_transport *transport,
                             uint64_t node, const struct tri_address *address,
                             struct tri_address *inner_p)
{
    const uint8_t *data = address->data;

    if (address->bytes <= ADDRESS_HEADER_BYTES ||
        address->bytes > TRI_ADDRESS_BYTES_MAX || data[3] != 0) {
        tri_error("the address of node %016llx is malformed",
                  (unsigned long long)node);
        return 0;
    }
    if (data[0] > TRI_FRAME_VERSION_MAX || data[1] < TRI_FRAME_VERSION_MIN ||
        data[0] > data[1]) {
        tri_error("node %016llx speaks versions %u to %u of the wire format, "
                  "this one %u to %u", (unsigned long long)node, data[0],
                  data[1], TRI_FRAME_VERSION_MIN, TRI_FRAME_VERSION_MAX);
        return 0;
    }
    if (data[2] != (uint8_t)transport->config.seal) {
        tri_error("node %016llx has another value of option security",
                  (unsigned long long)node);
        return 0;
    }
    inner_p->bytes = (uint16_t)(address->bytes - ADDRESS_HEADER_BYTES);
    memcpy(inner_p->data, data + ADDRESS_HEADER_BYTES, inner_p->bytes);
    return (uint8_t)tri_min(data[1], TRI_FRAME_VERSION_MAX);
}

/* --- the table ------------------------------------------------------------ */

static struct session_remotes *
bucket_of(struct session_transport *transport, uint64_t node)
{
    return &transport->buckets[tri_mix64(node) & transport->buckets_mask];
}

static struct session_remote *find_tabled(struct session_transport *transport,
                                          uint64_t node)
{
    struct session_remote *remote;

    SLIST_FOREACH(remote, bucket_of(transport, node), bucket)
        if (remote->node == node)
            break;
    return remote;
}

/* --- making one ----------------------------------------------------------- */

static int seal_make(struct session_remote *remote)
{
    const struct tri_transport_config *config = &remote->transport->config;

    return config->seal == TRI_SEAL_NONE
               ? 0
               : tri_seal_create(config->key, config->seal, config->node,
                                 remote->node, &remote->seal);
}

void tri_session_remote_free(struct session_remote *remote)
{
    tri_session_drop_held(remote);
    if (remote->seal)
        tri_seal_destroy(&remote->seal);
    pthread_mutex_destroy(&remote->lock);
    free(remote);
}

static int remote_make(struct session_transport *transport, uint64_t node,
                       const struct tri_address *address,
                       struct session_remote **remote_p)
{
    const struct tri_carrier_ops *ops = transport->carrier->ops;
    struct tri_address inner;
    struct session_remote *remote;
    uint8_t version = address_check(transport, node, address, &inner);
    int rc;

    if (version == 0)
        return TROUPE_EPROTO;
    remote = calloc(1, sizeof(*remote));
    if (!remote)
        return TROUPE_ENOMEM;
    remote->base.transport = &transport->base;
    remote->transport = transport;
    remote->node = node;
    remote->version = version;
    pthread_mutex_init(&remote->lock, NULL);
    STAILQ_INIT(&remote->blocked);
    tri_session_init(&remote->core, &tri_session_config_default);
    rc = seal_make(remote);
    if (rc == 0)
        rc = ops->connect(transport->carrier, node, &inner, remote,
                          &remote->line);
    if (rc != 0) {
        tri_session_remote_free(remote);
        return rc;
    }
    *remote_p = remote;
    return 0;
}

/* address: NULL when the link is to be asked for it. */
static int get_tabled(struct session_transport *transport, uint64_t node,
                      const struct tri_address *address,
                      struct session_remote **remote_p)
{
    const struct tri_transport_events *events = &transport->config.events;
    struct session_remote *remote = find_tabled(transport, node);
    int rc;

    if (remote) {
        *remote_p = remote;
        return 0;
    }
    if (!address && events->address)
        address = events->address(events->context, node);
    if (!address)
        return TROUPE_ENODE;
    if (transport->remotes_len >= transport->config.peers_max)
        return TROUPE_ELIMIT;
    rc = remote_make(transport, node, address, &remote);
    if (rc != 0)
        return rc;
    SLIST_INSERT_HEAD(bucket_of(transport, node), remote, bucket);
    transport->remotes_len++;
    *remote_p = remote;
    return 0;
}

int tri_session_remote_get(struct session_transport *transport, uint64_t node,
                           struct session_remote **remote_p)
{
    int rc;

    pthread_mutex_lock(&transport->table_lock);
    rc = get_tabled(transport, node, NULL, remote_p);
    pthread_mutex_unlock(&transport->table_lock);
    return rc;
}

int tri_session_connect(struct tri_transport *base, uint64_t node,
                        const struct tri_address *address, void *peer,
                        struct tri_channel **channel_p)
{
    struct session_transport *transport = tri_session_transport_of(base);
    struct session_remote *remote;
    int rc;

    pthread_mutex_lock(&transport->table_lock);
    rc = get_tabled(transport, node, address, &remote);
    if (rc == 0) {
        remote->peer = peer;
        /* release: peer, for who tells of room */
        atomic_store_explicit(&remote->is_connected, true,
                              memory_order_release);
        *channel_p = &remote->base;
    }
    pthread_mutex_unlock(&transport->table_lock);
    return rc;
}

struct session_remote *
tri_session_remote_find(struct session_transport *transport, uint64_t node)
{
    struct session_remote *remote;

    pthread_mutex_lock(&transport->table_lock);
    remote = find_tabled(transport, node);
    pthread_mutex_unlock(&transport->table_lock);
    return remote;
}

/* --- the end of one --------------------------------------------------------- */

static void end_locked(struct session_remote *remote)
{
    struct tri_stored_list rest = STAILQ_HEAD_INITIALIZER(rest);
    struct tri_stored *stored, *next;

    remote->is_ended = true;
    remote->want = 0;
    tri_session_end(&remote->core, &rest);
    for (stored = STAILQ_FIRST(&rest); stored; stored = next) {
        next = STAILQ_NEXT(stored, next);
        if (!stored->in_flight)
            tri_session_buffer_give(
                tri_container_of(stored, struct session_buffer, stored));
    }
    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        if (remote->filling[lane])
            tri_session_buffer_give(remote->filling[lane]);
        remote->filling[lane] = NULL;
    }
}

static void remove_locked(struct session_remote *remote)
{
    struct session_transport *transport = remote->transport;

    SLIST_REMOVE(bucket_of(transport, remote->node), remote, session_remote,
                 bucket);
    transport->remotes_len--;
}

/* One that is in the table no more. */
static void end_removed(struct session_remote *remote)
{
    struct session_transport *transport = remote->transport;
    struct tri_carrier *carrier = transport->carrier;

    pthread_mutex_lock(&remote->lock);
    end_locked(remote);
    carrier->ops->disconnect(remote->line);
    pthread_mutex_unlock(&remote->lock);
    tri_lock_acquire(&transport->active_lock);
    if (remote->is_active)
        TAILQ_REMOVE(&transport->active, remote, active);
    remote->is_active = false;
    remote->closed_at =
        atomic_load_explicit(&transport->polls, memory_order_relaxed);
    STAILQ_INSERT_TAIL(&transport->closing, remote, closing);
    atomic_store_explicit(&transport->has_closing, true, memory_order_relaxed);
    tri_lock_release(&transport->active_lock);
}

void tri_session_disconnect(struct tri_channel *channel)
{
    struct session_remote *remote = (struct session_remote *)channel;
    struct session_transport *transport = remote->transport;

    pthread_mutex_lock(&transport->table_lock);
    remove_locked(remote);
    pthread_mutex_unlock(&transport->table_lock);
    end_removed(remote);
}

/* Who connects gets it from the table and says so under the same lock: either
 * it is a channel, and disconnect ends it, or nobody has it. */
void tri_session_remote_forget(struct session_remote *remote)
{
    struct session_transport *transport = remote->transport;
    bool ends;

    pthread_mutex_lock(&transport->table_lock);
    ends = !remote->is_connected;
    if (ends)
        remove_locked(remote);
    pthread_mutex_unlock(&transport->table_lock);
    if (ends)
        end_removed(remote);
}

static bool names(const struct session_remote *remote, const void *peer)
{
    return remote->source == peer ||
           (remote->is_connected && remote->peer == peer);
}

bool tri_session_is_forgotten(struct tri_transport *base, const void *peer)
{
    struct session_transport *transport = tri_session_transport_of(base);
    struct session_remote *remote;
    bool found = false;

    pthread_mutex_lock(&transport->table_lock);
    for (uint32_t i = 0; i <= transport->buckets_mask && !found; i++)
        SLIST_FOREACH(remote, &transport->buckets[i], bucket)
            found |= names(remote, peer);
    pthread_mutex_unlock(&transport->table_lock);
    tri_lock_acquire(&transport->active_lock);
    STAILQ_FOREACH(remote, &transport->closing, closing)
        found |= names(remote, peer);
    tri_lock_release(&transport->active_lock);
    return !found;
}

/* Nothing more of it is delivered. Poll lock held. */
static void tell_ended(struct session_remote *remote)
{
    const struct tri_transport_events *events =
        &remote->transport->config.events;
    void *source = remote->source;

    remote->source = NULL;
    if (source && events->ended)
        events->ended(events->context, source);
}

/*
 * From poll, so nobody else has a pointer to what is closing. Frames in flight
 * still name their remote, and the poll that ran at its end, as well as the
 * next one, may still have had events of its line.
 */
void tri_session_bury(struct session_transport *transport)
{
    struct session_closing left = STAILQ_HEAD_INITIALIZER(left);
    struct session_remote *remote;

    if (!atomic_load_explicit(&transport->has_closing, memory_order_relaxed))
        return;
    tri_lock_acquire(&transport->active_lock);
    STAILQ_CONCAT(&left, &transport->closing);
    atomic_store_explicit(&transport->has_closing, false,
                          memory_order_relaxed);
    tri_lock_release(&transport->active_lock);
    while ((remote = STAILQ_FIRST(&left)) != NULL) {
        bool gone;

        STAILQ_REMOVE_HEAD(&left, closing);
        tell_ended(remote);
        pthread_mutex_lock(&remote->lock);
        gone = remote->in_flight_len == 0 &&
               atomic_load_explicit(&transport->polls, memory_order_relaxed) >=
                   remote->closed_at + 2;
        pthread_mutex_unlock(&remote->lock);
        if (gone) {
            tri_session_remote_free(remote);
            continue;
        }
        tri_lock_acquire(&transport->active_lock);
        STAILQ_INSERT_TAIL(&transport->closing, remote, closing);
        atomic_store_explicit(&transport->has_closing, true,
                              memory_order_relaxed);
        tri_lock_release(&transport->active_lock);
    }
}
