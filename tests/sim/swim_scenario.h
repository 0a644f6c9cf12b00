/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_SWIM_SCENARIO_H
#define TESTS_SWIM_SCENARIO_H

/* Things that happen to a cluster and what came of it: for the tests and for
 * scripts/sim. */

#include "swim_sim.h"

struct swim_result {
    char failure[256];   /* a violated invariant; "": none */
    uint64_t hash;
    uint64_t virtual_ns; /* simulated in all */
    uint32_t victims;
    /* After the crash: the first suspicion, the first death, until all know;
     * the latest of the victims. SWIM_NEVER: not within the limit. */
    uint64_t suspect_ns, dead_ns, all_ns;
    uint64_t suspect_first_ns; /* of the victim first suspected */
    uint32_t unaware;    /* pairs, at the end */
    uint64_t agreed_ns;  /* join, heal: until all lists are the same */
    char disagreement[256]; /* when they were not, within the limit */
    uint64_t pauses;     /* that impaired members had */
    uint32_t excluded;   /* lives */
    double packets;      /* sent by a member in a second */
    double bytes;
    uint32_t peak;       /* packets of the busiest member in its worst second */
    struct swim_stats stats;
    struct tri_swim_metrics metrics; /* sums over the lives that run */
};

/* How long all know of a silent crash at the latest: the suspicion's minimum,
 * ten periods and thirteen rounds of gossip. */
uint64_t swim_detection_bound_ns(const struct tri_swim_config *core,
                                 uint32_t n);

/* `victims` random members crash at once; runs until all know, at most
 * limit_ns. Traffic is that between crash and end. */
void swim_run_crash(const struct swim_sim_config *config, uint32_t victims,
                    uint64_t limit_ns, struct swim_result *result_p);

/* Nothing happens for so long, after a start of 10 s. */
void swim_run_idle(const struct swim_sim_config *config, uint64_t ns,
                   struct swim_result *result_p);

enum swim_impairment { SWIM_STOPPED, SWIM_BLOCKED, SWIM_CLOGGED };

/* So many members are impaired for on_ns, well for off_ns, and so on, each
 * from its own random beginning. */
void swim_run_impaired(const struct swim_sim_config *config,
                       enum swim_impairment impairment, uint32_t impaired,
                       uint64_t on_ns, uint64_t off_ns, uint64_t ns,
                       struct swim_result *result_p);

/* All but the first three, which know each other, join by them at once. */
void swim_run_join(const struct swim_sim_config *config, uint64_t limit_ns,
                   struct swim_result *result_p);

/* A partition into sides of these sizes (their sum is nodes), and its end. */
void swim_run_partition(const struct swim_sim_config *config,
                        const uint32_t *sides, uint32_t sides_len,
                        uint64_t ns, uint64_t limit_ns,
                        struct swim_result *result_p);

/* The numbers of a run that is at its end; then destroys it. */
void swim_finish(struct swim_sim **sim, struct swim_result *result_p);

/* Members 0, 1, ... into sides of these sizes, cut off from each other. */
void swim_split(struct swim_sim *sim, const uint32_t *sides,
                uint32_t sides_len);

#endif
