/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TROUPE_NODE_H
#define TROUPE_NODE_H

/* Nodes: start, stop, options, and serving actors from a thread. */

#include <stdio.h>

#include <troupe/error.h>
#include <troupe/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Every option is also an environment variable, TROUPE_ and the name in
 * capitals. The environment wins over the program, so that a job can be tuned
 * without a rebuild. An invalid value is refused at start with its name, the
 * value and what is allowed. troupe_options_help prints them all.
 */
typedef struct troupe_options {
    /* Worker threads; -1: one a core this rank is bound to, shared fairly
     * with the ranks bound to the same cores, at least 1. 0: none, actors
     * run only while a thread of the program waits in a troupe call. */
    int workers;
    /* "auto" (rings between processes of one host, fabric otherwise),
     * "ring" or "fabric". */
    const char *transport;
    /* libfabric provider, "tcp;ofi_rxm" by default. */
    const char *provider;
    /* Address or name of the interface for the fabric; NULL: the first one
     * that is up and not loopback, loopback when there is none. */
    const char *interface;
    /* Ports that the fabric may listen on, "first-last"; NULL: any. */
    const char *port_range;
    /* What guards messages that cross a network: "auth" (each frame carries
     * an authenticator under the job's key), "encrypt" (and is encrypted) or
     * "none" (whoever reaches the port can send and read). The same on all
     * ranks. Messages on a host go through memory of this user alone. */
    const char *security;
    /* A file with the job's key, 64 hexadecimal digits, that nobody but its
     * owner has any right to; rank 0 reads it. NULL: rank 0 makes a random
     * one. All ranks get the key from rank 0, through MPI. */
    const char *key_file;
    /* Large messages between ranks of a host: "on" reads them straight from
     * the sender's memory (where the system lets us), "off" copies them
     * through the ring, "auto" takes what a probe finds faster. */
    const char *cma;
    /* How long a waiting thread polls before it sleeps; -1: decided from
     * the number of ranks and cores. */
    int spin_us;
    uint32_t mailbox_len_max;    /* messages; 1 to 65535 */
    uint32_t actors_max;         /* actors alive at once */
    uint32_t dead_letters_max;   /* dead letters kept */
    uint32_t asks_max;           /* asks pending at once */
    uint32_t monitors_max;       /* monitors of actors here and on them; a link
                                    counts twice */
    size_t message_bytes_max;    /* one message */
    size_t memory_bytes_max;     /* all messages of this node together */
    size_t outbox_bytes_max;     /* waiting for one peer */
    /* What one peer sent to actors whose mailboxes are full and is kept until
     * they have room; beyond it, by one message, nothing more is taken from it
     * but control and replies. So a node never holds more for full mailboxes
     * than this and two messages (one more arriving in pieces) for each other
     * node, beside what the rings hold. */
    size_t parked_bytes_max;
    /* Nodes that may be known at once, this one and the job's ranks among
     * them; a dead one counts for a minute or two. 2 to 16384, and never less
     * than there are ranks. Costs memory as nodes join. The same on all nodes:
     * who joins a member that is full gets ELIMIT; who is a member already and
     * full does not list one that joined elsewhere, logs that, and sends to it
     * end with ENODE. */
    uint32_t nodes_max;
    /* Names of actors known at once, those of all nodes: every node knows all.
     * A withdrawn one counts for a minute or two. Each takes 0.7 KiB. A spawn
     * that finds no room fails with ELIMIT; names of other nodes that find none
     * are not known here. 16 to 4194304. */
    uint32_t names_max;
    /* 1: names may be strictly unique (TROUPE_UNIQUE_STRICT): all nodes of the
     * cluster agree on views of it. The same on all nodes. 0. */
    uint32_t strict_names;
    uint32_t send_timeout_ms;    /* how long a thread's tell waits for room */
    uint32_t ask_timeout_ms;     /* the default deadline */
    uint32_t stop_timeout_ms;    /* until troupe_stop gives up waiting */
    const char *log;             /* "error", "warn", "info" or "debug" */
    /* Members to join at start, "host:port,host:port" (an IPv6 address in
     * brackets): the endpoints of any members of a cluster, 16 at most; one
     * that answers is enough. Read by rank 0. NULL: none, this job is a
     * cluster of its own. Needs key_file, unless security is "none". */
    const char *seeds;
    /* Where processes outside the job can join it: "port", or "address:port"
     * to be reached there alone. Of each host's ranks that have this option
     * the first takes the port, all others any; port 0: any, troupe_endpoint
     * tells. NULL: nobody is expected.
     * Needs key_file on rank 0, unless security is "none". */
    const char *listen;
    /* Name of the cluster: who joins must have the same. NULL: none. */
    const char *cluster;
    /* This node's name for others (troupe_member_find, addresses): 1 to 63 of
     * [A-Za-z0-9_.-], but not "localhost", "rank." and more, or 16 hexadecimal
     * digits, which say something else in an address. */
    const char *node_name;
    /* How soon silence counts as death: "hpc", "fast", "cloud" (slow
     * networks), or "test". All members should have the same. */
    const char *membership;
    uint32_t join_timeout_ms;    /* until no seed is waited for any more */
    /* A file to which the nodes of this machine append a line for each thing
     * that becomes of them: started, died, stopped, exited. The command
     * "troupe run" reads it; mpirun's own status tells nothing after a death.
     * NULL: none. */
    const char *report;
    /* "auto", or "off": leave MPI alone, even under mpirun; this process is a
     * cluster of one, or joins seeds. */
    const char *mpi;
    /* A collective's call into MPI that does not return for so long after a
     * member of its group has died ends the process, with status
     * TROUPE_EXIT_WEDGED of troupe/mpi.h. 0: it may hang for ever. */
    uint32_t mpi_watchdog_ms;
    /* 1: the job's nodes can start more (troupe_spawn_nodes of troupe/mpi.h);
     * the job then has what those need to join it, as with `listen`, but no
     * port that is known, and a key that is made for it. 0 */
    uint32_t growable;
} troupe_options_t;

/* Fills in the defaults. Context: any thread. */
void troupe_options_init(troupe_options_t *options);

/*
 * Prints every option: variable, meaning, default, what is allowed.
 * Context: any thread.
 */
void troupe_options_help(FILE *stream);

/*
 * Starts this process's node. Under mpirun it is collective over all ranks:
 * MPI is initialized if the program did not do so (and then finalized by
 * troupe_stop), the world communicator is duplicated, addresses are
 * exchanged. Without mpirun the process is a cluster of one and MPI is left
 * alone. troupe/mpi.h has the form that takes a communicator.
 * options: NULL for the defaults; copied.
 * Context: one thread, and only the calling thread makes MPI calls later;
 * one node a process. Blocking: until all ranks have called it.
 * With option seeds it also waits until this node is a member of the cluster
 * that the seeds belong to, and knows the others, up to join_timeout_ms.
 * Errors: EOPTION (also: another value on another rank), EPROTO (another rank
 * runs another version), ETRANSPORT, EMPI, ENOMEM, ESYSTEM, EINVAL (already
 * started); of a join: ENOSEED (nobody answered), EKEY (the seed has another
 * key), EVERSION, ECLUSTER, ELIMIT (its cluster is full). Each is logged with
 * what to do. Nothing is left behind on error.
 */
int troupe_start(troupe_t **troupe_p, const troupe_options_t *options);

/*
 * Stops this node; collective among the living ranks of its job. What was sent
 * before, by any rank, is delivered and handled; then all actors stop (on_stop
 * runs), and what they still receive becomes dead letters. Members of other
 * jobs see each rank leave, which is no death. Never waits longer than
 * stop_timeout_ms; then it says what was left.
 * Context: the thread that started it, not in a handler. Ownership: frees
 * *troupe_p and sets it to NULL, also on error.
 * Errors: ETIMEDOUT (something was left: a rank that did not come, messages that
 * were not handled, actors that did not stop), EINVAL, ECONTEXT.
 */
int troupe_stop(troupe_t **troupe_p);

/*
 * The same of this node alone, while the other ranks go on, for example after
 * it was drained from a training: what it sent is delivered and handled, and
 * the others see it leave, which is no death. The process ends without
 * MPI_Finalize, which would wait for the others; mpirun takes that for a
 * failure unless it was started with recovery (troupe run). On a node that is
 * no rank among several it is troupe_stop.
 */
int troupe_leave(troupe_t **troupe_p);

/*
 * Rank of this node in the job, or of the node with the given id (-1:
 * unknown); number of ranks; this node's id. Any thread or actor.
 */
int troupe_rank(troupe_from_t from);
int troupe_rank_of(troupe_from_t from, uint64_t node);
int troupe_size(troupe_from_t from);
uint64_t troupe_node_id(troupe_from_t from);

/* 1 while the rank's process is not known to have died. Any thread. */
int troupe_rank_alive(troupe_from_t from, int rank);

/*
 * Lends this thread to the node's actors until done(arg) is true, or until
 * the deadline. done runs on this thread, at first, after handlers that ran
 * here, and after troupe_wake.
 * Context: any thread of the program. Blocking: up to timeout_ms; 0 handles
 * what is there and returns; TROUPE_FOREVER has no deadline.
 * Errors: ETIMEDOUT, ECONTEXT.
 */
#define TROUPE_FOREVER (-1)
int troupe_serve_until(troupe_t *troupe, int (*done)(void *arg), void *arg,
                       int timeout_ms);

/* Serves for the given time, or once without waiting when it is 0. */
int troupe_serve(troupe_t *troupe, int timeout_ms);

/*
 * Makes threads in troupe_serve_until look at their condition again. Call it
 * after a handler changed what they wait for. Any thread or actor.
 */
void troupe_wake(troupe_from_t from);

/*
 * Waits until all that this node (its actors and threads) sent before the
 * call has been handled, wherever it went, this node and those that joined
 * included; what is sent meanwhile is not waited for. A message is handled
 * when its handler has returned. What went to a node that dies is written off.
 * Context: any thread of the program, not in a handler; threads that call it
 * at the same time take turns. The thread serves actors meanwhile.
 * Blocking: up to timeout_ms, or TROUPE_FOREVER.
 * Errors: ETIMEDOUT (troupe_busy says who is busy, so does the log), ENOMEM,
 * EINVAL, ECONTEXT.
 */
int troupe_drain(troupe_t *troupe, int timeout_ms);

/*
 * Collective over the living ranks: returns when all have called it and none
 * has a message in flight or unhandled among them. It says nothing about
 * messages that a thread of the program sends meanwhile, nor about asks that
 * wait for their answer or deadline, nor about nodes that joined the job: what
 * is on its way from or to them does not count. A node that dies is written
 * off, and with it what it sent and was sent. A node whose deadline passes
 * leaves the call; it may come back while others still wait.
 * Context: any thread of the program, one at a time, not in a handler. The
 * thread serves actors meanwhile. Blocking: up to timeout_ms, or
 * TROUPE_FOREVER.
 * Errors: ETIMEDOUT (as in troupe_drain), EINVAL, ECONTEXT.
 * Source: F. Mattern, "Algorithms for distributed termination detection",
 * Distributed Computing 2, 1987: the four-counter method.
 */
int troupe_quiesce(troupe_t *troupe, int timeout_ms);

/* What a drain or quiesce waited for in vain. */
enum troupe_busy_what {
    TROUPE_BUSY_ABSENT = 1, /* the rank has not called troupe_quiesce */
    TROUPE_BUSY_SILENT,     /* it does not answer */
    TROUPE_BUSY_ACTORS,     /* its actors run or have messages */
    TROUPE_BUSY_ACTOR,      /* this actor of it does */
    TROUPE_BUSY_OUTBOX,     /* it has messages that wait to be sent */
    TROUPE_BUSY_TO,         /* messages from here to it are on their way */
    TROUPE_BUSY_FROM,       /* messages from it to here are on their way */
};

typedef struct troupe_busy {
    int rank; /* -1: a node that is no rank of this job */
    enum troupe_busy_what what;
    uint64_t messages;  /* TO and FROM: how many */
    troupe_ref_t actor; /* ACTOR */
    uint64_t node;      /* its id */
} troupe_busy_t;

/*
 * Lists what the last troupe_drain or troupe_quiesce of this node that ended
 * with ETIMEDOUT waited for, as it was shortly before its deadline. Long lists
 * are cut off: at 64 in all, at 16 actors of a rank, at 16 ranks.
 * Returns the number of entries there are. list: NULL if list_len_max is 0.
 * Context: any thread. Blocking: never.
 */
size_t troupe_busy(troupe_t *troupe, troupe_busy_t *list, size_t list_len_max);

/* Counters of one node since its start. */
typedef struct troupe_stats {
    uint64_t actors;          /* alive now */
    uint64_t messages_bytes;  /* memory of messages now */
    uint64_t sent_remote;     /* records to other nodes */
    uint64_t received_remote; /* records from other nodes */
    uint64_t refused;         /* foreign or malformed data; see below */
    uint64_t dead_letters;
    uint64_t dropped;         /* by TROUPE_DROP_NEW and TROUPE_DROP_OLD */
    uint64_t parked;          /* messages that wait for room in a mailbox */
    uint32_t workers;
    uint32_t peers_ring;   /* connected over rings */
    uint32_t peers_fabric; /* connected over the fabric */
    uint32_t reserved;
} troupe_stats_t;

/* Context: any thread or actor. Blocking: never. */
void troupe_stats(troupe_from_t from, troupe_stats_t *stats_p);

/*
 * Foreign or malformed data that reached this node, from anybody, and was
 * dropped: for what reason (static text) and how often. Nothing else comes of
 * it. The sum is troupe_stats_t.refused; troupe_stop logs them.
 */
typedef struct troupe_refusal {
    const char *reason;
    uint64_t count;
} troupe_refusal_t;

/* There are never more reasons. */
#define TROUPE_REFUSALS_MAX 64

/* Fills in at most len_max of them; returns how many. Context: any thread or
 * actor. Blocking: never. */
size_t troupe_refused(troupe_from_t from, troupe_refusal_t *refusals_p,
                      size_t len_max);

/* "0.1.0"; static. */
const char *troupe_version(void);

#ifdef __cplusplus
}
#endif

#endif
