/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/job.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/process.h"

#define KEY_BYTES 32

/* Ours, and nobody else can look into it or replace it. */
static const char *private_dir(const char *path)
{
    struct stat status;

    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return strerror(errno);
    if (lstat(path, &status) != 0)
        return strerror(errno);
    if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() ||
        (status.st_mode & 077) != 0)
        return "the directory of jobs is not private to this user";
    return NULL;
}

static const char *base_dir(char path_p[PATH_MAX / 2])
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    if (runtime != NULL && runtime[0] == '/' &&
        strlen(runtime) < PATH_MAX / 4 && access(runtime, W_OK) == 0)
        snprintf(path_p, PATH_MAX / 2, "%s/troupe", runtime);
    else
        snprintf(path_p, PATH_MAX / 2, "/tmp/troupe-%u", (unsigned)geteuid());
    return private_dir(path_p);
}

static bool is_name(const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)name[i]) && strchr("_-", name[i]) == NULL)
            return false;
    return len > 0 && len <= JOB_NAME_MAX;
}

void job_path(const struct job *job, const char *file, char path_p[PATH_MAX])
{
    snprintf(path_p, PATH_MAX, "%s/%s", job->dir, file);
}

static const char *locate(struct job *job, const char *name)
{
    char base[PATH_MAX / 2];
    const char *wrong;

    if (!is_name(name))
        return "a job's name is 1 to 63 of letters, digits, '_' and '-'";
    wrong = base_dir(base);
    if (wrong != NULL)
        return wrong;
    memcpy(job->name, name, strlen(name) + 1);
    if (snprintf(job->dir, sizeof(job->dir), "%s/%s", base, name) >=
        (int)sizeof(job->dir))
        return strerror(ENAMETOOLONG);
    return NULL;
}

static const char *write_file(const struct job *job, const char *file,
                              const void *data, size_t bytes)
{
    char path[PATH_MAX];
    int fd;
    ssize_t put;

    job_path(job, file, path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
              0600);
    if (fd < 0)
        return strerror(errno);
    put = write(fd, data, bytes);
    close(fd);
    return put == (ssize_t)bytes ? NULL : "a file could not be written";
}

static const char *write_key(const struct job *job)
{
    unsigned char key[KEY_BYTES];
    char text[2 * KEY_BYTES + 1];

    if (getrandom(key, sizeof(key), 0) != sizeof(key))
        return "no random numbers";
    for (size_t i = 0; i < sizeof(key); i++)
        snprintf(text + 2 * i, 3, "%02x", key[i]);
    return write_file(job, "key", text, 2 * KEY_BYTES);
}

/* A number alone may have a new owner: in a container that is started again,
 * the launcher is process 1 each time. */
static bool is_running(const struct job *job)
{
    char path[PATH_MAX];
    uint64_t started;
    int pid, fields;
    FILE *file;

    job_path(job, "pid", path);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    fields = fscanf(file, "%d %" SCNu64, &pid, &started);
    fclose(file);
    return fields == 2 && pid > 0 && tri_process_runs(pid, started);
}

const char *job_create(struct job *job, const char *name)
{
    char made[32], text[64];
    const char *wrong;

    snprintf(made, sizeof(made), "%d", (int)getpid());
    wrong = locate(job, name != NULL ? name : made);
    if (wrong != NULL)
        return wrong;
    if (is_running(job))
        return "a job of this name is running";
    job_remove(job); /* what a launcher that was killed left */
    wrong = private_dir(job->dir);
    if (wrong == NULL)
        wrong = write_key(job);
    snprintf(text, sizeof(text), "%d %" PRIu64 "\n", (int)getpid(),
             tri_process_started(getpid()));
    return wrong != NULL ? wrong
                         : write_file(job, "pid", text, strlen(text));
}

const char *job_find(struct job *job, const char *name)
{
    const char *wrong = locate(job, name);

    if (wrong != NULL)
        return wrong;
    return is_running(job) ? NULL : "no job of this name is running here";
}

void job_remove(const struct job *job)
{
    static const char *const files[] = { "key", "report", "pid" };
    char path[PATH_MAX];

    for (size_t i = 0; i < tri_array_len(files); i++) {
        job_path(job, files[i], path);
        unlink(path);
    }
    rmdir(job->dir);
}
