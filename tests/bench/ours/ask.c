/* SPDX-License-Identifier: BSD-3-Clause */

/* Rank 0's main asks an actor of rank 1, 8 B there and 8 B back. One clock
 * call a round trip.
 *     ask ROUNDS
 */

#include "ours.h"

#define echo_messages(TELL, ASK)                                              \
    ASK(echo, word, (uint64_t value;), (uint64_t value;))                     \
    TELL(echo, end, ())
TROUPE_PROTOCOL(echo)

static bench_flag_t done;

static int on_word(troupe_self_t *self, char *state, const echo_word_t *m)
{
    (void)state;
    return echo_word_reply(self, (echo_word_result_t){ m->value });
}

static int on_end(troupe_self_t *self, char *state, const echo_end_t *m)
{
    (void)state;
    (void)m;
    bench_raise(self, &done);
    return 0;
}

TROUPE_ACTOR(echo, char, .word = on_word, .end = on_end)

static void ask(troupe_t *troupe, uint64_t rounds)
{
    uint64_t warm = rounds / 10 + 1;
    uint32_t *samples = calloc(rounds, sizeof(*samples));
    echo_word_result_t answer;
    echo_ref_t echo;
    int64_t before, after;

    if (!samples)
        bench_die("no memory");
    bench_check(echo_resolve(troupe, "actor://rank.1/echo", BENCH_WAIT_MS,
                             &echo),
                "resolve");
    before = bench_now_ns();
    for (uint64_t i = 0; i < warm + rounds; i++) {
        bench_check(echo_word(troupe, echo, (echo_word_t){ i },
                              BENCH_WAIT_MS, &answer),
                    "ask");
        after = bench_now_ns();
        if (i >= warm)
            samples[i - warm] = (uint32_t)(after - before);
        before = after;
    }
    bench_print_latency(samples, rounds);
    bench_check(echo_end(troupe, echo, (echo_end_t){}), "end");
    free(samples);
}

int main(int argc, char **argv)
{
    uint64_t rounds = bench_number(argc, argv, 1);
    troupe_t *troupe = bench_start(-1);
    echo_ref_t echo;

    if (troupe_rank(troupe) == 0) {
        ask(troupe, rounds);
    } else {
        bench_check(echo_spawn(troupe, "echo", NULL, &echo), "spawn");
        bench_await(troupe, &done);
    }
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
