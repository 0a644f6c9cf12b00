/* SPDX-License-Identifier: BSD-3-Clause */
/* The SWIM core, rule by rule: single nodes that are told things by hand, and
 * small worlds on a virtual clock. tests/sim has the large ones. */
#include "unit.h"

#include "member/swim_core.h"

#define MS TRI_NS_PER_MS
#define SECOND (1000 * MS)
#define START (10 * SECOND)

/* --- one node ------------------------------------------------------------ */

struct fixture {
    struct tri_swim_config config;
    struct tri_swim *swim;
    struct tri_swim_effects effects;
    uint64_t now_ns;
};

static struct fixture node_one; /* large */

/* Node 1 of n, the others being 2 .. n. */
static struct fixture *one_of(uint32_t n, uint32_t ablate)
{
    struct fixture *f = &node_one;

    memset(f, 0, sizeof(*f));
    tri_swim_config_init(&f->config, TRI_SWIM_HPC);
    f->config.node = 1;
    f->config.seed = 7;
    f->config.members_max = 256;
    f->config.ablate = ablate;
    f->now_ns = START;
    assert_int_equal(tri_swim_create(&f->config, &f->swim), 0);
    for (uint64_t node = 2; node <= n; node++)
        assert_int_equal(tri_swim_add(f->swim, node), 0);
    tri_swim_step(f->swim,
                  &(struct tri_swim_event){ .kind = TRI_SWIM_TICK,
                                            .now_ns = f->now_ns },
                  &f->effects);
    return f;
}

static void step(struct fixture *f, enum tri_swim_event_kind kind,
                 const struct tri_swim_packet *packet)
{
    struct tri_swim_event event = {
        .kind = kind, .now_ns = f->now_ns, .packet = packet,
    };

    tri_swim_step(f->swim, &event, &f->effects);
}

static void evidence(struct fixture *f, uint64_t node,
                     enum tri_swim_evidence class)
{
    struct tri_swim_event event = {
        .kind = TRI_SWIM_EVIDENCE, .now_ns = f->now_ns, .node = node,
        .evidence = class,
    };

    tri_swim_step(f->swim, &event, &f->effects);
}

static struct tri_swim_packet packet_of(unsigned kind, uint64_t from)
{
    return (struct tri_swim_packet){
        .kind = (uint8_t)kind, .from = from, .to = 1,
        .alive_len = 8, .lowest = 1,
    };
}

static void tell(struct fixture *f, uint64_t from, struct tri_rumour rumour)
{
    struct tri_swim_packet packet = packet_of(TRI_SWIM_GOSSIP, from);

    packet.rumours_len = 1;
    packet.rumours[0] = rumour;
    step(f, TRI_SWIM_PACKET, &packet);
}

static struct tri_rumour about(uint64_t node, unsigned state,
                               uint32_t incarnation, uint64_t accuser)
{
    return (struct tri_rumour){
        .node = node, .state = (uint8_t)state, .incarnation = incarnation,
        .accuser = accuser,
    };
}

static void done(struct fixture *f)
{
    tri_swim_destroy(&f->swim);
    assert_null(f->swim);
}

/* The first packet of a kind among the effects; NULL: none. */
static const struct tri_swim_packet *sent(const struct fixture *f,
                                          unsigned kind)
{
    for (uint32_t i = 0; i < f->effects.sends_len; i++)
        if (f->effects.sends[i].kind == kind)
            return &f->effects.sends[i];
    return NULL;
}

static const struct tri_rumour *rumour_in(const struct tri_swim_packet *packet,
                                          uint64_t node)
{
    for (uint32_t i = 0; packet != NULL && i < packet->rumours_len; i++)
        if (packet->rumours[i].node == node)
            return &packet->rumours[i];
    return NULL;
}

static struct tri_rumour entry_of(const struct fixture *f, uint64_t node)
{
    struct tri_rumour entry;

    for (uint32_t i = 0; tri_swim_get(f->swim, i, &entry); i++)
        if (entry.node == node)
            return entry;
    return (struct tri_rumour){ .node = 0 };
}

/* Runs the node's own timers until `until_ns`, keeping it in touch: node 2
 * says something every period / 4 when `heard`. Ends early when a change of
 * `node` to `state` is reported; returns the time. */
static uint64_t run_until(struct fixture *f, uint64_t until_ns, bool heard,
                          uint64_t node, unsigned state)
{
    uint64_t talk_ns = f->now_ns, pause_ns = f->config.times.period / 4;

    while (f->now_ns < until_ns) {
        uint64_t due_ns = tri_swim_due_ns(f->swim);

        if (heard && talk_ns <= due_ns) {
            struct tri_swim_packet packet = packet_of(TRI_SWIM_GOSSIP, 2);

            f->now_ns = talk_ns > f->now_ns ? talk_ns : f->now_ns;
            talk_ns = f->now_ns + pause_ns;
            step(f, TRI_SWIM_PACKET, &packet);
            continue;
        }
        if (due_ns > until_ns)
            due_ns = until_ns;
        f->now_ns = due_ns > f->now_ns ? due_ns : f->now_ns;
        step(f, TRI_SWIM_TICK, NULL);
        for (uint32_t i = 0; i < f->effects.changes_len; i++)
            if (f->effects.changes[i].node == node &&
                f->effects.changes[i].after == state)
                return f->now_ns;
    }
    return f->now_ns;
}

/* --- formulas ------------------------------------------------------------- */

static void test_formulas(void **state)
{
    static const struct { uint32_t n, m; } counts[] = {
        { 1, 8 }, { 2, 9 }, { 8, 10 }, { 64, 12 }, { 1024, 15 },
        { 4096, 17 }, { 10000, 18 },
    };
    struct tri_swim_config config;

    (void)state;
    for (unsigned i = 0; i < tri_array_len(counts); i++)
        assert_int_equal(tri_swim_transmissions(counts[i].n, 0.05),
                         counts[i].m);
    assert_int_equal(tri_swim_transmissions(8, 0), 10); /* 9.08 */
    assert_int_equal(tri_swim_transmissions(8, 0.5), 19);
    assert_int_equal(tri_swim_transmissions(8, 0.99), 63);
    tri_swim_config_init(&config, TRI_SWIM_HPC);
    assert_int_equal(tri_swim_suspicion_min_ns(&config, 1), 2 * SECOND);
    assert_int_equal(tri_swim_suspicion_min_ns(&config, 8), 2 * SECOND);
    assert_in_range(tri_swim_suspicion_min_ns(&config, 1000) / MS, 5999, 6000);
    assert_in_range(tri_swim_suspicion_min_ns(&config, 4096) / MS, 7224, 7225);
    tri_swim_config_init(&config, TRI_SWIM_FAST);
    assert_int_equal(tri_swim_suspicion_min_ns(&config, 8), 800 * MS);
}

/* --- opinions --------------------------------------------------------------- */

static void test_refutation(void **state)
{
    struct fixture *f = one_of(8, 0);

    (void)state;
    tell(f, 2, about(1, TRI_SWIM_SUSPECT, 0, 3));
    assert_int_equal(tri_swim_incarnation(f->swim), 1);
    assert_int_equal(tri_swim_metrics(f->swim).refutations, 1);
    assert_int_equal(tri_swim_metrics(f->swim).health, 1);
    assert_int_equal(tri_swim_state_of(f->swim, 1), TRI_SWIM_ALIVE);
    tell(f, 3, about(1, TRI_SWIM_SUSPECT, 0, 3)); /* old */
    assert_int_equal(tri_swim_incarnation(f->swim), 1);
    tell(f, 3, about(1, TRI_SWIM_SUSPECT, 7, 3));
    assert_int_equal(tri_swim_incarnation(f->swim), 8);
    step(f, TRI_SWIM_TICK, NULL); /* says so at once */
    assert_non_null(rumour_in(sent(f, TRI_SWIM_GOSSIP), 1));
    assert_int_equal(rumour_in(sent(f, TRI_SWIM_GOSSIP), 1)->incarnation, 8);
    done(f);
}

static void test_first_suspicion(void **state)
{
    struct fixture *f = one_of(8, 0);

    (void)state;
    run_until(f, START + 60 * SECOND, true, 5, TRI_SWIM_DEAD);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_DEAD);
    done(f);
}

/* Dead at once, and everybody is told at once. */
static void test_proof(void **state)
{
    struct fixture *f = one_of(8, 0);
    struct tri_rumour entry;

    (void)state;
    evidence(f, 5, TRI_SWIM_PROOF);
    assert_int_equal(f->effects.changes_len, 1);
    assert_int_equal(f->effects.changes[0].node, 5);
    assert_int_equal(f->effects.changes[0].before, TRI_SWIM_ALIVE);
    assert_int_equal(f->effects.changes[0].after, TRI_SWIM_DEAD);
    assert_int_equal(f->effects.changes[0].evidence, TRI_SWIM_PROOF);
    assert_true(tri_swim_due_ns(f->swim) <= f->now_ns);
    step(f, TRI_SWIM_TICK, NULL);
    assert_true(f->effects.sends_len >= f->config.fanout);
    assert_non_null(rumour_in(sent(f, TRI_SWIM_GOSSIP), 5));
    assert_int_equal(rumour_in(sent(f, TRI_SWIM_GOSSIP), 5)->evidence,
                     TRI_SWIM_PROOF);
    entry = entry_of(f, 5);
    assert_int_equal(entry.state, TRI_SWIM_DEAD);
    assert_int_equal(entry.accuser, 1);
    assert_int_equal(tri_swim_alive_len(f->swim), 7);
    done(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_refutation),
        cmocka_unit_test(test_first_suspicion),
        cmocka_unit_test(test_proof),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
