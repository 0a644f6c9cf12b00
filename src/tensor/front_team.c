/* SPDX-License-Identifier: BSD-3-Clause */

/* A front's team: from a view, with instances of back ends, to its end. */

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "mpi/job.h"
#include "tensor/front.h"

/* --- instances ------------------------------------------------------------ */

static const struct tri_backend_ops *ops_of(struct tri_front *front,
                                            uint8_t backend)
{
    return front->tensor->backends[backend];
}

static bool can(struct tri_front *front, uint8_t backend)
{
    const struct tri_backend_ops *ops = ops_of(front, backend);

    return ops != NULL && (ops->can == NULL || ops->can(&front->team));
}

int tri_front_open_locked(struct tri_front *front, uint8_t backend)
{
    struct tri_instance *instance = &front->instances[backend];
    int rc;

    assert(instance->backend == NULL);
    instance->ready = false;
    instance->wanted = false;
    rc = ops_of(front, backend)->open(&front->team, &instance->backend);
    instance->rc = rc;
    if (rc != 0)
        tri_error("collectives of epoch %llu: %s cannot be used: %s",
                  (unsigned long long)front->team.epoch,
                  ops_of(front, backend)->name, troupe_strerror(rc));
    return rc;
}

/* If nobody has, what is collective among the members will return. */
bool tri_front_has_died(const struct tri_front *front)
{
    for (uint32_t i = 0; i < front->team.len; i++)
        if (front->members[i].peer != NULL &&
            tri_peer_is_dead(front->members[i].peer))
            return true;
    return false;
}

void tri_front_close_locked(struct tri_front *front, uint8_t backend)
{
    struct tri_instance *instance = &front->instances[backend];

    /* All have agreed to open it, and may be waiting for this member there. */
    if (instance->wanted && instance->backend == NULL &&
        !tri_front_has_died(front))
        (void)tri_front_open_locked(front, backend);
    if (instance->backend != NULL)
        ops_of(front, backend)->close(&instance->backend);
    memset(instance, 0, sizeof(*instance));
}

void tri_front_opening_locked(struct tri_front *front)
{
    bool is_starter = tri_is_starter(front->tensor->runtime);

    for (uint8_t i = 0; i < TRI_BACKENDS; i++) {
        struct tri_instance *instance = &front->instances[i];
        int rc;

        if ((instance->backend == NULL && !instance->wanted) ||
            instance->ready || instance->rc != 0)
            continue;
        if (ops_of(front, i)->starter_only && !is_starter) {
            atomic_store_explicit(&front->needs_starter, true,
                                  memory_order_relaxed);
            continue;
        }
        if (instance->backend == NULL && tri_front_open_locked(front, i) != 0)
            continue;
        rc = ops_of(front, i)->open_progress(instance->backend);
        instance->ready = rc == 0;
        if (rc == 0 || rc == TRI_COLL_PENDING)
            continue;
        instance->rc = rc;
        tri_info("collectives: %s was not opened: %s", ops_of(front, i)->name,
                 troupe_strerror(rc));
        /* A dead node: the view ends. What there is a choice about may fail. */
        if (i == front->fixed && rc != TROUPE_ENODE)
            tri_front_fail_locked(front, i, rc);
    }
}

/* --- teams ---------------------------------------------------------------- */

void tri_front_close_team_locked(struct tri_front *front)
{
    if (!front->has_team)
        return;
    for (uint8_t i = 0; i < TRI_BACKENDS; i++)
        tri_front_close_locked(front, i);
    free(front->members);
    front->members = NULL;
    front->has_team = false;
    front->left = false;
    front->ended = 0;
}

static uint8_t wanted_of(const char *name)
{
    if (name != NULL && strcmp(name, "mpi") == 0)
        return TRI_BACKEND_MPI;
    if (name != NULL && strcmp(name, "native") == 0)
        return TRI_BACKEND_NATIVE;
    return TRI_BACKEND_FRONT;
}

/* What the group says once and for all. From now on each knows the other: the
 * front ends with the group, whoever was first to call, so that it never has
 * one that is gone. */
static void read_options(struct tri_front *front, struct troupe_group *group)
{
    const troupe_group_options_t *options = tri_view_options(group);

    front->group = group;
    *tri_view_tensor(group) = front;
    front->is_elastic = options->elastic != 0;
    if (front->is_elastic)
        tri_job_check_recovery();
    front->is_reproducible = options->reproducible != 0;
    front->checks = options->check != 0;
    front->wanted = wanted_of(options->backend);
    front->size_min = options->size_min;
}

static int check_view(const struct tri_front *front,
                      const struct tri_view *view)
{
    if (view->epoch == 0)
        return TROUPE_EVIEW;
    if (view->index < 0)
        return TROUPE_EEXCLUDED;
    /* a spare, or too few */
    if ((uint32_t)view->index >= view->active ||
        view->active < front->size_min)
        return TROUPE_EPAUSED;
    return 0;
}

static int set_team(struct tri_front *front, const struct tri_view *view)
{
    size_t bytes = view->active * sizeof(*front->members);

    front->members = malloc(bytes);
    if (front->members == NULL)
        return TROUPE_ENOMEM;
    memcpy(front->members, view->members, bytes);
    front->team = (struct tri_team){
        .runtime = front->tensor->runtime,
        .group = front->group,
        .group_id = front->group_id,
        .epoch = view->epoch,
        .len = view->active,
        .index = (uint32_t)view->index,
        .members = front->members,
        .is_elastic = front->is_elastic,
        .is_reproducible = front->is_reproducible,
        .checks = front->checks,
    };
    front->has_team = true;
    front->ended = 0;
    atomic_store_explicit(&front->was_told, false, memory_order_relaxed);
    front->number = 0;
    memset(front->recent, 0, sizeof(front->recent));
    return 0;
}

/*
 * The back end that carries the first calls. In a fixed group it is the only
 * one: whether MPI can is the same on all its members. In an elastic one it is
 * the native one, which can always be.
 */
static int open_backends(struct tri_front *front)
{
    bool use_mpi = front->wanted != TRI_BACKEND_NATIVE && !front->is_elastic &&
                   can(front, TRI_BACKEND_MPI);

    if (front->wanted == TRI_BACKEND_MPI && !front->is_elastic && !use_mpi) {
        tri_error("the group's option backend is \"mpi\", but MPI cannot carry "
                  "its collectives");
        return TROUPE_EMPI;
    }
    front->fixed = use_mpi ? TRI_BACKEND_MPI : TRI_BACKEND_NATIVE;
    if (!can(front, front->fixed)) {
        tri_error("no back end can carry the group's collectives");
        return TROUPE_EINVAL;
    }
    return tri_front_open_locked(front, front->fixed);
}

static int open_team(struct tri_front *front, struct troupe_group *group,
                     const struct tri_view *view)
{
    int rc;

    if (front->group == NULL)
        read_options(front, group);
    if (front->has_team) {
        if (!front->left)
            tri_front_end_team_locked(front, front->ended != 0 ? front->ended
                                                               : TROUPE_EVIEW);
        tri_front_close_team_locked(front);
    }
    rc = check_view(front, view);
    if (rc != 0)
        return rc;
    rc = set_team(front, view);
    if (rc != 0)
        return rc;
    tri_choice_begin(front);
    if (front->team.len > 1)
        rc = open_backends(front);
    if (rc != 0) /* there is no instance that could have told */
        tri_front_fail_locked(front, TRI_BACKEND_FRONT, rc);
    return rc;
}

int tri_front_team_locked(struct tri_front *front, struct troupe_group *group)
{
    const struct tri_view *view = tri_view_adopted(group);

    assert(tri_lock_is_held(&front->lock));
    if (front->broken != 0)
        return front->broken;
    if (tri_unlikely(!front->has_team || front->team.epoch != view->epoch)) {
        int rc = open_team(front, group, view);

        if (rc != 0)
            return rc;
    }
    /* A member that found a mismatch may have left since: say the former. */
    if (tri_unlikely(front->ended == TROUPE_EMISMATCH))
        return front->ended;
    if (tri_unlikely(tri_view_is_over(group)))
        return front->is_elastic ? TROUPE_EVIEW : TROUPE_ENODE;
    return front->ended;
}
