/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SEAL_H
#define TRI_SEAL_H

/*
 * Authentication and encryption of frames: an AEAD over each frame, keyed for
 * one direction between two nodes. All nodes of a job share the job's key; a
 * direction's key is derived from it and the two node ids (HKDF-SHA256, RFC
 * 5869), and a node id is used for one life only, so a (key, nonce) pair is
 * never used twice as long as a sender numbers its frames.
 *
 *     frame:  | header (authenticated) | records (and encrypted) | tag 16 |
 *
 * A seal has a context for each direction. Each has one user at a time.
 */

#include "base/base.h"

#define TRI_KEY_BYTES 32u
#define TRI_SEAL_TAG_BYTES 16u

enum tri_seal_mode {
    TRI_SEAL_NONE,    /* frames carry no tag */
    TRI_SEAL_AUTH,    /* authenticated, readable */
    TRI_SEAL_ENCRYPT, /* authenticated, records encrypted */
};

struct tri_seal;

/* For frames of node `source` to node `destination`. Errors: ENOMEM,
 * ESYSTEM (the crypto library refused). */
int tri_seal_create(const unsigned char key[TRI_KEY_BYTES],
                    enum tri_seal_mode mode, uint64_t source,
                    uint64_t destination, struct tri_seal **seal_p);
void tri_seal_destroy(struct tri_seal **seal_p);

/*
 * Seals a frame: header_bytes of header, then body_bytes that are encrypted
 * in place in that mode, then room for the tag, which is written. number: not
 * used before with this seal. Errors: ESYSTEM.
 */
int tri_seal_close(struct tri_seal *seal, uint64_t number, unsigned char *data,
                   size_t header_bytes, size_t body_bytes);

/* The reverse. False: not by who has the key, or changed; then the body is
 * unspecified. body_bytes: without the tag. */
bool tri_seal_open(struct tri_seal *seal, uint64_t number, unsigned char *data,
                   size_t header_bytes, size_t body_bytes);

/*
 * The job's key, from a file of 64 hexadecimal digits (white space around
 * them is fine) that nobody but its owner can read. Errors: EOPTION; logged,
 * without the key.
 */
int tri_key_read(const char *path, unsigned char key_p[TRI_KEY_BYTES]);

/* A random key. Errors: ESYSTEM. */
int tri_key_random(unsigned char key_p[TRI_KEY_BYTES]);

/* Overwrites it in a way that is not optimized away. */
void tri_key_forget(unsigned char key[TRI_KEY_BYTES]);

#endif
