/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_FABRIC_FRAME_H
#define TRI_FABRIC_FRAME_H

/*
 * What the network carries: frames, a header and one or more records
 * (wire/record.h), each padded to 8 bytes.
 *
 *      0       4     5     6         8       12         16
 *      | magic |vers.|flags| records | bytes | reserved |
 *     16               24            32                 40
 *      | source node    | destination | job nonce       |  records …
 *
 * All fields little-endian; flags and reserved are zero and checked; `bytes`
 * counts the whole frame. The destination's id travels because an address may
 * have been taken over by another life of a node, and the nonce because it may
 * have been taken over by another job. Neither is a proof of identity: the
 * nonce is readable on the network.
 */

#include <endian.h>
#include <string.h>

#include "base/base.h"
#include "wire/record.h"

#define TRI_FRAME_MAGIC 0x31465254u /* "TRF1" */
#define TRI_FRAME_VERSION 1
#define TRI_FRAME_HEADER_BYTES 40
#define TRI_FRAME_ALIGN 8

/* The largest frame. ofi_rxm's eager limit: what is larger would be sent by
 * rendezvous, which leaks when the peer dies. */
#define TRI_FRAME_BYTES_MAX (16u * 1024)

/* The largest payload of a record that is alone in its frame. */
#define TRI_FRAME_PAYLOAD_MAX                                                 \
    (TRI_FRAME_BYTES_MAX - TRI_FRAME_HEADER_BYTES -                           \
     (uint32_t)sizeof(struct tri_record))

_Static_assert(TRI_FRAME_HEADER_BYTES % TRI_FRAME_ALIGN == 0 &&
                   sizeof(struct tri_record) % TRI_FRAME_ALIGN == 0 &&
                   TRI_FRAME_BYTES_MAX % TRI_FRAME_ALIGN == 0,
               "records are used in place");

struct tri_frame {
    uint64_t source;
    uint64_t destination;
    uint64_t nonce;
    uint32_t bytes;
    uint16_t records;
};

/* What a record with this payload takes in a frame. */
static inline size_t tri_frame_record_bytes(size_t payload_bytes)
{
    return sizeof(struct tri_record) +
           tri_align_up(payload_bytes, TRI_FRAME_ALIGN);
}

/* Writes the TRI_FRAME_HEADER_BYTES of a header. */
static inline void tri_frame_encode(unsigned char *data,
                                    const struct tri_frame *frame)
{
    const uint32_t words[4] = {
        htole32(TRI_FRAME_MAGIC),
        htole32(TRI_FRAME_VERSION | (uint32_t)frame->records << 16),
        htole32(frame->bytes),
        0,
    };
    const uint64_t ids[3] = {
        htole64(frame->source),
        htole64(frame->destination),
        htole64(frame->nonce),
    };

    memcpy(data, words, sizeof(words));
    memcpy(data + sizeof(words), ids, sizeof(ids));
}

/* Checks and decodes the header alone. As tri_frame_check. */
static inline const char *tri_frame_decode(const unsigned char *data,
                                           size_t arrived_bytes,
                                           struct tri_frame *frame_p)
{
    uint32_t words[4];
    uint64_t ids[3];

    if (arrived_bytes < TRI_FRAME_HEADER_BYTES)
        return "too short for a frame";
    if (arrived_bytes > TRI_FRAME_BYTES_MAX)
        return "too long for a frame";
    memcpy(words, data, sizeof(words));
    memcpy(ids, data + sizeof(words), sizeof(ids));
    if (le32toh(words[0]) != TRI_FRAME_MAGIC)
        return "not a frame";
    if ((le32toh(words[1]) & 0xff) != TRI_FRAME_VERSION)
        return "a frame of another version";
    if ((le32toh(words[1]) & 0xff00) != 0 || words[3] != 0)
        return "reserved bits of a frame are set";
    if (le32toh(words[2]) != arrived_bytes)
        return "a frame's length is not what arrived";
    frame_p->records = (uint16_t)(le32toh(words[1]) >> 16);
    frame_p->bytes = le32toh(words[2]);
    frame_p->source = le64toh(ids[0]);
    frame_p->destination = le64toh(ids[1]);
    frame_p->nonce = le64toh(ids[2]);
    return NULL;
}

/*
 * Checks a frame that arrived, header and every record, for the node and the
 * job. data: aligned to 8. Returns NULL and the header, or what is wrong.
 */
static inline const char *tri_frame_check(const unsigned char *data,
                                          size_t arrived_bytes, uint64_t node,
                                          uint64_t nonce,
                                          struct tri_frame *frame_p)
{
    const char *reason = tri_frame_decode(data, arrived_bytes, frame_p);
    size_t at = TRI_FRAME_HEADER_BYTES;

    if (reason)
        return reason;
    if (frame_p->nonce != nonce)
        return "a frame of another job";
    if (frame_p->destination != node)
        return "a frame for another node";
    if (frame_p->records == 0)
        return "a frame without records";
    for (unsigned i = 0; i < frame_p->records; i++) {
        const struct tri_record *record = (const void *)(data + at);
        size_t left = arrived_bytes - at;

        if (left < sizeof(*record))
            return "a frame with fewer records than it says";
        if (!tri_record_check(record, left - sizeof(*record)))
            return "a malformed record";
        if (tri_frame_record_bytes(record->bytes) > left)
            return "a record whose padding is cut off";
        at += tri_frame_record_bytes(record->bytes);
    }
    return at == arrived_bytes ? NULL : "bytes behind a frame's last record";
}

#endif
