/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/udp.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

/* A burst from a thousand members while the control thread does not run; the
 * system may grant less (net.core.rmem_max). */
#define RECEIVE_BUFFER_BYTES (1 << 20)
/* An error of an earlier datagram is told to whoever calls next, and is gone
 * then; another may come meanwhile. */
#define STALE_ERRORS_MAX 2

/* --- opening -------------------------------------------------------------- */

static void option_set(int fd, int level, int option, int value)
{
    if (setsockopt(fd, level, option, &value, sizeof(value)) != 0)
        tri_debug("udp: option %d/%d: %s", level, option, strerror(errno));
}

static int make(uint8_t family)
{
    int fd = socket(family == 4 ? AF_INET : AF_INET6,
                    SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        tri_error("udp: no socket: %s", strerror(errno));
        return -1;
    }
    option_set(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER_BYTES);
    if (family == 6)
        option_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    option_set(fd, family == 4 ? IPPROTO_IP : IPPROTO_IPV6,
               family == 4 ? IP_RECVERR : IPV6_RECVERR, 1);
    return fd;
}

/* Returns 0 or an errno. */
static int bind_to(int fd, const struct tri_endpoint *address, uint16_t port)
{
    struct tri_endpoint at = *address;
    struct sockaddr_storage name;
    socklen_t bytes;

    at.port = port;
    bytes = tri_endpoint_to_sockaddr(&at, &name);
    return bind(fd, (struct sockaddr *)&name, bytes) == 0 ? 0 : errno;
}

static int bind_in_range(int fd, const struct tri_endpoint *address,
                         uint16_t first, uint16_t last)
{
    char text[TRI_ENDPOINT_TEXT_BYTES];
    int error = 0;

    for (uint32_t port = first; port <= last; port++) {
        error = bind_to(fd, address, (uint16_t)port);
        if (error != EADDRINUSE && error != EACCES)
            break;
    }
    if (error == 0)
        return 0;
    tri_endpoint_print_ip(address, text);
    if (error != EADDRINUSE && error != EACCES)
        tri_error("udp: %s cannot be used: %s", text, strerror(error));
    else if (last == 0)
        tri_error("udp: no port is free at %s", text);
    else
        tri_error("udp: no port from %u to %u is free at %s (%s)", first, last,
                  text, strerror(error));
    return TROUPE_ETRANSPORT;
}

int tri_udp_open(struct tri_udp *udp, const struct tri_endpoint *address,
                 uint16_t port_first, uint16_t port_last)
{
    struct sockaddr_storage name;
    socklen_t bytes = sizeof(name);
    struct tri_udp opened;
    int rc;

    assert(address->family == 4 || address->family == 6);
    assert(port_first <= port_last && (port_first > 0) == (port_last > 0));
    opened.fd = make(address->family);
    if (opened.fd < 0)
        return TROUPE_ESYSTEM;
    rc = bind_in_range(opened.fd, address, port_first, port_last);
    if (rc != 0)
        goto close_fd;
    if (getsockname(opened.fd, (struct sockaddr *)&name, &bytes) != 0 ||
        !tri_endpoint_from_sockaddr(&name, bytes, &opened.own)) {
        tri_error("udp: getsockname: %s", strerror(errno));
        rc = TROUPE_ESYSTEM;
        goto close_fd;
    }
    *udp = opened;
    return 0;
close_fd:
    close(opened.fd);
    return rc;
}

void tri_udp_close(struct tri_udp *udp)
{
    if (udp->own.family == 0)
        return;
    close(udp->fd);
    *udp = (struct tri_udp){ .fd = -1 };
}

/* --- sending -------------------------------------------------------------- */

static int code_of(int error)
{
    switch (error) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
        return TROUPE_EFULL;
    case EMSGSIZE:
        return TROUPE_ETOOBIG;
    case ECONNREFUSED:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
    case EADDRNOTAVAIL: /* our own address is gone for now */
    case EACCES:        /* a broadcast address, or a filter of ours */
    case EPERM:
    case EINVAL: /* an address that no datagram can be sent to from here */
        return TROUPE_ETRANSPORT;
    default:
        return TROUPE_ESYSTEM;
    }
}

int tri_udp_send(struct tri_udp *udp, const struct tri_endpoint *to,
                 const void *data, size_t bytes)
{
    struct sockaddr_storage name;
    socklen_t name_bytes = tri_endpoint_to_sockaddr(to, &name);

    if (to->family != udp->own.family)
        return TROUPE_ETRANSPORT;
    /* An error may be that of a datagram before, of any destination: then
     * nothing was sent. Ours comes again. */
    for (unsigned i = 0;; i++) {
        ssize_t n = sendto(udp->fd, data, bytes, MSG_NOSIGNAL,
                           (struct sockaddr *)&name, name_bytes);

        if (n >= 0)
            return 0;
        if (errno != EINTR &&
            (code_of(errno) != TROUPE_ETRANSPORT || i >= STALE_ERRORS_MAX))
            return code_of(errno);
    }
}

/* --- receiving ------------------------------------------------------------ */

/* Only what came from the network: errors made here have told the sender. */
static bool is_news(struct msghdr *message)
{
    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control;
         control = CMSG_NXTHDR(message, control)) {
        struct sock_extended_err error;

        if (!(control->cmsg_level == IPPROTO_IP &&
              control->cmsg_type == IP_RECVERR) &&
            !(control->cmsg_level == IPPROTO_IPV6 &&
              control->cmsg_type == IPV6_RECVERR))
            continue;
        if (control->cmsg_len < CMSG_LEN(sizeof(error)))
            continue;
        memcpy(&error, CMSG_DATA(control), sizeof(error));
        if ((error.ee_origin == SO_EE_ORIGIN_ICMP ||
             error.ee_origin == SO_EE_ORIGIN_ICMP6) &&
            code_of((int)error.ee_errno) == TROUPE_ETRANSPORT)
            return true;
    }
    return false;
}

/* Returns recvmsg's result; the source, or for errors the destination. */
static ssize_t take(int fd, int flags, void *data, size_t bytes_max,
                    struct tri_endpoint *endpoint_p, bool *is_news_p)
{
    union {
        struct cmsghdr align;
        char bytes[256];
    } control;
    struct sockaddr_storage name;
    struct iovec part = { .iov_base = data, .iov_len = bytes_max };
    struct msghdr message = {
        .msg_name = &name,
        .msg_namelen = sizeof(name),
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    ssize_t n;

    do
        n = recvmsg(fd, &message, flags | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return n;
    *endpoint_p = (struct tri_endpoint){ .family = 0 };
    (void)tri_endpoint_from_sockaddr(&name, message.msg_namelen, endpoint_p);
    *is_news_p = is_news(&message) && endpoint_p->family != 0;
    return message.msg_flags & MSG_TRUNC ? 0 : n;
}

enum tri_udp_arrival tri_udp_receive(struct tri_udp *udp, void *data,
                                     size_t bytes_max, size_t *bytes_p,
                                     struct tri_endpoint *endpoint_p)
{
    struct tri_endpoint endpoint;
    char unused;
    bool news;

    for (unsigned i = 0; i <= STALE_ERRORS_MAX; i++) {
        ssize_t n = take(udp->fd, 0, data, bytes_max, &endpoint, &news);

        if (n >= 0) {
            *bytes_p = (size_t)n;
            *endpoint_p = endpoint;
            return TRI_UDP_DATAGRAM;
        }
        if (errno == EAGAIN)
            break;
    }
    while (take(udp->fd, MSG_ERRQUEUE, &unused, sizeof(unused), &endpoint,
                &news) >= 0) {
        if (!news)
            continue;
        *bytes_p = 0;
        *endpoint_p = endpoint;
        return TRI_UDP_UNREACHABLE;
    }
    return TRI_UDP_NOTHING;
}
