/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FAULT_FLOOD_H
#define TESTS_FAULT_FLOOD_H

/*
 * Processes that flood each other over a network transport while something is
 * done to the paths between them or to one of them. Every record has a number
 * in its lane, from 1; the receiver counts what is missing, comes again, comes
 * late or has wrong bytes. A flood ends with a last record on each lane, so
 * that a loss at the end is seen, too.
 *
 * The test's first process makes the board, shared memory, and forks an end
 * for each seat before anybody uses libfabric. It says who sends to whom and
 * by which address (a proxy's, say), and goes through the phases.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/clock.h"
#include "link/session.h"
#include "transport/carrier.h"
#include "transport/transport.h"

/* What the ends talk over: loses nothing between living processes. */
#define FLOOD_TRANSPORT tri_transport_session
#define FLOOD_CARRIER (&tri_carrier_fabric)

#define FLOOD_SEATS_MAX 9
#define FLOOD_REASONS_MAX 16
#define FLOOD_SOON_MS 30000

enum flood_phase {
    FLOOD_RUN,   /* send as much as possible */
    FLOOD_LAST,  /* send the last record of each lane */
    FLOOD_LEAVE, /* all have arrived: close */
};

/* What a seat is to do with another. Written by the first process. */
enum flood_way {
    FLOOD_WAY_NONE,
    FLOOD_WAY_OPEN,   /* connect, send; its last records are awaited */
    FLOOD_WAY_BURST,  /* as OPEN, but the first records are the last ones */
    FLOOD_WAY_GONE,   /* await nothing; go on sending as far as possible */
    FLOOD_WAY_CLOSED, /* disconnect */
};

struct flood_reason {
    char text[56];
    uint64_t count;
};

/* Written by its end, read by all. */
struct flood_seat {
    pid_t pid; /* first process; 0: not started, or reaped */
    bool is_reaped, may_die;
    _Atomic uint32_t is_open; /* node and address are valid */
    _Atomic uint32_t is_done; /* all that was awaited has arrived */
    uint64_t node;
    struct tri_address address;
    _Atomic uint64_t sent[TRI_LANES];
    _Atomic uint64_t received[TRI_LANES];
    _Atomic uint64_t received_from[FLOOD_SEATS_MAX];
    _Atomic uint64_t lost;      /* numbers that were skipped */
    _Atomic uint64_t repeated;  /* or late */
    _Atomic uint64_t wrong;     /* of other bytes, lane or length */
    _Atomic uint64_t refused;   /* ENODE for a living peer */
    _Atomic uint64_t strangers; /* calls of accept for an unknown node */
    _Atomic uint64_t garbage;
    struct flood_reason reasons[FLOOD_REASONS_MAX];
    _Atomic uint64_t resident_kib;
};

struct flood_board {
    _Atomic int phase; /* enum flood_phase */
    uint64_t seed;
    uint64_t nonce;
    unsigned char key[TRI_KEY_BYTES];
    unsigned seats_len;
    _Atomic uint64_t begin_ns; /* ways that are opened wait for this */
    _Atomic uint32_t entered;  /* bits of seats, for options->enter */
    _Atomic uint32_t is_wired; /* the same */
    struct flood_seat seats[FLOOD_SEATS_MAX];
    _Atomic int ways[FLOOD_SEATS_MAX][FLOOD_SEATS_MAX]; /* [from][to] */
    struct tri_address addresses[FLOOD_SEATS_MAX][FLOOD_SEATS_MAX];
};

struct flood_options {
    const char *provider;
    const char *interface;
    uint16_t port; /* 0: any */
    enum tri_seal_mode seal;
    bool pauses;    /* data is not taken now and then */
    uint32_t burst; /* records a lane of a FLOOD_WAY_BURST */
    void (*enter)(struct flood_board *board, unsigned seat); /* or NULL */
};

/* The seed is TROUPE_TEST_SEED or the time, and is printed. */
struct flood_board *flood_board_create(const char *test, unsigned seats_len);
void flood_board_destroy(struct flood_board **board);

/* TROUPE_TEST_FAULT_ROUNDS, for longer runs; else the given number. */
unsigned flood_rounds(unsigned usual);

/* Forks the end of a seat. */
void flood_start(struct flood_board *board, unsigned seat,
                 const struct flood_options *options);

/* Kills a seat's end with a signal, and reaps it if that is its death. */
void flood_kill(struct flood_board *board, unsigned seat, int signal);

/* Sets both ways to OPEN, by the addresses that the ends have themselves. */
void flood_connect(struct flood_board *board, unsigned a, unsigned b);

/* The IPv4 address in an address of the transport. */
struct sockaddr_in;
void flood_address_get(const struct tri_address *address,
                       struct sockaddr_in *in_p);
void flood_address_set(struct tri_address *address,
                       const struct sockaddr_in *in);

/* All records that a seat has received so far. */
uint64_t flood_received(const struct flood_board *board, unsigned seat);

/* How often a seat has counted garbage for a reason that contains `text`. */
uint64_t flood_garbage(const struct flood_board *board, unsigned seat,
                       const char *text);

/* Fails when an end has died or has found a fault. */
void flood_check(struct flood_board *board);

/* Prints the seats, kills the ends and fails the test. */
void flood_fail(struct flood_board *board, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));

/* Ends the ends, and fails when one of them did not end well. */
void flood_leave(struct flood_board *board);

/* One line a seat. */
void flood_print(const struct flood_board *board);

/* Runs `turn` (a statement that takes about a millisecond or waits as long)
 * until the condition holds; fails when that takes too long. */
#define FLOOD_WAIT(board, turn, condition, timeout_ms)                         \
    do {                                                                       \
        uint64_t wait_until_ = tri_deadline_ns(timeout_ms);                    \
                                                                               \
        while (!(condition)) {                                                 \
            turn;                                                              \
            flood_check(board);                                                \
            if (tri_now_ns() > wait_until_)                                    \
                flood_fail(board, "%s:%d: waited in vain for: %s", __FILE__,   \
                           __LINE__, #condition);                              \
        }                                                                      \
    } while (0)

bool flood_all_open(const struct flood_board *board);
bool flood_all_done(const struct flood_board *board);

/* A millisecond. */
void flood_nap(void);

/* --- flood_end.c --- */

/* What the forked process does. Does not return. */
void flood_end_run(struct flood_board *board, unsigned seat,
                   const struct flood_options *options)
    __attribute__((noreturn));

#endif
