/* SPDX-License-Identifier: BSD-3-Clause */

/* The public calls about what is under way: drain, quiesce, who is busy. */

#include "base/clock.h"
#include "group/group.h"
#include "node/node.h"

static int check(const troupe_t *troupe, int timeout_ms)
{
    if (troupe == NULL || timeout_ms < TROUPE_FOREVER)
        return TROUPE_EINVAL;
    return tri_worker_current() != NULL ? TROUPE_ECONTEXT : 0;
}

int troupe_drain(troupe_t *troupe, int timeout_ms)
{
    struct tri_seat seat;
    int rc = check(troupe, timeout_ms);

    if (rc != 0)
        return rc;
    tri_seat_take(&troupe->runtime, &seat);
    rc = tri_group_drain(&troupe->runtime, &seat, tri_deadline_ns(timeout_ms));
    tri_seat_leave(&seat);
    return rc;
}

int troupe_quiesce(troupe_t *troupe, int timeout_ms)
{
    struct tri_seat seat;
    int rc = check(troupe, timeout_ms);

    if (rc != 0)
        return rc;
    tri_seat_take(&troupe->runtime, &seat);
    rc = tri_group_quiesce(&troupe->runtime, &seat, "troupe_quiesce",
                           TRI_NS_NEVER, tri_deadline_ns(timeout_ms));
    tri_seat_leave(&seat);
    return rc;
}

size_t troupe_busy(troupe_t *troupe, troupe_busy_t *list, size_t list_len_max)
{
    return troupe != NULL && (list != NULL || list_len_max == 0)
               ? tri_group_busy(&troupe->runtime, list, list_len_max)
               : 0;
}
