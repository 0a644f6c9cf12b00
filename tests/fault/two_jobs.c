/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two mpirun jobs, one of which joins the other: all ranks know all, each asks
 * each; the second job leaves, which is no death, and the first one goes on.
 *
 * Without arguments: starts both. With: a rank of one of them.
 */
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../mpi/test.h"
#include "puppet.h"

enum {
    RANKS = 2,
    ALL = 2 * RANKS,
};

extern char **environ;

static int all_left(void *arg)
{
    troupe_member_t list[ALL];
    troupe_t *troupe = arg;
    int left = 0;

    if (troupe_members(troupe, list, ALL) != ALL)
        return 0;
    for (int i = 0; i < ALL; i++)
        left += list[i].state == TROUPE_MEMBER_LEFT;
    return left == RANKS;
}

static int all_asked(void *arg)
{
    troupe_member_t list[ALL];
    troupe_t *troupe = arg;

    if (troupe_members(troupe, list, ALL) != ALL)
        return 0;
    for (int i = 0; i < ALL; i++)
        if (strcmp(list[i].tags, "asked") != 0)
            return 0;
    return 1;
}

/* The other job's actors may not be there yet, nor be reached. */
static int ask_soon(troupe_t *troupe, const char *ref)
{
    double end = test_now_ms() + TEST_SOON_MS;
    int rc;

    while ((rc = puppet_ask(troupe, ref, TEST_SOON_MS)) != 0 &&
           test_now_ms() < end)
        troupe_serve(troupe, 20);
    return rc;
}

/* Every first actor of a process has the same place. */
static void ask_all(troupe_t *troupe, const char *own)
{
    troupe_member_t list[ALL];
    char ref[64];

    CHECK_EQ(troupe_members(troupe, list, ALL), ALL);
    for (int i = 0; i < ALL; i++) {
        if (i < RANKS)
            CHECK_EQ(list[i].rank, i);
        else /* as they came */
            CHECK(list[i].rank >= 0 && list[i].rank < RANKS);
        CHECK((list[i].job == list[0].job) == (i < RANKS));
        snprintf(ref, sizeof(ref), "%016" PRIx64 "%s", list[i].node,
                 strchr(own, ' '));
        CHECK_EQ(ask_soon(troupe, ref), 0);
    }
}

static int no_death(troupe_t *troupe)
{
    troupe_member_event_t event;

    while (troupe_member_events_take(troupe, &event, 1) == 1)
        if (event.what == TROUPE_MEMBER_DIED)
            return 0;
    return 1;
}

/* A rank of the job that is joined, or of the one that joins. */
static int rank_main(int joins, const char *port, const char *key_file)
{
    troupe_options_t options;
    char seeds[64], own[64];
    troupe_t *troupe;
    int size;

    troupe_options_init(&options);
    snprintf(seeds, sizeof(seeds), "127.0.0.1:%s", port);
    options.key_file = key_file;
    if (joins)
        options.seeds = seeds;
    else
        options.listen = port;
    options.join_timeout_ms = TEST_SOON_MS;
    options.stop_timeout_ms = TEST_SOON_MS;
    troupe = test_start(&size, &options);
    CHECK_EQ(size, RANKS);
    MUST(puppet_actor(troupe, own));
    MUST(troupe_members_wait(troupe, NULL, NULL, ALL, TEST_SOON_MS));
    ask_all(troupe, own);
    /* Nobody leaves while another has still to ask it. */
    MUST(troupe_member_tag(troupe, "asked"));
    if (joins)
        MUST(troupe_members_wait(troupe, all_asked, troupe, 0, TEST_SOON_MS));
    MPI_Barrier(MPI_COMM_WORLD);
    if (!joins) {
        MUST(troupe_members_wait(troupe, all_left, troupe, 0, TEST_SOON_MS));
        MPI_Barrier(MPI_COMM_WORLD);
    }
    CHECK(no_death(troupe));
    return test_end(troupe);
}

/* --- both jobs ------------------------------------------------------------ */

static pid_t start_job(const char *joins, const char *port,
                       const char *key_file)
{
    const char *launcher = getenv("MPIRUN");
    char self[512];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *arguments[] = { (char *)"mpirun",
                          (char *)"-np",
                          (char *)"2",
                          (char *)"--oversubscribe",
                          (char *)"--mca",
                          (char *)"btl",
                          (char *)"vader,tcp,self",
                          self,
                          (char *)joins,
                          (char *)port,
                          (char *)key_file,
                          NULL };
    pid_t pid;

    self[len > 0 ? len : 0] = '\0';
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    if (posix_spawnp(&pid, launcher && *launcher ? launcher : "mpirun", NULL,
                     NULL, arguments, environ) != 0) {
        printf("no MPI launcher: skipped\n");
        exit(77);
    }
    return pid;
}

static int is_openmpi(void)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int len;

    MPI_Get_library_version(version, &len);
    return strstr(version, "Open MPI") != NULL;
}

int main(int argc, char **argv)
{
    pid_t jobs[2];
    char port[16];
    int failed = 0;

    if (argc == 4)
        return rank_main(atoi(argv[1]), argv[2], argv[3]);
    if (!is_openmpi()) {
        printf("options of Open MPI's mpirun are needed: skipped\n");
        return 77;
    }
    snprintf(port, sizeof(port), "%u", puppet_free_port());
    jobs[0] = start_job("0", port, puppet_key_file(0));
    jobs[1] = start_job("1", port, puppet_key_file(0));
    for (int i = 0; i < 2; i++) {
        int status = 0;

        failed |= waitpid(jobs[i], &status, 0) != jobs[i] || status != 0;
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
