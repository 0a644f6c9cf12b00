/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_RING_QUEUE_H
#define TRI_RING_QUEUE_H

/*
 * A queue of records between two processes: one producer (tx), one consumer
 * (rx), in shared memory. Pure: no system call, no allocation.
 *
 *     | control | lines: the record ring      | slots: large payloads   |
 *     | 4 KiB   | line_count times 64 bytes   | slot_count * slot_bytes |
 *
 * A queue takes whole pages, so that one can follow another in a segment.
 *
 * Records begin on a line and fill as many as they need, without a gap; one
 * that does not fit before the end of the ring is preceded by a SKIP. A payload
 * above TRI_RING_INLINE_MAX lies in a slot instead; slots are used in turn.
 * Positions count lines (and slots) since the beginning and never wrap; the
 * index of a line is its position modulo line_count, a power of two.
 *
 * The first word of a record (its length and kind; kind is never 0) tells that
 * the record is there: it is written last. There is no shared tail, so that a
 * record of one line costs the transfer of one line. The consumer never writes
 * to the ring; the producer *clears* the first word of free lines, in batches
 * ahead of its tail, where the transfers overlap and nobody waits for them.
 *
 * Why it is right (T tail, C cleared, H published head, N line_count):
 *  1. T < C <= H + N at all times. Only the producer moves T and C; H only
 *     grows, and the producer uses an H that it read before.
 *  2. At the consumer's position P <= T the first word is 0 or was published
 *     for this position: the producer cleared it after the last use of the
 *     line and, since T < C, before it published the record that ends there.
 *     Whoever sees the record before (acquire) sees the clearing. So stale
 *     payload is never taken for a header.
 *  3. All bytes of a record are visible when its word is (release/acquire on
 *     the word), for slots too.
 *  4. Lines in [H, T) and slots in use are not written by the producer: it
 *     reuses them only after reading (acquire) an H that the consumer stored
 *     (release) when it was done with them.
 *  5. Nobody waits for ever for room: a producer that found none writes
 *     `want`, a full fence, and looks at H again. The consumer looks at
 *     `want` after publishing H: at once when it goes on; behind a full fence
 *     when it found the ring empty twice; and in tri_ring_pending, which runs
 *     behind the fence of tri_bell_arm. One of the two sees the other (Dekker).
 * Progress: every call is wait-free, bounded by the size of one batch.
 *
 * Neither side trusts the other: headers are copied before they are checked,
 * positions from the other side are only accepted in the range that they can
 * have, and an index is always reduced modulo the size that both agreed on.
 */

#include <string.h>

#include "transport/transport.h"

#define TRI_RING_LINE 64u
#define TRI_RING_CONTROL_BYTES 4096u
#define TRI_RING_INLINE_MAX 2048u
/* Twice the largest record, a line and TRI_RING_KEEP_MAX, so that an empty ring
 * has room for any record behind any SKIP. */
#define TRI_RING_LINES_MIN 128u
/* Lines that a producer may ask to have left behind a record. */
#define TRI_RING_KEEP_MAX 32u
#define TRI_RING_LINES_MAX (1u << 16)
#define TRI_RING_SLOTS_MAX 64u
/* Lines cleared at once: many transfers in flight, and less than 1 us. */
#define TRI_RING_CLEAR_BATCH 32u

/* Internal kinds, beside the record's own, which stay below 0x3e. */
#define TRI_RING_IN_SLOT 0x80u /* a bit: the payload is in the next slot */
#define TRI_RING_MARK 0x40u    /* a bit that means what both sides agreed on */
#define TRI_RING_SKIP 0xffu    /* go on at the beginning of the ring */
#define TRI_RING_CLOSE 0xfeu   /* nothing follows; bytes: tri_ring_end */

_Static_assert(TRI_KIND_LAST < (TRI_RING_CLOSE & ~(TRI_RING_IN_SLOT |
                                                    TRI_RING_MARK)),
               "no record with its bits looks like SKIP or CLOSE");

/* How a producer ended. */
enum tri_ring_end {
    TRI_RING_DISCONNECTED,
    TRI_RING_LEFT, /* the node is gone */
};

struct tri_ring_shape {
    uint32_t line_count;
    uint32_t slot_count;
    uint32_t slot_bytes;
};

/* The beginning of the segment: grouped by writer, two lines each because
 * processors fetch lines in pairs. */
struct tri_ring_control {
    /* Producer: want is also taken back by the consumer. */
    _Alignas(2 * TRI_CACHE_LINE) _Atomic uint32_t want;
    _Atomic uint64_t need_head; /* what it waits for */
    _Atomic uint64_t need_slots;
    /* Consumer. */
    _Alignas(2 * TRI_CACHE_LINE) _Atomic uint64_t head;
    _Atomic uint64_t slots;   /* slots released */
    _Atomic uint64_t records; /* records released */
    _Atomic uint32_t gone;    /* the consumer will never read again */
};

struct tri_ring_tx {
    struct tri_ring_control *control;
    unsigned char *lines;
    unsigned char *slots;
    struct tri_ring_shape shape;
    uint64_t tail;
    uint64_t cleared;
    uint64_t head_seen;
    uint64_t slots_used;
    uint64_t slots_seen;
    uint64_t committed;
    bool in_slot; /* the reserved record */
    /* The reserved record until commit: its kind must not show before. */
    _Alignas(TRI_CACHE_LINE) struct tri_record header;
    uint64_t word_payload; /* follows the header: fills up a line */
};

struct tri_ring_rx {
    struct tri_ring_control *control;
    const unsigned char *lines;
    const unsigned char *slots_base;
    struct tri_ring_shape shape;
    uint64_t head;
    uint64_t slots;
    uint64_t records;
    uint64_t published; /* the head that the producer can see */
    uint32_t take_lines; /* of the record that `next` returned */
    bool take_slot;
    bool take_mark;
    uint8_t marks; /* TRI_RING_MARK where records may have it, else 0 */
    uint8_t in_row; /* records found since it was empty, up to a limit */
    uint8_t idle; /* passes that found nothing, at most 2 */
    enum tri_ring_end end;
};

enum tri_ring_found {
    TRI_RING_EMPTY,
    TRI_RING_RECORD,
    TRI_RING_CLOSED,
    TRI_RING_GARBAGE,
};

/* True for a shape that this code can work with, whoever sent it. */
bool tri_ring_shape_check(const struct tri_ring_shape *shape);

size_t tri_ring_bytes(const struct tri_ring_shape *shape);

/* segment: zeroed memory of tri_ring_bytes. */
void tri_ring_tx_init(struct tri_ring_tx *tx, void *segment,
                      const struct tri_ring_shape *shape);

/* marks: see struct tri_ring_rx. */
void tri_ring_rx_init(struct tri_ring_rx *rx, void *segment,
                      const struct tri_ring_shape *shape, uint8_t marks);

/* Makes room for `lines` more and a slot if asked. False: there is none. */
bool tri_ring_tx_refill(struct tri_ring_tx *tx, uint64_t lines, bool slot);

/* The record does not fit: asks the consumer to wake us when it does.
 * False: it fits by now. keep: as for tri_ring_reserve. */
bool tri_ring_tx_want(struct tri_ring_tx *tx, size_t bytes, uint32_t keep);

/* Ends the queue. There is always room for that. */
void tri_ring_tx_close(struct tri_ring_tx *tx, enum tri_ring_end end);

/* Records that the consumer has not released, as far as it told. */
uint64_t tri_ring_tx_unread(const struct tri_ring_tx *tx);

/*
 * Calls `each` for the records that the consumer has not released, as far as
 * it told, in their order. Believes neither positions nor records that the
 * consumer could have written.
 */
void tri_ring_tx_each_unread(const struct tri_ring_tx *tx,
                             void (*each)(void *context,
                                          const struct tri_record *record,
                                          const void *payload),
                             void *context);

/* True when what the producer waited for has come. Any thread. */
bool tri_ring_has_room(const struct tri_ring_control *control);

/*
 * The next record: a copy of its header, and its payload in shared memory,
 * which the producer could still change: read once, trust nothing. Then
 * release it.
 */
enum tri_ring_found tri_ring_next(struct tri_ring_rx *rx,
                                  struct tri_record *record,
                                  const void **payload_p);

/* Ends a pass over the queue; `progress`: it took something. True when the
 * producer is to be woken. */
bool tri_ring_settle(struct tri_ring_rx *rx, bool progress);

/* Settles for good: nothing is left to be told until a record is released.
 * True when the producer is to be woken. */
bool tri_ring_pause(struct tri_ring_rx *rx);

/* True when there is something to take or to tell. Behind a full fence. */
bool tri_ring_pending(const struct tri_ring_rx *rx);

static inline _Atomic uint64_t *tri_ring_word(const unsigned char *lines,
                                              uint64_t index)
{
    return (_Atomic uint64_t *)(uintptr_t)(lines + index * TRI_RING_LINE);
}

static inline bool tri_ring_is_empty(const struct tri_ring_rx *rx)
{
    uint64_t index = rx->head & (rx->shape.line_count - 1);

    return !atomic_load_explicit(tri_ring_word(rx->lines, index),
                                 memory_order_relaxed);
}

/* Empty, and all was told: a pass would do nothing. */
static inline bool tri_ring_is_quiet(const struct tri_ring_rx *rx)
{
    return rx->idle == 2 && tri_ring_is_empty(rx);
}

/* Lines of a record; one whose payload lies in a slot has one. */
static inline uint32_t tri_ring_lines(size_t bytes)
{
    if (bytes > TRI_RING_INLINE_MAX)
        return 1;
    return (uint32_t)((sizeof(struct tri_record) + bytes + TRI_RING_LINE - 1) /
                      TRI_RING_LINE);
}

/* Lines up to the end of the ring if the record does not fit there, else 0. */
static inline uint32_t tri_ring_skip(const struct tri_ring_tx *tx,
                                     uint32_t lines)
{
    uint32_t index = (uint32_t)tx->tail & (tx->shape.line_count - 1);

    return index + lines > tx->shape.line_count
               ? tx->shape.line_count - index
               : 0;
}

static inline void tri_ring_publish(struct tri_ring_tx *tx, uint64_t word)
{
    uint64_t index = tx->tail & (tx->shape.line_count - 1);

    /* Pairs with the acquire load of tri_ring_next. */
    atomic_store_explicit(tri_ring_word(tx->lines, index), word,
                          memory_order_release);
}

/* Room for a record; bytes: at most max(TRI_RING_INLINE_MAX, slot_bytes).
 * keep: lines that it must leave to others, at most TRI_RING_KEEP_MAX.
 * Errors: EFULL. */
static inline int tri_ring_reserve(struct tri_ring_tx *tx, size_t bytes,
                                   uint32_t keep, struct tri_span *span_p)
{
    uint32_t lines = tri_ring_lines(bytes);
    uint32_t skip = tri_ring_skip(tx, lines);
    bool in_slot = bytes > TRI_RING_INLINE_MAX;

    if (tri_unlikely(tx->tail + skip + lines + keep >= tx->cleared ||
                     in_slot) &&
        !tri_ring_tx_refill(tx, skip + lines + keep, in_slot))
        return TROUPE_EFULL;
    if (tri_unlikely(skip)) {
        tri_ring_publish(tx, (uint64_t)TRI_RING_SKIP << 32);
        tx->tail += skip;
    }
    tx->in_slot = in_slot;
    span_p->record = &tx->header;
    if (lines > 1)
        span_p->payload = (unsigned char *)tri_ring_word(
                              tx->lines,
                              tx->tail & (tx->shape.line_count - 1)) +
                          sizeof(struct tri_record);
    else if (in_slot)
        span_p->payload =
            tx->slots + (tx->slots_used % tx->shape.slot_count) *
                            (size_t)tx->shape.slot_bytes;
    else
        span_p->payload = &tx->word_payload;
    return 0;
}

/* Publishes the reserved record. mark: 0 or TRI_RING_MARK. */
static inline void tri_ring_commit(struct tri_ring_tx *tx, uint8_t mark)
{
    uint64_t index = tx->tail & (tx->shape.line_count - 1);
    unsigned char *line = tx->lines + index * TRI_RING_LINE;
    uint32_t lines = tri_ring_lines(tx->header.bytes);
    uint64_t word;

    tx->header.kind |= mark;
    if (tx->in_slot) {
        tx->header.kind |= TRI_RING_IN_SLOT;
        tx->slots_used++;
    }
    memcpy(&word, &tx->header, sizeof(word));
    /* A record of one line is written as a whole. */
    memcpy(line + sizeof(word), (unsigned char *)&tx->header + sizeof(word),
           sizeof(tx->header) - sizeof(word));
    if (lines == 1)
        memcpy(line + sizeof(tx->header), &tx->word_payload,
               sizeof(tx->word_payload));
    tri_ring_publish(tx, word);
    tx->tail += lines;
    tx->committed++;
}

/* Tells the producer how far the consumer is. */
static inline void tri_ring_tell_head(struct tri_ring_rx *rx)
{
    struct tri_ring_control *control = rx->control;

    rx->published = rx->head;
    atomic_store_explicit(&control->records, rx->records,
                          memory_order_relaxed);
    /* Both pair with the acquire loads of tri_ring_tx_refill. The head goes
     * first: a consumer that dies in between must not have given back the slot
     * of a record that counts as unread. */
    atomic_store_explicit(&control->head, rx->head, memory_order_release);
    atomic_store_explicit(&control->slots, rx->slots, memory_order_release);
}

/* Done with the record that `next` returned. */
static inline void tri_ring_release(struct tri_ring_rx *rx)
{
    rx->head += rx->take_lines;
    rx->slots += rx->take_slot;
    rx->records++;
    if (rx->take_slot || rx->head - rx->published >= rx->shape.line_count / 4)
        tri_ring_tell_head(rx);
}

#endif
