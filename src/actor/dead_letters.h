/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_DEAD_LETTERS_H
#define TRI_DEAD_LETTERS_H

/* The newest dead letters of a node: a ring of fixed size under a lock. */

#include <troupe/message.h>

#include "base/lock.h"

struct tri_dead_letters {
    struct tri_lock lock;
    troupe_dead_letter_t *letters;
    uint32_t len_max;
    uint32_t first;
    uint32_t len;
    _Atomic uint64_t count; /* since the start */
};

/* Errors: ENOMEM. */
int tri_dead_letters_init(struct tri_dead_letters *store, uint32_t len_max);
void tri_dead_letters_fini(struct tri_dead_letters *store);

/* Adds one; drops the oldest when the store is full. */
void tri_dead_letters_add(struct tri_dead_letters *store,
                          const troupe_dead_letter_t *letter);

/* Takes up to len_max of the oldest. Returns how many. */
size_t tri_dead_letters_take(struct tri_dead_letters *store,
                             troupe_dead_letter_t *letters, size_t len_max);

#endif
