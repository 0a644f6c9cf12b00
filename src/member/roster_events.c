/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Telling users of changes: actors that subscribed get a message each, and a
 * bounded queue keeps the newest for threads that come and take.
 *
 * Only the control thread raises events and replays. A subscriber that wants a
 * replay has a mark, `replayed`: members in places before it were told of,
 * those behind it are told of when the mark gets there, as they are then. An
 * event about a place behind the mark is therefore not for this subscriber:
 * each gets a JOINED before anything else about a member, and only one.
 */

#include "member/roster_internal.h"

#include <stdlib.h>

#include "base/clock.h"

/* JOINEDs of replays in one run of the control thread. */
#define REPLAY_BATCH 64u
/* Events copied out under the lock at once. */
#define TAKE_BATCH 8u

int tri_roster_events_init(struct tri_roster *roster)
{
    roster->subscribers = calloc(TRI_SUBSCRIBERS_MAX,
                                 sizeof(*roster->subscribers));
    roster->queue = calloc(TROUPE_MEMBER_EVENTS_MAX, sizeof(*roster->queue));
    return roster->subscribers != NULL && roster->queue != NULL
               ? 0
               : TROUPE_ENOMEM;
}

void tri_roster_events_fini(struct tri_roster *roster)
{
    free(roster->subscribers);
    free(roster->queue);
}

/* --- the queue ------------------------------------------------------------ */

static void enqueue(struct tri_roster *roster,
                    const troupe_member_event_t *event)
{
    tri_lock_acquire(&roster->queue_lock);
    if (roster->queue_last - roster->queue_first == TROUPE_MEMBER_EVENTS_MAX) {
        roster->queue_first++;
        roster->queue_lost++;
    }
    roster->queue[roster->queue_last++ % TROUPE_MEMBER_EVENTS_MAX] = *event;
    tri_lock_release(&roster->queue_lock);
}

static size_t take_some(struct tri_roster *roster,
                        troupe_member_event_t *events, size_t len_max)
{
    size_t n = 0;

    tri_lock_acquire(&roster->queue_lock);
    for (; n < len_max && roster->queue_first < roster->queue_last; n++) {
        events[n] =
            roster->queue[roster->queue_first++ % TROUPE_MEMBER_EVENTS_MAX];
        events[n].lost = roster->queue_lost;
        roster->queue_lost = 0;
    }
    tri_lock_release(&roster->queue_lock);
    return n;
}

size_t tri_roster_take(struct tri_roster *roster, troupe_member_event_t *events,
                       size_t events_len_max)
{
    size_t n = 0, got;

    /* in parts: the control thread wants the lock, too */
    do {
        got = take_some(roster, events + n,
                        tri_min(events_len_max - n, TAKE_BATCH));
        n += got;
    } while (got > 0 && n < events_len_max);
    return n;
}

/* --- subscribers ---------------------------------------------------------- */

static bool is_of(const struct tri_subscriber *subscriber, uint32_t slot,
                  uint32_t generation)
{
    return subscriber->slot == slot && subscriber->generation == generation;
}

/* Of an actor that has ended: no event has found that yet. */
static bool is_over(const struct tri_roster *roster,
                    const struct tri_subscriber *subscriber)
{
    return subscriber->slot == 0 ||
           tri_actor_find(&roster->runtime->actors, subscriber->slot,
                          subscriber->generation) == NULL;
}

/* The place of this actor, else a free one, else NULL. */
static struct tri_subscriber *place_for_locked(struct tri_roster *roster,
                                               uint32_t slot,
                                               uint32_t generation)
{
    struct tri_subscriber *free_one = NULL;

    assert(tri_lock_is_held(&roster->subscribers_lock));
    for (uint32_t i = 0; i < roster->subscribers_len; i++) {
        struct tri_subscriber *subscriber = &roster->subscribers[i];

        if (is_of(subscriber, slot, generation))
            return subscriber;
        if (free_one == NULL && is_over(roster, subscriber))
            free_one = subscriber;
    }
    if (free_one == NULL && roster->subscribers_len < TRI_SUBSCRIBERS_MAX)
        free_one = &roster->subscribers[roster->subscribers_len++];
    return free_one;
}

int tri_roster_subscribe(struct tri_roster *roster, uint32_t slot,
                         uint32_t generation, bool replay)
{
    struct tri_subscriber *subscriber;

    tri_lock_acquire(&roster->subscribers_lock);
    subscriber = place_for_locked(roster, slot, generation);
    if (subscriber != NULL) {
        if (!is_of(subscriber, slot, generation))
            *subscriber = (struct tri_subscriber){ .slot = slot,
                                                   .generation = generation,
                                                   .replayed = UINT32_MAX };
        if (replay)
            subscriber->replayed = 0;
    }
    tri_lock_release(&roster->subscribers_lock);
    if (subscriber == NULL)
        return TROUPE_ELIMIT;
    if (replay)
        atomic_store_explicit(&roster->replays, 1, memory_order_release);
    return 0;
}

void tri_roster_unsubscribe(struct tri_roster *roster, uint32_t slot,
                            uint32_t generation)
{
    tri_lock_acquire(&roster->subscribers_lock);
    for (uint32_t i = 0; i < roster->subscribers_len; i++)
        if (is_of(&roster->subscribers[i], slot, generation))
            roster->subscribers[i].slot = 0;
    tri_lock_release(&roster->subscribers_lock);
}

/* False: there is no such place any more. */
static bool subscriber_at(struct tri_roster *roster, uint32_t i,
                          struct tri_subscriber *subscriber_p)
{
    bool there;

    tri_lock_acquire(&roster->subscribers_lock);
    there = i < roster->subscribers_len;
    if (there)
        *subscriber_p = roster->subscribers[i];
    tri_lock_release(&roster->subscribers_lock);
    return there;
}

/* Notes how a delivery went: who has ended goes, what memory lacked for is
 * counted. */
static void note(struct tri_roster *roster, uint32_t i,
                 const struct tri_subscriber *was, int rc)
{
    struct tri_subscriber *subscriber = &roster->subscribers[i];

    if (rc == 0 && was->lost == 0)
        return;
    tri_lock_acquire(&roster->subscribers_lock);
    if (is_of(subscriber, was->slot, was->generation)) {
        if (rc == TROUPE_ENOACTOR)
            subscriber->slot = 0;
        else
            subscriber->lost = rc == 0 ? 0 : subscriber->lost + 1;
    }
    tri_lock_release(&roster->subscribers_lock);
}

static void tell(struct tri_roster *roster, uint32_t i,
                 const struct tri_subscriber *subscriber,
                 troupe_member_event_t *event)
{
    event->lost = subscriber->lost;
    note(roster, i, subscriber,
         tri_actor_event(roster->runtime, subscriber->slot,
                         subscriber->generation, TROUPE_ON_MEMBER, event,
                         sizeof(*event)));
}

/* --- raising -------------------------------------------------------------- */

void tri_roster_raise(struct tri_roster *roster, enum troupe_member_what what,
                      uint32_t place)
{
    troupe_member_event_t event = { .what = what };
    struct tri_subscriber subscriber;

    tri_roster_read(roster, place, &event.member);
    enqueue(roster, &event);
    for (uint32_t i = 0; subscriber_at(roster, i, &subscriber); i++)
        if (subscriber.slot != 0 && (place < subscriber.replayed ||
                                     what == TROUPE_MEMBER_EXCLUDED))
            tell(roster, i, &subscriber, &event);
    tri_roster_changed(roster);
}

/* Goes on behind the mark of one subscriber. Returns how many were told. */
static uint32_t replay_some(struct tri_roster *roster, uint32_t i,
                            uint32_t batch)
{
    troupe_member_event_t event = { .what = TROUPE_MEMBER_JOINED };
    struct tri_subscriber subscriber;
    uint32_t told = 0;

    while (told < batch && subscriber_at(roster, i, &subscriber) &&
           subscriber.slot != 0 && subscriber.replayed != UINT32_MAX) {
        uint32_t mark = subscriber.replayed;
        bool more = tri_roster_next(roster, &mark, &event.member);
        bool same;

        tri_lock_acquire(&roster->subscribers_lock);
        same = is_of(&roster->subscribers[i], subscriber.slot,
                     subscriber.generation) &&
               roster->subscribers[i].replayed == subscriber.replayed;
        if (same)
            roster->subscribers[i].replayed = more ? mark : UINT32_MAX;
        tri_lock_release(&roster->subscribers_lock);
        if (!same || !more || (event.member.state != TROUPE_MEMBER_ALIVE &&
                               event.member.state != TROUPE_MEMBER_SUSPECT))
            continue;
        tell(roster, i, &subscriber, &event);
        told++;
    }
    return told;
}

uint64_t tri_roster_run(struct tri_roster *roster, uint64_t now_ns)
{
    uint32_t left = REPLAY_BATCH;
    struct tri_subscriber subscriber;

    if (!atomic_load_explicit(&roster->replays, memory_order_relaxed))
        return TRI_NS_NEVER;
    /* acquire: pairs with the release of who asks for one, later ones ask
     * again */
    (void)atomic_exchange_explicit(&roster->replays, 0, memory_order_acq_rel);
    for (uint32_t i = 0; left > 0 && subscriber_at(roster, i, &subscriber);
         i++)
        left -= replay_some(roster, i, left);
    if (left > 0)
        return TRI_NS_NEVER;
    atomic_store_explicit(&roster->replays, 1, memory_order_relaxed);
    return now_ns;
}
