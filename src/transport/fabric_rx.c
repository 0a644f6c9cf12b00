/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * Receiving. Each buffer takes one frame, and comes back with exactly one
 * completion, good or failed: nothing else is to be known of it. (Large buffers
 * for many frames, FI_MULTI_RECV, would be posted less often; but ofi_rxm 1.17
 * lets them go while frames of other peers still arrive in them, and forgets
 * to when a connection breaks in the middle of one.) Poll notes what arrived
 * under domain_lock, then delivers without any lock, then posts the buffers
 * anew. A peer that stops in the middle of a frame holds one buffer.
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
    events->frame(events->context, data, bytes);
    return 1;
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
            delivered += deliver_frame(fabric, arrival->buffer->data,
                                       arrival->bytes);
        arrival->buffer->state = FABRIC_RX_FREE;
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
    assert(arrival->buffer->state == FABRIC_RX_POSTED && rx->posted_len > 0);
    arrival->buffer->state = FABRIC_RX_ARRIVED;
    rx->posted_len--;
    rx->arrivals[rx->arrivals_len++] = *arrival;
}

void tri_fabric_received_locked(struct fabric *fabric,
                                const struct fi_cq_data_entry *entry)
{
    fabric->renew.has_received = true;
    fabric->renew.deaf_len = 0;
    arrival_add(&fabric->rx,
                &(struct fabric_arrival){
                    .buffer = tri_container_of(entry->op_context,
                                               struct fabric_rx_buffer, op),
                    .bytes = entry->len,
                });
}

/* A broken connection fails what it was receiving: nobody's fault. */
void tri_fabric_receive_failed_locked(struct fabric *fabric,
                                      const struct fi_cq_err_entry *error)
{
    tri_debug("fabric: receive: %s", fi_strerror(error->err));
    fabric->renew.failed_len++;
    arrival_add(&fabric->rx,
                &(struct fabric_arrival){
                    .buffer = tri_container_of(error->op_context,
                                               struct fabric_rx_buffer, op),
                    .garbage = error->err == FI_ETRUNC
                                   ? "a message longer than a frame"
                                   : NULL,
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
    ssize_t rc = fi_recvmsg(fabric->ep, &msg, FI_COMPLETION);

    if (rc == -FI_EAGAIN)
        return TROUPE_EFULL;
    if (rc != 0) {
        tri_error("fabric: posting a receive buffer: %s",
                  fi_strerror((int)-rc));
        return TROUPE_ETRANSPORT;
    }
    buffer->state = FABRIC_RX_POSTED;
    fabric->rx.posted_len++;
    return 0;
}

uint64_t tri_fabric_rx_due(const struct fabric *fabric)
{
    const struct fabric_rx *rx = &fabric->rx;
    bool wanted = rx->posted_len + rx->arrivals_len - rx->arrivals_at <
                  FABRIC_RX_BUFFERS;

    return wanted ? rx->post_at_ns : UINT64_MAX;
}

int tri_fabric_rx_post_locked(struct fabric *fabric)
{
    struct fabric_rx *rx = &fabric->rx;
    int rc = fabric->ep ? 0 : TROUPE_EFULL;

    for (size_t i = 0; rc == 0 && i < FABRIC_RX_BUFFERS; i++) {
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

void tri_fabric_rx_take_back_locked(struct fabric *fabric)
{
    struct fabric_rx *rx = &fabric->rx;

    for (size_t i = 0; i < FABRIC_RX_BUFFERS; i++)
        if (rx->buffers[i].state == FABRIC_RX_POSTED)
            rx->buffers[i].state = FABRIC_RX_FREE;
    rx->posted_len = 0;
    rx->post_at_ns = 0;
}

void tri_fabric_rx_fini(struct fabric *fabric)
{
    struct fabric_rx *rx = &fabric->rx;

    for (size_t i = 0; i < FABRIC_RX_BUFFERS; i++)
        if (rx->buffers[i].data)
            munmap(rx->buffers[i].data, FABRIC_RX_BUFFER_BYTES);
}
