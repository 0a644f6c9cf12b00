/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SHM_H
#define TRI_SHM_H

/*
 * Memory shared with other processes of this host: sealed memfds, which have
 * no name, so that nothing stays behind whoever dies, and which their maker
 * cannot shrink, so that reading them never faults. Their descriptors travel
 * over Unix sockets.
 */

#include "base/base.h"

/* Descriptors in one message. */
#define TRI_SOCKET_FDS_MAX 4

/* Makes a zeroed segment of fixed size and maps it. Errors: ESYSTEM. */
int tri_shm_create(const char *name, size_t bytes, int *fd_p, void **map_p);

/*
 * Maps a segment that another process made. The descriptor stays the
 * caller's. Errors: EPROTO (not sealed, or of another size), ESYSTEM.
 */
int tri_shm_attach(int fd, size_t bytes, void **map_p);

void tri_shm_unmap(void *map, size_t bytes);

/* Sends one packet with descriptors. Errors: ESYSTEM (errno is kept). */
int tri_socket_send(int socket, const void *data, size_t bytes,
                    const int *fds, unsigned fd_count);

/*
 * Receives one packet of exactly `bytes` with exactly `fd_count` descriptors,
 * which then are the caller's. Returns 1, or 0 when nothing is there yet.
 * Errors: ENODE (closed by the other side), EPROTO (another shape).
 */
int tri_socket_recv(int socket, void *data, size_t bytes, int *fds,
                    unsigned fd_count);

#endif
