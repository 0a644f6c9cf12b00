/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Ends a process that a death has left inside MPI: Open MPI can deadlock in
 * MPI_Test when a connection breaks, and blocking calls wait for the dead. A
 * stuck survivor so becomes a dead one, and the others go on.
 *
 * It makes no MPI call. Time is counted in its own naps, so that a process that
 * was stopped is not taken for one that hangs.
 */
#include "tensor/mpi/backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <troupe/mpi.h>

#include "base/clock.h"
#include "base/log.h"
#include "os/thread.h"

#define NS_PER_S (1000 * TRI_NS_PER_MS)
#define NAPS 10u /* until a call counts as stuck */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool runs;
    bool ends;
    uint64_t nap_ns;
    struct tri_mpi_watch *first;
} watchdog = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* --- what is wrong -------------------------------------------------------- */

static bool is_dead(const struct tri_view_member *member)
{
    return member->peer != NULL && tri_peer_is_dead(member->peer);
}

bool tri_mpi_has_died(const struct tri_team *team)
{
    for (uint32_t i = 0; i < team->len; i++)
        if (is_dead(&team->members[i]))
            return true;
    return false;
}

static void end_process(const struct tri_mpi_watch *watch)
{
    const struct tri_team *team = watch->team;
    const char *call = atomic_load_explicit(&watch->call,
                                            memory_order_relaxed);

    for (uint32_t i = 0; i < team->len; i++)
        if (is_dead(&team->members[i]))
            tri_error("rank %d (node %016llx) has died, and %s of this rank "
                      "did not return for %llu ms: the process ends with "
                      "status %d",
                      team->members[i].rank,
                      (unsigned long long)team->members[i].node, call,
                      (unsigned long long)(watchdog.nap_ns * NAPS /
                                           TRI_NS_PER_MS),
                      TROUPE_EXIT_WEDGED);
    fflush(stderr);
    _exit(TROUPE_EXIT_WEDGED);
}

static void look(struct tri_mpi_watch *watch)
{
    /* Pairs with the release stores of tri_mpi_enter and _leave. */
    uint64_t calls = atomic_load_explicit(&watch->calls, memory_order_acquire);

    if (calls % 2 == 0 || calls != watch->seen ||
        !tri_mpi_has_died(watch->team))
        watch->stuck = 0;
    else if (++watch->stuck == NAPS)
        end_process(watch);
    watch->seen = calls;
}

/* --- the thread ----------------------------------------------------------- */

static void nap_locked(void)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(watchdog.nap_ns / NS_PER_S);
    until.tv_nsec += (long)(watchdog.nap_ns % NS_PER_S);
    if (until.tv_nsec >= (long)NS_PER_S) {
        until.tv_sec++;
        until.tv_nsec -= (long)NS_PER_S;
    }
    while (!watchdog.ends &&
           pthread_cond_timedwait(&watchdog.changed, &watchdog.lock, &until) !=
               ETIMEDOUT)
        ;
}

static void *run(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&watchdog.lock);
    while (!watchdog.ends) {
        nap_locked();
        for (struct tri_mpi_watch *w = watchdog.first; w != NULL; w = w->next)
            look(w);
    }
    pthread_mutex_unlock(&watchdog.lock);
    return NULL;
}

static int start_locked(const struct tri_team *team)
{
    uint32_t limit_ms = team->runtime->options.mpi_watchdog_ms;
    pthread_condattr_t attributes;
    int rc;

    if (watchdog.runs || limit_ms == 0)
        return 0;
    watchdog.nap_ns = limit_ms * TRI_NS_PER_MS / NAPS;
    watchdog.ends = false;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watchdog.changed, &attributes);
    pthread_condattr_destroy(&attributes);
    rc = tri_thread_create(&watchdog.thread, "troupe-mpi-dog", run, NULL);
    watchdog.runs = rc == 0;
    return rc;
}

int tri_mpi_watch_open(struct tri_mpi_watch *watch,
                       const struct tri_team *team)
{
    int rc;

    watch->team = team;
    pthread_mutex_lock(&watchdog.lock);
    rc = start_locked(team);
    if (rc == 0) {
        watch->next = watchdog.first;
        watchdog.first = watch;
    } else
        watch->team = NULL;
    pthread_mutex_unlock(&watchdog.lock);
    return rc;
}

/* The starting thread, as that above: so nobody starts it meanwhile. */
void tri_mpi_watch_close(struct tri_mpi_watch *watch)
{
    struct tri_mpi_watch **at = &watchdog.first;
    bool joins;

    if (watch->team == NULL)
        return;
    pthread_mutex_lock(&watchdog.lock);
    while (*at != watch)
        at = &(*at)->next;
    *at = watch->next;
    joins = watchdog.first == NULL && watchdog.runs;
    if (joins) {
        watchdog.ends = true;
        pthread_cond_signal(&watchdog.changed);
    }
    pthread_mutex_unlock(&watchdog.lock);
    watch->team = NULL;
    if (!joins)
        return;
    pthread_join(watchdog.thread, NULL);
    pthread_cond_destroy(&watchdog.changed);
    watchdog.runs = false;
}
