/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef SIM_CARRIER_H
#define SIM_CARRIER_H

/*
 * A carrier between nodes of one process that does to frames what networks do:
 * loses, repeats, delays and fails some, and is full now and then. By chance,
 * from a seed. Nothing moves but in send and poll.
 */

#include "transport/carrier.h"

extern const struct tri_carrier_ops sim_carrier;

/* Begins the chances anew; all carriers share them. */
void sim_carrier_seed(uint64_t seed);

#endif
