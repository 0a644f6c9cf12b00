/* SPDX-License-Identifier: BSD-3-Clause */

/* The public calls about members. */

#include "base/clock.h"
#include "member/member.h"
#include "member/place.h"
#include "member/roster.h"

_Static_assert(TROUPE_ENDPOINT_MAX >= TRI_ENDPOINT_TEXT_BYTES, "it fits");

static struct tri_roster *roster_of(troupe_from_t from)
{
    troupe_self_t *self;

    return tri_runtime_of(from, &self)->roster;
}

/* --- looking -------------------------------------------------------------- */

size_t troupe_members(troupe_from_t from, troupe_member_t *list,
                      size_t list_len_max)
{
    struct tri_roster *roster = roster_of(from);
    troupe_member_t member;
    uint32_t cursor = 0;
    size_t n = 0;

    while (tri_roster_next(roster, &cursor,
                           n < list_len_max ? &list[n] : &member))
        n++;
    return n;
}

size_t troupe_members_alive(troupe_from_t from)
{
    return tri_roster_alive_len(roster_of(from));
}

int troupe_member_get(troupe_from_t from, uint64_t node,
                      troupe_member_t *member_p)
{
    return tri_roster_get(roster_of(from), node, member_p) ? 0
                                                           : TROUPE_ENONODE;
}

int troupe_member_find(troupe_from_t from, const char *name,
                       troupe_member_t *member_p)
{
    if (name == NULL)
        return TROUPE_EINVAL;
    return tri_roster_find(roster_of(from), name, member_p, NULL)
               ? 0
               : TROUPE_ENONODE;
}

int troupe_is_excluded(troupe_from_t from)
{
    return tri_roster_is_excluded(roster_of(from));
}

int troupe_endpoint(troupe_from_t from, char *text_p, size_t text_bytes_max)
{
    const struct tri_endpoint *own =
        &tri_roster_own_card(roster_of(from))->control;

    if (text_p == NULL || text_bytes_max < TROUPE_ENDPOINT_MAX)
        return TROUPE_EINVAL;
    if (own->family == 0)
        return TROUPE_ETRANSPORT;
    tri_endpoint_print(own, text_p);
    return 0;
}

void troupe_member_stats(troupe_from_t from, troupe_member_stats_t *stats_p)
{
    troupe_self_t *self;

    tri_member_stats(tri_runtime_of(from, &self)->member, stats_p);
}

/* --- waiting -------------------------------------------------------------- */

struct wait {
    struct tri_roster *roster;
    int (*wanted)(void *arg);
    void *arg;
    size_t count;
    uint64_t seen; /* changes, at the last look */
    bool looked;
    bool met;
};

static bool is_met(void *arg)
{
    struct wait *wait = arg;
    uint64_t changes = tri_roster_changes(wait->roster);

    if (wait->looked && changes == wait->seen)
        return wait->met;
    wait->looked = true;
    wait->seen = changes;
    wait->met = wait->wanted != NULL
                    ? wait->wanted(wait->arg) != 0
                    : tri_roster_alive_len(wait->roster) >= wait->count;
    return wait->met;
}

int troupe_members_wait(troupe_t *troupe, int (*wanted)(void *arg), void *arg,
                        size_t count, int timeout_ms)
{
    struct tri_runtime *runtime = (struct tri_runtime *)troupe;
    struct wait wait = { .wanted = wanted, .arg = arg, .count = count };
    struct tri_seat seat;
    int rc;

    if (troupe == NULL || timeout_ms < TROUPE_FOREVER)
        return TROUPE_EINVAL;
    if (tri_worker_current() != NULL)
        return TROUPE_ECONTEXT;
    wait.roster = runtime->roster;
    tri_seat_take(runtime, &seat);
    rc = tri_wait(&seat, is_met, &wait, tri_deadline_ns(timeout_ms));
    tri_seat_leave(&seat);
    return rc;
}

/* --- events --------------------------------------------------------------- */

int troupe_members_watch(troupe_self_t *self, int replay)
{
    struct tri_runtime *runtime = self->runtime;
    int rc = tri_roster_subscribe(runtime->roster, self->actor->slot,
                                  tri_actor_generation(self->actor),
                                  replay != 0);

    if (rc == 0 && replay != 0)
        tri_roster_kick(runtime->roster);
    return rc;
}

void troupe_members_unwatch(troupe_self_t *self)
{
    tri_roster_unsubscribe(self->runtime->roster, self->actor->slot,
                           tri_actor_generation(self->actor));
}

size_t troupe_member_events_take(troupe_t *troupe,
                                 troupe_member_event_t *events,
                                 size_t events_len_max)
{
    return tri_roster_take(roster_of(troupe), events, events_len_max);
}

int troupe_member_tag(troupe_from_t from, const char *tags)
{
    struct tri_roster *roster = roster_of(from);
    int rc = tags != NULL ? tri_roster_own_tags(roster, tags) : TROUPE_EINVAL;

    if (rc == 0)
        tri_roster_kick(roster);
    return rc;
}

/* --- placing -------------------------------------------------------------- */

/* With what was placed there since it spoke last. */
static bool next_member(void *context, uint32_t *cursor_p,
                        troupe_member_t *member_p)
{
    if (!tri_roster_next(context, cursor_p, member_p))
        return false;
    member_p->load = tri_roster_load_at(context, *cursor_p - 1, member_p);
    return true;
}

int troupe_place(troupe_from_t from, const troupe_place_t *place,
                 uint64_t *node_p)
{
    struct tri_roster *roster = roster_of(from);
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);
    struct tri_place_members members = {
        .next = next_member,
        .context = roster,
        .self = runtime->node,
        .job = tri_roster_own_card(roster)->job,
    };
    int rc;

    if (place == NULL || node_p == NULL)
        return TROUPE_EINVAL;
    if (place->policy == TROUPE_PLACE_SPREAD)
        members.turn = tri_roster_turn(roster);
    rc = tri_place_choose(place, &members, node_p);
    if (rc == 0)
        tri_roster_placed(roster, *node_p);
    return rc;
}
