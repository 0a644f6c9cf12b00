/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_REFUSALS_H
#define TRI_REFUSALS_H

/*
 * How often foreign or malformed data was refused, by reason. Reasons are
 * static texts; the same text may lie in several places. A flood costs its
 * receiver a look through the table and an addition each time, and one line in
 * the log for each reason.
 *
 * Lock-free: an entry's reason is set once, in the order of the table, so all
 * threads find the same entry for a text. What does not fit is counted
 * together.
 */

#include <troupe/node.h>

#include "base/base.h"

struct tri_refusals {
    struct {
        const char *_Atomic reason; /* NULL: free, and so are those behind */
        _Atomic uint64_t count;
    } entries[TROUPE_REFUSALS_MAX]; /* the last one: all other reasons */
};

/* Any thread. */
void tri_refusals_count(struct tri_refusals *refusals, const char *reason);

/* What was counted so far; returns how many reasons. Any thread. */
size_t tri_refusals_read(struct tri_refusals *refusals,
                         troupe_refusal_t *refusals_p, size_t len_max);

/* The sum over all reasons. Any thread. */
uint64_t tri_refusals_total(struct tri_refusals *refusals);

/* One line with all of them, if there are any. */
void tri_refusals_log(struct tri_refusals *refusals);

#endif
