/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What back ends know of a view: its active members, and how to send them
 * records. Also the words for a call, for errors.
 */

#include <stdio.h>
#include <string.h>

#include "message/pool.h"
#include "tensor/tensor.h"

/* Below it a record is put together on the stack. */
#define SMALL_BYTES 1024u

int32_t tri_team_find(const struct tri_team *team, uint64_t node)
{
    for (uint32_t i = 0; i < team->len; i++)
        if (team->members[i].node == node)
            return (int32_t)i;
    return -1;
}

/* --- sending -------------------------------------------------------------- */

static void gather(char *to, const struct tri_coll_head *head,
                   const struct tri_piece *pieces, uint32_t pieces_len)
{
    memcpy(to, head, sizeof(*head));
    to += sizeof(*head);
    for (uint32_t i = 0; i < pieces_len; i++) {
        if (pieces[i].bytes > 0)
            memcpy(to, pieces[i].data, pieces[i].bytes);
        to += pieces[i].bytes;
    }
}

int tri_team_send(const struct tri_team *team, uint32_t member, uint8_t kind,
                  struct tri_coll_head *head, const struct tri_piece *pieces,
                  uint32_t pieces_len)
{
    struct tri_peer *peer = team->members[member].peer;
    size_t bytes = sizeof(*head);
    struct tri_record record = {
        .kind = kind,
        .slot = TRI_SLOT_NODE,
        .sender_node = team->runtime->node,
    };
    char small[SMALL_BYTES] __attribute__((aligned(16)));
    struct tri_message *message;
    int rc;

    assert(kind == TRI_COLL || kind == TRI_COLL_CONTROL);
    assert(member < team->len);
    if (peer == NULL || peer->node != team->members[member].node)
        return TROUPE_ENODE;
    for (uint32_t i = 0; i < pieces_len; i++)
        bytes += pieces[i].bytes;
    assert(kind == TRI_COLL || bytes <= TRI_RECORD_BYTES_MAX);
    assert(bytes <= UINT32_MAX);
    head->group = team->group_id;
    head->epoch = team->epoch;
    record.total_bytes = (uint32_t)bytes;
    if (bytes <= sizeof(small)) {
        gather(small, head, pieces, pieces_len);
        return tri_link_send(peer, &record, small, TRI_SEND_BOUNDED);
    }
    message = tri_message_of_record(&record);
    if (message == NULL)
        return TROUPE_ENOMEM;
    gather(message->payload, head, pieces, pieces_len);
    rc = tri_link_send_message(peer, message, TRI_SEND_BOUNDED);
    if (rc != 0)
        tri_message_free(message);
    return rc;
}

/* --- words ---------------------------------------------------------------- */

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
        snprintf(text + at, TRI_COLL_TEXT_BYTES - at, ", root %u", root);
    return text;
}
