/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_LINK_H
#define TRI_LINK_H

/*
 * Node-to-node links: one peer for each other node, a channel of whichever
 * transport reaches it, for each lane an outbox for what the channel cannot
 * take yet, and the cutting of large messages into records and back.
 *
 * Peers lie in a table of peers_max slots, of which those below
 * tri_link_peers_len were used. The first peers_len belong to the job's ranks,
 * for the link's life; nodes that joined later get slots behind them at run
 * time (peers.c), and may leave them to others long after their death.
 *
 * Sending to a peer is serialized by a try-lock: who gets it writes straight
 * into the channel; who does not puts its message into its lane's outbox, which
 * the holder empties before it goes. Nobody waits longer than one record takes.
 * Order holds within a lane because its outbox goes first, and because one
 * sender sees its own outbox entries.
 */

#include <troupe/types.h>

#include "base/lock.h"
#include "link/flow.h"
#include "link/refusals.h"
#include "message/message.h"
#include "transport/transport.h"

struct tri_link;

enum tri_peer_state {
    TRI_PEER_NONE, /* the slot is not in use, or our own */
    TRI_PEER_NEW, /* no channel yet */
    TRI_PEER_UP,
    TRI_PEER_DEAD,
};

/* What waits to be sent on one lane, and what is being sent of it. */
struct tri_outbox {
    struct tri_message *_Atomic inbox; /* newest first, as in a mailbox */
    _Atomic size_t bytes;       /* of inbox and list */
    struct tri_message *first;  /* lock; taken from inbox, in order */
    struct tri_message *last;   /* lock */
    _Atomic uint64_t exposed;   /* id of the first one while the peer may read
                                   it, else 0; the peer reads this, too */
    _Atomic uint64_t pulled;    /* id of ours that the peer has answered */
    _Atomic int32_t pulled_value;
    uint32_t offset;            /* lock; payload of the first already sent */
    bool first_counted;         /* lock; the first is counted in `sent` */
    _Atomic bool room_wanted;   /* somebody got EFULL */
} __attribute__((aligned(TRI_CACHE_LINE)));

/* A message that arrives on one lane in pieces, or is pulled. */
struct tri_arrival {
    struct tri_message *partial;
    uint32_t partial_bytes; /* of it arrived */
    uint32_t skip_bytes; /* of a message that had no room */
};

/* The same, when it is pulled. */
struct tri_pulling {
    bool active; /* `partial` is pulled */
    bool held;   /* the answer waits until there is room for more */
    struct tri_pull pull;
    _Atomic uint64_t answer; /* id of a PULL that we have to answer; taken by
                                who holds the lock */
    _Atomic int32_t answer_value;
};

/* What becomes of a dead peer, see peers.c. */
enum tri_reaping {
    TRI_REAP_ALIVE,   /* or nobody has seen that it is not */
    TRI_REAP_FOUND,   /* dead, and may still be found by its id */
    TRI_REAP_REMOVED, /* is found no more; what it holds is let go */
    TRI_REAP_DONE,    /* holds nothing; the slot of a rank stays so */
    TRI_REAP_FREE,    /* the slot may have another peer */
};

enum tri_burial {
    TRI_BURIAL_NONE,
    TRI_BURIAL_WANTED, /* of who polls */
    TRI_BURIAL_DONE,
};

struct tri_peer {
    struct tri_link *link;
    uint64_t node;
    int rank; /* -1: no rank of our job */
    struct tri_transport *transport;
    struct tri_address address;
    struct tri_peer *_Atomic bucket_next; /* of the table by node id */

    /* the control thread */
    enum tri_reaping reaping;
    uint32_t reap_call; /* since when: tri_link_reap's number, */
    uint64_t reap_ns;   /* and its time */
    _Atomic uint32_t burial; /* enum tri_burial */

    /* senders */
    _Atomic uint32_t state /* enum tri_peer_state */
        __attribute__((aligned(TRI_CACHE_LINE)));
    struct tri_lock lock;   /* the channel and what is marked "lock" */
    _Atomic uint32_t again; /* somebody found the lock held: look again */
    _Atomic uint32_t left;  /* it said goodbye: lanes, as a mask */
    _Atomic uint32_t broken; /* its connection closed: connect anew */
    _Atomic uint32_t dirty; /* has records to flush; on the link's list */
    struct tri_peer *dirty_next;
    struct tri_channel *channel; /* lock */
    uint64_t last_flush_ns;      /* lock */
    _Atomic uint64_t sent; /* messages written to the channel, but for control;
                              writer: lock */
    _Atomic uint32_t stopped_len; /* actors there that want nothing now */
    bool no_pull;          /* lock; the peer cannot read our memory */
    bool doomed;           /* lock; its process was found gone */
    bool told_lost;        /* lock; what the channel holds was told of */
    struct tri_outbox outboxes[TRI_LANES];
    const char *why;    /* it is dead; who killed it */
    uint64_t exposures; /* lock; messages offered to be pulled */
    _Atomic uint64_t *_Atomic stopped; /* flow.c's; NULL before the first */

    /* receiver: the poll lock */
    struct tri_arrival arrivals[TRI_LANES]
        __attribute__((aligned(TRI_CACHE_LINE)));
    _Atomic uint64_t received; /* messages that were handed up, but for
                                  control; writer: poll lock */
    _Atomic uint64_t heard; /* what else arrived; writer: poll lock */
    _Atomic uint32_t parked_len; /* messages */
    bool parking_full; /* data is not taken */
    _Atomic bool mourned; /* its transport knows of its death; taken back by
                             the control thread, with the slot */
    struct tri_parking parking;
    struct tri_pulling pullings[TRI_LANES];
} __attribute__((aligned(TRI_CACHE_LINE)));

/* What the link hands up, from within tri_link_poll or _control. */
struct tri_link_events {
    void *context;

    /* A whole small message; record and payload die with the call. One for
     * an actor whose mailbox is full may be given to tri_flow_park, and has to
     * be while tri_link_has_parked. */
    void (*record)(void *context, struct tri_peer *peer,
                   const struct tri_record *record, const void *payload);

    /* A message that came in pieces or was pulled; the callee owns it. Its
     * header is that of tri_message_of_record. */
    void (*message)(void *context, struct tri_peer *peer,
                    struct tri_message *message);

    /* A parked message. False: its mailbox is still full, and
     * tri_link_kick_flow will be called when it is not. */
    bool (*unpark)(void *context, struct tri_peer *peer,
                   struct tri_message *message);

    /* Who got EFULL may try again. May be raised with a peer's lock held. */
    void (*room)(void *context);

    /* There was no room for a message; only its header is known. */
    void (*refused)(void *context, struct tri_peer *peer,
                    const struct tri_record *record, int reason);

    /* A queued message will never be sent; the callee owns it. */
    void (*undelivered)(void *context, struct tri_peer *peer,
                        struct tri_message *message, int reason);

    /* The peer died, or the channel found it gone (ENODE), or its connection
     * closed (ETRANSPORT), and what somebody waits for (a TELL, ASK, RESOLVE,
     * SPAWN, MONITOR or LINK) had been handed to the channel and is not known
     * to have arrived; only its header is known. Before what was queued behind
     * it is undelivered. */
    void (*lost)(void *context, struct tri_peer *peer,
                 const struct tri_record *record, int reason);

    /* Once a peer. Its channel is closed already. */
    void (*died)(void *context, struct tri_peer *peer);

    /* A connection with the peer closed and nothing proves that it died: to be
     * looked into. From poll or control, with no lock held. NULL: no interest.
     */
    void (*suspect)(void *context, struct tri_peer *peer);

    /* What `record` handed up since the last call is about to be counted: from
     * now on it has to be where a look for work finds it. NULL: no interest. */
    void (*settled)(void *context);

    /* A parked message of a peer that has been dead for a grace; the callee owns
     * it. NULL: it is freed. */
    void (*orphaned)(void *context, struct tri_message *message);
};

struct tri_link_config {
    uint64_t node;
    uint32_t peers_len; /* of the job: slots that ranks have */
    uint32_t peers_max; /* slots in all; less than peers_len: no more */
    size_t outbox_bytes_max;
    size_t parked_bytes_max;
    size_t message_bytes_max;
    struct tri_link_events events;
};

#define TRI_LINK_TRANSPORTS_MAX 2

struct tri_link {
    struct tri_link_config config;
    /* By slot, the first ones by rank; our own entry is unused. Memory of what
     * was never used is not touched. */
    struct tri_peer *peers;
    struct tri_peer *_Atomic *by_node; /* buckets, a power of two */
    uint32_t by_node_mask;
    _Atomic uint32_t peers_len; /* slots used so far */
    struct tri_transport *transports[TRI_LINK_TRANSPORTS_MAX];
    uint32_t transports_len;
    _Atomic uint32_t deaths; /* peers dead: whether to look for new ones */
    _Atomic uint32_t burials; /* dead peers are to be let go of, by poll */
    _Atomic uint64_t past_sent; /* of peers whose slots others have now */
    _Atomic uint64_t past_received;
    uint32_t reap_calls;   /* the control thread */
    uint32_t reaped;       /* the same; of `deaths`, those done or free */
    uint32_t free_len;     /* the same; slots to be used again */
    struct tri_peer *_Atomic dirty; /* peers to flush */
    _Atomic uint32_t flow_kicked;   /* parked messages may have room */
    struct tri_peer *recent; /* poll lock; records of it are not counted yet */
    uint64_t recent_len;     /* so many */
    uint32_t mourned;        /* poll lock; of `deaths`, those mourned */
    struct tri_refusals refusals;
};

/* Errors: ENOMEM. */
int tri_link_init(struct tri_link *link, const struct tri_link_config *config);

/* Frees peers and closes the transports. Threads are gone. */
void tri_link_fini(struct tri_link *link);

/* What the transports get as their events. */
struct tri_transport_events tri_link_transport_events(struct tri_link *link);

/* Adds an open transport; the link owns it. */
void tri_link_add_transport(struct tri_link *link,
                            struct tri_transport *transport);

/* Describes the peer of a rank, before any is used. */
void tri_link_set_peer(struct tri_link *link, int rank, uint64_t node,
                       struct tri_transport *transport,
                       const struct tri_address *address);

/* Whether another peer can be added: what died counts until its slot is free
 * again. Context: the control thread. */
bool tri_link_has_room(struct tri_link *link);

/*
 * Adds a peer that has no rank, while others send and poll. The transport is
 * one of the link's. *peer_p: NULL, or where to put the peer.
 * Context: the control thread. Blocking: never.
 * Errors: EEXIST (the id is known, maybe as that of a dead node), ELIMIT
 * (peers_max), EINVAL (an id that nobody may have).
 */
int tri_link_add_peer(struct tri_link *link, uint64_t node,
                      struct tri_transport *transport,
                      const struct tri_address *address,
                      struct tri_peer **peer_p);

/*
 * Lets go of the dead, in the end of their slots; to be called about once a
 * second. A thread may hold a peer's pointer within a call, not between two;
 * so a slot is used again when TRI_REAP_CALLS and TRI_REAP_NS have passed twice
 * since the death: first with the peer still to be found, then without. Calls
 * count beside time, as both stand still while the process is stopped.
 * Returns true when a poll is wanted, for which nobody else will ask.
 * Context: the control thread. Blocking: never.
 */
#define TRI_REAP_CALLS 30u
#define TRI_REAP_NS (30ull * 1000 * 1000 * 1000)
bool tri_link_reap(struct tri_link *link, uint64_t now_ns);

/* Slots below it are or were used: a peer may be at link->peers[slot], see
 * tri_peer_is_used. Only grows. Any thread. */
static inline uint32_t tri_link_peers_len(struct tri_link *link)
{
    /* Pairs with the release store of tri_link_add_peer. */
    return atomic_load_explicit(&link->peers_len, memory_order_acquire);
}

/* False: there is nobody in this slot, or us. Any thread. */
static inline bool tri_peer_is_used(struct tri_peer *peer)
{
    /* Pairs with the release store of peer_describe (peers.c). */
    return atomic_load_explicit(&peer->state, memory_order_acquire) !=
           TRI_PEER_NONE;
}

static inline uint32_t tri_peer_slot(const struct tri_peer *peer)
{
    return (uint32_t)(peer - peer->link->peers);
}

/* "rank 3", or "node 0123456789abcdef" without a rank. Returns text. */
#define TRI_PEER_LABEL_BYTES 24
const char *tri_peer_label(const struct tri_peer *peer,
                           char text[TRI_PEER_LABEL_BYTES]);

/* The peer of a node id, or NULL. Any thread. */
static inline struct tri_peer *tri_link_find(struct tri_link *link,
                                             uint64_t node)
{
    struct tri_peer *_Atomic *bucket =
        &link->by_node[tri_mix64(node) & link->by_node_mask];
    /* Both pair with the release store of insert (peers.c). */
    struct tri_peer *peer = atomic_load_explicit(bucket, memory_order_acquire);

    while (tri_unlikely(peer != NULL && peer->node != node))
        peer = atomic_load_explicit(&peer->bucket_next, memory_order_acquire);
    return peer;
}

/*
 * A number that grows when anything arrived from the peer: records of any lane,
 * and what its transport alone sees (acknowledgements). Data that was known
 * before does not count, so nobody can make a node look alive by sending again
 * what it once said. Any thread; by the end of the poll that took it in.
 */
static inline uint64_t tri_peer_heard(struct tri_peer *peer)
{
    return atomic_load_explicit(&peer->received, memory_order_relaxed) +
           atomic_load_explicit(&peer->heard, memory_order_relaxed);
}

static inline bool tri_peer_is_dead(struct tri_peer *peer)
{
    return atomic_load_explicit(&peer->state, memory_order_relaxed) ==
           TRI_PEER_DEAD;
}

/* It stops, and all it sent before has arrived. */
static inline bool tri_peer_has_left(struct tri_peer *peer)
{
    return atomic_load_explicit(&peer->left, memory_order_relaxed) ==
           (1u << TRI_LANES) - 1;
}

/* True when the peer has said that this actor's mailbox is full. */
static inline bool tri_link_is_stopped(struct tri_peer *peer, uint32_t slot,
                                       uint32_t generation)
{
    return tri_unlikely(atomic_load_explicit(&peer->stopped_len,
                                             memory_order_relaxed) > 0) &&
           tri_flow_is_stopped(peer, slot, generation);
}

/* True when messages of the peer for this actor are parked. Poll lock held. */
static inline bool tri_link_has_parked(struct tri_peer *peer, uint32_t slot,
                                       uint32_t generation)
{
    return tri_unlikely(atomic_load_explicit(&peer->parked_len,
                                             memory_order_relaxed) > 0) &&
           tri_flow_has_parked(peer, slot, generation);
}

/* Has the next poll look at parked messages. Any thread; who polls may sleep
 * and is not woken. */
static inline void tri_link_kick_flow(struct tri_link *link)
{
    atomic_store_explicit(&link->flow_kicked, 1, memory_order_relaxed);
}

/* What a full channel and a long data outbox mean to a sender; the other lanes'
 * outboxes have no limit. */
enum tri_send_how {
    TRI_SEND_BOUNDED, /* EFULL at the limit */
    TRI_SEND_PATIENT, /* EFULL soon: it would rather wait than queue up */
    TRI_SEND_FORCED,  /* beyond the limit */
};

/*
 * Sends a message given by its header and payload, which is copied.
 * total_bytes is the payload's size; record->bytes is ignored.
 * Any thread. Blocking: never.
 * Errors: EFULL, ENODE, ENOMEM.
 */
int tri_link_send(struct tri_peer *peer, const struct tri_record *record,
                  const void *payload, enum tri_send_how how);

/* Sends a message and owns it, unless an error is returned. */
int tri_link_send_message(struct tri_peer *peer, struct tri_message *message,
                          enum tri_send_how how);

/* Takes in what arrived. Poll lock held. Returns records delivered. */
unsigned tri_link_poll(struct tri_link *link, unsigned budget);

/* True when a poll would find something. Bell armed. */
bool tri_link_pending(struct tri_link *link);

/* Sends what waits in half-filled frames. Any thread. */
void tri_link_flush(struct tri_link *link);

static inline bool tri_link_is_dirty(struct tri_link *link)
{
    return atomic_load_explicit(&link->dirty, memory_order_relaxed) != NULL;
}

/* Tells the living peers that had to do with us that we stop: all that was
 * sent before, on any lane, is there when they know. */
void tri_link_say_bye(struct tri_link *link);

/* True when all ranks that we had to do with have said so, or have died. Nodes
 * that joined are not waited for: they go on when a job ends. */
bool tri_link_all_left(struct tri_link *link);

/* Declares a peer dead: no more sends, queued messages are undelivered. Any
 * thread. why: what proves it, for the log; static text. */
void tri_link_kill_for(struct tri_peer *peer, const char *why);

/* The same when its process was found to have ended. */
void tri_link_kill(struct tri_peer *peer);

/* A counter of a peer, `sent` or `received`. acquire: pairs with
 * tri_count_one. */
static inline uint64_t tri_peer_count(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_acquire);
}

/* True when something for the peer waits to be written to its channel, but for
 * control. Any thread. */
static inline bool tri_peer_is_waiting(struct tri_peer *peer)
{
    return atomic_load_explicit(&peer->outboxes[TRI_LANE_DATA].bytes,
                                memory_order_acquire) > 0 ||
           atomic_load_explicit(&peer->outboxes[TRI_LANE_REPLY].bytes,
                                memory_order_acquire) > 0;
}

/* Messages sent and received so far, without those of the control lane, and
 * whether something still waits in an outbox, or is parked. Any thread. */
struct tri_link_census {
    uint64_t sent;
    uint64_t received;
    bool waiting;
};

struct tri_link_census tri_link_census(struct tri_link *link);

/* Header of a message, but for an ask's deadline. */
void tri_record_of_message(const struct tri_message *message,
                           struct tri_record *record_p);

/* A message with room for record->total_bytes and the header filled in from
 * the record, or NULL when memory is exhausted. */
struct tri_message *tri_message_of_record(const struct tri_record *record);

#endif
