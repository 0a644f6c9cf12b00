/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_NODE_H
#define TRI_NODE_H

/* A node: the actors' runtime, and the job it was started in. */

#include "actor/runtime.h"
#include "mpi/job.h"
#include "os/topology.h"
#include "wire/seal.h"

/* What each rank tells the others at first: enough to open transports. */
struct tri_card {
    uint64_t node;
    uint64_t host;      /* who may share memory */
    uint64_t nonce;     /* rank 0's becomes the job's */
    uint64_t interface; /* hash of what both sides must agree on */
    uint32_t security;  /* enum tri_seal_mode: all must have the same */
    uint32_t reserved;
    struct tri_coreset cores;
};

/* And then: how to reach it. */
struct tri_addresses {
    struct tri_address ring;
    struct tri_address fabric;
};

struct troupe {
    struct tri_runtime runtime; /* first: a troupe_t is a context */
    struct tri_job *job;        /* NULL: alone */
    struct tri_topology topology;
    struct tri_card *cards;     /* by rank */
    uint32_t host_ranks;        /* ranks that share this host */
    enum tri_seal_mode security;
    unsigned char *key;         /* the job's (wire/key.h); NULL: none */
    bool bell_open;
    bool link_open;
    bool scheduler_open;
    bool actors_open;
};

/* start.c; comm: a MPI_Comm *, or NULL. */
int tri_node_start(troupe_t **troupe_p, const troupe_options_t *options,
                   const void *comm);

/* Frees a node whose threads have ended or never ran. whole: as in
 * tri_job_close. */
void tri_node_free(troupe_t *troupe, bool whole);

/* The node of this process, or NULL. */
extern troupe_t *_Atomic tri_node_running;

#endif
