/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_JOB_MPI_H
#define TRI_JOB_MPI_H

/* The job for those who may call MPI: src/mpi and src/tensor/mpi. */

#include <mpi.h>

#include "base/base.h"

/* The communicator of this process's job, a duplicate that only troupe uses;
 * MPI_COMM_NULL: there is none. Any thread. */
MPI_Comm tri_job_comm(void);

/* Logs what MPI says of an error of this call. Returns EMPI. */
int tri_mpi_failed(const char *call, int rc);

#endif
