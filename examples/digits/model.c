/* SPDX-License-Identifier: BSD-3-Clause */
#include "model.h"

#include <math.h>
#include <string.h>

#include "random.h"

/* What one sample causes on its way through the network. */
struct activity {
    float hidden[MODEL_HIDDEN];
    float digit[MODEL_DIGITS]; /* probabilities */
};

/* He's initialization: uniform with the variance 2 / inputs. */
static void fill(float *weights, int weights_len, int inputs, uint64_t *random)
{
    float bound = sqrtf(6.0f / (float)inputs);

    for (int i = 0; i < weights_len; i++)
        weights[i] = bound * random_signed(random);
}

void model_init(model_t *model, uint64_t seed)
{
    uint64_t random = seed;

    memset(model, 0, sizeof(*model));
    fill(&model->hidden_weight[0][0], MODEL_PIXELS * MODEL_HIDDEN,
         MODEL_PIXELS, &random);
    fill(&model->digit_weight[0][0], MODEL_HIDDEN * MODEL_DIGITS, MODEL_HIDDEN,
         &random);
}

static void softmax(float *values, int values_len)
{
    float largest = values[0], sum = 0;

    for (int i = 1; i < values_len; i++)
        largest = fmaxf(largest, values[i]);
    for (int i = 0; i < values_len; i++) {
        values[i] = expf(values[i] - largest);
        sum += values[i];
    }
    for (int i = 0; i < values_len; i++)
        values[i] /= sum;
}

/* The inner loops run over outputs: no order of summation to keep, so the
 * compiler makes vector code of them. */
static void forward(const model_t *model, const float *pixels,
                    struct activity *a)
{
    memcpy(a->hidden, model->hidden_bias, sizeof(a->hidden));
    for (int i = 0; i < MODEL_PIXELS; i++)
        for (int j = 0; j < MODEL_HIDDEN; j++)
            a->hidden[j] += pixels[i] * model->hidden_weight[i][j];
    for (int j = 0; j < MODEL_HIDDEN; j++)
        a->hidden[j] = fmaxf(a->hidden[j], 0.0f);

    memcpy(a->digit, model->digit_bias, sizeof(a->digit));
    for (int j = 0; j < MODEL_HIDDEN; j++)
        for (int k = 0; k < MODEL_DIGITS; k++)
            a->digit[k] += a->hidden[j] * model->digit_weight[j][k];
    softmax(a->digit, MODEL_DIGITS);
}

static float cross_entropy(const struct activity *a, int label)
{
    return -logf(fmaxf(a->digit[label], 1e-12f));
}

float model_loss(const model_t *model, const float *pixels, int label,
                 int *correct_p)
{
    struct activity a;
    int guess = 0;

    forward(model, pixels, &a);
    for (int k = 1; k < MODEL_DIGITS; k++)
        if (a.digit[k] > a.digit[guess])
            guess = k;
    *correct_p = guess == label;
    return cross_entropy(&a, label);
}

float model_gradient_add(const model_t *model, const float *pixels, int label,
                         model_t *gradient)
{
    struct activity a;
    float error[MODEL_DIGITS]; /* at the inputs of the softmax */
    float hidden_error[MODEL_HIDDEN];

    forward(model, pixels, &a);
    for (int k = 0; k < MODEL_DIGITS; k++) {
        error[k] = a.digit[k] - (k == label ? 1.0f : 0.0f);
        gradient->digit_bias[k] += error[k];
    }
    for (int j = 0; j < MODEL_HIDDEN; j++) {
        float sum = 0;

        for (int k = 0; k < MODEL_DIGITS; k++) {
            gradient->digit_weight[j][k] += a.hidden[j] * error[k];
            sum += model->digit_weight[j][k] * error[k];
        }
        hidden_error[j] = a.hidden[j] > 0 ? sum : 0;
        gradient->hidden_bias[j] += hidden_error[j];
    }
    for (int i = 0; i < MODEL_PIXELS; i++)
        for (int j = 0; j < MODEL_HIDDEN; j++)
            gradient->hidden_weight[i][j] += pixels[i] * hidden_error[j];
    return cross_entropy(&a, label);
}

void model_update(model_t *model, model_t *velocity, const model_t *gradient,
                  float scale, float momentum)
{
    float *w = (float *)model;
    float *v = (float *)velocity;
    const float *g = (const float *)gradient;

    for (int i = 0; i < MODEL_FLOATS; i++) {
        v[i] = momentum * v[i] - scale * g[i];
        w[i] += v[i];
    }
}

/* FNV-1a */
uint64_t model_hash(const model_t *model)
{
    const unsigned char *bytes = (const unsigned char *)model;
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < sizeof(*model); i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}
