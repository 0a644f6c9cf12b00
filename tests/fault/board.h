/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FAULT_BOARD_H
#define TESTS_FAULT_BOARD_H

/*
 * Memory that all ranks of a job map, also on the hosts of tests/lib/hosts:
 * what is written there is known of the dead, too, and across a cut.
 */

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../mpi/test.h"

/* All zero. A file without a name, of rank 0, which the others open through
 * /proc: all hosts have the same. By all ranks together. */
static inline void *board_open(const char *name, size_t bytes)
{
    int ids[2] = { getpid(), -1 };
    char path[64];
    void *board;
    int fd;

    if (test_rank == 0) {
        ids[1] = memfd_create(name, 0);
        if (ids[1] < 0 || ftruncate(ids[1], (off_t)bytes) != 0)
            MUST(TROUPE_ESYSTEM);
    }
    MPI_Bcast(ids, 2, MPI_INT, 0, MPI_COMM_WORLD);
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", ids[0], ids[1]);
    fd = open(path, O_RDWR);
    board = fd < 0 ? MAP_FAILED
                   : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                          0);
    if (board == MAP_FAILED)
        MUST(TROUPE_ESYSTEM);
    close(fd);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        close(ids[1]);
    return board;
}

/* Serves, a millisecond a turn, until the counter has come so far; it has to
 * within so many turns. */
static inline void board_await(troupe_t *troupe, _Atomic int *counter,
                               int wanted, int turns)
{
    for (int i = 0; i < turns && atomic_load(counter) < wanted; i++)
        (void)troupe_serve(troupe, 1);
    CHECK(atomic_load(counter) >= wanted);
}

#endif
