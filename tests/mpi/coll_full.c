/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An outcome is to be sent to an actor whose mailbox is full.
 */
#include <sched.h>
#include <stdatomic.h>

#include "test.h"

#include <troupe/tensor.h>

/* Who waits for room in a mailbox does so for longer than is prompt. */
enum { PROMPT_MS = 20000, SEND_MS = 40000, OUTCOME = 7, MAILBOX = 64 };

#define sink_messages(TELL, ASK)                                             \
    TELL(sink, done, (int64_t what;))                                        \
    TELL(sink, fill, (int64_t unused;))
TROUPE_PROTOCOL(sink)

struct sink {
    int unused;
};

static troupe_t *troupe;
static troupe_group_t *group;
static _Atomic int is_full, may_go_on, is_told;

static int on_done(troupe_self_t *self, struct sink *s, const sink_done_t *m)
{
    (void)self;
    (void)s;
    if (m->what == OUTCOME)
        atomic_store(&is_told, 1);
    return 0;
}

/* Has a full mailbox until it may go on. */
static int on_fill(troupe_self_t *self, struct sink *s, const sink_fill_t *m)
{
    sink_ref_t own = { troupe_self_ref(self) };

    (void)s;
    (void)m;
    while (sink_done(self, own, (sink_done_t){ .what = 0 }) == 0)
        ;
    atomic_store(&is_full, 1);
    while (!atomic_load(&may_go_on))
        sched_yield();
    return 0;
}

TROUPE_ACTOR(sink, struct sink, .done = on_done, .fill = on_fill)

static void wait_until(_Atomic int *flag)
{
    double since_ms = test_now_ms();

    while (!atomic_load(flag) && test_now_ms() - since_ms < TEST_SOON_MS)
        sched_yield();
    CHECK(atomic_load(flag));
}

/* Who drives a group does not wait for room in a mailbox meanwhile. */
static void full(sink_ref_t sink)
{
    troupe_collective_t *collective;
    sink_done_t *message = sink_done_new(troupe, 0);
    int rc = -1;
    double since_ms;

    message->what = OUTCOME;
    MUST(troupe_group_create(troupe, "full", NULL, &group));
    MUST(sink_fill(troupe, sink, (sink_fill_t){ 0 }));
    wait_until(&is_full);
    MPI_Barrier(MPI_COMM_WORLD);
    MUST(troupe_barrier_start(troupe, group, &collective));
    MUST(troupe_collective_send_when_done(&collective, sink.ref, message,
                                          &rc));
    since_ms = test_now_ms();
    for (int i = 0; i < 3; i++)
        MUST(troupe_barrier(group, TEST_SOON_MS));
    CHECK(test_now_ms() - since_ms < PROMPT_MS);
    CHECK(!atomic_load(&is_told));
    atomic_store(&may_go_on, 1);
    wait_until(&is_told);
    CHECK_EQ(rc, 0);
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
}

int main(void)
{
    troupe_options_t options;
    sink_ref_t sink;
    int size;

    troupe_options_init(&options);
    options.mailbox_len_max = MAILBOX;
    options.send_timeout_ms = SEND_MS;
    troupe = test_start(&size, &options);
    MUST(sink_spawn(troupe, "sink", NULL, &sink));
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_has_workers(troupe))
        full(sink);
    return test_end(troupe);
}
