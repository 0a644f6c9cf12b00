/* SPDX-License-Identifier: BSD-3-Clause */

/* Key files, as anybody may have written them. */

#include "fuzz.h"

#include <stdio.h>

#include "wire/key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    unsigned char key[TRI_KEY_BYTES], again[TRI_KEY_BYTES];
    static const unsigned char zeros[TRI_KEY_BYTES];
    char text[2 * TRI_KEY_BYTES + 2];
    char *copy = malloc(bytes); /* so that a read behind it is seen */

    if (copy == NULL && bytes > 0)
        return 0;
    if (bytes > 0)
        memcpy(copy, data, bytes);
    memset(key, 0, sizeof(key));
    if (!tri_key_parse(copy, bytes, key)) {
        FUZZ_CHECK(memcmp(key, zeros, sizeof(key)) == 0);
    } else {
        FUZZ_CHECK(bytes >= 2 * TRI_KEY_BYTES);
        for (unsigned i = 0; i < TRI_KEY_BYTES; i++)
            snprintf(text + 2 * i, 3, "%02X", key[i]);
        text[2 * TRI_KEY_BYTES] = '\n';
        FUZZ_CHECK(tri_key_parse(text, 2 * TRI_KEY_BYTES + 1, again) &&
                   memcmp(key, again, sizeof(key)) == 0);
    }
    free(copy);
    return 0;
}
