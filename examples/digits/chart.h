/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef DIGITS_CHART_H
#define DIGITS_CHART_H

/*
 * The learning curve as a picture (SVG) and as a table (CSV). Pure output: no
 * troupe and no MPI in here.
 */

#include <stdint.h>
#include <stdio.h>

/* One snapshot of the weights. */
typedef struct chart_row {
    uint32_t step;
    uint32_t members;     /* that trained: the ranks */
    double epoch;
    double seconds;       /* since the start, when the snapshot was scored */
    double train_loss;    /* mean of the steps since the snapshot before */
    double held_out_loss;
    double accuracy;      /* held out, 0 to 1 */
} chart_row_t;

/* Where members came or went: a line across the curves. */
typedef struct chart_mark {
    double epoch;
    uint32_t before, after; /* so many members */
} chart_mark_t;

/* Both return 0, or -1 when the file could not be written (errno says why). */
int chart_write_csv(const char *path, const chart_row_t *rows, size_t rows_len);
int chart_write_svg(const char *path, const char *title, double goal,
                    const chart_row_t *rows, size_t rows_len,
                    const chart_mark_t *marks, size_t marks_len);

#endif
