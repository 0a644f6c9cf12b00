/* SPDX-License-Identifier: BSD-3-Clause */

/* A peer that closes or dies: what it has not taken is known, all else goes
 * on. */

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "conf.h"

/* Records that fit into every transport's stores. */
#define SOME 30u

/* What each_unread told. */
struct unread {
    const struct conf_end *end;
    uint64_t next[TRI_LANES];
    uint64_t count[TRI_LANES];
};

static void on_unread(void *context, const struct tri_record *record,
                      const void *payload)
{
    struct unread *unread = context;
    enum tri_lane lane = (enum tri_lane)record->value;

    assert_in_range(lane, 0, TRI_LANES - 1);
    if (unread->count[lane] > 0)
        assert_int_equal(record->ask, unread->next[lane]);
    assert_true(record->ask < unread->end->sent[lane]);
    assert_true(conf_is_right(lane, record->ask, record, payload));
    unread->next[lane] = record->ask + 1;
    unread->count[lane]++;
}

static void look(struct conf_end *end, struct unread *unread)
{
    *unread = (struct unread){ .end = end };
    end->transport->ops->each_unread(end->channel, on_unread, unread);
}

/* Exactly what came behind the first `taken` is unread. */
static void expect_unread(struct conf_end *end, enum tri_lane lane,
                          uint64_t taken)
{
    struct unread unread;

    look(end, &unread);
    assert_int_equal(unread.count[lane], end->sent[lane] - taken);
    if (unread.count[lane] > 0)
        assert_int_equal(unread.next[lane], end->sent[lane]);
}

/* An end that knows how many records are not taken over yet. */
static bool knows_unread(const struct conf_transport *transport)
{
    return transport->exact && transport->ops->each_unread &&
           transport->ops->unread;
}

static uint64_t unread_of(struct conf_end *end)
{
    return end->transport->ops->unread(end->channel);
}

static void send_some(struct conf_end *end, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned lane = 0; lane < TRI_LANES; lane++)
            assert_int_equal(conf_end_send_on(end, lane, i * 20), 0);
}

/* Lets positions be anywhere. */
static void warm_up(struct conf_end *a, struct conf_end *b, uint64_t count)
{
    while (a->sent[TRI_LANE_DATA] < count) {
        enum tri_lane lane =
            a->sent[TRI_LANE_DATA] % 2 ? TRI_LANE_REPLY : TRI_LANE_DATA;

        conf_end_send_on(a, lane, conf_size(a, a->sent[lane]));
        if (conf_end_send(a, conf_size(a, a->sent[TRI_LANE_DATA])) != 0)
            conf_end_pump(a);
        conf_end_pump(b);
    }
    conf_wait(a, b, unread_of(a) == 0);
}

static void unread_after_close(void **state, uint64_t seed)
{
    uint64_t takes = tri_mix64(seed) % SOME, taken;
    struct conf_end a, b;

    conf_open_pair(state, &a, &b);
    conf_end_connect(&a, &b);
    conf_end_connect(&b, &a);
    warm_up(&a, &b, tri_mix64(seed + 1) % 500);
    conf_wait(&a, &b, conf_end_send(&a, 0) == 0);
    conf_wait(&a, &b, b.peers_len == 1 && unread_of(&a) == 0);
    taken = a.sent[TRI_LANE_DATA];
    conf_peer(&b, &a)->takes = takes;
    send_some(&a, SOME);
    taken += takes;
    conf_wait(&a, &b, unread_of(&a) == a.sent[TRI_LANE_DATA] - taken);
    assert_true(conf_peer(&b, &a)->refused);
    conf_end_close(&b);
    for (int i = 0; i < 5; i++)
        conf_end_pump(&a);
    expect_unread(&a, TRI_LANE_DATA, taken);
    expect_unread(&a, TRI_LANE_CONTROL, a.sent[TRI_LANE_CONTROL]);
    expect_unread(&a, TRI_LANE_REPLY, a.sent[TRI_LANE_REPLY]);
    expect_unread(&a, TRI_LANE_DATA, taken); /* asking changes nothing */
    conf_end_close(&a);
}

static void test_unread_after_close(void **state)
{
    uint64_t seed = conf_seed("unread_after_close");

    if (!knows_unread(*state))
        skip();
    for (int round = 0; round < 20; round++)
        unread_after_close(state, seed + 2 * (uint64_t)round);
}

static void test_unread_of_who_never_read(void **state)
{
    struct conf_end a, b;

    if (!knows_unread(*state))
        skip();
    conf_open_pair(state, &a, &b);
    conf_end_connect(&a, &b);
    send_some(&a, SOME);
    assert_int_equal(conf_end_send(&a, a.transport->record_bytes_max), 0);
    conf_end_close(&b);
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        expect_unread(&a, lane, 0);
    conf_end_close(&a);
}

/* Some things may fail by now, but all return. */
static void go_on_alone(struct conf_end *end)
{
    uint64_t until = conf_now_ms() + CONF_TIMEOUT_MS;

    for (int i = 0; i < 1000; i++) {
        conf_end_send_on(end, (enum tri_lane)(i % TRI_LANES),
                         conf_lane_size(end, i % TRI_LANES, (uint64_t)i));
        conf_end_pump(end);
        conf_end_pending(end);
    }
    assert_true(conf_now_ms() < until);
}

static void flood(struct conf_end *end, uint64_t seed)
{
    for (unsigned i = 0; i < 50 + seed % 100; i++) {
        enum tri_lane lane =
            end->under_test->lanes ? tri_mix64(seed + i) % 3 : TRI_LANE_DATA;

        conf_end_send_on(end, lane, conf_lane_size(end, lane, end->sent[lane]));
    }
}

static void test_close_with_data_in_flight(void **state)
{
    uint64_t seed = conf_seed("close_with_data_in_flight");

    for (int round = 0; round < 20; round++) {
        struct conf_end a, b;

        conf_open_pair(state, &a, &b);
        if (a.under_test->lanes && round % 2)
            b.takes = tri_mix64(++seed) % 20;
        conf_end_connect(&a, &b);
        conf_end_connect(&b, &a);
        for (int i = 0; i < 5; i++) {
            flood(&a, ++seed);
            flood(&b, ++seed);
            conf_end_pump(&a);
            if (round % 3)
                conf_end_pump(&b);
        }
        conf_end_close(round % 4 < 2 ? &a : &b);
        go_on_alone(round % 4 < 2 ? &b : &a);
        conf_end_close(round % 4 < 2 ? &b : &a);
    }
}

/* Calling who has closed: what connect says is one thing, but nothing comes of
 * it, and nobody hangs. */
static void test_call_to_a_closed_node(void **state)
{
    struct tri_address address;
    struct conf_end a, b;

    conf_open_pair(state, &a, &b);
    b.transport->ops->address(b.transport, &address);
    conf_end_close(&b);
    if (a.transport->ops->connect(a.transport, b.node, &address, &a,
                                  &a.channel) == 0) {
        go_on_alone(&a);
        a.transport->ops->disconnect(a.channel);
    }
    a.channel = NULL;
    conf_end_pump(&a);
    assert_int_equal(a.received, 0);
    conf_end_close(&a);
}

/* ---- the peer is a process that is killed ---- */

/* The child: takes so many records of data, tells when, and waits. */
static _Noreturn void reader(const struct conf_transport *transport,
                             uint64_t takes, int in, int out)
{
    struct conf_end end;
    char done = 1;

    alarm(CONF_WATCHDOG_S);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    conf_end_open(&end, transport, CONF_NONCE);
    end.takes = takes;
    conf_tell(out, &end);
    conf_hear(in);
    while (!end.peers[0].refused || end.received < takes + 2 * SOME)
        conf_end_pump(&end);
    if (write(out, &done, 1) != 1)
        _exit(1);
    for (;;)
        conf_end_pump(&end);
}

/* The child: writes to whom it is told of, and waits. */
static _Noreturn void writer(const struct conf_transport *transport, int in)
{
    struct conf_contact to;
    struct conf_end end;

    alarm(CONF_WATCHDOG_S);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    conf_end_open(&end, transport, CONF_NONCE);
    to = conf_hear(in);
    conf_end_dial(&end, &to);
    send_some(&end, SOME);
    for (;;)
        conf_end_pump(&end);
}

struct child {
    pid_t pid;
    int in;
    int out;
};

static struct child start(const struct conf_transport *transport, bool reads,
                          uint64_t takes)
{
    struct child child;
    int up[2], down[2];

    assert_int_equal(pipe(up), 0);
    assert_int_equal(pipe(down), 0);
    child.pid = fork();
    assert_true(child.pid >= 0);
    if (child.pid == 0 && reads)
        reader(transport, takes, down[0], up[1]);
    else if (child.pid == 0)
        writer(transport, down[0]);
    close(up[1]);
    close(down[0]);
    child.in = up[0];
    child.out = down[1];
    return child;
}

static void kill_child(struct child *child)
{
    int status;

    assert_int_equal(kill(child->pid, SIGKILL), 0);
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    assert_true(WIFSIGNALED(status));
    close(child->in);
    close(child->out);
}

static void test_unread_of_the_dead(void **state)
{
    const struct conf_transport *transport = conf_under_test(state);
    const uint64_t takes = 7;
    struct conf_contact contact;
    struct conf_end end;
    struct child child;

    if (!knows_unread(transport) || !transport->forks)
        skip();
    child = start(transport, true, takes);
    conf_end_open(&end, transport, CONF_NONCE);
    conf_tell(child.out, &end);
    contact = conf_hear(child.in);
    conf_end_dial(&end, &contact);
    send_some(&end, SOME);
    conf_wait(&end, NULL, unread_of(&end) == SOME - takes);
    kill_child(&child);
    if (transport->proof)
        conf_wait(&end, NULL, end.proofs > 0);
    expect_unread(&end, TRI_LANE_DATA, takes);
    expect_unread(&end, TRI_LANE_CONTROL, SOME);
    expect_unread(&end, TRI_LANE_REPLY, SOME);
    conf_end_close(&end);
}

/* Its last words wait for `resume`; who never resumes leaks nothing. */
static void last_words(const struct conf_transport *transport, bool resumes)
{
    struct child child = start(transport, false, 0);
    struct conf_peer *dead;
    struct conf_end end;

    conf_end_open(&end, transport, CONF_NONCE);
    end.takes = 3;
    conf_tell(child.out, &end);
    conf_wait(&end, NULL, end.received == 3 + 2 * SOME);
    dead = &end.peers[0];
    conf_wait(&end, NULL, dead->refused);
    kill_child(&child);
    conf_wait(&end, NULL, end.proofs > 0);
    conf_wait(&end, NULL, !conf_end_pending(&end));
    assert_int_equal(dead->ended, 0);
    if (resumes) {
        conf_end_resume(&end, dead, 4);
        conf_wait(&end, NULL, dead->refused);
        assert_int_equal(dead->ended, 0);
        conf_end_resume(&end, dead, CONF_ALL);
        conf_wait(&end, NULL, dead->ended == 1);
        assert_int_equal(end.received, 3 * SOME);
    }
    conf_end_close(&end);
}

static void test_last_words_wait_for_resume(void **state)
{
    const struct conf_transport *transport = conf_under_test(state);

    if (!knows_unread(transport) || !transport->forks || !transport->proof)
        skip();
    last_words(transport, true);
    last_words(transport, false);
}

#define TEST(name) cmocka_unit_test_prestate(test_##name, transport)

int conf_run_gone(struct conf_transport *transport)
{
    const struct CMUnitTest tests[] = {
        TEST(unread_after_close),        TEST(unread_of_who_never_read),
        TEST(close_with_data_in_flight), TEST(call_to_a_closed_node),
        TEST(unread_of_the_dead),        TEST(last_words_wait_for_resume),
    };

    return cmocka_run_group_tests_name("gone", tests, NULL, NULL);
}
