/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * MPI beside actors: a rank that sits in a blocking MPI call goes on serving
 * its actors; MPI_Allreduce and messages between actors do not disturb each
 * other.
 */
#include <stdatomic.h>

#include "test.h"

enum { ASKS = 200, REDUCTIONS = 200, FLOATS = 5000 };

/* Each chatter asks its neighbour again and again until it is told to end. */
#define chatter_messages(TELL, ASK)                                           \
    TELL(chatter, begin, (chatter_ref_t with;))                               \
    ASK(chatter, talk, (int64_t number;), (int64_t next;))                    \
    ASK(chatter, end, (), (int64_t talks;))
TROUPE_PROTOCOL(chatter)

struct chatter {
    chatter_ref_t with;
    int64_t number;
    int running, ending;
    troupe_token_t waiting;
};

static int talk(troupe_self_t *self, struct chatter *c);

static int then_talk(troupe_self_t *self, void *state, int error,
                     const chatter_talk_result_t *result, void *arg)
{
    struct chatter *c = state;

    (void)arg;
    CHECK_EQ(error, 0);
    if (error != 0)
        return error;
    CHECK_EQ(result->next, c->number + 1);
    c->number = result->next;
    return talk(self, c);
}

static int talk(troupe_self_t *self, struct chatter *c)
{
    if (!c->ending)
        return chatter_talk_then(self, c->with, (chatter_talk_t){ c->number },
                                 TEST_SOON_MS, then_talk, NULL);
    c->running = 0;
    return chatter_end_reply_to(self, c->waiting,
                                (chatter_end_result_t){ c->number });
}

static int on_begin(troupe_self_t *self, struct chatter *c,
                    const chatter_begin_t *m)
{
    c->with = m->with;
    c->running = 1;
    return talk(self, c);
}

static int on_talk(troupe_self_t *self, struct chatter *c,
                   const chatter_talk_t *m)
{
    (void)c;
    return chatter_talk_reply(self, (chatter_talk_result_t){ m->number + 1 });
}

static int on_end(troupe_self_t *self, struct chatter *c,
                  const chatter_end_t *m)
{
    (void)m;
    if (!c->running)
        return chatter_end_reply(self, (chatter_end_result_t){ c->number });
    c->ending = 1;
    c->waiting = troupe_reply_later(self);
    return 0;
}

TROUPE_ACTOR(chatter, struct chatter, .begin = on_begin, .talk = on_talk,
             .end = on_end)

static chatter_ref_t find(troupe_t *troupe, int rank)
{
    char address[TEST_ADDRESS_BYTES];
    chatter_ref_t chatter;

    MUST(chatter_resolve(troupe, test_address(address, rank, "chatter"),
                         TEST_SOON_MS, &chatter));
    return chatter;
}

/* The last rank waits in MPI_Recv; only afterwards is it sent something. */
static void ask_a_rank_in_mpi(troupe_t *troupe, int size)
{
    int last = size - 1;
    chatter_ref_t there;
    chatter_talk_result_t result;

    if (test_rank == last)
        MPI_Recv(NULL, 0, MPI_BYTE, 0, 7, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (test_rank != 0)
        return;
    there = find(troupe, last);
    for (int64_t i = 0; i < ASKS; i++) {
        MUST(chatter_talk(troupe, there, (chatter_talk_t){ i }, TEST_SOON_MS,
                          &result));
        CHECK_EQ(result.next, i + 1);
    }
    MPI_Send(NULL, 0, MPI_BYTE, last, 7, MPI_COMM_WORLD);
}

static void reduce(int size)
{
    static float values[FLOATS];
    int sum = size * (size - 1) / 2;

    for (int n = 0; n < REDUCTIONS; n++) {
        int wrong = 0;

        for (int i = 0; i < FLOATS; i++)
            values[i] = (float)(test_rank + (i + n) % 10 * size);
        MPI_Allreduce(MPI_IN_PLACE, values, FLOATS, MPI_FLOAT, MPI_SUM,
                      MPI_COMM_WORLD);
        for (int i = 0; i < FLOATS; i++)
            wrong += values[i] != (float)(sum + (i + n) % 10 * size * size);
        CHECK_EQ(wrong, 0);
    }
}

int main(void)
{
    int size;
    troupe_t *troupe = test_start(&size, NULL);
    chatter_ref_t mine;
    chatter_begin_t begin;
    chatter_end_result_t end;

    if (size < 2 || !test_has_workers(troupe)) {
        fprintf(stderr, "allreduce: two ranks and a worker are needed\n");
        return 77;
    }
    MUST(chatter_spawn(troupe, "chatter", NULL, &mine));
    ask_a_rank_in_mpi(troupe, size);

    begin.with = find(troupe, (test_rank + 1) % size);
    MUST(chatter_begin(troupe, mine, begin));
    reduce(size);
    MUST(chatter_end(troupe, mine, (chatter_end_t){}, TEST_SOON_MS, &end));
    printf("rank %d: %lld asks beside %d allreduces\n", test_rank,
           (long long)end.talks, REDUCTIONS);
    CHECK(end.talks > 0);
    return test_end(troupe);
}
