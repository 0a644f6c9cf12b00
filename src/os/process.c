/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "os/process.h"

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

uint64_t tri_process_started(pid_t pid)
{
    char path[32], text[STAT_BYTES];
    const char *c;
    ssize_t bytes;
    int fd;

    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    bytes = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[bytes > 0 ? bytes : 0] = '\0';
    c = strrchr(text, ')');
    for (int field = 2; c != NULL && field < STARTED_FIELD; field++) {
        c = strchr(c, ' ');
        c = c != NULL ? c + 1 : NULL;
    }
    return c != NULL ? strtoull(c, NULL, 10) : 0;
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
