/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef EXAMPLES_MUST_H
#define EXAMPLES_MUST_H

/*
 * What the examples do when a call fails that has no reason to: say which and
 * why, and leave. mpirun then ends the other ranks. A program that has
 * something better to do looks at the code itself.
 */

#include <stdio.h>
#include <stdlib.h>

#include <troupe/error.h>

static inline void must(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s (%s)\n", what, troupe_strerror(rc),
            troupe_error_name(rc));
    exit(EXIT_FAILURE);
}

#endif
