/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The native back end: collectives that can be ended at any point. By shared
 * memory where all members of a team have it together, over links where none
 * have, and by both where some have.
 *
 * All members come to the same: hosts are the same to all, and a failure of
 * shared memory is told to all who were to share it.
 */

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"
#include "message/pool.h"
#include "tensor/native/native_internal.h"

/* What was measured or told last, for the teams to come: several groups may
 * have teams at once. */
static struct {
    struct tri_lock lock;
    struct tri_net_table table; /* lock */
} known;

static struct tri_native *native_of(struct tri_backend *backend)
{
    return (struct tri_native *)(void *)backend;
}

/* --- what the two ask for ------------------------------------------------- */

/* member: a local. */
static int shm_send(void *arg, uint32_t member, uint16_t what,
                    const void *payload, size_t bytes)
{
    const struct tri_native *native = arg;
    struct tri_coll_head head = { .backend = TRI_BACKEND_NATIVE,
                                  .what = what };
    struct tri_piece piece = { payload, bytes };

    return native->send(native->context, native->layout.locals[member],
                        TRI_COLL_CONTROL, &head, &piece, 1);
}

/* member: of the team, or a host's of the column. */
static int net_send(void *context, uint32_t member, uint8_t kind,
                    struct tri_coll_head *head, const struct tri_piece *pieces,
                    uint32_t pieces_len)
{
    const struct tri_native *native = context;

    if (native->way == TRI_WAY_BOTH)
        member = native->layout.column[member];
    return native->send(native->context, member, kind, head, pieces,
                        pieces_len);
}

static uint64_t net_now_ns(void *context)
{
    (void)context;
    return tri_now_ns();
}

static int team_send(void *context, uint32_t member, uint8_t kind,
                     struct tri_coll_head *head, const struct tri_piece *pieces,
                     uint32_t pieces_len)
{
    return tri_team_send(context, member, kind, head, pieces, pieces_len);
}

/* --- failures ------------------------------------------------------------- */

/* Deaths are told by membership, calls that differ by the front. Of all else
 * the others would not know, and wait. Returns rc. */
static int tell_failed(struct tri_native *native, int rc)
{
    int32_t why = rc;
    struct tri_piece piece = { &why, sizeof(why) };

    if (rc >= 0 || rc == TROUPE_ENODE || rc == TROUPE_EMISMATCH ||
        native->failed != 0)
        return rc;
    native->failed = rc;
    for (uint32_t i = 0; i < native->team->len; i++) {
        struct tri_coll_head head = { .backend = TRI_BACKEND_NATIVE,
                                      .what = TRI_NATIVE_FAILED };

        if (i != native->team->index)
            (void)native->send(native->context, i, TRI_COLL_CONTROL, &head,
                               &piece, 1);
    }
    return rc;
}

static void on_failed(struct tri_native *native, uint32_t member,
                      const void *payload, size_t bytes)
{
    int32_t why = TROUPE_EPROTO;

    if (native->failed != 0)
        return;
    if (bytes == sizeof(why))
        memcpy(&why, payload, sizeof(why));
    native->failed = why < 0 ? why : TROUPE_EPROTO;
    tri_error("collectives of epoch %llu end: member %u of the team cannot go "
              "on: %s",
              (unsigned long long)native->team->epoch, member,
              troupe_strerror(native->failed));
}

/* --- life ----------------------------------------------------------------- */

static bool native_can(const struct tri_team *team)
{
    (void)team;
    return true; /* all have links */
}

static bool wants_fabric(const struct tri_team *team)
{
    const char *transport = team->runtime->options.transport;

    return transport != NULL && strcmp(transport, "fabric") == 0;
}

static enum tri_native_way way_of(const struct tri_native *native)
{
    const struct tri_layout *layout = &native->layout;

    if (native->refuses_shm || layout->hosts_len == native->team->len ||
        layout->locals_max > TRI_SHM_MEMBERS_MAX)
        return TRI_WAY_NET;
    return layout->hosts_len == 1 ? TRI_WAY_SHM : TRI_WAY_BOTH;
}

static int open_net(struct tri_native *native)
{
    const struct tri_layout *layout = &native->layout;
    bool both = native->way == TRI_WAY_BOTH;
    struct tri_net_config config = {
        .len = both ? layout->hosts_len : native->team->len,
        .index = both ? layout->host : native->team->index,
        .canonical = native->team->is_reproducible,
        .segment_bytes_max =
            native->team->runtime->options.message_bytes_max / 16,
        .context = native,
        .send = net_send,
        .now_ns = net_now_ns,
    };
    struct tri_net_table table;

    if (both && !layout->is_even && layout->local != 0)
        return 0; /* of no column */
    tri_lock_acquire(&known.lock);
    table = known.table;
    tri_lock_release(&known.lock);
    if (table.version != 0)
        config.table = &table;
    return tri_net_open(&config, &native->net);
}

static int open_shm(struct tri_native *native)
{
    struct tri_shm_setup setup = { .len = native->layout.locals_len,
                                   .index = native->layout.local,
                                   .send = shm_send,
                                   .arg = native };

    return tri_shm_open(&setup, &native->shm);
}

static void native_close(struct tri_backend **backend_p)
{
    struct tri_native *native = native_of(*backend_p);

    if (native == NULL)
        return;
    *backend_p = NULL;
    tri_both_cancel_all(native);
    if (native->shm != NULL)
        tri_shm_close(&native->shm);
    tri_net_close(&native->net);
    tri_layout_fini(&native->layout);
    free(native);
}

int tri_native_open(const struct tri_team *team, tri_native_send send,
                    void *context, struct tri_backend **backend_p)
{
    struct tri_native *native = calloc(1, sizeof(*native));
    struct tri_backend *backend = (struct tri_backend *)(void *)native;
    int rc;

    if (native == NULL)
        return TROUPE_ENOMEM;
    native->team = team;
    native->send = send;
    native->context = context;
    rc = tri_layout_init(&native->layout, team);
    if (rc == 0) {
        native->refuses_shm = native->layout.locals_max > 1 &&
                              wants_fabric(team);
        native->way = way_of(native);
        rc = open_net(native);
    }
    if (rc == 0 && native->way != TRI_WAY_NET &&
        native->layout.locals_len > 1)
        rc = open_shm(native);
    if (rc != 0) {
        native_close(&backend);
        return rc;
    }
    *backend_p = backend;
    return 0;
}

static int native_open(const struct tri_team *team,
                       struct tri_backend **backend_p)
{
    return tri_native_open(team, team_send, (void *)(uintptr_t)team,
                           backend_p);
}

/* Those of the others who would share memory must not wait for us. */
static int refuse_shm(struct tri_native *native)
{
    for (uint32_t i = 0; i < native->layout.locals_len; i++) {
        int rc = i == native->layout.local
                     ? 0
                     : shm_send(native, i, TRI_SHM_FAILED, NULL, 0);

        if (rc != 0)
            return rc;
    }
    native->refuses_shm = false;
    return 0;
}

static int open_progress_shm(struct tri_native *native)
{
    int rc = tri_shm_open_progress(native->shm);

    native->shm_ready = rc == 0;
    if (rc != TROUPE_ETRANSPORT)
        return rc;
    if (native->way == TRI_WAY_BOTH) { /* other hosts may have begun */
        tri_error("members of one host cannot share memory; TROUPE_TRANSPORT="
                  "fabric does without");
        return rc;
    }
    tri_warn("members of one host cannot share memory: collectives go over "
             "links");
    tri_shm_close(&native->shm);
    native->way = TRI_WAY_NET;
    return TRI_COLL_PENDING;
}

static int open_progress_net(struct tri_native *native)
{
    int rc = tri_net_open_progress(native->net);

    if (rc == 0 && native->team->len > 1) {
        tri_lock_acquire(&known.lock);
        known.table = *tri_net_table(native->net);
        tri_lock_release(&known.lock);
    }
    return rc;
}

static int open_progress(struct tri_native *native)
{
    int rc = native->refuses_shm ? refuse_shm(native) : 0, net_rc = 0;

    if (rc == 0 && native->shm != NULL && !native->shm_ready)
        rc = open_progress_shm(native);
    if (rc < 0 || native->way == TRI_WAY_SHM)
        return rc;
    if (native->net != NULL)
        net_rc = open_progress_net(native);
    return net_rc != 0 ? net_rc : rc;
}

static int native_open_progress(struct tri_backend *backend)
{
    struct tri_native *native = native_of(backend);

    if (native->failed != 0)
        return native->failed;
    return tell_failed(native, open_progress(native));
}

/* --- by shared memory ----------------------------------------------------- */

static int shm_start(struct tri_native *native, struct tri_coll *coll)
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

static int shm_progress(struct tri_native *native, struct tri_coll *coll)
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

static int net_start(struct tri_native *native, struct tri_coll *coll)
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

static int net_progress(struct tri_native *native, struct tri_coll *coll)
{
    struct tri_net_mismatch mismatch;
    int rc = tri_net_progress(native->net, coll->state, &mismatch);

    coll->moves = tri_net_moves(native->net);
    if (rc == TROUPE_EMISMATCH) {
        coll->culprit = mismatch.culprit;
        memcpy(coll->culprit_signature, mismatch.signature,
               sizeof(mismatch.signature));
        coll->earlier = mismatch.number;
        coll->witness = mismatch.witness;
        memcpy(coll->witness_signature, mismatch.witness_signature,
               sizeof(mismatch.witness_signature));
    }
    return rc;
}

/* --- all ------------------------------------------------------------------ */

static int native_start(struct tri_backend *backend, struct tri_coll *coll)
{
    struct tri_native *native = native_of(backend);
    int rc = native->failed;

    if (rc != 0)
        return rc;
    if (native->way == TRI_WAY_BOTH)
        rc = tri_both_start(native, coll);
    else if (native->way == TRI_WAY_SHM)
        rc = shm_start(native, coll);
    else
        rc = net_start(native, coll);
    return tell_failed(native, rc);
}

static void native_cancel(struct tri_backend *backend, struct tri_coll *coll)
{
    struct tri_native *native = native_of(backend);

    if (coll->state != NULL && native->way == TRI_WAY_BOTH) {
        tri_both_cancel(native, coll);
    } else if (coll->state != NULL && native->way == TRI_WAY_SHM) {
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
    struct tri_native *native = native_of(backend);
    int rc;

    if (native->failed != 0)
        rc = native->failed;
    else if (native->way == TRI_WAY_BOTH)
        rc = tri_both_progress(native, coll);
    else if (native->way == TRI_WAY_SHM)
        rc = shm_progress(native, coll);
    else
        rc = net_progress(native, coll);
    if (rc != TRI_COLL_PENDING)
        native_cancel(backend, coll);
    return tell_failed(native, rc);
}

/* The number of net's that a member has; false: it is in another column. */
static bool net_member(const struct tri_native *native, uint32_t *member_p)
{
    const struct tri_layout *layout = &native->layout;

    if (native->net == NULL)
        return false;
    if (native->way != TRI_WAY_BOTH)
        return true;
    if (layout->local_of[*member_p] != layout->local)
        return false;
    *member_p = layout->host_of[*member_p];
    return true;
}

static void native_received(struct tri_backend *backend, uint32_t member,
                            const struct tri_coll_head *head,
                            const void *payload, size_t bytes,
                            struct tri_message *message)
{
    struct tri_native *native = native_of(backend);
    const struct tri_layout *layout = &native->layout;

    if (head->what > TRI_NATIVE_FAILED && net_member(native, &member)) {
        if (!tri_net_received(native->net, member, head, payload, bytes,
                              message))
            tri_refusals_count(&native->team->runtime->link.refusals,
                               "a collective's record that no member may send");
        return;
    }
    if (head->what == TRI_NATIVE_FAILED)
        on_failed(native, member, payload, bytes);
    else if (head->what <= TRI_SHM_WHAT_LAST && native->shm != NULL &&
        layout->host_of[member] == layout->host)
        tri_shm_received(native->shm, layout->local_of[member], head->what,
                         payload, bytes);
    if (message != NULL)
        tri_message_free(message);
}

const struct tri_backend_ops tri_backend_native = {
    .name = "native",
    .tells_failure = true,
    .can = native_can,
    .open = native_open,
    .open_progress = native_open_progress,
    .close = native_close,
    .start = native_start,
    .progress = native_progress,
    .cancel = native_cancel,
    .received = native_received,
};
