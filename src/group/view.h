/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_VIEW_H
#define TRI_VIEW_H

/*
 * The groups of a node: gives the pure core (group/agree_core.h) the link's
 * control lane, membership's news of deaths, and a clock; and users the views.
 *
 * A group's core is stepped under its mutex by whoever has an event: the poll
 * role (messages), the control thread (deaths, ticks), the thread that does
 * the collectives (boundary, mark). What comes out is sent with the mutex held.
 * That thread alone adopts views and may look at what it adopted without a
 * lock; others take the mutex.
 */

#include <troupe/group.h>

#include "actor/runtime.h"
#include "group/agree_core.h"

struct tri_view_member {
    uint64_t node;
    uint64_t since;        /* epoch */
    struct tri_peer *peer; /* NULL: this node. May die at any time */
    uint64_t host;         /* equal: can share memory */
    uint32_t pid;          /* of its process, for those of this host */
    int32_t rank;          /* in this job's MPI communicator; -1: none */
};

/* What a thread has adopted. */
struct tri_view {
    uint64_t epoch;
    uint64_t digest;
    uint64_t mark;
    uint32_t len;
    uint32_t active;
    int32_t index;
    uint32_t losses;
    uint32_t joined;
    const struct tri_view_member *members;
};

/* Makes runtime->views, and attaches to membership. Before the threads start.
 * Errors: ENOMEM, ELIMIT. */
int tri_views_open(struct tri_runtime *runtime);

/*
 * Makes the group of all nodes of a cluster, for strictly unique names
 * (group/claims.c). joins: the node becomes a member of a cluster that others
 * have made. After tri_views_open, before the threads start. Errors: ENOMEM.
 */
int tri_claims_open(struct tri_runtime *runtime, uint64_t cluster, bool joins);

/* Closes the groups that are left; the threads still run, and actors that know
 * of one may call: tri_views_close frees them. What was under way has ended,
 * and nothing comes of what begins. Context: as troupe_group_close. */
void tri_views_close_groups(struct tri_runtime *runtime);

/* Threads are gone. */
void tri_views_close(struct tri_runtime *runtime);

/* The group of an id, or NULL. Poll lock held, or the thread that made it. */
struct troupe_group *tri_view_find(struct tri_runtime *runtime, uint64_t id);

/*
 * Whether records of a group may be for this node: it is here, or may be the
 * one that is being created, whose id is not known here yet. Others may have
 * heard of it before, and have begun. Poll lock held.
 */
bool tri_view_may_come(struct tri_runtime *runtime, uint64_t id);

struct tri_runtime *tri_view_runtime(const struct troupe_group *group);
uint64_t tri_view_group_id(const struct troupe_group *group);
const char *tri_view_group_name(const struct troupe_group *group);
const troupe_group_options_t *
tri_view_options(const struct troupe_group *group);

/* The adopted view; the thread that adopts. */
const struct tri_view *tri_view_adopted(const struct troupe_group *group);

/*
 * One relaxed load: the adopted epoch is over, or about to be; collectives in
 * it end with EVIEW. Any thread.
 */
bool tri_view_is_over(const struct troupe_group *group);

/* The epoch of the adopted view. After tri_view_is_over has said no it is at
 * least the one that this was said of. Any thread. */
uint64_t tri_view_adopted_epoch(const struct troupe_group *group);

/* There are joins or leaves to agree on. Any thread. */
bool tri_view_wants_boundary(const struct troupe_group *group);

/* Ends the adopted view, with nobody known to have died: another one follows,
 * with those members that answer. The thread that adopts. */
void tri_view_renew(struct troupe_group *group);

/* What tensors keep for a group: theirs; NULL at first. Whether they do or not,
 * runtime->tensor_closed is called when the group is closed. */
void **tri_view_tensor(struct troupe_group *group);

#endif
