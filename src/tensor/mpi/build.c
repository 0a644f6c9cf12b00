/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A communicator for a team, by MPI_Comm_create_group, which blocks for ever
 * when a member dies in it. So it runs in a thread that is left behind then
 * (MPI_THREAD_MULTIPLE). Members of an elastic group begin it when they have
 * agreed that all can (the front's council), right after which all are known
 * to live.
 *
 * Open MPI 4.1 lets no such call overtake one of the same parent with a lower
 * tag. So tags descend from epoch to epoch: what is stuck does not hold up its
 * group's next one. A group's lane of tags is a hash of its id: two groups
 * seldom share one, and with it the tags of their epochs. What is stuck may
 * hold up another group; that gives up after BUILD_NS, and stays native.
 *
 * Without MPI_THREAD_MULTIPLE a fixed group calls it in the starting thread.
 * Elastic groups then have no communicator.
 */
#include "tensor/mpi/backend.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "mpi/finalize.h"
#include "mpi/job_mpi.h"
#include "os/thread.h"

#define LANES 4096u
#define TAG_MAX (1 << 30) /* or MPI's, which is 32767 at least */

/* A thread that is left behind polls for ever. */
#define STUCK_MAX 2u
#define BUILD_NS (10000 * TRI_NS_PER_MS)
/* When nobody has died it will soon be through. */
#define LAST_NS (500 * TRI_NS_PER_MS)

static uint32_t stuck_len; /* the starting thread's */

/* --- tags ----------------------------------------------------------------- */

static int tag_max(void)
{
    int *bound, has = 0;

    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &bound, &has);
    return has ? (int)tri_min((size_t)*bound, TAG_MAX) : 32767;
}

/* Negative: there are none left. */
static int64_t tag_of(const struct tri_team *team)
{
    uint64_t lane = tri_mix64(team->group_id) % LANES;

    return team->epoch > TAG_MAX
               ? -1
               : tag_max() - (int64_t)(team->epoch * LANES + lane);
}

static bool has_threads(void)
{
    int level = MPI_THREAD_SINGLE;

    MPI_Query_thread(&level);
    return level == MPI_THREAD_MULTIPLE;
}

bool tri_mpi_build_can(const struct tri_team *team)
{
    static bool said;

    if (tag_of(team) < 0)
        return false;
    if (!team->is_elastic)
        return true;
    if (!has_threads() && !said) {
        said = true;
        tri_info("MPI was initialized without MPI_THREAD_MULTIPLE: elastic "
                 "groups use the native back end");
    }
    return has_threads() && stuck_len < STUCK_MAX &&
           !tri_mpi_graveyard_is_full();
}

/* --- the call ------------------------------------------------------------- */

/* Whether all have workers is the first thing that they tell each other. */
static void call_create_group(struct tri_mpi_build *build)
{
    build->rc = MPI_Comm_create_group(build->parent, build->group, build->tag,
                                      &build->comm);
    if (build->rc == MPI_SUCCESS) {
        MPI_Comm_set_errhandler(build->comm, MPI_ERRORS_RETURN);
        build->rc = MPI_Allreduce(&build->own_workers, &build->workers, 1,
                                  MPI_INT, MPI_MIN, build->comm);
    }
    /* Pairs with the acquire load of is_done. */
    atomic_store_explicit(&build->done, true, memory_order_release);
}

static void *run(void *arg)
{
    call_create_group(arg);
    return NULL;
}

static bool is_done(const struct tri_mpi_build *build)
{
    /* Pairs with the release store of call_create_group. */
    return atomic_load_explicit(&build->done, memory_order_acquire);
}

static int make_group(const struct tri_team *team, MPI_Comm parent,
                      MPI_Group *group_p)
{
    int *ranks = malloc(team->len * sizeof(*ranks));
    MPI_Group all;
    int rc;

    if (ranks == NULL)
        return TROUPE_ENOMEM;
    for (uint32_t i = 0; i < team->len; i++)
        ranks[i] = team->members[i].rank;
    MPI_Comm_group(parent, &all);
    rc = MPI_Group_incl(all, (int)team->len, ranks, group_p);
    MPI_Group_free(&all);
    free(ranks);
    return rc == MPI_SUCCESS ? 0 : tri_mpi_failed("MPI_Group_incl", rc);
}

/* --- begin, look, end ----------------------------------------------------- */

int tri_mpi_build_begin(struct tri_backend *backend)
{
    const struct tri_team *team = backend->team;
    struct tri_mpi_build *build = calloc(1, sizeof(*build));
    int rc;

    if (build == NULL)
        return TROUPE_ENOMEM;
    build->parent = tri_job_comm();
    build->group = MPI_GROUP_NULL;
    build->comm = MPI_COMM_NULL;
    build->tag = (int)tag_of(team);
    build->own_workers = team->runtime->scheduler.workers_len > 0;
    build->deadline_ns = tri_now_ns() + BUILD_NS;
    rc = make_group(team, build->parent, &build->group);
    build->has_thread = has_threads();
    if (rc == 0 && build->has_thread)
        rc = tri_thread_create(&build->thread, "troupe-comm", run, build);
    if (rc != 0) {
        if (build->group != MPI_GROUP_NULL)
            MPI_Group_free(&build->group);
        free(build);
        return rc;
    }
    backend->build = build;
    return 0;
}

/* It is through: takes what it made. */
static int finish(struct tri_backend *backend)
{
    struct tri_mpi_build *build = backend->build;
    int rc = build->rc;

    if (build->has_thread && !build->is_joined)
        pthread_join(build->thread, NULL);
    MPI_Group_free(&build->group);
    backend->comm = build->comm;
    backend->blocks = build->workers != 0;
    free(build);
    backend->build = NULL;
    if (rc == MPI_SUCCESS)
        return 0;
    backend->failed = TROUPE_EMPI;
    return tri_mpi_failed("MPI_Comm_create_group", rc);
}

int tri_mpi_build_progress(struct tri_backend *backend)
{
    struct tri_mpi_build *build = backend->build;

    if (build == NULL)
        return backend->failed;
    if (!build->has_thread) {
        tri_mpi_enter(&backend->watch, "MPI_Comm_create_group");
        call_create_group(build);
        tri_mpi_leave(&backend->watch);
    }
    if (is_done(build))
        return finish(backend);
    /* Of a fixed group who calls it late is waited for, as by MPI. */
    if (!backend->team->is_elastic || tri_now_ns() < build->deadline_ns)
        return TRI_COLL_PENDING;
    backend->failed = TROUPE_ETIMEDOUT;
    return TROUPE_ETIMEDOUT;
}

void tri_mpi_build_end(struct tri_backend *backend)
{
    struct tri_mpi_build *build = backend->build;

    if (build == NULL)
        return;
    if (build->has_thread && !tri_mpi_has_died(backend->team))
        build->is_joined =
            tri_thread_join(build->thread, tri_now_ns() + LAST_NS) == 0;
    if (is_done(build)) {
        (void)finish(backend);
        return;
    }
    backend->build = NULL;
    if (!build->has_thread) { /* was not called */
        MPI_Group_free(&build->group);
        free(build);
        return;
    }
    /* It goes on without us, and its memory is its own. */
    pthread_detach(build->thread);
    stuck_len++;
    tri_finalize_bar();
    tri_warn("MPI_Comm_create_group has not returned, and is left behind");
}
