/* SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/job.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "mpi/finalize.h"
#include "mpi/job_mpi.h"

struct tri_job {
    MPI_Comm comm;
    bool owns_mpi; /* we initialized it, so we finalize it */
    int rank;
    int size;
    MPI_Request barrier;
    int barrier_own, barrier_all; /* whether MPI is not to be finalized */
    struct tri_job *next;         /* left behind */
};

/* A process has one node at a time, and so one job. */
static struct tri_job *_Atomic job_of_process;
static struct tri_job *left_behind; /* never freed; the starting thread's */

/* How many ranks the launcher says there are; 0: no launcher. */
static int launched_size(void)
{
    static const char *const variables[] = {
        "OMPI_COMM_WORLD_SIZE", /* Open MPI's mpirun */
        "PMI_SIZE",             /* MPICH's hydra */
        "SLURM_STEP_NUM_TASKS", /* srun with either */
    };

    for (size_t i = 0; i < tri_array_len(variables); i++) {
        const char *value = getenv(variables[i]);

        if (value != NULL && atoi(value) > 0)
            return atoi(value);
    }
    return 0;
}

int tri_mpi_failed(const char *call, int rc)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int len = 0;

    MPI_Error_string(rc, text, &len);
    tri_error("%s failed: %s", call, text);
    return TROUPE_EMPI;
}

/* Initializes MPI when the program did not. */
static int init_mpi(struct tri_job *job)
{
    int initialized = 0, finalized = 0, provided, rc;

    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (finalized) {
        tri_error("MPI is finalized already; start the node before that");
        return TROUPE_EMPI;
    }
    if (initialized)
        return 0;
    /* Elastic groups make communicators in threads of their own. */
    rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided);
    if (rc != MPI_SUCCESS)
        return tri_mpi_failed("MPI_Init_thread", rc);
    job->owns_mpi = true;
    return 0;
}

static bool in_use(void)
{
    int initialized = 0;

    MPI_Initialized(&initialized);
    return initialized;
}

/*
 * A rank started by one MPI's launcher and linked with another MPI is a
 * world of its own; better said than suffered.
 */
static int check_launcher(int world_size, int launched)
{
    if (launched <= 1 || world_size != 1)
        return 0;
    tri_error("the launcher started %d ranks, but MPI sees only this one: "
              "start the program with the mpirun of the MPI it is linked "
              "with",
              launched);
    return TROUPE_EMPI;
}

static int open_comm(struct tri_job *job, const void *comm, int launched)
{
    MPI_Comm parent = comm != NULL ? *(const MPI_Comm *)comm : MPI_COMM_WORLD;
    int world_size, rc;

    MPI_Comm_size(MPI_COMM_WORLD, &world_size);
    if (check_launcher(world_size, launched) != 0)
        return TROUPE_EMPI;
    rc = MPI_Comm_dup(parent, &job->comm);
    if (rc != MPI_SUCCESS)
        return tri_mpi_failed("MPI_Comm_dup", rc);
    MPI_Comm_set_errhandler(job->comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(job->comm, &job->rank);
    MPI_Comm_size(job->comm, &job->size);
    return 0;
}

int tri_job_open(const void *comm, struct tri_job **job_p)
{
    int launched = launched_size();
    struct tri_job *job;
    int rc;

    *job_p = NULL;
    if (launched == 0 && comm == NULL && !in_use())
        return 0;
    job = calloc(1, sizeof(*job));
    if (job == NULL)
        return TROUPE_ENOMEM;
    job->comm = MPI_COMM_NULL;
    job->barrier = MPI_REQUEST_NULL;
    rc = init_mpi(job);
    if (rc == 0)
        rc = open_comm(job, comm, launched);
    if (rc != 0) {
        tri_job_close(job, true);
        return rc;
    }
    atomic_store(&job_of_process, job);
    *job_p = job;
    return 0;
}

MPI_Comm tri_job_comm(void)
{
    struct tri_job *job = atomic_load(&job_of_process);

    return job != NULL ? job->comm : MPI_COMM_NULL;
}

/* Open MPI tells ranks of --enable-recovery by this. */
void tri_job_check_recovery(void)
{
    static atomic_bool said;
    struct tri_job *job = atomic_load(&job_of_process);

    if (job == NULL || job->size == 1 || atomic_exchange(&said, true) ||
        job->rank != 0)
        return;
#if defined(OPEN_MPI)
    const char *recovery = getenv("OMPI_MCA_orte_enable_recovery");

    if (recovery == NULL || strcmp(recovery, "0") == 0 ||
        strcmp(recovery, "false") == 0)
        tri_warn("an elastic group, but mpirun was started without recovery: "
                 "the death of one rank will end them all. Start with `troupe "
                 "run`, or `mpirun --enable-recovery --mca pml ob1 --mca btl "
                 "vader,tcp,self`");
#elif defined(MPICH_VERSION)
    tri_warn("an elastic group, but with MPICH: the death of one rank ends the "
             "job. Nodes of other jobs may die, join and leave");
#endif
}

int tri_job_rank(const struct tri_job *job)
{
    return job->rank;
}

int tri_job_size(const struct tri_job *job)
{
    return job->size;
}

int tri_job_allgather(struct tri_job *job, const void *own, void *all,
                      size_t bytes)
{
    int rc = MPI_Allgather(own, (int)bytes, MPI_BYTE, all, (int)bytes,
                           MPI_BYTE, job->comm);

    return rc == MPI_SUCCESS ? 0 : tri_mpi_failed("MPI_Allgather", rc);
}

int tri_job_broadcast(struct tri_job *job, void *data, size_t bytes)
{
    int rc = MPI_Bcast(data, (int)bytes, MPI_BYTE, 0, job->comm);

    return rc == MPI_SUCCESS ? 0 : tri_mpi_failed("MPI_Bcast", rc);
}

int tri_job_agree(struct tri_job *job, int rc)
{
    int least = rc;

    if (MPI_Allreduce(&rc, &least, 1, MPI_INT, MPI_MIN, job->comm) !=
        MPI_SUCCESS)
        return TROUPE_EMPI;
    return least;
}

int tri_job_barrier_start(struct tri_job *job)
{
    int rc;

    job->barrier_own = tri_finalize_is_barred();
    rc = MPI_Iallreduce(&job->barrier_own, &job->barrier_all, 1, MPI_INT,
                        MPI_MAX, job->comm, &job->barrier);
    return rc == MPI_SUCCESS ? 0 : tri_mpi_failed("MPI_Iallreduce", rc);
}

/* What one rank must not do, none does: MPI_Finalize is collective. */
bool tri_job_barrier_test(struct tri_job *job)
{
    int done = 0;

    if (MPI_Test(&job->barrier, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS ||
        !done)
        return false;
    if (job->barrier_all)
        tri_finalize_bar();
    return true;
}

void tri_job_close(struct tri_job *job, bool whole)
{
    int finalized = 0;

    if (job == NULL)
        return;
    atomic_store(&job_of_process, NULL);
    MPI_Finalized(&finalized);
    if (!whole || tri_finalize_is_barred()) {
        if (job->owns_mpi)
            tri_info("MPI is not finalized, because not all ranks were there "
                     "to the end, and MPI_Finalize could hang");
        /* An abandoned barrier may still write into it. */
        job->next = left_behind;
        left_behind = job;
        return;
    }
    if (!finalized && job->comm != MPI_COMM_NULL)
        MPI_Comm_free(&job->comm);
    if (!finalized && job->owns_mpi)
        PMPI_Finalize();
    free(job);
}
