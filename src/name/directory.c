/* SPDX-License-Identifier: BSD-3-Clause */
#include "name/directory.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* --- what the registry raises --------------------------------------------- */

static void on_send(void *context, uint64_t to, const void *body, size_t bytes)
{
    struct tri_directory *directory = context;
    struct tri_directory_packet *packet;

    if (directory->out.len == TRI_DIRECTORY_OUT_MAX)
        return;
    packet = &directory->out.packets[directory->out.len++];
    packet->to = to;
    packet->bytes = (uint32_t)bytes;
    memcpy(packet->body, body, bytes);
}

/* The name goes out of the node's own table with that table's lock, which is
 * taken before this one: later. */
static void keep_loss_locked(struct tri_directory *directory,
                             const struct tri_registry_entry *entry)
{
    struct tri_loss *loss = malloc(sizeof(*loss));

    if (loss == NULL) {
        tri_error("no memory to tell an actor that it lost the name %s",
                  entry->name);
        return;
    }
    loss->next = directory->losses;
    loss->ref = tri_directory_ref(entry);
    memcpy(loss->name, entry->name, entry->name_len + 1u);
    directory->losses = loss;
}

static void on_changed(void *context, enum tri_registry_what what,
                       const struct tri_registry_entry *entry)
{
    struct tri_directory *directory = context;

    switch (what) {
    case TRI_REGISTRY_ADDED:
        tri_directory_tell_locked(directory, TROUPE_NAME_ADDED, entry);
        break;
    case TRI_REGISTRY_REMOVED:
        tri_directory_tell_locked(directory, TROUPE_NAME_REMOVED, entry);
        break;
    default:
        keep_loss_locked(directory, entry);
        break;
    }
    if (atomic_load_explicit(&directory->waiting, memory_order_relaxed) > 0)
        troupe_wake((troupe_from_t){ .context_ = directory->runtime });
}

/* --- the control thread --------------------------------------------------- */

static void send_out(struct tri_directory *directory)
{
    for (uint32_t i = 0; i < directory->out.len; i++) {
        struct tri_directory_packet *packet = &directory->out.packets[i];

        /* what is lost the registry asks for again */
        (void)tri_member_send_registry(directory->runtime->member, packet->to,
                                       packet->body, packet->bytes);
    }
    directory->out.len = 0;
}

static void tell_loss(struct tri_directory *directory,
                      const struct tri_loss *loss)
{
    struct tri_runtime *runtime = directory->runtime;
    troupe_name_event_t event;

    memset(&event, 0, sizeof(event));
    event.what = TROUPE_NAME_LOST;
    event.ref = loss->ref;
    strcpy(event.name, loss->name);
    tri_names_unlist(&runtime->names, loss->name, loss->ref);
    tri_warn("the name %s is another actor's, which was first: the one here "
             "has lost it", loss->name);
    (void)tri_actor_event(runtime, loss->ref.slot, loss->ref.generation,
                          TROUPE_ON_NAME, &event, sizeof(event));
}

static void tell_losses(struct tri_directory *directory,
                        struct tri_loss *losses)
{
    while (losses != NULL) {
        struct tri_loss *next = losses->next;

        tell_loss(directory, losses);
        free(losses);
        losses = next;
    }
}

static void warn_if_full_locked(struct tri_directory *directory)
{
    uint64_t full = tri_registry_metrics(directory->registry).full;

    if (full > 0 && directory->full == 0)
        tri_warn("there is no room for more names of other nodes (option "
                 "names_max)");
    directory->full = full;
}

static void step(struct tri_directory *directory,
                 const struct tri_registry_event *event)
{
    struct tri_loss *losses;
    const char *wrong;

    pthread_mutex_lock(&directory->mutex);
    wrong = tri_registry_step(directory->registry, event);
    warn_if_full_locked(directory);
    losses = directory->losses;
    directory->losses = NULL;
    pthread_mutex_unlock(&directory->mutex);
    if (wrong != NULL)
        tri_refusals_count(&directory->runtime->link.refusals, wrong);
    tell_losses(directory, losses);
    send_out(directory);
}

static void on_member(void *context, const struct tri_swim_change *change,
                      uint64_t now_ns)
{
    struct tri_directory *directory = context;
    struct tri_registry_event event = { .now_ns = now_ns,
                                        .node = change->node };

    if (change->node == directory->runtime->node)
        return;
    if (change->before == TRI_SWIM_UNKNOWN &&
        (change->after == TRI_SWIM_ALIVE ||
         change->after == TRI_SWIM_SUSPECT)) {
        event.kind = TRI_REGISTRY_JOINED;
        step(directory, &event);
    }
    switch (change->after) {
    case TRI_SWIM_ALIVE:
        event.kind = TRI_REGISTRY_RECOVERED;
        break;
    case TRI_SWIM_SUSPECT:
        event.kind = TRI_REGISTRY_SUSPECTED;
        break;
    default:
        event.kind = TRI_REGISTRY_GONE;
        break;
    }
    step(directory, &event);
    /* who waits for a name of that node need not wait any more */
    if (atomic_load_explicit(&directory->waiting, memory_order_relaxed) > 0)
        troupe_wake((troupe_from_t){ .context_ = directory->runtime });
}

static void on_packet(void *context, uint64_t node, const unsigned char *body,
                      size_t bytes, uint64_t now_ns)
{
    struct tri_registry_event event = { .kind = TRI_REGISTRY_PACKET,
                                        .now_ns = now_ns,
                                        .node = node,
                                        .body = body,
                                        .body_bytes = bytes };

    step(context, &event);
}

static uint64_t on_tick(void *context, uint64_t now_ns)
{
    struct tri_directory *directory = context;
    struct tri_registry_event event = { .kind = TRI_REGISTRY_TICK,
                                        .now_ns = now_ns };
    uint64_t due_ns;

    step(directory, &event);
    pthread_mutex_lock(&directory->mutex);
    due_ns = tri_registry_due_ns(directory->registry);
    pthread_mutex_unlock(&directory->mutex);
    return due_ns;
}

/* --- this node's own names ------------------------------------------------ */

static void kick(struct tri_directory *directory)
{
    if (directory->runtime->member != NULL)
        tri_member_kick(directory->runtime->member);
}

/* With the mutex of the node's own table held. */
static int on_adding(void *context, const struct tri_name_claim *own)
{
    struct tri_directory *directory = context;
    struct tri_registry_claim claim = {
        .name = own->text,
        .tags = own->tags,
        .slot = own->ref.slot,
        .generation = own->ref.generation,
        .protocol = own->protocol,
        .unique = own->unique,
        .strict = own->strict,
    };
    int rc;

    pthread_mutex_lock(&directory->mutex);
    rc = tri_registry_add(directory->registry, tri_now_ns(), &claim);
    pthread_mutex_unlock(&directory->mutex);
    if (rc == TROUPE_ELIMIT)
        tri_error("there is no room for the name %s (option names_max)",
                  own->text);
    if (rc == 0)
        kick(directory);
    return rc;
}

static void on_removing(void *context, const char *text, troupe_ref_t ref)
{
    struct tri_directory *directory = context;

    pthread_mutex_lock(&directory->mutex);
    tri_registry_withdraw(directory->registry, tri_now_ns(), text, ref.slot,
                          ref.generation);
    pthread_mutex_unlock(&directory->mutex);
    kick(directory);
}

void tri_directory_lose_strict(struct tri_runtime *runtime)
{
    struct tri_directory *directory = runtime->directory;
    struct tri_loss *losses;

    if (directory == NULL)
        return;
    pthread_mutex_lock(&directory->mutex);
    tri_registry_lose_strict(directory->registry, tri_now_ns());
    losses = directory->losses;
    directory->losses = NULL;
    pthread_mutex_unlock(&directory->mutex);
    tell_losses(directory, losses);
}

/* --- life ----------------------------------------------------------------- */

static int open_registry(struct tri_directory *directory)
{
    struct tri_runtime *runtime = directory->runtime;
    struct tri_registry_sink sink = { directory, on_send, on_changed };
    struct tri_registry_config config;

    tri_registry_config_init(&config);
    config.node = runtime->node;
    config.seed = runtime->node ^ tri_now_ns();
    config.entries_max = runtime->options.names_max;
    config.owners_max = (uint32_t)tri_max(runtime->options.nodes_max,
                                          (size_t)runtime->size) + 1;
    tri_random_init(&directory->random, tri_mix64(config.seed));
    return tri_registry_create(&config, &sink, &directory->registry);
}

int tri_directory_open(struct tri_runtime *runtime)
{
    struct tri_directory *directory = calloc(1, sizeof(*directory));
    struct tri_member_client client = {
        .context = directory,
        .kind = TRI_PACKET_REGISTRY,
        .changed = on_member,
        .received = on_packet,
        .tick = on_tick,
    };
    struct tri_names_hooks hooks = {
        .context = directory,
        .adding = on_adding,
        .removing = on_removing,
    };
    int rc;

    if (directory == NULL)
        return TROUPE_ENOMEM;
    directory->runtime = runtime;
    pthread_mutex_init(&directory->mutex, NULL);
    runtime->directory = directory;
    rc = open_registry(directory);
    if (rc == 0 && runtime->member != NULL)
        rc = tri_member_attach(runtime->member, &client);
    if (rc == 0)
        runtime->names.hooks = hooks;
    return rc;
}

void tri_directory_close(struct tri_runtime *runtime)
{
    struct tri_directory *directory = runtime->directory;

    if (directory == NULL)
        return;
    runtime->names.hooks = (struct tri_names_hooks){ .context = NULL };
    runtime->directory = NULL;
    tri_registry_destroy(&directory->registry);
    free(directory->watches);
    pthread_mutex_destroy(&directory->mutex);
    while (directory->losses != NULL) {
        struct tri_loss *next = directory->losses->next;

        free(directory->losses);
        directory->losses = next;
    }
    free(directory);
}
