/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: lamp_play */
#include "counter.h"

/* The pieces of one message behind the fixed part of another. */
int test(troupe_t *troupe, lamp_ref_t lamp, const struct iovec *parts);

int test(troupe_t *troupe, lamp_ref_t lamp, const struct iovec *parts)
{
    lamp_dim_t dim = { 50 };

    return lamp_play_gather(troupe, lamp, &dim, &dim, parts, 1);
}
