/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_LOCK_H
#define TRI_LOCK_H

/*
 * A spinning lock for sections of a few dozen instructions that call nothing
 * that may wait. A holder can lose its core when ranks outnumber cores, so
 * waiters soon yield theirs.
 */

#include <sched.h>

#include "base/base.h"

struct tri_lock {
    _Atomic uint32_t held;
};

static inline bool tri_lock_try(struct tri_lock *lock)
{
    /* acquire: pairs with the release of tri_lock_release */
    return atomic_load_explicit(&lock->held, memory_order_relaxed) == 0 &&
           atomic_exchange_explicit(&lock->held, 1, memory_order_acquire) == 0;
}

static inline void tri_lock_acquire(struct tri_lock *lock)
{
    unsigned rounds = 0;

    while (!tri_lock_try(lock)) {
        if (++rounds < 64)
            tri_cpu_relax();
        else
            sched_yield();
    }
}

static inline void tri_lock_release(struct tri_lock *lock)
{
    atomic_store_explicit(&lock->held, 0, memory_order_release);
}

static inline bool tri_lock_is_held(struct tri_lock *lock)
{
    return atomic_load_explicit(&lock->held, memory_order_relaxed) != 0;
}

#endif
