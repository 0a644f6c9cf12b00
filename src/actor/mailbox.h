/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_MAILBOX_H
#define TRI_MAILBOX_H

/*
 * The mailbox of an actor: many senders, one owner at a time (mpsc), bounded,
 * and the word that decides who runs the actor.
 *
 * One 64-bit word holds a pointer (low 48 bits) and the number of messages
 * (high 16 bits):
 *     IDLE         nobody owns the actor, nothing is there
 *     EMPTY        somebody owns the actor, nothing new is there
 *     {n, first}   somebody owns it, n new messages, newest first
 *
 *            push (owner := pusher's queue)          take
 *     IDLE ---------------------------------> {1,m} <----> EMPTY
 *       ^                                                    |
 *       +----------------------- release --------------------+
 *
 * Invariants
 *  1. Exactly one party owns an actor that is not IDLE: who replaced IDLE, by
 *     push or claim, and then whoever it hands the actor to.
 *  2. Only the owner takes (or, under a lock that keeps the owner out, who
 *     drops old messages: overflow.c), and only it makes the word IDLE, by a
 *     compare-and-swap from EMPTY, so that no message is left unseen.
 *  3. Messages of one sender leave in the order pushed: a push puts its message
 *     before all others; take reverses the whole chain.
 *  4. A bounded push finds n + backlog < limit. backlog is what the owner has
 *     taken and not handled, as far as it has published it: between a take and
 *     that, senders may fill the mailbox once more, so there are never more
 *     than twice limit messages.
 * Progress: push is lock-free (a retry means that another push or take
 * succeeded), take and release are wait-free.
 *
 * The pointer fits 48 bits on x86-64 and arm64 with four-level page tables,
 * which is what Linux gives unless a program asks for more.
 */

#include "message/message.h"

#define TRI_MAILBOX_LEN_MAX 65535u
#define TRI_MAILBOX_IDLE 1ull
#define TRI_MAILBOX_EMPTY 0ull
#define TRI_MAILBOX_POINTER ((1ull << 48) - 1)

struct tri_mailbox {
    _Atomic uint64_t word;
    _Atomic uint32_t backlog;
    _Atomic uint32_t limit;
};

enum tri_push {
    TRI_PUSH_FULL,
    TRI_PUSH_QUEUED, /* its owner will see it */
    TRI_PUSH_OWNER,  /* the caller owns the actor now and must have it run */
};

static inline enum tri_push tri_mailbox_push(struct tri_mailbox *box,
                                             struct tri_message *message,
                                             bool bounded)
{
    uint64_t word = atomic_load_explicit(&box->word, memory_order_relaxed);
    uint64_t next;

    assert(((uintptr_t)message & ~TRI_MAILBOX_POINTER) == 0);
    do {
        uint64_t n = word >> 48;

        if (word == TRI_MAILBOX_IDLE) {
            message->next = NULL;
        } else {
            /* Rarely more than a hint is needed; relaxed as the owner's
             * stores only make room. */
            if (bounded &&
                n + atomic_load_explicit(&box->backlog, memory_order_relaxed) >=
                    atomic_load_explicit(&box->limit, memory_order_relaxed))
                return TRI_PUSH_FULL;
            if (tri_unlikely(n == TRI_MAILBOX_LEN_MAX))
                n--; /* unbounded control messages only: the count saturates */
            message->next = (void *)(uintptr_t)(word & TRI_MAILBOX_POINTER);
        }
        next = (uintptr_t)message | ((n + 1) << 48);
        /* release: the message's content, for take. acquire: what the last
         * owner did, when this makes the caller the owner; pairs with the
         * release in tri_mailbox_release. */
    } while (!atomic_compare_exchange_weak_explicit(
        &box->word, &word, next, memory_order_acq_rel, memory_order_relaxed));
    return word == TRI_MAILBOX_IDLE ? TRI_PUSH_OWNER : TRI_PUSH_QUEUED;
}

/* Pushes a chain of n, newest first, as if one after the other, or, when there
 * is not room for all, nothing. */
static inline enum tri_push tri_mailbox_push_chain(struct tri_mailbox *box,
                                                   struct tri_message *newest,
                                                   struct tri_message *oldest,
                                                   uint32_t n)
{
    uint64_t word = atomic_load_explicit(&box->word, memory_order_relaxed);
    uint64_t next, there;

    /* as in tri_mailbox_push */
    do {
        there = word == TRI_MAILBOX_IDLE ? 0 : word >> 48;
        if (there +
                atomic_load_explicit(&box->backlog, memory_order_relaxed) + n >
            atomic_load_explicit(&box->limit, memory_order_relaxed))
            return TRI_PUSH_FULL;
        oldest->next = word == TRI_MAILBOX_IDLE
                           ? NULL
                           : (void *)(uintptr_t)(word & TRI_MAILBOX_POINTER);
        next = (uintptr_t)newest | (there + n) << 48;
    } while (!atomic_compare_exchange_weak_explicit(
        &box->word, &word, next, memory_order_acq_rel, memory_order_relaxed));
    return word == TRI_MAILBOX_IDLE ? TRI_PUSH_OWNER : TRI_PUSH_QUEUED;
}

/* Owner: takes all new messages, newest first; n_p: how many. */
static inline struct tri_message *tri_mailbox_take(struct tri_mailbox *box,
                                                   uint32_t *n_p)
{
    /* acquire: pairs with the release in tri_mailbox_push */
    uint64_t word = atomic_exchange_explicit(&box->word, TRI_MAILBOX_EMPTY,
                                             memory_order_acquire);

    assert(word != TRI_MAILBOX_IDLE);
    *n_p = (uint32_t)(word >> 48);
    return (void *)(uintptr_t)(word & TRI_MAILBOX_POINTER);
}

/* Not the owner: takes what is new, newest first; NULL: nothing. The owner must
 * be kept from taking until it is put back, or order is lost. */
static inline struct tri_message *tri_mailbox_take_new(struct tri_mailbox *box)
{
    uint64_t word = atomic_load_explicit(&box->word, memory_order_relaxed);

    /* acquire: pairs with the release in tri_mailbox_push */
    do {
        if (word == TRI_MAILBOX_IDLE || word == TRI_MAILBOX_EMPTY)
            return NULL;
    } while (!atomic_compare_exchange_weak_explicit(
        &box->word, &word, TRI_MAILBOX_EMPTY, memory_order_acquire,
        memory_order_relaxed));
    return (void *)(uintptr_t)(word & TRI_MAILBOX_POINTER);
}

/* Puts a chain of n, newest first, into a mailbox in which nothing is new;
 * FULL: something is. */
static inline enum tri_push tri_mailbox_put(struct tri_mailbox *box,
                                            struct tri_message *first,
                                            uint32_t n)
{
    uint64_t word = atomic_load_explicit(&box->word, memory_order_relaxed);
    uint64_t next = (uintptr_t)first |
                    (uint64_t)tri_min(n, TRI_MAILBOX_LEN_MAX) << 48;

    /* as in tri_mailbox_push */
    do {
        if (word != TRI_MAILBOX_IDLE && word != TRI_MAILBOX_EMPTY)
            return TRI_PUSH_FULL;
    } while (!atomic_compare_exchange_weak_explicit(
        &box->word, &word, next, memory_order_acq_rel, memory_order_relaxed));
    return word == TRI_MAILBOX_IDLE ? TRI_PUSH_OWNER : TRI_PUSH_QUEUED;
}

/* Owner: true when nothing new is there. */
static inline bool tri_mailbox_is_empty(struct tri_mailbox *box)
{
    return atomic_load_explicit(&box->word, memory_order_relaxed) ==
           TRI_MAILBOX_EMPTY;
}

/* Owner: gives the actor up. False: something came in, the caller goes on. */
static inline bool tri_mailbox_release(struct tri_mailbox *box)
{
    uint64_t word = TRI_MAILBOX_EMPTY;

    /* release: pairs with the acquire in push and claim. seq_cst: what is
     * looked at behind it (the mark of who waits for room) is looked at after
     * it; pairs with the fence of who set that. */
    return atomic_compare_exchange_strong_explicit(
        &box->word, &word, TRI_MAILBOX_IDLE, memory_order_seq_cst,
        memory_order_relaxed);
}

/* Makes the caller the owner of an idle actor. */
static inline bool tri_mailbox_claim(struct tri_mailbox *box)
{
    uint64_t word = TRI_MAILBOX_IDLE;

    return atomic_compare_exchange_strong_explicit(
        &box->word, &word, TRI_MAILBOX_EMPTY, memory_order_acquire,
        memory_order_relaxed);
}

#endif
