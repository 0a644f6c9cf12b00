/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The first collective of a group, as soon as it was created: who heard of the
 * group first begins while others have not heard of it yet, and what it sends
 * them is not lost.
 */
#include "test.h"

#include <troupe/tensor.h>

enum { GROUPS = 60 };

int main(void)
{
    troupe_group_options_t options;
    troupe_t *troupe;
    int size;

    troupe = test_start(&size, NULL);
    troupe_group_options_init(&options);
    options.backend = "native";
    for (int i = 0; i < GROUPS; i++) {
        int64_t in = test_rank + i, sum = 0;
        troupe_group_t *group;
        char name[32];

        snprintf(name, sizeof(name), "first-%d", i);
        MUST(troupe_group_create(troupe, name, &options, &group));
        MUST(troupe_allreduce(group, &in, &sum, 1, TROUPE_INT64, TROUPE_SUM,
                              TEST_SOON_MS));
        CHECK_EQ(sum, size * (size - 1) / 2 + i * size);
        /* who closes leaves, and ends the others' calls */
        MPI_Barrier(MPI_COMM_WORLD);
        troupe_group_close(&group);
    }
    return test_end(troupe);
}
