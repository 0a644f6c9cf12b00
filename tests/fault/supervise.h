/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FAULT_SUPERVISE_H
#define TESTS_FAULT_SUPERVISE_H

/*
 * A rank as a child of the process that mpirun started, which sees how it ends:
 * mpirun under recovery reports success whatever happens.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"

/*
 * Runs the rank to its end; before MPI is initialized. text, of bytes: takes
 * the beginning of what it writes to stderr, which is shown as well; NULL: not
 * wanted. Returns what waitpid says.
 */
static inline int supervise(int (*rank)(void), char *text, size_t bytes)
{
    int pipes[2] = { -1, -1 }, status = -1;
    size_t len = 0;
    ssize_t got;
    char part[512];
    pid_t child;

    if (text != NULL && pipe(pipes) != 0)
        return -1;
    child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (text != NULL)
            dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        exit(rank());
    }
    close(pipes[1]);
    while (text != NULL && (got = read(pipes[0], part, sizeof(part))) > 0) {
        size_t taken = tri_min((size_t)got, bytes - 1 - len);

        memcpy(text + len, part, taken);
        len += taken;
        (void)!write(STDERR_FILENO, part, (size_t)got);
    }
    close(pipes[0]);
    if (text != NULL)
        text[len] = '\0';
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

static inline int was_killed(int status)
{
    return status != -1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static inline int has_ended_with(int status, int code)
{
    return status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == code;
}

/* The process that mpirun started ends: as it likes to see it. */
static inline int supervise_end(int is_good)
{
    if (is_good)
        return EXIT_SUCCESS;
    kill(getppid(), SIGTERM);
    return EXIT_FAILURE;
}

#endif
