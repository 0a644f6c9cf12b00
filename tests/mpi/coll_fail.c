/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One member alone cannot go on: its back end fails when it opens, starts a
 * call or moves it on, or a record for it found no room. The calls of all end
 * with its error, soon, whether they were begun before or after, by whoever.
 *
 *   coll_fail fixed|elastic
 */
#include "actor/runtime.h"
#include "base/base.h"
#include "lib/plain.h"
#include "tensor/front.h"
#include "test.h"

enum { LATER = 3 };

enum where { NOWHERE, OPENING, STARTING, MOVING, LOSING };

static troupe_t *troupe;
static int members, is_elastic;

/* --- a back end that fails here ------------------------------------------- */

static enum where armed;
static int error;

static int open_progress(struct tri_backend *backend)
{
    return armed == OPENING ? error : plain_backend.open_progress(backend);
}

static int start(struct tri_backend *backend, struct tri_coll *coll)
{
    return armed == STARTING ? error : plain_backend.start(backend, coll);
}

static int progress(struct tri_backend *backend, struct tri_coll *coll)
{
    if (armed != MOVING)
        return plain_backend.progress(backend, coll);
    plain_backend.cancel(backend, coll);
    return error;
}

static struct tri_backend_ops failing;
static const struct tri_backend_ops *const backends[TRI_BACKENDS] = {
    [TRI_BACKEND_NATIVE] = &failing,
};

static void install(void)
{
    failing = plain_backend;
    failing.open_progress = open_progress;
    failing.start = start;
    failing.progress = progress;
    ((struct tri_runtime *)troupe)->tensor->backends = backends;
}

/* As if a record of this epoch had been lost. */
static void lose(troupe_group_t *group)
{
    struct tri_front *front = *tri_view_tensor(group);

    atomic_store(&front->lost_epoch, tri_view_adopted(group)->epoch);
}

/* --- what the others see -------------------------------------------------- */

static void fails(enum where where, int who, int with)
{
    int64_t in = 1, sums[LATER] = { 0 };
    troupe_collective_t *calls[LATER] = { NULL };
    troupe_group_options_t options;
    troupe_group_t *group;
    char name[32];

    snprintf(name, sizeof(name), "fails-%d-%d", where, who);
    troupe_group_options_init(&options);
    options.elastic = is_elastic;
    options.backend = "native";
    MUST(troupe_group_create(troupe, name, &options, &group));
    error = with;
    if (where != OPENING) {
        MUST(troupe_barrier(group, TEST_SOON_MS));
        MUST(troupe_barrier(group, TEST_SOON_MS));
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == who) {
        armed = where;
        if (where == LOSING)
            lose(group);
    }
    for (int i = 0; i < LATER; i++) {
        int rc = troupe_allreduce_start(troupe, group, &in, &sums[i], 1,
                                        TROUPE_INT64, TROUPE_SUM, &calls[i]);

        if (rc != 0)
            CHECK_EQ(rc, with);
    }
    for (int i = 0; i < LATER; i++)
        if (calls[i] != NULL)
            CHECK_EQ(troupe_collective_wait(&calls[i], TEST_SOON_MS), with);
    CHECK_EQ(troupe_barrier(group, TEST_SOON_MS), with);
    armed = NOWHERE;
    /* who closes leaves, and ends the others' calls */
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
}

int main(int argc, char **argv)
{
    is_elastic = argc > 1 && strcmp(argv[1], "elastic") == 0;
    troupe = test_start(&members, NULL);
    install();
    for (int who = 0; who < members; who++) {
        fails(OPENING, who, TROUPE_ESYSTEM);
        fails(STARTING, who, TROUPE_ENOMEM);
        fails(MOVING, who, TROUPE_EMPI);
        fails(LOSING, who, TROUPE_ENOMEM);
    }
    return test_end(troupe);
}
