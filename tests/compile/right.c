/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The right program beside the wrong ones: it compiles without a warning, as
 * C and as C++, so that what the others are refused for is their one fault.
 */
#include "counter.h"

/* What a program may call its node: nothing that the macros make hides it. */
troupe_t *troupe;

struct counter {
    int64_t value;
};

static int on_add(troupe_self_t *self, struct counter *c,
                  const counter_add_t *m)
{
    (void)self;
    c->value += m->by;
    return 0;
}

static int on_reset(troupe_self_t *self, struct counter *c,
                    const counter_reset_t *m)
{
    (void)self;
    c->value = m->to;
    return 0;
}

static int on_read(troupe_self_t *self, struct counter *c,
                   const counter_read_t *m)
{
    counter_read_result_t result = { c->value };

    (void)m;
    return counter_read_reply(self, result);
}

static int on_down(troupe_self_t *self, struct counter *c,
                   const troupe_down_t *down)
{
    (void)self;
    c->value = down->reason;
    return 0;
}

static int on_member(troupe_self_t *self, struct counter *c,
                     const troupe_member_event_t *event)
{
    (void)self;
    c->value = event != NULL;
    return 0;
}

static int on_name(troupe_self_t *self, struct counter *c,
                   const troupe_name_event_t *event)
{
    (void)self;
    c->value = event != NULL;
    return 0;
}

#ifdef __cplusplus
/* C++17 has no designated initializers: the handlers in their order. */
TROUPE_ACTOR(counter, struct counter, 0, 0, 0, on_down, on_member, on_name,
             on_add, on_reset, on_read)
#else
TROUPE_ACTOR(counter, struct counter, .add = on_add, .reset = on_reset,
             .read = on_read, .on_down = on_down, .on_member = on_member,
             .on_name = on_name)
#endif

static int play(troupe_t *node, lamp_ref_t lamp)
{
    uint8_t up[2] = { 0, 100 }, down[1] = { 0 };
    struct iovec parts[2] = { { up, sizeof(up) }, { down, sizeof(down) } };
    lamp_play_t head;

    head.step_ms = 10;
    return lamp_play_gather(node, lamp, &head, head.percents, parts, 2);
}

int main(void)
{
    troupe_t *node;
    counter_ref_t hits;
    counter_add_t add = { 1 };
    counter_read_t read = { 0 };
    counter_read_result_t total;
    lamp_ref_t nobody = { { 0, 0, 0 } };
    int rc = troupe_start(&node, 0);

    if (rc != 0)
        return 1;
    rc = counter_spawn(node, "hits", 0, &hits);
    if (rc == 0)
        rc = counter_add(node, hits, add);
    if (rc == 0)
        rc = counter_resolve_with(node, "actor:///hits", 0, 1000, &hits);
    if (rc == 0)
        rc = counter_read(node, hits, read, 1000, &total);
    if (rc == 0 && play(node, nobody) != TROUPE_ENODE)
        rc = TROUPE_EFAILED;
    troupe_stop(&node);
    return rc == 0 && total.value == 1 ? 0 : 1;
}
