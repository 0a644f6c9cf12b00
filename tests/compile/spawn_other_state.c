/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: incompatible.*pointer */
#include "counter.h"

/* An actor on another node begins with the state of another kind. */
struct counter {
    int64_t value;
};

struct lamp {
    uint32_t percent;
};

static int on_add(troupe_self_t *self, struct counter *c,
                  const counter_add_t *m)
{
    (void)self;
    c->value += m->by;
    return 0;
}

TROUPE_ACTOR(counter, struct counter, .add = on_add)

int main(void)
{
    struct lamp lamp = { 50 };
    counter_ref_t ref;

    return counter_spawn_on(NULL, 1, NULL, &lamp, 0, &ref);
}
