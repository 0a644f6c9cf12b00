/* SPDX-License-Identifier: BSD-3-Clause */

/* Groups over communicators. */

#include <mpi.h>
#include <stdlib.h>

#include <troupe/group.h>

#include "actor/runtime.h"
#include "base/log.h"

/* Declared in troupe/mpi.h, too. */
int troupe_group_create_mpi_(troupe_t *troupe, const char *name,
                             const void *comm,
                             const troupe_group_options_t *options,
                             troupe_group_t **group_p);

/* The node of each rank. Errors: EMPI. */
static int gather_nodes(MPI_Comm comm, uint64_t own, uint64_t *nodes)
{
    if (MPI_Allgather(&own, 1, MPI_UINT64_T, nodes, 1, MPI_UINT64_T, comm) ==
        MPI_SUCCESS)
        return 0;
    tri_error("MPI_Allgather of a group's nodes failed");
    return TROUPE_EMPI;
}

int troupe_group_create_mpi_(troupe_t *troupe, const char *name,
                             const void *comm,
                             const troupe_group_options_t *options,
                             troupe_group_t **group_p)
{
    struct tri_runtime *runtime = (struct tri_runtime *)troupe;
    MPI_Comm own = comm != NULL ? *(const MPI_Comm *)comm : MPI_COMM_NULL;
    uint64_t *nodes;
    int size, rc;

    if (troupe == NULL || own == MPI_COMM_NULL)
        return TROUPE_EINVAL;
    if (MPI_Comm_size(own, &size) != MPI_SUCCESS)
        return TROUPE_EMPI;
    nodes = malloc((size_t)size * sizeof(*nodes));
    if (nodes == NULL)
        return TROUPE_ENOMEM;
    rc = gather_nodes(own, runtime->node, nodes);
    if (rc == 0)
        rc = troupe_group_create_of(troupe, name, nodes, (uint32_t)size,
                                    options, group_p);
    free(nodes);
    return rc;
}
