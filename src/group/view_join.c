/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Joining a group that others have made, leaving it, and closing it.
 *
 * Who joins asks all members of the cluster that it knows for the group's name
 * (ASK); those that are in it answer with its id and options (HAVE). From then
 * on the core asks one of them to be let in, and another one when that has
 * died: whoever answers the latest ASK.
 */

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "group/view_internal.h"
#include "member/roster.h"

/* Between two rounds of asking: at first, and in the end. */
#define ASK_NS (10 * TRI_NS_PER_MS)
#define ASK_NS_MAX (200 * TRI_NS_PER_MS)
/* Rounds for which one member is relied on. */
#define ROUNDS_PER_ANSWERER 20u

static struct tri_view_note note_of(const struct troupe_group *group)
{
    struct tri_view_note note = { .group = group->id, .call = group->call };

    memcpy(note.name, group->name, sizeof(note.name));
    return note;
}

/* --- answering ------------------------------------------------------------ */

static void take_ask_locked(struct tri_views *views, uint64_t node,
                            const struct tri_view_note *ask)
{
    struct troupe_group *group = tri_view_named_locked(views, ask->name);
    struct tri_view_note note;

    if (group == NULL || group->state != TRI_VIEW_MEMBER || group->excluded ||
        group->parted)
        return;
    note = note_of(group);
    note.call = ask->call;
    note.terms = group->terms;
    tri_view_say(views, node, TRI_VIEW_HAVE, &note);
}

static bool is_good(struct troupe_group *group, uint64_t node)
{
    return tri_view_life_of(group->runtime, node, NULL) == TRI_VIEW_ALIVE;
}

static void take_have_locked(struct tri_views *views, uint64_t node,
                             const struct tri_view_note *note)
{
    struct troupe_group *group = tri_view_named_locked(views, note->name);

    if (group == NULL || group->state != TRI_VIEW_JOINING ||
        group->call != note->call || note->group == 0 ||
        (group->id != 0 && group->id != note->group) ||
        !tri_view_terms_are_valid(&note->terms))
        return;
    if (group->answerer != 0 && is_good(group, group->answerer))
        return; /* the core has asked it */
    group->theirs = note->terms;
    group->found = note->group;
    group->answerer = node;
    tri_views_changed_locked(views);
}

void tri_view_join_note_locked(struct tri_views *views, uint64_t node,
                               enum tri_view_what what,
                               const struct tri_view_note *note)
{
    if (what == TRI_VIEW_ASK)
        take_ask_locked(views, node, note);
    else
        take_have_locked(views, node, note);
}

/* --- joining -------------------------------------------------------------- */

static void say_to_all_locked(struct troupe_group *group,
                              enum tri_view_what what,
                              const struct tri_view_note *note)
{
    struct tri_runtime *runtime = group->runtime;
    troupe_member_t member;
    uint32_t cursor = 0;

    while (tri_roster_next(runtime->roster, &cursor, &member))
        if (member.node != runtime->node &&
            (member.state == TROUPE_MEMBER_ALIVE ||
             member.state == TROUPE_MEMBER_SUSPECT))
            tri_view_say(runtime->views, member.node, what, note);
}

static void ask_all_locked(struct troupe_group *group)
{
    struct tri_view_note note = note_of(group);

    note.group = 0;
    say_to_all_locked(group, TRI_VIEW_ASK, &note);
}

/* Whoever was asked to let it in has told the others of it. */
static void withdraw_from_all_locked(struct troupe_group *group)
{
    struct tri_view_note note = { .group = group->id,
                                  .number = tri_now_ns() };

    say_to_all_locked(group, TRI_VIEW_GONE, &note);
}

/* The group was found: 0, or why it is none to join. */
static int meet_locked(struct troupe_group *group, bool has_options)
{
    if (!group->theirs.elastic)
        return TROUPE_ELIMIT;
    if (has_options &&
        memcmp(&group->theirs, &group->terms, sizeof(group->terms)) != 0)
        return TROUPE_EMISMATCH;
    tri_view_take_terms(group, &group->theirs);
    return tri_view_make_core_locked(group, group->found,
                                     TRI_AGREE_MEMBERS_MAX);
}

/* Asks again to be let in. 1: not yet. */
static int push_locked(struct troupe_group *group, bool has_options)
{
    struct tri_agree_event join = { .kind = TRI_AGREE_JOIN };
    int rc;

    if (group->excluded)
        return TROUPE_EEXCLUDED;
    if (group->answerer != 0 && group->agree == NULL) {
        rc = meet_locked(group, has_options);
        if (rc != 0)
            return rc;
    }
    if (group->agree == NULL)
        return 1;
    if (tri_agree_view(group->agree)->epoch != 0) {
        if (!tri_view_adopt_locked(group))
            return 1;
        group->state = TRI_VIEW_MEMBER;
        tri_view_stand_if_idle_locked(group);
        return 0;
    }
    if (group->refused)
        return TROUPE_ELIMIT;
    if (group->pushed_to != 0 && group->pushed_to == group->answerer)
        return 1;
    join.node = group->answerer;
    group->pushed_to = join.node;
    if (join.node != 0)
        tri_view_step_locked(group, &join);
    return 1;
}

struct joining {
    struct troupe_group *group;
    bool has_options;
    int rc;
};

static bool is_in(void *arg)
{
    struct joining *joining = arg;

    joining->rc = push_locked(joining->group, joining->has_options);
    return joining->rc != 1;
}

static int join(struct troupe_group *group, bool has_options,
                struct tri_seat *seat)
{
    struct tri_views *views = tri_views_of(group);
    struct joining joining = { group, has_options, 1 };
    uint64_t deadline_ns = tri_view_deadline(group);
    uint64_t pause_ns = ASK_NS;
    uint32_t rounds = 0;

    do {
        tri_views_lock(views);
        if (++rounds % ROUNDS_PER_ANSWERER == 0)
            group->answerer = 0; /* another one, perhaps */
        ask_all_locked(group);
        tri_views_unlock(views);
        if (tri_view_wait(views, seat, is_in, &joining,
                          tri_min(tri_now_ns() + pause_ns, deadline_ns)) == 0)
            return joining.rc;
        pause_ns = tri_min(2 * pause_ns, ASK_NS_MAX);
    } while (tri_now_ns() < deadline_ns);
    return TROUPE_ETIMEDOUT;
}

/* To the others it died, and they need not wait. */
static void quit(struct troupe_group *group)
{
    struct tri_views *views = tri_views_of(group);
    struct tri_agree_event event = { .kind = TRI_AGREE_QUIT };

    tri_views_lock(views);
    if (group->agree != NULL)
        tri_view_step_locked(group, &event);
    if (group->agree != NULL && group->state == TRI_VIEW_JOINING)
        withdraw_from_all_locked(group);
    tri_views_unlock(views);
}

int troupe_group_join(troupe_t *troupe, const char *name,
                      const troupe_group_options_t *options,
                      troupe_group_t **group_p)
{
    struct tri_runtime *runtime = (struct tri_runtime *)troupe;
    struct troupe_group *group;
    struct tri_seat seat;
    int rc = tri_view_check_call(troupe, group_p);

    if (rc == 0)
        rc = tri_view_new(runtime, name, options, &group);
    if (rc != 0)
        return rc;
    group->state = TRI_VIEW_JOINING;
    rc = tri_view_insert(runtime->views, group);
    if (rc != 0) {
        tri_view_free(group);
        return rc;
    }
    tri_seat_take(runtime, &seat);
    rc = join(group, options != NULL, &seat);
    tri_seat_leave(&seat);
    if (rc != 0) {
        quit(group);
        tri_view_remove(runtime->views, group);
        tri_view_free(group);
        return rc;
    }
    *group_p = group;
    return 0;
}

/* --- leaving -------------------------------------------------------------- */

static bool has_parted(struct troupe_group *group)
{
    struct tri_views *views = tri_views_of(group);
    bool has;

    tri_views_lock(views);
    has = group->parted || group->excluded;
    tri_views_unlock(views);
    return has;
}

/* Nobody is there who could agree to it. */
static bool is_alone_locked(const struct troupe_group *group)
{
    return group->excluded || group->parted ||
           tri_agree_view(group->agree)->len == 1;
}

static int leave(struct troupe_group *group, uint64_t deadline_ns)
{
    struct tri_views *views = tri_views_of(group);
    struct tri_agree_event event = { .kind = TRI_AGREE_LEAVE };
    struct tri_seat seat;
    bool is_alone;
    int rc = 0;

    tri_views_lock(views);
    group->leaving = true;
    is_alone = is_alone_locked(group);
    if (!is_alone)
        tri_view_step_locked(group, &event);
    tri_views_unlock(views);
    if (is_alone)
        return 0;
    tri_seat_take(group->runtime, &seat);
    while (rc == 0 && !has_parted(group) && tri_now_ns() < deadline_ns)
        rc = tri_view_leave_step(group, &seat, deadline_ns);
    tri_seat_leave(&seat);
    return has_parted(group) ? 0 : TROUPE_ETIMEDOUT;
}

int troupe_group_leave(troupe_group_t **group_p, int timeout_ms)
{
    troupe_group_t *group = group_p != NULL ? *group_p : NULL;
    int rc;

    if (group == NULL || timeout_ms < TROUPE_FOREVER)
        return TROUPE_EINVAL;
    if (tri_worker_current() != NULL)
        return TROUPE_ECONTEXT;
    rc = leave(group, tri_deadline_ns(timeout_ms));
    if (rc != 0)
        quit(group);
    troupe_group_close(group_p);
    return rc;
}

void troupe_group_close(troupe_group_t **group_p)
{
    troupe_group_t *group = group_p != NULL ? *group_p : NULL;

    if (group == NULL)
        return;
    *group_p = NULL;
    tri_view_remove(tri_views_of(group), group);
    tri_view_free(group);
}

void tri_views_close_groups(struct tri_runtime *runtime)
{
    struct tri_views *views = runtime->views;

    for (uint32_t i = 0; views != NULL && i < TRI_VIEW_GROUPS_MAX; i++) {
        struct troupe_group *group = atomic_load(&views->groups[i]);

        if (group == NULL)
            continue;
        tri_view_remove(views, group);
        tri_view_close_tensor(group);
        group->next_left = views->left;
        views->left = group;
    }
}
