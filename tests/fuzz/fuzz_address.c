/* SPDX-License-Identifier: BSD-3-Clause */

/* Addresses of actors, as a program may pass them on from anywhere. */

#include "fuzz.h"

#include "node/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *address = malloc(bytes + 1); /* so that a read behind it is seen */
    const char *name;
    size_t name_len;
    int rank;

    if (!address)
        return 0;
    memcpy(address, data, bytes);
    address[bytes] = '\0';
    if (tri_address_parse(address, &rank, &name, &name_len) == 0)
        FUZZ_CHECK(rank >= -1 && name > address && name_len > 0 &&
                   name + name_len == address + strlen(address));
    free(address);
    return 0;
}
