/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kill -9 in the middle of large messages, over rings and over the fabric:
 * of the receiver while the survivor sends, of the sender while the survivor
 * receives. The survivor's part is in parting_end.c: each message that was not
 * taken is told of once, nothing is left of the dead, and traffic with a third
 * node goes on. TROUPE_TEST_FAULT_ROUNDS: rounds a mode.
 */
#include "parting.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"

enum {
    ROUNDS = 6,
    ROUNDS_TRIED = 30, /* until one was in the middle */
    TAIL_BYTES_MAX = 300000, /* of a message, when it is all but there */
    QUIET_MS_MAX = 5,
};

static const struct parting_mode modes[] = {
    { "ring, pieces", true, TRI_CMA_OFF, TRI_SEAL_NONE },
    { "ring, pulled", true, TRI_CMA_ON, TRI_SEAL_NONE },
    { "fabric, authenticated", false, TRI_CMA_OFF, TRI_SEAL_AUTH },
    { "fabric, encrypted", false, TRI_CMA_OFF, TRI_SEAL_ENCRYPT },
};

static struct parting_board *board;
static pid_t pids[PARTING_SEATS]; /* 0: not there */
static struct tri_random random_state;

static void nap(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
}

static void fail(const char *what)
{
    fprintf(stderr, "parting: %s\n", what);
    for (int i = 0; i < PARTING_SEATS; i++)
        if (pids[i] != 0) {
            kill(pids[i], SIGKILL);
            waitpid(pids[i], NULL, 0);
        }
    exit(EXIT_FAILURE);
}

static void check_living(void)
{
    for (int i = 0; i < PARTING_SEATS; i++)
        if (pids[i] != 0 && waitpid(pids[i], NULL, WNOHANG) == pids[i]) {
            pids[i] = 0;
            fail("an end has ended");
        }
}

#define WAIT(condition)                                                        \
    do {                                                                       \
        uint64_t until_ns_ = tri_deadline_ns(2 * PARTING_SOON_MS);             \
                                                                               \
        while (!(condition)) {                                                 \
            check_living();                                                    \
            nap();                                                             \
            if (tri_now_ns() > until_ns_)                                      \
                fail("waited in vain for: " #condition);                       \
        }                                                                      \
    } while (0)

static void start(enum parting_seat seat, uint32_t round)
{
    pid_t parent = getpid();
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid < 0)
        fail("fork failed");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(EXIT_FAILURE);
        parting_end_run(board, seat, round);
    }
    pids[seat] = pid;
}

/* --- a round ----------------------------------------------------------------- */

/* Somewhere in the first large messages, or just before the end of one: then
 * all of it is under way, and only last pieces are left. */
static uint64_t choose_end(const struct parting_plan *plan)
{
    uint64_t larges = 1 + tri_random_below(&random_state, 2);
    uint64_t last = 3 + (larges - 1) * PARTING_PERIOD;
    uint64_t bytes = 0;

    for (uint64_t id = 0; id <= last; id++)
        bytes += parting_size(plan->seed, id);
    return bytes - (plan->stops && tri_random_below(&random_state, 2) == 0
                        ? tri_random_below(&random_state, TAIL_BYTES_MAX) + 1
                        : tri_random_below(&random_state, PARTING_LARGE - 1));
}

static void plan_round(uint32_t round)
{
    struct parting_plan *plan = &board->plan;

    *plan = (struct parting_plan){
        .seed = tri_random_next(&random_state),
        .victim_sends = round % 2 == 0,
        .survivor_greets = tri_random_below(&random_state, 2) == 0,
        .stops = tri_random_below(&random_state, 2) == 0,
    };
    plan->end_bytes = choose_end(plan);
    atomic_store(&board->received_bytes, 0);
    atomic_store(&board->taken, 0);
}

/* The victim stands still, so that the survivor's queues fill up or empty. */
static void stop_victim(void)
{
    uint64_t until_ns;
    int status;

    if (board->plan.victim_sends)
        kill(pids[PARTING_VICTIM], SIGSTOP);
    if (waitpid(pids[PARTING_VICTIM], &status, WUNTRACED) !=
            pids[PARTING_VICTIM] ||
        !WIFSTOPPED(status))
        fail("the victim did not stop");
    until_ns = tri_deadline_ns((int)tri_random_below(&random_state,
                                                     QUIET_MS_MAX));
    while (tri_now_ns() < until_ns)
        nap();
}

static void kill_victim(void)
{
    int status;

    if (board->plan.stops)
        stop_victim();
    kill(pids[PARTING_VICTIM], SIGKILL);
    if (waitpid(pids[PARTING_VICTIM], &status, 0) != pids[PARTING_VICTIM] ||
        !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail("the victim had ended before");
    pids[PARTING_VICTIM] = 0;
}

static void run_round(uint32_t round)
{
    plan_round(round);
    start(PARTING_VICTIM, round);
    atomic_store(&board->round, round);
    /* One that stops itself is not looked at before. */
    WAIT(atomic_load(&board->received_bytes) >= board->plan.end_bytes);
    kill_victim();
    atomic_store(&board->dead_round, round);
    WAIT(atomic_load(&board->checked_round) == round);
}

/* --- modes ------------------------------------------------------------------- */

static void board_init(const struct parting_mode *mode)
{
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED) {
        perror("the board");
        exit(EXIT_FAILURE);
    }
    board->mode = *mode;
    board->nonce = tri_random_next(&random_state);
    for (size_t i = 0; i < sizeof(board->key); i++)
        board->key[i] = (unsigned char)tri_random_next(&random_state);
}

static void leave(void)
{
    atomic_store(&board->leave, true);
    for (int i = 0; i < PARTING_VICTIM; i++) {
        uint64_t until_ns = tri_deadline_ns(PARTING_SOON_MS);
        int status = 0;

        while (waitpid(pids[i], &status, WNOHANG) == 0) {
            if (tri_now_ns() > until_ns)
                fail("an end does not end");
            nap();
        }
        pids[i] = 0;
        if (status != 0)
            fail("an end did not end well");
    }
}

static void run_mode(const struct parting_mode *mode, uint32_t rounds)
{
    uint64_t begin_ns = tri_now_ns();
    uint32_t round = 0;

    board_init(mode);
    start(PARTING_SURVIVOR, 0);
    start(PARTING_THIRD, 0);
    while (round < rounds || (atomic_load(&board->partials) == 0 &&
                              round < ROUNDS_TRIED))
        run_round(++round);
    if (atomic_load(&board->partials) == 0)
        fail("no death was in the middle");
    leave();
    printf("%s: %u rounds, %u left a message half received, %u one half sent; "
           "%llu letters too many, %llu round trips meanwhile, %llu ms\n",
           mode->name, round, atomic_load(&board->partials),
           atomic_load(&board->pieces),
           (unsigned long long)atomic_load(&board->letters),
           (unsigned long long)atomic_load(&board->round_trips),
           (unsigned long long)((tri_now_ns() - begin_ns) / TRI_NS_PER_MS));
    munmap(board, sizeof(*board));
}

int main(void)
{
    const char *text = getenv("TROUPE_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : tri_now_ns();
    const char *rounds = getenv("TROUPE_TEST_FAULT_ROUNDS");
    uint32_t n = rounds ? (uint32_t)strtoul(rounds, NULL, 0) : ROUNDS;

    printf("parting: TROUPE_TEST_SEED=%llu\n", (unsigned long long)seed);
    tri_random_init(&random_state, seed);
    for (size_t i = 0; i < tri_array_len(modes); i++)
        run_mode(&modes[i], tri_min(n, PARTING_ROUNDS_MAX));
    return EXIT_SUCCESS;
}
