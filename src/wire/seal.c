/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/seal.h"

#include <endian.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "wire/crypto.h"

#define NONCE_BYTES 12

struct tri_seal {
    enum tri_seal_mode mode;
    EVP_CIPHER_CTX *out; /* keyed once; a frame only sets its nonce */
    EVP_CIPHER_CTX *in;
};

int tri_seal_prepare(void)
{
    return tri_crypto_get() != NULL ? 0 : TROUPE_ESYSTEM;
}

/* --- keys ----------------------------------------------------------------- */

#define LABEL "troupe frame 1"
#define LABEL_BYTES (sizeof(LABEL) - 1)

int tri_seal_derive(const unsigned char key[TRI_KEY_BYTES],
                    enum tri_seal_mode mode, uint64_t source,
                    uint64_t destination, unsigned char key_p[TRI_KEY_BYTES])
{
    uint64_t nodes[2] = { htole64(source), htole64(destination) };
    unsigned char info[LABEL_BYTES + 1 + sizeof(nodes)];

    memcpy(info, LABEL, LABEL_BYTES);
    info[LABEL_BYTES] = (unsigned char)mode;
    memcpy(info + LABEL_BYTES + 1, nodes, sizeof(nodes));
    return tri_crypto_derive(key, info, sizeof(info), key_p);
}

/* The context of one direction, with its key. */
static int create_context(const unsigned char key[TRI_KEY_BYTES],
                          enum tri_seal_mode mode, uint64_t source,
                          uint64_t destination, bool seals,
                          EVP_CIPHER_CTX **context_p)
{
    unsigned char own[TRI_KEY_BYTES];
    int rc = tri_seal_derive(key, mode, source, destination, own);

    if (rc != 0)
        return rc;
    ERR_set_mark();
    *context_p = EVP_CIPHER_CTX_new();
    if (*context_p == NULL ||
        !EVP_CipherInit_ex2(*context_p, tri_crypto_get()->gcm, own, NULL,
                            seals, NULL))
        rc = tri_crypto_refused("AES-256-GCM");
    ERR_pop_to_mark();
    tri_key_forget(own);
    return rc;
}

int tri_seal_create(const unsigned char key[TRI_KEY_BYTES],
                    enum tri_seal_mode mode, uint64_t source,
                    uint64_t destination, struct tri_seal **seal_p)
{
    struct tri_seal *seal = calloc(1, sizeof(*seal));
    int rc = 0;

    assert(source != destination); /* both directions would have one key */
    if (seal == NULL)
        return TROUPE_ENOMEM;
    seal->mode = mode;
    if (mode != TRI_SEAL_NONE)
        rc = create_context(key, mode, source, destination, true, &seal->out);
    if (mode != TRI_SEAL_NONE && rc == 0)
        rc = create_context(key, mode, destination, source, false, &seal->in);
    if (rc != 0) {
        tri_seal_destroy(&seal);
        return rc;
    }
    *seal_p = seal;
    return 0;
}

void tri_seal_destroy(struct tri_seal **seal_p)
{
    struct tri_seal *seal = *seal_p;

    if (seal == NULL)
        return;
    EVP_CIPHER_CTX_free(seal->out); /* overwrites its key */
    EVP_CIPHER_CTX_free(seal->in);
    free(seal);
    *seal_p = NULL;
}

/* --- frames --------------------------------------------------------------- */

/* How a frame is handed to the AEAD. */
struct parts {
    unsigned char nonce[NONCE_BYTES];
    int plain_bytes; /* from the beginning: authenticated alone */
    int body_bytes;  /* and behind that, encrypted; 0: none */
};

static struct parts parts_of(const struct tri_seal *seal, uint64_t number,
                             size_t header_bytes, size_t body_bytes)
{
    struct parts parts = { .plain_bytes = (int)header_bytes };

    assert(header_bytes + body_bytes <= INT_MAX);
    number = htole64(number);
    memcpy(parts.nonce + NONCE_BYTES - sizeof(number), &number, sizeof(number));
    if (seal->mode == TRI_SEAL_ENCRYPT)
        parts.body_bytes = (int)body_bytes;
    else
        parts.plain_bytes += (int)body_bytes;
    return parts;
}

int tri_seal_close(struct tri_seal *seal, uint64_t number, unsigned char *data,
                   size_t header_bytes, size_t body_bytes)
{
    struct parts parts = parts_of(seal, number, header_bytes, body_bytes);
    unsigned char *body = data + parts.plain_bytes;
    unsigned char *tag = body + parts.body_bytes;
    EVP_CIPHER_CTX *context = seal->out;
    int n, ok;

    if (seal->mode == TRI_SEAL_NONE)
        return 0;
    ok = EVP_EncryptInit_ex(context, NULL, NULL, NULL, parts.nonce) &&
         EVP_EncryptUpdate(context, NULL, &n, data, parts.plain_bytes) &&
         (parts.body_bytes == 0 ||
          EVP_EncryptUpdate(context, body, &n, body, parts.body_bytes)) &&
         EVP_EncryptFinal_ex(context, tag, &n) &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TRI_SEAL_TAG_BYTES,
                             tag);
    return ok ? 0 : tri_crypto_refused("to seal a frame");
}

bool tri_seal_open(struct tri_seal *seal, uint64_t number, unsigned char *data,
                   size_t header_bytes, size_t body_bytes)
{
    struct parts parts = parts_of(seal, number, header_bytes, body_bytes);
    unsigned char *body = data + parts.plain_bytes;
    unsigned char *tag = body + parts.body_bytes;
    EVP_CIPHER_CTX *context = seal->in;
    int n;

    if (seal->mode == TRI_SEAL_NONE)
        return true;
    /* Nothing of a frame before is left behind a new nonce. Final compares
     * the tags, in constant time. */
    return EVP_DecryptInit_ex(context, NULL, NULL, NULL, parts.nonce) &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG,
                               TRI_SEAL_TAG_BYTES, tag) &&
           EVP_DecryptUpdate(context, NULL, &n, data, parts.plain_bytes) &&
           (parts.body_bytes == 0 ||
            EVP_DecryptUpdate(context, body, &n, body, parts.body_bytes)) &&
           EVP_DecryptFinal_ex(context, tag, &n) > 0;
}
