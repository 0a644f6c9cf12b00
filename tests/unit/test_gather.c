/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages and results sent in pieces: what arrives is what a message built in
 * place would have brought, for random pieces; what is refused, and how.
 */
#include "unit.h"

#include <stdatomic.h>

#include <troupe.h>

enum {
    SOON_MS = 20000,
    BYTES_MAX = 1 << 20, /* option message_bytes_max */
    PARTS_LEN = 40,
    ROUNDS = 300,
    LIMIT = 4,
    MANY = 40,
};

/* `odd` has its array in what would else be padding. */
#define box_messages(TELL, ASK)                                                \
    TELL(box, put, (uint64_t hash; uint64_t len; unsigned char bytes[];))      \
    TELL(box, odd, (uint64_t hash; uint32_t len; uint16_t two[];))             \
    ASK(box, hash, (uint32_t salt; unsigned char bytes[];), (uint64_t hash;))  \
    ASK(box, give, (uint32_t parts_len;),                                      \
        (uint64_t hash; uint8_t kind; unsigned char bytes[];))                 \
    TELL(box, plain, (uint64_t value;))                                        \
    TELL(box, hold, ())                                                        \
    TELL(box, flood, (box_ref_t to;))                                          \
    ASK(box, report, (), (int64_t puts; int64_t wrong;))
TROUPE_PROTOCOL(box)

_Static_assert(offsetof(box_odd_t, two) < sizeof(box_odd_t) &&
                   offsetof(box_give_result_t, bytes) <
                       sizeof(box_give_result_t),
               "else they test nothing new");

struct box {
    int64_t puts, wrong;
};

static atomic_int holding, released, flooded;

static uint64_t hash_of(const void *bytes, size_t len)
{
    return tri_fnv64(TRI_FNV64_OFFSET, bytes, len);
}

static int on_put(troupe_self_t *self, struct box *b, const box_put_t *m)
{
    size_t len = troupe_tail_bytes(self);

    b->puts++;
    b->wrong += m->len != len || m->hash != hash_of(m->bytes, len);
    return 0;
}

static int on_odd(troupe_self_t *self, struct box *b, const box_odd_t *m)
{
    size_t len = troupe_tail_bytes(self);

    b->puts++;
    b->wrong += m->len != len || m->hash != hash_of(m->two, len);
    return 0;
}

static int on_hash(troupe_self_t *self, struct box *b, const box_hash_t *m)
{
    size_t len = troupe_tail_bytes(self);

    (void)b;
    return box_hash_reply(
        self, (box_hash_result_t){ hash_of(m->bytes, len) + m->salt });
}

static int on_give(troupe_self_t *self, struct box *b, const box_give_t *m)
{
    unsigned char bytes[PARTS_LEN];
    struct iovec parts[PARTS_LEN];
    box_give_result_t result = { .kind = 7 };

    (void)b;
    for (unsigned i = 0; i < m->parts_len; i++) {
        bytes[i] = (unsigned char)(i + 1);
        parts[i] = (struct iovec){ &bytes[i], 1 };
    }
    result.hash = hash_of(bytes, m->parts_len);
    return box_give_reply_gather(self, &result, result.bytes, parts,
                                 m->parts_len);
}

static int on_hold(troupe_self_t *self, struct box *b, const box_hold_t *m)
{
    (void)self, (void)b, (void)m;
    atomic_store(&holding, 1);
    while (!atomic_load(&released))
        sched_yield();
    return 0;
}

static int put(troupe_from_t from, box_ref_t to)
{
    static unsigned char bytes[3000];
    box_put_t put = { .hash = hash_of(bytes, sizeof(bytes)),
                      .len = sizeof(bytes) };
    struct iovec parts[] = { { bytes, 1000 }, { bytes + 1000, 2000 } };

    return box_put_gather(from, to, &put, put.bytes, parts, 2);
}

static int on_flood(troupe_self_t *self, struct box *b, const box_flood_t *m)
{
    int rc = 0;

    (void)b;
    for (int i = 0; i < MANY && rc == 0; i++)
        rc = put(self, m->to);
    atomic_store(&flooded, rc);
    troupe_wake(self);
    return 0;
}

static int on_report(troupe_self_t *self, struct box *b, const box_report_t *m)
{
    (void)m;
    return box_report_reply(self, (box_report_result_t){ b->puts, b->wrong });
}

TROUPE_ACTOR(box, struct box, .put = on_put, .odd = on_odd, .hash = on_hash,
             .give = on_give, .hold = on_hold, .flood = on_flood,
             .report = on_report)

/* --- helpers -------------------------------------------------------------- */

static troupe_t *start(int workers, uint32_t send_timeout_ms)
{
    troupe_options_t options;
    troupe_t *troupe;

    atomic_store(&holding, 0);
    atomic_store(&released, 0);
    atomic_store(&flooded, 0);
    troupe_options_init(&options);
    options.workers = workers;
    options.message_bytes_max = BYTES_MAX;
    options.send_timeout_ms = send_timeout_ms;
    assert_int_equal(troupe_start(&troupe, &options), 0);
    return troupe;
}

static box_ref_t spawn(troupe_t *troupe, uint32_t limit)
{
    troupe_spawn_options_t options = { .mailbox_len_max = limit,
                                       .overflow = TROUPE_WAIT };
    box_ref_t box;

    assert_int_equal(box_spawn_with(troupe, &options, NULL, &box), 0);
    return box;
}

static void check_report(troupe_t *troupe, box_ref_t box, int64_t puts)
{
    box_report_result_t report;

    assert_int_equal(
        box_report(troupe, box, (box_report_t){}, SOON_MS, &report), 0);
    assert_int_equal(report.puts, puts);
    assert_int_equal(report.wrong, 0);
}

static int is_set(void *arg)
{
    return atomic_load((atomic_int *)arg) != 0;
}

/* --- tests ---------------------------------------------------------------- */

/* Random pieces of `source`, behind each other in `whole`. Returns bytes. */
static size_t cut(struct tri_random *random, unsigned char *source,
                  unsigned char *whole, struct iovec *parts, unsigned len)
{
    size_t most = tri_random_below(random, 2) ? 64 : BYTES_MAX / PARTS_LEN - 1;
    size_t bytes = 0;

    for (unsigned i = 0; i < len; i++) {
        size_t at = tri_random_below(random, BYTES_MAX / 2);
        size_t part = tri_random_below(random, (uint32_t)most);

        parts[i] = (struct iovec){ part > 0 ? source + at : NULL, part };
        memcpy(whole + bytes, source + at, part);
        bytes += part;
    }
    return bytes;
}

static void test_random_pieces(void **state)
{
    troupe_t *troupe = start(1, SOON_MS);
    box_ref_t box = spawn(troupe, 0);
    unsigned char *source = malloc(BYTES_MAX), *whole = malloc(BYTES_MAX);
    struct iovec parts[PARTS_LEN];
    struct tri_random random;

    (void)state;
    assert_true(source && whole);
    tri_random_init(&random, unit_seed(__func__));
    for (size_t i = 0; i < BYTES_MAX; i++)
        source[i] = (unsigned char)tri_random_below(&random, 256);
    for (int round = 0; round < ROUNDS; round++) {
        unsigned len = tri_random_below(&random, PARTS_LEN + 1);
        size_t bytes = cut(&random, source, whole, parts, len);
        uint64_t hash = hash_of(whole, bytes);
        box_put_t put = { .hash = hash, .len = bytes };
        box_odd_t odd = { .hash = hash, .len = (uint32_t)bytes };
        box_hash_t ask = { .salt = (uint32_t)round };
        box_hash_result_t answer;

        assert_int_equal(
            box_put_gather(troupe, box, &put, put.bytes, parts, len), 0);
        assert_int_equal(box_odd_gather(troupe, box, &odd, odd.two, parts, len),
                         0);
        assert_int_equal(box_hash_gather(troupe, box, &ask, ask.bytes, parts,
                                         len, SOON_MS, &answer),
                         0);
        assert_true(answer.hash == hash + (uint64_t)round);
    }
    check_report(troupe, box, 2 * ROUNDS);
    free(source);
    free(whole);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* The same bytes as a message built in place, up to the last one. */
static void test_as_built(void **state)
{
    troupe_t *troupe = start(0, 0);
    box_ref_t box = spawn(troupe, 0);
    uint16_t two[] = { 1, 2, 3 };
    struct iovec part = { two, sizeof(two) };
    box_odd_t odd = { .hash = hash_of(two, sizeof(two)), .len = sizeof(two) };
    box_odd_t *built = box_odd_new(troupe, sizeof(two));

    (void)state;
    assert_non_null(built);
    built->hash = odd.hash;
    built->len = odd.len;
    memcpy(built->two, two, sizeof(two));
    assert_int_equal(box_odd_send(troupe, box, built), 0);
    assert_int_equal(box_odd_gather(troupe, box, &odd, odd.two, &part, 1), 0);
    check_report(troupe, box, 2);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* The caller may do with its memory what it likes at once. */
static void test_memory_is_read_before_return(void **state)
{
    troupe_t *troupe = start(0, 0); /* nothing is handled until we serve */
    box_ref_t box = spawn(troupe, 0);
    unsigned char bytes[5000];
    struct iovec part = { bytes, sizeof(bytes) };
    box_put_t put = { .len = sizeof(bytes) };

    (void)state;
    memset(bytes, 3, sizeof(bytes));
    put.hash = hash_of(bytes, sizeof(bytes));
    assert_int_equal(box_put_gather(troupe, box, &put, put.bytes, &part, 1), 0);
    memset(bytes, 4, sizeof(bytes));
    part = (struct iovec){ NULL, 0 };
    put = (box_put_t){ 0 };
    check_report(troupe, box, 1);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_results(void **state)
{
    troupe_t *troupe = start(1, 0);
    box_ref_t box = spawn(troupe, 0);

    (void)state;
    for (uint32_t len = 0; len <= PARTS_LEN; len++) {
        const box_give_result_t *result = NULL;

        assert_int_equal(
            box_give_take(troupe, box, (box_give_t){ len }, SOON_MS, &result),
            0);
        assert_int_equal(troupe_message_tail_bytes(result), len);
        assert_int_equal(result->kind, 7);
        assert_true(result->hash == hash_of(result->bytes, len));
        troupe_drop(result);
    }
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_refused(void **state)
{
    troupe_t *troupe = start(0, 0);
    box_ref_t box = spawn(troupe, 0), nobody = box;
    static unsigned char bytes[BYTES_MAX];
    static struct iovec many[TROUPE_PARTS_MAX + 1];
    struct iovec half = { bytes, BYTES_MAX / 2 };
    struct iovec halves[] = { half, half };
    struct iovec endless[] = { half, { bytes, SIZE_MAX } };
    struct iovec nowhere = { NULL, 1 };
    box_put_t put = { .hash = hash_of(bytes, 0) };
    box_plain_t plain = { 1 };
    box_hash_t ask = { 0 };

    (void)state;
#define GATHER(parts, len)                                                     \
    box_put_gather(troupe, box, &put, put.bytes, (parts), (len))
    assert_int_equal(GATHER(many, TROUPE_PARTS_MAX + 1), TROUPE_ELIMIT);
    assert_int_equal(GATHER(halves, 2), TROUPE_ETOOBIG); /* by its head */
    assert_int_equal(GATHER(endless, 2), TROUPE_ETOOBIG);
    assert_int_equal(GATHER(&nowhere, 1), TROUPE_EINVAL);
    assert_int_equal(GATHER(NULL, 1), TROUPE_EINVAL);
#undef GATHER
    assert_int_equal(box_put_gather(troupe, box, NULL, NULL, &half, 1),
                     TROUPE_EINVAL);
    assert_int_equal(box_put_gather(troupe, box, &put, bytes, &half, 1),
                     TROUPE_EINVAL);
    assert_int_equal(
        box_plain_gather(troupe, box, &plain, &plain + 1, &half, 1),
        TROUPE_EINVAL);
    nobody.ref.generation += 2;
    assert_int_equal(box_put_gather(troupe, nobody, &put, put.bytes, &half, 1),
                     TROUPE_ENOACTOR);
    nobody.ref.node++;
    assert_int_equal(box_put_gather(troupe, nobody, &put, put.bytes, &half, 1),
                     TROUPE_ENODE);
    assert_int_equal(box_hash_gather(troupe, nobody, &ask, ask.bytes, &half, 1,
                                     SOON_MS, NULL),
                     TROUPE_ENODE);
    check_report(troupe, box, 0);
    /* Nothing at all is a message, too. */
    assert_int_equal(
        box_put_gather(troupe, box, &put, put.bytes, many, TROUPE_PARTS_MAX),
        0);
    assert_int_equal(box_put_gather(troupe, box, &put, put.bytes, NULL, 0), 0);
    assert_int_equal(box_plain_gather(troupe, box, &plain, &plain + 1, NULL, 0),
                     0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_full(void **state)
{
    troupe_t *troupe = start(2, 50);
    box_ref_t box = spawn(troupe, LIMIT), flooder = spawn(troupe, 0);
    int64_t puts = 0;
    int rc;

    (void)state;
    assert_int_equal(box_hold(troupe, box, (box_hold_t){}), 0);
    while (!atomic_load(&holding))
        sched_yield();
    while ((rc = put(troupe, box)) == 0) /* waits in the end */
        puts++;
    assert_int_equal(rc, TROUPE_EFULL);
    assert_int_equal(puts, LIMIT);
    assert_int_equal(box_flood(troupe, flooder, (box_flood_t){ box }), 0);
    assert_int_equal(troupe_serve_until(troupe, is_set, &flooded, SOON_MS), 0);
    assert_int_equal(atomic_load(&flooded), TROUPE_EFULL);
    atomic_store(&released, 1);
    check_report(troupe, box, puts);
    assert_int_equal(troupe_stop(&troupe), 0);
    troupe = start(1, SOON_MS);
    box = spawn(troupe, LIMIT);
    for (puts = 0; puts < 10 * MANY; puts++)
        assert_int_equal(put(troupe, box), 0);
    check_report(troupe, box, puts);
    assert_int_equal(troupe_stop(&troupe), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_pieces),
        cmocka_unit_test(test_as_built),
        cmocka_unit_test(test_memory_is_read_before_return),
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_full),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
