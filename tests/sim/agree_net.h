/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_AGREE_NET_H
#define TESTS_AGREE_NET_H

/*
 * Agreement among a few, explored: the unchanged cores, and a scheduler that
 * does the worst. Each step it picks, by the seed, one of: deliver any message
 * on its way, lose it, double it, ring any node's clock (each has its own),
 * crash a node (also in the midst of what it sends), tell a node of a death
 * (proven or not, true or false), vote, come to a boundary or leave it, join,
 * leave, renew, quit, begin another life. After it, calm: nothing is lost any
 * more, all are told the truth, and all that live have to come to one view.
 *
 * Checked after every step, by numbers of agree_core.h:
 *   1. one view for an epoch: among the living, or (without `proof`) ever;
 *   2. epochs one by one; only views that have the node;
 *   3. a promise is never lowered, nothing is accepted above it;
 *   4. nobody has committed, or will, more than the next view's mark; who
 *      stays is prepared for it;
 *   5. order and `since` of the members.
 */

#include "base/random.h"
#include "group/agree_core.h"

#define AGREE_NODES_MAX 8u
#define AGREE_LETTERS_MAX 256u
#define AGREE_EPOCHS_MAX 64u
#define AGREE_ATTEMPT_NS 1000000ull

struct agree_net_config {
    uint64_t seed;
    uint32_t members;  /* of the first view: nodes 1 and up */
    uint32_t nodes;    /* those beyond the members may join */
    uint32_t steps;    /* before the calm */
    bool proof;
    uint32_t ablate;
    uint32_t crashes_max; /* proven to all in the end */
    uint32_t false_deaths_max;
    uint32_t churn;    /* joins, leaves and quits: at most */
    uint32_t loss;     /* of 100 picks of a message: how many lose it */
    uint32_t doubles;
};

struct agree_letter { /* kept in the order sent */
    uint32_t from, to; /* places in nodes */
    size_t bytes;
    unsigned char *data;
};

struct agree_node {
    struct tri_agree *agree; /* NULL: no part in the group */
    uint64_t id;
    uint64_t now_ns;
    bool is_alive;    /* its process */
    bool is_suspect;  /* declared dead falsely */
    bool is_over;     /* excluded or parted, this life */
    bool is_crashing; /* its next letters are not sent any more */
    bool is_at_boundary;
    bool leaves;
    uint8_t told[AGREE_NODES_MAX]; /* of deaths: 1 told, 2 with proof */
    bool known[AGREE_NODES_MAX];

    /* Of the epoch, as users of the view keep it. */
    uint64_t epoch;
    struct agree_seen *view;
    uint64_t committed;
    uint64_t prepared;
    uint64_t seen[AGREE_NODES_MAX];

    uint64_t promised; /* as last looked at */
    uint64_t promised_epoch;
    const struct agree_seen *views[AGREE_EPOCHS_MAX]; /* installed */
    uint64_t prepared_at[AGREE_EPOCHS_MAX];
};

/* A view that somebody installed. Two of an epoch: one of nodes that died. */
struct agree_seen {
    uint64_t digest; /* 0: none */
    uint64_t mark;
    uint64_t committed; /* the most that anybody did in it */
    bool has_next;
    uint64_t next_mark; /* of the view that followed */
    uint32_t len;
    struct tri_agree_member members[AGREE_NODES_MAX];
};

#define AGREE_SEEN_MAX 128u

struct agree_net {
    struct agree_net_config config;
    struct tri_random random;
    struct agree_node nodes[AGREE_NODES_MAX];
    struct agree_letter letters[AGREE_LETTERS_MAX];
    uint32_t letters_len;
    struct agree_seen views[AGREE_SEEN_MAX];
    uint64_t cut;      /* bit from * 8 + to: nothing comes through */
    uint32_t crashes, false_deaths, churn;
    uint32_t crash_after; /* copies that the crashing node still sends;
                             UINT32_MAX: none crashes */
    uint32_t posted;   /* letters sent */
    uint32_t crash_at; /* who sends this one crashes with it; 0: nobody */
    bool is_calm;
    uint64_t installs, messages;
    char failure[256]; /* empty: none */
};

void agree_net_init(struct agree_net *net,
                    const struct agree_net_config *config);
void agree_net_fini(struct agree_net *net);

/* The whole run, calm included. Failure says what is wrong. */
void agree_net_run(struct agree_net *net);

/* Parts of it, for scripted runs. */
void agree_net_step(struct agree_net *net, uint32_t at,
                    struct tri_agree_event event);
void agree_net_deliver(struct agree_net *net, uint32_t letter);
void agree_net_lose(struct agree_net *net, uint32_t letter);
/* The last letter of that kind on this way; UINT32_MAX: none. */
uint32_t agree_net_find(const struct agree_net *net, uint32_t from,
                        uint32_t to, uint8_t kind);
/* Sets the node's clock to what it waits for. */
void agree_net_ring(struct agree_net *net, uint32_t at);
/* The next clock that rings, all being set forward. */
void agree_net_ring_next(struct agree_net *net);
/* All that live and take part are in one view of exactly them. */
bool agree_net_is_settled(const struct agree_net *net);
/* Its work of a step is done; it looks who else's is, and commits if all. */
void agree_net_prepare(struct agree_net *net, uint32_t at);
void agree_net_vote(struct agree_net *net, uint32_t at);
void agree_net_crash(struct agree_net *net, uint32_t at);
void agree_net_tell(struct agree_net *net, uint32_t at, uint32_t of,
                    bool proof);
/* Begins a life outside, which asks `to`; or itself, or nodes: all. */
void agree_net_join(struct agree_net *net, uint32_t at, uint32_t to);
void agree_net_calm(struct agree_net *net);
void agree_net_failed(struct agree_net *net, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
