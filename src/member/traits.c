/* SPDX-License-Identifier: BSD-3-Clause */
#include "member/traits.h"

#include <string.h>

#include "base/bytes.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* --- writing -------------------------------------------------------------- */

static void put_news(struct tri_writer *writer, const struct tri_traits *traits)
{
    tri_put_u64(writer, traits->node);
    tri_put_u64(writer, traits->version);
    tri_put_u32(writer, bits_of(traits->load));
    tri_put_u8(writer, traits->tags_len);
    tri_put(writer, traits->tags, traits->tags_len);
}

size_t tri_traits_encode(const struct tri_traits_packet *packet,
                         unsigned char body[TRI_TRAITS_BODY_MAX])
{
    struct tri_writer writer = { body, body + TRI_TRAITS_BODY_MAX };

    tri_put_u8(&writer, packet->kind);
    tri_put_u8(&writer, packet->flags);
    tri_put_u16(&writer, packet->len);
    switch (packet->kind) {
    case TRI_TRAITS_NEWS:
        for (uint16_t i = 0; i < packet->len; i++)
            put_news(&writer, &packet->news[i]);
        break;
    case TRI_TRAITS_HASH:
        tri_put_u64(&writer, packet->hash);
        break;
    default: /* KNOWN */
        tri_put_u64(&writer, packet->first);
        tri_put_u64(&writer, packet->last);
        for (uint16_t i = 0; i < packet->len; i++) {
            tri_put_u64(&writer, packet->pairs[i].node);
            tri_put_u64(&writer, packet->pairs[i].version);
        }
    }
    return (size_t)(writer.at - body);
}

/* --- reading -------------------------------------------------------------- */

static const char *get_news(struct tri_reader *reader,
                            struct tri_traits *traits_p)
{
    const unsigned char *tags;

    memset(traits_p, 0, sizeof(*traits_p));
    traits_p->node = tri_get_u64(reader);
    traits_p->version = tri_get_u64(reader);
    traits_p->load = float_of(tri_get_u32(reader));
    traits_p->tags_len = tri_get_u8(reader);
    tags = tri_get(reader, traits_p->tags_len);
    if (reader->is_short)
        return "traits: an entry is cut off";
    if (traits_p->node == 0 || traits_p->version == 0)
        return "traits: an entry of nobody";
    /* not a number compares false, too */
    if (!(traits_p->load >= 0 && traits_p->load <= TRI_LOAD_MAX))
        return "traits: a load that is no load";
    if (memchr(tags, 0, traits_p->tags_len) != NULL)
        return "traits: tags with a zero";
    memcpy(traits_p->tags, tags, traits_p->tags_len);
    return NULL;
}

static const char *get_list(struct tri_reader *reader,
                            struct tri_traits_packet *packet_p)
{
    const char *wrong = NULL;

    if (packet_p->len == 0 || packet_p->len > TRI_TRAITS_NEWS_MAX)
        return "traits: the number of entries";
    for (uint16_t i = 0; wrong == NULL && i < packet_p->len; i++)
        wrong = get_news(reader, &packet_p->news[i]);
    return wrong;
}

static const char *get_pairs(struct tri_reader *reader,
                             struct tri_traits_packet *packet_p)
{
    uint64_t least;

    if (packet_p->len > TRI_TRAITS_PAIRS_MAX)
        return "traits: the number of pairs";
    packet_p->first = tri_get_u64(reader);
    packet_p->last = tri_get_u64(reader);
    if (packet_p->first > packet_p->last)
        return "traits: a range that is none";
    least = packet_p->first;
    for (uint16_t i = 0; i < packet_p->len; i++) {
        struct tri_traits_pair *pair = &packet_p->pairs[i];

        pair->node = tri_get_u64(reader);
        pair->version = tri_get_u64(reader);
        if (pair->node < least || pair->node > packet_p->last ||
            (i > 0 && pair->node == least))
            return "traits: pairs out of order";
        least = pair->node;
    }
    return NULL;
}

const char *tri_traits_decode(const unsigned char *body, size_t bytes,
                              struct tri_traits_packet *packet_p)
{
    struct tri_reader reader = tri_reader_of(body, bytes);
    const char *wrong = NULL;

    packet_p->kind = tri_get_u8(&reader);
    packet_p->flags = tri_get_u8(&reader);
    packet_p->len = tri_get_u16(&reader);
    packet_p->hash = 0;
    packet_p->first = 0;
    packet_p->last = 0;
    if (packet_p->flags != 0 && (packet_p->kind != TRI_TRAITS_KNOWN ||
                                 packet_p->flags != TRI_TRAITS_WANT))
        return "traits: unknown flags";
    switch (packet_p->kind) {
    case TRI_TRAITS_NEWS:
        wrong = get_list(&reader, packet_p);
        break;
    case TRI_TRAITS_HASH:
        packet_p->hash = tri_get_u64(&reader);
        if (packet_p->len != 0)
            wrong = "traits: a hash has no list";
        break;
    case TRI_TRAITS_KNOWN:
        wrong = get_pairs(&reader, packet_p);
        break;
    default:
        return "traits: an unknown kind";
    }
    if (wrong == NULL && (reader.is_short || tri_reader_left(&reader) > 0))
        wrong = "traits: the size";
    return wrong;
}
