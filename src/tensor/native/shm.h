/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_TENSOR_SHM_H
#define TRI_TENSOR_SHM_H

/*
 * Collectives among members that share a host's memory: a whole team, or the
 * part of one that lives on this host, then called the team here; members are
 * numbered 0 to len - 1 in the same order on all of them.
 *
 * They share one arena, a sealed memfd that the first member makes and that
 * goes when the last one unmaps it. Each member writes into its own area only,
 * so there is no list, lock or counter that a dying member could leave half
 * changed: whoever dies in the middle leaves the others waiting for a number
 * that never comes, which cancel and close end at any moment.
 *
 * Nothing is quarantined at close. Each team has an arena of its own; a member
 * that still runs in an older one (it was stopped, and declared dead) has that
 * one mapped, and writes where nobody looks any more. User memory is written
 * by tri_shm_progress alone, on the thread that calls it. What others write is
 * never an index or a size here: a garbage number of theirs is EPROTO, garbage
 * data gives a wrong sum, neither reaches past the arena.
 *
 * The work of a collective is cut into rounds, numbered through the life of
 * the team, equally on all members: see shm_internal.h. Collectives may be
 * under way together and are worked on in the order they were started,
 * whichever of them is asked to progress.
 *
 * All calls on a team are made with its lock held, or by one thread.
 */

#include "tensor/reduce.h"
#include "tensor/tensor.h"

/* Members of a team; what the arithmetic can take at once. */
#define TRI_SHM_MEMBERS_MAX TRI_REDUCE_INPUTS_MAX

/* Collectives started and not ended; see TROUPE_COLLECTIVES_MAX. A few more,
 * as net's phases use some on their own. */
#define TRI_SHM_OPS_MAX 320u

struct tri_shm;
struct tri_shm_op;

/* Kinds of records (of tri_coll_head's `what`) that are passed on to
 * tri_shm_received; those of net follow. */
enum tri_shm_what {
    TRI_SHM_ARENA = 1, /* the first member's: pid, descriptor, size, nonce */
    TRI_SHM_FAILED,    /* the sender cannot make or attach the arena */
    TRI_SHM_WHAT_LAST = TRI_SHM_FAILED,
};

#define TRI_SHM_RECORD_BYTES_MAX 24u

struct tri_shm_setup {
    uint32_t len;
    uint32_t index;
    /* Sends a small record to a member, in order. Errors: EFULL (it is tried
     * again by tri_shm_open_progress), ENODE, ENOMEM. */
    int (*send)(void *arg, uint32_t member, uint16_t what, const void *payload,
                size_t bytes);
    void *arg;
    size_t chunk_bytes; /* 0: as suits len. For tests; equal on all members,
                           a multiple of 64 and at least 64 * len */
};

/* Errors: ENOMEM, ELIMIT (too many members). */
int tri_shm_open(const struct tri_shm_setup *setup, struct tri_shm **shm_p);

/*
 * Until all members have the arena: TRI_COLL_PENDING, then 0; ETRANSPORT when
 * one of them cannot have it, which all members learn, unless one dies.
 */
int tri_shm_open_progress(struct tri_shm *shm);

/* A record of a member. Returns 0 or EPROTO (it is ignored). */
int tri_shm_received(struct tri_shm *shm, uint32_t member, uint16_t what,
                     const void *payload, size_t bytes);

/* Cancels what is under way, unmaps. */
void tri_shm_close(struct tri_shm **shm_p);

/* --- collectives ---------------------------------------------------------- */

/*
 * Beside those of enum tri_coll_kind, what hierarchical algorithms are made of.
 * Both cut `count` elements into one slice a member, see tri_shm_slice.
 *
 * REDUCE_SLICES: in: count elements; out: this member's slice of the sum over
 * the host, in the accumulation type, in the canonical order of these members,
 * not divided (AVG adds). in and out are apart.
 * GATHER_SLICES: in: this member's slice; out: all count elements. in may be
 * where its slice is in out.
 */
enum {
    TRI_SHM_REDUCE_SLICES = 32,
    TRI_SHM_GATHER_SLICES = 33,
};

/* The slice of a member: whole cache lines but at the end; may be empty. */
struct tri_shm_slice {
    size_t begin;
    size_t count;
};
struct tri_shm_slice tri_shm_slice(enum troupe_datatype type, size_t count,
                                   uint32_t member, uint32_t len);

/* A call, as in struct tri_coll; root is a member of this team. */
struct tri_shm_call {
    uint8_t kind;
    uint8_t type;
    uint8_t op;
    uint32_t root;
    size_t count;
    const void *in;
    void *out;
    uint64_t signature[2]; /* equal on all members, or EMISMATCH */
};

/* Queues a collective; nothing is read or written yet. Errors: ENOMEM. */
int tri_shm_start(struct tri_shm *shm, const struct tri_shm_call *call,
                  struct tri_shm_op **op_p);

/*
 * Does what can be done, at most some hundred microseconds, also for those
 * started before. TRI_COLL_PENDING, 0 (out is written), EMISMATCH (on all
 * members; the team goes on with the next collective) or EPROTO (a member
 * wrote garbage; the team is unusable). It stays the caller's to cancel, also
 * when it is done.
 */
int tri_shm_progress(struct tri_shm *shm, struct tri_shm_op *op);

/* Who differs, after EMISMATCH, and what it called. */
uint32_t tri_shm_culprit(const struct tri_shm *shm,
                         const struct tri_shm_op *op, uint64_t signature[2]);

/*
 * Ends it: user memory is not touched any more. One that was not done leaves
 * the team unusable: all others of it stay pending, here and, sooner or later,
 * on the other members.
 */
void tri_shm_cancel(struct tri_shm *shm, struct tri_shm_op **op_p);

/*
 * Whether progress would do something now: a few loads, for waiting threads.
 */
bool tri_shm_changed(const struct tri_shm *shm);

/* Grows with all that progress gets done; wraps. */
uint32_t tri_shm_moves(const struct tri_shm *shm);

#endif
