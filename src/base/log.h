/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_LOG_H
#define TRI_LOG_H

/*
 * The log: one line a call on stderr, "troupe: rank 3: warn: text". The first
 * function that knows the cause of an error logs it; others pass the code on.
 * Levels are ordered; a level prints itself and those before it.
 */
enum tri_log_level {
    TRI_LOG_ERROR,
    TRI_LOG_WARN,
    TRI_LOG_INFO,
    TRI_LOG_DEBUG,
};

extern enum tri_log_level tri_log_level;

/* Sets the level and the rank shown (-1: none). Before threads start. */
void tri_log_init(enum tri_log_level level, int rank);

void tri_log_write(enum tri_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define tri_log(level, ...)                                                   \
    do {                                                                      \
        if ((level) <= tri_log_level)                                         \
            tri_log_write(level, __VA_ARGS__);                                \
    } while (0)
#define tri_error(...) tri_log(TRI_LOG_ERROR, __VA_ARGS__)
#define tri_warn(...) tri_log(TRI_LOG_WARN, __VA_ARGS__)
#define tri_info(...) tri_log(TRI_LOG_INFO, __VA_ARGS__)
#define tri_debug(...) tri_log(TRI_LOG_DEBUG, __VA_ARGS__)

#endif
