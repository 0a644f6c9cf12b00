/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/crypto.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <pthread.h>

#include "base/log.h"

/* Fetching looks through the library's providers, so it is done once. */
static pthread_once_t fetched = PTHREAD_ONCE_INIT;
static struct tri_crypto crypto;

static void fetch(void)
{
    ERR_set_mark();
    crypto.gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    crypto.hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    crypto.hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    ERR_pop_to_mark();
}

const struct tri_crypto *tri_crypto_get(void)
{
    pthread_once(&fetched, fetch);
    if (crypto.gcm != NULL && crypto.hkdf != NULL && crypto.hmac != NULL)
        return &crypto;
    tri_error("the crypto library has no AES-256-GCM, no HKDF or no HMAC");
    return NULL;
}

int tri_crypto_refused(const char *what)
{
    char text[256] = "no reason given";
    unsigned long code = ERR_peek_last_error();

    if (code != 0)
        ERR_error_string_n(code, text, sizeof(text));
    tri_error("the crypto library refused %s: %s", what, text);
    return TROUPE_ESYSTEM;
}

int tri_crypto_derive(const unsigned char key[TRI_KEY_BYTES],
                      const void *info, size_t info_bytes,
                      unsigned char key_p[TRI_KEY_BYTES])
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST,
                                         (char[]){ "SHA256" }, 0),
        OSSL_PARAM_construct_octet_string(
            OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)key, TRI_KEY_BYTES),
        OSSL_PARAM_construct_octet_string(
            OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info, info_bytes),
        OSSL_PARAM_construct_end(),
    };
    const struct tri_crypto *with = tri_crypto_get();
    EVP_KDF_CTX *context;
    int ok;

    if (with == NULL)
        return TROUPE_ESYSTEM;
    ERR_set_mark();
    context = EVP_KDF_CTX_new(with->hkdf);
    ok = context != NULL &&
         EVP_KDF_derive(context, key_p, TRI_KEY_BYTES, params) > 0;
    if (!ok)
        tri_crypto_refused("HKDF-SHA256");
    EVP_KDF_CTX_free(context);
    ERR_pop_to_mark();
    return ok ? 0 : TROUPE_ESYSTEM;
}
