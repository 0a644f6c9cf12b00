/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "member/roster.h"
#include "os/process.h"

/* Longest line, with a name of any endpoint. */
#define LINE_BYTES_MAX 256

/* Of the process: exit is reported after the node is gone. */
static _Atomic int report_fd = -1;
static _Atomic uint64_t report_node;
static _Atomic int report_rank = -1;
static pid_t report_pid;

static void write_line(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

static void write_line(const char *format, ...)
{
    char line[LINE_BYTES_MAX];
    int fd = atomic_load(&report_fd);
    va_list args;
    int len;

    if (fd < 0)
        return;
    va_start(args, format);
    len = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (len <= 0 || (size_t)len >= sizeof(line))
        return;
    if (write(fd, line, (size_t)len) != len)
        tri_warn("the report cannot be written: %s", strerror(errno));
}

/* glibc's: atexit does not tell the status. */
static void on_process_exit(int status, void *arg)
{
    (void)arg;
    if (getpid() != report_pid)
        return; /* a child that was forked, and is no node */
    write_line("exit %016llx %d rank %d\n",
               (unsigned long long)atomic_load(&report_node), status,
               atomic_load(&report_rank));
}

/* Its rank in the job that wrote the report; -1: a process that joined it, or
 * that a node has spawned, has a rank in a job of its own, which says nothing. */
static int rank_of(const troupe_t *troupe)
{
    const struct tri_runtime *runtime = &troupe->runtime;
    const char *seeds = runtime->options.seeds;
    bool has_joined = runtime->size == 1 && seeds != NULL && seeds[0] != '\0';

    return has_joined || troupe->is_spawned ? -1 : runtime->rank;
}

void tri_report_open(troupe_t *troupe)
{
    const char *path = troupe->runtime.options.report;
    int fd;

    if (path == NULL)
        return;
    atomic_store(&report_node, troupe->runtime.node);
    atomic_store(&report_rank, rank_of(troupe));
    if (atomic_load(&report_fd) >= 0)
        return; /* a second node of this process goes on in the first's */
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        tri_warn("option report is \"%s\": %s", path, strerror(errno));
        return;
    }
    atomic_store(&report_fd, fd);
    report_pid = getpid();
    on_exit(on_process_exit, NULL);
}

void tri_report_started(troupe_t *troupe)
{
    const struct tri_runtime *runtime = &troupe->runtime;
    char endpoint[TROUPE_ENDPOINT_MAX];

    if (atomic_load(&report_fd) < 0)
        return;
    if (troupe_endpoint(troupe, endpoint, sizeof(endpoint)) != 0)
        strcpy(endpoint, "-");
    write_line("node %016llx rank %d size %d here %u pid %d started %llu "
               "endpoint %s\n",
               (unsigned long long)runtime->node, rank_of(troupe),
               runtime->size, troupe->host_ranks, (int)getpid(),
               (unsigned long long)tri_process_started(getpid()), endpoint);
}

void tri_report_stopped(const troupe_t *troupe, int rc)
{
    uint64_t node = troupe->runtime.node;

    if (troupe->runtime.roster != NULL &&
        tri_roster_is_excluded(troupe->runtime.roster))
        write_line("excluded %016llx\n", (unsigned long long)node);
    write_line("stop %016llx %d\n", (unsigned long long)node, rc);
}

static const char *evidence_name(uint8_t evidence)
{
    switch (evidence) {
    case TRI_SWIM_PROOF:
        return "proof";
    case TRI_SWIM_STRONG:
        return "connection";
    default:
        return "silence";
    }
}

static void on_member(void *context, const struct tri_swim_change *change,
                      uint64_t now_ns)
{
    const troupe_t *troupe = context;

    (void)now_ns;
    if (change->after == TRI_SWIM_DEAD)
        write_line("dead %016llx by %016llx evidence %s\n",
                   (unsigned long long)change->node,
                   (unsigned long long)troupe->runtime.node,
                   evidence_name(change->evidence));
}

int tri_report_attach(troupe_t *troupe)
{
    struct tri_member_client client = {
        .context = troupe,
        .changed = on_member,
    };

    if (troupe->runtime.member == NULL || atomic_load(&report_fd) < 0)
        return 0;
    return tri_member_attach(troupe->runtime.member, &client);
}
