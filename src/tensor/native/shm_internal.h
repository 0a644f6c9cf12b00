/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_TENSOR_SHM_INTERNAL_H
#define TRI_TENSOR_SHM_INTERNAL_H

/*
 * The arena, and the rounds by which collectives move through it.
 *
 * A round moves one chunk of one collective through slot (round mod SHM_DEPTH)
 * of every member's area. Members pass three stages of it, each in the order
 * of the rounds:
 *
 *      in       writes its contribution to its slot, then `in` = round
 *      reduce   all `in` are there: compares signatures (first round of a
 *               collective); of a sliced one, adds its slice of all slots and
 *               writes that where its slice is in its own slot, which its own
 *               contribution does not use, then `out` = round
 *      out      what it needs is there (`in`; of a sliced one `out`): copies or
 *               adds it to user memory, then `done` = round
 *
 * Invariants:
 *  1. Only the owner writes a member's area. `in` and `out` of a slot and
 *     `done` only grow.
 *  2. A slot is written for round r only when `done` of all members is at least
 *     r - SHM_DEPTH: nobody reads round r - SHM_DEPTH in it any more.
 *  3. Hence `in` and `out` of a slot, seen by who is at round r, are at most r;
 *     more is garbage.
 *  4. Rounds are the same on all members as long as their calls are. A call
 *     that differs takes one round on all of them: each finds a signature that
 *     is not its own in the first round, and no member publishes a second
 *     round of a collective before it has compared the first.
 */

#include "tensor/native/shm.h"

#define SHM_DEPTH 16u /* rounds in flight; a power of two */
#define SHM_INLINE_BYTES 32u
#define SHM_PAGE 4096u

_Static_assert((SHM_DEPTH & (SHM_DEPTH - 1)) == 0, "slots are masked");

/* The head of a slot. A small contribution travels with its number: one cache
 * line from each member is all that an allreduce of some bytes moves. */
struct shm_head {
    _Alignas(TRI_CACHE_LINE) _Atomic uint64_t in; /* published by release */
    uint64_t signature[2];
    uint64_t reserved;
    unsigned char small[SHM_INLINE_BYTES];
    _Alignas(TRI_CACHE_LINE) _Atomic uint64_t out; /* published by release */
};

_Static_assert(sizeof(struct shm_head) == 2 * TRI_CACHE_LINE, "two lines");

/* What a member writes beside its slots' chunks. */
struct shm_area {
    _Alignas(TRI_CACHE_LINE) _Atomic uint64_t ready; /* the nonce: attached */
    _Alignas(TRI_CACHE_LINE) _Atomic uint64_t done;  /* published by release */
    struct shm_head heads[SHM_DEPTH];
};

_Static_assert(sizeof(struct shm_area) <= SHM_PAGE, "a page for each member");

/* The first page, by the first member. */
struct shm_title {
    uint64_t nonce;
    uint64_t bytes;
};

struct tri_shm_op {
    struct tri_shm_op *next;   /* in the order of starts, or free */
    struct tri_shm_call call;
    size_t element_bytes;
    size_t total;              /* elements that its rounds run over */
    size_t per_round;          /* of these */
    size_t planned;            /* of these; total: no more rounds */
    uint64_t last_round;       /* planned; 0: none yet */
    int error;                 /* known; its round may be under way */
    int outcome;               /* TRI_COLL_PENDING, 0 or an error */
    uint32_t culprit;
    uint64_t culprit_signature[2];
    bool sliced;               /* two hops: reduced by slices */
    bool streams;              /* out is written past the caches */
    bool is_small;             /* contributions are in the heads */
    bool checked;              /* the first round was compared */
};

struct shm_round {
    struct tri_shm_op *op;
    size_t begin;
    size_t count;
    bool first;
};

/* What a stage waits for. NULL: for nothing. */
struct shm_watch {
    const _Atomic uint64_t *number;
    uint64_t at_least;
};

enum shm_stage { SHM_IN, SHM_REDUCE, SHM_OUT, SHM_STAGES };

struct tri_shm {
    struct tri_shm_setup setup;
    uint32_t len;
    uint32_t index;
    size_t chunk_bytes;
    bool broken; /* nothing moves any more */
    bool garbage; /* because of what a member wrote */

    /* The arena. */
    unsigned char *base; /* NULL: not yet */
    struct shm_area *own;
    size_t bytes;
    uint64_t nonce;
    int fd;             /* the maker's until all are attached; -1 */
    bool failed;        /* somebody, perhaps this member, cannot have it */
    bool is_open;
    uint16_t telling;   /* what is being told; 0: nothing */
    uint32_t told;      /* members below have been told */
    uint32_t ready;     /* members below are attached */

    /* The rounds: how far each stage has come here. */
    uint64_t at[SHM_STAGES];
    uint64_t room;      /* what all have done at least, as last seen */
    uint32_t seen[SHM_STAGES]; /* members below have what a stage waits for */
    struct shm_watch watch[SHM_STAGES];
    struct shm_round rounds[SHM_DEPTH];

    uint32_t moves;     /* stages passed */
    bool more;          /* progress stopped before it had to */
    struct tri_shm_op *first;    /* started, not all done */
    struct tri_shm_op *last;
    struct tri_shm_op *planning; /* whose rounds come next; NULL: none */
    struct tri_shm_op *unused;
    struct tri_shm_op ops[TRI_SHM_OPS_MAX];
};

static inline struct shm_area *shm_area_of(const struct tri_shm *shm,
                                           uint32_t member)
{
    return (struct shm_area *)(void *)(shm->base +
                                       (1 + (size_t)member) * SHM_PAGE);
}

static inline struct shm_head *shm_head_of(const struct tri_shm *shm,
                                           uint32_t member, uint64_t round)
{
    return &shm_area_of(shm, member)->heads[round & (SHM_DEPTH - 1)];
}

/* A member's slot for a round. */
static inline unsigned char *shm_slot(const struct tri_shm *shm,
                                      const struct tri_shm_op *op,
                                      uint32_t member, uint64_t round)
{
    size_t slot = (size_t)member * SHM_DEPTH + (round & (SHM_DEPTH - 1));

    if (op->is_small)
        return shm_head_of(shm, member, round)->small;
    return shm->base + (1 + (size_t)shm->len) * SHM_PAGE +
           slot * shm->chunk_bytes;
}

/* --- shm_steps.c: what a kind of collective does in each stage ------------ */

/* Cuts a collective into rounds. */
void tri_shm_plan(const struct tri_shm *shm, struct tri_shm_op *op);

/* Whose `in` or `out` a stage of a round waits for. */
enum shm_need { SHM_NOBODY, SHM_ROOT, SHM_ALL };
enum shm_need tri_shm_out_needs(const struct tri_shm *shm,
                                const struct tri_shm_op *op);

/* Whether this member publishes `in` in rounds behind the first. */
bool tri_shm_contributes(const struct tri_shm *shm,
                         const struct tri_shm_op *op);

void tri_shm_step_in(const struct tri_shm *shm, const struct shm_round *round,
                     uint64_t number);
void tri_shm_step_reduce(const struct tri_shm *shm,
                         const struct shm_round *round, uint64_t number);
void tri_shm_step_out(const struct tri_shm *shm, const struct shm_round *round,
                      uint64_t number);

#endif
