/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_REGISTRY_PACKET_H
#define TRI_REGISTRY_PACKET_H

/*
 * What registries of names tell each other: bodies of control datagrams of
 * kind TRI_PACKET_REGISTRY (member/packet.h), which authenticate them and say
 * who sent them. All fields little-endian, reserved bytes zero and checked.
 *
 *     | kind 1 | version 1 | items 2 | 0 4 |  and then, by kind:
 *
 *     DIGEST    hash 8                       of all (owner, version)
 *     BUCKETS   64 hashes of 8               by the owner's 6 highest bits
 *     VERSIONS  low 8, high 8,               of the owners from low to high;
 *               items of (owner 8, version 8)  who is not there is at 0
 *     REQUEST   items of (owner 8, version 8, collected 8)
 *     DELTA     items of sections: owner 8, version 8, collected 8, base 8,
 *               upto 8, entries 2, flags 2, 0 4, and that many entries: version
 *               8, epoch 8, counter 8, slot 4, generation 4, protocol 4, flags
 *               1, name bytes 1, tags bytes 2, name, tags
 *
 * A section holds all of an owner's entries whose versions are above base and
 * not above upto, in the order of their versions. version: the highest that
 * the sender knows; collected: up to which the owner has forgotten withdrawn
 * names.
 */

#include "base/base.h"

#define TRI_REGISTRY_BODY_MAX 1300u
#define TRI_REGISTRY_BUCKETS 64u
#define TRI_REGISTRY_TAGS_MAX 255u
#define TRI_REGISTRY_VERSION 1

enum tri_registry_kind {
    TRI_REGISTRY_DIGEST = 1,
    TRI_REGISTRY_BUCKET_HASHES,
    TRI_REGISTRY_VERSIONS,
    TRI_REGISTRY_REQUEST,
    TRI_REGISTRY_DELTA,
    TRI_REGISTRY_KIND_LAST = TRI_REGISTRY_DELTA,
};

/* Flags of an entry. */
enum {
    TRI_ENTRY_UNIQUE = 1,
    TRI_ENTRY_DELETED = 2,
    TRI_ENTRY_STRICT = 4, /* with UNIQUE: all nodes agreed to it */
    TRI_ENTRY_FLAGS = 7,
};

/* Flags of a section. */
enum {
    /* The sender has more and waits to be asked for it. */
    TRI_SECTION_MORE = 1,
    /* It was not asked for: to be passed on. */
    TRI_SECTION_NEWS = 2,
    TRI_SECTION_FLAGS = 3,
};

/* Who comes first of several that registered one name. */
struct tri_stamp {
    uint64_t epoch;   /* the view's at registration; 0 until views exist */
    uint64_t counter; /* Lamport's clock there */
};

/* An entry as it travels; name and tags lie elsewhere. */
struct tri_registry_item {
    uint64_t version;
    struct tri_stamp stamp;
    uint32_t slot;
    uint32_t generation;
    uint32_t protocol; /* hash */
    uint8_t flags;
    uint8_t name_len;
    uint16_t tags_len;
    const char *name;
    const char *tags;
};

struct tri_registry_section {
    uint64_t owner;
    uint64_t version;
    uint64_t collected;
    uint64_t base;
    uint64_t upto;
    uint16_t entries;
    uint16_t flags;
};

struct tri_registry_mark {
    uint64_t owner;
    uint64_t version;
    uint64_t collected; /* REQUEST only */
};

/* --- reading -------------------------------------------------------------- */

/* A body that was found to be well formed, and how far it was read. */
struct tri_registry_reader {
    uint8_t kind;
    uint16_t items;
    uint64_t low, high; /* VERSIONS */
    uint64_t hash;      /* DIGEST */
    const unsigned char *at;
};

/* Total on any bytes. Returns NULL, or what is wrong (static text). */
const char *tri_registry_open(const void *body, size_t bytes,
                              struct tri_registry_reader *reader_p);

/* One after the other, `items` in all; of a section, its entries come before
 * the next one. */
uint64_t tri_registry_read_hash(struct tri_registry_reader *reader);
void tri_registry_read_mark(struct tri_registry_reader *reader,
                            struct tri_registry_mark *mark_p);
void tri_registry_read_section(struct tri_registry_reader *reader,
                               struct tri_registry_section *section_p);
/* name and tags point into the body. */
void tri_registry_read_item(struct tri_registry_reader *reader,
                            struct tri_registry_item *item_p);

/* --- writing -------------------------------------------------------------- */

struct tri_registry_writer {
    uint32_t bytes;
    uint32_t section_at; /* of a DELTA, the open one; 0: none */
    unsigned char body[TRI_REGISTRY_BODY_MAX];
};

void tri_registry_begin(struct tri_registry_writer *writer,
                        enum tri_registry_kind kind);
/* low and high are written at once, and may be set again at the end. */
void tri_registry_set_range(struct tri_registry_writer *writer, uint64_t low,
                            uint64_t high);
void tri_registry_write_hash(struct tri_registry_writer *writer,
                             uint64_t hash);

/* False: it does not fit, and nothing was written. */
bool tri_registry_write_mark(struct tri_registry_writer *writer,
                             const struct tri_registry_mark *mark);
bool tri_registry_open_section(struct tri_registry_writer *writer);
bool tri_registry_write_item(struct tri_registry_writer *writer,
                             const struct tri_registry_item *item);
/* entries is filled in here. */
void tri_registry_close_section(struct tri_registry_writer *writer,
                                const struct tri_registry_section *section);

/* Items written so far. */
uint16_t tri_registry_items(const struct tri_registry_writer *writer);

/* Bytes of a section's header, and of an entry. */
#define TRI_SECTION_BYTES 48u
size_t tri_registry_item_bytes(const struct tri_registry_item *item);
/* Bytes left. */
static inline size_t tri_registry_room(const struct tri_registry_writer *writer)
{
    return TRI_REGISTRY_BODY_MAX - writer->bytes;
}

#endif
