/* SPDX-License-Identifier: BSD-3-Clause */
#include "transport/ring_queue.h"

static size_t lines_bytes(const struct tri_ring_shape *shape)
{
    return (size_t)shape->line_count * TRI_RING_LINE;
}

bool tri_ring_shape_check(const struct tri_ring_shape *shape)
{
    return shape->line_count >= TRI_RING_LINES_MIN &&
           shape->line_count <= TRI_RING_LINES_MAX &&
           (shape->line_count & (shape->line_count - 1)) == 0 &&
           shape->slot_count >= 1 && shape->slot_count <= TRI_RING_SLOTS_MAX &&
           shape->slot_bytes >= TRI_RING_INLINE_MAX &&
           shape->slot_bytes <= TRI_RECORD_BYTES_MAX &&
           shape->slot_bytes % TRI_RING_LINE == 0;
}

size_t tri_ring_bytes(const struct tri_ring_shape *shape)
{
    return TRI_RING_CONTROL_BYTES + lines_bytes(shape) +
           tri_align_up((size_t)shape->slot_count * shape->slot_bytes,
                        TRI_RING_CONTROL_BYTES);
}

void tri_ring_tx_init(struct tri_ring_tx *tx, void *segment,
                      const struct tri_ring_shape *shape)
{
    assert(tri_ring_shape_check(shape));
    *tx = (struct tri_ring_tx){ .control = segment, .shape = *shape };
    tx->lines = (unsigned char *)segment + TRI_RING_CONTROL_BYTES;
    tx->slots = tx->lines + lines_bytes(shape);
    tx->cleared = shape->line_count; /* fresh memory is zero */
}

void tri_ring_rx_init(struct tri_ring_rx *rx, void *segment,
                      const struct tri_ring_shape *shape, uint8_t marks)
{
    assert(tri_ring_shape_check(shape));
    *rx = (struct tri_ring_rx){ .control = segment,
                                .shape = *shape,
                                .marks = marks };
    rx->lines = (const unsigned char *)segment + TRI_RING_CONTROL_BYTES;
    rx->slots_base = rx->lines + lines_bytes(shape);
}

/* Looks at the consumer's positions. One that it cannot have is ignored: a
 * consumer that lies harms itself. */
static void look_at_head(struct tri_ring_tx *tx)
{
    /* Both pair with the release stores of tri_ring_tell_head. */
    uint64_t head =
        atomic_load_explicit(&tx->control->head, memory_order_acquire);
    uint64_t slots =
        atomic_load_explicit(&tx->control->slots, memory_order_acquire);

    if (head - tx->head_seen <= tx->tail - tx->head_seen)
        tx->head_seen = head;
    if (slots - tx->slots_seen <= tx->slots_used - tx->slots_seen)
        tx->slots_seen = slots;
}

static bool has_room(const struct tri_ring_tx *tx, uint64_t lines, bool slot)
{
    return tx->tail + lines < tx->head_seen + tx->shape.line_count &&
           (!slot || tx->slots_used - tx->slots_seen < tx->shape.slot_count);
}

bool tri_ring_tx_refill(struct tri_ring_tx *tx, uint64_t lines, bool slot)
{
    uint64_t mask = tx->shape.line_count - 1;
    uint64_t until;

    if (!has_room(tx, lines, slot)) {
        look_at_head(tx);
        if (!has_room(tx, lines, slot))
            return false;
    }
    if (tx->tail + lines < tx->cleared)
        return true;
    until = tx->tail + lines + TRI_RING_CLEAR_BATCH;
    if (until > tx->head_seen + tx->shape.line_count)
        until = tx->head_seen + tx->shape.line_count;
    /* Made visible by the release store of the next record. */
    for (; tx->cleared < until; tx->cleared++)
        atomic_store_explicit(tri_ring_word(tx->lines, tx->cleared & mask), 0,
                              memory_order_relaxed);
    assert(tx->tail + lines < tx->cleared);
    return true;
}

bool tri_ring_tx_want(struct tri_ring_tx *tx, size_t bytes, uint32_t keep)
{
    struct tri_ring_control *control = tx->control;
    uint32_t lines = tri_ring_lines(bytes);
    bool slot = bytes > TRI_RING_INLINE_MAX;
    uint64_t head, slots;

    lines += tri_ring_skip(tx, lines) + keep;
    /* Least, and a quarter of the ring more, so that we are woken for a
     * batch; but never more than what is there to be taken. */
    head = tx->tail + lines + 1 + tx->shape.line_count / 4;
    head = head > tx->shape.line_count ? head - tx->shape.line_count : 0;
    head = head > tx->tail ? tx->tail : head;
    slots = slot && tx->slots_used >= tx->shape.slot_count
                ? tx->slots_used + 1 - tx->shape.slot_count
                : 0;
    atomic_store_explicit(&control->need_head, head, memory_order_relaxed);
    atomic_store_explicit(&control->need_slots, slots, memory_order_relaxed);
    /* Pairs with the acquire load of told_enough. */
    atomic_store_explicit(&control->want, 1, memory_order_release);
    /* Pairs with the fences of tri_ring_settle and tri_bell_arm. */
    tri_fence_full();
    if (!tri_ring_tx_refill(tx, lines, slot))
        return true;
    atomic_store_explicit(&control->want, 0, memory_order_relaxed);
    return false;
}

void tri_ring_tx_close(struct tri_ring_tx *tx, enum tri_ring_end end)
{
    tri_ring_publish(tx, (uint64_t)TRI_RING_CLOSE << 32 | (uint32_t)end);
}

uint64_t tri_ring_tx_unread(const struct tri_ring_tx *tx)
{
    /* A number, nothing is read on its strength. */
    return tx->committed - atomic_load_explicit(&tx->control->records,
                                                memory_order_relaxed);
}

bool tri_ring_has_room(const struct tri_ring_control *control)
{
    uint64_t head = atomic_load_explicit(&control->head, memory_order_acquire);
    uint64_t slots =
        atomic_load_explicit(&control->slots, memory_order_acquire);

    return head >= atomic_load_explicit(&control->need_head,
                                        memory_order_relaxed) &&
           slots >= atomic_load_explicit(&control->need_slots,
                                         memory_order_relaxed);
}

/* Checks the copy of a header, and finds the payload. */
static enum tri_ring_found check(struct tri_ring_rx *rx, uint64_t index,
                                 struct tri_record *record,
                                 const void **payload_p)
{
    size_t room;

    rx->take_slot = record->kind & TRI_RING_IN_SLOT;
    rx->take_mark = record->kind & rx->marks;
    record->kind &= (uint8_t)~(TRI_RING_IN_SLOT | rx->marks);
    if (rx->take_slot) {
        room = rx->shape.slot_bytes;
        *payload_p = rx->slots_base + (rx->slots % rx->shape.slot_count) *
                                          (size_t)rx->shape.slot_bytes;
    } else {
        room = (rx->shape.line_count - index) * TRI_RING_LINE -
               sizeof(*record);
        *payload_p = rx->lines + index * TRI_RING_LINE + sizeof(*record);
    }
    if (!tri_record_check(record, room) ||
        (record->bytes > TRI_RING_INLINE_MAX) != rx->take_slot)
        return TRI_RING_GARBAGE;
    rx->take_lines = tri_ring_lines(record->bytes);
    return TRI_RING_RECORD;
}

/* Records found in a row that tell of a backlog; how far ahead of the position
 * lines are fetched then. */
#define AHEAD_MIN 16u
#define AHEAD_LINES 6u

enum tri_ring_found tri_ring_next(struct tri_ring_rx *rx,
                                  struct tri_record *record,
                                  const void **payload_p)
{
    for (;;) {
        uint64_t index = rx->head & (rx->shape.line_count - 1);
        const unsigned char *line = rx->lines + index * TRI_RING_LINE;
        /* Pairs with the release store of tri_ring_publish. */
        uint64_t word = atomic_load_explicit(tri_ring_word(rx->lines, index),
                                             memory_order_acquire);

        switch (word >> 32 & 0xff) {
        case 0:
            rx->in_row = 0;
            return word ? TRI_RING_GARBAGE : TRI_RING_EMPTY;
        case TRI_RING_SKIP:
            /* Also ends this loop: the next index is 0. */
            if (index == 0)
                return TRI_RING_GARBAGE;
            rx->head += rx->shape.line_count - index;
            continue;
        case TRI_RING_CLOSE:
            rx->end = (uint32_t)word == TRI_RING_LEFT ? TRI_RING_LEFT
                                                      : TRI_RING_DISCONNECTED;
            return TRI_RING_CLOSED;
        default:
            /* Behind a producer that is ahead, its lines come one by one from
             * its cache: ask for them in time. Next to one that is not, that
             * would take the line away that it writes. */
            if (rx->in_row < AHEAD_MIN)
                rx->in_row++;
            else
                __builtin_prefetch(
                    rx->lines + ((rx->head + AHEAD_LINES) &
                                 (rx->shape.line_count - 1)) *
                                    TRI_RING_LINE);
            memcpy(record, &word, sizeof(word));
            memcpy((unsigned char *)record + sizeof(word),
                   line + sizeof(word), sizeof(*record) - sizeof(word));
            return check(rx, index, record, payload_p);
        }
    }
}

/* Reads the producer's own queue as a consumer would, from the told head up to
 * its tail: tri_ring_next is built to read what an enemy wrote. */
static bool next_unread(const struct tri_ring_tx *tx, struct tri_ring_rx *rx,
                        uint64_t head, struct tri_record *record,
                        const void **payload_p)
{
    return rx->head - head < tx->tail - head &&
           tri_ring_next(rx, record, payload_p) == TRI_RING_RECORD &&
           rx->head - head < tx->tail - head;
}

static void skip_unread(struct tri_ring_rx *rx)
{
    rx->head += rx->take_lines;
    rx->slots += rx->take_slot;
}

void tri_ring_tx_each_unread(const struct tri_ring_tx *tx,
                             void (*each)(void *context,
                                          const struct tri_record *record,
                                          const void *payload),
                             void *context)
{
    struct tri_ring_tx seen = *tx;
    struct tri_ring_rx rx;
    struct tri_record record;
    const void *payload;

    look_at_head(&seen);
    tri_ring_rx_init(&rx, tx->control, &tx->shape, TRI_RING_MARK);
    rx.head = seen.head_seen;
    /* The slots end at our count; where they begin follows from the lines,
     * whatever the consumer last told of them. */
    while (next_unread(tx, &rx, seen.head_seen, &record, &payload))
        skip_unread(&rx);
    rx.slots = tx->slots_used - rx.slots;
    rx.head = seen.head_seen;
    while (next_unread(tx, &rx, seen.head_seen, &record, &payload)) {
        each(context, &record, payload);
        skip_unread(&rx);
    }
}

/* The producer waits, and what it waits for has been told. */
static bool told_enough(const struct tri_ring_control *control)
{
    /* Pairs with the release store of tri_ring_tx_want. */
    return atomic_load_explicit(&control->want, memory_order_acquire) &&
           tri_ring_has_room(control);
}

bool tri_ring_settle(struct tri_ring_rx *rx, bool progress)
{
    struct tri_ring_control *control = rx->control;

    if (progress) {
        rx->idle = 0;
    } else if (rx->idle == 0 || rx->published != rx->head) {
        rx->idle = 1;
        tri_ring_tell_head(rx);
    } else if (rx->idle == 1) {
        rx->idle = 2;
        /* Pairs with the fence of tri_ring_tx_want. */
        tri_fence_full();
    } else {
        return false;
    }
    /* The exchange makes one wake-up of one wish. */
    return told_enough(control) &&
           atomic_exchange_explicit(&control->want, 0, memory_order_relaxed);
}

bool tri_ring_pause(struct tri_ring_rx *rx)
{
    struct tri_ring_control *control = rx->control;

    tri_ring_tell_head(rx);
    rx->idle = 2;
    /* Pairs with the fence of tri_ring_tx_want. */
    tri_fence_full();
    return told_enough(control) &&
           atomic_exchange_explicit(&control->want, 0, memory_order_relaxed);
}

bool tri_ring_pending(const struct tri_ring_rx *rx)
{
    return !tri_ring_is_empty(rx) || rx->published != rx->head ||
           told_enough(rx->control);
}
