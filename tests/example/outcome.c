/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For tests/example/run_status: a node that ends in the way it is told to.
 *     wait FILE   well, when there is such a file; by SIGUSR1, alone
 *     fail        with exit status 1
 *     die         by SIGKILL
 *     fork        by SIGKILL, after a child of its own has ended well
 *     linger      never, behind its troupe_stop
 *     twice       well, after a second node in the same process
 *     stay        never, whatever SIGUSR1 asks
 *     vanish      by _exit, behind its troupe_stop
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <troupe.h>

static volatile sig_atomic_t was_asked;

static void on_signal(int number)
{
    (void)number;
    was_asked = 1;
}

static void must(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "outcome: %s: %s\n", what, troupe_strerror(rc));
    exit(2);
}

static void wait_for(troupe_t *troupe, const char *file)
{
    while (!was_asked && access(file, F_OK) != 0)
        troupe_serve(troupe, 20);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    troupe_t *troupe;

    signal(SIGUSR1, on_signal);
    must(troupe_start(&troupe, NULL), "start");
    if (strcmp(how, "wait") == 0 && argc > 2)
        wait_for(troupe, argv[2]);
    if (strcmp(how, "stay") == 0) {
        signal(SIGUSR1, SIG_IGN);
        for (;;)
            troupe_serve(troupe, 20);
    }
    if (strcmp(how, "fork") == 0) {
        pid_t child = fork();

        if (child == 0)
            exit(0);
        waitpid(child, NULL, 0);
    }
    if (strcmp(how, "die") == 0 || strcmp(how, "fork") == 0)
        raise(SIGKILL);
    must(was_asked ? troupe_leave(&troupe) : troupe_stop(&troupe), "stop");
    if (strcmp(how, "linger") == 0) {
        signal(SIGTERM, SIG_IGN);
        for (;;)
            pause();
    }
    if (strcmp(how, "vanish") == 0)
        _exit(0);
    if (strcmp(how, "twice") == 0) {
        must(troupe_start(&troupe, NULL), "start again");
        must(troupe_stop(&troupe), "stop again");
    }
    return strcmp(how, "fail") == 0;
}
