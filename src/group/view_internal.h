/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_VIEW_INTERNAL_H
#define TRI_VIEW_INTERNAL_H

/*
 * What the files view*.c know of each other.
 *
 * One mutex for all groups of a node: there are few of them, and a step of the
 * core is short. Order of locks: the poll role, then the mutex, then what the
 * link takes when it sends. Groups are put into the table and taken out of it
 * with both the poll role and the mutex, so either is enough to look there; of a
 * group the poll role alone may look at its id.
 *
 * Records. All that groups say to each other are VIEW records on the control
 * lane; index: enum tri_view_what. A message of the core (TRI_VIEW_CORE) has
 * the group's id in `ask`, its size in `type`, and comes in pieces in their
 * order where the transport's records are smaller; generation: offset. All
 * others are a struct tri_view_note, or of names (TRI_VIEW_CLAIM and on) a
 * struct tri_claim_note with the group's id in `ask`.
 */

#include <pthread.h>

#include "actor/names.h"
#include "base/clock.h"
#include "group/view.h"

#define TRI_VIEW_GROUPS_MAX 64u
/* Ids of groups that were closed here, the last so many. */
#define TRI_VIEW_CLOSED_MAX 256u
/* Core's messages that are being put together from pieces, of all groups. */
#define TRI_VIEW_ARRIVALS_MAX 8u
/* Nodes that wait for this one to create a group, too. */
#define TRI_VIEW_HELLOS_MAX 4096u
/* Lists of members that were adopted last and stay valid. */
#define TRI_VIEW_LISTS 8u

enum tri_view_what {
    TRI_VIEW_CORE,
    /* creating: members to the first of the list, and its answers */
    TRI_VIEW_HELLO,    /* call, digest, value: an error found there */
    TRI_VIEW_WITHDRAW, /* call: no more */
    TRI_VIEW_START,    /* call, group: all have come */
    TRI_VIEW_FAIL,     /* call, value: why it cannot be */
    /* joining */
    TRI_VIEW_ASK,  /* call: who has a group of this name? */
    TRI_VIEW_HAVE, /* call, group, terms */
    /* boundaries: active members to the first of the view, and its answers */
    TRI_VIEW_ARRIVE,  /* epoch, number; value: somebody waits to join, leave */
    TRI_VIEW_GO,      /* the same: all are there; value: wait for a view */
    TRI_VIEW_RELEASE, /* the same: go on, there will be none */
    /* group: it was closed here, and is not what it says to you; number: the
       time here: what asks to join later is another life */
    TRI_VIEW_GONE,
    /* strictly unique names, see claims.c */
    TRI_VIEW_CLAIM,   /* epoch, number of the claim, name: may I have it? */
    TRI_VIEW_POLL,    /* epoch, number of the poll, name: do you have it? */
    TRI_VIEW_VOTE,    /* the same; value: 0, or EEXIST */
    TRI_VIEW_OUTCOME, /* epoch, number of the claim; value: 0, or EEXIST */
    TRI_VIEW_WHAT_LAST = TRI_VIEW_OUTCOME,
};

/* What all members have to agree on beforehand. */
struct tri_view_terms {
    uint32_t elastic;
    uint32_t size_min;
    uint32_t size_max;
    uint32_t proof;
    uint32_t on_minority;
    uint32_t check;
    uint32_t reproducible;
    uint32_t backend;
};

struct tri_view_note {
    uint64_t group; /* id; 0: not known yet */
    uint64_t call;  /* of the create or join, a number of who called */
    uint64_t epoch;
    uint64_t number;
    uint64_t digest; /* of terms and list */
    int32_t value;
    uint32_t reserved; /* zero */
    struct tri_view_terms terms;
    char name[TROUPE_GROUP_NAME_MAX + 1];
};

_Static_assert(sizeof(struct tri_view_note) == 144, "the layout of a note");

struct tri_claim_note {
    uint64_t epoch;
    uint64_t number;
    int32_t value;
    uint32_t reserved; /* zero */
    char name[TRI_NAME_LEN_MAX + 1];
};

_Static_assert(sizeof(struct tri_claim_note) == 280, "the layout of a claim");

enum tri_view_state {
    TRI_VIEW_CREATING, /* no core yet */
    TRI_VIEW_JOINING,
    TRI_VIEW_MEMBER,
};

/* The active members' arrivals at a boundary, at the first of them. */
struct tri_view_boundary {
    uint64_t epoch;
    uint64_t number;
    uint32_t len;
    bool wants;
};

struct troupe_group {
    struct tri_runtime *runtime;
    struct troupe_group *next_left;
    char name[TROUPE_GROUP_NAME_MAX + 1];
    troupe_group_options_t options;
    struct tri_view_terms terms;
    void *tensor; /* see tri_view_tensor */

    bool is_cluster; /* all nodes, for names: nobody adopts its views, and all
                        are at a boundary at any time */
    uint64_t *creating; /* the list of troupe_group_create_of */
    uint32_t creating_len;

    /* the mutex */
    _Atomic uint64_t id; /* 0: not known yet. With the mutex to write; read with
                            the poll role, too */
    enum tri_view_state state;
    struct tri_agree *agree; /* NULL: none yet */
    uint64_t call;           /* of creating or joining */
    uint64_t answerer;       /* joining: who has the group, */
    uint64_t found;          /* its id, */
    struct tri_view_terms theirs; /* and options */
    uint64_t pushed_to;      /* whom the core asked last */
    int outcome;  /* creating, joining: an error; 1: pending */
    bool has_come; /* creating: the first of the list was said HELLO */
    bool excluded, parted, no_quorum, refused;
    bool leaving;
    uint32_t losses; /* since the view that was adopted last */
    struct tri_view_boundary boundary; /* here, as the first member */
    struct tri_view_boundary told;     /* GO or RELEASE, the latest */
    bool released;

    /* who adopts, with the mutex to write */
    struct tri_view adopted;
    struct tri_view_member *lists[TRI_VIEW_LISTS];
    uint32_t lists_next;
    uint64_t boundary_number; /* of this epoch's boundaries, the last */
    bool has_arrived;         /* at that one, and is not through it */
    bool at_boundary;

    _Atomic uint64_t adopted_epoch; /* adopted.epoch, for any thread */
    _Atomic bool is_over;
    _Atomic bool wants_boundary;
};

/* A node that has called create; the first of its list is this node. */
struct tri_view_hello {
    uint64_t node;
    uint64_t call;
    uint64_t digest;
    int32_t error;
    char name[TROUPE_GROUP_NAME_MAX + 1];
};

struct tri_view_arrival {
    uint64_t node; /* 0: free */
    uint64_t group;
    uint32_t bytes;
    uint32_t total;
    unsigned char *data; /* TRI_AGREE_BYTES_MAX */
};

/* Process ids of this host's members, which the roster does not give to all
 * threads. */
struct tri_view_pid {
    uint64_t node; /* 0: free */
    uint32_t pid;
};

/* Polls that one node makes at a time; who finds no place asks again. */
#define TRI_CLAIM_POLLS_MAX 64u

/* A claim of this node: from troupe_spawn. */
struct tri_claim {
    struct tri_claim *next;
    uint64_t number;
    uint64_t epoch; /* in which it was told last; 0: not yet */
    int outcome;    /* 1: pending; 0: the name is ours */
    char name[TRI_NAME_LEN_MAX + 1];
};

/* A name that this node is the home of, while its members are asked. */
struct tri_claim_poll {
    uint64_t number; /* 0: free */
    uint64_t epoch;
    uint64_t claimant;
    uint64_t claim; /* its number there */
    uint64_t heard_ns; /* of the claimant */
    uint32_t votes_len;
    uint64_t votes[TRI_AGREE_MEMBERS_MAX / 64]; /* by place in the view */
    char name[TRI_NAME_LEN_MAX + 1];
};

/* Of strictly unique names. */
struct tri_claims {
    struct troupe_group *cluster; /* NULL: there are none */
    struct tri_claim *list;
    struct tri_claim_poll *polls; /* TRI_CLAIM_POLLS_MAX; NULL: none yet */
    uint64_t numbers;
    uint64_t join_ns; /* when to ask again to be let in */
    uint32_t join_cursor;
    bool is_out;   /* the others went on without this node */
    bool to_lose;  /* and its names are to be taken back */
};

struct tri_views {
    struct tri_runtime *runtime;
    pthread_mutex_t mutex; /* all that follows, but for what says otherwise */
    struct troupe_group *_Atomic groups[TRI_VIEW_GROUPS_MAX];
    struct troupe_group *left; /* closed by troupe_stop: actors may still call,
                                  so they are freed when threads are gone */
    uint64_t closed[TRI_VIEW_CLOSED_MAX];
    uint32_t closed_next;
    uint64_t calls;
    struct tri_view_hello *hellos;
    uint32_t hellos_len, hellos_max;
    struct tri_view_arrival arrivals[TRI_VIEW_ARRIVALS_MAX];
    uint32_t arrivals_next;
    struct tri_view_pid *pids;
    uint32_t pids_len, pids_max; /* a power of two */
    uint64_t due_ns; /* of the tick */
    bool in_tick;
    /* What datagrams say of the group with the lowest id. */
    _Atomic uint64_t told_epoch, told_digest;
    bool excluded;
    struct tri_claims claims;
    troupe_group_event_t *events; /* of TROUPE_GROUP_EVENTS_MAX */
    uint64_t events_first, events_last;
    uint32_t events_lost;
    _Atomic uint64_t changes; /* grows with what a thread may wait for */
};

/* --- view.c --------------------------------------------------------------- */

static inline struct tri_views *tri_views_of(const struct troupe_group *group)
{
    return group->runtime->views;
}

void tri_views_lock(struct tri_views *views);
void tri_views_unlock(struct tri_views *views);

/* Something is different: who waits looks again. */
void tri_views_changed_locked(struct tri_views *views);

/* Puts a group into the table, which has room. With the poll role, or before
 * there are threads. Errors: EEXIST, ELIMIT. */
int tri_view_put_locked(struct tri_views *views, struct troupe_group *group);

/* Whether those that live, as far as known here, can agree. */
bool tri_view_can_agree_locked(const struct troupe_group *group);

/* One event for a group's core, and all that comes of it. */
void tri_view_step_locked(struct troupe_group *group,
                          struct tri_agree_event *event);

/* Makes its core. Errors: ENOMEM, EINVAL. */
int tri_view_make_core_locked(struct troupe_group *group, uint64_t id,
                              uint32_t members_max);

/* Tells the core which members are dead already. */
void tri_view_bury_locked(struct troupe_group *group);

/* Has all datagrams tell of the newest view. */
void tri_view_announce_locked(struct tri_views *views);

/* A record to a node. Errors: ENODE (nobody by that id), ENOMEM. */
int tri_view_send(struct tri_views *views, uint64_t to,
                  struct tri_record *record, const void *payload);

/* Says a note. Errors: ENODE (nobody by that id), ENOMEM. */
int tri_view_say(struct tri_views *views, uint64_t to, enum tri_view_what what,
                 const struct tri_view_note *note);

/* Into the table, and out of it. Poll role not held. Errors: EEXIST, ELIMIT. */
int tri_view_insert(struct tri_views *views, struct troupe_group *group);
void tri_view_remove(struct tri_views *views, struct troupe_group *group);

struct troupe_group *tri_view_named_locked(struct tri_views *views,
                                           const char *name);

/* Whether a member may be sent to, as far as known here; proven_p: its death
 * is. */
enum tri_view_life { TRI_VIEW_UNKNOWN, TRI_VIEW_ALIVE, TRI_VIEW_DEAD,
                     TRI_VIEW_LEFT };
enum tri_view_life tri_view_life_of(struct tri_runtime *runtime, uint64_t node,
                                    bool *proven_p);

/* --- waiting: view.c ------------------------------------------------------ */

/*
 * Waits until look(arg), which is called with the mutex held whenever something
 * changed, is true. Errors: ETIMEDOUT.
 */
struct tri_view_wait {
    struct tri_views *views;
    bool (*look)(void *arg);
    void *arg;
    uint64_t seen;
    bool looked;
    bool met;
};
int tri_view_wait(struct tri_views *views, struct tri_seat *seat,
                  bool (*look)(void *arg), void *arg, uint64_t deadline_ns);

/* --- view_create.c -------------------------------------------------------- */

/* A note about creating or joining, of `node`. */
void tri_view_create_note_locked(struct tri_views *views, uint64_t node,
                                 enum tri_view_what what,
                                 const struct tri_view_note *note);

/* A node is gone: who waits for it to create a group need not. */
void tri_view_create_gone_locked(struct tri_views *views, uint64_t node);

/* A group in the making, or an error. options NULL: the defaults. */
int tri_view_new(struct tri_runtime *runtime, const char *name,
                 const troupe_group_options_t *options,
                 struct troupe_group **group_p);
void tri_view_free(struct troupe_group *group);

/* Tensors drop what they have of it. Views unlocked. */
void tri_view_close_tensor(struct troupe_group *group);

/* Errors: ECONTEXT, EINVAL. */
int tri_view_check_call(troupe_t *troupe, troupe_group_t **group_p);

/* The deadline of creating and joining. */
uint64_t tri_view_deadline(const struct troupe_group *group);

/* Of another node; and makes them this group's. */
bool tri_view_terms_are_valid(const struct tri_view_terms *terms);
void tri_view_take_terms(struct troupe_group *group,
                         const struct tri_view_terms *terms);

/* --- view_join.c ---------------------------------------------------------- */

void tri_view_join_note_locked(struct tri_views *views, uint64_t node,
                               enum tri_view_what what,
                               const struct tri_view_note *note);

/* --- view_adopt.c --------------------------------------------------------- */

/* Adopts the newest view and returns true, unless a member of it is not known
 * here yet. */
bool tri_view_adopt_locked(struct troupe_group *group);

/* Tells the core whether this node is at a boundary. */
void tri_view_stand_locked(struct troupe_group *group, bool at);

/* After adopting: tells the core whether this node has anything to do. */
void tri_view_stand_if_idle_locked(struct troupe_group *group);

/* Active members of a view of so many. */
uint32_t tri_view_active(const struct troupe_group *group, uint32_t len);

/* One round of leaving: a boundary, or a view that changes. Errors: as
 * troupe_group_update. */
int tri_view_leave_step(struct troupe_group *group, struct tri_seat *seat,
                        uint64_t deadline_ns);

void tri_view_fill_locked(const struct troupe_group *group,
                          troupe_view_t *view_p);

/* --- view_boundary.c ------------------------------------------------------ */

void tri_view_boundary_note_locked(struct troupe_group *group, uint64_t node,
                                   enum tri_view_what what,
                                   const struct tri_view_note *note);

/* All active members meet; then, when somebody waits to join or leave, the next
 * view. Returns 0 also when none came. Errors: ETIMEDOUT. */
int tri_view_meet(struct troupe_group *group, struct tri_seat *seat,
                  uint64_t deadline_ns);

/* --- claims.c ------------------------------------------------------------- */

/* A record about names. */
void tri_claims_note_locked(struct tri_views *views, uint64_t node,
                            const struct tri_record *record,
                            const void *payload);

/* Asks to be let in, while this node is not. Returns when to come again. */
uint64_t tri_claims_tick_locked(struct tri_views *views, uint64_t now_ns);

/* The cluster goes on without this node. */
void tri_claims_out_locked(struct tri_views *views);

/* --- view_events.c -------------------------------------------------------- */

void tri_view_raise_locked(struct troupe_group *group,
                           enum troupe_group_what what);

#endif
