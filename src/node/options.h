/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_OPTIONS_H
#define TRI_OPTIONS_H

#include <troupe/node.h>

/*
 * Overwrites options with what the environment says and checks all of them;
 * strings become copies.
 * Errors: EOPTION (logged with name, value and what is allowed), ENOMEM.
 */
int tri_options_resolve(troupe_options_t *options);

/* Frees the strings of resolved options. */
void tri_options_fini(troupe_options_t *options);

#endif
