/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The SWIM core: a node's life, its events and its clock. swim_core.h says
 * what the protocol promises, swim_internal.h which file does what.
 *
 * A step is either an event from outside or a TICK. Only TICKs look at timers,
 * so that what arrived before a timer's time is known when it is looked at.
 * Work that finds no room among the effects stays due, and due_ns then says
 * "now".
 *
 * Where a node is in its life:
 *   member    all of it
 *   joining   no list is served, JOINs are told to come again
 *   leaving   answers pings and spreads its LEFT, makes no probes; until left
 *   left      silent
 *   excluded  hints to its side, then silent
 */
#include <stdlib.h>

#include "member/swim_internal.h"

/*
 * doc/failure.md's table. Announces and digests are rare, as they matter after
 * failures of the network and of gossip only. The guard is a pause that a busy
 * machine's scheduler does not make. The dead are remembered for an hour, far
 * longer than any rumour or packet lives.
 */
struct tri_swim_times tri_swim_times_of(enum tri_swim_profile profile)
{
    const uint64_t ms = TRI_NS_PER_MS;
    struct tri_swim_times times = {
        .period = 500 * ms, .timeout = 150 * ms, .gossip = 100 * ms,
        .digest = 30000 * ms, .announce = 15000 * ms,
        .pause_guard = 500 * ms, .forget = 3600000 * ms,
        .join_backoff_min = 100 * ms, .join_backoff_max = 5000 * ms,
        .linger_max = 1000 * ms,
    };

    switch (profile) {
    case TRI_SWIM_HPC:
        break;
    case TRI_SWIM_FAST:
        times.period = 200 * ms;
        times.timeout = 60 * ms;
        times.gossip = 40 * ms;
        break;
    case TRI_SWIM_CLOUD:
        times.period = 1000 * ms;
        times.timeout = 300 * ms;
        times.gossip = 200 * ms;
        times.pause_guard = 2000 * ms;
        times.linger_max = 2000 * ms;
        break;
    case TRI_SWIM_TEST:
        times.period = 100 * ms;
        times.timeout = 30 * ms;
        times.gossip = 20 * ms;
        times.digest = 2000 * ms;
        times.announce = 1000 * ms;
        times.pause_guard = 200 * ms;
        times.join_backoff_min = 20 * ms;
        times.join_backoff_max = 1000 * ms;
        times.linger_max = 500 * ms;
        break;
    }
    return times;
}

void tri_swim_config_init(struct tri_swim_config *config,
                          enum tri_swim_profile profile)
{
    *config = (struct tri_swim_config){
        .times = tri_swim_times_of(profile),
        .loss = 0.05,
        .helpers = 3,
        .fanout = 3,
        .alpha = 4,
        .beta = 6,
        .packet_bytes_max = 1400,
        .header_bytes = 160,
        .rumour_bytes = 24,
        .card_bytes = 400,
        .snapshots_max = 16,
    };
}

static bool config_is_good(const struct tri_swim_config *config)
{
    const struct tri_swim_times *times = &config->times;
    uint64_t least = (uint64_t)config->header_bytes + config->rumour_bytes +
                     config->card_bytes;

    return config->node != 0 && config->members_max > 0 &&
           config->members_max < NONE / 2 && config->loss >= 0 &&
           config->loss < 1 && config->helpers <= HELPERS_MAX &&
           config->fanout > 0 && config->fanout <= HELPERS_MAX &&
           config->alpha >= 2 && config->alpha <= 100 && config->beta >= 1 &&
           config->beta <= 100 && least <= config->packet_bytes_max &&
           config->rumour_bytes > 0 && config->snapshots_max > 0 &&
           config->snapshots_max <= SESSIONS_MAX && times->period > 0 &&
           times->timeout > 0 && times->gossip > 0 && times->digest > 0 &&
           times->announce > 0;
}

int tri_swim_create(const struct tri_swim_config *config,
                    struct tri_swim **swim_p)
{
    struct tri_rumour own = { .node = config->node, .state = TRI_SWIM_ALIVE };
    struct tri_swim *swim;

    if (!config_is_good(config))
        return TROUPE_EINVAL;
    swim = calloc(1, sizeof(*swim));
    if (swim == NULL)
        return TROUPE_ENOMEM;
    swim->config = *config;
    tri_random_init(&swim->random, tri_mix64(config->seed + 1));
    swim->lowest = config->node;
    if (tri_swim_table_init(swim) < 0 || tri_swim_gossip_init(swim) < 0) {
        tri_swim_destroy(&swim);
        return TROUPE_ENOMEM;
    }
    tri_swim_record_add(swim, config->node);
    tri_swim_record_set(swim, OWN, &own);
    *swim_p = swim;
    return 0;
}

void tri_swim_destroy(struct tri_swim **swim_p)
{
    struct tri_swim *swim = *swim_p;

    if (swim == NULL)
        return;
    tri_swim_table_fini(swim);
    tri_swim_gossip_fini(swim);
    free(swim);
    *swim_p = NULL;
}

int tri_swim_add(struct tri_swim *swim, uint64_t node)
{
    struct tri_rumour alive = { .node = node, .state = TRI_SWIM_ALIVE };
    uint32_t index;

    assert(!swim->started && node != 0);
    if (tri_swim_find(swim, node) != NONE)
        return TROUPE_EEXIST;
    index = tri_swim_record_add(swim, node);
    if (index == NONE)
        return TROUPE_ELIMIT;
    tri_swim_record_set(swim, index, &alive);
    return 0;
}

/* --- time ---------------------------------------------------------------------- */

/* The first step says what time it is. */
static void start(struct tri_swim *swim)
{
    const struct tri_swim_times *times = &swim->config.times;
    uint64_t now_ns = swim->now_ns;

    swim->started = true;
    swim->heard_ns = now_ns;
    swim->probe_ns = now_ns + random_ns(swim, times->period);
    swim->digest_ns = now_ns + random_ns(swim, times->digest);
    swim->announce_ns = now_ns + random_ns(swim, times->announce);
    swim->gossiped_ns = now_ns - min_u64(now_ns, times->gossip);
}

/*
 * Rule B. This node did not run for longer than any scheduler's turn: what
 * timers say now is about itself. Its probe tells nothing, suspicions go on
 * from where they were, and its health falls by the periods it missed.
 */
static void pause_check(struct tri_swim *swim)
{
    const struct tri_swim_times *times = &swim->config.times;
    uint64_t gap_ns = swim->now_ns - swim->last_ns;

    if (times->pause_guard == 0 || gap_ns <= times->pause_guard ||
        swim->due_ns > swim->now_ns - times->pause_guard ||
        !has_rule(swim, TRI_SWIM_WITHOUT_RULE_B))
        return;
    swim->metrics.pauses++;
    tri_swim_probes_drop(swim);
    tri_swim_suspicions_shift(swim, gap_ns);
    tri_swim_health_add(swim, (int)min_u64(gap_ns / times->period,
                                           HEALTH_MAX));
}

static uint64_t due(const struct tri_swim *swim)
{
    uint64_t due_ns = tri_swim_gossip_due(swim);

    if (swim->silent)
        return TRI_NS_NEVER;
    if (swim->excluded)
        return due_ns;
    due_ns = min_u64(due_ns, tri_swim_sync_due(swim));
    due_ns = min_u64(due_ns, tri_swim_probes_due(swim));
    return swim->leaving ? due_ns : min_u64(due_ns, swim->suspects_due_ns);
}

static void tick(struct tri_swim *swim)
{
    if (!swim->excluded) {
        tri_swim_probes_tick(swim);
        if (!swim->leaving)
            tri_swim_suspicions_tick(swim);
        tri_swim_sync_tick(swim);
    }
    tri_swim_gossip_tick(swim);
}

/* --- packets --------------------------------------------------------------------- */

/* What rule A has kept back is looked at again. */
static void postponed_resume(struct tri_swim *swim)
{
    if (swim->postponed)
        swim->suspects_due_ns = swim->now_ns;
    swim->postponed = false;
}

/* In a deaf spell refutations may have been missed. The clocks are not
 * shifted, unlike after a pause: who has lost most others hears little for
 * long, and has to find them dead. */
static void reception(struct tri_swim *swim)
{
    uint64_t gap_ns = swim->now_ns - swim->heard_ns;

    if (gap_ns > swim->config.times.period && swim->order_len > 2 &&
        has_rule(swim, TRI_SWIM_WITHOUT_RULE_A))
        tri_swim_suspicions_shift(swim, 0);
    swim->heard++;
    swim->heard_ns = swim->now_ns;
    swim->knock_pause_ns = 0;
    postponed_resume(swim);
}

/* News that are older than what is known of a dead: who told them is told so.
 * At most once a gossip interval. */
static void retell(struct tri_swim *swim, uint64_t to, uint64_t node)
{
    uint64_t pause_ns = swim->config.times.gossip;
    uint32_t index = tri_swim_find(swim, node);
    struct tri_swim_packet *packet;
    struct tri_rumour known;

    if (index == NONE || is_live(swim->records[index].state) ||
        (swim->retold_ns != 0 && swim->now_ns < swim->retold_ns + pause_ns))
        return;
    packet = tri_swim_send(swim, TRI_SWIM_GOSSIP, to);
    if (packet == NULL)
        return;
    tri_swim_rumour_of(swim, index, 0, false, &known);
    tri_swim_put(swim, packet, &known);
    tri_swim_fill(swim, packet);
    swim->retold_ns = swim->now_ns;
}

static void on_rumours(struct tri_swim *swim,
                       const struct tri_swim_packet *packet)
{
    for (uint32_t i = 0; i < packet->rumours_len; i++) {
        const struct tri_rumour *news = &packet->rumours[i];

        if (tri_swim_hear(swim, news, true) || !is_live(news->state))
            continue;
        if (tri_swim_find(swim, news->node) != NONE)
            retell(swim, packet->from, news->node);
        else if (swim->records_len < swim->config.members_max ||
                 swim->now_ns >= swim->forget_ns)
            tri_swim_ask_about(swim, packet->from, news->node);
    }
}

/* A packet is the owner's word for its incarnation. */
static void on_incarnation(struct tri_swim *swim,
                           const struct tri_swim_packet *packet)
{
    struct tri_rumour alive = {
        .node = packet->from, .incarnation = packet->incarnation,
        .state = TRI_SWIM_ALIVE,
    };

    tri_swim_hear(swim, &alive, true);
}

/* A member that we hold for dead or gone: a joiner can not take that back and
 * has to come again under a new id, if it is whom it wants to join. Else that
 * one hears it, if it may not know, and does not end by it what it has just
 * begun: leaving. */
static void on_packet_of_dead(struct tri_swim *swim,
                              const struct tri_swim_packet *packet,
                              const struct record *record)
{
    swim->metrics.refused++;
    if (is_joining(swim) &&
        (packet->kind == TRI_SWIM_STATE ||
         packet->kind == TRI_SWIM_JOIN_RETRY)) {
        tri_swim_follow_excluded(swim, packet);
        return;
    }
    if (packet->kind == TRI_SWIM_EXCLUDED) {
        if (packet->target == 0)
            tri_swim_told_excluded(swim, packet, true);
        return;
    }
    if (record->state == TRI_SWIM_LEFT && packet->kind != TRI_SWIM_PING &&
        packet->kind != TRI_SWIM_JOIN && packet->kind != TRI_SWIM_ANNOUNCE)
        return;
    tri_swim_send(swim, TRI_SWIM_EXCLUDED, packet->from);
}

static void on_excluded(struct tri_swim *swim,
                        const struct tri_swim_packet *packet)
{
    uint32_t index;

    if (packet->target == 0 && is_joining(swim)) {
        tri_swim_follow_excluded(swim, packet); /* for whom we join we ended */
        return;
    }
    if (packet->target == 0) {
        tri_swim_told_excluded(swim, packet, false);
        return;
    }
    index = tri_swim_find(swim, packet->target);
    if (index == NONE || swim->records[index].unmet) {
        if (!is_joining(swim))
            tri_swim_follow_excluded(swim, packet);
        return;
    }
    if (swim->records[index].state != TRI_SWIM_DEAD ||
        (swim->hint_ns != 0 && swim->now_ns < swim->hint_ns))
        return;
    swim->hint_ns = swim->now_ns + swim->config.times.gossip;
    tri_swim_send(swim, TRI_SWIM_ANNOUNCE, packet->target);
}

/* Its lowest member is alive to us: it is one that we have not heard of yet.
 * Two sides of a cluster that fell apart share no member. */
static bool is_of_our_side(const struct tri_swim *swim,
                           const struct tri_swim_packet *packet)
{
    uint32_t index = tri_swim_find(swim, packet->lowest);

    return swim->join.phase == JOIN_PULLING ||
           (index != NONE && is_live(swim->records[index].state));
}

/* From one that is not in the table: it is answered and asked who it is. What
 * it says of others does not count, as it may be one that was forgotten. */
static void on_packet_of_stranger(struct tri_swim *swim,
                                  const struct tri_swim_packet *packet)
{
    switch (packet->kind) {
    case TRI_SWIM_JOIN:
        tri_swim_on_join(swim, packet);
        return;
    case TRI_SWIM_JOIN_RETRY:
        tri_swim_on_join_retry(swim, packet);
        return;
    case TRI_SWIM_STATE:
        if (packet->target == packet->from) {
            for (uint32_t i = 0; i < packet->rumours_len; i++)
                if (packet->rumours[i].node == packet->from)
                    tri_swim_hear(swim, &packet->rumours[i], false);
        } else if (swim->join.phase == JOIN_SEEDS ||
                   tri_swim_merge_start(swim, packet)) {
            tri_swim_on_state(swim, packet);
        }
        return;
    case TRI_SWIM_EXCLUDED: /* we are dead to one that we never met: it is */
    case TRI_SWIM_ANNOUNCE: /* of the other side, or a seed that remembers */
        if (packet->target == 0 && swim->join.phase == JOIN_SEEDS)
            tri_swim_follow_excluded(swim, packet);
        else if (packet->target == 0)
            tri_swim_told_excluded(swim, packet,
                                   !is_of_our_side(swim, packet));
        return;
    case TRI_SWIM_STATE_REQ:
        tri_swim_on_state_req(swim, packet);
        break;
    case TRI_SWIM_PING:
        tri_swim_on_ping(swim, packet);
        break;
    default:
        break;
    }
    tri_swim_ask_about(swim, packet->from, packet->from);
}

static void on_packet_of_member(struct tri_swim *swim,
                                const struct tri_swim_packet *packet)
{
    on_incarnation(swim, packet);
    if (packet->kind != TRI_SWIM_STATE && packet->kind != TRI_SWIM_JOIN)
        on_rumours(swim, packet);
    if (swim->excluded)
        return;
    switch (packet->kind) {
    case TRI_SWIM_PING:
        tri_swim_on_ping(swim, packet);
        break;
    case TRI_SWIM_ACK:
        tri_swim_on_ack(swim, packet);
        break;
    case TRI_SWIM_PING_REQ:
        tri_swim_on_ping_req(swim, packet);
        break;
    case TRI_SWIM_NACK:
        tri_swim_on_nack(swim, packet);
        break;
    case TRI_SWIM_JOIN:
        tri_swim_on_join(swim, packet);
        break;
    case TRI_SWIM_JOIN_RETRY:
        tri_swim_on_join_retry(swim, packet);
        break;
    case TRI_SWIM_DIGEST:
        tri_swim_on_digest(swim, packet);
        break;
    case TRI_SWIM_BUCKETS_:
        tri_swim_on_buckets(swim, packet);
        break;
    case TRI_SWIM_STATE_REQ:
        tri_swim_on_state_req(swim, packet);
        break;
    case TRI_SWIM_STATE:
        tri_swim_on_state(swim, packet);
        break;
    case TRI_SWIM_ANNOUNCE: /* we are dead to it, or were when it was sent */
    case TRI_SWIM_EXCLUDED:
        on_excluded(swim, packet);
        break;
    default: /* GOSSIP */
        break;
    }
}

static bool is_sane(const struct tri_swim *swim,
                    const struct tri_swim_packet *packet)
{
    uint64_t own = swim->config.node;
    bool for_us = packet->to == own ||
                  (packet->to == 0 && packet->kind == TRI_SWIM_JOIN);

    if (!for_us || packet->from == own || packet->from == 0 ||
        packet->kind < TRI_SWIM_PING || packet->kind > TRI_SWIM_KIND_LAST ||
        packet->rumours_len > TRI_SWIM_RUMOURS_MAX)
        return false;
    for (uint32_t i = 0; i < packet->rumours_len; i++)
        if (packet->rumours[i].node == 0 ||
            packet->rumours[i].state == TRI_SWIM_UNKNOWN ||
            packet->rumours[i].state > TRI_SWIM_STATE_LAST ||
            packet->rumours[i].evidence > TRI_SWIM_EVIDENCE_LAST)
            return false;
    return true;
}

static void on_packet(struct tri_swim *swim,
                      const struct tri_swim_packet *packet)
{
    uint32_t index;

    swim->metrics.packets_in++;
    if (!is_sane(swim, packet)) {
        swim->metrics.refused++;
        return;
    }
    index = tri_swim_find(swim, packet->from);
    if (index != NONE && !is_live(swim->records[index].state) &&
        has_rule(swim, TRI_SWIM_WITHOUT_FINALITY)) {
        on_packet_of_dead(swim, packet, &swim->records[index]);
        return;
    }
    reception(swim);
    if (index == NONE)
        on_packet_of_stranger(swim, packet);
    else
        on_packet_of_member(swim, packet);
}

/* Who of our side does not know yet that it lost, is told so when it speaks to
 * us: hints at random may have missed it. */
static void on_packet_when_excluded(struct tri_swim *swim,
                                    const struct tri_swim_packet *packet)
{
    uint32_t index = tri_swim_find(swim, packet->from);
    struct tri_swim_packet *hint;

    if (swim->winner == 0 || packet->kind == TRI_SWIM_EXCLUDED ||
        index == NONE || !is_live(swim->records[index].state))
        return;
    hint = tri_swim_send(swim, TRI_SWIM_EXCLUDED, packet->from);
    if (hint != NULL)
        hint->target = swim->winner;
}

/* --- other events ------------------------------------------------------------------- */

static void on_evidence(struct tri_swim *swim, uint64_t node,
                        enum tri_swim_evidence evidence)
{
    uint32_t index = tri_swim_find(swim, node);

    if (index == NONE || index == OWN || swim->leaving ||
        !is_live(swim->records[index].state))
        return;
    if (evidence == TRI_SWIM_PROOF) {
        tri_swim_accuse(swim, index, TRI_SWIM_DEAD, evidence);
        postponed_resume(swim); /* two may be left */
        return;
    }
    if (evidence == TRI_SWIM_STRONG)
        tri_swim_strong(swim, index);
    tri_swim_urgent(swim, node);
}

static void on_heard(struct tri_swim *swim, uint64_t node)
{
    uint32_t index = tri_swim_find(swim, node);

    if (index == NONE || index == OWN || !is_live(swim->records[index].state))
        return;
    reception(swim);
    tri_swim_answered(swim, node);
}

void tri_swim_step(struct tri_swim *swim, const struct tri_swim_event *event,
                   struct tri_swim_effects *effects)
{
    effects->sends_len = effects->changes_len = 0;
    effects->joined = effects->left = effects->excluded = false;
    if (swim->silent)
        return;
    assert(event->now_ns >= swim->now_ns);
    swim->effects = effects;
    swim->now_ns = event->now_ns;
    if (!swim->started)
        start(swim);
    else
        pause_check(swim);
    if (event->kind == TRI_SWIM_TICK) {
        tick(swim);
    } else if (swim->excluded) {
        if (event->kind == TRI_SWIM_PACKET && is_sane(swim, event->packet))
            on_packet_when_excluded(swim, event->packet);
    } else {
        if (event->kind == TRI_SWIM_PACKET)
            on_packet(swim, event->packet);
        else if (event->kind == TRI_SWIM_EVIDENCE)
            on_evidence(swim, event->node, event->evidence);
        else if (event->kind == TRI_SWIM_HEARD)
            on_heard(swim, event->node);
        else if (event->kind == TRI_SWIM_DO_JOIN)
            tri_swim_join_start(swim, event->seeds_len);
        else
            tri_swim_leave_start(swim);
    }
    swim->last_ns = swim->now_ns;
    swim->due_ns = due(swim);
    swim->effects = NULL;
}

/* --- what users ask --------------------------------------------------------------------- */

uint64_t tri_swim_due_ns(const struct tri_swim *swim)
{
    return swim->due_ns; /* 0 before the first step: now */
}

enum tri_swim_state tri_swim_state_of(const struct tri_swim *swim,
                                      uint64_t node)
{
    uint32_t index = tri_swim_find(swim, node);

    return index == NONE ? TRI_SWIM_UNKNOWN : swim->records[index].state;
}

bool tri_swim_get(const struct tri_swim *swim, uint32_t index,
                  struct tri_rumour *rumour_p)
{
    if (index >= swim->records_len)
        return false;
    tri_swim_rumour_of(swim, index, 0, false, rumour_p);
    return true;
}

void tri_swim_set_view(struct tri_swim *swim, uint64_t view_epoch)
{
    swim->view_epoch = view_epoch;
}

uint32_t tri_swim_alive_len(const struct tri_swim *swim)
{
    return live_len(swim);
}

uint32_t tri_swim_incarnation(const struct tri_swim *swim)
{
    return swim->records[OWN].incarnation;
}

uint64_t tri_swim_digest(const struct tri_swim *swim)
{
    uint64_t digest = 0;

    for (unsigned i = 0; i < TRI_SWIM_BUCKETS; i++)
        digest = tri_mix64(digest ^ swim->buckets[i]) + i;
    return digest;
}

struct tri_swim_metrics tri_swim_metrics(const struct tri_swim *swim)
{
    struct tri_swim_metrics metrics = swim->metrics;

    metrics.health = swim->health;
    metrics.rtt_us = swim->rtt_us;
    return metrics;
}
