/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Flow control between two nodes, simulated: two links of this process, a
 * transport of the test's own with small lanes that keeps what a link does not
 * take, actors with small mailboxes that handle a message now and then, and
 * senders that never wait. Random schedules, from seeds that replay: all
 * messages arrive, once, in order, within the bounds, and nothing is left
 * waiting for anything.
 */
#include "unit.h"

#include "link/link.h"
#include "message/pool.h"

enum {
#if defined(TRI_SANITIZE_ADDRESS) || defined(TRI_SANITIZE_THREAD)
    SEEDS = 10, /* each takes ten times as long */
#else
    SEEDS = 50,
#endif
    ACTORS = 6,     /* receivers on each node, and senders */
    MESSAGES = 120, /* from each sender to each receiver of the other node */
    RECORD_BYTES = 256,
    LANE_FRAMES = 16,
    PARKED_BYTES = 3000,
    OUTBOX_BYTES = 4000,
    BYTES_MAX = 1500,
    STEPS_MAX = 5000000,
};

struct frame {
    struct tri_record record;
    char payload[RECORD_BYTES];
};

struct lane {
    struct frame frames[LANE_FRAMES];
    uint32_t head, tail;
    bool starved; /* its sender waits for room */
    bool kept;    /* the link did not take the first one */
};

struct actor {
    struct tri_message *first, *last;
    uint32_t len, limit;
    uint32_t pace; /* one in so many chances is taken */
    bool awaited;
    bool ended;
    uint32_t next[ACTORS]; /* by sender */
};

struct node {
    struct tri_transport transport; /* first */
    struct tri_channel channel;
    struct tri_transport_events events;
    struct lane lanes[TRI_LANES]; /* what the other side has sent to us */
    struct frame staged;
    enum tri_lane staged_lane;
    void *context; /* for `writable` */
    struct tri_link link;
    struct tri_peer *peer;
    struct node *other;
    struct actor actors[ACTORS];
    uint32_t sent[ACTORS][ACTORS]; /* by sender, receiver */
    uint32_t handled, refused, full;
    uint32_t rooms, stops_seen, kept_seen;
    size_t parked_most;
};

static struct node nodes[2];

/* --- the transport -------------------------------------------------------- */

static struct node *node_of(struct tri_channel *channel)
{
    return tri_container_of(channel, struct node, channel);
}

static void net_close(struct tri_transport *transport)
{
    (void)transport;
}

static int net_connect(struct tri_transport *transport, uint64_t id,
                       const struct tri_address *address, void *peer,
                       struct tri_channel **channel_p)
{
    struct node *node = (struct node *)transport;

    (void)id, (void)address;
    node->channel.transport = transport;
    node->context = peer;
    *channel_p = &node->channel;
    return 0;
}

static void net_disconnect(struct tri_channel *channel)
{
    (void)channel;
}

static int net_reserve(struct tri_channel *channel, enum tri_lane lane,
                       size_t bytes, struct tri_span *span_p)
{
    struct node *node = node_of(channel);
    struct lane *to = &node->other->lanes[lane];

    assert_true(bytes <= RECORD_BYTES);
    if (to->tail - to->head >= LANE_FRAMES) {
        to->starved = true;
        return TROUPE_EFULL;
    }
    node->staged_lane = lane;
    span_p->record = &node->staged.record;
    span_p->payload = node->staged.payload;
    return 0;
}

static void net_commit(struct tri_channel *channel)
{
    struct node *node = node_of(channel);
    struct lane *to = &node->other->lanes[node->staged_lane];

    to->frames[to->tail++ % LANE_FRAMES] = node->staged;
}

static unsigned deliver(struct node *node, enum tri_lane i, unsigned budget)
{
    struct lane *lane = &node->lanes[i];
    unsigned n = 0;

    for (; n < budget && lane->head != lane->tail; n++) {
        struct frame *frame = &lane->frames[lane->head % LANE_FRAMES];

        lane->kept = !node->events.record(node->events.context, node->peer, i,
                                          &frame->record, frame->payload);
        if (lane->kept) {
            assert_int_equal(i, TRI_LANE_DATA);
            node->kept_seen++;
            break;
        }
        lane->head++;
    }
    if (lane->starved && n > 0) {
        lane->starved = false;
        node->other->events.writable(node->other->events.context,
                                     node->other->context);
    }
    return n;
}

static unsigned net_poll(struct tri_transport *transport, unsigned budget)
{
    struct node *node = (struct node *)transport;
    unsigned n = 0;

    for (enum tri_lane lane = 0; lane < TRI_LANES; lane++)
        if (!node->lanes[lane].kept)
            n += deliver(node, lane, budget);
    return n;
}

static void net_resume(struct tri_transport *transport, void *peer)
{
    struct node *node = (struct node *)transport;

    assert_ptr_equal(peer, node->peer);
    assert_true(node->lanes[TRI_LANE_DATA].kept);
    deliver(node, TRI_LANE_DATA, LANE_FRAMES);
}

static bool net_pending(struct tri_transport *transport)
{
    (void)transport;
    return false;
}

static const struct tri_transport_ops net_ops = {
    .name = "net",
    .close = net_close,
    .connect = net_connect,
    .disconnect = net_disconnect,
    .reserve = net_reserve,
    .commit = net_commit,
    .poll = net_poll,
    .pending = net_pending,
    .resume = net_resume,
};

/* --- actors: slot is index + 1; `index` is the sender, `type` the number -- */

static bool push(struct node *node, struct tri_message *message)
{
    struct actor *actor = &node->actors[message->slot - 1];

    if (actor->ended) {
        node->refused++;
        tri_message_free(message);
        return true;
    }
    if (actor->len >= actor->limit) {
        actor->awaited = true;
        return false;
    }
    message->next = NULL;
    if (actor->first == NULL)
        actor->first = message;
    else
        actor->last->next = message;
    actor->last = message;
    actor->len++;
    return true;
}

static void arrive(struct node *node, struct tri_message *message)
{
    if (tri_link_has_parked(node->peer, message->slot, 1) ||
        !push(node, message))
        assert_int_equal(tri_flow_park(node->peer, message), 0);
    node->parked_most = tri_max(node->parked_most, node->peer->parking.bytes);
}

static void handle_one(struct node *node, struct actor *actor)
{
    struct tri_message *message = actor->first;

    if (message == NULL)
        return;
    assert_int_equal(message->type, actor->next[message->index]);
    actor->next[message->index]++;
    for (uint32_t i = 0; i < message->bytes; i++)
        assert_int_equal((unsigned char)message->payload[i],
                         (unsigned char)(message->type + i));
    actor->first = message->next;
    actor->len--;
    node->handled++;
    tri_message_free(message);
    if (actor->awaited && actor->len <= actor->limit / 2) {
        actor->awaited = false;
        tri_link_kick_flow(&node->link);
    }
}

static void end_actor(struct node *node, struct actor *actor)
{
    while (actor->first != NULL) {
        struct tri_message *message = actor->first;

        actor->first = message->next;
        tri_message_free(message);
        node->refused++;
    }
    actor->ended = true;
    if (actor->awaited)
        tri_link_kick_flow(&node->link);
    actor->awaited = false;
}

/* --- what the links raise ------------------------------------------------- */

static void on_record(void *context, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload)
{
    struct tri_message *message = tri_message_of_record(record);

    (void)peer;
    assert_non_null(message);
    memcpy(message->payload, payload, record->bytes);
    arrive(context, message);
}

static void on_message(void *context, struct tri_peer *peer,
                       struct tri_message *message)
{
    (void)peer;
    arrive(context, message);
}

static bool on_unpark(void *context, struct tri_peer *peer,
                      struct tri_message *message)
{
    (void)peer;
    return push(context, message);
}

static void on_room(void *context)
{
    ((struct node *)context)->rooms++;
}

static void on_refused(void *context, struct tri_peer *peer,
                       const struct tri_record *record, int reason)
{
    (void)context, (void)peer, (void)record, (void)reason;
    fail();
}

static void on_undelivered(void *context, struct tri_peer *peer,
                           struct tri_message *message, int reason)
{
    (void)context, (void)peer, (void)reason;
    tri_message_free(message);
}

static void on_lost(void *context, struct tri_peer *peer,
                    const struct tri_record *record, int reason)
{
    (void)context, (void)peer, (void)record, (void)reason;
}

static void on_died(void *context, struct tri_peer *peer)
{
    (void)context, (void)peer;
}

/* --- two nodes ------------------------------------------------------------ */

static void open_node(int i)
{
    struct node *node = &nodes[i];
    static const struct tri_address address;
    struct tri_link_config config = {
        .node = 100 + (uint64_t)i,
        .peers_len = 2,
        .outbox_bytes_max = OUTBOX_BYTES,
        .parked_bytes_max = PARKED_BYTES,
        .message_bytes_max = BYTES_MAX,
        .events = { node, on_record, on_message, on_unpark, on_room,
                    on_refused, on_undelivered, on_lost, on_died,
                    NULL, NULL, NULL },
    };

    *node = (struct node){ .other = &nodes[1 - i] };
    assert_int_equal(tri_link_init(&node->link, &config), 0);
    node->transport.ops = &net_ops;
    node->transport.record_bytes_max = RECORD_BYTES;
    node->events = tri_link_transport_events(&node->link);
    tri_link_add_transport(&node->link, &node->transport);
    tri_link_set_peer(&node->link, 1 - i, 101 - (uint64_t)i, &node->transport,
                      &address);
    node->peer = &node->link.peers[1 - i];
    for (int a = 0; a < ACTORS; a++)
        node->actors[a] = (struct actor){ .limit = 8, .pace = 1 };
}

static void open_pair(void)
{
    open_node(0);
    open_node(1);
}

static void close_pair(void)
{
    for (int i = 0; i < 2; i++) {
        tri_link_fini(&nodes[i].link);
        for (size_t j = 0; j < tri_array_len(nodes[i].actors); j++)
            end_actor(&nodes[i], &nodes[i].actors[j]);
    }
}

static int tell(struct node *node, uint32_t sender, uint32_t to,
                uint32_t bytes)
{
    struct tri_record record = {
        .kind = TRI_TELL,
        .index = (uint16_t)sender,
        .type = node->sent[sender][to],
        .total_bytes = bytes,
        .slot = to + 1,
        .generation = 1,
        .sender_node = node->link.config.node,
    };
    char payload[BYTES_MAX];
    int rc;

    for (uint32_t i = 0; i < bytes; i++)
        payload[i] = (char)(record.type + i);
    rc = tri_link_is_stopped(node->peer, to + 1, 1)
             ? TROUPE_EFULL
             : tri_link_send(node->peer, &record, payload,
                             TRI_SEND_BOUNDED);
    if (rc == 0)
        node->sent[sender][to]++;
    else
        node->full++;
    return rc;
}

/* Until nothing comes any more; a poll may send something itself. */
static void poll_both(void)
{
    for (int quiet = 0; quiet < 3; quiet++)
        if (tri_link_poll(&nodes[0].link, 64) +
                tri_link_poll(&nodes[1].link, 64) >
            0)
            quiet = 0;
}

/* --- one after the other -------------------------------------------------- */

static void test_stop_and_go(void **state)
{
    struct node *from = &nodes[0], *to = &nodes[1];
    struct actor *actor = &to->actors[0];

    (void)state;
    open_pair();
    for (int i = 0; i < 8; i++)
        assert_int_equal(tell(from, 0, 0, 10), 0);
    poll_both();
    assert_int_equal(to->peer->parked_len, 0);
    assert_int_equal(tell(from, 0, 0, 10), 0);
    assert_int_equal(tell(from, 1, 0, 700), 0); /* behind it, in pieces */
    poll_both();
    assert_int_equal(to->peer->parked_len, 2);
    assert_int_equal(from->peer->stopped_len, 1);
    assert_true(tri_link_census(&to->link).waiting);
    assert_int_equal(tell(from, 0, 0, 10), TROUPE_EFULL);
    assert_int_equal(tell(from, 0, 1, 10), 0); /* others are not stopped */
    for (int i = 0; i < 3; i++)
        handle_one(to, actor);
    poll_both();
    assert_int_equal(to->peer->parked_len, 2); /* not for each message */
    handle_one(to, actor);
    poll_both();
    assert_int_equal(to->peer->parked_len, 0);
    assert_int_equal(actor->len, 6);
    assert_int_equal(from->peer->stopped_len, 0);
    assert_int_equal(from->rooms, 1);
    assert_int_equal(tell(from, 0, 0, 10), 0);
    poll_both();
    while (actor->len > 0)
        handle_one(to, actor);
    assert_int_equal(to->handled, 11);
    close_pair();
}

/* Beyond the bound nothing is taken but control and replies; then all is. */
static void test_bound(void **state)
{
    struct node *from = &nodes[0], *to = &nodes[1];
    uint32_t sent = 0;

    (void)state;
    open_pair();
    to->actors[0].limit = 1;
    while (tell(from, 0, 0, 200) == 0)
        sent++; /* nobody polls: lane and outbox fill up */
    poll_both();
    assert_true(to->peer->parking_full);
    assert_true(to->lanes[TRI_LANE_DATA].kept);
    assert_true(to->parked_most >= PARKED_BYTES);
    assert_true(to->parked_most <= PARKED_BYTES + 1000);
    /* the other direction lives */
    assert_int_equal(tell(to, 0, 3, 100), 0);
    poll_both();
    assert_int_equal(from->actors[3].len, 1);
    for (uint32_t i = 0; i < sent; i++) {
        assert_int_equal(to->actors[0].len, 1);
        handle_one(to, &to->actors[0]);
        poll_both();
    }
    assert_int_equal(to->handled, sent);
    assert_false(to->peer->parking_full);
    assert_int_equal(to->peer->parking.bytes, 0);
    assert_int_equal(from->peer->stopped_len, 0);
    assert_true(from->rooms > 0);
    close_pair();
}

/* An actor that ends takes what is parked for it along. */
static void test_end(void **state)
{
    struct node *from = &nodes[0], *to = &nodes[1];

    (void)state;
    open_pair();
    for (int i = 0; i < 12; i++)
        assert_int_equal(tell(from, 0, 0, 10), 0);
    poll_both();
    assert_int_equal(to->peer->parked_len, 4);
    end_actor(to, &to->actors[0]);
    poll_both();
    assert_int_equal(to->refused, 12);
    assert_int_equal(from->peer->stopped_len, 0);
    close_pair();
}

static uint32_t orphans;

static void on_orphaned(void *context, struct tri_message *message)
{
    assert_ptr_equal(context, &nodes[1]);
    tri_message_free(message);
    orphans++;
}

/* What is parked when its sender is buried is the callee's, that news of our own
 * among it are not lost. */
static void test_orphans(void **state)
{
    struct node *from = &nodes[0], *to = &nodes[1];

    (void)state;
    open_pair();
    to->link.config.events.orphaned = on_orphaned;
    for (int i = 0; i < 12; i++)
        assert_int_equal(tell(from, 0, 0, 10), 0);
    poll_both();
    assert_int_equal(to->peer->parked_len, 4);
    tri_flow_orphan_parked(to->peer);
    assert_int_equal(orphans, 4);
    assert_int_equal(to->peer->parked_len, 0);
    to->link.config.events.orphaned = NULL;
    close_pair();
}

/* More stopped actors than the set holds: they are not stopped, that is all;
 * and a GO for one that is not there is nothing. */
static void test_stopped_set(void **state)
{
    struct tri_peer *peer;
    struct tri_record record = { .generation = 3 };
    uint32_t stopped = 0;

    (void)state;
    open_pair();
    peer = nodes[0].peer;
    for (record.slot = 0; record.slot <= 2 * TRI_STOPPED_LEN; record.slot++) {
        record.kind = TRI_MAILBOX_GO;
        tri_flow_on_mailbox(peer, &record);
        record.kind = TRI_MAILBOX_STOP;
        tri_flow_on_mailbox(peer, &record);
        tri_flow_on_mailbox(peer, &record);
        stopped += tri_link_is_stopped(peer, record.slot, 3);
        assert_false(tri_link_is_stopped(peer, record.slot, 5));
    }
    assert_int_equal(peer->stopped_len, stopped);
    assert_true(stopped > TRI_STOPPED_LEN / 2 && stopped <= TRI_STOPPED_LEN);
    record.kind = TRI_MAILBOX_GO;
    for (record.slot = 0; record.slot <= 2 * TRI_STOPPED_LEN; record.slot++)
        tri_flow_on_mailbox(peer, &record);
    assert_int_equal(peer->stopped_len, 0);
    assert_int_equal(nodes[0].rooms, stopped);
    record = (struct tri_record){ .kind = TRI_MAILBOX_STOP, .slot = 9,
                                  .generation = 1 };
    tri_flow_on_mailbox(peer, &record);
    assert_true(tri_link_is_stopped(peer, 9, 1));
    tri_link_kill(peer); /* then it is dead, and not full */
    assert_false(tri_link_is_stopped(peer, 9, 1));
    close_pair();
}

/* --- random schedules ----------------------------------------------------- */

static uint32_t random_bytes(struct tri_random *random)
{
    return tri_random_below(random, 20) == 0
               ? tri_random_below(random, BYTES_MAX)
               : tri_random_below(random, 120);
}

static void step(struct tri_random *random)
{
    struct node *node = &nodes[tri_random_below(random, 2)];
    uint32_t a = tri_random_below(random, ACTORS);
    uint32_t b = tri_random_below(random, ACTORS);

    switch (tri_random_below(random, 4)) {
    case 0:
        tri_link_poll(&node->link, 1 + tri_random_below(random, 8));
        break;
    case 1:
        if (tri_random_below(random, node->actors[a].pace) == 0)
            handle_one(node, &node->actors[a]);
        break;
    default: /* bursts: as a handler that does not look up */
        for (uint32_t n = tri_random_below(random, 30);
             n > 0 && node->sent[a][b] < MESSAGES; n--)
            if (tell(node, a, b, random_bytes(random)) != 0)
                break;
    }
    for (int i = 0; i < 2; i++)
        assert_true(nodes[i].peer->parking.bytes <=
                    PARKED_BYTES + BYTES_MAX + 2 * 128);
}

static bool is_over(void)
{
    uint32_t all = ACTORS * ACTORS * MESSAGES;

    return nodes[0].handled + nodes[0].refused == all &&
           nodes[1].handled + nodes[1].refused == all;
}

static void run_seed(uint64_t seed)
{
    struct tri_random random;
    uint32_t steps = 0;

    tri_random_init(&random, seed);
    open_pair();
    for (int i = 0; i < 2; i++)
        for (int a = 0; a < ACTORS; a++) {
            nodes[i].actors[a].limit = 1 + tri_random_below(&random, 20);
            nodes[i].actors[a].pace = 1 + tri_random_below(&random, 30);
        }
    while (!is_over()) {
        step(&random);
        if (++steps % 1000 == 0 && tri_random_below(&random, 40) == 0)
            end_actor(&nodes[0], &nodes[0].actors[0]);
        if (steps > STEPS_MAX)
            fail_msg("seed %llu: stuck", (unsigned long long)seed);
    }
    poll_both();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(nodes[i].peer->parked_len, 0);
        assert_int_equal(nodes[i].peer->parking.bytes, 0);
        assert_int_equal(nodes[i].peer->stopped_len, 0);
        assert_false(nodes[i].peer->parking_full);
        assert_int_equal(tri_refusals_total(&nodes[i].link.refusals), 0);
        assert_false(tri_link_census(&nodes[i].link).waiting);
    }
}

static void test_schedules(void **state)
{
    uint64_t seed = unit_seed("flow");
    uint32_t kept = 0, full = 0;

    (void)state;
    for (uint64_t i = 0; i < SEEDS; i++) {
        run_seed(seed + i);
        kept += nodes[0].kept_seen + nodes[1].kept_seen;
        full += nodes[0].full + nodes[1].full;
        close_pair();
    }
    printf("flow: %u times not taken, %u sends refused\n", kept, full);
    assert_true(kept > 0 && full > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_and_go),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_orphans),
        cmocka_unit_test(test_stopped_set),
        cmocka_unit_test(test_schedules),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
