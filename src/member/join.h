/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_JOIN_H
#define TRI_JOIN_H

/*
 * The first half of joining, before there is a node: which of the seeds
 * answers, and what cluster it is in. The second half, with a card, is the
 * core's (tri_member_join).
 */

#include "member/packet.h"
#include "os/endpoint.h"

#define TRI_SEEDS_MAX 16

/* Version of records, types and members' cards: nodes that differ in it do not
 * understand each other. */
#define TRI_INTERFACE_VERSION 4u

struct tri_seeds {
    uint32_t len;
    uint32_t first; /* the one to try first: it answered */
    struct tri_endpoint endpoints[TRI_SEEDS_MAX];
};

struct tri_join_config {
    const char *seeds;     /* option seeds: "host:port,host:port" */
    const char *interface; /* option interface */
    const char *cluster;   /* option cluster, or NULL */
    bool strict;           /* option strict_names */
    enum tri_swim_profile profile; /* option membership */
    uint64_t node;         /* our id */
    const unsigned char *key; /* the job's; NULL: security is "none" */
    enum tri_seal_mode security;
    uint64_t deadline_ns;
};

/* 0: no name. */
uint64_t tri_cluster_name_hash(const char *name);

/* False: not "host:port,host:port" (at most TRI_SEEDS_MAX). Pure. */
bool tri_seeds_are_valid(const char *text);

/*
 * Asks the seeds until one answers. Names are looked up again and seeds asked
 * again, with back-off and jitter, until the deadline.
 * Blocking: until the deadline; the resolver may add to it.
 * Errors: ENOSEED, EKEY, EVERSION, ECLUSTER, EOPTION (a seed's text, or another
 * strict_names there), ENOMEM, ESYSTEM, ETRANSPORT; logged with what to do.
 */
int tri_join_find(const struct tri_join_config *config,
                  struct tri_seeds *seeds_p, uint64_t *cluster_p);

/* Logs why a seed refused, with what to do, as an error. */
void tri_join_log(int error, const char *seed, const char *cluster);

#endif
