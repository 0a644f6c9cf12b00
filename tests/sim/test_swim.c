/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Membership: how soon a crash is known, what is suspected for nothing, what
 * slow members cause, how rumours spread and what it costs.
 */
#include "swim_test.h"

/* --- completeness --------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

#define CRASHES_MAX 1000u
/* Packets of the busiest member in a second: gossip and probing make 34.4, a
 * second with eleven rounds of gossip 37.4; the prober and its helpers send
 * some more. */
#define PEAK_MAX 50u
/* When a tenth crashes, probes that fail and those for others come on top. */
#define MASS_PEAK_MAX 70u

/* Crashes of one member: all first suspicions within 10 T, their median at
 * most 3 T, and all members know within the bound. */
static const char *check_crashes(uint64_t seed, uint32_t n, uint32_t runs)
{
    static uint64_t suspected[CRASHES_MAX], known[CRASHES_MAX];
    struct swim_sim_config config = calm(seed, n);
    uint64_t period = config.core.times.period;
    uint64_t bound = swim_detection_bound_ns(&config.core, n);
    struct swim_result result;

    assert(runs <= CRASHES_MAX);
    for (uint32_t i = 0; i < runs; i++, config.seed++) {
        swim_run_crash(&config, 1, 2 * bound, &result);
        if (result.failure[0])
            return wrong("%s", result.failure);
        if (result.suspect_ns > 10 * period)
            return wrong("n %u, seed %llu: suspected after %.2f s", n,
                         (unsigned long long)config.seed,
                         seconds(result.suspect_ns));
        if (result.all_ns > bound)
            return wrong("n %u, seed %llu: known after %.2f s, bound %.2f s, "
                         "%u do not know",
                         n, (unsigned long long)config.seed,
                         seconds(result.all_ns), seconds(bound),
                         result.unaware);
        if (result.stats.false_deaths > 0)
            return wrong("n %u: a false death", n);
        if (result.peak > PEAK_MAX)
            return wrong("n %u: the busiest member sent %u packets in a second",
                         n, result.peak);
        suspected[i] = result.suspect_ns;
        known[i] = result.all_ns;
    }
    qsort(suspected, runs, sizeof(*suspected), by_value);
    qsort(known, runs, sizeof(*known), by_value);
    print_message("n %u, %u crashes: suspected after %.2f s (worst %.2f), "
                  "known to all after %.2f s (worst %.2f, bound %.2f)\n",
                  n, runs, seconds(suspected[runs / 2]),
                  seconds(suspected[runs - 1]), seconds(known[runs / 2]),
                  seconds(known[runs - 1]), seconds(bound));
    if (runs >= 20 && suspected[runs / 2] > 3 * period)
        return wrong("n %u: median of first suspicion %.2f s", n,
                     seconds(suspected[runs / 2]));
    return NULL;
}

static void test_completeness(void **state)
{
    static const uint32_t sizes[] = { 2, 3, 5, 8, 64, 256 };
    uint64_t seed = unit_seed("test_completeness");

    (void)state;
    for (size_t i = 0; i < tri_array_len(sizes); i++) {
        uint32_t runs = sizes[i] <= 8 ? 100 : sizes[i] <= 64 ? 30 : 4;

        expect("test_completeness", seed,
               check_crashes(seed, sizes[i],
                             is_long() ? CRASHES_MAX / (1 + sizes[i] / 64)
                                       : runs));
    }
}

static void test_completeness_1024(void **state)
{
    uint64_t seed = unit_seed("test_completeness_1024");

    (void)state;
    expect("test_completeness_1024", seed,
           check_crashes(seed, 1024, is_long() ? 50 : 1));
    if (is_long())
        expect("test_completeness_1024", seed, check_crashes(seed, 4096, 5));
}

/* A tenth of all crash at once. The bound is the same: the suspicions of many
 * run beside each other, but each prober has more to find. */
static const char *check_mass_crash(uint64_t seed, uint32_t n)
{
    struct swim_sim_config config = calm(seed, n);
    uint64_t bound = swim_detection_bound_ns(&config.core, n);
    struct swim_result result;

    swim_run_crash(&config, n / 10, 2 * bound, &result);
    if (result.failure[0])
        return wrong("%s", result.failure);
    print_message("n %u: %u known to all after %.2f s (bound %.2f), "
                  "busiest member %u packets in a second\n",
                  n, result.victims, seconds(result.all_ns), seconds(bound),
                  result.peak);
    if (result.all_ns > bound)
        return wrong("known after %.2f s, bound %.2f s, %u pairs missing",
                     seconds(result.all_ns), seconds(bound), result.unaware);
    if (result.stats.false_deaths > 0)
        return wrong("%llu false deaths",
                     (unsigned long long)result.stats.false_deaths);
    /* Each of the dead must not cost each member packets of its own. */
    if (result.peak > MASS_PEAK_MAX)
        return wrong("the busiest member sent %u packets in a second",
                     result.peak);
    return NULL;
}

static void test_tenth_crashes(void **state)
{
    uint64_t seed = unit_seed("test_tenth_crashes");

    (void)state;
    expect("test_tenth_crashes", seed, check_mass_crash(seed, 64));
    expect("test_tenth_crashes", seed, check_mass_crash(seed, 256));
    if (is_long()) {
        expect("test_tenth_crashes", seed, check_mass_crash(seed, 1024));
        expect("test_tenth_crashes", seed, check_mass_crash(seed, 4096));
    }
}

/* --- accuracy ------------------------------------------------------------- */

static const char *check_calm(uint64_t seed, uint32_t n, uint64_t ns,
                              uint32_t clock_ppm)
{
    struct swim_sim_config config = calm(seed, n);
    struct swim_result result;

    config.clock_ppm = clock_ppm;
    swim_run_idle(&config, ns, &result);
    if (result.failure[0])
        return wrong("%s", result.failure);
    if (result.stats.false_deaths > 0 || result.stats.suspicions > 0)
        return wrong("n %u: %llu deaths and %llu suspicions", n,
                     (unsigned long long)result.stats.false_deaths,
                     (unsigned long long)result.stats.suspicions);
    return NULL;
}

/* 24 hours in which nothing is wrong: nobody is even suspected. */
static void test_accuracy_calm(void **state)
{
    static const uint32_t sizes[] = { 1, 2, 3, 5, 8 };
    uint64_t seed = unit_seed("test_accuracy_calm");
    uint64_t hours = 24;

    (void)state;
    for (size_t i = 0; i < tri_array_len(sizes); i++)
        expect("test_accuracy_calm", seed,
               check_calm(seed, sizes[i],
                          (sizes[i] > 3 && !is_long() ? 2 : hours) * 3600 *
                              SWIM_S,
                          0));
    if (is_long())
        expect("test_accuracy_calm", seed,
               check_calm(seed, 64, hours * 3600 * SWIM_S, 0));
}

/* Clocks that differ by up to two percent from each other. */
static void test_accuracy_clock_rates(void **state)
{
    uint64_t seed = unit_seed("test_accuracy_clock_rates");

    (void)state;
    expect("test_accuracy_clock_rates", seed,
           check_calm(seed, 16, (is_long() ? 24 : 1) * 3600 * SWIM_S,
                      10000));
}

/* 5 % of all packets are lost: nobody dies, suspicions are rare. */
static const char *check_loss(uint64_t seed, uint32_t n, uint64_t ns)
{
    struct swim_sim_config config = calm(seed, n);
    struct swim_result result;
    double share;

    config.loss = SWIM_CHANCE / 20;
    swim_run_idle(&config, ns, &result);
    if (result.failure[0])
        return wrong("%s", result.failure);
    share = (double)result.stats.suspicions /
            (double)tri_max(result.metrics.probes, 1);
    print_message("n %u, 5 %% loss: %llu probes, %.1e suspicions each, "
                  "%llu deaths\n",
                  n, (unsigned long long)result.metrics.probes, share,
                  (unsigned long long)result.stats.false_deaths);
    if (result.stats.false_deaths > 0)
        return wrong("n %u: %llu false deaths", n,
                     (unsigned long long)result.stats.false_deaths);
    if (result.metrics.probes > 100000 && share > 3e-4)
        return wrong("n %u: %.1e suspicions in a probe", n, share);
    return NULL;
}

static void test_accuracy_loss(void **state)
{
    uint64_t seed = unit_seed("test_accuracy_loss");

    (void)state;
    expect("test_accuracy_loss", seed, check_loss(seed, 8, 3600 * SWIM_S));
    expect("test_accuracy_loss", seed, check_loss(seed, 64, 900 * SWIM_S));
    expect("test_accuracy_loss", seed,
           check_loss(seed, 1024, (is_long() ? 3600 : 20) * SWIM_S));
}

/* --- slow members --------------------------------------------------------- */

static double allowed_share(enum swim_impairment impairment,
                            uint32_t on_tenths)
{
    if (on_tenths < 5)
        return on_tenths == 4 && impairment == SWIM_BLOCKED ? 0.01 : 0;
    if (on_tenths < 10)
        return 0.03;
    return on_tenths == 10 ? 0.1 : 0.4;
}

/* A quarter of the members are impaired, for `on_tenths` tenths of the
 * suspicion's minimum. Deaths of healthy members: none. Of the others: none
 * for pauses under half the minimum; below the minimum at most 3 % of all
 * pauses at all observers, which is about what plain SWIM declares. One as long
 * or longer may be a death: when a probe begins right after it does, the
 * suspicion ends with the pause, or before it. Blocked members lose what they
 * are told, and a few in ten thousand pauses of 0.4 of the minimum cost a life:
 * 1 % is allowed where so few are run. */
static const char *check_impaired(uint64_t seed, uint32_t ablate,
                                  enum swim_impairment impairment, uint32_t n,
                                  uint32_t on_tenths, uint64_t ns)
{
    struct swim_sim_config config = calm(seed, n);
    uint64_t minimum = tri_swim_suspicion_min_ns(&config.core, n);
    struct swim_result result;
    double allowed;

    config.core.ablate = ablate;
    config.will_rejoin = true;
    config.lives_max = 16 * n;
    swim_run_impaired(&config, impairment, n / 4, on_tenths * minimum / 10,
                      SWIM_S, ns, &result);
    if (result.failure[0])
        return wrong("%s", result.failure);
    allowed = allowed_share(impairment, on_tenths);
    allowed *= (double)result.pauses * (n - 1);
    print_message("n %u, %u %s for %.1f s: %llu pauses, deaths %llu, of "
                  "healthy ones %llu; %llu suspicions\n",
                  n, n / 4,
                  impairment == SWIM_STOPPED   ? "stopped"
                  : impairment == SWIM_BLOCKED ? "blocked"
                                               : "clogged",
                  seconds(on_tenths * minimum / 10),
                  (unsigned long long)result.pauses,
                  (unsigned long long)result.stats.false_deaths,
                  (unsigned long long)result.stats.false_deaths_healthy,
                  (unsigned long long)result.stats.suspicions);
    if (result.stats.false_deaths_healthy > 0)
        return wrong("%llu deaths of healthy members",
                     (unsigned long long)result.stats.false_deaths_healthy);
    if ((double)result.stats.false_deaths > allowed)
        return wrong("%llu deaths of slow members, %.0f allowed",
                     (unsigned long long)result.stats.false_deaths, allowed);
    return NULL;
}

static void run_impaired(const char *name, enum swim_impairment impairment)
{
    uint64_t seed = unit_seed(name);
    uint32_t n = is_long() ? 256 : 64;

    for (uint32_t on = 2; on <= 12; on += 2)
        expect(name, seed,
               check_impaired(seed, 0, impairment, n, on, 60 * SWIM_S));
}

static void test_quarter_stopped(void **state)
{
    (void)state;
    run_impaired("test_quarter_stopped", SWIM_STOPPED);
}

static void test_quarter_blocked(void **state)
{
    (void)state;
    run_impaired("test_quarter_blocked", SWIM_BLOCKED);
}

static void test_quarter_clogged(void **state)
{
    (void)state;
    run_impaired("test_quarter_clogged", SWIM_CLOGGED);
}

/* What was declared dead wrongly, by all observers, in some runs. */
static void impaired_deaths(uint64_t seed, uint32_t ablate,
                            enum swim_impairment impairment,
                            uint64_t *deaths_p, uint64_t *healthy_p)
{
    struct swim_sim_config config = calm(seed, 64);
    uint64_t minimum = tri_swim_suspicion_min_ns(&config.core, 64);

    *deaths_p = *healthy_p = 0;
    config.core.ablate = ablate;
    config.will_rejoin = true;
    config.lives_max = 16 * 64;
    for (uint32_t run = 0; run < (is_long() ? 100 : 5); run++, config.seed++) {
        struct swim_result result;

        swim_run_impaired(&config, impairment, 16, 8 * minimum / 10, SWIM_S,
                          60 * SWIM_S, &result);
        assert_string_equal(result.failure, "");
        *deaths_p += result.stats.false_deaths;
        *healthy_p += result.stats.false_deaths_healthy;
    }
}

/* Pauses of 0.8 of the minimum: at most 3 % of the wrong deaths that plain SWIM
 * makes of them (10 % in a few runs, as they come in bursts), which also kills
 * healthy members. Those that are stopped are no case: their clocks stand still,
 * so even plain SWIM hardly kills any. */
static void test_less_than_plain_swim(void **state)
{
    static const enum swim_impairment impairments[] = { SWIM_BLOCKED,
                                                        SWIM_CLOGGED };
    uint64_t seed = unit_seed("test_less_than_plain_swim");

    (void)state;
    for (size_t i = 0; i < tri_array_len(impairments); i++) {
        uint64_t deaths, healthy, plain_deaths, plain_healthy;

        impaired_deaths(seed, 0, impairments[i], &deaths, &healthy);
        impaired_deaths(seed, TRI_SWIM_PLAIN, impairments[i], &plain_deaths,
                        &plain_healthy);
        print_message("deaths %llu, plain SWIM %llu; of healthy ones %llu, "
                      "%llu\n",
                      (unsigned long long)deaths,
                      (unsigned long long)plain_deaths,
                      (unsigned long long)healthy,
                      (unsigned long long)plain_healthy);
        assert_true(plain_healthy > 0);
        assert_int_equal(healthy, 0);
        assert_true(100 * deaths <= (is_long() ? 3 : 10) * plain_deaths);
    }
}

/* One is stopped and goes on: nothing below half of the minimum; told and back
 * under a new id, when it was too long. */
static const char *check_stop(uint64_t seed, uint64_t ns)
{
    struct swim_sim_config config = calm(seed, 16);
    uint64_t minimum = tri_swim_suspicion_min_ns(&config.core, 16);
    struct swim_sim *sim;
    const char *what = NULL;
    uint64_t took;

    config.will_rejoin = true;
    sim = swim_sim_create(&config);
    swim_sim_run_for(sim, 10 * SWIM_S);
    swim_sim_stop(sim, 3, ns);
    swim_sim_run_for(sim, ns);
    took = swim_sim_run_until(sim, swim_sim_agrees, 100 * SWIM_MS,
                              30 * SWIM_S);
    if (took == SWIM_NEVER)
        what = wrong("stopped %.1f s: after 30 s: %s", seconds(ns),
                     swim_sim_disagreement(sim));
    else if (sim->stats.false_deaths_healthy > 0)
        what = wrong("stopped %.1f s: the death of another", seconds(ns));
    else if (ns < minimum / 2 && sim->lives_len != 16)
        what = wrong("stopped %.1f s: declared dead", seconds(ns));
    else if (ns > 30 * SWIM_S && sim->lives_len == 16)
        what = wrong("stopped %.1f s: not declared dead", seconds(ns));
    return finish(&sim, what);
}

static void test_stop_and_continue(void **state)
{
    static const uint64_t times_ms[] = { 100, 300, 600, 1000, 1500, 2000,
                                         3000, 5000, 10000, 30000, 60000 };
    uint64_t seed = unit_seed("test_stop_and_continue");

    (void)state;
    for (size_t i = 0; i < tri_array_len(times_ms); i++)
        for (uint32_t run = 0; run < (is_long() ? 100 : 5); run++)
            expect("test_stop_and_continue", seed,
                   check_stop(seed + run, times_ms[i] * SWIM_MS));
}

/* A batch system suspends the whole job, node by node, and resumes it so. One
 * member was under suspicion just then: it must get its chance to refute. And
 * nobody is suspected for having been away with the others. */
static const char *check_gang(uint64_t seed, uint32_t ablate)
{
    struct swim_sim_config config = calm(seed, 32);
    struct swim_sim *sim;
    const char *what = NULL;
    uint64_t before;

    config.core.ablate = ablate;
    sim = swim_sim_create(&config);
    swim_sim_run_for(sim, 10 * SWIM_S);
    swim_sim_block(sim, 5, 1500 * SWIM_MS);
    swim_sim_run_for(sim, 1400 * SWIM_MS);
    for (uint32_t i = 0; i < 32; i++)
        swim_sim_stop(sim, i,
                      60 * SWIM_S + swim_sim_between(sim, 0, 300 * SWIM_MS));
    before = sim->stats.suspicions;
    swim_sim_run_for(sim, 80 * SWIM_S);
    if (sim->stats.false_deaths > 0)
        what = wrong("%llu deaths of a suspended job",
                     (unsigned long long)sim->stats.false_deaths);
    else if (!swim_sim_agrees(sim))
        what = wrong("no agreement after a suspension");
    else if (sim->stats.suspicions != before)
        what = wrong("%llu suspicions after a suspension",
                     (unsigned long long)(sim->stats.suspicions - before));
    return finish(&sim, what);
}

static void test_whole_job_suspended(void **state)
{
    uint64_t seed = unit_seed("test_whole_job_suspended");

    (void)state;
    for (uint32_t run = 0; run < (is_long() ? 200 : 20); run++)
        expect("test_whole_job_suspended", seed + run,
               check_gang(seed + run, 0));
}

/* --- rumours and traffic -------------------------------------------------- */

/* A proven death spreads: at least 999 of 1000 members know by gossip alone,
 * and, but for `late` of the runs, all of them within 13 rounds. */
static const char *check_rumour(uint64_t seed, uint32_t n, uint32_t runs,
                                uint32_t loss, uint32_t late,
                                uint32_t ablate)
{
    struct swim_sim_config config = calm(seed, n);
    const double tick = (double)config.core.times.gossip;
    uint64_t sum_ns = 0, missed = 0;
    uint32_t bad = 0;

    config.loss = loss;
    config.core.ablate = ablate;
    config.core.times.digest = 100000 * SWIM_S; /* tells nobody */
    for (uint32_t i = 0; i < runs; i++, config.seed++) {
        struct swim_sim *sim = swim_sim_create(&config);
        const struct swim_verdict *verdict = &sim->lives[n - 1].verdict;
        uint32_t unaware;
        uint64_t start_ns;
        const char *what;

        swim_sim_run_for(sim, 10 * SWIM_S);
        start_ns = sim->now_ns;
        swim_sim_crash(sim, n - 1);
        swim_sim_evidence(sim, swim_sim_some(sim, n - 1), n - 1,
                          TRI_SWIM_PROOF);
        swim_sim_run_for(sim, 13 * config.core.times.gossip);
        unaware = swim_sim_unaware(sim, n - 1);
        missed += unaware;
        bad += unaware > 0;
        sum_ns += verdict->last_ns - start_ns;
        what = finish(&sim, NULL);
        if (what != NULL)
            return what;
    }
    print_message("n %u: %u rumours reach the last after %.1f rounds, %llu "
                  "missed in %u runs\n",
                  n, runs, (double)sum_ns / runs / tick,
                  (unsigned long long)missed, bad);
    if (missed * 1000 > (uint64_t)n * runs)
        return wrong("n %u: %llu members missed %u rumours", n,
                     (unsigned long long)missed, runs);
    if (bad > late)
        return wrong("n %u: %u of %u rumours missed somebody", n, bad, runs);
    return NULL;
}

/* A member is missed by e^-7 = 0.1 % of the rumours, whatever n is; so much
 * is left over for chance. */
static void test_rumour_reaches_all(void **state)
{
    uint64_t seed = unit_seed("test_rumour_reaches_all");

    (void)state;
    expect("test_rumour_reaches_all", seed, check_rumour(seed, 8, 50, 0, 2, 0));
    expect("test_rumour_reaches_all", seed,
           check_rumour(seed, 256, 80, SWIM_CHANCE / 10, 2, 0));
    expect("test_rumour_reaches_all", seed,
           check_rumour(seed, 1024, is_long() ? 50 : 2, 0, 2, 0));
    if (is_long())
        expect("test_rumour_reaches_all", seed,
               check_rumour(seed, 4096, 5, 0, 2, 0));
}

/* At rest a member sends at most 2.2 packets in a period, whatever n. */
static const char *check_idle_traffic(uint64_t seed)
{
    static const uint32_t sizes[] = { 8, 16, 64, 256, 1024, 4096 };
    uint32_t len = is_long() ? 6 : 5;
    double sum_x = 0, sum_y = 0, sum_xx = 0, sum_xy = 0, slope;

    for (uint32_t i = 0; i < len; i++) {
        struct swim_sim_config config = calm(seed, sizes[i]);
        double period = (double)config.core.times.period / 1e9;
        uint64_t ns = (sizes[i] <= 64 ? 600 : sizes[i] <= 256 ? 60 : 10) *
                      SWIM_S;
        struct swim_result result;
        double each;

        swim_run_idle(&config, ns, &result);
        if (result.failure[0])
            return wrong("%s", result.failure);
        each = result.packets * period;
        print_message("n %u: %.3f packets and %.0f bytes in a period\n",
                      sizes[i], each, result.bytes * period);
        if (each > 2.2)
            return wrong("n %u: %.2f packets in a period", sizes[i], each);
        sum_x += sizes[i];
        sum_y += each;
        sum_xx += (double)sizes[i] * sizes[i];
        sum_xy += sizes[i] * each;
    }
    slope = (len * sum_xy - sum_x * sum_y) / (len * sum_xx - sum_x * sum_x);
    print_message("slope over n: %.2e\n", slope);
    /* A packet in a period more at 10,000 members would be 1e-4. */
    return slope > 5e-5 || slope < -5e-5 ? wrong("slope %.2e", slope) : NULL;
}

static void test_idle_traffic(void **state)
{
    uint64_t seed = unit_seed("test_idle_traffic");

    (void)state;
    expect("test_idle_traffic", seed, check_idle_traffic(seed));
}

/* --- without a rule ------------------------------------------------------- */

/* One of some seeds shows that something is wrong. */
static void expect_wrong(const char *what)
{
    print_message("found: %s\n", what ? what : "nothing");
    assert_non_null(what);
}

static void test_without_rule_a(void **state)
{
    uint64_t seed = unit_seed("test_without_rule_a");

    (void)state;
    expect_wrong(check_impaired(seed, TRI_SWIM_WITHOUT_RULE_A, SWIM_BLOCKED,
                                64, 8, 60 * SWIM_S));
}

static void test_without_pause_guard(void **state)
{
    uint64_t seed = unit_seed("test_without_pause_guard");
    const char *what = NULL;

    (void)state;
    for (uint32_t run = 0; run < 20 && what == NULL; run++)
        what = check_gang(seed + run, TRI_SWIM_WITHOUT_RULE_B);
    expect_wrong(what);
}

static void test_without_ln_n(void **state)
{
    uint64_t seed = unit_seed("test_without_ln_n");

    (void)state;
    expect_wrong(check_rumour(seed, 256, 80, SWIM_CHANCE / 10, 2,
                              TRI_SWIM_WITHOUT_LN_N));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_completeness),
        cmocka_unit_test(test_completeness_1024),
        cmocka_unit_test(test_tenth_crashes),
        cmocka_unit_test(test_accuracy_calm),
        cmocka_unit_test(test_accuracy_clock_rates),
        cmocka_unit_test(test_accuracy_loss),
        cmocka_unit_test(test_quarter_stopped),
        cmocka_unit_test(test_quarter_blocked),
        cmocka_unit_test(test_quarter_clogged),
        cmocka_unit_test(test_less_than_plain_swim),
        cmocka_unit_test(test_stop_and_continue),
        cmocka_unit_test(test_whole_job_suspended),
        cmocka_unit_test(test_rumour_reaches_all),
        cmocka_unit_test(test_idle_traffic),
        cmocka_unit_test(test_without_rule_a),
        cmocka_unit_test(test_without_pause_guard),
        cmocka_unit_test(test_without_ln_n),
    };

    swim_choose_tests();
    return cmocka_run_group_tests(tests, swim_group_setup, NULL);
}
