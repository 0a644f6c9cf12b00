/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_NET_INTERNAL_H
#define TRI_NET_INTERNAL_H

/* What the files of the collectives between hosts share. See net.h. */

#include "message/message.h"
#include "tensor/native/net.h"

/* Numbers of collectives that a member may be ahead of another: small ones
 * pipeline, a root does not fill its receivers' memory. */
#define TRI_NET_AHEAD_LEN_MAX 16u
/* Segments of one collective that a member may be ahead, */
#define TRI_NET_SEGMENTS_AHEAD 8u
/* and of each later one. */
#define TRI_NET_SEGMENTS_EARLY 1u
/* Bytes that all others together may send a member that is far behind: half of
 * what the front keeps, see TRI_FRONT_INBOX_BYTES_MAX. */
#define TRI_NET_EARLY_BYTES_MAX (32u << 20)
/* Bytes that are kept of one member, and what keeping costs: more than any may
 * send at once. Who sends the same again and again does not fill the memory. */
#define TRI_NET_KEPT_BYTES_MAX (128u << 20)
/* Segments that are under way at once: while one waits another adds. */
#define TRI_NET_SLOTS 4u
/* Bits of a tag that the plan's tags take. */
#define TRI_NET_TAG_BITS 12u
#define TRI_NET_SEGMENTS_MAX (1u << (32 - TRI_NET_TAG_BITS))
/* Bytes of the vector of one segment: some transport records for each of a
 * few members, little enough that its sums stay in a cache. */
#define TRI_NET_SEGMENT_BYTES (512u << 10)
/* Calls that differ and were not told of yet. */
#define TRI_NET_MISMATCHES 8u
/* Signatures of calls that are done, for who asks late; a power of two. */
#define TRI_NET_HISTORY 64u
/* A call that stood still so long asks who it waits for. */
#define TRI_NET_STALL_NS (20ull * 1000 * 1000)
#define TRI_NET_BOX_LEN 128u /* buckets; a power of two */

/* `what` of a head. */
enum {
    TRI_NET_DATA = 16, /* those below are shm's */
    TRI_NET_MARK,     /* the mark alone */
    TRI_NET_WANT,     /* answer when number and tag (segment) may be sent */
    TRI_NET_QUERY,    /* is this your call `number`, too? */
    TRI_NET_MISMATCH, /* two calls that differ */
    TRI_NET_PING,     /* of measuring, on the data lane */
    TRI_NET_PONG,
    TRI_NET_TABLE,
};

struct tri_net_unit {
    uint64_t number;
    uint64_t segment;
};

/* Behind each head. */
struct tri_net_part {
    uint64_t signature[2];
    struct tri_net_unit mark; /* the sender's */
};

/* Behind the part of a MISMATCH. */
struct tri_net_differ {
    uint64_t origin; /* number of the calls that differ */
    uint32_t places[2];
    uint64_t signatures[2][2];
};

struct tri_net_peer {
    struct tri_net_unit mark; /* its, as known here */
    struct tri_net_unit told; /* ours, as told there */
    struct tri_net_unit want; /* it waits for; number 0: nothing */
    struct tri_net_unit asked; /* we wait for */
    uint64_t query_number; /* 0: none */
    uint64_t query_signature[2];
    bool has_sent; /* since it was told */
    size_t kept_bytes; /* in the box */
};

struct tri_net_found {
    uint64_t number; /* 0: none */
    struct tri_net_differ differ;
    bool is_reported;
};

/* A segment under way. */
struct tri_net_slot {
    uint64_t segment;
    uint32_t step;
    bool is_active;
    char *acc; /* first block's; the accumulation type */
    size_t len;    /* elements, of a block where stride is not 0 */
    size_t stride; /* elements between blocks; 0: len is cut into blocks */
};

struct tri_net_call {
    struct tri_net_call *next; /* by number */
    struct tri_net_request request;
    struct tri_net_plan *plan;
    size_t acc_bytes;  /* of an element */
    size_t user_bytes;
    size_t segment_len; /* elements; of a block, where blocks are members' */
    uint64_t segments;
    uint64_t next_segment;
    uint64_t done_segments; /* without a gap */
    uint64_t done_mask;     /* of those behind, from done_segments on */
    char *scratch; /* for all slots; NULL: sums are made in out */
    size_t scratch_bytes;
    int rc;        /* an error that ended it */
    uint64_t ask_ns; /* when to ask, if nothing moves; 0: it moved */
    struct tri_net_slot slots[TRI_NET_SLOTS];
};

enum tri_net_opening {
    TRI_NET_OPEN,
    TRI_NET_MEASURING, /* place 0 */
    TRI_NET_TELLING,   /* place 0 */
    TRI_NET_AWAITING,
};

struct tri_net_trial {
    enum tri_net_opening state;
    uint32_t round;
    bool is_sent;
    uint64_t sent_ns;
    uint64_t small_ns, large_ns; /* the fastest round trips */
    uint32_t pong_bytes; /* owed to place 0: PING's; UINT32_MAX: none */
    uint32_t told;       /* members that have the table */
    char *memory;        /* of large pings */
};

struct tri_net {
    struct tri_net_config config;
    struct tri_net_table table;
    struct tri_net_trial trial;
    struct tri_net_call *calls; /* active, by number */
    uint64_t started_max;
    uint32_t moves;
    struct tri_net_unit mark;
    bool is_starved; /* there was no memory for what arrived */
    bool is_flooded; /* a member sent more than it may */
    struct tri_net_found found[TRI_NET_MISMATCHES];
    uint32_t found_next;
    struct {
        uint64_t number;
        uint64_t signature[2];
        bool failed;
    } history[TRI_NET_HISTORY];
    struct tri_message *box[TRI_NET_BOX_LEN]; /* newest first */
    size_t box_len;
    char *spare; /* scratch to be used again */
    size_t spare_bytes;
    struct tri_piece *pieces; /* of one send: a part, and each block */
    struct tri_net_peer peers[];
};

static inline bool tri_net_unit_before(struct tri_net_unit a,
                                       struct tri_net_unit b)
{
    return a.number < b.number ||
           (a.number == b.number && a.segment < b.segment);
}

/* net_box.c: what arrived and is not wanted yet. keep takes the message; false:
 * it was too much of this member, and is freed. */
bool tri_net_box_keep(struct tri_net *net, uint32_t member, uint64_t number,
                      uint32_t tag, size_t offset, struct tri_message *message);
/* NULL: not there. Its part begins at payload + fixed_bytes. */
struct tri_message *tri_net_box_take(struct tri_net *net, uint32_t member,
                                     uint64_t number, uint32_t tag);
/* Frees those of a number; 0: all. */
void tri_net_box_drop(struct tri_net *net, uint64_t number);
/* The first of this number, or the next one; NULL: none. It stays. */
const struct tri_message *
tri_net_box_peek(const struct tri_net *net, uint64_t number,
                 const struct tri_message *after);

/* net.c */
struct tri_net_call *tri_net_find(struct tri_net *net, uint64_t number);
int tri_net_send(struct tri_net *net, uint32_t member, uint8_t kind,
                 struct tri_coll_head *head, const uint64_t signature[2],
                 const struct tri_piece *pieces, uint32_t pieces_len);
void tri_net_advance(struct tri_net *net);
void tri_net_want(struct tri_net *net, uint32_t member,
                  struct tri_net_unit unit);
bool tri_net_may_send(const struct tri_net *net, uint32_t member,
                      struct tri_net_unit unit);
/* Tells all that `member` and this one differ. */
void tri_net_differ(struct tri_net *net, uint64_t number,
                    const uint64_t mine[2], uint32_t member,
                    const uint64_t theirs[2]);
void tri_net_tell_differ(struct tri_net *net, uint64_t number,
                         const struct tri_net_differ *differ);
/* Of what arrived before the call was made. */
void tri_net_compare_early(struct tri_net *net,
                           const struct tri_net_call *call);
void tri_net_query(struct tri_net *net, uint32_t member,
                   const struct tri_net_request *request);
/* The signature of our call of that number; NULL: it is not known, or not
 * called yet. */
const uint64_t *tri_net_signature(struct tri_net *net, uint64_t number);
struct tri_net_found *tri_net_found(struct tri_net *net, uint64_t number);

/* net_table.c */
struct tri_net_choice {
    enum tri_net_algorithm algorithm;
    size_t segment_len; /* elements */
};
struct tri_net_choice tri_net_choose(const struct tri_net *net,
                                     const struct tri_net_request *request,
                                     size_t acc_bytes);
void tri_net_trial_open(struct tri_net *net);
int tri_net_trial_progress(struct tri_net *net);
void tri_net_trial_received(struct tri_net *net, uint32_t member,
                            const struct tri_coll_head *head, const char *data,
                            size_t bytes);

#endif
