/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The native back end: collectives that can be ended at any point. By shared
 * memory where all members of a team have it together, else over links.
 *
 * All members come to the same: hosts are the same to all, and a failure of
 * shared memory is told to all.
 */

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"
#include "message/pool.h"
#include "tensor/native/net.h"
#include "tensor/native/shm.h"
#include "tensor/tensor.h"

enum way {
    WAY_SHM,
    WAY_NET,
};

struct native {
    const struct tri_team *team;
    enum way way;
    struct tri_shm *shm; /* NULL: not of this team, or it failed */
    struct tri_net *net;
    bool refuses_shm; /* not told yet */
};

/* What was measured or told last, for the teams to come: several groups may
 * have teams at once. */
static struct {
    struct tri_lock lock;
    struct tri_net_table table; /* lock */
} known;

static struct native *native_of(struct tri_backend *backend)
{
    return (struct native *)(void *)backend;
}

/* --- what the two ask for ------------------------------------------------- */

static int shm_send(void *arg, uint32_t member, uint16_t what,
                    const void *payload, size_t bytes)
{
    const struct native *native = arg;
    struct tri_coll_head head = { .backend = TRI_BACKEND_NATIVE,
                                  .what = what };
    struct tri_piece piece = { payload, bytes };

    return tri_team_send(native->team, member, TRI_COLL_CONTROL, &head, &piece,
                         1);
}

static int net_send(void *context, uint32_t member, uint8_t kind,
                    struct tri_coll_head *head, const struct tri_piece *pieces,
                    uint32_t pieces_len)
{
    const struct native *native = context;

    return tri_team_send(native->team, member, kind, head, pieces, pieces_len);
}

static uint64_t net_now_ns(void *context)
{
    (void)context;
    return tri_now_ns();
}

/* --- life ----------------------------------------------------------------- */

static bool native_can(const struct tri_team *team)
{
    (void)team;
    return true; /* all have links */
}

static bool is_on_one_host(const struct tri_team *team)
{
    for (uint32_t i = 1; i < team->len; i++)
        if (team->members[i].host != team->members[0].host)
            return false;
    return team->len <= TRI_SHM_MEMBERS_MAX;
}

static bool wants_fabric(const struct tri_team *team)
{
    const char *transport = team->runtime->options.transport;

    return transport != NULL && strcmp(transport, "fabric") == 0;
}

static int open_net(struct native *native)
{
    struct tri_net_config config = {
        .len = native->team->len,
        .index = native->team->index,
        .canonical = native->team->is_reproducible,
        .context = native,
        .send = net_send,
        .now_ns = net_now_ns,
    };
    struct tri_net_table table;

    tri_lock_acquire(&known.lock);
    table = known.table;
    tri_lock_release(&known.lock);
    if (table.version != 0)
        config.table = &table;
    return tri_net_open(&config, &native->net);
}

static int open_shm(struct native *native)
{
    struct tri_shm_setup setup = { .len = native->team->len,
                                   .index = native->team->index,
                                   .send = shm_send,
                                   .arg = native };

    return tri_shm_open(&setup, &native->shm);
}

static void native_close(struct tri_backend **backend_p)
{
    struct native *native = native_of(*backend_p);

    if (native == NULL)
        return;
    *backend_p = NULL;
    if (native->shm != NULL)
        tri_shm_close(&native->shm);
    tri_net_close(&native->net);
    free(native);
}

static int native_open(const struct tri_team *team,
                       struct tri_backend **backend_p)
{
    struct native *native = calloc(1, sizeof(*native));
    struct tri_backend *backend = (struct tri_backend *)(void *)native;
    bool one_host = is_on_one_host(team);
    int rc;

    if (native == NULL)
        return TROUPE_ENOMEM;
    native->team = team;
    native->refuses_shm = one_host && team->len > 1 && wants_fabric(team);
    native->way = one_host && !native->refuses_shm ? WAY_SHM : WAY_NET;
    rc = open_net(native);
    if (rc == 0 && native->way == WAY_SHM)
        rc = open_shm(native);
    if (rc != 0) {
        native_close(&backend);
        return rc;
    }
    *backend_p = backend;
    return 0;
}

/* Those of the others who would share memory must not wait for us. */
static int refuse_shm(struct native *native)
{
    for (uint32_t i = 0; i < native->team->len; i++) {
        int rc = i == native->team->index
                     ? 0
                     : shm_send(native, i, TRI_SHM_FAILED, NULL, 0);

        if (rc != 0)
            return rc;
    }
    native->refuses_shm = false;
    return 0;
}

static int open_progress_shm(struct native *native)
{
    int rc = tri_shm_open_progress(native->shm);

    if (rc != TROUPE_ETRANSPORT)
        return rc;
    tri_warn("members of one host cannot share memory: collectives go over "
             "links");
    tri_shm_close(&native->shm);
    native->way = WAY_NET;
    return TRI_COLL_PENDING;
}

static int native_open_progress(struct tri_backend *backend)
{
    struct native *native = native_of(backend);
    int rc = native->refuses_shm ? refuse_shm(native) : 0;

    if (rc != 0)
        return rc;
    if (native->way == WAY_SHM)
        return open_progress_shm(native);
    rc = tri_net_open_progress(native->net);
    if (rc == 0 && native->team->len > 1) {
        tri_lock_acquire(&known.lock);
        known.table = *tri_net_table(native->net);
        tri_lock_release(&known.lock);
    }
    return rc;
}

/* --- by shared memory ----------------------------------------------------- */

static int shm_start(struct native *native, struct tri_coll *coll)
{
    struct tri_shm_call call = {
        .kind = coll->kind,
        .type = coll->type,
        .op = coll->op,
        .root = coll->root,
        .count = coll->count,
        .in = coll->in,
        .out = coll->out,
        .signature = { coll->signature[0], coll->signature[1] },
    };
    struct tri_shm_op *op;
    int rc = tri_shm_start(native->shm, &call, &op);

    if (rc == 0)
        coll->state = op;
    return rc;
}

static int shm_progress(struct native *native, struct tri_coll *coll)
{
    struct tri_shm_op *op = coll->state;
    int rc = tri_shm_progress(native->shm, op);

    coll->moves = tri_shm_moves(native->shm);
    if (rc == TROUPE_EMISMATCH)
        coll->culprit = tri_shm_culprit(native->shm, op,
                                        coll->culprit_signature);
    return rc;
}

/* --- over links ----------------------------------------------------------- */

static int net_start(struct native *native, struct tri_coll *coll)
{
    struct tri_net_request request = {
        .number = coll->number,
        .kind = coll->kind,
        .type = coll->type,
        .op = coll->op,
        .root = coll->root,
        .count = coll->count,
        .in = coll->in,
        .out = coll->out,
        .signature = { coll->signature[0], coll->signature[1] },
        .divisor = native->team->len,
    };
    struct tri_net_call *call;
    int rc = tri_net_start(native->net, &request, &call);

    if (rc == 0)
        coll->state = call;
    return rc;
}

static int net_progress(struct native *native, struct tri_coll *coll)
{
    struct tri_net_mismatch mismatch;
    int rc = tri_net_progress(native->net, coll->state, &mismatch);

    if (rc == TROUPE_EMISMATCH) {
        coll->culprit = mismatch.culprit;
        memcpy(coll->culprit_signature, mismatch.signature,
               sizeof(mismatch.signature));
    }
    return rc;
}

/* --- both ----------------------------------------------------------------- */

static int native_start(struct tri_backend *backend, struct tri_coll *coll)
{
    struct native *native = native_of(backend);

    return native->way == WAY_SHM ? shm_start(native, coll)
                                  : net_start(native, coll);
}

static void native_cancel(struct tri_backend *backend, struct tri_coll *coll)
{
    struct native *native = native_of(backend);

    if (coll->state != NULL && native->way == WAY_SHM) {
        struct tri_shm_op *op = coll->state;

        tri_shm_cancel(native->shm, &op);
    } else if (coll->state != NULL) {
        struct tri_net_call *call = coll->state;

        tri_net_end(native->net, &call);
    }
    coll->state = NULL;
}

static int native_progress(struct tri_backend *backend, struct tri_coll *coll)
{
    struct native *native = native_of(backend);
    int rc = native->way == WAY_SHM ? shm_progress(native, coll)
                                    : net_progress(native, coll);

    if (rc != TRI_COLL_PENDING)
        native_cancel(backend, coll);
    return rc;
}

static void native_received(struct tri_backend *backend, uint32_t member,
                            const struct tri_coll_head *head,
                            const void *payload, size_t bytes,
                            struct tri_message *message)
{
    struct native *native = native_of(backend);

    if (head->what > TRI_SHM_WHAT_LAST) {
        tri_net_received(native->net, member, head, payload, bytes, message);
        return;
    }
    if (native->shm != NULL)
        tri_shm_received(native->shm, member, head->what, payload, bytes);
    if (message != NULL)
        tri_message_free(message);
}

const struct tri_backend_ops tri_backend_native = {
    .name = "native",
    .can = native_can,
    .open = native_open,
    .open_progress = native_open_progress,
    .close = native_close,
    .start = native_start,
    .progress = native_progress,
    .cancel = native_cancel,
    .received = native_received,
};
