/* SPDX-License-Identifier: BSD-3-Clause */

/* Reproducible sums, see exact.h. */

#include "tensor/exact.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/reduce_internal.h"

/* A sum of 2048 multiples of up to 2^51 fits into 63 bits. A second limb has
 * 50 more, from 0 to 2^50 - 1. */
#define HIGH_BITS 51
#define LOW_BITS 50

/* Instead of an exponent. */
#define EXPONENT_OF_ZERO INT16_MIN
#define EXPONENT_OF_SPECIAL INT16_MAX
/* Infinities and NaNs are counted, in one limb. */
#define ONE_PLUS_INF ((int64_t)1)
#define ONE_MINUS_INF ((int64_t)1 << 16)
#define ONE_NAN ((int64_t)1 << 32)

_Static_assert(TRI_EXACT_MEMBERS_MAX <= 1 << (62 - HIGH_BITS), "no overflow");

struct tri_exact {
    struct tri_coll call; /* the program's */
    enum troupe_datatype real;
    uint32_t members;
    uint32_t index;
    uint32_t limbs;
    size_t reals_in;  /* real numbers in `in`, and in `out` */
    size_t reals_out;
    int part;
    int16_t *exponents; /* reals_in */
    int64_t *sums;      /* reals_in * limbs */
    int64_t *block;     /* of a scattered sum: reals_out * limbs; or NULL */
};

/* --- numbers -------------------------------------------------------------- */

static double load(enum troupe_datatype type, const void *array, size_t i)
{
    float value;

    if (type == TROUPE_DOUBLE)
        return ((const double *)array)[i];
    if (type == TROUPE_FLOAT)
        return (double)((const float *)array)[i];
    tri_reduce_load(type, &value, (const uint16_t *)array + i, 1);
    return (double)value;
}

static void store(enum troupe_datatype type, void *array, size_t i,
                  double value)
{
    float small = (float)value;

    if (type == TROUPE_DOUBLE)
        ((double *)array)[i] = value;
    else if (type == TROUPE_FLOAT)
        ((float *)array)[i] = small;
    else
        tri_reduce_store(type, TROUPE_SUM, (uint16_t *)array + i, &small, 1, 1);
}

/* |value| < 2^exponent. */
static int16_t exponent_of(double value)
{
    int exponent;

    if (!isfinite(value))
        return EXPONENT_OF_SPECIAL;
    if (value == 0)
        return EXPONENT_OF_ZERO;
    (void)frexp(value, &exponent);
    return (int16_t)exponent;
}

/* value / 2^unit, to the nearest, ties away from zero; 2^unit >= |value| /
 * 2^101. */
static __int128 multiple_of(double value, int unit)
{
    int exponent, shift;
    /* 53 bits, exactly */
    int64_t digits = (int64_t)ldexp(frexp(value, &exponent), 53);
    bool is_negative = digits < 0;
    __int128 size = is_negative ? -digits : digits;

    shift = exponent - 53 - unit;
    if (size == 0)
        return 0; /* of no exponent */
    if (shift >= 0)
        size <<= shift;
    else if (shift > -64)
        size = (size + ((__int128)1 << (-shift - 1))) >> -shift;
    else
        size = 0;
    return is_negative ? -size : size;
}

static int unit_of(const struct tri_exact *exact, int16_t exponent)
{
    return exponent - HIGH_BITS - (exact->limbs == 2 ? LOW_BITS : 0);
}

static void to_limbs(const struct tri_exact *exact, double value,
                     int16_t exponent, int64_t *limbs)
{
    __int128 multiple = 0;

    memset(limbs, 0, exact->limbs * sizeof(*limbs));
    if (exponent == EXPONENT_OF_SPECIAL) {
        if (isnan(value))
            limbs[0] = ONE_NAN;
        else if (isinf(value))
            limbs[0] = value > 0 ? ONE_PLUS_INF : ONE_MINUS_INF;
        return;
    }
    if (exponent != EXPONENT_OF_ZERO)
        multiple = multiple_of(value, unit_of(exact, exponent));
    if (exact->limbs == 1) {
        limbs[0] = (int64_t)multiple;
        return;
    }
    limbs[0] = (int64_t)(multiple >> LOW_BITS);
    limbs[1] = (int64_t)(multiple & (((__int128)1 << LOW_BITS) - 1));
}

static double special_of(int64_t counts)
{
    bool plus = (counts & 0xffff) != 0, minus = (counts >> 16 & 0xffff) != 0;

    if (counts >= ONE_NAN || (plus && minus))
        return (double)NAN;
    return plus ? (double)INFINITY : -(double)INFINITY;
}

static double of_limbs(const struct tri_exact *exact, int16_t exponent,
                       const int64_t *limbs)
{
    __int128 multiple = limbs[0];

    if (exponent == EXPONENT_OF_SPECIAL)
        return special_of(limbs[0]);
    if (exponent == EXPONENT_OF_ZERO)
        return 0;
    if (exact->limbs == 2)
        multiple = multiple * ((__int128)1 << LOW_BITS) + limbs[1];
    /* the conversion rounds to 53 bits, once */
    return ldexp((double)multiple, unit_of(exact, exponent));
}

/* --- parts ---------------------------------------------------------------- */

static bool is_exact(const struct tri_coll *coll, struct tri_exact *exact)
{
    exact->limbs = 1;
    exact->reals_out = coll->count;
    exact->real = (enum troupe_datatype)coll->type;
    switch (exact->real) {
    case TROUPE_DOUBLE_COMPLEX:
        exact->reals_out *= 2;
        exact->real = TROUPE_DOUBLE;
        exact->limbs = 2;
        break;
    case TROUPE_DOUBLE:
        exact->limbs = 2;
        break;
    case TROUPE_FLOAT_COMPLEX:
        exact->reals_out *= 2;
        exact->real = TROUPE_FLOAT;
        break;
    case TROUPE_FLOAT:
    case TROUPE_BF16:
    case TROUPE_FP16:
        break;
    default:
        return false;
    }
    return (coll->op == TROUPE_SUM || coll->op == TROUPE_AVG) &&
           (coll->kind == TRI_COLL_ALLREDUCE || coll->kind == TRI_COLL_REDUCE ||
            coll->kind == TRI_COLL_REDUCE_SCATTER);
}

static void set_part(struct tri_coll *coll, enum tri_coll_kind kind,
                     enum troupe_datatype type, enum troupe_op op, void *data,
                     size_t count)
{
    coll->kind = (uint8_t)kind;
    coll->type = (uint8_t)type;
    coll->op = (uint8_t)op;
    coll->in = data;
    coll->out = data;
    coll->count = count;
}

int tri_exact_begin(struct tri_exact **exact_p, struct tri_coll *coll,
                    uint32_t members, uint32_t index)
{
    struct tri_exact wanted = { .call = *coll, .members = members,
                                .index = index }, *exact;

    *exact_p = NULL;
    if (!is_exact(coll, &wanted))
        return 0;
    if (members > TRI_EXACT_MEMBERS_MAX)
        return TROUPE_ELIMIT;
    wanted.reals_in = wanted.reals_out *
                      (coll->kind == TRI_COLL_REDUCE_SCATTER ? members : 1);
    exact = malloc(sizeof(*exact));
    if (exact == NULL)
        return TROUPE_ENOMEM;
    *exact = wanted;
    exact->exponents = malloc(tri_max(exact->reals_in, 1) *
                              sizeof(*exact->exponents));
    exact->sums = calloc(tri_max(exact->reals_in, 1),
                         exact->limbs * sizeof(*exact->sums));
    if (coll->kind == TRI_COLL_REDUCE_SCATTER)
        exact->block = calloc(tri_max(exact->reals_out, 1),
                              exact->limbs * sizeof(*exact->block));
    if (exact->exponents == NULL || exact->sums == NULL ||
        (coll->kind == TRI_COLL_REDUCE_SCATTER && exact->block == NULL)) {
        tri_exact_free(&exact);
        return TROUPE_ENOMEM;
    }
    for (size_t i = 0; i < exact->reals_in; i++)
        exact->exponents[i] = exponent_of(load(exact->real, coll->in, i));
    set_part(coll, TRI_COLL_ALLREDUCE, TROUPE_INT16, TROUPE_MAX,
             exact->exponents, exact->reals_in);
    *exact_p = exact;
    return 0;
}

static void begin_sums(struct tri_exact *exact, struct tri_coll *coll)
{
    for (size_t i = 0; i < exact->reals_in; i++)
        to_limbs(exact, load(exact->real, exact->call.in, i),
                 exact->exponents[i], &exact->sums[i * exact->limbs]);
    set_part(coll, (enum tri_coll_kind)exact->call.kind, TROUPE_INT64,
             TROUPE_SUM, exact->sums, exact->reals_out * exact->limbs);
    if (exact->block != NULL)
        coll->out = exact->block;
    if (exact->call.kind == TRI_COLL_REDUCE &&
        exact->index != exact->call.root)
        coll->out = NULL;
}

static void write_result(struct tri_exact *exact)
{
    const int16_t *exponents = exact->exponents;
    const int64_t *sums = exact->sums;

    if (exact->call.kind == TRI_COLL_REDUCE &&
        exact->index != exact->call.root)
        return;
    if (exact->block != NULL) {
        exponents += exact->index * exact->reals_out;
        sums = exact->block;
    }
    for (size_t i = 0; i < exact->reals_out; i++) {
        double sum = of_limbs(exact, exponents[i],
                              &sums[i * exact->limbs]);

        if (exact->call.op == TROUPE_AVG)
            sum /= exact->members;
        store(exact->real, exact->call.out, i, sum);
    }
}

int tri_exact_next(struct tri_exact *exact, struct tri_coll *coll)
{
    if (++exact->part == 1) {
        begin_sums(exact, coll);
        return TRI_COLL_PENDING;
    }
    write_result(exact);
    coll->kind = exact->call.kind;
    coll->type = exact->call.type;
    coll->op = exact->call.op;
    coll->count = exact->call.count;
    return 0;
}

void tri_exact_free(struct tri_exact **exact_p)
{
    struct tri_exact *exact = *exact_p;

    if (exact == NULL)
        return;
    free(exact->exponents);
    free(exact->sums);
    free(exact->block);
    free(exact);
    *exact_p = NULL;
}
