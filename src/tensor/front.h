/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_FRONT_H
#define TRI_FRONT_H

/*
 * The front: what all calls of a group have in common, whatever carries them.
 *
 *     call -> entry, queued -> started (number, back end) -> done
 *                  any thread with the front's lock drives it:
 *                  inbox -> received, open_progress, start, progress
 *
 * A front belongs to a group, from its first collective, or from the first
 * record that comes for it, to its close. It has a team for the view that it
 * knows; the thread that adopts views replaces it by the next.
 *
 * Invariants (F for the front's lock):
 *   1. Entries are started in the order of their calls, one after the other.
 *      Which back end carries one is decided when it starts, from what is the
 *      same on all members: the calls before it and outcomes of collectives.
 *      So all choose alike.
 *   2. A number is given to an entry when it starts; it is the same on all
 *      members.
 *   3. Nothing is started in a team that has ended; all that is under way in it
 *      ends with its error. A back end's instance is closed by the thread that
 *      started the node alone.
 *   4. What comes while F is held elsewhere, or before its epoch or instance is
 *      there, waits in the inbox, in order.
 *
 * Locks: F is a try-lock to all but the thread that waits; tensor->lock (the
 * list of fronts) and inbox_lock are held for some instructions, within F or
 * without, never F within them.
 */

#include "base/lock.h"
#include "os/thread.h"
#include "tensor/tensor.h"

/* Calls remembered, to be compared with those that others wait for. More than
 * a member can be ahead of another that waits, in most programs. */
#define TRI_FRONT_RECENT 64u

struct tri_recent {
    uint64_t number; /* 0: none */
    uint64_t signature[2];
};

/* What waits for its epoch, of one group. */
#define TRI_FRONT_INBOX_BYTES_MAX (64u << 20)

/* Fronts of groups that are not known here, made by records that came early: as
 * many as a node has groups. */
#define TRI_FRONT_EARLY_MAX 64u

enum tri_entry_state {
    TRI_ENTRY_QUEUED,
    TRI_ENTRY_STARTED,
    TRI_ENTRY_LINGERS, /* failed, as by a death: waits for the view to end */
    TRI_ENTRY_DONE,
};

/* Who issues: the thread that started the node, or an actor. */
struct tri_issuer {
    uint32_t slot; /* 0: the thread */
    uint32_t generation;
};

/* A collective, from its call to its outcome. */
struct troupe_collective {
    struct tri_coll coll;
    struct tri_tensor *tensor;      /* when it was taken up */
    struct tri_front *front;        /* to be held: tri_front_hold_of */
    struct troupe_collective *next; /* F; those under way, in order */
    uint8_t state;                  /* F; enum tri_entry_state */
    uint8_t backend;                /* F; enum tri_backend_id; when started */
    bool internal;                  /* the front's own: of choice.c */
    bool is_trial;                  /* its time is noted */
    bool is_chosen;                 /* `backend` is */
    bool is_prepared;               /* checked against the team */
    uint32_t looks;                 /* F; without an outcome */
    uint64_t looked_ns;             /* F; when it was last told of, see
                                       tri_front_wonder_locked; 0: never */
    uint64_t begun_ns;              /* the same; or since when it lingers */
    void *scratch;                  /* a copy of what overlaps; owned */
    int rc;                         /* before done */
    _Atomic bool done;              /* rc and outputs are there: release */
    troupe_ref_t to;                /* F; send_when_done */
    void *message;                  /* F; NULL: none */
    int *rc_p;                      /* F */
    struct tri_exact *exact;        /* exact.c: a reproducible sum; or NULL */
};

struct tri_instance {
    struct tri_backend *backend; /* NULL: not open */
    bool wanted;                 /* the starting thread is to open it */
    bool ready;                  /* all members are */
    int rc;                      /* of its opening */
};

/* Of a kind and class of sizes, in an elastic group with a choice. */
#define TRI_CHOICE_CLASSES 12u
#define TRI_CHOICE_SLOTS (TRI_COLL_KIND_LAST * TRI_CHOICE_CLASSES)

struct tri_choice_slot {
    uint8_t decided; /* enum tri_backend_id; 0: not yet */
    uint8_t trials;  /* begun */
    uint64_t best_ns[TRI_BACKENDS];
};

enum tri_council {
    TRI_COUNCIL_NONE,
    TRI_COUNCIL_CAN,   /* whether all can use MPI, and have the same table */
    TRI_COUNCIL_READY, /* whether it stands everywhere */
    TRI_COUNCIL_TIMES, /* of a slot */
};

/* All of F. What members decide together, by allreduces on the native back
 * end that come between the calls, see choice.c. */
struct tri_choice {
    bool on;        /* there may be a choice in this team */
    bool available; /* MPI stands everywhere */
    bool forced;    /* option "mpi": no trials then */
    uint32_t starts;     /* of the program's collectives in this team */
    uint32_t next_starts; /* when the next council is */
    enum tri_council next;
    enum tri_council under_way;
    uint32_t slot; /* that TIMES are of */
    struct troupe_collective entry;
    const struct troupe_collective *before; /* which call of the program */
    uint64_t in[3], out[3];
    struct tri_choice_slot slots[TRI_CHOICE_SLOTS];
    uint64_t table_hosts; /* for which hosts `slots` were decided; 0: none */
};

struct tri_front {
    struct tri_front *next; /* tensor->lock */
    uint32_t users;         /* tensor->lock; threads that hold it */
    bool is_early;          /* tensor->lock; known by records alone */
    struct tri_tensor *tensor;
    struct troupe_group *group; /* NULL: known by records alone yet; starter */
    uint64_t group_id;
    _Atomic uint32_t waiters;      /* threads that drive it while they wait */
    _Atomic uint32_t under_way;    /* entries not done, or their messages not
                                      sent; writer: F */
    _Atomic bool needs_starter;    /* some of them only it can move; F */
    _Atomic bool may_block;        /* F is held by a blocking call */
    _Atomic uint32_t moves;        /* grows when something got on; F */

    struct tri_lock inbox_lock;
    struct tri_message *inbox_first; /* inbox_lock */
    struct tri_message **inbox_end;  /* inbox_lock */
    size_t inbox_bytes;              /* inbox_lock */
    _Atomic uint32_t inbox_len;      /* writer: inbox_lock */
    _Atomic uint64_t lost_epoch;     /* writer: inbox_lock; the last in which
                                        there was no room for a record */

    struct tri_lock lock; /* F, for all below */
    bool is_elastic;
    bool is_reproducible;
    bool checks;
    uint8_t wanted; /* enum tri_backend_id; FRONT: "auto" */
    uint32_t size_min;
    bool has_team;
    struct tri_team team;
    struct tri_view_member *members; /* the team's; owned */
    int ended;  /* the team's error; 0: it goes on */
    bool left;  /* ended, with all that was under way in it, and another view
                   is adopted: what is queued waits for that one's team */
    _Atomic bool was_told; /* an elastic one's team was ended by what another
                              member cannot go on with */
    int broken; /* a fixed group's error, for ever */
    struct tri_instance instances[TRI_BACKENDS];
    uint8_t fixed; /* the back end of a team without a choice */
    uint64_t number;
    struct tri_recent recent[TRI_FRONT_RECENT]; /* while there is a choice */
    struct troupe_collective *first; /* under way */
    struct troupe_collective **end;
    struct troupe_collective *unsent; /* done, their messages not yet sent */
    uint32_t issued;          /* the program's, under way */
    struct tri_issuer issuer; /* of them */
    _Atomic(const char *) last_backend;
    struct tri_choice choice;
};

struct tri_tensor {
    struct tri_runtime *runtime;
    const struct tri_backend_ops *const *backends;
    struct tri_lock lock;     /* the list */
    struct tri_front *fronts; /* lock */
    /* TRI_STATE, of training: as runtime->tensor_record and _message, which see
     * to it that the pieces above are theirs. NULL: dropped. */
    void (*state_record)(struct tri_runtime *runtime, struct tri_peer *peer,
                         const struct tri_record *record,
                         const void *payload);
    void (*state_message)(struct tri_runtime *runtime, struct tri_peer *peer,
                          struct tri_message *message);
    void *state; /* training's own */
    /* The mover: moves what nobody waits for. */
    pthread_t mover;
    _Atomic bool mover_started; /* writer: the lock */
    _Atomic bool mover_stops;
    struct tri_parker mover_parker;
};

/* --- front.c -------------------------------------------------------------- */

/* The front of a group, made if there is none; held. Errors: NULL (memory). */
struct tri_front *tri_front_hold(struct tri_tensor *tensor, uint64_t group_id);

/* The same for a record of a group that is not known here yet. Beyond
 * TRI_FRONT_EARLY_MAX of them the oldest one goes, with what came for it: its
 * group's creation has failed here, or there never was one. Poll lock held. */
struct tri_front *tri_front_hold_early(struct tri_tensor *tensor,
                                       uint64_t group_id);
void tri_front_release(struct tri_front *front);

/* That of an entry that was taken up, held. NULL: the group was closed. */
struct tri_front *tri_front_hold_of(const struct troupe_collective *entry);

/* Moves all that is under way; the lock held. */
void tri_front_drive_locked(struct tri_front *front);

/* The same if nobody else does. True when it did. */
bool tri_front_drive(struct tri_front *front);

/* runtime->tensor_closed: the group's front goes, whoever has made it: a call,
 * or a record of a group that none was ever made of. */
void tri_front_closed(struct tri_runtime *runtime, uint64_t group_id);

/* Ends the team: all that is under way ends with rc. Of causes that the others
 * learn of by themselves; else tri_front_fail_locked. */
void tri_front_end_team_locked(struct tri_front *front, int rc);

/* True: another view is adopted than the team's, and nothing of the team is
 * under way any more; what is queued now is for the next team. */
bool tri_front_leave_locked(struct tri_front *front);

/* An entry is over: its outcome. It is in the list no more. */
void tri_front_finish_locked(struct tri_front *front,
                             struct troupe_collective *entry, int rc);

/* Its message is sent when somebody drives the front. */
void tri_front_send_later_locked(struct tri_front *front,
                                 struct troupe_collective *entry);

/* Checks an entry against the team, and sees to buffers that overlap. Done
 * once. Errors: EINVAL, ENOMEM, ELIMIT. */
int tri_front_prepare_locked(struct tri_front *front,
                             struct troupe_collective *entry);

/* Takes up an entry. */
void tri_front_queue_locked(struct tri_front *front,
                            struct troupe_collective *entry);

/* Starts an entry on a back end now. Errors: the back end's. */
int tri_front_start_locked(struct tri_front *front,
                           struct troupe_collective *entry, uint8_t backend);

static inline void tri_front_moved(struct tri_front *front)
{
    atomic_store_explicit(
        &front->moves,
        atomic_load_explicit(&front->moves, memory_order_relaxed) + 1,
        memory_order_relaxed);
}

static inline bool tri_is_starter(const struct tri_runtime *runtime)
{
    return pthread_equal(pthread_self(), runtime->starter) != 0;
}

/* --- front_team.c --------------------------------------------------------- */

/*
 * The team of the adopted view: the one there is, or a new one. The thread that
 * adopts; the lock held.
 * Errors: EVIEW, ENODE, EPAUSED, EEXCLUDED, EMPI, ENOMEM, …
 */
int tri_front_team_locked(struct tri_front *front, struct troupe_group *group);

/* Has an instance of a back end; it is ready when open_progress says so. */
int tri_front_open_locked(struct tri_front *front, uint8_t backend);
void tri_front_close_locked(struct tri_front *front, uint8_t backend);

/* A member has, so the view will end. */
bool tri_front_has_died(const struct tri_front *front);

/* Moves instances on that open. */
void tri_front_opening_locked(struct tri_front *front);

/* All instances, and the members. The starting thread. */
void tri_front_close_team_locked(struct tri_front *front);

/* --- front_records.c ------------------------------------------------------ */

void tri_front_record(struct tri_runtime *runtime, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload);
void tri_front_message(struct tri_runtime *runtime, struct tri_peer *peer,
                       struct tri_message *message);

/* Hands on what waits in the inbox and can be. */
void tri_front_drain_locked(struct tri_front *front);
void tri_front_inbox_free(struct tri_front *front);

/* A back end found that a member called something else: tells all. */
void tri_front_mismatch_locked(struct tri_front *front,
                               const struct tri_coll *coll, uint8_t backend);

/*
 * Ends the team for a cause of this member's own, and tells the others, who
 * would wait for it. backend: whose error it is; FRONT: the front's, or of a
 * back end that could not tell.
 */
void tri_front_fail_locked(struct tri_front *front, uint8_t backend, int rc);

/* The group's last team was ended by what another member could not go on with:
 * in another view, without it, the others may. The starting thread. */
bool tri_front_was_told(struct troupe_group *group);

/*
 * Members whose calls differ may have chosen different back ends for them, each
 * of which waits for those who are not there. So while there is a choice who
 * has no outcome for long tells the others what it called.
 */
void tri_front_wonder_locked(struct tri_front *front,
                             struct troupe_collective *entry);

/* --- front_wait.c --------------------------------------------------------- */

/* Drives the front until the entry is done. Errors: ETIMEDOUT. */
int tri_front_wait(struct tri_front *front, struct troupe_collective *entry,
                   uint64_t deadline_ns);

/* There is something that nobody waits for, or news of it. */
void tri_front_kick_mover(struct tri_tensor *tensor);
/* Has the mover run. Errors: ENOMEM, ESYSTEM. */
int tri_front_need_mover(struct tri_tensor *tensor);
void tri_front_stop_mover(struct tri_tensor *tensor);

/* runtime->tensor_hook. */
bool tri_front_hook(struct tri_runtime *runtime);

/* --- choice.c ------------------------------------------------------------- */

/* A team begins. */
void tri_choice_begin(struct tri_front *front);

/* Which back end carries the next entry. False: members have to agree first,
 * ask again later. */
bool tri_choice_of(struct tri_front *front, struct troupe_collective *entry,
                   uint8_t *backend_p);

/* A trial is done, or a council. */
void tri_choice_done(struct tri_front *front, struct troupe_collective *entry,
                     int rc);

#endif
