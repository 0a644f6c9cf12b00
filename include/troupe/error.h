/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_ERROR_H
#define TROUPE_ERROR_H

/*
 * Every troupe call that can fail returns 0 or one of these negative codes.
 * Codes of MPI, libfabric and the operating system are translated where they
 * occur and logged there; they never leak. An actor may use codes of its own
 * below TROUPE_E_USER in replies: they travel unchanged.
 *
 * One table: name, value, text.
 */
#define TROUPE_ERRORS(X)                                                      \
    X(TROUPE_EINVAL, -1, "an argument is not valid")                          \
    X(TROUPE_ENOMEM, -2, "memory is exhausted or its limit is reached")       \
    X(TROUPE_EFULL, -3, "the receiver's mailbox or the way to it is full")    \
    X(TROUPE_ENOACTOR, -4, "no such actor: stopped, failed or never there")   \
    X(TROUPE_ETYPE, -5, "the receiver does not know this message type")       \
    X(TROUPE_ETOOBIG, -6, "the message is larger than message_bytes_max")     \
    X(TROUPE_ETIMEDOUT, -7, "the deadline passed")                            \
    X(TROUPE_ENODE, -8, "the node is dead or not part of this cluster")       \
    X(TROUPE_ENONAME, -9, "no actor of that name")                            \
    X(TROUPE_EEXIST, -10, "the name is taken")                                \
    X(TROUPE_ECONTEXT, -11, "not allowed in this context")                    \
    X(TROUPE_ETRANSPORT, -12, "the transport or provider is not usable")      \
    X(TROUPE_EMPI, -13, "MPI is missing, mismatched or failed")               \
    X(TROUPE_EOPTION, -14, "an option has an invalid value")                  \
    X(TROUPE_EFAILED, -15, "the actor failed while it handled the message")   \
    X(TROUPE_ENOREPLY, -16, "the actor ended the message without a reply")    \
    X(TROUPE_ELIMIT, -17, "a stated limit is reached")                        \
    X(TROUPE_ESTOPPING, -18, "the node or actor is stopping")                 \
    X(TROUPE_EPROTO, -19, "malformed or foreign data was received")           \
    X(TROUPE_ESYSTEM, -20, "an operating system call failed")                 \
    X(TROUPE_EADDRESS, -21, "the actor address is malformed")                 \
    X(TROUPE_ECANCELED, -22, "the operation was cancelled")                   \
    X(TROUPE_ECLASS, -23, "the node's program has no such actor class")       \
    X(TROUPE_ELINKED, -24, "an actor linked to this one failed")              \
    X(TROUPE_ENONODE, -25, "no such member")                                  \
    X(TROUPE_ENOSEED, -26, "no seed answered")                                \
    X(TROUPE_EKEY, -27, "the others have another key or security")            \
    X(TROUPE_EVERSION, -28, "the others run another version of troupe")       \
    X(TROUPE_ECLUSTER, -29, "the seed belongs to another cluster")       \
    X(TROUPE_EVIEW, -30, "the group's view is changing")                      \
    X(TROUPE_EMISMATCH, -31, "members called different collectives")          \
    X(TROUPE_EPAUSED, -32, "the group has too few members")                   \
    X(TROUPE_EEXCLUDED, -33, "the others hold this node for dead")            \
    X(TROUPE_EBUSY, -34, "another context issues collectives on the group")

enum {
#define X(name, value, text) name = (value),
    TROUPE_ERRORS(X)
#undef X
    /* Codes at or below this one belong to the program. */
    TROUPE_E_USER = -1000
};

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Returns the text of an error code, never NULL. Static storage.
 * Context: any thread. Blocking: never.
 */
const char *troupe_strerror(int error);

/*
 * Returns the name of an error code ("TROUPE_EFULL"), "ok" for 0, "user" for
 * a code of the program, "unknown" otherwise. Static storage.
 * Context: any thread. Blocking: never.
 */
const char *troupe_error_name(int error);

#ifdef __cplusplus
}
#endif

#endif
