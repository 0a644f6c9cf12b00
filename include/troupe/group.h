/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_GROUP_H
#define TROUPE_GROUP_H

/*
 * Groups: nodes that agree on who is among them, and do collectives together
 * (troupe/tensor.h). What all agree on is a view: a number, the epoch, and an
 * ordered list of members that is the same everywhere. When a member dies, the
 * others agree on the next view; a majority of the last one is needed for it,
 * or proof of the deaths, so that two halves never go on both.
 *
 * A view is used by the thread that does the collectives: it adopts each with
 * troupe_group_update (troupe_step_begin does it by itself). Between, calls of
 * an epoch that is over end with EVIEW.
 */

#include <troupe/error.h>
#include <troupe/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_group troupe_group_t;

#define TROUPE_GROUP_NAME_MAX 63

enum troupe_minority {
    TROUPE_MINORITY_WAIT, /* a side without a quorum waits for the others */
    TROUPE_MINORITY_STOP, /* its calls end with EPAUSED at once */
};

typedef struct troupe_group_options {
    int elastic;       /* 0: a loss ends its collectives for good, nobody joins,
                          and MPI's own collectives are used where they can be.
                          1: it goes on without who died, and with who joins */
    uint32_t size_min; /* active members; with fewer, calls pause. 1 */
    uint32_t size_max; /* active members; those beyond it are spares, in the
                          order of the view: they replace losses. 0: all */
    int proof;         /* deaths proven count for the quorum; 1 */
    int on_minority;   /* enum troupe_minority */
    const char *backend; /* "auto", "mpi", "native" */
    int check;         /* of a fixed group with MPI's collectives: calls that do
                          not match are found. Elsewhere they always are. 0 */
    int reproducible;  /* sums of floating point numbers do not depend on the
                          number of members or their order; slower. 0 */
    int timeout_ms;    /* of creating and joining; 30000 */
} troupe_group_options_t;

/* Fills in the defaults: of an elastic group. */
void troupe_group_options_init(troupe_group_options_t *options);

/*
 * Makes a group of all ranks of this job, in the order of ranks; collective
 * over them. name: 1 to TROUPE_GROUP_NAME_MAX of [A-Za-z0-9_.-]; one group of
 * a name at a time. options: NULL for the defaults; the same on all ranks.
 * A view, the first one as a rule, is adopted when it returns.
 * Context: the thread that started the node. Blocking: until all have called
 * it, up to timeout_ms.
 * Errors: EINVAL, EEXIST, ETIMEDOUT, ENODE (a rank has died), EMISMATCH
 * (options differ), EEXCLUDED (the others went on without this node before it
 * knew them all), ELIMIT (64 groups of a node; 2048 members), ENOMEM, ECONTEXT.
 */
int troupe_group_create(troupe_t *troupe, const char *name,
                        const troupe_group_options_t *options,
                        troupe_group_t **group_p);

/* The same over the listed nodes, this one among them, in this order; any
 * members of the cluster. Collective over them. */
int troupe_group_create_of(troupe_t *troupe, const char *name,
                           const uint64_t *nodes, uint32_t nodes_len,
                           const troupe_group_options_t *options,
                           troupe_group_t **group_p);

/*
 * Joins a group of that name that others have made: any member of the cluster
 * may. It is a member from the view on that the others agree on at their next
 * boundary, and that is adopted when this returns.
 * Errors: as above; ETIMEDOUT also when nobody has such a group; ELIMIT (it
 * takes nobody: it is not elastic, or full).
 */
int troupe_group_join(troupe_t *troupe, const char *name,
                      const troupe_group_options_t *options,
                      troupe_group_t **group_p);

/*
 * Leaves at the others' next boundary, without disturbing what they do, and
 * frees the group. With timeout_ms 0, or when that time has passed, it is
 * freed all the same: to the others it then died.
 * Context: as troupe_group_create. Errors: ETIMEDOUT.
 */
int troupe_group_leave(troupe_group_t **group_p, int timeout_ms);

/* Frees the group without a word, when all are done with it. NULL is allowed.
 * troupe_stop does it for those that are left. Context: as
 * troupe_group_create. */
void troupe_group_close(troupe_group_t **group_p);

typedef struct troupe_view {
    uint64_t epoch;
    uint64_t digest;  /* of epoch and list: equal digests, equal views */
    uint32_t len;     /* members, spares included */
    uint32_t active;  /* of them: the first ones */
    int32_t index;    /* this node's place in the list; -1: it is not in it */
    uint32_t losses;  /* members of the view before that died */
    uint32_t joined;  /* that were not in the view before */
    uint32_t reserved;
} troupe_view_t;

/* The adopted view. Any thread. */
void troupe_group_view(const troupe_group_t *group, troupe_view_t *view_p);

/* Node id of a place in the adopted view; 0: there is none. The thread that
 * adopts. */
uint64_t troupe_group_node(const troupe_group_t *group, uint32_t index);

/* Whether a newer view than the adopted one is agreed on, or being so: then
 * calls end with EVIEW. Any thread. */
int troupe_group_is_changing(const troupe_group_t *group);

/*
 * A boundary: adopts the newest view, after waiting for an agreement that is
 * under way. `collective`: all active members call it here, so that those who
 * wait to join or leave can be let in or out; a spare's call waits for the next
 * view. Returns 0 also when nothing changed. With fewer members than size_min
 * it waits for more, and any of them may join meanwhile.
 * Context: the thread that does the collectives. Blocking: up to timeout_ms,
 * serving actors.
 * Errors: ETIMEDOUT, EPAUSED (too few members, or no quorum; at once with
 * TROUPE_MINORITY_STOP, else after timeout_ms; the view may be adopted all the
 * same), EEXCLUDED (the others went on without this node), ENODE (a member of
 * a fixed group was lost), ECONTEXT, EINVAL. After ETIMEDOUT a collective one
 * goes on, when it is called again, with the same boundary.
 */
int troupe_group_update(troupe_group_t *group, int collective, int timeout_ms,
                        troupe_view_t *view_p);

/* What happens to the groups of this node. */
enum troupe_group_what {
    TROUPE_GROUP_VIEW = 1,   /* a view was agreed on */
    TROUPE_GROUP_CHANGING,   /* the view is over: the next is being agreed on */
    TROUPE_GROUP_NO_QUORUM,  /* three attempts failed; it goes on trying */
    TROUPE_GROUP_EXCLUDED,   /* the others went on without this node */
};

typedef struct troupe_group_event {
    uint32_t what; /* enum troupe_group_what */
    uint32_t lost; /* events dropped before this one */
    troupe_view_t view;
    char name[TROUPE_GROUP_NAME_MAX + 1];
} troupe_group_event_t;

/* Takes events, oldest first; the last TROUPE_GROUP_EVENTS_MAX are kept. Any
 * thread. Returns how many were filled in. */
#define TROUPE_GROUP_EVENTS_MAX 256
size_t troupe_group_events_take(troupe_t *troupe, troupe_group_event_t *events,
                                size_t events_len_max);

#ifdef __cplusplus
}
#endif

#endif
