/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/joiner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
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
                                       "TROUPE_SEEDS=",  "TROUPE_REPORT=",
                                       "TROUPE_MPI=" };

/* Texts with a 0 behind each, of a file of /proc, as a vector. */
struct texts {
    char *data, **list;
    size_t len;
};

/* What a joiner is made of, all of it from one running process. */
struct recipe {
    struct texts arguments, environment;
    char program[PATH_MAX], dir[PATH_MAX];
    char key[PATH_MAX + 32], report[PATH_MAX + 32];
    char seeds[SEEDS_MAX * (FACTS_ENDPOINT_BYTES + 1) + 32];
};

/* Of environ's further texts. */
#define OWN_TEXTS 4u

static void free_texts(struct texts *texts)
{
    free(texts->data);
    free(texts->list);
    *texts = (struct texts){ 0 };
}

/* NULL or "": not to be had. */
static char *read_file(pid_t pid, const char *file, size_t *bytes_p)
{
    char path[64], *data = malloc(TEXTS_BYTES_MAX + 1);
    ssize_t got = 1;
    size_t bytes = 0;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    fd = data != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    while (fd >= 0 && got > 0 && bytes < TEXTS_BYTES_MAX) {
        got = read(fd, data + bytes, TEXTS_BYTES_MAX - bytes);
        bytes += got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0)
        close(fd);
    if (data != NULL)
        data[bytes] = '\0';
    *bytes_p = bytes;
    return data;
}

static bool read_texts(pid_t pid, const char *file, struct texts *texts)
{
    size_t bytes = 0, len = 0;

    texts->data = read_file(pid, file, &bytes);
    for (size_t i = 0; i < bytes; i++)
        len += texts->data[i] == '\0';
    texts->list = calloc(len + OWN_TEXTS + 2, sizeof(*texts->list));
    if (bytes == 0 || texts->list == NULL)
        return false; /* a process that has just died has none */
    for (char *c = texts->data; c < texts->data + bytes; c += strlen(c) + 1)
        texts->list[texts->len++] = c;
    return true;
}

static bool is_dropped(const char *text)
{
    for (size_t i = 0; i < tri_array_len(dropped); i++)
        if (strncmp(text, dropped[i], strlen(dropped[i])) == 0)
            return true;
    return false;
}

static bool is_there(const struct fact_node *node)
{
    return !node->found_dead && !node->stopped && facts_is_running(node);
}

/* Endpoints of those that run. */
static void name_seeds(const struct facts *facts, struct recipe *recipe)
{
    uint32_t len = 0;

    strcpy(recipe->seeds, "TROUPE_SEEDS=");
    for (uint32_t i = 0; i < facts->len && len < SEEDS_MAX; i++) {
        const struct fact_node *node = &facts->nodes[i];

        if (node->endpoint[0] == '\0' || !is_there(node))
            continue;
        if (len++ > 0)
            strcat(recipe->seeds, ",");
        strcat(recipe->seeds, node->endpoint);
    }
}

/* The user's own key, where the ranks were started with one. */
static bool names_key(const char *text)
{
    return strncmp(text, "TROUPE_KEY_FILE=", strlen("TROUPE_KEY_FILE=")) == 0;
}

static void own_environment(const struct job *job, const struct facts *facts,
                            struct recipe *recipe)
{
    static char no_mpi[] = "TROUPE_MPI=off";
    struct texts *texts = &recipe->environment;
    char path[PATH_MAX];
    bool has_key = false;
    size_t kept = 0;

    for (size_t i = 0; i < texts->len; i++)
        if (!is_dropped(texts->list[i])) {
            has_key |= names_key(texts->list[i]);
            texts->list[kept++] = texts->list[i];
        }
    job_path(job, "key", path);
    snprintf(recipe->key, sizeof(recipe->key), "TROUPE_KEY_FILE=%s", path);
    job_path(job, "report", path);
    snprintf(recipe->report, sizeof(recipe->report), "TROUPE_REPORT=%s", path);
    name_seeds(facts, recipe);
    texts->list[kept++] = no_mpi;
    if (!has_key)
        texts->list[kept++] = recipe->key;
    texts->list[kept++] = recipe->report;
    texts->list[kept++] = recipe->seeds;
    texts->list[kept] = NULL;
    texts->len = kept;
}

static bool read_link(pid_t pid, const char *file, char target_p[PATH_MAX])
{
    char path[64];
    ssize_t len;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    len = readlink(path, target_p, PATH_MAX - 1);
    target_p[len > 0 ? len : 0] = '\0';
    return len > 0;
}

static bool read_recipe(const struct job *job, const struct facts *facts,
                        const struct fact_node *model, struct recipe *recipe)
{
    if (!read_texts(model->pid, "cmdline", &recipe->arguments) ||
        !read_texts(model->pid, "environ", &recipe->environment) ||
        !read_link(model->pid, "exe", recipe->program) ||
        !read_link(model->pid, "cwd", recipe->dir))
        return false;
    own_environment(job, facts, recipe);
    return true;
}

static void free_recipe(struct recipe *recipe)
{
    free_texts(&recipe->arguments);
    free_texts(&recipe->environment);
}

/* Any that runs will do; one may die while it is looked at. */
static const char *find_recipe(const struct job *job,
                               const struct facts *facts,
                               struct recipe *recipe)
{
    const char *wrong = "no node of the job runs on this machine";

    for (uint32_t i = 0; i < facts->len; i++) {
        if (!is_there(&facts->nodes[i]))
            continue;
        if (read_recipe(job, facts, &facts->nodes[i], recipe))
            return NULL;
        free_recipe(recipe);
        wrong = "the job's processes cannot be looked at";
    }
    return wrong;
}

/* In the child, which has no signal blocked that its model has not. As with
 * mpirun, a terminal's signals come to its parent alone. */
static _Noreturn void become(const struct recipe *recipe)
{
    sigset_t none;
    int devnull;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    if (isatty(STDIN_FILENO) && (devnull = open("/dev/null", O_RDONLY)) >= 0)
        dup2(devnull, STDIN_FILENO);
    if (chdir(recipe->dir) == 0)
        execve(recipe->program, recipe->arguments.list,
               recipe->environment.list);
    fprintf(stderr, "troupe: a joiner could not be started: %s\n",
            strerror(errno));
    _exit(127);
}

const char *joiner_start(const struct job *job, const struct facts *facts,
                         pid_t *pid_p)
{
    static struct recipe recipe; /* large */
    const char *wrong = find_recipe(job, facts, &recipe);
    pid_t pid;

    if (wrong != NULL)
        return wrong;
    fflush(NULL);
    pid = fork();
    if (pid == 0)
        become(&recipe);
    if (pid > 0)
        *pid_p = pid;
    else
        wrong = strerror(errno);
    free_recipe(&recipe);
    return wrong;
}
