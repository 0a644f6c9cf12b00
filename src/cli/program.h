/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CLI_PROGRAM_H
#define TRI_CLI_PROGRAM_H

/* What Open MPI's mpirun is asked to run, before it is started: of a program
 * that is not there it says nothing under --enable-recovery. */

/*
 * Its arguments, one program or several with ':' in between. 0, or as shells
 * have it CLI_NOT_FOUND or CLI_NOT_EXECUTABLE, with the program as it was
 * named. 0 also where it cannot be told: other machines may be meant, or other
 * places, or an option is not known here.
 */
int program_check(int argc, char **argv, const char **program_p);

#endif
