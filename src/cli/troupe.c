/* SPDX-License-Identifier: BSD-3-Clause */

/* The command `troupe`. */

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <troupe.h>

#include "cli/cli.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};

static int cli_version(int argc, char **argv)
{
    (void)argc, (void)argv;
    printf("troupe %s\n", troupe_version());
    return 0;
}

static int cli_options(int argc, char **argv)
{
    (void)argc, (void)argv;
    troupe_options_help(stdout);
    return 0;
}

static int cli_help(int argc, char **argv);

static const struct command commands[] = {
    { "run", cli_run, "run an MPI job that survives deaths; a truthful status" },
    { "add", cli_add, "add processes to a job that runs here" },
    { "ps", cli_ps, "list the nodes of a job" },
    { "drain", cli_drain, "ask a node of a job to leave" },
    { "options", cli_options, "print the options of a node" },
    { "version", cli_version, "print the version" },
    { "help", cli_help, "print this" },
    { NULL, NULL, NULL },
};

static int cli_help(int argc, char **argv)
{
    (void)argc, (void)argv;
    puts("usage: troupe COMMAND ...\n");
    for (const struct command *command = commands; command->name != NULL;
         command++)
        printf("  %-8s %s\n", command->name, command->help);
    puts("\ntroupe COMMAND --help says more.");
    return 0;
}

int cli_error(const char *format, ...)
{
    va_list args;

    fputs("troupe: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return CLI_USAGE;
}

bool cli_wants_help(int argc, char **argv)
{
    return argc > 1 &&
           (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
}

int cli_usage(FILE *stream, const char *text)
{
    fputs(text, stream);
    return stream == stdout ? 0 : CLI_USAGE;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";

    /* Who ignores it when it starts us passes that on: then nobody could wait
     * for a child. */
    signal(SIGCHLD, SIG_DFL);
    while (*name == '-')
        name++; /* --help, --version */
    for (const struct command *command = commands; command->name != NULL;
         command++)
        if (strcmp(command->name, name) == 0)
            return command->run(argc - 1, argv + 1);
    return cli_error("there is no command %s; see troupe help", name);
}
