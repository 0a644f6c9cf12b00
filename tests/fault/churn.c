/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Members of a training come and are killed, over and over: in each round one
 * is killed (now and then two at once) at a random microsecond, and others,
 * processes from outside, join. At first the one that leads is killed, and in
 * the middle the eldest.
 *
 * What a member has after a step is, bit by bit, what an undisturbed run of a
 * single member had after it; each sample is used once an epoch; and members do
 * not grow: descriptors, threads, memory.
 *
 *   churn [ROUNDS [MILLISECONDS_A_ROUND]]
 *
 * TROUPE_TEST_SEED replays the kills, as far as they are the seed's. An epoch
 * has 50 rounds, thus 100 changes at least.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <troupe.h>
#include <troupe/training.h>

#include "../lib/usage.h"
#include "base/base.h"
#include "puppet.h"

enum {
    ROUNDS = 8,
    EPOCH_ROUNDS = 50,
    ROUND_STEPS = 100,
    BATCH = 8,
    DIM = 64,
    BALLAST = 1 << 20,
    MEMBERS = 4,
    TWO_EVERY = 4, /* rounds */
    STEPS_MAX = 1 << 20,
    SOON_MS = 60000,
    GROWN_ROUNDS = 5, /* until caches and pools have what they keep */
    MORE_FDS_MAX = 8, /* connections to who is just there */
    MORE_BYTES_MAX = 16 << 20,
    MORE_BYTES_MAX_LONG = 32 << 20,
    LONG_ROUNDS = 100,
};

/* A place for a member, and for those that come after it. */
struct place {
    _Atomic uint64_t committed; /* steps, of this life */
    _Atomic uint64_t resident_bytes;
    _Atomic uint32_t fds, threads;
};

struct board {
    struct place places[MEMBERS];
    _Atomic uint64_t gate; /* steps beyond this one are slow */
    _Atomic uint64_t last; /* committed */
    _Atomic int failures;
    uint64_t steps; /* of all epochs */
    uint64_t samples;
    unsigned ports[MEMBERS];
    char key_file[64];
    uint64_t hashes[STEPS_MAX]; /* of the undisturbed run */
};

static struct board *board;

extern char **environ;

/* --- a member ------------------------------------------------------------- */

struct member {
    troupe_t *troupe;
    troupe_training_t *training;
    struct place *place; /* NULL: of the undisturbed run */
    int number;          /* of the place */
    float weights[DIM];
    uint32_t *used; /* by sample */
    uint32_t *counts;
    float *slots; /* BATCH x DIM: a gradient for each sample of a batch */
    char *ballast;
};

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, "\n");
    atomic_fetch_add(&board->failures, 1);
}

static void must(int rc, const char *what)
{
    if (rc == 0)
        return;
    fail("process %d: %s: %s", (int)getpid(), what, troupe_error_name(rc));
    exit(EXIT_FAILURE);
}

/* A logistic regression of made-up samples: each one's gradient has a place of
 * its own, so that whoever computes it, sums have the same bits. */
static void add_gradient(struct member *m, uint64_t sample, size_t slot)
{
    float *out = &m->slots[slot * DIM], z = 0, x[DIM], error;

    for (int i = 0; i < DIM; i++) {
        uint64_t number = tri_mix64(sample * DIM + (uint64_t)i);

        x[i] = (float)(int64_t)(number % 2001 - 1000) / 1000;
        z += x[i] * m->weights[i];
    }
    error = 1 / (1 + expf(-z)) - (float)(tri_mix64(sample) & 1);
    for (int i = 0; i < DIM; i++)
        out[i] = error * x[i];
}

static void compute(struct member *m, const troupe_step_t *step)
{
    uint64_t batch_first = step->first / BATCH * BATCH;

    memset(m->counts, 0, board->samples * sizeof(*m->counts));
    memset(m->slots, 0, BATCH * DIM * sizeof(*m->slots));
    for (uint64_t i = 0; i < step->samples; i++) {
        uint64_t sample = troupe_step_sample(step, i);

        m->counts[sample]++;
        add_gradient(m, sample, step->first - batch_first + i);
    }
}

static void apply(struct member *m, const troupe_step_t *step)
{
    for (size_t i = 0; i < board->samples; i++)
        m->used[i] += m->counts[i];
    for (size_t slot = 0; slot < BATCH; slot++)
        for (size_t i = 0; i < DIM; i++)
            m->weights[i] -= 0.1f * m->slots[slot * DIM + i];
    m->ballast[step->step % BALLAST]++;
}

static void note_commit(struct member *m, const troupe_step_t *step)
{
    uint64_t hash =
        tri_fnv64(TRI_FNV64_OFFSET, m->weights, sizeof(m->weights)) | 1;
    struct place *place = m->place;

    if (place == NULL) {
        board->hashes[step->step] = hash;
        return;
    }
    if (board->hashes[step->step] != hash)
        fail("place %d: step %llu has other weights than without failures",
             m->number, (unsigned long long)step->step);
    if (atomic_load(&board->last) < step->step)
        atomic_store(&board->last, step->step);
    if (step->step % 16 == 0) {
        atomic_store(&place->resident_bytes,
                     (uint64_t)usage_resident_bytes());
        atomic_store(&place->fds, usage_entries("/proc/self/fd"));
        atomic_store(&place->threads, usage_entries("/proc/self/task"));
    }
    atomic_fetch_add(&place->committed, 1);
}

/* Not so fast that the epochs are over before the rounds are; but always on,
 * as who joins needs steps of the others. */
static void pace(struct member *m, const troupe_step_t *step)
{
    uint64_t gate = atomic_load(&board->gate);
    int ms = step->step < gate        ? 1
             : step->step < gate + 50 ? 10
             : step->step < gate + 80 ? 100
                                      : 1000;

    if (m->place != NULL && gate != UINT64_MAX)
        troupe_serve(m->troupe, ms);
}

static void train(struct member *m)
{
    size_t slots_len = BATCH * DIM;
    troupe_step_t step;
    int rc;

    while ((rc = troupe_step_begin(m->training, &step)) == 0) {
        pace(m, &step);
        compute(m, &step);
        must(troupe_step_allreduce(&step, m->counts, board->samples,
                                   TROUPE_UINT32, TROUPE_SUM),
             "allreduce");
        must(troupe_step_allreduce(&step, m->slots, slots_len, TROUPE_FLOAT,
                                   TROUPE_SUM),
             "allreduce");
        rc = troupe_step_commit(&step);
        if (rc == TROUPE_RETRY)
            continue;
        if (rc != TROUPE_COMMITTED)
            break;
        apply(m, &step);
        note_commit(m, &step);
    }
    if (rc != TROUPE_FINISHED)
        must(rc < 0 ? rc : TROUPE_EPROTO, "training");
}

static uint64_t epoch_steps(void)
{
    return (board->samples + BATCH - 1) / BATCH;
}

static void open_training(struct member *m)
{
    troupe_training_options_t options;

    m->used = calloc(board->samples, sizeof(*m->used));
    m->counts = calloc(board->samples, sizeof(*m->counts));
    m->slots = calloc(BATCH * DIM, sizeof(*m->slots));
    m->ballast = calloc(1, BALLAST);
    troupe_training_options_init(&options);
    options.samples = board->samples;
    options.batch = BATCH;
    options.epochs = board->steps / epoch_steps();
    options.seed = 7;
    options.last_batch = TROUPE_LAST_SHORT;
    options.drain_signals = 0;
    options.retries_max = 1000;
    must(troupe_training_open(m->troupe, "churn", &options, &m->training),
         "open");
    must(troupe_state_register(m->training, "weights", m->weights,
                               sizeof(m->weights), TROUPE_REPLICATED),
         "register");
    must(troupe_state_register(m->training, "used", m->used,
                               board->samples * sizeof(*m->used),
                               TROUPE_REPLICATED),
         "register");
    must(troupe_state_register(m->training, "ballast", m->ballast, BALLAST,
                               TROUPE_REPLICATED),
         "register");
}

/* The places of others, one of which lives. */
static void fill_seeds(int number, char *seeds, size_t bytes)
{
    size_t len = 0;

    seeds[0] = '\0';
    for (int i = 0; i < MEMBERS; i++)
        if (i != number)
            len += (size_t)snprintf(seeds + len, bytes - len, "%s127.0.0.1:%u",
                                    len > 0 ? "," : "", board->ports[i]);
}

static void check_used(const struct member *m)
{
    for (uint64_t i = 0; i < board->samples; i++)
        if (m->used[i] != board->steps / epoch_steps()) {
            fail("place %d: sample %llu was used %u times", m->number,
                 (unsigned long long)i, m->used[i]);
            return;
        }
}

/* member PLACE first|joins|alone FILE */
static int run_member(char **argv)
{
    const char *how = argv[3];
    troupe_options_t options;
    struct member m = { .number = atoi(argv[2]) };
    char seeds[MEMBERS * 32], port[16];
    int fd = open(argv[4], O_RDWR);

    board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || board == MAP_FAILED)
        puppet_fail("no board");
    close(fd);
    troupe_options_init(&options);
    options.mpi = "off";
    options.log = "error"; /* deaths are not news here */
    options.key_file = board->key_file;
    snprintf(port, sizeof(port), "%u", board->ports[m.number]);
    options.listen = port;
    fill_seeds(m.number, seeds, sizeof(seeds));
    if (strcmp(how, "joins") == 0)
        options.seeds = seeds;
    if (strcmp(how, "alone") != 0)
        m.place = &board->places[m.number];
    must(troupe_start(&m.troupe, &options), "start");
    open_training(&m);
    train(&m);
    check_used(&m);
    must(troupe_training_close(&m.training, SOON_MS), "close");
    must(troupe_stop(&m.troupe), "stop");
    free(m.used);
    free(m.counts);
    free(m.slots);
    free(m.ballast);
    return atomic_load(&board->failures) > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* --- who starts and kills them -------------------------------------------- */

static char path[64];
static pid_t pids[MEMBERS];
static int rounds_of[MEMBERS]; /* that it has lived through */
static struct place grown[MEMBERS];
static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
    random_state = tri_mix64(random_state + 0x9e3779b97f4a7c15ull);
    return random_state % below;
}

static void clean_up(void)
{
    for (int i = 0; i < MEMBERS; i++)
        if (pids[i] > 0)
            kill(pids[i], SIGKILL);
    if (path[0])
        unlink(path);
}

static void make_board(void)
{
    int fd;

    snprintf(path, sizeof(path), "/tmp/troupe-churn-XXXXXX");
    fd = mkstemp(path);
    atexit(clean_up);
    if (fd < 0 || ftruncate(fd, sizeof(*board)) != 0)
        puppet_fail("a file to share: %s", strerror(errno));
    board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (board == MAP_FAILED)
        puppet_fail("mmap: %s", strerror(errno));
    close(fd);
    snprintf(board->key_file, sizeof(board->key_file), "%s",
             puppet_key_file(0));
    for (int i = 0; i < MEMBERS; i++)
        board->ports[i] = puppet_free_port();
}

static void start(int place, const char *how)
{
    char program[] = "/proc/self/exe", word[] = "member", number[16];
    char *arguments[] = { program, word, number, (char *)how, path, NULL };
    int rc;

    snprintf(number, sizeof(number), "%d", place);
    atomic_store(&board->places[place].committed, 0);
    atomic_store(&board->places[place].resident_bytes, 0);
    rounds_of[place] = 0;
    rc = posix_spawn(&pids[place], program, NULL, NULL, arguments, environ);
    if (rc != 0)
        puppet_fail("posix_spawn: %s", strerror(rc));
}

static void nap_us(uint64_t us)
{
    struct timespec nap = { .tv_sec = (time_t)(us / 1000000),
                            .tv_nsec = (long)(us % 1000000) * 1000 };

    nanosleep(&nap, NULL);
}

/* Ends the test if one of ours has ended. */
static void look_after(void)
{
    int status = 0;

    for (int i = 0; i < MEMBERS; i++)
        if (pids[i] > 0 && waitpid(pids[i], &status, WNOHANG) == pids[i]) {
            pids[i] = 0;
            puppet_fail("place %d ended with status %x in step %llu", i,
                        (unsigned)status,
                        (unsigned long long)atomic_load(&board->last));
        }
    if (atomic_load(&board->failures) > 0)
        puppet_fail("a member failed");
}

/* Until each that lives has committed a step more than it had, or, just come,
 * its first ones. */
static void await_steps(void)
{
    double end_ms = puppet_now_ms() + SOON_MS;
    uint64_t before[MEMBERS];

    for (int i = 0; i < MEMBERS; i++)
        before[i] = atomic_load(&board->places[i].committed);
    for (int i = 0; i < MEMBERS; i++)
        while (pids[i] > 0 &&
               atomic_load(&board->places[i].committed) < before[i] + 2) {
            look_after();
            if (puppet_now_ms() > end_ms)
                puppet_fail("place %d does not go on: step %llu", i,
                            (unsigned long long)atomic_load(&board->last));
            nap_us(500);
        }
}

static int eldest(void)
{
    int most = 0;

    for (int i = 1; i < MEMBERS; i++)
        if (rounds_of[i] > rounds_of[most])
            most = i;
    return most;
}

static void strike(int place)
{
    kill(pids[place], SIGKILL);
}

static void bury(int place)
{
    waitpid(pids[place], NULL, 0);
    pids[place] = 0;
}

/* Anybody but who is to become old. */
static int pick_victim(int round, int rounds, int not_this)
{
    int old = eldest(), victim;

    if (not_this < 0 && (round == 0 || round == rounds / 2))
        return round == 0 ? 0 : old;
    do
        victim = (int)draw(MEMBERS);
    while (victim == old || victim == not_this);
    return victim;
}

/* What an old member has more than when it was young. */
static void compare(int place, int rounds)
{
    const struct place *now = &board->places[place], *then = &grown[place];
    int64_t more = (int64_t)atomic_load(&now->resident_bytes) -
                   (int64_t)atomic_load(&then->resident_bytes);

    if (rounds_of[place] <= GROWN_ROUNDS ||
        atomic_load(&then->resident_bytes) == 0)
        return;
    printf("place %d, %d rounds old: %u descriptors, before %u; %u threads, "
           "before %u; %lld KiB more\n",
           place, rounds_of[place], atomic_load(&now->fds),
           atomic_load(&then->fds), atomic_load(&now->threads),
           atomic_load(&then->threads), (long long)more / 1024);
    if (atomic_load(&now->fds) > atomic_load(&then->fds) + MORE_FDS_MAX)
        fail("descriptors leak");
    if (atomic_load(&now->threads) > atomic_load(&then->threads))
        fail("threads leak");
    if (USAGE_RESIDENT_COUNTS &&
        more > (rounds < LONG_ROUNDS ? MORE_BYTES_MAX : MORE_BYTES_MAX_LONG))
        fail("memory leaks");
}

static void run_round(int round, int rounds)
{
    int victims[2] = { pick_victim(round, rounds, -1), -1 };

    if (round % TWO_EVERY == TWO_EVERY - 1)
        victims[1] = pick_victim(round, rounds, victims[0]);
    if (round == rounds / 2)
        compare(victims[0], rounds);
    nap_us(draw(10000)); /* anywhere in some steps */
    for (int i = 0; i < 2 && victims[i] >= 0; i++)
        strike(victims[i]);
    for (int i = 0; i < 2 && victims[i] >= 0; i++)
        bury(victims[i]);
    if (draw(2) == 0) /* else who comes meets the change */
        await_steps();
    for (int i = 0; i < 2 && victims[i] >= 0; i++)
        start(victims[i], "joins");
    await_steps();
    for (int i = 0; i < MEMBERS; i++) {
        const struct place *place = &board->places[i];

        if (++rounds_of[i] != GROWN_ROUNDS)
            continue;
        grown[i].resident_bytes = atomic_load(&place->resident_bytes);
        grown[i].fds = atomic_load(&place->fds);
        grown[i].threads = atomic_load(&place->threads);
    }
}

static void await_end(int place)
{
    double end_ms = puppet_now_ms() + 2 * SOON_MS;
    int status = 0;

    while (waitpid(pids[place], &status, WNOHANG) == 0) {
        if (puppet_now_ms() > end_ms)
            puppet_fail("place %d does not end", place);
        nap_us(1000);
    }
    pids[place] = 0;
    if (status != 0)
        puppet_fail("place %d ended with status %x", place, (unsigned)status);
}

/* So many steps that rounds have some each, and as many epochs as it takes. */
static void set_length(int rounds)
{
    uint64_t epoch_rounds =
        rounds < EPOCH_ROUNDS ? (uint64_t)rounds : EPOCH_ROUNDS;
    uint64_t steps = epoch_rounds * ROUND_STEPS;

    board->samples = steps * BATCH - 3; /* the last batch is smaller */
    board->steps =
        steps * (((uint64_t)rounds + epoch_rounds - 1) / epoch_rounds);
    if (board->steps > STEPS_MAX)
        puppet_fail("too many rounds");
}

int main(int argc, char **argv)
{
    const char *text = getenv("TROUPE_TEST_SEED");
    int rounds = argc > 1 ? atoi(argv[1]) : ROUNDS;
    double period_ms = argc > 2 ? atof(argv[2]) : 0, next_ms;
    int changes = MEMBERS;

    if (argc == 5 && strcmp(argv[1], "member") == 0)
        return run_member(argv);
    random_state =
        text ? strtoull(text, NULL, 0) : (uint64_t)(puppet_now_ms() * 1000);
    printf("TROUPE_TEST_SEED=%llu\n", (unsigned long long)random_state);
    unsetenv("TROUPE_TEST_SEED");
    make_board();
    set_length(rounds);
    start(0, "alone");
    await_end(0);
    start(0, "first");
    for (int i = 0; i < MEMBERS; i++) {
        if (i > 0)
            start(i, "joins");
        await_steps();
    }
    next_ms = puppet_now_ms();
    for (int i = 0; i < rounds; i++) {
        /* After the last one there are steps for a round that takes long. */
        atomic_store(&board->gate,
                     board->steps * ((uint64_t)i + 1) / ((uint64_t)rounds + 2));
        run_round(i, rounds);
        changes += i % TWO_EVERY == TWO_EVERY - 1 ? 4 : 2;
        next_ms += period_ms;
        while (puppet_now_ms() < next_ms) {
            look_after();
            nap_us(10000);
        }
    }
    printf("%d rounds, %d joins and deaths, %llu of %llu steps done\n", rounds,
           changes, (unsigned long long)atomic_load(&board->last),
           (unsigned long long)board->steps);
    compare(eldest(), rounds);
    atomic_store(&board->gate, UINT64_MAX);
    for (int i = 0; i < MEMBERS; i++)
        await_end(i);
    return atomic_load(&board->failures) > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
