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
 * Open MPI may hang in a survivor; then its watchdog ends it, the others go on
 * without it as well, and it is counted. Each rank is a child of the process
 * that mpirun started, which sees that it ended so, or well, or was killed.
 *
 * TROUPE_TEST_SEED: of the moments. TROUPE_TEST_BYTES: of the buffers, instead
 * of 8 B, 64 KiB, 1 MiB and 16 MiB in turn.
 */
#include <pthread.h>
#include <sys/mman.h>

#include "../mpi/team.h"
#include "supervise.h"

enum {
    STEPS_AFTER = 20, /* after the last death */
    DELAY_US_MAX = 30000,
    CANARY = 0x5a,
    ROUNDS_MAX = RANKS_MAX,
    WATCHDOG_MS = 3000,
};

static const size_t sizes[] = { 8, 64 << 10, 1 << 20, 16 << 20 };
static uint64_t seed;
static int by_tcp, size;
static int kills, wedged; /* deaths that were meant, and others */

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

/* The last members kill themselves, the next one maybe before all have noticed
 * the one before it; who else dies was ended by the watchdog. */
static void count_dead(int is_meant)
{
    for (uint32_t i = team.len; i-- > 0;) {
        int dead = is_dead(&members[i]);

        is_meant = is_meant && dead;
        kills += is_meant;
        wedged += dead && !is_meant;
    }
}

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

/* All go on from the first step that one of them has yet to do. False: one more
 * has died. */
static int agree_on_step(long *step_p)
{
    int64_t least = *step_p;
    struct tri_coll coll = {
        .kind = TRI_COLL_ALLREDUCE,
        .type = TROUPE_INT64,
        .op = TROUPE_MIN,
        .count = 1,
        .in = &least,
        .out = &least,
    };

    if (!carry(&coll))
        return 0;
    *step_p = least;
    return 1;
}

/* The next view, as team_open; false: one more has died on the way to it. */
static int open_next(void)
{
    double end = test_now_ms() + TEST_SOON_MS;
    int rc = TRI_COLL_PENDING;

    team.epoch++;
    CHECK(ops->can(&team));
    MUST(ops->open(&team, &backend));
    while (rc == TRI_COLL_PENDING && !has_lost()) {
        rc = ops->open_progress(backend);
        if (test_now_ms() > end)
            MUST(TROUPE_ETIMEDOUT);
        sched_yield();
    }
    if (rc != TRI_COLL_PENDING)
        MUST(rc);
    return rc == 0;
}

/* Each death is a view: they are further apart than detection takes. */
static void go_on(int is_meant, long *step_p)
{
    do {
        ops->close(&backend);
        count_dead(is_meant);
        drop_dead();
    } while (!open_next() || !agree_on_step(step_p));
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

/* The last member dies in the midst of it. What is random is so by the number
 * of members, as they may have come to it in different ways. */
static void lose_one(long *step_p)
{
    const char *text = getenv("TROUPE_TEST_BYTES");
    int round = size - (int)team.len, victim = members[team.len - 1].rank;
    size_t bytes = text != NULL ? strtoul(text, NULL, 0)
                                : sizes[round % (int)tri_array_len(sizes)];
    struct guarded in = guarded_make(bytes), out = guarded_make(bytes);
    uint64_t delay = random_of((uint64_t)round);
    double begin;
    pthread_t thread;

    if (test_rank == victim)
        pthread_create(&thread, NULL, die, &delay);
    while (step_of(*step_p, &in, &out))
        ++*step_p;
    begin = test_now_ms();
    guarded_shut(&in);
    guarded_shut(&out);
    go_on(1, step_p);
    if (team.index == 0)
        printf("%zu bytes: %u go on at step %ld after %.1f ms\n", bytes,
               team.len, *step_p, test_now_ms() - begin);
}

/* All that are left do the same steps, and right. */
static void last_steps(long *step_p)
{
    struct guarded in = guarded_make(1 << 20), out = guarded_make(1 << 20);

    for (int i = 0; i < STEPS_AFTER && team.len > 1; i++)
        if (step_of(*step_p, &in, &out))
            ++*step_p;
        else
            go_on(0, step_p);
    guarded_free(&in);
    guarded_free(&out);
}

static int rank(void)
{
    const char *text = getenv("TROUPE_TEST_SEED");
    troupe_options_t options;
    troupe_t *troupe;
    long step = 0;
    int level;

    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    seed = text != NULL ? strtoull(text, NULL, 0)
                        : (uint64_t)(test_now_ms() * 1000);
    MPI_Bcast(&seed, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    if (test_rank == 0)
        printf("TROUPE_TEST_SEED=%llu\n", (unsigned long long)seed);
    troupe_options_init(&options);
    options.mpi_watchdog_ms = WATCHDOG_MS;
    MUST(troupe_start(&troupe, &options));
    team_make(troupe, size);
    /* As far from each other as TCP makes them. */
    for (int i = 0; by_tcp && i < size; i++)
        members[i].host = (uint64_t)i;
    MUST(team_open(1, 0));
    while (team.len > 2)
        lose_one(&step);
    last_steps(&step);
    check_shut();
    if (team.index == 0)
        printf("%d kills, of which %d were survived by all others; %d wedged "
               "in MPI\n",
               kills, kills - wedged, wedged);
    ops->close(&backend);
    CHECK(tri_finalize_is_barred());
    MUST(troupe_stop(&troupe));
    fflush(NULL);
    _exit(test_status()); /* MPI_Finalize may hang */
}

int main(int argc, char **argv)
{
    int status;

    by_tcp = argc > 1 && strcmp(argv[1], "tcp") == 0;
    if (by_tcp)
        setenv("OMPI_MCA_btl", "tcp,self", 1);
    status = supervise(rank, NULL, 0);
    if (was_killed(status) || has_ended_with(status, TROUPE_EXIT_WEDGED))
        kill(getpid(), SIGKILL); /* what mpirun is to see */
    if (!has_ended_with(status, EXIT_SUCCESS))
        fprintf(stderr, "a rank ended with %#x\n", (unsigned)status);
    return supervise_end(has_ended_with(status, EXIT_SUCCESS));
}
