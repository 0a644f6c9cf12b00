/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: troupe_from_t|transparent union|incompatible type */
#include "counter.h"

/* Only a node or a running actor can send. */
int test(counter_ref_t counter);

int test(counter_ref_t counter)
{
    return counter_add(counter, counter, (counter_add_t){ 1 });
}
