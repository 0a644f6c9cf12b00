/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_SESSION_CORE_H
#define TRI_SESSION_CORE_H

/*
 * One node's side of a session with another: makes lanes that lose, repeat
 * and reorder nothing out of frames that may be lost, repeated or reordered.
 * It begins with the first frame between two lives and ends with a death, so
 * numbers are never used again and need no handshake.
 *
 * Pure: it is told what happened and when, and says what to send, keep and
 * deliver. It owns no memory: frames to be sent and frames kept out of order
 * are the caller's, linked through struct tri_stored and struct tri_held.
 *
 *   sending, for each lane
 *     store --> [to send] --handed--> [sent] --ack, sack--> free
 *                  ^                    |
 *                  +--loss found--------+
 *   receiving, for each lane
 *     number = next: deliver; higher and in the window: hold; else drop
 *
 * How a loss is found. A line keeps the order of what it carries while its
 * connection holds. So when a frame handed over later has arrived and this one
 * has not, this one is lost (or late, across connections: then it arrives
 * twice, which is harmless). An acknowledgement tells of one lane, so each lane
 * is judged by itself. For a lane's last frames there is no later one: when
 * nothing is acknowledged for a while, a probe is sent behind them, and its
 * echo tells the same. Probes are repeated with growing pauses, as a peer may
 * be stopped and not lost.
 *
 * A probe travels in an ACK frame and asks for the lane that the frame itself
 * acknowledges: the answer is an acknowledgement of that lane, with the echo.
 *
 * Credit. The receiver tells how many bytes of frames it takes on each lane
 * since the beginning: what it has consumed and a window. Control and reply
 * frames are consumed as they come; data when the link took its records. A
 * sender without credit asks by probes, so a lost credit does not block it
 * for ever. Before anything is heard a sender has its own windows as credit:
 * all nodes of a job have the same.
 */

#include <sys/queue.h>

#include "wire/frame.h"

/* Frames in a lane's store, and in its window: what ack and sack can name. */
#define TRI_SESSION_FRAMES_MAX 64u

struct tri_session_config {
    uint64_t window_bytes[TRI_LANES]; /* given to the peer */
    uint64_t ack_bytes;      /* so many unacknowledged (at most a quarter of
                                the lane's window), or */
    uint32_t ack_frames;     /* so many, are acknowledged at once, */
    uint64_t ack_delay_ns;   /* fewer after this time */
    uint64_t probe_min_ns;   /* silence before the first probe */
    uint64_t probe_max_ns;   /* the longest pause between two */
};

/* The defaults; their reasons are in session_core.c. */
extern const struct tri_session_config tri_session_config_default;

/* A frame in a store. It comes back to the caller once: in a `freed` list, by
 * tri_session_given_back, or from tri_session_end. */
struct tri_stored {
    STAILQ_ENTRY(tri_stored) next;
    uint64_t number;
    uint64_t handed;   /* the session's count at the last hand-over; 0: never */
    uint32_t bytes;
    uint8_t lane;
    bool in_flight;    /* the carrier has it */
    bool is_acked;
    bool is_lost;      /* to be sent again */
    bool is_resent;    /* was handed over more than once */
};

STAILQ_HEAD(tri_stored_list, tri_stored);

/* A frame that arrived before its turn. */
struct tri_held {
    uint64_t number;
    uint32_t bytes;
};

/* Sending on a lane. `handed` numbers are the session's. */
struct tri_session_tx {
    struct tri_stored_list store; /* not acknowledged, in order of number */
    struct tri_stored *first_new; /* of those never handed over, or NULL */
    uint32_t store_len;
    uint32_t new_len;        /* never handed over */
    uint32_t lost_len;       /* lost, and not in flight */
    uint32_t resent_len;     /* handed over more than once */
    uint32_t back_len;       /* acknowledged, and the carrier has them still */
    uint64_t next_number;
    uint64_t acked;          /* all up to this number */
    uint64_t bytes;          /* of all frames stored so far */
    uint64_t credit;         /* of the peer's giving */
    uint64_t arrived_handed; /* the latest hand-over known to have arrived */
    uint64_t probe_handed;   /* the hand-over of the probe, the first time */
    uint64_t probe_due_ns;   /* UINT64_MAX: nothing to ask for */
    uint64_t probe_pause_ns;
    uint32_t probe;
    bool is_probing;   /* the probe has no echo yet */
    bool wants_credit; /* the caller could not store for want of it */
};

struct tri_session_rx {
    uint64_t next_number;
    uint64_t arrived;    /* mask: bit i: next_number + i is held */
    struct tri_held *held[TRI_SESSION_FRAMES_MAX]; /* by number, wrapped */
    uint64_t delivered;  /* bytes */
    uint64_t held_bytes;
    uint64_t consumed;   /* bytes */
    uint64_t told_credit;
    uint64_t gap_number; /* the last gap that was told at once */
    uint32_t unacked_frames;
    uint64_t unacked_bytes;
    uint64_t ack_due_ns; /* UINT64_MAX: none owed */
    uint32_t echo_owed;  /* 0: none */
};

struct tri_session {
    struct tri_session_config config;
    struct tri_session_tx tx[TRI_LANES];
    struct tri_session_rx rx[TRI_LANES];
    uint64_t handed;        /* frames and probes handed over */
    uint64_t ack_number;    /* of the last ACK frame */
    uint64_t ack_seen;      /* replay window of the peer's: the highest, */
    uint64_t ack_window;    /* bit i: ack_seen - i was seen */
    uint64_t failed_handed; /* `handed` when a failure was last counted */
    uint64_t failed_pause_ns;
    uint64_t resume_ns;     /* stored frames rest until then */
    uint32_t probe;         /* number of the last probe */
    uint8_t ack_turn;       /* lane to tell of when none is owed */
};

/* What to do with the frame that arrived. */
enum tri_session_verdict {
    TRI_SESSION_DELIVER, /* now; then look at tri_session_next_held */
    TRI_SESSION_HOLD,    /* keep a copy, give it to tri_session_hold */
    TRI_SESSION_DROP,    /* was there before, or beyond the window */
    TRI_SESSION_NOTHING, /* it carries no records */
};

enum tri_session_send {
    TRI_SESSION_SEND_NOTHING,
    TRI_SESSION_SEND_STORED, /* out->stored */
    TRI_SESSION_SEND_ACK,    /* an ACK frame, filled in by tri_session_ack */
};

struct tri_session_out {
    enum tri_session_send what;
    struct tri_stored *stored;
    uint8_t ack_lane; /* the lane it tells of */
    bool is_probe;    /* ACK: with a probe for that lane */
};

void tri_session_init(struct tri_session *session,
                      const struct tri_session_config *config);

/* --- sending ------------------------------------------------------------- */

/* True when a frame of `bytes` may be stored on the lane. False: the store is
 * full or credit is lacking; an acknowledgement will change that. */
bool tri_session_may_store(struct tri_session *session, enum tri_lane lane,
                           uint32_t bytes, uint64_t now_ns);

/* Takes a frame into the store, and numbers it. bytes: as it travels. */
void tri_session_store(struct tri_session *session, enum tri_lane lane,
                       struct tri_stored *stored, uint32_t bytes,
                       uint64_t now_ns);

/* The next thing to send: control before replies before data, and what is lost
 * before what is new. Changes nothing. */
struct tri_session_out tri_session_next(struct tri_session *session,
                                        uint64_t now_ns);

/* Fills in what a frame tells of acknowledgements: ack, sack, credit, ack_lane,
 * probe, echo; and kind, lane and number. Changes nothing in the session. */
void tri_session_fill(const struct tri_session *session,
                      const struct tri_session_out *out,
                      struct tri_frame *frame);

/* The carrier took what was next. frame: its header, or NULL when it went out
 * before (stored->handed is not 0) and tells old news. */
void tri_session_handed(struct tri_session *session,
                        const struct tri_session_out *out,
                        const struct tri_frame *frame, uint64_t now_ns);

/*
 * The carrier gave a stored frame back. ok: as in tri_carrier_events. True:
 * it is acknowledged and out of the store: the caller's to free.
 */
bool tri_session_given_back(struct tri_session *session,
                            struct tri_stored *stored, bool ok,
                            uint64_t now_ns);

/* The connection broke: all that is not acknowledged is sent again. */
void tri_session_broke(struct tri_session *session, uint64_t now_ns);

/* The session ends: all that is not acknowledged, control first, each lane in
 * order. Frames in flight among them stay in use until they are given back:
 * is_acked is set, so that tri_session_given_back says when. Nothing is sent
 * any more; frames that were kept are taken out by tri_session_take_held. */
void tri_session_end(struct tri_session *session,
                     struct tri_stored_list *rest_p);

/* --- receiving ----------------------------------------------------------- */

/*
 * A frame arrived whose header and tag are good. Frames that its
 * acknowledgement freed are appended to `freed`. After DELIVER the caller
 * takes all of tri_session_next_held before it calls this again.
 */
enum tri_session_verdict tri_session_receive(struct tri_session *session,
                                             const struct tri_frame *frame,
                                             uint64_t now_ns,
                                             struct tri_stored_list *freed);

/* Keeps a frame whose verdict was HOLD; number and bytes are its header's.
 * Without this call (no memory) it is as if it had been lost. */
void tri_session_hold(struct tri_session *session, enum tri_lane lane,
                      struct tri_held *held);

/* The kept frame whose turn has come, now the caller's; or NULL. */
struct tri_held *tri_session_next_held(struct tri_session *session,
                                       enum tri_lane lane);

/* Bytes of delivered frames that were consumed: more may come. */
void tri_session_consumed(struct tri_session *session, enum tri_lane lane,
                          uint64_t bytes, uint64_t now_ns);

/* A kept frame, any, taken out; or NULL. For the end. */
struct tri_held *tri_session_take_held(struct tri_session *session);

/* --- time ---------------------------------------------------------------- */

/* When tri_session_next has to be asked again at the latest, after it had
 * nothing and though nothing else happened; UINT64_MAX: never. (While the
 * carrier is full this may lie in the past: wait for the carrier.) */
uint64_t tri_session_due_ns(const struct tri_session *session);

/* True when all that was stored is acknowledged. */
bool tri_session_is_clear(const struct tri_session *session);

/* For tests: the first invariant (of session_core.c) that does not hold, or
 * NULL. Walks everything. */
const char *tri_session_check(const struct tri_session *session);

#endif
