/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kill -9 of a rank. On one host the others know it at once, whatever carries
 * the messages: what waits for the dead rank ends with TROUPE_ENODE. All other
 * traffic goes on.
 *
 * Needs mpirun --enable-recovery, under which mpirun itself reports success
 * whatever happened: a rank that has found a fault therefore ends mpirun.
 */
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "leave.h"

enum {
    VICTIM = 1,
    ASKS = 100,
    RANKS_MAX = 64,
};

#define post_messages(TELL, ASK)                                              \
    ASK(post, who, (), (int32_t pid;))                                        \
    ASK(post, add, (int64_t a; int64_t b;), (int64_t sum;))                   \
    ASK(post, never, (), (int32_t unused;))                                   \
    ASK(post, held, (), (int32_t held;))                                      \
    TELL(post, watch, (post_ref_t victim; int32_t timeout_ms;))               \
    TELL(post, nothing, ())                                                   \
    ASK(post, finished, (), (int32_t unused;))
TROUPE_PROTOCOL(post)

struct post {
    int32_t held;
};

static troupe_t *here;
static atomic_int watch_error; /* how the actor's own ask ended */
static atomic_int finished;    /* survivors that need us no more */

static int on_who(troupe_self_t *self, struct post *p, const post_who_t *m)
{
    (void)p, (void)m;
    return post_who_reply(self, (post_who_result_t){ getpid() });
}

static int on_add(troupe_self_t *self, struct post *p, const post_add_t *m)
{
    (void)p;
    return post_add_reply(self, (post_add_result_t){ m->a + m->b });
}

static int on_never(troupe_self_t *self, struct post *p, const post_never_t *m)
{
    (void)m;
    troupe_reply_later(self);
    p->held++;
    return 0;
}

static int on_held(troupe_self_t *self, struct post *p, const post_held_t *m)
{
    (void)m;
    return post_held_reply(self, (post_held_result_t){ p->held });
}

static int then_watch(troupe_self_t *self, void *state, int error,
                      const post_never_result_t *result, void *arg)
{
    (void)state, (void)result, (void)arg;
    atomic_store(&watch_error, error);
    troupe_wake(self);
    return 0;
}

static int on_watch(troupe_self_t *self, struct post *p, const post_watch_t *m)
{
    (void)p;
    return post_never_then(self, m->victim, (post_never_t){}, m->timeout_ms,
                           then_watch, NULL);
}

static int on_nothing(troupe_self_t *self, struct post *p,
                      const post_nothing_t *m)
{
    (void)self, (void)p, (void)m;
    return 0;
}

static int on_finished(troupe_self_t *self, struct post *p,
                       const post_finished_t *m)
{
    (void)p, (void)m;
    atomic_fetch_add(&finished, 1);
    troupe_wake(self);
    return post_finished_reply(self, (post_finished_result_t){ 0 });
}

TROUPE_ACTOR(post, struct post, .who = on_who, .add = on_add,
             .never = on_never, .held = on_held, .watch = on_watch,
             .nothing = on_nothing,
             .finished = on_finished)

/* --- what survivors do ---------------------------------------------------- */

/* Kills the victim when all survivors' asks wait there. */
static void kill_victim(troupe_t *troupe, post_ref_t victim, int waiting)
{
    post_who_result_t who;
    post_held_result_t held = { 0 };
    double end = test_now_ms() + TEST_SOON_MS;

    MUST(post_who(troupe, victim, (post_who_t){}, TEST_SOON_MS, &who));
    while (held.held < waiting) {
        MUST(post_held(troupe, victim, (post_held_t){}, TEST_SOON_MS, &held));
        if (held.held < waiting && test_now_ms() > end)
            MUST(TROUPE_ETIMEDOUT);
        troupe_serve(troupe, 1);
    }
    CHECK_EQ(kill(who.pid, SIGKILL), 0);
}

static int is_told(void *arg)
{
    (void)arg;
    return atomic_load(&watch_error) != 0;
}

static void wait_for_death(troupe_t *troupe, post_ref_t mine,
                           post_ref_t victim, int size)
{
    double begin = test_now_ms();
    int rc;

    MUST(post_watch(troupe, mine, (post_watch_t){ victim, TEST_SOON_MS }));
    if (test_rank == 0) {
        kill_victim(troupe, victim, 2 * (size - 1) - 1);
        begin = test_now_ms();
    } else {
        rc = post_never(troupe, victim, (post_never_t){}, TEST_SOON_MS, NULL);
        CHECK_EQ(rc, TROUPE_ENODE);
        begin = test_now_ms(); /* the actor's ask ends about now, too */
    }
    CHECK_EQ(troupe_serve_until(troupe, is_told, NULL, TEST_SOON_MS), 0);
    rc = atomic_load(&watch_error);
    CHECK_EQ(rc, TROUPE_ENODE);
    printf("rank %d: told %s after %.1f ms\n", test_rank,
           troupe_error_name(rc), test_now_ms() - begin);
}

static int is_listed_dead(void *arg)
{
    post_ref_t *victim = arg;
    troupe_member_t member;

    return troupe_member_get(here, victim->ref.node, &member) == 0 &&
           member.state == TROUPE_MEMBER_DEAD;
}

/* At once: it was no silence that told of it. */
static void check_proof(troupe_t *troupe, post_ref_t victim)
{
    troupe_member_t member = { .state = 0 };

    here = troupe;
    CHECK_EQ(troupe_members_wait(troupe, is_listed_dead, &victim, 0,
                                 TEST_SOON_MS), 0);
    CHECK_EQ(troupe_member_get(troupe, victim.ref.node, &member), 0);
    CHECK_EQ(member.evidence, TROUPE_EVIDENCE_PROOF);
}

/* New messages to the dead rank. */
static void check_dead(troupe_t *troupe, post_ref_t victim)
{
    CHECK_EQ(post_add(troupe, victim, (post_add_t){ 1, 2 }, TEST_SOON_MS,
                      NULL), TROUPE_ENODE);
    CHECK_EQ(post_nothing(troupe, victim, (post_nothing_t){}), TROUPE_ENODE);
    CHECK_EQ(troupe_rank_alive(troupe, VICTIM), 0);
}

static void check_living(troupe_t *troupe, const post_ref_t *posts, int size)
{
    post_add_result_t result;

    for (int n = 0; n < ASKS; n++)
        for (int i = 0; i < size; i++) {
            if (i == VICTIM)
                continue;
            MUST(post_add(troupe, posts[i], (post_add_t){ n, i }, TEST_SOON_MS,
                          &result));
            CHECK_EQ(result.sum, n + i);
        }
}

static int all_finished(void *arg)
{
    return atomic_load(&finished) == *(int *)arg;
}

/* Who leaves is as good as dead to the others, so nobody does before all
 * have finished. An answer may be lost when its sender leaves first. */
static void finish_together(troupe_t *troupe, const post_ref_t *posts,
                            int size)
{
    int survivors = size - 1;

    for (int i = 0; i < size; i++) {
        int rc = i == VICTIM ? 0
                             : post_finished(troupe, posts[i],
                                             (post_finished_t){},
                                             TEST_SOON_MS, NULL);

        CHECK(rc == 0 || rc == TROUPE_ENODE);
    }
    CHECK_EQ(troupe_serve_until(troupe, all_finished, &survivors,
                                TEST_SOON_MS),
             0);
}

int main(void)
{
    post_ref_t posts[RANKS_MAX], mine;
    char address[TEST_ADDRESS_BYTES];
    int size;
    troupe_t *troupe = test_start(&size, NULL);
    double begin;

    atexit(leave_failed);
    if (size < 3 || size > RANKS_MAX)
        MUST(TROUPE_EINVAL);
    MUST(post_spawn(troupe, "post", NULL, &mine));
    for (int i = 0; i < size; i++)
        MUST(post_resolve(troupe, test_address(address, i, "post"),
                          TEST_SOON_MS, &posts[i]));
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == VICTIM) {
        troupe_serve(troupe, 2 * TEST_SOON_MS);
        MUST(TROUPE_ETIMEDOUT); /* nobody killed us */
    }
    wait_for_death(troupe, mine, posts[VICTIM], size);
    check_proof(troupe, posts[VICTIM]);
    check_dead(troupe, posts[VICTIM]);
    check_living(troupe, posts, size);

    finish_together(troupe, posts, size);

    /* Stop must not hang, nor wait for the dead. */
    begin = test_now_ms();
    CHECK_EQ(troupe_stop(&troupe), 0);
    CHECK(test_now_ms() - begin < TEST_SOON_MS);
    leave();
}
