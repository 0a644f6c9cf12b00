/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_REQUESTS_H
#define TRI_REQUESTS_H

/* MPI requests of the program whose completion becomes a message. */

#include "actor/runtime.h"

/* Drops what is left: the requests stay MPI's, the messages are freed. */
void tri_requests_fini(struct tri_runtime *runtime);

#endif
