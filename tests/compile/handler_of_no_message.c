/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: subtract */
#include "counter.h"

/* A handler for a message that the protocol does not have. */
struct counter {
    int64_t value;
};

TROUPE_ACTOR(counter, struct counter, .subtract = NULL)
