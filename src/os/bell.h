/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_BELL_H
#define TRI_BELL_H

/*
 * A node's doorbell: an eventfd that its poller sleeps on and a shared word
 * that says whether it sleeps, so that senders make a system call only when
 * somebody needs waking. The word lives in a memfd page which other processes
 * of the host map; the descriptors travel to them over a Unix socket.
 *
 * Sleeper: tri_bell_arm, look for work once more, sleep on the eventfd,
 * tri_bell_disarm. Sender: publish the work, tri_bell_ring. Between their
 * write and their read both need a full barrier (Dekker), so that either the
 * sleeper sees the work or the sender sees it sleep. A fence in the sender
 * would wait for the work to reach the other core, for each message; so the
 * sleeper makes the barrier for all by membarrier(2), a few microseconds once
 * a sleep. Where the kernel refuses that, senders have fences.
 */

#include "base/base.h"

struct tri_bell_page {
    _Atomic uint32_t asleep;
    uint32_t needs_fence; /* constant: the sleeper has no membarrier */
};

struct tri_bell {
    struct tri_bell_page *page;
    int event_fd;
    int page_fd;
    bool needs_fence; /* it, or this process, has no membarrier */
};

/* Makes this node's bell. Errors: ESYSTEM. */
int tri_bell_init(struct tri_bell *bell);

/* Attaches to another process's bell. Owns both descriptors on success.
 * Errors: ESYSTEM, EPROTO (not a bell page: size and seals are checked). */
int tri_bell_attach(struct tri_bell *bell, int page_fd, int event_fd);

void tri_bell_fini(struct tri_bell *bell);

/* Announces that the caller is about to sleep. Ends with a full barrier, here
 * and in all senders. */
void tri_bell_arm(struct tri_bell *bell);

/* Takes the announcement back and empties the eventfd if it was rung. */
void tri_bell_disarm(struct tri_bell *bell);

/* Writes to the eventfd whether anybody sleeps or not. */
void tri_bell_ring_always(struct tri_bell *bell);

/* Wakes the sleeper, if there is one; after work was published. */
static inline void tri_bell_ring(struct tri_bell *bell)
{
    /* Pairs with the barrier of tri_bell_arm. */
    if (tri_unlikely(bell->needs_fence))
        tri_fence_full();
    else
        atomic_signal_fence(memory_order_seq_cst);
    if (tri_unlikely(atomic_load_explicit(&bell->page->asleep,
                                          memory_order_relaxed)) &&
        atomic_exchange_explicit(&bell->page->asleep, 0,
                                 memory_order_relaxed))
        tri_bell_ring_always(bell);
}

#endif
