/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Membership: joins, leaves, restarts, partitions of all kinds, packets from
 * the past, and everything at once.
 */
#include "swim_test.h"

/* --- joins, leaves, restarts ---------------------------------------------- */

static const char *check_join(uint64_t seed, uint32_t n, uint32_t loss,
                              uint64_t limit_ns)
{
    struct swim_sim_config config = calm(seed, n);
    struct swim_result result;

    config.loss = loss;
    swim_run_join(&config, limit_ns, &result);
    if (result.failure[0])
        return wrong("%s", result.failure);
    print_message("n %u: all in after %.1f s, %.1f packets a second each, "
                  "the busiest %u, %llu without a card\n",
                  n, seconds(result.agreed_ns), result.packets, result.peak,
                  (unsigned long long)result.stats.cardless);
    if (result.agreed_ns == SWIM_NEVER)
        return wrong("n %u: after %.0f s: %s", n, seconds(limit_ns),
                     result.disagreement);
    return result.stats.false_deaths > 0 ? wrong("a false death") : NULL;
}

static void test_all_join_at_once(void **state)
{
    static const uint32_t sizes[] = { 2, 3, 5, 8, 64, 256, 1024 };
    uint64_t seed = unit_seed("test_all_join_at_once");

    (void)state;
    for (size_t i = 0; i < tri_array_len(sizes); i++)
        expect("test_all_join_at_once", seed,
               check_join(seed, sizes[i], 0, 10 * SWIM_S));
    if (is_long())
        expect("test_all_join_at_once", seed,
               check_join(seed, 4096, 0, 60 * SWIM_S));
}

/* A tenth of the packets are lost. */
static void test_join_with_loss(void **state)
{
    uint64_t seed = unit_seed("test_join_with_loss");

    (void)state;
    for (uint32_t run = 0; run < (is_long() ? 50 : 3); run++)
        expect("test_join_with_loss", seed,
               check_join(seed + run, 32, SWIM_CHANCE / 10, 40 * SWIM_S));
}

/* Seeds that are not there, first; they come later. */
static const char *check_seeds_down(uint64_t seed)
{
    struct swim_sim_config config = calm(seed, 8);
    const uint32_t seeds[] = { 5, 6, 7 };
    struct swim_sim *sim = swim_sim_create(&config);
    const char *what = NULL;
    uint32_t joiner;

    for (uint32_t i = 5; i < 8; i++)
        swim_sim_crash(sim, i);
    swim_sim_run_for(sim, 30 * SWIM_S);
    swim_sim_crash(sim, 4);
    joiner = swim_sim_restart(sim, 4);
    swim_sim_join(sim, joiner, seeds, 3);
    swim_sim_run_for(sim, 20 * SWIM_S);
    if (sim->lives[joiner].is_joined)
        what = wrong("joined by seeds that are down");
    swim_sim_join(sim, swim_sim_restart(sim, 6), (uint32_t[]){ 0 }, 1);
    if (what == NULL &&
        swim_sim_run_until(sim, swim_sim_agrees, 100 * SWIM_MS,
                           20 * SWIM_S) == SWIM_NEVER)
        what = wrong("not joined after a seed came up");
    return finish(&sim, what);
}

static void test_seeds_down(void **state)
{
    uint64_t seed = unit_seed("test_seeds_down");

    (void)state;
    for (uint32_t run = 0; run < 5; run++)
        expect("test_seeds_down", seed, check_seeds_down(seed + run));
}

/* Who leaves is LEFT everywhere, soon, and nobody's death. */
static const char *check_leave(uint64_t seed, uint32_t n, uint32_t leavers)
{
    struct swim_sim_config config = calm(seed, n);
    struct swim_sim *sim = swim_sim_create(&config);
    const char *what = NULL;

    swim_sim_run_for(sim, 5 * SWIM_S);
    for (uint32_t i = 0; i < leavers; i++)
        swim_sim_leave(sim, i);
    swim_sim_run_for(sim, 5 * SWIM_S);
    for (uint32_t i = 0; i < leavers && what == NULL; i++) {
        if (swim_life_runs(&sim->lives[i]))
            what = wrong("n %u: a leave does not end", n);
        for (uint32_t j = leavers; j < n && what == NULL; j++)
            if (tri_swim_state_of(sim->lives[j].core, sim->lives[i].id) !=
                TRI_SWIM_LEFT)
                what = wrong("n %u: a leave is not seen as one", n);
    }
    if (what == NULL && !swim_sim_agrees(sim))
        what = wrong("n %u: no agreement after leaves", n);
    return finish(&sim, what);
}

static void test_leave(void **state)
{
    uint64_t seed = unit_seed("test_leave");

    (void)state;
    expect("test_leave", seed, check_leave(seed, 2, 1));
    expect("test_leave", seed, check_leave(seed, 5, 4));
    expect("test_leave", seed, check_leave(seed, 64, 20));
    expect("test_leave", seed, check_leave(seed, 256, 1));
}

/* All but three are killed and come back at once, at the same addresses, under
 * new ids, while the old ones are not even suspected yet. */
static const char *check_mass_restart(uint64_t seed, uint32_t n)
{
    struct swim_sim_config config = calm(seed, n);
    const uint32_t seeds[] = { 0, 1, 2 };
    struct swim_sim *sim;
    const char *what = NULL;
    uint64_t took;

    config.will_rejoin = true;
    config.lives_max = 3 * n;
    sim = swim_sim_create(&config);
    swim_sim_run_for(sim, 10 * SWIM_S);
    for (uint32_t slot = 3; slot < n; slot++)
        swim_sim_join(sim, swim_sim_restart(sim, slot), seeds, 3);
    took = swim_sim_run_until(sim, swim_sim_agrees, 100 * SWIM_MS,
                              30 * SWIM_S);
    print_message("n %u: one list after %.1f s\n", n, seconds(took));
    if (took == SWIM_NEVER)
        what = wrong("n %u: after 30 s: %s", n, swim_sim_disagreement(sim));
    else if (sim->stats.false_deaths > 0)
        what = wrong("n %u: a false death", n);
    return finish(&sim, what);
}

static void test_mass_restart(void **state)
{
    uint64_t seed = unit_seed("test_mass_restart");

    (void)state;
    expect("test_mass_restart", seed, check_mass_restart(seed, 8));
    expect("test_mass_restart", seed, check_mass_restart(seed, 64));
    if (is_long()) {
        expect("test_mass_restart", seed, check_mass_restart(seed, 256));
        expect("test_mass_restart", seed, check_mass_restart(seed, 1024));
    }
}

/* --- partitions ----------------------------------------------------------- */

/*
 * Members whose side has lost all that met the others know of nobody whom they
 * could call. Their user restarts them. Returns how many there were.
 */
static uint32_t restart_castaways(struct swim_sim *sim)
{
    uint32_t most = 0, first = SWIM_NO_LIFE, restarted = 0;
    uint32_t len = sim->lives_len;

    for (uint32_t i = 0; i < len; i++)
        if (swim_life_runs(&sim->lives[i]) && sim->lives[i].is_joined &&
            !sim->lives[i].is_excluded &&
            tri_swim_alive_len(sim->lives[i].core) > most) {
            most = tri_swim_alive_len(sim->lives[i].core);
            first = i;
        }
    for (uint32_t i = 0; i < len && first != SWIM_NO_LIFE; i++)
        if (swim_life_runs(&sim->lives[i]) && sim->lives[i].is_joined &&
            tri_swim_state_of(sim->lives[first].core, sim->lives[i].id) !=
                TRI_SWIM_ALIVE) {
            swim_sim_join_any(sim,
                              swim_sim_restart(sim, sim->lives[i].slot));
            restarted++;
        }
    return restarted;
}

/* Until all lists are the same, castaways restarted when that is needed. */
static uint64_t heal(struct swim_sim *sim, uint32_t *castaways_p)
{
    uint64_t took;

    *castaways_p = 0;
    swim_sim_heal(sim);
    took = swim_sim_run_until(sim, swim_sim_agrees, 100 * SWIM_MS,
                              30 * SWIM_S);
    if (took != SWIM_NEVER)
        return took;
    *castaways_p = restart_castaways(sim);
    return swim_sim_run_until(sim, swim_sim_agrees, 100 * SWIM_MS,
                              30 * SWIM_S);
}

/* Sides that are cut off from each other, for so long, and are whole again.
 * While deaths are being declared on all sides, all lose members; when each
 * side had the time to give up the others, one is spared; of three rarely none
 * (doc/simulation.md, what falls short). */
static const char *check_partition(uint64_t seed, const uint32_t *sides,
                                   uint32_t sides_len, uint64_t ns,
                                   uint32_t ablate)
{
    struct swim_sim_config config = calm(seed, 0);
    struct swim_sim *sim;
    const char *what = NULL;
    uint32_t largest = 0, excluded[SWIM_SIDES_MAX] = { 0 }, whole = 0;
    uint32_t castaways;
    uint64_t took;

    for (uint32_t i = 0; i < sides_len; i++) {
        config.nodes += sides[i];
        largest = sides[i] > largest ? sides[i] : largest;
    }
    config.core.ablate = ablate;
    config.will_rejoin = true;
    config.lives_max = 16 * config.nodes;
    sim = swim_sim_create(&config);
    swim_sim_run_for(sim, 10 * SWIM_S);
    swim_split(sim, sides, sides_len);
    swim_sim_run_for(sim, ns);
    took = heal(sim, &castaways);
    for (uint32_t i = 0; i < config.nodes; i++)
        excluded[sim->lives[i].side] += sim->lives[i].is_excluded;
    for (uint32_t i = 0; i < sides_len; i++)
        whole += excluded[i] == 0;
    print_message("%u sides of %u at most, %.0f s: one list %.1f s after the "
                  "heal, %u castaways; told to be out: %u %u %u\n",
                  sides_len, largest, seconds(ns), seconds(took), castaways,
                  excluded[0], excluded[1], excluded[2]);
    if (castaways > 2)
        what = wrong("%u sides, %.0f s: %u castaways", sides_len, seconds(ns),
                     castaways);
    else if (took == SWIM_NEVER)
        what = wrong("%u sides, %.0f s: after 30 s: %s", sides_len,
                     seconds(ns), swim_sim_disagreement(sim));
    else if (whole == 0 && sides_len == 2 && ns >= 60 * SWIM_S)
        what = wrong("%u sides, %.0f s: no side was spared", sides_len,
                     seconds(ns));
    else if (ns <= SWIM_S && sim->lives_len != config.nodes)
        what = wrong("%.0f s: somebody was excluded", seconds(ns));
    else if (ns >= 60 * SWIM_S && whole > 1)
        what = wrong("%.0f s: %u sides went on", seconds(ns), whole);
    return finish(&sim, what);
}

static void run_partitions(const char *name, const uint32_t *sides,
                           uint32_t sides_len)
{
    static const uint64_t times_s[] = { 1, 3, 6, 20, 60, 600 };
    uint64_t seed = unit_seed(name);

    for (size_t i = 0; i < tri_array_len(times_s); i++)
        for (uint32_t run = 0; run < (is_long() ? 50 : 1); run++)
            expect(name, seed,
                   check_partition(seed + run, sides, sides_len,
                                   times_s[i] * SWIM_S, 0));
}

static void test_partition_60_40(void **state)
{
    (void)state;
    run_partitions("test_partition_60_40", (uint32_t[]){ 18, 12 }, 2);
}

static void test_partition_50_50(void **state)
{
    (void)state;
    run_partitions("test_partition_50_50", (uint32_t[]){ 16, 16 }, 2);
}

static void test_partition_three_ways(void **state)
{
    (void)state;
    run_partitions("test_partition_three_ways", (uint32_t[]){ 12, 10, 8 }, 3);
}

static void test_partition_of_two(void **state)
{
    (void)state;
    run_partitions("test_partition_of_two", (uint32_t[]){ 1, 1 }, 2);
}

static void test_partition_one_of_many(void **state)
{
    (void)state;
    run_partitions("test_partition_one_of_many", (uint32_t[]){ 63, 1 }, 2);
}

/* --- those whom nobody knows ---------------------------------------------- */

/* New ones in these slots, which know each other and nobody else. */
static void found(struct swim_sim *sim, uint32_t first, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        swim_sim_crash(sim, sim->slots[first + i]);
    for (uint32_t i = 0; i < len; i++) {
        uint32_t life = swim_sim_restart(sim, first + i);

        if (i == 0)
            sim->lives[life].is_joined = true;
        else
            swim_sim_join(sim, life, &first, 1);
    }
}

/* Whoever one of four knew is gone at once; others live at their addresses
 * soon after, and none of them has heard of it. It finds them by those. */
static const char *check_castaway(uint64_t seed, bool has_seeds)
{
    const uint32_t seeds[] = { 0, 1, 2 };
    struct swim_sim_config config = calm(seed, 4);
    struct swim_sim *sim;
    const char *what = NULL;
    uint64_t took;

    config.lives_max = 16;
    sim = swim_sim_create(&config);
    swim_sim_run_for(sim, 10 * SWIM_S);
    if (has_seeds)
        swim_sim_join(sim, swim_sim_restart(sim, 3), seeds, 3);
    swim_sim_run_for(sim, 20 * SWIM_S);
    if (!swim_sim_agrees(sim))
        what = wrong("before: %s", swim_sim_disagreement(sim));
    found(sim, 0, 3);
    took = swim_sim_run_until(sim, swim_sim_agrees, 100 * SWIM_MS,
                              90 * SWIM_S);
    print_message("a castaway %s seeds: one list after %.1f s\n",
                  has_seeds ? "with" : "without", seconds(took));
    if (what == NULL && took == SWIM_NEVER)
        what = wrong("after 90 s: %s", swim_sim_disagreement(sim));
    return finish(&sim, what);
}

static void test_castaways(void **state)
{
    uint64_t seed = unit_seed("test_castaways");

    (void)state;
    for (uint32_t run = 0; run < (is_long() ? 500 : 5); run++) {
        expect("test_castaways", seed, check_castaway(seed + run, true));
        expect("test_castaways", seed, check_castaway(seed + run, false));
    }
}

/* --- cuts that are not whole ---------------------------------------------- */

/* Packets of one side do not reach the other; the other direction works. */
static const char *check_one_way(uint64_t seed, uint32_t mute, uint64_t ns)
{
    struct swim_sim_config config = calm(seed, 30);
    struct swim_sim *sim;
    const char *what = NULL;
    uint32_t castaways = 0;
    uint64_t took;

    config.will_rejoin = true;
    config.lives_max = 40 * config.nodes;
    sim = swim_sim_create(&config);
    swim_sim_run_for(sim, 10 * SWIM_S);
    for (uint32_t i = 0; i < mute; i++)
        sim->lives[i].side = 1;
    swim_sim_cut_one_way(sim, 1, 0);
    swim_sim_run_for(sim, ns);
    took = heal(sim, &castaways);
    print_message("%u mute for %.0f s: %u lives, %u castaways, one list after "
                  "%.1f s\n",
                  mute, seconds(ns), sim->lives_len, castaways,
                  seconds(took));
    if (castaways > 2)
        what = wrong("%u castaways", castaways);
    else if (took == SWIM_NEVER)
        what = wrong("%u mute for %.0f s: after 30 s: %s", mute,
                     seconds(ns), swim_sim_disagreement(sim));
    return finish(&sim, what);
}

static void test_partition_one_way(void **state)
{
    static const uint32_t mutes[] = { 1, 12, 18 };
    uint64_t seed = unit_seed("test_partition_one_way");

    (void)state;
    for (size_t i = 0; i < tri_array_len(mutes); i++)
        for (uint32_t run = 0; run < (is_long() ? 50 : 2); run++) {
            expect("test_partition_one_way", seed,
                   check_one_way(seed + run, mutes[i], SWIM_S));
            expect("test_partition_one_way", seed,
                   check_one_way(seed + run, mutes[i], 60 * SWIM_S));
        }
}

/* One member hears, or says, next to nothing for 20 s, is well for 20 s, and
 * so on. It goes; nobody else does. */
static const char *check_flip_flop(uint64_t seed, bool is_deaf)
{
    struct swim_sim_config config = calm(seed, 64);
    struct swim_sim *sim;
    const char *what = NULL;

    config.will_rejoin = true;
    sim = swim_sim_create(&config);
    swim_sim_run_for(sim, 10 * SWIM_S);
    for (uint32_t turn = 0; turn < 16; turn++) {
        struct swim_life *life = &sim->lives[sim->slots[7]];
        uint32_t loss = turn % 2 == 0 ? SWIM_CHANCE : 0;

        life->was_impaired = true;
        life->loss_in = is_deaf ? loss : 0;
        life->loss_out = is_deaf ? 0 : loss;
        swim_sim_run_for(sim, 20 * SWIM_S);
    }
    if (sim->stats.false_deaths_healthy > 0)
        what = wrong("%llu deaths of healthy members",
                     (unsigned long long)sim->stats.false_deaths_healthy);
    else if (swim_sim_run_until(sim, swim_sim_agrees, 100 * SWIM_MS,
                                30 * SWIM_S) == SWIM_NEVER)
        what = wrong("after 30 s: %s", swim_sim_disagreement(sim));
    return finish(&sim, what);
}

static void test_flip_flop(void **state)
{
    uint64_t seed = unit_seed("test_flip_flop");

    (void)state;
    for (uint32_t run = 0; run < (is_long() ? 50 : 2); run++) {
        expect("test_flip_flop", seed, check_flip_flop(seed + run, true));
        expect("test_flip_flop", seed, check_flip_flop(seed + run, false));
    }
}

/* --- packets from elsewhere ----------------------------------------------- */

/* Something happens in a cluster, and all its packets are recorded. */
static struct swim_sim *recorded(uint64_t seed)
{
    struct swim_sim_config config = calm(seed, 16);
    struct swim_sim *sim;

    config.records_max = 20000;
    config.loss = SWIM_CHANCE / 50;
    sim = swim_sim_create(&config);
    swim_sim_run_for(sim, 10 * SWIM_S);
    swim_sim_crash(sim, 3);
    swim_sim_leave(sim, 4);
    swim_sim_block(sim, 5, 1500 * SWIM_MS);
    swim_sim_run_for(sim, 20 * SWIM_S);
    swim_sim_join_any(sim, swim_sim_restart(sim, 3));
    swim_sim_run_for(sim, 20 * SWIM_S);
    return sim;
}

/* Everything that is remembered of changes, as one number. */
static uint64_t opinions(const struct swim_sim *sim)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < sim->lives_len; i++)
        if (swim_life_runs(&sim->lives[i]))
            sum = sum * 31 + tri_swim_digest(sim->lives[i].core);
    return sum;
}

static const char *check_replay(uint64_t seed, bool is_foreign)
{
    struct swim_sim *sim = recorded(seed);
    struct swim_sim *other = is_foreign ? recorded(seed + 77) : NULL;
    uint64_t before = opinions(sim), deaths;
    const char *what = NULL;

    sim->config.loss = 0;
    if (!swim_sim_agrees(sim))
        what = wrong("no agreement before");
    deaths = sim->stats.false_deaths;
    for (uint32_t i = 0; i < 30 && what == NULL; i++) {
        swim_sim_replay(sim, other ? other : sim, 300);
        swim_sim_run_for(sim, SWIM_S);
    }
    if (what == NULL && opinions(sim) != before)
        what = wrong("old packets changed an opinion");
    else if (what == NULL && sim->stats.false_deaths != deaths)
        what = wrong("old packets killed somebody");
    swim_sim_destroy(&other);
    return finish(&sim, what);
}

static void test_replayed_packets(void **state)
{
    uint64_t seed = unit_seed("test_replayed_packets");

    (void)state;
    for (uint32_t run = 0; run < (is_long() ? 200 : 10); run++)
        expect("test_replayed_packets", seed + run,
               check_replay(seed + run, false));
}

static void test_packets_of_another_cluster(void **state)
{
    uint64_t seed = unit_seed("test_packets_of_another_cluster");

    (void)state;
    for (uint32_t run = 0; run < (is_long() ? 200 : 10); run++)
        expect("test_packets_of_another_cluster", seed + run,
               check_replay(seed + run, true));
}

/* --- everything ----------------------------------------------------------- */

/* Some are left that others can join. */
static bool has_members(const struct swim_sim *sim, uint32_t wanted)
{
    uint32_t members = 0;

    for (uint32_t i = 0; i < sim->lives_len; i++)
        members += swim_life_runs(&sim->lives[i]) &&
                   sim->lives[i].is_joined && !sim->lives[i].is_excluded;
    return members >= wanted;
}

static void random_fault(struct swim_sim *sim)
{
    uint32_t life = swim_sim_some(sim, SWIM_NO_LIFE);
    uint64_t ns = swim_sim_between(sim, 10 * SWIM_MS, 12 * SWIM_S);

    switch (tri_random_below(&sim->random, 10)) {
    case 0:
        if (has_members(sim, 3))
            swim_sim_crash(sim, life);
        break;
    case 1:
    case 2:
        if (has_members(sim, 2))
            swim_sim_join_any(
                sim, swim_sim_restart(sim, tri_random_below(
                                               &sim->random,
                                               sim->slots_len)));
        break;
    case 3:
        if (has_members(sim, 3) && sim->lives[life].is_joined)
            swim_sim_leave(sim, life);
        break;
    case 4:
        swim_sim_stop(sim, life, ns);
        break;
    case 5:
        swim_sim_block(sim, life, ns);
        break;
    case 6:
        swim_sim_clog(sim, life, ns);
        break;
    case 7:
        sim->lives[life].side = (uint8_t)tri_random_below(&sim->random, 3);
        swim_sim_cut_one_way(sim, tri_random_below(&sim->random, 3),
                             tri_random_below(&sim->random, 3));
        break;
    case 8:
        swim_sim_heal(sim);
        break;
    case 9:
        swim_sim_evidence(sim, swim_sim_some(sim, SWIM_NO_LIFE), life,
                          TRI_SWIM_STRONG);
        break;
    }
}

static struct swim_sim_config random_config(uint64_t seed)
{
    struct tri_random random;
    struct swim_sim_config config;

    tri_random_init(&random, tri_mix64(seed));
    config = swim_sim_calm(seed, 1 + tri_random_below(&random, 12),
                           tri_random_below(&random, TRI_SWIM_TEST + 1));
    config.lives_max = 500;
    config.will_rejoin = true;
    config.loss = tri_random_below(&random, 3) * SWIM_CHANCE / 20;
    config.duplicate = tri_random_below(&random, 3) * SWIM_CHANCE / 20;
    config.late = tri_random_below(&random, 3) * SWIM_CHANCE / 50;
    config.clock_ppm = tri_random_below(&random, 2) * 10000;
    config.records_max = 200;
    return config;
}

/* Who has not joined yet is given addresses where somebody is. False: nobody
 * is left to be joined. */
static bool give_seeds(struct swim_sim *sim)
{
    bool has_any = false;

    for (uint32_t i = 0; i < sim->lives_len; i++) {
        const struct swim_life *seed = &sim->lives[i];

        if (!swim_life_runs(seed) || !seed->is_joined || seed->is_excluded)
            continue;
        has_any = true;
        for (uint32_t j = 0; j < sim->lives_len; j++)
            if (swim_life_runs(&sim->lives[j]) && !sim->lives[j].is_joined)
                sim->lives[j].seeds[0] = seed->slot;
    }
    return has_any;
}

static uint32_t castaways_all; /* of all random runs */

/* Whatever happens: the invariants hold. When it ends, so does disorder. */
static const char *check_random(uint64_t seed, uint64_t *hash_p)
{
    struct swim_sim_config config = random_config(seed);
    struct swim_sim *sim = swim_sim_create(&config);
    const char *what = NULL;
    bool is_restarted = false;
    uint64_t end_ns;

    while (sim->now_ns < 120 * SWIM_S && sim->failure[0] == '\0') {
        random_fault(sim);
        if (swim_sim_chance(sim, SWIM_CHANCE / 5))
            swim_sim_replay(sim, sim, 20);
        swim_sim_run_for(sim, swim_sim_between(sim, 0, 6 * SWIM_S));
    }
    swim_sim_heal(sim);
    sim->config.loss = sim->config.duplicate = sim->config.late = 0;
    end_ns = sim->now_ns + 180 * SWIM_S;
    /* One that is left alone of three or more can not know it: rule A. */
    while (give_seeds(sim) && swim_sim_running(sim) > 1 &&
           sim->failure[0] == '\0' && sim->now_ns < end_ns &&
           !swim_sim_agrees(sim)) {
        if (sim->now_ns >= end_ns - 60 * SWIM_S && !is_restarted) {
            castaways_all += restart_castaways(sim);
            is_restarted = true;
        }
        swim_sim_run_for(sim, SWIM_S);
    }
    if (sim->now_ns >= end_ns)
        what = wrong("180 s after the last fault: %s",
                     swim_sim_disagreement(sim));
    *hash_p = sim->hash;
    return finish(&sim, sim->failure[0] ? NULL : what);
}

static void test_random(void **state)
{
    uint64_t seed = unit_seed("test_random"), hash;
    uint32_t runs = is_long() ? 5000 : 100;

    (void)state;
    for (uint32_t run = 0; run < runs; run++)
        expect("test_random", seed + run, check_random(seed + run, &hash));
    print_message("%u runs, %u castaways\n", runs, castaways_all);
}

static void test_same_seed_twice(void **state)
{
    uint64_t seed = unit_seed("test_same_seed_twice"), first, second, other;

    (void)state;
    for (uint32_t run = 0; run < 10; run++) {
        check_random(seed + run, &first);
        check_random(seed + run, &second);
        check_random(seed + run + 1, &other);
        assert_int_equal(first, second);
        assert_int_not_equal(first, other);
    }
}

/* --- without a rule ------------------------------------------------------- */

static void test_without_finality(void **state)
{
    uint64_t seed = unit_seed("test_without_finality");
    const char *what = NULL;

    (void)state;
    for (uint32_t run = 0; run < 10 && what == NULL; run++)
        what = check_partition(seed + run, (uint32_t[]){ 18, 12 }, 2,
                               20 * SWIM_S, TRI_SWIM_WITHOUT_FINALITY);
    print_message("found: %s\n", what ? what : "nothing");
    assert_non_null(what);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_join_at_once),
        cmocka_unit_test(test_join_with_loss),
        cmocka_unit_test(test_seeds_down),
        cmocka_unit_test(test_leave),
        cmocka_unit_test(test_mass_restart),
        cmocka_unit_test(test_partition_60_40),
        cmocka_unit_test(test_partition_50_50),
        cmocka_unit_test(test_partition_three_ways),
        cmocka_unit_test(test_partition_of_two),
        cmocka_unit_test(test_partition_one_of_many),
        cmocka_unit_test(test_castaways),
        cmocka_unit_test(test_partition_one_way),
        cmocka_unit_test(test_flip_flop),
        cmocka_unit_test(test_replayed_packets),
        cmocka_unit_test(test_packets_of_another_cluster),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_same_seed_twice),
        cmocka_unit_test(test_without_finality),
    };

    swim_choose_tests();
    return cmocka_run_group_tests(tests, swim_group_setup, NULL);
}
