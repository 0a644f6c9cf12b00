/* SPDX-License-Identifier: BSD-3-Clause */

/* Payloads of SPAWN records: what is accepted lies within the payload, can be
 * logged, and is encoded to the same bytes again. The first byte says whether
 * the sizes are made right, so that what is behind them is reached. */

#include "fuzz.h"

#include "wire/spawn.h"

static void make_good(unsigned char *data, size_t bytes)
{
    size_t names, state;

    data[0] = TRI_SPAWN_VERSION;
    data[1] = 0;
    data[24] &= 1;
    data[26] = data[27] = 0;
    names = (size_t)data[2] + data[3] + data[25];
    state = bytes - TRI_SPAWN_HEADER_BYTES;
    state = state > names ? state - names : 0;
    tri_spawn_put_u32(data + 8, (uint32_t)state);
    tri_spawn_put_u32(data + 12, data[16] % 2 != 0 ? (uint32_t)state : 0);
}

static void receive(const unsigned char *data, size_t bytes)
{
    unsigned char *again;
    struct tri_spawn spawn;

    if (!tri_spawn_decode(data, bytes, &spawn))
        return;
    FUZZ_CHECK(spawn.class_len > 0 &&
               spawn.class_len <= TRI_CLASS_NAME_LEN_MAX);
    FUZZ_CHECK(spawn.initial_bytes == 0 ||
               spawn.initial_bytes == spawn.state_bytes);
    fuzz_touch(spawn.class_name, spawn.class_len);
    fuzz_touch(spawn.name, spawn.name_len);
    fuzz_touch(spawn.initial, spawn.initial_bytes);
    FUZZ_CHECK(tri_spawn_bytes(&spawn) == bytes);
    again = malloc(bytes);
    if (again == NULL)
        return;
    tri_spawn_encode(&spawn, again);
    FUZZ_CHECK(memcmp(again, data, bytes) == 0);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
    size_t bytes = input_bytes > 1 ? input_bytes - 1 : 0;
    unsigned char *data = malloc(bytes > 0 ? bytes : 1);

    if (data == NULL)
        return 0;
    if (bytes > 0)
        memcpy(data, input + 1, bytes);
    if (bytes >= TRI_SPAWN_HEADER_BYTES && input[0] % 2 != 0)
        make_good(data, bytes);
    receive(data, bytes);
    free(data);
    return 0;
}
