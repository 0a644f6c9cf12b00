/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Drains, see group.h: asking others, and answering them and ourselves.
 *
 *     records of a peer     data, replies: both seen -> stalled
 *     last of its messages that were parked by then is unparked
 *                           stalled -> wanted
 *     no batch under way    wanted -> in_batch, for all peers; markers
 *     last marker           in_batch -> answered
 */

#include "base/clock.h"
#include "group/group_internal.h"
#include "link/flow.h"

/* --- answering ------------------------------------------------------------ */

static void on_answer_locked(struct tri_group *group, uint32_t slot,
                             uint64_t number, int error)
{
    struct tri_drain_member *member = &group->drains[slot];

    if (number == 0 || member->pending != number)
        return; /* to a drain that has expired */
    member->pending = 0;
    if (error != 0)
        group->drain_error = error;
    if (atomic_fetch_sub(&group->pending_len, 1) == 1)
        tri_group_wake(group);
}

/* Who was in that slot is dead, or was never asked: nothing is wanted of it. */
static void forget_locked(struct tri_group *group, uint32_t slot)
{
    struct tri_drain_member *member = &group->drains[slot];

    group->wanted_len -= member->wanted != 0;
    member->wanted = member->stalled = member->in_batch = 0;
    on_answer_locked(group, slot, member->pending, 0);
}

/* The member of a slot, about the peer that has it now. */
static struct tri_drain_member *member_locked(struct tri_group *group,
                                              uint32_t slot)
{
    struct tri_drain_member *member = &group->drains[slot];
    uint64_t node = group->runtime->link.peers[slot].node;

    if (member->node != node) {
        forget_locked(group, slot);
        *member = (struct tri_drain_member){ .node = node };
    }
    return member;
}

static void answer_locked(struct tri_group *group, uint32_t slot,
                          uint64_t number, int error)
{
    struct tri_record record = {
        .kind = TRI_DRAINED,
        .sender_node = group->runtime->node,
        .ask = number,
        .value = error,
    };

    if (slot == group->self)
        on_answer_locked(group, slot, number, error);
    else /* in vain if it is dead */
        tri_link_send(&group->runtime->link.peers[slot], &record, NULL,
                      TRI_SEND_FORCED);
}

static void end_batch_locked(struct tri_group *group)
{
    int error = group->runtime->markers.lacks_memory ? TROUPE_ENOMEM : 0;

    group->is_batch = false;
    for (uint32_t i = 0; i < tri_group_slots(group); i++) {
        struct tri_drain_member *member = &group->drains[i];
        uint64_t number = member->in_batch;

        member->in_batch = 0;
        if (number != 0)
            answer_locked(group, i, number, error);
    }
}

static void begin_batches_locked(struct tri_group *group)
{
    while (!group->is_batch && group->wanted_len > 0) {
        for (uint32_t i = 0; i < tri_group_slots(group); i++) {
            struct tri_drain_member *member = &group->drains[i];

            member->in_batch = member->wanted;
            member->wanted = 0;
        }
        group->wanted_len = 0;
        group->is_batch = true;
        if (!tri_markers_push(group->runtime))
            return;
        end_batch_locked(group);
    }
}

void tri_drain_markers_ended(struct tri_runtime *runtime)
{
    struct tri_group *group = runtime->group;

    tri_group_lock(group);
    end_batch_locked(group);
    begin_batches_locked(group);
    tri_group_unlock(group);
}

static void want_locked(struct tri_group *group, uint32_t slot,
                        uint64_t number)
{
    struct tri_drain_member *member = member_locked(group, slot);

    group->wanted_len += member->wanted == 0;
    member->wanted = number; /* one that it asked before has expired */
    member->stalled = 0;
    begin_batches_locked(group);
}

/* What is parked is not in a mailbox yet: that first. Poll lock held. */
static void begin_stall_locked(struct tri_group *group, uint32_t slot,
                               uint64_t number)
{
    struct tri_drain_member *member = member_locked(group, slot);
    uint32_t marked;
    int rc = tri_flow_mark(&group->runtime->link.peers[slot], &marked);

    member->parked_len += marked;
    if (rc != 0) {
        answer_locked(group, slot, number, rc);
        return;
    }
    member->stalled = number;
    if (member->parked_len == 0)
        want_locked(group, slot, number);
}

void tri_drain_unparked(struct tri_runtime *runtime, struct tri_peer *peer)
{
    struct tri_group *group = runtime->group;
    struct tri_drain_member *member;

    tri_group_lock(group);
    member = member_locked(group, tri_peer_slot(peer));
    if (--member->parked_len == 0 && member->stalled != 0)
        want_locked(group, tri_peer_slot(peer), member->stalled);
    tri_group_unlock(group);
}

void tri_drain_take_locked(struct tri_group *group, uint32_t slot,
                           const struct tri_record *record)
{
    struct tri_drain_member *member = member_locked(group, slot);

    switch (record->kind) {
    case TRI_DRAIN:
        member->data_seen = record->ask;
        break;
    case TRI_DRAIN_REPLIES:
        member->replies_seen = record->ask;
        break;
    default: /* TRI_DRAINED */
        on_answer_locked(group, slot, record->ask,
                         record->value <= 0 ? record->value : TROUPE_EPROTO);
        return;
    }
    if (record->ask != 0 && member->data_seen == member->replies_seen)
        begin_stall_locked(group, slot, record->ask);
}

/* --- who is busy ---------------------------------------------------------- */

static void answer_who_locked(struct tri_group *group, uint32_t slot,
                              const struct tri_quiesce_message *who)
{
    struct tri_busy_actor actors[TRI_QUIESCE_ENTRIES_MAX];
    struct tri_quiesce_message busy = { .kind = TRI_QUIESCE_BUSY,
                                        .call = who->call };

    busy.busy_len = tri_actors_busy(group->runtime, actors,
                                    TRI_QUIESCE_ENTRIES_MAX);
    busy.len = (uint16_t)tri_min(busy.busy_len, TRI_QUIESCE_ENTRIES_MAX);
    for (unsigned i = 0; i < busy.len; i++)
        busy.entries[i] = (struct tri_quiesce_entry){ actors[i].slot,
                                                      actors[i].generation };
    tri_group_send_locked(group, slot, &busy);
}

static void note_actor(struct tri_group *group, uint32_t at, uint32_t slot,
                       uint32_t generation)
{
    troupe_busy_t entry = tri_group_busy_at(group, at, TROUPE_BUSY_ACTOR);

    entry.actor = (troupe_ref_t){ entry.node, slot, generation };
    tri_report_add(&group->who, entry);
}

void tri_drain_take_who_locked(struct tri_group *group, uint32_t slot,
                               const struct tri_quiesce_message *message)
{
    if (message->kind == TRI_QUIESCE_WHO) {
        answer_who_locked(group, slot, message);
        return;
    }
    if (!group->is_draining || message->call != (uint32_t)group->drain ||
        member_locked(group, slot)->pending == 0)
        return;
    for (unsigned i = 0; i < message->len; i++)
        note_actor(group, slot, message->entries[i].who,
                   message->entries[i].what);
}

static void ask_who_locked(struct tri_group *group)
{
    struct tri_quiesce_message who = { .kind = TRI_QUIESCE_WHO,
                                       .call = (uint32_t)group->drain };

    for (uint32_t i = 0; i < tri_group_slots(group); i++)
        if (i != group->self && group->drains[i].pending != 0)
            tri_group_send_locked(group, i, &who);
}

static bool is_named(const struct tri_report *report, uint64_t node)
{
    for (uint32_t i = 0; i < report->len; i++)
        if (report->entries[i].node == node)
            return true;
    return false;
}

static void report_locked(struct tri_group *group)
{
    struct tri_busy_actor actors[TRI_QUIESCE_ENTRIES_MAX];
    uint32_t n;

    if (group->drains[group->self].pending != 0) {
        n = tri_actors_busy(group->runtime, actors, TRI_QUIESCE_ENTRIES_MAX);
        for (uint32_t i = 0; i < n && i < TRI_QUIESCE_ENTRIES_MAX; i++)
            note_actor(group, group->self, actors[i].slot,
                       actors[i].generation);
    }
    for (uint32_t i = 0; i < tri_group_slots(group); i++)
        if (i != group->self && group->drains[i].pending != 0 &&
            !is_named(&group->who, group->drains[i].node))
            tri_report_add(&group->who,
                           tri_group_busy_at(group, i, TROUPE_BUSY_SILENT));
    tri_group_report_locked(group, "drain", &group->who);
}

/* --- asking --------------------------------------------------------------- */

static bool has_sent_to(struct tri_group *group, uint32_t slot)
{
    struct tri_peer *peer = &group->runtime->link.peers[slot];

    return tri_peer_is_used(peer) && !tri_peer_is_dead(peer) &&
           (tri_peer_count(&peer->sent) > 0 || tri_peer_is_waiting(peer));
}

/* Errors: ENOMEM. A node that is gone needs no answer. */
static int ask_locked(struct tri_group *group, uint32_t slot)
{
    struct tri_peer *peer = &group->runtime->link.peers[slot];
    struct tri_record record = {
        .kind = TRI_DRAIN,
        .sender_node = group->runtime->node,
        .ask = group->drain,
    };
    int rc = tri_link_send(peer, &record, NULL, TRI_SEND_FORCED);

    record.kind = TRI_DRAIN_REPLIES;
    if (rc == 0)
        rc = tri_link_send(peer, &record, NULL, TRI_SEND_FORCED);
    if (rc == 0) {
        member_locked(group, slot)->pending = group->drain;
        atomic_fetch_add(&group->pending_len, 1);
    }
    return rc == TROUPE_ENODE ? 0 : rc;
}

static int begin_locked(struct tri_group *group)
{
    int rc = 0;

    group->drain++;
    group->drain_error = 0;
    group->who.len = 0;
    tri_group_bury_locked(group);
    for (uint32_t i = 0; rc == 0 && i < tri_group_slots(group); i++)
        if (i != group->self && has_sent_to(group, i))
            rc = ask_locked(group, i);
    if (rc != 0)
        return rc;
    group->drains[group->self].pending = group->drain;
    atomic_fetch_add(&group->pending_len, 1);
    want_locked(group, group->self, group->drain);
    return 0;
}

/* What comes for this drain from now on is too late. */
static void end_locked(struct tri_group *group)
{
    for (uint32_t i = 0; i < tri_group_slots(group); i++)
        group->drains[i].pending = 0;
    atomic_store(&group->pending_len, 0);
    group->is_draining = false;
}

void tri_drain_bury_locked(struct tri_group *group)
{
    struct tri_link *link = &group->runtime->link;

    for (uint32_t i = 0; i < tri_group_slots(group); i++) {
        struct tri_drain_member *member = &group->drains[i];

        /* node 0: nothing was ever to do with it, or it is us */
        if (member->node == 0 || member->is_buried ||
            !tri_peer_is_dead(&link->peers[i]))
            continue;
        member->is_buried = true;
        forget_locked(group, i);
    }
}

static bool is_drained(void *arg)
{
    struct tri_group *group = arg;

    if (tri_unlikely(tri_group_has_deaths(group))) {
        tri_group_lock(group);
        tri_group_bury_locked(group);
        tri_group_unlock(group);
    }
    return atomic_load(&group->pending_len) == 0;
}

static bool is_our_turn(void *arg)
{
    struct tri_group *group = arg;
    bool free;

    tri_group_lock(group);
    free = !group->is_draining;
    group->is_draining = true;
    tri_group_unlock(group);
    return free;
}

/* As for a quiesce: near the deadline others are asked who is busy. */
static int wait_for_all(struct tri_group *group, struct tri_seat *seat,
                        uint64_t deadline_ns)
{
    uint64_t now_ns = tri_now_ns();
    uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    uint64_t query_ns = deadline_ns -
                        tri_min(left_ns / 4, TRI_QUIESCE_QUERY_NS);

    if (tri_wait(seat, is_drained, group, query_ns) == 0)
        return 0;
    tri_group_lock(group);
    ask_who_locked(group);
    tri_group_unlock(group);
    return tri_wait(seat, is_drained, group, deadline_ns);
}

int tri_group_drain(struct tri_runtime *runtime, struct tri_seat *seat,
                    uint64_t deadline_ns)
{
    struct tri_group *group = runtime->group;
    int rc = tri_wait(seat, is_our_turn, group, deadline_ns);

    if (rc != 0)
        return rc;
    tri_group_lock(group);
    rc = begin_locked(group);
    tri_group_unlock(group);
    if (rc == 0)
        rc = wait_for_all(group, seat, deadline_ns);
    tri_group_lock(group);
    if (rc == 0)
        rc = group->drain_error;
    if (rc == TROUPE_ETIMEDOUT)
        report_locked(group);
    end_locked(group);
    tri_group_unlock(group);
    return rc;
}
