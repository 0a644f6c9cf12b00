/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Actors created on other nodes. A SPAWN is an ask of a node; its answer is the
 * ref. An answer that nobody waits for any more says of an actor that nobody
 * can know of: it is stopped again.
 */

#include <stdlib.h>
#include <string.h>

#include "actor/classes.h"
#include "actor/runtime.h"
#include "base/log.h"
#include "message/pool.h"
#include "message/type.h"
#include "wire/spawn.h"

/* --- the asking side ------------------------------------------------------ */

/* The payload of a SPAWN, to be freed. Errors: EINVAL, ETOOBIG, ENOMEM. */
static int encode(const struct tri_runtime *runtime,
                  const troupe_class_t *actor_class,
                  const troupe_spawn_options_t *options, const void *initial,
                  struct tri_request *request)
{
    const char *name = options->name != NULL ? options->name : "";
    const char *tags = options->tags != NULL ? options->tags : "";
    size_t class_len = strlen(actor_class->name), name_len = strlen(name);
    size_t tags_len = strlen(tags);
    struct tri_spawn spawn = {
        .class_name = actor_class->name,
        .name = name,
        .initial = initial,
        .class_len = (uint32_t)class_len,
        .name_len = (uint32_t)name_len,
        .layout = tri_protocol_hash(actor_class->protocol),
        .state_bytes = (uint32_t)actor_class->state_bytes,
        .initial_bytes = initial != NULL ? (uint32_t)actor_class->state_bytes
                                         : 0,
        .mailbox_len_max = options->mailbox_len_max,
        .overflow = options->overflow,
        .tags = tags,
        .tags_len = (uint32_t)tags_len,
        .unique = options->unique != TROUPE_UNIQUE_NOT,
    };
    unsigned char *payload;

    if (!tri_class_name_is_valid(actor_class->name, class_len) ||
        (options->name != NULL && !tri_name_is_valid(name, name_len)) ||
        tags_len > TRI_TAGS_LEN_MAX ||
        options->unique > TROUPE_UNIQUE_SOON)
        return TROUPE_EINVAL;
    if (actor_class->state_bytes > runtime->options.message_bytes_max ||
        tri_spawn_bytes(&spawn) > runtime->options.message_bytes_max)
        return TROUPE_ETOOBIG;
    payload = malloc(tri_spawn_bytes(&spawn));
    if (payload == NULL)
        return TROUPE_ENOMEM;
    tri_spawn_encode(&spawn, payload);
    request->payload = payload;
    request->bytes = tri_spawn_bytes(&spawn);
    return 0;
}

static int request_of(const struct tri_runtime *runtime, uint64_t node,
                      const troupe_class_t *actor_class,
                      const troupe_spawn_options_t *options,
                      const void *initial, struct tri_request *request)
{
    static const troupe_spawn_options_t defaults;

    *request = (struct tri_request){
        .kind = TRI_SPAWN,
        .to = { .node = node, .slot = TRI_SLOT_NODE },
        .result_bytes = sizeof(troupe_ref_t),
    };
    if (actor_class == NULL || actor_class->name == NULL ||
        actor_class->protocol == NULL || node == 0)
        return TROUPE_EINVAL;
    return encode(runtime, actor_class, options != NULL ? options : &defaults,
                  initial, request);
}

int troupe_spawn_on(troupe_t *troupe, uint64_t node,
                    const troupe_class_t *actor_class,
                    const troupe_spawn_options_t *options, const void *initial,
                    int timeout_ms, troupe_ref_t *ref_p)
{
    struct tri_runtime *runtime = (struct tri_runtime *)troupe;
    struct tri_request request;
    troupe_ref_t ref;
    uint64_t ask;
    int rc;

    if (runtime == NULL || timeout_ms < 0)
        return TROUPE_EINVAL;
    if (tri_worker_current() != NULL)
        return TROUPE_ECONTEXT;
    if (node == runtime->node)
        return troupe_spawn((troupe_from_t){ .troupe_ = troupe }, actor_class,
                            options, initial, ref_p);
    rc = request_of(runtime, node, actor_class, options, initial, &request);
    if (rc != 0)
        return rc;
    rc = tri_request_wait(runtime, &request, timeout_ms, &ref, &ask);
    free((void *)(uintptr_t)request.payload);
    if (rc == TROUPE_ECLASS || rc == TROUPE_ETYPE)
        tri_warn("node %016llx %s the class '%s': does it run the same "
                 "program?",
                 (unsigned long long)node,
                 rc == TROUPE_ECLASS ? "does not know"
                                     : "has another layout of",
                 actor_class->name);
    if (rc == 0 && ref_p != NULL)
        *ref_p = ref;
    return rc;
}

/* Spawns here, and tells as if it had been elsewhere. */
static int spawn_here_then(troupe_self_t *self,
                           const troupe_class_t *actor_class,
                           const troupe_spawn_options_t *options,
                           const void *initial, int timeout_ms,
                           troupe_invoke_fn_t invoke, troupe_any_fn_t then,
                           void *arg)
{
    struct tri_runtime *runtime = self->runtime;
    struct tri_request request = { .to.node = runtime->node,
                                   .result_bytes = sizeof(troupe_ref_t) };
    troupe_ref_t ref;
    uint64_t ask;
    int rc = tri_request_begin(self, &request, timeout_ms, invoke, then, arg,
                               &ask);

    if (rc != 0)
        return rc;
    rc = troupe_spawn((troupe_from_t){ .self_ = self }, actor_class, options,
                      initial, &ref);
    tri_asks_complete(&runtime->asks, ask, rc, 0, &ref,
                      rc == 0 ? sizeof(ref) : 0);
    return 0;
}

int troupe_spawn_on_then(troupe_self_t *self, uint64_t node,
                         const troupe_class_t *actor_class,
                         const troupe_spawn_options_t *options,
                         const void *initial, int timeout_ms,
                         troupe_invoke_fn_t invoke, troupe_any_fn_t then,
                         void *arg)
{
    struct tri_request request;
    int rc;

    if (self == NULL || self->actor == NULL || invoke == NULL || then == NULL)
        return TROUPE_EINVAL;
    if (node == self->runtime->node)
        return spawn_here_then(self, actor_class, options, initial, timeout_ms,
                               invoke, then, arg);
    rc = request_of(self->runtime, node, actor_class, options, initial,
                    &request);
    if (rc != 0)
        return rc;
    rc = tri_request_then(self, &request, timeout_ms, invoke, then, arg);
    free((void *)(uintptr_t)request.payload);
    return rc;
}

/* --- the creating side ---------------------------------------------------- */

static int create(struct tri_runtime *runtime, uint64_t asker,
                  const struct tri_spawn *spawn, troupe_ref_t *ref_p)
{
    char name[TRI_NAME_LEN_MAX + 1], tags[TRI_TAGS_LEN_MAX + 1];
    troupe_spawn_options_t options = {
        .unique = spawn->unique,
        .mailbox_len_max = spawn->mailbox_len_max,
        .overflow = spawn->overflow,
    };
    const troupe_class_t *actor_class;
    int rc = tri_classes_find(spawn->class_name, spawn->class_len,
                              spawn->layout, spawn->state_bytes, &actor_class);

    if (rc != 0) {
        tri_warn("node %016llx wants an actor of class '%.*s': %s; does it run "
                 "the same program?",
                 (unsigned long long)asker, (int)spawn->class_len,
                 spawn->class_name,
                 rc == TROUPE_ECLASS ? "there is none here"
                                     : "it has another layout here");
        return rc;
    }
    if (spawn->name_len > TRI_NAME_LEN_MAX)
        return TROUPE_EINVAL;
    if (spawn->name_len > 0) {
        memcpy(name, spawn->name, spawn->name_len);
        name[spawn->name_len] = '\0';
        if (strlen(name) != spawn->name_len)
            return TROUPE_EINVAL;
        options.name = name;
    }
    if (spawn->tags_len > 0) {
        memcpy(tags, spawn->tags, spawn->tags_len);
        tags[spawn->tags_len] = '\0';
        options.tags = tags;
    }
    return troupe_spawn((troupe_from_t){ .context_ = runtime }, actor_class,
                        &options,
                        spawn->initial_bytes > 0 ? spawn->initial : NULL,
                        ref_p);
}

void tri_spawn_record(struct tri_runtime *runtime, struct tri_peer *peer,
                      uint64_t ask, const void *payload, size_t bytes)
{
    struct tri_spawn spawn;
    troupe_ref_t ref;
    int rc = TROUPE_EPROTO;

    if (tri_spawn_decode(payload, bytes, &spawn))
        rc = create(runtime, peer->node, &spawn, &ref);
    else
        tri_refusals_count(&runtime->link.refusals, "a malformed SPAWN");
    if (tri_answer(runtime, peer->node, ask, rc, 0, TRI_INDEX_SPAWNED, &ref,
                   rc == 0 ? sizeof(ref) : 0) != 0 &&
        rc == 0)
        troupe_stop_actor((troupe_from_t){ .context_ = runtime }, ref);
}

void tri_spawn_unwanted(struct tri_runtime *runtime, struct tri_peer *peer,
                        const struct tri_record *record, const void *payload)
{
    troupe_ref_t ref;

    if (record->index != TRI_INDEX_SPAWNED || record->value != 0 ||
        record->bytes != sizeof(ref))
        return;
    memcpy(&ref, payload, sizeof(ref));
    if (ref.node != peer->node)
        return;
    tri_info("an actor that node %016llx created too late is stopped",
             (unsigned long long)peer->node);
    troupe_stop_actor((troupe_from_t){ .context_ = runtime }, ref);
}
