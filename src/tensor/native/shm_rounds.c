/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Moves the rounds of a team through their stages; shm_internal.h says what
 * these are and what may be trusted.
 *
 * The last stage goes first: what was just written is still in the cache, and
 * new chunks are begun only when nothing else can be done.
 */

#include "tensor/native/shm_internal.h"

/* Stages passed in one call of progress. A chunk takes some microseconds. */
#define STAGES_AT_ONCE 24u

static struct shm_round *round_of(struct tri_shm *shm, uint64_t number)
{
    return &shm->rounds[number & (SHM_DEPTH - 1)];
}

/* --- waiting for others --------------------------------------------------- */

enum number { NUMBER_IN, NUMBER_OUT };

static const _Atomic uint64_t *number_of(const struct tri_shm *shm,
                                         enum number what, uint32_t member,
                                         uint64_t round)
{
    const struct shm_head *head = shm_head_of(shm, member, round);

    return what == NUMBER_IN ? &head->in : &head->out;
}

/* Whether a number has come to `round`; else notes what is waited for. */
static bool has_come(struct tri_shm *shm, enum shm_stage stage,
                     const _Atomic uint64_t *number, uint64_t round)
{
    /* acquire: pairs with publish; what was written before is seen, and what
     * was read before done may be overwritten */
    uint64_t value = atomic_load_explicit(number, memory_order_acquire);

    if (tri_likely(value == round))
        return true;
    if (value > round) { /* invariant 3 */
        shm->broken = true;
        shm->garbage = true;
        return false;
    }
    shm->watch[stage] = (struct shm_watch){ number, round };
    return false;
}

static void publish(_Atomic uint64_t *number, uint64_t value)
{
    /* release: pairs with the acquire of has_come and has_room */
    atomic_store_explicit(number, value, memory_order_release);
}

/* `in` or `out` of all others for a round. */
static bool all_have_come(struct tri_shm *shm, enum shm_stage stage,
                          enum number what, uint64_t round)
{
    uint32_t *i = &shm->seen[stage];

    for (; *i < shm->len; ++*i)
        if (*i != shm->index &&
            !has_come(shm, stage, number_of(shm, what, *i, round), round))
            return false;
    return true;
}

/* Invariant 2, for one more round. */
static bool has_room(struct tri_shm *shm, uint64_t round)
{
    uint64_t room = shm->at[SHM_OUT];

    if (round <= shm->room + SHM_DEPTH)
        return true;
    if (round > room + SHM_DEPTH)
        return false;
    for (uint32_t i = 0; i < shm->len; i++) {
        const _Atomic uint64_t *done = &shm_area_of(shm, i)->done;
        /* acquire: pairs with publish */
        uint64_t value = atomic_load_explicit(done, memory_order_acquire);

        if (value > shm->at[SHM_OUT] + SHM_DEPTH) { /* invariant 2, there */
            shm->broken = true;
            shm->garbage = true;
            return false;
        }
        if (round > value + SHM_DEPTH) {
            shm->watch[SHM_IN] =
                (struct shm_watch){ done, round - SHM_DEPTH };
            return false;
        }
        room = tri_min(room, value);
    }
    shm->room = room;
    return true;
}

/* --- the stages; each returns whether it was passed ----------------------- */

static void passed(struct tri_shm *shm, enum shm_stage stage)
{
    shm->at[stage]++;
    shm->seen[stage] = 0;
    shm->watch[stage].number = NULL;
    shm->moves++;
}

/* The collective that has rounds left to begin. */
static struct tri_shm_op *next_planned(struct tri_shm *shm)
{
    while (shm->planning != NULL && shm->planning->last_round != 0 &&
           shm->planning->planned >= shm->planning->total)
        shm->planning = shm->planning->next;
    return shm->planning;
}

static bool stage_in(struct tri_shm *shm)
{
    uint64_t number = shm->at[SHM_IN] + 1;
    struct tri_shm_op *op = next_planned(shm);
    struct shm_head *head;
    struct shm_round *round;

    if (op == NULL || (op->last_round != 0 && !op->checked) ||
        !has_room(shm, number))
        return false; /* invariant 4 */
    head = shm_head_of(shm, shm->index, number);
    round = round_of(shm, number);
    *round = (struct shm_round){
        .op = op,
        .begin = op->planned,
        .count = tri_min(op->total - op->planned, op->per_round),
        .first = op->last_round == 0,
    };
    op->planned += round->count;
    op->last_round = number;
    if (round->first || tri_shm_contributes(shm, op)) {
        tri_shm_step_in(shm, round, number);
        head->signature[0] = op->call.signature[0];
        head->signature[1] = op->call.signature[1];
        publish(&head->in, number);
    }
    passed(shm, SHM_IN);
    return true;
}

/* Finds who called something else. */
static void compare(const struct tri_shm *shm, struct tri_shm_op *op,
                    uint64_t number)
{
    op->checked = true;
    for (uint32_t i = 0; i < shm->len; i++) {
        const uint64_t *signature = shm_head_of(shm, i, number)->signature;

        if (tri_likely(signature[0] == op->call.signature[0] &&
                       signature[1] == op->call.signature[1]))
            continue;
        op->error = TROUPE_EMISMATCH;
        op->culprit = i;
        op->culprit_signature[0] = signature[0];
        op->culprit_signature[1] = signature[1];
        op->planned = op->total; /* no more rounds */
        return;
    }
}

static bool stage_reduce(struct tri_shm *shm)
{
    uint64_t number = shm->at[SHM_REDUCE] + 1;
    struct shm_round *round = round_of(shm, number);

    if (shm->at[SHM_REDUCE] == shm->at[SHM_IN])
        return false;
    if ((round->first || round->op->sliced) &&
        !all_have_come(shm, SHM_REDUCE, NUMBER_IN, number))
        return false;
    if (round->first)
        compare(shm, round->op, number);
    if (round->op->sliced && round->op->error == 0) {
        tri_shm_step_reduce(shm, round, number);
        publish(&shm_head_of(shm, shm->index, number)->out, number);
    }
    passed(shm, SHM_REDUCE);
    return true;
}

/* Whether what the last stage of a round needs is there. */
static bool is_readable(struct tri_shm *shm, const struct shm_round *round,
                        uint64_t number)
{
    const struct tri_shm_op *op = round->op;
    enum number what = op->sliced ? NUMBER_OUT : NUMBER_IN;

    if (round->first && !op->sliced)
        return true; /* all `in` were waited for to compare them */
    switch (tri_shm_out_needs(shm, op)) {
    case SHM_NOBODY:
        return true;
    case SHM_ROOT:
        return has_come(shm, SHM_OUT,
                        number_of(shm, what, op->call.root, number), number);
    default:
        return all_have_come(shm, SHM_OUT, what, number);
    }
}

/* Takes the first collective off the list of those under way. */
static void finish(struct tri_shm *shm, struct tri_shm_op *op)
{
    assert(op == shm->first);
    if (shm->planning == op)
        shm->planning = op->next;
    shm->first = op->next;
    if (shm->first == NULL)
        shm->last = NULL;
    op->outcome = op->error;
}

static bool stage_out(struct tri_shm *shm)
{
    uint64_t number = shm->at[SHM_OUT] + 1;
    struct shm_round *round = round_of(shm, number);
    struct tri_shm_op *op = round->op;

    if (shm->at[SHM_OUT] == shm->at[SHM_REDUCE])
        return false;
    if (op->error == 0) {
        if (!is_readable(shm, round, number))
            return false;
        tri_shm_step_out(shm, round, number);
    }
    publish(&shm->own->done, number);
    passed(shm, SHM_OUT);
    if (number == op->last_round && op->planned >= op->total)
        finish(shm, op);
    return true;
}

static void move(struct tri_shm *shm)
{
    for (unsigned i = 0; i < STAGES_AT_ONCE && !shm->broken; i++)
        if (!stage_out(shm) && !stage_reduce(shm) && !stage_in(shm)) {
            shm->more = false;
            return;
        }
}

/* --- collectives ---------------------------------------------------------- */

int tri_shm_start(struct tri_shm *shm, const struct tri_shm_call *call,
                  struct tri_shm_op **op_p)
{
    struct tri_shm_op *op = shm->unused;

    assert(call->root < shm->len && shm->is_open);
    if (op == NULL)
        return TROUPE_ENOMEM;
    shm->unused = op->next;
    *op = (struct tri_shm_op){ .call = *call, .outcome = TRI_COLL_PENDING };
    op->element_bytes =
        call->kind == TRI_COLL_BARRIER
            ? 1
            : troupe_datatype_bytes((enum troupe_datatype)call->type);
    tri_shm_plan(shm, op);
    *op_p = op;
    if (shm->broken)
        return 0; /* it stays pending; the list names what was freed */
    shm->more = true;
    if (shm->last != NULL)
        shm->last->next = op;
    else
        shm->first = op;
    shm->last = op;
    if (shm->planning == NULL)
        shm->planning = op;
    return 0;
}

int tri_shm_progress(struct tri_shm *shm, struct tri_shm_op *op)
{
    if (op->outcome == TRI_COLL_PENDING && !shm->broken)
        move(shm);
    if (op->outcome == TRI_COLL_PENDING && shm->garbage)
        return TROUPE_EPROTO;
    return op->outcome;
}

uint32_t tri_shm_culprit(const struct tri_shm *shm,
                         const struct tri_shm_op *op, uint64_t signature[2])
{
    assert(op->outcome == TROUPE_EMISMATCH && op->culprit < shm->len);
    (void)shm;
    signature[0] = op->culprit_signature[0];
    signature[1] = op->culprit_signature[1];
    return op->culprit;
}

void tri_shm_cancel(struct tri_shm *shm, struct tri_shm_op **op_p)
{
    struct tri_shm_op *op = *op_p;

    *op_p = NULL;
    if (op->outcome == TRI_COLL_PENDING)
        shm->broken = true; /* nothing moves: rounds may name what is freed */
    op->next = shm->unused;
    shm->unused = op;
}

bool tri_shm_changed(const struct tri_shm *shm)
{
    if (shm->broken || shm->first == NULL)
        return false;
    if (shm->more)
        return true;
    for (unsigned i = 0; i < SHM_STAGES; i++) {
        const struct shm_watch *watch = &shm->watch[i];

        /* relaxed: progress looks again, in order */
        if (watch->number != NULL &&
            atomic_load_explicit(watch->number, memory_order_relaxed) >=
                watch->at_least)
            return true;
    }
    return false;
}

uint32_t tri_shm_moves(const struct tri_shm *shm)
{
    return shm->moves;
}
