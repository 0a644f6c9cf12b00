/* SPDX-License-Identifier: BSD-3-Clause */
#include "conf.h"

int main(void)
{
    return conf_run(&(struct conf_transport){
        .ops = &tri_transport_self,
        .records = 100000,
        .nobody = true,
        .checks = true,
        .lanes = true,
        .exact = true,
        .reconnects = true,
        .threads = true,
    });
}
