/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: troupe_ref_t */
#include "counter.h"

/* A ref whose protocol is not known. */
int test(troupe_t *troupe, troupe_ref_t anybody);

int test(troupe_t *troupe, troupe_ref_t anybody)
{
    return counter_add(troupe, anybody, (counter_add_t){ 1 });
}
