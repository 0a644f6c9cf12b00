/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SPREAD_H
#define TRI_SPREAD_H

/*
 * Spreads this node's load and tags, and takes those of others into the
 * roster: gives the pure core (member/traits_core.h) the driver's datagrams
 * and clock. A client of src/member/member.h; the roster keeps and ends it.
 */

struct tri_runtime;
struct tri_spread;

/* Roster and driver stand already; before the threads start.
 * Errors: ENOMEM, ELIMIT. */
int tri_spread_open(struct tri_runtime *runtime);

/* After the control thread has ended. */
void tri_spread_destroy(struct tri_spread **spread_p);

#endif
