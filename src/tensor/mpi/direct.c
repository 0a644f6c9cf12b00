/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * MPI's blocking collectives, on the user's memory where its type is one of
 * MPI's: in a fixed group, for a caller that waits. Nothing here can be
 * abandoned: as with MPI itself, the death of a member is the end of the call
 * only where MPI ends it (the watchdog then ends the process).
 */
#include "tensor/mpi/backend.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/job_mpi.h"
#include "tensor/reduce.h"

#define CONVERT_BYTES (256u << 10)

size_t tri_mpi_count_max = INT_MAX;

/*
 * MPICH 4.0 reads from MPI_IN_PLACE itself when the root of an MPI_Reduce is
 * not the first rank and there are more than 2 KiB. Without memory: as MPI has
 * it, because the others are in the call already.
 */
#if defined(MPICH_VERSION)
static void *copy_of_reduced(const struct tri_coll *coll,
                             const struct tri_mpi_shape *shape,
                             const struct tri_mpi_piece *piece)
{
    size_t bytes = piece->len * shape->bytes;
    void *copy;

    if (coll->kind != TRI_COLL_REDUCE || piece->in != MPI_IN_PLACE)
        return NULL;
    copy = malloc(bytes);
    if (copy != NULL)
        memcpy(copy, piece->out, bytes);
    return copy;
}
#else
static void *copy_of_reduced(const struct tri_coll *coll,
                             const struct tri_mpi_shape *shape,
                             const struct tri_mpi_piece *piece)
{
    (void)coll;
    (void)shape;
    (void)piece;
    return NULL;
}
#endif

static int call(struct tri_backend *backend, const struct tri_coll *coll,
                const struct tri_mpi_shape *shape,
                const struct tri_mpi_piece *piece)
{
    struct tri_mpi_piece own = *piece;
    void *copy = copy_of_reduced(coll, shape, piece);
    int rc;

    if (copy != NULL)
        own.in = copy;
    tri_mpi_enter(&backend->watch, tri_mpi_call_name(coll->kind));
    rc = tri_mpi_piece_call(coll, shape, &own, backend->comm, NULL);
    tri_mpi_leave(&backend->watch);
    free(copy);
    return tri_likely(rc == MPI_SUCCESS)
               ? 0
               : tri_mpi_failed(tri_mpi_call_name(coll->kind), rc);
}

/* --- through buffers ------------------------------------------------------ */

static int convert(struct tri_backend *backend, const struct tri_coll *coll,
                   const struct tri_mpi_shape *shape)
{
    size_t bytes = tri_max(CONVERT_BYTES, backend->team->len * shape->bytes);
    size_t most = tri_mpi_piece_max(coll, shape, bytes);
    struct tri_mpi_piece piece = { .in = malloc(bytes), .out = malloc(bytes) };
    int rc = piece.in != NULL && piece.out != NULL ? 0 : TROUPE_ENOMEM;

    while (rc == 0 && piece.first < coll->count) {
        piece.len = tri_min(most, coll->count - piece.first);
        tri_mpi_piece_load(coll, shape, &piece);
        rc = call(backend, coll, shape, &piece);
        if (rc == 0)
            tri_mpi_piece_store(coll, shape, &piece);
        piece.first += piece.len;
    }
    free(piece.in);
    free(piece.out);
    return rc;
}

/* --- more elements than an int can say ------------------------------------ */

/* What has one block: some elements after the other. */
static int in_parts(struct tri_backend *backend, const struct tri_coll *coll,
                    const struct tri_mpi_shape *shape)
{
    int rc = 0;

    for (size_t at = 0; rc == 0 && at < coll->count; at += tri_mpi_count_max) {
        const char *in = coll->in;
        char *out = coll->out;
        struct tri_mpi_piece piece = {
            .len = tri_min(tri_mpi_count_max, coll->count - at),
            .in = in != NULL ? (void *)(uintptr_t)(in + at * shape->bytes)
                             : NULL,
            .out = out != NULL ? out + at * shape->bytes : NULL,
        };

        if (piece.in == piece.out && coll->kind != TRI_COLL_BCAST)
            piece.in = MPI_IN_PLACE;
        rc = call(backend, coll, shape, &piece);
    }
    return rc;
}

/* One block after the other, each in a call with its owner for root. */
static int by_roots(struct tri_backend *backend, const struct tri_coll *coll,
                    const struct tri_mpi_shape *shape)
{
    const struct tri_team *team = backend->team;
    size_t block = coll->count * shape->bytes;
    struct tri_coll part = *coll;
    int rc = 0;

    if (coll->kind == TRI_COLL_ALLGATHER)
        memmove((char *)coll->out + team->index * block, coll->in, block);
    for (uint32_t i = 0; rc == 0 && i < team->len; i++) {
        part.root = i;
        if (coll->kind == TRI_COLL_ALLGATHER) {
            part.kind = TRI_COLL_BCAST;
            part.in = NULL;
            part.out = (char *)coll->out + i * block;
        } else {
            part.kind = TRI_COLL_REDUCE;
            part.in = (const char *)coll->in + i * block;
            part.out = i == team->index ? coll->out : NULL;
        }
        rc = in_parts(backend, &part, shape);
    }
    return rc;
}

/* --- the user's memory ---------------------------------------------------- */

/* In place: as MPI wants it said. */
static void place(const struct tri_coll *coll,
                  const struct tri_mpi_shape *shape,
                  struct tri_mpi_piece *piece)
{
    const struct tri_team *team = coll->team;
    size_t block = coll->count * shape->bytes;

    switch (coll->kind) {
    case TRI_COLL_ALLREDUCE:
    case TRI_COLL_REDUCE_SCATTER:
        if (piece->in == piece->out)
            piece->in = MPI_IN_PLACE;
        break;
    case TRI_COLL_REDUCE:
        if (piece->in == piece->out && coll->root == team->index)
            piece->in = MPI_IN_PLACE;
        break;
    case TRI_COLL_ALLGATHER:
        if (piece->in == piece->out && team->index > 0)
            memmove((char *)piece->out + team->index * block, piece->in, block);
        if (piece->in == piece->out ||
            piece->in == (char *)piece->out + team->index * block)
            piece->in = MPI_IN_PLACE;
        break;
    default:
        break;
    }
}

static int on_users_memory(struct tri_backend *backend,
                           const struct tri_coll *coll,
                           const struct tri_mpi_shape *shape)
{
    struct tri_mpi_piece piece = {
        .len = coll->count,
        .in = (void *)(uintptr_t)coll->in,
        .out = coll->out,
    };
    bool has_blocks = coll->kind == TRI_COLL_ALLGATHER ||
                      coll->kind == TRI_COLL_REDUCE_SCATTER;
    bool is_large = coll->count > tri_mpi_count_max;
    /* A sum in place would overwrite blocks that are still to be added. */
    bool is_safe = !(coll->kind == TRI_COLL_REDUCE_SCATTER &&
                     coll->in == coll->out);
    int rc;

    if (tri_unlikely(is_large) && has_blocks && !is_safe)
        return convert(backend, coll, shape);
    if (tri_unlikely(is_large))
        rc = has_blocks ? by_roots(backend, coll, shape)
                        : in_parts(backend, coll, shape);
    else {
        place(coll, shape, &piece);
        rc = call(backend, coll, shape, &piece);
    }
    if (rc == 0 && shape->divides &&
        (coll->kind != TRI_COLL_REDUCE || coll->root == backend->team->index))
        tri_reduce_store((enum troupe_datatype)coll->type, TROUPE_AVG,
                         coll->out, coll->out, coll->count, backend->team->len);
    return rc;
}

/* --- direct --------------------------------------------------------------- */

static int check(struct tri_backend *backend, struct tri_coll *coll)
{
    uint64_t(*all)[2] = malloc(backend->team->len * sizeof(*all));
    int rc;

    if (all == NULL)
        return TROUPE_ENOMEM;
    tri_mpi_enter(&backend->watch, "MPI_Allgather");
    rc = MPI_Allgather(coll->signature, 2, MPI_UINT64_T, all, 2, MPI_UINT64_T,
                       backend->comm);
    tri_mpi_leave(&backend->watch);
    rc = rc == MPI_SUCCESS
             ? tri_mpi_compare(coll, (const uint64_t(*)[2])all)
             : tri_mpi_failed("MPI_Allgather", rc);
    free(all);
    return rc;
}

int tri_mpi_direct(struct tri_backend *backend, struct tri_coll *coll)
{
    struct tri_mpi_shape shape;
    int rc = tri_mpi_shape_of(coll, &shape);

    if (tri_unlikely(backend->checks) && rc == 0)
        rc = check(backend, coll);
    if (tri_unlikely(rc != 0))
        return rc;
    if (tri_unlikely(shape.converts))
        return convert(backend, coll, &shape);
    return on_users_memory(backend, coll, &shape);
}
