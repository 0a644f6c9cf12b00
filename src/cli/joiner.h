/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CLI_JOINER_H
#define TRI_CLI_JOINER_H

/* Processes that join a running job: the same program with the same arguments,
 * directory and environment as one of its nodes on this machine, but without
 * mpirun, and with the job's endpoints as seeds. */

#include "cli/facts.h"
#include "cli/job.h"

/* Starts one, in a process group of its own: who starts it passes signals on.
 * The report is read. Returns NULL, or a text that says what is wrong. */
const char *joiner_start(const struct job *job, const struct facts *facts,
                         pid_t *pid_p);

#endif
