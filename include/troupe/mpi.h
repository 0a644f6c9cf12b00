/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_MPI_H
#define TROUPE_MPI_H

/* What needs <mpi.h>. troupe.h does not include this file. */

#include <mpi.h>
#include <troupe.h>

#ifdef __cplusplus
extern "C" {
#endif

/* comm: a pointer to a MPI_Comm. Use troupe_start_comm. */
int troupe_start_mpi_(troupe_t **troupe_p, const troupe_options_t *options,
                      const void *comm);

/*
 * troupe_start over the ranks of a communicator, which is duplicated and
 * stays the caller's. MPI must be initialized; collective over comm.
 */
static inline int troupe_start_comm(troupe_t **troupe_p,
                                    const troupe_options_t *options,
                                    MPI_Comm comm)
{
    return troupe_start_mpi_(troupe_p, options, &comm);
}

/* comm: a pointer to a MPI_Comm. Use troupe_group_create_comm. */
int troupe_group_create_mpi_(troupe_t *troupe, const char *name,
                             const void *comm,
                             const troupe_group_options_t *options,
                             troupe_group_t **group_p);

/*
 * troupe_group_create over the ranks of a communicator, in their order there;
 * all are nodes of the cluster. Collective over comm, which is used for one
 * exchange and stays the caller's; it may have lost nobody.
 * Errors: as troupe_group_create_of, EMPI.
 */
static inline int troupe_group_create_comm(
    troupe_t *troupe, const char *name, MPI_Comm comm,
    const troupe_group_options_t *options, troupe_group_t **group_p)
{
    return troupe_group_create_mpi_(troupe, name, &comm, options, group_p);
}

/*
 * Sends `message` (made by a protocol's _new function, or by
 * troupe_message_new) to an actor when the MPI request is complete.
 * The request is tested, and the message sent, only while the starting thread
 * waits in a troupe call: the runtime makes MPI calls from no other thread.
 * When the request fails, and MPI returns errors (MPI_ERRORS_RETURN), the
 * message becomes a dead letter with EMPI, and the log has what MPI said.
 * Context: the thread that started the node. Blocking: never.
 * Ownership: request becomes the library's (set to MPI_REQUEST_NULL here); so
 * does the message. Buffers of the request stay the program's and must live
 * until the message arrives. On error both stay the caller's.
 * Errors: EINVAL, ECONTEXT, ELIMIT (1024 requests), ENOMEM.
 */
int troupe_mpi_send_when_done(troupe_t *troupe, MPI_Request *request,
                              troupe_ref_t to, void *message);

/*
 * The type of troupe/tensor.h that is like one of MPI's: integers by their size
 * and sign, floating point and complex ones by name, MPI_BYTE and MPI_CHAR as
 * bytes. TROUPE_DATATYPE_NONE, which no call takes: there is none.
 * Context: any thread. Blocking: never.
 */
static inline enum troupe_datatype troupe_datatype_of_mpi(MPI_Datatype type)
{
    static const enum troupe_datatype integers[2][4] = {
        { TROUPE_INT8, TROUPE_INT16, TROUPE_INT32, TROUPE_INT64 },
        { TROUPE_UINT8, TROUPE_UINT16, TROUPE_UINT32, TROUPE_UINT64 },
    };
    int is_unsigned, bytes = 0;

    if (type == MPI_FLOAT)
        return TROUPE_FLOAT;
    if (type == MPI_DOUBLE)
        return TROUPE_DOUBLE;
    if (type == MPI_LONG_DOUBLE)
        return TROUPE_LONG_DOUBLE;
    if (type == MPI_C_FLOAT_COMPLEX)
        return TROUPE_FLOAT_COMPLEX;
    if (type == MPI_C_DOUBLE_COMPLEX)
        return TROUPE_DOUBLE_COMPLEX;
    if (type == MPI_BYTE || type == MPI_CHAR)
        return TROUPE_BYTE;
    is_unsigned = type == MPI_UNSIGNED_CHAR || type == MPI_UNSIGNED_SHORT ||
                  type == MPI_UNSIGNED || type == MPI_UNSIGNED_LONG ||
                  type == MPI_UNSIGNED_LONG_LONG || type == MPI_UINT8_T ||
                  type == MPI_UINT16_T || type == MPI_UINT32_T ||
                  type == MPI_UINT64_T;
    if (!is_unsigned && type != MPI_SIGNED_CHAR && type != MPI_SHORT &&
        type != MPI_INT && type != MPI_LONG && type != MPI_LONG_LONG &&
        type != MPI_INT8_T && type != MPI_INT16_T && type != MPI_INT32_T &&
        type != MPI_INT64_T && type != MPI_AINT && type != MPI_OFFSET &&
        type != MPI_COUNT)
        return TROUPE_DATATYPE_NONE;
    MPI_Type_size(type, &bytes);
    return integers[is_unsigned][bytes == 1   ? 0
                                 : bytes == 2 ? 1
                                 : bytes == 4 ? 2
                                              : 3];
}

/* The same of an operation. 0, which no call takes: there is none. TROUPE_AVG
 * has none in MPI. */
static inline enum troupe_op troupe_op_of_mpi(MPI_Op op)
{
    return op == MPI_SUM    ? TROUPE_SUM
           : op == MPI_PROD ? TROUPE_PROD
           : op == MPI_MIN  ? TROUPE_MIN
           : op == MPI_MAX  ? TROUPE_MAX
                            : (enum troupe_op)0;
}

/*
 * The calls of troupe/tensor.h in MPI's words, for programs that have them.
 * `in` may be MPI_IN_PLACE, but not of an allgather.
 * Errors: as those; EINVAL for types and operations that are not translated.
 */
static inline int troupe_allreduce_mpi(troupe_group_t *group, const void *in,
                                       void *out, size_t count,
                                       MPI_Datatype type, MPI_Op op,
                                       int timeout_ms)
{
    return troupe_allreduce(group, in == MPI_IN_PLACE ? out : in, out, count,
                            troupe_datatype_of_mpi(type),
                            troupe_op_of_mpi(op), timeout_ms);
}

static inline int troupe_reduce_mpi(troupe_group_t *group, const void *in,
                                    void *out, size_t count, MPI_Datatype type,
                                    MPI_Op op, uint32_t root, int timeout_ms)
{
    return troupe_reduce(group, in == MPI_IN_PLACE ? out : in, out, count,
                         troupe_datatype_of_mpi(type), troupe_op_of_mpi(op),
                         root, timeout_ms);
}

static inline int troupe_bcast_mpi(troupe_group_t *group, void *data,
                                   size_t count, MPI_Datatype type,
                                   uint32_t root, int timeout_ms)
{
    return troupe_bcast(group, data, count, troupe_datatype_of_mpi(type), root,
                        timeout_ms);
}

static inline int troupe_reduce_scatter_mpi(troupe_group_t *group,
                                            const void *in, void *out,
                                            size_t count, MPI_Datatype type,
                                            MPI_Op op, int timeout_ms)
{
    return troupe_reduce_scatter(group, in == MPI_IN_PLACE ? out : in, out,
                                 count, troupe_datatype_of_mpi(type),
                                 troupe_op_of_mpi(op), timeout_ms);
}

static inline int troupe_allgather_mpi(troupe_group_t *group, const void *in,
                                       void *out, size_t count,
                                       MPI_Datatype type, int timeout_ms)
{
    return troupe_allgather(group, in, out, count,
                            troupe_datatype_of_mpi(type), timeout_ms);
}

/*
 * MPI_Finalize of this library stands before MPI's (by MPI's profiling
 * interface), where the program is linked with troupe before MPI. It is MPI's,
 * but for one case: when ranks of the job have died, or requests on buffers of
 * the library had to be abandoned, MPI's could hang. Then it says goodbye to
 * the other ranks, flushes stdio, and returns MPI_SUCCESS without having
 * finalized anything; the program goes on to its exit, with the status that it
 * chooses. MPI is not to be called after it, as ever.
 * Not reached: a program that calls PMPI_Finalize, one in Fortran (Open MPI's
 * mpi_finalize_ calls that), and one linked with MPI before troupe. These call
 * troupe_stop and then exit without finalizing when troupe_rank_alive has
 * found a rank dead.
 */

/*
 * Starts `len` more nodes with MPI_Comm_spawn: processes of `command`, with
 * argv (NULL-terminated, without the program's name; NULL: none). They are a
 * job of their own; their troupe_start joins this node's cluster, without any
 * seeds or key of the user's: those go to them over MPI. Then they can join
 * groups (troupe_group_join). Slots must be free, or mpirun --oversubscribe.
 * Needs option growable on a rank of this job, and MPI_THREAD_MULTIPLE (which
 * is what MPI is initialized with when the program leaves that to troupe).
 * Context: the thread that started the node. Blocking: until they have called
 * troupe_start, up to timeout_ms, serving actors; some 0.3 s. With timeout_ms 0
 * it only begins, so that a training goes on meanwhile; a failure is logged.
 * What has not ended when it returns troupe_stop waits for, within its time.
 * They are members when their troupe_start returns: troupe_members_wait.
 * Errors: EINVAL, ECONTEXT, EOPTION (growable), EMPI (also: not under mpirun;
 * and with Debian's MPICH 4.0, which cannot spawn), EBUSY (an earlier one goes
 * on), ENOMEM, ESYSTEM, ETIMEDOUT (they may still come).
 */
int troupe_spawn_nodes(troupe_t *troupe, const char *command,
                       char *const argv[], int len, int timeout_ms);

/*
 * Status of a process that ended itself because a call of MPI did not return
 * after a member of its group had died (option mpi_watchdog_ms). What it was
 * and who had died is in its log.
 */
#define TROUPE_EXIT_WEDGED 86

#ifdef __cplusplus
}
#endif

#endif
