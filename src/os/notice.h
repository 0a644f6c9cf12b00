/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_NOTICE_H
#define TRI_NOTICE_H

#include <stdint.h>

/*
 * SIGTERM and SIGUSR1 as notices that this process is to go. The handler counts
 * them, and calls that of the program, if it had one. Installed with the first
 * tri_notice_hold, given back with the last tri_notice_release, unless the
 * program has put its own there meanwhile; but SIGUSR1 only to a program that
 * had a handler: it would end others, and is counted on instead.
 * heard_p: tri_notices at the last of the releases before, what more there is
 * is news.
 * Context: the thread that started the node. Errors: ESYSTEM.
 */
int tri_notice_hold(uint32_t *heard_p);
void tri_notice_release(void);

/* How many have come. Any thread. */
uint32_t tri_notices(void);

#endif
