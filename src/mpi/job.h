/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_JOB_H
#define TRI_JOB_H

/*
 * The MPI job around a node: the only way from troupe to MPI. Called by the
 * starting thread only, at start and stop; between them only the user's own
 * requests are tested (requests.c). This header does not need <mpi.h>.
 */

#include "base/base.h"

struct tri_job;

/*
 * Opens the job: initializes MPI if nobody did, duplicates the communicator
 * (comm: a MPI_Comm *, or NULL for the world). *job_p is NULL, and MPI left
 * alone, when the process was not started by mpirun and MPI is not in use.
 * Collective. Errors: EMPI, ENOMEM.
 */
int tri_job_open(const void *comm, struct tri_job **job_p);

/* Says, once and on rank 0, when the launcher will end the job with its first
 * rank that dies: for elastic groups. Any thread. */
void tri_job_check_recovery(void);

int tri_job_rank(const struct tri_job *job);
int tri_job_size(const struct tri_job *job);

/* Gathers `bytes` of each rank. Collective, blocking. Errors: EMPI. */
int tri_job_allgather(struct tri_job *job, const void *own, void *all,
                      size_t bytes);

/* Gives all ranks what rank 0 has. Collective, blocking. Errors: EMPI. */
int tri_job_broadcast(struct tri_job *job, void *data, size_t bytes);

/* The least of all ranks' codes: 0 only if all succeeded. Collective. */
int tri_job_agree(struct tri_job *job, int rc);

/*
 * Waits for all ranks without blocking: start, then test until true. In the
 * job's own memory, so it may be abandoned. One at a time. With it all learn
 * whether one of them must not finalize MPI (mpi/finalize.h). Errors: EMPI.
 */
int tri_job_barrier_start(struct tri_job *job);
bool tri_job_barrier_test(struct tri_job *job);

/*
 * Closes the job. whole: every rank lives and does the same; else MPI is left
 * as it is, because its calls could hang. NULL is allowed.
 */
void tri_job_close(struct tri_job *job, bool whole);

#endif
