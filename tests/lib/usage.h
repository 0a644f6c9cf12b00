/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_LIB_USAGE_H
#define TESTS_LIB_USAGE_H

/* What the kernel says that this process has, for tests that look for leaks.
 * What cannot be read ends the program. */

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Sanitizers keep what was freed, and their own books. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { USAGE_RESIDENT_COUNTS = 0 };
#else
enum { USAGE_RESIDENT_COUNTS = 1 };
#endif

/* Entries of "/proc/self/fd" or "/proc/self/task", and always the same few
 * more. */
static inline uint32_t usage_entries(const char *path)
{
    DIR *dir = opendir(path);
    uint32_t len = 0;

    if (dir == NULL) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    while (readdir(dir) != NULL)
        len++;
    closedir(dir);
    return len;
}

static inline long usage_resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long total, pages;

    if (file == NULL || fscanf(file, "%ld %ld", &total, &pages) != 2) {
        fprintf(stderr, "no /proc/self/statm\n");
        exit(EXIT_FAILURE);
    }
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

#endif
