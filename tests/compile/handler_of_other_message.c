/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: incompatible.*pointer */
#include "counter.h"

/* A handler that takes another message than the one it is listed for. */
struct counter {
    int64_t value;
};

static int on_reset(troupe_self_t *self, struct counter *c,
                    const counter_reset_t *m)
{
    (void)self;
    c->value = m->to;
    return 0;
}

TROUPE_ACTOR(counter, struct counter, .add = on_reset)
