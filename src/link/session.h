/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SESSION_H
#define TRI_SESSION_H

/*
 * A transport (transport/transport.h) over a carrier (transport/carrier.h):
 * records are packed into frames, frames are numbered, sealed, acknowledged
 * and, when lost, sent again (link/session_core.h). What config.carrier may
 * lose, the session does not.
 */

#include "transport/transport.h"

extern const struct tri_transport_ops tri_transport_session;

/* The port that its carrier listens on; 0: none that is known. */
uint16_t tri_session_port(struct tri_transport *transport);

/* Memory that the transport and its carrier hold, about, and what one peer
 * with an idle session costs of it. For benchmarks and reports. */
size_t tri_session_memory_bytes(struct tri_transport *transport);
size_t tri_session_peer_bytes(void);

#endif
