/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "os/process.h"

#include <errno.h>
#include <fcntl.h>
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
