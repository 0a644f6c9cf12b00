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
 * Finds an actor by its address, waiting for the name to appear. Every node
 * knows all names: a name is known everywhere some milliseconds after its actor
 * was spawned, and forgotten as soon after its end; those of a node that died
 * go with it. Only a thread that names a node asks that one.
 * protocol: what it must understand; NULL: anything.
 * Context: any thread of the program, or an actor; a handler does not wait.
 * Blocking: up to timeout_ms; 0: option ask_timeout_ms.
 * Errors: EADDRESS (the log says what is wrong), ENODE (no such node, or it
 * died), ENONAME (the deadline passed and nobody has it), ENOACTOR (an id of
 * this node that nobody has), ETYPE (it speaks another protocol, or another
 * layout of the same one), EINVAL.
 */
int troupe_resolve(troupe_from_t from, const char *address,
                   troupe_protocol_t *protocol, int timeout_ms,
                   troupe_ref_t *ref_p);

/* Which of several instances. Those of suspected nodes come last. */
enum troupe_resolve_policy {
    TROUPE_RESOLVE_LOCAL_FIRST, /* of this node, else of this host, else any;
                                   of several at random */
    TROUPE_RESOLVE_ROUND_ROBIN, /* one after the other, on this node's turns */
    TROUPE_RESOLVE_RANDOM,
    TROUPE_RESOLVE_TWO_CHOICES, /* of two at random the one whose node says that
                                   it has less to do */
    TROUPE_RESOLVE_HASH,        /* by the key: the same one for the same key, on
                                   all nodes; an instance that comes or goes
                                   moves only its own share of the keys */
};

typedef struct troupe_resolve_options {
    uint32_t policy; /* enum troupe_resolve_policy */
    uint32_t reserved;
    const void *key; /* HASH */
    size_t key_bytes;
} troupe_resolve_options_t;

/*
 * troupe_resolve with a policy for addresses without a node. options: NULL:
 * TROUPE_RESOLVE_LOCAL_FIRST. Context, Blocking, Errors: as troupe_resolve.
 */
int troupe_resolve_with(troupe_from_t from, const char *address,
                        troupe_protocol_t *protocol,
                        const troupe_resolve_options_t *options,
                        int timeout_ms, troupe_ref_t *ref_p);

/* Bytes of the longest tags of a name: text of the program's choice. */
#define TROUPE_NAME_TAGS_MAX 255

/* One instance of a name. */
typedef struct troupe_name {
    troupe_ref_t ref; /* its node owns the name */
    uint32_t unique;  /* enum troupe_unique */
    uint32_t suspect; /* 1: its node is suspected */
    char name[TROUPE_NAME_BYTES];
    char tags[TROUPE_NAME_TAGS_MAX + 1];
} troupe_name_t;

/*
 * Lists the instances of all names that begin with prefix (NULL: all names),
 * in the order of their names. Fills in at most list_len_max, of more some;
 * returns how many there are.
 * Context: any thread or actor. Blocking: never. It looks at all names.
 */
size_t troupe_names_list(troupe_from_t from, const char *prefix,
                         troupe_name_t *list, size_t list_len_max);

enum troupe_name_what {
    TROUPE_NAME_ADDED = 1,
    TROUPE_NAME_REMOVED, /* withdrawn, or its node died or left */
    TROUPE_NAME_LOST, /* the actor's own: an earlier holder of a unique name was
                         found. It goes on without the name */
};

/* What on_name is told. */
struct troupe_name_event {
    uint32_t what;  /* enum troupe_name_what */
    uint32_t watch; /* which one; 0: LOST */
    troupe_ref_t ref;
    uint32_t unique;
    uint32_t reserved;
    char name[TROUPE_NAME_BYTES];
    char tags[TROUPE_NAME_TAGS_MAX + 1];
};

/*
 * Has the running actor's on_name told of all names that begin with prefix
 * (NULL: all names): first those that are there, then each change, in order,
 * until it ends or calls unwatch. LOST is told without a watch. Of a unique
 * name that two took at the same moment watchers may hear ADDED for both, and
 * REMOVED for the one that lost it.
 * Context: actor only. Blocking: never. Errors: ELIMIT, ENOMEM, EINVAL.
 */
int troupe_names_watch(troupe_self_t *self, const char *prefix,
                       uint32_t *watch_p);
void troupe_names_unwatch(troupe_self_t *self, uint32_t watch);

#ifdef __cplusplus
}
#endif

#endif
