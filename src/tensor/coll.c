/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What a call is, packed, and in words; what a record of one begins with.
 * Nothing here trusts what it reads.
 */

#include <stdio.h>
#include <string.h>

#include "tensor/tensor.h"

bool tri_coll_head_read(const void *payload, size_t bytes,
                        struct tri_coll_head *head_p)
{
    struct tri_coll_head head;

    if (bytes < sizeof(head))
        return false;
    memcpy(&head, payload, sizeof(head));
    if (head.group == 0 || head.epoch == 0 || head.backend >= TRI_BACKENDS)
        return false;
    *head_p = head;
    return true;
}

bool tri_coll_mismatch_read(const void *payload, size_t bytes,
                            uint32_t members_len,
                            struct tri_coll_mismatch *mismatch_p)
{
    struct tri_coll_mismatch mismatch;

    if (bytes != sizeof(mismatch))
        return false;
    memcpy(&mismatch, payload, sizeof(mismatch));
    if (mismatch.members[0] >= members_len ||
        mismatch.members[1] >= members_len)
        return false;
    *mismatch_p = mismatch;
    return true;
}

bool tri_coll_is_failure(int error)
{
    switch (error) {
    case TROUPE_ENOMEM:
    case TROUPE_ETRANSPORT:
    case TROUPE_EMPI:
    case TROUPE_ELIMIT:
    case TROUPE_EPROTO:
    case TROUPE_ESYSTEM:
        return true;
    default:
        return false;
    }
}

bool tri_coll_failure_read(const void *payload, size_t bytes, int *error_p)
{
    int32_t error;

    if (bytes != sizeof(error))
        return false;
    memcpy(&error, payload, sizeof(error));
    if (!tri_coll_is_failure(error))
        return false;
    *error_p = error;
    return true;
}

static const char *const kinds[] = {
    [TRI_COLL_BARRIER] = "barrier",
    [TRI_COLL_BCAST] = "bcast",
    [TRI_COLL_ALLREDUCE] = "allreduce",
    [TRI_COLL_REDUCE] = "reduce",
    [TRI_COLL_REDUCE_SCATTER] = "reduce_scatter",
    [TRI_COLL_ALLGATHER] = "allgather",
};

static const char *const types[] = {
    [TROUPE_INT8] = "int8",
    [TROUPE_UINT8] = "uint8",
    [TROUPE_INT16] = "int16",
    [TROUPE_UINT16] = "uint16",
    [TROUPE_INT32] = "int32",
    [TROUPE_UINT32] = "uint32",
    [TROUPE_INT64] = "int64",
    [TROUPE_UINT64] = "uint64",
    [TROUPE_FLOAT] = "float",
    [TROUPE_DOUBLE] = "double",
    [TROUPE_LONG_DOUBLE] = "long double",
    [TROUPE_FLOAT_COMPLEX] = "float complex",
    [TROUPE_DOUBLE_COMPLEX] = "double complex",
    [TROUPE_BF16] = "bf16",
    [TROUPE_FP16] = "fp16",
    [TROUPE_BYTE] = "byte",
};

_Static_assert(tri_array_len(types) == TROUPE_DATATYPE_LAST + 1, "all types");

static const char *const ops[] = {
    [TROUPE_SUM] = "sum", [TROUPE_PROD] = "prod", [TROUPE_MIN] = "min",
    [TROUPE_MAX] = "max", [TROUPE_AVG] = "avg",
};

static const char *word(const char *const *words, size_t len, unsigned i)
{
    return i < len && words[i] != NULL ? words[i] : "?";
}

void tri_coll_sign(struct tri_coll *coll)
{
    coll->signature[0] = coll->count;
    coll->signature[1] = (uint64_t)coll->root << 32 |
                         (uint64_t)coll->op << 16 |
                         (uint64_t)coll->type << 8 | coll->kind;
}

const char *tri_coll_describe(const uint64_t signature[2],
                              char text[TRI_COLL_TEXT_BYTES])
{
    unsigned kind = signature[1] & 0xff, type = signature[1] >> 8 & 0xff;
    unsigned op = signature[1] >> 16 & 0xff;
    uint32_t root = (uint32_t)(signature[1] >> 32);
    int len = snprintf(text, TRI_COLL_TEXT_BYTES, "%s",
                       word(kinds, tri_array_len(kinds), kind));
    size_t at = (size_t)len;

    if (kind != TRI_COLL_BARRIER)
        at += (size_t)snprintf(text + at, TRI_COLL_TEXT_BYTES - at,
                               " of %llu %s",
                               (unsigned long long)signature[0],
                               word(types, tri_array_len(types), type));
    if (op != 0)
        at += (size_t)snprintf(text + at, TRI_COLL_TEXT_BYTES - at, ", %s",
                               word(ops, tri_array_len(ops), op));
    if (kind == TRI_COLL_BCAST || kind == TRI_COLL_REDUCE)
        at += (size_t)snprintf(text + at, TRI_COLL_TEXT_BYTES - at,
                               ", root %u", root);
    if (signature[1] & TRI_COLL_COUNCIL)
        snprintf(text + at, TRI_COLL_TEXT_BYTES - at, ", after a council");
    return text;
}
