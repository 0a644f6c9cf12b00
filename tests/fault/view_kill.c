/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ranks are killed, one after the other: the last, the first (which leads the
 * agreement), two at once. Those that live adopt the same views, digest by
 * digest, and soon: a file of the test, which all have mapped, holds what each
 * has seen and when. Below the least number of members the group pauses.
 */
#include "board.h"
#include "leave.h"

enum { RANKS = 7, EPOCHS = 16, SIZE_MIN = 3, SHORT_MS = 200 };

/* Who goes, round by round; -1: nobody else. */
static const int victims[][2] = { { 6, -1 }, { 0, -1 }, { 1, 5 }, { 2, -1 } };
enum { ROUNDS = sizeof(victims) / sizeof(victims[0]) };

struct board {
    _Atomic uint64_t digests[EPOCHS];
    _Atomic uint64_t lens[EPOCHS];
    _Atomic int reached[ROUNDS + 1]; /* ranks that are done with it */
    _Atomic int failures;
    double killed_ms[ROUNDS];
    pid_t pids[RANKS];
};

static struct board *board;
static troupe_t *troupe;
static double after_ms[ROUNDS]; /* the kill: the view without the dead */

/* One view, one digest: who is first writes it down. */
static void compare(const troupe_view_t *view)
{
    uint64_t none = 0, none_len = 0;

    if (!CHECK(view->epoch < EPOCHS))
        return;
    if (!atomic_compare_exchange_strong(&board->digests[view->epoch], &none,
                                        view->digest))
        CHECK(none == view->digest);
    if (!atomic_compare_exchange_strong(&board->lens[view->epoch], &none_len,
                                        view->len))
        CHECK(none_len == view->len);
    CHECK(view->index >= 0 && view->index < (int)view->len);
}

static int is_victim(int round, int rank)
{
    return victims[round][0] == rank || victims[round][1] == rank;
}

static int alive_after(int round)
{
    int alive = RANKS;

    for (int i = 0; i <= round; i++)
        alive -= 1 + (victims[i][1] >= 0);
    return alive;
}

/* All that live have come here. */
static void meet(int round, int alive)
{
    atomic_fetch_add(&board->reached[round], 1);
    board_await(troupe, &board->reached[round], alive, TEST_SOON_MS);
}

/* The survivor of the lowest rank does it, for all at the same time. */
static void kill_victims(int round, int alive_before)
{
    int first = -1;

    meet(round, alive_before);
    for (int r = 0; r < RANKS && first < 0; r++) {
        int is_gone = 0;

        for (int i = 0; i <= round; i++)
            is_gone |= is_victim(i, r);
        if (!is_gone)
            first = r;
    }
    if (is_victim(round, test_rank))
        for (;;)
            (void)troupe_serve(troupe, TROUPE_FOREVER);
    if (test_rank != first)
        return;
    board->killed_ms[round] = test_now_ms();
    for (int i = 0; i < 2; i++)
        if (victims[round][i] >= 0)
            kill(board->pids[victims[round][i]], SIGKILL);
}

static int is_changing(void *group)
{
    return troupe_group_is_changing(group);
}

/* Until none of the dead is in the view. */
static void follow(troupe_group_t *group, int round, troupe_view_t *view)
{
    int alive = alive_after(round), rc = 0;

    troupe_group_view(group, view);
    while (rc == 0 && view->len != (uint32_t)alive) {
        CHECK_EQ(troupe_serve_until(troupe, is_changing, group, TEST_SOON_MS),
                 0);
        rc = troupe_group_update(group, 0, TEST_SOON_MS, view);
        CHECK_EQ(rc, 0);
        compare(view);
    }
    after_ms[round] = test_now_ms() - board->killed_ms[round];
}

/* The last round leaves too few. It may take longer than SHORT_MS until they
 * have agreed on that. */
static void pause_below_min(troupe_group_t *group)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    uint32_t alive = (uint32_t)alive_after(ROUNDS - 1);
    troupe_view_t view;
    int rc;

    CHECK_EQ(troupe_serve_until(troupe, is_changing, group, TEST_SOON_MS), 0);
    do {
        rc = troupe_group_update(group, 0, SHORT_MS, NULL);
        troupe_group_view(group, &view);
    } while ((rc == TROUPE_ETIMEDOUT || view.len != alive) && rc != 0 &&
             test_now_ms() < end_ms);
    CHECK_EQ(rc, TROUPE_EPAUSED);
    CHECK_EQ(view.len, alive);
    compare(&view);
}

static void check_events(void)
{
    troupe_group_event_t events[TROUPE_GROUP_EVENTS_MAX];
    size_t len = troupe_group_events_take(troupe, events,
                                          TROUPE_GROUP_EVENTS_MAX);
    uint64_t epoch = 1;
    int changing = 0;

    for (size_t i = 0; i < len; i++) {
        changing += events[i].what == TROUPE_GROUP_CHANGING;
        if (events[i].what != TROUPE_GROUP_VIEW)
            continue;
        CHECK_EQ((long long)events[i].view.epoch, (long long)epoch + 1);
        epoch = events[i].view.epoch;
        CHECK(events[i].view.digest == atomic_load(&board->digests[epoch]) ||
              atomic_load(&board->digests[epoch]) == 0);
    }
    CHECK(changing >= ROUNDS);
}

int main(void)
{
    troupe_group_options_t options;
    troupe_group_t *group;
    troupe_view_t view;
    int size;

    troupe = test_start(&size, NULL);
    atexit(leave_failed);
    if (size != RANKS)
        MUST(TROUPE_EINVAL);
    board = board_open("view_kill", sizeof(*board));
    board->pids[test_rank] = getpid(); /* read when all have met */
    troupe_group_options_init(&options);
    options.size_min = SIZE_MIN;
    MUST(troupe_group_create(troupe, "survivors", &options, &group));
    troupe_group_view(group, &view);
    compare(&view);
    for (int round = 0; round < ROUNDS; round++) {
        kill_victims(round, round == 0 ? RANKS : alive_after(round - 1));
        if (round < ROUNDS - 1)
            follow(group, round, &view);
        else
            pause_below_min(group);
    }
    meet(ROUNDS, alive_after(ROUNDS - 1));
    check_events();
    printf("rank %d: views after %.1f ms, without the first %.1f ms, without "
           "two %.1f ms\n",
           test_rank, after_ms[0], after_ms[1], after_ms[2]);
    troupe_group_close(&group);
    CHECK_EQ(troupe_stop(&troupe), 0);
    leave();
}
