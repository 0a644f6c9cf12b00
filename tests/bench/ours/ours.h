/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_BENCH_OURS_H
#define TROUPE_BENCH_OURS_H

/* What troupe's own measured programs share. */

#include <stdatomic.h>
#include <troupe.h>

#include "../bench.h"

enum { BENCH_WAIT_MS = 30000 }; /* for names and for stragglers */

static inline void bench_check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s (%s)\n", what, troupe_error_name(rc),
            troupe_strerror(rc));
    exit(1);
}

/* A node with so many worker threads; everything else as it comes. */
static inline troupe_t *bench_start(int workers)
{
    troupe_options_t options;
    troupe_t *troupe;

    bench_watchdog();
    troupe_options_init(&options);
    options.workers = workers;
    bench_check(troupe_start(&troupe, &options), "troupe_start");
    return troupe;
}

/* Ends the program when less arrived than was sent, and says why. */
static inline void bench_expect(troupe_t *troupe, uint64_t arrived,
                                uint64_t sent, const char *what)
{
    troupe_dead_letter_t letter = { .reason = 0 };

    if (arrived == sent)
        return;
    troupe_dead_letters_take(troupe, &letter, 1);
    fprintf(stderr, "%llu of %llu %s arrived; %llu dead letters (%s)\n",
            (unsigned long long)arrived, (unsigned long long)sent, what,
            (unsigned long long)troupe_dead_letters_count(troupe),
            troupe_error_name(letter.reason));
    exit(1);
}

/* A flag that a handler raises and the main thread serves for. */
typedef atomic_int bench_flag_t;

static inline void bench_raise(troupe_self_t *self, bench_flag_t *flag)
{
    atomic_store(flag, 1);
    troupe_wake(self);
}

static inline int bench_raised(void *flag)
{
    return atomic_load((bench_flag_t *)flag);
}

static inline void bench_await(troupe_t *troupe, bench_flag_t *flag)
{
    bench_check(troupe_serve_until(troupe, bench_raised, flag,
                                   TROUPE_FOREVER),
                "troupe_serve_until");
}

#endif
