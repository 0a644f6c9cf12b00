/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What a rank costs whose main waits in troupe while nothing happens. Rank 0
 * has talked to every other rank before; means over the ranks.
 *     idle MS
 */

#include "ours.h"

#define meter_messages(TELL, ASK)                                             \
    ASK(meter, begin, (), ())                                                 \
    ASK(meter, read, (),                                                      \
        (double cpu_percent; double resident_bytes; double fds;               \
         double threads;))                                                    \
    TELL(meter, end, ())
TROUPE_PROTOCOL(meter)

enum { RANKS_MAX = 256 };

struct meter {
    double cpu_s;
    int64_t began;
};

static bench_flag_t done;

static int on_begin(troupe_self_t *self, struct meter *meter,
                    const meter_begin_t *m)
{
    (void)m;
    meter->cpu_s = bench_cpu_seconds();
    meter->began = bench_now_ns();
    return meter_begin_reply(self, (meter_begin_result_t){});
}

static int on_read(troupe_self_t *self, struct meter *meter,
                   const meter_read_t *m)
{
    double wall_s = (double)(bench_now_ns() - meter->began) / 1e9;

    (void)m;
    return meter_read_reply(
        self, (meter_read_result_t){
                  .cpu_percent =
                      (bench_cpu_seconds() - meter->cpu_s) / wall_s * 100,
                  .resident_bytes = bench_resident_bytes(),
                  .fds = bench_proc_entries("fd"),
                  .threads = bench_proc_entries("task"),
              });
}

static int on_end(troupe_self_t *self, struct meter *meter,
                  const meter_end_t *m)
{
    (void)meter;
    (void)m;
    bench_raise(self, &done);
    return 0;
}

TROUPE_ACTOR(meter, struct meter, .begin = on_begin, .read = on_read,
             .end = on_end)

static void measure(troupe_t *troupe, int ms)
{
    meter_ref_t meters[RANKS_MAX];
    meter_read_result_t one, all = { 0 };
    int size = troupe_size(troupe);
    char address[64];

    if (size > RANKS_MAX)
        bench_die("too many ranks");
    for (int i = 0; i < size; i++) {
        snprintf(address, sizeof(address), "actor://rank.%d/meter", i);
        bench_check(meter_resolve(troupe, address, BENCH_WAIT_MS, &meters[i]),
                    "resolve");
    }
    for (int i = 0; i < size; i++)
        bench_check(meter_begin(troupe, meters[i], (meter_begin_t){},
                                BENCH_WAIT_MS, NULL),
                    "begin");
    troupe_serve(troupe, ms);
    for (int i = 0; i < size; i++) {
        bench_check(meter_read(troupe, meters[i], (meter_read_t){},
                               BENCH_WAIT_MS, &one),
                    "read");
        all.cpu_percent += one.cpu_percent / size;
        all.resident_bytes += one.resident_bytes / size;
        all.fds += one.fds / size;
        all.threads += one.threads / size;
    }
    bench_print(all.cpu_percent, "%", "cpu");
    bench_print(all.resident_bytes / 1048576, "MiB", "rss");
    bench_print(all.fds, "fds", "fds");
    bench_print(all.threads, "threads", "threads");
    for (int i = 0; i < size; i++)
        bench_check(meter_end(troupe, meters[i], (meter_end_t){}), "end");
}

int main(int argc, char **argv)
{
    int ms = (int)bench_number(argc, argv, 1);
    troupe_t *troupe = bench_start(-1);
    meter_ref_t meter;

    bench_check(meter_spawn(troupe, "meter", NULL, &meter), "spawn");
    if (troupe_rank(troupe) == 0)
        measure(troupe, ms);
    bench_await(troupe, &done);
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
