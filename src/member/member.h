/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_MEMBER_H
#define TRI_MEMBER_H

/*
 * The membership driver: gives the pure core (member/swim_core.h) a socket, a
 * clock and evidence, and does what it says: sends datagrams, makes peers of
 * the link for nodes that join, ends those of nodes that died or left, and
 * tells the roster, the log and its clients.
 *
 * All of it runs on the control thread (runtime->control_run), with no lock
 * held, but for what says otherwise. Nothing here blocks. A node that is alone
 * and cannot be joined has a driver without a socket.
 */

#include <troupe/member.h>

#include "member/card.h"
#include "member/join.h"
#include "member/packet.h"
#include "member/swim_core.h"
#include "os/udp.h"

struct tri_member;
struct tri_peer;
struct tri_runtime;
struct tri_transport;

/* --- for the layers above ------------------------------------------------- */

/*
 * A layer that lives on membership (names, traits): its datagrams travel
 * authenticated, its clock is the control thread. All calls come from the
 * control thread, one at a time, but the first ones: attaching calls
 * `changed`, before UNKNOWN, for each member that is known by then, the own
 * node included. Any may be NULL.
 */
struct tri_member_client {
    void *context;
    uint8_t kind; /* of its datagrams: TRI_PACKET_REGISTRY, … */

    /* A member's state is another now; UNKNOWN before: it joined. The roster
     * and the link know already. */
    void (*changed)(void *context, const struct tri_swim_change *change,
                    uint64_t now_ns);

    /* A datagram of this kind by `node`, a member that is not known to be dead
     * or to have left; new, and with a good tag. */
    void (*received)(void *context, uint64_t node, const unsigned char *body,
                     size_t bytes, uint64_t now_ns);

    /* A datagram of any kind by such a member spoke of a view. */
    void (*view)(void *context, uint64_t node, uint64_t epoch,
                 uint64_t digest);

    /* Time has come. Returns when it wants to be called again; UINT64_MAX: not
     * by time. */
    uint64_t (*tick)(void *context, uint64_t now_ns);
};

#define TRI_MEMBER_CLIENTS_MAX 4

/*
 * Before the threads start. Errors: ELIMIT.
 * Context: the starting thread.
 */
int tri_member_attach(struct tri_member *member,
                      const struct tri_member_client *client);

/*
 * Sends a datagram of a client's kind to a member; lost datagrams are the
 * client's business. Context: control thread, in a client's call.
 * Errors: ENODE (not a living member), ETOOBIG (above TRI_PACKET_BODY_MAX),
 * ESYSTEM.
 */
int tri_member_send(struct tri_member *member, uint8_t kind, uint64_t node,
                    const void *body, size_t bytes);

static inline int tri_member_send_registry(struct tri_member *member,
                                           uint64_t node, const void *body,
                                           size_t bytes)
{
    return tri_member_send(member, TRI_PACKET_REGISTRY, node, body, bytes);
}

/* What all datagrams say of this node's view, see member/packet.h. Any
 * thread. */
void tri_member_set_view(struct tri_member *member, uint64_t epoch,
                         uint64_t digest);

/* Has the clients' ticks called soon. Any thread. */
void tri_member_kick(struct tri_member *member);

/* --- for the node --------------------------------------------------------- */

struct tri_member_config {
    struct tri_runtime *runtime; /* its roster stands */
    const struct tri_member_card *cards; /* of the job's ranks, by rank */
    struct tri_udp *socket;   /* taken over; own.family 0: none */
    uint64_t cluster;         /* its id */
    uint64_t cluster_name;    /* hash of option cluster; 0: none */
    enum tri_swim_profile profile;
    const unsigned char *key; /* the job's; NULL: security is "none" */
    enum tri_seal_mode security;
    struct tri_transport *ring; /* NULL: not open */
    struct tri_transport *fabric;
    const struct tri_seeds *seeds; /* copied; len 0: none to join */
    uint32_t nodes_max; /* alive at once */
};

/* Makes runtime->member, and hooks it in. Before the scheduler is made.
 * Errors: ENOMEM, ESYSTEM, ELIMIT. */
int tri_member_open(const struct tri_member_config *config);

/* What the link raises (struct tri_link_events; context: the runtime): a
 * connection closed; a peer was ended. Any thread. */
void tri_member_on_suspect(void *runtime, struct tri_peer *peer);
void tri_member_on_died(void *runtime, struct tri_peer *peer);

/* Threads are gone. NULL is allowed. */
void tri_member_close(struct tri_member **member_p);

/*
 * Joins by the seeds and waits until the list of members is complete.
 * Context: the starting thread, after the threads have started.
 * Errors: ETIMEDOUT is ENOSEED here; ECLUSTER, EVERSION, ELIMIT, ETRANSPORT as
 * the seed said. Logged.
 */
int tri_member_join(struct tri_member *member, uint64_t deadline_ns);

/*
 * troupe_stop was called here: that ranks of this job leave is no reason to
 * end their links. all: by all ranks that live; from now on that one of them
 * is silent does not prove that it died. Any thread.
 */
void tri_member_stopping(struct tri_member *member, bool all);

/* There are members beside this job's ranks. Any thread. */
bool tri_member_has_joined(const struct tri_member *member);

/* Says goodbye to the others; then whether enough of them know. Any thread. */
void tri_member_leave(struct tri_member *member);
bool tri_member_has_left(const struct tri_member *member);

/* Any thread. */
void tri_member_stats(const struct tri_member *member,
                      troupe_member_stats_t *stats_p);

#endif
