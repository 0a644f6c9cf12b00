/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One suite for all back ends:
 *
 *   coll_suite BACKEND [fixed|elastic] [reproducible]
 *
 * BACKEND: what the group's option takes; or "plain", "choice", "other": the
 * plainest back end there can be, a choice between two of them, and the second
 * of these as soon as it stands. All kinds of
 * collectives with all types and operations, sizes from nothing to large, in
 * place, from each root, many under way, waited for, tested, told by message,
 * started by an actor; the results right, and the same bits on all members. In
 * the end calls that do not match.
 */
#include <math.h>
#include <stdatomic.h>

#include "actor/runtime.h"
#include "base/base.h"
#include "lib/plain.h"
#include "tensor/front.h"
#include "tensor/reduce.h"
#include "test.h"

enum { MEMBERS_MAX = 16, COUNT_MAX = 70000, MANY = 60 };

static troupe_t *troupe;
static troupe_group_t *group;
static int members, mine, is_reproducible, soon_ms = TEST_SOON_MS;
static uint64_t hash = TRI_FNV64_OFFSET;
static unsigned cases;
static char *inputs[MEMBERS_MAX], *output, *wanted, *copy;

static const size_t counts[] = { 0, 1, 7, 1000, 4099, 33333 };

/* --- data that each member can make for all ------------------------------- */

static uint64_t random_of(uint64_t member, uint64_t i, uint64_t salt)
{
    return tri_mix64(tri_mix64(member * 0x9e3779b97f4a7c15ull + salt) + i);
}

static double small_of(uint64_t bits)
{
    return ldexp((double)(int64_t)bits, -63) + ((int64_t)bits < 0 ? -1.1 : 1.1);
}

static void fill(void *array, enum troupe_datatype type, size_t count,
                 uint64_t member, uint64_t salt)
{
    size_t bytes = troupe_datatype_bytes(type);

    memset(array, 0, count * bytes);
    for (size_t i = 0; i < count; i++) {
        uint64_t bits = random_of(member, i, salt);
        float value = (float)small_of(bits);
        char *to = (char *)array + i * bytes;

        if (type == TROUPE_FLOAT || type == TROUPE_FLOAT_COMPLEX)
            for (size_t k = 0; k < bytes / 4; k++)
                ((float *)to)[k] = k == 0 ? value : -value / 3;
        else if (type == TROUPE_DOUBLE || type == TROUPE_DOUBLE_COMPLEX)
            for (size_t k = 0; k < bytes / 8; k++)
                ((double *)to)[k] = k == 0 ? small_of(bits) : small_of(~bits);
        else if (type == TROUPE_LONG_DOUBLE)
            *(long double *)to = (long double)small_of(bits);
        else if (type == TROUPE_BF16 || type == TROUPE_FP16)
            tri_reduce_store(type, TROUPE_SUM, to, &value, 1, 1);
        else
            memcpy(to, &bits, bytes);
        /* no sum beyond the type: some MPI's saturate, where others wrap */
        if (type <= TROUPE_UINT64) {
            bits %= bytes == 1 ? 3 : 7;
            memcpy(to, &bits, bytes);
        }
    }
}

static int is_real(enum troupe_datatype type)
{
    return type >= TROUPE_FLOAT && type <= TROUPE_FP16;
}

/* Real numbers of an element, and one of them. */
static size_t reals_of(enum troupe_datatype type)
{
    return type == TROUPE_FLOAT_COMPLEX || type == TROUPE_DOUBLE_COMPLEX ? 2
                                                                         : 1;
}

static long double real_at(enum troupe_datatype type, const void *array,
                           size_t i)
{
    float value;

    switch (type) {
    case TROUPE_FLOAT:
    case TROUPE_FLOAT_COMPLEX:
        return (long double)((const float *)array)[i];
    case TROUPE_DOUBLE:
    case TROUPE_DOUBLE_COMPLEX:
        return (long double)((const double *)array)[i];
    case TROUPE_LONG_DOUBLE:
        return ((const long double *)array)[i];
    default:
        tri_reduce_load(type, &value, (const char *)array + 2 * i, 1);
        return (long double)value;
    }
}

static long double epsilon_of(enum troupe_datatype type)
{
    switch (type) {
    case TROUPE_DOUBLE:
    case TROUPE_DOUBLE_COMPLEX:
        return 0x1p-50L;
    case TROUPE_LONG_DOUBLE:
        return 0x1p-60L;
    case TROUPE_BF16:
        return 0x1p-6L;
    case TROUPE_FP16:
        return 0x1p-9L;
    default:
        return 0x1p-21L;
    }
}

/* Equal, or what another order of additions may make of it. */
static int is_near(enum troupe_datatype type, enum troupe_op op,
                   const void *got, const void *want, size_t count)
{
    long double most = op == TROUPE_PROD ? powl(3, members)
                                         : 3.0L * members;

    if (!is_real(type) || op == TROUPE_MIN || op == TROUPE_MAX || op == 0)
        return count == 0 ||
               memcmp(got, want, count * troupe_datatype_bytes(type)) == 0;
    for (size_t i = 0; i < count * reals_of(type); i++) {
        long double a = real_at(type, got, i), b = real_at(type, want, i);

        if (!(fabsl(a - b) <= most * epsilon_of(type)))
            return 0;
    }
    return 1;
}

/* --- what members have alike ---------------------------------------------- */

static void hash_in(const void *data, size_t bytes)
{
    hash = tri_fnv64(hash, data, tri_min(bytes, 4096));
    if (bytes > 4096)
        hash = tri_fnv64(hash, (const char *)data + bytes - 1024, 1024);
}

static void check_hash(const char *what)
{
    uint64_t least, most;

    MPI_Allreduce(&hash, &least, 1, MPI_UINT64_T, MPI_MIN, MPI_COMM_WORLD);
    MPI_Allreduce(&hash, &most, 1, MPI_UINT64_T, MPI_MAX, MPI_COMM_WORLD);
    if (!CHECK(least == most))
        fprintf(stderr, "rank %d: other bits in %s\n", test_rank, what);
}

static void complain(const char *what, enum troupe_datatype type,
                     enum troupe_op op, size_t count)
{
    fprintf(stderr, "rank %d: %s of %zu of type %d, op %d: wrong\n", test_rank,
            what, count, type, op);
    CHECK(!"a right result");
}

/* --- one of each ---------------------------------------------------------- */

static void reference(enum troupe_datatype type, enum troupe_op op,
                      size_t count)
{
    tri_reduce_all(type, op, wanted, (const void *const *)inputs,
                   (uint32_t)members, count);
}

static void one_allreduce(enum troupe_datatype type, enum troupe_op op,
                          size_t count, int in_place)
{
    size_t bytes = count * troupe_datatype_bytes(type);

    memcpy(copy, inputs[mine], bytes);
    memset(output, 0x5a, bytes + 1);
    if (in_place)
        memcpy(output, inputs[mine], bytes);
    MUST(troupe_allreduce(group, in_place ? output : copy, output, count, type,
                          op, soon_ms));
    if (!is_near(type, op, output, wanted, count))
        complain("allreduce", type, op, count);
    CHECK(output[bytes] == 0x5a);
    CHECK(memcmp(copy, inputs[mine], bytes) == 0);
    hash_in(output, bytes);
}

static void one_reduce(enum troupe_datatype type, enum troupe_op op,
                       size_t count, uint32_t root)
{
    size_t bytes = count * troupe_datatype_bytes(type);
    int is_root = (uint32_t)mine == root;

    memset(output, 0x5a, bytes + 1);
    MUST(troupe_reduce(group, inputs[mine], is_root ? output : NULL, count,
                       type, op, root, soon_ms));
    if (is_root && !is_near(type, op, output, wanted, count))
        complain("reduce", type, op, count);
    CHECK(output[is_root ? bytes : 0] == 0x5a);
}

static void one_reduce_scatter(enum troupe_datatype type, enum troupe_op op,
                               size_t all, int in_place)
{
    size_t count = all / (size_t)members;
    size_t bytes = count * troupe_datatype_bytes(type);

    memset(output, 0x5a, bytes * (size_t)members + 1);
    if (in_place)
        memcpy(output, inputs[mine], bytes * (size_t)members);
    MUST(troupe_reduce_scatter(group, in_place ? output : inputs[mine], output,
                               count, type, op, soon_ms));
    if (!is_near(type, op, output, wanted + (size_t)mine * bytes, count))
        complain("reduce_scatter", type, op, count);
    CHECK(in_place || output[bytes] == 0x5a);
}

static void with_op(enum troupe_datatype type, enum troupe_op op, size_t count)
{
    for (int i = 0; i < members; i++)
        fill(inputs[i], type, count, (uint64_t)i, count * 64 + type);
    if (members > 0)
        reference(type, op, count);
    one_allreduce(type, op, count, 0);
    one_allreduce(type, op, count, 1);
    one_reduce(type, op, count, (uint32_t)(cases % (unsigned)members));
    one_reduce_scatter(type, op, count, cases % 2 == 0);
    cases++;
}

static void moved(enum troupe_datatype type, size_t count)
{
    size_t bytes = count * troupe_datatype_bytes(type);
    size_t part = count / (size_t)members;
    size_t part_bytes = part * troupe_datatype_bytes(type);

    for (uint32_t root = 0; root < (uint32_t)members; root++) {
        fill(wanted, type, count, root, 77);
        memset(output, 0x5a, bytes + 1);
        if ((uint32_t)mine == root)
            memcpy(output, wanted, bytes);
        MUST(troupe_bcast(group, output, count, type, root, soon_ms));
        if (!is_near(type, 0, output, wanted, count) || output[bytes] != 0x5a)
            complain("bcast", type, 0, count);
    }
    for (int i = 0; i < members; i++)
        fill(wanted + (size_t)i * part_bytes, type, part, (uint64_t)i, 78);
    for (int in_place = 0; in_place < 2; in_place++) {
        char *own = in_place ? output + (size_t)mine * part_bytes : copy;

        memset(output, 0x5a, part_bytes * (size_t)members + 1);
        fill(own, type, part, (uint64_t)mine, 78);
        MUST(troupe_allgather(group, own, output, part, type, soon_ms));
        if (!is_near(type, 0, output, wanted, part * (size_t)members) ||
            output[part_bytes * (size_t)members] != 0x5a)
            complain("allgather", type, 0, part);
    }
    cases++;
}

static void everything(void)
{
    for (int type = 1; type <= TROUPE_DATATYPE_LAST; type++) {
        for (size_t i = 0; i < tri_array_len(counts); i++) {
            /* all types with small arrays, some with large ones */
            if (counts[i] > 1000 && type % 4 != 1 && type != TROUPE_BF16)
                continue;
            for (int op = 1; op <= TROUPE_OP_LAST; op++)
                if (tri_reduce_allows(type, op) &&
                    (counts[i] <= 1000 || op == TROUPE_SUM))
                    with_op(type, op, counts[i]);
            moved(type, counts[i]);
        }
        MUST(troupe_barrier(group, soon_ms));
        check_hash("a type");
    }
    with_op(TROUPE_FLOAT, TROUPE_SUM, COUNT_MAX);
    moved(TROUPE_DOUBLE, COUNT_MAX);
    check_hash("large ones");
}

/* A barrier: nobody is through before the last is there. */
static void barriers(void)
{
    for (int late = 0; late < members; late++) {
        int seen = 0, sum;

        if (late == mine)
            seen = 1;
        MUST(troupe_barrier(group, soon_ms));
        MUST(troupe_allreduce(group, &seen, &sum, 1, TROUPE_INT32, TROUPE_SUM,
                              soon_ms));
        CHECK_EQ(sum, 1);
    }
}

/* --- many under way ------------------------------------------------------- */

static void many(int tested)
{
    static int64_t in[MANY][50], out[MANY][50];
    troupe_collective_t *under_way[MANY];
    int wrong = 0;

    for (int k = 0; k < MANY; k++) {
        for (int i = 0; i < 50; i++)
            in[k][i] = mine * 1000 + k * i;
        MUST(troupe_allreduce_start(troupe, group, in[k], out[k], 50,
                                    TROUPE_INT64, TROUPE_SUM, &under_way[k]));
    }
    for (int k = MANY - 1; k >= 0; k--) {
        int rc = 0;

        if (!tested)
            MUST(troupe_collective_wait(&under_way[k], soon_ms));
        else
            while (!troupe_collective_test(&under_way[k], &rc))
                sched_yield();
        CHECK_EQ(rc, 0);
        CHECK(under_way[k] == NULL);
        for (int i = 0; i < 50; i++)
            wrong += out[k][i] != (int64_t)members * (members - 1) / 2 * 1000 +
                                      (int64_t)members * k * i;
    }
    CHECK_EQ(wrong, 0);
}

/* --- actors --------------------------------------------------------------- */

/* Starts allreduces and is told when each is done. */
#define summer_messages(TELL, ASK)                                            \
    TELL(summer, done, (int64_t n;))                                          \
    ASK(summer, sum, (int64_t times;), (int64_t total; int64_t refused;))
TROUPE_PROTOCOL(summer)

struct summer {
    int64_t left, total, in, out, refused;
    int rc;
    troupe_token_t asked;
};

static int next_sum(troupe_self_t *self, struct summer *s)
{
    summer_done_t *done;
    troupe_collective_t *collective;
    int rc;

    s->in = s->left;
    rc = troupe_allreduce_start(self, group, &s->in, &s->out, 1, TROUPE_INT64,
                                TROUPE_SUM, &collective);
    if (rc != 0)
        return rc;
    done = summer_done_new(self, 0);
    if (done == NULL)
        return TROUPE_ENOMEM;
    return troupe_collective_send_when_done(
        &collective, troupe_self_ref(self), done, &s->rc);
}

static int on_done(troupe_self_t *self, struct summer *s,
                   const summer_done_t *m)
{
    (void)m;
    if (s->rc != 0)
        return s->rc;
    s->total += s->out;
    if (--s->left > 0)
        return next_sum(self, s);
    return summer_sum_reply_to(self, s->asked,
                               (summer_sum_result_t){ .total = s->total,
                                                      .refused = s->refused });
}

static int on_sum(troupe_self_t *self, struct summer *s, const summer_sum_t *m)
{
    s->refused = troupe_allreduce(group, &s->in, &s->out, 1, TROUPE_INT64,
                                  TROUPE_SUM, 0);
    s->left = m->times;
    s->total = 0;
    s->asked = troupe_reply_later(self);
    return next_sum(self, s);
}

TROUPE_ACTOR(summer, struct summer, .done = on_done, .sum = on_sum)

static void from_an_actor(void)
{
    summer_ref_t summer;
    summer_sum_result_t result;

    MUST(summer_spawn(troupe, NULL, NULL, &summer));
    MUST(summer_sum(troupe, summer, (summer_sum_t){ .times = 20 },
                    TEST_SOON_MS, &result));
    CHECK_EQ(result.total, 210 * members);
    CHECK_EQ(result.refused, TROUPE_ECONTEXT);
}

/* --- what is refused ------------------------------------------------------ */

static void refused(void)
{
    int64_t a[4] = { 0 }, b[4];

    CHECK_EQ(troupe_allreduce(NULL, a, b, 1, TROUPE_INT64, TROUPE_SUM, 0),
             TROUPE_EINVAL);
    CHECK_EQ(troupe_allreduce(group, a, b, 1, 99, TROUPE_SUM, 0),
             TROUPE_EINVAL);
    CHECK_EQ(troupe_allreduce(group, a, b, 1, TROUPE_BYTE, TROUPE_SUM, 0),
             TROUPE_EINVAL);
    CHECK_EQ(troupe_allreduce(group, a, NULL, 1, TROUPE_INT64, TROUPE_SUM, 0),
             TROUPE_EINVAL);
    CHECK_EQ(troupe_allreduce(group, a, b, 1, TROUPE_INT64, 77, 0),
             TROUPE_EINVAL);
    CHECK_EQ(troupe_bcast(group, a, 1, TROUPE_INT64, (uint32_t)members, 0),
             TROUPE_EINVAL);
    CHECK_EQ(troupe_allgather(group, a, b, SIZE_MAX / 8, TROUPE_INT64, 0),
             TROUPE_EINVAL);
    /* none of them has moved the others' numbering */
    MUST(troupe_barrier(group, soon_ms));
}

/* In MPI's words. */
static void in_mpis_words(void)
{
    long in = mine + 1, out = 0;
    double all[MEMBERS_MAX] = { 0 }, own = mine;

    MUST(troupe_allreduce_mpi(group, &in, &out, 1, MPI_LONG, MPI_SUM,
                              soon_ms));
    CHECK_EQ(out, members * (members + 1) / 2);
    MUST(troupe_allreduce_mpi(group, MPI_IN_PLACE, &in, 1, MPI_LONG, MPI_MAX,
                              soon_ms));
    CHECK_EQ(in, members);
    MUST(troupe_allgather_mpi(group, &own, all, 1, MPI_DOUBLE, soon_ms));
    for (int i = 0; i < members; i++)
        CHECK(all[i] == i);
    CHECK_EQ(troupe_allreduce_mpi(group, &in, &out, 1, MPI_LONG, MPI_BXOR, 0),
             TROUPE_EINVAL);
    CHECK_EQ(troupe_bcast_mpi(group, &in, 1, MPI_DOUBLE_INT, 0, 0),
             TROUPE_EINVAL);
    CHECK(troupe_datatype_of_mpi(MPI_UNSIGNED_SHORT) == TROUPE_UINT16);
    CHECK(troupe_datatype_of_mpi(MPI_INT64_T) == TROUPE_INT64);
}

/* The last member calls something else: an error on all, and for good. */
static void mismatched(void)
{
    float a[8] = { 0 }, b[8];
    int rc = troupe_allreduce(group, a, b, mine == members - 1 ? 7 : 8,
                              TROUPE_FLOAT, TROUPE_SUM, soon_ms);

    if (members == 1)
        return;
    CHECK_EQ(rc, TROUPE_EMISMATCH);
    CHECK_EQ(troupe_barrier(group, soon_ms), TROUPE_EMISMATCH);
}

/* --- reproducible --------------------------------------------------------- */

/* The same numbers, given by other members: the same bits. And added as
 * integers or exactly they are right. */
static void reproducible(enum troupe_datatype type, size_t count)
{
    size_t bytes = count * troupe_datatype_bytes(type);

    for (int shift = 0; shift < members; shift++) {
        fill(copy, type, count, (uint64_t)((mine + shift) % members), 5);
        /* far apart */
        if (type == TROUPE_DOUBLE)
            for (size_t i = 0; i < count; i++)
                ((double *)copy)[i] *=
                    ldexp(1, 30 * ((mine + shift) % members) - (int)(i % 900));
        MUST(troupe_allreduce(group, copy, output, count, type, TROUPE_SUM,
                              soon_ms));
        if (shift == 0)
            memcpy(wanted, output, bytes);
        CHECK(memcmp(wanted, output, bytes) == 0);
    }
    hash_in(wanted, bytes);
    check_hash("reproducible sums");
}

/* --- main ----------------------------------------------------------------- */

static const struct tri_backend_ops *const plain_only[TRI_BACKENDS] = {
    [TRI_BACKEND_NATIVE] = &plain_backend,
};
static const struct tri_backend_ops *const plain_both[TRI_BACKENDS] = {
    [TRI_BACKEND_NATIVE] = &plain_backend,
    [TRI_BACKEND_MPI] = &plain_other_backend,
};

static void make_group(const char *backend, int is_elastic)
{
    troupe_group_options_t options;
    struct tri_tensor *tensor = ((struct tri_runtime *)troupe)->tensor;

    troupe_group_options_init(&options);
    options.elastic = is_elastic;
    options.check = 1;
    options.reproducible = is_reproducible;
    options.backend = backend;
    if (strcmp(backend, "plain") == 0) {
        tensor->backends = plain_only;
        options.backend = "native";
    } else if (strcmp(backend, "choice") == 0) {
        tensor->backends = plain_both;
        options.backend = "auto";
    } else if (strcmp(backend, "other") == 0) {
        tensor->backends = plain_both;
        options.backend = "mpi";
    }
    MUST(troupe_group_create(troupe, "suite", &options, &group));
}

static void make_arrays(void)
{
    size_t bytes = COUNT_MAX * 16 + 64;

    for (int i = 0; i < members; i++)
        inputs[i] = malloc(bytes);
    output = malloc(bytes);
    wanted = malloc(bytes);
    copy = malloc(bytes);
}

int main(int argc, char **argv)
{
    const char *backend = argc > 1 ? argv[1] : "plain";
    int is_elastic = argc > 2 && strcmp(argv[2], "elastic") == 0;
    int level;

    /* MPI's own blocking calls are used without a deadline alone */
    if (strcmp(backend, "mpi") == 0 && !is_elastic)
        soon_ms = TROUPE_FOREVER;
    /* an elastic group uses MPI only at this level */
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &members);
    MUST(troupe_start(&troupe, NULL));
    mine = test_rank;
    is_reproducible = argc > 3;
    make_arrays();
    make_group(backend, is_elastic);
    barriers();
    everything();
    many(0);
    many(1);
    from_an_actor();
    refused();
    in_mpis_words();
    if (is_reproducible)
        for (int type = TROUPE_FLOAT; type <= TROUPE_FP16; type++)
            reproducible((enum troupe_datatype)type, 2000);
    if (strcmp(backend, "choice") == 0 && members > 1)
        CHECK(strcmp(troupe_group_backend(group), "none") != 0);
    if (test_rank == 0)
        printf("coll_suite: %u cases over %s, the last one %s\n", cases,
               backend, troupe_group_backend(group));
    MPI_Barrier(MPI_COMM_WORLD);
    mismatched();
    /* a member that leaves ends the view of the others */
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
    return test_end(troupe);
}
