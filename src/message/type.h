/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_TYPE_H
#define TRI_TYPE_H

/*
 * Identity of message types: a hash over name, fields and sizes, computed
 * once a process from the text that TROUPE_PROTOCOL left. Two binaries that
 * declare a message differently get different hashes.
 */

#include <troupe/message.h>

#include "base/base.h"

/* Fills in hash and flags; returns the hash. Idempotent; any thread. */
uint32_t tri_type_init(troupe_type_t *type);
uint32_t tri_protocol_init(troupe_protocol_t *protocol);

static inline uint32_t tri_type_hash(troupe_type_t *type)
{
    /* acquire: pairs with the release in tri_type_init, for flags */
    uint32_t hash = __atomic_load_n(&type->hash, __ATOMIC_ACQUIRE);

    return tri_likely(hash != 0) ? hash : tri_type_init(type);
}

static inline uint32_t tri_protocol_hash(troupe_protocol_t *protocol)
{
    uint32_t hash = __atomic_load_n(&protocol->hash, __ATOMIC_ACQUIRE);

    return tri_likely(hash != 0) ? hash : tri_protocol_init(protocol);
}

/* True when a payload of `bytes` can be this message (or its result). */
static inline bool tri_type_fits(const troupe_type_t *type, size_t bytes)
{
    return bytes == type->bytes ||
           (bytes > type->bytes && (type->flags & TROUPE_TYPE_TAIL));
}

static inline bool tri_type_result_fits(const troupe_type_t *type, size_t bytes)
{
    return bytes == type->result_bytes ||
           (bytes > type->result_bytes &&
            (type->flags & TROUPE_TYPE_RESULT_TAIL));
}

#endif
