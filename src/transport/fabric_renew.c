/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/*
 * A new endpoint, when the provider's has worn out. A receive that fails with
 * its connection costs ofi_rxm a buffer for good (tri_fabric_failed_max); when
 * the last one is gone the endpoint is deaf: it reads nothing from any
 * connection, and nobody is told. There is nothing that gives them back but
 * fi_close of the endpoint. So it is closed, and another one opened at the same
 * address, when
 *  - as many receives have failed as one endpoint bears, or
 *  - it is deaf: its descriptor says that there is work, which a look right
 *    behind reading finds undone again and again while nothing arrives. (Those
 *    that fail while no buffer of ours is posted are not reported.)
 * To the session that is a break of all connections, one of the things that
 * networks do: all frames in flight have failed, all lines broke. Peers connect
 * anew. What had arrived before is delivered; addresses stay in the vector.
 *
 * The completion queue goes with its endpoint: ofi_rxm leaves a pointer to the
 * endpoint in its wait set.
 *
 * Limits. A peer that breaks connections on purpose costs all others a
 * connection in failed_max of its own, and not more often than once a
 * PAUSE_MIN_NS. When a new endpoint hears nothing either, the pauses grow.
 */
#include "transport/fabric_internal.h"

#include <dirent.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

/* Between two renewals. */
#define PAUSE_MIN_NS (1000 * TRI_NS_PER_MS)
#define PAUSE_MAX_NS (64000 * TRI_NS_PER_MS)

/* Between attempts to open it, when somebody else has the port. */
#define REOPEN_PAUSE_NS (100 * TRI_NS_PER_MS)

/* Looks, and how many in a row are proof: half a second. A message that takes
 * as long to arrive leaves the descriptor unready behind most reads. */
#define LOOK_NS (10 * TRI_NS_PER_MS)
#define DEAF_LOOKS 50

void tri_fabric_renew_init(struct fabric *fabric)
{
    fabric->renew.failed_max = tri_fabric_failed_max(fabric->info);
    fabric->renew.pause_ns = PAUSE_MIN_NS;
}

bool tri_fabric_is_worn(const struct fabric *fabric)
{
    const struct fabric_renew *renew = &fabric->renew;

    if (tri_likely(fabric->ep && renew->failed_len < renew->failed_max &&
                   renew->deaf_len < DEAF_LOOKS))
        return false;
    return renew->failed_max > 0 && tri_now_ns() >= renew->not_before_ns;
}

uint64_t tri_fabric_renew_due(const struct fabric *fabric)
{
    return fabric->ep ? UINT64_MAX : fabric->renew.not_before_ns;
}

static bool is_ready_locked(struct fabric *fabric)
{
    struct fid *fids[1] = { &fabric->cq->fid };
    struct pollfd fd = { .fd = fabric->cq_fd, .events = POLLIN };

    return fi_trywait(fabric->fid, fids, 1) != FI_SUCCESS ||
           poll(&fd, 1, 0) > 0;
}

void tri_fabric_look_locked(struct fabric *fabric)
{
    struct fabric_renew *renew = &fabric->renew;
    uint64_t now;

    if (renew->failed_max == 0 || fabric->cq_fd < 0 || !fabric->ep)
        return;
    now = tri_now_ns();
    if (now < renew->look_at_ns)
        return;
    renew->look_at_ns = now + LOOK_NS;
    renew->deaf_len = is_ready_locked(fabric) ? renew->deaf_len + 1 : 0;
}

/* True for a connection that the endpoint accepted. */
static bool is_accepted_there(int fd, const struct sockaddr *address)
{
    struct sockaddr_storage own = { 0 }, peer;
    socklen_t own_bytes = sizeof(own), peer_bytes = sizeof(peer);
    int type = 0;
    socklen_t type_bytes = sizeof(type);

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_bytes) == 0 &&
           type == SOCK_STREAM &&
           getsockname(fd, (struct sockaddr *)&own, &own_bytes) == 0 &&
           tri_fabric_same_port(&own, address) &&
           getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) == 0;
}

/*
 * The tcp provider (1.17) forgets connections that it accepted and that are
 * not yet an endpoint's: their peers would wait for an answer for ever, and
 * refuse ours meanwhile. Nobody else has such sockets: the port was ours. A
 * reset is seen by every peer (tri_fabric_errno_clear).
 */
static void orphans_close(const struct fabric *fabric)
{
    const struct linger reset = { .l_onoff = 1, .l_linger = 0 };
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;

    if (!dir)
        return;
    while ((entry = readdir(dir)) != NULL) {
        int fd = atoi(entry->d_name);

        if (entry->d_name[0] == '.' || fd == dirfd(dir) ||
            !is_accepted_there(fd, fabric->info->src_addr))
            continue;
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        close(fd);
    }
    closedir(dir);
}

void tri_fabric_endpoint_close_locked(struct fabric *fabric)
{
    if (!fabric->ep)
        return;
    tri_fabric_fid_close(&fabric->ep->fid);
    fabric->ep = NULL;
    if (fabric->renew.failed_max > 0)
        orphans_close(fabric);
}

/* Ends the endpoint and its queue; `cq` takes the queue's place. What was read
 * from the old one waits for delivery. */
static void endpoint_end_locked(struct fabric *fabric, struct fid_cq *cq,
                                int cq_fd)
{
    assert(fabric->rx.arrivals_len == 0);
    tri_fabric_endpoint_close_locked(fabric);
    while (tri_fabric_read_locked(fabric))
        ;
    tri_fabric_fid_close(&fabric->cq->fid);
    fabric->cq = cq;
    fabric->cq_fd = cq_fd;
    tri_fabric_lines_broke_locked(fabric);
    tri_fabric_rx_take_back_locked(fabric);
}

/* Errors: a libfabric code. */
static int renew_locked(struct fabric *fabric)
{
    struct fid_cq *cq;
    int cq_fd, rc = 0;

    if (fabric->ep) {
        /* Before the old one ends, so that the descriptor is another one. */
        rc = tri_fabric_cq_open_locked(fabric, &cq, &cq_fd);
        if (rc == 0 && (cq_fd < 0) != (fabric->cq_fd < 0)) {
            tri_fabric_fid_close(&cq->fid); /* our user counts on it */
            rc = -FI_ENODATA;
        }
        if (rc != 0)
            return rc;
        endpoint_end_locked(fabric, cq, cq_fd);
    }
    return tri_fabric_endpoint_open_locked(fabric);
}

void tri_fabric_renew_locked(struct fabric *fabric)
{
    struct fabric_renew *renew = &fabric->renew;
    int rc;

    if (fabric->ep)
        tri_info("fabric: a new endpoint: %u receives failed%s",
                 renew->failed_len,
                 renew->deaf_len >= DEAF_LOOKS ? ", it is deaf" : "");
    rc = renew_locked(fabric);
    if (rc != 0) {
        tri_warn("fabric: a new endpoint: %s", fi_strerror(-rc));
        renew->not_before_ns = tri_now_ns() + REOPEN_PAUSE_NS;
        return;
    }
    renew->pause_ns = renew->has_received
                          ? PAUSE_MIN_NS
                          : tri_min(2 * renew->pause_ns, PAUSE_MAX_NS);
    renew->not_before_ns = tri_now_ns() + renew->pause_ns;
    renew->has_received = false;
    renew->failed_len = renew->deaf_len = 0;
}
