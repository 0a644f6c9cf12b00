/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The end of a job that has lost ranks: its program calls MPI_Init and
 * MPI_Finalize itself, ranks are killed, and all others are through
 * MPI_Finalize soon and end with the status that their main returns.
 *
 *   finalize [stopped|running] [DEAD]
 *
 * running: troupe_stop is not called. DEAD: how many ranks are killed (1).
 *
 * Each rank is a child of the process that mpirun started, which sees how it
 * ends: mpirun under recovery reports success whatever happens.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../mpi/test.h"

enum {
    ENDED = 17,       /* what survivors' main returns */
    PROMPT_MS = 20000, /* from MPI_Init on, on a busy machine */
    LOOK_MS = 5,
};

static int dead_ranks = 1, runs_to_end;

/* Of the others one may have ended already, which without troupe_stop is a
 * death as well. */
static int all_dead(troupe_t *troupe, int size)
{
    int dead = 0;

    for (int i = size - dead_ranks; i < size; i++)
        dead += troupe_rank_alive(troupe, i) == 0;
    return dead == dead_ranks;
}

/* The last ranks die, each by its own hand, which is as sudden as any other. */
static int survive(void)
{
    double end;
    int size, finalized = 0;
    troupe_t *troupe = test_start(&size, NULL);

    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank >= size - dead_ranks)
        kill(getpid(), SIGKILL);
    end = test_now_ms() + PROMPT_MS;
    while (!all_dead(troupe, size) && test_now_ms() < end)
        troupe_serve(troupe, LOOK_MS);
    CHECK(all_dead(troupe, size));
    if (!runs_to_end)
        MUST(troupe_stop(&troupe));
    CHECK_EQ(MPI_Finalize(), MPI_SUCCESS);
    /* None of it was finalized: that could have hung. */
    MPI_Finalized(&finalized);
    CHECK_EQ(finalized, 0);
    return test_status() == EXIT_SUCCESS ? ENDED : EXIT_FAILURE;
}

/* How the rank ended: as of waitpid; -1: not in time. */
static int watch(pid_t rank)
{
    double end = test_now_ms() + 2 * PROMPT_MS;
    int status;

    while (waitpid(rank, &status, WNOHANG) == 0) {
        if (test_now_ms() > end) {
            kill(rank, SIGKILL);
            return -1;
        }
        usleep(LOOK_MS * 1000);
    }
    return status;
}

int main(int argc, char **argv)
{
    pid_t rank;
    int status;

    runs_to_end = argc > 1 && strcmp(argv[1], "running") == 0;
    if (argc > 2)
        dead_ranks = atoi(argv[2]);
    rank = fork();
    if (rank == 0)
        return survive();
    status = watch(rank);
    if (status != -1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        kill(getpid(), SIGKILL); /* what mpirun is to see */
    if (status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == ENDED)
        return EXIT_SUCCESS;
    fprintf(stderr, "a rank ended with %d, not %d\n",
            status == -1 ? -1 : WEXITSTATUS(status), ENDED);
    kill(getppid(), SIGTERM);
    return EXIT_FAILURE;
}
