/* SPDX-License-Identifier: BSD-3-Clause */

/* The session transport over a network that loses, repeats, delays and fails
 * frames. The seed is TROUPE_TEST_SEED. */
#include <stdio.h>
#include <stdlib.h>

#include "../sim/sim_carrier.h"
#include "conf.h"
#include "link/session.h"

static const unsigned char key[TRI_KEY_BYTES] = { 3, 2, 1 };

static void configure(struct tri_transport_config *config)
{
    config->carrier = &sim_carrier;
    config->seal = TRI_SEAL_AUTH;
    config->key = key;
}

int main(void)
{
    const char *text = getenv("TROUPE_TEST_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : conf_now_ms();

    printf("sim: TROUPE_TEST_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    sim_carrier_seed(seed);
    return conf_run(&(struct conf_transport){
        .ops = &tri_transport_session,
        .records = 20000,
        .lanes = true,
        .learns = true,
        .threads = true,
        .configure = configure,
    });
}
