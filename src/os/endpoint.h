/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_ENDPOINT_H
#define TRI_ENDPOINT_H

/* Where datagrams go: an IP address and a port, without the kernel's padding,
 * so that it can be compared, kept and sent to others. */

#include "base/base.h"

#include <sys/socket.h>

struct tri_endpoint {
    uint8_t family;   /* 4, 6; 0: none */
    uint8_t reserved; /* 0 */
    uint16_t port;    /* in the host's byte order */
    uint8_t ip[16];   /* 4 or 16 bytes, then zeros */
};

/* "[0123:…:4567]:65535" and its end. */
#define TRI_ENDPOINT_TEXT_BYTES 56

static inline size_t tri_endpoint_ip_bytes(const struct tri_endpoint *endpoint)
{
    return endpoint->family == 4 ? 4 : endpoint->family == 6 ? 16 : 0;
}

bool tri_endpoint_equal(const struct tri_endpoint *a,
                        const struct tri_endpoint *b);

/* False: neither IPv4 nor IPv6, or shorter than such an address. */
bool tri_endpoint_from_sockaddr(const void *address, size_t bytes,
                                struct tri_endpoint *endpoint_p);

/* Returns the bytes used; 0 for no endpoint. */
socklen_t tri_endpoint_to_sockaddr(const struct tri_endpoint *endpoint,
                                   struct sockaddr_storage *address_p);

/* "1.2.3.4:5", "[::1]:5", "none". Returns text. */
const char *tri_endpoint_print(const struct tri_endpoint *endpoint,
                               char text[TRI_ENDPOINT_TEXT_BYTES]);

/* Only its address: "1.2.3.4", "::1". Returns text. */
const char *tri_endpoint_print_ip(const struct tri_endpoint *endpoint,
                                  char text[TRI_ENDPOINT_TEXT_BYTES]);

/*
 * What a seed's text means: "host:port" or "[IPv6 address]:port", where host
 * is a name or an IPv4 address. family: 4 or 6, what our own socket can reach;
 * 0: both. At most endpoints_max are written, in the resolver's order.
 *
 * Blocking: as long as the resolver does, for names; never for addresses.
 * Errors: EOPTION (not such a text), ENOSEED (the name has no address of the
 * family now; may be different later, and is the caller's to say).
 */
int tri_endpoint_resolve(const char *text, uint8_t family,
                         struct tri_endpoint *endpoints_p,
                         uint32_t endpoints_max, uint32_t *endpoints_len_p);

#endif
