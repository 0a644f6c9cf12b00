/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_TYPES_H
#define TROUPE_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A running node: one process that takes part. */
typedef struct troupe troupe_t;

/* The actor that is running: what a handler gets, valid until it returns. */
typedef struct troupe_self troupe_self_t;

/*
 * Names an actor anywhere: the random 64-bit id of one life of its node, a
 * slot in that node's actor table and the generation of the slot. A value:
 * copy it, compare it, send it. All zero names nobody.
 */
typedef struct troupe_ref {
    uint64_t node;
    uint32_t slot;
    uint32_t generation;
} troupe_ref_t;

static inline int troupe_ref_equal(troupe_ref_t a, troupe_ref_t b)
{
    return a.node == b.node && a.slot == b.slot &&
           a.generation == b.generation;
}

static inline int troupe_ref_is_none(troupe_ref_t ref)
{
    return ref.node == 0;
}

/*
 * Who speaks: calls that send take either the node (from main or a thread of
 * the program) or the running actor (from a handler), nothing else.
 */
#ifdef __cplusplus
} /* extern "C" */
struct troupe_from_t {
    const void *context_;
    troupe_from_t(troupe_t *troupe) : context_(troupe) {}
    troupe_from_t(troupe_self_t *self) : context_(self) {}
};
extern "C" {
#else
typedef union troupe_from {
    troupe_t *troupe_;
    troupe_self_t *self_;
    const void *context_;
} troupe_from_t __attribute__((__transparent_union__));
#endif

/*
 * The right to answer one ask, as a value: store it, send it to another
 * actor on any node, answer from there. Answering twice, or after the
 * asker's deadline, does nothing.
 */
typedef struct troupe_token {
    uint64_t node; /* the asker's node; 0: nobody waits */
    uint64_t ask;
    uint32_t type; /* hash of the message type that was asked */
    uint16_t index;
    uint16_t reserved;
} troupe_token_t;

/* What on_member and on_name are told: see troupe/member.h, troupe/name.h. */
typedef struct troupe_member_event troupe_member_event_t;
typedef struct troupe_name_event troupe_name_event_t;

#ifdef __cplusplus
}
#endif

#endif
