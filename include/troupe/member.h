/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_MEMBER_H
#define TROUPE_MEMBER_H

/*
 * Membership: which nodes take part, and who has died. Every node has its own
 * opinion; opinions agree within about a second (doc/failure.md says how soon).
 * The ranks of a job are members from the start. Other processes join by the
 * address of any member (option seeds), and leave with troupe_stop.
 */

#include <troupe/error.h>
#include <troupe/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum troupe_member_state {
    TROUPE_MEMBER_ALIVE = 1,
    TROUPE_MEMBER_SUSPECT, /* silent; it may still say that it lives */
    TROUPE_MEMBER_DEAD,    /* for good: a process that comes back is another
                              node, with another id */
    TROUPE_MEMBER_LEFT,    /* it said goodbye; for good, too */
};

/* How sure a death is. */
enum troupe_evidence {
    TROUPE_EVIDENCE_NONE,
    TROUPE_EVIDENCE_SILENCE,    /* it did not answer anybody in time */
    TROUPE_EVIDENCE_CONNECTION, /* its connections closed, then silence */
    TROUPE_EVIDENCE_PROOF,      /* its process has ended */
};

#define TROUPE_MEMBER_NAME_MAX 63
#define TROUPE_MEMBER_TAGS_MAX 255

typedef struct troupe_member {
    uint64_t node;
    uint64_t host; /* members with the same value can share memory */
    uint64_t job;  /* members with the same value belong to one MPI job */
    int rank;      /* in its job; alone: 0 */
    uint32_t state;    /* enum troupe_member_state */
    uint32_t evidence; /* enum troupe_evidence, of a death */
    uint32_t incarnation;
    uint32_t cores;
    float load;    /* actors that run or could run there and messages that wait
                      for them, for each core; as it said last. A member says
                      so when it changed by a quarter, twice a second at most;
                      an idle one: 0 */
    char name[TROUPE_MEMBER_NAME_MAX + 1]; /* option node_name; else "" */
    char tags[TROUPE_MEMBER_TAGS_MAX + 1]; /* troupe_member_tag; else "" */
} troupe_member_t;

enum troupe_member_what {
    TROUPE_MEMBER_JOINED = 1,
    TROUPE_MEMBER_SUSPECTED,
    TROUPE_MEMBER_RECOVERED, /* it refuted the suspicion */
    TROUPE_MEMBER_DIED,      /* member.evidence says how sure that is */
    TROUPE_MEMBER_PARTED,    /* it left */
    TROUPE_MEMBER_EXCLUDED,  /* this node: the others hold it for dead, for
                                good. It may stop, and join under a new id */
};

typedef struct troupe_member_event {
    uint32_t what; /* enum troupe_member_what */
    uint32_t lost; /* events dropped before this one, as the queue was full */
    troupe_member_t member;
} troupe_member_event_t;

/*
 * Lists the members as this node sees them, itself included; the dead and
 * those that left are listed for as long as they are remembered: the last
 * nodes_max of them at least. Job ranks first, in their order, then the
 * others: each keeps its place for as long as it is listed.
 * Fills in at most list_len_max; returns how many there are.
 * Context: any thread or actor. Blocking: never.
 */
size_t troupe_members(troupe_from_t from, troupe_member_t *list,
                      size_t list_len_max);

/* How many are alive or suspected, this node included. As above. */
size_t troupe_members_alive(troupe_from_t from);

/* One member. Errors: ENONODE (never heard of, or forgotten). As above. */
int troupe_member_get(troupe_from_t from, uint64_t node,
                      troupe_member_t *member_p);

/* The member of that name (option node_name) that is not dead, or the node
 * with the lowest id of several. Errors: ENONODE, EINVAL. As above. */
int troupe_member_find(troupe_from_t from, const char *name,
                       troupe_member_t *member_p);

/*
 * Waits until wanted(arg) is true. It is called on this thread at first, and
 * whenever the membership changed (states and tags); it may call
 * troupe_members. wanted NULL:
 * until at least `count` members are alive.
 * Context: any thread of the program, not in a handler; the thread serves
 * actors meanwhile. Blocking: up to timeout_ms, or TROUPE_FOREVER.
 * Errors: ETIMEDOUT, ECONTEXT, EINVAL.
 */
int troupe_members_wait(troupe_t *troupe, int (*wanted)(void *arg), void *arg,
                        size_t count, int timeout_ms);

/*
 * Subscribes the running actor to events: its on_member handler gets each from
 * now on, in order, until it ends or calls unwatch (those that are in its
 * mailbox by then still come). With `replay` it gets a JOINED for each member
 * alive now, itself included, before any other event of that member. Events do
 * not count for its mailbox's limit; one that memory lacked for is counted in
 * `lost` of the next.
 * Context: actor only. Blocking: never. Errors: ELIMIT (too many subscribers).
 */
int troupe_members_watch(troupe_self_t *self, int replay);
void troupe_members_unwatch(troupe_self_t *self);

/*
 * Takes events that no actor has to be there for, oldest first; at most
 * TROUPE_MEMBER_EVENTS_MAX are kept, then the oldest go, counted in `lost`.
 * Context: any thread. Blocking: never. Returns how many were filled in.
 */
#define TROUPE_MEMBER_EVENTS_MAX 1024
size_t troupe_member_events_take(troupe_t *troupe,
                                 troupe_member_event_t *events,
                                 size_t events_len_max);

/*
 * Sets this node's tags, which all members see soon: text of the program's
 * choice. Context: any thread or actor. Blocking: never. Errors: EINVAL (longer
 * than TROUPE_MEMBER_TAGS_MAX).
 */
int troupe_member_tag(troupe_from_t from, const char *tags);

/*
 * This node's control endpoint as others may name it in option seeds,
 * "host:port", "[IPv6 address]:port". text_p: at least TROUPE_ENDPOINT_MAX.
 * Any thread or actor. Errors: ETRANSPORT (it has none: it is alone, without
 * option listen), EINVAL.
 */
#define TROUPE_ENDPOINT_MAX 64
int troupe_endpoint(troupe_from_t from, char *text_p, size_t text_bytes_max);

/* Whether the others hold this node for dead (TROUPE_MEMBER_EXCLUDED): 1 or 0.
 * Any thread or actor. */
int troupe_is_excluded(troupe_from_t from);

/*
 * How this node's membership fares: counters since its start, and two gauges.
 * A node that is slow or badly connected shows here before others tell.
 */
typedef struct troupe_member_stats {
    uint64_t probes;        /* members probed, one a period */
    uint64_t probes_failed; /* neither they nor helpers answered in time */
    uint64_t suspicions;    /* of others, that this node was the first to have */
    uint64_t refutations;   /* by this node, of suspicions of it */
    uint64_t deaths;        /* that this node found out itself */
    uint64_t not_judged;    /* verdicts it kept back, as it heard nobody */
    uint64_t pauses;        /* it came to its timers so late that it did not
                               trust them (stopped, suspended, starved) */
    uint64_t packets_out, bytes_out; /* control datagrams: membership, names, */
    uint64_t packets_in, bytes_in;   /* load and tags; good ones, UDP payload */
    uint64_t late_max_ns;   /* how late the control thread came to its timers: */
    uint64_t late_mean_ns;  /* the worst, and on average */
    uint32_t health;        /* now: 0 good, to 7: it asks more patiently */
    uint32_t rtt_us;        /* of recent probes, the slowest in a hundred; 0:
                               none answered yet */
} troupe_member_stats_t;

/* Context: any thread or actor. Blocking: never. Counts are up to date to within
 * one round of the control thread, each of them whole. */
void troupe_member_stats(troupe_from_t from, troupe_member_stats_t *stats_p);

/* Where to put an actor. */
enum troupe_place_policy {
    TROUPE_PLACE_NODE = 1,     /* `node` */
    TROUPE_PLACE_RANK,         /* rank `rank` of this job */
    TROUPE_PLACE_NAME,         /* the member of that name */
    TROUPE_PLACE_LEAST_LOADED, /* of all that live, by what they said last */
    TROUPE_PLACE_SAME_HOST,    /* the least loaded on the host of `node` (0:
                                  this node), but that itself only if it is
                                  alone there */
    TROUPE_PLACE_SPREAD,       /* one after the other, round all that live */
};

typedef struct troupe_place {
    uint32_t policy; /* enum troupe_place_policy */
    int rank;
    uint64_t node;
    const char *name;
} troupe_place_t;

/*
 * Chooses a living member. Suspected ones only when there is no other (of
 * node, rank and name: the one asked for). What this node placed somewhere
 * counts as load there until that member speaks of its load again.
 * Context: any thread or actor. Blocking: never.
 * Errors: ENONODE (none fits), ENODE (the one asked for is dead), EINVAL.
 */
int troupe_place(troupe_from_t from, const troupe_place_t *place,
                 uint64_t *node_p);

#ifdef __cplusplus
}
#endif

#endif
