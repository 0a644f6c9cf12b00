/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_ACTOR_H
#define TRI_ACTOR_H

/*
 * Actors and their table.
 *
 * An actor lives in a cell of 128 bytes that never moves and is never given
 * back to the system: a sender may look at a cell at any time without holding
 * anything. A ref is slot and generation; the generation grows when the
 * actor ends, so that an old ref does not match. A sender that was overtaken
 * by an actor's end pushes into the mailbox of a dead or newer actor: every
 * message carries the generation it is meant for and the owner sorts such
 * strays out (actor_run.c).
 *
 * Who owns a cell is decided by its mailbox word (mailbox.h). Fields marked
 * "owner" are only touched by the owner.
 */

#include <stdalign.h>

#include <troupe/actor.h>

#include "actor/mailbox.h"
#include "base/lock.h"

struct tri_name;

struct tri_actor {
    /* written by senders */
    struct tri_mailbox mailbox;
    _Atomic uint32_t generation; /* written by the owner, read by senders */
    uint32_t slot;               /* constant */
    struct tri_actor *queue_next; /* in the shared run queue */
    struct tri_actor *free_next;  /* in a list of free cells */
    struct tri_name *name;        /* owner's, like the rest, but seldom used */
    int32_t stop_reason;
    _Atomic uint16_t awaited;  /* not 0: somebody waits for room; the owner
                                  counts turns */
    _Atomic uint16_t overflow; /* enum troupe_overflow; written at spawn */
    struct tri_lock take_lock; /* TROUPE_DROP_OLD: held by who takes */
    _Atomic uint32_t monitored; /* it may be in the table of monitors */

    /* owner */
    alignas(TRI_CACHE_LINE)
    const troupe_class_t *actor_class; /* NULL: the cell is free */
    void *state; /* small_state, or malloc's */
    struct tri_message *first; /* taken, oldest first; urgent ones in front */
    struct tri_message *last;
    struct tri_message *last_urgent;
    uint32_t taken_len;
    bool started;
    bool stopping; /* exit was asked for */
    alignas(16) unsigned char small_state[16];
};

_Static_assert(sizeof(struct tri_actor) == 2 * TRI_CACHE_LINE, "two lines");

#define TRI_CELLS_PER_CHUNK 4096u

struct tri_actor_table {
    struct tri_actor *_Atomic *chunks;
    uint32_t chunks_max;
    uint32_t actors_max;
    _Atomic uint32_t alive; /* and what workers keep, see tri_cells */
    struct tri_lock lock; /* what follows */
    uint32_t cells_len;   /* cells ever handed out */
    struct tri_actor *free_first;
};

/* Errors: ENOMEM. */
int tri_actor_table_init(struct tri_actor_table *table, uint32_t actors_max);
void tri_actor_table_fini(struct tri_actor_table *table);

/* The cell of a slot, or NULL if there never was one. Any thread. */
static inline struct tri_actor *
tri_actor_table_cell(struct tri_actor_table *table, uint32_t slot)
{
    struct tri_actor *chunk;
    uint32_t i = slot / TRI_CELLS_PER_CHUNK;

    if (tri_unlikely(i >= table->chunks_max))
        return NULL;
    /* acquire: pairs with the release that publishes a new chunk */
    chunk = atomic_load_explicit(&table->chunks[i], memory_order_acquire);
    return tri_likely(chunk != NULL) ? &chunk[slot % TRI_CELLS_PER_CHUNK]
                                     : NULL;
}

/*
 * Takes a free cell and makes the caller its owner. No ref finds it before
 * tri_actor_generation_advance. Any thread.
 * Errors: ELIMIT, ENOMEM.
 */
int tri_actor_table_take(struct tri_actor_table *table,
                         struct tri_actor **actor_p);

/* Owner: the generation in the actor's own ref, also while it ends. */
static inline uint32_t tri_actor_generation(const struct tri_actor *actor)
{
    uint32_t generation = atomic_load_explicit(
        (_Atomic uint32_t *)&actor->generation, memory_order_relaxed);

    return generation - !(generation & 1);
}

/* Owner: gives the cell its next generation, which refs can find, or ends the
 * one it had: an even generation is that of no actor. */
static inline uint32_t tri_actor_generation_advance(struct tri_actor *actor)
{
    uint32_t generation = 1 + atomic_load_explicit(&actor->generation,
                                                   memory_order_relaxed);

    /* release: the cell's content, for tri_actor_find */
    atomic_store_explicit(&actor->generation, generation,
                          memory_order_release);
    return generation;
}

/*
 * Puts an ended cell, already released by its owner, back. A slot whose
 * generation is used up is retired instead.
 */
void tri_actor_table_put(struct tri_actor_table *table,
                         struct tri_actor *actor);

/*
 * Free cells that one worker keeps, so that not every spawn and end goes to
 * the table. They count as alive there; none are kept when actors_max is so
 * small that it would show.
 */
struct tri_cells {
    struct tri_actor *first; /* chained through free_next */
    _Atomic uint32_t len;    /* written by its worker */
};

#define TRI_CELLS_BATCH 32u
#define TRI_CELLS_ACTORS_MIN 65536u

/* As tri_actor_table_take and _put. cells: the calling worker's, or NULL. */
int tri_cells_take(struct tri_actor_table *table, struct tri_cells *cells,
                   struct tri_actor **actor_p);
void tri_cells_put(struct tri_actor_table *table, struct tri_cells *cells,
                   struct tri_actor *actor);

/* Cells ever handed out: slots 1 to this number. Any thread. */
uint32_t tri_actor_table_len(struct tri_actor_table *table);

/* The living actor of a ref of this node, or NULL. Any thread. */
static inline struct tri_actor *
tri_actor_find(struct tri_actor_table *table, uint32_t slot,
               uint32_t generation)
{
    struct tri_actor *actor = tri_actor_table_cell(table, slot);

    /* Living actors have odd generations.
     * acquire: pairs with the release in tri_actor_generation_advance. */
    if (tri_unlikely(actor == NULL || (generation & 1) == 0 ||
                     atomic_load_explicit(&actor->generation,
                                          memory_order_acquire) != generation))
        return NULL;
    return actor;
}

#endif
