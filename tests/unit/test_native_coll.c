/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The native back end as a whole, its members in one process: teams on one
 * host, on many, and on some hosts with several members each, alike and not;
 * every kind, in memory that is shared for real and over a link that is not.
 */
#include "unit.h"

#include "message/pool.h"
#include "tensor/native/native_internal.h"
#include "tensor/native/shm_internal.h"
#include "tensor/reduce.h"

enum {
    MEMBERS_MAX = 8,
    CALLS_MAX = 24,
    LANES = 2,
};

struct flight {
    struct flight *next;
    struct tri_coll_head head;
    size_t bytes;
    char data[];
};

struct lane {
    struct flight *first, **last;
};

struct node {
    struct tri_team team;
    struct tri_backend *backend;
    struct tri_coll calls[CALLS_MAX];
    int rc[CALLS_MAX];
    bool started[CALLS_MAX], done[CALLS_MAX];
};

static struct world {
    struct tri_random random;
    struct tri_runtime runtime;
    struct tri_view_member members[MEMBERS_MAX];
    struct node nodes[MEMBERS_MAX];
    struct lane lanes[MEMBERS_MAX][MEMBERS_MAX][LANES];
    uint32_t len, calls_len, hosts;
    bool spoils_arenas; /* what is told of them is wrong */
    int error;          /* that is to come of it */
} world;

static const struct tri_backend_ops *const ops = &tri_backend_native;

static uint32_t below(uint32_t n)
{
    return tri_random_below(&world.random, n);
}

/* --- the link ------------------------------------------------------------- */

static int world_send(void *context, uint32_t member, uint8_t kind,
                      struct tri_coll_head *head,
                      const struct tri_piece *pieces, uint32_t pieces_len)
{
    uint32_t me = (uint32_t)((struct node *)context - world.nodes);
    struct lane *lane = &world.lanes[me][member][kind == TRI_COLL_CONTROL];
    struct flight *flight;
    size_t bytes = 0;

    assert_true(member < world.len && member != me);
    for (uint32_t i = 0; i < pieces_len; i++)
        bytes += pieces[i].bytes;
    flight = calloc(1, sizeof(*flight) + bytes);
    assert_non_null(flight);
    flight->head = *head;
    flight->bytes = bytes;
    bytes = 0;
    for (uint32_t i = 0; i < pieces_len; i++) {
        if (pieces[i].bytes > 0)
            memcpy(flight->data + bytes, pieces[i].data, pieces[i].bytes);
        bytes += pieces[i].bytes;
    }
    if (world.spoils_arenas && head->what == TRI_SHM_ARENA)
        flight->data[bytes - 1] ^= 1;
    *lane->last = flight;
    lane->last = &flight->next;
    return 0;
}

static struct flight *take_first(struct lane *lane)
{
    struct flight *flight = lane->first;

    if (flight != NULL) {
        lane->first = flight->next;
        if (lane->first == NULL)
            lane->last = &lane->first;
    }
    return flight;
}

static void deliver(bool drop)
{
    for (uint32_t i = 0; i < world.len * world.len * LANES; i++) {
        uint32_t from = i / LANES / world.len, to = i / LANES % world.len;
        struct lane *lane = &world.lanes[from][to][i % LANES];
        struct flight *flight = drop || below(2) ? take_first(lane) : NULL;

        if (flight == NULL)
            continue;
        if (!drop)
            ops->received(world.nodes[to].backend, from, &flight->head,
                          flight->data, flight->bytes, NULL);
        free(flight);
    }
}

/* --- the team ------------------------------------------------------------- */

/* lens: members by host, 0 ends; taken in turn, so that hosts interleave. */
static void world_open(const uint32_t *lens, const char *transport)
{
    uint32_t left[MEMBERS_MAX] = { 0 }, open = 0;

    world.runtime.options.transport = transport;
    world.runtime.options.message_bytes_max = 1 << 20;
    world.len = world.hosts = world.calls_len = 0;
    for (uint32_t i = 0; lens[i] != 0; i++) {
        left[i] = lens[i];
        world.hosts++;
    }
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < world.hosts; i++)
            if (left[i] > 0) {
                left[i]--;
                more = true;
                world.members[world.len++].host = 100 + i;
            }
    }
    for (uint32_t i = 0; i < world.len; i++) {
        struct node *node = &world.nodes[i];

        for (uint32_t j = 0; j < world.len; j++)
            for (int k = 0; k < LANES; k++)
                world.lanes[i][j][k] =
                    (struct lane){ .last = &world.lanes[i][j][k].first };
        *node = (struct node){ .team = { .runtime = &world.runtime,
                                         .len = world.len,
                                         .index = i,
                                         .is_reproducible = true, /* no ring */
                                         .members = world.members } };
        assert_int_equal(tri_native_open(&node->team, world_send, node,
                                         &node->backend),
                         0);
    }
    while (open < world.len) {
        open = 0;
        for (uint32_t i = 0; i < world.len; i++) {
            int rc = ops->open_progress(world.nodes[i].backend);

            assert_true(rc == world.error || rc == TRI_COLL_PENDING);
            open += rc == world.error;
        }
        deliver(false);
    }
}

static void world_close(void)
{
    for (uint32_t i = 0; i < world.len; i++)
        ops->close(&world.nodes[i].backend);
    deliver(true);
    for (uint32_t i = 0; i < world.len; i++)
        for (uint32_t j = 0; j < world.len; j++)
            for (int k = 0; k < LANES; k++)
                while (world.lanes[i][j][k].first != NULL)
                    free(take_first(&world.lanes[i][j][k]));
}

static void advance(struct node *node)
{
    for (uint32_t i = 0; i < world.calls_len; i++) {
        if (node->done[i])
            continue;
        if (!node->started[i]) {
            if (below(3) > 0)
                return;
            node->started[i] = true;
            node->rc[i] = ops->start(node->backend, &node->calls[i]);
            assert_true(node->rc[i] == 0 || node->rc[i] == world.error);
        }
        if (node->rc[i] >= 0)
            node->rc[i] = ops->progress(node->backend, &node->calls[i]);
        node->done[i] = node->rc[i] != TRI_COLL_PENDING;
    }
}

/* Until all are done on all: the watchdog is the deadline. */
static void run(void)
{
    uint32_t done;

    do {
        done = 0;
        for (uint32_t i = 0; i < world.len; i++) {
            advance(&world.nodes[below(world.len)]);
            deliver(false);
        }
        for (uint32_t i = 0; i < world.len; i++)
            for (uint32_t j = 0; j < world.calls_len; j++)
                done += world.nodes[i].done[j];
    } while (done < world.len * world.calls_len);
}

/* --- data ----------------------------------------------------------------- */

struct vectors {
    struct tri_coll coll; /* as all call it */
    char *in[MEMBERS_MAX], *out[MEMBERS_MAX];
    char *expected;
};

static void fill(uint8_t type, char *data, size_t count)
{
    size_t bytes = troupe_datatype_bytes((enum troupe_datatype)type);

    for (size_t i = 0; i < count; i++, data += bytes) {
        float value = (float)below(20000) / 10000.0f - 0.9f;
        double wide = (double)value / 3.0;

        if (type == TROUPE_FLOAT)
            memcpy(data, &value, sizeof(value));
        else if (type == TROUPE_DOUBLE)
            memcpy(data, &wide, sizeof(wide));
        else if (type == TROUPE_BF16 || type == TROUPE_FP16)
            tri_reduce_store((enum troupe_datatype)type, TROUPE_SUM, data,
                             &value, 1, 1);
        else
            memset(data, (int)below(100), bytes);
    }
}

static size_t in_len(const struct tri_coll *coll)
{
    return coll->kind == TRI_COLL_REDUCE_SCATTER ? coll->count * world.len
                                                 : coll->count;
}

static size_t out_len(const struct tri_coll *coll)
{
    return coll->kind == TRI_COLL_ALLGATHER ? coll->count * world.len
                                            : coll->count;
}

/* The canonical order of `ins`, in the accumulation type. */
static void add_all(const struct tri_coll *coll, void *sum, char **ins,
                    uint32_t len)
{
    uint8_t acc = coll->type == TROUPE_BF16 || coll->type == TROUPE_FP16
                      ? TROUPE_FLOAT
                      : coll->type;
    uint8_t op = coll->op == TROUPE_AVG ? TROUPE_SUM : coll->op;

    tri_reduce_all((enum troupe_datatype)acc, (enum troupe_op)op, sum,
                   (const void *const *)(void *)ins, len, in_len(coll));
}

/* Of each host's members, then of the hosts. */
static void expect_sum(struct vectors *vectors)
{
    const struct tri_coll *coll = &vectors->coll;
    enum troupe_datatype type = (enum troupe_datatype)coll->type;
    size_t bytes = in_len(coll) * tri_reduce_bytes(type);
    char *loaded[MEMBERS_MAX], *sums[MEMBERS_MAX], *some[MEMBERS_MAX];
    bool flat = world.hosts == world.len || world.hosts == 1 ||
                world.runtime.options.transport != NULL;

    for (uint32_t i = 0; i < world.len; i++) {
        loaded[i] = malloc(bytes + 1);
        sums[i] = malloc(bytes + 1);
        tri_reduce_load(type, loaded[i], vectors->in[i], in_len(coll));
    }
    if (flat) {
        add_all(coll, sums[0], loaded, world.len);
    } else {
        for (uint32_t host = 0; host < world.hosts; host++) {
            uint32_t len = 0;

            for (uint32_t i = 0; i < world.len; i++)
                if (world.members[i].host == 100 + host)
                    some[len++] = loaded[i];
            add_all(coll, sums[host], some, len);
        }
        add_all(coll, sums[0], sums, world.hosts);
    }
    tri_reduce_store(type, (enum troupe_op)coll->op, vectors->expected,
                     sums[0], in_len(coll), world.len);
    for (uint32_t i = 0; i < world.len; i++) {
        free(loaded[i]);
        free(sums[i]);
    }
}

static void vectors_init(struct vectors *vectors, const struct tri_coll *like)
{
    size_t element = troupe_datatype_bytes((enum troupe_datatype)like->type);
    size_t in_bytes, room;

    vectors->coll = *like;
    vectors->coll.number = ++world.calls_len;
    tri_coll_sign(&vectors->coll);
    in_bytes = in_len(like) * element;
    room = tri_max(in_bytes, out_len(like) * element) + 16;
    vectors->expected = calloc(1, room);
    for (uint32_t i = 0; i < world.len; i++) {
        struct tri_coll *coll = &world.nodes[i].calls[world.calls_len - 1];

        vectors->in[i] = calloc(1, room);
        vectors->out[i] = malloc(room);
        memset(vectors->out[i], 0x5a, room);
        fill(like->type, vectors->in[i], in_len(like));
        *coll = vectors->coll;
        coll->team = &world.nodes[i].team;
        coll->in = vectors->in[i];
        coll->out = vectors->out[i];
        if (like->kind == TRI_COLL_BCAST) {
            coll->in = NULL;
            if (i == like->root)
                memcpy(coll->out, vectors->in[i], in_bytes);
        } else if (like->kind == TRI_COLL_REDUCE && i != like->root) {
            coll->out = NULL;
        } else if (like->kind == TRI_COLL_ALLREDUCE && below(2)) {
            memcpy(coll->out, vectors->in[i], in_bytes);
            coll->in = coll->out;
        }
    }
    if (like->kind == TRI_COLL_BCAST)
        memcpy(vectors->expected, vectors->in[like->root], in_bytes);
    else if (like->kind == TRI_COLL_ALLGATHER)
        for (uint32_t i = 0; i < world.len; i++)
            memcpy(vectors->expected + i * in_bytes, vectors->in[i], in_bytes);
    else if (like->kind != TRI_COLL_BARRIER)
        expect_sum(vectors);
}

static void check(const struct vectors *vectors)
{
    const struct tri_coll *coll = &vectors->coll;
    size_t bytes = out_len(coll) *
                   troupe_datatype_bytes((enum troupe_datatype)coll->type);

    for (uint32_t i = 0; i < world.len; i++) {
        const char *expected = vectors->expected;

        assert_int_equal(world.nodes[i].rc[coll->number - 1], 0);
        if (coll->kind == TRI_COLL_BARRIER || bytes == 0 ||
            (coll->kind == TRI_COLL_REDUCE && i != coll->root))
            continue;
        if (coll->kind == TRI_COLL_REDUCE_SCATTER)
            expected += i * bytes;
        assert_memory_equal(vectors->out[i], expected, bytes);
        for (size_t k = 0; k < 16; k++)
            assert_int_equal(vectors->out[i][bytes + k], 0x5a);
    }
}

static void vectors_fini(struct vectors *vectors)
{
    for (uint32_t i = 0; i < world.len; i++) {
        free(vectors->in[i]);
        free(vectors->out[i]);
    }
    free(vectors->expected);
}

/* --- tests ---------------------------------------------------------------- */

static struct tri_coll any_call(void)
{
    static const uint8_t types[] = { TROUPE_INT32, TROUPE_FLOAT, TROUPE_DOUBLE,
                                     TROUPE_BF16, TROUPE_FP16 };
    static const size_t counts[] = { 0, 1, 13, 500, 20000 };
    struct tri_coll coll = {
        .kind = (uint8_t)(1 + below(TRI_COLL_KIND_LAST)),
        .type = types[below(5)],
        .op = (uint8_t)(1 + below(TROUPE_OP_LAST)),
        .count = counts[below(5)],
    };

    if (coll.op == TROUPE_PROD && coll.type == TROUPE_INT32)
        coll.op = TROUPE_MAX;
    if (coll.kind == TRI_COLL_BARRIER)
        coll.count = 0;
    if (coll.kind == TRI_COLL_BCAST || coll.kind == TRI_COLL_REDUCE)
        coll.root = below(world.len);
    return coll;
}

static void run_some(const uint32_t *lens, const char *transport)
{
    struct vectors vectors[CALLS_MAX];

    world_open(lens, transport);
    for (uint32_t i = 0; i < CALLS_MAX; i++) {
        struct tri_coll coll = any_call();

        vectors_init(&vectors[i], &coll);
    }
    run();
    for (uint32_t i = 0; i < CALLS_MAX; i++) {
        check(&vectors[i]);
        vectors_fini(&vectors[i]);
    }
    world_close();
}

static void every_layout(void **state)
{
    static const uint32_t layouts[][MEMBERS_MAX] = {
        { 1 },    { 4 },       { 1, 1, 1, 1 }, { 2, 2 },
        { 4, 4 }, { 2, 2, 2 }, { 3, 1 },       { 1, 2, 4 },
    };

    (void)state;
    tri_random_init(&world.random, unit_seed("every layout"));
    for (size_t i = 0; i < tri_array_len(layouts); i++)
        for (int round = 0; round < 6; round++)
            run_some(layouts[i], NULL);
}

/* Nothing is shared where all goes over the fabric. */
static void fabric_shares_nothing(void **state)
{
    static const uint32_t lens[] = { 3, 1, 0 };

    (void)state;
    tri_random_init(&world.random, unit_seed("fabric shares nothing"));
    run_some(lens, "fabric");
}

/* Closed in the middle of anything. */
static void closed_at_any_step(void **state)
{
    static const uint32_t lens[] = { 2, 2, 0 };

    (void)state;
    tri_random_init(&world.random, unit_seed("closed at any step"));
    for (uint32_t steps = 0; steps < 120; steps++) {
        struct vectors vectors[4];

        world_open(lens, NULL);
        for (uint32_t i = 0; i < 4; i++) {
            struct tri_coll coll = any_call();

            vectors_init(&vectors[i], &coll);
        }
        for (uint32_t i = 0; i < steps; i++) {
            advance(&world.nodes[below(world.len)]);
            deliver(false);
        }
        world_close();
        for (uint32_t i = 0; i < 4; i++)
            vectors_fini(&vectors[i]);
    }
}

static void one_that_differs(void **state)
{
    static const uint32_t lens[] = { 2, 2, 0 };

    (void)state;
    tri_random_init(&world.random, unit_seed("one that differs"));
    for (uint32_t who = 0; who < 4; who++) {
        struct tri_coll coll = { .kind = TRI_COLL_ALLREDUCE,
                                 .type = TROUPE_FLOAT,
                                 .op = TROUPE_SUM,
                                 .count = 100 };
        struct vectors vectors;
        bool found = false;

        world_open(lens, NULL);
        vectors_init(&vectors, &coll);
        world.nodes[who].calls[0].op = TROUPE_MAX;
        tri_coll_sign(&world.nodes[who].calls[0]);
        while (!found) { /* the front tells the others then */
            for (uint32_t i = 0; i < world.len; i++) {
                advance(&world.nodes[i]);
                deliver(false);
            }
            for (uint32_t i = 0; i < world.len; i++) {
                const struct node *node = &world.nodes[i];

                if (!node->done[0])
                    continue;
                found = true;
                assert_int_equal(node->rc[0], TROUPE_EMISMATCH);
                assert_true(node->calls[0].culprit != i);
                assert_true(i == who || node->calls[0].culprit == who);
            }
        }
        world_close();
        vectors_fini(&vectors);
    }
}

/* Other hosts may have begun without: all get to know. */
static void no_shared_memory(void **state)
{
    static const uint32_t lens[] = { 2, 2, 0 };

    (void)state;
    tri_random_init(&world.random, unit_seed("no shared memory"));
    world.spoils_arenas = true;
    world.error = TROUPE_ETRANSPORT;
    world_open(lens, NULL);
    world.error = 0;
    world.spoils_arenas = false;
    world_close();
}

/* What one member cannot go on with ends for all, with the same error. */
static void one_that_fails(void **state)
{
    static const uint32_t layouts[][MEMBERS_MAX] = { { 3 }, { 2, 2 } };

    (void)state;
    tri_random_init(&world.random, unit_seed("one that fails"));
    for (uint32_t i = 0; i < 2 * tri_array_len(layouts); i++) {
        struct tri_coll coll = { .kind = TRI_COLL_ALLREDUCE,
                                 .type = TROUPE_FLOAT,
                                 .op = TROUPE_SUM,
                                 .count = i % 2 == 0 ? 1 : 20000 };
        struct vectors vectors;
        struct tri_native *native;

        world_open(layouts[i / 2], NULL);
        vectors_init(&vectors, &coll);
        native = (struct tri_native *)(void *)world.nodes[0].backend;
        memset(native->shm->own->heads, 0xee, sizeof(native->shm->own->heads));
        world.nodes[0].started[0] = world.nodes[0].done[0] = true;
        world.error = TROUPE_EPROTO;
        run();
        world.error = 0;
        while (native->failed == 0)
            deliver(false);
        for (uint32_t k = 1; k < world.len; k++)
            assert_int_equal(world.nodes[k].rc[0], TROUPE_EPROTO);
        assert_int_equal(ops->start(world.nodes[0].backend,
                                    &world.nodes[0].calls[0]),
                         TROUPE_EPROTO);
        world_close();
        vectors_fini(&vectors);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout),
        cmocka_unit_test(fabric_shares_nothing),
        cmocka_unit_test(closed_at_any_step),
        cmocka_unit_test(one_that_differs),
        cmocka_unit_test(no_shared_memory),
        cmocka_unit_test(one_that_fails),
    };

    tri_pool_init(256u << 20);
    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
