/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The start of a job, once for each way in which a program may have
 * initialized MPI; the programs that include this define
 *     USER_LEVEL  the thread level it asks for, or -1: it leaves MPI alone
 */
#include "test.h"

#define who_messages(TELL, ASK)                                               \
    ASK(who, are_you, (int32_t asker;),                                       \
        (int32_t rank; int32_t size; uint64_t node; int32_t sender;))
TROUPE_PROTOCOL(who)

struct who {
    int unused;
};

static int on_are_you(troupe_self_t *self, struct who *w,
                      const who_are_you_t *m)
{
    (void)w, (void)m;
    return who_are_you_reply(
        self, (who_are_you_result_t){
                  .rank = troupe_rank(self),
                  .size = troupe_size(self),
                  .node = troupe_node_id(self),
                  .sender = troupe_rank_of(self, troupe_sender(self).node),
              });
}

TROUPE_ACTOR(who, struct who, .are_you = on_are_you)

static void check_peer(troupe_t *troupe, int rank, int size, uint64_t node)
{
    char address[TEST_ADDRESS_BYTES];
    who_ref_t who;
    who_are_you_t ask = { .asker = test_rank };
    who_are_you_result_t result;

    MUST(who_resolve(troupe, test_address(address, rank, "who"), TEST_SOON_MS,
                     &who));
    MUST(who_are_you(troupe, who, ask, TEST_SOON_MS, &result));
    CHECK_EQ(result.rank, rank);
    CHECK_EQ(result.size, size);
    CHECK(result.node == node);
    CHECK(who.ref.node == node);
    CHECK_EQ(result.sender, test_rank);
    CHECK_EQ(troupe_rank_of(troupe, node), rank);
    CHECK_EQ(troupe_rank_alive(troupe, rank), 1);
}

static void check_all(troupe_t *troupe)
{
    int rank, size;
    uint64_t mine = troupe_node_id(troupe), *nodes;
    who_ref_t who;

    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CHECK_EQ(troupe_rank(troupe), rank);
    CHECK_EQ(troupe_size(troupe), size);
    nodes = calloc((size_t)size, sizeof(*nodes));
    MPI_Allgather(&mine, 1, MPI_UINT64_T, nodes, 1, MPI_UINT64_T,
                  MPI_COMM_WORLD);
    MUST(who_spawn(troupe, "who", NULL, &who));
    for (int i = 0; i < size; i++) {
        for (int j = 0; j < i; j++)
            CHECK(nodes[i] != nodes[j]);
        check_peer(troupe, i, size, nodes[i]);
    }
    free(nodes);
}

int main(int argc, char **argv)
{
    troupe_t *troupe;
    int level, finalized, one = 1, sum = 0;

    if (USER_LEVEL >= 0)
        MPI_Init_thread(&argc, &argv, USER_LEVEL, &level);
    MUST(troupe_start(&troupe, NULL));
    test_rank = troupe_rank(troupe);
    check_all(troupe);
    MUST(troupe_stop(&troupe));
    CHECK(troupe == NULL);

    /* MPI is finalized by whoever initialized it. */
    MPI_Finalized(&finalized);
    CHECK_EQ(finalized, USER_LEVEL < 0);
    if (finalized)
        return test_status();
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    CHECK(sum >= 1);

    /* A second life of the same process: another node. */
    MUST(troupe_start(&troupe, NULL));
    check_all(troupe);
    MUST(troupe_stop(&troupe));
    MPI_Finalize();
    return test_status();
}
