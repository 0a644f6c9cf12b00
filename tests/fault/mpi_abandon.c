/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests of MPI that are given up: what the other member sends for them
 * afterwards is never seen in the user's memory, and when a few have been given
 * up no elastic group uses MPI any more, on any member that gave some up.
 */
#include "../mpi/team.h"
#include "leave.h"

enum { FLOATS = 1 << 20, ROUNDS_MAX = 64, CANARY = 0x5a };

static float *in, *out;

static struct tri_coll sum(void)
{
    struct tri_coll coll = {
        .team = &team,
        .kind = TRI_COLL_ALLREDUCE,
        .type = TROUPE_FLOAT,
        .op = TROUPE_SUM,
        .count = FLOATS,
        .in = in,
        .out = out,
    };

    tri_coll_sign(&coll);
    return coll;
}

/* MPI gets on with what it has, until all ranks have had their say. */
static void stir(void)
{
    for (int i = 0; i < 3; i++)
        MPI_Barrier(MPI_COMM_WORLD);
}

static void give_up(void)
{
    struct tri_coll coll = sum();

    MUST(ops->start(backend, &coll));
    for (int i = 0; i < 3; i++)
        CHECK_EQ(ops->progress(backend, &coll), TRI_COLL_PENDING);
    ops->cancel(backend, &coll);
    memset(out, CANARY, FLOATS * sizeof(*out));
    memset(in, 0, FLOATS * sizeof(*in));
}

/* Rank 0 gives up what rank 1 only then takes part in; and gives up in turn. */
static void one_round(void)
{
    if (test_rank == 0)
        give_up();
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 1) {
        struct tri_coll coll = sum();

        MUST(ops->start(backend, &coll));
        for (int i = 0; i < 1000; i++)
            if (ops->progress(backend, &coll) != TRI_COLL_PENDING)
                break;
        if (coll.state != NULL)
            ops->cancel(backend, &coll);
    }
    stir();
    for (size_t i = 0; test_rank == 0 && i < FLOATS * sizeof(*out); i++)
        if (((unsigned char *)out)[i] != CANARY) {
            CHECK(!"a late write");
            break;
        }
    ops->close(&backend);
}

int main(void)
{
    int size, all_can = 1, rounds = 0;
    troupe_t *troupe;

    troupe = test_start_at(MPI_THREAD_MULTIPLE, &size, NULL);
    atexit(leave_failed);
    CHECK_EQ(size, 2);
    in = calloc(FLOATS, sizeof(*in));
    out = calloc(FLOATS, sizeof(*out));
    team_make(troupe, size);
    while (all_can && rounds < ROUNDS_MAX) {
        int can;

        MUST(team_open(1, 0));
        backend->checks = false; /* the pieces are given up, not their check */
        one_round();
        rounds++;
        can = ops->can(&team);
        MPI_Allreduce(&can, &all_can, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    }
    /* A few requests a round. */
    CHECK(rounds >= 2 && rounds <= 40);
    /* The other one's calls may all have ended before they were given up. */
    if (test_rank == 0) {
        printf("no MPI after %d calls that were given up\n", rounds);
        CHECK(!ops->can(&team));
        CHECK(tri_finalize_is_barred());
    }
    /* A fixed group has no other way. */
    team.is_elastic = false;
    CHECK(ops->can(&team));
    MUST(troupe_stop(&troupe));
    leave();
}
