/* SPDX-License-Identifier: BSD-3-Clause */
#include "swim_sim.h"

#include <stdio.h>

/* Small systems have their tables compared after every step; in others it
 * costs about as much as the steps between. */
#define ALWAYS_NODES_MAX 16u

/* What an observer has reported about a subject: state << 28 | incarnation. */
#define SHADOW_STATE(shadow) ((shadow) >> 28)
#define SHADOW_INCARNATION(shadow) ((shadow)&0xfffffffu)

static uint32_t *shadow_of(struct swim_sim *sim, uint32_t observer,
                           uint32_t subject)
{
    return &sim->shadow[(size_t)observer * sim->lives_max + subject];
}

static uint32_t shadow(uint32_t state, uint32_t incarnation)
{
    return state << 28 | (incarnation & 0xfffffffu);
}

static bool is_final(uint32_t state)
{
    return state == TRI_SWIM_DEAD || state == TRI_SWIM_LEFT;
}

void swim_check_start(struct swim_sim *sim, uint32_t observer,
                      uint32_t subject)
{
    if (sim->shadow != NULL)
        *shadow_of(sim, observer, subject) = shadow(TRI_SWIM_ALIVE, 0);
}

/* --- one opinion ---------------------------------------------------------- */

/* Records of the dead may go when they are old enough. */
static bool may_be_forgotten(const struct swim_sim *sim, uint32_t subject)
{
    const struct swim_life *life = &sim->lives[subject];

    return life->verdict.dead_ns != 0 &&
           sim->now_ns - life->verdict.dead_ns >=
               sim->config.core.times.forget / 100 * 98;
}

/* True when an opinion may become another one; invariants 1 to 3. */
static bool may_follow(const struct swim_sim *sim, uint32_t subject,
                       uint32_t old, uint32_t state, uint32_t incarnation)
{
    uint32_t before = SHADOW_STATE(old);
    uint32_t old_incarnation = SHADOW_INCARNATION(old);

    if (before == TRI_SWIM_UNKNOWN)
        return true;
    if (is_final(before))
        return state == before || may_be_forgotten(sim, subject);
    if (state == TRI_SWIM_LEFT)
        return true;
    if (state == TRI_SWIM_UNKNOWN || incarnation < old_incarnation)
        return false;
    return state >= before || incarnation > old_incarnation;
}

/* Nobody knows a higher incarnation than the node itself has. */
static void check_owner(struct swim_sim *sim, uint32_t observer,
                        uint32_t subject, uint32_t incarnation)
{
    const struct swim_life *life = &sim->lives[subject];

    if (swim_life_runs(life) &&
        incarnation > tri_swim_incarnation(life->core))
        swim_sim_fail(sim, "life %u gives life %u incarnation %u", observer,
                      subject, incarnation);
}

static void take_opinion(struct swim_sim *sim, uint32_t observer,
                         uint32_t subject, uint32_t state,
                         uint32_t incarnation)
{
    uint32_t *old;

    check_owner(sim, observer, subject, incarnation);
    if (sim->shadow == NULL)
        return;
    old = shadow_of(sim, observer, subject);
    if (!may_follow(sim, subject, *old, state, incarnation))
        swim_sim_fail(sim, "life %u has life %u: state %u.%u after %u.%u",
                      observer, subject, state, incarnation,
                      SHADOW_STATE(*old), SHADOW_INCARNATION(*old));
    *old = shadow(state, incarnation);
}

/* --- what is measured ----------------------------------------------------- */

static void measure(struct swim_sim *sim, uint32_t observer,
                    uint32_t subject, const struct tri_swim_change *change)
{
    struct swim_life *life = &sim->lives[subject];
    struct swim_verdict *verdict = &life->verdict;
    bool is_own = change->accuser == sim->lives[observer].id;

    if (change->after == TRI_SWIM_SUSPECT) {
        if (verdict->suspect_ns == 0 && !swim_life_runs(life))
            verdict->suspect_ns = sim->now_ns;
        sim->stats.suspicions += swim_life_runs(life) && is_own;
    }
    if (!is_final(change->after) || is_final(change->before))
        return;
    if (verdict->dead_ns == 0)
        verdict->dead_ns = sim->now_ns;
    verdict->last_ns = sim->now_ns;
    verdict->knowing++;
    /* What those who are dead themselves believe, reaches nobody. */
    if (change->after == TRI_SWIM_DEAD && swim_life_runs(life) &&
        !life->is_excluded && !life->is_leaving &&
        sim->lives[observer].verdict.dead_ns == 0) {
        sim->stats.false_deaths++;
        sim->stats.false_deaths_healthy += !life->was_impaired;
    }
}

static const char *const state_names[] = { "unknown", "alive", "suspect",
                                           "dead", "left" };

/* --- a step --------------------------------------------------------------- */

/* Members that an observer has alive, or has had until this change. */
static uint32_t members(const struct tri_swim *core)
{
    struct tri_rumour rumour;
    uint32_t len = 1;

    for (uint32_t i = 0; tri_swim_get(core, i, &rumour); i++)
        len += rumour.state == TRI_SWIM_ALIVE ||
               rumour.state == TRI_SWIM_SUSPECT;
    return len;
}

/* Rule A: who declares a death heard somebody within the last period, who
 * suspects somebody did so within the longest that a probe may last; with only
 * two others, or one, there is less to be heard. */
static void check_reception(struct swim_sim *sim, uint32_t observer,
                            const struct tri_swim_event *event,
                            const struct tri_swim_change *change)
{
    const struct swim_life *life = &sim->lives[observer];
    const struct tri_swim_times *times = &sim->config.core.times;
    uint64_t limit_ns = times->period *
                        (change->after == TRI_SWIM_DEAD ? 1 : 8);
    uint32_t n;

    if (event->kind != TRI_SWIM_TICK || change->accuser != life->id ||
        change->evidence != TRI_SWIM_WEAK)
        return;
    sim->stats.deaths_by_timer += change->after == TRI_SWIM_DEAD;
    n = members(life->core);
    limit_ns *= n <= 4 ? 2 : 1;
    /* A probe's end may be seen as late as is no pause. */
    if (change->after == TRI_SWIM_SUSPECT)
        limit_ns += times->pause_guard;
    if ((sim->config.core.ablate & TRI_SWIM_PLAIN) == TRI_SWIM_PLAIN)
        return; /* what it does is to be seen, not forbidden */
    if (n > 3 && event->now_ns - life->heard_ns > limit_ns)
        swim_sim_fail(sim,
                      "life %u judges by state %u, heard nothing for %.3f s",
                      observer, change->after,
                      (double)(event->now_ns - life->heard_ns) / 1e9);
}

static void check_change(struct swim_sim *sim, uint32_t observer,
                         const struct tri_swim_event *event,
                         const struct tri_swim_change *change)
{
    uint32_t subject = swim_sim_life_of(sim, change->node);
    uint32_t before;

    swim_sim_mark(sim, change->node, change->after);
    if (subject == SWIM_NO_LIFE) {
        swim_sim_fail(sim, "life %u reports one that never was", observer);
        return;
    }
    if (subject == observer)
        return;
    swim_sim_trace(sim, "%u has %u %s by %u after event %u", observer,
                   subject, state_names[change->after],
                   swim_sim_life_of(sim, change->accuser), event->kind);
    check_reception(sim, observer, event, change);
    measure(sim, observer, subject, change);
    if (sim->shadow != NULL) {
        before = SHADOW_STATE(*shadow_of(sim, observer, subject));
        if (before != change->before &&
            !(is_final(before) && change->before == TRI_SWIM_UNKNOWN &&
              may_be_forgotten(sim, subject)))
            swim_sim_fail(sim, "life %u says life %u was %u: it was %u",
                          observer, subject, change->before, before);
    }
    take_opinion(sim, observer, subject, change->after,
                 change->incarnation);
}

/* The table says what was reported, with no lower incarnation. */
static void check_table(struct swim_sim *sim, uint32_t observer)
{
    const struct tri_swim *core = sim->lives[observer].core;
    struct tri_rumour rumour;
    uint32_t alive = 0;

    for (uint32_t i = 0; tri_swim_get(core, i, &rumour); i++) {
        uint32_t subject = swim_sim_life_of(sim, rumour.node);

        alive += rumour.state == TRI_SWIM_ALIVE ||
                 rumour.state == TRI_SWIM_SUSPECT;
        if (subject == SWIM_NO_LIFE) {
            swim_sim_fail(sim, "life %u lists one that never was", observer);
            return;
        }
        if (subject == observer)
            continue;
        /* The dead that were never known are remembered without a report. */
        if (sim->shadow != NULL &&
            SHADOW_STATE(*shadow_of(sim, observer, subject)) !=
                rumour.state &&
            (SHADOW_STATE(*shadow_of(sim, observer, subject)) !=
                 TRI_SWIM_UNKNOWN ||
             !is_final(rumour.state)))
            swim_sim_fail(sim, "life %u has life %u: %u, and said %u",
                          observer, subject, rumour.state,
                          SHADOW_STATE(*shadow_of(sim, observer, subject)));
        take_opinion(sim, observer, subject, rumour.state,
                     rumour.incarnation);
    }
    if (alive != tri_swim_alive_len(core))
        swim_sim_fail(sim, "life %u counts %u alive, has %u", observer,
                      tri_swim_alive_len(core), alive);
}

void swim_check_before(struct swim_sim *sim, uint32_t number,
                       const struct tri_swim_event *event,
                       struct swim_before *before_p)
{
    const struct tri_swim *core = sim->lives[number].core;

    *before_p = (struct swim_before){ .from = 0 };
    if (event->kind != TRI_SWIM_PACKET)
        return;
    before_p->from = event->packet->from;
    before_p->is_from_dead =
        is_final(tri_swim_state_of(core, event->packet->from));
    before_p->digest = before_p->is_from_dead ? tri_swim_digest(core) : 0;
}

void swim_check_step(struct swim_sim *sim, uint32_t number,
                     const struct tri_swim_event *event,
                     const struct swim_before *before)
{
    const struct tri_swim_effects *effects = &sim->effects;
    struct swim_life *life = &sim->lives[number];

    if (effects->sends_len > TRI_SWIM_SENDS_MAX ||
        effects->changes_len > TRI_SWIM_CHANGES_MAX) {
        swim_sim_fail(sim, "life %u has more effects than fit", number);
        return;
    }
    for (uint32_t i = 0; i < effects->changes_len; i++)
        check_change(sim, number, event, &effects->changes[i]);
    /* The dead may tell it that it is on the smaller side. */
    if (before->is_from_dead && !effects->excluded &&
        tri_swim_digest(life->core) != before->digest)
        swim_sim_fail(sim, "the dead %llx changed something at life %u",
                      (unsigned long long)before->from, number);
    if (sim->config.nodes <= ALWAYS_NODES_MAX ||
        life->steps % sim->config.nodes == 0)
        check_table(sim, number);
}

/* --- packets -------------------------------------------------------------- */

uint32_t swim_sim_packet_bytes(const struct swim_sim *sim,
                               const struct tri_swim_packet *packet)
{
    const struct tri_swim_config *core = &sim->config.core;
    uint32_t bytes = core->header_bytes +
                     packet->rumours_len * core->rumour_bytes;

    if (packet->kind == TRI_SWIM_BUCKETS_)
        bytes += (uint32_t)sizeof(packet->buckets);
    for (uint32_t i = 0; i < packet->rumours_len; i++)
        bytes += packet->rumours[i].with_card ? core->card_bytes : 0;
    return bytes;
}

void swim_check_packet(struct swim_sim *sim, uint32_t number,
                       const struct tri_swim_packet *packet)
{
    if (packet->kind == 0 || packet->kind > TRI_SWIM_KIND_LAST ||
        packet->from != sim->lives[number].id) {
        swim_sim_fail(sim, "life %u sends a packet of kind %u", number,
                      packet->kind);
        return;
    }
    if (packet->rumours_len > TRI_SWIM_RUMOURS_MAX ||
        swim_sim_packet_bytes(sim, packet) >
            sim->config.core.packet_bytes_max) {
        swim_sim_fail(sim, "life %u sends %u bytes", number,
                      swim_sim_packet_bytes(sim, packet));
        return;
    }
    for (uint32_t i = 0; i < packet->rumours_len; i++) {
        const struct tri_rumour *rumour = &packet->rumours[i];
        uint32_t subject = swim_sim_life_of(sim, rumour->node);

        if (rumour->state == TRI_SWIM_UNKNOWN ||
            rumour->state > TRI_SWIM_STATE_LAST || subject == SWIM_NO_LIFE)
            swim_sim_fail(sim, "life %u sends nonsense", number);
        else
            check_owner(sim, number, subject, rumour->incarnation);
    }
}

/* --- what can be seen ----------------------------------------------------- */

uint32_t swim_sim_running(const struct swim_sim *sim)
{
    uint32_t running = 0;

    for (uint32_t i = 0; i < sim->lives_len; i++)
        running += swim_life_runs(&sim->lives[i]);
    return running;
}

uint32_t swim_sim_some(struct swim_sim *sim, uint32_t but)
{
    for (;;) {
        uint32_t life = tri_random_below(&sim->random, sim->lives_len);

        if (life != but && swim_life_runs(&sim->lives[life]))
            return life;
    }
}

static bool lists(const struct swim_sim *sim, uint32_t observer,
                  uint32_t subject)
{
    return tri_swim_state_of(sim->lives[observer].core,
                             sim->lives[subject].id) == TRI_SWIM_ALIVE &&
           swim_sim_has_card(sim, observer, subject);
}

static bool lists_all(const struct swim_sim *sim, uint32_t observer)
{
    for (uint32_t i = 0; i < sim->lives_len; i++)
        if (swim_life_runs(&sim->lives[i]) && !lists(sim, observer, i))
            return false;
    return true;
}

bool swim_sim_agrees(struct swim_sim *sim)
{
    uint32_t running = swim_sim_running(sim);

    for (uint32_t i = 0; i < sim->lives_len; i++)
        if (swim_life_runs(&sim->lives[i]) &&
            tri_swim_alive_len(sim->lives[i].core) != running)
            return false;
    for (uint32_t i = 0; i < sim->lives_len; i++)
        if (swim_life_runs(&sim->lives[i]) && !lists_all(sim, i))
            return false;
    return true;
}

const char *swim_sim_disagreement(const struct swim_sim *sim)
{
    static char text[256];
    uint32_t missing = 0, dead = 0, cardless = 0, apart = 0, a = 0, b = 0;

    for (uint32_t i = 0; i < sim->lives_len; i++) {
        if (!swim_life_runs(&sim->lives[i]))
            continue;
        apart += !sim->lives[i].is_joined || sim->lives[i].is_excluded;
        for (uint32_t j = 0; j < sim->lives_len; j++) {
            enum tri_swim_state state = tri_swim_state_of(
                sim->lives[i].core, sim->lives[j].id);
            bool lives = state == TRI_SWIM_ALIVE || state == TRI_SWIM_SUSPECT;

            if (swim_life_runs(&sim->lives[j]) != lives ||
                state == TRI_SWIM_SUSPECT) {
                missing += !lives;
                dead += lives;
                a = i;
                b = j;
            }
            cardless += lives && !swim_sim_has_card(sim, i, j);
        }
    }
    snprintf(text, sizeof(text),
             "of %u, %u not joined or out; pairs missing %u, dead or suspect "
             "%u, no card %u; as life %u of life %u",
             swim_sim_running(sim), apart, missing, dead, cardless, a, b);
    return text;
}

uint32_t swim_sim_unaware(const struct swim_sim *sim, uint32_t life)
{
    uint32_t unaware = 0;

    for (uint32_t i = 0; i < sim->lives_len; i++)
        if (i != life && swim_life_runs(&sim->lives[i]))
            unaware += !is_final(tri_swim_state_of(sim->lives[i].core,
                                                   sim->lives[life].id));
    return unaware;
}

bool swim_sim_dead_known(struct swim_sim *sim)
{
    for (uint32_t i = 0; i < sim->lives_len; i++)
        if (!swim_life_runs(&sim->lives[i]) &&
            swim_sim_unaware(sim, i) != 0)
            return false;
    return true;
}

void swim_sim_count_anew(struct swim_sim *sim)
{
    for (uint32_t i = 0; i < sim->lives_len; i++) {
        sim->lives[i].sent = 0;
        sim->lives[i].sent_bytes = 0;
        sim->lives[i].second = 0;
        sim->lives[i].sent_second = 0;
        sim->lives[i].peak = 0;
    }
}

uint64_t swim_sim_sent(const struct swim_sim *sim)
{
    uint64_t sent = 0;

    for (uint32_t i = 0; i < sim->lives_len; i++)
        sent += sim->lives[i].sent;
    return sent;
}

uint32_t swim_sim_peak(const struct swim_sim *sim)
{
    uint32_t peak = 0;

    for (uint32_t i = 0; i < sim->lives_len; i++)
        peak = sim->lives[i].peak > peak ? sim->lives[i].peak : peak;
    return peak;
}
