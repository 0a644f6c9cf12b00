/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * workqueue: jobs of unequal size, handed out on request.
 *
 *     mpirun -n 4 ./workqueue
 *
 * A queue on rank 0 hands jobs to a worker on every rank. Whoever has finished
 * one asks for the next, so nobody waits for the slowest. No tags, no probes,
 * no progress loop: compare it with the same in MPI_Send and MPI_Recv.
 *
 * Shows asking from an actor (_then: the answer comes as a call, the actor
 * stays free meanwhile) and a result with a variable-length part.
 *
 * A job counts the primes in a range of numbers, by trial division: the higher
 * the range, the longer it takes.
 */
#include <inttypes.h>

#include <troupe.h>

#include "must.h"

enum {
    JOBS = 400,
    NUMBERS_A_JOB = 1000,
    PRIMES_BELOW_400000 = 33860, /* to check the sum against */
    WORK_TIMEOUT_MS = 60000,
    RANKS_MAX = 1024,
};

#define queue_messages(TELL, ASK)                                             \
    ASK(queue, next, (), (int32_t job;)) /* -1: nothing left */               \
    TELL(queue, done, (int32_t rank; int32_t primes;))                        \
    ASK(queue, wait, (), (int64_t primes;)) /* answered when all is done */   \
    ASK(queue, shares, (), (int32_t ranks; int32_t jobs[];))
TROUPE_PROTOCOL(queue)

#define worker_messages(TELL, ASK) ASK(worker, wait, (), (int32_t jobs;))
TROUPE_PROTOCOL(worker)

/* --- the queue, on rank 0 ------------------------------------------------- */

struct queue {
    int32_t next_job;
    int32_t jobs_done;
    int64_t primes;
    int32_t jobs_of_rank[RANKS_MAX];
    troupe_token_t waiting;
};

static int queue_on_next(troupe_self_t *self, struct queue *q,
                         const queue_next_t *m)
{
    queue_next_result_t result = { .job = -1 };

    (void)m;
    if (q->next_job < JOBS)
        result.job = q->next_job++;
    return queue_next_reply(self, result);
}

static int answer_when_done(troupe_self_t *self, struct queue *q)
{
    queue_wait_result_t result = { .primes = q->primes };

    if (q->jobs_done < JOBS || q->waiting.node == 0)
        return 0;
    return queue_wait_reply_to(self, q->waiting, result);
}

static int queue_on_done(troupe_self_t *self, struct queue *q,
                         const queue_done_t *done)
{
    if (done->rank < 0 || done->rank >= RANKS_MAX)
        return TROUPE_EINVAL; /* fails this actor, and who waits is told */
    q->jobs_done++;
    q->primes += done->primes;
    q->jobs_of_rank[done->rank]++;
    return answer_when_done(self, q);
}

static int queue_on_wait(troupe_self_t *self, struct queue *q,
                         const queue_wait_t *m)
{
    (void)m;
    q->waiting = troupe_reply_later(self);
    return answer_when_done(self, q);
}

/* A result that ends in an array is built in place, then moved. */
static int queue_on_shares(troupe_self_t *self, struct queue *q,
                           const queue_shares_t *m)
{
    int32_t ranks = troupe_size(self);
    queue_shares_result_t *result =
        queue_shares_result_new(self, ranks * sizeof(result->jobs[0]));
    int rc;

    (void)m;
    if (!result)
        return TROUPE_ENOMEM;
    result->ranks = ranks;
    for (int32_t i = 0; i < ranks; i++)
        result->jobs[i] = q->jobs_of_rank[i];
    rc = troupe_reply_send(self, result);
    if (rc != 0)
        troupe_drop(result); /* what could not be sent is still ours */
    return rc;
}

TROUPE_ACTOR(queue, struct queue, .next = queue_on_next, .done = queue_on_done,
             .wait = queue_on_wait, .shares = queue_on_shares)

/* --- a worker, on every rank ---------------------------------------------- */

struct worker {
    queue_ref_t queue;
    int32_t jobs;
    int32_t idle; /* the queue has nothing left */
    troupe_token_t waiting;
};

static int32_t primes_between(int32_t begin, int32_t end)
{
    int32_t primes = 0;

    for (int32_t n = begin < 2 ? 2 : begin; n < end; n++) {
        int32_t d = 2;

        while (d * d <= n && n % d != 0)
            d++;
        primes += d * d > n;
    }
    return primes;
}

static int say_when_idle(troupe_self_t *self, struct worker *w)
{
    worker_wait_result_t result = { .jobs = w->jobs };

    if (!w->idle || w->waiting.node == 0)
        return 0;
    return worker_wait_reply_to(self, w->waiting, result);
}

static int ask_for_job(troupe_self_t *self, struct worker *w);

/* Runs in this actor, like a handler, when the queue has answered or could
 * not: an error is why there is no job. Returning it fails this worker. */
static int on_job(troupe_self_t *self, void *state, int error,
                  const queue_next_result_t *next, void *arg)
{
    struct worker *w = state;
    queue_done_t done = { .rank = troupe_rank(self) };
    int rc;

    (void)arg;
    if (error != 0)
        return error;
    if (next->job < 0) {
        w->idle = 1;
        return say_when_idle(self, w);
    }
    done.primes = primes_between(next->job * NUMBERS_A_JOB,
                                 (next->job + 1) * NUMBERS_A_JOB);
    w->jobs++;
    rc = queue_done(self, w->queue, done);
    return rc != 0 ? rc : ask_for_job(self, w);
}

static int ask_for_job(troupe_self_t *self, struct worker *w)
{
    return queue_next_then(self, w->queue, (queue_next_t){}, WORK_TIMEOUT_MS,
                           on_job, NULL);
}

static int worker_on_wait(troupe_self_t *self, struct worker *w,
                          const worker_wait_t *m)
{
    (void)m;
    w->waiting = troupe_reply_later(self);
    return say_when_idle(self, w);
}

TROUPE_ACTOR(worker, struct worker, .on_start = ask_for_job,
             .wait = worker_on_wait)

/* --- main ----------------------------------------------------------------- */

/* Prints who did how many; 1 when the sum is right. */
static int report(troupe_t *troupe, queue_ref_t queue)
{
    queue_wait_result_t total;
    const queue_shares_result_t *shares;

    must(queue_wait(troupe, queue, (queue_wait_t){}, WORK_TIMEOUT_MS, &total),
         "wait for the queue");
    must(queue_shares_take(troupe, queue, (queue_shares_t){}, 10000, &shares),
         "ask for the shares");
    for (int32_t i = 0; i < shares->ranks; i++)
        printf("rank %d did %d of %d jobs\n", i, shares->jobs[i], JOBS);
    troupe_drop(shares);
    printf("workqueue: %" PRId64 " primes below %d\n", total.primes,
           JOBS * NUMBERS_A_JOB);
    return total.primes == PRIMES_BELOW_400000;
}

int main(void)
{
    troupe_t *troupe;
    queue_ref_t queue;
    worker_ref_t worker;
    worker_wait_result_t mine;
    int rank, right = 1;

    must(troupe_start(&troupe, NULL), "start");
    rank = troupe_rank(troupe);
    if (troupe_size(troupe) > RANKS_MAX)
        must(TROUPE_ELIMIT, "workqueue: more ranks than RANKS_MAX");
    if (rank == 0)
        must(queue_spawn(troupe, "queue", NULL, &queue), "spawn");
    must(queue_resolve(troupe, "actor://rank.0/queue", 10000, &queue),
         "resolve actor://rank.0/queue");
    must(worker_spawn(troupe, NULL, &(struct worker){ .queue = queue },
                      &worker),
         "spawn");

    /* A thread that waits in a troupe call helps its node's actors. */
    must(worker_wait(troupe, worker, (worker_wait_t){}, WORK_TIMEOUT_MS, &mine),
         "wait for this rank's worker");
    if (rank == 0)
        right = report(troupe, queue);
    must(troupe_stop(&troupe), "stop");
    return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
