/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_ROSTER_INTERNAL_H
#define TRI_ROSTER_INTERNAL_H

/* What roster.c, roster_events.c and roster_own.c share. */

#include "base/lock.h"
#include "member/roster.h"
#include "member/spread.h"

#define TRI_ROSTER_WORDS (sizeof(troupe_member_t) / sizeof(uint64_t))

_Static_assert(sizeof(troupe_member_t) % sizeof(uint64_t) == 0, "whole words");
_Static_assert(offsetof(troupe_member_t, node) == 0, "words[0] is the node");

/* What readers see of a member; node 0: none. */
struct tri_roster_entry {
    _Atomic uint32_t sequence; /* odd: being written */
    _Atomic uint32_t placed;   /* here, since it spoke last */
    _Atomic uint64_t words[TRI_ROSTER_WORDS];
};

/* Who gets events: an actor of this node. */
struct tri_subscriber {
    uint32_t slot; /* 0: a free place */
    uint32_t generation;
    uint32_t replayed; /* places before this one; UINT32_MAX: all */
    uint32_t lost;     /* events that memory lacked for */
};

struct tri_roster {
    /* constant */
    struct tri_runtime *runtime;
    uint64_t node;
    uint64_t job;
    uint32_t job_size;    /* the first places are its ranks' */
    uint32_t members_max;
    uint32_t places_max;
    uint32_t index_mask;

    /* the control thread's */
    struct tri_member_card *cards; /* by place */
    uint64_t *gone; /* by place: the how-manieth to die it was; 0: it lives */
    uint64_t gone_count;
    uint64_t load_due_ns; /* of the next sample */
    uint64_t load_told_ns;
    uint64_t tags_told_ns;
    float load_told;
    uint64_t version; /* of own traits */
    struct tri_spread *spread; /* what spreads them; NULL: nothing (tests) */

    /* written by the control thread, read by all */
    _Atomic uint32_t places_len __attribute__((aligned(TRI_CACHE_LINE)));
    _Atomic uint32_t alive_len;
    _Atomic uint32_t excluded;
    _Atomic uint64_t changes;
    _Atomic uint32_t index_sequence; /* odd: being written */
    _Atomic uint32_t *index;         /* node to place + 1; linear probing */
    struct tri_roster_entry *entries;

    /* this node's tags are set by any thread, so entries have two writers */
    struct tri_lock write_lock __attribute__((aligned(TRI_CACHE_LINE)));
    _Atomic uint32_t tags_new; /* not announced yet */
    _Atomic uint32_t turn;

    struct tri_lock subscribers_lock __attribute__((aligned(TRI_CACHE_LINE)));
    uint32_t subscribers_len; /* places ever used */
    struct tri_subscriber *subscribers;
    _Atomic uint32_t replays; /* somebody waits for one */

    struct tri_lock queue_lock __attribute__((aligned(TRI_CACHE_LINE)));
    uint64_t queue_first; /* events ever taken or dropped */
    uint64_t queue_last;  /* events ever put */
    uint32_t queue_lost;  /* since the last that was taken */
    troupe_member_event_t *queue;
};

/* --- roster.c ------------------------------------------------------------- */

#define TRI_NO_PLACE UINT32_MAX

uint32_t tri_roster_place_of(struct tri_roster *roster, uint64_t node);
void tri_roster_read(struct tri_roster *roster, uint32_t place,
                     troupe_member_t *member_p);
void tri_roster_write_locked(struct tri_roster *roster, uint32_t place,
                             const troupe_member_t *member);

/* Something is different that users may wait for. */
void tri_roster_changed(struct tri_roster *roster);

/* This node's tags are to be announced. Any thread. */
bool tri_roster_has_new_tags(struct tri_roster *roster);

/* --- roster_events.c ------------------------------------------------------ */

int tri_roster_events_init(struct tri_roster *roster);
void tri_roster_events_fini(struct tri_roster *roster);

/* Tells users; control thread, no lock held. */
void tri_roster_raise(struct tri_roster *roster, enum troupe_member_what what,
                      uint32_t place);

#endif
