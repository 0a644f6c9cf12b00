/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/program.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/cli.h"

/* --- what is said of where it runs ---------------------------------------- */

/* Options, with so many words behind them, that say nothing of machines,
 * directories and paths. With one or two hyphens. */
static const struct option {
    const char *name;
    int words;
} options[] = {
    { "N", 1 },
    { "allow-run-as-root", 0 },
    { "bind-to", 1 },
    { "c", 1 },
    { "display-map", 0 },
    { "enable-recovery", 0 },
    { "map-by", 1 },
    { "mca", 2 },
    { "n", 1 },
    { "np", 1 },
    { "output-filename", 1 },
    { "oversubscribe", 0 },
    { "q", 0 },
    { "quiet", 0 },
    { "rank-by", 1 },
    { "report-bindings", 0 },
    { "stdin", 1 },
    { "tag-output", 0 },
    { "timestamp-output", 0 },
    { "v", 0 },
    { "verbose", 0 },
    { "x", 1 },
};

/* Of a manager of resources, or of Open MPI: ranks may run elsewhere. */
static const char *const variables[] = {
    "COBALT_JOBID",
    "FLUX_JOB_ID",
    "LOADL_STEP_ID",
    "LSB_JOBID",
    "OMPI_MCA_orte_default_hostfile",
    "OMPI_MCA_orte_rankfile",
    "OMPI_MCA_rmaps_rank_file_path",
    "PBS_JOBID",
    "PE_HOSTFILE",
    "SLURM_JOBID",
    "SLURM_JOB_ID",
};

static bool is_managed(void)
{
    for (size_t i = 0; i < tri_array_len(variables); i++)
        if (getenv(variables[i]) != NULL)
            return true;
    return false;
}

static const struct option *option_of(const char *word)
{
    const char *name = word + (word[1] == '-' ? 2 : 1);

    for (size_t i = 0; i < tri_array_len(options); i++)
        if (strcmp(name, options[i].name) == 0)
            return &options[i];
    return NULL;
}

/* Components that carry messages; others may place ranks. */
static bool is_of_messages(const char *parameter)
{
    static const char *const known[] = { "btl", "coll", "mtl", "osc", "pml" };

    for (size_t i = 0; i < tri_array_len(known); i++) {
        size_t len = strlen(known[i]);

        if (strncmp(parameter, known[i], len) == 0 &&
            (parameter[len] == '\0' || parameter[len] == '_'))
            return true;
    }
    return false;
}

/* `words`: an option and what is behind it. */
static bool says_where(const struct option *option, char *const *words)
{
    return (strcmp(option->name, "mca") == 0 && !is_of_messages(words[1])) ||
           (strcmp(option->name, "x") == 0 &&
            strncmp(words[1], "PATH", 4) == 0);
}

/* The number of words in front of the program; -1: not known. */
static int options_len(int argc, char *const *argv)
{
    int i = 0;

    while (i < argc && argv[i][0] == '-') {
        const struct option *option = option_of(argv[i]);

        if (option == NULL || i + option->words >= argc ||
            says_where(option, argv + i))
            return -1;
        i += 1 + option->words;
    }
    return i < argc && strcmp(argv[i], ":") != 0 ? i : -1;
}

/* --- whether it is there -------------------------------------------------- */

static int look_at(const char *path)
{
    struct stat status;

    if (stat(path, &status) != 0)
        return errno == ENOENT || errno == ENOTDIR ? CLI_NOT_FOUND
                                                   : CLI_NOT_EXECUTABLE;
    return S_ISREG(status.st_mode) && access(path, X_OK) == 0
               ? 0
               : CLI_NOT_EXECUTABLE;
}

/* As execvp does, and in the working directory at last, as Open MPI does. */
static int look_for(const char *name)
{
    const char *dir = getenv("PATH");
    int worst = look_at(name);

    if (strchr(name, '/') != NULL || worst == 0)
        return worst;
    while (dir != NULL) {
        size_t len = strcspn(dir, ":");
        char path[PATH_MAX];
        int status = CLI_NOT_FOUND;

        if (len > 0 && snprintf(path, sizeof(path), "%.*s/%s", (int)len, dir,
                                name) < (int)sizeof(path))
            status = look_at(path);
        if (status == 0)
            return 0;
        if (status == CLI_NOT_EXECUTABLE)
            worst = status;
        dir = dir[len] == ':' ? dir + len + 1 : NULL;
    }
    return worst;
}

int program_check(int argc, char **argv, const char **program_p)
{
    const char *program = NULL;
    int status = 0;

    if (is_managed())
        return 0;
    for (int i = 0; i < argc; i++) {
        int len = options_len(argc - i, argv + i);

        if (len < 0)
            return 0; /* also for those before: hosts are those of all */
        i += len;
        if (status == 0) {
            program = argv[i];
            status = look_for(program);
        }
        while (i < argc && strcmp(argv[i], ":") != 0)
            i++;
    }
    if (status != 0)
        *program_p = program;
    return status;
}
