/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_AGREE_CORE_H
#define TRI_AGREE_CORE_H

/*
 * Agreed views: all members of a group see the same sequence of member lists.
 * One agreement an epoch, on what comes after view V_e: who is removed, who is
 * added, and the mark (below). Paxos ballots (L. Lamport, "The part-time
 * parliament", 1998) among the members of V_e, led by the first of them that
 * lives; always with the prepare round, whose answers bring what the leader
 * must know.
 *
 *     leader                       member
 *     PREPARE(ballot, PD) ----->   adopts PD, freezes, promises
 *             <-----------------   PROMISE(accepted, mark, DEAD, joins)
 *     PROPOSE(ballot, view) ---->  accepts
 *             <-----------------   ACCEPT
 *     COMMIT(ballot, view) ----->  installs; V_{e+1}
 *
 * A ballot is (attempt, position of its leader in V_e) and carries one
 * proposal, never changed. Quorum Q(S): |S| > |V_e| / 2; or |S| = |V_e| / 2 and
 * S has the first of V_e; or, with option `proof`, S has every member of V_e
 * outside the PD set (those proven dead) that this ballot's PREPARE carried.
 *
 * Who is proposed stays: each member of V_e that is not removed has promised in
 * this very ballot, so the leader waits for all that live (membership ends the
 * wait for those that do not); the quorum alone does not do.
 *
 * The mark. A member says with tri_agree_mark how far it is prepared (a number
 * that grows: steps whose reductions it holds whole). The view carries the
 * least of the marks of those that stay. A member that has promised is frozen:
 * its mark does not grow any more in this epoch. So who has seen, from all of
 * the view, that they are prepared for k (a vote), may commit k at any time:
 * the next view's mark is then at least k with everybody that stays. And
 * what is above the mark nobody has committed.
 *
 * Losses. Who hears of a death freezes at once, which ends what runs in the
 * epoch, and tells the leader (REPORT). The ballot starts after `settle_ns`, at
 * once when all causes are proofs.
 *
 * Growth. Joins and leaves alone freeze nobody: a member answers
 * PREPARE(gentle) only while it is at a boundary (event BOUNDARY), and takes it
 * back when it goes on; the leader proposes when all are there with equal
 * marks; a member accepts while it is at that same boundary, and only this
 * freezes it. So no work is thrown away but when somebody goes on just then. A
 * death meanwhile, or a member that is frozen, starts a higher ballot that is
 * not gentle, and which takes the joiners along.
 *
 * A commit also waits until all that stay and live have accepted: so when a
 * joiner begins with a view, no living member of the one before can go another
 * way. A member that lives for membership but does not answer for four attempts
 * (each twice as long as the last) is not waited for any more, if the others
 * are a quorum: it is not in the next view, and is told EXCLUDED when it wakes
 * (but when it promised, and nodes join: then it is waited for until it dies).
 * A leader that does nothing is replaced by the next in place, after as long.
 *
 * Guards. The quorum by proof needs them, and the first any Paxos;
 * tests/sim/test_agree_guards.c shows for each what goes wrong without it:
 *   1. who promises a higher ballot leads its own no more, and installs nothing
 *      of a lower one;
 *   2. messages from a process that is proven dead are dropped;
 *   3. the PD set travels in PREPARE and PROPOSE, and is adopted first.
 *
 * Laggards. Who is in V_{e+2} was at e + 1, as it promised there; so no member
 * is more than one view behind, and the current view is all that is kept. Who
 * waits too long for an outcome asks (REPORT with its promise) and gets the view
 * with that promise as ballot, so that guard 1 holds; one outside gets
 * EXCLUDED. A joiner's number (chosen at JOIN) comes back with its first view:
 * a view for an earlier life of it in the group is not taken.
 *
 * Invariants:
 *   1. For one epoch no two nodes install different views, ever. With proof:
 *      no two nodes that live, but that a node which others took for dead, or
 *      did not wait for, may outlive them all, and with it those they added.
 *   2. A node installs epochs in order, one by one, and only views that have
 *      it; a joiner begins with the first view that has it.
 *   3. After a promise for ballot b nothing is accepted below b, and the mark
 *      stands still until the epoch ends (gentle: after it accepted).
 *   4. view.mark is at most the mark of each that stays, at least what any
 *      member of V_e committed; all marks of V_{e+1} begin with it.
 *   5. Members in a view are ordered: those of V_e in their order, then those
 *      added, by node id. So the oldest come first.
 *
 * Pure: events in, effects out; time is in the event; no allocation after
 * create; no I/O. Messages may be lost, doubled, and overtake each other.
 */

#include "base/base.h"

struct tri_agree_member {
    uint64_t node;
    uint64_t since; /* epoch of the first view that had it, without a break */
};

struct tri_agree_view {
    uint64_t epoch;  /* the first is 1 */
    uint64_t digest; /* of epoch and members */
    uint64_t mark;
    uint32_t len;
    uint32_t losses; /* members of the view before that died */
    struct tri_agree_member *members; /* len of them */
};

struct tri_agree_config {
    uint64_t group; /* id: of its name; in each message */
    uint64_t node;  /* this one */
    uint32_t members_max;   /* of a view; joiners beyond it wait. At most
                               TRI_AGREE_MEMBERS_MAX */
    bool closed;            /* JOIN is refused */
    bool proof;             /* deaths proven count for the quorum */
    uint64_t attempt_ns;    /* of a ballot without an outcome, at first; it
                               doubles, with jitter, up to 32 times */
    uint64_t settle_ns;     /* between the first death that is not proven and
                               the ballot */
    uint64_t seed;          /* of the jitter */
    /* Whether a node can be reached from here: a view that adds one that is
     * not known yet is accepted when it is. NULL: always. */
    bool (*is_known)(void *context, uint64_t node);
    void *context;
    uint32_t ablate;        /* TRI_AGREE_WITHOUT_…: for tests */
};

#define TRI_AGREE_MEMBERS_MAX 2048u
/* Of a message: a record of the control lane. */
#define TRI_AGREE_BYTES_MAX (32u * 1024)

#define TRI_AGREE_WITHOUT_GUARD_1 1u
#define TRI_AGREE_WITHOUT_GUARD_2 2u
#define TRI_AGREE_WITHOUT_GUARD_3 4u
#define TRI_AGREE_WITHOUT_FREEZE 8u /* of the mark */
#define TRI_AGREE_WITHOUT_ACCEPTED 16u /* leaders do not take it up */

enum tri_agree_event_kind {
    TRI_AGREE_TICK = 1, /* at tri_agree_due_ns */
    TRI_AGREE_MESSAGE,  /* from `node`: data, bytes */
    TRI_AGREE_DEATH,    /* of `node`; proof: it is proven. Again, with proof,
                           when that comes later. Nodes outside the view are
                           allowed; after `installed` those that are known to be
                           dead are told again */
    TRI_AGREE_PART,     /* `node` left the cluster in an orderly way */
    TRI_AGREE_GONE,     /* `node` says that it has no part in the group. Its
                           time was `number` then: what it asked for later, by
                           a JOIN, is another life of it */
    TRI_AGREE_BOUNDARY, /* at: whether this node is at a boundary now */
    TRI_AGREE_JOIN,     /* this node wants in: asks `node`, or with node 0 all
                           that the caller knows */
    TRI_AGREE_LEAVE,    /* this node wants out at the next boundary */
    TRI_AGREE_QUIT,     /* it is out now, and says so to all: to them it died,
                           proven. Also ends a JOIN. Nothing happens after it */
    TRI_AGREE_RENEW,    /* this view is to be followed by another with the same
                           members: nobody is known to have died, and still it
                           does not go on */
    TRI_AGREE_AHEAD,    /* `node` spoke of a later epoch than the one here */
    TRI_AGREE_KNOWN,    /* more nodes are known now, see is_known */
};

struct tri_agree_event {
    enum tri_agree_event_kind kind;
    uint64_t now_ns;
    uint64_t node;
    uint64_t number;
    bool proof;
    bool at;
    const unsigned char *data;
    size_t bytes;
};

struct tri_agree_send {
    const uint64_t *to; /* nodes; valid until the next step, as is data */
    uint32_t to_len;    /* 0: all nodes that may have the group (JOIN) */
    const unsigned char *data;
    size_t bytes;
};

#define TRI_AGREE_SENDS_MAX 8u

struct tri_agree_effects {
    uint32_t sends_len;
    struct tri_agree_send sends[TRI_AGREE_SENDS_MAX];
    bool installed; /* tri_agree_view is another now; a tick is due at once */
    bool frozen;    /* became so: what runs in this epoch is to be ended */
    bool excluded;  /* the others went on without this node; for good */
    bool parted;    /* a view without this node, as it asked for; for good */
    bool no_quorum; /* three attempts in vain: said once an epoch; it goes on
                       trying */
    bool refused;   /* JOIN: the group takes nobody (ELIMIT) */
};

struct tri_agree;

/* Errors: ENOMEM, EINVAL. */
int tri_agree_create(const struct tri_agree_config *config,
                     struct tri_agree **agree_p);
void tri_agree_destroy(struct tri_agree **agree_p);

/* The first view, the same on all its members (epoch 1, given order). Without
 * it the node is outside, and may JOIN. Errors: EINVAL. */
int tri_agree_begin(struct tri_agree *agree, const uint64_t *nodes,
                    uint32_t len);

void tri_agree_step(struct tri_agree *agree,
                    const struct tri_agree_event *event,
                    struct tri_agree_effects *effects);

/*
 * Prepared up to `mark` in this epoch. False: frozen, or another epoch; the
 * mark is what it was.
 */
bool tri_agree_mark(struct tri_agree *agree, uint64_t epoch, uint64_t mark);

/* The current view; epoch 0: none yet. Valid until the next step. */
const struct tri_agree_view *tri_agree_view(const struct tri_agree *agree);

/* A change of view by losses is under way. */
bool tri_agree_is_frozen(const struct tri_agree *agree);

/* There is something to agree on at the next boundary: joins, leaves. */
bool tri_agree_wants_boundary(const struct tri_agree *agree);

uint64_t tri_agree_due_ns(const struct tri_agree *agree);

#endif
