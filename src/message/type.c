/* SPDX-License-Identifier: BSD-3-Clause */
#include "message/type.h"

#include <string.h>

/* With the terminating 0, so that "ab" "c" and "a" "bc" differ. */
static uint32_t hash_text(uint32_t hash, const char *text)
{
    return tri_fnv32(hash, text, strlen(text) + 1);
}

/*
 * Threads may do this at once: they store the same values, flags before the
 * hash that announces them.
 */
uint32_t tri_type_init(troupe_type_t *type)
{
    uint32_t hash = hash_text(TRI_FNV32_OFFSET, type->name);
    uint16_t flags = 0;

    hash = hash_text(hash, type->fields);
    hash = tri_fnv32(hash, &type->bytes, sizeof(type->bytes));
    hash = tri_fnv32(hash, &type->index, sizeof(type->index));
    if (strstr(type->fields, "[]") != NULL)
        flags |= TROUPE_TYPE_TAIL;
    if (type->result_fields != NULL) {
        hash = hash_text(hash, type->result_fields);
        hash = tri_fnv32(hash, &type->result_bytes,
                         sizeof(type->result_bytes));
        if (strstr(type->result_fields, "[]") != NULL)
            flags |= TROUPE_TYPE_RESULT_TAIL;
    }
    __atomic_store_n(&type->flags, flags, __ATOMIC_RELAXED);
    hash = hash != 0 ? hash : 1;
    __atomic_store_n(&type->hash, hash, __ATOMIC_RELEASE);
    return hash;
}

uint32_t tri_protocol_init(troupe_protocol_t *protocol)
{
    uint32_t hash = hash_text(TRI_FNV32_OFFSET, protocol->name);

    for (uint32_t i = 0; i < protocol->types_len; i++) {
        uint32_t type = tri_type_hash(&protocol->types[i]);

        hash = tri_fnv32(hash, &type, sizeof(type));
    }
    hash = hash != 0 ? hash : 1;
    __atomic_store_n(&protocol->hash, hash, __ATOMIC_RELEASE);
    return hash;
}
