/* SPDX-License-Identifier: BSD-3-Clause */
/* Where actors are put: each policy on small lists of members. */
#include "unit.h"

#include "member/place.h"

enum { SELF = 10, JOB = 10, ALIVE = TROUPE_MEMBER_ALIVE,
       SUSPECT = TROUPE_MEMBER_SUSPECT, DEAD = TROUPE_MEMBER_DEAD,
       LEFT = TROUPE_MEMBER_LEFT };

struct list {
    troupe_member_t *members;
    uint32_t len;
};

static bool next(void *context, uint32_t *cursor_p, troupe_member_t *member_p)
{
    struct list *list = context;

    if (*cursor_p == list->len)
        return false;
    *member_p = list->members[(*cursor_p)++];
    return true;
}

static troupe_member_t members[] = {
    { .node = 10, .host = 1, .job = JOB, .rank = 0, .state = ALIVE },
    { .node = 11, .host = 1, .job = JOB, .rank = 1, .state = ALIVE },
    { .node = 12, .host = 2, .job = JOB, .rank = 2, .state = ALIVE,
      .name = "solo" },
    { .node = 13, .host = 1, .job = JOB, .rank = 3, .state = DEAD },
    { .node = 14, .host = 2, .job = 14, .rank = 0, .state = LEFT,
      .name = "gone" },
    { .node = 15, .host = 3, .job = 15, .rank = 0, .state = SUSPECT,
      .name = "twin" },
    { .node = 16, .host = 3, .job = 16, .rank = 1, .state = DEAD,
      .name = "twin" },
};
enum { LEN = sizeof(members) / sizeof(members[0]) };

static int choose(troupe_place_t place, uint32_t turn, uint64_t *node_p)
{
    struct list list = { members, LEN };
    struct tri_place_members among = { .next = next, .context = &list,
                                       .self = SELF, .job = JOB,
                                       .turn = turn };

    return tri_place_choose(&place, &among, node_p);
}

static void assert_node(troupe_place_t place, uint32_t turn, uint64_t wanted)
{
    uint64_t node = 0;

    assert_int_equal(choose(place, turn, &node), 0);
    assert_int_equal(node, wanted);
}

static void assert_error(troupe_place_t place, int wanted)
{
    uint64_t node = 77;

    assert_int_equal(choose(place, 0, &node), wanted);
    assert_int_equal(node, 77); /* untouched */
}

static int reset(void **state)
{
    static const uint32_t states[LEN] = { ALIVE, ALIVE, ALIVE, DEAD, LEFT,
                                          SUSPECT, DEAD };

    (void)state;
    for (size_t i = 0; i < LEN; i++) {
        members[i].load = 0;
        members[i].state = states[i];
    }
    return 0;
}

static troupe_place_t by(uint32_t policy)
{
    return (troupe_place_t){ .policy = policy };
}

static void test_node(void **state)
{
    troupe_place_t place = by(TROUPE_PLACE_NODE);

    (void)state;
    place.node = 12;
    assert_node(place, 0, 12);
    place.node = 15; /* suspected: asked for, so given */
    assert_node(place, 0, 15);
    place.node = 13;
    assert_error(place, TROUPE_ENODE);
    place.node = 99;
    assert_error(place, TROUPE_ENONODE);
}

static void test_rank(void **state)
{
    troupe_place_t place = by(TROUPE_PLACE_RANK);

    (void)state;
    place.rank = 1; /* of this job, not of another */
    assert_node(place, 0, 11);
    place.rank = 3;
    assert_error(place, TROUPE_ENODE);
    place.rank = 4;
    assert_error(place, TROUPE_ENONODE);
    place.rank = -1;
    assert_error(place, TROUPE_ENONODE);
}

static void test_name(void **state)
{
    troupe_place_t place = by(TROUPE_PLACE_NAME);

    (void)state;
    assert_error(place, TROUPE_EINVAL);
    place.name = "";
    assert_error(place, TROUPE_EINVAL);
    place.name = "solo";
    assert_node(place, 0, 12);
    place.name = "twin"; /* the one that lives */
    assert_node(place, 0, 15);
    place.name = "gone";
    assert_error(place, TROUPE_ENODE);
    place.name = "nobody";
    assert_error(place, TROUPE_ENONODE);
}

static void test_least_loaded(void **state)
{
    troupe_place_t place = by(TROUPE_PLACE_LEAST_LOADED);

    (void)state;
    members[0].load = 2;
    members[1].load = 1;
    members[2].load = 3;
    assert_node(place, 0, 11);
    members[2].load = 0.5f;
    assert_node(place, 0, 12);
    members[2].state = DEAD;
    members[0].state = SUSPECT;
    members[0].load = 0; /* the suspected only if there is no other */
    assert_node(place, 0, 11);
    members[1].state = LEFT;
    members[5].load = 1;
    assert_node(place, 0, 10);
    members[0].state = DEAD;
    assert_node(place, 0, 15);
    members[5].state = DEAD;
    assert_error(place, TROUPE_ENONODE);
}

/* Of equals, not all who choose take the same. */
static void test_equals(void **state)
{
    struct list list = { members, LEN };
    troupe_place_t place = by(TROUPE_PLACE_LEAST_LOADED);
    unsigned chosen = 0;

    (void)state;
    for (uint64_t self = 1; self <= 64; self++) {
        struct tri_place_members among = { .next = next, .context = &list,
                                           .self = self, .job = JOB };
        uint64_t node = 0;

        assert_int_equal(tri_place_choose(&place, &among, &node), 0);
        assert_true(node >= 10 && node <= 12);
        chosen |= 1u << (node - 10);
    }
    assert_int_equal(chosen, 7);
}

static void test_same_host(void **state)
{
    troupe_place_t place = by(TROUPE_PLACE_SAME_HOST);

    (void)state;
    assert_node(place, 0, 11); /* beside this node, not on it */
    members[1].load = 100;
    assert_node(place, 0, 11);
    place.node = 11;
    assert_node(place, 0, 10);
    place.node = 12; /* alone there */
    assert_node(place, 0, 12);
    place.node = 13; /* dead, but its host is known */
    assert_node(place, 0, 10);
    place.node = 16;
    assert_node(place, 0, 15);
    members[5].state = DEAD;
    assert_error(place, TROUPE_ENODE);
    place.node = 99;
    assert_error(place, TROUPE_ENONODE);
}

static void test_spread(void **state)
{
    troupe_place_t place = by(TROUPE_PLACE_SPREAD);

    (void)state;
    for (uint32_t turn = 0; turn < 9; turn++)
        assert_node(place, turn, 10 + turn % 3);
    members[0].state = members[1].state = members[2].state = DEAD;
    assert_node(place, 4, 15);
    members[5].state = LEFT;
    assert_error(place, TROUPE_ENONODE);
}

static void test_nonsense(void **state)
{
    (void)state;
    assert_error(by(0), TROUPE_EINVAL);
    assert_error(by(TROUPE_PLACE_SPREAD + 1), TROUPE_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_node, reset),
        cmocka_unit_test_setup(test_rank, reset),
        cmocka_unit_test_setup(test_name, reset),
        cmocka_unit_test_setup(test_least_loaded, reset),
        cmocka_unit_test_setup(test_equals, reset),
        cmocka_unit_test_setup(test_same_host, reset),
        cmocka_unit_test_setup(test_spread, reset),
        cmocka_unit_test_setup(test_nonsense, reset),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
