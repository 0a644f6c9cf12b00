/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_NODE_ADDRESS_H
#define TRI_NODE_ADDRESS_H

/* Addresses as users write them: actor://rank.N/name, actor://localhost/name */

#include "base/base.h"

/*
 * Splits an address into a rank (-1: this node) and a name, which points into
 * the address. Errors: EADDRESS.
 */
int tri_address_parse(const char *address, int *rank_p, const char **name_p,
                      size_t *name_len_p);

#endif
