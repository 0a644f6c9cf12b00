/* SPDX-License-Identifier: BSD-3-Clause */

/* What strangers say who want to join, and what is answered to them: decoders
 * are total, and what they take comes back as it was. */

#include "fuzz.h"

#include "member/hello.h"
#include "member/join.h"

static void hello(const unsigned char *data, size_t bytes)
{
    unsigned char again[TRI_HELLO_BYTES];
    struct tri_hello hello;

    if (tri_hello_decode(data, bytes, &hello) != NULL)
        return;
    tri_hello_encode(&hello, again);
    FUZZ_CHECK(memcmp(again, data, sizeof(again)) == 0);
}

static void challenge(const unsigned char *data, size_t bytes)
{
    unsigned char again[TRI_CHALLENGE_BYTES];
    struct tri_cookie cookie;
    uint64_t token;

    if (tri_challenge_decode(data, bytes, &token, &cookie) != NULL)
        return;
    tri_challenge_encode(token, &cookie, again);
    FUZZ_CHECK(memcmp(again, data, sizeof(again)) == 0);
}

static void refused(const unsigned char *data, size_t bytes)
{
    unsigned char again[TRI_REFUSED_BYTES];
    struct tri_refused refused;

    if (tri_refused_decode(data, bytes, &refused) != NULL)
        return;
    FUZZ_CHECK(refused.error < 0);
    tri_refused_encode(&refused, again);
    FUZZ_CHECK(memcmp(again, data, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct tri_peek peek;
    char text[512];

    hello(data, bytes);
    challenge(data, bytes);
    refused(data, bytes);
    if (tri_packet_peek(data, bytes, &peek))
        FUZZ_CHECK(peek.body + peek.body_bytes == data + bytes);
    if (bytes < sizeof(text)) {
        memcpy(text, data, bytes);
        text[bytes] = '\0';
        (void)tri_seeds_are_valid(text);
    }
    return 0;
}
