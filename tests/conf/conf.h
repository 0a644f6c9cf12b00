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
};

/* Runs the suite. Returns the number of failed tests. */
int conf_run(const struct conf_transport *transport);

/* ---- one end: a node as its link would drive it (end.c) ---- */

struct conf_end {
    const struct conf_transport *under_test;
    uint64_t node;
    struct tri_bell bell;
    struct tri_transport *transport;
    struct tri_channel *channel;
    uint64_t sent; /* also the number in the next record */

    /* Events may come from two threads. */
    _Atomic uint64_t received;
    _Atomic uint64_t next;     /* at least this number comes next */
    _Atomic uint64_t wrong;    /* records out of order or with wrong bytes */
    _Atomic uint64_t accepted; /* calls */
    _Atomic uint64_t garbage;
    _Atomic uint64_t writable;
    _Atomic uint64_t proofs;
    _Atomic uint64_t hints;
    _Atomic uint64_t lost_node;
};

void conf_end_open(struct conf_end *end, const struct conf_transport *transport,
                   uint64_t nonce);
void conf_end_close(struct conf_end *end);

/* Opens a channel to another end of this process. */
void conf_end_connect(struct conf_end *end, struct conf_end *to);

/* Sends the next record. Returns what reserve said. */
int conf_end_send(struct conf_end *end, size_t bytes);

/* Control, flush and one poll. */
void conf_end_pump(struct conf_end *end);

/* A size from 0 to the largest, mostly small; by the record's number. */
size_t conf_size(const struct conf_end *end, uint64_t number);

/* A node id that no other test on this machine has. */
uint64_t conf_node_id(void);

/* Milliseconds of a monotonic clock. */
uint64_t conf_now_ms(void);

/* Pumps both ends (b may be NULL) until the condition holds; fails the test
 * when that takes too long. */
#define CONF_TIMEOUT_MS 20000
#define conf_wait(a, b, condition)                                            \
    do {                                                                      \
        uint64_t wait_until_ = conf_now_ms() + CONF_TIMEOUT_MS;               \
        struct conf_end *other = (b);                                         \
                                                                              \
        while (!(condition)) {                                                \
            conf_end_pump(a);                                                 \
            if (other)                                                        \
                conf_end_pump(other);                                         \
            if (conf_now_ms() > wait_until_)                                  \
                fail_msg("waited in vain for: %s", #condition);               \
        }                                                                     \
    } while (0)

#endif
