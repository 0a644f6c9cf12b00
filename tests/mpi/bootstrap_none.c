/* SPDX-License-Identifier: BSD-3-Clause */
#define USER_LEVEL -1
#include "bootstrap.h"
