/* SPDX-License-Identifier: BSD-3-Clause */

/* Heads of collectives' records, and what the front's own carry: what is
 * accepted is within its bounds, and the words for it fit. */

#include "fuzz.h"

#include "tensor/tensor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char text[TRI_COLL_TEXT_BYTES];
    struct tri_coll_head head;
    struct tri_coll_mismatch mismatch;
    int error = 0;

    if (!tri_coll_head_read(data, bytes, &head))
        return 0;
    FUZZ_CHECK(memcmp(&head, data, sizeof(head)) == 0);
    FUZZ_CHECK(head.backend < TRI_BACKENDS);
    data += sizeof(head);
    bytes -= sizeof(head);
    if (tri_coll_failure_read(data, bytes, &error))
        FUZZ_CHECK(error < 0 && tri_coll_is_failure(error));
    else
        FUZZ_CHECK(error == 0);
    if (!tri_coll_mismatch_read(data, bytes, head.tag, &mismatch))
        return 0;
    for (int i = 0; i < 2; i++) {
        FUZZ_CHECK(mismatch.members[i] < head.tag);
        FUZZ_CHECK(tri_coll_describe(mismatch.signatures[i], text) == text);
        FUZZ_CHECK(strlen(text) < sizeof(text));
    }
    return 0;
}
