/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pingworker: a worker on another node that is found by its name, watched, and
 * created again elsewhere when it ends.
 *
 *     mpirun -n 4 ./pingworker
 *         half way the worker fails: an actor ends, its node goes on
 *     mpirun -n 4 --enable-recovery ./pingworker kill
 *         half way the worker's process is killed: a node dies
 *
 * The keeper, an actor on rank 0, waits until every rank is there, creates the
 * worker and watches it. The program's thread on rank 0 pings it, by its name:
 * it does not know, and need not know, where the worker is.
 *
 * Under --enable-recovery (of Open MPI) mpirun returns 0 whatever happened; the
 * last line tells.
 */
#include <signal.h>
#include <string.h>

#include <troupe.h>

#include "must.h"

enum {
    PINGS = 10,
    END_BEFORE = 6, /* this ping */
    SOON_MS = 10000,
    JOB_TIMEOUT_MS = 60000,
    FAILED_ON_PURPOSE = TROUPE_E_USER - 1,
    CREATE_TRIES_MAX = 16,
    RANKS_MAX = 256,
};

#define worker_messages(TELL, ASK)                                            \
    ASK(worker, ping, (int32_t number;), (int32_t rank; int32_t pings;))      \
    TELL(worker, end, (int32_t with_its_process;))
TROUPE_PROTOCOL(worker)

/* Who asks to stay is answered when all is done. */
#define keeper_messages(TELL, ASK)                                            \
    ASK(keeper, stay, (), (int32_t workers;))                                 \
    ASK(keeper, finish, (), (int32_t workers;))
TROUPE_PROTOCOL(keeper)

/* --- the worker ----------------------------------------------------------- */

struct worker { int32_t pings; };

static int on_ping(troupe_self_t *self, struct worker *w,
                   const worker_ping_t *ping)
{
    (void)ping;
    w->pings++;
    return worker_ping_reply(
        self, (worker_ping_result_t){ troupe_rank(self), w->pings });
}

static int on_end(troupe_self_t *self, struct worker *w, const worker_end_t *m)
{
    (void)self, (void)w;
    if (m->with_its_process)
        raise(SIGKILL);
    return FAILED_ON_PURPOSE; /* fails this actor alone */
}

TROUPE_ACTOR(worker, struct worker, .ping = on_ping, .end = on_end)

/* --- the keeper ----------------------------------------------------------- */

struct keeper {
    troupe_ref_t worker;
    int32_t workers; /* created so far */
    int32_t tries;
    int32_t ranks; /* that stay */
    troupe_token_t staying[RANKS_MAX];
};

static int create_worker(troupe_self_t *self, struct keeper *k);

/* Runs in the keeper when the other node has answered, or could not. */
static int on_created(troupe_self_t *self, void *state, int error,
                      const worker_ref_t *worker, void *arg)
{
    struct keeper *k = state;

    (void)arg;
    if (error == TROUPE_ENODE && ++k->tries < CREATE_TRIES_MAX)
        return create_worker(self, k); /* that node died, too */
    if (error != 0)
        return error;
    k->tries = 0;
    k->workers++;
    k->worker = worker->ref;
    printf("keeper: worker %d is on rank %d\n", k->workers,
           troupe_rank_of(self, worker->ref.node));
    return troupe_monitor(self, k->worker, NULL);
}

/* The first on the last rank, others where there is least to do. */
static int create_worker(troupe_self_t *self, struct keeper *k)
{
    troupe_spawn_options_t options = { .name = "pingworker" };
    troupe_place_t place = { .policy = TROUPE_PLACE_LEAST_LOADED };

    if (k->workers == 0) {
        place.policy = TROUPE_PLACE_RANK;
        place.rank = troupe_size(self) - 1;
    }
    return worker_spawn_at_then(self, &place, &options, NULL, SOON_MS,
                                on_created, NULL);
}

/* The worker stopped (reason 0), failed, or died with its node. */
static int on_down(troupe_self_t *self, struct keeper *k,
                   const troupe_down_t *down)
{
    if (down->reason == 0)
        return 0;
    printf("keeper: worker %d on rank %d is no more: %s\n", k->workers,
           troupe_rank_of(self, down->node),
           down->reason == FAILED_ON_PURPOSE ? "it failed"
                                             : troupe_strerror(down->reason));
    return create_worker(self, k);
}

/* Ranks come when they come. A keeper that is done before the last one has
 * found it would leave that one waiting for nobody: so all are waited for. */
static int create_when_all_stay(troupe_self_t *self, struct keeper *k)
{
    return k->ranks == troupe_size(self) - 1 ? create_worker(self, k) : 0;
}

static int on_stay(troupe_self_t *self, struct keeper *k,
                   const keeper_stay_t *m)
{
    (void)m;
    if (k->ranks == RANKS_MAX)
        return TROUPE_ELIMIT;
    k->staying[k->ranks++] = troupe_reply_later(self);
    return create_when_all_stay(self, k);
}

static int on_finish(troupe_self_t *self, struct keeper *k,
                     const keeper_finish_t *m)
{
    keeper_stay_result_t result = { k->workers };

    (void)m;
    for (int32_t i = 0; i < k->ranks; i++) /* ENODE: it died in the meantime */
        (void)keeper_stay_reply_to(self, k->staying[i], result);
    troupe_exit(self);
    return keeper_finish_reply(self, (keeper_finish_result_t){ k->workers });
}

TROUPE_ACTOR(keeper, struct keeper, .on_start = create_when_all_stay,
             .on_down = on_down, .stay = on_stay, .finish = on_finish)

/* --- main ----------------------------------------------------------------- */

/* Whether a worker that is no more is why this did not work. */
static int is_gone(int rc)
{
    return rc == TROUPE_ENODE || rc == TROUPE_ENOACTOR ||
           rc == TROUPE_EFAILED;
}

/* A name may outlive its actor by some milliseconds: then we look again. */
static void ping(troupe_t *troupe, int number)
{
    worker_ping_result_t result;
    worker_ref_t worker;
    int rc, misses = 0;

    while (1) {
        must(worker_resolve(troupe, "actor:///pingworker", SOON_MS, &worker),
             "resolve actor:///pingworker");
        rc = worker_ping(troupe, worker, (worker_ping_t){ number }, SOON_MS,
                         &result);
        if (rc == 0)
            break;
        if (!is_gone(rc) || misses == SOON_MS)
            must(rc, "ping");
        if (misses++ == 0)
            printf("ping %d: %s; looking for another worker\n", number,
                   troupe_strerror(rc));
        troupe_serve(troupe, 1);
    }
    printf("ping %d: answered by rank %d, the %d. that this worker had\n",
           number, result.rank, result.pings);
}

static int run(troupe_t *troupe, int kill_it)
{
    keeper_finish_result_t result;
    worker_ref_t worker;
    keeper_ref_t keeper;

    must(keeper_spawn(troupe, "keeper", NULL, &keeper), "spawn the keeper");
    for (int number = 1; number <= PINGS; number++) {
        if (number == END_BEFORE) {
            must(worker_resolve(troupe, "actor:///pingworker", SOON_MS,
                                &worker),
                 "resolve actor:///pingworker");
            must(worker_end(troupe, worker, (worker_end_t){ kill_it }), "end");
        }
        ping(troupe, number);
    }
    must(keeper_finish(troupe, keeper, (keeper_finish_t){}, SOON_MS, &result),
         "finish");
    printf("pingworker: %d pings were answered by %d workers\n", PINGS,
           result.workers);
    return result.workers == 2;
}

/* The other ranks are there to be created on, until the keeper is done. */
static int stay(troupe_t *troupe)
{
    keeper_stay_result_t result;
    keeper_ref_t keeper;

    must(keeper_resolve(troupe, "actor://rank.0/keeper", SOON_MS, &keeper),
         "resolve actor://rank.0/keeper");
    must(keeper_stay(troupe, keeper, (keeper_stay_t){}, JOB_TIMEOUT_MS,
                     &result),
         "stay");
    return result.workers == 2;
}

int main(int argc, char **argv)
{
    int kill_it = argc == 2 && strcmp(argv[1], "kill") == 0;
    troupe_t *troupe;
    int good;

    if (argc > 1 && !kill_it) {
        fprintf(stderr, "usage: pingworker [kill]\n");
        return EXIT_FAILURE;
    }
    must(troupe_start(&troupe, NULL), "start");
    if (kill_it && troupe_size(troupe) == 1)
        must(TROUPE_ENODE, "kill: there is no other node to go on");
    good = troupe_rank(troupe) == 0 ? run(troupe, kill_it)
                                    : stay(troupe);
    must(troupe_stop(&troupe), "stop");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
