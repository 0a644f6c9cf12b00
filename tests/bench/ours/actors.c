/* SPDX-License-Identifier: BSD-3-Clause */

/* What actors that have started and wait for messages keep resident.
 *     actors ACTORS WORKERS
 */

#include "ours.h"

#define idler_messages(TELL, ASK) TELL(idler, add, (uint64_t by;))
TROUPE_PROTOCOL(idler)

static bench_flag_t done;
static _Atomic uint64_t left;

static int on_start(troupe_self_t *self, uint64_t *value)
{
    (void)value;
    if (atomic_fetch_sub(&left, 1) == 1)
        bench_raise(self, &done);
    return 0;
}

static int on_add(troupe_self_t *self, uint64_t *value, const idler_add_t *m)
{
    (void)self;
    *value += m->by;
    return 0;
}

TROUPE_ACTOR(idler, uint64_t, .on_start = on_start, .add = on_add)

int main(int argc, char **argv)
{
    uint64_t actors = bench_number(argc, argv, 1);
    troupe_t *troupe = bench_start((int)bench_number(argc, argv, 2));
    idler_ref_t *all = malloc(actors * sizeof(*all));
    double before;

    if (!all)
        bench_die("no memory");
    memset(all, 1, actors * sizeof(*all)); /* the program's own, not theirs */
    atomic_store(&left, actors);
    before = bench_resident_bytes();
    for (uint64_t i = 0; i < actors; i++)
        bench_check(idler_spawn(troupe, NULL, NULL, &all[i]), "spawn");
    bench_await(troupe, &done);
    bench_print((bench_resident_bytes() - before) / (double)actors, "B",
                "bytes");
    free(all);
    /* The figure is out; stopping a million actors is not the subject. */
    _exit(0);
}
