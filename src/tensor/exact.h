/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_EXACT_H
#define TRI_EXACT_H

/*
 * Sums of floating point numbers that do not depend on how many contributions
 * there are, nor on their order (option `reproducible`).
 *
 * Two collectives instead of one. First the largest exponent among the
 * contributions of each element is found (MAX of int16). Then each contribution
 * is rounded to a multiple of a unit that follows from that exponent alone, and
 * the multiples are added as integers, which is exact in any order; the sum is
 * rounded to a double, then to float, and then to a type of 16 bits (an average
 * once more, when it is divided), which depends on nothing else.
 *
 * With M the largest magnitude among the n contributions of an element, the
 * unit is below M * 2^-50 for float, bf16 and fp16 (one int64 an element), and
 * below M * 2^-100 for double (two); so the error is at most n halves of that,
 * and half a unit in the last place of the result. The cost is 10 bytes an
 * element instead of 4, or 18 instead of 8, on the way, and as much memory.
 * Infinities and NaNs are as in any sum; a zero is never negative. Complex
 * numbers are pairs. Not of long double, and not of products: those are as ever
 * (the same bits on all members, in the order of the algorithm).
 */

#include "tensor/tensor.h"

struct tri_exact;

/* Members a sum may have, so that integers do not overflow. */
#define TRI_EXACT_MEMBERS_MAX 2048u

/*
 * Turns a call into its first part, if it is a sum that can be reproducible;
 * else *exact_p is NULL. The call's signature stays.
 * Errors: ENOMEM, ELIMIT (too many members).
 */
int tri_exact_begin(struct tri_exact **exact_p, struct tri_coll *coll,
                    uint32_t members, uint32_t index);

/* A part is done: TRI_COLL_PENDING (the call is the next one now), or 0: out is
 * written, and the call is what it was. */
int tri_exact_next(struct tri_exact *exact, struct tri_coll *coll);

void tri_exact_free(struct tri_exact **exact_p);

#endif
