/* SPDX-License-Identifier: BSD-3-Clause */
#include "actor/markers.h"

#include "actor/runtime.h"
#include "message/pool.h"

/* Of no actor: living ones have odd generations. */
#define GENERATION_OF_NONE 0u

/*
 * What was delivered to an idle actor before this has been handled. Twice, as
 * who drops the oldest message has all of them in hand for a moment: if that
 * was so at the first look, it holds the lock, or has put them back.
 * acquire: pairs with the release in tri_mailbox_release.
 */
static bool is_idle(struct tri_actor *actor)
{
    return atomic_load_explicit(&actor->mailbox.word, memory_order_acquire) ==
               TRI_MAILBOX_IDLE &&
           !tri_lock_is_held(&actor->take_lock) &&
           atomic_load_explicit(&actor->mailbox.word, memory_order_acquire) ==
               TRI_MAILBOX_IDLE;
}

static void push_marker(struct tri_runtime *runtime, struct tri_actor *actor)
{
    struct tri_markers *markers = &runtime->markers;
    struct tri_message *message = tri_message_alloc(0);

    if (message == NULL) {
        markers->lacks_memory = true;
        return;
    }
    message->kind = TRI_MARKER;
    message->slot = actor->slot;
    message->generation = GENERATION_OF_NONE;
    atomic_fetch_add_explicit(&markers->left, 1, memory_order_relaxed);
    if (tri_deliver_to(runtime, actor, message, false) != 0)
        tri_refuse(runtime, message, TROUPE_EFULL); /* cannot be: no bound */
}

/* True for the last one. */
static bool count_down(struct tri_markers *markers)
{
    /* release: what this thread's handlers did; acquire: what the others' did,
     * for who is told that all is handled */
    return atomic_fetch_sub_explicit(&markers->left, 1,
                                     memory_order_acq_rel) == 1;
}

bool tri_markers_push(struct tri_runtime *runtime)
{
    struct tri_markers *markers = &runtime->markers;
    uint32_t len = tri_actor_table_len(&runtime->actors);

    assert(atomic_load(&markers->left) == 0);
    atomic_store_explicit(&markers->left, 1, memory_order_relaxed);
    markers->lacks_memory = false;
    for (uint32_t slot = 1; slot <= len; slot++) {
        struct tri_actor *actor = tri_actor_table_cell(&runtime->actors, slot);

        if (!is_idle(actor))
            push_marker(runtime, actor);
    }
    return count_down(markers);
}

void tri_marker_met(struct tri_runtime *runtime)
{
    if (count_down(&runtime->markers))
        runtime->markers.ended(runtime);
}

uint32_t tri_actors_busy(struct tri_runtime *runtime,
                         struct tri_busy_actor *list, uint32_t list_len_max)
{
    uint32_t len = tri_actor_table_len(&runtime->actors);
    uint32_t n = 0;

    for (uint32_t slot = 1; slot <= len; slot++) {
        struct tri_actor *actor = tri_actor_table_cell(&runtime->actors, slot);
        uint32_t generation = atomic_load_explicit(&actor->generation,
                                                   memory_order_relaxed);

        if ((generation & 1) == 0 || is_idle(actor))
            continue;
        if (n < list_len_max)
            list[n] = (struct tri_busy_actor){ slot, generation };
        n++;
    }
    return n;
}
