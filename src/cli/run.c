/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * troupe run: mpirun, with what lets a job survive the deaths of its ranks, and
 * with a status that tells the truth. It reads the report that the nodes write
 * (node/report.h), since mpirun's own status tells nothing after a death.
 *
 *     RUNNING ── SIGTERM, SIGINT: SIGUSR1 to mpirun, which passes it on ──┐
 *        │                                                   (drains all) │
 *        │ mpirun has started nothing;                                    │
 *        │ all nodes have ended, but mpirun has not; or mpirun     drain  │
 *        │ has, but a rank has not; or all have stopped         or again  ▼
 *        ▼                                                                │
 *     LINGERING ── `grace`, `linger`: to end by itself ──> ENDING: SIGTERM, 2 s,
 *                                                     SIGKILL of what is left
 *
 * Processes that joined are no children of mpirun, and perhaps not of ours: they
 * are known from the report, and waited for like ranks.
 */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/children.h"
#include "cli/cli.h"
#include "cli/facts.h"
#include "cli/job.h"
#include "cli/joiner.h"
#include "cli/program.h"

#define LOOK_MS 100
#define DRAIN_S 30
#define GRACE_S 5
#define LINGER_S 60
#define START_NS (10000 * TRI_NS_PER_MS)
#define KILL_NS (2000 * TRI_NS_PER_MS)
#define PAUSE_NS (1000 * TRI_NS_PER_MS) /* a look that is so late */
#define JOINERS_MAX 256u /* at a time */
#define MPIRUN_ARGS 24u

struct run {
    struct job job;
    struct facts facts;
    const char *mpirun;
    bool is_openmpi;
    bool is_verbose;
    uint32_t replace;   /* so many losses */
    uint32_t replaced;
    uint64_t drain_ns;  /* how long a drain may take */
    uint64_t grace_ns, linger_ns; /* see usage */
    pid_t pid;          /* mpirun's; 0: it has ended */
    bool mpirun_failed; /* by its own word */
    pid_t joiners[JOINERS_MAX];
    uint32_t joiners_len;
    uint32_t joiners_left;
    bool is_draining;
    bool was_ended;     /* by us */
    uint64_t end_ns;    /* when to go one step further; NEVER: not by time */
    uint64_t looked_ns; /* the last look */
    const char *overdue; /* what does not end by itself, in LINGERING */
};

/* --- mpirun --------------------------------------------------------------- */

static void say(const struct run *run, const char *what)
{
    if (run->is_verbose)
        fprintf(stderr, "troupe: %s\n", what);
}

/* What Open MPI 4 needs so that survivors go on; see doc/failure.md. */
static size_t openmpi_arguments(const char **argv)
{
    static const char *const arguments[] = {
        "--enable-recovery", "--mca", "pml", "ob1", "--mca", "btl",
        "vader,tcp,self"
    };

    memcpy(argv, arguments, sizeof(arguments));
    return tri_array_len(arguments);
}

static bool ask_is_openmpi(const char *mpirun)
{
    char line[256] = "", command[PATH_MAX + 32];
    FILE *pipe;

    snprintf(command, sizeof(command), "'%s' --version 2>/dev/null", mpirun);
    pipe = popen(command, "r");
    if (pipe == NULL)
        return false;
    if (fgets(line, sizeof(line), pipe) == NULL)
        line[0] = '\0';
    pclose(pipe);
    return strstr(line, "Open MPI") != NULL || strstr(line, "OpenRTE") != NULL;
}

static void set_environment(const struct run *run)
{
    char path[PATH_MAX];

    job_path(&run->job, "report", path);
    setenv("TROUPE_REPORT", path, 1);
    job_path(&run->job, "key", path);
    setenv("TROUPE_KEY_FILE", path, 0);
    setenv("TROUPE_LISTEN", "0", 0);
    /* As MPICH does by itself; after losses and joins "slots" mean little. */
    if (run->is_openmpi)
        setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 0);
    if (geteuid() != 0 || !run->is_openmpi)
        return;
    say(run, "as root: mpirun is told that this is meant");
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
}

/* In a process group of its own, so that a terminal's signals come to us
 * alone; therefore it must not read from the terminal. */
static const char *start_mpirun(struct run *run, int argc, char **argv)
{
    const char **all = calloc((size_t)argc + MPIRUN_ARGS, sizeof(*all));
    size_t len = 0;
    int devnull;

    if (all == NULL)
        return "no memory";
    all[len++] = run->mpirun;
    if (run->is_openmpi)
        len += openmpi_arguments(all + len);
    for (int i = 0; i < argc; i++)
        all[len++] = argv[i];
    for (size_t i = 0; run->is_verbose && i < len; i++)
        fprintf(stderr, "%s%s", all[i], i + 1 < len ? " " : "\n");
    run->pid = fork();
    if (run->pid == 0) {
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setpgid(0, 0);
        set_environment(run);
        if (isatty(STDIN_FILENO) &&
            (devnull = open("/dev/null", O_RDONLY)) >= 0)
            dup2(devnull, STDIN_FILENO);
        execvp(run->mpirun, (char *const *)(uintptr_t)all);
        fprintf(stderr, "troupe: %s: %s\n", run->mpirun, strerror(errno));
        _exit(127);
    }
    free(all);
    return run->pid < 0 ? strerror(errno) : NULL;
}

/* --- while it runs -------------------------------------------------------- */

static bool has_joined(const struct fact_node *node)
{
    return node->rank < 0;
}

static bool is_running(const struct fact_node *node)
{
    return !facts_has_ended(node) && facts_is_running(node);
}

/* Those of this machine. */
static bool any_runs(const struct run *run, bool ranks_too)
{
    for (uint32_t i = 0; i < run->facts.len; i++)
        if (is_running(&run->facts.nodes[i]) &&
            (ranks_too || has_joined(&run->facts.nodes[i])))
            return true;
    return false;
}

static void signal_nodes(const struct run *run, bool ranks_too, int number)
{
    for (uint32_t i = 0; i < run->facts.len; i++)
        if (is_running(&run->facts.nodes[i]) &&
            (ranks_too || has_joined(&run->facts.nodes[i])))
            kill(run->facts.nodes[i].pid, number);
}

static bool is_node(const struct facts *facts, pid_t pid)
{
    for (uint32_t i = 0; i < facts->len; i++)
        if (facts->nodes[i].pid == pid)
            return true;
    return false;
}

/* Those that we started and that have not come so far as to be nodes. */
static void signal_starting(const struct run *run, int number)
{
    for (uint32_t i = 0; i < run->joiners_len; i++)
        if (run->joiners[i] != 0 && !is_node(&run->facts, run->joiners[i]))
            kill(run->joiners[i], number);
}

/* Ranks by way of mpirun, on all machines, where it passes the signal on. */
static void drain(struct run *run)
{
    bool passes_on = run->pid != 0 && run->is_openmpi;

    run->is_draining = true;
    run->end_ns = tri_now_ns() + run->drain_ns;
    fprintf(stderr, "troupe: draining; again to end it now\n");
    if (passes_on)
        kill(run->pid, SIGUSR1);
    signal_nodes(run, !passes_on, SIGUSR1);
    signal_starting(run, SIGTERM);
}

/* What does not end well from now on did not die by itself. */
static void mark_cut(struct run *run)
{
    facts_read(&run->facts);
    for (uint32_t i = 0; i < run->facts.len; i++)
        if (is_running(&run->facts.nodes[i]))
            run->facts.nodes[i].was_cut = true;
}

static void end(struct run *run)
{
    bool harder = run->was_ended;
    int number = harder ? SIGKILL : SIGTERM;

    if (!harder)
        mark_cut(run);
    run->was_ended = true;
    run->end_ns = tri_now_ns() + KILL_NS;
    if (run->pid != 0)
        kill(harder ? -run->pid : run->pid, number);
    signal_nodes(run, harder || run->pid == 0, number);
    signal_starting(run, number);
}

static void reap(struct run *run)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == run->pid) {
            run->pid = 0;
            run->mpirun_failed = status != 0;
        }
        for (uint32_t i = 0; i < run->joiners_len; i++)
            if (run->joiners[i] == pid) {
                run->joiners[i] = 0;
                run->joiners_left--;
            }
    }
}

/* It died: it is gone and did not say how it ended. */
static bool is_lost(const struct fact_node *node)
{
    return !node->exited && (node->found_dead || node->pid > 0) &&
           !facts_is_running(node);
}

/* The place of one that has ended, or a new one; NULL: full. */
static pid_t *joiner_slot(struct run *run)
{
    for (uint32_t i = 0; i < run->joiners_len; i++)
        if (run->joiners[i] == 0)
            return &run->joiners[i];
    if (run->joiners_len == JOINERS_MAX)
        return NULL;
    run->joiners[run->joiners_len] = 0;
    return &run->joiners[run->joiners_len++];
}

static void replace_lost(struct run *run)
{
    for (uint32_t i = 0; i < run->facts.len; i++) {
        struct fact_node *node = &run->facts.nodes[i];
        const char *wrong = "too many are running";
        pid_t *slot;

        if (node->counted || !is_lost(node))
            continue;
        /* It may have said how it ended since the report was read. */
        facts_read(&run->facts);
        if (node->exited || node->stopped)
            continue;
        if (run->replaced >= run->replace || run->is_draining ||
            run->was_ended)
            return;
        node->counted = true;
        slot = joiner_slot(run);
        if (slot != NULL)
            wrong = joiner_start(&run->job, &run->facts, slot);
        if (wrong != NULL) {
            fprintf(stderr, "troupe: a lost node is not replaced: %s\n",
                    wrong);
            continue;
        }
        run->joiners_left++;
        run->replaced++;
        fprintf(stderr, "troupe: node %016llx died, and is replaced\n",
                (unsigned long long)node->id);
    }
}

/* Ranks of the job on other machines: the report does not say how they end. */
static uint32_t ranks_elsewhere(const struct run *run)
{
    for (uint32_t i = 0; i < run->facts.len; i++) {
        const struct fact_node *node = &run->facts.nodes[i];

        if (node->rank >= 0 && node->size > node->here)
            return (uint32_t)(node->size - node->here);
    }
    return 0;
}

/* All that started have said how they ended, or died; or, with `or_stopped`,
 * are no nodes any more. */
static bool all_ended(const struct run *run, bool or_stopped)
{
    if (run->pid != 0 && ranks_elsewhere(run) > 0)
        return false; /* only mpirun knows */
    for (uint32_t i = 0; i < run->facts.len; i++) {
        const struct fact_node *node = &run->facts.nodes[i];

        if (!facts_has_ended(node) && !is_lost(node) &&
            !(or_stopped && node->stopped))
            return false;
    }
    return run->facts.len > 0;
}

/* Open MPI's mpirun waits forever, and says nothing, under --enable-recovery
 * when there is no such program (on another machine: see cli/program.h for
 * this one). These managers start remote ranks for it
 * without a process of ours. */
static bool has_started_nothing(const struct run *run)
{
    return run->facts.len == 0 && run->pid != 0 && run->is_openmpi &&
           getenv("PBS_JOBID") == NULL && getenv("LSB_JOBID") == NULL &&
           children_never(run->pid);
}

/* What should end by itself now, and how long it may take. */
static const char *overdue(const struct run *run, uint64_t *limit_ns_p)
{
    *limit_ns_p = START_NS;
    if (has_started_nothing(run))
        return "mpirun, which has started nothing (is there such a program?),";
    *limit_ns_p = run->grace_ns;
    if (run->pid != 0 && all_ended(run, false))
        return "mpirun";
    if (run->pid == 0 && any_runs(run, true) && !any_runs(run, false))
        return "a rank that mpirun left";
    *limit_ns_p = run->linger_ns;
    return all_ended(run, true) ? "a process behind its troupe_stop" : NULL;
}

/* While this process stood still the others did, too, as far as it knows. */
static void forgive_pause(struct run *run, uint64_t now_ns)
{
    uint64_t away_ns = now_ns - run->looked_ns;

    if (away_ns > PAUSE_NS && run->end_ns != TRI_NS_NEVER)
        run->end_ns += away_ns;
    run->looked_ns = now_ns;
}

static void look_at_end(struct run *run)
{
    uint64_t now_ns = tri_now_ns(), limit_ns;
    const char *what = overdue(run, &limit_ns);

    forgive_pause(run, now_ns);
    if (!run->is_draining && !run->was_ended && what != run->overdue) {
        run->overdue = what;
        run->end_ns = what != NULL ? now_ns + limit_ns : TRI_NS_NEVER;
    }
    if (now_ns < run->end_ns)
        return;
    if (!run->was_ended)
        fprintf(stderr, "troupe: %s does not end by itself\n",
                run->overdue != NULL ? run->overdue : "the job");
    end(run);
}

static void on_signal(struct run *run, int fd)
{
    struct signalfd_siginfo info;

    while (read(fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        if (info.ssi_signo == SIGUSR1 || info.ssi_signo == SIGUSR2) {
            if (run->pid != 0)
                kill(run->pid, (int)info.ssi_signo);
        } else if (run->is_draining || run->was_ended) {
            end(run);
        } else {
            drain(run);
        }
    }
}

static void loop(struct run *run, int fd)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

    run->looked_ns = tri_now_ns();
    while (run->pid != 0 || run->joiners_left > 0 ||
           any_runs(run, true)) {
        poll(&poll_fd, 1, LOOK_MS);
        on_signal(run, fd);
        reap(run);
        facts_read(&run->facts);
        replace_lost(run);
        look_at_end(run);
    }
    facts_read(&run->facts);
}

/* --- the end -------------------------------------------------------------- */

static const char *label(const struct fact_node *node, char text_p[32])
{
    if (has_joined(node))
        return "a process that joined";
    snprintf(text_p, 32, "rank %d", node->rank);
    return text_p;
}

enum outcome { GOOD, LOST, BAD, OUTCOMES };

/* A rank whose troupe_start failed. One that was to join only comes too late;
 * who added it hears of that by its exit status. */
static bool is_failed_start(const struct fact_node *node)
{
    return node->pid == 0 && node->exited && node->exit_status != 0 &&
           node->rank >= 0;
}

/* How a node ended that did not end well. */
static enum outcome judge(const struct fact_node *node, char text_p[128])
{
    if (node->excluded && !node->was_cut) {
        strcpy(text_p, "was held for dead");
        return LOST;
    }
    if (node->was_cut && !node->exited) {
        strcpy(text_p, "did not end by itself, and was killed");
        return BAD;
    }
    if (!node->exited) {
        strcpy(text_p, node->stopped ? "died after troupe_stop" : "died");
        return node->stopped ? BAD : LOST;
    }
    if (!node->stopped)
        snprintf(text_p, 128, "failed: exit status %d, without troupe_stop",
                 node->exit_status);
    else if (node->stop_rc != 0)
        snprintf(text_p, 128, "failed: troupe_stop: %s; exit status %d",
                 troupe_strerror(node->stop_rc), node->exit_status);
    else
        snprintf(text_p, 128, "failed: exit status %d", node->exit_status);
    return BAD;
}

static enum outcome outcome_of(const struct fact_node *node)
{
    char who[32], what[128];
    enum outcome outcome;

    if (facts_is_good(node))
        return GOOD;
    if (node->pid == 0) {
        fprintf(stderr, "troupe: rank %d failed: exit status %d, without "
                "troupe_start\n", node->rank, node->exit_status);
        return BAD;
    }
    outcome = judge(node, what);
    fprintf(stderr, "troupe: %s (pid %d) %s\n", label(node, who),
            (int)node->pid, what);
    return outcome;
}

/* What became of the nodes; the status. */
static int summary(struct run *run)
{
    uint32_t counts[OUTCOMES] = { 0 }, good, bad, lost;
    uint32_t elsewhere = ranks_elsewhere(run);
    bool any_started = false;

    for (uint32_t i = 0; i < run->facts.len; i++) {
        const struct fact_node *node = &run->facts.nodes[i];

        /* Without a pid it is of another machine, or never came to run. */
        if (node->pid != 0 || is_failed_start(node))
            counts[outcome_of(node)]++;
        any_started = any_started || node->pid != 0;
    }
    good = counts[GOOD];
    lost = counts[LOST];
    bad = counts[BAD];
    if (!any_started) {
        fprintf(stderr, "troupe: no node was started\n");
        return CLI_NOT_STARTED;
    }
    if (good + bad + lost > good || run->is_verbose)
        fprintf(stderr, "troupe: %u of %u nodes ended well, %u died, %u "
                "failed\n", good, good + bad + lost, lost, bad);
    if (run->facts.is_full)
        fprintf(stderr, "troupe: the job had more than %u nodes: what became "
                "of the others is not known\n", FACTS_NODES_MAX);
    if (elsewhere > 0)
        fprintf(stderr, "troupe: %u ranks ran on other machines: of them only "
                "mpirun's exit status tells, which says %s\n", elsewhere,
                run->mpirun_failed ? "failed" : "good");
    if (elsewhere > 0 && run->mpirun_failed)
        bad++;
    if (good > 0 && bad == 0 && !run->facts.is_full)
        return 0;
    return run->was_ended ? CLI_ENDED : CLI_FAILED;
}

/* --- start ---------------------------------------------------------------- */

static int usage(FILE *stream, int status)
{
    fprintf(stream,
            "usage: troupe run [OPTION...] [MPIRUN OPTION...] PROGRAM [ARG...]\n"
            "\n"
            "Runs an MPI job that goes on when ranks die, and says truthfully what\n"
            "became of it: mpirun, with the options that this needs and a key for who\n"
            "joins. Its own options come first; all else goes to mpirun as it is.\n"
            "\n"
            "  --job NAME     by which troupe add, ps and drain find it\n"
            "  --replace N    start another process for each of the first N that die\n"
            "  --drain S      how long a drain may take (%d)\n"
            "  --grace S      how long mpirun may take to end when all have (%d)\n"
            "  --linger S     how long processes may go on when all have called\n"
            "                 troupe_stop (%d)\n"
            "  --mpirun PATH  the launcher; also $TROUPE_MPIRUN\n"
            "  --verbose      show the command, and always a summary\n"
            "\n"
            "SIGTERM, SIGINT and SIGHUP drain the job: each rank gets SIGUSR1, upon\n"
            "which a training ends after its step, and a process that has opened none\n"
            "yet, unless it handles that signal; a second one, or the time, ends it.\n"
            "SIGUSR1 and SIGUSR2 go to all ranks. What is left after the times above is\n"
            "ended by SIGTERM and, two seconds later, SIGKILL.\n"
            "\n"
            "Exit status: 0: all nodes that did not die ended well, and at least one\n"
            "did; %d: one failed, or all died; %d: wrong usage; %d: no node was started;\n"
            "%d: as %d, after the job had to be ended; %d, %d: PROGRAM cannot be executed,\n"
            "or is not there. A node ends well when troupe_stop returned 0 and its process\n"
            "exits with status 0. What ranks on other machines do is known by mpirun's own\n"
            "status alone.\n",
            DRAIN_S, GRACE_S, LINGER_S, CLI_FAILED, CLI_USAGE,
            CLI_NOT_STARTED, CLI_ENDED, CLI_FAILED, CLI_NOT_EXECUTABLE,
            CLI_NOT_FOUND);
    return status;
}

static const struct option long_options[] = {
    { "job", required_argument, NULL, 'j' },
    { "replace", required_argument, NULL, 'r' },
    { "drain", required_argument, NULL, 'd' },
    { "grace", required_argument, NULL, 'g' },
    { "linger", required_argument, NULL, 'l' },
    { "mpirun", required_argument, NULL, 'm' },
    { "verbose", no_argument, NULL, 'v' },
    { "help", no_argument, NULL, 'h' },
    { 0 },
};

/* Whether this word is one of ours; getopt would take mpirun's for errors. */
static bool is_ours(const char *word)
{
    size_t len = strcspn(word, "=");

    for (const struct option *option = long_options; option->name != NULL;
         option++)
        if (len == strlen(option->name) + 2 && word[0] == '-' &&
            word[1] == '-' && strncmp(word + 2, option->name, len - 2) == 0)
            return true;
    return false;
}

/* How many of the words at the front are ours. */
static int ours_len(int argc, char **argv)
{
    int i = 1;

    while (i < argc && is_ours(argv[i])) {
        bool has_value = strchr(argv[i], '=') != NULL ||
                         strcmp(argv[i], "--verbose") == 0 ||
                         strcmp(argv[i], "--help") == 0;

        i += has_value ? 1 : 2;
    }
    return i < argc ? i : argc;
}

static bool parse_number(const char *text, uint64_t *value_p)
{
    char *rest;

    errno = 0;
    *value_p = strtoull(text, &rest, 10);
    return errno == 0 && rest != text && *rest == '\0' && *value_p < 1000000;
}

static int parse(struct run *run, int argc, char **argv, const char **name_p)
{
    uint64_t number = 0;
    int c, at = 0;

    while ((c = getopt_long(argc, argv, "+", long_options, &at)) != -1) {
        bool good = strchr("rdgl", c) == NULL || parse_number(optarg, &number);

        if (!good)
            return cli_error("--%s \"%s\" is no number that makes sense",
                             long_options[at].name, optarg);
        switch (c) {
        case 'j': *name_p = optarg; break;
        case 'r': run->replace = (uint32_t)number; break;
        case 'd': run->drain_ns = number * 1000 * TRI_NS_PER_MS; break;
        case 'g': run->grace_ns = number * 1000 * TRI_NS_PER_MS; break;
        case 'l': run->linger_ns = number * 1000 * TRI_NS_PER_MS; break;
        case 'm': run->mpirun = optarg; break;
        case 'v': run->is_verbose = true; break;
        case 'h': return usage(stdout, -1);
        default: return usage(stderr, CLI_USAGE);
        }
    }
    return 0;
}

/* nohup asks for that; a signal that is blocked would come all the same. */
static bool is_hangup_ignored(void)
{
    struct sigaction action;

    return sigaction(SIGHUP, NULL, &action) == 0 &&
           action.sa_handler == SIG_IGN;
}

static int watch_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    if (!is_hangup_ignored())
        sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* Says so. */
static int missing_program(int argc, char **argv)
{
    const char *program;
    int status = program_check(argc, argv, &program);

    if (status == CLI_NOT_FOUND)
        cli_error("%s: there is no such program%s", program,
                  strchr(program, '/') == NULL ? " in PATH" : "");
    else if (status != 0)
        cli_error("%s: no program that can be executed", program);
    return status;
}

static int run_job(struct run *run, int argc, char **argv)
{
    char path[PATH_MAX];
    const char *wrong;
    int fd, status;

    job_path(&run->job, "report", path);
    wrong = facts_open(&run->facts, path);
    if (wrong != NULL) {
        cli_error("%s: %s", path, wrong);
        return CLI_NOT_STARTED;
    }
    fd = watch_signals();
    wrong = start_mpirun(run, argc, argv);
    if (wrong == NULL) {
        loop(run, fd);
        status = summary(run);
    } else {
        cli_error("%s: %s", run->mpirun, wrong);
        status = CLI_NOT_STARTED;
    }
    close(fd);
    facts_close(&run->facts);
    return status;
}

int cli_run(int argc, char **argv)
{
    struct run run = {
        .mpirun = TRI_MPIRUN,
        .drain_ns = DRAIN_S * 1000 * TRI_NS_PER_MS,
        .grace_ns = GRACE_S * 1000 * TRI_NS_PER_MS,
        .linger_ns = LINGER_S * 1000 * TRI_NS_PER_MS,
        .end_ns = TRI_NS_NEVER,
    };
    int len = ours_len(argc, argv), status;
    const char *name = NULL, *wrong;

    if (getenv("TROUPE_MPIRUN") != NULL)
        run.mpirun = getenv("TROUPE_MPIRUN");
    unsetenv("TROUPE_MPIRUN"); /* it is no option of a node */
    status = parse(&run, len, argv, &name);
    if (status != 0)
        return status < 0 ? 0 : status;
    if (len == argc)
        return usage(stderr, CLI_USAGE);
    run.is_openmpi = ask_is_openmpi(run.mpirun);
    status = run.is_openmpi ? missing_program(argc - len, argv + len) : 0;
    if (status != 0)
        return status;
    wrong = job_create(&run.job, name);
    if (wrong != NULL)
        return cli_error("%s: %s", name != NULL ? name : "the job", wrong);
    status = run_job(&run, argc - len, argv + len);
    job_remove(&run.job);
    return status;
}
