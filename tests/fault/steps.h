/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FAULT_STEPS_H
#define TESTS_FAULT_STEPS_H

/*
 * A training whose state counts its samples, for tests that disturb it. What
 * each member has after each of its commits is written to memory that all map,
 * so it is known also of the dead: whoever commits a step comes to the same.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include <troupe/training.h>

#include "base/base.h"
#include "leave.h"

enum {
    SAMPLES = 1010, /* even: whole words */
    BATCH = 37,
    STEPS_MAX = 4096,
    EPOCH_STEPS = 28,
    ROWS_MAX = 24, /* members: ranks, and who joins */
    CLOSE_MS = TEST_SOON_MS,
    PATH_BYTES = 64,
};

/* What all map. */
struct ledger {
    _Atomic uint64_t hashes[ROWS_MAX][STEPS_MAX]; /* 0: not committed */
    _Atomic int pids[ROWS_MAX];
    _Atomic int results[ROWS_MAX]; /* of who joins: how it ended */
    _Atomic uint64_t died_ns;      /* the last one; CLOCK_MONOTONIC */
};

static struct ledger *ledger;

/* Never 0. Of whole words: megabytes are hashed in each step. */
static inline uint64_t steps_hash(const void *data, size_t bytes)
{
    const char *p = data;
    uint64_t hash = 14695981039346656037ull;

    for (size_t i = 0; i + sizeof(uint64_t) <= bytes; i += sizeof(uint64_t)) {
        uint64_t word;

        memcpy(&word, p + i, sizeof(word));
        hash = (hash ^ word ^ hash >> 29) * 1099511628211ull;
    }
    return hash | 1;
}

static inline void steps_map(const char *path)
{
    int fd = open(path, O_RDWR);

    ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED,
                  fd, 0);
    if (fd < 0 || ledger == MAP_FAILED)
        MUST(TROUPE_ESYSTEM);
    close(fd);
}

/* Makes it, on all ranks; the file is there until rank 0 unlinks it. */
static inline void steps_share(char path_p[PATH_BYTES])
{
    int fd;

    if (test_rank == 0) {
        snprintf(path_p, PATH_BYTES, "/tmp/steps.XXXXXX");
        fd = mkstemp(path_p);
        CHECK(fd >= 0 && ftruncate(fd, sizeof(*ledger)) == 0);
        close(fd);
    }
    MPI_Bcast(path_p, PATH_BYTES, MPI_CHAR, 0, MPI_COMM_WORLD);
    steps_map(path_p);
    atomic_store(&ledger->pids[test_rank], getpid());
    MPI_Barrier(MPI_COMM_WORLD);
}

/* --- the training ---------------------------------------------------------- */

struct steps {
    troupe_t *troupe;
    troupe_training_t *training;
    int row;             /* in the ledger */
    uint64_t epochs;
    size_t extra_len;    /* floats that are reduced beside */
    size_t ballast;      /* bytes of state beside */
    uint32_t size_min, size_max;
    int pause_ms;        /* 0: the default */
    uint64_t seed;
    int reproducible;
    void (*before)(struct steps *steps, const troupe_step_t *step);
    void (*after)(struct steps *steps, const troupe_step_t *step); /* commit */
    uint32_t *used;      /* the state: how often each sample was used */
    char *ballast_data;
    uint64_t retries;
    bool was_synced;
    uint32_t members_most;
    uint32_t members_last;
    double recovered_ms; /* from a death to the next commit, at most */
};

static inline uint64_t steps_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void *steps_die_in_us(void *arg)
{
    usleep((useconds_t)(uintptr_t)arg);
    atomic_store(&ledger->died_ns, steps_now_ns());
    kill(getpid(), SIGKILL);
    return NULL;
}

/* After a commit: the first one without the dead. */
static inline void steps_note_recovery(struct steps *steps,
                                       const troupe_step_t *step)
{
    uint64_t died_ns = atomic_load(&ledger->died_ns);
    double ms = (double)(steps_now_ns() - died_ns) * 1e-6;

    if (died_ns != 0 && step->members < steps->members_last)
        steps->recovered_ms = ms > steps->recovered_ms ? ms
                                                       : steps->recovered_ms;
    steps->members_last = step->members;
}

static inline void steps_open(struct steps *steps, const char *name)
{
    troupe_training_options_t options;

    troupe_training_options_init(&options);
    options.samples = SAMPLES;
    options.batch = BATCH;
    options.epochs = steps->epochs;
    options.seed = steps->seed;
    options.last_batch = TROUPE_LAST_SHORT;
    if (steps->size_min != 0)
        options.group.size_min = steps->size_min;
    options.group.size_max = steps->size_max;
    options.group.reproducible = steps->reproducible;
    if (steps->pause_ms != 0)
        options.pause_timeout_ms = steps->pause_ms;
    else /* a step may wait until a process has started */
        options.step_timeout_ms = 2 * TEST_SOON_MS;
    steps->used = calloc(SAMPLES, sizeof(*steps->used));
    MUST(troupe_training_open(steps->troupe, name, &options,
                              &steps->training));
    MUST(troupe_state_register(steps->training, "used", steps->used,
                               SAMPLES * sizeof(*steps->used),
                               TROUPE_REPLICATED));
    if (steps->ballast > 0) {
        steps->ballast_data = calloc(1, steps->ballast);
        MUST(troupe_state_register(steps->training, "ballast",
                                   steps->ballast_data, steps->ballast,
                                   TROUPE_REPLICATED));
    }
}

static inline void steps_gradients(const struct steps *steps,
                                   const troupe_step_t *step, uint32_t *counts,
                                   float *extra)
{
    memset(counts, 0, SAMPLES * sizeof(*counts));
    for (uint64_t i = 0; i < step->samples; i++)
        counts[troupe_step_sample(step, i)]++;
    for (size_t i = 0; i < steps->extra_len; i++)
        extra[i] = (float)(i % 13) * (float)step->samples;
}

static inline uint64_t steps_state_hash(const struct steps *steps)
{
    return (steps_hash(steps->used, SAMPLES * sizeof(*steps->used)) +
            steps_hash(steps->ballast_data, steps->ballast)) | 1;
}

/* Committed: the state goes on, and is written down. */
static inline void steps_apply(struct steps *steps, const troupe_step_t *step,
                               const uint32_t *counts, const float *extra)
{
    size_t len = steps->extra_len;

    for (int i = 0; i < SAMPLES; i++)
        steps->used[i] += counts[i];
    for (size_t i = 0; i < steps->ballast; i += 4096)
        steps->ballast_data[i] += (char)(i / 4096 % 7);
    if (len > 0)
        CHECK(extra[len - 1] ==
              (float)((len - 1) % 13) * (float)step->batch);
    atomic_store(&ledger->hashes[steps->row][step->step],
                 steps_state_hash(steps));
}

/* What a step reduces, on pages of its own. */
static inline void *steps_pages(size_t bytes)
{
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (pages == MAP_FAILED)
        MUST(TROUPE_ENOMEM);
    return pages;
}

/* A step is over, and nothing has changed. Who touched its buffers from now on
 * would crash: they are guarded, and others are used. */
static inline void steps_abandon(const struct steps *steps,
                                 const troupe_step_t *step,
                                 uint32_t **counts_p, float **extra_p)
{
    const size_t extra_bytes = (steps->extra_len + 1) * sizeof(float);
    uint32_t sum = 0;

    for (int i = 0; i < SAMPLES; i++)
        sum += (*counts_p)[i];
    CHECK_EQ(sum, step->samples);
    CHECK_EQ(mprotect(*counts_p, SAMPLES * sizeof(**counts_p), PROT_NONE), 0);
    CHECK_EQ(mprotect(*extra_p, extra_bytes, PROT_NONE), 0);
    *counts_p = steps_pages(SAMPLES * sizeof(**counts_p));
    *extra_p = steps_pages(extra_bytes);
}

/* How many events of a kind there were since the last look; others are lost. */
static inline int steps_events(struct steps *steps, uint32_t what)
{
    troupe_training_event_t event;
    int len = 0;

    while (troupe_training_events_take(steps->training, &event, 1) > 0)
        len += event.what == what;
    return len;
}

/* To the end; returns what begin, or commit, said last. The last buffers stay
 * guarded. */
static inline int steps_run(struct steps *steps)
{
    uint32_t *counts = steps_pages(SAMPLES * sizeof(*counts));
    float *extra = steps_pages((steps->extra_len + 1) * sizeof(*extra));
    troupe_step_t step;
    int rc;

    while ((rc = troupe_step_begin(steps->training, &step)) == 0) {
        steps->was_synced |= step.is_synced != 0;
        if (step.members > steps->members_most)
            steps->members_most = step.members;
        if (steps->before != NULL)
            steps->before(steps, &step);
        steps_gradients(steps, &step, counts, extra);
        MUST(troupe_step_allreduce(&step, counts, SAMPLES, TROUPE_UINT32,
                                   TROUPE_SUM));
        MUST(troupe_step_allreduce(&step, extra, steps->extra_len,
                                   TROUPE_FLOAT, TROUPE_SUM));
        do
            rc = troupe_step_commit(&step);
        while (rc == TROUPE_EPAUSED);
        if (rc < 0)
            break;
        if (rc == TROUPE_COMMITTED) {
            steps_note_recovery(steps, &step);
            steps_apply(steps, &step, counts, extra);
            if (steps->after != NULL)
                steps->after(steps, &step);
        } else {
            steps->retries++;
            steps_abandon(steps, &step, &counts, &extra);
        }
    }
    mprotect(counts, SAMPLES * sizeof(*counts), PROT_NONE);
    mprotect(extra, (steps->extra_len + 1) * sizeof(*extra), PROT_NONE);
    return rc;
}

/* After FINISHED: each sample was used once an epoch, and nobody came to
 * something else in a step. */
static inline void steps_check(const struct steps *steps)
{
    for (int i = 0; i < SAMPLES; i++)
        if (steps->used[i] != steps->epochs) {
            CHECK_EQ(steps->used[i], steps->epochs);
            break;
        }
    for (uint64_t step = 0; step < steps->epochs * EPOCH_STEPS; step++) {
        uint64_t own = atomic_load(&ledger->hashes[steps->row][step]);

        for (int row = 0; row < ROWS_MAX; row++) {
            uint64_t other = atomic_load(&ledger->hashes[row][step]);

            if (own != 0 && other != 0 && other != own) {
                fprintf(stderr, "step %d: members %d and %d differ\n",
                        (int)step, steps->row, row);
                test_failures++;
            }
        }
    }
}

static inline void steps_close(struct steps *steps)
{
    troupe_training_stats_t stats;

    troupe_training_stats(steps->training, &stats);
    printf("member %d: %llu losses, %llu retries, recovered in %.1f ms at "
           "most, %.1f ms from the death\n",
           steps->row, (unsigned long long)stats.losses,
           (unsigned long long)stats.retries,
           (double)stats.recover_max_ns * 1e-6, steps->recovered_ms);
    MUST(troupe_training_close(&steps->training, CLOSE_MS));
    free(steps->used);
    free(steps->ballast_data);
}

#endif
