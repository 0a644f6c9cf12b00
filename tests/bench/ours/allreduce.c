/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A sum of floats over all ranks, one after the other.
 *     allreduce native|elastic|staged|mpi BYTES ROUNDS
 * native: the native back end; elastic: whichever an elastic group chooses;
 * staged: MPI's own, by an elastic group; mpi: the same, by a fixed group. Rank
 * 0 prints.
 */

#include "ours.h"

/* An elastic group tries its back ends in its first collectives. */
enum { WARM_MIN = 40 };

struct work {
    troupe_group_t *group;
    float *in, *out;
    size_t count;
};

static void reduce(const struct work *work, uint64_t rounds)
{
    for (uint64_t i = 0; i < rounds; i++)
        bench_check(troupe_allreduce(work->group, work->in, work->out,
                                     work->count, TROUPE_FLOAT, TROUPE_SUM,
                                     TROUPE_FOREVER),
                    "troupe_allreduce");
}

static troupe_group_t *make_group(troupe_t *troupe, const char *which)
{
    troupe_group_options_t options;
    troupe_group_t *group;

    troupe_group_options_init(&options);
    options.elastic = strcmp(which, "mpi") != 0;
    options.backend = strcmp(which, "elastic") == 0  ? "auto"
                      : strcmp(which, "native") == 0 ? "native"
                                                     : "mpi";
    bench_check(troupe_group_create(troupe, "bench", &options, &group),
                "troupe_group_create");
    return group;
}

int main(int argc, char **argv)
{
    size_t bytes = bench_number(argc, argv, 2);
    uint64_t rounds = bench_number(argc, argv, 3), warm = rounds / 10 + 1;
    troupe_t *troupe = bench_start(-1);
    struct work work = { .count = bytes / sizeof(float) };
    int64_t began;

    work.group = make_group(troupe, argv[1]);
    work.in = malloc(bytes);
    work.out = malloc(bytes);
    if (!work.in || !work.out)
        bench_die("no memory");
    for (size_t i = 0; i < work.count; i++)
        work.in[i] = (float)(i % 1000), work.out[i] = 0;
    reduce(&work, warm > WARM_MIN ? warm : WARM_MIN);
    began = bench_now_ns();
    reduce(&work, rounds);
    if (troupe_rank(troupe) == 0)
        bench_print((double)(bench_now_ns() - began) / 1e3 / (double)rounds,
                    "us", "time");
    free(work.in);
    free(work.out);
    troupe_group_close(&work.group);
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
