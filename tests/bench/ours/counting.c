/* SPDX-License-Identifier: BSD-3-Clause */

/* One sender, one receiver. A full mailbox makes the sender yield.
 *     counting MESSAGES WORKERS
 */

#include "ours.h"

#define counter_messages(TELL, ASK) TELL(counter, add, (uint64_t by;))
TROUPE_PROTOCOL(counter)

#define sender_messages(TELL, ASK) TELL(sender, go_on, ())
TROUPE_PROTOCOL(sender)

struct counter {
    uint64_t sum, left;
};

struct sender {
    counter_ref_t to;
    uint64_t left;
};

static bench_flag_t done;

static int on_add(troupe_self_t *self, struct counter *c,
                  const counter_add_t *m)
{
    c->sum += m->by;
    if (--c->left == 0) {
        bench_raise(self, &done);
        troupe_exit(self);
    }
    return 0;
}

TROUPE_ACTOR(counter, struct counter, .add = on_add)

static int on_go_on(troupe_self_t *self, struct sender *s,
                    const sender_go_on_t *m)
{
    int rc;

    (void)m;
    for (; s->left > 0; s->left--) {
        rc = counter_add(self, s->to, (counter_add_t){ .by = 1 });
        if (rc == TROUPE_EFULL)
            return sender_go_on(self, sender_self(self), (sender_go_on_t){});
        if (rc < 0)
            return rc;
    }
    troupe_exit(self);
    return 0;
}

TROUPE_ACTOR(sender, struct sender, .go_on = on_go_on)

static void count(troupe_t *troupe, uint64_t messages)
{
    struct counter counter = { .left = messages };
    struct sender sender = { .left = messages };
    sender_ref_t from;

    atomic_store(&done, 0);
    bench_check(counter_spawn(troupe, NULL, &counter, &sender.to), "spawn");
    bench_check(sender_spawn(troupe, NULL, &sender, &from), "spawn");
    bench_check(sender_go_on(troupe, from, (sender_go_on_t){}), "go_on");
    bench_await(troupe, &done);
}

int main(int argc, char **argv)
{
    uint64_t messages = bench_number(argc, argv, 1);
    troupe_t *troupe = bench_start((int)bench_number(argc, argv, 2));
    int64_t began;

    count(troupe, messages / 10 + 1);
    began = bench_now_ns();
    count(troupe, messages);
    bench_print((double)(bench_now_ns() - began) / (double)messages, "ns",
                "message");
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
