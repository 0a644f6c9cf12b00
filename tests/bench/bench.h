/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_BENCH_H
#define TROUPE_BENCH_H

/*
 * What the measured C and C++ programs share: a clock, a watchdog, the lines
 * they print, and what the kernel says of this process.
 *
 * A program prints one line a figure, "value unit" or "value unit metric",
 * and nothing else on standard output.
 */

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static inline int64_t bench_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/*
 * Ends the process when it outlives its limit. The runner ends it too, but a
 * rank under mpirun must also go when the runner itself was killed.
 */
static inline void bench_watchdog(void)
{
    const char *limit_s = getenv("BENCH_LIMIT_S");

    alarm(limit_s ? (unsigned)atoi(limit_s) : 120);
}

__attribute__((noreturn)) static inline void bench_die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* The positive number that argument `i` is; anything else ends the program. */
static inline uint64_t bench_number(int argc, char **argv, int i)
{
    char *end;
    unsigned long long number;

    if (i >= argc)
        bench_die("too few arguments");
    number = strtoull(argv[i], &end, 10);
    if (*end || number == 0)
        bench_die("an argument is not a positive number");
    return number;
}

static inline void bench_print(double value, const char *unit,
                               const char *metric)
{
    printf("%.6g %s %s\n", value, unit, metric);
    fflush(stdout);
}

static inline int bench_compare_(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Prints p50 and p99 of round trips in ns, as us. Sorts them. */
static inline void bench_print_latency(uint32_t *samples_ns, size_t len)
{
    qsort(samples_ns, len, sizeof(*samples_ns), bench_compare_);
    bench_print(samples_ns[len / 2] / 1e3, "us", "p50");
    bench_print(samples_ns[len - 1 - len / 100] / 1e3, "us", "p99");
}

/* The number after this one: cheap, and the same sequence everywhere. */
static inline uint64_t bench_random(uint64_t number)
{
    number ^= number << 13;
    number ^= number >> 7;
    return number ^ number << 17;
}

/* One of `len`, by the upper half of a random number. */
static inline int bench_pick(uint64_t random, int len)
{
    return (int)((random >> 32) * (uint64_t)len >> 32);
}

/* Reads a byte of each page: what arrived is really there. */
static inline void bench_touch(const void *bytes, size_t len)
{
    const volatile unsigned char *byte =
        (const volatile unsigned char *)bytes; /* C++ reads this, too */

    for (size_t i = 0; i < len; i += 4096)
        (void)byte[i];
}

/* Resident memory of this process. */
static inline double bench_resident_bytes(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    if (!file || fscanf(file, "%*s %ld", &pages) != 1)
        bench_die("no /proc/self/statm");
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

/* Processor time of all threads of this process. */
static inline double bench_cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Entries of a folder of /proc/self: "fd" or "task". */
static inline double bench_proc_entries(const char *folder)
{
    char path[64];
    struct dirent *entry;
    double entries = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/self/%s", folder);
    dir = opendir(path);
    if (!dir)
        bench_die("no /proc/self");
    while ((entry = readdir(dir)))
        entries += entry->d_name[0] != '.';
    closedir(dir);
    return strcmp(folder, "fd") == 0 ? entries - 1 : entries; /* ours */
}

#endif
