/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

/* What the fuzz targets share. Each is one function, which libFuzzer calls
 * with bytes of its invention. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* Also without assertions. */
#define FUZZ_CHECK(condition) ((condition) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Reads every byte, so that the address sanitizer sees each. */
static inline void fuzz_touch(const void *data, size_t bytes)
{
    const volatile unsigned char *at = data;

    for (size_t i = 0; i < bytes; i++)
        (void)at[i];
}

#endif
