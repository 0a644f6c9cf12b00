/* SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "transport/ring_queue.h"

#define WATCHDOG_S 120
#define STREAM_RECORDS 200000u

/* The smallest: it wraps and fills most often. */
static const struct tri_ring_shape shape = { .line_count = 128,
                                             .slot_count = 2,
                                             .slot_bytes = 8192 };

struct queue {
    void *segment;
    struct tri_ring_tx tx;
    struct tri_ring_rx rx;
};

static int setup(void **state)
{
    struct queue *queue = aligned_alloc(64, sizeof(*queue));

    alarm(WATCHDOG_S);
    if (!queue)
        return -1;
    queue->segment = aligned_alloc(4096, tri_ring_bytes(&shape));
    if (!queue->segment)
        return -1;
    memset(queue->segment, 0, tri_ring_bytes(&shape));
    tri_ring_tx_init(&queue->tx, queue->segment, &shape);
    tri_ring_rx_init(&queue->rx, queue->segment, &shape);
    *state = queue;
    return 0;
}

static int teardown(void **state)
{
    struct queue *queue = *state;

    free(queue->segment);
    free(queue);
    return 0;
}

/* Every word of the payload looks like a good header of an empty record. */
static uint64_t bait(uint64_t number)
{
    return (uint64_t)TRI_TELL << 32 | (number & 0xff) << 48;
}

static size_t size_of(uint64_t number)
{
    uint64_t random = tri_mix64(number + 1);

    if (random % 32 == 0)
        return shape.slot_bytes - (random >> 40) % 64 * 8;
    if (random % 4 == 0)
        return (random >> 32) % (TRI_RING_INLINE_MAX / 8 + 1) * 8;
    return (random >> 32) % 16 * 8;
}

static int put(struct queue *queue, uint64_t number, size_t bytes)
{
    struct tri_span span;
    uint64_t *words;
    int error = tri_ring_reserve(&queue->tx, bytes, &span);

    if (error)
        return error;
    *span.record = (struct tri_record){ .kind = TRI_TELL,
                                        .bytes = (uint32_t)bytes,
                                        .total_bytes = (uint32_t)bytes,
                                        .ask = number };
    words = span.payload;
    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = bait(number + i);
    tri_ring_commit(&queue->tx);
    return 0;
}

/* True when it took a record; a wrong one ends the program. */
static bool take(struct queue *queue, uint64_t number, size_t bytes)
{
    struct tri_record record;
    const void *payload;
    const uint64_t *words;
    enum tri_ring_found found = tri_ring_next(&queue->rx, &record, &payload);
    bool good;

    if (found == TRI_RING_EMPTY)
        return false;
    words = payload;
    good = found == TRI_RING_RECORD && record.ask == number &&
           record.bytes == bytes;
    for (size_t i = 0; good && i < bytes / 8; i++)
        good = words[i] == bait(number + i);
    if (!good) { /* also on a thread, where cmocka cannot fail a test */
        fprintf(stderr, "record %llu: found %d\n", (unsigned long long)number,
                (int)found);
        abort();
    }
    tri_ring_release(&queue->rx);
    return true;
}

static void settle(struct queue *queue)
{
    while (tri_ring_pending(&queue->rx))
        tri_ring_settle(&queue->rx, false);
}

static void test_one_at_a_time(void **state)
{
    struct queue *queue = *state;

    for (uint64_t i = 0; i < 5000; i++) {
        assert_false(take(queue, i, 0));
        assert_int_equal(put(queue, i, size_of(i)), 0);
        assert_true(take(queue, i, size_of(i)));
        assert_false(take(queue, i, 0));
        settle(queue);
        assert_int_equal(tri_ring_tx_unread(&queue->tx), 0);
    }
}

static void test_full_and_drained(void **state)
{
    struct queue *queue = *state;
    uint64_t in = 0, out = 0;

    for (int round = 0; round < 500; round++) {
        while (put(queue, in, size_of(in)) == 0)
            in++;
        assert_true(in > out);
        assert_int_equal(tri_ring_tx_unread(&queue->tx), in - out);
        while (take(queue, out, size_of(out)))
            out++;
        assert_int_equal(in, out);
        settle(queue);
    }
}

/* An empty queue takes the largest record wherever it stands. */
static void test_empty_takes_any_record(void **state)
{
    struct queue *queue = *state;

    for (uint64_t i = 0; i < 3u * shape.line_count; i++) {
        assert_int_equal(put(queue, i, TRI_RING_INLINE_MAX), 0);
        assert_true(take(queue, i, TRI_RING_INLINE_MAX));
        assert_int_equal(put(queue, i, 8), 0);
        assert_true(take(queue, i, 8));
        settle(queue);
    }
}

static void wants(struct queue *queue, size_t bytes)
{
    uint64_t in = 0, out = 0;
    bool woken = false;

    while (put(queue, in, bytes) == 0)
        in++;
    assert_true(tri_ring_tx_want(&queue->tx, bytes));
    assert_false(tri_ring_has_room(queue->tx.control));
    while (!woken) {
        bool progress = take(queue, out, bytes);

        out += progress;
        woken = tri_ring_settle(&queue->rx, progress);
        assert_true(progress || woken || tri_ring_pending(&queue->rx));
    }
    assert_true(tri_ring_has_room(queue->tx.control));
    assert_int_equal(put(queue, in, bytes), 0);
    while (out <= in)
        assert_true(take(queue, out++, bytes));
    settle(queue);
    /* One wish, one wake-up. */
    assert_false(tri_ring_settle(&queue->rx, false));
    assert_false(tri_ring_settle(&queue->rx, false));
}

static void test_want_is_answered(void **state)
{
    struct queue *queue = *state;

    for (int i = 0; i < 20; i++) {
        wants(queue, 8);
        wants(queue, 1504);
        wants(queue, TRI_RING_INLINE_MAX);
        wants(queue, shape.slot_bytes);
    }
}

static void test_want_sees_room_made_before(void **state)
{
    struct queue *queue = *state;
    uint64_t in = 0;

    while (put(queue, in, 8) == 0)
        in++;
    for (uint64_t out = 0; out < in; out++)
        assert_true(take(queue, out, 8));
    settle(queue);
    assert_false(tri_ring_tx_want(&queue->tx, 8));
    assert_int_equal(put(queue, in, 8), 0);
}

static void test_close_fits_into_a_full_queue(void **state)
{
    struct queue *queue = *state;
    struct tri_record record;
    const void *payload;
    uint64_t in = 0;

    while (put(queue, in, 8) == 0)
        in++;
    tri_ring_tx_close(&queue->tx, TRI_RING_LEFT);
    for (uint64_t out = 0; out < in; out++)
        assert_true(take(queue, out, 8));
    assert_int_equal(tri_ring_next(&queue->rx, &record, &payload),
                     TRI_RING_CLOSED);
    assert_int_equal(queue->rx.end, TRI_RING_LEFT);
}

/* What a producer gone wrong may write at the consumer's position. */
static void test_garbage_is_found(void **state)
{
    struct queue *queue = *state;
    const struct tri_record bad[] = {
        { .kind = 0, .bytes = 8 },
        { .kind = TRI_KIND_LAST + 1 },
        { .kind = TRI_RING_SKIP }, /* at index 0 */
        { .kind = TRI_TELL, .flags = 1 },
        { .kind = TRI_TELL, .reserved = 1 },
        { .kind = TRI_TELL, .bytes = 8 },
        { .kind = TRI_MORE, .bytes = TRI_RING_INLINE_MAX + 1 },
        { .kind = TRI_MORE, .bytes = UINT32_MAX },
        { .kind = TRI_MORE | TRI_RING_IN_SLOT, .bytes = 8 },
        { .kind = TRI_MORE | TRI_RING_IN_SLOT, .bytes = 8193 },
    };
    struct tri_record record;
    const void *payload;

    for (size_t i = 0; i < tri_array_len(bad); i++) {
        memcpy(queue->tx.lines, &bad[i], sizeof(bad[i]));
        assert_int_equal(tri_ring_next(&queue->rx, &record, &payload),
                         TRI_RING_GARBAGE);
    }
    /* Past the end of the ring. */
    queue->rx.head = shape.line_count - 1;
    record = (struct tri_record){ .kind = TRI_MORE, .bytes = 9 };
    memcpy(queue->tx.lines + (shape.line_count - 1) * TRI_RING_LINE, &record,
           sizeof(record));
    assert_int_equal(tri_ring_next(&queue->rx, &record, &payload),
                     TRI_RING_GARBAGE);
}

static void test_lying_consumer_gives_no_room(void **state)
{
    struct queue *queue = *state;
    uint64_t in = 0;

    while (put(queue, in, 8) == 0)
        in++;
    atomic_store(&queue->tx.control->head, queue->tx.tail + 1);
    assert_int_equal(put(queue, in, 8), TROUPE_EFULL);
    atomic_store(&queue->tx.control->head, UINT64_MAX - 5);
    assert_int_equal(put(queue, in, 8), TROUPE_EFULL);
    atomic_store(&queue->tx.control->slots, 99);
    while (put(queue, in, shape.slot_bytes) == 0)
        in++;
    assert_true(queue->tx.slots_used <= shape.slot_count);
}

static void test_shapes(void **state)
{
    struct tri_ring_shape s = shape;

    (void)state;
    assert_true(tri_ring_shape_check(&s));
    s.line_count = 192;
    assert_false(tri_ring_shape_check(&s));
    s.line_count = 64;
    assert_false(tri_ring_shape_check(&s));
    s.line_count = 1u << 31;
    assert_false(tri_ring_shape_check(&s));
    s = shape;
    s.slot_count = 0;
    assert_false(tri_ring_shape_check(&s));
    s = shape;
    s.slot_bytes = UINT32_MAX & ~63u;
    assert_false(tri_ring_shape_check(&s));
}

static void *produce(void *arg)
{
    struct queue *queue = arg;

    for (uint64_t i = 0; i < STREAM_RECORDS; i++)
        while (put(queue, i, size_of(i)) != 0)
            sched_yield();
    tri_ring_tx_close(&queue->tx, TRI_RING_DISCONNECTED);
    return NULL;
}

static void test_two_threads(void **state)
{
    struct queue *queue = *state;
    struct tri_record record;
    const void *payload;
    pthread_t thread;
    uint64_t next = 0;

    assert_int_equal(pthread_create(&thread, NULL, produce, queue), 0);
    while (next < STREAM_RECORDS) {
        bool progress = take(queue, next, size_of(next));

        next += progress;
        tri_ring_settle(&queue->rx, progress);
        if (!progress)
            sched_yield();
    }
    pthread_join(thread, NULL);
    assert_int_equal(tri_ring_next(&queue->rx, &record, &payload),
                     TRI_RING_CLOSED);
}

/* Both sides sleep for real: a lost wake-up hangs. */
struct sleep_pair {
    struct queue *queue;
    _Atomic bool wake;
};

static void *produce_and_wait(void *arg)
{
    struct sleep_pair *pair = arg;
    struct queue *queue = pair->queue;

    for (uint64_t i = 0; i < STREAM_RECORDS / 4; i++)
        while (put(queue, i, size_of(i)) != 0) {
            if (!tri_ring_tx_want(&queue->tx, size_of(i)))
                continue;
            while (!atomic_exchange(&pair->wake, false))
                sched_yield();
        }
    return NULL;
}

static void test_waiting_producer_is_always_woken(void **state)
{
    struct sleep_pair pair = { .queue = *state };
    pthread_t thread;
    uint64_t next = 0;

    assert_int_equal(pthread_create(&thread, NULL, produce_and_wait, &pair),
                     0);
    while (next < STREAM_RECORDS / 4) {
        bool progress = take(pair.queue, next, size_of(next));

        next += progress;
        if (tri_ring_settle(&pair.queue->rx, progress))
            atomic_store(&pair.wake, true);
        if (!progress)
            sched_yield();
    }
    pthread_join(thread, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_at_a_time),
        TEST(full_and_drained),
        TEST(empty_takes_any_record),
        TEST(want_is_answered),
        TEST(want_sees_room_made_before),
        TEST(close_fits_into_a_full_queue),
        TEST(garbage_is_found),
        TEST(lying_consumer_gives_no_room),
        TEST(shapes),
        TEST(two_threads),
        TEST(waiting_producer_is_always_woken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
