/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: counter_reset */
#include "counter.h"

/* A message built in place and sent as another. */
int test(troupe_t *troupe, counter_ref_t counter);

int test(troupe_t *troupe, counter_ref_t counter)
{
    counter_reset_t *reset = counter_reset_new(troupe, 0);

    return counter_add_send(troupe, counter, reset);
}
