/* SPDX-License-Identifier: BSD-3-Clause */
/* Pending asks: each ends exactly once. */
#include "unit.h"

#include "actor/asks.h"
#include "message/pool.h"
#include "message/type.h"

#define TICK_NS (TRI_ASKS_TICK_MS * TRI_NS_PER_MS)
#define ROTATION_NS (TRI_ASKS_WHEEL_LEN * TICK_NS)
#define ASKS_MAX 600u
#define STEPS 20000u

static troupe_type_t plain = { "t.plain", "()", "(int64_t v;)", 0, 8, 0, 0, 0 };
static troupe_type_t tail = { "t.tail", "()", "(int32_t n; char b[];)",
                              0, 4, 0, 1, 0 };

/* What the events saw. Each model entry is one ask of an actor. */
struct outcome {
    uint64_t id;
    uint64_t deadline_ns;
    uint64_t node;
    int expected; /* 0: a result */
    int ended;
    int error;
};

struct fixture {
    struct tri_asks asks;
    struct tri_worker *woken;
    unsigned wakes;
    struct tri_ask *last; /* delivered, not ended yet */
    unsigned delivered;
};

static void on_wake(void *context, struct tri_worker *worker)
{
    struct fixture *fixture = context;

    fixture->woken = worker;
    fixture->wakes++;
}

static void on_deliver(void *context, struct tri_ask *ask)
{
    struct fixture *fixture = context;
    struct outcome *outcome = ask->arg;

    fixture->delivered++;
    if (outcome == NULL) {
        fixture->last = ask;
        return;
    }
    outcome->ended++;
    outcome->error = ask->error;
    assert_true((ask->error == 0) == (ask->result != NULL));
    tri_asks_end(&fixture->asks, ask);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct tri_asks_events events = { fixture, on_wake, on_deliver };

    if (fixture == NULL || tri_asks_init(&fixture->asks, ASKS_MAX, &events))
        return -1;
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    tri_asks_fini(&fixture->asks);
    free(fixture);
    return 0;
}

static uint64_t begin_actor(struct fixture *fixture, uint64_t node,
                            uint64_t deadline_ns, struct outcome *outcome)
{
    struct tri_ask_spec spec = { .type = &plain,
                                 .callee_node = node,
                                 .deadline_ns = deadline_ns,
                                 .actor_slot = 7,
                                 .actor_generation = 3,
                                 .arg = outcome };
    uint64_t id = 0;

    tri_type_hash(&plain);
    assert_int_equal(tri_asks_begin(&fixture->asks, &spec, &id), 0);
    return id;
}

static uint64_t begin_waiter(struct fixture *fixture, struct tri_waiter *waiter,
                             const troupe_type_t *type)
{
    struct tri_ask_spec spec = { .waiter = waiter,
                                 .type = type,
                                 .result_bytes = 16,
                                 .callee_node = 5 };
    uint64_t id = 0;

    tri_type_hash(&plain);
    tri_type_hash(&tail);
    assert_int_equal(tri_asks_begin(&fixture->asks, &spec, &id), 0);
    return id;
}

static void test_waiter_gets_a_copy(void **state)
{
    struct fixture *fixture = *state;
    int64_t result = 0, value = 42;
    struct tri_waiter waiter = { .result = &result,
                                 .worker = (void *)fixture };
    uint64_t id = begin_waiter(fixture, &waiter, &plain);

    assert_true(tri_asks_complete(&fixture->asks, id, 0, plain.hash, &value,
                                  sizeof(value)));
    assert_int_equal(waiter.done, 1);
    assert_int_equal(waiter.error, 0);
    assert_int_equal(result, 42);
    assert_int_equal(fixture->wakes, 1);
    assert_ptr_equal(fixture->woken, fixture);
    /* once only; and it cannot be cancelled any more */
    assert_false(tri_asks_complete(&fixture->asks, id, 0, plain.hash, &value,
                                   sizeof(value)));
    assert_false(tri_asks_cancel(&fixture->asks, id));
}

static void test_waiter_takes_a_message(void **state)
{
    struct fixture *fixture = *state;
    struct tri_waiter waiter = { .take = true };
    uint64_t id = begin_waiter(fixture, &waiter, &tail);
    struct tri_message *message = tri_message_alloc(9);

    message->type = tail.hash;
    memcpy(message->payload, "\0\0\0\0abcde", 9);
    assert_true(tri_asks_complete_message(&fixture->asks, id, message));
    assert_ptr_equal(waiter.message, message);
    assert_int_equal(message->fixed_bytes, 4);
    tri_message_free(message);

    waiter = (struct tri_waiter){ .take = true };
    id = begin_waiter(fixture, &waiter, &tail);
    assert_true(tri_asks_complete(&fixture->asks, id, 0, tail.hash, "12345678",
                                  8));
    assert_int_equal(waiter.message->bytes, 8);
    assert_memory_equal(waiter.message->payload, "12345678", 8);
    tri_message_free(waiter.message);
}

static void test_wrong_results_are_refused(void **state)
{
    struct fixture *fixture = *state;
    char bytes[32] = { 0 };
    static const struct {
        bool is_tail;
        bool other_type;
        size_t bytes;
        int error;
    } cases[] = {
        { false, false, 8, 0 },
        { false, false, 7, TROUPE_ETYPE },
        { false, false, 9, TROUPE_ETYPE },
        { false, true, 8, TROUPE_ETYPE },
        { true, false, 4, 0 },
        { true, false, 20, 0 },
        { true, false, 3, TROUPE_ETYPE },
    };

    for (size_t i = 0; i < tri_array_len(cases); i++) {
        troupe_type_t *type = cases[i].is_tail ? &tail : &plain;
        struct tri_waiter waiter = { .result = bytes };
        uint64_t id = begin_waiter(fixture, &waiter, type);

        assert_true(tri_asks_complete(&fixture->asks, id, 0,
                                      type->hash + cases[i].other_type, bytes,
                                      cases[i].bytes));
        assert_int_equal(waiter.error, cases[i].error);
    }
}

static void test_own_results_by_size(void **state)
{
    struct fixture *fixture = *state;
    char bytes[16] = { 0 };
    struct tri_waiter waiter = { .result = bytes };
    uint64_t id = begin_waiter(fixture, &waiter, NULL);

    assert_true(tri_asks_complete(&fixture->asks, id, 0, 99, bytes, 16));
    assert_int_equal(waiter.error, 0);
    id = begin_waiter(fixture, &waiter, NULL);
    assert_true(tri_asks_complete(&fixture->asks, id, 0, 99, bytes, 15));
    assert_int_equal(waiter.error, TROUPE_ETYPE);
}

static void test_cancel_and_stale_ids(void **state)
{
    struct fixture *fixture = *state;
    struct tri_waiter waiter = { 0 };
    uint64_t first = begin_waiter(fixture, &waiter, &plain);
    uint64_t second;

    assert_true(tri_asks_cancel(&fixture->asks, first));
    assert_false(tri_asks_cancel(&fixture->asks, first));
    second = begin_waiter(fixture, &waiter, &plain);
    assert_int_equal((uint32_t)first, (uint32_t)second); /* the same slot */
    assert_true(first != second);
    assert_false(tri_asks_complete(&fixture->asks, first, -1, 0, NULL, 0));
    assert_false(tri_asks_complete(&fixture->asks, UINT64_MAX, -1, 0, NULL, 0));
    assert_false(tri_asks_complete(&fixture->asks, 0, -1, 0, NULL, 0));
    assert_int_equal(waiter.done, 0);
    assert_true(tri_asks_complete(&fixture->asks, second, TROUPE_ENODE, 0,
                                  NULL, 0));
    assert_int_equal(waiter.error, TROUPE_ENODE);
}

static void test_limit(void **state)
{
    struct fixture *fixture = *state;
    struct tri_waiter waiter = { 0 };
    struct tri_ask_spec spec = { .waiter = &waiter, .type = &plain };
    uint64_t ids[ASKS_MAX], id;

    for (uint32_t i = 0; i < ASKS_MAX; i++)
        ids[i] = begin_waiter(fixture, &waiter, &plain);
    assert_int_equal(tri_asks_begin(&fixture->asks, &spec, &id),
                     TROUPE_ELIMIT);
    assert_true(tri_asks_cancel(&fixture->asks, ids[300]));
    assert_int_equal(tri_asks_begin(&fixture->asks, &spec, &ids[300]), 0);
    for (uint32_t i = 0; i < ASKS_MAX; i++)
        assert_true(tri_asks_cancel(&fixture->asks, ids[i]));
}

static void test_actor_outcome(void **state)
{
    struct fixture *fixture = *state;
    uint64_t id = begin_actor(fixture, 5, TRI_NS_NEVER, NULL);
    int64_t value = 17;

    assert_true(tri_asks_complete(&fixture->asks, id, 0, plain.hash, &value,
                                  sizeof(value)));
    assert_int_equal(fixture->delivered, 1);
    assert_int_equal(fixture->last->outcome.kind, TRI_THEN);
    assert_int_equal(fixture->last->outcome.generation, 3);
    assert_int_equal(fixture->last->actor_slot, 7);
    assert_memory_equal(fixture->last->result->payload, &value, sizeof(value));
    assert_ptr_equal(tri_ask_of_outcome(&fixture->last->outcome),
                     fixture->last);
    tri_asks_end(&fixture->asks, fixture->last);
    assert_int_equal(fixture->asks.wheel_len, 0);
    id = begin_actor(fixture, 5, TRI_NS_NEVER, NULL);
    tri_asks_cancel(&fixture->asks, id);
    assert_int_equal(fixture->asks.wheel_len, 0);
    assert_int_equal(fixture->delivered, 1);
}

static void test_fail_node(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcomes[6] = { { 0 } };
    struct tri_waiter waiter = { 0 };
    uint64_t id;

    for (int i = 0; i < 6; i++)
        begin_actor(fixture, 10 + i % 2, TRI_NS_NEVER, &outcomes[i]);
    id = begin_waiter(fixture, &waiter, &plain); /* of node 5 */
    tri_asks_fail_node(&fixture->asks, 10, TROUPE_ENODE);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(outcomes[i].ended, i % 2 == 0);
        assert_int_equal(outcomes[i].error, i % 2 == 0 ? TROUPE_ENODE : 0);
    }
    tri_asks_fail_node(&fixture->asks, 5, TROUPE_ENODE);
    assert_int_equal(waiter.done, 1);
    assert_false(tri_asks_cancel(&fixture->asks, id));
    tri_asks_fail_node(&fixture->asks, 11, TROUPE_ENODE);
    tri_asks_fail_node(&fixture->asks, 10, TROUPE_ENODE);
    assert_int_equal(fixture->delivered, 6);
    assert_int_equal(fixture->asks.wheel_len, 0);
}

/* Deadlines on both sides of one and of several rotations of the wheel. */
static void test_expire_over_rotations(void **state)
{
    static const uint64_t after_ms[] = { 1, 4, 5, 100, 4091, 4092, 4096, 4097,
                                         4100, 8191, 8192, 30000 };
    struct fixture *fixture = *state;
    struct outcome outcomes[tri_array_len(after_ms)] = { { 0 } };
    uint64_t begin_ns = tri_now_ns();
    uint64_t now_ns = begin_ns;
    unsigned looks = 0;

    for (size_t i = 0; i < tri_array_len(after_ms); i++) {
        outcomes[i].deadline_ns = begin_ns + after_ms[i] * TRI_NS_PER_MS;
        begin_actor(fixture, 5, outcomes[i].deadline_ns, &outcomes[i]);
    }
    while (now_ns != TRI_NS_NEVER) {
        uint64_t wake_ns = tri_asks_expire(&fixture->asks, now_ns);

        for (size_t i = 0; i < tri_array_len(after_ms); i++) {
            if (outcomes[i].ended == 0) {
                /* not late: what is left is due after the next look */
                assert_true(outcomes[i].deadline_ns + 2 * TICK_NS > now_ns);
                assert_true(wake_ns < outcomes[i].deadline_ns + 2 * TICK_NS);
                continue;
            }
            assert_int_equal(outcomes[i].ended, 1);
            assert_int_equal(outcomes[i].error, TROUPE_ETIMEDOUT);
            assert_true(outcomes[i].deadline_ns <= now_ns); /* nor early */
        }
        assert_true(wake_ns > now_ns);
        assert_true(++looks < 100); /* it may sleep in between */
        now_ns = wake_ns;
    }
    assert_int_equal(fixture->delivered, tri_array_len(after_ms));
}

/* The asker may be overtaken by its own deadline before it begins. */
static void test_deadline_is_past_already(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome = { 0 };
    uint64_t now_ns = tri_now_ns() + TRI_NS_PER_MS * 1000;

    tri_asks_expire(&fixture->asks, now_ns);
    begin_actor(fixture, 5, now_ns - 5 * TICK_NS, &outcome);
    assert_true(tri_asks_expire(&fixture->asks, now_ns + TICK_NS) ==
                TRI_NS_NEVER);
    assert_int_equal(outcome.ended, 1);
}

/* A pause of the whole process: everything that became due ends at once. */
static void test_long_pause(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcomes[50] = { { 0 } };
    uint64_t begin_ns = tri_now_ns();

    for (uint64_t i = 0; i < 50; i++)
        begin_actor(fixture, 5, begin_ns + i * 211 * TRI_NS_PER_MS,
                    &outcomes[i]);
    assert_true(tri_asks_expire(&fixture->asks, begin_ns + 5 * ROTATION_NS) ==
                TRI_NS_NEVER);
    assert_int_equal(fixture->delivered, 50);
}

/* --- random sequences against a model ------------------------------------- */

struct model {
    struct outcome outcomes[ASKS_MAX];
    uint32_t free[ASKS_MAX];
    uint32_t free_len;
    uint64_t now_ns;
};

static void model_check(struct model *model, struct outcome *outcome,
                        int expected)
{
    assert_int_equal(outcome->ended, 1);
    assert_int_equal(outcome->error, expected);
    model->free[model->free_len++] = (uint32_t)(outcome - model->outcomes);
    outcome->id = 0;
}

static void step_begin(struct fixture *fixture, struct model *model,
                       struct tri_random *random)
{
    struct outcome *outcome;

    if (model->free_len == 0)
        return;
    outcome = &model->outcomes[model->free[--model->free_len]];
    outcome->ended = 0;
    outcome->node = 1 + tri_random_below(random, 8);
    outcome->deadline_ns = model->now_ns +
                           tri_random_below(random, 9000) * TRI_NS_PER_MS;
    outcome->id = begin_actor(fixture, outcome->node, outcome->deadline_ns,
                              outcome);
}

static void step_complete(struct fixture *fixture, struct model *model,
                          struct tri_random *random)
{
    struct outcome *outcome = &model->outcomes[tri_random_below(random,
                                                                ASKS_MAX)];
    int error = (int)tri_random_below(random, 2) - 1;
    int64_t value = 1;
    uint64_t id = outcome->id;

    if (id == 0)
        return;
    if (tri_random_below(random, 4) == 0) {
        tri_asks_cancel(&fixture->asks, id);
        assert_int_equal(outcome->ended, 0);
        outcome->ended = 1;
        outcome->error = 0;
        model_check(model, outcome, 0);
    } else {
        assert_true(tri_asks_complete(&fixture->asks, id, error, plain.hash,
                                      &value, error == 0 ? sizeof(value) : 0));
        model_check(model, outcome, error);
    }
    assert_false(tri_asks_complete(&fixture->asks, id, -1, 0, NULL, 0));
}

static void step_fail_node(struct fixture *fixture, struct model *model,
                           struct tri_random *random)
{
    uint64_t node = 1 + tri_random_below(random, 8);

    tri_asks_fail_node(&fixture->asks, node, TROUPE_ENODE);
    for (uint32_t i = 0; i < ASKS_MAX; i++)
        if (model->outcomes[i].id != 0 && model->outcomes[i].node == node)
            model_check(model, &model->outcomes[i], TROUPE_ENODE);
}

static void step_expire(struct fixture *fixture, struct model *model,
                        struct tri_random *random)
{
    model->now_ns += tri_random_below(random, 300) * TRI_NS_PER_MS;
    tri_asks_expire(&fixture->asks, model->now_ns);
    for (uint32_t i = 0; i < ASKS_MAX; i++) {
        struct outcome *outcome = &model->outcomes[i];

        if (outcome->id == 0)
            continue;
        if (outcome->ended > 0)
            model_check(model, outcome, TROUPE_ETIMEDOUT);
        else
            assert_true(outcome->deadline_ns + 2 * TICK_NS > model->now_ns);
    }
}

static void test_random(void **state)
{
    struct fixture *fixture = *state;
    struct model *model = calloc(1, sizeof(*model));
    struct tri_random random;

    tri_random_init(&random, unit_seed("test_random"));
    assert_non_null(model);
    model->now_ns = tri_now_ns();
    for (uint32_t i = 0; i < ASKS_MAX; i++)
        model->free[model->free_len++] = i;
    for (uint32_t i = 0; i < STEPS; i++) {
        uint32_t dice = tri_random_below(&random, 100);

        if (dice < 60)
            step_begin(fixture, model, &random);
        else if (dice < 95)
            step_complete(fixture, model, &random);
        else if (dice < 96)
            step_fail_node(fixture, model, &random);
        else
            step_expire(fixture, model, &random);
        assert_int_equal(fixture->asks.wheel_len, ASKS_MAX - model->free_len);
    }
    for (uint64_t node = 1; node <= 8; node++)
        tri_asks_fail_node(&fixture->asks, node, TROUPE_ENODE);
    assert_int_equal(fixture->asks.wheel_len, 0);
    free(model);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_waiter_gets_a_copy),
        TEST(test_waiter_takes_a_message),
        TEST(test_wrong_results_are_refused),
        TEST(test_own_results_by_size),
        TEST(test_cancel_and_stale_ids),
        TEST(test_limit),
        TEST(test_actor_outcome),
        TEST(test_fail_node),
        TEST(test_expire_over_rotations),
        TEST(test_deadline_is_past_already),
        TEST(test_long_pause),
        TEST(test_random),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
