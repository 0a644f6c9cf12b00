/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_ROSTER_H
#define TRI_ROSTER_H

/*
 * What this node knows of the members, for users: cards, states, what they say
 * of themselves, and the events that tell of changes.
 *
 * Written by the control thread alone (but for this node's own tags), read by
 * any thread without a lock: each entry has a sequence number that is odd
 * while it is written, and a reader copies it again if the number moved. So a
 * reader that loses its core keeps nobody waiting, and a listing is of whole
 * entries, each as it was at some moment of the call.
 *
 * An entry keeps its place for as long as it is remembered. This job's ranks
 * have the first places, by rank; others the lowest free one. When room is
 * needed the dead go, who died first goes first; there is room for
 * members_max living ones and as many dead.
 */

#include <troupe/member.h>

#include "actor/runtime.h"
#include "member/card.h"
#include "member/swim_core.h"
#include "member/traits.h"

struct tri_roster;

struct tri_roster_config {
    struct tri_runtime *runtime; /* NULL: nobody is told (tests) */
    const struct tri_member_card *self; /* copied */
    uint32_t members_max;               /* alive at once, this one included */
};

/* This node is its first member. Errors: ENOMEM, EINVAL. */
int tri_roster_create(const struct tri_roster_config *config,
                      struct tri_roster **roster_p);
void tri_roster_destroy(struct tri_roster **roster_p);

/* --- the control thread, or before it runs -------------------------------- */

/* A member, alive as far as known. Raises nothing: tri_roster_change does,
 * after it. The card is copied. Errors: ELIMIT (so many are alive), EEXIST. */
int tri_roster_add(struct tri_roster *roster,
                   const struct tri_member_card *card);

/*
 * What the core reports (struct tri_swim_change): enum tri_swim_state and
 * _evidence. before UNKNOWN: it joined. Unknown nodes and moves that cannot
 * be (out of DEAD or LEFT) are ignored. Tells users, with no lock held.
 */
void tri_roster_change(struct tri_roster *roster, uint64_t node,
                       uint8_t before, uint8_t after, uint8_t evidence,
                       uint32_t incarnation);

/* What a member says of itself. Unknown nodes are ignored; tags of more than
 * TROUPE_MEMBER_TAGS_MAX bytes are cut. */
void tri_roster_load(struct tri_roster *roster, uint64_t node, float load);
void tri_roster_tags(struct tri_roster *roster, uint64_t node,
                     const char *tags, size_t tags_len);

/* The others hold this node for dead. Tells users, once. */
void tri_roster_excluded(struct tri_roster *roster);

/* The card of a node, or NULL; valid until the next tri_roster_add. */
const struct tri_member_card *tri_roster_card(const struct tri_roster *roster,
                                              uint64_t node);

/* This node's own card, to be completed before others see it. */
struct tri_member_card *tri_roster_own_card(struct tri_roster *roster);

/*
 * Goes on with the replays of new subscribers; bounded work. Returns when to
 * come again at the latest; TRI_NS_NEVER: when tri_roster_kick was called.
 */
uint64_t tri_roster_run(struct tri_roster *roster, uint64_t now_ns);

/*
 * Samples this node's load, at most every 250 ms. True: it is to be announced,
 * as it changed by a quarter or crossed zero, and 500 ms have passed since it
 * last was.
 */
bool tri_roster_own_load(struct tri_roster *roster, uint64_t now_ns,
                         float *load_p);

/* The same for load and tags together; new tags are announced at once. The
 * version grows with each announcement. */
bool tri_roster_own_traits(struct tri_roster *roster, uint64_t now_ns,
                           struct tri_traits *traits_p);

/* --- any thread ----------------------------------------------------------- */

/* Walks the members in listing order: *cursor_p from 0 while it is true. */
bool tri_roster_next(struct tri_roster *roster, uint32_t *cursor_p,
                     troupe_member_t *member_p);

bool tri_roster_get(struct tri_roster *roster, uint64_t node,
                    troupe_member_t *member_p);

/* The member of that name that is not dead, or the node with the lowest id of
 * several. gone_p: whether a dead one has it (NULL: not wanted). */
bool tri_roster_find(struct tri_roster *roster, const char *name,
                     troupe_member_t *member_p, bool *gone_p);

/* What a member said last, and what was placed there since. 0: unknown. */
float tri_roster_load_of(struct tri_roster *roster, uint64_t node);

/* An actor was placed there: counts as load until the member speaks again, so
 * that a burst does not go to one. */
void tri_roster_placed(struct tri_roster *roster, uint64_t node);

/* A turn of TROUPE_PLACE_SPREAD. */
uint32_t tri_roster_turn(struct tri_roster *roster);

uint32_t tri_roster_alive_len(struct tri_roster *roster);
bool tri_roster_is_excluded(struct tri_roster *roster);

/* Grows with each change that users may wait for. */
uint64_t tri_roster_changes(struct tri_roster *roster);

/* As tri_roster_load_of, for the member that tri_roster_next found at cursor
 * `place` (before it moved it on). */
float tri_roster_load_at(struct tri_roster *roster, uint32_t place,
                         const troupe_member_t *member);

/* Has the control thread look at what is new: new tags, a replay. */
void tri_roster_kick(struct tri_roster *roster);

/* This node's tags. Errors: EINVAL. */
int tri_roster_own_tags(struct tri_roster *roster, const char *tags);

/* --- events: any thread --------------------------------------------------- */

#define TRI_SUBSCRIBERS_MAX 4096u

/* Subscribes an actor of this node, or starts its replay again. Errors:
 * ELIMIT, ENOMEM. */
int tri_roster_subscribe(struct tri_roster *roster, uint32_t slot,
                         uint32_t generation, bool replay);
void tri_roster_unsubscribe(struct tri_roster *roster, uint32_t slot,
                            uint32_t generation);

/* Takes from the queue that no actor has to be there for. */
size_t tri_roster_take(struct tri_roster *roster, troupe_member_event_t *events,
                       size_t events_len_max);

#endif
