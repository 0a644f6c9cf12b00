/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE

/*
 * Collectives in shared memory, one process a member: all kinds, types, sizes
 * and numbers of members, several under way, calls that differ, members that
 * are killed, cancelled or write garbage.
 */

#include "unit.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tensor/native/shm_internal.h"

enum {
    MEMBERS_MAX = 8,
    POSTS = 4,
    FLIGHT = 24,
    CANARY_BYTES = 64,
    CANARY = 0xa5,
};

/* Of what takes long, a part under the sanitizers. */
#if defined(TRI_SANITIZE_THREAD)
#define SLOWDOWN 8u
#else
#define SLOWDOWN 1u
#endif

/* --- the members' processes ----------------------------------------------- */

/* A record on its way: one writer, one reader. */
struct post {
    _Atomic int full;
    uint16_t what;
    size_t bytes;
    unsigned char payload[TRI_SHM_RECORD_BYTES_MAX];
};

/* What all processes of a test share. */
struct stage {
    struct post posts[2][MEMBERS_MAX][MEMBERS_MAX][POSTS]; /* team, from, to */
    _Atomic uint32_t arrived[64];
    _Atomic uint32_t died;
    uint32_t spoilt; /* who gets a wrong descriptor; UINT32_MAX: nobody */
};

struct member {
    struct stage *stage;
    struct tri_shm *shm;
    struct tri_random random; /* the same on all members */
    struct tri_random own;    /* this one's */
    uint32_t index;           /* the process */
    uint32_t len;             /* of the team */
    uint32_t place;           /* in the team */
    unsigned team;
    size_t chunk_bytes;
};

/* Fails the member's process, and with that the test. */
#define must(x)                                                               \
    do {                                                                      \
        if (!(x)) {                                                           \
            fprintf(stderr, "member %u, %s:%d: %s\n", me->index, __FILE__,    \
                    __LINE__, #x);                                            \
            _exit(1);                                                         \
        }                                                                     \
    } while (0)

static int send_post(void *arg, uint32_t member, uint16_t what,
                     const void *payload, size_t bytes)
{
    struct member *me = arg;

    for (int i = 0; i < POSTS; i++) {
        struct post *post =
            &me->stage->posts[me->team][me->place][member][i];

        if (atomic_load(&post->full))
            continue;
        /* the first attempt finds no room, now and then */
        if (tri_random_below(&me->own, 4) == 0)
            return TROUPE_EFULL;
        post->what = what;
        post->bytes = bytes;
        if (bytes > 0)
            memcpy(post->payload, payload, bytes);
        if (what == TRI_SHM_ARENA && member == me->stage->spoilt)
            post->payload[7] = 0x70; /* no such descriptor */
        atomic_store(&post->full, 1);
        return 0;
    }
    must(!"room for posts");
    return 0;
}

static void receive_posts(struct member *me)
{
    for (uint32_t from = 0; from < me->len; from++)
        for (int i = 0; i < POSTS; i++) {
            struct post *post =
                &me->stage->posts[me->team][from][me->place][i];

            if (atomic_load(&post->full) != 1)
                continue;
            tri_shm_received(me->shm, from, post->what, post->payload,
                             post->bytes);
            atomic_store(&post->full, 2);
        }
}

static int open_team(struct member *me)
{
    struct tri_shm_setup setup = { .len = me->len,
                                   .index = me->place,
                                   .send = send_post,
                                   .arg = me,
                                   .chunk_bytes = me->chunk_bytes };
    int rc;

    must(tri_shm_open(&setup, &me->shm) == 0);
    do {
        receive_posts(me);
        rc = tri_shm_open_progress(me->shm);
        if (rc == TRI_COLL_PENDING)
            sched_yield();
    } while (rc == TRI_COLL_PENDING);
    return rc;
}

/* All processes are here. */
static void meet(struct member *me, unsigned where, uint32_t len)
{
    atomic_fetch_add(&me->stage->arrived[where], 1);
    while (atomic_load(&me->stage->arrived[where]) < len)
        sched_yield();
}

static struct stage *make_stage(void)
{
    struct stage *stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(stage, MAP_FAILED);
    stage->spoilt = UINT32_MAX;
    return stage;
}

typedef void (*role_t)(struct member *me);

/* Runs `role` in a process for each member; `victim` may be killed. */
static void run_on(struct stage *stage, uint32_t len, size_t chunk_bytes,
                   uint64_t seed, role_t role, uint32_t victim)
{
    pid_t pids[MEMBERS_MAX];
    int status;

    for (uint32_t i = 0; i < len; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            struct member me = { .stage = stage,
                                 .index = i,
                                 .place = i,
                                 .len = len,
                                 .chunk_bytes = chunk_bytes };

            alarm(UNIT_WATCHDOG_S);
            tri_random_init(&me.random, seed);
            tri_random_init(&me.own, tri_mix64(seed + i + 1));
            role(&me);
            tri_shm_close(&me.shm);
            _exit(0);
        }
    }
    if (victim < len) {
        assert_int_equal(waitpid(pids[victim], &status, 0), pids[victim]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        atomic_store(&stage->died, 1);
    }
    for (uint32_t i = 0; i < len; i++) {
        if (i == victim)
            continue;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    munmap(stage, sizeof(*stage));
}

static void run(uint32_t len, size_t chunk_bytes, uint64_t seed, role_t role)
{
    run_on(make_stage(), len, chunk_bytes, seed, role, UINT32_MAX);
}

/* --- calls and what must come of them ------------------------------------- */

struct call {
    struct tri_shm_call call;
    struct tri_shm_op *op;
    uint64_t seed;     /* of all members' inputs */
    size_t in_count;
    size_t out_count;
    size_t out_bytes;  /* of an element */
    unsigned char *in; /* NULL: in place, or none */
    unsigned char *out;
    void *expected; /* NULL: out is not written */
};

static void *guarded(size_t bytes)
{
    unsigned char *p = malloc(bytes + 2 * CANARY_BYTES);

    memset(p, CANARY, bytes + 2 * CANARY_BYTES);
    return p + CANARY_BYTES;
}

static bool is_intact(const unsigned char *p, size_t bytes)
{
    for (size_t i = 0; i < CANARY_BYTES; i++)
        if (p[i - CANARY_BYTES] != CANARY || p[bytes + i] != CANARY)
            return false;
    return true;
}

static void unguard(void *p)
{
    if (p != NULL)
        free((unsigned char *)p - CANARY_BYTES);
}

static float some_float(struct tri_random *random)
{
    return (float)((int32_t)tri_random_below(random, 4001) - 2000) / 64.0f;
}

/* Fills an array with what a member contributes. */
static void fill(enum troupe_datatype type, void *data, size_t count,
                 uint64_t seed, uint32_t member)
{
    struct tri_random random;

    tri_random_init(&random, tri_mix64(seed ^ (0x1000ull + member)));
    switch (type) {
    case TROUPE_FLOAT_COMPLEX:
    case TROUPE_FLOAT:
        for (size_t i = 0; i < count * (type == TROUPE_FLOAT ? 1 : 2); i++)
            ((float *)data)[i] = some_float(&random) / 3;
        break;
    case TROUPE_DOUBLE_COMPLEX:
    case TROUPE_DOUBLE:
        for (size_t i = 0; i < count * (type == TROUPE_DOUBLE ? 1 : 2); i++)
            ((double *)data)[i] = (double)some_float(&random) / 3;
        break;
    case TROUPE_LONG_DOUBLE:
        for (size_t i = 0; i < count; i++)
            ((long double *)data)[i] = (long double)some_float(&random) / 3;
        break;
    case TROUPE_BF16:
    case TROUPE_FP16:
        for (size_t i = 0; i < count; i++) {
            float f = some_float(&random);

            tri_reduce_store(type, TROUPE_SUM, (uint16_t *)data + i, &f, 1, 1);
        }
        break;
    default:
        for (size_t i = 0; i < count * troupe_datatype_bytes(type); i++)
            ((unsigned char *)data)[i] =
                (unsigned char)tri_random_next(&random);
    }
}

static bool is_equal(enum troupe_datatype type, const void *a, const void *b,
                     size_t bytes)
{
    if (type != TROUPE_LONG_DOUBLE)
        return bytes == 0 || memcmp(a, b, bytes) == 0;
    for (size_t i = 0; i < bytes / sizeof(long double); i++)
        if (((const long double *)a)[i] != ((const long double *)b)[i])
            return false; /* their padding may differ */
    return true;
}

/* Everybody's input of `count` elements, reduced. */
static void *reduced(const struct member *me, const struct call *call,
                     size_t count, enum troupe_op op)
{
    enum troupe_datatype type = (enum troupe_datatype)call->call.type;
    size_t bytes = count * troupe_datatype_bytes(type);
    unsigned char *ins = malloc(bytes * me->len + 1);
    const void *pointers[MEMBERS_MAX];
    void *out = malloc(bytes + 1);

    for (uint32_t i = 0; i < me->len; i++) {
        pointers[i] = ins + i * bytes;
        fill(type, ins + i * bytes, count, call->seed, i);
    }
    if (count > 0)
        tri_reduce_all(type, op, out, pointers, me->len, count);
    free(ins);
    return out;
}

static void *expect(const struct member *me, struct call *call)
{
    enum troupe_datatype type = (enum troupe_datatype)call->call.type;
    enum troupe_op op = (enum troupe_op)call->call.op;
    size_t bytes = troupe_datatype_bytes(type), count = call->call.count;
    unsigned char *all, *out;
    struct tri_shm_slice own = tri_shm_slice(type, count, me->place, me->len);

    switch (call->call.kind) {
    case TRI_COLL_BCAST:
        out = malloc(count * bytes + 1);
        fill(type, out, count, call->seed, call->call.root);
        return out;
    case TRI_COLL_ALLREDUCE:
        return reduced(me, call, count, op);
    case TRI_COLL_REDUCE:
        return me->place == call->call.root ? reduced(me, call, count, op)
                                            : NULL;
    case TRI_COLL_REDUCE_SCATTER:
        all = reduced(me, call, count * me->len, op);
        memmove(all, all + me->place * count * bytes, count * bytes);
        return all;
    case TRI_SHM_REDUCE_SLICES:
        all = reduced(me, call, count,
                      op == TROUPE_AVG ? TROUPE_SUM : op);
        memmove(all, all + own.begin * bytes, own.count * bytes);
        return all;
    case TRI_COLL_ALLGATHER:
        out = malloc(count * me->len * bytes + 1);
        for (uint32_t i = 0; i < me->len; i++)
            fill(type, out + i * count * bytes, count, call->seed, i);
        return out;
    case TRI_SHM_GATHER_SLICES:
        out = malloc(count * bytes + 1);
        for (uint32_t i = 0; i < me->len; i++) {
            struct tri_shm_slice s = tri_shm_slice(type, count, i, me->len);

            fill(type, out + s.begin * bytes, s.count, call->seed, i);
        }
        return out;
    default:
        return NULL;
    }
}

static const uint8_t kinds[] = {
    TRI_COLL_BARRIER,      TRI_COLL_BCAST,
    TRI_COLL_ALLREDUCE,    TRI_COLL_ALLREDUCE,
    TRI_COLL_REDUCE,       TRI_COLL_REDUCE_SCATTER,
    TRI_COLL_ALLGATHER,    TRI_SHM_REDUCE_SLICES,
    TRI_SHM_GATHER_SLICES,
};

static bool adds(uint8_t kind)
{
    return kind == TRI_COLL_ALLREDUCE || kind == TRI_COLL_REDUCE ||
           kind == TRI_COLL_REDUCE_SCATTER || kind == TRI_SHM_REDUCE_SLICES;
}

/* A size: often tiny, sometimes up to the most. */
static size_t some_count(struct tri_random *random, size_t most)
{
    switch (tri_random_below(random, 4)) {
    case 0:
        return tri_random_below(random, 5);
    case 1:
        return tri_random_below(random, 70);
    default:
        return tri_random_below(random, (uint32_t)most + 1);
    }
}

/* The same call on all members. */
static struct tri_shm_call some_call(struct member *me, size_t most)
{
    struct tri_random *random = &me->random;
    struct tri_shm_call call = {
        .kind = kinds[tri_random_below(random, tri_array_len(kinds))],
        .root = tri_random_below(random, me->len),
        .count = some_count(random, most),
    };

    do {
        call.type = (uint8_t)(1 + tri_random_below(random,
                                                   TROUPE_DATATYPE_LAST));
        call.op = (uint8_t)(1 + tri_random_below(random, TROUPE_OP_LAST));
    } while (adds(call.kind) &&
             !tri_reduce_allows((enum troupe_datatype)call.type,
                                (enum troupe_op)call.op));
    call.signature[0] = call.kind | (uint64_t)call.type << 8 |
                        (uint64_t)call.op << 16 | (uint64_t)call.root << 24;
    call.signature[1] = call.count;
    return call;
}

static void prepare_buffers(struct member *me, struct call *call,
                            bool in_place)
{
    enum troupe_datatype type = (enum troupe_datatype)call->call.type;
    size_t bytes = troupe_datatype_bytes(type), count = call->call.count;
    struct tri_shm_slice own = tri_shm_slice(type, count, me->place, me->len);

    call->out_bytes = bytes;
    call->in_count = call->out_count = count;
    if (call->call.kind == TRI_COLL_REDUCE_SCATTER)
        call->in_count = count * me->len;
    else if (call->call.kind == TRI_COLL_ALLGATHER)
        call->out_count = count * me->len;
    else if (call->call.kind == TRI_SHM_GATHER_SLICES)
        call->in_count = own.count;
    if (call->call.kind == TRI_SHM_REDUCE_SLICES) {
        call->out_count = own.count;
        call->out_bytes = tri_reduce_bytes(type);
        in_place = false;
    }
    /* in place, one buffer is as large as the larger of both */
    if (in_place || call->call.kind == TRI_COLL_BCAST)
        call->out_count = tri_max(call->in_count, call->out_count);
    call->out = guarded(call->out_count * call->out_bytes);
    call->call.out = call->out;
    if (in_place || call->call.kind == TRI_COLL_BCAST) {
        fill(type, call->out, call->in_count, call->seed, me->place);
        call->call.in = call->call.kind == TRI_COLL_BCAST ? NULL : call->out;
    } else {
        call->in = guarded(call->in_count * bytes);
        fill(type, call->in, call->in_count, call->seed, me->place);
        call->call.in = call->in;
    }
    if (call->call.kind == TRI_COLL_REDUCE && call->call.root != me->place)
        call->call.out = NULL;
}

static void begin_this(struct member *me, struct call *call,
                       struct tri_shm_call what)
{
    bool in_place;

    *call = (struct call){ .call = what,
                           .seed = tri_random_next(&me->random) };
    in_place = tri_random_below(&me->random, 3) == 0;
    prepare_buffers(me, call, in_place);
    must(tri_shm_start(me->shm, &call->call, &call->op) == 0);
}

static void begin_call(struct member *me, struct call *call, size_t most)
{
    begin_this(me, call, some_call(me, most));
}

/* How much of out is the result. */
static size_t result_bytes(const struct member *me, const struct call *call)
{
    if (call->call.kind == TRI_COLL_REDUCE_SCATTER)
        return call->call.count * call->out_bytes;
    (void)me;
    return call->out_count * call->out_bytes;
}

static void check_result(struct member *me, struct call *call)
{
    enum troupe_datatype type = (enum troupe_datatype)call->call.type;
    size_t bytes = result_bytes(me, call);
    void *result = call->out;

    call->expected = expect(me, call);
    if (call->expected == NULL)
        return;
    if (call->call.kind == TRI_SHM_REDUCE_SLICES &&
        call->out_bytes != troupe_datatype_bytes(type)) {
        /* rounded now, it is what it would have been at once */
        tri_reduce_store(type, TROUPE_SUM, call->out, call->out,
                         call->out_count, 1);
        bytes = call->out_count * troupe_datatype_bytes(type);
    }
    if (!is_equal(type, result, call->expected, bytes))
        fprintf(stderr, "kind %u type %u op %u count %zu root %u len %u\n",
                call->call.kind, call->call.type, call->call.op,
                call->call.count, call->call.root, me->len);
    must(is_equal(type, result, call->expected, bytes));
}

static void end_call(struct member *me, struct call *call)
{
    size_t in_bytes = call->in_count *
                      troupe_datatype_bytes((enum troupe_datatype)
                                                call->call.type);

    if (call->op != NULL)
        tri_shm_cancel(me->shm, &call->op);
    must(is_intact(call->out, call->out_count * call->out_bytes));
    must(call->in == NULL || is_intact(call->in, in_bytes));
    unguard(call->in);
    unguard(call->out);
    free(call->expected);
    *call = (struct call){ .op = NULL };
}

/* Now and then something else is done meanwhile. */
static void dawdle(struct member *me)
{
    uint32_t n = tri_random_below(&me->own, 64);

    if (n == 0)
        sched_yield();
    else if (n < 4)
        for (uint32_t i = 0; i < n * 500; i++)
            tri_cpu_relax();
}

static void wait_call(struct member *me, struct call *call)
{
    int rc;

    for (;;) {
        rc = tri_shm_progress(me->shm, call->op);
        if (rc != TRI_COLL_PENDING)
            break;
        if (!tri_shm_changed(me->shm))
            sched_yield();
        dawdle(me);
    }
    must(rc == 0);
    check_result(me, call);
}

/* --- the tests ------------------------------------------------------------ */

/* One after the other, and several together in an order of one's own. */
static void role_calls(struct member *me, unsigned rounds, size_t most)
{
    struct call calls[FLIGHT];

    for (unsigned round = 0; round < rounds; round++) {
        uint32_t n = 1 + tri_random_below(&me->random, 3) *
                             tri_random_below(&me->random, FLIGHT / 2);
        uint32_t first;

        for (uint32_t i = 0; i < n; i++) {
            begin_call(me, &calls[i], most);
            dawdle(me);
        }
        first = tri_random_below(&me->own, n);
        for (uint32_t i = 0; i < n; i++) {
            wait_call(me, &calls[(first + i) % n]);
            end_call(me, &calls[(first + i) % n]);
        }
    }
}

static void role_small_chunks(struct member *me)
{
    must(open_team(me) == 0);
    role_calls(me, 120 / SLOWDOWN, 1500);
    meet(me, 0, me->len);
}

static void role_large(struct member *me)
{
    must(open_team(me) == 0);
    role_calls(me, 6, 200000 / SLOWDOWN);
    meet(me, 0, me->len);
}

/* Results so large that they are written past the caches. */
static void role_huge(struct member *me)
{
    static const uint8_t huge[] = { TRI_COLL_ALLREDUCE, TRI_COLL_BCAST,
                                    TRI_COLL_ALLGATHER };
    struct call call;

    must(open_team(me) == 0);
    for (unsigned i = 0; i < tri_array_len(huge); i += 1 + SLOWDOWN / 4) {
        struct tri_shm_call what = {
            .kind = huge[i],
            .type = TROUPE_INT16,
            .op = TROUPE_SUM,
            .count = (4u << 20) + tri_random_below(&me->random, 99999),
            .signature = { huge[i], 0 },
        };

        begin_this(me, &call, what);
        wait_call(me, &call);
        end_call(me, &call);
    }
    meet(me, 0, me->len);
}

static void test_small_chunks(void **state)
{
    uint64_t seed = unit_seed("small chunks");

    (void)state;
    for (uint32_t len = 1; len <= MEMBERS_MAX; len++)
        run(len, TRI_CACHE_LINE * MEMBERS_MAX, seed + len, role_small_chunks);
}

static void test_large(void **state)
{
    uint64_t seed = unit_seed("large");

    (void)state;
    for (uint32_t len = 1; len <= MEMBERS_MAX; len += 1 + len / 3)
        run(len, 0, seed + len, role_large);
}

static void test_huge(void **state)
{
    uint64_t seed = unit_seed("huge");

    (void)state;
    for (uint32_t len = 2; len <= 3; len += SLOWDOWN)
        run(len, 0, seed + len, role_huge);
}

/* Calls that differ are found by all, wherever they are cut; what was started
 * behind them is not hurt. */
static void role_mismatch(struct member *me)
{
    struct call calls[3];

    must(open_team(me) == 0);
    for (unsigned round = 0; round < 60; round++) {
        uint32_t other = tri_random_below(&me->random, me->len);
        uint64_t signature[2];
        int rc;

        begin_call(me, &calls[0], 3000);
        /* of another's call nothing is the same but the buffers' owner */
        calls[1] = (struct call){ .call = some_call(me, 3000), .seed = 1 };
        if (me->place == other) {
            calls[1].call = some_call(me, 3000);
            calls[1].call.signature[1] |= 1ull << 60;
        } else {
            some_call(me, 3000);
        }
        prepare_buffers(me, &calls[1], false);
        must(tri_shm_start(me->shm, &calls[1].call, &calls[1].op) == 0);
        begin_call(me, &calls[2], 3000);
        do {
            rc = tri_shm_progress(me->shm, calls[1].op);
            dawdle(me);
        } while (rc == TRI_COLL_PENDING);
        must(rc == TROUPE_EMISMATCH);
        if (me->place != other) {
            must(tri_shm_culprit(me->shm, calls[1].op, signature) == other);
            must(signature[1] >> 60 == 1);
        } else {
            must(tri_shm_culprit(me->shm, calls[1].op, signature) != other);
        }
        wait_call(me, &calls[2]);
        wait_call(me, &calls[0]);
        for (unsigned i = 0; i < 3; i++)
            end_call(me, &calls[i]);
    }
    meet(me, 0, me->len);
}

static void test_mismatch(void **state)
{
    uint64_t seed = unit_seed("mismatch");

    (void)state;
    for (uint32_t len = 2; len <= 5; len++)
        run(len, TRI_CACHE_LINE * MEMBERS_MAX, seed + len, role_mismatch);
}

/* Goes on in a team of those that are left. */
static void next_team(struct member *me, uint32_t without)
{
    tri_shm_close(&me->shm);
    me->team = 1;
    if (without < me->len) {
        me->len--;
        me->place -= me->place > without;
    }
    must(open_team(me) == 0);
}

/* Everybody cancels at a moment of his own; then another team. */
static void role_cancel(struct member *me)
{
    struct call calls[FLIGHT];

    must(open_team(me) == 0);
    for (unsigned i = 0; i < FLIGHT; i++)
        begin_call(me, &calls[i], 3000);
    for (uint32_t n = tri_random_below(&me->own, 200); n > 0; n--)
        tri_shm_progress(me->shm, calls[n % FLIGHT].op);
    for (unsigned i = 0; i < FLIGHT; i++) {
        unsigned k = (i + me->index) % FLIGHT;

        end_call(me, &calls[k]);
        if (k == 3) { /* one that is asked for too late */
            /* or not: all that were cancelled so far may have been done */
            bool is_late = me->shm->broken;

            begin_call(me, &calls[k], 100);
            if (is_late) {
                must(tri_shm_progress(me->shm, calls[k].op) ==
                     TRI_COLL_PENDING);
                must(!tri_shm_changed(me->shm));
            }
            end_call(me, &calls[k]);
        }
    }
    tri_random_init(&me->random, 7);
    next_team(me, UINT32_MAX);
    role_calls(me, 10, 1000);
    meet(me, 0, me->len);
}

static void test_cancel(void **state)
{
    uint64_t seed = unit_seed("cancel");

    (void)state;
    for (uint32_t round = 0; round < 8; round++)
        run(2 + round % 4, TRI_CACHE_LINE * MEMBERS_MAX, seed + round,
            role_cancel);
}

/* Collectives until the victim is dead; then in a team without it. */
static void role_kill(struct member *me)
{
    uint32_t victim = tri_random_below(&me->random, me->len);
    uint32_t left = tri_random_below(&me->own, 400);
    struct call call;
    int rc = 0;

    must(open_team(me) == 0);
    while (rc != TRI_COLL_PENDING) {
        begin_call(me, &call, 5000);
        do {
            if (me->index == victim && left-- == 0)
                raise(SIGKILL);
            rc = tri_shm_progress(me->shm, call.op);
            must(rc >= 0);
            sched_yield();
        } while (rc == TRI_COLL_PENDING && !atomic_load(&me->stage->died));
        if (rc == 0)
            check_result(me, &call);
        else /* what is there is still read; then nothing moves */
            for (int i = 0; i < 1000; i++)
                rc = tri_shm_progress(me->shm, call.op);
        end_call(me, &call);
    }
    tri_random_init(&me->random, 7);
    next_team(me, victim);
    role_calls(me, 10, 1000);
    meet(me, 0, me->len);
}

static void test_kill(void **state)
{
    uint64_t seed = unit_seed("kill");

    (void)state;
    for (uint32_t round = 0; round < 12; round++) {
        struct tri_random random;
        uint32_t len = 2 + round % 4;

        tri_random_init(&random, seed + round);
        run_on(make_stage(), len, TRI_CACHE_LINE * MEMBERS_MAX, seed + round,
               role_kill, tri_random_below(&random, len));
    }
}

/* The last member writes what it likes, where it may. The others get some
 * outcome, and nothing is written beside their buffers. */
static void role_garbage(struct member *me)
{
    struct call call;
    int rc;

    must(open_team(me) == 0);
    for (unsigned round = 0; round < 20; round++) {
        begin_call(me, &call, 3000);
        if (me->place == me->len - 1) {
            uint64_t *words = (uint64_t *)(void *)me->shm->own->heads;

            for (size_t i = 0; i < sizeof(me->shm->own->heads) / 8; i++)
                words[i] = tri_random_next(&me->own) >>
                           tri_random_below(&me->own, 64);
            meet(me, 1 + round, me->len);
        } else {
            for (int i = 0; i < 200; i++)
                tri_shm_progress(me->shm, call.op);
            meet(me, 1 + round, me->len);
            for (int i = 0; i < 200; i++) {
                rc = tri_shm_progress(me->shm, call.op);
                must(rc == 0 || rc == TRI_COLL_PENDING ||
                     rc == TROUPE_EMISMATCH || rc == TROUPE_EPROTO);
            }
        }
        end_call(me, &call);
    }
    must(me->place == me->len - 1 || me->shm->broken);
}

static void test_garbage(void **state)
{
    uint64_t seed = unit_seed("garbage");

    (void)state;
    for (uint32_t len = 2; len <= 4; len++)
        run(len, TRI_CACHE_LINE * MEMBERS_MAX, seed + len, role_garbage);
}

/* A member that cannot have the arena: all learn it. */
static void role_no_arena(struct member *me)
{
    must(open_team(me) == TROUPE_ETRANSPORT);
    meet(me, 0, me->len);
}

static void test_no_arena(void **state)
{
    uint64_t seed = unit_seed("no arena");
    struct stage *stage;

    (void)state;
    for (uint32_t spoilt = 1; spoilt < 4; spoilt++) {
        stage = make_stage();
        stage->spoilt = spoilt;
        run_on(stage, 4, 0, seed + spoilt, role_no_arena, UINT32_MAX);
    }
}

/* Slices are in order, cover everything, and begin at cache lines. */
static void test_slices(void **state)
{
    (void)state;
    for (uint32_t len = 1; len <= 9; len++)
        for (size_t count = 0; count < 300; count++) {
            size_t next = 0;

            for (uint32_t i = 0; i < len; i++) {
                struct tri_shm_slice s =
                    tri_shm_slice(TROUPE_FLOAT, count, i, len);

                assert_int_equal(s.begin, next);
                assert_true(s.count == 0 || s.begin % 16 == 0);
                next += s.count;
            }
            assert_int_equal(next, count);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slices),   cmocka_unit_test(test_small_chunks),
        cmocka_unit_test(test_large),    cmocka_unit_test(test_huge),
        cmocka_unit_test(test_mismatch), cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_kill),     cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_no_arena),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
