/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What can go wrong between ranks, each with its named error: rank 0 tries it
 * on rank 1, which sits in MPI_Recv meanwhile.
 */
#include <stdatomic.h>
#include <unistd.h>

#include "test.h"

enum { SMALL_MAILBOX = 4, PUTS = 40, SHORT_MS = 200 };

#define odd_messages(TELL, ASK)                                               \
    TELL(odd, put, (int64_t value;))                                          \
    ASK(odd, count, (), (int64_t count;))                                     \
    ASK(odd, refuse, (int32_t error;), (int32_t unused;))                     \
    ASK(odd, crash, (int32_t error;), (int32_t unused;))                      \
    ASK(odd, silent, (), (int32_t unused;))                                   \
    ASK(odd, never, (), (int32_t unused;))                                    \
    ASK(odd, unhandled, (), (int32_t unused;))                                \
    TELL(odd, block, ())
TROUPE_PROTOCOL(odd)

struct odd {
    int64_t count;
};

static atomic_int blocked, released;

static int on_put(troupe_self_t *self, struct odd *o, const odd_put_t *m)
{
    (void)self, (void)m;
    o->count++;
    return 0;
}

static int on_count(troupe_self_t *self, struct odd *o, const odd_count_t *m)
{
    (void)m;
    return odd_count_reply(self, (odd_count_result_t){ o->count });
}

static int on_refuse(troupe_self_t *self, struct odd *o, const odd_refuse_t *m)
{
    (void)o;
    return troupe_reply_error(self, m->error);
}

static int on_crash(troupe_self_t *self, struct odd *o, const odd_crash_t *m)
{
    (void)self, (void)o;
    return m->error;
}

static int on_silent(troupe_self_t *self, struct odd *o, const odd_silent_t *m)
{
    (void)self, (void)o, (void)m;
    return 0;
}

static int on_never(troupe_self_t *self, struct odd *o, const odd_never_t *m)
{
    (void)o, (void)m;
    troupe_reply_later(self);
    return 0;
}

/* A handler must not do this; here it makes a mailbox that stays full. */
static int on_block(troupe_self_t *self, struct odd *o, const odd_block_t *m)
{
    double end = test_now_ms() + TEST_SOON_MS;

    (void)self, (void)o, (void)m;
    atomic_store(&blocked, 1);
    while (!atomic_load(&released) && test_now_ms() < end)
        usleep(1000);
    return atomic_load(&released) ? 0 : TROUPE_ETIMEDOUT;
}

TROUPE_ACTOR(odd, struct odd, .put = on_put, .count = on_count,
             .refuse = on_refuse, .crash = on_crash, .silent = on_silent,
             .never = on_never, .block = on_block)

/* --- an actor on rank 0 that is told of what was not delivered ---------- */

#define teller_messages(TELL, ASK)                                            \
    TELL(teller, tell, (odd_ref_t to; int32_t times;))                        \
    ASK(teller, refusals, (), (int32_t refusals; int32_t reason;))
TROUPE_PROTOCOL(teller)

struct teller {
    int32_t refusals, reason;
};

static int on_tell(troupe_self_t *self, struct teller *t,
                   const teller_tell_t *m)
{
    (void)t;
    for (int32_t i = 0; i < m->times; i++)
        CHECK_EQ(odd_put(self, m->to, (odd_put_t){ i }), 0);
    return 0;
}

static int on_refusals(troupe_self_t *self, struct teller *t,
                       const teller_refusals_t *m)
{
    (void)m;
    return teller_refusals_reply(
        self, (teller_refusals_result_t){ t->refusals, t->reason });
}

static int on_undelivered(troupe_self_t *self, struct teller *t,
                          const troupe_dead_letter_t *letter)
{
    (void)self;
    t->refusals++;
    t->reason = letter->reason;
    return 0;
}

TROUPE_ACTOR(teller, struct teller, .tell = on_tell, .refusals = on_refusals,
             .on_undelivered = on_undelivered)

/* --- rank 0 --------------------------------------------------------------- */

static odd_ref_t find(troupe_t *troupe, const char *name)
{
    char address[TEST_ADDRESS_BYTES];
    odd_ref_t odd;

    MUST(odd_resolve(troupe, test_address(address, 1, name), TEST_SOON_MS,
                     &odd));
    return odd;
}

static void check_replies(troupe_t *troupe, odd_ref_t odd)
{
    CHECK_EQ(odd_refuse(troupe, odd, (odd_refuse_t){ TROUPE_E_USER - 5 },
                        TEST_SOON_MS, NULL),
             TROUPE_E_USER - 5);
    CHECK_EQ(odd_silent(troupe, odd, (odd_silent_t){}, TEST_SOON_MS, NULL),
             TROUPE_ENOREPLY);
    CHECK_EQ(odd_unhandled(troupe, odd, (odd_unhandled_t){}, TEST_SOON_MS,
                           NULL),
             TROUPE_ETYPE);
    CHECK_EQ(odd_never(troupe, odd, (odd_never_t){}, SHORT_MS, NULL),
             TROUPE_ETIMEDOUT);
}

/* What a program built from another declaration would send. */
static void check_types(troupe_t *troupe, odd_ref_t odd)
{
    static troupe_type_t types[] = {
        { "odd.put", "(double value;)", NULL, sizeof(double), 0, 0, 0, 0 },
        { "odd.count", "()", "(double count;)", 0, sizeof(double), 0, 1, 0 },
    };
    static troupe_protocol_t other = { "odd", types, 2, 0 };
    char address[TEST_ADDRESS_BYTES];
    troupe_ref_t ref;
    double count;

    CHECK_EQ(troupe_ask(troupe, odd.ref, &types[1], NULL, 0, TEST_SOON_MS,
                        &count),
             TROUPE_ETYPE);
    CHECK_EQ(troupe_resolve(troupe, test_address(address, 1, "odd"), &other,
                            TEST_SOON_MS, &ref),
             TROUPE_ETYPE);
}

static void check_addresses(troupe_t *troupe, odd_ref_t odd, int size)
{
    char address[TEST_ADDRESS_BYTES];
    odd_ref_t none;

    CHECK_EQ(odd_resolve(troupe, test_address(address, 1, "absent"), SHORT_MS,
                         &none),
             TROUPE_ENONAME);
    CHECK_EQ(odd_resolve(troupe, test_address(address, size, "odd"), SHORT_MS,
                         &none),
             TROUPE_ENODE);
    CHECK_EQ(odd_resolve(troupe, "actor://rank.-1/odd", SHORT_MS, &none),
             TROUPE_EADDRESS);
    none = odd;
    none.ref.node ^= 1;
    CHECK_EQ(odd_count(troupe, none, (odd_count_t){}, TEST_SOON_MS, NULL),
             TROUPE_ENODE);
    none = odd;
    none.ref.generation += 7;
    CHECK_EQ(odd_count(troupe, none, (odd_count_t){}, TEST_SOON_MS, NULL),
             TROUPE_ENOACTOR);
    none.ref.slot = 0xfffffffe;
    CHECK_EQ(odd_count(troupe, none, (odd_count_t){}, TEST_SOON_MS, NULL),
             TROUPE_ENOACTOR);
}

static troupe_dead_letter_t next_dead_letter(troupe_t *troupe)
{
    troupe_dead_letter_t letter = { .reason = 0 };
    double end = test_now_ms() + TEST_SOON_MS;

    while (troupe_dead_letters_take(troupe, &letter, 1) == 0 &&
           test_now_ms() < end)
        troupe_serve(troupe, 1);
    return letter;
}

static void check_failed_and_stopped(troupe_t *troupe, odd_ref_t crashes,
                                     odd_ref_t stops)
{
    troupe_dead_letter_t letter;
    int rc;

    CHECK_EQ(odd_crash(troupe, crashes, (odd_crash_t){ TROUPE_E_USER - 1 },
                       TEST_SOON_MS, NULL),
             TROUPE_EFAILED);
    CHECK_EQ(odd_count(troupe, crashes, (odd_count_t){}, TEST_SOON_MS, NULL),
             TROUPE_ENOACTOR);
    CHECK_EQ(troupe_stop_actor(troupe, stops.ref), 0);
    CHECK_EQ(odd_count(troupe, stops, (odd_count_t){}, TEST_SOON_MS, NULL),
             TROUPE_ENOACTOR);
    /* An ask's failure was told to its asker; take what else there is. */
    while (troupe_dead_letters_take(troupe, &letter, 1) == 1)
        ;
    rc = odd_put(troupe, stops, (odd_put_t){ 1 });
    CHECK_EQ(rc, 0); /* it is gone already, and we cannot know */
    letter = next_dead_letter(troupe);
    CHECK_EQ(letter.reason, TROUPE_ENOACTOR);
    CHECK_EQ(letter.is_ask, 0);
    CHECK(troupe_ref_equal(letter.to, stops.ref));
}

static void check_full(troupe_t *troupe, odd_ref_t small)
{
    teller_ref_t teller;
    teller_refusals_result_t refused = { 0 };
    odd_count_result_t result;
    double end = test_now_ms() + TEST_SOON_MS;
    int rc;

    MUST(teller_spawn(troupe, NULL, NULL, &teller));
    MUST(odd_block(troupe, small, (odd_block_t){}));
    /* It is no more in the mailbox, where its place would be free again. */
    MPI_Send(NULL, 0, MPI_BYTE, 1, 1, MPI_COMM_WORLD);
    MPI_Recv(NULL, 0, MPI_BYTE, 1, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MUST(teller_tell(troupe, teller, (teller_tell_t){ small, PUTS }));
    /* Refusals come back while that rank's worker is stuck. */
    do
        MUST(teller_refusals(troupe, teller, (teller_refusals_t){},
                             TEST_SOON_MS, &refused));
    while (refused.refusals < PUTS - SMALL_MAILBOX - 1 &&
           test_now_ms() < end && troupe_serve(troupe, 1) == 0);
    CHECK(refused.refusals >= PUTS - SMALL_MAILBOX - 1);
    CHECK_EQ(refused.reason, TROUPE_EFULL);
    CHECK_EQ(odd_count(troupe, small, (odd_count_t){}, TEST_SOON_MS, NULL),
             TROUPE_EFULL);
    MPI_Send(NULL, 0, MPI_BYTE, 1, 1, MPI_COMM_WORLD); /* releases it */
    end = test_now_ms() + TEST_SOON_MS;
    do
        rc = odd_count(troupe, small, (odd_count_t){}, TEST_SOON_MS, &result);
    while (rc == TROUPE_EFULL && test_now_ms() < end);
    MUST(rc);
    /* Each was either handled or refused. */
    MUST(teller_refusals(troupe, teller, (teller_refusals_t){}, TEST_SOON_MS,
                         &refused));
    CHECK_EQ(result.count + refused.refusals, PUTS);
}

static void try_all(troupe_t *troupe, int size)
{
    odd_ref_t odd = find(troupe, "odd");
    odd_count_result_t result;

    check_replies(troupe, odd);
    check_types(troupe, odd);
    check_addresses(troupe, odd, size);
    check_failed_and_stopped(troupe, find(troupe, "crashes"),
                             find(troupe, "stops"));
    check_full(troupe, find(troupe, "small"));
    /* After all this, it works as ever. */
    MUST(odd_put(troupe, odd, (odd_put_t){ 1 }));
    MUST(odd_count(troupe, odd, (odd_count_t){}, TEST_SOON_MS, &result));
    CHECK_EQ(result.count, 1);
}

/* On rank 1. */
static void await_blocked(void)
{
    double end = test_now_ms() + TEST_SOON_MS;

    while (!atomic_load(&blocked) && test_now_ms() < end)
        usleep(1000);
    CHECK(atomic_load(&blocked));
}

int main(void)
{
    troupe_options_t options;
    troupe_spawn_options_t small = { .name = "small", .mailbox_len_max = SMALL_MAILBOX,
                                       .overflow = TROUPE_FAIL };
    odd_ref_t odd;
    troupe_t *troupe;
    int size;

    troupe_options_init(&options);
    troupe = test_start(&size, &options);
    if (size < 2 || !test_has_workers(troupe)) {
        fprintf(stderr, "errors: two ranks and a worker are needed\n");
        return 77;
    }
    if (test_rank == 1) {
        MUST(odd_spawn(troupe, "odd", NULL, &odd));
        MUST(odd_spawn(troupe, "crashes", NULL, &odd));
        MUST(odd_spawn(troupe, "stops", NULL, &odd));
        MUST(odd_spawn_with(troupe, &small, NULL, &odd));
        MPI_Recv(NULL, 0, MPI_BYTE, 0, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        await_blocked();
        MPI_Send(NULL, 0, MPI_BYTE, 0, 1, MPI_COMM_WORLD);
        MPI_Recv(NULL, 0, MPI_BYTE, 0, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        atomic_store(&released, 1);
    } else if (test_rank == 0) {
        try_all(troupe, size);
    }
    return test_end(troupe);
}
