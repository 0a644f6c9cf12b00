/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What moves quiesce_core.h: records as they come, and the thread that is in
 * the call, which alone knows when this node is idle: a thread that polls is
 * not.
 */

#include <string.h>

#include "base/clock.h"
#include "group/group_internal.h"

/* Between two looks at whether this node is idle. */
#define LOOK_NS 50000u
/* The shortest sleep. */
#define NAP_NS 100000u

/* --- this node's state ---------------------------------------------------- */

struct counts {
    uint64_t sent;
    uint64_t received;
    bool waiting; /* to be sent */
    bool parked;  /* in front of full mailboxes */
};

/* Of the traffic with the living. */
static struct counts count_locked(struct tri_group *group)
{
    struct counts counts = { 0 };

    for (uint32_t i = 0; i < group->len; i++) {
        struct tri_peer *peer = &group->runtime->link.peers[i];

        if (i == group->self || group->members[i].is_dead)
            continue;
        counts.sent += tri_peer_count(&peer->sent);
        counts.received += tri_peer_count(&peer->received);
        counts.waiting |= tri_peer_is_waiting(peer);
        /* acquire: pairs with the release in flow.c */
        counts.parked |= atomic_load_explicit(&peer->parked_len,
                                              memory_order_acquire) > 0;
    }
    return counts;
}

/*
 * Idle is not a single look. But when the counts are the same before and
 * after it, then they were those of the moment in which no actor had anything
 * to do.
 */
static struct tri_quiesce_event snapshot_locked(struct tri_group *group)
{
    struct counts before = count_locked(group), after;
    struct tri_quiesce_event event = { .kind = TRI_QUIESCE_ON_SNAPSHOT };

    if (!tri_scheduler_is_quiet(&group->runtime->scheduler))
        event.flags |= TRI_QUIESCE_ACTORS;
    after = count_locked(group);
    if (before.sent != after.sent || before.received != after.received ||
        before.parked || after.parked)
        event.flags |= TRI_QUIESCE_ACTORS;
    if (before.waiting || after.waiting)
        event.flags |= TRI_QUIESCE_OUTBOX;
    event.sent = after.sent;
    event.received = after.received;
    return event;
}

/* --- stepping ------------------------------------------------------------- */

/* Each node that got messages from us compares, and says what it lacks. */
static void tell_counts_locked(struct tri_group *group)
{
    struct tri_quiesce_message message = { .kind = TRI_QUIESCE_COUNT,
                                           .call = group->quiesce.call };

    for (uint32_t i = 0; i < group->len; i++) {
        if (i == group->self || group->members[i].is_dead)
            continue;
        message.sent = tri_peer_count(&group->runtime->link.peers[i].sent);
        if (message.sent > 0)
            tri_group_send_locked(group, i, &message);
    }
}

static void step_locked(struct tri_group *group,
                        struct tri_quiesce_event *event)
{
    struct tri_quiesce_effects effects;

    event->now_ns = tri_now_ns();
    tri_quiesce_step(&group->quiesce, event, &effects);
    for (uint32_t i = 0; i < effects.len; i++)
        tri_group_send_locked(group, effects.sends[i].to,
                              &effects.sends[i].message);
    if (effects.asks)
        tell_counts_locked(group);
}

/* When the caller is needed: at once for a snapshot or the end. */
static uint64_t next_look_locked(struct tri_group *group)
{
    struct tri_quiesce *quiesce = &group->quiesce;

    if (quiesce->outcome != TRI_QUIESCE_PENDING ||
        tri_quiesce_wants_snapshot(quiesce))
        return 0;
    return tri_quiesce_next_ns(quiesce);
}

/* After a step by another thread than the caller. */
static void call_the_caller_locked(struct tri_group *group, bool in_call)
{
    uint64_t look_ns = next_look_locked(group);

    if (!in_call || look_ns >= atomic_load(&group->look_ns))
        return;
    atomic_store(&group->look_ns, look_ns);
    tri_group_wake(group);
}

static void note_link(struct tri_group *group, uint32_t rank,
                      enum troupe_busy_what what, uint64_t messages)
{
    troupe_busy_t entry = tri_group_busy_at(group, rank, what);

    entry.messages = messages;
    tri_report_add(&group->links, entry);
}

static void take_count_locked(struct tri_group *group, uint32_t rank,
                              const struct tri_quiesce_message *message)
{
    struct tri_peer *peer = &group->runtime->link.peers[rank];
    uint64_t received = tri_peer_count(&peer->received);
    struct tri_quiesce_message late = { .kind = TRI_QUIESCE_LATE,
                                        .call = message->call };

    if (message->sent <= received)
        return;
    late.sent = message->sent - received;
    tri_group_send_locked(group, rank, &late);
    if (group->quiesce.call != 0)
        note_link(group, rank, TROUPE_BUSY_FROM, late.sent);
}

static void take_late_locked(struct tri_group *group, uint32_t rank,
                             const struct tri_quiesce_message *message)
{
    if (group->quiesce.call == 0 || message->call != group->quiesce.call)
        return;
    note_link(group, rank, TROUPE_BUSY_TO, message->sent);
}

void tri_quiesce_take_locked(struct tri_group *group, uint32_t rank,
                             const struct tri_quiesce_message *message)
{
    struct tri_quiesce_event event = { .kind = TRI_QUIESCE_ON_MESSAGE,
                                       .rank = rank,
                                       .message = message };
    bool in_call = group->quiesce.call != 0;

    if (message->kind == TRI_QUIESCE_COUNT) {
        take_count_locked(group, rank, message);
    } else if (message->kind == TRI_QUIESCE_LATE) {
        take_late_locked(group, rank, message);
    } else {
        step_locked(group, &event);
        call_the_caller_locked(group, in_call);
    }
}

void tri_quiesce_bury_locked(struct tri_group *group, uint32_t rank)
{
    struct tri_quiesce_event event = { .kind = TRI_QUIESCE_ON_DEATH,
                                       .rank = rank };
    bool in_call = group->quiesce.call != 0;

    step_locked(group, &event);
    call_the_caller_locked(group, in_call);
}

/* --- the call ------------------------------------------------------------- */

/* Does what is due on the caller's thread; true when the call is over. */
static bool is_over(struct tri_group *group)
{
    struct tri_quiesce *quiesce = &group->quiesce;
    struct tri_quiesce_event tick = { .kind = TRI_QUIESCE_ON_TICK };
    uint64_t look_ns = atomic_load(&group->look_ns);
    bool over;

    if (look_ns != 0 && !tri_group_has_deaths(group) &&
        tri_now_ns() < look_ns)
        return false;
    tri_group_lock(group);
    tri_group_bury_locked(group);
    if (tri_quiesce_wants_snapshot(quiesce)) {
        struct tri_quiesce_event snapshot = snapshot_locked(group);

        step_locked(group, &snapshot);
    }
    step_locked(group, &tick);
    look_ns = next_look_locked(group);
    over = quiesce->outcome != TRI_QUIESCE_PENDING;
    if (!over && look_ns == 0)
        look_ns = tri_now_ns() + LOOK_NS;
    atomic_store(&group->look_ns, look_ns);
    tri_group_unlock(group);
    return over;
}

static enum troupe_busy_what what_of(uint32_t why)
{
    switch (why) {
    case TRI_QUIESCE_IS_ABSENT:
        return TROUPE_BUSY_ABSENT;
    case TRI_QUIESCE_HAS_ACTORS:
        return TROUPE_BUSY_ACTORS;
    case TRI_QUIESCE_HAS_OUTBOX:
        return TROUPE_BUSY_OUTBOX;
    default:
        return TROUPE_BUSY_SILENT;
    }
}

static void report_locked(struct tri_group *group, const char *call)
{
    const struct tri_quiesce_message *status = &group->quiesce.status;
    struct tri_report report = { 0 };

    for (uint32_t i = 0; i < status->len; i++)
        if (status->entries[i].who < group->len)
            tri_report_add(&report,
                           tri_group_busy_at(group, status->entries[i].who,
                                             what_of(status->entries[i].what)));
    for (uint32_t i = 0; i < group->links.len; i++)
        tri_report_add(&report, group->links.entries[i]);
    tri_group_report_locked(group, call, &report);
}

static int start(struct tri_group *group, uint64_t patience_ns,
                 uint64_t deadline_ns)
{
    struct tri_quiesce_event event = { .kind = TRI_QUIESCE_ON_START,
                                       .patience_ns = patience_ns,
                                       .deadline_ns = deadline_ns };
    int rc = 0;

    tri_group_lock(group);
    if (group->is_quiescing) {
        rc = TROUPE_ECONTEXT;
    } else {
        group->is_quiescing = true;
        group->links.len = 0;
        tri_group_bury_locked(group);
        step_locked(group, &event);
        atomic_store(&group->look_ns, 0);
    }
    tri_group_unlock(group);
    return rc;
}

static int end(struct tri_group *group, const char *call)
{
    int rc = 0;

    tri_group_lock(group);
    atomic_store(&group->look_ns, TRI_QUIESCE_NEVER);
    group->is_quiescing = false;
    if (group->quiesce.outcome == TRI_QUIESCE_IS_GIVEN_UP)
        rc = TROUPE_ESTOPPING;
    if (group->quiesce.outcome == TRI_QUIESCE_IS_EXPIRED)
        rc = TROUPE_ETIMEDOUT;
    if (rc != 0)
        report_locked(group, call);
    tri_group_unlock(group);
    return rc;
}

/* A wait in tri_wait, with a deadline of its own. */
struct nap {
    struct tri_group *group;
    uint64_t until_ns;
    bool is_over;
};

/* Also when there is something to do clearly before the nap would end. */
static bool has_reason(void *arg)
{
    struct nap *nap = arg;

    nap->is_over = is_over(nap->group);
    return nap->is_over ||
           atomic_load(&nap->group->look_ns) < nap->until_ns - NAP_NS;
}

int tri_group_quiesce(struct tri_runtime *runtime, struct tri_seat *seat,
                      const char *call, uint64_t patience_ns,
                      uint64_t deadline_ns)
{
    struct tri_group *group = runtime->group;
    struct nap nap = { .group = group };
    int rc = start(group, patience_ns, deadline_ns);

    if (rc != 0)
        return rc;
    do {
        /* the deadline is the core's: it makes is_over true */
        nap.until_ns = tri_max(atomic_load(&group->look_ns),
                               tri_now_ns() + NAP_NS);
        tri_wait(seat, has_reason, &nap, nap.until_ns);
    } while (!nap.is_over);
    return end(group, call);
}
