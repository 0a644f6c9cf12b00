/* SPDX-License-Identifier: BSD-3-Clause */
#include "os/notice.h"

#include <signal.h>
#include <stddef.h>

#include "base/base.h"
#include "base/log.h"

static const int signals[] = { SIGTERM, SIGUSR1 };

static struct sigaction before[tri_array_len(signals)];
static uint32_t holders;
static uint32_t heard; /* by who held them */
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
    /* Of static TLS: a handler must not allocate. */
    static _Thread_local volatile sig_atomic_t is_inside
        __attribute__((tls_model("initial-exec")));
    const struct sigaction *chained = before_of(number);

    atomic_fetch_add_explicit(&notices, 1, memory_order_relaxed);
    /* The program's handler, which we call, may call us in turn. */
    if (chained == NULL || is_inside)
        return;
    is_inside = 1;
    if (chained->sa_flags & SA_SIGINFO)
        chained->sa_sigaction(number, info, context);
    else if (chained->sa_handler != SIG_DFL && chained->sa_handler != SIG_IGN)
        chained->sa_handler(number);
    is_inside = 0;
}

static bool is_ours(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) &&
           action->sa_sigaction == on_notice;
}

/* One that was left installed keeps what was there before it. */
static bool install(size_t i)
{
    struct sigaction action = { .sa_sigaction = on_notice,
                                .sa_flags = SA_SIGINFO | SA_RESTART };
    struct sigaction now;

    sigemptyset(&action.sa_mask);
    if (sigaction(signals[i], NULL, &now) != 0)
        return false;
    if (is_ours(&now))
        return true;
    before[i] = now;
    return sigaction(signals[i], &action, NULL) == 0;
}

int tri_notice_hold(uint32_t *heard_p)
{
    *heard_p = heard;
    if (holders++ > 0)
        return 0;
    for (size_t i = 0; i < tri_array_len(signals); i++)
        if (!install(i)) {
            tri_error("no handler for signal %d", signals[i]);
            holders--;
            return TROUPE_ESYSTEM;
        }
    return 0;
}

/* SIGUSR1 comes from launchers, to whole jobs, and would kill who is saving
 * what it has. */
static bool stays(size_t i)
{
    return signals[i] == SIGUSR1 && !(before[i].sa_flags & SA_SIGINFO) &&
           before[i].sa_handler == SIG_DFL;
}

void tri_notice_release(void)
{
    assert(holders > 0);
    if (--holders > 0)
        return;
    heard = tri_notices();
    for (size_t i = 0; i < tri_array_len(signals); i++) {
        struct sigaction now;

        if (!stays(i) && sigaction(signals[i], NULL, &now) == 0 &&
            is_ours(&now))
            sigaction(signals[i], &before[i], NULL);
    }
}

uint32_t tri_notices(void)
{
    return atomic_load_explicit(&notices, memory_order_relaxed);
}
