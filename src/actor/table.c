/* SPDX-License-Identifier: BSD-3-Clause */
#include "actor/actor.h"

#include <stdlib.h>
#include <sys/mman.h>

/* Slot 0 means the node itself in a ref. */
#define SLOT_FIRST 1u
#define CHUNK_BYTES (TRI_CELLS_PER_CHUNK * sizeof(struct tri_actor))

int tri_actor_table_init(struct tri_actor_table *table, uint32_t actors_max)
{
    *table = (struct tri_actor_table){ 0 };
    table->actors_max = actors_max;
    /* room for slots that are retired or not free for a moment */
    table->chunks_max = actors_max / TRI_CELLS_PER_CHUNK + 2;
    table->chunks = calloc(table->chunks_max, sizeof(*table->chunks));
    table->cells_len = SLOT_FIRST;
    return table->chunks != NULL ? 0 : TROUPE_ENOMEM;
}

void tri_actor_table_fini(struct tri_actor_table *table)
{
    for (uint32_t i = 0; i < table->chunks_max; i++)
        if (atomic_load(&table->chunks[i]) != NULL)
            munmap(atomic_load(&table->chunks[i]), CHUNK_BYTES);
    free(table->chunks);
    table->chunks = NULL;
}

uint32_t tri_actor_table_len(struct tri_actor_table *table)
{
    uint32_t len;

    tri_lock_acquire(&table->lock);
    len = table->cells_len - SLOT_FIRST;
    tri_lock_release(&table->lock);
    return len;
}

/* Zero pages, taken from the system as cells are handed out. */
static int add_chunk_locked(struct tri_actor_table *table, uint32_t i)
{
    void *chunk = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert(tri_lock_is_held(&table->lock));
    if (chunk == MAP_FAILED)
        return TROUPE_ENOMEM;
    atomic_store_explicit(&table->chunks[i], chunk, memory_order_release);
    return 0;
}

static int take_fresh_locked(struct tri_actor_table *table,
                             struct tri_actor **actor_p)
{
    uint32_t slot = table->cells_len;
    uint32_t i = slot / TRI_CELLS_PER_CHUNK;
    struct tri_actor *actor;
    int rc;

    assert(tri_lock_is_held(&table->lock));
    if (i >= table->chunks_max)
        return TROUPE_ELIMIT;
    if (atomic_load_explicit(&table->chunks[i], memory_order_relaxed) == NULL &&
        (rc = add_chunk_locked(table, i)) != 0)
        return rc;
    actor = tri_actor_table_cell(table, slot);
    actor->slot = slot;
    table->cells_len++;
    *actor_p = actor;
    return 0;
}

static struct tri_actor *take_free_locked(struct tri_actor_table *table)
{
    struct tri_actor *actor = table->free_first;

    assert(tri_lock_is_held(&table->lock));
    if (actor == NULL || !tri_mailbox_claim(&actor->mailbox))
        return NULL; /* or a stray is being sorted out in it right now */
    table->free_first = actor->free_next;
    return actor;
}

int tri_actor_table_take(struct tri_actor_table *table,
                         struct tri_actor **actor_p)
{
    struct tri_actor *actor;
    int rc = 0;

    if (atomic_fetch_add_explicit(&table->alive, 1, memory_order_relaxed) >=
        table->actors_max) {
        atomic_fetch_sub_explicit(&table->alive, 1, memory_order_relaxed);
        return TROUPE_ELIMIT;
    }
    tri_lock_acquire(&table->lock);
    actor = take_free_locked(table);
    if (actor == NULL)
        rc = take_fresh_locked(table, &actor);
    tri_lock_release(&table->lock);
    if (rc != 0) {
        atomic_fetch_sub_explicit(&table->alive, 1, memory_order_relaxed);
        return rc;
    }
    *actor_p = actor;
    return 0;
}

/* The next generation but one would be one that was used before. */
static bool is_used_up(const struct tri_actor *actor)
{
    return atomic_load_explicit((_Atomic uint32_t *)&actor->generation,
                                memory_order_relaxed) >= UINT32_MAX - 1;
}

void tri_actor_table_put(struct tri_actor_table *table, struct tri_actor *actor)
{
    if (!is_used_up(actor)) {
        tri_lock_acquire(&table->lock);
        actor->free_next = table->free_first;
        table->free_first = actor;
        tri_lock_release(&table->lock);
    }
    atomic_fetch_sub_explicit(&table->alive, 1, memory_order_relaxed);
}

/* --- a worker's cells ------------------------------------------------------------ */

static void set_len(struct tri_cells *cells, uint32_t len)
{
    atomic_store_explicit(&cells->len, len, memory_order_relaxed);
}

static uint32_t len_of(struct tri_cells *cells)
{
    return atomic_load_explicit(&cells->len, memory_order_relaxed);
}

static void push(struct tri_cells *cells, struct tri_actor *actor)
{
    actor->free_next = cells->first;
    cells->first = actor;
    set_len(cells, len_of(cells) + 1);
}

/* Any free cell; new ones become idle like the others. */
static struct tri_actor *take_any_locked(struct tri_actor_table *table)
{
    struct tri_actor *actor = table->free_first;

    assert(tri_lock_is_held(&table->lock));
    if (actor != NULL) {
        table->free_first = actor->free_next;
        return actor;
    }
    if (take_fresh_locked(table, &actor) != 0)
        return NULL;
    atomic_store_explicit(&actor->mailbox.word, TRI_MAILBOX_IDLE,
                          memory_order_relaxed);
    return actor;
}

static void refill(struct tri_actor_table *table, struct tri_cells *cells)
{
    uint32_t n = 0;

    if (atomic_fetch_add_explicit(&table->alive, TRI_CELLS_BATCH,
                                  memory_order_relaxed) +
            TRI_CELLS_BATCH <=
        table->actors_max) {
        struct tri_actor *actor;

        tri_lock_acquire(&table->lock);
        while (n < TRI_CELLS_BATCH &&
               (actor = take_any_locked(table)) != NULL) {
            push(cells, actor);
            n++;
        }
        tri_lock_release(&table->lock);
    }
    atomic_fetch_sub_explicit(&table->alive, TRI_CELLS_BATCH - n,
                              memory_order_relaxed);
}

static void spill(struct tri_actor_table *table, struct tri_cells *cells)
{
    tri_lock_acquire(&table->lock);
    for (uint32_t n = 0; n < TRI_CELLS_BATCH; n++) {
        struct tri_actor *actor = cells->first;

        cells->first = actor->free_next;
        actor->free_next = table->free_first;
        table->free_first = actor;
    }
    tri_lock_release(&table->lock);
    set_len(cells, len_of(cells) - TRI_CELLS_BATCH);
    atomic_fetch_sub_explicit(&table->alive, TRI_CELLS_BATCH,
                              memory_order_relaxed);
}

int tri_cells_take(struct tri_actor_table *table, struct tri_cells *cells,
                   struct tri_actor **actor_p)
{
    struct tri_actor *actor;

    if (cells == NULL || table->actors_max < TRI_CELLS_ACTORS_MIN)
        return tri_actor_table_take(table, actor_p);
    if (cells->first == NULL)
        refill(table, cells);
    actor = cells->first;
    /* a stray may be being sorted out in it right now */
    if (actor == NULL || !tri_mailbox_claim(&actor->mailbox))
        return tri_actor_table_take(table, actor_p);
    cells->first = actor->free_next;
    set_len(cells, len_of(cells) - 1);
    *actor_p = actor;
    return 0;
}

void tri_cells_put(struct tri_actor_table *table, struct tri_cells *cells,
                   struct tri_actor *actor)
{
    if (cells == NULL || table->actors_max < TRI_CELLS_ACTORS_MIN ||
        is_used_up(actor)) {
        tri_actor_table_put(table, actor);
        return;
    }
    push(cells, actor);
    if (len_of(cells) > 2 * TRI_CELLS_BATCH)
        spill(table, cells);
}
