/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Control datagrams, as anybody may send them where security is "none", and
 * as who has the key may elsewhere: header, SWIM's bodies, cards. What is taken
 * is written again as the same bytes: a packet has one form.
 */

#include "fuzz.h"

#include "member/packet.h"

static struct tri_member_card cards[TRI_SWIM_RUMOURS_MAX];
static struct tri_swim_packet swim;

static const struct tri_member_card *card_of(void *context, uint64_t node)
{
    (void)context;
    /* The first of this node with a card: it may have several rumours. */
    for (unsigned i = 0; i < swim.rumours_len; i++)
        if (swim.rumours[i].node == node && swim.rumours[i].with_card)
            return &cards[i];
    return NULL;
}

static bool has_two_cards(void)
{
    for (unsigned i = 0; i < swim.rumours_len; i++)
        for (unsigned k = 0; k < i; k++)
            if (swim.rumours[i].node == swim.rumours[k].node)
                return true;
    return false;
}

static void feed_swim(const struct tri_packet *packet)
{
    unsigned char body[TRI_PACKET_BODY_MAX];
    uint32_t len;
    size_t bytes;

    if (tri_packet_decode_swim(packet, &swim, cards) != NULL)
        return;
    FUZZ_CHECK(swim.kind == packet->kind && swim.from == packet->source &&
               swim.to == packet->destination);
    FUZZ_CHECK(swim.rumours_len <= TRI_SWIM_RUMOURS_MAX);
    for (unsigned i = 0; i < swim.rumours_len; i++)
        FUZZ_CHECK(!swim.rumours[i].with_card ||
                   (tri_card_is_valid(&cards[i]) &&
                    cards[i].node == swim.rumours[i].node));
    if (has_two_cards())
        return;
    bytes = tri_packet_encode_swim(&swim, card_of, NULL, body, &len);
    FUZZ_CHECK(len == swim.rumours_len && bytes == packet->body_bytes);
    FUZZ_CHECK(memcmp(body, packet->body, bytes) == 0);
}

/* As a body of any kind, so that the fuzzer need not find the header. */
static void feed_body(const unsigned char *data, size_t bytes)
{
    struct tri_packet packet = { .source = 1, .destination = 2 };

    if (bytes < 1 || bytes - 1 > TRI_PACKET_BODY_MAX)
        return;
    packet.kind = data[0];
    packet.body = data + 1;
    packet.body_bytes = (uint32_t)(bytes - 1);
    feed_swim(&packet);
}

static void feed_datagram(const unsigned char *data, size_t bytes)
{
    unsigned char again[TRI_PACKET_BYTES_MAX];
    struct tri_packet packet;

    if (tri_packet_open(NULL, data, bytes, &packet) != NULL)
        return;
    FUZZ_CHECK(packet.body_bytes == bytes - TRI_PACKET_HEADER_BYTES);
    FUZZ_CHECK(packet.body == data + TRI_PACKET_HEADER_BYTES);
    (void)tri_packet_check(&packet, 1, 2);
    FUZZ_CHECK(tri_packet_seal(NULL, &packet, again) == bytes);
    FUZZ_CHECK(memcmp(again, data, bytes) == 0);
    feed_swim(&packet);
}

static void feed_card(const unsigned char *data, size_t bytes)
{
    unsigned char again[TRI_CARD_BYTES_MAX];
    struct tri_member_card card;
    size_t used = 0;

    if (tri_card_decode(data, bytes, &card, &used) != NULL)
        return;
    FUZZ_CHECK(used <= bytes && used <= TRI_CARD_BYTES_MAX);
    FUZZ_CHECK(tri_card_encode(&card, again) == used);
    FUZZ_CHECK(memcmp(again, data, used) == 0);
}

/* As a datagram whose tag is good: everybody's key is known here. */
static void feed_sealed(const unsigned char *data, size_t bytes)
{
    static const unsigned char job_key[TRI_KEY_BYTES] = { 1, 2, 3 };
    static struct tri_packet_key *key;
    unsigned char sealed[TRI_PACKET_BYTES_MAX];
    struct tri_packet packet = { .kind = TRI_SWIM_PING, .source = 1,
                                 .counter = 1, .body = data };
    size_t n;

    if (!key)
        FUZZ_CHECK(tri_packet_key_create(job_key, TRI_SEAL_AUTH, &key) == 0);
    FUZZ_CHECK(tri_packet_open(key, data, bytes, &packet) != NULL);
    packet.body_bytes = (uint32_t)tri_min(bytes, TRI_PACKET_BODY_MAX);
    n = tri_packet_seal(key, &packet, sealed);
    FUZZ_CHECK(tri_packet_open(key, sealed, n, &packet) == NULL);
    if (bytes > 0) {
        sealed[data[0] % n] ^= 1;
        FUZZ_CHECK(tri_packet_open(key, sealed, n, &packet) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    unsigned char *copy = malloc(bytes); /* so that a read behind it is seen */

    if (copy == NULL && bytes > 0)
        return 0;
    if (bytes > 0)
        memcpy(copy, data, bytes);
    feed_datagram(copy, bytes);
    feed_body(copy, bytes);
    feed_card(copy, bytes);
    feed_sealed(copy, bytes);
    free(copy);
    return 0;
}
