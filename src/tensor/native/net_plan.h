/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_NET_PLAN_H
#define TRI_NET_PLAN_H

/*
 * What one member does in a collective between hosts: a list of steps, sends
 * and receptions, on a vector cut into blocks. Pure; net_coll.c does the steps,
 * on each segment of the vector again.
 *
 * The algorithms, P members, p the largest power of two not above P, r = P - p:
 *
 *   doubling     recursive doubling; allreduce, or a binomial tree for reduce
 *   halving      Rabenseifner: reduce-scatter by halving, then allgather by
 *                doubling, or a gather for reduce (Thakur, Rabenseifner and
 *                Gropp, "Optimization of Collective Communication Operations
 *                in MPICH", 2005)
 *   ring         reduce-scatter and allgather among neighbours (Patarasuk and
 *                Yuan, 2009); allgather alone
 *   tree         a binomial tree; bcast
 *   scatter      bcast by a binomial scatter and a ring's allgather
 *   bruck        allgather, and without blocks the dissemination barrier
 *
 * Where P is no power of two, doubling and halving fold: of the first 2r
 * members the odd ones take in their left neighbour. Who is left is numbered
 * anew, and in each exchange who has the lower number is the left operand: the
 * canonical order of tensor/reduce.h, whichever of the two it is. halving
 * begins with neighbours, so its blocks lie apart, each at the number that is
 * the block's. The ring adds a block's contributions from left to right, from
 * the member on that has the block's number; its bits depend on P, and on where
 * in the vector an element lies.
 */

#include "base/base.h"

enum tri_net_algorithm {
    TRI_NET_AUTO,
    TRI_NET_DOUBLING,
    TRI_NET_HALVING,
    TRI_NET_RING,
    TRI_NET_TREE,
    TRI_NET_SCATTER,
    TRI_NET_BRUCK,
    TRI_NET_ALGORITHMS,
};

enum tri_net_what {
    TRI_NET_SEND,
    TRI_NET_ADD,      /* mine = mine op theirs */
    TRI_NET_ADD_LEFT, /* mine = theirs op mine */
    TRI_NET_COPY,     /* mine = theirs */
};

struct tri_net_step {
    uint8_t what;   /* enum tri_net_what */
    bool is_masked; /* blocks with (number & first) == len; else len blocks */
    uint16_t tag;   /* the same at both ends, and once between two in a plan */
    uint32_t peer;
    uint32_t first; /* from this one on, around the end */
    uint32_t len;
};

struct tri_net_plan {
    uint32_t blocks;
    uint32_t fold; /* r, where blocks are members and fold with them */
    uint32_t len;
    uint32_t len_max;
    struct tri_net_step steps[];
};

/* Members that a ring may have: its steps have to have tags. */
#define TRI_NET_RING_MAX 1024u

/* kind: enum tri_coll_kind. NULL: no memory. The caller frees it with free. */
struct tri_net_plan *tri_net_plan_create(uint8_t kind,
                                         enum tri_net_algorithm algorithm,
                                         uint32_t members, uint32_t me,
                                         uint32_t root);

/* Whether there is such a plan. */
bool tri_net_plan_exists(uint8_t kind, enum tri_net_algorithm algorithm,
                         uint32_t members);

/* Whether a block is one of a step's. */
static inline bool tri_net_has_block(const struct tri_net_plan *plan,
                                     const struct tri_net_step *step,
                                     uint32_t block)
{
    uint32_t number, distance;

    if (step->is_masked) {
        number = block < 2 * plan->fold ? block / 2 : block - plan->fold;
        return (number & step->first) == step->len;
    }
    distance = block >= step->first ? block - step->first
                                    : block + plan->blocks - step->first;
    return distance < step->len;
}

#endif
