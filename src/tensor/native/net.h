/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_NET_H
#define TRI_NET_H

/*
 * Collectives over links: the algorithms of net_plan.h by COLL records, for any
 * members that have links to each other. Never blocks, can be ended at any
 * point, and knows of no thread, clock or link but what its config gives it: a
 * test runs many instances in one process.
 *
 * Invariants:
 *  1. A vector is cut into segments, each of which goes through the plan by
 *     itself. A unit is a segment of a collective; units are ordered by
 *     collective, then by segment. A member's mark is its first unit that is
 *     not done.
 *  2. A unit is sent to a member only if it is close enough to the member's
 *     mark that is known (may_send). So what a member has to keep is bounded,
 *     also when others run ahead. The first unit that is not done anywhere may
 *     always be sent, so somebody always goes on.
 *  3. Marks travel with all data; who has to wait for one asks for it (WANT)
 *     and is answered when it is near enough.
 *  4. User memory is read and written by tri_net_progress alone. What arrives
 *     is kept until that wants it.
 *  5. All that arrives carries the sender's signature of the collective. Who
 *     waits for long asks with his own whether the other is in the same call
 *     (QUERY). Who finds a difference tells all (MISMATCH).
 */

#include "tensor/native/net_plan.h"
#include "tensor/tensor.h"

struct tri_net;
struct tri_net_call;

/* What the choice of algorithms is made from; all members have the same, as
 * place 0 measures it and tells. */
struct tri_net_table {
    uint32_t version;       /* 0: none yet */
    uint32_t segment_bytes; /* of the vector */
    uint64_t latency_ns;    /* of a small message */
    uint64_t mib_ns;        /* of a MiB more */
};

struct tri_net_config {
    uint32_t len;   /* members */
    uint32_t index; /* of them */
    bool canonical; /* no ring that adds: always the canonical order */
    size_t segment_bytes_max; /* of what place 0 chooses; 0: as it likes */
    enum tri_net_algorithm force; /* for tests: where there is such a plan */
    const struct tri_net_table *table; /* NULL: measured at open */
    void *context;
    /* As tri_team_send. */
    int (*send)(void *context, uint32_t member, uint8_t kind,
                struct tri_coll_head *head, const struct tri_piece *pieces,
                uint32_t pieces_len);
    uint64_t (*now_ns)(void *context);
};

/* A call, as struct tri_coll has it; places are those of the config. */
struct tri_net_request {
    uint64_t number; /* grows */
    uint8_t kind;
    uint8_t type;
    uint8_t op;
    uint32_t root;
    size_t count;
    const void *in;
    void *out;
    uint64_t signature[2];
    uint32_t divisor; /* AVG: of the sum */
};

/* Who called something else, and what. */
struct tri_net_mismatch {
    uint64_t number; /* of the call, or of one before it that was done */
    uint32_t witness; /* a member that called otherwise than the culprit */
    uint64_t witness_signature[2];
    uint32_t culprit;
    uint64_t signature[2];
};

/* Errors: ENOMEM. */
int tri_net_open(const struct tri_net_config *config, struct tri_net **net_p);

/* TRI_COLL_PENDING until the table is there. Errors: ENODE, ENOMEM. */
int tri_net_open_progress(struct tri_net *net);

/* Ends all calls that are left. */
void tri_net_close(struct tri_net **net_p);

/* Errors: ENOMEM. */
int tri_net_start(struct tri_net *net, const struct tri_net_request *request,
                  struct tri_net_call **call_p);

/* TRI_COLL_PENDING, 0 or EMISMATCH (*mismatch_p is filled in), EPROTO, ENODE,
 * ENOMEM. The call is still to be ended. */
int tri_net_progress(struct tri_net *net, struct tri_net_call *call,
                     struct tri_net_mismatch *mismatch_p);

void tri_net_end(struct tri_net *net, struct tri_net_call **call_p);

/* As `received` of tri_backend_ops. False: it makes no sense, or is more than a
 * member may send; then the calls end with EPROTO. */
bool tri_net_received(struct tri_net *net, uint32_t member,
                      const struct tri_coll_head *head, const void *payload,
                      size_t bytes, struct tri_message *message);

/* Grows when anything got on: then it is worth while to look again at once. */
uint32_t tri_net_moves(const struct tri_net *net);

/* The table in use. */
const struct tri_net_table *tri_net_table(const struct tri_net *net);

/* Messages that are kept, for tests. */
size_t tri_net_kept(const struct tri_net *net);

#endif
