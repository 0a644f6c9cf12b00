/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_REDUCE_H
#define TRI_REDUCE_H

/*
 * Arithmetic on arrays of each type. Sums travel and are added in the
 * accumulation type: float for the 16-bit floating point types, the type itself
 * for others. Order matters for the bits: acc is always the left operand.
 *
 * The canonical order of n contributions, which all native algorithms but the
 * ring keep, so that a change of algorithm between them does not show in the
 * bits (recursive doubling's, with the fold of MPICH for n that is no power of
 * two, p the largest power of two not above n, r = n - p): leaf i < r is
 * x[2i] + x[2i+1], leaf i >= r is x[i+r]; the p leaves are added in a balanced
 * binary tree, left + right.
 */

#include <troupe/tensor.h>

#include "base/base.h"

/* Bytes of an element of the accumulation type. */
size_t tri_reduce_bytes(enum troupe_datatype type);

bool tri_reduce_allows(enum troupe_datatype type, enum troupe_op op);

/* acc = in, in the accumulation type. */
void tri_reduce_load(enum troupe_datatype type, void *acc, const void *in,
                     size_t count);

/* acc = acc op right, both in the accumulation type; AVG adds. */
void tri_reduce_add(enum troupe_datatype type, enum troupe_op op, void *acc,
                    const void *right, size_t count);

/* acc = left op acc: for a partner that is to the left. */
void tri_reduce_add_left(enum troupe_datatype type, enum troupe_op op,
                         void *acc, const void *left, size_t count);

/* out = acc, in the user's type; AVG divides by members. out may be acc where
 * the types are the same. */
void tri_reduce_store(enum troupe_datatype type, enum troupe_op op, void *out,
                      const void *acc, size_t count, uint32_t members);

/*
 * out = all of ins, of the user's type, in the canonical order, rounded once;
 * AVG divides. out may be one of ins. For memory that all can read: one pass,
 * vectorized. n is at most TRI_REDUCE_INPUTS_MAX.
 */
#define TRI_REDUCE_INPUTS_MAX 256u
void tri_reduce_all(enum troupe_datatype type, enum troupe_op op, void *out,
                    const void *const *ins, uint32_t n, size_t count);

#endif
