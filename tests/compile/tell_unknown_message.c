/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: counter_subtract */
#include "counter.h"

/* A message that the protocol does not have. */
int test(troupe_t *troupe, counter_ref_t counter);

int test(troupe_t *troupe, counter_ref_t counter)
{
    return counter_subtract(troupe, counter, 1);
}
