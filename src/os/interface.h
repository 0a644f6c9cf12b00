/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_INTERFACE_H
#define TRI_INTERFACE_H

/* Which of this host's addresses a node uses: the same one for its fabric and
 * for its control datagrams. */

#include "os/endpoint.h"

/*
 * interface: an interface's name, one of its addresses or address/bits, any of
 * IPv4 and IPv6. NULL or "": the first IPv4 address that is up and not
 * loopback, else 127.0.0.1. endpoint_p: its port is 0.
 * Errors: ETRANSPORT (there is no such; logged with those that there are),
 * ESYSTEM.
 */
int tri_interface_choose(const char *interface,
                         struct tri_endpoint *endpoint_p);

#endif
