/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Raw MPI, as a careful program would use it. Ranks 0 and 1 measure; rank 0
 * prints.
 *     mpi ask8 ROUNDS                8 B there and back, blocking
 *     mpi tell BYTES MESSAGES        small, one way, 64 requests in flight
 *     mpi bw BYTES MESSAGES WINDOW   large, out of and into warm buffers
 *     mpi ring8 LAPS                 a token, each hop answered with 8 B
 *     mpi idle MS                    every rank sleeps
 *     mpi allreduce BYTES ROUNDS [multiple]
 *                                    a sum of floats over all ranks; multiple:
 *                                    with MPI_THREAD_MULTIPLE, as troupe asks
 *                                    for it
 */

#include <mpi.h>

#include "../bench.h"

enum { TELL_WINDOW = 64, BW_WINDOW_MAX = 8 };

static int rank, size;

static void ask8(uint64_t rounds)
{
    uint64_t warm = rounds / 10 + 1, word = 0;
    uint32_t *samples = calloc(rounds, sizeof(*samples));
    int64_t before, after;

    if (!samples)
        bench_die("no memory");
    before = bench_now_ns();
    for (uint64_t i = 0; i < warm + rounds; i++) {
        if (rank == 0) {
            MPI_Send(&word, 8, MPI_BYTE, 1, 0, MPI_COMM_WORLD);
            MPI_Recv(&word, 8, MPI_BYTE, 1, 0, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
            after = bench_now_ns();
            if (i >= warm)
                samples[i - warm] = (uint32_t)(after - before);
            before = after;
        } else if (rank == 1) {
            MPI_Recv(&word, 8, MPI_BYTE, 0, 0, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
            MPI_Send(&word, 8, MPI_BYTE, 0, 0, MPI_COMM_WORLD);
        }
    }
    if (rank == 0)
        bench_print_latency(samples, rounds);
    free(samples);
}

/*
 * Sends or receives `messages` through `window` buffers, then rank 1, which
 * reads each page of them, answers that it has them all.
 */
static void stream(char *buffers, size_t bytes, int window, uint64_t messages)
{
    MPI_Request requests[TELL_WINDOW];
    char end = 0;

    for (uint64_t sent = 0; sent < messages; sent += (uint64_t)window) {
        for (int i = 0; i < window; i++) {
            char *buffer = buffers + (size_t)i * bytes;
            if (rank == 0)
                MPI_Isend(buffer, (int)bytes, MPI_BYTE, 1, 0, MPI_COMM_WORLD,
                          &requests[i]);
            else
                MPI_Irecv(buffer, (int)bytes, MPI_BYTE, 0, 0, MPI_COMM_WORLD,
                          &requests[i]);
        }
        MPI_Waitall(window, requests, MPI_STATUSES_IGNORE);
        for (int i = 0; rank == 1 && i < window; i++)
            bench_touch(buffers + (size_t)i * bytes, bytes);
    }
    if (rank == 0)
        MPI_Recv(&end, 1, MPI_BYTE, 1, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    else
        MPI_Send(&end, 1, MPI_BYTE, 0, 1, MPI_COMM_WORLD);
}

/* Messages a second of a timed stream after a warm-up. */
static double stream_rate(size_t bytes, int window, uint64_t messages)
{
    char *buffers = malloc(bytes * (size_t)window);
    uint64_t rounded;
    int64_t began;

    if (!buffers)
        bench_die("no memory");
    memset(buffers, 1, bytes * (size_t)window);
    rounded = (messages + (uint64_t)window - 1) / (uint64_t)window *
              (uint64_t)window;
    stream(buffers, bytes, window, rounded / 10 + 1);
    began = bench_now_ns();
    stream(buffers, bytes, window, rounded);
    free(buffers);
    return (double)rounded / ((double)(bench_now_ns() - began) / 1e9);
}

static void tell(size_t bytes, uint64_t messages)
{
    double rate = 0;

    if (rank < 2)
        rate = stream_rate(bytes, TELL_WINDOW, messages);
    if (rank == 0)
        bench_print(rate / 1e6, "M/s", "rate");
}

static void bw(size_t bytes, uint64_t messages, int window)
{
    double rate = 0;

    if (window > BW_WINDOW_MAX)
        bench_die("the window is too large");
    if (rank < 2)
        rate = stream_rate(bytes, window, messages);
    if (rank == 0)
        bench_print(rate * (double)bytes / 1e9, "GB/s", "bw");
}

/* Rank i asks rank i + 1, which answers and then asks the next one. */
static void ring8(uint64_t laps)
{
    int next = (rank + 1) % size, previous = (rank + size - 1) % size;
    uint64_t warm = laps / 10 + 1, token = 0, answer = 0;
    int64_t began = 0;

    for (uint64_t lap = 0; lap < warm + laps; lap++) {
        if (lap == warm)
            began = bench_now_ns();
        if (rank != 0 || lap > 0) {
            MPI_Recv(&token, 8, MPI_BYTE, previous, 0, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
            MPI_Send(&token, 8, MPI_BYTE, previous, 1, MPI_COMM_WORLD);
        }
        token++;
        MPI_Send(&token, 8, MPI_BYTE, next, 0, MPI_COMM_WORLD);
        MPI_Recv(&answer, 8, MPI_BYTE, next, 1, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    }
    if (rank == 0) { /* the last lap's token comes home */
        MPI_Recv(&token, 8, MPI_BYTE, previous, 0, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
        MPI_Send(&token, 8, MPI_BYTE, previous, 1, MPI_COMM_WORLD);
        bench_print((double)(bench_now_ns() - began) / 1e3 /
                        (double)(laps * (uint64_t)size),
                    "us", "ask");
    }
}

/* Means over the ranks of what one that sleeps costs. */
static void idle(uint64_t ms)
{
    struct timespec pause = { (time_t)(ms / 1000),
                              (long)(ms % 1000) * 1000000 };
    double mine[4], all[4], cpu;
    int64_t began;

    MPI_Barrier(MPI_COMM_WORLD);
    cpu = bench_cpu_seconds();
    began = bench_now_ns();
    while (nanosleep(&pause, &pause) != 0)
        ;
    mine[0] = (bench_cpu_seconds() - cpu) * 1e9 /
              (double)(bench_now_ns() - began) * 100;
    mine[1] = bench_resident_bytes() / 1048576;
    mine[2] = bench_proc_entries("fd");
    mine[3] = bench_proc_entries("task");
    MPI_Reduce(mine, all, 4, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank != 0)
        return;
    bench_print(all[0] / size, "%", "cpu");
    bench_print(all[1] / size, "MiB", "rss");
    bench_print(all[2] / size, "fds", "fds");
    bench_print(all[3] / size, "threads", "threads");
}

static void allreduce(size_t bytes, uint64_t rounds)
{
    uint64_t warm = rounds / 10 + 1;
    int count = (int)(bytes / sizeof(float));
    float *in = malloc(bytes), *out = malloc(bytes);
    int64_t began = 0;

    if (!in || !out)
        bench_die("no memory");
    for (int i = 0; i < count; i++)
        in[i] = (float)(i % 1000), out[i] = 0;
    for (uint64_t i = 0; i < warm + rounds; i++) {
        if (i == warm)
            began = bench_now_ns();
        MPI_Allreduce(in, out, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    }
    if (rank == 0)
        bench_print((double)(bench_now_ns() - began) / 1e3 / (double)rounds,
                    "us", "time");
    free(in);
    free(out);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    int multiple = argc > 4 && strcmp(argv[4], "multiple") == 0;
    int level = multiple ? MPI_THREAD_MULTIPLE : MPI_THREAD_SINGLE;

    bench_watchdog();
    MPI_Init_thread(&argc, &argv, level, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size < 2)
        bench_die("needs two ranks");
    if (strcmp(what, "ask8") == 0)
        ask8(bench_number(argc, argv, 2));
    else if (strcmp(what, "tell") == 0)
        tell(bench_number(argc, argv, 2), bench_number(argc, argv, 3));
    else if (strcmp(what, "bw") == 0)
        bw(bench_number(argc, argv, 2), bench_number(argc, argv, 3),
           (int)bench_number(argc, argv, 4));
    else if (strcmp(what, "ring8") == 0)
        ring8(bench_number(argc, argv, 2));
    else if (strcmp(what, "idle") == 0)
        idle(bench_number(argc, argv, 2));
    else if (strcmp(what, "allreduce") == 0)
        allreduce(bench_number(argc, argv, 2), bench_number(argc, argv, 3));
    else
        bench_die("usage: mpi ask8|tell|bw|ring8|idle|allreduce …");
    MPI_Finalize();
    return 0;
}
