/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_TRAITS_H
#define TRI_TRAITS_H

/*
 * What a member says of itself and changes as it goes: load and tags. Only the
 * owner writes; its version grows with each change, so the newest is known.
 *
 * The body of a TRI_PACKET_TRAITS datagram, little-endian:
 *      0      1      2       4
 *      | kind | flags| len   | body …
 * NEWS:    len entries: node u64, version u64, load f32 (bits), tags_len u8,
 *          tags
 * HASH:    u64 hash of all the sender knows: is yours the same?
 * KNOWN:   len pairs node u64, version u64, nodes ascending; first u64 and
 *          last u64 before them: the sender knows no others between these two.
 *          Who receives it sends what is newer with it. Flag WANT: and wants
 *          to be told, with a KNOWN of the same range, what it lacks.
 */

#include "base/base.h"

#define TRI_TAGS_MAX 255
#define TRI_LOAD_MAX 1e9f
#define TRI_TRAITS_BODY_MAX 1300
#define TRI_TRAITS_HEADER_BYTES 4
#define TRI_TRAITS_ENTRY_BYTES 21 /* and the tags */
#define TRI_TRAITS_PAIR_BYTES 16
#define TRI_TRAITS_NEWS_MAX                                                   \
    ((TRI_TRAITS_BODY_MAX - TRI_TRAITS_HEADER_BYTES) / TRI_TRAITS_ENTRY_BYTES)
#define TRI_TRAITS_PAIRS_MAX                                                  \
    ((TRI_TRAITS_BODY_MAX - TRI_TRAITS_HEADER_BYTES - 16) /                   \
     TRI_TRAITS_PAIR_BYTES)

struct tri_traits {
    uint64_t node;
    uint64_t version; /* 0: it said nothing yet */
    float load;       /* 0 to TRI_LOAD_MAX */
    uint8_t tags_len;
    char tags[TRI_TAGS_MAX + 1]; /* and a zero */
};

/* A version of a node's traits. */
struct tri_traits_pair {
    uint64_t node;
    uint64_t version;
};

enum tri_traits_kind {
    TRI_TRAITS_NEWS = 1,
    TRI_TRAITS_HASH,
    TRI_TRAITS_KNOWN,
    TRI_TRAITS_KIND_LAST = TRI_TRAITS_KNOWN,
};

#define TRI_TRAITS_WANT 1u /* flag of KNOWN */

struct tri_traits_packet {
    uint8_t kind;
    uint8_t flags;
    uint16_t len;   /* of what is in a list below */
    uint64_t hash;  /* HASH */
    uint64_t first; /* KNOWN */
    uint64_t last;
    union {
        struct tri_traits_pair pairs[TRI_TRAITS_PAIRS_MAX];
        struct tri_traits news[TRI_TRAITS_NEWS_MAX];
    };
};

/* The bytes of one entry of NEWS. */
static inline size_t tri_traits_bytes(const struct tri_traits *traits)
{
    return TRI_TRAITS_ENTRY_BYTES + traits->tags_len;
}

/* Writes a packet that keeps to the limits. Returns the bytes. */
size_t tri_traits_encode(const struct tri_traits_packet *packet,
                         unsigned char body[TRI_TRAITS_BODY_MAX]);

/* Total on any bytes. Returns NULL, or what is wrong (static text). */
const char *tri_traits_decode(const unsigned char *body, size_t bytes,
                              struct tri_traits_packet *packet_p);

#endif
