/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CARRIER_H
#define TRI_CARRIER_H

/*
 * Moves frames (wire/frame.h) between nodes over a network, and promises
 * little: frames may be lost, repeated and, across broken connections, arrive
 * out of order; most arrive once, in order and soon. The session above it
 * (link/session.h) makes a transport of a carrier.
 *
 * A *line* goes to one node. A carrier remakes a line's connection by itself,
 * as often as needed, for as long as the line is there.
 *
 * Locks are the caller's: calls on one line are serialized, poll and pending
 * by the driver's poll lock. Both kinds may run at the same time, on any
 * threads. No call blocks. Events are raised from within poll alone, with no
 * lock of the carrier held: a callback may use any line.
 */

#include "transport/transport.h"

struct tri_carrier;

/* Memory for frames that the carrier knows (registered with a fabric that
 * wants that). Filled in by `memory_add`. */
struct tri_carrier_memory {
    unsigned char *data;
    size_t bytes;
    void *registration; /* the carrier's; NULL: none needed */
    void *descriptor;   /* the carrier's */
};

/*
 * A frame to be sent. It lies in memory that was added, and neither it nor
 * its bytes may change from `send` until `sent`.
 */
struct tri_carrier_frame {
    uint64_t carrier_private[11]; /* first: where libfabric scribbles */
    struct tri_line *line;        /* set by send */
    const struct tri_carrier_memory *memory;
    unsigned char *data;
    uint32_t bytes;
};

struct tri_carrier_events {
    void *context;

    /* A frame arrived: any bytes, from anybody. data: aligned to 8, the
     * callee's to change during the call. */
    void (*frame)(void *context, unsigned char *data, size_t bytes);

    /* The carrier is done with a frame. ok: its bytes left, which says nothing
     * of their arrival. Also raised for lines that were disconnected. */
    void (*sent)(void *context, struct tri_carrier_frame *frame, bool ok);

    /* A line whose send said EFULL can go on. May be raised without need.
     * peer: as given to connect. */
    void (*writable)(void *context, void *peer);

    /* The line's connection broke; what was sent may be lost. */
    void (*broke)(void *context, void *peer);

    /* Something that cannot be a frame was dropped. reason: static text. */
    void (*garbage)(void *context, const char *reason);
};

struct tri_carrier_config {
    uint64_t node;
    uint32_t peers_max;
    struct tri_bell *bell; /* rung when poll is wanted soon */
    const char *provider;  /* libfabric's name, or NULL */
    const char *interface; /* address, name or prefix/bits, or NULL */
    uint16_t port_first, port_last; /* to bind to; 0: any */
    struct tri_carrier_events events;
};

struct tri_carrier_ops {
    const char *name;

    /* Errors: ENOMEM, ESYSTEM, ETRANSPORT, EOPTION; logged. */
    int (*open)(const struct tri_carrier_config *config,
                struct tri_carrier **carrier_p);

    /* Ends all lines; frames are the caller's again, without events. Memory
     * that was added is forgotten, not freed. */
    void (*close)(struct tri_carrier *carrier);

    void (*address)(struct tri_carrier *carrier,
                    struct tri_address *address_p);

    /* Errors: ENOMEM, ELIMIT, ETRANSPORT (not an address of this carrier). */
    int (*connect)(struct tri_carrier *carrier, uint64_t node,
                   const struct tri_address *address, void *peer,
                   struct tri_line **line_p);

    /* Frames in flight still come back through `sent`; no other event of
     * this line is raised behind the next poll. */
    void (*disconnect)(struct tri_line *line);

    /*
     * Sends a frame of at most frame_bytes_max. Errors: EFULL (not now:
     * nothing was taken, `writable` will follow).
     */
    int (*send)(struct tri_line *line, struct tri_carrier_frame *frame);

    /* Makes memory usable for frames. Errors: ENOMEM, ETRANSPORT. */
    int (*memory_add)(struct tri_carrier *carrier,
                      struct tri_carrier_memory *memory);

    /* Takes in what arrived, about `budget` frames at most, and makes
     * progress. Returns the number of frames. */
    unsigned (*poll)(struct tri_carrier *carrier, unsigned budget);

    /* True when poll has work and the caller must not sleep. due_ns: when it
     * will have at the latest; UINT64_MAX: not by time. Bell armed. */
    bool (*pending)(struct tri_carrier *carrier, uint64_t *due_ns_p);

    /* A descriptor that gets readable when there is work; -2: none, poll
     * every millisecond. May be another one after a poll: the one before is
     * closed then. */
    int (*wait_fd)(struct tri_carrier *carrier);

    /* The port that it listens on; 0: none that is known. NULL: the same. */
    uint16_t (*port)(struct tri_carrier *carrier);

    /* Bytes that the carrier holds in all, about. */
    size_t (*memory_bytes)(struct tri_carrier *carrier);
};

/* Begins every carrier and line. */
struct tri_carrier {
    const struct tri_carrier_ops *ops;
    size_t frame_bytes_max;
};

struct tri_line {
    struct tri_carrier *carrier;
};

extern const struct tri_carrier_ops tri_carrier_fabric;

#endif
