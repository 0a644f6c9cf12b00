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
 *   pause  a rank is killed, and those that are left are too few: they pause
 *          until another comes.
 *   block  one from a host that is blocked is refused; when it is not blocked
 *          any more, another one comes in.
 *   late   one comes in the last step: it is told that all are done when it has
 *          the state, too.
 *   idle   a rank and one from outside that are spares to the end hear of that,
 *          though the others, who have the state, leave at once.
 *
 *   step_join seed|other|spare|pause|block|late|idle
 */
#include <pthread.h>
#include <sys/wait.h>

#include "../../src/group/view.h"
#include "puppet.h"
#include "steps.h"

enum {
    EPOCHS = 3,
    JOIN_STEP = 20,  /* the joiner is waited for */
    AGAIN_STEP = 50, /* and another */
    KILL_STEP = 30,  /* spare: rank 1 dies */
    BALLAST = 16 << 20, /* where it matters how long it takes to fetch */
    LITTLE = 1 << 20,
    JOINER_ROW = 16, /* the first one's */
    PAUSE_MS = 300,
    BLOCK_MS = 600000,
};

static int size, port;
static char path[PATH_BYTES], key_file[256];
static uint64_t epoch_retries; /* before the first one came */

extern char **environ;

/* --- who joins ---------------------------------------------------------------- */

static void linger(struct steps *steps, const troupe_step_t *step)
{
    (void)step;
    troupe_serve(steps->troupe, 1);
}

/* The last state is that of the others, also if it has come too late for a
 * step. A spare has none. */
static void check_joined(struct steps *steps)
{
    troupe_training_stats_t stats;
    uint64_t last = atomic_load(&ledger->hashes[0][EPOCHS * EPOCH_STEPS - 1]);

    troupe_training_stats(steps->training, &stats);
    if (steps->size_max != 0) {
        CHECK_EQ(stats.synced_bytes, 0);
        return;
    }
    CHECK(stats.synced_bytes > 0);
    CHECK(last == 0 || last == steps_state_hash(steps));
    steps_check(steps);
}

/* In a process of its own: joiner ROW PORT PATH KEY BALLAST SIZE_MIN SIZE_MAX.
 */
static int join(char **argv)
{
    struct steps steps = { .row = atoi(argv[2]),
                           .epochs = EPOCHS,
                           .ballast = (size_t)atol(argv[6]),
                           .size_min = (uint32_t)atol(argv[7]),
                           .size_max = (uint32_t)atol(argv[8]),
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
    if (rc == TROUPE_FINISHED)
        check_joined(&steps);
    steps_close(&steps);
    atomic_store(&ledger->results[steps.row],
                 test_failures > 0 ? TROUPE_EFAILED : rc);
    CHECK_EQ(troupe_stop(&steps.troupe), 0);
    fflush(NULL);
    _exit(test_status());
}

static void start_joiner(const struct steps *steps, int row, size_t ballast)
{
    static char program[4096], word[] = "joiner";
    char texts[5][32], *environment[256];
    char *arguments[] = { program,  word,     texts[0], texts[1], path,
                          key_file, texts[2], texts[3], texts[4], NULL };
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    size_t kept = 0;
    pid_t pid;

    CHECK(len > 0);
    snprintf(texts[0], sizeof(texts[0]), "%d", row);
    snprintf(texts[1], sizeof(texts[1]), "%d", port);
    snprintf(texts[2], sizeof(texts[2]), "%zu", ballast);
    snprintf(texts[3], sizeof(texts[3]), "%u", steps->size_min);
    snprintf(texts[4], sizeof(texts[4]), "%u", steps->size_max);
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
                   (void *)(uintptr_t)(tri_mix64((uint64_t)getpid()) % 20000));
}

static void with_seed(struct steps *steps, const troupe_step_t *step)
{
    if (test_rank == 0 && step->step == JOIN_STEP && step->retry == 0) {
        start_joiner(steps, JOINER_ROW, steps->ballast);
        await_joiner(steps, JOINER_ROW);
    }
    if (step->step == JOIN_STEP + 1) {
        CHECK_EQ(step->members, size + 1);
        epoch_retries = steps->retries;
    }
    if (test_rank == 0 && step->step == AGAIN_STEP && step->retry == 0) {
        CHECK_EQ(steps->retries, epoch_retries);
        CHECK_EQ(steps->retries, 0);
        start_joiner(steps, JOINER_ROW + 1, steps->ballast);
        await_joiner(steps, JOINER_ROW + 1);
    }
    /* it gets the state from this rank, too */
    die_at(step, 1, AGAIN_STEP + 1);
}

static void with_other(struct steps *steps, const troupe_step_t *step)
{
    if (test_rank == 0 && step->step == JOIN_STEP && step->retry == 0) {
        start_joiner(steps, JOINER_ROW, steps->ballast / 2);
        await_joiner(steps, JOINER_ROW);
    }
    CHECK_EQ(step->members, size);
}

static void with_spare(struct steps *steps, const troupe_step_t *step)
{
    CHECK_EQ(step->members, steps->size_max);
    die_at(step, 1, KILL_STEP);
}

/* What the last step began with. Who finishes later than the others sees them
 * leave. */
static troupe_training_stats_t last_stats;

/* Before it has reduced anything: nobody is prepared. */
static void with_pause(struct steps *steps, const troupe_step_t *step)
{
    troupe_training_stats(steps->training, &last_stats);
    CHECK_EQ(step->members, size);
    if (test_rank == 1 && step->step == KILL_STEP)
        kill(getpid(), SIGKILL);
}

static int pauses, resumptions;

static void look_at_events(const struct steps *steps)
{
    troupe_training_event_t event;

    while (troupe_training_events_take(steps->training, &event, 1) > 0) {
        pauses += event.what == TROUPE_TRAINING_PAUSED;
        resumptions += event.what == TROUPE_TRAINING_RESUMED;
    }
}

/* Begin has said that it has waited for long enough. */
static int go_on_when_enough(struct steps *steps, int rc)
{
    double end = test_now_ms() + TEST_SOON_MS;

    CHECK_EQ(rc, TROUPE_EPAUSED);
    look_at_events(steps);
    /* It says so also while the others agree for longer than that; and the
     * joiner may come before it has said so again. */
    while (pauses == 0 && rc == TROUPE_EPAUSED && test_now_ms() < end) {
        rc = steps_run(steps);
        look_at_events(steps);
    }
    CHECK(pauses > 0);
    if (test_rank == 0)
        start_joiner(steps, JOINER_ROW, steps->ballast);
    end = test_now_ms() + TEST_SOON_MS;
    while (rc == TROUPE_EPAUSED && test_now_ms() < end)
        rc = steps_run(steps);
    look_at_events(steps);
    CHECK(resumptions > 0);
    CHECK_EQ(last_stats.losses, 1);
    CHECK_EQ(last_stats.joins, size + 1);
    return rc;
}

static uint64_t own_host(const struct steps *steps)
{
    troupe_from_t from = { .troupe_ = steps->troupe };
    troupe_member_t member;

    MUST(troupe_member_get(from, troupe_node_id(from), &member));
    return member.host;
}

static void with_block(struct steps *steps, const troupe_step_t *step)
{
    if (step->step <= AGAIN_STEP)
        CHECK_EQ(step->members, size);
    if (step->step == AGAIN_STEP + 1)
        CHECK_EQ(step->members, size + 1);
    if (test_rank != 0 || step->retry > 0)
        return;
    if (step->step == JOIN_STEP) {
        MUST(troupe_training_block(steps->training, own_host(steps),
                                   BLOCK_MS));
        CHECK_EQ(steps_events(steps, TROUPE_TRAINING_BLOCKED), 1);
        start_joiner(steps, JOINER_ROW, steps->ballast);
        await_joiner(steps, JOINER_ROW);
    } else if (step->step == AGAIN_STEP) {
        MUST(troupe_training_block(steps->training, own_host(steps), 0));
        start_joiner(steps, JOINER_ROW + 1, steps->ballast);
        await_joiner(steps, JOINER_ROW + 1);
    }
}

static void with_late(struct steps *steps, const troupe_step_t *step)
{
    bool is_last = step->step == EPOCHS * EPOCH_STEPS - 1;

    if (!is_last)
        CHECK_EQ(step->members, size);
    if (test_rank == 0 && is_last && step->retry == 0) {
        start_joiner(steps, JOINER_ROW, steps->ballast);
        await_joiner(steps, JOINER_ROW);
    }
}

static void with_idle(struct steps *steps, const troupe_step_t *step)
{
    CHECK_EQ(step->members, steps->size_max);
    if (test_rank == 0 && step->step == JOIN_STEP && step->retry == 0) {
        start_joiner(steps, JOINER_ROW, steps->ballast);
        await_joiner(steps, JOINER_ROW);
    }
}

static void await_result(struct steps *steps, int row, int wanted)
{
    double end = test_now_ms() + TEST_SOON_MS;

    while (atomic_load(&ledger->results[row]) == 0 && test_now_ms() < end)
        troupe_serve(steps->troupe, 1);
    CHECK_EQ(atomic_load(&ledger->results[row]), wanted);
}

/* They say how it ended before they stop. */
static void await_joiners(void)
{
    for (int row = JOINER_ROW; row < ROWS_MAX; row++) {
        pid_t pid = atomic_load(&ledger->pids[row]);
        int status = 0;

        if (pid > 0)
            CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
    }
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

static const struct scenario {
    const char *name;
    void (*before)(struct steps *steps, const troupe_step_t *step);
    int results[2]; /* of joiners; 0: there is none */
} scenarios[] = {
    { "seed", with_seed, { TROUPE_FINISHED, TROUPE_FINISHED } },
    { "other", with_other, { TROUPE_EMISMATCH, 0 } },
    { "spare", with_spare, { 0, 0 } },
    { "pause", with_pause, { TROUPE_FINISHED, 0 } },
    { "block", with_block, { TROUPE_ELIMIT, TROUPE_FINISHED } },
    { "late", with_late, { TROUPE_FINISHED, 0 } },
    { "idle", with_idle, { TROUPE_FINISHED, 0 } },
};

static const struct scenario *scenario_of(const char *name)
{
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
        if (strcmp(scenarios[i].name, name) == 0)
            return &scenarios[i];
    MUST(TROUPE_EINVAL);
    return NULL;
}

/* How many take part, and how much it is that who comes fetches. */
static void set_sizes(struct steps *steps)
{
    bool is_spare = steps->before == with_spare || steps->before == with_idle;

    steps->ballast = steps->before == with_spare ||
                             steps->before == with_seed ||
                             steps->before == with_late
                         ? BALLAST
                         : LITTLE;
    if (is_spare)
        steps->size_max = (uint32_t)size - 1;
}

static void run(struct steps *steps, const struct scenario *scenario)
{
    bool is_last = test_rank == size - 1;
    int rc;

    steps->before = scenario->before;
    set_sizes(steps);
    if (scenario->before == with_pause) {
        steps->size_min = (uint32_t)size;
        steps->pause_ms = PAUSE_MS;
    }
    steps_open(steps, "join");
    rc = steps_run(steps);
    if (scenario->before == with_pause)
        rc = go_on_when_enough(steps, rc);
    CHECK_EQ(rc, TROUPE_FINISHED);
    if (scenario->before == with_idle && is_last)
        CHECK_EQ(steps->members_most, 0);
    else
        steps_check(steps);
    if (scenario->before == with_spare && is_last)
        CHECK(steps->was_synced);
    steps_close(steps);
    for (int i = 0; i < 2 && test_rank == 0; i++)
        if (scenario->results[i] != 0)
            await_result(steps, JOINER_ROW + i, scenario->results[i]);
}

int main(int argc, char **argv)
{
    struct steps steps = { .epochs = EPOCHS };

    if (argc > 8 && strcmp(argv[1], "joiner") == 0)
        return join(argv);
    puppet_main(argc, argv);
    start(&steps);
    steps.row = test_rank;
    run(&steps, scenario_of(argc > 1 ? argv[1] : "seed"));
    if (test_rank == 0) {
        unlink(path);
        unlink(key_file);
    }
    CHECK_EQ(troupe_stop(&steps.troupe), 0);
    if (test_rank == 0)
        await_joiners();
    leave();
}
