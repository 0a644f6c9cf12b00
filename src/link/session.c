/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The session transport: opens and closes, polls, keeps time. See
 * session_internal.h for the parts and the locks.
 *
 * Time. Remotes with something due (acknowledgements to send, probes) are on
 * the list of the active; due_ns is no later than the first of them, and the
 * timer behind wait_fd no later than due_ns. Both may be too early: that costs
 * one look at the list, not one for each frame that was acknowledged in time.
 */
#include "link/session_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

/* Records in a full frame, about: to make frames of a budget of records. */
#define RECORDS_PER_FRAME 16u

static void timer_arm(struct session_transport *transport, uint64_t due_ns)
{
    struct itimerspec at = {
        .it_value = { .tv_sec = (time_t)(due_ns / 1000000000u),
                      .tv_nsec = (long)(due_ns % 1000000000u) },
    };

    if (transport->timer_fd >= 0)
        timerfd_settime(transport->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

void tri_session_schedule(struct session_remote *remote, uint64_t due_ns)
{
    struct session_transport *transport = remote->transport;
    uint64_t due = atomic_load_explicit(&transport->due_ns,
                                        memory_order_relaxed);

    if (due_ns == TRI_NS_NEVER)
        return;
    tri_lock_acquire(&transport->active_lock);
    if (!remote->is_active && !remote->is_ended) {
        remote->is_active = true;
        TAILQ_INSERT_TAIL(&transport->active, remote, active);
    }
    tri_lock_release(&transport->active_lock);
    while (due_ns < due)
        if (atomic_compare_exchange_weak_explicit(
                &transport->due_ns, &due, due_ns, memory_order_relaxed,
                memory_order_relaxed)) {
            timer_arm(transport, due_ns);
            return;
        }
}

/* --- polling ------------------------------------------------------------------ */

/* The next of the active, taken off the list; or NULL. Those that still have
 * something due come back by tri_session_schedule. */
static struct session_remote *take_active(struct session_transport *transport)
{
    struct session_remote *remote;

    tri_lock_acquire(&transport->active_lock);
    remote = TAILQ_FIRST(&transport->active);
    if (remote) {
        TAILQ_REMOVE(&transport->active, remote, active);
        remote->is_active = false;
    }
    tri_lock_release(&transport->active_lock);
    return remote;
}

static unsigned count_active(struct session_transport *transport)
{
    struct session_remote *remote;
    unsigned n = 0;

    tri_lock_acquire(&transport->active_lock);
    TAILQ_FOREACH(remote, &transport->active, active)
        n++;
    tri_lock_release(&transport->active_lock);
    return n;
}

static void run_due(struct session_transport *transport)
{
    uint64_t due = atomic_load_explicit(&transport->due_ns,
                                        memory_order_relaxed);
    struct session_remote *remote;
    unsigned left;

    if (tri_likely(due == TRI_NS_NEVER || tri_now_ns() < due))
        return;
    atomic_store_explicit(&transport->due_ns, TRI_NS_NEVER,
                          memory_order_relaxed);
    /* Each once: they put themselves behind the others. */
    for (left = count_active(transport); left > 0; left--) {
        remote = take_active(transport);
        if (!remote)
            return;
        tri_session_pump(remote);
    }
}

/* The carrier's descriptor may have become another one. 0, or -1 and errno. */
static int follow_fd(struct session_transport *transport)
{
    struct epoll_event event = { .events = EPOLLIN };
    int fd = transport->carrier->ops->wait_fd(transport->carrier);

    if (fd == transport->carrier_fd)
        return 0;
    transport->carrier_fd = fd;
    return epoll_ctl(transport->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static unsigned session_poll(struct tri_transport *base, unsigned budget)
{
    struct session_transport *transport = tri_session_transport_of(base);
    struct tri_carrier *carrier = transport->carrier;

    transport->delivered = 0;
    transport->in_poll = true;
    atomic_fetch_add_explicit(&transport->polls, 1, memory_order_relaxed);
    carrier->ops->poll(carrier, budget / RECORDS_PER_FRAME + 1);
    if (transport->epoll_fd >= 0 && follow_fd(transport) != 0)
        tri_error("session: another wait descriptor: %s", strerror(errno));
    run_due(transport);
    tri_session_finish_touched(transport);
    tri_session_bury(transport);
    transport->in_poll = false;
    return transport->delivered;
}

static bool session_pending(struct tri_transport *base)
{
    struct session_transport *transport = tri_session_transport_of(base);
    struct tri_carrier *carrier = transport->carrier;
    uint64_t due_ns = TRI_NS_NEVER;
    uint64_t own_ns;
    uint64_t ticks;

    /* Not expired, not read: both are fine. */
    if (transport->timer_fd >= 0 &&
        read(transport->timer_fd, &ticks, sizeof(ticks)) < 0)
        ticks = 0;
    if (carrier->ops->pending(carrier, &due_ns))
        return true;
    own_ns = atomic_load_explicit(&transport->due_ns, memory_order_relaxed);
    due_ns = tri_min(due_ns, own_ns);
    if (due_ns == TRI_NS_NEVER)
        return false;
    if (due_ns <= tri_now_ns())
        return true;
    timer_arm(transport, due_ns);
    return false;
}

static int session_wait_fd(struct tri_transport *base)
{
    return tri_session_transport_of(base)->epoll_fd;
}

/* --- opening and closing -------------------------------------------------------- */

static int wait_init(struct session_transport *transport)
{
    struct epoll_event event = { .events = EPOLLIN };

    transport->carrier_fd = -1;
    transport->epoll_fd = -2; /* as the carrier says */
    if (transport->carrier->ops->wait_fd(transport->carrier) < 0)
        return 0;
    transport->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    transport->timer_fd =
        timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (transport->epoll_fd >= 0 && transport->timer_fd >= 0 &&
        follow_fd(transport) == 0 &&
        epoll_ctl(transport->epoll_fd, EPOLL_CTL_ADD, transport->timer_fd,
                  &event) == 0)
        return 0;
    tri_error("session: making the wait descriptor: %s", strerror(errno));
    return TROUPE_ESYSTEM;
}

static void on_garbage(void *context, const char *reason)
{
    struct session_transport *transport = context;

    transport->config.events.garbage(transport->config.events.context, reason);
}

static int carrier_open(struct session_transport *transport)
{
    const struct tri_transport_config *config = &transport->config;
    struct tri_carrier_config own = {
        .node = config->node,
        .peers_max = config->peers_max,
        .bell = config->bell,
        .provider = config->provider,
        .interface = config->interface,
        .port_first = config->port_first,
        .port_last = config->port_last,
        .events = { .context = transport,
                    .frame = tri_session_on_frame,
                    .sent = tri_session_on_sent,
                    .writable = tri_session_on_writable,
                    .broke = tri_session_on_broke,
                    .garbage = on_garbage },
    };

    return config->carrier->open(&own, &transport->carrier);
}

/* Records fill frames without a rest, one or two to a frame. */
static int sizes_init(struct session_transport *transport)
{
    size_t bytes =
        tri_min(transport->carrier->frame_bytes_max, TRI_FRAME_BYTES_MAX) &
        ~(size_t)(TRI_FRAME_ALIGN - 1);

    if (bytes < TRI_FRAME_BYTES_MIN) {
        tri_error("session: the carrier's frames are too small");
        return TROUPE_ETRANSPORT;
    }
    transport->frame_bytes_max = bytes;
    transport->base.record_bytes_max =
        TRI_FRAME_PAYLOAD_MAX(bytes, bytes > TRI_RECORD_BYTES_MAX ? 2 : 1);
    assert(transport->base.record_bytes_max <= TRI_RECORD_BYTES_MAX);
    return 0;
}

static void close_all(struct session_transport *transport)
{
    struct session_remote *remote;

    /* First: what is in flight is ours again behind that. */
    if (transport->carrier)
        transport->carrier->ops->close(transport->carrier);
    while ((remote = STAILQ_FIRST(&transport->closing)) != NULL) {
        STAILQ_REMOVE_HEAD(&transport->closing, closing);
        tri_session_remote_free(remote);
    }
    for (uint32_t i = 0; transport->buckets && i <= transport->buckets_mask;
         i++)
        while ((remote = SLIST_FIRST(&transport->buckets[i])) != NULL) {
            SLIST_REMOVE_HEAD(&transport->buckets[i], bucket);
            tri_session_remote_free(remote);
        }
    tri_session_pool_fini(transport);
    if (transport->epoll_fd >= 0)
        close(transport->epoll_fd);
    if (transport->timer_fd >= 0)
        close(transport->timer_fd);
    pthread_mutex_destroy(&transport->table_lock);
    free(transport->reserve);
    free(transport->buckets);
    free(transport);
}

static void session_close(struct tri_transport *base)
{
    close_all(tri_session_transport_of(base));
}

static int session_open(const struct tri_transport_config *config,
                        struct tri_transport **transport_p)
{
    struct session_transport *transport = calloc(1, sizeof(*transport));
    uint64_t buckets = tri_pow2_up((uint64_t)config->peers_max + 1);
    int rc = TROUPE_ENOMEM;

    if (!transport)
        return TROUPE_ENOMEM;
    transport->base.ops = &tri_transport_session;
    transport->config = *config;
    transport->epoll_fd = transport->timer_fd = -1;
    transport->due_ns = TRI_NS_NEVER;
    pthread_mutex_init(&transport->table_lock, NULL);
    tri_session_pool_init(&transport->pool);
    TAILQ_INIT(&transport->active);
    STAILQ_INIT(&transport->closing);
    transport->buckets_mask = (uint32_t)buckets - 1;
    transport->buckets = calloc(buckets, sizeof(*transport->buckets));
    if (transport->buckets)
        rc = carrier_open(transport);
    if (rc == 0)
        rc = wait_init(transport);
    if (rc == 0)
        rc = sizes_init(transport);
    if (rc != 0) {
        close_all(transport);
        return rc;
    }
    transport->config.provider = transport->config.interface = NULL;
    *transport_p = &transport->base;
    return 0;
}

size_t tri_session_peer_bytes(void)
{
    return sizeof(struct session_remote);
}

size_t tri_session_memory_bytes(struct tri_transport *base)
{
    struct session_transport *transport = tri_session_transport_of(base);
    struct tri_carrier *carrier = transport->carrier;

    return sizeof(*transport) +
           (transport->buckets_mask + 1) * sizeof(*transport->buckets) +
           transport->remotes_len * sizeof(struct session_remote) +
           transport->pool.slabs_len *
               (sizeof(struct session_slab) +
                SESSION_SLAB_FRAMES * transport->frame_bytes_max) +
           (carrier->ops->memory_bytes ? carrier->ops->memory_bytes(carrier)
                                       : 0);
}

const struct tri_transport_ops tri_transport_session = {
    .name = "session",
    .open = session_open,
    .close = session_close,
    .address = tri_session_address,
    .connect = tri_session_connect,
    .disconnect = tri_session_disconnect,
    .reserve = tri_session_reserve,
    .commit = tri_session_commit,
    .flush = tri_session_flush,
    .each_unread = tri_session_each_unread,
    .unread = tri_session_unread,
    .poll = session_poll,
    .pending = session_pending,
    .resume = tri_session_resume,
    .is_forgotten = tri_session_is_forgotten,
    .wait_fd = session_wait_fd,
};
