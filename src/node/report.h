/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_REPORT_H
#define TRI_REPORT_H

/*
 * What became of the nodes of a job, for who started it: mpirun returns 0 under
 * recovery, whatever happened. Option report names a file to which each node
 * of this machine appends lines, each with one write, so that they stay whole:
 *
 *     node ID rank R size S pid P started T endpoint HOST:PORT|-
 *     dead ID by ID evidence E      as a member found it, several may
 *     excluded ID                   the others hold it for dead
 *     stop ID rc                    troupe_stop, with what it returned
 *     exit ID status rank R         the process called exit
 *
 * ID: 16 hexadecimal digits; R: -1 for a process that joined by itself, without
 * mpirun; E: silence, connection, proof. A process without stop and exit died.
 * A report that cannot be written is warned about once and does no other harm.
 */

#include "node/node.h"

/* Opens it, if the option says so. Never fails. Before the node's threads. */
void tri_report_open(troupe_t *troupe);

/* The node runs; threads do, too. */
void tri_report_started(troupe_t *troupe);

/* The node is about to be freed; the report goes on until the process exits. */
void tri_report_stopped(const troupe_t *troupe, int rc);

/* Attaches to membership: deaths that this node hears of. As
 * tri_member_attach. */
int tri_report_attach(troupe_t *troupe);

#endif
