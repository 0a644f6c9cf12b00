/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * Sending. A frame is in one place at a time: the pool's free list, a
 * channel's `filling`, its `ready` queue, or in flight (known to libfabric
 * only). It leaves the last one by its completion or by fi_close alone.
 *
 * A send that the provider refuses for now (-FI_EAGAIN: no connection yet, no
 * room, a dead peer that rxm tries to reach for ever) stays queued; poll tries
 * again after a pause that grows with the time the channel has been stalled.
 * A send that failed leaves a hole in the order, so it breaks the channel:
 * what is queued is dropped and the link gets ENODE until it connects anew.
 */
#include "transport/oldfabric_internal.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "os/bell.h"

static struct fabric *channel_fabric(struct fabric_channel *channel)
{
    return (struct fabric *)channel->base.transport;
}

/* --- sending, under domain_lock ------------------------------------------ */

static void channel_break(struct fabric *fabric,
                          struct fabric_channel *channel)
{
    atomic_store_explicit(&channel->broken, true, memory_order_relaxed);
    tri_lock_acquire(&fabric->queue_lock);
    tri_oldfabric_ready_drop_queued(fabric, channel);
    if (!channel->is_lost && !channel->is_closing && !channel->is_zombie) {
        channel->is_lost = true;
        TAILQ_INSERT_TAIL(&fabric->lost, channel, lost);
    }
    tri_lock_release(&fabric->queue_lock);
}

static void channel_stalled(struct fabric_channel *channel)
{
    uint64_t now = tri_now_ns();
    uint64_t pause;

    if (channel->stalled_since_ns == 0)
        channel->stalled_since_ns = now;
    /* A quarter of the time it has lasted: soon after a connection that is
     * being made, seldom to a peer that is gone. */
    pause = (now - channel->stalled_since_ns) / 4;
    if (pause < FABRIC_RETRY_MIN_NS)
        pause = FABRIC_RETRY_MIN_NS;
    if (pause > FABRIC_RETRY_MAX_NS)
        pause = FABRIC_RETRY_MAX_NS;
    channel->retry_at_ns = now + pause;
}

/* Sends what is ready. Returns false when something is left. */
static bool channel_send_locked(struct fabric *fabric,
                                struct fabric_channel *channel)
{
    if (channel->retry_at_ns != 0 &&
        channel->retry_at_ns > tri_now_ns())
        return false;
    for (;;) {
        struct fabric_frame *frame;
        ssize_t rc;

        tri_lock_acquire(&fabric->queue_lock);
        if (channel->is_closing || tri_oldfabric_broken(channel))
            tri_oldfabric_ready_drop_queued(fabric, channel);
        frame = STAILQ_FIRST(&channel->ready);
        tri_lock_release(&fabric->queue_lock);
        if (!frame)
            return true;
        rc = fi_send(fabric->ep, frame->data, frame->bytes, frame->descriptor,
                     channel->address, &frame->op.context);
        if (rc == -FI_EAGAIN || rc == -FI_ENOMEM) {
            channel_stalled(channel);
            return false;
        }
        if (rc != 0) {
            tri_info("sending to node %016llx: %s",
                     (unsigned long long)channel->node, fi_strerror((int)-rc));
            channel_break(fabric, channel);
            return true;
        }
        channel->stalled_since_ns = channel->retry_at_ns = 0;
        /* Its completion is only read under domain_lock: not before this. */
        tri_lock_acquire(&fabric->queue_lock);
        STAILQ_REMOVE_HEAD(&channel->ready, next);
        tri_lock_release(&fabric->queue_lock);
    }
}

static void sender_add_queued(struct fabric *fabric,
                              struct fabric_channel *channel)
{
    if (channel->is_sender)
        return;
    channel->is_sender = true;
    TAILQ_INSERT_TAIL(&fabric->senders, channel, sender);
}

void tri_oldfabric_sender_remove_queued(struct fabric *fabric,
                                     struct fabric_channel *channel)
{
    if (!channel->is_sender)
        return;
    channel->is_sender = false;
    TAILQ_REMOVE(&fabric->senders, channel, sender);
}

void tri_oldfabric_send_all_locked(struct fabric *fabric)
{
    struct fabric_channels batch = TAILQ_HEAD_INITIALIZER(batch);
    struct fabric_channel *channel;

    /* Channels on the batch stay marked as senders, so that nobody else adds
     * or frees them; a frame that is queued meanwhile is seen below. */
    tri_lock_acquire(&fabric->queue_lock);
    TAILQ_CONCAT(&batch, &fabric->senders, sender);
    tri_lock_release(&fabric->queue_lock);
    while ((channel = TAILQ_FIRST(&batch)) != NULL) {
        channel_send_locked(fabric, channel);
        TAILQ_REMOVE(&batch, channel, sender);
        tri_lock_acquire(&fabric->queue_lock);
        channel->is_sender = false;
        if (!STAILQ_EMPTY(&channel->ready))
            sender_add_queued(fabric, channel);
        tri_lock_release(&fabric->queue_lock);
    }
}

uint64_t tri_oldfabric_send_due_locked(struct fabric *fabric)
{
    uint64_t due = UINT64_MAX;
    struct fabric_channel *channel;

    tri_lock_acquire(&fabric->queue_lock);
    TAILQ_FOREACH(channel, &fabric->senders, sender)
        if (channel->retry_at_ns < due)
            due = channel->retry_at_ns;
    tri_lock_release(&fabric->queue_lock);
    return due;
}

/*
 * Sends what the channel has ready now, or leaves it to poll. The bell is
 * rung whenever something is left: who sleeps on the CQ's descriptor alone
 * would not come to try again.
 */
static void channel_kick(struct fabric *fabric, struct fabric_channel *channel)
{
    bool done = false;

    if (pthread_mutex_trylock(&fabric->domain_lock) == 0) {
        done = channel_send_locked(fabric, channel) &&
               !tri_oldfabric_broken(channel);
        if (done) {
            tri_lock_acquire(&fabric->queue_lock);
            if (STAILQ_EMPTY(&channel->ready))
                tri_oldfabric_sender_remove_queued(fabric, channel);
            tri_lock_release(&fabric->queue_lock);
        }
        pthread_mutex_unlock(&fabric->domain_lock);
    }
    if (!done && fabric->config.bell)
        tri_bell_ring(fabric->config.bell);
}

void tri_oldfabric_sent_locked(struct fabric *fabric, struct fabric_frame *frame,
                            bool failed)
{
    struct fabric_channel *channel = frame->channel;
    bool gone;

    channel->retry_at_ns = 0; /* there may be room now */
    if (failed && !tri_oldfabric_broken(channel))
        channel_break(fabric, channel);
    tri_lock_acquire(&fabric->queue_lock);
    assert(channel->outstanding_len > 0);
    channel->outstanding_len--;
    tri_oldfabric_frame_return_queued(fabric, frame);
    gone = channel->is_zombie && channel->frames_len == 0;
    if (gone)
        TAILQ_REMOVE(&fabric->channels, channel, all);
    tri_lock_release(&fabric->queue_lock);
    if (gone)
        free(channel);
}

/* --- the link's calls ---------------------------------------------------- */

int tri_oldfabric_channel_create(struct fabric *fabric, uint64_t node,
                              fi_addr_t address, void *peer,
                              struct fabric_channel **channel_p)
{
    struct fabric_channel *channel = calloc(1, sizeof(*channel));
    bool full;

    if (!channel)
        return TROUPE_ENOMEM;
    channel->base.transport = &fabric->base;
    channel->peer = peer;
    channel->node = node;
    channel->address = address;
    STAILQ_INIT(&channel->ready);
    tri_lock_acquire(&fabric->queue_lock);
    full = fabric->channels_len >= fabric->config.peers_max;
    if (!full) {
        fabric->channels_len++;
        TAILQ_INSERT_TAIL(&fabric->channels, channel, all);
    }
    tri_lock_release(&fabric->queue_lock);
    if (full) {
        free(channel);
        return TROUPE_ELIMIT;
    }
    *channel_p = channel;
    return 0;
}

/* Ends the frame that is being filled and queues it. */
static void channel_seal(struct fabric *fabric, struct fabric_channel *channel)
{
    struct fabric_frame *frame = channel->filling;

    tri_frame_encode(frame->data,
                     &(struct tri_frame){ .source = fabric->config.node,
                                          .destination = channel->node,
                                          .nonce = fabric->config.job_nonce,
                                          .bytes = frame->bytes,
                                          .records = frame->records });
    channel->filling = NULL;
    tri_lock_acquire(&fabric->queue_lock);
    channel->outstanding_len++;
    STAILQ_INSERT_TAIL(&channel->ready, frame, next);
    sender_add_queued(fabric, channel);
    tri_lock_release(&fabric->queue_lock);
}

int tri_oldfabric_reserve(struct tri_channel *base, enum tri_lane lane,
                       size_t bytes, struct tri_span *span_p)
{
    struct fabric_channel *channel = (struct fabric_channel *)base;
    struct fabric *fabric = channel_fabric(channel);
    struct fabric_frame *frame = channel->filling;

    assert(bytes <= TRI_FRAME_PAYLOAD_MAX);
    (void)lane;
    if (tri_oldfabric_broken(channel))
        return TROUPE_ENODE;
    if (frame &&
        frame->bytes + tri_frame_record_bytes(bytes) > TRI_FRAME_BYTES_MAX) {
        channel_seal(fabric, channel);
        channel_kick(fabric, channel);
        frame = NULL;
    }
    if (!frame) {
        frame = channel->filling = tri_oldfabric_frame_take(fabric, channel);
        if (!frame)
            return TROUPE_EFULL;
    }
    span_p->record = (struct tri_record *)(void *)(frame->data + frame->bytes);
    span_p->payload = span_p->record + 1;
    channel->reserved_bytes = bytes;
    return 0;
}

void tri_oldfabric_commit(struct tri_channel *base)
{
    struct fabric_channel *channel = (struct fabric_channel *)base;
    struct fabric_frame *frame = channel->filling;
    struct tri_record *record;
    size_t bytes;

    assert(frame);
    record = (struct tri_record *)(void *)(frame->data + frame->bytes);
    bytes = record->bytes;
    assert(bytes <= channel->reserved_bytes);
    /* The padding is sent as well: nothing of an older frame with it. */
    memset((unsigned char *)(record + 1) + bytes, 0,
           tri_align_up(bytes, TRI_FRAME_ALIGN) - bytes);
    frame->bytes += (uint32_t)tri_frame_record_bytes(bytes);
    frame->records++;
}

int tri_oldfabric_flush(struct tri_channel *base)
{
    struct fabric_channel *channel = (struct fabric_channel *)base;
    struct fabric *fabric = channel_fabric(channel);
    bool ready, wait;

    if (tri_oldfabric_broken(channel))
        return TROUPE_ENODE;
    tri_lock_acquire(&fabric->queue_lock);
    wait = channel->filling && channel->filling->records > 0 &&
           channel->outstanding_len >= FABRIC_FLUSH_FRAMES_MAX;
    if (wait) {
        channel->want_flush = true;
        tri_oldfabric_wait_queued(fabric, channel);
    }
    ready = !STAILQ_EMPTY(&channel->ready);
    tri_lock_release(&fabric->queue_lock);
    if (!wait && channel->filling && channel->filling->records > 0) {
        channel_seal(fabric, channel);
        ready = true;
    }
    if (ready)
        channel_kick(fabric, channel);
    return wait ? TROUPE_EFULL : 0;
}

void tri_oldfabric_disconnect(struct tri_channel *base)
{
    struct fabric_channel *channel = (struct fabric_channel *)base;
    struct fabric *fabric = channel_fabric(channel);

    tri_lock_acquire(&fabric->queue_lock);
    if (channel->filling)
        tri_oldfabric_frame_return_queued(fabric, channel->filling);
    channel->filling = NULL;
    channel->is_closing = true;
    fabric->channels_len--;
    TAILQ_INSERT_TAIL(&fabric->closing, channel, closing);
    tri_lock_release(&fabric->queue_lock);
}
