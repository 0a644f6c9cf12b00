/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_FINALIZE_H
#define TRI_FINALIZE_H

/*
 * When MPI is not to be finalized any more: after a rank's death, or with
 * requests abandoned, MPI_Finalize may wait for ever (Open MPI 4.1: in a fence
 * of all ranks, the dead included). Then the library's MPI_Finalize returns at
 * once, and the process ends at its exit.
 */

#include "base/base.h"

/* From now on MPI is not finalized in this process. Any thread. */
void tri_finalize_bar(void);
bool tri_finalize_is_barred(void);

/*
 * Before a decision asks `has_lost` whether ranks have died; it then also says
 * goodbye to the others. NULL: no node runs. Any thread.
 */
void tri_finalize_ask(bool (*has_lost)(void *arg), void *arg);

#endif
