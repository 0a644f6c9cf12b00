/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A communicator for a team, in rounds by its first member, the coordinator,
 * over the links' control lane:
 *
 *   READY  each to the coordinator: whether it can, and the number of the next
 *          build that is free here
 *   GO     back to all: the highest number; or that one cannot
 *          ... MPI_Comm_create_group, among them all ...
 *   BUILT  each to the coordinator: whether it has the communicator
 *   OPEN   back to all: all have it; or one has not
 *
 * MPI_Comm_create_group blocks for ever when a member dies in it. So it runs in
 * a thread that is left behind then (MPI_THREAD_MULTIPLE); and because Open MPI
 * 4.1 lets no such call overtake one with a lower tag, tags descend from build
 * to build, over all groups. Groups have lanes of tags, so that two builds at
 * once do not meet; a build in a lane that is taken is not begun.
 *
 * Without MPI_THREAD_MULTIPLE a fixed group calls it in the starting thread,
 * once all are ready. Elastic groups then have no communicator.
 */
#include "tensor/mpi/backend.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "mpi/finalize.h"
#include "mpi/job_mpi.h"
#include "os/thread.h"

enum what { READY = 1, GO, BUILT, OPEN };

/* In head.tag, above the build's number. */
#define FLAG_ABLE (1u << 16)
#define FLAG_WORKERS (1u << 17)
#define FLAGS_ALL (FLAG_ABLE | FLAG_WORKERS)
#define NUMBER(tag) ((tag) & 0xffffu)

/* MPI promises tags up to 32767. */
#define TAG_FIRST 30000
#define LANES 16u
#define BUILDS_MAX (TAG_FIRST / LANES)

/* A helper that is left behind polls for ever; see doc/failure.md. */
#define STUCK_MAX 2u
#define BUILD_NS (10000 * TRI_NS_PER_MS)

/* All of the starting thread. */
static uint32_t next_number;
static uint32_t stuck_len;
static const struct tri_backend *lanes[LANES];

/* --- messages ------------------------------------------------------------- */

static int tell(struct tri_backend *backend, uint32_t member, enum what what,
                uint32_t tag)
{
    struct tri_coll_head head = {
        .backend = TRI_BACKEND_MPI,
        .what = (uint16_t)what,
        .tag = tag,
    };

    if (member != backend->team->index)
        return tri_team_send(backend->team, member, TRI_COLL_CONTROL, &head,
                             NULL, 0);
    tri_mpi_round_received(backend, &head);
    return 0;
}

static int tell_all(struct tri_backend *backend, enum what what, uint32_t tag)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < backend->team->len; i++)
        rc = tell(backend, i, what, tag);
    return rc;
}

/* Any thread, under the team's lock. */
void tri_mpi_round_received(struct tri_backend *backend,
                            const struct tri_coll_head *head)
{
    struct tri_mpi_round *round = &backend->round;
    bool is_able = (head->tag & FLAG_ABLE) != 0;

    switch (head->what) {
    case READY:
        round->ready++;
        round->number = (uint32_t)tri_max(round->number, NUMBER(head->tag));
        round->flags &= head->tag;
        break;
    case GO:
        round->go = true;
        round->number = NUMBER(head->tag);
        round->flags = head->tag & FLAGS_ALL;
        break;
    case BUILT:
        round->built++;
        round->failed |= !is_able;
        break;
    case OPEN:
        round->open = true;
        round->failed |= !is_able;
        break;
    default: /* of a later version; not ours */
        break;
    }
}

/* --- the call ------------------------------------------------------------- */

static void call_create_group(struct tri_mpi_build *build)
{
    build->rc = MPI_Comm_create_group(build->parent, build->group, build->tag,
                                      &build->comm);
    /* Pairs with the acquire load of is_done. */
    atomic_store_explicit(&build->done, true, memory_order_release);
}

static void *run(void *arg)
{
    call_create_group(arg);
    return NULL;
}

static bool has_threads(void)
{
    int level = MPI_THREAD_SINGLE;

    MPI_Query_thread(&level);
    return level == MPI_THREAD_MULTIPLE;
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

static int begin_build(struct tri_backend *backend)
{
    struct tri_mpi_round *round = &backend->round;
    uint32_t lane = (uint32_t)(backend->team->group_id % LANES);
    struct tri_mpi_build *build = calloc(1, sizeof(*build));
    int rc;

    if (build == NULL)
        return TROUPE_ENOMEM;
    build->parent = tri_job_comm();
    build->comm = MPI_COMM_NULL;
    build->tag = TAG_FIRST - (int)(round->number * LANES + lane);
    rc = make_group(backend->team, build->parent, &build->group);
    if (rc == 0 && has_threads())
        rc = tri_thread_create(&build->thread, "troupe-comm", run, build);
    else if (rc == 0) {
        build->thread = pthread_self();
        tri_mpi_enter(&backend->watch, "MPI_Comm_create_group");
        call_create_group(build);
        tri_mpi_leave(&backend->watch);
    }
    if (rc != 0) {
        free(build);
        return rc;
    }
    round->build = build;
    return 0;
}

static bool is_done(const struct tri_mpi_build *build)
{
    /* Pairs with the release store of call_create_group. */
    return atomic_load_explicit(&build->done, memory_order_acquire);
}

/* Its thread has ended: takes what it made. */
static int finish_build(struct tri_backend *backend)
{
    struct tri_mpi_build *build = backend->round.build;
    int rc = build->rc;

    if (!pthread_equal(build->thread, pthread_self()))
        pthread_join(build->thread, NULL);
    MPI_Group_free(&build->group);
    if (rc == MPI_SUCCESS) {
        backend->comm = build->comm;
        MPI_Comm_set_errhandler(backend->comm, MPI_ERRORS_RETURN);
    }
    free(build);
    backend->round.build = NULL;
    return rc == MPI_SUCCESS ? 0
                             : tri_mpi_failed("MPI_Comm_create_group", rc);
}

/* --- the rounds ----------------------------------------------------------- */

static bool is_coordinator(const struct tri_backend *backend)
{
    return backend->team->index == 0;
}

int tri_mpi_round_begin(struct tri_backend *backend)
{
    const struct tri_team *team = backend->team;
    struct tri_mpi_round *round = &backend->round;
    uint32_t lane = (uint32_t)(team->group_id % LANES);
    uint32_t tag = next_number;

    round->state = TRI_MPI_ASKING;
    round->flags = FLAGS_ALL;
    if (lanes[lane] == NULL && next_number < BUILDS_MAX &&
        stuck_len < STUCK_MAX && !tri_mpi_graveyard_is_full() &&
        (!team->is_elastic || has_threads()))
        tag |= FLAG_ABLE;
    if ((tag & FLAG_ABLE) != 0)
        lanes[lane] = backend;
    if (team->runtime->scheduler.workers_len > 0)
        tag |= FLAG_WORKERS;
    return tell(backend, 0, READY, tag);
}

static int ask(struct tri_backend *backend)
{
    struct tri_mpi_round *round = &backend->round;
    int rc = 0;

    if (is_coordinator(backend) && !round->go &&
        round->ready == backend->team->len)
        rc = tell_all(backend, GO, round->number | round->flags);
    if (rc != 0 || !round->go)
        return rc;
    next_number = (uint32_t)tri_max(next_number, round->number + 1);
    backend->blocks = (round->flags & FLAG_WORKERS) != 0;
    if ((round->flags & FLAG_ABLE) == 0) {
        round->state = TRI_MPI_REFUSED;
        return 0;
    }
    round->deadline_ns = tri_now_ns() + BUILD_NS;
    round->state = TRI_MPI_BUILDING;
    if (begin_build(backend) == 0)
        return 0;
    /* The others are in it already; they will find out. */
    round->state = TRI_MPI_BUILT;
    return tell(backend, 0, BUILT, 0);
}

static bool is_late(const struct tri_backend *backend)
{
    return backend->team->is_elastic &&
           tri_now_ns() > backend->round.deadline_ns;
}

static int build(struct tri_backend *backend)
{
    struct tri_mpi_round *round = &backend->round;
    bool good = false;

    if (!is_done(round->build) && !is_late(backend))
        return 0;
    if (is_done(round->build))
        good = finish_build(backend) == 0;
    round->state = TRI_MPI_BUILT;
    return tell(backend, 0, BUILT, good ? FLAG_ABLE : 0);
}

static int wait_for_all(struct tri_backend *backend)
{
    struct tri_mpi_round *round = &backend->round;
    int rc = 0;

    if (is_coordinator(backend) && !round->open &&
        (round->built == backend->team->len || round->failed ||
         is_late(backend)))
        rc = tell_all(backend, OPEN,
                      round->failed || round->built < backend->team->len
                          ? 0
                          : FLAG_ABLE);
    if (rc == 0 && round->open)
        round->state = round->failed ? TRI_MPI_REFUSED : TRI_MPI_OPEN;
    return rc;
}

int tri_mpi_round_progress(struct tri_backend *backend)
{
    struct tri_mpi_round *round = &backend->round;
    uint8_t before;
    int rc = 0;

    do {
        before = round->state;
        if (before == TRI_MPI_ASKING)
            rc = ask(backend);
        else if (before == TRI_MPI_BUILDING)
            rc = build(backend);
        else if (before == TRI_MPI_BUILT)
            rc = wait_for_all(backend);
    } while (rc == 0 && round->state != before);
    if (rc != 0)
        return rc;
    if (round->state == TRI_MPI_REFUSED)
        return TROUPE_ELIMIT;
    return round->state == TRI_MPI_OPEN ? 0 : TRI_COLL_PENDING;
}

void tri_mpi_round_end(struct tri_backend *backend)
{
    uint32_t lane = (uint32_t)(backend->team->group_id % LANES);
    struct tri_mpi_build *build = backend->round.build;

    if (build != NULL && is_done(build))
        (void)finish_build(backend);
    else if (build != NULL) {
        /* It goes on without us, and its memory is its own. */
        pthread_detach(build->thread);
        stuck_len++;
        tri_finalize_bar();
        tri_warn("MPI_Comm_create_group has not returned, and is left behind");
        backend->round.build = NULL;
    }
    if (lanes[lane] == backend)
        lanes[lane] = NULL;
}
