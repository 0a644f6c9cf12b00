/* SPDX-License-Identifier: BSD-3-Clause */

/* Frames as they arrive from the network. The first byte says whether header
 * and length are to be made good, so that the records behind are reached. */

#include "fuzz.h"

#include "transport/fabric_frame.h"

enum { NODE = 7, NONCE = 9 };

static void make_good(unsigned char *data, size_t bytes, uint16_t records)
{
    struct tri_frame frame = {
        .source = 1,
        .destination = NODE,
        .nonce = NONCE,
        .bytes = (uint32_t)bytes,
        .records = records,
    };

    if (bytes >= TRI_FRAME_HEADER_BYTES)
        tri_frame_encode(data, &frame);
}

/* As the receiver walks through a frame that was checked. */
static void walk(const unsigned char *data, const struct tri_frame *frame)
{
    size_t at = TRI_FRAME_HEADER_BYTES;

    for (unsigned i = 0; i < frame->records; i++) {
        const struct tri_record *record = (const void *)(data + at);

        fuzz_touch(record + 1, record->bytes);
        at += tri_frame_record_bytes(record->bytes);
    }
    FUZZ_CHECK(at == frame->bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
    size_t bytes = input_bytes > 1 ? input_bytes - 1 : 0;
    unsigned char *data = malloc(bytes > 0 ? bytes : 1);
    struct tri_frame frame;

    if (!data)
        return 0;
    if (bytes > 0) {
        memcpy(data, input + 1, bytes);
        if (input[0] > 0)
            make_good(data, bytes, input[0]);
    }
    if (!tri_frame_check(data, bytes, NODE, NONCE, &frame))
        walk(data, &frame);
    free(data);
    return 0;
}
