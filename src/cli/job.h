/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TRI_CLI_JOB_H
#define TRI_CLI_JOB_H

/*
 * A running job as other terminals of this user find it: a directory of its
 * name, that nobody else may enter, below $XDG_RUNTIME_DIR/troupe, or
 * /tmp/troupe-UID. In it:
 *     key      the job's, 64 hexadecimal digits
 *     report   see node/report.h
 *     pid      of the launcher, and when it began (os/process.h)
 */

#include <limits.h>

#include "base/base.h"

#define JOB_NAME_MAX 63

struct job {
    char name[JOB_NAME_MAX + 1];
    char dir[PATH_MAX / 2];
};

/* All return NULL, or a text that says what is wrong (static, or errno's). */

/* name NULL: one is made of the process's number. */
const char *job_create(struct job *job, const char *name);

/* Of a job that runs. */
const char *job_find(struct job *job, const char *name);
/* Removes its directory. */
void job_remove(const struct job *job);

/* The path of one of its files. */
void job_path(const struct job *job, const char *file, char path_p[PATH_MAX]);

#endif
