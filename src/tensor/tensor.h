/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_TENSOR_H
#define TRI_TENSOR_H

/*
 * Collectives: the front (calls, numbering, checks, choice) and the table by
 * which it drives back ends.
 *
 * A team is what back ends know of an adopted view: its active members. For
 * each team there is one instance of each back end in use. A collective is a
 * state machine that `progress` moves on and that never blocks, so that all of
 * them can be abandoned at any moment: when the view is over the front cancels
 * what is under way and closes the instances; the next team has new ones.
 *
 * Who drives: under the team's lock (a try-lock in the front) the thread that
 * waits or tests, and who holds the poll role for collectives that nobody waits
 * for. Back ends that must stay on the starting thread (MPI's) say so.
 *
 * Fencing: what a back end lets others write, or MPI, is the back end's own
 * memory; user memory is written by `progress` alone, on the thread that calls
 * it. So nothing can be written late.
 */

#include <troupe/tensor.h>

#include "actor/runtime.h"
#include "group/view.h"

struct tri_team {
    struct tri_runtime *runtime;
    struct troupe_group *group;
    uint64_t group_id;
    uint64_t epoch;
    uint32_t len;
    uint32_t index;
    const struct tri_view_member *members; /* len of them, in the view's order */
    bool is_elastic;
    bool is_reproducible;
    bool checks; /* the group's option check */
};

/* The member of a peer; -1: none. */
int32_t tri_team_find(const struct tri_team *team, uint64_t node);

enum tri_coll_kind {
    TRI_COLL_BARRIER = 1,
    TRI_COLL_BCAST,
    TRI_COLL_ALLREDUCE,
    TRI_COLL_REDUCE,
    TRI_COLL_REDUCE_SCATTER,
    TRI_COLL_ALLGATHER,
    TRI_COLL_KIND_LAST = TRI_COLL_ALLGATHER,
};

/* One call. The front fills in all to the signature. */
struct tri_coll {
    const struct tri_team *team;
    uint64_t number;    /* of the team's collectives, from 1 */
    uint8_t kind;       /* enum tri_coll_kind */
    uint8_t type;       /* enum troupe_datatype */
    uint8_t op;         /* enum troupe_op; 0: none */
    uint32_t root;
    size_t count;       /* elements, as in the call */
    const void *in;     /* BCAST: NULL */
    void *out;          /* BCAST: data; REDUCE elsewhere than root: NULL */
    bool is_blocking;   /* the caller is the starting thread and waits, without
                           a deadline: start may wait itself where the back end
                           carries a fixed group. So on all members. */
    /* What must be equal on all members: kind, type, op, root and count,
     * packed; see tri_coll_describe. Of a council (choice.c): that of the call
     * it comes before, and TRI_COLL_COUNCIL. */
    uint64_t signature[2];
    void *state;        /* the back end's; NULL at first and in the end, also
                           when `progress` ends it, with whatever */
    uint32_t moves;     /* to be counted up by `progress` when it got on: then
                           who waits looks again at once, and does not nap */
    uint32_t culprit;   /* EMISMATCH: a member that differs, and what it */
    uint64_t culprit_signature[2]; /* called */
    /* EMISMATCH of an earlier call, which was done here before anybody knew:
     * its number, and a member that called otherwise than the culprit. 0: of
     * this call, and this member. */
    uint64_t earlier;
    uint32_t witness;
    uint64_t witness_signature[2];
};

/* Fills in the signature. */
void tri_coll_sign(struct tri_coll *coll);

/* In signature[1]: not the program's call, but one of the front before it. */
#define TRI_COLL_COUNCIL (UINT64_C(1) << 31)

/* "allreduce of 10 float, sum". Returns text. */
#define TRI_COLL_TEXT_BYTES 96
const char *tri_coll_describe(const uint64_t signature[2],
                              char text[TRI_COLL_TEXT_BYTES]);

enum tri_backend_id {
    TRI_BACKEND_FRONT,  /* the front itself: mismatches, choice */
    TRI_BACKEND_NATIVE, /* src/tensor/native */
    TRI_BACKEND_MPI,    /* src/tensor/mpi */
    TRI_BACKENDS,
};

/*
 * What a COLL or COLL_CONTROL record's payload begins with; little-endian, its
 * slot is TRI_SLOT_NODE.
 *      0        8        16       24      26      28       32
 *      |group   |epoch   |number  |backend|what   |tag     |
 * backend and what: whose it is and the back end's own kind of it. Records of a
 * later epoch than the team's are kept until that is adopted (bounded), of an
 * earlier one dropped.
 */
struct tri_coll_head {
    uint64_t group;
    uint64_t epoch;
    uint64_t number;  /* of the collective; 0: of the team */
    uint16_t backend; /* enum tri_backend_id */
    uint16_t what;
    uint32_t tag;
};

_Static_assert(sizeof(struct tri_coll_head) == 32, "the layout of a COLL");

/* Reads the head of a record of `bytes`; false: it makes no sense. */
bool tri_coll_head_read(const void *payload, size_t bytes,
                        struct tri_coll_head *head_p);

/* Records of the front (what). MISMATCH: two members whose calls of head.number
 * differ; tag: the back end that found it (FRONT: the front). CALL: what the
 * sender has called as head.number, and waits for; its payload is the
 * signature. FAILED: the sender cannot go on, and its team has ended; its
 * payload is the error, an int32. */
#define TRI_FRONT_MISMATCH 1
#define TRI_FRONT_CALL 2
#define TRI_FRONT_FAILED 3

struct tri_coll_mismatch {
    uint32_t members[2];
    uint64_t signatures[2][2];
};

_Static_assert(sizeof(struct tri_coll_mismatch) == 40, "its layout");

/* members_len: of the team. */
bool tri_coll_mismatch_read(const void *payload, size_t bytes,
                            uint32_t members_len,
                            struct tri_coll_mismatch *mismatch_p);

/* Whether it is an error of one member alone, of which the others know nothing:
 * none that they come to themselves, as of a death or of calls that differ, and
 * not the end of that one's patience. */
bool tri_coll_is_failure(int error);

/* The payload of a FAILED; false: it is no such error. */
bool tri_coll_failure_read(const void *payload, size_t bytes, int *error_p);

#define TRI_COLL_PENDING 1

struct tri_backend; /* each has its own, beginning as it likes */

struct tri_backend_ops {
    const char *name;
    bool starter_only; /* only the thread that started the node may call */
    bool all_find_mismatch; /* EMISMATCH comes from `progress` on all members
                               that started the call here, by itself */
    bool tells_failure; /* an instance tells the others' what it cannot go on
                           with, and they end with the same */

    /* Whether it can carry this team at all, e.g. all share memory. */
    bool (*can)(const struct tri_team *team);

    /* An instance for a team; nothing is sent yet but what opens it. Errors:
     * ENOMEM, ESYSTEM, … */
    int (*open)(const struct tri_team *team, struct tri_backend **backend_p);

    /* Until all members are ready: TRI_COLL_PENDING, 0 or an error. May be
     * interleaved with that of other back ends. */
    int (*open_progress)(struct tri_backend *backend);

    /* The team is over, or the group: cancels what is left. */
    void (*close)(struct tri_backend **backend_p);

    /* Errors: ENOMEM; nothing was sent then. */
    int (*start)(struct tri_backend *backend, struct tri_coll *coll);

    /* TRI_COLL_PENDING, 0 (out is written) or an error: EMISMATCH, EPROTO,
     * ENODE (found out before membership did: the front waits for the view). */
    int (*progress)(struct tri_backend *backend, struct tri_coll *coll);

    /* Frees its state; user memory is not touched any more. */
    void (*cancel)(struct tri_backend *backend, struct tri_coll *coll);

    /*
     * A COLL or COLL_CONTROL of a member of this team and epoch, under the
     * team's lock. payload: behind struct tri_coll_head. The message, where it
     * came whole, is the callee's to keep or free (NULL: payload dies with the
     * call). NULL: this back end sends none.
     */
    void (*received)(struct tri_backend *backend, uint32_t member,
                     const struct tri_coll_head *head, const void *payload,
                     size_t bytes, struct tri_message *message);
};

extern const struct tri_backend_ops tri_backend_native;
extern const struct tri_backend_ops tri_backend_mpi;

/* Those there are, in backends.c; NULL: none. */
extern const struct tri_backend_ops *const tri_backends[TRI_BACKENDS];

/*
 * Sends a COLL to a member: head (its group and epoch are filled in), then
 * pieces. Any thread, without the team's lock needed. lane: TRI_COLL (data,
 * any size up to message_bytes_max) or TRI_COLL_CONTROL (small: with the head
 * at most TRI_RECORD_BYTES_MAX).
 * Errors: EFULL (data: try again when polled), ENODE, ENOMEM.
 */
struct tri_piece {
    const void *data;
    size_t bytes;
};
int tri_team_send(const struct tri_team *team, uint32_t member, uint8_t kind,
                  struct tri_coll_head *head, const struct tri_piece *pieces,
                  uint32_t pieces_len);

/* --- the front ------------------------------------------------------------- */

/* Makes runtime->tensor and takes its records. Before the threads start. */
int tri_tensor_open(struct tri_runtime *runtime);
void tri_tensor_close(struct tri_runtime *runtime);

/*
 * A view was adopted: closes the team before, cancelling what is under way
 * (its outcome is EVIEW), and opens the next. Called by troupe_group_update's
 * caller in the front, lazily: by the first collective after it.
 */

#endif
