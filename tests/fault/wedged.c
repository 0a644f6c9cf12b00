/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The last rank dies, and the others go into a blocking collective of MPI that
 * needs it: Open MPI never returns from that. The watchdog ends them, with its
 * own status and words that name the dead one and the call.
 */
#include "../mpi/team.h"
#include "supervise.h"

enum { WATCHDOG_MS = 500, TEXT_BYTES = 1 << 16 };

/* Does not return, unless something is wrong. */
static int rank(void)
{
    float in = 1, out;
    struct tri_coll coll = {
        .team = &team,
        .kind = TRI_COLL_ALLREDUCE,
        .type = TROUPE_FLOAT,
        .op = TROUPE_SUM,
        .count = 1,
        .in = &in,
        .out = &out,
        .is_blocking = true,
    };
    troupe_options_t options;
    troupe_t *troupe;
    int size;

    troupe_options_init(&options);
    options.mpi_watchdog_ms = WATCHDOG_MS;
    options.workers = 1; /* who finds out about the death meanwhile */
    troupe = test_start_at(MPI_THREAD_MULTIPLE, &size, &options);
    team_make(troupe, size);
    MUST(team_open(0, 0));
    if (test_rank == size - 1)
        kill(getpid(), SIGKILL);
    tri_coll_sign(&coll);
    MUST(ops->start(backend, &coll));
    CHECK(!"MPI_Allreduce without one of its members returns");
    return test_status();
}

static int says(const char *text, const char *words)
{
    if (strstr(text, words) != NULL)
        return 1;
    fprintf(stderr, "not said: %s\n", words);
    return 0;
}

int main(void)
{
    static char text[TEXT_BYTES];
    int status = supervise(rank, text, sizeof(text));

    if (was_killed(status))
        kill(getpid(), SIGKILL); /* what mpirun is to see */
    if (has_ended_with(status, TROUPE_EXIT_WEDGED) &&
        says(text, "rank 2 (node ") && says(text, "has died") &&
        says(text, "MPI_Allreduce of this rank did not return for 500 ms") &&
        says(text, "status 86"))
        return supervise_end(1);
    fprintf(stderr, "a rank ended with %#x\n", (unsigned)status);
    return supervise_end(0);
}
