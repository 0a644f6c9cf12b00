/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of peers: nodes that join, die, and whose slots are used again,
 * over a transport whose channels keep one record each.
 */
#include "unit.h"

#include <sys/resource.h>

#include "link/link.h"
#include "message/pool.h"

enum {
    RANKS = 3, /* of the job; ours is 0 */
    PEERS_MAX = 64,
    LIVES = 5000,
    CROWD = 1024, /* of the largest table */
    READERS = 2,
    NODES = 16384,
    NODES_PER_REAP = 300, /* so that there are less than two graces' */
    RECORD_BYTES = 64,
};

#define NODE 1000u
#define SECOND (1000 * TRI_NS_PER_MS)

struct channel {
    struct tri_channel base;
    struct channel *next; /* of those that are open */
    struct tri_record record;
    char payload[RECORD_BYTES];
};

struct fixture {
    struct tri_link link;
    struct tri_transport transport;
    struct tri_transport_events events;
    uint64_t now_ns;
    _Atomic uint32_t channels; /* open */
    pthread_mutex_t lock;      /* of first */
    struct channel *first;
    uint32_t forgotten_after;  /* calls of is_forgotten that say no */
    uint32_t resumed;
    uint32_t died, suspected;
    _Atomic uint32_t undelivered;
    struct tri_peer *suspect;
    bool full;    /* channels take nothing */
    bool park;    /* what arrives is parked */
    _Atomic bool stop;
    uint64_t seed;
};

/* --- the transport -------------------------------------------------------- */

static struct fixture *fixture_of(struct tri_transport *transport)
{
    return tri_container_of(transport, struct fixture, transport);
}

static void keep(struct fixture *fixture, struct channel *channel)
{
    pthread_mutex_lock(&fixture->lock);
    channel->next = fixture->first;
    fixture->first = channel;
    pthread_mutex_unlock(&fixture->lock);
    atomic_fetch_add(&fixture->channels, 1);
}

static void end(struct fixture *fixture, struct channel *channel)
{
    struct channel **at = &fixture->first;

    pthread_mutex_lock(&fixture->lock);
    while (*at != channel)
        at = &(*at)->next;
    *at = channel->next;
    pthread_mutex_unlock(&fixture->lock);
    atomic_fetch_sub(&fixture->channels, 1);
    free(channel);
}

/* Ends all channels, as every transport does. */
static void fake_close(struct tri_transport *transport)
{
    struct fixture *fixture = fixture_of(transport);

    while (fixture->first != NULL)
        end(fixture, fixture->first);
}

static int fake_connect(struct tri_transport *transport, uint64_t node,
                        const struct tri_address *address, void *peer,
                        struct tri_channel **channel_p)
{
    struct channel *channel = calloc(1, sizeof(*channel));

    (void)node, (void)address, (void)peer;
    if (channel == NULL)
        abort();
    channel->base.transport = transport;
    keep(fixture_of(transport), channel);
    *channel_p = &channel->base;
    return 0;
}

static void fake_disconnect(struct tri_channel *base)
{
    end(fixture_of(base->transport),
        tri_container_of(base, struct channel, base));
}

static int fake_reserve(struct tri_channel *base, enum tri_lane lane,
                        size_t bytes, struct tri_span *span_p)
{
    struct channel *channel = tri_container_of(base, struct channel, base);

    (void)lane;
    if (bytes > RECORD_BYTES)
        abort();
    if (fixture_of(base->transport)->full)
        return TROUPE_EFULL;
    span_p->record = &channel->record;
    span_p->payload = channel->payload;
    return 0;
}

static void fake_commit(struct tri_channel *base)
{
    (void)base;
}

static unsigned fake_poll(struct tri_transport *transport, unsigned budget)
{
    (void)transport, (void)budget;
    return 0;
}

static bool fake_pending(struct tri_transport *transport)
{
    (void)transport;
    return false;
}

static void fake_resume(struct tri_transport *transport, void *peer)
{
    (void)peer;
    fixture_of(transport)->resumed++;
}

static bool fake_is_forgotten(struct tri_transport *transport,
                              const void *peer)
{
    struct fixture *fixture = fixture_of(transport);

    (void)peer;
    if (fixture->forgotten_after == 0)
        return true;
    fixture->forgotten_after--;
    return false;
}

static const struct tri_transport_ops fake_ops = {
    .name = "fake",
    .close = fake_close,
    .connect = fake_connect,
    .disconnect = fake_disconnect,
    .reserve = fake_reserve,
    .commit = fake_commit,
    .poll = fake_poll,
    .pending = fake_pending,
    .resume = fake_resume,
    .is_forgotten = fake_is_forgotten,
};

/* --- what the link hands up ----------------------------------------------- */

static void on_record(void *context, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload)
{
    struct fixture *fixture = context;
    struct tri_message *message;

    (void)payload;
    if (!fixture->park)
        return;
    message = tri_message_of_record(record);
    assert_non_null(message);
    assert_int_equal(tri_flow_park(peer, message), 0);
}

static void on_message(void *context, struct tri_peer *peer,
                       struct tri_message *message)
{
    (void)context, (void)peer;
    tri_message_free(message);
}

static bool on_unpark(void *context, struct tri_peer *peer,
                      struct tri_message *message)
{
    (void)context, (void)peer, (void)message;
    return false;
}

static void on_room(void *context)
{
    (void)context;
}

static void on_refused(void *context, struct tri_peer *peer,
                       const struct tri_record *record, int reason)
{
    (void)context, (void)peer, (void)record, (void)reason;
}

static void on_undelivered(void *context, struct tri_peer *peer,
                           struct tri_message *message, int reason)
{
    struct fixture *fixture = context;

    (void)peer;
    if (reason != TROUPE_ENODE)
        abort();
    atomic_fetch_add(&fixture->undelivered, 1);
    tri_message_free(message);
}

static void on_lost(void *context, struct tri_peer *peer,
                    const struct tri_record *record, int reason)
{
    (void)context, (void)peer, (void)record, (void)reason;
}

static void on_died(void *context, struct tri_peer *peer)
{
    struct fixture *fixture = context;

    (void)peer;
    fixture->died++;
}

static void on_suspect(void *context, struct tri_peer *peer)
{
    struct fixture *fixture = context;

    fixture->suspected++;
    fixture->suspect = peer;
}

/* --- fixture -------------------------------------------------------------- */

static uint64_t node_of_rank(int rank)
{
    return NODE + (uint64_t)rank;
}

static struct fixture *open_fixture(uint32_t peers_max)
{
    struct fixture *fixture = aligned_alloc(
        TRI_CACHE_LINE, tri_align_up(sizeof(*fixture), TRI_CACHE_LINE));
    static const struct tri_address address;
    struct tri_link_config config = {
        .node = node_of_rank(0),
        .peers_len = RANKS,
        .peers_max = peers_max,
        .outbox_bytes_max = 1 << 20,
        .parked_bytes_max = 1 << 20,
        .message_bytes_max = 1 << 20,
        .events = { .context = fixture,
                    .record = on_record,
                    .message = on_message,
                    .unpark = on_unpark,
                    .room = on_room,
                    .refused = on_refused,
                    .undelivered = on_undelivered,
                    .lost = on_lost,
                    .died = on_died,
                    .suspect = on_suspect },
    };

    assert_non_null(fixture);
    memset(fixture, 0, sizeof(*fixture));
    assert_int_equal(tri_link_init(&fixture->link, &config), 0);
    pthread_mutex_init(&fixture->lock, NULL);
    fixture->transport.ops = &fake_ops;
    fixture->transport.record_bytes_max = RECORD_BYTES;
    fixture->events = tri_link_transport_events(&fixture->link);
    fixture->now_ns = SECOND;
    tri_link_add_transport(&fixture->link, &fixture->transport);
    for (int rank = 1; rank < RANKS; rank++)
        tri_link_set_peer(&fixture->link, rank, node_of_rank(rank),
                          &fixture->transport, &address);
    return fixture;
}

static int setup(void **state)
{
    tri_pool_init(1ull << 30);
    *state = open_fixture(PEERS_MAX);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    tri_link_fini(&fixture->link);
    free(fixture);
    tri_pool_thread_fini();
    return 0;
}

static int try_add(struct fixture *fixture, uint64_t node,
                   struct tri_peer **peer_p)
{
    static const struct tri_address address;

    return tri_link_add_peer(&fixture->link, node, &fixture->transport,
                             &address, peer_p);
}

static struct tri_peer *add(struct fixture *fixture, uint64_t node)
{
    struct tri_peer *peer = NULL;

    assert_int_equal(try_add(fixture, node, &peer), 0);
    assert_ptr_equal(tri_link_find(&fixture->link, node), peer);
    assert_int_equal(peer->node, node);
    assert_int_equal(peer->rank, -1);
    return peer;
}

static int tell(struct tri_peer *peer)
{
    struct tri_record record = { .kind = TRI_TELL,
                                 .slot = 7,
                                 .generation = 1,
                                 .total_bytes = 8 };

    return tri_link_send(peer, &record, "payload", TRI_SEND_BOUNDED);
}

/* As if it came from the peer. */
static void receive(struct fixture *fixture, struct tri_peer *peer,
                    enum tri_record_kind kind)
{
    struct tri_record record = { .kind = (uint8_t)kind,
                                 .slot = 7,
                                 .generation = 1 };

    assert_true(fixture->events.record(&fixture->link, peer,
                                       tri_lane_of(record.kind), &record,
                                       ""));
    tri_link_poll(&fixture->link, 1);
}

static void reap_once(struct fixture *fixture, uint64_t ns)
{
    fixture->now_ns += ns;
    if (tri_link_reap(&fixture->link, fixture->now_ns))
        tri_link_poll(&fixture->link, 1);
}

/* As long as it takes, at most. */
static void reap_long(struct fixture *fixture)
{
    for (unsigned i = 0; i < 2 * TRI_REAP_CALLS + 4; i++)
        reap_once(fixture, SECOND);
}

/* --- tests ---------------------------------------------------------------- */

static void test_add(void **state)
{
    struct fixture *fixture = *state;
    char label[TRI_PEER_LABEL_BYTES];
    struct tri_peer *peer;

    assert_int_equal(tri_link_peers_len(&fixture->link), RANKS);
    assert_null(tri_link_find(&fixture->link, 5));
    peer = add(fixture, 5);
    assert_int_equal(tri_link_peers_len(&fixture->link), RANKS + 1);
    assert_int_equal(tri_peer_slot(peer), RANKS);
    assert_string_equal(tri_peer_label(peer, label), "node 0000000000000005");
    assert_string_equal(tri_peer_label(&fixture->link.peers[2], label),
                        "rank 2");
    assert_false(tri_peer_is_used(&fixture->link.peers[0])); /* ourselves */
    assert_int_equal(try_add(fixture, 5, NULL), TROUPE_EEXIST);
    assert_int_equal(try_add(fixture, node_of_rank(1), NULL), TROUPE_EEXIST);
    assert_int_equal(try_add(fixture, node_of_rank(0), NULL), TROUPE_EINVAL);
    assert_int_equal(try_add(fixture, 0, NULL), TROUPE_EINVAL);
    for (uint64_t node = 6; node < 5 + PEERS_MAX - RANKS; node++)
        add(fixture, node);
    assert_int_equal(try_add(fixture, 4, NULL), TROUPE_ELIMIT);
    assert_int_equal(tell(peer), 0);
    assert_int_equal(tri_link_census(&fixture->link).sent, 1);
}

static void test_slot_is_reused_in_time(void **state)
{
    struct fixture *fixture = *state;
    struct tri_peer *peer = add(fixture, 5);
    uint64_t before = tri_link_census(&fixture->link).sent;

    assert_int_equal(tell(peer), 0);
    tri_link_kill(peer);
    assert_int_equal(fixture->died, 1);
    assert_int_equal(tell(peer), TROUPE_ENODE);
    /* Time alone is not enough, nor are calls. */
    reap_once(fixture, 0);
    reap_once(fixture, 1000 * SECOND);
    assert_ptr_equal(tri_link_find(&fixture->link, 5), peer);
    for (unsigned i = 0; i < 10; i++)
        reap_once(fixture, 0);
    assert_ptr_equal(tri_link_find(&fixture->link, 5), peer);
    assert_int_equal(try_add(fixture, 5, NULL), TROUPE_EEXIST);
    reap_long(fixture);
    assert_null(tri_link_find(&fixture->link, 5));
    assert_ptr_equal(add(fixture, 6), peer);
    assert_int_equal(tri_link_peers_len(&fixture->link), RANKS + 1);
    assert_false(tri_peer_is_dead(peer));
    assert_int_equal(tri_peer_heard(peer), 0);
    assert_int_equal(tell(peer), 0);
    /* What the dead one was sent stays counted. */
    assert_int_equal(tri_link_census(&fixture->link).sent, before + 2);
}

static void test_calls_alone_free_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct tri_peer *peer = add(fixture, 5);

    tri_link_kill(peer);
    for (unsigned i = 0; i < 10 * TRI_REAP_CALLS; i++)
        reap_once(fixture, SECOND / 100);
    assert_ptr_equal(tri_link_find(&fixture->link, 5), peer);
    assert_ptr_not_equal(add(fixture, 6), peer);
}

static void test_rank_keeps_its_slot(void **state)
{
    struct fixture *fixture = *state;
    struct tri_peer *peer = &fixture->link.peers[1];

    fixture->events.record(&fixture->link, peer, TRI_LANE_CONTROL,
                           &(struct tri_record){ .kind = TRI_MAILBOX_STOP,
                                                 .slot = 3,
                                                 .generation = 1 },
                           "");
    assert_non_null(peer->stopped);
    tri_link_kill(peer);
    reap_long(fixture);
    assert_null(peer->stopped);
    assert_ptr_equal(tri_link_find(&fixture->link, node_of_rank(1)), peer);
    assert_true(tri_peer_is_dead(peer));
    assert_int_equal(tri_peer_slot(add(fixture, 5)), RANKS);
}

static void test_transport_has_a_say(void **state)
{
    struct fixture *fixture = *state;
    struct tri_peer *peer = add(fixture, 5);

    fixture->forgotten_after = 1000;
    tri_link_kill(peer);
    reap_long(fixture);
    reap_long(fixture);
    assert_null(tri_link_find(&fixture->link, 5));
    assert_ptr_not_equal(add(fixture, 6), peer);
    assert_in_range(fixture->forgotten_after, 900, 999);
    fixture->forgotten_after = 0;
    reap_long(fixture);
    assert_ptr_equal(add(fixture, 7), peer);
}

static void test_suspect(void **state)
{
    struct fixture *fixture = *state;
    struct tri_peer *peer = add(fixture, 5);
    struct tri_transport_events *events = &fixture->events;

    events->lost(events->context, 5, TRI_EVIDENCE_STRONG);
    assert_int_equal(fixture->suspected, 1);
    assert_ptr_equal(fixture->suspect, peer);
    events->lost(events->context, 5, TRI_EVIDENCE_STRONG);
    assert_int_equal(fixture->suspected, 1); /* until it is connected anew */
    assert_int_equal(tell(peer), 0);
    events->broke(events->context, 5);
    assert_int_equal(fixture->suspected, 2);
    events->broke(events->context, 99);
    events->lost(events->context, 5, TRI_EVIDENCE_PROOF);
    assert_true(tri_peer_is_dead(peer));
    events->broke(events->context, 5);
    assert_int_equal(fixture->suspected, 2);
    assert_int_equal(fixture->died, 1);
}

static void test_heard(void **state)
{
    static const enum tri_record_kind kinds[] = {
        TRI_TELL, TRI_REPLY, TRI_QUIESCE, TRI_MAILBOX_STOP, TRI_BYE,
    };
    struct fixture *fixture = *state;
    struct tri_peer *peer = add(fixture, 5);
    uint64_t before = tri_peer_heard(peer);

    for (size_t i = 0; i < tri_array_len(kinds); i++) {
        receive(fixture, peer, kinds[i]);
        assert_true(tri_peer_heard(peer) > before);
        before = tri_peer_heard(peer);
    }
    fixture->events.heard(&fixture->link, peer);
    assert_true(tri_peer_heard(peer) > before);
    assert_int_equal(tri_peer_heard(&fixture->link.peers[1]), 0);
}

/* Nothing that a dead node sent or was sent stays. */
static void test_memory(void **state)
{
    struct fixture *fixture = *state;
    struct tri_peer *peer = add(fixture, 5);

    fixture->full = true;
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(tell(peer), 0);
    fixture->full = false;
    fixture->park = true;
    for (unsigned i = 0; i < 20; i++)
        receive(fixture, peer, TRI_TELL);
    assert_true(tri_link_census(&fixture->link).waiting);
    tri_link_kill(peer);
    assert_int_equal(atomic_load(&fixture->undelivered), 20);
    assert_int_equal(atomic_load(&fixture->channels), 0);
    assert_int_equal(atomic_load(&peer->parked_len), 20); /* may be taken */
    reap_long(fixture);
    assert_int_equal(atomic_load(&peer->parked_len), 0);
    assert_false(tri_link_census(&fixture->link).waiting);
    assert_null(peer->parking.buckets);
}

static void test_lives(void **state)
{
    struct fixture *fixture = *state;
    uint64_t seed = unit_seed("test_lives");
    struct tri_random random;
    struct tri_peer *living[8] = { NULL };
    struct rusage before, after;
    size_t bytes = 0;

    tri_random_init(&random, seed);
    getrusage(RUSAGE_SELF, &before);
    for (unsigned life = 0; life < LIVES; life++) {
        unsigned i = (unsigned)tri_random_below(&random,
                                                tri_array_len(living));

        if (living[i] != NULL)
            tri_link_kill(living[i]);
        living[i] = add(fixture, 1000000 + life);
        fixture->full = tri_random_below(&random, 2) == 0;
        fixture->park = true;
        assert_int_equal(tell(living[i]), 0);
        receive(fixture, living[i], TRI_TELL);
        receive(fixture, living[i], TRI_MAILBOX_STOP);
        reap_once(fixture, 2 * SECOND);
        reap_once(fixture, 2 * SECOND);
        if (life == LIVES / 5)
            bytes = tri_pool_bytes();
    }
    assert_int_equal(fixture->died, LIVES - tri_array_len(living));
    assert_in_range(atomic_load(&fixture->channels), 1,
                    tri_array_len(living));
    assert_in_range(tri_pool_bytes(), 0, bytes + (64u << 10));
    getrusage(RUSAGE_SELF, &after);
    /* Sanitizers keep what was freed for a while. */
#if !defined(TRI_SANITIZE_ADDRESS) && !defined(TRI_SANITIZE_THREAD)
    assert_in_range(after.ru_maxrss - before.ru_maxrss, 0, 8192); /* KiB */
#endif
    for (unsigned i = 0; i < tri_array_len(living); i++)
        assert_ptr_equal(tri_link_find(&fixture->link, living[i]->node),
                         living[i]);
}

/* A table of which little is used costs little. */
static void test_unused_slots_cost_nothing(void **state)
{
    struct rusage before, after;
    struct fixture *fixture;

    (void)state;
    getrusage(RUSAGE_SELF, &before);
    fixture = open_fixture(NODES);
    for (uint64_t node = 1; node <= 16; node++)
        add(fixture, node);
    getrusage(RUSAGE_SELF, &after);
    assert_in_range(after.ru_maxrss - before.ru_maxrss, 0, 1024); /* KiB */
    for (uint64_t node = 17; node <= CROWD; node++)
        add(fixture, 2000000 + node);
    for (uint64_t node = 17; node <= CROWD; node++)
        assert_non_null(tri_link_find(&fixture->link, 2000000 + node));
    tri_link_fini(&fixture->link);
    free(fixture);
}

/* --- readers while it changes --------------------------------------------- */

/* Ranks are found all the time; who joined is whom was asked for, or nobody. */
static void *read_all(void *arg)
{
    struct fixture *fixture = arg;
    struct tri_random random;

    tri_random_init(&random, fixture->seed);
    while (!atomic_load(&fixture->stop)) {
        uint64_t node = 3000000 + tri_random_below(&random, NODES);
        struct tri_peer *peer = tri_link_find(&fixture->link, node);
        struct tri_peer *rank = tri_link_find(&fixture->link,
                                              node_of_rank(1));

        if (rank != &fixture->link.peers[1] ||
            (peer != NULL && peer->node != node))
            abort();
        if (peer != NULL)
            tell(peer);
        tri_link_census(&fixture->link);
        tri_link_flush(&fixture->link);
    }
    tri_pool_thread_fini();
    return NULL;
}

/*
 * A reader may be kept from a core for longer than a minute of this test's
 * clock takes: peers leave their buckets here, but no slot is reused.
 */
static void test_readers(void **state)
{
    struct fixture *fixture = *state;
    pthread_t readers[READERS];
    uint64_t first = 3000000, node = first;

    tri_link_fini(&fixture->link);
    free(fixture);
    *state = fixture = open_fixture(NODES);
    fixture->seed = unit_seed("test_readers");
    for (unsigned i = 0; i < READERS; i++)
        readers[i] = unit_thread(read_all, fixture);
    for (; try_add(fixture, node, NULL) == 0; node++) {
        if (node % 3 == 0)
            tri_link_kill(tri_link_find(&fixture->link, node));
        if (node % NODES_PER_REAP == 0)
            reap_once(fixture, 10 * SECOND);
    }
    atomic_store(&fixture->stop, true);
    for (unsigned i = 0; i < READERS; i++)
        unit_join(readers[i]);
    assert_int_equal(node - first, NODES - RANKS);
    assert_null(tri_link_find(&fixture->link, first));
    for (uint64_t n = first; n < node; n++)
        assert_true(n % 3 == 0 || tri_link_find(&fixture->link, n) != NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_add),
        TEST(test_slot_is_reused_in_time),
        TEST(test_calls_alone_free_nothing),
        TEST(test_rank_keeps_its_slot),
        TEST(test_transport_has_a_say),
        TEST(test_suspect),
        TEST(test_heard),
        TEST(test_memory),
        TEST(test_lives),
        TEST(test_unused_slots_cost_nothing),
        TEST(test_readers),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
