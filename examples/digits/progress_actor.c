/* SPDX-License-Identifier: BSD-3-Clause */
/* The progress actor: a live line while it goes on, a curve at the end. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "actors.h"
#include "chart.h"

enum { BAR_WIDTH = 24, PLAIN_LINE_EVERY = 10 };

struct progress {
    progress_config_t config;
    chart_row_t *rows; /* in the order of their steps */
    uint32_t rows_len;
    uint32_t scores;
    int live; /* somebody watches a terminal */
    struct timespec begin;
    troupe_token_t waiting; /* for the score of last_step */
    uint32_t last_step;
};

/* --- what is shown ------------------------------------------------------- */

/* mpirun gives each rank a terminal of its own, whatever it writes to itself;
 * so look at where our parent, mpirun or a shell, writes to as well. */
static int somebody_watches(void)
{
    char path[64];
    int parents, live;

    snprintf(path, sizeof(path), "/proc/%d/fd/1", (int)getppid());
    parents = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    live = isatty(STDOUT_FILENO) && parents >= 0 && isatty(parents);
    if (parents >= 0)
        close(parents);
    return live;
}

static double seconds_since(const struct timespec *begin)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begin->tv_sec) +
           (double)(now.tv_nsec - begin->tv_nsec) * 1e-9;
}

static void show(struct progress *p, const chart_row_t *row)
{
    int done = (int)(BAR_WIDTH * (row->step + 1) / p->config.steps);
    int last = row->step + 1 == p->config.steps;

    p->scores++;
    if (p->live)
        printf("\r[%.*s%.*s] ", done, "########################",
               BAR_WIDTH - done, "                        ");
    else if (!last && p->scores % PLAIN_LINE_EVERY != 1)
        return;
    printf("epoch %4.1f  loss %.4f  held-out accuracy %5.2f %%  %4.1f s",
           row->epoch, row->train_loss, row->accuracy * 100, row->seconds);
    printf("%s", p->live && !last ? "\033[K" : "\n");
    fflush(stdout);
}

/* --- what is remembered -------------------------------------------------- */

/* The training loss and the score of a snapshot come from two senders, in
 * either order: whichever is first makes the row. NULL: no room. */
static chart_row_t *row_of(struct progress *p, uint32_t step)
{
    uint32_t at = p->rows_len;

    while (at > 0 && p->rows[at - 1].step >= step)
        at--;
    if (at < p->rows_len && p->rows[at].step == step)
        return &p->rows[at];
    if (p->rows_len == p->config.rows_max)
        return NULL;
    memmove(&p->rows[at + 1], &p->rows[at],
            (p->rows_len - at) * sizeof(p->rows[0]));
    p->rows_len++;
    p->rows[at] = (chart_row_t){
        .step = step,
        .members = p->config.ranks,
        .epoch = (step + 1) / (double)p->config.steps_an_epoch,
        .train_loss = NAN,
        .accuracy = NAN,
    };
    return &p->rows[at];
}

static int is_complete(const chart_row_t *row)
{
    return !isnan(row->train_loss) && !isnan(row->accuracy);
}

/* Without snapshots that were dropped. */
static void drop_incomplete_rows(struct progress *p)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < p->rows_len; i++)
        if (is_complete(&p->rows[i]))
            p->rows[kept++] = p->rows[i];
    p->rows_len = kept;
}

static int write_files(troupe_self_t *self, struct progress *p,
                       double accuracy)
{
    char path[PATH_MAX], title[160];
    const char *folder = p->config.folder;

    drop_incomplete_rows(p);
    snprintf(title, sizeof(title),
             "Handwritten digits: %.1f %% of the held-out ones read right "
             "(ranks: %d, seed: %llu)",
             accuracy * 100, troupe_size(self),
             (unsigned long long)p->config.seed);
    snprintf(path, sizeof(path), "%s/digits.csv", folder);
    if (chart_write_csv(path, p->rows, p->rows_len) == 0) {
        snprintf(path, sizeof(path), "%s/digits.svg", folder);
        if (chart_write_svg(path, title, p->config.goal, p->rows,
                            p->rows_len, NULL, 0) == 0)
            return 0;
    }
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return TROUPE_ESYSTEM;
}

/* Answers who waits for the end, once the last snapshot has its score. */
static int finish_when_complete(troupe_self_t *self, struct progress *p,
                                const chart_row_t *row)
{
    progress_finish_result_t result = { .accuracy = (float)row->accuracy };
    int rc;

    if (p->waiting.node == 0 || row->step != p->last_step || !is_complete(row))
        return 0;
    rc = write_files(self, p, row->accuracy);
    if (rc != 0)
        return troupe_reply_error_to(self, p->waiting, rc);
    return progress_finish_reply_to(self, p->waiting, result);
}

/* --- the actor ----------------------------------------------------------- */

static int on_start(troupe_self_t *self, struct progress *p)
{
    (void)self;
    p->rows = calloc(p->config.rows_max, sizeof(p->rows[0]));
    p->live = somebody_watches();
    clock_gettime(CLOCK_MONOTONIC, &p->begin);
    return p->rows ? 0 : TROUPE_ENOMEM;
}

static void on_stop(troupe_self_t *self, struct progress *p, int reason)
{
    (void)self, (void)reason;
    free(p->rows);
}

static int on_trained(troupe_self_t *self, struct progress *p,
                      const progress_trained_t *m)
{
    chart_row_t *row = row_of(p, m->step);

    if (!row)
        return TROUPE_ELIMIT;
    row->train_loss = m->loss;
    if (is_complete(row))
        show(p, row);
    return finish_when_complete(self, p, row);
}

static int on_scored(troupe_self_t *self, struct progress *p,
                     const progress_scored_t *m)
{
    chart_row_t *row = row_of(p, m->step);

    if (!row)
        return TROUPE_ELIMIT;
    row->seconds = seconds_since(&p->begin);
    row->held_out_loss = m->loss;
    row->accuracy = m->accuracy;
    if (is_complete(row))
        show(p, row);
    return finish_when_complete(self, p, row);
}

static int on_finish(troupe_self_t *self, struct progress *p,
                     const progress_finish_t *m)
{
    chart_row_t *row = row_of(p, m->step);

    if (!row)
        return troupe_reply_error(self, TROUPE_ELIMIT);
    p->last_step = m->step;
    p->waiting = troupe_reply_later(self);
    return finish_when_complete(self, p, row);
}

TROUPE_ACTOR(progress, struct progress, .on_start = on_start,
             .on_stop = on_stop, .trained = on_trained, .scored = on_scored,
             .finish = on_finish)

int progress_actor_spawn(troupe_t *troupe, const progress_config_t *config,
                         progress_ref_t *ref_p)
{
    struct progress initial = { .config = *config };

    return progress_spawn(troupe, "progress", &initial, ref_p);
}
