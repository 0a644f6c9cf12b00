/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A training that loses ranks, from the loss until all that are left have
 * committed a step without them. Each step sums gradients of 4 MiB, and state
 * of as much is registered. One loss a job, jobs one after the other.
 *     recover kill KILLS MPIRUN...    in turn: a rank by chance, the first one
 *                                     (which leads agreements), two at once
 *     recover spare KILLS MPIRUN...   the last rank is a spare, and is in the
 *                                     step that counts
 *     hosts HOSTS recover cut CUTS    the last host is cut off, silently
 * which start
 *     recover                         a rank
 */

#include <pthread.h>
#include <troupe/training.h>

#include "board.h"

enum {
    RANKS_MAX = 16,
    FLOATS = 1 << 20,
    WARM_STEPS = 30, /* before the loss: back ends have been chosen */
    VICTIMS_MAX = 2,
    US_MAX = 60000000,
};

enum mode { ANY, FIRST, TWO, SPARE, CUT };

struct board {
    int32_t mode;
    uint64_t random;
    _Atomic int32_t size; /* ranks, once they train */
    _Atomic int32_t warm; /* ranks that have done WARM_STEPS */
    _Atomic int32_t pids[RANKS_MAX];
    _Atomic int64_t lost_ns;
    _Atomic int64_t again_ns[RANKS_MAX]; /* the step without them committed */
    _Atomic int64_t step_ns[RANKS_MAX];  /* of a step before, at the median */
};

static struct board *board;
static int rank, size;

/* --- who is lost ---------------------------------------------------------- */

static int victims_len(void)
{
    return board->mode == TWO ? 2 : 1;
}

/* The i-th one that is lost. */
static int victim(int i)
{
    int active = board->mode == SPARE ? size - 1 : size;
    int first = board->mode == FIRST ? 0
                : board->mode == CUT ? size - 1
                                     : bench_pick(board->random, active);

    return (first + i) % size;
}

static int is_victim(int which)
{
    for (int i = 0; i < victims_len(); i++)
        if (victim(i) == which)
            return 1;
    return 0;
}

/* Members of the step that counts. */
static int members_after(void)
{
    return board->mode == SPARE ? size - 1 : size - victims_len();
}

static void *die(void *unused)
{
    uint64_t step_us = (uint64_t)atomic_load(&board->step_ns[rank]) / 1000;

    (void)unused;
    /* anywhere in the steps that come */
    usleep((useconds_t)(bench_random(board->random) % (2 * step_us + 1)));
    atomic_store(&board->lost_ns, bench_now_ns());
    for (int i = 1; i < victims_len(); i++)
        kill(board->pids[victim(i)], SIGKILL);
    kill(getpid(), SIGKILL);
    return NULL;
}

/* --- a rank --------------------------------------------------------------- */

static troupe_t *start(void)
{
    troupe_options_t options;
    troupe_t *troupe;

    bench_watchdog();
    board = board_open(sizeof(*board));
    troupe_options_init(&options);
    options.log = "error"; /* losses are no news here */
    if (board->mode == CUT)
        options.membership = "fast";
    bench_check(troupe_start(&troupe, &options), "troupe_start");
    rank = troupe_rank(troupe);
    size = troupe_size(troupe);
    if (size > RANKS_MAX || size <= VICTIMS_MAX)
        bench_die("too many ranks, or too few");
    atomic_store(&board->pids[rank], getpid());
    return troupe;
}

static troupe_training_t *open_training(troupe_t *troupe, float *weights)
{
    troupe_training_options_t options;
    troupe_training_t *training;

    troupe_training_options_init(&options);
    options.drain_signals = 0;
    if (board->mode == SPARE)
        options.group.size_max = (uint32_t)size - 1;
    bench_check(troupe_training_open(troupe, "recover", &options, &training),
                "troupe_training_open");
    bench_check(troupe_state_register(training, "weights", weights,
                                      FLOATS * sizeof(float),
                                      TROUPE_REPLICATED),
                "troupe_state_register");
    return training;
}

/* All that are to come back have. */
static int is_over(void)
{
    for (int i = 0; i < size; i++)
        if (!is_victim(i) && atomic_load(&board->again_ns[i]) == 0)
            return 0;
    return 1;
}

static uint32_t median(uint32_t *samples, size_t len)
{
    qsort(samples, len, sizeof(*samples), bench_compare_);
    return samples[len / 2];
}

static void note_commit(uint64_t done, const troupe_step_t *step,
                        int64_t begun_ns)
{
    static uint32_t steps_ns[WARM_STEPS];
    int64_t now_ns = bench_now_ns();
    pthread_t thread;

    if (done < WARM_STEPS)
        steps_ns[done] = (uint32_t)(now_ns - begun_ns);
    if (done == WARM_STEPS - 1) {
        atomic_store(&board->step_ns[rank], median(steps_ns, WARM_STEPS));
        atomic_store(&board->size, size);
        atomic_fetch_add(&board->warm, 1);
        if (board->mode != CUT && rank == victim(0))
            pthread_create(&thread, NULL, die, NULL);
    }
    if (atomic_load(&board->lost_ns) != 0 &&
        step->members == (uint32_t)members_after() &&
        atomic_load(&board->again_ns[rank]) == 0)
        atomic_store(&board->again_ns[rank], now_ns);
}

/* Until all have come back, which all learn in the same step. */
static int train(troupe_training_t *training, float *weights, float *grad)
{
    troupe_step_t step;
    uint64_t done = 0;
    int rc;

    for (;;) {
        int64_t begun_ns = bench_now_ns();

        rc = troupe_step_begin(training, &step);
        if (rc != 0)
            return rc;
        for (size_t i = 0; i < FLOATS; i++)
            grad[i] = 1;
        grad[0] = is_over() ? 1 : 0;
        bench_check(troupe_step_allreduce(&step, grad, FLOATS, TROUPE_FLOAT,
                                          TROUPE_SUM),
                    "troupe_step_allreduce");
        rc = troupe_step_commit(&step);
        if (rc == TROUPE_RETRY)
            continue;
        if (rc != TROUPE_COMMITTED)
            return rc;
        note_commit(done++, &step, begun_ns);
        for (size_t i = 1; i < FLOATS; i++)
            weights[i] += grad[i];
        if (grad[0] > 0)
            return 0;
    }
}

static int run_rank(void)
{
    troupe_t *troupe = start();
    float *weights = calloc(FLOATS, sizeof(float));
    float *grad = calloc(FLOATS, sizeof(float));
    troupe_training_t *training;

    if (!weights || !grad)
        bench_die("no memory");
    training = open_training(troupe, weights);
    bench_check(train(training, weights, grad), "a step");
    troupe_training_close(&training, 0); /* all are done */
    troupe_stop(&troupe);
    _exit(0); /* MPI_Finalize may hang after a death */
}

/* --- who starts them ------------------------------------------------------ */

static int is_warm(void *unused)
{
    (void)unused;
    /* who kills, does it by itself */
    return atomic_load(&board->size) > 0 &&
           (board->mode != CUT || atomic_load(&board->warm) == board->size);
}

static int is_back(void *unused)
{
    (void)unused;
    size = atomic_load(&board->size);
    return is_over();
}

static void cut_last(const char *what)
{
    char number[16];
    char *arguments[] = { getenv("TEST_HOSTS"), (char *)what, number, NULL };

    snprintf(number, sizeof(number), "%d", board->size - 1);
    board_reap(board_spawn(arguments), 0);
}

/* One job. Returns from the loss until the last one was back, in us. */
static uint32_t lose_once(int mode, uint64_t random, char **job)
{
    int64_t last_ns = 0;
    pid_t pid;

    memset(board, 0, sizeof(*board));
    board->mode = mode;
    board->random = random;
    pid = board_spawn(job);
    board_await(is_warm, NULL, "the job does not train");
    if (mode == CUT) {
        atomic_store(&board->lost_ns, bench_now_ns());
        cut_last("cut");
    }
    board_await(is_back, NULL, "a step is not committed after a loss");
    if (mode == CUT) {
        kill(board->pids[victim(0)], SIGKILL); /* it waits for the others */
        cut_last("heal");
    }
    board_reap(pid, 0);
    for (int i = 0; i < board->size; i++)
        if (!is_victim(i) && board->again_ns[i] > last_ns)
            last_ns = board->again_ns[i];
    if (last_ns < board->lost_ns ||
        last_ns - board->lost_ns > (int64_t)US_MAX * 1000)
        bench_die("a time that cannot be");
    return (uint32_t)((last_ns - board->lost_ns) / 1000);
}

static void print_quantiles(uint32_t *samples_us, size_t len, double per_us,
                            const char *unit, const char *prefix)
{
    char name[32];

    if (len == 0)
        return;
    qsort(samples_us, len, sizeof(*samples_us), bench_compare_);
    snprintf(name, sizeof(name), "%sp50", prefix);
    bench_print(samples_us[len / 2] * per_us, unit, name);
    snprintf(name, sizeof(name), "%sp99", prefix);
    bench_print(samples_us[len - 1 - len / 100] * per_us, unit, name);
}

static void measure(const char *what, size_t losses, char **job)
{
    static const char *const names[] = { "any.", "first.", "two." };
    uint32_t *all_us = calloc(losses, sizeof(*all_us));
    uint32_t *some_us = calloc(losses, sizeof(*some_us));
    uint32_t *step_us = calloc(losses, sizeof(*step_us));
    int kinds = strcmp(what, "kill") == 0 ? 3 : 1;
    int mode = strcmp(what, "cut") == 0 ? CUT : kinds == 1 ? SPARE : ANY;
    uint64_t random = (uint64_t)bench_now_ns() | 1;
    int cut = mode == CUT;

    for (size_t i = 0; i < losses; i++) {
        for (int k = 0; k < 10; k++)
            random = bench_random(random);
        all_us[i] = lose_once(mode + (int)i % kinds, random, job);
        step_us[i] = (uint32_t)(board->step_ns[victim(0)] / 1000);
    }
    for (int kind = 0; kinds > 1 && kind < kinds; kind++) {
        size_t len = 0;

        for (size_t i = (size_t)kind; i < losses; i += (size_t)kinds)
            some_us[len++] = all_us[i];
        print_quantiles(some_us, len, 1e-3, "ms", names[kind]);
    }
    print_quantiles(all_us, losses, cut ? 1e-6 : 1e-3, cut ? "s" : "ms", "");
    bench_print(median(step_us, losses) / 1e3, "ms", "step");
    free(all_us);
    free(some_us);
    free(step_us);
}

int main(int argc, char **argv)
{
    char program[] = "mpirun", recovery[] = "-r";
    char *job[] = { getenv("TEST_HOSTS"), program, recovery, argv[0], NULL };

    if (argc == 1)
        return run_rank();
    bench_watchdog();
    board = board_create(sizeof(*board));
    if (strcmp(argv[1], "cut") == 0 && !job[0])
        bench_die("not run by tests/lib/hosts");
    else if (argc < 4 && strcmp(argv[1], "cut") != 0)
        bench_die("too few arguments");
    measure(argv[1], bench_number(argc, argv, 2), argc > 3 ? argv + 3 : job);
    return 0;
}
