/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_AGREE_INTERNAL_H
#define TRI_AGREE_INTERNAL_H

/*
 * What the files of the agreement core share; see agree_core.h for the
 * protocol.
 *
 *   agree_core.c    life, events, joining, what all send with
 *   agree_member.c  the member's part: deaths, promises, acceptance
 *   agree_leader.c  the leader's part: ballots, and what is proposed
 *   agree_view.c    views: how one follows from another; laggards, joiners
 *   agree_codec.c   messages and their bytes
 *
 * Members go by their place in the current view; sets of them are bits.
 */

#include <string.h>

#include "base/random.h"
#include "group/agree_core.h"

/* Joiners that are remembered, and added by one view: further ones ask again
 * and come with the next. Bounds proposals, which a promise carries. */
#define JOINS_MAX 256u
/* Of the last deaths: these may be about to be added. */
#define DEAD_NODES_MAX 64u
#define NONE UINT32_MAX
/* A ballot: attempt and the leader's place. */
#define PLACE_BITS 11u
#define PLACE_MASK ((1u << PLACE_BITS) - 1)
/* Attempts in vain before one is said to have no quorum. */
#define ATTEMPTS_NO_QUORUM 3u
/* Attempts in vain after which one goes without those that live and do not
 * answer. */
#define ATTEMPTS_PATIENT 3u
/* The longest attempt is this many times the first: 2^5. */
#define DOUBLINGS_MAX 5u
/* Bytes of all sends of a step, and their receivers: a view (32 KiB) to the
 * joiners beside a commit; a promise has 19 KiB. */
#define ARENA_BYTES (96u * 1024)
#define RECEIVERS_MAX (4u * TRI_AGREE_MEMBERS_MAX)

struct set {
    uint64_t bits[TRI_AGREE_MEMBERS_MAX / 64];
};

static inline bool set_has(const struct set *set, uint32_t place)
{
    return (set->bits[place / 64] >> (place % 64)) & 1;
}

/* True: it was not there. */
static inline bool set_add(struct set *set, uint32_t place)
{
    uint64_t bit = 1ull << (place % 64);
    bool is_new = (set->bits[place / 64] & bit) == 0;

    set->bits[place / 64] |= bit;
    return is_new;
}

static inline void set_remove(struct set *set, uint32_t place)
{
    set->bits[place / 64] &= ~(1ull << (place % 64));
}

static inline bool set_is_empty(const struct set *set)
{
    for (size_t i = 0; i < tri_array_len(set->bits); i++)
        if (set->bits[i] != 0)
            return false;
    return true;
}

static inline uint32_t set_len(const struct set *set)
{
    uint32_t len = 0;

    for (size_t i = 0; i < tri_array_len(set->bits); i++)
        len += (uint32_t)__builtin_popcountll(set->bits[i]);
    return len;
}

/* A node that wants in, and the number of its asking: rises with each life of
 * it in the group. 0: a member from the start. */
struct joiner {
    uint64_t node;
    uint64_t number;
};

#define NUMBER_UNKNOWN UINT64_MAX

struct joins {
    uint32_t len;
    struct joiner list[JOINS_MAX]; /* by node id, each once */
};

/* What follows after a view. */
struct proposal {
    uint64_t mark;
    uint32_t losses;
    struct set removed;
    struct joins added;
};

/* --- messages ------------------------------------------------------------- */

enum kind {
    PREPARE = 1,
    PROMISE,  /* accepted, mark, dead, joins; AWAY: taken back */
    PROPOSE,
    ACCEPT,
    REJECT,   /* ballot: the promise that is higher */
    COMMIT,
    VIEW,     /* the list as a whole; epoch: of that view; ballot: the promise
                 of who asked for it */
    REPORT,   /* dead, joins and leaves, to the leader; and a question for the
                 outcome, if the other has it. ballot: own promise */
    JOIN,     /* epoch 0; number */
    REFUSED,  /* number: of the JOIN */
    GONE,     /* the sender's life in the group is over; number: of a JOIN that
                 is over; AWAY: joins, with that number */
    EXCLUDED, /* epoch: of the view that you are not in */
    KIND_LAST = EXCLUDED,
};

#define FLAG_GENTLE 1u /* PREPARE, PROPOSE, PROMISE, ACCEPT */
#define FLAG_AWAY 2u
#define FLAG_LEAVES 4u /* PROMISE, REPORT: the sender wants out */
#define FLAGS_ALL 7u

/* One shape for all kinds; what a kind does not use is zero. */
struct message {
    uint8_t kind;
    uint8_t flags;
    uint64_t number;
    uint64_t group;
    uint64_t epoch;
    uint64_t ballot;
    uint64_t mark;     /* PROMISE: the sender's; VIEW: the view's */
    uint64_t accepted; /* ballot, or 0 */
    uint64_t digest;   /* COMMIT, VIEW: of the view */
    struct set proven;
    struct set dead;
    struct proposal proposal;
    struct joins joins;
    uint32_t list_len;
    struct tri_agree_member list[TRI_AGREE_MEMBERS_MAX]; /* VIEW */
    uint64_t numbers[TRI_AGREE_MEMBERS_MAX]; /* of those that joined by it */
};

/* At most TRI_AGREE_BYTES_MAX, which there must be room for; returns how many.
 * View's `losses` are the proposal's. */
size_t tri_agree_encode(const struct message *message, unsigned char *bytes_p);

/* False: no message. Places are below TRI_AGREE_MEMBERS_MAX only. On false
 * message_p is in any state. */
bool tri_agree_decode(const unsigned char *data, size_t bytes,
                      struct message *message_p);

/* --- state ---------------------------------------------------------------- */

enum phase {
    IDLE,
    PREPARING,
    PROPOSING,
};

struct leader {
    enum phase phase;
    bool gentle;
    uint64_t ballot;
    uint64_t due_ns;
    uint32_t attempts;  /* in vain, of this epoch */
    uint32_t calls;     /* PREPARE(gentle), sent again: it may take long */
    struct set proven;  /* PD of this ballot's PREPARE */
    struct set promised;
    struct set accepted;
    uint64_t best;      /* highest ballot that promises report */
    struct proposal proposal;
    uint64_t marks[TRI_AGREE_MEMBERS_MAX]; /* of those that promised */
};

struct tri_agree {
    struct tri_agree_config config;
    struct tri_random random;
    struct tri_agree_effects *effects; /* of this step */
    uint64_t now_ns;

    struct tri_agree_view view;
    struct tri_agree_member members[TRI_AGREE_MEMBERS_MAX];
    uint64_t numbers[TRI_AGREE_MEMBERS_MAX]; /* see struct joiner */
    uint32_t place; /* this node's; NONE: outside */
    bool is_over;   /* excluded, parted or quit */

    /* Asking to join. */
    bool is_joining;
    uint64_t join_to;
    uint64_t join_number;
    uint32_t join_tries;
    uint64_t join_due_ns;

    /* Of the current epoch. */
    struct set dead;    /* proven ones included */
    struct set proven;
    struct set leaving;
    bool is_shunned;    /* somebody takes this node for dead: it does not lead */
    uint64_t promised;
    uint64_t accepted;  /* ballot, or 0 */
    struct proposal accepted_proposal;
    uint64_t held;      /* ballot of a proposal with nodes not known yet */
    bool held_gentle;
    uint64_t held_due_ns;
    struct proposal held_proposal;
    uint64_t gentle;    /* ballot of a gentle PREPARE that is open */
    uint64_t mark;
    bool is_frozen;
    uint64_t attempt;   /* the highest seen */
    bool is_new;        /* the next tick looks what is to be done in this view:
                           a step installs one at most */
    uint64_t settle_ns; /* when the ballot may start; 0: no death yet */
    uint64_t watch_ns;  /* when to ask for the outcome; 0: none is awaited */
    uint32_t watches;
    bool has_said_no_quorum;
    struct leader leader;

    /* Across epochs. */
    bool is_at_boundary;
    bool wants_out;
    struct joins joins;
    struct {
        uint64_t node;
        bool proof;
    } dead_nodes[DEAD_NODES_MAX];
    uint32_t dead_nodes_next;

    /* The list that is about to be installed. */
    uint32_t next_len;
    struct tri_agree_member next[TRI_AGREE_MEMBERS_MAX];
    uint64_t next_numbers[TRI_AGREE_MEMBERS_MAX];

    struct message in;
    struct message out;
    uint32_t arena_len;
    unsigned char arena[ARENA_BYTES];
    uint32_t receivers_len;
    uint64_t receivers[RECEIVERS_MAX];
};

/* agree_core.c */
uint32_t tri_agree_place(const struct tri_agree *agree, uint64_t node);
/* Clears `out` for a message of this epoch. */
struct message *tri_agree_message(struct tri_agree *agree, enum kind kind);
/* Sends `out`: to a node, to the other members that are not dead, to the
 * receivers from `first` on. */
void tri_agree_send_to(struct tri_agree *agree, uint64_t node);
void tri_agree_send_living(struct tri_agree *agree);
void tri_agree_send_receivers(struct tri_agree *agree, uint32_t first);
bool tri_agree_add_receiver(struct tri_agree *agree, uint64_t node);
/* Attempt, doubled so often, with jitter. */
uint64_t tri_agree_patience_ns(struct tri_agree *agree, uint32_t doublings);
void tri_agree_join_add(struct tri_agree *agree, struct joiner joiner);

/* agree_member.c: the member's part; the leader is a member, too. */
void tri_agree_freeze(struct tri_agree *agree);
/* Takes over deaths; true: there was news. */
bool tri_agree_adopt_dead(struct tri_agree *agree, const struct set *dead,
                          const struct set *proven);
/* What to do about what was learnt: lead, or tell who does. */
void tri_agree_pursue(struct tri_agree *agree);
void tri_agree_watch_tick(struct tri_agree *agree);
void tri_agree_promise(struct tri_agree *agree, uint64_t ballot, bool gentle);
void tri_agree_accept(struct tri_agree *agree, uint64_t ballot,
                      const struct proposal *proposal);
void tri_agree_on_prepare(struct tri_agree *agree, uint32_t place);
void tri_agree_on_propose(struct tri_agree *agree, uint32_t place);
void tri_agree_on_report(struct tri_agree *agree, uint32_t place);
void tri_agree_boundary(struct tri_agree *agree, bool at);
/* Has the view end although nobody died: leads at once, as several may. */
void tri_agree_renew(struct tri_agree *agree);
/* Nodes are known, or will not be: accepts what is held. */
void tri_agree_held(struct tri_agree *agree, bool at_last);

/* agree_leader.c */
uint32_t tri_agree_leader_place(const struct tri_agree *agree);
/* Starts, or goes on, with what is known now. */
void tri_agree_lead(struct tri_agree *agree);
void tri_agree_lead_ballot(struct tri_agree *agree, bool gentle);
void tri_agree_lead_tick(struct tri_agree *agree);
void tri_agree_lead_promise(struct tri_agree *agree, uint32_t place,
                            const struct message *message);
void tri_agree_lead_accept(struct tri_agree *agree, uint32_t place,
                           uint64_t ballot);
void tri_agree_lead_reject(struct tri_agree *agree, uint64_t ballot,
                           uint64_t promised);
/* Something waits for a boundary. */
bool tri_agree_has_changes(const struct tri_agree *agree);

/* agree_view.c */
/* Makes the list that follows. */
void tri_agree_view_next(struct tri_agree *agree,
                         const struct proposal *proposal);
bool tri_agree_view_is_sound(const struct tri_agree *agree,
                             const struct proposal *proposal);
uint64_t tri_agree_view_digest(uint64_t epoch,
                               const struct tri_agree_member *members,
                               uint32_t len);
/* Installs the next list as that of the next epoch; or of epoch `epoch`, for
 * who begins. */
void tri_agree_view_install(struct tri_agree *agree, uint64_t epoch,
                            uint64_t mark, uint32_t losses);
/* The leader has all it needs. */
void tri_agree_view_commit(struct tri_agree *agree);
void tri_agree_view_on_commit(struct tri_agree *agree);
void tri_agree_view_on_list(struct tri_agree *agree);
/* Sends the current view. */
void tri_agree_view_send(struct tri_agree *agree, uint32_t first,
                         uint64_t ballot);
/* To a node that speaks of epoch `in.epoch`, which is over. */
void tri_agree_view_answer_late(struct tri_agree *agree, uint64_t node);

#endif
