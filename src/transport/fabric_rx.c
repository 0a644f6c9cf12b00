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
 * A buffer that messages used up which were waiting when it was posted is let
 * go by a completion of its own, without an address (rxm_post_mrecv): all that
 * was given to frames has arrived by then.
 */
#include "transport/fabric_internal.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/log.h"

/* The pause before posting is tried again. */
#define POST_RETRY_NS (1000ull * 1000)

/* --- delivery ------------------------------------------------------------- */

static void garbage(struct fabric *fabric, const char *reason)
{
    const struct tri_carrier_events *events = &fabric->config.events;

    events->garbage(events->context, reason);
}

static unsigned deliver_frame(struct fabric *fabric, unsigned char *data,
                              size_t bytes)
{
    const struct tri_carrier_events *events = &fabric->config.events;

    if (bytes > TRI_FRAME_BYTES_MAX) {
        garbage(fabric, "too long for a frame");
        return 0;
    }
    /* Frames are multiples of 8, so that only a stranger's message makes the
     * next one begin elsewhere. */
    if ((uintptr_t)data % TRI_FRAME_ALIGN != 0) {
        memcpy(fabric->rx.bounce, data, bytes);
        data = fabric->rx.bounce;
    }
    events->frame(events->context, data, bytes);
    return 1;
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

unsigned tri_fabric_deliver(struct fabric *fabric, unsigned budget)
{
    struct fabric_rx *rx = &fabric->rx;
    unsigned delivered = 0;

    while (rx->arrivals_at < rx->arrivals_len && delivered < budget) {
        struct fabric_arrival *arrival = &rx->arrivals[rx->arrivals_at++];

        if (arrival->garbage)
            garbage(fabric, arrival->garbage);
        else if (arrival->bytes > 0)
            delivered += deliver_frame(fabric, arrival->data, arrival->bytes);
        settle(rx, arrival);
    }
    if (rx->arrivals_at == rx->arrivals_len)
        rx->arrivals_at = rx->arrivals_len = 0;
    return delivered;
}

/* --- buffers, under domain_lock ------------------------------------------- */

static void arrival_add(struct fabric_rx *rx,
                        const struct fabric_arrival *arrival)
{
    assert(rx->arrivals_len < FABRIC_CQ_BATCH);
    if (arrival->releases)
        rx->posted_len--;
    rx->arrivals[rx->arrivals_len++] = *arrival;
}

void tri_fabric_received_locked(struct fabric *fabric,
                                const struct fi_cq_data_entry *entry)
{
    struct fabric_rx_buffer *buffer =
        tri_container_of(entry->op_context, struct fabric_rx_buffer, op);

    arrival_add(&fabric->rx,
                &(struct fabric_arrival){
                    .buffer = buffer,
                    .data = entry->buf,
                    .bytes = entry->len,
                    .releases = (entry->flags & FI_MULTI_RECV) != 0,
                });
}

void tri_fabric_receive_failed_locked(struct fabric *fabric,
                                      const struct fi_cq_err_entry *error)
{
    struct fabric_rx_buffer *buffer =
        tri_container_of(error->op_context, struct fabric_rx_buffer, op);
    bool truncated = error->err == FI_ETRUNC;

    tri_debug("fabric: receive: %s", fi_strerror(error->err));
    arrival_add(&fabric->rx,
                &(struct fabric_arrival){
                    .buffer = buffer,
                    .data = error->buf ? error->buf : buffer->data,
                    .garbage = truncated ? "a message longer than a frame"
                                         : "a receive failed",
                    .releases =
                        (error->flags & FI_MULTI_RECV) != 0 ||
                        (truncated &&
                         tri_fabric_truncation_releases(fabric->info)),
                });
}

static int buffer_make_locked(struct fabric *fabric,
                              struct fabric_rx_buffer *buffer)
{
    struct fabric_registration *registration;
    void *data = mmap(NULL, FABRIC_RX_BUFFER_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc;

    if (data == MAP_FAILED)
        return TROUPE_ENOMEM;
    rc = tri_fabric_register_locked(fabric, data, FABRIC_RX_BUFFER_BYTES,
                                    FI_RECV, &registration);
    if (rc != 0) {
        munmap(data, FABRIC_RX_BUFFER_BYTES);
        return rc;
    }
    buffer->op.kind = FABRIC_OP_RECEIVE;
    buffer->data = data;
    buffer->descriptor = registration ? fi_mr_desc(registration->mr) : NULL;
    fabric->rx.made_len++;
    return 0;
}

static int buffer_post_locked(struct fabric *fabric,
                              struct fabric_rx_buffer *buffer)
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

uint64_t tri_fabric_rx_due(const struct fabric *fabric)
{
    const struct fabric_rx *rx = &fabric->rx;
    bool wanted = rx->posted_len < FABRIC_RX_BUFFERS &&
                  rx->posted_len + rx->settling_len < FABRIC_RX_BUFFERS_MAX;

    return wanted ? rx->post_at_ns : UINT64_MAX;
}

int tri_fabric_rx_post_locked(struct fabric *fabric)
{
    struct fabric_rx *rx = &fabric->rx;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < FABRIC_RX_BUFFERS_MAX &&
                       rx->posted_len < FABRIC_RX_BUFFERS; i++) {
        struct fabric_rx_buffer *buffer = &rx->buffers[i];

        if (buffer->state != FABRIC_RX_FREE)
            continue;
        if (!buffer->data)
            rc = buffer_make_locked(fabric, buffer);
        if (rc == 0)
            rc = buffer_post_locked(fabric, buffer);
    }
    rx->post_at_ns = rc == 0 ? 0 : tri_now_ns() + POST_RETRY_NS;
    return rc == TROUPE_EFULL ? 0 : rc; /* a later poll tries again */
}

int tri_fabric_rx_init(struct fabric *fabric)
{
    size_t min_bytes = TRI_FRAME_BYTES_MAX;
    int rc = fi_setopt(&fabric->ep->fid, FI_OPT_ENDPOINT,
                       FI_OPT_MIN_MULTI_RECV, &min_bytes, sizeof(min_bytes));

    if (rc == 0)
        return 0;
    tri_error("fabric: FI_OPT_MIN_MULTI_RECV: %s", fi_strerror(-rc));
    return TROUPE_ETRANSPORT;
}

void tri_fabric_rx_fini(struct fabric *fabric)
{
    struct fabric_rx *rx = &fabric->rx;

    for (size_t i = 0; i < FABRIC_RX_BUFFERS_MAX; i++)
        if (rx->buffers[i].data)
            munmap(rx->buffers[i].data, FABRIC_RX_BUFFER_BYTES);
}
