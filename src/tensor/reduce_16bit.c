/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The 16-bit floating point types, to and from float, by their bits alone: no
 * result depends on whether a processor has instructions for it, and all loops
 * are straight, so that they become vectors.
 */

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#include <string.h>

#include "tensor/reduce_internal.h"

static inline float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

TRI_CLONES void tri_bf16_load(float *out, const uint16_t *in, size_t count)
{
    TRI_LOOP
    for (size_t i = 0; i < count; i++)
        out[i] = float_of((uint32_t)in[i] << 16);
}

TRI_CLONES void tri_bf16_store(uint16_t *out, const float *in, size_t count)
{
    TRI_LOOP
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = bits_of(in[i]);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        uint32_t nan = bits >> 16 | 0x40; /* quiet */

        out[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
    }
}

/*
 * A half of exponent 0 is a multiple of 2^-24: as the mantissa of a float with
 * exponent -14, less 2^-14, which is exact. Not by a multiplication of a small
 * float: threads that flush those to zero would have another result.
 */
TRI_CLONES void tri_fp16_load(float *out, const uint16_t *in, size_t count)
{
    TRI_LOOP
    for (size_t i = 0; i < count; i++) {
        uint32_t sign = (uint32_t)(in[i] & 0x8000) << 16;
        uint32_t rest = (uint32_t)(in[i] & 0x7fff) << 13;
        uint32_t normal = rest + (112u << 23);
        uint32_t special = rest + (224u << 23);
        uint32_t small = bits_of(float_of(rest + (113u << 23)) -
                                 float_of(113u << 23));
        uint32_t bits = rest < 0x0400u << 13 ? small : normal;

        bits = rest >= 0x7c00u << 13 ? special : bits;
        out[i] = float_of(sign | bits);
    }
}

/*
 * A result of exponent 0: adding 0.5, whose last place is 2^-24, rounds, and
 * leaves the mantissa at the end. 65520 and above is nearer to infinity.
 */
TRI_CLONES void tri_fp16_store(uint16_t *out, const float *in, size_t count)
{
    TRI_LOOP
    for (size_t i = 0; i < count; i++) {
        uint32_t all = bits_of(in[i]);
        uint32_t rest = all & 0x7fffffff;
        uint32_t sign = all >> 16 & 0x8000;
        uint32_t normal =
            (rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13;
        uint32_t small = bits_of(float_of(rest) + 0.5f) - (126u << 23);
        uint32_t bits = rest < 113u << 23 ? small : normal;

        bits = rest >= 0x477ff000 ? 0x7c00 : bits;
        bits = rest > 0x7f800000 ? 0x7e00 | (rest >> 13 & 0x3ff) : bits;
        out[i] = (uint16_t)(sign | bits);
    }
}
