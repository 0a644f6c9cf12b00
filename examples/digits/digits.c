/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * digits: ranks train a small neural network on handwritten digits.
 *
 *     mpirun -n 4 ./digits
 *
 * The gradients are summed up by plain MPI_Allreduce. Around it, actors do
 * what collectives are bad at (actors.h): one hands out the samples on
 * request, so that a slow rank takes fewer of them (try --slow 1); one scores
 * the weights on held-out digits while training goes on; one shows how it goes
 * and draws the curve. Their ranks may sit in MPI_Allreduce meanwhile: troupe's
 * own threads serve them.
 *
 * troupe_start initializes MPI and troupe_stop finalizes it, since the program
 * does not; between the two MPI is used as ever.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <mpi.h>
#include <string.h>
#include <unistd.h>

#include "../must.h"
#include "actors.h"
#include "data.h"
#include "model.h"

enum {
    BATCH = 64,         /* samples of one step, all ranks together */
    RANGES_A_RANK = 4,  /* asks of a rank in a step, if all are as fast */
    SNAPSHOT_STEPS = 6, /* between snapshots of the weights */
    SLOW_SAMPLE_US = 500,
    ASK_TIMEOUT_MS = 20000,
    EPOCHS_MAX = 10000,
};

static const double goal = 0.95; /* held-out accuracy, below it we fail */
static const float rate_first = 0.1f;
static const float rate_last = 0.01f;
static const float momentum = 0.9f;

struct options {
    long epochs, slow;
    uint64_t seed;
    const char *folder, *file;
};

struct job {
    struct options options;
    troupe_t *troupe;
    int rank, ranks;
    uint32_t steps, steps_an_epoch;
    dataset_t dataset;
    model_t model, velocity;
    data_ref_t data;
    evaluation_ref_t evaluation; /* rank 0 */
    progress_ref_t progress;     /* rank 0 and last */
    float loss;                  /* summed up since the last snapshot */
    uint32_t loss_steps;
};

/* What the ranks add up in a step: floats only, one allreduce. */
struct sums {
    model_t gradient;
    float loss;
    float samples;
};

/* --- one step ------------------------------------------------------------ */

static void learn(struct job *job, const uint32_t *samples,
                  uint32_t samples_len, struct sums *sums)
{
    for (uint32_t i = 0; i < samples_len; i++) {
        const sample_t *sample = &job->dataset.train[samples[i]];

        sums->loss += model_gradient_add(&job->model, sample->pixels,
                                         sample->label, &sums->gradient);
        if (job->options.slow == job->rank)
            usleep(SLOW_SAMPLE_US);
    }
    sums->samples += (float)samples_len;
}

/* Asks for samples until those of this step are handed out. */
static void take_my_share(struct job *job, uint32_t step, struct sums *sums)
{
    data_next_t ask = { .step = step, .rank = job->rank };
    uint32_t left;

    do {
        const data_next_result_t *got;

        must(data_next_take(job->troupe, job->data, ask, ASK_TIMEOUT_MS, &got),
             "ask for samples");
        learn(job, got->samples, got->samples_len, sums);
        left = got->left;
        troupe_drop(got); /* taken, so it is ours to free */
    } while (left > 0);
}

/* All ranks get the same bits and so keep the same weights. */
static void sum_over_ranks(const struct job *job, struct sums *sums)
{
    if (job->ranks > 1) /* alone, we may have been started without MPI */
        MPI_Allreduce(MPI_IN_PLACE, sums, sizeof(*sums) / sizeof(float),
                      MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static void train_step(struct job *job, uint32_t step)
{
    float done = (float)step / (float)job->steps;
    float rate = rate_first + (rate_last - rate_first) * done;
    struct sums sums;

    memset(&sums, 0, sizeof(sums));
    take_my_share(job, step, &sums);
    sum_over_ranks(job, &sums);
    /* The mean over the samples, however many each rank took. */
    model_update(&job->model, &job->velocity, &sums.gradient,
                 rate / sums.samples, momentum);
    job->loss += sums.loss / sums.samples;
    job->loss_steps++;
}

/* --- snapshots, sent by rank 0 ------------------------------------------- */

/* The weights are copied once, into the message. When the evaluation is far
 * behind, it drops the oldest one that it has (eval_actor.c): nobody waits. */
static void send_weights(struct job *job, uint32_t step)
{
    evaluation_snapshot_t snapshot = { .step = step };
    struct iovec weights = { &job->model, sizeof(job->model) };

    must(evaluation_snapshot_gather(job->troupe, job->evaluation, &snapshot,
                                    snapshot.weights, &weights, 1),
         "send snapshot");
}

static void report(struct job *job, uint32_t step)
{
    progress_trained_t trained = {
        .step = step,
        .loss = job->loss / (float)job->loss_steps,
    };

    must(progress_trained(job->troupe, job->progress, trained),
         "tell progress");
    send_weights(job, step);
    job->loss = 0;
    job->loss_steps = 0;
}

static void train(struct job *job)
{
    model_init(&job->model, job->options.seed);
    for (uint32_t step = 0; step < job->steps; step++) {
        train_step(job, step);
        if (job->rank == 0 &&
            (step % SNAPSHOT_STEPS == 0 || step + 1 == job->steps))
            report(job, step);
    }
}

/* --- before and after ---------------------------------------------------- */

static uint32_t samples_a_range(int ranks)
{
    uint32_t samples = BATCH / (RANGES_A_RANK * (uint32_t)ranks);

    return samples > 0 ? samples : 1;
}

static void spawn_actors(struct job *job)
{
    data_config_t data = {
        .samples_len = job->dataset.train_len,
        .batch = BATCH,
        .range = samples_a_range(job->ranks),
        .seed = job->options.seed,
    };
    progress_config_t progress = {
        .steps = job->steps,
        .steps_an_epoch = job->steps_an_epoch,
        .rows_max = job->steps / SNAPSHOT_STEPS + 2,
        .ranks = (uint32_t)job->ranks,
        .goal = goal,
        .seed = job->options.seed,
        .folder = job->options.folder,
    };

    if (job->rank == 0) {
        must(data_actor_spawn(job->troupe, &data, &job->data), "spawn data");
        must(progress_actor_spawn(job->troupe, &progress, &job->progress),
             "spawn progress");
    }
    if (job->rank == job->ranks - 1) {
        must(progress_resolve(job->troupe, "actor://rank.0/progress",
                              ASK_TIMEOUT_MS, &job->progress),
             "find progress");
        must(evaluation_actor_spawn(job->troupe, &job->dataset, job->progress,
                                    &job->evaluation),
             "spawn evaluation");
    }
}

static void find_actors(struct job *job)
{
    char address[64];

    must(data_resolve(job->troupe, "actor://rank.0/data", ASK_TIMEOUT_MS,
                      &job->data),
         "find data");
    snprintf(address, sizeof(address), "actor://rank.%d/evaluation",
             job->ranks - 1);
    if (job->rank == 0)
        must(evaluation_resolve(job->troupe, address, ASK_TIMEOUT_MS,
                                &job->evaluation),
             "find evaluation");
}

static int weights_are_the_same(const struct job *job)
{
    uint64_t hash = model_hash(&job->model);
    uint64_t least = hash, greatest = hash;

    if (job->ranks > 1) {
        MPI_Allreduce(&hash, &least, 1, MPI_UINT64_T, MPI_MIN, MPI_COMM_WORLD);
        MPI_Allreduce(&hash, &greatest, 1, MPI_UINT64_T, MPI_MAX,
                      MPI_COMM_WORLD);
    }
    return least == greatest;
}

static void print_shares(const struct job *job)
{
    const data_shares_result_t *shares;

    must(data_shares_take(job->troupe, job->data, (data_shares_t){},
                          ASK_TIMEOUT_MS, &shares),
         "ask for shares");
    printf("samples taken:");
    for (int i = 0; i < shares->ranks; i++)
        printf(" rank %d: %u%s", i, shares->samples[i],
               i + 1 < shares->ranks ? "," : "\n");
    troupe_drop(shares);
}

/* Waits for the last score; returns the program's exit status. */
static int finish(struct job *job)
{
    progress_finish_t last = { .step = job->steps - 1 };
    progress_finish_result_t result = { 0 };
    int same = weights_are_the_same(job);
    int good = 1;

    if (job->rank == 0) {
        must(progress_finish(job->troupe, job->progress, last, ASK_TIMEOUT_MS,
                             &result),
             "finish");
        good = same && result.accuracy >= goal;
        print_shares(job);
        printf("digits: %s, held-out accuracy %.2f %%, weights %s on all "
               "ranks; see digits.svg and digits.csv in %s\n",
               good ? "ok" : "FAILED", result.accuracy * 100,
               same ? "identical" : "DIFFERENT", job->options.folder);
    }
    if (job->ranks > 1)
        MPI_Bcast(&good, 1, MPI_INT, 0, MPI_COMM_WORLD);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- options ------------------------------------------------------------- */

static void usage(FILE *stream)
{
    fprintf(stream,
            "usage: mpirun -n RANKS digits [options]\n"
            "  --epochs N   times to go through the samples (30)\n"
            "  --seed N     for the shuffle and the first weights (7)\n"
            "  --out DIR    where digits.csv and digits.svg go (.)\n"
            "  --data FILE  the samples (examples/data/digits.csv.gz)\n"
            "  --slow RANK  make a rank slow, and see it take fewer samples\n");
}

static long number(const char *name, const char *text, long least, long most)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (end != text && *end == '\0' && value >= least && value <= most)
        return value;
    fprintf(stderr, "digits: --%s %s: a number from %ld to %ld is needed\n",
            name, text, least, most);
    exit(EXIT_FAILURE);
}

static struct options parse(int argc, char **argv)
{
    static const struct option names[] = {
        { "epochs", required_argument, NULL, 'e' },
        { "seed", required_argument, NULL, 's' },
        { "out", required_argument, NULL, 'o' },
        { "data", required_argument, NULL, 'd' },
        { "slow", required_argument, NULL, 'w' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct options o = { .epochs = 30, .seed = 7, .folder = ".", .slow = -1 };
    int c;

    while ((c = getopt_long(argc, argv, "h", names, NULL)) != -1) {
        switch (c) {
        case 'e': o.epochs = number("epochs", optarg, 1, EPOCHS_MAX); break;
        case 's': o.seed = number("seed", optarg, 0, LONG_MAX); break;
        case 'o': o.folder = optarg; break;
        case 'd': o.file = optarg; break;
        case 'w': o.slow = number("slow", optarg, 0, RANKS_MAX - 1); break;
        case 'h': usage(stdout); exit(EXIT_SUCCESS);
        default: usage(stderr); exit(EXIT_FAILURE);
        }
    }
    if (access(o.folder, W_OK) != 0) { /* said now, not after the training */
        fprintf(stderr, "digits: --out %s: %s\n", o.folder, strerror(errno));
        exit(EXIT_FAILURE);
    }
    return o;
}

static void load_dataset(struct job *job)
{
    char path[PATH_MAX];

    if (dataset_find(job->options.file, path, sizeof(path)) != 0) {
        fprintf(stderr, "digits: digits.csv.gz not found, use --data FILE\n");
        exit(EXIT_FAILURE);
    }
    if (dataset_load(&job->dataset, path, job->options.seed) != 0)
        exit(EXIT_FAILURE);
    job->steps_an_epoch = (job->dataset.train_len + BATCH - 1) / BATCH;
    job->steps = job->steps_an_epoch * (uint32_t)job->options.epochs;
}

/* While a rank sits in MPI_Allreduce, only worker threads serve its actors. */
static void check_job(struct job *job)
{
    troupe_stats_t stats;

    troupe_stats(job->troupe, &stats);
    if (job->ranks > 1 && stats.workers == 0)
        must(TROUPE_EOPTION, "digits needs at least one worker");
    if (job->ranks > RANKS_MAX)
        must(TROUPE_ELIMIT, "digits: more ranks than RANKS_MAX");
}

int main(int argc, char **argv)
{
    static struct job job;
    int status;

    job.options = parse(argc, argv);
    load_dataset(&job);
    must(troupe_start(&job.troupe, NULL), "start");
    job.rank = troupe_rank(job.troupe);
    job.ranks = troupe_size(job.troupe);
    check_job(&job);
    spawn_actors(&job);
    find_actors(&job);
    train(&job);
    status = finish(&job);
    must(troupe_stop(&job.troupe), "stop");
    dataset_free(&job.dataset);
    return status;
}
