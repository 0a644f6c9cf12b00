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

/* Whether a member has. */
bool tri_mpi_has_died(const struct tri_team *team);

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

/* Makes it, commonly in a thread. Not freed while that may run. */
struct tri_mpi_build {
    pthread_t thread;
    bool has_thread;
    bool is_joined;
    MPI_Comm parent;
    MPI_Group group;
    MPI_Comm comm;
    int tag;
    int own_workers; /* whether this member has some */
    int workers;     /* whether all have */
    int rc;
    uint64_t deadline_ns;
    atomic_bool done; /* release: comm, workers and rc are there */
};

struct tri_backend {
    const struct tri_team *team;
    MPI_Comm comm;
    struct tri_mpi_build *build; /* NULL: not under way */
    struct tri_mpi_watch watch;
    bool blocks; /* all members have workers: a caller may sit in MPI */
    bool checks; /* calls are compared before */
    int failed;  /* 0, or what all further calls get */
    struct tri_mpi_stage *stage;
};

/* Whether it can be tried now. What speaks against it in an elastic group may
 * be known here alone. */
bool tri_mpi_build_can(const struct tri_team *team);

/* Errors: ENOMEM, ESYSTEM, EMPI. */
int tri_mpi_build_begin(struct tri_backend *backend);
/* TRI_COLL_PENDING, 0 (comm is set; so it will be on all members, unless they
 * die) or an error. */
int tri_mpi_build_progress(struct tri_backend *backend);
/* Waits a little for what is under way; else leaves it to itself. */
void tri_mpi_build_end(struct tri_backend *backend);

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
