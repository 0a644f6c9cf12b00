/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * MPI's non-blocking collectives on buffers of this back end, in pieces.
 *
 * Invariants:
 *   1. All members issue the same calls in the same order: calls wait in one
 *      queue, and its head issues all its pieces before the next begins.
 *   2. MPI has pointers to memory of slots and calls only. A request that is
 *      given up takes its memory along (tri_mpi_bury_request).
 *   3. The user's memory is read and written by tri_mpi_stage_progress alone,
 *      of calls that are neither done nor cancelled.
 *   4. After a call was cancelled before it was done, or failed, the order is
 *      lost: the instance carries nothing more (backend->failed).
 *
 * A call: CHECKING (an allgather of what the members call, where that is
 * wanted) -> MOVING (pieces) -> done. It leaves the queue when its last piece
 * is issued or it fails. It is done when none is under way any more; one that
 * failed at once, as what is under way may stay so for ever.
 *
 * Pieces are small where a member is reached by TCP: with more than its eager
 * limit outstanding Open MPI 4.1 deadlocks in MPI_Test when the connection
 * breaks (measured: 9 of 15 kills survived at 8 MiB, 43 of 43 at 64 KiB).
 */
#include "tensor/mpi/backend.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "mpi/job_mpi.h"

#define SLOTS 4u
#define SLOT_BYTES_NEAR (1u << 20)
#define SLOT_BYTES_FAR ((64u << 10) - 512) /* with MPI's header: eager */

struct call {
    struct tri_coll *coll;
    struct call *next;
    struct tri_mpi_shape shape;
    size_t piece_max;
    size_t issued;     /* elements */
    uint32_t flying;   /* pieces */
    bool is_queued;
    bool is_checked;
    bool is_checking;
    MPI_Request check;
    int rc;
    uint64_t own[2];
    uint64_t all[][2]; /* of each member; len of the team, or none */
};

struct slot {
    struct call *call; /* NULL: free */
    struct tri_mpi_piece piece;
    MPI_Request request;
};

struct tri_mpi_stage {
    size_t slot_bytes;
    struct call *first, **last_p;
    struct slot slots[SLOTS];
};

/* --- opening -------------------------------------------------------------- */

static bool is_on_one_host(const struct tri_team *team)
{
    for (uint32_t i = 0; i < team->len; i++)
        if (team->members[i].host != team->members[0].host)
            return false;
    return true;
}

int tri_mpi_stage_open(struct tri_backend *backend)
{
    const struct tri_team *team = backend->team;
    struct tri_mpi_stage *stage = calloc(1, sizeof(*stage));
    size_t bytes = is_on_one_host(team) ? SLOT_BYTES_NEAR : SLOT_BYTES_FAR;

    if (stage == NULL)
        return TROUPE_ENOMEM;
    /* An element of each member must fit. */
    stage->slot_bytes = tri_max(bytes, team->len * sizeof(long double));
    stage->last_p = &stage->first;
    backend->stage = stage;
    return 0;
}

/* Nothing is under way. */
void tri_mpi_stage_close(struct tri_backend *backend)
{
    struct tri_mpi_stage *stage = backend->stage;

    if (stage == NULL)
        return;
    for (uint32_t i = 0; i < SLOTS; i++) {
        assert(stage->slots[i].call == NULL);
        free(stage->slots[i].piece.in);
        free(stage->slots[i].piece.out);
    }
    free(stage);
    backend->stage = NULL;
}

/* --- calls ---------------------------------------------------------------- */

/* MPI, or the memory for it, has failed: not what the members called. */
static bool has_failed(const struct call *call)
{
    return call->rc != 0 && call->rc != TROUPE_EMISMATCH;
}

static bool is_done(const struct call *call)
{
    return !call->is_queued &&
           (has_failed(call) || (!call->is_checking && call->flying == 0));
}

int tri_mpi_stage_add(struct tri_backend *backend, struct tri_coll *coll)
{
    struct tri_mpi_stage *stage = backend->stage;
    size_t len = backend->checks ? backend->team->len : 0;
    struct call *call = calloc(1, sizeof(*call) + len * sizeof(call->all[0]));
    int rc;

    if (call == NULL)
        return TROUPE_ENOMEM;
    rc = tri_mpi_shape_of(coll, &call->shape);
    if (rc != 0) {
        free(call);
        return rc;
    }
    call->coll = coll;
    call->check = MPI_REQUEST_NULL;
    call->is_checked = !backend->checks;
    call->piece_max = tri_mpi_piece_max(coll, &call->shape, stage->slot_bytes);
    call->is_queued = true;
    *stage->last_p = call;
    stage->last_p = &call->next;
    coll->state = call;
    return 0;
}

/* The first of the queue, but for a cancelled one. */
static void unqueue(struct tri_mpi_stage *stage, struct call *call)
{
    struct call **at = &stage->first;

    while (*at != call)
        at = &(*at)->next;
    *at = call->next;
    if (call->next == NULL)
        stage->last_p = at;
    call->next = NULL;
    call->is_queued = false;
}

/* The others go on, or MPI cannot be relied on: nothing more is called. */
static void fail(struct tri_backend *backend, struct call *call, int rc)
{
    if (backend->failed == 0)
        backend->failed = rc;
    if (!has_failed(call))
        call->rc = rc;
    if (call->is_queued)
        unqueue(backend->stage, call);
}

static void fail_of_mpi(struct tri_backend *backend, struct call *call, int rc)
{
    fail(backend, call,
         tri_mpi_failed(tri_mpi_call_name(call->coll->kind), rc));
}

/* --- what the others call ------------------------------------------------- */

int tri_mpi_compare(struct tri_coll *coll, const uint64_t (*all)[2])
{
    for (uint32_t i = 0; i < coll->team->len; i++)
        if (memcmp(all[i], coll->signature, sizeof(all[i])) != 0) {
            coll->culprit = i;
            memcpy(coll->culprit_signature, all[i], sizeof(all[i]));
            return TROUPE_EMISMATCH;
        }
    return 0;
}

static int test(struct tri_backend *backend, const char *name,
                MPI_Request *request, int *done_p)
{
    int rc;

    *done_p = 0;
    tri_mpi_enter(&backend->watch, name);
    rc = MPI_Test(request, done_p, MPI_STATUS_IGNORE);
    tri_mpi_leave(&backend->watch);
    return rc;
}

/* True: the head of the queue may go on to its pieces. */
static bool check(struct tri_backend *backend, struct call *call)
{
    int done = 0, rc = MPI_SUCCESS;

    if (!call->is_checking) {
        memcpy(call->own, call->coll->signature, sizeof(call->own));
        rc = MPI_Iallgather(call->own, 2, MPI_UINT64_T, call->all, 2,
                            MPI_UINT64_T, backend->comm, &call->check);
        call->is_checking = rc == MPI_SUCCESS;
    }
    if (rc == MPI_SUCCESS)
        rc = test(backend, "MPI_Iallgather", &call->check, &done);
    if (rc != MPI_SUCCESS) {
        call->is_checking &= call->check != MPI_REQUEST_NULL;
        fail_of_mpi(backend, call, rc);
        return false;
    }
    if (!done)
        return false;
    call->is_checking = false;
    call->is_checked = true;
    call->rc = tri_mpi_compare(call->coll, (const uint64_t(*)[2])call->all);
    if (call->rc != 0)
        unqueue(backend->stage, call);
    return call->rc == 0;
}

/* --- pieces --------------------------------------------------------------- */

static bool has_memory(const struct tri_mpi_stage *stage, struct slot *slot)
{
    if (slot->piece.in == NULL)
        slot->piece.in = malloc(stage->slot_bytes);
    if (slot->piece.out == NULL)
        slot->piece.out = malloc(stage->slot_bytes);
    return slot->piece.in != NULL && slot->piece.out != NULL;
}

/* One with memory. NULL: none now; *flying_p: some will be free. */
static struct slot *free_slot(struct tri_mpi_stage *stage, bool *flying_p)
{
    *flying_p = false;
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &stage->slots[i];

        if (slot->call != NULL)
            *flying_p = true;
        else if (has_memory(stage, slot))
            return slot;
    }
    return NULL;
}

static bool has_more(const struct call *call)
{
    return call->issued < call->coll->count ||
           (call->coll->kind == TRI_COLL_BARRIER && call->issued == 0);
}

/* False: not now, or not any more. */
static bool issue(struct tri_backend *backend, struct call *call)
{
    struct tri_mpi_stage *stage = backend->stage;
    bool flying, is_barrier = call->coll->kind == TRI_COLL_BARRIER;
    struct slot *slot = free_slot(stage, &flying);
    int rc;

    if (slot == NULL) {
        if (!flying)
            fail(backend, call, TROUPE_ENOMEM);
        return false;
    }
    slot->piece.first = call->issued;
    slot->piece.len = is_barrier ? 0
                                 : tri_min(call->piece_max,
                                           call->coll->count - call->issued);
    tri_mpi_piece_load(call->coll, &call->shape, &slot->piece);
    tri_mpi_enter(&backend->watch, tri_mpi_call_name(call->coll->kind));
    rc = tri_mpi_piece_call(call->coll, &call->shape, &slot->piece,
                            backend->comm, &slot->request);
    tri_mpi_leave(&backend->watch);
    if (rc != MPI_SUCCESS) {
        fail_of_mpi(backend, call, rc);
        return false;
    }
    slot->call = call;
    call->flying++;
    call->issued += is_barrier ? 1 : slot->piece.len;
    return true;
}

/* What MPI may still use goes with it. */
static void bury(struct slot *slot)
{
    slot->call->flying--;
    tri_mpi_bury_request(slot->request, slot->piece.in, slot->piece.out);
    memset(slot, 0, sizeof(*slot));
}

static void take_in(struct tri_backend *backend, struct slot *slot)
{
    struct call *call = slot->call;
    int done, rc = test(backend, tri_mpi_call_name(call->coll->kind),
                        &slot->request, &done);

    if (rc == MPI_SUCCESS && !done)
        return;
    if (rc != MPI_SUCCESS) {
        fail_of_mpi(backend, call, rc);
        if (slot->request != MPI_REQUEST_NULL) {
            bury(slot);
            return;
        }
    } else if (call->rc == 0) {
        tri_mpi_piece_store(call->coll, &call->shape, &slot->piece);
    }
    slot->call = NULL;
    call->flying--;
}

static void pump(struct tri_backend *backend)
{
    struct tri_mpi_stage *stage = backend->stage;

    for (uint32_t i = 0; i < SLOTS; i++)
        if (stage->slots[i].call != NULL)
            take_in(backend, &stage->slots[i]);
    while (stage->first != NULL && backend->failed == 0) {
        struct call *call = stage->first;

        if (!call->is_checked && !check(backend, call)) {
            if (call->is_queued)
                return;
            continue;
        }
        while (has_more(call))
            if (!issue(backend, call))
                break;
        if (!call->is_queued)
            continue;
        if (has_more(call))
            return;
        unqueue(stage, call);
    }
}

/* Frees it, but for what MPI may still use. */
static void discard(struct tri_mpi_stage *stage, struct call *call)
{
    for (uint32_t i = 0; i < SLOTS; i++)
        if (stage->slots[i].call == call)
            bury(&stage->slots[i]);
    if (call->is_queued)
        unqueue(stage, call);
    if (call->is_checking)
        tri_mpi_bury_request(call->check, call, NULL);
    else
        free(call);
}

int tri_mpi_stage_progress(struct tri_backend *backend, struct tri_coll *coll)
{
    struct call *call = coll->state;
    int rc;

    pump(backend);
    /* Those behind one that failed cannot go on. */
    if (call->is_queued && backend->failed != 0)
        fail(backend, call, backend->failed);
    if (!is_done(call))
        return TRI_COLL_PENDING;
    rc = call->rc;
    discard(backend->stage, call);
    coll->state = NULL;
    return rc;
}

int tri_mpi_stage_issue_all(struct tri_backend *backend)
{
    while (backend->stage->first != NULL && backend->failed == 0)
        pump(backend);
    return backend->failed;
}

/* --- giving up ------------------------------------------------------------ */

void tri_mpi_stage_cancel(struct tri_backend *backend, struct tri_coll *coll)
{
    struct call *call = coll->state;

    coll->state = NULL;
    if (!is_done(call) && backend->failed == 0)
        backend->failed = TROUPE_EVIEW;
    discard(backend->stage, call);
}
