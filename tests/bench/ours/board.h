/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_BENCH_BOARD_H
#define TROUPE_BENCH_BOARD_H

/*
 * A piece of memory that all processes of a measurement see, wherever mpirun
 * or a network namespace has put them on this machine, and the programs that a
 * measurement starts. Times on it are CLOCK_MONOTONIC's, one for all.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "ours.h"

enum { BOARD_WAIT_MS = 60000 };

#define BOARD_VARIABLE "BENCH_BOARD"

extern char **environ;

static char board_path[4096];

static inline void *board_map(int fd, size_t bytes)
{
    void *board = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (board == MAP_FAILED)
        bench_die("mmap");
    close(fd);
    return board;
}

static inline void board_unlink(void)
{
    unlink(board_path);
}

/* In who starts the others: a new one, all zero; it goes with the process. */
static inline void *board_create(size_t bytes)
{
    const char *folder = getenv("TMPDIR");
    int fd;

    snprintf(board_path, sizeof(board_path), "%s/troupe-bench-XXXXXX",
             folder ? folder : "/tmp");
    fd = mkstemp(board_path);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)
        bench_die("no file to share");
    atexit(board_unlink);
    setenv(BOARD_VARIABLE, board_path, 1);
    return board_map(fd, bytes);
}

/* In the others. */
static inline void *board_open(size_t bytes)
{
    const char *path = getenv(BOARD_VARIABLE);
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
        bench_die("not started by a measurement");
    return board_map(fd, bytes);
}

static inline pid_t board_spawn(char **arguments)
{
    pid_t pid;
    int rc = posix_spawnp(&pid, arguments[0], NULL, NULL, arguments, environ);

    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", arguments[0], strerror(rc));
        exit(1);
    }
    return pid;
}

/* Ends the program when the process failed; `killed`: by us. */
static inline void board_reap(pid_t pid, int killed)
{
    int status;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!killed && status != 0)
        bench_die("a process of the measurement failed");
}

/* Looks every half millisecond until is_done(arg). */
static inline void board_await(int (*is_done)(void *arg), void *arg,
                               const char *what)
{
    int64_t end_ns = bench_now_ns() + (int64_t)BOARD_WAIT_MS * 1000000;

    while (!is_done(arg)) {
        if (bench_now_ns() > end_ns)
            bench_die(what);
        usleep(500);
    }
}

/* A UDP port of the loopback interface that nobody has now. */
static inline int board_free_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (void *)&address, sizeof(address)) != 0 ||
        getsockname(fd, (void *)&address, &len) != 0)
        bench_die("no port");
    close(fd);
    return ntohs(address.sin_port);
}

/* A key for whoever joins; the file goes with the process. */
static char board_key_path[4096];

static inline void board_unlink_key(void)
{
    unlink(board_key_path);
}

static inline const char *board_key_file(void)
{
    int fd;

    snprintf(board_key_path, sizeof(board_key_path), "%.4000s.key-XXXXXX",
             board_path);
    fd = mkstemp(board_key_path); /* for its owner alone */
    if (fd < 0)
        bench_die("no key file");
    atexit(board_unlink_key);
    for (unsigned i = 0; i < 32; i++)
        dprintf(fd, "%02x", (unsigned)(bench_now_ns() >> i) & 255);
    close(fd);
    return board_key_path;
}

#endif
