/* SPDX-License-Identifier: BSD-3-Clause */

/* The public calls about actors themselves: spawn, exit, fail, self. */

#include <stdlib.h>
#include <string.h>

#include "actor/runtime.h"
#include "base/log.h"
#include "message/type.h"

static int check_name(const char *name)
{
    size_t position;
    const char *reason;
    int rc = tri_name_check(name, strlen(name), &position, &reason);

    if (rc != 0)
        tri_error("an actor's name is not valid at byte %zu: %s", position,
                  reason);
    return rc;
}

static int check_tags(const troupe_spawn_options_t *options)
{
    if (options->name == NULL &&
        (options->unique != 0 || options->tags != NULL)) {
        tri_error("an actor without a name has no tags and is not unique");
        return TROUPE_EINVAL;
    }
    if (options->tags != NULL && strlen(options->tags) > TRI_TAGS_LEN_MAX) {
        tri_error("the tags of %s have more than %u bytes", options->name,
                  TRI_TAGS_LEN_MAX);
        return TROUPE_EINVAL;
    }
    return options->unique > TROUPE_UNIQUE_STRICT ? TROUPE_EINVAL : 0;
}

static int check_options(const struct tri_runtime *runtime,
                         const troupe_class_t *actor_class,
                         const troupe_spawn_options_t *options)
{
    if (runtime == NULL || actor_class == NULL ||
        actor_class->receive == NULL || actor_class->protocol == NULL)
        return TROUPE_EINVAL;
    if (options->mailbox_len_max > TRI_MAILBOX_LEN_MAX ||
        options->overflow > TROUPE_DEAD_LETTER)
        return TROUPE_EINVAL;
    if (options->name != NULL && check_name(options->name) != 0)
        return TROUPE_EINVAL;
    if (check_tags(options) != 0)
        return TROUPE_EINVAL;
    return atomic_load_explicit(&runtime->stopping, memory_order_relaxed)
               ? TROUPE_ESTOPPING
               : 0;
}

/* Small states live in the cell: then there is nothing to allocate. */
static bool is_small(const troupe_class_t *actor_class)
{
    return actor_class->state_bytes <=
           sizeof(((struct tri_actor *)NULL)->small_state);
}

static void init_state(struct tri_actor *actor,
                       const troupe_class_t *actor_class, void *memory,
                       const void *initial)
{
    actor->state = memory != NULL ? memory : actor->small_state;
    if (initial != NULL)
        memcpy(actor->state, initial, actor_class->state_bytes);
    else
        memset(actor->state, 0, actor_class->state_bytes);
}

static void init_mailbox(const struct tri_runtime *runtime,
                         struct tri_actor *actor,
                         const troupe_spawn_options_t *options)
{
    if (tri_unlikely(atomic_load_explicit(&actor->overflow,
                                          memory_order_relaxed) ==
                     TROUPE_DROP_OLD)) {
        /* the last one's: see replace_oldest */
        tri_lock_acquire(&actor->take_lock);
        tri_lock_release(&actor->take_lock);
    }
    atomic_store_explicit(&actor->mailbox.limit,
                          options->mailbox_len_max != 0
                              ? options->mailbox_len_max
                              : runtime->options.mailbox_len_max,
                          memory_order_relaxed);
    atomic_store_explicit(&actor->overflow, (uint16_t)options->overflow,
                          memory_order_relaxed);
}

/* The others agree to the name first. claim_p: 0: nobody was asked. */
static int claim_name(struct tri_runtime *runtime,
                      const troupe_spawn_options_t *options, uint64_t *claim_p)
{
    *claim_p = 0;
    if (options->unique != TROUPE_UNIQUE_STRICT)
        return 0;
    if (tri_worker_current() != NULL)
        return TROUPE_ECONTEXT;
    if (runtime->claim_name == NULL) {
        tri_error("the name %s cannot be strictly unique without option "
                  "strict_names", options->name);
        return TROUPE_EOPTION;
    }
    return runtime->claim_name(runtime, options->name, claim_p);
}

/* The name is public as soon as it is added, so the ref has to work already. */
static int publish_name(struct tri_runtime *runtime, struct tri_actor *actor,
                        const troupe_spawn_options_t *options,
                        troupe_ref_t ref)
{
    struct tri_lookup *waiting = NULL;
    struct tri_name_claim claim = {
        .text = options->name,
        .tags = options->tags,
        .protocol = tri_protocol_hash(actor->actor_class->protocol),
        .unique = options->unique != TROUPE_UNIQUE_NOT,
        .strict = options->unique == TROUPE_UNIQUE_STRICT,
        .ref = ref,
    };
    int rc = tri_names_add(&runtime->names, &claim, &actor->name, &waiting);

    while (waiting != NULL) {
        struct tri_lookup *next = waiting->next;
        bool matches = waiting->protocol == 0 ||
                       waiting->protocol == actor->name->protocol;

        tri_answer(runtime, waiting->node, waiting->ask,
                   matches ? 0 : TROUPE_ETYPE, 0, 0, &ref,
                   matches ? sizeof(ref) : 0);
        free(waiting);
        waiting = next;
    }
    return rc;
}

static int spawn(struct tri_runtime *runtime,
                 const troupe_class_t *actor_class,
                 const troupe_spawn_options_t *options, const void *initial,
                 troupe_ref_t *ref_p)
{
    struct tri_actor *actor;
    troupe_ref_t ref;
    void *memory = NULL;
    int rc;

    if (!is_small(actor_class) &&
        (memory = malloc(actor_class->state_bytes)) == NULL)
        return TROUPE_ENOMEM;
    rc = tri_cells_take(&runtime->actors, tri_worker_cells(), &actor);
    if (rc != 0) {
        free(memory);
        return rc;
    }
    init_state(actor, actor_class, memory, initial);
    actor->actor_class = actor_class;
    init_mailbox(runtime, actor, options);
    ref = (troupe_ref_t){ .node = runtime->node, .slot = actor->slot };
    ref.generation = tri_actor_generation_advance(actor);
    if (options->name != NULL) {
        rc = publish_name(runtime, actor, options, ref);
        if (rc != 0)
            actor->stopping = true; /* its first turn ends it */
    }
    if (rc == 0 && ref_p != NULL)
        *ref_p = ref;
    tri_schedule(&runtime->scheduler, actor);
    return rc;
}

int troupe_spawn(troupe_from_t from, const troupe_class_t *actor_class,
                 const troupe_spawn_options_t *options_, const void *initial,
                 troupe_ref_t *ref_p)
{
    static const troupe_spawn_options_t defaults;
    const troupe_spawn_options_t *options = options_ ? options_ : &defaults;
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);
    uint64_t claim;
    int rc = check_options(runtime, actor_class, options);

    if (rc == 0)
        rc = claim_name(runtime, options, &claim);
    if (rc != 0)
        return rc;
    rc = spawn(runtime, actor_class, options, initial, ref_p);
    if (claim != 0)
        runtime->claim_over(runtime, claim);
    return rc;
}

void troupe_exit(troupe_self_t *self)
{
    self->actor->stopping = true;
}

void troupe_fail(troupe_self_t *self, int error)
{
    self->failure = error < 0 ? error : TROUPE_EFAILED;
    longjmp(self->failed, 1);
}

troupe_ref_t troupe_self_ref(const troupe_self_t *self)
{
    const struct tri_actor *actor = self->actor;

    return (troupe_ref_t){
        .node = self->runtime->node,
        .slot = actor->slot,
        .generation = tri_actor_generation(actor),
    };
}

void *troupe_self_state(const troupe_self_t *self)
{
    return self->actor->state;
}

troupe_t *troupe_self_node(const troupe_self_t *self)
{
    return (troupe_t *)self->runtime;
}
