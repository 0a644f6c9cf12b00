/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_TRANSPORT_H
#define TRI_TRANSPORT_H

/*
 * Moves records between nodes. Between two living processes nothing is lost,
 * repeated or, within a lane, reordered. One ops table a transport; the link
 * above it (src/link) is the only user. One conformance suite (tests/conf) is
 * run against each.
 *
 * Two directions, apart from each other: a *channel* carries this node's
 * records to one peer; what peers send arrives through `poll`. Each has lanes
 * with buffers of their own: a full lane, or one whose records the link does
 * not take, never holds up another.
 *
 * Locks are the caller's: calls on one channel are serialized by the link's
 * lock of that peer, poll and pending by the driver's poll lock; the control
 * call runs on the control thread only. A transport must expect these three
 * kinds of call at the same time, and nothing more. No call blocks. Events
 * are only raised from within poll and control.
 */

#include "base/base.h"
#include "wire/record.h"
#include "wire/seal.h"

struct tri_bell;
struct tri_carrier_ops;
struct tri_transport;
struct tri_channel;

/* An address as the bootstrap exchanges it: opaque bytes. */
#define TRI_ADDRESS_BYTES_MAX 96

struct tri_address {
    uint16_t bytes; /* 0: not reachable over this transport */
    uint8_t data[TRI_ADDRESS_BYTES_MAX];
};

/* How sure a transport is that a peer died. */
enum tri_evidence {
    TRI_EVIDENCE_PROOF,  /* its process has ended */
    TRI_EVIDENCE_STRONG, /* its connection closed: no more than a hint, and the
                            channel is of no use */
};

/* What a transport tells the link. */
struct tri_transport_events {
    void *context;

    /*
     * A peer's first contact. Returns the `peer` for its records, or NULL to
     * refuse a stranger. Called from poll or control.
     */
    void *(*accept)(void *context, uint64_t node);

    /* Whether a node that was not accepted has died or left: what it still
     * sends, as it may not know yet, is nothing to tell of. NULL: no. As
     * accept. */
    bool (*is_gone)(void *context, uint64_t node);

    /* Where a node is that was accepted, for a transport that has to answer
     * it before the link connects; NULL: not known, or dead. Pure. */
    const struct tri_address *(*address)(void *context, uint64_t node);

    /*
     * A record arrived; already checked by tri_record_check. Record and
     * payload are only valid during the call. False: it is not taken (data
     * only); the transport keeps it and what follows on that lane, in bounded
     * memory, until `resume`. Called from poll and resume.
     */
    bool (*record)(void *context, void *peer, enum tri_lane lane,
                   const struct tri_record *record, const void *payload);

    /*
     * As `record`, for a TRI_PULL over a transport that can pull. False: it
     * is not done; the transport delivers nothing more from this peer, and
     * raises the same event at the next poll. From poll.
     */
    bool (*pull)(void *context, void *peer, const struct tri_record *record,
                 const void *payload);

    /* Called from poll or control, maybe more than once. */
    void (*lost)(void *context, uint64_t node, enum tri_evidence evidence);

    /* A connection closed that the transport remakes by itself, and nothing is
     * lost: a hint. From poll. NULL: no interest. */
    void (*broke)(void *context, uint64_t node);

    /* Something arrived from a peer that brings no record, but is genuine and
     * new. From poll. NULL: no interest. */
    void (*heard)(void *context, void *peer);

    /* A peer's connection has ended and all that came over it was delivered: a
     * message that is not whole by now will not be. From poll. NULL: no
     * interest. */
    void (*ended)(void *context, void *peer);

    /* Malformed or foreign bytes were dropped. reason: static text. From poll
     * or control. */
    void (*garbage)(void *context, const char *reason);

    /* A channel that said EFULL, or could not flush, can go on. From poll or
     * control. May be raised without need. */
    void (*writable)(void *context, void *peer);
};

/* Whether large messages are read from the sender's memory. */
enum tri_cma {
    TRI_CMA_AUTO, /* where a probe finds it faster */
    TRI_CMA_ON,
    TRI_CMA_OFF,
};

struct tri_transport_config {
    uint64_t node;         /* our own id */
    uint64_t job_nonce;    /* same in all nodes of the job, unguessable */
    uint32_t peers_max;    /* nodes we may have to talk to at once */
    uint32_t peers_len;    /* so many are known at start: what sizes are made
                              for; 0: none are */
    struct tri_bell *bell; /* wakes this node's poller */
    const char *provider;  /* fabric: libfabric provider name */
    const char *interface; /* fabric: address or interface name, or NULL */
    enum tri_cma cma;      /* ring */
    const struct tri_carrier_ops *carrier; /* session: what it runs over */
    enum tri_seal_mode seal;  /* session */
    const unsigned char *key; /* session: the job's, TRI_KEY_BYTES, or NULL;
                                 it stays valid until close */
    uint16_t port_first, port_last; /* fabric: to bind to; 0: any */
    struct tri_transport_events events;
};

/* Where to write a reserved record: the header, and the payload, which need
 * not follow it. Both are aligned to 8. */
struct tri_span {
    struct tri_record *record;
    void *payload;
};

struct tri_transport_ops {
    const char *name;

    /* Errors: ENOMEM, ESYSTEM, ETRANSPORT; logged. */
    int (*open)(const struct tri_transport_config *config,
                struct tri_transport **transport_p);

    /* Ends all channels, frees everything. No other call runs or follows. */
    void (*close)(struct tri_transport *transport);

    void (*address)(struct tri_transport *transport,
                    struct tri_address *address_p);

    /*
     * Makes a channel to a node. The connection may be established later;
     * records can be written at once. peer: handed to `writable`.
     * Errors: ENOMEM, ELIMIT, ESYSTEM, ENODE (known to be gone), ETRANSPORT.
     */
    int (*connect)(struct tri_transport *transport, uint64_t node,
                   const struct tri_address *address, void *peer,
                   struct tri_channel **channel_p);

    /* Ends a channel; what it still holds is dropped. Any thread, with the
     * peer's lock held. */
    void (*disconnect)(struct tri_channel *channel);

    /*
     * Room for one record with `bytes` of payload (at most
     * transport->record_bytes_max). The caller fills in header and payload,
     * then commits, with no other call on the channel between.
     * Errors: EFULL (`writable` will follow), ENODE.
     */
    int (*reserve)(struct tri_channel *channel, enum tri_lane lane,
                   size_t bytes, struct tri_span *span_p);

    /* Hands the reserved record over to be sent, at the latest by flush. */
    void (*commit)(struct tri_channel *channel);

    /* Sends what was committed. Errors: EFULL (something is left, `writable`
     * will follow), ENODE. NULL: commit does it all. */
    int (*flush)(struct tri_channel *channel);

    /*
     * Calls `unread` for each record that was committed and is not known to be
     * taken over by the peer's process, each lane in order; a record's first
     * pieces may be missing. For a channel whose peer is dead, before it is
     * disconnected. NULL: nothing is known.
     */
    void (*each_unread)(struct tri_channel *channel,
                        void (*unread)(void *context,
                                       const struct tri_record *record,
                                       const void *payload),
                        void *context);

    /* Records committed, but not known to be taken over by the peer's
     * process. NULL: not known. */
    uint64_t (*unread)(struct tri_channel *channel);

    /*
     * Takes in what arrived, about `budget` records at most, and makes
     * progress on sends. Returns the number of records delivered.
     */
    unsigned (*poll)(struct tri_transport *transport, unsigned budget);

    /* True when poll has work and the caller must not sleep. Called with the
     * bell armed. */
    bool (*pending)(struct tri_transport *transport);

    /*
     * Raises `record` again for what it was not taken from. peer: as `accept`
     * returned it. Also called once for a peer that died, which may have no
     * channel: then `address` does not know it any more. With the poll lock
     * held, not from within an event.
     */
    void (*resume)(struct tri_transport *transport, void *peer);

    /* True when nothing of a dead peer is left and `peer` will be in no event
     * any more: no channel, and nothing that came in. With the poll lock held,
     * not from within an event. NULL: always. */
    bool (*is_forgotten)(struct tri_transport *transport, const void *peer);

    /*
     * The size from which messages had better be pulled; 0: none. May take a
     * millisecond at the first call. Any thread. NULL: never.
     */
    size_t (*pull_bytes_min)(struct tri_transport *transport);

    /*
     * Reads memory of a peer's process. With the poll lock held. Errors: ENODE
     * (the process is gone), ETRANSPORT (it cannot be read). NULL: a TRI_PULL
     * is garbage.
     */
    int (*pull)(struct tri_transport *transport, uint64_t node,
                uint64_t address, void *into, size_t bytes);

    /* A descriptor that gets readable when there is work, beside the bell;
     * -1: none, and the bell tells all. -2: none, poll every millisecond. */
    int (*wait_fd)(struct tri_transport *transport);

    /* A descriptor (an epoll set) for slow events, and the call that handles
     * them. NULL: none. */
    int (*control_fd)(struct tri_transport *transport);
    void (*control)(struct tri_transport *transport);
};

/* Begins every transport and channel. */
struct tri_transport {
    const struct tri_transport_ops *ops;
    size_t record_bytes_max; /* payload, at most TRI_RECORD_BYTES_MAX */
};

struct tri_channel {
    struct tri_transport *transport;
};

extern const struct tri_transport_ops tri_transport_self;
extern const struct tri_transport_ops tri_transport_ring;

#endif
