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
 *     48                             56
 *      | view digest                 | body …   | tag 16 |
 *
 * All fields little-endian, reserved bytes zero and checked. counter: grows
 * with every packet of a source, from 1; who receives keeps a window of it for
 * each source, so that a repeated packet changes nothing. cluster id 0 and
 * destination 0 in JOIN and its answers: the joiner does not know them yet.
 * view epoch: of the newest view of the group with the lowest id that the
 * source is in, in its lower half, and a hash of that id in the upper one; view
 * digest: of that view; both 0 without one. The first 8 bytes stay as they are
 * in every version.
 *
 * The tag is HMAC-SHA256 (RFC 2104), truncated to 16 bytes, over everything
 * before it, under a key that HKDF-SHA256 makes of the job's key with the info
 * "troupe control 1 auth", or "… encrypt", as option security says: no nonce,
 * so nothing breaks when a counter repeats. With security "none" there is no
 * tag (flag SEALED clear). Control datagrams are never encrypted: who lives is
 * no secret of the job.
 *
 * The body of SWIM's packets, of every kind:
 *
 *     fields 2 | rumours 2 | incarnation 4 | alive 4 | lowest 8 | fields …
 *     | rumours …
 *
 * fields: a bit for each field of struct tri_swim_packet that is there, which
 * are those that are not 0, in the order of enum tri_packet_field; `buckets`
 * is one field of TRI_SWIM_BUCKETS numbers. A rumour is
 *
 *     node 8 | state and more 1 | incarnation 4 | accuser 8, of SUSPECT and
 *     DEAD | card, where one goes along
 */

#include "member/card.h"
#include "member/swim_core.h"
#include "wire/key.h"
#include "wire/mac.h"
#include "wire/seal.h"

#define TRI_PACKET_MAGIC 0x314d5254u /* "TRM1" */
#define TRI_PACKET_VERSION 1
#define TRI_PACKET_BYTES_MAX 1400
#define TRI_PACKET_HEADER_BYTES 56
#define TRI_PACKET_TAG_BYTES TRI_MAC_BYTES
#define TRI_PACKET_BODY_MAX                                                   \
    (TRI_PACKET_BYTES_MAX - TRI_PACKET_HEADER_BYTES - TRI_PACKET_TAG_BYTES)

/* Kinds: those of enum tri_swim_kind, and */
enum tri_packet_kind {
    TRI_PACKET_CHALLENGE = 64, /* answer to a JOIN without a good cookie:
                                  body: member/hello.h, also for a JOIN's
                                  beginning */
    TRI_PACKET_REFUSED = 65,   /* answer to a JOIN that cannot be: the same */
    TRI_PACKET_REGISTRY = 66,  /* body: name/registry_packet.h */
    TRI_PACKET_TRAITS = 67,    /* body: member/traits.h */
};

/* What is written of struct tri_swim_packet where it is not 0. */
enum tri_packet_field {
    TRI_PACKET_SEQUENCE = 1 << 0,
    TRI_PACKET_TARGET = 1 << 1,
    TRI_PACKET_DELAY = 1 << 2,
    TRI_PACKET_CURSOR = 1 << 3,
    TRI_PACKET_RETRY = 1 << 4,
    TRI_PACKET_DIGEST = 1 << 5,
    TRI_PACKET_FLAGS = 1 << 6,
    TRI_PACKET_START = 1 << 7,
    TRI_PACKET_MASK = 1 << 8,
    TRI_PACKET_BUCKETS = 1 << 9, /* of BUCKETS_ only */
    TRI_PACKET_FIELDS_ALL = (1 << 10) - 1,
};

/* For struct tri_swim_config: a packet of SWIM without rumours, tag included,
 * but for BUCKETS_, whose hashes come on top; a rumour; a card beside it. */
#define TRI_PACKET_SWIM_BYTES                                                 \
    (TRI_PACKET_HEADER_BYTES + TRI_PACKET_TAG_BYTES + 20 + 45)
#define TRI_PACKET_BUCKETS_BYTES (TRI_SWIM_BUCKETS * 8)
#define TRI_PACKET_RUMOUR_BYTES 21

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

/* mode: of the job's frames; another one makes another key of the tags, NONE
 * for a key of cookies alone. Errors: ENOMEM, ESYSTEM. Used by one thread at a
 * time. */
int tri_packet_key_create(const unsigned char job_key[TRI_KEY_BYTES],
                          enum tri_seal_mode mode,
                          struct tri_packet_key **key_p);
void tri_packet_key_destroy(struct tri_packet_key **key_p);

/* 16 bytes of HMAC of anything: cookies. Under another key than the packets'
 * tags, so that neither can be taken for the other. (With security "none" a key
 * made of a random one serves.) Errors: ESYSTEM. */
int tri_packet_mac(struct tri_packet_key *key, const void *data, size_t bytes,
                   unsigned char mac_p[TRI_PACKET_TAG_BYTES]);

/*
 * Writes header, body and tag. The body may lie where it goes in `data`
 * already. Returns the bytes written, 0 when body_bytes is above
 * TRI_PACKET_BODY_MAX or the crypto library fails.
 */
size_t tri_packet_seal(struct tri_packet_key *key,
                       const struct tri_packet *packet,
                       unsigned char data[TRI_PACKET_BYTES_MAX]);

/*
 * Checks all of a datagram that can be checked without knowing the receiver's
 * state: tri_packet_check and the counter's window come next. Returns NULL, or
 * what is wrong: static text, to be counted as a refusal; the texts below are
 * worth more than that.
 */
const char *tri_packet_open(struct tri_packet_key *key,
                            const unsigned char *data, size_t bytes,
                            struct tri_packet *packet_p);

/* Reasons to compare with, by address. They are troupe's packets by their
 * form, but nothing in them is proven. */
extern const char tri_packet_other_version[];
extern const char tri_packet_not_sealed[];   /* security is "none" there */
extern const char tri_packet_sealed[];       /* and here */
extern const char tri_packet_other_key[];    /* or changed on its way */
extern const char tri_packet_other_cluster[]; /* of tri_packet_check */
extern const char tri_packet_other_node[];

/*
 * Whether an opened packet is for this node and of its cluster. cluster 0: not
 * known yet, any will do. Only a JOIN and the answers to it may leave out the
 * cluster, and the destination. Returns NULL or one of the two last texts.
 */
const char *tri_packet_check(const struct tri_packet *packet,
                             uint64_t cluster, uint64_t node);

/* The last 64 counters of one source; begins zeroed. */
struct tri_packet_window {
    uint64_t highest;
    uint64_t seen; /* bit i: highest - i */
};

/* False: seen before, too old, or 0. Only of packets that were opened and
 * checked: a forged counter would shut out the true ones. */
bool tri_packet_window_take(struct tri_packet_window *window,
                            uint64_t counter);

/*
 * Bodies of SWIM's packets, at most TRI_PACKET_BODY_MAX bytes. card_of gives
 * the card of a node for rumours that are to have one (and NULL otherwise: the
 * rumour goes without). Returns the body's bytes; rumours that do not fit are
 * left out from the end, and *rumours_len_p says how many went.
 */
size_t tri_packet_encode_swim(const struct tri_swim_packet *packet,
                              const struct tri_member_card *(*card_of)(
                                  void *context, uint64_t node),
                              void *context, unsigned char *body,
                              uint32_t *rumours_len_p);

/*
 * cards_p[i], of TRI_SWIM_RUMOURS_MAX: of rumours[i], where with_card. A
 * JOIN's own card is cards_p[0] with one rumour about the joiner, which is
 * checked to be there. from and to are the header's. Total on any bytes.
 * Returns NULL, or what is wrong; outputs are then unspecified.
 */
const char *tri_packet_decode_swim(const struct tri_packet *packet,
                                   struct tri_swim_packet *swim_p,
                                   struct tri_member_card *cards_p);

#endif
