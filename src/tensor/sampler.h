/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SAMPLER_H
#define TRI_SAMPLER_H

/*
 * Which samples a member has in a step: a pure function of the options, of how
 * many steps are committed, and of the view. Nothing is kept that could be
 * lost, or differ between members, so each sample comes exactly once an epoch
 * whatever dies, joins and is retried: a step that is not committed is simply
 * computed again, from the same number.
 *
 * An epoch of the data set is a permutation of the numbers of its samples,
 * computed place by place, without memory: a balanced Feistel network over the
 * next even power of two, walked until it comes back into the range (J. Black,
 * P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, section 3;
 * less than four rounds of it on average). For shuffling, not for secrets.
 *
 * A step takes `batch` places, one after the other; its members share them in
 * the order of the view: member i of m has the places from batch * i / m to
 * batch * (i + 1) / m. So the batch is the same whatever the number of members,
 * shares differ by one at most, and their weights, share / batch, add up to 1.
 */

#include <troupe/training.h>

#include "base/base.h"

struct tri_sampler {
    uint64_t samples;
    uint64_t batch;
    uint64_t seed;
    uint64_t epochs; /* 0: for ever */
    uint64_t epoch_steps;
    uint32_t half_bits;
};

struct tri_share {
    uint64_t epoch;   /* of the data set, from 0 */
    uint64_t first;   /* place of this member's first sample in the epoch */
    uint64_t samples; /* so many; 0 when members are more than samples */
    uint64_t batch;   /* of all members in this step */
};

/*
 * samples 0: no samples, steps without end. Errors: EINVAL (batch 0 or too
 * large, an epoch without a step, an unknown policy, more steps than count).
 */
int tri_sampler_init(struct tri_sampler *sampler,
                     const troupe_training_options_t *options);

/* All epochs are done when so many steps are committed. */
bool tri_sampler_is_finished(const struct tri_sampler *sampler, uint64_t step);

/* The share of member `index` of `members`, at least one, in a step. */
void tri_sampler_share(const struct tri_sampler *sampler, uint64_t step,
                       uint32_t index, uint32_t members,
                       struct tri_share *share_p);

/* The sample at a place (below samples) of an epoch. */
uint64_t tri_sampler_sample(const struct tri_sampler *sampler, uint64_t epoch,
                            uint64_t place);

#endif
