/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Creating a group, as what the other nodes of the list say, and whether they
 * live, is made up: who is told what, in whatever order they come and give up.
 */
#include "unit.h"

#include <troupe.h>

#include "group/view_internal.h"
#include "tensor/front.h"

enum { SAID_MAX = 32 };

static troupe_t *troupe;
static struct tri_views *views;
static uint64_t own, other, third;

/* What was said here. */
static struct {
    uint64_t to;
    enum tri_view_what what;
    struct tri_view_note note;
} said[SAID_MAX];
static uint32_t said_len;
static int say_rc;

static enum tri_view_life other_life, third_life;

/* What happens while a create waits; false: no more, its time is over. */
static bool (*go_on)(struct troupe_group *group, int step);
static int steps;
/* Once, between a look that was met and what comes of it. */
static void (*met)(struct troupe_group *group);

int __wrap_tri_view_say(struct tri_views *, uint64_t, enum tri_view_what,
                        const struct tri_view_note *);
int __wrap_tri_view_say(struct tri_views *of, uint64_t to,
                        enum tri_view_what what,
                        const struct tri_view_note *note)
{
    (void)of;
    if (say_rc != 0)
        return say_rc;
    assert_true(said_len < SAID_MAX);
    said[said_len].to = to;
    said[said_len].what = what;
    said[said_len++].note = *note;
    return 0;
}

enum tri_view_life __wrap_tri_view_life_of(struct tri_runtime *, uint64_t,
                                           bool *);
enum tri_view_life __wrap_tri_view_life_of(struct tri_runtime *runtime,
                                           uint64_t node, bool *proven_p)
{
    (void)runtime;
    if (proven_p != NULL)
        *proven_p = false;
    if (node == other)
        return other_life;
    return node == third ? third_life : TRI_VIEW_ALIVE;
}

int __wrap_tri_view_wait(struct tri_views *, struct tri_seat *,
                         bool (*)(void *), void *, uint64_t);
int __wrap_tri_view_wait(struct tri_views *of, struct tri_seat *seat,
                         bool (*look)(void *), void *arg, uint64_t deadline_ns)
{
    (void)seat;
    (void)deadline_ns;
    for (;;) {
        void (*hook)(struct troupe_group *) = met;
        bool is_met;

        tri_views_lock(of);
        is_met = look(arg);
        tri_views_unlock(of);
        if (is_met) {
            met = NULL;
            if (hook != NULL)
                hook(arg);
            return 0;
        }
        if (go_on == NULL || !go_on(arg, steps++))
            return TROUPE_ETIMEDOUT;
    }
}

/* --- what the others say -------------------------------------------------- */

static void tell(uint64_t node, enum tri_view_what what,
                 const struct tri_view_note *note)
{
    tri_views_lock(views);
    tri_view_create_note_locked(views, node, what, note);
    tri_views_unlock(views);
}

/* The same list and options. */
static void say_hello(const struct troupe_group *group, uint64_t node,
                      uint64_t call)
{
    uint64_t digest = tri_fnv64(TRI_FNV64_OFFSET, &group->terms,
                                sizeof(group->terms));
    struct tri_view_note note = { .call = call };

    note.digest = tri_fnv64(digest, group->creating,
                            group->creating_len * sizeof(*group->creating));
    memcpy(note.name, group->name, sizeof(note.name));
    tell(node, TRI_VIEW_HELLO, &note);
}

static void say_other(const struct troupe_group *group, uint64_t node,
                      enum tri_view_what what, uint64_t call, int value)
{
    struct tri_view_note note = { .call = call, .value = value };

    memcpy(note.name, group->name, sizeof(note.name));
    tell(node, what, &note);
}

static void check_said(uint32_t i, uint64_t to, enum tri_view_what what,
                       uint64_t call)
{
    assert_true(i < said_len);
    assert_true(said[i].to == to);
    assert_int_equal(said[i].what, what);
    assert_int_equal(said[i].note.call, call);
}

static int set_up(void **state)
{
    troupe_options_t options;

    (void)state;
    troupe_options_init(&options);
    options.mpi = "off";
    if (troupe_start(&troupe, &options) != 0)
        return -1;
    views = ((struct tri_runtime *)troupe)->views;
    own = troupe_node_id(troupe);
    other = own + 1;
    third = own + 2;
    other_life = third_life = TRI_VIEW_ALIVE;
    said_len = 0;
    say_rc = steps = 0;
    go_on = NULL;
    met = NULL;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return troupe_stop(&troupe);
}

/* --- the first of the list ------------------------------------------------ */

static bool both_come(struct troupe_group *group, int step)
{
    if (step != 0)
        return false;
    say_hello(group, third, 8);
    say_hello(group, other, 7);
    return true;
}

/* That one waits for another group of this name, which comes later. No view is
 * adopted here, as the other one is no member of the cluster. */
static void test_not_on_the_list(void **state)
{
    const uint64_t list[] = { own, other };
    troupe_group_t *group;

    (void)state;
    go_on = both_come;
    assert_int_equal(
        troupe_group_create_of(troupe, "pair", list, 2, NULL, &group),
        TROUPE_ETIMEDOUT);
    assert_int_equal(said_len, 1);
    check_said(0, other, TRI_VIEW_START, 7);
    assert_int_equal(views->hellos_len, 1);
    assert_true(views->hellos[0].node == third);
}

static bool comes_twice(struct troupe_group *group, int step)
{
    if (step < 2)
        say_hello(group, other, (uint64_t)step + 1);
    return step < 2;
}

static void gives_up(struct troupe_group *group)
{
    say_other(group, other, TRI_VIEW_WITHDRAW, 1, 0);
}

static void test_gives_up_when_all_are_here(void **state)
{
    const uint64_t list[] = { own, other };
    troupe_group_t *group;

    (void)state;
    go_on = comes_twice;
    met = gives_up;
    assert_int_equal(
        troupe_group_create_of(troupe, "pair", list, 2, NULL, &group),
        TROUPE_ETIMEDOUT);
    assert_int_equal(said_len, 1);
    check_said(0, other, TRI_VIEW_START, 2);
    assert_int_equal(views->hellos_len, 0);
}

static bool come_with_error(struct troupe_group *group, int step)
{
    if (step == 0)
        say_other(group, other, TRI_VIEW_HELLO, 0, TROUPE_EEXIST);
    return step == 0;
}

/* It is told, and not again by the next create. */
static void test_error_there(void **state)
{
    const uint64_t list[] = { own, other };
    troupe_group_t *group;

    (void)state;
    go_on = come_with_error;
    assert_int_equal(
        troupe_group_create_of(troupe, "pair", list, 2, NULL, &group),
        TROUPE_EEXIST);
    assert_int_equal(said_len, 1);
    check_said(0, other, TRI_VIEW_FAIL, 0);
    assert_int_equal(views->hellos_len, 0);
}

/* The name is in use on all nodes, and here that was found before they say so:
 * nobody is told of it when the name is free again. */
static void test_error_of_the_last_one(void **state)
{
    const uint64_t list[] = { own, other };
    troupe_group_t *group;

    (void)state;
    assert_int_equal(
        troupe_group_create_of(troupe, "pair", list, 1, NULL, &group), 0);
    say_other(group, other, TRI_VIEW_HELLO, 0, TROUPE_EEXIST);
    assert_int_equal(views->hellos_len, 0);
    troupe_group_close(&group);
    assert_int_equal(
        troupe_group_create_of(troupe, "pair", list, 2, NULL, &group),
        TROUPE_ETIMEDOUT);
}

static bool comes_last(struct troupe_group *group, int step)
{
    if (step == 0)
        say_hello(group, other, 1);
    return step == 0;
}

/* Errors that nobody took leave room for who comes. */
static void test_hellos_are_bounded(void **state)
{
    const uint64_t list[] = { own, other };
    struct tri_view_note note = { .value = TROUPE_ELIMIT };
    troupe_group_t *group;

    (void)state;
    for (uint32_t i = 0; i <= TRI_VIEW_HELLOS_MAX; i++) {
        snprintf(note.name, sizeof(note.name), "n%u", i);
        tell(other, TRI_VIEW_HELLO, &note);
    }
    assert_int_equal(views->hellos_len, TRI_VIEW_GROUPS_MAX);
    go_on = comes_last;
    assert_int_equal(
        troupe_group_create_of(troupe, "pair", list, 2, NULL, &group),
        TROUPE_ETIMEDOUT);
    assert_int_equal(said_len, 1);
    check_said(0, other, TRI_VIEW_START, 1);
}

/* --- the others ----------------------------------------------------------- */

static bool third_dies(struct troupe_group *group, int step)
{
    (void)group;
    third_life = TRI_VIEW_DEAD;
    return step == 0;
}

static void test_one_dies(void **state)
{
    const uint64_t list[] = { other, own, third };
    troupe_group_t *group;

    (void)state;
    go_on = third_dies;
    assert_int_equal(
        troupe_group_create_of(troupe, "trio", list, 3, NULL, &group),
        TROUPE_ENODE);
    assert_int_equal(said_len, 2);
    check_said(0, other, TRI_VIEW_HELLO, said[0].note.call);
    check_said(1, other, TRI_VIEW_WITHDRAW, said[0].note.call);
}

static void test_one_is_dead(void **state)
{
    const uint64_t list[] = { other, own, third };
    troupe_group_t *group;

    (void)state;
    third_life = TRI_VIEW_DEAD;
    assert_int_equal(
        troupe_group_create_of(troupe, "trio", list, 3, NULL, &group),
        TROUPE_ENODE);
    assert_int_equal(said_len, 0);
}

static bool first_joins(struct troupe_group *group, int step)
{
    if (step == 0) {
        assert_int_equal(said_len, 0);
        other_life = TRI_VIEW_ALIVE;
        say_rc = 0;
    } else {
        say_other(group, other, TRI_VIEW_FAIL, group->call, TROUPE_EMISMATCH);
    }
    return step < 2;
}

/* The caller may have the list from one that knew it before. */
static void test_first_is_not_known_yet(void **state)
{
    const uint64_t list[] = { other, own };
    troupe_group_t *group;

    (void)state;
    other_life = TRI_VIEW_UNKNOWN;
    say_rc = TROUPE_ENODE;
    go_on = first_joins;
    assert_int_equal(
        troupe_group_create_of(troupe, "pair", list, 2, NULL, &group),
        TROUPE_EMISMATCH);
    assert_true(said_len >= 1);
    check_said(0, other, TRI_VIEW_HELLO, said[0].note.call);
}

/* Listed, but no message reaches it from here. */
static void test_first_cannot_be_reached(void **state)
{
    const uint64_t list[] = { other, own };
    troupe_group_t *group;

    (void)state;
    say_rc = TROUPE_ENODE;
    assert_int_equal(
        troupe_group_create_of(troupe, "pair", list, 2, NULL, &group),
        TROUPE_ENODE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_not_on_the_list, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_gives_up_when_all_are_here,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_error_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_error_of_the_last_one, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_hellos_are_bounded, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_one_dies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_is_dead, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_first_is_not_known_yet, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_first_cannot_be_reached, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
