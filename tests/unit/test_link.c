/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The link over a transport of the test's own: what is committed to its one
 * channel comes back through poll as if the peer had sent it. It can be full,
 * gone, and slow to show what was not flushed.
 */
#include "unit.h"

#include "link/link.h"
#include "message/pool.h"

enum {
    PEER = 1,
    RECORD_BYTES = 256,
    OUTBOX_BYTES = 16384,
    PARKED_BYTES = 8192,
    MESSAGE_BYTES_MAX = 6000, /* more than a slab's block */
    SENDERS = 3,
    PER_SENDER = 15000,
    FRAMES = 64,
    SOON_MS = 20000,
    BURSTS = 20000,
    BURSTS_MS = 3000,
    MARKS_MS = 1000,
    ORDER_LEN = 31,
};

#define NODE 0x1111u
#define PEER_NODE 0x2222u

struct frame {
    struct tri_record record;
    char payload[RECORD_BYTES];
};

/* What was committed to one lane. */
struct lane {
    struct frame frames[FRAMES];
    uint32_t head, shown, tail; /* shown: what poll may deliver */
    uint32_t room;              /* frames that fit */
    bool starved;
    bool refused; /* the link took the first one not */
};

/* A transport, its only channel, and the wire between them. */
struct fake {
    struct tri_transport transport;
    struct tri_channel channel;
    struct tri_transport_events events;
    void *peer;
    struct frame staged;
    enum tri_lane staged_lane;
    pthread_mutex_t mutex;
    struct lane lanes[TRI_LANES];
    int connect_rc, reserve_rc;
    uint32_t connects, disconnects, commits;
};

struct fixture {
    struct tri_link link;
    struct fake fake;
    struct tri_peer *peer;
    /* arrived */
    uint64_t next[SENDERS + 1];
    char order[ORDER_LEN + 1]; /* senders, as digits */
    _Atomic uint64_t arrived;
    uint32_t wrong, large, refused, undelivered;
    char lost[ORDER_LEN + 1]; /* kinds, 't' and 'a', and their ask's digit */
    int reason, lost_reason;
    _Atomic uint32_t died;
};

/* --- the transport -------------------------------------------------------- */

static struct fake *fake_of(struct tri_channel *channel)
{
    return tri_container_of(channel, struct fake, channel);
}

static uint64_t refusals(struct fixture *fixture)
{
    return tri_refusals_total(&fixture->link.refusals);
}

static void fake_close(struct tri_transport *transport)
{
    (void)transport;
}

static int fake_connect(struct tri_transport *transport, uint64_t node,
                        const struct tri_address *address, void *peer,
                        struct tri_channel **channel_p)
{
    struct fake *fake = (struct fake *)transport;

    (void)address;
    assert_int_equal(node, PEER_NODE);
    fake->connects++;
    if (fake->connect_rc != 0)
        return fake->connect_rc;
    fake->peer = peer;
    fake->channel.transport = transport;
    *channel_p = &fake->channel;
    return 0;
}

static void fake_disconnect(struct tri_channel *channel)
{
    fake_of(channel)->disconnects++;
}

static int fake_reserve(struct tri_channel *channel, enum tri_lane lane,
                        size_t bytes, struct tri_span *span_p)
{
    struct fake *fake = fake_of(channel);
    struct lane *to = &fake->lanes[lane];
    int rc = fake->reserve_rc;

    if (bytes > RECORD_BYTES)
        abort();
    pthread_mutex_lock(&fake->mutex);
    if (rc == 0 && to->tail - to->head >= to->room) {
        to->starved = true;
        rc = TROUPE_EFULL;
    }
    pthread_mutex_unlock(&fake->mutex);
    fake->staged_lane = lane;
    span_p->record = &fake->staged.record;
    span_p->payload = fake->staged.payload;
    return rc;
}

static void fake_commit(struct tri_channel *channel)
{
    struct fake *fake = fake_of(channel);
    struct lane *lane = &fake->lanes[fake->staged_lane];

    pthread_mutex_lock(&fake->mutex);
    lane->frames[lane->tail++ % FRAMES] = fake->staged;
    fake->commits++;
    if (fake->transport.ops->flush == NULL)
        lane->shown = lane->tail;
    pthread_mutex_unlock(&fake->mutex);
}

static int fake_flush(struct tri_channel *channel)
{
    struct fake *fake = fake_of(channel);

    pthread_mutex_lock(&fake->mutex);
    for (int i = 0; i < TRI_LANES; i++)
        fake->lanes[i].shown = fake->lanes[i].tail;
    pthread_mutex_unlock(&fake->mutex);
    return 0;
}

/* Raises a lane's first frame. False: there is none, or it is not taken. */
static bool deliver_one(struct fake *fake, enum tri_lane i)
{
    struct lane *lane = &fake->lanes[i];
    struct frame frame;
    bool any;

    pthread_mutex_lock(&fake->mutex);
    any = lane->head != lane->shown;
    if (any)
        frame = lane->frames[lane->head % FRAMES];
    pthread_mutex_unlock(&fake->mutex);
    if (!any)
        return false;
    if (!tri_record_check(&frame.record, RECORD_BYTES))
        abort();
    lane->refused = !fake->events.record(
        fake->events.context,
        fake->events.accept(fake->events.context, PEER_NODE), i,
        &frame.record, frame.payload);
    if (lane->refused)
        return false;
    pthread_mutex_lock(&fake->mutex);
    lane->head++;
    pthread_mutex_unlock(&fake->mutex);
    return true;
}

static unsigned deliver_lane(struct fake *fake, enum tri_lane lane,
                             unsigned budget)
{
    unsigned n = 0;

    while (n < budget && deliver_one(fake, lane))
        n++;
    return n;
}

static bool has_room_again(struct fake *fake)
{
    bool any = false;

    pthread_mutex_lock(&fake->mutex);
    for (int i = 0; i < TRI_LANES; i++) {
        struct lane *lane = &fake->lanes[i];

        if (!lane->starved || lane->tail - lane->head >= lane->room)
            continue;
        lane->starved = false;
        any = true;
    }
    pthread_mutex_unlock(&fake->mutex);
    return any;
}

static unsigned fake_poll(struct tri_transport *transport, unsigned budget)
{
    struct fake *fake = (struct fake *)transport;
    unsigned n = 0;

    for (enum tri_lane lane = 0; lane < TRI_LANES; lane++)
        if (!fake->lanes[lane].refused)
            n += deliver_lane(fake, lane, budget - n);
    if (has_room_again(fake))
        fake->events.writable(fake->events.context, fake->peer);
    return n;
}

static bool fake_pending(struct tri_transport *transport)
{
    struct fake *fake = (struct fake *)transport;
    bool pending = false;

    for (int i = 0; i < TRI_LANES; i++)
        pending |= fake->lanes[i].head != fake->lanes[i].shown;
    return pending;
}

static void fake_each_unread(struct tri_channel *channel,
                             void (*unread)(void *context,
                                            const struct tri_record *record,
                                            const void *payload),
                             void *context)
{
    struct fake *fake = fake_of(channel);

    for (int i = 0; i < TRI_LANES; i++) {
        const struct lane *lane = &fake->lanes[i];

        for (uint32_t at = lane->head; at != lane->tail; at++)
            unread(context, &lane->frames[at % FRAMES].record,
                   lane->frames[at % FRAMES].payload);
    }
}

static void set_room(struct fake *fake, uint32_t room)
{
    for (int i = 0; i < TRI_LANES; i++)
        fake->lanes[i].room = room;
}

static const struct tri_transport_ops straight_ops = {
    .name = "straight",
    .close = fake_close,
    .connect = fake_connect,
    .disconnect = fake_disconnect,
    .reserve = fake_reserve,
    .commit = fake_commit,
    .each_unread = fake_each_unread,
    .poll = fake_poll,
    .pending = fake_pending,
};

static const struct tri_transport_ops gathering_ops = {
    .name = "gathering",
    .close = fake_close,
    .connect = fake_connect,
    .disconnect = fake_disconnect,
    .reserve = fake_reserve,
    .commit = fake_commit,
    .flush = fake_flush,
    .poll = fake_poll,
    .pending = fake_pending,
};

/* --- what the link hands up: by `index`, numbers `ask` in order ----------- */

static void arrive(struct fixture *fixture, uint32_t sender, uint64_t number,
                   const char *payload, uint32_t bytes)
{
    bool right = sender <= SENDERS && number == fixture->next[sender];
    uint64_t arrived = atomic_load(&fixture->arrived);

    for (uint32_t i = 0; right && i < bytes; i++)
        right = payload[i] == (char)(number + i * 7);
    if (sender <= SENDERS)
        fixture->next[sender] = number + 1;
    fixture->wrong += !right;
    if (arrived < ORDER_LEN)
        fixture->order[arrived] = (char)('0' + sender);
    atomic_fetch_add(&fixture->arrived, 1);
}

static void on_record(void *context, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload)
{
    (void)peer;
    arrive(context, record->index, record->ask, payload, record->bytes);
}

static void on_message(void *context, struct tri_peer *peer,
                       struct tri_message *message)
{
    struct fixture *fixture = context;

    (void)peer;
    fixture->large++;
    arrive(context, message->index, message->ask, message->payload,
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
    struct fixture *fixture = context;

    (void)peer, (void)record;
    fixture->refused++;
    fixture->reason = reason;
}

static void on_undelivered(void *context, struct tri_peer *peer,
                           struct tri_message *message, int reason)
{
    struct fixture *fixture = context;

    (void)peer;
    fixture->undelivered++;
    fixture->reason = reason;
    tri_message_free(message);
}

static void on_lost(void *context, struct tri_peer *peer,
                    const struct tri_record *record, int reason)
{
    struct fixture *fixture = context;
    size_t len = strlen(fixture->lost);

    (void)peer;
    assert_int_equal(reason, fixture->lost_reason);
    assert_int_equal(fixture->undelivered, 0); /* in order */
    if (len + 2 > ORDER_LEN)
        return;
    fixture->lost[len] = record->kind == TRI_TELL ? 't' : 'a';
    fixture->lost[len + 1] = (char)('0' + record->type);
}

static void on_died(void *context, struct tri_peer *peer)
{
    struct fixture *fixture = context;

    (void)peer;
    atomic_fetch_add(&fixture->died, 1);
}

/* --- fixture -------------------------------------------------------------- */

static int setup_with(void **state, const struct tri_transport_ops *ops)
{
    struct fixture *fixture = aligned_alloc(
        TRI_CACHE_LINE, tri_align_up(sizeof(*fixture), TRI_CACHE_LINE));
    static const struct tri_address address;
    struct tri_link_config config = {
        .node = NODE,
        .peers_len = 2,
        .outbox_bytes_max = OUTBOX_BYTES,
        .parked_bytes_max = PARKED_BYTES,
        .message_bytes_max = MESSAGE_BYTES_MAX,
        .events = { fixture, on_record, on_message, on_unpark, on_room,
                    on_refused, on_undelivered, on_lost, on_died,
                    NULL, NULL, NULL },
    };

    if (fixture == NULL)
        return -1;
    memset(fixture, 0, sizeof(*fixture));
    if (tri_link_init(&fixture->link, &config) != 0)
        return -1;
    fixture->lost_reason = TROUPE_ENODE;
    fixture->fake.transport.ops = ops;
    fixture->fake.transport.record_bytes_max = RECORD_BYTES;
    set_room(&fixture->fake, FRAMES);
    pthread_mutex_init(&fixture->fake.mutex, NULL);
    fixture->fake.events = tri_link_transport_events(&fixture->link);
    tri_link_add_transport(&fixture->link, &fixture->fake.transport);
    tri_link_set_peer(&fixture->link, PEER, PEER_NODE,
                      &fixture->fake.transport, &address);
    fixture->peer = tri_link_find(&fixture->link, PEER_NODE);
    *state = fixture;
    return fixture->peer == &fixture->link.peers[PEER] ? 0 : -1;
}

static int setup(void **state)
{
    return setup_with(state, &straight_ops);
}

static int setup_gathering(void **state)
{
    return setup_with(state, &gathering_ops);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    tri_link_fini(&fixture->link);
    free(fixture);
    return 0;
}

static struct tri_record header_as(uint8_t kind, uint32_t sender,
                                   uint64_t number, uint32_t bytes)
{
    return (struct tri_record){ .kind = kind,
                                .index = (uint16_t)sender,
                                .total_bytes = bytes,
                                .slot = kind == TRI_REPLY ? 0 : 1,
                                .sender_node = NODE,
                                .ask = number };
}

static struct tri_record header_of(uint32_t sender, uint64_t number,
                                   uint32_t bytes)
{
    return header_as(TRI_TELL, sender, number, bytes);
}

static void fill(char *payload, uint64_t number, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        payload[i] = (char)(number + i * 7);
}

static int send_as(struct fixture *fixture, uint8_t kind, uint32_t sender,
                   uint64_t number, uint32_t bytes, bool forced)
{
    struct tri_record record = header_as(kind, sender, number, bytes);
    char payload[MESSAGE_BYTES_MAX * 2];

    fill(payload, number, bytes);
    return tri_link_send(fixture->peer, &record, payload,
                         forced ? TRI_SEND_FORCED : TRI_SEND_BOUNDED);
}

static int send(struct fixture *fixture, uint32_t sender, uint64_t number,
                uint32_t bytes, bool forced)
{
    return send_as(fixture, TRI_TELL, sender, number, bytes, forced);
}

/* The same as a message that the link owns afterwards. */
static int send_built_as(struct fixture *fixture, uint8_t kind,
                         uint32_t sender, uint64_t number, uint32_t bytes)
{
    struct tri_record record = header_as(kind, sender, number, bytes);
    struct tri_message *message = tri_message_of_record(&record);
    int rc;

    if (message == NULL)
        return TROUPE_ENOMEM;
    fill(message->payload, number, bytes);
    rc = tri_link_send_message(fixture->peer, message, TRI_SEND_BOUNDED);
    if (rc != 0)
        tri_message_free(message);
    return rc;
}

static int send_built(struct fixture *fixture, uint32_t sender,
                      uint64_t number, uint32_t bytes)
{
    return send_built_as(fixture, TRI_TELL, sender, number, bytes);
}

static bool poll_until(struct fixture *fixture, uint64_t arrived,
                       int timeout_ms)
{
    uint64_t deadline_ns = tri_deadline_ns(timeout_ms);

    while (atomic_load(&fixture->arrived) < arrived) {
        if (tri_link_poll(&fixture->link, 16) == 0)
            sched_yield();
        if (tri_now_ns() >= deadline_ns)
            return false;
    }
    return true;
}

/* --- one thread ----------------------------------------------------------- */

static void test_small_and_large(void **state)
{
    static const uint32_t sizes[] = { 0,   1,   RECORD_BYTES, RECORD_BYTES + 1,
                                      700, 512, 3,            3999 };
    struct fixture *fixture = *state;
    struct tri_link_census census;

    for (uint64_t i = 0; i < tri_array_len(sizes); i++)
        assert_int_equal(send(fixture, 0, i, sizes[i], false), 0);
    assert_true(poll_until(fixture, tri_array_len(sizes), SOON_MS));
    assert_int_equal(fixture->wrong, 0);
    assert_int_equal(fixture->large, 4);
    assert_int_equal(fixture->fake.connects, 1);
    census = tri_link_census(&fixture->link);
    assert_int_equal(census.sent, tri_array_len(sizes));
    assert_int_equal(census.received, tri_array_len(sizes));
    assert_false(census.waiting);
}

static void test_outbox_is_bounded(void **state)
{
    struct fixture *fixture = *state;
    uint64_t n = 0, forced;

    set_room(&fixture->fake, 0);
    while (send(fixture, 0, n, 100, false) == 0)
        assert_true(++n < 10000);
    assert_int_equal(n, OUTBOX_BYTES / (100 + sizeof(struct tri_message)));
    assert_int_equal(send(fixture, 0, n, 100, false), TROUPE_EFULL);
    assert_true(tri_link_census(&fixture->link).waiting);
    for (forced = 0; forced < 10; forced++)
        assert_int_equal(send(fixture, 0, n + forced, 100, true), 0);
    assert_int_equal(send_built(fixture, 0, n, 100), TROUPE_EFULL);
    set_room(&fixture->fake, FRAMES);
    assert_true(poll_until(fixture, n + forced, SOON_MS));
    assert_int_equal(fixture->wrong, 0);
    assert_int_equal(fixture->peer->outboxes[TRI_LANE_DATA].bytes, 0);
    tri_link_flush(&fixture->link); /* writable marks it as dirty */
    assert_false(tri_link_census(&fixture->link).waiting);
}

/* One message may always wait, however large it is. */
static void test_one_may_wait(void **state)
{
    struct fixture *fixture = *state;

    fixture->link.config.outbox_bytes_max = 1000;
    set_room(&fixture->fake, 1);
    assert_int_equal(send(fixture, 0, 0, 3000, false), 0); /* half sent */
    assert_int_equal(send(fixture, 0, 1, 1, false), TROUPE_EFULL);
    assert_true(poll_until(fixture, 1, SOON_MS));
    assert_int_equal(send(fixture, 0, 1, 1, false), 0);
    assert_true(poll_until(fixture, 2, SOON_MS));
    assert_int_equal(fixture->wrong, 0);
}

/* --- lanes ---------------------------------------------------------------- */

enum { DATA = 0, REPLY = 1, CONTROL = 2 }; /* senders */

static void send_reply(struct fixture *fixture, uint64_t number,
                       uint32_t bytes)
{
    assert_int_equal(
        send_as(fixture, TRI_REPLY, REPLY, number, bytes, false), 0);
}

static void send_control(struct fixture *fixture, uint64_t number)
{
    assert_int_equal(
        send_as(fixture, TRI_QUIESCE, CONTROL, number, 16, false), 0);
}

/* A lane whose buffers are full, at the sender and in the channel, is no
 * other's business. */
static void test_full_lane(void **state)
{
    struct fixture *fixture = *state;
    uint64_t n = 0;

    fixture->fake.lanes[TRI_LANE_DATA].room = 0;
    while (send(fixture, DATA, n, 100, false) == 0)
        n++;
    for (uint64_t i = 0; i < 20; i++) {
        send_reply(fixture, i, 8);
        send_control(fixture, i);
    }
    send_reply(fixture, 20, 3000);
    assert_true(poll_until(fixture, 41, SOON_MS));
    fixture->fake.lanes[TRI_LANE_DATA].room = FRAMES;
    assert_true(poll_until(fixture, 41 + n, SOON_MS));
    assert_int_equal(fixture->wrong, 0);
    assert_int_equal(refusals(fixture), 0);
}

/* Replies and control have no bound of their own: what makes them has. */
static void test_only_data_is_bounded(void **state)
{
    struct fixture *fixture = *state;
    uint64_t n = 3 * OUTBOX_BYTES / 100;

    set_room(&fixture->fake, 0);
    for (uint64_t i = 0; i < n; i++) {
        send_reply(fixture, i, 100);
        send_control(fixture, i);
    }
    assert_int_equal(send(fixture, DATA, 0, 100, false), 0);
    set_room(&fixture->fake, FRAMES);
    assert_true(poll_until(fixture, 2 * n + 1, SOON_MS));
    assert_int_equal(fixture->wrong, 0);
}

/* Record by record: also before the rest of a large message. */
static void test_precedence(void **state)
{
    struct fixture *fixture = *state;

    set_room(&fixture->fake, 0);
    fixture->fake.lanes[TRI_LANE_DATA].room = 2;
    assert_int_equal(send(fixture, DATA, 0, 1000, false), 0); /* 2 of 4 */
    assert_int_equal(send(fixture, DATA, 1, 8, false), 0);
    send_reply(fixture, 0, 1000);
    send_reply(fixture, 1, 8);
    send_control(fixture, 0);
    send_control(fixture, 1);
    set_room(&fixture->fake, FRAMES);
    assert_true(poll_until(fixture, 6, SOON_MS));
    assert_string_equal(fixture->order, "221100");
    assert_int_equal(fixture->large, 2);
    assert_int_equal(fixture->wrong, 0);
    assert_int_equal(refusals(fixture), 0);
}

/* Who is seen to have left has nothing more to come, on no lane. */
static void test_bye(void **state)
{
    struct fixture *fixture = *state;

    send_control(fixture, 0);
    assert_true(poll_until(fixture, 1, SOON_MS));
    fixture->fake.lanes[TRI_LANE_REPLY].room = 0;
    send_reply(fixture, 0, 8);
    tri_link_say_bye(&fixture->link);
    tri_link_flush(&fixture->link);
    while (tri_link_poll(&fixture->link, 16) > 0)
        assert_false(tri_link_all_left(&fixture->link));
    assert_false(tri_link_all_left(&fixture->link));
    fixture->fake.lanes[TRI_LANE_REPLY].room = 1;
    assert_true(poll_until(fixture, 2, SOON_MS));
    while (!tri_link_all_left(&fixture->link))
        assert_true(tri_link_poll(&fixture->link, 16) > 0);
    assert_int_equal(tri_link_census(&fixture->link).sent,
                     tri_link_census(&fixture->link).received);
}

/* --- death ---------------------------------------------------------------- */

static void *kill_peer(void *arg)
{
    tri_link_kill(((struct fixture *)arg)->peer);
    return NULL;
}

static void test_kill(void **state)
{
    struct fixture *fixture = *state;
    pthread_t threads[3];

    set_room(&fixture->fake, 1);
    for (uint64_t i = 0; i < 5; i++)
        assert_int_equal(send(fixture, 0, i, 100, false), 0);
    for (size_t i = 0; i < tri_array_len(threads); i++)
        threads[i] = unit_thread(kill_peer, fixture);
    for (size_t i = 0; i < tri_array_len(threads); i++)
        unit_join(threads[i]);
    assert_int_equal(fixture->died, 1);
    assert_int_equal(fixture->undelivered, 4);
    assert_string_equal(fixture->lost, "t0"); /* it is on the wire */
    assert_int_equal(fixture->reason, TROUPE_ENODE);
    assert_int_equal(fixture->fake.disconnects, 1);
    assert_int_equal(fixture->peer->outboxes[TRI_LANE_DATA].bytes, 0);
    assert_int_equal(send(fixture, 0, 5, 1, false), TROUPE_ENODE);
    assert_int_equal(send_built(fixture, 0, 5, 1), TROUPE_ENODE);
    assert_null(fixture->fake.events.accept(&fixture->link, PEER_NODE));
    assert_null(fixture->fake.events.accept(&fixture->link, 77));
    fixture->fake.events.lost(&fixture->link, PEER_NODE, TRI_EVIDENCE_PROOF);
    assert_int_equal(fixture->died, 1);
}

static void send_typed(struct fixture *fixture, uint8_t kind, uint32_t type,
                       uint32_t bytes)
{
    struct tri_record record = header_as(kind, 0, kind == TRI_TELL ? 0 : 7,
                                         bytes);
    char payload[MESSAGE_BYTES_MAX] = { 0 };

    record.type = type;
    assert_int_equal(tri_link_send(fixture->peer, &record, payload,
                                   TRI_SEND_FORCED), 0);
}

/* What was under way is told of, one letter a message, whole or not; what was
 * queued as ever; and what was both once. */
static void test_kill_tells_of_unread(void **state)
{
    struct fixture *fixture = *state;

    send_typed(fixture, TRI_TELL, 0, 10);   /* will arrive */
    send_typed(fixture, TRI_ASK, 1, 3 * RECORD_BYTES); /* its first piece */
    send_typed(fixture, TRI_REPLY, 2, 2 * RECORD_BYTES);
    send_typed(fixture, TRI_TELL, 3, 10);
    send_typed(fixture, TRI_QUIESCE, 4, 10);
    send_typed(fixture, TRI_TELL, 5, 2 * RECORD_BYTES);
    send_typed(fixture, TRI_ASK, 6, 0);
    assert_int_equal(deliver_lane(&fixture->fake, TRI_LANE_DATA, 2), 2);
    fixture->fake.lanes[TRI_LANE_DATA].room = 7;
    send_typed(fixture, TRI_TELL, 7, 2 * RECORD_BYTES); /* half of it */
    send_typed(fixture, TRI_TELL, 8, 10);
    assert_int_equal(fixture->fake.lanes[TRI_LANE_DATA].tail, 9);
    tri_link_kill(fixture->peer);
    assert_string_equal(fixture->lost, "a1t3t5a6");
    assert_int_equal(fixture->undelivered, 2);
}

/* All of the half that was sent has been read: it is the outbox's. */
static void test_kill_with_half_read(void **state)
{
    struct fixture *fixture = *state;

    fixture->fake.lanes[TRI_LANE_DATA].room = 2;
    send_typed(fixture, TRI_TELL, 0, 10);
    send_typed(fixture, TRI_TELL, 1, 3 * RECORD_BYTES);
    assert_int_equal(deliver_lane(&fixture->fake, TRI_LANE_DATA, 2), 2);
    tri_link_kill(fixture->peer);
    assert_string_equal(fixture->lost, "");
    assert_int_equal(fixture->undelivered, 1);
}

/* The channel finds its peer gone before the link is told: nothing is told of
 * twice, and in order. */
static void test_gone_before_kill(void **state)
{
    struct fixture *fixture = *state;

    fixture->fake.lanes[TRI_LANE_DATA].room = 3;
    send_typed(fixture, TRI_TELL, 0, 10);
    send_typed(fixture, TRI_TELL, 1, 4 * RECORD_BYTES);
    fixture->fake.reserve_rc = TROUPE_ENODE;
    fixture->fake.events.writable(&fixture->link, fixture->peer);
    assert_string_equal(fixture->lost, "t0");
    assert_int_equal(fixture->undelivered, 1);
    tri_link_kill(fixture->peer);
    assert_string_equal(fixture->lost, "t0");
    assert_int_equal(fixture->undelivered, 1);
}

static void test_proof_kills(void **state)
{
    struct fixture *fixture = *state;

    set_room(&fixture->fake, 0);
    assert_int_equal(send(fixture, 0, 0, 1000, false), 0);
    fixture->fake.events.lost(&fixture->link, 77, TRI_EVIDENCE_PROOF);
    assert_int_equal(fixture->died, 0);
    fixture->fake.events.lost(&fixture->link, PEER_NODE, TRI_EVIDENCE_PROOF);
    fixture->fake.events.lost(&fixture->link, PEER_NODE, TRI_EVIDENCE_PROOF);
    assert_int_equal(fixture->died, 1);
    assert_int_equal(fixture->undelivered, 1);
}

static void test_connect_fails(void **state)
{
    struct fixture *fixture = *state;

    fixture->fake.connect_rc = TROUPE_ETRANSPORT;
    assert_int_equal(send(fixture, 0, 0, 1, false), TROUPE_ETRANSPORT);
    assert_int_equal(send(fixture, 0, 0, 1000, false), 0); /* the outbox */
    assert_int_equal(fixture->undelivered, 1);
    assert_int_equal(fixture->reason, TROUPE_ETRANSPORT);
    assert_int_equal(fixture->died, 0); /* that is no proof */
    fixture->fake.connect_rc = 0;
    assert_int_equal(send(fixture, 0, 0, 1, false), 0);
    assert_int_equal(fixture->fake.connects, 3);
}

static void test_connect_finds_it_gone(void **state)
{
    struct fixture *fixture = *state;

    fixture->fake.connect_rc = TROUPE_ENODE;
    assert_int_equal(send(fixture, 0, 0, 1, false), TROUPE_ENODE);
    assert_int_equal(fixture->died, 1);
    assert_int_equal(send(fixture, 0, 0, 1, false), TROUPE_ENODE);
    assert_int_equal(fixture->fake.connects, 1);
}

/* A closed connection is made anew; a message that was half sent on the old
 * one begins again, and the receiver drops its first half. */
static void test_broken_connection(void **state)
{
    struct fixture *fixture = *state;

    set_room(&fixture->fake, 2);
    assert_int_equal(send(fixture, 0, 0, 1000, false), 0);
    assert_int_equal(send(fixture, 0, 1, 10, false), 0);
    assert_int_equal(fixture->fake.commits, 2);
    fixture->fake.events.lost(&fixture->link, PEER_NODE, TRI_EVIDENCE_STRONG);
    fixture->fake.events.lost(&fixture->link, PEER_NODE, TRI_EVIDENCE_STRONG);
    assert_true(poll_until(fixture, 2, SOON_MS));
    assert_int_equal(fixture->wrong, 0);
    assert_int_equal(fixture->fake.connects, 2);
    assert_int_equal(fixture->fake.disconnects, 1);
    assert_int_equal(refusals(fixture), 1); /* the half */
    assert_int_equal(fixture->died, 0);
}

/* What the old connection had not brought is told of; the half goes anew. */
static void test_broken_connection_tells_of_unread(void **state)
{
    struct fixture *fixture = *state;

    fixture->lost_reason = TROUPE_ETRANSPORT;
    fixture->fake.lanes[TRI_LANE_DATA].room = 5;
    send_typed(fixture, TRI_TELL, 0, 10); /* will arrive */
    send_typed(fixture, TRI_ASK, 1, 10);
    send_typed(fixture, TRI_TELL, 2, 2 * RECORD_BYTES);
    send_typed(fixture, TRI_TELL, 3, 2 * RECORD_BYTES); /* half of it */
    assert_int_equal(deliver_lane(&fixture->fake, TRI_LANE_DATA, 1), 1);
    fixture->fake.events.lost(&fixture->link, PEER_NODE, TRI_EVIDENCE_STRONG);
    fixture->fake.lanes[TRI_LANE_DATA].room = FRAMES;
    fixture->fake.events.writable(&fixture->link, fixture->peer);
    assert_int_equal(fixture->fake.connects, 2);
    assert_string_equal(fixture->lost, "a1t2");
    assert_int_equal(fixture->undelivered, 0);
    assert_int_equal(fixture->fake.lanes[TRI_LANE_DATA].tail, 7);
}

/* --- what a peer may send, but should not --------------------------------- */

static void raise_record(struct fixture *fixture, struct tri_record record,
                         uint32_t bytes)
{
    char payload[RECORD_BYTES];

    fill(payload, record.ask, bytes);
    record.bytes = bytes;
    fixture->fake.events.record(fixture->fake.events.context, fixture->peer,
                                tri_lane_of(record.kind), &record, payload);
}

static void test_garbage(void **state)
{
    struct fixture *fixture = *state;
    struct tri_record more = { .kind = TRI_MORE, .slot = 1 };

    raise_record(fixture, more, 10); /* of what? */
    assert_int_equal(refusals(fixture), 1);
    raise_record(fixture, header_of(0, 0, 500), 200);
    raise_record(fixture, more, 256);
    raise_record(fixture, more, 200); /* more than there is to come */
    assert_int_equal(refusals(fixture), 2);
    assert_int_equal(fixture->arrived, 0);
    raise_record(fixture, header_of(0, 0, 20), 20); /* the other broke off */
    assert_int_equal(refusals(fixture), 3);
    assert_int_equal(fixture->arrived, 1);
    raise_record(fixture, more, 10);
    assert_int_equal(refusals(fixture), 4);
    assert_int_equal(fixture->wrong, 0);
    raise_record(fixture, header_of(0, 1, 500), 200); /* left for fini */
}

static void test_too_large(void **state)
{
    struct fixture *fixture = *state;
    struct tri_record more = { .kind = TRI_MORE, .slot = 1 };

    raise_record(fixture, header_of(0, 0, UINT32_MAX), 256);
    assert_int_equal(fixture->refused, 1);
    assert_int_equal(fixture->reason, TROUPE_ETOOBIG);
    for (int i = 0; i < 20; i++)
        raise_record(fixture, more, 256); /* skipped, in silence */
    assert_int_equal(refusals(fixture), 0);
    raise_record(fixture, header_of(0, 0, 9), 9);
    assert_int_equal(send(fixture, 0, 1, MESSAGE_BYTES_MAX + 1, false), 0);
    assert_int_equal(send(fixture, 0, 1, MESSAGE_BYTES_MAX, false), 0);
    assert_true(poll_until(fixture, 2, SOON_MS));
    assert_int_equal(fixture->refused, 2);
    assert_int_equal(fixture->wrong, 0);
    assert_int_equal(refusals(fixture), 0);
}

static void test_no_memory(void **state)
{
    struct fixture *fixture = *state;

    tri_pool_init(0);
    raise_record(fixture, header_of(0, 0, MESSAGE_BYTES_MAX), 256);
    tri_pool_init(SIZE_MAX);
    assert_int_equal(fixture->refused, 1);
    assert_int_equal(fixture->reason, TROUPE_ENOMEM);
}

/* --- threads -------------------------------------------------------------- */

struct sender {
    struct fixture *fixture;
    uint32_t index;
    uint64_t seed;
    _Atomic uint32_t failed;
    /* bursts */
    _Atomic uint64_t go, done;
};

static uint32_t random_bytes(struct tri_random *random)
{
    return tri_random_below(random, 40) == 0 ? tri_random_below(random, 3000)
                                             : tri_random_below(random, 64);
}

static void *send_many(void *arg)
{
    struct sender *sender = arg;
    uint8_t kind = sender->index == 0 ? TRI_REPLY : TRI_TELL;
    struct tri_random random;

    tri_random_init(&random, sender->seed);
    for (uint64_t i = 0; i < PER_SENDER; i++) {
        uint32_t bytes = random_bytes(&random);
        bool built = tri_random_below(&random, 2) == 0;
        int rc;

        while ((rc = built ? send_built_as(sender->fixture, kind,
                                           sender->index, i, bytes)
                           : send_as(sender->fixture, kind, sender->index, i,
                                     bytes, false)) == TROUPE_EFULL)
            sched_yield();
        if (rc != 0)
            atomic_store(&sender->failed, 1);
    }
    return NULL;
}

static void test_senders(void **state)
{
    struct fixture *fixture = *state;
    static struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    uint64_t seed = unit_seed("test_senders");
    bool all;

    for (uint32_t i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){ .fixture = fixture, .index = i };
        senders[i].seed = seed + i;
        threads[i] = unit_thread(send_many, &senders[i]);
    }
    all = poll_until(fixture, (uint64_t)SENDERS * PER_SENDER, 3 * SOON_MS);
    for (uint32_t i = 0; all && i < SENDERS; i++) {
        unit_join(threads[i]);
        assert_int_equal(senders[i].failed, 0);
    }
    assert_true(all);
    assert_int_equal(fixture->wrong, 0);
    tri_link_flush(&fixture->link); /* writable marks it as dirty */
    assert_int_equal(tri_link_census(&fixture->link).sent,
                     (uint64_t)SENDERS * PER_SENDER);
    assert_false(tri_link_census(&fixture->link).waiting);
}

static void *send_bursts(void *arg)
{
    struct sender *sender = arg;
    uint64_t number = 0, burst = 0, go;

    for (;;) {
        while ((go = atomic_load(&sender->go)) == burst)
            sched_yield();
        if (go == UINT64_MAX)
            return NULL;
        burst = go;
        /* one that goes through the outbox, one behind it */
        if (send(sender->fixture, sender->index, number++, RECORD_BYTES + 1,
                 true) != 0 ||
            send(sender->fixture, sender->index, number++, 8, true) != 0)
            atomic_store(&sender->failed, 1);
    }
}

/*
 * Nothing stays in an inbox: who finds the peer's lock held relies on its
 * holder. After each burst there is nobody else who would look again.
 */
static void test_bursts(void **state)
{
    struct fixture *fixture = *state;
    static struct sender senders[2];
    pthread_t threads[2];
    uint64_t until_ns = tri_deadline_ns(BURSTS_MS);
    uint64_t burst = 0;
    bool all = true;

    for (uint32_t i = 0; i < 2; i++) {
        senders[i] = (struct sender){ .fixture = fixture, .index = i };
        threads[i] = unit_thread(send_bursts, &senders[i]);
    }
    while (all && burst < BURSTS && tri_now_ns() < until_ns) {
        burst++;
        for (uint32_t i = 0; i < 2; i++)
            atomic_store(&senders[i].go, burst);
        /* without need, and it keeps the lock from the senders */
        for (uint32_t i = 0; i < burst % 32; i++)
            fixture->fake.events.writable(&fixture->link, fixture->peer);
        all = poll_until(fixture, burst * 4, SOON_MS);
    }
    for (uint32_t i = 0; i < 2; i++) {
        atomic_store(&senders[i].go, UINT64_MAX);
        unit_join(threads[i]);
        assert_int_equal(senders[i].failed, 0);
    }
    printf("bursts: %llu\n", (unsigned long long)burst);
    assert_true(all);
    assert_int_equal(fixture->wrong, 0);
}

static void *send_on_demand(void *arg)
{
    struct sender *sender = arg;
    uint64_t number = 0, go;

    while ((go = atomic_load(&sender->go)) != UINT64_MAX) {
        if (go == number)
            continue;
        for (uint64_t pause = number * 7 % 97; pause > 0; pause--)
            tri_cpu_relax();
        if (send_built(sender->fixture, 0, number++, RECORD_BYTES + 1) != 0)
            atomic_store(&sender->failed, 1);
        atomic_store(&sender->done, number);
    }
    return NULL;
}

/*
 * The mark that a sender leaves is not wiped out unseen: one thread finds
 * nothing to do in the outbox over and over while another one fills it.
 */
static void test_marks(void **state)
{
    struct fixture *fixture = *state;
    static struct sender sender;
    uint64_t until_ns = tri_deadline_ns(MARKS_MS);
    uint64_t n = 0, left = 0;
    pthread_t thread;

    sender = (struct sender){ .fixture = fixture };
    thread = unit_thread(send_on_demand, &sender);
    while (tri_now_ns() < until_ns) {
        atomic_store(&sender.go, ++n);
        while (atomic_load(&sender.done) < n)
            fixture->fake.events.writable(&fixture->link, fixture->peer);
        /* nobody is in the link any more, and there was room */
        if (atomic_load(&fixture->peer->outboxes[TRI_LANE_DATA].bytes) > 0) {
            left++;
            fixture->fake.events.writable(&fixture->link, fixture->peer);
        }
        tri_link_poll(&fixture->link, 16);
    }
    atomic_store(&sender.go, UINT64_MAX);
    unit_join(thread);
    printf("marks: %llu messages\n", (unsigned long long)n);
    assert_int_equal(sender.failed, 0);
    assert_int_equal(fixture->arrived, n);
    assert_int_equal(fixture->wrong, 0);
    assert_int_equal(left, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_BOTH(name)                                                       \
    TEST(name), { #name " (gathering)", name, setup_gathering, teardown, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_BOTH(test_small_and_large),
        TEST_BOTH(test_outbox_is_bounded),
        TEST(test_one_may_wait),
        TEST_BOTH(test_full_lane),
        TEST_BOTH(test_only_data_is_bounded),
        TEST_BOTH(test_precedence),
        TEST_BOTH(test_bye),
        TEST(test_no_memory),
        TEST(test_kill),
        TEST(test_kill_tells_of_unread),
        TEST(test_kill_with_half_read),
        TEST(test_gone_before_kill),
        TEST(test_proof_kills),
        TEST(test_connect_fails),
        TEST(test_connect_finds_it_gone),
        TEST(test_broken_connection),
        TEST(test_broken_connection_tells_of_unread),
        TEST(test_garbage),
        TEST(test_too_large),
        TEST_BOTH(test_senders),
        TEST_BOTH(test_bursts),
        TEST(test_marks),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
