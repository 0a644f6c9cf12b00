/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Members that come while a training runs:
 *   seed   a process from outside joins by a seed, and gets the state while the
 *          others train: nothing is retried. Then another one, while a rank
 *          that it gets the state from is killed.
 *   other  one that has registered other state is refused, by name; the others
 *          go on.
 *   spare  ranks beyond the size of the group wait; a rank is killed, and one of
 *          them is there in its place.
 *
 *   step_join seed|other|spare
 */
#include <pthread.h>

#include "../../src/group/view.h"
#include "puppet.h"
#include "steps.h"

enum {
    EPOCHS = 3,
    JOIN_STEP = 20,  /* the joiner is waited for */
    AGAIN_STEP = 50, /* and another */
    KILL_STEP = 30,  /* spare: rank 1 dies */
    BALLAST = 16 << 20,
    JOINER_ROW = 16, /* the first one's */
};

static int size, port;
static const char *scenario;
static char path[PATH_BYTES], key_file[256];
static uint64_t epoch_retries; /* before the first one came */

extern char **environ;

/* --- who joins ---------------------------------------------------------------- */

static void linger(struct steps *steps, const troupe_step_t *step)
{
    (void)step;
    troupe_serve(steps->troupe, 1);
}

/* In a process of its own: joiner ROW PORT PATH KEY BALLAST. */
static int join(char **argv)
{
    struct steps steps = { .row = atoi(argv[2]),
                           .epochs = EPOCHS,
                           .ballast = (size_t)atol(argv[6]),
                           .before = linger };
    troupe_options_t options;
    char seeds[64];
    int rc;

    test_rank = steps.row;
    atexit(leave_failed);
    steps_map(argv[4]);
    troupe_options_init(&options);
    snprintf(seeds, sizeof(seeds), "127.0.0.1:%s", argv[3]);
    options.seeds = seeds;
    options.key_file = argv[5];
    MUST(troupe_start(&steps.troupe, &options));
    steps_open(&steps, "join");
    rc = steps_run(&steps);
    if (rc == TROUPE_FINISHED) {
        CHECK(steps.was_synced);
        steps_check(&steps);
    }
    steps_close(&steps);
    atomic_store(&ledger->results[steps.row],
                 test_failures > 0 ? TROUPE_EFAILED : rc);
    CHECK_EQ(troupe_stop(&steps.troupe), 0);
    fflush(NULL);
    _exit(test_status());
}

static void start_joiner(int row, size_t ballast)
{
    static char program[4096], word[] = "joiner";
    char texts[3][32], *environment[256];
    char *arguments[] = { program, word,     texts[0], texts[1],
                          path,    key_file, texts[2], NULL };
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    size_t kept = 0;
    pid_t pid;

    CHECK(len > 0);
    snprintf(texts[0], sizeof(texts[0]), "%d", row);
    snprintf(texts[1], sizeof(texts[1]), "%d", port);
    snprintf(texts[2], sizeof(texts[2]), "%zu", ballast);
    for (size_t i = 0; environ[i] != NULL && kept < 255; i++)
        if (strncmp(environ[i], "OMPI_", 5) != 0 &&
            strncmp(environ[i], "PMIX_", 5) != 0)
            environment[kept++] = environ[i];
    environment[kept] = NULL;
    pid = fork();
    if (pid == 0) {
        execve(program, arguments, environment);
        _exit(127);
    }
    atomic_store(&ledger->pids[row], pid);
}

/* Until who was started asks to come in. The others wait in this step. */
static void await_joiner(struct steps *steps, int row)
{
    troupe_group_t *group = troupe_training_group(steps->training);
    double end = test_now_ms() + TEST_SOON_MS;

    while (!tri_view_wants_boundary(group) && test_now_ms() < end &&
           atomic_load(&ledger->results[row]) == 0)
        troupe_serve(steps->troupe, 1);
    CHECK(tri_view_wants_boundary(group));
}

/* --- the ranks ------------------------------------------------------------------ */

static void die_at(const troupe_step_t *step, int rank, uint64_t number)
{
    static bool dying;
    pthread_t thread;

    if (test_rank != rank || dying || step->step != number)
        return;
    dying = true;
    pthread_create(&thread, NULL, steps_die_in_us,
                   (void *)(uintptr_t)(steps_mix((uint64_t)getpid()) % 20000));
}

static void with_seed(struct steps *steps, const troupe_step_t *step)
{
    if (test_rank == 0 && step->step == JOIN_STEP && step->retry == 0) {
        start_joiner(JOINER_ROW, BALLAST);
        await_joiner(steps, JOINER_ROW);
    }
    if (step->step == JOIN_STEP + 1) {
        CHECK_EQ(step->members, size + 1);
        epoch_retries = steps->retries;
    }
    if (test_rank == 0 && step->step == AGAIN_STEP && step->retry == 0) {
        CHECK_EQ(steps->retries, epoch_retries);
        CHECK_EQ(steps->retries, 0);
        start_joiner(JOINER_ROW + 1, BALLAST);
        await_joiner(steps, JOINER_ROW + 1);
    }
    /* it gets the state from this rank, too */
    die_at(step, 1, AGAIN_STEP + 1);
}

static void with_other(struct steps *steps, const troupe_step_t *step)
{
    if (test_rank == 0 && step->step == JOIN_STEP && step->retry == 0) {
        start_joiner(JOINER_ROW, BALLAST / 2);
        await_joiner(steps, JOINER_ROW);
    }
    CHECK_EQ(step->members, size);
}

static void with_spare(struct steps *steps, const troupe_step_t *step)
{
    CHECK_EQ(step->members, steps->size_max);
    die_at(step, 1, KILL_STEP);
}

static void await_result(struct steps *steps, int row, int wanted)
{
    double end = test_now_ms() + TEST_SOON_MS;

    while (atomic_load(&ledger->results[row]) == 0 && test_now_ms() < end)
        troupe_serve(steps->troupe, 1);
    CHECK_EQ(atomic_load(&ledger->results[row]), wanted);
}

static void start(struct steps *steps)
{
    troupe_options_t options;
    char listen[16];

    MPI_Init(NULL, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    atexit(leave_failed);
    troupe_options_init(&options);
    if (test_rank == 0) {
        port = (int)puppet_free_port();
        snprintf(key_file, sizeof(key_file), "%s", puppet_key_file(0));
        options.key_file = key_file;
    }
    MPI_Bcast(&port, 1, MPI_INT, 0, MPI_COMM_WORLD);
    snprintf(listen, sizeof(listen), "%d", port);
    options.listen = listen;
    MUST(troupe_start(&steps->troupe, &options));
    steps_share(path);
}

int main(int argc, char **argv)
{
    struct steps steps = { .epochs = EPOCHS, .ballast = BALLAST };
    bool is_seed, is_other;

    if (argc > 6 && strcmp(argv[1], "joiner") == 0)
        return join(argv);
    puppet_main(argc, argv);
    scenario = argc > 1 ? argv[1] : "seed";
    is_seed = strcmp(scenario, "seed") == 0;
    is_other = strcmp(scenario, "other") == 0;
    start(&steps);
    steps.row = test_rank;
    steps.before = is_seed ? with_seed : is_other ? with_other : with_spare;
    if (!is_seed && !is_other)
        steps.size_max = (uint32_t)size - 1;
    steps_open(&steps, "join");
    CHECK_EQ(steps_run(&steps), TROUPE_FINISHED);
    if (is_seed || is_other || steps.members_most > 0)
        steps_check(&steps);
    if (!is_seed && !is_other && test_rank == size - 1)
        CHECK(steps.was_synced);
    steps_close(&steps);
    if (test_rank == 0 && is_seed) {
        await_result(&steps, JOINER_ROW, TROUPE_FINISHED);
        await_result(&steps, JOINER_ROW + 1, TROUPE_FINISHED);
    } else if (test_rank == 0 && is_other) {
        await_result(&steps, JOINER_ROW, TROUPE_EMISMATCH);
    }
    if (test_rank == 0)
        unlink(path);
    CHECK_EQ(troupe_stop(&steps.troupe), 0);
    leave();
}
