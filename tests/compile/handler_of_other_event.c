/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: incompatible.*pointer */
#include "counter.h"

/* A handler of an actor's end listed for what members tell. */
struct counter {
    int64_t value;
};

static int on_down(troupe_self_t *self, struct counter *c,
                   const troupe_down_t *down)
{
    (void)self;
    c->value = down->reason;
    return 0;
}

TROUPE_ACTOR(counter, struct counter, .on_member = on_down)
