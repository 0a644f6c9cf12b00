/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef DIGITS_ACTORS_H
#define DIGITS_ACTORS_H

/*
 * The three actors around the training loop, and what they understand.
 *
 *                 asks for samples                 snapshots of the weights
 *     all ranks ------------------> data    rank 0 ----------> evaluation
 *                                                                   |
 *     rank 0    ------------------> progress <-----------------------
 *                 training loss                    held-out accuracy
 */

#include <troupe.h>

#include "data.h"

/* Hands out the samples of one step, a range at a time. Who is slow comes
 * back later and gets less. */
#define data_messages(TELL, ASK)                                              \
    ASK(data, next, (uint32_t step; int32_t rank;),                           \
        (uint32_t left; uint32_t samples_len; uint32_t samples[];))           \
    ASK(data, shares, (), (int32_t ranks; uint32_t samples[];))
TROUPE_PROTOCOL(data)

/* Scores snapshots of the weights on the held-out digits. */
#define evaluation_messages(TELL, ASK)                                        \
    TELL(evaluation, snapshot, (uint32_t step; float weights[];))
TROUPE_PROTOCOL(evaluation)

/* Shows how it goes; at the end it draws the curve. */
#define progress_messages(TELL, ASK)                                          \
    TELL(progress, trained, (uint32_t step; float loss;))                     \
    TELL(progress, scored, (uint32_t step; float loss; float accuracy;))      \
    ASK(progress, finish, (uint32_t step;), (float accuracy;))
TROUPE_PROTOCOL(progress)

enum { RANKS_MAX = 1024 };

typedef struct data_config {
    uint32_t samples_len; /* an epoch's */
    uint32_t batch;       /* samples of one step, all ranks together */
    uint32_t range;       /* samples handed out at once */
    uint64_t seed;
} data_config_t;

int data_actor_spawn(troupe_t *troupe, const data_config_t *config,
                     data_ref_t *ref_p);

/* `dataset` must live as long as the actor. */
int evaluation_actor_spawn(troupe_t *troupe, const dataset_t *dataset,
                           progress_ref_t progress, evaluation_ref_t *ref_p);

typedef struct progress_config {
    uint32_t steps; /* in all */
    uint32_t steps_an_epoch;
    uint32_t rows_max; /* snapshots */
    uint32_t ranks;
    double goal;       /* held-out accuracy, 0 to 1 */
    uint64_t seed;     /* for the title */
    const char *folder; /* where digits.csv and digits.svg go */
} progress_config_t;

int progress_actor_spawn(troupe_t *troupe, const progress_config_t *config,
                         progress_ref_t *ref_p);

#endif
