/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/joiner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXTS_BYTES_MAX (4u << 20)
#define SEEDS_MAX 16u

/* What mpirun told its rank, and what is the joiner's own. */
static const char *const dropped[] = { "OMPI_",          "PMIX_",
                                       "PMI_",           "ORTE_",
                                       "PRTE_",          "HYDRA_",
                                       "MPIR_",          "TROUPE_LISTEN=",
                                       "TROUPE_SEEDS=",  "TROUPE_KEY_FILE=",
                                       "TROUPE_REPORT=", "TROUPE_MPI=" };

/* Texts with a 0 behind each, as a vector; room for `more` further ones. NULL:
 * not to be had. */
static char **read_texts(pid_t pid, const char *file, size_t more,
                         size_t *len_p)
{
    char path[64], *data = malloc(TEXTS_BYTES_MAX + 1), **texts;
    ssize_t bytes = 0, got = 1;
    size_t len = 0;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    fd = data != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    while (fd >= 0 && got > 0 && bytes < (ssize_t)TEXTS_BYTES_MAX) {
        got = read(fd, data + bytes, TEXTS_BYTES_MAX - (size_t)bytes);
        bytes += got > 0 ? got : 0;
    }
    if (fd >= 0)
        close(fd);
    if (bytes == 0) {
        free(data);
        return NULL;
    }
    data[bytes] = '\0';
    for (ssize_t i = 0; i < bytes; i++)
        len += data[i] == '\0';
    texts = calloc(len + more + 2, sizeof(*texts));
    len = 0;
    for (char *c = data; texts != NULL && c < data + bytes; c += strlen(c) + 1)
        texts[len++] = c;
    *len_p = len;
    return texts;
}

static bool is_dropped(const char *text)
{
    for (size_t i = 0; i < tri_array_len(dropped); i++)
        if (strncmp(text, dropped[i], strlen(dropped[i])) == 0)
            return true;
    return false;
}

static char *variable(const char *name, const char *value)
{
    size_t bytes = strlen(name) + strlen(value) + 2;
    char *text = malloc(bytes);

    if (text != NULL)
        snprintf(text, bytes, "%s=%s", name, value);
    return text;
}

/* Endpoints of those that run, or, on other machines, may. */
static char *seeds_of(const struct facts *facts)
{
    char seeds[SEEDS_MAX * (FACTS_ENDPOINT_BYTES + 1)] = "";
    uint32_t len = 0;

    for (uint32_t i = 0; i < facts->len && len < SEEDS_MAX; i++) {
        const struct fact_node *node = &facts->nodes[i];

        if (node->endpoint[0] == '\0' || node->found_dead || node->stopped ||
            !facts_is_running(node))
            continue;
        if (len++ > 0)
            strcat(seeds, ",");
        strcat(seeds, node->endpoint);
    }
    return len > 0 ? variable("TROUPE_SEEDS", seeds) : NULL;
}

static const struct fact_node *model_of(const struct facts *facts)
{
    for (uint32_t i = 0; i < facts->len; i++)
        if (!facts->nodes[i].found_dead && !facts->nodes[i].stopped &&
            facts_is_running(&facts->nodes[i]))
            return &facts->nodes[i];
    return NULL;
}

static char **environment_of(const struct job *job, const struct facts *facts,
                             pid_t pid)
{
    char key[PATH_MAX], report[PATH_MAX];
    size_t len = 0, kept = 0;
    char **texts = read_texts(pid, "environ", 4, &len);

    if (texts == NULL)
        return NULL;
    for (size_t i = 0; i < len; i++)
        if (!is_dropped(texts[i]))
            texts[kept++] = texts[i];
    job_path(job, "key", key);
    job_path(job, "report", report);
    texts[kept++] = variable("TROUPE_MPI", "off");
    texts[kept++] = variable("TROUPE_KEY_FILE", key);
    texts[kept++] = variable("TROUPE_REPORT", report);
    texts[kept++] = seeds_of(facts);
    texts[kept] = NULL;
    return texts;
}

/* In the child. */
static _Noreturn void become(pid_t model, char **argv, char **environment)
{
    char link[64], program[PATH_MAX], dir[PATH_MAX];
    ssize_t program_len, dir_len;

    snprintf(link, sizeof(link), "/proc/%d/exe", (int)model);
    program_len = readlink(link, program, sizeof(program) - 1);
    snprintf(link, sizeof(link), "/proc/%d/cwd", (int)model);
    dir_len = readlink(link, dir, sizeof(dir) - 1);
    if (program_len > 0 && dir_len > 0) {
        program[program_len] = '\0';
        dir[dir_len] = '\0';
        if (chdir(dir) == 0)
            execve(program, argv, environment);
    }
    fprintf(stderr, "troupe: a joiner could not be started: %s\n",
            strerror(errno));
    _exit(127);
}

const char *joiner_start(const struct job *job, const struct facts *facts,
                         pid_t *pid_p)
{
    const struct fact_node *model = model_of(facts);
    char **argv, **environment;
    size_t len;
    pid_t pid;

    if (model == NULL)
        return "no node of the job runs on this machine";
    argv = read_texts(model->pid, "cmdline", 0, &len);
    environment = environment_of(job, facts, model->pid);
    if (argv == NULL || environment == NULL)
        return "the job's processes cannot be looked at";
    fflush(NULL);
    pid = fork();
    if (pid == 0)
        become(model->pid, argv, environment);
    if (pid < 0)
        return strerror(errno);
    *pid_p = pid;
    return NULL;
}
