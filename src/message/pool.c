/* SPDX-License-Identifier: BSD-3-Clause */
#include "message/pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"

/* Block sizes of the slab classes, header included: multiples of a line. */
static const uint32_t small_bytes[] = { 128, 192, 256, 512, 1024, 2176, 4224 };
/* The class of a block of so many lines, rounded up. */
static const uint8_t class_of_lines[] = {
#define X4(c) c, c, c, c
#define X16(c) X4(c), X4(c), X4(c), X4(c)
    0, 0, 0, 1, 2, X4(3), X4(4), X4(4), X16(5), 5, 5, X16(6), X16(6),
#undef X4
#undef X16
};

#define SMALL_LEN tri_array_len(small_bytes)
_Static_assert(SMALL_LEN == TRI_POOL_SMALL_LEN, "the cache has all classes");
_Static_assert(sizeof(struct tri_message) + TRI_POOL_TINY_BYTES == 128,
               "tiny messages fill the smallest blocks");
#define SMALL_BYTES_MAX 4224
#define SLAB_BYTES (64u * 1024)
/* Large classes: powers of two from 8 KiB to 4 GiB. */
#define LARGE_SHIFT_MIN 13
#define LARGE_SHIFT_MAX 32
/* Large blocks kept for reuse: each class some, all together bounded. */
#define LARGE_KEPT_LEN 8
#define LARGE_KEPT_BYTES_MAX (256u * 1024 * 1024) /* two of 64 MiB and header */
/* What is kept when none was used for this time. */
#define LARGE_KEPT_IDLE_BYTES (64u * 1024 * 1024)
#define LARGE_KEPT_NS (500ull * 1000 * 1000)

/* Full magazines of one class: chained through `ask` of their first block. */
struct depot {
    struct tri_lock lock;
    struct tri_message *full;
};

static struct {
    _Atomic size_t bytes;
    _Atomic size_t bytes_max;
    struct depot depots[SMALL_LEN];
    struct tri_lock large_lock;
    struct tri_message *kept[LARGE_SHIFT_MAX - LARGE_SHIFT_MIN + 1];
    uint32_t kept_len[LARGE_SHIFT_MAX - LARGE_SHIFT_MIN + 1];
    size_t kept_bytes;
    uint64_t large_uses; /* blocks given back so far */
} pool = { .bytes_max = SIZE_MAX };

void tri_pool_init(size_t memory_bytes_max)
{
    atomic_store(&pool.bytes_max, memory_bytes_max);
}

size_t tri_pool_bytes(void)
{
    return atomic_load_explicit(&pool.bytes, memory_order_relaxed);
}

static bool try_budget(size_t bytes)
{
    size_t before = atomic_fetch_add_explicit(&pool.bytes, bytes,
                                              memory_order_relaxed);

    if (before + bytes <= atomic_load_explicit(&pool.bytes_max,
                                               memory_order_relaxed))
        return true;
    atomic_fetch_sub_explicit(&pool.bytes, bytes, memory_order_relaxed);
    return false;
}

static bool drop_kept(void);

/* Blocks kept for reuse count; they give way. */
static bool take_budget(size_t bytes)
{
    do {
        if (try_budget(bytes))
            return true;
    } while (drop_kept());
    return false;
}

static void give_budget(size_t bytes)
{
    atomic_fetch_sub_explicit(&pool.bytes, bytes, memory_order_relaxed);
}

/* --- large blocks --------------------------------------------------------- */

static unsigned large_shift(size_t block_bytes)
{
    unsigned shift = LARGE_SHIFT_MIN;

    while (((size_t)1 << shift) < block_bytes)
        shift++;
    return shift;
}

static struct tri_message *take_kept(unsigned shift)
{
    struct tri_message *message;
    unsigned i = shift - LARGE_SHIFT_MIN;

    tri_lock_acquire(&pool.large_lock);
    message = pool.kept[i];
    if (message != NULL) {
        pool.kept[i] = message->next;
        pool.kept_len[i]--;
        pool.kept_bytes -= (size_t)1 << shift;
    }
    tri_lock_release(&pool.large_lock);
    return message;
}

static struct tri_message *alloc_large(size_t block_bytes)
{
    unsigned shift = large_shift(block_bytes);
    struct tri_message *message;
    void *block;

    if (shift > LARGE_SHIFT_MAX)
        return NULL;
    message = take_kept(shift);
    if (message == NULL) {
        if (!take_budget((size_t)1 << shift))
            return NULL;
        if (posix_memalign(&block, TRI_CACHE_LINE, (size_t)1 << shift) != 0) {
            give_budget((size_t)1 << shift);
            return NULL;
        }
        message = block;
    }
    message->size_class = (uint8_t)(SMALL_LEN + shift - LARGE_SHIFT_MIN);
    return message;
}

static void free_large(struct tri_message *message)
{
    unsigned i = message->size_class - (unsigned)SMALL_LEN;
    size_t bytes = (size_t)1 << (i + LARGE_SHIFT_MIN);
    bool kept = false;

    tri_lock_acquire(&pool.large_lock);
    pool.large_uses++;
    if (pool.kept_len[i] < LARGE_KEPT_LEN &&
        pool.kept_bytes + bytes <= LARGE_KEPT_BYTES_MAX) {
        message->next = pool.kept[i];
        pool.kept[i] = message;
        pool.kept_len[i]++;
        pool.kept_bytes += bytes;
        kept = true;
    }
    tri_lock_release(&pool.large_lock);
    if (!kept) {
        free(message);
        give_budget(bytes);
    }
}

/* Gives one kept block back to the system, the largest. */
static bool drop_kept(void)
{
    for (unsigned shift = LARGE_SHIFT_MAX; shift >= LARGE_SHIFT_MIN; shift--) {
        struct tri_message *message = take_kept(shift);

        if (message != NULL) {
            free(message);
            give_budget((size_t)1 << shift);
            return true;
        }
    }
    return false;
}

static bool has_too_much(uint64_t *uses_p)
{
    bool more;

    tri_lock_acquire(&pool.large_lock);
    more = pool.kept_bytes > LARGE_KEPT_IDLE_BYTES;
    *uses_p = pool.large_uses;
    tri_lock_release(&pool.large_lock);
    return more;
}

bool tri_pool_trim(struct tri_pool_trim *trim, uint64_t now_ns)
{
    uint64_t uses;

    if (tri_likely(!has_too_much(&uses)))
        return false;
    if (uses != trim->uses)
        *trim = (struct tri_pool_trim){ uses, now_ns };
    if (now_ns - trim->since_ns < LARGE_KEPT_NS)
        return true;
    while (has_too_much(&uses) && drop_kept())
        ;
    return false;
}

#if defined(TRI_SANITIZE_ADDRESS)

/* Every block straight from malloc, so that the sanitizer sees its life. */
static struct tri_message *alloc_small(unsigned size_class)
{
    void *block;

    if (!take_budget(small_bytes[size_class]))
        return NULL;
    if (posix_memalign(&block, TRI_CACHE_LINE, small_bytes[size_class]) != 0) {
        give_budget(small_bytes[size_class]);
        return NULL;
    }
    return block;
}

static void free_small(struct tri_message *message)
{
    give_budget(small_bytes[message->size_class]);
    free(message);
}

void tri_pool_thread_fini(void)
{
}

#else

/* --- small blocks --------------------------------------------------------- */

_Thread_local struct tri_pool_cache tri_pool_cache;

static void depot_put(unsigned size_class, struct tri_magazine *full)
{
    struct depot *depot = &pool.depots[size_class];

    tri_lock_acquire(&depot->lock);
    full->first->ask = (uint64_t)(uintptr_t)depot->full;
    full->first->fixed_bytes = full->len;
    depot->full = full->first;
    tri_lock_release(&depot->lock);
    full->first = NULL;
    full->len = 0;
}

static bool depot_take(unsigned size_class, struct tri_magazine *into)
{
    struct depot *depot = &pool.depots[size_class];
    struct tri_message *first;

    tri_lock_acquire(&depot->lock);
    first = depot->full;
    if (first != NULL)
        depot->full = (struct tri_message *)(uintptr_t)first->ask;
    tri_lock_release(&depot->lock);
    if (first == NULL)
        return false;
    into->first = first;
    into->len = first->fixed_bytes;
    return true;
}

/* Carves a new slab: one magazine for the caller, the rest for the depot. */
static bool carve_slab(unsigned size_class, struct tri_magazine *into)
{
    uint32_t bytes = small_bytes[size_class];
    uint32_t len = SLAB_BYTES / bytes;
    char *slab;
    void *memory;

    if (!take_budget(SLAB_BYTES))
        return false;
    if (posix_memalign(&memory, TRI_CACHE_LINE, SLAB_BYTES) != 0) {
        give_budget(SLAB_BYTES);
        return false;
    }
    slab = memory;
    for (uint32_t i = 0; i < len; i++) {
        struct tri_message *block = (void *)(slab + (size_t)i * bytes);

        if (into->len == TRI_MAGAZINE_LEN)
            depot_put(size_class, into);
        block->size_class = (uint8_t)size_class;
        block->next = into->first;
        into->first = block;
        into->len++;
    }
    return true;
}

static bool reload(unsigned size_class)
{
    struct tri_magazine *loaded = &tri_pool_cache.loaded[size_class];
    struct tri_magazine *previous = &tri_pool_cache.previous[size_class];

    if (previous->len > 0) {
        *loaded = *previous;
        previous->first = NULL;
        previous->len = 0;
        return true;
    }
    return depot_take(size_class, loaded) || carve_slab(size_class, loaded);
}

static struct tri_message *alloc_small(unsigned size_class)
{
    struct tri_magazine *loaded = &tri_pool_cache.loaded[size_class];
    struct tri_message *message;

    if (tri_unlikely(loaded->first == NULL) && !reload(size_class))
        return NULL;
    message = loaded->first;
    loaded->first = message->next;
    loaded->len--;
    return message;
}

static void free_small(struct tri_message *message)
{
    struct tri_magazine *loaded = &tri_pool_cache.loaded[message->size_class];

    if (tri_unlikely(loaded->len == TRI_MAGAZINE_LEN)) {
        struct tri_magazine *previous = &tri_pool_cache.previous[message->size_class];

        if (previous->len > 0)
            depot_put(message->size_class, previous);
        *previous = *loaded;
        loaded->first = NULL;
        loaded->len = 0;
    }
    message->next = loaded->first;
    loaded->first = message;
    loaded->len++;
}

void tri_pool_thread_fini(void)
{
    for (unsigned i = 0; i < SMALL_LEN; i++) {
        if (tri_pool_cache.loaded[i].len > 0)
            depot_put(i, &tri_pool_cache.loaded[i]);
        if (tri_pool_cache.previous[i].len > 0)
            depot_put(i, &tri_pool_cache.previous[i]);
    }
}

#endif

struct tri_message *tri_message_alloc(size_t bytes)
{
    size_t block_bytes = sizeof(struct tri_message) + bytes;
    struct tri_message *message;

    if (tri_likely(block_bytes <= SMALL_BYTES_MAX)) {
        unsigned i = class_of_lines[(block_bytes + TRI_CACHE_LINE - 1) /
                                    TRI_CACHE_LINE];

        assert(small_bytes[i] >= block_bytes);
        message = alloc_small(i);
        if (tri_unlikely(message == NULL))
            return NULL;
        memset(message, 0, sizeof(*message));
        message->size_class = (uint8_t)i;
    } else {
        uint8_t size_class;

        message = alloc_large(block_bytes);
        if (message == NULL)
            return NULL;
        size_class = message->size_class;
        memset(message, 0, sizeof(*message));
        message->size_class = size_class;
    }
    message->bytes = (uint32_t)bytes;
    return message;
}

void tri_message_free(struct tri_message *message)
{
    if (message->size_class < SMALL_LEN)
        free_small(message);
    else if (message->size_class != TRI_CLASS_EMBEDDED)
        free_large(message);
}
