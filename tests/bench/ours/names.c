/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Names of the cluster.
 *     names resolve N    finding an actor of rank 1 by its name, on rank 0
 *     names converge N   from an actor's start until all ranks can resolve its
 *                        name; the ranks take turns
 */

#include "ours.h"

#define round_messages(TELL, ASK)                                              \
    TELL(round, go, (uint64_t number;))                                        \
    TELL(round, ready, ())                                                     \
    TELL(round, spawned, (int64_t ns;))                                        \
    TELL(round, found, (int64_t ns;))                                          \
    TELL(round, end, ())
TROUPE_PROTOCOL(round)

enum { RANKS_MAX = 256, ADDRESS_BYTES = 64, SETTLE_MS = 2 };

struct round {
    int unused;
};

static bench_flag_t done;
static atomic_ulong going; /* the round that runs */
static atomic_int ready;   /* ranks that wait for a name that we are to give */
static atomic_int reports; /* of the round, at rank 0 */
static _Atomic int64_t spawned_ns, found_ns;
static round_ref_t rounds[RANKS_MAX];
static int rank, size;

static int on_go(troupe_self_t *self, struct round *round, const round_go_t *m)
{
    (void)round;
    atomic_store(&going, m->number);
    troupe_wake(self);
    return 0;
}

static int on_ready(troupe_self_t *self, struct round *round,
                    const round_ready_t *m)
{
    (void)round;
    (void)m;
    atomic_fetch_add(&ready, 1);
    troupe_wake(self);
    return 0;
}

static int on_spawned(troupe_self_t *self, struct round *round,
                      const round_spawned_t *m)
{
    (void)round;
    atomic_store(&spawned_ns, m->ns);
    atomic_fetch_add(&reports, 1);
    troupe_wake(self);
    return 0;
}

static int on_found(troupe_self_t *self, struct round *round,
                    const round_found_t *m)
{
    (void)round;
    if (m->ns > atomic_load(&found_ns))
        atomic_store(&found_ns, m->ns);
    atomic_fetch_add(&reports, 1);
    troupe_wake(self);
    return 0;
}

static int on_end(troupe_self_t *self, struct round *round,
                  const round_end_t *m)
{
    (void)round;
    (void)m;
    bench_raise(self, &done);
    return 0;
}

TROUPE_ACTOR(round, struct round, .go = on_go, .ready = on_ready,
             .spawned = on_spawned, .found = on_found, .end = on_end)

/* --- resolve -------------------------------------------------------------- */

static void resolve_often(troupe_t *troupe, uint64_t n)
{
    int64_t began_ns = 0;
    round_ref_t ref;

    bench_check(round_resolve(troupe, "actor:///known", BENCH_WAIT_MS, &ref),
                "resolve");
    for (uint64_t i = 0; i < n + n / 10; i++) {
        if (i == n / 10)
            began_ns = bench_now_ns();
        bench_check(
            round_resolve(troupe, "actor:///known", BENCH_WAIT_MS, &ref),
            "resolve");
    }
    bench_print((double)(bench_now_ns() - began_ns) / (double)n, "ns",
                "resolve");
}

/* --- converge ------------------------------------------------------------- */

static int is_going(void *arg)
{
    return atomic_load(&going) == *(uint64_t *)arg;
}

static int are_ready(void *unused)
{
    (void)unused;
    return atomic_load(&ready) == size - 1;
}

static int are_reported(void *unused)
{
    (void)unused;
    return atomic_load(&reports) == size;
}

static void serve_until(troupe_t *troupe, int (*is_done)(void *), void *arg)
{
    bench_check(troupe_serve_until(troupe, is_done, arg, BENCH_WAIT_MS),
                "a round");
}

static void give_name(troupe_t *troupe, const char *name)
{
    int64_t began_ns;
    round_ref_t ref;

    serve_until(troupe, are_ready, NULL);
    atomic_store(&ready, 0);
    troupe_serve(troupe, SETTLE_MS); /* they wait now */
    began_ns = bench_now_ns();
    bench_check(round_spawn(troupe, name, NULL, &ref), "spawn");
    bench_check(round_spawned(troupe, rounds[0], (round_spawned_t){ began_ns }),
                "spawned");
}

static void await_name(troupe_t *troupe, int from, const char *name)
{
    char address[ADDRESS_BYTES];
    round_ref_t ref;

    snprintf(address, sizeof(address), "actor:///%s", name);
    bench_check(round_ready(troupe, rounds[from], (round_ready_t){}), "ready");
    bench_check(round_resolve(troupe, address, BENCH_WAIT_MS, &ref), "resolve");
    bench_check(
        round_found(troupe, rounds[0], (round_found_t){ bench_now_ns() }),
        "found");
}

static void converge_once(troupe_t *troupe, uint64_t number)
{
    int from = (int)(number % (uint64_t)size);
    char name[32];

    snprintf(name, sizeof(name), "converge.%llu", (unsigned long long)number);
    for (int i = 0; rank == 0 && i < size; i++)
        bench_check(round_go(troupe, rounds[i], (round_go_t){ number }), "go");
    serve_until(troupe, is_going, &number);
    if (rank == from)
        give_name(troupe, name);
    else
        await_name(troupe, from, name);
}

static void converge(troupe_t *troupe, uint64_t n)
{
    uint32_t *samples_us = calloc(n, sizeof(*samples_us));
    uint64_t warm = n / 10 + 1;

    for (uint64_t i = 1; i <= warm + n; i++) {
        converge_once(troupe, i);
        if (rank != 0)
            continue;
        serve_until(troupe, are_reported, NULL);
        atomic_store(&reports, 0);
        if (i > warm)
            samples_us[i - warm - 1] =
                (uint32_t)((atomic_load(&found_ns) - atomic_load(&spawned_ns)) /
                           1000);
        atomic_store(&found_ns, 0);
    }
    if (rank != 0)
        return;
    qsort(samples_us, n, sizeof(*samples_us), bench_compare_);
    bench_print(samples_us[n / 2] / 1e3, "ms", "p50");
    bench_print(samples_us[n - 1 - n / 100] / 1e3, "ms", "p99");
}

int main(int argc, char **argv)
{
    uint64_t n = bench_number(argc, argv, 2);
    troupe_t *troupe = bench_start(-1);
    char address[ADDRESS_BYTES];
    round_ref_t mine;

    rank = troupe_rank(troupe);
    size = troupe_size(troupe);
    if (size < 2 || size > RANKS_MAX)
        bench_die("needs two ranks, and not too many");
    bench_check(round_spawn(troupe, "round", NULL, &mine), "spawn");
    if (rank == 1)
        bench_check(round_spawn(troupe, "known", NULL, &mine), "spawn");
    for (int i = 0; i < size; i++) {
        snprintf(address, sizeof(address), "actor://rank.%d/round", i);
        bench_check(round_resolve(troupe, address, BENCH_WAIT_MS, &rounds[i]),
                    "resolve");
    }
    if (strcmp(argv[1], "converge") == 0)
        converge(troupe, n);
    else if (rank == 0)
        resolve_often(troupe, n);
    for (int i = 0; rank == 0 && i < size; i++)
        bench_check(round_end(troupe, rounds[i], (round_end_t){}), "end");
    bench_await(troupe, &done);
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
