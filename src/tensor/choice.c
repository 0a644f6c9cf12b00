/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Which back end carries a call of an elastic group with option "auto".
 *
 * A team begins native: nothing has to be agreed on after a death. Then members
 * hold councils, small allreduces on the native back end that come between the
 * program's calls, at the same ones everywhere, so that their outcomes hold
 * from the same call on everywhere without any other message:
 *
 *   CAN    before the 5th call: whether all can use MPI. If so, all begin to
 *          open it. The members also compare their tables of earlier decisions,
 *          and keep them if they are equal and the hosts are the same.
 *   READY  before the 9th, 17th, 33rd … call, at least each 256th: whether
 *          MPI stands everywhere.
 *   TIMES  of a kind of call and class of sizes (within a factor of 4), after
 *          TRIALS calls of it that went over the one and the other: the sum
 *          over the members of each one's best time decides. The best, as who
 *          came early has waited, and a busy machine is late now and then.
 *
 * When nothing is told apart by it (one member, no MPI, a fixed group) there
 * are no councils.
 */

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "tensor/front.h"

#define FIRST_STARTS 4u  /* before it the team is left in peace */
#define READY_STARTS 8u  /* the first look; doubled each time */
#define READY_STARTS_MAX 256u
#define TRIALS 12u

/* --- tables --------------------------------------------------------------- */

static unsigned class_of(size_t bytes)
{
    size_t limit = 64;
    unsigned i = 0;

    for (; i < TRI_CHOICE_CLASSES - 1 && bytes > limit; i++)
        limit *= 4;
    return i;
}

static uint32_t slot_of(const struct tri_coll *coll)
{
    size_t bytes = coll->count *
                   troupe_datatype_bytes((enum troupe_datatype)coll->type);

    return (coll->kind - 1u) * TRI_CHOICE_CLASSES + class_of(bytes);
}

/* The same for the same number of members on the same hosts. */
static uint64_t hosts_hash(const struct tri_front *front)
{
    uint64_t hash = tri_fnv64(TRI_FNV64_OFFSET, &front->team.len,
                              sizeof(front->team.len));

    for (uint32_t i = 0; i < front->team.len; i++)
        hash = tri_fnv64(hash, &front->members[i].host,
                         sizeof(front->members[i].host));
    return hash;
}

static uint64_t table_hash(const struct tri_front *front)
{
    const struct tri_choice *choice = &front->choice;
    uint64_t hash = tri_fnv64(TRI_FNV64_OFFSET, &choice->table_hosts,
                              sizeof(choice->table_hosts));

    for (uint32_t i = 0; i < TRI_CHOICE_SLOTS; i++)
        hash = tri_fnv64(hash, &choice->slots[i].decided, 1);
    return hash;
}

static void forget(struct tri_choice *choice)
{
    memset(choice->slots, 0, sizeof(choice->slots));
    choice->table_hosts = 0;
}

void tri_choice_begin(struct tri_front *front)
{
    struct tri_choice *choice = &front->choice;

    choice->on = front->is_elastic && front->team.len > 1 &&
                 front->wanted != TRI_BACKEND_NATIVE &&
                 front->tensor->backends[TRI_BACKEND_MPI] != NULL;
    choice->forced = front->wanted == TRI_BACKEND_MPI;
    choice->available = false;
    choice->starts = 0;
    choice->next = TRI_COUNCIL_CAN;
    choice->next_starts = FIRST_STARTS;
    choice->under_way = TRI_COUNCIL_NONE;
    /* What was tried and not decided begins anew. */
    for (uint32_t i = 0; i < TRI_CHOICE_SLOTS; i++)
        if (choice->slots[i].decided == 0)
            memset(&choice->slots[i], 0, sizeof(choice->slots[i]));
    if (choice->table_hosts != hosts_hash(front))
        forget(choice);
}

/* --- councils ------------------------------------------------------------- */

/* Before a call that all make: so members whose calls differ here are told of
 * those. */
static void hold(struct tri_front *front, enum tri_council what, uint32_t len,
                 enum troupe_op op)
{
    struct tri_choice *choice = &front->choice;
    const uint64_t *before = choice->before->coll.signature;
    struct troupe_collective *entry = &choice->entry;
    int rc;

    memset(entry, 0, sizeof(*entry));
    entry->internal = true;
    entry->coll = (struct tri_coll){
        .kind = TRI_COLL_ALLREDUCE,
        .type = TROUPE_UINT64,
        .op = (uint8_t)op,
        .count = len,
        .in = choice->in,
        .out = choice->out,
    };
    entry->coll.signature[0] = before[0];
    entry->coll.signature[1] = before[1] | TRI_COLL_COUNCIL;
    choice->under_way = what;
    tri_front_queue_locked(front, entry);
    rc = tri_front_start_locked(front, entry, TRI_BACKEND_NATIVE);
    if (rc != 0)
        tri_front_fail_locked(front, TRI_BACKEND_NATIVE, rc);
}

static void ask_can(struct tri_front *front)
{
    const struct tri_backend_ops *mpi =
        front->tensor->backends[TRI_BACKEND_MPI];
    struct tri_choice *choice = &front->choice;

    choice->in[0] = mpi->can == NULL || mpi->can(&front->team);
    choice->in[1] = table_hash(front);
    choice->in[2] = ~choice->in[1];
    hold(front, TRI_COUNCIL_CAN, 3, TROUPE_MIN);
}

enum { STANDS_NEVER, STANDS_NOT_YET, STANDS };

static void ask_ready(struct tri_front *front)
{
    const struct tri_instance *mpi = &front->instances[TRI_BACKEND_MPI];

    front->choice.in[0] = mpi->ready     ? STANDS
                          : mpi->rc == 0 ? STANDS_NOT_YET
                                         : STANDS_NEVER;
    hold(front, TRI_COUNCIL_READY, 1, TROUPE_MIN);
}

/* Of trials that are still under way nothing is known. */
static uint64_t time_of(const struct tri_choice *choice, uint8_t backend)
{
    uint64_t ns = choice->slots[choice->slot].best_ns[backend];

    return ns != 0 ? ns : 1000 * TRI_NS_PER_MS;
}

static void ask_times(struct tri_front *front, uint32_t slot)
{
    struct tri_choice *choice = &front->choice;

    choice->slot = slot;
    choice->in[0] = time_of(choice, TRI_BACKEND_NATIVE);
    choice->in[1] = time_of(choice, TRI_BACKEND_MPI);
    hold(front, TRI_COUNCIL_TIMES, 2, TROUPE_SUM);
}

static void answer_can(struct tri_front *front)
{
    struct tri_choice *choice = &front->choice;

    if (choice->out[1] != ~choice->out[2])
        forget(choice); /* another has another table */
    if (choice->out[0] == 0) {
        choice->on = false;
        return;
    }
    choice->next = TRI_COUNCIL_READY;
    choice->next_starts = READY_STARTS;
    /* by the starting thread; should it fail here, READY tells the others */
    front->instances[TRI_BACKEND_MPI].wanted = true;
}

static void answer_ready(struct tri_front *front)
{
    struct tri_choice *choice = &front->choice;

    choice->next_starts += (uint32_t)tri_min(choice->next_starts,
                                             READY_STARTS_MAX);
    if (choice->out[0] == STANDS_NOT_YET)
        return;
    choice->next = TRI_COUNCIL_NONE;
    choice->available = choice->out[0] == STANDS;
    if (!choice->available)
        choice->on = false; /* what was opened is closed with the team */
    tri_info("group %s, epoch %llu: MPI %s",
             tri_view_group_name(front->group),
             (unsigned long long)front->team.epoch,
             choice->available ? "stands" : "cannot be used");
}

static void answer_times(struct tri_front *front)
{
    struct tri_choice *choice = &front->choice;
    /* by a twentieth at least: what carries on at a death has the benefit of
     * the doubt */
    bool is_mpi = choice->out[1] < choice->out[0] - choice->out[0] / 20;

    choice->slots[choice->slot].decided =
        is_mpi ? TRI_BACKEND_MPI : TRI_BACKEND_NATIVE;
    choice->table_hosts = hosts_hash(front);
    tri_debug("collectives of kind %u, sizes %u: native %llu ns, mpi %llu ns",
              choice->slot / TRI_CHOICE_CLASSES + 1,
              choice->slot % TRI_CHOICE_CLASSES,
              (unsigned long long)choice->out[0] / front->team.len,
              (unsigned long long)choice->out[1] / front->team.len);
}

/* --- calls ---------------------------------------------------------------- */

static uint8_t try_next(struct tri_choice_slot *slot,
                        struct troupe_collective *entry)
{
    /* n m m n n m m n …: programs that call with two sizes by turns are to
     * give each back end both */
    uint8_t backend = (slot->trials + 1) % 4 < 2 ? TRI_BACKEND_NATIVE
                                                 : TRI_BACKEND_MPI;

    entry->is_trial = true;
    entry->is_chosen = true;
    entry->backend = backend;
    slot->trials++;
    return backend;
}

bool tri_choice_of(struct tri_front *front, struct troupe_collective *entry,
                   uint8_t *backend_p)
{
    struct tri_choice *choice = &front->choice;
    struct tri_choice_slot *slot;

    if (entry->is_chosen) { /* it only could not be started yet */
        *backend_p = entry->backend;
        return true;
    }
    *backend_p = front->fixed;
    if (!choice->on)
        return true;
    if (choice->under_way != TRI_COUNCIL_NONE)
        return false;
    choice->before = entry;
    if (choice->next != TRI_COUNCIL_NONE &&
        choice->starts >= choice->next_starts) {
        if (!front->instances[TRI_BACKEND_NATIVE].ready)
            return false;
        if (choice->next == TRI_COUNCIL_CAN)
            ask_can(front);
        else
            ask_ready(front);
        return false;
    }
    if (!choice->available || entry->exact != NULL)
        return true;
    if (choice->forced) {
        *backend_p = TRI_BACKEND_MPI;
        return true;
    }
    slot = &choice->slots[slot_of(&entry->coll)];
    if (slot->decided == 0 && slot->trials == TRIALS) {
        ask_times(front, slot_of(&entry->coll));
        return false;
    }
    *backend_p = slot->decided != 0 ? slot->decided : try_next(slot, entry);
    return true;
}

static void note_time(struct tri_front *front, struct troupe_collective *entry)
{
    struct tri_choice_slot *slot = &front->choice.slots[slot_of(&entry->coll)];
    uint64_t ns = tri_now_ns() - entry->begun_ns;
    uint64_t *best = &slot->best_ns[entry->backend];

    if (*best == 0 || ns < *best)
        *best = tri_max(ns, 1);
}

void tri_choice_done(struct tri_front *front, struct troupe_collective *entry,
                     int rc)
{
    struct tri_choice *choice = &front->choice;
    enum tri_council what = choice->under_way;

    if (!entry->internal) {
        if (rc == 0)
            note_time(front, entry);
        return;
    }
    choice->under_way = TRI_COUNCIL_NONE;
    if (rc != 0)
        return;
    if (what == TRI_COUNCIL_CAN)
        answer_can(front);
    else if (what == TRI_COUNCIL_READY)
        answer_ready(front);
    else
        answer_times(front);
}
