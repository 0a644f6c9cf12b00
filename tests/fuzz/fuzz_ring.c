/* SPDX-License-Identifier: BSD-3-Clause */

/* A ring's segment that another process wrote: lines and slots are the input,
 * whatever it says. The consumer must stay inside the segment and come to an
 * end, and so must a producer who looks for what a dead consumer, which could
 * write there too, has left unread. */

#include "fuzz.h"

#include "transport/ring_queue.h"

static void fuzz_shape(const uint8_t *data, size_t bytes)
{
    struct tri_ring_shape shape;

    if (bytes < sizeof(shape))
        return;
    memcpy(&shape, data, sizeof(shape));
    if (tri_ring_shape_check(&shape))
        FUZZ_CHECK(tri_ring_bytes(&shape) < 8u << 20);
}

static void consume(struct tri_ring_rx *rx)
{
    struct tri_record record;
    const void *payload;
    /* Each record takes a line at least: twice around is enough. */
    uint32_t left = 2 * rx->shape.line_count;

    while (left-- > 0 &&
           tri_ring_next(rx, &record, &payload) == TRI_RING_RECORD) {
        FUZZ_CHECK(record.kind >= TRI_TELL && record.kind <= TRI_KIND_LAST);
        fuzz_touch(payload, record.bytes);
        tri_ring_release(rx);
    }
    tri_ring_settle(rx, true);
    (void)tri_ring_pending(rx);
}

static void touch(void *context, const struct tri_record *record,
                  const void *payload)
{
    uint32_t *left = context;

    FUZZ_CHECK((*left)-- > 0);
    FUZZ_CHECK(record->kind >= TRI_TELL && record->kind <= TRI_KIND_LAST);
    fuzz_touch(payload, record->bytes);
}

/* The positions are the input's first words; our own are sound. */
static void look_back(void *segment, const struct tri_ring_shape *shape,
                      const uint8_t *data, size_t bytes)
{
    struct tri_ring_tx tx;
    uint64_t words[4] = { 0 };
    uint32_t left = shape->line_count;

    tri_ring_tx_init(&tx, segment, shape);
    memcpy(words, data, tri_min(bytes, sizeof(words)));
    tx.head_seen = words[0] >> 8;
    tx.tail = tx.head_seen + words[0] % shape->line_count;
    tx.slots_seen = words[1] >> 8;
    tx.slots_used = tx.slots_seen + words[1] % (shape->slot_count + 1);
    atomic_store(&tx.control->head, tx.head_seen + words[2] % 256);
    atomic_store(&tx.control->slots, words[3]);
    tri_ring_tx_each_unread(&tx, touch, &left);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const struct tri_ring_shape shape = {
        .line_count = TRI_RING_LINES_MIN,
        .slot_count = 2,
        .slot_bytes = 2 * TRI_RING_INLINE_MAX,
    };
    size_t segment_bytes = tri_ring_bytes(&shape);
    size_t open_bytes = segment_bytes - TRI_RING_CONTROL_BYTES;
    unsigned char *segment;
    struct tri_ring_rx rx;

    fuzz_shape(data, bytes);
    segment = aligned_alloc(2 * TRI_CACHE_LINE, segment_bytes);
    if (!segment)
        return 0;
    memset(segment, 0, segment_bytes);
    memcpy(segment + TRI_RING_CONTROL_BYTES, data,
           tri_min(bytes, open_bytes));
    tri_ring_rx_init(&rx, segment, &shape,
                     bytes % 2 > 0 ? TRI_RING_MARK : 0);
    consume(&rx);
    look_back(segment, &shape, data, bytes);
    free(segment);
    return 0;
}
