/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FAULT_LEAVE_H
#define TESTS_FAULT_LEAVE_H

/*
 * How a rank ends after a death: MPI_Finalize may hang, so nobody calls it.
 * mpirun reports success whatever happened, so a rank that failed ends it;
 * tests/lib/hosts looks at each rank's status instead.
 */

#include <signal.h>
#include <unistd.h>

#include "../mpi/test.h"

static inline void leave(void)
{
    printf("rank %d: %s\n", test_rank, test_failures ? "FAILED" : "ok");
    fflush(NULL);
    if (test_failures && getenv("TEST_HOSTS_DIR") == NULL)
        kill(getppid(), SIGTERM);
    _exit(test_status());
}

/* For on_exit, in tests that end with MPI_Finalize as others do. */
static inline void leave_failed_status(int status, void *unused)
{
    (void)unused;
    if (status != EXIT_SUCCESS)
        kill(getppid(), SIGTERM);
}

/* For atexit: a failed MUST. */
static inline void leave_failed(void)
{
    test_failures++;
    leave();
}

#endif
