/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: lamp_power_result */
#include "counter.h"

/* An ask answered with the result of another. */
int test(troupe_self_t *self);

int test(troupe_self_t *self)
{
    return counter_read_reply(self, (lamp_power_result_t){ 60 });
}
