/* SPDX-License-Identifier: BSD-3-Clause */

/* Large messages, built in place and kept by the receiver: delivered into its
 * hands, each page read, then dropped. How many are under way is the library's
 * to bound.
 *     bw BYTES MESSAGES
 */

#include "ours.h"

#define blob_messages(TELL, ASK)                                              \
    TELL(blob, put, (uint64_t number; unsigned char bytes[];))                \
    ASK(blob, count, (), (uint64_t bytes;))                                   \
    TELL(blob, end, ())
TROUPE_PROTOCOL(blob)

struct blob {
    uint64_t bytes;
};

static bench_flag_t done;

static int on_put(troupe_self_t *self, struct blob *b, const blob_put_t *m)
{
    const void *mine = troupe_keep(self);

    if (!mine)
        return TROUPE_ENOMEM;
    bench_touch(m->bytes, troupe_tail_bytes(self));
    b->bytes += troupe_tail_bytes(self);
    troupe_drop(mine);
    return 0;
}

static int on_count(troupe_self_t *self, struct blob *b,
                    const blob_count_t *m)
{
    uint64_t bytes = b->bytes;

    (void)m;
    b->bytes = 0;
    return blob_count_reply(self, (blob_count_result_t){ bytes });
}

static int on_end(troupe_self_t *self, struct blob *b, const blob_end_t *m)
{
    (void)b;
    (void)m;
    bench_raise(self, &done);
    return 0;
}

TROUPE_ACTOR(blob, struct blob, .put = on_put, .count = on_count,
             .end = on_end)

/* A message of its own for each; the node may have to drain for its memory. */
static void put(troupe_t *troupe, blob_ref_t to, size_t bytes,
                uint64_t number)
{
    blob_put_t *message;

    while (!(message = blob_put_new(troupe, bytes)))
        troupe_serve(troupe, 0);
    message->number = number;
    bench_check(blob_put_send(troupe, to, message), "put");
}

/* Sends them all and waits until they are handled. */
static void stream(troupe_t *troupe, blob_ref_t to, size_t bytes,
                   uint64_t messages)
{
    blob_count_result_t seen;

    for (uint64_t i = 0; i < messages; i++)
        put(troupe, to, bytes, i);
    bench_check(blob_count(troupe, to, (blob_count_t){}, BENCH_WAIT_MS, &seen),
                "count");
    bench_expect(troupe, seen.bytes, messages * bytes, "bytes");
}

static void bw(troupe_t *troupe, size_t bytes, uint64_t messages)
{
    blob_ref_t to;
    int64_t began;

    bench_check(blob_resolve(troupe, "actor://rank.1/blob", BENCH_WAIT_MS,
                             &to),
                "resolve");
    stream(troupe, to, bytes, messages / 10 + 1);
    began = bench_now_ns();
    stream(troupe, to, bytes, messages);
    bench_print((double)messages * (double)bytes /
                    (double)(bench_now_ns() - began),
                "GB/s", "bw");
    bench_check(blob_end(troupe, to, (blob_end_t){}), "end");
}

int main(int argc, char **argv)
{
    size_t bytes = bench_number(argc, argv, 1);
    uint64_t messages = bench_number(argc, argv, 2);
    troupe_t *troupe = bench_start(-1);
    blob_ref_t blob;

    if (troupe_rank(troupe) == 0) {
        bw(troupe, bytes, messages);
    } else {
        bench_check(blob_spawn(troupe, "blob", NULL, &blob), "spawn");
        bench_await(troupe, &done);
    }
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
