/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages and results from 1 B to 8 MiB, to the next rank and to ourselves:
 * the content is checked at the receiver, on the way there and on the way
 * back, with small messages in between that must not overtake. Every other one
 * is built in place, the rest gathered from pieces. The argument is option cma.
 */
#include "test.h"

enum { BYTES_MAX = 8 << 20, SIZES = 17, PARTS = 3 };

static const size_t sizes[SIZES] = {
    1,     7,     64,    1000,   2048,    4096,    8191,      16384,    16385,
    65536, 65537, 262144, 1000000, 1 << 20, 3000001, BYTES_MAX - 1, BYTES_MAX,
};

#define mirror_messages(TELL, ASK)                                            \
    TELL(mirror, show, (uint32_t seed; unsigned char bytes[];))               \
    TELL(mirror, after, (uint32_t seed;))                                     \
    ASK(mirror, give, (uint32_t seed; uint32_t bytes_len;),                   \
        (uint32_t seed; unsigned char bytes[];))                              \
    ASK(mirror, report, (), (int32_t shown; int32_t wrong;))
TROUPE_PROTOCOL(mirror)

struct mirror {
    int32_t shown, wrong;
    uint32_t last_seed[2]; /* of another rank, of ourselves */
};

static uint32_t *last_seed_of(troupe_self_t *self, struct mirror *m)
{
    return &m->last_seed[troupe_sender(self).node == troupe_node_id(self)];
}

/* Different at each place and for each seed. */
static void fill(unsigned char *bytes, size_t len, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1;

    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        bytes[i] = (unsigned char)(x >> 24);
    }
}

static int is_filled(const unsigned char *bytes, size_t len, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1;

    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        if (bytes[i] != (unsigned char)(x >> 24))
            return 0;
    }
    return 1;
}

/* Pieces of different sizes, some of them empty when len is small. */
static void cut(unsigned char *bytes, size_t len, struct iovec parts[PARTS])
{
    size_t ends[PARTS] = { len / 7, len / 7 * 3, len }, at = 0;

    for (int i = 0; i < PARTS; i++) {
        parts[i] = (struct iovec){ bytes + at, ends[i] - at };
        at = ends[i];
    }
}

static int on_show(troupe_self_t *self, struct mirror *m,
                   const mirror_show_t *show)
{
    size_t len = troupe_tail_bytes(self);

    m->shown++;
    m->wrong += len != sizes[show->seed % SIZES] ||
                !is_filled(show->bytes, len, show->seed);
    *last_seed_of(self, m) = show->seed;
    return 0;
}

static int on_after(troupe_self_t *self, struct mirror *m,
                    const mirror_after_t *after)
{
    m->wrong += *last_seed_of(self, m) != after->seed;
    return 0;
}

static int give_in_pieces(troupe_self_t *self, const mirror_give_t *give)
{
    unsigned char *bytes = malloc(give->bytes_len);
    mirror_give_result_t result = { .seed = give->seed };
    struct iovec parts[PARTS];
    int rc;

    if (!bytes)
        return troupe_reply_error(self, TROUPE_ENOMEM);
    fill(bytes, give->bytes_len, give->seed);
    cut(bytes, give->bytes_len, parts);
    rc = mirror_give_reply_gather(self, &result, result.bytes, parts, PARTS);
    free(bytes);
    return rc;
}

static int on_give(troupe_self_t *self, struct mirror *m,
                   const mirror_give_t *give)
{
    mirror_give_result_t *result;
    int rc;

    (void)m;
    if (give->seed % 2 != 0)
        return give_in_pieces(self, give);
    result = mirror_give_result_new(self, give->bytes_len);
    if (!result)
        return troupe_reply_error(self, TROUPE_ENOMEM);
    result->seed = give->seed;
    fill(result->bytes, give->bytes_len, give->seed);
    rc = troupe_reply_send(self, result);
    if (rc != 0)
        troupe_drop(result);
    return rc;
}

static int on_report(troupe_self_t *self, struct mirror *m,
                     const mirror_report_t *ask)
{
    (void)ask;
    return mirror_report_reply(self,
                               (mirror_report_result_t){ m->shown, m->wrong });
}

TROUPE_ACTOR(mirror, struct mirror, .show = on_show, .after = on_after,
             .give = on_give, .report = on_report)

static int show_whole(troupe_t *troupe, mirror_ref_t to, uint32_t seed,
                      size_t len)
{
    mirror_show_t *m = mirror_show_new(troupe, len);
    int rc;

    if (!m)
        return TROUPE_ENOMEM;
    m->seed = seed;
    fill(m->bytes, len, seed);
    rc = mirror_show_send(troupe, to, m);
    if (rc != 0)
        troupe_drop(m);
    return rc;
}

static int show_in_pieces(troupe_t *troupe, mirror_ref_t to, uint32_t seed,
                          size_t len)
{
    static unsigned char bytes[BYTES_MAX];
    mirror_show_t m = { .seed = seed };
    struct iovec parts[PARTS];

    fill(bytes, len, seed);
    cut(bytes, len, parts);
    return mirror_show_gather(troupe, to, &m, m.bytes, parts, PARTS);
}

/* There may be no memory until others have been handled. */
static void show(troupe_t *troupe, mirror_ref_t to, uint32_t seed)
{
    size_t len = sizes[seed % SIZES];
    double end = test_now_ms() + TEST_SOON_MS;
    int rc;

    while ((rc = (seed % 2 ? show_in_pieces : show_whole)(
                troupe, to, seed, len)) == TROUPE_ENOMEM &&
           test_now_ms() < end)
        troupe_serve(troupe, 1);
    MUST(rc);
    MUST(mirror_after(troupe, to, (mirror_after_t){ seed }));
}

static void take(troupe_t *troupe, mirror_ref_t from, uint32_t seed)
{
    uint32_t len = (uint32_t)sizes[seed % SIZES];
    const mirror_give_result_t *result;

    MUST(mirror_give_take(troupe, from, (mirror_give_t){ seed, len },
                          TEST_SOON_MS, &result));
    CHECK_EQ(troupe_message_tail_bytes(result), len);
    CHECK_EQ(result->seed, seed);
    CHECK(is_filled(result->bytes, len, seed));
    troupe_drop(result);
}

static void exchange(troupe_t *troupe, int with)
{
    char address[TEST_ADDRESS_BYTES];
    mirror_ref_t mirror;

    MUST(mirror_resolve(troupe, test_address(address, with, "mirror"),
                        TEST_SOON_MS, &mirror));
    for (uint32_t seed = 0; seed < SIZES; seed++) {
        show(troupe, mirror, seed);
        take(troupe, mirror, seed);
    }
    for (uint32_t seed = 0; seed < SIZES; seed++)
        show(troupe, mirror, seed + SIZES);
}

int main(int argc, char **argv)
{
    troupe_options_t options;
    mirror_ref_t mine;
    mirror_report_result_t report;
    troupe_t *troupe;
    int size, wanted;
    double end;

    troupe_options_init(&options);
    options.message_bytes_max = BYTES_MAX + 4096;
    options.send_timeout_ms = TEST_SOON_MS;
    if (argc > 1)
        options.cma = argv[1];
    troupe = test_start(&size, &options);
    MUST(mirror_spawn(troupe, "mirror", NULL, &mine));
    exchange(troupe, (test_rank + 1) % size);
    if (size > 1)
        exchange(troupe, test_rank);
    MPI_Barrier(MPI_COMM_WORLD);
    /* What the others have sent may still be on its way. */
    wanted = (size > 1 ? 4 : 2) * SIZES;
    end = test_now_ms() + TEST_SOON_MS;
    do
        MUST(mirror_report(troupe, mine, (mirror_report_t){}, TEST_SOON_MS,
                           &report));
    while (report.shown < wanted && test_now_ms() < end &&
           troupe_serve(troupe, 1) == 0);
    CHECK_EQ(report.wrong, 0);
    CHECK_EQ(report.shown, wanted);
    CHECK_EQ(troupe_dead_letters_count(troupe), 0);
    return test_end(troupe);
}
