/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A piece of a collective: elements first to first + len of each block, where
 * a reduce_scatter's input and an allgather's output have a block for each
 * member, and all else is one.
 */
#include "tensor/mpi/backend.h"

#include <string.h>

#include "tensor/reduce.h"

static size_t blocks_in(const struct tri_coll *coll)
{
    return coll->kind == TRI_COLL_REDUCE_SCATTER ? coll->team->len : 1;
}

static size_t blocks_out(const struct tri_coll *coll)
{
    return coll->kind == TRI_COLL_ALLGATHER ? coll->team->len : 1;
}

size_t tri_mpi_piece_max(const struct tri_coll *coll,
                         const struct tri_mpi_shape *shape,
                         size_t buffer_bytes)
{
    size_t blocks = tri_max(blocks_in(coll), blocks_out(coll));

    assert(buffer_bytes >= blocks * shape->bytes);
    return shape->bytes == 0 ? 1 : buffer_bytes / (blocks * shape->bytes);
}

/* --- to and from ---------------------------------------------------------- */

/* As in tri_coll: BCAST has its data in out. */
void tri_mpi_piece_load(const struct tri_coll *coll,
                        const struct tri_mpi_shape *shape,
                        const struct tri_mpi_piece *piece)
{
    const char *from = coll->kind == TRI_COLL_BCAST ? coll->out : coll->in;
    char *to = coll->kind == TRI_COLL_BCAST ? piece->out : piece->in;

    if (piece->len == 0 || coll->kind == TRI_COLL_BARRIER ||
        (coll->kind == TRI_COLL_BCAST && coll->root != coll->team->index))
        return;
    for (size_t i = 0; i < blocks_in(coll); i++) {
        const char *at = from + (i * coll->count + piece->first) *
                                    shape->user_bytes;
        char *into = to + i * piece->len * shape->bytes;

        if (shape->converts)
            tri_reduce_load((enum troupe_datatype)coll->type, into, at,
                            piece->len);
        else
            memcpy(into, at, piece->len * shape->bytes);
    }
}

void tri_mpi_piece_store(const struct tri_coll *coll,
                         const struct tri_mpi_shape *shape,
                         const struct tri_mpi_piece *piece)
{
    const struct tri_team *team = coll->team;
    char *to = coll->out;

    if (piece->len == 0 || coll->kind == TRI_COLL_BARRIER ||
        (coll->kind == TRI_COLL_BCAST && coll->root == team->index) ||
        (coll->kind == TRI_COLL_REDUCE && coll->root != team->index))
        return;
    for (size_t i = 0; i < blocks_out(coll); i++) {
        char *at = to + (i * coll->count + piece->first) * shape->user_bytes;
        const char *from = (const char *)piece->out +
                           i * piece->len * shape->bytes;

        if (shape->adds)
            tri_reduce_store((enum troupe_datatype)coll->type,
                             (enum troupe_op)coll->op, at, from, piece->len,
                             team->len);
        else
            memcpy(at, from, piece->len * shape->bytes);
    }
}

/* --- MPI ------------------------------------------------------------------ */

static int call_and_wait(const struct tri_coll *coll,
                         const struct tri_mpi_shape *shape,
                         const struct tri_mpi_piece *piece, MPI_Comm comm)
{
    int len = (int)piece->len, root = (int)coll->root;

    switch (coll->kind) {
    case TRI_COLL_BCAST:
        return MPI_Bcast(piece->out, len, shape->type, root, comm);
    case TRI_COLL_ALLREDUCE:
        return MPI_Allreduce(piece->in, piece->out, len, shape->type,
                             shape->op, comm);
    case TRI_COLL_REDUCE:
        return MPI_Reduce(piece->in, piece->out, len, shape->type, shape->op,
                          root, comm);
    case TRI_COLL_REDUCE_SCATTER:
        return MPI_Reduce_scatter_block(piece->in, piece->out, len,
                                        shape->type, shape->op, comm);
    case TRI_COLL_ALLGATHER:
        return MPI_Allgather(piece->in, len, shape->type, piece->out, len,
                             shape->type, comm);
    default:
        return MPI_Barrier(comm);
    }
}

int tri_mpi_piece_call(const struct tri_coll *coll,
                       const struct tri_mpi_shape *shape,
                       const struct tri_mpi_piece *piece, MPI_Comm comm,
                       MPI_Request *request_p)
{
    int len = (int)piece->len, root = (int)coll->root;

    if (request_p == NULL)
        return call_and_wait(coll, shape, piece, comm);
    switch (coll->kind) {
    case TRI_COLL_BCAST:
        return MPI_Ibcast(piece->out, len, shape->type, root, comm, request_p);
    case TRI_COLL_ALLREDUCE:
        return MPI_Iallreduce(piece->in, piece->out, len, shape->type,
                              shape->op, comm, request_p);
    case TRI_COLL_REDUCE:
        return MPI_Ireduce(piece->in, piece->out, len, shape->type, shape->op,
                           root, comm, request_p);
    case TRI_COLL_REDUCE_SCATTER:
        return MPI_Ireduce_scatter_block(piece->in, piece->out, len,
                                         shape->type, shape->op, comm,
                                         request_p);
    case TRI_COLL_ALLGATHER:
        return MPI_Iallgather(piece->in, len, shape->type, piece->out, len,
                              shape->type, comm, request_p);
    default:
        return MPI_Ibarrier(comm, request_p);
    }
}

const char *tri_mpi_call_name(uint8_t kind)
{
    static const char *const names[] = {
        [TRI_COLL_BARRIER] = "MPI_Barrier",
        [TRI_COLL_BCAST] = "MPI_Bcast",
        [TRI_COLL_ALLREDUCE] = "MPI_Allreduce",
        [TRI_COLL_REDUCE] = "MPI_Reduce",
        [TRI_COLL_REDUCE_SCATTER] = "MPI_Reduce_scatter_block",
        [TRI_COLL_ALLGATHER] = "MPI_Allgather",
    };

    return kind < tri_array_len(names) && names[kind] != NULL ? names[kind]
                                                              : "MPI";
}
