/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_BASE_H
#define TRI_BASE_H

/* Small things that every file may use. */

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <troupe/error.h>

#define TRI_CACHE_LINE 64

#define tri_likely(x) __builtin_expect(!!(x), 1)
#define tri_unlikely(x) __builtin_expect(!!(x), 0)
#define tri_container_of(ptr, type, member)                                   \
    ((type *)((char *)(ptr) - offsetof(type, member)))
#define tri_array_len(a) (sizeof(a) / sizeof((a)[0]))

static inline size_t tri_align_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

static inline size_t tri_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t tri_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

static inline uint64_t tri_pow2_up(uint64_t n)
{
    return n <= 1 ? 1 : 1ull << (64 - __builtin_clzll(n - 1));
}

/* ceil(log2 n); 0 for 0. */
static inline uint32_t tri_log2_up(uint32_t n)
{
    return n <= 1 ? 0 : 32u - (uint32_t)__builtin_clz(n - 1);
}

/* A pause in a polling loop: lets a sibling hyperthread run. */
static inline void tri_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Sanitizers that change what the code may do; gcc and clang say it apart. */
#if defined(__SANITIZE_THREAD__)
#define TRI_SANITIZE_THREAD 1
#endif
#if defined(__SANITIZE_ADDRESS__)
#define TRI_SANITIZE_ADDRESS 1
#endif
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TRI_SANITIZE_THREAD 1
#endif
#if __has_feature(address_sanitizer)
#define TRI_SANITIZE_ADDRESS 1
#endif
#endif

/*
 * A full fence: no load after it is done before a store before it is seen.
 * The thread sanitizer does not know fences; there an exchange stands in.
 */
static inline void tri_fence_full(void)
{
#if defined(TRI_SANITIZE_THREAD)
    static _Atomic int stand_in;
    atomic_exchange(&stand_in, 0);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* FNV-1a, 32 and 64 bits (Fowler, Noll, Vo). Start with the OFFSET. */
#define TRI_FNV32_OFFSET 2166136261u
#define TRI_FNV64_OFFSET 14695981039346656037ull

static inline uint32_t tri_fnv32(uint32_t hash, const void *data, size_t len)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * 16777619u;
    return hash;
}

static inline uint64_t tri_fnv64(uint64_t hash, const void *data, size_t len)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * 1099511628211ull;
    return hash;
}

/* Spreads a 64-bit key over all bits (SplitMix64's finalizer, Steele 2014). */
static inline uint64_t tri_mix64(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

#endif
