/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Strictly unique names in a cluster that is cut in two. The side with a quorum
 * goes on giving names away, also one that the other side has; that side gives
 * away none, and when it learns that it is out it has lost what it had.
 */
#include "board.h"
#include "hosts.h"
#include "leave.h"

/* The last rank has the name when the cut comes. */
enum { KEPT = 3, RANKS = 5, HOLDER = 4, LONG_MS = 60000 };

struct board {
    _Atomic int won;    /* on the side that goes on */
    _Atomic int paused; /* on the other one */
    _Atomic int healed;
    _Atomic int ended;
    _Atomic int checked;
};

static struct board *board;
static troupe_t *troupe;
static atomic_int lost;

#define crown_messages(TELL, ASK) TELL(crown, nothing, ())
TROUPE_PROTOCOL(crown)

struct crown {
    int32_t unused;
};

static int on_nothing(troupe_self_t *self, struct crown *c,
                      const crown_nothing_t *m)
{
    (void)self, (void)c, (void)m;
    return 0;
}

static int on_name(troupe_self_t *self, struct crown *c,
                   const troupe_name_event_t *event)
{
    (void)c;
    if (event->what == TROUPE_NAME_LOST) {
        atomic_fetch_add(&lost, 1);
        troupe_wake(self);
    }
    return 0;
}

TROUPE_ACTOR(crown, struct crown, .nothing = on_nothing, .on_name = on_name)

static void await(_Atomic int *counter, int wanted)
{
    board_await(troupe, counter, wanted, LONG_MS);
}

static int claim(const char *name)
{
    troupe_spawn_options_t strict = { .name = name,
                                      .unique = TROUPE_UNIQUE_STRICT };
    crown_ref_t ref;

    return crown_spawn_with(troupe, &strict, NULL, &ref);
}

static void go_on(void)
{
    int rc = claim("the/crown");

    if (rc != TROUPE_EEXIST)
        CHECK_EQ(rc, 0);
    atomic_fetch_add(&board->won, rc == 0 ? 100 : 1);
    await(&board->won, 100 + KEPT - 1);
    CHECK_EQ(atomic_load(&board->won), 100 + KEPT - 1); /* one has it */
    if (test_rank == 0) {
        await(&board->paused, RANKS - KEPT);
        CHECK(hosts_run("heal"));
        atomic_store(&board->healed, 1);
    }
    await(&board->ended, RANKS - KEPT);
    CHECK_EQ(claim("the/crown"), TROUPE_EEXIST);
    CHECK_EQ(troupe_is_excluded(troupe), 0);
    atomic_fetch_add(&board->checked, 1);
    await(&board->checked, KEPT); /* all have to answer until then */
}

static void be_left(void)
{
    double end_ms;
    char name[32];
    int rc;

    snprintf(name, sizeof(name), "other/%d", test_rank);
    CHECK_EQ(claim(name), TROUPE_EPAUSED);
    CHECK_EQ(atomic_load(&lost), 0);
    atomic_fetch_add(&board->paused, 1);
    await(&board->healed, 1);
    if (test_rank == HOLDER)
        await(&lost, 1);
    for (int i = 0; i < LONG_MS && !troupe_is_excluded(troupe); i++)
        (void)troupe_serve(troupe, 1);
    CHECK_EQ(troupe_is_excluded(troupe), 1);
    end_ms = test_now_ms() + LONG_MS;
    /* What gives names away hears of it after the list of members. */
    do
        rc = claim(name);
    while (rc == TROUPE_EPAUSED && test_now_ms() < end_ms);
    CHECK_EQ(rc, TROUPE_EEXCLUDED);
    CHECK_EQ(atomic_load(&lost), test_rank == HOLDER);
    atomic_fetch_add(&board->ended, 1);
}

int main(void)
{
    troupe_options_t options;
    int size;

    troupe_options_init(&options);
    options.membership = "fast";
    options.log = "error";
    options.strict_names = 1;
    options.ask_timeout_ms = LONG_MS;
    troupe = test_start(&size, &options);
    atexit(leave_failed);
    if (size != RANKS)
        MUST(TROUPE_EINVAL);
    board = board_open("strict_cut", sizeof(*board));
    if (test_rank == HOLDER)
        MUST(claim("the/crown"));
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank != HOLDER)
        CHECK_EQ(claim("the/crown"), TROUPE_EEXIST);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        CHECK(hosts_part(KEPT, RANKS));
    if (test_rank != 0) { /* not before the cut */
        int far = test_rank < KEPT ? HOLDER : 0;

        for (int i = 0; i < LONG_MS && troupe_rank_alive(troupe, far); i++)
            (void)troupe_serve(troupe, 1);
    }
    if (test_rank < KEPT)
        go_on();
    else
        be_left();
    leave();
}
