/* SPDX-License-Identifier: BSD-3-Clause */

/* Two actors that send each other a ball.
 *     pingpong ROUNDS WORKERS
 */

#include "ours.h"

#define player_messages(TELL, ASK)                                            \
    TELL(player, serve, (player_ref_t to; uint64_t left;))                    \
    TELL(player, ball, (player_ref_t from; uint64_t left;))
TROUPE_PROTOCOL(player)

static bench_flag_t done;

static int on_serve(troupe_self_t *self, char *state, const player_serve_t *m)
{
    (void)state;
    return player_ball(self, m->to,
                       (player_ball_t){ player_self(self), m->left });
}

static int on_ball(troupe_self_t *self, char *state, const player_ball_t *m)
{
    (void)state;
    if (m->left > 0)
        return player_ball(self, m->from,
                           (player_ball_t){ player_self(self), m->left - 1 });
    bench_raise(self, &done);
    return 0;
}

TROUPE_ACTOR(player, char, .serve = on_serve, .ball = on_ball)

static void play(troupe_t *troupe, uint64_t rounds)
{
    player_ref_t ping, pong;

    atomic_store(&done, 0);
    bench_check(player_spawn(troupe, NULL, NULL, &ping), "spawn");
    bench_check(player_spawn(troupe, NULL, NULL, &pong), "spawn");
    bench_check(player_serve(troupe, ping,
                             (player_serve_t){ pong, 2 * rounds - 1 }),
                "serve");
    bench_await(troupe, &done);
    bench_check(troupe_stop_actor(troupe, ping.ref), "stop");
    bench_check(troupe_stop_actor(troupe, pong.ref), "stop");
}

int main(int argc, char **argv)
{
    uint64_t rounds = bench_number(argc, argv, 1);
    troupe_t *troupe = bench_start((int)bench_number(argc, argv, 2));
    int64_t began;

    play(troupe, rounds / 10 + 1);
    began = bench_now_ns();
    play(troupe, rounds);
    bench_print((double)(bench_now_ns() - began) / (2.0 * (double)rounds),
                "ns", "message");
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
