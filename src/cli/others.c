/* SPDX-License-Identifier: BSD-3-Clause */

/* What other terminals do with a job that `troupe run --job NAME` runs. */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "cli/cli.h"
#include "cli/facts.h"
#include "cli/job.h"
#include "cli/joiner.h"

/* 0, or the status. */
static int open_job(const char *name, struct job *job, struct facts *facts)
{
    const char *wrong = job_find(job, name);
    char path[PATH_MAX];

    if (wrong != NULL) {
        cli_error("%s: %s", name, wrong);
        return CLI_FAILED;
    }
    job_path(job, "report", path);
    wrong = facts_open(facts, path);
    if (wrong != NULL) {
        cli_error("%s: %s", path, wrong);
        return CLI_FAILED;
    }
    facts_read(facts);
    return 0;
}

int cli_add(int argc, char **argv)
{
    struct job job;
    struct facts facts;
    int status, bad = 0;
    long n = argc > 2 ? strtol(argv[2], NULL, 10) : 1;

    if (argc < 2 || argc > 3 || argv[1][0] == '-' || n < 1 || n > 1024)
        return cli_error("usage: troupe add JOB [HOW MANY]\n"
                         "Starts processes that join a job of this machine: "
                         "the same program with the\nsame arguments. Returns "
                         "when they have ended; 0 when all ended well.");
    status = open_job(argv[1], &job, &facts);
    if (status != 0)
        return status;
    for (long i = 0; i < n; i++) {
        const char *wrong;
        pid_t pid;

        wrong = joiner_start(&job, &facts, &pid);
        if (wrong != NULL) {
            cli_error("%s: %s", job.name, wrong);
            bad++;
        }
    }
    while (waitpid(-1, &status, 0) > 0 || errno == EINTR)
        bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    facts_close(&facts);
    return bad == 0 ? 0 : CLI_FAILED;
}

static const char *state_of(const struct fact_node *node)
{
    if (node->excluded)
        return "held for dead";
    if (node->exited)
        return facts_is_good(node) ? "ended" : "failed";
    if (facts_is_running(node))
        return node->stopped ? "stopped" : "running";
    return "died";
}

int cli_ps(int argc, char **argv)
{
    struct job job;
    struct facts facts;
    int status;

    if (argc != 2)
        return cli_error("usage: troupe ps JOB");
    status = open_job(argv[1], &job, &facts);
    if (status != 0)
        return status;
    printf("%-16s %5s %8s  %-13s %s\n", "NODE", "RANK", "PID", "STATE",
           "ENDPOINT");
    for (uint32_t i = 0; i < facts.len; i++) {
        const struct fact_node *node = &facts.nodes[i];

        if (node->pid != 0)
            printf("%016llx %5d %8d  %-13s %s\n", (unsigned long long)node->id,
                   node->rank, (int)node->pid, state_of(node),
                   node->endpoint);
    }
    facts_close(&facts);
    return 0;
}

/* The node that is meant: a rank of the job (the first that runs), or a node
 * id. */
static const struct fact_node *find(const struct facts *facts, const char *text)
{
    uint64_t id = strlen(text) == 16 ? strtoull(text, NULL, 16) : 0;
    long rank = strtol(text, NULL, 10);

    for (uint32_t i = 0; i < facts->len; i++) {
        const struct fact_node *node = &facts->nodes[i];

        if (facts_is_running(node) && !node->exited &&
            (id != 0 ? node->id == id : node->rank == rank))
            return node;
    }
    return NULL;
}

int cli_drain(int argc, char **argv)
{
    struct job job;
    struct facts facts;
    const struct fact_node *node;
    int status;

    if (argc != 3)
        return cli_error("usage: troupe drain JOB RANK|NODE\n"
                         "Asks a node of this machine to leave: SIGUSR1, which "
                         "training takes for that.");
    status = open_job(argv[1], &job, &facts);
    if (status != 0)
        return status;
    node = find(&facts, argv[2]);
    if (node == NULL) {
        cli_error("%s: no node %s runs here", argv[1], argv[2]);
        status = CLI_FAILED;
    } else if (kill(node->pid, SIGUSR1) != 0) {
        cli_error("%s: %s", argv[2], strerror(errno));
        status = CLI_FAILED;
    }
    facts_close(&facts);
    return status;
}
