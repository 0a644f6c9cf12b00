/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_H
#define TROUPE_H

/*
 * troupe: actors for MPI jobs. Each MPI rank is a node that hosts actors;
 * actors exchange messages wherever they are.
 *
 *     troupe/error.h     error codes
 *     troupe/types.h     refs, tokens
 *     troupe/node.h      start, stop, options, serving
 *     troupe/actor.h     spawn, stop
 *     troupe/member.h    members: who is there, who died, where to put actors
 *     troupe/message.h   tell, ask, reply, untyped
 *     troupe/name.h      names and addresses: finding actors
 *     troupe/protocol.h  typed protocols: start reading here
 *     troupe/group.h     groups: members that agree on who is there
 *     troupe/tensor.h    collectives on a group
 *     troupe/training.h  elastic training: steps, samples, state
 *     troupe/mpi.h       what needs <mpi.h>; not included by this file
 */

#include <troupe/actor.h>
#include <troupe/error.h>
#include <troupe/group.h>
#include <troupe/member.h>
#include <troupe/message.h>
#include <troupe/name.h>
#include <troupe/node.h>
#include <troupe/protocol.h>
#include <troupe/tensor.h>
#include <troupe/training.h>
#include <troupe/types.h>

#endif
