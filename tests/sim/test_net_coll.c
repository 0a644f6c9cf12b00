/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Collectives between hosts, all members in one process over a simulated link:
 * it delays, refuses for a while, delivers in any order between senders and
 * lanes, and members come to a call at different times. A seed is a run.
 *
 * Every algorithm, kind, type and operation, among 1 to 9 members: the same
 * bits on all, those of the canonical order where that is promised. Runs ahead
 * are bounded. Nothing of an epoch that was left gets into the next. Calls that
 * differ end with an error that names it, on all.
 */
#include "../unit/unit.h"

#include "message/pool.h"
#include "tensor/native/net_internal.h"
#include "tensor/reduce.h"

enum {
    MEMBERS_MAX = 9,
    CALLS_MAX = 40,
    SEGMENT_BYTES = 256,
    STEPS_MAX = 4000000,
    LANES = 2,
};

struct flight {
    struct flight *next;
    uint32_t epoch;
    struct tri_coll_head head;
    size_t bytes;
    char data[];
};

struct lane {
    struct flight *first, **last;
};

struct call {
    struct tri_net_request request;
    struct tri_net_call *call;
    struct tri_net_mismatch mismatch;
    bool started, done;
    int rc;
};

struct world;

struct node {
    struct world *world;
    uint32_t index;
    struct tri_net *net;
    struct call calls[CALLS_MAX];
    uint32_t calls_len, started;
    uint32_t window; /* calls under way at once */
    size_t kept_max;
    bool failed;
};

struct world {
    struct tri_random random;
    struct node nodes[MEMBERS_MAX];
    struct lane lanes[MEMBERS_MAX][MEMBERS_MAX][LANES];
    uint32_t len, epoch;
    uint64_t now_ns;
    uint32_t full_percent;
};

static struct world world;

static uint32_t below(uint32_t n)
{
    return tri_random_below(&world.random, n);
}

/* --- the link ------------------------------------------------------------- */

static int world_send(void *context, uint32_t member, uint8_t kind,
                      struct tri_coll_head *head,
                      const struct tri_piece *pieces, uint32_t pieces_len)
{
    struct node *node = context;
    bool is_control = kind == TRI_COLL_CONTROL;
    struct lane *lane = &world.lanes[node->index][member][is_control];
    struct flight *flight;
    size_t bytes = 0;

    assert_true(member < world.len && member != node->index);
    if (!is_control && below(100) < world.full_percent)
        return TROUPE_EFULL;
    for (uint32_t i = 0; i < pieces_len; i++)
        bytes += pieces[i].bytes;
    flight = malloc(sizeof(*flight) + bytes);
    assert_non_null(flight);
    *flight = (struct flight){ .epoch = world.epoch,
                               .head = *head,
                               .bytes = bytes };
    bytes = 0;
    for (uint32_t i = 0; i < pieces_len; i++) {
        if (pieces[i].bytes > 0)
            memcpy(flight->data + bytes, pieces[i].data, pieces[i].bytes);
        bytes += pieces[i].bytes;
    }
    *lane->last = flight;
    lane->last = &flight->next;
    return 0;
}

static uint64_t world_now(void *context)
{
    (void)context;
    return world.now_ns;
}

static void hand_over(struct node *node, uint32_t from, struct flight *flight)
{
    struct tri_message *message = NULL;
    const void *payload = flight->data;

    if (flight->epoch != world.epoch)
        return; /* the front drops it */
    if (below(2) == 0) {
        message = tri_message_alloc(sizeof(flight->head) + flight->bytes);
        assert_non_null(message);
        memcpy(message->payload + sizeof(flight->head), flight->data,
               flight->bytes);
        payload = message->payload + sizeof(flight->head);
    }
    tri_net_received(node->net, from, &flight->head, payload, flight->bytes,
                     message);
    node->kept_max = tri_max(node->kept_max, tri_net_kept(node->net));
}

/* Delivers one, from a random lane. */
static void deliver(void)
{
    uint32_t pairs = world.len * world.len * LANES, start = below(pairs);

    for (uint32_t i = 0; i < pairs; i++) {
        uint32_t at = (start + i) % pairs;
        uint32_t from = at / LANES / world.len, to = at / LANES % world.len;
        struct lane *lane = &world.lanes[from][to][at % LANES];
        struct flight *flight = lane->first;

        if (flight == NULL)
            continue;
        lane->first = flight->next;
        if (lane->first == NULL)
            lane->last = &lane->first;
        hand_over(&world.nodes[to], from, flight);
        free(flight);
        return;
    }
}

/* --- members -------------------------------------------------------------- */

static void world_open(uint32_t len, enum tri_net_algorithm force,
                       bool measured)
{
    static const struct tri_net_table table = {
        .version = 1,
        .segment_bytes = SEGMENT_BYTES,
        .latency_ns = 1000,
        .mib_ns = 1000 * 1000,
    };
    bool pending = true;

    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        for (uint32_t j = 0; j < MEMBERS_MAX; j++)
            for (int k = 0; k < LANES; k++)
                if (world.lanes[i][j][k].first == NULL)
                    world.lanes[i][j][k].last = &world.lanes[i][j][k].first;
    world.len = len;
    for (uint32_t i = 0; i < len; i++) {
        struct node *node = &world.nodes[i];
        struct tri_net_config config = {
            .len = len,
            .index = i,
            .force = force,
            .table = measured ? NULL : &table,
            .context = node,
            .send = world_send,
            .now_ns = world_now,
        };

        *node = (struct node){ .world = &world, .index = i, .window = 1 };
        assert_int_equal(tri_net_open(&config, &node->net), 0);
    }
    for (int step = 0; pending; step++) {
        assert_true(step < STEPS_MAX);
        pending = false;
        world.now_ns += 1000;
        deliver();
        for (uint32_t i = 0; i < len; i++) {
            int rc = tri_net_open_progress(world.nodes[i].net);

            assert_true(rc == 0 || rc == TRI_COLL_PENDING);
            pending |= rc != 0;
        }
    }
    for (uint32_t i = 1; i < len; i++)
        assert_memory_equal(tri_net_table(world.nodes[i].net),
                            tri_net_table(world.nodes[0].net), sizeof(table));
}

static void world_close(void)
{
    for (uint32_t i = 0; i < world.len; i++)
        tri_net_close(&world.nodes[i].net);
    world.epoch++;
}

static void drain_lane(struct lane *lane)
{
    struct flight *flight;

    while ((flight = lane->first) != NULL) {
        lane->first = flight->next;
        free(flight);
    }
    lane->last = &lane->first;
}

/* Also of members that are no more. */
static void drain(void)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        for (uint32_t j = 0; j < MEMBERS_MAX; j++)
            for (int k = 0; k < LANES; k++)
                drain_lane(&world.lanes[i][j][k]);
}

static void add_call(struct node *node, const struct tri_net_request *request)
{
    struct call *call = &node->calls[node->calls_len];

    assert_true(node->calls_len < CALLS_MAX);
    *call = (struct call){ .request = *request };
    call->request.number = ++node->calls_len;
    if (call->request.signature[0] == 0)
        call->request.signature[0] =
            request->kind | (uint64_t)request->type << 8 |
            (uint64_t)request->op << 16 | (uint64_t)request->root << 32;
    call->request.signature[1] = request->count;
}

static void advance(struct node *node)
{
    uint32_t under_way = 0;

    for (uint32_t i = 0; i < node->started; i++) {
        struct call *call = &node->calls[i];

        if (call->done)
            continue;
        call->rc = tri_net_progress(node->net, call->call, &call->mismatch);
        if (call->rc == TRI_COLL_PENDING) {
            under_way++;
            continue;
        }
        call->done = true;
        node->failed |= call->rc != 0; /* then the front ends the team */
        tri_net_end(node->net, &call->call);
    }
    if (!node->failed && node->started < node->calls_len && under_way < node->window &&
        below(4) == 0) {
        struct call *call = &node->calls[node->started++];

        assert_int_equal(
            tri_net_start(node->net, &call->request, &call->call), 0);
    }
}

static bool is_done(const struct node *node)
{
    for (uint32_t i = 0; i < node->calls_len && !node->failed; i++)
        if (!node->calls[i].done)
            return false;
    return true;
}

/* Until all are done, or so many steps. */
static bool run(uint32_t steps_max)
{
    for (uint32_t step = 0; step < steps_max; step++) {
        bool done = true;

        world.now_ns += 20000;
        advance(&world.nodes[below(world.len)]);
        for (uint32_t i = below(3); i > 0; i--)
            deliver();
        for (uint32_t i = 0; i < world.len && done; i++)
            done = is_done(&world.nodes[i]);
        if (done)
            return true;
    }
    return false;
}

/* --- data ----------------------------------------------------------------- */

/* Numbers that can be added and multiplied without leaving the type. */
static void fill(enum troupe_datatype type, char *data, size_t count)
{
    size_t bytes = troupe_datatype_bytes(type);

    for (size_t i = 0; i < count; i++, data += bytes) {
        double value = (double)below(2000) / 1000.0 - 0.9;
        float single = (float)value;

        switch (type) {
        case TROUPE_FLOAT_COMPLEX:
            memcpy(data + 4, &single, 4);
            memcpy(data, &single, 4);
            break;
        case TROUPE_FLOAT:
            memcpy(data, &single, 4);
            break;
        case TROUPE_DOUBLE_COMPLEX:
            memcpy(data + 8, &value, 8);
            memcpy(data, &value, 8);
            break;
        case TROUPE_DOUBLE:
            memcpy(data, &value, 8);
            break;
        case TROUPE_LONG_DOUBLE: {
            long double wide = (long double)value / 3.0L;

            memset(data, 0, bytes);
            memcpy(data, &wide, 10);
            break;
        }
        case TROUPE_BF16:
        case TROUPE_FP16:
            tri_reduce_store(type, TROUPE_SUM, data, &single, 1, 1);
            break;
        default:
            memset(data, 0, bytes);
            data[0] = (char)below(type == TROUPE_BYTE ? 256 : 3);
            break;
        }
    }
}

struct vectors {
    char *in[MEMBERS_MAX];
    char *out[MEMBERS_MAX];
    char *expected; /* of all in */
    size_t bytes;   /* of each in */
};

static void vectors_fini(struct vectors *vectors)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        free(vectors->in[i]);
        free(vectors->out[i]);
    }
    free(vectors->expected);
}

static bool is_moved(uint8_t kind)
{
    return kind == TRI_COLL_BCAST || kind == TRI_COLL_ALLGATHER ||
           kind == TRI_COLL_BARRIER;
}

/* Elements that go in and come out. */
static size_t in_len(const struct tri_net_request *request)
{
    return request->kind == TRI_COLL_REDUCE_SCATTER
               ? request->count * world.len
               : request->count;
}

static size_t out_len(const struct tri_net_request *request)
{
    return request->kind == TRI_COLL_ALLGATHER ? request->count * world.len
                                               : request->count;
}

static void expect(struct vectors *vectors,
                   const struct tri_net_request *request)
{
    const void *ins[MEMBERS_MAX];
    size_t bytes = vectors->bytes;

    for (uint32_t i = 0; i < world.len; i++)
        ins[i] = vectors->in[i];
    if (request->kind == TRI_COLL_BCAST)
        memcpy(vectors->expected, ins[request->root], bytes);
    else if (request->kind == TRI_COLL_ALLGATHER)
        for (uint32_t i = 0; i < world.len; i++)
            memcpy(vectors->expected + i * bytes, ins[i], bytes);
    else if (!is_moved(request->kind))
        tri_reduce_all(request->type, request->op, vectors->expected, ins,
                       world.len, in_len(request));
}

static void vectors_init(struct vectors *vectors,
                         const struct tri_net_request *request, bool in_place)
{
    size_t element = troupe_datatype_bytes(request->type);
    size_t in_bytes = in_len(request) * element;
    size_t out_bytes = out_len(request) * element;
    size_t room = tri_max(in_bytes, out_bytes) + 16;

    *vectors = (struct vectors){ .bytes = in_bytes };
    vectors->expected = calloc(1, room);
    assert_non_null(vectors->expected);
    for (uint32_t i = 0; i < world.len; i++) {
        struct tri_net_request mine = *request;

        vectors->in[i] = calloc(1, room);
        vectors->out[i] = malloc(room);
        assert_true(vectors->in[i] != NULL && vectors->out[i] != NULL);
        memset(vectors->out[i], 0x5a, room);
        fill(request->type, vectors->in[i], in_len(request));
        mine.in = vectors->in[i];
        mine.out = vectors->out[i];
        mine.divisor = world.len;
        if (request->kind == TRI_COLL_BCAST) {
            mine.in = NULL;
            if (i == request->root)
                memcpy(mine.out, vectors->in[i], in_bytes);
        } else if (request->kind == TRI_COLL_ALLREDUCE && in_place) {
            memcpy(mine.out, vectors->in[i], in_bytes);
            mine.in = mine.out;
        } else if (request->kind == TRI_COLL_ALLGATHER && in_place) {
            memcpy((char *)mine.out + i * in_bytes, vectors->in[i], in_bytes);
            mine.in = (char *)mine.out + i * in_bytes;
        } else if (request->kind == TRI_COLL_REDUCE && i != request->root) {
            mine.out = NULL;
        }
        add_call(&world.nodes[i], &mine);
    }
    expect(vectors, request);
}

/* exact: the canonical order's bits, else those of the first member. */
static void check(const struct vectors *vectors,
                  const struct tri_net_request *request, bool exact)
{
    size_t bytes = out_len(request) * troupe_datatype_bytes(request->type);

    for (uint32_t i = 0; i < world.len; i++) {
        const char *expected = exact ? vectors->expected : vectors->out[0];

        if (request->kind == TRI_COLL_BARRIER || bytes == 0 ||
            (request->kind == TRI_COLL_REDUCE && i != request->root))
            continue;
        if (request->kind == TRI_COLL_REDUCE_SCATTER) {
            if (!exact)
                continue; /* no two have the same */
            expected += i * bytes;
        }
        assert_memory_equal(vectors->out[i], expected, bytes);
        for (int k = 0; k < 16; k++)
            assert_int_equal(vectors->out[i][bytes + (size_t)k], 0x5a);
    }
}

static bool is_exact(enum troupe_datatype type)
{
    return type <= TROUPE_UINT64;
}

static void must_succeed(void)
{
    assert_true(run(STEPS_MAX));
    for (uint32_t i = 0; i < world.len; i++)
        for (uint32_t j = 0; j < world.nodes[i].calls_len; j++)
            assert_int_equal(world.nodes[i].calls[j].rc, 0);
}

static bool run_one(struct tri_net_request request,
                    enum tri_net_algorithm algorithm, uint32_t members,
                    bool in_place)
{
    bool is_ring = algorithm == TRI_NET_RING;
    struct vectors vectors;

    if (!tri_net_plan_exists(request.kind, algorithm, members))
        return false;
    world_open(members, algorithm, false);
    vectors_init(&vectors, &request, in_place);
    must_succeed();
    check(&vectors, &request,
          !is_ring || is_exact(request.type) || is_moved(request.kind));
    vectors_fini(&vectors);
    world_close();
    return true;
}

/* --- tests ---------------------------------------------------------------- */

static const size_t counts[] = { 0, 1, 2, 7, 64, 333, 1500 };

static void all_algorithms(void **state)
{
    int runs = 0;

    (void)state;
    tri_random_init(&world.random, unit_seed("all algorithms"));
    for (uint32_t members = 1; members <= MEMBERS_MAX; members++)
        for (uint8_t kind = 1; kind <= TRI_COLL_KIND_LAST; kind++)
            for (int algorithm = 1; algorithm < TRI_NET_ALGORITHMS; algorithm++)
                for (size_t i = 0; i < tri_array_len(counts); i++) {
                    struct tri_net_request request = {
                        .kind = kind,
                        .type = TROUPE_FLOAT,
                        .op = TROUPE_SUM,
                        .root = kind == TRI_COLL_BCAST ||
                                        kind == TRI_COLL_REDUCE
                                    ? below(members)
                                    : 0,
                        .count = kind == TRI_COLL_BARRIER ? 0 : counts[i],
                    };

                    world.full_percent = below(2) * below(60);
                    runs += run_one(request,
                                    (enum tri_net_algorithm)algorithm, members,
                                    below(2));
                }
    drain();
    assert_true(runs > 400);
}

static void all_types(void **state)
{
    (void)state;
    tri_random_init(&world.random, unit_seed("all types"));
    world.full_percent = 0;
    for (int type = 1; type <= TROUPE_DATATYPE_LAST; type++)
        for (int op = 1; op <= TROUPE_OP_LAST; op++)
            for (uint8_t kind = TRI_COLL_ALLREDUCE;
                 kind <= TRI_COLL_REDUCE_SCATTER; kind++)
                for (int algorithm = 1; algorithm < TRI_NET_ALGORITHMS;
                     algorithm++) {
                    struct tri_net_request request = {
                        .kind = kind,
                        .type = (uint8_t)type,
                        .op = (uint8_t)op,
                        .count = counts[1 + below(5)],
                    };

                    if (tri_reduce_allows((enum troupe_datatype)type,
                                          (enum troupe_op)op))
                        run_one(request, (enum tri_net_algorithm)algorithm,
                                2 + below(7), below(2));
                }
    drain();
}

/* Many calls, of any kind and size, several under way, in every order. */
static void many_calls(void **state)
{
    (void)state;
    tri_random_init(&world.random, unit_seed("many calls"));
    for (int round = 0; round < 60; round++) {
        struct tri_net_request requests[CALLS_MAX];
        struct vectors vectors[CALLS_MAX];
        uint32_t len = 1 + below(CALLS_MAX);

        world.full_percent = below(30);
        world_open(1 + below(MEMBERS_MAX), TRI_NET_AUTO, round % 4 == 0);
        for (uint32_t i = 0; i < world.len; i++)
            world.nodes[i].window = 1 + below(round % 2 == 0 ? 1 : 8);
        for (uint32_t i = 0; i < len; i++) {
            requests[i] = (struct tri_net_request){
                .kind = (uint8_t)(1 + below(TRI_COLL_KIND_LAST)),
                .type = TROUPE_INT32,
                .op = TROUPE_SUM,
                .count = below(4) == 0 ? below(3000) : below(20),
            };
            if (requests[i].kind == TRI_COLL_BARRIER)
                requests[i].count = 0;
            if (requests[i].kind == TRI_COLL_BCAST ||
                requests[i].kind == TRI_COLL_REDUCE)
                requests[i].root = below(world.len);
            vectors_init(&vectors[i], &requests[i], below(2));
        }
        must_succeed();
        for (uint32_t i = 0; i < len; i++) {
            check(&vectors[i], &requests[i], true);
            vectors_fini(&vectors[i]);
        }
        world_close();
        drain();
    }
}

/* A root that sends and sends does not fill the memory of who is late. */
static void runs_ahead_are_bounded(void **state)
{
    (void)state;
    tri_random_init(&world.random, unit_seed("runs ahead"));
    world.full_percent = 0;
    for (int large = 0; large < 2; large++) {
        struct tri_net_request request = {
            .kind = TRI_COLL_BCAST,
            .type = TROUPE_INT32,
            .count = large ? 100000 : 4,
        };
        struct vectors vectors[CALLS_MAX];
        uint32_t len = large ? 2 : CALLS_MAX;

        world_open(2, TRI_NET_TREE, false);
        for (uint32_t i = 0; i < len; i++)
            vectors_init(&vectors[i], &request, false);
        for (int step = 0; step < 20000; step++) {
            advance(&world.nodes[0]);
            deliver();
        }
        assert_true(world.nodes[0].started < len ||
                    !world.nodes[0].calls[len - 1].done);
        assert_in_range(world.nodes[1].kept_max, 1, 8 + 2 * 16);
        must_succeed();
        assert_in_range(world.nodes[1].kept_max, 1, 8 + 2 * 16);
        for (uint32_t i = 0; i < len; i++) {
            check(&vectors[i], &request, true);
            vectors_fini(&vectors[i]);
        }
        world_close();
        drain();
    }
}

/* Ended at any step: memory is not touched any more, and the next epoch is
 * right, whatever is still under way. */
static void ended_at_any_step(void **state)
{
    (void)state;
    tri_random_init(&world.random, unit_seed("ended at any step"));
    world.full_percent = 5;
    for (uint32_t steps = 0; steps < 400; steps++) {
        struct tri_net_request request = {
            .kind = (uint8_t)(2 + below(TRI_COLL_KIND_LAST - 1)),
            .type = TROUPE_FLOAT,
            .op = TROUPE_SUM,
            .count = 1 + below(900),
        };
        enum tri_net_algorithm force =
            (enum tri_net_algorithm)below(TRI_NET_ALGORITHMS);
        uint32_t members = 2 + below(6);
        struct vectors old, vectors;

        world_open(members, force, false);
        vectors_init(&old, &request, false);
        run(steps);
        world_close();
        vectors_fini(&old); /* a late write is found by the sanitizer */
        world_open(members, force, false);
        vectors_init(&vectors, &request, false);
        must_succeed();
        check(&vectors, &request,
              force != TRI_NET_RING &&
                  tri_net_plan_exists(request.kind, force, members));
        vectors_fini(&vectors);
        world_close();
    }
    drain();
}

static void differ_once(uint32_t members, const struct tri_net_request *right,
                        const struct tri_net_request *wrong)
{
    uint32_t who = below(members);
    struct vectors vectors = { .bytes = 0 };

    world_open(members, TRI_NET_AUTO, false);
    for (uint32_t i = 0; i < members; i++) {
        struct tri_net_request mine = i == who ? *wrong : *right;
        /* a call that was done before anybody knew fails the next one */
        struct tri_net_request barrier = { .kind = TRI_COLL_BARRIER };

        vectors.in[i] = calloc(1, 1 << 16);
        vectors.out[i] = calloc(1, 1 << 16);
        mine.in = vectors.in[i];
        mine.out = vectors.out[i];
        mine.divisor = members;
        add_call(&world.nodes[i], &mine);
        add_call(&world.nodes[i], &barrier);
    }
    run(STEPS_MAX);
    for (uint32_t i = 0; i < members; i++) {
        struct call *call = &world.nodes[i].calls[0];

        if (call->done && call->rc == 0)
            call++;
        assert_true(call->done);
        assert_int_equal(call->rc, TROUPE_EMISMATCH);
        assert_true(call->mismatch.culprit != i);
        assert_true(call->mismatch.culprit < members);
        if (i != who)
            assert_int_equal(call->mismatch.culprit, who);
    }
    world_close();
    drain();
    vectors_fini(&vectors);
}

static void calls_that_differ(void **state)
{
    static const struct tri_net_request pairs[][2] = {
        { { .kind = TRI_COLL_ALLREDUCE, .count = 10 },
          { .kind = TRI_COLL_ALLREDUCE, .count = 11 } },
        { { .kind = TRI_COLL_ALLREDUCE, .count = 10 },
          { .kind = TRI_COLL_ALLREDUCE, .count = 9000 } },
        { { .kind = TRI_COLL_ALLREDUCE, .count = 10 },
          { .kind = TRI_COLL_BARRIER } },
        { { .kind = TRI_COLL_REDUCE, .count = 10, .root = 1 },
          { .kind = TRI_COLL_REDUCE, .count = 10, .root = 0 } },
        { { .kind = TRI_COLL_BCAST, .count = 10, .root = 1 },
          { .kind = TRI_COLL_BCAST, .count = 10, .root = 0 } },
        { { .kind = TRI_COLL_BCAST, .count = 10 },
          { .kind = TRI_COLL_REDUCE, .count = 10 } },
        { { .kind = TRI_COLL_ALLGATHER, .count = 10 },
          { .kind = TRI_COLL_REDUCE_SCATTER, .count = 10 } },
    };

    (void)state;
    tri_random_init(&world.random, unit_seed("calls that differ"));
    world.full_percent = 0;
    for (size_t i = 0; i < tri_array_len(pairs); i++)
        for (uint32_t members = 2; members <= MEMBERS_MAX; members++) {
            struct tri_net_request right = pairs[i][0], wrong = pairs[i][1];

            right.type = wrong.type = TROUPE_FLOAT;
            right.op = wrong.op = TROUPE_SUM;
            differ_once(members, &right, &wrong);
            differ_once(members, &wrong, &right);
        }
    for (uint32_t members = 2; members <= MEMBERS_MAX; members++) {
        struct tri_net_request right = { .kind = TRI_COLL_ALLREDUCE,
                                         .type = TROUPE_FLOAT,
                                         .op = TROUPE_SUM,
                                         .count = 8 };
        struct tri_net_request wrong = right;

        wrong.op = TROUPE_MAX;
        differ_once(members, &right, &wrong);
        wrong.op = TROUPE_SUM;
        wrong.type = TROUPE_INT32;
        differ_once(members, &right, &wrong);
    }
}

/* Of a member that sends the same again and again no more is kept than any may
 * send at once; the calls end. Others' messages are taken all the same. */
static void floods_are_bounded(void **state)
{
    enum { BYTES = (8 << 20) - 4096, LEN = 16, LIMIT = 2 * LEN };
    struct tri_net_part part = { .mark = { .number = 1 } };
    struct tri_coll_head head = { .number = 2, .what = TRI_NET_DATA };
    struct tri_net_request request = { .kind = TRI_COLL_BARRIER };
    struct node *node = &world.nodes[0];
    uint32_t taken = 0;
    bool goes_on = true;

    (void)state;
    tri_random_init(&world.random, unit_seed("floods are bounded"));
    world.full_percent = 0;
    world_open(3, TRI_NET_AUTO, false);
    for (; goes_on && taken < LIMIT; taken += goes_on) {
        struct tri_message *message = tri_message_alloc(BYTES);

        assert_non_null(message);
        memcpy(message->payload, &part, sizeof(part));
        goes_on = tri_net_received(node->net, 1, &head, message->payload,
                                   BYTES, message);
    }
    assert_int_equal(taken, LEN);
    assert_int_equal(tri_net_kept(node->net), taken);
    assert_true(tri_net_received(node->net, 2, &head, &part, sizeof(part),
                                 NULL));
    add_call(node, &request);
    while (!is_done(node))
        advance(node);
    assert_int_equal(node->calls[0].rc, TROUPE_EPROTO);
    world_close();
    drain();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_algorithms),
        cmocka_unit_test(all_types),
        cmocka_unit_test(many_calls),
        cmocka_unit_test(runs_ahead_are_bounded),
        cmocka_unit_test(ended_at_any_step),
        cmocka_unit_test(calls_that_differ),
        cmocka_unit_test(floods_are_bounded),
    };

    tri_pool_init(256u << 20);
    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
