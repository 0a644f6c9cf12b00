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
        assert_true(f->now_ns < START + 60 * SECOND);
    }
    end_ns = f->now_ns;
    done(f);
    return (end_ns - START) / MS;
}

/* max - (max - min) ln(C + 1) / ln(K + 1): 2 s to 12 s, K = 2. */
static void test_decay(void **state)
{
    (void)state;
    assert_int_equal(suspicion_ns(8, 0, TRI_SWIM_WEAK), 12000);
    assert_in_range(suspicion_ns(8, 1, TRI_SWIM_WEAK), 5690, 5691);
    assert_int_equal(suspicion_ns(8, 2, TRI_SWIM_WEAK), 2000);
    assert_int_equal(suspicion_ns(8, 9, TRI_SWIM_WEAK), 2000);
    assert_int_equal(suspicion_ns(8, 0, TRI_SWIM_STRONG), 2000);
    assert_int_equal(suspicion_ns(3, 0, TRI_SWIM_WEAK), 4000);
    assert_int_equal(suspicion_ns(3, 5, TRI_SWIM_WEAK), 4000);
    assert_int_equal(suspicion_ns(3, 0, TRI_SWIM_STRONG), 2000);
    assert_in_range(suspicion_ns(100, 0, TRI_SWIM_WEAK), 23999, 24000);
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

/* Ticks until a packet of the kind leaves; it stays valid until the next
 * step. */
static struct tri_swim_packet tick_until_sent(struct fixture *f, unsigned kind)
{
    uint64_t limit_ns = f->now_ns + 60 * SECOND;

    for (;;) {
        uint64_t due_ns = tri_swim_due_ns(f->swim);

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
    assert_int_equal(tri_swim_alive_len(f->swim), 1); /* all are dead to it */
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
    step(f, TRI_SWIM_TICK, NULL);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_DEAD);
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
    run_until(f, stop_ns + 13 * SECOND, true, 5, TRI_SWIM_DEAD);
    assert_int_equal(tri_swim_state_of(f->swim, 5), TRI_SWIM_DEAD);
    done(f);

    f = stopped(TRI_SWIM_WITHOUT_RULE_B);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_refutation),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_finality),
        cmocka_unit_test(test_retell),
        cmocka_unit_test(test_decay),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_nack_health),
        cmocka_unit_test(test_helper),
        cmocka_unit_test(test_buddy),
        cmocka_unit_test(test_strong),
        cmocka_unit_test(test_rule_a),
        cmocka_unit_test(test_rule_a_death),
        cmocka_unit_test(test_rule_b),
        cmocka_unit_test(test_rtt),
        cmocka_unit_test(test_two),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_proof),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
