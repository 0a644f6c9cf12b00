/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kill -9 of a rank in the middle of 64 MiB messages, by pieces or pulled
 * (the argument is option cma): rank 0 sends to rank 1 and kills it, rank 2
 * sends to rank 3 and is killed by it. The survivors are told, deliver nothing
 * torn, give the memory and the descriptors back, and go on.
 *
 * Needs mpirun --enable-recovery; see kill.c.
 */
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "../lib/usage.h"
#include "leave.h"

enum {
    RANKS = 4,
    BYTES = 64 << 20,
    STRIDE = 4096,     /* a word of each page tells its message */
    WHOLE_MESSAGES = 2, /* before the kill */
    KILL_US_MAX = 30000,
    SPARE_BYTES = 32 << 20, /* RSS may differ by that, half a message */
};

#define bulk_messages(TELL, ASK)                                              \
    ASK(bulk, who, (), (int32_t pid;))                                        \
    TELL(bulk, put, (uint64_t number; unsigned char bytes[];))                \
    ASK(bulk, seen, (), (uint64_t messages;))                                 \
    ASK(bulk, finished, (), (int32_t unused;))
TROUPE_PROTOCOL(bulk)

struct bulk {
    uint32_t unused;
};

static atomic_ulong messages; /* that arrived whole */
static atomic_int finished;   /* survivors that need us no more */

static int on_who(troupe_self_t *self, struct bulk *b, const bulk_who_t *m)
{
    (void)b, (void)m;
    return bulk_who_reply(self, (bulk_who_result_t){ getpid() });
}

static int on_put(troupe_self_t *self, struct bulk *b, const bulk_put_t *m)
{
    size_t bytes = troupe_tail_bytes(self), torn = 0;

    (void)b;
    for (size_t i = 0; i < bytes; i += STRIDE)
        torn += memcmp(m->bytes + i, &m->number, sizeof(m->number)) != 0;
    CHECK_EQ(bytes, BYTES);
    CHECK_EQ(torn, 0);
    atomic_fetch_add(&messages, 1);
    troupe_wake(self);
    return 0;
}

static int on_seen(troupe_self_t *self, struct bulk *b, const bulk_seen_t *m)
{
    (void)b, (void)m;
    return bulk_seen_reply(self,
                           (bulk_seen_result_t){ atomic_load(&messages) });
}

static int on_finished(troupe_self_t *self, struct bulk *b,
                       const bulk_finished_t *m)
{
    (void)b, (void)m;
    atomic_fetch_add(&finished, 1);
    troupe_wake(self);
    return bulk_finished_reply(self, (bulk_finished_result_t){ 0 });
}

TROUPE_ACTOR(bulk, struct bulk, .who = on_who, .put = on_put,
             .seen = on_seen, .finished = on_finished)

/* --- looking at ourselves ------------------------------------------------- */

static uint64_t memory_of_messages(troupe_t *troupe)
{
    troupe_stats_t stats;

    troupe_stats(troupe, &stats);
    return stats.messages_bytes;
}

/* Polls a condition that nothing announces. */
static int soon(troupe_t *troupe, int (*is_true)(troupe_t *troupe))
{
    double end = test_now_ms() + TEST_SOON_MS;

    while (!is_true(troupe) && test_now_ms() < end)
        troupe_serve(troupe, 1);
    return is_true(troupe);
}

/* --- sending -------------------------------------------------------------- */

/* One message; 0, or TROUPE_ENODE when the receiver has died. */
static int put(troupe_t *troupe, bulk_ref_t to, uint64_t number)
{
    double end = test_now_ms() + TEST_SOON_MS;
    bulk_put_t *m;
    int rc;

    while (!(m = bulk_put_new(troupe, BYTES))) {
        if (test_now_ms() > end)
            MUST(TROUPE_ENOMEM);
        troupe_serve(troupe, 1);
    }
    m->number = number;
    for (size_t i = 0; i < BYTES; i += STRIDE)
        memcpy(m->bytes + i, &number, sizeof(number));
    rc = bulk_put_send(troupe, to, m);
    if (rc != 0)
        troupe_drop(m);
    return rc;
}

/* How many have arrived at that rank. The question may have to wait behind a
 * large message. */
static uint64_t seen_at(troupe_t *troupe, bulk_ref_t at)
{
    bulk_seen_result_t seen;

    MUST(bulk_seen(troupe, at, (bulk_seen_t){}, TEST_SOON_MS, &seen));
    return seen.messages;
}

static void wait_for_messages(troupe_t *troupe, bulk_ref_t at, uint64_t number)
{
    double end = test_now_ms() + TEST_SOON_MS;

    while (seen_at(troupe, at) < number && test_now_ms() < end)
        troupe_serve(troupe, 1);
    CHECK(seen_at(troupe, at) >= number);
}

static int has_whole_messages(void *arg)
{
    (void)arg;
    return atomic_load(&messages) >= WHOLE_MESSAGES;
}

/* At a random moment, a different one in each run. */
static void kill_it(int pid)
{
    double until;

    srand((unsigned)getpid() ^ (unsigned)test_now_ms());
    until = test_now_ms() + rand() % KILL_US_MAX * 1e-3;
    while (test_now_ms() < until)
        ;
    CHECK_EQ(kill(pid, SIGKILL), 0);
}

/* --- roles ---------------------------------------------------------------- */

static void send_and_kill(troupe_t *troupe, bulk_ref_t victim, int pid)
{
    uint64_t number = 0;
    int rc;

    for (; number < WHOLE_MESSAGES; number++)
        MUST(put(troupe, victim, number));
    wait_for_messages(troupe, victim, WHOLE_MESSAGES);
    MUST(put(troupe, victim, number++)); /* on its way now, or just done */
    kill_it(pid);
    do
        rc = put(troupe, victim, number++);
    while (rc == 0 && number < 100);
    CHECK_EQ(rc, TROUPE_ENODE);
}

static void send_until_killed(troupe_t *troupe, bulk_ref_t to)
{
    double end = test_now_ms() + TEST_SOON_MS;

    for (uint64_t i = 0; test_now_ms() < end; i++)
        if (put(troupe, to, i) != 0)
            break;
    troupe_serve(troupe, TEST_SOON_MS);
    MUST(TROUPE_ETIMEDOUT); /* nobody killed us */
}

static void receive_and_kill(troupe_t *troupe, int pid)
{
    CHECK_EQ(troupe_serve_until(troupe, has_whole_messages, NULL,
                                TEST_SOON_MS),
             0);
    kill_it(pid);
}

static int both_are_dead(troupe_t *troupe)
{
    return !troupe_rank_alive(troupe, 1) && !troupe_rank_alive(troupe, 2);
}

/* A message takes a block of twice its size; smaller blocks are kept. */
static int memory_is_back(troupe_t *troupe)
{
    return memory_of_messages(troupe) < 2 * (uint64_t)BYTES;
}

static long resident_limit;

/* What is given back may be counted a moment before it is. */
static int resident_is_back(troupe_t *troupe)
{
    (void)troupe;
    return !USAGE_RESIDENT_COUNTS || usage_resident_bytes() < resident_limit;
}

static uint32_t fd_limit;

static int descriptors_are_back(troupe_t *troupe)
{
    (void)troupe;
    return usage_entries("/proc/self/fd") <= fd_limit;
}

/* The survivors still reach each other, with large messages, too. */
static void check_living(troupe_t *troupe, bulk_ref_t partner)
{
    uint64_t seen = seen_at(troupe, partner);

    MUST(put(troupe, partner, 1000));
    wait_for_messages(troupe, partner, seen + 1);
}

static int all_finished(void *arg)
{
    (void)arg;
    return atomic_load(&finished) == 2;
}

static void finish_together(troupe_t *troupe, bulk_ref_t mine,
                            bulk_ref_t partner)
{
    int rc = bulk_finished(troupe, partner, (bulk_finished_t){},
                           TEST_SOON_MS, NULL);

    CHECK(rc == 0 || rc == TROUPE_ENODE);
    MUST(bulk_finished(troupe, mine, (bulk_finished_t){}, TEST_SOON_MS, NULL));
    CHECK_EQ(troupe_serve_until(troupe, all_finished, NULL, TEST_SOON_MS), 0);
}

static void survive(troupe_t *troupe, const bulk_ref_t *bulks)
{
    int other = test_rank == 0 ? 1 : 2;
    bulk_who_result_t who;
    long resident;

    MUST(bulk_who(troupe, bulks[other], (bulk_who_t){}, TEST_SOON_MS, &who));
    resident = usage_resident_bytes();
    resident_limit = resident + SPARE_BYTES;
    fd_limit = usage_entries("/proc/self/fd");
    if (test_rank == 0)
        send_and_kill(troupe, bulks[other], who.pid);
    else
        receive_and_kill(troupe, who.pid);
    CHECK(soon(troupe, both_are_dead));
    check_living(troupe, bulks[3 - test_rank]);
    CHECK(soon(troupe, memory_is_back));
    CHECK(soon(troupe, descriptors_are_back));
    CHECK(soon(troupe, resident_is_back));
    printf("rank %d: %ld KiB more resident, %lu messages\n", test_rank,
           (usage_resident_bytes() - resident) / 1024, atomic_load(&messages));
    finish_together(troupe, bulks[test_rank], bulks[3 - test_rank]);
}

int main(int argc, char **argv)
{
    bulk_ref_t bulks[RANKS], mine;
    char address[TEST_ADDRESS_BYTES];
    troupe_options_t options;
    troupe_t *troupe;
    double begin;
    int size, rc;

    troupe_options_init(&options);
    options.send_timeout_ms = TEST_SOON_MS;
    if (argc > 1)
        options.cma = argv[1];
    troupe = test_start(&size, &options);
    atexit(leave_failed);
    if (size != RANKS)
        MUST(TROUPE_EINVAL);
    MUST(bulk_spawn(troupe, "bulk", NULL, &mine));
    for (int i = 0; i < size; i++)
        MUST(bulk_resolve(troupe, test_address(address, i, "bulk"),
                          TEST_SOON_MS, &bulks[i]));
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 1) {
        troupe_serve(troupe, 2 * TEST_SOON_MS);
        MUST(TROUPE_ETIMEDOUT); /* nobody killed us */
    }
    if (test_rank == 2)
        send_until_killed(troupe, bulks[3]);
    survive(troupe, bulks);
    begin = test_now_ms();
    rc = troupe_stop(&troupe);
    CHECK(rc == 0 || rc == TROUPE_ETIMEDOUT);
    CHECK(test_now_ms() - begin < TEST_SOON_MS);
    leave();
}
