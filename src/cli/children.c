/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/children.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

/* Faults of children that it has waited for: field 11 of /proc/PID/stat. No
 * process runs without any. */
static bool has_waited_for_none(pid_t pid)
{
    char path[64], text[1024];
    const char *name_end;
    unsigned long faults;
    size_t len;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    len = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[len] = '\0';
    name_end = strrchr(text, ')');
    return name_end != NULL &&
           sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %lu",
                  &faults) == 1 &&
           faults == 0;
}

/* Of one thread: children are listed by who forked them. */
static bool has_none(pid_t pid, const char *thread)
{
    char path[320];
    FILE *file;
    int c;

    snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)pid, thread);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    c = fgetc(file);
    fclose(file);
    return c == EOF;
}

bool children_never(pid_t pid)
{
    bool any_thread = false, none = true;
    struct dirent *entry;
    char path[64];
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    tasks = opendir(path);
    if (tasks == NULL)
        return false;
    while (none && (entry = readdir(tasks)) != NULL)
        if (entry->d_name[0] != '.') {
            any_thread = true;
            none = has_none(pid, entry->d_name);
        }
    closedir(tasks);
    /* Last: who was waited for since is seen here. */
    return any_thread && none && has_waited_for_none(pid);
}
