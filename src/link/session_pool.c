/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Frames to be filled, stored and sent: in slabs that the carrier knows,
 * allocated when needed and kept until close. session_internal.h states the
 * bound.
 */
#include "link/session_internal.h"

#include <stdlib.h>
#include <sys/mman.h>

void tri_session_pool_init(struct session_pool *pool)
{
    STAILQ_INIT(&pool->free);
    SLIST_INIT(&pool->slabs);
}

static void slab_add(struct session_transport *transport,
                     struct session_slab *slab)
{
    struct session_pool *pool = &transport->pool;

    for (unsigned i = 0; i < SESSION_SLAB_FRAMES; i++) {
        struct session_buffer *buffer = &slab->buffers[i];

        buffer->frame.memory = &slab->memory;
        buffer->frame.data =
            slab->memory.data + i * transport->frame_bytes_max;
    }
    tri_lock_acquire(&pool->lock);
    SLIST_INSERT_HEAD(&pool->slabs, slab, next);
    pool->slabs_len++;
    for (unsigned i = 0; i < SESSION_SLAB_FRAMES; i++)
        STAILQ_INSERT_TAIL(&pool->free, &slab->buffers[i].stored, next);
    tri_lock_release(&pool->lock);
}

static void pool_grow(struct session_transport *transport)
{
    struct tri_carrier *carrier = transport->carrier;
    struct session_slab *slab = calloc(1, sizeof(*slab));
    size_t bytes = SESSION_SLAB_FRAMES * transport->frame_bytes_max;
    void *data;

    if (!slab)
        return;
    data = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        goto free_slab;
    slab->memory = (struct tri_carrier_memory){ .data = data,
                                                .bytes = bytes };
    if (carrier->ops->memory_add(carrier, &slab->memory) != 0)
        goto unmap;
    slab_add(transport, slab);
    return;
unmap:
    munmap(data, bytes);
free_slab:
    free(slab);
}

/* Headers alone may always go: they are few, and they make room. */
static bool may_take_pooled(const struct session_pool *pool,
                            const struct session_remote *remote, unsigned lane)
{
    return lane == TRI_LANES || remote->frames_len[lane] < SESSION_FRAMES_OWN ||
           pool->shared_len < SESSION_SHARED_FRAMES_MAX;
}

bool tri_session_buffer_may_take(struct session_remote *remote, unsigned lane)
{
    struct session_pool *pool = &remote->transport->pool;
    bool may;

    tri_lock_acquire(&pool->lock);
    may = may_take_pooled(pool, remote, lane);
    tri_lock_release(&pool->lock);
    return may;
}

struct session_buffer *tri_session_buffer_take(struct session_remote *remote,
                                               unsigned lane)
{
    struct session_transport *transport = remote->transport;
    struct session_pool *pool = &transport->pool;
    struct tri_stored *stored = NULL;
    struct session_buffer *buffer;
    bool may;

    tri_lock_acquire(&pool->lock);
    may = may_take_pooled(pool, remote, lane);
    if (may && STAILQ_EMPTY(&pool->free)) {
        tri_lock_release(&pool->lock);
        pool_grow(transport); /* without success the list is still empty */
        tri_lock_acquire(&pool->lock);
        may = may_take_pooled(pool, remote, lane);
    }
    if (may)
        stored = STAILQ_FIRST(&pool->free);
    if (stored) {
        STAILQ_REMOVE_HEAD(&pool->free, next);
        if (++remote->frames_len[lane] > SESSION_FRAMES_OWN &&
            lane < TRI_LANES)
            pool->shared_len++;
    }
    tri_lock_release(&pool->lock);
    if (!stored)
        return NULL;
    buffer = tri_container_of(stored, struct session_buffer, stored);
    buffer->remote = remote;
    buffer->lane = (uint8_t)lane;
    buffer->bytes = TRI_FRAME_HEADER_BYTES;
    buffer->records = 0;
    buffer->is_sealed = false;
    return buffer;
}

void tri_session_buffer_give(struct session_buffer *buffer)
{
    struct session_remote *remote = buffer->remote;
    struct session_pool *pool = &remote->transport->pool;
    unsigned lane = buffer->lane;

    tri_lock_acquire(&pool->lock);
    assert(remote->frames_len[lane] > 0);
    if (remote->frames_len[lane]-- > SESSION_FRAMES_OWN && lane < TRI_LANES)
        pool->shared_len--;
    buffer->remote = NULL;
    /* The last one used is warm. */
    STAILQ_INSERT_HEAD(&pool->free, &buffer->stored, next);
    tri_lock_release(&pool->lock);
}

void tri_session_pool_fini(struct session_transport *transport)
{
    struct session_slab *slab;

    while ((slab = SLIST_FIRST(&transport->pool.slabs)) != NULL) {
        SLIST_REMOVE_HEAD(&transport->pool.slabs, next);
        munmap(slab->memory.data, slab->memory.bytes);
        free(slab);
    }
}
