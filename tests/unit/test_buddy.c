/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copies of private state, among members of views that are made up: exactly one
 * has what the dead leave, however buddies change and whenever the dead died,
 * and a buddy without room says so. Records arrive at once, or never.
 */
#include "unit.h"

#include <troupe/member.h>

#include "tensor/training.h"

enum { NODES = 80, WARDS = 32, AGAIN_STEPS = 16, BYTES = 24 };

struct member {
    struct tri_runtime runtime;
    struct troupe_training training;
    struct tri_view view;
    unsigned char data[BYTES];
    bool is_deaf; /* what is sent to it is lost */
};

/* Node i + 1. */
static struct member *members[NODES];

const struct tri_view *__wrap_tri_view_adopted(const struct troupe_group *);
const struct tri_view *__wrap_tri_view_adopted(const struct troupe_group *group)
{
    return (const struct tri_view *)group;
}

int __wrap_troupe_member_get(troupe_from_t, uint64_t, troupe_member_t *);
int __wrap_troupe_member_get(troupe_from_t from, uint64_t node,
                             troupe_member_t *member_p)
{
    (void)from;
    (void)node;
    (void)member_p;
    return TROUPE_ENODE; /* it has died */
}

int __wrap_tri_state_send(struct tri_runtime *, uint64_t,
                          const struct tri_state_head *, const void *,
                          enum tri_send_how);
int __wrap_tri_state_send(struct tri_runtime *runtime, uint64_t to,
                          const struct tri_state_head *head, const void *data,
                          enum tri_send_how how)
{
    struct member *member = members[to - 1];

    (void)how;
    if (member == NULL)
        return TROUPE_ENODE;
    if (!member->is_deaf)
        tri_buddy_record_locked(&member->training, runtime->node, head, data);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < NODES; i++) {
        struct member *member = calloc(1, sizeof(*member));
        struct tri_states *states = &member->training.states;

        member->runtime.node = i + 1;
        member->runtime.starter = pthread_self();
        member->training.runtime = &member->runtime;
        member->training.group = (struct troupe_group *)&member->view;
        states->list[0] = (struct tri_state){ .name = "own",
                                              .data = member->data,
                                              .bytes = BYTES,
                                              .kind = TROUPE_PRIVATE };
        states->len = 1;
        states->private_bytes = BYTES;
        members[i] = member;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++) {
        tri_buddy_fini(&members[i]->training.states);
        free(members[i]);
    }
    return 0;
}

static uint64_t cut_short; /* a node that does not hear what others have */

/* As settle.c has them do. */
static void exchange_orphans(const uint64_t *nodes, uint32_t len)
{
    static struct tri_orphan all[NODES][TRI_ORPHANS_MAX];
    uint32_t disputed = 0, own_disputed;

    memset(all, 0, sizeof(all));
    for (uint32_t i = 0; i < len; i++) {
        (void)tri_buddy_orphans(&members[nodes[i] - 1]->training.states,
                                all[i], &own_disputed);
        disputed += own_disputed;
    }
    for (uint32_t i = 0; disputed > 0 && i < len; i++)
        if (nodes[i] != cut_short)
            tri_buddy_settle(&members[nodes[i] - 1]->training.states, all[0],
                             TRI_ORPHANS_MAX, len, i);
}

/* All of `nodes` adopt a view of them; 0 ends it. Node `alone` has a host of
 * its own. */
static void adopt(const uint64_t *nodes, uint64_t alone, uint32_t losses)
{
    static struct tri_view_member list[NODES];
    uint32_t len = 0;

    for (; nodes[len] != 0; len++)
        list[len] = (struct tri_view_member){ .node = nodes[len],
                                              .host = 1 + (nodes[len] ==
                                                           alone) };
    for (uint32_t i = 0; i < len; i++) {
        struct member *member = members[nodes[i] - 1];

        member->view = (struct tri_view){ .len = len,
                                          .active = len,
                                          .index = (int32_t)i,
                                          .losses = losses,
                                          .members = list };
        tri_buddy_view(&member->training);
    }
    exchange_orphans(nodes, len);
}

#define ADOPT(losses, ...) adopt((uint64_t[]){ __VA_ARGS__, 0 }, 0, losses)

static void begin(uint64_t node, uint64_t step)
{
    struct member *member = members[node - 1];

    memset(member->data, (int)(node * 7 + step), BYTES);
    member->training.core.committed = step;
    tri_buddy_begin(&member->training);
}

static uint64_t copies(uint64_t node)
{
    return tri_buddy_copies(&members[node - 1]->training.states);
}

/* An orphan of `of`, as of a step. */
static void assert_has(uint64_t node, uint64_t of, uint64_t step)
{
    unsigned char data[BYTES], wanted[BYTES];
    uint64_t from, at;

    memset(wanted, (int)(of * 7 + step), BYTES);
    assert_int_equal(troupe_state_orphan(&members[node - 1]->training, "own",
                                         data, BYTES, &from, &at),
                     0);
    assert_int_equal(from, of);
    assert_int_equal(at, step);
    assert_memory_equal(data, wanted, BYTES);
}

static void assert_has_none(uint64_t node)
{
    unsigned char data[BYTES];

    assert_int_equal(troupe_state_orphan(&members[node - 1]->training, "own",
                                         data, BYTES, NULL, NULL),
                     TROUPE_ENONAME);
}

/* Another one comes, and is the buddy from then on. */
static void test_moves(void **state)
{
    (void)state;
    ADOPT(0, 1, 3);
    begin(3, 0);
    assert_int_equal(copies(3), 1);
    ADOPT(0, 1, 3, 4);
    begin(3, 5);
    assert_int_equal(copies(3), 2);
    ADOPT(1, 1, 4);
    assert_has_none(1);
    assert_has(4, 3, 5);
    assert_has_none(4);
}

/* It dies before the new ones have its copy: the former one's is the last. */
static void test_stays(void **state)
{
    (void)state;
    ADOPT(0, 1, 3);
    begin(3, 2);
    members[4 - 1]->is_deaf = true;
    ADOPT(0, 1, 3, 4);
    begin(3, 5);
    assert_int_equal(copies(3), 1);
    ADOPT(1, 1, 4);
    assert_has(1, 3, 2);
    assert_has_none(4);
}

/* It dies when the new one has its copy, and before it told the former one. */
static void moves_and_dies(uint64_t step)
{
    ADOPT(0, 1, 3);
    begin(3, 5);
    ADOPT(0, 1, 3, 4);
    members[1 - 1]->is_deaf = true;
    begin(3, step);
    assert_int_equal(copies(3), 2);
    members[1 - 1]->is_deaf = false;
}

static void test_two_have_it(void **state)
{
    (void)state;
    moves_and_dies(7);
    ADOPT(1, 1, 4);
    assert_has_none(1);
    assert_has(4, 3, 7);
    assert_has_none(4);
}

static void test_two_have_the_same(void **state)
{
    (void)state;
    moves_and_dies(5);
    ADOPT(1, 1, 4);
    assert_has(1, 3, 5);
    assert_has_none(4);
}

/* Another one dies while they tell each other of it: to one of them that it is
 * the owner, and not to the other. */
static void test_exchange_is_cut_short(void **state)
{
    (void)state;
    for (int taken = 0; taken < 2; taken++) {
        moves_and_dies(7);
        cut_short = 1;
        ADOPT(1, 1, 4, 2);
        cut_short = 0;
        assert_has_none(1);
        if (taken)
            assert_has(4, 3, 7);
        ADOPT(1, 1, 4);
        assert_has_none(1);
        if (!taken)
            assert_has(4, 3, 7);
        assert_has_none(4);
        teardown(state);
        setup(state);
    }
}

/* The owner dies before anybody but itself knows that it is. */
static void test_owner_dies(void **state)
{
    (void)state;
    moves_and_dies(7);
    cut_short = 1;
    ADOPT(1, 1, 2, 4);
    cut_short = 0;
    ADOPT(1, 1, 2);
    assert_has(1, 3, 5);
    assert_has_none(2);
}

/* What is left is not taken back by what was said before. */
static void test_late_drop(void **state)
{
    const struct tri_state_head drop = { .what = TRI_STATE_DROP };

    (void)state;
    ADOPT(0, 1, 3);
    begin(3, 2);
    ADOPT(1, 1, 2);
    tri_buddy_record_locked(&members[1 - 1]->training, 3, &drop, NULL);
    assert_has(1, 3, 2);
}

/* Through buddies that get nothing, and back to one of them. */
static void test_returns(void **state)
{
    (void)state;
    ADOPT(0, 1, 3);
    begin(3, 1);
    for (uint64_t node = 10; node < 20; node++) {
        members[node - 1]->is_deaf = true;
        ADOPT(0, 1, 3, node);
        begin(3, node);
    }
    members[19 - 1]->is_deaf = false;
    ADOPT(0, 1, 3, 19, 2);
    ADOPT(0, 1, 2, 3);
    begin(3, 20);
    assert_int_equal(copies(3), 2);
    ADOPT(1, 1, 2, 19);
    assert_has(1, 3, 20);
    for (uint64_t node = 2; node < 20; node++)
        if (node != 3)
            assert_has_none(node);
}

/* The only one of its host is the buddy of all others. */
static void test_is_full(void **state)
{
    uint64_t nodes[WARDS + 3] = { 0 };

    (void)state;
    for (uint64_t i = 0; i < WARDS + 2; i++)
        nodes[i] = i + 1;
    adopt(nodes, 1, 0);
    for (uint64_t i = 1; i < WARDS + 2; i++)
        begin(nodes[i], 0);
    assert_int_equal(copies(WARDS + 1), 1);
    assert_int_equal(copies(WARDS + 2), 0);
    begin(WARDS + 2, 1);
    assert_int_equal(copies(WARDS + 2), 0);
    /* there is room when an orphan may go */
    nodes[4] = WARDS + 2;
    nodes[WARDS + 1] = 0;
    adopt(nodes, 1, 1);
    begin(WARDS + 2, AGAIN_STEPS - 1);
    assert_int_equal(copies(WARDS + 2), 0);
    begin(WARDS + 2, AGAIN_STEPS);
    assert_int_equal(copies(WARDS + 2), 1);
    assert_has_none(1);
}

/* Orphans that nobody takes do not bar the living for ever. */
static void test_orphans_go(void **state)
{
    (void)state;
    for (uint64_t node = 2; node < NODES; node++) {
        ADOPT(1, 1, node);
        begin(node, node);
        assert_int_equal(copies(node), 1);
    }
    ADOPT(1, 1);
    for (uint64_t node = NODES - WARDS; node < NODES; node++) {
        unsigned char data[BYTES];

        assert_int_equal(troupe_state_orphan(&members[0]->training, "own",
                                             data, BYTES, NULL, NULL),
                         0);
    }
    assert_has_none(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_have_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_have_the_same, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_exchange_is_cut_short, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_owner_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_drop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_returns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_is_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_orphans_go, setup, teardown),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
