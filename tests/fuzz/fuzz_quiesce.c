/* SPDX-License-Identifier: BSD-3-Clause */

/* Payloads of QUIESCE records: what is accepted is encoded to the same bytes
 * again. */

#include "fuzz.h"

#include "group/quiesce_core.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    unsigned char again[TRI_QUIESCE_BYTES_MAX];
    struct tri_quiesce_message message;

    if (!tri_quiesce_decode(data, bytes, &message))
        return 0;
    FUZZ_CHECK(tri_quiesce_encode(&message, again) == bytes);
    FUZZ_CHECK(memcmp(again, data, bytes) == 0);
    return 0;
}
