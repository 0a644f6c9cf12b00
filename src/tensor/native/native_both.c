/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Calls of teams with several members on some of several hosts: stages within
 * the host, by its memory, and between hosts, over links.
 *
 *   allreduce, large, as many members on each host:
 *     each member sums its slice of the host's vectors; the members with the
 *     same slice sum theirs between hosts; the host gathers the slices
 *   allreduce else: the host's leader sums, the leaders among them, then the
 *     leader tells its host
 *   reduce, reduce_scatter: an allreduce of which a part is kept
 *   barrier, bcast, allgather: the host, the leaders, the host
 *
 * Order of summation: the canonical one (tensor/reduce.h) of a host's members,
 * in the order of the team, then that of the hosts, in the order of their first
 * members, or the ring's where net takes it. Both kinds of allreduce have the
 * same, as all that is summed stays in the accumulation type between them.
 *
 * Calls are carried out one after the other, so that all members of a host, and
 * all of a column, come to each stage in the same order. A team has one shm and
 * one net, and each call at most one call of net: so net's numbers are the
 * team's.
 */

#include <stdlib.h>
#include <string.h>

#include "tensor/native/native_internal.h"
#include "tensor/reduce.h"

/* From here on slices pay for more messages. */
#define SLICED_BYTES_MIN (32u << 10)

#define STAGES_MAX 6

enum stage_kind {
    STAGE_SHM,
    STAGE_NET,
    STAGE_LOCAL,
};

struct stage {
    enum stage_kind kind;
    uint8_t coll; /* of shm or net */
    uint8_t type;
    uint32_t root; /* a local, or a host */
    size_t count;
    const void *in;
    void *out;
    void (*run)(struct tri_native *native, struct tri_stages *stages);
};

struct tri_stages {
    struct tri_stages *next;
    struct tri_coll *coll;
    uint8_t acc_type;
    size_t bytes;     /* of an element */
    size_t acc_bytes; /* the same, in the accumulation type */
    char *memory;     /* sums, or what is gathered */
    struct tri_shm_slice slice;
    bool is_sliced;
    uint32_t at, len;
    struct stage stages[STAGES_MAX];
    struct tri_shm_op *op;       /* of the stage under way */
    struct tri_net_call *call;   /* the same */
};

/* --- building ------------------------------------------------------------- */

static struct stage *add(struct tri_stages *stages, enum stage_kind kind,
                         uint8_t coll)
{
    struct stage *stage = &stages->stages[stages->len++];

    assert(stages->len <= STAGES_MAX);
    *stage = (struct stage){ .kind = kind,
                             .coll = coll,
                             .type = stages->coll->type };
    return stage;
}

/* A stage on data that is read and written in place, as bcast has. */
static void add_data(struct tri_stages *stages, enum stage_kind kind,
                     uint8_t coll, uint32_t root, void *data, size_t count)
{
    struct stage *stage = add(stages, kind, coll);

    stage->root = root;
    stage->out = data;
    stage->count = count;
}

static void add_local(struct tri_stages *stages,
                      void (*run)(struct tri_native *, struct tri_stages *))
{
    add(stages, STAGE_LOCAL, 0)->run = run;
}

/* The leader, the leaders, and who is told by them. */
static bool is_leader(const struct tri_native *native)
{
    return native->layout.local == 0;
}

static bool has_others(const struct tri_native *native)
{
    return native->layout.locals_len > 1;
}

static void build_barrier(struct tri_native *native, struct tri_stages *stages)
{
    if (has_others(native))
        add(stages, STAGE_SHM, TRI_COLL_BARRIER);
    if (is_leader(native))
        add(stages, STAGE_NET, TRI_COLL_BARRIER);
    if (has_others(native))
        add(stages, STAGE_SHM, TRI_COLL_BARRIER);
}

static void build_bcast(struct tri_native *native, struct tri_stages *stages)
{
    const struct tri_coll *coll = stages->coll;
    const struct tri_layout *layout = &native->layout;
    uint32_t root_host = layout->host_of[coll->root];
    bool is_there = root_host == layout->host;

    if (has_others(native) && is_there)
        add_data(stages, STAGE_SHM, TRI_COLL_BCAST,
                 layout->local_of[coll->root], coll->out, coll->count);
    if (is_leader(native))
        add_data(stages, STAGE_NET, TRI_COLL_BCAST, root_host, coll->out,
                 coll->count);
    if (has_others(native) && !is_there)
        add_data(stages, STAGE_SHM, TRI_COLL_BCAST, 0, coll->out, coll->count);
}

/* --- sums ----------------------------------------------------------------- */

/* Elements that are summed. */
static size_t sum_len(const struct tri_native *native,
                      const struct tri_coll *coll)
{
    return coll->kind == TRI_COLL_REDUCE_SCATTER
               ? coll->count * native->team->len
               : coll->count;
}

/* This member's contribution, as the host's members add it. */
static void load(struct tri_native *native, struct tri_stages *stages)
{
    const struct tri_coll *coll = stages->coll;
    size_t count = sum_len(native, coll);

    if (count > 0)
        tri_reduce_load(coll->type, stages->memory, coll->in, count);
}

/* What was summed, rounded once: in the memory of the sum, or behind it where
 * its elements are smaller. */
static char *result_of(const struct tri_native *native,
                       const struct tri_stages *stages)
{
    const struct tri_coll *coll = stages->coll;

    if (coll->kind == TRI_COLL_ALLREDUCE)
        return coll->out;
    return stages->acc_bytes == stages->bytes
               ? stages->memory
               : stages->memory + sum_len(native, coll) * stages->acc_bytes;
}

static void store(struct tri_native *native, struct tri_stages *stages)
{
    const struct tri_coll *coll = stages->coll;
    char *out = result_of(native, stages);
    size_t count = sum_len(native, coll);

    if (stages->is_sliced) {
        out += stages->slice.begin * stages->bytes;
        count = stages->slice.count;
    }
    if (count > 0)
        tri_reduce_store(coll->type, coll->op, out, stages->memory, count,
                         native->team->len);
}

/* Of what all have summed, what this member is to have. */
static void take(struct tri_native *native, struct tri_stages *stages)
{
    const struct tri_coll *coll = stages->coll;
    const char *from = result_of(native, stages);
    size_t bytes = coll->count * stages->bytes;

    if (coll->kind == TRI_COLL_REDUCE_SCATTER)
        from += native->team->index * bytes;
    if (coll->out != NULL && bytes > 0)
        memcpy(coll->out, from, bytes);
}

/* In memory: the slice. Only for allreduce. */
static void build_sliced(struct tri_native *native, struct tri_stages *stages)
{
    const struct tri_coll *coll = stages->coll;
    struct stage *stage = add(stages, STAGE_SHM, TRI_SHM_REDUCE_SLICES);

    (void)native;
    stage->in = coll->in;
    stage->out = stages->memory;
    stage->count = coll->count;
    stage = add(stages, STAGE_NET, TRI_COLL_ALLREDUCE);
    stage->type = stages->acc_type;
    stage->in = stage->out = stages->memory;
    stage->count = stages->slice.count;
    add_local(stages, store);
    stage = add(stages, STAGE_SHM, TRI_SHM_GATHER_SLICES);
    stage->in = (char *)coll->out + stages->slice.begin * stages->bytes;
    stage->out = coll->out;
    stage->count = coll->count;
}

/* In memory: the whole vector. `load` was done. */
static void build_led(struct tri_native *native, struct tri_stages *stages)
{
    size_t count = sum_len(native, stages->coll);
    struct stage *stage;

    if (has_others(native)) {
        stage = add(stages, STAGE_SHM, TRI_COLL_REDUCE);
        stage->type = stages->acc_type;
        stage->in = stages->memory;
        stage->out = is_leader(native) ? stages->memory : NULL;
        stage->count = count;
    }
    if (is_leader(native)) {
        stage = add(stages, STAGE_NET, TRI_COLL_ALLREDUCE);
        stage->type = stages->acc_type;
        stage->in = stage->out = stages->memory;
        stage->count = count;
        add_local(stages, store);
    }
    if (has_others(native))
        add_data(stages, STAGE_SHM, TRI_COLL_BCAST, 0,
                 result_of(native, stages), count);
}

/* --- gathering ------------------------------------------------------------ */

/* Memory: a host's blocks, then those of all hosts, each with room for as many
 * as the largest host has. */
static char *gathered(const struct tri_native *native,
                      const struct tri_stages *stages)
{
    return stages->memory + (size_t)native->layout.locals_max *
                                stages->coll->count * stages->bytes;
}

static void order(struct tri_native *native, struct tri_stages *stages)
{
    const struct tri_layout *layout = &native->layout;
    size_t bytes = stages->coll->count * stages->bytes;

    for (uint32_t i = 0; i < native->team->len && bytes > 0; i++) {
        size_t at = (size_t)layout->host_of[i] * layout->locals_max +
                    layout->local_of[i];

        memcpy((char *)stages->coll->out + i * bytes,
               gathered(native, stages) + at * bytes, bytes);
    }
}

static void build_allgather(struct tri_native *native,
                            struct tri_stages *stages)
{
    const struct tri_coll *coll = stages->coll;
    size_t bytes = coll->count * stages->bytes;
    struct stage *stage;

    if (has_others(native)) {
        stage = add(stages, STAGE_SHM, TRI_COLL_ALLGATHER);
        stage->in = coll->in;
        stage->out = stages->memory;
        stage->count = coll->count;
    } else if (bytes > 0) {
        memcpy(stages->memory, coll->in, bytes);
    }
    if (is_leader(native)) {
        stage = add(stages, STAGE_NET, TRI_COLL_ALLGATHER);
        stage->in = stages->memory;
        stage->out = gathered(native, stages);
        stage->count = coll->count * native->layout.locals_max;
        add_local(stages, order);
    }
    if (has_others(native))
        add_data(stages, STAGE_SHM, TRI_COLL_BCAST, 0, coll->out,
                 coll->count * native->team->len);
}

/* --- stages --------------------------------------------------------------- */

/* A sum on its way is not divided: store does it. */
static uint8_t op_of(const struct tri_coll *coll)
{
    return coll->op == TROUPE_AVG ? TROUPE_SUM : coll->op;
}

static int begin_shm(struct tri_native *native, struct tri_stages *stages,
                     const struct stage *stage)
{
    const struct tri_coll *coll = stages->coll;
    struct tri_shm_call call = {
        .kind = stage->coll,
        .type = stage->type,
        .op = op_of(coll),
        .root = stage->root,
        .count = stage->count,
        .in = stage->in,
        .out = stage->out,
        .signature = { coll->signature[0], coll->signature[1] },
    };

    return tri_shm_start(native->shm, &call, &stages->op);
}

static int begin_net(struct tri_native *native, struct tri_stages *stages,
                     const struct stage *stage)
{
    const struct tri_coll *coll = stages->coll;
    struct tri_net_request request = {
        .number = coll->number,
        .kind = stage->coll,
        .type = stage->type,
        .op = op_of(coll),
        .root = stage->root,
        .count = stage->count,
        .in = stage->in,
        .out = stage->out,
        .signature = { coll->signature[0], coll->signature[1] },
        .divisor = 1,
    };

    return tri_net_start(native->net, &request, &stages->call);
}

static int run_shm(struct tri_native *native, struct tri_stages *stages)
{
    struct tri_coll *coll = stages->coll;
    int rc = 0;

    if (stages->op == NULL)
        rc = begin_shm(native, stages, &stages->stages[stages->at]);
    if (rc == 0)
        rc = tri_shm_progress(native->shm, stages->op);
    if (rc == TROUPE_EMISMATCH)
        coll->culprit = native->layout.locals[tri_shm_culprit(
            native->shm, stages->op, coll->culprit_signature)];
    if (rc == 0)
        tri_shm_cancel(native->shm, &stages->op);
    return rc;
}

static int run_net(struct tri_native *native, struct tri_stages *stages)
{
    struct tri_coll *coll = stages->coll;
    struct tri_net_mismatch mismatch;
    int rc = 0;

    if (stages->call == NULL)
        rc = begin_net(native, stages, &stages->stages[stages->at]);
    if (rc == 0)
        rc = tri_net_progress(native->net, stages->call, &mismatch);
    if (rc == TROUPE_EMISMATCH) {
        coll->culprit = native->layout.column[mismatch.culprit];
        memcpy(coll->culprit_signature, mismatch.signature,
               sizeof(mismatch.signature));
        coll->earlier = mismatch.number;
        coll->witness = native->layout.column[mismatch.witness];
        memcpy(coll->witness_signature, mismatch.witness_signature,
               sizeof(mismatch.witness_signature));
    }
    if (rc == 0)
        tri_net_end(native->net, &stages->call);
    return rc;
}

/* Grows when anything of it got on. */
static uint32_t moves_of(const struct tri_native *native,
                         const struct tri_stages *stages)
{
    return stages->at +
           (native->shm != NULL ? tri_shm_moves(native->shm) : 0) +
           (native->net != NULL ? tri_net_moves(native->net) : 0);
}

static int run(struct tri_native *native, struct tri_stages *stages)
{
    int rc = 0;

    while (rc == 0 && stages->at < stages->len) {
        const struct stage *stage = &stages->stages[stages->at];

        if (stage->kind == STAGE_SHM)
            rc = run_shm(native, stages);
        else if (stage->kind == STAGE_NET)
            rc = run_net(native, stages);
        else
            stage->run(native, stages);
        if (rc == 0)
            stages->at++;
    }
    stages->coll->moves = moves_of(native, stages);
    return rc;
}

/* --- calls ---------------------------------------------------------------- */

static bool has_sums(const struct tri_coll *coll)
{
    return coll->kind == TRI_COLL_ALLREDUCE || coll->kind == TRI_COLL_REDUCE ||
           coll->kind == TRI_COLL_REDUCE_SCATTER;
}

static size_t memory_bytes(const struct tri_native *native,
                           const struct tri_stages *stages)
{
    const struct tri_coll *coll = stages->coll;
    const struct tri_layout *layout = &native->layout;

    if (coll->kind == TRI_COLL_ALLGATHER)
        return ((size_t)layout->hosts_len + 1) * layout->locals_max *
               coll->count * stages->bytes;
    if (!has_sums(coll))
        return 0;
    if (stages->is_sliced)
        return stages->slice.count * stages->acc_bytes;
    return sum_len(native, coll) * (stages->acc_bytes + stages->bytes);
}

static void build(struct tri_native *native, struct tri_stages *stages)
{
    uint8_t kind = stages->coll->kind;

    if (kind == TRI_COLL_BARRIER) {
        build_barrier(native, stages);
    } else if (kind == TRI_COLL_BCAST) {
        build_bcast(native, stages);
    } else if (kind == TRI_COLL_ALLGATHER) {
        build_allgather(native, stages);
    } else if (stages->is_sliced) {
        build_sliced(native, stages);
    } else {
        load(native, stages);
        build_led(native, stages);
        if (kind != TRI_COLL_ALLREDUCE)
            add_local(stages, take);
    }
}

static void append(struct tri_native *native, struct tri_stages *stages)
{
    struct tri_stages **end = &native->first;

    while (*end != NULL)
        end = &(*end)->next;
    *end = stages;
}

int tri_both_start(struct tri_native *native, struct tri_coll *coll)
{
    const struct tri_layout *layout = &native->layout;
    struct tri_stages *stages = calloc(1, sizeof(*stages));
    size_t bytes;

    if (stages == NULL)
        return TROUPE_ENOMEM;
    stages->coll = coll;
    stages->bytes = coll->kind == TRI_COLL_BARRIER
                        ? 1
                        : troupe_datatype_bytes(coll->type);
    stages->acc_bytes = has_sums(coll) ? tri_reduce_bytes(coll->type)
                                       : stages->bytes;
    stages->acc_type = stages->acc_bytes == stages->bytes ? coll->type
                                                          : TROUPE_FLOAT;
    stages->is_sliced = coll->kind == TRI_COLL_ALLREDUCE && layout->is_even &&
                        has_others(native) &&
                        coll->count * stages->bytes >= SLICED_BYTES_MIN;
    stages->slice = tri_shm_slice(coll->type, coll->count, layout->local,
                                  layout->locals_len);
    bytes = memory_bytes(native, stages);
    if (bytes > 0) {
        stages->memory = aligned_alloc(TRI_CACHE_LINE,
                                       tri_align_up(bytes, TRI_CACHE_LINE));
        if (stages->memory == NULL) {
            free(stages);
            return TROUPE_ENOMEM;
        }
    }
    coll->state = stages;
    append(native, stages);
    return 0;
}

int tri_both_progress(struct tri_native *native, struct tri_coll *coll)
{
    struct tri_stages *stages = coll->state;

    if (native->first != stages)
        return TRI_COLL_PENDING;
    if (stages->len == 0)
        build(native, stages);
    return run(native, stages);
}

void tri_both_cancel(struct tri_native *native, struct tri_coll *coll)
{
    struct tri_stages *stages = coll->state, **before = &native->first;

    while (*before != stages)
        before = &(*before)->next;
    *before = stages->next;
    coll->state = NULL;
    if (stages->op != NULL)
        tri_shm_cancel(native->shm, &stages->op);
    if (stages->call != NULL)
        tri_net_end(native->net, &stages->call);
    free(stages->memory);
    free(stages);
}

void tri_both_cancel_all(struct tri_native *native)
{
    while (native->first != NULL)
        tri_both_cancel(native, native->first->coll);
}
