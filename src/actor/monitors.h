/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_MONITORS_H
#define TRI_MONITORS_H

/*
 * Who is told of whose end: one table for monitors, links and waiting threads
 * of this node, and for those of other nodes that watch actors here. An entry
 * is in two hash chains, by what it watches and by who watches:
 *
 *     watcher here,  target here       told by the target's end
 *     watcher here,  target elsewhere  told by a DOWN, or by its node's death
 *     watcher there, target here       a DOWN is sent at the target's end
 *
 * A link is two entries, one in each direction; when its ends are on two
 * nodes, both are on both.
 *
 *     free --add--> set --fire--> fired --met--> free
 *                    +----remove----+------------>
 *
 * Invariants
 *  1. An entry leaves `set` once: a monitor fires at most once.
 *  2. What a fire needs was allocated by add: it never lacks memory.
 *  3. Only an entry whose watcher is an actor here is ever `fired`: its message
 *     is on the way. Who removes it then is not told any more: the message
 *     finds no entry (tri_monitors_met).
 * Nothing is delivered under the lock: a fire puts messages into a list.
 */

#include <troupe/actor.h>

#include "base/lock.h"
#include "message/message.h"

/* As in the records of them: wire/record.h. */
enum tri_monitor_kind {
    TRI_MONITOR_WATCH,
    TRI_MONITOR_LINK,
    TRI_MONITOR_WAIT, /* a thread; watcher_id: its ask */
    TRI_MONITOR_KINDS,
};

struct tri_monitor_spec {
    enum tri_monitor_kind kind;
    troupe_ref_t watcher; /* slot 0: a thread */
    troupe_ref_t target;  /* slot 0: the node */
    uint64_t watcher_id;  /* at the watcher's node, if that is another one, or
                             the ask of a wait; links: 0 */
};

enum tri_monitor_state {
    TRI_MONITOR_FREE,
    TRI_MONITOR_SET,
    TRI_MONITOR_FIRED,
};

struct tri_monitor {
    enum tri_monitor_state state;
    uint32_t index;
    uint32_t generation; /* with the index, its id */
    struct tri_monitor_spec spec;
    struct tri_monitor *target_next, **target_link;   /* while set */
    struct tri_monitor *watcher_next, **watcher_link; /* while not free */
    struct tri_monitor *free_next;
    struct tri_message *message; /* while set */
};

struct tri_monitors {
    uint64_t node; /* ours */
    uint32_t monitors_max;
    struct tri_lock lock; /* what follows */
    struct tri_monitor **blocks;
    struct tri_monitor **by_target;
    struct tri_monitor **by_watcher;
    uint32_t buckets_mask;
    uint32_t len; /* entries ever used */
    uint32_t used;
    struct tri_monitor *free_first;
};

/*
 * Messages of fired entries, in the order these were added. sender: who ended,
 * but its node is the watcher's, where the message has to go. By kind:
 *     TRI_EVENT, TRI_LINKED  to an actor here
 *     TRI_DOWN               to an actor elsewhere
 *     TRI_REPLY              to a waiting thread, anywhere
 */
struct tri_downs {
    struct tri_message *first;
};

/* Errors: ENOMEM. */
int tri_monitors_init(struct tri_monitors *monitors, uint64_t node,
                      uint32_t monitors_max);
void tri_monitors_fini(struct tri_monitors *monitors);

/*
 * Adds an entry. Any thread, as all that follow. What it watches may have ended
 * meanwhile: the caller looks after it has added.
 * Errors: EEXIST (such a link is there), ELIMIT, ENOMEM.
 */
int tri_monitors_add(struct tri_monitors *monitors,
                     const struct tri_monitor_spec *spec, uint64_t *id_p);

/* Removes a watcher's entry. False: there is none. spec_p: what it was;
 * was_set_p: it had not fired. */
bool tri_monitors_remove(struct tri_monitors *monitors, troupe_ref_t watcher,
                         uint64_t id, struct tri_monitor_spec *spec_p,
                         bool *was_set_p);

/* Removes the entry that is like this one, fired or not. */
bool tri_monitors_remove_like(struct tri_monitors *monitors,
                              const struct tri_monitor_spec *spec);

/* Removes some entry of a watcher. False: it has none. */
bool tri_monitors_remove_any(struct tri_monitors *monitors,
                             troupe_ref_t watcher,
                             struct tri_monitor_spec *spec_p, uint64_t *id_p,
                             bool *was_set_p);

/* Fires one entry if it is set and watches something of this node. */
void tri_monitors_fire(struct tri_monitors *monitors, uint64_t id,
                       uint64_t node, int reason, struct tri_downs *downs);

/* Fires the entry that is like this one. A link that ends with 0 tells nobody
 * here. */
void tri_monitors_fire_like(struct tri_monitors *monitors,
                            const struct tri_monitor_spec *spec, int reason,
                            struct tri_downs *downs);

/* Fires all that watch an actor. */
void tri_monitors_fire_target(struct tri_monitors *monitors,
                              troupe_ref_t target, int reason,
                              struct tri_downs *downs);

/* Another node is gone: fires what watches it or its actors, and drops what
 * was watched from there. */
void tri_monitors_fire_node(struct tri_monitors *monitors, uint64_t node,
                            int reason, struct tri_downs *downs);

/* The message of a fired entry is being handled. False: nobody wants it. */
bool tri_monitors_met(struct tri_monitors *monitors, uint64_t id);

/* Entries in use. */
uint32_t tri_monitors_used(struct tri_monitors *monitors);

#endif
