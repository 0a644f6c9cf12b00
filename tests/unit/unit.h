/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_UNIT_H
#define TROUPE_UNIT_H

/* What the unit tests share: cmocka and what it wants before it, a watchdog,
 * seeds that are printed and can be given back. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "base/clock.h"
#include "base/random.h"

/* Below the limit that the tests are run under: it says where it stood. Some
 * compute for 20 s, which may be minutes on a slow machine that does other
 * things, too. */
#define UNIT_WATCHDOG_S 290

static inline int unit_group_setup(void **state)
{
    (void)state;
    alarm(UNIT_WATCHDOG_S);
    return 0;
}

/* The seed of a random test: TROUPE_TEST_SEED, or the time. Printed. */
static inline uint64_t unit_seed(const char *test)
{
    const char *text = getenv("TROUPE_TEST_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : tri_now_ns();

    printf("%s: TROUPE_TEST_SEED=%llu\n", test, (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

static inline void unit_join(pthread_t thread)
{
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static inline pthread_t unit_thread(void *(*run)(void *), void *arg)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, run, arg), 0);
    return thread;
}

#endif
