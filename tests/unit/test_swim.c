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

/* Looks at node 3 that find it waiting for a core; counts down. */
static int starved_looks;

static bool is_starved(void *context, uint64_t node)
{
    assert_ptr_equal(context, &node_one);
    return node == 3 && starved_looks-- > 0;
}

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
    f->config.is_starved = is_starved;
    f->config.context = f;
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

/* Members that are asked about another say that they suspect it, too. */
static void agree(struct fixture *f)
{
    struct tri_swim_packet answers[TRI_SWIM_SENDS_MAX];
    uint32_t answers_len = 0;

    for (uint32_t i = 0; i < f->effects.sends_len; i++) {
        const struct tri_swim_packet *asked = &f->effects.sends[i];
        struct tri_swim_packet *answer = &answers[answers_len];

        if (asked->kind != TRI_SWIM_STATE_REQ || asked->target == 0)
            continue;
        *answer = packet_of(TRI_SWIM_STATE, asked->to);
        answer->target = asked->target;
        answer->cursor = TRI_SWIM_CURSOR_END;
        answer->rumours_len = 1;
        answer->rumours[0] =
            about(asked->target, TRI_SWIM_SUSPECT, 0, asked->to);
        answers_len++;
    }
    for (uint32_t i = 0; i < answers_len; i++)
        step(f, TRI_SWIM_PACKET, &answers[i]);
}

/* Runs the node's own timers until `until_ns`, keeping it in touch: node 2
 * says something every period / 4 when `heard`, and all answer when they are
 * asked about a suspect. Ends early when a change of
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
        if (heard)
            agree(f);
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


/* What node 2 holds of node 5 before, what it is told, what it holds then. */
static void test_precedence(void **state)
{
    static const unsigned states[] = {
        TRI_SWIM_ALIVE, TRI_SWIM_SUSPECT, TRI_SWIM_DEAD, TRI_SWIM_LEFT,
    };

    (void)state;
    for (unsigned known = 0; known < 4; known++)
        for (unsigned told = 0; told < 4; told++)
            for (uint32_t incarnation = 1; incarnation <= 3; incarnation++) {
                struct fixture *f = one_of(8, 0);
                bool taken = told == 0   ? incarnation > 2
                             : told == 1 ? incarnation > 2 ||
                                               (known == 0 && incarnation == 2)
                                         : true;
                struct tri_rumour entry;

                if (known >= 2)
                    taken = false; /* final */
                tell(f, 2, about(5, TRI_SWIM_ALIVE, 2, 0));
                if (known > 0)
                    tell(f, 2, about(5, states[known], 2, 3));
                tell(f, 2, about(5, states[told], incarnation, 4));
                entry = entry_of(f, 5);
                assert_int_equal(entry.state, states[taken ? told : known]);
                assert_int_equal(entry.incarnation,
                                 taken && incarnation > 2 ? 3 : 2);
                done(f);
            }
}

/* Without finality a higher incarnation revives: what the rule is for. */
static void test_finality(void **state)
{
    struct fixture *f = one_of(8, 0);
    struct tri_swim_packet ping = packet_of(TRI_SWIM_PING, 5);

    (void)state;
    tell(f, 2, about(5, TRI_SWIM_DEAD, 0, 3));
    ping.incarnation = 9;
    ping.rumours_len = 1;
    ping.rumours[0] = about(6, TRI_SWIM_SUSPECT, 0, 5);
    step(f, TRI_SWIM_PACKET, &ping);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_DEAD);
    assert_int_equal(tri_swim_state_of(f->swim, 6), TRI_SWIM_ALIVE);
    assert_int_equal(f->effects.sends_len, 1); /* no ack */
    assert_int_equal(f->effects.sends[0].kind, TRI_SWIM_EXCLUDED);
    assert_int_equal(f->effects.sends[0].to, 5);
    tell(f, 2, about(5, TRI_SWIM_ALIVE, 20, 0));
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_DEAD);
    done(f);

    f = one_of(8, TRI_SWIM_WITHOUT_FINALITY);
    tell(f, 2, about(5, TRI_SWIM_DEAD, 0, 3));
    tell(f, 2, about(5, TRI_SWIM_ALIVE, 1, 0));
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_ALIVE);
    done(f);
}

/* A cluster fell apart, and sides meet again: views of one group say more than
 * sizes, those of two groups nothing. */
static bool excluded_by(uint64_t own_view, uint64_t view, uint32_t alive)
{
    struct fixture *f = one_of(8, 0);
    struct tri_swim_packet packet = packet_of(TRI_SWIM_EXCLUDED, 5);
    bool excluded;

    tell(f, 2, about(5, TRI_SWIM_DEAD, 0, 3));
    tri_swim_set_view(f->swim, own_view);
    packet.alive_len = alive;
    packet.lowest = 5;
    packet.view_epoch = view;
    step(f, TRI_SWIM_PACKET, &packet);
    excluded = f->effects.excluded;
    assert_int_equal(f->effects.sends_len > 0 &&
                         f->effects.sends[0].kind == TRI_SWIM_EXCLUDED,
                     !excluded);
    done(f);
    return excluded;
}

static void test_views_of_sides(void **state)
{
    uint64_t group = 7ull << 32, other = 8ull << 32;

    (void)state;
    assert_true(excluded_by(0, 0, 20));
    assert_false(excluded_by(0, 0, 2));
    assert_true(excluded_by(group | 3, group | 4, 2));
    assert_false(excluded_by(group | 4, group | 3, 20));
    assert_true(excluded_by(group | 4, group | 4, 20));
    assert_true(excluded_by(group | 4, other | 3, 20));
    assert_false(excluded_by(group | 3, other | 4, 2));
    assert_true(excluded_by(group | 4, 0, 20));
    assert_false(excluded_by(0, group | 4, 2));
}

/* Excluded with those of its side that an unknown one has put out, a member
 * tells it to nobody else: that one may be out itself, and they would do so. */
static void test_follow(void **state)
{
    struct fixture *f = one_of(8, 0);
    struct tri_swim_packet packet = packet_of(TRI_SWIM_EXCLUDED, 5);

    (void)state;
    packet.target = 99;
    step(f, TRI_SWIM_PACKET, &packet);
    assert_true(f->effects.excluded);
    assert_int_equal(f->effects.sends_len, 0);
    f->now_ns += SECOND;
    step(f, TRI_SWIM_TICK, NULL);
    assert_int_equal(f->effects.sends_len, 0);
    packet = packet_of(TRI_SWIM_PING, 6);
    step(f, TRI_SWIM_PACKET, &packet);
    assert_int_equal(f->effects.sends_len, 0);
    done(f);
}

/* Who lists all others, and is dead to them, is not the larger side: of 12 the
 * fifth one that says so leaves 7. One alone may say it as often as it wants. */
static void test_turned(void **state)
{
    struct fixture *f = one_of(12, 0);

    (void)state;
    for (uint64_t from = 2; from <= 6; from++)
        for (unsigned i = 0; i < (from == 6 ? 1 : 10); i++) {
            struct tri_swim_packet packet =
                packet_of(TRI_SWIM_EXCLUDED, from);

            packet.alive_len = 7;
            packet.lowest = 1;
            step(f, TRI_SWIM_PACKET, &packet);
            assert_int_equal(f->effects.excluded, from == 6);
        }
    done(f);
}

/* Who tells old news of a dead is told that it is dead. */
static void test_retell(void **state)
{
    struct fixture *f = one_of(8, 0);
    const struct tri_swim_packet *gossip;

    (void)state;
    evidence(f, 5, TRI_SWIM_PROOF);
    tell(f, 2, about(5, TRI_SWIM_ALIVE, 3, 0));
    gossip = sent(f, TRI_SWIM_GOSSIP);
    assert_non_null(gossip);
    assert_int_equal(gossip->to, 2);
    assert_int_equal(rumour_in(gossip, 5)->state, TRI_SWIM_DEAD);
    tell(f, 3, about(5, TRI_SWIM_ALIVE, 3, 0));
    assert_null(sent(f, TRI_SWIM_GOSSIP)); /* not for each */
    done(f);
}

/* Time from the suspicion of 5 to its death, with so many other accusers. */
static uint64_t suspicion_ns(uint32_t n, uint32_t others,
                             enum tri_swim_evidence class)
{
    struct fixture *f = one_of(n, 0);
    struct tri_rumour rumour = about(5, TRI_SWIM_SUSPECT, 0, 2);
    uint64_t end_ns;

    if (n < 5)
        rumour.node = n;
    rumour.evidence = (uint8_t)class;
    tell(f, 2, rumour);
    assert_int_equal(f->effects.changes_len, 1);
    assert_int_equal(f->effects.changes[0].after, TRI_SWIM_SUSPECT);
    /* Its own probes would confirm: only the suspicion's clock is looked at,
     * by a node that probes nobody since everything answers it. */
    for (uint64_t i = 0; i < others; i++) {
        rumour.accuser = 100 + i;
        tell(f, 2, rumour);
    }
    f->now_ns = START;
    for (;;) {
        struct tri_swim_packet packet = packet_of(TRI_SWIM_GOSSIP, 2);
        uint64_t due_ns = tri_swim_due_ns(f->swim);

        step(f, TRI_SWIM_PACKET, &packet);
        f->now_ns = due_ns > f->now_ns ? due_ns : f->now_ns;
        step(f, TRI_SWIM_TICK, NULL);
        if (tri_swim_state_of(f->swim, rumour.node) == TRI_SWIM_DEAD)
            break;
        for (uint32_t i = 0; i < f->effects.sends_len; i++) {
            struct tri_swim_event heard = {
                .kind = TRI_SWIM_HEARD, .now_ns = f->now_ns,
                .node = f->effects.sends[i].to,
            };
            struct tri_swim_effects *none = calloc(1, sizeof(*none));

            assert_non_null(none);
            tri_swim_step(f->swim, &heard, none);
            free(none);
        }
        agree(f);
        assert_true(f->now_ns < START + 60 * SECOND);
    }
    end_ns = f->now_ns;
    done(f);
    return (end_ns - START) / MS;
}

/* max - (max - min) ln(C + 1) / ln(K + 1): 2 s to 12 s, K = 2. Before a late
 * verdict others may be asked once more, for a period at most. */
static void decays_in(uint64_t ns, uint64_t expected_ms)
{
    assert_in_range(ns, expected_ms - 1, expected_ms + 500);
}

static void test_decay(void **state)
{
    (void)state;
    decays_in(suspicion_ns(8, 0, TRI_SWIM_WEAK), 12000);
    decays_in(suspicion_ns(8, 1, TRI_SWIM_WEAK), 5691);
    decays_in(suspicion_ns(8, 2, TRI_SWIM_WEAK), 2000);
    decays_in(suspicion_ns(8, 9, TRI_SWIM_WEAK), 2000);
    decays_in(suspicion_ns(8, 0, TRI_SWIM_STRONG), 2000);
    decays_in(suspicion_ns(3, 0, TRI_SWIM_WEAK), 4000);
    decays_in(suspicion_ns(3, 5, TRI_SWIM_WEAK), 4000);
    decays_in(suspicion_ns(3, 0, TRI_SWIM_STRONG), 2000);
    decays_in(suspicion_ns(100, 0, TRI_SWIM_WEAK), 24000);
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

/* --- probes ----------------------------------------------------------------- */

/* Ticks until a packet of the kind leaves; node 2 says something in each
 * period before. */
static struct tri_swim_packet tick_until_sent(struct fixture *f, unsigned kind)
{
    uint64_t limit_ns = f->now_ns + 60 * SECOND;

    for (;;) {
        struct tri_swim_packet packet = packet_of(TRI_SWIM_GOSSIP, 2);
        uint64_t due_ns = tri_swim_due_ns(f->swim);

        if (due_ns > f->now_ns + f->config.times.period) {
            f->now_ns += f->config.times.period;
            step(f, TRI_SWIM_PACKET, &packet);
            continue;
        }
        f->now_ns = due_ns > f->now_ns ? due_ns : f->now_ns;
        assert_true(f->now_ns < limit_ns);
        step(f, TRI_SWIM_TICK, NULL);
        if (sent(f, kind) != NULL)
            return *sent(f, kind);
    }
}

static void answer(struct fixture *f, const struct tri_swim_packet *ping,
                   uint64_t from, unsigned kind)
{
    struct tri_swim_packet packet = packet_of(kind, from);

    packet.sequence = ping->sequence;
    if (kind == TRI_SWIM_ACK && from != ping->to)
        packet.target = ping->to;
    step(f, TRI_SWIM_PACKET, &packet);
}

/* Two pings, three helpers at once, and the verdict at the period's end. */
static void test_probe(void **state)
{
    struct fixture *f = one_of(8, 0);
    struct tri_swim_packet ping, again, help;
    uint64_t start_ns, seen = 0;

    (void)state;
    ping = tick_until_sent(f, TRI_SWIM_PING);
    start_ns = f->now_ns;
    assert_true(start_ns <= START + f->config.times.period);
    again = tick_until_sent(f, TRI_SWIM_PING);
    assert_int_equal(f->now_ns - start_ns, 75 * MS);
    assert_int_equal(again.to, ping.to);
    assert_int_not_equal(again.sequence, ping.sequence);
    help = tick_until_sent(f, TRI_SWIM_PING_REQ);
    assert_int_equal(f->now_ns - start_ns, 150 * MS);
    assert_int_equal(f->effects.sends_len, 3);
    for (uint32_t i = 0; i < 3; i++) {
        const struct tri_swim_packet *req = &f->effects.sends[i];

        assert_int_equal(req->kind, TRI_SWIM_PING_REQ);
        assert_int_equal(req->target, ping.to);
        assert_int_not_equal(req->to, ping.to);
        assert_int_equal(seen & 1ull << req->to, 0);
        seen |= 1ull << req->to;
    }
    answer(f, &help, help.to, TRI_SWIM_NACK);
    run_until(f, START + 10 * SECOND, false, ping.to, TRI_SWIM_SUSPECT);
    assert_int_equal(f->now_ns - start_ns, 500 * MS);
    assert_int_equal(f->effects.changes_len, 1);
    assert_int_equal(f->effects.changes[0].evidence, TRI_SWIM_WEAK);
    assert_int_equal(f->effects.changes[0].accuser, 1);
    assert_int_equal(tri_swim_metrics(f->swim).suspicions, 1);
    done(f);
}

/* An ack of either ping, one through a helper and other traffic end a probe;
 * an ack of another probe does not. */
static void test_answers(void **state)
{
    struct fixture *f;
    struct tri_swim_packet ping, old;

    (void)state;
    for (unsigned way = 0; way < 5; way++) {
        f = one_of(8, 0);
        old = ping = tick_until_sent(f, TRI_SWIM_PING);
        if (way >= 1)
            old = tick_until_sent(f, TRI_SWIM_PING);
        if (way == 1)
            ping = old;
        old.sequence += 2;
        answer(f, &old, ping.to, TRI_SWIM_ACK);
        if (way < 2) {
            answer(f, &ping, ping.to, TRI_SWIM_ACK);
        } else if (way == 2) {
            answer(f, &ping, ping.to == 2 ? 3 : 2, TRI_SWIM_ACK);
        } else if (way == 3) {
            struct tri_swim_event event = {
                .kind = TRI_SWIM_HEARD, .now_ns = f->now_ns, .node = ping.to,
            };

            tri_swim_step(f->swim, &event, &f->effects);
        }
        run_until(f, f->now_ns + 490 * MS, true, ping.to, TRI_SWIM_SUSPECT);
        assert_int_equal(tri_swim_state_of(f->swim, ping.to),
                         way < 4 ? TRI_SWIM_ALIVE : TRI_SWIM_SUSPECT);
        done(f);
    }
}

/* A failed probe costs the nacks that did not come; a good one gives back. */
static void test_nack_health(void **state)
{
    (void)state;
    for (uint32_t nacks = 0; nacks <= 3; nacks++) {
        struct fixture *f = one_of(8, 0);
        struct tri_swim_packet ping = tick_until_sent(f, TRI_SWIM_PING);
        struct tri_swim_packet helps[3], next;
        uint64_t start_ns;

        tick_until_sent(f, TRI_SWIM_PING_REQ);
        memcpy(helps, f->effects.sends, sizeof(helps));
        for (uint32_t i = 0; i < nacks; i++) {
            answer(f, &helps[i], helps[i].to, TRI_SWIM_NACK);
            answer(f, &helps[i], helps[i].to, TRI_SWIM_NACK); /* counts once */
        }
        tell(f, 2, about(3, TRI_SWIM_ALIVE, 0, 0)); /* something was heard */
        run_until(f, START + 10 * SECOND, false, ping.to, TRI_SWIM_SUSPECT);
        assert_int_equal(tri_swim_metrics(f->swim).health, 3 - nacks);
        if (nacks == 3) { /* the next probe went out in the same tick */
            done(f);
            continue;
        }
        next = sent(f, TRI_SWIM_PING) != NULL ? *sent(f, TRI_SWIM_PING)
                                              : tick_until_sent(f, TRI_SWIM_PING);
        start_ns = f->now_ns;
        answer(f, &next, next.to, TRI_SWIM_ACK);
        assert_int_equal(tri_swim_metrics(f->swim).health, 2 - nacks);
        next = tick_until_sent(f, TRI_SWIM_PING); /* by the health then */
        assert_int_equal(f->now_ns - start_ns, (4 - nacks) * 500 * MS);
        done(f);
    }
}

/* Asked to probe for another: the ack is passed on; without one a nack goes
 * at 80 % of the timeout. */
static void test_helper(void **state)
{
    struct fixture *f = one_of(8, 0);
    struct tri_swim_packet request = packet_of(TRI_SWIM_PING_REQ, 2), ping;

    (void)state;
    request.target = 5;
    request.sequence = 77;
    step(f, TRI_SWIM_PACKET, &request);
    assert_int_equal(f->effects.sends_len, 1);
    ping = f->effects.sends[0];
    assert_int_equal(ping.kind, TRI_SWIM_PING);
    assert_int_equal(ping.to, 5);
    answer(f, &ping, 5, TRI_SWIM_ACK);
    assert_non_null(sent(f, TRI_SWIM_ACK));
    assert_int_equal(sent(f, TRI_SWIM_ACK)->to, 2);
    assert_int_equal(sent(f, TRI_SWIM_ACK)->sequence, 77);
    assert_int_equal(sent(f, TRI_SWIM_ACK)->target, 5);

    step(f, TRI_SWIM_PACKET, &request);
    ping = tick_until_sent(f, TRI_SWIM_NACK);
    assert_int_equal(f->now_ns - START, 120 * MS);
    assert_int_equal(ping.to, 2);
    assert_int_equal(ping.sequence, 77);
    request.target = 99; /* unknown: it can not help, but it lives */
    step(f, TRI_SWIM_PACKET, &request);
    assert_non_null(sent(f, TRI_SWIM_NACK));
    for (unsigned i = 0; i < 100; i++) { /* more than it takes */
        request.target = 5;
        request.sequence = 200 + i;
        step(f, TRI_SWIM_PACKET, &request);
        assert_int_equal(f->effects.sends_len, 1);
    }
    assert_non_null(sent(f, TRI_SWIM_NACK));
    done(f);
}

/* A suspect is told so by the ping itself, and its ack refutes. */
static void test_buddy(void **state)
{
    struct fixture *f = one_of(8, 0);
    struct tri_swim_packet ping, ack = packet_of(TRI_SWIM_ACK, 5);

    (void)state;
    tell(f, 2, about(5, TRI_SWIM_SUSPECT, 0, 3));
    evidence(f, 5, TRI_SWIM_WEAK);
    ping = tick_until_sent(f, TRI_SWIM_PING);
    assert_int_equal(ping.to, 5);
    assert_int_equal(ping.rumours[0].node, 5);
    assert_int_equal(ping.rumours[0].state, TRI_SWIM_SUSPECT);
    ack.sequence = ping.sequence;
    step(f, TRI_SWIM_PACKET, &ack); /* lives, but has not refuted */
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_SUSPECT);
    ack.incarnation = 1;
    step(f, TRI_SWIM_PACKET, &ack);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_ALIVE);
    assert_int_equal(f->effects.changes_len, 1);
    assert_int_equal(f->effects.changes[0].before, TRI_SWIM_SUSPECT);
    done(f);
}

static void test_strong(void **state)
{
    struct fixture *f = one_of(8, 0);
    uint64_t suspect_ns;

    (void)state;
    evidence(f, 5, TRI_SWIM_STRONG);
    assert_int_equal(f->effects.changes_len, 0); /* no verdict by itself */
    assert_int_equal(tick_until_sent(f, TRI_SWIM_PING).to, 5);
    assert_int_equal(f->now_ns, START);          /* but a probe at once */
    suspect_ns = run_until(f, START + 10 * SECOND, true, 5, TRI_SWIM_SUSPECT);
    assert_int_equal(suspect_ns - START, 500 * MS);
    assert_int_equal(f->effects.changes[0].evidence, TRI_SWIM_STRONG);
    run_until(f, START + 60 * SECOND, true, 5, TRI_SWIM_DEAD);
    assert_int_equal(f->now_ns - suspect_ns, 2 * SECOND);
    done(f);

    f = one_of(8, 0); /* an answer makes it as good as any */
    evidence(f, 5, TRI_SWIM_STRONG);
    {
        struct tri_swim_packet ping = tick_until_sent(f, TRI_SWIM_PING);

        answer(f, &ping, 5, TRI_SWIM_ACK);
    }
    run_until(f, START + 60 * SECOND, true, 5, TRI_SWIM_SUSPECT);
    assert_int_equal(f->effects.changes[0].evidence, TRI_SWIM_WEAK);
    done(f);
}

/* --- rules A and B ------------------------------------------------------------ */

static void test_rule_a(void **state)
{
    struct fixture *f = one_of(8, 0);
    struct tri_swim_packet ping = tick_until_sent(f, TRI_SWIM_PING);
    uint64_t start_ns = f->now_ns;

    (void)state;
    run_until(f, start_ns + 500 * MS, false, ping.to, TRI_SWIM_SUSPECT);
    assert_int_equal(tri_swim_metrics(f->swim).dropped_by_rule_a, 1);
    assert_int_equal(tri_swim_metrics(f->swim).health, 3);
    run_until(f, START + 600 * SECOND, false, 0, 0);
    assert_int_equal(tri_swim_metrics(f->swim).suspicions, 0);
    assert_int_equal(tri_swim_alive_len(f->swim), 8);
    assert_int_equal(tri_swim_metrics(f->swim).health, 7);
    done(f);

    f = one_of(8, TRI_SWIM_WITHOUT_RULE_A);
    run_until(f, START + 600 * SECOND, false, 0, 0);
    assert_true(tri_swim_metrics(f->swim).suspicions > 0);
    done(f);
}

/* A suspicion's end waits for the next word from anybody. */
static void test_rule_a_death(void **state)
{
    struct fixture *f = one_of(8, 0);

    (void)state;
    tell(f, 2, about(5, TRI_SWIM_SUSPECT, 0, 3));
    run_until(f, START + 600 * SECOND, false, 5, TRI_SWIM_DEAD);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_SUSPECT);
    tell(f, 3, about(6, TRI_SWIM_ALIVE, 0, 0));
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_SUSPECT);
    assert_true(tri_swim_due_ns(f->swim) <= f->now_ns);
    run_until(f, f->now_ns + 1100 * MS, true, 5, TRI_SWIM_DEAD);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_DEAD);
    done(f);
}

/* Late news of a refutation, had from one that was asked. */
static void test_last_call(void **state)
{
    struct fixture *f = one_of(8, 0);
    struct tri_swim_packet packet = packet_of(TRI_SWIM_STATE, 4);

    (void)state;
    tell(f, 2, about(5, TRI_SWIM_SUSPECT, 0, 3));
    run_until(f, START + 13 * SECOND, false, 5, TRI_SWIM_DEAD);
    tell(f, 3, about(6, TRI_SWIM_ALIVE, 0, 0));
    step(f, TRI_SWIM_TICK, NULL);
    assert_int_equal(sent(f, TRI_SWIM_STATE_REQ)->target, 5);
    packet.target = 5;
    packet.cursor = TRI_SWIM_CURSOR_END;
    packet.rumours_len = 1;
    packet.rumours[0] = about(5, TRI_SWIM_ALIVE, 1, 0);
    step(f, TRI_SWIM_PACKET, &packet);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_ALIVE);
    done(f);
}

/* Stopped for 30 s while it suspects and probes. */
static struct fixture *stopped(uint32_t ablate)
{
    struct fixture *f = one_of(8, ablate);

    tell(f, 2, about(5, TRI_SWIM_SUSPECT, 0, 3));
    tick_until_sent(f, TRI_SWIM_PING);
    f->now_ns += 30 * SECOND;
    tell(f, 2, about(6, TRI_SWIM_ALIVE, 0, 0)); /* it was in the socket */
    step(f, TRI_SWIM_TICK, NULL);
    return f;
}

static void test_rule_b(void **state)
{
    struct fixture *f = stopped(0);
    uint64_t stop_ns = f->now_ns;

    (void)state;
    assert_int_equal(tri_swim_metrics(f->swim).pauses, 1);
    assert_int_equal(tri_swim_metrics(f->swim).health, 7);
    assert_int_equal(tri_swim_metrics(f->swim).probes_failed, 0);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_SUSPECT);
    run_until(f, stop_ns + 11 * SECOND, true, 5, TRI_SWIM_DEAD);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_SUSPECT);
    run_until(f, stop_ns + 14 * SECOND, true, 5, TRI_SWIM_DEAD);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_DEAD);
    done(f);

    f = stopped(TRI_SWIM_WITHOUT_RULE_B);
    run_until(f, stop_ns + 2 * SECOND, true, 5, TRI_SWIM_DEAD);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_DEAD);
    done(f);
}

/* The timeout follows the round trips, up to a third of the period. */
static void test_rtt(void **state)
{
    static const struct { uint64_t rtt_ms, again_ms; } cases[] = {
        { 1, 75 }, { 40, 80 }, { 70, 83 },
    };

    (void)state;
    for (unsigned i = 0; i < tri_array_len(cases); i++) {
        struct fixture *f = one_of(8, 0);
        struct tri_swim_packet ping = tick_until_sent(f, TRI_SWIM_PING);
        uint64_t start_ns;

        f->now_ns += cases[i].rtt_ms * MS;
        answer(f, &ping, ping.to, TRI_SWIM_ACK);
        assert_int_equal(tri_swim_metrics(f->swim).rtt_us,
                         cases[i].rtt_ms * 1000);
        ping = tick_until_sent(f, TRI_SWIM_PING);
        start_ns = f->now_ns;
        assert_int_equal(tick_until_sent(f, TRI_SWIM_PING).to, ping.to);
        assert_int_equal((f->now_ns - start_ns) / MS, cases[i].again_ms);
        done(f);
    }
}

/* Of two, nobody else could be heard: rule A does not hold, and a suspicion
 * lasts twice its minimum. */
static void test_two(void **state)
{
    struct fixture *f = one_of(2, 0);
    uint64_t suspect_ns;

    (void)state;
    suspect_ns = run_until(f, START + 60 * SECOND, false, 2, TRI_SWIM_SUSPECT);
    assert_true(suspect_ns <= START + SECOND);
    run_until(f, START + 60 * SECOND, false, 2, TRI_SWIM_DEAD);
    assert_int_equal(f->now_ns - suspect_ns, 4 * SECOND);
    done(f);
}

/* Of three: each look that finds it waiting for a core gives it a period. */
static void test_starved(void **state)
{
    struct fixture *f = one_of(3, 0);
    uint64_t suspect_ns, late_ns;

    (void)state;
    suspect_ns = run_until(f, START + 60 * SECOND, true, 3, TRI_SWIM_SUSPECT);
    run_until(f, START + 60 * SECOND, true, 3, TRI_SWIM_DEAD);
    late_ns = f->now_ns - suspect_ns;
    done(f);
    f = one_of(3, 0);
    starved_looks = 7;
    assert_int_equal(run_until(f, START + 60 * SECOND, true, 3,
                               TRI_SWIM_SUSPECT),
                     suspect_ns);
    run_until(f, START + 60 * SECOND, true, 3, TRI_SWIM_DEAD);
    assert_int_equal(f->now_ns - suspect_ns,
                     late_ns + 7 * f->config.times.period);
    assert_int_equal(tri_swim_metrics(f->swim).starved, 7);
    done(f);
    starved_looks = 0;
}

static void test_alone(void **state)
{
    struct fixture *f = one_of(1, 0);

    (void)state;
    assert_int_equal(tri_swim_due_ns(f->swim), TRI_NS_NEVER);
    step(f, TRI_SWIM_DO_LEAVE, NULL);
    assert_true(tri_swim_due_ns(f->swim) <= f->now_ns);
    step(f, TRI_SWIM_TICK, NULL);
    assert_true(f->effects.left);
    assert_int_equal(tri_swim_due_ns(f->swim), TRI_NS_NEVER);
    done(f);
}

/* --- worlds ------------------------------------------------------------------- */

#define WORLD_MAX 40
#define AIR_MAX 4096

struct in_air {
    uint64_t at_ns;
    uint64_t number; /* of two at one time the first sent arrives first */
    struct tri_swim_packet packet;
};

struct member {
    struct tri_swim *swim; /* NULL: its process is gone */
    bool joined, left, excluded;
    uint32_t side; /* only equal sides hear each other */
    uint32_t changes;
};

static struct world {
    struct tri_swim_config config;
    struct tri_random random;
    uint64_t now_ns, number;
    uint32_t loss_percent;
    struct member members[WORLD_MAX + 1]; /* by node id */
    uint64_t seeds[4];
    struct in_air *air[AIR_MAX];
    uint32_t air_len;
    struct tri_swim_effects effects;
    /* what was seen */
    uint32_t deaths, lefts, packets;
    uint32_t kinds[TRI_SWIM_KIND_LAST + 1];
} world;

static void world_init(const char *test, enum tri_swim_profile profile)
{
    memset(&world, 0, sizeof(world));
    tri_swim_config_init(&world.config, profile);
    world.config.members_max = 64;
    world.config.card_bytes = 150;
    world.now_ns = START;
    tri_random_init(&world.random, unit_seed(test));
}

static void world_add(uint64_t node)
{
    struct member *member = &world.members[node];

    *member = (struct member){ .side = 0 };
    world.config.node = node;
    world.config.seed = tri_random_next(&world.random);
    assert_int_equal(tri_swim_create(&world.config, &member->swim), 0);
}

/* Members 1 .. n that know each other from the start. */
static void world_of(uint64_t n)
{
    for (uint64_t i = 1; i <= n; i++) {
        world_add(i);
        for (uint64_t j = 1; j <= n; j++)
            if (i != j)
                assert_int_equal(tri_swim_add(world.members[i].swim, j), 0);
    }
}

static void world_kill(uint64_t node)
{
    tri_swim_destroy(&world.members[node].swim);
}

static void world_fini(void)
{
    for (uint64_t i = 1; i <= WORLD_MAX; i++)
        if (world.members[i].swim != NULL)
            world_kill(i);
    while (world.air_len > 0)
        free(world.air[--world.air_len]);
}

/* Invariant 5, and what a packet's receiver relies on. */
static void packet_check(const struct tri_swim_packet *packet)
{
    uint32_t bytes = world.config.header_bytes;

    for (uint32_t i = 0; i < packet->rumours_len; i++) {
        const struct tri_rumour *rumour = &packet->rumours[i];

        bytes += world.config.rumour_bytes;
        bytes += rumour->with_card ? world.config.card_bytes : 0;
        assert_in_range(rumour->state, TRI_SWIM_ALIVE, TRI_SWIM_LEFT);
        if (rumour->state == TRI_SWIM_SUSPECT ||
            rumour->state == TRI_SWIM_DEAD)
            assert_int_not_equal(rumour->accuser, 0);
        for (uint32_t j = 0; j < i; j++)
            assert_int_not_equal(packet->rumours[j].node, rumour->node);
    }
    assert_true(bytes <= world.config.packet_bytes_max);
    if (packet->kind == TRI_SWIM_GOSSIP)
        assert_int_not_equal(packet->rumours_len, 0);
}

static void world_send(const struct tri_swim_packet *packet)
{
    struct in_air *flight;
    uint64_t to = packet->to;

    packet_check(packet);
    world.packets++;
    world.kinds[packet->kind]++;
    if (packet->kind == TRI_SWIM_JOIN)
        to = packet->seed == TRI_SWIM_SEED_NONE ? packet->target
                                                : world.seeds[packet->seed];
    if (to == 0 || tri_random_below(&world.random, 100) < world.loss_percent)
        return;
    assert_in_range(to, 1, WORLD_MAX);
    assert_true(world.air_len < AIR_MAX);
    flight = malloc(sizeof(*flight));
    assert_non_null(flight);
    flight->at_ns =
        world.now_ns + MS / 5 + tri_random_below(&world.random, MS);
    flight->number = world.number++;
    flight->packet = *packet;
    flight->packet.to = to;
    world.air[world.air_len++] = flight;
}

static void world_step(uint64_t node, struct tri_swim_event event)
{
    struct member *member = &world.members[node];
    struct tri_swim_effects *effects = &world.effects;

    event.now_ns = world.now_ns;
    tri_swim_step(member->swim, &event, effects);
    member->joined |= effects->joined;
    member->left |= effects->left;
    member->excluded |= effects->excluded;
    member->changes += effects->changes_len;
    for (uint32_t i = 0; i < effects->changes_len; i++) {
        const struct tri_swim_change *change = &effects->changes[i];

        assert_int_not_equal(change->before, change->after);
        assert_true(change->before < TRI_SWIM_DEAD); /* final */
        world.deaths += change->after == TRI_SWIM_DEAD;
        world.lefts += change->after == TRI_SWIM_LEFT;
    }
    for (uint32_t i = 0; i < effects->sends_len; i++)
        world_send(&effects->sends[i]);
}

static void world_deliver(uint32_t at)
{
    struct in_air *flight = world.air[at];
    struct tri_swim_packet *packet = &flight->packet;
    const struct member *from = &world.members[packet->from];
    const struct member *to = &world.members[packet->to];

    world.air[at] = world.air[--world.air_len];
    if (to->swim != NULL && from->side == to->side)
        world_step(packet->to, (struct tri_swim_event){
                                   .kind = TRI_SWIM_PACKET,
                                   .packet = packet });
    free(flight);
}

/* One event: the earliest packet or timer not after until_ns. */
static bool world_next(uint64_t until_ns)
{
    uint64_t at_ns = until_ns, node = 0;
    uint32_t flight = AIR_MAX;

    for (uint64_t i = 1; i <= WORLD_MAX; i++) {
        uint64_t due_ns;

        if (world.members[i].swim == NULL)
            continue;
        due_ns = tri_swim_due_ns(world.members[i].swim);
        due_ns = due_ns > world.now_ns ? due_ns : world.now_ns;
        if (due_ns < at_ns) {
            at_ns = due_ns;
            node = i;
        }
    }
    for (uint32_t i = 0; i < world.air_len; i++) {
        const struct in_air *a = world.air[i];

        if (a->at_ns < at_ns || (flight < AIR_MAX && a->at_ns == at_ns &&
                                 a->number < world.air[flight]->number) ||
            (flight == AIR_MAX && a->at_ns == at_ns)) {
            at_ns = a->at_ns;
            flight = i;
        }
    }
    world.now_ns = at_ns;
    if (flight < AIR_MAX)
        world_deliver(flight);
    else if (node != 0)
        world_step(node, (struct tri_swim_event){ .kind = TRI_SWIM_TICK });
    else
        return false;
    return true;
}

static void world_run(uint64_t for_ns)
{
    uint64_t until_ns = world.now_ns + for_ns;

    while (world_next(until_ns))
        ;
}

/* Do all that run and were not put out hold `node` in the state? */
static bool all_hold(uint64_t node, unsigned state)
{
    for (uint64_t i = 1; i <= WORLD_MAX; i++) {
        const struct member *member = &world.members[i];

        if (i != node && member->swim != NULL && !member->excluded &&
            !member->left && tri_swim_state_of(member->swim, node) != state)
            return false;
    }
    return true;
}

/* Runs until all hold it; returns how long that took. */
static uint64_t world_until(uint64_t node, unsigned state, uint64_t limit_ns)
{
    uint64_t start_ns = world.now_ns;

    while (!all_hold(node, state))
        if (!world_next(start_ns + limit_ns))
            break;
    assert_true(all_hold(node, state));
    return world.now_ns - start_ns;
}

static bool digests_agree(void)
{
    uint64_t digest = 0;
    bool any = false;

    for (uint64_t i = 1; i <= WORLD_MAX; i++) {
        const struct member *member = &world.members[i];

        if (member->swim == NULL || member->excluded || member->left)
            continue;
        if (any && tri_swim_digest(member->swim) != digest)
            return false;
        digest = tri_swim_digest(member->swim);
        any = true;
    }
    return true;
}

static void join(uint64_t node, uint32_t seeds_len)
{
    world_add(node);
    world_step(node, (struct tri_swim_event){ .kind = TRI_SWIM_DO_JOIN,
                                              .seeds_len = seeds_len });
}

/* Nothing fails, nothing is said but probes. */
static void test_idle(void **state)
{
    (void)state;
    for (uint64_t n = 2; n <= 32; n *= 4) {
        world_init("idle", TRI_SWIM_HPC);
        world_of(n);
        world_run(600 * SECOND);
        assert_int_equal(world.deaths, 0);
        /* 2 / T a member, and a digest now and then */
        assert_in_range(world.packets, n * 2380, n * 2450);
        for (uint64_t i = 1; i <= n; i++)
            assert_int_equal(world.members[i].changes, 0);
        world_fini();
    }
}

/* With 5 % of all packets lost nobody is declared dead. */
static void test_loss(void **state)
{
    (void)state;
    world_init("loss", TRI_SWIM_HPC);
    world.loss_percent = 5;
    world_of(16);
    world_run(1200 * SECOND);
    assert_int_equal(world.deaths, 0);
    for (uint64_t i = 1; i <= 16; i++)
        assert_true(tri_swim_metrics(world.members[i].swim).health < 8);
    world_fini();
}

static void test_crash(void **state)
{
    static const uint64_t sizes[] = { 2, 3, 4, 5, 8, 32 };

    (void)state;
    for (unsigned i = 0; i < tri_array_len(sizes); i++) {
        world_init("crash", TRI_SWIM_HPC);
        world_of(sizes[i]);
        world_run(5 * SECOND);
        world_kill(2);
        /* the bound: minimum (two of them for n <= 3), 10 T, 13 rounds */
        world_until(2, TRI_SWIM_DEAD, 4 * SECOND + 5 * SECOND + 1300 * MS);
        world_run(60 * SECOND);
        assert_int_equal(world.deaths, sizes[i] - 1);
        world_fini();
    }
}

/* What has proof spreads at once, and in some gossip intervals to the last. */
static void test_proof_spreads(void **state)
{
    (void)state;
    world_init("proof_spreads", TRI_SWIM_HPC);
    world_of(32);
    world_run(10 * SECOND);
    world_kill(2);
    world_step(7, (struct tri_swim_event){ .kind = TRI_SWIM_EVIDENCE,
                                           .node = 2,
                                           .evidence = TRI_SWIM_PROOF });
    assert_true(world_until(2, TRI_SWIM_DEAD, SECOND) < 500 * MS);
    world_fini();
}

static void test_join(void **state)
{
    (void)state;
    for (uint32_t loss = 0; loss <= 10; loss += 10) {
        world_init("join", TRI_SWIM_HPC);
        world_of(3);
        world.loss_percent = loss;
        world.seeds[0] = 2;
        for (uint64_t i = 4; i <= 32; i++)
            join(i, 1);
        world_run(10 * SECOND);
        for (uint64_t i = 4; i <= 32; i++)
            assert_true(world.members[i].joined);
        world.loss_percent = 0;
        world_run(90 * SECOND); /* digests heal what was lost */
        for (uint64_t i = 1; i <= 32; i++) {
            assert_int_equal(tri_swim_alive_len(world.members[i].swim), 32);
            assert_int_equal(tri_swim_state_of(world.members[i].swim, i),
                             TRI_SWIM_ALIVE);
        }
        assert_true(digests_agree());
        assert_int_equal(world.deaths, 0);
        world_fini();
    }
}

/* Seeds that are down, then come up; the pauses between rounds grow. */
static void test_seeds_down(void **state)
{
    (void)state;
    world_init("seeds_down", TRI_SWIM_HPC);
    world.seeds[0] = 30;
    world.seeds[1] = 31;
    world.seeds[2] = 1;
    join(5, 3);
    world_run(60 * SECOND);
    assert_false(world.members[5].joined);
    /* rounds of 3 x 300 ms and a pause of 2.5 s on average, 5 s at most */
    assert_in_range(world.kinds[TRI_SWIM_JOIN], 24, 90);
    world_of(3);
    world_run(10 * SECOND);
    assert_true(world.members[5].joined);
    assert_true(all_hold(5, TRI_SWIM_ALIVE));
    world_fini();
}

/* As many are served at once as configured; the others come again. Chunks are
 * asked for by their start, again when they were lost. */
static void test_snapshots(void **state)
{
    struct fixture *f = &node_one;
    struct tri_swim_packet request = packet_of(TRI_SWIM_STATE_REQ, 2);
    struct tri_swim_packet other = packet_of(TRI_SWIM_STATE_REQ, 3);

    (void)state;
    memset(f, 0, sizeof(*f));
    tri_swim_config_init(&f->config, TRI_SWIM_HPC);
    f->config.node = 1;
    f->config.members_max = 20;
    f->config.snapshots_max = 1;
    f->config.packet_bytes_max = f->config.header_bytes +
                                 f->config.rumour_bytes + f->config.card_bytes;
    f->now_ns = START;
    assert_int_equal(tri_swim_create(&f->config, &f->swim), 0);
    for (uint64_t node = 2; node <= 20; node++)
        assert_int_equal(tri_swim_add(f->swim, node), 0);
    request.flags = other.flags = TRI_SWIM_CARDS;
    for (unsigned round = 0; round < 2; round++) {
        step(f, TRI_SWIM_PACKET, &request);
        assert_int_equal(f->effects.sends_len, 8);
        for (uint32_t i = 0; i < 8; i++) {
            assert_int_equal(f->effects.sends[i].start, i);
            assert_int_equal(f->effects.sends[i].cursor, i + 1);
            assert_int_equal(f->effects.sends[i].rumours[0].node, i + 1);
            assert_int_equal(f->effects.sends[i].rumours[0].with_card, 1);
            assert_int_equal(f->effects.sends[i].flags,
                             TRI_SWIM_CARDS | (i < 7 ? TRI_SWIM_MORE : 0));
        }
        step(f, TRI_SWIM_PACKET, &other);
        assert_int_equal(f->effects.sends_len, 1);
        assert_int_equal(f->effects.sends[0].kind, TRI_SWIM_JOIN_RETRY);
        assert_in_range(f->effects.sends[0].retry_ms, 100, 201);
    }
    request.cursor = 16;
    step(f, TRI_SWIM_PACKET, &request);
    assert_int_equal(f->effects.sends_len, 4);
    assert_int_equal(f->effects.sends[3].cursor, TRI_SWIM_CURSOR_END);
    step(f, TRI_SWIM_PACKET, &other);
    assert_int_equal(f->effects.sends_len, 8);
    f->now_ns += SECOND; /* that one has gone without a word */
    request.cursor = 0;
    step(f, TRI_SWIM_PACKET, &request);
    assert_int_equal(f->effects.sends_len, 8);
    done(f);
}

static uint32_t card_bytes_of(void *context, uint64_t node)
{
    assert_ptr_equal(context, &node_one);
    return node == 3 ? 0 : 100; /* 0: not known */
}

/* As many cards go into a packet as fit by what they take. */
static void test_card_bytes(void **state)
{
    struct fixture *f = &node_one;
    struct tri_swim_packet request = packet_of(TRI_SWIM_STATE_REQ, 2);

    (void)state;
    memset(f, 0, sizeof(*f));
    tri_swim_config_init(&f->config, TRI_SWIM_HPC);
    f->config.node = 1;
    f->config.members_max = 40;
    f->config.card_bytes_of = card_bytes_of;
    f->config.context = f;
    f->now_ns = START;
    assert_int_equal(tri_swim_create(&f->config, &f->swim), 0);
    for (uint64_t node = 2; node <= 40; node++)
        assert_int_equal(tri_swim_add(f->swim, node), 0);
    request.flags = TRI_SWIM_CARDS;
    step(f, TRI_SWIM_PACKET, &request);
    /* 1240 bytes: 6 of 124 and one of 424; then 10 of 124 */
    assert_int_equal(f->effects.sends_len, 5);
    assert_int_equal(f->effects.sends[0].rumours_len, 7);
    assert_int_equal(f->effects.sends[1].rumours_len, 10);
    assert_int_equal(f->effects.sends[4].cursor, TRI_SWIM_CURSOR_END);
    done(f);
}

/* A seed without room says so, and one that joins itself. */
static void test_join_retry(void **state)
{
    (void)state;
    world_init("join_retry", TRI_SWIM_HPC);
    world.config.members_max = 4;
    world_of(3);
    world.seeds[0] = 1;
    join(5, 1);
    world_run(SECOND);
    assert_true(world.members[5].joined);
    assert_int_equal(world.kinds[TRI_SWIM_JOIN_RETRY], 0);
    join(6, 1);
    world_run(30 * SECOND);
    assert_false(world.members[6].joined);
    assert_in_range(world.kinds[TRI_SWIM_JOIN_RETRY], 3, 8);
    world.seeds[0] = 6;
    join(7, 1);
    world_run(10 * SECOND);
    assert_false(world.members[7].joined);
    assert_true(world.kinds[TRI_SWIM_JOIN_RETRY] > 8);
    world_fini();
}

/* What the joiner 1 has sent is answered by others who are joining, too. True:
 * it has asked a seed. */
static bool answer_as_joiners(struct fixture *f)
{
    const struct tri_swim_effects sent_now = f->effects;
    bool asked = false;

    for (uint32_t i = 0; i < sent_now.sends_len; i++) {
        const struct tri_swim_packet *packet = &sent_now.sends[i];
        struct tri_swim_packet retry =
            packet_of(TRI_SWIM_JOIN_RETRY, packet->to);

        asked |= packet->kind == TRI_SWIM_JOIN;
        if (packet->kind == TRI_SWIM_PING)
            answer(f, packet, packet->to, TRI_SWIM_ACK);
        retry.retry_ms = 100;
        if (packet->kind == TRI_SWIM_STATE_REQ)
            step(f, TRI_SWIM_PACKET, &retry);
    }
    return asked;
}

/* Joiners whose seed is gone know each other only: they go back to the seeds
 * instead of waiting for each other for ever. */
static void test_joiners_alone(void **state)
{
    struct fixture *f = one_of(1, 0);
    struct tri_swim_packet list = packet_of(TRI_SWIM_STATE, 2);
    struct tri_swim_event join = { .kind = TRI_SWIM_DO_JOIN, .now_ns = START,
                                   .seeds_len = 1 };
    uint64_t limit_ns = f->now_ns + 20 * SECOND;
    bool asked = false;

    (void)state;
    tri_swim_step(f->swim, &join, &f->effects);
    list.flags = TRI_SWIM_CARDS;
    list.rumours_len = 3;
    for (uint64_t node = 2; node <= 4; node++) {
        list.rumours[node - 2] = about(node, TRI_SWIM_ALIVE, 0, 0);
        list.rumours[node - 2].with_card = true;
    }
    step(f, TRI_SWIM_TICK, NULL);
    assert_non_null(sent(f, TRI_SWIM_JOIN));
    step(f, TRI_SWIM_PACKET, &list);
    while (!asked && f->now_ns < limit_ns) {
        asked = answer_as_joiners(f);
        f->now_ns = tri_max(tri_swim_due_ns(f->swim), f->now_ns);
        step(f, TRI_SWIM_TICK, NULL);
    }
    assert_true(asked);
    assert_true(f->now_ns > START + SECOND);
    done(f);
}

static void test_leave(void **state)
{
    static const uint64_t sizes[] = { 2, 8, 32 };

    (void)state;
    for (unsigned i = 0; i < tri_array_len(sizes); i++) {
        world_init("leave", TRI_SWIM_HPC);
        world.loss_percent = 2;
        world_of(sizes[i]);
        world_run(5 * SECOND);
        world_step(2, (struct tri_swim_event){ .kind = TRI_SWIM_DO_LEAVE });
        world_run(1100 * MS);
        assert_true(world.members[2].left);
        assert_int_equal(tri_swim_due_ns(world.members[2].swim),
                         TRI_NS_NEVER);
        world_kill(2);
        assert_true(all_hold(2, TRI_SWIM_LEFT));
        world_run(60 * SECOND);
        assert_int_equal(world.lefts, sizes[i] - 1);
        assert_int_equal(world.deaths, 0);
        world_fini();
    }
}

/* Cut in two for a minute; when the cut ends one side goes on as it was, and
 * every member of the other is told that it is out. */
static void partition(uint64_t n, uint64_t smaller)
{
    world_init("partition", TRI_SWIM_HPC);
    world_of(n);
    world_run(5 * SECOND);
    for (uint64_t i = 1; i <= smaller; i++) /* the lowest id is not enough */
        world.members[2 * i % (n + 1)].side = 1;
    world_run(60 * SECOND);
    for (uint64_t i = 1; i <= n; i++) {
        const struct member *member = &world.members[i];

        assert_int_equal(tri_swim_alive_len(member->swim),
                         member->side == 1 ? smaller : n - smaller);
    }
    for (uint64_t i = 1; i <= n; i++)
        world.members[i].changes = world.members[i].side;
    for (uint64_t i = 1; i <= n; i++)
        world.members[i].side = 0;
    world_run(30 * SECOND);
    for (uint64_t i = 1; i <= n; i++)
        assert_int_equal(world.members[i].excluded,
                         world.members[i].changes == 1);
    assert_true(digests_agree());
    world_fini();
}

static void test_partition(void **state)
{
    (void)state;
    partition(32, 12);
    partition(5, 2);
    partition(8, 4); /* as large: the side with the lowest id goes on */
    partition(2, 1);
}

/* Declared dead while it lives: a member's word is enough. */
static void test_excluded(void **state)
{
    (void)state;
    world_init("excluded", TRI_SWIM_HPC);
    world_of(8);
    world_run(5 * SECOND);
    world_step(3, (struct tri_swim_event){ .kind = TRI_SWIM_EVIDENCE,
                                           .node = 2,
                                           .evidence = TRI_SWIM_PROOF });
    world_run(20 * SECOND);
    assert_true(world.members[2].excluded);
    assert_int_equal(tri_swim_state_of(world.members[2].swim, 2),
                     TRI_SWIM_DEAD);
    assert_int_equal(tri_swim_due_ns(world.members[2].swim), TRI_NS_NEVER);
    for (uint64_t i = 1; i <= 8; i++)
        assert_int_equal(world.members[i].excluded, i == 2);
    assert_true(all_hold(2, TRI_SWIM_DEAD));
    world_fini();
}

/* Rumours that reached nobody are made good by digests: a newcomer that one
 * member knows, with its card; a death; a leave. */
static void test_digest_heals(void **state)
{
    struct tri_rumour newcomer = about(9, TRI_SWIM_ALIVE, 0, 0);
    struct tri_swim_packet packet = { .kind = TRI_SWIM_GOSSIP, .from = 2,
                                      .to = 1, .rumours_len = 3 };

    (void)state;
    world_init("digest_heals", TRI_SWIM_HPC);
    world_of(8);
    world_run(5 * SECOND);
    world_add(9);
    for (uint64_t j = 1; j <= 8; j++)
        assert_int_equal(tri_swim_add(world.members[9].swim, j), 0);
    world_kill(7);
    world_kill(8);
    newcomer.with_card = 1;
    packet.rumours[0] = newcomer;
    packet.rumours[1] = about(7, TRI_SWIM_LEFT, 0, 0);
    packet.rumours[2] = about(8, TRI_SWIM_DEAD, 0, 2);
    world_step(1, (struct tri_swim_event){ .kind = TRI_SWIM_PACKET,
                                           .packet = &packet });
    world.loss_percent = 100; /* all that member 1 says is lost */
    world_run(1200 * MS);
    world.loss_percent = 0;
    world_run(90 * SECOND);
    assert_true(all_hold(9, TRI_SWIM_ALIVE));
    assert_true(all_hold(7, TRI_SWIM_LEFT));
    assert_true(digests_agree());
    world_fini();
}

/* The table is full: the dead go when they are old enough, and not before. */
static void test_forget(void **state)
{
    (void)state;
    world_init("forget", TRI_SWIM_TEST);
    world.config.members_max = 4;
    world.config.times.forget = 20 * SECOND;
    world_of(4);
    world.seeds[0] = 1;
    world_run(SECOND);
    world_kill(4);
    world_until(4, TRI_SWIM_DEAD, 10 * SECOND);
    join(5, 1);
    world_run(15 * SECOND);
    assert_false(world.members[5].joined);
    world_run(15 * SECOND);
    assert_true(world.members[5].joined);
    assert_true(all_hold(5, TRI_SWIM_ALIVE));
    assert_int_equal(tri_swim_state_of(world.members[1].swim, 4),
                     TRI_SWIM_UNKNOWN);
    world_fini();
}

/* Thirty deaths at once: every one is told, in steps that stay bounded. */
static void test_many_at_once(void **state)
{
    (void)state;
    world_init("many_at_once", TRI_SWIM_HPC);
    world_of(40);
    world_run(5 * SECOND);
    for (uint64_t i = 11; i <= 40; i++)
        world_kill(i);
    world_run(60 * SECOND);
    for (uint64_t i = 1; i <= 10; i++) {
        assert_int_equal(tri_swim_alive_len(world.members[i].swim), 10);
        assert_false(world.members[i].excluded);
    }
    assert_int_equal(world.deaths, 300);
    world_fini();
}

/* The same seed and the same events: the same effects. */
static void test_deterministic(void **state)
{
    uint64_t packets[2], digests[2];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        world_init("deterministic", TRI_SWIM_TEST);
        tri_random_init(&world.random, 99);
        world.loss_percent = 10;
        world_of(16);
        world_run(20 * SECOND);
        world_kill(3);
        world_run(20 * SECOND);
        packets[i] = world.packets;
        digests[i] = tri_swim_digest(world.members[1].swim);
        world_fini();
    }
    assert_int_equal(packets[0], packets[1]);
    assert_int_equal(digests[0], digests[1]);
}

/* Nonsense, and packets to others, change nothing. */
static void test_refused(void **state)
{
    struct fixture *f = one_of(4, 0);
    struct tri_swim_packet packets[6];

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        packets[i] = packet_of(TRI_SWIM_GOSSIP, 2);
        packets[i].rumours_len = 1;
        packets[i].rumours[0] = about(3, TRI_SWIM_DEAD, 0, 2);
    }
    packets[0].to = 9;
    packets[1].kind = TRI_SWIM_KIND_LAST + 1;
    packets[2].rumours_len = TRI_SWIM_RUMOURS_MAX + 1;
    packets[3].rumours[0].state = TRI_SWIM_STATE_LAST + 1;
    packets[4].from = 1;
    packets[5].rumours[0].node = 0;
    for (unsigned i = 0; i < 6; i++) {
        step(f, TRI_SWIM_PACKET, &packets[i]);
        assert_int_equal(f->effects.sends_len, 0);
        assert_int_equal(f->effects.changes_len, 0);
    }
    assert_int_equal(tri_swim_metrics(f->swim).refused, 6);
    done(f);
}

static void test_config(void **state)
{
    struct tri_swim_config good, bad;
    struct tri_swim *swim = NULL;

    (void)state;
    tri_swim_config_init(&good, TRI_SWIM_HPC);
    good.node = 1;
    good.members_max = 2;
    assert_int_equal(tri_swim_create(&good, &swim), 0);
    assert_int_equal(tri_swim_add(swim, 2), 0);
    assert_int_equal(tri_swim_add(swim, 2), TROUPE_EEXIST);
    assert_int_equal(tri_swim_add(swim, 1), TROUPE_EEXIST);
    assert_int_equal(tri_swim_add(swim, 3), TROUPE_ELIMIT);
    tri_swim_destroy(&swim);
    for (unsigned i = 0; i < 5; i++) {
        bad = good;
        if (i == 0)
            bad.node = 0;
        else if (i == 1)
            bad.members_max = 0;
        else if (i == 2)
            bad.packet_bytes_max = 500; /* no room for a card */
        else if (i == 3)
            bad.loss = 1;
        else
            bad.fanout = 9;
        assert_int_equal(tri_swim_create(&bad, &swim), TROUPE_EINVAL);
        assert_null(swim);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_refutation),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_finality),
        cmocka_unit_test(test_views_of_sides),
        cmocka_unit_test(test_follow),
        cmocka_unit_test(test_turned),
        cmocka_unit_test(test_retell),
        cmocka_unit_test(test_decay),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_nack_health),
        cmocka_unit_test(test_helper),
        cmocka_unit_test(test_buddy),
        cmocka_unit_test(test_starved),
        cmocka_unit_test(test_strong),
        cmocka_unit_test(test_rule_a),
        cmocka_unit_test(test_rule_a_death),
        cmocka_unit_test(test_last_call),
        cmocka_unit_test(test_rule_b),
        cmocka_unit_test(test_rtt),
        cmocka_unit_test(test_two),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_crash),
        cmocka_unit_test(test_proof_spreads),
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_seeds_down),
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_card_bytes),
        cmocka_unit_test(test_join_retry),
        cmocka_unit_test(test_joiners_alone),
        cmocka_unit_test(test_leave),
        cmocka_unit_test(test_partition),
        cmocka_unit_test(test_excluded),
        cmocka_unit_test(test_digest_heals),
        cmocka_unit_test(test_forget),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_proof),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
