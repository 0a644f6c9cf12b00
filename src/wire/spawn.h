/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SPAWN_H
#define TRI_SPAWN_H

/*
 * The payload of a SPAWN: which actor a node shall create.
 *
 *      0         1     2           3          4        8             12
 *      | version |  0  | class_len | name_len | layout | state_bytes |
 *     12              16                20         24       25         26  28
 *      | initial_bytes | mailbox_len_max | overflow | unique | tags_len | 0 |
 *        class name | actor name | tags | initial
 *
 * All fields little-endian; 0 stands for what is zero and checked. layout: hash
 * of the protocol. unique: 0 or 1. initial_bytes: 0 (all zeros), or state_bytes. Nothing comes
 * behind the initial state. Whether there is such a class, and whether the
 * actor may be called so, is not decided here.
 */

#include <string.h>

#include "base/base.h"

#define TRI_SPAWN_VERSION 1u
#define TRI_SPAWN_HEADER_BYTES 28u
#define TRI_CLASS_NAME_LEN_MAX 127u

/* A view: the names and the state are the payload's, without a 0. */
struct tri_spawn {
    const char *class_name;
    const char *name;
    const char *tags;
    const unsigned char *initial;
    uint32_t class_len; /* 1 to TRI_CLASS_NAME_LEN_MAX */
    uint32_t name_len;  /* 0: anonymous; to 255 */
    uint32_t layout;
    uint32_t state_bytes;
    uint32_t initial_bytes;
    uint32_t mailbox_len_max;
    uint32_t overflow;
    uint32_t tags_len; /* to 255 */
    bool unique;
};

static inline uint32_t tri_spawn_get_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static inline void tri_spawn_put_u32(unsigned char *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(value >> (8 * i));
}

/* A class name can be logged as it is. */
static inline bool tri_class_name_is_valid(const char *name, size_t len)
{
    if (len == 0 || len > TRI_CLASS_NAME_LEN_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] > '~')
            return false;
    return true;
}

static inline size_t tri_spawn_bytes(const struct tri_spawn *spawn)
{
    return (size_t)TRI_SPAWN_HEADER_BYTES + spawn->class_len +
           spawn->name_len + spawn->tags_len + spawn->initial_bytes;
}

/* payload: room for tri_spawn_bytes. */
static inline void tri_spawn_encode(const struct tri_spawn *spawn,
                                    unsigned char *payload)
{
    unsigned char *p = payload + TRI_SPAWN_HEADER_BYTES;

    assert(spawn->class_len <= TRI_CLASS_NAME_LEN_MAX &&
           spawn->name_len <= UINT8_MAX && spawn->tags_len <= UINT8_MAX);
    payload[0] = TRI_SPAWN_VERSION;
    payload[1] = 0;
    payload[2] = (unsigned char)spawn->class_len;
    payload[3] = (unsigned char)spawn->name_len;
    tri_spawn_put_u32(payload + 4, spawn->layout);
    tri_spawn_put_u32(payload + 8, spawn->state_bytes);
    tri_spawn_put_u32(payload + 12, spawn->initial_bytes);
    tri_spawn_put_u32(payload + 16, spawn->mailbox_len_max);
    tri_spawn_put_u32(payload + 20, spawn->overflow);
    tri_spawn_put_u32(payload + 24,
                      (spawn->unique ? 1u : 0u) | spawn->tags_len << 8);
    memcpy(p, spawn->class_name, spawn->class_len);
    p += spawn->class_len;
    if (spawn->name_len > 0)
        memcpy(p, spawn->name, spawn->name_len);
    p += spawn->name_len;
    if (spawn->tags_len > 0)
        memcpy(p, spawn->tags, spawn->tags_len);
    p += spawn->tags_len;
    if (spawn->initial_bytes > 0)
        memcpy(p, spawn->initial, spawn->initial_bytes);
}

/* False: it is no such payload. */
static inline bool tri_spawn_decode(const void *payload, size_t bytes,
                                    struct tri_spawn *spawn_p)
{
    const unsigned char *p = payload;
    struct tri_spawn spawn;

    if (bytes < TRI_SPAWN_HEADER_BYTES || p[0] != TRI_SPAWN_VERSION ||
        p[1] != 0 || p[24] > 1 || p[26] != 0 || p[27] != 0)
        return false;
    spawn = (struct tri_spawn){
        .class_len = p[2],
        .name_len = p[3],
        .layout = tri_spawn_get_u32(p + 4),
        .state_bytes = tri_spawn_get_u32(p + 8),
        .initial_bytes = tri_spawn_get_u32(p + 12),
        .mailbox_len_max = tri_spawn_get_u32(p + 16),
        .overflow = tri_spawn_get_u32(p + 20),
        .unique = p[24] != 0,
        .tags_len = p[25],
    };
    spawn.class_name = (const char *)p + TRI_SPAWN_HEADER_BYTES;
    spawn.name = spawn.class_name + spawn.class_len;
    spawn.tags = spawn.name + spawn.name_len;
    spawn.initial = (const unsigned char *)spawn.tags + spawn.tags_len;
    if (tri_spawn_bytes(&spawn) != bytes ||
        (spawn.initial_bytes != 0 &&
         spawn.initial_bytes != spawn.state_bytes) ||
        !tri_class_name_is_valid(spawn.class_name, spawn.class_len))
        return false;
    *spawn_p = spawn;
    return true;
}

#endif
