/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What surrounds collectives, over one back end:
 *
 *   coll_calls BACKEND [fixed|elastic]
 *
 * BACKEND: what the group's option takes, or "choice": two that are chosen by
 * size. Actors are served by who waits, one context issues calls, waits end,
 * so do calls of a group that is closed; calls that differ in anything are
 * errors that name both, on all members.
 */
#include <stdio.h>
#include <unistd.h>

#include "actor/runtime.h"
#include "base/base.h"
#include "lib/plain.h"
#include "tensor/front.h"
#include "test.h"

enum { ASKS = 30, LARGE = 5000, CALLS_MAX = 100000, DECIDED = 20 };

static troupe_t *troupe;
static int members, mine, is_elastic, stderr_fd, soon_ms = TEST_SOON_MS;
static const char *backend;

static const struct tri_backend_ops *const plain_both[TRI_BACKENDS] = {
    [TRI_BACKEND_NATIVE] = &plain_backend,
    [TRI_BACKEND_MPI] = &plain_other_backend,
};

/* --- groups --------------------------------------------------------------- */

static troupe_group_t *group_of(const char *name)
{
    troupe_group_options_t options;
    troupe_group_t *group;

    troupe_group_options_init(&options);
    options.elastic = is_elastic;
    options.check = 1;
    options.backend = backend;
    if (strcmp(backend, "choice") == 0) {
        ((struct tri_runtime *)troupe)->tensor->backends = plain_both;
        options.backend = "auto";
    }
    MUST(troupe_group_create(troupe, name, &options, &group));
    return group;
}

/* A closed group's members have left it, and its view ends. */
static void close_together(troupe_group_t **group_p)
{
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(group_p);
}

/* Until it carries calls of this size, and not by way of trial: after the same
 * number on all members. */
static void until_carried_by(troupe_group_t *group, const char *name,
                             size_t count)
{
    static float in[LARGE], out[LARGE];

    for (int i = 0, alike = 0; i < CALLS_MAX && alike < DECIDED; i++) {
        MUST(troupe_allreduce(group, in, out, count, TROUPE_FLOAT, TROUPE_SUM,
                              soon_ms));
        alike = strcmp(troupe_group_backend(group), name) == 0 ? alike + 1 : 0;
    }
    CHECK(strcmp(troupe_group_backend(group), name) == 0);
}

static void get_ready(troupe_group_t *group)
{
    if (members == 1)
        return;
    if (strcmp(backend, "mpi") == 0)
        until_carried_by(group, "mpi", 8);
    if (strcmp(backend, "choice") == 0) {
        until_carried_by(group, "plain", 8);
        until_carried_by(group, "other", LARGE);
    }
}

/* --- an actor ------------------------------------------------------------- */

#define caller_messages(TELL, ASK)                                            \
    TELL(caller, done, (int64_t n;))                                          \
    ASK(caller, ping, (), (int64_t n;))                                       \
    ASK(caller, begin, (), (int64_t rc;))                                     \
    ASK(caller, end, (), (int64_t rc; int64_t sum;))
TROUPE_PROTOCOL(caller)

struct caller {
    int64_t pings, in, out;
    int rc, is_done, is_asked;
    troupe_token_t asked;
};

static troupe_group_t *actors_group;

static int on_ping(troupe_self_t *self, struct caller *c,
                   const caller_ping_t *m)
{
    (void)m;
    return caller_ping_reply(self, (caller_ping_result_t){ .n = ++c->pings });
}

static int on_begin(troupe_self_t *self, struct caller *c,
                    const caller_begin_t *m)
{
    troupe_collective_t *collective;
    int rc;

    (void)m;
    c->in = 1;
    rc = troupe_allreduce_start(self, actors_group, &c->in, &c->out, 1,
                                TROUPE_INT64, TROUPE_SUM, &collective);
    if (rc == 0) {
        c->is_done = 0;
        rc = troupe_collective_send_when_done(&collective,
                                              troupe_self_ref(self),
                                              caller_done_new(self, 0), &c->rc);
    }
    return caller_begin_reply(self, (caller_begin_result_t){ .rc = rc });
}

static int tell_end(troupe_self_t *self, struct caller *c)
{
    caller_end_result_t result = { .rc = c->rc, .sum = c->out };

    c->is_asked = 0;
    return caller_end_reply_to(self, c->asked, result);
}

static int on_done(troupe_self_t *self, struct caller *c,
                   const caller_done_t *m)
{
    (void)m;
    c->is_done = 1;
    return c->is_asked ? tell_end(self, c) : 0;
}

static int on_end(troupe_self_t *self, struct caller *c, const caller_end_t *m)
{
    (void)m;
    c->asked = troupe_reply_later(self);
    c->is_asked = 1;
    return c->is_done ? tell_end(self, c) : 0;
}

TROUPE_ACTOR(caller, struct caller, .done = on_done, .ping = on_ping,
             .begin = on_begin, .end = on_end)

/* --- served while waiting ------------------------------------------------- */

/* All but the first wait; it asks each before it comes itself. */
static void served(troupe_group_t *group, int64_t *pings)
{
    char address[TEST_ADDRESS_BYTES];
    caller_ping_result_t result;
    caller_ref_t caller;

    for (int to = 1; to < members && mine == 0; to++) {
        MUST(caller_resolve(troupe, test_address(address, to, "caller"),
                            TEST_SOON_MS, &caller));
        for (int i = 1; i <= ASKS; i++) {
            MUST(caller_ping(troupe, caller, (caller_ping_t){},
                             TEST_SOON_MS, &result));
            CHECK_EQ(result.n, *pings + i);
        }
    }
    *pings += ASKS;
    MUST(troupe_barrier(group, soon_ms));
}

/* --- one context at a time ------------------------------------------------ */

/* The first member's actor has a call under way: the others are yet to come. */
static void actor_first(troupe_group_t *group, caller_ref_t caller)
{
    int64_t in = 1, out = 0;
    troupe_collective_t *collective = NULL;
    caller_begin_result_t begun;
    caller_end_result_t ended;

    MUST(caller_begin(troupe, caller, (caller_begin_t){}, TEST_SOON_MS,
                      &begun));
    CHECK_EQ(begun.rc, 0);
    CHECK_EQ(troupe_allreduce(group, &in, &out, 1, TROUPE_INT64, TROUPE_SUM,
                              TEST_SOON_MS),
             TROUPE_EBUSY);
    CHECK_EQ(troupe_barrier_start(troupe, group, &collective), TROUPE_EBUSY);
    CHECK(collective == NULL);
    MPI_Barrier(MPI_COMM_WORLD);
    MUST(caller_end(troupe, caller, (caller_end_t){}, TEST_SOON_MS,
                    &ended));
    CHECK_EQ(ended.rc, 0);
    CHECK_EQ(ended.sum, members);
}

/* Its thread has: then the actor is refused. */
static void thread_first(troupe_group_t *group, caller_ref_t caller)
{
    int64_t in = 1, out = 0;
    troupe_collective_t *collective;
    caller_begin_result_t begun;
    int rc;

    MUST(troupe_allreduce_start(troupe, group, &in, &out, 1, TROUPE_INT64,
                                TROUPE_SUM, &collective));
    CHECK_EQ(troupe_collective_wait(&collective, 1), TROUPE_ETIMEDOUT);
    CHECK(collective != NULL);
    rc = -1;
    CHECK_EQ(troupe_collective_test(&collective, &rc), 0);
    CHECK_EQ(rc, -1);
    MUST(caller_begin(troupe, caller, (caller_begin_t){}, TEST_SOON_MS,
                      &begun));
    CHECK_EQ(begun.rc, TROUPE_EBUSY);
    MPI_Barrier(MPI_COMM_WORLD);
    MUST(troupe_collective_wait(&collective, TEST_SOON_MS));
    CHECK_EQ(out, members);
}

static void one_context(troupe_group_t *group, caller_ref_t caller)
{
    int64_t in = 1, out = 0;

    if (members == 1) /* its calls are done at once */
        return;
    actors_group = group;
    for (int round = 0; round < 2; round++) {
        if (mine == 0) {
            (round == 0 ? actor_first : thread_first)(group, caller);
        } else {
            troupe_collective_t *collective;

            MPI_Barrier(MPI_COMM_WORLD);
            /* as the first member's: not by a blocking call of MPI */
            MUST(troupe_allreduce_start(troupe, group, &in, &out, 1,
                                        TROUPE_INT64, TROUPE_SUM,
                                        &collective));
            MUST(troupe_collective_wait(&collective, TEST_SOON_MS));
            CHECK_EQ(out, members);
        }
    }
    MUST(troupe_barrier(group, soon_ms));
}

/* --- actors alone ---------------------------------------------------------- */

/* What tensors keep for a group ends with it, also when none of its calls was
 * this thread's: later it would be of memory that is freed. */
static void actors_alone(caller_ref_t caller)
{
    const struct tri_tensor *tensor = ((struct tri_runtime *)troupe)->tensor;
    troupe_group_t *group = group_of("alone");
    const troupe_group_t *before = group;
    caller_begin_result_t begun;
    caller_end_result_t ended;

    actors_group = group;
    MUST(caller_begin(troupe, caller, (caller_begin_t){}, TEST_SOON_MS,
                      &begun));
    CHECK_EQ(begun.rc, 0);
    MUST(caller_end(troupe, caller, (caller_end_t){}, TEST_SOON_MS, &ended));
    CHECK_EQ(ended.rc, 0);
    CHECK_EQ(ended.sum, members);
    close_together(&group);
    for (struct tri_front *front = tensor->fronts; front != NULL;
         front = front->next)
        CHECK(front->group != before);
}

/* --- calls that end without a result -------------------------------------- */

/* Of a group that is closed; who owns one learns of it, or is told. */
static void closed(caller_ref_t caller)
{
    troupe_group_t *group = group_of("closed");
    troupe_collective_t *collective;
    caller_begin_result_t begun;
    caller_end_result_t ended;
    int rc = 0;

    MUST(troupe_barrier(group, TEST_SOON_MS));
    if (mine == 0 && members > 1) {
        MUST(troupe_barrier_start(troupe, group, &collective));
        troupe_group_close(&group);
        CHECK_EQ(troupe_collective_test(&collective, &rc), 1);
        CHECK_EQ(rc, TROUPE_ECANCELED);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
    group = group_of("closed2");
    MUST(troupe_barrier(group, TEST_SOON_MS));
    if (mine == 0 && members > 1) {
        actors_group = group;
        MUST(caller_begin(troupe, caller, (caller_begin_t){}, TEST_SOON_MS,
                          &begun));
        CHECK_EQ(begun.rc, 0);
        troupe_group_close(&group);
        MUST(caller_end(troupe, caller, (caller_end_t){}, TEST_SOON_MS,
                        &ended));
        CHECK_EQ(ended.rc, TROUPE_ECANCELED);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
}

/* A deadline that passes is the end of the group's team. (The first calls are
 * native: requests of MPI that are given up would bar its end.) */
static void too_late(void)
{
    troupe_group_t *group = group_of("late");

    if (mine == 0 && members > 1) {
        CHECK_EQ(troupe_barrier(group, 20), TROUPE_ETIMEDOUT);
        CHECK_EQ(troupe_barrier(group, TEST_SOON_MS), TROUPE_ETIMEDOUT);
    }
    close_together(&group);
}

/* --- calls that differ ---------------------------------------------------- */

static float in[LARGE], out[4 * LARGE];

static int sum_of(troupe_group_t *group, size_t count, enum troupe_op op)
{
    return troupe_allreduce(group, in, out, count, TROUPE_FLOAT, op,
                            soon_ms);
}

static int call(troupe_group_t *group, int which, int is_other)
{
    switch (which) {
    case 0: /* count */
        return sum_of(group, is_other ? 7 : 8, TROUPE_SUM);
    case 1: /* operation */
        return sum_of(group, 8, is_other ? TROUPE_MAX : TROUPE_SUM);
    case 2: /* type, of the same size */
        return troupe_allreduce(group, in, out, 8,
                                is_other ? TROUPE_INT32 : TROUPE_FLOAT,
                                TROUPE_SUM, soon_ms);
    case 3: /* kind */
        return is_other ? troupe_barrier(group, soon_ms)
                        : sum_of(group, 8, TROUPE_SUM);
    case 4: /* root; one that sends is through before anybody knows */
        return troupe_bcast(group, in, 8, TROUPE_FLOAT, is_other ? 1 : 0,
                            soon_ms);
    case 5: /* order */
        return is_other ? troupe_bcast(group, in, 8, TROUPE_FLOAT, 0,
                                       soon_ms)
                        : troupe_allgather(group, in, out, 8, TROUPE_FLOAT,
                                           soon_ms);
    default: /* so that other back ends carry it */
        return sum_of(group, is_other ? LARGE : 8, TROUPE_SUM);
    }
}

static const char *const texts[][2] = {
    { "allreduce of 8 float, sum", "allreduce of 7 float, sum" },
    { "allreduce of 8 float, sum", "allreduce of 8 float, max" },
    { "allreduce of 8 float, sum", "allreduce of 8 int32, sum" },
    { "allreduce of 8 float, sum", "barrier" },
    { "bcast of 8 float, root 0", "bcast of 8 float, root 1" },
    { "allgather of 8 float", "bcast of 8 float, root 0" },
    { "allreduce of 8 float, sum", "allreduce of 5000 float, sum" },
};

/* What was logged meanwhile has both, on this member as on all. */
static void check_log(FILE *log, const char *const wanted[2])
{
    static char text[1 << 16];
    size_t bytes;

    fflush(stderr);
    dup2(stderr_fd, STDERR_FILENO);
    rewind(log);
    bytes = fread(text, 1, sizeof(text) - 1, log);
    text[bytes] = '\0';
    fclose(log);
    if (!CHECK(strstr(text, "does not match") != NULL &&
               strstr(text, wanted[0]) != NULL &&
               strstr(text, wanted[1]) != NULL))
        fprintf(stderr, "rank %d: not %s and %s, but: %s\n", test_rank,
                wanted[0], wanted[1], text);
}

static void differs(int which)
{
    troupe_group_t *group;
    char name[24];
    int rc;
    FILE *log = tmpfile();

    if (!CHECK(log != NULL))
        return;
    snprintf(name, sizeof(name), "differs%d", which);
    group = group_of(name);
    get_ready(group);
    fflush(stderr);
    dup2(fileno(log), STDERR_FILENO);
    rc = call(group, which, mine == members - 1);
    if (which != 4 || rc != 0)
        CHECK_EQ(rc, TROUPE_EMISMATCH);
    CHECK_EQ(troupe_barrier(group, soon_ms), TROUPE_EMISMATCH);
    MPI_Barrier(MPI_COMM_WORLD);
    check_log(log, texts[which]);
    close_together(&group);
}

/* --- main ----------------------------------------------------------------- */

int main(int argc, char **argv)
{
    bool is_choice;
    int64_t pings = 0;
    troupe_group_t *group;
    caller_ref_t caller;
    int level;

    backend = argc > 1 ? argv[1] : "native";
    is_elastic = argc <= 2 || strcmp(argv[2], "elastic") == 0;
    is_choice = strcmp(backend, "choice") == 0;
    /* MPI's own blocking calls are used without a deadline alone */
    if (!is_elastic && strcmp(backend, "mpi") == 0)
        soon_ms = TROUPE_FOREVER;
    stderr_fd = dup(STDERR_FILENO);
    plain_slow_bytes = LARGE;
    plain_slow_ns = 5000 * 1000;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &members);
    MUST(troupe_start(&troupe, NULL));
    mine = test_rank;
    MUST(caller_spawn(troupe, "caller", NULL, &caller));
    MPI_Barrier(MPI_COMM_WORLD);
    group = group_of("calls");
    get_ready(group);
    served(group, &pings);
    served(group, &pings);
    one_context(group, caller);
    close_together(&group);
    actors_alone(caller);
    if (soon_ms != TROUPE_FOREVER) { /* MPI's are not abandoned */
        closed(caller);
        too_late();
    }
    for (int i = 0; i < (int)tri_array_len(texts) && members > 1; i++)
        if (!is_choice || i == 0 || i == 6)
            differs(i);
    return test_end(troupe);
}
