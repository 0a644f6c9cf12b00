/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CARD_H
#define TRI_CARD_H

/*
 * A member's card: what others must know of it to reach it and to place
 * actors. Fixed for the node's life. Exchanged through MPI at start, else with
 * the news that it joined. In memory as below; on the wire as a compact body
 * (tri_card_encode), at most TRI_CARD_BYTES_MAX.
 */

#include "base/base.h"
#include "os/endpoint.h"
#include "transport/transport.h"

#define TRI_MEMBER_NAME_MAX 63
#define TRI_CARD_BYTES_MAX 400

struct tri_member_card {
    uint64_t node;
    uint64_t host;       /* who may share memory, see os/topology.h */
    uint64_t job;        /* the MPI job it belongs to: its rank 0's node id */
    uint64_t started;    /* of the process, as the kernel tells it: with pid,
                            proves that it is still the same one */
    int32_t rank;        /* in its job; -1: none */
    int32_t size;        /* of its job */
    uint32_t pid;        /* in its namespace, which `host` includes */
    uint32_t cores;      /* it may use */
    uint32_t interface;  /* version of records and types */
    struct tri_endpoint control; /* where its control datagrams go */
    struct tri_address ring;
    struct tri_address fabric;
    char name[TRI_MEMBER_NAME_MAX + 1]; /* option node_name, or "" */
};

/*
 * The body, little-endian: node, host, job and started (8 bytes each), rank,
 * size, pid, cores and interface (4 each), the endpoint (family 1; unless that
 * is 0: port 2, address 4 or 16), then ring, fabric and name, a byte of length
 * before each. A name is UTF-8 or nothing that a terminal would obey: no
 * control characters.
 */

/* True for a card that can travel: see tri_card_decode. */
bool tri_card_is_valid(const struct tri_member_card *card);

/* Of a valid card. Returns the bytes, at most TRI_CARD_BYTES_MAX. */
size_t tri_card_encode(const struct tri_member_card *card,
                       unsigned char *data);

/* Total on any bytes; used_p: how many it took. Returns NULL, or what is
 * wrong (static text); outputs are then unspecified. */
const char *tri_card_decode(const unsigned char *data, size_t bytes,
                            struct tri_member_card *card_p, size_t *used_p);

#endif
