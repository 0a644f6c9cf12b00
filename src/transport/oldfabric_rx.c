/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * Receiving. A few large buffers take many frames each (FI_MULTI_RECV). Poll
 * notes what arrived under domain_lock, then delivers without any lock, then
 * posts buffers anew.
 *
 * When a buffer is free again takes care. ofi_rxm places a frame into the
 * buffer as soon as its first bytes arrive and lets the buffer go with the
 * last piece of it, when that is whole; but frames of other peers, in earlier
 * pieces, may still be arriving (rxm_adjust_multi_recv and rxm_get_dyn_rbuf in
 * libfabric 1.17). A buffer posted then would be written twice at once. So it
 * is settling until the bytes delivered out of it are all that was given to
 * frames, and another one takes its place meanwhile. A peer that stops in the
 * middle of a frame holds one buffer for as long as it is stopped.
 */
#include "transport/oldfabric_internal.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/log.h"

#define PEERS_SIZE_MIN 64

/* --- accepted nodes ------------------------------------------------------ */

static size_t peers_place(const struct fabric_rx *rx, uint64_t node)
{
    size_t at = tri_mix64(node) & (rx->peers_size - 1);

    while (rx->peers[at].node != 0 && rx->peers[at].node != node)
        at = (at + 1) & (rx->peers_size - 1);
    return at;
}

static void peers_grow(struct fabric_rx *rx)
{
    struct fabric_peer *old = rx->peers;
    size_t old_size = rx->peers_size;
    struct fabric_peer *peers = calloc(2 * old_size, sizeof(*peers));

    if (!peers)
        return;
    rx->peers = peers;
    rx->peers_size = 2 * old_size;
    for (size_t i = 0; i < old_size; i++)
        if (old[i].node != 0)
            rx->peers[peers_place(rx, old[i].node)] = old[i];
    free(old);
}

/* The peer of a node, or NULL for a stranger. A table that cannot grow only
 * means that accept is asked more than once. */
static void *peers_find(struct fabric *fabric, uint64_t node)
{
    const struct tri_transport_events *events = &fabric->config.events;
    struct fabric_rx *rx = &fabric->rx;
    size_t at;
    void *peer;

    if (node == 0)
        return NULL;
    at = peers_place(rx, node);
    if (rx->peers[at].node == node)
        return rx->peers[at].peer;
    peer = events->accept(events->context, node);
    if (!peer)
        return NULL;
    if (2 * (rx->peers_len + 1) > rx->peers_size)
        peers_grow(rx);
    if (4 * (rx->peers_len + 1) > 3 * rx->peers_size)
        return peer;
    rx->peers[peers_place(rx, node)] = (struct fabric_peer){ node, peer };
    rx->peers_len++;
    return peer;
}

void tri_oldfabric_forget(struct fabric *fabric, uint64_t node)
{
    struct fabric_rx *rx = &fabric->rx;
    size_t mask = rx->peers_size - 1;
    size_t hole = peers_place(rx, node);

    if (node == 0 || rx->peers[hole].node != node)
        return;
    rx->peers_len--;
    rx->peers[hole].node = 0;
    /* What follows without a gap may have been moved on by the hole: put it
     * where it is found now (Knuth 6.4, algorithm R). */
    for (size_t at = (hole + 1) & mask; rx->peers[at].node != 0;
         at = (at + 1) & mask) {
        struct fabric_peer moved = rx->peers[at];

        rx->peers[at].node = 0;
        rx->peers[peers_place(rx, moved.node)] = moved;
    }
}

/* --- delivery ------------------------------------------------------------ */

static void garbage(struct fabric *fabric, const char *reason)
{
    const struct tri_transport_events *events = &fabric->config.events;

    events->garbage(events->context, reason);
}

static unsigned deliver_records(struct fabric *fabric, void *peer,
                                const unsigned char *data, unsigned records)
{
    const struct tri_transport_events *events = &fabric->config.events;

    data += TRI_FRAME_HEADER_BYTES;
    for (unsigned i = 0; i < records; i++) {
        const struct tri_record *record = (const void *)data;

        events->record(events->context, peer, tri_lane_of(record->kind),
                       record, record + 1);
        data += tri_frame_record_bytes(record->bytes);
    }
    return records;
}

static unsigned deliver_frame(struct fabric *fabric, const unsigned char *data,
                              size_t bytes)
{
    struct fabric_rx *rx = &fabric->rx;
    struct tri_frame frame;
    const char *reason;
    void *peer;

    /* Frames are multiples of 8, so that only a stranger's message makes the
     * next one begin elsewhere. */
    if ((uintptr_t)data % TRI_FRAME_ALIGN != 0 &&
        bytes <= TRI_FRAME_BYTES_MAX) {
        memcpy(rx->bounce, data, bytes);
        data = rx->bounce;
    }
    reason = tri_frame_check(data, bytes, fabric->config.node,
                             fabric->config.job_nonce, &frame);
    if (reason) {
        garbage(fabric, reason);
        return 0;
    }
    peer = peers_find(fabric, frame.source);
    if (!peer) {
        garbage(fabric, "stranger");
        return 0;
    }
    return deliver_records(fabric, peer, data, frame.records);
}

/* Accounts for a delivered arrival; see the head of this file. */
static void settle(struct fabric_rx *rx, const struct fabric_arrival *arrival)
{
    struct fabric_rx_buffer *buffer = arrival->buffer;

    buffer->arrived_bytes += arrival->bytes;
    if (arrival->releases) {
        buffer->state = FABRIC_RX_SETTLING;
        buffer->used_bytes =
            arrival->data
                ? (size_t)(arrival->data - buffer->data) + arrival->bytes
                : buffer->arrived_bytes;
        rx->settling_len++;
    }
    if (buffer->state == FABRIC_RX_SETTLING &&
        buffer->arrived_bytes >= buffer->used_bytes) {
        buffer->state = FABRIC_RX_FREE;
        rx->settling_len--;
    }
}

unsigned tri_oldfabric_deliver(struct fabric *fabric, unsigned budget)
{
    struct fabric_rx *rx = &fabric->rx;
    unsigned delivered = 0;

    while (rx->arrivals_at < rx->arrivals_len && delivered < budget) {
        struct fabric_arrival *arrival = &rx->arrivals[rx->arrivals_at++];

        if (arrival->bytes > 0)
            delivered += deliver_frame(fabric, arrival->data, arrival->bytes);
        settle(rx, arrival);
    }
    if (rx->arrivals_at == rx->arrivals_len)
        rx->arrivals_at = rx->arrivals_len = 0;
    if (rx->error) {
        garbage(fabric, rx->error);
        rx->error = NULL;
    }
    return delivered;
}

/* --- buffers, under domain_lock ------------------------------------------ */

static void arrival_add(struct fabric_rx *rx, struct fabric_rx_buffer *buffer,
                        const void *data, size_t bytes, bool releases)
{
    assert(rx->arrivals_len < FABRIC_CQ_BATCH);
    if (releases)
        rx->posted_len--;
    rx->arrivals[rx->arrivals_len++] = (struct fabric_arrival){
        .buffer = buffer,
        .data = data,
        .bytes = bytes,
        .releases = releases,
    };
}

void tri_oldfabric_received_locked(struct fabric *fabric,
                                const struct fi_cq_data_entry *entry)
{
    struct fabric_rx_buffer *buffer =
        tri_container_of(entry->op_context, struct fabric_rx_buffer, op);

    arrival_add(&fabric->rx, buffer, entry->buf, entry->len,
                (entry->flags & FI_MULTI_RECV) != 0);
}

void tri_oldfabric_receive_failed_locked(struct fabric *fabric,
                                      const struct fi_cq_err_entry *error)
{
    struct fabric_rx_buffer *buffer =
        tri_container_of(error->op_context, struct fabric_rx_buffer, op);
    bool releases = (error->flags & FI_MULTI_RECV) != 0 ||
                    (error->err == FI_ETRUNC &&
                     tri_oldfabric_truncation_releases(fabric->info));

    fabric->rx.error = error->err == FI_ETRUNC
                           ? "a message longer than a frame"
                           : "a receive failed";
    tri_debug("fabric: receive: %s", fi_strerror(error->err));
    if (releases)
        arrival_add(&fabric->rx, buffer,
                    error->buf ? error->buf : buffer->data, 0, true);
}

static int buffer_make(struct fabric *fabric, struct fabric_rx_buffer *buffer)
{
    void *data = mmap(NULL, FABRIC_RX_BUFFER_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc;

    if (data == MAP_FAILED)
        return TROUPE_ENOMEM;
    rc = tri_oldfabric_register(fabric, data, FABRIC_RX_BUFFER_BYTES, FI_RECV,
                             &buffer->mr);
    if (rc != 0) {
        munmap(data, FABRIC_RX_BUFFER_BYTES);
        return rc;
    }
    buffer->op.kind = FABRIC_OP_RECEIVE;
    buffer->data = data;
    buffer->descriptor = buffer->mr ? fi_mr_desc(buffer->mr) : NULL;
    return 0;
}

static int buffer_post(struct fabric *fabric, struct fabric_rx_buffer *buffer)
{
    struct iovec iov = { buffer->data, FABRIC_RX_BUFFER_BYTES };
    struct fi_msg msg = { .msg_iov = &iov,
                          .desc = &buffer->descriptor,
                          .iov_count = 1,
                          .addr = FI_ADDR_UNSPEC,
                          .context = &buffer->op.context };
    ssize_t rc = fi_recvmsg(fabric->ep, &msg, FI_MULTI_RECV);

    if (rc == -FI_EAGAIN)
        return TROUPE_EFULL;
    if (rc != 0) {
        tri_error("fabric: posting a receive buffer: %s",
                  fi_strerror((int)-rc));
        return TROUPE_ETRANSPORT;
    }
    buffer->state = FABRIC_RX_POSTED;
    buffer->arrived_bytes = 0;
    buffer->used_bytes = 0;
    fabric->rx.posted_len++;
    return 0;
}

bool tri_oldfabric_rx_can_post(const struct fabric *fabric)
{
    const struct fabric_rx *rx = &fabric->rx;

    return rx->posted_len < FABRIC_RX_BUFFERS &&
           rx->posted_len + rx->settling_len < FABRIC_RX_BUFFERS_MAX;
}

int tri_oldfabric_rx_post_locked(struct fabric *fabric)
{
    struct fabric_rx *rx = &fabric->rx;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < FABRIC_RX_BUFFERS_MAX &&
                       rx->posted_len < FABRIC_RX_BUFFERS; i++) {
        struct fabric_rx_buffer *buffer = &rx->buffers[i];

        if (buffer->state != FABRIC_RX_FREE)
            continue;
        if (!buffer->data)
            rc = buffer_make(fabric, buffer);
        if (rc == 0)
            rc = buffer_post(fabric, buffer);
    }
    return rc == TROUPE_EFULL ? 0 : rc; /* the next poll tries again */
}

int tri_oldfabric_rx_init(struct fabric *fabric)
{
    struct fabric_rx *rx = &fabric->rx;
    size_t min_bytes = TRI_FRAME_BYTES_MAX;
    int rc;

    rx->peers = calloc(PEERS_SIZE_MIN, sizeof(*rx->peers));
    if (!rx->peers)
        return TROUPE_ENOMEM;
    rx->peers_size = PEERS_SIZE_MIN;
    rc = fi_setopt(&fabric->ep->fid, FI_OPT_ENDPOINT, FI_OPT_MIN_MULTI_RECV,
                   &min_bytes, sizeof(min_bytes));
    if (rc != 0) {
        tri_error("fabric: FI_OPT_MIN_MULTI_RECV: %s", fi_strerror(-rc));
        return TROUPE_ETRANSPORT;
    }
    return 0;
}

void tri_oldfabric_rx_fini(struct fabric *fabric)
{
    struct fabric_rx *rx = &fabric->rx;

    for (size_t i = 0; i < FABRIC_RX_BUFFERS_MAX; i++) {
        if (rx->buffers[i].mr)
            fi_close(&rx->buffers[i].mr->fid);
        if (rx->buffers[i].data)
            munmap(rx->buffers[i].data, FABRIC_RX_BUFFER_BYTES);
    }
    free(rx->peers);
}
