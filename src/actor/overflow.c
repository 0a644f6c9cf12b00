/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Full mailboxes: what becomes of a message (the actor's policy), and threads
 * of the program that wait until there is room.
 *
 * Who waits sets the actor's mark, behind a full fence tries once more, and
 * from then on relies on tri_actor_run: at the end of a turn that made room, or
 * with the release of the cell, its owner sees the mark (Dekker). Room further
 * away, in an outbox or a far mailbox, is the link's to tell. All of it comes
 * together in tri_room, and whoever waits tries again.
 */

#include "actor/runtime.h"
#include "base/clock.h"
#include "message/pool.h"

/* Who waits looks again after this time, should a wake-up go astray. */
#define LOOK_MS 5

/* --- policies ------------------------------------------------------------- */

static bool is_data(const struct tri_message *message)
{
    return message->kind == TRI_TELL || message->kind == TRI_ASK;
}

/* Ends a message that the policy drops. The asker of an ask is told. */
static void drop(struct tri_runtime *runtime, struct tri_message *message)
{
    atomic_fetch_add_explicit(&runtime->dropped, 1, memory_order_relaxed);
    if (message->kind == TRI_ASK)
        tri_answer(runtime, message->sender.node, message->ask, TROUPE_EFULL, 0,
                   0, NULL, 0);
    tri_message_free(message);
}

/* Takes the oldest tell or ask out of a chain, newest first, that begins with
 * a message that stays. NULL: there is none. */
static struct tri_message *take_oldest(struct tri_message *first)
{
    struct tri_message **found = NULL, *oldest;

    for (struct tri_message **link = &first->next; *link != NULL;
         link = &(*link)->next)
        if (is_data(*link))
            found = link;
    if (found == NULL)
        return NULL;
    oldest = *found;
    *found = oldest->next;
    return oldest;
}

static uint32_t length_of(const struct tri_message *message)
{
    uint32_t n = 0;

    for (; message != NULL; message = message->next)
        n++;
    return n;
}

/* Puts a chain back, below what came in meanwhile. */
static enum tri_push put_back(struct tri_mailbox *box,
                              struct tri_message *first)
{
    enum tri_push pushed;

    while ((pushed = tri_mailbox_put(box, first, length_of(first))) ==
           TRI_PUSH_FULL) {
        struct tri_message *more = tri_mailbox_take_new(box), *last = more;

        if (more == NULL)
            continue;
        while (last->next != NULL)
            last = last->next;
        last->next = first;
        first = more;
    }
    return pushed;
}

/*
 * Takes the new messages out, drops the oldest and puts the rest back with the
 * new one in front. The lock keeps the owner from taking messages that are
 * newer than those in our hands; others may push meanwhile. It is also held
 * once between the actor's end and the next one in its cell (troupe_spawn), so
 * that one is not meant when the generation is right. To the next one the
 * message is a stray.
 */
static void replace_oldest(struct tri_runtime *runtime,
                           struct tri_actor *actor,
                           struct tri_message *message)
{
    struct tri_message *oldest = NULL;
    enum tri_push pushed;

    tri_lock_acquire(&actor->take_lock);
    if (atomic_load_explicit(&actor->generation, memory_order_relaxed) !=
        message->generation) {
        pushed = tri_mailbox_push(&actor->mailbox, message, false);
    } else {
        message->next = tri_mailbox_take_new(&actor->mailbox);
        if (length_of(message) > atomic_load_explicit(&actor->mailbox.limit,
                                                      memory_order_relaxed))
            oldest = take_oldest(message);
        pushed = put_back(&actor->mailbox, message);
    }
    tri_lock_release(&actor->take_lock);
    if (oldest != NULL)
        drop(runtime, oldest);
    if (pushed == TRI_PUSH_OWNER)
        tri_schedule(&runtime->scheduler, actor);
}

static enum troupe_overflow overflow_of(struct tri_actor *actor)
{
    return atomic_load_explicit(&actor->overflow, memory_order_relaxed);
}

int tri_overflow(struct tri_runtime *runtime, struct tri_actor *actor,
                 struct tri_message *message)
{
    bool has_waiter = message->kind == TRI_ASK &&
                      message->sender.node == runtime->node;

    if (!is_data(message))
        return TROUPE_EFULL;
    switch (overflow_of(actor)) {
    case TROUPE_DROP_OLD:
        replace_oldest(runtime, actor, message);
        return 0;
    case TROUPE_DROP_NEW:
        if (has_waiter)
            return TROUPE_EFULL;
        drop(runtime, message);
        return 0;
    case TROUPE_DEAD_LETTER:
        if (has_waiter)
            return TROUPE_EFULL;
        tri_refuse(runtime, message, TROUPE_EFULL);
        return 0;
    default: /* the sender's affair */
        return TROUPE_EFULL;
    }
}

/* --- room ----------------------------------------------------------------- */

/* Has the actor's owner say when there is room. False: it is not to be waited
 * for. */
static bool await_actor(struct tri_actor *actor)
{
    if (overflow_of(actor) != TROUPE_WAIT)
        return false;
    atomic_store_explicit(&actor->awaited, 1, memory_order_relaxed);
    tri_fence_full(); /* see the head */
    return true;
}

int tri_deliver_or_await(struct tri_runtime *runtime,
                         struct tri_message *message, bool *wait_p)
{
    struct tri_actor *actor = tri_actor_find(&runtime->actors, message->slot,
                                             message->generation);
    int rc = actor != NULL ? tri_deliver_to(runtime, actor, message, true)
                           : TROUPE_ENOACTOR;

    *wait_p = rc == TROUPE_EFULL && await_actor(actor);
    return *wait_p ? tri_deliver_to(runtime, actor, message, true) : rc;
}

void tri_room(struct tri_runtime *runtime)
{
    tri_fence_full(); /* the room, before the look at who waits */
    if (atomic_load_explicit(&runtime->waiting, memory_order_relaxed) == 0)
        return;
    atomic_fetch_add_explicit(&runtime->rooms, 1, memory_order_release);
    troupe_wake((troupe_from_t){ .context_ = runtime });
}

void tri_room_in(struct tri_runtime *runtime, struct tri_actor *actor)
{
    struct tri_worker *worker = tri_worker_current();

    /* Who still finds no room sets it again. */
    atomic_store_explicit(&actor->awaited, 0, memory_order_relaxed);
    if (runtime->scheduler.has_peers) {
        tri_link_kick_flow(&runtime->link);
        tri_poll_kick(&runtime->scheduler);
        if (worker != NULL)
            tri_worker_poll_soon(worker);
    }
    tri_room(runtime);
}

/* --- waiting -------------------------------------------------------------- */

struct wait {
    struct tri_runtime *runtime;
    troupe_ref_t to;
    int (*attempt)(void *arg);
    void *arg;
    uint32_t rooms;
    uint32_t looked_ms;
    int rc;
    bool over; /* nothing is attempted any more */
};

/* True when an attempt makes sense, or would end in another error. */
static bool may_wait(struct wait *wait)
{
    struct tri_actor *actor;

    if (wait->to.node != wait->runtime->node || wait->to.slot == 0)
        return true; /* the link will tell */
    actor = tri_actor_find(&wait->runtime->actors, wait->to.slot,
                           wait->to.generation);
    return actor == NULL || await_actor(actor);
}

/* A condition: asked again after it was true. */
static bool is_over(void *arg)
{
    struct wait *wait = arg;
    /* acquire: pairs with the release in tri_room */
    uint32_t rooms = atomic_load_explicit(&wait->runtime->rooms,
                                          memory_order_acquire);
    uint32_t now_ms = tri_coarse_ms();

    if (wait->over ||
        (rooms == wait->rooms && now_ms - wait->looked_ms < LOOK_MS))
        return wait->over;
    wait->rooms = rooms;
    wait->looked_ms = now_ms;
    wait->over = !may_wait(wait);
    if (!wait->over)
        wait->rc = wait->attempt(wait->arg);
    wait->over |= wait->rc != TROUPE_EFULL;
    return wait->over;
}

int tri_send_waiting(struct tri_seat *seat, troupe_ref_t to,
                     int (*attempt)(void *arg), void *arg,
                     uint64_t deadline_ns)
{
    struct tri_runtime *runtime = seat->runtime;
    struct wait wait = {
        .runtime = runtime,
        .to = to,
        .attempt = attempt,
        .arg = arg,
        .rooms = atomic_load(&runtime->rooms) - 1, /* try at once */
        .rc = TROUPE_EFULL,
    };

    atomic_fetch_add(&runtime->waiting, 1);
    tri_fence_full(); /* pairs with the one of tri_room */
    while (tri_wait(seat, is_over, &wait,
                    tri_min(tri_deadline_ns(LOOK_MS), deadline_ns)) != 0 &&
           tri_now_ns() < deadline_ns)
        ;
    atomic_fetch_sub(&runtime->waiting, 1);
    return wait.rc;
}
