/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_MEMBER_INTERNAL_H
#define TRI_MEMBER_INTERNAL_H

/* What the files of the membership driver know of each other. */

#include "actor/runtime.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "member/contacts.h"
#include "member/hello.h"
#include "member/member.h"
#include "member/roster.h"

/* Of joining by seeds. Who starts the node goes from NONE to WANTED; the
 * control thread does the rest. */
enum tri_joining {
    TRI_JOINING_NONE,
    TRI_JOINING_WANTED,
    TRI_JOINING_RUNS,
    TRI_JOINING_DONE,
    TRI_JOINING_REFUSED,
};

/* Of leaving, in the same way. */
enum tri_leaving {
    TRI_LEAVING_NONE,
    TRI_LEAVING_WANTED,
    TRI_LEAVING_RUNS,
    TRI_LEAVING_DONE,
};

#define TRI_SUSPECTS_MAX 64

/* What other threads say to the control thread. */
struct tri_member_orders {
    _Atomic uint32_t any;  /* something is in here */
    _Atomic uint32_t died; /* the link ended some peers */
    _Atomic uint32_t joining; /* enum tri_joining */
    _Atomic uint32_t leaving; /* enum tri_leaving */
    _Atomic uint32_t stopping; /* troupe_stop was called here */
    _Atomic uint32_t all_stopping; /* and on all ranks */
    struct tri_lock lock;
    uint64_t view_epoch, view_digest; /* lock */
    uint32_t suspects_len; /* lock; what does not fit is found by probes */
    uint64_t suspects[TRI_SUSPECTS_MAX];
};

/* What is known of the core's numbers outside of the control thread. */
enum tri_member_metric {
    TRI_MEMBER_PROBES,
    TRI_MEMBER_PROBES_FAILED,
    TRI_MEMBER_SUSPICIONS,
    TRI_MEMBER_REFUTATIONS,
    TRI_MEMBER_DEATHS,
    TRI_MEMBER_NOT_JUDGED,
    TRI_MEMBER_PAUSES,
    TRI_MEMBER_HEALTH,
    TRI_MEMBER_RTT_US,
    TRI_MEMBER_METRICS,
};

/* Written by the control thread alone, read by all. */
struct tri_member_counts {
    _Atomic uint64_t metrics[TRI_MEMBER_METRICS]; /* as of its last round */
    _Atomic uint64_t packets_in, bytes_in, packets_out, bytes_out;
    _Atomic uint64_t late_max_ns, late_sum_ns, ticks;
};

/* The packet that is being handled: who joined by it has its card in it. */
struct tri_arriving {
    const struct tri_swim_packet *swim; /* NULL: none */
    struct tri_endpoint from;
};

struct tri_member {
    struct tri_runtime *runtime;
    uint64_t node;
    uint64_t host;
    uint64_t cluster;
    uint64_t cluster_name;
    struct tri_udp socket; /* own.family 0: none */
    uint32_t nodes_max;
    enum tri_swim_profile profile;
    struct tri_transport *ring;
    struct tri_transport *fabric;
    struct tri_packet_key *key;    /* NULL: security is "none" */
    struct tri_packet_key *secret; /* of our cookies */
    struct tri_swim *swim;
    struct tri_contacts contacts;
    struct tri_random random;
    int epoll_fd; /* socket and pidfds */
    uint64_t counter; /* of packets sent */

    struct tri_member_client clients[TRI_MEMBER_CLIENTS_MAX];
    uint32_t clients_len;
    uint64_t clients_due_ns;

    /* joining */
    struct tri_seeds seeds;
    struct tri_cookie cookies[TRI_SEEDS_MAX];
    struct tri_endpoint remembered; /* where a member was: called last */
    struct tri_cookie remembered_cookie;
    struct tri_swim_packet join; /* sent last */
    bool join_pending;           /* it may be sent again with a cookie */
    bool joined_once;            /* a JOIN went out */
    uint64_t token;
    struct tri_parker joiner;    /* who waits */
    _Atomic int join_error;

    bool excluded;
    bool more; /* datagrams are left in the socket */
    bool ends; /* contacts are marked as ended */
    uint32_t rounds_without_tick;
    uint64_t heard_ns; /* when life was looked for in the link */
    uint64_t reap_ns;
    uint64_t hints_ns; /* rate of REFUSED to strangers */
    uint32_t hints_len;
    uint64_t unreachable_ns;
    _Atomic uint32_t others; /* living members of other jobs */

    struct tri_member_counts counts;
    struct tri_member_orders orders;
    struct tri_arriving arriving;
    struct tri_member_card cards[TRI_SWIM_RUMOURS_MAX];
    struct tri_swim_packet packet;
    struct tri_swim_effects effects;
};

/* --- member.c ------------------------------------------------------------- */

/* One event, and all that comes of it. */
void tri_member_step(struct tri_member *member, struct tri_swim_event *event);

void tri_member_evidence(struct tri_member *member, uint64_t node,
                         enum tri_swim_evidence evidence, uint64_t now_ns);

/* Seals and sends. Errors: ETOOBIG, ESYSTEM, … of tri_udp_send. */
int tri_member_post(struct tri_member *member, const struct tri_packet *packet,
                    const struct tri_endpoint *to);

/* --- seed.c: JOINs in and out --------------------------------------------- */

/* A JOIN of the core's. */
void tri_member_send_join(struct tri_member *member,
                          const struct tri_swim_packet *swim);

/* A JOIN came: NULL when its body is left for the core to see, in *packet;
 * else it is done with, or why not. */
bool tri_member_take_join(struct tri_member *member, struct tri_packet *packet,
                          const struct tri_endpoint *from, uint64_t now_ns);

/* Whether a joiner with such a card may be a member. 0, or why not. */
int tri_member_may_join(struct tri_member *member,
                        const struct tri_member_card *card);

void tri_member_refuse_join(struct tri_member *member,
                            const struct tri_packet *packet, uint64_t token,
                            const struct tri_endpoint *to, int error);

void tri_member_take_challenge(struct tri_member *member,
                               const struct tri_packet *packet,
                               const struct tri_endpoint *from);
void tri_member_take_refused(struct tri_member *member,
                             const struct tri_packet *packet,
                             const struct tri_endpoint *from);

/* A datagram that could not be opened: if it asks to join, says why it cannot,
 * without a tag, and not too often. */
void tri_member_hint(struct tri_member *member, const unsigned char *data,
                     size_t bytes, const struct tri_endpoint *from,
                     uint64_t now_ns);

/* --- receive.c ------------------------------------------------------------ */

/* Takes in datagrams, a bounded number. True: there may be more. */
bool tri_member_receive(struct tri_member *member, uint64_t now_ns);

/* --- stats.c: the control thread ------------------------------------------ */

/* A datagram that passed all checks; one that went out. */
void tri_member_count_in(struct tri_member *member, size_t bytes);
void tri_member_count_out(struct tri_member *member, size_t bytes);

/* Timers were due so long ago. */
void tri_member_count_late(struct tri_member *member, uint64_t late_ns);

/* Shows the core's numbers to others. */
void tri_member_publish(struct tri_member *member);

/* --- watch.c -------------------------------------------------------------- */

/* Watches the process of a member on this host. False: it has ended. */
bool tri_member_watch(struct tri_member *member, struct tri_contact *contact,
                      const struct tri_member_card *card);
void tri_member_unwatch(struct tri_member *member, struct tri_contact *contact);

/* Marks contacts whose processes have ended. True: the socket is readable. */
bool tri_member_look(struct tri_member *member);

/* Whether a node of this host cannot answer for want of a core. context: the
 * struct tri_member. */
bool tri_member_is_starved(void *context, uint64_t node);

#endif
