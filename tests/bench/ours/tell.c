/* SPDX-License-Identifier: BSD-3-Clause */

/* Rank 0's main tells an actor of rank 1.
 *     tell 8|64 MESSAGES    so many bytes each
 */

#include "ours.h"

#define sink_messages(TELL, ASK)                                              \
    TELL(sink, word, (uint64_t word;))                                        \
    TELL(sink, line, (uint64_t words[8];))                                    \
    ASK(sink, count, (), (uint64_t messages;))                                \
    TELL(sink, end, ())
TROUPE_PROTOCOL(sink)

struct sink {
    uint64_t messages, sum;
};

static bench_flag_t done;

static int on_word(troupe_self_t *self, struct sink *s, const sink_word_t *m)
{
    (void)self;
    s->sum += m->word;
    s->messages++;
    return 0;
}

static int on_line(troupe_self_t *self, struct sink *s, const sink_line_t *m)
{
    (void)self;
    s->sum += m->words[0];
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

TROUPE_ACTOR(sink, struct sink, .word = on_word, .line = on_line,
             .count = on_count, .end = on_end)

static void put_words(troupe_t *troupe, sink_ref_t to, uint64_t messages)
{
    sink_word_t message = { .word = 1 };

    for (uint64_t i = 0; i < messages; i++)
        bench_check(sink_word(troupe, to, message), "word");
}

static void put_lines(troupe_t *troupe, sink_ref_t to, uint64_t messages)
{
    sink_line_t message = { .words = { 1 } };

    for (uint64_t i = 0; i < messages; i++)
        bench_check(sink_line(troupe, to, message), "line");
}

/* Sends them all and waits until they are handled. */
static void stream(troupe_t *troupe, sink_ref_t to, uint64_t bytes,
                   uint64_t messages)
{
    sink_count_result_t seen;

    if (bytes == 8)
        put_words(troupe, to, messages);
    else
        put_lines(troupe, to, messages);
    bench_check(sink_count(troupe, to, (sink_count_t){}, BENCH_WAIT_MS, &seen),
                "count");
    bench_expect(troupe, seen.messages, messages, "messages");
}

static void tell(troupe_t *troupe, uint64_t bytes, uint64_t messages)
{
    sink_ref_t to;
    int64_t began;

    bench_check(sink_resolve(troupe, "actor://rank.1/sink", BENCH_WAIT_MS,
                             &to),
                "resolve");
    stream(troupe, to, bytes, messages / 10 + 1);
    began = bench_now_ns();
    stream(troupe, to, bytes, messages);
    bench_print((double)messages * 1e3 / (double)(bench_now_ns() - began),
                "M/s", "rate");
    bench_check(sink_end(troupe, to, (sink_end_t){}), "end");
}

int main(int argc, char **argv)
{
    uint64_t bytes = bench_number(argc, argv, 1);
    uint64_t messages = bench_number(argc, argv, 2);
    troupe_t *troupe = bench_start(-1);
    sink_ref_t sink;

    if (bytes != 8 && bytes != 64)
        bench_die("messages have 8 or 64 bytes");
    if (troupe_rank(troupe) == 0) {
        tell(troupe, bytes, messages);
    } else {
        bench_check(sink_spawn(troupe, "sink", NULL, &sink), "spawn");
        bench_await(troupe, &done);
    }
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
