/* SPDX-License-Identifier: BSD-3-Clause */
#include "conf.h"

int main(void)
{
    return conf_run(&(struct conf_transport){
        .ops = &tri_transport_fabric,
        .records = 20000,
        .provider = "tcp;ofi_rxm",
        .interface = "127.0.0.1",
        .forks = true,
        .reconnects = true,
        .threads = true,
    });
}
