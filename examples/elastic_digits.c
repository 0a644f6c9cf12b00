/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * elastic_digits: the training of digits/, on ranks that may die, come and go.
 *
 *     terminal 1    troupe run --job digits -n 4 ./elastic_digits --pace 20
 *     terminal 2    troupe ps digits           who is there
 *                   kill -9 PID                any of them
 *                   troupe add digits 2        two more
 *                   troupe drain digits NODE   one leaves
 *
 * A step is a transaction (troupe/training.h): all members apply the same
 * gradients, or none does and the step begins again with those that are left.
 * The batch has the same size however many they are, each sample is used once
 * an epoch, and so it learns as well as with members that never change.
 *
 * What all must agree on is in one struct, the replica: who joins gets it from
 * the others. So any of them can draw the curve at the end.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <troupe.h>
#include <troupe/training.h>

#include "digits/chart.h"
#include "digits/data.h"
#include "digits/model.h"
#include "must.h"

enum {
    BATCH = 64,         /* samples of one step, all members together */
    SNAPSHOT_STEPS = 6, /* between scores, in a short run */
    ROWS_MAX = 512,
    MARKS_MAX = 256,
    LINE_ROWS = 10, /* rows of the table for a line on the terminal */
    EPOCHS_MAX = 10000,
    PACE_MAX_MS = 10000,
    CLOSE_MS = 10000,
    EVENTS_MAX = 16,
};

/* The index of who came too late for a step: others speak for it. */
#define NO_INDEX UINT32_MAX

static const double goal = 0.95; /* held-out accuracy, below it we fail */
static const float rate_first = 0.1f;
static const float rate_last = 0.01f;
static const float momentum = 0.9f;

struct options {
    long epochs, pace_ms, changes;
    uint64_t seed;
    const char *folder, *file;
};

/* The same bits on all members between a commit and the next begin. */
struct replica {
    model_t model, velocity;
    uint64_t view, ms; /* of the last step; since the job began */
    uint32_t members;
    uint32_t lost, joined, left; /* in all */
    float loss;                  /* summed up since the last row */
    uint32_t loss_steps;
    uint32_t rows_len, marks_len;
    chart_row_t rows[ROWS_MAX];
    chart_mark_t marks[MARKS_MAX];
};

/* What the members add up in a step: floats only. */
struct sums {
    model_t gradient;
    float loss;
    float samples;
};

/* What they take the largest of. A member that has just come, or that passed
 * over a view, knows less than the others. */
struct facts {
    uint64_t ms, lost, joined; /* the latter two since the last commit */
    uint64_t hash, not_hash;   /* equal weights: hash == ~not_hash */
};
enum { FACTS = sizeof(struct facts) / sizeof(uint64_t) };

struct job {
    struct options options;
    troupe_t *troupe;
    troupe_training_t *training;
    uint64_t steps, steps_an_epoch, snapshot_steps;
    dataset_t dataset;
    struct replica replica;
    uint64_t ms_first; /* this process's clock when the job began */
    uint32_t index;    /* of this member in the last step; 0 speaks for all */
    struct facts news;
};

static uint64_t clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- one step ------------------------------------------------------------ */

static void learn(struct job *job, const troupe_step_t *step,
                  struct sums *sums)
{
    for (uint64_t i = 0; i < step->samples; i++) {
        const sample_t *sample =
            &job->dataset.train[troupe_step_sample(step, i)];

        sums->loss += model_gradient_add(&job->replica.model, sample->pixels,
                                         sample->label, &sums->gradient);
    }
    sums->samples = (float)step->samples;
}

/* For those who want to watch, or to interfere. */
static void keep_pace(const struct job *job)
{
    const struct replica *r = &job->replica;
    struct timespec pace = {
        .tv_sec = job->options.pace_ms / 1000,
        .tv_nsec = job->options.pace_ms % 1000 * 1000000,
    };

    if (r->lost + r->joined + r->left < job->options.changes)
        nanosleep(&pace, NULL);
}

/* Counts those that died and that came, until a step with them commits. */
static void take_news(struct job *job, const troupe_step_t *step)
{
    troupe_training_event_t events[EVENTS_MAX];
    size_t len;

    while ((len = troupe_training_events_take(job->training, events,
                                              EVENTS_MAX)) > 0)
        for (size_t i = 0; i < len; i++)
            if (events[i].what == TROUPE_TRAINING_VIEW) {
                job->news.lost += events[i].view.losses;
                job->news.joined += events[i].view.joined;
            }
    if (step->is_synced) { /* the others know what happened before */
        job->news = (struct facts){ 0 };
        job->ms_first = clock_ms() - job->replica.ms;
    }
}

static int is_snapshot(const struct job *job, uint64_t step)
{
    return step % job->snapshot_steps == 0 || step + 1 == job->steps;
}

static struct facts facts_of(const struct job *job, uint64_t step)
{
    struct facts facts = job->news;

    facts.ms = clock_ms() - job->ms_first;
    if (is_snapshot(job, step)) {
        facts.hash = model_hash(&job->replica.model);
        facts.not_hash = ~facts.hash;
    }
    return facts;
}

/* --- what is remembered -------------------------------------------------- */

static void mark_view(struct job *job, const troupe_step_t *step,
                      const struct facts *facts)
{
    struct replica *r = &job->replica;
    uint64_t before = r->members + facts->joined;
    uint64_t after = step->members + facts->lost;
    uint32_t left = before > after ? (uint32_t)(before - after) : 0;

    if (r->view != 0 && r->view != step->view &&
        facts->lost + facts->joined + left > 0) {
        chart_mark_t mark = {
            .epoch = (double)step->step / (double)job->steps_an_epoch,
            .before = r->members,
            .after = step->members,
        };

        if (r->marks_len < MARKS_MAX)
            r->marks[r->marks_len++] = mark;
        r->lost += (uint32_t)facts->lost;
        r->joined += (uint32_t)facts->joined;
        r->left += left;
        if (step->index == 0)
            printf("view %" PRIu64 " at step %" PRIu64 ": %u members, before "
                   "%u: %" PRIu64 " died, %" PRIu64 " joined, %u left\n",
                   step->view, step->step, step->members, r->members,
                   facts->lost, facts->joined, left);
    }
    r->view = step->view;
    r->members = step->members;
}

/* Every member scores the same weights and gets the same numbers. */
static void score(const struct job *job, chart_row_t *row)
{
    const dataset_t *data = &job->dataset;
    uint32_t right = 0;
    double loss = 0;

    for (uint32_t i = 0; i < data->held_out_len; i++) {
        int correct;

        loss += model_loss(&job->replica.model, data->held_out[i].pixels,
                           data->held_out[i].label, &correct);
        right += (uint32_t)correct;
    }
    row->held_out_loss = loss / data->held_out_len;
    row->accuracy = (double)right / data->held_out_len;
}

static void add_row(struct job *job, const troupe_step_t *step)
{
    struct replica *r = &job->replica;
    chart_row_t *row = &r->rows[r->rows_len];

    if (r->rows_len == ROWS_MAX)
        return;
    row->step = (uint32_t)step->step;
    row->members = step->members;
    row->epoch = (double)(step->step + 1) / (double)job->steps_an_epoch;
    row->seconds = (double)r->ms / 1000;
    row->train_loss = r->loss / (float)r->loss_steps;
    score(job, row);
    r->loss = 0;
    r->loss_steps = 0;
    if (step->index == 0 && r->rows_len % LINE_ROWS == 0)
        printf("step %4" PRIu64 "  epoch %4.1f  loss %.4f  held-out accuracy "
               "%5.2f %%  %4.1f s  %u members\n",
               step->step, row->epoch, row->train_loss, row->accuracy * 100,
               row->seconds, row->members);
    r->rows_len++;
}

/* The step was committed, so all members get here, with the same values. */
static void apply(struct job *job, const troupe_step_t *step,
                  const struct sums *sums, const struct facts *facts)
{
    struct replica *r = &job->replica;
    float done = (float)step->step / (float)job->steps;
    float rate = rate_first + (rate_last - rate_first) * done;

    if (is_snapshot(job, step->step) && facts->hash != ~facts->not_hash)
        must(TROUPE_EMISMATCH, "compare the weights of all members");
    model_update(&r->model, &r->velocity, &sums->gradient,
                 rate / sums->samples, momentum);
    mark_view(job, step, facts);
    r->ms = facts->ms;
    r->loss += sums->loss / sums->samples;
    r->loss_steps++;
    if (is_snapshot(job, step->step))
        add_row(job, step);
    job->index = step->index;
    job->news = (struct facts){ 0 };
    fflush(stdout);
}

/* --- training ------------------------------------------------------------ */

/* FINISHED; ECANCELED, when this member was asked to leave; or an error. */
static int train(struct job *job)
{
    static struct sums sums;
    struct facts facts;
    troupe_step_t step;
    int rc;

    while ((rc = troupe_step_begin(job->training, &step)) == 0) {
        take_news(job, &step);
        memset(&sums, 0, sizeof(sums));
        learn(job, &step, &sums);
        keep_pace(job);
        facts = facts_of(job, step.step);
        must(troupe_step_allreduce(&step, &sums, sizeof(sums) / sizeof(float),
                                   TROUPE_FLOAT, TROUPE_SUM),
             "add up gradients");
        must(troupe_step_allreduce(&step, &facts, FACTS, TROUPE_UINT64,
                                   TROUPE_MAX),
             "share facts");
        rc = troupe_step_commit(&step);
        if (rc == TROUPE_COMMITTED)
            apply(job, &step, &sums, &facts);
        else if (rc != TROUPE_RETRY)
            break; /* on RETRY nothing was written: begin it again */
    }
    return rc;
}

static void open_training(struct job *job)
{
    troupe_training_options_t options;

    troupe_training_options_init(&options);
    options.samples = job->dataset.train_len;
    options.batch = BATCH;
    options.epochs = (uint64_t)job->options.epochs;
    options.seed = job->options.seed;
    options.last_batch = TROUPE_LAST_SHORT;
    must(troupe_training_open(job->troupe, "digits", &options, &job->training),
         "open the training");
    model_init(&job->replica.model, job->options.seed);
    must(troupe_state_register(job->training, "replica", &job->replica,
                               sizeof(job->replica), TROUPE_REPLICATED),
         "register the state");
    job->ms_first = clock_ms();
    job->index = NO_INDEX;
}

static void write_files(const struct job *job)
{
    const struct replica *r = &job->replica;
    char path[PATH_MAX], title[160];
    int rc;

    snprintf(title, sizeof(title),
             "Handwritten digits, elastic: %.1f %% read right (died: %u, "
             "joined: %u, left: %u)",
             r->rows[r->rows_len - 1].accuracy * 100, r->lost, r->joined,
             r->left);
    snprintf(path, sizeof(path), "%s/elastic_digits.csv", job->options.folder);
    rc = chart_write_csv(path, r->rows, r->rows_len);
    if (rc == 0) {
        snprintf(path, sizeof(path), "%s/elastic_digits.svg",
                 job->options.folder);
        rc = chart_write_svg(path, title, goal, r->rows, r->rows_len, r->marks,
                             r->marks_len);
    }
    if (rc != 0)
        perror(path);
    must(rc == 0 ? 0 : TROUPE_ESYSTEM, "write the curve");
}

/* Returns the program's exit status. */
static int finish(struct job *job, int rc)
{
    const struct replica *r = &job->replica;
    double accuracy;
    int good;

    if (rc == TROUPE_ECANCELED) {
        printf("elastic_digits: %016" PRIx64 " was drained and leaves\n",
               troupe_node_id(job->troupe));
        return EXIT_SUCCESS;
    }
    must(rc == TROUPE_FINISHED ? 0 : rc, "train");
    accuracy = r->rows_len > 0 ? r->rows[r->rows_len - 1].accuracy : 0.0;
    good = accuracy >= goal;
    if (job->index == 0) {
        write_files(job);
        printf("elastic_digits: %s, held-out accuracy %.2f %%, %" PRIu64
               " steps, %u members died, %u joined, %u left, %u at the end; "
               "see elastic_digits.svg and .csv in %s\n",
               good ? "ok" : "FAILED", accuracy * 100, job->steps, r->lost,
               r->joined, r->left, r->members, job->options.folder);
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- options ------------------------------------------------------------- */

static void usage(FILE *stream)
{
    fprintf(stream,
            "usage: troupe run -n RANKS elastic_digits [options]\n"
            "  --epochs N   times to go through the samples (30)\n"
            "  --pace MS    sleep so long in each step, to have time to watch,\n"
            "  --changes N  until so many members have died, joined or left\n"
            "  --seed N     for the order of samples and the first weights (7)\n"
            "  --out DIR    where the table and the picture go (.)\n"
            "  --data FILE  the samples (examples/data/digits.csv.gz)\n");
}

static long number(const char *name, const char *text, long least, long most)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (end != text && *end == '\0' && value >= least && value <= most)
        return value;
    fprintf(stderr,
            "elastic_digits: --%s %s: a number from %ld to %ld is needed\n",
            name, text, least, most);
    exit(EXIT_FAILURE);
}

static struct options parse(int argc, char **argv)
{
    static const struct option names[] = {
        { "epochs", required_argument, NULL, 'e' },
        { "pace", required_argument, NULL, 'p' },
        { "changes", required_argument, NULL, 'c' },
        { "seed", required_argument, NULL, 's' },
        { "out", required_argument, NULL, 'o' },
        { "data", required_argument, NULL, 'd' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct options o = {
        .epochs = 30, .changes = LONG_MAX, .seed = 7, .folder = ".",
    };
    int c;

    while ((c = getopt_long(argc, argv, "h", names, NULL)) != -1) {
        switch (c) {
        case 'e': o.epochs = number("epochs", optarg, 1, EPOCHS_MAX); break;
        case 'p': o.pace_ms = number("pace", optarg, 0, PACE_MAX_MS); break;
        case 'c': o.changes = number("changes", optarg, 0, LONG_MAX); break;
        case 's': o.seed = (uint64_t)number("seed", optarg, 0, LONG_MAX); break;
        case 'o': o.folder = optarg; break;
        case 'd': o.file = optarg; break;
        case 'h': usage(stdout); exit(EXIT_SUCCESS);
        default: usage(stderr); exit(EXIT_FAILURE);
        }
    }
    if (access(o.folder, W_OK) != 0) { /* said now, not after the training */
        fprintf(stderr, "elastic_digits: --out %s: %s\n", o.folder, strerror(errno));
        exit(EXIT_FAILURE);
    }
    return o;
}

static void load_dataset(struct job *job)
{
    char path[PATH_MAX];

    if (dataset_find(job->options.file, path, sizeof(path)) != 0) {
        fprintf(stderr,
                "elastic_digits: digits.csv.gz not found, use --data FILE\n");
        exit(EXIT_FAILURE);
    }
    if (dataset_load(&job->dataset, path, job->options.seed) != 0)
        exit(EXIT_FAILURE);
    job->steps_an_epoch = (job->dataset.train_len + BATCH - 1) / BATCH;
    job->steps = job->steps_an_epoch * (uint64_t)job->options.epochs;
    job->snapshot_steps = SNAPSHOT_STEPS;
    while (job->steps / job->snapshot_steps + 2 > ROWS_MAX)
        job->snapshot_steps++;
}

int main(int argc, char **argv)
{
    static struct job job;
    int status, rc;

    job.options = parse(argc, argv);
    load_dataset(&job);
    must(troupe_start(&job.troupe, NULL), "start");
    open_training(&job);
    rc = train(&job);
    status = finish(&job, rc);
    must(troupe_training_close(&job.training, CLOSE_MS), "close the training");
    /* The others go on, so they do not come to troupe_stop. */
    must(rc == TROUPE_ECANCELED ? troupe_leave(&job.troupe)
                                : troupe_stop(&job.troupe),
         "stop");
    dataset_free(&job.dataset);
    return status;
}
