/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sessions between nodes whose lines, consumers and lives fail in all ways
 * (sim.h says what is checked). Random runs go on for TROUPE_TEST_SIM_SECONDS
 * (default 2), each with the next seed; a failure names its own.
 */
#include "sim.h"

/* Long enough for every pause and delay that a random run can have left. */
#define REST_NS (120 * SIM_S)
#define RUNS_MIN 100u

static uint64_t run_seconds(void)
{
    const char *text = getenv("TROUPE_TEST_SIM_SECONDS");

    return text ? strtoull(text, NULL, 10) : 2;
}

/* Everything comes to rest, and costs nothing from then on. */
static void run_to_rest(struct sim *sim)
{
    if (sim_run(sim, sim->config.faults_until_ns + REST_NS))
        sim_fail(sim, "no rest");
    sim_check_rest(sim);
}

static void add(struct sim_stats *sum, const struct sim_stats *stats)
{
    sum->events += stats->events;
    sum->handed += stats->handed;
    sum->acks += stats->acks;
    sum->dropped += stats->dropped;
    sum->held += stats->held;
    sum->lost += stats->lost;
    sum->faults += stats->faults;
}

/* Runs random systems; in some, a node dies. */
static void run_random(const char *name, bool has_death)
{
    uint64_t seed = unit_seed(name);
    uint64_t end_ns = tri_now_ns() + run_seconds() * SIM_S;
    struct sim_stats sum = { .events = 0 };
    unsigned runs = 0;

    alarm(UNIT_WATCHDOG_S + (unsigned)run_seconds());
    for (; runs < RUNS_MIN || tri_now_ns() < end_ns; runs++) {
        struct sim_config config = sim_random_config(seed + runs);
        struct sim *sim = sim_create(&config);

        if (has_death) {
            sim->victim = tri_random_below(&sim->random, config.nodes);
            sim->die_at_event = 1 + tri_random_below(&sim->random, 3000);
        }
        run_to_rest(sim);
        add(&sum, &sim->stats);
        sim_destroy(&sim);
    }
    print_message("%s: %u runs, %llu events, %llu frames handed over, "
                  "%llu acks, %llu lost, %llu dropped, %llu held, "
                  "%llu faults\n",
                  name, runs, (unsigned long long)sum.events,
                  (unsigned long long)sum.handed,
                  (unsigned long long)sum.acks, (unsigned long long)sum.lost,
                  (unsigned long long)sum.dropped,
                  (unsigned long long)sum.held,
                  (unsigned long long)sum.faults);
    assert_true(sum.lost > 0 && sum.dropped > 0 && sum.held > 0);
}

static void test_random(void **state)
{
    (void)state;
    run_random("test_random", false);
}

static void test_random_death(void **state)
{
    (void)state;
    run_random("test_random_death", true);
}

/* A small system, and a death at each of its steps. */
static void test_death_at_every_step(void **state)
{
    uint64_t seed = unit_seed("test_death_at_every_step");

    (void)state;
    for (uint64_t step = 1;; step++) {
        struct sim_config config = sim_random_config(seed);
        struct sim *sim;
        bool is_over;

        for (unsigned lane = 0; lane < TRI_LANES; lane++)
            config.budget[lane] = 10;
        config.nodes = 2;
        config.faults_until_ns = 500 * SIM_MS;
        sim = sim_create(&config);
        sim->die_at_event = step;
        sim->victim = step % 2;
        run_to_rest(sim);
        is_over = sim->stats.events < step;
        sim_destroy(&sim);
        if (is_over)
            break;
    }
}

/* Nothing goes wrong: nothing goes twice, and few frames are only news. */
static void test_calm(void **state)
{
    struct sim_config config = sim_calm_config(1);
    struct sim *sim;

    (void)state;
    config.frame_bytes_max = 1000;
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        config.budget[lane] = 2000;
    sim = sim_create(&config);
    run_to_rest(sim);
    assert_int_equal(sim->stats.handed, 2 * 3 * 2000);
    assert_int_equal(sim->stats.dropped, 0);
    assert_in_range(sim->stats.acks, 1, sim->stats.handed / 8);
    sim_destroy(&sim);
}

/* One direction alone: an ACK frame for every 16 at most. */
static void test_one_way(void **state)
{
    struct sim_config config = sim_calm_config(2);
    struct sim *sim;

    (void)state;
    config.frame_bytes_max = 1000;
    sim = sim_create(&config);
    sim_send(sim, 0, 1, TRI_LANE_DATA, 16000);
    run_to_rest(sim);
    assert_int_equal(sim->stats.handed, 16000);
    assert_in_range(sim->stats.acks, 1000, 2100);
    sim_destroy(&sim);
}

/* The line loses frames, up to 6 of 100, and keeps their order: what goes out
 * again was lost, so nothing comes twice; and it is found soon, as the next
 * ones arrive, not by probes. (100 ms: it takes 20 without a loss, and the
 * last frames may want probes.) */
static void test_loss(void **state)
{
    struct sim_config config = sim_calm_config(9);

    (void)state;
    config.frame_bytes_max = 1000;
    config.faults_until_ns = 1000 * SIM_S;
    for (config.loss = 1; config.loss <= 64; config.loss *= 2) {
        struct sim *sim = sim_create(&config);
        uint64_t start_ns = sim->now_ns;

        for (unsigned i = 0; i < 100; i++) {
            for (unsigned lane = 0; lane < TRI_LANES; lane++)
                sim_send(sim, 0, 1, lane, 10);
            sim_run(sim, sim->now_ns + 200 * SIM_US);
        }
        run_to_rest(sim);
        assert_int_equal(sim->stats.dropped, 0);
        assert_int_equal(sim->stats.handed, 3000 + sim->stats.lost_stored);
        for (unsigned lane = 0; lane < TRI_LANES; lane++)
            assert_true(sim_side(sim, 1, 0)->delivered_ns[lane] - start_ns <
                        100 * SIM_MS);
        sim_destroy(&sim);
    }
}

/* Asks and replies, one at a time: no frame is only news but the last. */
static void test_ask(void **state)
{
    struct sim_config config = sim_calm_config(3);
    struct sim *sim;

    (void)state;
    config.consume_ns = 0;
    sim = sim_create(&config);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t step_ns = 10 * SIM_US;

        sim_send(sim, 0, 1, TRI_LANE_DATA, 1);
        while (sim_side(sim, 1, 0)->delivered[TRI_LANE_DATA] <= i)
            sim_run(sim, sim->now_ns + step_ns);
        sim_send(sim, 1, 0, TRI_LANE_REPLY, 1);
        while (sim_side(sim, 0, 1)->delivered[TRI_LANE_REPLY] <= i)
            sim_run(sim, sim->now_ns + step_ns);
    }
    run_to_rest(sim);
    assert_int_equal(sim->stats.handed, 2000);
    assert_in_range(sim->stats.acks, 1, 2);
    sim_destroy(&sim);
}

/* Data is stuck for seconds, as nobody takes it; control and replies pass, and
 * nobody storms. Then it is taken, but the news of new credit are lost. */
static void test_data_stuck(void **state)
{
    struct sim_config config = sim_calm_config(4);
    struct sim *sim = sim_create(&config);
    uint64_t start_ns = sim->now_ns;

    (void)state;
    sim_stop_consumer(sim, 1, start_ns + 20 * SIM_S);
    sim_send(sim, 0, 1, TRI_LANE_DATA, 500);
    sim_run(sim, start_ns + SIM_S);
    /* Frames of half the largest, about: the window has room for few. */
    assert_in_range(sim_side(sim, 0, 1)->backlog[TRI_LANE_DATA], 400, 490);
    for (unsigned i = 1; i <= 100; i++) {
        enum tri_lane lane = i % 2 ? TRI_LANE_CONTROL : TRI_LANE_REPLY;
        uint64_t sent_ns = sim->now_ns;

        sim_send(sim, 0, 1, lane, 1);
        sim_run(sim, sim->now_ns + 100 * SIM_MS);
        assert_int_equal(sim_side(sim, 1, 0)->delivered[lane], (i + 1) / 2);
        assert_true(sim_side(sim, 1, 0)->delivered_ns[lane] - sent_ns <
                    2 * SIM_MS);
    }
    assert_in_range(sim->stats.handed, 100, 400);
    assert_in_range(sim->stats.acks, 100, 300);
    sim_black_hole(sim, 1, 0, start_ns + 21 * SIM_S);
    run_to_rest(sim);
    assert_int_equal(sim_side(sim, 1, 0)->delivered[TRI_LANE_DATA], 500);
    sim_destroy(&sim);
}

static void flood(struct sim *sim)
{
    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        sim_send(sim, 0, 1, lane, 500);
        sim_send(sim, 1, 0, lane, 500);
    }
}

/* For a minute nothing arrives: each frame is sent once, then there are
 * probes, at most one a second and lane. */
static void test_black_hole(void **state)
{
    struct sim_config config = sim_calm_config(5);
    struct sim *sim = sim_create(&config);
    uint64_t end_ns = sim->now_ns + 60 * SIM_S;

    (void)state;
    sim_black_hole(sim, 0, 1, end_ns);
    sim_black_hole(sim, 1, 0, end_ns);
    flood(sim);
    sim_run(sim, end_ns - SIM_MS);
    assert_in_range(sim->stats.handed, 100,
                    2 * TRI_LANES * TRI_SESSION_FRAMES_MAX);
    assert_in_range(sim->stats.acks, 300, 2 * TRI_LANES * 70);
    run_to_rest(sim);
    sim_destroy(&sim);
}

/* In the black hole the connection breaks every 10 ms: what is sent again
 * waits longer and longer. */
static void test_broken_black_hole(void **state)
{
    struct sim_config config = sim_calm_config(6);
    struct sim *sim = sim_create(&config);
    uint64_t end_ns = sim->now_ns + 60 * SIM_S;

    (void)state;
    sim_black_hole(sim, 0, 1, end_ns);
    sim_black_hole(sim, 1, 0, end_ns);
    flood(sim);
    while (sim->now_ns < end_ns - 20 * SIM_MS) {
        sim_run(sim, sim->now_ns + 10 * SIM_MS);
        sim_reset(sim, 0, 1);
    }
    assert_in_range(sim->stats.handed, 1000,
                    70 * 2 * TRI_LANES * TRI_SESSION_FRAMES_MAX);
    assert_in_range(sim->stats.acks, 300, 2 * TRI_LANES * 70);
    run_to_rest(sim);
    sim_destroy(&sim);
}

/* A line that takes frames and fails them all, for a minute. */
static void test_failing_line(void **state)
{
    struct sim_config config = sim_calm_config(7);
    struct sim *sim = sim_create(&config);

    (void)state;
    sim_side(sim, 0, 1)->line.dead_until_ns = sim->now_ns + 60 * SIM_S;
    sim_send(sim, 0, 1, TRI_LANE_DATA, 500);
    sim_run(sim, sim->now_ns + 60 * SIM_S);
    assert_in_range(sim->stats.handed, 1000, 70 * TRI_SESSION_FRAMES_MAX);
    run_to_rest(sim);
    sim_destroy(&sim);
}

/* The peer stops for a minute: the line fills, and nothing is sent twice. */
static void test_stopped_peer(void **state)
{
    struct sim_config config = sim_calm_config(8);
    struct sim *sim = sim_create(&config);
    uint64_t end_ns = sim->now_ns + 60 * SIM_S;

    (void)state;
    sim_stop_node(sim, 1, end_ns);
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        sim_send(sim, 0, 1, lane, 500);
    sim_run(sim, end_ns - SIM_MS);
    assert_in_range(sim->stats.handed, 50,
                    TRI_LANES * TRI_SESSION_FRAMES_MAX);
    assert_in_range(sim->stats.acks, 150, TRI_LANES * 70);
    run_to_rest(sim);
    assert_int_equal(sim->stats.handed, 3 * 500);
    assert_int_equal(sim->stats.dropped, 0);
    sim_destroy(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calm),
        cmocka_unit_test(test_one_way),
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_ask),
        cmocka_unit_test(test_data_stuck),
        cmocka_unit_test(test_black_hole),
        cmocka_unit_test(test_broken_black_hole),
        cmocka_unit_test(test_failing_line),
        cmocka_unit_test(test_stopped_peer),
        cmocka_unit_test(test_death_at_every_step),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_random_death),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
