/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The loops: one for each type and operation.
 *
 * What could differ between members that do the same sum with the operands
 * swapped, between scalar and vector code, or between processors, is made
 * equal: a NaN that comes out of an operation is always the same one, MIN and
 * MAX of equal numbers (zeros of both signs) are the left one, integers wrap,
 * and the unused bytes of an x87 long double are zero.
 */

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("O3", "fp-contract=off")
#endif

#include <float.h>
#include <math.h>
#include <string.h>

#include "tensor/reduce_internal.h"

_Static_assert(sizeof(long double) == 16, "the bytes of TROUPE_LONG_DOUBLE");

#define KERNEL(name, T, expression)                                           \
    TRI_CLONES static void name(void *dst, const void *left,                  \
                                const void *right, size_t count)              \
    {                                                                         \
        T *d = dst;                                                           \
        const T *l = left;                                                    \
        const T *r = right;                                                   \
                                                                              \
        TRI_LOOP                                                              \
        for (size_t i = 0; i < count; i++) {                                  \
            T a = l[i];                                                       \
            T b = r[i];                                                       \
                                                                              \
            d[i] = (T)(expression);                                           \
        }                                                                     \
    }

/* U: unsigned, and not promoted to int. */
#define INTEGER(name, T, U)                                                   \
    KERNEL(name##_sum, T, (U)a + (U)b)                                        \
    KERNEL(name##_prod, T, (U)a * (U)b)                                       \
    KERNEL(name##_min, T, b < a ? b : a)                                      \
    KERNEL(name##_max, T, b > a ? b : a)

INTEGER(int8, int8_t, uint32_t)
INTEGER(uint8, uint8_t, uint32_t)
INTEGER(int16, int16_t, uint32_t)
INTEGER(uint16, uint16_t, uint32_t)
INTEGER(int32, int32_t, uint32_t)
INTEGER(uint32, uint32_t, uint32_t)
INTEGER(int64, int64_t, uint64_t)
INTEGER(uint64, uint64_t, uint64_t)

#define ONE_NAN(x, nan) ((x) == (x) ? (x) : (nan))
/* MIN and MAX: a NaN wins. */
#define REAL(name, T, nan)                                                    \
    KERNEL(name##_sum, T, ONE_NAN(a + b, nan))                                \
    KERNEL(name##_prod, T, ONE_NAN(a *b, nan))                                \
    KERNEL(name##_min, T, a != a || b != b ? (nan) : b < a ? b : a)           \
    KERNEL(name##_max, T, a != a || b != b ? (nan) : b > a ? b : a)

REAL(float, float, (float)NAN)
REAL(double, double, (double)NAN)

/* --- long double: 10 bytes of 16 ------------------------------------------ */

static inline void put(long double *to, long double value)
{
    *to = value;
#if LDBL_MANT_DIG == 64
    memset((char *)to + 10, 0, sizeof(*to) - 10);
#endif
}

#define LONG_KERNEL(name, expression)                                         \
    static void name(void *dst, const void *left, const void *right,          \
                     size_t count)                                            \
    {                                                                         \
        long double *d = dst;                                                 \
        const long double *l = left;                                          \
        const long double *r = right;                                         \
                                                                              \
        for (size_t i = 0; i < count; i++) {                                  \
            long double a = l[i];                                             \
            long double b = r[i];                                             \
            long double x = (expression);                                     \
                                                                              \
            put(&d[i], ONE_NAN(x, (long double)NAN));                         \
        }                                                                     \
    }

LONG_KERNEL(long_double_sum, a + b)
LONG_KERNEL(long_double_prod, a * b)
LONG_KERNEL(long_double_min,
            a != a || b != b ? (long double)NAN : b < a ? b : a)
LONG_KERNEL(long_double_max,
            a != a || b != b ? (long double)NAN : b > a ? b : a)

/* --- complex -------------------------------------------------------------- */

/* Sums are those of twice as many reals. Products are by the school's formula,
 * as MPI libraries' are: no rescue of infinities. */
#define COMPLEX(name, T, real_sum, nan)                                       \
    static void name##_sum(void *dst, const void *left, const void *right,    \
                           size_t count)                                      \
    {                                                                         \
        real_sum(dst, left, right, 2 * count);                                \
    }                                                                         \
    TRI_CLONES static void name##_prod(void *dst, const void *left,           \
                                       const void *right, size_t count)       \
    {                                                                         \
        T *d = dst;                                                           \
        const T *l = left;                                                    \
        const T *r = right;                                                   \
                                                                              \
        TRI_LOOP                                                              \
        for (size_t i = 0; i < count; i++) {                                  \
            T re = l[2 * i] * r[2 * i] - l[2 * i + 1] * r[2 * i + 1];         \
            T im = l[2 * i] * r[2 * i + 1] + l[2 * i + 1] * r[2 * i];         \
                                                                              \
            d[2 * i] = ONE_NAN(re, nan);                                      \
            d[2 * i + 1] = ONE_NAN(im, nan);                                  \
        }                                                                     \
    }

COMPLEX(float_complex, float, float_sum, (float)NAN)
COMPLEX(double_complex, double, double_sum, (double)NAN)

/* --- the table ------------------------------------------------------------ */

#define ROW(name)                                                             \
    {                                                                         \
        [TROUPE_SUM] = name##_sum, [TROUPE_PROD] = name##_prod,               \
        [TROUPE_MIN] = name##_min, [TROUPE_MAX] = name##_max,                 \
        [TROUPE_AVG] = name##_sum,                                            \
    }
#define ROW_COMPLEX(name)                                                     \
    {                                                                         \
        [TROUPE_SUM] = name##_sum, [TROUPE_PROD] = name##_prod,               \
        [TROUPE_AVG] = name##_sum,                                            \
    }

static const tri_reduce_fn_t
    kernels[TROUPE_DATATYPE_LAST + 1][TROUPE_OP_LAST + 1] = {
        [TROUPE_INT8] = ROW(int8),
        [TROUPE_UINT8] = ROW(uint8),
        [TROUPE_INT16] = ROW(int16),
        [TROUPE_UINT16] = ROW(uint16),
        [TROUPE_INT32] = ROW(int32),
        [TROUPE_UINT32] = ROW(uint32),
        [TROUPE_INT64] = ROW(int64),
        [TROUPE_UINT64] = ROW(uint64),
        [TROUPE_FLOAT] = ROW(float),
        [TROUPE_DOUBLE] = ROW(double),
        [TROUPE_LONG_DOUBLE] = ROW(long_double),
        [TROUPE_FLOAT_COMPLEX] = ROW_COMPLEX(float_complex),
        [TROUPE_DOUBLE_COMPLEX] = ROW_COMPLEX(double_complex),
        [TROUPE_BF16] = ROW(float),
        [TROUPE_FP16] = ROW(float),
};

tri_reduce_fn_t tri_reduce_kernel(enum troupe_datatype type, enum troupe_op op)
{
    if ((unsigned)type > TROUPE_DATATYPE_LAST || (unsigned)op > TROUPE_OP_LAST)
        return NULL;
    return kernels[type][op];
}

/* --- the division of AVG -------------------------------------------------- */

#define DIVIDE(name, T, D)                                                    \
    TRI_CLONES static void name(T *out, const T *in, size_t count, D by)      \
    {                                                                         \
        TRI_LOOP                                                              \
        for (size_t i = 0; i < count; i++)                                    \
            out[i] = (T)((D)in[i] / by);                                      \
    }

/* Small integers in 64 bits: there may be more members than an int8 holds. */
DIVIDE(int8_divide, int8_t, int64_t)
DIVIDE(uint8_divide, uint8_t, uint64_t)
DIVIDE(int16_divide, int16_t, int64_t)
DIVIDE(uint16_divide, uint16_t, uint64_t)
DIVIDE(int32_divide, int32_t, int64_t)
DIVIDE(uint32_divide, uint32_t, uint64_t)
DIVIDE(int64_divide, int64_t, int64_t)
DIVIDE(uint64_divide, uint64_t, uint64_t)
DIVIDE(float_divide, float, float)
DIVIDE(double_divide, double, double)

static void long_double_divide(long double *out, const long double *in,
                               size_t count, uint32_t by)
{
    for (size_t i = 0; i < count; i++)
        put(&out[i], in[i] / by);
}

void tri_reduce_divide(enum troupe_datatype type, void *out, const void *in,
                       size_t count, uint32_t members)
{
    switch (type) {
    case TROUPE_INT8:
        int8_divide(out, in, count, members);
        break;
    case TROUPE_UINT8:
        uint8_divide(out, in, count, members);
        break;
    case TROUPE_INT16:
        int16_divide(out, in, count, members);
        break;
    case TROUPE_UINT16:
        uint16_divide(out, in, count, members);
        break;
    case TROUPE_INT32:
        int32_divide(out, in, count, members);
        break;
    case TROUPE_UINT32:
        uint32_divide(out, in, count, members);
        break;
    case TROUPE_INT64:
        int64_divide(out, in, count, members);
        break;
    case TROUPE_UINT64:
        uint64_divide(out, in, count, members);
        break;
    case TROUPE_FLOAT:
        float_divide(out, in, count, (float)members);
        break;
    case TROUPE_DOUBLE:
        double_divide(out, in, count, members);
        break;
    case TROUPE_LONG_DOUBLE:
        long_double_divide(out, in, count, members);
        break;
    case TROUPE_FLOAT_COMPLEX:
        float_divide(out, in, 2 * count, (float)members);
        break;
    case TROUPE_DOUBLE_COMPLEX:
        double_divide(out, in, 2 * count, members);
        break;
    default:
        assert(!"a type that is divided");
        break;
    }
}
