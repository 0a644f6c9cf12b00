/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_GROUP_H
#define TRI_GROUP_H

/*
 * The nodes of a job together: has all that one sent been handled (drain), is
 * nothing under way among all (quiesce)? Neither costs anything while nobody
 * asks: a drain sends records behind the messages in question, a quiesce
 * reads counters that are there anyway.
 *
 * Drain. To each node that we sent to goes a DRAIN record behind our messages,
 * one a lane. When both have come, that node marks the mailboxes of its busy
 * actors (actor/markers.h), and says DRAINED when the last marker came out.
 * What several nodes ask meanwhile waits for the next batch of markers.
 */

#include "actor/runtime.h"

/* Makes runtime->group. Errors: ENOMEM. */
int tri_group_open(struct tri_runtime *runtime);

/* Threads are gone. */
void tri_group_close(struct tri_runtime *runtime);

/*
 * Waits until all living nodes are in this call and nothing is under way among
 * them; serves in the seat meanwhile. call: its name, in the report.
 * patience_ns: after this time, when all are in but busy, it ends on all
 * nodes. Not in a handler.
 * Errors: ETIMEDOUT (see tri_group_busy), ESTOPPING (patience ended; the
 * same), ECONTEXT (another thread is in it).
 */
int tri_group_quiesce(struct tri_runtime *runtime, struct tri_seat *seat,
                      const char *call, uint64_t patience_ns,
                      uint64_t deadline_ns);

/*
 * Waits until all that this node sent before has been handled by the living.
 * Threads take turns. Not in a handler. Errors: ETIMEDOUT (see
 * tri_group_busy), ENOMEM.
 */
int tri_group_drain(struct tri_runtime *runtime, struct tri_seat *seat,
                    uint64_t deadline_ns);

/* What the last call that expired waited for. Returns the number there is,
 * and lists as many as fit. Any thread. */
size_t tri_group_busy(struct tri_runtime *runtime, troupe_busy_t *list,
                      size_t list_len_max);

#endif
