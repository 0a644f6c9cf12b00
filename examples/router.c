/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * router: one name, an actor of it on every rank, and who gets the calls.
 *
 *     mpirun -n 4 ./router
 *
 * Every rank opens a desk of the same name. Rank 0 calls "actor:///desk" again
 * and again, each time with another policy, and prints which desk answered how
 * often: the nearest one, one after the other, the less busy of two at random,
 * or the one that a key belongs to.
 *
 * Shows resolving by policy, and an actor that is told of names as they come
 * and go.
 */
#include <string.h>

#include <troupe.h>

#include "must.h"

enum {
    CALLS = 240,
    CUSTOMERS = 24, /* keys */
    RANKS_MAX = 256,
    SOON_MS = 10000,
    JOB_TIMEOUT_MS = 60000,
    TRIES_MAX = 20, /* with such a pause in between */
    PAUSE_MS = 500,
};

#define desk_messages(TELL, ASK)                                              \
    ASK(desk, serve, (int32_t customer;), (int32_t rank; int32_t served;))
TROUPE_PROTOCOL(desk)

#define board_messages(TELL, ASK)                                             \
    ASK(board, wait, (int32_t desks;), (int32_t open;))                       \
    TELL(board, close, ())
TROUPE_PROTOCOL(board)

/* --- a desk, on every rank ------------------------------------------------ */

struct desk { int32_t served; };

static int on_serve(troupe_self_t *self, struct desk *d, const desk_serve_t *m)
{
    (void)m;
    d->served++;
    return desk_serve_reply(
        self, (desk_serve_result_t){ troupe_rank(self), d->served });
}

TROUPE_ACTOR(desk, struct desk, .serve = on_serve)

/* --- the board, on rank 0: knows which desks are open ---------------------- */

struct board {
    int32_t open;
    int32_t wanted;
    troupe_token_t waiting;
};

static int board_on_start(troupe_self_t *self, struct board *b)
{
    uint32_t watch;

    (void)b;
    return troupe_names_watch(self, "desk", &watch);
}

static int answer_when_open(troupe_self_t *self, struct board *b)
{
    board_wait_result_t result = { .open = b->open };

    if (b->waiting.node == 0 || b->open < b->wanted)
        return 0;
    return board_wait_reply_to(self, b->waiting, result);
}

static int board_on_name(troupe_self_t *self, struct board *b,
                         const troupe_name_event_t *event)
{
    b->open += event->what == TROUPE_NAME_ADDED ? 1 : -1;
    printf("a desk %s on rank %d\n",
           event->what == TROUPE_NAME_ADDED ? "opened" : "closed",
           troupe_rank_of(self, event->ref.node));
    return answer_when_open(self, b);
}

static int board_on_wait(troupe_self_t *self, struct board *b,
                         const board_wait_t *m)
{
    b->wanted = m->desks;
    b->waiting = troupe_reply_later(self);
    return answer_when_open(self, b);
}

static int board_on_close(troupe_self_t *self, struct board *b,
                          const board_close_t *m)
{
    (void)b, (void)m;
    troupe_exit(self);
    return 0;
}

TROUPE_ACTOR(board, struct board, .on_start = board_on_start,
             .on_name = board_on_name, .wait = board_on_wait,
             .close = board_on_close)

/* --- the calls ------------------------------------------------------------ */

/* Who answered how often. */
struct tally {
    int calls[RANKS_MAX];
    int total;
    int wandered; /* customers that were not always at the same desk */
};

static void call(troupe_t *troupe, uint32_t policy, struct tally *tally)
{
    int desk_of[CUSTOMERS] = { 0 }; /* rank + 1 */

    memset(tally, 0, sizeof(*tally));
    for (int32_t i = 0; i < CALLS; i++) {
        int32_t customer = i % CUSTOMERS;
        troupe_resolve_options_t options = {
            .policy = policy,
            .key = &customer, /* looked at by TROUPE_RESOLVE_HASH alone */
            .key_bytes = sizeof(customer),
        };
        desk_serve_result_t result;
        desk_ref_t desk;

        must(desk_resolve_with(troupe, "actor:///desk", &options, SOON_MS,
                               &desk),
             "resolve actor:///desk");
        must(desk_serve(troupe, desk, (desk_serve_t){ customer }, SOON_MS,
                        &result),
             "serve");
        tally->calls[result.rank]++;
        tally->total++;
        if (desk_of[customer] == 0)
            desk_of[customer] = result.rank + 1;
        tally->wandered += desk_of[customer] != result.rank + 1;
    }
}

static void print(const char *policy, const struct tally *tally, int size)
{
    printf("%-16s", policy);
    for (int i = 0; i < size; i++)
        printf("%8d", tally->calls[i]);
    printf("\n");
}

/* Whether each customer was always at the same desk. */
static int is_faithful(const struct tally *tally, int size)
{
    (void)size;
    return tally->wandered == 0;
}

/* Whether each desk got a like share, and all of them together all calls. */
static int is_even(const struct tally *tally, int size)
{
    int even = tally->total == CALLS;

    for (int i = 0; i < size; i++)
        even &= abs(tally->calls[i] - CALLS / size) <= 1;
    return even;
}

/* While a rank is silent, since it has no core, its desk is passed over. Then
 * the calls are not shared out as they should be, and are made once more. */
static int call_all_desks(troupe_t *troupe, uint32_t policy,
                          struct tally *tally, int size,
                          int (*is_good)(const struct tally *tally, int size))
{
    for (int tries = TRIES_MAX; tries > 0; tries--) {
        call(troupe, policy, tally);
        if (is_good(tally, size))
            return 1;
        troupe_serve(troupe, PAUSE_MS);
    }
    return 0;
}

static int route(troupe_t *troupe, int size)
{
    struct tally tally;
    int good = 1;

    printf("%-16s", "calls to rank");
    for (int i = 0; i < size; i++)
        printf("%8d", i);
    printf("\n");

    call(troupe, TROUPE_RESOLVE_LOCAL_FIRST, &tally);
    print("local first", &tally, size);
    good &= tally.calls[0] == CALLS;

    good &= call_all_desks(troupe, TROUPE_RESOLVE_ROUND_ROBIN, &tally, size,
                           is_even);
    print("round robin", &tally, size);

    call(troupe, TROUPE_RESOLVE_TWO_CHOICES, &tally);
    print("two choices", &tally, size);
    good &= tally.total == CALLS;

    good &= call_all_desks(troupe, TROUPE_RESOLVE_HASH, &tally, size,
                           is_faithful);
    print("hash of a key", &tally, size);
    printf("router: %d customers, each always at the same desk: %s\n",
           CUSTOMERS, tally.wandered == 0 ? "yes" : "no");
    return good;
}

int main(void)
{
    troupe_t *troupe;
    board_ref_t board;
    desk_ref_t desk;
    board_wait_result_t result;
    int rank, size, reason, good = 1;

    must(troupe_start(&troupe, NULL), "start");
    rank = troupe_rank(troupe);
    size = troupe_size(troupe);
    if (size > RANKS_MAX)
        must(TROUPE_ELIMIT, "router: more ranks than RANKS_MAX");
    if (rank == 0)
        must(board_spawn(troupe, "board", NULL, &board), "spawn the board");
    else /* first: the board closes soon after the last desk opens */
        must(board_resolve(troupe, "actor://rank.0/board", SOON_MS, &board),
             "resolve actor://rank.0/board");
    must(desk_spawn(troupe, "desk", NULL, &desk), "spawn a desk");
    if (rank == 0) {
        /* Names travel by themselves; who depends on all of them waits. */
        must(board_wait(troupe, board, (board_wait_t){ size }, SOON_MS,
                        &result),
             "wait for the desks");
        good = route(troupe, size);
        must(board_close(troupe, board, (board_close_t){}), "close");
    }
    /* The desks are open until the board closes. */
    must(troupe_wait_down(troupe, board.ref, JOB_TIMEOUT_MS, &reason),
         "wait for the board");
    must(troupe_stop(&troupe), "stop");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
