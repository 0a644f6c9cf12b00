/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A member is killed, and the starting threads adopt the next view; all calls
 * are of actors, which go on in it.
 *
 *   coll_actors [late]
 *
 * late: the actors call in the view that has ended, too. Else nobody looks at it
 * before the next one is adopted.
 */
#include <sched.h>

#include "leave.h"

#include <troupe/tensor.h>

enum { RANKS = 4, SOON_MS = 60000 };

#define adder_messages(TELL, ASK)                                             \
    TELL(adder, done, (int64_t unused;))                                        \
    ASK(adder, begin, (), (int64_t rc;))                                      \
    ASK(adder, end, (), (int64_t rc; int64_t sum;))
TROUPE_PROTOCOL(adder)

struct adder {
    int64_t in, out;
    int rc, is_done, is_asked;
    troupe_token_t asked;
};

static troupe_t *troupe;
static troupe_group_t *group;

static int on_begin(troupe_self_t *self, struct adder *a,
                    const adder_begin_t *m)
{
    troupe_collective_t *collective;
    int rc;

    (void)m;
    a->in = 1;
    rc = troupe_allreduce_start(self, group, &a->in, &a->out, 1, TROUPE_INT64,
                                TROUPE_SUM, &collective);
    a->is_done = 0;
    if (rc == 0)
        MUST(troupe_collective_send_when_done(&collective,
                                              troupe_self_ref(self),
                                              adder_done_new(self, 0),
                                              &a->rc));
    return adder_begin_reply(self, (adder_begin_result_t){ .rc = rc });
}

static int tell_end(troupe_self_t *self, struct adder *a)
{
    adder_end_result_t result = { .rc = a->rc, .sum = a->out };

    a->is_asked = 0;
    return adder_end_reply_to(self, a->asked, result);
}

static int on_done(troupe_self_t *self, struct adder *a, const adder_done_t *m)
{
    (void)m;
    a->is_done = 1;
    return a->is_asked ? tell_end(self, a) : 0;
}

static int on_end(troupe_self_t *self, struct adder *a, const adder_end_t *m)
{
    (void)m;
    a->asked = troupe_reply_later(self);
    a->is_asked = 1;
    return a->is_done ? tell_end(self, a) : 0;
}

TROUPE_ACTOR(adder, struct adder, .done = on_done, .begin = on_begin, .end = on_end)

/* --- views ---------------------------------------------------------------- */

static void add(adder_ref_t adder, int wanted_rc)
{
    adder_begin_result_t begun;
    adder_end_result_t ended;
    troupe_view_t view;

    troupe_group_view(group, &view);
    MUST(adder_begin(troupe, adder, (adder_begin_t){}, SOON_MS, &begun));
    if (begun.rc != 0) {
        CHECK_EQ(begun.rc, wanted_rc);
        return;
    }
    MUST(adder_end(troupe, adder, (adder_end_t){}, SOON_MS, &ended));
    CHECK_EQ(ended.rc, wanted_rc);
    if (wanted_rc == 0)
        CHECK_EQ(ended.sum, view.active);
}

static void views(adder_ref_t adder, int is_late)
{
    troupe_group_options_t options;
    troupe_view_t view;

    troupe_group_options_init(&options);
    options.backend = "native";
    MUST(troupe_group_create(troupe, "views", &options, &group));
    add(adder, 0);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == RANKS - 1)
        kill(getpid(), SIGKILL);
    while (!troupe_group_is_changing(group))
        sched_yield();
    if (is_late)
        add(adder, TROUPE_EVIEW);
    do
        MUST(troupe_group_update(group, 0, SOON_MS, &view));
    while (view.active == RANKS);
    add(adder, 0);
    add(adder, 0);
}

int main(int argc, char **argv)
{
    adder_ref_t adder;
    int size;

    troupe = test_start_at(MPI_THREAD_MULTIPLE, &size, NULL);
    atexit(leave_failed);
    CHECK_EQ(size, RANKS);
    MUST(adder_spawn(troupe, "adder", NULL, &adder));
    views(adder, argc > 1 && strcmp(argv[1], "late") == 0);
    /* The other is not left alone in the last call; in this one it may be. */
    (void)troupe_barrier(group, SOON_MS);
    leave();
}
