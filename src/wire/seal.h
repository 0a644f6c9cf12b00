/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SEAL_H
#define TRI_SEAL_H

/*
 * Authentication and encryption of frames: an AEAD over each frame, keyed for
 * one direction between two nodes.
 *
 *     frame:  | header (authenticated) | records (and encrypted) | tag 16 |
 *
 * The AEAD is AES-256-GCM (NIST SP 800-38D) in both modes, the fastest of what
 * was measured (doc/performance.md); authentication alone takes the whole frame
 * as additional data, which is GMAC. The nonce is four zero bytes and the
 * frame's number, little-endian. All nodes of a job share the job's key; a
 * direction's key comes out of it by HKDF-SHA256 (RFC 5869):
 *
 *     salt: none
 *     info: "troupe frame 1", mode (1 byte, 1 or 2), source and destination
 *           (8 bytes each, little-endian)
 *
 * A node id is used for one life only, so no (key, nonce) pair is used twice as
 * long as a sender numbers its frames. That is vital: two different frames
 * under one pair give the authentication key away to whoever sees both. A frame
 * that has to be sent again is sent as it was sealed.
 *
 * What a good tag proves: somebody with the job's key made this frame, header
 * and records, for this direction between these two lives, under this number
 * and in this mode. What it does not:
 *   - which node: who has the job's key can pretend to be any of them;
 *   - that it is new: a repeated frame has a good tag, and numbers tell;
 *   - forward secrecy: who learns the job's key later can read frames that were
 *     recorded before.
 * Never hidden: who talks to whom, when, how much, and all of the header.
 *
 * A seal has a context for each direction. Each has one user at a time; the
 * two may be used at the same time.
 */

#include "base/base.h"
#include "wire/key.h"

#define TRI_SEAL_TAG_BYTES 16u

enum tri_seal_mode {
    TRI_SEAL_NONE,    /* frames carry no tag */
    TRI_SEAL_AUTH,    /* authenticated, readable */
    TRI_SEAL_ENCRYPT, /* authenticated, records encrypted */
};

struct tri_seal;

/*
 * Readies the crypto library: some milliseconds at the first call, which the
 * first seal would take otherwise. Any thread. Errors: ESYSTEM (it does not
 * have what is needed; logged).
 */
int tri_seal_prepare(void);

/*
 * For frames between this node, `source`, and another, `destination`. The key
 * is not needed any more afterwards; mode NONE needs none, and its seal does
 * nothing. Errors: ENOMEM, ESYSTEM (the crypto library refused; logged).
 */
int tri_seal_create(const unsigned char key[TRI_KEY_BYTES],
                    enum tri_seal_mode mode, uint64_t source,
                    uint64_t destination, struct tri_seal **seal_p);
void tri_seal_destroy(struct tri_seal **seal_p);

/*
 * Seals a frame: header_bytes of header, then body_bytes that are encrypted
 * in place in that mode, then room for the tag, which is written. number: not
 * used before with this seal for another frame that left this process.
 * Errors: ESYSTEM (never seen; the frame must not be sent).
 */
int tri_seal_close(struct tri_seal *seal, uint64_t number, unsigned char *data,
                   size_t header_bytes, size_t body_bytes);

/*
 * The reverse; body_bytes: without the tag. False: not by who has the key, not
 * for this direction, or changed; then the body is unspecified and must not be
 * looked at, and the seal is as it was.
 */
bool tri_seal_open(struct tri_seal *seal, uint64_t number, unsigned char *data,
                   size_t header_bytes, size_t body_bytes);

/* The key of a direction. For tests; to be forgotten after use. Errors:
 * ESYSTEM, logged. */
int tri_seal_derive(const unsigned char key[TRI_KEY_BYTES],
                    enum tri_seal_mode mode, uint64_t source,
                    uint64_t destination, unsigned char key_p[TRI_KEY_BYTES]);

#endif
