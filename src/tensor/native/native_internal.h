/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_NATIVE_INTERNAL_H
#define TRI_NATIVE_INTERNAL_H

/*
 * What the files of the native back end share: who lives where, and calls that
 * go through a host's memory and over links in turn.
 */

#include "tensor/native/net.h"
#include "tensor/native/shm.h"
#include "tensor/tensor.h"

/*
 * Where members live: hosts in the order of their first members, members of a
 * host, its locals, in that of the team. A column is one local of each host,
 * the leaders' that of the first ones.
 */
struct tri_layout {
    uint32_t hosts_len;
    uint32_t host;       /* ours */
    uint32_t local;      /* this member's number on it */
    uint32_t locals_len; /* on ours */
    uint32_t locals_max; /* of any host */
    bool is_even;        /* all hosts have as many */
    uint32_t *host_of;   /* by member */
    uint32_t *local_of;  /* the same */
    uint32_t *locals;    /* members of our host, by number */
    uint32_t *column;    /* members with our number, by host; where it is even,
                            or we lead */
    uint32_t *leaders;   /* by host */
};

/* Errors: ENOMEM. */
int tri_layout_init(struct tri_layout *layout, const struct tri_team *team);
void tri_layout_fini(struct tri_layout *layout);

typedef int (*tri_native_send)(void *context, uint32_t member, uint8_t kind,
                               struct tri_coll_head *head,
                               const struct tri_piece *pieces,
                               uint32_t pieces_len);

enum tri_native_way {
    TRI_WAY_SHM,  /* all on one host */
    TRI_WAY_NET,  /* none shares memory, or may */
    TRI_WAY_BOTH, /* within hosts and between them */
};

/* `what` of a record of the back end as a whole: between shm's and net's. A
 * member cannot go on, its payload says why: an int32. */
#define TRI_NATIVE_FAILED 8u

struct tri_stages;

struct tri_native {
    const struct tri_team *team;
    tri_native_send send;
    void *context;
    enum tri_native_way way;
    struct tri_layout layout;
    struct tri_shm *shm; /* NULL: not of this team, or it failed */
    bool shm_ready;
    struct tri_net *net; /* all members, or of the column; NULL: not in one */
    bool refuses_shm;    /* not told yet */
    int failed;          /* the error that ended it, on all members */
    struct tri_stages *first; /* BOTH: calls under way, in order */
};

/* As tri_backend_ops.open, over another link: for tests. */
int tri_native_open(const struct tri_team *team, tri_native_send send,
                    void *context, struct tri_backend **backend_p);

/* --- native_both.c -------------------------------------------------------- */

/* As those of tri_backend_ops. state: struct tri_stages. */
int tri_both_start(struct tri_native *native, struct tri_coll *coll);
int tri_both_progress(struct tri_native *native, struct tri_coll *coll);
void tri_both_cancel(struct tri_native *native, struct tri_coll *coll);
void tri_both_cancel_all(struct tri_native *native);

#endif
