/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_MPI_H
#define TROUPE_MPI_H

/* What needs <mpi.h>. troupe.h does not include this file. */

#include <mpi.h>
#include <troupe.h>

#ifdef __cplusplus
extern "C" {
#endif

/* comm: a pointer to a MPI_Comm. Use troupe_start_comm. */
int troupe_start_mpi_(troupe_t **troupe_p, const troupe_options_t *options,
                      const void *comm);

/*
 * troupe_start over the ranks of a communicator, which is duplicated and
 * stays the caller's. MPI must be initialized; collective over comm.
 */
static inline int troupe_start_comm(troupe_t **troupe_p,
                                    const troupe_options_t *options,
                                    MPI_Comm comm)
{
    return troupe_start_mpi_(troupe_p, options, &comm);
}

/* comm: a pointer to a MPI_Comm. Use troupe_group_create_comm. */
int troupe_group_create_mpi_(troupe_t *troupe, const char *name,
                             const void *comm,
                             const troupe_group_options_t *options,
                             troupe_group_t **group_p);

/*
 * troupe_group_create over the ranks of a communicator, in their order there;
 * all are nodes of the cluster. Collective over comm, which is used for one
 * exchange and stays the caller's; it may have lost nobody.
 * Errors: as troupe_group_create_of, EMPI.
 */
static inline int troupe_group_create_comm(
    troupe_t *troupe, const char *name, MPI_Comm comm,
    const troupe_group_options_t *options, troupe_group_t **group_p)
{
    return troupe_group_create_mpi_(troupe, name, &comm, options, group_p);
}

/*
 * Sends `message` (made by a protocol's _new function, or by
 * troupe_message_new) to an actor when the MPI request is complete.
 * The request is tested, and the message sent, only while the starting thread
 * waits in a troupe call: the runtime makes MPI calls from no other thread.
 * Context: the thread that started the node. Blocking: never.
 * Ownership: request becomes the library's (set to MPI_REQUEST_NULL here); so
 * does the message. Buffers of the request stay the program's and must live
 * until the message arrives. On error both stay the caller's.
 * Errors: EINVAL, ECONTEXT, ELIMIT (1024 requests), ENOMEM.
 */
int troupe_mpi_send_when_done(troupe_t *troupe, MPI_Request *request,
                              troupe_ref_t to, void *message);

/*
 * MPI_Finalize of this library stands before MPI's (by MPI's profiling
 * interface), where the program is linked with troupe before MPI. It is MPI's,
 * but for one case: when ranks of the job have died, or requests on buffers of
 * the library had to be abandoned, MPI's could hang. Then it says goodbye to
 * the other ranks, flushes stdio, and returns MPI_SUCCESS without having
 * finalized anything; the program goes on to its exit, with the status that it
 * chooses. MPI is not to be called after it, as ever.
 * Not reached: a program that calls PMPI_Finalize, one in Fortran (Open MPI's
 * mpi_finalize_ calls that), and one linked with MPI before troupe. These call
 * troupe_stop and then exit without finalizing when troupe_rank_alive has
 * found a rank dead.
 */

/*
 * Status of a process that ended itself because a call of MPI did not return
 * after a member of its group had died (option mpi_watchdog_ms). What it was
 * and who had died is in its log.
 */
#define TROUPE_EXIT_WEDGED 86

#ifdef __cplusplus
}
#endif

#endif
