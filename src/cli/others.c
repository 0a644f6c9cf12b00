/* SPDX-License-Identifier: BSD-3-Clause */

/* What other terminals do with a job that `troupe run --job NAME` runs. */

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "cli/cli.h"
#include "cli/facts.h"
#include "cli/job.h"
#include "cli/joiner.h"

/* How many one `troupe add` starts. */
#define ADD_MAX 1024

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

static const char add_usage[] =
    "usage: troupe add JOB [HOW MANY]\n"
    "\n"
    "Starts processes that join a job of this machine: the same program with\n"
    "the same arguments as its ranks, but without mpirun. A process each, one\n"
    "by default. JOB: the name given to troupe run --job. Returns when they\n"
    "have ended; status 0: all ended well, 1: one did not, or there is no such\n"
    "job. SIGINT, SIGTERM and SIGHUP drain them, a second one ends them.\n";

/* Blocked, to be waited for, but for those that are not meant to end us. */
static void block_signals(sigset_t *set_p)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction action;

    sigemptyset(set_p);
    sigaddset(set_p, SIGCHLD);
    for (size_t i = 0; i < tri_array_len(numbers); i++)
        if (sigaction(numbers[i], NULL, &action) == 0 &&
            action.sa_handler != SIG_IGN)
            sigaddset(set_p, numbers[i]);
    sigprocmask(SIG_BLOCK, set_p, NULL);
}

/* Zeroes the entries of those that have ended. Returns how many are left. */
static long reap(pid_t *pids, long n, int *bad_p)
{
    long left = 0;

    for (long i = 0; i < n; i++) {
        int status;

        if (pids[i] != 0 && waitpid(pids[i], &status, WNOHANG) == pids[i]) {
            pids[i] = 0;
            *bad_p += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        }
        left += pids[i] != 0;
    }
    return left;
}

/* They are no children of the terminal's process group: they are asked as
 * troupe run asks its own. Returns how many did not end well. */
static int wait_for_joiners(pid_t *pids, long n, const sigset_t *set)
{
    int number, bad = 0, ask = SIGUSR1;

    while (reap(pids, n, &bad) > 0) {
        number = sigwaitinfo(set, NULL);
        if (number < 0 || number == SIGCHLD)
            continue;
        for (long i = 0; i < n; i++)
            if (pids[i] != 0)
                kill(pids[i], ask);
        ask = ask == SIGUSR1 ? SIGTERM : SIGKILL;
    }
    return bad;
}

int cli_add(int argc, char **argv)
{
    struct job job;
    struct facts facts;
    int status, bad = 0;
    pid_t pids[ADD_MAX];
    sigset_t set;
    long started = 0;
    long n = argc > 2 ? strtol(argv[2], NULL, 10) : 1;

    if (cli_wants_help(argc, argv))
        return cli_usage(stdout, add_usage);
    if (argc < 2 || argc > 3 || argv[1][0] == '-' || n < 1 || n > ADD_MAX)
        return cli_usage(stderr, add_usage);
    status = open_job(argv[1], &job, &facts);
    if (status != 0)
        return status;
    block_signals(&set);
    for (long i = 0; i < n; i++) {
        const char *wrong;

        wrong = joiner_start(&job, &facts, &pids[started]);
        if (wrong == NULL) {
            started++;
        } else {
            cli_error("%s: %s", job.name, wrong);
            bad++;
        }
    }
    bad += wait_for_joiners(pids, started, &set);
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

static const char ps_usage[] =
    "usage: troupe ps JOB\n"
    "\n"
    "Lists the nodes that a job of this machine has here, in the order in which\n"
    "they started: node id, rank (-: it joined), process, what became of it, and\n"
    "the endpoint that others reach it by.\n";

int cli_ps(int argc, char **argv)
{
    struct job job;
    struct facts facts;
    int status;

    if (cli_wants_help(argc, argv))
        return cli_usage(stdout, ps_usage);
    if (argc != 2)
        return cli_usage(stderr, ps_usage);
    status = open_job(argv[1], &job, &facts);
    if (status != 0)
        return status;
    printf("%-16s %5s %8s  %-13s %s\n", "NODE", "RANK", "PID", "STATE",
           "ENDPOINT");
    for (uint32_t i = 0; i < facts.len; i++) {
        const struct fact_node *node = &facts.nodes[i];

        if (node->pid == 0)
            continue; /* of another machine */
        printf("%016llx ", (unsigned long long)node->id);
        if (node->rank >= 0)
            printf("%5d ", node->rank);
        else
            printf("%5s ", "-");
        printf("%8d  %-13s %s\n", (int)node->pid, state_of(node),
               node->endpoint[0] != '\0' ? node->endpoint : "-");
    }
    facts_close(&facts);
    return 0;
}

/* The node that is meant: a rank of the job (the first that runs), or a node
 * id. Who joined has no rank. */
static const struct fact_node *find(const struct facts *facts, const char *text)
{
    bool is_id = strlen(text) == 16;
    char *rest;
    uint64_t number = strtoull(text, &rest, is_id ? 16 : 10);

    if (*rest != '\0' || text[0] < '0' || (!is_id && number > INT_MAX))
        return NULL;
    for (uint32_t i = 0; i < facts->len; i++) {
        const struct fact_node *node = &facts->nodes[i];

        if (facts_is_running(node) && !node->exited &&
            (is_id ? node->id == number : node->rank == (int)number))
            return node;
    }
    return NULL;
}

static const char drain_usage[] =
    "usage: troupe drain JOB RANK|NODE\n"
    "\n"
    "Asks a node of a job of this machine to leave: a rank, or an id of troupe\n"
    "ps. It gets SIGUSR1, upon which a training leaves after its step; a program\n"
    "that does not expect that signal is ended by it.\n";

int cli_drain(int argc, char **argv)
{
    struct job job;
    struct facts facts;
    const struct fact_node *node;
    int status;

    if (cli_wants_help(argc, argv))
        return cli_usage(stdout, drain_usage);
    if (argc != 3)
        return cli_usage(stderr, drain_usage);
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
