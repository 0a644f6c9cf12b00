/* SPDX-License-Identifier: BSD-3-Clause */

/* The limit of one copy: memcpy between two warm buffers on one core,
 * each page read afterwards as the receivers of messages do.
 *     memcpy BYTES MESSAGES
 */

#include "../bench.h"

int main(int argc, char **argv)
{
    size_t bytes = bench_number(argc, argv, 1);
    uint64_t copies = bench_number(argc, argv, 2);
    char *from = malloc(bytes), *to = malloc(bytes);
    int64_t began = 0;

    bench_watchdog();
    if (!from || !to)
        bench_die("no memory");
    memset(from, 1, bytes);
    memset(to, 2, bytes);
    for (uint64_t i = 0, warm = copies / 10 + 1; i < warm + copies; i++) {
        if (i == warm)
            began = bench_now_ns();
        memcpy(to, from, bytes);
        bench_touch(to, bytes);
        __asm__ volatile("" : : "r"(to), "r"(from) : "memory");
    }
    bench_print((double)copies * (double)bytes /
                    (double)(bench_now_ns() - began),
                "GB/s", "bw");
    free(from);
    free(to);
    return 0;
}
