/* SPDX-License-Identifier: BSD-3-Clause */
#include "name/registry_packet.h"

#include <string.h>

#include "actor/names.h"

#define HEADER_BYTES 8u
#define ITEM_BYTES 40u /* without name and tags */
#define VERSION_BYTES 16u
#define REQUEST_BYTES 24u
#define RANGE_BYTES 16u

static uint64_t get(const unsigned char *at, unsigned bytes)
{
    uint64_t value = 0;

    while (bytes-- > 0)
        value = value << 8 | at[bytes];
    return value;
}

static void put(unsigned char *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t take(struct tri_registry_reader *reader, unsigned bytes)
{
    uint64_t value = get(reader->at, bytes);

    reader->at += bytes;
    return value;
}

/* --- reading -------------------------------------------------------------- */

uint64_t tri_registry_read_hash(struct tri_registry_reader *reader)
{
    return take(reader, 8);
}

void tri_registry_read_mark(struct tri_registry_reader *reader,
                            struct tri_registry_mark *mark_p)
{
    mark_p->owner = take(reader, 8);
    mark_p->version = take(reader, 8);
    mark_p->collected =
        reader->kind == TRI_REGISTRY_REQUEST ? take(reader, 8) : 0;
}

void tri_registry_read_section(struct tri_registry_reader *reader,
                               struct tri_registry_section *section_p)
{
    section_p->owner = take(reader, 8);
    section_p->version = take(reader, 8);
    section_p->collected = take(reader, 8);
    section_p->base = take(reader, 8);
    section_p->upto = take(reader, 8);
    section_p->entries = (uint16_t)take(reader, 2);
    section_p->flags = (uint16_t)take(reader, 2);
    take(reader, 4);
}

void tri_registry_read_item(struct tri_registry_reader *reader,
                            struct tri_registry_item *item_p)
{
    item_p->version = take(reader, 8);
    item_p->stamp.epoch = take(reader, 8);
    item_p->stamp.counter = take(reader, 8);
    item_p->slot = (uint32_t)take(reader, 4);
    item_p->generation = (uint32_t)take(reader, 4);
    item_p->protocol = (uint32_t)take(reader, 4);
    item_p->flags = (uint8_t)take(reader, 1);
    item_p->name_len = (uint8_t)take(reader, 1);
    item_p->tags_len = (uint16_t)take(reader, 2);
    item_p->name = (const char *)reader->at;
    reader->at += item_p->name_len;
    item_p->tags = (const char *)reader->at;
    reader->at += item_p->tags_len;
}

static bool has_zero(const char *text, size_t len)
{
    return len > 0 && memchr(text, '\0', len) != NULL;
}

static const char *check_item(struct tri_registry_reader *reader,
                              const unsigned char *end,
                              struct tri_registry_item *item)
{
    const unsigned char *at = reader->at;

    if (end - at < (ptrdiff_t)ITEM_BYTES ||
        (size_t)(end - at) < ITEM_BYTES + at[37] + get(at + 38, 2))
        return "registry: an entry is cut off";
    tri_registry_read_item(reader, item);
    if ((item->flags & ~TRI_ENTRY_FLAGS) != 0)
        return "registry: an entry has unknown flags";
    if (item->tags_len > TRI_REGISTRY_TAGS_MAX ||
        has_zero(item->tags, item->tags_len))
        return "registry: tags are not valid";
    if (!tri_name_is_valid(item->name, item->name_len))
        return "registry: a name is not valid";
    return NULL;
}

static const char *check_section(struct tri_registry_reader *reader,
                                 const unsigned char *end)
{
    struct tri_registry_section section;
    struct tri_registry_item item;
    uint64_t last;

    if (end - reader->at < (ptrdiff_t)TRI_SECTION_BYTES)
        return "registry: a section is cut off";
    if (get(reader->at + 44, 4) != 0)
        return "registry: reserved bytes are not zero";
    tri_registry_read_section(reader, &section);
    if ((section.flags & ~TRI_SECTION_FLAGS) != 0)
        return "registry: a section has unknown flags";
    if (section.owner == 0 || section.base > section.upto ||
        section.upto > section.version || section.collected > section.version)
        return "registry: a section's versions make no sense";
    last = section.base;
    for (unsigned i = 0; i < section.entries; i++) {
        const char *wrong = check_item(reader, end, &item);

        if (wrong != NULL)
            return wrong;
        if (item.version <= last || item.version > section.upto)
            return "registry: entries are out of order";
        last = item.version;
    }
    return NULL;
}

static const char *check_sections(const struct tri_registry_reader *opened,
                                  const unsigned char *end)
{
    struct tri_registry_reader reader = *opened;

    for (unsigned i = 0; i < reader.items; i++) {
        const char *wrong = check_section(&reader, end);

        if (wrong != NULL)
            return wrong;
    }
    return reader.at == end ? NULL : "registry: bytes are left over";
}

static const char *check_range(struct tri_registry_reader *reader,
                               size_t bytes)
{
    struct tri_registry_reader ahead;
    struct tri_registry_mark mark;
    uint64_t last = 0;

    if (bytes != RANGE_BYTES + (size_t)reader->items * VERSION_BYTES)
        return "registry: a list of versions has another length";
    reader->low = take(reader, 8);
    reader->high = take(reader, 8);
    if (reader->low > reader->high)
        return "registry: a range is empty";
    ahead = *reader;
    for (unsigned i = 0; i < reader->items; i++) {
        tri_registry_read_mark(&ahead, &mark);
        if (mark.owner < reader->low || mark.owner > reader->high ||
            mark.owner <= last)
            return "registry: owners are out of order";
        last = mark.owner;
    }
    return NULL;
}

const char *tri_registry_open(const void *body, size_t bytes,
                              struct tri_registry_reader *reader_p)
{
    const unsigned char *at = body;
    struct tri_registry_reader reader = { 0 };

    if (bytes < HEADER_BYTES || bytes > TRI_REGISTRY_BODY_MAX)
        return "registry: the length is not possible";
    if (at[1] != TRI_REGISTRY_VERSION)
        return "registry: another version";
    if (get(at + 4, 4) != 0)
        return "registry: reserved bytes are not zero";
    reader = (struct tri_registry_reader){
        .kind = at[0],
        .items = (uint16_t)get(at + 2, 2),
        .at = at + HEADER_BYTES,
    };
    *reader_p = reader;
    bytes -= HEADER_BYTES;
    switch (reader.kind) {
    case TRI_REGISTRY_DIGEST:
        if (bytes != 8 || reader.items != 1)
            return "registry: a digest has another length";
        reader_p->hash = tri_registry_read_hash(reader_p);
        return NULL;
    case TRI_REGISTRY_BUCKET_HASHES:
        return bytes == 8 * TRI_REGISTRY_BUCKETS &&
                       reader.items == TRI_REGISTRY_BUCKETS
                   ? NULL
                   : "registry: a list of hashes has another length";
    case TRI_REGISTRY_VERSIONS:
        return bytes >= RANGE_BYTES
                   ? check_range(reader_p, bytes)
                   : "registry: a list of versions has another length";
    case TRI_REGISTRY_REQUEST:
        return bytes == (size_t)reader.items * REQUEST_BYTES
                   ? NULL
                   : "registry: a request has another length";
    case TRI_REGISTRY_DELTA:
        return check_sections(&reader, reader.at + bytes);
    default:
        return "registry: an unknown kind";
    }
}

/* --- writing -------------------------------------------------------------- */

void tri_registry_begin(struct tri_registry_writer *writer,
                        enum tri_registry_kind kind)
{
    memset(writer->body, 0, HEADER_BYTES + RANGE_BYTES);
    writer->body[0] = (unsigned char)kind;
    writer->body[1] = TRI_REGISTRY_VERSION;
    writer->section_at = 0;
    writer->bytes = HEADER_BYTES;
    if (kind == TRI_REGISTRY_VERSIONS)
        writer->bytes += RANGE_BYTES;
}

static void count_item(struct tri_registry_writer *writer)
{
    put(writer->body + 2, get(writer->body + 2, 2) + 1u, 2);
}

uint16_t tri_registry_items(const struct tri_registry_writer *writer)
{
    return (uint16_t)get(writer->body + 2, 2);
}

static void append(struct tri_registry_writer *writer, uint64_t value,
                   unsigned bytes)
{
    put(writer->body + writer->bytes, value, bytes);
    writer->bytes += bytes;
}

void tri_registry_set_range(struct tri_registry_writer *writer, uint64_t low,
                            uint64_t high)
{
    put(writer->body + HEADER_BYTES, low, 8);
    put(writer->body + HEADER_BYTES + 8, high, 8);
}

void tri_registry_write_hash(struct tri_registry_writer *writer, uint64_t hash)
{
    assert(tri_registry_room(writer) >= 8);
    append(writer, hash, 8);
    count_item(writer);
}

bool tri_registry_write_mark(struct tri_registry_writer *writer,
                             const struct tri_registry_mark *mark)
{
    bool is_request = writer->body[0] == TRI_REGISTRY_REQUEST;

    if (tri_registry_room(writer) <
        (is_request ? REQUEST_BYTES : VERSION_BYTES))
        return false;
    append(writer, mark->owner, 8);
    append(writer, mark->version, 8);
    if (is_request)
        append(writer, mark->collected, 8);
    count_item(writer);
    return true;
}

bool tri_registry_open_section(struct tri_registry_writer *writer)
{
    assert(writer->section_at == 0);
    if (tri_registry_room(writer) < TRI_SECTION_BYTES)
        return false;
    writer->section_at = writer->bytes;
    memset(writer->body + writer->bytes, 0, TRI_SECTION_BYTES);
    writer->bytes += TRI_SECTION_BYTES;
    return true;
}

size_t tri_registry_item_bytes(const struct tri_registry_item *item)
{
    return ITEM_BYTES + item->name_len + item->tags_len;
}

bool tri_registry_write_item(struct tri_registry_writer *writer,
                             const struct tri_registry_item *item)
{
    unsigned char *entries = writer->body + writer->section_at + 40;

    assert(writer->section_at != 0);
    if (tri_registry_room(writer) < tri_registry_item_bytes(item))
        return false;
    append(writer, item->version, 8);
    append(writer, item->stamp.epoch, 8);
    append(writer, item->stamp.counter, 8);
    append(writer, item->slot, 4);
    append(writer, item->generation, 4);
    append(writer, item->protocol, 4);
    append(writer, item->flags, 1);
    append(writer, item->name_len, 1);
    append(writer, item->tags_len, 2);
    memcpy(writer->body + writer->bytes, item->name, item->name_len);
    writer->bytes += item->name_len;
    if (item->tags_len > 0)
        memcpy(writer->body + writer->bytes, item->tags, item->tags_len);
    writer->bytes += item->tags_len;
    put(entries, get(entries, 2) + 1u, 2);
    return true;
}

void tri_registry_close_section(struct tri_registry_writer *writer,
                                const struct tri_registry_section *section)
{
    unsigned char *at = writer->body + writer->section_at;

    assert(writer->section_at != 0);
    put(at, section->owner, 8);
    put(at + 8, section->version, 8);
    put(at + 16, section->collected, 8);
    put(at + 24, section->base, 8);
    put(at + 32, section->upto, 8);
    put(at + 42, section->flags, 2);
    writer->section_at = 0;
    count_item(writer);
}
