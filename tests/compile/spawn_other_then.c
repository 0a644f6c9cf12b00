/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: incompatible.*pointer */
#include "counter.h"

/* The ref of a new actor goes to a function for another kind of ref. */
struct counter {
    int64_t value;
};

static int then_lamp(troupe_self_t *self, void *state, int error,
                     const lamp_ref_t *ref, void *arg)
{
    (void)self, (void)state, (void)ref, (void)arg;
    return error;
}

static int on_add(troupe_self_t *self, struct counter *c,
                  const counter_add_t *m);

TROUPE_ACTOR(counter, struct counter, .add = on_add)

static int on_add(troupe_self_t *self, struct counter *c,
                  const counter_add_t *m)
{
    (void)c;
    return counter_spawn_on_then(self, (uint64_t)m->by, NULL, NULL, 0,
                                 then_lamp, NULL);
}
