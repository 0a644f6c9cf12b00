/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Large messages that the receiver reads from the sender's memory: two links
 * in this process, each with a ring transport, polled by hand. What the
 * transport's pull says is the test's to decide.
 */

#include "unit.h"

#include "link/link.h"
#include "message/pool.h"
#include "os/bell.h"

enum {
    LARGE = 3 << 20,
    PART_MAX = 1 << 20, /* read in one poll */
    OUTBOX = 16 << 20,
    POLLS_MAX = 200000,
};

struct side {
    struct tri_bell bell;
    struct tri_link link;
    struct tri_transport *ring;
    struct tri_transport_ops ops; /* the ring's, with our own pull */
    struct tri_transport *real;
    struct tri_peer *peer; /* the other side */
    uint32_t expected;     /* number of the next message to arrive */
    uint32_t arrived;
    uint32_t refused, undelivered, died;
    int reason; /* of the last refused or undelivered one */
    /* pull */
    uint32_t parts;      /* read so far */
    uint32_t parts_poll; /* in this poll */
    uint32_t fail_at;    /* part that fails, counted from 1 */
    int failure;
    void (*before)(struct side *side); /* runs before part `before_at` */
    uint32_t before_at;
    struct side *other;
};

static struct side sides[2];

/* --- what the links raise ------------------------------------------------- */

/* The type is the message's number; its payload follows from it. */
static void fill(unsigned char *bytes, size_t len, uint32_t number)
{
    uint64_t x = tri_mix64(number + 1);

    for (size_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)(x >> i % 57) ^ (unsigned char)(i >> 12);
}

static void check(struct side *side, uint32_t number,
                  const unsigned char *bytes, size_t len)
{
    static unsigned char wanted[LARGE];

    assert_int_equal(number, side->expected);
    assert_true(len <= LARGE);
    fill(wanted, len, number);
    assert_memory_equal(bytes, wanted, len);
    side->expected++;
    side->arrived++;
}

static void on_record(void *context, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload)
{
    assert_ptr_equal(peer, ((struct side *)context)->peer);
    check(context, record->type, payload, record->bytes);
}

static void on_message(void *context, struct tri_peer *peer,
                       struct tri_message *message)
{
    assert_ptr_equal(peer, ((struct side *)context)->peer);
    assert_int_equal(message->kind, TRI_TELL);
    check(context, message->type, (unsigned char *)message->payload,
          message->bytes);
    tri_message_free(message);
}

static bool on_unpark(void *context, struct tri_peer *peer,
                      struct tri_message *message)
{
    (void)context, (void)peer;
    tri_message_free(message);
    return true;
}

static void on_room(void *context)
{
    (void)context;
}

static void on_refused(void *context, struct tri_peer *peer,
                       const struct tri_record *record, int reason)
{
    struct side *side = context;

    (void)peer;
    assert_int_equal(record->kind, TRI_TELL);
    assert_int_equal(record->type, side->expected);
    side->expected++;
    side->refused++;
    side->reason = reason;
}

static void on_undelivered(void *context, struct tri_peer *peer,
                           struct tri_message *message, int reason)
{
    struct side *side = context;

    (void)peer;
    side->undelivered++;
    side->reason = reason;
    tri_message_free(message);
}

static uint64_t refusals(struct side *side)
{
    return tri_refusals_total(&side->link.refusals);
}

static const struct tri_message *partial_of(const struct side *side)
{
    return side->peer->arrivals[TRI_LANE_DATA].partial;
}

static void on_lost(void *context, struct tri_peer *peer,
                    const struct tri_record *record, int reason)
{
    (void)context, (void)peer, (void)record, (void)reason;
}

static void on_died(void *context, struct tri_peer *peer)
{
    (void)peer;
    ((struct side *)context)->died++;
}

static int pull(struct tri_transport *transport, uint64_t node,
                uint64_t address, void *into, size_t bytes)
{
    struct side *side = transport == sides[0].ring ? &sides[0] : &sides[1];

    if (bytes > sizeof(uint64_t)) { /* not the guard */
        side->parts++;
        side->parts_poll++;
        assert_true(bytes <= PART_MAX);
        if (side->before && side->parts == side->before_at)
            side->before(side);
        if (side->fail_at > 0 && side->parts >= side->fail_at)
            return side->failure;
    }
    return tri_transport_ring.pull(transport, node, address, into, bytes);
}

/* --- two nodes ------------------------------------------------------------ */

static void open_side(struct side *side, uint64_t node, size_t bytes_max)
{
    struct tri_link_config config = {
        .node = node,
        .peers_len = 2,
        .outbox_bytes_max = OUTBOX,
        .parked_bytes_max = OUTBOX,
        .message_bytes_max = bytes_max,
        .events = { side, on_record, on_message, on_unpark, on_room, on_refused,
                    on_undelivered, on_lost, on_died,
                    NULL, NULL, NULL },
    };
    struct tri_transport_config transport = {
        .node = node,
        .job_nonce = 1,
        .peers_max = 1,
        .bell = &side->bell,
        .cma = TRI_CMA_ON,
    };

    *side = (struct side){ .other = side == sides ? &sides[1] : &sides[0] };
    assert_int_equal(tri_bell_init(&side->bell), 0);
    assert_int_equal(tri_link_init(&side->link, &config), 0);
    transport.events = tri_link_transport_events(&side->link);
    assert_int_equal(tri_transport_ring.open(&transport, &side->ring), 0);
    tri_link_add_transport(&side->link, side->ring);
    side->ops = tri_transport_ring;
    side->ops.pull = pull;
    side->ring->ops = &side->ops;
}

static void open_pair(size_t bytes_max)
{
    static uint64_t life;
    struct tri_address address;

    for (uint64_t i = 0; i < 2; i++)
        open_side(&sides[i],
                  tri_mix64((uint64_t)getpid() << 32 | ++life), bytes_max);
    for (int i = 0; i < 2; i++) {
        struct side *other = sides[i].other;

        other->ring->ops->address(other->ring, &address);
        tri_link_set_peer(&sides[i].link, 1 - i, other->link.config.node,
                          sides[i].ring, &address);
        sides[i].peer = &sides[i].link.peers[1 - i];
    }
}

static void close_pair(void)
{
    for (int i = 0; i < 2; i++) {
        tri_link_fini(&sides[i].link);
        tri_bell_fini(&sides[i].bell);
    }
}

static void poll_side(struct side *side)
{
    side->parts_poll = 0;
    side->ops.control(side->ring);
    tri_link_poll(&side->link, 256);
    /* One part a poll and peer; the rest waits for the next one. */
    assert_true(side->parts_poll <= 1);
}

static int send(struct side *side, uint32_t number, size_t bytes)
{
    struct tri_record record = {
        .kind = TRI_TELL,
        .slot = 1,
        .type = number,
        .total_bytes = (uint32_t)bytes,
    };
    struct tri_message *message = tri_message_of_record(&record);
    int rc;

    assert_non_null(message);
    fill((unsigned char *)message->payload, bytes, number);
    rc = tri_link_send_message(side->peer, message, TRI_SEND_BOUNDED);
    if (rc != 0)
        tri_message_free(message);
    return rc;
}

/* Polls both sides until they have seen so many messages. */
static void poll_until(uint32_t seen_0, uint32_t seen_1)
{
    for (int i = 0; i < POLLS_MAX; i++) {
        poll_side(&sides[0]);
        poll_side(&sides[1]);
        if (sides[0].expected == seen_0 && sides[1].expected == seen_1 &&
            !tri_link_census(&sides[0].link).waiting &&
            !tri_link_census(&sides[1].link).waiting)
            return;
    }
    fail_msg("saw %u and %u messages, not %u and %u", sides[0].expected,
             sides[1].expected, seen_0, seen_1);
}

static void check_census(void)
{
    struct tri_link_census a = tri_link_census(&sides[0].link);
    struct tri_link_census b = tri_link_census(&sides[1].link);

    assert_int_equal(a.sent, b.received);
    assert_int_equal(b.sent, a.received);
    assert_int_equal(refusals(&sides[0]) + refusals(&sides[1]), 0);
}

static size_t random_size(struct tri_random *random)
{
    static const size_t sizes[] = { 0,     8,     2000,       32768,
                                    32769, 65535, 65536,      65537,
                                    1 << 20, (1 << 20) + 1, LARGE };

    return sizes[tri_random_below(random, tri_array_len(sizes))];
}

/* Both send to each other, as fast as the outboxes allow. */
static void exchange(struct tri_random *random, uint32_t messages)
{
    uint32_t sent[2] = { sides[1].expected, sides[0].expected };
    uint32_t until[2] = { sent[0] + messages, sent[1] + messages };

    for (int turn = 0; sent[0] < until[0] || sent[1] < until[1]; turn++) {
        int i = turn % 2;

        if (sent[i] < until[i] &&
            send(&sides[i], sent[i], random_size(random)) == 0)
            sent[i]++;
        if (tri_random_next(random) % 2)
            poll_side(&sides[tri_random_next(random) % 2]);
    }
    poll_until(until[1], until[0]);
    check_census();
}

/* --- tests ---------------------------------------------------------------- */

static void test_order_and_content(void **state)
{
    struct tri_random random;

    (void)state;
    tri_random_init(&random, unit_seed("order_and_content"));
    open_pair(LARGE);
    exchange(&random, 200);
    assert_true(sides[0].parts > 0 && sides[1].parts > 0);
    close_pair();
}

/* The receiver may not read: from then on in pieces, nothing lost, doubled or
 * out of order, wherever in the message it happens. */
static void test_refusal(void **state)
{
    struct tri_random random;

    (void)state;
    tri_random_init(&random, unit_seed("refusal"));
    for (uint32_t at = 1; at < 12; at += 2) {
        open_pair(LARGE);
        for (int i = 0; i < 2; i++) {
            sides[i].fail_at = at;
            sides[i].failure = TROUPE_ETRANSPORT;
        }
        exchange(&random, 60);
        /* Asked once, and never again. */
        assert_int_equal(sides[0].parts, at);
        assert_int_equal(sides[1].parts, at);
        close_pair();
    }
}

static void test_too_big_is_refused(void **state)
{
    (void)state;
    open_pair(LARGE / 2);
    assert_int_equal(send(&sides[0], 0, LARGE), 0);
    assert_int_equal(send(&sides[0], 1, LARGE / 2), 0);
    assert_int_equal(send(&sides[0], 2, 8), 0);
    poll_until(0, 3);
    assert_int_equal(sides[1].refused, 1);
    assert_int_equal(sides[1].reason, TROUPE_ETOOBIG);
    assert_int_equal(sides[1].arrived, 2);
    check_census();
    close_pair();
}

static void test_no_memory_is_refused(void **state)
{
    (void)state;
    open_pair(2 * LARGE);
    /* Of a size that no test had before, so that no block of it is kept. */
    assert_int_equal(send(&sides[0], 0, 2 * LARGE), 0);
    tri_pool_init(1);
    poll_until(0, 1);
    tri_pool_init(SIZE_MAX);
    assert_int_equal(sides[1].refused, 1);
    assert_int_equal(sides[1].reason, TROUPE_ENOMEM);
    check_census();
    close_pair();
}

/* An offered message counts until the receiver has it. */
static void test_back_pressure(void **state)
{
    uint32_t sent = 0;

    (void)state;
    open_pair(LARGE);
    while (send(&sides[0], sent, LARGE) == 0)
        sent++;
    assert_int_equal(sent, OUTBOX / (LARGE + sizeof(struct tri_message)));
    assert_true(tri_link_census(&sides[0].link).waiting);
    poll_until(0, sent);
    assert_int_equal(send(&sides[0], sent, LARGE), 0);
    poll_until(0, sent + 1);
    close_pair();
}

static void kill_at_sender(struct side *side)
{
    tri_link_kill(side->other->peer);
}

/* Declared dead while it reads: the sender is told once for each message, and
 * the receiver does not deliver what may have been overwritten. */
static void test_receiver_declared_dead(void **state)
{
    (void)state;
    for (uint32_t at = 1; at <= 3; at++) {
        open_pair(LARGE);
        sides[1].before = kill_at_sender;
        sides[1].before_at = at;
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(send(&sides[0], i, LARGE), 0);
        for (int i = 0; i < POLLS_MAX && !sides[0].died; i++)
            poll_side(&sides[1]);
        for (int i = 0; i < 100; i++) {
            poll_side(&sides[0]);
            poll_side(&sides[1]);
        }
        assert_int_equal(sides[0].died, 1);
        assert_int_equal(sides[0].undelivered, 3);
        assert_int_equal(sides[0].reason, TROUPE_ENODE);
        assert_int_equal(sides[1].arrived, 0);
        assert_int_equal(send(&sides[0], 3, LARGE), TROUPE_ENODE);
        close_pair();
    }
}

/* The sender's process ends in the middle. */
static void test_sender_gone(void **state)
{
    (void)state;
    open_pair(LARGE);
    sides[1].fail_at = 2;
    sides[1].failure = TROUPE_ENODE;
    assert_int_equal(send(&sides[0], 0, LARGE), 0);
    for (int i = 0; i < POLLS_MAX && sides[1].parts < 2; i++)
        poll_side(&sides[1]);
    assert_int_equal(sides[1].parts, 2);
    assert_null(partial_of(&sides[1]));
    for (int i = 0; i < 100; i++)
        poll_side(&sides[1]);
    assert_int_equal(sides[1].arrived + sides[1].refused, 0);
    close_pair();
}

static void lose_at_sender(struct side *side)
{
    struct side *other = side->other;

    tri_link_transport_events(&other->link)
        .lost(&other->link, side->link.config.node, TRI_EVIDENCE_STRONG);
}

/* Its fate is not known: the sender hears of it, the receiver drops it, and
 * the next ones take the new connection. */
static void test_connection_lost(void **state)
{
    (void)state;
    open_pair(LARGE);
    sides[1].before = lose_at_sender;
    sides[1].before_at = 2;
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(send(&sides[0], i, LARGE), 0);
    for (int i = 0; i < POLLS_MAX && sides[0].undelivered == 0; i++)
        poll_side(&sides[1]);
    assert_int_equal(sides[0].undelivered, 1);
    assert_int_equal(sides[0].reason, TROUPE_ETRANSPORT);
    sides[1].expected = 1;
    poll_until(0, 4);
    assert_int_equal(sides[1].arrived, 3);
    check_census();
    close_pair();
}

/* A node that ends takes its messages with it, read or not: the leak sanitizer
 * looks. */
static void test_close_in_the_middle(void **state)
{
    (void)state;
    open_pair(LARGE);
    assert_int_equal(send(&sides[0], 0, LARGE), 0);
    assert_int_equal(send(&sides[0], 1, LARGE), 0);
    for (int i = 0; i < POLLS_MAX && sides[1].parts < 1; i++)
        poll_side(&sides[1]);
    assert_int_equal(sides[1].parts, 1);
    close_pair();
}

/* A message in pieces whose sender leaves is given up, and its memory freed. */
static void test_pieces_end(void **state)
{
    (void)state;
    open_pair(LARGE);
    sides[0].peer->no_pull = true;
    assert_int_equal(send(&sides[0], 0, LARGE), 0);
    for (int i = 0; i < POLLS_MAX && partial_of(&sides[1]) == NULL; i++)
        poll_side(&sides[1]);
    assert_non_null(partial_of(&sides[1]));
    tri_link_fini(&sides[0].link);
    for (int i = 0; i < POLLS_MAX && partial_of(&sides[1]) != NULL; i++)
        poll_side(&sides[1]);
    assert_null(partial_of(&sides[1]));
    tri_link_fini(&sides[1].link);
    for (int i = 0; i < 2; i++)
        tri_bell_fini(&sides[i].bell);
}

static void offer(struct tri_pull pull, uint32_t bytes, uint32_t total_bytes)
{
    struct tri_transport_events events =
        tri_link_transport_events(&sides[1].link);
    struct tri_record record = {
        .kind = TRI_PULL,
        .bytes = bytes,
        .total_bytes = total_bytes,
    };

    assert_true(events.pull(&sides[1].link, sides[1].peer, &record, &pull));
}

static void test_malformed(void **state)
{
    static uint64_t data[16 << 10];
    const struct tri_pull good = {
        .address = (uintptr_t)data,
        .guard_address = (uintptr_t)data,
        .id = 1,
        .kind = TRI_TELL,
    };
    const struct tri_record first_piece = {
        .kind = TRI_TELL,
        .bytes = 4096,
        .total_bytes = sizeof(data),
    };
    struct tri_pull bad;

    (void)state;
    open_pair(LARGE);
    assert_int_equal(send(&sides[0], 0, 8), 0);
    assert_int_equal(send(&sides[1], 0, 8), 0);
    poll_until(1, 1);
    for (uint32_t bytes = 0; bytes < sizeof(good); bytes++)
        offer(good, bytes, sizeof(data));
    bad = good;
    bad.id = 0;
    offer(bad, sizeof(bad), sizeof(data));
    for (unsigned kind = 0; kind < 256; kind++) {
        bad = good;
        bad.kind = (uint8_t)kind;
        if (kind != TRI_TELL && kind != TRI_ASK && kind != TRI_REPLY)
            offer(bad, sizeof(bad), sizeof(data));
    }
    for (size_t i = 0; i < sizeof(bad.reserved); i++) {
        bad = good;
        bad.reserved[i] = 1;
        offer(bad, sizeof(bad), sizeof(data));
    }
    assert_int_equal(refusals(&sides[1]),
                     sizeof(good) + 1 + 253 + sizeof(bad.reserved));
    assert_int_equal(sides[1].parts, 0);
    /* Memory that is not there, and a guard of another value. */
    bad = good;
    bad.address = 16;
    offer(bad, sizeof(bad), sizeof(data));
    offer(good, sizeof(good), sizeof(data));
    assert_int_equal(sides[1].parts, 2);
    assert_int_equal(sides[1].arrived, 1);
    /* Instead of a message's next piece (found by tests/fuzz/fuzz_link). */
    tri_link_transport_events(&sides[1].link)
        .record(&sides[1].link, sides[1].peer, TRI_LANE_DATA, &first_piece,
                data);
    assert_non_null(partial_of(&sides[1]));
    offer(good, sizeof(good), sizeof(data));
    assert_null(partial_of(&sides[1]));
    poll_until(1, 1); /* an answer to nothing is nothing */
    assert_int_equal(refusals(&sides[0]), 0);
    close_pair();
}

static void test_settings(void **state)
{
    struct tri_bell bell;
    struct tri_transport_config config = {
        .node = tri_mix64((uint64_t)getpid()),
        .peers_max = 1,
        .bell = &bell,
    };
    struct tri_transport *ring;
    uint64_t word;

    (void)state;
    assert_int_equal(tri_bell_init(&bell), 0);
    for (int cma = TRI_CMA_AUTO; cma <= TRI_CMA_OFF; cma++) {
        size_t first;

        config.cma = (enum tri_cma)cma;
        assert_int_equal(tri_transport_ring.open(&config, &ring), 0);
        first = tri_transport_ring.pull_bytes_min(ring);
        assert_int_equal(tri_transport_ring.pull_bytes_min(ring), first);
        assert_true(first == 0 || first == 65536);
        if (cma != TRI_CMA_AUTO)
            assert_int_equal(first > 0, cma == TRI_CMA_ON);
        assert_int_equal(tri_transport_ring.pull(ring, 77, 0, &word, 8),
                         cma == TRI_CMA_OFF ? TROUPE_ETRANSPORT
                                            : TROUPE_ENODE);
        tri_transport_ring.close(ring);
    }
    tri_bell_fini(&bell);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_content),
        cmocka_unit_test(test_refusal),
        cmocka_unit_test(test_too_big_is_refused),
        cmocka_unit_test(test_no_memory_is_refused),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_receiver_declared_dead),
        cmocka_unit_test(test_sender_gone),
        cmocka_unit_test(test_connection_lost),
        cmocka_unit_test(test_close_in_the_middle),
        cmocka_unit_test(test_pieces_end),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_settings),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
