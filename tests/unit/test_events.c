/* SPDX-License-Identifier: BSD-3-Clause */
/* Events of other layers: they reach an actor's optional handlers. */
#include "unit.h"

#include <troupe.h>

#include "actor/runtime.h"
#include "message/pool.h"

enum { SOON_MS = 10000 };

/* Stand in for the events of those layers: handlers get what was given. */
struct member {
    uint64_t node;
};

struct name {
    char name[8];
};

#define ear_messages(TELL, ASK)                                               \
    TELL(ear, count, (int32_t unused;))                                       \
    ASK(ear, heard, (),                                                       \
        (uint64_t node; char name[8]; int32_t reason; int32_t order;          \
         int32_t counts;))
TROUPE_PROTOCOL(ear)

struct ear {
    ear_heard_result_t heard;
};

static int on_count(troupe_self_t *self, struct ear *e, const ear_count_t *m)
{
    (void)self, (void)m;
    e->heard.counts++;
    return 0;
}

static int on_heard(troupe_self_t *self, struct ear *e, const ear_heard_t *m)
{
    (void)m;
    return ear_heard_reply(self, e->heard);
}

static int on_down(troupe_self_t *self, struct ear *e,
                   const troupe_down_t *down)
{
    (void)self;
    e->heard.reason = down->reason;
    e->heard.order = e->heard.counts;
    return 0;
}

static int on_member(troupe_self_t *self, struct ear *e,
                     const troupe_member_event_t *event)
{
    (void)self;
    e->heard.node = ((const struct member *)(const void *)event)->node;
    return 0;
}

static int on_name(troupe_self_t *self, struct ear *e,
                   const troupe_name_event_t *event)
{
    (void)self;
    memcpy(e->heard.name, event, sizeof(e->heard.name));
    return 0;
}

static int fail_on_member(troupe_self_t *self, struct ear *e,
                          const troupe_member_event_t *event)
{
    (void)self, (void)e, (void)event;
    return TROUPE_EFAILED;
}

TROUPE_ACTOR(ear, struct ear, .count = on_count, .heard = on_heard,
             .on_down = on_down, .on_member = on_member, .on_name = on_name)
TROUPE_ACTOR_AS(deaf, ear, struct ear, .count = on_count, .heard = on_heard)
TROUPE_ACTOR_AS(frail, ear, struct ear, .heard = on_heard,
                .on_member = fail_on_member)

static troupe_t *start(void)
{
    troupe_options_t options;
    troupe_t *troupe;

    troupe_options_init(&options);
    options.workers = 0; /* nothing runs before this thread waits */
    assert_int_equal(troupe_start(&troupe, &options), 0);
    return troupe;
}

static void stop(troupe_t *troupe)
{
    assert_int_equal(troupe_stop(&troupe), 0);
}

static int tell_event(troupe_t *troupe, ear_ref_t ear, unsigned index,
                      const void *payload, size_t bytes)
{
    return tri_actor_event((struct tri_runtime *)troupe, ear.ref.slot,
                           ear.ref.generation, index, payload, bytes);
}

static void test_each_handler(void **state)
{
    troupe_t *troupe = start();
    troupe_down_t down = { .reason = -7 };
    struct member member = { .node = 77 };
    struct name name = { .name = "alice" };
    ear_heard_result_t heard;
    ear_ref_t ear;

    (void)state;
    assert_int_equal(ear_spawn(troupe, NULL, NULL, &ear), 0);
    assert_int_equal(ear_count(troupe, ear, (ear_count_t){ 0 }), 0);
    assert_int_equal(
        tell_event(troupe, ear, TROUPE_ON_DOWN, &down, sizeof(down)), 0);
    assert_int_equal(ear_count(troupe, ear, (ear_count_t){ 0 }), 0);
    assert_int_equal(
        tell_event(troupe, ear, TROUPE_ON_MEMBER, &member, sizeof(member)), 0);
    assert_int_equal(
        tell_event(troupe, ear, TROUPE_ON_NAME, &name, sizeof(name)), 0);
    assert_int_equal(ear_heard(troupe, ear, (ear_heard_t){}, SOON_MS, &heard),
                     0);
    assert_int_equal(heard.reason, -7);
    assert_int_equal(heard.order, 1); /* between the two counts */
    assert_int_equal(heard.counts, 2);
    assert_int_equal(heard.node, 77);
    assert_string_equal(heard.name, "alice");
    stop(troupe);
}

static void test_without_handlers(void **state)
{
    troupe_t *troupe = start();
    struct member member = { .node = 77 };
    troupe_down_t down = { .reason = -7 };
    ear_heard_result_t heard;
    ear_ref_t ear;

    (void)state;
    assert_int_equal(deaf_spawn(troupe, NULL, NULL, &ear), 0);
    assert_int_equal(
        tell_event(troupe, ear, TROUPE_ON_MEMBER, &member, sizeof(member)), 0);
    assert_int_equal(
        tell_event(troupe, ear, TROUPE_ON_DOWN, &down, sizeof(down)), 0);
    assert_int_equal(ear_heard(troupe, ear, (ear_heard_t){}, SOON_MS, &heard),
                     0);
    assert_int_equal(heard.node, 0);
    assert_int_equal(heard.reason, 0);
    stop(troupe);
}

/* The actor fails as with any handler; then there is nobody to be told. */
static void test_a_handler_fails(void **state)
{
    troupe_t *troupe = start();
    struct member member = { .node = 77 };
    ear_ref_t ear;

    (void)state;
    assert_int_equal(frail_spawn(troupe, NULL, NULL, &ear), 0);
    assert_int_equal(
        tell_event(troupe, ear, TROUPE_ON_MEMBER, &member, sizeof(member)), 0);
    assert_int_equal(ear_heard(troupe, ear, (ear_heard_t){}, SOON_MS, NULL),
                     TROUPE_ENOACTOR);
    assert_int_equal(
        tell_event(troupe, ear, TROUPE_ON_MEMBER, &member, sizeof(member)),
        TROUPE_ENOACTOR);
    stop(troupe);
}

/* Whatever the policy of a full mailbox is, events come in and stay. */
static void test_a_full_mailbox(void **state)
{
    (void)state;
    for (uint32_t policy = TROUPE_WAIT; policy <= TROUPE_DEAD_LETTER;
         policy++) {
        troupe_spawn_options_t options = { .mailbox_len_max = 4,
                                           .overflow = policy };
        struct member member = { .node = 78 };
        troupe_t *troupe = start();
        ear_heard_result_t heard;
        ear_ref_t ear;

        assert_int_equal(ear_spawn_with(troupe, &options, NULL, &ear), 0);
        for (int i = 0; i < 4; i++)
            assert_int_equal(ear_count(troupe, ear, (ear_count_t){ 0 }), 0);
        assert_int_equal(tell_event(troupe, ear, TROUPE_ON_MEMBER, &member,
                                    sizeof(member)),
                         0);
        if (policy == TROUPE_DROP_OLD) /* drops a count, not the event */
            assert_int_equal(ear_count(troupe, ear, (ear_count_t){ 0 }), 0);
        assert_int_equal(troupe_serve(troupe, 0), 0);
        assert_int_equal(
            ear_heard(troupe, ear, (ear_heard_t){}, SOON_MS, &heard), 0);
        assert_int_equal(heard.node, 78);
        assert_in_range(heard.counts, 3, 4);
        stop(troupe);
    }
}

/* A monitor or link that never got to its node must not stay silent. */
static void test_what_did_not_arrive(void **state)
{
    static struct tri_peer peer = { .node = 77 };
    troupe_t *troupe = start();
    struct tri_runtime *runtime = (struct tri_runtime *)troupe;
    struct tri_link_events events = tri_delivery_link_events(runtime);
    ear_heard_result_t heard;
    ear_ref_t ear;

    (void)state;
    assert_int_equal(ear_spawn(troupe, NULL, NULL, &ear), 0);
    for (int kind = TRI_MONITOR_WATCH; kind <= TRI_MONITOR_LINK; kind++) {
        struct tri_monitor_spec spec = { .kind = (enum tri_monitor_kind)kind,
                                         .watcher = ear.ref,
                                         .target = { 77, 1, 1 } };
        struct tri_message *message = tri_message_alloc(0);
        int reason = TROUPE_ETRANSPORT - kind;

        assert_non_null(message);
        message->kind = kind == TRI_MONITOR_LINK ? TRI_LINK : TRI_MONITOR;
        message->index = (uint16_t)kind;
        message->sender = spec.watcher;
        message->slot = spec.target.slot;
        message->generation = spec.target.generation;
        assert_int_equal(
            tri_monitors_add(&runtime->monitors, &spec, &message->ask), 0);
        if (kind == TRI_MONITOR_LINK)
            message->ask = 0;
        events.undelivered(events.context, &peer, message, reason);
        assert_int_equal(
            ear_heard(troupe, ear, (ear_heard_t){}, SOON_MS, &heard), 0);
        assert_int_equal(heard.reason, reason);
        assert_int_equal(tri_monitors_used(&runtime->monitors), 0);
    }
    stop(troupe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_handler),
        cmocka_unit_test(test_without_handlers),
        cmocka_unit_test(test_a_handler_fails),
        cmocka_unit_test(test_a_full_mailbox),
        cmocka_unit_test(test_what_did_not_arrive),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
