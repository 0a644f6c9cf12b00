/* SPDX-License-Identifier: BSD-3-Clause */

/* Signals as notices, around trainings and between them. */

#include "os/notice.h"

#include <signal.h>

#include "os/signals.h"
#include "unit.h"

static int own_calls;

static void own(int number)
{
    (void)number;
    own_calls++;
}

static void *handler_of(int number)
{
    struct sigaction now;

    assert_int_equal(sigaction(number, NULL, &now), 0);
    return now.sa_flags & SA_SIGINFO ? (void *)(uintptr_t)now.sa_sigaction
                                     : (void *)(uintptr_t)now.sa_handler;
}

static void test_between_trainings(void **state)
{
    uint32_t heard, later;

    (void)state;
    assert_int_equal(tri_notice_hold(&heard), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(raise(SIGTERM), 0);
    assert_int_equal(tri_notices(), heard + 2);
    tri_notice_release();
    assert_ptr_equal(handler_of(SIGTERM), (void *)(uintptr_t)SIG_DFL);
    assert_int_equal(raise(SIGUSR1), 0); /* it is not the end */
    assert_int_equal(tri_notice_hold(&later), 0);
    assert_int_equal(later, heard + 2);
    assert_int_equal(tri_notices(), later + 1);
    assert_int_equal(raise(SIGUSR1), 0); /* no handler calls itself */
    assert_int_equal(tri_notices(), later + 2);
    tri_notice_release();
}

static void test_programs_own(void **state)
{
    struct sigaction action = { .sa_handler = own }, before;
    uint32_t heard;

    (void)state;
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    assert_int_equal(tri_notice_hold(&heard), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(own_calls, 1);
    assert_int_equal(tri_notices(), heard + 1);
    tri_notice_release();
    assert_ptr_equal(handler_of(SIGUSR1), (void *)(uintptr_t)own);
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
}

/* It was installed while we held the signal, so it passes on to us. */
static struct sigaction chained;

static void chain(int number, siginfo_t *info, void *context)
{
    own_calls++;
    chained.sa_sigaction(number, info, context);
}

static void test_chain_ends(void **state)
{
    struct sigaction action = { .sa_sigaction = chain, .sa_flags = SA_SIGINFO };
    struct sigaction before;
    uint32_t heard;

    (void)state;
    own_calls = 0;
    assert_int_equal(sigaction(SIGUSR1, NULL, &before), 0);
    assert_int_equal(tri_notice_hold(&heard), 0);
    assert_int_equal(sigaction(SIGUSR1, &action, &chained), 0);
    tri_notice_release();
    assert_int_equal(tri_notice_hold(&heard), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(own_calls, 1);
    assert_true(tri_notices() > heard);
    tri_notice_release();
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
}

/* As troupe_start does before it holds any notice. */
static int setup(void **state)
{
    tri_signals_undo_foreign();
    return unit_group_setup(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_between_trainings),
        cmocka_unit_test(test_programs_own),
        cmocka_unit_test(test_chain_ends),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
