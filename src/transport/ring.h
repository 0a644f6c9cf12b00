/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_RING_H
#define TRI_RING_H

/*
 * The inside of the ring transport, shared by ring.c (channels, polling),
 * ring_peer.c (who is there, deaths), ring_connect.c (handshakes) and
 * ring_retry.c (those that have to be repeated).
 *
 * Who may touch what: `lock` guards the lists and everything that no other
 * rule names. A channel's tx belongs to the caller who holds the link's lock
 * of the peer; an inbound ring's rx to poll. Events are raised with no lock
 * held. Inbound rings are freed in poll or close only, channels in disconnect
 * or close, handshakes in control or close. epoll knows objects by a number
 * that is never used again, so that an event for something freed finds
 * nothing.
 */

#include <pthread.h>
#include <sys/types.h>

#include "os/bell.h"
#include "transport/ring_queue.h"

#define RING_VERSION 2

/*
 * A segment has two queues, so that neither a full data queue nor one whose
 * records the link does not take holds up control and replies. A marked record
 * of the urgent queue belongs to the control lane, another one to the reply
 * lane.
 */
enum ring_queue {
    RING_URGENT,
    RING_DATA,
    RING_QUEUES,
};

/* A node of this host that we have to do with, in either direction. Held by
 * channels, inbound rings and handshakes. */
struct ring_peer {
    struct ring_peer *next;
    uint64_t node;
    uint64_t watch; /* of the pidfd */
    int pidfd;      /* -1: none */
    pid_t pid;      /* 0: in a namespace that we do not see */
    unsigned refs;
    bool dead;
    bool has_bell;
    struct tri_bell bell; /* the peer's */
    struct ring_in *first_in; /* in the order made; poll sees the first */
};

struct ring_channel {
    struct tri_channel base;
    struct tri_ring_tx tx[RING_QUEUES];
    enum tri_lane lane; /* of the reserved record */
    /* Set once by control, when the peer has answered. */
    _Atomic(struct tri_bell *) bell;
    _Atomic bool dead; /* nobody will read: ENODE */
    _Atomic bool waiting[RING_QUEUES]; /* said EFULL; `writable` is due */
    struct ring_peer *peer;
    void *context; /* for `writable` */
    void *map;
    size_t map_bytes;
    struct ring_channel *next;

    /* Until the peer has answered; ring_retry.c's, under lock. */
    int segment_fd;       /* -1: it has, or will not be asked */
    uint64_t retry_at_ns; /* 0: there is no need */
    uint64_t retry_pause_ns;
    uint64_t give_up_at_ns;
};

/* All but `next` is poll's. */
struct ring_in {
    struct tri_ring_rx rx[RING_QUEUES];
    bool over[RING_QUEUES]; /* nothing follows */
    bool refused; /* the link did not take the first record of the data */
    bool garbage;
    bool forsaken; /* the link holds the node for dead: takes what is there, */
    uint32_t rest[RING_QUEUES]; /* and no more records than this */
    void *context; /* for `record` */
    struct ring_peer *peer;
    void *map;
    size_t map_bytes;
    /* A later one of the same peer: each of its queues waits until the same
     * queue of this one is over. */
    _Atomic(struct ring_in *) next;
};

/* A socket during the handshake, and after it where no pidfd is to be had. */
struct ring_shake {
    struct ring_shake *next;
    uint64_t watch;
    int fd;
    bool answered;
    struct ring_peer *peer;       /* NULL: came in and has not said hello */
    struct ring_channel *channel; /* NULL: came in, or it was disconnected */
    uint64_t node;                /* whom we called; 0: came in */
};

struct ring {
    struct tri_transport base;
    struct tri_transport_config config;
    struct tri_ring_shape shapes[RING_QUEUES];

    /* For poll. */
    _Atomic(struct ring_in *) *ins; /* ins_max entries, NULL where free */
    unsigned ins_max;
    _Atomic unsigned ins_count; /* those in use are below it */
    _Atomic unsigned waiting;   /* channels that wait */
    _Atomic bool deaths;        /* inbound rings of dead peers are to go */
    unsigned turns[RING_QUEUES]; /* where the next poll begins */
    _Atomic int cma;            /* enum tri_cma; AUTO until probed */
    _Atomic bool probing;

    pthread_mutex_t lock;
    struct ring_peer *peers;
    struct ring_channel *channels;
    struct ring_shake *shakes;
    unsigned shake_count;
    uint64_t watches; /* numbers given */
    int epoll_fd;
    int listen_fd;
    int retry_fd; /* a timer */
    bool deaf; /* the listener is off until a descriptor is free */
};

/* Who starts alone and has others come is ready for so many. */
#define RING_PEERS_LEN 16u

/* Nodes that sizes are made for. */
static inline uint32_t ring_peers_len(const struct ring *ring)
{
    return ring->config.peers_len > 0
               ? ring->config.peers_len
               : (uint32_t)tri_min(ring->config.peers_max, RING_PEERS_LEN);
}

/* Where the queues of a segment begin, in the order of their numbers. */
static inline size_t ring_segment_bytes(const struct tri_ring_shape *shapes,
                                        unsigned queues)
{
    size_t bytes = 0;

    for (unsigned q = 0; q < queues; q++)
        bytes += tri_ring_bytes(&shapes[q]);
    return bytes;
}

/* ring_peer.c */

/* Numbers in the epoll set of the listener and the timer; others follow. */
#define RING_LISTENER 0
#define RING_RETRIES 1

int ring_watch(struct ring *ring, int fd, uint64_t number);

/* Closing alone would leave it watched while a forked child has a copy. */
void ring_unwatch_close(struct ring *ring, int fd);

/* A descriptor was closed: who could not be accepted may be by now. */
void ring_listen_again_locked(struct ring *ring);

/*
 * The peer at the other end of the socket, held; NULL: out of memory. A
 * process that has ended gives a dead peer, for what it has left us.
 */
struct ring_peer *ring_peer_hold_locked(struct ring *ring, uint64_t node,
                                        int socket, pid_t pid);
void ring_peer_release_locked(struct ring *ring, struct ring_peer *peer);

/* The process of a node. Takes the lock. Errors: ENODE (it has ended),
 * ETRANSPORT (not visible from here). */
int ring_peer_pid(struct ring *ring, uint64_t node, pid_t *pid_p);

/* Takes over the descriptors of a peer's bell, or closes them. */
int ring_peer_take_bell_locked(struct ring_peer *peer, int page_fd,
                               int event_fd);

/* Ends everything with a peer whose process is gone, save what it wrote. */
void ring_peer_died_locked(struct ring *ring, struct ring_peer *peer);

/* Its pidfd says that it has ended. Unlocks while it raises `lost`. */
void ring_peer_end_locked(struct ring *ring, struct ring_peer *peer);

/* Raises `lost`, and has poll look after what is left. Without the lock. */
void ring_tell_lost(struct ring *ring, uint64_t node,
                    enum tri_evidence evidence);

/* ring_pull.c */

size_t ring_pull_bytes_min(struct tri_transport *transport);
int ring_pull(struct tri_transport *transport, uint64_t node, uint64_t address,
              void *into, size_t bytes);

/* ring_connect.c */

/* Opens listener and epoll set. Errors: ESYSTEM. */
int ring_listen(struct ring *ring);

/* Calls a node and hands it the segment of the channel, which then is on the
 * list. Takes the lock. Errors: ENODE, ESYSTEM, ENOMEM, ELIMIT. */
int ring_call(struct ring *ring, uint64_t node, struct ring_channel *channel);

/* The same for a channel that is on the list. Errors: as ring_call. */
int ring_call_again_locked(struct ring *ring, struct ring_channel *channel);

void ring_control(struct tri_transport *transport);

/* Closes all handshakes, listener and epoll set. */
void ring_hang_up(struct ring *ring);

/* ring_retry.c */

/* Errors: ESYSTEM. */
int ring_retry_open(struct ring *ring);

/* A call was not accepted: there will be another one. False: there were enough.
 */
bool ring_retry_later_locked(struct ring *ring, struct ring_channel *channel);

/* Calls again where it is time. Unlocks while it raises `lost`. */
void ring_retry_due_locked(struct ring *ring);

/* The channel needs no more calls. */
void ring_retry_end_locked(struct ring *ring, struct ring_channel *channel);

#endif
