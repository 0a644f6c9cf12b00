/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: incompatible.*pointer */
#include "counter.h"

/* A handler for an actor with another state. */
struct counter {
    int64_t value;
};

struct lamp {
    uint32_t percent;
};

static int on_add(troupe_self_t *self, struct lamp *lamp,
                  const counter_add_t *m)
{
    (void)self;
    lamp->percent += (uint32_t)m->by;
    return 0;
}

TROUPE_ACTOR(counter, struct counter, .add = on_add)
