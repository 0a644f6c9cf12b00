/* SPDX-License-Identifier: BSD-3-Clause */
#define USER_LEVEL MPI_THREAD_SINGLE
#include "bootstrap.h"
