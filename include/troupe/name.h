/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_NAME_H
#define TROUPE_NAME_H

/*
 * Names: finding actors. An address is one of
 *
 *     actor:///NAME         any instance of the name in the cluster
 *     actor:///NAME@NODE    the one on that node
 *     actor://NODE/NAME     the same
 *     actor://NODE/ID       an actor, named or not
 *
 *     NODE  localhost, rank.N (of this job), a node id of 16 hexadecimal
 *           digits, or a member's name
 *     NAME  1 to 255 of [A-Za-z0-9_.-] and '/'
 *     ID    SLOT.GENERATION of its ref, in decimal (a name of that look is
 *           found under actor:///NAME only)
 */

#include <troupe/message.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of the longest name, and with the zero at its end. */
#define TROUPE_NAME_LEN_MAX 255
#define TROUPE_NAME_BYTES (TROUPE_NAME_LEN_MAX + 1)

/*
 * Says whether a text is an address, and if not, what is wrong where: the
 * first wrong byte's position, and a reason (static text). Either may be NULL;
 * both are written on EADDRESS only.
 * Context: any thread. Blocking: never. Errors: EADDRESS, EINVAL.
 */
int troupe_address_check(const char *address, size_t *position_p,
                         const char **reason_p);

/* Enough for troupe_address_format, with the zero at the end. */
#define TROUPE_ADDRESS_BYTES 48

/*
 * Writes the address of one actor: actor://NODE/ID.
 * Context: any thread. Blocking: never. Errors: EINVAL (bytes is less than
 * TROUPE_ADDRESS_BYTES, or the ref names nobody).
 */
int troupe_address_format(troupe_ref_t ref, char *address_p, size_t bytes);

/*
 * Finds an actor by its address, waiting for the name to appear.
 * protocol: what it must understand; NULL: anything.
 * Context: any thread of the program; in a handler only for names of its own
 * node, and then without waiting (others: ECONTEXT). Blocking: up to timeout_ms.
 * Errors: EADDRESS (the log says what is wrong), ENODE (no such node, or it
 * died), ENONAME (the deadline passed and nobody has it), ETYPE (it speaks
 * another protocol, or another layout of the same one).
 */
int troupe_resolve(troupe_from_t from, const char *address,
                   troupe_protocol_t *protocol, int timeout_ms,
                   troupe_ref_t *ref_p);

#ifdef __cplusplus
}
#endif

#endif
