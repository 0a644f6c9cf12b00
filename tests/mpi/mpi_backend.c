/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The back end that calls MPI, without the front: all kinds, types and
 * operations, waiting and not, of a fixed and of an elastic team; many at once;
 * more elements than a call of MPI takes; calls that do not match.
 *
 *   mpi_backend [none]   none: without MPI_THREAD_MULTIPLE and workers, where
 *                        an elastic team cannot be
 */
#include "team.h"
#include "tensor/reduce.h"

enum {
    BYTES_MAX = 1500000, /* some pieces */
    AT_ONCE = 20,
};

static int size;
static char *in, *out;

/* --- values --------------------------------------------------------------- */

static float get(enum troupe_datatype type, const char *from, size_t i)
{
    float value;
    long double real;
    double number;
    int16_t half;
    int32_t word;
    int64_t twin;

    from += i * troupe_datatype_bytes(type);
    switch (type) {
    case TROUPE_INT16:
    case TROUPE_UINT16: return memcpy(&half, from, 2), (float)half;
    case TROUPE_INT32:
    case TROUPE_UINT32: return memcpy(&word, from, 4), (float)word;
    case TROUPE_INT64:
    case TROUPE_UINT64: return memcpy(&twin, from, 8), (float)twin;
    case TROUPE_FLOAT:
    case TROUPE_FLOAT_COMPLEX: return memcpy(&value, from, 4), value;
    case TROUPE_DOUBLE:
    case TROUPE_DOUBLE_COMPLEX: return memcpy(&number, from, 8), (float)number;
    case TROUPE_LONG_DOUBLE: return memcpy(&real, from, 16), (float)real;
    case TROUPE_BF16:
    case TROUPE_FP16: return tri_reduce_load(type, &value, from, 1), value;
    default: return *from;
    }
}

static void set(enum troupe_datatype type, char *to, size_t i, int value)
{
    float real = (float)value;
    double number = value;
    long double wide = value;
    int64_t integer = value; /* its first bytes are those of the shorter */

    to += i * troupe_datatype_bytes(type);
    memset(to, 0, troupe_datatype_bytes(type));
    switch (type) {
    case TROUPE_FLOAT:
    case TROUPE_FLOAT_COMPLEX: memcpy(to, &real, 4); break;
    case TROUPE_DOUBLE:
    case TROUPE_DOUBLE_COMPLEX: memcpy(to, &number, 8); break;
    case TROUPE_LONG_DOUBLE: memcpy(to, &wide, 16); break;
    case TROUPE_BF16:
    case TROUPE_FP16:
        tri_reduce_store(type, TROUPE_SUM, to, &real, 1, 1);
        break;
    default: memcpy(to, &integer, troupe_datatype_bytes(type));
    }
}

/* Small, so that all sums and products are exact. */
static int value_of(int member, size_t i)
{
    return (int)(((size_t)member * 7 + i / 3) % 2) + 1;
}

static float combine(enum troupe_datatype type, enum troupe_op op, size_t i)
{
    float result = (float)value_of(0, i);
    int is_real = type >= TROUPE_FLOAT && type <= TROUPE_FP16;

    for (int r = 1; r < size; r++) {
        float value = (float)value_of(r, i);

        if (op == TROUPE_PROD)
            result *= value;
        else if (op == TROUPE_MIN)
            result = value < result ? value : result;
        else if (op == TROUPE_MAX)
            result = value > result ? value : result;
        else
            result += value;
    }
    if (op != TROUPE_AVG)
        return result;
    return is_real ? result / (float)size
                   : (float)((int)result / size);
}

/* What element i of the result is; i counts over all blocks. */
static float wanted(const struct tri_coll *coll, size_t i)
{
    enum troupe_datatype type = (enum troupe_datatype)coll->type;
    enum troupe_op op = (enum troupe_op)coll->op;

    switch (coll->kind) {
    case TRI_COLL_BCAST:
        return (float)value_of((int)coll->root, i);
    case TRI_COLL_ALLGATHER:
        return (float)value_of((int)(i / coll->count), i % coll->count);
    case TRI_COLL_REDUCE_SCATTER:
        return combine(type, op, team.index * coll->count + i);
    default:
        return combine(type, op, i);
    }
}

static size_t len_in(const struct tri_coll *coll)
{
    return coll->count *
           (coll->kind == TRI_COLL_REDUCE_SCATTER ? team.len : 1);
}

static size_t len_out(const struct tri_coll *coll)
{
    if (coll->kind == TRI_COLL_REDUCE && coll->root != team.index)
        return 0;
    return coll->count * (coll->kind == TRI_COLL_ALLGATHER ? team.len : 1);
}

/* --- one collective ------------------------------------------------------- */

static void fill(const struct tri_coll *coll)
{
    char *to = coll->kind == TRI_COLL_BCAST ? out : in;

    if (coll->in == coll->out)
        to = out;
    memset(out, 0x5a, (len_out(coll) + 1) *
                          troupe_datatype_bytes(coll->type));
    for (size_t i = 0; i < len_in(coll); i++)
        set((enum troupe_datatype)coll->type, to, i, value_of(test_rank, i));
}

static void check_result(const struct tri_coll *coll)
{
    size_t wrong = 0, bytes = troupe_datatype_bytes(coll->type);

    for (size_t i = 0; i < len_out(coll); i++)
        wrong += get((enum troupe_datatype)coll->type, coll->out, i) !=
                 wanted(coll, i);
    if (wrong > 0 && test_failures < 10)
        fprintf(stderr, "rank %d: kind %u type %u op %u count %zu%s%s: %zu "
                        "wrong\n",
                test_rank, coll->kind, coll->type, coll->op, coll->count,
                coll->in == coll->out ? " in place" : "",
                coll->is_blocking ? " waiting" : "", wrong);
    CHECK(wrong == 0);
    /* Nothing behind it. */
    if (coll->in != coll->out)
        for (size_t i = 0; len_out(coll) > 0 && i < bytes; i++)
            CHECK(((char *)coll->out)[len_out(coll) * bytes + i] == 0x5a);
}

static struct tri_coll make(int kind, int type, int op, size_t count,
                            int in_place, int blocks)
{
    struct tri_coll coll = {
        .team = &team,
        .kind = (uint8_t)kind,
        .type = (uint8_t)type,
        .op = (uint8_t)op,
        .root = (uint32_t)(count % (size_t)size),
        .count = count,
        .in = in_place ? out : in,
        .out = out,
        .is_blocking = blocks,
    };

    if (kind == TRI_COLL_BCAST)
        coll.in = NULL;
    if (kind == TRI_COLL_REDUCE && coll.root != team.index) {
        coll.out = NULL;
        coll.in = in_place ? out : in;
    }
    tri_coll_sign(&coll);
    return coll;
}

static void try(int kind, int type, int op, size_t count, int in_place,
                int blocks)
{
    struct tri_coll coll = make(kind, type, op, count, in_place, blocks);

    fill(&coll);
    if (in_place && coll.in == out && coll.out == NULL)
        for (size_t i = 0; i < count; i++)
            set((enum troupe_datatype)type, out, i, value_of(test_rank, i));
    MUST(ops->start(backend, &coll));
    CHECK_EQ(team_finish(&coll), 0);
    check_result(&coll);
}

static int is_complex(int type)
{
    return type == TROUPE_FLOAT_COMPLEX || type == TROUPE_DOUBLE_COMPLEX;
}

static void try_type(int type, size_t count, int last_op, int blocks)
{
    for (int in_place = 0; in_place < 2; in_place++) {
        try(TRI_COLL_ALLGATHER, type, 0, count, in_place, blocks);
        for (int op = 1; type != TROUPE_BYTE && op <= last_op; op++) {
            if (is_complex(type) && (op == TROUPE_MIN || op == TROUPE_MAX))
                continue;
            try(TRI_COLL_ALLREDUCE, type, op, count, in_place, blocks);
            try(TRI_COLL_REDUCE, type, op, count, in_place, blocks);
            try(TRI_COLL_REDUCE_SCATTER, type, op, count, in_place, blocks);
        }
    }
    try(TRI_COLL_BCAST, type, 0, count, 0, blocks);
}

static void try_all(int blocks)
{
    for (int type = 1; type <= TROUPE_DATATYPE_LAST; type++) {
        size_t most = BYTES_MAX / troupe_datatype_bytes(type);

        try_type(type, 1, TROUPE_OP_LAST, blocks);
        try_type(type, 37, TROUPE_OP_LAST, blocks);
        if (type == TROUPE_FLOAT || type == TROUPE_BF16)
            try_type(type, most, TROUPE_SUM, blocks);
    }
    try(TRI_COLL_BARRIER, 0, 0, 0, 0, blocks);
    try(TRI_COLL_ALLREDUCE, TROUPE_INT32, TROUPE_SUM, 0, 0, blocks);
}

/* --- more ----------------------------------------------------------------- */

/* Ended in another order than they were started. */
static void try_many(void)
{
    static struct tri_coll colls[AT_ONCE];
    static int32_t ins[AT_ONCE][999], outs[AT_ONCE][999];

    for (int n = 0; n < AT_ONCE; n++) {
        colls[n] = make(n % 5 == 4 ? TRI_COLL_BARRIER : TRI_COLL_ALLREDUCE,
                        TROUPE_INT32, TROUPE_SUM, n % 5 == 4 ? 0 : 999, 0, 0);
        colls[n].in = ins[n];
        colls[n].out = outs[n];
        for (int i = 0; i < 999; i++)
            ins[n][i] = n + test_rank;
        MUST(ops->start(backend, &colls[n]));
    }
    for (int n = AT_ONCE; n-- > 0;) {
        int sum = n * size + size * (size - 1) / 2;

        CHECK_EQ(team_finish(&colls[n]), 0);
        for (int i = 0; n % 5 != 4 && i < 999; i++)
            CHECK(outs[n][i] == sum);
    }
}

static void try_mismatch(int blocks)
{
    struct tri_coll coll = make(TRI_COLL_ALLREDUCE, TROUPE_FLOAT, TROUPE_SUM,
                                test_rank == size - 1 ? 11 : 10, 0, blocks);

    memset(in, 0, 64);
    MUST(ops->start(backend, &coll));
    CHECK_EQ(team_finish(&coll), size > 1 ? TROUPE_EMISMATCH : 0);
    if (size > 1)
        CHECK_EQ(coll.culprit, test_rank == size - 1 ? 0 : size - 1);
    if (size > 1)
        CHECK_EQ((long long)coll.culprit_signature[0],
                 test_rank == size - 1 ? 10 : 11);
}

/* NaN wins, whoever has it. */
static void try_nan(int blocks)
{
    struct tri_coll coll = make(TRI_COLL_ALLREDUCE, TROUPE_DOUBLE, TROUPE_MAX,
                                (size_t)size, 0, blocks);
    double *values = (double *)in, *results = (double *)out;

    for (int i = 0; i < size; i++)
        values[i] = i == test_rank ? __builtin_nan("") : i;
    MUST(ops->start(backend, &coll));
    CHECK_EQ(team_finish(&coll), 0);
    for (int i = 0; i < size; i++)
        CHECK(results[i] != results[i]);
}

static void try_team(int is_elastic, int checks)
{
    MUST(team_open(is_elastic, checks));
    for (int blocks = 0; blocks < 2; blocks++) {
        try_all(blocks);
        try_nan(blocks);
    }
    try_many();
    if (is_elastic || checks) {
        try_mismatch(0);
        try_mismatch(1);
    }
    tri_mpi_count_max = 1000; /* of the blocking calls */
    try_type(TROUPE_DOUBLE, 4321, TROUPE_OP_LAST, 1);
    tri_mpi_count_max = INT32_MAX;
    ops->close(&backend);
}

int main(int argc, char **argv)
{
    int bare = argc > 1 && strcmp(argv[1], "none") == 0, level;
    troupe_options_t options;
    troupe_t *troupe;

    MPI_Init_thread(NULL, NULL,
                    bare ? MPI_THREAD_FUNNELED : MPI_THREAD_MULTIPLE, &level);
    troupe_options_init(&options);
    options.workers = bare ? 0 : 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MUST(troupe_start(&troupe, &options));
    in = malloc((BYTES_MAX + 16) * (size_t)size);
    out = malloc((BYTES_MAX + 16) * (size_t)size);
    if (in == NULL || out == NULL)
        return 77;
    team_make(troupe, size);
    try_team(0, 0);
    try_team(0, 1);
    if (bare) {
        team.is_elastic = true;
        CHECK(!ops->can(&team));
    } else {
        try_team(1, 0);
        MUST(team_open(1, 0)); /* another one, with the next tag */
        try_many();
        ops->close(&backend);
        /* Closed while it is opened: nothing is left behind. */
        team.epoch++;
        MUST(ops->open(&team, &backend));
        ops->close(&backend);
        CHECK(ops->can(&team));
        CHECK(!tri_finalize_is_barred());
    }
    free(in);
    free(out);
    return test_end(troupe);
}
