/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_POOL_H
#define TRI_POOL_H

/*
 * Memory of messages, one pool a process. Small blocks come from slabs in a
 * few size classes and go through per-thread magazines (Bonwick and Adams,
 * "Magazines and Vmem", USENIX 2001): allocation and release are a few
 * instructions without atomics, and a block freed by another thread than
 * allocated it costs one lock in TRI_MAGAZINE_LEN. Larger blocks come from
 * malloc and some are kept for reuse, so that their pages need not be faulted
 * in again.
 */

#include "message/message.h"

#define TRI_MAGAZINE_LEN 64

/*
 * Sets the limit for all message memory, slabs and large blocks. Slabs are
 * never given back. May be called again. Before or between uses.
 */
void tri_pool_init(size_t memory_bytes_max);

/*
 * A message with room for `bytes` of payload and header fields zero except
 * bytes, or NULL when memory is exhausted or the limit is reached.
 */
struct tri_message *tri_message_alloc(size_t bytes);

void tri_message_free(struct tri_message *message);

/*
 * The same two for the way of every small message, inline. tri_message_take
 * leaves the header as it is, but for bytes and size_class.
 */
static inline struct tri_message *tri_message_take(size_t bytes);
static inline void tri_message_give(struct tri_message *message);

/* Hands this thread's magazines back. At a runtime thread's end. */
void tri_pool_thread_fini(void);

/* Gives back most of the large blocks that are kept for reuse when none has
 * been used for a while. By one thread, again and again as long as it returns
 * true. */
struct tri_pool_trim {
    uint64_t uses;
    uint64_t since_ns;
};

bool tri_pool_trim(struct tri_pool_trim *trim, uint64_t now_ns);

/* Bytes taken from the system for messages now. */
size_t tri_pool_bytes(void);

/* --- inline ------------------------------------------------------------------ */

#define TRI_POOL_SMALL_LEN 7u
/* Payload that fits the smallest blocks. */
#define TRI_POOL_TINY_BYTES 64u

/* A chain of free blocks through next. */
struct tri_magazine {
    struct tri_message *first;
    uint32_t len;
};

/* A thread's: what it allocates from and frees to, and one more magazine,
 * empty or full. */
struct tri_pool_cache {
    struct tri_magazine loaded[TRI_POOL_SMALL_LEN];
    struct tri_magazine previous[TRI_POOL_SMALL_LEN];
};

extern _Thread_local struct tri_pool_cache tri_pool_cache
    __attribute__((tls_model("initial-exec")));

static inline struct tri_message *tri_message_take(size_t bytes)
{
#if !defined(TRI_SANITIZE_ADDRESS)
    struct tri_magazine *loaded = &tri_pool_cache.loaded[0];
    struct tri_message *message = loaded->first;

    if (tri_likely(bytes <= TRI_POOL_TINY_BYTES && message != NULL)) {
        loaded->first = message->next;
        loaded->len--;
        message->bytes = (uint32_t)bytes;
        return message;
    }
#endif
    return tri_message_alloc(bytes);
}

static inline void tri_message_give(struct tri_message *message)
{
#if !defined(TRI_SANITIZE_ADDRESS)
    struct tri_magazine *loaded = &tri_pool_cache.loaded[0];

    if (tri_likely(message->size_class == 0 &&
                   loaded->len < TRI_MAGAZINE_LEN)) {
        message->next = loaded->first;
        loaded->first = message;
        loaded->len++;
        return;
    }
#endif
    tri_message_free(message);
}

#endif
