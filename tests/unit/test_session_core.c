/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The core of a session, step by step: two of them, and a test that carries
 * frames between them by hand. Random schedules are in tests/sim.
 */
#include "unit.h"

#include "link/session_core.h"

#define MS TRI_NS_PER_MS
#define BYTES 1000u

struct side {
    struct tri_session session;
    struct tri_stored frames[300];
    unsigned frames_len;
    struct tri_stored_list freed;
    unsigned freed_len;
};

struct pair {
    struct side a, b;
    uint64_t now_ns;
};

static void check(struct side *side)
{
    const char *broken = tri_session_check(&side->session);

    if (broken)
        fail_msg("invariant %s", broken);
}

static int setup(void **state)
{
    struct pair *pair = calloc(1, sizeof(*pair));

    assert_non_null(pair);
    pair->now_ns = 1000 * MS;
    for (struct side *side = &pair->a;; side = &pair->b) {
        tri_session_init(&side->session, &tri_session_config_default);
        STAILQ_INIT(&side->freed);
        check(side);
        if (side == &pair->b)
            break;
    }
    *state = pair;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static struct tri_stored *store(struct pair *pair, struct side *side,
                                enum tri_lane lane, uint32_t bytes)
{
    struct tri_stored *stored = &side->frames[side->frames_len++];

    assert_true(side->frames_len < tri_array_len(side->frames));
    assert_true(
        tri_session_may_store(&side->session, lane, bytes, pair->now_ns));
    tri_session_store(&side->session, lane, stored, bytes, pair->now_ns);
    check(side);
    return stored;
}

/* Sends what is next. frame_p: what leaves; a frame that goes out again keeps
 * its old header, of which only what matters is set. */
static struct tri_session_out send_next(struct pair *pair, struct side *side,
                                        struct tri_frame *frame_p)
{
    struct tri_session_out out =
        tri_session_next(&side->session, pair->now_ns);
    bool again = out.stored && out.stored->handed != 0;

    *frame_p = (struct tri_frame){ .bytes = TRI_FRAME_HEADER_BYTES };
    if (out.what == TRI_SESSION_SEND_NOTHING)
        return out;
    tri_session_fill(&side->session, &out, frame_p);
    if (out.stored)
        frame_p->bytes = out.stored->bytes;
    if (again)
        frame_p->ack = frame_p->sack = frame_p->credit = frame_p->echo = 0;
    tri_session_handed(&side->session, &out, again ? NULL : frame_p,
                       pair->now_ns);
    check(side);
    return out;
}

static void give_back(struct pair *pair, struct side *side,
                      struct tri_stored *stored, bool ok, bool is_free)
{
    assert_int_equal(
        tri_session_given_back(&side->session, stored, ok, pair->now_ns),
        is_free);
    check(side);
}

/* Sends the stored frame that is next and gives it back. */
static struct tri_stored *send_stored(struct pair *pair, struct side *side,
                                      struct tri_frame *frame_p)
{
    struct tri_session_out out = send_next(pair, side, frame_p);

    assert_int_equal(out.what, TRI_SESSION_SEND_STORED);
    assert_int_equal(frame_p->number, out.stored->number);
    give_back(pair, side, out.stored, true, false);
    return out.stored;
}

static enum tri_session_verdict receive(struct pair *pair, struct side *side,
                                        const struct tri_frame *frame)
{
    enum tri_session_verdict verdict;

    verdict = tri_session_receive(&side->session, frame, pair->now_ns,
                                  &side->freed);
    check(side);
    while (!STAILQ_EMPTY(&side->freed)) {
        STAILQ_REMOVE_HEAD(&side->freed, next);
        side->freed_len++;
    }
    return verdict;
}

static void consume(struct pair *pair, struct side *side, enum tri_lane lane,
                    uint64_t bytes)
{
    tri_session_consumed(&side->session, lane, bytes, pair->now_ns);
    check(side);
}

static void deliver(struct pair *pair, struct side *side,
                    const struct tri_frame *frame)
{
    assert_int_equal(receive(pair, side, frame), TRI_SESSION_DELIVER);
    consume(pair, side, frame->lane, frame->bytes);
}

/* An ACK frame goes from one to the other. */
static struct tri_frame send_ack(struct pair *pair, struct side *from,
                                 struct side *to)
{
    struct tri_frame frame;

    assert_int_equal(send_next(pair, from, &frame).what, TRI_SESSION_SEND_ACK);
    assert_int_equal(frame.kind, TRI_FRAME_ACK);
    assert_int_equal(receive(pair, to, &frame), TRI_SESSION_NOTHING);
    return frame;
}

static void assert_quiet(struct pair *pair, struct side *side)
{
    struct tri_frame frame;

    assert_int_equal(send_next(pair, side, &frame).what,
                     TRI_SESSION_SEND_NOTHING);
}

static void assert_rests(struct pair *pair, struct side *side)
{
    assert_quiet(pair, side);
    assert_true(tri_session_is_clear(&side->session));
    assert_true(tri_session_due_ns(&side->session) == UINT64_MAX);
}

/* One frame, its acknowledgement after the delay, and rest. */
static void test_one(void **state)
{
    struct pair *pair = *state;
    struct tri_frame frame;

    assert_rests(pair, &pair->a);
    store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    assert_false(tri_session_is_clear(&pair->a.session));
    send_stored(pair, &pair->a, &frame);
    assert_quiet(pair, &pair->a);
    deliver(pair, &pair->b, &frame);
    assert_quiet(pair, &pair->b);
    assert_int_equal(tri_session_due_ns(&pair->b.session),
                     pair->now_ns + 1 * MS);
    pair->now_ns += 1 * MS;
    frame = send_ack(pair, &pair->b, &pair->a);
    assert_int_equal(frame.ack, 1);
    assert_int_equal(frame.credit, (1u << 20) + BYTES);
    assert_int_equal(pair->a.freed_len, 1);
    assert_rests(pair, &pair->a);
    assert_rests(pair, &pair->b);
}

/* Asks and replies carry each other's acknowledgements. */
static void test_piggyback(void **state)
{
    struct pair *pair = *state;
    struct tri_frame frame;

    for (int i = 0; i < 100; i++) {
        store(pair, &pair->a, TRI_LANE_DATA, BYTES);
        send_stored(pair, &pair->a, &frame);
        deliver(pair, &pair->b, &frame);
        store(pair, &pair->b, TRI_LANE_REPLY, BYTES);
        send_stored(pair, &pair->b, &frame);
        deliver(pair, &pair->a, &frame);
        assert_quiet(pair, &pair->a);
        assert_quiet(pair, &pair->b);
        pair->now_ns += MS / 10;
    }
    assert_int_equal(pair->a.freed_len, 100);
    assert_int_equal(pair->b.freed_len, 99);
    assert_int_equal(pair->a.session.ack_number, 0);
    assert_int_equal(pair->b.session.ack_number, 0);
}

/* Every 16th frame is acknowledged at once; big ones earlier. */
static void test_thresholds(void **state)
{
    struct pair *pair = *state;
    struct tri_frame frame;

    for (unsigned i = 0; i < 16; i++) {
        assert_quiet(pair, &pair->b);
        store(pair, &pair->a, TRI_LANE_DATA, BYTES);
        send_stored(pair, &pair->a, &frame);
        deliver(pair, &pair->b, &frame);
    }
    send_ack(pair, &pair->b, &pair->a);
    assert_int_equal(pair->a.freed_len, 16);
    store(pair, &pair->a, TRI_LANE_CONTROL, 16u << 10);
    send_stored(pair, &pair->a, &frame);
    deliver(pair, &pair->b, &frame);
    send_ack(pair, &pair->b, &pair->a);
    assert_rests(pair, &pair->a);
}

static void test_priority(void **state)
{
    struct pair *pair = *state;
    struct tri_stored *data = store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    struct tri_stored *reply = store(pair, &pair->a, TRI_LANE_REPLY, BYTES);
    struct tri_stored *control =
        store(pair, &pair->a, TRI_LANE_CONTROL, BYTES);
    struct tri_frame frame;

    assert_ptr_equal(send_stored(pair, &pair->a, &frame), control);
    assert_ptr_equal(send_stored(pair, &pair->a, &frame), reply);
    tri_session_broke(&pair->a.session, pair->now_ns);
    control = store(pair, &pair->a, TRI_LANE_CONTROL, BYTES);
    /* Lost before new within a lane; lanes before that. */
    assert_int_equal(send_stored(pair, &pair->a, &frame)->number, 1);
    assert_ptr_equal(send_stored(pair, &pair->a, &frame), control);
    assert_ptr_equal(send_stored(pair, &pair->a, &frame), reply);
    assert_ptr_equal(send_stored(pair, &pair->a, &frame), data);
    assert_quiet(pair, &pair->a);
}

/* The 2nd of 4 is lost: the gap is told at once, and only that one goes out
 * again; then the held ones follow it. */
static void test_gap(void **state)
{
    struct pair *pair = *state;
    struct tri_frame frames[4], frame;
    struct tri_held held[2];
    struct tri_stored *lost = NULL;

    for (unsigned i = 0; i < 4; i++) {
        struct tri_stored *stored =
            store(pair, &pair->a, TRI_LANE_REPLY, BYTES);

        send_stored(pair, &pair->a, &frames[i]);
        lost = i == 1 ? stored : lost;
    }
    deliver(pair, &pair->b, &frames[0]);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(receive(pair, &pair->b, &frames[i + 2]),
                         TRI_SESSION_HOLD);
        held[i] = (struct tri_held){ .number = i + 3, .bytes = BYTES };
        tri_session_hold(&pair->b.session, TRI_LANE_REPLY, &held[i]);
        check(&pair->b);
        /* Again: it is there. */
        assert_int_equal(receive(pair, &pair->b, &frames[i + 2]),
                         TRI_SESSION_DROP);
    }
    frame = send_ack(pair, &pair->b, &pair->a);
    assert_int_equal(frame.ack, 1);
    assert_int_equal(frame.sack, 3);
    assert_int_equal(pair->a.freed_len, 3);
    assert_ptr_equal(send_stored(pair, &pair->a, &frame), lost);
    assert_quiet(pair, &pair->a);
    assert_int_equal(receive(pair, &pair->b, &frame), TRI_SESSION_DELIVER);
    assert_ptr_equal(tri_session_next_held(&pair->b.session, TRI_LANE_REPLY),
                     &held[0]);
    assert_ptr_equal(tri_session_next_held(&pair->b.session, TRI_LANE_REPLY),
                     &held[1]);
    assert_null(tri_session_next_held(&pair->b.session, TRI_LANE_REPLY));
    consume(pair, &pair->b, TRI_LANE_REPLY, 3 * BYTES);
    pair->now_ns += 1 * MS;
    assert_int_equal(send_ack(pair, &pair->b, &pair->a).ack, 4);
    assert_rests(pair, &pair->a);
    assert_rests(pair, &pair->b);
}

/* What arrives on a lane tells nothing of a frame of another one, that was
 * handed over earlier and is not acknowledged yet. */
static void test_lanes_apart(void **state)
{
    struct pair *pair = *state;
    struct tri_frame data, lost, frame;
    struct tri_held held = { .number = 2, .bytes = BYTES };

    store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    send_stored(pair, &pair->a, &data);
    store(pair, &pair->a, TRI_LANE_REPLY, BYTES);
    store(pair, &pair->a, TRI_LANE_REPLY, BYTES);
    send_stored(pair, &pair->a, &lost);
    send_stored(pair, &pair->a, &frame);
    deliver(pair, &pair->b, &data);
    assert_int_equal(receive(pair, &pair->b, &frame), TRI_SESSION_HOLD);
    tri_session_hold(&pair->b.session, TRI_LANE_REPLY, &held);
    assert_int_equal(send_ack(pair, &pair->b, &pair->a).ack_lane,
                     TRI_LANE_REPLY);
    send_stored(pair, &pair->a, &frame);
    assert_int_equal(frame.lane, TRI_LANE_REPLY);
    assert_int_equal(frame.number, 1);
    assert_quiet(pair, &pair->a);
}

/* What goes out again and arrives tells of what went out before it, whatever
 * the numbers; and a frame that comes twice is acknowledged again. */
static void test_order_of_hand_over(void **state)
{
    struct pair *pair = *state;
    struct tri_frame frames[4], frame;
    struct tri_held held = { .number = 2, .bytes = BYTES };

    for (unsigned i = 0; i < 4; i++) {
        store(pair, &pair->a, TRI_LANE_DATA, BYTES);
        send_stored(pair, &pair->a, &frames[i]);
    }
    assert_int_equal(receive(pair, &pair->b, &frames[1]), TRI_SESSION_HOLD);
    tri_session_hold(&pair->b.session, TRI_LANE_DATA, &held);
    send_ack(pair, &pair->b, &pair->a);
    assert_int_equal(send_stored(pair, &pair->a, &frame)->number, 1);
    assert_quiet(pair, &pair->a);
    assert_int_equal(receive(pair, &pair->b, &frame), TRI_SESSION_DELIVER);
    assert_ptr_equal(tri_session_next_held(&pair->b.session, TRI_LANE_DATA),
                     &held);
    consume(pair, &pair->b, TRI_LANE_DATA, 2 * BYTES);
    pair->now_ns += 1 * MS;
    frame = send_ack(pair, &pair->b, &pair->a);
    assert_int_equal(frame.ack, 2);
    assert_int_equal(frame.sack, 0);
    for (unsigned i = 3; i <= 4; i++) {
        assert_int_equal(send_stored(pair, &pair->a, &frame)->number, i);
        deliver(pair, &pair->b, &frame);
    }
    pair->now_ns += 1 * MS;
    send_ack(pair, &pair->b, &pair->a);
    assert_rests(pair, &pair->a);
    assert_int_equal(receive(pair, &pair->b, &frame), TRI_SESSION_DROP);
    pair->now_ns += 1 * MS;
    assert_int_equal(send_ack(pair, &pair->b, &pair->a).ack, 4);
}

/* What was held without memory is lost, and comes again. */
static void test_no_memory(void **state)
{
    struct pair *pair = *state;
    struct tri_frame first, second, frame;

    store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    send_stored(pair, &pair->a, &first);
    send_stored(pair, &pair->a, &second);
    assert_int_equal(receive(pair, &pair->b, &second), TRI_SESSION_HOLD);
    assert_int_equal(send_ack(pair, &pair->b, &pair->a).sack, 0);
    deliver(pair, &pair->b, &first);
    assert_null(tri_session_next_held(&pair->b.session, TRI_LANE_DATA));
    pair->now_ns += 1 * MS;
    send_ack(pair, &pair->b, &pair->a);
    pair->now_ns += 20 * MS;
    assert_int_equal(send_ack(pair, &pair->a, &pair->b).probe, 1);
    assert_int_equal(send_ack(pair, &pair->b, &pair->a).echo, 1);
    assert_int_equal(send_stored(pair, &pair->a, &frame)->number, 2);
    deliver(pair, &pair->b, &frame);
}

/* A lost last frame is found by a probe, after growing pauses; a probe keeps
 * its number until it is answered. */
static void test_probe(void **state)
{
    static const uint64_t pauses_ms[] = { 20,  40,  80,   160, 320,
                                          640, 1000, 1000 };
    struct pair *pair = *state;
    struct tri_frame frame, answer;

    store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    send_stored(pair, &pair->a, &frame);
    for (unsigned i = 0; i < tri_array_len(pauses_ms); i++) {
        uint64_t due_ns = pair->now_ns + pauses_ms[i] * MS;

        assert_int_equal(tri_session_due_ns(&pair->a.session), due_ns);
        pair->now_ns = due_ns - 1;
        assert_quiet(pair, &pair->a);
        pair->now_ns = due_ns;
        assert_true(send_next(pair, &pair->a, &frame).is_probe);
        assert_int_equal(frame.ack_lane, TRI_LANE_DATA);
        assert_int_equal(frame.probe, 1);
        assert_int_equal(frame.number, i + 1);
        assert_quiet(pair, &pair->a);
    }
    assert_int_equal(receive(pair, &pair->b, &frame), TRI_SESSION_NOTHING);
    answer = send_ack(pair, &pair->b, &pair->a);
    assert_int_equal(answer.echo, 1);
    assert_int_equal(answer.ack_lane, TRI_LANE_DATA);
    assert_quiet(pair, &pair->b);
    /* A replay of the probe is not answered. */
    assert_int_equal(receive(pair, &pair->b, &frame), TRI_SESSION_DROP);
    assert_quiet(pair, &pair->b);
    send_stored(pair, &pair->a, &frame);
    deliver(pair, &pair->b, &frame);
    pair->now_ns += 1 * MS;
    send_ack(pair, &pair->b, &pair->a);
    assert_rests(pair, &pair->a);
}

/* An echo tells nothing of another lane, nor of what came behind the probe. */
static void test_probe_is_exact(void **state)
{
    struct pair *pair = *state;
    struct tri_frame frame;

    store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    send_stored(pair, &pair->a, &frame);
    pair->now_ns += 10 * MS;
    store(pair, &pair->a, TRI_LANE_REPLY, BYTES);
    send_stored(pair, &pair->a, &frame);
    pair->now_ns += 10 * MS;
    send_ack(pair, &pair->a, &pair->b); /* the probe of the data lane */
    store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    send_stored(pair, &pair->a, &frame);
    send_ack(pair, &pair->b, &pair->a);
    assert_int_equal(send_stored(pair, &pair->a, &frame)->number, 1);
    assert_int_equal(frame.lane, TRI_LANE_DATA);
    assert_quiet(pair, &pair->a);
}

/* Without credit nothing is stored; what was consumed is told, and asked for
 * when that got lost. */
static void test_credit(void **state)
{
    struct pair *pair = *state;
    struct tri_session *a = &pair->a.session;
    struct tri_frame frame;

    for (unsigned i = 0; i < 4; i++) {
        store(pair, &pair->a, TRI_LANE_CONTROL, 16u << 10);
        send_stored(pair, &pair->a, &frame);
        assert_int_equal(receive(pair, &pair->b, &frame),
                         TRI_SESSION_DELIVER);
    }
    send_ack(pair, &pair->b, &pair->a);
    assert_rests(pair, &pair->a);
    assert_false(
        tri_session_may_store(a, TRI_LANE_CONTROL, BYTES, pair->now_ns));
    assert_true(tri_session_may_store(a, TRI_LANE_DATA, BYTES, pair->now_ns));
    check(&pair->a);
    consume(pair, &pair->b, TRI_LANE_CONTROL, 64u << 10);
    send_next(pair, &pair->b, &frame); /* the news are lost */
    assert_rests(pair, &pair->b);
    pair->now_ns = tri_session_due_ns(a);
    send_ack(pair, &pair->a, &pair->b);
    send_ack(pair, &pair->b, &pair->a);
    assert_rests(pair, &pair->a);
    store(pair, &pair->a, TRI_LANE_CONTROL, 16u << 10);
}

/* A peer that ignores credit and window is not taken from. */
static void test_greedy_peer(void **state)
{
    struct pair *pair = *state;
    struct tri_frame frame = { .kind = TRI_FRAME_DATA,
                               .lane = TRI_LANE_CONTROL,
                               .bytes = 16u << 10 };

    for (frame.number = 1; frame.number <= 4; frame.number++)
        assert_int_equal(receive(pair, &pair->b, &frame),
                         TRI_SESSION_DELIVER);
    assert_int_equal(receive(pair, &pair->b, &frame), TRI_SESSION_DROP);
    frame.lane = TRI_LANE_DATA;
    frame.number = 1 + TRI_SESSION_FRAMES_MAX;
    assert_int_equal(receive(pair, &pair->b, &frame), TRI_SESSION_DROP);
    frame.number = TRI_SESSION_FRAMES_MAX;
    assert_int_equal(receive(pair, &pair->b, &frame), TRI_SESSION_HOLD);
}

/* The store takes 64 frames, those that the carrier still has included. */
static void test_store_full(void **state)
{
    struct pair *pair = *state;
    struct tri_session *a = &pair->a.session;
    struct tri_session_out out = { .what = TRI_SESSION_SEND_NOTHING };
    struct tri_frame frame;

    for (unsigned i = 0; i < TRI_SESSION_FRAMES_MAX; i++)
        store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    assert_false(
        tri_session_may_store(a, TRI_LANE_DATA, BYTES, pair->now_ns));
    for (unsigned i = 0; i < TRI_SESSION_FRAMES_MAX; i++) {
        out = send_next(pair, &pair->a, &frame);
        deliver(pair, &pair->b, &frame);
    }
    send_ack(pair, &pair->b, &pair->a);
    assert_true(tri_session_is_clear(a));
    assert_int_equal(pair->a.freed_len, 0);
    assert_false(
        tri_session_may_store(a, TRI_LANE_DATA, BYTES, pair->now_ns));
    give_back(pair, &pair->a, out.stored, true, true);
    assert_true(tri_session_may_store(a, TRI_LANE_DATA, BYTES, pair->now_ns));
}

/* What is lost and still with the carrier waits for it. */
static void test_in_flight(void **state)
{
    struct pair *pair = *state;
    struct tri_frame frame;
    struct tri_session_out out;

    store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    out = send_next(pair, &pair->a, &frame);
    tri_session_broke(&pair->a.session, pair->now_ns);
    check(&pair->a);
    assert_quiet(pair, &pair->a);
    give_back(pair, &pair->a, out.stored, false, false);
    send_next(pair, &pair->a, &frame);
    deliver(pair, &pair->b, &frame);
    pair->now_ns += 1 * MS;
    send_ack(pair, &pair->b, &pair->a);
    give_back(pair, &pair->a, out.stored, true, true);
}

/* A line that fails again and again is tried with growing pauses, and at once
 * when something was heard. */
static void test_failing_line(void **state)
{
    static const uint64_t pauses_ms[] = { 0, 20, 40, 80, 160, 320, 640, 1000,
                                          1000 };
    struct pair *pair = *state;
    struct tri_session *a = &pair->a.session;
    struct tri_frame frame = { .kind = TRI_FRAME_ACK, .number = 1 };
    struct tri_stored *stored = store(pair, &pair->a, TRI_LANE_DATA, BYTES);

    for (unsigned i = 0; i < tri_array_len(pauses_ms); i++) {
        uint64_t from_ns = pair->now_ns;
        struct tri_session_out out;

        for (;;) {
            struct tri_frame sent;

            out = send_next(pair, &pair->a, &sent);
            if (out.what == TRI_SESSION_SEND_STORED)
                break;
            if (out.what == TRI_SESSION_SEND_NOTHING)
                pair->now_ns = tri_session_due_ns(a);
        }
        if (i > 0)
            assert_int_equal(pair->now_ns - from_ns, pauses_ms[i - 1] * MS);
        give_back(pair, &pair->a, stored, false, false);
        tri_session_broke(a, pair->now_ns); /* the same failure */
    }
    assert_quiet(pair, &pair->a);
    receive(pair, &pair->a, &frame);
    assert_int_equal(send_next(pair, &pair->a, &frame).what,
                     TRI_SESSION_SEND_STORED);
}

/* Old, impossible and repeated news change nothing. */
static void test_bad_acks(void **state)
{
    struct pair *pair = *state;
    struct tri_session *a = &pair->a.session;
    struct tri_frame frame = { .kind = TRI_FRAME_ACK, .number = 10,
                               .ack_lane = TRI_LANE_DATA };

    for (unsigned i = 0; i < 3; i++)
        store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    for (unsigned i = 0; i < 2; i++) {
        struct tri_frame sent;

        send_stored(pair, &pair->a, &sent);
    }
    frame.ack = 3; /* never sent */
    receive(pair, &pair->a, &frame);
    frame.number++;
    frame.ack = 1;
    frame.sack = 1; /* names the 3rd */
    receive(pair, &pair->a, &frame);
    frame.number++;
    frame.ack = frame.sack = UINT64_MAX;
    receive(pair, &pair->a, &frame);
    assert_int_equal(pair->a.freed_len, 0);
    frame.number++;
    frame.sack = 0;
    frame.ack = 2;
    frame.credit = UINT64_MAX;
    receive(pair, &pair->a, &frame);
    assert_int_equal(pair->a.freed_len, 2);
    assert_int_equal(a->tx[TRI_LANE_DATA].credit, (1u << 20) + 3 * BYTES);
    frame.number = 9; /* late */
    frame.ack = 1;
    frame.credit = 5;
    receive(pair, &pair->a, &frame);
    assert_int_equal(a->tx[TRI_LANE_DATA].acked, 2);
    assert_int_equal(a->tx[TRI_LANE_DATA].credit, (1u << 20) + 3 * BYTES);
    assert_int_equal(receive(pair, &pair->a, &frame), TRI_SESSION_DROP);
    frame.number = 1000;
    assert_int_equal(receive(pair, &pair->a, &frame), TRI_SESSION_NOTHING);
    frame.number = 1000 - 64;
    assert_int_equal(receive(pair, &pair->a, &frame), TRI_SESSION_DROP);
    frame.number = 1000 - 63;
    assert_int_equal(receive(pair, &pair->a, &frame), TRI_SESSION_NOTHING);
    assert_int_equal(receive(pair, &pair->a, &frame), TRI_SESSION_DROP);
}

/* The end hands out each frame once, by lane. */
static void test_end(void **state)
{
    struct pair *pair = *state;
    struct tri_stored_list rest;
    struct tri_stored *stored, *flying;
    struct tri_frame frame;
    struct tri_held held = { .number = 2, .bytes = BYTES };
    unsigned n = 0;

    store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    flying = send_next(pair, &pair->a, &frame).stored;
    frame.number = 2;
    assert_int_equal(receive(pair, &pair->a, &frame), TRI_SESSION_HOLD);
    tri_session_hold(&pair->a.session, TRI_LANE_DATA, &held);
    store(pair, &pair->a, TRI_LANE_DATA, BYTES);
    store(pair, &pair->a, TRI_LANE_CONTROL, BYTES);
    tri_session_end(&pair->a.session, &rest);
    check(&pair->a);
    STAILQ_FOREACH(stored, &rest, next) {
        assert_int_equal(stored->lane, n == 0 ? TRI_LANE_CONTROL
                                              : TRI_LANE_DATA);
        assert_int_equal(stored->in_flight, stored == flying);
        n++;
    }
    assert_int_equal(n, 3);
    assert_rests(pair, &pair->a);
    give_back(pair, &pair->a, flying, false, true);
    assert_ptr_equal(tri_session_take_held(&pair->a.session), &held);
    assert_null(tri_session_take_held(&pair->a.session));
    check(&pair->a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one),
        TEST(test_piggyback),
        TEST(test_thresholds),
        TEST(test_priority),
        TEST(test_gap),
        TEST(test_lanes_apart),
        TEST(test_order_of_hand_over),
        TEST(test_no_memory),
        TEST(test_probe),
        TEST(test_probe_is_exact),
        TEST(test_credit),
        TEST(test_greedy_peer),
        TEST(test_store_full),
        TEST(test_in_flight),
        TEST(test_failing_line),
        TEST(test_bad_acks),
        TEST(test_end),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
