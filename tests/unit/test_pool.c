/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory of messages. */
#include "unit.h"

#include "message/pool.h"

#define THREADS 4u
#define ROUNDS 60000u
#define PLACES 512u
#define KEPT_BYTES_MAX (64u * 1024 * 1024) /* pool.c keeps this much */

static void test_sizes(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes < 20000; bytes = bytes * 9 / 8 + 1) {
        struct tri_message *message = tri_message_alloc(bytes);
        static const struct tri_message zero;

        assert_non_null(message);
        assert_int_equal(message->bytes, bytes);
        assert_int_equal((uintptr_t)message % TRI_CACHE_LINE, 0);
        assert_null(message->next);
        assert_int_equal(message->kind, 0);
        assert_memory_equal(&message->sender, &zero.sender,
                            sizeof(zero) - offsetof(struct tri_message,
                                                    sender));
        memset(message->payload, 0xa5, bytes);
        tri_message_free(message);
    }
}

static void test_embedded(void **state)
{
    struct tri_message embedded = { .size_class = TRI_CLASS_EMBEDDED };

    (void)state;
    tri_message_free(&embedded); /* does nothing */
    assert_int_equal(embedded.size_class, TRI_CLASS_EMBEDDED);
}

/* --- threads free each other's blocks --------------------------------------- */

static struct tri_message *_Atomic places[PLACES];
static _Atomic uint32_t wrong;

static void fill(struct tri_message *message, uint8_t mark)
{
    message->value = mark;
    memset(message->payload, mark, message->bytes);
}

static void check(const struct tri_message *message)
{
    for (uint32_t i = 0; i < message->bytes; i += 61)
        if ((uint8_t)message->payload[i] != (uint8_t)message->value) {
            atomic_fetch_add(&wrong, 1); /* somebody else has it, too */
            return;
        }
}

static void *exchange(void *arg)
{
    struct tri_random random;

    tri_random_init(&random, (uint64_t)(uintptr_t)arg);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        size_t bytes = tri_random_below(&random, 100) == 0
                           ? tri_random_below(&random, 30000)
                           : tri_random_below(&random, 1000);
        struct tri_message *message = tri_message_alloc(bytes);

        if (message == NULL) {
            atomic_fetch_add(&wrong, 1);
            break;
        }
        fill(message, (uint8_t)i);
        message = atomic_exchange(&places[tri_random_below(&random, PLACES)],
                                  message);
        if (message != NULL) {
            check(message);
            tri_message_free(message);
        }
    }
    tri_pool_thread_fini();
    return NULL;
}

static void empty_places(void)
{
    for (uint32_t i = 0; i < PLACES; i++) {
        struct tri_message *message = atomic_exchange(&places[i], NULL);

        if (message != NULL)
            tri_message_free(message);
    }
}

static void run_exchange(uint64_t seed)
{
    pthread_t threads[THREADS];

    for (uint32_t i = 0; i < THREADS; i++)
        threads[i] = unit_thread(exchange, (void *)(uintptr_t)(seed + i));
    for (uint32_t i = 0; i < THREADS; i++)
        unit_join(threads[i]);
    empty_places();
}

static void test_threads(void **state)
{
    uint64_t seed = unit_seed("test_threads");
    size_t after_first;

    (void)state;
    run_exchange(seed);
    after_first = tri_pool_bytes();
    run_exchange(seed);
    assert_int_equal(wrong, 0);
    /* What threads leave behind is used again: twice the work is not twice
     * the memory. Magazines in the depot may differ a little. */
    assert_true(tri_pool_bytes() <= after_first + after_first / 2 + (1 << 20));
}

/* --- the limit ----------------------------------------------------------------- */

static void fill_up(size_t bytes, size_t limit)
{
    struct tri_message *first = NULL, *message;
    size_t n = 0, again = 0;

    tri_pool_init(tri_pool_bytes() + limit);
    while ((message = tri_message_alloc(bytes)) != NULL) {
        message->next = first;
        first = message;
        assert_true(++n < 1000000);
    }
    assert_true(n > 0);
    assert_null(tri_message_alloc(bytes)); /* and stays so */
    for (size_t i = 0; i < n; i++) {
        message = first;
        first = message->next;
        tri_message_free(message);
    }
    while (again < n && (message = tri_message_alloc(bytes)) != NULL) {
        message->next = first;
        first = message;
        again++;
    }
    assert_int_equal(again, n); /* all of it came back */
    while ((message = first) != NULL) {
        first = message->next;
        tri_message_free(message);
    }
    tri_pool_init(SIZE_MAX);
}

static void test_limit(void **state)
{
    (void)state;
    fill_up(100, 1 << 20);
    fill_up(4000, 1 << 20);
    fill_up(100000, 4 << 20);
}

static void test_huge(void **state)
{
    (void)state;
    tri_pool_init(tri_pool_bytes() + (1 << 20));
    assert_null(tri_message_alloc((size_t)1 << 31));
    assert_null(tri_message_alloc((size_t)1 << 33)); /* more than any class */
    tri_pool_init(SIZE_MAX);
}

/* Large blocks come back warm, and only so many are kept. */
static void test_large_reuse(void **state)
{
    struct tri_message *first = tri_message_alloc(1 << 20);
    struct tri_message *blocks[40];
    size_t before;

    (void)state;
    assert_non_null(first);
    tri_message_free(first);
    assert_ptr_equal(tri_message_alloc((1 << 20) + 5000), first);
    assert_int_equal(first->bytes, (1 << 20) + 5000);
    tri_message_free(first);
    before = tri_pool_bytes();
    for (size_t i = 0; i < tri_array_len(blocks); i++) {
        blocks[i] = tri_message_alloc(3 << 20);
        assert_non_null(blocks[i]);
    }
    assert_true(tri_pool_bytes() >= before + 40 * (size_t)(3 << 20));
    assert_true(40 * (size_t)(3 << 20) > KEPT_BYTES_MAX);
    for (size_t i = 0; i < tri_array_len(blocks); i++)
        tri_message_free(blocks[i]);
    /* what is kept for reuse still counts, and gives way to other sizes */
    assert_true(tri_pool_bytes() > before);
    assert_true(tri_pool_bytes() <= KEPT_BYTES_MAX + before);
    tri_pool_init(tri_pool_bytes());
    blocks[0] = tri_message_alloc(30 << 20);
    assert_non_null(blocks[0]);
    tri_message_free(blocks[0]);
    tri_pool_init(SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_embedded),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_huge),
        cmocka_unit_test(test_large_reuse),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
