/* SPDX-License-Identifier: BSD-3-Clause */

/* Frames as they arrive from the network. The first byte says what is to be
 * made good of a header, so that the records behind it are reached. */

#include "fuzz.h"

#include "wire/frame.h"

enum { GOOD_HEADER = 1, GOOD_RECORDS = 2, GOOD_TAG = 4 };

/* A header that is right for what is behind it. */
static void make_good(unsigned char *data, size_t bytes, uint8_t what)
{
    struct tri_frame frame = { .version = TRI_FRAME_VERSION_MIN,
                               .kind = TRI_FRAME_DATA,
                               .lane = data[6] % TRI_LANES,
                               .ack_lane = data[70] % TRI_LANES,
                               .records = (uint16_t)(1 + data[68] % 8),
                               .bytes = (uint32_t)bytes,
                               .number = 1 + data[32] };

    if (what & GOOD_TAG)
        frame.flags = TRI_FRAME_SEALED;
    tri_frame_encode(data, &frame);
}

/* Records that fill the frame, of kinds and sizes that were there. */
static void make_records_good(unsigned char *data, size_t bytes, bool sealed)
{
    size_t end = bytes - (sealed ? TRI_FRAME_TAG_BYTES : 0);
    size_t at = TRI_FRAME_HEADER_BYTES;
    uint16_t records = 0;

    while (at < end && end - at >= sizeof(struct tri_record)) {
        struct tri_record *record = (void *)(data + at);
        size_t left = end - at - sizeof(*record);

        record->bytes = (uint32_t)tri_min(record->bytes & 0xff, left);
        record->flags = 0;
        record->reserved = 0;
        record->total_bytes = record->bytes;
        at += tri_frame_record_bytes(record->bytes);
        records++;
    }
    memcpy(data + 68, &records, sizeof(records));
}

/* As the receiver walks through a frame that was checked. */
static void walk(const unsigned char *data, const struct tri_frame *frame)
{
    size_t at = TRI_FRAME_HEADER_BYTES;

    for (unsigned i = 0; i < frame->records; i++) {
        const struct tri_record *record = (const void *)(data + at);

        FUZZ_CHECK(record->kind >= TRI_TELL && record->kind <= TRI_KIND_LAST);
        fuzz_touch(record + 1, record->bytes);
        at += tri_frame_record_bytes(record->bytes);
    }
    FUZZ_CHECK(at + tri_frame_tag_bytes(frame) == frame->bytes);
}

/* What was decoded is all that the header says. */
static void check_encoded(const unsigned char *data,
                          const struct tri_frame *frame)
{
    unsigned char again[TRI_FRAME_HEADER_BYTES];

    tri_frame_encode(again, frame);
    FUZZ_CHECK(memcmp(again, data, sizeof(again)) == 0);
}

static void receive(unsigned char *data, size_t bytes)
{
    struct tri_frame frame, common;

    if (tri_frame_decode(data, bytes, &frame) != NULL)
        return;
    FUZZ_CHECK(tri_frame_decode_common(data, bytes, &common) == NULL);
    FUZZ_CHECK(common.source == frame.source && common.kind == frame.kind);
    FUZZ_CHECK(frame.lane < TRI_LANES && frame.ack_lane < TRI_LANES);
    FUZZ_CHECK((frame.kind == TRI_FRAME_DATA) == (frame.records > 0));
    FUZZ_CHECK(tri_frame_seal_number(&frame) != 0);
    check_encoded(data, &frame);
    if (frame.kind == TRI_FRAME_DATA &&
        tri_frame_check_records(data, &frame) == NULL)
        walk(data, &frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
    size_t bytes = input_bytes > 1 ? input_bytes - 1 : 0;
    uint8_t what = input_bytes > 0 ? input[0] : 0;
    unsigned char *data = malloc(bytes > 0 ? bytes : 1);

    if (!data)
        return 0;
    if (bytes > 0)
        memcpy(data, input + 1, bytes);
    if (bytes >= TRI_FRAME_HEADER_BYTES + TRI_FRAME_TAG_BYTES) {
        if (what & GOOD_HEADER)
            make_good(data, bytes, what);
        if (what & GOOD_RECORDS)
            make_records_good(data, bytes, data[7] & TRI_FRAME_SEALED);
    }
    receive(data, bytes);
    free(data);
    return 0;
}
