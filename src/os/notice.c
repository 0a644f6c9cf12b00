/* SPDX-License-Identifier: BSD-3-Clause */
#include "os/notice.h"

#include <signal.h>
#include <stddef.h>

#include "base/base.h"
#include "base/log.h"

static const int signals[] = { SIGTERM, SIGUSR1 };

static struct sigaction before[tri_array_len(signals)];
static uint32_t holders;
static _Atomic uint32_t notices;

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal handler counts in it");

static const struct sigaction *before_of(int number)
{
    for (size_t i = 0; i < tri_array_len(signals); i++)
        if (signals[i] == number)
            return &before[i];
    return NULL;
}

static void on_notice(int number, siginfo_t *info, void *context)
{
    const struct sigaction *chained = before_of(number);

    atomic_fetch_add_explicit(&notices, 1, memory_order_relaxed);
    if (chained == NULL)
        return;
    if (chained->sa_flags & SA_SIGINFO)
        chained->sa_sigaction(number, info, context);
    else if (chained->sa_handler != SIG_DFL && chained->sa_handler != SIG_IGN)
        chained->sa_handler(number);
}

int tri_notice_hold(void)
{
    struct sigaction action = { .sa_sigaction = on_notice,
                                .sa_flags = SA_SIGINFO | SA_RESTART };

    if (holders++ > 0)
        return 0;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < tri_array_len(signals); i++)
        if (sigaction(signals[i], NULL, &before[i]) != 0 ||
            sigaction(signals[i], &action, NULL) != 0) {
            tri_error("no handler for signal %d", signals[i]);
            holders--;
            return TROUPE_ESYSTEM;
        }
    return 0;
}

void tri_notice_release(void)
{
    assert(holders > 0);
    if (--holders > 0)
        return;
    for (size_t i = 0; i < tri_array_len(signals); i++) {
        struct sigaction now;

        if (sigaction(signals[i], NULL, &now) == 0 &&
            (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_notice)
            sigaction(signals[i], &before[i], NULL);
    }
}

uint32_t tri_notices(void)
{
    return atomic_load_explicit(&notices, memory_order_relaxed);
}
