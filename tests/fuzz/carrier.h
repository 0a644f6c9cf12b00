/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TESTS_FUZZ_CARRIER_H
#define TESTS_FUZZ_CARRIER_H

/*
 * A carrier that carries nothing: the target sees what is sent and says what
 * arrives, what is done and what breaks. It checks that its user keeps to
 * transport/carrier.h. One at a time.
 */

#include "transport/carrier.h"

struct fuzz_carrier_hooks {
    /* The session's poll: the calls below are allowed. */
    void (*poll)(void);
    /* A frame was taken. data: not to be changed. */
    void (*sent)(uint64_t node, const unsigned char *data, size_t bytes);
};

extern const struct tri_carrier_ops fuzz_carrier_ops;

/* Before the carrier is opened. sends: as fuzz_carrier_set_sends; odd: large
 * frames are taken as well. */
void fuzz_carrier_init(const struct fuzz_carrier_hooks *hooks, unsigned sends);

void fuzz_carrier_set_hooks(const struct fuzz_carrier_hooks *hooks);

/* So many frames are taken from now on, then none. */
void fuzz_carrier_set_sends(unsigned sends);

/* The address that the carrier gave, or was given at the last connect. */
const struct tri_address *fuzz_carrier_address(void);

unsigned fuzz_carrier_in_flight(void);

/* Raise events; `which` is taken modulo what there is. */
void fuzz_carrier_frame(const unsigned char *data, size_t bytes);
void fuzz_carrier_give_back(unsigned which, bool ok);
void fuzz_carrier_writable(unsigned which);
void fuzz_carrier_broke(unsigned which);

#endif
