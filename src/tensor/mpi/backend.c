/* SPDX-License-Identifier: BSD-3-Clause */

/* The table of the back end, and its instances: see backend.h. */
#include "tensor/mpi/backend.h"

#include <stdlib.h>

#include "mpi/job_mpi.h"

/* What coll->state points to after a call that waited: its outcome. */
static const int outcomes[] = { 0, TROUPE_EMPI, TROUPE_ENOMEM,
                                TROUPE_EMISMATCH };

/* Of a fixed group the same on all members. */
static bool can(const struct tri_team *team)
{
    /* MPI's order of summation depends on the members. */
    if (tri_job_comm() == MPI_COMM_NULL || team->is_reproducible)
        return false;
    for (uint32_t i = 0; i < team->len; i++)
        if (team->members[i].rank < 0)
            return false;
    return tri_mpi_build_can(team);
}

static void destroy(struct tri_backend *backend)
{
    tri_mpi_watch_close(&backend->watch);
    tri_mpi_stage_close(backend);
    free(backend);
}

static int open(const struct tri_team *team, struct tri_backend **backend_p)
{
    struct tri_backend *backend = calloc(1, sizeof(*backend));
    int rc;

    if (backend == NULL)
        return TROUPE_ENOMEM;
    backend->team = team;
    backend->comm = MPI_COMM_NULL;
    backend->checks = team->is_elastic || team->checks;
    rc = tri_mpi_stage_open(backend);
    if (rc == 0)
        rc = tri_mpi_watch_open(&backend->watch, team);
    if (rc == 0)
        rc = tri_mpi_build_begin(backend);
    if (rc != 0) {
        destroy(backend);
        return rc;
    }
    *backend_p = backend;
    return 0;
}

/* The front has cancelled what was under way. */
static void close(struct tri_backend **backend_p)
{
    struct tri_backend *backend = *backend_p;

    *backend_p = NULL;
    tri_mpi_build_end(backend);
    /* Somebody else may have requests on it, unless all have come to its end:
     * a fixed group's is closed by all together. */
    if (backend->comm != MPI_COMM_NULL) {
        if (backend->team->is_elastic || backend->failed != 0)
            tri_mpi_bury_comm(backend->comm);
        else
            MPI_Comm_free(&backend->comm);
    }
    destroy(backend);
}

static int start(struct tri_backend *backend, struct tri_coll *coll)
{
    int rc;

    if (tri_unlikely(backend->failed != 0))
        return backend->failed;
    if (backend->team->is_elastic || !coll->is_blocking || !backend->blocks)
        return tri_mpi_stage_add(backend, coll);
    rc = tri_mpi_stage_issue_all(backend);
    if (rc == 0)
        rc = tri_mpi_direct(backend, coll);
    coll->state = (void *)(uintptr_t)&outcomes[1]; /* EMPI, unless known */
    for (size_t i = 0; i < tri_array_len(outcomes); i++)
        if (outcomes[i] == rc)
            coll->state = (void *)(uintptr_t)&outcomes[i];
    return 0;
}

static bool has_waited(const struct tri_coll *coll)
{
    const int *state = coll->state;

    return state >= outcomes && state < outcomes + tri_array_len(outcomes);
}

static int progress(struct tri_backend *backend, struct tri_coll *coll)
{
    const int *outcome = coll->state;

    if (!has_waited(coll))
        return tri_mpi_stage_progress(backend, coll);
    coll->state = NULL;
    return *outcome;
}

static void cancel(struct tri_backend *backend, struct tri_coll *coll)
{
    if (coll->state != NULL && !has_waited(coll))
        tri_mpi_stage_cancel(backend, coll);
    coll->state = NULL;
}

const struct tri_backend_ops tri_backend_mpi = {
    .name = "mpi",
    .starter_only = true,
    .all_find_mismatch = true,
    .can = can,
    .open = open,
    .open_progress = tri_mpi_build_progress,
    .close = close,
    .start = start,
    .progress = progress,
    .cancel = cancel,
};
