/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What back ends know of a view: its active members, and how to send them
 * records.
 */

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
