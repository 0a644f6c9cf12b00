/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Agreed views: random runs of a few members under the worst schedules.
 * TROUPE_TEST_SIM=long runs more; a failure prints how to repeat it.
 */
#include "agree_net.h"
#include "../unit/unit.h"

#include <errno.h>

#if defined(TRI_SANITIZE_ADDRESS) || defined(TRI_SANITIZE_THREAD)
#define RUNS 1000
#else
#define RUNS 3000
#endif

static bool is_long(void)
{
    const char *text = getenv("TROUPE_TEST_SIM");

    return text != NULL && strcmp(text, "long") == 0;
}

/* --- random runs ---------------------------------------------------------- */

/* Of a run: all that can vary, by its seed. */
static struct agree_net_config config_of(uint64_t seed, uint32_t members)
{
    struct tri_random random;
    struct agree_net_config config = { .seed = seed, .members = members };

    tri_random_init(&random, tri_mix64(seed ^ 0x5eed));
    config.nodes = members + tri_random_below(&random, 3);
    config.steps = 100 + tri_random_below(&random, 500);
    config.proof = tri_random_below(&random, 4) > 0;
    config.crashes_max = tri_random_below(&random, config.nodes);
    config.false_deaths_max = tri_random_below(&random, 2);
    config.churn = tri_random_below(&random, 2) * 6;
    config.loss = tri_random_below(&random, 3) * 10;
    config.doubles = tri_random_below(&random, 2) * 10;
    return config;
}

/* The seed of the first run that goes wrong, or 0. */
static uint64_t explore(uint64_t seed, uint32_t members, uint32_t runs,
                        uint32_t ablate, char *failure_p)
{
    static struct agree_net net;

    for (uint32_t i = 0; i < runs; i++) {
        struct agree_net_config config = config_of(seed + i, members);
        bool is_wrong;

        config.ablate = ablate;
        agree_net_init(&net, &config);
        agree_net_run(&net);
        is_wrong = net.failure[0] != 0;
        strcpy(failure_p, net.failure);
        agree_net_fini(&net);
        if (is_wrong)
            return seed + i;
    }
    return 0;
}

static void run_random(const char *test, uint32_t members)
{
    uint64_t seed = unit_seed(test);
    const char *text = getenv("TROUPE_TEST_SIM_RUNS");
    uint32_t runs = text != NULL ? (uint32_t)atoi(text)
                    : is_long()  ? 200000
                                 : RUNS;
    char failure[256];
    uint64_t bad;

    if (runs > 10000)
        alarm(0);
    bad = explore(seed, members, runs, 0, failure);
    if (bad != 0) {
        print_error("%s: %s\nto repeat: TROUPE_TEST_SEED=%llu "
                    "TROUPE_TEST_SIM_RUNS=1 TROUPE_TEST_SIM_TRACE=1 "
                    "TROUPE_TEST_SIM_ONLY=%s %s\n",
                    test, failure, (unsigned long long)bad, test,
                    program_invocation_name);
        fail();
    }
}

static void test_random_2(void **state)
{
    (void)state;
    run_random("test_random_2", 2);
}

static void test_random_3(void **state)
{
    (void)state;
    run_random("test_random_3", 3);
}

static void test_random_4(void **state)
{
    (void)state;
    run_random("test_random_4", 4);
}

static void test_random_5(void **state)
{
    (void)state;
    run_random("test_random_5", 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_2),
        cmocka_unit_test(test_random_3),
        cmocka_unit_test(test_random_4),
        cmocka_unit_test(test_random_5),
    };
    const char *only = getenv("TROUPE_TEST_SIM_ONLY");

    if (only != NULL)
        cmocka_set_test_filter(only);
    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
