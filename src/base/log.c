/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define LINE_BYTES_MAX 512

enum tri_log_level tri_log_level = TRI_LOG_WARN;
static int log_rank = -1;

static const char *const level_names[] = { "error", "warn", "info", "debug" };

void tri_log_init(enum tri_log_level level, int rank)
{
    tri_log_level = level;
    log_rank = rank;
}

/* One write(2) a line, so that lines of different ranks do not mix. */
void tri_log_write(enum tri_log_level level, const char *format, ...)
{
    char line[LINE_BYTES_MAX];
    va_list args;
    int n;

    if (log_rank >= 0)
        n = snprintf(line, sizeof(line), "troupe: rank %d: %s: ", log_rank,
                     level_names[level]);
    else
        n = snprintf(line, sizeof(line), "troupe: %s: ", level_names[level]);
    va_start(args, format);
    n += vsnprintf(line + n, sizeof(line) - (size_t)n, format, args);
    va_end(args);
    if ((size_t)n > sizeof(line) - 2)
        n = (int)sizeof(line) - 2;
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nobody left to tell */
}
