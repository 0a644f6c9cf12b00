/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * What poll tells the link about its channels, and the end of a channel. No
 * lock is held while an event is raised: the callback may use, connect and
 * disconnect any channel. A disconnected channel stays in memory until poll
 * has taken it off every list and its last frame has come back.
 */
#include "transport/oldfabric_internal.h"

#include <stdlib.h>

static void raise_lost(struct fabric *fabric)
{
    const struct tri_transport_events *events = &fabric->config.events;
    struct fabric_channel *channel;

    for (;;) {
        uint64_t node = 0;

        tri_lock_acquire(&fabric->queue_lock);
        channel = TAILQ_FIRST(&fabric->lost);
        if (channel) {
            TAILQ_REMOVE(&fabric->lost, channel, lost);
            channel->is_lost = false;
            node = channel->node;
        }
        tri_lock_release(&fabric->queue_lock);
        if (!channel)
            return;
        events->lost(events->context, node, TRI_EVIDENCE_STRONG);
    }
}

static bool can_go_on_queued(const struct fabric *fabric,
                             const struct fabric_channel *channel)
{
    return tri_oldfabric_broken(channel) ||
           (channel->want_frame &&
            tri_oldfabric_may_take_queued(fabric, channel)) ||
           (channel->want_flush &&
            channel->outstanding_len < FABRIC_FLUSH_FRAMES_MAX);
}

/* Raises it once for each channel that was waiting when the call began: the
 * callback may make its channel wait again. */
static void raise_writable(struct fabric *fabric)
{
    const struct tri_transport_events *events = &fabric->config.events;
    unsigned left = 0;
    struct fabric_channel *channel;

    tri_lock_acquire(&fabric->queue_lock);
    TAILQ_FOREACH(channel, &fabric->waiting, waiting)
        left++;
    while (left-- > 0 && (channel = TAILQ_FIRST(&fabric->waiting)) != NULL) {
        void *peer = channel->peer;

        TAILQ_REMOVE(&fabric->waiting, channel, waiting);
        if (!can_go_on_queued(fabric, channel)) {
            TAILQ_INSERT_TAIL(&fabric->waiting, channel, waiting);
            continue;
        }
        channel->is_waiting = channel->want_frame = false;
        channel->want_flush = false;
        tri_lock_release(&fabric->queue_lock);
        events->writable(events->context, peer);
        tri_lock_acquire(&fabric->queue_lock);
    }
    tri_lock_release(&fabric->queue_lock);
}

/* Frees a disconnected channel, or leaves it to its last completion. */
static void channel_bury_queued(struct fabric *fabric,
                                struct fabric_channel *channel)
{
    TAILQ_REMOVE(&fabric->closing, channel, closing);
    tri_oldfabric_ready_drop_queued(fabric, channel);
    tri_oldfabric_sender_remove_queued(fabric, channel);
    if (channel->is_waiting)
        TAILQ_REMOVE(&fabric->waiting, channel, waiting);
    if (channel->is_lost)
        TAILQ_REMOVE(&fabric->lost, channel, lost);
    channel->is_waiting = channel->is_lost = false;
    channel->is_zombie = true;
    if (channel->frames_len > 0)
        return;
    TAILQ_REMOVE(&fabric->channels, channel, all);
    free(channel);
}

static void bury_all(struct fabric *fabric)
{
    struct fabric_channel *channel;

    /* The domain's lock as well: no one is in channel_send_locked. */
    pthread_mutex_lock(&fabric->domain_lock);
    tri_lock_acquire(&fabric->queue_lock);
    while ((channel = TAILQ_FIRST(&fabric->closing)) != NULL) {
        tri_oldfabric_forget(fabric, channel->node);
        channel_bury_queued(fabric, channel);
    }
    tri_lock_release(&fabric->queue_lock);
    pthread_mutex_unlock(&fabric->domain_lock);
}

void tri_oldfabric_tx_events(struct fabric *fabric)
{
    bool lost, waiting, closing;

    tri_lock_acquire(&fabric->queue_lock);
    lost = !TAILQ_EMPTY(&fabric->lost);
    waiting = !TAILQ_EMPTY(&fabric->waiting);
    closing = !TAILQ_EMPTY(&fabric->closing);
    tri_lock_release(&fabric->queue_lock);
    if (lost)
        raise_lost(fabric);
    if (waiting)
        raise_writable(fabric);
    if (closing)
        bury_all(fabric);
}

bool tri_oldfabric_tx_pending(struct fabric *fabric)
{
    struct fabric_channel *channel;
    bool pending;

    tri_lock_acquire(&fabric->queue_lock);
    pending =
        !TAILQ_EMPTY(&fabric->lost) || !TAILQ_EMPTY(&fabric->closing);
    TAILQ_FOREACH(channel, &fabric->waiting, waiting)
        pending = pending || can_go_on_queued(fabric, channel);
    tri_lock_release(&fabric->queue_lock);
    return pending;
}
