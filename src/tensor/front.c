/* SPDX-License-Identifier: BSD-3-Clause */

/* Entries, from their queue to their outcome; see front.h. */

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "message/message.h"
#include "tensor/exact.h"
#include "tensor/front.h"

/* How long the end of a view may be behind a death that a back end found. */
#define LINGER_NS (10000 * TRI_NS_PER_MS)
/* MPI's connections may break before a death is known; not long before. */
#define LINGER_MPI_NS (500 * TRI_NS_PER_MS)

/* --- fronts of a node ----------------------------------------------------- */

static struct tri_front *find_locked(struct tri_tensor *tensor,
                                     uint64_t group_id)
{
    struct tri_front *front = tensor->fronts;

    assert(tri_lock_is_held(&tensor->lock));
    while (front != NULL && front->group_id != group_id)
        front = front->next;
    return front;
}

static struct tri_front *make(struct tri_tensor *tensor, uint64_t group_id)
{
    struct tri_front *front = calloc(1, sizeof(*front));

    if (front == NULL)
        return NULL;
    front->tensor = tensor;
    front->group_id = group_id;
    front->is_early = true;
    front->end = &front->first;
    front->inbox_end = &front->inbox_first;
    return front;
}

static struct tri_front *hold(struct tri_tensor *tensor, uint64_t group_id,
                              bool is_early)
{
    struct tri_front *front, *spare = NULL;

    tri_lock_acquire(&tensor->lock);
    front = find_locked(tensor, group_id);
    if (front == NULL) {
        tri_lock_release(&tensor->lock);
        spare = make(tensor, group_id);
        if (spare == NULL)
            return NULL;
        tri_lock_acquire(&tensor->lock);
        front = find_locked(tensor, group_id);
        if (front == NULL) {
            front = spare;
            spare = NULL;
            front->next = tensor->fronts;
            tensor->fronts = front;
        }
    }
    front->is_early &= is_early;
    front->users++;
    tri_lock_release(&tensor->lock);
    free(spare);
    return front;
}

struct tri_front *tri_front_hold(struct tri_tensor *tensor, uint64_t group_id)
{
    return hold(tensor, group_id, false);
}

static uint32_t count_early_locked(const struct tri_tensor *tensor)
{
    uint32_t len = 0;

    for (const struct tri_front *front = tensor->fronts; front != NULL;
         front = front->next)
        len += front->is_early;
    return len;
}

/* Takes the oldest one out of the list if there are too many. NULL: there are
 * not. What has a group by now stays: its first call is yet to come. */
static struct tri_front *take_oldest_early(struct tri_tensor *tensor)
{
    struct tri_front **at, **oldest = NULL, *front = NULL;

    tri_lock_acquire(&tensor->lock);
    if (count_early_locked(tensor) > TRI_FRONT_EARLY_MAX) {
        for (at = &tensor->fronts; *at != NULL; at = &(*at)->next)
            if ((*at)->is_early && (*at)->users == 0 &&
                tri_view_find(tensor->runtime, (*at)->group_id) == NULL)
                oldest = at; /* new ones come to the head */
        if (oldest != NULL) {
            front = *oldest;
            *oldest = front->next;
        }
    }
    tri_lock_release(&tensor->lock);
    return front;
}

struct tri_front *tri_front_hold_early(struct tri_tensor *tensor,
                                       uint64_t group_id)
{
    struct tri_front *front = hold(tensor, group_id, true), *oldest;

    oldest = front != NULL ? take_oldest_early(tensor) : NULL;
    if (oldest == NULL)
        return front;
    tri_refusals_count(&tensor->runtime->link.refusals,
                       "collectives' records of too many unknown groups");
    tri_front_inbox_free(oldest);
    free(oldest);
    return front;
}

struct tri_front *tri_front_hold_of(const struct troupe_collective *entry)
{
    struct tri_tensor *tensor = entry->tensor;
    struct tri_front *front;

    tri_lock_acquire(&tensor->lock);
    front = tensor->fronts;
    while (front != NULL && front != entry->front)
        front = front->next;
    if (front != NULL)
        front->users++;
    tri_lock_release(&tensor->lock);
    return front;
}

void tri_front_release(struct tri_front *front)
{
    struct tri_tensor *tensor = front->tensor;

    tri_lock_acquire(&tensor->lock);
    assert(front->users > 0);
    front->users--;
    tri_lock_release(&tensor->lock);
}

/* --- the end of an entry -------------------------------------------------- */

static const struct tri_backend_ops *ops_of(struct tri_front *front,
                                            uint8_t backend)
{
    return front->tensor->backends[backend];
}

static void count_under_way(struct tri_front *front, int more)
{
    uint32_t now = atomic_load_explicit(&front->under_way,
                                        memory_order_relaxed);

    atomic_store_explicit(&front->under_way, now + (uint32_t)more,
                          memory_order_relaxed);
}

static void unlink_entry(struct tri_front *front,
                         struct troupe_collective *entry)
{
    struct troupe_collective **at = &front->first;

    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    if (*at == NULL)
        front->end = at;
    entry->next = NULL;
    count_under_way(front, -1);
}

/* False: the receiver has no room now. */
static bool send_outcome(struct tri_front *front,
                         struct troupe_collective *entry)
{
    struct tri_runtime *runtime = front->tensor->runtime;
    struct tri_message *message = tri_message_of(entry->message);
    int rc;

    if (entry->rc_p != NULL)
        *entry->rc_p = entry->rc;
    /* F is held: whoever waits for room serves actors, who may want F. */
    rc = tri_send_now(runtime, message, entry->to);
    if (rc == TROUPE_EFULL)
        return false;
    if (rc != 0)
        tri_refuse(runtime, message, rc);
    return true;
}

static void send_unsent(struct tri_front *front)
{
    struct troupe_collective **at = &front->unsent, *entry;

    while ((entry = *at) != NULL) {
        if (!send_outcome(front, entry)) {
            at = &entry->next;
            continue;
        }
        *at = entry->next;
        count_under_way(front, -1);
        free(entry);
    }
}

void tri_front_send_later_locked(struct tri_front *front,
                                 struct troupe_collective *entry)
{
    entry->next = front->unsent;
    front->unsent = entry;
    count_under_way(front, 1);
}

void tri_front_finish_locked(struct tri_front *front,
                             struct troupe_collective *entry, int rc)
{
    assert(tri_lock_is_held(&front->lock));
    assert(entry->coll.state == NULL || rc == 0);
    unlink_entry(front, entry);
    if (entry->internal) {
        entry->state = TRI_ENTRY_DONE;
        tri_choice_done(front, entry, rc);
        return;
    }
    if (entry->is_trial)
        tri_choice_done(front, entry, rc);
    tri_exact_free(&entry->exact);
    free(entry->scratch);
    entry->scratch = NULL;
    tri_front_moved(front);
    entry->state = TRI_ENTRY_DONE;
    entry->rc = rc;
    front->issued--;
    if (entry->message != NULL) {
        tri_front_send_later_locked(front, entry);
        return;
    }
    /* Pairs with the acquire load of who waits; it may be gone right after. */
    atomic_store_explicit(&entry->done, true, memory_order_release);
}

static void cancel(struct tri_front *front, struct troupe_collective *entry)
{
    if (entry->state == TRI_ENTRY_STARTED)
        ops_of(front, entry->backend)
            ->cancel(front->instances[entry->backend].backend, &entry->coll);
    entry->coll.state = NULL;
    entry->state = TRI_ENTRY_QUEUED;
}

static bool may_touch(struct tri_front *front, uint8_t backend)
{
    return !ops_of(front, backend)->starter_only ||
           tri_is_starter(front->tensor->runtime);
}

void tri_front_end_team_locked(struct tri_front *front, int rc)
{
    struct troupe_collective *entry, *next;

    assert(rc != 0);
    if (front->ended == 0)
        front->ended = rc;
    for (entry = front->first; entry != NULL; entry = next) {
        next = entry->next;
        if (entry->state == TRI_ENTRY_STARTED &&
            !may_touch(front, entry->backend))
            continue; /* the thread that may comes by */
        cancel(front, entry);
        tri_front_finish_locked(front, entry, front->ended);
    }
}

/* --- the start ------------------------------------------------------------ */

static bool overlap(const void *a, size_t a_bytes, const void *b,
                    size_t b_bytes)
{
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;

    return x < y + b_bytes && y < x + a_bytes;
}

/*
 * Back ends may read `in` as long as they write `out`, unless both are the same
 * place of a call whose blocks stay where they are. Else `in` is copied.
 */
static int copy_if_overlapping(struct tri_front *front,
                               struct troupe_collective *entry)
{
    struct tri_coll *coll = &entry->coll;
    size_t bytes = coll->count *
                   troupe_datatype_bytes((enum troupe_datatype)coll->type);
    size_t in_bytes = bytes, out_bytes = bytes;

    if (coll->in == NULL || coll->out == NULL || bytes == 0)
        return 0;
    if (coll->kind == TRI_COLL_REDUCE_SCATTER)
        in_bytes *= front->team.len;
    else if (coll->kind == TRI_COLL_ALLGATHER)
        out_bytes *= front->team.len;
    else if (coll->in == coll->out)
        return 0;
    if (!overlap(coll->in, in_bytes, coll->out, out_bytes))
        return 0;
    entry->scratch = malloc(in_bytes);
    if (entry->scratch == NULL)
        return TROUPE_ENOMEM;
    memcpy(entry->scratch, coll->in, in_bytes);
    coll->in = entry->scratch;
    return 0;
}

int tri_front_prepare_locked(struct tri_front *front,
                             struct troupe_collective *entry)
{
    struct tri_coll *coll = &entry->coll;
    size_t bytes = troupe_datatype_bytes((enum troupe_datatype)coll->type);
    int rc;

    if (entry->is_prepared)
        return 0;
    if (bytes > 0 && coll->count > PTRDIFF_MAX / bytes / front->team.len)
        return TROUPE_EINVAL;
    if (coll->kind == TRI_COLL_REDUCE || coll->kind == TRI_COLL_BCAST) {
        if (coll->root >= front->team.len)
            return TROUPE_EINVAL;
        if (coll->kind == TRI_COLL_REDUCE && coll->root != front->team.index)
            coll->out = NULL;
        else if (coll->out == NULL && coll->count > 0)
            return TROUPE_EINVAL;
    }
    rc = copy_if_overlapping(front, entry);
    if (rc == 0 && front->is_reproducible && front->team.len > 1)
        rc = tri_exact_begin(&entry->exact, coll, front->team.len,
                             front->team.index);
    entry->is_prepared = rc == 0;
    return rc;
}

void tri_front_queue_locked(struct tri_front *front,
                            struct troupe_collective *entry)
{
    entry->front = front;
    entry->tensor = front->tensor;
    entry->state = TRI_ENTRY_QUEUED;
    entry->next = NULL;
    *front->end = entry;
    front->end = &entry->next;
    count_under_way(front, 1);
}

static void remember(struct tri_front *front, const struct tri_coll *coll)
{
    struct tri_recent *recent =
        &front->recent[coll->number % TRI_FRONT_RECENT];

    recent->number = coll->number;
    memcpy(recent->signature, coll->signature, sizeof(recent->signature));
}

int tri_front_start_locked(struct tri_front *front,
                           struct troupe_collective *entry, uint8_t backend)
{
    const struct tri_backend_ops *ops = ops_of(front, backend);
    int rc;

    entry->backend = backend;
    entry->coll.team = &front->team;
    entry->coll.number = front->number + 1;
    entry->coll.state = NULL;
    if (entry->is_trial)
        entry->begun_ns = tri_now_ns();
    rc = ops->start(front->instances[backend].backend, &entry->coll);
    if (rc != 0)
        return rc;
    front->number++;
    entry->state = TRI_ENTRY_STARTED;
    if (front->choice.available)
        remember(front, &entry->coll);
    atomic_store_explicit(&front->last_backend, ops->name,
                          memory_order_relaxed);
    return 0;
}

/* One member: what it gives is what it gets. */
static void finish_alone(struct tri_front *front,
                         struct troupe_collective *entry)
{
    const struct tri_coll *coll = &entry->coll;
    size_t bytes = coll->count *
                   troupe_datatype_bytes((enum troupe_datatype)coll->type);

    if (coll->out != NULL && coll->in != NULL && bytes > 0)
        memmove(coll->out, coll->in, bytes);
    atomic_store_explicit(&front->last_backend, "local",
                          memory_order_relaxed);
    tri_front_finish_locked(front, entry, 0);
}

enum start {
    START_WAITS,
    START_DONE, /* it is over, and its owner may have freed it */
    START_BEGUN,
};

/* Starts the first of the queue. */
static enum start start_one(struct tri_front *front,
                            struct troupe_collective *entry)
{
    uint8_t backend;
    int rc = tri_front_prepare_locked(front, entry);

    if (rc == TROUPE_ENOMEM && front->team.len > 1) { /* others start it */
        tri_front_fail_locked(front, TRI_BACKEND_FRONT, rc);
        return START_WAITS;
    }
    if (rc != 0) {
        tri_front_finish_locked(front, entry, rc);
        return START_DONE;
    }
    if (front->team.len == 1) {
        finish_alone(front, entry);
        return START_DONE;
    }
    if (!tri_choice_of(front, entry, &backend))
        return START_WAITS;
    if (!may_touch(front, backend)) {
        atomic_store_explicit(&front->needs_starter, true,
                              memory_order_relaxed);
        return START_WAITS;
    }
    if (!front->instances[backend].ready)
        return START_WAITS;
    rc = tri_front_start_locked(front, entry, backend);
    if (rc != 0) {
        tri_error("a collective could not be started: %s",
                  troupe_strerror(rc));
        tri_front_fail_locked(front, backend, rc);
        return START_WAITS;
    }
    tri_front_moved(front);
    front->choice.starts++;
    return START_BEGUN;
}

static void start_queued(struct tri_front *front)
{
    struct troupe_collective *entry, *next;

    for (entry = front->first; entry != NULL; entry = next) {
        enum start start = START_BEGUN;

        next = entry->next;
        if (entry->state == TRI_ENTRY_QUEUED)
            start = start_one(front, entry);
        if (start == START_WAITS)
            return;
        if (start == START_DONE)
            continue;
        if (entry->exact != NULL)
            return; /* its next parts come before others, on all members */
    }
}

/* --- driving -------------------------------------------------------------- */

/* The thread that adopts has gone on to another view. */
static bool is_left(const struct tri_front *front)
{
    return tri_view_adopted_epoch(front->group) != front->team.epoch;
}

bool tri_front_leave_locked(struct tri_front *front)
{
    assert(tri_lock_is_held(&front->lock));
    if (front->has_team && !front->left && front->is_elastic &&
        is_left(front)) {
        tri_front_end_team_locked(front, TROUPE_EVIEW);
        /* What only the starting thread can end is first ended by it. */
        front->left = front->first == NULL;
    }
    return front->left;
}

static void check_view(struct tri_front *front)
{
    if (!front->has_team || front->ended != 0 ||
        (!tri_view_is_over(front->group) && !is_left(front)))
        return;
    if (!front->is_elastic)
        front->broken = TROUPE_ENODE;
    tri_front_end_team_locked(front,
                              front->is_elastic ? TROUPE_EVIEW : TROUPE_ENODE);
}

/* A record was lost here: its collective would wait for ever. */
static void check_lost(struct tri_front *front)
{
    if (tri_likely(atomic_load_explicit(&front->lost_epoch,
                                        memory_order_relaxed) !=
                   front->team.epoch) ||
        !front->has_team || front->ended != 0)
        return;
    tri_error("group %s: no room for a collective's record: its calls end",
              tri_view_group_name(front->group));
    tri_front_fail_locked(front, TRI_BACKEND_FRONT, TROUPE_ENOMEM);
}

/* A back end has found a node dead before the group has: the view will end. */
/* It failed, as the others may by a death that the group does not know yet. */
static void linger(struct troupe_collective *entry, int rc)
{
    entry->state = TRI_ENTRY_LINGERS;
    entry->begun_ns = tri_now_ns();
    entry->rc = rc;
}

static void end_lingering(struct tri_front *front,
                          const struct troupe_collective *entry)
{
    bool is_death = entry->rc == TROUPE_ENODE;

    if (tri_now_ns() - entry->begun_ns <=
        (is_death ? LINGER_NS : LINGER_MPI_NS))
        return;
    if (is_death)
        tri_front_end_team_locked(front, TROUPE_ENODE);
    else
        tri_front_fail_locked(front, entry->backend, entry->rc);
}

static void progress_one(struct tri_front *front,
                         struct troupe_collective *entry)
{
    const struct tri_backend_ops *ops = ops_of(front, entry->backend);
    struct tri_backend *backend = front->instances[entry->backend].backend;
    uint32_t moves = entry->coll.moves;
    int rc = ops->progress(backend, &entry->coll);

    if (rc != TRI_COLL_PENDING || entry->coll.moves != moves)
        tri_front_moved(front);
    if (rc == TRI_COLL_PENDING) {
        if (ops->starter_only)
            atomic_store_explicit(&front->needs_starter, true,
                                  memory_order_relaxed);
        if (front->choice.available)
            tri_front_wonder_locked(front, entry);
        return;
    }
    entry->coll.state = NULL;
    entry->state = TRI_ENTRY_QUEUED; /* nothing to cancel */
    if (rc == 0 && entry->exact != NULL) {
        rc = tri_exact_next(entry->exact, &entry->coll);
        if (rc == TRI_COLL_PENDING) /* its next part, on the same back end */
            rc = tri_front_start_locked(front, entry, entry->backend);
        else
            tri_front_finish_locked(front, entry, rc);
        if (rc == 0)
            return;
    }
    if (rc == 0)
        tri_front_finish_locked(front, entry, 0);
    else if (rc == TROUPE_ENODE || (rc == TROUPE_EMPI && front->is_elastic))
        linger(entry, rc);
    else if (rc == TROUPE_EMISMATCH)
        tri_front_mismatch_locked(front, &entry->coll, entry->backend);
    else
        tri_front_fail_locked(front, entry->backend, rc);
}

static void progress_all(struct tri_front *front)
{
    struct troupe_collective *entry, *next;

    for (entry = front->first; entry != NULL; entry = next) {
        next = entry->next;
        if (entry->state == TRI_ENTRY_STARTED) {
            if (may_touch(front, entry->backend))
                progress_one(front, entry);
            else
                atomic_store_explicit(&front->needs_starter, true,
                                      memory_order_relaxed);
        } else if (entry->state == TRI_ENTRY_LINGERS) {
            end_lingering(front, entry);
        }
        if (front->ended != 0)
            return; /* the list is another */
    }
}

void tri_front_drive_locked(struct tri_front *front)
{
    assert(tri_lock_is_held(&front->lock));
    atomic_store_explicit(&front->needs_starter,
                          !front->has_team || front->left,
                          memory_order_relaxed);
    /* First what came: a mismatch ends the view, too, and says more. */
    if (atomic_load_explicit(&front->inbox_len, memory_order_relaxed) > 0)
        tri_front_drain_locked(front);
    check_view(front);
    check_lost(front);
    if (front->has_team && front->ended == 0) {
        tri_front_opening_locked(front);
        start_queued(front);
        progress_all(front);
        /* What a step has freed, or decided. */
        start_queued(front);
    }
    if (front->ended != 0 && !front->left && front->first != NULL) {
        tri_front_end_team_locked(front, front->ended);
        if (front->first != NULL)
            atomic_store_explicit(&front->needs_starter, true,
                                  memory_order_relaxed);
    }
    if (front->unsent != NULL)
        send_unsent(front);
    tri_link_flush(&front->tensor->runtime->link);
}

bool tri_front_drive(struct tri_front *front)
{
    if (!tri_lock_try(&front->lock))
        return false;
    tri_front_drive_locked(front);
    tri_lock_release(&front->lock);
    return true;
}

/* --- a node's ------------------------------------------------------------- */

int tri_tensor_open(struct tri_runtime *runtime)
{
    struct tri_tensor *tensor = calloc(1, sizeof(*tensor));

    if (tensor == NULL)
        return TROUPE_ENOMEM;
    tensor->runtime = runtime;
    tensor->backends = tri_backends;
    runtime->tensor = tensor;
    runtime->tensor_record = tri_front_record;
    runtime->tensor_message = tri_front_message;
    runtime->tensor_closed = tri_front_closed;
    runtime->tensor_hook = tri_front_hook;
    return 0;
}

/* Takes it out of the list, and waits for those who look at it. */
static void unlink_front(struct tri_front *front)
{
    struct tri_tensor *tensor = front->tensor;
    struct tri_front **at;
    uint32_t users;

    tri_lock_acquire(&tensor->lock);
    for (at = &tensor->fronts; *at != front; at = &(*at)->next)
        ;
    *at = front->next;
    do {
        users = front->users;
        tri_lock_release(&tensor->lock);
        if (users > 0)
            sched_yield();
        tri_lock_acquire(&tensor->lock);
    } while (users > 0);
    tri_lock_release(&tensor->lock);
}

/* Who still owns an entry finds it done, and its front in no list. */
static void abandon_entries(struct tri_front *front)
{
    struct troupe_collective *entry, *next;

    tri_front_end_team_locked(front, TROUPE_ECANCELED);
    for (entry = front->unsent; entry != NULL; entry = next) {
        next = entry->next;
        if (!send_outcome(front, entry))
            tri_refuse(front->tensor->runtime, tri_message_of(entry->message),
                       TROUPE_EFULL);
        free(entry);
    }
    front->unsent = NULL;
}

static void front_destroy(struct tri_front *front)
{
    unlink_front(front);
    tri_lock_acquire(&front->lock);
    abandon_entries(front);
    tri_front_close_team_locked(front);
    tri_lock_release(&front->lock);
    tri_front_inbox_free(front);
    free(front);
}

void tri_front_closed(struct tri_runtime *runtime, uint64_t group_id)
{
    struct tri_tensor *tensor = runtime->tensor;
    struct tri_front *front;

    tri_lock_acquire(&tensor->lock);
    front = find_locked(tensor, group_id);
    if (front != NULL)
        front->is_early = false; /* from now on it goes here alone */
    tri_lock_release(&tensor->lock);
    if (front != NULL)
        front_destroy(front);
}

void tri_tensor_close(struct tri_runtime *runtime)
{
    struct tri_tensor *tensor = runtime->tensor;

    if (tensor == NULL)
        return;
    tri_front_stop_mover(tensor);
    runtime->tensor_hook = NULL;
    runtime->tensor_record = NULL;
    runtime->tensor_message = NULL;
    runtime->tensor_closed = NULL;
    while (tensor->fronts != NULL)
        front_destroy(tensor->fronts);
    free(tensor);
    runtime->tensor = NULL;
}
