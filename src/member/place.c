/* SPDX-License-Identifier: BSD-3-Clause */
#include "member/place.h"

#include <string.h>

#include "base/base.h"

static bool is_there(const troupe_member_t *member)
{
    return member->state == TROUPE_MEMBER_ALIVE ||
           member->state == TROUPE_MEMBER_SUSPECT;
}

/* --- the one that is asked for -------------------------------------------- */

static bool is_named(const troupe_place_t *place,
                     const struct tri_place_members *members,
                     const troupe_member_t *member)
{
    switch (place->policy) {
    case TROUPE_PLACE_NODE:
        return member->node == place->node;
    case TROUPE_PLACE_RANK:
        return member->job == members->job && member->rank == place->rank;
    default: /* NAME */
        return strcmp(member->name, place->name) == 0;
    }
}

static int choose_named(const troupe_place_t *place,
                        const struct tri_place_members *members,
                        uint64_t *node_p)
{
    troupe_member_t member;
    uint32_t cursor = 0;
    uint64_t node = 0;
    bool gone = false;

    while (members->next(members->context, &cursor, &member)) {
        if (!is_named(place, members, &member))
            continue;
        if (!is_there(&member))
            gone = true;
        else if (node == 0 || member.node < node)
            node = member.node;
    }
    if (node == 0)
        return gone ? TROUPE_ENODE : TROUPE_ENONODE;
    *node_p = node;
    return 0;
}

/* --- one of many ---------------------------------------------------------- */

/* Which of the members come into question. */
struct filter {
    uint32_t state;
    uint64_t host; /* 0: any */
    uint64_t not;  /* this one not; 0: all */
};

static bool fits(const struct filter *filter, const troupe_member_t *member)
{
    return member->state == filter->state && member->node != filter->not &&
           (filter->host == 0 || member->host == filter->host);
}

/* The least loaded; 0: none. */
static uint64_t least_loaded(const struct tri_place_members *members,
                             const struct filter *filter)
{
    troupe_member_t member;
    uint32_t cursor = 0;
    uint64_t node = 0;
    float load = 0;

    while (members->next(members->context, &cursor, &member)) {
        if (!fits(filter, &member))
            continue;
        if (node == 0 || member.load < load ||
            (!(member.load > load) && tri_mix64(member.node ^ members->self) <
                                          tri_mix64(node ^ members->self))) {
            node = member.node;
            load = member.load;
        }
    }
    return node;
}

/* The turn's of those that fit; 0: none. */
static uint64_t next_in_turn(const struct tri_place_members *members,
                             const struct filter *filter)
{
    troupe_member_t member;
    uint32_t cursor = 0, n = 0, wanted;
    uint64_t node = 0;

    while (members->next(members->context, &cursor, &member))
        n += fits(filter, &member);
    if (n == 0)
        return 0;
    wanted = members->turn % n;
    cursor = 0;
    n = 0;
    while (members->next(members->context, &cursor, &member)) {
        if (!fits(filter, &member))
            continue;
        node = member.node; /* the last one, if some went meanwhile */
        if (n++ == wanted)
            break;
    }
    return node;
}

/* The living before the suspected. */
static uint64_t by_state(uint64_t (*choose)(const struct tri_place_members *,
                                            const struct filter *),
                         const struct tri_place_members *members,
                         struct filter filter)
{
    uint64_t node;

    filter.state = TROUPE_MEMBER_ALIVE;
    node = choose(members, &filter);
    if (node != 0)
        return node;
    filter.state = TROUPE_MEMBER_SUSPECT;
    return choose(members, &filter);
}

static int choose_on_host(const troupe_place_t *place,
                          const struct tri_place_members *members,
                          uint64_t *node_p)
{
    uint64_t beside = place->node != 0 ? place->node : members->self;
    struct filter filter = { .not = beside };
    troupe_member_t member;
    uint32_t cursor = 0;
    bool known = false;

    while (!known && members->next(members->context, &cursor, &member))
        known = member.node == beside;
    if (!known)
        return TROUPE_ENONODE;
    filter.host = member.host;
    *node_p = by_state(least_loaded, members, filter);
    if (*node_p != 0)
        return 0;
    if (!is_there(&member))
        return TROUPE_ENODE;
    *node_p = beside;
    return 0;
}

static int choose_any(uint64_t node, uint64_t *node_p)
{
    if (node == 0)
        return TROUPE_ENONODE;
    *node_p = node;
    return 0;
}

int tri_place_choose(const troupe_place_t *place,
                     const struct tri_place_members *members,
                     uint64_t *node_p)
{
    struct filter all = { .host = 0 };
    uint64_t node;
    int rc;

    switch (place->policy) {
    case TROUPE_PLACE_NAME:
        if (place->name == NULL || place->name[0] == '\0')
            return TROUPE_EINVAL;
        return choose_named(place, members, node_p);
    case TROUPE_PLACE_NODE:
    case TROUPE_PLACE_RANK:
        return choose_named(place, members, node_p);
    case TROUPE_PLACE_LEAST_LOADED:
        return choose_any(by_state(least_loaded, members, all), node_p);
    case TROUPE_PLACE_SPREAD:
        return choose_any(by_state(next_in_turn, members, all), node_p);
    case TROUPE_PLACE_SAME_HOST:
        rc = choose_on_host(place, members, &node);
        if (rc == 0)
            *node_p = node;
        return rc;
    default:
        return TROUPE_EINVAL;
    }
}
