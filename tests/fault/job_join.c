/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A running mpirun job, and processes that join it from outside: all know all,
 * each can ask each; a kill -9 of a joiner and of a rank is known to everybody
 * with proof, not by silence; the job's end is no death to who joined it.
 */
#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

#include "leave.h"
#include "puppet.h"

enum {
    VICTIM = 2,
    RANKS_MAX = 16,
    REF_BYTES = 64,
};

struct known {
    char ref[REF_BYTES];
    uint64_t node;
};

struct wish {
    troupe_t *troupe;
    uint64_t node;
    uint32_t state;
};

static int has_state(void *arg)
{
    struct wish *wish = arg;
    troupe_member_t member;

    return troupe_member_get(wish->troupe, wish->node, &member) == 0 &&
           member.state == wish->state;
}

/* Waits for a death, which has to be proven. */
static void check_death(troupe_t *troupe, uint64_t node)
{
    struct wish wish = { troupe, node, TROUPE_MEMBER_DEAD };
    troupe_member_t member = { .state = 0 };

    CHECK_EQ(troupe_members_wait(troupe, has_state, &wish, 0, TEST_SOON_MS), 0);
    CHECK_EQ(troupe_member_get(troupe, node, &member), 0);
    CHECK_EQ(member.evidence, TROUPE_EVIDENCE_PROOF);
}

/* The list is complete from the start. */
static void check_list(troupe_t *troupe, int size)
{
    troupe_member_t list[RANKS_MAX];

    CHECK_EQ(troupe_members(troupe, list, RANKS_MAX), size);
    for (int i = 0; i < size; i++) {
        CHECK_EQ(list[i].rank, i);
        /* suspected: one that stands still just now */
        CHECK(list[i].state == TROUPE_MEMBER_ALIVE ||
              list[i].state == TROUPE_MEMBER_SUSPECT);
        CHECK(list[i].job == list[0].job);
        CHECK(list[i].host == list[0].host);
        CHECK(list[i].cores > 0);
    }
    CHECK(list[test_rank].node == troupe_node_id(troupe));
}

/* All ranks do it; what a puppet says, rank 0 hears. */
static void start_joiner(struct puppet *joiner, struct known *known_p,
                         int port)
{
    if (test_rank == 0) {
        puppet_spawn(joiner);
        puppet_start(joiner, "key_file=%s seeds=127.0.0.1:%d",
                     puppet_key_file(0), port);
        memcpy(known_p->ref, joiner->ref, REF_BYTES);
        known_p->node = joiner->node;
    }
    MPI_Bcast(known_p, sizeof(*known_p), MPI_BYTE, 0, MPI_COMM_WORLD);
}

static void each_to_each(troupe_t *troupe, struct puppet *joiner,
                         const struct known *known, const struct known *all,
                         int size)
{
    MUST(puppet_ask(troupe, known->ref, TEST_SOON_MS));
    for (int i = 0; test_rank == 0 && i < size; i++)
        puppet_must(joiner, "ok", "ask %s %d", all[i].ref, TEST_SOON_MS);
    MPI_Barrier(MPI_COMM_WORLD);
}

int main(int argc, char **argv)
{
    struct known all[RANKS_MAX], own, first, second;
    struct puppet joiners[2];
    troupe_options_t options;
    char listen[16];
    int size, port = 0;
    troupe_t *troupe;
    double began_ms;

    puppet_main(argc, argv);
    MPI_Init(NULL, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    atexit(leave_failed);
    troupe_options_init(&options);
    if (test_rank == 0) {
        port = puppet_free_port();
        options.key_file = puppet_key_file(0);
    }
    MPI_Bcast(&port, 1, MPI_INT, 0, MPI_COMM_WORLD);
    snprintf(listen, sizeof(listen), "%d", port);
    options.listen = listen;
    options.stop_timeout_ms = TEST_SOON_MS;
    MUST(troupe_start(&troupe, &options));
    check_list(troupe, size);
    MUST(puppet_actor(troupe, own.ref));
    own.node = troupe_node_id(troupe);
    MPI_Allgather(&own, sizeof(own), MPI_BYTE, all, sizeof(own), MPI_BYTE,
                  MPI_COMM_WORLD);

    start_joiner(&joiners[0], &first, port);
    start_joiner(&joiners[1], &second, port);
    MUST(troupe_members_wait(troupe, NULL, NULL, (size_t)size + 2,
                             TEST_SOON_MS));
    CHECK_EQ(troupe_rank_of(troupe, first.node), -1);
    each_to_each(troupe, &joiners[0], &first, all, size);
    each_to_each(troupe, &joiners[1], &second, all, size);

    if (test_rank == 0)
        puppet_kill(&joiners[1], SIGKILL);
    MPI_Barrier(MPI_COMM_WORLD);
    check_death(troupe, second.node);
    CHECK_EQ(puppet_ask(troupe, second.ref, TEST_SOON_MS), TROUPE_ENODE);

    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == VICTIM)
        raise(SIGKILL);
    began_ms = test_now_ms();
    check_death(troupe, all[VICTIM].node);
    printf("rank %d: knows after %.1f ms\n", test_rank,
           test_now_ms() - began_ms);
    if (test_rank == 0)
        puppet_must(&joiners[0], "ok 3", "state %016" PRIx64 " dead %d",
                    all[VICTIM].node, TEST_SOON_MS);
    MUST(puppet_ask(troupe, first.ref, TEST_SOON_MS));
    MUST(puppet_ask(troupe, all[1 - test_rank].ref, TEST_SOON_MS));

    troupe_stop(&troupe);
    for (int i = 0; test_rank == 0 && i < 2; i++)
        puppet_must(&joiners[0], "ok", "state %016" PRIx64 " left %d",
                    all[i].node, TEST_SOON_MS);
    if (test_rank == 0) {
        puppet_must(&joiners[0], "ok", "stop");
        puppet_end(&joiners[0]);
        unlink(puppet_key_file(0));
    }
    leave();
}
