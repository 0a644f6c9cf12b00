/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_QUIESCE_CORE_H
#define TRI_QUIESCE_CORE_H

/*
 * Termination detection by counting: Mattern's four-counter method (F.
 * Mattern, "Algorithms for distributed termination detection", Distributed
 * Computing 2, 1987). All nodes add up their counts of messages sent and
 * received, each at a moment when it is idle. When two rounds in a row give
 * the same sums, and sent equals received, then nothing was under way in
 * between: a message in flight would have to show in the sums of the second
 * round.
 *
 * Pure: the caller adds up and says what came out.
 */

#include "base/base.h"

struct tri_quiesce {
    bool has_round;
    int64_t sent;
    int64_t received;
};

static inline void tri_quiesce_init(struct tri_quiesce *quiesce)
{
    *quiesce = (struct tri_quiesce){ 0 };
}

/* The sums of one round. True: everything is quiet. */
static inline bool tri_quiesce_round(struct tri_quiesce *quiesce, int64_t sent,
                                     int64_t received)
{
    bool quiet = quiesce->has_round && sent == received &&
                 sent == quiesce->sent && received == quiesce->received;

    quiesce->has_round = true;
    quiesce->sent = sent;
    quiesce->received = received;
    return quiet;
}

#endif
