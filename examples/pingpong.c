/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pingpong: how long does a message take?
 *
 *     ./pingpong              two actors of one process
 *     mpirun -n 2 ./pingpong  one actor on rank 0, one on rank 1
 *
 * Shows a ref inside a message, two actors of one kind, and a handler that
 * answers its asker only at the end of the game.
 */
#include <time.h>

#include <troupe.h>

#include "must.h"

enum { ROUND_TRIPS = 20000, WARM_UP = 1000, GAME_TIMEOUT_MS = 60000 };

#define player_messages(TELL, ASK)                                            \
    TELL(player, ball, (player_ref_t from; int32_t left;))                    \
    ASK(player, play, (player_ref_t with; int32_t round_trips;),              \
        (double seconds;))                                                    \
    TELL(player, leave, ())
TROUPE_PROTOCOL(player)

struct player {
    troupe_token_t asker; /* who asked us to play; nobody: we just return */
    double begin;
};

static double now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static int on_play(troupe_self_t *self, struct player *p,
                   const player_play_t *game)
{
    player_ball_t ball = { player_self(self), game->round_trips };

    p->asker = troupe_reply_later(self);
    p->begin = now_seconds();
    return player_ball(self, game->with, ball);
}

/* The one who was asked counts down; the other returns what it gets. */
static int on_ball(troupe_self_t *self, struct player *p,
                   const player_ball_t *ball)
{
    player_ball_t back = { player_self(self), ball->left };

    if (p->asker.node == 0)
        return player_ball(self, ball->from, back);
    if (--back.left > 0)
        return player_ball(self, ball->from, back);
    return player_play_reply_to(
        self, p->asker,
        (player_play_result_t){ .seconds = now_seconds() - p->begin });
}

static int on_leave(troupe_self_t *self, struct player *p,
                    const player_leave_t *m)
{
    (void)p, (void)m;
    troupe_exit(self);
    return 0;
}

TROUPE_ACTOR(player, struct player, .ball = on_ball, .play = on_play,
             .leave = on_leave)

static double play(troupe_t *troupe, player_ref_t ours, player_ref_t theirs,
                   int round_trips)
{
    player_play_result_t result;

    must(player_play(troupe, ours, (player_play_t){ theirs, round_trips },
                     GAME_TIMEOUT_MS, &result),
         "play");
    return result.seconds;
}

int main(void)
{
    troupe_t *troupe;
    player_ref_t ours, theirs;
    double seconds = 0;
    int rank, size, reason;

    must(troupe_start(&troupe, NULL), "start");
    rank = troupe_rank(troupe);
    size = troupe_size(troupe);

    if (rank == 0)
        must(player_spawn(troupe, "ping", NULL, &ours), "spawn");
    if (rank == 1 || size == 1)
        must(player_spawn(troupe, "pong", NULL, &theirs), "spawn");
    if (rank == 0) {
        must(player_resolve(troupe,
                            size == 1 ? "actor://localhost/pong"
                                      : "actor://rank.1/pong",
                            10000, &theirs),
             "resolve pong");
        play(troupe, ours, theirs, WARM_UP);
        seconds = play(troupe, ours, theirs, ROUND_TRIPS);
        printf("pingpong: %.0f ns a message between %s\n",
               seconds / (2.0 * ROUND_TRIPS) * 1e9,
               size == 1 ? "two actors of one process" : "two ranks");
        must(player_leave(troupe, theirs, (player_leave_t){}), "leave");
    }
    /* Who stops first waits for the others, but not for as long as a game. */
    if (rank == 1)
        must(troupe_wait_down(troupe, theirs.ref, GAME_TIMEOUT_MS, &reason),
             "wait for the end of the game");
    must(troupe_stop(&troupe), "stop");
    return rank != 0 || seconds > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
