/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_FABRIC_INTERNAL_H
#define TRI_FABRIC_INTERNAL_H

/*
 * The fabric carrier's own parts:
 *     fabric_provider.c  chooses provider and interface, says what is usable
 *     fabric_line.c      lines: sending, what poll tells of them, their end
 *     fabric_renew.c     a new endpoint when the provider's has worn out
 *     fabric_rx.c        receive buffers, delivery
 *     fabric.c           opens, closes, polls; the ops table
 *
 * Locks, in this order:
 *  1. `domain_lock`: every libfabric call (FI_THREAD_DOMAIN). Poll and pending
 *     wait for it, `send` only tries it: who does not get it is told so by
 *     `writable`.
 *  2. `queue_lock`: the lists of lines. Held for a few lines of code, never
 *     during a libfabric or system call.
 * No event is raised with either held, so a callback may use any line.
 *
 * A line's memory is freed by poll or close alone: what poll found on a list
 * stays valid until poll lets go of it.
 */

#include <errno.h>
#include <pthread.h>
#include <sys/queue.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>

#include "base/lock.h"
#include "os/endpoint.h"
#include "transport/carrier.h"
#include "wire/frame.h"

/* Receive buffers, for one frame each: 2 MiB, of which what was written is
 * memory. Enough for what arrives between two polls; what finds none waits on
 * the heap of the provider, or in the network. */
#define FABRIC_RX_BUFFERS 32
#define FABRIC_RX_BUFFER_BYTES TRI_FRAME_BYTES_MAX

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
    uint8_t kind;
    bool failed;
    uint16_t reserved;
    uint32_t connection; /* of the line, when the frame was sent */
};

/* What a frame's carrier_private holds. */
struct fabric_private {
    struct fabric_op op;
    union {
        LIST_ENTRY(fabric_private) in_flight; /* libfabric has it */
        STAILQ_ENTRY(fabric_private) next;    /* on `done` */
    };
};

_Static_assert(sizeof(struct fabric_private) <=
                       sizeof(((struct tri_carrier_frame *)NULL)
                                  ->carrier_private) &&
                   offsetof(struct tri_carrier_frame, carrier_private) == 0,
               "a frame begins with what libfabric is given");

STAILQ_HEAD(fabric_done, fabric_private);

struct fabric_line {
    struct tri_line base;
    void *peer;
    uint64_t node;
    fi_addr_t address;

    /* Frames taken and not given back. Poll may free a line that was
     * disconnected when it is 0; ordered by queue_lock (disconnect). */
    _Atomic uint32_t frames_len;

    /* Under domain_lock. */
    uint64_t stalled_since_ns; /* 0: the last send went through */
    uint32_t connection;       /* counted up with each `broke` */

    /* Written under both locks, read under either. */
    uint64_t retry_at_ns;

    /* Under queue_lock. */
    bool is_waiting, is_broke, is_zombie;
    TAILQ_ENTRY(fabric_line) all, waiting, broke, closing;
};

TAILQ_HEAD(fabric_lines, fabric_line);

/* An address that the address vector has. */
struct fabric_known {
    fi_addr_t address;
    struct tri_address name; /* without the node's id */
};

enum fabric_rx_state {
    FABRIC_RX_FREE,
    FABRIC_RX_POSTED,
    FABRIC_RX_ARRIVED, /* not delivered yet */
};

/* Memory that libfabric was told of. */
struct fabric_registration {
    LIST_ENTRY(fabric_registration) next;
    struct fid_mr *mr;
};

struct fabric_rx_buffer {
    struct fabric_op op;
    unsigned char *data; /* NULL: not made yet */
    void *descriptor;
    enum fabric_rx_state state;
};

/* A buffer that came back and was not looked at yet. */
struct fabric_arrival {
    struct fabric_rx_buffer *buffer;
    size_t bytes;        /* 0: nothing arrived */
    const char *garbage; /* something that is no frame did */
};

/* Poll's alone, but for the buffers' posting (under domain_lock). */
struct fabric_rx {
    struct fabric_rx_buffer buffers[FABRIC_RX_BUFFERS];
    struct fabric_arrival arrivals[FABRIC_CQ_BATCH];
    unsigned arrivals_len, arrivals_at;
    unsigned made_len, posted_len;
    uint64_t post_at_ns; /* not before, after posting failed; 0: any time */
};

/* See fabric_renew.c. Poll's alone. */
struct fabric_renew {
    unsigned failed_max;    /* failed receives of one endpoint; 0: no renewal */
    unsigned failed_len;    /* of this one */
    unsigned deaf_len;      /* looks in a row that found it deaf */
    bool has_received;      /* it has taken in a frame */
    uint64_t look_at_ns;    /* the next look */
    uint64_t not_before_ns; /* the next renewal */
    uint64_t pause_ns;      /* between two */
};

struct fabric {
    struct tri_carrier base;
    struct tri_carrier_config config;
    struct fi_info *info;
    struct fid_fabric *fid;
    struct fid_domain *domain;
    struct fid_av *av;
    struct fid_cq *cq;
    struct fid_ep *ep; /* NULL: could not be renewed yet */
    struct tri_address address;
    size_t provider_bytes; /* that it allocates, about */
    int cq_fd;             /* -1: the provider has no usable one */

    pthread_mutex_t domain_lock;
    uint64_t next_key;
    struct fabric_known *known;
    size_t known_len, known_size;
    LIST_HEAD(, fabric_registration) registrations;
    LIST_HEAD(, fabric_private) in_flight; /* of all lines */

    /* Poll's alone. */
    struct fabric_rx rx;
    struct fabric_renew renew;
    struct fabric_done done; /* frames to be given back */

    struct tri_lock queue_lock;
    uint32_t lines_len;      /* not disconnected */
    uint64_t waiting_due_ns; /* when one of `waiting` can go on; or never */
    struct fabric_lines lines, waiting, broke, closing;
};

/* --- fabric_provider.c --- */

/*
 * Finds the provider and the address to bind to. Ownership: *info_p is the
 * caller's, by fi_freeinfo. Errors: ETRANSPORT, ENOMEM, ESYSTEM; logged.
 */
int tri_fabric_choose(const char *provider, const char *interface,
                      struct fi_info **info_p);

/* Sets the port to bind to. False: the provider's addresses have none. */
bool tri_fabric_set_port(struct fi_info *info, uint16_t port);

/* True for two socket addresses of one family and port. */
bool tri_fabric_same_port(const void *a, const void *b);

/* The address to bind to, without its port, as text for messages. */
const char *tri_fabric_host(const struct fi_info *info,
                            char text[TRI_ENDPOINT_TEXT_BYTES]);

/* True when the provider's CQ descriptor tells the truth. */
bool tri_fabric_fd_usable(const struct fi_info *info);

/* What the provider allocates by itself, about. */
size_t tri_fabric_provider_bytes(const struct fi_info *info);

/* Failed receives that one endpoint bears; 0: any number. */
unsigned tri_fabric_failed_max(const struct fi_info *info);

/* The largest frame that goes well with the provider. */
size_t tri_fabric_frame_bytes_max(const struct fi_info *info);

/* --- fabric_line.c --- */

/* Errors: ENOMEM, ELIMIT. */
int tri_fabric_line_create(struct fabric *fabric, uint64_t node,
                           fi_addr_t address, void *peer,
                           struct fabric_line **line_p);
int tri_fabric_send(struct tri_line *line, struct tri_carrier_frame *frame);
void tri_fabric_disconnect(struct tri_line *line);

/* A send has ended; under domain_lock, from poll. */
void tri_fabric_sent_locked(struct fabric *fabric, struct fabric_private *done,
                            bool failed);

/* The endpoint is gone: all frames in flight have failed, all lines broke. */
void tri_fabric_lines_broke_locked(struct fabric *fabric);

/* Raises sent, broke and writable, frees disconnected lines. From poll. */
void tri_fabric_line_events(struct fabric *fabric);

/* When tri_fabric_line_events has something to do: 0 now, UINT64_MAX never.
 * From pending. */
uint64_t tri_fabric_line_due(struct fabric *fabric);

/* --- fabric_rx.c --- */

void tri_fabric_rx_fini(struct fabric *fabric);

/* Hands free buffers to the provider. Errors: ENOMEM, ETRANSPORT; logged. */
int tri_fabric_rx_post_locked(struct fabric *fabric);

/* When posting would do something: 0 now, UINT64_MAX never. */
uint64_t tri_fabric_rx_due(const struct fabric *fabric);

/* The endpoint is gone: what was posted is ours again. */
void tri_fabric_rx_take_back_locked(struct fabric *fabric);

/* A receive has ended; under domain_lock, from poll. */
void tri_fabric_received_locked(struct fabric *fabric,
                                const struct fi_cq_data_entry *entry);
void tri_fabric_receive_failed_locked(struct fabric *fabric,
                                      const struct fi_cq_err_entry *error);

/* Raises frame and garbage. From poll. Returns the frames delivered. */
unsigned tri_fabric_deliver(struct fabric *fabric, unsigned budget);

/* --- fabric_renew.c --- */

void tri_fabric_renew_init(struct fabric *fabric);

/* True when there should be a new endpoint. From poll. */
bool tri_fabric_is_worn(const struct fabric *fabric);

/* When it will be true without a call of poll: 0 now, UINT64_MAX never. */
uint64_t tri_fabric_renew_due(const struct fabric *fabric);

/* Closes the endpoint and opens another one at the same address; nothing that
 * arrived waits for delivery. From poll. */
void tri_fabric_renew_locked(struct fabric *fabric);

/* Closes the endpoint, if there is one. */
void tri_fabric_endpoint_close_locked(struct fabric *fabric);

/* Poll read all completions, and nothing had arrived. */
void tri_fabric_look_locked(struct fabric *fabric);

/* --- fabric.c --- */

/* Opens the endpoint at the port that `info` says. A libfabric code; not
 * logged. */
int tri_fabric_endpoint_open_locked(struct fabric *fabric);

/* Opens a completion queue, with a descriptor if the provider has a usable
 * one; else *fd_p is -1. A libfabric code; not logged. */
int tri_fabric_cq_open_locked(struct fabric *fabric, struct fid_cq **cq_p,
                              int *fd_p);

/* Reads some completions. False: there was none. */
bool tri_fabric_read_locked(struct fabric *fabric);

/*
 * To be called before libfabric makes progress. Where a connection ends before
 * its first message the tcp provider (1.17) takes errno for the reason, which
 * nobody has set; and when some earlier call left EAGAIN there, it goes on
 * waiting for that message for ever: the line is connected no more, and the
 * descriptor stays readable.
 */
static inline void tri_fabric_errno_clear(void)
{
    errno = 0;
}

/* fi_close; logs a failure. */
void tri_fabric_fid_close(struct fid *fid);

/*
 * Registers memory if the provider wants that (FI_MR_LOCAL); else, and on
 * error, *registration_p is NULL. Ended by tri_fabric_deregister_locked or
 * close. Errors: ENOMEM, ETRANSPORT; logged.
 */
int tri_fabric_register_locked(struct fabric *fabric, void *data,
                               size_t bytes, uint64_t access,
                               struct fabric_registration **registration_p);
void tri_fabric_deregister_locked(struct fabric_registration *registration);

#endif
