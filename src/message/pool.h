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

/* Hands this thread's magazines back. At a runtime thread's end. */
void tri_pool_thread_fini(void);

/* Bytes taken from the system for messages now. */
size_t tri_pool_bytes(void);

#endif
