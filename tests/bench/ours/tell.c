/* SPDX-License-Identifier: BSD-3-Clause */

/* Rank 0's main tells an actor of rank 1; a full way makes it serve a turn
 * and try again.
 *     tell MESSAGES
 */

#include "ours.h"

#define sink_messages(TELL, ASK)                                              \
    TELL(sink, put, (uint64_t words[8];))                                     \
    ASK(sink, count, (), (uint64_t messages;))                                \
    TELL(sink, end, ())
TROUPE_PROTOCOL(sink)

struct sink {
    uint64_t messages;
};

static bench_flag_t done;

static int on_put(troupe_self_t *self, struct sink *s, const sink_put_t *m)
{
    (void)self;
    (void)m;
    s->messages++;
    return 0;
}

static int on_count(troupe_self_t *self, struct sink *s,
                    const sink_count_t *m)
{
    uint64_t messages = s->messages;

    (void)m;
    s->messages = 0;
    return sink_count_reply(self, (sink_count_result_t){ messages });
}

static int on_end(troupe_self_t *self, struct sink *s, const sink_end_t *m)
{
    (void)s;
    (void)m;
    bench_raise(self, &done);
    return 0;
}

TROUPE_ACTOR(sink, struct sink, .put = on_put, .count = on_count,
             .end = on_end)

/* Sends them all and waits until they are handled. */
static void stream(troupe_t *troupe, sink_ref_t to, uint64_t messages)
{
    sink_put_t message = { .words = { 1 } };
    sink_count_result_t seen;
    int rc;

    for (uint64_t i = 0; i < messages; i++) {
        while ((rc = sink_put(troupe, to, message)) == TROUPE_EFULL)
            troupe_serve(troupe, 0);
        bench_check(rc, "put");
    }
    while ((rc = sink_count(troupe, to, (sink_count_t){}, BENCH_WAIT_MS,
                            &seen)) == TROUPE_EFULL)
        troupe_serve(troupe, 0);
    bench_check(rc, "count");
    bench_expect(troupe, seen.messages, messages, "messages");
}

static void tell(troupe_t *troupe, uint64_t messages)
{
    sink_ref_t to;
    int64_t began;

    bench_check(sink_resolve(troupe, "actor://rank.1/sink", BENCH_WAIT_MS,
                             &to),
                "resolve");
    stream(troupe, to, messages / 10 + 1);
    began = bench_now_ns();
    stream(troupe, to, messages);
    bench_print((double)messages * 1e3 / (double)(bench_now_ns() - began),
                "M/s", "rate");
    bench_check(sink_end(troupe, to, (sink_end_t){}), "end");
}

int main(int argc, char **argv)
{
    uint64_t messages = bench_number(argc, argv, 1);
    troupe_t *troupe = bench_start(-1);
    sink_ref_t sink;

    if (troupe_rank(troupe) == 0) {
        tell(troupe, messages);
    } else {
        bench_check(sink_spawn(troupe, "sink", NULL, &sink), "spawn");
        bench_await(troupe, &done);
    }
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
