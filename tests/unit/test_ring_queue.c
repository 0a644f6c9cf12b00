/* SPDX-License-Identifier: BSD-3-Clause */
#include "unit.h"

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
    tri_ring_rx_init(&queue->rx, queue->segment, &shape, TRI_RING_MARK);
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

/* Each third record is marked. */
static uint8_t mark_of(uint64_t number)
{
    return number % 3 == 0 ? TRI_RING_MARK : 0;
}

static int put_and_keep(struct queue *queue, uint64_t number, size_t bytes,
                        uint32_t keep)
{
    struct tri_span span;
    uint64_t *words;
    int error = tri_ring_reserve(&queue->tx, bytes, keep, &span);

    if (error)
        return error;
    *span.record = (struct tri_record){ .kind = TRI_TELL,
                                        .bytes = (uint32_t)bytes,
                                        .total_bytes = (uint32_t)bytes,
                                        .ask = number };
    words = span.payload;
    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = bait(number + i);
    tri_ring_commit(&queue->tx, mark_of(number));
    return 0;
}

static int put(struct queue *queue, uint64_t number, size_t bytes)
{
    return put_and_keep(queue, number, bytes, 0);
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
           record.kind == TRI_TELL && record.bytes == bytes &&
           queue->rx.take_mark == (mark_of(number) != 0);
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
    assert_true(tri_ring_tx_want(&queue->tx, bytes, 0));
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
    assert_false(tri_ring_tx_want(&queue->tx, 8, 0));
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

static void test_mark_is_garbage_where_there_are_none(void **state)
{
    struct queue *queue = *state;
    struct tri_record record;
    const void *payload;

    tri_ring_rx_init(&queue->rx, queue->segment, &shape, 0);
    assert_int_equal(put(queue, 1, 8), 0);
    assert_int_equal(put(queue, 3, 8), 0);
    assert_true(take(queue, 1, 8));
    assert_int_equal(tri_ring_next(&queue->rx, &record, &payload),
                     TRI_RING_GARBAGE);
}

static void take_all(struct queue *queue, uint64_t *out, uint64_t in,
                     size_t bytes)
{
    while (*out < in)
        assert_true(take(queue, (*out)++, bytes));
    settle(queue);
}

static void test_keep_leaves_room_to_others(void **state)
{
    struct queue *queue = *state;
    const uint32_t keep = TRI_RING_KEEP_MAX;
    uint64_t in = 0, out = 0, kept;

    for (int round = 0; round < 300; round++) {
        while (put_and_keep(queue, in, 8, keep) == 0)
            in++;
        assert_true(tri_ring_tx_want(&queue->tx, 8, keep));
        kept = in;
        while (put(queue, in, 8) == 0)
            in++;
        assert_true(in - kept >= keep);
        take_all(queue, &out, in, 8);
        assert_true(tri_ring_has_room(queue->tx.control));
        /* An empty queue has room for all, wherever it stands. */
        assert_int_equal(put_and_keep(queue, in++, TRI_RING_INLINE_MAX, keep),
                         0);
        take_all(queue, &out, in, TRI_RING_INLINE_MAX);
    }
}

static void test_pause_tells_all(void **state)
{
    struct queue *queue = *state;
    uint64_t in = 0, out = 0;

    for (int round = 0; round < 100; round++) {
        while (put(queue, in, size_of(in)) == 0)
            in++;
        assert_true(tri_ring_tx_want(&queue->tx, size_of(in), 0));
        assert_false(tri_ring_pause(&queue->rx));
        while (!tri_ring_has_room(queue->tx.control)) {
            assert_true(take(queue, out, size_of(out)));
            out++;
            if (tri_ring_pause(&queue->rx))
                break;
        }
        assert_true(tri_ring_has_room(queue->tx.control));
        assert_int_equal(tri_ring_tx_unread(&queue->tx), in - out);
        assert_false(tri_ring_pause(&queue->rx)); /* one wish, one wake-up */
    }
}

struct unread {
    uint64_t first;
    uint64_t next;
    uint64_t sum;
};

static void check_unread(void *context, const struct tri_record *record,
                         const void *payload)
{
    struct unread *unread = context;
    const uint64_t *words = payload;

    if (unread->next == 0)
        unread->first = unread->next = record->ask;
    assert_int_equal(record->ask, unread->next);
    assert_int_equal(record->kind, TRI_TELL);
    assert_int_equal(record->bytes, size_of(record->ask));
    for (size_t i = 0; i < record->bytes / 8; i++)
        assert_int_equal(words[i], bait(record->ask + i));
    unread->next++;
}

static void test_each_unread(void **state)
{
    struct queue *queue = *state;
    uint64_t seed = unit_seed("each_unread"), in = 1, out = 1;

    for (int round = 0; round < 3000; round++) {
        struct unread unread = { 0 };
        uint64_t puts = tri_mix64(seed++) % 40, takes = tri_mix64(seed++) % 40;

        while (puts-- > 0 && put(queue, in, size_of(in)) == 0)
            in++;
        while (takes-- > 0 && out < in && take(queue, out, size_of(out)))
            out++;
        tri_ring_tx_each_unread(&queue->tx, check_unread, &unread);
        if (unread.next == 0)
            assert_int_equal(in, out);
        else
            assert_int_equal(unread.next, in);
        assert_true(unread.first <= out); /* what was taken may be untold */
        tri_ring_pause(&queue->rx);
        unread = (struct unread){ 0 };
        tri_ring_tx_each_unread(&queue->tx, check_unread, &unread);
        assert_int_equal(unread.next, in > out ? in : 0);
        assert_int_equal(unread.first, in > out ? out : 0);
    }
}

static void touch_unread(void *context, const struct tri_record *record,
                         const void *payload)
{
    const unsigned char *bytes = payload;
    struct unread *unread = context;

    assert_true(tri_record_check(record, TRI_RECORD_BYTES_MAX));
    for (size_t i = 0; i < record->bytes; i++)
        unread->sum += bytes[i];
    unread->next++;
}

/* The consumer can write to the whole segment: its lies lead to nonsense, but
 * not out of the segment, and they come to an end. */
static void test_each_unread_believes_nothing(void **state)
{
    struct queue *queue = *state;
    uint64_t seed = unit_seed("believes_nothing"), in = 1, out = 1;

    for (int round = 0; round < 3000; round++) {
        struct unread unread = { 0 };

        while (put(queue, in, size_of(in)) == 0)
            in++;
        while (out + tri_mix64(seed++) % 8 < in &&
               take(queue, out, size_of(out)))
            out++;
        tri_ring_pause(&queue->rx);
        atomic_store(&queue->tx.control->head,
                     queue->tx.head_seen + tri_mix64(seed++) % 256);
        atomic_store(&queue->tx.control->slots, tri_mix64(seed++) % 64);
        tri_ring_tx_each_unread(&queue->tx, touch_unread, &unread);
        assert_true(unread.next <= shape.line_count);
        tri_ring_pause(&queue->rx); /* the truth again */
    }
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
            if (!tri_ring_tx_want(&queue->tx, size_of(i), 0))
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
        TEST(mark_is_garbage_where_there_are_none),
        TEST(keep_leaves_room_to_others),
        TEST(pause_tells_all),
        TEST(each_unread),
        TEST(each_unread_believes_nothing),
        TEST(lying_consumer_gives_no_room),
        TEST(shapes),
        TEST(two_threads),
        TEST(waiting_producer_is_always_woken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
