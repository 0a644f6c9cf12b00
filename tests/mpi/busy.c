/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * An actor that computes for long does not hold up the others of its rank,
 * whichever thread it happened to get: a worker, or the main thread that waits
 * in a troupe call. Rank 0 asks, the other ranks serve. It computes until the
 * others have answered, or much too long.
 */

#include <stdatomic.h>

#include "test.h"

enum { COMPUTE_MS = 60000, ASKS = 10 };

#define office_messages(TELL, ASK)                                            \
    TELL(office, compute, ())                                                 \
    ASK(office, knock, (), (int32_t rank; int32_t computes;))                 \
    TELL(office, enough, ())
TROUPE_PROTOCOL(office)

struct office {
    int unused;
};

static atomic_int computes, is_enough;

static int on_compute(troupe_self_t *self, struct office *o,
                      const office_compute_t *m)
{
    double until_ms = test_now_ms() + COMPUTE_MS;

    (void)self, (void)o, (void)m;
    atomic_store(&computes, 1);
    while (!atomic_load(&is_enough) && test_now_ms() < until_ms)
        continue;
    atomic_store(&computes, 0);
    return 0;
}

static int on_knock(troupe_self_t *self, struct office *o,
                    const office_knock_t *m)
{
    (void)o;
    (void)m;
    return office_knock_reply(
        self, (office_knock_result_t){ test_rank, atomic_load(&computes) });
}

static int on_enough(troupe_self_t *self, struct office *o,
                     const office_enough_t *m)
{
    (void)self, (void)o, (void)m;
    atomic_store(&is_enough, 1);
    return 0;
}

TROUPE_ACTOR(office, struct office, .compute = on_compute, .knock = on_knock,
             .enough = on_enough)

static int knock(troupe_t *troupe, office_ref_t office, int rank)
{
    office_knock_result_t result = { -1, 0 };

    MUST(office_knock(troupe, office, (office_knock_t){}, TEST_SOON_MS,
                      &result));
    CHECK_EQ(result.rank, rank);
    return result.computes;
}

static void ask_while_it_computes(troupe_t *troupe, int rank)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    office_ref_t busy, quick;
    char address[64];

    snprintf(address, sizeof(address), "actor://rank.%d/busy", rank);
    MUST(office_resolve(troupe, address, TEST_SOON_MS, &busy));
    snprintf(address, sizeof(address), "actor://rank.%d/quick", rank);
    MUST(office_resolve(troupe, address, TEST_SOON_MS, &quick));
    MUST(office_compute(troupe, busy, (office_compute_t){}));
    while (!knock(troupe, quick, rank) && test_now_ms() < end_ms)
        continue;
    for (int i = 0; i < ASKS; i++)
        CHECK(knock(troupe, quick, rank));
    MUST(office_enough(troupe, quick, (office_enough_t){}));
}

static int has_barrier(void *request)
{
    int done = 0;

    MPI_Test(request, &done, MPI_STATUS_IGNORE);
    return done;
}

int main(void)
{
    troupe_options_t options;
    MPI_Request barrier;
    office_ref_t ref;
    troupe_t *troupe;
    int size;

    troupe_options_init(&options);
    options.workers = 1;
    troupe = test_start(&size, &options);
    MUST(office_spawn(troupe, "busy", NULL, &ref));
    MUST(office_spawn(troupe, "quick", NULL, &ref));
    for (int rank = 1; test_rank == 0 && rank < size; rank++)
        ask_while_it_computes(troupe, rank);
    MPI_Ibarrier(MPI_COMM_WORLD, &barrier);
    for (double end_ms = test_now_ms() + TEST_SOON_MS;
         !has_barrier(&barrier) && test_now_ms() < end_ms;)
        MUST(troupe_serve(troupe, 50));
    CHECK(has_barrier(&barrier));
    MUST(troupe_stop(&troupe));
    MPI_Finalize();
    return test_status();
}
