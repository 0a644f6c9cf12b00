/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: lamp_power_result */
#include "counter.h"

/* The result of one ask put where another's belongs. */
int test(troupe_t *troupe, counter_ref_t counter);

int test(troupe_t *troupe, counter_ref_t counter)
{
    lamp_power_result_t watts;

    return counter_read(troupe, counter, (counter_read_t){ 0 }, 0, &watts);
}
