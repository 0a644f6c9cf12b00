/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * join: processes from other terminals join a running job, have it work for
 * them, and leave again.
 *
 *     terminal 1    mpirun -n 4 ./join   the job: waits for guests
 *     terminal 2    ./join guest         joins, gives work to all, leaves
 *                   ./join stop          joins, and ends the job
 *
 * Both sides need TROUPE_KEY_FILE, the job TROUPE_LISTEN, the guests
 * TROUPE_SEEDS: the README has the whole commands.
 *
 * Shows the list of members, their events, addresses of actors on a certain
 * node and anywhere, and messages between processes that MPI does not connect.
 */
#include <inttypes.h>
#include <string.h>

#include <troupe.h>

#include "must.h"

enum {
    PARTS = 16,
    NUMBERS_A_PART = 25000,
    PRIMES_BELOW_400000 = 33860, /* to check the sum against */
    MEMBERS_MAX = 256,
    RANKS_MAX = 256,
    SOON_MS = 10000,
    JOB_TIMEOUT_MS = 3600000,
};

#define desk_messages(TELL, ASK)                                              \
    TELL(desk, result, (uint64_t node; int32_t begin; int32_t primes;))       \
    ASK(desk, wait, (), (int64_t primes;))
TROUPE_PROTOCOL(desk)

#define worker_messages(TELL, ASK)                                            \
    TELL(worker, count, (desk_ref_t desk; int32_t begin; int32_t end;))
TROUPE_PROTOCOL(worker)

/* Ranks that stay are answered when the door closes. */
#define door_messages(TELL, ASK)                                              \
    ASK(door, stay, (), (int32_t guests;))                                    \
    ASK(door, close, (), (int32_t guests;))
TROUPE_PROTOCOL(door)

/* --- a worker, on every rank of the job ----------------------------------- */

struct worker { int32_t parts; };

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

static int on_count(troupe_self_t *self, struct worker *w,
                    const worker_count_t *part)
{
    desk_result_t result = {
        .node = troupe_node_id(self),
        .begin = part->begin,
        .primes = primes_between(part->begin, part->end),
    };
    int rc = desk_result(self, part->desk, result);

    w->parts++;
    /* Guests come and go; that one is gone is no reason to fail. */
    return rc == TROUPE_ENODE ? 0 : rc;
}

TROUPE_ACTOR(worker, struct worker, .count = on_count)

/* --- the door, on rank 0: tells who comes and goes ------------------------ */

struct door {
    int32_t guests;
    int32_t ranks; /* that stay */
    troupe_token_t staying[RANKS_MAX];
};

static int door_on_start(troupe_self_t *self, struct door *d)
{
    (void)d;
    return troupe_members_watch(self, 0);
}

static int door_on_member(troupe_self_t *self, struct door *d,
                          const troupe_member_event_t *event)
{
    static const char *const what[] = {
        [TROUPE_MEMBER_JOINED] = "joined",
        [TROUPE_MEMBER_SUSPECTED] = "is silent",
        [TROUPE_MEMBER_RECOVERED] = "is back",
        [TROUPE_MEMBER_DIED] = "died",
        [TROUPE_MEMBER_PARTED] = "left",
    };

    (void)self;
    if (event->what >= sizeof(what) / sizeof(what[0]))
        return 0;
    printf("join: %016" PRIx64 " %s\n", event->member.node, what[event->what]);
    fflush(stdout);
    d->guests += event->what == TROUPE_MEMBER_JOINED;
    return 0;
}

/* Guests are let in when all ranks stay: none of them finds the door closed. */
static int door_on_stay(troupe_self_t *self, struct door *d,
                        const door_stay_t *m)
{
    char endpoint[TROUPE_ENDPOINT_MAX];
    int rc;

    (void)m;
    if (d->ranks == RANKS_MAX)
        return TROUPE_ELIMIT;
    d->staying[d->ranks++] = troupe_reply_later(self);
    if (d->ranks < troupe_size(self))
        return 0;
    rc = troupe_endpoint(self, endpoint, sizeof(endpoint));
    if (rc != 0)
        return rc;
    printf("join: %d ranks, open for guests with TROUPE_SEEDS=%s\n", d->ranks,
           endpoint);
    fflush(stdout);
    return 0;
}

static int door_on_close(troupe_self_t *self, struct door *d,
                         const door_close_t *m)
{
    door_stay_result_t result = { d->guests };

    (void)m;
    for (int32_t i = 0; i < d->ranks; i++) /* ENODE: that rank died */
        (void)door_stay_reply_to(self, d->staying[i], result);
    troupe_exit(self);
    return door_close_reply(self, (door_close_result_t){ d->guests });
}

TROUPE_ACTOR(door, struct door, .on_start = door_on_start,
             .on_member = door_on_member, .stay = door_on_stay,
             .close = door_on_close)

/* --- the desk, at a guest: collects results ------------------------------- */

struct desk {
    int32_t results;
    int64_t primes;
    troupe_token_t waiting;
};

static int answer_when_complete(troupe_self_t *self, struct desk *d)
{
    desk_wait_result_t result = { .primes = d->primes };

    if (d->results < PARTS || d->waiting.node == 0)
        return 0;
    return desk_wait_reply_to(self, d->waiting, result);
}

static int desk_on_result(troupe_self_t *self, struct desk *d,
                          const desk_result_t *result)
{
    troupe_member_t member = { .rank = -1 }; /* should it be forgotten */

    (void)troupe_member_get(self, result->node, &member);
    printf("rank %d: %d primes from %d on\n", member.rank, result->primes,
           result->begin);
    d->results++;
    d->primes += result->primes;
    return answer_when_complete(self, d);
}

static int desk_on_wait(troupe_self_t *self, struct desk *d,
                        const desk_wait_t *m)
{
    (void)m;
    d->waiting = troupe_reply_later(self);
    return answer_when_complete(self, d);
}

TROUPE_ACTOR(desk, struct desk, .result = desk_on_result, .wait = desk_on_wait)

/* --- the three roles ------------------------------------------------------ */

/* Every rank of the job waits until somebody closes the door. */
static int run_job(troupe_t *troupe)
{
    door_stay_result_t result;
    worker_ref_t worker;
    door_ref_t door;

    must(worker_spawn(troupe, "worker", NULL, &worker), "spawn the worker");
    if (troupe_rank(troupe) == 0)
        must(door_spawn(troupe, "door", NULL, &door), "spawn the door");
    must(door_resolve(troupe, "actor://rank.0/door", SOON_MS, &door),
         "resolve actor://rank.0/door");
    must(door_stay(troupe, door, (door_stay_t){}, JOB_TIMEOUT_MS, &result),
         "wait for the door to close");
    if (troupe_rank(troupe) == 0)
        printf("join: closed\n");
    return 1;
}

/* Lists who is there, silent just now or not; returns how many they are. */
static size_t look_around(troupe_t *troupe, troupe_member_t *members)
{
    size_t all = troupe_members(troupe, members, MEMBERS_MAX), living = 0;

    if (all > MEMBERS_MAX)
        all = MEMBERS_MAX;
    for (size_t i = 0; i < all; i++) {
        if (members[i].state == TROUPE_MEMBER_DEAD ||
            members[i].state == TROUPE_MEMBER_LEFT)
            continue;
        printf("%016" PRIx64 ": ", members[i].node);
        if (members[i].node == troupe_node_id(troupe))
            printf("this process\n");
        else
            printf("rank %d of job %016" PRIx64 ", %u cores, load %.1f\n",
                   members[i].rank, members[i].job, members[i].cores,
                   (double)members[i].load);
        members[living++] = members[i];
    }
    return living;
}

static int run_guest(troupe_t *troupe)
{
    static troupe_member_t members[MEMBERS_MAX];
    static worker_ref_t workers[MEMBERS_MAX];
    size_t living = look_around(troupe, members), workers_len = 0;
    desk_wait_result_t total;
    desk_ref_t desk;

    for (size_t i = 0; i < living; i++) {
        char address[64];
        int rc;

        snprintf(address, sizeof(address), "actor://%016" PRIx64 "/worker",
                 members[i].node);
        if (members[i].node == troupe_node_id(troupe))
            continue; /* guests have no worker, and so other guests */
        rc = worker_resolve(troupe, address, SOON_MS, &workers[workers_len]);
        if (rc == 0)
            workers_len++;
    }
    if (workers_len == 0)
        must(TROUPE_ENONAME, "find a worker");
    must(desk_spawn(troupe, NULL, NULL, &desk), "spawn the desk");
    for (int32_t i = 0; i < PARTS; i++)
        must(worker_count(troupe, workers[(size_t)i % workers_len],
                          (worker_count_t){ desk, i * NUMBERS_A_PART,
                                            (i + 1) * NUMBERS_A_PART }),
             "give out work");
    must(desk_wait(troupe, desk, (desk_wait_t){}, 60000, &total),
         "wait for the results");
    printf("join: %" PRId64 " primes below %d, from %zu workers\n",
           total.primes, PARTS * NUMBERS_A_PART, workers_len);
    return total.primes == PRIMES_BELOW_400000;
}

static int run_stop(troupe_t *troupe)
{
    door_close_result_t result;
    door_ref_t door;

    must(door_resolve(troupe, "actor:///door", SOON_MS, &door),
         "resolve actor:///door");
    must(door_close(troupe, door, (door_close_t){}, SOON_MS, &result),
         "close the door");
    printf("join: there were %d guests\n", result.guests);
    return 1;
}

int main(int argc, char **argv)
{
    const char *role = argc > 1 ? argv[1] : "";
    const char *variable = *role ? "TROUPE_SEEDS" : "TROUPE_LISTEN";
    troupe_t *troupe;
    int good;

    if (argc > 2 ||
        (*role && strcmp(role, "guest") != 0 && strcmp(role, "stop") != 0)) {
        fprintf(stderr, "usage: join | join guest | join stop\n");
        return EXIT_FAILURE;
    }
    if (getenv(variable) == NULL) {
        fprintf(stderr, "join: set %s; see the README\n", variable);
        return EXIT_FAILURE;
    }
    /* With seeds it returns when this process is a member, or says why not. */
    must(troupe_start(&troupe, NULL), "start");
    if (!*role)
        good = run_job(troupe);
    else if (strcmp(role, "guest") == 0)
        good = run_guest(troupe);
    else
        good = run_stop(troupe);
    must(troupe_stop(&troupe), "stop"); /* the others see us leave */
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
