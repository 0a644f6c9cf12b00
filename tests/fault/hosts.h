/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FAULT_HOSTS_H
#define TESTS_FAULT_HOSTS_H

/* For programs that run on the hosts that tests/lib/hosts makes: its commands,
 * from any rank or from outside the hosts. */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static inline FILE *hosts_open(const char *format, va_list args)
{
    const char *tool = getenv("TEST_HOSTS");
    char command[1024];
    int used;

    if (!tool) {
        fprintf(stderr, "not run by tests/lib/hosts\n");
        exit(EXIT_FAILURE);
    }
    used = snprintf(command, sizeof(command), "'%s' ", tool);
    vsnprintf(command + used, sizeof(command) - (size_t)used, format, args);
    return popen(command, "r");
}

/* Runs a command of the tool ("cut 2"). True: it succeeded. */
static inline int hosts_run(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

static inline int hosts_run(const char *format, ...)
{
    FILE *stream;
    va_list args;
    int c;

    va_start(args, format);
    stream = hosts_open(format, args);
    va_end(args);
    while (stream && (c = getc(stream)) != EOF)
        putchar(c);
    return stream && pclose(stream) == 0;
}

/* Cuts the hosts before `kept` off from the others, up to `len`. True: it
 * succeeded. */
static inline int hosts_part(int kept, int len)
{
    int good = 1;

    for (int i = kept; i < len; i++)
        for (int k = 0; k < kept; k++)
            good &= hosts_run("cut %d %d", i, k);
    return good;
}

/* The number that a command prints ("complaints 1"); -1: it failed. */
static inline long hosts_number(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

static inline long hosts_number(const char *format, ...)
{
    FILE *stream;
    va_list args;
    long number;

    va_start(args, format);
    stream = hosts_open(format, args);
    va_end(args);
    if (!stream || fscanf(stream, "%ld", &number) != 1)
        number = -1;
    return stream && pclose(stream) == 0 ? number : -1;
}

#endif
