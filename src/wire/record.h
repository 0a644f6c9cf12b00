/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_RECORD_H
#define TRI_RECORD_H

/*
 * What travels between nodes: records, a fixed header and up to
 * TRI_RECORD_BYTES_MAX bytes of payload. A message is one record, or a first
 * record with the message's total size and MORE records behind it on the same
 * lane, nothing between them.
 *
 *      0       4    5     6        8        12            16
 *      | bytes |kind|flags| index  |  type  | total_bytes |
 *     16               24                 32
 *      | slot | gen.   | sender_node        |
 *     32                40                48       52       56
 *      | s.slot | s.gen. | ask              | value  |reserved|  payload …
 *
 * All fields little-endian; reserved bits are zero and checked. Nothing in a
 * record is trusted before tri_record_check.
 */

#include "base/base.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "records are used in place: only little-endian hosts");

/* Payload bytes of one record, whatever the transport. */
#define TRI_RECORD_BYTES_MAX (32u * 1024)

enum tri_record_kind {
    TRI_TELL = 1,    /* to an actor */
    TRI_ASK = 2,     /* to an actor; value: ms left until the deadline */
    TRI_REPLY = 3,   /* to the ask `ask`; value: 0 or the error code */
    TRI_REFUSED = 4, /* a message of `sender` was not delivered; value: why;
                        slot, generation: to whom; payload: u64 its node */
    TRI_MORE = 5,    /* the message that began before goes on */
    TRI_STOP = 6,    /* asks an actor to stop */
    TRI_RESOLVE = 7, /* to the node: which actor has this name? payload: name
                        without 0; type: protocol hash or 0; an ask */
    TRI_BYE = 8,     /* the node stops: all it sent on the lane `index` came
                        before; one on each */
    TRI_PULL = 9,    /* a large TELL, ASK or REPLY that the receiver reads from
                        the sender's memory: its header, struct tri_pull */
    TRI_PULLED = 10, /* ask: the id of a PULL that is done; value: 0, or an
                        error: send it in pieces. May come between MORE */
    TRI_MAILBOX_STOP = 11, /* the mailbox of slot, generation is full: send it
                              nothing */
    TRI_MAILBOX_GO = 12,   /* it has room again */
    TRI_DRAIN = 13,   /* answer when all that came before on this lane has been
                         handled; ask: the drain's number */
    TRI_DRAINED = 14, /* that answer; value: 0 or an error */
    TRI_QUIESCE = 15, /* payload: a message of group/quiesce_core.h */
    TRI_DRAIN_REPLIES = 16, /* goes with a DRAIN, for the lane of replies */
    TRI_MONITOR = 17,   /* the sender, or the thread of the ask `ask`, wants to
                           know when slot, generation ends; index: enum
                           tri_monitor_kind; ask: the number of it */
    TRI_DEMONITOR = 18, /* no more; as the MONITOR */
    TRI_DOWN = 19,      /* the sender ended; slot, generation: who wants to
                           know; index, ask: as the MONITOR; value: why */
    TRI_SPAWN = 20,     /* to the node: create an actor; payload: wire/spawn.h;
                           an ask, its slot TRI_SLOT_NODE */
    TRI_LINK = 21,      /* as a MONITOR and a DEMONITOR, for both ends; on the */
    TRI_UNLINK = 22,    /* lane of DOWN, as the sender's end may come next */
    TRI_VIEW = 23,      /* to the node: a message of group/agree_core.h */
    TRI_COLL = 24,      /* to the node: data of a collective, tensor/tensor.h;
                           may be large */
    TRI_COLL_CONTROL = 25, /* the same, small, and waits for no data */
    TRI_STATE = 26,     /* to the node: of registered state, tensor/state.h; may
                           be large */
    TRI_STATE_CONTROL = 27, /* the same, small, and waits for no data */
    TRI_KIND_LAST = TRI_STATE_CONTROL,
};

/* What is to the node itself, and may be large: no actor's slot, and not that
 * of replies (tri_lane_of_more). */
#define TRI_SLOT_NODE UINT32_MAX
/* Index of the REPLY to a SPAWN: no message's. Its payload is the ref. */
#define TRI_INDEX_SPAWNED UINT16_MAX

/* What must not wait for what: control for nothing, replies for no data. Order
 * holds within a lane. A BYE travels on each. */
enum tri_lane {
    TRI_LANE_CONTROL, /* small, and always taken in at once */
    TRI_LANE_REPLY,   /* ends of asks: bounded by the asks, always taken in */
    TRI_LANE_DATA,
    TRI_LANES,
};

static inline enum tri_lane tri_lane_of(uint8_t kind)
{
    switch (kind) {
    case TRI_REPLY:
    case TRI_REFUSED:
    case TRI_DRAIN_REPLIES:
        return TRI_LANE_REPLY;
    case TRI_PULLED:
    case TRI_MAILBOX_STOP:
    case TRI_MAILBOX_GO:
    case TRI_DRAINED:
    case TRI_QUIESCE:
    case TRI_MONITOR:
    case TRI_DEMONITOR:
    case TRI_VIEW:
    case TRI_COLL_CONTROL:
    case TRI_STATE_CONTROL:
        return TRI_LANE_CONTROL;
    default:
        return TRI_LANE_DATA;
    }
}

/* The payload of a PULL. The sender keeps the id at guard_address for as long
 * as the message may be read: who reads another value there afterwards has
 * read something else. */
struct tri_pull {
    uint64_t address;
    uint64_t guard_address;
    uint64_t id; /* not 0 */
    uint8_t kind; /* the message's */
    uint8_t reserved[7]; /* zero */
};

_Static_assert(sizeof(struct tri_pull) == 32, "the layout of a PULL");

struct tri_record {
    uint32_t bytes; /* payload in this record */
    uint8_t kind;
    uint8_t flags; /* zero */
    uint16_t index;
    uint32_t type;
    uint32_t total_bytes; /* payload of the whole message */
    uint32_t slot;
    uint32_t generation;
    uint64_t sender_node;
    uint32_t sender_slot;
    uint32_t sender_generation;
    uint64_t ask;
    int32_t value;
    uint32_t reserved; /* zero */
};

_Static_assert(sizeof(struct tri_record) == 56, "the record header's layout");

/* The lane of a MORE: replies go to asks, all other large messages to actors,
 * which are never in slot 0. */
static inline enum tri_lane tri_lane_of_more(const struct tri_record *more)
{
    return more->slot == 0 ? TRI_LANE_REPLY : TRI_LANE_DATA;
}

/*
 * True when the header makes sense by itself and its payload fits into
 * `bytes_left`, which is what really arrived behind the header.
 */
static inline bool tri_record_check(const struct tri_record *record,
                                    size_t bytes_left)
{
    return record->kind >= TRI_TELL && record->kind <= TRI_KIND_LAST &&
           record->flags == 0 && record->reserved == 0 &&
           record->bytes <= TRI_RECORD_BYTES_MAX &&
           record->bytes <= bytes_left &&
           (record->kind == TRI_MORE || record->total_bytes >= record->bytes);
}

#endif
