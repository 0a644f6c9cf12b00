/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The groups of a node: their table, and what moves their cores: records,
 * deaths, time. See view.h.
 *
 *     a process ends: pidfd, membership, `changed` here (control thread)
 *         -> DEATH into the core -> PREPARE to the others, is_over
 *     PREPARE comes (poll role) -> is_over, PROMISE
 *     COMMIT comes -> installed; who waits is woken, and adopts
 */

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "group/view_internal.h"
#include "member/member.h"
#include "member/roster.h"
#include "name/directory.h"

/* Of a ballot without an outcome, at first: some times what a busy host takes
 * to run all its ranks once. */
#define ATTEMPT_NS (100 * TRI_NS_PER_MS)
/* Between a death that is not proven and the ballot: others die with it. */
#define SETTLE_NS (10 * TRI_NS_PER_MS)
/* Steps of one tick, should a core be due again and again. */
#define TICKS_MAX 16u

void tri_views_lock(struct tri_views *views)
{
    pthread_mutex_lock(&views->mutex);
}

void tri_views_unlock(struct tri_views *views)
{
    pthread_mutex_unlock(&views->mutex);
}

void tri_views_changed_locked(struct tri_views *views)
{
    atomic_fetch_add(&views->changes, 1);
    tri_wake_guest(views->runtime);
}

/* --- waiting -------------------------------------------------------------- */

static bool has_changed(void *arg)
{
    struct tri_view_wait *wait = arg;
    struct tri_views *views = wait->views;
    uint64_t changes = atomic_load(&views->changes);

    if (wait->met || (wait->looked && changes == wait->seen))
        return wait->met;
    wait->looked = true;
    wait->seen = changes;
    tri_views_lock(views);
    wait->met = wait->look(wait->arg);
    tri_views_unlock(views);
    return wait->met;
}

int tri_view_wait(struct tri_views *views, struct tri_seat *seat,
                  bool (*look)(void *arg), void *arg, uint64_t deadline_ns)
{
    struct tri_view_wait wait = { .views = views, .look = look, .arg = arg };

    return tri_wait(seat, has_changed, &wait, deadline_ns);
}

/* --- sending -------------------------------------------------------------- */

static int send_record(struct tri_views *views, struct tri_peer *peer,
                       struct tri_record *record, const void *payload)
{
    record->kind = TRI_VIEW;
    record->sender_node = views->runtime->node;
    return tri_link_send(peer, record, payload, TRI_SEND_FORCED);
}

int tri_view_send(struct tri_views *views, uint64_t to,
                  struct tri_record *record, const void *payload)
{
    struct tri_peer *peer = tri_link_find(&views->runtime->link, to);

    return peer != NULL ? send_record(views, peer, record, payload)
                        : TROUPE_ENODE;
}

int tri_view_say(struct tri_views *views, uint64_t to, enum tri_view_what what,
                 const struct tri_view_note *note)
{
    struct tri_record record = { .index = (uint16_t)what,
                                 .total_bytes = sizeof(*note) };

    return tri_view_send(views, to, &record, note);
}

/* A message of the core; who is not there is not told. */
static void send_core(struct troupe_group *group, uint64_t node,
                      const struct tri_agree_send *send)
{
    struct tri_peer *peer = tri_link_find(&group->runtime->link, node);
    size_t piece_max, offset = 0;

    if (peer == NULL)
        return;
    piece_max = peer->transport->record_bytes_max;
    do {
        size_t bytes = tri_min(send->bytes - offset, piece_max);
        struct tri_record record = {
            .index = TRI_VIEW_CORE,
            .type = (uint32_t)send->bytes,
            .generation = (uint32_t)offset,
            .total_bytes = (uint32_t)bytes,
            .ask = group->id,
        };

        if (send_record(tri_views_of(group), peer, &record,
                        send->data + offset) != 0)
            return;
        offset += bytes;
    } while (offset < send->bytes);
}

/* to_len 0: a joiner does not know who has the group; they answered it. */
static void send_out_locked(struct troupe_group *group,
                            const struct tri_agree_send *send)
{
    for (uint32_t i = 0; i < send->to_len; i++)
        send_core(group, send->to[i], send);
    if (send->to_len == 0 && group->answerer != 0)
        send_core(group, group->answerer, send);
}

/* --- what datagrams say of views ------------------------------------------ */

static uint64_t word_of(uint64_t id, uint64_t epoch)
{
    return (uint64_t)(uint32_t)tri_mix64(id) << 32 | (uint32_t)epoch;
}

void tri_view_announce_locked(struct tri_views *views)
{
    struct troupe_group *lowest = NULL;
    const struct tri_agree_view *view;
    uint64_t epoch = 0, digest = 0;

    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++) {
        struct troupe_group *group = atomic_load(&views->groups[i]);

        if (group != NULL && group->agree != NULL && !group->parted &&
            tri_agree_view(group->agree)->epoch != 0 &&
            (lowest == NULL || group->id < lowest->id))
            lowest = group;
    }
    if (lowest != NULL) {
        view = tri_agree_view(lowest->agree);
        epoch = word_of(lowest->id, view->epoch);
        digest = view->digest;
    }
    if (epoch == atomic_load(&views->told_epoch))
        return;
    atomic_store(&views->told_epoch, epoch);
    atomic_store(&views->told_digest, digest);
    if (views->runtime->member != NULL)
        tri_member_set_view(views->runtime->member, epoch, digest);
}

/* Its core is not stepped any more. */
static void exclude_group_locked(struct troupe_group *group)
{
    if (group->excluded)
        return;
    group->excluded = true;
    atomic_store(&group->is_over, true);
    if (group->is_cluster)
        tri_claims_out_locked(tri_views_of(group));
    if (group->agree != NULL)
        tri_view_raise_locked(group, TROUPE_GROUP_EXCLUDED);
}

/* Whether its core still has a part in it. */
static bool is_live_locked(const struct troupe_group *group)
{
    return group != NULL && group->agree != NULL && !group->excluded;
}

/* The group that a word is of. */
static struct troupe_group *find_by_word_locked(struct tri_views *views,
                                                uint64_t word)
{
    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++) {
        struct troupe_group *group = atomic_load(&views->groups[i]);

        if (is_live_locked(group) &&
            word_of(group->id, 0) == (word & ~(uint64_t)UINT32_MAX))
            return group;
    }
    return NULL;
}

/* Two views of one epoch cannot be: whatever went wrong, nobody goes on. */
static void stop_loudly_locked(struct troupe_group *group, uint64_t node)
{
    const struct tri_agree_view *view = tri_agree_view(group->agree);

    tri_error("group %s: node %016llx has another view of epoch %llu: this "
              "node's part in the group ends",
              group->name, (unsigned long long)node,
              (unsigned long long)view->epoch);
    exclude_group_locked(group);
    tri_views_changed_locked(tri_views_of(group));
}

static void on_view(void *context, uint64_t node, uint64_t epoch,
                    uint64_t digest)
{
    struct tri_views *views = context;
    struct tri_agree_event ahead = { .kind = TRI_AGREE_AHEAD, .node = node };
    struct troupe_group *group;
    const struct tri_agree_view *view;

    if (epoch == atomic_load(&views->told_epoch) &&
        digest == atomic_load(&views->told_digest))
        return; /* nearly always */
    tri_views_lock(views);
    group = find_by_word_locked(views, epoch);
    view = group != NULL ? tri_agree_view(group->agree) : NULL;
    if (view != NULL && view->epoch != 0) {
        if ((uint32_t)epoch == (uint32_t)view->epoch && digest != view->digest)
            stop_loudly_locked(group, node);
        else if ((uint32_t)epoch > (uint32_t)view->epoch)
            tri_view_step_locked(group, &ahead);
    }
    tri_views_unlock(views);
}

/* --- stepping ------------------------------------------------------------- */

static uint64_t due_locked(struct tri_views *views)
{
    uint64_t due_ns = TRI_NS_NEVER;

    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++) {
        struct troupe_group *group = atomic_load(&views->groups[i]);

        if (is_live_locked(group))
            due_ns = tri_min(due_ns, tri_agree_due_ns(group->agree));
    }
    return due_ns;
}

/* The control thread sleeps until the time that it was told last. */
static void see_to_time_locked(struct troupe_group *group)
{
    struct tri_views *views = tri_views_of(group);
    uint64_t due_ns = tri_agree_due_ns(group->agree);

    if (views->in_tick || due_ns >= views->due_ns)
        return;
    views->due_ns = due_ns;
    if (group->runtime->member != NULL)
        tri_member_kick(group->runtime->member);
}

static void note_effects_locked(struct troupe_group *group,
                                const struct tri_agree_effects *effects)
{
    const struct tri_agree_view *view = tri_agree_view(group->agree);

    if (effects->installed) {
        group->no_quorum = false;
        group->losses += view->losses;
        tri_view_raise_locked(group, TROUPE_GROUP_VIEW);
    }
    if (effects->frozen)
        tri_view_raise_locked(group, TROUPE_GROUP_CHANGING);
    if (effects->no_quorum) {
        group->no_quorum = true;
        tri_view_raise_locked(group, TROUPE_GROUP_NO_QUORUM);
        tri_warn("group %s: no quorum for a view after epoch %llu",
                 group->name, (unsigned long long)view->epoch);
    }
    if (effects->excluded)
        exclude_group_locked(group);
    group->parted |= effects->parted;
    group->refused |= effects->refused;
}

static bool is_over_locked(const struct troupe_group *group)
{
    return group->excluded || group->parted ||
           (group->adopted.epoch != 0 &&
            (tri_agree_is_frozen(group->agree) ||
             tri_agree_view(group->agree)->epoch != group->adopted.epoch));
}

void tri_view_step_locked(struct troupe_group *group,
                          struct tri_agree_event *event)
{
    struct tri_views *views = tri_views_of(group);
    struct tri_agree_effects effects = { .sends_len = 0 };
    bool was_over = atomic_load(&group->is_over);
    bool wanted = atomic_load(&group->wants_boundary), over, wants;

    if (group->excluded)
        return;
    event->now_ns = tri_now_ns();
    tri_agree_step(group->agree, event, &effects);
    note_effects_locked(group, &effects);
    over = is_over_locked(group);
    wants = tri_agree_wants_boundary(group->agree);
    atomic_store(&group->is_over, over);
    atomic_store(&group->wants_boundary, wants);
    for (uint32_t i = 0; i < effects.sends_len; i++)
        send_out_locked(group, &effects.sends[i]);
    if (over != was_over || wants != wanted || effects.installed ||
        effects.frozen || effects.no_quorum || effects.excluded ||
        effects.parted || effects.refused)
        tri_views_changed_locked(views);
    see_to_time_locked(group);
    if (effects.installed || effects.parted)
        tri_view_announce_locked(views);
    if (effects.installed)
        tri_view_bury_locked(group);
}

static bool is_known(void *context, uint64_t node)
{
    struct troupe_group *group = context;

    if (node == group->runtime->node)
        return true;
    return tri_link_find(&group->runtime->link, node) != NULL &&
           tri_view_life_of(group->runtime, node, NULL) != TRI_VIEW_UNKNOWN;
}

int tri_view_make_core_locked(struct troupe_group *group, uint64_t id,
                              uint32_t members_max)
{
    struct tri_runtime *runtime = group->runtime;
    struct tri_agree_config config = {
        .group = id,
        .node = runtime->node,
        .members_max = members_max,
        .closed = !group->terms.elastic,
        .proof = group->terms.proof != 0,
        .attempt_ns = ATTEMPT_NS,
        .settle_ns = SETTLE_NS,
        .seed = tri_mix64(runtime->node ^ id),
        .is_known = is_known,
        .context = group,
    };
    int rc = tri_agree_create(&config, &group->agree);

    if (rc == 0)
        group->id = id;
    return rc;
}

/* --- deaths --------------------------------------------------------------- */

enum tri_view_life tri_view_life_of(struct tri_runtime *runtime, uint64_t node,
                                    bool *proven_p)
{
    struct tri_peer *peer = tri_link_find(&runtime->link, node);
    troupe_member_t member;

    if (!tri_roster_get(runtime->roster, node, &member))
        return peer != NULL && tri_peer_is_dead(peer) ? TRI_VIEW_DEAD
                                                      : TRI_VIEW_UNKNOWN;
    if (proven_p != NULL)
        *proven_p = member.evidence == TROUPE_EVIDENCE_PROOF;
    switch (member.state) {
    case TROUPE_MEMBER_DEAD:
        return TRI_VIEW_DEAD;
    case TROUPE_MEMBER_LEFT:
        return TRI_VIEW_LEFT;
    default:
        return TRI_VIEW_ALIVE;
    }
}

static void tell_life_locked(struct troupe_group *group, uint64_t node,
                             enum tri_view_life life, bool proven)
{
    struct tri_agree_event event = { .node = node, .proof = proven };

    if (life != TRI_VIEW_DEAD && life != TRI_VIEW_LEFT)
        return;
    event.kind = life == TRI_VIEW_DEAD ? TRI_AGREE_DEATH : TRI_AGREE_PART;
    tri_view_step_locked(group, &event);
}

void tri_view_bury_locked(struct troupe_group *group)
{
    const struct tri_agree_view *view = tri_agree_view(group->agree);
    uint64_t epoch = view->epoch;

    /* A step may bring another view, which is looked at then. */
    for (uint32_t i = 0; i < view->len && view->epoch == epoch; i++) {
        uint64_t node = view->members[i].node;
        bool proven = false;
        enum tri_view_life life;

        if (node == group->runtime->node)
            continue;
        life = tri_view_life_of(group->runtime, node, &proven);
        tell_life_locked(group, node, life, proven);
        view = tri_agree_view(group->agree);
    }
}

/* --- process ids ---------------------------------------------------------- */

static struct tri_view_pid *pid_place(struct tri_view_pid *pids, uint32_t max,
                                      uint64_t node)
{
    uint32_t i = (uint32_t)tri_mix64(node) & (max - 1);

    while (pids[i].node != 0 && pids[i].node != node)
        i = (i + 1) & (max - 1);
    return &pids[i];
}

static bool is_alive(struct tri_views *views, uint64_t node)
{
    return node != 0 &&
           tri_view_life_of(views->runtime, node, NULL) == TRI_VIEW_ALIVE;
}

/* Makes the table anew, without those that are gone and with as many free
 * places as there are others, at least. */
static bool grow_pids_locked(struct tri_views *views)
{
    struct tri_view_pid *pids;
    uint32_t max = 64, len = 0;

    for (uint32_t i = 0; i < views->pids_max; i++)
        len += is_alive(views, views->pids[i].node);
    while (max < 4 * len)
        max *= 2;
    pids = calloc(max, sizeof(*pids));
    if (pids == NULL)
        return false;
    views->pids_len = 0;
    for (uint32_t i = 0; i < views->pids_max; i++)
        if (is_alive(views, views->pids[i].node) && views->pids_len < max / 4) {
            *pid_place(pids, max, views->pids[i].node) = views->pids[i];
            views->pids_len++;
        }
    free(views->pids);
    views->pids = pids;
    views->pids_max = max;
    return true;
}

static void note_pid_locked(struct tri_views *views, uint64_t node)
{
    const struct tri_member_card *card =
        tri_roster_card(views->runtime->roster, node);
    struct tri_view_pid *place;

    if (card == NULL ||
        (2 * (views->pids_len + 1) > views->pids_max &&
         !grow_pids_locked(views)))
        return;
    place = pid_place(views->pids, views->pids_max, node);
    views->pids_len += place->node == 0;
    *place = (struct tri_view_pid){ node, card->pid };
}

/* --- what membership says ------------------------------------------------- */

static void change_locked(struct troupe_group *group,
                          const struct tri_swim_change *change)
{
    struct tri_agree_event known = { .kind = TRI_AGREE_KNOWN };

    if (change->before == TRI_SWIM_UNKNOWN)
        tri_view_step_locked(group, &known);
    if (change->after == TRI_SWIM_DEAD)
        tell_life_locked(group, change->node, TRI_VIEW_DEAD,
                         change->evidence == TRI_SWIM_PROOF);
    else if (change->after == TRI_SWIM_LEFT)
        tell_life_locked(group, change->node, TRI_VIEW_LEFT, false);
}

static void on_changed(void *context, const struct tri_swim_change *change,
                       uint64_t now_ns)
{
    struct tri_views *views = context;

    (void)now_ns;
    if (change->node == views->runtime->node)
        return;
    tri_views_lock(views);
    if (change->before == TRI_SWIM_UNKNOWN)
        note_pid_locked(views, change->node);
    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++) {
        struct troupe_group *group = atomic_load(&views->groups[i]);

        if (is_live_locked(group))
            change_locked(group, change);
    }
    if (change->after == TRI_SWIM_DEAD || change->after == TRI_SWIM_LEFT)
        tri_view_create_gone_locked(views, change->node);
    tri_views_changed_locked(views);
    tri_views_unlock(views);
}

/* The others hold this node for dead: so it is in no group any more. */
static void exclude_locked(struct tri_views *views)
{
    views->excluded = true;
    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++) {
        struct troupe_group *group = atomic_load(&views->groups[i]);

        if (group != NULL)
            exclude_group_locked(group);
    }
    tri_views_changed_locked(views);
}

static uint64_t on_tick(void *context, uint64_t now_ns)
{
    struct tri_views *views = context;
    uint64_t due_ns, join_ns;
    bool to_lose;

    tri_views_lock(views);
    if (!views->excluded && tri_roster_is_excluded(views->runtime->roster))
        exclude_locked(views);
    views->in_tick = true;
    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++) {
        struct troupe_group *group = atomic_load(&views->groups[i]);
        struct tri_agree_event tick = { .kind = TRI_AGREE_TICK };

        for (uint32_t n = 0; is_live_locked(group) && n < TICKS_MAX &&
                             tri_agree_due_ns(group->agree) <= now_ns;
             n++)
            tri_view_step_locked(group, &tick);
    }
    join_ns = tri_claims_tick_locked(views, now_ns);
    views->in_tick = false;
    due_ns = views->excluded ? TRI_NS_NEVER
                             : tri_min(due_locked(views), join_ns);
    views->due_ns = due_ns;
    to_lose = views->claims.to_lose;
    views->claims.to_lose = false;
    tri_views_unlock(views);
    if (to_lose)
        tri_directory_lose_strict(views->runtime);
    return due_ns;
}

/* --- records -------------------------------------------------------------- */

static struct troupe_group *find_locked(struct tri_views *views, uint64_t id)
{
    for (uint32_t i = 0; id != 0 && i < TRI_VIEW_GROUPS_MAX; i++) {
        struct troupe_group *group = atomic_load(&views->groups[i]);

        if (group != NULL && group->id == id)
            return group;
    }
    return NULL;
}

static bool was_closed_locked(const struct tri_views *views, uint64_t id)
{
    for (uint32_t i = 0; i < TRI_VIEW_CLOSED_MAX; i++)
        if (views->closed[i] == id)
            return true;
    return false;
}

/* Who goes on without knowing that we do not. A JOIN's number is the time of
 * asking, here: a later one is of another life. */
static void say_gone_locked(struct tri_views *views, uint64_t node,
                            uint64_t id)
{
    struct tri_view_note note = { .group = id, .number = tri_now_ns() };

    if (was_closed_locked(views, id))
        tri_view_say(views, node, TRI_VIEW_GONE, &note);
}

static void garbage(struct tri_views *views, const char *what)
{
    struct tri_link *link = &views->runtime->link;

    tri_link_transport_events(link).garbage(link, what);
}

/* Where pieces of this node's message go. NULL: no memory. */
static struct tri_view_arrival *arrival_locked(struct tri_views *views,
                                               uint64_t node, uint64_t group)
{
    struct tri_view_arrival *arrival;

    for (uint32_t i = 0; i < TRI_VIEW_ARRIVALS_MAX; i++)
        if (views->arrivals[i].node == node &&
            views->arrivals[i].group == group)
            return &views->arrivals[i];
    /* The oldest goes: what is lost is said again. */
    arrival = &views->arrivals[views->arrivals_next++ % TRI_VIEW_ARRIVALS_MAX];
    if (arrival->data == NULL)
        arrival->data = malloc(TRI_AGREE_BYTES_MAX);
    if (arrival->data == NULL)
        return NULL;
    arrival->node = node;
    arrival->group = group;
    arrival->bytes = 0;
    return arrival;
}

/* A piece came; the whole message, or NULL: more has to come. */
static const unsigned char *put_together_locked(struct tri_views *views,
                                                const struct tri_record *record,
                                                const void *payload)
{
    struct tri_view_arrival *arrival =
        arrival_locked(views, record->sender_node, record->ask);

    if (arrival == NULL)
        return NULL;
    if (record->generation == 0) {
        arrival->bytes = 0;
        arrival->total = record->type;
    }
    if (record->generation != arrival->bytes ||
        record->type != arrival->total ||
        record->bytes > arrival->total - arrival->bytes)
        return NULL; /* the beginning is lost */
    memcpy(arrival->data + arrival->bytes, payload, record->bytes);
    arrival->bytes += record->bytes;
    if (arrival->bytes < arrival->total)
        return NULL;
    arrival->node = 0;
    return arrival->data;
}

static void take_core_locked(struct tri_views *views, uint64_t node,
                             const struct tri_record *record,
                             const void *payload)
{
    struct troupe_group *group = find_locked(views, record->ask);
    struct tri_agree_event event = { .kind = TRI_AGREE_MESSAGE,
                                     .node = node,
                                     .bytes = record->type,
                                     .data = payload };

    if (record->type > TRI_AGREE_BYTES_MAX || record->bytes > record->type) {
        garbage(views, "a malformed VIEW");
        return;
    }
    if (group == NULL)
        say_gone_locked(views, node, record->ask);
    if (!is_live_locked(group))
        return;
    if (record->bytes < record->type)
        event.data = put_together_locked(views, record, payload);
    if (event.data != NULL)
        tri_view_step_locked(group, &event);
}

/* It closed the group, or never had it: no vote of it will come. */
static void take_gone_locked(struct troupe_group *group, uint64_t node,
                             uint64_t number)
{
    struct tri_agree_event gone = { .kind = TRI_AGREE_GONE,
                                    .node = node,
                                    .number = number };

    if (group != NULL && group->answerer == node)
        group->answerer = 0;
    if (is_live_locked(group))
        tri_view_step_locked(group, &gone);
}

static bool is_text(const char *text, size_t bytes)
{
    return memchr(text, '\0', bytes) != NULL;
}

static void take_note_locked(struct tri_views *views, uint64_t node,
                             const struct tri_record *record,
                             const void *payload)
{
    enum tri_view_what what = record->index;
    struct tri_view_note note;
    struct troupe_group *group;

    if (what > TRI_VIEW_WHAT_LAST || record->bytes != sizeof(note)) {
        garbage(views, "a malformed VIEW");
        return;
    }
    memcpy(&note, payload, sizeof(note));
    if (!is_text(note.name, sizeof(note.name)) || note.reserved != 0) {
        garbage(views, "a malformed VIEW");
        return;
    }
    group = find_locked(views, note.group);
    if (what == TRI_VIEW_GONE)
        take_gone_locked(group, node, note.number);
    else if (what >= TRI_VIEW_ARRIVE && group != NULL)
        tri_view_boundary_note_locked(group, node, what, &note);
    else if (what == TRI_VIEW_ASK || what == TRI_VIEW_HAVE)
        tri_view_join_note_locked(views, node, what, &note);
    else if (what < TRI_VIEW_ARRIVE)
        tri_view_create_note_locked(views, node, what, &note);
}

/* With the poll role. */
static void take_record(struct tri_runtime *runtime, struct tri_peer *peer,
                        const struct tri_record *record, const void *payload)
{
    struct tri_views *views = runtime->views;

    if (record->sender_node != peer->node) {
        garbage(views, "a VIEW in another node's name");
        return;
    }
    tri_views_lock(views);
    if (record->index == TRI_VIEW_CORE)
        take_core_locked(views, peer->node, record, payload);
    else if (record->index >= TRI_VIEW_CLAIM &&
             record->index <= TRI_VIEW_WHAT_LAST)
        tri_claims_note_locked(views, peer->node, record, payload);
    else
        take_note_locked(views, peer->node, record, payload);
    tri_views_unlock(views);
}

/* --- the table ------------------------------------------------------------ */

/* Whoever holds the poll role gives it up for a moment. */
static void take_role(struct tri_runtime *runtime)
{
    struct tri_scheduler *scheduler = &runtime->scheduler;

    while (!tri_poll_try(scheduler)) {
        atomic_store_explicit(&scheduler->guest_wants, 1,
                              memory_order_relaxed);
        tri_poll_kick(scheduler);
        sched_yield();
    }
    atomic_store_explicit(&scheduler->guest_wants, 0, memory_order_relaxed);
}

struct troupe_group *tri_view_named_locked(struct tri_views *views,
                                           const char *name)
{
    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++) {
        struct troupe_group *group = atomic_load(&views->groups[i]);

        if (group != NULL && strcmp(group->name, name) == 0)
            return group;
    }
    return NULL;
}

int tri_view_put_locked(struct tri_views *views, struct troupe_group *group)
{
    if (tri_view_named_locked(views, group->name) != NULL)
        return TROUPE_EEXIST;
    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++)
        if (atomic_load(&views->groups[i]) == NULL) {
            group->call = ++views->calls;
            atomic_store(&views->groups[i], group);
            return 0;
        }
    return TROUPE_ELIMIT;
}

int tri_view_insert(struct tri_views *views, struct troupe_group *group)
{
    int rc;

    take_role(views->runtime);
    tri_views_lock(views);
    rc = tri_view_put_locked(views, group);
    tri_views_unlock(views);
    tri_poll_release(&views->runtime->scheduler);
    return rc;
}

void tri_view_remove(struct tri_views *views, struct troupe_group *group)
{
    take_role(views->runtime);
    tri_views_lock(views);
    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++)
        if (atomic_load(&views->groups[i]) == group)
            atomic_store(&views->groups[i], NULL);
    if (group->is_cluster) {
        views->claims.cluster = NULL;
        tri_views_changed_locked(views);
    }
    if (group->id != 0)
        views->closed[views->closed_next++ % TRI_VIEW_CLOSED_MAX] = group->id;
    tri_view_announce_locked(views);
    tri_views_unlock(views);
    tri_poll_release(&views->runtime->scheduler);
    tri_control_touch(&views->runtime->scheduler);
}

struct troupe_group *tri_view_find(struct tri_runtime *runtime, uint64_t id)
{
    return find_locked(runtime->views, id);
}

static bool is_one_awaited_locked(struct tri_views *views)
{
    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++) {
        struct troupe_group *group = atomic_load(&views->groups[i]);

        if (group != NULL && group->state == TRI_VIEW_CREATING)
            return true;
    }
    return false;
}

bool tri_view_may_come(struct tri_runtime *runtime, uint64_t id)
{
    struct tri_views *views = runtime->views;
    bool may;

    tri_views_lock(views);
    may = find_locked(views, id) != NULL ||
          (!was_closed_locked(views, id) && is_one_awaited_locked(views));
    tri_views_unlock(views);
    return may;
}

/* --- life ----------------------------------------------------------------- */

int tri_views_open(struct tri_runtime *runtime)
{
    struct tri_views *views = calloc(1, sizeof(*views));
    struct tri_member_client client = {
        .context = views,
        .changed = on_changed,
        .view = on_view,
        .tick = on_tick,
    };

    if (views == NULL)
        return TROUPE_ENOMEM;
    views->events = calloc(TROUPE_GROUP_EVENTS_MAX, sizeof(*views->events));
    if (views->events == NULL) {
        free(views);
        return TROUPE_ENOMEM;
    }
    views->runtime = runtime;
    views->due_ns = TRI_NS_NEVER;
    pthread_mutex_init(&views->mutex, NULL);
    runtime->views = views;
    runtime->view_record = take_record;
    return runtime->member != NULL
               ? tri_member_attach(runtime->member, &client)
               : 0;
}

void tri_views_close(struct tri_runtime *runtime)
{
    struct tri_views *views = runtime->views;

    if (views == NULL)
        return;
    runtime->view_record = NULL;
    for (struct troupe_group *group; (group = views->left) != NULL;) {
        views->left = group->next_left;
        tri_view_free(group);
    }
    for (uint32_t i = 0; i < TRI_VIEW_GROUPS_MAX; i++)
        tri_view_free(atomic_load(&views->groups[i]));
    for (uint32_t i = 0; i < TRI_VIEW_ARRIVALS_MAX; i++)
        free(views->arrivals[i].data);
    pthread_mutex_destroy(&views->mutex);
    free(views->hellos);
    free(views->claims.polls);
    free(views->events);
    free(views->pids);
    free(views);
    runtime->views = NULL;
}
