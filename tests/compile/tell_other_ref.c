/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: lamp_ref_t */
#include "counter.h"

/* A message of one protocol to the ref of another. */
int test(troupe_t *troupe, lamp_ref_t lamp);

int test(troupe_t *troupe, lamp_ref_t lamp)
{
    return counter_add(troupe, lamp, (counter_add_t){ 1 });
}
