/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_HELLO_H
#define TRI_HELLO_H

/*
 * What a joiner and a seed say to each other before one is a member. A JOIN
 * begins with
 *
 *      0          4        8               16              24
 *      | interface| options| cluster name  | token         |
 *     24                   32                              48
 *      | cookie: time slot | tag                           |
 *
 * interface: version of records and types, which must be the same.
 * options that all of a cluster have: strict_names (1 byte, 0 or 1; the same),
 * membership (1, enum tri_swim_profile), 0 (2). cluster name: hash of option
 * cluster, 0 for none; the same. token: the joiner's, who
 * gets it back and knows an answer by it. cookie: zeros at first; then what
 * the seed said in its CHALLENGE, which proves that the joiner's address is
 * not forged. Behind it comes the body that the core's packet has, with the
 * joiner's card; without a cookie there may be none.
 *
 * CHALLENGE: token (8), cookie (24). The cluster's id is in its header.
 * REFUSED: token (8), error code (4), cluster name (8: that of who refuses).
 *
 * Pure, but for the seed's secret and the time that cookies are made of.
 */

#include "member/packet.h"
#include "os/endpoint.h"

#define TRI_HELLO_BYTES 48
#define TRI_CHALLENGE_BYTES 32
#define TRI_REFUSED_BYTES 20

struct tri_cookie {
    uint64_t slot;
    unsigned char tag[TRI_PACKET_TAG_BYTES];
};

struct tri_hello {
    uint32_t interface;
    bool strict;     /* option strict_names */
    uint8_t profile; /* option membership: enum tri_swim_profile */
    uint64_t cluster_name;
    uint64_t token;
    struct tri_cookie cookie;
};

void tri_hello_encode(const struct tri_hello *hello,
                      unsigned char data[TRI_HELLO_BYTES]);

/* Returns NULL, or what is wrong. */
const char *tri_hello_decode(const unsigned char *data, size_t bytes,
                             struct tri_hello *hello_p);

void tri_challenge_encode(uint64_t token, const struct tri_cookie *cookie,
                          unsigned char data[TRI_CHALLENGE_BYTES]);
const char *tri_challenge_decode(const unsigned char *data, size_t bytes,
                                 uint64_t *token_p,
                                 struct tri_cookie *cookie_p);

struct tri_refused {
    uint64_t token;
    int32_t error;
    uint64_t cluster_name;
};

void tri_refused_encode(const struct tri_refused *refused,
                        unsigned char data[TRI_REFUSED_BYTES]);
const char *tri_refused_decode(const unsigned char *data, size_t bytes,
                               struct tri_refused *refused_p);

/*
 * A cookie for a joiner at an address, good for the slot of TRI_COOKIE_NS that
 * it was made in and the next one. key: the seed's own secret.
 * Errors: ESYSTEM.
 */
#define TRI_COOKIE_NS (32ull * 1000 * 1000 * 1000)
int tri_cookie_make(struct tri_packet_key *key,
                    const struct tri_endpoint *from, uint64_t node,
                    uint64_t now_ns, struct tri_cookie *cookie_p);
bool tri_cookie_check(struct tri_packet_key *key,
                      const struct tri_endpoint *from, uint64_t node,
                      uint64_t now_ns, const struct tri_cookie *cookie);

/*
 * What a datagram that could not be opened looks like from outside; nobody
 * vouches for it. False: not one of ours.
 */
struct tri_peek {
    uint8_t version;
    uint8_t kind;
    uint64_t source;
    const unsigned char *body; /* as far as it can be told */
    size_t body_bytes;
};

bool tri_packet_peek(const unsigned char *data, size_t bytes,
                     struct tri_peek *peek_p);

#endif
