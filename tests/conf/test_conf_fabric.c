/* SPDX-License-Identifier: BSD-3-Clause */

/* The session transport over libfabric, with two providers; or with one,
 * given as TROUPE_TEST_PROVIDER. Frames are sealed. */
#include <stdio.h>
#include <stdlib.h>

#include "conf.h"
#include "link/session.h"
#include "transport/carrier.h"

static const unsigned char key[TRI_KEY_BYTES] = { 1, 2, 3 };

static void configure(struct tri_transport_config *config)
{
    config->carrier = &tri_carrier_fabric;
    config->seal = TRI_SEAL_ENCRYPT;
    config->key = key;
}

static int run(const char *provider)
{
    printf("provider %s\n", provider);
    fflush(stdout);
    return conf_run(&(struct conf_transport){
        .ops = &tri_transport_session,
        .records = 20000,
        .provider = provider,
        .interface = "127.0.0.1",
        .forks = true,
        .lanes = true,
        .learns = true,
        .threads = true,
        .configure = configure,
    });
}

int main(void)
{
    const char *one = getenv("TROUPE_TEST_PROVIDER");

    if (one != NULL)
        return run(one);
    return run("tcp;ofi_rxm") + run("net");
}
