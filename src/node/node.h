/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_NODE_H
#define TRI_NODE_H

/* A node: the actors' runtime, and the job it was started in. */

#include "actor/runtime.h"
#include "member/member.h"
#include "mpi/job.h"
#include "mpi/spawn.h"
#include "os/topology.h"
#include "wire/key.h"
#include "wire/seal.h"

/* What each rank tells the others at first: enough to open transports. */
struct tri_card {
    uint64_t node;
    uint64_t host;      /* who may share memory */
    uint64_t nonce;     /* rank 0's becomes the cluster's id, unless it joins */
    uint64_t cluster_name; /* hash of option cluster */
    uint64_t interface; /* hash of what both sides must agree on */
    uint32_t security;  /* enum tri_seal_mode: all must have the same */
    uint32_t flags;     /* TRI_CARD_… */
    struct tri_coreset cores;
};

#define TRI_CARD_SEEDS 1u  /* it has option seeds */
#define TRI_CARD_LISTEN 2u /* and listen */
#define TRI_CARD_OPEN (TRI_CARD_SEEDS | TRI_CARD_LISTEN)
#define TRI_CARD_KEY_FILE 4u
#define TRI_CARD_STRICT 8u /* and strict_names */
#define TRI_CARD_GROWABLE 16u /* it may spawn nodes */

struct troupe {
    struct tri_runtime runtime; /* first: a troupe_t is a context */
    struct tri_job *job;        /* NULL: alone */
    struct tri_topology topology;
    struct tri_card *cards;     /* by rank */
    struct tri_member_card *members; /* by rank; while starting */
    uint64_t cluster;           /* id */
    struct tri_seeds seeds;     /* of the cluster to join; len 0: none */
    struct tri_udp socket;      /* until membership has it */
    struct tri_endpoint endpoint; /* where others reach that */
    struct tri_transport *ring; /* the link's; NULL: not open */
    struct tri_transport *fabric;
    bool is_open;               /* others than the job's ranks may join, or do */
    uint32_t host_ranks;        /* ranks that share this host */
    enum tri_seal_mode security;
    bool is_spawned;            /* its job was, by a node of another */
    struct tri_welcome *welcome; /* of who spawned this job; while starting */
    struct tri_spawn *spawn;    /* nodes being started; NULL: none */
    unsigned char *key;         /* the job's (wire/key.h); NULL: none */
    bool bell_open;
    bool link_open;
    bool scheduler_open;
    bool actors_open;
};

/* Of option security, by enum tri_seal_mode. */
#define TRI_SECURITY_NAMES 3u
extern const char *const tri_security_names[TRI_SECURITY_NAMES];

/* start.c; comm: a MPI_Comm *, or NULL. */
int tri_node_start(troupe_t **troupe_p, const troupe_options_t *options,
                   const void *comm);

/* --- cluster.c: what of the start has to do with other jobs --------------- */

/* Checks what the table of options cannot. Errors: EOPTION; logged. */
int tri_cluster_check_options(const troupe_options_t *options);

uint32_t tri_cluster_flags(const troupe_t *troupe);

/* The ranks' options together: the cards are there. Errors: EOPTION, the same
 * on all ranks; logged by rank 0. */
int tri_cluster_check_cards(const troupe_t *troupe);

/* Rank 0 finds the cluster to join, if it has seeds; all learn which it is.
 * Collective. Errors: those of tri_join_find, EMPI. */
int tri_cluster_find(troupe_t *troupe);

/* Opens the socket of control datagrams, unless nobody could send any.
 * Errors: ETRANSPORT, ESYSTEM, EOPTION; logged. */
int tri_cluster_open_socket(troupe_t *troupe);

/* What others are told of this node. Its transports and socket are open. */
void tri_cluster_card(const troupe_t *troupe, struct tri_member_card *card_p);

/* Makes roster and driver. Errors: ENOMEM, ESYSTEM, ELIMIT. */
int tri_cluster_open(troupe_t *troupe);
void tri_cluster_close(troupe_t *troupe);

/* Becomes a member of the cluster that the seeds belong to; threads run. */
int tri_cluster_join(troupe_t *troupe);

/* --- grow.c: nodes that nodes spawn --------------------------------------- */

/* In a job that a node has spawned, what that says. Collective. Errors: those
 * of tri_spawn_welcome, EVERSION, ENOMEM. */
int tri_grow_receive(troupe_t *troupe);

/* Has the options follow it. Errors: ENOMEM. */
int tri_grow_options(troupe_t *troupe);

void tri_grow_forget(troupe_t *troupe);

/* Whether no nodes are being started. */
bool tri_grow_is_over(const troupe_t *troupe);

/* Frees what is over; what is not is left behind. */
void tri_grow_end(troupe_t *troupe);

/* Frees a node whose threads have ended or never ran. whole: as in
 * tri_job_close. */
void tri_node_free(troupe_t *troupe, bool whole);

/* Whether ranks have died; then says goodbye to the others. arg: a troupe_t.
 * For MPI_Finalize while a node runs. */
bool tri_node_has_lost_ranks(void *arg);

/* The node of this process, or NULL. */
extern troupe_t *_Atomic tri_node_running;

#endif
