/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FAULT_PARTING_H
#define TESTS_FAULT_PARTING_H

/*
 * Three ends, each with a link (link/link.h): a survivor, a third one that it
 * has traffic with all the time, and a victim, a new one each round, that is
 * killed in the middle of large messages from or to the survivor. The first
 * process plays the membership: it kills, reaps, and says so on the board,
 * which is shared memory.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "link/link.h"

enum parting_seat {
    PARTING_SURVIVOR,
    PARTING_THIRD,
    PARTING_VICTIM,
    PARTING_SEATS,
};

enum {
    PARTING_LARGE = 64 << 20,
    PARTING_PERIOD = 24, /* of them one is large */
    PARTING_IDS_MAX = 4096,
    PARTING_ROUNDS_MAX = 4000,
    PARTING_SOON_MS = 30000,
};

struct parting_mode {
    const char *name;
    bool is_ring;
    enum tri_cma cma;
    enum tri_seal_mode seal;
};

struct parting_seat_card {
    _Atomic uint32_t open_round; /* node and address are those of this one */
    uint64_t node;
    struct tri_address address;
};

/* What is to happen; written before `round`. */
struct parting_plan {
    uint64_t seed;
    bool victim_sends;
    bool survivor_greets; /* it has a channel, too, when the victim sends */
    uint64_t end_bytes; /* received: time to die */
    bool stops; /* before it is killed, so that queues fill up */
};

struct parting_board {
    struct parting_mode mode;
    uint64_t nonce;
    unsigned char key[TRI_KEY_BYTES];
    struct parting_seat_card seats[PARTING_SEATS];
    struct parting_plan plan;
    _Atomic uint32_t round;         /* from 1; 0: none yet */
    _Atomic uint32_t ready_round;   /* the survivor knows the victim */
    _Atomic uint32_t dead_round;    /* the victim was reaped */
    _Atomic uint32_t checked_round; /* the survivor is content */
    _Atomic bool leave;
    /* The receiving one of victim and survivor. */
    _Atomic uint64_t received_bytes;
    /* The victim. */
    _Atomic uint64_t taken; /* messages handed up: all below this number */
    /* The survivor. */
    _Atomic uint64_t round_trips;
    _Atomic uint64_t letters; /* of messages that were taken, nevertheless */
    _Atomic uint32_t partials; /* rounds that left a message half received */
    _Atomic uint32_t pieces;   /* that told of one by its last pieces */
};

/* The payload of a message, by its number. */
static inline uint32_t parting_size(uint64_t seed, uint64_t id)
{
    uint64_t random = tri_mix64(seed + id);

    if (id % PARTING_PERIOD == 3)
        return PARTING_LARGE;
    if (random % 5 == 0)
        return 33000 + (uint32_t)(random >> 32) % 270000;
    return (uint32_t)(random >> 32) % 2000;
}

/* What the process of a seat does. Does not return. */
void parting_end_run(struct parting_board *board, enum parting_seat seat,
                     uint32_t round) __attribute__((noreturn));

#endif
