/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crashes at every step: for 3 to 5 members and each way in which a view can
 * come to be changed, the sender of the first letter crashes with it, of the
 * second, and so on to the last of the last attempt; and then the same again
 * for a second crash after the first. What the dead had sent arrives, is lost,
 * or comes when all is over; the others hear of the death at once, late, or at
 * first without proof; letters go in order or the newest first. The invariants
 * are checked after each step (agree_net.h), and with proofs all that live come
 * to one view.
 *
 * TROUPE_TEST_SIM=long runs all for 4 and 5 members, too, of which otherwise
 * one of some is taken, by the seed.
 */
#include "agree_net.h"
#include "../unit/unit.h"

/* Clocks that ring, of a run: a ballot's leader is given up after some twenty.
 * Who has no quorum, or asks a dead member to let it in, goes on for ever. */
#define RINGS_MAX 60u

/* Under sanitizers, fewer. */
#if defined(TRI_SANITIZE_ADDRESS) || defined(TRI_SANITIZE_THREAD)
#define FEWER 4u
#else
#define FEWER 1u
#endif

enum cause {
    RENEWAL,    /* by the first */
    LAST_DIES,  /* the last member, which all are told */
    FIRST_DIES,
    JOINING,    /* one that asks the last */
    LEAVING,    /* the first */
    CAUSES
};
enum fate { ARRIVE, LOST, LATE, FATES };   /* of what the dead had sent */
enum news { AT_ONCE, IN_THE_END, UNPROVEN, NEWS };

struct plan {
    uint32_t members;
    enum cause cause;
    enum fate fate;
    enum news news;
    bool is_newest_first;
    bool proof;
    uint32_t ablate;
    uint32_t first, second; /* letters with which the sender crashes; 0: none;
                               the second: counted from the first crash */
};

static struct agree_net net;
static uint32_t runs;

/* --- one run -------------------------------------------------------------- */

static void event(uint32_t at, enum tri_agree_event_kind kind)
{
    agree_net_step(&net, at, (struct tri_agree_event){ .kind = kind });
}

static void boundaries(uint32_t members)
{
    for (uint32_t i = 0; i < members; i++) {
        net.nodes[i].is_at_boundary = true;
        agree_net_step(&net, i,
                       (struct tri_agree_event){ .kind = TRI_AGREE_BOUNDARY,
                                                 .at = true });
    }
}

static void tell_of(uint32_t of, bool proof)
{
    for (uint32_t i = 0; i < net.config.nodes; i++)
        agree_net_tell(&net, i, of, proof);
}

static void die(uint32_t at)
{
    agree_net_crash(&net, at);
    tell_of(at, true);
}

static void begin(const struct plan *plan)
{
    struct agree_net_config config = {
        .seed = 1,
        .members = plan->members,
        .nodes = plan->members + 1,
        .proof = plan->proof,
        .ablate = plan->ablate,
    };

    agree_net_init(&net, &config);
    net.posted = 0;
    net.crash_at = plan->first;
    for (uint32_t i = 0; i < plan->members; i++) {
        net.nodes[i].known[plan->members] = true;
        agree_net_ring(&net, i);
    }
    switch (plan->cause) {
    case RENEWAL:
        event(0, TRI_AGREE_RENEW);
        break;
    case LAST_DIES:
        die(plan->members - 1);
        break;
    case FIRST_DIES:
        die(0);
        break;
    case JOINING:
        agree_net_join(&net, plan->members, plan->members - 1);
        boundaries(plan->members);
        break;
    default:
        net.nodes[0].leaves = true;
        event(0, TRI_AGREE_LEAVE);
        boundaries(plan->members);
        break;
    }
}

/* The letter that is next; UINT32_MAX: none. */
static uint32_t next_letter(const struct plan *plan)
{
    for (uint32_t i = 0; i < net.letters_len; i++) {
        uint32_t at = plan->is_newest_first ? net.letters_len - 1 - i : i;

        if (net.nodes[net.letters[at].from].is_alive || plan->fate == ARRIVE)
            return at;
    }
    return UINT32_MAX;
}

static void lose_of_dead(void)
{
    for (uint32_t i = net.letters_len; i-- > 0;)
        if (!net.nodes[net.letters[i].from].is_alive)
            agree_net_lose(&net, i);
}

/* What follows from a crash just now. */
static void on_crash(const struct plan *plan, uint32_t at)
{
    if (net.crash_at == plan->first && plan->second > 0)
        net.crash_at = net.posted + plan->second;
    else
        net.crash_at = 0;
    if (plan->fate == LOST)
        lose_of_dead();
    if (plan->news != IN_THE_END)
        tell_of(at, plan->news == AT_ONCE);
}

/* When nothing else is on its way: true: something is, now. */
static bool news_in_the_end(void)
{
    uint32_t before = net.letters_len;

    for (uint32_t i = 0; i < net.config.nodes; i++)
        if (!net.nodes[i].is_alive)
            tell_of(i, true);
    return net.letters_len > before;
}

/* Returns whether both crashes came. */
static bool run(const struct plan *plan)
{
    uint32_t crashed = 0, rings = 0;
    bool is_over;

    begin(plan);
    while (net.failure[0] == 0) {
        uint32_t letter = next_letter(plan);

        for (uint32_t i = 0; i < net.config.nodes; i++)
            if (net.nodes[i].is_crashing && ((crashed >> i) & 1) == 0) {
                crashed |= 1u << i;
                on_crash(plan, i);
                letter = next_letter(plan);
            }
        if (letter != UINT32_MAX)
            agree_net_deliver(&net, letter);
        else if (agree_net_is_settled(&net))
            break;
        else if (news_in_the_end())
            continue;
        else if (rings++ == RINGS_MAX)
            break;
        else
            agree_net_ring_next(&net);
    }
    is_over = net.crash_at == 0;
    while (net.letters_len > 0 && net.failure[0] == 0)
        agree_net_deliver(&net, 0); /* those of the dead, late */
    if (net.failure[0] == 0 && plan->proof)
        agree_net_calm(&net);
    runs++;
    return is_over;
}

static void expect_well(const struct plan *plan)
{
    if (net.failure[0] != 0)
        fail_msg("%s: members %u cause %u fate %u news %u newest first %d "
                 "proof %d crashes with letters %u and %u",
                 net.failure, plan->members, plan->cause, plan->fate,
                 plan->news, plan->is_newest_first, plan->proof, plan->first,
                 plan->second);
    agree_net_fini(&net);
}

/* --- all of them ---------------------------------------------------------- */

/* Each letter, and after each each. */
static void run_crashes(struct plan *plan, struct tri_random *random,
                        uint32_t one_of)
{
    bool is_over = true;

    for (plan->first = 1; is_over; plan->first++) {
        plan->second = 0;
        is_over = run(plan);
        expect_well(plan);
        for (plan->second = 1; is_over; plan->second++) {
            if (one_of > 1) /* the next of which it is chosen */
                plan->second += tri_random_below(random, 2 * one_of - 1);
            if (!run(plan)) {
                expect_well(plan);
                break;
            }
            expect_well(plan);
        }
    }
}

/* What this would find: the first that crashes while it tells of its view is
 * followed by one that makes another. */
static void test_without_accepted(void **state)
{
    struct plan plan = {
        .members = 3,
        .cause = RENEWAL,
        .ablate = TRI_AGREE_WITHOUT_ACCEPTED,
    };

    (void)state;
    for (plan.first = 1; run(&plan) && net.failure[0] == 0; plan.first++)
        agree_net_fini(&net);
    assert_non_null(strstr(net.failure, "different views"));
    print_message("without what was accepted: letter %u: %s\n", plan.first,
                  net.failure);
    agree_net_fini(&net);
}

static void run_members(const char *test, uint32_t members, uint32_t one_of)
{
    uint64_t seed = unit_seed(test);
    const char *text = getenv("TROUPE_TEST_SIM");
    struct tri_random random;
    struct plan plan = { .members = members };

    tri_random_init(&random, tri_mix64(seed));
    if (text != NULL && strcmp(text, "long") == 0) {
        alarm(0);
        one_of = 1;
    }
    one_of *= FEWER;
    runs = 0;
    for (int cause = 0; cause < CAUSES; cause++)
        for (int ways = 0; ways < FATES * NEWS * 4; ways++) {
            if (one_of > 1 && tri_random_below(&random, FEWER) != 0)
                continue;
            plan.cause = (enum cause)cause;
            plan.fate = (enum fate)(ways % FATES);
            plan.news = (enum news)(ways / FATES % NEWS);
            plan.is_newest_first = (ways / (FATES * NEWS)) % 2 != 0;
            plan.proof = ways / (FATES * NEWS * 2) == 0;
            run_crashes(&plan, &random, one_of);
        }
    print_message("%s: %u runs\n", test, runs);
}

static void test_crashes_3(void **state)
{
    (void)state;
    run_members("test_crashes_3", 3, 1);
}

static void test_crashes_4(void **state)
{
    (void)state;
    run_members("test_crashes_4", 4, 4);
}

static void test_crashes_5(void **state)
{
    (void)state;
    run_members("test_crashes_5", 5, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_accepted),
        cmocka_unit_test(test_crashes_3),
        cmocka_unit_test(test_crashes_4),
        cmocka_unit_test(test_crashes_5),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
