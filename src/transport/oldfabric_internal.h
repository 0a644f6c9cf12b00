/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_OLDFABRIC_INTERNAL_H
#define TRI_OLDFABRIC_INTERNAL_H

/*
 * The fabric transport's own parts:
 *     oldfabric_provider.c  chooses provider and interface, says what is usable
 *     oldfabric_pool.c      the frames that records are packed into
 *     oldfabric_tx.c        channels, sending
 *     oldfabric_events.c    what poll tells the link; the end of a channel
 *     oldfabric_rx.c        receive buffers, checking, delivery
 *     fabric.c           opens, closes, polls; the ops table
 *
 * Locks, in this order:
 *  1. `domain_lock`: every libfabric call (FI_THREAD_DOMAIN). Poll and pending
 *     wait for it, channel calls only try it: who does not get it leaves the
 *     frames to poll and rings the bell.
 *  2. `queue_lock`: the frame pool and the lists of channels. Held for a few
 *     lines, never during a libfabric or system call.
 * No event is raised with either held, so a callback may use any channel.
 *
 * A channel's memory is freed by poll or close alone: what poll found on a
 * list stays valid until poll lets go of it.
 */

#include <pthread.h>
#include <sys/queue.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>

#include "base/lock.h"
#include "transport/transport.h"
#include "transport/fabric_frame.h"

/* Frames of one channel, being filled, queued or in flight: enough to keep a
 * connection busy (256 KiB), few enough that a dead peer holds little. */
#define FABRIC_CHANNEL_FRAMES_MAX 16

/* Of those, the ones that no other channel can take away, so that stalled
 * peers never stop the others. */
#define FABRIC_CHANNEL_FRAMES_OWN 2

/* Frames beyond those, of all channels together. Frames of a transport are
 * thus at most SHARED + OWN * channels, 16 KiB each, allocated when needed:
 * 4 MiB and 32 KiB a peer. */
#define FABRIC_SHARED_FRAMES_MAX 256

/* Frames that are allocated at once. */
#define FABRIC_SLAB_FRAMES 16

/* With so many frames on their way, flush leaves a partly filled frame to be
 * filled further: small flushes must not use up a stalled channel's frames. */
#define FABRIC_FLUSH_FRAMES_MAX 4

/* Receive buffers: a frame's length at least is left when one is full. */
#define FABRIC_RX_BUFFERS 4
#define FABRIC_RX_BUFFER_BYTES (256u * 1024)
/* Buffers in all: some may have to wait for a peer that stopped in the middle
 * of a frame, see oldfabric_rx.c. */
#define FABRIC_RX_BUFFERS_MAX 64

/* Completions taken in at once. */
#define FABRIC_CQ_BATCH 32

/* Pauses between attempts to send to a peer that takes nothing now. */
#define FABRIC_RETRY_MIN_NS (100ull * 1000)
#define FABRIC_RETRY_MAX_NS (10ull * 1000 * 1000)

#define FABRIC_PROVIDER_DEFAULT "tcp;ofi_rxm"

enum fabric_op_kind { FABRIC_OP_SEND, FABRIC_OP_RECEIVE };

/* Begins all that libfabric is given as context; the provider may scribble
 * on the first part (FI_CONTEXT, FI_CONTEXT2). */
struct fabric_op {
    struct fi_context2 context;
    enum fabric_op_kind kind;
};

struct fabric_frame {
    struct fabric_op op;
    STAILQ_ENTRY(fabric_frame) next;
    struct fabric_channel *channel;
    void *descriptor; /* of the registered memory, or NULL */
    unsigned char *data;
    uint32_t bytes;
    uint16_t records;
};

STAILQ_HEAD(fabric_frames, fabric_frame);

struct fabric_slab {
    SLIST_ENTRY(fabric_slab) next;
    unsigned char *data;
    struct fid_mr *mr;
    struct fabric_frame frames[FABRIC_SLAB_FRAMES];
};

struct fabric_channel {
    struct tri_channel base;
    void *peer;
    uint64_t node;
    fi_addr_t address;
    _Atomic bool broken; /* a send failed: nothing more is sent */

    /* The caller's, serialized by the link. */
    struct fabric_frame *filling;
    size_t reserved_bytes;

    /* Under domain_lock. */
    uint64_t stalled_since_ns; /* 0: the last send went through */
    uint64_t retry_at_ns;

    /* Under queue_lock. */
    struct fabric_frames ready; /* to be sent; taken off under domain_lock */
    unsigned frames_len;        /* filling, ready and in flight */
    unsigned outstanding_len;   /* ready and in flight */
    bool want_frame, want_flush;
    bool is_sender, is_waiting, is_lost, is_closing, is_zombie;
    TAILQ_ENTRY(fabric_channel) all, sender, waiting, lost, closing;
};

TAILQ_HEAD(fabric_channels, fabric_channel);

enum fabric_rx_state {
    FABRIC_RX_FREE,
    FABRIC_RX_POSTED,
    FABRIC_RX_SETTLING, /* let go of, but frames in it are still arriving */
};

struct fabric_rx_buffer {
    struct fabric_op op;
    unsigned char *data; /* NULL: not made yet */
    struct fid_mr *mr;
    void *descriptor;
    enum fabric_rx_state state;
    size_t arrived_bytes; /* delivered out of it */
    size_t used_bytes;    /* up to here it was given to frames */
};

/* A frame that arrived and was not delivered yet. */
struct fabric_arrival {
    struct fabric_rx_buffer *buffer;
    const unsigned char *data;
    size_t bytes;
    bool releases; /* the provider lets the buffer go with this one */
};

/* Nodes that were accepted. Open addressing, linear probing; node 0: free. */
struct fabric_peer {
    uint64_t node;
    void *peer;
};

/* Poll's alone, but for the buffers' posting (under domain_lock). */
struct fabric_rx {
    struct fabric_rx_buffer buffers[FABRIC_RX_BUFFERS_MAX];
    struct fabric_arrival arrivals[FABRIC_CQ_BATCH];
    unsigned arrivals_len, arrivals_at;
    unsigned posted_len;
    unsigned settling_len;
    const char *error; /* of a failed receive, to be reported */
    struct fabric_peer *peers;
    size_t peers_len, peers_size;
    unsigned char bounce[TRI_FRAME_BYTES_MAX]
        __attribute__((aligned(16))); /* one aligned frame */
};

struct fabric {
    struct tri_transport base;
    struct tri_transport_config config;
    struct fi_info *info;
    struct fid_fabric *fid;
    struct fid_domain *domain;
    struct fid_av *av;
    struct fid_cq *cq;
    struct fid_ep *ep;
    struct tri_address address;
    bool register_memory; /* FI_MR_LOCAL */
    int cq_fd;            /* -1: the provider has no usable one */
    int timer_fd, epoll_fd;
    bool timer_armed;

    pthread_mutex_t domain_lock;
    struct fabric_rx rx;

    struct tri_lock queue_lock;
    struct fabric_frames free_frames;
    SLIST_HEAD(, fabric_slab) slabs;
    unsigned shared_frames_len;
    unsigned channels_len; /* not disconnected */
    struct fabric_channels channels, senders, waiting, lost, closing;
};

/* --- oldfabric_provider.c --- */

/*
 * Finds the provider and the address to bind to. Ownership: *info_p is the
 * caller's, by fi_freeinfo. Errors: ETRANSPORT, ENOMEM; logged.
 */
int tri_oldfabric_choose(const char *provider, const char *interface,
                      struct fi_info **info_p);

/* True when the provider's CQ descriptor tells the truth. */
bool tri_oldfabric_fd_usable(const struct fi_info *info);

/*
 * True when a message that does not fit into what is left of a receive buffer
 * takes the buffer away from the provider without FI_MULTI_RECV saying so
 * (ofi_rxm 1.17, rxm_cq_write_error_trunc). Frames always fit; a stranger
 * could make us deaf with a few messages.
 */
bool tri_oldfabric_truncation_releases(const struct fi_info *info);

/* --- oldfabric_tx.c --- */

int tri_oldfabric_reserve(struct tri_channel *channel, enum tri_lane lane,
                       size_t bytes, struct tri_span *span_p);
void tri_oldfabric_commit(struct tri_channel *channel);
int tri_oldfabric_flush(struct tri_channel *channel);
int tri_oldfabric_channel_create(struct fabric *fabric, uint64_t node,
                              fi_addr_t address, void *peer,
                              struct fabric_channel **channel_p);
void tri_oldfabric_disconnect(struct tri_channel *channel);

/* Sends what channels have queued, as far as their pauses are over. */
void tri_oldfabric_send_all_locked(struct fabric *fabric);

/* When the next attempt is due: 0 now, UINT64_MAX never. */
uint64_t tri_oldfabric_send_due_locked(struct fabric *fabric);

/* A send has ended; under domain_lock, from poll. */
void tri_oldfabric_sent_locked(struct fabric *fabric, struct fabric_frame *frame,
                            bool failed);

/* Takes a channel off the list of those with something to send. */
void tri_oldfabric_sender_remove_queued(struct fabric *fabric,
                                     struct fabric_channel *channel);

static inline bool tri_oldfabric_broken(const struct fabric_channel *channel)
{
    /* Only says to stop trying: orders nothing. */
    return atomic_load_explicit(&channel->broken, memory_order_relaxed);
}

/* --- oldfabric_pool.c; _queued: under queue_lock --- */

/* Takes a frame for a channel, or NULL: `writable` will follow. */
struct fabric_frame *tri_oldfabric_frame_take(struct fabric *fabric,
                                           struct fabric_channel *channel);

/* True when the channel's share of the frames is not used up. */
bool tri_oldfabric_may_take_queued(const struct fabric *fabric,
                                const struct fabric_channel *channel);

/* Remembers that `writable` is owed. */
void tri_oldfabric_wait_queued(struct fabric *fabric,
                            struct fabric_channel *channel);

void tri_oldfabric_frame_return_queued(struct fabric *fabric,
                                    struct fabric_frame *frame);

/* Returns the frames that wait to be sent. */
void tri_oldfabric_ready_drop_queued(struct fabric *fabric,
                                  struct fabric_channel *channel);

void tri_oldfabric_pool_fini(struct fabric *fabric);

/* --- oldfabric_events.c --- */

/* Raises lost and writable, frees disconnected channels. From poll. */
void tri_oldfabric_tx_events(struct fabric *fabric);

/* True when tri_oldfabric_tx_events has something to do. */
bool tri_oldfabric_tx_pending(struct fabric *fabric);

/* --- oldfabric_rx.c --- */

int tri_oldfabric_rx_init(struct fabric *fabric);
void tri_oldfabric_rx_fini(struct fabric *fabric);

/* Hands free buffers to the provider. Errors: ETRANSPORT; logged. */
int tri_oldfabric_rx_post_locked(struct fabric *fabric);

/* True when posting would do something. */
bool tri_oldfabric_rx_can_post(const struct fabric *fabric);

/* A receive has ended; under domain_lock, from poll. */
void tri_oldfabric_received_locked(struct fabric *fabric,
                                const struct fi_cq_data_entry *entry);
void tri_oldfabric_receive_failed_locked(struct fabric *fabric,
                                      const struct fi_cq_err_entry *error);

/* Raises records and garbage. From poll. Returns the records delivered. */
unsigned tri_oldfabric_deliver(struct fabric *fabric, unsigned budget);

/* Forgets an accepted node. From poll. */
void tri_oldfabric_forget(struct fabric *fabric, uint64_t node);

/* --- fabric.c --- */

/* Registers memory if the provider wants that. Takes domain_lock. */
int tri_oldfabric_register(struct fabric *fabric, void *data, size_t bytes,
                        uint64_t access, struct fid_mr **mr_p);

#endif
