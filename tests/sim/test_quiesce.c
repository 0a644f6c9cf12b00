/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Quiesce among up to seven nodes on a virtual clock: random traffic, delays,
 * control messages that overtake each other, and deaths at any step, of which
 * each node learns at another time. A seed is a run.
 *
 * Safety: when the first node returns, all living are in the call and nothing
 * is in flight or unhandled between them. Liveness: all return soon after the
 * traffic has ended. Deadlines: the report names who is missing or busy.
 */
#include "../unit/unit.h"

#include "group/quiesce_core.h"

enum {
    NODES_MAX = 7,
    FLIGHTS_MAX = 4096,
    CALLS = 3,
    SEEDS = 4000,
    US = 1000,
    MS = 1000 * US,
    SOON_NS = 200 * MS,
    TIMEOUT_NS = 300 * MS,
};

struct flight {
    uint64_t at_ns;
    uint32_t from, to;
    bool is_data;
    struct tri_quiesce_message message;
};

struct node {
    struct tri_quiesce quiesce;
    struct tri_quiesce_member members[NODES_MAX];
    uint64_t sent[NODES_MAX], received[NODES_MAX];
    uint64_t learns_ns[NODES_MAX]; /* of a death */
    uint32_t inbox;
    uint64_t handle_ns, start_ns, wake_ns; /* NEVER: not */
    uint32_t started, returned; /* calls */
    uint32_t calls; /* to make */
    bool is_dead, is_stuck, has_expired;
};

struct net {
    uint64_t seed, now_ns, kill_ns, busy_ns; /* busy: last thing that keeps it
                                                from being quiet */
    struct tri_random random;
    struct node nodes[NODES_MAX];
    uint32_t len, budget, flights_len;
    uint32_t checked; /* calls from which somebody has returned */
    uint64_t timeout_ns;
    struct flight flights[FLIGHTS_MAX];
};

#define NEVER TRI_QUIESCE_NEVER

static uint32_t below(struct net *net, uint32_t n)
{
    return tri_random_below(&net->random, n);
}

static uint64_t soon(struct net *net, uint32_t us_max)
{
    return net->now_ns + US + below(net, us_max) * US;
}

static void broken(const struct net *net, uint32_t rank, const char *what)
{
    fail_msg("seed %llu, node %u, %.3f ms: %s", (unsigned long long)net->seed,
             rank, (double)net->now_ns / MS, what);
}

/* --- data ----------------------------------------------------------------- */

static struct flight *fly(struct net *net, uint32_t from, uint32_t to)
{
    struct flight *flight = &net->flights[net->flights_len++];

    assert_true(net->flights_len < FLIGHTS_MAX);
    /* mostly short, now and then late */
    *flight = (struct flight){ .at_ns = soon(net, below(net, 8) == 0 ? 5000
                                                                     : 300),
                               .from = from,
                               .to = to };
    return flight;
}

static void arrive_data(struct net *net, uint32_t rank)
{
    struct node *node = &net->nodes[rank];

    net->busy_ns = net->now_ns;
    if (node->inbox++ == 0)
        node->handle_ns = soon(net, 200);
}

static void send_data(struct net *net, uint32_t from)
{
    struct node *node = &net->nodes[from];
    uint32_t to = below(net, net->len);

    if (net->budget == 0 || node->members[to].is_dead)
        return;
    net->budget--;
    if (to == from) {
        arrive_data(net, from);
        return;
    }
    node->sent[to]++;
    if (!net->nodes[to].is_dead)
        fly(net, from, to)->is_data = true;
}

static void handle(struct net *net, uint32_t rank)
{
    struct node *node = &net->nodes[rank];

    net->busy_ns = net->now_ns;
    for (uint32_t n = below(net, 3); n > 0; n--)
        send_data(net, rank);
    node->inbox--;
    node->handle_ns = node->inbox > 0 ? soon(net, 200) : NEVER;
}

/* --- the core ------------------------------------------------------------- */

static bool is_in_call(const struct node *node)
{
    return node->started > node->returned;
}

/* The first to return speaks for all. */
static void check_safe(struct net *net, uint32_t rank)
{
    const struct node *node = &net->nodes[rank];

    for (uint32_t i = 0; i < net->len; i++) {
        const struct node *other = &net->nodes[i];

        if (other->is_dead)
            continue;
        if (other->started < node->started)
            broken(net, rank, "returned before all were in");
    }
    if (net->checked >= node->started)
        return; /* not the first: others may send again */
    net->checked = node->started;
    for (uint32_t i = 0; i < net->len; i++)
        if (!net->nodes[i].is_dead && net->nodes[i].inbox > 0)
            broken(net, i, "has unhandled messages");
    for (uint32_t i = 0; i < net->flights_len; i++) {
        const struct flight *flight = &net->flights[i];

        if (flight->is_data && !net->nodes[flight->from].is_dead &&
            !net->nodes[flight->to].is_dead)
            broken(net, flight->to, "has a message on its way");
    }
}

static void check_return(struct net *net, uint32_t rank)
{
    struct node *node = &net->nodes[rank];

    if (!is_in_call(node) ||
        node->quiesce.outcome == TRI_QUIESCE_PENDING)
        return;
    if (node->quiesce.outcome == TRI_QUIESCE_IS_QUIET)
        check_safe(net, rank);
    node->has_expired = node->quiesce.outcome == TRI_QUIESCE_IS_EXPIRED;
    node->returned++;
    if (node->returned < node->calls)
        node->start_ns = soon(net, 3000);
}

static void step(struct net *net, uint32_t rank,
                 struct tri_quiesce_event event)
{
    struct node *node = &net->nodes[rank];
    struct tri_quiesce_effects effects;

    event.now_ns = net->now_ns;
    tri_quiesce_step(&node->quiesce, &event, &effects);
    for (uint32_t i = 0; i < effects.len; i++)
        for (uint32_t to = 0; to < net->len; to++)
            if (to != rank && !net->nodes[to].is_dead &&
                (effects.sends[i].to == to ||
                 (effects.sends[i].to == TRI_QUIESCE_ALL &&
                  !node->members[to].is_dead)))
                fly(net, rank, to)->message = effects.sends[i].message;
    check_return(net, rank);
    node->wake_ns = is_in_call(node) ? tri_quiesce_next_ns(&node->quiesce)
                                     : NEVER;
    if (tri_quiesce_wants_snapshot(&node->quiesce))
        node->wake_ns = tri_min(node->wake_ns, soon(net, 50));
}

static void start(struct net *net, uint32_t rank)
{
    struct node *node = &net->nodes[rank];

    net->busy_ns = net->now_ns;
    node->start_ns = NEVER;
    for (uint32_t n = below(net, 4); n > 0; n--) {
        net->budget += below(net, 6);
        send_data(net, rank);
    }
    node->started++;
    step(net, rank,
         (struct tri_quiesce_event){
             .kind = TRI_QUIESCE_ON_START,
             .patience_ns = NEVER,
             .deadline_ns = net->timeout_ns == NEVER
                                ? NEVER
                                : net->now_ns + net->timeout_ns });
}

static void wake(struct net *net, uint32_t rank)
{
    struct node *node = &net->nodes[rank];
    struct tri_quiesce_event event = { .kind = TRI_QUIESCE_ON_TICK };

    node->wake_ns = NEVER;
    if (tri_quiesce_wants_snapshot(&node->quiesce)) {
        event.kind = TRI_QUIESCE_ON_SNAPSHOT;
        event.flags = node->inbox > 0 || node->is_stuck ? TRI_QUIESCE_ACTORS
                                                        : 0;
        for (uint32_t i = 0; i < net->len; i++) {
            if (node->members[i].is_dead)
                continue;
            event.sent += node->sent[i];
            event.received += node->received[i];
        }
        step(net, rank, event);
    }
    step(net, rank,
         (struct tri_quiesce_event){ .kind = TRI_QUIESCE_ON_TICK });
}

static void land(struct net *net, uint32_t i)
{
    struct flight flight = net->flights[i];
    struct node *to = &net->nodes[flight.to];

    net->flights[i] = net->flights[--net->flights_len];
    if (to->members[flight.from].is_dead)
        return;
    if (flight.is_data) {
        to->received[flight.from]++;
        arrive_data(net, flight.to);
        return;
    }
    step(net, flight.to,
         (struct tri_quiesce_event){ .kind = TRI_QUIESCE_ON_MESSAGE,
                                     .rank = flight.from,
                                     .message = &flight.message });
}

/* Half of what it had sent is lost with it. */
static void kill_node(struct net *net, uint32_t rank)
{
    struct node *node = &net->nodes[rank];
    uint32_t kept = 0;

    node->is_dead = true;
    node->handle_ns = node->start_ns = node->wake_ns = NEVER;
    for (uint32_t i = 0; i < net->len; i++)
        node->learns_ns[i] = NEVER;
    for (uint32_t i = 0; i < net->flights_len; i++)
        if (net->flights[i].to != rank &&
            (net->flights[i].from != rank || below(net, 2) == 0))
            net->flights[kept++] = net->flights[i];
    net->flights_len = kept;
    for (uint32_t i = 0; i < net->len; i++)
        if (!net->nodes[i].is_dead)
            net->nodes[i].learns_ns[rank] = soon(net, 4000);
}

static void kill_some(struct net *net)
{
    uint32_t alive = 0, rank = below(net, net->len);

    for (uint32_t i = 0; i < net->len; i++)
        alive += !net->nodes[i].is_dead;
    if (below(net, 2) == 0) /* rather the coordinator */
        for (rank = 0; net->nodes[rank].is_dead; rank++)
            ;
    if (alive > 1 && !net->nodes[rank].is_dead)
        kill_node(net, rank);
    net->kill_ns = below(net, 3) > 0 ? soon(net, 10000) : NEVER;
}

static void learn(struct net *net, uint32_t rank, uint32_t dead)
{
    net->busy_ns = net->now_ns;
    net->nodes[rank].learns_ns[dead] = NEVER;
    step(net, rank, (struct tri_quiesce_event){ .kind = TRI_QUIESCE_ON_DEATH,
                                                .rank = dead });
}

/* --- the clock ------------------------------------------------------------ */

enum what { HANDLE, START, WAKE, LEARN, LAND, KILL };

struct next {
    uint64_t at_ns;
    enum what what;
    uint32_t a, b;
};

static void offer(struct next *next, uint64_t at_ns, enum what what, uint32_t a,
                  uint32_t b)
{
    if (at_ns < next->at_ns)
        *next = (struct next){ at_ns, what, a, b };
}

/* False: nothing will ever happen again. */
static bool run_one(struct net *net)
{
    struct next next = { .at_ns = NEVER };

    for (uint32_t i = 0; i < net->len; i++) {
        struct node *node = &net->nodes[i];

        if (!node->is_stuck)
            offer(&next, node->handle_ns, HANDLE, i, 0);
        offer(&next, node->start_ns, START, i, 0);
        offer(&next, node->wake_ns, WAKE, i, 0);
        for (uint32_t j = 0; j < net->len; j++)
            offer(&next, node->learns_ns[j], LEARN, i, j);
    }
    for (uint32_t i = 0; i < net->flights_len; i++)
        offer(&next, net->flights[i].at_ns, LAND, i, 0);
    offer(&next, net->kill_ns, KILL, 0, 0);
    if (next.at_ns == NEVER)
        return false;
    net->now_ns = next.at_ns > net->now_ns ? next.at_ns : net->now_ns;
    switch (next.what) {
    case HANDLE: handle(net, next.a); break;
    case START: start(net, next.a); break;
    case WAKE: wake(net, next.a); break;
    case LEARN: learn(net, next.a, next.b); break;
    case LAND: land(net, next.a); break;
    case KILL: kill_some(net); break;
    }
    return true;
}

static struct net *net_of(uint64_t seed)
{
    static struct net net;

    memset(&net, 0, offsetof(struct net, flights));
    net.seed = seed;
    net.now_ns = MS;
    net.kill_ns = NEVER;
    net.timeout_ns = NEVER;
    tri_random_init(&net.random, seed);
    net.len = 1 + below(&net, NODES_MAX);
    for (uint32_t i = 0; i < net.len; i++) {
        struct node *node = &net.nodes[i];

        tri_quiesce_init(&node->quiesce, i, net.len, node->members);
        node->handle_ns = node->wake_ns = NEVER;
        node->start_ns = soon(&net, 5000);
        for (uint32_t j = 0; j < net.len; j++)
            node->learns_ns[j] = NEVER;
    }
    return &net;
}

static bool have_all_returned(const struct net *net)
{
    for (uint32_t i = 0; i < net->len; i++)
        if (!net->nodes[i].is_dead &&
            net->nodes[i].returned < net->nodes[i].calls)
            return false;
    return true;
}

static void run_all(struct net *net)
{
    while (!have_all_returned(net)) {
        if (!run_one(net))
            broken(net, 0, "nothing happens any more");
        if (net->now_ns - net->busy_ns > SOON_NS &&
            net->timeout_ns == NEVER)
            broken(net, 0, "quiet, but not said so");
    }
}

static void test_traffic(void **state)
{
    uint64_t seed = unit_seed("test_traffic");

    (void)state;
    for (uint64_t i = 0; i < SEEDS; i++) {
        struct net *net = net_of(seed + i);

        for (uint32_t j = 0; j < net->len; j++)
            net->nodes[j].calls = CALLS;
        run_all(net);
    }
}

static void test_deaths(void **state)
{
    uint64_t seed = unit_seed("test_deaths");

    (void)state;
    for (uint64_t i = 0; i < SEEDS; i++) {
        struct net *net = net_of(seed + i);

        for (uint32_t j = 0; j < net->len; j++)
            net->nodes[j].calls = CALLS;
        net->kill_ns = soon(net, 20000);
        run_all(net);
    }
}

/* --- deadlines ------------------------------------------------------------ */

static bool is_named(const struct tri_quiesce_message *status, uint32_t rank,
                     uint32_t why)
{
    for (uint32_t i = 0; i < status->len; i++)
        if (status->entries[i].who == rank && status->entries[i].what == why)
            return true;
    return false;
}

static void check_report(struct net *net, uint32_t rank, bool all_in)
{
    const struct node *node = &net->nodes[rank];
    const struct tri_quiesce_message *status = &node->quiesce.status;

    if (!node->has_expired)
        broken(net, rank, "did not expire");
    for (uint32_t i = 0; i < net->len; i++) {
        const struct node *other = &net->nodes[i];

        if (is_named(status, i, TRI_QUIESCE_IS_ABSENT) !=
            (other->calls == 0))
            broken(net, rank, "named another as absent");
        if (all_in &&
            is_named(status, i, TRI_QUIESCE_HAS_ACTORS) != other->is_stuck)
            broken(net, rank, "named another as busy");
    }
}

/* Some are absent or busy for ever; later they come and all is well. */
static void run_deadline(uint64_t seed)
{
    struct net *net = net_of(seed);
    bool all_in = below(net, 2) == 0;
    uint32_t culprit = below(net, net->len);

    net->timeout_ns = TIMEOUT_NS;
    for (uint32_t i = 0; i < net->len; i++) {
        bool is_guilty = i == culprit || below(net, 3) == 0;

        net->nodes[i].is_stuck = all_in && is_guilty;
        net->nodes[i].calls = all_in || !is_guilty;
        if (net->nodes[i].calls == 0)
            net->nodes[i].start_ns = NEVER;
    }
    run_all(net);
    for (uint32_t i = 0; i < net->len; i++)
        if (net->nodes[i].calls > 0)
            check_report(net, i, all_in);
    for (uint32_t i = 0; i < net->len; i++) {
        net->nodes[i].is_stuck = false;
        net->nodes[i].returned = net->nodes[i].started = 1;
        net->nodes[i].calls = 2;
        net->nodes[i].start_ns = soon(net, 5000);
    }
    run_all(net);
    for (uint32_t i = 0; i < net->len; i++)
        if (net->nodes[i].has_expired)
            broken(net, i, "expired although all came");
}

static void test_deadlines(void **state)
{
    uint64_t seed = unit_seed("test_deadlines");

    (void)state;
    for (uint64_t i = 0; i < SEEDS; i++)
        run_deadline(seed + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traffic),
        cmocka_unit_test(test_deaths),
        cmocka_unit_test(test_deadlines),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
