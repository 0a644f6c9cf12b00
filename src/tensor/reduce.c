/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Arithmetic on arrays: types and accumulation types, and many arrays at once
 * in the canonical order.
 */

#include <string.h>

#include "tensor/reduce.h"
#include "tensor/reduce_internal.h"

size_t troupe_datatype_bytes(enum troupe_datatype type)
{
    static const uint8_t bytes[] = {
#define X(name, bytes) [name] = bytes,
        TROUPE_DATATYPES(X)
#undef X
    };

    return (unsigned)type < tri_array_len(bytes) ? bytes[type] : 0;
}

size_t tri_reduce_bytes(enum troupe_datatype type)
{
    return tri_reduce_is_16bit_float(type) ? sizeof(float)
                                           : troupe_datatype_bytes(type);
}

bool tri_reduce_allows(enum troupe_datatype type, enum troupe_op op)
{
    return tri_reduce_kernel(type, op) != NULL;
}

void tri_reduce_load(enum troupe_datatype type, void *acc, const void *in,
                     size_t count)
{
    if (type == TROUPE_BF16)
        tri_bf16_load(acc, in, count);
    else if (type == TROUPE_FP16)
        tri_fp16_load(acc, in, count);
    else if (acc != in && count > 0)
        memcpy(acc, in, count * troupe_datatype_bytes(type));
}

void tri_reduce_add(enum troupe_datatype type, enum troupe_op op, void *acc,
                    const void *right, size_t count)
{
    tri_reduce_kernel(type, op)(acc, acc, right, count);
}

void tri_reduce_add_left(enum troupe_datatype type, enum troupe_op op,
                         void *acc, const void *left, size_t count)
{
    tri_reduce_kernel(type, op)(acc, left, acc, count);
}

/* Floats in pieces: acc is not to be changed, and the quotient is only rounded
 * to 16 bits after that to float. */
static void store_16bit(enum troupe_datatype type, bool divide, uint16_t *out,
                        const float *acc, size_t count, uint32_t members)
{
    float quotients[256];

    for (size_t at = 0, len; at < count; at += len) {
        const float *from = acc + at;

        len = tri_min(count - at, tri_array_len(quotients));
        if (divide) {
            tri_reduce_divide(TROUPE_FLOAT, quotients, from, len, members);
            from = quotients;
        }
        if (type == TROUPE_BF16)
            tri_bf16_store(out + at, from, len);
        else
            tri_fp16_store(out + at, from, len);
    }
}

void tri_reduce_store(enum troupe_datatype type, enum troupe_op op, void *out,
                      const void *acc, size_t count, uint32_t members)
{
    if (tri_reduce_is_16bit_float(type))
        store_16bit(type, op == TROUPE_AVG, out, acc, count, members);
    else if (op == TROUPE_AVG)
        tri_reduce_divide(type, out, acc, count, members);
    else if (out != acc && count > 0)
        memcpy(out, acc, count * troupe_datatype_bytes(type));
}

/* --- many arrays at once -------------------------------------------------- */

/*
 * A piece of all arrays at a time, so that what is between stays in the nearest
 * cache. The tree is built like a binary counter: a partial sum of 2^k leaves
 * waits at level k for its right sibling. A leaf that closes k trees in a row
 * rests at level k, whose buffer is free, so all its sums are made there.
 */
#define PIECE_BYTES 1024
#define LEVELS 9 /* of 256 leaves, and the whole */

_Static_assert(TRI_REDUCE_INPUTS_MAX <= 1u << (LEVELS - 1), "levels");

struct many {
    enum troupe_datatype type;
    tri_reduce_fn_t kernel;
    const char *const *ins;
    size_t offset; /* bytes, in user's types */
    size_t count;  /* elements of this piece */
    uint32_t power; /* p and r of the canonical order */
    uint32_t folded;
    _Alignas(TRI_CACHE_LINE) char levels[LEVELS][PIECE_BYTES];
    _Alignas(TRI_CACHE_LINE) char scratch[PIECE_BYTES];
};

/* An input in the accumulation type: in place, or loaded to `to`. */
static const void *input(const struct many *many, uint32_t i, void *to)
{
    const char *in = many->ins[i] + many->offset;

    if (!tri_reduce_is_16bit_float(many->type))
        return in;
    tri_reduce_load(many->type, to, in, many->count);
    return to;
}

static const void *leaf(struct many *many, uint32_t i, void *to)
{
    const void *left;

    if (i >= many->folded)
        return input(many, i + many->folded, to);
    left = input(many, 2 * i, to);
    many->kernel(to, left, input(many, 2 * i + 1, many->scratch), many->count);
    return to;
}

/* The tree over one piece. `last`: where the whole goes. */
static void add_piece(struct many *many, void *last)
{
    const void *waiting[LEVELS];

    for (uint32_t i = 0; i < many->power; i++) {
        uint32_t level = (uint32_t)__builtin_ctz(~i);
        void *to = i + 1 == many->power ? last : many->levels[level];
        const void *sum = leaf(many, i, to);

        for (uint32_t k = 0; k < level; k++) {
            many->kernel(to, waiting[k], sum, many->count);
            sum = to;
        }
        waiting[level] = sum;
    }
}

void tri_reduce_all(enum troupe_datatype type, enum troupe_op op, void *out,
                    const void *const *ins, uint32_t n, size_t count)
{
    size_t bytes = troupe_datatype_bytes(type);
    size_t piece = PIECE_BYTES / tri_reduce_bytes(type);
    bool in_place = !tri_reduce_is_16bit_float(type);
    struct many many;

    assert(n > 0 && n <= TRI_REDUCE_INPUTS_MAX);
    if (n == 1) { /* divided by one, too */
        if (out != ins[0] && count > 0)
            memmove(out, ins[0], count * bytes);
        return;
    }
    many.type = type;
    many.kernel = tri_reduce_kernel(type, op);
    many.ins = (const char *const *)ins;
    many.power = 1u << (31 - __builtin_clz(n));
    many.folded = n - many.power;
    for (size_t at = 0; at < count; at += many.count) {
        char *to = (char *)out + at * bytes;
        void *last = in_place ? (void *)to : many.levels[LEVELS - 1];

        many.offset = at * bytes;
        many.count = tri_min(piece, count - at);
        add_piece(&many, last);
        if (!in_place || op == TROUPE_AVG)
            tri_reduce_store(type, op, to, last, many.count, n);
    }
}
