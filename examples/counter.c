/* SPDX-License-Identifier: BSD-3-Clause */
/* counter: a typed protocol, and one actor that all ranks count with. */
#include <inttypes.h>
#include <troupe.h>

#include "must.h"

/* What a counter understands. Anything else does not compile. */
#define counter_messages(TELL, ASK)                                           \
    TELL(counter, add, (int64_t by;))                                         \
    ASK(counter, read, (), (int64_t value;))
TROUPE_PROTOCOL(counter)

struct counter { int64_t value; };

static int64_t final_value; /* of rank 0's counter, once it has stopped */

/* An error returned from a handler would fail this actor, nobody else. */
static int on_add(troupe_self_t *self, struct counter *c,
                  const counter_add_t *m)
{
    (void)self;
    c->value += m->by;
    return 0;
}

static int on_read(troupe_self_t *self, struct counter *c,
                   const counter_read_t *m)
{
    (void)m;
    return counter_read_reply(self,
                              (counter_read_result_t){ .value = c->value });
}

static void on_stop(troupe_self_t *self, struct counter *c, int reason)
{
    (void)self, (void)reason;
    final_value = c->value;
}

TROUPE_ACTOR(counter, struct counter, .add = on_add, .read = on_read,
             .on_stop = on_stop)

int main(void)
{
    troupe_t *troupe;
    counter_ref_t hits;
    counter_read_result_t now;
    int rank, size;

    must(troupe_start(&troupe, NULL), "start"); /* mpirun ./counter */
    rank = troupe_rank(troupe);
    size = troupe_size(troupe);
    if (rank == 0)
        must(counter_spawn(troupe, "hits", NULL, &hits), "spawn");
    /* Every rank finds it by name and waits until it is there. */
    must(counter_resolve(troupe, "actor://rank.0/hits", 30000, &hits),
         "resolve actor://rank.0/hits");
    must(counter_add(troupe, hits, (counter_add_t){ .by = 1 }), "add");
    /* What one sends to one receiver arrives in order: our 1 is in there. */
    must(counter_read(troupe, hits, (counter_read_t){}, 30000, &now), "read");
    printf("rank %d of %d reads %" PRId64 "\n", rank, size, now.value);

    /* Stop delivers everything that any rank has sent before. */
    must(troupe_stop(&troupe), "stop");
    if (rank != 0)
        return now.value >= 1 ? EXIT_SUCCESS : EXIT_FAILURE;
    printf("counter: %" PRId64 " hits from %d ranks\n", final_value, size);
    return final_value == size ? EXIT_SUCCESS : EXIT_FAILURE;
}
