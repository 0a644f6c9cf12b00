/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Records of collectives: checked, handed to the instance that they are for,
 * or kept in the front's inbox until it is there.
 *
 * Nothing is trusted: a record that makes no sense is counted
 * (troupe_refusals) and dropped.
 */

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "message/pool.h"
#include "tensor/front.h"

/* Looks at a call between two at the clock; the time without an outcome. */
#define LOOKS 64u
#define WONDER_NS (250 * TRI_NS_PER_MS)

static void refuse(struct tri_front *front, const char *reason)
{
    tri_refusals_count(&front->tensor->runtime->link.refusals, reason);
}

/* --- calls that do not match ---------------------------------------------- */

/* Every member says both; the text is the same but for who speaks. */
static void mismatched(struct tri_front *front, uint64_t number,
                       const struct tri_coll_mismatch *mismatch)
{
    char one[TRI_COLL_TEXT_BYTES], other[TRI_COLL_TEXT_BYTES];

    if (front->ended == TROUPE_EMISMATCH)
        return;
    tri_error("group %s: collective %llu does not match: member %u (node "
              "%016llx) called %s, member %u (node %016llx) %s",
              tri_view_group_name(front->group), (unsigned long long)number,
              mismatch->members[0],
              (unsigned long long)front->members[mismatch->members[0]].node,
              tri_coll_describe(mismatch->signatures[0], one),
              mismatch->members[1],
              (unsigned long long)front->members[mismatch->members[1]].node,
              tri_coll_describe(mismatch->signatures[1], other));
    if (!front->is_elastic)
        front->broken = TROUPE_EMISMATCH;
    tri_front_end_team_locked(front, TROUPE_EMISMATCH);
}

void tri_front_mismatch_locked(struct tri_front *front,
                               const struct tri_coll *coll, uint8_t backend)
{
    struct tri_coll_mismatch mismatch = { .members = { front->team.index,
                                              coll->culprit } };
    struct tri_piece piece = { &mismatch, sizeof(mismatch) };
    struct tri_coll_head head = { .number = coll->number,
                                  .backend = TRI_BACKEND_FRONT,
                                  .what = TRI_FRONT_MISMATCH,
                                  .tag = backend };

    memcpy(mismatch.signatures[0], coll->signature, sizeof(coll->signature));
    memcpy(mismatch.signatures[1], coll->culprit_signature,
           sizeof(coll->culprit_signature));
    if (coll->earlier != 0) {
        head.number = coll->earlier;
        mismatch.members[0] = coll->witness;
        memcpy(mismatch.signatures[0], coll->witness_signature,
               sizeof(coll->witness_signature));
    }
    assert(mismatch.members[0] < front->team.len);
    assert(mismatch.members[1] < front->team.len);
    for (uint32_t i = 0; i < front->team.len; i++)
        if (i != front->team.index)
            (void)tri_team_send(&front->team, i, TRI_COLL_CONTROL, &head,
                                &piece, 1);
    mismatched(front, head.number, &mismatch);
}

/* A back end that compares calls by a collective of its own (MPI's) finds it
 * out on all members that use it, and is not to be torn out of it: what MPI is
 * asked for and not waited for bars its end. */
static bool finds_out_itself(const struct tri_front *front,
                             const struct tri_coll_head *head)
{
    const struct troupe_collective *entry = front->first;

    while (entry != NULL && entry->coll.number != head->number)
        entry = entry->next;
    return entry != NULL && entry->state == TRI_ENTRY_STARTED &&
           entry->backend == head->tag &&
           front->tensor->backends[entry->backend]->all_find_mismatch;
}

void tri_front_wonder_locked(struct tri_front *front,
                             struct troupe_collective *entry)
{
    struct tri_coll_head head = { .number = entry->coll.number,
                                  .backend = TRI_BACKEND_FRONT,
                                  .what = TRI_FRONT_CALL };
    struct tri_piece piece = { entry->coll.signature,
                               sizeof(entry->coll.signature) };
    uint64_t now_ns;

    if (++entry->looks % LOOKS != 0)
        return;
    now_ns = tri_now_ns();
    if (entry->looked_ns == 0)
        entry->looked_ns = now_ns;
    if (now_ns - entry->looked_ns < WONDER_NS)
        return;
    entry->looked_ns = now_ns;
    for (uint32_t i = 0; i < front->team.len; i++)
        if (i != front->team.index)
            (void)tri_team_send(&front->team, i, TRI_COLL_CONTROL, &head,
                                &piece, 1);
}

/* A member waits for a call: is it what was called here? If this is not known
 * yet, or no more, it asks again. */
static void called(struct tri_front *front, uint32_t member, uint64_t number,
                   const uint64_t signature[2])
{
    const struct tri_recent *own = &front->recent[number % TRI_FRONT_RECENT];
    struct tri_coll coll = { .number = number, .culprit = member };

    if (number == 0 || own->number != number ||
        memcmp(own->signature, signature, sizeof(own->signature)) == 0)
        return;
    memcpy(coll.signature, own->signature, sizeof(coll.signature));
    memcpy(coll.culprit_signature, signature, sizeof(coll.culprit_signature));
    tri_front_mismatch_locked(front, &coll, TRI_BACKEND_FRONT);
}

/* --- a member that cannot go on ------------------------------------------- */

static void tell_failed(struct tri_front *front, int rc)
{
    int32_t error = rc;
    struct tri_piece piece = { &error, sizeof(error) };

    for (uint32_t i = 0; i < front->team.len; i++) {
        struct tri_coll_head head = { .backend = TRI_BACKEND_FRONT,
                                      .what = TRI_FRONT_FAILED };

        if (i != front->team.index)
            (void)tri_team_send(&front->team, i, TRI_COLL_CONTROL, &head,
                                &piece, 1);
    }
}

static void end_for_good(struct tri_front *front, int rc)
{
    if (!front->is_elastic && front->ended == 0)
        front->broken = rc;
    tri_front_end_team_locked(front, rc);
}

void tri_front_fail_locked(struct tri_front *front, uint8_t backend, int rc)
{
    const struct tri_backend_ops *ops = front->tensor->backends[backend];
    bool is_told = ops != NULL && ops->tells_failure;

    if (!tri_coll_is_failure(rc)) {
        tri_front_end_team_locked(front, rc);
        return;
    }
    /* After a death it may be that one's consequence, and all learn of that. */
    if (front->ended == 0 && !is_told && !tri_front_has_died(front))
        tell_failed(front, rc);
    end_for_good(front, rc);
}

/* Nobody is told on: its sender has told all. */
static void failed(struct tri_front *front, uint32_t member, int error)
{
    if (tri_front_has_died(front))
        return; /* the same: the view ends */
    tri_error("group %s: collectives of epoch %llu end: member %u (node "
              "%016llx) cannot go on: %s",
              tri_view_group_name(front->group),
              (unsigned long long)front->team.epoch, member,
              (unsigned long long)front->members[member].node,
              troupe_strerror(error));
    atomic_store_explicit(&front->was_told, front->is_elastic,
                          memory_order_relaxed);
    end_for_good(front, error);
}

bool tri_front_was_told(struct troupe_group *group)
{
    const struct tri_front *front = *tri_view_tensor(group);

    return front != NULL &&
           atomic_load_explicit(&front->was_told, memory_order_relaxed);
}

/* --- the front's own records ---------------------------------------------- */

static void front_record(struct tri_front *front, uint32_t member,
                         const struct tri_coll_head *head, const void *payload,
                         size_t bytes)
{
    struct tri_coll_mismatch mismatch;
    uint64_t signature[2];
    int error;

    if (head->what == TRI_FRONT_CALL && bytes == sizeof(signature)) {
        memcpy(signature, payload, sizeof(signature));
        called(front, member, head->number, signature);
    } else if (head->what == TRI_FRONT_MISMATCH &&
               tri_coll_mismatch_read(payload, bytes, front->team.len,
                                      &mismatch)) {
        if (!finds_out_itself(front, head))
            mismatched(front, head->number, &mismatch);
    } else if (head->what == TRI_FRONT_FAILED &&
               tri_coll_failure_read(payload, bytes, &error)) {
        failed(front, member, error);
    } else {
        refuse(front, "a collective's record that makes no sense");
    }
}

/* --- to whom it is -------------------------------------------------------- */

enum fate {
    FATE_NOW,
    FATE_LATER,
    FATE_NEVER,
};

static enum fate fate_of(const struct tri_front *front,
                         const struct tri_coll_head *head)
{
    if (!front->has_team || head->epoch > front->team.epoch)
        return FATE_LATER;
    if (head->epoch < front->team.epoch || front->ended != 0)
        return FATE_NEVER;
    if (head->backend == TRI_BACKEND_FRONT)
        return FATE_NOW;
    return front->instances[head->backend].backend != NULL ? FATE_NOW
                                                           : FATE_LATER;
}

/* Owns the message, if there is one. */
static void hand_on(struct tri_front *front, uint64_t node,
                    const struct tri_coll_head *head, const void *payload,
                    size_t bytes, struct tri_message *message)
{
    int32_t member = tri_team_find(&front->team, node);
    const struct tri_backend_ops *ops = front->tensor->backends[head->backend];

    tri_front_moved(front);
    if (member < 0 || (uint32_t)member == front->team.index) {
        refuse(front, "a collective's record of no member");
    } else if (head->backend == TRI_BACKEND_FRONT) {
        front_record(front, (uint32_t)member, head, payload, bytes);
    } else if (ops->received == NULL) {
        refuse(front, "a collective's record for a back end that wants none");
    } else {
        ops->received(front->instances[head->backend].backend,
                      (uint32_t)member, head, payload, bytes, message);
        return;
    }
    if (message != NULL)
        tri_message_free(message);
}

/* --- the inbox ------------------------------------------------------------ */

/* Nobody sends it again: what it was for would wait for ever. */
static void lose(struct tri_front *front, uint64_t epoch, const char *reason)
{
    refuse(front, reason);
    tri_lock_acquire(&front->inbox_lock);
    if (epoch > atomic_load_explicit(&front->lost_epoch, memory_order_relaxed))
        atomic_store_explicit(&front->lost_epoch, epoch, memory_order_relaxed);
    tri_lock_release(&front->inbox_lock);
}

/* Keeps a message; its sender is who sent it. Owns it. */
static void keep(struct tri_front *front, uint64_t epoch,
                 struct tri_message *message)
{
    bool full;

    message->next = NULL;
    tri_lock_acquire(&front->inbox_lock);
    full = front->inbox_bytes + message->bytes > TRI_FRONT_INBOX_BYTES_MAX;
    if (!full) {
        *front->inbox_end = message;
        front->inbox_end = &message->next;
        front->inbox_bytes += message->bytes;
        atomic_store_explicit(
            &front->inbox_len,
            atomic_load_explicit(&front->inbox_len, memory_order_relaxed) + 1,
            memory_order_relaxed);
    }
    tri_lock_release(&front->inbox_lock);
    if (!full)
        return;
    lose(front, epoch, "a collective's record beyond what is kept");
    tri_message_free(message);
}

static struct tri_message *take_all(struct tri_front *front)
{
    struct tri_message *first;

    tri_lock_acquire(&front->inbox_lock);
    first = front->inbox_first;
    front->inbox_first = NULL;
    front->inbox_end = &front->inbox_first;
    front->inbox_bytes = 0;
    atomic_store_explicit(&front->inbox_len, 0, memory_order_relaxed);
    tri_lock_release(&front->inbox_lock);
    return first;
}

/* Puts what is still early back, before what came meanwhile. */
static void put_back(struct tri_front *front, struct tri_message *first,
                     struct tri_message **end, size_t bytes, uint32_t len)
{
    tri_lock_acquire(&front->inbox_lock);
    *end = front->inbox_first;
    if (front->inbox_first == NULL)
        front->inbox_end = end;
    front->inbox_first = first;
    front->inbox_bytes += bytes;
    atomic_store_explicit(
        &front->inbox_len,
        atomic_load_explicit(&front->inbox_len, memory_order_relaxed) + len,
        memory_order_relaxed);
    tri_lock_release(&front->inbox_lock);
}

void tri_front_drain_locked(struct tri_front *front)
{
    struct tri_message *message = take_all(front), *next;
    struct tri_message *early = NULL, **early_end = &early;
    struct tri_coll_head head;
    size_t early_bytes = 0;
    uint32_t early_len = 0;

    for (; message != NULL; message = next) {
        next = message->next;
        memcpy(&head, message->payload, sizeof(head));
        switch (fate_of(front, &head)) {
        case FATE_NOW:
            hand_on(front, message->sender.node, &head,
                    message->payload + sizeof(head),
                    message->bytes - sizeof(head), message);
            break;
        case FATE_LATER:
            *early_end = message;
            early_end = &message->next;
            early_bytes += message->bytes;
            early_len++;
            break;
        default:
            tri_message_free(message);
            break;
        }
    }
    if (early_len > 0)
        put_back(front, early, early_end, early_bytes, early_len);
}

void tri_front_inbox_free(struct tri_front *front)
{
    struct tri_message *message = take_all(front), *next;

    for (; message != NULL; message = next) {
        next = message->next;
        tri_message_free(message);
    }
}

/* --- from the link: the poll lock is held --------------------------------- */

/* The front for a record, held; NULL: it is refused, or nobody wants it. */
static struct tri_front *front_for(struct tri_runtime *runtime,
                                   const void *payload, size_t bytes,
                                   struct tri_coll_head *head)
{
    struct tri_tensor *tensor = runtime->tensor;

    if (!tri_coll_head_read(payload, bytes, head) ||
        (head->backend != TRI_BACKEND_FRONT &&
         tensor->backends[head->backend] == NULL)) {
        tri_refusals_count(&runtime->link.refusals,
                           "a collective's record with a malformed head");
        return NULL;
    }
    if (tri_view_find(runtime, head->group) != NULL)
        return tri_front_hold(tensor, head->group);
    /* Of a group that was closed here, or of none: nobody is interested. */
    return tri_view_may_come(runtime, head->group)
               ? tri_front_hold_early(tensor, head->group)
               : NULL;
}

/* Somebody may wait for it, asleep. */
static void tell(struct tri_front *front)
{
    struct tri_tensor *tensor = front->tensor;

    if (atomic_load_explicit(&front->waiters, memory_order_relaxed) > 0)
        tri_wake_guest(tensor->runtime);
    else if (atomic_load_explicit(&front->under_way, memory_order_relaxed) > 0)
        tri_front_kick_mover(tensor);
}

/* In order: past the inbox only when it is empty. */
static bool hand_on_now(struct tri_front *front, uint64_t node,
                        const struct tri_coll_head *head, const void *payload,
                        size_t bytes, struct tri_message *message)
{
    bool now;

    if (!tri_lock_try(&front->lock))
        return false;
    if (atomic_load_explicit(&front->inbox_len, memory_order_relaxed) > 0)
        tri_front_drain_locked(front);
    now = fate_of(front, head) == FATE_NOW;
    if (now)
        hand_on(front, node, head, payload, bytes, message);
    tri_lock_release(&front->lock);
    return now;
}

void tri_front_record(struct tri_runtime *runtime, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload)
{
    struct tri_coll_head head;
    struct tri_front *front;
    struct tri_message *copy;

    if (record->kind == TRI_STATE) {
        if (runtime->tensor->state_record != NULL)
            runtime->tensor->state_record(runtime, peer, record, payload);
        return;
    }
    front = front_for(runtime, payload, record->bytes, &head);
    if (front == NULL)
        return;
    if (!hand_on_now(front, peer->node, &head,
                     (const char *)payload + sizeof(head),
                     record->bytes - sizeof(head), NULL)) {
        copy = tri_message_alloc(record->bytes);
        if (copy != NULL) {
            memcpy(copy->payload, payload, record->bytes);
            copy->sender.node = peer->node;
            keep(front, head.epoch, copy);
        } else {
            lose(front, head.epoch,
                 "a collective's record that found no memory");
        }
    }
    tell(front);
    tri_front_release(front);
}

void tri_front_message(struct tri_runtime *runtime, struct tri_peer *peer,
                       struct tri_message *message)
{
    struct tri_coll_head head;
    struct tri_front *front;

    if (message->kind == TRI_STATE) {
        if (runtime->tensor->state_message != NULL)
            runtime->tensor->state_message(runtime, peer, message);
        else
            tri_message_free(message);
        return;
    }
    front = front_for(runtime, message->payload, message->bytes, &head);
    if (front == NULL) {
        tri_message_free(message);
        return;
    }
    message->sender.node = peer->node;
    if (!hand_on_now(front, peer->node, &head, message->payload + sizeof(head),
                     message->bytes - sizeof(head), message))
        keep(front, head.epoch, message);
    tell(front);
    tri_front_release(front);
}
