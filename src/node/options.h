/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_OPTIONS_H
#define TRI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <troupe/node.h>

/*
 * Overwrites options with what the environment says and checks all of them;
 * strings become copies.
 * Errors: EOPTION (logged with name, value and what is allowed), ENOMEM.
 */
int tri_options_resolve(troupe_options_t *options);

/* "first-last", 1 to 65535 both, in this order; NULL: any port, 0 and 0.
 * False: not a range. */
bool tri_options_ports(const char *text, uint16_t *first_p, uint16_t *last_p);

/* Whether MPI may be used, by option mpi; to be known before the others are
 * resolved. options: NULL for the defaults. */
bool tri_options_want_mpi(const troupe_options_t *options);

/* Frees the strings of resolved options. */
void tri_options_fini(troupe_options_t *options);

#endif
