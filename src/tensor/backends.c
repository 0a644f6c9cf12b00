/* SPDX-License-Identifier: BSD-3-Clause */

/* The back ends there are. */

#include "tensor/tensor.h"

const struct tri_backend_ops *const tri_backends[TRI_BACKENDS] = {
    [TRI_BACKEND_FRONT] = NULL, /* the front carries nothing itself */
    [TRI_BACKEND_NATIVE] = &tri_backend_native,
    [TRI_BACKEND_MPI] = &tri_backend_mpi,
};
