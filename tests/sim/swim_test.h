/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_SWIM_TEST_H
#define TESTS_SWIM_TEST_H

/*
 * Membership at scale: the checks and bounds that doc/simulation.md lists, on
 * the unchanged core (swim_sim.h says what is checked all the time). By default
 * a bounded set; TROUPE_TEST_SIM=long runs all sizes, long times and many
 * seeds. A failure prints the command that repeats it;
 * TROUPE_TEST_SIM_ONLY=PATTERN runs the tests of that name.
 *
 * A check is a function that says what is wrong, or NULL, so that the tests of
 * the ablations can see it fail.
 */

#include "swim_scenario.h"
#include "../unit/unit.h"

#include <errno.h>

#define WATCHDOG_LONG_S 36000u

static char swim_reason[512];

/* What is wrong; remembered until the next one. */
static inline const char *wrong(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

static inline const char *wrong(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(swim_reason, sizeof(swim_reason), format, args);
    va_end(args);
    return swim_reason;
}

static inline bool is_long(void)
{
    const char *text = getenv("TROUPE_TEST_SIM");

    return text != NULL && strcmp(text, "long") == 0;
}

/* Ends the test when something is wrong. */
static inline void expect(const char *test, uint64_t seed, const char *what)
{
    if (what == NULL)
        return;
    print_error("%s: %s\nto repeat: %sTROUPE_TEST_SEED=%llu "
                "TROUPE_TEST_SIM_ONLY=%s %s\n",
                test, what, is_long() ? "TROUPE_TEST_SIM=long " : "",
                (unsigned long long)seed, test, program_invocation_name);
    fail();
}

static inline double seconds(uint64_t ns)
{
    return ns == SWIM_NEVER ? -1 : (double)ns / 1e9;
}

static inline struct swim_sim_config calm(uint64_t seed, uint32_t nodes)
{
    return swim_sim_calm(seed, nodes, TRI_SWIM_HPC);
}

static inline const char *failure_of(const struct swim_sim *sim)
{
    return sim->failure[0] ? wrong("%s", sim->failure) : NULL;
}

/* The failure of a run, which ends. */
static inline const char *finish(struct swim_sim **sim, const char *what)
{
    if (what == NULL)
        what = failure_of(*sim);
    swim_sim_destroy(sim);
    return what;
}

static inline int swim_group_setup(void **state)
{
    (void)state;
    alarm(is_long() ? WATCHDOG_LONG_S : UNIT_WATCHDOG_S);
    return 0;
}

/* What main does first. */
static inline void swim_choose_tests(void)
{
    const char *pattern = getenv("TROUPE_TEST_SIM_ONLY");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
}

#endif
