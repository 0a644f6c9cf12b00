/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * Frames over libfabric: one reliable datagram endpoint (FI_EP_RDM) a node,
 * messages only, manual progress, one completion queue. What is known of the
 * providers, and why this carrier does what it does:
 *  - a send completion says that the bytes left, never that they arrived;
 *  - nothing says that a peer died: some sends may fail, further ones are
 *    refused for ever (-FI_EAGAIN);
 *  - connections are made again by themselves, so a failure ends no line;
 *  - sending to an address that was removed from the address vector crashes
 *    in every provider, so none is removed; indexes may be shared by two
 *    lives of a node on one port, so ids travel in every frame;
 *  - posted sends cannot be cancelled: their frames are ours again with the
 *    completion or with fi_close of the endpoint;
 *  - `shm` knows 256 peers and tells of success in sending to the dead;
 *  - `udp;ofi_rxd` 1.17 crashes within fi_cq_read when a peer's port is taken
 *    over by another life of it, and when a stranger's message does not fit
 *    into a buffer: for jobs without restarts on trusted networks.
 * See fabric_internal.h for the parts and the locks.
 */
#include "transport/fabric_internal.h"

#include <netinet/in.h>
#include <stdlib.h>
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
#define ADDRESS_NAME_BYTES_MAX (TRI_ADDRESS_BYTES_MAX - ADDRESS_HEADER_BYTES)

_Static_assert(sizeof(struct sockaddr_in6) <= ADDRESS_NAME_BYTES_MAX,
               "an IPv6 address fits");

/* A failed libfabric call: says so and gives our code. */
static int failed(const char *what, int rc)
{
    tri_error("fabric: %s: %s", what, fi_strerror(rc < 0 ? -rc : rc));
    return rc == -FI_ENOMEM ? TROUPE_ENOMEM : TROUPE_ETRANSPORT;
}

/* --- memory --------------------------------------------------------------- */

/* FI_MR_ALLOCATED: there have to be pages behind it. */
static void pages_touch(unsigned char *data, size_t bytes)
{
    const size_t page = 4096; /* or larger: then some are touched again */

    for (size_t at = 0; at < bytes; at += page) {
        volatile unsigned char *byte = data + at;

        *byte = *byte;
    }
}

static int mr_open_locked(struct fabric *fabric, void *data, size_t bytes,
                          uint64_t access, struct fid_mr **mr_p)
{
    int mr_mode = fabric->info->domain_attr->mr_mode;
    /* The key is for remote access, which nobody has; but where the provider
     * does not choose it, it has to be another one each time. */
    uint64_t key = mr_mode & FI_MR_PROV_KEY ? 0 : fabric->next_key++;
    int rc;

    if (mr_mode & FI_MR_ALLOCATED)
        pages_touch(data, bytes);
    /* offset 0, whatever FI_MR_VIRT_ADDR says of remote addresses. */
    rc = fi_mr_reg(fabric->domain, data, bytes, access, 0, key, 0, mr_p, NULL);
    if (rc != 0 || !(mr_mode & FI_MR_ENDPOINT))
        return rc;
    rc = fi_mr_bind(*mr_p, &fabric->ep->fid, 0);
    if (rc == 0)
        rc = fi_mr_enable(*mr_p);
    if (rc != 0)
        fi_close(&(*mr_p)->fid);
    return rc;
}

int tri_fabric_register_locked(struct fabric *fabric, void *data,
                               size_t bytes, uint64_t access,
                               struct fabric_registration **registration_p)
{
    struct fabric_registration *registration;
    int rc;

    *registration_p = NULL;
    if (!(fabric->info->domain_attr->mr_mode & FI_MR_LOCAL))
        return 0;
    registration = calloc(1, sizeof(*registration));
    if (!registration)
        return TROUPE_ENOMEM;
    rc = mr_open_locked(fabric, data, bytes, access, &registration->mr);
    if (rc != 0) {
        free(registration);
        return failed("registering memory", rc);
    }
    LIST_INSERT_HEAD(&fabric->registrations, registration, next);
    *registration_p = registration;
    return 0;
}

void tri_fabric_deregister_locked(struct fabric_registration *registration)
{
    int rc = fi_close(&registration->mr->fid);

    if (rc != 0)
        tri_warn("fabric: forgetting memory: %s", fi_strerror(-rc));
    LIST_REMOVE(registration, next);
    free(registration);
}

static int fabric_memory_add(struct tri_carrier *carrier,
                             struct tri_carrier_memory *memory)
{
    struct fabric *fabric = (struct fabric *)carrier;
    struct fabric_registration *registration;
    int rc;

    pthread_mutex_lock(&fabric->domain_lock);
    rc = tri_fabric_register_locked(fabric, memory->data, memory->bytes,
                                    FI_SEND, &registration);
    memory->registration = registration;
    memory->descriptor = registration ? fi_mr_desc(registration->mr) : NULL;
    pthread_mutex_unlock(&fabric->domain_lock);
    return rc;
}

static size_t fabric_memory_bytes(struct tri_carrier *carrier)
{
    struct fabric *fabric = (struct fabric *)carrier;
    size_t bytes = sizeof(*fabric) + fabric->provider_bytes;

    pthread_mutex_lock(&fabric->domain_lock);
    bytes += (size_t)fabric->rx.made_len * FABRIC_RX_BUFFER_BYTES;
    bytes += fabric->known_size * sizeof(*fabric->known);
    tri_lock_acquire(&fabric->queue_lock);
    bytes += fabric->lines_len * sizeof(struct fabric_line);
    tri_lock_release(&fabric->queue_lock);
    pthread_mutex_unlock(&fabric->domain_lock);
    return bytes;
}

/* --- open and close ------------------------------------------------------- */

static int cq_open(struct fabric *fabric, enum fi_wait_obj wait,
                   struct fid_cq **cq_p)
{
    struct fi_cq_attr attr = {
        .format = FI_CQ_FORMAT_DATA, /* the least that tells `buf` */
        .wait_obj = wait,
    };

    return fi_cq_open(fabric->domain, &attr, cq_p, NULL);
}

/* Some accept FI_WAIT_FD and then have no descriptor to give. */
int tri_fabric_cq_open_locked(struct fabric *fabric, struct fid_cq **cq_p,
                              int *fd_p)
{
    if (tri_fabric_fd_usable(fabric->info) &&
        cq_open(fabric, FI_WAIT_FD, cq_p) == 0) {
        if (fi_control(&(*cq_p)->fid, FI_GETWAIT, fd_p) == 0)
            return 0;
        fi_close(&(*cq_p)->fid);
    }
    *cq_p = NULL;
    *fd_p = -1;
    return cq_open(fabric, FI_WAIT_NONE, cq_p);
}

static int domain_init(struct fabric *fabric)
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
    rc = tri_fabric_cq_open_locked(fabric, &fabric->cq, &fabric->cq_fd);
    return rc == 0 ? 0 : failed("completion queue", rc);
}

int tri_fabric_endpoint_open_locked(struct fabric *fabric)
{
    int rc = fi_endpoint(fabric->domain, fabric->info, &fabric->ep, NULL);

    if (rc != 0) {
        fabric->ep = NULL;
        return rc;
    }
    rc = fi_ep_bind(fabric->ep, &fabric->av->fid, 0);
    if (rc == 0)
        rc = fi_ep_bind(fabric->ep, &fabric->cq->fid, FI_SEND | FI_RECV);
    if (rc == 0)
        rc = fi_enable(fabric->ep);
    if (rc != 0) {
        fi_close(&fabric->ep->fid);
        fabric->ep = NULL;
    }
    return rc;
}

/* Tries the ports of the range, beginning at another one in each process, so
 * that those of one host seldom get into each other's way. */
static int endpoint_open_in_range(struct fabric *fabric)
{
    const struct tri_carrier_config *config = &fabric->config;
    uint32_t ports_len = config->port_last - config->port_first + 1u;
    uint32_t start =
        (uint32_t)(tri_mix64(config->node ^ (uint64_t)getpid()) % ports_len);
    char host[TRI_ENDPOINT_TEXT_BYTES];
    int rc = 0;

    for (uint32_t i = 0; i < ports_len; i++) {
        uint32_t port = config->port_first + (start + i) % ports_len;

        if (!tri_fabric_set_port(fabric->info, (uint16_t)port)) {
            tri_warn("fabric: provider %s has no ports to choose from",
                     fabric->info->fabric_attr->prov_name);
            rc = tri_fabric_endpoint_open_locked(fabric);
            return rc == 0 ? 0 : failed("endpoint", rc);
        }
        rc = tri_fabric_endpoint_open_locked(fabric);
        if (rc == 0)
            return 0;
        if (rc != -FI_EADDRINUSE && rc != -FI_EADDRNOTAVAIL &&
            rc != -FI_EACCES)
            return failed("endpoint", rc);
    }
    tri_error("fabric: no port from %u to %u is free at %s (%s)",
              config->port_first, config->port_last,
              tri_fabric_host(fabric->info, host), fi_strerror(-rc));
    return TROUPE_ETRANSPORT;
}

static int endpoint_init(struct fabric *fabric)
{
    int rc = domain_init(fabric);

    if (rc != 0)
        return rc;
    if (fabric->config.port_first != 0)
        return endpoint_open_in_range(fabric);
    rc = tri_fabric_endpoint_open_locked(fabric);
    return rc == 0 ? 0 : failed("endpoint", rc);
}

static int address_init(struct fabric *fabric)
{
    struct tri_address *address = &fabric->address;
    size_t bytes = ADDRESS_NAME_BYTES_MAX;
    uint64_t node = htole64(fabric->config.node);
    uint16_t format = htole16((uint16_t)fabric->info->addr_format);
    uint16_t length;
    int rc = fi_getname(&fabric->ep->fid,
                        address->data + ADDRESS_HEADER_BYTES, &bytes);

    if (rc != 0)
        return failed("the endpoint's address", rc);
    /* Should there be another endpoint, it is at the same port. */
    if (fabric->info->src_addrlen == bytes)
        memcpy(fabric->info->src_addr, address->data + ADDRESS_HEADER_BYTES,
               bytes);
    length = htole16((uint16_t)bytes);
    memcpy(address->data, &node, sizeof(node));
    memcpy(address->data + 8, &format, sizeof(format));
    memcpy(address->data + 10, &length, sizeof(length));
    address->bytes = (uint16_t)(ADDRESS_HEADER_BYTES + bytes);
    return 0;
}

void tri_fabric_fid_close(struct fid *fid)
{
    int rc = fi_close(fid);

    if (rc != 0)
        tri_warn("fabric: closing: %s", fi_strerror(-rc));
}

/* The endpoint first: what is in flight is ours again behind that. */
static void fabric_close(struct tri_carrier *carrier)
{
    struct fabric *fabric = (struct fabric *)carrier;
    struct fabric_registration *registration;
    struct fabric_line *line;

    tri_fabric_endpoint_close_locked(fabric);
    while ((line = TAILQ_FIRST(&fabric->lines)) != NULL) {
        TAILQ_REMOVE(&fabric->lines, line, all);
        free(line);
    }
    while ((registration = LIST_FIRST(&fabric->registrations)) != NULL)
        tri_fabric_deregister_locked(registration);
    tri_fabric_rx_fini(fabric);
    if (fabric->cq)
        tri_fabric_fid_close(&fabric->cq->fid);
    if (fabric->av)
        tri_fabric_fid_close(&fabric->av->fid);
    if (fabric->domain)
        tri_fabric_fid_close(&fabric->domain->fid);
    if (fabric->fid)
        tri_fabric_fid_close(&fabric->fid->fid);
    if (fabric->info)
        fi_freeinfo(fabric->info);
    pthread_mutex_destroy(&fabric->domain_lock);
    free(fabric->known);
    free(fabric);
}

static void fabric_init(struct fabric *fabric,
                        const struct tri_carrier_config *config)
{
    fabric->base.ops = &tri_carrier_fabric;
    fabric->config = *config;
    fabric->config.provider = fabric->config.interface = NULL; /* not kept */
    if (fabric->config.port_last == 0)
        fabric->config.port_last = config->port_first;
    fabric->cq_fd = -1;
    pthread_mutex_init(&fabric->domain_lock, NULL);
    LIST_INIT(&fabric->registrations);
    LIST_INIT(&fabric->in_flight);
    STAILQ_INIT(&fabric->done);
    fabric->waiting_due_ns = UINT64_MAX;
    TAILQ_INIT(&fabric->lines);
    TAILQ_INIT(&fabric->waiting);
    TAILQ_INIT(&fabric->broke);
    TAILQ_INIT(&fabric->closing);
}

static int ports_check(const struct tri_carrier_config *config)
{
    if (config->port_last == 0 || (config->port_first > 0 &&
                                   config->port_first <= config->port_last))
        return 0;
    tri_error("fabric: ports from %u to %u are no range", config->port_first,
              config->port_last);
    return TROUPE_EOPTION;
}

static int fabric_open(const struct tri_carrier_config *config,
                       struct tri_carrier **carrier_p)
{
    struct fabric *fabric;
    int rc = ports_check(config);

    if (rc != 0)
        return rc;
    fabric = calloc(1, sizeof(*fabric));
    if (!fabric)
        return TROUPE_ENOMEM;
    fabric_init(fabric, config);
    rc = tri_fabric_choose(config->provider, config->interface, &fabric->info);
    if (rc != 0)
        goto close;
    fabric->base.frame_bytes_max = tri_fabric_frame_bytes_max(fabric->info);
    fabric->provider_bytes = tri_fabric_provider_bytes(fabric->info);
    tri_fabric_renew_init(fabric);
    rc = endpoint_init(fabric);
    if (rc == 0)
        rc = tri_fabric_rx_post_locked(fabric); /* nobody else is here yet */
    if (rc == 0)
        rc = address_init(fabric);
    if (rc != 0)
        goto close;
    tri_info("fabric: provider %s, domain %s",
             fabric->info->fabric_attr->prov_name,
             fabric->info->domain_attr->name);
    *carrier_p = &fabric->base;
    return 0;
close:
    fabric_close(&fabric->base);
    return rc;
}

/* --- addresses and lines -------------------------------------------------- */

static void fabric_address(struct tri_carrier *carrier,
                           struct tri_address *address_p)
{
    *address_p = ((struct fabric *)carrier)->address;
}

static uint16_t fabric_port(struct tri_carrier *carrier)
{
    const struct tri_address *address = &((struct fabric *)carrier)->address;
    struct sockaddr_in name;

    if (address->bytes < ADDRESS_HEADER_BYTES + sizeof(name))
        return 0;
    memcpy(&name, address->data + ADDRESS_HEADER_BYTES, sizeof(name));
    /* The port lies at the same place in both. */
    return name.sin_family == AF_INET || name.sin_family == AF_INET6
               ? ntohs(name.sin_port)
               : 0;
}

/* Checks a provider's part of an address for its form: it came from elsewhere,
 * and providers take what they get. */
static bool name_check(const struct fabric *fabric, const unsigned char *name,
                       size_t bytes)
{
    const unsigned char *own = fabric->address.data + ADDRESS_HEADER_BYTES;
    sa_family_t family;

    switch (fabric->info->addr_format) {
    case FI_ADDR_STR: /* of any length, ended by a NUL of its own */
        return bytes > 1 && memchr(name, '\0', bytes) == name + bytes - 1 &&
               memcmp(name, own, strcspn((const char *)own, ":")) == 0;
    case FI_SOCKADDR_IN:
        memcpy(&family, name, sizeof(family));
        return family == AF_INET && bytes == sizeof(struct sockaddr_in);
    case FI_SOCKADDR_IN6:
        memcpy(&family, name, sizeof(family));
        return family == AF_INET6 && bytes == sizeof(struct sockaddr_in6);
    default: /* of a fixed length */
        return bytes + ADDRESS_HEADER_BYTES == fabric->address.bytes;
    }
}

/* Checks an address and sets the provider's part. */
static bool address_check(const struct fabric *fabric, uint64_t node,
                          const struct tri_address *address,
                          unsigned char name_p[ADDRESS_NAME_BYTES_MAX])
{
    uint64_t id;
    uint16_t format, length;

    if (address->bytes < ADDRESS_HEADER_BYTES + sizeof(sa_family_t) ||
        address->bytes > TRI_ADDRESS_BYTES_MAX)
        return false;
    memcpy(&id, address->data, sizeof(id));
    memcpy(&format, address->data + 8, sizeof(format));
    memcpy(&length, address->data + 10, sizeof(length));
    if (le64toh(id) != node ||
        memcmp(&format, fabric->address.data + 8, sizeof(format)) != 0 ||
        le16toh(length) != address->bytes - ADDRESS_HEADER_BYTES)
        return false;
    memcpy(name_p, address->data + ADDRESS_HEADER_BYTES, le16toh(length));
    return name_check(fabric, name_p, le16toh(length));
}

/*
 * Puts an address into the vector, or finds it there: as none is ever removed,
 * connecting to a node again and again must not make it grow.
 */
static int known_add_locked(struct fabric *fabric, const unsigned char *name,
                            size_t bytes, fi_addr_t *address_p)
{
    struct fabric_known *known;
    int rc;

    for (size_t i = 0; i < fabric->known_len; i++) {
        known = &fabric->known[i];
        if (known->name.bytes == bytes &&
            memcmp(known->name.data, name, bytes) == 0) {
            *address_p = known->address;
            return 0;
        }
    }
    if (fabric->known_len == fabric->known_size) {
        size_t size = tri_max(16, 2 * fabric->known_size);

        known = realloc(fabric->known, size * sizeof(*known));
        if (!known)
            return TROUPE_ENOMEM;
        fabric->known = known;
        fabric->known_size = size;
    }
    known = &fabric->known[fabric->known_len];
    known->address = FI_ADDR_NOTAVAIL;
    known->name.bytes = (uint16_t)bytes;
    memcpy(known->name.data, name, bytes);
    rc = fi_av_insert(fabric->av, name, 1, &known->address, 0, NULL);
    if (rc != 1 || known->address == FI_ADDR_NOTAVAIL)
        return failed("inserting an address", rc < 0 ? rc : -FI_EINVAL);
    *address_p = known->address;
    fabric->known_len++;
    return 0;
}

static int fabric_connect(struct tri_carrier *carrier, uint64_t node,
                          const struct tri_address *address, void *peer,
                          struct tri_line **line_p)
{
    struct fabric *fabric = (struct fabric *)carrier;
    struct fabric_line *line;
    _Alignas(8) unsigned char name[ADDRESS_NAME_BYTES_MAX] = { 0 };
    fi_addr_t fi_address = FI_ADDR_NOTAVAIL;
    int rc;

    if (!address_check(fabric, node, address, name)) {
        tri_error("fabric: the address of node %016llx is not one of "
                  "provider %s", (unsigned long long)node,
                  fabric->info->fabric_attr->prov_name);
        return TROUPE_ETRANSPORT;
    }
    pthread_mutex_lock(&fabric->domain_lock);
    rc = known_add_locked(fabric, name, address->bytes - ADDRESS_HEADER_BYTES,
                          &fi_address);
    pthread_mutex_unlock(&fabric->domain_lock);
    if (rc == 0)
        rc = tri_fabric_line_create(fabric, node, fi_address, peer, &line);
    if (rc == 0)
        *line_p = &line->base;
    return rc;
}

/* --- progress ------------------------------------------------------------- */

static void completion_failed_locked(struct fabric *fabric)
{
    struct fi_cq_err_entry error = { 0 };
    struct fabric_op *op;

    if (fi_cq_readerr(fabric->cq, &error, 0) < 0 || !error.op_context)
        return;
    op = error.op_context;
    if (op->kind == FABRIC_OP_RECEIVE) {
        tri_fabric_receive_failed_locked(fabric, &error);
        return;
    }
    tri_info("fabric: send: %s", fi_strerror(error.err));
    tri_fabric_sent_locked(
        fabric, tri_container_of(op, struct fabric_private, op), true);
}

bool tri_fabric_read_locked(struct fabric *fabric)
{
    struct fi_cq_data_entry entries[FABRIC_CQ_BATCH];
    ssize_t n;

    tri_fabric_errno_clear();
    n = fi_cq_read(fabric->cq, entries, FABRIC_CQ_BATCH);
    if (n == -FI_EAVAIL) {
        completion_failed_locked(fabric);
        return true;
    }
    for (ssize_t i = 0; i < n; i++) {
        struct fabric_op *op = entries[i].op_context;

        if (op->kind == FABRIC_OP_RECEIVE)
            tri_fabric_received_locked(fabric, &entries[i]);
        else
            tri_fabric_sent_locked(
                fabric, tri_container_of(op, struct fabric_private, op),
                false);
    }
    return n >= 0;
}

/* Reads completions until there are none or something arrived. */
static void completions_read_locked(struct fabric *fabric)
{
    for (int round = 0; round < CQ_ROUNDS_MAX; round++) {
        bool more = tri_fabric_read_locked(fabric);

        if (fabric->rx.arrivals_len > 0)
            return;
        if (!more) {
            tri_fabric_look_locked(fabric);
            return;
        }
    }
}

static bool is_due(uint64_t due_ns)
{
    return due_ns == 0 || (due_ns != UINT64_MAX && due_ns <= tri_now_ns());
}

static unsigned fabric_poll(struct tri_carrier *carrier, unsigned budget)
{
    struct fabric *fabric = (struct fabric *)carrier;
    unsigned delivered;

    if (fabric->rx.arrivals_len == 0) {
        pthread_mutex_lock(&fabric->domain_lock);
        if (tri_unlikely(tri_fabric_is_worn(fabric)))
            tri_fabric_renew_locked(fabric);
        else
            completions_read_locked(fabric);
        pthread_mutex_unlock(&fabric->domain_lock);
    }

    delivered = tri_fabric_deliver(fabric, budget);

    if (is_due(tri_fabric_rx_due(fabric))) {
        pthread_mutex_lock(&fabric->domain_lock);
        tri_fabric_rx_post_locked(fabric);
        pthread_mutex_unlock(&fabric->domain_lock);
    }
    tri_fabric_line_events(fabric);
    return delivered;
}

/* Without a descriptor the caller polls every millisecond anyhow, and only
 * our own queues count. */
static bool fabric_pending(struct tri_carrier *carrier, uint64_t *due_ns_p)
{
    struct fabric *fabric = (struct fabric *)carrier;
    struct fid *fids[1] = { &fabric->cq->fid };
    bool pending;

    *due_ns_p = tri_min(tri_fabric_line_due(fabric),
                        tri_min(tri_fabric_rx_due(fabric),
                                tri_fabric_renew_due(fabric)));
    if (fabric->rx.arrivals_len > 0 || is_due(*due_ns_p))
        return true;
    if (fabric->cq_fd < 0)
        return false;
    pthread_mutex_lock(&fabric->domain_lock);
    pending = fi_trywait(fabric->fid, fids, 1) != FI_SUCCESS;
    pthread_mutex_unlock(&fabric->domain_lock);
    return pending;
}

static int fabric_wait_fd(struct tri_carrier *carrier)
{
    struct fabric *fabric = (struct fabric *)carrier;

    return fabric->cq_fd >= 0 ? fabric->cq_fd : -2;
}

const struct tri_carrier_ops tri_carrier_fabric = {
    .name = "fabric",
    .open = fabric_open,
    .close = fabric_close,
    .address = fabric_address,
    .connect = fabric_connect,
    .disconnect = tri_fabric_disconnect,
    .send = tri_fabric_send,
    .memory_add = fabric_memory_add,
    .poll = fabric_poll,
    .pending = fabric_pending,
    .wait_fd = fabric_wait_fd,
    .port = fabric_port,
    .memory_bytes = fabric_memory_bytes,
};
