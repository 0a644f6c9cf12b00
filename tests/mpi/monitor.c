/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Monitors and links between nodes: each rank watches actors of the next one.
 * on_down comes once, with the reason, behind all messages; links fail, are
 * trapped, end silently; nothing stays in the tables.
 */
#include <sched.h>
#include <stdatomic.h>

#include "actor/runtime.h"
#include "test.h"

enum { PUTS = 300, FLASHES = 500 };

#define eye_messages(TELL, ASK)                                               \
    TELL(eye, watch, (troupe_ref_t ref; int32_t is_node;))                    \
    TELL(eye, unwatch, ())                                                    \
    TELL(eye, tie, (troupe_ref_t ref;))                                       \
    TELL(eye, untie, (troupe_ref_t ref;))                                     \
    TELL(eye, put, ())                                                        \
    TELL(eye, hold, ())                                                       \
    TELL(eye, flash, (troupe_ref_t ref; int32_t times;))                      \
    ASK(eye, end, (eye_ref_t to; int32_t puts; int32_t error;),               \
        (int32_t unused;))                                                    \
    ASK(eye, make, (), (eye_ref_t eye; eye_ref_t blind;))                     \
    ASK(eye, used, (), (uint32_t monitors;))                                  \
    ASK(eye, seen, (),                                                        \
        (int32_t downs; int32_t reason; int32_t puts; int32_t puts_at_down;   \
         int32_t error; int32_t is_link; troupe_ref_t ref;))
TROUPE_PROTOCOL(eye)

struct eye {
    eye_seen_result_t seen;
    troupe_monitor_t monitor;
};

static atomic_int holding, released;

static int on_watch(troupe_self_t *self, struct eye *e, const eye_watch_t *m)
{
    e->seen.error =
        m->is_node ? troupe_monitor_node(self, m->ref.node, &e->monitor)
                   : troupe_monitor(self, m->ref, &e->monitor);
    return 0;
}

static int on_unwatch(troupe_self_t *self, struct eye *e,
                      const eye_unwatch_t *m)
{
    (void)m;
    e->seen.error = troupe_demonitor(self, e->monitor);
    return 0;
}

static int on_tie(troupe_self_t *self, struct eye *e, const eye_tie_t *m)
{
    e->seen.error = troupe_link(self, m->ref);
    return 0;
}

static int on_untie(troupe_self_t *self, struct eye *e, const eye_untie_t *m)
{
    e->seen.error = troupe_unlink(self, m->ref);
    return 0;
}

static int on_put(troupe_self_t *self, struct eye *e, const eye_put_t *m)
{
    (void)self, (void)m;
    e->seen.puts++;
    return 0;
}

/* Stays in its handler, so that its mailbox fills up. */
static int on_hold(troupe_self_t *self, struct eye *e, const eye_hold_t *m)
{
    double end = test_now_ms() + TEST_SOON_MS;

    (void)self, (void)e, (void)m;
    atomic_store(&holding, 1);
    while (!atomic_load(&released) && test_now_ms() < end)
        sched_yield();
    return 0;
}

static int on_end(troupe_self_t *self, struct eye *e, const eye_end_t *m)
{
    (void)e;
    for (int i = 0; i < m->puts; i++)
        CHECK_EQ(eye_put(self, m->to, (eye_put_t){}), 0);
    MUST(eye_end_reply(self, (eye_end_result_t){ 0 }));
    if (m->error == 0)
        troupe_exit(self);
    return m->error;
}

static int on_make(troupe_self_t *self, struct eye *e, const eye_make_t *m);
static int on_flash(troupe_self_t *self, struct eye *e, const eye_flash_t *m);

static int on_used(troupe_self_t *self, struct eye *e, const eye_used_t *m)
{
    struct tri_runtime *runtime =
        (struct tri_runtime *)troupe_self_node(self);

    (void)e, (void)m;
    return eye_used_reply(
        self, (eye_used_result_t){ tri_monitors_used(&runtime->monitors) });
}

static int on_seen(troupe_self_t *self, struct eye *e, const eye_seen_t *m)
{
    (void)m;
    return eye_seen_reply(self, e->seen);
}

static int on_down(troupe_self_t *self, struct eye *e,
                   const troupe_down_t *down)
{
    (void)self;
    e->seen.downs++;
    e->seen.reason = down->reason;
    e->seen.puts_at_down = e->seen.puts;
    e->seen.is_link = down->monitor == 0;
    e->seen.ref = down->ref;
    return 0;
}

TROUPE_ACTOR(eye, struct eye, .watch = on_watch, .unwatch = on_unwatch,
             .tie = on_tie, .untie = on_untie, .put = on_put, .hold = on_hold,
             .flash = on_flash, .end = on_end, .make = on_make,
             .used = on_used, .seen = on_seen, .on_down = on_down)
TROUPE_ACTOR_AS(blind, eye, struct eye, .tie = on_tie, .end = on_end,
                .seen = on_seen)

static int on_make(troupe_self_t *self, struct eye *e, const eye_make_t *m)
{
    eye_make_result_t made;

    (void)e, (void)m;
    MUST(eye_spawn(self, NULL, NULL, &made.eye));
    MUST(blind_spawn(self, NULL, NULL, &made.blind));
    return eye_make_reply(self, made);
}

/* Links, and fails at once. */
static int on_tie_and_fail(troupe_self_t *self, struct eye *e,
                           const eye_tie_t *m)
{
    (void)e;
    MUST(troupe_link(self, m->ref));
    return TROUPE_EFAILED;
}

TROUPE_ACTOR_AS(brief, eye, struct eye, .tie = on_tie_and_fail)

static int on_flash(troupe_self_t *self, struct eye *e, const eye_flash_t *m)
{
    (void)e;
    for (int i = 0; i < m->times; i++) {
        eye_ref_t brief;

        MUST(brief_spawn(self, NULL, NULL, &brief));
        MUST(eye_tie(self, brief, (eye_tie_t){ m->ref }));
    }
    return 0;
}

/* --- one rank's view ------------------------------------------------------ */

struct stage {
    troupe_t *troupe;
    eye_ref_t maker;        /* of the next rank */
    eye_ref_t eye, blind;   /* here */
    eye_make_result_t far;  /* there */
};

static void raise_stage(struct stage *stage)
{
    troupe_spawn_options_t small = { .mailbox_len_max = 8 };

    MUST(eye_spawn_with(stage->troupe, &small, NULL, &stage->eye));
    MUST(blind_spawn(stage->troupe, NULL, NULL, &stage->blind));
    MUST(eye_make(stage->troupe, stage->maker, (eye_make_t){}, TEST_SOON_MS,
                  &stage->far));
}

static eye_seen_result_t seen(struct stage *stage, eye_ref_t who)
{
    eye_seen_result_t result = { 0 };

    MUST(eye_seen(stage->troupe, who, (eye_seen_t){}, TEST_SOON_MS, &result));
    return result;
}

/* Waits until the eye has been told so often. */
static eye_seen_result_t await(struct stage *stage, int downs)
{
    double end = test_now_ms() + TEST_SOON_MS;
    eye_seen_result_t result;

    do
        result = seen(stage, stage->eye);
    while (result.downs < downs && test_now_ms() < end);
    CHECK_EQ(result.downs, downs);
    return result;
}

static void end_actor(struct stage *stage, eye_ref_t who, int puts, int error)
{
    eye_end_t end = { .to = stage->eye, .puts = puts, .error = error };
    int rc = eye_end(stage->troupe, who, end, TEST_SOON_MS, NULL);

    CHECK_EQ(rc, 0);
}

static void check_down(struct stage *stage, troupe_ref_t ref, int reason)
{
    int got = 1;

    MUST(troupe_wait_down(stage->troupe, ref, TEST_SOON_MS, &got));
    CHECK(got == reason || got == TROUPE_ENOACTOR);
}

static void stop_all(struct stage *stage)
{
    const troupe_ref_t all[] = { stage->eye.ref, stage->blind.ref,
                                 stage->far.eye.ref, stage->far.blind.ref };

    for (int i = 0; i < 4; i++) {
        int reason; /* what it dies of just now may come before the stop */

        troupe_stop_actor(stage->troupe, all[i]); /* if it still lives */
        MUST(troupe_wait_down(stage->troupe, all[i], TEST_SOON_MS, &reason));
    }
}

static eye_seen_result_t watch_to_the_end(struct stage *stage, int error)
{
    raise_stage(stage);
    MUST(eye_watch(stage->troupe, stage->eye,
                   (eye_watch_t){ stage->far.eye.ref, 0 }));
    CHECK_EQ(seen(stage, stage->eye).error, 0);
    end_actor(stage, stage->far.eye, PUTS, error);
    return await(stage, 1);
}

static void check_monitor(struct stage *stage, int error)
{
    double end = test_now_ms() + TEST_SOON_MS;
    eye_seen_result_t result = watch_to_the_end(stage, error);

    /* The end, which is another sender's, may come before the watch. */
    while (result.reason == TROUPE_ENOACTOR && test_now_ms() < end) {
        stop_all(stage);
        result = watch_to_the_end(stage, error);
    }
    CHECK_EQ(result.reason, error);
    CHECK_EQ(result.puts_at_down, PUTS);
    CHECK_EQ(result.is_link, 0);
    CHECK(troupe_ref_equal(result.ref, stage->far.eye.ref));
    /* It is gone by now. */
    MUST(eye_watch(stage->troupe, stage->eye,
                   (eye_watch_t){ stage->far.eye.ref, 0 }));
    CHECK_EQ(await(stage, 2).reason, TROUPE_ENOACTOR);
    stop_all(stage);
}

/* All told, nothing is left, anywhere. */
static void check_used(struct stage *stage)
{
    double end = test_now_ms() + TEST_SOON_MS;
    eye_used_result_t used;

    do
        MUST(eye_used(stage->troupe, stage->maker, (eye_used_t){},
                      TEST_SOON_MS, &used));
    while (used.monitors > 0 && test_now_ms() < end);
    CHECK_EQ(used.monitors, 0);
}

static void check_demonitor(struct stage *stage)
{
    raise_stage(stage);
    MUST(eye_watch(stage->troupe, stage->eye,
                   (eye_watch_t){ stage->far.eye.ref, 0 }));
    MUST(eye_unwatch(stage->troupe, stage->eye, (eye_unwatch_t){}));
    CHECK_EQ(seen(stage, stage->eye).error, 0);
    check_used(stage); /* although what was watched lives */
    end_actor(stage, stage->far.eye, 0, TROUPE_EFAILED);
    check_down(stage, stage->far.eye.ref, TROUPE_EFAILED);
    /* The answer comes behind what the first one would have told. */
    MUST(eye_watch(stage->troupe, stage->eye,
                   (eye_watch_t){ stage->far.eye.ref, 0 }));
    CHECK_EQ(await(stage, 1).reason, TROUPE_ENOACTOR);
    stop_all(stage);
}

/* With the watcher its monitors go, there, too. */
static void check_watcher_ends(struct stage *stage)
{
    raise_stage(stage);
    MUST(eye_watch(stage->troupe, stage->eye,
                   (eye_watch_t){ stage->far.eye.ref, 0 }));
    MUST(eye_tie(stage->troupe, stage->eye,
                 (eye_tie_t){ stage->far.blind.ref }));
    CHECK_EQ(seen(stage, stage->eye).error, 0);
    MUST(troupe_stop_actor(stage->troupe, stage->eye.ref));
    check_down(stage, stage->eye.ref, 0);
    check_used(stage);
    stop_all(stage);
}

static void check_nobody(struct stage *stage)
{
    troupe_ref_t nobody = { 77, 1, 1 };
    int reason = 0;

    raise_stage(stage);
    MUST(eye_watch(stage->troupe, stage->eye, (eye_watch_t){ nobody, 0 }));
    CHECK_EQ(await(stage, 1).reason, TROUPE_ENODE);
    MUST(eye_watch(stage->troupe, stage->eye, (eye_watch_t){ nobody, 1 }));
    CHECK_EQ(await(stage, 2).reason, TROUPE_ENODE);
    nobody = stage->far.eye.ref;
    nobody.slot = UINT32_MAX;
    MUST(eye_watch(stage->troupe, stage->eye, (eye_watch_t){ nobody, 0 }));
    CHECK_EQ(await(stage, 3).reason, TROUPE_ENOACTOR);
    MUST(troupe_wait_down(stage->troupe, nobody, TEST_SOON_MS, &reason));
    CHECK_EQ(reason, TROUPE_ENOACTOR);
    CHECK_EQ(troupe_wait_down(stage->troupe, stage->far.eye.ref, 20, &reason),
             TROUPE_ETIMEDOUT);
    stop_all(stage);
}

/* Each end of a link sees the other fail. */
static void check_links(struct stage *stage)
{
    eye_seen_result_t result;

    raise_stage(stage);
    MUST(eye_tie(stage->troupe, stage->blind,
                 (eye_tie_t){ stage->far.eye.ref }));
    MUST(eye_tie(stage->troupe, stage->eye,
                 (eye_tie_t){ stage->far.eye.ref }));
    MUST(eye_tie(stage->troupe, stage->far.blind,
                 (eye_tie_t){ stage->eye.ref }));
    CHECK_EQ(seen(stage, stage->blind).error, 0);
    CHECK_EQ(seen(stage, stage->eye).error, 0);
    CHECK_EQ(seen(stage, stage->far.blind).error, 0);
    end_actor(stage, stage->far.eye, PUTS, TROUPE_E_USER);
    result = await(stage, 1);
    CHECK_EQ(result.reason, TROUPE_E_USER);
    CHECK_EQ(result.is_link, 1);
    CHECK_EQ(result.puts_at_down, PUTS);
    check_down(stage, stage->blind.ref, TROUPE_ELINKED);
    end_actor(stage, stage->eye, 0, TROUPE_EFAILED);
    check_down(stage, stage->far.blind.ref, TROUPE_ELINKED);
    stop_all(stage);
}

/* Who links and ends at once is told of all the same: the end does not overtake
 * the link. */
static void check_brief_links(struct stage *stage)
{
    raise_stage(stage);
    for (int i = 1; i <= FLASHES / 100; i++) {
        MUST(eye_flash(stage->troupe, stage->maker,
                       (eye_flash_t){ stage->eye.ref, 100 }));
        CHECK_EQ(await(stage, 100 * i).reason, TROUPE_EFAILED);
    }
    stop_all(stage);
}

static void check_silent_links(struct stage *stage)
{
    raise_stage(stage);
    MUST(eye_tie(stage->troupe, stage->eye,
                 (eye_tie_t){ stage->far.eye.ref }));
    MUST(eye_tie(stage->troupe, stage->far.eye,
                 (eye_tie_t){ stage->eye.ref }));
    MUST(eye_tie(stage->troupe, stage->eye,
                 (eye_tie_t){ stage->far.blind.ref }));
    MUST(eye_untie(stage->troupe, stage->eye,
                   (eye_untie_t){ stage->far.blind.ref }));
    CHECK_EQ(seen(stage, stage->eye).error, 0);
    end_actor(stage, stage->far.eye, 0, 0);
    end_actor(stage, stage->far.blind, 0, TROUPE_EFAILED);
    MUST(eye_watch(stage->troupe, stage->eye,
                   (eye_watch_t){ stage->far.eye.ref, 0 }));
    CHECK_EQ(await(stage, 1).is_link, 0); /* behind all that links would say */
    stop_all(stage);
}

/* What the ended actor sent waits in front of a full mailbox; so does its
 * end. */
static void check_parked(struct stage *stage)
{
    double end = test_now_ms() + TEST_SOON_MS;
    eye_seen_result_t result;
    troupe_stats_t stats = { 0 };

    raise_stage(stage);
    MUST(eye_watch(stage->troupe, stage->eye,
                   (eye_watch_t){ stage->far.eye.ref, 0 }));
    CHECK_EQ(seen(stage, stage->eye).error, 0);
    MUST(eye_hold(stage->troupe, stage->eye, (eye_hold_t){}));
    while (!atomic_load(&holding) && test_now_ms() < end)
        sched_yield(); /* served, this thread could hold itself */
    end_actor(stage, stage->far.eye, PUTS, TROUPE_EFAILED);
    check_down(stage, stage->far.eye.ref, TROUPE_EFAILED);
    do
        troupe_stats(stage->troupe, &stats);
    while (stats.parked == 0 && troupe_serve(stage->troupe, 1) == 0 &&
           test_now_ms() < end);
    CHECK(stats.parked > 0);
    atomic_store(&released, 1);
    result = await(stage, 1);
    CHECK_EQ(result.reason, TROUPE_EFAILED);
    CHECK_EQ(result.puts_at_down, PUTS);
    stop_all(stage);
}

int main(void)
{
    char address[TEST_ADDRESS_BYTES];
    struct stage stage;
    eye_ref_t own;
    int size;

    stage.troupe = test_start(&size, NULL);
    MUST(eye_spawn(stage.troupe, "maker", NULL, &own));
    MUST(eye_resolve(stage.troupe,
                     test_address(address, (test_rank + 1) % size, "maker"),
                     TEST_SOON_MS, &stage.maker));
    check_monitor(&stage, 0);
    check_monitor(&stage, TROUPE_EFAILED);
    check_demonitor(&stage);
    check_watcher_ends(&stage);
    check_nobody(&stage);
    check_links(&stage);
    check_silent_links(&stage);
    check_brief_links(&stage);
    if (test_rank == 0 && size > 1 && test_has_workers(stage.troupe))
        check_parked(&stage);
    check_used(&stage);
    return test_end(stage.troupe);
}
