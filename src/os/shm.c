/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "os/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

union control {
    struct cmsghdr align;
    char data[CMSG_SPACE(TRI_SOCKET_FDS_MAX * sizeof(int))];
};

int tri_shm_create(const char *name, size_t bytes, int *fd_p, void **map_p)
{
    void *map;
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        goto fail;
    if (ftruncate(fd, (off_t)bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
        goto fail_close;
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        goto fail_close;
    *fd_p = fd;
    *map_p = map;
    return 0;

fail_close:
    close(fd);
fail:
    tri_error("shared memory of %zu bytes: %m", bytes);
    return TROUPE_ESYSTEM;
}

int tri_shm_attach(int fd, size_t bytes, void **map_p)
{
    struct stat stat;
    void *map;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &stat) < 0 ||
        stat.st_size != (off_t)bytes)
        return TROUPE_EPROTO;
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        tri_error("mapping shared memory of %zu bytes: %m", bytes);
        return TROUPE_ESYSTEM;
    }
    *map_p = map;
    return 0;
}

void tri_shm_unmap(void *map, size_t bytes)
{
    munmap(map, bytes);
}

int tri_socket_send(int socket, const void *data, size_t bytes,
                    const int *fds, unsigned fd_count)
{
    union control control = { .data = { 0 } };
    struct iovec iov = { .iov_base = (void *)(uintptr_t)data,
                         .iov_len = bytes };
    struct msghdr message = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control.data,
                              .msg_controllen =
                                  CMSG_SPACE(fd_count * sizeof(int)) };
    struct cmsghdr *header = &control.align;

    assert(fd_count > 0 && fd_count <= TRI_SOCKET_FDS_MAX);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
    if (sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) !=
        (ssize_t)bytes)
        return TROUPE_ESYSTEM;
    return 0;
}

static unsigned take_fds(struct msghdr *message, int *fds)
{
    unsigned count = 0;

    for (struct cmsghdr *h = CMSG_FIRSTHDR(message); h;
         h = CMSG_NXTHDR(message, h)) {
        size_t n;

        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        n = tri_min(n, TRI_SOCKET_FDS_MAX - count);
        memcpy(fds + count, CMSG_DATA(h), n * sizeof(int));
        count += (unsigned)n;
    }
    return count;
}

int tri_socket_recv(int socket, void *data, size_t bytes, int *fds,
                    unsigned fd_count)
{
    int taken[TRI_SOCKET_FDS_MAX];
    union control control;
    struct iovec iov = { .iov_base = data, .iov_len = bytes };
    struct msghdr message = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control.data,
                              .msg_controllen = sizeof(control.data) };
    unsigned count;
    ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    assert(fd_count <= TRI_SOCKET_FDS_MAX);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : TROUPE_ENODE;
    count = take_fds(&message, taken);
    if (n == (ssize_t)bytes && count == fd_count &&
        !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        memcpy(fds, taken, count * sizeof(int));
        return 1;
    }
    while (count > 0)
        close(taken[--count]);
    return n == 0 ? TROUPE_ENODE : TROUPE_EPROTO;
}
