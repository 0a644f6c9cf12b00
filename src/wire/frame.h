/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_FRAME_H
#define TRI_FRAME_H

/*
 * What the network carries: frames, a header and, in a DATA frame, one or more
 * records (wire/record.h), each padded to 8 bytes, then the tag if the job has
 * one (wire/seal.h). doc/wire.md explains the protocol.
 *
 *      0       4     5    6    7     8               16
 *      | magic |vers.|kind|lane|flags| source node    |
 *     16                             24              32
 *      | destination node            | job nonce      |
 *     32                             40              48
 *      | number                      | ack            |
 *     48                             56              64
 *      | sack                        | credit         |
 *     64       68        70       71 72       76     80
 *      | bytes | records |ack lane|0 | probe  | echo  |  records … | tag |
 *
 * All fields little-endian; reserved bits are zero and checked. `bytes` counts
 * the whole frame. The first 32 bytes, and nothing else, mean the same in all
 * versions. The destination's id travels because an address may have been
 * taken over by another life of a node, and the nonce because it may have been
 * taken over by another job; the tag proves both.
 *
 * number: of a DATA frame, its place in the lane, from 1; of another frame,
 * its place among those. With the lane it makes the seal's number.
 * ack, sack, credit: of the lane `ack lane` in the other direction. ack: all
 * frames up to this number have arrived; sack: bit i says that ack + 2 + i has;
 * credit: bytes of frames that may be sent since the beginning.
 * probe: not 0: answer at once with `echo` as this.
 */

#include <endian.h>
#include <string.h>

#include "base/base.h"
#include "wire/record.h"

#define TRI_FRAME_MAGIC 0x31465254u /* "TRF1" */
/* Versions that this code speaks. */
#define TRI_FRAME_VERSION_MIN 1
#define TRI_FRAME_VERSION_MAX 1
#define TRI_FRAME_HEADER_BYTES 80
#define TRI_FRAME_TAG_BYTES 16
#define TRI_FRAME_ALIGN 8

/* The largest frame, tag included, that a node takes. What it sends may be
 * less, at least TRI_FRAME_BYTES_MIN: as large as its carrier does well. */
#define TRI_FRAME_BYTES_MAX (64u * 1024)
#define TRI_FRAME_BYTES_MIN (16u * 1024)

/* The largest payload of each of `records` records in a frame. */
#define TRI_FRAME_PAYLOAD_MAX(frame_bytes, records)                           \
    ((((frame_bytes) - TRI_FRAME_HEADER_BYTES - TRI_FRAME_TAG_BYTES) /        \
          (records) -                                                         \
      sizeof(struct tri_record)) &                                            \
     ~(size_t)(TRI_FRAME_ALIGN - 1))

_Static_assert(TRI_FRAME_HEADER_BYTES % TRI_FRAME_ALIGN == 0 &&
                   TRI_FRAME_TAG_BYTES % TRI_FRAME_ALIGN == 0 &&
                   sizeof(struct tri_record) % TRI_FRAME_ALIGN == 0 &&
                   TRI_FRAME_BYTES_MAX % TRI_FRAME_ALIGN == 0,
               "records are used in place");

enum tri_frame_kind {
    TRI_FRAME_DATA = 1,
    TRI_FRAME_ACK = 2,    /* a header alone */
    TRI_FRAME_KIND_LAST = TRI_FRAME_ACK,
};

enum {
    TRI_FRAME_SEALED = 1,    /* a tag is behind the records */
    TRI_FRAME_ENCRYPTED = 2, /* and the records are encrypted */
};

struct tri_frame {
    uint8_t version;
    uint8_t kind;
    uint8_t lane;  /* of a DATA frame; else 0 */
    uint8_t flags;
    uint8_t ack_lane;
    uint16_t records;
    uint32_t bytes;
    uint64_t source;
    uint64_t destination;
    uint64_t nonce;
    uint64_t number;
    uint64_t ack;
    uint64_t sack;
    uint64_t credit;
    uint32_t probe;
    uint32_t echo;
};

/* What a record with this payload takes in a frame. */
static inline size_t tri_frame_record_bytes(size_t payload_bytes)
{
    return sizeof(struct tri_record) +
           tri_align_up(payload_bytes, TRI_FRAME_ALIGN);
}

/* Bytes behind the records. */
static inline size_t tri_frame_tag_bytes(const struct tri_frame *frame)
{
    return frame->flags & TRI_FRAME_SEALED ? TRI_FRAME_TAG_BYTES : 0;
}

/* The number under which a frame is sealed: no two frames of a direction
 * have the same. */
static inline uint64_t tri_frame_seal_number(const struct tri_frame *frame)
{
    uint64_t space = frame->kind == TRI_FRAME_DATA ? frame->lane : TRI_LANES;

    return space << 62 | frame->number;
}

/* Writes the TRI_FRAME_HEADER_BYTES of a header. */
static inline void tri_frame_encode(unsigned char *data,
                                    const struct tri_frame *frame)
{
    const uint32_t head[2] = {
        htole32(TRI_FRAME_MAGIC),
        htole32(frame->version | (uint32_t)frame->kind << 8 |
                (uint32_t)frame->lane << 16 | (uint32_t)frame->flags << 24),
    };
    const uint64_t longs[7] = {
        htole64(frame->source), htole64(frame->destination),
        htole64(frame->nonce),  htole64(frame->number),
        htole64(frame->ack),    htole64(frame->sack),
        htole64(frame->credit),
    };
    const uint32_t tail[4] = {
        htole32(frame->bytes),
        htole32(frame->records | (uint32_t)frame->ack_lane << 16),
        htole32(frame->probe),
        htole32(frame->echo),
    };

    memcpy(data, head, sizeof(head));
    memcpy(data + 8, longs, sizeof(longs));
    memcpy(data + 64, tail, sizeof(tail));
}

static inline uint32_t tri_frame_u32_(const unsigned char *data)
{
    uint32_t value;

    memcpy(&value, data, sizeof(value));
    return le32toh(value);
}

static inline uint64_t tri_frame_u64_(const unsigned char *data)
{
    uint64_t value;

    memcpy(&value, data, sizeof(value));
    return le64toh(value);
}

/*
 * Decodes what all versions have in common: version, kind, lane, flags,
 * source, destination, nonce. Returns NULL, or what is wrong.
 */
static inline const char *tri_frame_decode_common(const unsigned char *data,
                                                  size_t arrived_bytes,
                                                  struct tri_frame *frame_p)
{
    uint32_t word;

    if (arrived_bytes < TRI_FRAME_HEADER_BYTES)
        return "too short for a frame";
    if (arrived_bytes > TRI_FRAME_BYTES_MAX)
        return "too long for a frame";
    if (tri_frame_u32_(data) != TRI_FRAME_MAGIC)
        return "not a frame";
    word = tri_frame_u32_(data + 4);
    *frame_p = (struct tri_frame){
        .version = (uint8_t)word,
        .kind = (uint8_t)(word >> 8),
        .lane = (uint8_t)(word >> 16),
        .flags = (uint8_t)(word >> 24),
        .source = tri_frame_u64_(data + 8),
        .destination = tri_frame_u64_(data + 16),
        .nonce = tri_frame_u64_(data + 24),
    };
    return NULL;
}

/*
 * Decodes and checks a header of a version that we speak, by itself; records
 * are not looked at. Returns NULL, or what is wrong.
 */
static inline const char *tri_frame_decode(const unsigned char *data,
                                           size_t arrived_bytes,
                                           struct tri_frame *frame_p)
{
    const char *reason = tri_frame_decode_common(data, arrived_bytes, frame_p);
    uint32_t word;

    if (reason)
        return reason;
    if (frame_p->version < TRI_FRAME_VERSION_MIN ||
        frame_p->version > TRI_FRAME_VERSION_MAX)
        return "a frame of another version";
    word = tri_frame_u32_(data + 68);
    frame_p->number = tri_frame_u64_(data + 32);
    frame_p->ack = tri_frame_u64_(data + 40);
    frame_p->sack = tri_frame_u64_(data + 48);
    frame_p->credit = tri_frame_u64_(data + 56);
    frame_p->bytes = tri_frame_u32_(data + 64);
    frame_p->records = (uint16_t)word;
    frame_p->ack_lane = (uint8_t)(word >> 16);
    frame_p->probe = tri_frame_u32_(data + 72);
    frame_p->echo = tri_frame_u32_(data + 76);
    if (frame_p->bytes != arrived_bytes)
        return "a frame's length is not what arrived";
    if (frame_p->kind < TRI_FRAME_DATA || frame_p->kind > TRI_FRAME_KIND_LAST)
        return "a frame of an unknown kind";
    if (frame_p->flags & ~(TRI_FRAME_SEALED | TRI_FRAME_ENCRYPTED) ||
        frame_p->flags == TRI_FRAME_ENCRYPTED || word >> 24 != 0)
        return "reserved bits of a frame are set";
    if (frame_p->lane >= TRI_LANES || frame_p->ack_lane >= TRI_LANES)
        return "a frame of an unknown lane";
    if (frame_p->number == 0 || frame_p->number >> 62 != 0)
        return "a frame with an impossible number";
    if (arrived_bytes < TRI_FRAME_HEADER_BYTES + tri_frame_tag_bytes(frame_p))
        return "a frame without room for its tag";
    if (frame_p->kind == TRI_FRAME_DATA)
        return frame_p->records > 0 ? NULL : "a frame without records";
    if (frame_p->records != 0 || frame_p->lane != 0 ||
        arrived_bytes !=
            TRI_FRAME_HEADER_BYTES + tri_frame_tag_bytes(frame_p))
        return "a header that should be alone is not";
    return NULL;
}

/*
 * Checks the records of a DATA frame whose header was decoded, and which is
 * not, or no more, encrypted. data: aligned to 8. Returns NULL, or what is
 * wrong.
 */
static inline const char *
tri_frame_check_records(const unsigned char *data,
                        const struct tri_frame *frame)
{
    size_t at = TRI_FRAME_HEADER_BYTES;
    size_t end = frame->bytes - tri_frame_tag_bytes(frame);

    for (unsigned i = 0; i < frame->records; i++) {
        const struct tri_record *record = (const void *)(data + at);
        size_t left = end - at;

        if (left < sizeof(*record))
            return "a frame with fewer records than it says";
        if (!tri_record_check(record, left - sizeof(*record)))
            return "a malformed record";
        if (tri_lane_of(record->kind) != frame->lane &&
            record->kind != TRI_MORE && record->kind != TRI_BYE)
            return "a record on the wrong lane";
        if (tri_frame_record_bytes(record->bytes) > left)
            return "a record whose padding is cut off";
        at += tri_frame_record_bytes(record->bytes);
    }
    return at == end ? NULL : "bytes behind a frame's last record";
}

#endif
