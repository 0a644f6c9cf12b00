/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Messages in memory of their own before they are sent: built in place by the
 * program, or gathered from its pieces. send.c moves them.
 */

#include <string.h>

#include "actor/runtime.h"
#include "message/pool.h"
#include "message/type.h"

/* Of what a message or a result is made. */
struct form {
    troupe_type_t *type;
    size_t fixed_bytes;
    uint16_t tail_flag;
    uint8_t kind;
};

static struct form form_of_message(troupe_type_t *type)
{
    return (struct form){ type, type->bytes, TROUPE_TYPE_TAIL, TRI_TELL };
}

static struct form form_of_result(troupe_type_t *type)
{
    return (struct form){ type, type->result_bytes, TROUPE_TYPE_RESULT_TAIL,
                          TRI_REPLY };
}

/* The payload is not filled in. Errors: EINVAL, ETOOBIG, ENOMEM. */
static int build(const struct tri_runtime *runtime, const struct form *form,
                 size_t tail_bytes, struct tri_message **message_p)
{
    size_t bytes_max = runtime->options.message_bytes_max;
    troupe_type_t *type = form->type;
    struct tri_message *message;

    tri_type_hash(type); /* fills in flags */
    if (tail_bytes > 0 && !(type->flags & form->tail_flag))
        return TROUPE_EINVAL;
    if (form->fixed_bytes > bytes_max ||
        tail_bytes > bytes_max - form->fixed_bytes)
        return TROUPE_ETOOBIG;
    message = tri_message_alloc(form->fixed_bytes + tail_bytes);
    if (message == NULL)
        return TROUPE_ENOMEM;
    message->kind = form->kind;
    message->type = type->hash;
    message->index = type->index;
    message->made_of = type;
    message->fixed_bytes = (uint32_t)form->fixed_bytes;
    *message_p = message;
    return 0;
}

/* --- in place ------------------------------------------------------------- */

static void *build_empty(troupe_from_t from, const struct form *form,
                         size_t tail_bytes)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);
    struct tri_message *message;

    if (runtime == NULL || build(runtime, form, tail_bytes, &message) != 0)
        return NULL;
    memset(message->payload, 0, form->fixed_bytes);
    return message->payload;
}

void *troupe_message_new(troupe_from_t from, troupe_type_t *type,
                         size_t tail_bytes)
{
    struct form form;

    if (type == NULL)
        return NULL;
    form = form_of_message(type);
    return build_empty(from, &form, tail_bytes);
}

void *troupe_result_new(troupe_from_t from, troupe_type_t *type,
                        size_t tail_bytes)
{
    struct form form;

    if (type == NULL)
        return NULL;
    form = form_of_result(type);
    return build_empty(from, &form, tail_bytes);
}

void troupe_drop(const void *content)
{
    if (content != NULL)
        tri_message_free(tri_message_of(content));
}

size_t troupe_message_tail_bytes(const void *content)
{
    const struct tri_message *message = tri_message_of(content);

    return message->bytes - message->fixed_bytes;
}

/* --- from pieces ---------------------------------------------------------- */

/* How long the pieces are together. Errors: EINVAL, ELIMIT, ETOOBIG. */
static int measure(const struct iovec *parts, unsigned parts_len,
                   size_t bytes_max, size_t *bytes_p)
{
    size_t bytes = 0;

    if (parts_len > TROUPE_PARTS_MAX)
        return TROUPE_ELIMIT;
    if (parts == NULL && parts_len > 0)
        return TROUPE_EINVAL;
    for (unsigned i = 0; i < parts_len; i++) {
        if (parts[i].iov_base == NULL && parts[i].iov_len > 0)
            return TROUPE_EINVAL;
        if (parts[i].iov_len > bytes_max - bytes)
            return TROUPE_ETOOBIG;
        bytes += parts[i].iov_len;
    }
    *bytes_p = bytes;
    return 0;
}

/*
 * The array may begin before the fixed part's size ends, where that is padded;
 * then as many bytes are left over behind the pieces, as they are in a message
 * built in place.
 */
static void fill(struct tri_message *message, const void *content, size_t at,
                 const struct iovec *parts, unsigned parts_len)
{
    memcpy(message->payload, content, at);
    for (unsigned i = 0; i < parts_len; i++) {
        if (parts[i].iov_len == 0)
            continue;
        memcpy(message->payload + at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    memset(message->payload + at, 0, message->bytes - at);
}

/* A message of the program's, its payload to be sent or dropped. */
static int gather(troupe_from_t from, const struct form *form,
                  const void *content, const void *tail,
                  const struct iovec *parts, unsigned parts_len,
                  void **payload_p)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);
    size_t at = (uintptr_t)tail - (uintptr_t)content;
    struct tri_message *message;
    size_t bytes;
    int rc;

    if (runtime == NULL || content == NULL || at > form->fixed_bytes)
        return TROUPE_EINVAL;
    rc = measure(parts, parts_len, runtime->options.message_bytes_max, &bytes);
    if (rc == 0)
        rc = build(runtime, form, bytes, &message);
    if (rc != 0)
        return rc;
    fill(message, content, at, parts, parts_len);
    *payload_p = message->payload;
    return 0;
}

int troupe_tell_gather(troupe_from_t from, troupe_ref_t to, troupe_type_t *type,
                       const void *message, const void *tail,
                       const struct iovec *parts, unsigned parts_len)
{
    struct form form;
    void *gathered;
    int rc;

    if (type == NULL)
        return TROUPE_EINVAL;
    form = form_of_message(type);
    rc = gather(from, &form, message, tail, parts, parts_len, &gathered);
    if (rc != 0)
        return rc;
    rc = troupe_send(from, to, gathered);
    if (rc != 0)
        troupe_drop(gathered);
    return rc;
}

int troupe_ask_gather(troupe_from_t from, troupe_ref_t to, troupe_type_t *type,
                      const void *message, const void *tail,
                      const struct iovec *parts, unsigned parts_len,
                      int timeout_ms, void *result_p)
{
    struct form form;
    void *gathered;
    int rc;

    if (type == NULL)
        return TROUPE_EINVAL;
    form = form_of_message(type);
    rc = gather(from, &form, message, tail, parts, parts_len, &gathered);
    return rc == 0 ? troupe_ask_send(from, to, gathered, timeout_ms, result_p)
                   : rc;
}

int troupe_reply_gather(troupe_self_t *self, troupe_type_t *type,
                        const void *result, const void *tail,
                        const struct iovec *parts, unsigned parts_len)
{
    struct form form;
    void *gathered;
    int rc;

    if (type == NULL || self == NULL)
        return TROUPE_EINVAL;
    form = form_of_result(type);
    rc = gather((troupe_from_t){ .self_ = self }, &form, result, tail, parts,
                parts_len, &gathered);
    if (rc != 0)
        return rc;
    rc = troupe_reply_send(self, gathered);
    if (rc != 0)
        troupe_drop(gathered);
    return rc;
}
