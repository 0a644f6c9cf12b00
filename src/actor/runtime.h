/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_RUNTIME_H
#define TRI_RUNTIME_H

/*
 * What all of src/actor shares: the actor side of one node. src/node makes
 * and ends it; struct troupe begins with it.
 */

#include <setjmp.h>

#include <troupe/node.h>

#include "actor/actor.h"
#include "actor/asks.h"
#include "actor/dead_letters.h"
#include "actor/markers.h"
#include "actor/monitors.h"
#include "actor/names.h"
#include "actor/scheduler.h"
#include "link/link.h"
#include "os/bell.h"

struct tri_directory;
struct tri_member;
struct tri_roster;
struct tri_tensor;
struct tri_views;

/* Tells a node from a running actor behind a troupe_from_t. */
enum tri_context_kind {
    TRI_CONTEXT_NODE = 0x74726e6f,
    TRI_CONTEXT_SELF = 0x74727365,
};

/* Messages of one peer for one actor that came one after the other: one push
 * for all of them. */
struct tri_batch {
    struct tri_actor *actor; /* NULL: none */
    struct tri_peer *peer;
    struct tri_message *newest;
    struct tri_message *oldest;
    uint32_t len;
    uint32_t slot;
    uint32_t generation;
};

struct tri_runtime {
    uint32_t context_kind; /* TRI_CONTEXT_NODE; first */
    int rank;
    int size;
    uint64_t node;
    troupe_options_t options;
    struct tri_actor_table actors;
    struct tri_asks asks;
    struct tri_monitors monitors;
    struct tri_names names;
    struct tri_dead_letters dead_letters;
    struct tri_scheduler scheduler;
    struct tri_link link;
    struct tri_batch batch; /* poll lock */
    struct tri_bell bell;
    struct tri_markers markers;
    /* Drains and quiesces, of src/group: their records, and their markers of
     * tri_flow_mark, with the poll lock held. NULL: not yet. */
    void (*group_unparked)(struct tri_runtime *runtime, struct tri_peer *peer);
    void (*group_record)(struct tri_runtime *runtime, struct tri_peer *peer,
                         const struct tri_record *record, const void *payload);
    struct tri_group *group;
    /* Agreement on views, of src/group, and collectives, of src/tensor: their
     * records, with the poll lock held. The message is the callee's. NULL: not
     * yet. */
    void (*view_record)(struct tri_runtime *runtime, struct tri_peer *peer,
                        const struct tri_record *record, const void *payload);
    void (*tensor_record)(struct tri_runtime *runtime, struct tri_peer *peer,
                          const struct tri_record *record,
                          const void *payload);
    void (*tensor_message)(struct tri_runtime *runtime, struct tri_peer *peer,
                           struct tri_message *message);
    /* The same of registered state. */
    void (*state_record)(struct tri_runtime *runtime, struct tri_peer *peer,
                         const struct tri_record *record, const void *payload);
    void (*state_message)(struct tri_runtime *runtime, struct tri_peer *peer,
                          struct tri_message *message);
    /* To src/tensor, of the thread that closes a group; it is not freed yet. */
    void (*tensor_closed)(struct tri_runtime *runtime, uint64_t group);
    /* Strictly unique names, of src/group. Claims one for this node, waiting
     * until all nodes have agreed; when it is in the node's table, or will not
     * be, the claim is over. Errors: see TROUPE_UNIQUE_STRICT. NULL: EOPTION. */
    int (*claim_name)(struct tri_runtime *runtime, const char *name,
                      uint64_t *claim_p);
    void (*claim_over)(struct tri_runtime *runtime, uint64_t claim);
    struct tri_views *views;
    struct tri_tensor *tensor;
    _Atomic uint32_t stopping; /* no new actors */
    bool leaves_alone; /* set before: the other ranks may go on, or leave, too */
    _Atomic uint32_t waiting;  /* threads that wait for room */
    _Atomic uint32_t rooms;    /* grows when there may be some */
    _Atomic uint64_t dropped;  /* by overflow policies */
    /* Called now and then by the starting thread while it waits; true: call
     * again soon. NULL: none. For requests that can only be tested. */
    bool (*wait_hook)(struct tri_runtime *runtime);
    bool (*tensor_hook)(struct tri_runtime *runtime); /* as wait_hook */
    struct tri_requests *requests; /* src/mpi's; NULL: none */
    /* What else runs on the control thread: src/member, which is above. Called
     * when control_fd gets readable (`ready`), when the time has come that it
     * returned last, and after tri_control_kick; any other time is cheap, too.
     * Must not block. NULL: nothing. */
    uint64_t (*control_run)(struct tri_runtime *runtime, uint64_t now_ns,
                            bool ready);
    int control_fd;
    struct tri_member *member;
    struct tri_roster *roster;
    struct tri_directory *directory; /* src/name's; NULL: not yet */
    pthread_t starter; /* the thread that started the node */
};

/* The running actor, one for each worker. */
struct troupe_self {
    uint32_t context_kind; /* TRI_CONTEXT_SELF; first */
    bool kept;             /* the message being handled has another owner */
    bool in_message;       /* a message is being handled */
    uint8_t kind;          /* of the message being handled */
    int failure;           /* from troupe_fail */
    troupe_token_t open;   /* the ask to be answered; node 0: none */
    struct tri_runtime *runtime;
    struct tri_actor *actor; /* NULL: none is running */
    struct tri_message *message; /* NULL: none, or passed on */
    jmp_buf failed; /* to the start of the turn */
};

/* Who calls: the node, and the actor if it is one. NULL: neither. */
static inline struct tri_runtime *tri_runtime_of(troupe_from_t from,
                                                 troupe_self_t **self_p)
{
    const uint32_t *kind = from.context_;

    *self_p = NULL;
    if (tri_unlikely(kind == NULL))
        return NULL;
    if (*kind == TRI_CONTEXT_SELF) {
        *self_p = (troupe_self_t *)(uintptr_t)from.context_;
        return (*self_p)->runtime;
    }
    return *kind == TRI_CONTEXT_NODE
               ? (struct tri_runtime *)(uintptr_t)from.context_
               : NULL;
}

/* --- delivery.c: messages find their actor, or the reason why not -------- */

/*
 * Gives a message to its actor on this node. bounded: respect the mailbox's
 * limit. On success the message is the actor's.
 * Errors: ENOACTOR, EFULL. Any thread.
 */
int tri_deliver(struct tri_runtime *runtime, struct tri_message *message,
                bool bounded);

/*
 * A mailbox is full: does what its actor's policy says. 0: the message is taken
 * care of. Errors: EFULL, the caller's to deal with.
 */
int tri_overflow(struct tri_runtime *runtime, struct tri_actor *actor,
                 struct tri_message *message);

/* The same for an actor found already. */
static inline int tri_deliver_to(struct tri_runtime *runtime,
                                 struct tri_actor *actor,
                                 struct tri_message *message, bool bounded)
{
    enum tri_push pushed = tri_mailbox_push(&actor->mailbox, message, bounded);

    if (pushed == TRI_PUSH_OWNER)
        tri_schedule(&runtime->scheduler, actor);
    return tri_unlikely(pushed == TRI_PUSH_FULL)
               ? tri_overflow(runtime, actor, message)
               : 0;
}

/* As tri_deliver. wait_p: on EFULL, whether its actor is to be waited for; then
 * tri_room_in will say when to try again. */
int tri_deliver_or_await(struct tri_runtime *runtime,
                         struct tri_message *message, bool *wait_p);

/* There is room somewhere: who waits tries again. Any thread. */
void tri_room(struct tri_runtime *runtime);

/* There is room in this actor's mailbox, or it has ended. Its owner. */
void tri_room_in(struct tri_runtime *runtime, struct tri_actor *actor);

/*
 * Ends a message that cannot be delivered: the asker gets the reason, or the
 * sender's node a dead letter. Owns the message. Any thread.
 */
void tri_refuse(struct tri_runtime *runtime, struct tri_message *message,
                int reason);

/* Answers an ask of any node. Any thread. Errors: ENODE, ENOMEM. */
int tri_answer(struct tri_runtime *runtime, uint64_t node, uint64_t ask,
               int error, uint32_t type, uint16_t index, const void *payload,
               size_t bytes);

/* Notes a dead letter of an actor of this node, and tells the actor. */
void tri_dead_letter(struct tri_runtime *runtime,
                     const troupe_dead_letter_t *letter);

/*
 * Tells an actor of this node of an event: its handler `index`, one of
 * TROUPE_ON_…, gets a copy of the payload, in the order of these calls. A full
 * mailbox does not keep it out. One without such a handler passes it over.
 * Any thread, also with the poll lock held. Blocking: never.
 * Errors: ENOACTOR, ENOMEM.
 */
int tri_actor_event(struct tri_runtime *runtime, uint32_t slot,
                    uint32_t generation, unsigned index, const void *payload,
                    size_t bytes);

/* Answers, now or when it appears, who has a name here. Any thread. */
void tri_resolve(struct tri_runtime *runtime, const struct tri_record *record,
                 const void *name, size_t name_len, uint32_t timeout_ms);

/* What the link raises. */
struct tri_link_events tri_delivery_link_events(struct tri_runtime *runtime);

/* What the asks raise. */
struct tri_asks_events tri_delivery_asks_events(struct tri_runtime *runtime);

/* The free cells of the calling worker, or NULL. */
static inline struct tri_cells *tri_worker_cells(void)
{
    struct tri_worker *worker = tri_worker_current();

    return worker != NULL ? &worker->cells : NULL;
}

/* --- run.c: one turn of an actor ------------------------------------------ */

/*
 * Runs an owned actor: some messages, at most TRI_TURN_LEN. True: it has more
 * to do and is still owned.
 */
bool tri_actor_run(struct troupe_self *self, struct tri_actor *actor);

#define TRI_TURN_LEN 64u

/* --- wait.c: threads of the program that wait in a call ------------------- */

/* A thread's place while it waits: the guest's, or none. */
struct tri_seat {
    struct tri_runtime *runtime;
    struct tri_worker *guest; /* NULL: aside */
    bool is_late; /* taken in a wait: who ends one may not know who waits, and
                     wakes nobody; so it looks now and then */
};

/* Takes the guest's seat if it is free. True when it was. */
bool tri_seat_take(struct tri_runtime *runtime, struct tri_seat *seat);
void tri_seat_leave(struct tri_seat *seat);

/*
 * Waits until done(arg) or the deadline, serving the node's actors in the
 * guest's seat. Errors: ETIMEDOUT.
 */
int tri_wait(struct tri_seat *seat, bool (*done)(void *arg), void *arg,
             uint64_t deadline_ns);

/*
 * Calls attempt(arg), which sends to `to`, again and again when there may be
 * room, until it says something else than EFULL, or the deadline.
 */
int tri_send_waiting(struct tri_seat *seat, troupe_ref_t to,
                     int (*attempt)(void *arg), void *arg,
                     uint64_t deadline_ns);

/*
 * send.c: as troupe_send from a thread of the program, which does not wait for
 * room. Any thread. Blocking: never. Errors: EFULL, ENOACTOR, ENODE, ENOMEM; the
 * message stays the caller's then.
 */
int tri_send_now(struct tri_runtime *runtime, struct tri_message *message,
                 troupe_ref_t to);

/* Makes the guest look at what it waits for, if it sleeps. Any thread. */
void tri_wake_guest(struct tri_runtime *runtime);

/* Handles what is there, without waiting. */
void tri_serve_once(struct tri_seat *seat);

/* --- watch.c: who is told of whose end ------------------------------------ */

/* An actor has ended: its generation is none by now. Its owner. */
void tri_watch_end(struct tri_runtime *runtime, struct tri_actor *actor,
                   int reason);

/*
 * Another node has died or left (reason: ENODE): what watches it or its actors
 * is told, asks of it fail, and what it watched here is forgotten. May be
 * called again. Any thread.
 */
void tri_actors_node_gone(struct tri_runtime *runtime, uint64_t node,
                          int reason);

/* A MONITOR, DEMONITOR or DOWN. Poll lock held. */
void tri_watch_record(struct tri_runtime *runtime, struct tri_peer *peer,
                      const struct tri_record *record);

/* A MONITOR or LINK of ours never reached that node. Its watcher is told, with
 * the reason. Any thread, also with the peer's lock held. */
void tri_watch_undelivered(struct tri_runtime *runtime,
                           const struct tri_message *message, uint64_t node,
                           int reason);

/* A MONITOR or DEMONITOR of a thread of this node. */
void tri_watch_here(struct tri_runtime *runtime,
                    const struct tri_record *record);

/* --- remote.c: actors created from other nodes ---------------------------- */

/* A SPAWN. Poll lock held. */
void tri_spawn_record(struct tri_runtime *runtime, struct tri_peer *peer,
                      uint64_t ask, const void *payload, size_t bytes);

/* A reply that nobody waited for: should it be to a SPAWN, the actor is stopped
 * again. */
void tri_spawn_unwanted(struct tri_runtime *runtime, struct tri_peer *peer,
                        const struct tri_record *record, const void *payload);

/* --- send.c --------------------------------------------------------------- */

/*
 * Asks a node, this one too, for the actor of a name; waits for it to appear.
 * name: valid, name_len bytes. protocol: hash, or 0.
 * Errors: ENONAME, ETYPE, ENODE, ECONTEXT, …
 */
int tri_ask_name(struct tri_runtime *runtime, uint64_t node, const char *name,
                 size_t name_len, uint32_t protocol, uint32_t timeout_ms,
                 troupe_ref_t *ref_p);

/* What a node, this one too, is asked itself. */
struct tri_request {
    enum tri_record_kind kind;
    uint16_t index;
    troupe_ref_t to;
    const void *payload;
    size_t bytes;
    uint32_t result_bytes;
};

/*
 * Sends a request from a thread and waits for its outcome. timeout_ms: as in
 * troupe_ask. ask_p: its id, when it was sent.
 * Errors: as troupe_ask.
 */
int tri_request_wait(struct tri_runtime *runtime,
                     const struct tri_request *request, int timeout_ms,
                     void *result_p, uint64_t *ask_p);

/* Sends a request from an actor; as troupe_ask_then. */
int tri_request_then(troupe_self_t *self, const struct tri_request *request,
                     int timeout_ms, troupe_invoke_fn_t invoke,
                     troupe_any_fn_t then, void *arg);

/* The same without sending it: the caller ends the ask. */
int tri_request_begin(troupe_self_t *self, const struct tri_request *request,
                      int timeout_ms, troupe_invoke_fn_t invoke,
                      troupe_any_fn_t then, void *arg, uint64_t *ask_p);

#endif
