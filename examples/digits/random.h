/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef DIGITS_RANDOM_H
#define DIGITS_RANDOM_H

/* A small seeded generator (splitmix64): the same numbers on every rank. */

#include <stdint.h>

static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 <= result < bound; bound is small, so the bias does not matter here. */
static inline uint32_t random_below(uint64_t *state, uint32_t bound)
{
    return (uint32_t)(random_next(state) % bound);
}

/* -1 <= result < 1 */
static inline float random_signed(uint64_t *state)
{
    return (float)(random_next(state) >> 40) / (float)(1 << 23) - 1.0f;
}

static inline void random_shuffle(uint64_t *state, uint32_t *items,
                                  uint32_t items_len)
{
    for (uint32_t i = items_len; i > 1; i--) {
        uint32_t j = random_below(state, i);
        uint32_t item = items[i - 1];

        items[i - 1] = items[j];
        items[j] = item;
    }
}

#endif
