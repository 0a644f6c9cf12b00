/* SPDX-License-Identifier: BSD-3-Clause */
#include "os/thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

int tri_thread_create(pthread_t *thread_p, const char *name,
                      void *(*run)(void *), void *arg)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(thread_p, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        tri_error("cannot start thread %s: %s", name, strerror(rc));
        return rc == EAGAIN ? TROUPE_ENOMEM : TROUPE_ESYSTEM;
    }
    pthread_setname_np(*thread_p, name);
    return 0;
}

/* With eight spinning ranks on two busy cores a wake-up was 2 to 4 ms late in
 * the mean and 26 at worst, instead of 3 to 11 and 70. */
#define FAVOUR_NICE (-10)

void tri_thread_favour(void)
{
    /* Linux: of this thread alone. Refused: as it was. */
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), FAVOUR_NICE);
}

static struct timespec timespec_of(uint64_t ns)
{
    struct timespec ts = { .tv_sec = (time_t)(ns / 1000000000ull),
                           .tv_nsec = (long)(ns % 1000000000ull) };
    return ts;
}

#if defined(TRI_SANITIZE_THREAD)
/* gcc 12's thread sanitizer knows none of the joins with a deadline, and would
 * take all that follows one for a race. */
static int join_until(pthread_t thread, struct timespec ts)
{
    static const struct timespec pause = { .tv_nsec = 100 * 1000 };
    struct timespec now;
    int rc;

    while ((rc = pthread_tryjoin_np(thread, NULL)) == EBUSY) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec > ts.tv_sec ||
            (now.tv_sec == ts.tv_sec && now.tv_nsec >= ts.tv_nsec))
            break;
        nanosleep(&pause, NULL);
    }
    return rc;
}
#else
static int join_until(pthread_t thread, struct timespec ts)
{
    return pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &ts);
}
#endif

int tri_thread_join(pthread_t thread, uint64_t deadline_ns)
{
    return join_until(thread, timespec_of(deadline_ns)) == 0
               ? 0
               : TROUPE_ETIMEDOUT;
}

void tri_park(struct tri_parker *parker, uint64_t deadline_ns)
{
    struct timespec ts = timespec_of(deadline_ns);
    const struct timespec *until = deadline_ns == TRI_NS_NEVER ? NULL : &ts;

    /* acquire: pairs with the release of tri_unpark */
    while (atomic_exchange_explicit(&parker->token, 0,
                                    memory_order_acquire) == 0) {
        /* BITSET takes an absolute monotonic time */
        long rc = syscall(SYS_futex, &parker->token,
                          FUTEX_WAIT_BITSET_PRIVATE, 0, until, NULL,
                          FUTEX_BITSET_MATCH_ANY);
        if (rc < 0 && errno == ETIMEDOUT)
            return;
    }
}

void tri_unpark(struct tri_parker *parker)
{
    if (atomic_exchange_explicit(&parker->token, 1, memory_order_release) == 0)
        syscall(SYS_futex, &parker->token, FUTEX_WAKE_PRIVATE, 1, NULL, NULL,
                0);
}
