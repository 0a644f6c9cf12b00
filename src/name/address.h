/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_NAME_ADDRESS_H
#define TRI_NAME_ADDRESS_H

/*
 * Addresses of actors as users write them. One parser for all forms:
 *
 *     actor:///NAME         any instance of the name in the cluster
 *     actor:///NAME@NODE    the one on that node
 *     actor://NODE/NAME     the same
 *     actor://NODE/ID       an actor, named or not
 *
 *     NODE  localhost, rank.N, a node id of 16 hexadecimal digits, or a
 *           member's name: 1 to 63 of [A-Za-z0-9_.-]. What looks like one of
 *           the first three is never a member's name.
 *     NAME  see tri_name_check
 *     ID    SLOT.GENERATION, in decimal. A name of that look is found under
 *           actor:///NAME only.
 */

#include <troupe/member.h>

#include "base/base.h"

enum tri_place {
    TRI_PLACE_ANY,
    TRI_PLACE_LOCAL,
    TRI_PLACE_RANK,
    TRI_PLACE_NODE,
    TRI_PLACE_MEMBER,
};

struct tri_actor_address {
    enum tri_place place;
    int rank;           /* RANK */
    uint64_t node;      /* NODE; not 0 */
    const char *member; /* MEMBER; in the address, member_len bytes */
    size_t member_len;
    const char *name;   /* NULL: an id; in the address, name_len bytes */
    size_t name_len;
    uint32_t slot;      /* of the id */
    uint32_t generation;
};

/* Why an address is none. */
struct tri_address_fault {
    size_t position;    /* of the first byte that is wrong; may be its end */
    const char *reason; /* static: what belongs there */
};

/*
 * Takes an address apart. address_p points into it. fault_p is written on
 * error only. Errors: EADDRESS.
 */
int tri_actor_address_parse(const char *text,
                            struct tri_actor_address *address_p,
                            struct tri_address_fault *fault_p);

#endif
