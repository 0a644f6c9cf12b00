/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_TENSOR_MPI_BACKEND_H
#define TRI_TENSOR_MPI_BACKEND_H

/*
 * The back end that calls MPI's own collectives, in two ways:
 *
 * direct.c: a caller that waits anyway, in a fixed group: the blocking call on
 *     the user's memory, nothing between.
 * staged.c: all else: non-blocking calls on buffers of this back end, in
 *     pieces, some under way at a time, that progress tests and copies. They
 *     can be abandoned at any moment: then requests and buffers are buried
 *     (graveyard.c), never freed and never used again, because MPI goes on
 *     writing into them.
 *
 * A team has a communicator of its own (build.c). On it all members issue the
 * same calls in the same order: collectives by their numbers, and the pieces of
 * one before those of the next.
 *
 * Calls into MPI are made on the starting thread, but for the one that makes a
 * communicator, and are seen by the watchdog (watchdog.c): one that does not
 * return after a member has died ends the process.
 */

#include <mpi.h>

#include "tensor/tensor.h"

/* --- types.c: what travels ------------------------------------------------ */

struct tri_mpi_shape {
    MPI_Datatype type;
    MPI_Op op;
    size_t bytes;      /* of an element on its way */
    size_t user_bytes;
    bool adds;         /* is a reduction */
    bool converts;     /* 16-bit floating point numbers are added as floats */
    bool divides;      /* AVG */
};

/* Errors: EMPI. */
int tri_mpi_shape_of(const struct tri_coll *coll,
                     struct tri_mpi_shape *shape_p);

/* --- piece.c: some elements of a collective ------------------------------- */

struct tri_mpi_piece {
    size_t first; /* element, in each block */
    size_t len;
    void *in;     /* what MPI reads and writes */
    void *out;
};

/* How many elements of each block fit into buffers of so many bytes. */
size_t tri_mpi_piece_max(const struct tri_coll *coll,
                         const struct tri_mpi_shape *shape,
                         size_t buffer_bytes);

/* From the user's memory into the piece's buffers, and back. */
void tri_mpi_piece_load(const struct tri_coll *coll,
                        const struct tri_mpi_shape *shape,
                        const struct tri_mpi_piece *piece);
void tri_mpi_piece_store(const struct tri_coll *coll,
                         const struct tri_mpi_shape *shape,
                         const struct tri_mpi_piece *piece);

/* Calls MPI. request_p: NULL: and waits. Returns MPI's code. */
int tri_mpi_piece_call(const struct tri_coll *coll,
                       const struct tri_mpi_shape *shape,
                       const struct tri_mpi_piece *piece, MPI_Comm comm,
                       MPI_Request *request_p);

const char *tri_mpi_call_name(uint8_t kind);

/* --- watchdog.c ----------------------------------------------------------- */

struct tri_mpi_watch {
    const struct tri_team *team;
    _Atomic uint64_t calls; /* odd: inside of one */
    const char *_Atomic call;
    struct tri_mpi_watch *next; /* the watchdog's, and what follows */
    uint64_t seen;
    uint32_t stuck;
};

/* Watches a team's calls; the first one starts the thread, the last ends it.
 * Errors: ENOMEM, ESYSTEM. */
int tri_mpi_watch_open(struct tri_mpi_watch *watch,
                       const struct tri_team *team);
void tri_mpi_watch_close(struct tri_mpi_watch *watch);

/* Around a call. One thread at a time; the watchdog only reads. */
static inline void tri_mpi_enter(struct tri_mpi_watch *watch, const char *call)
{
    atomic_store_explicit(&watch->call, call, memory_order_relaxed);
    /* Pairs with the watchdog's acquire load: it names this call. */
    atomic_store_explicit(
        &watch->calls,
        atomic_load_explicit(&watch->calls, memory_order_relaxed) + 1,
        memory_order_release);
}

static inline void tri_mpi_leave(struct tri_mpi_watch *watch)
{
    atomic_store_explicit(
        &watch->calls,
        atomic_load_explicit(&watch->calls, memory_order_relaxed) + 1,
        memory_order_release);
}

/* --- graveyard.c ---------------------------------------------------------- */

/*
 * Keeps what MPI may still use, for ever; MPI is not finalized then. memory:
 * what the request reads or writes, or NULL. The starting thread.
 */
void tri_mpi_bury_request(MPI_Request request, void *memory, void *memory2);
void tri_mpi_bury_comm(MPI_Comm comm);

/* A few abandoned requests or helpers are the limit; each costs all later
 * calls time. */
bool tri_mpi_graveyard_is_full(void);

/* --- build.c: a communicator for a team ----------------------------------- */

enum tri_mpi_build_state {
    TRI_MPI_ASKING,   /* whether all are ready */
    TRI_MPI_BUILDING, /* MPI_Comm_create_group runs */
    TRI_MPI_BUILT,    /* here; whether all have it */
    TRI_MPI_OPEN,
    TRI_MPI_REFUSED,  /* one cannot; all know it */
};

/* Runs MPI_Comm_create_group, commonly in a thread. Not freed while that may
 * run. */
struct tri_mpi_build {
    pthread_t thread;
    MPI_Comm parent;
    MPI_Group group;
    MPI_Comm comm;
    int tag;
    int rc;
    atomic_bool done; /* release: comm and rc are there */
};

struct tri_mpi_round {
    uint8_t state;      /* enum tri_mpi_build_state */
    uint32_t ready;     /* members heard of; the coordinator's */
    uint32_t built;
    uint32_t number;    /* of the build: the highest that a member proposed */
    uint32_t flags;     /* what all have */
    bool go, open;      /* the coordinator's word is there */
    bool failed;        /* somebody could not */
    uint64_t deadline_ns;
    struct tri_mpi_build *build;
};

struct tri_backend {
    const struct tri_team *team;
    MPI_Comm comm;
    struct tri_mpi_round round;
    struct tri_mpi_watch watch;
    bool blocks; /* all members have workers: a caller may sit in MPI */
    bool checks; /* calls are compared before */
    int failed;  /* 0, or what all further calls get */
    struct tri_mpi_stage *stage;
};

/* Begins; errors: those of tri_team_send. */
int tri_mpi_round_begin(struct tri_backend *backend);
/* TRI_COLL_PENDING, 0 (comm is set) or an error. */
int tri_mpi_round_progress(struct tri_backend *backend);
void tri_mpi_round_received(struct tri_backend *backend,
                            const struct tri_coll_head *head);
/* Leaves what still runs to itself. */
void tri_mpi_round_end(struct tri_backend *backend);

/* --- direct.c ------------------------------------------------------------- */

/* The whole collective, blocking. Errors: EMPI, ENOMEM, EMISMATCH. */
int tri_mpi_direct(struct tri_backend *backend, struct tri_coll *coll);

/* Elements of a call of MPI at most. Tests lower it. */
extern size_t tri_mpi_count_max;

/* --- staged.c ------------------------------------------------------------- */

/* Errors: ENOMEM. */
int tri_mpi_stage_open(struct tri_backend *backend);
void tri_mpi_stage_close(struct tri_backend *backend);

/* Puts it behind those before it. Errors: ENOMEM. */
int tri_mpi_stage_add(struct tri_backend *backend, struct tri_coll *coll);

/* Moves all on. TRI_COLL_PENDING, or the outcome of this one; its state is
 * freed then. */
int tri_mpi_stage_progress(struct tri_backend *backend, struct tri_coll *coll);
void tri_mpi_stage_cancel(struct tri_backend *backend, struct tri_coll *coll);

/* Until all pieces of those before are on their way: a blocking call follows
 * them on all members. Errors: EMPI. */
int tri_mpi_stage_issue_all(struct tri_backend *backend);

/* Compares calls: who differs first from this member's. all: of each member.
 * Errors: EMISMATCH, with coll->culprit. */
int tri_mpi_compare(struct tri_coll *coll, const uint64_t (*all)[2]);

#endif
