/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_PLACE_H
#define TRI_PLACE_H

/* Where to put an actor: a pure choice among members. */

#include <stdbool.h>

#include <troupe/member.h>

/* Who there is to choose from. */
struct tri_place_members {
    /* Walks them, in the same order each time: *cursor_p from 0 while it is
     * true. member.load: with what is known beyond what it said. */
    bool (*next)(void *context, uint32_t *cursor_p, troupe_member_t *member_p);
    void *context;
    uint64_t self; /* this node */
    uint64_t job;  /* its job */
    uint32_t turn; /* of SPREAD: grows by one with each choice */
};

/*
 * Errors: as troupe_place. Of equally loaded ones each node prefers another,
 * so that many nodes that choose at once do not all choose the same.
 */
int tri_place_choose(const troupe_place_t *place,
                     const struct tri_place_members *members,
                     uint64_t *node_p);

#endif
