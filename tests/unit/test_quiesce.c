/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Quiet is announced when it is, and never before: random schedules of a
 * little network whose nodes are counted one after the other while messages
 * fly, as the rounds of a real one are.
 */
#include "unit.h"

#include "group/quiesce_core.h"

#define NODES_MAX 8u
#define SEEDS 3000u
#define STEPS_MAX 100000u

struct node {
    int64_t sent, received;
    uint32_t inbox; /* taken in, not handled: the node is not idle */
};

struct net {
    struct node nodes[NODES_MAX];
    uint32_t flying[NODES_MAX]; /* by receiver */
    uint32_t nodes_len;
    uint32_t budget; /* messages that may still be sent */
    struct tri_random random;

    struct tri_quiesce quiesce;
    uint32_t next; /* to be counted in this round */
    int64_t sent, received;
    uint32_t rounds;
};

static bool is_quiet(const struct net *net)
{
    for (uint32_t i = 0; i < net->nodes_len; i++)
        if (net->nodes[i].inbox > 0 || net->flying[i] > 0)
            return false;
    return true;
}

static void send_one(struct net *net, uint32_t from)
{
    if (net->budget == 0)
        return;
    net->budget--;
    net->nodes[from].sent++;
    net->flying[tri_random_below(&net->random, net->nodes_len)]++;
}

static void arrive(struct net *net, uint32_t i)
{
    if (net->flying[i] == 0)
        return;
    net->flying[i]--;
    net->nodes[i].received++;
    net->nodes[i].inbox++;
}

/* A handler sends 0 to 2 messages. */
static void handle(struct net *net, uint32_t i)
{
    if (net->nodes[i].inbox == 0)
        return;
    for (uint32_t n = tri_random_below(&net->random, 3); n > 0; n--)
        send_one(net, i);
    net->nodes[i].inbox--;
}

/* Counts the next node if it is idle. True: quiet was announced. */
static bool count(struct net *net)
{
    const struct node *node = &net->nodes[net->next];
    bool quiet;

    if (node->inbox > 0)
        return false;
    net->sent += node->sent;
    net->received += node->received;
    if (++net->next < net->nodes_len)
        return false;
    quiet = tri_quiesce_round(&net->quiesce, net->sent, net->received);
    net->rounds++;
    net->next = 0;
    net->sent = net->received = 0;
    return quiet;
}

static void run_net(uint64_t seed)
{
    struct net net = { .nodes_len = 0 };
    bool announced = false;
    uint32_t steps = 0;

    tri_random_init(&net.random, seed);
    net.nodes_len = 1 + tri_random_below(&net.random, NODES_MAX);
    net.budget = tri_random_below(&net.random, 60);
    tri_quiesce_init(&net.quiesce);
    for (uint32_t n = tri_random_below(&net.random, 6); n > 0; n--)
        send_one(&net, tri_random_below(&net.random, net.nodes_len));
    while (!announced && steps++ < STEPS_MAX) {
        uint32_t i = tri_random_below(&net.random, net.nodes_len);
        uint32_t dice = tri_random_below(&net.random, 10);

        if (dice < 2)
            arrive(&net, i);
        else if (dice < 4)
            handle(&net, i);
        else
            announced = count(&net);
        if (announced && !is_quiet(&net))
            fail_msg("seed %llu: announced with messages in flight",
                     (unsigned long long)seed);
        if (is_quiet(&net) && net.next == 0)
            break;
    }
    /* Quiet now: two rounds more tell it, no matter what came before. */
    for (uint32_t n = 0; !announced && n < 3 * net.nodes_len; n++)
        announced = count(&net);
    if (!announced)
        fail_msg("seed %llu: quiet was not announced",
                 (unsigned long long)seed);
    assert_true(is_quiet(&net));
}

static void test_schedules(void **state)
{
    uint64_t seed = unit_seed("test_schedules");

    (void)state;
    for (uint64_t i = 0; i < SEEDS; i++)
        run_net(seed + i);
}

static void test_rounds(void **state)
{
    struct tri_quiesce quiesce;

    (void)state;
    tri_quiesce_init(&quiesce);
    assert_false(tri_quiesce_round(&quiesce, 0, 0)); /* one is not enough */
    assert_true(tri_quiesce_round(&quiesce, 0, 0));
    assert_true(tri_quiesce_round(&quiesce, 0, 0)); /* and stays */
    assert_false(tri_quiesce_round(&quiesce, 5, 5));
    assert_false(tri_quiesce_round(&quiesce, 6, 5));
    assert_false(tri_quiesce_round(&quiesce, 6, 5)); /* equal, not quiet */
    assert_false(tri_quiesce_round(&quiesce, 6, 6));
    assert_true(tri_quiesce_round(&quiesce, 6, 6));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounds),
        cmocka_unit_test(test_schedules),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
