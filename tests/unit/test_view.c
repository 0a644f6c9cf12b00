/* SPDX-License-Identifier: BSD-3-Clause */
#include "unit.h"

#include <troupe.h>

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
    assert_int_equal(troupe_group_update(group, 1, 1000, &view), 0);
    assert_int_equal(view.epoch, 1);
    assert_int_equal(troupe_group_create(troupe, "one", NULL, &other),
                     TROUPE_EEXIST);
    assert_int_equal(troupe_group_join(troupe, "one", NULL, &other),
                     TROUPE_EEXIST);
    assert_null(other);
    assert_int_equal(troupe_group_leave(&group, 1000), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_table_is_bounded),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_too_few),
        cmocka_unit_test(test_calls_while_stopping),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
