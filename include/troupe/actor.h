/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_ACTOR_H
#define TROUPE_ACTOR_H

/*
 * Actors: private state plus a behaviour that handles one message at a time.
 * Programs normally define them with TROUPE_ACTOR (troupe/protocol.h).
 */

#include <troupe/message.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Indexes beside a protocol's own: the life of an actor, and what others tell
 * it. A class that has no handler for one of the latter returns TROUPE_ETYPE.
 */
enum {
    TROUPE_ON_START = 0xfff0,       /* before the first message */
    TROUPE_ON_STOP = 0xfff1,        /* message: const int *reason */
    TROUPE_ON_UNDELIVERED = 0xfff2, /* message: troupe_dead_letter_t */
    TROUPE_ON_DOWN = 0xfff3,        /* message: troupe_down_t */
    TROUPE_ON_MEMBER = 0xfff4,      /* message: troupe_member_event_t */
    TROUPE_ON_NAME = 0xfff5,        /* message: troupe_name_event_t */
};

/* Names one monitor of an actor; never 0. */
typedef uint64_t troupe_monitor_t;

/* What on_down is told: an actor, or a node, is no more. */
typedef struct troupe_down {
    troupe_monitor_t monitor; /* 0: a link */
    troupe_ref_t ref;         /* the actor; slot 0: the node */
    uint64_t node;            /* its node */
    int reason;               /* 0: it stopped; else why it ended */
    uint32_t reserved;
} troupe_down_t;

/*
 * What actors of one kind do, made by TROUPE_ACTOR. `receive` runs the
 * handler of message `index` and returns its result; 0, or an error that
 * fails the actor. A handler must not block.
 */
typedef struct troupe_class {
    const char *name;
    troupe_protocol_t *protocol;
    size_t state_bytes;
    int (*receive)(troupe_self_t *self, void *state, unsigned index,
                   const void *message);
} troupe_class_t;

/*
 * Makes a class known by its name, so that other nodes can create its actors on
 * this one (troupe_spawn_on). TROUPE_ACTOR does so by itself, before main or
 * when its shared library is loaded; call this for classes made otherwise, or
 * to say which of several classes of one name is meant.
 * Context: any thread, any time; calling it again changes nothing. Ownership:
 * the class lives as long as the program. Blocking: never.
 * Errors: EINVAL (also: the name is empty, longer than 127 characters or has
 * others than printable ones), EEXIST (another class was registered under that
 * name), ELIMIT, ENOMEM.
 */
int troupe_class_register(const troupe_class_t *actor_class);

/* TROUPE_ACTOR's. */
typedef struct troupe_class_entry {
    const troupe_class_t *actor_class;
    struct troupe_class_entry *next;
} troupe_class_entry_t;

void troupe_class_add_(troupe_class_entry_t *entry);
void troupe_class_remove_(troupe_class_entry_t *entry);

/*
 * What becomes of a message that finds its actor's mailbox full. An ask that is
 * refused or dropped fails at once with EFULL under every policy but WAIT.
 * Messages dropped by DROP_NEW and DROP_OLD are counted in troupe_stats and
 * leave no dead letter.
 */
enum troupe_overflow {
    /* Its sender waits, or is told: on this node a handler gets EFULL and a
     * thread of the program waits for room, see troupe_tell; messages of other
     * nodes are kept in order, in bounded memory (option parked_bytes_max), and
     * their senders are stopped in the same way, until there is room. */
    TROUPE_WAIT,
    /* It is refused: EFULL at once to senders of this node; to others a dead
     * letter with EFULL. */
    TROUPE_FAIL,
    TROUPE_DROP_NEW, /* it is dropped */
    TROUPE_DROP_OLD, /* the oldest that is not being handled yet is dropped:
                        for values of which only the latest count */
    TROUPE_DEAD_LETTER, /* it becomes a dead letter with EFULL, wherever its
                           sender is; to the sender it was sent */
};

/* Whether other actors of the cluster may have the name, too. */
enum troupe_unique {
    TROUPE_UNIQUE_NOT,
    /* No other has it. Two that take it at the same moment both get it; when
     * their nodes hear of each other the later one loses it (on_name,
     * TROUPE_NAME_LOST). Costs nothing. */
    TROUPE_UNIQUE_SOON,
    /* No other has it, at any time: all nodes are asked first. Needs option
     * strict_names on all nodes. Of two halves of a cluster that was cut only
     * the one that goes on (see doc/failure.md, Views) gives names away, also
     * those of the others, which lose theirs when they learn that they are out.
     * A dead holder's name is free as soon as the others agree on a view
     * without its node. From threads only: troupe_spawn, and troupe_spawn_on
     * the own node. */
    TROUPE_UNIQUE_STRICT,
};

/* How to spawn. All zero: the defaults. */
typedef struct troupe_spawn_options {
    const char *name;          /* unique on the node; NULL: anonymous. 1 to 255
                                  of [A-Za-z0-9_.-] and '/' */
    uint32_t mailbox_len_max;  /* 1 to 65535; 0: option mailbox_len_max */
    uint32_t overflow;         /* enum troupe_overflow */
    uint32_t unique;           /* enum troupe_unique */
    const char *tags;          /* of the name: see troupe_names_list; NULL:
                                  none; at most 255 bytes */
} troupe_spawn_options_t;

/*
 * Starts an actor on this node. It begins with a copy of `initial`
 * (state_bytes of it), or zeros when that is NULL; then on_start runs, in the
 * actor, before any message.
 * Context: any thread or actor. Blocking: never; with TROUPE_UNIQUE_STRICT a
 * message to each node and back, at most option ask_timeout_ms, serving actors.
 * Ownership: everything is copied; the class lives as long as the program.
 * Errors: ENOMEM, EINVAL, EEXIST (the name is taken on this node, or is unique
 * and known to be taken anywhere), ELIMIT (actors_max, names_max), ESTOPPING.
 * With TROUPE_UNIQUE_STRICT also: ECONTEXT (in a handler), EOPTION (option
 * strict_names is off), EPAUSED (this side of the cluster has no quorum),
 * EEXCLUDED (the others go on without this node), ETIMEDOUT.
 */
int troupe_spawn(troupe_from_t from, const troupe_class_t *actor_class,
                 const troupe_spawn_options_t *options, const void *initial,
                 troupe_ref_t *ref_p);

/*
 * troupe_spawn on a node by its id: this one, or another one, which has to know
 * a class of that name and layout. State and options are copied; on_start runs
 * there.
 * Context: any thread of the program; ECONTEXT in a handler. Blocking: up to
 * timeout_ms, see troupe/message.h; the thread serves actors meanwhile.
 * Errors: as troupe_spawn, from there; ECLASS (that node's program has no such
 * class), ETYPE (its protocol or state has another layout there), ENODE,
 * ETOOBIG (the state, against message_bytes_max), ETIMEDOUT (what it creates
 * later all the same is stopped again).
 */
int troupe_spawn_on(troupe_t *troupe, uint64_t node,
                    const troupe_class_t *actor_class,
                    const troupe_spawn_options_t *options, const void *initial,
                    int timeout_ms, troupe_ref_t *ref_p);

/*
 * The same from an actor; `then` runs in it as in troupe_ask_then, its result
 * the troupe_ref_t. Should this actor end before, the new one lives. What to do
 * about ECLASS and ETYPE is logged on that node, not on this one.
 * Context: actor only. Blocking: never. Errors: as troupe_ask_then, ETOOBIG,
 * EINVAL; all others go to `then`.
 */
int troupe_spawn_on_then(troupe_self_t *self, uint64_t node,
                         const troupe_class_t *actor_class,
                         const troupe_spawn_options_t *options,
                         const void *initial, int timeout_ms,
                         troupe_invoke_fn_t invoke, troupe_any_fn_t then,
                         void *arg);

/*
 * Asks an actor, here or anywhere, to stop after the messages it was sent
 * before. Those that come later become dead letters (ENOACTOR).
 * Context: any thread or actor. Blocking: never. Errors: as troupe_tell, but
 * never EFULL on this node.
 */
int troupe_stop_actor(troupe_from_t from, troupe_ref_t ref);

/* Stops the running actor when its handler returns. Context: actor only. */
void troupe_exit(troupe_self_t *self);

/*
 * Fails the running actor, from any depth of its handler: the handler does
 * not go on. The same as returning `error` from it. Memory and locks that the
 * handler holds are not released for it.
 * Context: actor only, not in on_stop. Does not return.
 */
void troupe_fail(troupe_self_t *self, int error) __attribute__((noreturn));

/*
 * Has the running actor's on_down called once, when `ref` ends: stopped
 * (reason 0), failed (its error), or there is no such actor (ENOACTOR), or its
 * node died or left (ENODE), or the other node's monitors_max is reached
 * (ELIMIT), or that node could not be told (ETRANSPORT). on_down comes after all tells and asks that the ended actor had
 * sent to this one before; only a node's death waits for nothing, and outcomes
 * of asks have a lane of their own. Two monitors of one actor tell twice. An
 * actor without on_down passes it over.
 * monitor_p: NULL if not wanted. A monitor ends with the actor that set it.
 * Context: actor only. Blocking: never. Errors: EINVAL, ELIMIT (monitors_max),
 * ENOMEM.
 */
int troupe_monitor(troupe_self_t *self, troupe_ref_t ref,
                   troupe_monitor_t *monitor_p);

/*
 * The same for another node: on_down is called when it dies or leaves, at once
 * when it is no member. reason: ENODE.
 */
int troupe_monitor_node(troupe_self_t *self, uint64_t node,
                        troupe_monitor_t *monitor_p);

/*
 * Ends a monitor: on_down will not be called for it any more.
 * Context: actor only. Blocking: never. Errors: EINVAL (not a monitor of this
 * actor, or it has told).
 */
int troupe_demonitor(troupe_self_t *self, troupe_monitor_t monitor);

/*
 * Ties the running actor and `ref` together: when one of them fails, or its
 * node dies or leaves, the other fails with ELINKED; if it has on_down, that is
 * called instead (monitor 0, and the reason) and decides. When one stops, the
 * link ends silently. A link to an actor that is not there fails at once
 * (ENOACTOR). A second link between the two changes nothing. When one side
 * links while the other unlinks, either may come last.
 * Context: actor only. Blocking: never. Errors: as troupe_monitor; unlink:
 * EINVAL (there is none).
 */
int troupe_link(troupe_self_t *self, troupe_ref_t ref);
int troupe_unlink(troupe_self_t *self, troupe_ref_t ref);

/*
 * Waits until an actor, here or anywhere, has ended, and says why, as on_down
 * does. timeout_ms: as in troupe_ask. The thread serves this node's actors
 * meanwhile.
 * Context: any thread of the program; ECONTEXT in a handler. Blocking: up to
 * timeout_ms. Errors: ETIMEDOUT, ECONTEXT, EINVAL, ELIMIT, ENOMEM.
 */
int troupe_wait_down(troupe_t *troupe, troupe_ref_t ref, int timeout_ms,
                     int *reason_p);

/* The running actor, its state, its node. Context: actor only. */
troupe_ref_t troupe_self_ref(const troupe_self_t *self);
void *troupe_self_state(const troupe_self_t *self);
troupe_t *troupe_self_node(const troupe_self_t *self);

#ifdef __cplusplus
}
#endif

#endif
