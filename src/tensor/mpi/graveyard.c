/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What MPI may still use. Open MPI goes on with abandoned schedules: it was
 * seen to write into buffers, and even to complete, long after; and to hang
 * when the communicator's id was used again. The list exists so that memory
 * checkers see it as reachable. The starting thread alone.
 */
#include "tensor/mpi/backend.h"

#include <stdlib.h>

#include "base/log.h"
#include "mpi/finalize.h"

#if defined(OPEN_MPI)
#include <mpi-ext.h>
#endif

/* About six deaths in the midst of a call. With 200 requests abandoned a small
 * allreduce took ten times as long. */
#define REQUESTS_MAX 32u

struct grave {
    struct grave *next;
    void *memory, *memory2;
};

static struct grave *graves;
static uint32_t requests_len;

void tri_mpi_bury_request(MPI_Request request, void *memory, void *memory2)
{
    struct grave *grave = malloc(sizeof(*grave));

    (void)request; /* a handle; what it stands for is MPI's */
    requests_len++;
    if (requests_len == REQUESTS_MAX)
        tri_warn("%u requests of MPI were abandoned; elastic groups use the "
                 "native back end from now on",
                 requests_len);
    tri_finalize_bar();
    if (grave == NULL)
        return; /* the memory is kept all the same */
    grave->memory = memory;
    grave->memory2 = memory2;
    grave->next = graves;
    graves = grave;
}

/*
 * Its id must not be used again while others may send by it, so it is not
 * freed. Where MPI has ULFM the members that still wait in it are released;
 * compiled, but no MPI at hand could run it.
 */
void tri_mpi_bury_comm(MPI_Comm comm)
{
#if defined(OMPI_HAVE_MPI_EXT_FTMPI) && OMPI_HAVE_MPI_EXT_FTMPI
    MPIX_Comm_revoke(comm);
#else
    (void)comm;
#endif
}

bool tri_mpi_graveyard_is_full(void)
{
    return requests_len >= REQUESTS_MAX;
}
