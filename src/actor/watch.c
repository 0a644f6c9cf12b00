/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Who is told of whose end: the public calls, the records between nodes, and
 * the ends themselves. The table is monitors.c's.
 *
 * MONITOR and DEMONITOR travel on the lane of control: nothing holds them up.
 * A DOWN travels on the lane of data, behind what the actor had sent, and is
 * parked behind that, too, when the watcher's mailbox is full. So do LINK and
 * UNLINK: the DOWN of an actor that links and ends at once must not overtake
 * them, or it would find no link.
 *
 * Who adds an entry marks the watched actor's cell and then looks whether it
 * still lives; who ends an actor changes its generation and then looks at the
 * mark (Dekker): one of them fires the entry, or both try.
 */

#include <string.h>

#include "actor/runtime.h"
#include "base/log.h"
#include "message/pool.h"

/* --- delivering ----------------------------------------------------------- */

static void deliver_here(struct tri_runtime *runtime, struct tri_peer *peer,
                         struct tri_message *message)
{
    if (message->kind == TRI_REPLY) {
        tri_asks_complete(&runtime->asks, message->ask, 0, 0, message->payload,
                          message->bytes);
        tri_message_free(message);
        return;
    }
    message->sender = (troupe_ref_t){ .node = runtime->node };
    /* behind what the peer had sent before; beyond the limit otherwise */
    if (peer != NULL &&
        tri_link_has_parked(peer, message->slot, message->generation) &&
        tri_flow_park(peer, message) == 0)
        return;
    if (tri_deliver(runtime, message, false) != 0)
        tri_message_free(message);
}

/* An actor that stops because its node leaves is gone with the node: so it is
 * told, whichever of the two a watcher hears of first, and links end alike.
 * Ranks stop together: to each other their actors have stopped. */
static void tell_leaving(struct tri_runtime *runtime,
                         const struct tri_peer *there,
                         struct tri_message *message)
{
    int32_t reason = TROUPE_ENODE;

    if (there->rank >= 0 ||
        !atomic_load_explicit(&runtime->stopping, memory_order_relaxed))
        return;
    if (message->kind == TRI_DOWN && message->value == 0)
        message->value = reason;
    else if (message->kind == TRI_REPLY &&
             memcmp(message->payload, &(int32_t){ 0 }, sizeof(reason)) == 0)
        memcpy(message->payload, &reason, sizeof(reason));
}

/* peer: whose records are being handled, with the poll lock held; or NULL. */
static void deliver(struct tri_runtime *runtime, struct tri_peer *peer,
                    const struct tri_downs *downs)
{
    struct tri_message *message, *next;

    for (message = downs->first; message != NULL; message = next) {
        uint64_t to = message->sender.node;
        struct tri_peer *there;

        next = message->next;
        if (to == runtime->node) {
            deliver_here(runtime, peer, message);
            continue;
        }
        there = tri_link_find(&runtime->link, to);
        message->sender.node = runtime->node;
        if (there != NULL)
            tell_leaving(runtime, there, message);
        if (there == NULL ||
            tri_link_send_message(there, message, TRI_SEND_FORCED) != 0)
            tri_message_free(message); /* nobody is left to be told */
    }
}

static void fire_like(struct tri_runtime *runtime,
                      const struct tri_monitor_spec *spec, int reason)
{
    struct tri_downs downs = { NULL };

    tri_monitors_fire_like(&runtime->monitors, spec, reason, &downs);
    deliver(runtime, NULL, &downs);
}

static void fire(struct tri_runtime *runtime, uint64_t id, uint64_t node,
                 int reason)
{
    struct tri_downs downs = { NULL };

    tri_monitors_fire(&runtime->monitors, id, node, reason, &downs);
    deliver(runtime, NULL, &downs);
}

/* --- ends ----------------------------------------------------------------- */

/* An actor of this node is in an entry: its end will look for that. False: it
 * has ended. */
static bool mark(struct tri_runtime *runtime, troupe_ref_t ref)
{
    struct tri_actor *actor = tri_actor_table_cell(&runtime->actors, ref.slot);

    if (actor == NULL)
        return false;
    atomic_store_explicit(&actor->monitored, 1, memory_order_relaxed);
    tri_fence_full(); /* pairs with the one of tri_watch_end */
    return tri_actor_find(&runtime->actors, ref.slot, ref.generation) != NULL;
}

static int tell_node(struct tri_runtime *runtime, enum tri_record_kind kind,
                     const struct tri_monitor_spec *spec, uint64_t id)
{
    struct tri_peer *peer = tri_link_find(&runtime->link, spec->target.node);
    struct tri_record record = {
        .kind = (uint8_t)kind,
        .index = (uint16_t)spec->kind,
        .slot = spec->target.slot,
        .generation = spec->target.generation,
        .sender_node = runtime->node,
        .sender_slot = spec->watcher.slot,
        .sender_generation = spec->watcher.generation,
        .ask = id,
    };

    return peer != NULL ? tri_link_send(peer, &record, NULL, TRI_SEND_FORCED)
                        : TROUPE_ENODE;
}

/* The other end of a link tells itself; one of a node needs no telling. */
static void forget(struct tri_runtime *runtime,
                   const struct tri_monitor_spec *spec, uint64_t id)
{
    if (spec->kind == TRI_MONITOR_WATCH && spec->target.slot != 0 &&
        spec->target.node != runtime->node)
        tell_node(runtime, TRI_DEMONITOR, spec, id);
}

static __attribute__((noinline)) void
end(struct tri_runtime *runtime, troupe_ref_t ref, int reason)
{
    struct tri_monitor_spec spec;
    struct tri_downs downs = { NULL };
    uint64_t id;
    bool was_set;

    tri_monitors_fire_target(&runtime->monitors, ref, reason, &downs);
    deliver(runtime, NULL, &downs);
    while (tri_monitors_remove_any(&runtime->monitors, ref, &spec, &id,
                                   &was_set))
        if (was_set)
            forget(runtime, &spec, id);
}

void tri_watch_end(struct tri_runtime *runtime, struct tri_actor *actor,
                   int reason)
{
    troupe_ref_t ref = { runtime->node, actor->slot,
                         tri_actor_generation(actor) };

    tri_fence_full(); /* the new generation, before the look at the mark */
    if (tri_likely(!atomic_load_explicit(&actor->monitored,
                                         memory_order_relaxed)))
        return;
    atomic_store_explicit(&actor->monitored, 0, memory_order_relaxed);
    end(runtime, ref, reason);
}

void tri_actors_node_gone(struct tri_runtime *runtime, uint64_t node,
                          int reason)
{
    struct tri_downs downs = { NULL };

    tri_monitors_fire_node(&runtime->monitors, node, reason, &downs);
    deliver(runtime, NULL, &downs);
    tri_asks_fail_node(&runtime->asks, node, reason);
}

/* --- records -------------------------------------------------------------- */

static struct tri_monitor_spec reversed(const struct tri_monitor_spec *spec)
{
    return (struct tri_monitor_spec){
        .kind = spec->kind,
        .watcher = spec->target,
        .target = spec->watcher,
    };
}

static int add_taken(struct tri_runtime *runtime,
                     const struct tri_monitor_spec *spec)
{
    struct tri_monitor_spec back = reversed(spec);
    int rc = tri_monitors_add(&runtime->monitors, spec, NULL);

    if (spec->kind != TRI_MONITOR_LINK || (rc != 0 && rc != TROUPE_EEXIST))
        return rc;
    rc = tri_monitors_add(&runtime->monitors, &back, NULL);
    if (rc == TROUPE_EEXIST)
        return 0;
    if (rc != 0)
        tri_monitors_remove_like(&runtime->monitors, spec);
    return rc;
}

static void refuse(struct tri_runtime *runtime,
                   const struct tri_monitor_spec *spec, int reason)
{
    struct tri_peer *peer = tri_link_find(&runtime->link, spec->watcher.node);
    struct tri_record record = {
        .kind = TRI_DOWN,
        .index = (uint16_t)spec->kind,
        .slot = spec->watcher.slot,
        .generation = spec->watcher.generation,
        .sender_node = runtime->node,
        .sender_slot = spec->target.slot,
        .sender_generation = spec->target.generation,
        .ask = spec->watcher_id,
        .value = reason,
    };

    if (spec->kind == TRI_MONITOR_WAIT)
        tri_answer(runtime, spec->watcher.node, spec->watcher_id, reason, 0, 0,
                   NULL, 0);
    else if (peer != NULL)
        tri_link_send(peer, &record, NULL, TRI_SEND_FORCED);
}

/* Somebody, here or there, wants to know of the end of an actor here. */
static void take(struct tri_runtime *runtime,
                 const struct tri_monitor_spec *spec)
{
    int rc = add_taken(runtime, spec);

    if (rc != 0) {
        tri_warn("a monitor of another node or thread is refused: %s",
                 troupe_strerror(rc));
        refuse(runtime, spec, rc);
        return;
    }
    if (mark(runtime, spec->target))
        return;
    if (spec->kind == TRI_MONITOR_LINK) {
        struct tri_monitor_spec back = reversed(spec);

        tri_monitors_remove_like(&runtime->monitors, &back);
    }
    fire_like(runtime, spec, TROUPE_ENOACTOR);
}

static struct tri_monitor_spec spec_of(const struct tri_runtime *runtime,
                                       uint64_t watcher_node,
                                       const struct tri_record *record)
{
    bool is_wait = record->index == TRI_MONITOR_WAIT;
    bool is_link = record->index == TRI_MONITOR_LINK;

    return (struct tri_monitor_spec){
        .kind = (enum tri_monitor_kind)record->index,
        .watcher = { watcher_node, is_wait ? 0 : record->sender_slot,
                     is_wait ? 0 : record->sender_generation },
        .target = { runtime->node, record->slot, record->generation },
        .watcher_id = is_link ? 0 : record->ask,
    };
}

void tri_watch_here(struct tri_runtime *runtime,
                    const struct tri_record *record)
{
    struct tri_monitor_spec spec = spec_of(runtime, runtime->node, record);

    if (record->kind == TRI_MONITOR)
        take(runtime, &spec);
    else
        tri_monitors_remove_like(&runtime->monitors, &spec);
}

void tri_watch_undelivered(struct tri_runtime *runtime,
                           const struct tri_message *message, uint64_t node,
                           int reason)
{
    struct tri_monitor_spec spec = {
        .kind = TRI_MONITOR_LINK,
        .watcher = { runtime->node, message->sender.slot,
                     message->sender.generation },
        .target = { node, message->slot, message->generation },
    };
    struct tri_monitor_spec back = reversed(&spec);

    switch (message->index) {
    case TRI_MONITOR_WATCH:
        fire(runtime, message->ask, node, reason);
        break;
    case TRI_MONITOR_WAIT:
        tri_asks_complete(&runtime->asks, message->ask, reason, 0, NULL, 0);
        break;
    default: /* TRI_MONITOR_LINK */
        tri_monitors_remove_like(&runtime->monitors, &back);
        fire_like(runtime, &spec, reason);
        break;
    }
}

static void on_monitor(struct tri_runtime *runtime, struct tri_peer *peer,
                       const struct tri_record *record)
{
    struct tri_monitor_spec spec = spec_of(runtime, peer->node, record);

    take(runtime, &spec);
    if (tri_peer_is_dead(peer)) /* its death may have come before the entry */
        tri_actors_node_gone(runtime, peer->node, TROUPE_ENODE);
}

static void on_demonitor(struct tri_runtime *runtime, struct tri_peer *peer,
                         const struct tri_record *record)
{
    struct tri_monitor_spec spec = spec_of(runtime, peer->node, record);
    struct tri_monitor_spec back = reversed(&spec);

    tri_monitors_remove_like(&runtime->monitors, &spec);
    if (spec.kind == TRI_MONITOR_LINK)
        tri_monitors_remove_like(&runtime->monitors, &back);
}

static void on_down(struct tri_runtime *runtime, struct tri_peer *peer,
                    const struct tri_record *record)
{
    struct tri_monitor_spec spec = {
        .kind = TRI_MONITOR_LINK,
        .watcher = { runtime->node, record->slot, record->generation },
        .target = { peer->node, record->sender_slot,
                    record->sender_generation },
    };
    struct tri_monitor_spec back = reversed(&spec);
    int reason = record->value <= 0 ? record->value : TROUPE_EPROTO;
    struct tri_downs downs = { NULL };

    if (record->index == TRI_MONITOR_LINK) {
        tri_monitors_remove_like(&runtime->monitors, &back);
        tri_monitors_fire_like(&runtime->monitors, &spec, reason, &downs);
    } else {
        tri_monitors_fire(&runtime->monitors, record->ask, peer->node, reason,
                          &downs);
    }
    deliver(runtime, peer, &downs);
}

void tri_watch_record(struct tri_runtime *runtime, struct tri_peer *peer,
                      const struct tri_record *record)
{
    bool is_link = record->kind == TRI_LINK || record->kind == TRI_UNLINK;

    if (record->index >= TRI_MONITOR_KINDS || record->bytes != 0 ||
        (record->kind != TRI_DOWN &&
         is_link != (record->index == TRI_MONITOR_LINK))) {
        tri_refusals_count(&runtime->link.refusals, "a monitor of no kind");
        return;
    }
    switch (record->kind) {
    case TRI_MONITOR:
    case TRI_LINK:
        on_monitor(runtime, peer, record);
        break;
    case TRI_DEMONITOR:
    case TRI_UNLINK:
        on_demonitor(runtime, peer, record);
        break;
    default: /* TRI_DOWN */
        on_down(runtime, peer, record);
        break;
    }
}

/* --- monitors ------------------------------------------------------------- */

static bool is_actor(const troupe_self_t *self)
{
    return self != NULL && self->actor != NULL;
}

/* Adds an entry of the running actor. */
static int add(troupe_self_t *self, const struct tri_monitor_spec *spec,
               uint64_t *id_p)
{
    int rc = tri_monitors_add(&self->runtime->monitors, spec, id_p);

    /* its own end sees it, whatever else it says: the same thread's */
    atomic_store_explicit(&self->actor->monitored, 1, memory_order_relaxed);
    return rc;
}

int troupe_monitor(troupe_self_t *self, troupe_ref_t ref,
                   troupe_monitor_t *monitor_p)
{
    struct tri_monitor_spec spec = { .kind = TRI_MONITOR_WATCH,
                                     .target = ref };
    struct tri_runtime *runtime;
    uint64_t id;
    int rc;

    if (!is_actor(self) || ref.node == 0 || ref.slot == 0)
        return TROUPE_EINVAL;
    runtime = self->runtime;
    spec.watcher = troupe_self_ref(self);
    rc = add(self, &spec, &id);
    if (rc != 0)
        return rc;
    if (ref.node != runtime->node)
        rc = tell_node(runtime, TRI_MONITOR, &spec, id);
    else if (!mark(runtime, ref))
        rc = TROUPE_ENOACTOR;
    if (rc == TROUPE_ENODE || rc == TROUPE_ENOACTOR) {
        fire(runtime, id, ref.node, rc);
        rc = 0;
    }
    if (rc != 0) {
        bool was_set;

        tri_monitors_remove(&runtime->monitors, spec.watcher, id, &spec,
                            &was_set);
    } else if (monitor_p != NULL) {
        *monitor_p = id;
    }
    return rc;
}

int troupe_monitor_node(troupe_self_t *self, uint64_t node,
                        troupe_monitor_t *monitor_p)
{
    struct tri_monitor_spec spec = { .kind = TRI_MONITOR_WATCH,
                                     .target = { .node = node } };
    struct tri_peer *peer;
    uint64_t id;
    int rc;

    if (!is_actor(self) || node == 0 || node == self->runtime->node)
        return TROUPE_EINVAL;
    spec.watcher = troupe_self_ref(self);
    rc = add(self, &spec, &id);
    if (rc != 0)
        return rc;
    if (monitor_p != NULL)
        *monitor_p = id;
    tri_fence_full(); /* the entry, before the look at the state */
    peer = tri_link_find(&self->runtime->link, node);
    if (peer == NULL || tri_peer_is_dead(peer))
        fire(self->runtime, id, node, TROUPE_ENODE);
    return 0;
}

int troupe_demonitor(troupe_self_t *self, troupe_monitor_t monitor)
{
    struct tri_monitor_spec spec;
    bool was_set;

    if (!is_actor(self) ||
        !tri_monitors_remove(&self->runtime->monitors, troupe_self_ref(self),
                             monitor, &spec, &was_set))
        return TROUPE_EINVAL;
    if (was_set)
        forget(self->runtime, &spec, monitor);
    return 0;
}

/* --- links ---------------------------------------------------------------- */

int troupe_link(troupe_self_t *self, troupe_ref_t ref)
{
    struct tri_monitor_spec spec = { .kind = TRI_MONITOR_LINK, .target = ref };
    struct tri_monitor_spec back;
    struct tri_runtime *runtime;
    int rc;

    if (!is_actor(self) || ref.node == 0 || ref.slot == 0)
        return TROUPE_EINVAL;
    runtime = self->runtime;
    spec.watcher = troupe_self_ref(self);
    if (troupe_ref_equal(spec.watcher, ref))
        return 0;
    back = reversed(&spec);
    rc = add(self, &spec, NULL);
    if (rc != 0)
        return rc == TROUPE_EEXIST ? 0 : rc;
    rc = tri_monitors_add(&runtime->monitors, &back, NULL);
    if (rc == TROUPE_EEXIST)
        rc = 0;
    if (rc == 0 && ref.node != runtime->node)
        rc = tell_node(runtime, TRI_LINK, &spec, 0);
    else if (rc == 0 && !mark(runtime, ref))
        rc = TROUPE_ENOACTOR;
    if (rc == 0)
        return 0;
    tri_monitors_remove_like(&runtime->monitors, &back);
    if (rc != TROUPE_ENODE && rc != TROUPE_ENOACTOR) {
        tri_monitors_remove_like(&runtime->monitors, &spec);
        return rc;
    }
    fire_like(runtime, &spec, rc);
    return 0;
}

int troupe_unlink(troupe_self_t *self, troupe_ref_t ref)
{
    struct tri_monitor_spec spec = { .kind = TRI_MONITOR_LINK, .target = ref };
    struct tri_monitor_spec back;
    struct tri_runtime *runtime;

    if (!is_actor(self))
        return TROUPE_EINVAL;
    runtime = self->runtime;
    spec.watcher = troupe_self_ref(self);
    back = reversed(&spec);
    if (!tri_monitors_remove_like(&runtime->monitors, &spec))
        return TROUPE_EINVAL;
    tri_monitors_remove_like(&runtime->monitors, &back);
    if (ref.node != runtime->node)
        tell_node(runtime, TRI_UNLINK, &spec, 0);
    return 0;
}

/* --- threads -------------------------------------------------------------- */

int troupe_wait_down(troupe_t *troupe, troupe_ref_t ref, int timeout_ms,
                     int *reason_p)
{
    struct tri_runtime *runtime = (struct tri_runtime *)troupe;
    struct tri_request request = {
        .kind = TRI_MONITOR,
        .index = TRI_MONITOR_WAIT,
        .to = ref,
        .result_bytes = sizeof(int32_t),
    };
    int32_t reason = 0;
    uint64_t ask = 0;
    int rc;

    if (runtime == NULL || ref.node == 0 || ref.slot == 0)
        return TROUPE_EINVAL;
    rc = tri_request_wait(runtime, &request, timeout_ms, &reason, &ask);
    if (rc == TROUPE_ETIMEDOUT) {
        struct tri_record record = {
            .kind = TRI_DEMONITOR,
            .index = TRI_MONITOR_WAIT,
            .slot = ref.slot,
            .generation = ref.generation,
            .sender_node = runtime->node,
            .ask = ask,
        };
        struct tri_peer *peer = tri_link_find(&runtime->link, ref.node);

        if (ref.node == runtime->node)
            tri_watch_here(runtime, &record);
        else if (peer != NULL)
            tri_link_send(peer, &record, NULL, TRI_SEND_FORCED);
    }
    if (rc == TROUPE_ENODE) {
        reason = rc;
        rc = 0;
    }
    if (rc == 0 && reason_p != NULL)
        *reason_p = reason;
    return rc;
}
