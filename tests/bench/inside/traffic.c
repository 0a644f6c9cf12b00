/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What an idle node says to others: control datagrams a second, those of
 * membership alone, and its processor time. Means over the ranks.
 *     traffic MS
 */

#include <stdatomic.h>

#include "../bench.h"
#include "member/member_internal.h"
#include "node/node.h"
#include "troupe.h"

enum { RANKS_MAX = 256, WAIT_MS = 60000, SETTLE_MS = 1000 };

#define meter_messages(TELL, ASK)                                              \
    ASK(meter, begin, (), ())                                                  \
    ASK(meter, read, (), (double out; double swim; double cpu_percent;))         \
    ASK(meter, end, (), ())
TROUPE_PROTOCOL(meter)

struct meter {
    uint64_t out, swim;
    double cpu_s;
    int64_t began_ns;
};

static atomic_int done;
static troupe_t *here;

static void check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, troupe_error_name(rc));
    exit(1);
}

/* The control thread counts meanwhile; a torn count does not happen here. */
static uint64_t count_out(void)
{
    return here->runtime.member->counter;
}

static uint64_t count_swim(void)
{
    return tri_swim_metrics(here->runtime.member->swim).packets_out;
}

static int on_begin(troupe_self_t *self, struct meter *meter,
                    const meter_begin_t *m)
{
    (void)m;
    meter->out = count_out();
    meter->swim = count_swim();
    meter->cpu_s = bench_cpu_seconds();
    meter->began_ns = bench_now_ns();
    return meter_begin_reply(self, (meter_begin_result_t){});
}

static int on_read(troupe_self_t *self, struct meter *meter,
                   const meter_read_t *m)
{
    double wall_s = (double)(bench_now_ns() - meter->began_ns) / 1e9;

    (void)m;
    return meter_read_reply(
        self,
        (meter_read_result_t){
            .out = (double)(count_out() - meter->out) / wall_s,
            .swim = (double)(count_swim() - meter->swim) / wall_s,
            .cpu_percent = (bench_cpu_seconds() - meter->cpu_s) / wall_s * 100,
        });
}

static int on_end(troupe_self_t *self, struct meter *meter,
                  const meter_end_t *m)
{
    (void)meter;
    (void)m;
    atomic_store(&done, 1);
    troupe_wake(self);
    return meter_end_reply(self, (meter_end_result_t){});
}

TROUPE_ACTOR(meter, struct meter, .begin = on_begin, .read = on_read,
             .end = on_end)

static void measure(int ms)
{
    meter_ref_t meters[RANKS_MAX];
    meter_read_result_t one, all = { 0 };
    int size = troupe_size(here);
    char address[64];

    if (size > RANKS_MAX)
        bench_die("too many ranks");
    for (int i = 0; i < size; i++) {
        snprintf(address, sizeof(address), "actor://rank.%d/meter", i);
        check(meter_resolve(here, address, WAIT_MS, &meters[i]), "resolve");
    }
    troupe_serve(here, SETTLE_MS); /* what the start had to say is said */
    for (int i = 0; i < size; i++)
        check(meter_begin(here, meters[i], (meter_begin_t){}, WAIT_MS, NULL),
              "begin");
    troupe_serve(here, ms);
    for (int i = 0; i < size; i++) {
        check(meter_read(here, meters[i], (meter_read_t){}, WAIT_MS, &one),
              "read");
        all.out += one.out / size;
        all.swim += one.swim / size;
        all.cpu_percent += one.cpu_percent / size;
    }
    bench_print(all.out, "1/s", "out");
    bench_print(all.swim, "1/s", "swim");
    bench_print(all.cpu_percent, "%", "cpu");
    for (int i = size - 1; i >= 0; i--)
        check(meter_end(here, meters[i], (meter_end_t){}, WAIT_MS, NULL),
              "end");
}

static int is_done(void *unused)
{
    (void)unused;
    return atomic_load(&done);
}

int main(int argc, char **argv)
{
    int ms = (int)bench_number(argc, argv, 1);
    meter_ref_t meter;

    bench_watchdog();
    check(troupe_start(&here, NULL), "troupe_start");
    check(meter_spawn(here, "meter", NULL, &meter), "spawn");
    if (troupe_rank(here) == 0)
        measure(ms);
    check(troupe_serve_until(here, is_done, NULL, TROUPE_FOREVER), "serve");
    check(troupe_stop(&here), "troupe_stop");
    return 0;
}
