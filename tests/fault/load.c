/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Busy is not dead. All workers and mains compute without pause, with messages
 * between all ranks; and one rank after the other is stopped (SIGSTOP) for
 * random times, below 1 s in the default profile, below 0.4 s in the fast one.
 * Nobody is ever held for dead, by anybody.
 *
 *     load [fast]
 *
 * TROUPE_TEST_LOAD_S: for how long (10).
 */
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "leave.h"

enum {
    LOAD_S = 10,
    RANKS_MAX = 16,
    BURNERS = 8,
    BURN_MS = 20, /* a handler's turn */
    PAUSE_MS_MAX = 950,
    FAST_PAUSE_MS_MAX = 380,
    PAUSE_MS_MIN = 50,
    BETWEEN_MS_MAX = 300,
    STOPS_MIN = 5, /* less would be no trial */
    LATE_MS_MAX = 50, /* a pause that is longer by more tells nothing */
    STARVED = 77, /* how the one that stops others ends then */
};

#define burner_messages(TELL, ASK)                                             \
    TELL(burner, burn, ())                                                     \
    TELL(burner, hello, (uint64_t number;))                                    \
    ASK(burner, ask, (), (uint64_t hellos;))
TROUPE_PROTOCOL(burner)

struct burner {
    uint64_t hellos;
    int32_t next;
};

static atomic_int stopping;
static burner_ref_t others[RANKS_MAX];
static int size;
static int deaths; /* seen by this rank */

static void burn(int ms)
{
    double end_ms = test_now_ms() + ms;

    while (test_now_ms() < end_ms)
        ;
}

/* Computes, tells each rank in turn of it, and wants to go on. */
static int on_burn(troupe_self_t *self, struct burner *b,
                   const burner_burn_t *m)
{
    int rc;

    (void)m;
    burn(BURN_MS);
    if (atomic_load(&stopping))
        return 0;
    b->next = (b->next + 1) % size;
    rc = burner_hello(self, others[b->next],
                      (burner_hello_t){ (uint64_t)b->next });
    /* One that is stopped takes nothing. */
    CHECK(rc == 0 || rc == TROUPE_EFULL || rc == TROUPE_ENODE);
    return burner_burn(self, (burner_ref_t){ troupe_self_ref(self) },
                       (burner_burn_t){});
}

static int on_hello(troupe_self_t *self, struct burner *b,
                    const burner_hello_t *m)
{
    (void)self, (void)m;
    b->hellos++;
    return 0;
}

static int on_ask(troupe_self_t *self, struct burner *b, const burner_ask_t *m)
{
    (void)m;
    return burner_ask_reply(self, (burner_ask_result_t){ b->hellos });
}

TROUPE_ACTOR(burner, struct burner, .burn = on_burn, .hello = on_hello,
             .ask = on_ask)

/* --- who stops them ------------------------------------------------------- */

struct plan {
    pid_t pids[RANKS_MAX];
    int32_t size, load_s, pause_ms_max;
    uint64_t seed;
};

static void sleep_ms(uint32_t ms)
{
    struct timespec time = { ms / 1000, (long)(ms % 1000) * 1000000 };

    nanosleep(&time, NULL);
}

/* In a process that no rank stops. Returns its exit status. */
static int stop_and_go(const struct plan *plan)
{
    double end_ms = test_now_ms() + plan->load_s * 1e3, longest = 0;
    struct tri_random random;
    const struct sched_param first = { .sched_priority = 1 };
    int stops = 0;

    /* Where permitted: who is starved itself stops others for too long. */
    sched_setscheduler(0, SCHED_FIFO, &first);
    tri_random_init(&random, plan->seed);
    /* Longer, where it takes its time itself. */
    while (test_now_ms() < end_ms || stops < STOPS_MIN) {
        pid_t pid = plan->pids[tri_random_below(&random, (uint32_t)plan->size)];
        uint32_t ms = PAUSE_MS_MIN +
                      tri_random_below(&random, (uint32_t)plan->pause_ms_max -
                                                    PAUSE_MS_MIN);
        double began_ms = test_now_ms();

        kill(pid, SIGSTOP);
        sleep_ms(ms);
        kill(pid, SIGCONT);
        if (test_now_ms() - began_ms > longest)
            longest = test_now_ms() - began_ms;
        stops++;
        sleep_ms(tri_random_below(&random, BETWEEN_MS_MAX));
    }
    printf("%d stops, the longest %.0f ms\n", stops, longest);
    fflush(stdout);
    if (longest > plan->pause_ms_max + LATE_MS_MAX)
        return STARVED;
    return EXIT_SUCCESS;
}

/* Made before there are threads; waits for its plan. */
static pid_t fork_stopper(int *plan_fd_p)
{
    struct plan plan;
    int ends[2];
    pid_t pid;

    if (pipe(ends) != 0 || (pid = fork()) < 0)
        exit(EXIT_FAILURE);
    *plan_fd_p = ends[1];
    if (pid > 0) {
        close(ends[0]);
        return pid;
    }
    close(ends[1]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (read(ends[0], &plan, sizeof(plan)) != (ssize_t)sizeof(plan))
        _exit(EXIT_FAILURE);
    _exit(stop_and_go(&plan));
}

static void give_plan(int plan_fd, int load_s, int is_fast)
{
    const char *text = getenv("TROUPE_TEST_SEED");
    struct plan plan = {
        .size = size,
        .load_s = load_s,
        .pause_ms_max = is_fast ? FAST_PAUSE_MS_MAX : PAUSE_MS_MAX,
        .seed =
            text ? strtoull(text, NULL, 0) : (uint64_t)(test_now_ms() * 1e6),
    };
    pid_t pid = getpid();

    MPI_Gather(&pid, sizeof(pid), MPI_BYTE, plan.pids, sizeof(pid), MPI_BYTE, 0,
               MPI_COMM_WORLD);
    if (test_rank != 0)
        return;
    printf("TROUPE_TEST_SEED=%llu\n", (unsigned long long)plan.seed);
    fflush(stdout);
    CHECK(write(plan_fd, &plan, sizeof(plan)) == (ssize_t)sizeof(plan));
}

/* --- each rank ------------------------------------------------------------ */

static void look_at_events(troupe_t *troupe, int *suspicions)
{
    troupe_member_event_t event;

    while (troupe_member_events_take(troupe, &event, 1) == 1) {
        *suspicions += event.what == TROUPE_MEMBER_SUSPECTED;
        if (event.what != TROUPE_MEMBER_DIED &&
            event.what != TROUPE_MEMBER_EXCLUDED)
            continue;
        deaths++;
        fprintf(stderr, "rank %d: rank %d died, evidence %u\n", test_rank,
                event.member.rank, event.member.evidence);
    }
}

/* What the stopper says, to all. True: it was starved and stopped somebody for
 * longer than it should have. */
static int was_starved(pid_t stopper)
{
    int status = 0;

    if (stopper > 0)
        CHECK_EQ(waitpid(stopper, &status, 0), stopper);
    if (WIFEXITED(status))
        status = WEXITSTATUS(status);
    MPI_Bcast(&status, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (status != STARVED)
        CHECK_EQ(status, 0);
    return status == STARVED;
}

/* All main threads compute, too, and serve now and then. */
static void load(troupe_t *troupe, int load_s, pid_t stopper)
{
    double end_ms = test_now_ms() + load_s * 1e3;
    int suspicions = 0, deaths_of_all = 0, starved;

    while (test_now_ms() < end_ms) {
        burn(BURN_MS);
        troupe_serve(troupe, 0);
        look_at_events(troupe, &suspicions);
    }
    atomic_store(&stopping, 1);
    MPI_Barrier(MPI_COMM_WORLD);
    look_at_events(troupe, &suspicions);
    printf("rank %d: %d suspicions\n", test_rank, suspicions);
    fflush(stdout);
    starved = was_starved(stopper);
    /* All do the same; who was told of a death tells nobody else here. */
    MPI_Allreduce(&deaths, &deaths_of_all, 1, MPI_INT, MPI_MAX,
                  MPI_COMM_WORLD);
    if (starved && deaths_of_all > 0) {
        if (test_rank == 0)
            printf("not judged: a pause became longer than it may be\n");
        test_failures = 0;
        leave();
    }
    CHECK_EQ(deaths, 0);
    CHECK_EQ(troupe_members_alive(troupe), size);
    for (int i = 0; i < size; i++)
        MUST(burner_ask(troupe, others[i], (burner_ask_t){}, TEST_SOON_MS,
                        NULL));
    look_at_events(troupe, &suspicions);
}

static void start_burners(troupe_t *troupe)
{
    char address[TEST_ADDRESS_BYTES];
    burner_ref_t burner;

    MUST(burner_spawn(troupe, "burner", NULL, &burner));
    for (int i = 0; i < size; i++)
        MUST(burner_resolve(troupe, test_address(address, i, "burner"),
                            TEST_SOON_MS, &others[i]));
    MPI_Barrier(MPI_COMM_WORLD);
    MUST(burner_burn(troupe, burner, (burner_burn_t){}));
    for (int i = 1; i < BURNERS; i++) {
        MUST(burner_spawn(troupe, NULL, NULL, &burner));
        MUST(burner_burn(troupe, burner, (burner_burn_t){}));
    }
}

int main(int argc, char **argv)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    const char *text = getenv("TROUPE_TEST_LOAD_S");
    int is_fast = argc > 1 && strcmp(argv[1], "fast") == 0;
    int load_s = text ? atoi(text) : LOAD_S, plan_fd = -1;
    troupe_options_t options;
    pid_t stopper = 0;
    troupe_t *troupe;

    if (rank && atoi(rank) == 0)
        stopper = fork_stopper(&plan_fd);
    troupe_options_init(&options);
    options.membership = is_fast ? "fast" : "hpc";
    troupe = test_start(&size, &options);
    if (size > RANKS_MAX)
        MUST(TROUPE_EINVAL);
    atexit(leave_failed); /* mpirun tells nobody of a rank that failed */
    start_burners(troupe);
    give_plan(plan_fd, load_s, is_fast);
    load(troupe, load_s + 2, stopper); /* until the last one goes on */
    (void)test_end(troupe);
    leave();
}
