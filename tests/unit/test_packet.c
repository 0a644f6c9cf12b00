/* SPDX-License-Identifier: BSD-3-Clause */
/* Control datagrams: what was sealed opens and means the same; all else is
 * refused with a reason, and a repeated one is known. */
#include "unit.h"

#include <openssl/err.h>

#include "member/packet.h"

#define CLUSTER 0xc1c2c3c4c5c6c7c8ull
#define HERE 0x0102030405060708ull
#define THERE 0x1112131415161718ull

static unsigned char job_key[TRI_KEY_BYTES];
static struct tri_packet_key *key;

static int setup(void **state)
{
    unit_group_setup(state);
    for (unsigned i = 0; i < TRI_KEY_BYTES; i++)
        job_key[i] = (unsigned char)i;
    return tri_packet_key_create(job_key, TRI_SEAL_AUTH, &key);
}

static int teardown(void **state)
{
    (void)state;
    tri_packet_key_destroy(&key);
    tri_packet_key_destroy(&key); /* nothing */
    return 0;
}

static struct tri_packet packet_of(uint8_t kind, const void *body,
                                   size_t bytes)
{
    return (struct tri_packet){
        .kind = kind,
        .cluster = CLUSTER,
        .source = HERE,
        .destination = THERE,
        .counter = 0x2122232425262728ull,
        .view_epoch = 0x3132333435363738ull,
        .view_digest = 0x4142434445464748ull,
        .body = body,
        .body_bytes = (uint32_t)bytes,
    };
}

/* Opens a copy of exactly so many bytes, so that a read behind it is seen. */
static const char *open_copy(struct tri_packet_key *with,
                             const unsigned char *data, size_t bytes)
{
    unsigned char *copy = malloc(bytes + (bytes == 0));
    struct tri_packet packet;
    const char *wrong;

    assert_non_null(copy);
    memcpy(copy, data, bytes);
    wrong = tri_packet_open(with, copy, bytes, &packet);
    if (!wrong) /* read it all */
        assert_int_not_equal(tri_fnv64(1, packet.body, packet.body_bytes), 0);
    free(copy);
    return wrong;
}

/* --- header and tag ------------------------------------------------------- */

static void assert_same_header(const struct tri_packet *a,
                               const struct tri_packet *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->cluster, b->cluster);
    assert_int_equal(a->source, b->source);
    assert_int_equal(a->destination, b->destination);
    assert_int_equal(a->counter, b->counter);
    assert_int_equal(a->view_epoch, b->view_epoch);
    assert_int_equal(a->view_digest, b->view_digest);
    assert_int_equal(a->body_bytes, b->body_bytes);
    assert_memory_equal(a->body, b->body, a->body_bytes);
}

static void test_round_trips(void **state)
{
    static const uint8_t kinds[] = {
        TRI_SWIM_PING,        TRI_SWIM_ACK,        TRI_SWIM_PING_REQ,
        TRI_SWIM_NACK,        TRI_SWIM_GOSSIP,     TRI_SWIM_JOIN,
        TRI_SWIM_JOIN_RETRY,  TRI_SWIM_DIGEST,     TRI_SWIM_BUCKETS_,
        TRI_SWIM_STATE_REQ,   TRI_SWIM_STATE,      TRI_SWIM_ANNOUNCE,
        TRI_SWIM_EXCLUDED,    TRI_PACKET_CHALLENGE, TRI_PACKET_REFUSED,
        TRI_PACKET_REGISTRY,  TRI_PACKET_TRAITS,
    };
    static const size_t sizes[] = { 0, 1, 16, 1000, TRI_PACKET_BODY_MAX };
    unsigned char body[TRI_PACKET_BODY_MAX], data[TRI_PACKET_BYTES_MAX];
    struct tri_packet opened;

    (void)state;
    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (unsigned char)(i * 7);
    for (unsigned sealed = 0; sealed < 2; sealed++)
        for (size_t i = 0; i < tri_array_len(kinds); i++)
            for (size_t k = 0; k < tri_array_len(sizes); k++) {
                struct tri_packet packet =
                    packet_of(kinds[i], body, sizes[k]);
                struct tri_packet_key *with = sealed ? key : NULL;
                size_t bytes = tri_packet_seal(with, &packet, data);

                assert_int_equal(bytes, TRI_PACKET_HEADER_BYTES + sizes[k] +
                                            (sealed ? TRI_PACKET_TAG_BYTES
                                                    : 0));
                assert_true(bytes <= TRI_PACKET_BYTES_MAX);
                assert_null(tri_packet_open(with, data, bytes, &opened));
                assert_same_header(&packet, &opened);
                assert_ptr_equal(opened.body, data + TRI_PACKET_HEADER_BYTES);
            }
}

/* Computed apart from this code: HKDF and HMAC in Python. */
static void test_known_packet(void **state)
{
    static const unsigned char expected[] = {
        0x54, 0x52, 0x4d, 0x31, 0x01, 0x05, 0x01, 0x00, 0xc8, 0xc7, 0xc6, 0xc5,
        0xc4, 0xc3, 0xc2, 0xc1, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25,
        0x24, 0x23, 0x22, 0x21, 0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,
        0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41, 'h',  'e',  'l',  'l',
        'o',
        0xab, 0xf0, 0x24, 0xfa, 0x04, 0xd9, 0xd7, 0x99,
        0x26, 0x77, 0x15, 0x61, 0x43, 0x87, 0x83, 0x67,
    };
    unsigned char data[TRI_PACKET_BYTES_MAX], cookie[TRI_PACKET_TAG_BYTES];
    struct tri_packet packet = packet_of(TRI_SWIM_GOSSIP, "hello", 5);
    static const unsigned char expected_cookie[TRI_PACKET_TAG_BYTES] = {
        0xec, 0xfc, 0xf4, 0xad, 0x45, 0x2a, 0x04, 0xa4,
        0x4e, 0x55, 0xc7, 0xda, 0xe1, 0x71, 0x62, 0x62,
    };

    (void)state;
    assert_int_equal(tri_packet_seal(key, &packet, data), sizeof(expected));
    assert_memory_equal(data, expected, sizeof(expected));
    /* Not the tag of the same bytes. */
    assert_int_equal(
        tri_packet_mac(key, expected, sizeof(expected) - 16, cookie), 0);
    assert_memory_equal(cookie, expected_cookie, sizeof(cookie));
}

static void test_body_in_place(void **state)
{
    unsigned char data[TRI_PACKET_BYTES_MAX];
    struct tri_packet packet =
        packet_of(TRI_SWIM_GOSSIP, data + TRI_PACKET_HEADER_BYTES, 100);
    struct tri_packet opened;
    size_t bytes;

    (void)state;
    memset(data, 5, sizeof(data));
    bytes = tri_packet_seal(key, &packet, data);
    assert_null(tri_packet_open(key, data, bytes, &opened));
    assert_int_equal(opened.body[0], 5);
    assert_int_equal(opened.body[99], 5);
    packet.body_bytes = TRI_PACKET_BODY_MAX + 1;
    assert_int_equal(tri_packet_seal(key, &packet, data), 0);
    assert_int_equal(tri_packet_seal(NULL, &packet, data), 0);
}

/* --- what is refused ------------------------------------------------------ */

static void test_flipped_bits(void **state)
{
    unsigned char data[TRI_PACKET_BYTES_MAX];
    struct tri_packet packet = packet_of(TRI_SWIM_GOSSIP, "some rumours", 12);
    size_t bytes = tri_packet_seal(key, &packet, data);

    (void)state;
    for (size_t bit = 0; bit < 8 * bytes; bit++) {
        unsigned char mask = (unsigned char)(1u << bit % 8);

        data[bit / 8] ^= mask;
        if (!open_copy(key, data, bytes))
            fail_msg("bit %zu may be flipped", bit);
        data[bit / 8] ^= mask;
    }
    assert_null(open_copy(key, data, bytes));
    assert_int_equal(ERR_peek_error(), 0);
}

static void test_other_lengths(void **state)
{
    unsigned char data[TRI_PACKET_BYTES_MAX + 100] = { 0 };
    struct tri_packet packet = packet_of(TRI_SWIM_GOSSIP, "some rumours", 12);
    size_t bytes = tri_packet_seal(key, &packet, data);

    (void)state;
    for (size_t n = 0; n < sizeof(data); n++)
        if (n != bytes)
            assert_non_null(open_copy(key, data, n));
    /* Without a tag only the header's length and the most are checked here. */
    bytes = tri_packet_seal(NULL, &packet, data);
    for (size_t n = 0; n < TRI_PACKET_HEADER_BYTES; n++)
        assert_non_null(open_copy(NULL, data, n));
    assert_null(open_copy(NULL, data, bytes));
    assert_non_null(open_copy(
        NULL, data, TRI_PACKET_HEADER_BYTES + TRI_PACKET_BODY_MAX + 1));
}

static void test_other_keys(void **state)
{
    unsigned char other_key[TRI_KEY_BYTES] = { 1 };
    unsigned char data[TRI_PACKET_BYTES_MAX], plain[TRI_PACKET_BYTES_MAX];
    struct tri_packet packet = packet_of(TRI_SWIM_GOSSIP, "some rumours", 12);
    size_t bytes = tri_packet_seal(key, &packet, data);
    size_t plain_bytes = tri_packet_seal(NULL, &packet, plain);
    struct tri_packet_key *other = NULL, *mode = NULL;

    (void)state;
    assert_int_equal(tri_packet_key_create(other_key, TRI_SEAL_AUTH, &other),
                     0);
    assert_int_equal(tri_packet_key_create(job_key, TRI_SEAL_ENCRYPT, &mode),
                     0);
    assert_ptr_equal(open_copy(other, data, bytes), tri_packet_other_key);
    /* The job's key, but its messages could not be read. */
    assert_ptr_equal(open_copy(mode, data, bytes), tri_packet_other_key);
    assert_ptr_equal(open_copy(NULL, data, bytes), tri_packet_sealed);
    assert_ptr_equal(open_copy(key, plain, plain_bytes),
                     tri_packet_not_sealed);
    /* Also right behind a failure the key opens what is its own. */
    assert_null(open_copy(key, data, bytes));
    tri_packet_key_destroy(&mode);
    tri_packet_key_destroy(&other);
    assert_null(other);
}

/* Of what has a good tag, and without tags. */
static void test_wrong_headers(void **state)
{
    static const struct {
        size_t at;
        unsigned char value;
        const char *reason; /* NULL: any */
    } cases[] = {
        { 0, 'X', NULL },  { 3, '2', NULL },
        { 4, 2, tri_packet_other_version }, { 4, 0, tri_packet_other_version },
        { 5, 0, NULL },    { 5, TRI_SWIM_KIND_LAST + 1, NULL },
        { 5, TRI_PACKET_CHALLENGE - 1, NULL },
        { 5, TRI_PACKET_TRAITS + 1, NULL }, { 5, 255, NULL },
        { 6, 2, NULL },    { 6, 0x80, NULL }, { 7, 1, NULL },
    };
    unsigned char data[TRI_PACKET_BYTES_MAX];

    (void)state;
    for (size_t i = 0; i < tri_array_len(cases); i++) {
        struct tri_packet packet = packet_of(TRI_SWIM_PING, "x", 1);
        size_t bytes = tri_packet_seal(NULL, &packet, data);
        const char *wrong;

        data[cases[i].at] = cases[i].value;
        wrong = open_copy(NULL, data, bytes);
        assert_non_null(wrong);
        if (cases[i].reason)
            assert_ptr_equal(wrong, cases[i].reason);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct tri_packet packet = packet_of(TRI_SWIM_PING, "x", 1);

        *(i == 0 ? &packet.source : &packet.counter) = 0;
        assert_non_null(
            open_copy(key, data, tri_packet_seal(key, &packet, data)));
        packet = packet_of((uint8_t)(i == 0 ? 0 : 200), "x", 1);
        assert_non_null(
            open_copy(key, data, tri_packet_seal(key, &packet, data)));
    }
}

static void test_clusters(void **state)
{
    static const uint8_t joins[] = { TRI_SWIM_JOIN, TRI_SWIM_JOIN_RETRY,
                                     TRI_PACKET_CHALLENGE,
                                     TRI_PACKET_REFUSED };
    struct tri_packet packet = packet_of(TRI_SWIM_PING, NULL, 0);

    (void)state;
    assert_null(tri_packet_check(&packet, CLUSTER, THERE));
    assert_null(tri_packet_check(&packet, 0, THERE)); /* about to join */
    assert_ptr_equal(tri_packet_check(&packet, CLUSTER + 1, THERE),
                     tri_packet_other_cluster);
    assert_ptr_equal(tri_packet_check(&packet, CLUSTER, THERE + 1),
                     tri_packet_other_node);
    packet.cluster = 0;
    assert_ptr_equal(tri_packet_check(&packet, CLUSTER, THERE),
                     tri_packet_other_cluster);
    assert_ptr_equal(tri_packet_check(&packet, 0, THERE),
                     tri_packet_other_cluster);
    packet.cluster = CLUSTER;
    packet.destination = 0;
    assert_ptr_equal(tri_packet_check(&packet, CLUSTER, THERE),
                     tri_packet_other_node);
    for (size_t i = 0; i < tri_array_len(joins); i++) {
        packet = packet_of(joins[i], NULL, 0);
        packet.cluster = packet.destination = 0;
        assert_null(tri_packet_check(&packet, CLUSTER, THERE));
        packet.cluster = CLUSTER + 1; /* asks for another one by its id */
        assert_ptr_equal(tri_packet_check(&packet, CLUSTER, THERE),
                         tri_packet_other_cluster);
        packet.cluster = CLUSTER;
        packet.destination = HERE;
        assert_ptr_equal(tri_packet_check(&packet, CLUSTER, THERE),
                         tri_packet_other_node);
    }
}

/* --- repeated packets ----------------------------------------------------- */

static void test_window_edges(void **state)
{
    struct tri_packet_window window = { 0 };

    (void)state;
    assert_false(tri_packet_window_take(&window, 0));
    assert_true(tri_packet_window_take(&window, 1));
    assert_false(tri_packet_window_take(&window, 1));
    assert_true(tri_packet_window_take(&window, 64));
    assert_false(tri_packet_window_take(&window, 1)); /* oldest one kept */
    assert_true(tri_packet_window_take(&window, 2));
    assert_true(tri_packet_window_take(&window, 65));
    assert_false(tri_packet_window_take(&window, 1)); /* too old now */
    assert_false(tri_packet_window_take(&window, 2));
    assert_true(tri_packet_window_take(&window, 3));
    assert_true(tri_packet_window_take(&window, 65 + 64)); /* all forgotten */
    assert_false(tri_packet_window_take(&window, 65));
    assert_true(tri_packet_window_take(&window, 66));
    assert_true(tri_packet_window_take(&window, 65 + 64 + 63));
    assert_false(tri_packet_window_take(&window, 65 + 64));
    assert_true(tri_packet_window_take(&window, UINT64_MAX));
    assert_false(tri_packet_window_take(&window, UINT64_MAX));
    assert_true(tri_packet_window_take(&window, UINT64_MAX - 63));
    assert_false(tri_packet_window_take(&window, UINT64_MAX - 64));
}

/* Beside a window that remembers everything. */
static void test_window_random(void **state)
{
    enum { LAST = 4000 };
    static bool taken[LAST + 1];
    struct tri_packet_window window = { 0 };
    struct tri_random random;
    uint64_t highest = 0;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    for (unsigned i = 0; i < 40000 && highest < LAST; i++) {
        uint64_t low = highest > 70 ? highest - 70 : 1;
        uint64_t counter =
            low + tri_random_below(&random, 74 + (i % 97 == 0) * 80);
        bool expected;

        if (counter > LAST)
            continue;
        expected = !taken[counter] && counter + 64 > highest;
        assert_int_equal(tri_packet_window_take(&window, counter), expected);
        taken[counter] |= expected;
        highest = expected && counter > highest ? counter : highest;
    }
}

/* --- cards ---------------------------------------------------------------- */

static void fill(struct tri_random *random, void *data, size_t bytes)
{
    unsigned char *at = data;

    for (size_t i = 0; i < bytes; i++)
        at[i] = (unsigned char)tri_random_next(random);
}

/* Everything as long as it may be, or at random. */
static struct tri_member_card card_of(struct tri_random *random, uint64_t node,
                                      bool largest)
{
    struct tri_member_card card = { .node = node };
    size_t name_bytes = largest
                            ? TRI_MEMBER_NAME_MAX
                            : tri_random_below(random, TRI_MEMBER_NAME_MAX + 1);

    fill(random, &card.host, sizeof(card.host));
    fill(random, &card.job, sizeof(card.job));
    fill(random, &card.started, sizeof(card.started));
    fill(random, &card.pid, sizeof(card.pid));
    fill(random, &card.cores, sizeof(card.cores));
    fill(random, &card.interface, sizeof(card.interface));
    card.size = (int32_t)tri_random_below(random, 1000);
    card.rank = (int32_t)tri_random_below(random, (uint32_t)card.size + 1) - 1;
    card.control.family =
        largest ? 6 : (uint8_t)(2 * (1 + tri_random_below(random, 3)));
    if (card.control.family == 2)
        card.control.family = 0;
    if (card.control.family != 0) {
        card.control.port = (uint16_t)(1 + tri_random_below(random, 65535));
        fill(random, card.control.ip, tri_endpoint_ip_bytes(&card.control));
    }
    card.ring.bytes =
        (uint16_t)(largest ? TRI_ADDRESS_BYTES_MAX
                           : tri_random_below(random,
                                              TRI_ADDRESS_BYTES_MAX + 1));
    fill(random, card.ring.data, card.ring.bytes);
    card.fabric.bytes =
        (uint16_t)(largest ? TRI_ADDRESS_BYTES_MAX
                           : tri_random_below(random,
                                              TRI_ADDRESS_BYTES_MAX + 1));
    fill(random, card.fabric.data, card.fabric.bytes);
    for (size_t i = 0; i < name_bytes; i++)
        card.name[i] = (char)(' ' + tri_random_below(random, 0x7f - ' '));
    return card;
}

static void assert_same_card(const struct tri_member_card *a,
                             const struct tri_member_card *b)
{
    assert_int_equal(a->node, b->node);
    assert_int_equal(a->host, b->host);
    assert_int_equal(a->job, b->job);
    assert_int_equal(a->started, b->started);
    assert_int_equal(a->rank, b->rank);
    assert_int_equal(a->size, b->size);
    assert_int_equal(a->pid, b->pid);
    assert_int_equal(a->cores, b->cores);
    assert_int_equal(a->interface, b->interface);
    assert_true(tri_endpoint_equal(&a->control, &b->control));
    assert_int_equal(a->ring.bytes, b->ring.bytes);
    assert_memory_equal(a->ring.data, b->ring.data, a->ring.bytes);
    assert_int_equal(a->fabric.bytes, b->fabric.bytes);
    assert_memory_equal(a->fabric.data, b->fabric.data, a->fabric.bytes);
    assert_string_equal(a->name, b->name);
}

static void test_cards(void **state)
{
    unsigned char data[TRI_CARD_BYTES_MAX + 8];
    struct tri_random random;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    for (unsigned i = 0; i < 2000; i++) {
        struct tri_member_card card =
            card_of(&random, 1 + tri_random_next(&random) / 2, i % 10 == 0);
        struct tri_member_card again;
        size_t bytes, used;

        assert_true(tri_card_is_valid(&card));
        memset(data, 0xaa, sizeof(data));
        bytes = tri_card_encode(&card, data);
        assert_in_range(bytes, 1, TRI_CARD_BYTES_MAX);
        assert_int_equal(data[bytes], 0xaa);
        assert_null(tri_card_decode(data, sizeof(data), &again, &used));
        assert_int_equal(used, bytes);
        assert_same_card(&card, &again);
        for (size_t n = 0; i < 20 && n < bytes; n++)
            assert_non_null(tri_card_decode(data, n, &again, &used));
    }
}

static void test_bad_cards(void **state)
{
    struct tri_member_card good = { .node = 1, .size = 2, .rank = 1 }, card;
    unsigned char data[TRI_CARD_BYTES_MAX];
    size_t used, bytes;

    (void)state;
    assert_true(tri_card_is_valid(&good));
    card = good, card.node = 0;
    assert_false(tri_card_is_valid(&card));
    card = good, card.rank = 2;
    assert_false(tri_card_is_valid(&card));
    card = good, card.rank = -2;
    assert_false(tri_card_is_valid(&card));
    card = good, card.size = -1, card.rank = -1;
    assert_false(tri_card_is_valid(&card));
    card = good, card.control.family = 5, card.control.port = 1;
    assert_false(tri_card_is_valid(&card));
    card = good, card.control.family = 4; /* no port */
    assert_false(tri_card_is_valid(&card));
    card = good, card.control.family = 4, card.control.port = 1;
    assert_true(tri_card_is_valid(&card));
    card.control.ip[4] = 1;
    assert_false(tri_card_is_valid(&card));
    card = good, strcpy(card.name, "a\033[2Jb");
    assert_false(tri_card_is_valid(&card));
    card = good, memset(card.name, 'a', sizeof(card.name));
    assert_false(tri_card_is_valid(&card));
    card = good, strcpy(card.name, "Zo\303\253");
    assert_true(tri_card_is_valid(&card));
    card = good, card.ring.bytes = TRI_ADDRESS_BYTES_MAX + 1;
    assert_false(tri_card_is_valid(&card));

    /* And as bytes: node, rank, family, lengths, name. */
    strcpy(good.name, "name");
    bytes = tri_card_encode(&good, data);
    for (unsigned i = 0; i < 6; i++) {
        static const struct {
            size_t at; /* from the end */
            unsigned char value;
        } changes[] = { { 60, 0 }, { 25, 9 }, { 8, 3 },
                        { 7, 97 }, { 1, 0 },  { 1, '\n' } };
        unsigned char changed[TRI_CARD_BYTES_MAX];

        memcpy(changed, data, bytes);
        assert_int_equal(bytes, 52 + 1 + 1 + 1 + 5);
        changed[bytes - changes[i].at] = changes[i].value;
        assert_non_null(tri_card_decode(changed, bytes, &card, &used));
    }
}

/* --- bodies of SWIM ------------------------------------------------------- */

struct deck {
    struct tri_member_card cards[TRI_SWIM_RUMOURS_MAX];
    unsigned len;
};

static const struct tri_member_card *deal(void *context, uint64_t node)
{
    struct deck *deck = context;

    for (unsigned i = 0; i < deck->len; i++)
        if (deck->cards[i].node == node)
            return &deck->cards[i];
    return NULL;
}

static struct tri_rumour rumour_of(struct tri_random *random, uint64_t node)
{
    struct tri_rumour rumour = {
        .node = node,
        .state =
            (uint8_t)(1 + tri_random_below(random, TRI_SWIM_STATE_LAST)),
        .incarnation = (uint32_t)tri_random_next(random),
    };

    if (rumour.state == TRI_SWIM_SUSPECT || rumour.state == TRI_SWIM_DEAD) {
        rumour.accuser = tri_random_next(random);
        rumour.evidence =
            (uint8_t)tri_random_below(random, TRI_SWIM_EVIDENCE_LAST + 1);
    }
    return rumour;
}

/* A random packet of a kind; cards_every: 0: no rumour has one. */
static void swim_of(struct tri_random *random, uint8_t kind,
                    unsigned rumours_len, unsigned cards_every, bool largest,
                    struct tri_swim_packet *swim, struct deck *deck)
{
    memset(swim, 0, sizeof(*swim));
    deck->len = 0;
    swim->kind = kind;
    swim->from = HERE;
    swim->to = THERE;
    swim->incarnation = (uint32_t)tri_random_next(random);
    swim->alive_len = (uint32_t)tri_random_next(random);
    swim->lowest = tri_random_next(random);
    if (largest || tri_random_below(random, 2))
        swim->sequence = UINT32_MAX - tri_random_below(random, 5);
    if (largest || tri_random_below(random, 2))
        swim->target = tri_random_next(random);
    if (largest || tri_random_below(random, 2))
        swim->delay_us = (uint32_t)tri_random_next(random);
    if (largest || tri_random_below(random, 2))
        swim->cursor = (uint32_t)tri_random_next(random);
    if (largest || tri_random_below(random, 2))
        swim->retry_ms = 1 + tri_random_below(random, 1000);
    if (largest || tri_random_below(random, 2))
        swim->digest = tri_random_next(random);
    if (largest || tri_random_below(random, 2))
        swim->flags =
            (uint8_t)(1 + tri_random_below(random, TRI_SWIM_FLAGS_ALL));
    if (largest || tri_random_below(random, 2))
        swim->start = (uint32_t)tri_random_next(random);
    if (largest || tri_random_below(random, 2))
        swim->mask = tri_random_next(random);
    if (kind == TRI_SWIM_BUCKETS_)
        fill(random, swim->buckets, sizeof(swim->buckets));
    swim->rumours_len = (uint16_t)rumours_len;
    for (unsigned i = 0; i < rumours_len; i++) {
        struct tri_rumour *rumour = &swim->rumours[i];

        *rumour = rumour_of(random, 1 + tri_random_next(random) / 2);
        if (cards_every == 0 || i % cards_every != 0)
            continue;
        rumour->with_card = 1;
        deck->cards[deck->len++] = card_of(random, rumour->node, largest);
    }
    if (kind == TRI_SWIM_JOIN) {
        swim->rumours[0].node = HERE;
        swim->rumours[0].state = TRI_SWIM_ALIVE;
        swim->rumours[0].accuser = swim->rumours[0].evidence = 0;
        deck->cards[0].node = HERE;
    }
}

static size_t encode(const struct tri_swim_packet *swim, struct deck *deck,
                     unsigned char body[TRI_PACKET_BODY_MAX + 8],
                     uint32_t *len_p)
{
    size_t bytes;

    memset(body + TRI_PACKET_BODY_MAX, 0xbb, 8);
    bytes = tri_packet_encode_swim(swim, deal, deck, body, len_p);
    assert_in_range(bytes, 1, TRI_PACKET_BODY_MAX);
    assert_true(*len_p <= swim->rumours_len);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(body[TRI_PACKET_BODY_MAX + i], 0xbb);
    return bytes;
}

/* Sealed, opened, decoded: it is the same but for the rumours left out. */
static void assert_travels(const struct tri_swim_packet *swim,
                           struct deck *deck, uint32_t *len_p)
{
    unsigned char body[TRI_PACKET_BODY_MAX + 8], data[TRI_PACKET_BYTES_MAX];
    static struct tri_member_card cards[TRI_SWIM_RUMOURS_MAX];
    struct tri_swim_packet again, expected = *swim;
    struct tri_packet packet, opened;
    size_t bytes = encode(swim, deck, body, len_p);

    packet = packet_of(swim->kind, body, bytes);
    bytes = tri_packet_seal(key, &packet, data);
    assert_in_range(bytes, 1, TRI_PACKET_BYTES_MAX);
    assert_null(tri_packet_open(key, data, bytes, &opened));
    assert_null(tri_packet_decode_swim(&opened, &again, cards));
    expected.rumours_len = (uint16_t)*len_p;
    for (unsigned i = *len_p; i < TRI_SWIM_RUMOURS_MAX; i++)
        memset(&expected.rumours[i], 0, sizeof(expected.rumours[i]));
    /* Never sent: which seed it goes to. */
    expected.seed = 0;
    for (unsigned i = 0; i < *len_p; i++) {
        const struct tri_member_card *card =
            swim->rumours[i].with_card ? deal(deck, swim->rumours[i].node)
                                       : NULL;

        expected.rumours[i].with_card = card != NULL;
        if (card)
            assert_same_card(card, &cards[i]);
    }
    assert_memory_equal(&again, &expected, sizeof(again));
}

static void test_swim_round_trips(void **state)
{
    static struct tri_swim_packet swim;
    static struct deck deck;
    struct tri_random random;
    uint32_t len;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    for (unsigned i = 0; i < 3000; i++) {
        uint8_t kind = (uint8_t)(1 + i % TRI_SWIM_KIND_LAST);
        bool is_join = kind == TRI_SWIM_JOIN;
        unsigned n = is_join ? 1 : tri_random_below(&random, 20);

        swim_of(&random, kind, n,
                is_join ? 1 : tri_random_below(&random, 4) * 3, i % 5 == 0,
                &swim, &deck);
        assert_travels(&swim, &deck, &len);
        if (is_join)
            assert_int_equal(len, 1);
    }
}

/* A card that is not to be had does not keep the rumour from going. */
static void test_rumour_without_its_card(void **state)
{
    static struct tri_swim_packet swim;
    static struct deck deck;
    struct tri_random random;
    uint32_t len;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    swim_of(&random, TRI_SWIM_GOSSIP, 5, 1, false, &swim, &deck);
    deck.len = 2;
    assert_travels(&swim, &deck, &len);
    assert_true(len >= 2);
}

/* The numbers that the core reckons with hold for everything. */
static void test_budget(void **state)
{
    static struct tri_swim_packet swim;
    static struct deck deck;
    struct tri_random random;
    unsigned fit = (TRI_PACKET_BYTES_MAX - TRI_PACKET_SWIM_BYTES) /
                   TRI_PACKET_RUMOUR_BYTES;
    uint32_t len;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    fit = fit < TRI_SWIM_RUMOURS_MAX ? fit : TRI_SWIM_RUMOURS_MAX;
    assert_true(fit >= 40); /* the research asks for 40 to 60 */
    for (uint8_t kind = 1; kind <= TRI_SWIM_KIND_LAST; kind++) {
        size_t buckets =
            kind == TRI_SWIM_BUCKETS_ ? TRI_PACKET_BUCKETS_BYTES : 0;
        size_t room =
            TRI_PACKET_BYTES_MAX - TRI_PACKET_SWIM_BYTES - buckets;

        if (kind == TRI_SWIM_JOIN)
            continue;
        swim_of(&random, kind, TRI_SWIM_RUMOURS_MAX, 0, true, &swim, &deck);
        for (unsigned i = 0; i < TRI_SWIM_RUMOURS_MAX; i++)
            swim.rumours[i].state = TRI_SWIM_DEAD; /* the longest ones */
        assert_travels(&swim, &deck, &len);
        assert_int_equal(len, tri_min(room / TRI_PACKET_RUMOUR_BYTES,
                                      TRI_SWIM_RUMOURS_MAX));
        /* With the largest cards: left out from the end, and reported. */
        swim_of(&random, kind, TRI_SWIM_RUMOURS_MAX, 1, true, &swim, &deck);
        assert_travels(&swim, &deck, &len);
        assert_in_range(
            len,
            room / (TRI_PACKET_RUMOUR_BYTES + TRI_CARD_BYTES_MAX),
            TRI_SWIM_RUMOURS_MAX - 1);
        assert_true(len >= 1);
    }
}

/* Every shorter body, and a longer one, is refused; flipped bits and noise
 * never crash, and what is taken has one form only. */
static void test_bad_bodies(void **state)
{
    unsigned char body[TRI_PACKET_BODY_MAX + 8];
    static struct tri_member_card cards[TRI_SWIM_RUMOURS_MAX];
    static struct tri_swim_packet swim, again;
    static struct deck deck;
    struct tri_random random;
    uint32_t len;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    for (uint8_t kind = 1; kind <= TRI_SWIM_KIND_LAST; kind++) {
        struct tri_packet packet;
        size_t bytes;

        swim_of(&random, kind, kind == TRI_SWIM_JOIN ? 1 : 6,
                kind == TRI_SWIM_JOIN ? 1 : 3, false, &swim, &deck);
        bytes = encode(&swim, &deck, body, &len);
        for (size_t n = 0; n < bytes; n++) {
            unsigned char *copy = malloc(n + (n == 0));

            assert_non_null(copy);
            memcpy(copy, body, n);
            packet = packet_of(kind, copy, n);
            assert_non_null(tri_packet_decode_swim(&packet, &again, cards));
            free(copy);
        }
        packet = packet_of(kind, body, bytes + 1);
        assert_non_null(tri_packet_decode_swim(&packet, &again, cards));
        for (size_t bit = 0; bit < 8 * bytes; bit++) {
            body[bit / 8] ^= (unsigned char)(1u << bit % 8);
            packet = packet_of(kind, body, bytes);
            (void)tri_packet_decode_swim(&packet, &again, cards);
            body[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
    }
}

static void test_wrong_bodies(void **state)
{
    unsigned char body[TRI_PACKET_BODY_MAX + 8];
    static struct tri_member_card cards[TRI_SWIM_RUMOURS_MAX];
    static struct tri_swim_packet swim, again;
    static struct deck deck;
    static const struct {
        size_t at;
        unsigned char value;
    } changes[] = {
        { 0, TRI_PACKET_SEQUENCE }, /* a field that is not there */
        { 0, TRI_PACKET_FLAGS },
        { 1, TRI_PACKET_BUCKETS >> 8 },
        { 1, 0x04 },                /* one that does not exist */
        { 1, 0x80 },
        { 2, 2 },                   /* rumours */
        { 2, 0 },
        { 2, TRI_SWIM_RUMOURS_MAX + 1 },
        { 3, 1 },
        { 28, 0 },                  /* state */
        { 28, TRI_SWIM_STATE_LAST + 1 },
        { 28, 0x40 | TRI_SWIM_ALIVE },
        { 28, 0x20 | TRI_SWIM_ALIVE },
        { 28, TRI_SWIM_DEAD },      /* no accuser */
    };
    struct tri_packet packet;
    uint32_t len;
    size_t bytes;

    (void)state;
    memset(&swim, 0, sizeof(swim));
    swim.kind = TRI_SWIM_GOSSIP;
    swim.rumours_len = 1;
    swim.rumours[0].node = 7;
    swim.rumours[0].state = TRI_SWIM_ALIVE;
    bytes = encode(&swim, &deck, body, &len);
    packet = packet_of(TRI_SWIM_GOSSIP, body, bytes);
    assert_null(tri_packet_decode_swim(&packet, &again, cards));
    for (size_t i = 0; i < tri_array_len(changes); i++) {
        unsigned char before = body[changes[i].at];

        body[changes[i].at] = changes[i].value;
        assert_non_null(tri_packet_decode_swim(&packet, &again, cards));
        body[changes[i].at] = before;
    }
    swim.flags = TRI_SWIM_FLAGS_ALL + 1;
    packet = packet_of(TRI_SWIM_GOSSIP, body,
                       encode(&swim, &deck, body, &len));
    assert_non_null(tri_packet_decode_swim(&packet, &again, cards));
    swim.flags = 0;
    packet = packet_of(TRI_SWIM_GOSSIP, body,
                       encode(&swim, &deck, body, &len));
    assert_null(tri_packet_decode_swim(&packet, &again, cards));
    memset(body + 20, 0, 8); /* of no node */
    assert_non_null(tri_packet_decode_swim(&packet, &again, cards));
    packet.kind = TRI_PACKET_REGISTRY;
    assert_non_null(tri_packet_decode_swim(&packet, &again, cards));
}

/* --- joining -------------------------------------------------------------- */

static void test_joins(void **state)
{
    unsigned char body[TRI_PACKET_BODY_MAX + 8];
    static struct tri_member_card cards[TRI_SWIM_RUMOURS_MAX];
    static struct tri_swim_packet swim, again;
    static struct deck deck;
    struct tri_random random;
    struct tri_packet packet;
    uint32_t len;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    swim_of(&random, TRI_SWIM_JOIN, 1, 1, true, &swim, &deck);
    packet =
        packet_of(TRI_SWIM_JOIN, body, encode(&swim, &deck, body, &len));
    assert_null(tri_packet_decode_swim(&packet, &again, cards));

    /* For another node, without a card, about a dead one. */
    packet.source = THERE;
    assert_non_null(tri_packet_decode_swim(&packet, &again, cards));
    for (unsigned i = 0; i < 3; i++) {
        struct tri_swim_packet wrong = swim;

        if (i == 0)
            wrong.rumours_len = 0;
        else if (i == 1)
            wrong.rumours[0].with_card = 0;
        else
            wrong.rumours[0].state = TRI_SWIM_LEFT;
        packet =
            packet_of(TRI_SWIM_JOIN, body, encode(&wrong, &deck, body, &len));
        assert_non_null(tri_packet_decode_swim(&packet, &again, cards));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_known_packet),
        cmocka_unit_test(test_body_in_place),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_other_lengths),
        cmocka_unit_test(test_other_keys),
        cmocka_unit_test(test_wrong_headers),
        cmocka_unit_test(test_clusters),
        cmocka_unit_test(test_window_edges),
        cmocka_unit_test(test_window_random),
        cmocka_unit_test(test_cards),
        cmocka_unit_test(test_bad_cards),
        cmocka_unit_test(test_swim_round_trips),
        cmocka_unit_test(test_rumour_without_its_card),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_wrong_bodies),
        cmocka_unit_test(test_joins),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
