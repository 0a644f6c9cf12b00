/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the guards of agreement are for: for each a schedule, letter by letter,
 * that comes to one view with it, and to two (or to a mark that is too low)
 * without. The unchanged core runs both.
 */
#include "agree_net.h"
#include "../unit/unit.h"

#include "group/agree_internal.h"

/* Places of the nodes; ids are one more. */
enum { A, B, C, D, E, JOINER = D + 1 };

static struct agree_net net;

static void begin(uint32_t members, uint32_t nodes, uint32_t ablate)
{
    struct agree_net_config config = {
        .seed = 1,
        .members = members,
        .nodes = nodes,
        .proof = true,
        .ablate = ablate,
        .crashes_max = members,
    };

    agree_net_init(&net, &config);
    for (uint32_t i = 0; i < members; i++)
        agree_net_ring(&net, i); /* looks at its new view */
}

/* How it ended: with one view, or with what failed. */
static void end(bool is_ablated, const char *failure)
{
    if (net.failure[0] == 0)
        agree_net_calm(&net);
    if (!is_ablated)
        assert_string_equal(net.failure, "");
    else if (strstr(net.failure, failure) == NULL)
        fail_msg("without it: \"%s\"", net.failure);
    if (is_ablated)
        print_message("without it: %s\n", net.failure);
    agree_net_fini(&net);
}

/* The last one of this kind arrives; there may be none. */
static void pass(uint32_t from, uint32_t to, enum kind kind)
{
    uint32_t letter = agree_net_find(&net, from, to, (uint8_t)kind);

    if (letter != UINT32_MAX)
        agree_net_deliver(&net, letter);
}

static void ask(uint32_t leader, uint32_t member)
{
    pass(leader, member, PREPARE);
    pass(member, leader, PROMISE);
}

static void propose(uint32_t leader, uint32_t member)
{
    pass(leader, member, PROPOSE);
    pass(member, leader, ACCEPT);
}

static void lose_all(void)
{
    while (net.letters_len > 0)
        agree_net_lose(&net, 0);
}

static void renew(uint32_t at)
{
    agree_net_step(&net, at,
                   (struct tri_agree_event){ .kind = TRI_AGREE_RENEW });
}

/* The fourth attempt of a leader that got no answer to the first three. */
static void fourth_attempt(uint32_t leader)
{
    for (uint32_t i = 0; i < 3; i++) {
        lose_all();
        agree_net_ring(&net, leader);
    }
}

/* --- guard 1 -------------------------------------------------------------- */

/*
 * Two lead; A promises to B, accepts what B proposes, and B commits with A and
 * E. A still has the promises of C and D for its own ballot.
 */
static void two_leaders(uint32_t ablate)
{
    begin(5, 5, ablate);
    renew(A);
    fourth_attempt(A);
    ask(A, C);
    ask(A, D);
    lose_all();
    renew(B);
    fourth_attempt(B);
    ask(B, A);
    ask(B, E);
    agree_net_ring(&net, B); /* goes without C and D */
    propose(B, A);
    propose(B, E);
    lose_all();
    assert_int_equal(net.nodes[B].epoch, 2);
    agree_net_ring(&net, A); /* would go without B and E */
    propose(A, C);
    propose(A, D);
    end(ablate != 0, "different views");
}

static void test_guard_1(void **state)
{
    (void)state;
    two_leaders(0);
    two_leaders(TRI_AGREE_WITHOUT_GUARD_1);
}

/*
 * A has J's view accepted by B, takes C and D for dead, which is wrong, and
 * commits; J has the view, A and B die. C and D, who do not know of it, agree
 * by proof (and J is alone in its view: nothing helps where the living are
 * taken for dead by those that die). But D had asked J, and its answer comes
 * when D has accepted C's proposal.
 */
static void late_answer(uint32_t ablate)
{
    begin(4, 5, ablate);
    for (uint32_t i = A; i <= D; i++)
        net.nodes[i].known[JOINER] = true;
    agree_net_join(&net, JOINER, A);
    pass(JOINER, A, JOIN);
    renew(A);
    ask(A, B);
    ask(A, C);
    ask(A, D);
    propose(A, B);
    agree_net_tell(&net, A, C, false);
    agree_net_tell(&net, A, D, false);
    pass(A, JOINER, VIEW);
    assert_int_equal(net.nodes[JOINER].epoch, 2);
    agree_net_step(&net, D,
                   (struct tri_agree_event){ .kind = TRI_AGREE_AHEAD,
                                             .node = JOINER + 1 });
    pass(D, JOINER, REPORT);
    agree_net_crash(&net, A);
    agree_net_crash(&net, B);
    agree_net_tell(&net, C, A, true);
    agree_net_tell(&net, C, B, true);
    ask(C, D);
    pass(C, D, PROPOSE);
    pass(JOINER, D, VIEW);
    pass(D, C, ACCEPT);
    pass(C, D, COMMIT);
    assert_int_equal(net.nodes[C].epoch, 2);
    assert_int_equal(net.nodes[D].epoch, 2);
    assert_int_equal(net.nodes[C].views[2] == net.nodes[D].views[2],
                     ablate == 0);
    agree_net_fini(&net);
}

static void test_guard_1_answer(void **state)
{
    (void)state;
    late_answer(0);
    late_answer(TRI_AGREE_WITHOUT_GUARD_1);
}

/* --- guards 2 and 3 ------------------------------------------------------- */

/*
 * A has its first proposal (all stay) accepted by itself only, carries it into
 * its fourth ballot, and commits with B; the commits to C and D are slow. A and
 * B die; C, which only knows A's first ballot, leads with a ballot that is
 * lower than A's last, by proof. D has accepted it when A's commit arrives.
 */
static void voice_of_the_dead(uint32_t ablate, bool is_told)
{
    begin(4, 4, ablate);
    renew(A);
    ask(A, B);
    ask(A, C);
    ask(A, D);
    fourth_attempt(A);
    ask(A, B);
    agree_net_ring(&net, A); /* proposes without the promises of C and D */
    propose(A, B);
    lose_all();
    agree_net_ring(&net, A);
    assert_int_equal(net.nodes[A].epoch, 2);
    agree_net_crash(&net, A);
    agree_net_crash(&net, B);
    agree_net_tell(&net, C, A, true);
    agree_net_tell(&net, C, B, true);
    if (is_told) {
        agree_net_tell(&net, D, A, true);
        agree_net_tell(&net, D, B, true);
    }
    ask(C, D);
    pass(C, D, PROPOSE);
    pass(A, D, COMMIT);
    pass(D, C, ACCEPT);
    assert_int_equal(net.nodes[C].epoch, 2);
    end(ablate != 0, "different views");
}

static void test_guard_2(void **state)
{
    (void)state;
    voice_of_the_dead(0, true);
    voice_of_the_dead(TRI_AGREE_WITHOUT_GUARD_2, true);
}

/* D knows of the deaths by C's messages only. */
static void test_guard_3(void **state)
{
    (void)state;
    voice_of_the_dead(0, false);
    voice_of_the_dead(TRI_AGREE_WITHOUT_GUARD_3, false);
}

/* --- freeze --------------------------------------------------------------- */

/* C is prepared and dies; A and B have said that they are not, and go on. */
static void late_mark(uint32_t ablate)
{
    begin(3, 3, ablate);
    agree_net_prepare(&net, C);
    agree_net_crash(&net, C);
    agree_net_tell(&net, A, C, true);
    pass(A, B, PREPARE);
    agree_net_prepare(&net, A);
    agree_net_prepare(&net, B);
    agree_net_vote(&net, A);
    pass(B, A, PROMISE);
    propose(A, B);
    assert_int_equal(net.nodes[A].epoch, 2);
    end(ablate != 0, "mark 0, but 1 was committed");
}

static void test_freeze(void **state)
{
    (void)state;
    late_mark(0);
    late_mark(TRI_AGREE_WITHOUT_FREEZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guard_1),
        cmocka_unit_test(test_guard_1_answer),
        cmocka_unit_test(test_guard_2),
        cmocka_unit_test(test_guard_3),
        cmocka_unit_test(test_freeze),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
