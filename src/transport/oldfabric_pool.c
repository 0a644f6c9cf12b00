/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * Frames: 16 KiB of memory to fill with records and send. Allocated in slabs
 * when needed, kept until close; oldfabric_internal.h states the bound. Each
 * channel has a few that nobody takes from it and shares the others.
 */
#include "transport/oldfabric_internal.h"

#include <stdlib.h>
#include <sys/mman.h>

static int pool_grow(struct fabric *fabric)
{
    struct fabric_slab *slab = calloc(1, sizeof(*slab));
    size_t bytes = (size_t)FABRIC_SLAB_FRAMES * TRI_FRAME_BYTES_MAX;

    if (!slab)
        return TROUPE_ENOMEM;
    slab->data = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slab->data == MAP_FAILED)
        goto free_slab;
    if (tri_oldfabric_register(fabric, slab->data, bytes, FI_SEND, &slab->mr))
        goto unmap;
    tri_lock_acquire(&fabric->queue_lock);
    SLIST_INSERT_HEAD(&fabric->slabs, slab, next);
    for (unsigned i = 0; i < FABRIC_SLAB_FRAMES; i++) {
        struct fabric_frame *frame = &slab->frames[i];

        frame->op.kind = FABRIC_OP_SEND;
        frame->data = slab->data + (size_t)i * TRI_FRAME_BYTES_MAX;
        frame->descriptor = slab->mr ? fi_mr_desc(slab->mr) : NULL;
        STAILQ_INSERT_TAIL(&fabric->free_frames, frame, next);
    }
    tri_lock_release(&fabric->queue_lock);
    return 0;
unmap:
    munmap(slab->data, bytes);
free_slab:
    free(slab);
    return TROUPE_ENOMEM;
}

bool tri_oldfabric_may_take_queued(const struct fabric *fabric,
                                const struct fabric_channel *channel)
{
    return channel->frames_len < FABRIC_CHANNEL_FRAMES_OWN ||
           (channel->frames_len < FABRIC_CHANNEL_FRAMES_MAX &&
            fabric->shared_frames_len < FABRIC_SHARED_FRAMES_MAX);
}

void tri_oldfabric_wait_queued(struct fabric *fabric,
                            struct fabric_channel *channel)
{
    if (channel->is_waiting)
        return;
    channel->is_waiting = true;
    TAILQ_INSERT_TAIL(&fabric->waiting, channel, waiting);
}

struct fabric_frame *tri_oldfabric_frame_take(struct fabric *fabric,
                                           struct fabric_channel *channel)
{
    struct fabric_frame *frame = NULL;
    bool may;

    tri_lock_acquire(&fabric->queue_lock);
    may = tri_oldfabric_may_take_queued(fabric, channel);
    if (may && STAILQ_EMPTY(&fabric->free_frames)) {
        tri_lock_release(&fabric->queue_lock);
        pool_grow(fabric); /* without success the list is still empty */
        tri_lock_acquire(&fabric->queue_lock);
        may = tri_oldfabric_may_take_queued(fabric, channel);
    }
    if (may)
        frame = STAILQ_FIRST(&fabric->free_frames);
    if (frame) {
        STAILQ_REMOVE_HEAD(&fabric->free_frames, next);
        if (++channel->frames_len > FABRIC_CHANNEL_FRAMES_OWN)
            fabric->shared_frames_len++;
    } else {
        channel->want_frame = true;
        tri_oldfabric_wait_queued(fabric, channel);
    }
    tri_lock_release(&fabric->queue_lock);
    if (frame) {
        frame->channel = channel;
        frame->bytes = TRI_FRAME_HEADER_BYTES;
        frame->records = 0;
    }
    return frame;
}

void tri_oldfabric_frame_return_queued(struct fabric *fabric,
                                    struct fabric_frame *frame)
{
    struct fabric_channel *channel = frame->channel;

    assert(channel->frames_len > 0);
    if (channel->frames_len-- > FABRIC_CHANNEL_FRAMES_OWN)
        fabric->shared_frames_len--;
    frame->channel = NULL;
    STAILQ_INSERT_HEAD(&fabric->free_frames, frame, next);
}

void tri_oldfabric_ready_drop_queued(struct fabric *fabric,
                                  struct fabric_channel *channel)
{
    struct fabric_frame *frame;

    while ((frame = STAILQ_FIRST(&channel->ready)) != NULL) {
        STAILQ_REMOVE_HEAD(&channel->ready, next);
        channel->outstanding_len--;
        tri_oldfabric_frame_return_queued(fabric, frame);
    }
}

void tri_oldfabric_pool_fini(struct fabric *fabric)
{
    struct fabric_slab *slab;

    while ((slab = SLIST_FIRST(&fabric->slabs)) != NULL) {
        SLIST_REMOVE_HEAD(&fabric->slabs, next);
        if (slab->mr)
            fi_close(&slab->mr->fid);
        munmap(slab->data, (size_t)FABRIC_SLAB_FRAMES * TRI_FRAME_BYTES_MAX);
        free(slab);
    }
}
