/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What a step's agreement costs, without anything to reduce: begin and commit,
 * one after the other (empty), and around 10 ms of computing (share).
 *     vote ROUNDS
 * Rank 0 prints.
 */

#include <troupe/training.h>

#include "ours.h"

enum { WORK_NS = 10000000, WORK_ROUNDS = 10, WARM_MIN = 40 };

/* By the clock: who is interrupted does not compute for longer. */
static void compute(int64_t ns)
{
    int64_t end_ns = bench_now_ns() + ns;

    while (bench_now_ns() < end_ns)
        ;
}

/* ns a step. */
static double run(troupe_training_t *training, uint64_t rounds, int64_t work_ns)
{
    int64_t began_ns = bench_now_ns();
    troupe_step_t step;

    for (uint64_t i = 0; i < rounds; i++) {
        bench_check(troupe_step_begin(training, &step), "troupe_step_begin");
        if (work_ns > 0)
            compute(work_ns);
        if (troupe_step_commit(&step) != TROUPE_COMMITTED)
            bench_die("a step was not committed");
    }
    return (double)(bench_now_ns() - began_ns) / (double)rounds;
}

int main(int argc, char **argv)
{
    uint64_t rounds = bench_number(argc, argv, 1);
    uint64_t works = rounds / WORK_ROUNDS + 1, warm = rounds / 10;
    troupe_training_options_t options;
    troupe_training_t *training;
    double empty_ns, work_ns;
    troupe_t *troupe = bench_start(-1);

    troupe_training_options_init(&options);
    bench_check(troupe_training_open(troupe, "vote", &options, &training),
                "troupe_training_open");
    run(training, warm > WARM_MIN ? warm : WARM_MIN, 0);
    empty_ns = run(training, rounds, 0);
    run(training, works / 10 + 1, WORK_NS);
    work_ns = run(training, works, WORK_NS);
    if (troupe_rank(troupe) == 0) {
        bench_print(empty_ns / 1e3, "us", "empty");
        bench_print((work_ns - WORK_NS) / WORK_NS * 100, "%", "share");
    }
    troupe_training_close(&training, 0);
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}
