/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_MARKERS_H
#define TRI_MARKERS_H

/*
 * Markers: empty messages behind all that an actor has in its mailbox. When
 * the last one has come out again, all that was delivered on this node before
 * has been handled. Idle actors need none, so nothing is paid by who is not
 * busy, and nothing at all when nobody asks.
 *
 * A marker is addressed to no generation of its actor, so the actor's turn
 * refuses it as a stray (run.c), after all that came before; tri_refuse counts
 * it. That holds for actors that end meanwhile, too.
 *
 * One batch at a time: there are at most as many markers as actors.
 */

#include "base/base.h"

struct tri_runtime;

struct tri_markers {
    _Atomic uint32_t left; /* and 1 while they are pushed; 0: no batch */
    bool lacks_memory;     /* some actor got none */
    /* Called once a batch by the thread that handled the last marker, unless
     * it came out before tri_markers_push returned. */
    void (*ended)(struct tri_runtime *runtime);
};

/*
 * Begins a batch. True: it has ended already. Not while one is under way. Any
 * thread.
 */
bool tri_markers_push(struct tri_runtime *runtime);

/* A marker was met. */
void tri_marker_met(struct tri_runtime *runtime);

/* An actor that is running or has messages. */
struct tri_busy_actor {
    uint32_t slot;
    uint32_t generation;
};

/* Returns how many there are and lists the first. Any thread. */
uint32_t tri_actors_busy(struct tri_runtime *runtime,
                         struct tri_busy_actor *list, uint32_t list_len_max);

#endif
