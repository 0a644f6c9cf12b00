/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_TOPOLOGY_H
#define TRI_TOPOLOGY_H

/* Where this process runs: its cores, its host. The only user of hwloc. */

#include "base/base.h"

#define TRI_CORES_MAX 1024

/* The cores of a host that a process may run on, by logical index. */
struct tri_coreset {
    uint64_t bits[TRI_CORES_MAX / 64];
};

struct tri_topology {
    struct tri_coreset bound; /* cores that this process is bound to */
    uint32_t bound_len;       /* at least 1 */
    uint64_t host;            /* same in processes that can share memory */
};

/*
 * Looks at the machine. Two processes are on the same host when boot, network
 * namespace, pid namespace and user are the same.
 * Errors: ENOMEM, ESYSTEM.
 */
int tri_topology_read(struct tri_topology *topology_p);

/*
 * Workers for one rank: its cores, each shared fairly with the other ranks
 * that are bound to it; at least 1. others: coresets of all ranks of this
 * host, this one included.
 */
uint32_t tri_topology_workers(const struct tri_coreset *own,
                              const struct tri_coreset *all, uint32_t all_len);

#endif
