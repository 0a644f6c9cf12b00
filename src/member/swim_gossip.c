/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rumours of the SWIM core, and the packets they travel in.
 *
 *  G1 A record has one rumour at most; what it says is what the record says
 *     when it is sent, so nothing outdated is passed on.
 *  G2 A rumour that was sent i times is in level i, each a circle in order of
 *     arrival; bit i of levels_used is set when level i has any.
 *  G3 It is dropped when it was sent transmissions(n) times: a member is
 *     missed with a chance of e^-7, whatever n is.
 *  G4 A packet's rumours and cards keep to packet_bytes_max.
 *  G5 Probes and answers that took rumours along since the last round count as
 *     part of the next: a member sends about as much while there is much to
 *     probe as while there is not. Counting them for later rounds, too, would
 *     save more, but a suspect that is slow would hear of it too late.
 */
#include <stdlib.h>

#include "member/swim_internal.h"

int tri_swim_gossip_init(struct tri_swim *swim)
{
    swim->rumours = calloc(swim->config.members_max, sizeof(swim->rumours[0]));
    if (swim->rumours == NULL)
        return TROUPE_ENOMEM;
    swim->rumours_free = NONE;
    swim->tell_at = NONE;
    for (unsigned i = 0; i < LEVELS; i++)
        swim->levels[i] = NONE;
    return 0;
}

void tri_swim_gossip_fini(struct tri_swim *swim)
{
    free(swim->rumours);
}

/* --- levels ---------------------------------------------------------------- */

static void level_add(struct tri_swim *swim, uint32_t at)
{
    struct rumour *rumour = &swim->rumours[at];
    uint32_t *first_p = &swim->levels[rumour->sent];

    if (*first_p == NONE) {
        *first_p = rumour->prev = rumour->next = at;
        swim->levels_used |= 1ull << rumour->sent;
        return;
    }
    rumour->next = *first_p;
    rumour->prev = swim->rumours[*first_p].prev;
    swim->rumours[rumour->prev].next = at;
    swim->rumours[rumour->next].prev = at;
}

static void level_remove(struct tri_swim *swim, uint32_t at)
{
    struct rumour *rumour = &swim->rumours[at];
    uint32_t *first_p = &swim->levels[rumour->sent];

    if (rumour->next == at) {
        *first_p = NONE;
        swim->levels_used &= ~(1ull << rumour->sent);
        return;
    }
    swim->rumours[rumour->prev].next = rumour->next;
    swim->rumours[rumour->next].prev = rumour->prev;
    if (*first_p == at)
        *first_p = rumour->next;
}

void tri_swim_rumour_start(struct tri_swim *swim, uint32_t index,
                           bool with_card)
{
    struct record *record = &swim->records[index];
    struct rumour *rumour;

    if (record->rumour != NONE) {
        level_remove(swim, record->rumour);
        with_card |= swim->rumours[record->rumour].with_card;
    } else {
        record->rumour = swim->rumours_free;
        if (record->rumour == NONE)
            record->rumour = swim->rumours_len++;
        else
            swim->rumours_free = swim->rumours[record->rumour].next;
    }
    if (swim->levels_used == 0)
        swim->filled = 0; /* the first round after a rest is a full one */
    rumour = &swim->rumours[record->rumour];
    *rumour = (struct rumour){ .record = index, .with_card = with_card };
    level_add(swim, record->rumour);
}

void tri_swim_rumour_drop(struct tri_swim *swim, uint32_t index)
{
    struct record *record = &swim->records[index];

    if (record->rumour == NONE)
        return;
    level_remove(swim, record->rumour);
    swim->rumours[record->rumour].next = swim->rumours_free;
    swim->rumours_free = record->rumour;
    record->rumour = NONE;
}

/* --- packets ---------------------------------------------------------------- */

struct tri_swim_packet *tri_swim_send(struct tri_swim *swim, unsigned kind,
                                      uint64_t to)
{
    struct tri_swim_effects *effects = swim->effects;
    struct tri_swim_packet *packet;

    if (swim->silent || effects->sends_len == TRI_SWIM_SENDS_MAX ||
        (swim->excluded && kind != TRI_SWIM_EXCLUDED))
        return NULL;
    packet = &effects->sends[effects->sends_len++];
    memset(packet, 0, offsetof(struct tri_swim_packet, buckets));
    packet->kind = (uint8_t)kind;
    packet->from = swim->config.node;
    packet->to = to;
    packet->incarnation = swim->records[OWN].incarnation;
    packet->alive_len = swim->counts[TRI_SWIM_ALIVE];
    packet->lowest = tri_swim_lowest(swim);
    packet->view_epoch = swim->view_epoch;
    swim->metrics.packets_out++;
    return packet;
}

static uint32_t bytes_of(const struct tri_swim *swim,
                         const struct tri_rumour *rumour)
{
    const struct tri_swim_config *config = &swim->config;
    uint32_t card_bytes = 0;

    if (!rumour->with_card)
        return config->rumour_bytes;
    if (config->card_bytes_of != NULL)
        card_bytes = config->card_bytes_of(config->context, rumour->node);
    if (card_bytes == 0 || card_bytes > config->card_bytes)
        card_bytes = config->card_bytes;
    return config->rumour_bytes + card_bytes;
}

bool tri_swim_put(struct tri_swim *swim, struct tri_swim_packet *packet,
                  const struct tri_rumour *rumour)
{
    uint32_t bytes = packet->rumour_bytes + bytes_of(swim, rumour);

    if (swim->config.header_bytes + bytes > swim->config.packet_bytes_max ||
        packet->rumours_len == TRI_SWIM_RUMOURS_MAX)
        return false;
    packet->rumours[packet->rumours_len++] = *rumour;
    packet->rumour_bytes = bytes;
    return true;
}

void tri_swim_rumour_of(const struct tri_swim *swim, uint32_t index,
                        uint32_t turn, bool with_card,
                        struct tri_rumour *rumour_p)
{
    const struct record *record = &swim->records[index];

    *rumour_p = (struct tri_rumour){
        .node = record->node,
        .incarnation = record->incarnation,
        .state = record->state,
        .evidence = record->evidence,
        .with_card = with_card && is_live(record->state),
    };
    if (record->state == TRI_SWIM_SUSPECT || record->state == TRI_SWIM_DEAD) {
        const struct detail *detail = &swim->details[record->detail];

        rumour_p->accuser = detail->accusers[turn % detail->accusers_len];
    }
}

static void count_sent(struct tri_swim *swim, uint32_t at, uint32_t limit)
{
    struct rumour *rumour = &swim->rumours[at];

    if (rumour->sent + 1u >= limit) {
        tri_swim_rumour_drop(swim, rumour->record);
        return;
    }
    level_remove(swim, at);
    rumour->sent++;
    level_add(swim, at);
}

static uint32_t limit_of(const struct tri_swim *swim)
{
    bool with_ln = has_rule(swim, TRI_SWIM_WITHOUT_LN_N);

    return tri_swim_transmissions(with_ln ? live_len(swim) : 1,
                                  swim->config.loss);
}

/* Of a level: its rumours in order, as long as there is room. A card that
 * does not fit any more lets those without pass, but not for long. */
static uint32_t fill_level(struct tri_swim *swim, uint32_t level,
                           struct tri_swim_packet *packet, uint32_t *sent,
                           uint32_t sent_len)
{
    uint32_t first = swim->levels[level], at = first, misses = 0;

    do {
        const struct rumour *rumour = &swim->rumours[at];
        struct tri_rumour told;

        tri_swim_rumour_of(swim, rumour->record, rumour->sent,
                           rumour->with_card, &told);
        if (packet->rumours_len > 0 && packet->rumours[0].node == told.node)
            misses++; /* the accusation of the receiver */
        else if (tri_swim_put(swim, packet, &told))
            sent[sent_len++] = at;
        else
            misses++;
        at = rumour->next;
    } while (at != first && misses < 4 && sent_len < TRI_SWIM_RUMOURS_MAX);
    return sent_len;
}

/* A suspect is told so with everything it gets, that it may refute: Lifeguard's
 * buddy does it with pings alone, which reach a slow member too rarely. */
static void accuse_receiver(struct tri_swim *swim,
                            struct tri_swim_packet *packet)
{
    uint32_t index = tri_swim_find(swim, packet->to);
    struct tri_rumour accusation;

    if (index == NONE || swim->records[index].state != TRI_SWIM_SUSPECT ||
        packet->rumours_len != 0 ||
        !has_rule(swim, TRI_SWIM_WITHOUT_LIFEGUARD))
        return;
    tri_swim_rumour_of(swim, index, 0, false, &accusation);
    tri_swim_put(swim, packet, &accusation);
}

void tri_swim_fill(struct tri_swim *swim, struct tri_swim_packet *packet)
{
    uint32_t sent[TRI_SWIM_RUMOURS_MAX], sent_len = 0, limit;
    uint64_t levels = swim->levels_used;

    accuse_receiver(swim, packet);
    while (levels != 0 && sent_len < TRI_SWIM_RUMOURS_MAX) {
        uint32_t level = (uint32_t)__builtin_ctzll(levels);

        sent_len = fill_level(swim, level, packet, sent, sent_len);
        levels &= levels - 1;
    }
    if (sent_len == 0)
        return;
    swim->filled++;
    limit = limit_of(swim);
    for (uint32_t i = 0; i < sent_len; i++)
        count_sent(swim, sent[i], limit);
}

/* --- rounds ------------------------------------------------------------------ */

uint64_t tri_swim_gossip_due(const struct tri_swim *swim)
{
    if (swim->excluded)
        return swim->hints_len > 0 ? swim->hint_ns : TRI_NS_NEVER;
    if (swim->order_len == 0 ||
        (swim->levels_used == 0 && swim->tell_at == NONE))
        return TRI_NS_NEVER;
    if (swim->tell_at != NONE)
        return swim->now_ns;
    return swim->gossiped_ns + swim->config.times.gossip;
}

/* The leaver's own word to every member. */
static void tell_all(struct tri_swim *swim)
{
    struct tri_swim_packet *packet;
    struct tri_rumour own;

    tri_swim_rumour_of(swim, OWN, 0, false, &own);
    while (swim->tell_at < swim->order_len) {
        const struct record *record =
            &swim->records[swim->order[swim->tell_at]];

        packet = tri_swim_send(swim, TRI_SWIM_GOSSIP, record->node);
        if (packet == NULL)
            return;
        tri_swim_put(swim, packet, &own);
        swim->tell_at++;
    }
    swim->tell_at = NONE;
}

/* Excluded, and our side with us: they are to ask who told us. */
static void hints_tick(struct tri_swim *swim)
{
    if (swim->hints_len == 0 || swim->now_ns < swim->hint_ns)
        return;
    for (uint32_t i = 0; i < swim->config.fanout && swim->hints_len > 0; i++) {
        uint32_t index = tri_swim_random_member(swim, 0);
        struct tri_swim_packet *packet = NULL;

        swim->hints_len--;
        if (index != NONE)
            packet = tri_swim_send(swim, TRI_SWIM_EXCLUDED,
                                   swim->records[index].node);
        if (packet != NULL)
            packet->target = swim->winner;
    }
    swim->hint_ns = swim->now_ns + swim->config.times.gossip;
}

/* To `fanout` distinct members: a run of the order from a random place would
 * always pair the same ones, so each is drawn; with few members all. */
static void round_start(struct tri_swim *swim, uint32_t fanout)
{
    uint32_t chosen[HELPERS_MAX], chosen_len = 0;
    uint32_t n = (uint32_t)tri_min(fanout, swim->order_len);

    while (chosen_len < n && swim->levels_used != 0) {
        uint32_t place = tri_random_below(&swim->random, swim->order_len);
        struct tri_swim_packet *packet;
        uint32_t i = 0;

        while (i < chosen_len && chosen[i] != place)
            i++;
        if (i < chosen_len)
            continue;
        chosen[chosen_len++] = place;
        packet = tri_swim_send(swim, TRI_SWIM_GOSSIP,
                               swim->records[swim->order[place]].node);
        if (packet == NULL)
            return;
        tri_swim_fill(swim, packet);
    }
}

void tri_swim_gossip_tick(struct tri_swim *swim)
{
    uint32_t fanout = swim->config.fanout;

    if (swim->excluded) {
        hints_tick(swim);
        return;
    }
    if (swim->tell_at != NONE)
        tell_all(swim);
    if (tri_swim_gossip_due(swim) > swim->now_ns)
        return;
    if (swim->effects->sends_len + fanout > TRI_SWIM_SENDS_MAX)
        return; /* due at once */
    swim->gossiped_ns = swim->now_ns;
    /* At least one is drawn: who got the others may be dead. */
    round_start(swim, fanout - (uint32_t)tri_min(swim->filled, fanout - 1));
    swim->filled = 0;
}
