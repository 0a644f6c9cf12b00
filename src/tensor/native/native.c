/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The native back end: by shared memory for a team whose members all live on
 * one host.
 */

#include <stdlib.h>

#include "message/pool.h"
#include "tensor/native/shm.h"
#include "tensor/tensor.h"

struct native {
    const struct tri_team *team;
    struct tri_shm *shm;
};

static struct native *native_of(struct tri_backend *backend)
{
    return (struct native *)(void *)backend;
}

static bool native_can(const struct tri_team *team)
{
    for (uint32_t i = 1; i < team->len; i++)
        if (team->members[i].host != team->members[0].host)
            return false;
    return team->len <= TRI_SHM_MEMBERS_MAX;
}

static int send_record(void *arg, uint32_t member, uint16_t what,
                       const void *payload, size_t bytes)
{
    const struct native *native = arg;
    struct tri_coll_head head = { .backend = TRI_BACKEND_NATIVE,
                                  .what = what };
    struct tri_piece piece = { payload, bytes };

    return tri_team_send(native->team, member, TRI_COLL_CONTROL, &head, &piece,
                         1);
}

static int native_open(const struct tri_team *team,
                       struct tri_backend **backend_p)
{
    struct native *native = calloc(1, sizeof(*native));
    struct tri_shm_setup setup = { .len = team->len,
                                   .index = team->index,
                                   .send = send_record,
                                   .arg = native };
    int rc;

    if (native == NULL)
        return TROUPE_ENOMEM;
    native->team = team;
    rc = tri_shm_open(&setup, &native->shm);
    if (rc != 0) {
        free(native);
        return rc;
    }
    *backend_p = (struct tri_backend *)(void *)native;
    return 0;
}

static int native_open_progress(struct tri_backend *backend)
{
    return tri_shm_open_progress(native_of(backend)->shm);
}

static void native_close(struct tri_backend **backend_p)
{
    struct native *native = native_of(*backend_p);

    *backend_p = NULL;
    tri_shm_close(&native->shm);
    free(native);
}

static int native_start(struct tri_backend *backend, struct tri_coll *coll)
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
    int rc = tri_shm_start(native_of(backend)->shm, &call, &op);

    if (rc == 0)
        coll->state = op;
    return rc;
}

static void native_cancel(struct tri_backend *backend, struct tri_coll *coll)
{
    struct tri_shm_op *op = coll->state;

    coll->state = NULL;
    if (op != NULL)
        tri_shm_cancel(native_of(backend)->shm, &op);
}

static int native_progress(struct tri_backend *backend, struct tri_coll *coll)
{
    struct tri_shm *shm = native_of(backend)->shm;
    struct tri_shm_op *op = coll->state;
    int rc = tri_shm_progress(shm, op);

    if (rc == TROUPE_EMISMATCH)
        coll->culprit = tri_shm_culprit(shm, op, coll->culprit_signature);
    if (rc != TRI_COLL_PENDING)
        native_cancel(backend, coll);
    return rc;
}

static void native_received(struct tri_backend *backend, uint32_t member,
                            const struct tri_coll_head *head,
                            const void *payload, size_t bytes,
                            struct tri_message *message)
{
    tri_shm_received(native_of(backend)->shm, member, head->what, payload,
                     bytes);
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
