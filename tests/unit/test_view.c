/* SPDX-License-Identifier: BSD-3-Clause */
#include "unit.h"

#include <troupe.h>

#include "group/view_internal.h"
#include "tensor/front.h"

enum { SOON_MS = 20000 };

/* Groups of a node that is alone: what needs nobody else. */

static troupe_t *start(void)
{
    troupe_options_t options;
    troupe_t *troupe;

    troupe_options_init(&options);
    options.mpi = "off";
    assert_int_equal(troupe_start(&troupe, &options), 0);
    return troupe;
}

static void test_alone(void **state)
{
    troupe_t *troupe = start();
    troupe_group_t *group, *other = NULL;
    troupe_view_t view;

    (void)state;
    assert_int_equal(troupe_group_create(troupe, "one", NULL, &group), 0);
    troupe_group_view(group, &view);
    assert_int_equal(view.epoch, 1);
    assert_int_equal(view.len, 1);
    assert_int_equal(view.active, 1);
    assert_int_equal(view.index, 0);
    assert_true(troupe_group_node(group, 0) == troupe_node_id(troupe));
    assert_true(troupe_group_node(group, 1) == 0);
    assert_int_equal(troupe_group_is_changing(group), 0);
    assert_int_equal(troupe_group_update(group, 1, SOON_MS, &view), 0);
    assert_int_equal(view.epoch, 1);
    assert_int_equal(troupe_group_create(troupe, "one", NULL, &other),
                     TROUPE_EEXIST);
    assert_int_equal(troupe_group_join(troupe, "one", NULL, &other),
                     TROUPE_EEXIST);
    assert_null(other);
    assert_int_equal(troupe_group_leave(&group, SOON_MS), 0);
    assert_null(group);
    assert_int_equal(troupe_group_create(troupe, "one", NULL, &group), 0);
    assert_int_equal(troupe_stop(&troupe), 0); /* closes it */
}

static void test_table_is_bounded(void **state)
{
    troupe_group_t *groups[65] = { NULL };
    troupe_t *troupe = start();
    char name[16];

    (void)state;
    for (int i = 0; i < 64; i++) {
        snprintf(name, sizeof(name), "g%d", i);
        assert_int_equal(troupe_group_create(troupe, name, NULL, &groups[i]),
                         0);
    }
    assert_int_equal(troupe_group_create(troupe, "more", NULL, &groups[64]),
                     TROUPE_ELIMIT);
    troupe_group_close(&groups[7]);
    assert_int_equal(troupe_group_create(troupe, "more", NULL, &groups[64]),
                     0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_arguments(void **state)
{
    troupe_t *troupe = start();
    uint64_t own = troupe_node_id(troupe), stranger = own + 1;
    uint64_t list[] = { own, stranger };
    troupe_group_options_t options;
    troupe_group_t *group = NULL;

    (void)state;
    troupe_group_options_init(&options);
    options.timeout_ms = 50;
    assert_int_equal(troupe_group_update(NULL, 0, 0, NULL), TROUPE_EINVAL);
    assert_int_equal(troupe_group_leave(NULL, 0), TROUPE_EINVAL);
    assert_int_equal(troupe_group_leave(&group, 0), TROUPE_EINVAL);
    assert_int_equal(
        troupe_group_create_of(troupe, "x", &stranger, 1, &options, &group),
        TROUPE_EINVAL);
    assert_int_equal(
        troupe_group_create_of(troupe, "x", NULL, 0, &options, &group),
        TROUPE_EINVAL);
    assert_int_equal(
        troupe_group_create_of(troupe, "x", list, 2, &options, &group),
        TROUPE_ETIMEDOUT);
    assert_int_equal(troupe_group_join(troupe, "x", &options, &group),
                     TROUPE_ETIMEDOUT);
    options.size_max = 1;
    options.size_min = 2;
    assert_int_equal(troupe_group_create(troupe, "x", &options, &group),
                     TROUPE_EINVAL);
    assert_null(group);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_too_few(void **state)
{
    troupe_t *troupe = start();
    troupe_group_options_t options;
    troupe_group_t *group;

    (void)state;
    troupe_group_options_init(&options);
    options.size_min = 2;
    assert_int_equal(troupe_group_create(troupe, "few", &options, &group), 0);
    assert_int_equal(troupe_group_update(group, 0, 20, NULL), TROUPE_EPAUSED);
    troupe_group_close(&group);
    options.on_minority = TROUPE_MINORITY_STOP;
    assert_int_equal(troupe_group_create(troupe, "few", &options, &group), 0);
    assert_int_equal(troupe_group_update(group, 0, TROUPE_FOREVER, NULL),
                     TROUPE_EPAUSED);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* --- actors that end with troupe_stop ------------------------------------- */

#define late_messages(TELL, ASK) TELL(late, poke, (int64_t n;))
TROUPE_PROTOCOL(late)

struct late {
    int64_t in, out;
};

static troupe_group_t *late_group;
static atomic_int late_calls;

static int on_poke(troupe_self_t *self, struct late *late, const late_poke_t *m)
{
    (void)self;
    (void)late;
    (void)m;
    return 0;
}

/* The group is not freed yet: troupe_stop does that, after this. */
static void on_late_stop(troupe_self_t *self, struct late *late, int reason)
{
    troupe_collective_t *collective = NULL;
    troupe_view_t view;

    (void)reason;
    troupe_group_view(late_group, &view);
    if (view.len == 1)
        atomic_fetch_add(&late_calls, 1);
    if (troupe_allreduce_start(self, late_group, &late->in, &late->out, 1,
                               TROUPE_INT64, TROUPE_SUM, &collective) == 0)
        (void)troupe_collective_send_when_done(
            &collective, troupe_self_ref(self), late_poke_new(self, 0), NULL);
}

TROUPE_ACTOR(late, struct late, .poke = on_poke, .on_stop = on_late_stop)

static void test_calls_while_stopping(void **state)
{
    troupe_t *troupe = start();
    late_ref_t late;

    (void)state;
    assert_int_equal(troupe_group_create(troupe, "late", NULL, &late_group),
                     0);
    assert_int_equal(late_spawn(troupe, "late", NULL, &late), 0);
    assert_int_equal(troupe_stop(&troupe), 0);
    assert_int_equal(atomic_load(&late_calls), 1);
}

/* --- an actor whose call is not begun when the group is closed ------------- */

#define eager_messages(TELL, ASK)                                             \
    TELL(eager, begin, (int64_t unused;))                                     \
    TELL(eager, done, (int64_t unused;))                                      \
    ASK(eager, end, (), (int64_t rc;))
TROUPE_PROTOCOL(eager)

struct eager {
    int64_t in, out;
    int rc, is_done, is_asked;
    troupe_token_t asked;
};

static troupe_group_t *eager_group;
static atomic_int eager_begun; /* 1: it has; negative: an error */

static int on_eager_begin(troupe_self_t *self, struct eager *eager,
                          const eager_begin_t *m)
{
    troupe_collective_t *collective;
    int rc = troupe_allreduce_start(self, eager_group, &eager->in, &eager->out,
                                    1, TROUPE_INT64, TROUPE_SUM, &collective);

    (void)m;
    if (rc == 0)
        rc = troupe_collective_send_when_done(&collective,
                                              troupe_self_ref(self),
                                              eager_done_new(self, 0),
                                              &eager->rc);
    atomic_store(&eager_begun, rc == 0 ? 1 : rc);
    return 0;
}

static int tell_eager_end(troupe_self_t *self, struct eager *eager)
{
    eager_end_result_t result = { .rc = eager->rc };

    eager->is_asked = 0;
    return eager_end_reply_to(self, eager->asked, result);
}

static int on_eager_done(troupe_self_t *self, struct eager *eager,
                         const eager_done_t *m)
{
    (void)m;
    eager->is_done = 1;
    return eager->is_asked ? tell_eager_end(self, eager) : 0;
}

static int on_eager_end(troupe_self_t *self, struct eager *eager,
                        const eager_end_t *m)
{
    (void)m;
    eager->asked = troupe_reply_later(self);
    eager->is_asked = 1;
    return eager->is_done ? tell_eager_end(self, eager) : 0;
}

TROUPE_ACTOR(eager, struct eager, .begin = on_eager_begin,
             .done = on_eager_done, .end = on_eager_end)

/* The thread that would have begun it has not been in any call meanwhile. */
static void test_closed_before_a_call_begins(void **state)
{
    troupe_options_t options;
    eager_end_result_t result;
    eager_ref_t eager;
    troupe_t *troupe;

    (void)state;
    troupe_options_init(&options);
    options.mpi = "off";
    options.workers = 1;
    assert_int_equal(troupe_start(&troupe, &options), 0);
    assert_int_equal(troupe_group_create(troupe, "eager", NULL, &eager_group),
                     0);
    assert_int_equal(eager_spawn(troupe, "eager", NULL, &eager), 0);
    assert_int_equal(eager_begin(troupe, eager, (eager_begin_t){ 0 }), 0);
    while (atomic_load(&eager_begun) == 0)
        sched_yield();
    assert_int_equal(atomic_load(&eager_begun), 1);
    troupe_group_close(&eager_group);
    assert_int_equal(eager_end(troupe, eager, (eager_end_t){}, SOON_MS, &result),
                     0);
    assert_int_equal(result.rc, TROUPE_ECANCELED);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* Its records, or questions about it, may have made what a call makes else. */
static void test_closed_without_a_call(void **state)
{
    troupe_t *troupe = start();
    const struct tri_tensor *tensor = ((struct tri_runtime *)troupe)->tensor;
    troupe_group_t *group;

    (void)state;
    assert_int_equal(troupe_group_create(troupe, "idle", NULL, &group), 0);
    assert_string_equal(troupe_group_backend(group), "none");
    assert_non_null(tensor->fronts);
    troupe_group_close(&group);
    assert_null(tensor->fronts);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* Their claimants gave up before all had voted; they were heard long ago. */
static void test_forsaken_polls(void **state)
{
    troupe_spawn_options_t strict = { .name = "first",
                                      .unique = TROUPE_UNIQUE_STRICT };
    struct tri_claims *claims;
    troupe_options_t options;
    struct tri_views *views;
    troupe_t *troupe;
    eager_ref_t eager;

    (void)state;
    troupe_options_init(&options);
    options.mpi = "off";
    options.strict_names = 1;
    assert_int_equal(troupe_start(&troupe, &options), 0);
    assert_int_equal(eager_spawn_with(troupe, &strict, NULL, &eager), 0);
    views = ((struct tri_runtime *)troupe)->views;
    claims = &views->claims;
    tri_views_lock(views);
    for (int i = 0; i < (int)TRI_CLAIM_POLLS_MAX; i++) {
        claims->polls[i] = (struct tri_claim_poll){
            .number = ++claims->numbers,
            .epoch = tri_agree_view(claims->cluster->agree)->epoch,
            .heard_ns = 1,
        };
        snprintf(claims->polls[i].name, sizeof(claims->polls[i].name),
                 "forsaken%d", i);
    }
    tri_views_unlock(views);
    strict.name = "second";
    assert_int_equal(eager_spawn_with(troupe, &strict, NULL, &eager), 0);
    strict.name = "forsaken7";
    assert_int_equal(eager_spawn_with(troupe, &strict, NULL, &eager), 0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_table_is_bounded),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_too_few),
        cmocka_unit_test(test_calls_while_stopping),
        cmocka_unit_test(test_closed_before_a_call_begins),
        cmocka_unit_test(test_closed_without_a_call),
        cmocka_unit_test(test_forsaken_polls),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
