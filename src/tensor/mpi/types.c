/* SPDX-License-Identifier: BSD-3-Clause */

/* The names that MPI has for types and operations. */
#include "tensor/mpi/backend.h"

#include "mpi/job_mpi.h"
#include "tensor/reduce.h"

static MPI_Datatype type_of(enum troupe_datatype type)
{
    switch (type) {
    case TROUPE_INT8: return MPI_INT8_T;
    case TROUPE_UINT8: return MPI_UINT8_T;
    case TROUPE_INT16: return MPI_INT16_T;
    case TROUPE_UINT16: return MPI_UINT16_T;
    case TROUPE_INT32: return MPI_INT32_T;
    case TROUPE_UINT32: return MPI_UINT32_T;
    case TROUPE_INT64: return MPI_INT64_T;
    case TROUPE_UINT64: return MPI_UINT64_T;
    case TROUPE_FLOAT: return MPI_FLOAT;
    case TROUPE_DOUBLE: return MPI_DOUBLE;
    case TROUPE_LONG_DOUBLE: return MPI_LONG_DOUBLE;
    case TROUPE_FLOAT_COMPLEX: return MPI_C_FLOAT_COMPLEX;
    case TROUPE_DOUBLE_COMPLEX: return MPI_C_DOUBLE_COMPLEX;
    /* Moved as they are; to be added they become floats. */
    case TROUPE_BF16: return MPI_UINT16_T;
    case TROUPE_FP16: return MPI_UINT16_T;
    case TROUPE_BYTE: return MPI_BYTE;
    default: return MPI_DATATYPE_NULL;
    }
}

/* --- least and greatest --------------------------------------------------- */

/* MPI's MIN and MAX leave open what becomes of NaN; here it wins, as in the
 * native back end. */
static void least_or_greatest(enum troupe_op op, void *in, void *inout,
                              int len, MPI_Datatype mpi_type)
{
    enum troupe_datatype type = mpi_type == MPI_FLOAT    ? TROUPE_FLOAT
                                : mpi_type == MPI_DOUBLE ? TROUPE_DOUBLE
                                                         : TROUPE_LONG_DOUBLE;

    tri_reduce_add_left(type, op, inout, in, (size_t)len);
}

static void least(void *in, void *inout, int *len, MPI_Datatype *type)
{
    least_or_greatest(TROUPE_MIN, in, inout, *len, *type);
}

static void greatest(void *in, void *inout, int *len, MPI_Datatype *type)
{
    least_or_greatest(TROUPE_MAX, in, inout, *len, *type);
}

/* Made at first use and kept, for the starting thread alone. */
static int own_op(enum troupe_op op, MPI_Op *op_p)
{
    static MPI_Op ops[2];
    static bool made;
    int rc;

    if (!made) {
        rc = MPI_Op_create(least, 1, &ops[0]);
        if (rc == MPI_SUCCESS)
            rc = MPI_Op_create(greatest, 1, &ops[1]);
        if (rc != MPI_SUCCESS)
            return tri_mpi_failed("MPI_Op_create", rc);
        made = true;
    }
    *op_p = ops[op == TROUPE_MAX];
    return 0;
}

static int op_of(enum troupe_op op, MPI_Datatype type, MPI_Op *op_p)
{
    bool is_real = type == MPI_FLOAT || type == MPI_DOUBLE ||
                   type == MPI_LONG_DOUBLE;

    switch (op) {
    case TROUPE_PROD:
        *op_p = MPI_PROD;
        return 0;
    case TROUPE_MIN:
    case TROUPE_MAX:
        if (is_real)
            return own_op(op, op_p);
        *op_p = op == TROUPE_MIN ? MPI_MIN : MPI_MAX;
        return 0;
    default: /* SUM, and AVG before it is divided */
        *op_p = MPI_SUM;
        return 0;
    }
}

/* --- shape ---------------------------------------------------------------- */

static bool adds(uint8_t kind)
{
    return kind == TRI_COLL_ALLREDUCE || kind == TRI_COLL_REDUCE ||
           kind == TRI_COLL_REDUCE_SCATTER;
}

int tri_mpi_shape_of(const struct tri_coll *coll, struct tri_mpi_shape *shape_p)
{
    enum troupe_datatype type = (enum troupe_datatype)coll->type;
    struct tri_mpi_shape shape = {
        .type = type_of(type),
        .op = MPI_OP_NULL,
        .bytes = troupe_datatype_bytes(type),
        .user_bytes = troupe_datatype_bytes(type),
        .adds = adds(coll->kind),
    };
    int rc = 0;

    if (shape.adds) {
        shape.converts = tri_reduce_bytes(type) != shape.user_bytes;
        shape.divides = coll->op == TROUPE_AVG;
        if (shape.converts)
            shape.type = MPI_FLOAT;
        shape.bytes = tri_reduce_bytes(type);
        rc = op_of((enum troupe_op)coll->op, shape.type, &shape.op);
    }
    *shape_p = shape;
    return rc;
}
