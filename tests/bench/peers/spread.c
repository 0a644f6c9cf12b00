/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Every rank sends to every other, in MPI as a careful program would do it.
 * How many is for each rank; rank 0 prints the rate of all of them together.
 *     spread histogram UPDATES PER_BUFFER
 *             random 8 B updates of all ranks' tables. Our own are done at
 *             once, others' gathered for each rank in buffers of PER_BUFFER,
 *             which are sent without blocking, four for each rank in flight,
 *             into four receives for each rank that are posted ahead.
 *     spread fan MESSAGES
 *             64 B to the other ranks in turn, about 64 requests in flight
 *     spread alltoall MESSAGES
 *             the same number by MPI_Alltoall, 64 B to each rank a call
 */

#include <mpi.h>

#include "../bench.h"

enum {
    RANKS_MAX = 64,
    TABLE_BITS = 20, /* 8 MiB of counters a rank */
    DEPTH = 4,       /* buffers a rank, each way */
    FAN_BYTES = 64,
    FAN_WINDOW = 64,
};

static int rank, size;

/* --- histogram ----------------------------------------------------------- */

struct way { /* to one rank and from it */
    uint64_t *out[DEPTH], *in[DEPTH];
    MPI_Request sends[DEPTH], receives[DEPTH];
    int filling, taking; /* which of the DEPTH */
    int len;             /* updates in the buffer that fills */
    int ended;           /* it has sent its last one, an empty one */
};

static struct way ways[RANKS_MAX];
static uint64_t *counters, updates_seen;
static int per_buffer;

static void receive_post(int from, int i)
{
    MPI_Irecv(ways[from].in[i], per_buffer, MPI_UINT64_T, from, 0,
              MPI_COMM_WORLD, &ways[from].receives[i]);
}

static void apply(const uint64_t *indexes, int len)
{
    for (int i = 0; i < len; i++)
        counters[indexes[i]]++;
    updates_seen += (uint64_t)len;
}

/* Takes all that has arrived, in order, from each rank. */
static void receive(void)
{
    MPI_Status status;
    int arrived, len;

    for (int from = 0; from < size; from++) {
        struct way *way = &ways[from];

        while (from != rank && !way->ended) {
            MPI_Test(&way->receives[way->taking], &arrived, &status);
            if (!arrived)
                break;
            MPI_Get_count(&status, MPI_UINT64_T, &len);
            apply(way->in[way->taking], len);
            way->ended = len == 0;
            if (!way->ended)
                receive_post(from, way->taking);
            way->taking = (way->taking + 1) % DEPTH;
        }
    }
}

/* Sends the buffer that fills and gets a free one, receiving meanwhile. */
static void flush(int to)
{
    struct way *way = &ways[to];
    int is_free = 0;

    MPI_Isend(way->out[way->filling], way->len, MPI_UINT64_T, to, 0,
              MPI_COMM_WORLD, &way->sends[way->filling]);
    way->filling = (way->filling + 1) % DEPTH;
    way->len = 0;
    for (;;) {
        MPI_Test(&way->sends[way->filling], &is_free, MPI_STATUS_IGNORE);
        receive();
        if (is_free)
            return;
    }
}

static int all_ended(void)
{
    for (int from = 0; from < size; from++)
        if (from != rank && !ways[from].ended)
            return 0;
    return 1;
}

/* An empty buffer ends a way; receives that are left are taken back. */
static void finish(void)
{
    for (int to = 0; to < size; to++) {
        if (to == rank)
            continue;
        if (ways[to].len > 0)
            flush(to);
        flush(to);
    }
    while (!all_ended())
        receive();
    for (int to = 0; to < size; to++) {
        if (to == rank)
            continue;
        MPI_Waitall(DEPTH, ways[to].sends, MPI_STATUSES_IGNORE);
        for (int i = 0; i < DEPTH; i++)
            if (ways[to].receives[i] != MPI_REQUEST_NULL) {
                MPI_Cancel(&ways[to].receives[i]);
                MPI_Wait(&ways[to].receives[i], MPI_STATUS_IGNORE);
            }
    }
}

static void begin(void)
{
    for (int to = 0; to < size; to++) {
        ways[to].filling = ways[to].taking = ways[to].len = 0;
        ways[to].ended = 0;
        for (int i = 0; i < DEPTH && to != rank; i++) {
            ways[to].sends[i] = MPI_REQUEST_NULL;
            receive_post(to, i);
        }
    }
    MPI_Barrier(MPI_COMM_WORLD); /* all receives are posted */
}

static void histogram(uint64_t updates)
{
    uint64_t random = 88172645463325252u + (uint64_t)rank, index;
    int owner;

    begin();
    for (uint64_t i = 0; i < updates; i++) {
        random = bench_random(random);
        index = random & ((1u << TABLE_BITS) - 1);
        owner = bench_pick(random, size);
        if (owner == rank) {
            counters[index]++;
            updates_seen++;
            continue;
        }
        ways[owner].out[ways[owner].filling][ways[owner].len++] = index;
        if (ways[owner].len == per_buffer)
            flush(owner);
    }
    finish();
}

static void histogram_open(void)
{
    size_t bytes = (size_t)per_buffer * sizeof(uint64_t);

    counters = malloc(sizeof(*counters) << TABLE_BITS);
    if (!counters)
        bench_die("no memory");
    memset(counters, 0, sizeof(*counters) << TABLE_BITS);
    for (int to = 0; to < size; to++)
        for (int i = 0; i < DEPTH; i++) {
            ways[to].out[i] = malloc(bytes);
            ways[to].in[i] = malloc(bytes);
            if (!ways[to].out[i] || !ways[to].in[i])
                bench_die("no memory");
        }
}

static void histogram_close(uint64_t updates)
{
    uint64_t all = 0;

    MPI_Reduce(&updates_seen, &all, 1, MPI_UINT64_T, MPI_SUM, 0,
               MPI_COMM_WORLD);
    if (rank == 0 && all != updates * (uint64_t)size)
        bench_die("updates are missing");
    free(counters);
    for (int to = 0; to < size; to++)
        for (int i = 0; i < DEPTH; i++) {
            free(ways[to].out[i]);
            free(ways[to].in[i]);
        }
}

/* --- fan ----------------------------------------------------------------- */

/* As many messages a peer at once as fill the window, all ways together. */
static void fan(uint64_t messages)
{
    static char out[FAN_BYTES], in[FAN_WINDOW][FAN_BYTES];
    MPI_Request requests[2 * FAN_WINDOW];
    int peers = size - 1, rounds = FAN_WINDOW / peers, to, n;

    for (uint64_t sent = 0; sent < messages;
         sent += (uint64_t)(rounds * peers)) {
        n = 0;
        for (int i = 0; i < rounds * peers; i++) {
            to = (rank + 1 + i % peers) % size;
            MPI_Irecv(in[i], FAN_BYTES, MPI_BYTE, to, 0, MPI_COMM_WORLD,
                      &requests[n++]);
        }
        for (int i = 0; i < rounds * peers; i++) {
            to = (rank + 1 + i % peers) % size;
            MPI_Isend(out, FAN_BYTES, MPI_BYTE, to, 0, MPI_COMM_WORLD,
                      &requests[n++]);
        }
        MPI_Waitall(n, requests, MPI_STATUSES_IGNORE);
        bench_touch(in, sizeof(in));
    }
}

static void alltoall(uint64_t messages)
{
    static char out[RANKS_MAX * FAN_BYTES], in[RANKS_MAX * FAN_BYTES];

    for (uint64_t sent = 0; sent < messages; sent += (uint64_t)size - 1) {
        MPI_Alltoall(out, FAN_BYTES, MPI_BYTE, in, FAN_BYTES, MPI_BYTE,
                     MPI_COMM_WORLD);
        bench_touch(in, sizeof(in));
    }
}

/* --- all ----------------------------------------------------------------- */

static void measure(void (*work)(uint64_t), uint64_t messages)
{
    int64_t began;

    work(messages / 10 + 1);
    MPI_Barrier(MPI_COMM_WORLD);
    began = bench_now_ns();
    work(messages);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0)
        bench_print((double)messages * (double)size * 1e3 /
                        (double)(bench_now_ns() - began),
                    "M/s", "rate");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    uint64_t n = bench_number(argc, argv, 2), sent, in_a_window;

    bench_watchdog();
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size < 2 || size > RANKS_MAX)
        bench_die("needs 2 to 64 ranks");
    if (strcmp(what, "histogram") == 0) {
        per_buffer = (int)bench_number(argc, argv, 3);
        histogram_open();
        measure(histogram, n);
        histogram_close(n + n / 10 + 1);
    } else if (strcmp(what, "fan") == 0) {
        in_a_window = (uint64_t)(FAN_WINDOW / (size - 1) * (size - 1));
        sent = (n + in_a_window - 1) / in_a_window * in_a_window;
        measure(fan, sent);
    } else if (strcmp(what, "alltoall") == 0) {
        in_a_window = (uint64_t)size - 1;
        sent = (n + in_a_window - 1) / in_a_window * in_a_window;
        measure(alltoall, sent);
    } else {
        bench_die("usage: spread histogram|fan|alltoall N …");
    }
    MPI_Finalize();
    return 0;
}
