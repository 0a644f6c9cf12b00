/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What each kind of collective writes to its slots and reads from them. Sizes
 * and places come from the call alone, never from shared memory.
 */

#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "tensor/native/shm_internal.h"

/* Up to so many bytes from all members together each reads everything: one hop.
 * Above, the second hop costs less than reading len times as much. */
#define ONE_HOP_BYTES_MAX 16384u

/* A larger call is cut into some chunks even where it would fit into one, so
 * that the stages of the members overlap. */
#define CHUNK_BYTES_MIN 16384u
#define CHUNKS_WANTED 4u

/* A result so large is written past the caches: measured, 10 to 25 % less time
 * at 16 and 64 MiB, more time at 4 MiB, which the last cache holds. In place
 * its lines were just read. */
#define STREAM_BYTES_MIN ((size_t)8 << 20)

/* Elements in a cache line. */
static size_t line_elements(size_t element_bytes)
{
    return TRI_CACHE_LINE / element_bytes;
}

static struct tri_shm_slice slice(size_t element_bytes, size_t count,
                                  uint32_t member, uint32_t len)
{
    size_t each = tri_align_up((count + len - 1) / len,
                               line_elements(element_bytes));
    size_t begin = tri_min(count, each * member);

    return (struct tri_shm_slice){
        .begin = begin, .count = tri_min(count - begin, each)
    };
}

struct tri_shm_slice tri_shm_slice(enum troupe_datatype type, size_t count,
                                   uint32_t member, uint32_t len)
{
    return slice(troupe_datatype_bytes(type), count, member, len);
}

/* --- the plan ------------------------------------------------------------- */

static void plan_rounds(struct tri_shm_op *op, size_t total, size_t per_max)
{
    size_t line = line_elements(op->element_bytes);
    size_t least = tri_max(CHUNK_BYTES_MIN / op->element_bytes, line);
    size_t rounds, per = tri_max(total / CHUNKS_WANTED, least);

    per = tri_min(per, per_max);
    rounds = (total + per - 1) / per;
    op->total = total;
    /* all about equally large; the last one is not larger */
    op->per_round =
        rounds <= 1 ? per : tri_align_up((total + rounds - 1) / rounds, line);
}

static bool reduces_to_all(const struct tri_shm_op *op)
{
    return op->call.kind == TRI_COLL_ALLREDUCE;
}

void tri_shm_plan(const struct tri_shm *shm, struct tri_shm_op *op)
{
    const struct tri_shm_call *call = &op->call;
    size_t line = line_elements(op->element_bytes);
    size_t chunk = shm->chunk_bytes / op->element_bytes;
    size_t bytes = call->count * op->element_bytes;
    size_t slot_bytes = bytes; /* of the only round, if it is one */
    size_t largest = slice(op->element_bytes, call->count, 0, shm->len).count;

    switch (call->kind) {
    case TRI_COLL_BARRIER:
        op->total = 0;
        op->per_round = 1;
        break;
    case TRI_COLL_ALLREDUCE:
    case TRI_COLL_REDUCE:
        op->sliced = bytes * shm->len > ONE_HOP_BYTES_MAX ||
                     bytes > shm->chunk_bytes;
        plan_rounds(op, call->count, chunk);
        break;
    case TRI_COLL_REDUCE_SCATTER:
        chunk = chunk / shm->len / line * line;
        plan_rounds(op, call->count, chunk);
        slot_bytes *= shm->len;
        break;
    case TRI_SHM_REDUCE_SLICES:
        chunk = chunk / shm->len / line * line;
        plan_rounds(op, largest, chunk);
        slot_bytes = op->total * op->element_bytes * shm->len;
        break;
    case TRI_SHM_GATHER_SLICES:
        plan_rounds(op, largest, chunk);
        slot_bytes = op->total * op->element_bytes;
        break;
    default:
        plan_rounds(op, call->count, chunk);
        break;
    }
    op->streams = bytes >= STREAM_BYTES_MIN && call->in != call->out;
    op->is_small = op->total <= op->per_round &&
                   slot_bytes <= SHM_INLINE_BYTES;
}

enum shm_need tri_shm_out_needs(const struct tri_shm *shm,
                                const struct tri_shm_op *op)
{
    bool is_root = op->call.root == shm->index;

    switch (op->call.kind) {
    case TRI_COLL_BARRIER:
        return SHM_NOBODY; /* its only round was compared */
    case TRI_COLL_BCAST:
        return is_root ? SHM_NOBODY : SHM_ROOT;
    case TRI_COLL_REDUCE:
        return is_root ? SHM_ALL : SHM_NOBODY;
    default:
        return SHM_ALL;
    }
}

bool tri_shm_contributes(const struct tri_shm *shm, const struct tri_shm_op *op)
{
    return op->call.kind != TRI_COLL_BCAST || op->call.root == shm->index;
}

/* --- blocks of a buffer, one a member ------------------------------------- */

/* Where the block of a member lies in the whole buffer. */
static struct tri_shm_slice block(const struct tri_shm *shm,
                                  const struct tri_shm_op *op, uint32_t member)
{
    size_t count = op->call.count;

    if (op->call.kind == TRI_SHM_REDUCE_SLICES ||
        op->call.kind == TRI_SHM_GATHER_SLICES)
        return slice(op->element_bytes, count, member, shm->len);
    return (struct tri_shm_slice){ .begin = member * count, .count = count };
}

/* The part of it that this round moves; begin is in the whole buffer. */
static struct tri_shm_slice part(const struct tri_shm *shm,
                                 const struct shm_round *round, uint32_t member)
{
    struct tri_shm_slice part = block(shm, round->op, member);
    size_t skip = tri_min(part.count, round->begin);

    part.begin += skip;
    part.count = tri_min(part.count - skip, round->count);
    return part;
}

static const unsigned char *in_at(const struct tri_shm_op *op, size_t element)
{
    return (const unsigned char *)op->call.in + element * op->element_bytes;
}

static unsigned char *out_at(const struct tri_shm_op *op, size_t element)
{
    return (unsigned char *)op->call.out + element * op->element_bytes;
}

static void copy(void *to, const void *from, size_t bytes)
{
    if (bytes > 0 && to != from)
        memcpy(to, from, bytes);
}

/*
 * Copies past the caches what is too large to be found there again: a line that
 * is written whole need not be fetched first, a third of such a copy's traffic.
 */
static void stream(void *to, const void *from, size_t bytes)
{
#if defined(__SSE2__)
    size_t head = -(uintptr_t)to & (TRI_CACHE_LINE - 1);
    char *t = to;
    const char *f = from;

    if (bytes < 4 * TRI_CACHE_LINE) {
        copy(to, from, bytes);
        return;
    }
    assert(to != from);
    memcpy(t, f, head);
    t += head;
    f += head;
    for (bytes -= head; bytes >= TRI_CACHE_LINE; bytes -= TRI_CACHE_LINE) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)f);
        __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(f + 16));
        __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(f + 32));
        __m128i d = _mm_loadu_si128((const __m128i *)(const void *)(f + 48));

        _mm_stream_si128((__m128i *)(void *)t, a);
        _mm_stream_si128((__m128i *)(void *)(t + 16), b);
        _mm_stream_si128((__m128i *)(void *)(t + 32), c);
        _mm_stream_si128((__m128i *)(void *)(t + 48), d);
        t += TRI_CACHE_LINE;
        f += TRI_CACHE_LINE;
    }
    memcpy(t, f, bytes);
    _mm_sfence(); /* before who waits for the result is told of it */
#else
    copy(to, from, bytes);
#endif
}

/* --- in ------------------------------------------------------------------- */

/* A contribution without the own slice, which is read where it is. */
static void in_sliced(const struct tri_shm *shm, const struct shm_round *round,
                      unsigned char *slot)
{
    const struct tri_shm_op *op = round->op;
    struct tri_shm_slice own =
        slice(op->element_bytes, round->count, shm->index, shm->len);
    size_t end = own.begin + own.count;

    copy(slot, in_at(op, round->begin), own.begin * op->element_bytes);
    copy(slot + end * op->element_bytes, in_at(op, round->begin + end),
         (round->count - end) * op->element_bytes);
}

/* The blocks of the others, one after the other. */
static void in_scattered(const struct tri_shm *shm,
                         const struct shm_round *round, unsigned char *slot)
{
    const struct tri_shm_op *op = round->op;
    size_t stride = round->count * op->element_bytes;

    for (uint32_t i = 0; i < shm->len; i++) {
        struct tri_shm_slice from = part(shm, round, i);

        if (i != shm->index)
            copy(slot + i * stride, in_at(op, from.begin),
                 from.count * op->element_bytes);
    }
}

void tri_shm_step_in(const struct tri_shm *shm, const struct shm_round *round,
                     uint64_t number)
{
    const struct tri_shm_op *op = round->op;
    unsigned char *slot = shm_slot(shm, op, shm->index, number);
    size_t bytes = round->count * op->element_bytes;

    switch (op->call.kind) {
    case TRI_COLL_BARRIER:
        break;
    case TRI_COLL_BCAST:
        if (op->call.root == shm->index)
            copy(slot, out_at(op, round->begin), bytes);
        break;
    case TRI_COLL_ALLREDUCE:
    case TRI_COLL_REDUCE:
        if (op->sliced)
            in_sliced(shm, round, slot);
        else if (reduces_to_all(op) || op->call.root != shm->index)
            copy(slot, in_at(op, round->begin), bytes);
        break;
    case TRI_COLL_ALLGATHER:
    case TRI_SHM_GATHER_SLICES:
        copy(slot, in_at(op, round->begin),
             part(shm, round, shm->index).count * op->element_bytes);
        break;
    default:
        in_scattered(shm, round, slot);
        break;
    }
}

/* --- reduce --------------------------------------------------------------- */

/* Contributions of all: from their slots, this member's from where it is. */
static void gather_ins(const struct tri_shm *shm, const struct tri_shm_op *op,
                       uint64_t number, size_t slot_offset, const void *own,
                       const void **ins)
{
    for (uint32_t i = 0; i < shm->len; i++)
        ins[i] = i == shm->index
                     ? own
                     : shm_slot(shm, op, i, number) + slot_offset;
}

void tri_shm_step_reduce(const struct tri_shm *shm,
                         const struct shm_round *round, uint64_t number)
{
    const struct tri_shm_op *op = round->op;
    struct tri_shm_slice own =
        slice(op->element_bytes, round->count, shm->index, shm->len);
    size_t offset = own.begin * op->element_bytes;
    const void *ins[TRI_SHM_MEMBERS_MAX];

    if (own.count == 0)
        return;
    gather_ins(shm, op, number, offset, in_at(op, round->begin + own.begin),
               ins);
    tri_reduce_all((enum troupe_datatype)op->call.type,
                   (enum troupe_op)op->call.op,
                   shm_slot(shm, op, shm->index, number) + offset, ins,
                   shm->len, own.count);
}

/* --- sums that are not rounded yet ---------------------------------------- */

/* Elements at a time; a level of the tree each, in the accumulation type. */
#define PARTIAL_ELEMENTS 256u
#define PARTIAL_LEVELS 9u

struct partial {
    enum troupe_datatype type;
    enum troupe_op op;
    const void *const *ins;
    size_t offset; /* bytes into each */
    size_t count;
    _Alignas(TRI_CACHE_LINE) float levels[PARTIAL_LEVELS + 1][PARTIAL_ELEMENTS];
};

static const void *partial_in(const struct partial *partial, uint32_t i)
{
    return (const unsigned char *)partial->ins[i] + partial->offset;
}

static void partial_leaf(struct partial *partial, float *to, uint32_t leaf,
                         uint32_t folded)
{
    uint32_t first = leaf < folded ? 2 * leaf : leaf + folded;
    float *right = partial->levels[PARTIAL_LEVELS];

    tri_reduce_load(partial->type, to, partial_in(partial, first),
                    partial->count);
    if (leaf >= folded)
        return;
    tri_reduce_load(partial->type, right, partial_in(partial, first + 1),
                    partial->count);
    tri_reduce_add(partial->type, partial->op, to, right, partial->count);
}

/* The canonical order of reduce.h, by a binary counter of subtrees. */
static void partial_tree(struct partial *partial, uint32_t n)
{
    uint32_t leaves = (uint32_t)tri_pow2_up(n);
    uint32_t level = 0;

    if (leaves > n)
        leaves /= 2;
    for (uint32_t leaf = 0; leaf < leaves; leaf++) {
        partial_leaf(partial, partial->levels[level++], leaf, n - leaves);
        for (uint32_t done = leaf + 1; done % 2 == 0; done /= 2, level--)
            tri_reduce_add(partial->type, partial->op,
                           partial->levels[level - 2],
                           partial->levels[level - 1], partial->count);
    }
    assert(level == 1);
}

/* out in the accumulation type, which is float here. */
static void reduce_16bit(const struct tri_shm_op *op, void *out,
                         const void *const *ins, uint32_t n, size_t count)
{
    struct partial partial = { .type = (enum troupe_datatype)op->call.type,
                               .op = (enum troupe_op)op->call.op,
                               .ins = ins };

    for (size_t i = 0; i < count; i += partial.count) {
        partial.count = tri_min(count - i, PARTIAL_ELEMENTS);
        partial.offset = i * op->element_bytes;
        partial_tree(&partial, n);
        memcpy((float *)out + i, partial.levels[0],
               partial.count * sizeof(float));
    }
}

static void reduce_partial(const struct tri_shm_op *op, size_t at,
                           const void *const *ins, uint32_t n, size_t count)
{
    enum troupe_datatype type = (enum troupe_datatype)op->call.type;
    size_t bytes = tri_reduce_bytes(type);
    unsigned char *out = (unsigned char *)op->call.out + at * bytes;

    if (bytes != op->element_bytes)
        reduce_16bit(op, out, ins, n, count);
    else
        tri_reduce_all(type,
                       op->call.op == TROUPE_AVG
                           ? TROUPE_SUM
                           : (enum troupe_op)op->call.op,
                       out, ins, n, count);
}

/* --- out ------------------------------------------------------------------ */

static void copy_out(const struct tri_shm_op *op, size_t at, const void *from,
                     size_t count)
{
    (op->streams ? stream : copy)(out_at(op, at), from,
                                  count * op->element_bytes);
}

static void out_sliced(const struct tri_shm *shm, const struct shm_round *round,
                       uint64_t number)
{
    const struct tri_shm_op *op = round->op;

    for (uint32_t i = 0; i < shm->len; i++) {
        struct tri_shm_slice from =
            slice(op->element_bytes, round->count, i, shm->len);

        copy_out(op, round->begin + from.begin,
                 shm_slot(shm, op, i, number) + from.begin * op->element_bytes,
                 from.count);
    }
}

static void out_reduced(const struct tri_shm *shm,
                        const struct shm_round *round, uint64_t number)
{
    const struct tri_shm_op *op = round->op;
    const void *ins[TRI_SHM_MEMBERS_MAX];

    if (round->count == 0)
        return;
    gather_ins(shm, op, number, 0, in_at(op, round->begin), ins);
    tri_reduce_all((enum troupe_datatype)op->call.type,
                   (enum troupe_op)op->call.op, out_at(op, round->begin), ins,
                   shm->len, round->count);
}

static void out_scattered(const struct tri_shm *shm,
                          const struct shm_round *round, uint64_t number)
{
    const struct tri_shm_op *op = round->op;
    struct tri_shm_slice own = part(shm, round, shm->index);
    size_t offset = shm->index * round->count * op->element_bytes;
    const void *ins[TRI_SHM_MEMBERS_MAX];

    if (own.count == 0)
        return;
    gather_ins(shm, op, number, offset, in_at(op, own.begin), ins);
    if (op->call.kind == TRI_SHM_REDUCE_SLICES)
        reduce_partial(op, round->begin, ins, shm->len, own.count);
    else
        tri_reduce_all((enum troupe_datatype)op->call.type,
                       (enum troupe_op)op->call.op, out_at(op, round->begin),
                       ins, shm->len, own.count);
}

/* The own block comes from the slot, too: `in` may be where another's goes. */
static void out_gathered(const struct tri_shm *shm,
                         const struct shm_round *round, uint64_t number)
{
    const struct tri_shm_op *op = round->op;

    for (uint32_t i = 0; i < shm->len; i++) {
        struct tri_shm_slice to = part(shm, round, i);

        if (i == shm->index &&
            op->call.in == out_at(op, to.begin - round->begin))
            continue; /* it is there already */
        copy_out(op, to.begin, shm_slot(shm, op, i, number), to.count);
    }
}

void tri_shm_step_out(const struct tri_shm *shm, const struct shm_round *round,
                      uint64_t number)
{
    const struct tri_shm_op *op = round->op;

    switch (op->call.kind) {
    case TRI_COLL_BARRIER:
        break;
    case TRI_COLL_BCAST:
        if (op->call.root != shm->index)
            copy_out(op, round->begin,
                     shm_slot(shm, op, op->call.root, number), round->count);
        break;
    case TRI_COLL_ALLREDUCE:
    case TRI_COLL_REDUCE:
        if (!reduces_to_all(op) && op->call.root != shm->index)
            break;
        if (op->sliced)
            out_sliced(shm, round, number);
        else
            out_reduced(shm, round, number);
        break;
    case TRI_COLL_ALLGATHER:
    case TRI_SHM_GATHER_SLICES:
        out_gathered(shm, round, number);
        break;
    default:
        out_scattered(shm, round, number);
        break;
    }
}
