/* SPDX-License-Identifier: BSD-3-Clause */

/* Who sends which blocks to whom. See net_plan.h. */

#include <stdlib.h>

#include "tensor/native/net_plan.h"
#include "tensor/tensor.h"

/* Tags: each phase has its own, so that both ends agree. */
enum {
    TAG_FOLD = 0,
    TAG_FORTH = 1,    /* + log2 of the distance, or the step of a ring */
    TAG_BACK = 1100,  /* the same */
    TAG_UNFOLD = 4000,
};

/* A member's place among those left after the fold. */
struct folded {
    uint32_t p;      /* so many are left */
    uint32_t r;      /* so many are not */
    uint32_t number; /* in p; of a member that is not left: its neighbour's */
    bool is_out;
};

static struct folded folded_of(uint32_t members, uint32_t me)
{
    struct folded folded = { .p = (uint32_t)tri_pow2_up(members) };

    if (folded.p > members)
        folded.p /= 2;
    folded.r = members - folded.p;
    folded.is_out = me < 2 * folded.r && me % 2 == 0;
    folded.number = me < 2 * folded.r ? me / 2 : me - folded.r;
    return folded;
}

static uint32_t member_of(const struct folded *folded, uint32_t number)
{
    return number < folded->r ? 2 * number + 1 : number + folded->r;
}

static void add(struct tri_net_plan *plan, const struct tri_net_step *step)
{
    assert(plan->len < plan->len_max);
    plan->steps[plan->len++] = *step;
}

static void add_range(struct tri_net_plan *plan, enum tri_net_what what,
                      uint32_t peer, unsigned tag, uint32_t first, uint32_t len)
{
    add(plan, &(struct tri_net_step){ .what = (uint8_t)what,
                                      .tag = (uint16_t)tag,
                                      .peer = peer,
                                      .first = first,
                                      .len = len });
}

static void add_all(struct tri_net_plan *plan, enum tri_net_what what,
                    uint32_t peer, unsigned tag)
{
    add_range(plan, what, peer, tag, 0, plan->blocks);
}

static void add_masked(struct tri_net_plan *plan, enum tri_net_what what,
                       uint32_t peer, unsigned tag, uint32_t mask,
                       uint32_t number)
{
    add(plan, &(struct tri_net_step){ .what = (uint8_t)what,
                                      .is_masked = true,
                                      .tag = (uint16_t)tag,
                                      .peer = peer,
                                      .first = mask,
                                      .len = number & mask });
}

static unsigned log2_of(uint32_t power)
{
    return (unsigned)__builtin_ctz(power);
}

/* --- reductions ----------------------------------------------------------- */

static void add_fold(struct tri_net_plan *plan, const struct folded *folded,
                     uint32_t me)
{
    if (me >= 2 * folded->r)
        return;
    if (folded->is_out)
        add_all(plan, TRI_NET_SEND, me + 1, TAG_FOLD);
    else
        add_all(plan, TRI_NET_ADD_LEFT, me - 1, TAG_FOLD);
}

static enum tri_net_what add_of(uint32_t number, uint32_t bit)
{
    return (number & bit) != 0 ? TRI_NET_ADD_LEFT : TRI_NET_ADD;
}

static void add_doubling(struct tri_net_plan *plan, const struct folded *folded)
{
    for (uint32_t bit = 1; bit < folded->p; bit *= 2) {
        uint32_t peer = member_of(folded, folded->number ^ bit);
        unsigned tag = TAG_FORTH + log2_of(bit);

        add_all(plan, TRI_NET_SEND, peer, tag);
        add_all(plan, add_of(folded->number, bit), peer, tag);
    }
}

/* In the end each has the blocks of its number. */
static void add_halving(struct tri_net_plan *plan, const struct folded *folded)
{
    uint32_t number = folded->number;

    for (uint32_t bit = 1; bit < folded->p; bit *= 2) {
        uint32_t peer = member_of(folded, number ^ bit);
        uint32_t mask = 2 * bit - 1;
        unsigned tag = TAG_FORTH + log2_of(bit);

        add_masked(plan, TRI_NET_SEND, peer, tag, mask, number ^ bit);
        add_masked(plan, add_of(number, bit), peer, tag, mask, number);
    }
}

static void add_halving_back(struct tri_net_plan *plan,
                             const struct folded *folded)
{
    uint32_t number = folded->number;

    for (uint32_t bit = folded->p / 2; bit > 0; bit /= 2) {
        uint32_t peer = member_of(folded, number ^ bit);
        uint32_t mask = 2 * bit - 1;
        unsigned tag = TAG_BACK + log2_of(bit);

        add_masked(plan, TRI_NET_SEND, peer, tag, mask, number);
        add_masked(plan, TRI_NET_COPY, peer, tag, mask, number ^ bit);
    }
}

/* From left to right through all. In the end each has the block behind its
 * own. */
static void add_ring(struct tri_net_plan *plan, uint32_t members, uint32_t me)
{
    for (uint32_t i = 0; i + 1 < members; i++) {
        uint32_t block = (me + members - i) % members;

        add_range(plan, TRI_NET_SEND, (me + 1) % members, TAG_FORTH + i, block,
                  1);
        add_range(plan, TRI_NET_ADD_LEFT, (me + members - 1) % members,
                  TAG_FORTH + i, (block + members - 1) % members, 1);
    }
}

/* Each has block `first` of its own. */
static void add_ring_back(struct tri_net_plan *plan, uint32_t members,
                          uint32_t left, uint32_t right, uint32_t first)
{
    for (uint32_t i = 0; i + 1 < members; i++) {
        uint32_t block = (first + members - i) % members;

        add_range(plan, TRI_NET_SEND, right, TAG_BACK + i, block, 1);
        add_range(plan, TRI_NET_COPY, left, TAG_BACK + i,
                  (block + members - 1) % members, 1);
    }
}

static void plan_allreduce(struct tri_net_plan *plan,
                           enum tri_net_algorithm algorithm, uint32_t members,
                           uint32_t me)
{
    struct folded folded = folded_of(members, me);

    if (algorithm == TRI_NET_RING) {
        plan->blocks = members;
        add_ring(plan, members, me);
        add_ring_back(plan, members, (me + members - 1) % members,
                      (me + 1) % members, (me + 1) % members);
        return;
    }
    plan->blocks = algorithm == TRI_NET_HALVING ? folded.p : 1;
    add_fold(plan, &folded, me);
    if (!folded.is_out && algorithm == TRI_NET_HALVING) {
        add_halving(plan, &folded);
        add_halving_back(plan, &folded);
    } else if (!folded.is_out) {
        add_doubling(plan, &folded);
    }
    if (folded.is_out)
        add_all(plan, TRI_NET_COPY, me + 1, TAG_UNFOLD);
    else if (me < 2 * folded.r)
        add_all(plan, TRI_NET_SEND, me - 1, TAG_UNFOLD);
}

/* Towards the root's number: who differs from it in a bit is done there. */
static void add_tree_up(struct tri_net_plan *plan, const struct folded *folded,
                        uint32_t root)
{
    for (uint32_t bit = 1; bit < folded->p; bit *= 2) {
        uint32_t peer = member_of(folded, folded->number ^ bit);
        unsigned tag = TAG_FORTH + log2_of(bit);

        if (((folded->number ^ root) & bit) != 0) {
            add_all(plan, TRI_NET_SEND, peer, tag);
            return;
        }
        add_all(plan, add_of(folded->number, bit), peer, tag);
    }
}

static void add_gather(struct tri_net_plan *plan, const struct folded *folded,
                       uint32_t root)
{
    uint32_t number = folded->number;

    for (uint32_t bit = folded->p / 2; bit > 0; bit /= 2) {
        uint32_t peer = member_of(folded, number ^ bit);
        uint32_t mask = 2 * bit - 1;
        unsigned tag = TAG_BACK + log2_of(bit);

        if (((number ^ root) & bit) != 0) {
            add_masked(plan, TRI_NET_SEND, peer, tag, mask, number);
            return;
        }
        add_masked(plan, TRI_NET_COPY, peer, tag, mask, number ^ bit);
    }
}

static void plan_reduce(struct tri_net_plan *plan,
                        enum tri_net_algorithm algorithm, uint32_t members,
                        uint32_t me, uint32_t root)
{
    struct folded folded = folded_of(members, me);
    struct folded target = folded_of(members, root);

    plan->blocks = algorithm == TRI_NET_HALVING ? folded.p : 1;
    add_fold(plan, &folded, me);
    if (!folded.is_out && algorithm == TRI_NET_HALVING) {
        add_halving(plan, &folded);
        add_gather(plan, &folded, target.number);
    } else if (!folded.is_out) {
        add_tree_up(plan, &folded, target.number);
    }
    if (target.is_out && me == root)
        add_all(plan, TRI_NET_COPY, me + 1, TAG_UNFOLD);
    else if (target.is_out && me == root + 1)
        add_all(plan, TRI_NET_SEND, root, TAG_UNFOLD);
}

static void plan_reduce_scatter(struct tri_net_plan *plan,
                                enum tri_net_algorithm algorithm,
                                uint32_t members, uint32_t me)
{
    struct folded folded = folded_of(members, me);

    plan->blocks = members;
    if (algorithm == TRI_NET_RING) {
        /* one block further, so that it ends with its own */
        for (uint32_t i = 0; i + 1 < members; i++) {
            uint32_t block = (me + 2 * members - 1 - i) % members;

            add_range(plan, TRI_NET_SEND, (me + 1) % members, TAG_FORTH + i,
                      block, 1);
            add_range(plan, TRI_NET_ADD_LEFT, (me + members - 1) % members,
                      TAG_FORTH + i, (block + members - 1) % members, 1);
        }
        return;
    }
    plan->fold = folded.r;
    add_fold(plan, &folded, me);
    if (!folded.is_out)
        add_halving(plan, &folded);
    if (folded.is_out)
        add_range(plan, TRI_NET_COPY, me + 1, TAG_UNFOLD, me, 1);
    else if (me < 2 * folded.r)
        add_range(plan, TRI_NET_SEND, me - 1, TAG_UNFOLD, me - 1, 1);
}

/* --- moving --------------------------------------------------------------- */

/* Blocks of the subtree below distance `bit`, numbered from the root. */
static uint32_t subtree_len(uint32_t members, uint32_t number, uint32_t bit)
{
    return (uint32_t)tri_min(bit, members - number);
}

/* A binomial tree from the root. scatter: each block to its member only. */
static void plan_bcast(struct tri_net_plan *plan,
                       enum tri_net_algorithm algorithm, uint32_t members,
                       uint32_t me, uint32_t root)
{
    uint32_t number = (me + members - root) % members, bit = 1;
    bool scatter = algorithm == TRI_NET_SCATTER;

    plan->blocks = scatter ? members : 1;
    while (bit < members && (number & bit) == 0)
        bit *= 2;
    if (number != 0) {
        uint32_t from = (number - bit + root) % members;

        add_range(plan, TRI_NET_COPY, from, TAG_FORTH + log2_of(bit),
                  scatter ? number : 0,
                  scatter ? subtree_len(members, number, bit) : 1);
    }
    for (bit /= 2; bit > 0; bit /= 2) {
        uint32_t to = number + bit;

        if (to >= members)
            continue;
        add_range(plan, TRI_NET_SEND, (to + root) % members,
                  TAG_FORTH + log2_of(bit), scatter ? to : 0,
                  scatter ? subtree_len(members, to, bit) : 1);
    }
    if (scatter)
        add_ring_back(plan, members, (me + members - 1) % members,
                      (me + 1) % members, number);
}

/* Blocks that each has, doubled; a barrier has none. */
static void add_bruck(struct tri_net_plan *plan, uint32_t members, uint32_t me)
{
    uint32_t have, more;

    for (have = 1; have < members; have *= 2) {
        more = (uint32_t)tri_min(have, members - have);
        if (plan->blocks == 0)
            more = 0;
        add_range(plan, TRI_NET_SEND, (me + members - have) % members,
                  TAG_FORTH + log2_of(have), me, more);
        add_range(plan, TRI_NET_COPY, (me + have) % members,
                  TAG_FORTH + log2_of(have), (me + have) % members, more);
    }
}

/* --- all ------------------------------------------------------------------ */

bool tri_net_plan_exists(uint8_t kind, enum tri_net_algorithm algorithm,
                         uint32_t members)
{
    switch (kind) {
    case TRI_COLL_BARRIER:
        return algorithm == TRI_NET_BRUCK;
    case TRI_COLL_BCAST:
        return algorithm == TRI_NET_TREE ||
               (algorithm == TRI_NET_SCATTER && members <= TRI_NET_RING_MAX);
    case TRI_COLL_ALLREDUCE:
        return algorithm == TRI_NET_DOUBLING || algorithm == TRI_NET_HALVING ||
               (algorithm == TRI_NET_RING && members <= TRI_NET_RING_MAX);
    case TRI_COLL_REDUCE:
        return algorithm == TRI_NET_DOUBLING || algorithm == TRI_NET_HALVING;
    case TRI_COLL_REDUCE_SCATTER:
        return algorithm == TRI_NET_HALVING ||
               (algorithm == TRI_NET_RING && members <= TRI_NET_RING_MAX);
    case TRI_COLL_ALLGATHER:
        return algorithm == TRI_NET_BRUCK ||
               (algorithm == TRI_NET_RING && members <= TRI_NET_RING_MAX);
    default:
        return false;
    }
}

struct tri_net_plan *tri_net_plan_create(uint8_t kind,
                                         enum tri_net_algorithm algorithm,
                                         uint32_t members, uint32_t me,
                                         uint32_t root)
{
    bool is_ring = algorithm == TRI_NET_RING || algorithm == TRI_NET_SCATTER;
    size_t len_max = 2 + 4 * 32 + (is_ring ? 4 * (size_t)members : 0);
    struct tri_net_plan *plan =
        calloc(1, sizeof(*plan) + len_max * sizeof(plan->steps[0]));

    assert(tri_net_plan_exists(kind, algorithm, members));
    if (plan == NULL)
        return NULL;
    plan->len_max = (uint32_t)len_max;
    switch (kind) {
    case TRI_COLL_BARRIER:
        add_bruck(plan, members, me);
        break;
    case TRI_COLL_BCAST:
        plan_bcast(plan, algorithm, members, me, root);
        break;
    case TRI_COLL_ALLREDUCE:
        plan_allreduce(plan, algorithm, members, me);
        break;
    case TRI_COLL_REDUCE:
        plan_reduce(plan, algorithm, members, me, root);
        break;
    case TRI_COLL_REDUCE_SCATTER:
        plan_reduce_scatter(plan, algorithm, members, me);
        break;
    default:
        plan->blocks = members;
        if (algorithm == TRI_NET_RING)
            add_ring_back(plan, members, (me + members - 1) % members,
                          (me + 1) % members, me);
        else
            add_bruck(plan, members, me);
        break;
    }
    return plan;
}
