/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_UDP_H
#define TRI_UDP_H

/*
 * A UDP socket for control datagrams, bound to one address of this host. Never
 * blocks. Of one thread at a time; `fd` is for its poll set: readable (or in
 * error) means that tri_udp_receive has something.
 */

#include "os/endpoint.h"

struct tri_udp {
    int fd;
    struct tri_endpoint own; /* with the port that it got */
};

/*
 * Binds to the address, at the first port of the range that is free; 0, 0: any
 * port. first = last: that one. Errors: ETRANSPORT (no port of the range is
 * free, or the address is not this host's; logged), ESYSTEM (logged).
 */
int tri_udp_open(struct tri_udp *udp, const struct tri_endpoint *address,
                 uint16_t port_first, uint16_t port_last);

/* A zeroed or closed one is left alone, if its own.family is 0. */
void tri_udp_close(struct tri_udp *udp);

/*
 * Sends one datagram; that it was sent proves nothing. Errors: EFULL (no room
 * now; it is as lost as others in the network), ETRANSPORT (there is no way to
 * this address now, or it is of the other family), ETOOBIG (for the network or
 * UDP), ESYSTEM. None is logged: they come with every partition.
 */
int tri_udp_send(struct tri_udp *udp, const struct tri_endpoint *to,
                 const void *data, size_t bytes);

enum tri_udp_arrival {
    TRI_UDP_NOTHING,
    TRI_UDP_DATAGRAM,
    /* What was sent to an endpoint did not arrive: the network or that host
     * said so (ICMP). Anybody can forge that: a hint to probe. */
    TRI_UDP_UNREACHABLE,
};

/*
 * Takes what came: a datagram from, or news about, endpoint_p. A datagram that
 * is longer than bytes_max, and an empty one, have *bytes_p 0: they are nobody
 * of ours'. To be called until it says NOTHING, else the poll set would not
 * rest.
 */
enum tri_udp_arrival tri_udp_receive(struct tri_udp *udp, void *data,
                                     size_t bytes_max, size_t *bytes_p,
                                     struct tri_endpoint *endpoint_p);

#endif
