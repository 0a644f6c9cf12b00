/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Reproducible sums: the parts of one are done by hand for some members, whose
 * contributions change places and number; the bits do not, and the error is
 * within what exact.h says.
 */

#include "unit.h"

#include <math.h>

#include "tensor/exact.h"
#include "tensor/reduce.h"

enum { MEMBERS_MAX = 8, COUNT = 300 };

static struct tri_random rng;
static double numbers[MEMBERS_MAX][COUNT];

/* Adds what all members give in a part, as a back end would. */
static void run_part(struct tri_coll *colls, uint32_t n)
{
    enum troupe_datatype type = (enum troupe_datatype)colls[0].type;
    size_t bytes = troupe_datatype_bytes(type);
    bool is_scattered = colls[0].kind == TRI_COLL_REDUCE_SCATTER;
    size_t all = colls[0].count * (is_scattered ? n : 1);
    const void *ins[MEMBERS_MAX];
    char *sum = malloc(all * bytes + 1);

    assert_non_null(sum);
    for (uint32_t i = 0; i < n; i++)
        ins[i] = colls[i].in;
    tri_reduce_all(type, (enum troupe_op)colls[0].op, sum, ins, n, all);
    for (uint32_t i = 0; i < n; i++)
        if (colls[i].out != NULL)
            memcpy(colls[i].out,
                   sum + (is_scattered ? i * colls[0].count * bytes : 0),
                   colls[0].count * bytes);
    free(sum);
}

/* outs: of each member. */
static void sum_up(enum tri_coll_kind kind, enum troupe_datatype type,
                   enum troupe_op op, void *const *ins, void *const *outs,
                   uint32_t n, size_t count)
{
    struct tri_coll colls[MEMBERS_MAX];
    struct tri_exact *exacts[MEMBERS_MAX];
    int rc = TRI_COLL_PENDING;

    for (uint32_t i = 0; i < n; i++) {
        colls[i] = (struct tri_coll){ .kind = (uint8_t)kind,
                                      .type = (uint8_t)type,
                                      .op = (uint8_t)op,
                                      .count = count,
                                      .in = ins[i],
                                      .out = outs[i] };
        tri_coll_sign(&colls[i]);
        assert_int_equal(tri_exact_begin(&exacts[i], &colls[i], n, i), 0);
        assert_non_null(exacts[i]);
    }
    while (rc == TRI_COLL_PENDING) {
        run_part(colls, n);
        for (uint32_t i = 0; i < n; i++)
            rc = tri_exact_next(exacts[i], &colls[i]);
    }
    assert_int_equal(rc, 0);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(colls[i].kind, kind);
        tri_exact_free(&exacts[i]);
    }
}

/* Far apart, of both signs, zeros, and where the type ends. */
static void make_numbers(int exponents)
{
    for (int k = 0; k < MEMBERS_MAX; k++)
        for (int i = 0; i < COUNT; i++) {
            uint64_t bits = tri_random_next(&rng);
            int exponent = (int)tri_random_below(&rng, (uint32_t)exponents) -
                           exponents / 2;

            numbers[k][i] = ldexp((double)(int64_t)bits, exponent - 63);
            if (i % 10 == 0)
                numbers[k][i] = bits % 3 == 0 ? 0.0 : numbers[k][i];
        }
}

static void put(enum troupe_datatype type, void *array, size_t i, double value)
{
    float small = (float)value;

    if (type == TROUPE_DOUBLE)
        ((double *)array)[i] = value;
    else
        tri_reduce_store(type, TROUPE_SUM,
                         (char *)array + i * troupe_datatype_bytes(type),
                         &small, 1, 1);
}

static long double get(enum troupe_datatype type, const void *array, size_t i)
{
    float small;

    if (type == TROUPE_DOUBLE)
        return (long double)((const double *)array)[i];
    tri_reduce_load(type, &small,
                    (const char *)array + i * troupe_datatype_bytes(type), 1);
    return (long double)small;
}

static void expect_near(enum troupe_datatype type, void *const *ins,
                        uint32_t n, const void *out)
{
    long double epsilon = type == TROUPE_DOUBLE ? 0x1p-53L
                          : type == TROUPE_BF16 ? 0x1p-8L
                          : type == TROUPE_FP16 ? 0x1p-11L
                                                : 0x1p-24L;
    long double unit = type == TROUPE_DOUBLE ? 0x1p-62L : 0x1p-50L;

    for (size_t i = 0; i < COUNT; i++) {
        long double want = 0, most = 0, size = 0, got = get(type, out, i);

        for (uint32_t k = 0; k < n; k++) {
            long double x = get(type, ins[k], i);

            want += x;
            size += fabsl(x);
            most = fmaxl(most, fabsl(x));
        }
        /* the reference has an error, too; fp16's smallest step is 2^-24 */
        if (!(fabsl(got - want) <=
              epsilon * fabsl(want) * 1.01L + n * most * unit +
                  n * size * 0x1p-62L +
                  (type == TROUPE_FP16 ? 0x1p-25L : 0)))
            fail_msg("type %d: %Lg instead of %Lg", type, got, want);
    }
}

static void for_type(enum troupe_datatype type, int exponents)
{
    static char spaces[2 * MEMBERS_MAX + 1][COUNT * 8]
        __attribute__((aligned(16)));
    void *ins[MEMBERS_MAX], *outs[MEMBERS_MAX];
    void *const first = spaces[2 * MEMBERS_MAX];

    make_numbers(exponents);
    /* three numbers an element, the others give nothing: 3 to 8 members */
    for (uint32_t n = 3; n <= MEMBERS_MAX; n++)
        for (uint32_t shift = 0; shift < n; shift++) {
            for (uint32_t k = 0; k < n; k++) {
                uint32_t who = (k * 5 + shift) % n;

                if (n % 5 == 0)
                    who = (k + shift) % n;
                ins[k] = spaces[k];
                outs[k] = spaces[MEMBERS_MAX + k];
                for (size_t i = 0; i < COUNT; i++)
                    put(type, ins[k], i, who < 3 ? numbers[who][i] : 0);
            }
            sum_up(TRI_COLL_ALLREDUCE, type, TROUPE_SUM, ins, outs, n, COUNT);
            if (n == 3 && shift == 0)
                memcpy(first, outs[0], sizeof(spaces[0]));
            for (uint32_t k = 0; k < n; k++)
                assert_memory_equal(outs[k], first,
                                    COUNT * troupe_datatype_bytes(type));
            expect_near(type, ins, n, outs[0]);
        }
}

static void in_any_order_and_number(void **state)
{
    (void)state;
    tri_random_init(&rng, unit_seed(__func__));
    for (int round = 0; round < 5; round++) {
        for_type(TROUPE_FLOAT, 200);
        for_type(TROUPE_FLOAT, 10);
        for_type(TROUPE_DOUBLE, 1900);
        for_type(TROUPE_DOUBLE, 40);
        for_type(TROUPE_BF16, 200);
        for_type(TROUPE_FP16, 28);
    }
}

static void scattered_and_rooted(void **state)
{
    double in[4][8], out[4][2], want[8] = { 0 };
    void *ins[4], *outs[4];

    (void)state;
    for (int k = 0; k < 4; k++) {
        ins[k] = in[k];
        outs[k] = out[k];
        for (int i = 0; i < 8; i++) {
            in[k][i] = k * 10 + i;
            want[i] += in[k][i];
        }
    }
    sum_up(TRI_COLL_REDUCE_SCATTER, TROUPE_DOUBLE, TROUPE_AVG, ins, outs, 4,
           2);
    for (int i = 0; i < 8; i++)
        assert_true(out[i / 2][i % 2] == want[i] / 4);
    outs[1] = outs[2] = outs[3] = NULL;
    sum_up(TRI_COLL_REDUCE, TROUPE_DOUBLE, TROUPE_SUM, ins, outs, 4, 2);
    assert_true(out[0][0] == want[0] && out[0][1] == want[1]);
}

static void infinities(void **state)
{
    float in[2][5] = { { INFINITY, INFINITY, NAN, -INFINITY, 3e38f },
                       { 1, -INFINITY, 1, -INFINITY, 3e38f } };
    float out[2][5];
    void *ins[2] = { in[0], in[1] }, *outs[2] = { out[0], out[1] };

    (void)state;
    sum_up(TRI_COLL_ALLREDUCE, TROUPE_FLOAT, TROUPE_SUM, ins, outs, 2, 5);
    assert_true(isinf(out[0][0]) && out[0][0] > 0);
    assert_true(isnan(out[0][1]) && isnan(out[0][2]));
    assert_true(isinf(out[0][3]) && out[0][3] < 0);
    assert_true(isinf(out[0][4]) && out[0][4] > 0);
    assert_memory_equal(out[0], out[1], sizeof(out[0]));
}

static void others_are_as_ever(void **state)
{
    long double ld = 1;
    float f = 1;
    struct tri_coll colls[] = {
        { .kind = TRI_COLL_ALLREDUCE, .type = TROUPE_LONG_DOUBLE,
          .op = TROUPE_SUM, .count = 1, .in = &ld, .out = &ld },
        { .kind = TRI_COLL_ALLREDUCE, .type = TROUPE_FLOAT, .op = TROUPE_MAX,
          .count = 1, .in = &f, .out = &f },
        { .kind = TRI_COLL_BCAST, .type = TROUPE_FLOAT, .count = 1,
          .out = &f },
    };
    struct tri_exact *exact;

    (void)state;
    for (size_t i = 0; i < tri_array_len(colls); i++) {
        assert_int_equal(tri_exact_begin(&exact, &colls[i], 2, 0), 0);
        assert_null(exact);
    }
    colls[1].op = TROUPE_SUM;
    assert_int_equal(tri_exact_begin(&exact, &colls[1],
                                     TRI_EXACT_MEMBERS_MAX + 1, 0),
                     TROUPE_ELIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_any_order_and_number),
        cmocka_unit_test(scattered_and_rooted),
        cmocka_unit_test(infinities),
        cmocka_unit_test(others_are_as_ever),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
