/* SPDX-License-Identifier: BSD-3-Clause */

/* Lanes: what one carries, or cannot carry, is nothing to another. */

#include <sched.h>
#include <string.h>

#include "base/random.h"
#include "conf.h"

#define LANES_RECORDS 20000u
/* Nothing that refuses may make the other side keep more than this. */
#define KEPT_BYTES_MAX (16u << 20)
/* A lane that says EFULL for so long is full for good. */
#define FULL_PUMPS 300u
#define FULL_MS 50u

static uint64_t received(struct conf_end *end, const struct conf_end *from,
                         enum tri_lane lane)
{
    return conf_peer(end, from)->received[lane];
}

/* All that was sent on these lanes has come. */
static bool is_there(struct conf_end *end, const struct conf_end *from,
                     bool data)
{
    return received(end, from, TRI_LANE_CONTROL) ==
               from->sent[TRI_LANE_CONTROL] &&
           received(end, from, TRI_LANE_REPLY) == from->sent[TRI_LANE_REPLY] &&
           (!data ||
            received(end, from, TRI_LANE_DATA) == from->sent[TRI_LANE_DATA]);
}

static int send_next(struct conf_end *end, enum tri_lane lane)
{
    return conf_end_send_on(end, lane,
                            conf_lane_size(end, lane, end->sent[lane]));
}

static void send_mixed(struct conf_end *end, struct tri_random *random,
                       uint64_t count)
{
    for (int i = 0; i < 100; i++) {
        enum tri_lane lane = tri_random_next(random) % TRI_LANES;

        if (end->sent[lane] < count / TRI_LANES)
            send_next(end, lane); /* EFULL: another time */
    }
}

static void test_each_lane_keeps_order(void **state)
{
    struct tri_random random;
    struct conf_end a, b;
    uint64_t until = conf_now_ms() + 3 * CONF_TIMEOUT_MS;
    uint64_t count;

    tri_random_init(&random, conf_seed("each_lane_keeps_order"));
    conf_open_pair(state, &a, &b);
    count = tri_min(a.under_test->records, LANES_RECORDS);
    conf_end_connect(&a, &b);
    conf_end_connect(&b, &a);
    while (a.received < count / TRI_LANES * TRI_LANES ||
           b.received < count / TRI_LANES * TRI_LANES) {
        send_mixed(&a, &random, count);
        send_mixed(&b, &random, count);
        conf_end_pump(&a);
        conf_end_pump(&b);
        assert_true(conf_now_ms() < until);
    }
    assert_true(is_there(&a, &b, true));
    assert_true(is_there(&b, &a, true));
    conf_close_pair(&a, &b);
}

/* Sends data until the other side's refusal comes through to here. */
static void fill_for_good(struct conf_end *a, struct conf_end *b)
{
    uint64_t until = conf_now_ms() + CONF_TIMEOUT_MS;
    uint64_t bytes = 0, last_ms = conf_now_ms();
    unsigned pumps = 0;

    while (pumps < FULL_PUMPS || conf_now_ms() < last_ms + FULL_MS) {
        size_t size = conf_size(a, a->sent[TRI_LANE_DATA]);
        int error = conf_end_send(a, size);

        if (!error) {
            bytes += size + sizeof(struct tri_record);
            pumps = 0;
            last_ms = conf_now_ms();
            continue;
        }
        assert_int_equal(error, TROUPE_EFULL);
        conf_end_pump(a);
        conf_end_pump(b);
        pumps++;
        assert_true(conf_now_ms() < until);
    }
    assert_true(bytes < KEPT_BYTES_MAX);
}

static void send_surely(struct conf_end *a, struct conf_end *b,
                        enum tri_lane lane, size_t bytes)
{
    int error;

    conf_wait(a, b,
              (error = conf_end_send_on(a, lane, bytes)) == 0 ||
                  error != TROUPE_EFULL);
    assert_int_equal(error, 0);
}

static void test_full_data_holds_up_nothing(void **state)
{
    struct conf_end a, b;
    struct conf_peer *from_a;

    conf_open_pair(state, &a, &b);
    b.takes = 0;
    conf_end_connect(&a, &b);
    conf_end_connect(&b, &a);
    fill_for_good(&a, &b);
    from_a = conf_peer(&b, &a);
    conf_wait(&a, &b, from_a->refused); /* what was lost comes again */
    for (int i = 0; i < 200; i++) {
        send_surely(&a, &b, TRI_LANE_CONTROL, (size_t)i % 200);
        send_surely(&a, &b, TRI_LANE_REPLY, conf_size(&a, (uint64_t)i));
    }
    send_surely(&a, &b, TRI_LANE_REPLY, a.transport->record_bytes_max);
    conf_wait(&a, &b, is_there(&b, &a, false));
    /* The other direction is another matter. */
    for (int i = 0; i < 200; i++)
        send_surely(&b, &a, i % TRI_LANES, CONF_SMALL);
    conf_wait(&a, &b, is_there(&a, &b, true));
    assert_int_equal(received(&b, &a, TRI_LANE_DATA), 0);
    a.writable = 0;
    conf_end_resume(&b, from_a, CONF_ALL);
    conf_wait(&a, &b, is_there(&b, &a, true));
    conf_wait(&a, &b, a.writable > 0);
    send_surely(&a, &b, TRI_LANE_DATA, CONF_SMALL);
    conf_wait(&a, &b, is_there(&b, &a, true));
    conf_close_pair(&a, &b);
}

/* Nobody takes anything: each lane is full at its own time. */
static void test_lanes_fill_up_apart(void **state)
{
    struct conf_end a, b;
    int error = 0;

    conf_open_pair(state, &a, &b);
    conf_end_connect(&a, &b);
    for (int round = 0; round < 3; round++) {
        conf_end_fill(&a, round == 0 ? CONF_SMALL : 3000);
        assert_int_equal(send_next(&a, TRI_LANE_REPLY), 0);
        assert_int_equal(send_next(&a, TRI_LANE_CONTROL), 0);
        for (int i = 0; i < 100000 && !error; i++)
            error = conf_end_send_on(&a, TRI_LANE_REPLY, CONF_SMALL);
        assert_int_equal(error, TROUPE_EFULL);
        for (error = 0; !error;)
            error = conf_end_send_on(&a, TRI_LANE_REPLY, 0);
        assert_int_equal(send_next(&a, TRI_LANE_CONTROL), 0);
        assert_int_equal(conf_end_send(&a, 3000), TROUPE_EFULL);
        a.writable = 0;
        conf_wait(&a, &b, a.writable > 0 && is_there(&b, &a, true));
        error = 0;
    }
    conf_close_pair(&a, &b);
}

static void test_refused_records_come_again(void **state)
{
    struct tri_random random;
    struct conf_peer *from_a;
    struct conf_end a, b;
    uint64_t until = conf_now_ms() + 3 * CONF_TIMEOUT_MS;
    uint64_t count = LANES_RECORDS / 4, resumed = 0;

    tri_random_init(&random, conf_seed("refused_records_come_again"));
    conf_open_pair(state, &a, &b);
    b.takes = 5;
    conf_end_connect(&a, &b);
    conf_end_connect(&b, &a);
    send_surely(&a, &b, TRI_LANE_CONTROL, 0);
    conf_wait(&a, &b, b.received == 1);
    from_a = conf_peer(&b, &a);
    while (from_a->received[TRI_LANE_DATA] < count / TRI_LANES) {
        send_mixed(&a, &random, count);
        conf_end_pump(&a);
        conf_end_pump(&b);
        if (from_a->refused && tri_random_next(&random) % 4 == 0) {
            conf_end_resume(&b, from_a, tri_random_next(&random) % 50);
            resumed++;
        }
        assert_true(conf_now_ms() < until);
    }
    assert_true(resumed > count / TRI_LANES / 50);
    conf_wait(&a, &b, is_there(&b, &a, true));
    conf_close_pair(&a, &b);
}

static void test_refusing_one_takes_others(void **state)
{
    struct conf_peer *from_a;
    struct conf_end a, b, c;

    conf_open_pair(state, &a, &b);
    conf_end_open(&c, a.under_test, CONF_NONCE);
    conf_end_connect(&a, &b);
    conf_end_connect(&c, &b);
    b.takes = 3;
    assert_int_equal(conf_end_send(&a, CONF_SMALL), 0);
    conf_wait(&a, &b, b.received == 1);
    b.takes = CONF_ALL;
    fill_for_good(&a, &b);
    from_a = conf_peer(&b, &a);
    conf_wait(&a, &b, from_a->refused); /* what was lost comes again */
    for (int i = 0; i < 1000; i++)
        send_surely(&c, &b, TRI_LANE_DATA, conf_size(&c, (uint64_t)i));
    conf_wait3(&a, &b, &c, is_there(&b, &c, true));
    assert_int_equal(from_a->received[TRI_LANE_DATA], 3);
    /* And the other way: resuming one leaves the other as it was. */
    conf_peer(&b, &c)->takes = 0;
    send_surely(&c, &b, TRI_LANE_DATA, CONF_SMALL);
    conf_wait3(&a, &b, &c, conf_peer(&b, &c)->refused);
    conf_end_resume(&b, from_a, CONF_ALL);
    conf_wait3(&a, &b, &c, is_there(&b, &a, true));
    assert_true(conf_peer(&b, &c)->refused);
    assert_false(is_there(&b, &c, true));
    conf_end_resume(&b, conf_peer(&b, &c), CONF_ALL);
    conf_wait3(&a, &b, &c, is_there(&b, &c, true));
    conf_end_close(&c);
    conf_close_pair(&a, &b);
}

/* Who refuses may sleep; `resume` is its own affair. */
static void test_refused_records_let_sleep(void **state)
{
    struct conf_end a, b;

    conf_open_pair(state, &a, &b);
    b.takes = 0;
    conf_end_connect(&a, &b);
    for (int i = 0; i < 10; i++)
        assert_int_equal(conf_end_send(&a, CONF_SMALL), 0);
    conf_wait(&a, &b, conf_peer(&b, &a)->refused);
    conf_wait(&a, &b, !conf_end_pending(&b));
    /* What comes behind it makes no difference. */
    assert_int_equal(conf_end_send(&a, CONF_SMALL), 0);
    conf_wait(&a, &b, !conf_end_pending(&b));
    conf_end_resume(&b, conf_peer(&b, &a), CONF_ALL);
    assert_true(b.received > 0 || conf_end_pending(&b));
    conf_wait(&a, &b, is_there(&b, &a, true));
    conf_close_pair(&a, &b);
}

/* What the link refuses of an old channel is not lost with it, and comes before
 * a new one's data; control and replies do not wait for that. */
static void test_refused_data_of_an_old_channel(void **state)
{
    struct conf_peer *from_a;
    struct conf_end a, b;

    conf_open_pair(state, &a, &b);
    if (!a.under_test->reconnects) {
        conf_close_pair(&a, &b);
        skip();
    }
    b.takes = 2;
    conf_end_connect(&a, &b);
    for (int i = 0; i < 10; i++)
        assert_int_equal(conf_end_send(&a, CONF_SMALL), 0);
    conf_wait(&a, &b, conf_peer(&b, &a)->refused);
    from_a = conf_peer(&b, &a);
    for (int round = 1; round < 3; round++) {
        a.transport->ops->disconnect(a.channel);
        conf_end_connect(&a, &b);
        for (int i = 0; i < 10; i++)
            for (unsigned lane = 0; lane < TRI_LANES; lane++)
                assert_int_equal(conf_end_send_on(&a, lane, CONF_SMALL), 0);
        conf_wait(&a, &b, is_there(&b, &a, false));
        assert_int_equal(from_a->ended, 0);
        assert_int_equal(from_a->received[TRI_LANE_DATA], 2);
    }
    conf_end_resume(&b, from_a, CONF_ALL);
    conf_wait(&a, &b, is_there(&b, &a, true));
    a.transport->ops->disconnect(a.channel);
    a.channel = NULL;
    conf_wait(&a, &b, from_a->ended > 0);
    conf_close_pair(&a, &b);
}

struct caller {
    struct conf_end *end;
    struct conf_end *to;
    _Atomic unsigned *ready;
};

static void *call_at_once(void *arg)
{
    struct caller *caller = arg;

    atomic_fetch_add(caller->ready, 1);
    while (atomic_load(caller->ready) < 2)
        sched_yield();
    conf_end_connect(caller->end, caller->to);
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        conf_end_send_on(caller->end, lane, CONF_SMALL);
    return NULL;
}

static void test_connects_cross_in_one_moment(void **state)
{
    if (!conf_under_test(state)->threads)
        skip();
    for (int round = 0; round < 20; round++) {
        _Atomic unsigned ready = 0;
        pthread_t threads[2];
        struct conf_end a, b;
        struct caller callers[2] = { { &a, &b, &ready }, { &b, &a, &ready } };

        conf_open_pair(state, &a, &b);
        for (int i = 0; i < 2; i++)
            assert_int_equal(
                pthread_create(&threads[i], NULL, call_at_once, &callers[i]),
                0);
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        conf_wait(&a, &b,
                  is_there(&a, &b, true) && is_there(&b, &a, true) &&
                      a.received == TRI_LANES && b.received == TRI_LANES);
        conf_close_pair(&a, &b);
    }
}

#define TEST(name) cmocka_unit_test_prestate(test_##name, transport)

int conf_run_lanes(struct conf_transport *transport)
{
    const struct CMUnitTest tests[] = {
        TEST(each_lane_keeps_order),
        TEST(full_data_holds_up_nothing),
        TEST(lanes_fill_up_apart),
        TEST(refused_records_come_again),
        TEST(refusing_one_takes_others),
        TEST(refused_records_let_sleep),
        TEST(refused_data_of_an_old_channel),
        TEST(connects_cross_in_one_moment),
    };

    return transport->lanes
               ? cmocka_run_group_tests_name("lanes", tests, NULL, NULL)
               : 0;
}
