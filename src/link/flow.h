/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_FLOW_H
#define TRI_FLOW_H

/*
 * Flow control between nodes, from a full mailbox back to those who send to
 * it. Both sides of a pair of nodes, for one direction:
 *
 *     sender                                  receiver
 *     tell, ask ------------------ data -->   mailbox is full: *parked*, in
 *                                             order, by sending node and
 *                                             destination
 *                <-- STOP(actor), control --  a quarter of the bound is parked:
 *                                             once a destination
 *     the actor is in the stopped set:
 *     EFULL, or a thread waits
 *     what was under way ----------------->   parked behind
 *                                             parked_bytes_max of this node:
 *                                             its data lane is not taken any
 *     ring or session window fills up, then   more; the transport keeps it
 *     the outbox, then EFULL
 *                                             the actor's backlog fell to half:
 *                                             parked ones go into the mailbox
 *                <--- GO(actor), control ---  none left for it
 *     out of the set, waiting threads awake   below half of the bound: resume
 *
 * Invariants:
 *  1. Messages of one node to one actor keep their order: while any are parked,
 *     all later ones are parked behind them.
 *  2. An actor is in the sender's set from STOP to GO at most, and the two
 *     travel on one lane; when the set is full a STOP is ignored. So the set
 *     only makes senders stop early: bounds do not rest on it.
 *  3. Between a push that finds a mailbox full and the end of a turn that makes
 *     room in it there are full fences on both sides (Dekker): who parks sets
 *     the actor's mark and pushes once more; the owner publishes the room, then
 *     looks at the mark. So parked messages are never forgotten.
 *
 * Bounds. At the receiver, for each node that sends to it and whatever the
 * number of its actors: parked_bytes_max, the one message that went beyond it,
 * one that is arriving in pieces, and what the transport keeps in its ring or
 * window. At the sender, for each node: the outbox, outbox_bytes_max or one
 * message, and the stopped set of TRI_STOPPED_LEN entries.
 *
 * No deadlock. Control and replies have lanes that the receiver always takes,
 * so STOP, GO, the answers of asks and of pulls never wait for data. A data
 * lane that is not taken waits only for actors with full mailboxes, and those
 * wait for nothing but a turn: a handler never waits for room (it gets EFULL),
 * and a thread of the program that waits for room or a reply runs actors
 * meanwhile. So each of these mailboxes drains, which kicks the flow; whoever
 * polls pushes what is parked; at half of the bound the lane is taken again.
 * What waits without serving, such as a program in MPI with no workers, waits
 * for itself: senders then give up at their deadline (send_timeout_ms).
 */

#include "base/base.h"
#include "message/message.h"

struct tri_link;
struct tri_peer;
struct tri_parked;

#define TRI_PARKED_BUCKETS 64u
/* Stopped destinations of one peer, and places in which one may be. */
#define TRI_STOPPED_LEN 256u
#define TRI_STOPPED_PROBES 8u

/* What a peer has sent to full mailboxes. Poll lock. */
struct tri_parking {
    struct tri_parked **buckets; /* by destination; NULL before the first */
    struct tri_parked *first;
    size_t bytes;
    bool refused; /* the transport keeps records until resume */
};

/* --- receiver; poll lock held --------------------------------------------- */

/* Keeps a message for an actor whose mailbox is full, and owns it. Errors:
 * ENOMEM. */
int tri_flow_park(struct tri_peer *peer, struct tri_message *message);

/* The peer has parked messages for this actor. */
bool tri_flow_has_parked(const struct tri_peer *peer, uint32_t slot,
                         uint32_t generation);

/*
 * Parks a TRI_MARKER for each actor that has parked messages: it is unparked,
 * not for delivery, when all that is parked now has been delivered. *marked_p:
 * how many, also on error. Errors: ENOMEM (some got none).
 */
int tri_flow_mark(struct tri_peer *peer, uint32_t *marked_p);

/* Notes that a record of the data lane is not taken. Returns false. */
bool tri_flow_refuse(struct tri_peer *peer);

/* Pushes what is parked, as far as there is room. */
void tri_flow_run(struct tri_link *link);

/* The peer has been dead for a grace: what is parked is orphaned. */
void tri_flow_orphan_parked(struct tri_peer *peer);

/* Frees what is parked and the stopped set, which nobody looks at any more. */
void tri_flow_fini(struct tri_peer *peer);

/* --- sender --------------------------------------------------------------- */

/* A MAILBOX_STOP or _GO arrived. Poll lock held. */
void tri_flow_on_mailbox(struct tri_peer *peer,
                         const struct tri_record *record);

/* True when the peer wants nothing for this actor now. Any thread. */
bool tri_flow_is_stopped(struct tri_peer *peer, uint32_t slot,
                         uint32_t generation);

#endif
