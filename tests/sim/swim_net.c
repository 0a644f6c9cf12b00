/* SPDX-License-Identifier: BSD-3-Clause */
#include "swim_sim.h"

#include <stdlib.h>
#include <string.h>

/* --- the queue of events: a heap with four children ----------------------- */

static bool is_before(const struct swim_event *a, const struct swim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

void swim_sim_post(struct swim_sim *sim, enum swim_event_kind kind,
                   uint32_t life, uint64_t at_ns, struct swim_wire *wire)
{
    struct swim_event event = { .at_ns = at_ns, .seq = sim->events_seq++,
                                .kind = kind, .life = life, .wire = wire };
    size_t i = sim->events_len++;

    assert(at_ns >= sim->now_ns);
    if (i == sim->events_max) {
        sim->events_max = sim->events_max ? 2 * sim->events_max : 1024;
        sim->events = realloc(sim->events,
                              sim->events_max * sizeof(*sim->events));
        if (sim->events == NULL)
            abort();
    }
    for (; i > 0 && is_before(&event, &sim->events[(i - 1) / 4]);
         i = (i - 1) / 4)
        sim->events[i] = sim->events[(i - 1) / 4];
    sim->events[i] = event;
}

static size_t first_child(const struct swim_sim *sim, size_t i)
{
    size_t first = 4 * i + 1;
    size_t end = tri_min(first + 4, sim->events_len);

    for (size_t child = first + 1; child < end; child++)
        if (is_before(&sim->events[child], &sim->events[first]))
            first = child;
    return first;
}

bool swim_sim_next(struct swim_sim *sim, uint64_t until_ns,
                   struct swim_event *event_p)
{
    struct swim_event last;
    size_t i = 0, child;

    if (sim->events_len == 0 || sim->events[0].at_ns > until_ns)
        return false;
    *event_p = sim->events[0];
    last = sim->events[--sim->events_len];
    while ((child = first_child(sim, i)) < sim->events_len &&
           is_before(&sim->events[child], &last)) {
        sim->events[i] = sim->events[child];
        i = child;
    }
    sim->events[i] = last;
    return true;
}

/* --- packets -------------------------------------------------------------- */

#define HEAD_BYTES offsetof(struct tri_swim_packet, buckets)
#define BUCKETS_BYTES sizeof(((struct tri_swim_packet *)NULL)->buckets)

static struct swim_wire *wire_copy(const struct swim_wire *wire)
{
    struct swim_wire *copy =
        swim_sim_alloc(1, sizeof(*wire) + wire->bytes);

    memcpy(copy, wire, sizeof(*wire) + wire->bytes);
    copy->next = NULL;
    return copy;
}

static struct swim_wire *wire_of(const struct tri_swim_packet *packet,
                                 uint32_t from, uint32_t to)
{
    size_t buckets = packet->kind == TRI_SWIM_BUCKETS_ ? BUCKETS_BYTES : 0;
    size_t rumours = packet->rumours_len * sizeof(packet->rumours[0]);
    struct swim_wire *wire = malloc(sizeof(*wire) + HEAD_BYTES + buckets +
                                    rumours);

    if (wire == NULL)
        abort();
    wire->next = NULL;
    wire->from = from;
    wire->to = to;
    wire->bytes = (uint32_t)(HEAD_BYTES + buckets + rumours);
    memcpy(wire->data, packet, HEAD_BYTES);
    memcpy(wire->data + HEAD_BYTES, packet->buckets, buckets);
    memcpy(wire->data + HEAD_BYTES + buckets, packet->rumours, rumours);
    return wire;
}

void swim_wire_open(const struct swim_wire *wire,
                    struct tri_swim_packet *packet_p)
{
    size_t buckets;

    memcpy(packet_p, wire->data, HEAD_BYTES);
    buckets = packet_p->kind == TRI_SWIM_BUCKETS_ ? BUCKETS_BYTES : 0;
    memcpy(packet_p->buckets, wire->data + HEAD_BYTES, buckets);
    memcpy(packet_p->rumours, wire->data + HEAD_BYTES + buckets,
           wire->bytes - HEAD_BYTES - buckets);
}

void swim_boxes_put(struct swim_boxes *boxes, struct swim_wire *wire)
{
    if (boxes->first == NULL)
        boxes->last = &boxes->first;
    *boxes->last = wire;
    boxes->last = &wire->next;
    wire->next = NULL;
    boxes->len++;
}

struct swim_wire *swim_boxes_take(struct swim_boxes *boxes)
{
    struct swim_wire *wire = boxes->first;

    if (wire != NULL) {
        boxes->first = wire->next;
        boxes->len--;
    }
    return wire;
}

void swim_net_fini(struct swim_sim *sim)
{
    struct swim_wire *wire;

    for (size_t i = 0; i < sim->events_len; i++)
        free(sim->events[i].wire);
    for (uint32_t i = 0; i < sim->lives_len; i++) {
        while ((wire = swim_boxes_take(&sim->lives[i].inbox)) != NULL)
            free(wire);
        while ((wire = swim_boxes_take(&sim->lives[i].outbox)) != NULL)
            free(wire);
    }
    for (uint32_t i = 0; i < sim->records_len; i++)
        free(sim->records[i]);
    free(sim->records);
    free(sim->events);
}

/* --- on the way ----------------------------------------------------------- */

/* A fair choice of all that were ever sent (Vitter's reservoir). */
static void record(struct swim_sim *sim, const struct swim_wire *wire)
{
    uint64_t at = sim->records_seen++;

    if (sim->config.records_max == 0)
        return;
    if (sim->records == NULL)
        sim->records = swim_sim_alloc(sim->config.records_max,
                                      sizeof(struct swim_wire *));
    if (sim->records_len < sim->config.records_max) {
        sim->records[sim->records_len++] = wire_copy(wire);
        return;
    }
    at = tri_random_next(&sim->random) % (at + 1);
    if (at < sim->records_len) {
        free(sim->records[at]);
        sim->records[at] = wire_copy(wire);
    }
}

static bool is_lost(struct swim_sim *sim, const struct swim_life *from,
                    const struct swim_life *to)
{
    return sim->is_cut[from->side][to->side] ||
           swim_sim_chance(sim, sim->config.loss) ||
           swim_sim_chance(sim, from->loss_out) ||
           swim_sim_chance(sim, to->loss_in);
}

static uint64_t delay_ns(struct swim_sim *sim)
{
    const struct swim_sim_config *config = &sim->config;
    uint64_t ns = swim_sim_between(sim, config->delay_min_ns,
                                   config->delay_max_ns);

    if (swim_sim_chance(sim, config->late))
        ns += swim_sim_between(sim, 0, config->late_max_ns);
    return ns;
}

/* What the driver says before a JOIN is anything to the core: one without a
 * cookie, and the cookie (member/seed.c). Both have to arrive. Returns how
 * long that takes; SWIM_NEVER: it comes to nothing. */
static uint64_t greeting_ns(struct swim_sim *sim, const struct swim_wire *wire,
                            const struct swim_life *from,
                            const struct swim_life *to)
{
    struct tri_swim_packet head;

    memcpy(&head, wire->data, HEAD_BYTES);
    if (head.kind != TRI_SWIM_JOIN)
        return 0;
    if (is_lost(sim, from, to) || is_lost(sim, to, from))
        return SWIM_NEVER;
    return delay_ns(sim) + delay_ns(sim);
}

static void put_on_way(struct swim_sim *sim, struct swim_wire *wire)
{
    const struct swim_life *from = &sim->lives[wire->from];
    const struct swim_life *to = &sim->lives[sim->slots[wire->to]];
    uint64_t greeting = greeting_ns(sim, wire, from, to);

    record(sim, wire);
    if (greeting != SWIM_NEVER &&
        swim_sim_chance(sim, sim->config.duplicate) &&
        !is_lost(sim, from, to))
        swim_sim_post(sim, SWIM_ARRIVE, wire->to,
                      sim->now_ns + greeting + delay_ns(sim),
                      wire_copy(wire));
    if (greeting == SWIM_NEVER || is_lost(sim, from, to)) {
        sim->stats.lost++;
        free(wire);
        return;
    }
    swim_sim_post(sim, SWIM_ARRIVE, wire->to,
                  sim->now_ns + greeting + delay_ns(sim), wire);
}

void swim_sim_flush_outbox(struct swim_sim *sim, struct swim_life *life)
{
    struct swim_wire *wire;

    while ((wire = swim_boxes_take(&life->outbox)) != NULL)
        put_on_way(sim, wire);
}

static void count_sent(struct swim_sim *sim, struct swim_life *life,
                       const struct tri_swim_packet *packet)
{
    uint64_t second = sim->now_ns / SWIM_S;
    uint32_t bytes = swim_sim_packet_bytes(sim, packet);

    if (life->second != second) {
        life->second = second;
        life->sent_second = 0;
    }
    life->sent++;
    life->sent_bytes += bytes;
    life->sent_second++;
    life->peak = life->sent_second > life->peak ? life->sent_second
                                                : life->peak;
    sim->stats.packets++;
    sim->stats.bytes_max = tri_max(sim->stats.bytes_max, bytes);
    if (packet->kind <= TRI_SWIM_KIND_LAST)
        sim->stats.by_kind[packet->kind]++;
}

/* Where it goes: a slot; UINT32_MAX: the sender does not know how. */
static uint32_t slot_of(struct swim_sim *sim, uint32_t life,
                        const struct tri_swim_packet *packet,
                        uint64_t answers)
{
    const struct swim_life *from = &sim->lives[life];
    bool is_join = packet->kind == TRI_SWIM_JOIN;
    uint32_t to;

    if (is_join && packet->seed != TRI_SWIM_SEED_NONE)
        return packet->seed < from->seeds_len ? from->seeds[packet->seed]
                                              : UINT32_MAX;
    /* Where that one lives, or whoever lives there by now. */
    to = swim_sim_life_of(sim, is_join ? packet->target : packet->to);
    if (to == SWIM_NO_LIFE ||
        ((is_join || packet->to != answers) &&
         !swim_sim_has_card(sim, life, to)))
        return UINT32_MAX;
    return sim->lives[to].slot;
}

/* Rumours go with the cards that the sender has. */
static void strip_cards(struct swim_sim *sim, uint32_t life,
                        struct tri_swim_packet *packet)
{
    for (uint32_t i = 0; i < packet->rumours_len; i++) {
        struct tri_rumour *rumour = &packet->rumours[i];
        uint32_t subject;

        if (!rumour->with_card)
            continue;
        subject = swim_sim_life_of(sim, rumour->node);
        if (subject == SWIM_NO_LIFE ||
            !swim_sim_has_card(sim, life, subject))
            rumour->with_card = 0;
    }
}

void swim_sim_send(struct swim_sim *sim, uint32_t life_index,
                   const struct tri_swim_packet *packet, uint64_t answers)
{
    struct swim_life *life = &sim->lives[life_index];
    uint32_t slot = slot_of(sim, life_index, packet, answers);
    struct tri_swim_packet stripped;
    struct swim_wire *wire;

    swim_sim_mark(sim, packet->to, packet->kind);
    if (slot == UINT32_MAX) {
        sim->stats.cardless++;
        return;
    }
    count_sent(sim, life, packet);
    if (sim->now_ns < life->blocked_until_ns) {
        sim->stats.lost++;
        return;
    }
    memcpy(&stripped, packet, HEAD_BYTES);
    if (packet->kind == TRI_SWIM_BUCKETS_)
        memcpy(stripped.buckets, packet->buckets, BUCKETS_BYTES);
    memcpy(stripped.rumours, packet->rumours,
           packet->rumours_len * sizeof(packet->rumours[0]));
    strip_cards(sim, life_index, &stripped);
    wire = wire_of(&stripped, life_index, slot);
    if (sim->now_ns < life->clogged_until_ns)
        swim_boxes_put(&life->outbox, wire);
    else
        put_on_way(sim, wire);
}

void swim_sim_replay(struct swim_sim *sim, const struct swim_sim *from,
                     uint32_t count)
{
    for (uint32_t i = 0; i < count && from->records_len > 0; i++) {
        uint32_t at = tri_random_below(&sim->random, from->records_len);
        struct swim_wire *wire = wire_copy(from->records[at]);
        struct tri_swim_packet head;

        memcpy(&head, wire->data, HEAD_BYTES);
        if (head.to == 0 && from != sim) {
            free(wire);
            continue;
        }
        wire->to %= sim->slots_len;
        swim_sim_post(sim, SWIM_ARRIVE, wire->to,
                      sim->now_ns + delay_ns(sim), wire);
    }
}

/* --- partitions ----------------------------------------------------------- */

void swim_sim_cut_one_way(struct swim_sim *sim, unsigned from, unsigned to)
{
    sim->is_cut[from][to] = true;
}

void swim_sim_cut(struct swim_sim *sim, unsigned a, unsigned b)
{
    swim_sim_cut_one_way(sim, a, b);
    swim_sim_cut_one_way(sim, b, a);
}

void swim_sim_heal(struct swim_sim *sim)
{
    memset(sim->is_cut, 0, sizeof(sim->is_cut));
}
