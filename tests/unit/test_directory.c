/* SPDX-License-Identifier: BSD-3-Clause */
/* Names of one node, through the public calls: lists, watches, addresses. */
#include "unit.h"

#include <troupe.h>

enum { SOON_MS = 20000 };

#define post_messages(TELL, ASK)                                              \
    ASK(post, watch, (int32_t which;), (int32_t rc; uint32_t watch;))         \
    ASK(post, unwatch, (uint32_t watch;), (int32_t unused;))                  \
    ASK(post, find, (), (int32_t rc;))                                        \
    ASK(post, leave, (), (int32_t unused;))
TROUPE_PROTOCOL(post)

struct post {
    int32_t unused;
};

static const char *const prefixes[] = { "a/", NULL, "a/b/c" };

static troupe_name_event_t events[64];
static _Atomic uint32_t events_len;

static int on_watch(troupe_self_t *self, struct post *p, const post_watch_t *m)
{
    post_watch_result_t result = { .watch = 0 };

    (void)p;
    result.rc = troupe_names_watch(self, prefixes[m->which], &result.watch);
    return post_watch_reply(self, result);
}

static int on_unwatch(troupe_self_t *self, struct post *p,
                      const post_unwatch_t *m)
{
    (void)p;
    troupe_names_unwatch(self, m->watch);
    return post_unwatch_reply(self, (post_unwatch_result_t){ 0 });
}

static int on_find(troupe_self_t *self, struct post *p, const post_find_t *m)
{
    post_ref_t ref;

    (void)p, (void)m;
    return post_find_reply(self, (post_find_result_t){ post_resolve(
                                     self, "actor:///a/b", 0, &ref) });
}

static int on_leave(troupe_self_t *self, struct post *p, const post_leave_t *m)
{
    (void)p, (void)m;
    troupe_exit(self);
    return post_leave_reply(self, (post_leave_result_t){ 0 });
}

static int on_name(troupe_self_t *self, struct post *p,
                   const troupe_name_event_t *event)
{
    (void)p;
    events[atomic_load(&events_len)] = *event;
    atomic_fetch_add(&events_len, 1);
    troupe_wake(self);
    return 0;
}

TROUPE_ACTOR(post, struct post, .watch = on_watch, .unwatch = on_unwatch,
             .find = on_find, .leave = on_leave, .on_name = on_name)

static troupe_t *start(void)
{
    troupe_options_t options;
    troupe_t *troupe;

    troupe_options_init(&options);
    options.names_max = 16;
    assert_int_equal(troupe_start(&troupe, &options), 0);
    atomic_store(&events_len, 0);
    return troupe;
}

static int has_events(void *arg)
{
    return atomic_load(&events_len) >= *(uint32_t *)arg;
}

static void await_events(troupe_t *troupe, uint32_t len)
{
    assert_int_equal(troupe_serve_until(troupe, has_events, &len, SOON_MS), 0);
    assert_int_equal(atomic_load(&events_len), len);
}

static post_ref_t spawn(troupe_t *troupe, const char *name, const char *tags)
{
    troupe_spawn_options_t options = { .name = name, .tags = tags };
    post_ref_t ref;

    assert_int_equal(post_spawn_with(troupe, &options, NULL, &ref), 0);
    return ref;
}

static void leave(troupe_t *troupe, post_ref_t ref)
{
    assert_int_equal(post_leave(troupe, ref, (post_leave_t){}, SOON_MS, NULL),
                     0);
}

static void expect_event(uint32_t i, uint32_t what, const char *name,
                         post_ref_t ref)
{
    assert_int_equal(events[i].what, what);
    assert_string_equal(events[i].name, name);
    assert_true(troupe_ref_equal(events[i].ref, ref.ref));
}

static void test_list(void **state)
{
    troupe_t *troupe = start();
    troupe_name_t names[4];
    post_ref_t b, a;

    (void)state;
    assert_int_equal(troupe_names_list(troupe, NULL, NULL, 0), 0);
    b = spawn(troupe, "a/b", "x=1");
    a = spawn(troupe, "a/a", NULL);
    spawn(troupe, "ab", NULL);
    spawn(troupe, NULL, NULL);
    assert_int_equal(troupe_names_list(troupe, NULL, NULL, 0), 3);
    assert_int_equal(troupe_names_list(troupe, "zz", names, 4), 0);
    assert_int_equal(troupe_names_list(troupe, "a/", names, 4), 2);
    assert_string_equal(names[0].name, "a/a");
    assert_string_equal(names[0].tags, "");
    assert_true(troupe_ref_equal(names[0].ref, a.ref));
    assert_string_equal(names[1].name, "a/b");
    assert_string_equal(names[1].tags, "x=1");
    assert_true(troupe_ref_equal(names[1].ref, b.ref));
    assert_int_equal(names[1].suspect, 0);
    assert_int_equal(troupe_names_list(troupe, "a", names, 1), 3);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_watch(void **state)
{
    troupe_t *troupe = start();
    post_ref_t watcher = spawn(troupe, "watcher", NULL);
    post_ref_t b = spawn(troupe, "a/b", "x=1"), c;
    post_watch_result_t watch;

    (void)state;
    assert_int_equal(post_watch(troupe, watcher, (post_watch_t){ 0 }, SOON_MS,
                                &watch),
                     0);
    assert_int_equal(watch.rc, 0);
    assert_int_not_equal(watch.watch, 0);
    await_events(troupe, 1); /* what was there */
    expect_event(0, TROUPE_NAME_ADDED, "a/b", b);
    assert_string_equal(events[0].tags, "x=1");
    assert_int_equal(events[0].watch, watch.watch);
    spawn(troupe, "b/c", NULL);
    c = spawn(troupe, "a/c", NULL);
    leave(troupe, b);
    await_events(troupe, 3);
    expect_event(1, TROUPE_NAME_ADDED, "a/c", c);
    expect_event(2, TROUPE_NAME_REMOVED, "a/b", b);
    assert_int_equal(post_unwatch(troupe, watcher,
                                  (post_unwatch_t){ watch.watch }, SOON_MS,
                                  NULL),
                     0);
    spawn(troupe, "a/d", NULL);
    /* a new one is told of all; of nothing in between was it told twice */
    assert_int_equal(post_watch(troupe, watcher, (post_watch_t){ 1 }, SOON_MS,
                                &watch),
                     0);
    await_events(troupe, 3 + 4);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* Places of watchers that have ended are used again; a name that is given back
 * leaves room some time later, not at once. */
static void test_watchers_end(void **state)
{
    troupe_t *troupe = start();
    post_watch_result_t watch;

    (void)state;
    for (int i = 0; i < 5000; i++) {
        post_ref_t watcher = spawn(troupe, NULL, NULL);

        assert_int_equal(post_watch(troupe, watcher, (post_watch_t){ 2 },
                                    SOON_MS, &watch),
                         0);
        assert_int_equal(watch.rc, 0);
        leave(troupe, watcher);
    }
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_names_are_bounded(void **state)
{
    troupe_t *troupe = start();
    post_ref_t ref;
    char name[16];

    (void)state;
    for (int i = 0; i < 16; i++) {
        snprintf(name, sizeof(name), "n.%d", i);
        spawn(troupe, name, NULL);
    }
    assert_int_equal(post_spawn(troupe, "more", NULL, &ref), TROUPE_ELIMIT);
    /* nobody has a name that was refused */
    assert_int_equal(post_resolve(troupe, "actor://localhost/more", 10, &ref),
                     TROUPE_ENONAME);
    spawn(troupe, NULL, NULL);
    assert_int_equal(troupe_stop(&troupe), 0);
}

struct late {
    troupe_t *troupe;
    post_ref_t found;
    int rc;
};

static void *wait_for_name(void *arg)
{
    struct late *late = arg;

    late->rc = post_resolve(late->troupe, "actor:///late", SOON_MS,
                            &late->found);
    return NULL;
}

/* A thread waits for a name; another names an actor. */
static void test_resolve_waits(void **state)
{
    struct late late = { .troupe = start() };
    pthread_t thread = unit_thread(wait_for_name, &late);
    post_ref_t ref;

    (void)state;
    troupe_serve(late.troupe, 20); /* it waits, as a rule */
    ref = spawn(late.troupe, "late", NULL);
    unit_join(thread);
    assert_int_equal(late.rc, 0);
    assert_true(troupe_ref_equal(late.found.ref, ref.ref));
    assert_int_equal(troupe_stop(&late.troupe), 0);
}

static void test_resolve_in_handler(void **state)
{
    troupe_t *troupe = start();
    post_ref_t asker = spawn(troupe, "asker", NULL);
    post_find_result_t found;

    (void)state;
    assert_int_equal(post_find(troupe, asker, (post_find_t){}, SOON_MS,
                               &found),
                     0);
    assert_int_equal(found.rc, TROUPE_ENONAME);
    spawn(troupe, "a/b", NULL);
    assert_int_equal(post_find(troupe, asker, (post_find_t){}, SOON_MS,
                               &found),
                     0);
    assert_int_equal(found.rc, 0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_ids(void **state)
{
    troupe_t *troupe = start();
    post_ref_t ref = spawn(troupe, NULL, NULL), found;
    char address[TROUPE_ADDRESS_BYTES];

    (void)state;
    assert_int_equal(troupe_address_format(ref.ref, address, sizeof(address)),
                     0);
    assert_int_equal(post_resolve(troupe, address, 10, &found), 0);
    assert_true(troupe_ref_equal(found.ref, ref.ref));
    leave(troupe, ref);
    /* its end comes right after the answer */
    while (post_resolve(troupe, address, 10, &found) == 0)
        troupe_serve(troupe, 1);
    assert_int_equal(post_resolve(troupe, address, 10, &found),
                     TROUPE_ENOACTOR);
    assert_int_equal(
        post_resolve(troupe, "actor://00000000deadbeef/1.1", 10, &found),
        TROUPE_ENODE);
    assert_int_equal(post_resolve(troupe, "actor://nobody/x", 10, &found),
                     TROUPE_ENODE);
    assert_int_equal(troupe_stop(&troupe), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_watchers_end),
        cmocka_unit_test(test_names_are_bounded),
        cmocka_unit_test(test_resolve_waits),
        cmocka_unit_test(test_resolve_in_handler),
        cmocka_unit_test(test_ids),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
