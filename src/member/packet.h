/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_PACKET_H
#define TRI_PACKET_H

/*
 * Control datagrams: membership and registry. At most TRI_PACKET_BYTES_MAX, so
 * that none is fragmented on an Ethernet.
 *
 *      0       4     5    6    7     8               16
 *      | magic |vers.|kind|flags| 0  | cluster id     |
 *     16                             24              32
 *      | source node                 | destination    |
 *     32                             40              48
 *      | counter                     | view epoch     |
 *     48                             56              64
 *      | view digest                 | body …   | tag 16 |
 *
 * All fields little-endian, reserved bytes zero and checked. counter: grows
 * with every packet of a source; who receives keeps a window of it for each
 * source, so that a repeated packet changes nothing. view epoch and digest: 0
 * until views exist. cluster id 0 and destination 0 in JOIN and its answers:
 * the joiner does not know them yet.
 *
 * The tag is HMAC-SHA256 (RFC 2104), truncated to 16 bytes, over everything
 * before it, under a key that HKDF-SHA256 makes of the job's key with the info
 * "troupe control 1": no nonce, so nothing breaks when a counter repeats. With
 * security "none" there is no tag (flag SEALED clear). Control datagrams are
 * never encrypted: who lives is no secret of the job.
 */

#include "member/card.h"
#include "member/swim_core.h"
#include "wire/key.h"
#include "wire/seal.h"

#define TRI_PACKET_MAGIC 0x314d5254u /* "TRM1" */
#define TRI_PACKET_VERSION 1
#define TRI_PACKET_BYTES_MAX 1400
#define TRI_PACKET_HEADER_BYTES 64
#define TRI_PACKET_TAG_BYTES 16
#define TRI_PACKET_BODY_MAX                                                   \
    (TRI_PACKET_BYTES_MAX - TRI_PACKET_HEADER_BYTES - TRI_PACKET_TAG_BYTES)

/* Kinds: those of enum tri_swim_kind, and */
enum tri_packet_kind {
    TRI_PACKET_CHALLENGE = 64, /* answer to a JOIN without a good cookie: its
                                  body is the cookie to join with */
    TRI_PACKET_REFUSED = 65,   /* answer to a JOIN that cannot be: body: i32
                                  error code, then text */
    TRI_PACKET_REGISTRY = 66,  /* body: name/registry_packet.h */
    TRI_PACKET_TRAITS = 67,    /* body: member/traits.h */
};

struct tri_packet {
    uint8_t kind;
    uint64_t cluster;
    uint64_t source;
    uint64_t destination;
    uint64_t counter;
    uint64_t view_epoch;
    uint64_t view_digest;
    const unsigned char *body; /* decoded: within the data */
    uint32_t body_bytes;
};

struct tri_packet_key; /* NULL: security "none" */

/* Errors: ENOMEM, ESYSTEM. Used by one thread at a time. */
int tri_packet_key_create(const unsigned char job_key[TRI_KEY_BYTES],
                          struct tri_packet_key **key_p);
void tri_packet_key_destroy(struct tri_packet_key **key_p);

/* 16 bytes of HMAC of anything: cookies. Errors: ESYSTEM. */
int tri_packet_mac(struct tri_packet_key *key, const void *data, size_t bytes,
                   unsigned char mac_p[TRI_PACKET_TAG_BYTES]);

/*
 * Writes header, body and tag. Returns the bytes written, 0 when body_bytes is
 * above TRI_PACKET_BODY_MAX or the crypto library fails.
 */
size_t tri_packet_seal(struct tri_packet_key *key,
                       const struct tri_packet *packet,
                       unsigned char data[TRI_PACKET_BYTES_MAX]);

/* Checks everything of a datagram but its counter. Returns NULL, or what is
 * wrong (static text, to be counted as a refusal). */
const char *tri_packet_open(struct tri_packet_key *key,
                            const unsigned char *data, size_t bytes,
                            struct tri_packet *packet_p);

/* The last 64 counters of one source. */
struct tri_packet_window {
    uint64_t highest;
    uint64_t seen; /* bit i: highest - i */
};

/* False: seen before, or too old. */
bool tri_packet_window_take(struct tri_packet_window *window,
                            uint64_t counter);

/*
 * Bodies of SWIM's packets. card_of gives the card of a node for rumours that
 * are to have one (and NULL otherwise: the rumour goes without). Returns the
 * body's bytes; rumours that do not fit are left out from the end, and
 * *rumours_len_p says how many went.
 */
size_t tri_packet_encode_swim(const struct tri_swim_packet *packet,
                              const struct tri_member_card *(*card_of)(
                                  void *context, uint64_t node),
                              void *context, unsigned char *body,
                              uint32_t *rumours_len_p);

/* cards_p[i]: of rumours[i], where with_card. A JOIN's own card is
 * cards_p[0] with one rumour about the joiner. from and to are the header's.
 * Total on any bytes. Returns NULL, or what is wrong. */
const char *tri_packet_decode_swim(const struct tri_packet *packet,
                                   struct tri_swim_packet *swim_p,
                                   struct tri_member_card *cards_p);

#endif
