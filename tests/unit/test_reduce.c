/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The arithmetic of collectives: every type and operation against long double,
 * the order of summation against a slow one to the last bit, conversions of the
 * 16-bit types against their definition.
 */

#include "unit.h"

#include <complex.h>
#include <math.h>

#include "tensor/reduce_internal.h"

#define COUNT_MAX 700 /* several pieces of every type, and a rest */
#define SLOT_BYTES (COUNT_MAX * 16)

static struct tri_random rng;

static const char *const type_names[] = {
    "",
#define X(name, bytes) #name,
    TROUPE_DATATYPES(X)
#undef X
};

static uint64_t random_bits(void)
{
    return tri_random_next(&rng);
}

static bool is_complex(enum troupe_datatype type)
{
    return type == TROUPE_FLOAT_COMPLEX || type == TROUPE_DOUBLE_COMPLEX;
}

static bool is_integer(enum troupe_datatype type)
{
    return type >= TROUPE_INT8 && type <= TROUPE_UINT64;
}

static void must_be_same(const void *a, const void *b, size_t bytes)
{
    if (bytes > 0)
        assert_memory_equal(a, b, bytes);
}

/* --- elements as long double, slowly -------------------------------------- */

static long double half_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31;
    long double value;

    if (exponent == 31)
        value = (bits & 0x3ff) != 0 ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexpl(bits & 0x3ff, -24);
    else
        value = ldexpl(0x400 + (bits & 0x3ff), exponent - 25);
    return (bits & 0x8000) != 0 ? -value : value;
}

static long double bf16_value(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;

    memcpy(&value, &wide, sizeof(value));
    return value;
}

static void put(enum troupe_datatype type, void *array, size_t i,
                long double value)
{
    float as_float = (float)value;

    switch (type) {
#define PUT(name, T)                                                          \
    case name:                                                                \
        ((T *)array)[i] = (T)value;                                           \
        break;
        PUT(TROUPE_INT8, int8_t)
        PUT(TROUPE_UINT8, uint8_t)
        PUT(TROUPE_INT16, int16_t)
        PUT(TROUPE_UINT16, uint16_t)
        PUT(TROUPE_INT32, int32_t)
        PUT(TROUPE_UINT32, uint32_t)
        PUT(TROUPE_INT64, int64_t)
        PUT(TROUPE_UINT64, uint64_t)
        PUT(TROUPE_FLOAT, float)
        PUT(TROUPE_DOUBLE, double)
        PUT(TROUPE_LONG_DOUBLE, long double)
#undef PUT
    case TROUPE_BF16:
        tri_bf16_store((uint16_t *)array + i, &as_float, 1);
        break;
    case TROUPE_FP16:
        tri_fp16_store((uint16_t *)array + i, &as_float, 1);
        break;
    default:
        fail();
    }
}

static long double get(enum troupe_datatype type, const void *array, size_t i)
{
    switch (type) {
#define GET(name, T)                                                          \
    case name:                                                                \
        return (long double)((const T *)array)[i];
        GET(TROUPE_INT8, int8_t)
        GET(TROUPE_UINT8, uint8_t)
        GET(TROUPE_INT16, int16_t)
        GET(TROUPE_UINT16, uint16_t)
        GET(TROUPE_INT32, int32_t)
        GET(TROUPE_UINT32, uint32_t)
        GET(TROUPE_INT64, int64_t)
        GET(TROUPE_UINT64, uint64_t)
        GET(TROUPE_FLOAT, float)
        GET(TROUPE_DOUBLE, double)
        GET(TROUPE_LONG_DOUBLE, long double)
#undef GET
    case TROUPE_BF16:
        return bf16_value(((const uint16_t *)array)[i]);
    case TROUPE_FP16:
        return half_value(((const uint16_t *)array)[i]);
    default:
        fail();
        return 0;
    }
}

/* Values whose sums and products of a few are not far from 1. */
static void fill(enum troupe_datatype type, void *array, size_t count)
{
    enum troupe_datatype real = type == TROUPE_FLOAT_COMPLEX   ? TROUPE_FLOAT
                                : type == TROUPE_DOUBLE_COMPLEX ? TROUPE_DOUBLE
                                                                : type;

    memset(array, 0, count * troupe_datatype_bytes(type));
    if (is_complex(type))
        count *= 2;
    for (size_t i = 0; i < count; i++) {
        uint64_t bits = random_bits();
        long double value = ldexpl((long double)(int64_t)bits, -63);

        if (is_integer(type))
            memcpy((char *)array + i * troupe_datatype_bytes(type), &bits,
                   troupe_datatype_bytes(type));
        else
            put(real, array, i, value + (value < 0 ? -0.25L : 0.25L));
    }
}

/* --- against long double -------------------------------------------------- */

static long double combine(enum troupe_op op, long double a, long double b)
{
    switch (op) {
    case TROUPE_PROD:
        return a * b;
    case TROUPE_MIN:
        return b < a ? b : a;
    case TROUPE_MAX:
        return b > a ? b : a;
    default:
        return a + b;
    }
}

/* Integers wrap: in 64 bits, cut off. */
static void expect_integer(enum troupe_datatype type, enum troupe_op op,
                           const void *const *ins, uint32_t n, size_t i,
                           const void *out)
{
    size_t bytes = troupe_datatype_bytes(type);
    bool is_signed = (type - TROUPE_INT8) % 2 == 0;
    unsigned shift = 64 - 8 * (unsigned)bytes;
    uint64_t acc = 0, got = 0;

    for (uint32_t k = 0; k < n; k++) {
        uint64_t x = 0;

        memcpy(&x, (const char *)ins[k] + i * bytes, bytes);
        x <<= shift;
        x = is_signed ? (uint64_t)((int64_t)x >> shift) : x >> shift;
        if (k == 0)
            acc = x;
        else if (op == TROUPE_PROD)
            acc *= x;
        else if (op == TROUPE_SUM || op == TROUPE_AVG)
            acc += x;
        else if (is_signed
                     ? ((int64_t)x < (int64_t)acc) == (op == TROUPE_MIN)
                     : (x < acc) == (op == TROUPE_MIN))
            acc = x;
    }
    acc <<= shift;
    acc = is_signed ? (uint64_t)((int64_t)acc >> shift) : acc >> shift;
    if (op == TROUPE_AVG)
        acc = is_signed ? (uint64_t)((int64_t)acc / (int64_t)n) : acc / n;
    memcpy(&got, (const char *)out + i * bytes, bytes);
    assert_int_equal(got, acc << shift >> shift);
}

static void expect_real(enum troupe_datatype type, enum troupe_op op,
                        const void *const *ins, uint32_t n, size_t i,
                        const void *out)
{
    long double epsilon = type == TROUPE_DOUBLE        ? 0x1p-52L
                          : type == TROUPE_LONG_DOUBLE ? 0x1p-63L
                          : type == TROUPE_BF16        ? 0x1p-8L
                          : type == TROUPE_FP16        ? 0x1p-10L
                                                       : 0x1p-23L;
    long double want = get(type, ins[0], i), got = get(type, out, i);
    long double size = fabsl(want);

    for (uint32_t k = 1; k < n; k++) {
        long double x = get(type, ins[k], i);

        want = combine(op, want, x);
        size = op == TROUPE_PROD ? size * fabsl(x) : size + fabsl(x);
    }
    if (op == TROUPE_AVG)
        want /= n;
    if (op == TROUPE_MIN || op == TROUPE_MAX)
        assert_true(got == want);
    /* 16 bits: rounded once; of denormal halves, 2^-25 is half the step */
    else if (!(fabsl(got - want) <=
               (tri_reduce_is_16bit_float(type)
                    ? epsilon * fabsl(want) + size * n * 0x1p-23L + 0x1p-25L
                    : size * n * epsilon)))
        fail_msg("%s, op %d, %u members: %Lg instead of %Lg",
                 type_names[type], op, n, got, want);
}

static void expect_complex(enum troupe_datatype type, enum troupe_op op,
                           const void *const *ins, uint32_t n, size_t i,
                           const void *out)
{
    bool is_float = type == TROUPE_FLOAT_COMPLEX;
    long double complex want = op == TROUPE_PROD ? 1 : 0, got;
    long double size = op == TROUPE_PROD ? 1 : 0;

    for (uint32_t k = 0; k < n; k++) {
        long double complex x = is_float
                                    ? ((const float complex *)ins[k])[i]
                                    : ((const double complex *)ins[k])[i];

        want = op == TROUPE_PROD ? want * x : want + x;
        size = op == TROUPE_PROD ? size * cabsl(x) : size + cabsl(x);
    }
    if (op == TROUPE_AVG)
        want /= n;
    got = is_float ? ((const float complex *)out)[i]
                   : ((const double complex *)out)[i];
    assert_true(cabsl(got - want) <=
                size * n * 4 * (is_float ? 0x1p-23L : 0x1p-52L));
}

static char *slots[TRI_REDUCE_INPUTS_MAX + 4];

static void every_type_and_op(void **state)
{
    static const uint32_t members[] = { 1, 2, 3, 4, 5, 6, 7, 8, 13, 16 };
    const void *const *ins = (const void *const *)slots;
    unsigned cases = 0;

    (void)state;
    tri_random_init(&rng, unit_seed(__func__));
    for (int type = 0; type <= TROUPE_DATATYPE_LAST + 1; type++)
        for (int op = 0; op <= TROUPE_OP_LAST + 1; op++) {
            void *out = slots[TRI_REDUCE_INPUTS_MAX];

            if (!tri_reduce_allows(type, op))
                continue;
            for (size_t m = 0; m < tri_array_len(members); m++) {
                size_t count = random_bits() % COUNT_MAX + 1;

                for (uint32_t k = 0; k < members[m]; k++)
                    fill(type, slots[k], count);
                tri_reduce_all(type, op, out, ins, members[m], count);
                for (size_t i = 0; i < count; i++)
                    (is_integer(type)   ? expect_integer
                     : is_complex(type) ? expect_complex
                                        : expect_real)(type, op, ins,
                                                       members[m], i, out);
                cases++;
            }
        }
    /* all but BYTE, and complex numbers in order */
    assert_int_equal(cases, (15 * 5 - 4) * tri_array_len(members));
    assert_false(tri_reduce_allows(TROUPE_BYTE, TROUPE_SUM));
    assert_false(tri_reduce_allows(TROUPE_FLOAT_COMPLEX, TROUPE_MAX));
    assert_false(tri_reduce_allows(-1, -1));
}

/* --- the order, to the bit ------------------------------------------------ */

static void slow_tree(enum troupe_datatype type, enum troupe_op op, char *acc,
                      uint32_t first, uint32_t leaves, uint32_t folded,
                      size_t count)
{
    size_t bytes = count * tri_reduce_bytes(type);
    char *right = malloc(bytes + 1);

    assert_non_null(right);
    if (leaves > 1) {
        slow_tree(type, op, acc, first, leaves / 2, folded, count);
        slow_tree(type, op, right, first + leaves / 2, leaves / 2, folded,
                  count);
        tri_reduce_add(type, op, acc, right, count);
    } else if (first < folded) {
        tri_reduce_load(type, acc, slots[2 * first], count);
        tri_reduce_load(type, right, slots[2 * first + 1], count);
        tri_reduce_add(type, op, acc, right, count);
    } else {
        tri_reduce_load(type, acc, slots[first + folded], count);
    }
    free(right);
}

/* NaNs, infinities, zeros of both signs and denormals among them. */
static void strew(enum troupe_datatype type, void *array, size_t count)
{
    static const long double special[] = {
        NAN, -NAN, INFINITY, -INFINITY, 0.0L, -0.0L, 1e-7L, 1e-310L,
        3e38L, 60000.0L,
    };

    fill(type, array, count);
    if (!is_integer(type) && !is_complex(type))
        for (size_t i = 0; i < count; i++)
            if (random_bits() % 4 == 0)
                put(type, array, i,
                    special[random_bits() % tri_array_len(special)]);
}

static void in_the_canonical_order(void **state)
{
    static const uint32_t members[] = { 2,  3,  4,  5,   6,   7,   8,
                                        9,  15, 16, 31,  33,  64,  100,
                                        128, 255, 256 };
    const void *const *ins = (const void *const *)slots;
    char *out = slots[TRI_REDUCE_INPUTS_MAX];
    char *acc = slots[TRI_REDUCE_INPUTS_MAX + 1];
    char *want = slots[TRI_REDUCE_INPUTS_MAX + 2];

    (void)state;
    tri_random_init(&rng, unit_seed(__func__));
    for (int type = 1; type <= TROUPE_DATATYPE_LAST; type++)
        for (size_t m = 0; m < tri_array_len(members); m++) {
            enum troupe_op op = (enum troupe_op)(random_bits() % 5 + 1);
            uint32_t n = members[m], p = 1u << (31 - __builtin_clz(n));
            size_t count = n > 16 ? 77 : random_bits() % COUNT_MAX + 1;
            size_t bytes = count * troupe_datatype_bytes(type);
            uint32_t same;

            if (!tri_reduce_allows(type, op))
                continue;
            for (uint32_t k = 0; k < n; k++)
                strew(type, slots[k], count);
            slow_tree(type, op, acc, 0, p, n - p, count);
            tri_reduce_store(type, op, want, acc, count, n);
            tri_reduce_all(type, op, out, ins, n, count);
            must_be_same(out, want, bytes);
            /* in place of any of them */
            same = (uint32_t)(random_bits() % n);
            tri_reduce_all(type, op, slots[same], ins, n, count);
            must_be_same(slots[same], want, bytes);
        }
}

/* Vectors and their rests, the partner to the left: one and the same. */
static void at_any_length_and_side(void **state)
{
    char *a = slots[0], *b = slots[1], *left = slots[2], *one = slots[3];

    (void)state;
    tri_random_init(&rng, unit_seed(__func__));
    for (int type = 1; type <= TROUPE_DATATYPE_LAST; type++)
        for (int op = 1; op <= TROUPE_OP_LAST; op++)
            for (size_t count = 0; count < 70; count++) {
                size_t bytes = tri_reduce_bytes(type);

                if (!tri_reduce_allows(type, op))
                    continue;
                strew(tri_reduce_is_16bit_float(type) ? TROUPE_FLOAT : type, a,
                      count);
                strew(tri_reduce_is_16bit_float(type) ? TROUPE_FLOAT : type, b,
                      count);
                memcpy(left, b, count * bytes);
                memcpy(one, a, count * bytes);
                for (size_t i = 0; i < count; i++)
                    tri_reduce_add(type, op, one + i * bytes, b + i * bytes,
                                   1);
                tri_reduce_add_left(type, op, left, a, count);
                tri_reduce_add(type, op, a, b, count);
                must_be_same(a, left, count * bytes);
                must_be_same(a, one, count * bytes);
            }
}

/* a op b and b op a end in the same NaN. */
static void a_nan_is_a_nan(void **state)
{
    float x[3] = { 1, INFINITY, -NAN }, y[3] = { NAN, -INFINITY, -NAN };
    float xy[3], yx[3];
    uint32_t bits;

    (void)state;
    for (int op = 1; op <= TROUPE_OP_LAST; op++) {
        memcpy(xy, x, sizeof(x));
        memcpy(yx, y, sizeof(y));
        tri_reduce_add(TROUPE_FLOAT, op, xy, y, 3);
        tri_reduce_add(TROUPE_FLOAT, op, yx, x, 3);
        must_be_same(xy, yx, sizeof(xy));
        memcpy(&bits, xy, sizeof(bits));
        assert_int_equal(bits, 0x7fc00000);
    }
}

/* --- 16 bits -------------------------------------------------------------- */

static void all_16bit_values(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint16_t in = (uint16_t)bits, back;
        float value;

        tri_fp16_load(&value, &in, 1);
        if (isnan(half_value(in))) {
            assert_true(isnan(value));
            tri_fp16_store(&back, &value, 1);
            assert_int_equal(back, in | 0x200);
        } else {
            assert_true((long double)value == half_value(in));
            assert_int_equal(!!signbit(value), in >> 15);
            tri_fp16_store(&back, &value, 1);
            assert_int_equal(back, in);
        }
        tri_bf16_load(&value, &in, 1);
        tri_bf16_store(&back, &value, 1);
        assert_int_equal(back, isnan(value) ? in | 0x40 : in);
    }
}

/* The nearest: no other is nearer, and a tie is even. */
static void expect_nearest(long double (*value_of)(uint16_t), long double x,
                           uint16_t got)
{
    long double error = fabsl(value_of(got) - x);
    int ends[2] = { -1, 1 };

    for (int i = 0; i < 2; i++) {
        uint16_t other = (uint16_t)(got + ends[i]);
        long double value = value_of(other);

        if ((got & 0x7fff) + ends[i] < 0 || isnan(value))
            continue;
        /* as if the exponent went on beyond the largest number */
        if (isinf(value))
            value = 2 * value_of((uint16_t)(got)) -
                    value_of((uint16_t)(got - 1));
        assert_true(fabsl(value - x) > error ||
                    (fabsl(value - x) == error && got % 2 == 0));
    }
}

static void rounded_to_16_bits(void **state)
{
    (void)state;
    tri_random_init(&rng, unit_seed(__func__));
    for (unsigned i = 0; i < 400000; i++) {
        uint32_t bits = (uint32_t)random_bits();
        uint16_t half, bf16;
        float x;

        if (i % 4 != 0) /* where halves are, and at ties of them */
            bits = (bits & 0x80001fff) | (bits & 0x7fe000) |
                   (uint32_t)(100 + random_bits() % 45) << 23;
        if (i % 4 == 2)
            bits = (bits & ~0xfffu) ^ 0x1000;
        if (i % 4 == 3)
            bits = (bits & ~0xffffu) | 0x8000;
        memcpy(&x, &bits, sizeof(x));
        if (isnan(x))
            continue;
        tri_fp16_store(&half, &x, 1);
        tri_bf16_store(&bf16, &x, 1);
        assert_int_equal(half >> 15, bits >> 31);
        assert_int_equal(bf16 >> 15, bits >> 31);
        if (fabsf(x) >= 65520)
            assert_int_equal(half & 0x7fff, 0x7c00);
        else
            expect_nearest(half_value, x, half);
        if (!isinf(bf16_value(bf16)))
            expect_nearest(bf16_value, x, bf16);
        else
            assert_true(fabsf(x) >= 0x1.ffp127f);
    }
}

static int setup(void **state)
{
    for (size_t i = 0; i < tri_array_len(slots); i++)
        if (posix_memalign((void **)&slots[i], 64, SLOT_BYTES) != 0)
            return -1;
        else
            memset(slots[i], 0, SLOT_BYTES);
    return unit_group_setup(state);
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < tri_array_len(slots); i++)
        free(slots[i]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_op),
        cmocka_unit_test(in_the_canonical_order),
        cmocka_unit_test(at_any_length_and_side),
        cmocka_unit_test(a_nan_is_a_nan),
        cmocka_unit_test(all_16bit_values),
        cmocka_unit_test(rounded_to_16_bits),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
