/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef DIGITS_MODEL_H
#define DIGITS_MODEL_H

/*
 * A small neural network: 64 pixels, one hidden layer (ReLU), 10 digits
 * (softmax, cross-entropy). Pure computation: no troupe, no MPI, no files.
 */

#include <stdint.h>

enum { MODEL_PIXELS = 64, MODEL_HIDDEN = 256, MODEL_DIGITS = 10 };

/* Nothing but floats, so that it can be sent and summed up as one array. */
typedef struct model {
    float hidden_weight[MODEL_PIXELS][MODEL_HIDDEN];
    float hidden_bias[MODEL_HIDDEN];
    float digit_weight[MODEL_HIDDEN][MODEL_DIGITS];
    float digit_bias[MODEL_DIGITS];
} model_t;

enum { MODEL_FLOATS = sizeof(model_t) / sizeof(float) };

/* Fills in random weights; the same seed gives the same weights. */
void model_init(model_t *model, uint64_t seed);

/* Returns the loss of one sample; *correct_p: was the guess right? */
float model_loss(const model_t *model, const float *pixels, int label,
                 int *correct_p);

/* Adds the gradient of one sample to `gradient`; returns its loss. */
float model_gradient_add(const model_t *model, const float *pixels, int label,
                         model_t *gradient);

/* One step of gradient descent with momentum, along gradient * scale. */
void model_update(model_t *model, model_t *velocity, const model_t *gradient,
                  float scale, float momentum);

/* A hash of all weights: equal only if they are the same bits. */
uint64_t model_hash(const model_t *model);

#endif
