/* SPDX-License-Identifier: BSD-3-Clause */
#include "tensor/sampler.h"

/* Two more than what makes a Feistel network of good functions a random
 * permutation (M. Luby, C. Rackoff, 1988): its halves are small here. */
#define ROUNDS 6u

/* Half the bits of the least even power of two that holds n. */
static uint32_t half_bits_of(uint64_t n)
{
    uint32_t bits = n <= 2 ? 2 : 64 - (uint32_t)__builtin_clzll(n - 1);

    return (bits + 1) / 2;
}

int tri_sampler_init(struct tri_sampler *sampler,
                     const troupe_training_options_t *options)
{
    uint64_t steps, rest;

    *sampler = (struct tri_sampler){
        .samples = options->samples,
        .batch = options->batch,
        .seed = options->seed,
        .epochs = options->epochs,
    };
    if (options->samples == 0)
        return 0;
    if (options->batch == 0 || options->samples > UINT64_MAX / 4 ||
        options->last_batch < TROUPE_LAST_DROP ||
        options->last_batch > TROUPE_LAST_SHORT)
        return TROUPE_EINVAL;
    steps = options->samples / options->batch;
    rest = options->samples % options->batch;
    if (options->last_batch == TROUPE_LAST_SHORT && rest > 0)
        steps++;
    if (steps == 0 ||
        __builtin_mul_overflow(steps, options->epochs, &rest))
        return TROUPE_EINVAL;
    sampler->epoch_steps = steps;
    sampler->half_bits = half_bits_of(options->samples);
    return 0;
}

bool tri_sampler_is_finished(const struct tri_sampler *sampler, uint64_t step)
{
    return sampler->samples > 0 && sampler->epochs > 0 &&
           step >= sampler->epoch_steps * sampler->epochs;
}

/* n * i / m, where i <= m, without overflow. */
static uint64_t part(uint64_t n, uint32_t i, uint32_t m)
{
    return n / m * i + n % m * i / m;
}

void tri_sampler_share(const struct tri_sampler *sampler, uint64_t step,
                       uint32_t index, uint32_t members,
                       struct tri_share *share_p)
{
    uint64_t first, begin;

    assert(members > 0 && index < members);
    *share_p = (struct tri_share){ 0 };
    if (sampler->samples == 0)
        return;
    share_p->epoch = step / sampler->epoch_steps;
    first = step % sampler->epoch_steps * sampler->batch;
    share_p->batch = tri_min(sampler->batch, sampler->samples - first);
    begin = part(share_p->batch, index, members);
    share_p->first = first + begin;
    share_p->samples = part(share_p->batch, index + 1, members) - begin;
}

uint64_t tri_sampler_sample(const struct tri_sampler *sampler, uint64_t epoch,
                            uint64_t place)
{
    const uint32_t bits = sampler->half_bits;
    const uint64_t mask = (1ull << bits) - 1;
    const uint64_t key =
        tri_mix64(sampler->seed ^ tri_mix64(epoch + 0x9e3779b97f4a7c15ull));
    uint64_t x = place;

    assert(place < sampler->samples);
    do {
        uint64_t left = x >> bits, right = x & mask;

        for (uint32_t i = 0; i < ROUNDS; i++) {
            uint64_t f = tri_mix64(key + i * 0x9e3779b97f4a7c15ull + right);
            uint64_t next = left ^ (f & mask);

            left = right;
            right = next;
        }
        x = left << bits | right;
    } while (x >= sampler->samples);
    return x;
}
