/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SIGNALS_H
#define TRI_SIGNALS_H

/* What a process does on signals, as far as the library must mend it. */

/*
 * Gives SIGINT, SIGILL, SIGABRT, SIGBUS, SIGSEGV and SIGTERM back to the
 * system where a library that libfabric links (libinfinipath, libpsm2) took
 * them before main: with their handlers a crash ends as exit status 1 and
 * nobody sees that it was one. Handlers of anybody else are left alone.
 * Context: at start-up. Blocking: never.
 */
void tri_signals_undo_foreign(void);

/*
 * Ignores SIGPIPE unless the program handles it: a peer that closes its
 * connection is an error code, not the end of this process.
 * Context: at start-up. Blocking: never.
 */
void tri_signals_ignore_pipe(void);

#endif
