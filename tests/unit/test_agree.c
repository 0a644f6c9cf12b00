/* SPDX-License-Identifier: BSD-3-Clause */
/* The agreement core, a few members side by side, messages in order. */
#include "unit.h"

#include "group/agree_core.h"

#define NODES_MAX 8u
#define QUEUE_MAX 4096u
#define ATTEMPT_NS 1000000ull
#define SETTLE_NS 200000ull

struct letter {
    uint64_t from, to;
    size_t bytes;
    unsigned char *data;
};

struct node {
    struct tri_agree *agree;
    bool is_up, is_deaf;
    struct tri_agree_effects effects; /* flags gathered */
};

struct world {
    uint64_t now_ns;
    uint32_t len;
    struct node nodes[NODES_MAX]; /* ids: 1 and up */
    struct letter queue[QUEUE_MAX];
    uint32_t first, last;
    uint32_t sent;
};

static struct world world;

static void post(uint64_t from, uint64_t to, const struct tri_agree_send *send)
{
    struct letter *letter = &world.queue[world.last++ % QUEUE_MAX];

    assert_true(world.last - world.first < QUEUE_MAX);
    letter->from = from;
    letter->to = to;
    letter->bytes = send->bytes;
    letter->data = malloc(send->bytes);
    assert_non_null(letter->data);
    memcpy(letter->data, send->data, send->bytes);
    world.sent++;
}

static void step(uint64_t id, struct tri_agree_event event)
{
    struct node *node = &world.nodes[id - 1];
    struct tri_agree_effects effects;

    event.now_ns = world.now_ns;
    tri_agree_step(node->agree, &event, &effects);
    node->effects.installed |= effects.installed;
    node->effects.frozen |= effects.frozen;
    node->effects.excluded |= effects.excluded;
    node->effects.parted |= effects.parted;
    node->effects.no_quorum |= effects.no_quorum;
    node->effects.refused |= effects.refused;
    for (uint32_t i = 0; i < effects.sends_len; i++) {
        const struct tri_agree_send *send = &effects.sends[i];

        for (uint32_t j = 0; j < send->to_len; j++)
            post(id, send->to[j], send);
        for (uint64_t to = 1; to <= world.len && send->to_len == 0; to++)
            if (to != id)
                post(id, to, send);
    }
}

static void deliver_one(void)
{
    struct letter letter = world.queue[world.first++ % QUEUE_MAX];
    struct node *node = &world.nodes[letter.to - 1];

    if (node->is_up && !node->is_deaf)
        step(letter.to, (struct tri_agree_event){ .kind = TRI_AGREE_MESSAGE,
                                                  .node = letter.from,
                                                  .data = letter.data,
                                                  .bytes = letter.bytes });
    free(letter.data);
}

static void deliver_all(void)
{
    while (world.first != world.last)
        deliver_one();
}

static void drop_all(void)
{
    while (world.first != world.last)
        free(world.queue[world.first++ % QUEUE_MAX].data);
}

/* Messages and time, until nothing happens for `ns`. */
static void run(uint64_t ns)
{
    uint64_t end_ns = world.now_ns + ns;

    for (;;) {
        uint64_t due_ns = UINT64_MAX, due = 0;

        deliver_all();
        for (uint64_t id = 1; id <= world.len; id++) {
            struct node *node = &world.nodes[id - 1];

            if (node->is_up && !node->is_deaf &&
                tri_agree_due_ns(node->agree) < due_ns) {
                due_ns = tri_agree_due_ns(node->agree);
                due = id;
            }
        }
        if (due_ns > end_ns)
            break;
        if (due_ns > world.now_ns)
            world.now_ns = due_ns;
        step(due, (struct tri_agree_event){ .kind = TRI_AGREE_TICK });
    }
    world.now_ns = end_ns;
}

/* Of a node; `begin` sets its own. */
static struct tri_agree_config config_of(uint64_t node)
{
    return (struct tri_agree_config){ .group = 7,
                                      .node = node,
                                      .members_max = 8,
                                      .attempt_ns = ATTEMPT_NS,
                                      .settle_ns = SETTLE_NS };
}

/* A node begins again, in the place of what it was. */
static void replace(const struct tri_agree_config *config)
{
    struct node *node = &world.nodes[config->node - 1];

    tri_agree_destroy(&node->agree);
    assert_int_equal(tri_agree_create(config, &node->agree), 0);
}

/* Nodes 1 to len, of which the first `members` begin. */
static void begin(uint32_t len, uint32_t members,
                  const struct tri_agree_config *base)
{
    uint64_t ids[NODES_MAX];
    struct tri_agree_config config = config_of(0);

    config.proof = true;
    config.seed = 1;
    if (base != NULL)
        config = *base;
    memset(&world, 0, sizeof(world));
    world.now_ns = 1000;
    world.len = len;
    for (uint32_t i = 0; i < len; i++) {
        ids[i] = i + 1;
        config.node = i + 1;
        world.nodes[i].is_up = true;
        assert_int_equal(tri_agree_create(&config, &world.nodes[i].agree), 0);
    }
    for (uint32_t i = 0; i < members; i++)
        assert_int_equal(
            tri_agree_begin(world.nodes[i].agree, ids, members), 0);
}

static void end(void)
{
    drop_all();
    for (uint32_t i = 0; i < world.len; i++)
        tri_agree_destroy(&world.nodes[i].agree);
}

static const struct tri_agree_view *view(uint64_t id)
{
    return tri_agree_view(world.nodes[id - 1].agree);
}

static void death(uint64_t of, uint64_t at, bool proof)
{
    step(at, (struct tri_agree_event){ .kind = TRI_AGREE_DEATH,
                                       .node = of,
                                       .proof = proof });
}

/* A crash that all that live hear of. */
static void crash(uint64_t id, bool proof)
{
    world.nodes[id - 1].is_up = false;
    for (uint64_t at = 1; at <= world.len; at++)
        if (world.nodes[at - 1].is_up)
            death(id, at, proof);
}

static void boundary(uint64_t id, bool at)
{
    step(id, (struct tri_agree_event){ .kind = TRI_AGREE_BOUNDARY,
                                       .at = at });
}

static void want(uint64_t id, enum tri_agree_event_kind kind)
{
    step(id, (struct tri_agree_event){ .kind = kind });
}

/* The ids, as digits. */
static void expect_view(uint64_t id, uint64_t epoch, const char *members)
{
    const struct tri_agree_view *at = view(id);
    char text[NODES_MAX + 1] = "";

    for (uint32_t i = 0; i < at->len; i++)
        text[i] = (char)('0' + at->members[i].node);
    assert_string_equal(text, members);
    assert_int_equal(at->epoch, epoch);
    assert_int_equal(at->digest, view((uint64_t)(members[0] - '0'))->digest);
}

/* --- losses --------------------------------------------------------------- */

static void test_loss(void **state)
{
    (void)state;
    begin(4, 4, NULL);
    assert_true(tri_agree_mark(world.nodes[0].agree, 1, 5));
    assert_true(tri_agree_mark(world.nodes[1].agree, 1, 6));
    assert_true(tri_agree_mark(world.nodes[2].agree, 1, 6));
    crash(4, true);
    assert_true(tri_agree_is_frozen(world.nodes[1].agree));
    assert_true(world.nodes[1].effects.frozen);
    assert_false(tri_agree_mark(world.nodes[1].agree, 1, 7));
    deliver_all(); /* no clock is needed when it is proven */
    run(0);
    for (uint64_t id = 1; id <= 3; id++) {
        expect_view(id, 2, "123");
        assert_int_equal(view(id)->mark, 5);
        assert_int_equal(view(id)->losses, 1);
        assert_false(tri_agree_is_frozen(world.nodes[id - 1].agree));
        assert_false(tri_agree_mark(world.nodes[id - 1].agree, 1, 9));
        assert_true(tri_agree_mark(world.nodes[id - 1].agree, 2, 6));
    }
    end();
}

/* Not proven: waits for more causes, and then all go at once. */
static void test_settle(void **state)
{
    (void)state;
    begin(5, 5, NULL);
    crash(1, false);
    run(SETTLE_NS / 2);
    expect_view(2, 1, "12345");
    crash(3, false);
    run(SETTLE_NS);
    for (uint64_t id = 2; id <= 5; id += id == 2 ? 2 : 1)
        expect_view(id, 2, "245");
    assert_int_equal(view(2)->losses, 2);
    end();
}

/* Only one has seen it. */
static void test_report(void **state)
{
    (void)state;
    begin(4, 4, NULL);
    world.nodes[2].is_up = false;
    death(3, 4, true);
    run(0);
    for (uint64_t id = 1; id <= 4; id += id == 2 ? 2 : 1)
        expect_view(id, 2, "124");
    end();
}

/* --- quorum --------------------------------------------------------------- */

static void test_two(void **state)
{
    (void)state;
    begin(2, 2, NULL);
    crash(2, false);
    run(ATTEMPT_NS);
    expect_view(1, 2, "1");
    end();

    begin(2, 2, NULL);
    crash(1, false);
    run(100 * ATTEMPT_NS);
    expect_view(2, 1, "12");
    assert_true(world.nodes[1].effects.no_quorum);
    death(1, 2, true);
    run(ATTEMPT_NS);
    expect_view(2, 2, "2");
    end();
}

static void test_minority(void **state)
{
    struct tri_agree_config config = config_of(0);

    (void)state;
    begin(5, 5, &config);
    crash(1, true);
    crash(2, true);
    world.nodes[2].is_up = false;
    for (uint64_t at = 4; at <= 5; at++)
        death(3, at, true);
    run(200 * ATTEMPT_NS);
    assert_true(view(4)->epoch <= 2);
    assert_true(world.nodes[3].effects.no_quorum || view(4)->epoch == 2);
    end();

    /* Proofs count unless they are told not to. */
    config.proof = true;
    begin(5, 5, &config);
    for (uint64_t id = 1; id <= 4; id++)
        world.nodes[id - 1].is_up = false;
    for (uint64_t id = 1; id <= 4; id++)
        death(id, 5, true);
    run(ATTEMPT_NS);
    expect_view(5, 2, "5");
    end();
}

/* --- joining and leaving -------------------------------------------------- */

static void test_join(void **state)
{
    (void)state;
    begin(4, 2, NULL);
    tri_agree_mark(world.nodes[0].agree, 1, 3);
    tri_agree_mark(world.nodes[1].agree, 1, 3);
    want(4, TRI_AGREE_JOIN);
    want(3, TRI_AGREE_JOIN);
    run(10 * ATTEMPT_NS);
    expect_view(1, 1, "12");
    assert_false(tri_agree_is_frozen(world.nodes[0].agree));
    assert_true(tri_agree_wants_boundary(world.nodes[0].agree));
    assert_true(tri_agree_wants_boundary(world.nodes[1].agree));
    boundary(1, true);
    deliver_all();
    expect_view(1, 1, "12");
    assert_true(tri_agree_mark(world.nodes[0].agree, 1, 3));
    boundary(2, true);
    deliver_all();
    for (uint64_t id = 1; id <= 4; id++) {
        expect_view(id, 2, "1234");
        assert_int_equal(view(id)->mark, 3);
        assert_int_equal(view(id)->members[3].since, 2);
        assert_int_equal(view(id)->members[0].since, 1);
        assert_false(tri_agree_wants_boundary(world.nodes[id - 1].agree));
    }
    end();
}

/* Who was at the boundary and went on is waited for again. */
static void test_boundary_left(void **state)
{
    (void)state;
    begin(3, 2, NULL);
    want(3, TRI_AGREE_JOIN);
    deliver_all();
    boundary(1, true);
    deliver_all();
    boundary(1, false);
    deliver_all();
    assert_true(tri_agree_mark(world.nodes[0].agree, 1, 1));
    boundary(2, true);
    deliver_all();
    expect_view(2, 1, "12");
    assert_true(tri_agree_mark(world.nodes[1].agree, 1, 1));
    boundary(2, false);
    boundary(2, true);
    boundary(1, true);
    deliver_all();
    expect_view(3, 2, "123");
    assert_int_equal(view(3)->mark, 1);
    end();
}

static void test_join_at_loss(void **state)
{
    (void)state;
    begin(4, 3, NULL);
    want(4, TRI_AGREE_JOIN);
    deliver_all();
    crash(1, true);
    run(0);
    expect_view(2, 2, "234");
    expect_view(3, 2, "234");
    expect_view(4, 2, "234");
    end();
}

static void test_refused(void **state)
{
    struct tri_agree_config config = config_of(0);

    (void)state;
    config.members_max = 2;
    config.closed = true;
    config.settle_ns = 0;
    begin(3, 2, &config);
    want(3, TRI_AGREE_JOIN);
    run(ATTEMPT_NS);
    assert_true(world.nodes[2].effects.refused);
    end();

    /* Full: waits. */
    config.closed = false;
    begin(3, 2, &config);
    want(3, TRI_AGREE_JOIN);
    boundary(1, true);
    boundary(2, true);
    run(ATTEMPT_NS);
    assert_int_equal(view(3)->epoch, 0);
    crash(2, true);
    run(ATTEMPT_NS);
    expect_view(3, 2, "13");
    end();
}

static void test_leave(void **state)
{
    (void)state;
    begin(3, 3, NULL);
    want(1, TRI_AGREE_LEAVE);
    run(ATTEMPT_NS);
    expect_view(2, 1, "123");
    for (uint64_t id = 1; id <= 3; id++)
        boundary(id, true);
    deliver_all();
    expect_view(2, 2, "23");
    expect_view(3, 2, "23");
    assert_int_equal(view(2)->losses, 0);
    assert_true(world.nodes[0].effects.parted);
    assert_false(world.nodes[0].effects.excluded);

    /* The last one. */
    want(2, TRI_AGREE_QUIT);
    run(ATTEMPT_NS);
    expect_view(3, 3, "3");
    want(3, TRI_AGREE_LEAVE);
    boundary(3, false);
    boundary(3, true);
    assert_true(world.nodes[2].effects.parted);
    end();
}

/* Another life of a node that the others had as a member. */
static void test_join_again(void **state)
{
    struct tri_agree_config config = config_of(2);

    (void)state;
    begin(3, 3, &config);
    replace(&config);
    want(2, TRI_AGREE_JOIN);
    boundary(1, true);
    boundary(3, true);
    run(20 * ATTEMPT_NS);
    expect_view(2, 3, "132");
    expect_view(1, 3, "132");
    end();
}

/* What the records' side says for a core that is not there any more. */
static void no_part(uint64_t of, uint64_t at, uint64_t number)
{
    step(at, (struct tri_agree_event){ .kind = TRI_AGREE_GONE,
                                       .node = of,
                                       .number = number });
}

static void renew(uint64_t id)
{
    struct tri_agree_config config = config_of(id);

    config.proof = true;
    replace(&config);
    memset(&world.nodes[id - 1].effects, 0, sizeof(struct tri_agree_effects));
}

static void all_at(uint32_t len)
{
    for (uint64_t id = 1; id <= len; id++)
        boundary(id, true);
}

/* It gave up, and the others added it meanwhile; then it asks again. */
static void test_join_after_gone(void **state)
{
    uint64_t over;

    (void)state;
    begin(3, 2, NULL);
    want(3, TRI_AGREE_JOIN);
    deliver_all();
    world.nodes[2].is_up = false;
    all_at(2);
    run(ATTEMPT_NS);
    expect_view(1, 2, "123");
    over = world.now_ns;
    no_part(3, 1, over);
    run(10 * ATTEMPT_NS);
    expect_view(1, 3, "12");

    renew(3);
    world.nodes[2].is_up = true;
    world.now_ns++;
    want(3, TRI_AGREE_JOIN);
    run(10 * ATTEMPT_NS);
    expect_view(1, 4, "123");
    expect_view(3, 4, "123");
    /* That word was of the life before. */
    no_part(3, 2, over);
    run(20 * ATTEMPT_NS);
    expect_view(1, 4, "123");
    assert_false(world.nodes[2].effects.excluded);
    end();
}

static bool knows_3;

static bool is_known(void *context, uint64_t node)
{
    (void)context;
    return node != 3 || knows_3;
}

/* Who went on while it held a proposal does not accept it there. */
static void test_held_left(void **state)
{
    struct tri_agree_config config = config_of(2);
    uint64_t ids[] = { 1, 2 };

    (void)state;
    begin(3, 2, NULL);
    config.proof = true;
    config.is_known = is_known;
    replace(&config);
    assert_int_equal(tri_agree_begin(world.nodes[1].agree, ids, 2), 0);
    knows_3 = false;
    want(3, TRI_AGREE_JOIN);
    deliver_all();
    all_at(2);
    deliver_all();
    expect_view(1, 1, "12");
    boundary(2, false);
    assert_true(tri_agree_mark(world.nodes[1].agree, 1, 1));
    knows_3 = true;
    want(2, TRI_AGREE_KNOWN);
    assert_false(tri_agree_is_frozen(world.nodes[1].agree));
    boundary(2, true);
    run(20 * ATTEMPT_NS);
    expect_view(1, 2, "123");
    expect_view(2, 2, "123");
    expect_view(3, 2, "123");
    end();
}

/* --- who does not answer -------------------------------------------------- */

static void test_deaf(void **state)
{
    (void)state;
    begin(4, 4, NULL);
    world.nodes[2].is_deaf = true;
    crash(4, true);
    run(10 * ATTEMPT_NS);
    expect_view(1, 1, "1234");
    run(200 * ATTEMPT_NS);
    expect_view(1, 2, "12");
    expect_view(2, 2, "12");
    assert_int_equal(view(1)->losses, 2);
    world.nodes[2].is_deaf = false;
    run(10 * ATTEMPT_NS);
    assert_true(world.nodes[2].effects.excluded);
    end();
}

static void test_deaf_leader(void **state)
{
    (void)state;
    begin(5, 5, NULL);
    world.nodes[0].is_deaf = true;
    crash(5, true);
    run(400 * ATTEMPT_NS);
    expect_view(2, 2, "234");
    expect_view(3, 2, "234");
    world.nodes[0].is_deaf = false;
    run(ATTEMPT_NS);
    assert_true(world.nodes[0].effects.excluded);
    end();
}

/* A commit that was lost is asked for. */
static void test_late(void **state)
{
    (void)state;
    begin(3, 3, NULL);
    crash(3, true);
    while (view(1)->epoch == 1) { /* one message at a time */
        assert_true(world.first < world.last);
        deliver_one();
        if (world.first == world.last)
            run(0);
    }
    drop_all();
    if (view(2)->epoch == 1)
        run(20 * ATTEMPT_NS);
    expect_view(2, 2, "12");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_settle),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_two),
        cmocka_unit_test(test_minority),
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_boundary_left),
        cmocka_unit_test(test_join_at_loss),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_leave),
        cmocka_unit_test(test_join_again),
        cmocka_unit_test(test_join_after_gone),
        cmocka_unit_test(test_held_left),
        cmocka_unit_test(test_deaf),
        cmocka_unit_test(test_deaf_leader),
        cmocka_unit_test(test_late),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
