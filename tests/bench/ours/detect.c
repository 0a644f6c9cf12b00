/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * kill -9 of a rank, until all others have failed the ask that waited there
 * and have forgotten its name. Jobs one after the other, in each of them one
 * victim after the other.
 *     detect JOBS VICTIMS MPIRUN...   starts MPIRUN... once a job, the program
 *                                     of which is
 *     detect                          a rank
 */

#include "board.h"

enum { VICTIMS_MAX = 16, RANKS_MAX = 64 };

struct board {
    int32_t victims; /* of a job */
    _Atomic int32_t size;
    _Atomic int32_t named[VICTIMS_MAX]; /* ranks that know the victim's name */
    _Atomic int64_t killed_ns[VICTIMS_MAX];
    _Atomic int64_t failed_ns[VICTIMS_MAX][RANKS_MAX];
    _Atomic int64_t forgot_ns[VICTIMS_MAX][RANKS_MAX];
};

#define guest_messages(TELL, ASK)                                              \
    ASK(guest, stay, (), ())                                                   \
    TELL(guest, visit, (guest_ref_t victim; int64_t index;))
TROUPE_PROTOCOL(guest)

struct guest {
    int64_t index;
};

static struct board *board;
static int rank, size;
static _Atomic int32_t held; /* asks that wait here */

static int victim_rank(int64_t index)
{
    return size - 1 - (int)index;
}

/* --- a rank --------------------------------------------------------------- */

static int on_stay(troupe_self_t *self, struct guest *guest,
                   const guest_stay_t *m)
{
    (void)guest;
    (void)m;
    troupe_reply_later(self);
    atomic_fetch_add(&held, 1);
    troupe_wake(self);
    return 0;
}

static int on_gone(troupe_self_t *self, void *state, int error,
                   const guest_stay_result_t *result, void *arg)
{
    struct guest *guest = state;

    (void)result;
    (void)arg;
    if (error != TROUPE_ENODE)
        bench_check(error ? error : TROUPE_EPROTO, "an ask of a dead rank");
    atomic_store(&board->failed_ns[guest->index][rank], bench_now_ns());
    troupe_wake(self);
    return 0;
}

static int on_visit(troupe_self_t *self, struct guest *guest,
                    const guest_visit_t *m)
{
    guest->index = m->index;
    return guest_stay_then(self, m->victim, (guest_stay_t){}, BOARD_WAIT_MS,
                           on_gone, NULL);
}

static int on_start(troupe_self_t *self, struct guest *guest)
{
    uint32_t watch;

    (void)guest;
    return troupe_names_watch(self, "guest.", &watch);
}

static int on_name(troupe_self_t *self, struct guest *guest,
                   const troupe_name_event_t *event)
{
    int64_t index = size - 1 - atoi(event->name + strlen("guest."));

    (void)guest;
    if (index < 0 || index >= board->victims)
        return 0;
    if (event->what == TROUPE_NAME_ADDED)
        atomic_fetch_add(&board->named[index], 1);
    else
        atomic_store(&board->forgot_ns[index][rank], bench_now_ns());
    troupe_wake(self);
    return 0;
}

TROUPE_ACTOR(guest, struct guest, .on_start = on_start, .on_name = on_name,
             .stay = on_stay, .visit = on_visit)

static int is_doomed(void *arg)
{
    int64_t index = *(int64_t *)arg;

    return atomic_load(&held) == victim_rank(index) &&
           atomic_load(&board->named[index]) == size;
}

static int is_over(void *arg)
{
    int64_t index = *(int64_t *)arg;

    return atomic_load(&board->failed_ns[index][rank]) != 0 &&
           atomic_load(&board->forgot_ns[index][rank]) != 0;
}

/* One death, as victim or as one of the others. */
static void live_through(troupe_t *troupe, guest_ref_t mine, int64_t index)
{
    char address[64];
    guest_ref_t victim;

    if (rank == victim_rank(index)) {
        bench_check(
            troupe_serve_until(troupe, is_doomed, &index, BOARD_WAIT_MS),
            "asks and names");
        troupe_serve(troupe, 20); /* nobody is busy with those any more */
        atomic_store(&board->killed_ns[index], bench_now_ns());
        raise(SIGKILL);
    }
    snprintf(address, sizeof(address), "actor:///guest.%d", victim_rank(index));
    bench_check(guest_resolve(troupe, address, BENCH_WAIT_MS, &victim),
                "resolve");
    bench_check(guest_visit(troupe, mine, (guest_visit_t){ victim, index }),
                "visit");
    bench_check(troupe_serve_until(troupe, is_over, &index, BOARD_WAIT_MS),
                "a death");
}

static int run_rank(void)
{
    troupe_t *troupe;
    guest_ref_t mine;
    char name[64];

    board = board_open(sizeof(*board));
    troupe = bench_start(-1);
    rank = troupe_rank(troupe);
    size = troupe_size(troupe);
    if (size > RANKS_MAX || board->victims >= size)
        bench_die("too many ranks, or too few");
    atomic_store(&board->size, size);
    snprintf(name, sizeof(name), "guest.%d", rank);
    bench_check(guest_spawn(troupe, name, NULL, &mine), "spawn");
    for (int64_t i = 0; i < board->victims; i++)
        live_through(troupe, mine, i);
    /* MPI_Finalize may hang after a death. */
    troupe_stop(&troupe);
    _exit(0);
}

/* --- who starts them ------------------------------------------------------ */

/* Adds a job's times: until the last one knew. */
static size_t collect(uint32_t *samples_us, uint32_t *asks_us, size_t len)
{
    for (int i = 0; i < board->victims; i++) {
        int64_t failed_ns = 0, forgot_ns = 0, killed_ns = board->killed_ns[i];

        for (int r = 0; r < board->size - 1 - i; r++) {
            if (!board->failed_ns[i][r] || !board->forgot_ns[i][r])
                bench_die("a rank was not told of a death");
            if (board->failed_ns[i][r] > failed_ns)
                failed_ns = board->failed_ns[i][r];
            if (board->forgot_ns[i][r] > forgot_ns)
                forgot_ns = board->forgot_ns[i][r];
        }
        asks_us[len] = (uint32_t)((failed_ns - killed_ns) / 1000);
        if (forgot_ns < failed_ns)
            forgot_ns = failed_ns;
        samples_us[len++] = (uint32_t)((forgot_ns - killed_ns) / 1000);
    }
    return len;
}

static void print_ms(uint32_t *samples_us, size_t len, const char *p50,
                     const char *p99)
{
    qsort(samples_us, len, sizeof(*samples_us), bench_compare_);
    bench_print(samples_us[len / 2] / 1e3, "ms", p50);
    bench_print(samples_us[len - 1 - len / 100] / 1e3, "ms", p99);
}

int main(int argc, char **argv)
{
    uint32_t *samples_us, *asks_us;
    size_t len = 0, jobs;

    if (argc == 1)
        return run_rank();
    bench_watchdog();
    jobs = bench_number(argc, argv, 1);
    board = board_create(sizeof(*board));
    board->victims = (int32_t)bench_number(argc, argv, 2);
    if (argc < 4 || board->victims > VICTIMS_MAX)
        bench_die("too few arguments, or too many victims");
    samples_us = calloc(jobs * VICTIMS_MAX, sizeof(*samples_us));
    asks_us = calloc(jobs * VICTIMS_MAX, sizeof(*asks_us));
    for (size_t i = 0; i < jobs; i++) {
        int32_t victims = board->victims;

        memset(board, 0, sizeof(*board));
        board->victims = victims;
        board_reap(board_spawn(argv + 3), 0);
        len = collect(samples_us, asks_us, len);
    }
    print_ms(samples_us, len, "p50", "p99");
    print_ms(asks_us, len, "asks.p50", "asks.p99");
    return 0;
}
