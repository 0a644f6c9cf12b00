/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * MPI's non-blocking collectives on buffers, when something fails: there is no
 * memory for a piece, or MPI says so. MPI and memory are made up here, so that
 * they fail where it is wanted; the code is that of the library.
 */
#include "unit.h"

#include <mpi.h>

#include "mpi/job_mpi.h"
#include "tensor/mpi/backend.h"

static void *fake_malloc(size_t bytes);
static int fake_test(MPI_Request *request, int *done_p, MPI_Status *status);
static int fake_iallgather(const void *, int, MPI_Datatype, void *, int,
                           MPI_Datatype, MPI_Comm, MPI_Request *);
static int fake_call(const struct tri_coll *, const struct tri_mpi_shape *,
                     const struct tri_mpi_piece *, MPI_Comm, MPI_Request *);
static void fake_bury(MPI_Request, void *, void *);
static int fake_failed(const char *, int);
static int fake_shape_of(const struct tri_coll *, struct tri_mpi_shape *);

#undef fail /* cmocka's */
#define malloc fake_malloc
#undef MPI_Test
#define MPI_Test fake_test
#undef MPI_Iallgather
#define MPI_Iallgather fake_iallgather
#define tri_mpi_piece_call fake_call
#define tri_mpi_bury_request fake_bury
#define tri_mpi_failed fake_failed
#define tri_mpi_shape_of fake_shape_of
/* other names than the library's */
#define tri_mpi_stage_open stage_open
#define tri_mpi_stage_close stage_close
#define tri_mpi_stage_add stage_add
#define tri_mpi_stage_progress stage_progress
#define tri_mpi_stage_cancel stage_cancel
#define tri_mpi_stage_issue_all stage_issue_all
#define tri_mpi_compare stage_compare

int stage_open(struct tri_backend *);
void stage_close(struct tri_backend *);
int stage_add(struct tri_backend *, struct tri_coll *);
int stage_progress(struct tri_backend *, struct tri_coll *);
void stage_cancel(struct tri_backend *, struct tri_coll *);
int stage_issue_all(struct tri_backend *);
int stage_compare(struct tri_coll *, const uint64_t (*)[2]);

#include "tensor/mpi/staged.c"

#undef malloc

enum { MEMBERS = 2, COUNT = 3 << 20 }; /* bytes: three pieces */

static struct tri_team team;
static struct tri_view_member members[MEMBERS];
static struct tri_backend backend;
static char in[COUNT], out[COUNT];

/* What is made up. */
static int mallocs_left; /* negative: always */
static int test_rc;      /* what the next test says */
static bool test_ends;   /* ... and then the request is no more */
static bool is_done_now;
static uint32_t calls_len, buried_len;

static void *fake_malloc(size_t bytes)
{
    if (mallocs_left == 0)
        return NULL;
    if (mallocs_left > 0)
        mallocs_left--;
    return malloc(bytes);
}

/* A handle that is not null; nobody looks into it. */
static MPI_Request any_request(void)
{
    MPI_Request request;

    memset(&request, 0x11, sizeof(request));
    assert_true(request != MPI_REQUEST_NULL);
    return request;
}

static int fake_test(MPI_Request *request, int *done_p, MPI_Status *status)
{
    int rc = test_rc;

    (void)status;
    assert_true(*request != MPI_REQUEST_NULL);
    *done_p = rc == MPI_SUCCESS && is_done_now;
    if (*done_p || (rc != MPI_SUCCESS && test_ends))
        *request = MPI_REQUEST_NULL;
    test_rc = MPI_SUCCESS;
    return rc;
}

static int fake_iallgather(const void *from, int len, MPI_Datatype type,
                           void *to, int to_len, MPI_Datatype to_type,
                           MPI_Comm comm, MPI_Request *request)
{
    (void)type;
    (void)to_type;
    (void)comm;
    assert_int_equal(len, to_len);
    for (int i = 0; i < MEMBERS; i++)
        memcpy((char *)to + i * 16, from, 16);
    *request = any_request();
    return MPI_SUCCESS;
}

static int fake_call(const struct tri_coll *coll,
                     const struct tri_mpi_shape *shape,
                     const struct tri_mpi_piece *piece, MPI_Comm comm,
                     MPI_Request *request)
{
    (void)coll;
    (void)shape;
    (void)comm;
    memset(piece->in, 1, piece->len); /* its buffers are there */
    memset(piece->out, 2, piece->len);
    calls_len++;
    *request = any_request();
    return MPI_SUCCESS;
}

static void fake_bury(MPI_Request request, void *memory, void *memory2)
{
    assert_true(request != MPI_REQUEST_NULL);
    buried_len++;
    free(memory);
    free(memory2);
}

static int fake_failed(const char *call, int rc)
{
    (void)call;
    assert_int_not_equal(rc, MPI_SUCCESS);
    return TROUPE_EMPI;
}

static int fake_shape_of(const struct tri_coll *coll,
                         struct tri_mpi_shape *shape_p)
{
    (void)coll;
    *shape_p = (struct tri_mpi_shape){ .bytes = 1, .user_bytes = 1 };
    return 0;
}

/* --- fixture -------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    team = (struct tri_team){ .len = MEMBERS, .members = members };
    memset(&backend, 0, sizeof(backend));
    backend.team = &team;
    mallocs_left = -1;
    test_rc = MPI_SUCCESS;
    test_ends = is_done_now = false;
    calls_len = buried_len = 0;
    assert_int_equal(stage_open(&backend), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stage_close(&backend);
    return 0;
}

static struct tri_coll any_coll(size_t count)
{
    struct tri_coll coll = { .team = &team,
                             .kind = TRI_COLL_ALLREDUCE,
                             .type = TROUPE_BYTE,
                             .count = count,
                             .in = in,
                             .out = out };

    tri_coll_sign(&coll);
    return coll;
}

/* --- tests ---------------------------------------------------------------- */

static void test_all_is_well(void **state)
{
    struct tri_coll coll = any_coll(COUNT);

    (void)state;
    backend.checks = true;
    assert_int_equal(stage_add(&backend, &coll), 0);
    assert_int_equal(stage_progress(&backend, &coll), TRI_COLL_PENDING);
    assert_int_equal(calls_len, 0);
    is_done_now = true;
    while (stage_progress(&backend, &coll) == TRI_COLL_PENDING)
        ;
    assert_null(coll.state);
    assert_int_equal(out[COUNT - 1], 2);
    assert_int_equal(calls_len, 3);
    assert_int_equal(buried_len, 0);
}

/* Who waits for memory while nothing is under way waits for ever. */
static void test_no_memory_at_all(void **state)
{
    for (int first = 0; first < 2; first++) { /* none, or half of it */
        struct tri_coll coll = any_coll(COUNT), next = any_coll(1);

        setup(state);
        mallocs_left = first;
        assert_int_equal(stage_add(&backend, &coll), 0);
        assert_int_equal(stage_add(&backend, &next), 0);
        assert_int_equal(stage_progress(&backend, &coll), TROUPE_ENOMEM);
        assert_null(coll.state);
        assert_int_equal(stage_progress(&backend, &next), TROUPE_ENOMEM);
        assert_int_equal(backend.failed, TROUPE_ENOMEM);
        assert_int_equal(calls_len + buried_len, 0);
        teardown(state);
    }
}

/* What there is goes round. */
static void test_memory_for_one_piece(void **state)
{
    struct tri_coll coll = any_coll(COUNT);

    (void)state;
    mallocs_left = 3; /* one buffer is of a slot that has no other */
    assert_int_equal(stage_add(&backend, &coll), 0);
    assert_int_equal(stage_progress(&backend, &coll), TRI_COLL_PENDING);
    assert_int_equal(calls_len, 1);
    assert_int_equal(stage_progress(&backend, &coll), TRI_COLL_PENDING);
    assert_int_equal(calls_len, 1);
    is_done_now = true;
    while (stage_progress(&backend, &coll) == TRI_COLL_PENDING)
        ;
    assert_int_equal(calls_len, 3);
    assert_int_equal(buried_len, 0);
    assert_int_equal(backend.failed, 0);
}

/* Of a request that may go on MPI keeps the memory. */
static void test_a_piece_that_fails(void **state)
{
    for (int ends = 0; ends < 2; ends++) {
        struct tri_coll coll = any_coll(COUNT), next = any_coll(1);

        setup(state);
        assert_int_equal(stage_add(&backend, &coll), 0);
        assert_int_equal(stage_progress(&backend, &coll), TRI_COLL_PENDING);
        assert_int_equal(calls_len, 3);
        test_rc = MPI_ERR_OTHER;
        test_ends = ends;
        assert_int_equal(stage_add(&backend, &next), 0);
        /* the other pieces may stay under way for ever */
        assert_int_equal(stage_progress(&backend, &coll), TROUPE_EMPI);
        assert_null(coll.state);
        assert_int_equal(buried_len, 3 - ends);
        assert_int_equal(backend.failed, TROUPE_EMPI);
        assert_int_equal(stage_progress(&backend, &next), TROUPE_EMPI);
        assert_int_equal(calls_len, 3);
        teardown(state);
    }
}

static void test_a_check_that_fails(void **state)
{
    for (int ends = 0; ends < 2; ends++) {
        struct tri_coll coll = any_coll(COUNT);

        setup(state);
        backend.checks = true;
        test_rc = MPI_ERR_OTHER;
        test_ends = ends;
        assert_int_equal(stage_add(&backend, &coll), 0);
        assert_int_equal(stage_progress(&backend, &coll), TROUPE_EMPI);
        assert_null(coll.state);
        assert_int_equal(buried_len, 1 - ends);
        teardown(state);
    }
}

static void test_cancelled(void **state)
{
    struct tri_coll coll = any_coll(COUNT);

    (void)state;
    assert_int_equal(stage_add(&backend, &coll), 0);
    assert_int_equal(stage_progress(&backend, &coll), TRI_COLL_PENDING);
    stage_cancel(&backend, &coll);
    assert_null(coll.state);
    assert_int_equal(buried_len, 3);
    assert_int_equal(backend.failed, TROUPE_EVIEW);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_all_is_well),
        cmocka_unit_test(test_no_memory_at_all),
        TEST(test_memory_for_one_piece),
        cmocka_unit_test(test_a_piece_that_fails),
        cmocka_unit_test(test_a_check_that_fails),
        TEST(test_cancelled),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
