/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef DIGITS_DATA_H
#define DIGITS_DATA_H

/*
 * The handwritten digits, in memory: shuffled by a seed, the first of them to
 * train with, the last fifth held out. No troupe and no MPI in here.
 */

#include <stddef.h>
#include <stdint.h>

#include "model.h"

enum { DATASET_SAMPLES_MAX = 4096 };

typedef struct sample {
    float pixels[MODEL_PIXELS]; /* 0 to 1 */
    int label;                  /* 0 to 9 */
} sample_t;

typedef struct dataset {
    sample_t *train, *held_out; /* both in one allocation: train's */
    uint32_t train_len, held_out_len;
} dataset_t;

/*
 * Finds the file of samples: `given` if it is not NULL, else
 * data/digits.csv.gz or examples/data/digits.csv.gz beside the executable, in
 * a folder above it, in the current directory, or in the folder $srcdir. 0, or
 * -1 when there is none.
 */
int dataset_find(const char *given, char *path, size_t path_bytes);

/*
 * Reads samples from CSV, gzipped or not: 64 pixels (0 to 16) and a label a
 * line. 0, or -1 after a message to stderr that says what is wrong.
 */
int dataset_load(dataset_t *data, const char *path, uint64_t seed);

void dataset_free(dataset_t *data);

#endif
