/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_PROTOCOL_H
#define TROUPE_PROTOCOL_H

/*
 * Typed protocols, declared once in plain C:
 *
 *     #define counter_messages(TELL, ASK)            \
 *         TELL(counter, add,  (int64_t by;))         \
 *         ASK (counter, read, (), (int64_t value;))
 *     TROUPE_PROTOCOL(counter)
 *
 * gives
 *     counter_ref_t                          a ref that takes these messages
 *     counter_add_t, counter_read_t          the messages
 *     counter_read_result_t                  the result of the ask
 *     counter_add(from, to, message)         tell; from: troupe_t * or self
 *     counter_add_new(from, tail_bytes)      build in place, then
 *     counter_add_send(from, to, message)    move it
 *     counter_add_gather(from, to, &message, message.array, parts, parts_len)
 *                                            tell, its array in pieces
 *     counter_read(troupe, to, message, timeout_ms, &result)     ask and wait
 *     counter_read_take(troupe, to, message, timeout_ms, &result)
 *                                            the same, result to be dropped
 *     counter_read_then(self, to, message, timeout_ms, then, arg)
 *                                            ask from an actor
 *     counter_read_new(from, tail_bytes)     build a request in place, then
 *     counter_read_send(troupe, to, message, timeout_ms, &result)
 *     counter_read_gather(troupe, to, &message, message.array, parts,
 *                         parts_len, timeout_ms, &result)
 *     counter_read_reply(self, result)       answer
 *     counter_read_reply_gather(self, &result, result.array, parts, parts_len)
 *     counter_read_reply_to(from, token, result)
 *     counter_read_result_new(from, tail_bytes)
 *                                            build a result in place, for
 *                                            troupe_reply_send, _send_to
 *     counter_self(self), counter_forward(self, to)
 *     counter_resolve(from, address, timeout_ms, &ref)
 *     counter_resolve_with(from, address, options, timeout_ms, &ref)
 * whose contracts are those of their untyped twins in troupe/message.h and
 * troupe/actor.h. A message or result may end in a flexible array
 * ("(uint32_t n; double x[];)"), which is sent with the _new or the _gather
 * functions.
 * Messages are copied as bytes: no pointers, and plain fields of known size.
 *
 *     struct counter { int64_t value; };
 *     static int on_add(troupe_self_t *, struct counter *, const counter_add_t *);
 *     TROUPE_ACTOR(counter, struct counter, .add = on_add, .read = on_read)
 *
 * gives
 *     counter_spawn(from, name, initial, &ref)
 *     counter_spawn_with(from, options, initial, &ref)
 *     counter_spawn_on(troupe, node, options, initial, timeout_ms, &ref)
 *     counter_spawn_on_then(self, node, options, initial, timeout_ms, then,
 *                           arg)
 *                                            then: (self, state, error, ref,
 *                                            arg), ref NULL on error
 *     counter_spawn_at(troupe, place, options, initial, timeout_ms, &ref)
 *     counter_spawn_at_then(self, place, options, initial, timeout_ms, then,
 *                           arg)           where troupe_place says
 * and lets other nodes of the same program create the actor here, by its name.
 * Besides the protocol's messages an actor may define
 *     int  on_start(self, state)
 *     void on_stop(self, state, int reason)          0: stopped, else failed;
 *                                            nobody finds the actor any more
 *     int  on_undelivered(self, state, const troupe_dead_letter_t *)
 *     int  on_down(self, state, const troupe_down_t *)
 *                                            what it watches ended
 *     int  on_member(self, state, const troupe_member_event_t *)
 *     int  on_name(self, state, const troupe_name_event_t *)
 * TROUPE_ACTOR_AS(name, protocol, state, …) defines a second kind of actor
 * for the same protocol. A message whose handler is left out is answered with
 * TROUPE_ETYPE.
 */

#include <troupe/actor.h>
#include <troupe/member.h>
#include <troupe/name.h>

/*
 * A misspelt message is a call of an undeclared function and a handler for
 * another message an incompatible pointer; gcc before 14 and clang before 16
 * only warn of both, although C forbids them. Wrong messages shall not compile.
 */
#if !defined(__cplusplus)
#pragma GCC diagnostic error "-Wimplicit-function-declaration"
#pragma GCC diagnostic error "-Wincompatible-pointer-types"
#if defined(__clang__)
#pragma GCC diagnostic error "-Wincompatible-function-pointer-types"
#endif
#endif

#ifdef __cplusplus
#define TROUPE_SIZEOF_(type) (__is_empty(type) ? 0 : sizeof(type))
#else
#define TROUPE_SIZEOF_(type) sizeof(type)
#endif
#define TROUPE_UNUSED_ __attribute__((unused))
#define TROUPE_INLINE_ static inline __attribute__((unused))
#define TROUPE_FIELDS_(...) __VA_ARGS__
#define TROUPE_TEXT_(fields) #fields

/* --- one expansion of the list each ------------------------------------ */

#define TROUPE_STRUCT_TELL_(protocol, message, fields)                        \
    __extension__ typedef struct protocol##_##message {                       \
        TROUPE_FIELDS_ fields                                                 \
    } protocol##_##message##_t;

#define TROUPE_STRUCT_ASK_(protocol, message, fields, result)                 \
    TROUPE_STRUCT_TELL_(protocol, message, fields)                            \
    __extension__ typedef struct protocol##_##message##_result {              \
        TROUPE_FIELDS_ result                                                 \
    } protocol##_##message##_result_t;

#define TROUPE_INDEX_TELL_(protocol, message, fields)                         \
    protocol##_##message##_index_,
#define TROUPE_INDEX_ASK_(protocol, message, fields, result)                  \
    protocol##_##message##_index_,

#define TROUPE_TYPE_TELL_(protocol, message, fields)                          \
    { #protocol "." #message, TROUPE_TEXT_(fields), NULL,                     \
      TROUPE_SIZEOF_(protocol##_##message##_t), 0, 0,                         \
      protocol##_##message##_index_, 0 },
#define TROUPE_TYPE_ASK_(protocol, message, fields, result)                   \
    { #protocol "." #message, TROUPE_TEXT_(fields), TROUPE_TEXT_(result),     \
      TROUPE_SIZEOF_(protocol##_##message##_t),                               \
      TROUPE_SIZEOF_(protocol##_##message##_result_t), 0,                     \
      protocol##_##message##_index_, 0 },

#define TROUPE_TYPE_OF_(protocol, message)                                    \
    (&protocol##_types_[protocol##_##message##_index_])

#define TROUPE_CALLS_BUILD_(protocol, message)                                \
    TROUPE_INLINE_ protocol##_##message##_t *protocol##_##message##_new(       \
        troupe_from_t from, size_t tail_bytes)                                \
    {                                                                         \
        return (protocol##_##message##_t *)troupe_message_new(                \
            from, TROUPE_TYPE_OF_(protocol, message), tail_bytes);            \
    }

#define TROUPE_CALLS_TELL_(protocol, message, fields)                         \
    TROUPE_CALLS_BUILD_(protocol, message)                                    \
    TROUPE_INLINE_ int protocol##_##message(troupe_from_t from,                \
                                           protocol##_ref_t to,               \
                                           protocol##_##message##_t content)  \
    {                                                                         \
        return troupe_tell(from, to.ref, TROUPE_TYPE_OF_(protocol, message),  \
                           &content,                                          \
                           TROUPE_SIZEOF_(protocol##_##message##_t));         \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_##message##_gather(                         \
        troupe_from_t from, protocol##_ref_t to,                              \
        const protocol##_##message##_t *content, const void *tail,            \
        const struct iovec *parts, unsigned parts_len)                        \
    {                                                                         \
        return troupe_tell_gather(from, to.ref,                               \
                                  TROUPE_TYPE_OF_(protocol, message),         \
                                  content, tail, parts, parts_len);           \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_##message##_send(                            \
        troupe_from_t from, protocol##_ref_t to,                              \
        protocol##_##message##_t *content)                                    \
    {                                                                         \
        return troupe_send(from, to.ref, content);                            \
    }

#define TROUPE_CALLS_ASK_(protocol, message, fields, result)                  \
    TROUPE_CALLS_BUILD_(protocol, message)                                    \
    TROUPE_INLINE_ int protocol##_##message##_send(                           \
        troupe_from_t from, protocol##_ref_t to,                              \
        protocol##_##message##_t *content, int timeout_ms,                    \
        protocol##_##message##_result_t *result_p)                            \
    {                                                                         \
        return troupe_ask_send(from, to.ref, content, timeout_ms, result_p);  \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_##message##_gather(                         \
        troupe_from_t from, protocol##_ref_t to,                              \
        const protocol##_##message##_t *content, const void *tail,            \
        const struct iovec *parts, unsigned parts_len, int timeout_ms,        \
        protocol##_##message##_result_t *result_p)                            \
    {                                                                         \
        return troupe_ask_gather(from, to.ref,                                \
                                 TROUPE_TYPE_OF_(protocol, message),          \
                                 content, tail, parts, parts_len,             \
                                 timeout_ms, result_p);                       \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_##message(                                   \
        troupe_from_t from, protocol##_ref_t to,                              \
        protocol##_##message##_t content, int timeout_ms,                     \
        protocol##_##message##_result_t *result_p)                            \
    {                                                                         \
        return troupe_ask(from, to.ref, TROUPE_TYPE_OF_(protocol, message),   \
                          &content,                                           \
                          TROUPE_SIZEOF_(protocol##_##message##_t),           \
                          timeout_ms, result_p);                              \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_##message##_take(                            \
        troupe_from_t from, protocol##_ref_t to,                              \
        protocol##_##message##_t content, int timeout_ms,                     \
        const protocol##_##message##_result_t **result_p)                     \
    {                                                                         \
        const void *taken;                                                    \
        int rc = troupe_ask_take(from, to.ref,                                \
                                 TROUPE_TYPE_OF_(protocol, message),          \
                                 &content,                                    \
                                 TROUPE_SIZEOF_(protocol##_##message##_t),    \
                                 timeout_ms, &taken);                         \
        if (rc == 0)                                                          \
            *result_p = (const protocol##_##message##_result_t *)taken;       \
        return rc;                                                            \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_##message##_invoke_(                         \
        troupe_self_t *self, void *state, int error, const void *outcome,     \
        void *arg, troupe_any_fn_t then)                                      \
    {                                                                         \
        typedef int (*then_t)(troupe_self_t *, void *, int,                   \
                              const protocol##_##message##_result_t *,        \
                              void *);                                        \
        return ((then_t)then)(                                                \
            self, state, error,                                               \
            (const protocol##_##message##_result_t *)outcome, arg);           \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_##message##_then(                            \
        troupe_self_t *self, protocol##_ref_t to,                             \
        protocol##_##message##_t content, int timeout_ms,                     \
        int (*then)(troupe_self_t * self, void *state, int error,             \
                    const protocol##_##message##_result_t *outcome,           \
                    void *arg),                                               \
        void *arg)                                                            \
    {                                                                         \
        return troupe_ask_then(self, to.ref,                                  \
                               TROUPE_TYPE_OF_(protocol, message), &content,  \
                               TROUPE_SIZEOF_(protocol##_##message##_t),      \
                               timeout_ms, protocol##_##message##_invoke_,    \
                               (troupe_any_fn_t)then, arg);                   \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_##message##_reply(                           \
        troupe_self_t *self, protocol##_##message##_result_t content)         \
    {                                                                         \
        return troupe_reply(                                                  \
            self, TROUPE_TYPE_OF_(protocol, message), &content,               \
            TROUPE_SIZEOF_(protocol##_##message##_result_t));                 \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_##message##_reply_gather(                   \
        troupe_self_t *self,                                                  \
        const protocol##_##message##_result_t *content, const void *tail,     \
        const struct iovec *parts, unsigned parts_len)                        \
    {                                                                         \
        return troupe_reply_gather(self, TROUPE_TYPE_OF_(protocol, message),  \
                                   content, tail, parts, parts_len);          \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_##message##_reply_to(                        \
        troupe_from_t from, troupe_token_t token,                             \
        protocol##_##message##_result_t content)                              \
    {                                                                         \
        return troupe_reply_to(                                               \
            from, token, TROUPE_TYPE_OF_(protocol, message), &content,        \
            TROUPE_SIZEOF_(protocol##_##message##_result_t));                 \
    }                                                                         \
    TROUPE_INLINE_ protocol##_##message##_result_t                             \
        *protocol##_##message##_result_new(troupe_from_t from,                \
                                           size_t tail_bytes)                 \
    {                                                                         \
        return (protocol##_##message##_result_t *)troupe_result_new(          \
            from, TROUPE_TYPE_OF_(protocol, message), tail_bytes);            \
    }

#define TROUPE_SLOT_TELL_(protocol, message, fields)                          \
    int (*message)(troupe_self_t *, troupe_state_t_ *,                        \
                   const protocol##_##message##_t *);
#define TROUPE_SLOT_ASK_(protocol, message, fields, result)                   \
    TROUPE_SLOT_TELL_(protocol, message, fields)

#define TROUPE_CASE_TELL_(protocol, message, fields)                          \
    case protocol##_##message##_index_:                                       \
        return troupe_handlers_.message                                       \
                   ? (troupe_handlers_.message)(                              \
                         self, (troupe_state_t_ *)state,                      \
                         (const protocol##_##message##_t *)content)           \
                   : TROUPE_ETYPE;
#define TROUPE_CASE_ASK_(protocol, message, fields, result)                   \
    TROUPE_CASE_TELL_(protocol, message, fields)

/* --- what programs use --------------------------------------------------- */

#define TROUPE_PROTOCOL(protocol)                                             \
    typedef struct {                                                          \
        troupe_ref_t ref;                                                     \
    } protocol##_ref_t;                                                       \
    protocol##_messages(TROUPE_STRUCT_TELL_, TROUPE_STRUCT_ASK_) enum {       \
        protocol##_messages(TROUPE_INDEX_TELL_, TROUPE_INDEX_ASK_)            \
            protocol##_types_len_                                             \
    };                                                                        \
    static TROUPE_UNUSED_ troupe_type_t protocol##_types_[] = {               \
        protocol##_messages(TROUPE_TYPE_TELL_, TROUPE_TYPE_ASK_)              \
    };                                                                        \
    static TROUPE_UNUSED_ troupe_protocol_t protocol##_protocol_ = {          \
        #protocol, protocol##_types_, protocol##_types_len_, 0                \
    };                                                                        \
    protocol##_messages(TROUPE_CALLS_TELL_, TROUPE_CALLS_ASK_)                \
    TROUPE_INLINE_ protocol##_ref_t protocol##_self(const troupe_self_t *self) \
    {                                                                         \
        protocol##_ref_t me = { troupe_self_ref(self) };                      \
        return me;                                                            \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_forward(troupe_self_t *self,                 \
                                         protocol##_ref_t to)                 \
    {                                                                         \
        return troupe_forward(self, to.ref);                                  \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_resolve(                                     \
        troupe_from_t from, const char *address, int timeout_ms,              \
        protocol##_ref_t *ref_p)                                              \
    {                                                                         \
        return troupe_resolve(from, address, &protocol##_protocol_,           \
                              timeout_ms, &ref_p->ref);                       \
    }                                                                         \
    TROUPE_INLINE_ int protocol##_resolve_with(                                \
        troupe_from_t from, const char *address,                              \
        const troupe_resolve_options_t *options, int timeout_ms,              \
        protocol##_ref_t *ref_p)                                              \
    {                                                                         \
        return troupe_resolve_with(from, address, &protocol##_protocol_,      \
                                   options, timeout_ms, &ref_p->ref);         \
    }

/* Other nodes find the class by its name: see troupe_class_register. */
#define TROUPE_CLASS_ENTRY_(kind)                                             \
    static troupe_class_entry_t kind##_entry_ = { &kind##_class_, NULL };     \
    static __attribute__((constructor)) void kind##_add_(void)                \
    {                                                                         \
        troupe_class_add_(&kind##_entry_);                                    \
    }                                                                         \
    static __attribute__((destructor)) void kind##_remove_(void)              \
    {                                                                         \
        troupe_class_remove_(&kind##_entry_);                                 \
    }

#define TROUPE_SPAWN_ON_(kind, protocol, state_type)                          \
    TROUPE_INLINE_ int kind##_spawn_on(                                       \
        troupe_t *troupe_, uint64_t node,                                     \
        const troupe_spawn_options_t *options, const state_type *initial,     \
        int timeout_ms, protocol##_ref_t *ref_p)                              \
    {                                                                         \
        return troupe_spawn_on(troupe_, node, &kind##_class_, options,        \
                               initial, timeout_ms,                           \
                               ref_p ? &ref_p->ref : NULL);                   \
    }                                                                         \
    TROUPE_INLINE_ int kind##_spawned_(                                       \
        troupe_self_t *self, void *state, int error, const void *outcome,     \
        void *arg, troupe_any_fn_t then)                                      \
    {                                                                         \
        typedef int (*then_t)(troupe_self_t *, void *, int,                   \
                              const protocol##_ref_t *, void *);              \
        return ((then_t)then)(self, state, error,                             \
                              (const protocol##_ref_t *)outcome, arg);        \
    }                                                                         \
    TROUPE_INLINE_ int kind##_spawn_on_then(                                  \
        troupe_self_t *self, uint64_t node,                                   \
        const troupe_spawn_options_t *options, const state_type *initial,     \
        int timeout_ms,                                                       \
        int (*then)(troupe_self_t * self, void *state, int error,             \
                    const protocol##_ref_t *ref, void *arg),                  \
        void *arg)                                                            \
    {                                                                         \
        return troupe_spawn_on_then(self, node, &kind##_class_, options,      \
                                    initial, timeout_ms, kind##_spawned_,     \
                                    (troupe_any_fn_t)then, arg);              \
    }                                                                         \
    TROUPE_INLINE_ int kind##_spawn_at(                                       \
        troupe_t *troupe_, const troupe_place_t *place,                       \
        const troupe_spawn_options_t *options, const state_type *initial,     \
        int timeout_ms, protocol##_ref_t *ref_p)                              \
    {                                                                         \
        uint64_t node;                                                        \
        int rc = troupe_place(troupe_, place, &node);                         \
        return rc ? rc                                                        \
                  : kind##_spawn_on(troupe_, node, options, initial,          \
                                    timeout_ms, ref_p);                       \
    }                                                                         \
    TROUPE_INLINE_ int kind##_spawn_at_then(                                  \
        troupe_self_t *self, const troupe_place_t *place,                     \
        const troupe_spawn_options_t *options, const state_type *initial,     \
        int timeout_ms,                                                       \
        int (*then)(troupe_self_t * self, void *state, int error,             \
                    const protocol##_ref_t *ref, void *arg),                  \
        void *arg)                                                            \
    {                                                                         \
        uint64_t node;                                                        \
        int rc = troupe_place(self, place, &node);                            \
        return rc ? rc                                                        \
                  : kind##_spawn_on_then(self, node, options, initial,        \
                                         timeout_ms, then, arg);              \
    }

#define TROUPE_ACTOR_AS(kind, protocol, state_type, ...)                      \
    static int kind##_receive_(troupe_self_t *self, void *state,              \
                               unsigned index, const void *content)           \
    {                                                                         \
        typedef state_type troupe_state_t_;                                   \
        static const struct {                                                 \
            int (*on_start)(troupe_self_t *, troupe_state_t_ *);              \
            void (*on_stop)(troupe_self_t *, troupe_state_t_ *, int reason);  \
            int (*on_undelivered)(troupe_self_t *, troupe_state_t_ *,         \
                                  const troupe_dead_letter_t *);              \
            int (*on_down)(troupe_self_t *, troupe_state_t_ *,                \
                           const troupe_down_t *);                            \
            int (*on_member)(troupe_self_t *, troupe_state_t_ *,              \
                             const troupe_member_event_t *);                  \
            int (*on_name)(troupe_self_t *, troupe_state_t_ *,                \
                           const troupe_name_event_t *);                      \
            protocol##_messages(TROUPE_SLOT_TELL_, TROUPE_SLOT_ASK_)          \
        } troupe_handlers_ = { __VA_ARGS__ };                                 \
        switch (index) {                                                      \
            protocol##_messages(TROUPE_CASE_TELL_, TROUPE_CASE_ASK_)          \
        case TROUPE_ON_START:                                                 \
            return troupe_handlers_.on_start                                  \
                       ? troupe_handlers_.on_start(                           \
                             self, (troupe_state_t_ *)state)                  \
                       : 0;                                                   \
        case TROUPE_ON_STOP:                                                  \
            if (troupe_handlers_.on_stop)                                     \
                troupe_handlers_.on_stop(self, (troupe_state_t_ *)state,      \
                                         *(const int *)content);              \
            return 0;                                                         \
        case TROUPE_ON_UNDELIVERED:                                           \
            return troupe_handlers_.on_undelivered                            \
                       ? troupe_handlers_.on_undelivered(                     \
                             self, (troupe_state_t_ *)state,                  \
                             (const troupe_dead_letter_t *)content)           \
                       : 0;                                                   \
        case TROUPE_ON_DOWN:                                                  \
            return troupe_handlers_.on_down                                   \
                       ? troupe_handlers_.on_down(                            \
                             self, (troupe_state_t_ *)state,                  \
                             (const troupe_down_t *)content)                  \
                       : TROUPE_ETYPE;                                        \
        case TROUPE_ON_MEMBER:                                                \
            return troupe_handlers_.on_member                                 \
                       ? troupe_handlers_.on_member(                          \
                             self, (troupe_state_t_ *)state,                  \
                             (const troupe_member_event_t *)content)          \
                       : TROUPE_ETYPE;                                        \
        case TROUPE_ON_NAME:                                                  \
            return troupe_handlers_.on_name                                   \
                       ? troupe_handlers_.on_name(                            \
                             self, (troupe_state_t_ *)state,                  \
                             (const troupe_name_event_t *)content)            \
                       : TROUPE_ETYPE;                                        \
        default:                                                              \
            return TROUPE_ETYPE;                                              \
        }                                                                     \
    }                                                                         \
    static const troupe_class_t kind##_class_ = {                             \
        #kind, &protocol##_protocol_, sizeof(state_type), kind##_receive_     \
    };                                                                        \
    TROUPE_CLASS_ENTRY_(kind)                                                 \
    TROUPE_SPAWN_ON_(kind, protocol, state_type)                              \
    TROUPE_INLINE_ int kind##_spawn_with(                                      \
        troupe_from_t from, const troupe_spawn_options_t *options,            \
        const state_type *initial, protocol##_ref_t *ref_p)                   \
    {                                                                         \
        return troupe_spawn(from, &kind##_class_, options, initial,           \
                            &ref_p->ref);                                     \
    }                                                                         \
    TROUPE_INLINE_ int kind##_spawn(troupe_from_t from, const char *name,      \
                                   const state_type *initial,                 \
                                   protocol##_ref_t *ref_p)                   \
    {                                                                         \
        troupe_spawn_options_t options = { name, 0, 0, 0, NULL };             \
        return troupe_spawn(from, &kind##_class_, &options, initial,          \
                            &ref_p->ref);                                     \
    }

#define TROUPE_ACTOR(protocol, state_type, ...)                               \
    TROUPE_ACTOR_AS(protocol, protocol, state_type, __VA_ARGS__)

#endif
