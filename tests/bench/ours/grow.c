/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A training that others join, from before their process is started until they
 * have committed a step; and by how much the longest step of the ranks was
 * longer meanwhile. Each step lasts 10 ms in which no core is needed, as with
 * an accelerator, and sums gradients of 4 MiB; who comes gets 4 MiB of state.
 * It is drained again, and the next one comes. grow join|spawn JOINS MPIRUN...
 * starts MPIRUN..., whose program is grow join|spawn member            a rank
 *     grow joiner                       and, one after the other, the joiners:
 *                                       by a seed, or by MPI_Comm_spawn
 */

#include <time.h>
#include <troupe/mpi.h>
#include <troupe/training.h>

#include "board.h"

enum {
    RANKS_MAX = 16,
    FLOATS = 1 << 20,
    WORK_NS = 10000000,
    CALM_STEPS = 50, /* before the first one comes: back ends are chosen */
    JOINER_STEPS = 5,
    CLOSE_MS = 20000,
};

struct board {
    char key_file[4096];
    char endpoint[64];
    _Atomic int32_t size;
    _Atomic int32_t calm[RANKS_MAX]; /* steps with no joiner since it left */
    _Atomic int32_t wanted;          /* joiners that were asked for */
    _Atomic int32_t is_over;
    _Atomic int32_t has_left;              /* the joiner */
    _Atomic int64_t in_ns;                 /* the joiner's first commit */
    _Atomic int64_t longest_ns[RANKS_MAX]; /* from commit to commit */
    _Atomic int64_t step_ns[RANKS_MAX];    /* the same, at the median, before */
};

static struct board *board;
static float *weights, *grad;
static int spawns; /* MPI starts the joiners */

/* --- all that train ------------------------------------------------------- */

static troupe_training_t *open_training(troupe_t *troupe)
{
    troupe_training_options_t options;
    troupe_training_t *training;

    weights = calloc(FLOATS, sizeof(float));
    grad = calloc(FLOATS, sizeof(float));
    if (!weights || !grad)
        bench_die("no memory");
    for (size_t i = 0; i < FLOATS; i++)
        weights[i] = grad[i] = 1; /* as after a dry run */
    troupe_training_options_init(&options);
    options.drain_signals = 0;
    bench_check(troupe_training_open(troupe, "grow", &options, &training),
                "troupe_training_open");
    bench_check(troupe_state_register(training, "weights", weights,
                                      FLOATS * sizeof(float),
                                      TROUPE_REPLICATED),
                "troupe_state_register");
    return training;
}

/* One that is committed: COMMITTED, or what begin or commit said. */
static int train_once(troupe_training_t *training, troupe_step_t *step)
{
    struct timespec work = { .tv_nsec = WORK_NS };
    int rc;

    do {
        rc = troupe_step_begin(training, step);
        if (rc != 0)
            return rc;
        nanosleep(&work, NULL);
        for (size_t i = 0; i < FLOATS; i++)
            grad[i] = 1;
        grad[0] = atomic_load(&board->is_over) ? 1 : 0;
        bench_check(
            troupe_step_allreduce(step, grad, FLOATS, TROUPE_FLOAT, TROUPE_SUM),
            "troupe_step_allreduce");
        rc = troupe_step_commit(step);
    } while (rc == TROUPE_RETRY);
    for (size_t i = 1; i < FLOATS; i++)
        weights[i] += grad[i];
    return rc;
}

/* --- a rank --------------------------------------------------------------- */

/* If one is wanted. */
static void spawn_joiner(troupe_t *troupe, char *program)
{
    char how[] = "spawn", what[] = "joiner", *argv[] = { how, what, NULL };

    if (spawns && atomic_exchange(&board->wanted, 0) != 0)
        bench_check(
            troupe_spawn_nodes(troupe, program, argv, 1, 0),
            "troupe_spawn_nodes");
}

/* From commit to commit. */
static void note_step(int rank, int size, const troupe_step_t *step,
                      int64_t begun_ns, int64_t ended_ns)
{
    static uint32_t samples_ns[CALM_STEPS];
    static int32_t calm;
    int64_t took_ns = ended_ns - begun_ns, in_ns = atomic_load(&board->in_ns);

    /* until it is in, the step that it came in with included */
    if (took_ns > atomic_load(&board->longest_ns[rank]) &&
        (in_ns == 0 || in_ns > begun_ns))
        atomic_store(&board->longest_ns[rank], took_ns);
    calm = step->members == (uint32_t)size ? calm + 1 : 0;
    if (calm > 0)
        samples_ns[(calm - 1) % CALM_STEPS] = (uint32_t)took_ns;
    if (calm == CALM_STEPS) {
        qsort(samples_ns, CALM_STEPS, sizeof(*samples_ns), bench_compare_);
        atomic_store(&board->step_ns[rank], samples_ns[CALM_STEPS / 2]);
    }
    atomic_store(&board->calm[rank], calm);
}

static void train(troupe_t *troupe, troupe_training_t *training, char *program)
{
    int rank = troupe_rank(troupe), size = troupe_size(troupe);
    troupe_step_t step;
    int64_t before_ns = bench_now_ns();

    if (size > RANKS_MAX)
        bench_die("too many ranks");
    atomic_store(&board->size, size);
    do {
        int64_t now_ns;

        if (rank == 0)
            spawn_joiner(troupe, program);
        if (train_once(training, &step) != TROUPE_COMMITTED)
            bench_die("a step was not committed");
        now_ns = bench_now_ns();
        note_step(rank, size, &step, before_ns, now_ns);
        before_ns = now_ns;
    } while (grad[0] == 0);
}

static int run_member(char *program)
{
    troupe_options_t options;
    troupe_training_t *training;
    troupe_t *troupe;

    bench_watchdog();
    board = board_open(sizeof(*board));
    troupe_options_init(&options);
    options.log = "error";
    options.growable = (uint32_t)spawns;
    options.key_file = spawns ? NULL : board->key_file;
    options.listen = spawns ? NULL : board->endpoint;
    bench_check(troupe_start(&troupe, &options), "troupe_start");
    training = open_training(troupe);
    train(troupe, training, program);
    troupe_training_close(&training, 0); /* all are done */
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}

/* --- who joins ------------------------------------------------------------ */

static int run_joiner(void)
{
    troupe_options_t options;
    troupe_training_t *training;
    troupe_step_t step;
    troupe_t *troupe;
    int rc = TROUPE_COMMITTED;

    bench_watchdog();
    board = board_open(sizeof(*board));
    troupe_options_init(&options);
    options.log = "error";
    options.key_file = spawns ? NULL : board->key_file;
    options.seeds = spawns ? NULL : board->endpoint;
    bench_check(troupe_start(&troupe, &options), "troupe_start");
    training = open_training(troupe);
    for (int i = 0; rc == TROUPE_COMMITTED; i++) {
        if (i == JOINER_STEPS)
            bench_check(troupe_training_drain(training, 0),
                        "troupe_training_drain");
        rc = train_once(training, &step);
        if (i == 0)
            atomic_store(&board->in_ns, bench_now_ns());
    }
    if (rc != TROUPE_ECANCELED)
        bench_check(rc, "a step of a joiner");
    troupe_training_close(&training, CLOSE_MS);
    atomic_store(&board->has_left, 1);
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}

/* --- who starts them ------------------------------------------------------ */

static int is_calm(void *unused)
{
    int32_t size = atomic_load(&board->size);

    (void)unused;
    for (int i = 0; i < size; i++)
        if (atomic_load(&board->calm[i]) < CALM_STEPS)
            return 0;
    return size > 0;
}

static int has_left(void *unused)
{
    (void)unused;
    return atomic_load(&board->has_left);
}

static int is_in(void *unused)
{
    (void)unused;
    return atomic_load(&board->in_ns) != 0;
}

/* Steps by which the longest one was longer, of the rank that waited most; in
 * thousandths. */
static uint32_t delay_of(void)
{
    int64_t most = 0;

    for (int i = 0; i < board->size; i++) {
        int64_t step_ns = board->step_ns[i],
                more_ns = board->longest_ns[i] - step_ns;

        if (more_ns > 0 && more_ns * 1000 / step_ns > most)
            most = more_ns * 1000 / step_ns;
    }
    return (uint32_t)most;
}

/* Returns until it was in, in us. */
static uint32_t join_once(char *program, uint32_t *delay_p)
{
    char how[] = "join", what[] = "joiner";
    char *arguments[] = { program, how, what, NULL };
    int64_t began_ns;
    pid_t pid = 0;

    board_await(is_calm, NULL, "a joiner has not left");
    atomic_store(&board->in_ns, 0);
    atomic_store(&board->has_left, 0);
    for (int i = 0; i < board->size; i++)
        atomic_store(&board->longest_ns[i], 0);
    began_ns = bench_now_ns();
    if (spawns)
        atomic_store(&board->wanted, 1);
    else
        pid = board_spawn(arguments);
    board_await(is_in, NULL, "a joiner commits no step");
    if (!spawns)
        board_reap(pid, 0);
    board_await(has_left, NULL, "a joiner has not left");
    *delay_p = delay_of();
    return (uint32_t)((board->in_ns - began_ns) / 1000);
}

static void measure(char *program, size_t joins, char **job)
{
    uint32_t *in_us = calloc(joins, sizeof(*in_us));
    uint32_t *delays = calloc(joins, sizeof(*delays));
    pid_t mpirun;

    snprintf(board->key_file, sizeof(board->key_file), "%s", board_key_file());
    snprintf(board->endpoint, sizeof(board->endpoint), "127.0.0.1:%d",
             board_free_port());
    mpirun = board_spawn(job);
    for (size_t i = 0; i < joins; i++)
        in_us[i] = join_once(program, &delays[i]);
    board_await(is_calm, NULL, "a joiner has not left");
    atomic_store(&board->is_over, 1);
    board_reap(mpirun, 0);
    qsort(in_us, joins, sizeof(*in_us), bench_compare_);
    qsort(delays, joins, sizeof(*delays), bench_compare_);
    bench_print(in_us[joins / 2] / 1e3, "ms", "in.p50");
    bench_print(in_us[joins - 1 - joins / 100] / 1e3, "ms", "in.p99");
    bench_print(delays[joins / 2] / 1e3, "steps", "delay.p50");
    bench_print(delays[joins - 1 - joins / 100] / 1e3, "steps", "delay.p99");
}

int main(int argc, char **argv)
{
    spawns = argc > 1 && strcmp(argv[1], "spawn") == 0;
    if (argc == 3 && strcmp(argv[2], "member") == 0)
        return run_member(argv[0]);
    if (argc == 3 && strcmp(argv[2], "joiner") == 0)
        return run_joiner();
    if (argc < 4)
        bench_die("too few arguments");
    bench_watchdog();
    board = board_create(sizeof(*board));
    measure(argv[0], bench_number(argc, argv, 2), argv + 3);
    return 0;
}
