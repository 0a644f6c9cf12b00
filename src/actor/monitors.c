/* SPDX-License-Identifier: BSD-3-Clause */
#include "actor/monitors.h"

#include <stdlib.h>
#include <string.h>

#include "message/pool.h"

#define PER_BLOCK 256u
/* Entries a chain has on average when the table is full. */
#define PER_BUCKET 4u

int tri_monitors_init(struct tri_monitors *monitors, uint64_t node,
                      uint32_t monitors_max)
{
    uint64_t buckets = tri_pow2_up(monitors_max / PER_BUCKET + 1);

    memset(monitors, 0, sizeof(*monitors));
    monitors->node = node;
    monitors->monitors_max = monitors_max;
    monitors->buckets_mask = (uint32_t)buckets - 1;
    monitors->blocks = calloc(monitors_max / PER_BLOCK + 1,
                              sizeof(*monitors->blocks));
    monitors->by_target = calloc(buckets, sizeof(*monitors->by_target));
    monitors->by_watcher = calloc(buckets, sizeof(*monitors->by_watcher));
    if (monitors->blocks != NULL && monitors->by_target != NULL &&
        monitors->by_watcher != NULL)
        return 0;
    tri_monitors_fini(monitors);
    return TROUPE_ENOMEM;
}

static struct tri_monitor *entry(struct tri_monitors *monitors, uint32_t index)
{
    return &monitors->blocks[index / PER_BLOCK][index % PER_BLOCK];
}

void tri_monitors_fini(struct tri_monitors *monitors)
{
    for (uint32_t i = 0; i < monitors->len; i++)
        if (entry(monitors, i)->message != NULL)
            tri_message_free(entry(monitors, i)->message);
    for (uint32_t i = 0; i * PER_BLOCK < monitors->len; i++)
        free(monitors->blocks[i]);
    free(monitors->blocks);
    free(monitors->by_target);
    free(monitors->by_watcher);
    memset(monitors, 0, sizeof(*monitors));
}

/* --- chains, under the lock ----------------------------------------------- */

/* What is of another node is found when that dies: its place is the node's. */
static struct tri_monitor **bucket_of(const struct tri_monitors *monitors,
                                      struct tri_monitor **buckets,
                                      troupe_ref_t ref)
{
    uint64_t key = ref.node == monitors->node
                       ? (uint64_t)ref.generation << 32 | ref.slot
                       : ref.node;

    return &buckets[tri_mix64(key) & monitors->buckets_mask];
}

static void chain_locked(struct tri_monitors *monitors,
                         struct tri_monitor *monitor)
{
    struct tri_monitor **bucket = bucket_of(monitors, monitors->by_target,
                                            monitor->spec.target);

    assert(tri_lock_is_held(&monitors->lock));
    monitor->target_next = *bucket;
    monitor->target_link = bucket;
    if (*bucket != NULL)
        (*bucket)->target_link = &monitor->target_next;
    *bucket = monitor;
    bucket = bucket_of(monitors, monitors->by_watcher, monitor->spec.watcher);
    monitor->watcher_next = *bucket;
    monitor->watcher_link = bucket;
    if (*bucket != NULL)
        (*bucket)->watcher_link = &monitor->watcher_next;
    *bucket = monitor;
}

static void unchain_target_locked(struct tri_monitors *monitors,
                                  struct tri_monitor *monitor)
{
    assert(tri_lock_is_held(&monitors->lock));
    (void)monitors;
    *monitor->target_link = monitor->target_next;
    if (monitor->target_next != NULL)
        monitor->target_next->target_link = monitor->target_link;
}

/* Puts an entry back. Its message, if it still has one, is the caller's. */
static struct tri_message *free_locked(struct tri_monitors *monitors,
                                       struct tri_monitor *monitor)
{
    struct tri_message *message = monitor->message;

    assert(tri_lock_is_held(&monitors->lock));
    assert(monitor->state != TRI_MONITOR_FREE);
    if (monitor->state == TRI_MONITOR_SET)
        unchain_target_locked(monitors, monitor);
    *monitor->watcher_link = monitor->watcher_next;
    if (monitor->watcher_next != NULL)
        monitor->watcher_next->watcher_link = monitor->watcher_link;
    monitor->state = TRI_MONITOR_FREE;
    monitor->message = NULL;
    monitor->free_next = monitors->free_first;
    monitors->free_first = monitor;
    monitors->used--;
    return message;
}

static uint64_t id_of(const struct tri_monitor *monitor)
{
    return (uint64_t)monitor->generation << 32 | (monitor->index + 1);
}

static struct tri_monitor *find_locked(struct tri_monitors *monitors,
                                       uint64_t id)
{
    uint32_t index = (uint32_t)id - 1;
    struct tri_monitor *monitor;

    assert(tri_lock_is_held(&monitors->lock));
    if (index >= monitors->len)
        return NULL;
    monitor = entry(monitors, index);
    return monitor->state != TRI_MONITOR_FREE &&
                   monitor->generation == id >> 32
               ? monitor
               : NULL;
}

/* Node monitors and links are the same if both refs are; what has a number is
 * the same if that is. */
static struct tri_monitor *find_like_locked(struct tri_monitors *monitors,
                                            const struct tri_monitor_spec *spec)
{
    struct tri_monitor *monitor;

    assert(tri_lock_is_held(&monitors->lock));
    monitor = *bucket_of(monitors, monitors->by_watcher, spec->watcher);
    while (monitor != NULL &&
           (monitor->spec.kind != spec->kind ||
            monitor->spec.watcher_id != spec->watcher_id ||
            !troupe_ref_equal(monitor->spec.watcher, spec->watcher) ||
            !troupe_ref_equal(monitor->spec.target, spec->target)))
        monitor = monitor->watcher_next;
    return monitor;
}

/* --- adding and removing -------------------------------------------------- */

static int new_entry_locked(struct tri_monitors *monitors,
                            struct tri_monitor **monitor_p)
{
    uint32_t block = monitors->len / PER_BLOCK;
    struct tri_monitor *monitor = monitors->free_first;

    assert(tri_lock_is_held(&monitors->lock));
    if (monitor != NULL) {
        monitors->free_first = monitor->free_next;
        *monitor_p = monitor;
        return 0;
    }
    if (monitors->len >= monitors->monitors_max)
        return TROUPE_ELIMIT;
    if (monitors->blocks[block] == NULL) {
        monitors->blocks[block] = calloc(PER_BLOCK, sizeof(*monitor));
        if (monitors->blocks[block] == NULL)
            return TROUPE_ENOMEM;
    }
    monitor = entry(monitors, monitors->len);
    monitor->index = monitors->len++;
    *monitor_p = monitor;
    return 0;
}

int tri_monitors_add(struct tri_monitors *monitors,
                     const struct tri_monitor_spec *spec, uint64_t *id_p)
{
    struct tri_message *message = tri_message_alloc(sizeof(troupe_down_t));
    struct tri_monitor *monitor;
    int rc = 0;

    if (message == NULL)
        return TROUPE_ENOMEM;
    tri_lock_acquire(&monitors->lock);
    if (spec->kind == TRI_MONITOR_LINK &&
        find_like_locked(monitors, spec) != NULL)
        rc = TROUPE_EEXIST;
    if (rc == 0)
        rc = new_entry_locked(monitors, &monitor);
    if (rc == 0) {
        monitor->state = TRI_MONITOR_SET;
        monitor->generation++;
        monitor->spec = *spec;
        monitor->message = message;
        chain_locked(monitors, monitor);
        monitors->used++;
        if (id_p != NULL)
            *id_p = id_of(monitor);
    }
    tri_lock_release(&monitors->lock);
    if (rc != 0)
        tri_message_free(message);
    return rc;
}

/* Unlocks, with what remains of an entry that is removed, or NULL. */
static bool unlock_removing(struct tri_monitors *monitors,
                            struct tri_monitor *monitor,
                            struct tri_monitor_spec *spec_p, bool *was_set_p)
{
    struct tri_message *message = NULL;

    if (monitor != NULL) {
        *spec_p = monitor->spec;
        *was_set_p = monitor->state == TRI_MONITOR_SET;
        message = free_locked(monitors, monitor);
    }
    tri_lock_release(&monitors->lock);
    if (message != NULL)
        tri_message_free(message);
    return monitor != NULL;
}

bool tri_monitors_remove(struct tri_monitors *monitors, troupe_ref_t watcher,
                         uint64_t id, struct tri_monitor_spec *spec_p,
                         bool *was_set_p)
{
    struct tri_monitor *monitor;

    tri_lock_acquire(&monitors->lock);
    monitor = find_locked(monitors, id);
    if (monitor != NULL &&
        (monitor->spec.kind != TRI_MONITOR_WATCH ||
         !troupe_ref_equal(monitor->spec.watcher, watcher)))
        monitor = NULL; /* another's */
    return unlock_removing(monitors, monitor, spec_p, was_set_p);
}

bool tri_monitors_remove_like(struct tri_monitors *monitors,
                              const struct tri_monitor_spec *spec)
{
    struct tri_monitor_spec removed;
    bool was_set;

    tri_lock_acquire(&monitors->lock);
    return unlock_removing(monitors, find_like_locked(monitors, spec), &removed,
                           &was_set);
}

bool tri_monitors_remove_any(struct tri_monitors *monitors,
                             troupe_ref_t watcher,
                             struct tri_monitor_spec *spec_p, uint64_t *id_p,
                             bool *was_set_p)
{
    struct tri_monitor *monitor;

    tri_lock_acquire(&monitors->lock);
    monitor = *bucket_of(monitors, monitors->by_watcher, watcher);
    while (monitor != NULL &&
           !troupe_ref_equal(monitor->spec.watcher, watcher))
        monitor = monitor->watcher_next;
    if (monitor != NULL)
        *id_p = id_of(monitor);
    return unlock_removing(monitors, monitor, spec_p, was_set_p);
}

/* --- firing --------------------------------------------------------------- */

/* The message that tells the watcher. */
static void fill(const struct tri_monitors *monitors,
                 const struct tri_monitor *monitor, int reason)
{
    const struct tri_monitor_spec *spec = &monitor->spec;
    struct tri_message *message = monitor->message;
    bool is_link = spec->kind == TRI_MONITOR_LINK;
    troupe_down_t down = {
        .monitor = is_link ? 0 : id_of(monitor),
        .ref = spec->target,
        .node = spec->target.node,
        .reason = reason,
    };

    message->slot = spec->watcher.slot;
    message->generation = spec->watcher.generation;
    message->sender = spec->target;
    message->sender.node = spec->watcher.node;
    message->ask = spec->watcher_id;
    if (spec->kind == TRI_MONITOR_WAIT) {
        message->kind = TRI_REPLY;
        message->bytes = sizeof(int32_t);
        memcpy(message->payload, &(int32_t){ reason }, sizeof(int32_t));
    } else if (spec->watcher.node != monitors->node) {
        message->kind = TRI_DOWN;
        message->index = (uint16_t)spec->kind;
        message->value = reason;
        message->bytes = 0;
    } else {
        message->kind = is_link ? TRI_LINKED : TRI_EVENT;
        message->index = TROUPE_ON_DOWN;
        message->ask = id_of(monitor);
        memcpy(message->payload, &down, sizeof(down));
    }
}

static void fire_locked(struct tri_monitors *monitors,
                        struct tri_monitor *monitor, int reason,
                        struct tri_downs *downs, struct tri_message **freed)
{
    bool is_here = monitor->spec.watcher.node == monitors->node;
    struct tri_message *message;

    assert(tri_lock_is_held(&monitors->lock));
    if (monitor->state != TRI_MONITOR_SET)
        return;
    if (is_here && reason == 0 && monitor->spec.kind == TRI_MONITOR_LINK) {
        message = free_locked(monitors, monitor);
        message->next = *freed;
        *freed = message;
        return;
    }
    fill(monitors, monitor, reason);
    message = monitor->message;
    if (is_here && monitor->spec.kind != TRI_MONITOR_WAIT) {
        unchain_target_locked(monitors, monitor);
        monitor->state = TRI_MONITOR_FIRED;
        monitor->message = NULL;
    } else {
        free_locked(monitors, monitor);
    }
    /* chains begin with what was added last */
    message->next = downs->first;
    downs->first = message;
}

static void unlock_freeing(struct tri_monitors *monitors,
                           struct tri_message *freed)
{
    struct tri_message *next;

    tri_lock_release(&monitors->lock);
    for (; freed != NULL; freed = next) {
        next = freed->next;
        tri_message_free(freed);
    }
}

void tri_monitors_fire(struct tri_monitors *monitors, uint64_t id,
                       uint64_t node, int reason, struct tri_downs *downs)
{
    struct tri_message *freed = NULL;
    struct tri_monitor *monitor;

    tri_lock_acquire(&monitors->lock);
    monitor = find_locked(monitors, id);
    if (monitor != NULL && monitor->spec.target.node == node)
        fire_locked(monitors, monitor, reason, downs, &freed);
    unlock_freeing(monitors, freed);
}

void tri_monitors_fire_like(struct tri_monitors *monitors,
                            const struct tri_monitor_spec *spec, int reason,
                            struct tri_downs *downs)
{
    struct tri_message *freed = NULL;
    struct tri_monitor *monitor;

    tri_lock_acquire(&monitors->lock);
    monitor = find_like_locked(monitors, spec);
    if (monitor != NULL)
        fire_locked(monitors, monitor, reason, downs, &freed);
    unlock_freeing(monitors, freed);
}

void tri_monitors_fire_target(struct tri_monitors *monitors,
                              troupe_ref_t target, int reason,
                              struct tri_downs *downs)
{
    struct tri_message *freed = NULL;
    struct tri_monitor *monitor, *next;

    tri_lock_acquire(&monitors->lock);
    monitor = *bucket_of(monitors, monitors->by_target, target);
    for (; monitor != NULL; monitor = next) {
        next = monitor->target_next;
        if (troupe_ref_equal(monitor->spec.target, target))
            fire_locked(monitors, monitor, reason, downs, &freed);
    }
    unlock_freeing(monitors, freed);
}

/* As tri_monitors_fire_target for a node and all that is there. */
static void fire_there_locked(struct tri_monitors *monitors, uint64_t node,
                              int reason, struct tri_downs *downs,
                              struct tri_message **freed)
{
    struct tri_monitor *monitor, *next;

    assert(tri_lock_is_held(&monitors->lock));
    monitor = *bucket_of(monitors, monitors->by_target,
                         (troupe_ref_t){ .node = node });
    for (; monitor != NULL; monitor = next) {
        next = monitor->target_next;
        if (monitor->spec.target.node == node)
            fire_locked(monitors, monitor, reason, downs, freed);
    }
}

static void drop_watchers_locked(struct tri_monitors *monitors, uint64_t node,
                                 struct tri_message **freed)
{
    struct tri_monitor *monitor, *next;

    assert(tri_lock_is_held(&monitors->lock));
    monitor = *bucket_of(monitors, monitors->by_watcher,
                         (troupe_ref_t){ .node = node });
    for (; monitor != NULL; monitor = next) {
        struct tri_message *message;

        next = monitor->watcher_next;
        if (monitor->spec.watcher.node != node)
            continue;
        message = free_locked(monitors, monitor);
        message->next = *freed;
        *freed = message;
    }
}

void tri_monitors_fire_node(struct tri_monitors *monitors, uint64_t node,
                            int reason, struct tri_downs *downs)
{
    struct tri_message *freed = NULL;

    assert(node != monitors->node && reason != 0);
    tri_lock_acquire(&monitors->lock);
    fire_there_locked(monitors, node, reason, downs, &freed);
    drop_watchers_locked(monitors, node, &freed);
    unlock_freeing(monitors, freed);
}

bool tri_monitors_met(struct tri_monitors *monitors, uint64_t id)
{
    struct tri_monitor *monitor;

    tri_lock_acquire(&monitors->lock);
    monitor = find_locked(monitors, id);
    if (monitor != NULL && monitor->state == TRI_MONITOR_FIRED)
        free_locked(monitors, monitor);
    else
        monitor = NULL;
    tri_lock_release(&monitors->lock);
    return monitor != NULL;
}

uint32_t tri_monitors_used(struct tri_monitors *monitors)
{
    uint32_t used;

    tri_lock_acquire(&monitors->lock);
    used = monitors->used;
    tri_lock_release(&monitors->lock);
    return used;
}
