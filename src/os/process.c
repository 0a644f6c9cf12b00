/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "os/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434 /* Linux 5.3, the same on all architectures */
#endif

int tri_process_of_socket(int socket, pid_t *pid_p, uid_t *uid_p)
{
    struct ucred peer;
    socklen_t bytes = sizeof(peer);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0) {
        tri_error("the credentials of a peer: %m");
        return TROUPE_ESYSTEM;
    }
    *pid_p = peer.pid;
    *uid_p = peer.uid;
    return 0;
}

int tri_process_watch(int socket, pid_t pid, int *pidfd_p)
{
    int pidfd;
    socklen_t bytes = sizeof(pidfd);

    /* The socket knows the process itself; a bare number may have got a new
     * owner since. Older kernels only have the number. */
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &bytes) < 0)
        pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return errno == ESRCH ? TROUPE_ENODE : TROUPE_ESYSTEM;
    fcntl(pidfd, F_SETFD, FD_CLOEXEC);
    *pidfd_p = pidfd;
    return 0;
}

/* The 22nd field of /proc/PID/stat; the second one, the name in brackets, may
 * hold anything. */
#define STARTED_FIELD 22
#define STAT_BYTES 1024

/* Reads a file of /proc; false: it is not there. */
static bool read_text(const char *path, char text[STAT_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes;

    text[0] = '\0';
    if (fd < 0)
        return false;
    bytes = read(fd, text, STAT_BYTES - 1);
    close(fd);
    text[bytes > 0 ? bytes : 0] = '\0';
    return bytes > 0;
}

/* What is behind the name, from a blank and field 3 on; NULL: it is gone. */
static const char *read_stat(pid_t pid, char text[STAT_BYTES])
{
    char path[32];
    const char *name_end;

    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    if (!read_text(path, text))
        return NULL;
    name_end = strrchr(text, ')');
    return name_end != NULL && name_end[1] == ' ' ? name_end + 1 : NULL;
}

static uint64_t started_of(const char *stat)
{
    for (int field = 2; stat != NULL && field < STARTED_FIELD; field++) {
        stat = strchr(stat, ' ');
        stat = stat != NULL ? stat + 1 : NULL;
    }
    return stat != NULL ? strtoull(stat, NULL, 10) : 0;
}

uint64_t tri_process_started(pid_t pid)
{
    char text[STAT_BYTES];

    return started_of(read_stat(pid, text));
}

bool tri_process_runs(pid_t pid, uint64_t started)
{
    char text[STAT_BYTES];
    const char *stat = read_stat(pid, text);

    return stat != NULL && stat[1] != 'Z' && stat[1] != 'X' &&
           started_of(stat) == started;
}

/* UNKNOWN: another thread's. */
static enum tri_process_state state_of(const char *stat, const char *thread)
{
    const char *name = strchr(stat, '('), *end = strrchr(stat, ')');
    size_t len = strlen(thread);

    if (name == NULL || end == NULL || (size_t)(end - name) != len + 1 ||
        memcmp(name + 1, thread, len) != 0 || end[1] != ' ')
        return TRI_PROCESS_UNKNOWN;
    switch (end[2]) {
    case 'R':
    case 'D':
        return TRI_PROCESS_WAITS;
    case 'T':
    case 't':
        return TRI_PROCESS_STOPPED;
    case 'S':
        return TRI_PROCESS_SLEEPS;
    default:
        return TRI_PROCESS_UNKNOWN;
    }
}

enum tri_process_state tri_process_state(pid_t pid, const char *thread)
{
    enum tri_process_state state = TRI_PROCESS_UNKNOWN;
    char path[64], text[STAT_BYTES];
    struct dirent *entry;
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%ld/task", (long)pid);
    tasks = opendir(path);
    if (tasks == NULL)
        return state;
    while (state == TRI_PROCESS_UNKNOWN && (entry = readdir(tasks)) != NULL) {
        snprintf(path, sizeof(path), "/proc/%ld/task/%.16s/stat", (long)pid,
                 entry->d_name);
        if (entry->d_name[0] != '.' && read_text(path, text))
            state = state_of(text, thread);
    }
    closedir(tasks);
    return state;
}

int tri_process_open(pid_t pid, uint64_t started, int *pidfd_p)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    uint64_t now_started;

    if (pidfd < 0)
        return errno == ESRCH ? TROUPE_ENODE : TROUPE_ESYSTEM;
    /* Which process the descriptor is of is settled; is it the one meant? */
    now_started = tri_process_started(pid);
    if (now_started == 0 || started == 0 || now_started != started) {
        close(pidfd);
        return now_started != 0 && started != 0 ? TROUPE_ENODE
                                                : TROUPE_ESYSTEM;
    }
    fcntl(pidfd, F_SETFD, FD_CLOEXEC);
    *pidfd_p = pidfd;
    return 0;
}

int tri_process_read(pid_t pid, uint64_t address, void *into, size_t bytes)
{
    char *at = into;

    while (bytes > 0) {
        struct iovec local = { at, bytes };
        struct iovec remote = { (void *)(uintptr_t)address, bytes };
        ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);

        if (n <= 0)
            return n < 0 && errno == ESRCH ? TROUPE_ENODE : TROUPE_ESYSTEM;
        at += n;
        address += (size_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}
