/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kill -9 in the midst of MPI's collectives, through the buffers of the back
 * end, over and over until two ranks are left: survivors give the call up, make
 * a communicator without the dead, and go on from the step that all have, with
 * right results. The user's buffers of a call that was given up lie between
 * guard pages and are shut to all access from then on: what MPI wrote late, and
 * it does, would end the process.
 *
 *   mpi_kill [tcp]       tcp: MPI's own, instead of its shared memory
 *
 * TROUPE_TEST_SEED: of the moments. TROUPE_TEST_BYTES: of the buffers, instead
 * of 8 B, 64 KiB, 1 MiB and 16 MiB in turn.
 */
#include <pthread.h>
#include <sys/mman.h>

#include "../mpi/team.h"
#include "leave.h"

enum {
    STEPS_AFTER = 20, /* after the last death */
    DELAY_US_MAX = 30000,
    CANARY = 0x5a,
    ROUNDS_MAX = RANKS_MAX,
};

static const size_t sizes[] = { 8, 64 << 10, 1 << 20, 16 << 20 };
static uint64_t seed;

static uint64_t random_of(uint64_t n)
{
    return tri_mix64(seed + n * 0x9e3779b97f4a7c15ull);
}

/* --- guarded memory ------------------------------------------------------- */

struct guarded {
    char *pages; /* one more before and behind */
    size_t bytes;
    char *data;  /* ends at the page behind */
    size_t len;
};

/* Those of calls that were given up. */
static struct guarded shut[2 * ROUNDS_MAX];
static int shut_len;

static struct guarded guarded_make(size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct guarded g = { .bytes = tri_align_up(len, page), .len = len };

    g.pages = mmap(NULL, g.bytes + 2 * page, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.pages == MAP_FAILED ||
        mprotect(g.pages + page, g.bytes, PROT_READ | PROT_WRITE) != 0)
        MUST(TROUPE_ENOMEM);
    g.data = g.pages + page + g.bytes - len;
    memset(g.pages + page, CANARY, g.bytes);
    return g;
}

static void guarded_free(struct guarded *g)
{
    munmap(g->pages, g->bytes + 2 * (size_t)sysconf(_SC_PAGESIZE));
}

static void guarded_shut(const struct guarded *g)
{
    memset(g->data, CANARY, g->len);
    CHECK_EQ(mprotect(g->data + g->len - g->bytes, g->bytes, PROT_NONE), 0);
    shut[shut_len++] = *g;
}

/* Nothing was written by the kernel on MPI's behalf either. */
static void check_shut(void)
{
    for (int i = 0; i < shut_len; i++) {
        struct guarded *g = &shut[i];
        size_t wrong = 0;

        CHECK_EQ(mprotect(g->data + g->len - g->bytes, g->bytes, PROT_READ),
                 0);
        for (size_t at = 0; at < g->len; at++)
            wrong += g->data[at] != CANARY;
        CHECK_EQ((long long)wrong, 0);
        guarded_free(g);
    }
}

/* --- steps ---------------------------------------------------------------- */

static int is_dead(const struct tri_view_member *member)
{
    return member->peer != NULL && tri_peer_is_dead(member->peer);
}

static int has_lost(void)
{
    for (uint32_t i = 0; i < team.len; i++)
        if (is_dead(&members[i]))
            return 1;
    return 0;
}

/* False: a member has died, and the call was given up. */
static int carry(struct tri_coll *coll)
{
    double end = test_now_ms() + TEST_SOON_MS;
    int rc;

    coll->team = &team;
    tri_coll_sign(coll);
    MUST(ops->start(backend, coll));
    while ((rc = ops->progress(backend, coll)) == TRI_COLL_PENDING) {
        if (has_lost()) {
            ops->cancel(backend, coll);
            return 0;
        }
        if (test_now_ms() > end)
            MUST(TROUPE_ETIMEDOUT);
    }
    CHECK_EQ(rc, 0);
    return 1;
}

static float value_of(int rank, long step, size_t i)
{
    return (float)(rank + 1) * (float)((step + (long)i) % 11);
}

static int step_of(long step, struct guarded *in, struct guarded *out)
{
    size_t count = in->len / sizeof(float), wrong = 0;
    float *values = (float *)in->data, *sums = (float *)out->data;
    float ranks = 0;
    struct tri_coll coll = {
        .kind = TRI_COLL_ALLREDUCE,
        .type = TROUPE_FLOAT,
        .op = TROUPE_SUM,
        .count = count,
        .in = in->data,
        .out = out->data,
    };

    for (size_t i = 0; i < count; i++)
        values[i] = value_of(test_rank, step, i);
    if (!carry(&coll))
        return 0;
    for (uint32_t i = 0; i < team.len; i++)
        ranks += (float)(members[i].rank + 1);
    for (size_t i = 0; i < count; i++) {
        wrong += sums[i] != ranks * value_of(0, step, i);
        wrong += values[i] != value_of(test_rank, step, i);
    }
    CHECK_EQ((long long)wrong, 0);
    return 1;
}

/* --- views ---------------------------------------------------------------- */

static void drop_dead(void)
{
    uint32_t len = 0;

    for (uint32_t i = 0; i < team.len; i++) {
        if (is_dead(&members[i]))
            continue;
        if (members[i].rank == test_rank)
            team.index = len;
        members[len++] = members[i];
    }
    team.len = len;
}

/* All go on from the first step that one of them has yet to do. */
static long agree_on_step(long step)
{
    int64_t least = step;
    struct tri_coll coll = {
        .kind = TRI_COLL_ALLREDUCE,
        .type = TROUPE_INT64,
        .op = TROUPE_MIN,
        .count = 1,
        .in = &least,
        .out = &least,
    };

    CHECK(carry(&coll));
    return least;
}

static void *die(void *arg)
{
    struct timespec delay = {
        .tv_nsec = (long)(*(uint64_t *)arg % DELAY_US_MAX) * 1000,
    };

    nanosleep(&delay, NULL); /* the moment is random */
    kill(getpid(), SIGKILL);
    return NULL;
}

/* The last member dies in the midst of it. */
static long lose_one(int round, long step)
{
    const char *text = getenv("TROUPE_TEST_BYTES");
    size_t bytes = text != NULL ? strtoul(text, NULL, 0)
                                : sizes[round % (int)tri_array_len(sizes)];
    struct guarded in = guarded_make(bytes), out = guarded_make(bytes);
    uint64_t delay = random_of((uint64_t)round);
    double begin;
    pthread_t thread;

    if (team.index == team.len - 1)
        pthread_create(&thread, NULL, die, &delay);
    while (step_of(step, &in, &out))
        step++;
    begin = test_now_ms();
    guarded_shut(&in);
    guarded_shut(&out);
    ops->close(&backend);
    drop_dead();
    MUST(team_open(1, 0));
    step = agree_on_step(step);
    if (team.index == 0)
        printf("%zu bytes: %u go on at step %ld after %.1f ms\n", bytes,
               team.len, step, test_now_ms() - begin);
    return step;
}

int main(int argc, char **argv)
{
    const char *text = getenv("TROUPE_TEST_SEED");
    int by_tcp = argc > 1 && strcmp(argv[1], "tcp") == 0, level, size;
    struct guarded in, out;
    troupe_t *troupe;
    long step = 0;

    if (by_tcp)
        setenv("OMPI_MCA_btl", "tcp,self", 1);
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    seed = text != NULL ? strtoull(text, NULL, 0)
                        : (uint64_t)(test_now_ms() * 1000);
    MPI_Bcast(&seed, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    if (test_rank == 0)
        printf("TROUPE_TEST_SEED=%llu\n", (unsigned long long)seed);
    atexit(leave_failed);
    MUST(troupe_start(&troupe, NULL));
    team_make(troupe, size);
    /* As far from each other as TCP makes them. */
    for (int i = 0; by_tcp && i < size; i++)
        members[i].host = (uint64_t)i;
    MUST(team_open(1, 0));
    for (int round = 0; team.len > 2; round++)
        step = lose_one(round, step);
    in = guarded_make(1 << 20);
    out = guarded_make(1 << 20);
    for (int i = 0; i < STEPS_AFTER; i++)
        CHECK(step_of(step + i, &in, &out));
    check_shut();
    ops->close(&backend);
    CHECK(tri_finalize_is_barred());
    MUST(troupe_stop(&troupe));
    leave();
}
