/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_MPI_TEAM_H
#define TESTS_MPI_TEAM_H

/* MPI's back end without the front: what that would do for one team. */

#include <sched.h>

#include "test.h"

#include "actor/runtime.h"
#include "mpi/finalize.h"
#include "tensor/mpi/backend.h"

enum { RANKS_MAX = 16 };

static struct tri_view_member members[RANKS_MAX];
static struct tri_team team;
static struct tri_backend *backend;
static const struct tri_backend_ops *const ops = &tri_backend_mpi;

/* All ranks; members in their order. */
static inline void team_make(troupe_t *troupe, int size)
{
    struct tri_runtime *runtime = (struct tri_runtime *)troupe;
    uint64_t nodes[RANKS_MAX], own = troupe_node_id(troupe);

    if (size > RANKS_MAX)
        MUST(TROUPE_EINVAL);
    MPI_Allgather(&own, 1, MPI_UINT64_T, nodes, 1, MPI_UINT64_T,
                  MPI_COMM_WORLD);
    for (int i = 0; i < size; i++)
        members[i] = (struct tri_view_member){
            .node = nodes[i],
            .rank = i,
            .peer = i == test_rank ? NULL : &runtime->link.peers[i],
        };
    team.runtime = runtime;
    team.group_id = 77;
    team.len = (uint32_t)size;
    team.index = (uint32_t)test_rank;
    team.members = members;
}

/* The next view. */
static inline int team_open(int is_elastic, int checks)
{
    double end = test_now_ms() + TEST_SOON_MS;
    int rc;

    team.epoch++;
    team.is_elastic = is_elastic;
    team.checks = checks;
    CHECK(ops->can(&team));
    MUST(ops->open(&team, &backend));
    do {
        rc = ops->open_progress(backend);
        sched_yield();
    } while (rc == TRI_COLL_PENDING && test_now_ms() < end);
    return rc;
}

/* PENDING: not in time. */
static inline int team_finish(struct tri_coll *coll)
{
    double end = test_now_ms() + TEST_SOON_MS;
    int rc;

    do
        rc = ops->progress(backend, coll);
    while (rc == TRI_COLL_PENDING && test_now_ms() < end);
    CHECK(rc == TRI_COLL_PENDING || coll->state == NULL);
    return rc;
}

#endif
