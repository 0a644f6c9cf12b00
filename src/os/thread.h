/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_THREAD_H
#define TRI_THREAD_H

/* Threads of the runtime, and a place to sleep for each. */

#include <pthread.h>

#include "base/base.h"

/*
 * Starts a thread with a name (15 characters) and all signals blocked, so
 * that the program's handlers run on the program's threads.
 * Errors: ENOMEM, ESYSTEM.
 */
int tri_thread_create(pthread_t *thread_p, const char *name,
                      void *(*run)(void *), void *arg);

/*
 * Has the calling thread get a core before others of the system that want one,
 * where this process may ask for that (RLIMIT_NICE, CAP_SYS_NICE); else
 * nothing happens. For a thread that works little and must not be late.
 */
void tri_thread_favour(void);

/* Waits for a thread's end until a deadline. Errors: ETIMEDOUT. */
int tri_thread_join(pthread_t thread, uint64_t deadline_ns);

/* A binary semaphore on a futex: an unpark before a park is not lost. */
struct tri_parker {
    _Atomic uint32_t token; /* 1: the next park returns at once */
};

/* Sleeps until unparked or until the deadline. */
void tri_park(struct tri_parker *parker, uint64_t deadline_ns);

void tri_unpark(struct tri_parker *parker);

#endif
