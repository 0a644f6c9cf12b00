/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Boundaries. Who waits to join or leave is let in or out where all active
 * members stand at the same place of their program, so that none sits in a
 * collective that another one will not come to. Each says ARRIVE to the first
 * member, which says GO when all are there; with it comes whether anybody knew
 * of somebody who waits. If so all stay until the next view, or until the first
 * member finds that there is nobody left to wait for (RELEASE).
 *
 * A death meanwhile is a death as any other: the view ends, and all go on to
 * the next one. Nothing here is said twice: the control lane loses nothing
 * between members that live. So who ran out of time has arrived all the same:
 * its next call goes on with that boundary, and with what was said of it.
 */

#include "group/view_internal.h"

/* How often the first member looks whether there is anybody left. */
#define LOOK_NS (20 * TRI_NS_PER_MS)
/* Looks in a row that find nobody, before it lets all go. */
#define LOOKS_IN_VAIN 3u

static struct tri_view_note note_of(const struct troupe_group *group,
                                    bool wants)
{
    return (struct tri_view_note){
        .group = group->id,
        .epoch = group->adopted.epoch,
        .number = group->boundary_number,
        .value = wants,
    };
}

static bool is_first(const struct troupe_group *group)
{
    return group->adopted.index == 0;
}

static void take_word_locked(struct troupe_group *group,
                             enum tri_view_what what,
                             const struct tri_view_note *note)
{
    group->told = (struct tri_view_boundary){
        .epoch = note->epoch,
        .number = note->number,
        .wants = note->value != 0,
    };
    group->released = what == TRI_VIEW_RELEASE;
}

/* The first member's: to the other active ones, and itself. */
static void tell_locked(struct troupe_group *group, enum tri_view_what what,
                        bool wants)
{
    struct tri_view_note note = note_of(group, wants);

    take_word_locked(group, what, &note);
    for (uint32_t i = 1; i < group->adopted.active; i++)
        tri_view_say(tri_views_of(group), group->adopted.members[i].node, what,
                     &note);
}

/* An active member is there. Its epoch may be one that is not adopted here. */
static void arrive_locked(struct troupe_group *group, uint64_t epoch,
                          uint64_t number, bool wants)
{
    struct tri_view_boundary *boundary = &group->boundary;

    if (epoch < boundary->epoch ||
        (epoch == boundary->epoch && number < boundary->number))
        return; /* that epoch is over */
    if (epoch != boundary->epoch || number != boundary->number)
        *boundary = (struct tri_view_boundary){ epoch, number, 0, false };
    boundary->len++;
    boundary->wants |= wants;
}

/* As the first member: true when all have arrived where it is itself. */
static bool are_all_here_locked(const struct troupe_group *group)
{
    const struct tri_view_boundary *boundary = &group->boundary;

    return boundary->epoch == group->adopted.epoch &&
           boundary->number == group->boundary_number &&
           boundary->len >= group->adopted.active;
}

void tri_view_boundary_note_locked(struct troupe_group *group, uint64_t node,
                                   enum tri_view_what what,
                                   const struct tri_view_note *note)
{
    if (note->epoch > tri_agree_view(group->agree)->epoch) {
        struct tri_agree_event ahead = { .kind = TRI_AGREE_AHEAD,
                                         .node = node };

        tri_view_step_locked(group, &ahead);
    }
    if (what == TRI_VIEW_ARRIVE)
        arrive_locked(group, note->epoch, note->number, note->value != 0);
    else
        take_word_locked(group, what, note);
    tri_views_changed_locked(tri_views_of(group));
}

/* --- the call ------------------------------------------------------------- */

static bool is_told_locked(const struct troupe_group *group)
{
    return group->told.epoch == group->adopted.epoch &&
           group->told.number == group->boundary_number;
}

static bool may_go(void *arg)
{
    struct troupe_group *group = arg;

    return atomic_load(&group->is_over) || is_told_locked(group) ||
           (is_first(group) && are_all_here_locked(group));
}

/* A view, or word that none will come. */
static bool may_go_on(void *arg)
{
    struct troupe_group *group = arg;

    return atomic_load(&group->is_over) ||
           (!is_first(group) && group->released && is_told_locked(group));
}

static void begin_locked(struct troupe_group *group)
{
    bool wants = group->leaving || atomic_load(&group->wants_boundary);
    struct tri_view_note note;

    if (group->has_arrived)
        return;
    group->has_arrived = true;
    group->boundary_number++;
    note = note_of(group, wants);
    if (is_first(group))
        arrive_locked(group, note.epoch, note.number, wants);
    else
        tri_view_say(tri_views_of(group), group->adopted.members[0].node,
                     TRI_VIEW_ARRIVE, &note);
}

/* The first member's watch over the others' patience. */
static int wait_as_first(struct troupe_group *group, struct tri_seat *seat,
                         uint64_t deadline_ns)
{
    struct tri_views *views = tri_views_of(group);
    unsigned in_vain = 0;
    int rc;

    do {
        rc = tri_view_wait(views, seat, may_go_on, group,
                           tri_min(tri_now_ns() + LOOK_NS, deadline_ns));
        in_vain = atomic_load(&group->wants_boundary) ? 0 : in_vain + 1;
    } while (rc != 0 && tri_now_ns() < deadline_ns && in_vain < LOOKS_IN_VAIN);
    if (rc == 0)
        return 0;
    tri_views_lock(views);
    if (!atomic_load(&group->is_over))
        tell_locked(group, TRI_VIEW_RELEASE, false);
    tri_views_unlock(views);
    return in_vain >= LOOKS_IN_VAIN ? 0 : rc;
}

/* Waits for the view that all stand here for. */
static int wait_for_view(struct troupe_group *group, struct tri_seat *seat,
                         uint64_t deadline_ns)
{
    struct tri_views *views = tri_views_of(group);
    int rc;

    tri_views_lock(views);
    if (!atomic_load(&group->is_over))
        tri_view_stand_locked(group, true);
    tri_views_unlock(views);
    rc = is_first(group) ? wait_as_first(group, seat, deadline_ns)
                         : tri_view_wait(views, seat, may_go_on, group,
                                         deadline_ns);
    tri_views_lock(views);
    if (!atomic_load(&group->is_over))
        tri_view_stand_locked(group, false);
    tri_views_unlock(views);
    return rc;
}

/* All are there: what the first member says of it, and it is said once. */
static bool is_view_awaited_locked(struct troupe_group *group)
{
    if (atomic_load(&group->is_over))
        return false;
    if (!is_told_locked(group))
        tell_locked(group, TRI_VIEW_GO, group->boundary.wants);
    return group->told.wants;
}

int tri_view_meet(struct troupe_group *group, struct tri_seat *seat,
                  uint64_t deadline_ns)
{
    struct tri_views *views = tri_views_of(group);
    bool wants;
    int rc;

    tri_views_lock(views);
    begin_locked(group);
    tri_views_unlock(views);
    rc = tri_view_wait(views, seat, may_go, group, deadline_ns);
    if (rc != 0)
        return rc;
    tri_views_lock(views);
    wants = is_view_awaited_locked(group);
    tri_views_unlock(views);
    if (wants)
        rc = wait_for_view(group, seat, deadline_ns);
    tri_views_lock(views);
    group->has_arrived = rc != 0 && group->has_arrived;
    tri_views_unlock(views);
    return rc;
}
