/* SPDX-License-Identifier: BSD-3-Clause */
#include "conf.h"

int main(void)
{
    return conf_run(&(struct conf_transport){
        .ops = &tri_transport_ring,
        .records = 100000,
        .forks = true,
        .proof = true,
        .nobody = true,
        .checks = true,
        .lanes = true,
        .learns = true,
        .exact = true,
        .reconnects = true,
        .threads = true,
    });
}
