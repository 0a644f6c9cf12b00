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
 * tri_bell_disarm. Sender: publish the work, tri_bell_ring. Both sides have a
 * full fence between their write and their read (Dekker), so that either the
 * sleeper sees the work or the sender sees it sleep.
 */

#include "base/base.h"

struct tri_bell_page {
    _Atomic uint32_t asleep;
};

struct tri_bell {
    struct tri_bell_page *page;
    int event_fd;
    int page_fd;
};

/* Makes this node's bell. Errors: ESYSTEM. */
int tri_bell_init(struct tri_bell *bell);

/* Attaches to another process's bell. Owns both descriptors on success.
 * Errors: ESYSTEM, EPROTO (not a bell page: size and seals are checked). */
int tri_bell_attach(struct tri_bell *bell, int page_fd, int event_fd);

void tri_bell_fini(struct tri_bell *bell);

/* Announces that the caller is about to sleep. Ends with a full fence. */
void tri_bell_arm(struct tri_bell *bell);

/* Takes the announcement back and empties the eventfd if it was rung. */
void tri_bell_disarm(struct tri_bell *bell);

/* Writes to the eventfd whether anybody sleeps or not. */
void tri_bell_ring_always(struct tri_bell *bell);

/* Wakes the sleeper, if there is one. Begins with a full fence. */
static inline void tri_bell_ring(struct tri_bell *bell)
{
    /* Pairs with the fence of tri_bell_arm. */
    tri_fence_full();
    if (tri_unlikely(atomic_load_explicit(&bell->page->asleep,
                                          memory_order_relaxed)) &&
        atomic_exchange_explicit(&bell->page->asleep, 0,
                                 memory_order_relaxed))
        tri_bell_ring_always(bell);
}

#endif
