/* SPDX-License-Identifier: BSD-3-Clause */
#include "swim_scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_NS (10 * SWIM_S)

uint64_t swim_detection_bound_ns(const struct tri_swim_config *core,
                                 uint32_t n)
{
    /* Among so few nobody can confirm: silence lasts twice as long. */
    uint64_t suspicion = tri_swim_suspicion_min_ns(core, n) *
                         (n <= 3 ? 2 : 1);

    return suspicion + 10 * core->times.period + 13 * core->times.gossip;
}

static void add_metrics(struct tri_swim_metrics *sum,
                        const struct tri_swim_metrics *more)
{
    sum->probes += more->probes;
    sum->probes_failed += more->probes_failed;
    sum->dropped_by_rule_a += more->dropped_by_rule_a;
    sum->pauses += more->pauses;
    sum->suspicions += more->suspicions;
    sum->deaths += more->deaths;
    sum->refutations += more->refutations;
    sum->packets_in += more->packets_in;
    sum->packets_out += more->packets_out;
    sum->rumours_dropped += more->rumours_dropped;
    sum->refused += more->refused;
}

void swim_finish(struct swim_sim **sim_p, struct swim_result *result_p)
{
    struct swim_sim *sim = *sim_p;

    memcpy(result_p->failure, sim->failure, sizeof(sim->failure));
    result_p->hash = sim->hash;
    result_p->virtual_ns = sim->now_ns;
    result_p->stats = sim->stats;
    result_p->peak = swim_sim_peak(sim);
    for (uint32_t i = 0; i < sim->lives_len; i++) {
        struct tri_swim_metrics metrics;

        result_p->excluded += sim->lives[i].is_excluded;
        if (!swim_life_runs(&sim->lives[i]))
            continue;
        metrics = tri_swim_metrics(sim->lives[i].core);
        add_metrics(&result_p->metrics, &metrics);
    }
    swim_sim_destroy(sim_p);
}

static void measure_traffic(const struct swim_sim *sim, uint64_t ns,
                            struct swim_result *result_p)
{
    double members = swim_sim_running(sim), seconds = (double)ns / 1e9;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < sim->lives_len; i++)
        bytes += sim->lives[i].sent_bytes;
    if (ns == 0 || members == 0)
        return;
    result_p->packets = (double)swim_sim_sent(sim) / members / seconds;
    result_p->bytes = (double)bytes / members / seconds;
}

/* --- a crash -------------------------------------------------------------- */

static uint64_t since(uint64_t at_ns, uint64_t start_ns)
{
    return at_ns == 0 ? SWIM_NEVER : at_ns - start_ns;
}

static void take_verdicts(const struct swim_sim *sim, uint64_t start_ns,
                          struct swim_result *result_p)
{
    result_p->suspect_first_ns = SWIM_NEVER;
    for (uint32_t i = 0; i < sim->lives_len; i++) {
        const struct swim_verdict *verdict = &sim->lives[i].verdict;
        uint64_t suspect_ns = since(verdict->suspect_ns, start_ns);
        uint64_t dead_ns = since(verdict->dead_ns, start_ns);
        uint32_t unaware;

        if (!sim->lives[i].has_crashed)
            continue;
        unaware = swim_sim_unaware(sim, i);
        result_p->unaware += unaware;
        if (suspect_ns == SWIM_NEVER)
            suspect_ns = dead_ns; /* it was suspected before it crashed */
        result_p->suspect_ns = tri_max(result_p->suspect_ns, suspect_ns);
        result_p->suspect_first_ns = tri_min(result_p->suspect_first_ns,
                                             suspect_ns);
        result_p->dead_ns = tri_max(result_p->dead_ns, dead_ns);
        result_p->all_ns = tri_max(result_p->all_ns,
                                   unaware ? SWIM_NEVER
                                           : verdict->last_ns - start_ns);
    }
}

void swim_run_crash(const struct swim_sim_config *config, uint32_t victims,
                    uint64_t limit_ns, struct swim_result *result_p)
{
    struct swim_sim *sim = swim_sim_create(config);
    uint64_t start_ns;

    *result_p = (struct swim_result){ .victims = victims };
    swim_sim_run_for(sim, SETTLE_NS);
    swim_sim_run_for(sim, swim_sim_between(sim, 0,
                                           config->core.times.period));
    swim_sim_count_anew(sim);
    start_ns = sim->now_ns;
    for (uint32_t i = 0; i < victims; i++)
        swim_sim_crash(sim, swim_sim_some(sim, SWIM_NO_LIFE));
    swim_sim_run_until(sim, swim_sim_dead_known, 100 * SWIM_MS, limit_ns);
    measure_traffic(sim, sim->now_ns - start_ns, result_p);
    take_verdicts(sim, start_ns, result_p);
    swim_finish(&sim, result_p);
}

/* --- nothing -------------------------------------------------------------- */

void swim_run_idle(const struct swim_sim_config *config, uint64_t ns,
                   struct swim_result *result_p)
{
    struct swim_sim *sim = swim_sim_create(config);

    *result_p = (struct swim_result){ .victims = 0 };
    swim_sim_run_for(sim, SETTLE_NS);
    swim_sim_count_anew(sim);
    swim_sim_run_for(sim, ns);
    measure_traffic(sim, ns, result_p);
    swim_finish(&sim, result_p);
}

/* --- slow members --------------------------------------------------------- */

static void impair(struct swim_sim *sim, uint32_t life,
                   enum swim_impairment impairment, uint64_t ns)
{
    switch (impairment) {
    case SWIM_STOPPED:
        swim_sim_stop(sim, life, ns);
        break;
    case SWIM_BLOCKED:
        swim_sim_block(sim, life, ns);
        break;
    case SWIM_CLOGGED:
        swim_sim_clog(sim, life, ns);
        break;
    }
}

/* The next beginning of a pause, and its slot. */
static uint32_t next_pause(const uint64_t *next_ns, uint32_t impaired)
{
    uint32_t first = 0;

    for (uint32_t i = 1; i < impaired; i++)
        if (next_ns[i] < next_ns[first])
            first = i;
    return first;
}

void swim_run_impaired(const struct swim_sim_config *config,
                       enum swim_impairment impairment, uint32_t impaired,
                       uint64_t on_ns, uint64_t off_ns, uint64_t ns,
                       struct swim_result *result_p)
{
    struct swim_sim *sim = swim_sim_create(config);
    uint64_t *next_ns = swim_sim_alloc(impaired + 1, sizeof(*next_ns));
    uint64_t end_ns = SETTLE_NS + ns;

    *result_p = (struct swim_result){ .victims = 0 };
    for (uint32_t i = 0; i < impaired; i++) {
        sim->lives[i].was_impaired = true;
        next_ns[i] = SETTLE_NS + swim_sim_between(sim, 0, on_ns + off_ns);
    }
    swim_sim_run(sim, SETTLE_NS);
    swim_sim_count_anew(sim);
    while (impaired > 0) {
        uint32_t slot = next_pause(next_ns, impaired);
        uint32_t life;

        if (next_ns[slot] >= end_ns ||
            !swim_sim_run(sim, next_ns[slot]))
            break;
        life = sim->slots[slot];
        /* Who came back under a new id is as slow as it was. */
        sim->lives[life].was_impaired = true;
        impair(sim, life, impairment, on_ns);
        result_p->pauses++;
        next_ns[slot] += on_ns + off_ns;
    }
    swim_sim_run(sim, end_ns);
    measure_traffic(sim, ns, result_p);
    free(next_ns);
    swim_finish(&sim, result_p);
}

/* --- joins ---------------------------------------------------------------- */

static bool all_joined(struct swim_sim *sim)
{
    for (uint32_t i = 0; i < sim->lives_len; i++)
        if (swim_life_runs(&sim->lives[i]) && !sim->lives[i].is_joined)
            return false;
    return swim_sim_agrees(sim);
}

void swim_run_join(const struct swim_sim_config *config, uint64_t limit_ns,
                   struct swim_result *result_p)
{
    struct swim_sim_config apart = *config;
    const uint32_t seeds[] = { 0, 1, 2 };
    const uint32_t seeds_len = config->nodes < 4 ? 1 : 3;
    struct swim_sim *sim;

    apart.is_apart = true;
    sim = swim_sim_create(&apart);
    *result_p = (struct swim_result){ .victims = 0 };
    sim->lives[0].is_joined = true;
    swim_sim_run_for(sim, SWIM_S);
    for (uint32_t i = 1; i < seeds_len; i++)
        swim_sim_join(sim, i, seeds, 1);
    swim_sim_run_for(sim, SETTLE_NS);
    swim_sim_count_anew(sim);
    for (uint32_t i = seeds_len; i < config->nodes; i++)
        swim_sim_join(sim, i, seeds, seeds_len);
    result_p->agreed_ns =
        swim_sim_run_until(sim, all_joined, 100 * SWIM_MS, limit_ns);
    measure_traffic(sim, tri_min(result_p->agreed_ns, limit_ns), result_p);
    if (result_p->agreed_ns == SWIM_NEVER)
        snprintf(result_p->disagreement, sizeof(result_p->disagreement),
                 "%s", swim_sim_disagreement(sim));
    swim_finish(&sim, result_p);
}

/* --- partitions ----------------------------------------------------------- */

void swim_split(struct swim_sim *sim, const uint32_t *sides,
                uint32_t sides_len)
{
    uint32_t slot = 0;

    for (uint32_t side = 0; side < sides_len; side++) {
        for (uint32_t i = 0; i < sides[side]; i++)
            sim->lives[sim->slots[slot++]].side = (uint8_t)side;
        for (uint32_t other = 0; other < side; other++)
            swim_sim_cut(sim, side, other);
    }
}

void swim_run_partition(const struct swim_sim_config *config,
                        const uint32_t *sides, uint32_t sides_len,
                        uint64_t ns, uint64_t limit_ns,
                        struct swim_result *result_p)
{
    struct swim_sim *sim = swim_sim_create(config);

    *result_p = (struct swim_result){ .victims = 0 };
    swim_sim_run(sim, SETTLE_NS);
    swim_sim_count_anew(sim);
    swim_split(sim, sides, sides_len);
    swim_sim_run_for(sim, ns);
    swim_sim_heal(sim);
    result_p->agreed_ns = swim_sim_run_until(sim, swim_sim_agrees,
                                             100 * SWIM_MS, limit_ns);
    measure_traffic(sim, sim->now_ns - SETTLE_NS, result_p);
    swim_finish(&sim, result_p);
}
