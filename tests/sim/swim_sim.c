/* SPDX-License-Identifier: BSD-3-Clause */
#include "swim_sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Steps of one life at one instant: more say "now" for ever. */
#define SPINS_MAX 100000u

void *swim_sim_alloc(size_t count, size_t bytes)
{
    void *memory = calloc(count, bytes);

    if (memory == NULL) {
        fprintf(stderr, "no memory for a simulation\n");
        abort();
    }
    return memory;
}

void swim_sim_fail(struct swim_sim *sim, const char *format, ...)
{
    va_list args;
    int len;

    if (sim->failure[0] != '\0')
        return;
    len = snprintf(sim->failure, sizeof(sim->failure),
                   "seed %llu, %.6f s, event %llu: ",
                   (unsigned long long)sim->config.seed,
                   (double)sim->now_ns / 1e9,
                   (unsigned long long)sim->stats.events);
    va_start(args, format);
    vsnprintf(sim->failure + len, sizeof(sim->failure) - (size_t)len, format,
              args);
    va_end(args);
}

void swim_sim_trace(const struct swim_sim *sim, const char *format, ...)
{
    va_list args;

    if (!sim->is_traced)
        return;
    fprintf(stderr, "%10.6f ", (double)sim->now_ns / 1e9);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* --- lives ---------------------------------------------------------------- */

uint32_t swim_sim_life_of(const struct swim_sim *sim, uint64_t id)
{
    for (uint64_t i = id & sim->index_mask; sim->index[i] != 0;
         i = (i + 1) & sim->index_mask)
        if (sim->lives[sim->index[i] - 1].id == id)
            return sim->index[i] - 1;
    return SWIM_NO_LIFE;
}

static void index_life(struct swim_sim *sim, uint32_t life)
{
    uint64_t i = sim->lives[life].id & sim->index_mask;

    while (sim->index[i] != 0)
        i = (i + 1) & sim->index_mask;
    sim->index[i] = life + 1;
}

static size_t card_bit(const struct swim_sim *sim, uint32_t observer,
                       uint32_t subject)
{
    return (size_t)observer * sim->lives_max + subject;
}

bool swim_sim_has_card(const struct swim_sim *sim, uint32_t observer,
                       uint32_t subject)
{
    size_t bit = card_bit(sim, observer, subject);

    return sim->cards[bit / 64] >> bit % 64 & 1;
}

void swim_sim_give_card(struct swim_sim *sim, uint32_t observer,
                        uint32_t subject)
{
    size_t bit = card_bit(sim, observer, subject);

    sim->cards[bit / 64] |= 1ull << bit % 64;
}

uint64_t swim_life_local_ns(const struct swim_life *life, uint64_t now_ns)
{
    int64_t now = (int64_t)now_ns;

    return (uint64_t)(life->clock_ns + now + now / 1000000 * life->clock_ppm +
                      now % 1000000 * life->clock_ppm / 1000000);
}

/* When its clock shows that. */
static uint64_t global_ns(const struct swim_life *life, uint64_t local_ns)
{
    int64_t passed = (int64_t)local_ns - life->clock_ns;
    double error = (double)passed * life->clock_ppm /
                   (1e6 + life->clock_ppm);
    int64_t at = passed - (int64_t)error;

    if (at < 0)
        return 0;
    at -= tri_min((size_t)at, 4);
    while (swim_life_local_ns(life, (uint64_t)at) < local_ns)
        at++;
    return (uint64_t)at;
}

/* A process starts in a slot. */
static uint32_t bear(struct swim_sim *sim, uint32_t slot)
{
    uint32_t number = sim->lives_len++;
    struct swim_life *life = &sim->lives[number];
    struct tri_swim_config config = sim->config.core;
    uint32_t ppm = sim->config.clock_ppm;

    if (number == sim->lives_max) {
        fprintf(stderr, "more lives than lives_max\n");
        abort();
    }
    do {
        life->id = tri_random_next(&sim->random);
    } while (life->id == 0 || swim_sim_life_of(sim, life->id) != SWIM_NO_LIFE);
    life->slot = slot;
    life->side = sim->lives[sim->slots[slot]].side;
    life->was_impaired = sim->lives[sim->slots[slot]].was_impaired;
    sim->slots[slot] = number;
    index_life(sim, number);
    life->clock_ns = (int64_t)swim_sim_between(sim, SWIM_S, 1000 * SWIM_S);
    life->clock_ppm = (int32_t)swim_sim_between(sim, 0, 2ull * ppm) -
                      (int32_t)ppm;
    life->wake_ns = SWIM_NEVER;
    life->born_ns = sim->now_ns;
    config.node = life->id;
    config.seed = tri_random_next(&sim->random);
    config.members_max = sim->lives_max;
    if (tri_swim_create(&config, &life->core) != 0) {
        fprintf(stderr, "no core for a simulation\n");
        abort();
    }
    swim_sim_give_card(sim, number, number);
    swim_sim_trace(sim, "%u starts in slot %u on side %u", number, slot,
                   life->side);
    return number;
}

static void end_life(struct swim_sim *sim, struct swim_life *life)
{
    struct swim_wire *wire;

    swim_sim_trace(sim, "%u ends", (unsigned)(life - sim->lives));
    tri_swim_destroy(&life->core);
    life->ended_ns = sim->now_ns;
    while ((wire = swim_boxes_take(&life->inbox)) != NULL)
        free(wire);
    while ((wire = swim_boxes_take(&life->outbox)) != NULL)
        free(wire);
}

/* --- steps ---------------------------------------------------------------- */

static void set_wake(struct swim_sim *sim, uint32_t number)
{
    struct swim_life *life = &sim->lives[number];
    uint64_t due = tri_swim_due_ns(life->core), at_ns;

    if (due == UINT64_MAX)
        return;
    at_ns = global_ns(life, due);
    if (at_ns < sim->now_ns)
        at_ns = sim->now_ns;
    if (at_ns >= life->wake_ns)
        return;
    life->wake_ns = at_ns;
    swim_sim_post(sim, SWIM_WAKE, number, at_ns, NULL);
}

static void follow_flags(struct swim_sim *sim, uint32_t number)
{
    struct swim_life *life = &sim->lives[number];

    if (sim->effects.joined && !life->is_joined) {
        life->is_joined = true;
        life->joined_ns = sim->now_ns;
        swim_sim_trace(sim, "%u has joined", number);
    }
    if (sim->effects.excluded) {
        life->is_excluded = true;
        life->excluded_ns = sim->now_ns;
        swim_sim_trace(sim, "%u is excluded", number);
        if (sim->config.will_rejoin)
            swim_sim_post(sim, SWIM_REJOIN, number,
                          sim->now_ns + sim->config.rejoin_ns +
                              swim_sim_between(sim, 0,
                                               sim->config.rejoin_ns),
                          NULL);
    }
    if (sim->effects.left)
        end_life(sim, life);
}

/* The driver keeps the cards of those that are in the table. */
static void keep_cards(struct swim_sim *sim, uint32_t number,
                       const struct tri_swim_packet *packet)
{
    for (uint32_t i = 0; i < packet->rumours_len; i++) {
        uint64_t id = packet->rumours[i].node;
        uint32_t subject;

        if (!packet->rumours[i].with_card ||
            tri_swim_state_of(sim->lives[number].core, id) ==
                TRI_SWIM_UNKNOWN)
            continue;
        subject = swim_sim_life_of(sim, id);
        if (subject != SWIM_NO_LIFE)
            swim_sim_give_card(sim, number, subject);
    }
}

static void step(struct swim_sim *sim, uint32_t number,
                 struct tri_swim_event *event)
{
    struct swim_life *life = &sim->lives[number];
    struct swim_before before;
    uint64_t answers = 0;

    life->spins = life->spin_ns == sim->now_ns ? life->spins + 1 : 0;
    life->spin_ns = sim->now_ns;
    if (life->spins > SPINS_MAX) {
        swim_sim_fail(sim, "life %u has work for ever", number);
        return;
    }
    life->steps++;
    event->now_ns = swim_life_local_ns(life, sim->now_ns);
    if (event->kind == TRI_SWIM_PACKET) {
        answers = event->packet->from;
        life->heard_ns = event->now_ns;
    }
    swim_sim_mark(sim, (uint64_t)number << 8 | event->kind, sim->now_ns);
    swim_check_before(sim, number, event, &before);
    tri_swim_step(life->core, event, &sim->effects);
    swim_check_step(sim, number, event, &before);
    if (event->kind == TRI_SWIM_PACKET)
        keep_cards(sim, number, event->packet);
    for (uint32_t i = 0; i < sim->effects.sends_len; i++) {
        swim_check_packet(sim, number, &sim->effects.sends[i]);
        swim_sim_send(sim, number, &sim->effects.sends[i], answers);
    }
    follow_flags(sim, number);
    if (swim_life_runs(life))
        set_wake(sim, number);
}

static void tick(struct swim_sim *sim, uint32_t number)
{
    struct swim_life *life = &sim->lives[number];
    struct tri_swim_event event = { .kind = TRI_SWIM_TICK };

    if (swim_life_runs(life) &&
        tri_swim_due_ns(life->core) <=
            swim_life_local_ns(life, sim->now_ns))
        step(sim, number, &event);
    else if (swim_life_runs(life))
        set_wake(sim, number);
}

static void hand_in(struct swim_sim *sim, uint32_t number,
                    const struct swim_wire *wire)
{
    struct tri_swim_event event = { .kind = TRI_SWIM_PACKET,
                                    .packet = &sim->packet };

    swim_wire_open(wire, &sim->packet);
    step(sim, number, &event);
}

static void arrive(struct swim_sim *sim, struct swim_wire *wire)
{
    uint32_t number = sim->slots[wire->to];
    struct swim_life *life = &sim->lives[number];

    if (!swim_life_runs(life) || sim->now_ns < life->blocked_until_ns) {
        sim->stats.lost++;
        free(wire);
        return;
    }
    if (sim->now_ns < life->stopped_until_ns ||
        sim->now_ns < life->clogged_until_ns) {
        if (life->inbox.len < sim->config.inbox_max) {
            swim_boxes_put(&life->inbox, wire);
            return;
        }
        sim->stats.lost++;
        free(wire);
        return;
    }
    hand_in(sim, number, wire);
    free(wire);
}

/* A stop or clog ends: what waited is handed in before any timer. */
static void go_on(struct swim_sim *sim, uint32_t number)
{
    struct swim_life *life = &sim->lives[number];
    struct swim_wire *wire;

    if (!swim_life_runs(life) || sim->now_ns < life->stopped_until_ns ||
        sim->now_ns < life->clogged_until_ns)
        return;
    swim_sim_flush_outbox(sim, life);
    while (swim_life_runs(life) &&
           (wire = swim_boxes_take(&life->inbox)) != NULL) {
        hand_in(sim, number, wire);
        free(wire);
    }
    tick(sim, number);
}

static void wake(struct swim_sim *sim, uint32_t number)
{
    struct swim_life *life = &sim->lives[number];

    if (life->wake_ns != sim->now_ns)
        return; /* an earlier one took its place */
    life->wake_ns = SWIM_NEVER;
    if (sim->now_ns >= life->stopped_until_ns)
        tick(sim, number);
    /* else go_on looks at the timers */
}

static void rejoin(struct swim_sim *sim, uint32_t number)
{
    uint32_t slot = sim->lives[number].slot;

    if (sim->slots[slot] != number || !swim_life_runs(&sim->lives[number]))
        return;
    swim_sim_join_any(sim, swim_sim_restart(sim, slot));
}

bool swim_sim_run(struct swim_sim *sim, uint64_t until_ns)
{
    struct swim_event event;

    while (sim->failure[0] == '\0' &&
           swim_sim_next(sim, until_ns, &event)) {
        sim->now_ns = event.at_ns;
        sim->stats.events++;
        switch ((enum swim_event_kind)event.kind) {
        case SWIM_WAKE:
            wake(sim, event.life);
            break;
        case SWIM_ARRIVE:
            arrive(sim, event.wire);
            break;
        case SWIM_GO_ON:
            go_on(sim, event.life);
            break;
        case SWIM_REJOIN:
            rejoin(sim, event.life);
            break;
        }
    }
    if (sim->failure[0] != '\0')
        return false;
    sim->now_ns = until_ns;
    return true;
}

bool swim_sim_run_for(struct swim_sim *sim, uint64_t ns)
{
    return swim_sim_run(sim, sim->now_ns + ns);
}

uint64_t swim_sim_run_until(struct swim_sim *sim,
                            bool (*holds)(struct swim_sim *sim),
                            uint64_t step_ns, uint64_t limit_ns)
{
    uint64_t start_ns = sim->now_ns;

    while (!holds(sim))
        if (sim->now_ns - start_ns >= limit_ns ||
            !swim_sim_run_for(sim, step_ns))
            return SWIM_NEVER;
    return sim->now_ns - start_ns;
}

/* --- what happens to nodes ------------------------------------------------ */

void swim_sim_crash(struct swim_sim *sim, uint32_t number)
{
    struct swim_life *life = &sim->lives[number];

    if (!swim_life_runs(life))
        return;
    life->has_crashed = true;
    end_life(sim, life);
}

uint32_t swim_sim_restart(struct swim_sim *sim, uint32_t slot)
{
    uint32_t number;

    swim_sim_crash(sim, sim->slots[slot]);
    number = bear(sim, slot);
    set_wake(sim, number);
    return number;
}

/* An event of the life's own. */
static void happen(struct swim_sim *sim, uint32_t number,
                   struct tri_swim_event event)
{
    if (swim_life_runs(&sim->lives[number]))
        step(sim, number, &event);
}

void swim_sim_join(struct swim_sim *sim, uint32_t number,
                   const uint32_t *slots, uint32_t slots_len)
{
    struct swim_life *life = &sim->lives[number];

    assert(slots_len <= SWIM_SEEDS_MAX);
    for (uint32_t i = 0; i < slots_len; i++)
        swim_sim_trace(sim, "%u: seed in slot %u", number, slots[i]);
    memcpy(life->seeds, slots, slots_len * sizeof(*slots));
    life->seeds_len = slots_len;
    happen(sim, number,
           (struct tri_swim_event){ .kind = TRI_SWIM_DO_JOIN,
                                    .seeds_len = slots_len });
}

void swim_sim_join_any(struct swim_sim *sim, uint32_t number)
{
    uint32_t slots[SWIM_SEEDS_MAX];
    uint32_t len = 0, tries = 0;

    while (len < SWIM_SEEDS_MAX && tries++ < 100) {
        uint32_t slot = tri_random_below(&sim->random, sim->slots_len);

        if (slot != sim->lives[number].slot)
            slots[len++] = slot;
    }
    swim_sim_join(sim, number, slots, len);
}

void swim_sim_leave(struct swim_sim *sim, uint32_t number)
{
    sim->lives[number].is_leaving = true;
    happen(sim, number,
           (struct tri_swim_event){ .kind = TRI_SWIM_DO_LEAVE });
}

void swim_sim_stop(struct swim_sim *sim, uint32_t number, uint64_t ns)
{
    struct swim_life *life = &sim->lives[number];

    life->was_impaired = true;
    life->stopped_until_ns = sim->now_ns + ns;
    swim_sim_post(sim, SWIM_GO_ON, number, sim->now_ns + ns, NULL);
}

void swim_sim_block(struct swim_sim *sim, uint32_t number, uint64_t ns)
{
    sim->lives[number].was_impaired = true;
    sim->lives[number].blocked_until_ns = sim->now_ns + ns;
}

void swim_sim_clog(struct swim_sim *sim, uint32_t number, uint64_t ns)
{
    struct swim_life *life = &sim->lives[number];

    life->was_impaired = true;
    life->clogged_until_ns = sim->now_ns + ns;
    swim_sim_post(sim, SWIM_GO_ON, number, sim->now_ns + ns, NULL);
}

void swim_sim_evidence(struct swim_sim *sim, uint32_t observer,
                       uint32_t about, enum tri_swim_evidence evidence)
{
    happen(sim, observer,
           (struct tri_swim_event){ .kind = TRI_SWIM_EVIDENCE,
                                    .node = sim->lives[about].id,
                                    .evidence = evidence });
}

/* --- the whole ------------------------------------------------------------ */

struct swim_sim_config swim_sim_calm(uint64_t seed, uint32_t nodes,
                                     enum tri_swim_profile profile)
{
    struct swim_sim_config config = {
        .seed = seed,
        .nodes = nodes,
        .delay_min_ns = 10 * SWIM_MS,
        .delay_max_ns = 20 * SWIM_MS,
        .late_max_ns = 500 * SWIM_MS,
        .inbox_max = 1000,
        .rejoin_ns = 2 * SWIM_S, /* what a restart takes */
    };

    tri_swim_config_init(&config.core, profile);
    return config;
}

/* Everybody knows everybody, as through MPI. */
static void add_all(struct swim_sim *sim)
{
    for (uint32_t i = 0; i < sim->config.nodes; i++) {
        for (uint32_t j = 0; j < sim->config.nodes; j++) {
            if (i == j)
                continue;
            if (tri_swim_add(sim->lives[i].core, sim->lives[j].id) != 0)
                swim_sim_fail(sim, "life %u cannot be added", j);
            swim_sim_give_card(sim, i, j);
            swim_check_start(sim, i, j);
        }
        sim->lives[i].is_joined = true;
    }
}

struct swim_sim *swim_sim_create(const struct swim_sim_config *config)
{
    struct swim_sim *sim = swim_sim_alloc(1, sizeof(*sim));
    uint32_t max = config->lives_max ? config->lives_max
                                     : 2 * config->nodes;
    uint64_t index_len = tri_pow2_up(2 * (uint64_t)max);

    sim->config = *config;
    sim->is_traced = getenv("TROUPE_TEST_SIM_TRACE") != NULL;
    sim->lives_max = max;
    tri_random_init(&sim->random, tri_mix64(config->seed + 1));
    sim->lives = swim_sim_alloc(max, sizeof(*sim->lives));
    sim->slots = swim_sim_alloc(max, sizeof(*sim->slots));
    sim->index = swim_sim_alloc(index_len, sizeof(*sim->index));
    sim->index_mask = index_len - 1;
    sim->cards = swim_sim_alloc((size_t)max * max / 64 + 1,
                                sizeof(*sim->cards));
    if (!config->has_no_shadow)
        sim->shadow = swim_sim_alloc((size_t)max * max,
                                     sizeof(*sim->shadow));
    sim->slots_len = config->nodes;
    for (uint32_t i = 0; i < config->nodes; i++)
        bear(sim, i);
    if (!config->is_apart)
        add_all(sim);
    /* Processes of a job start within a second or so of each other. */
    for (uint32_t i = 0; i < config->nodes; i++) {
        struct swim_life *life = &sim->lives[i];

        life->wake_ns = swim_sim_between(sim, 0, config->core.times.period);
        swim_sim_post(sim, SWIM_WAKE, i, life->wake_ns, NULL);
    }
    return sim;
}

void swim_sim_destroy(struct swim_sim **sim_p)
{
    struct swim_sim *sim = *sim_p;

    if (sim == NULL)
        return;
    for (uint32_t i = 0; i < sim->lives_len; i++)
        tri_swim_destroy(&sim->lives[i].core);
    swim_net_fini(sim);
    free(sim->cards);
    free(sim->shadow);
    free(sim->index);
    free(sim->slots);
    free(sim->lives);
    free(sim);
    *sim_p = NULL;
}
