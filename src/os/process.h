/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_PROCESS_H
#define TRI_PROCESS_H

/* Other processes of this host: who they are, and knowing their end. */

#include "base/base.h"

#include <sys/types.h>

/* Who holds the other end of a connected Unix socket (for the side that
 * connected: who called listen). Errors: ESYSTEM. */
int tri_process_of_socket(int socket, pid_t *pid_p, uid_t *uid_p);

/*
 * A descriptor that gets readable when the process at the other end of the
 * socket has ended. Errors: ENODE (it has ended), ESYSTEM (this kernel cannot
 * tell; not logged, the caller falls back to weaker signs).
 */
int tri_process_watch(int socket, pid_t pid, int *pidfd_p);

/* When a process of this pid namespace began, in the kernel's ticks since boot:
 * with its number, tells it from a later process of the same number. 0: it is
 * gone, or not to be seen. */
uint64_t tri_process_started(pid_t pid);

/* Whether the process of that number and beginning goes on. One that has ended
 * and that nobody has waited for does not. */
bool tri_process_runs(pid_t pid, uint64_t started);

/*
 * A descriptor that gets readable when this very process has ended. Errors:
 * ENODE (it has ended), ESYSTEM (cannot be told here, or too many descriptors
 * are open; not logged).
 */
int tri_process_open(pid_t pid, uint64_t started, int *pidfd_p);

enum tri_process_state {
    TRI_PROCESS_UNKNOWN, /* gone, or not to be seen */
    TRI_PROCESS_WAITS,   /* for a core, or runs, or waits for the disk */
    TRI_PROCESS_SLEEPS,  /* until something happens */
    TRI_PROCESS_STOPPED,
};

/* What the thread of that name in a process is at now. Costs some system
 * calls a thread. */
enum tri_process_state tri_process_state(pid_t pid, const char *thread);

/*
 * Reads memory of another process (or our own). Errors: ENODE (it has ended),
 * ESYSTEM (this kernel forbids it, or there is no such memory; not logged).
 */
int tri_process_read(pid_t pid, uint64_t address, void *into, size_t bytes);

#endif
