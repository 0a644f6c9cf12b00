/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * MPI_Comm_spawn blocks until the children have initialized MPI, and for ever
 * when something dies in between; so it runs in a thread that can be left
 * behind. Parent and children part again when the welcome is handed over: then
 * nobody's MPI_Finalize waits for the others, and all further news goes by the
 * cluster.
 */
#include "mpi/spawn.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "mpi/finalize.h"
#include "mpi/job_mpi.h"
#include "os/thread.h"

#define WELCOME_TAG 0x7472
/* Tells our children from those of the program's own MPI_Comm_spawn; no secret,
 * and no option. */
#define VARIABLE "TRI_SPAWNED"
#define WELCOME_NS (30000 * TRI_NS_PER_MS)

struct tri_spawn {
    pthread_t thread;
    char *command;
    char **argv;
    int len;
    struct tri_welcome welcome;
    int rc;
    atomic_bool done; /* release: rc is there */
};

/* --- parent --------------------------------------------------------------- */

/* As soon as nobody gets it any more. */
static void forget_key(struct tri_spawn *spawn)
{
    explicit_bzero(&spawn->welcome, sizeof(spawn->welcome));
}

static void destroy(struct tri_spawn *spawn)
{
    for (size_t i = 0; spawn->argv != NULL && spawn->argv[i] != NULL; i++)
        free(spawn->argv[i]);
    free(spawn->argv);
    free(spawn->command);
    free(spawn);
}

static bool copy_command(struct tri_spawn *spawn, const char *command,
                         char *const argv[])
{
    size_t len = 0;

    spawn->command = strdup(command);
    while (argv != NULL && argv[len] != NULL)
        len++;
    spawn->argv = calloc(len + 1, sizeof(*spawn->argv));
    for (size_t i = 0; spawn->argv != NULL && i < len; i++) {
        spawn->argv[i] = strdup(argv[i]);
        if (spawn->argv[i] == NULL)
            return false;
    }
    return spawn->command != NULL && spawn->argv != NULL;
}

static int hand_over(struct tri_spawn *spawn, MPI_Comm children)
{
    int rc;

    MPI_Comm_set_errhandler(children, MPI_ERRORS_RETURN);
    rc = MPI_Send(&spawn->welcome, (int)sizeof(spawn->welcome), MPI_BYTE, 0,
                  WELCOME_TAG, children);
    forget_key(spawn); /* to part may take for ever */
    if (rc != MPI_SUCCESS)
        return tri_mpi_failed("MPI_Send", rc);
    rc = MPI_Comm_disconnect(&children);
    return rc == MPI_SUCCESS ? 0 : tri_mpi_failed("MPI_Comm_disconnect", rc);
}

static void *run(void *arg)
{
    struct tri_spawn *spawn = arg;
    MPI_Comm self, children = MPI_COMM_NULL;
    MPI_Info info;
    int rc;

    /* Errors are to come back: of a duplicate that is nobody else's. */
    MPI_Comm_dup(MPI_COMM_SELF, &self);
    MPI_Comm_set_errhandler(self, MPI_ERRORS_RETURN);
    MPI_Info_create(&info);
    MPI_Info_set(info, "env", VARIABLE "=1");
    rc = MPI_Comm_spawn(spawn->command, spawn->argv, spawn->len, info, 0, self,
                        &children, MPI_ERRCODES_IGNORE);
    MPI_Info_free(&info);
    spawn->rc = rc == MPI_SUCCESS ? hand_over(spawn, children)
                                  : tri_mpi_failed("MPI_Comm_spawn", rc);
    forget_key(spawn);
    MPI_Comm_free(&self);
    /* Pairs with the acquire load of tri_spawn_is_done. */
    atomic_store_explicit(&spawn->done, true, memory_order_release);
    return NULL;
}

int tri_spawn_begin(const char *command, char *const argv[], int len,
                    const struct tri_welcome *welcome,
                    struct tri_spawn **spawn_p)
{
    struct tri_spawn *spawn = calloc(1, sizeof(*spawn));
    int level = MPI_THREAD_SINGLE, rc;

    if (spawn == NULL || !copy_command(spawn, command, argv)) {
        if (spawn != NULL)
            destroy(spawn);
        return TROUPE_ENOMEM;
    }
    MPI_Query_thread(&level);
    rc = level == MPI_THREAD_MULTIPLE ? 0 : TROUPE_EMPI;
    if (rc != 0)
        tri_error("nodes are started in a thread: MPI must be initialized "
                  "with MPI_THREAD_MULTIPLE");
    spawn->len = len;
    spawn->welcome = *welcome;
    if (rc == 0)
        rc = tri_thread_create(&spawn->thread, "troupe-spawn", run, spawn);
    if (rc != 0) {
        forget_key(spawn);
        destroy(spawn);
        return rc;
    }
    *spawn_p = spawn;
    return 0;
}

bool tri_spawn_is_done(struct tri_spawn *spawn, int *rc_p)
{
    /* Pairs with the release store of run. */
    if (!atomic_load_explicit(&spawn->done, memory_order_acquire))
        return false;
    *rc_p = spawn->rc;
    return true;
}

void tri_spawn_end(struct tri_spawn **spawn_p)
{
    struct tri_spawn *spawn = *spawn_p;
    int rc;

    *spawn_p = NULL;
    if (tri_spawn_is_done(spawn, &rc)) {
        pthread_join(spawn->thread, NULL);
        destroy(spawn);
        return;
    }
    pthread_detach(spawn->thread);
    tri_finalize_bar();
    tri_warn("MPI_Comm_spawn has not returned, and is left behind");
}

/* --- children ------------------------------------------------------------- */

static int receive(MPI_Comm parent, struct tri_welcome *welcome_p)
{
    uint64_t deadline_ns = tri_now_ns() + WELCOME_NS;
    int rc, there = 0;

    do {
        rc = MPI_Iprobe(0, WELCOME_TAG, parent, &there, MPI_STATUS_IGNORE);
        if (rc != MPI_SUCCESS)
            return tri_mpi_failed("MPI_Iprobe", rc);
    } while (!there && tri_now_ns() < deadline_ns);
    if (!there) {
        tri_error("the node that started this job does not say where to join");
        return TROUPE_ETIMEDOUT;
    }
    rc = MPI_Recv(welcome_p, (int)sizeof(*welcome_p), MPI_BYTE, 0, WELCOME_TAG,
                  parent, MPI_STATUS_IGNORE);
    return rc == MPI_SUCCESS ? 0 : tri_mpi_failed("MPI_Recv", rc);
}

int tri_spawn_welcome(struct tri_job *job, bool *spawned_p,
                      struct tri_welcome *welcome_p)
{
    MPI_Comm parent = MPI_COMM_NULL;
    struct tri_welcome all;
    int rc = 0;

    *spawned_p = false;
    if (getenv(VARIABLE) == NULL ||
        MPI_Comm_get_parent(&parent) != MPI_SUCCESS ||
        parent == MPI_COMM_NULL)
        return 0;
    MPI_Comm_set_errhandler(parent, MPI_ERRORS_RETURN);
    memset(welcome_p, 0, sizeof(*welcome_p));
    if (tri_job_rank(job) == 0)
        rc = receive(parent, welcome_p);
    rc = tri_job_agree(job, rc);
    if (rc != 0)
        return rc;
    rc = MPI_Comm_disconnect(&parent);
    if (rc != MPI_SUCCESS)
        return tri_mpi_failed("MPI_Comm_disconnect", rc);
    /* A second life of this process begins as any other. */
    unsetenv(VARIABLE);
    *spawned_p = true;
    all = *welcome_p;
    memset(all.key, 0, sizeof(all.key));
    rc = tri_job_broadcast(job, &all, sizeof(all));
    if (tri_job_rank(job) != 0)
        *welcome_p = all;
    welcome_p->seeds[sizeof(welcome_p->seeds) - 1] = '\0';
    welcome_p->cluster[sizeof(welcome_p->cluster) - 1] = '\0';
    return rc;
}
