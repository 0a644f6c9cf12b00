/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * One call: its vector cut into segments, TRI_NET_SLOTS of them under way, each
 * at some step of the plan.
 */

#include <stdlib.h>
#include <string.h>

#include "message/pool.h"
#include "tensor/native/net_internal.h"
#include "tensor/reduce.h"

/* --- where things are ----------------------------------------------------- */

static bool has_sums(const struct tri_net_call *call)
{
    return call->request.kind == TRI_COLL_ALLREDUCE ||
           call->request.kind == TRI_COLL_REDUCE ||
           call->request.kind == TRI_COLL_REDUCE_SCATTER;
}

static size_t segment_start(const struct tri_net_call *call, uint64_t segment)
{
    return (size_t)segment * call->segment_len;
}

static size_t segment_len(const struct tri_net_call *call, uint64_t segment)
{
    return tri_min(call->segment_len,
                   call->request.count - segment_start(call, segment));
}

/* In elements from acc. */
static size_t block_start(const struct tri_net_call *call,
                          const struct tri_net_slot *slot, uint32_t block)
{
    return slot->stride != 0
               ? block * slot->stride
               : slot->len * block / call->plan->blocks;
}

static size_t block_len(const struct tri_net_call *call,
                        const struct tri_net_slot *slot, uint32_t block)
{
    return slot->stride != 0 ? slot->len
                             : block_start(call, slot, block + 1) -
                                   block_start(call, slot, block);
}

/* A step's blocks as pieces of memory, neighbours as one, in ascending order
 * of blocks at both ends. Returns how many. */
static uint32_t pieces_of(const struct tri_net_call *call,
                          const struct tri_net_slot *slot,
                          const struct tri_net_step *step,
                          struct tri_piece *pieces)
{
    uint32_t len = 0;

    for (uint32_t i = 0; i < call->plan->blocks; i++) {
        char *data;
        size_t bytes;

        if (!tri_net_has_block(call->plan, step, i))
            continue;
        data = slot->acc + block_start(call, slot, i) * call->acc_bytes;
        bytes = block_len(call, slot, i) * call->acc_bytes;
        if (bytes == 0)
            continue;
        if (len > 0 &&
            (const char *)pieces[len - 1].data + pieces[len - 1].bytes == data)
            pieces[len - 1].bytes += bytes;
        else
            pieces[len++] = (struct tri_piece){ data, bytes };
    }
    return len;
}

/* --- steps ---------------------------------------------------------------- */

static uint32_t tag_of(const struct tri_net_slot *slot,
                       const struct tri_net_step *step)
{
    return (uint32_t)slot->segment << TRI_NET_TAG_BITS | step->tag;
}

static int step_send(struct tri_net *net, struct tri_net_call *call,
                     struct tri_net_slot *slot,
                     const struct tri_net_step *step)
{
    struct tri_net_unit unit = { call->request.number, slot->segment };
    struct tri_coll_head head = { .number = unit.number,
                                  .what = TRI_NET_DATA,
                                  .tag = tag_of(slot, step) };
    uint32_t len;
    int rc;

    if (!tri_net_may_send(net, step->peer, unit)) {
        tri_net_want(net, step->peer, unit);
        return TRI_COLL_PENDING;
    }
    len = pieces_of(call, slot, step, net->pieces + 1);
    rc = tri_net_send(net, step->peer, TRI_COLL, &head, call->request.signature,
                      net->pieces + 1, len);
    return rc == TROUPE_EFULL ? TRI_COLL_PENDING : rc;
}

static void take_in(const struct tri_net_call *call,
                    const struct tri_net_step *step, void *mine,
                    const void *theirs, size_t bytes)
{
    const struct tri_net_request *request = &call->request;
    size_t count = bytes / call->acc_bytes;

    if (step->what == TRI_NET_COPY)
        memcpy(mine, theirs, bytes);
    else if (step->what == TRI_NET_ADD)
        tri_reduce_add(request->type, request->op, mine, theirs, count);
    else
        tri_reduce_add_left(request->type, request->op, mine, theirs, count);
}

static int step_receive(struct tri_net *net, struct tri_net_call *call,
                        struct tri_net_slot *slot,
                        const struct tri_net_step *step)
{
    struct tri_message *message = tri_net_box_take(
        net, step->peer, call->request.number, tag_of(slot, step));
    size_t left, offset;
    uint32_t len, i;

    if (message == NULL)
        return TRI_COLL_PENDING;
    offset = message->fixed_bytes + sizeof(struct tri_net_part);
    left = message->bytes - offset;
    len = pieces_of(call, slot, step, net->pieces);
    for (i = 0; i < len && net->pieces[i].bytes <= left; i++) {
        size_t bytes = net->pieces[i].bytes;

        take_in(call, step, (void *)(uintptr_t)net->pieces[i].data,
                message->payload + offset, bytes);
        offset += bytes;
        left -= bytes;
    }
    tri_message_free(message);
    return i == len && left == 0 ? 0 : TROUPE_EPROTO;
}

/* --- segments ------------------------------------------------------------- */

static const char *at(const void *base, size_t elements, size_t element_bytes)
{
    return base == NULL ? NULL : (const char *)base + elements * element_bytes;
}

static char *at_out(const struct tri_net_call *call, size_t elements)
{
    char *out = call->request.out;

    return out == NULL ? NULL : out + elements * call->user_bytes;
}

/* Copies a member's contribution into the vector, as sums need it. */
static void load(const struct tri_net_call *call, char *acc, size_t from,
                 size_t count)
{
    const char *in = at(call->request.in, from, call->user_bytes);

    if (count > 0 && acc != in)
        tri_reduce_load(call->request.type, acc, in, count);
}

static void slot_begin(const struct tri_net *net, struct tri_net_call *call,
                       struct tri_net_slot *slot)
{
    const struct tri_net_request *request = &call->request;
    uint64_t segment = call->next_segment++;
    size_t start = segment_start(call, segment);
    size_t slot_bytes = call->segment_len * call->acc_bytes *
                        (request->kind == TRI_COLL_REDUCE_SCATTER
                             ? net->config.len
                             : 1);

    *slot = (struct tri_net_slot){ .segment = segment, .is_active = true };
    slot->len = segment_len(call, segment);
    slot->acc = call->scratch != NULL
                    ? call->scratch + (size_t)(slot - call->slots) * slot_bytes
                    : at_out(call, start);
    switch (request->kind) {
    case TRI_COLL_ALLREDUCE:
    case TRI_COLL_REDUCE:
        load(call, slot->acc, start, slot->len);
        break;
    case TRI_COLL_REDUCE_SCATTER:
        slot->stride = tri_max(slot->len, 1);
        for (uint32_t i = 0; i < net->config.len; i++)
            load(call, slot->acc + i * slot->stride * call->acc_bytes,
                 i * request->count + start, slot->len);
        break;
    case TRI_COLL_ALLGATHER:
        slot->stride = tri_max(request->count, 1);
        if (slot->len > 0)
            memmove(at_out(call, net->config.index * request->count + start),
                    at(request->in, start, call->user_bytes),
                    slot->len * call->user_bytes);
        break;
    default:
        break;
    }
}

static void slot_finish(const struct tri_net *net, struct tri_net_call *call,
                        struct tri_net_slot *slot)
{
    const struct tri_net_request *request = &call->request;
    const char *acc = slot->acc;
    char *out;
    uint64_t bit = slot->segment - call->done_segments;

    if (has_sums(call) && request->out != NULL && slot->len > 0) {
        out = at_out(call, segment_start(call, slot->segment));
        if (request->kind == TRI_COLL_REDUCE_SCATTER)
            acc += net->config.index * slot->stride * call->acc_bytes;
        if (acc != out || request->op == TROUPE_AVG)
            tri_reduce_store(request->type, request->op, out, acc, slot->len,
                             request->divisor);
    }
    slot->is_active = false;
    call->done_mask |= 1ull << bit;
    while ((call->done_mask & 1) != 0) {
        call->done_mask >>= 1;
        call->done_segments++;
    }
}

/* 1: it moved. */
static int slot_run(struct tri_net *net, struct tri_net_call *call,
                    struct tri_net_slot *slot)
{
    bool moved = false;
    int rc = 0;

    if (!slot->is_active) {
        if (call->next_segment == call->segments ||
            call->next_segment - call->done_segments >= TRI_NET_SEGMENTS_AHEAD)
            return 0;
        slot_begin(net, call, slot);
        moved = true;
    }
    while (slot->step < call->plan->len) {
        const struct tri_net_step *step = &call->plan->steps[slot->step];

        rc = step->what == TRI_NET_SEND ? step_send(net, call, slot, step)
                                        : step_receive(net, call, slot, step);
        if (rc != 0)
            break;
        slot->step++;
        moved = true;
    }
    if (rc == 0) {
        slot_finish(net, call, slot);
        tri_net_advance(net);
    }
    return rc < 0 ? rc : moved;
}

/* --- calls ---------------------------------------------------------------- */

/* Asks the one that the first segment waits for. */
static void on_stall(struct tri_net *net, struct tri_net_call *call)
{
    uint64_t now = net->config.now_ns(net->config.context);

    if (call->ask_ns == 0)
        call->ask_ns = now + TRI_NET_STALL_NS;
    if (now < call->ask_ns)
        return;
    call->ask_ns = now + 4 * TRI_NET_STALL_NS; /* a few times a second */
    for (size_t i = 0; i < TRI_NET_SLOTS; i++) {
        const struct tri_net_slot *slot = &call->slots[i];

        if (slot->is_active && slot->step < call->plan->len)
            tri_net_query(net, call->plan->steps[slot->step].peer,
                          &call->request);
    }
}

/* One that differs in this call, or in one before that was done here before
 * anybody knew: then this one fails for all instead. */
static struct tri_net_found *found_for(struct tri_net *net, uint64_t number)
{
    struct tri_net_found *found = tri_net_found(net, number);

    for (size_t i = 0; found == NULL && i < TRI_NET_MISMATCHES; i++) {
        struct tri_net_found *other = &net->found[i];

        if (other->number == 0 || other->number > number ||
            other->is_reported || tri_net_find(net, other->number) != NULL)
            continue;
        other->is_reported = true;
        tri_net_tell_differ(net, number, &other->differ);
        found = tri_net_found(net, number);
    }
    return found;
}

static int report(struct tri_net *net, struct tri_net_found *found,
                  struct tri_net_mismatch *mismatch_p)
{
    const struct tri_net_differ *differ = &found->differ;
    const uint64_t *mine = tri_net_signature(net, differ->origin);
    int other = 1;

    if (differ->places[1] == net->config.index ||
        (differ->places[0] != net->config.index && mine != NULL &&
         differ->signatures[1][0] == mine[0] &&
         differ->signatures[1][1] == mine[1]))
        other = 0;
    found->is_reported = true;
    mismatch_p->number = differ->origin;
    mismatch_p->witness = differ->places[1 - other];
    memcpy(mismatch_p->witness_signature, differ->signatures[1 - other],
           sizeof(mismatch_p->witness_signature));
    mismatch_p->culprit = differ->places[other];
    memcpy(mismatch_p->signature, differ->signatures[other],
           sizeof(mismatch_p->signature));
    return TROUPE_EMISMATCH;
}

int tri_net_progress(struct tri_net *net, struct tri_net_call *call,
                     struct tri_net_mismatch *mismatch_p)
{
    struct tri_net_found *found = found_for(net, call->request.number);
    bool moved, has_moved = false;

    if (tri_unlikely(found != NULL))
        return report(net, found, mismatch_p);
    if (tri_unlikely(net->is_starved))
        return TROUPE_ENOMEM;
    if (tri_unlikely(net->is_flooded))
        return TROUPE_EPROTO;
    do {
        moved = false;
        for (size_t i = 0; i < TRI_NET_SLOTS && call->rc == 0; i++) {
            int rc = slot_run(net, call, &call->slots[i]);

            if (rc < 0)
                call->rc = rc;
            moved |= rc > 0;
        }
        net->moves += moved;
        has_moved |= moved;
    } while (moved && call->rc == 0);
    if (call->rc != 0)
        return call->rc;
    if (call->done_segments == call->segments)
        return 0;
    if (has_moved)
        call->ask_ns = 0;
    else
        on_stall(net, call);
    return TRI_COLL_PENDING;
}

/* Memory for sums, where they cannot be made in out. */
static int get_scratch(struct tri_net *net, struct tri_net_call *call)
{
    size_t blocks = call->request.kind == TRI_COLL_REDUCE_SCATTER
                        ? net->config.len
                        : 1;
    size_t slots = tri_min((size_t)call->segments, TRI_NET_SLOTS);
    size_t bytes = slots * blocks * call->segment_len * call->acc_bytes;

    if (!has_sums(call) ||
        (call->request.kind != TRI_COLL_REDUCE_SCATTER &&
         call->request.out != NULL && call->acc_bytes == call->user_bytes))
        return 0;
    if (net->spare_bytes >= bytes) {
        call->scratch = net->spare;
        call->scratch_bytes = net->spare_bytes;
        net->spare = NULL;
        net->spare_bytes = 0;
        return 0;
    }
    call->scratch_bytes = tri_align_up(tri_max(bytes, 1), TRI_CACHE_LINE);
    call->scratch = aligned_alloc(TRI_CACHE_LINE, call->scratch_bytes);
    return call->scratch != NULL ? 0 : TROUPE_ENOMEM;
}

static void put_scratch(struct tri_net *net, struct tri_net_call *call)
{
    if (call->scratch_bytes > net->spare_bytes) {
        char *old = net->spare;

        net->spare = call->scratch;
        net->spare_bytes = call->scratch_bytes;
        call->scratch = old;
    }
    free(call->scratch);
}

static void insert(struct tri_net *net, struct tri_net_call *call)
{
    struct tri_net_call **before = &net->calls;

    while (*before != NULL &&
           (*before)->request.number < call->request.number)
        before = &(*before)->next;
    call->next = *before;
    *before = call;
    if (call->request.number > net->started_max)
        net->started_max = call->request.number;
}

int tri_net_start(struct tri_net *net, const struct tri_net_request *request,
                  struct tri_net_call **call_p)
{
    struct tri_net_call *call = calloc(1, sizeof(*call));
    struct tri_net_choice choice;

    assert(request->number > net->started_max);
    if (call == NULL)
        return TROUPE_ENOMEM;
    call->request = *request;
    call->user_bytes = request->kind == TRI_COLL_BARRIER
                           ? 1
                           : troupe_datatype_bytes(request->type);
    call->acc_bytes = has_sums(call) ? tri_reduce_bytes(request->type)
                                     : call->user_bytes;
    choice = tri_net_choose(net, request, call->acc_bytes);
    call->segment_len = choice.segment_len;
    call->segments = request->count == 0
                         ? 1
                         : (request->count - 1) / choice.segment_len + 1;
    call->plan = tri_net_plan_create(request->kind, choice.algorithm,
                                     net->config.len, net->config.index,
                                     request->root);
    if (call->plan == NULL || get_scratch(net, call) != 0) {
        free(call->plan);
        free(call);
        return TROUPE_ENOMEM;
    }
    insert(net, call);
    tri_net_advance(net);
    tri_net_compare_early(net, call);
    *call_p = call;
    return 0;
}

static void forget(struct tri_net *net, const struct tri_net_call *call)
{
    const struct tri_net_request *request = &call->request;
    struct tri_net_found *found = tri_net_found(net, request->number);
    size_t at = request->number % TRI_NET_HISTORY;

    net->history[at].failed = call->done_segments < call->segments;
    if (found != NULL && net->history[at].failed)
        found->is_reported = true;

    net->history[at].number = request->number;
    memcpy(net->history[at].signature, request->signature,
           sizeof(request->signature));
    tri_net_box_drop(net, request->number);
}

void tri_net_end(struct tri_net *net, struct tri_net_call **call_p)
{
    struct tri_net_call *call = *call_p, **before = &net->calls;

    if (call == NULL)
        return;
    *call_p = NULL;
    while (*before != call)
        before = &(*before)->next;
    *before = call->next;
    forget(net, call);
    put_scratch(net, call);
    free(call->plan);
    free(call);
    tri_net_advance(net);
}
