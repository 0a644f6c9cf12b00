/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_QUIESCE_CORE_H
#define TRI_QUIESCE_CORE_H

/*
 * When is nothing under way any more? One node's side of a collective call
 * that ends when all living members are in it and none has a message in
 * flight or unhandled.
 *
 * Mattern's four-counter method (F. Mattern, "Algorithms for distributed
 * termination detection", Distributed Computing 2, 1987): in a round, every
 * member reports how many messages it has sent and received, at a moment when
 * it is idle. Two rounds in a row with the same sums, sent equal to received:
 * then no message was in flight at any moment between the two, or it would
 * have changed the second sums.
 *
 * The lowest living rank is the coordinator: it counts who is in the call,
 * makes the rounds and says when it is over. The rounds of one set of calls
 * are an instance.
 *
 *     member                      coordinator
 *     JOIN  -------------------->   all are in: a new instance
 *           <--------------------   ROUND
 *     idle now: REPORT --------->   all have reported: once more, or later
 *           <--------------------   DONE
 *     deadline: LEAVE  --------->   no instance until it joins again
 *
 * Invariants
 *  1. Sums are over members that the reporter holds for living. Every report
 *     names its set of the dead; a round counts only if all sets are the
 *     coordinator's. So traffic with the dead is written off, and either by
 *     both sides or the round is void.
 *  2. An instance is over for all who took part, or for none: a coordinator
 *     that dies while it says so leaves the word to those it told. Their next
 *     message to the new coordinator (JOIN, LEAVE) names the last instance
 *     that is over, and who was still in it is told then. All living took
 *     part in what is over, so a call that took part in it or in an earlier
 *     one is over, also if it takes part in a later one by now.
 *  3. Instances have numbers above all that any member of the call has seen,
 *     rounds above all of this coordinator. Reports of another are dropped.
 *  4. Two nodes that both hold themselves for the coordinator differ in who is
 *     dead; invariant 1 lets at most one of them finish.
 * Messages between two living nodes are not lost. They may overtake each other.
 *
 * Pure: no clock, no memory, no sending of its own.
 */

#include "base/base.h"

/* --- messages ------------------------------------------------------------- */

/*
 * The payload of a TRI_QUIESCE record, little-endian:
 *      0      1       2     4      8          16      24     32         40
 *      |kind  |flags  |len  |call  |instance  |round  |sent  |received  |dead
 *     48           52          56      64
 *      |absent_len |busy_len   |first  |entries: len * { who u32, what u32 }
 * first is zero but in a JOIN. What else a kind does not use is zero, too, but
 * not checked.
 */
#define TRI_QUIESCE_HEADER_BYTES 64u
#define TRI_QUIESCE_ENTRIES_MAX 16u
#define TRI_QUIESCE_BYTES_MAX                                                 \
    (TRI_QUIESCE_HEADER_BYTES + 8u * TRI_QUIESCE_ENTRIES_MAX)

enum tri_quiesce_kind {
    TRI_QUIESCE_JOIN = 1, /* call; first, instance: the first and last of this
                             call; round: the last instance that is over,
                             flags: how */
    TRI_QUIESCE_LEAVE,    /* not in a call up to this one; round, flags: as in
                             JOIN */
    TRI_QUIESCE_CALL,     /* who is in? Answered by JOIN or LEAVE */
    TRI_QUIESCE_ROUND,    /* instance, round */
    TRI_QUIESCE_REPORT,   /* instance, round, flags, sent, received, dead */
    TRI_QUIESCE_DONE,     /* instance, flags; when it gave up, as STATUS */
    TRI_QUIESCE_QUERY,    /* what is it waiting for? */
    TRI_QUIESCE_STATUS,   /* absent_len, busy_len, sent, received, entries:
                             rank, enum tri_quiesce_why */
    /* Between any two nodes, without the core: */
    TRI_QUIESCE_COUNT,    /* call, sent: so many have left me for you */
    TRI_QUIESCE_LATE,     /* call, sent: so many of them are not here */
    TRI_QUIESCE_WHO,      /* call: which of your actors are busy? */
    TRI_QUIESCE_BUSY,     /* call, busy_len, entries: slot, generation */
    TRI_QUIESCE_KIND_LAST = TRI_QUIESCE_BUSY,
};

/* flags */
enum {
    TRI_QUIESCE_ACTORS = 1,  /* REPORT: actors run, or have messages */
    TRI_QUIESCE_OUTBOX = 2,  /* REPORT: messages wait to be sent */
    TRI_QUIESCE_GAVE_UP = 4, /* it is over, but not quiet */
    TRI_QUIESCE_FLAGS = 7,
};

enum tri_quiesce_why {
    TRI_QUIESCE_IS_ABSENT = 1,
    TRI_QUIESCE_HAS_ACTORS,
    TRI_QUIESCE_HAS_OUTBOX,
    TRI_QUIESCE_IS_SILENT, /* in the call, but does not report */
};

struct tri_quiesce_entry {
    uint32_t who;
    uint32_t what;
};

struct tri_quiesce_message {
    uint8_t kind;
    uint8_t flags;
    uint16_t len; /* of entries */
    uint32_t call;
    uint64_t instance;
    uint64_t round;
    uint64_t sent;
    uint64_t received;
    uint64_t dead;
    uint32_t absent_len; /* of all, not only of those in entries */
    uint32_t busy_len;
    uint64_t first;
    struct tri_quiesce_entry entries[TRI_QUIESCE_ENTRIES_MAX];
};

/* Returns the bytes used, at most TRI_QUIESCE_BYTES_MAX. */
size_t tri_quiesce_encode(const struct tri_quiesce_message *message,
                          unsigned char *bytes_p);

/* False: it is malformed. */
bool tri_quiesce_decode(const unsigned char *data, size_t bytes,
                        struct tri_quiesce_message *message_p);

/* --- the core ------------------------------------------------------------- */

/* Between two rounds that found somebody busy: from, doubled up to. */
#define TRI_QUIESCE_PAUSE_MIN_NS 100000ull
#define TRI_QUIESCE_PAUSE_MAX_NS 4000000ull
/* A member that is asked while it is busy waits so long for being idle. */
#define TRI_QUIESCE_LINGER_NS 2000000ull
/* Who has not reported after this time is named as silent. */
#define TRI_QUIESCE_SILENCE_NS 50000000ull
/* A quarter of the time, and no more than this, before the deadline the
 * coordinator is asked what is missing. */
#define TRI_QUIESCE_QUERY_NS 50000000ull

#define TRI_QUIESCE_ALL UINT32_MAX
#define TRI_QUIESCE_NONE UINT32_MAX
#define TRI_QUIESCE_NEVER UINT64_MAX

struct tri_quiesce_member {
    uint32_t call;     /* that it is in; 0: in none */
    uint32_t left;     /* the last one that is over */
    uint64_t first, instance; /* of the call, as it joined */
    uint8_t flags;     /* of its last report */
    bool has_reported; /* in this round */
    bool is_dead;
};

enum tri_quiesce_outcome {
    TRI_QUIESCE_PENDING,
    TRI_QUIESCE_IS_QUIET,
    TRI_QUIESCE_IS_GIVEN_UP, /* all were in, patience has ended */
    TRI_QUIESCE_IS_EXPIRED,
    /* the last two: see tri_quiesce.status */
};

struct tri_quiesce {
    uint32_t self;
    uint32_t len; /* members */
    struct tri_quiesce_member *members;
    uint32_t dead_len;
    uint64_t dead; /* digest of the set */

    /* our call */
    uint32_t calls; /* made so far */
    uint32_t call;  /* 0: in none */
    uint64_t first, instance; /* seen in this call, 0: none */
    uint64_t patience_ns, deadline_ns, query_ns;
    enum tri_quiesce_outcome outcome;
    struct tri_quiesce_message status; /* the coordinator's; kind 0: none yet */

    /* the round that we have to report in */
    uint32_t asker; /* NONE: there is none */
    uint32_t last_asker;
    uint64_t asked_instance, asked_round, asked_ns;

    uint64_t done_instance; /* the last that is over */
    uint8_t done_flags;

    /* as coordinator */
    bool was_coordinator;
    bool took_over;   /* others may know of an end that we do not know */
    bool is_running;  /* an instance is */
    bool is_repeated; /* the last round was quiet */
    bool all_idle, same_dead;
    uint32_t reports_len;
    uint64_t last_instance, round;
    uint64_t round_ns;      /* when it began */
    uint64_t next_round_ns; /* NEVER: one is under way, or no instance is */
    uint64_t pause_ns;
    uint64_t sent, received;           /* of this round so far */
    uint64_t last_sent, last_received; /* of the last round */
};

enum tri_quiesce_event_kind {
    TRI_QUIESCE_ON_START,    /* a call begins */
    TRI_QUIESCE_ON_MESSAGE,
    TRI_QUIESCE_ON_DEATH,
    TRI_QUIESCE_ON_SNAPSHOT, /* our state, when tri_quiesce_wants_snapshot */
    TRI_QUIESCE_ON_TICK,     /* at tri_quiesce_next_ns */
};

struct tri_quiesce_event {
    enum tri_quiesce_event_kind kind;
    uint64_t now_ns;
    uint32_t rank; /* MESSAGE: whose; DEATH: who */
    const struct tri_quiesce_message *message;
    uint64_t patience_ns; /* START: until the coordinator gives up on those who
                             are in but not quiet */
    uint64_t deadline_ns; /* START */
    uint8_t flags;        /* SNAPSHOT: 0 is idle */
    uint64_t sent, received; /* SNAPSHOT: sums over the living */
};

/* What is to be sent. Death events may make the most: one for our part as
 * member, one as coordinator. */
#define TRI_QUIESCE_SENDS_MAX 4u

struct tri_quiesce_effects {
    uint32_t len;
    struct {
        uint32_t to; /* rank; ALL: all others that are not dead */
        struct tri_quiesce_message message;
    } sends[TRI_QUIESCE_SENDS_MAX];
    bool asks; /* the deadline is near: tell peers what was sent to them */
};

/* members: len of them, zero, the caller's memory. */
void tri_quiesce_init(struct tri_quiesce *quiesce, uint32_t self, uint32_t len,
                      struct tri_quiesce_member *members);

/* Sets *effects_p. After START, quiesce->outcome says how the call stands. */
void tri_quiesce_step(struct tri_quiesce *quiesce,
                      const struct tri_quiesce_event *event,
                      struct tri_quiesce_effects *effects_p);

/* A round waits for our report. */
static inline bool tri_quiesce_wants_snapshot(const struct tri_quiesce *quiesce)
{
    return quiesce->asker != TRI_QUIESCE_NONE;
}

/* When to tick; NEVER: not in a call. */
uint64_t tri_quiesce_next_ns(const struct tri_quiesce *quiesce);

/* The lowest rank that lives. */
uint32_t tri_quiesce_coordinator(const struct tri_quiesce *quiesce);

#endif
