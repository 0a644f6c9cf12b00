/* SPDX-License-Identifier: BSD-3-Clause */

/* What happened to the groups of a node, for those who ask: the last events. */

#include <string.h>

#include "group/view_internal.h"

/* The agreed view, which may be newer than the adopted one. */
static void fill_view(const struct troupe_group *group, troupe_view_t *view_p)
{
    const struct tri_agree_view *view = tri_agree_view(group->agree);

    *view_p = (troupe_view_t){
        .epoch = view->epoch,
        .digest = view->digest,
        .len = view->len,
        .active = tri_view_active(group, view->len),
        .index = -1,
        .losses = view->losses,
    };
    for (uint32_t i = 0; i < view->len; i++) {
        view_p->joined += view->members[i].since == view->epoch;
        if (view->members[i].node == group->runtime->node)
            view_p->index = (int32_t)i;
    }
}

void tri_view_raise_locked(struct troupe_group *group,
                           enum troupe_group_what what)
{
    struct tri_views *views = tri_views_of(group);
    troupe_group_event_t *event;

    if (group->is_cluster)
        return; /* nobody knows of it */
    if (views->events_last - views->events_first == TROUPE_GROUP_EVENTS_MAX) {
        views->events_first++;
        views->events_lost++;
    }
    event = &views->events[views->events_last++ % TROUPE_GROUP_EVENTS_MAX];
    *event = (troupe_group_event_t){ .what = what };
    memcpy(event->name, group->name, sizeof(event->name));
    fill_view(group, &event->view);
}

size_t troupe_group_events_take(troupe_t *troupe, troupe_group_event_t *events,
                                size_t events_len_max)
{
    struct tri_views *views =
        troupe != NULL ? ((struct tri_runtime *)troupe)->views : NULL;
    size_t n = 0;

    if (views == NULL || events == NULL)
        return 0;
    tri_views_lock(views);
    while (n < events_len_max && views->events_first < views->events_last) {
        events[n] = views->events[views->events_first++ %
                                  TROUPE_GROUP_EVENTS_MAX];
        events[n].lost = views->events_lost;
        views->events_lost = 0;
        n++;
    }
    tri_views_unlock(views);
    return n;
}
