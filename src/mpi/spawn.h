/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SPAWN_H
#define TRI_SPAWN_H

/*
 * Processes that a node has MPI start (MPI_Comm_spawn): a job of their own that
 * joins the node's cluster. What they need for that, the key among it, goes to
 * their first rank over the communicator between parent and children.
 */

#include "mpi/job.h"

#define TRI_WELCOME_SEEDS_BYTES 64
#define TRI_WELCOME_NAME_BYTES 256
#define TRI_WELCOME_KEY_BYTES 32

struct tri_welcome {
    uint32_t interface; /* TRI_INTERFACE_VERSION of the parent */
    uint32_t security;  /* enum tri_seal_mode */
    uint32_t strict_names;
    uint32_t reserved;
    char seeds[TRI_WELCOME_SEEDS_BYTES];
    char cluster[TRI_WELCOME_NAME_BYTES]; /* "": none */
    unsigned char key[TRI_WELCOME_KEY_BYTES];
};

/*
 * Starts `len` processes in a thread of its own, and hands them the welcome.
 * argv: NULL, or as of main without the program's name. Copies all it is given.
 * Errors: ENOMEM, ESYSTEM, EMPI (no MPI_THREAD_MULTIPLE).
 */
struct tri_spawn;
int tri_spawn_begin(const char *command, char *const argv[], int len,
                    const struct tri_welcome *welcome,
                    struct tri_spawn **spawn_p);

/* True: it is over, with *rc_p (0 or EMPI). Any thread. */
bool tri_spawn_is_done(struct tri_spawn *spawn, int *rc_p);

/* Frees it, or leaves it to itself if it is not over. */
void tri_spawn_end(struct tri_spawn **spawn_p);

/*
 * In a job's start: whether a node has started this job, and its welcome, the
 * same on all ranks but for the key, which rank 0 alone has. Collective.
 * Errors: EMPI, ETIMEDOUT.
 */
int tri_spawn_welcome(struct tri_job *job, bool *spawned_p,
                      struct tri_welcome *welcome_p);

#endif
