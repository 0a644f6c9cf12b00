/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * Records over libfabric: one reliable datagram endpoint (FI_EP_RDM) a node,
 * messages only, manual progress, one completion queue. What is known of the
 * providers, and why this file does what it does:
 *  - a send completion says that the bytes left, never that they arrived;
 *  - nothing says that a peer died: some sends may fail, further ones are
 *    refused for ever (-FI_EAGAIN);
 *  - sending to an address that was removed from the address vector crashes
 *    in every provider, so none is removed; indexes may be shared by two
 *    lives of a node on one port, so ids travel in every frame;
 *  - posted sends cannot be cancelled: their frames are ours again with the
 *    completion or with fi_close of the endpoint.
 * See oldfabric_internal.h for the parts and the locks.
 */
#include "transport/oldfabric_internal.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

/* Rounds of reading completions in one poll, so that a flood of completed
 * sends does not keep what arrived waiting. */
#define CQ_ROUNDS_MAX 4

/*
 * An address as it is exchanged:
 *
 *      0         8          10        12
 *      | node id | format   | bytes   | the provider's address …
 *
 * little-endian. format: the low bits of libfabric's addr_format.
 */
#define ADDRESS_HEADER_BYTES 12

_Static_assert(sizeof(struct sockaddr_in6) + ADDRESS_HEADER_BYTES <=
                   TRI_ADDRESS_BYTES_MAX,
               "an IPv6 address fits");

/* A failed libfabric call: says so and gives our code. */
static int failed(const char *what, int rc)
{
    tri_error("fabric: %s: %s", what, fi_strerror(rc < 0 ? -rc : rc));
    return rc == -FI_ENOMEM ? TROUPE_ENOMEM : TROUPE_ETRANSPORT;
}

int tri_oldfabric_register(struct fabric *fabric, void *data, size_t bytes,
                        uint64_t access, struct fid_mr **mr_p)
{
    int rc;

    if (!fabric->register_memory)
        return 0;
    pthread_mutex_lock(&fabric->domain_lock);
    rc = fi_mr_reg(fabric->domain, data, bytes, access, 0, 0, 0, mr_p, NULL);
    pthread_mutex_unlock(&fabric->domain_lock);
    return rc == 0 ? 0 : failed("registering memory", rc);
}

/* --- open and close ------------------------------------------------------ */

static int cq_open(struct fabric *fabric, enum fi_wait_obj wait)
{
    struct fi_cq_attr attr = {
        .format = FI_CQ_FORMAT_DATA, /* the least that tells `buf` */
        .wait_obj = wait,
    };

    return fi_cq_open(fabric->domain, &attr, &fabric->cq, NULL);
}

/* Opens the completion queue, with a descriptor if the provider has a usable
 * one. Some accept FI_WAIT_FD and then have none to give. */
static int cq_init(struct fabric *fabric)
{
    int rc;

    fabric->cq_fd = -1;
    if (tri_oldfabric_fd_usable(fabric->info) &&
        cq_open(fabric, FI_WAIT_FD) == 0) {
        if (fi_control(&fabric->cq->fid, FI_GETWAIT, &fabric->cq_fd) == 0)
            return 0;
        fabric->cq_fd = -1;
        fi_close(&fabric->cq->fid);
        fabric->cq = NULL;
    }
    rc = cq_open(fabric, FI_WAIT_NONE);
    return rc == 0 ? 0 : failed("completion queue", rc);
}

/* One descriptor for the completion queue and for the next attempt to send
 * to a peer that took nothing. */
static int wait_init(struct fabric *fabric)
{
    struct epoll_event event = { .events = EPOLLIN };

    fabric->epoll_fd = fabric->timer_fd = -1;
    if (fabric->cq_fd < 0)
        return 0;
    fabric->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    fabric->timer_fd =
        timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fabric->epoll_fd >= 0 && fabric->timer_fd >= 0 &&
        epoll_ctl(fabric->epoll_fd, EPOLL_CTL_ADD, fabric->cq_fd, &event) ==
            0 &&
        epoll_ctl(fabric->epoll_fd, EPOLL_CTL_ADD, fabric->timer_fd,
                  &event) == 0)
        return 0;
    tri_error("fabric: making the wait descriptor: %s", strerror(errno));
    return TROUPE_ESYSTEM;
}

static int endpoint_init(struct fabric *fabric)
{
    struct fi_av_attr av_attr = { .type = FI_AV_TABLE,
                                  .count = fabric->config.peers_max };
    int rc;

    rc = fi_fabric(fabric->info->fabric_attr, &fabric->fid, NULL);
    if (rc != 0)
        return failed("fabric", rc);
    rc = fi_domain(fabric->fid, fabric->info, &fabric->domain, NULL);
    if (rc != 0)
        return failed("domain", rc);
    rc = fi_av_open(fabric->domain, &av_attr, &fabric->av, NULL);
    if (rc != 0)
        return failed("address vector", rc);
    rc = cq_init(fabric);
    if (rc != 0)
        return rc;
    rc = fi_endpoint(fabric->domain, fabric->info, &fabric->ep, NULL);
    if (rc != 0)
        return failed("endpoint", rc);
    rc = fi_ep_bind(fabric->ep, &fabric->av->fid, 0);
    if (rc == 0)
        rc = fi_ep_bind(fabric->ep, &fabric->cq->fid, FI_SEND | FI_RECV);
    if (rc == 0)
        rc = fi_enable(fabric->ep);
    return rc == 0 ? 0 : failed("enabling the endpoint", rc);
}

static int address_init(struct fabric *fabric)
{
    struct tri_address *address = &fabric->address;
    size_t bytes = TRI_ADDRESS_BYTES_MAX - ADDRESS_HEADER_BYTES;
    uint64_t node = htole64(fabric->config.node);
    uint16_t format = htole16((uint16_t)fabric->info->addr_format);
    uint16_t length;
    int rc = fi_getname(&fabric->ep->fid,
                        address->data + ADDRESS_HEADER_BYTES, &bytes);

    if (rc != 0)
        return failed("the endpoint's address", rc);
    length = htole16((uint16_t)bytes);
    memcpy(address->data, &node, sizeof(node));
    memcpy(address->data + 8, &format, sizeof(format));
    memcpy(address->data + 10, &length, sizeof(length));
    address->bytes = (uint16_t)(ADDRESS_HEADER_BYTES + bytes);
    return 0;
}

static void fid_close(struct fid *fid)
{
    int rc = fi_close(fid);

    if (rc != 0)
        tri_warn("fabric: closing: %s", fi_strerror(-rc));
}

/* The endpoint first: what is in flight is ours again behind that. */
static void fabric_close(struct tri_transport *transport)
{
    struct fabric *fabric = (struct fabric *)transport;
    struct fabric_channel *channel;

    if (fabric->ep)
        fid_close(&fabric->ep->fid);
    while ((channel = TAILQ_FIRST(&fabric->channels)) != NULL) {
        TAILQ_REMOVE(&fabric->channels, channel, all);
        free(channel);
    }
    tri_oldfabric_pool_fini(fabric);
    tri_oldfabric_rx_fini(fabric);
    if (fabric->epoll_fd >= 0)
        close(fabric->epoll_fd);
    if (fabric->timer_fd >= 0)
        close(fabric->timer_fd);
    if (fabric->cq)
        fid_close(&fabric->cq->fid);
    if (fabric->av)
        fid_close(&fabric->av->fid);
    if (fabric->domain)
        fid_close(&fabric->domain->fid);
    if (fabric->fid)
        fid_close(&fabric->fid->fid);
    if (fabric->info)
        fi_freeinfo(fabric->info);
    pthread_mutex_destroy(&fabric->domain_lock);
    free(fabric);
}

static void fabric_init(struct fabric *fabric,
                        const struct tri_transport_config *config)
{
    fabric->base.ops = &tri_transport_fabric;
    fabric->base.record_bytes_max =
        tri_min(TRI_FRAME_PAYLOAD_MAX, TRI_RECORD_BYTES_MAX);
    fabric->config = *config;
    fabric->config.provider = fabric->config.interface = NULL; /* not kept */
    fabric->epoll_fd = fabric->timer_fd = fabric->cq_fd = -1;
    pthread_mutex_init(&fabric->domain_lock, NULL);
    STAILQ_INIT(&fabric->free_frames);
    SLIST_INIT(&fabric->slabs);
    TAILQ_INIT(&fabric->channels);
    TAILQ_INIT(&fabric->senders);
    TAILQ_INIT(&fabric->waiting);
    TAILQ_INIT(&fabric->lost);
    TAILQ_INIT(&fabric->closing);
}

static int fabric_open(const struct tri_transport_config *config,
                       struct tri_transport **transport_p)
{
    struct fabric *fabric = calloc(1, sizeof(*fabric));
    int rc;

    if (!fabric)
        return TROUPE_ENOMEM;
    fabric_init(fabric, config);
    rc = tri_oldfabric_choose(config->provider, config->interface, &fabric->info);
    if (rc != 0)
        goto close;
    fabric->register_memory =
        (fabric->info->domain_attr->mr_mode & FI_MR_LOCAL) != 0;
    rc = endpoint_init(fabric);
    if (rc == 0)
        rc = wait_init(fabric);
    if (rc == 0)
        rc = tri_oldfabric_rx_init(fabric);
    if (rc == 0)
        rc = tri_oldfabric_rx_post_locked(fabric); /* nobody else is here yet */
    if (rc == 0)
        rc = address_init(fabric);
    if (rc != 0)
        goto close;
    tri_info("fabric: provider %s, domain %s",
             fabric->info->fabric_attr->prov_name,
             fabric->info->domain_attr->name);
    *transport_p = &fabric->base;
    return 0;
close:
    fabric_close(&fabric->base);
    return rc;
}

/* --- addresses and channels ---------------------------------------------- */

static void fabric_address(struct tri_transport *transport,
                           struct tri_address *address_p)
{
    *address_p = ((struct fabric *)transport)->address;
}

/* Checks an address for its form: it came from elsewhere, and providers take
 * what they get. Sets the provider's part. */
static bool address_check(const struct fabric *fabric, uint64_t node,
                          const struct tri_address *address,
                          unsigned char *name_p)
{
    uint64_t id;
    uint16_t format, length;
    sa_family_t family;

    if (address->bytes < ADDRESS_HEADER_BYTES + sizeof(family) ||
        address->bytes != fabric->address.bytes)
        return false;
    memcpy(&id, address->data, sizeof(id));
    memcpy(&format, address->data + 8, sizeof(format));
    memcpy(&length, address->data + 10, sizeof(length));
    if (le64toh(id) != node ||
        memcmp(&format, fabric->address.data + 8, sizeof(format)) != 0 ||
        le16toh(length) != address->bytes - ADDRESS_HEADER_BYTES)
        return false;
    memcpy(name_p, address->data + ADDRESS_HEADER_BYTES, le16toh(length));
    memcpy(&family, name_p, sizeof(family));
    switch (fabric->info->addr_format) {
    case FI_SOCKADDR_IN:
        return family == AF_INET && le16toh(length) >= 16;
    case FI_SOCKADDR_IN6:
        return family == AF_INET6 && le16toh(length) >= 28;
    default:
        return true;
    }
}

static int fabric_connect(struct tri_transport *transport, uint64_t node,
                          const struct tri_address *address, void *peer,
                          struct tri_channel **channel_p)
{
    struct fabric *fabric = (struct fabric *)transport;
    struct fabric_channel *channel;
    _Alignas(8) unsigned char name[TRI_ADDRESS_BYTES_MAX] = { 0 };
    fi_addr_t fi_address = FI_ADDR_NOTAVAIL;
    int rc;

    if (!address_check(fabric, node, address, name)) {
        tri_error("fabric: the address of node %016llx is not one of "
                  "provider %s", (unsigned long long)node,
                  fabric->info->fabric_attr->prov_name);
        return TROUPE_ETRANSPORT;
    }
    pthread_mutex_lock(&fabric->domain_lock);
    rc = fi_av_insert(fabric->av, name, 1, &fi_address, 0, NULL);
    pthread_mutex_unlock(&fabric->domain_lock);
    if (rc != 1 || fi_address == FI_ADDR_NOTAVAIL)
        return failed("inserting an address", rc < 0 ? rc : -FI_EINVAL);
    rc = tri_oldfabric_channel_create(fabric, node, fi_address, peer, &channel);
    if (rc == 0)
        *channel_p = &channel->base;
    return rc;
}

/* --- progress ------------------------------------------------------------ */

static void completion_failed_locked(struct fabric *fabric)
{
    struct fi_cq_err_entry error = { 0 };
    struct fabric_op *op;

    if (fi_cq_readerr(fabric->cq, &error, 0) < 0 || !error.op_context)
        return;
    op = error.op_context;
    if (op->kind == FABRIC_OP_RECEIVE) {
        tri_oldfabric_receive_failed_locked(fabric, &error);
        return;
    }
    tri_info("fabric: send: %s", fi_strerror(error.err));
    tri_oldfabric_sent_locked(
        fabric, tri_container_of(op, struct fabric_frame, op), true);
}

/* Reads completions until there are none or something arrived. */
static void completions_read_locked(struct fabric *fabric)
{
    struct fi_cq_data_entry entries[FABRIC_CQ_BATCH];

    for (int round = 0; round < CQ_ROUNDS_MAX; round++) {
        ssize_t n = fi_cq_read(fabric->cq, entries, FABRIC_CQ_BATCH);

        if (n == -FI_EAVAIL) {
            completion_failed_locked(fabric);
            n = 0;
        }
        for (ssize_t i = 0; i < n; i++) {
            struct fabric_op *op = entries[i].op_context;

            if (op->kind == FABRIC_OP_RECEIVE)
                tri_oldfabric_received_locked(fabric, &entries[i]);
            else
                tri_oldfabric_sent_locked(
                    fabric, tri_container_of(op, struct fabric_frame, op),
                    false);
        }
        if (n < 0 || fabric->rx.arrivals_len > 0)
            return;
    }
}

static unsigned fabric_poll(struct tri_transport *transport, unsigned budget)
{
    struct fabric *fabric = (struct fabric *)transport;
    unsigned delivered;

    pthread_mutex_lock(&fabric->domain_lock);
    if (fabric->timer_armed) {
        uint64_t expirations;

        /* Not expired, not read: both are fine. */
        if (read(fabric->timer_fd, &expirations, sizeof(expirations)) < 0)
            expirations = 0;
        fabric->timer_armed = false;
    }
    if (fabric->rx.arrivals_len == 0)
        completions_read_locked(fabric);
    tri_oldfabric_send_all_locked(fabric);
    pthread_mutex_unlock(&fabric->domain_lock);

    delivered = tri_oldfabric_deliver(fabric, budget);

    if (tri_oldfabric_rx_can_post(fabric)) {
        pthread_mutex_lock(&fabric->domain_lock);
        tri_oldfabric_rx_post_locked(fabric);
        pthread_mutex_unlock(&fabric->domain_lock);
    }
    tri_oldfabric_tx_events(fabric);
    return delivered;
}

static void timer_arm(struct fabric *fabric, uint64_t due_ns)
{
    struct itimerspec at = {
        .it_value = { .tv_sec = (time_t)(due_ns / 1000000000u),
                      .tv_nsec = (long)(due_ns % 1000000000u) },
    };

    timerfd_settime(fabric->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
    fabric->timer_armed = true;
}

/* Without a descriptor the caller polls every millisecond anyhow, and only
 * our own queues count. */
static bool fabric_pending(struct tri_transport *transport)
{
    struct fabric *fabric = (struct fabric *)transport;
    struct fid *fids[1] = { &fabric->cq->fid };
    uint64_t due;
    bool pending;

    pthread_mutex_lock(&fabric->domain_lock);
    due = tri_oldfabric_send_due_locked(fabric);
    pending = fabric->rx.arrivals_len > 0 ||
              tri_oldfabric_rx_can_post(fabric) ||
              due <= tri_now_ns() || tri_oldfabric_tx_pending(fabric);
    if (!pending && fabric->cq_fd >= 0) {
        if (due != UINT64_MAX)
            timer_arm(fabric, due);
        pending = fi_trywait(fabric->fid, fids, 1) != FI_SUCCESS;
    }
    pthread_mutex_unlock(&fabric->domain_lock);
    return pending;
}

static int fabric_wait_fd(struct tri_transport *transport)
{
    struct fabric *fabric = (struct fabric *)transport;

    return fabric->cq_fd >= 0 ? fabric->epoll_fd : -2;
}

const struct tri_transport_ops tri_transport_fabric = {
    .name = "fabric",
    .open = fabric_open,
    .close = fabric_close,
    .address = fabric_address,
    .connect = fabric_connect,
    .disconnect = tri_oldfabric_disconnect,
    .reserve = tri_oldfabric_reserve,
    .commit = tri_oldfabric_commit,
    .flush = tri_oldfabric_flush,
    .poll = fabric_poll,
    .pending = fabric_pending,
    .wait_fd = fabric_wait_fd,
};
