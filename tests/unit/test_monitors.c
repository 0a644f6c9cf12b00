/* SPDX-License-Identifier: BSD-3-Clause */
/* Monitors and links: the table by itself, and the actors of one node. */
#include "unit.h"

#include <stdatomic.h>

#include <troupe.h>

#include "actor/monitors.h"
#include "actor/runtime.h"
#include "base/clock.h"
#include "message/pool.h"

enum { SOON_MS = 10000, HERE = 1, THERE = 2, PUTS = 300 };

/* --- the table ------------------------------------------------------------ */

static troupe_ref_t ref_of(uint64_t node, uint32_t slot)
{
    return (troupe_ref_t){ node, slot, 1 };
}

static struct tri_monitor_spec spec_of(enum tri_monitor_kind kind,
                                       troupe_ref_t watcher,
                                       troupe_ref_t target)
{
    return (struct tri_monitor_spec){
        .kind = kind,
        .watcher = watcher,
        .target = target,
        .watcher_id = watcher.node != HERE && kind == TRI_MONITOR_WATCH ? 77
                                                                        : 0,
    };
}

/* Takes the first message out of a list; it is freed by the caller. */
static struct tri_message *take(struct tri_downs *downs)
{
    struct tri_message *message = downs->first;

    assert_non_null(message);
    downs->first = message->next;
    return message;
}

static void expect_here(struct tri_monitors *monitors, struct tri_downs *downs,
                        uint8_t kind, uint32_t slot, int reason)
{
    struct tri_message *message = take(downs);
    troupe_down_t down;

    memcpy(&down, message->payload, sizeof(down));
    assert_int_equal(message->kind, kind);
    assert_int_equal(message->index, TROUPE_ON_DOWN);
    assert_int_equal(message->slot, slot);
    assert_int_equal(message->sender.node, HERE);
    assert_int_equal(down.reason, reason);
    assert_int_equal(down.node, down.ref.node);
    if (kind == TRI_EVENT)
        assert_int_equal(down.monitor, message->ask);
    assert_true(tri_monitors_met(monitors, message->ask));
    assert_false(tri_monitors_met(monitors, message->ask));
    tri_message_free(message);
}

static void expect_there(struct tri_downs *downs, uint16_t kind, uint32_t slot,
                         uint64_t id, int reason)
{
    struct tri_message *message = take(downs);

    assert_int_equal(message->kind, TRI_DOWN);
    assert_int_equal(message->index, kind);
    assert_int_equal(message->slot, slot);
    assert_int_equal(message->sender.node, THERE);
    assert_int_equal(message->ask, id);
    assert_int_equal(message->value, reason);
    assert_int_equal(message->bytes, 0);
    tri_message_free(message);
}

static void init(struct tri_monitors *monitors, uint32_t max,
                 struct tri_downs *downs)
{
    assert_int_equal(tri_monitors_init(monitors, HERE, max), 0);
    downs->first = NULL;
}

static void add(struct tri_monitors *monitors, enum tri_monitor_kind kind,
                troupe_ref_t watcher, troupe_ref_t target, uint64_t *id_p)
{
    struct tri_monitor_spec spec = spec_of(kind, watcher, target);

    assert_int_equal(tri_monitors_add(monitors, &spec, id_p), 0);
}

static void test_fires_once(void **state)
{
    struct tri_monitors monitors;
    struct tri_downs downs;

    (void)state;
    init(&monitors, 16, &downs);
    add(&monitors, TRI_MONITOR_WATCH, ref_of(HERE, 1), ref_of(HERE, 2), NULL);
    add(&monitors, TRI_MONITOR_WATCH, ref_of(THERE, 5), ref_of(HERE, 2), NULL);
    add(&monitors, TRI_MONITOR_WATCH, ref_of(HERE, 1), ref_of(HERE, 3), NULL);
    tri_monitors_fire_target(&monitors, ref_of(HERE, 2), -7, &downs);
    tri_monitors_fire_target(&monitors, ref_of(HERE, 2), -8, &downs);
    expect_here(&monitors, &downs, TRI_EVENT, 1, -7);
    expect_there(&downs, TRI_MONITOR_WATCH, 5, 77, -7);
    assert_null(downs.first);
    assert_int_equal(tri_monitors_used(&monitors), 1);
    tri_monitors_fini(&monitors);
}

static void test_a_node_dies(void **state)
{
    struct tri_monitors monitors;
    struct tri_downs downs;
    uint64_t id;

    (void)state;
    init(&monitors, 16, &downs);
    add(&monitors, TRI_MONITOR_WATCH, ref_of(HERE, 1), ref_of(THERE, 2), NULL);
    add(&monitors, TRI_MONITOR_WATCH, ref_of(HERE, 1), ref_of(THERE, 0), NULL);
    add(&monitors, TRI_MONITOR_LINK, ref_of(HERE, 4), ref_of(THERE, 3), NULL);
    add(&monitors, TRI_MONITOR_LINK, ref_of(THERE, 3), ref_of(HERE, 4), NULL);
    add(&monitors, TRI_MONITOR_WATCH, ref_of(THERE, 9), ref_of(HERE, 4), NULL);
    add(&monitors, TRI_MONITOR_WATCH, ref_of(HERE, 1), ref_of(3, 2), &id);
    tri_monitors_fire_node(&monitors, THERE, TROUPE_ENODE, &downs);
    expect_here(&monitors, &downs, TRI_EVENT, 1, TROUPE_ENODE);
    expect_here(&monitors, &downs, TRI_EVENT, 1, TROUPE_ENODE);
    expect_here(&monitors, &downs, TRI_LINKED, 4, TROUPE_ENODE);
    assert_null(downs.first);
    assert_int_equal(tri_monitors_used(&monitors), 1);
    /* Another node cannot end what it does not hold. */
    tri_monitors_fire(&monitors, id, THERE, -1, &downs);
    assert_null(downs.first);
    tri_monitors_fire(&monitors, id, 3, -1, &downs);
    expect_here(&monitors, &downs, TRI_EVENT, 1, -1);
    assert_int_equal(tri_monitors_used(&monitors), 0);
    tri_monitors_fini(&monitors);
}

static void test_removed_is_not_met(void **state)
{
    struct tri_monitors monitors;
    struct tri_downs downs;
    struct tri_message *message;
    struct tri_monitor_spec spec;
    uint64_t id;
    bool was_set;

    (void)state;
    init(&monitors, 16, &downs);
    add(&monitors, TRI_MONITOR_WATCH, ref_of(HERE, 1), ref_of(HERE, 2), &id);
    assert_false(tri_monitors_remove(&monitors, ref_of(HERE, 3), id, &spec,
                                     &was_set));
    tri_monitors_fire_target(&monitors, ref_of(HERE, 2), 0, &downs);
    message = take(&downs);
    assert_true(tri_monitors_remove(&monitors, ref_of(HERE, 1), id, &spec,
                                    &was_set));
    assert_false(was_set);
    assert_false(tri_monitors_met(&monitors, message->ask));
    tri_message_free(message);
    /* Its place is used again; the old number names nothing. */
    add(&monitors, TRI_MONITOR_WATCH, ref_of(HERE, 1), ref_of(HERE, 2), NULL);
    assert_false(tri_monitors_remove(&monitors, ref_of(HERE, 1), id, &spec,
                                     &was_set));
    assert_true(tri_monitors_remove_any(&monitors, ref_of(HERE, 1), &spec, &id,
                                        &was_set));
    assert_true(was_set);
    assert_false(tri_monitors_remove_any(&monitors, ref_of(HERE, 1), &spec, &id,
                                         &was_set));
    tri_monitors_fini(&monitors);
}

static void test_links_and_limits(void **state)
{
    struct tri_monitor_spec link = spec_of(TRI_MONITOR_LINK, ref_of(HERE, 1),
                                           ref_of(HERE, 2));
    struct tri_monitors monitors;
    struct tri_downs downs;
    uint64_t id;

    (void)state;
    init(&monitors, 300, &downs);
    assert_int_equal(tri_monitors_add(&monitors, &link, NULL), 0);
    assert_int_equal(tri_monitors_add(&monitors, &link, NULL), TROUPE_EEXIST);
    tri_monitors_fire_target(&monitors, ref_of(HERE, 2), 0, &downs);
    assert_null(downs.first); /* it stopped */
    assert_int_equal(tri_monitors_used(&monitors), 0);
    for (int i = 0; i < 300; i++)
        add(&monitors, TRI_MONITOR_WATCH, ref_of(HERE, 1), ref_of(HERE, 2),
            &id);
    assert_int_equal(tri_monitors_add(&monitors, &link, NULL), TROUPE_ELIMIT);
    tri_monitors_fire(&monitors, id, HERE, -3, &downs);
    expect_here(&monitors, &downs, TRI_EVENT, 1, -3);
    assert_int_equal(tri_monitors_add(&monitors, &link, NULL), 0);
    tri_monitors_fini(&monitors);
}

/* --- actors --------------------------------------------------------------- */

#define eye_messages(TELL, ASK)                                               \
    TELL(eye, watch, (troupe_ref_t ref; int32_t times;))                      \
    TELL(eye, unwatch, ())                                                    \
    TELL(eye, tie, (troupe_ref_t ref;))                                       \
    TELL(eye, untie, (troupe_ref_t ref;))                                     \
    TELL(eye, put, ())                                                        \
    TELL(eye, end, (eye_ref_t to; int32_t puts; int32_t error;))              \
    ASK(eye, seen, (),                                                        \
        (int32_t downs; int32_t reason; int32_t puts; int32_t puts_at_down;   \
         int32_t error; int32_t is_link; troupe_ref_t ref;))
TROUPE_PROTOCOL(eye)

struct eye {
    eye_seen_result_t seen;
    troupe_monitor_t monitor; /* the last */
};

static atomic_int reasons[2]; /* of the last two ends, oldest first */

static int on_watch(troupe_self_t *self, struct eye *e, const eye_watch_t *m)
{
    e->seen.error = 0;
    for (int i = 0; i < m->times && e->seen.error == 0; i++)
        e->seen.error = troupe_monitor(self, m->ref, &e->monitor);
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

static int on_end(troupe_self_t *self, struct eye *e, const eye_end_t *m)
{
    (void)e;
    for (int i = 0; i < m->puts; i++)
        if (eye_put(self, m->to, (eye_put_t){}) != 0)
            return TROUPE_E_USER;
    if (m->error == 0)
        troupe_exit(self);
    return m->error;
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

static void on_stop(troupe_self_t *self, struct eye *e, int reason)
{
    (void)self, (void)e;
    atomic_store(&reasons[0], atomic_load(&reasons[1]));
    atomic_store(&reasons[1], reason);
}

TROUPE_ACTOR(eye, struct eye, .watch = on_watch, .unwatch = on_unwatch,
             .tie = on_tie, .untie = on_untie, .put = on_put, .end = on_end,
             .seen = on_seen, .on_down = on_down, .on_stop = on_stop)
TROUPE_ACTOR_AS(blind, eye, struct eye, .watch = on_watch, .tie = on_tie,
                .untie = on_untie, .put = on_put, .end = on_end,
                .seen = on_seen, .on_stop = on_stop)

struct stage {
    troupe_t *troupe;
    eye_ref_t a, b;
};

static void raise_stage(struct stage *stage, int workers, bool blind)
{
    troupe_options_t options;

    troupe_options_init(&options);
    options.workers = workers;
    options.monitors_max = 64;
    assert_int_equal(troupe_start(&stage->troupe, &options), 0);
    assert_int_equal(
        (blind ? blind_spawn : eye_spawn)(stage->troupe, NULL, NULL,
                                          &stage->a),
        0);
    assert_int_equal(
        (blind ? blind_spawn : eye_spawn)(stage->troupe, NULL, NULL,
                                          &stage->b),
        0);
}

static eye_seen_result_t seen(struct stage *stage, eye_ref_t who)
{
    eye_seen_result_t result;

    assert_int_equal(eye_seen(stage->troupe, who, (eye_seen_t){}, SOON_MS,
                              &result),
                     0);
    return result;
}

/* What it has seen once so many ends were told to it. Who waits for an end in a
 * call may hear of it, or find nobody any more, before others are told. */
static eye_seen_result_t seen_downs(struct stage *stage, eye_ref_t who,
                                    int32_t downs)
{
    uint64_t until = tri_deadline_ns(SOON_MS);
    eye_seen_result_t result = seen(stage, who);

    while (result.downs < downs && tri_now_ns() < until)
        result = seen(stage, who);
    assert_int_equal(result.downs, downs);
    return result;
}

/* Ends b; returns when it is gone. */
static void end_b(struct stage *stage, int puts, int error)
{
    eye_end_t end = { .to = stage->a, .puts = puts, .error = error };
    int reason = 1;

    assert_int_equal(eye_end(stage->troupe, stage->b, end), 0);
    assert_int_equal(troupe_wait_down(stage->troupe, stage->b.ref, SOON_MS,
                                      &reason),
                     0);
    assert_true(reason == error || reason == TROUPE_ENOACTOR);
}

static void lower_stage(struct stage *stage)
{
    assert_int_equal(troupe_stop(&stage->troupe), 0);
}

/* Stopped, failed, never there: one on_down, with why, behind all messages. */
static void test_monitor(void **state)
{
    static const int errors[] = { 0, TROUPE_EFAILED, TROUPE_E_USER - 3 };
    struct stage stage;

    (void)state;
    for (size_t i = 0; i < tri_array_len(errors); i++) {
        eye_seen_result_t result;

        raise_stage(&stage, 2, false);
        eye_watch(stage.troupe, stage.a, (eye_watch_t){ stage.b.ref, 1 });
        assert_int_equal(seen(&stage, stage.a).error, 0);
        end_b(&stage, PUTS, errors[i]);
        result = seen_downs(&stage, stage.a, 1);
        assert_int_equal(result.reason, errors[i]);
        assert_int_equal(result.puts_at_down, PUTS);
        assert_int_equal(result.is_link, 0);
        assert_true(troupe_ref_equal(result.ref, stage.b.ref));
        eye_watch(stage.troupe, stage.a, (eye_watch_t){ stage.b.ref, 2 });
        result = seen(&stage, stage.a);
        result = seen(&stage, stage.a);
        assert_int_equal(result.downs, 3);
        assert_int_equal(result.reason, TROUPE_ENOACTOR);
        lower_stage(&stage);
    }
}

static void test_demonitor(void **state)
{
    struct stage stage;

    (void)state;
    raise_stage(&stage, 0, false);
    /* Before the end, and when on_down is on its way already. */
    eye_watch(stage.troupe, stage.a, (eye_watch_t){ stage.b.ref, 1 });
    eye_unwatch(stage.troupe, stage.a, (eye_unwatch_t){});
    end_b(&stage, 0, TROUPE_EFAILED);
    assert_int_equal(seen(&stage, stage.a).downs, 0);
    assert_int_equal(seen(&stage, stage.a).error, 0);
    eye_watch(stage.troupe, stage.a, (eye_watch_t){ stage.b.ref, 1 });
    eye_unwatch(stage.troupe, stage.a, (eye_unwatch_t){});
    assert_int_equal(seen(&stage, stage.a).error, 0);
    assert_int_equal(seen(&stage, stage.a).downs, 0);
    eye_unwatch(stage.troupe, stage.a, (eye_unwatch_t){});
    assert_int_equal(seen(&stage, stage.a).error, TROUPE_EINVAL);
    lower_stage(&stage);
}

static void test_limit(void **state)
{
    struct stage stage;

    (void)state;
    raise_stage(&stage, 1, false);
    eye_watch(stage.troupe, stage.a, (eye_watch_t){ stage.b.ref, 65 });
    assert_int_equal(seen(&stage, stage.a).error, TROUPE_ELIMIT);
    assert_int_equal(troupe_wait_down(stage.troupe, stage.b.ref, SOON_MS, NULL),
                     TROUPE_ELIMIT);
    /* With one less there is no room for a link, which takes two, but for a
     * thread that waits. */
    eye_unwatch(stage.troupe, stage.a, (eye_unwatch_t){});
    eye_tie(stage.troupe, stage.a, (eye_tie_t){ stage.b.ref });
    assert_int_equal(seen(&stage, stage.a).error, TROUPE_ELIMIT);
    end_b(&stage, 0, TROUPE_EFAILED);
    seen_downs(&stage, stage.a, 63);
    lower_stage(&stage);
}

static uint32_t used(struct stage *stage)
{
    return tri_monitors_used(&((struct tri_runtime *)stage->troupe)->monitors);
}

static int is_unused(void *arg)
{
    return used(arg) == 0;
}

/* An end is told one by one: some may hear of it before all have. */
static void check_unused(struct stage *stage)
{
    uint64_t until = tri_deadline_ns(SOON_MS);

    while (!is_unused(stage) && tri_now_ns() < until)
        troupe_serve_until(stage->troupe, is_unused, stage, 1);
    assert_int_equal(used(stage), 0);
}

/* A watcher's end takes its monitors along. */
static void test_watcher_ends(void **state)
{
    struct stage stage;
    eye_ref_t c;

    (void)state;
    raise_stage(&stage, 1, false);
    assert_int_equal(eye_spawn(stage.troupe, NULL, NULL, &c), 0);
    eye_watch(stage.troupe, stage.b, (eye_watch_t){ stage.a.ref, 5 });
    eye_tie(stage.troupe, stage.b, (eye_tie_t){ c.ref });
    assert_int_equal(seen(&stage, stage.b).error, 0);
    assert_int_equal(used(&stage), 7);
    end_b(&stage, 0, 0);
    assert_int_equal(seen(&stage, c).downs, 0);
    check_unused(&stage);
    lower_stage(&stage);
}

static void test_link_fails(void **state)
{
    struct stage stage;
    int reason = 0;

    (void)state;
    raise_stage(&stage, 2, true);
    eye_tie(stage.troupe, stage.a, (eye_tie_t){ stage.b.ref });
    assert_int_equal(seen(&stage, stage.a).error, 0);
    end_b(&stage, PUTS, TROUPE_EFAILED);
    assert_int_equal(troupe_wait_down(stage.troupe, stage.a.ref, SOON_MS,
                                      &reason),
                     0);
    assert_true(reason == TROUPE_ELINKED || reason == TROUPE_ENOACTOR);
    check_unused(&stage);
    lower_stage(&stage); /* on_stop of both was called */
    assert_int_equal(atomic_load(&reasons[0]), TROUPE_EFAILED);
    assert_int_equal(atomic_load(&reasons[1]), TROUPE_ELINKED);
}

static void test_link_is_trapped(void **state)
{
    struct stage stage;
    eye_seen_result_t result;

    (void)state;
    raise_stage(&stage, 2, false);
    eye_tie(stage.troupe, stage.b, (eye_tie_t){ stage.a.ref });
    assert_int_equal(seen(&stage, stage.b).error, 0);
    end_b(&stage, PUTS, TROUPE_E_USER);
    result = seen_downs(&stage, stage.a, 1);
    assert_int_equal(result.reason, TROUPE_E_USER);
    assert_int_equal(result.is_link, 1);
    assert_int_equal(result.puts_at_down, PUTS);
    check_unused(&stage);
    /* One to nobody fails at once. */
    eye_tie(stage.troupe, stage.a, (eye_tie_t){ stage.b.ref });
    assert_int_equal(seen(&stage, stage.a).error, 0);
    result = seen(&stage, stage.a);
    assert_int_equal(result.downs, 2);
    assert_int_equal(result.reason, TROUPE_ENOACTOR);
    lower_stage(&stage);
}

static void test_link_ends_silently(void **state)
{
    struct stage stage;

    (void)state;
    raise_stage(&stage, 1, true);
    eye_tie(stage.troupe, stage.a, (eye_tie_t){ stage.b.ref });
    eye_tie(stage.troupe, stage.b, (eye_tie_t){ stage.a.ref });
    assert_int_equal(seen(&stage, stage.a).error, 0);
    assert_int_equal(seen(&stage, stage.b).error, 0);
    assert_int_equal(used(&stage), 2);
    end_b(&stage, 0, 0);
    assert_int_equal(seen(&stage, stage.a).downs, 0);
    check_unused(&stage);
    lower_stage(&stage);
}

static void test_unlink(void **state)
{
    struct stage stage;

    (void)state;
    raise_stage(&stage, 1, true);
    eye_tie(stage.troupe, stage.a, (eye_tie_t){ stage.b.ref });
    eye_untie(stage.troupe, stage.a, (eye_untie_t){ stage.b.ref });
    assert_int_equal(seen(&stage, stage.a).error, 0);
    eye_untie(stage.troupe, stage.a, (eye_untie_t){ stage.b.ref });
    assert_int_equal(seen(&stage, stage.a).error, TROUPE_EINVAL);
    end_b(&stage, 0, TROUPE_EFAILED);
    assert_int_equal(seen(&stage, stage.a).downs, 0);
    lower_stage(&stage);
}

static void test_wait_down(void **state)
{
    struct stage stage;
    int reason = 1;

    (void)state;
    raise_stage(&stage, 1, false);
    assert_int_equal(troupe_wait_down(stage.troupe, stage.b.ref, 20, &reason),
                     TROUPE_ETIMEDOUT);
    check_unused(&stage);
    assert_int_equal(troupe_stop_actor(stage.troupe, stage.b.ref), 0);
    assert_int_equal(troupe_wait_down(stage.troupe, stage.b.ref, SOON_MS,
                                      &reason),
                     0);
    assert_true(reason == 0 || reason == TROUPE_ENOACTOR);
    assert_int_equal(troupe_wait_down(stage.troupe, stage.b.ref, SOON_MS,
                                      &reason),
                     0);
    assert_int_equal(reason, TROUPE_ENOACTOR);
    assert_int_equal(troupe_wait_down(stage.troupe, (troupe_ref_t){ 0 }, 1,
                                      &reason),
                     TROUPE_EINVAL);
    assert_int_equal(troupe_wait_down(stage.troupe,
                                      (troupe_ref_t){ 99, 1, 1 }, SOON_MS,
                                      &reason),
                     0);
    assert_int_equal(reason, TROUPE_ENODE);
    lower_stage(&stage);
}

/* --- races ---------------------------------------------------------------- */

#define ROUNDS 2000

/* Ends come while monitors are set: each tells exactly once, and nothing stays
 * in the table. */
static void test_race_with_the_end(void **state)
{
    struct stage stage;
    struct tri_random random;
    int expected = 0;

    (void)state;
    tri_random_init(&random, unit_seed("race_with_the_end"));
    raise_stage(&stage, 3, false);
    for (int i = 0; i < ROUNDS; i++) {
        eye_ref_t victim;
        int times = 1 + (int)tri_random_below(&random, 3);
        bool before = tri_random_below(&random, 2) != 0;

        assert_int_equal(eye_spawn(stage.troupe, NULL, NULL, &victim), 0);
        if (before)
            troupe_stop_actor(stage.troupe, victim.ref);
        eye_watch(stage.troupe, stage.a, (eye_watch_t){ victim.ref, times });
        if (!before)
            troupe_stop_actor(stage.troupe, victim.ref);
        expected += times;
        if (i % 8 == 7) /* monitors_max is small */
            while (seen(&stage, stage.a).downs < expected)
                ;
        assert_int_equal(seen(&stage, stage.a).error, 0);
    }
    assert_int_equal(seen(&stage, stage.a).downs, expected);
    check_unused(&stage);
    lower_stage(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fires_once),
        cmocka_unit_test(test_a_node_dies),
        cmocka_unit_test(test_removed_is_not_met),
        cmocka_unit_test(test_links_and_limits),
        cmocka_unit_test(test_monitor),
        cmocka_unit_test(test_demonitor),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_watcher_ends),
        cmocka_unit_test(test_link_fails),
        cmocka_unit_test(test_link_is_trapped),
        cmocka_unit_test(test_link_ends_silently),
        cmocka_unit_test(test_unlink),
        cmocka_unit_test(test_wait_down),
        cmocka_unit_test(test_race_with_the_end),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
