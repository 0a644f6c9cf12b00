/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Copies of private state. In begin a member copies its own, when the copy
 * before has arrived, and sends it to its buddy: the next member of the view
 * that is on another host, or, when there is none, the next. The buddy keeps
 * the last whole copy of each of its wards, and the one that is arriving, or
 * two whole ones. A ward that dies leaves an orphan.
 *
 * A member whose buddy changes has a copy at the former one until the first has
 * arrived, whole, at the new one: then it tells the former to drop its own. So
 * one has it at any time; both, only if the ward dies, or stops, just then.
 *
 * Therefore the members of the next view tell each other of the orphans that
 * they have (settle.c), and the newest copy stays, of equals the one with the
 * first of the members. Who has heard that knows that it is the orphan's only
 * owner, and only then gives it to the program. An exchange may end well on
 * some members and be cut short on others by the next death: so owners remember
 * what they own, and say so in the next one.
 *
 * A buddy that cannot take a copy says REFUSED, and the ward tries again after
 * some steps.
 */

#include <stdlib.h>
#include <string.h>

#include <troupe/member.h>

#include "tensor/training.h"

/* Members that one is the buddy of, and orphans nobody has taken yet. */
#define WARDS_MAX TRI_BUDDY_WARDS_MAX
/* Buddies in a row that have not got a whole copy. The oldest one's goes then. */
#define FORMER_MAX 4u
/* Until a member that was refused copies again. */
#define REFUSED_STEPS 16u

struct copy {
    unsigned char *data;
    uint64_t step;
    size_t got; /* bytes; all: it is whole */
};

struct ward {
    uint64_t node; /* 0: free */
    uint64_t orphaned; /* a number that grows with each; 0: it is alive */
    bool is_owned; /* the orphan is this member's alone */
    uint64_t taken; /* bits of states; mask */
    struct copy copies[2];
};

struct tri_buddy {
    size_t bytes; /* of all private state of a member */

    /* to the buddy */
    uint64_t to; /* 0: there is none */
    unsigned char *own;
    uint64_t step;
    size_t sent;
    _Atomic bool under_way; /* not all has arrived */
    uint64_t copied; /* the step after which the last one was made, + 1, or
                        before which none is made, + 1 */
    uint64_t former[FORMER_MAX]; /* mutex; buddies before, which still have the
                                    last whole copies; 0: none */

    struct ward wards[WARDS_MAX]; /* mutex */
    uint64_t arrived;             /* mutex: own copies, whole */
    uint64_t orphans;             /* mutex: there ever were */
    uint64_t owned[WARDS_MAX];    /* mutex: orphans that were ours, the last */
    uint32_t owned_next;
};

static struct tri_buddy *buddy_of(struct troupe_training *training)
{
    struct tri_states *states = &training->states;
    struct tri_buddy *buddy = states->buddy;

    if (buddy != NULL || states->private_bytes == 0)
        return buddy;
    buddy = calloc(1, sizeof(*buddy));
    if (buddy == NULL)
        return NULL;
    buddy->bytes = states->private_bytes;
    buddy->own = malloc(buddy->bytes);
    if (buddy->own == NULL) {
        free(buddy);
        return NULL;
    }
    tri_state_lock();
    states->buddy = buddy;
    tri_state_unlock();
    return buddy;
}

static void drop_ward(struct ward *ward)
{
    free(ward->copies[0].data);
    free(ward->copies[1].data);
    *ward = (struct ward){ 0 };
}

/* The whole one; NULL: there is none. */
static const struct copy *newest(const struct tri_buddy *buddy,
                                 const struct ward *ward)
{
    const struct copy *best = NULL;

    for (size_t i = 0; i < tri_array_len(ward->copies); i++) {
        const struct copy *copy = &ward->copies[i];

        if (copy->data != NULL && copy->got == buddy->bytes &&
            (best == NULL || copy->step > best->step))
            best = copy;
    }
    return best;
}

/* --- views -------------------------------------------------------------------- */

static uint64_t next_member(const struct tri_view *view)
{
    const uint32_t own = (uint32_t)view->index;
    const struct tri_view_member *next = NULL;

    for (uint32_t i = 1; i < view->active; i++) {
        const struct tri_view_member *member =
            &view->members[(own + i) % view->active];

        if (next == NULL)
            next = member;
        if (member->host != view->members[own].host)
            return member->node;
    }
    return next != NULL ? next->node : 0;
}

static bool is_member(const struct tri_view *view, uint64_t node)
{
    for (uint32_t i = 0; i < view->len; i++)
        if (view->members[i].node == node)
            return true;
    return false;
}

bool tri_buddy_has_died(struct troupe_training *training,
                        const struct tri_view *view, uint64_t node)
{
    troupe_member_t member;

    if (view->losses == 0)
        return false;
    return troupe_member_get((troupe_from_t){ .troupe_ = training->troupe },
                             node, &member) != 0 ||
           member.state != TROUPE_MEMBER_LEFT;
}

/* It may be taken by the program. */
static void own_orphan_locked(struct tri_buddy *buddy, struct ward *ward)
{
    ward->is_owned = true;
    buddy->owned[buddy->owned_next++ % WARDS_MAX] = ward->node;
}

static void tell_to_drop(struct troupe_training *training, uint64_t node)
{
    const struct tri_state_head head = { .group = training->group_id,
                                         .what = TRI_STATE_DROP };

    if (node != 0) /* it may have died: then there is nothing to drop */
        (void)tri_state_send(training->runtime, node, &head, NULL,
                             TRI_SEND_FORCED);
}

/* The oldest ones are the last; `to` is one no more. */
static void note_former_locked(struct troupe_training *training, uint64_t to)
{
    struct tri_buddy *buddy = training->states.buddy;
    uint64_t former[FORMER_MAX] = { buddy->to };
    uint32_t len = buddy->to != 0;

    for (uint32_t i = 0; i < FORMER_MAX; i++) {
        uint64_t node = buddy->former[i];

        if (node == 0 || node == to || node == buddy->to)
            continue;
        if (len < FORMER_MAX)
            former[len++] = node;
        else
            tell_to_drop(training, node);
    }
    memcpy(buddy->former, former, sizeof(former));
}

void tri_buddy_view(struct troupe_training *training)
{
    const struct tri_view *view = tri_view_adopted(training->group);
    struct tri_buddy *buddy = buddy_of(training);
    uint64_t to;

    if (buddy == NULL)
        return;
    to = view->index >= 0 && (uint32_t)view->index < view->active
             ? next_member(view)
             : 0;
    tri_state_lock();
    if (to != buddy->to) {
        note_former_locked(training, to);
        buddy->to = to;
        buddy->under_way = false;
        buddy->copied = 0;
    }
    for (uint32_t i = 0; i < WARDS_MAX; i++) {
        struct ward *ward = &buddy->wards[i];

        if (ward->node == 0 || ward->orphaned != 0 ||
            is_member(view, ward->node))
            continue;
        if (!tri_buddy_has_died(training, view, ward->node)) {
            drop_ward(ward);
            continue;
        }
        ward->orphaned = ++buddy->orphans;
        /* Alone nobody else has it. */
        if (view->active == 1 && newest(buddy, ward) != NULL)
            own_orphan_locked(buddy, ward);
    }
    tri_state_unlock();
}

/* --- to the buddy --------------------------------------------------------------- */

void tri_buddy_pump(struct troupe_training *training)
{
    struct tri_buddy *buddy = training->states.buddy;

    if (buddy == NULL || !buddy->under_way)
        return;
    while (buddy->sent < buddy->bytes) {
        struct tri_state_head head = {
            .group = training->group_id,
            .step = buddy->step,
            .offset = buddy->sent,
            .total = buddy->bytes,
            .what = TRI_STATE_COPY,
            .bytes = (uint32_t)tri_min(TRI_STATE_CHUNK_BYTES,
                                       buddy->bytes - buddy->sent),
        };

        head.hash = tri_state_hash(head.offset, buddy->own + buddy->sent,
                                   head.bytes);
        if (tri_state_send(training->runtime, buddy->to, &head,
                           buddy->own + buddy->sent, TRI_SEND_BOUNDED) != 0)
            return; /* full, or dead: the next view says so */
        buddy->sent += head.bytes;
    }
}

void tri_buddy_begin(struct troupe_training *training)
{
    const struct tri_states *states = &training->states;
    const uint64_t step = training->core.committed;
    struct tri_buddy *buddy = states->buddy;
    unsigned char *at;
    bool is_due;

    if (buddy == NULL)
        return;
    tri_state_lock();
    is_due = buddy->to != 0 && !buddy->under_way && buddy->copied < step + 1;
    if (is_due) {
        buddy->under_way = true;
        buddy->copied = step + 1;
        buddy->step = step;
        buddy->sent = 0;
    }
    tri_state_unlock();
    at = buddy->own;
    for (uint32_t i = 0; is_due && i < states->len; i++) {
        if (states->list[i].kind != TROUPE_PRIVATE)
            continue;
        memcpy(at, states->list[i].data, states->list[i].bytes);
        at += states->list[i].bytes;
    }
    tri_buddy_pump(training);
}

/* --- as the buddy --------------------------------------------------------------- */

/* A place for its copies; that of the oldest orphan, if all are taken. NULL:
 * there is none. */
static struct ward *ward_locked(struct tri_buddy *buddy, uint64_t node)
{
    struct ward *place = NULL;

    for (uint32_t i = 0; i < WARDS_MAX; i++) {
        struct ward *ward = &buddy->wards[i];

        if (ward->node == node)
            return ward->orphaned == 0 ? ward : NULL;
        if (ward->node == 0 ||
            (ward->orphaned != 0 &&
             (place == NULL || (place->node != 0 &&
                                ward->orphaned < place->orphaned))))
            place = ward;
    }
    if (place == NULL)
        return NULL;
    drop_ward(place);
    place->node = node;
    return place;
}

/* Not what it has left meanwhile: who got its last copy may be dead, too. */
static void drop_locked(struct tri_buddy *buddy, uint64_t node)
{
    for (uint32_t i = 0; i < WARDS_MAX; i++)
        if (buddy->wards[i].node == node && buddy->wards[i].orphaned == 0)
            drop_ward(&buddy->wards[i]);
}

/* The copy of a step that arrives; a new one takes the place of the older. */
static struct copy *copy_locked(struct tri_buddy *buddy, struct ward *ward,
                                const struct tri_state_head *head)
{
    struct copy *copy = &ward->copies[0];

    if (head->offset > 0) {
        if (copy->step != head->step || copy->got != head->offset)
            copy = &ward->copies[1];
        return copy->step == head->step && copy->got == head->offset ? copy
                                                                     : NULL;
    }
    /* One that is not whole is worth nothing, then the older one goes. */
    if (copy->got == buddy->bytes &&
        (ward->copies[1].got != buddy->bytes ||
         ward->copies[1].step < copy->step))
        copy = &ward->copies[1];
    if (copy->data == NULL)
        copy->data = malloc(buddy->bytes);
    copy->got = 0;
    copy->step = head->step;
    return copy->data != NULL ? copy : NULL;
}

/* Says whether it has been taken; *whole_p: and was the last of its copy. */
static bool take_copy_locked(struct tri_buddy *buddy, uint64_t from,
                             const struct tri_state_head *head,
                             const void *data, bool *whole_p)
{
    struct ward *ward;
    struct copy *copy;

    if (head->total != buddy->bytes || head->offset > buddy->bytes ||
        head->bytes > buddy->bytes - head->offset ||
        tri_state_hash(head->offset, data, head->bytes) != head->hash)
        return false;
    ward = ward_locked(buddy, from);
    copy = ward != NULL ? copy_locked(buddy, ward, head) : NULL;
    if (copy == NULL)
        return false;
    memcpy(copy->data + head->offset, data, head->bytes);
    copy->got += head->bytes;
    *whole_p = copy->got == buddy->bytes;
    return true;
}

static void answer_copy_locked(struct troupe_training *training, uint64_t from,
                               const struct tri_state_head *head,
                               const void *data)
{
    struct tri_buddy *buddy = training->states.buddy;
    struct tri_state_head answer = *head;
    bool whole = false;

    /* No buddy: there was no memory for one. */
    if (buddy == NULL ||
        !take_copy_locked(buddy, from, head, data, &whole))
        answer.what = TRI_STATE_REFUSED;
    else if (whole)
        answer.what = TRI_STATE_COPIED;
    else
        return;
    (void)tri_state_send(training->runtime, from, &answer, NULL,
                         TRI_SEND_FORCED);
}

/* What came of this member's copy. */
static void note_answer_locked(struct troupe_training *training, uint64_t from,
                               const struct tri_state_head *head)
{
    struct tri_buddy *buddy = training->states.buddy;

    if (from != buddy->to || head->step != buddy->step || !buddy->under_way)
        return;
    buddy->under_way = false;
    if (head->what == TRI_STATE_REFUSED) {
        buddy->copied = buddy->step + REFUSED_STEPS;
        return;
    }
    buddy->arrived++;
    for (uint32_t i = 0; i < FORMER_MAX; i++)
        tell_to_drop(training, buddy->former[i]);
    memset(buddy->former, 0, sizeof(buddy->former));
}

void tri_buddy_record_locked(struct troupe_training *training, uint64_t from,
                             const struct tri_state_head *head,
                             const void *data)
{
    struct tri_buddy *buddy = training->states.buddy;

    if (head->what == TRI_STATE_COPY)
        answer_copy_locked(training, from, head, data);
    else if (buddy == NULL)
        return;
    else if (head->what == TRI_STATE_DROP)
        drop_locked(buddy, from);
    else
        note_answer_locked(training, from, head);
}

uint64_t tri_buddy_copies(const struct tri_states *states)
{
    uint64_t copies;

    tri_state_lock();
    copies = states->buddy != NULL ? states->buddy->arrived : 0;
    tri_state_unlock();
    return copies;
}

/* --- orphans -------------------------------------------------------------------- */

static bool is_disputed(const struct tri_buddy *buddy, const struct ward *ward)
{
    return ward->orphaned != 0 && !ward->is_owned &&
           newest(buddy, ward) != NULL;
}

uint32_t tri_buddy_orphans(const struct tri_states *states,
                           struct tri_orphan orphans[TRI_ORPHANS_MAX],
                           uint32_t *disputed_p)
{
    const struct tri_buddy *buddy;
    uint32_t len = 0;

    tri_state_lock();
    buddy = states->buddy;
    for (uint32_t i = 0; buddy != NULL && i < WARDS_MAX; i++)
        if (is_disputed(buddy, &buddy->wards[i]))
            orphans[len++] = (struct tri_orphan){
                .node = buddy->wards[i].node,
                .rank = newest(buddy, &buddy->wards[i])->step,
            };
    *disputed_p = len;
    for (uint32_t i = 0; buddy != NULL && i < WARDS_MAX; i++)
        if (buddy->owned[i] != 0)
            orphans[len++] = (struct tri_orphan){
                .node = buddy->owned[i],
                .rank = TRI_ORPHAN_IS_OWNED,
            };
    tri_state_unlock();
    return len;
}

/* Whether another member's copy is the better one. */
static bool is_outdone(const struct tri_orphan *own,
                       const struct tri_orphan *all, uint32_t each,
                       uint32_t len, uint32_t place)
{
    for (uint32_t i = 0; i < each * len; i++)
        if (i / each != place && all[i].node == own->node &&
            (all[i].rank > own->rank ||
             (all[i].rank == own->rank && i / each < place)))
            return true;
    return false;
}

void tri_buddy_settle(struct tri_states *states, const struct tri_orphan *all,
                      uint32_t each, uint32_t len, uint32_t place)
{
    struct tri_buddy *buddy;

    tri_state_lock();
    buddy = states->buddy;
    for (uint32_t i = 0; buddy != NULL && i < WARDS_MAX; i++) {
        struct ward *ward = &buddy->wards[i];
        struct tri_orphan own = { .node = ward->node };

        if (!is_disputed(buddy, ward))
            continue;
        own.rank = newest(buddy, ward)->step;
        if (is_outdone(&own, all, each, len, place))
            drop_ward(ward);
        else
            own_orphan_locked(buddy, ward);
    }
    tri_state_unlock();
}

/* Where a state lies in a copy. False: no such private state. */
static bool find_private(const struct tri_states *states, const char *name,
                         uint32_t *index_p, size_t *offset_p)
{
    size_t offset = 0;

    for (uint32_t i = 0; i < states->len; i++) {
        if (states->list[i].kind != TROUPE_PRIVATE)
            continue;
        if (strcmp(states->list[i].name, name) == 0) {
            *index_p = i;
            *offset_p = offset;
            return true;
        }
        offset += states->list[i].bytes;
    }
    return false;
}

static uint64_t private_mask(const struct tri_states *states)
{
    uint64_t mask = 0;

    for (uint32_t i = 0; i < states->len; i++)
        if (states->list[i].kind == TROUPE_PRIVATE)
            mask |= 1ull << i;
    return mask;
}

static int take_orphan_locked(struct tri_states *states, uint32_t index,
                              size_t offset, void *data, uint64_t *node_p,
                              uint64_t *step_p)
{
    struct tri_buddy *buddy = states->buddy;

    for (uint32_t i = 0; buddy != NULL && i < WARDS_MAX; i++) {
        struct ward *ward = &buddy->wards[i];
        const struct copy *copy = newest(buddy, ward);

        if (!ward->is_owned || copy == NULL ||
            (ward->taken & 1ull << index) != 0)
            continue;
        memcpy(data, copy->data + offset, states->list[index].bytes);
        if (node_p != NULL)
            *node_p = ward->node;
        if (step_p != NULL)
            *step_p = copy->step;
        ward->taken |= 1ull << index;
        if (ward->taken == private_mask(states))
            drop_ward(ward);
        return 0;
    }
    return TROUPE_ENONAME;
}

int troupe_state_orphan(troupe_training_t *training, const char *name,
                        void *data, size_t bytes, uint64_t *node_p,
                        uint64_t *step_p)
{
    struct tri_states *states;
    uint32_t index;
    size_t offset;
    int rc = tri_training_check(training);

    if (rc != 0)
        return rc;
    states = &training->states;
    if (name == NULL || data == NULL ||
        !find_private(states, name, &index, &offset) ||
        states->list[index].bytes != bytes)
        return TROUPE_EINVAL;
    tri_state_lock();
    rc = take_orphan_locked(states, index, offset, data, node_p, step_p);
    tri_state_unlock();
    return rc;
}

void tri_buddy_fini(struct tri_states *states)
{
    struct tri_buddy *buddy = states->buddy;

    if (buddy == NULL)
        return;
    for (uint32_t i = 0; i < WARDS_MAX; i++)
        drop_ward(&buddy->wards[i]);
    free(buddy->own);
    free(buddy);
    states->buddy = NULL;
}
