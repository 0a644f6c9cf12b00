/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "group/group_internal.h"

void tri_group_lock(struct tri_group *group)
{
    pthread_mutex_lock(&group->mutex);
}

void tri_group_unlock(struct tri_group *group)
{
    pthread_mutex_unlock(&group->mutex);
}

void tri_group_wake(struct tri_group *group)
{
    troupe_wake((troupe_from_t){ .context_ = group->runtime });
}

/* --- sending -------------------------------------------------------------- */

static void send_to(struct tri_group *group, uint32_t slot,
                    const struct tri_record *record, const void *payload)
{
    struct tri_peer *peer = &group->runtime->link.peers[slot];
    int rc = tri_link_send(peer, record, payload, TRI_SEND_FORCED);
    char label[TRI_PEER_LABEL_BYTES];

    if (rc != 0 && rc != TROUPE_ENODE)
        tri_warn("cannot tell %s how drain or quiesce stands: %s",
                 tri_peer_label(peer, label), troupe_strerror(rc));
}

void tri_group_send_locked(struct tri_group *group, uint32_t to,
                           const struct tri_quiesce_message *message)
{
    unsigned char payload[TRI_QUIESCE_BYTES_MAX];
    struct tri_record record = {
        .kind = TRI_QUIESCE,
        .total_bytes = (uint32_t)tri_quiesce_encode(message, payload),
        .sender_node = group->runtime->node,
    };

    if (to != TRI_QUIESCE_ALL) {
        send_to(group, to, &record, payload);
        return;
    }
    for (uint32_t i = 0; i < group->len; i++)
        if (i != group->self && !group->members[i].is_dead)
            send_to(group, i, &record, payload);
}

/* --- records and deaths --------------------------------------------------- */

bool tri_group_has_deaths(struct tri_group *group)
{
    /* acquire: pairs with the release in tri_link_kill */
    return atomic_load_explicit(&group->runtime->link.deaths,
                                memory_order_acquire) !=
           atomic_load_explicit(&group->deaths, memory_order_relaxed);
}

void tri_group_bury_locked(struct tri_group *group)
{
    struct tri_link *link = &group->runtime->link;
    uint32_t deaths = atomic_load_explicit(&link->deaths,
                                           memory_order_acquire);

    if (deaths == atomic_load_explicit(&group->deaths, memory_order_relaxed))
        return;
    atomic_store_explicit(&group->deaths, deaths, memory_order_relaxed);
    for (uint32_t i = 0; i < group->len; i++)
        if (i != group->self && !group->members[i].is_dead &&
            tri_peer_is_dead(&link->peers[i]))
            tri_quiesce_bury_locked(group, i);
    tri_drain_bury_locked(group);
}

static void take_quiesce_locked(struct tri_group *group, uint32_t slot,
                                const struct tri_record *record,
                                const void *payload)
{
    struct tri_link *link = &group->runtime->link;
    struct tri_quiesce_message message;

    if (!tri_quiesce_decode(payload, record->bytes, &message)) {
        tri_link_transport_events(link).garbage(link, "a malformed QUIESCE");
        return;
    }
    if (message.kind == TRI_QUIESCE_WHO || message.kind == TRI_QUIESCE_BUSY)
        tri_drain_take_who_locked(group, slot, &message);
    else if (slot < group->len)
        tri_quiesce_take_locked(group, slot, &message);
    else
        tri_link_transport_events(link).garbage(
            link, "a QUIESCE of a node that is no rank");
}

/* With the poll lock held. */
static void take_record(struct tri_runtime *runtime, struct tri_peer *peer,
                        const struct tri_record *record, const void *payload)
{
    struct tri_group *group = runtime->group;

    tri_group_lock(group);
    tri_group_bury_locked(group);
    if (record->kind == TRI_QUIESCE)
        take_quiesce_locked(group, tri_peer_slot(peer), record, payload);
    else
        tri_drain_take_locked(group, tri_peer_slot(peer), record);
    tri_group_unlock(group);
}

/* --- reports -------------------------------------------------------------- */

void tri_report_add(struct tri_report *report, troupe_busy_t entry)
{
    if (report->len < TRI_GROUP_BUSY_MAX)
        report->entries[report->len++] = entry;
}

troupe_busy_t tri_group_busy_at(struct tri_group *group, uint32_t slot,
                                enum troupe_busy_what what)
{
    const struct tri_runtime *runtime = group->runtime;

    return (troupe_busy_t){
        .rank = slot < group->len ? (int)slot : -1,
        .what = what,
        .node = slot == group->self ? runtime->node
                                    : runtime->link.peers[slot].node,
    };
}

static void log_entry(const char *call, const troupe_busy_t *entry)
{
    const struct tri_peer peer = { .rank = entry->rank, .node = entry->node };
    unsigned long long n = (unsigned long long)entry->messages;
    char label[TRI_PEER_LABEL_BYTES];

    tri_peer_label(&peer, label);
    switch (entry->what) {
    case TROUPE_BUSY_ABSENT:
        tri_warn("%s: %s has not called it", call, label);
        break;
    case TROUPE_BUSY_SILENT:
        tri_warn("%s: %s does not answer", call, label);
        break;
    case TROUPE_BUSY_ACTORS:
        tri_warn("%s: actors of %s are busy", call, label);
        break;
    case TROUPE_BUSY_ACTOR:
        tri_warn("%s: actor %u (generation %u) of %s is busy", call,
                 entry->actor.slot, entry->actor.generation, label);
        break;
    case TROUPE_BUSY_OUTBOX:
        tri_warn("%s: messages of %s wait to be sent", call, label);
        break;
    case TROUPE_BUSY_TO:
        tri_warn("%s: %llu messages to %s are on their way", call, n, label);
        break;
    case TROUPE_BUSY_FROM:
        tri_warn("%s: %llu messages from %s are on their way", call, n, label);
        break;
    }
}

void tri_group_report_locked(struct tri_group *group, const char *call,
                             const struct tri_report *report)
{
    group->last = *report;
    if (report->len == 0)
        tri_warn("%s: the time was too short to tell who is busy", call);
    for (uint32_t i = 0; i < report->len; i++)
        log_entry(call, &report->entries[i]);
}

size_t tri_group_busy(struct tri_runtime *runtime, troupe_busy_t *list,
                      size_t list_len_max)
{
    struct tri_group *group = runtime->group;
    size_t len;

    tri_group_lock(group);
    len = group->last.len;
    if (list_len_max > 0)
        memcpy(list, group->last.entries,
               tri_min(len, list_len_max) * sizeof(*list));
    tri_group_unlock(group);
    return len;
}

/* --- life ----------------------------------------------------------------- */

int tri_group_open(struct tri_runtime *runtime)
{
    struct tri_group *group = calloc(1, sizeof(*group));

    if (group == NULL)
        return TROUPE_ENOMEM;
    group->runtime = runtime;
    group->len = (uint32_t)runtime->size;
    group->self = (uint32_t)runtime->rank;
    group->members = calloc(group->len, sizeof(*group->members));
    group->drains = calloc(runtime->link.config.peers_max,
                           sizeof(*group->drains));
    if (group->members == NULL || group->drains == NULL) {
        free(group->members);
        free(group->drains);
        free(group);
        return TROUPE_ENOMEM;
    }
    pthread_mutex_init(&group->mutex, NULL);
    tri_quiesce_init(&group->quiesce, group->self, group->len,
                     group->members);
    atomic_store(&group->look_ns, TRI_QUIESCE_NEVER);
    runtime->markers.ended = tri_drain_markers_ended;
    runtime->group = group;
    runtime->group_record = take_record;
    runtime->group_unparked = tri_drain_unparked;
    return 0;
}

void tri_group_close(struct tri_runtime *runtime)
{
    struct tri_group *group = runtime->group;

    if (group == NULL)
        return;
    pthread_mutex_destroy(&group->mutex);
    free(group->members);
    free(group->drains);
    free(group);
    runtime->group = NULL;
}
