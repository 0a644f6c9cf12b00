/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Probes of the SWIM core, its own and those it runs for others, and the
 * local health.
 *
 *   FREE --ping--> PINGED --timeout/2, ping--> AGAIN --timeout--> ASKED
 *                    |                           |      k helpers  |
 *                    +-----------ack-------------+-----------------+--> FREE
 *                                                      period's end: verdict
 *
 * One periodic probe at a time; in probes[1..] those that evidence asks for.
 * A probe's verdict is dropped when nothing was received meanwhile (rule A).
 */
#include "member/swim_internal.h"

void tri_swim_health_add(struct tri_swim *swim, int by)
{
    int health = (int)swim->health + by;

    if (!has_rule(swim, TRI_SWIM_WITHOUT_LIFEGUARD))
        return;
    swim->health = health < 0                  ? 0
                   : health > (int)HEALTH_MAX ? HEALTH_MAX
                                               : (uint32_t)health;
}

/* Of a direct ping: long against the round trips seen, and so short that the
 * helpers have two thirds of the period. */
static uint64_t timeout_ns(const struct tri_swim *swim)
{
    const struct tri_swim_times *times = &swim->config.times;
    uint64_t ns = 4000ull * swim->rtt_us;

    if (ns < times->timeout)
        ns = times->timeout;
    return min_u64(ns, times->period / 3) * (swim->health + 1);
}

/* --- pings -------------------------------------------------------------- */

static bool ping(struct tri_swim *swim, uint32_t index, uint32_t sequence)
{
    struct tri_swim_packet *packet =
        tri_swim_send(swim, TRI_SWIM_PING, swim->records[index].node);

    if (packet == NULL)
        return false;
    packet->sequence = sequence;
    tri_swim_fill(swim, packet);
    return true;
}

bool tri_swim_ping(struct tri_swim *swim, uint32_t index)
{
    if (!ping(swim, index, swim->sequence))
        return false;
    swim->sequence += 2;
    return true;
}

/* --- own probes -------------------------------------------------------------- */

static bool probe_start(struct tri_swim *swim, struct probe *probe,
                        uint32_t index)
{
    uint64_t wait_ns = timeout_ns(swim);

    if (!ping(swim, index, swim->sequence))
        return false;
    *probe = (struct probe){
        .stage = PROBE_PINGED,
        .sequence = swim->sequence,
        .node = swim->records[index].node,
        .start_ns = swim->now_ns,
        .again_ns = swim->now_ns + wait_ns / 2,
        .asked_ns = swim->now_ns + wait_ns,
        .end_ns = swim->now_ns + own_period_ns(swim),
        .heard = swim->heard,
    };
    swim->sequence += 2;
    swim->metrics.probes++;
    return true;
}

static bool ask_helpers(struct tri_swim *swim, struct probe *probe)
{
    uint32_t k = swim->config.helpers, tries = 8 * HELPERS_MAX;

    if (swim->effects->sends_len + k > TRI_SWIM_SENDS_MAX)
        return false;
    if (k > swim->order_len - 1)
        k = swim->order_len - 1;
    while (probe->helpers_len < k && tries-- > 0) {
        uint32_t index = tri_swim_random_member(swim, probe->node), i = 0;
        struct tri_swim_packet *packet;
        uint64_t helper;

        if (index == NONE)
            break;
        helper = swim->records[index].node;
        while (i < probe->helpers_len && probe->helpers[i] != helper)
            i++;
        if (i < probe->helpers_len)
            continue;
        packet = tri_swim_send(swim, TRI_SWIM_PING_REQ, helper);
        packet->sequence = probe->sequence;
        packet->target = probe->node;
        tri_swim_fill(swim, packet);
        probe->helpers[probe->helpers_len++] = helper;
    }
    return true;
}

/* Silence of others while some were heard is theirs; a nack that did not come
 * is a sign that it may be ours. */
static void verdict(struct tri_swim *swim, struct probe *probe, uint32_t index)
{
    const struct record *record = &swim->records[index];
    uint32_t nacks = (uint32_t)__builtin_popcount(probe->nacks);

    swim->metrics.probes_failed++;
    if (swim->heard == probe->heard && live_len(swim) > 2 &&
        has_rule(swim, TRI_SWIM_WITHOUT_RULE_A)) {
        swim->metrics.dropped_by_rule_a++;
        tri_swim_health_add(swim, 3);
        return;
    }
    tri_swim_health_add(swim, probe->helpers_len == 0
                                  ? 1
                                  : (int)(probe->helpers_len - nacks));
    tri_swim_accuse(swim, index, TRI_SWIM_SUSPECT,
                    record->strong ? TRI_SWIM_STRONG : TRI_SWIM_WEAK);
}

/* Returns false when there was no room for what is due. */
static bool probe_tick(struct tri_swim *swim, struct probe *probe)
{
    uint32_t index = tri_swim_find(swim, probe->node);

    if (index == NONE || !is_live(swim->records[index].state)) {
        probe->stage = PROBE_FREE; /* decided otherwise */
        return true;
    }
    if (probe->stage == PROBE_PINGED && swim->now_ns >= probe->again_ns) {
        if (!ping(swim, index, probe->sequence + 1))
            return false;
        probe->again_ns = swim->now_ns;
        probe->stage = PROBE_AGAIN;
    }
    if (probe->stage == PROBE_AGAIN && swim->now_ns >= probe->asked_ns) {
        if (!ask_helpers(swim, probe))
            return false;
        probe->stage = PROBE_ASKED;
    }
    if (probe->stage == PROBE_ASKED && swim->now_ns >= probe->end_ns) {
        if (swim->effects->changes_len + 2 > TRI_SWIM_CHANGES_MAX)
            return false;
        verdict(swim, probe, index);
        probe->stage = PROBE_FREE;
    }
    return true;
}

void tri_swim_probes_drop(struct tri_swim *swim)
{
    for (unsigned i = 0; i < PROBES_MAX; i++)
        swim->probes[i].stage = PROBE_FREE;
    for (unsigned i = 0; i < RELAYS_MAX; i++)
        swim->relays[i].requester = 0;
    swim->urgent_len = 0;
}

static struct probe *probe_of(struct tri_swim *swim, uint64_t node)
{
    for (unsigned i = 0; i < PROBES_MAX; i++)
        if (swim->probes[i].stage != PROBE_FREE &&
            swim->probes[i].node == node)
            return &swim->probes[i];
    return NULL;
}

void tri_swim_answered(struct tri_swim *swim, uint64_t node)
{
    struct probe *probe = probe_of(swim, node);
    uint32_t index = tri_swim_find(swim, node);

    if (probe == NULL)
        return;
    if (index != NONE)
        swim->records[index].strong = false;
    probe->stage = PROBE_FREE;
    tri_swim_health_add(swim, -1);
}

/* Asks for a probe at once. When too many are wanted, it comes in its turn. */
void tri_swim_urgent(struct tri_swim *swim, uint64_t node)
{
    for (uint32_t i = 0; i < swim->urgent_len; i++)
        if (swim->urgent[i] == node)
            return;
    if (swim->urgent_len < URGENT_MAX && probe_of(swim, node) == NULL)
        swim->urgent[swim->urgent_len++] = node;
}

static struct probe *probe_free(struct tri_swim *swim)
{
    for (unsigned i = 1; i < PROBES_MAX; i++)
        if (swim->probes[i].stage == PROBE_FREE)
            return &swim->probes[i];
    return NULL;
}

static void urgent_tick(struct tri_swim *swim)
{
    struct probe *probe;

    while (swim->urgent_len > 0 && (probe = probe_free(swim)) != NULL) {
        uint64_t node = swim->urgent[swim->urgent_len - 1];
        uint32_t index = tri_swim_find(swim, node);

        if (index != NONE && is_live(swim->records[index].state) &&
            probe_of(swim, node) == NULL && !probe_start(swim, probe, index))
            return;
        swim->urgent_len--;
    }
}

static void periodic_tick(struct tri_swim *swim)
{
    uint32_t index;

    if (swim->now_ns < swim->probe_ns || swim->order_len == 0 ||
        swim->effects->sends_len == TRI_SWIM_SENDS_MAX ||
        swim->probes[0].stage != PROBE_FREE)
        return;
    index = tri_swim_next_in_order(swim);
    if (probe_of(swim, swim->records[index].node) == NULL)
        probe_start(swim, &swim->probes[0], index);
    swim->probe_ns = swim->now_ns + own_period_ns(swim);
}

static uint64_t probe_due(const struct probe *probe)
{
    switch (probe->stage) {
    case PROBE_PINGED:
        return probe->again_ns;
    case PROBE_AGAIN:
        return probe->asked_ns;
    case PROBE_ASKED:
        return probe->end_ns;
    default:
        return TRI_NS_NEVER;
    }
}

/* --- probes for others ---------------------------------------------------------- */

static void nack(struct tri_swim *swim, uint64_t to, uint32_t sequence)
{
    struct tri_swim_packet *packet = tri_swim_send(swim, TRI_SWIM_NACK, to);

    if (packet != NULL) {
        packet->sequence = sequence;
        tri_swim_fill(swim, packet);
    }
}

void tri_swim_on_ping_req(struct tri_swim *swim,
                          const struct tri_swim_packet *packet)
{
    uint32_t index = tri_swim_find(swim, packet->target);
    struct relay *relay = swim->relays;

    while (relay < swim->relays + RELAYS_MAX && relay->requester != 0)
        relay++;
    if (index == NONE || index == OWN || relay == swim->relays + RELAYS_MAX ||
        !is_live(swim->records[index].state) ||
        !ping(swim, index, swim->sequence)) {
        nack(swim, packet->from, packet->sequence);
        return;
    }
    *relay = (struct relay){
        .requester = packet->from,
        .target = packet->target,
        .wanted = packet->sequence,
        .sequence = swim->sequence,
        .nack_ns = swim->now_ns + timeout_ns(swim) * 4 / 5,
        .end_ns = swim->now_ns + swim->config.times.period,
    };
    swim->sequence += 2;
}

static void relays_tick(struct tri_swim *swim)
{
    for (unsigned i = 0; i < RELAYS_MAX; i++) {
        struct relay *relay = &swim->relays[i];

        if (relay->requester == 0)
            continue;
        if (swim->now_ns >= relay->nack_ns) {
            if (swim->effects->sends_len == TRI_SWIM_SENDS_MAX)
                return;
            nack(swim, relay->requester, relay->wanted);
            relay->nack_ns = TRI_NS_NEVER;
        }
        if (swim->now_ns >= relay->end_ns)
            relay->requester = 0;
    }
}

static void relays_ack(struct tri_swim *swim,
                       const struct tri_swim_packet *packet)
{
    for (unsigned i = 0; i < RELAYS_MAX; i++) {
        struct relay *relay = &swim->relays[i];
        struct tri_swim_packet *ack;

        if (relay->requester == 0 || relay->target != packet->from ||
            relay->sequence != packet->sequence)
            continue;
        ack = tri_swim_send(swim, TRI_SWIM_ACK, relay->requester);
        if (ack != NULL) {
            ack->sequence = relay->wanted;
            ack->target = relay->target;
            tri_swim_fill(swim, ack);
        }
        relay->requester = 0;
    }
}

/* --- packets --------------------------------------------------------------------- */

void tri_swim_on_ping(struct tri_swim *swim,
                      const struct tri_swim_packet *packet)
{
    struct tri_swim_packet *ack =
        tri_swim_send(swim, TRI_SWIM_ACK, packet->from);

    if (ack != NULL) {
        ack->sequence = packet->sequence;
        tri_swim_fill(swim, ack);
    }
}

static void rtt_add(struct tri_swim *swim, uint64_t sent_ns, uint32_t delay_us)
{
    uint64_t us = (swim->now_ns - sent_ns) / 1000;
    uint32_t highest = 0;

    us -= min_u64(us, delay_us);
    swim->rtts[swim->rtts_at++ % RTTS] =
        us < UINT32_MAX / 8000 ? (uint32_t)us : UINT32_MAX / 8000;
    for (unsigned i = 0; i < RTTS; i++) /* the p99 of so few is the highest */
        if (swim->rtts[i] > highest)
            highest = swim->rtts[i];
    swim->rtt_us = highest;
}

void tri_swim_on_ack(struct tri_swim *swim,
                     const struct tri_swim_packet *packet)
{
    uint64_t node = packet->target != 0 ? packet->target : packet->from;
    struct probe *probe = probe_of(swim, node);
    uint32_t turn;

    if (packet->target == 0)
        relays_ack(swim, packet);
    if (probe == NULL)
        return;
    turn = packet->sequence - probe->sequence;
    if (turn > 1)
        return; /* of an older probe */
    if (packet->target == 0 && (turn == 0 || probe->stage != PROBE_PINGED))
        rtt_add(swim, turn == 0 ? probe->start_ns : probe->again_ns,
                packet->delay_us);
    tri_swim_answered(swim, node);
}

void tri_swim_on_nack(struct tri_swim *swim,
                      const struct tri_swim_packet *packet)
{
    for (unsigned i = 0; i < PROBES_MAX; i++) {
        struct probe *probe = &swim->probes[i];

        if (probe->stage != PROBE_ASKED ||
            probe->sequence != packet->sequence)
            continue;
        for (uint32_t j = 0; j < probe->helpers_len; j++)
            if (probe->helpers[j] == packet->from)
                probe->nacks |= 1u << j;
    }
}

/* --- deafness --------------------------------------------------------------- */

/*
 * A node that hears nothing is being suspected, and learns of it only by what
 * it hears. Its own probes have become rare by its health, so it calls one
 * member in each period: the first answer brings the accusation along.
 */
static uint64_t call_due(const struct tri_swim *swim)
{
    uint64_t period_ns = swim->config.times.period;
    uint64_t since_ns = swim->heard_ns + 2 * period_ns;

    if (swim->order_len < 3 || swim->leaving)
        return TRI_NS_NEVER;
    return since_ns > swim->call_ns ? since_ns : swim->call_ns;
}

static void call_tick(struct tri_swim *swim)
{
    if (call_due(swim) > swim->now_ns ||
        !tri_swim_ping(swim, tri_swim_random_member(swim, 0)))
        return;
    swim->call_ns = swim->now_ns + swim->config.times.period;
}

/* --- the clock -------------------------------------------------------------------- */

uint64_t tri_swim_probes_due(const struct tri_swim *swim)
{
    uint64_t due_ns = TRI_NS_NEVER;

    for (unsigned i = 0; i < PROBES_MAX; i++)
        due_ns = min_u64(due_ns, probe_due(&swim->probes[i]));
    for (unsigned i = 0; i < RELAYS_MAX; i++)
        if (swim->relays[i].requester != 0)
            due_ns = min_u64(due_ns, min_u64(swim->relays[i].nack_ns,
                                             swim->relays[i].end_ns));
    if (swim->order_len == 0 || swim->leaving)
        return due_ns;
    due_ns = min_u64(due_ns, call_due(swim));
    if (swim->urgent_len > 0)
        for (unsigned i = 1; i < PROBES_MAX; i++)
            if (swim->probes[i].stage == PROBE_FREE)
                return swim->now_ns;
    if (swim->probes[0].stage == PROBE_FREE)
        due_ns = min_u64(due_ns, swim->probe_ns);
    return due_ns;
}

void tri_swim_probes_tick(struct tri_swim *swim)
{
    relays_tick(swim);
    for (unsigned i = 0; i < PROBES_MAX; i++)
        if (swim->probes[i].stage != PROBE_FREE &&
            !probe_tick(swim, &swim->probes[i]))
            return;
    if (swim->leaving)
        return;
    urgent_tick(swim);
    periodic_tick(swim);
    call_tick(swim);
}
