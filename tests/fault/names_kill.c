/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kill -9 of a rank: its names are gone everywhere, who waits for one of them
 * on it is told, watchers are, and a unique name of it can be taken again.
 */
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "leave.h"

enum {
    VICTIM = 1,
    NAMES = 50,          /* of the victim */
    KNOWN_MS = 20000,    /* until silence alone would tell */
};

#define desk_messages(TELL, ASK)                                              \
    ASK(desk, pid, (), (int32_t pid;))                                        \
    ASK(desk, watch, (), (int32_t unused;))                                   \
    ASK(desk, ready, (), (int32_t unused;))                                   \
    ASK(desk, done, (), (int32_t unused;))
TROUPE_PROTOCOL(desk)

struct desk {
    int32_t unused;
};

static atomic_int removed, ready, done;

static int on_pid(troupe_self_t *self, struct desk *d, const desk_pid_t *m)
{
    (void)d, (void)m;
    return desk_pid_reply(self, (desk_pid_result_t){ getpid() });
}

static int on_watch(troupe_self_t *self, struct desk *d, const desk_watch_t *m)
{
    int rc = troupe_names_watch(self, "victim/", NULL);

    (void)d, (void)m;
    return rc != 0 ? rc : desk_watch_reply(self, (desk_watch_result_t){ 0 });
}

static int on_ready(troupe_self_t *self, struct desk *d, const desk_ready_t *m)
{
    (void)d, (void)m;
    atomic_fetch_add(&ready, 1);
    troupe_wake(self);
    return desk_ready_reply(self, (desk_ready_result_t){ 0 });
}

static int on_done(troupe_self_t *self, struct desk *d, const desk_done_t *m)
{
    (void)d, (void)m;
    atomic_fetch_add(&done, 1);
    troupe_wake(self);
    return desk_done_reply(self, (desk_done_result_t){ 0 });
}

static int on_name(troupe_self_t *self, struct desk *d,
                   const troupe_name_event_t *event)
{
    (void)d;
    if (event->what == TROUPE_NAME_REMOVED)
        atomic_fetch_add(&removed, 1);
    troupe_wake(self);
    return 0;
}

TROUPE_ACTOR(desk, struct desk, .pid = on_pid, .watch = on_watch,
             .ready = on_ready, .done = on_done, .on_name = on_name)

static size_t count(troupe_t *troupe, const char *prefix)
{
    return troupe_names_list(troupe, prefix, NULL, 0);
}

static double await_count(troupe_t *troupe, const char *prefix, size_t wanted)
{
    double begin = test_now_ms();

    while (count(troupe, prefix) != wanted &&
           test_now_ms() - begin < KNOWN_MS)
        troupe_serve(troupe, 1);
    CHECK_EQ((long long)count(troupe, prefix), (long long)wanted);
    return test_now_ms() - begin;
}

static void be_victim(troupe_t *troupe)
{
    troupe_spawn_options_t unique = { .name = "victim/only", .unique = 1 };
    desk_ref_t ref;

    for (int i = 0; i < NAMES - 1; i++) {
        char name[32];

        snprintf(name, sizeof(name), "victim/%d", i);
        MUST(desk_spawn(troupe, name, NULL, &ref));
    }
    MUST(desk_spawn_with(troupe, &unique, NULL, &ref));
    troupe_serve(troupe, 2 * TEST_SOON_MS);
    MUST(TROUPE_ETIMEDOUT); /* nobody killed us */
}

static int all_removed(void *arg)
{
    (void)arg;
    return atomic_load(&removed) == NAMES;
}

/* The names go while somebody waits for another one of that rank. */
static void wait_for_death(troupe_t *troupe)
{
    char address[TEST_ADDRESS_BYTES];
    desk_ref_t ref;
    double ms;
    int rc = desk_resolve(troupe, test_address(address, VICTIM, "never"),
                          KNOWN_MS, &ref);

    CHECK_EQ(rc, TROUPE_ENODE);
    ms = await_count(troupe, "victim/", 0);
    printf("rank %d: names gone %.1f ms after asks had failed\n", test_rank,
           ms);
    CHECK_EQ(troupe_serve_until(troupe, all_removed, NULL, TEST_SOON_MS), 0);
    CHECK_EQ(desk_resolve(troupe, "actor:///victim/0", 20, &ref),
             TROUPE_ENONAME);
    CHECK_EQ(desk_resolve(troupe, test_address(address, VICTIM, "victim/0"),
                          20, &ref),
             TROUPE_ENODE);
}

static int all_ready(void *arg)
{
    return atomic_load(&ready) == *(int *)arg;
}

static int all_done(void *arg)
{
    return atomic_load(&done) >= *(int *)arg;
}

/* rounds: how often it was called, this time included. */
static void finish_together(troupe_t *troupe, const desk_ref_t *desks,
                            int size, int rounds)
{
    int told = rounds * (size - 1);

    for (int i = 0; i < size; i++) {
        int rc = i == VICTIM ? 0
                             : desk_done(troupe, desks[i], (desk_done_t){},
                                         TEST_SOON_MS, NULL);

        CHECK(rc == 0 || rc == TROUPE_ENODE);
    }
    CHECK_EQ(troupe_serve_until(troupe, all_done, &told, TEST_SOON_MS),
             0);
}

int main(void)
{
    troupe_spawn_options_t unique = { .name = "victim/only", .unique = 1 };
    desk_ref_t desks[64], mine, ref;
    desk_pid_result_t pid;
    char address[TEST_ADDRESS_BYTES];
    int size;
    troupe_t *troupe = test_start(&size, NULL);

    atexit(leave_failed);
    if (size < 3 || size > 64)
        MUST(TROUPE_EINVAL);
    MUST(desk_spawn(troupe, "desk", NULL, &mine));
    for (int i = 0; i < size; i++)
        MUST(desk_resolve(troupe, test_address(address, i, "desk"),
                          TEST_SOON_MS, &desks[i]));
    if (test_rank == VICTIM)
        be_victim(troupe);
    MUST(desk_watch(troupe, mine, (desk_watch_t){}, TEST_SOON_MS, NULL));
    await_count(troupe, "victim/", NAMES);
    CHECK_EQ(desk_spawn_with(troupe, &unique, NULL, &ref), TROUPE_EEXIST);
    MUST(desk_ready(troupe, desks[0], (desk_ready_t){}, TEST_SOON_MS, NULL));
    if (test_rank == 0) {
        int survivors = size - 1;

        MUST(troupe_serve_until(troupe, all_ready, &survivors, TEST_SOON_MS));
        MUST(desk_pid(troupe, desks[VICTIM], (desk_pid_t){}, TEST_SOON_MS,
                      &pid));
        CHECK_EQ(kill(pid.pid, SIGKILL), 0);
    }
    wait_for_death(troupe);
    finish_together(troupe, desks, size, 1);
    if (test_rank == size - 1)
        MUST(desk_spawn_with(troupe, &unique, NULL, &ref));
    MUST(desk_resolve(troupe, "actor:///victim/only", TEST_SOON_MS, &ref));
    CHECK_EQ(troupe_rank_of(troupe, ref.ref.node), size - 1);
    finish_together(troupe, desks, size, 2);
    (void)troupe_stop(&troupe);
    leave();
}
