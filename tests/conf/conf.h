/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CONF_H
#define CONF_H

/*
 * The conformance suite of the transports: what transport.h promises, run
 * against each of them. A test program is a table entry and a call.
 */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "os/bell.h"
#include "transport/transport.h"

/* One transport under test. */
struct conf_transport {
    const struct tri_transport_ops *ops;
    const char *provider;  /* as in the config, or NULL */
    const char *interface; /* as in the config, or NULL */
    unsigned records;      /* each way, in the order test */
    bool forks;            /* works between processes */
    bool proof;            /* a peer's death is known for sure, and what it
                              sent before is delivered */
    bool nobody;           /* connect to a node that closed says ENODE */
    bool checks;           /* a malformed record from a peer is garbage */
    bool lanes;            /* apart from each other; data may be refused */
    bool exact;            /* what the link refuses counts as unread, record
                              by record */
    bool reconnects;       /* a channel can be made again between the living,
                              and `ended` tells of the old one's end */
    bool learns;           /* who is refused at first may be accepted later */
    bool threads;          /* moves by itself, not by `step`: may be driven by
                              several threads */

    /* Both may be NULL. */
    void (*configure)(struct tri_transport_config *config); /* before open */
    void (*step)(void); /* at each pump: a simulated network's time goes on */
};

/* Runs the suite. Returns the number of failed tests. */
int conf_run(const struct conf_transport *transport);

/* Its parts: what one lane promises (suite.c), what several do (lanes.c), and
 * what is known when a peer has gone (gone.c). */
int conf_run_lanes(struct conf_transport *transport);
int conf_run_gone(struct conf_transport *transport);

/* ---- one end: a node as its link would drive it (end.c) ---- */

#define CONF_NODES_MAX 8
#define CONF_ALL UINT64_MAX

/* Who sends to an end: what `accept` returns. */
struct conf_peer {
    struct conf_end *end;
    uint64_t node;

    /* Events come from poll, looks from everywhere. */
    _Atomic uint64_t next[TRI_LANES]; /* at least this number comes next */
    _Atomic uint64_t received[TRI_LANES];
    _Atomic uint64_t takes; /* data records that will not be refused */
    _Atomic bool refused;   /* one was, and not resumed */
    _Atomic uint64_t ended;
};

struct conf_end {
    const struct conf_transport *under_test;
    uint64_t node;
    struct tri_bell bell;
    struct tri_transport *transport;
    struct tri_channel *channel;
    uint64_t sent[TRI_LANES]; /* also the number in the lane's next record */
    bool may_lose; /* a channel is disconnected: numbers may be missing */
    _Atomic bool knows_nobody; /* accept refuses all */
    _Atomic bool buries_all;   /* all others are dead to it */

    /* Events may come from two threads. */
    pthread_mutex_t lock; /* for accept */
    struct conf_peer peers[CONF_NODES_MAX];
    unsigned peers_len;
    _Atomic uint64_t takes; /* of peers to come */
    _Atomic uint64_t received;
    _Atomic uint64_t wrong;    /* bytes or order; raised though refused */
    _Atomic uint64_t accepted; /* calls */
    _Atomic uint64_t garbage;
    _Atomic uint64_t writable;
    _Atomic uint64_t heard;
    _Atomic uint64_t broke;
    _Atomic uint64_t proofs;
    _Atomic uint64_t hints;
    _Atomic uint64_t lost_node;
};

void conf_end_open(struct conf_end *end, const struct conf_transport *transport,
                   uint64_t nonce);
void conf_end_close(struct conf_end *end);

/* Where a node is, for ends that are asked to answer it: what the bootstrap of
 * a job tells all. Ends of this process are known. */
struct conf_contact {
    uint64_t node;
    struct tri_address address;
};

/* Writes where the end is to a pipe; reads where another process's is. */
void conf_tell(int fd, const struct conf_end *end);
struct conf_contact conf_hear(int fd);

/* Opens a channel to an end of another process. */
void conf_end_dial(struct conf_end *end, const struct conf_contact *to);

/* Opens a channel to another end of this process. */
void conf_end_connect(struct conf_end *end, struct conf_end *to);

/* Sends the lane's next record. Returns what reserve said. */
int conf_end_send_on(struct conf_end *end, enum tri_lane lane, size_t bytes);

static inline int conf_end_send(struct conf_end *end, size_t bytes)
{
    return conf_end_send_on(end, TRI_LANE_DATA, bytes);
}

/* Sends on the data lane until it is full. */
void conf_end_fill(struct conf_end *end, size_t bytes);

/* True for the record that was sent with this number. */
bool conf_is_right(enum tri_lane lane, uint64_t number,
                   const struct tri_record *record, const void *payload);

/* Whom the end has accepted under this id; else an empty one. */
struct conf_peer *conf_peer(struct conf_end *end, const struct conf_end *of);

/* Takes so many data records more from a peer that was refused. */
void conf_end_resume(struct conf_end *end, struct conf_peer *peer,
                     uint64_t takes);

/* As a driver asks before it sleeps. */
bool conf_end_pending(struct conf_end *end);

/* Control, flush and one poll. */
void conf_end_pump(struct conf_end *end);

/* A size from 0 to the largest, mostly small; by the record's number. */
size_t conf_size(const struct conf_end *end, uint64_t number);

/* The same, but control records are always small. */
size_t conf_lane_size(const struct conf_end *end, enum tri_lane lane,
                      uint64_t number);

/* A test for each transport, and one end for each node of the job. */
#define CONF_WATCHDOG_S 120
#define CONF_NONCE 0x5ca1ab1e0ddba11ull
#define CONF_SMALL 8

const struct conf_transport *conf_under_test(void **state);
void conf_open_pair(void **state, struct conf_end *a, struct conf_end *b);
void conf_close_pair(struct conf_end *a, struct conf_end *b);

/* The seed of a random test: TROUPE_TEST_SEED, or new. Printed. */
uint64_t conf_seed(const char *test);

/* A node id that no other test on this machine has. */
uint64_t conf_node_id(void);

/* Milliseconds of a monotonic clock. */
uint64_t conf_now_ms(void);

/* Pumps the ends until the condition holds; fails the test when that takes too
 * long. b and c may be NULL. */
#define CONF_TIMEOUT_MS 20000
#define conf_wait3(a, b, c, condition)                                        \
    do {                                                                      \
        uint64_t wait_until_ = conf_now_ms() + CONF_TIMEOUT_MS;               \
        struct conf_end *ends_[] = { (a), (b), (c) };                         \
                                                                              \
        while (!(condition)) {                                                \
            for (unsigned i_ = 0; i_ < 3; i_++)                               \
                if (ends_[i_])                                                \
                    conf_end_pump(ends_[i_]);                                 \
            if (conf_now_ms() > wait_until_)                                  \
                fail_msg("waited in vain for: %s", #condition);               \
        }                                                                     \
    } while (0)
#define conf_wait(a, b, condition) conf_wait3(a, b, NULL, condition)

#endif
