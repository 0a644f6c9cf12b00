/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Kill and restart, over and over: a process joins a running job, talks to
 * all ranks, is killed (kill -9), and comes back at the same port as another
 * node. All ranks know of each death, with proof; and in the end the ranks
 * have as many descriptors, threads, connections and living members as before,
 * and hardly more memory.
 *
 * TROUPE_TEST_ROUNDS: how many (30).
 */
#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "../lib/usage.h"
#include "leave.h"
#include "puppet.h"

enum {
    ROUNDS = 30,
    WARM_ROUNDS = 5, /* until caches and pools have what they keep */
    RANKS_MAX = 16,
    LOOK_MS = 2, /* between two looks */
    /* A rank may grow by this: the dead are remembered for a minute or two,
     * and freed memory comes back in other pieces. */
    MORE_BYTES_MAX = 8 << 20,
    MORE_BYTES_MAX_LONG = 24 << 20,
    LONG_ROUNDS = 200,
};

#define clerk_messages(TELL, ASK)                                              \
    ASK(clerk, look, (uint64_t node;),                                         \
        (uint64_t resident_bytes; uint32_t fds; uint32_t threads;              \
         uint32_t links; uint32_t alive; uint32_t state; uint32_t evidence;))  \
    ASK(clerk, leave, (), (int32_t unused;))
TROUPE_PROTOCOL(clerk)

struct clerk {
    int unused;
};

static atomic_int may_leave;
static troupe_t *here;
static clerk_ref_t clerks[RANKS_MAX];
static char actors[RANKS_MAX][64]; /* for puppets to ask */
static int size;

/* --- on each rank --------------------------------------------------------- */

static int on_look(troupe_self_t *self, struct clerk *c, const clerk_look_t *m)
{
    clerk_look_result_t result = {
        .resident_bytes = (uint64_t)usage_resident_bytes(),
        .fds = usage_entries("/proc/self/fd"),
        .threads = usage_entries("/proc/self/task"),
    };
    troupe_member_t member = { .state = 0 };
    troupe_stats_t stats;

    (void)c;
    troupe_member_get(self, m->node, &member);
    troupe_stats(self, &stats);
    result.links = stats.peers_ring + stats.peers_fabric;
    result.alive = (uint32_t)troupe_members_alive(self);
    result.state = member.state;
    result.evidence = member.evidence;
    return clerk_look_reply(self, result);
}

static int on_leave(troupe_self_t *self, struct clerk *c,
                    const clerk_leave_t *m)
{
    (void)c, (void)m;
    atomic_store(&may_leave, 1);
    troupe_wake(self);
    return clerk_leave_reply(self, (clerk_leave_result_t){ 0 });
}

TROUPE_ACTOR(clerk, struct clerk, .look = on_look, .leave = on_leave)

/* --- on rank 0 ------------------------------------------------------------ */

static clerk_look_result_t look(int rank, uint64_t node)
{
    clerk_look_result_t result;

    MUST(clerk_look(here, clerks[rank], (clerk_look_t){ node }, TEST_SOON_MS,
                    &result));
    return result;
}

/* Until all ranks hold the node for `state`, and so many are alive. */
static void await(uint64_t node, uint32_t state, uint32_t alive)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;

    for (int i = 0; i < size; i++) {
        clerk_look_result_t seen = look(i, node);

        while (seen.state != state || seen.alive != alive) {
            if (test_now_ms() > end_ms) {
                fprintf(stderr,
                        "rank %d: state %u, not %u; %u alive, not "
                        "%u\n",
                        i, seen.state, state, seen.alive, alive);
                MUST(TROUPE_ETIMEDOUT);
            }
            troupe_serve(here, LOOK_MS);
            seen = look(i, node);
        }
        if (state == TROUPE_MEMBER_DEAD)
            CHECK_EQ(seen.evidence, TROUPE_EVIDENCE_PROOF);
    }
}

static void start(struct puppet *puppet, unsigned seed, unsigned port)
{
    puppet_spawn(puppet);
    puppet_start(puppet, "key_file=%s seeds=127.0.0.1:%u listen=%u",
                 puppet_key_file(0), seed, port);
}

/* One life of a process that joins. */
static void live_and_die(unsigned seed, unsigned port)
{
    static uint64_t last;
    struct puppet puppet;

    start(&puppet, seed, port);
    CHECK(puppet.node != last);
    last = puppet.node;
    await(puppet.node, TROUPE_MEMBER_ALIVE, (uint32_t)size + 1);
    for (int i = 0; i < size; i++)
        puppet_must(&puppet, "ok", "ask %s %d", actors[i], TEST_SOON_MS);
    MUST(puppet_ask(here, puppet.ref, TEST_SOON_MS));
    puppet_kill(&puppet, SIGKILL);
    await(puppet.node, TROUPE_MEMBER_DEAD, (uint32_t)size);
    CHECK_EQ(puppet_ask(here, puppet.ref, TEST_SOON_MS), TROUPE_ENODE);
}

/* What is given back later has some time for it. */
static void compare(int rank, const clerk_look_result_t *before, int rounds)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    clerk_look_result_t after = look(rank, 0);
    int64_t more,
        more_max = rounds < LONG_ROUNDS ? MORE_BYTES_MAX : MORE_BYTES_MAX_LONG;

    while ((after.fds > before->fds || after.links > before->links) &&
           test_now_ms() < end_ms) {
        troupe_serve(here, 10 * LOOK_MS);
        after = look(rank, 0);
    }
    more = (int64_t)after.resident_bytes - (int64_t)before->resident_bytes;
    printf("rank %d: %u descriptors, before %u; %u threads, before %u; "
           "%u connections, before %u; %lld KiB more resident\n",
           rank, after.fds, before->fds, after.threads, before->threads,
           after.links, before->links, (long long)more / 1024);
    CHECK(after.fds <= before->fds);
    CHECK_EQ(after.threads, before->threads);
    CHECK(after.links <= before->links);
    CHECK_EQ(after.alive, size);
    CHECK(!USAGE_RESIDENT_COUNTS || more < more_max);
}

static uint32_t our_shm_files(void)
{
    DIR *dir = opendir("/dev/shm");
    struct dirent *entry;
    uint32_t len = 0;

    while (dir && (entry = readdir(dir)))
        len += strstr(entry->d_name, "troupe") != NULL;
    if (dir)
        closedir(dir);
    return len;
}

static void conduct(unsigned seed, unsigned port)
{
    const char *text = getenv("TROUPE_TEST_ROUNDS");
    int rounds = text ? atoi(text) : ROUNDS;
    clerk_look_result_t before[RANKS_MAX];
    uint32_t files = our_shm_files();
    double began_ms;

    unsetenv("TROUPE_TEST_ROUNDS"); /* no option: each puppet would say so */
    for (int i = 0; i < WARM_ROUNDS; i++)
        live_and_die(seed, port);
    for (int i = 0; i < size; i++)
        before[i] = look(i, 0);
    began_ms = test_now_ms();
    for (int i = 0; i < rounds; i++)
        live_and_die(seed, port);
    printf("%d rounds, %.0f ms each\n", rounds,
           (test_now_ms() - began_ms) / rounds);
    for (int i = 0; i < size; i++)
        compare(i, &before[i], rounds);
    CHECK_EQ(our_shm_files(), files);
    for (int i = size - 1; i >= 0; i--)
        MUST(clerk_leave(here, clerks[i], (clerk_leave_t){}, TEST_SOON_MS,
                         NULL));
}

static int is_over(void *unused)
{
    (void)unused;
    return atomic_load(&may_leave);
}

static void start_job(unsigned *seed_p)
{
    troupe_options_t options;
    char listen[64];
    int level;

    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size > RANKS_MAX)
        MUST(TROUPE_EINVAL);
    *seed_p = puppet_free_port();
    MPI_Bcast(seed_p, 1, MPI_UNSIGNED, 0, MPI_COMM_WORLD);
    snprintf(listen, sizeof(listen), "127.0.0.1:%u", *seed_p);
    troupe_options_init(&options);
    options.listen = listen;
    options.key_file = test_rank == 0 ? puppet_key_file(0) : "/unused";
    options.log = "error"; /* deaths are not news here */
    MUST(troupe_start(&here, &options));
}

int main(int argc, char **argv)
{
    char address[TEST_ADDRESS_BYTES];
    char actor[64];
    clerk_ref_t clerk;
    unsigned seed;

    puppet_main(argc, argv);
    on_exit(leave_failed_status, NULL);
    start_job(&seed);
    MUST(clerk_spawn(here, "clerk", NULL, &clerk));
    MUST(puppet_actor(here, actor));
    MPI_Gather(actor, sizeof(actor), MPI_CHAR, actors, sizeof(actor), MPI_CHAR,
               0, MPI_COMM_WORLD);
    for (int i = 0; i < size; i++)
        MUST(clerk_resolve(here, test_address(address, i, "clerk"),
                           TEST_SOON_MS, &clerks[i]));
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        conduct(seed, puppet_free_port());
    else
        MUST(troupe_serve_until(here, is_over, NULL, TROUPE_FOREVER));
    return test_end(here);
}
