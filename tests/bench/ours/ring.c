/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A token around the ranks: each asks the next one, which answers and then
 * asks the next. Rank 0 counts the laps; the mains only serve.
 *     ring LAPS
 */

#include "ours.h"

#define link_messages(TELL, ASK)                                              \
    TELL(link, begin, (link_ref_t next;))                                     \
    ASK(link, take, (uint64_t token;), (uint64_t token;))                     \
    TELL(link, end, ())
TROUPE_PROTOCOL(link)

struct link {
    link_ref_t next;
    uint64_t warm, laps; /* at rank 0 */
    int64_t began;
};

static bench_flag_t done;
static int rank, size;

static int on_taken(troupe_self_t *self, void *state, int error,
                    const link_take_result_t *result, void *arg)
{
    (void)self;
    (void)state;
    (void)result;
    (void)arg;
    return error;
}

static int pass(troupe_self_t *self, struct link *link, uint64_t token)
{
    return link_take_then(self, link->next, (link_take_t){ token },
                          BENCH_WAIT_MS, on_taken, NULL);
}

static int on_begin(troupe_self_t *self, struct link *link,
                    const link_begin_t *m)
{
    link->next = m->next;
    return pass(self, link, 1);
}

/* At rank 0 a lap is complete. Returns 1 when it was the last one. */
static int lap(struct link *link, uint64_t laps)
{
    int64_t now = bench_now_ns();

    if (laps == link->warm)
        link->began = now;
    if (laps < link->warm + link->laps)
        return 0;
    bench_print((double)(now - link->began) / 1e3 /
                    (double)(link->laps * (uint64_t)size),
                "us", "ask");
    return 1;
}

static int on_take(troupe_self_t *self, struct link *link,
                   const link_take_t *m)
{
    int rc = link_take_reply(self, (link_take_result_t){ m->token });

    if (rc < 0)
        return rc;
    if (rank == 0 && lap(link, m->token / (uint64_t)size)) {
        bench_raise(self, &done);
        return link_end(self, link->next, (link_end_t){});
    }
    return pass(self, link, m->token + 1);
}

static int on_end(troupe_self_t *self, struct link *link, const link_end_t *m)
{
    (void)m;
    bench_raise(self, &done);
    return rank == size - 1 ? 0
                            : link_end(self, link->next, (link_end_t){});
}

TROUPE_ACTOR(link, struct link, .begin = on_begin, .take = on_take,
             .end = on_end)

/*
 * Rank 0's link comes first and learns its next one last; all others are
 * named only when theirs is known, so that the ring closes in order.
 */
static void join(troupe_t *troupe, uint64_t laps)
{
    struct link link = { .warm = laps / 10 + 1, .laps = laps };
    char address[64];
    link_ref_t mine, next;

    if (rank == 0)
        bench_check(link_spawn(troupe, "link", &link, &mine), "spawn");
    snprintf(address, sizeof(address), "actor://rank.%d/link",
             (rank + 1) % size);
    bench_check(link_resolve(troupe, address, BENCH_WAIT_MS, &next),
                "resolve");
    link.next = next;
    if (rank == 0)
        bench_check(link_begin(troupe, mine, (link_begin_t){ next }),
                    "begin");
    else
        bench_check(link_spawn(troupe, "link", &link, &mine), "spawn");
}

int main(int argc, char **argv)
{
    uint64_t laps = bench_number(argc, argv, 1);
    troupe_t *troupe = bench_start(-1);

    rank = troupe_rank(troupe);
    size = troupe_size(troupe);
    if (size < 2)
        bench_die("needs two ranks");
    join(troupe, laps);
    bench_await(troupe, &done);
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
