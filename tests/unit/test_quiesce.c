/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The core of quiesce, step by step: its messages as bytes, rounds of two
 * nodes, deaths, deadlines. tests/sim/test_quiesce.c runs it among many.
 */
#include "unit.h"

#include "group/quiesce_core.h"

enum { LEN_MAX = 4, MS = 1000000 };

/* One node's core, and what its last step wanted to be sent. */
struct fixture {
    struct tri_quiesce quiesce;
    struct tri_quiesce_member members[LEN_MAX];
    struct tri_quiesce_effects effects;
    uint64_t now_ns;
};

static struct fixture fixture_of(uint32_t self, uint32_t len)
{
    return (struct fixture){ .quiesce.self = self, .quiesce.len = len };
}

static void init(struct fixture *fixture)
{
    tri_quiesce_init(&fixture->quiesce, fixture->quiesce.self,
                     fixture->quiesce.len, fixture->members);
}

static void step(struct fixture *fixture, struct tri_quiesce_event event)
{
    fixture->now_ns += 1000;
    event.now_ns = fixture->now_ns;
    tri_quiesce_step(&fixture->quiesce, &event, &fixture->effects);
}

static void start(struct fixture *fixture, uint64_t timeout_ns)
{
    step(fixture, (struct tri_quiesce_event){
                      .kind = TRI_QUIESCE_ON_START,
                      .patience_ns = TRI_QUIESCE_NEVER,
                      .deadline_ns = fixture->now_ns + timeout_ns });
}

static void tell(struct fixture *fixture, uint32_t from,
                 struct tri_quiesce_message message)
{
    step(fixture, (struct tri_quiesce_event){ .kind = TRI_QUIESCE_ON_MESSAGE,
                                              .rank = from,
                                              .message = &message });
}

static void snapshot(struct fixture *fixture, uint64_t sent, uint64_t received)
{
    assert_true(tri_quiesce_wants_snapshot(&fixture->quiesce));
    step(fixture, (struct tri_quiesce_event){ .kind = TRI_QUIESCE_ON_SNAPSHOT,
                                              .sent = sent,
                                              .received = received });
}

static void die(struct fixture *fixture, uint32_t rank)
{
    step(fixture, (struct tri_quiesce_event){ .kind = TRI_QUIESCE_ON_DEATH,
                                              .rank = rank });
}

static void tick(struct fixture *fixture, uint64_t pause_ns)
{
    fixture->now_ns += pause_ns;
    step(fixture, (struct tri_quiesce_event){ .kind = TRI_QUIESCE_ON_TICK });
}

/* The last step sent a message of this kind. */
static struct tri_quiesce_message *sent(struct fixture *fixture, uint32_t to,
                                        enum tri_quiesce_kind kind)
{
    for (uint32_t i = 0; i < fixture->effects.len; i++)
        if (fixture->effects.sends[i].message.kind == kind &&
            fixture->effects.sends[i].to == to)
            return &fixture->effects.sends[i].message;
    fail_msg("kind %d was not sent", kind);
    return NULL;
}

static struct tri_quiesce_message join(uint32_t call)
{
    return (struct tri_quiesce_message){ .kind = TRI_QUIESCE_JOIN,
                                         .call = call };
}

static struct tri_quiesce_message report(const struct fixture *coordinator,
                                         uint64_t count_sent,
                                         uint64_t count_received)
{
    const struct tri_quiesce *quiesce = &coordinator->quiesce;

    return (struct tri_quiesce_message){ .kind = TRI_QUIESCE_REPORT,
                                         .instance = quiesce->last_instance,
                                         .round = quiesce->round,
                                         .dead = quiesce->dead,
                                         .sent = count_sent,
                                         .received = count_received };
}

static void test_bytes(void **state)
{
    struct tri_quiesce_message message = {
        .kind = TRI_QUIESCE_STATUS, .flags = TRI_QUIESCE_OUTBOX, .len = 2,
        .call = 7, .instance = 1ull << 40, .round = 3, .sent = 4,
        .received = 5, .dead = ~0ull, .absent_len = 9, .busy_len = 8,
        .entries = { { 1, 2 }, { 3, 4 } },
    };
    struct tri_quiesce_message copy;
    unsigned char bytes[TRI_QUIESCE_BYTES_MAX] = { 0 };
    size_t n = tri_quiesce_encode(&message, bytes);

    (void)state;
    assert_int_equal(n, TRI_QUIESCE_HEADER_BYTES + 16);
    assert_int_equal(bytes[4], 7); /* little-endian */
    assert_int_equal(bytes[8 + 5], 1);
    assert_true(tri_quiesce_decode(bytes, n, &copy));
    assert_memory_equal(&copy, &message, sizeof(copy));
    for (size_t i = 0; i < sizeof(bytes); i++)
        if (i != n)
            assert_false(tri_quiesce_decode(bytes, i, &copy));
    for (unsigned i = 56; i < 64; i++) {
        bytes[i] = 1; /* only a JOIN has this */
        assert_false(tri_quiesce_decode(bytes, n, &copy));
        bytes[i] = 0;
    }
    bytes[1] = 8; /* unknown flag */
    assert_false(tri_quiesce_decode(bytes, n, &copy));
    bytes[1] = 0;
    bytes[2] = TRI_QUIESCE_ENTRIES_MAX + 1;
    assert_false(tri_quiesce_decode(bytes, n, &copy));
    bytes[2] = 2;
    bytes[0] = TRI_QUIESCE_KIND_LAST + 1;
    assert_false(tri_quiesce_decode(bytes, n, &copy));
    bytes[0] = 0;
    assert_false(tri_quiesce_decode(bytes, n, &copy));
}

static void test_alone(void **state)
{
    struct fixture node = fixture_of(0, 1);

    (void)state;
    init(&node);
    for (int i = 0; i < 3; i++) {
        start(&node, 1000 * MS);
        snapshot(&node, 0, 0);
        assert_int_equal(node.quiesce.outcome, TRI_QUIESCE_PENDING);
        snapshot(&node, 0, 0);
        assert_int_equal(node.quiesce.outcome, TRI_QUIESCE_IS_QUIET);
    }
}

/* One round is never enough, sums that moved or differ are not quiet. */
static void test_rounds(void **state)
{
    static const struct {
        uint64_t sent, received;
        bool quiet;
    } rounds[] = {
        { 2, 2, false }, { 3, 3, false }, /* moved in between */
        { 4, 3, false }, { 4, 3, false }, /* equal, not quiet */
        { 4, 4, false }, { 4, 4, true },
    };
    struct fixture node = fixture_of(0, 2);

    (void)state;
    init(&node);
    start(&node, 1000 * MS);
    assert_false(tri_quiesce_wants_snapshot(&node.quiesce));
    tell(&node, 1, join(1));
    sent(&node, TRI_QUIESCE_ALL, TRI_QUIESCE_ROUND);
    for (size_t i = 0; i < tri_array_len(rounds); i++) {
        if (!tri_quiesce_wants_snapshot(&node.quiesce))
            tick(&node, TRI_QUIESCE_PAUSE_MAX_NS);
        snapshot(&node, rounds[i].sent, 0);
        tell(&node, 1, report(&node, 0, rounds[i].received));
        assert_int_equal(node.quiesce.outcome,
                         rounds[i].quiet ? TRI_QUIESCE_IS_QUIET
                                         : TRI_QUIESCE_PENDING);
    }
    sent(&node, TRI_QUIESCE_ALL, TRI_QUIESCE_DONE);
}

/* A round that found somebody busy is repeated after a pause that grows. */
static void test_pause(void **state)
{
    struct fixture node = fixture_of(0, 2);
    uint64_t pause_ns = TRI_QUIESCE_PAUSE_MIN_NS;

    (void)state;
    init(&node);
    start(&node, 1000 * MS);
    tell(&node, 1, join(1));
    for (int i = 0; i < 10; i++) {
        snapshot(&node, 1, 0);
        tell(&node, 1, report(&node, 0, 0));
        assert_int_equal(tri_quiesce_next_ns(&node.quiesce),
                         node.now_ns + pause_ns);
        tick(&node, pause_ns);
        pause_ns = tri_min(2 * pause_ns, TRI_QUIESCE_PAUSE_MAX_NS);
    }
}

/* Reports of who knows other dead do not count. */
static void test_other_dead(void **state)
{
    struct fixture node = fixture_of(0, 3);
    struct tri_quiesce_message stale;

    (void)state;
    init(&node);
    start(&node, 1000 * MS);
    tell(&node, 1, join(1));
    tell(&node, 2, join(1));
    stale = report(&node, 0, 0);
    die(&node, 2);
    sent(&node, TRI_QUIESCE_ALL, TRI_QUIESCE_ROUND);
    tell(&node, 1, stale); /* to a round before the death */
    for (int i = 0; i < 3; i++) {
        struct tri_quiesce_message other = report(&node, 0, 0);

        other.dead = stale.dead;
        snapshot(&node, 0, 0);
        tell(&node, 1, other);
        assert_int_equal(node.quiesce.outcome, TRI_QUIESCE_PENDING);
        tick(&node, TRI_QUIESCE_PAUSE_MAX_NS);
    }
    for (int i = 0; i < 2; i++) {
        snapshot(&node, 0, 0);
        tell(&node, 1, report(&node, 0, 0));
    }
    assert_int_equal(node.quiesce.outcome, TRI_QUIESCE_IS_QUIET);
}

/* The coordinator told rank 2 that it is over, and died: rank 1 hears of it. */
static void test_half_told(void **state)
{
    struct fixture node = fixture_of(1, 3);
    struct tri_quiesce_message *answer;

    (void)state;
    init(&node);
    start(&node, 1000 * MS);
    sent(&node, 0, TRI_QUIESCE_JOIN);
    tell(&node, 0, (struct tri_quiesce_message){ .kind = TRI_QUIESCE_ROUND,
                                                 .instance = 5,
                                                 .round = 1 });
    snapshot(&node, 0, 0);
    sent(&node, 0, TRI_QUIESCE_REPORT);
    die(&node, 0);
    sent(&node, TRI_QUIESCE_ALL, TRI_QUIESCE_CALL);
    tell(&node, 2, (struct tri_quiesce_message){ .kind = TRI_QUIESCE_LEAVE,
                                                 .call = 1,
                                                 .round = 5 });
    assert_int_equal(node.quiesce.outcome, TRI_QUIESCE_IS_QUIET);
    /* And the other way round: it knows, and is asked. */
    tell(&node, 2, (struct tri_quiesce_message){ .kind = TRI_QUIESCE_CALL });
    answer = sent(&node, 2, TRI_QUIESCE_LEAVE);
    assert_int_equal(answer->round, 5);
    tell(&node, 2, (struct tri_quiesce_message){ .kind = TRI_QUIESCE_JOIN,
                                                 .call = 2,
                                                 .first = 5,
                                                 .instance = 6 });
    sent(&node, 2, TRI_QUIESCE_DONE);
}

static void test_deadline(void **state)
{
    struct fixture node = fixture_of(1, 3);
    struct tri_quiesce_message status = {
        .kind = TRI_QUIESCE_STATUS, .len = 1, .absent_len = 1,
        .entries = { { 2, TRI_QUIESCE_IS_ABSENT } },
    };

    (void)state;
    init(&node);
    start(&node, 100 * MS);
    tick(&node, 75 * MS);
    sent(&node, 0, TRI_QUIESCE_QUERY);
    assert_true(node.effects.asks);
    tick(&node, 1 * MS);
    assert_false(node.effects.asks); /* once */
    tell(&node, 0, status);
    tick(&node, 25 * MS);
    assert_int_equal(node.quiesce.outcome, TRI_QUIESCE_IS_EXPIRED);
    sent(&node, 0, TRI_QUIESCE_LEAVE);
    assert_int_equal(node.quiesce.status.entries[0].who, 2);
    /* Without an answer it is the coordinator that is silent. */
    start(&node, 100 * MS);
    tick(&node, 101 * MS);
    assert_int_equal(node.quiesce.outcome, TRI_QUIESCE_IS_EXPIRED);
    assert_int_equal(node.quiesce.status.entries[0].who, 0);
    assert_int_equal(node.quiesce.status.entries[0].what,
                     TRI_QUIESCE_IS_SILENT);
}

static void test_patience(void **state)
{
    struct fixture node = fixture_of(0, 2);

    (void)state;
    init(&node);
    step(&node, (struct tri_quiesce_event){ .kind = TRI_QUIESCE_ON_START,
                                            .patience_ns = 10 * MS,
                                            .deadline_ns = 100 * MS });
    tick(&node, 50 * MS); /* who is not in is waited for */
    assert_int_equal(node.quiesce.outcome, TRI_QUIESCE_PENDING);
    tell(&node, 1, join(1));
    snapshot(&node, 0, 0);
    tell(&node, 1, report(&node, 1, 0));
    assert_int_equal(node.quiesce.outcome, TRI_QUIESCE_IS_GIVEN_UP);
    assert_int_equal(sent(&node, TRI_QUIESCE_ALL, TRI_QUIESCE_DONE)->flags,
                     TRI_QUIESCE_GAVE_UP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_rounds),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_other_dead),
        cmocka_unit_test(test_half_told),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_patience),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
