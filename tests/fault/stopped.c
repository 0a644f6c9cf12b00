/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A receiver that is stopped (SIGSTOP) for seconds under flood: rank 0 floods
 * rank 1 from its main thread and from a handler, rank 2 stops it and lets it
 * go on. Meanwhile the memory of rank 0 stays bounded and ranks 0 and 2 go on
 * talking; afterwards every message that was not refused has arrived, once
 * and in order.
 */
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "../lib/usage.h"
#include "leave.h"

enum {
    RANKS = 3,
    FLOODED = 1,
    STOPPED_MS = 3000,
    FLOOD_MS = 5000, /* from before the stop to after it */
    STEPS = 50,      /* messages of a handler's turn */
    TEXT_BYTES = 900,
    PING_MS = 2000, /* a round trip that takes longer has stood still */
    PINGS_MIN = 20, /* while the rank is stopped, which goes on only then */
    STOPS_MAX = 3,  /* in one of them the machine itself stands not still */
    /* What rank 0 may have more of during the flood: the outbox to one peer
     * (option outbox_bytes_max, 4 MiB), the session's frames (8 MiB) or the
     * ring (4 MiB), and as much for pools that keep a reserve. */
    MORE_BYTES_MAX = 24 << 20,
};

#define sink_messages(TELL, ASK)                                               \
    TELL(sink, put,                                                            \
         (uint64_t number; uint32_t source; uint32_t unused;                   \
          char text[TEXT_BYTES];))                                             \
    ASK(sink, who, (), (int32_t pid;))                                         \
    ASK(sink, counts, (), (uint64_t arrived[2]; uint64_t wrong;))
TROUPE_PROTOCOL(sink)

#define pump_messages(TELL, ASK)                                               \
    TELL(pump, go, (sink_ref_t to; int64_t end_ms;))                           \
    ASK(pump, ping, (), (int32_t unused;))                                     \
    ASK(pump, finished, (), (int32_t unused;))
TROUPE_PROTOCOL(pump)

enum { FROM_MAIN, FROM_HANDLER, SOURCES };

struct sink {
    uint64_t arrived[SOURCES];
    uint64_t wrong;
};

struct pump {
    uint64_t sent;
};

static atomic_ulong sent, refused; /* by the handler */
static atomic_int handler_done, finished;

/* Ranks 1 and 2 say that they are done to rank 0, the latter when it has
 * stopped the former: that may be late. */
static int flood_is_over(double end_ms)
{
    return test_now_ms() >= end_ms && atomic_load(&finished) >= RANKS - 1;
}

static int on_put(troupe_self_t *self, struct sink *s, const sink_put_t *m)
{
    (void)self;
    if (m->source >= SOURCES)
        return TROUPE_EPROTO;
    s->wrong += m->number != s->arrived[m->source];
    s->arrived[m->source]++;
    return 0;
}

static int on_who(troupe_self_t *self, struct sink *s, const sink_who_t *m)
{
    (void)s, (void)m;
    return sink_who_reply(self, (sink_who_result_t){ getpid() });
}

static int on_counts(troupe_self_t *self, struct sink *s,
                     const sink_counts_t *m)
{
    (void)m;
    return sink_counts_reply(
        self,
        (sink_counts_result_t){ { s->arrived[0], s->arrived[1] }, s->wrong });
}

TROUPE_ACTOR(sink, struct sink, .put = on_put, .who = on_who,
             .counts = on_counts)

/* Sends a few, then itself the rest; a message that is refused is counted and
 * its number used again. */
static int on_go(troupe_self_t *self, struct pump *p, const pump_go_t *m)
{
    pump_ref_t me = { troupe_self_ref(self) };

    for (int i = 0; i < STEPS; i++) {
        sink_put_t put = { .number = p->sent, .source = FROM_HANDLER };
        int rc = sink_put(self, m->to, put);

        if (rc == TROUPE_EFULL) {
            atomic_fetch_add(&refused, 1);
            break;
        }
        CHECK_EQ(rc, 0);
        p->sent++;
    }
    atomic_store(&sent, p->sent);
    if (!flood_is_over((double)m->end_ms))
        return pump_go(self, me, *m);
    atomic_store(&handler_done, 1);
    troupe_wake(self);
    return 0;
}

static int on_ping(troupe_self_t *self, struct pump *p, const pump_ping_t *m)
{
    (void)p, (void)m;
    return pump_ping_reply(self, (pump_ping_result_t){ 0 });
}

static int on_finished(troupe_self_t *self, struct pump *p,
                       const pump_finished_t *m)
{
    (void)p, (void)m;
    atomic_fetch_add(&finished, 1);
    troupe_wake(self);
    return pump_finished_reply(self, (pump_finished_result_t){ 0 });
}

TROUPE_ACTOR(pump, struct pump, .go = on_go, .ping = on_ping,
             .finished = on_finished)

/* --- roles ---------------------------------------------------------------- */

static uint64_t messages_bytes(troupe_t *troupe)
{
    troupe_stats_t stats;

    troupe_stats(troupe, &stats);
    return stats.messages_bytes;
}

static int handler_is_done(void *arg)
{
    (void)arg;
    return atomic_load(&handler_done);
}

static void check_counts(troupe_t *troupe, sink_ref_t to, uint64_t by_main)
{
    double end = test_now_ms() + TEST_SOON_MS;
    sink_counts_result_t counts = { 0 };
    uint64_t by_handler = atomic_load(&sent);

    while ((counts.arrived[FROM_MAIN] < by_main ||
            counts.arrived[FROM_HANDLER] < by_handler) &&
           test_now_ms() < end) {
        MUST(sink_counts(troupe, to, (sink_counts_t){}, TEST_SOON_MS, &counts));
        troupe_serve(troupe, 1);
    }
    CHECK_EQ(counts.arrived[FROM_MAIN], by_main);
    CHECK_EQ(counts.arrived[FROM_HANDLER], by_handler);
    CHECK_EQ(counts.wrong, 0);
}

static void flood(troupe_t *troupe, pump_ref_t mine, sink_ref_t to)
{
    double begin = test_now_ms(), end = begin + FLOOD_MS, longest = 0;
    uint64_t by_main = 0, full = 0, messages_max = 0;
    long resident = usage_resident_bytes(), resident_max = 0;

    MUST(pump_go(troupe, mine, (pump_go_t){ to, (int64_t)end }));
    while (!flood_is_over(end) && test_now_ms() < end + TEST_SOON_MS) {
        sink_put_t put = { .number = by_main, .source = FROM_MAIN };
        double before = test_now_ms();
        int rc = sink_put(troupe, to, put);

        longest =
            test_now_ms() - before > longest ? test_now_ms() - before : longest;
        if (rc == 0)
            by_main++;
        else if (rc == TROUPE_EFULL)
            full++;
        else
            MUST(rc);
        if (rc != 0 || by_main % 256 == 0) {
            long now = usage_resident_bytes() - resident;
            uint64_t bytes = messages_bytes(troupe);

            resident_max = now > resident_max ? now : resident_max;
            messages_max = bytes > messages_max ? bytes : messages_max;
            troupe_serve(troupe, rc != 0 ? 1 : 0);
        }
    }
    CHECK_EQ(troupe_serve_until(troupe, handler_is_done, NULL, TEST_SOON_MS),
             0);
    printf("rank 0: %lu and %lu sent, %lu and %lu refused, at most %ld KiB "
           "more resident, %lu KiB of messages, a call took %.0f ms\n",
           (unsigned long)by_main, atomic_load(&sent), (unsigned long)full,
           atomic_load(&refused), resident_max / 1024,
           (unsigned long)messages_max / 1024, longest);
    check_counts(troupe, to, by_main);
    CHECK(atomic_load(&refused) > 0); /* else nothing was tried */
    CHECK(!USAGE_RESIDENT_COUNTS || resident_max < MORE_BYTES_MAX);
    CHECK(messages_max < MORE_BYTES_MAX);
}

/* Stops it in the middle of the flood; counts round trips to rank 0. Returns
 * the longest. */
static double stop_and_go(troupe_t *troupe, sink_ref_t victim, pump_ref_t other)
{
    double end = test_now_ms() + (FLOOD_MS - STOPPED_MS) / 2;
    sink_who_result_t who;
    double longest = 0;
    int pings = 0;

    MUST(sink_who(troupe, victim, (sink_who_t){}, TEST_SOON_MS, &who));
    if (end > test_now_ms())
        troupe_serve(troupe, (int)(end - test_now_ms()));
    CHECK_EQ(kill(who.pid, SIGSTOP), 0);
    end = test_now_ms() + STOPPED_MS;
    while (test_now_ms() < end || pings < PINGS_MIN) {
        double before = test_now_ms();

        MUST(pump_ping(troupe, other, (pump_ping_t){}, TEST_SOON_MS, NULL));
        longest =
            test_now_ms() - before > longest ? test_now_ms() - before : longest;
        pings++;
    }
    CHECK_EQ(kill(who.pid, SIGCONT), 0);
    printf("rank 2: %d round trips meanwhile, the longest %.1f ms\n", pings,
           longest);
    return longest;
}

static int all_finished(void *arg)
{
    (void)arg;
    return atomic_load(&finished) == RANKS;
}

int main(void)
{
    pump_ref_t pumps[RANKS], mine;
    sink_ref_t sink;
    char address[TEST_ADDRESS_BYTES];
    double longest = PING_MS;
    int size;
    troupe_options_t options;
    troupe_t *troupe;

    troupe_options_init(&options);
    options.membership = "cloud"; /* it is not to die of this */
    troupe = test_start(&size, &options);
    on_exit(leave_failed_status, NULL);
    if (size != RANKS)
        MUST(TROUPE_EINVAL);
    if (test_rank == FLOODED)
        MUST(sink_spawn(troupe, "sink", NULL, &sink));
    MUST(pump_spawn(troupe, "pump", NULL, &mine));
    MUST(sink_resolve(troupe, test_address(address, FLOODED, "sink"),
                      TEST_SOON_MS, &sink));
    for (int i = 0; i < RANKS; i++)
        MUST(pump_resolve(troupe, test_address(address, i, "pump"),
                          TEST_SOON_MS, &pumps[i]));
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        flood(troupe, mine, sink);
    for (int i = 0; test_rank == 2 && longest >= PING_MS && i < STOPS_MAX; i++)
        longest = stop_and_go(troupe, sink, pumps[0]);
    CHECK(test_rank != 2 || longest < PING_MS);
    for (int i = 0; i < RANKS; i++)
        MUST(pump_finished(troupe, pumps[i], (pump_finished_t){}, TEST_SOON_MS,
                           NULL));
    CHECK_EQ(troupe_serve_until(troupe, all_finished, NULL, TEST_SOON_MS), 0);
    return test_end(troupe);
}
