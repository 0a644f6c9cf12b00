/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CLI_CHILDREN_H
#define TRI_CLI_CHILDREN_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether a process has certainly had no child so far: it has none, and has
 * waited for none. False where /proc does not tell. */
bool children_never(pid_t pid);

#endif
