/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mixed: a solver in plain MPI, watched and steered by actors while it runs.
 *
 *     mpirun -n 4 ./mixed
 *
 * Heat spreads over a square plate whose upper edge is hot. Each rank has some
 * rows of it, and exchanges those at its borders with its neighbours: Jacobi
 * steps, MPI_Sendrecv, as ever. The solver's loop knows two things of troupe:
 *
 *     every REPORT_STEPS   each rank tells `monitor` about its rows, and goes
 *                          on: there is no MPI_Allreduce for it
 *     every ORDER_STEPS    rank 0 looks whether `steering` was told to change
 *                          something, and MPI_Bcast makes all ranks do so at
 *                          the same step
 *
 * The monitor, on the last rank, adds up what the ranks tell. The operator asks
 * it for the next complete row of the table, and decides: somewhat later it
 * raises the diffusivity, and at last it stops the solver. It is an actor as
 * well; it could be one of another job that joins and leaves (join.c).
 *
 * At the end rank 0 does the same steps alone and compares: the operator's
 * orders came whenever they came, but the plate is the same to the last bit.
 */
#include <math.h>
#include <mpi.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include <troupe.h>

#include "must.h"

enum {
    SIDE = 128,           /* cells, without the edges */
    WIDTH = SIDE + 2,
    ORDER_STEPS = 50,     /* between looks for orders */
    REPORT_STEPS = 500,   /* between reports: a multiple of it */
    ROWS_HEATED = 4,      /* rows of the table before more diffusivity, */
    ROWS_IN_ALL = 10,     /* before the end */
    ROWS_IN_FLIGHT = 256, /* of the table, not yet told by all ranks */
    CHANGES_MAX = 8,
    TIMEOUT_MS = 60000,
};

static const double hot = 100.0;
static const double diffusivity_first = 0.10;
static const double diffusivity_later = 0.24; /* stable up to 0.25 */

/* A row of the table: of one rank's cells, or of all. */
typedef struct heat {
    int64_t step;
    int64_t cells;
    double sum, coldest, hottest;
    double diffusivity;
} heat_t;

#define monitor_messages(TELL, ASK)                                           \
    TELL(monitor, part, (heat_t heat;))                                       \
    ASK(monitor, next, (int64_t after;), (heat_t heat;)) /* when it is there */
TROUPE_PROTOCOL(monitor)

#define steering_messages(TELL, ASK)                                          \
    TELL(steering, diffusivity, (double value;))                              \
    TELL(steering, stop, ())
TROUPE_PROTOCOL(steering)

#define operator_messages(TELL, ASK) ASK(operator, wait, (), (int32_t rows;))
TROUPE_PROTOCOL(operator)

/* --- the monitor, on the last rank ---------------------------------------- */

struct monitor {
    int64_t cells; /* of all ranks */
    heat_t rows[ROWS_IN_FLIGHT];
    heat_t newest; /* that is complete */
    int64_t after; /* the next one is wanted, behind this step, */
    troupe_token_t waiting; /* by this one */
};

static int answer_if_there(troupe_self_t *self, struct monitor *m)
{
    monitor_next_result_t result = { .heat = m->newest };
    troupe_token_t waiting = m->waiting;

    if (waiting.node == 0 || m->newest.step <= m->after)
        return 0;
    m->waiting = (troupe_token_t){ .node = 0 };
    return monitor_next_reply_to(self, waiting, result);
}

static int on_part(troupe_self_t *self, struct monitor *m,
                   const monitor_part_t *part)
{
    const heat_t *heat = &part->heat;
    heat_t *row = &m->rows[heat->step / REPORT_STEPS % ROWS_IN_FLIGHT];

    if (row->step > heat->step)
        return 0; /* so late that its row was given up */
    if (row->step < heat->step)
        *row = (heat_t){
            .step = heat->step,
            .coldest = heat->coldest,
            .hottest = heat->hottest,
            .diffusivity = heat->diffusivity,
        };
    row->cells += heat->cells;
    row->sum += heat->sum;
    row->coldest = fmin(row->coldest, heat->coldest);
    row->hottest = fmax(row->hottest, heat->hottest);
    if (row->cells == m->cells && row->step > m->newest.step)
        m->newest = *row;
    return answer_if_there(self, m);
}

static int on_next(troupe_self_t *self, struct monitor *m,
                   const monitor_next_t *next)
{
    m->after = next->after;
    m->waiting = troupe_reply_later(self);
    return answer_if_there(self, m);
}

TROUPE_ACTOR(monitor, struct monitor, .part = on_part, .next = on_next)

/* --- steering, on rank 0 --------------------------------------------------- */

/* What all ranks are to do, from the same step on. */
struct orders {
    double diffusivity;
    int64_t stop;
};

/* Between the actor and the solver's thread. */
struct desk {
    pthread_mutex_t lock;
    struct orders orders;
    time_t end; /* nobody steers any more */
};

struct steering {
    struct desk *desk;
};

static int on_diffusivity(troupe_self_t *self, struct steering *s,
                          const steering_diffusivity_t *m)
{
    (void)self;
    if (!(m->value > 0 && m->value <= 0.25))
        return TROUPE_EINVAL; /* fails this actor: who steers is told */
    pthread_mutex_lock(&s->desk->lock);
    s->desk->orders.diffusivity = m->value;
    pthread_mutex_unlock(&s->desk->lock);
    return 0;
}

static int on_stop_order(troupe_self_t *self, struct steering *s,
                         const steering_stop_t *m)
{
    (void)self, (void)m;
    pthread_mutex_lock(&s->desk->lock);
    s->desk->orders.stop = 1;
    pthread_mutex_unlock(&s->desk->lock);
    return 0;
}

TROUPE_ACTOR(steering, struct steering, .diffusivity = on_diffusivity,
             .stop = on_stop_order)

/* --- the operator, on the last rank ---------------------------------------- */

struct operator {
    monitor_ref_t monitor;
    steering_ref_t steering;
    int32_t rows;
    troupe_token_t waiting; /* for the end */
};

static int answer_at_the_end(troupe_self_t *self, struct operator *o)
{
    operator_wait_result_t result = { .rows = o->rows };

    if (o->rows < ROWS_IN_ALL || o->waiting.node == 0)
        return 0;
    return operator_wait_reply_to(self, o->waiting, result);
}

static int watch(troupe_self_t *self, struct operator *o, int64_t after);

static int on_row(troupe_self_t *self, void *state, int error,
                  const monitor_next_result_t *next, void *arg)
{
    struct operator *o = state;
    const heat_t *heat = &next->heat;
    int rc = 0;

    (void)arg;
    if (error != 0)
        return error;
    printf("%8lld %8.3f %8.3f %8.3f %12.2f\n", (long long)heat->step,
           heat->coldest, heat->sum / (double)heat->cells, heat->hottest,
           heat->diffusivity);
    fflush(stdout);
    o->rows++;
    if (o->rows == ROWS_HEATED)
        rc = steering_diffusivity(
            self, o->steering,
            (steering_diffusivity_t){ .value = diffusivity_later });
    else if (o->rows == ROWS_IN_ALL)
        rc = steering_stop(self, o->steering, (steering_stop_t){});
    if (rc == 0 && o->rows < ROWS_IN_ALL)
        rc = watch(self, o, heat->step);
    return rc != 0 ? rc : answer_at_the_end(self, o);
}

static int watch(troupe_self_t *self, struct operator *o, int64_t after)
{
    return monitor_next_then(self, o->monitor,
                             (monitor_next_t){ .after = after }, TIMEOUT_MS,
                             on_row, NULL);
}

static int operator_on_start(troupe_self_t *self, struct operator *o)
{
    printf("%8s %8s %8s %8s %12s\n", "step", "coldest", "mean", "hottest",
           "diffusivity");
    return watch(self, o, 0);
}

static int operator_on_wait(troupe_self_t *self, struct operator *o,
                            const operator_wait_t *m)
{
    (void)m;
    o->waiting = troupe_reply_later(self);
    return answer_at_the_end(self, o);
}

TROUPE_ACTOR(operator, struct operator, .on_start = operator_on_start,
             .wait = operator_on_wait)

/* --- the solver: plain MPI ------------------------------------------------- */

/* Some rows of the plate, with one more above and below: a neighbour's, or the
 * edge. */
struct slab {
    int rows;
    double (*now)[WIDTH];
    double (*next)[WIDTH];
};

struct solver {
    troupe_t *troupe;
    int rank, ranks;
    struct slab slab;
    struct desk desk; /* rank 0's orders */
    monitor_ref_t monitor;
    int64_t steps;
    struct orders orders;
    int changes_len; /* what was done: for the serial solution */
    struct {
        int64_t step;
        double diffusivity;
    } changes[CHANGES_MAX];
};

static int rows_of(int rank, int ranks)
{
    return SIDE / ranks + (rank < SIDE % ranks);
}

static void slab_init(struct slab *slab, int rows, int is_at_top)
{
    size_t bytes = sizeof(double[WIDTH]) * (size_t)(rows + 2);

    slab->rows = rows;
    slab->now = calloc(1, bytes);
    slab->next = calloc(1, bytes);
    must(slab->now && slab->next ? 0 : TROUPE_ENOMEM, "allocate the plate");
    for (int x = 0; is_at_top && x < WIDTH; x++)
        slab->now[0][x] = slab->next[0][x] = hot;
}

static void slab_fini(struct slab *slab)
{
    free(slab->now);
    free(slab->next);
}

static void slab_step(struct slab *slab, double diffusivity)
{
    double(*swap)[WIDTH] = slab->now;

    for (int y = 1; y <= slab->rows; y++)
        for (int x = 1; x <= SIDE; x++) {
            double here = slab->now[y][x];
            double around = slab->now[y - 1][x] + slab->now[y + 1][x] +
                            slab->now[y][x - 1] + slab->now[y][x + 1];

            slab->next[y][x] = here + diffusivity * (around - 4 * here);
        }
    slab->now = slab->next;
    slab->next = swap;
}

static void exchange_halo(struct solver *s)
{
    struct slab *slab = &s->slab;
    int above = s->rank > 0 ? s->rank - 1 : MPI_PROC_NULL;
    int below = s->rank + 1 < s->ranks ? s->rank + 1 : MPI_PROC_NULL;

    if (s->ranks == 1)
        return; /* alone, we may have been started without MPI */
    MPI_Sendrecv(slab->now[1], WIDTH, MPI_DOUBLE, above, 0,
                 slab->now[slab->rows + 1], WIDTH, MPI_DOUBLE, below, 0,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Sendrecv(slab->now[slab->rows], WIDTH, MPI_DOUBLE, below, 1,
                 slab->now[0], WIDTH, MPI_DOUBLE, above, 1, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
}

/* All ranks get the same orders for the same step. */
static void take_orders(struct solver *s)
{
    double before = s->orders.diffusivity;

    if (s->rank == 0) {
        pthread_mutex_lock(&s->desk.lock);
        s->orders = s->desk.orders;
        pthread_mutex_unlock(&s->desk.lock);
        s->orders.stop |= time(NULL) > s->desk.end;
    }
    if (s->ranks > 1)
        MPI_Bcast(&s->orders, sizeof(s->orders), MPI_BYTE, 0, MPI_COMM_WORLD);
    if (s->steps > 0 && s->orders.diffusivity == before)
        return;
    if (s->changes_len == CHANGES_MAX)
        must(TROUPE_ELIMIT, "change the diffusivity");
    s->changes[s->changes_len].step = s->steps;
    s->changes[s->changes_len++].diffusivity = s->orders.diffusivity;
}

/* A message, and no wait for an answer; while the monitor is far behind, this
 * waits until it has room. */
static void report(struct solver *s)
{
    heat_t heat = {
        .step = s->steps,
        .cells = (int64_t)s->slab.rows * SIDE,
        .coldest = INFINITY,
        .hottest = -INFINITY,
        .diffusivity = s->orders.diffusivity,
    };

    for (int y = 1; y <= s->slab.rows; y++)
        for (int x = 1; x <= SIDE; x++) {
            double here = s->slab.now[y][x];

            heat.sum += here;
            heat.coldest = fmin(heat.coldest, here);
            heat.hottest = fmax(heat.hottest, here);
        }
    must(monitor_part(s->troupe, s->monitor, (monitor_part_t){ .heat = heat }),
         "tell the monitor");
}

static void solve(struct solver *s)
{
    for (;;) {
        if (s->steps % ORDER_STEPS == 0)
            take_orders(s);
        if (s->orders.stop)
            return;
        exchange_halo(s);
        slab_step(&s->slab, s->orders.diffusivity);
        s->steps++;
        if (s->steps % REPORT_STEPS == 0)
            report(s);
    }
}

/* --- the same, alone ------------------------------------------------------- */

/* On rank 0: all rows of all ranks. */
static double *gather(const struct solver *s)
{
    int *counts = calloc((size_t)s->ranks * 2, sizeof(*counts));
    int *places = counts + s->ranks;
    double *plate = calloc((size_t)SIDE * WIDTH, sizeof(*plate));

    must(counts && plate ? 0 : TROUPE_ENOMEM, "gather the plate");
    for (int i = 0, y = 0; i < s->ranks; i++) {
        counts[i] = rows_of(i, s->ranks) * WIDTH;
        places[i] = y * WIDTH;
        y += rows_of(i, s->ranks);
    }
    if (s->ranks > 1)
        MPI_Gatherv(s->slab.now[1], s->slab.rows * WIDTH, MPI_DOUBLE, plate,
                    counts, places, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    else
        memcpy(plate, s->slab.now[1], sizeof(double[WIDTH]) * SIDE);
    free(counts);
    return plate;
}

/* Returns the largest difference of a cell. */
static double compare_with_serial(const struct solver *s, const double *plate)
{
    struct slab alone;
    double difference = 0, diffusivity = 0;
    int change = 0;

    slab_init(&alone, SIDE, 1);
    for (int64_t step = 0; step < s->steps; step++) {
        if (change < s->changes_len && s->changes[change].step == step)
            diffusivity = s->changes[change++].diffusivity;
        slab_step(&alone, diffusivity);
    }
    for (int y = 0; y < SIDE; y++)
        for (int x = 1; x <= SIDE; x++)
            difference = fmax(difference, fabs(plate[y * WIDTH + x] -
                                               alone.now[y + 1][x]));
    slab_fini(&alone);
    return difference;
}

/* --- main ------------------------------------------------------------------ */

/* Returns the operator, on the last rank. */
static operator_ref_t spawn_actors(struct solver *s)
{
    struct steering steering = { .desk = &s->desk };
    struct operator operator = { .rows = 0 };
    operator_ref_t ref = { 0 };

    if (s->rank == 0)
        must(steering_spawn(s->troupe, "steering", &steering,
                            &operator.steering),
             "spawn steering");
    if (s->rank == s->ranks - 1)
        must(monitor_spawn(s->troupe, "monitor",
                           &(struct monitor){ .cells = SIDE * SIDE },
                           &s->monitor),
             "spawn the monitor");
    must(monitor_resolve(s->troupe, "actor:///monitor", TIMEOUT_MS,
                         &s->monitor),
         "find the monitor");
    if (s->rank == s->ranks - 1) {
        must(steering_resolve(s->troupe, "actor:///steering", TIMEOUT_MS,
                              &operator.steering),
             "find steering");
        operator.monitor = s->monitor;
        must(operator_spawn(s->troupe, NULL, &operator, &ref),
             "spawn the operator");
    }
    return ref;
}

/* Rank 0's verdict; the last rank waits for the operator's last word. */
static int finish(struct solver *s, operator_ref_t operator)
{
    operator_wait_result_t end;
    double *plate = gather(s), difference = 0;
    int right = 1;

    if (s->rank == s->ranks - 1)
        must(operator_wait(s->troupe, operator, (operator_wait_t){},
                           TIMEOUT_MS, &end),
             "wait for the operator");
    if (s->rank == 0) {
        difference = compare_with_serial(s, plate);
        right = difference == 0 && s->changes_len == 2;
        printf("mixed: %s, %lld steps on %d ranks, diffusivity %.2f from step "
               "%lld on; serial solution differs by %g\n",
               right ? "ok" : "FAILED", (long long)s->steps, s->ranks,
               s->orders.diffusivity,
               (long long)s->changes[s->changes_len - 1].step, difference);
    }
    free(plate);
    return right;
}

int main(void)
{
    static struct solver s = { .desk = { .lock = PTHREAD_MUTEX_INITIALIZER } };
    troupe_stats_t stats;
    operator_ref_t operator;
    int right;

    must(troupe_start(&s.troupe, NULL), "start");
    s.rank = troupe_rank(s.troupe);
    s.ranks = troupe_size(s.troupe);
    troupe_stats(s.troupe, &stats);
    /* While the solver computes, only worker threads serve its actors. */
    if (stats.workers == 0)
        must(TROUPE_EOPTION, "mixed needs at least one worker");
    if (s.ranks > SIDE)
        must(TROUPE_ELIMIT, "mixed: more ranks than rows");
    s.desk.orders.diffusivity = diffusivity_first;
    s.desk.end = time(NULL) + TIMEOUT_MS / 1000;
    slab_init(&s.slab, rows_of(s.rank, s.ranks), s.rank == 0);
    operator = spawn_actors(&s);
    solve(&s);
    right = finish(&s, operator);
    must(troupe_stop(&s.troupe), "stop");
    slab_fini(&s.slab);
    return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
