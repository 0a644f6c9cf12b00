/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages of the agreement. A header of 88 bytes:
 *
 *    0 version, kind, flags, 0     40 number
 *    4 losses                      48 mark
 *    8 group                       56 accepted
 *   16 epoch                       64 digest
 *   24 ballot                      72 mark of the proposal
 *   32 lengths (u16): proven, dead, removed, added; 80: joins, list, 0, 0
 *
 * and then sets as places (u16, rising), joiners (id u64, number u64, rising
 * ids), the list (id u64, age in epochs u32), and the numbers (u64) of those in
 * the list whose age is 0; none in the first epoch. Little-endian.
 */
#include "group/agree_internal.h"

#include <endian.h>

#define VERSION 1u
#define HEADER_BYTES 88u
/* Epochs and ballots above it are none: so they never wrap. */
#define COUNT_MAX (1ull << 62)

struct writer {
    unsigned char *at;
};

static void put16(struct writer *writer, uint32_t value)
{
    uint16_t raw = htole16((uint16_t)value);

    memcpy(writer->at, &raw, sizeof(raw));
    writer->at += sizeof(raw);
}

static void put32(struct writer *writer, uint32_t value)
{
    value = htole32(value);
    memcpy(writer->at, &value, sizeof(value));
    writer->at += sizeof(value);
}

static void put64(struct writer *writer, uint64_t value)
{
    value = htole64(value);
    memcpy(writer->at, &value, sizeof(value));
    writer->at += sizeof(value);
}

/* Bytes were counted before they are read. */
struct reader {
    const unsigned char *at;
};

static uint32_t get16(struct reader *reader)
{
    uint16_t value;

    memcpy(&value, reader->at, sizeof(value));
    reader->at += sizeof(value);
    return le16toh(value);
}

static uint32_t get32(struct reader *reader)
{
    uint32_t value;

    memcpy(&value, reader->at, sizeof(value));
    reader->at += sizeof(value);
    return le32toh(value);
}

static uint64_t get64(struct reader *reader)
{
    uint64_t value;

    memcpy(&value, reader->at, sizeof(value));
    reader->at += sizeof(value);
    return le64toh(value);
}

static void put_set(struct writer *writer, const struct set *set)
{
    for (uint32_t i = 0; i < tri_array_len(set->bits); i++)
        for (uint64_t bits = set->bits[i]; bits != 0; bits &= bits - 1)
            put16(writer, i * 64 + (uint32_t)__builtin_ctzll(bits));
}

static bool get_set(struct reader *reader, uint32_t len, struct set *set_p)
{
    uint32_t next = 0;

    memset(set_p, 0, sizeof(*set_p));
    for (uint32_t i = 0; i < len; i++) {
        uint32_t place = get16(reader);

        if (place < next || place >= TRI_AGREE_MEMBERS_MAX)
            return false;
        set_add(set_p, place);
        next = place + 1;
    }
    return true;
}

static void put_joins(struct writer *writer, const struct joins *joins)
{
    for (uint32_t i = 0; i < joins->len; i++) {
        put64(writer, joins->list[i].node);
        put64(writer, joins->list[i].number);
    }
}

static bool get_joins(struct reader *reader, uint32_t len,
                      struct joins *joins_p)
{
    uint64_t last = 0;

    joins_p->len = len;
    for (uint32_t i = 0; i < len; i++) {
        joins_p->list[i].node = get64(reader);
        joins_p->list[i].number = get64(reader);
        if (joins_p->list[i].node <= last)
            return false;
        last = joins_p->list[i].node;
    }
    return true;
}

size_t tri_agree_encode(const struct message *message, unsigned char *bytes_p)
{
    struct writer writer = { bytes_p };

    assert(message->list_len <= TRI_AGREE_MEMBERS_MAX);
    put32(&writer, VERSION | (uint32_t)message->kind << 8 |
                       (uint32_t)message->flags << 16);
    put32(&writer, message->proposal.losses);
    put64(&writer, message->group);
    put64(&writer, message->epoch);
    put64(&writer, message->ballot);
    put16(&writer, set_len(&message->proven));
    put16(&writer, set_len(&message->dead));
    put16(&writer, set_len(&message->proposal.removed));
    put16(&writer, message->proposal.added.len);
    put64(&writer, message->number);
    put64(&writer, message->mark);
    put64(&writer, message->accepted);
    put64(&writer, message->digest);
    put64(&writer, message->proposal.mark);
    put16(&writer, message->joins.len);
    put16(&writer, message->list_len);
    put32(&writer, 0);
    put_set(&writer, &message->proven);
    put_set(&writer, &message->dead);
    put_set(&writer, &message->proposal.removed);
    put_joins(&writer, &message->proposal.added);
    put_joins(&writer, &message->joins);
    for (uint32_t i = 0; i < message->list_len; i++) {
        put64(&writer, message->list[i].node);
        put32(&writer, (uint32_t)(message->epoch - message->list[i].since));
    }
    for (uint32_t i = 0; i < message->list_len && message->epoch > 1; i++)
        if (message->list[i].since == message->epoch)
            put64(&writer, message->numbers[i]);
    assert((size_t)(writer.at - bytes_p) <= TRI_AGREE_BYTES_MAX);
    return (size_t)(writer.at - bytes_p);
}

/* The list and its numbers, of which `bytes` are there. */
static bool get_list(struct reader *reader, size_t bytes,
                     struct message *message)
{
    uint32_t joined = 0;

    if (bytes < 12u * (size_t)message->list_len)
        return false;
    for (uint32_t i = 0; i < message->list_len; i++) {
        uint64_t age;

        message->list[i].node = get64(reader);
        age = get32(reader);
        if (message->list[i].node == 0 || age >= message->epoch)
            return false;
        message->list[i].since = message->epoch - age;
        message->numbers[i] = 0;
        joined += age == 0 && message->epoch > 1;
    }
    if (bytes != 12u * (size_t)message->list_len + 8u * (size_t)joined)
        return false;
    for (uint32_t i = 0; i < message->list_len && joined > 0; i++)
        if (message->list[i].since == message->epoch)
            message->numbers[i] = get64(reader);
    return true;
}

bool tri_agree_decode(const unsigned char *data, size_t bytes,
                      struct message *message_p)
{
    struct reader reader = { data };
    uint32_t first, proven, dead, removed, added, joins, reserved;
    size_t rest;

    if (bytes < HEADER_BYTES || bytes > TRI_AGREE_BYTES_MAX)
        return false;
    first = get32(&reader);
    message_p->kind = (uint8_t)(first >> 8);
    message_p->flags = (uint8_t)(first >> 16);
    if ((first & 0xff) != VERSION || first >> 24 != 0 ||
        message_p->kind < PREPARE || message_p->kind > KIND_LAST ||
        (message_p->flags & ~FLAGS_ALL) != 0)
        return false;
    message_p->proposal.losses = get32(&reader);
    message_p->group = get64(&reader);
    message_p->epoch = get64(&reader);
    message_p->ballot = get64(&reader);
    if (message_p->epoch > COUNT_MAX || message_p->ballot > COUNT_MAX)
        return false;
    proven = get16(&reader);
    dead = get16(&reader);
    removed = get16(&reader);
    added = get16(&reader);
    message_p->number = get64(&reader);
    message_p->mark = get64(&reader);
    message_p->accepted = get64(&reader);
    message_p->digest = get64(&reader);
    message_p->proposal.mark = get64(&reader);
    joins = get16(&reader);
    message_p->list_len = get16(&reader);
    reserved = get32(&reader);
    rest = 2u * ((size_t)proven + dead + removed) +
           16u * ((size_t)added + joins);
    if (reserved != 0 || added > JOINS_MAX || joins > JOINS_MAX ||
        message_p->list_len > TRI_AGREE_MEMBERS_MAX ||
        bytes - HEADER_BYTES < rest)
        return false;
    return get_set(&reader, proven, &message_p->proven) &&
           get_set(&reader, dead, &message_p->dead) &&
           get_set(&reader, removed, &message_p->proposal.removed) &&
           get_joins(&reader, added, &message_p->proposal.added) &&
           get_joins(&reader, joins, &message_p->joins) &&
           get_list(&reader, bytes - HEADER_BYTES - rest, message_p);
}
