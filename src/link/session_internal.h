/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SESSION_INTERNAL_H
#define TRI_SESSION_INTERNAL_H

/*
 * The session transport's own parts:
 *     session_core.c  what to send, keep and deliver (pure)
 *     session_pool.c  the frames that records are packed into
 *     session_tx.c    channels: packing, storing, handing to the carrier
 *     session_rx.c    frames that arrive: checks, delivery
 *     session_remote.c  who there is, and the end of one
 *     session.c       opens, closes, polls, keeps time; the ops table
 *
 * A *remote* is this node's side of one session, both directions. It is made
 * by the link's connect or by the first good frame of a known node, and ends
 * with the link's disconnect, which means death.
 *
 * Locks, in this order:
 *  1. `table_lock`: the table of remotes.
 *  2. `remote->lock`: its core, what it has at the carrier, its `want`. The
 *     carrier's send is called with it held; the carrier's events take it.
 *  3. `pool.lock`, `active_lock`: a few lines each.
 * What else a remote has belongs to the link's lock of that peer (filling) or
 * to poll. No event is raised with any of them held. Remotes are freed in poll
 * and close alone, so what poll found stays valid while it runs.
 */

#include <pthread.h>
#include <sys/queue.h>

#include "base/lock.h"
#include "link/session.h"
#include "link/session_core.h"
#include "transport/carrier.h"
#include "wire/seal.h"

/* Frames of one lane that no other lane or remote can take away: one is being
 * filled and one under way. */
#define SESSION_FRAMES_OWN 2u

/* Frames beyond those, of all remotes together. Frames of a transport are thus
 * at most SHARED + OWN * lanes * remotes, 64 KiB each, of which only what was
 * written is memory: 16 MiB, and 384 KiB a remote that floods all its lanes. */
#define SESSION_SHARED_FRAMES_MAX 256u

/* Frames that are allocated at once. */
#define SESSION_SLAB_FRAMES 16u

/* With so many frames at the carrier, flush leaves a partly filled frame to
 * be filled further: what piles up while sends are under way leaves with the
 * next. */
#define SESSION_FLUSH_FRAMES_MAX 4u

struct session_remote;

struct session_buffer {
    struct tri_carrier_frame frame; /* first: the carrier's pointer is ours */
    struct tri_stored stored;       /* its `next` links free buffers, too */
    struct session_remote *remote;
    uint32_t bytes;   /* header and records so far */
    uint16_t records;
    uint8_t lane;     /* TRI_LANES: a header alone */
    bool is_sealed;   /* its bytes are final */
};

struct session_slab {
    SLIST_ENTRY(session_slab) next;
    struct tri_carrier_memory memory;
    struct session_buffer buffers[SESSION_SLAB_FRAMES];
};

struct session_pool {
    struct tri_lock lock;
    struct tri_stored_list free;
    SLIST_HEAD(, session_slab) slabs;
    unsigned slabs_len;
    unsigned shared_len; /* beyond the remotes' own */
};

/* A frame that waits at the receiver: before its turn, or because the link did
 * not take its records. Decrypted and checked. */
struct session_held {
    struct tri_held held;
    STAILQ_ENTRY(session_held) next;
    uint16_t records; /* not delivered yet */
    uint32_t at;      /* of the first of those */
    _Alignas(TRI_FRAME_ALIGN) unsigned char data[];
};

STAILQ_HEAD(session_held_list, session_held);

struct session_remote {
    struct tri_channel base;
    struct session_transport *transport;
    uint64_t node;
    struct tri_line *line;
    struct tri_seal *seal; /* closes under lock, opens in poll; or NULL */
    uint8_t version;

    /* The link's, serialized by it. */
    void *peer; /* for `writable` */
    struct session_buffer *filling[TRI_LANES];
    enum tri_lane reserved_lane;
    size_t reserved_bytes;
    _Atomic bool is_connected; /* the link has it as its channel; set under
                                  table_lock */

    /* Under lock. */
    pthread_mutex_t lock;
    struct tri_session core;
    unsigned in_flight_len; /* frames at the carrier */
    unsigned want;          /* lanes whose sender was told EFULL */
    bool is_ended;
    bool is_stuck;          /* the carrier said EFULL and nothing since */

    /* Under pool.lock. */
    unsigned frames_len[TRI_LANES + 1];

    /* Poll's. */
    void *source; /* for `record`: what accept returned; NULL: not asked yet */
    struct session_held_list blocked; /* data that the link did not take */
    bool is_blocked;
    bool is_touched;
    SLIST_ENTRY(session_remote) touched;

    SLIST_ENTRY(session_remote) bucket; /* under table_lock */
    bool is_active;                     /* under active_lock */
    TAILQ_ENTRY(session_remote) active; /* under active_lock */
    STAILQ_ENTRY(session_remote) closing; /* under active_lock */
    uint64_t closed_at; /* under active_lock; `polls` then */
};

SLIST_HEAD(session_remotes, session_remote);

struct session_transport {
    struct tri_transport base;
    struct tri_transport_config config;
    struct tri_carrier *carrier;
    size_t frame_bytes_max; /* of what we send */
    int timer_fd, epoll_fd; /* -1: the carrier has no descriptor */
    int carrier_fd;         /* the one in epoll_fd; poll's */

    pthread_mutex_t table_lock;
    struct session_remotes *buckets;
    uint32_t buckets_mask;
    unsigned remotes_len;

    struct session_pool pool;

    struct tri_lock active_lock;
    TAILQ_HEAD(, session_remote) active; /* may have something due */
    STAILQ_HEAD(session_closing, session_remote) closing;
    _Atomic bool has_closing; /* a hint; written under active_lock */
    _Atomic uint64_t due_ns; /* of any of them, or earlier */

    /* Poll's. */
    struct session_remotes touched; /* frames came from them */
    unsigned delivered;
    struct session_held *reserve; /* for the largest frame; or NULL */
    _Atomic uint64_t polls; /* begun */
    bool in_poll;
};

static inline struct session_transport *
tri_session_transport_of(struct tri_transport *transport)
{
    return tri_container_of(transport, struct session_transport, base);
}

/* How the job's frames are sealed, as the flags of a frame say it. */
static inline uint8_t
tri_session_flags(const struct session_transport *transport)
{
    switch (transport->config.seal) {
    case TRI_SEAL_AUTH:
        return TRI_FRAME_SEALED;
    case TRI_SEAL_ENCRYPT:
        return TRI_FRAME_SEALED | TRI_FRAME_ENCRYPTED;
    default:
        return 0;
    }
}

/* --- session.c --------------------------------------------------------------- */

/* Has poll look at the remote at that time. Any thread. */
void tri_session_schedule(struct session_remote *remote, uint64_t due_ns);

/* --- session_pool.c ---------------------------------------------------------- */

void tri_session_pool_init(struct session_pool *pool);
void tri_session_pool_fini(struct session_transport *transport);

/* A frame for a lane, or for a header alone (TRI_LANES); NULL: the limit is
 * reached, or there is no memory. */
struct session_buffer *tri_session_buffer_take(struct session_remote *remote,
                                               unsigned lane);
void tri_session_buffer_give(struct session_buffer *buffer);

/* True when the limit lets the lane have one more. */
bool tri_session_buffer_may_take(struct session_remote *remote, unsigned lane);

/* --- session_tx.c ------------------------------------------------------------ */

int tri_session_reserve(struct tri_channel *channel, enum tri_lane lane,
                        size_t bytes, struct tri_span *span_p);
void tri_session_commit(struct tri_channel *channel);
int tri_session_flush(struct tri_channel *channel);
uint64_t tri_session_unread(struct tri_channel *channel);
void tri_session_each_unread(struct tri_channel *channel,
                             void (*unread)(void *context,
                                            const struct tri_record *record,
                                            const void *payload),
                             void *context);

/* Hands to the carrier what is due; the first takes the lock. */
void tri_session_pump(struct session_remote *remote);
void tri_session_pump_locked(struct session_remote *remote, uint64_t now_ns);

/* The link may go on; takes the lanes that want. Without the lock. */
void tri_session_tell_writable(struct session_remote *remote);

/* The carrier's events about frames that were sent. */
void tri_session_on_sent(void *context, struct tri_carrier_frame *frame,
                         bool ok);
void tri_session_on_writable(void *context, void *remote);
void tri_session_on_broke(void *context, void *remote);

/* --- session_rx.c ------------------------------------------------------------ */

void tri_session_on_frame(void *context, unsigned char *data, size_t bytes);
void tri_session_resume(struct tri_transport *transport, void *peer);

/* Answers what came in since the last call. Poll lock held. */
void tri_session_finish_touched(struct session_transport *transport);

/* Frees what waits at the receiver. Poll lock held. */
void tri_session_drop_held(struct session_remote *remote);

/* --- session_remote.c -------------------------------------------------------- */

/*
 * Finds a node's remote, or makes it. Errors: ENODE (a stranger), EPROTO
 * (speaks other versions), ELIMIT, and those of the carrier's connect.
 */
int tri_session_remote_get(struct session_transport *transport, uint64_t node,
                           struct session_remote **remote_p);

/* As tri_transport_ops.connect. */
int tri_session_connect(struct tri_transport *transport, uint64_t node,
                        const struct tri_address *address, void *peer,
                        struct tri_channel **channel_p);

/* The remote of a node, or NULL. */
struct session_remote *
tri_session_remote_find(struct session_transport *transport, uint64_t node);

void tri_session_address(struct tri_transport *transport,
                         struct tri_address *address_p);
void tri_session_disconnect(struct tri_channel *channel);

/* Ends a remote, unless the link has it as its channel by now. */
void tri_session_remote_forget(struct session_remote *remote);

/* As tri_transport_ops.is_forgotten. */
bool tri_session_is_forgotten(struct tri_transport *transport,
                              const void *peer);

/* Frees the ended remotes whose frames are all back. Poll lock held. */
void tri_session_bury(struct session_transport *transport);

/* Frees a remote, whatever is in flight: the carrier is closed. */
void tri_session_remote_free(struct session_remote *remote);

#endif
