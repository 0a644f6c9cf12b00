/* SPDX-License-Identifier: BSD-3-Clause */
#include "member/packet.h"

#include <stdlib.h>

#include "base/bytes.h"

#define FLAG_SEALED 1u
#define FIRST_BYTES 8 /* the same in every version */

const char tri_packet_other_version[] = "another version of troupe";
const char tri_packet_not_sealed[] = "a control datagram without a tag";
const char tri_packet_sealed[] = "a tag, but security is \"none\" here";
const char tri_packet_other_key[] = "a control datagram with a wrong tag";
const char tri_packet_other_cluster[] = "a datagram of another cluster";
const char tri_packet_other_node[] = "a datagram to another node";

/* --- keys ----------------------------------------------------------------- */

struct tri_packet_key {
    struct tri_mac *tags;
    struct tri_mac *cookies;
};

/* With the mode: whoever seals frames in another one could not be reached by
 * any, so it must not become a member either. */
static const char *const tag_labels[] = {
    [TRI_SEAL_NONE] = "troupe control 1 none",
    [TRI_SEAL_AUTH] = "troupe control 1 auth",
    [TRI_SEAL_ENCRYPT] = "troupe control 1 encrypt",
};

int tri_packet_key_create(const unsigned char job_key[TRI_KEY_BYTES],
                          enum tri_seal_mode mode,
                          struct tri_packet_key **key_p)
{
    struct tri_packet_key *key = calloc(1, sizeof(*key));
    int rc;

    if (key == NULL)
        return TROUPE_ENOMEM;
    rc = tri_mac_create(job_key, tag_labels[mode], &key->tags);
    if (rc == 0)
        rc = tri_mac_create(job_key, "troupe cookie 1", &key->cookies);
    if (rc != 0) {
        tri_packet_key_destroy(&key);
        return rc;
    }
    *key_p = key;
    return 0;
}

void tri_packet_key_destroy(struct tri_packet_key **key_p)
{
    if (*key_p == NULL)
        return;
    tri_mac_destroy(&(*key_p)->tags);
    tri_mac_destroy(&(*key_p)->cookies);
    free(*key_p);
    *key_p = NULL;
}

int tri_packet_mac(struct tri_packet_key *key, const void *data, size_t bytes,
                   unsigned char mac_p[TRI_PACKET_TAG_BYTES])
{
    return tri_mac_make(key->cookies, data, bytes, mac_p);
}

/* --- header and tag ------------------------------------------------------- */

size_t tri_packet_seal(struct tri_packet_key *key,
                       const struct tri_packet *packet,
                       unsigned char data[TRI_PACKET_BYTES_MAX])
{
    struct tri_writer writer = { .at = data,
                                 .end = data + TRI_PACKET_BYTES_MAX };
    size_t bytes = TRI_PACKET_HEADER_BYTES + packet->body_bytes;

    if (packet->body_bytes > TRI_PACKET_BODY_MAX)
        return 0;
    if (packet->body_bytes > 0)
        memmove(data + TRI_PACKET_HEADER_BYTES, packet->body,
                packet->body_bytes);
    tri_put_u32(&writer, TRI_PACKET_MAGIC);
    tri_put_u8(&writer, TRI_PACKET_VERSION);
    tri_put_u8(&writer, packet->kind);
    tri_put_u8(&writer, key ? FLAG_SEALED : 0);
    tri_put_u8(&writer, 0);
    tri_put_u64(&writer, packet->cluster);
    tri_put_u64(&writer, packet->source);
    tri_put_u64(&writer, packet->destination);
    tri_put_u64(&writer, packet->counter);
    tri_put_u64(&writer, packet->view_epoch);
    tri_put_u64(&writer, packet->view_digest);
    assert(writer.at == data + TRI_PACKET_HEADER_BYTES);
    if (!key)
        return bytes;
    if (tri_mac_make(key->tags, data, bytes, data + bytes) != 0)
        return 0;
    return bytes + TRI_PACKET_TAG_BYTES;
}

static bool kind_is_known(uint8_t kind)
{
    return (kind >= TRI_SWIM_PING && kind <= TRI_SWIM_KIND_LAST) ||
           (kind >= TRI_PACKET_CHALLENGE && kind <= TRI_PACKET_TRAITS);
}

/* All before the tag is looked at: what need not be proven. */
static const char *check_form(const struct tri_packet_key *key,
                              const unsigned char *data, size_t bytes,
                              uint8_t *kind_p)
{
    size_t tag_bytes = key ? TRI_PACKET_TAG_BYTES : 0;
    struct tri_reader reader = tri_reader_of(data, bytes);
    uint8_t flags;

    if (bytes < FIRST_BYTES || tri_get_u32(&reader) != TRI_PACKET_MAGIC)
        return "not a control datagram of troupe";
    if (tri_get_u8(&reader) != TRI_PACKET_VERSION)
        return tri_packet_other_version;
    *kind_p = tri_get_u8(&reader);
    flags = tri_get_u8(&reader);
    if ((flags & ~FLAG_SEALED) != 0 || tri_get_u8(&reader) != 0)
        return "a control datagram with reserved bits set";
    if (key && !(flags & FLAG_SEALED))
        return tri_packet_not_sealed;
    if (!key && (flags & FLAG_SEALED))
        return tri_packet_sealed;
    if (bytes < TRI_PACKET_HEADER_BYTES + tag_bytes)
        return "a control datagram that is cut off";
    if (bytes > TRI_PACKET_HEADER_BYTES + TRI_PACKET_BODY_MAX + tag_bytes)
        return "a control datagram that is too long";
    return NULL;
}

static void get_header(const unsigned char *data, size_t bytes,
                       struct tri_packet *packet_p)
{
    struct tri_reader reader = tri_reader_of(data, bytes);

    (void)tri_get(&reader, FIRST_BYTES);
    packet_p->cluster = tri_get_u64(&reader);
    packet_p->source = tri_get_u64(&reader);
    packet_p->destination = tri_get_u64(&reader);
    packet_p->counter = tri_get_u64(&reader);
    packet_p->view_epoch = tri_get_u64(&reader);
    packet_p->view_digest = tri_get_u64(&reader);
    packet_p->body = reader.at;
    packet_p->body_bytes = (uint32_t)tri_reader_left(&reader);
}

const char *tri_packet_open(struct tri_packet_key *key,
                            const unsigned char *data, size_t bytes,
                            struct tri_packet *packet_p)
{
    struct tri_packet packet = { .kind = 0 };
    const char *wrong = check_form(key, data, bytes, &packet.kind);

    if (wrong)
        return wrong;
    if (key) {
        bytes -= TRI_PACKET_TAG_BYTES;
        if (!tri_mac_check(key->tags, data, bytes, data + bytes))
            return tri_packet_other_key;
    }
    if (!kind_is_known(packet.kind))
        return "a control datagram of an unknown kind";
    get_header(data, bytes, &packet);
    if (packet.source == 0)
        return "a control datagram of no node";
    if (packet.counter == 0)
        return "a control datagram without a number";
    *packet_p = packet;
    return NULL;
}

const char *tri_packet_check(const struct tri_packet *packet,
                             uint64_t cluster, uint64_t node)
{
    bool is_join = packet->kind == TRI_SWIM_JOIN ||
                   packet->kind == TRI_SWIM_JOIN_RETRY ||
                   packet->kind == TRI_PACKET_CHALLENGE ||
                   packet->kind == TRI_PACKET_REFUSED;

    if (packet->cluster == 0 ? !is_join
                             : cluster != 0 && packet->cluster != cluster)
        return tri_packet_other_cluster;
    if (packet->destination == 0 ? !is_join : packet->destination != node)
        return tri_packet_other_node;
    return NULL;
}

/* --- repeated packets ----------------------------------------------------- */

bool tri_packet_window_take(struct tri_packet_window *window, uint64_t counter)
{
    uint64_t step, bit;

    if (counter == 0)
        return false;
    if (counter > window->highest) {
        step = counter - window->highest;
        window->seen = (step < 64 ? window->seen << step : 0) | 1;
        window->highest = counter;
        return true;
    }
    step = window->highest - counter;
    if (step >= 64)
        return false;
    bit = 1ull << step;
    if (window->seen & bit)
        return false;
    window->seen |= bit;
    return true;
}

/* --- bodies of SWIM: encoding --------------------------------------------- */

/* A rumour's byte: state in bits 0 to 2, evidence in 3 and 4, card in 5. */
#define STATE_MASK 7u
#define EVIDENCE_SHIFT 3
#define EVIDENCE_MASK 3u
#define CARD_FLAG 0x20u

_Static_assert(TRI_SWIM_STATE_LAST <= STATE_MASK, "a state fits");
_Static_assert(TRI_SWIM_EVIDENCE_LAST <= EVIDENCE_MASK, "evidence fits");
_Static_assert(TRI_PACKET_SWIM_BYTES + TRI_PACKET_BUCKETS_BYTES +
                       TRI_PACKET_RUMOUR_BYTES +
                       TRI_CARD_BYTES_MAX <=
                   TRI_PACKET_BYTES_MAX,
               "a rumour with its card fits beside anything");

static bool is_accusation(uint8_t state)
{
    return state == TRI_SWIM_SUSPECT || state == TRI_SWIM_DEAD;
}

static bool any_bucket(const struct tri_swim_packet *packet)
{
    for (unsigned i = 0; i < TRI_SWIM_BUCKETS; i++)
        if (packet->buckets[i] != 0)
            return true;
    return false;
}

static uint16_t fields_of(const struct tri_swim_packet *packet)
{
    return (uint16_t)((packet->sequence ? TRI_PACKET_SEQUENCE : 0) |
                      (packet->target ? TRI_PACKET_TARGET : 0) |
                      (packet->delay_us ? TRI_PACKET_DELAY : 0) |
                      (packet->cursor ? TRI_PACKET_CURSOR : 0) |
                      (packet->retry_ms ? TRI_PACKET_RETRY : 0) |
                      (packet->digest ? TRI_PACKET_DIGEST : 0) |
                      (packet->flags ? TRI_PACKET_FLAGS : 0) |
                      (packet->start ? TRI_PACKET_START : 0) |
                      (packet->mask ? TRI_PACKET_MASK : 0) |
                      /* Other kinds have them undefined. */
                      (packet->kind == TRI_SWIM_BUCKETS_ && any_bucket(packet)
                           ? TRI_PACKET_BUCKETS
                           : 0));
}

static void put_fields(struct tri_writer *writer, uint16_t fields,
                       const struct tri_swim_packet *packet)
{
    if (fields & TRI_PACKET_SEQUENCE)
        tri_put_u32(writer, packet->sequence);
    if (fields & TRI_PACKET_TARGET)
        tri_put_u64(writer, packet->target);
    if (fields & TRI_PACKET_DELAY)
        tri_put_u32(writer, packet->delay_us);
    if (fields & TRI_PACKET_CURSOR)
        tri_put_u32(writer, packet->cursor);
    if (fields & TRI_PACKET_RETRY)
        tri_put_u32(writer, packet->retry_ms);
    if (fields & TRI_PACKET_DIGEST)
        tri_put_u64(writer, packet->digest);
    if (fields & TRI_PACKET_FLAGS)
        tri_put_u8(writer, packet->flags);
    if (fields & TRI_PACKET_START)
        tri_put_u32(writer, packet->start);
    if (fields & TRI_PACKET_MASK)
        tri_put_u64(writer, packet->mask);
    for (unsigned i = 0; fields & TRI_PACKET_BUCKETS && i < TRI_SWIM_BUCKETS;
         i++)
        tri_put_u64(writer, packet->buckets[i]);
}

/* False: it does not fit, and nothing is written. */
static bool put_rumour(struct tri_writer *writer,
                       const struct tri_rumour *rumour,
                       const struct tri_member_card *card)
{
    unsigned char whole[TRI_PACKET_RUMOUR_BYTES + TRI_CARD_BYTES_MAX];
    struct tri_writer own = { .at = whole, .end = whole + sizeof(whole) };
    size_t bytes;

    assert(rumour->node != 0 && rumour->state != TRI_SWIM_UNKNOWN);
    assert(!card || card->node == rumour->node);
    tri_put_u64(&own, rumour->node);
    tri_put_u8(&own, (uint8_t)(rumour->state |
                               rumour->evidence << EVIDENCE_SHIFT |
                               (card ? CARD_FLAG : 0)));
    tri_put_u32(&own, rumour->incarnation);
    if (is_accusation(rumour->state))
        tri_put_u64(&own, rumour->accuser);
    if (card)
        own.at += tri_card_encode(card, own.at);
    bytes = (size_t)(own.at - whole);
    if (bytes > tri_writer_room(writer))
        return false;
    tri_put(writer, whole, bytes);
    return true;
}

size_t tri_packet_encode_swim(const struct tri_swim_packet *packet,
                              const struct tri_member_card *(*card_of)(
                                  void *context, uint64_t node),
                              void *context, unsigned char *body,
                              uint32_t *rumours_len_p)
{
    struct tri_writer writer = { .at = body,
                                 .end = body + TRI_PACKET_BODY_MAX };
    struct tri_writer len_at;
    uint16_t fields = fields_of(packet);
    uint32_t i;

    assert(packet->rumours_len <= TRI_SWIM_RUMOURS_MAX);
    tri_put_u16(&writer, fields);
    len_at = writer;
    tri_put_u16(&writer, 0);
    tri_put_u32(&writer, packet->incarnation);
    tri_put_u32(&writer, packet->alive_len);
    tri_put_u64(&writer, packet->lowest);
    put_fields(&writer, fields, packet);
    for (i = 0; i < packet->rumours_len; i++) {
        const struct tri_rumour *rumour = &packet->rumours[i];
        const struct tri_member_card *card =
            rumour->with_card ? card_of(context, rumour->node) : NULL;

        if (!put_rumour(&writer, rumour, card))
            break;
    }
    tri_put_u16(&len_at, (uint16_t)i);
    *rumours_len_p = i;
    return (size_t)(writer.at - body);
}

/* --- bodies of SWIM: decoding --------------------------------------------- */

static void get_fields(struct tri_reader *reader, uint16_t fields,
                       struct tri_swim_packet *packet)
{
    if (fields & TRI_PACKET_SEQUENCE)
        packet->sequence = tri_get_u32(reader);
    if (fields & TRI_PACKET_TARGET)
        packet->target = tri_get_u64(reader);
    if (fields & TRI_PACKET_DELAY)
        packet->delay_us = tri_get_u32(reader);
    if (fields & TRI_PACKET_CURSOR)
        packet->cursor = tri_get_u32(reader);
    if (fields & TRI_PACKET_RETRY)
        packet->retry_ms = tri_get_u32(reader);
    if (fields & TRI_PACKET_DIGEST)
        packet->digest = tri_get_u64(reader);
    if (fields & TRI_PACKET_FLAGS)
        packet->flags = tri_get_u8(reader);
    if (fields & TRI_PACKET_START)
        packet->start = tri_get_u32(reader);
    if (fields & TRI_PACKET_MASK)
        packet->mask = tri_get_u64(reader);
    for (unsigned i = 0; fields & TRI_PACKET_BUCKETS && i < TRI_SWIM_BUCKETS;
         i++)
        packet->buckets[i] = tri_get_u64(reader);
}

static const char *get_rumour(struct tri_reader *reader,
                              struct tri_rumour *rumour,
                              struct tri_member_card *card)
{
    const char *wrong;
    uint8_t mixed;
    size_t used;

    memset(rumour, 0, sizeof(*rumour));
    rumour->node = tri_get_u64(reader);
    mixed = tri_get_u8(reader);
    rumour->incarnation = tri_get_u32(reader);
    rumour->state = mixed & STATE_MASK;
    rumour->evidence = (mixed >> EVIDENCE_SHIFT) & EVIDENCE_MASK;
    rumour->with_card = (mixed & CARD_FLAG) != 0;
    if (is_accusation(rumour->state))
        rumour->accuser = tri_get_u64(reader);
    if (reader->is_short)
        return "a rumour that is cut off";
    if (rumour->node == 0 || rumour->state == TRI_SWIM_UNKNOWN ||
        rumour->state > TRI_SWIM_STATE_LAST ||
        mixed >= 2 * CARD_FLAG)
        return "a rumour of no node or no state";
    if (!rumour->with_card)
        return NULL;
    wrong = tri_card_decode(reader->at, tri_reader_left(reader), card, &used);
    if (wrong)
        return wrong;
    reader->at += used;
    return card->node == rumour->node ? NULL : "a rumour with another's card";
}

static const char *get_body(struct tri_reader *reader,
                            struct tri_swim_packet *packet,
                            struct tri_member_card *cards)
{
    uint16_t fields = tri_get_u16(reader);
    const char *wrong = NULL;

    packet->rumours_len = tri_get_u16(reader);
    packet->incarnation = tri_get_u32(reader);
    packet->alive_len = tri_get_u32(reader);
    packet->lowest = tri_get_u64(reader);
    if ((fields & ~TRI_PACKET_FIELDS_ALL) != 0)
        return "unknown fields";
    if (packet->rumours_len > TRI_SWIM_RUMOURS_MAX)
        return "too many rumours";
    get_fields(reader, fields, packet);
    if (reader->is_short)
        return "a body that is cut off";
    if ((packet->flags & ~TRI_SWIM_FLAGS_ALL) != 0)
        return "unknown flags";
    /* What is zero is not sent: a packet has one form. */
    if (fields_of(packet) != fields)
        return "fields that this kind does not have";
    for (unsigned i = 0; i < packet->rumours_len && !wrong; i++)
        wrong = get_rumour(reader, &packet->rumours[i], &cards[i]);
    if (wrong)
        return wrong;
    return tri_reader_left(reader) == 0 ? NULL : "bytes behind the body";
}

const char *tri_packet_decode_swim(const struct tri_packet *packet,
                                   struct tri_swim_packet *swim_p,
                                   struct tri_member_card *cards_p)
{
    struct tri_reader reader = tri_reader_of(packet->body, packet->body_bytes);
    const char *wrong;

    if (packet->kind < TRI_SWIM_PING || packet->kind > TRI_SWIM_KIND_LAST)
        return "not a packet of SWIM";
    memset(swim_p, 0, sizeof(*swim_p));
    swim_p->kind = packet->kind;
    swim_p->from = packet->source;
    swim_p->to = packet->destination;
    wrong = get_body(&reader, swim_p, cards_p);
    if (wrong)
        return wrong;
    if (packet->kind == TRI_SWIM_JOIN &&
        (swim_p->rumours_len != 1 || !swim_p->rumours[0].with_card ||
         swim_p->rumours[0].node != packet->source ||
         swim_p->rumours[0].state != TRI_SWIM_ALIVE))
        return "a join without its own card";
    return NULL;
}
