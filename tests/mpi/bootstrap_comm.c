/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A cluster over a communicator of the program's: the even and the odd ranks
 * are two clusters that know nothing of each other, numbered from behind.
 */
#include "test.h"

#define mark_messages(TELL, ASK) ASK(mark, read, (), (int32_t world_rank;))
TROUPE_PROTOCOL(mark)

struct mark {
    int32_t world_rank;
};

static int on_read(troupe_self_t *self, struct mark *s, const mark_read_t *m)
{
    (void)m;
    return mark_read_reply(self, (mark_read_result_t){ s->world_rank });
}

TROUPE_ACTOR(mark, struct mark, .read = on_read)

static void check_cluster(troupe_t *troupe, MPI_Comm comm)
{
    char address[TEST_ADDRESS_BYTES];
    int rank, size;
    mark_ref_t mark;
    mark_read_result_t result;

    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    CHECK_EQ(troupe_rank(troupe), rank);
    CHECK_EQ(troupe_size(troupe), size);
    MUST(mark_spawn(troupe, "mark", &(struct mark){ test_rank }, &mark));
    for (int i = 0; i < size; i++) {
        int world_rank = 2 * (size - 1 - i) + test_rank % 2;

        MUST(mark_resolve(troupe, test_address(address, i, "mark"),
                          TEST_SOON_MS, &mark));
        MUST(mark_read(troupe, mark, (mark_read_t){}, TEST_SOON_MS, &result));
        CHECK_EQ(result.world_rank, world_rank);
    }
    CHECK_EQ(mark_resolve(troupe, test_address(address, size, "mark"), 100,
                          &mark),
             TROUPE_ENODE);
}

int main(int argc, char **argv)
{
    troupe_t *troupe;
    MPI_Comm comm;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_split(MPI_COMM_WORLD, test_rank % 2, -test_rank, &comm);
    MUST(troupe_start_comm(&troupe, NULL, comm));
    check_cluster(troupe, comm);
    MUST(troupe_stop(&troupe));
    MPI_Comm_free(&comm); /* it stayed ours */
    MPI_Finalize();
    return test_status();
}
