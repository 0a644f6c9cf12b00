/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What authenticating and encrypting a frame costs: OpenSSL's EVP beside
 * libsodium. One thread, contexts keyed once, a new nonce for each frame; a
 * frame is a header of 80 bytes, a body, and a tag. "auth" authenticates all of
 * it, "encrypt" encrypts the body in place as well. Prints a table: medians of
 * rounds that take turns, to seal / to open. Not run by tests/bench/run:
 *
 *     cc -O2 tests/bench/seal.c $(pkg-config --cflags --libs libcrypto \
 *         libsodium) -o /tmp/seal && taskset -c 1 /tmp/seal
 */

#include <openssl/evp.h>
#include <sodium.h>
#include <stdbool.h>

#include "bench.h"

#define HEADER_BYTES 80
#define TAG_BYTES 16
#define FRAME_BYTES_MAX 16384
#define ROUNDS 21
#define ROUND_NS 10000000

struct way {
    const char *name;
    bool encrypts;
    const char *cipher; /* OpenSSL's name; NULL: libsodium's */
    void (*seal)(struct way *way, uint64_t number, unsigned char *data,
                 size_t bytes);
    bool (*open)(struct way *way, uint64_t number, unsigned char *data,
                 size_t bytes);
    EVP_CIPHER_CTX *out, *in;
};

static unsigned char key[32];
static crypto_aead_aes256gcm_state aes_state;

static void nonce_of(uint64_t number, unsigned char nonce[12])
{
    memset(nonce, 0, 4);
    memcpy(nonce + 4, &number, 8);
}

/* --- OpenSSL -------------------------------------------------------------- */

static void evp_seal(struct way *way, uint64_t number, unsigned char *data,
                     size_t bytes)
{
    size_t plain = way->encrypts ? HEADER_BYTES : bytes - TAG_BYTES;
    size_t body = bytes - TAG_BYTES - plain;
    unsigned char nonce[12];
    int n, ok;

    nonce_of(number, nonce);
    ok = EVP_EncryptInit_ex(way->out, NULL, NULL, NULL, nonce) &&
         EVP_EncryptUpdate(way->out, NULL, &n, data, (int)plain) &&
         (body == 0 || EVP_EncryptUpdate(way->out, data + plain, &n,
                                         data + plain, (int)body)) &&
         EVP_EncryptFinal_ex(way->out, data + plain + body, &n) &&
         EVP_CIPHER_CTX_ctrl(way->out, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES,
                             data + plain + body);
    if (!ok)
        bench_die("EVP refused to seal");
}

static bool evp_open(struct way *way, uint64_t number, unsigned char *data,
                     size_t bytes)
{
    size_t plain = way->encrypts ? HEADER_BYTES : bytes - TAG_BYTES;
    size_t body = bytes - TAG_BYTES - plain;
    unsigned char nonce[12];
    int n;

    nonce_of(number, nonce);
    return EVP_DecryptInit_ex(way->in, NULL, NULL, NULL, nonce) &&
           EVP_CIPHER_CTX_ctrl(way->in, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES,
                               data + plain + body) &&
           EVP_DecryptUpdate(way->in, NULL, &n, data, (int)plain) &&
           (body == 0 || EVP_DecryptUpdate(way->in, data + plain, &n,
                                           data + plain, (int)body)) &&
           EVP_DecryptFinal_ex(way->in, data + plain + body, &n) > 0;
}

static void evp_prepare(struct way *way)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, way->cipher, NULL);

    way->out = EVP_CIPHER_CTX_new();
    way->in = EVP_CIPHER_CTX_new();
    if (!cipher || !way->out || !way->in ||
        !EVP_EncryptInit_ex(way->out, cipher, NULL, key, NULL) ||
        !EVP_DecryptInit_ex(way->in, cipher, NULL, key, NULL))
        bench_die(way->cipher);
    EVP_CIPHER_free(cipher);
}

/* --- libsodium ------------------------------------------------------------ */

static void chacha_seal(struct way *way, uint64_t number, unsigned char *data,
                        size_t bytes)
{
    size_t plain = way->encrypts ? HEADER_BYTES : bytes - TAG_BYTES;
    size_t body = bytes - TAG_BYTES - plain;
    unsigned char nonce[12];

    nonce_of(number, nonce);
    crypto_aead_chacha20poly1305_ietf_encrypt_detached(
        data + plain, data + plain + body, NULL, data + plain, body, data,
        plain, NULL, nonce, key);
}

static bool chacha_open(struct way *way, uint64_t number, unsigned char *data,
                        size_t bytes)
{
    size_t plain = way->encrypts ? HEADER_BYTES : bytes - TAG_BYTES;
    size_t body = bytes - TAG_BYTES - plain;
    unsigned char nonce[12];

    nonce_of(number, nonce);
    return crypto_aead_chacha20poly1305_ietf_decrypt_detached(
               data + plain, NULL, data + plain, body, data + plain + body,
               data, plain, nonce, key) == 0;
}

static void aes_seal(struct way *way, uint64_t number, unsigned char *data,
                     size_t bytes)
{
    size_t plain = way->encrypts ? HEADER_BYTES : bytes - TAG_BYTES;
    size_t body = bytes - TAG_BYTES - plain;
    unsigned char nonce[12];

    nonce_of(number, nonce);
    crypto_aead_aes256gcm_encrypt_detached_afternm(
        data + plain, data + plain + body, NULL, data + plain, body, data,
        plain, NULL, nonce, &aes_state);
}

static bool aes_open(struct way *way, uint64_t number, unsigned char *data,
                     size_t bytes)
{
    size_t plain = way->encrypts ? HEADER_BYTES : bytes - TAG_BYTES;
    size_t body = bytes - TAG_BYTES - plain;
    unsigned char nonce[12];

    nonce_of(number, nonce);
    return crypto_aead_aes256gcm_decrypt_detached_afternm(
               data + plain, NULL, data + plain, body, data + plain + body,
               data, plain, nonce, &aes_state) == 0;
}

/* Poly1305 alone, under a key of its own for each frame. */
static void poly_seal(struct way *way, uint64_t number, unsigned char *data,
                      size_t bytes)
{
    unsigned char nonce[12], once[32];

    (void)way;
    nonce_of(number, nonce);
    crypto_stream_chacha20_ietf(once, sizeof(once), nonce, key);
    crypto_onetimeauth(data + bytes - TAG_BYTES, data, bytes - TAG_BYTES, once);
}

static bool poly_open(struct way *way, uint64_t number, unsigned char *data,
                      size_t bytes)
{
    unsigned char nonce[12], once[32];

    (void)way;
    nonce_of(number, nonce);
    crypto_stream_chacha20_ietf(once, sizeof(once), nonce, key);
    return crypto_onetimeauth_verify(data + bytes - TAG_BYTES, data,
                                     bytes - TAG_BYTES, once) == 0;
}

/* --- measuring ------------------------------------------------------------ */

static struct way ways[] = {
    { "auth, OpenSSL, ChaCha20-Poly1305", false, "ChaCha20-Poly1305", evp_seal,
      evp_open, NULL, NULL },
    { "auth, OpenSSL, AES-256-GCM (GMAC)", false, "AES-256-GCM", evp_seal,
      evp_open, NULL, NULL },
    { "auth, OpenSSL, AES-128-GCM (GMAC)", false, "AES-128-GCM", evp_seal,
      evp_open, NULL, NULL },
    { "auth, libsodium, ChaCha20-Poly1305", false, NULL, chacha_seal,
      chacha_open, NULL, NULL },
    { "auth, libsodium, Poly1305 alone", false, NULL, poly_seal, poly_open,
      NULL, NULL },
    { "auth, libsodium, AES-256-GCM (GMAC)", false, NULL, aes_seal, aes_open,
      NULL, NULL },
    { "encrypt, OpenSSL, ChaCha20-Poly1305", true, "ChaCha20-Poly1305",
      evp_seal, evp_open, NULL, NULL },
    { "encrypt, OpenSSL, AES-256-GCM", true, "AES-256-GCM", evp_seal, evp_open,
      NULL, NULL },
    { "encrypt, OpenSSL, AES-128-GCM", true, "AES-128-GCM", evp_seal, evp_open,
      NULL, NULL },
    { "encrypt, libsodium, ChaCha20-Poly1305", true, NULL, chacha_seal,
      chacha_open, NULL, NULL },
    { "encrypt, libsodium, AES-256-GCM", true, NULL, aes_seal, aes_open, NULL,
      NULL },
};

/* opens: opening takes the place of sealing; the same sealed frame each time,
 * restored by a copy where it is decrypted in place. */
static double round_ns(struct way *way, bool opens, size_t bytes)
{
    static unsigned char data[FRAME_BYTES_MAX], sealed[FRAME_BYTES_MAX];
    static uint64_t number;
    int64_t began, ended;
    long n = 0;

    memset(sealed, 7, bytes);
    way->seal(way, 1, sealed, bytes);
    memcpy(data, sealed, bytes);
    began = bench_now_ns();
    do {
        for (int i = 0; i < 16; i++, n++) {
            if (!opens) {
                way->seal(way, ++number, data, bytes);
                continue;
            }
            if (way->encrypts)
                memcpy(data, sealed, bytes);
            if (!way->open(way, 1, data, bytes))
                bench_die("a frame did not open");
        }
        ended = bench_now_ns();
    } while (ended - began < ROUND_NS);
    return (double)(ended - began) / (double)n;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(void)
{
    static const size_t sizes[] = { 144, 1024, 8192, 16384 };
    enum { WAYS = sizeof(ways) / sizeof(ways[0]) };
    static double ns[WAYS][4][2][ROUNDS];

    bench_watchdog();
    if (sodium_init() < 0 || !crypto_aead_aes256gcm_is_available())
        bench_die("libsodium has no AES here");
    randombytes_buf(key, sizeof(key));
    crypto_aead_aes256gcm_beforenm(&aes_state, key);
    for (int w = 0; w < WAYS; w++)
        if (ways[w].cipher)
            evp_prepare(&ways[w]);
    for (int r = 0; r < ROUNDS; r++)
        for (int w = 0; w < WAYS; w++)
            for (int s = 0; s < 4; s++)
                for (int o = 0; o < 2; o++)
                    ns[w][s][o][r] = round_ns(&ways[w], o, sizes[s]);
    printf(
        "| | 144 B | 1 KiB | 8 KiB | 16 KiB |\n| --- | --- | --- | --- | --- "
        "|\n");
    for (int w = 0; w < WAYS; w++) {
        printf("| %s |", ways[w].name);
        for (int s = 0; s < 4; s++) {
            for (int o = 0; o < 2; o++)
                qsort(ns[w][s][o], ROUNDS, sizeof(double), compare);
            printf(" %.0f / %.0f ns, %.1f / %.1f GB/s |",
                   ns[w][s][0][ROUNDS / 2], ns[w][s][1][ROUNDS / 2],
                   (double)sizes[s] / ns[w][s][0][ROUNDS / 2],
                   (double)sizes[s] / ns[w][s][1][ROUNDS / 2]);
        }
        printf("\n");
    }
    return 0;
}
