/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_MESSAGE_H
#define TROUPE_MESSAGE_H

/*
 * Messages, untyped. Programs normally use the typed functions that
 * troupe/protocol.h makes from a protocol; these are what they call.
 *
 * Order: what one sender sends to one receiver arrives in the order sent,
 * whatever its size and wherever the two are. At most once.
 *
 * Time: a timeout_ms of 0 means the option ask_timeout_ms; a negative one is
 * TROUPE_EINVAL.
 */

#include <sys/uio.h>

#include <troupe/error.h>
#include <troupe/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * One message of a protocol, made by TROUPE_PROTOCOL, one object a program
 * file. `hash` covers the name, the fields' text and the sizes; it is filled
 * in at first use (0 before). A receiver takes a message only when index,
 * hash and size agree with its own table.
 */
typedef struct troupe_type {
    const char *name;          /* "counter.add" */
    const char *fields;        /* "(int64_t by;)" */
    const char *result_fields; /* NULL: a tell */
    uint32_t bytes;            /* fixed part */
    uint32_t result_bytes;     /* fixed part of the result */
    uint32_t hash;
    uint16_t index; /* place in the protocol */
    uint16_t flags; /* filled in at first use: TROUPE_TYPE_… */
} troupe_type_t;

enum {
    TROUPE_TYPE_TAIL = 1,        /* fields end in a flexible array */
    TROUPE_TYPE_RESULT_TAIL = 2, /* the result's fields do */
};

/* All messages of one protocol. `hash` as in troupe_type_t. */
typedef struct troupe_protocol {
    const char *name;
    troupe_type_t *types;
    uint32_t types_len;
    uint32_t hash;
} troupe_protocol_t;

/*
 * Sends a copy of `message` to `to`.
 * Context: any thread, or an actor with its self. Blocking: never in a handler.
 * A thread of the program that finds no room waits for it, serving this node's
 * actors meanwhile, for up to send_timeout_ms (0: not at all).
 * Errors: EFULL (the receiver's mailbox, here or on another node, or the way to
 * its node is full: nothing was sent; see troupe_overflow in troupe/actor.h),
 * ENOACTOR (local), ENODE, ETOOBIG, ENOMEM, EINVAL, ESTOPPING. What fails
 * later, on a remote node, comes back as a dead letter.
 */
int troupe_tell(troupe_from_t from, troupe_ref_t to, troupe_type_t *type,
                const void *message, size_t bytes);

/*
 * Makes an empty message to be built in place, its fixed part zeroed and
 * with room for tail_bytes more behind it. It is moved, not copied, when it
 * is sent.
 * Context: any thread. Blocking: never. Ownership: the caller's, until
 * troupe_send or troupe_drop. Returns NULL when memory is exhausted, the
 * message would exceed message_bytes_max, or the type has no variable part
 * although tail_bytes is not 0.
 */
void *troupe_message_new(troupe_from_t from, troupe_type_t *type,
                         size_t tail_bytes);

/*
 * Sends a message made by troupe_message_new or kept by troupe_keep.
 * Context, Blocking, Errors: as troupe_tell. Ownership: on success the
 * library's; on error it stays the caller's, to be sent again or dropped.
 */
int troupe_send(troupe_from_t from, troupe_ref_t to, void *message);

/* Frees a message that is the caller's. NULL is allowed. Any thread. */
void troupe_drop(const void *message);

/* Bytes of the variable part of a message that is the caller's. */
size_t troupe_message_tail_bytes(const void *message);

/* Pieces of one message. */
#define TROUPE_PARTS_MAX 1024

/*
 * Sends a message whose variable part lies in pieces, which follow each other
 * in its flexible array. tail: where in *message that array begins:
 *
 *     mesh_cells_t cells = { .step = 7 };
 *     struct iovec parts[] = { { head, head_bytes }, { body, body_bytes } };
 *
 *     troupe_tell_gather(troupe, to, type, &cells, cells.bytes, parts, 2);
 *
 * Everything is copied once, into the message's own memory; nothing of the
 * caller's is looked at after the call.
 * Context, Blocking: as troupe_tell. Errors: as troupe_tell, EINVAL (also: the
 * type has no variable part), ELIMIT (more than TROUPE_PARTS_MAX pieces).
 */
int troupe_tell_gather(troupe_from_t from, troupe_ref_t to,
                       troupe_type_t *type, const void *message,
                       const void *tail, const struct iovec *parts,
                       unsigned parts_len);

/*
 * Sends a request and waits for its one outcome, serving this node's actors
 * meanwhile. On success the fixed part of the result is copied to result_p
 * (NULL: not wanted). Waiting for room to send is part of its time.
 * Context: any thread of the program; ECONTEXT in a handler (use
 * troupe_ask_then). Blocking: up to timeout_ms.
 * Errors: as troupe_tell, ETIMEDOUT, ENOREPLY, EFAILED, ETYPE, ENODE (it died
 * meanwhile), or the code that the callee replied.
 */
int troupe_ask(troupe_from_t from, troupe_ref_t to, troupe_type_t *type,
               const void *message, size_t bytes, int timeout_ms,
               void *result_p);

/*
 * troupe_ask for results with a variable part: the whole result becomes the
 * caller's, to be freed with troupe_drop.
 */
int troupe_ask_take(troupe_from_t from, troupe_ref_t to, troupe_type_t *type,
                    const void *message, size_t bytes, int timeout_ms,
                    const void **result_p);

/*
 * troupe_ask with a request built in place by troupe_message_new.
 * Ownership: the message is the library's, also on error.
 */
int troupe_ask_send(troupe_from_t from, troupe_ref_t to, void *message,
                    int timeout_ms, void *result_p);

/* troupe_ask with a request in pieces; as troupe_tell_gather. */
int troupe_ask_gather(troupe_from_t from, troupe_ref_t to, troupe_type_t *type,
                      const void *message, const void *tail,
                      const struct iovec *parts, unsigned parts_len,
                      int timeout_ms, void *result_p);

/* A function of any type, cast back by the typed invoker that knows it. */
typedef void (*troupe_any_fn_t)(void);

/*
 * Runs `then` with its type restored. error is 0 or why there is no result
 * (then result is NULL); result lives until the call returns.
 */
typedef int (*troupe_invoke_fn_t)(troupe_self_t *self, void *state, int error,
                                  const void *result, void *arg,
                                  troupe_any_fn_t then);

/*
 * Sends a request from an actor and returns at once; `then` runs in this
 * actor, as if it were a handler, exactly once: with the result, with the
 * reason that there is none, or with ETIMEDOUT. It does not run if the actor
 * has stopped meanwhile.
 * Context: actor only. Blocking: never. Errors: as troupe_tell, and ELIMIT
 * (too many pending asks); `then` does not run when an error is returned.
 */
int troupe_ask_then(troupe_self_t *self, troupe_ref_t to, troupe_type_t *type,
                    const void *message, size_t bytes, int timeout_ms,
                    troupe_invoke_fn_t invoke, troupe_any_fn_t then,
                    void *arg);

/*
 * Answers the ask that this handler is handling. The first answer counts.
 * Context: actor only. Blocking: never; a reply is never refused for lack of
 * room in a mailbox. Errors: EINVAL (not an ask, or already answered), ETYPE
 * (a result of another message), ETOOBIG, ENOMEM, ENODE.
 */
int troupe_reply(troupe_self_t *self, troupe_type_t *type, const void *result,
                 size_t bytes);

/*
 * Makes an empty result to be built in place; as troupe_message_new.
 */
void *troupe_result_new(troupe_from_t from, troupe_type_t *type,
                        size_t tail_bytes);

/* Answers with a result made by troupe_result_new. As troupe_send. */
int troupe_reply_send(troupe_self_t *self, void *result);

/* troupe_reply with a result in pieces; as troupe_tell_gather. */
int troupe_reply_gather(troupe_self_t *self, troupe_type_t *type,
                        const void *result, const void *tail,
                        const struct iovec *parts, unsigned parts_len);

/*
 * Answers with an error code: one of troupe's or one of the program's, at or
 * below TROUPE_E_USER. The actor itself goes on. Context: actor only.
 */
int troupe_reply_error(troupe_self_t *self, int error);

/*
 * Takes over the right to answer, so that this handler may return without
 * having answered. In a tell, the token names nobody. Context: actor only.
 */
troupe_token_t troupe_reply_later(troupe_self_t *self);

/*
 * Answers the ask of a token, from any actor or thread of any node. Errors: as
 * troupe_reply; a token that names nobody: EINVAL.
 */
int troupe_reply_to(troupe_from_t from, troupe_token_t token,
                    troupe_type_t *type, const void *result, size_t bytes);
int troupe_reply_error_to(troupe_from_t from, troupe_token_t token, int error);

/*
 * Answers the ask of a token with a result made by troupe_result_new. As
 * troupe_send.
 */
int troupe_reply_send_to(troupe_from_t from, troupe_token_t token,
                         void *result);

/*
 * Passes the message being handled on to another actor, unchanged, with its
 * original sender; who gets an ask passed on answers its asker directly.
 * Context: actor only. Blocking: never. Ownership: on success the message is
 * gone, do not look at it any more; on error it is still this handler's to
 * answer. Errors: as troupe_tell; EINVAL (it was answered or kept already).
 */
int troupe_forward(troupe_self_t *self, troupe_ref_t to);

/*
 * Keeps the message (or result) being handled beyond the handler's return,
 * without a copy.
 * Context: actor only, once a message. Ownership: the caller's, until
 * troupe_drop. Returns NULL when memory is exhausted.
 */
const void *troupe_keep(troupe_self_t *self);

/* Bytes of the variable part of the message (or result) being handled. */
size_t troupe_tail_bytes(const troupe_self_t *self);

/*
 * Who sent the message being handled; for a message from outside any actor a
 * ref with slot 0 that names the sending node.
 */
troupe_ref_t troupe_sender(const troupe_self_t *self);

/* A message that could not be delivered, and why. */
typedef struct troupe_dead_letter {
    troupe_ref_t to;
    troupe_ref_t sender;
    int reason;    /* TROUPE_E… */
    uint32_t type; /* hash; troupe_type_t */
    uint16_t index;
    uint16_t is_ask; /* its asker was told the same reason */
    uint32_t bytes;
} troupe_dead_letter_t;

/*
 * Takes the oldest dead letters that this node knows of: what its own actors
 * and threads sent and could not be delivered, anywhere. The store holds the
 * newest dead_letters_max; older ones are only counted.
 * Context: any thread. Blocking: never. Returns how many were taken.
 */
size_t troupe_dead_letters_take(troupe_t *troupe, troupe_dead_letter_t *letters,
                                size_t letters_len_max);

/* Dead letters of this node since its start, taken or not. Any thread. */
uint64_t troupe_dead_letters_count(const troupe_t *troupe);

#ifdef __cplusplus
}
#endif

#endif
