/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Membership between hosts: a rank on each of four, and a process beside the
 * last one that joined by a seed. It is killed and comes back at its port; the
 * last host is cut off, silently, and the two sides lose each other; the cut
 * heals, and the smaller side learns that it is out; a host is lost with all
 * that runs on it.
 *
 *     members [pauses]   instead: ranks are stopped for less than a second
 *                        each, which is nobody's death
 */
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "../mpi/test.h"
#include "hosts.h"
#include "puppet.h"

enum {
    RANKS = 4,
    CUT = RANKS - 1, /* the joiner is there, too */
    LOST = 2,
    SEED = 1,
    SEED_PORT = 7700, /* each host has its own ports */
    JOINER_PORT = 7701,
    LOOK_MS = 10, /* between two looks */
    PAUSES = 6,
    LONG_PAUSE_MS = 1500, /* such a one tells nothing; 2000 may be a death */
    SKIPPED = 77,
    PAUSE_MS = 900,
    BETWEEN_MS = 300,
    EXCLUSION_MS = 60000,
};

#define witness_messages(TELL, ASK)                                            \
    ASK(witness, look, (uint64_t node;),                                       \
        (uint32_t state; uint32_t evidence; uint32_t alive; uint32_t deaths;   \
         int32_t pid; uint32_t suspicions;))                                   \
    ASK(witness, never, (), (int32_t unused;))                                 \
    ASK(witness, leave, (), (int32_t unused;))
TROUPE_PROTOCOL(witness)

struct witness {
    uint32_t deaths, suspicions;
};

static atomic_int may_leave;
static troupe_t *here;
static witness_ref_t witnesses[RANKS];
static uint64_t nodes[RANKS];
static char actors[RANKS][64]; /* for the joiner to ask */

/* --- on each rank --------------------------------------------------------- */

static int on_start(troupe_self_t *self, struct witness *w)
{
    (void)w;
    return troupe_members_watch(self, 0);
}

static int on_member(troupe_self_t *self, struct witness *w,
                     const troupe_member_event_t *event)
{
    (void)self;
    w->deaths += event->what == TROUPE_MEMBER_DIED;
    w->suspicions += event->what == TROUPE_MEMBER_SUSPECTED;
    return 0;
}

static int on_look(troupe_self_t *self, struct witness *w,
                   const witness_look_t *m)
{
    troupe_member_t member = { .state = 0 };

    troupe_member_get(self, m->node, &member);
    return witness_look_reply(self,
                              (witness_look_result_t){
                                  .state = member.state,
                                  .evidence = member.evidence,
                                  .alive = (uint32_t)troupe_members_alive(self),
                                  .deaths = w->deaths,
                                  .suspicions = w->suspicions,
                                  .pid = getpid(),
                              });
}

static int on_never(troupe_self_t *self, struct witness *w,
                    const witness_never_t *m)
{
    (void)w, (void)m;
    troupe_reply_later(self);
    return 0;
}

static int on_leave(troupe_self_t *self, struct witness *w,
                    const witness_leave_t *m)
{
    (void)w, (void)m;
    atomic_store(&may_leave, 1);
    troupe_wake(self);
    return witness_leave_reply(self, (witness_leave_result_t){ 0 });
}

TROUPE_ACTOR(witness, struct witness, .on_start = on_start,
             .on_member = on_member, .look = on_look, .never = on_never,
             .leave = on_leave)

static int is_over(void *unused)
{
    (void)unused;
    return atomic_load(&may_leave);
}

static int is_excluded(void *unused)
{
    (void)unused;
    return troupe_is_excluded(here);
}

/* Where the rank that was cut off says so: no message of it gets anywhere. */
static const char *word_of_exclusion(void)
{
    static char path[4096];

    snprintf(path, sizeof(path), "%s/excluded", getenv("TEST_HOSTS_DIR"));
    return path;
}

/* Whom the others hold for dead. */
static void await_exclusion(void)
{
    FILE *word;
    troupe_member_event_t event;
    int told = 0;

    CHECK_EQ(troupe_members_wait(here, is_excluded, NULL, 0, EXCLUSION_MS), 0);
    while (troupe_member_events_take(here, &event, 1) == 1)
        told += event.what == TROUPE_MEMBER_EXCLUDED;
    CHECK_EQ(told, 1);
    CHECK_EQ(puppet_ask(here, actors[0], TEST_SOON_MS), TROUPE_ENODE);
    word = fopen(word_of_exclusion(), "w");
    CHECK(word && fclose(word) == 0);
}

/* --- on rank 0 ------------------------------------------------------------ */

static witness_look_result_t look(int rank, uint64_t node)
{
    witness_look_result_t result;

    MUST(witness_look(here, witnesses[rank], (witness_look_t){ node },
                      TEST_SOON_MS, &result));
    return result;
}

/* Until the ranks below `ranks` hold the node for `state`, and so many for
 * alive. Returns how sure they are, at least. */
static uint32_t await(int ranks, uint64_t node, uint32_t state, uint32_t alive)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    uint32_t least = TROUPE_EVIDENCE_PROOF;

    for (int i = 0; i < ranks; i++) {
        witness_look_result_t seen = look(i, node);

        while (seen.state != state || seen.alive != alive) {
            if (test_now_ms() > end_ms) {
                fprintf(stderr,
                        "rank %d holds it for %u, not %u; %u alive, not %u\n",
                        i, seen.state, state, seen.alive, alive);
                MUST(TROUPE_ETIMEDOUT);
            }
            troupe_serve(here, LOOK_MS);
            seen = look(i, node);
        }
        if (seen.evidence < least)
            least = seen.evidence;
    }
    return least;
}

static void say(const char *what, double began_ms)
{
    printf("%s: %.0f ms\n", what, test_now_ms() - began_ms);
    fflush(stdout);
}

static void join(struct puppet *joiner, int ranks, uint32_t alive)
{
    double began_ms = test_now_ms();

    puppet_start(joiner,
                 "key_file=%s seeds=10.77.%d.2:%d listen=%d membership=test",
                 puppet_key_file(0), SEED, SEED_PORT, JOINER_PORT);
    await(ranks, joiner->node, TROUPE_MEMBER_ALIVE, alive);
    for (int i = 0; i < ranks; i++)
        puppet_must(joiner, "ok", "ask %s %d", actors[i], TEST_SOON_MS);
    MUST(puppet_ask(here, joiner->ref, TEST_SOON_MS));
    say("joined and talks to all", began_ms);
}

/* The next life at the same port, at once. */
static void restart(struct puppet *joiner)
{
    uint64_t old = joiner->node;
    double began_ms = test_now_ms();
    uint32_t evidence;

    puppet_kill(joiner, SIGKILL);
    evidence = await(RANKS, old, TROUPE_MEMBER_DEAD, RANKS);
    CHECK_EQ(evidence, TROUPE_EVIDENCE_PROOF); /* rank CUT saw its end */
    CHECK_EQ(puppet_ask(here, joiner->ref, TEST_SOON_MS), TROUPE_ENODE);
    say("killed, known to all", began_ms);
    puppet_spawn_at(joiner, CUT);
    join(joiner, RANKS, RANKS + 1);
    CHECK(joiner->node != old);
    await(RANKS, old, TROUPE_MEMBER_DEAD, RANKS + 1);
}

/* Nothing gets to or from the last host; nobody is told. */
static void cut(struct puppet *joiner)
{
    uint32_t evidence;
    double began_ms;
    int rc;

    CHECK(hosts_run("cut %d", CUT));
    began_ms = test_now_ms();
    rc = witness_never(here, witnesses[CUT], (witness_never_t){}, TEST_SOON_MS,
                       NULL);
    CHECK_EQ(rc, TROUPE_ENODE);
    say("cut off, an ask has failed", began_ms);
    evidence = await(CUT, nodes[CUT], TROUPE_MEMBER_DEAD, CUT);
    CHECK_EQ(evidence, TROUPE_EVIDENCE_SILENCE);
    evidence = await(CUT, joiner->node, TROUPE_MEMBER_DEAD, CUT);
    CHECK_EQ(evidence, TROUPE_EVIDENCE_SILENCE);
    CHECK_EQ(puppet_ask(here, joiner->ref, TEST_SOON_MS), TROUPE_ENODE);
    say("cut off, both dead to all", began_ms);
    /* Over there they go on, too. */
    puppet_must(joiner, "ok", "alive %d %d", RANKS + 1 - CUT, TEST_SOON_MS);
    puppet_must(joiner, "ok", "ask %s %d", actors[CUT], TEST_SOON_MS);
    puppet_must(joiner, "TROUPE_ENODE", "ask %s %d", actors[0], TEST_SOON_MS);
}

static void heal(struct puppet *joiner)
{
    double began_ms = test_now_ms();
    uint64_t old = joiner->node;

    CHECK(hosts_run("heal %d", CUT));
    puppet_must(joiner, "ok", "excluded %d", EXCLUSION_MS);
    while (access(word_of_exclusion(), F_OK) != 0 &&
           test_now_ms() < began_ms + EXCLUSION_MS)
        troupe_serve(here, LOOK_MS);
    CHECK_EQ(access(word_of_exclusion(), F_OK), 0);
    say("healed, all of the smaller side know", began_ms);
    CHECK(!troupe_is_excluded(here));
    await(CUT, old, TROUPE_MEMBER_DEAD, CUT);
    await(CUT, nodes[CUT], TROUPE_MEMBER_DEAD, CUT);
    puppet_say(joiner, "stop");
    join(joiner, CUT, CUT + 1);
    CHECK(joiner->node != old);
}

static void lose_host(struct puppet *joiner)
{
    double began_ms = test_now_ms();
    uint32_t evidence;

    CHECK(hosts_run("signal %d KILL", LOST));
    /* What remains of the host answers that nobody is there. */
    evidence = await(LOST, nodes[LOST], TROUPE_MEMBER_DEAD, LOST + 1);
    CHECK_EQ(evidence, TROUPE_EVIDENCE_CONNECTION);
    puppet_must(joiner, "ok", "state %016" PRIx64 " dead %d", nodes[LOST],
                TEST_SOON_MS);
    say("host lost, known to all", began_ms);
    MUST(puppet_ask(here, joiner->ref, TEST_SOON_MS));
}

/* Of the instances of a name, one on each host, the own host's is taken, also
 * where messages go to it by the fabric. A series may be broken by a suspicion
 * on a machine that starves; by chance a whole one never comes. */
static void prefer_host(void)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    struct puppet guest;
    int taken = 0;

    puppet_spawn_at(&guest, CUT);
    puppet_start(&guest,
                 "key_file=%s seeds=10.77.%d.2:%d membership=test "
                 "transport=fabric",
                 puppet_key_file(0), SEED, SEED_PORT);
    puppet_must(&guest, "ok", "names %d %d witness", RANKS, TEST_SOON_MS);
    while (taken < 20 && test_now_ms() < end_ms) {
        const char *said = puppet_say(
            &guest, "resolve %016" PRIx64 " actor:///witness", nodes[CUT]);

        taken = strcmp(said, "ok") == 0 ? taken + 1 : 0;
    }
    CHECK_EQ(taken, 20);
    puppet_must(&guest, "ok", "stop");
    puppet_end(&guest);
}

static void conduct(void)
{
    struct puppet joiner;

    prefer_host();
    puppet_spawn_at(&joiner, CUT);
    join(&joiner, RANKS, RANKS + 1);
    for (int i = 0; i < RANKS; i++)
        CHECK_EQ(look(i, 0).deaths, 0);
    restart(&joiner);
    cut(&joiner);
    heal(&joiner);
    lose_host(&joiner);
    puppet_must(&joiner, "ok", "stop");
    puppet_end(&joiner);
    /* It goes at once, and its answer maybe with it. */
    (void)witness_leave(here, witnesses[SEED], (witness_leave_t){},
                        TEST_SOON_MS, NULL);
}

/* This rank stood still itself. The others may be dead to each other now. */
static void skip(double pause_ms)
{
    printf("skipped: a pause became %.0f ms long\n", pause_ms);
    fflush(stdout);
    MPI_Abort(MPI_COMM_WORLD, SKIPPED);
}

/* They share a table of processes, as hosts do not. */
static void pauses(void)
{
    uint32_t suspicions = 0;
    double longest_ms = 0;

    for (int k = 0; k < PAUSES; k++) {
        int rank = 1 + k % (RANKS - 1);
        pid_t pid = look(rank, 0).pid;
        double began_ms = test_now_ms();

        CHECK_EQ(kill(pid, SIGSTOP), 0);
        troupe_serve(here, PAUSE_MS);
        CHECK_EQ(kill(pid, SIGCONT), 0);
        if (test_now_ms() - began_ms > longest_ms)
            longest_ms = test_now_ms() - began_ms;
        if (longest_ms > LONG_PAUSE_MS)
            skip(longest_ms);
        troupe_serve(here, BETWEEN_MS);
    }
    for (int i = 0; i < RANKS; i++) {
        witness_look_result_t seen = look(i, nodes[0]);

        CHECK_EQ(seen.deaths, 0);
        CHECK_EQ(seen.alive, RANKS);
        suspicions += seen.suspicions;
    }
    printf("%d pauses, %u suspicions\n", PAUSES, suspicions);
    for (int i = RANKS - 1; i > 0; i--)
        MUST(witness_leave(here, witnesses[i], (witness_leave_t){},
                           TEST_SOON_MS, NULL));
}

/* --- all ------------------------------------------------------------------ */

static void start_node(const char *membership)
{
    troupe_options_t options;
    char listen[16];
    int size, level;

    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    troupe_options_init(&options);
    snprintf(listen, sizeof(listen), "%d", SEED_PORT);
    options.listen = listen;
    options.key_file = test_rank == 0 ? puppet_key_file(0) : NULL;
    options.membership = membership;
    options.log = "error";
    options.stop_timeout_ms = TEST_SOON_MS;
    if (size != RANKS)
        MUST(TROUPE_EINVAL);
    MUST(troupe_start(&here, &options));
}

static void meet(void)
{
    char address[TEST_ADDRESS_BYTES], actor[64];
    uint64_t node = troupe_node_id(here);
    witness_ref_t own;

    MUST(witness_spawn(here, "witness", NULL, &own));
    MUST(puppet_actor(here, actor));
    MPI_Allgather(&node, 1, MPI_UINT64_T, nodes, 1, MPI_UINT64_T,
                  MPI_COMM_WORLD);
    MPI_Allgather(actor, sizeof(actor), MPI_CHAR, actors, sizeof(actor),
                  MPI_CHAR, MPI_COMM_WORLD);
    for (int i = 0; i < RANKS; i++)
        MUST(witness_resolve(here, test_address(address, i, "witness"),
                             TEST_SOON_MS, &witnesses[i]));
    MPI_Barrier(MPI_COMM_WORLD);
}

/* MPI_Finalize may hang after a death, so nobody calls it. */
static void leave(void)
{
    if (test_rank == 0)
        unlink(puppet_key_file(0));
    printf("rank %d: %s\n", test_rank, test_failures ? "FAILED" : "ok");
    fflush(NULL);
    _exit(test_status());
}

/* A failed MUST. */
static void leave_failed(void)
{
    test_failures++;
    leave();
}

int main(int argc, char **argv)
{
    int only_pauses = argc > 1 && strcmp(argv[1], "pauses") == 0;

    puppet_main(argc, argv);
    start_node(only_pauses ? "hpc" : "test");
    meet();
    if (only_pauses) {
        if (test_rank == 0)
            pauses();
        else
            MUST(troupe_serve_until(here, is_over, NULL, TROUPE_FOREVER));
        return test_end(here);
    }
    atexit(leave_failed);
    if (test_rank == 0)
        conduct();
    else if (test_rank == CUT)
        await_exclusion();
    else if (test_rank == LOST)
        troupe_serve(here, TROUPE_FOREVER); /* until it is killed */
    else
        MUST(troupe_serve_until(here, is_over, NULL, TROUPE_FOREVER));
    leave();
}
