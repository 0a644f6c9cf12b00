/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CRYPTO_H
#define TRI_CRYPTO_H

/*
 * What this folder shares of the crypto library: the algorithms, fetched once
 * a process, and keys that come out of the job's key.
 */

#include <openssl/evp.h>

#include "base/base.h"
#include "wire/key.h"

struct tri_crypto {
    EVP_CIPHER *gcm; /* AES-256-GCM */
    EVP_KDF *hkdf;
    EVP_MAC *hmac;
};

/*
 * Some milliseconds at the first call. Any thread. Kept until the process
 * ends: who comes second must find them, too. NULL: the library does not have
 * them all; logged.
 */
const struct tri_crypto *tri_crypto_get(void);

/* Logs the library's reason; its queue of errors is the program's too, so
 * callers set a mark and restore it. Returns ESYSTEM. */
int tri_crypto_refused(const char *what);

/* HKDF-SHA256 (RFC 5869) without salt. The key made is to be forgotten after
 * use. Errors: ESYSTEM; logged. */
int tri_crypto_derive(const unsigned char key[TRI_KEY_BYTES],
                      const void *info, size_t info_bytes,
                      unsigned char key_p[TRI_KEY_BYTES]);

#endif
