/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_MPI_TEST_H
#define TESTS_MPI_TEST_H

/*
 * For tests that run under mpirun: plain main programs that print what failed
 * and return test_status().
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mpi.h>
#include <troupe/mpi.h>

enum { TEST_SOON_MS = 30000 };

static int test_rank = -1, test_failures;

/* Reports and goes on. */
#define CHECK(condition) test_check((condition), #condition, __FILE__, __LINE__)
#define CHECK_EQ(value, wanted)                                               \
    test_check_eq((value), (wanted), #value, __FILE__, __LINE__)
/* Reports and leaves, for what nothing can go on without; mpirun then ends
 * the other ranks. */
#define MUST(call) test_must((call), #call, __FILE__, __LINE__)

static inline int test_check(int good, const char *text, const char *file,
                             int line)
{
    if (!good) {
        fprintf(stderr, "rank %d: %s:%d: not true: %s\n", test_rank, file,
                line, text);
        test_failures++;
    }
    return good;
}

static inline void test_check_eq(long long value, long long wanted,
                                 const char *text, const char *file, int line)
{
    if (value == wanted)
        return;
    fprintf(stderr, "rank %d: %s:%d: %s is %lld (%s), not %lld (%s)\n",
            test_rank, file, line, text, value,
            value < 0 ? troupe_error_name((int)value) : "", wanted,
            wanted < 0 ? troupe_error_name((int)wanted) : "");
    test_failures++;
}

static inline void test_must(int rc, const char *text, const char *file,
                             int line)
{
    if (rc == 0)
        return;
    fprintf(stderr, "rank %d: %s:%d: %s: %s\n", test_rank, file, line, text,
            troupe_error_name(rc));
    exit(EXIT_FAILURE);
}

static inline int test_status(void)
{
    return test_failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static inline double test_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/* MPI at this level, then a node with these options (NULL: the defaults). */
static inline troupe_t *test_start_at(int wanted_level, int *size_p,
                                      const troupe_options_t *options)
{
    troupe_t *troupe;
    int level;

    MPI_Init_thread(NULL, NULL, wanted_level, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, size_p);
    MUST(troupe_start(&troupe, options));
    return troupe;
}

static inline troupe_t *test_start(int *size_p,
                                   const troupe_options_t *options)
{
    return test_start_at(MPI_THREAD_FUNNELED, size_p, options);
}

static inline int test_has_workers(troupe_t *troupe)
{
    troupe_stats_t stats;

    troupe_stats(troupe, &stats);
    return stats.workers > 0;
}

/* Stop has a deadline, and on a crowded machine ranks may be done at times
 * that differ by more; so they wait for each other, served by workers. */
static inline int test_end(troupe_t *troupe)
{
    if (test_has_workers(troupe))
        MPI_Barrier(MPI_COMM_WORLD);
    MUST(troupe_stop(&troupe));
    MPI_Finalize();
    return test_status();
}

#define TEST_ADDRESS_BYTES 64

static inline const char *test_address(char address[TEST_ADDRESS_BYTES],
                                       int rank, const char *name)
{
    snprintf(address, TEST_ADDRESS_BYTES, "actor://rank.%d/%s", rank, name);
    return address;
}

#endif
