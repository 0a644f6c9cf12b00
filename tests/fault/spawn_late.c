/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A node that does not answer (SIGSTOP) is asked for actors: the askers give
 * up, and what it creates when it goes on is stopped again. Then it is killed:
 * who asks it for an actor is told TROUPE_ENODE.
 */
#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "leave.h"

enum { VICTIM = 1, SPAWNS = 5, SHORT_MS = 100 };

#define post_messages(TELL, ASK)                                              \
    ASK(post, who, (), (int32_t pid; int32_t born; int32_t ended;))
TROUPE_PROTOCOL(post)

struct post {
    int64_t unused;
};

static atomic_int born, ended; /* children of this rank */

static int on_who(troupe_self_t *self, struct post *p, const post_who_t *m)
{
    (void)p, (void)m;
    return post_who_reply(self, (post_who_result_t){ getpid(),
                                                     atomic_load(&born),
                                                     atomic_load(&ended) });
}

TROUPE_ACTOR(post, struct post, .who = on_who)

static int on_birth(troupe_self_t *self, struct post *p)
{
    (void)self, (void)p;
    atomic_fetch_add(&born, 1);
    return 0;
}

static void on_end(troupe_self_t *self, struct post *p, int reason)
{
    (void)self, (void)p, (void)reason;
    atomic_fetch_add(&ended, 1);
}

TROUPE_ACTOR_AS(child, post, struct post, .on_start = on_birth,
                .on_stop = on_end)

/* Each thread of it: one may run on for a moment on another core. */
static int is_stopped(int pid)
{
    char path[64], line[512];
    struct dirent *entry;
    int running = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    dir = opendir(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        const char *state = NULL;
        FILE *file;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%.16s/stat", pid,
                 entry->d_name);
        file = fopen(path, "r");
        if (file != NULL && fgets(line, sizeof(line), file) != NULL)
            state = strrchr(line, ')');
        running += state == NULL || state[2] != 'T';
        if (file != NULL)
            fclose(file);
    }
    if (dir != NULL)
        closedir(dir);
    return dir != NULL && running == 0;
}

static void stop(int pid)
{
    double end = test_now_ms() + TEST_SOON_MS;

    CHECK_EQ(kill(pid, SIGSTOP), 0);
    while (!is_stopped(pid) && test_now_ms() < end)
        usleep(100);
    CHECK(is_stopped(pid));
}

static void check_late(troupe_t *troupe, post_ref_t victim)
{
    double end = test_now_ms() + TEST_SOON_MS;
    post_who_result_t who = { 0 };
    post_ref_t ref;

    MUST(child_spawn_on(troupe, victim.ref.node, NULL, NULL, TEST_SOON_MS,
                        &ref));
    MUST(post_who(troupe, victim, (post_who_t){}, TEST_SOON_MS, &who));
    stop(who.pid);
    for (int i = 0; i < SPAWNS; i++)
        CHECK_EQ(child_spawn_on(troupe, victim.ref.node, NULL, NULL, SHORT_MS,
                                &ref),
                 TROUPE_ETIMEDOUT);
    CHECK_EQ(kill(who.pid, SIGCONT), 0);
    do
        MUST(post_who(troupe, victim, (post_who_t){}, TEST_SOON_MS, &who));
    while (who.ended < SPAWNS && test_now_ms() < end);
    CHECK_EQ(who.born, 1 + SPAWNS);
    CHECK_EQ(who.ended, SPAWNS);
    CHECK_EQ(kill(who.pid, SIGKILL), 0);
}

static void check_dead(troupe_t *troupe, post_ref_t victim)
{
    double begin = test_now_ms();
    post_ref_t ref;
    int rc;

    do
        rc = child_spawn_on(troupe, victim.ref.node, NULL, NULL, TEST_SOON_MS,
                            &ref);
    while (rc == 0);
    CHECK_EQ(rc, TROUPE_ENODE);
    CHECK(test_now_ms() - begin < TEST_SOON_MS / 2);
}

int main(void)
{
    char address[TEST_ADDRESS_BYTES];
    post_ref_t mine, victim;
    int size;
    troupe_t *troupe = test_start(&size, NULL);

    atexit(leave_failed);
    MUST(post_spawn(troupe, "post", NULL, &mine));
    MUST(post_resolve(troupe, test_address(address, VICTIM, "post"),
                      TEST_SOON_MS, &victim));
    if (test_rank == VICTIM) {
        troupe_serve(troupe, 2 * TEST_SOON_MS);
        MUST(TROUPE_ETIMEDOUT); /* nobody killed us */
    }
    check_late(troupe, victim);
    check_dead(troupe, victim);
    CHECK_EQ(troupe_stop(&troupe), 0);
    leave();
}
