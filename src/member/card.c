/* SPDX-License-Identifier: BSD-3-Clause */
#include "member/card.h"

#include "base/bytes.h"

#define FIXED_BYTES (4 * 8 + 5 * 4)
#define ENDPOINT_BYTES_MAX (1 + 2 + 16)

_Static_assert(FIXED_BYTES + ENDPOINT_BYTES_MAX +
                       2 * (1 + TRI_ADDRESS_BYTES_MAX) + 1 +
                       TRI_MEMBER_NAME_MAX <=
                   TRI_CARD_BYTES_MAX,
               "every card fits");

/* --- what is valid -------------------------------------------------------- */

static bool is_zero(const void *data, size_t bytes)
{
    const unsigned char *at = data;

    while (bytes > 0 && *at == 0) {
        at++;
        bytes--;
    }
    return bytes == 0;
}

static bool endpoint_is_valid(const struct tri_endpoint *endpoint)
{
    size_t ip_bytes = tri_endpoint_ip_bytes(endpoint);

    if (endpoint->family != 0 && ip_bytes == 0)
        return false;
    return (endpoint->family == 0) == (endpoint->port == 0) &&
           endpoint->reserved == 0 &&
           is_zero(endpoint->ip + ip_bytes, sizeof(endpoint->ip) - ip_bytes);
}

/* Names go to logs and terminals. */
static bool name_is_valid(const char *name)
{
    const char *end = memchr(name, '\0', TRI_MEMBER_NAME_MAX + 1);

    for (; end && name < end; name++)
        if ((unsigned char)*name < ' ' || *name == 0x7f)
            return false;
    return end != NULL;
}

/* What the members of `card` mean, beside its texts and addresses. */
static const char *wrong_in(const struct tri_member_card *card)
{
    if (card->node == 0)
        return "a card of no node";
    if (card->rank < -1 || card->size < 0 ||
        (card->rank >= 0 && card->rank >= card->size))
        return "a card's rank is not one of its job";
    if (!endpoint_is_valid(&card->control))
        return "a card's control endpoint is none";
    if (!name_is_valid(card->name))
        return "a card's name has control characters";
    return NULL;
}

bool tri_card_is_valid(const struct tri_member_card *card)
{
    return wrong_in(card) == NULL &&
           card->ring.bytes <= TRI_ADDRESS_BYTES_MAX &&
           card->fabric.bytes <= TRI_ADDRESS_BYTES_MAX;
}

/* --- encoding ------------------------------------------------------------- */

static void put_endpoint(struct tri_writer *writer,
                         const struct tri_endpoint *endpoint)
{
    tri_put_u8(writer, endpoint->family);
    if (endpoint->family == 0)
        return;
    tri_put_u16(writer, endpoint->port);
    tri_put(writer, endpoint->ip, tri_endpoint_ip_bytes(endpoint));
}

static void put_short(struct tri_writer *writer, const void *data, size_t bytes)
{
    tri_put_u8(writer, (uint8_t)bytes);
    tri_put(writer, data, bytes);
}

size_t tri_card_encode(const struct tri_member_card *card, unsigned char *data)
{
    struct tri_writer writer = { .at = data,
                                 .end = data + TRI_CARD_BYTES_MAX };

    assert(tri_card_is_valid(card));
    tri_put_u64(&writer, card->node);
    tri_put_u64(&writer, card->host);
    tri_put_u64(&writer, card->job);
    tri_put_u64(&writer, card->started);
    tri_put_u32(&writer, (uint32_t)card->rank);
    tri_put_u32(&writer, (uint32_t)card->size);
    tri_put_u32(&writer, card->pid);
    tri_put_u32(&writer, card->cores);
    tri_put_u32(&writer, card->interface);
    put_endpoint(&writer, &card->control);
    put_short(&writer, card->ring.data, card->ring.bytes);
    put_short(&writer, card->fabric.data, card->fabric.bytes);
    put_short(&writer, card->name, strlen(card->name));
    return (size_t)(writer.at - data);
}

/* --- decoding ------------------------------------------------------------- */

static bool get_endpoint(struct tri_reader *reader,
                         struct tri_endpoint *endpoint)
{
    const unsigned char *ip;

    endpoint->family = tri_get_u8(reader);
    if (endpoint->family == 0)
        return true;
    if (tri_endpoint_ip_bytes(endpoint) == 0)
        return false;
    endpoint->port = tri_get_u16(reader);
    ip = tri_get(reader, tri_endpoint_ip_bytes(endpoint));
    if (ip)
        memcpy(endpoint->ip, ip, tri_endpoint_ip_bytes(endpoint));
    return true;
}

/* Returns the length; more than bytes_max: too long, nothing is written. */
static size_t get_short(struct tri_reader *reader, void *into,
                        size_t bytes_max)
{
    size_t bytes = tri_get_u8(reader);
    const unsigned char *data = tri_get(reader, bytes);

    if (data && bytes > 0 && bytes <= bytes_max)
        memcpy(into, data, bytes);
    return bytes;
}

static const char *get_card(struct tri_reader *reader,
                            struct tri_member_card *card)
{
    size_t name_bytes;

    memset(card, 0, sizeof(*card));
    card->node = tri_get_u64(reader);
    card->host = tri_get_u64(reader);
    card->job = tri_get_u64(reader);
    card->started = tri_get_u64(reader);
    card->rank = (int32_t)tri_get_u32(reader);
    card->size = (int32_t)tri_get_u32(reader);
    card->pid = tri_get_u32(reader);
    card->cores = tri_get_u32(reader);
    card->interface = tri_get_u32(reader);
    if (!get_endpoint(reader, &card->control))
        return "a card's control endpoint is none";
    card->ring.bytes =
        (uint16_t)get_short(reader, card->ring.data, TRI_ADDRESS_BYTES_MAX);
    card->fabric.bytes =
        (uint16_t)get_short(reader, card->fabric.data, TRI_ADDRESS_BYTES_MAX);
    name_bytes = get_short(reader, card->name, TRI_MEMBER_NAME_MAX);
    if (reader->is_short)
        return "a card is cut off";
    if (card->ring.bytes > TRI_ADDRESS_BYTES_MAX ||
        card->fabric.bytes > TRI_ADDRESS_BYTES_MAX)
        return "a card's address is too long";
    if (name_bytes > TRI_MEMBER_NAME_MAX)
        return "a card's name is too long";
    /* One card has one form. */
    if (strlen(card->name) != name_bytes)
        return "a card's name has control characters";
    return NULL;
}

const char *tri_card_decode(const unsigned char *data, size_t bytes,
                            struct tri_member_card *card_p, size_t *used_p)
{
    struct tri_reader reader = tri_reader_of(data, bytes);
    const char *wrong = get_card(&reader, card_p);

    *used_p = (size_t)(reader.at - data);
    return wrong ? wrong : wrong_in(card_p);
}
