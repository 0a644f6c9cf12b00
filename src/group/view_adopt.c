/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Adopting views, and looking at them. The thread that does the collectives
 * adopts; the core may be some epochs ahead of it meanwhile.
 */

#include <stdlib.h>
#include <string.h>

#include "group/view_internal.h"
#include "member/roster.h"

/* --- for the layers above ------------------------------------------------- */

struct tri_runtime *tri_view_runtime(const struct troupe_group *group)
{
    return group->runtime;
}

uint64_t tri_view_group_id(const struct troupe_group *group)
{
    return group->id;
}

const char *tri_view_group_name(const struct troupe_group *group)
{
    return group->name;
}

const troupe_group_options_t *
tri_view_options(const struct troupe_group *group)
{
    return &group->options;
}

const struct tri_view *tri_view_adopted(const struct troupe_group *group)
{
    return &group->adopted;
}

bool tri_view_is_over(const struct troupe_group *group)
{
    return atomic_load_explicit(&group->is_over, memory_order_relaxed);
}

uint64_t tri_view_adopted_epoch(const struct troupe_group *group)
{
    /* Pairs with the stores of tri_view_adopt_locked: who has seen is_over
     * cleared sees the epoch that cleared it. */
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&group->adopted_epoch, memory_order_relaxed);
}

bool tri_view_wants_boundary(const struct troupe_group *group)
{
    return atomic_load_explicit(&group->wants_boundary, memory_order_relaxed);
}

void tri_view_renew(struct troupe_group *group)
{
    struct tri_views *views = tri_views_of(group);
    struct tri_agree_event event = { .kind = TRI_AGREE_RENEW };

    tri_views_lock(views);
    if (group->adopted.epoch == tri_agree_view(group->agree)->epoch &&
        !group->excluded && !group->parted)
        tri_view_step_locked(group, &event);
    tri_views_unlock(views);
}

void **tri_view_tensor(struct troupe_group *group)
{
    return &group->tensor;
}

/* --- adopting ------------------------------------------------------------- */

uint32_t tri_view_active(const struct troupe_group *group, uint32_t len)
{
    uint32_t max = group->terms.size_max;

    return max != 0 ? (uint32_t)tri_min(len, max) : len;
}

static uint32_t pid_of_locked(const struct tri_views *views, uint64_t node)
{
    uint32_t mask = views->pids_max - 1;
    uint32_t i = (uint32_t)tri_mix64(node) & mask;

    for (; views->pids_max > 0 && views->pids[i].node != 0; i = (i + 1) & mask)
        if (views->pids[i].node == node)
            return views->pids[i].pid;
    return 0;
}

/* False: it is not known here yet. */
static bool fill_member_locked(struct troupe_group *group,
                               const struct tri_agree_member *from,
                               struct tri_view_member *member)
{
    struct tri_runtime *runtime = group->runtime;
    const struct tri_member_card *own = tri_roster_own_card(runtime->roster);
    troupe_member_t known;

    *member = (struct tri_view_member){ .node = from->node,
                                        .since = from->since,
                                        .rank = -1 };
    if (from->node == runtime->node) {
        member->host = own->host;
        member->pid = own->pid;
        member->rank = runtime->rank;
        return true;
    }
    member->peer = tri_link_find(&runtime->link, from->node);
    member->pid = pid_of_locked(tri_views_of(group), from->node);
    if (tri_roster_get(runtime->roster, from->node, &known)) {
        member->host = known.host;
        if (known.job == own->job)
            member->rank = known.rank;
    }
    return member->peer != NULL;
}

static uint32_t count_joined(const struct tri_view *before,
                             const struct tri_view_member *members,
                             uint32_t len)
{
    uint32_t joined = 0, at = 0;

    /* Those of the view before come first, in their order. */
    for (uint32_t i = 0; i < len; i++) {
        uint32_t k = at;

        while (k < before->len && before->members[k].node != members[i].node)
            k++;
        if (k < before->len)
            at = k + 1;
        else
            joined++;
    }
    return joined;
}

bool tri_view_adopt_locked(struct troupe_group *group)
{
    const struct tri_agree_view *view = tri_agree_view(group->agree);
    struct tri_view_member *members = calloc(view->len + 1, sizeof(*members));
    struct tri_view next = { .epoch = view->epoch,
                             .digest = view->digest,
                             .mark = view->mark,
                             .len = view->len,
                             .active = tri_view_active(group, view->len),
                             .index = -1,
                             .losses = group->losses };

    for (uint32_t i = 0; members != NULL && i < view->len; i++) {
        if (!fill_member_locked(group, &view->members[i], &members[i])) {
            free(members);
            members = NULL;
        } else if (members[i].node == group->runtime->node) {
            next.index = (int32_t)i;
        }
    }
    if (members == NULL)
        return false;
    next.joined = count_joined(&group->adopted, members, next.len);
    next.members = members;
    free(group->lists[group->lists_next % TRI_VIEW_LISTS]);
    group->lists[group->lists_next++ % TRI_VIEW_LISTS] = members;
    group->adopted = next;
    group->losses = 0;
    group->boundary_number = 0;
    group->has_arrived = false;
    /* Before is_over, see tri_view_adopted_epoch. */
    atomic_store(&group->adopted_epoch, next.epoch);
    atomic_store(&group->is_over, tri_agree_is_frozen(group->agree) ||
                                      group->excluded || group->parted);
    return true;
}

/* Who has nothing to do in its view is at a boundary for as long: a spare, and
 * all members while there are too few. */
static bool has_too_few(const struct troupe_group *group)
{
    return group->adopted.active < group->terms.size_min;
}

static bool is_idle(const struct troupe_group *group)
{
    return group->is_cluster || has_too_few(group) ||
           group->adopted.index >= (int32_t)group->adopted.active;
}

void tri_view_stand_locked(struct troupe_group *group, bool at)
{
    struct tri_agree_event event = { .kind = TRI_AGREE_BOUNDARY, .at = at };

    if (group->at_boundary == at)
        return;
    group->at_boundary = at;
    tri_view_step_locked(group, &event);
}

void tri_view_stand_if_idle_locked(struct troupe_group *group)
{
    tri_view_stand_locked(group, is_idle(group));
}

/* --- updating ------------------------------------------------------------- */

/* Whether those that live, as far as known here, can agree: more than half, or
 * half with the first, or all that are not proven dead. */
bool tri_view_can_agree_locked(const struct troupe_group *group)
{
    const struct tri_agree_view *view = tri_agree_view(group->agree);
    bool has_first = false, are_proven = group->terms.proof != 0;
    uint32_t alive = 0;

    for (uint32_t i = 0; i < view->len; i++) {
        bool proven = false;
        enum tri_view_life life = tri_view_life_of(
            group->runtime, view->members[i].node, &proven);

        if (life == TRI_VIEW_DEAD) {
            are_proven &= proven;
        } else if (life != TRI_VIEW_LEFT) {
            alive++;
            has_first |= i == 0;
        }
    }
    return are_proven || 2 * alive > view->len ||
           (2 * alive == view->len && has_first);
}

/* 1: it is still being agreed on. */
static int settle_locked(struct troupe_group *group)
{
    if (group->excluded)
        return TROUPE_EEXCLUDED;
    if (group->parted)
        return TROUPE_ECANCELED;
    if (!group->terms.elastic && atomic_load(&group->is_over))
        return TROUPE_ENODE;
    if (tri_agree_is_frozen(group->agree))
        return group->terms.on_minority == TROUPE_MINORITY_STOP &&
                       !tri_view_can_agree_locked(group)
                   ? TROUPE_EPAUSED
                   : 1;
    if (tri_agree_view(group->agree)->epoch != group->adopted.epoch) {
        if (!tri_view_adopt_locked(group))
            return 1;
        tri_view_stand_if_idle_locked(group);
    }
    if (!has_too_few(group))
        return 0;
    return group->terms.on_minority == TROUPE_MINORITY_STOP ? TROUPE_EPAUSED
                                                            : 1;
}

struct settling {
    struct troupe_group *group;
    uint64_t epoch; /* not this one */
    int rc;
};

static bool is_settled(void *arg)
{
    struct settling *settling = arg;
    struct troupe_group *group = settling->group;

    settling->rc = settle_locked(group);
    if (settling->rc == 0 && group->adopted.epoch == settling->epoch)
        settling->rc = 1;
    return settling->rc != 1;
}

/* Why nothing came of it. */
static int why_late(struct troupe_group *group)
{
    struct tri_views *views = tri_views_of(group);
    bool paused;

    tri_views_lock(views);
    paused = group->no_quorum || has_too_few(group) ||
             !tri_view_can_agree_locked(group);
    tri_views_unlock(views);
    return paused ? TROUPE_EPAUSED : TROUPE_ETIMEDOUT;
}

/* Waits for a settled view; other_than: and for another one than this. */
static int settle(struct troupe_group *group, struct tri_seat *seat,
                  uint64_t other_than, uint64_t deadline_ns)
{
    struct settling settling = { .group = group, .epoch = other_than };
    int rc = tri_view_wait(tri_views_of(group), seat, is_settled, &settling,
                           deadline_ns);

    return rc == 0 ? settling.rc : why_late(group);
}

static int update(struct troupe_group *group, bool collective,
                  struct tri_seat *seat, uint64_t deadline_ns)
{
    int rc = 0;

    if (!atomic_load(&group->is_over) && collective) {
        /* A spare waits for the view in which it is none. */
        if (is_idle(group))
            return settle(group, seat, group->adopted.epoch, deadline_ns);
        rc = tri_view_meet(group, seat, deadline_ns);
    }
    return rc == 0 ? settle(group, seat, 0, deadline_ns) : rc;
}

int tri_view_leave_step(struct troupe_group *group, struct tri_seat *seat,
                        uint64_t deadline_ns)
{
    return update(group, true, seat, deadline_ns);
}

int troupe_group_update(troupe_group_t *group, int collective, int timeout_ms,
                        troupe_view_t *view_p)
{
    struct tri_seat seat;
    int rc = 0;

    if (group == NULL || timeout_ms < TROUPE_FOREVER)
        return TROUPE_EINVAL;
    if (tri_worker_current() != NULL)
        return TROUPE_ECONTEXT;
    if (collective || atomic_load(&group->is_over) || has_too_few(group)) {
        tri_seat_take(group->runtime, &seat);
        rc = update(group, collective != 0, &seat,
                    tri_deadline_ns(timeout_ms));
        tri_seat_leave(&seat);
    }
    if (view_p != NULL && rc == 0)
        troupe_group_view(group, view_p);
    return rc;
}

/* --- looking -------------------------------------------------------------- */

void tri_view_fill_locked(const struct troupe_group *group,
                          troupe_view_t *view_p)
{
    const struct tri_view *view = &group->adopted;

    *view_p = (troupe_view_t){
        .epoch = view->epoch,
        .digest = view->digest,
        .len = view->len,
        .active = view->active,
        .index = view->index,
        .losses = view->losses,
        .joined = view->joined,
    };
}

void troupe_group_view(const troupe_group_t *group, troupe_view_t *view_p)
{
    struct tri_views *views = tri_views_of(group);

    tri_views_lock(views);
    tri_view_fill_locked(group, view_p);
    tri_views_unlock(views);
}

uint64_t troupe_group_node(const troupe_group_t *group, uint32_t index)
{
    return index < group->adopted.len ? group->adopted.members[index].node : 0;
}

int troupe_group_is_changing(const troupe_group_t *group)
{
    return tri_view_is_over(group);
}
