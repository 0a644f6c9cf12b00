/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Every rank's main sends to actors of all ranks, one line a message; rank 0
 * says when, and times until all of them are handled.
 *     spread histogram UPDATES    8 B each: random counters of all ranks'
 *                                 tables, our own among them
 *     spread fan MESSAGES         64 B each, to the other ranks in turn
 * How many is for each rank.
 */

#include "ours.h"

enum { RANKS_MAX = 256, TABLE_BITS = 20 }; /* 8 MiB of counters a rank */

#define table_messages(TELL, ASK)                                             \
    TELL(table, add, (uint64_t index;))                                       \
    TELL(table, put, (uint64_t words[8];))                                    \
    ASK(table, seen, (), (uint64_t messages;))                                \
    TELL(table, run, (uint64_t messages;))                                    \
    TELL(table, ran, ())                                                      \
    TELL(table, end, ())
TROUPE_PROTOCOL(table)

struct table {
    uint64_t *counters;
    uint64_t messages, sum;
};

static _Atomic uint64_t wanted; /* messages that rank 0 asks of our main */
static atomic_int ran;          /* at rank 0: of how many mains it heard */
static atomic_int ended;
static int rank, size;
static table_ref_t tables[RANKS_MAX];

static int on_add(troupe_self_t *self, struct table *t, const table_add_t *m)
{
    (void)self;
    t->counters[m->index]++;
    t->messages++;
    return 0;
}

static int on_put(troupe_self_t *self, struct table *t, const table_put_t *m)
{
    (void)self;
    t->sum += m->words[0];
    t->messages++;
    return 0;
}

static int on_seen(troupe_self_t *self, struct table *t,
                   const table_seen_t *m)
{
    (void)m;
    return table_seen_reply(self, (table_seen_result_t){ t->messages });
}

static int on_run(troupe_self_t *self, struct table *t, const table_run_t *m)
{
    (void)t;
    atomic_store(&wanted, m->messages);
    troupe_wake(self);
    return 0;
}

static int on_ran(troupe_self_t *self, struct table *t, const table_ran_t *m)
{
    (void)t;
    (void)m;
    atomic_fetch_add(&ran, 1);
    troupe_wake(self);
    return 0;
}

static int on_end(troupe_self_t *self, struct table *t, const table_end_t *m)
{
    (void)t;
    (void)m;
    atomic_store(&ended, 1);
    troupe_wake(self);
    return 0;
}

TROUPE_ACTOR(table, struct table, .add = on_add, .put = on_put,
             .seen = on_seen, .run = on_run, .ran = on_ran, .end = on_end)

static void histogram(troupe_t *troupe, uint64_t updates)
{
    uint64_t random = 88172645463325252u + (uint64_t)rank, index;
    int owner;

    for (uint64_t i = 0; i < updates; i++) {
        random = bench_random(random);
        index = random & ((1u << TABLE_BITS) - 1);
        owner = bench_pick(random, size);
        bench_check(table_add(troupe, tables[owner], (table_add_t){ index }),
                    "add");
    }
}

static void fan(troupe_t *troupe, uint64_t messages)
{
    table_put_t message = { .words = { 1 } };
    int to = rank;

    for (uint64_t i = 0; i < messages; i++) {
        to = (to + 1) % size;
        if (to == rank)
            to = (to + 1) % size;
        bench_check(table_put(troupe, tables[to], message), "put");
    }
}

/* Sends ours; when all tables have answered, all of ours are handled. */
static uint64_t send_all(troupe_t *troupe,
                         void (*work)(troupe_t *, uint64_t), uint64_t messages)
{
    table_seen_result_t seen;
    uint64_t all = 0;

    work(troupe, messages);
    for (int i = 0; i < size; i++) {
        bench_check(table_seen(troupe, tables[i], (table_seen_t){},
                               BENCH_WAIT_MS, &seen),
                    "seen");
        all += seen.messages;
    }
    return all;
}

static int all_ran(void *unused)
{
    (void)unused;
    return atomic_load(&ran) == size - 1;
}

/* Returns when all ranks' messages are handled. */
static void phase(troupe_t *troupe, void (*work)(troupe_t *, uint64_t),
                  uint64_t messages)
{
    atomic_store(&ran, 0);
    for (int i = 1; i < size; i++)
        bench_check(table_run(troupe, tables[i], (table_run_t){ messages }),
                    "run");
    send_all(troupe, work, messages);
    bench_check(troupe_serve_until(troupe, all_ran, NULL, TROUPE_FOREVER),
                "troupe_serve_until");
}

static void lead(troupe_t *troupe, void (*work)(troupe_t *, uint64_t),
                 uint64_t messages)
{
    uint64_t warm = messages / 10 + 1, sent;
    int64_t began, took_ns;

    phase(troupe, work, warm);
    began = bench_now_ns();
    phase(troupe, work, messages);
    took_ns = bench_now_ns() - began;
    sent = (warm + messages) * (uint64_t)size;
    bench_expect(troupe, send_all(troupe, work, 0), sent, "messages");
    bench_print((double)messages * (double)size * 1e3 / (double)took_ns,
                "M/s", "rate");
    for (int i = 1; i < size; i++)
        bench_check(table_end(troupe, tables[i], (table_end_t){}), "end");
}

static int commanded(void *unused)
{
    (void)unused;
    return atomic_load(&wanted) != 0 || atomic_load(&ended);
}

static void follow(troupe_t *troupe, void (*work)(troupe_t *, uint64_t))
{
    for (;;) {
        bench_check(troupe_serve_until(troupe, commanded, NULL,
                                       TROUPE_FOREVER),
                    "troupe_serve_until");
        if (atomic_load(&ended))
            return;
        send_all(troupe, work, atomic_exchange(&wanted, 0));
        bench_check(table_ran(troupe, tables[0], (table_ran_t){}), "ran");
    }
}

static void open_tables(troupe_t *troupe)
{
    struct table mine = { 0 };
    char address[64];

    mine.counters = calloc((size_t)1 << TABLE_BITS, sizeof(*mine.counters));
    if (!mine.counters)
        bench_die("no memory");
    memset(mine.counters, 0, sizeof(*mine.counters) << TABLE_BITS);
    bench_check(table_spawn(troupe, "table", &mine, &tables[rank]), "spawn");
    for (int i = 0; i < size; i++) {
        snprintf(address, sizeof(address), "actor://rank.%d/table", i);
        bench_check(table_resolve(troupe, address, BENCH_WAIT_MS, &tables[i]),
                    "resolve");
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    uint64_t messages = bench_number(argc, argv, 2);
    void (*work)(troupe_t *, uint64_t) = NULL;
    troupe_t *troupe = bench_start(-1);

    rank = troupe_rank(troupe);
    size = troupe_size(troupe);
    if (strcmp(what, "histogram") == 0)
        work = histogram;
    else if (strcmp(what, "fan") == 0)
        work = fan;
    if (!work || size < 2 || size > RANKS_MAX)
        bench_die("usage: spread histogram|fan N, on 2 ranks or more");
    open_tables(troupe);
    if (rank == 0)
        lead(troupe, work, messages);
    else
        follow(troupe, work);
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
