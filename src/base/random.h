/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_RANDOM_H
#define TRI_RANDOM_H

/* A small seeded generator: xorshift64* (Marsaglia 2003, Vigna 2016). */

#include <stdint.h>

struct tri_random {
    uint64_t state; /* not 0 */
};

static inline void tri_random_init(struct tri_random *random, uint64_t seed)
{
    random->state = seed != 0 ? seed : 0x9e3779b97f4a7c15ull;
}

static inline uint64_t tri_random_next(struct tri_random *random)
{
    uint64_t x = random->state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    random->state = x;
    return x * 0x2545f4914f6cdd1dull;
}

/* Uniform enough for choices: 0 to n - 1. */
static inline uint32_t tri_random_below(struct tri_random *random, uint32_t n)
{
    return (uint32_t)(((tri_random_next(random) >> 32) * n) >> 32);
}

#endif
