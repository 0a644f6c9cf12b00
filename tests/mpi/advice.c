/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the library says, once, when the job was started so that an elastic
 * group cannot do what it is there for.
 *
 *   advice [recovery|funneled]
 *
 * recovery: as under mpirun --enable-recovery, where nothing is to be said.
 * funneled: MPI is initialized without MPI_THREAD_MULTIPLE, so that the group
 * cannot use it.
 */
#include "test.h"

#include <unistd.h>

enum { TEXT_BYTES = 1 << 16, CALLS = 20 };

/* stderr into a file that nobody else has, until it is put back. */
static FILE *file;
static int kept = -1;

static void catch_stderr(void)
{
    file = tmpfile();
    kept = dup(STDERR_FILENO);
    if (file == NULL || kept < 0 || dup2(fileno(file), STDERR_FILENO) < 0)
        MUST(TROUPE_ESYSTEM);
}

static const char *caught(void)
{
    static char text[TEXT_BYTES];
    ssize_t len;

    dup2(kept, STDERR_FILENO);
    len = pread(fileno(file), text, sizeof(text) - 1, 0);
    text[len > 0 ? len : 0] = '\0';
    fclose(file);
    fputs(text, stderr);
    return text;
}

static int times_said(const char *text, const char *words)
{
    int times = 0;

    while ((text = strstr(text, words)) != NULL) {
        text += strlen(words);
        times++;
    }
    return times;
}

static void use_group(troupe_t *troupe, const char *name)
{
    troupe_group_options_t options;
    troupe_group_t *group;

    troupe_group_options_init(&options);
    options.elastic = 1;
    options.backend = "auto";
    MUST(troupe_group_create(troupe, name, &options, &group));
    for (int i = 0; i < CALLS; i++)
        MUST(troupe_barrier(group, TEST_SOON_MS));
    troupe_group_close(&group);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    int funneled = strcmp(mode, "funneled") == 0, level;
    int recovers = funneled || strcmp(mode, "recovery") == 0;
    troupe_t *troupe;
    const char *text;

    if (recovers)
        setenv("OMPI_MCA_orte_enable_recovery", "1", 1);
    else
        unsetenv("OMPI_MCA_orte_enable_recovery");
    setenv("TROUPE_LOG", "info", 1);
    MPI_Init_thread(NULL, NULL,
                    funneled ? MPI_THREAD_FUNNELED : MPI_THREAD_MULTIPLE,
                    &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    catch_stderr();
    MUST(troupe_start(&troupe, NULL));
    use_group(troupe, "first");
    use_group(troupe, "second");
    text = caught();
    CHECK_EQ(times_said(text, "initialized without MPI_THREAD_MULTIPLE"),
             funneled);
#if defined(OPEN_MPI)
    CHECK_EQ(times_said(text, "`mpirun --enable-recovery --mca pml ob1 --mca "
                              "btl vader,tcp,self`"),
             !recovers && test_rank == 0);
#elif defined(MPICH_VERSION)
    CHECK_EQ(times_said(text, "MPICH: the death of one rank ends the job"),
             test_rank == 0);
#endif
    return test_end(troupe);
}
