/* SPDX-License-Identifier: BSD-3-Clause */

/* The public calls of troupe/tensor.h. */

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tensor/front.h"
#include "tensor/reduce.h"

/* What a call says. */
struct call {
    enum tri_coll_kind kind;
    const void *in;
    void *out;
    size_t count;
    enum troupe_datatype type;
    enum troupe_op op; /* 0: none */
    uint32_t root;
};

static int check(const struct call *call)
{
    bool has_in = call->kind != TRI_COLL_BCAST;
    /* that of REDUCE: when it is known who is the root */
    bool has_out = call->kind != TRI_COLL_REDUCE;

    if (call->kind == TRI_COLL_BARRIER)
        return 0;
    if (troupe_datatype_bytes(call->type) == 0)
        return TROUPE_EINVAL;
    if (call->count > 0 && ((has_in && call->in == NULL) ||
                            (has_out && call->out == NULL)))
        return TROUPE_EINVAL;
    if (call->kind == TRI_COLL_BCAST || call->kind == TRI_COLL_ALLGATHER)
        return 0;
    return tri_reduce_allows(call->type, call->op) ? 0 : TROUPE_EINVAL;
}

static void entry_init(struct troupe_collective *entry,
                       const struct call *call)
{
    memset(entry, 0, sizeof(*entry));
    entry->coll.kind = (uint8_t)call->kind;
    entry->coll.type = (uint8_t)call->type;
    entry->coll.op = (uint8_t)call->op;
    entry->coll.root = call->root;
    entry->coll.count = call->count;
    entry->coll.in = call->in;
    entry->coll.out = call->out;
    tri_coll_sign(&entry->coll);
}

/* The starting thread's, who made the group; made at its first collective. */
static struct tri_front *front_of_starter(struct troupe_group *group)
{
    struct tri_front *front = *tri_view_tensor(group);

    if (tri_likely(front != NULL))
        return front;
    front = tri_front_hold(tri_view_runtime(group)->tensor,
                           tri_view_group_id(group));
    if (front == NULL)
        return NULL;
    tri_front_release(front);
    *tri_view_tensor(group) = front;
    return front;
}

static bool is_issuer(const struct tri_front *front, struct tri_issuer issuer)
{
    return front->issued == 0 ||
           (front->issuer.slot == issuer.slot &&
            front->issuer.generation == issuer.generation);
}

/* Takes it up, and gets it going. */
static int submit_locked(struct tri_front *front,
                         struct troupe_collective *entry,
                         struct tri_issuer issuer)
{
    int rc;

    if (!is_issuer(front, issuer))
        return TROUPE_EBUSY;
    if (front->issued >= TROUPE_COLLECTIVES_MAX)
        return TROUPE_ELIMIT;
    rc = front->has_team && !front->left
             ? tri_front_prepare_locked(front, entry)
             : 0;
    if (rc != 0) {
        free(entry->scratch);
        return rc;
    }
    front->issuer = issuer;
    front->issued++;
    tri_front_queue_locked(front, entry);
    tri_front_drive_locked(front);
    return 0;
}

/* --- blocking ------------------------------------------------------------- */

static int give_up(struct tri_front *front, struct troupe_collective *entry)
{
    tri_lock_acquire(&front->lock);
    if (!atomic_load_explicit(&entry->done, memory_order_acquire)) {
        if (!front->is_elastic)
            front->broken = TROUPE_ETIMEDOUT;
        tri_front_end_team_locked(front, TROUPE_ETIMEDOUT);
    }
    tri_lock_release(&front->lock);
    return entry->rc;
}

static int run(struct troupe_group *group, const struct call *call,
               int timeout_ms)
{
    static const struct tri_issuer thread = { .slot = 0 };
    struct tri_front *front;
    struct troupe_collective entry;
    int rc = group != NULL ? check(call) : TROUPE_EINVAL;

    if (rc != 0)
        return rc;
    if (tri_worker_current() != NULL ||
        !tri_is_starter(tri_view_runtime(group)))
        return TROUPE_ECONTEXT;
    front = front_of_starter(group);
    if (front == NULL)
        return TROUPE_ENOMEM;
    entry_init(&entry, call);
    entry.coll.is_blocking = timeout_ms < 0;
    tri_lock_acquire(&front->lock);
    atomic_store_explicit(&front->may_block, true, memory_order_relaxed);
    rc = tri_front_team_locked(front, group);
    if (rc == 0)
        rc = submit_locked(front, &entry, thread);
    atomic_store_explicit(&front->may_block, false, memory_order_relaxed);
    tri_lock_release(&front->lock);
    if (rc != 0)
        return rc;
    if (atomic_load_explicit(&entry.done, memory_order_acquire))
        return entry.rc;
    rc = tri_front_wait(front, &entry, tri_deadline_ns(timeout_ms));
    return rc == 0 ? entry.rc : give_up(front, &entry);
}

int troupe_barrier(troupe_group_t *group, int timeout_ms)
{
    struct call call = { .kind = TRI_COLL_BARRIER };

    return run(group, &call, timeout_ms);
}

int troupe_bcast(troupe_group_t *group, void *data, size_t count,
                 enum troupe_datatype type, uint32_t root, int timeout_ms)
{
    struct call call = { .kind = TRI_COLL_BCAST, .out = data, .count = count,
                         .type = type, .root = root };

    return run(group, &call, timeout_ms);
}

int troupe_allreduce(troupe_group_t *group, const void *in, void *out,
                     size_t count, enum troupe_datatype type, enum troupe_op op,
                     int timeout_ms)
{
    struct call call = { .kind = TRI_COLL_ALLREDUCE, .in = in, .out = out,
                         .count = count, .type = type, .op = op };

    return run(group, &call, timeout_ms);
}

int troupe_reduce(troupe_group_t *group, const void *in, void *out,
                  size_t count, enum troupe_datatype type, enum troupe_op op,
                  uint32_t root, int timeout_ms)
{
    struct call call = { .kind = TRI_COLL_REDUCE, .in = in, .out = out,
                         .count = count, .type = type, .op = op, .root = root };

    return run(group, &call, timeout_ms);
}

int troupe_reduce_scatter(troupe_group_t *group, const void *in, void *out,
                          size_t count, enum troupe_datatype type,
                          enum troupe_op op, int timeout_ms)
{
    struct call call = { .kind = TRI_COLL_REDUCE_SCATTER, .in = in, .out = out,
                         .count = count, .type = type, .op = op };

    return run(group, &call, timeout_ms);
}

int troupe_allgather(troupe_group_t *group, const void *in, void *out,
                     size_t count, enum troupe_datatype type, int timeout_ms)
{
    struct call call = { .kind = TRI_COLL_ALLGATHER, .in = in, .out = out,
                         .count = count, .type = type };

    return run(group, &call, timeout_ms);
}

/* --- not blocking --------------------------------------------------------- */

/* Who may: the thread that started the node, or an actor in its handler. */
static int issuer_of(troupe_from_t from, const struct troupe_group *group,
                     struct tri_issuer *issuer_p)
{
    troupe_self_t *self;
    struct tri_runtime *runtime = tri_runtime_of(from, &self);

    *issuer_p = (struct tri_issuer){ .slot = 0 };
    if (runtime == NULL || runtime != tri_view_runtime(group))
        return TROUPE_EINVAL;
    if (self == NULL)
        return tri_is_starter(runtime) && tri_worker_current() == NULL
                   ? 0
                   : TROUPE_ECONTEXT;
    if (self->actor == NULL)
        return TROUPE_ECONTEXT;
    issuer_p->slot = self->actor->slot;
    issuer_p->generation = tri_actor_generation(self->actor);
    return 0;
}

/*
 * An actor cannot look at what another thread adopts. It uses the team there
 * is, or waits for the first one, and for the one of the next view that is
 * adopted, which the starting thread opens in its next wait.
 */
static int team_of_actor_locked(struct tri_front *front)
{
    if (front->broken != 0)
        return front->broken;
    if (!front->has_team || tri_front_leave_locked(front))
        return 0;
    if (front->ended == 0 && tri_view_is_over(front->group))
        return front->is_elastic ? TROUPE_EVIEW : TROUPE_ENODE;
    return front->ended;
}

/* A worker is not to wait as long as a call of the thread's does in MPI. */
static int lock_unless_blocked(struct tri_front *front)
{
    while (!tri_lock_try(&front->lock)) {
        if (atomic_load_explicit(&front->may_block, memory_order_relaxed))
            return TROUPE_EBUSY;
        sched_yield();
    }
    return 0;
}

static int submit(struct tri_front *front, struct troupe_group *group,
                  struct troupe_collective *entry, struct tri_issuer issuer)
{
    struct tri_tensor *tensor = front->tensor;
    int rc = tri_front_need_mover(tensor);

    if (rc != 0)
        return rc;
    rc = lock_unless_blocked(front);
    if (rc != 0)
        return rc;
    rc = issuer.slot == 0 ? tri_front_team_locked(front, group)
                          : team_of_actor_locked(front);
    if (rc == 0)
        rc = submit_locked(front, entry, issuer);
    tri_lock_release(&front->lock);
    if (rc != 0)
        return rc;
    if (atomic_load_explicit(&front->needs_starter, memory_order_relaxed) &&
        issuer.slot != 0)
        tri_wake_guest(tensor->runtime);
    tri_front_kick_mover(tensor);
    return 0;
}

static int start(troupe_from_t from, struct troupe_group *group,
                 const struct call *call,
                 struct troupe_collective **collective_p)
{
    struct troupe_collective *entry;
    struct tri_issuer issuer;
    struct tri_front *front;
    int rc;

    if (group == NULL || collective_p == NULL)
        return TROUPE_EINVAL;
    rc = check(call);
    if (rc == 0)
        rc = issuer_of(from, group, &issuer);
    if (rc != 0)
        return rc;
    if (issuer.slot == 0 && front_of_starter(group) == NULL)
        return TROUPE_ENOMEM;
    entry = malloc(sizeof(*entry));
    front = tri_front_hold(tri_view_runtime(group)->tensor,
                           tri_view_group_id(group));
    if (entry == NULL || front == NULL) {
        free(entry);
        if (front != NULL)
            tri_front_release(front);
        return TROUPE_ENOMEM;
    }
    entry_init(entry, call);
    rc = submit(front, group, entry, issuer);
    tri_front_release(front);
    if (rc != 0)
        free(entry);
    else
        *collective_p = entry;
    return rc;
}

int troupe_barrier_start(troupe_from_t from, troupe_group_t *group,
                         troupe_collective_t **collective_p)
{
    struct call call = { .kind = TRI_COLL_BARRIER };

    return start(from, group, &call, collective_p);
}

int troupe_bcast_start(troupe_from_t from, troupe_group_t *group, void *data,
                       size_t count, enum troupe_datatype type, uint32_t root,
                       troupe_collective_t **collective_p)
{
    struct call call = { .kind = TRI_COLL_BCAST, .out = data, .count = count,
                         .type = type, .root = root };

    return start(from, group, &call, collective_p);
}

int troupe_allreduce_start(troupe_from_t from, troupe_group_t *group,
                           const void *in, void *out, size_t count,
                           enum troupe_datatype type, enum troupe_op op,
                           troupe_collective_t **collective_p)
{
    struct call call = { .kind = TRI_COLL_ALLREDUCE, .in = in, .out = out,
                         .count = count, .type = type, .op = op };

    return start(from, group, &call, collective_p);
}

int troupe_reduce_start(troupe_from_t from, troupe_group_t *group,
                        const void *in, void *out, size_t count,
                        enum troupe_datatype type, enum troupe_op op,
                        uint32_t root, troupe_collective_t **collective_p)
{
    struct call call = { .kind = TRI_COLL_REDUCE, .in = in, .out = out,
                         .count = count, .type = type, .op = op, .root = root };

    return start(from, group, &call, collective_p);
}

int troupe_reduce_scatter_start(troupe_from_t from, troupe_group_t *group,
                                const void *in, void *out, size_t count,
                                enum troupe_datatype type, enum troupe_op op,
                                troupe_collective_t **collective_p)
{
    struct call call = { .kind = TRI_COLL_REDUCE_SCATTER, .in = in, .out = out,
                         .count = count, .type = type, .op = op };

    return start(from, group, &call, collective_p);
}

int troupe_allgather_start(troupe_from_t from, troupe_group_t *group,
                           const void *in, void *out, size_t count,
                           enum troupe_datatype type,
                           troupe_collective_t **collective_p)
{
    struct call call = { .kind = TRI_COLL_ALLGATHER, .in = in, .out = out,
                         .count = count, .type = type };

    return start(from, group, &call, collective_p);
}

/* --- outcomes ------------------------------------------------------------- */

static bool is_done(const struct troupe_collective *entry)
{
    /* Pairs with the release store of tri_front_finish_locked. */
    return atomic_load_explicit(&entry->done, memory_order_acquire);
}

static int take_outcome(struct troupe_collective **collective_p)
{
    int rc = (*collective_p)->rc;

    free(*collective_p);
    *collective_p = NULL;
    return rc;
}

int troupe_collective_test(troupe_collective_t **collective_p, int *rc_p)
{
    struct troupe_collective *entry = collective_p != NULL ? *collective_p
                                                           : NULL;
    struct tri_front *front;
    int rc;

    if (entry == NULL || rc_p == NULL)
        return TROUPE_EINVAL;
    if (!is_done(entry)) {
        front = tri_front_hold_of(entry);
        if (front != NULL) {
            tri_front_drive(front);
            tri_front_release(front);
        }
        if (!is_done(entry))
            return 0;
    }
    rc = take_outcome(collective_p);
    *rc_p = rc;
    return 1;
}

int troupe_collective_wait(troupe_collective_t **collective_p, int timeout_ms)
{
    struct troupe_collective *entry = collective_p != NULL ? *collective_p
                                                           : NULL;
    int rc = 0;

    if (entry == NULL)
        return TROUPE_EINVAL;
    if (!is_done(entry)) {
        if (tri_worker_current() != NULL ||
            !tri_is_starter(entry->tensor->runtime))
            return TROUPE_ECONTEXT;
        rc = tri_front_wait(entry->front, entry, tri_deadline_ns(timeout_ms));
    }
    return rc != 0 ? rc : take_outcome(collective_p);
}

int troupe_collective_send_when_done(troupe_collective_t **collective_p,
                                     troupe_ref_t to, void *message,
                                     int *rc_p)
{
    struct troupe_collective *entry = collective_p != NULL ? *collective_p
                                                           : NULL;
    struct tri_front *front;
    int rc;

    if (entry == NULL || message == NULL || troupe_ref_is_none(to))
        return TROUPE_EINVAL;
    front = tri_front_hold_of(entry);
    if (front == NULL)
        return TROUPE_EINVAL;
    rc = lock_unless_blocked(front);
    if (rc != 0) {
        tri_front_release(front);
        return rc;
    }
    entry->to = to;
    entry->message = message;
    entry->rc_p = rc_p;
    if (entry->state == TRI_ENTRY_DONE) {
        tri_front_send_later_locked(front, entry);
        tri_front_drive_locked(front);
    }
    tri_lock_release(&front->lock);
    tri_front_release(front);
    *collective_p = NULL;
    return 0;
}

const char *troupe_group_backend(const troupe_group_t *group)
{
    struct tri_front *front = NULL;
    const char *name = NULL;

    if (group != NULL)
        front = tri_front_hold(tri_view_runtime(group)->tensor,
                               tri_view_group_id(group));
    if (front != NULL) {
        name = atomic_load_explicit(&front->last_backend,
                                    memory_order_relaxed);
        tri_front_release(front);
    }
    return name != NULL ? name : "none";
}
