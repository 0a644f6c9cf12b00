/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_REDUCE_INTERNAL_H
#define TRI_REDUCE_INTERNAL_H

/* What the files of the arithmetic share. */

#include "tensor/reduce.h"

/*
 * Loops over arrays that are apart or the very same: no iteration uses what
 * another has written, but a compiler cannot know it. Loops are also cloned for
 * wider vectors, chosen when the program starts; never with fused
 * multiplication and addition, which would round otherwise than on a host
 * without it.
 */
#if defined(__clang__)
#define TRI_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define TRI_LOOP _Pragma("GCC ivdep")
#endif

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&        \
    defined(__gnu_linux__) && !defined(TRI_SANITIZE_THREAD) &&                \
    !defined(TRI_SANITIZE_ADDRESS)
#define TRI_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define TRI_CLONES
#endif

/* dst = left op right, elementwise, in the accumulation type. dst may be left
 * or right. */
typedef void (*tri_reduce_fn_t)(void *dst, const void *left,
                                const void *right, size_t count);

/* NULL: not allowed. AVG: that of SUM. */
tri_reduce_fn_t tri_reduce_kernel(enum troupe_datatype type, enum troupe_op op);

/* values = values / members. out may be in. Not of 16-bit types: FLOAT's. */
void tri_reduce_divide(enum troupe_datatype type, void *out, const void *in,
                       size_t count, uint32_t members);

/* reduce_16bit.c: exact one way, to the nearest, ties to even, the other. A NaN
 * stays one. */
void tri_bf16_load(float *out, const uint16_t *in, size_t count);
void tri_bf16_store(uint16_t *out, const float *in, size_t count);
void tri_fp16_load(float *out, const uint16_t *in, size_t count);
void tri_fp16_store(uint16_t *out, const float *in, size_t count);

static inline bool tri_reduce_is_16bit_float(enum troupe_datatype type)
{
    return type == TROUPE_BF16 || type == TROUPE_FP16;
}

#endif
