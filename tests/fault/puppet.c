/* SPDX-License-Identifier: BSD-3-Clause */
#include "puppet.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <troupe.h>

enum {
    LINE_BYTES = 1024,
    PUPPETS_MAX = 64,
    KEYS_MAX = 4,
    PATIENCE_MS = 60000,
    PUPPET_FD = 3,
    PORT_FIRST = 16384,
    PORTS = 16384,
    PORT_TRIES = 1000,
};

#define PUPPET_ARGUMENT "--puppet"

extern char **environ;

double puppet_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/* --- the puppet's side ---------------------------------------------------- */

#define echo_messages(TELL, ASK)                                              \
    ASK(echo, say, (int64_t number;), (int64_t number;))
TROUPE_PROTOCOL(echo)

struct echo {
    int unused;
};

static int on_say(troupe_self_t *self, struct echo *e, const echo_say_t *m)
{
    (void)e;
    return echo_say_reply(self, (echo_say_result_t){ m->number + 1 });
}

TROUPE_ACTOR(echo, struct echo, .say = on_say)

static troupe_t *troupe;
static uint64_t died; /* the first node that an event told of */

/* Of whom events told that it was suspected, and then recovered. */
static struct tale {
    uint64_t node;
    bool recovered;
} tales[16];

static void answer(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

static void answer(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vdprintf(PUPPET_FD, format, list);
    va_end(list);
    dprintf(PUPPET_FD, "\n");
}

static void answer_rc(int rc)
{
    answer("%s", rc == 0 ? "ok" : troupe_error_name(rc));
}

/* The environment sets options, as it wins over all. */
static void set_options(char *list)
{
    for (char *item = strtok(list, " "); item; item = strtok(NULL, " ")) {
        char name[LINE_BYTES] = "TROUPE_";
        char *value = strchr(item, '=');
        size_t len = strlen(name);

        if (!value)
            continue;
        *value++ = '\0';
        for (const char *c = item; *c; c++)
            name[len++] = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A'
                                                         : *c);
        name[len] = '\0';
        setenv(name, value, 1);
    }
}

int puppet_actor(troupe_t *of, char ref_p[64])
{
    echo_ref_t echo;
    int rc = echo_spawn(of, NULL, NULL, &echo);

    if (rc == 0)
        snprintf(ref_p, 64, "%016" PRIx64 " %u %u", echo.ref.node,
                 echo.ref.slot, echo.ref.generation);
    return rc;
}

int puppet_ask(troupe_t *from, const char *ref, int timeout_ms)
{
    echo_say_result_t result = { 0 };
    echo_ref_t echo;
    int rc;

    if (sscanf(ref, "%" SCNx64 " %u %u", &echo.ref.node, &echo.ref.slot,
               &echo.ref.generation) != 3)
        return TROUPE_EINVAL;
    rc = echo_say(from, echo, (echo_say_t){ 41 }, timeout_ms, &result);
    return rc == 0 && result.number != 42 ? TROUPE_EPROTO : rc;
}

static void do_start(char *options)
{
    char endpoint[TROUPE_ENDPOINT_MAX] = "none";
    char ref[64] = "";
    int rc;

    unsetenv("TROUPE_SEEDS");
    unsetenv("TROUPE_LISTEN");
    set_options(options);
    died = 0;
    memset(tales, 0, sizeof(tales));
    rc = troupe_start(&troupe, NULL);
    if (rc == 0)
        rc = puppet_actor(troupe, ref);
    if (rc != 0) {
        answer_rc(rc);
        return;
    }
    troupe_endpoint(troupe, endpoint, sizeof(endpoint));
    answer("ok %016" PRIx64 " %s %s", troupe_node_id(troupe), endpoint, ref);
}

/* The last word is the time limit. */
static void do_ask(const char *arguments)
{
    const char *limit = strrchr(arguments, ' ');

    if (limit)
        answer_rc(puppet_ask(troupe, arguments, atoi(limit)));
    else
        answer("what?");
}

struct wish {
    uint64_t node;
    uint32_t state;
    size_t count;
    char prefix[64];
};

static int has_state(void *arg)
{
    struct wish *wish = arg;
    troupe_member_t member;

    return troupe_member_get(troupe, wish->node, &member) == 0 &&
           member.state == wish->state;
}

static int has_count(void *arg)
{
    return troupe_members_alive(troupe) == ((struct wish *)arg)->count;
}

static int is_excluded(void *arg)
{
    (void)arg;
    return troupe_is_excluded(troupe);
}

static const char *const states[] = { "unknown", "alive", "suspect", "dead",
                                      "left" };

static void do_state(const char *arguments)
{
    struct wish wish = { .node = 0 };
    troupe_member_t member = { .state = 0 };
    char state[LINE_BYTES];
    int timeout_ms;

    if (sscanf(arguments, "%" SCNx64 " %1000s %d", &wish.node, state,
               &timeout_ms) != 3) {
        answer("what?");
        return;
    }
    for (uint32_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        if (strcmp(states[i], state) == 0)
            wish.state = i;
    troupe_members_wait(troupe, has_state, &wish, 0, timeout_ms);
    troupe_member_get(troupe, wish.node, &member);
    if (member.state == wish.state)
        answer("ok %u", member.evidence);
    else
        answer("%s", states[member.state % 5]);
}

static void do_count(const char *arguments)
{
    struct wish wish = { .node = 0 };
    int timeout_ms;

    if (sscanf(arguments, "%zu %d", &wish.count, &timeout_ms) != 2) {
        answer("what?");
        return;
    }
    if (troupe_members_wait(troupe, has_count, &wish, 0, timeout_ms) == 0)
        answer("ok");
    else
        answer("%zu", troupe_members_alive(troupe));
}

static int has_names(void *arg)
{
    struct wish *wish = arg;

    return troupe_names_list(troupe, wish->prefix, NULL, 0) == wish->count;
}

static void do_names(const char *arguments)
{
    struct wish wish = { .node = 0 };
    int timeout_ms;

    if (sscanf(arguments, "%zu %d %63s", &wish.count, &timeout_ms,
               wish.prefix) != 3) {
        answer("what?");
        return;
    }
    /* a name's change wakes nobody who does not wait for a name */
    for (double end_ms = puppet_now_ms() + timeout_ms;
         !has_names(&wish) && puppet_now_ms() < end_ms;)
        troupe_serve(troupe, 1);
    if (has_names(&wish))
        answer("ok");
    else
        answer("%zu", troupe_names_list(troupe, wish.prefix, NULL, 0));
}

/* --- its group ------------------------------------------------------------ */

static troupe_group_t *group;
static troupe_view_t group_view; /* the mutex */
static int group_rc;             /* the same */
static pthread_mutex_t group_mutex = PTHREAD_MUTEX_INITIALIZER;

/* From boundary to boundary, as a program does that computes. */
static void *follow_group(void *unused)
{
    int rc = 0;

    (void)unused;
    while (rc == 0 || rc == TROUPE_ETIMEDOUT || rc == TROUPE_EPAUSED) {
        troupe_view_t view;

        rc = troupe_group_update(group, 1, 1000, NULL);
        troupe_group_view(group, &view);
        pthread_mutex_lock(&group_mutex);
        group_view = view;
        group_rc = rc;
        pthread_mutex_unlock(&group_mutex);
    }
    return NULL;
}

static void do_group(const char *arguments)
{
    uint64_t self = troupe_node_id(troupe);
    troupe_group_options_t options;
    pthread_t thread;
    int rc;

    troupe_group_options_init(&options);
    options.timeout_ms = PATIENCE_MS / 2;
    rc = strcmp(arguments, "create") == 0
             ? troupe_group_create_of(troupe, "puppets", &self, 1, &options,
                                      &group)
             : troupe_group_join(troupe, "puppets", &options, &group);
    if (rc == 0 && pthread_create(&thread, NULL, follow_group, NULL) != 0)
        rc = TROUPE_ENOMEM;
    answer_rc(rc);
}

static void do_claim(const char *name)
{
    troupe_spawn_options_t strict = { .name = name,
                                      .unique = TROUPE_UNIQUE_STRICT };
    echo_ref_t ref;

    answer_rc(echo_spawn_with(troupe, &strict, NULL, &ref));
}

static void do_name(const char *name)
{
    troupe_spawn_options_t options = { .name = name };
    echo_ref_t ref;

    answer_rc(echo_spawn_with(troupe, &options, NULL, &ref));
}

static void do_instance(const char *arguments)
{
    static troupe_name_t names[8];
    char wanted[LINE_BYTES];
    uint64_t node = 0;
    size_t len = troupe_names_list(troupe, NULL, names, 8);

    sscanf(arguments, "%" SCNx64 " %1000s", &node, wanted);
    for (size_t i = 0; i < len && i < 8; i++)
        if (names[i].ref.node == node) {
            const char *is = names[i].suspect ? "suspect" : "trusted";

            answer("%s", strcmp(is, wanted) == 0 ? "ok" : is);
            return;
        }
    answer("not listed");
}

static void do_resolve(const char *arguments)
{
    char address[LINE_BYTES];
    troupe_ref_t ref;
    uint64_t node;
    int rc;

    if (sscanf(arguments, "%" SCNx64 " %1000s", &node, address) != 2) {
        answer("what?");
        return;
    }
    rc = troupe_resolve(troupe, address, NULL, 1, &ref);
    if (rc != 0 || ref.node == node)
        answer_rc(rc);
    else
        answer("%016" PRIx64, ref.node);
}

static void do_packets(const char *arguments)
{
    troupe_member_stats_t stats = { 0 };
    uint64_t wanted = 0;
    int timeout_ms = 0;

    sscanf(arguments, "%" SCNu64 " %d", &wanted, &timeout_ms);
    for (double end_ms = puppet_now_ms() + timeout_ms;
         stats.packets_in < wanted && puppet_now_ms() < end_ms;) {
        troupe_serve(troupe, 1);
        troupe_member_stats(troupe, &stats);
    }
    if (stats.packets_in >= wanted)
        answer("ok");
    else
        answer("%" PRIu64, stats.packets_in);
}

/* Polls: nothing tells of another thread's adoption. */
static void do_view(const char *arguments)
{
    double until_ms = puppet_now_ms();
    troupe_view_t view = { 0 };
    unsigned len = 0;
    int ms = 0, rc = 0;

    if (sscanf(arguments, "%u %d", &len, &ms) == 2)
        until_ms += ms;
    do {
        struct timespec nap = { .tv_nsec = 1000000 };

        nanosleep(&nap, NULL);
        pthread_mutex_lock(&group_mutex);
        view = group_view;
        rc = group_rc;
        pthread_mutex_unlock(&group_mutex);
    } while (view.len != len && puppet_now_ms() < until_ms);
    if (view.len == len)
        answer("ok %" PRIu64 " %016" PRIx64, view.epoch, view.digest);
    else
        answer("%u members (%s)", view.len, troupe_error_name(rc));
}

/* NULL: no event told of it, and there is no room. */
static struct tale *tale_of(uint64_t node, bool add)
{
    for (size_t i = 0; i < sizeof(tales) / sizeof(tales[0]); i++) {
        if (tales[i].node == 0 && add)
            tales[i].node = node;
        if (tales[i].node == node)
            return &tales[i];
    }
    return NULL;
}

static void note_event(const troupe_member_event_t *event)
{
    uint64_t node = event->member.node;
    struct tale *tale;

    if (event->what == TROUPE_MEMBER_DIED && died == 0)
        died = node;
    if (event->what == TROUPE_MEMBER_SUSPECTED)
        tale_of(node, true);
    tale = tale_of(node, false);
    if (event->what == TROUPE_MEMBER_RECOVERED && tale)
        tale->recovered = true;
}

static void look_at_events(void)
{
    troupe_member_event_t event;

    while (troupe && troupe_member_events_take(troupe, &event, 1) == 1)
        note_event(&event);
}

static void do_told(const char *arguments)
{
    const struct tale *tale = tale_of(strtoull(arguments, NULL, 16), false);

    if (tale && tale->recovered)
        answer("ok");
    else
        answer(tale ? "suspected alone" : "nothing");
}

/* Words that do something; false: none of them. */
static bool do_word(const char *word, const char *arguments)
{
    static const struct {
        const char *word;
        void (*act)(const char *arguments);
    } words[] = {
        { "ask", do_ask },           { "alive", do_count },
        { "state", do_state },       { "names", do_names },
        { "group", do_group },       { "claim", do_claim },
        { "name", do_name },         { "instance", do_instance },
        { "resolve", do_resolve },   { "view", do_view },
        { "packets", do_packets },   { "told", do_told },
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(word, words[i].word) == 0) {
            words[i].act(arguments);
            return true;
        }
    return false;
}

static void do_line(char *line)
{
    char *arguments = strchr(line, ' ');
    troupe_stats_t stats;

    if (arguments)
        *arguments++ = '\0';
    else
        arguments = line + strlen(line);
    look_at_events();
    if (do_word(line, arguments))
        return;
    if (strcmp(line, "start") == 0) {
        do_start(arguments);
    } else if (strcmp(line, "stop") == 0) {
        answer_rc(troupe_stop(&troupe));
    } else if (strcmp(line, "excluded") == 0) {
        answer_rc(troupe_members_wait(troupe, is_excluded, NULL, 0,
                                      atoi(arguments)));
    } else if (strcmp(line, "refused") == 0) {
        troupe_stats(troupe, &stats);
        answer("ok %" PRIu64, stats.refused);
    } else if (strcmp(line, "never_dead") == 0) {
        if (died == 0)
            answer("ok");
        else
            answer("dead %016" PRIx64, died);
    } else {
        answer("what?");
    }
}

/* Lines until the other side closes; a node that runs is served meanwhile by
 * its workers. */
static void run_puppet(void)
{
    FILE *lines = fdopen(dup(PUPPET_FD), "r");
    char line[LINE_BYTES];

    while (lines && fgets(line, sizeof(line), lines)) {
        line[strcspn(line, "\n")] = '\0';
        do_line(line);
    }
    if (lines)
        fclose(lines);
    exit(EXIT_SUCCESS);
}

void puppet_main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], PUPPET_ARGUMENT) == 0)
        run_puppet();
}

/* --- the test's side ------------------------------------------------------ */

static pid_t pids[PUPPETS_MAX];
static char key_files[KEYS_MAX][64];

static void clean_up(void)
{
    for (unsigned i = 0; i < PUPPETS_MAX; i++)
        if (pids[i] > 0)
            kill(pids[i], SIGKILL);
    for (unsigned i = 0; i < KEYS_MAX; i++)
        if (key_files[i][0])
            unlink(key_files[i]);
}

static void prepare_once(void)
{
    static bool done;

    if (!done)
        atexit(clean_up);
    done = true;
}

void puppet_fail(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, "\n");
    exit(EXIT_FAILURE);
}

/* Not one of those that the kernel gives to who asks for any, from 32768 on:
 * another one could have it before it is bound here. */
unsigned puppet_free_port(void)
{
    for (int i = 0; i < PORT_TRIES; i++) {
        struct sockaddr_in address = { .sin_family = AF_INET };
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        uint16_t port;
        bool is_free;

        if (fd < 0 || getrandom(&port, sizeof(port), 0) != sizeof(port))
            puppet_fail("a free port: %s", strerror(errno));
        port = (uint16_t)(PORT_FIRST + port % PORTS);
        address.sin_port = htons(port);
        is_free = bind(fd, (void *)&address, sizeof(address)) == 0;
        close(fd);
        if (is_free)
            return port;
    }
    puppet_fail("a free port");
}

const char *puppet_key_file(unsigned number)
{
    char *path = key_files[number % KEYS_MAX];
    int fd;

    if (path[0])
        return path;
    prepare_once();
    snprintf(path, sizeof(key_files[0]), "/tmp/troupe-test-key-XXXXXX");
    fd = mkstemp(path); /* for its owner alone */
    if (fd < 0)
        puppet_fail("a key file: %s", strerror(errno));
    for (unsigned i = 0; i < 32; i++)
        dprintf(fd, "%02x", (i * 7 + number * 31) & 255);
    close(fd);
    return path;
}

/* Nothing of an MPI job that this test may be in. */
static char **plain_environment(void)
{
    static const char *const prefixes[] = { "OMPI_", "PMIX_", "PMI_", "PRTE_",
                                            "SLURM_" };
    size_t n = 0, kept = 0;
    char **copy;

    while (environ[n])
        n++;
    copy = calloc(n + 1, sizeof(*copy));
    for (size_t i = 0; copy && i < n; i++) {
        bool drop = false;

        for (size_t p = 0; p < sizeof(prefixes) / sizeof(prefixes[0]); p++)
            drop |= strncmp(environ[i], prefixes[p],
                            strlen(prefixes[p])) == 0;
        if (!drop)
            copy[kept++] = environ[i];
    }
    return copy;
}

/* Runs `arguments` with the other end of a socket. */
static void spawn(struct puppet *puppet, char **arguments)
{
    posix_spawn_file_actions_t actions;
    char **environment = plain_environment();
    int ends[2];
    int rc;

    prepare_once();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        puppet_fail("socketpair: %s", strerror(errno));
    /* Duplicating onto itself would leave it to be closed. */
    posix_spawn_file_actions_init(&actions);
    if (ends[1] == PUPPET_FD)
        ends[1] = dup(ends[1]);
    posix_spawn_file_actions_adddup2(&actions, ends[1], PUPPET_FD);
    rc = posix_spawn(&puppet->pid, arguments[0], &actions, NULL, arguments,
                     environment);
    posix_spawn_file_actions_destroy(&actions);
    free(environment);
    close(ends[1]);
    if (rc != 0)
        puppet_fail("posix_spawn: %s", strerror(rc));
    puppet->fd = ends[0];
    for (unsigned i = 0; i < PUPPETS_MAX; i++)
        if (pids[i] == 0) {
            pids[i] = puppet->pid;
            return;
        }
    puppet_fail("too many puppets");
}

void puppet_spawn(struct puppet *puppet)
{
    char *arguments[] = { (char *)"/proc/self/exe", (char *)PUPPET_ARGUMENT,
                          NULL };

    spawn(puppet, arguments);
}

void puppet_spawn_at(struct puppet *puppet, int host)
{
    char program[4096], number[16];
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    char *arguments[] = { getenv("TEST_HOSTS"), (char *)"enter", number,
                          program, (char *)PUPPET_ARGUMENT, NULL };

    if (len < 0 || !arguments[0])
        puppet_fail("a puppet on a host");
    program[len] = '\0';
    snprintf(number, sizeof(number), "%d", host);
    spawn(puppet, arguments);
}

static void forget(struct puppet *puppet)
{
    for (unsigned i = 0; i < PUPPETS_MAX; i++)
        if (pids[i] == puppet->pid)
            pids[i] = 0;
    close(puppet->fd);
}

void puppet_kill(struct puppet *puppet, int signal_number)
{
    kill(puppet->pid, signal_number);
    if (signal_number != SIGKILL)
        return;
    waitpid(puppet->pid, NULL, 0);
    forget(puppet);
}

void puppet_end(struct puppet *puppet)
{
    int status = 0;

    shutdown(puppet->fd, SHUT_WR);
    if (waitpid(puppet->pid, &status, 0) != puppet->pid || status != 0)
        puppet_fail("puppet %d ended with status %x", (int)puppet->pid,
                    status);
    forget(puppet);
}

static const char *say(struct puppet *puppet, const char *line)
{
    static char reply[LINE_BYTES];
    double end_ms = puppet_now_ms() + PATIENCE_MS;
    size_t len = 0;

    if (send(puppet->fd, line, strlen(line), MSG_NOSIGNAL) < 0)
        puppet_fail("puppet %d is gone: %s", (int)puppet->pid, line);
    while (len == 0 || reply[len - 1] != '\n') {
        struct pollfd readable = { .fd = puppet->fd, .events = POLLIN };
        ssize_t n;

        if (poll(&readable, 1, 100) == 0) {
            if (puppet_now_ms() > end_ms)
                puppet_fail("puppet %d does not answer: %s", (int)puppet->pid,
                            line);
            continue;
        }
        n = read(puppet->fd, reply + len, sizeof(reply) - 1 - len);
        if (n <= 0)
            puppet_fail("puppet %d ended: %s", (int)puppet->pid, line);
        len += (size_t)n;
    }
    reply[len - 1] = '\0';
    return reply;
}

static const char *say_list(struct puppet *puppet, const char *format,
                            va_list list)
{
    char line[LINE_BYTES];
    int len = vsnprintf(line, sizeof(line) - 1, format, list);

    if (len < 0 || (size_t)len >= sizeof(line) - 1)
        puppet_fail("a line is too long: %s", format);
    line[len] = '\n';
    line[len + 1] = '\0';
    return say(puppet, line);
}

const char *puppet_say(struct puppet *puppet, const char *format, ...)
{
    const char *reply;
    va_list list;

    va_start(list, format);
    reply = say_list(puppet, format, list);
    va_end(list);
    return reply;
}

void puppet_must(struct puppet *puppet, const char *wanted, const char *format,
                 ...)
{
    const char *reply;
    va_list list;

    va_start(list, format);
    reply = say_list(puppet, format, list);
    va_end(list);
    if (strncmp(reply, wanted, strlen(wanted)) != 0)
        puppet_fail("puppet %d: \"%s\" gave \"%s\", not \"%s\"",
                    (int)puppet->pid, format, reply, wanted);
}

void puppet_start(struct puppet *puppet, const char *format, ...)
{
    char line[LINE_BYTES];
    const char *reply;
    va_list list;

    snprintf(line, sizeof(line), "start %s", format);
    va_start(list, format);
    reply = say_list(puppet, line, list);
    va_end(list);
    if (sscanf(reply, "ok %" SCNx64 " %63s %63[^\n]", &puppet->node,
               puppet->endpoint, puppet->ref) != 3)
        puppet_fail("puppet %d: start gave \"%s\"", (int)puppet->pid, reply);
}
