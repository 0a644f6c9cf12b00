/* SPDX-License-Identifier: BSD-3-Clause */

/* Actors that handle one message and are gone.
 *     create ACTORS WORKERS
 */

#include "ours.h"

#define once_messages(TELL, ASK) TELL(once, run, (uint64_t value;))
TROUPE_PROTOCOL(once)

#define parent_messages(TELL, ASK) TELL(parent, spawn_all, (uint64_t actors;))
TROUPE_PROTOCOL(parent)

static bench_flag_t done;
static _Atomic uint64_t left;

static int on_run(troupe_self_t *self, uint64_t *state, const once_run_t *m)
{
    *state = m->value;
    if (atomic_fetch_sub(&left, 1) == 1)
        bench_raise(self, &done);
    troupe_exit(self);
    return 0;
}

TROUPE_ACTOR(once, uint64_t, .run = on_run)

static int on_spawn_all(troupe_self_t *self, char *state,
                        const parent_spawn_all_t *m)
{
    once_ref_t child;
    int rc = 0;

    (void)state;
    for (uint64_t i = 0; i < m->actors && rc == 0; i++) {
        rc = once_spawn(self, NULL, NULL, &child);
        if (rc == 0)
            rc = once_run(self, child, (once_run_t){ i });
    }
    bench_check(rc, "spawn");
    troupe_exit(self);
    return 0;
}

TROUPE_ACTOR(parent, char, .spawn_all = on_spawn_all)

static void create(troupe_t *troupe, uint64_t actors)
{
    parent_ref_t parent;

    atomic_store(&done, 0);
    atomic_store(&left, actors);
    bench_check(parent_spawn(troupe, NULL, NULL, &parent), "spawn");
    bench_check(parent_spawn_all(troupe, parent,
                                 (parent_spawn_all_t){ actors }),
                "spawn_all");
    bench_await(troupe, &done);
}

int main(int argc, char **argv)
{
    uint64_t actors = bench_number(argc, argv, 1);
    troupe_t *troupe = bench_start((int)bench_number(argc, argv, 2));
    int64_t began;

    create(troupe, actors / 10 + 1);
    began = bench_now_ns();
    create(troupe, actors);
    bench_print((double)(bench_now_ns() - began) / (double)actors, "ns",
                "message");
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
