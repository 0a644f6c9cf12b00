/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hello: an actor on every rank says hello to the one on rank 0.
 *
 *     mpirun -n 4 ./hello
 *
 * Shows the life of an actor (on_start, its state, troupe_exit), sending from
 * an actor, and an answer that is given later: the main thread of rank 0 asks
 * the greeter to tell it when everybody has been there.
 */
#include <unistd.h>

#include <troupe.h>

#include "must.h"

#define greeter_messages(TELL, ASK)                                           \
    TELL(greeter, hello, (int32_t rank; int32_t pid;))                        \
    ASK(greeter, wait_for, (int32_t visitors;), (int32_t greeted;))
TROUPE_PROTOCOL(greeter)

/* --- the greeter, on rank 0 ----------------------------------------------- */

struct greeter {
    int32_t greeted;
    int32_t wanted;
    troupe_token_t waiting; /* the right to answer the ask of wait_for */
};

static int answer_when_complete(troupe_self_t *self, struct greeter *g)
{
    greeter_wait_for_result_t result = { .greeted = g->greeted };

    if (g->wanted == 0 || g->greeted < g->wanted)
        return 0;
    return greeter_wait_for_reply_to(self, g->waiting, result);
}

static int greeter_on_hello(troupe_self_t *self, struct greeter *g,
                            const greeter_hello_t *hello)
{
    printf("hello from rank %d, process %d\n", hello->rank, hello->pid);
    g->greeted++;
    return answer_when_complete(self, g);
}

/* Nothing waits here: the handler returns, and the asker gets its answer
 * when the last hello has come. */
static int greeter_on_wait_for(troupe_self_t *self, struct greeter *g,
                               const greeter_wait_for_t *m)
{
    g->wanted = m->visitors;
    g->waiting = troupe_reply_later(self);
    return answer_when_complete(self, g);
}

TROUPE_ACTOR(greeter, struct greeter, .hello = greeter_on_hello,
             .wait_for = greeter_on_wait_for)

/* --- a visitor, on every rank --------------------------------------------- */

/* It is sent nothing, but a protocol has at least one message. */
#define visitor_messages(TELL, ASK) TELL(visitor, leave, ())
TROUPE_PROTOCOL(visitor)

struct visitor {
    greeter_ref_t greeter; /* a ref is a value: it may lie in a state, ... */
};

static int visitor_on_start(troupe_self_t *self, struct visitor *v)
{
    greeter_hello_t hello = {
        .rank = troupe_rank(self),
        .pid = getpid(),
    };
    int rc = greeter_hello(self, v->greeter, hello); /* ... or in a message */

    troupe_exit(self); /* stops this actor when the handler returns */
    return rc;
}

TROUPE_ACTOR(visitor, struct visitor, .on_start = visitor_on_start)

int main(void)
{
    troupe_t *troupe;
    greeter_ref_t greeter;
    visitor_ref_t visitor;
    greeter_wait_for_result_t result = { 0 };
    int rank, size;

    must(troupe_start(&troupe, NULL), "start");
    rank = troupe_rank(troupe);
    size = troupe_size(troupe);

    if (rank == 0)
        must(greeter_spawn(troupe, "greeter", NULL, &greeter), "spawn");
    must(greeter_resolve(troupe, "actor://rank.0/greeter", 10000, &greeter),
         "resolve actor://rank.0/greeter");
    must(visitor_spawn(troupe, NULL, &(struct visitor){ greeter }, &visitor),
         "spawn");

    if (rank == 0) {
        must(greeter_wait_for(troupe, greeter,
                              (greeter_wait_for_t){ .visitors = size }, 10000,
                              &result),
             "wait for the visitors");
        printf("hello: %d of %d ranks said hello\n", result.greeted, size);
    }
    must(troupe_stop(&troupe), "stop");
    return rank != 0 || result.greeted == size ? EXIT_SUCCESS : EXIT_FAILURE;
}
