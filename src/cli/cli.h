/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CLI_H
#define TRI_CLI_H

#include <stdbool.h>
#include <stdio.h>

/* The command `troupe`: each takes its arguments behind its own name and
 * returns the exit status. */

int cli_run(int argc, char **argv);
int cli_add(int argc, char **argv);
int cli_ps(int argc, char **argv);
int cli_drain(int argc, char **argv);

/* Exit statuses beside 0. */
enum {
    CLI_FAILED = 1,     /* the job did not report success */
    CLI_USAGE = 2,
    CLI_NOT_STARTED = 3, /* mpirun could not be started, or no node was */
    CLI_ENDED = 4,      /* the launcher had to end it */
    CLI_NOT_EXECUTABLE = 126, /* the program, as shells have it */
    CLI_NOT_FOUND = 127,
};

/* Prints "troupe: ...", a newline behind it. Returns CLI_USAGE. */
int cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Whether the first argument asks for it. */
bool cli_wants_help(int argc, char **argv);

/* Prints how a command is used: 0 to stdout, else CLI_USAGE. */
int cli_usage(FILE *stream, const char *text);

#endif
