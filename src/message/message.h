/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_MESSAGE_H
#define TRI_MESSAGE_H

/*
 * A message in this process's memory: a header of one cache line and the
 * payload behind it, in one block of the pool. It has one owner at a time:
 * the program that builds it, the queue it is in, the actor that handles it.
 */

#include <troupe/message.h>

#include "base/base.h"
#include "wire/record.h"

/* Kinds beside those of tri_record_kind that never leave the process. */
enum {
    TRI_THEN = 100,        /* outcome of an actor's ask; ask: its entry */
    TRI_UNDELIVERED = 101, /* payload: troupe_dead_letter_t */
    TRI_MARKER = 102,      /* of actor/markers.h */
    TRI_EVENT = 103,       /* index: TROUPE_ON_…, payload: what it says; ask:
                              the monitor that fired, or 0 */
    TRI_LINKED = 104,      /* the same, of a link */
};

struct tri_message {
    union {
        struct tri_message *next;
        const troupe_type_t *made_of; /* while the program builds it */
    };
    uint32_t bytes; /* payload */
    uint16_t index;
    uint8_t kind;
    uint8_t size_class; /* pool.c */
    troupe_ref_t sender;
    uint64_t ask;     /* id at sender.node, for TRI_ASK and TRI_REPLY */
    uint32_t type;    /* hash */
    uint32_t fixed_bytes; /* payload without the variable part */
    uint32_t slot;    /* the receiver's */
    uint32_t generation;
    int32_t value;    /* reply: error; stop: reason */
    uint32_t deadline_ms; /* ask: on this process's clock, tri_clock_ms */
    char payload[] __attribute__((aligned(16)));
};

_Static_assert(sizeof(struct tri_message) == 64, "one cache line");

/* Size classes that the pool does not own. */
#define TRI_CLASS_EMBEDDED 0xff /* part of another object: freeing does nothing */

static inline struct tri_message *tri_message_of(const void *payload)
{
    return tri_container_of(payload, struct tri_message, payload);
}

#endif
