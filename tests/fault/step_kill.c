/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ranks kill themselves at random microseconds of a training, one after the
 * other, or two at once: while they compute, reduce, vote, agree on a view, or
 * give state to others. Those that are left go on: whoever commits a step comes
 * to the same bits, also who dies afterwards, and each sample is used once.
 *
 * What each rank has after each of its commits is written to memory that all
 * map, so what the dead have done is known.
 *
 *   step_kill [kills at once [MiB of gradients]]
 *
 * TROUPE_TEST_SEED replays a schedule, as far as it is the seed's.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include <troupe/training.h>

#include "../mpi/test.h"

enum {
    SAMPLES = 1009,
    BATCH = 37,
    EPOCHS = 2,
    STEPS = 28, /* of an epoch */
    RANKS_MAX = 16,
    CLOSE_MS = 10000,
};

/* What all map. */
struct ledger {
    _Atomic uint64_t hashes[RANKS_MAX][EPOCHS * STEPS]; /* 0: not committed */
};

static struct ledger *ledger;
static int size, at_once = 1;
static size_t extra_len; /* floats */
static uint64_t seed;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint64_t hash_of(const void *data, size_t bytes)
{
    const unsigned char *p = data;
    uint64_t hash = 14695981039346656037ull;

    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ p[i]) * 1099511628211ull;
    return hash | 1;
}

static void share_ledger(void)
{
    char path[64] = "";
    int fd = -1;

    if (test_rank == 0) {
        snprintf(path, sizeof(path), "/tmp/step_kill.XXXXXX");
        fd = mkstemp(path);
        CHECK(fd >= 0 && ftruncate(fd, sizeof(*ledger)) == 0);
    }
    MPI_Bcast(path, sizeof(path), MPI_CHAR, 0, MPI_COMM_WORLD);
    if (test_rank != 0)
        fd = open(path, O_RDWR);
    ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED,
                  fd, 0);
    if (ledger == MAP_FAILED)
        MUST(TROUPE_ESYSTEM);
    close(fd);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        unlink(path);
}

/* --- death -------------------------------------------------------------------- */

static void *die_soon(void *arg)
{
    usleep((useconds_t)(uintptr_t)arg);
    kill(getpid(), SIGKILL);
    return NULL;
}

/* In which round this rank dies; the last one does not. Ranks die in an order
 * that the seed shuffles. */
static int round_of(int rank)
{
    int order[RANKS_MAX], place = 0;

    for (int i = 0; i < size; i++)
        order[i] = i;
    for (int i = size - 1; i > 0; i--) {
        int k = (int)(mix(seed + (uint64_t)i) % (uint64_t)(i + 1));
        int other = order[i];

        order[i] = order[k];
        order[k] = other;
    }
    while (order[place] != rank)
        place++;
    return place >= size - 1 - (size - 2) % at_once ? -1 : place / at_once;
}

/* Rounds are some steps apart, so that most deaths come one by one, and some
 * while the one before is being dealt with. */
static uint64_t step_of(int round)
{
    return 3 + (uint64_t)round * 9 + mix(seed ^ (uint64_t)(round + 99)) % 7;
}

static void maybe_die(uint64_t step)
{
    static bool dying;
    int round = round_of(test_rank);
    pthread_t thread;
    uint64_t us;

    if (dying || round < 0 || step != step_of(round))
        return;
    dying = true;
    us = mix(seed * 31 + (uint64_t)test_rank) % 3000;
    pthread_create(&thread, NULL, die_soon, (void *)(uintptr_t)us);
}

/* --- the training --------------------------------------------------------------- */

static void leave(void)
{
    fflush(NULL);
    if (test_failures)
        kill(getppid(), SIGTERM);
    _exit(test_status());
}

static void leave_failed(void)
{
    test_failures++;
    leave();
}

static void gradients(const troupe_step_t *step, uint32_t *counts,
                      float *extra)
{
    memset(counts, 0, SAMPLES * sizeof(*counts));
    for (uint64_t i = 0; i < step->samples; i++)
        counts[troupe_step_sample(step, i)]++;
    for (size_t i = 0; i < extra_len; i++)
        extra[i] = (float)(i % 13) * (float)step->samples;
}

static void train(troupe_training_t *training, uint32_t *used)
{
    uint32_t *counts = calloc(SAMPLES, sizeof(*counts));
    float *extra = calloc(extra_len + 1, sizeof(*extra));
    troupe_step_t step;
    int rc;

    while ((rc = troupe_step_begin(training, &step)) == 0) {
        maybe_die(step.step);
        gradients(&step, counts, extra);
        MUST(troupe_step_allreduce(&step, counts, SAMPLES, TROUPE_UINT32,
                                   TROUPE_SUM));
        MUST(troupe_step_allreduce(&step, extra, extra_len, TROUPE_FLOAT,
                                   TROUPE_SUM));
        rc = troupe_step_commit(&step);
        if (rc == TROUPE_RETRY) {
            uint32_t sum = 0;

            for (int i = 0; i < SAMPLES; i++)
                sum += counts[i];
            CHECK_EQ(sum, step.samples); /* nothing has changed */
            continue;
        }
        if (!CHECK(rc == TROUPE_COMMITTED)) {
            fprintf(stderr, "commit: %s\n", troupe_error_name(rc));
            break;
        }
        for (int i = 0; i < SAMPLES; i++)
            used[i] += counts[i];
        if (extra_len > 0)
            CHECK(extra[extra_len - 1] ==
                  (float)((extra_len - 1) % 13) * (float)step.batch);
        atomic_store(&ledger->hashes[test_rank][step.step],
                     hash_of(used, SAMPLES * sizeof(*used)));
    }
    if (rc != TROUPE_COMMITTED)
        CHECK_EQ(rc, TROUPE_FINISHED);
    free(counts);
    free(extra);
}

static void check_ledger(void)
{
    for (int step = 0; step < EPOCHS * STEPS; step++) {
        uint64_t own = atomic_load(&ledger->hashes[test_rank][step]);

        CHECK(own != 0);
        for (int rank = 0; rank < size; rank++) {
            uint64_t other = atomic_load(&ledger->hashes[rank][step]);

            if (other != 0 && other != own) {
                fprintf(stderr, "step %d: ranks %d and %d differ\n", step,
                        test_rank, rank);
                test_failures++;
            }
        }
    }
}

static void run(troupe_t *troupe)
{
    uint32_t *used = calloc(SAMPLES, sizeof(*used));
    troupe_training_options_t options;
    troupe_training_stats_t stats;
    troupe_training_t *training;

    troupe_training_options_init(&options);
    options.samples = SAMPLES;
    options.batch = BATCH;
    options.epochs = EPOCHS;
    options.seed = seed;
    options.last_batch = TROUPE_LAST_SHORT;
    MUST(troupe_training_open(troupe, "kill", &options, &training));
    MUST(troupe_state_register(training, "used", used,
                               SAMPLES * sizeof(*used), TROUPE_REPLICATED));
    train(training, used);
    for (int i = 0; i < SAMPLES; i++)
        if (used[i] != EPOCHS) {
            CHECK_EQ(used[i], EPOCHS);
            break;
        }
    check_ledger();
    troupe_training_stats(training, &stats);
    printf("rank %d: %llu losses, %llu retries, recovered in %.1f ms at most\n",
           test_rank, (unsigned long long)stats.losses,
           (unsigned long long)stats.retries,
           (double)stats.recover_max_ns * 1e-6);
    MUST(troupe_training_close(&training, CLOSE_MS));
    free(used);
}

int main(int argc, char **argv)
{
    troupe_t *troupe = test_start(&size, NULL);
    const char *text = getenv("TROUPE_TEST_SEED");

    atexit(leave_failed);
    if (size < 2 || size > RANKS_MAX)
        MUST(TROUPE_EINVAL);
    at_once = argc > 1 ? atoi(argv[1]) : 1;
    extra_len = argc > 2 ? (size_t)atoi(argv[2]) * 262144 : 1000;
    seed = text != NULL ? strtoull(text, NULL, 0)
                        : (uint64_t)(test_now_ms() * 1000);
    MPI_Bcast(&seed, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    if (test_rank == 0)
        printf("TROUPE_TEST_SEED=%llu\n", (unsigned long long)seed);
    share_ledger();
    run(troupe);
    CHECK_EQ(troupe_stop(&troupe), 0);
    leave();
}
