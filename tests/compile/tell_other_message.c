/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: counter_reset */
#include "counter.h"

/* The content of one message sent as another of the same protocol. */
int test(troupe_t *troupe, counter_ref_t counter);

int test(troupe_t *troupe, counter_ref_t counter)
{
    return counter_add(troupe, counter, (counter_reset_t){ 1 });
}
