/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * MPI_Finalize, by MPI's profiling interface: a program that is linked with
 * this library before MPI calls this one, which passes on to PMPI_Finalize
 * unless that could hang. What calls PMPI_Finalize itself, as Open MPI's
 * Fortran bindings do, is not reached.
 */
#include "mpi/finalize.h"

#include <mpi.h>
#include <stdio.h>

#include "base/log.h"

static atomic_bool barred;

/* Set and cleared by the thread that starts and stops the node; MPI_Finalize is
 * called by the thread that initialized MPI, commonly the same. */
static bool (*_Atomic has_lost_ranks)(void *arg);
static void *_Atomic has_lost_arg;

void tri_finalize_bar(void)
{
    atomic_store(&barred, true);
}

bool tri_finalize_is_barred(void)
{
    return atomic_load(&barred);
}

void tri_finalize_ask(bool (*has_lost)(void *arg), void *arg)
{
    atomic_store(&has_lost_ranks, NULL);
    atomic_store(&has_lost_arg, arg);
    atomic_store(&has_lost_ranks, has_lost);
}

/*
 * Declared by mpi.h. Not finalizing leaves MPI usable, which no program relies
 * on; it may look at MPI_Finalized, or print and choose its exit status, as
 * after any MPI_Finalize. Under mpirun's recovery an exit without it is none of
 * the other ranks' business; without recovery nobody survives a death.
 */
int MPI_Finalize(void)
{
    bool (*ask)(void *arg) = atomic_load(&has_lost_ranks);

    if (ask != NULL && ask(atomic_load(&has_lost_arg)))
        tri_finalize_bar();
    if (!tri_finalize_is_barred())
        return PMPI_Finalize();
    tri_info("MPI is not finalized: a rank has died, or requests were "
             "abandoned, and MPI_Finalize could hang");
    fflush(NULL);
    return MPI_SUCCESS;
}
