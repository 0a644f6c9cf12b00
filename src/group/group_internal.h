/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_GROUP_INTERNAL_H
#define TRI_GROUP_INTERNAL_H

/* What group.c, drain.c and quiesce.c know of each other. */

#include <pthread.h>

#include "group/group.h"
#include "group/quiesce_core.h"

/* Entries of a report. */
#define TRI_GROUP_BUSY_MAX 64u

/* A drain with one node. Numbers: 0 is none. */
struct tri_drain_member {
    uint64_t node;        /* who it is about; the slot may get another peer */
    bool is_buried;
    uint64_t pending;     /* our drain that it has not answered */
    uint64_t data_seen;   /* its drain, as its records came in */
    uint64_t replies_seen;
    uint64_t stalled;     /* its drain, which waits for what is parked */
    uint32_t parked_len;  /* markers among that */
    uint64_t wanted;      /* its drain, for the next batch of markers */
    uint64_t in_batch;    /* its drain, in the batch that is under way */
};

struct tri_report {
    uint32_t len;
    troupe_busy_t entries[TRI_GROUP_BUSY_MAX];
};

struct tri_group {
    struct tri_runtime *runtime;
    pthread_mutex_t mutex; /* all that follows; held while sending */
    uint32_t len;          /* ranks */
    uint32_t self;
    _Atomic uint32_t deaths; /* of the link's, those we have dealt with */
    struct tri_report last;  /* of the last call that expired */

    struct tri_quiesce quiesce;
    struct tri_quiesce_member *members;
    bool is_quiescing;         /* a thread is */
    struct tri_report links;   /* messages on their way, of this call */
    _Atomic uint64_t look_ns;  /* when the caller has to do something */

    struct tri_drain_member *drains; /* by the peers' slots: all nodes */
    struct tri_report who;           /* what others say, of this drain */
    bool is_draining;                /* a thread is */
    bool is_batch;                   /* markers are out */
    uint32_t wanted_len;
    uint64_t drain; /* number */
    int drain_error;
    _Atomic uint32_t pending_len;
};

/* --- group.c -------------------------------------------------------------- */

void tri_group_lock(struct tri_group *group);
void tri_group_unlock(struct tri_group *group);

/* Slots of peers so far: ranks, then nodes that joined. */
static inline uint32_t tri_group_slots(struct tri_group *group)
{
    return tri_link_peers_len(&group->runtime->link);
}

/* Who is busy, at a slot. */
troupe_busy_t tri_group_busy_at(struct tri_group *group, uint32_t slot,
                                enum troupe_busy_what what);

/* to: a slot or TRI_QUIESCE_ALL, which is all ranks. */
void tri_group_send_locked(struct tri_group *group, uint32_t to,
                           const struct tri_quiesce_message *message);

/* Tells quiesce and drain of deaths since the last time. */
void tri_group_bury_locked(struct tri_group *group);

bool tri_group_has_deaths(struct tri_group *group);

/* Adds to a report unless it is full. */
void tri_report_add(struct tri_report *report, troupe_busy_t entry);

/* Makes it the last one, and logs it. */
void tri_group_report_locked(struct tri_group *group, const char *call,
                             const struct tri_report *report);

void tri_group_wake(struct tri_group *group);

/* --- quiesce.c ------------------------------------------------------------ */

void tri_quiesce_take_locked(struct tri_group *group, uint32_t rank,
                             const struct tri_quiesce_message *message);
void tri_quiesce_bury_locked(struct tri_group *group, uint32_t rank);

/* --- drain.c -------------------------------------------------------------- */

/* slot: of the peer that it comes from. */
void tri_drain_take_locked(struct tri_group *group, uint32_t slot,
                           const struct tri_record *record);
void tri_drain_take_who_locked(struct tri_group *group, uint32_t slot,
                               const struct tri_quiesce_message *message);

/* Looks for peers that died. */
void tri_drain_bury_locked(struct tri_group *group);
void tri_drain_unparked(struct tri_runtime *runtime, struct tri_peer *peer);
void tri_drain_markers_ended(struct tri_runtime *runtime);

#endif
