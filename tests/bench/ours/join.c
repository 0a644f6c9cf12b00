/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A process outside mpirun, from its start until all members of a running job
 * list it. It leaves again, and the next one comes.
 *     join JOINS MPIRUN...   starts MPIRUN..., whose program is
 *     join member            a rank
 *     join joiner            and, one after the other, the joiners
 */

#include "board.h"

enum { RANKS_MAX = 256 };

struct board {
    char key_file[4096];
    char endpoint[64];
    _Atomic int32_t size; /* of the job, once all have started */
    _Atomic int32_t started;
    _Atomic int32_t left; /* joiners that may go */
    _Atomic int32_t is_over;
    _Atomic int64_t begun_ns; /* troupe_start has returned to the joiner */
    _Atomic int64_t listed_ns[RANKS_MAX];
    _Atomic int32_t alive[RANKS_MAX]; /* members, as each rank sees it */
};

static struct board *board;

/* --- a member ------------------------------------------------------------- */

#define eye_messages(TELL, ASK) TELL(eye, nothing, ())
TROUPE_PROTOCOL(eye)

struct eye {
    int unused;
};

static int on_start(troupe_self_t *self, struct eye *eye)
{
    (void)eye;
    atomic_store(&board->alive[troupe_rank(self)],
                 (int32_t)troupe_members_alive(self));
    return troupe_members_watch(self, 0);
}

static int on_member(troupe_self_t *self, struct eye *eye,
                     const troupe_member_event_t *event)
{
    int rank = troupe_rank(self);

    (void)eye;
    if (event->what == TROUPE_MEMBER_JOINED)
        atomic_store(&board->listed_ns[rank], bench_now_ns());
    atomic_store(&board->alive[rank], (int32_t)troupe_members_alive(self));
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

static troupe_t *start(int is_member)
{
    troupe_options_t options;
    troupe_t *troupe;

    bench_watchdog();
    board = board_open(sizeof(*board));
    troupe_options_init(&options);
    options.log = "error";
    options.key_file = board->key_file;
    options.listen = is_member ? board->endpoint : NULL;
    options.seeds = is_member ? NULL : board->endpoint;
    bench_check(troupe_start(&troupe, &options), "troupe_start");
    return troupe;
}

static int run_member(void)
{
    troupe_t *troupe = start(1);
    eye_ref_t eye;

    bench_check(eye_spawn(troupe, NULL, NULL, &eye), "spawn");
    if (troupe_size(troupe) > RANKS_MAX)
        bench_die("too many ranks");
    if (atomic_fetch_add(&board->started, 1) + 1 == troupe_size(troupe))
        atomic_store(&board->size, troupe_size(troupe));
    while (!atomic_load(&board->is_over))
        troupe_serve(troupe, 50);
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}

static int run_joiner(void)
{
    int32_t left = 0;
    troupe_t *troupe = start(0);

    atomic_store(&board->begun_ns, bench_now_ns());
    while (left == 0) {
        troupe_serve(troupe, 1);
        left = atomic_exchange(&board->left, 0);
    }
    bench_check(troupe_stop(&troupe), "troupe_stop");
    return 0;
}

/* --- who starts them ------------------------------------------------------ */

static int is_started(void *unused)
{
    (void)unused;
    return atomic_load(&board->size) > 0;
}

static int has_joined(void *unused)
{
    (void)unused;
    for (int i = 0; i < board->size; i++)
        if (atomic_load(&board->listed_ns[i]) == 0)
            return 0;
    return atomic_load(&board->begun_ns) != 0;
}

static int has_left(void *unused)
{
    (void)unused;
    for (int i = 0; i < board->size; i++)
        if (atomic_load(&board->alive[i]) != board->size)
            return 0;
    return 1;
}

/* In us; begun_us_p: until troupe_start returned. */
static uint32_t join_once(char *program, uint32_t *begun_us_p)
{
    char *arguments[] = { program, (char *)"joiner", NULL };
    int64_t began_ns, last_ns = 0;
    pid_t pid;

    board_await(has_left, NULL, "a joiner has not left");
    atomic_store(&board->begun_ns, 0);
    for (int i = 0; i < board->size; i++)
        atomic_store(&board->listed_ns[i], 0);
    began_ns = bench_now_ns();
    pid = board_spawn(arguments);
    board_await(has_joined, NULL, "not all list the joiner");
    for (int i = 0; i < board->size; i++)
        if (board->listed_ns[i] > last_ns)
            last_ns = board->listed_ns[i];
    atomic_store(&board->left, 1);
    board_reap(pid, 0);
    *begun_us_p = (uint32_t)((board->begun_ns - began_ns) / 1000);
    return (uint32_t)((last_ns - began_ns) / 1000);
}

static void measure(char *program, size_t joins, char **job)
{
    uint32_t *samples_us = calloc(joins, sizeof(*samples_us));
    uint32_t *begun_us = calloc(joins, sizeof(*begun_us));
    pid_t mpirun;

    snprintf(board->key_file, sizeof(board->key_file), "%s", board_key_file());
    snprintf(board->endpoint, sizeof(board->endpoint), "127.0.0.1:%d",
             board_free_port());
    mpirun = board_spawn(job);
    board_await(is_started, NULL, "the job does not start");
    for (size_t i = 0; i < joins; i++)
        samples_us[i] = join_once(program, &begun_us[i]);
    atomic_store(&board->is_over, 1);
    board_reap(mpirun, 0);
    qsort(samples_us, joins, sizeof(*samples_us), bench_compare_);
    qsort(begun_us, joins, sizeof(*begun_us), bench_compare_);
    bench_print(samples_us[joins / 2] / 1e3, "ms", "p50");
    bench_print(samples_us[joins - 1 - joins / 100] / 1e3, "ms", "p99");
    bench_print(begun_us[joins / 2] / 1e3, "ms", "start");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "member") == 0)
        return run_member();
    if (argc == 2 && strcmp(argv[1], "joiner") == 0)
        return run_joiner();
    if (argc < 3)
        bench_die("too few arguments");
    bench_watchdog();
    board = board_create(sizeof(*board));
    measure(argv[0], bench_number(argc, argv, 1), argv + 2);
    return 0;
}
