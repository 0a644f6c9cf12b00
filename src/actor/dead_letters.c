/* SPDX-License-Identifier: BSD-3-Clause */
#include "actor/dead_letters.h"

#include <stdlib.h>

int tri_dead_letters_init(struct tri_dead_letters *store, uint32_t len_max)
{
    *store = (struct tri_dead_letters){ .len_max = len_max };
    if (len_max == 0)
        return 0;
    store->letters = calloc(len_max, sizeof(*store->letters));
    return store->letters != NULL ? 0 : TROUPE_ENOMEM;
}

void tri_dead_letters_fini(struct tri_dead_letters *store)
{
    free(store->letters);
    store->letters = NULL;
}

void tri_dead_letters_add(struct tri_dead_letters *store,
                          const troupe_dead_letter_t *letter)
{
    atomic_fetch_add_explicit(&store->count, 1, memory_order_relaxed);
    if (store->len_max == 0)
        return;
    tri_lock_acquire(&store->lock);
    if (store->len == store->len_max) {
        store->first = (store->first + 1) % store->len_max;
        store->len--;
    }
    store->letters[(store->first + store->len) % store->len_max] = *letter;
    store->len++;
    tri_lock_release(&store->lock);
}

size_t tri_dead_letters_take(struct tri_dead_letters *store,
                             troupe_dead_letter_t *letters, size_t len_max)
{
    size_t n = 0;

    tri_lock_acquire(&store->lock);
    while (n < len_max && store->len > 0) {
        letters[n++] = store->letters[store->first];
        store->first = (store->first + 1) % store->len_max;
        store->len--;
    }
    tri_lock_release(&store->lock);
    return n;
}
