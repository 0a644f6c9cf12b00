/* SPDX-License-Identifier: BSD-3-Clause */
#include "flood.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed_choose(const char *test)
{
    const char *text = getenv("TROUPE_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : tri_now_ns();

    printf("%s: TROUPE_TEST_SEED=%llu\n", test, (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

struct flood_board *flood_board_create(const char *test, unsigned seats_len)
{
    struct flood_board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (board == MAP_FAILED || seats_len > FLOOD_SEATS_MAX) {
        perror("the board");
        exit(EXIT_FAILURE);
    }
    board->seats_len = seats_len;
    board->seed = seed_choose(test);
    board->nonce = tri_mix64(board->seed);
    for (size_t i = 0; i < sizeof(board->key); i++)
        board->key[i] = (unsigned char)tri_mix64(board->nonce + i);
    return board;
}

void flood_board_destroy(struct flood_board **board)
{
    munmap(*board, sizeof(**board));
    *board = NULL;
}

unsigned flood_rounds(unsigned usual)
{
    const char *text = getenv("TROUPE_TEST_FAULT_ROUNDS");

    return text ? (unsigned)strtoul(text, NULL, 0) : usual;
}

void flood_start(struct flood_board *board, unsigned seat,
                 const struct flood_options *options)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid < 0)
        flood_fail(board, "fork failed");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(EXIT_FAILURE);
        flood_end_run(board, seat, options);
    }
    board->seats[seat].pid = pid;
    board->seats[seat].is_reaped = false;
}

void flood_kill(struct flood_board *board, unsigned seat, int signal)
{
    struct flood_seat *its = &board->seats[seat];

    if (kill(its->pid, signal) != 0)
        flood_fail(board, "kill failed");
    if (signal != SIGKILL)
        return;
    its->may_die = true;
    waitpid(its->pid, NULL, 0);
    its->is_reaped = true;
}

void flood_connect(struct flood_board *board, unsigned a, unsigned b)
{
    board->addresses[a][b] = board->seats[b].address;
    board->addresses[b][a] = board->seats[a].address;
    atomic_store(&board->ways[a][b], FLOOD_WAY_OPEN);
    atomic_store(&board->ways[b][a], FLOOD_WAY_OPEN);
}

/* The provider's address is the last part of ours. */
static const unsigned char *address_part(const struct tri_address *address)
{
    size_t header_bytes = address->bytes - sizeof(struct sockaddr_in);

    if (address->bytes < sizeof(struct sockaddr_in)) {
        fprintf(stderr, "the fabric's address is too short\n");
        exit(EXIT_FAILURE);
    }
    return address->data + header_bytes;
}

void flood_address_get(const struct tri_address *address,
                       struct sockaddr_in *in_p)
{
    memcpy(in_p, address_part(address), sizeof(*in_p));
    if (in_p->sin_family != AF_INET) {
        fprintf(stderr, "the fabric's address is not IPv4\n");
        exit(EXIT_FAILURE);
    }
}

void flood_address_set(struct tri_address *address,
                       const struct sockaddr_in *in)
{
    memcpy((void *)(uintptr_t)address_part(address), in, sizeof(*in));
}

uint64_t flood_received(const struct flood_board *board, unsigned seat)
{
    uint64_t sum = 0;

    for (int lane = 0; lane < TRI_LANES; lane++)
        sum += atomic_load(&board->seats[seat].received[lane]);
    return sum;
}

uint64_t flood_garbage(const struct flood_board *board, unsigned seat,
                       const char *text)
{
    const struct flood_seat *its = &board->seats[seat];
    uint64_t sum = 0;

    for (int i = 0; i < FLOOD_REASONS_MAX; i++)
        if (strstr(its->reasons[i].text, text))
            sum += its->reasons[i].count;
    return sum;
}

void flood_print(const struct flood_board *board)
{
    for (unsigned i = 0; i < board->seats_len; i++) {
        const struct flood_seat *seat = &board->seats[i];

        if (seat->pid == 0)
            continue;
        printf(
            "end %u: sent %llu+%llu+%llu, received %llu+%llu+%llu, "
            "lost %llu, repeated %llu, wrong %llu, refused %llu, "
            "%llu MiB%s\n",
            i, (unsigned long long)seat->sent[0],
            (unsigned long long)seat->sent[1],
            (unsigned long long)seat->sent[2],
            (unsigned long long)seat->received[0],
            (unsigned long long)seat->received[1],
            (unsigned long long)seat->received[2],
            (unsigned long long)seat->lost, (unsigned long long)seat->repeated,
            (unsigned long long)seat->wrong, (unsigned long long)seat->refused,
            (unsigned long long)seat->resident_kib / 1024,
            seat->is_done ? ", done" : "");
        for (int k = 0; k < FLOOD_REASONS_MAX && seat->reasons[k].count; k++)
            printf("end %u: garbage %llu times: %s\n", i,
                   (unsigned long long)seat->reasons[k].count,
                   seat->reasons[k].text);
    }
    fflush(stdout);
}

void flood_fail(struct flood_board *board, const char *format, ...)
{
    va_list args;

    flood_print(board);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    for (unsigned i = 0; i < board->seats_len; i++)
        if (board->seats[i].pid > 0 && !board->seats[i].is_reaped) {
            kill(board->seats[i].pid, SIGKILL);
            waitpid(board->seats[i].pid, NULL, 0);
        }
    exit(EXIT_FAILURE);
}

void flood_check(struct flood_board *board)
{
    for (unsigned i = 0; i < board->seats_len; i++) {
        struct flood_seat *seat = &board->seats[i];
        int status;

        if (seat->pid == 0 || seat->is_reaped)
            continue;
        if (waitpid(seat->pid, &status, WNOHANG) == seat->pid) {
            seat->is_reaped = true;
            flood_fail(board, "end %u has died: %s %d", i,
                       WIFSIGNALED(status) ? "signal" : "status",
                       WIFSIGNALED(status) ? WTERMSIG(status)
                                           : WEXITSTATUS(status));
        }
        if (seat->lost || seat->repeated || seat->wrong || seat->refused)
            flood_fail(board, "end %u has found a fault", i);
    }
}

bool flood_all_open(const struct flood_board *board)
{
    for (unsigned i = 0; i < board->seats_len; i++)
        if (board->seats[i].pid != 0 && !board->seats[i].is_reaped &&
            !atomic_load(&board->seats[i].is_open))
            return false;
    return true;
}

bool flood_all_done(const struct flood_board *board)
{
    for (unsigned i = 0; i < board->seats_len; i++)
        if (board->seats[i].pid != 0 && !board->seats[i].is_reaped &&
            !atomic_load(&board->seats[i].is_done))
            return false;
    return true;
}

void flood_leave(struct flood_board *board)
{
    atomic_store(&board->phase, FLOOD_LEAVE);
    for (unsigned i = 0; i < board->seats_len; i++) {
        struct flood_seat *seat = &board->seats[i];
        uint64_t until = tri_deadline_ns(FLOOD_SOON_MS);
        int status = 0;

        if (seat->pid == 0 || seat->is_reaped)
            continue;
        while (waitpid(seat->pid, &status, WNOHANG) == 0) {
            if (tri_now_ns() > until)
                flood_fail(board, "end %u does not end", i);
            flood_nap();
        }
        seat->is_reaped = true;
        if (status != 0)
            flood_fail(board, "end %u ended with %#x", i, status);
    }
}

void flood_nap(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}
