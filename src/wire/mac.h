/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_MAC_H
#define TRI_MAC_H

/*
 * Authentication without a nonce: HMAC-SHA256 (RFC 2104), its first 16 bytes,
 * under a key that HKDF-SHA256 makes of the job's key and a label. Keyed once;
 * used by one thread at a time.
 */

#include "base/base.h"
#include "wire/key.h"

#define TRI_MAC_BYTES 16u

struct tri_mac;

/* The key is not needed any more afterwards. Errors: ENOMEM, ESYSTEM (the
 * crypto library refused; logged). */
int tri_mac_create(const unsigned char key[TRI_KEY_BYTES], const char *label,
                   struct tri_mac **mac_p);
void tri_mac_destroy(struct tri_mac **mac_p);

/* Errors: ESYSTEM (never seen). */
int tri_mac_make(struct tri_mac *mac, const void *data, size_t bytes,
                 unsigned char code_p[TRI_MAC_BYTES]);

/* In a time that does not tell how much of the code is right. */
bool tri_mac_check(struct tri_mac *mac, const void *data, size_t bytes,
                   const unsigned char code[TRI_MAC_BYTES]);

#endif
