/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/mac.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "wire/crypto.h"

#define WHOLE_BYTES 32 /* of SHA-256 */

struct tri_mac {
    EVP_MAC_CTX *context; /* keyed; every use begins anew with that key */
};

static int key_context(struct tri_mac *mac, EVP_MAC *hmac,
                       const unsigned char own[TRI_KEY_BYTES])
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
                                         (char[]){ "SHA256" }, 0),
        OSSL_PARAM_construct_end(),
    };
    int rc = 0;

    ERR_set_mark();
    mac->context = EVP_MAC_CTX_new(hmac);
    if (mac->context == NULL ||
        !EVP_MAC_init(mac->context, own, TRI_KEY_BYTES, params))
        rc = tri_crypto_refused("HMAC-SHA256");
    ERR_pop_to_mark();
    return rc;
}

int tri_mac_create(const unsigned char key[TRI_KEY_BYTES], const char *label,
                   struct tri_mac **mac_p)
{
    const struct tri_crypto *crypto = tri_crypto_get();
    unsigned char own[TRI_KEY_BYTES];
    struct tri_mac *mac;
    int rc;

    if (crypto == NULL)
        return TROUPE_ESYSTEM;
    mac = calloc(1, sizeof(*mac));
    if (mac == NULL)
        return TROUPE_ENOMEM;
    rc = tri_crypto_derive(key, label, strlen(label), own);
    if (rc == 0)
        rc = key_context(mac, crypto->hmac, own);
    tri_key_forget(own);
    if (rc != 0) {
        tri_mac_destroy(&mac);
        return rc;
    }
    *mac_p = mac;
    return 0;
}

void tri_mac_destroy(struct tri_mac **mac_p)
{
    if (*mac_p == NULL)
        return;
    EVP_MAC_CTX_free((*mac_p)->context); /* overwrites its key */
    free(*mac_p);
    *mac_p = NULL;
}

int tri_mac_make(struct tri_mac *mac, const void *data, size_t bytes,
                 unsigned char code_p[TRI_MAC_BYTES])
{
    unsigned char whole[WHOLE_BYTES];
    size_t n;
    int rc = 0;

    ERR_set_mark();
    if (EVP_MAC_init(mac->context, NULL, 0, NULL) &&
        EVP_MAC_update(mac->context, data, bytes) &&
        EVP_MAC_final(mac->context, whole, &n, sizeof(whole)))
        memcpy(code_p, whole, TRI_MAC_BYTES);
    else
        rc = tri_crypto_refused("to authenticate");
    ERR_pop_to_mark();
    return rc;
}

bool tri_mac_check(struct tri_mac *mac, const void *data, size_t bytes,
                   const unsigned char code[TRI_MAC_BYTES])
{
    unsigned char right[TRI_MAC_BYTES];

    return tri_mac_make(mac, data, bytes, right) == 0 &&
           CRYPTO_memcmp(right, code, TRI_MAC_BYTES) == 0;
}
