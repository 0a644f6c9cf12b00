/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "conf.h"

#define PATTERN_PERIOD 251 /* a prime: shifted payloads do not look alike */

static unsigned char pattern[TRI_RECORD_BYTES_MAX + PATTERN_PERIOD];

static void make_pattern(void)
{
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (unsigned char)(i % PATTERN_PERIOD);
}

static struct conf_peer *find(struct conf_end *end, uint64_t node)
{
    for (unsigned i = 0; i < end->peers_len; i++)
        if (end->peers[i].node == node)
            return &end->peers[i];
    return NULL;
}

static void *on_accept(void *context, uint64_t node)
{
    struct conf_end *end = context;
    struct conf_peer *peer;

    assert_int_not_equal(node, 0);
    atomic_fetch_add(&end->accepted, 1);
    if (end->knows_nobody || end->buries_all)
        return NULL;
    pthread_mutex_lock(&end->lock);
    peer = find(end, node);
    if (!peer && end->peers_len < CONF_NODES_MAX) {
        peer = &end->peers[end->peers_len];
        peer->end = end;
        peer->node = node;
        peer->takes = end->takes;
        end->peers_len++;
    }
    pthread_mutex_unlock(&end->lock);
    return peer;
}

/* Whatever a lane carries; MORE on both that have large messages. */
static uint8_t kind_of(enum tri_lane lane, uint64_t number)
{
    switch (lane) {
    case TRI_LANE_CONTROL:
        return TRI_QUIESCE;
    case TRI_LANE_REPLY:
        return number % 2 ? TRI_MORE : TRI_REPLY;
    default:
        return number % 4 ? TRI_TELL : TRI_MORE;
    }
}

static const unsigned char *bytes_of(enum tri_lane lane, uint64_t number)
{
    return pattern + (number + 100 * (unsigned)lane) % PATTERN_PERIOD;
}

bool conf_is_right(enum tri_lane lane, uint64_t number,
                   const struct tri_record *record, const void *payload)
{
    return record->ask == number && record->kind == kind_of(lane, number) &&
           record->value == (int32_t)lane &&
           record->bytes == record->total_bytes &&
           memcmp(payload, bytes_of(lane, number), record->bytes) == 0;
}

/* True when it is to be refused. */
static bool refuses(struct conf_end *end, struct conf_peer *peer)
{
    if (peer->refused) /* and not resumed: it must not be raised */
        atomic_fetch_add(&end->wrong, 1);
    if (peer->takes == CONF_ALL)
        return false;
    if (peer->takes == 0)
        peer->refused = true;
    else
        peer->takes--;
    return peer->refused;
}

static bool on_record(void *context, void *peer_, enum tri_lane lane,
                      const struct tri_record *record, const void *payload)
{
    struct conf_end *end = context;
    struct conf_peer *peer = peer_;
    bool right = peer->end == end && (unsigned)lane < TRI_LANES &&
                 conf_is_right(lane, record->ask, record, payload) &&
                 (end->may_lose ? record->ask >= peer->next[lane]
                                : record->ask == peer->next[lane]);

    if (!right)
        atomic_fetch_add(&end->wrong, 1);
    if (lane == TRI_LANE_DATA && refuses(end, peer))
        return false;
    peer->next[lane] = record->ask + 1;
    atomic_fetch_add(&peer->received[lane], 1);
    atomic_fetch_add(&end->received, 1);
    return true;
}

static void on_ended(void *context, void *peer_)
{
    struct conf_peer *peer = peer_;

    assert_ptr_equal(peer->end, context);
    atomic_fetch_add(&peer->ended, 1);
}

/* The newest nodes of this test, and where they are. */
static struct conf_contact contacts[4 * CONF_NODES_MAX];
static unsigned contacts_len;
static pthread_mutex_t contacts_lock = PTHREAD_MUTEX_INITIALIZER;

static void know(const struct conf_contact *contact)
{
    pthread_mutex_lock(&contacts_lock);
    contacts[contacts_len++ % tri_array_len(contacts)] = *contact;
    pthread_mutex_unlock(&contacts_lock);
}

static bool on_is_gone(void *context, uint64_t node)
{
    struct conf_end *end = context;

    (void)node;
    return end->buries_all;
}

static const struct tri_address *on_address(void *context, uint64_t node)
{
    const struct tri_address *address = NULL;
    struct conf_end *end = context;

    if (end->knows_nobody || end->buries_all)
        return NULL;
    pthread_mutex_lock(&contacts_lock);
    for (unsigned i = 0; i < tri_array_len(contacts); i++)
        if (contacts[i].node == node)
            address = &contacts[i].address;
    pthread_mutex_unlock(&contacts_lock);
    return address;
}

static void on_lost(void *context, uint64_t node, enum tri_evidence evidence)
{
    struct conf_end *end = context;

    end->lost_node = node;
    if (evidence == TRI_EVIDENCE_PROOF)
        atomic_fetch_add(&end->proofs, 1);
    else
        atomic_fetch_add(&end->hints, 1);
}

static void on_broke(void *context, uint64_t node)
{
    struct conf_end *end = context;

    assert_int_not_equal(node, 0);
    atomic_fetch_add(&end->broke, 1);
}

static void on_heard(void *context, void *peer_)
{
    struct conf_end *end = context;
    struct conf_peer *peer = peer_;

    assert_ptr_equal(peer->end, end);
    atomic_fetch_add(&end->heard, 1);
}

static void on_garbage(void *context, const char *reason)
{
    struct conf_end *end = context;

    assert_non_null(reason);
    atomic_fetch_add(&end->garbage, 1);
}

static void on_writable(void *context, void *peer)
{
    struct conf_end *end = context;

    assert_ptr_equal(peer, end);
    atomic_fetch_add(&end->writable, 1);
}

uint64_t conf_node_id(void)
{
    uint64_t node;

    assert_int_equal(getrandom(&node, sizeof(node), 0), sizeof(node));
    return node | 1;
}

uint64_t conf_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void conf_end_open(struct conf_end *end,
                   const struct conf_transport *transport, uint64_t nonce)
{
    struct tri_transport_config config = {
        .node = conf_node_id(),
        .job_nonce = nonce,
        .peers_max = CONF_NODES_MAX,
        .bell = &end->bell,
        .provider = transport->provider,
        .interface = transport->interface,
        .events = { .context = end,
                    .accept = on_accept,
                    .is_gone = on_is_gone,
                    .address = on_address,
                    .record = on_record,
                    .lost = on_lost,
                    .broke = on_broke,
                    .heard = on_heard,
                    .ended = on_ended,
                    .garbage = on_garbage,
                    .writable = on_writable },
    };

    struct conf_contact contact = { 0 };

    make_pattern();
    *end = (struct conf_end){ .under_test = transport,
                              .node = config.node,
                              .takes = CONF_ALL };
    pthread_mutex_init(&end->lock, NULL);
    assert_int_equal(tri_bell_init(&end->bell), 0);
    if (transport->configure)
        transport->configure(&config);
    assert_int_equal(transport->ops->open(&config, &end->transport), 0);
    assert_ptr_equal(end->transport->ops, transport->ops);
    assert_true(end->transport->record_bytes_max > 0);
    assert_true(end->transport->record_bytes_max <= TRI_RECORD_BYTES_MAX);
    contact.node = end->node;
    transport->ops->address(end->transport, &contact.address);
    assert_in_range(contact.address.bytes, 1, TRI_ADDRESS_BYTES_MAX);
    know(&contact);
}

void conf_end_close(struct conf_end *end)
{
    assert_int_equal(end->wrong, 0);
    end->transport->ops->close(end->transport);
    tri_bell_fini(&end->bell);
    pthread_mutex_destroy(&end->lock);
}

void conf_tell(int fd, const struct conf_end *end)
{
    struct conf_contact contact = { .node = end->node };

    end->transport->ops->address(end->transport, &contact.address);
    assert_int_equal(write(fd, &contact, sizeof(contact)), sizeof(contact));
}

struct conf_contact conf_hear(int fd)
{
    struct conf_contact contact;

    assert_int_equal(read(fd, &contact, sizeof(contact)), sizeof(contact));
    know(&contact);
    return contact;
}

void conf_end_dial(struct conf_end *end, const struct conf_contact *to)
{
    assert_int_equal(end->transport->ops->connect(end->transport, to->node,
                                                  &to->address, end,
                                                  &end->channel),
                     0);
}

void conf_end_connect(struct conf_end *end, struct conf_end *to)
{
    struct conf_contact contact = { .node = to->node };

    end->transport->ops->address(to->transport, &contact.address);
    conf_end_dial(end, &contact);
}

int conf_end_send_on(struct conf_end *end, enum tri_lane lane, size_t bytes)
{
    const struct tri_transport_ops *ops = end->transport->ops;
    uint64_t number = end->sent[lane];
    struct tri_span span;
    int error = ops->reserve(end->channel, lane, bytes, &span);

    if (error)
        return error;
    assert_int_equal((uintptr_t)span.payload % 8, 0);
    *span.record = (struct tri_record){ .kind = kind_of(lane, number),
                                        .bytes = (uint32_t)bytes,
                                        .total_bytes = (uint32_t)bytes,
                                        .ask = number,
                                        .value = (int32_t)lane };
    memcpy(span.payload, bytes_of(lane, number), bytes);
    ops->commit(end->channel);
    end->sent[lane]++;
    return 0;
}

void conf_end_fill(struct conf_end *end, size_t bytes)
{
    int error = 0;

    for (int i = 0; i < 100000 && !error; i++)
        error = conf_end_send(end, bytes);
    assert_int_equal(error, TROUPE_EFULL);
}

struct conf_peer *conf_peer(struct conf_end *end, const struct conf_end *of)
{
    static struct conf_peer nobody;
    struct conf_peer *peer;

    pthread_mutex_lock(&end->lock);
    peer = find(end, of->node);
    pthread_mutex_unlock(&end->lock);
    return peer ? peer : &nobody;
}

void conf_end_resume(struct conf_end *end, struct conf_peer *peer,
                     uint64_t takes)
{
    peer->takes = takes;
    peer->refused = false;
    end->transport->ops->resume(end->transport, peer);
}

bool conf_end_pending(struct conf_end *end)
{
    bool pending;

    tri_bell_arm(&end->bell);
    pending = end->transport->ops->pending(end->transport);
    tri_bell_disarm(&end->bell);
    return pending;
}

void conf_end_pump(struct conf_end *end)
{
    const struct tri_transport_ops *ops = end->transport->ops;

    if (end->under_test->step)
        end->under_test->step();
    if (ops->control)
        ops->control(end->transport);
    if (ops->flush && end->channel)
        ops->flush(end->channel);
    ops->poll(end->transport, 64);
}

size_t conf_size(const struct conf_end *end, uint64_t number)
{
    uint64_t random = tri_mix64(number + 1);
    size_t max = end->transport->record_bytes_max;

    if (random % 64 == 0)
        return max;
    if (random % 16 == 0)
        return (random >> 32) % (max + 1);
    return (random >> 32) % 200;
}

size_t conf_lane_size(const struct conf_end *end, enum tri_lane lane,
                      uint64_t number)
{
    size_t size = conf_size(end, number + 1000 * (unsigned)lane);

    return lane == TRI_LANE_CONTROL ? size % 200 : size;
}

const struct conf_transport *conf_under_test(void **state)
{
    alarm(CONF_WATCHDOG_S);
    return *state;
}

void conf_open_pair(void **state, struct conf_end *a, struct conf_end *b)
{
    const struct conf_transport *transport = conf_under_test(state);

    conf_end_open(a, transport, CONF_NONCE);
    conf_end_open(b, transport, CONF_NONCE);
}

void conf_close_pair(struct conf_end *a, struct conf_end *b)
{
    conf_end_close(a);
    conf_end_close(b);
}

uint64_t conf_seed(const char *test)
{
    const char *text = getenv("TROUPE_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : conf_node_id();

    printf("%s: TROUPE_TEST_SEED=%llu\n", test, (unsigned long long)seed);
    fflush(stdout);
    return seed;
}
