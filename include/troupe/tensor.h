/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_TENSOR_H
#define TROUPE_TENSOR_H

/*
 * Collectives on tensors: contiguous arrays in host memory, among the active
 * members of a group's adopted view (troupe/group.h). All members call the
 * same collectives in the same order; two that differ are named in an error
 * (EMISMATCH, and the log) on every member: by this call, or by its next where
 * this one was through. Every member gets the same bits.
 *
 * What carries them is chosen by the group's option backend: MPI's own
 * collectives, or native ones, over shared memory and links, that can be ended
 * at any point. Failure: when a member dies, all others get EVIEW in bounded
 * time; inputs are untouched (but see in place), outputs undefined, and nothing
 * is written late. In a fixed group it is ENODE, for ever. What one member
 * cannot go on with (ENOMEM, EMPI, EPROTO, …) ends the calls of all, but for one
 * that sits in MPI, and the group cannot be used before its next view.
 *
 * Integers wrap with native back ends; MPI says nothing of sums beyond a type.
 * NaN: the result of an operation with one is one, but its bits are not MPI's.
 *
 * In place: in == out is allowed. Then a failed call may have left part of the
 * result there; troupe/training.h has calls that never do.
 */

#include <troupe/group.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Element types: name, bytes. Those of MPI: troupe/mpi.h translates. */
#define TROUPE_DATATYPES(X)                                                   \
    X(TROUPE_INT8, 1)                                                         \
    X(TROUPE_UINT8, 1)                                                        \
    X(TROUPE_INT16, 2)                                                        \
    X(TROUPE_UINT16, 2)                                                       \
    X(TROUPE_INT32, 4)                                                        \
    X(TROUPE_UINT32, 4)                                                       \
    X(TROUPE_INT64, 8)                                                        \
    X(TROUPE_UINT64, 8)                                                       \
    X(TROUPE_FLOAT, 4)                                                        \
    X(TROUPE_DOUBLE, 8)                                                       \
    X(TROUPE_LONG_DOUBLE, 16)                                                 \
    X(TROUPE_FLOAT_COMPLEX, 8)                                                \
    X(TROUPE_DOUBLE_COMPLEX, 16)                                              \
    X(TROUPE_BF16, 2)  /* the upper half of a float; added as floats */       \
    X(TROUPE_FP16, 2)  /* IEEE 754 binary16; added as floats */               \
    X(TROUPE_BYTE, 1)  /* moved only, never added */

enum troupe_datatype {
    TROUPE_DATATYPE_NONE,
#define X(name, bytes) name,
    TROUPE_DATATYPES(X)
#undef X
    TROUPE_DATATYPE_LAST = TROUPE_BYTE
};

enum troupe_op {
    TROUPE_SUM = 1,
    TROUPE_PROD,
    TROUPE_MIN, /* not of complex numbers; NaN wins */
    TROUPE_MAX,
    TROUPE_AVG, /* the sum divided by the number of members; of integers:
                   rounded towards zero */
    TROUPE_OP_LAST = TROUPE_AVG
};

/* Bytes of an element; 0: no such type. */
size_t troupe_datatype_bytes(enum troupe_datatype type);

/*
 * The blocking calls. count is in elements of type. timeout_ms: TROUPE_FOREVER
 * or when to give up (ETIMEDOUT: the call is over on this member, and the group
 * cannot be used before its next view). In a fixed group with MPI, all members
 * give a timeout or none of them does, and none starts it instead (below):
 * MPI's blocking calls are used without a timeout.
 * Context: the thread that adopts the group's views. Blocking: until the result
 * is there; actors are served meanwhile. Ownership: buffers are the caller's
 * and read or written only within the call.
 * Errors: EVIEW (see above), ENODE (fixed group), EMISMATCH, EPAUSED (too few
 * members, or this one is a spare), EEXCLUDED, EBUSY (another context has a
 * collective under way), EINVAL, ECONTEXT, ENOMEM, ETIMEDOUT, EMPI.
 */
int troupe_barrier(troupe_group_t *group, int timeout_ms);
/* root: a place in the view. All give count elements of data. */
int troupe_bcast(troupe_group_t *group, void *data, size_t count,
                 enum troupe_datatype type, uint32_t root, int timeout_ms);
int troupe_allreduce(troupe_group_t *group, const void *in, void *out,
                     size_t count, enum troupe_datatype type, enum troupe_op op,
                     int timeout_ms);
/* out: at the root only; else unused. */
int troupe_reduce(troupe_group_t *group, const void *in, void *out,
                  size_t count, enum troupe_datatype type, enum troupe_op op,
                  uint32_t root, int timeout_ms);
/* in: active * count elements; out: count, this member's block of the sum. */
int troupe_reduce_scatter(troupe_group_t *group, const void *in, void *out,
                          size_t count, enum troupe_datatype type,
                          enum troupe_op op, int timeout_ms);
/* in: count elements; out: active * count, by place. */
int troupe_allgather(troupe_group_t *group, const void *in, void *out,
                     size_t count, enum troupe_datatype type, int timeout_ms);

/* --- not blocking --------------------------------------------------------- */

/* A collective under way. */
typedef struct troupe_collective troupe_collective_t;

/*
 * Each starts the call of the same name, and returns at once. Buffers are the
 * library's to read and write until it is done. Several may be under way, at
 * most TROUPE_COLLECTIVES_MAX a group; they are done in any order.
 * Context: the thread that adopts, or an actor: one context at a time, a second
 * one gets EBUSY while calls of the first are under way. Blocking: never.
 * Ownership: *collective_p is the caller's until a test or wait ends it, or
 * send_when_done takes it.
 * Errors: of the call of the same name, here or as its outcome; ELIMIT (as many
 * are under way as there may be).
 */
#define TROUPE_COLLECTIVES_MAX 256
int troupe_barrier_start(troupe_from_t from, troupe_group_t *group,
                         troupe_collective_t **collective_p);
int troupe_bcast_start(troupe_from_t from, troupe_group_t *group, void *data,
                       size_t count, enum troupe_datatype type, uint32_t root,
                       troupe_collective_t **collective_p);
int troupe_allreduce_start(troupe_from_t from, troupe_group_t *group,
                           const void *in, void *out, size_t count,
                           enum troupe_datatype type, enum troupe_op op,
                           troupe_collective_t **collective_p);
int troupe_reduce_start(troupe_from_t from, troupe_group_t *group,
                        const void *in, void *out, size_t count,
                        enum troupe_datatype type, enum troupe_op op,
                        uint32_t root, troupe_collective_t **collective_p);
int troupe_reduce_scatter_start(troupe_from_t from, troupe_group_t *group,
                                const void *in, void *out, size_t count,
                                enum troupe_datatype type, enum troupe_op op,
                                troupe_collective_t **collective_p);
int troupe_allgather_start(troupe_from_t from, troupe_group_t *group,
                           const void *in, void *out, size_t count,
                           enum troupe_datatype type,
                           troupe_collective_t **collective_p);

/*
 * Moves it on. 1: done, *collective_p is freed and NULL, *rc_p its outcome; 0:
 * not yet. Context: who started it. Blocking: never.
 */
int troupe_collective_test(troupe_collective_t **collective_p, int *rc_p);

/* Waits for it, serving actors; frees it. Returns its outcome, or ETIMEDOUT
 * (it goes on, and stays the caller's). Context: the thread that started it. */
int troupe_collective_wait(troupe_collective_t **collective_p, int timeout_ms);

/*
 * Sends `message` (of a protocol's _new) to an actor when it is done, after
 * writing the outcome to *rc_p (NULL: not wanted), which must live until then.
 * Context: who started it. Blocking: never.
 * Ownership: takes collective and message; on error both stay the caller's.
 * Errors: EINVAL (also: the group is closed; test tells the outcome), EBUSY (the
 * thread that adopts is within a call that blocks in MPI: try again, or test).
 */
int troupe_collective_send_when_done(troupe_collective_t **collective_p,
                                     troupe_ref_t to, void *message,
                                     int *rc_p);

/* What carried the group's last collective: "mpi", "native", … Static. */
const char *troupe_group_backend(const troupe_group_t *group);

#ifdef __cplusplus
}
#endif

#endif
