/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A host that is cut off, silently, until all others hold it for dead. A node
 * on each host that tests/lib/hosts makes; the last one is cut off, healed and
 * begins a new life, again and again.
 *     hosts HOSTS cut PROFILE CUTS    starts, on each host,
 *     cut INDEX PROFILE KEY_FILE
 */

#include "board.h"

enum { HOSTS_MAX = 16, PORT = 7700 };

struct board {
    _Atomic int32_t alive[HOSTS_MAX];   /* members, as each host sees it */
    _Atomic uint64_t victim;            /* its node id in this life */
    _Atomic int64_t died_ns[HOSTS_MAX]; /* of the victim of now */
};

static struct board *board;
static int hosts;

/* --- a node --------------------------------------------------------------- */

#define eye_messages(TELL, ASK) TELL(eye, nothing, ())
TROUPE_PROTOCOL(eye)

struct eye {
    int index;
};

static int on_start(troupe_self_t *self, struct eye *eye)
{
    atomic_store(&board->alive[eye->index],
                 (int32_t)troupe_members_alive(self));
    return troupe_members_watch(self, 1);
}

static int on_member(troupe_self_t *self, struct eye *eye,
                     const troupe_member_event_t *event)
{
    if (event->what == TROUPE_MEMBER_DIED &&
        event->member.node == atomic_load(&board->victim))
        atomic_store(&board->died_ns[eye->index], bench_now_ns());
    atomic_store(&board->alive[eye->index],
                 (int32_t)troupe_members_alive(self));
    return 0;
}

static int on_nothing(troupe_self_t *self, struct eye *eye,
                      const eye_nothing_t *m)
{
    (void)self;
    (void)eye;
    (void)m;
    return 0;
}

TROUPE_ACTOR(eye, struct eye, .on_start = on_start, .on_member = on_member,
             .nothing = on_nothing)

static int run_node(int index, const char *profile, const char *key_file)
{
    struct eye eye = { index };
    troupe_options_t options;
    troupe_t *troupe;
    eye_ref_t ref;

    bench_watchdog();
    troupe_options_init(&options);
    options.membership = profile;
    options.key_file = key_file;
    options.listen = "7700";
    options.seeds = index > 0 ? "10.77.0.2:7700" : NULL;
    options.mpi = "off";
    options.log = "error";
    bench_check(troupe_start(&troupe, &options), "troupe_start");
    if (index == hosts - 1)
        atomic_store(&board->victim, troupe_node_id(troupe));
    bench_check(eye_spawn(troupe, NULL, &eye, &ref), "spawn");
    troupe_serve(troupe, TROUPE_FOREVER); /* until it is killed */
    return 0;
}

/* --- who starts them ------------------------------------------------------ */

static pid_t start_node(char *program, int index, char *profile,
                        const char *key_file)
{
    char host[16], number[16];
    char *arguments[] = { getenv("TEST_HOSTS"),
                          (char *)"enter",
                          host,
                          program,
                          number,
                          profile,
                          (char *)key_file,
                          NULL };

    snprintf(host, sizeof(host), "%d", index);
    snprintf(number, sizeof(number), "%d", index);
    atomic_store(&board->alive[index], 0);
    return board_spawn(arguments);
}

static void run_tool(const char *what, int host)
{
    char number[16];
    char *arguments[] = { getenv("TEST_HOSTS"), (char *)what, number, NULL };

    snprintf(number, sizeof(number), "%d", host);
    board_reap(board_spawn(arguments), 0);
}

static int are_all_there(void *unused)
{
    (void)unused;
    for (int i = 0; i < hosts; i++)
        if (atomic_load(&board->alive[i]) != hosts)
            return 0;
    return 1;
}

static int is_dead_to_all(void *unused)
{
    (void)unused;
    for (int i = 0; i < hosts - 1; i++)
        if (atomic_load(&board->died_ns[i]) == 0)
            return 0;
    return 1;
}

/* From the command to cut until the last one knew; in us. */
static uint32_t cut_once(int victim)
{
    int64_t began_ns, last_ns = 0;

    for (int i = 0; i < hosts; i++)
        atomic_store(&board->died_ns[i], 0);
    began_ns = bench_now_ns();
    run_tool("cut", victim);
    board_await(is_dead_to_all, NULL, "a host that was cut off is not dead");
    for (int i = 0; i < hosts - 1; i++)
        if (atomic_load(&board->died_ns[i]) > last_ns)
            last_ns = atomic_load(&board->died_ns[i]);
    run_tool("heal", victim);
    return (uint32_t)((last_ns - began_ns) / 1000);
}

static void measure(char *program, char *profile, size_t cuts)
{
    uint32_t *samples_us = calloc(cuts, sizeof(*samples_us));
    const char *key_file = board_key_file();
    pid_t pids[HOSTS_MAX];
    int last = hosts - 1;

    for (int i = 0; i < hosts; i++)
        pids[i] = start_node(program, i, profile, key_file);
    for (size_t i = 0; i < cuts; i++) {
        board_await(are_all_there, NULL, "not all have joined");
        samples_us[i] = cut_once(last);
        kill(pids[last], SIGKILL);
        board_reap(pids[last], 1);
        pids[last] = start_node(program, last, profile, key_file);
    }
    for (int i = 0; i < hosts; i++) {
        kill(pids[i], SIGKILL);
        board_reap(pids[i], 1);
    }
    qsort(samples_us, cuts, sizeof(*samples_us), bench_compare_);
    bench_print(samples_us[cuts / 2] / 1e6, "s", "p50");
    bench_print(samples_us[cuts - 1 - cuts / 100] / 1e6, "s", "p99");
}

int main(int argc, char **argv)
{
    const char *count = getenv("TEST_HOSTS_COUNT");

    hosts = count ? atoi(count) : 0;
    if (hosts < 2 || hosts > HOSTS_MAX || argc < 3)
        bench_die("not run by tests/lib/hosts, or too few arguments");
    if (argc == 4) {
        board = board_open(sizeof(*board));
        return run_node(atoi(argv[1]), argv[2], argv[3]);
    }
    bench_watchdog();
    board = board_create(sizeof(*board));
    measure(argv[0], argv[1], bench_number(argc, argv, 2));
    return 0;
}
