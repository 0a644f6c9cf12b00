/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Rank 0 floods a slow actor of rank 1, from actors that never wait and from
 * main in one line each. Memory stays within its bounds on both sides, other
 * actors are told and asked meanwhile, and in the end every message was
 * handled, once, in order.
 */

#include <stdatomic.h>

#include "test.h"

enum {
    FLOODERS = 5,       /* and main, the last sender */
    EACH = 8000,        /* messages of each */
    BYTES = 1000,       /* of one */
    BURST = 500,        /* of a flooder's turn */
    SLOW_NS = 10000,    /* for one message */
    MAILBOX_LEN = 64,
    PARKED_BYTES = 256 << 10,
    OUTBOX_BYTES = 1 << 20,
    POOL_BYTES = 3 << 20, /* slabs and blocks kept for reuse */
    ASK_EVERY = 200,
};

#define slow_messages(TELL, ASK)                                              \
    TELL(slow, put, (int32_t sender; int32_t number; char bytes[BYTES];))     \
    ASK(slow, report, (), (int64_t messages; int64_t wrong;))
TROUPE_PROTOCOL(slow)

#define quick_messages(TELL, ASK)                                             \
    TELL(quick, note, (int32_t number;))                                      \
    ASK(quick, memory, (),                                                    \
        (int64_t bytes; int64_t parked; int64_t notes;))                      \
    TELL(quick, over, ())
TROUPE_PROTOCOL(quick)

#define flooder_messages(TELL, ASK) TELL(flooder, go, ())
TROUPE_PROTOCOL(flooder)

struct slow {
    int32_t next[FLOODERS + 1];
    int64_t messages, wrong;
};

struct quick {
    int64_t notes, wrong;
};

struct flooder {
    slow_ref_t to;
    int32_t index, number;
};

static atomic_int is_over, flooders_left, refusals;
static atomic_llong bytes_most;

static void watch_memory(troupe_from_t from)
{
    troupe_stats_t stats;
    long long most = atomic_load(&bytes_most);

    troupe_stats(from, &stats);
    while ((long long)stats.messages_bytes > most &&
           !atomic_compare_exchange_weak(&bytes_most, &most,
                                         (long long)stats.messages_bytes))
        continue;
}

static int on_put(troupe_self_t *self, struct slow *s, const slow_put_t *m)
{
    double end = test_now_ms() + SLOW_NS * 1e-6;

    if (m->sender < 0 || m->sender > FLOODERS ||
        m->number != s->next[m->sender] || m->bytes[BYTES - 1] != m->sender)
        s->wrong++;
    else
        s->next[m->sender]++;
    s->messages++;
    if (s->messages % 64 == 0)
        watch_memory(self);
    while (test_now_ms() < end)
        continue;
    return 0;
}

static int on_report(troupe_self_t *self, struct slow *s,
                     const slow_report_t *m)
{
    (void)m;
    return slow_report_reply(self,
                             (slow_report_result_t){ s->messages, s->wrong });
}

TROUPE_ACTOR(slow, struct slow, .put = on_put, .report = on_report)

static int on_note(troupe_self_t *self, struct quick *q, const quick_note_t *m)
{
    (void)self;
    q->wrong += m->number != q->notes;
    q->notes++;
    return 0;
}

static int on_memory(troupe_self_t *self, struct quick *q,
                     const quick_memory_t *m)
{
    troupe_stats_t stats;

    (void)m;
    watch_memory(self);
    troupe_stats(self, &stats);
    return quick_memory_reply(
        self, (quick_memory_result_t){ atomic_load(&bytes_most),
                                       (int64_t)stats.parked,
                                       q->wrong ? -1 : q->notes });
}

static int on_over(troupe_self_t *self, struct quick *q, const quick_over_t *m)
{
    (void)q, (void)m;
    atomic_store(&is_over, 1);
    troupe_wake(self);
    return 0;
}

TROUPE_ACTOR(quick, struct quick, .note = on_note, .memory = on_memory,
             .over = on_over)

static slow_put_t message_of(int32_t sender, int32_t number)
{
    slow_put_t message = { .sender = sender, .number = number };

    memset(message.bytes, sender, BYTES);
    return message;
}

/* A handler does not wait: it comes back. */
static int on_go(troupe_self_t *self, struct flooder *f, const flooder_go_t *m)
{
    int rc = 0;

    for (int i = 0; i < BURST && f->number < EACH && rc == 0; i++) {
        rc = slow_put(self, f->to, message_of(f->index, f->number));
        f->number += rc == 0;
    }
    watch_memory(self);
    if (rc == TROUPE_EFULL)
        atomic_fetch_add(&refusals, 1);
    else if (rc != 0)
        return rc;
    if (f->number < EACH)
        return flooder_go(self, flooder_self(self), *m);
    atomic_fetch_sub(&flooders_left, 1);
    troupe_wake(self);
    return 0;
}

TROUPE_ACTOR(flooder, struct flooder, .go = on_go)

/* Also while the slow one is flooded; and sees how it fares over there. */
static void visit(troupe_t *troupe, quick_ref_t quick, int32_t *notes)
{
    quick_memory_result_t there;

    MUST(quick_note(troupe, quick, (quick_note_t){ (*notes)++ }));
    MUST(quick_memory(troupe, quick, (quick_memory_t){}, TEST_SOON_MS,
                      &there));
    CHECK_EQ(there.notes, *notes);
    CHECK(there.bytes < PARKED_BYTES + POOL_BYTES);
}

static int is_flooded(void *arg)
{
    (void)arg;
    return atomic_load(&flooders_left) == 0;
}

static void flood(troupe_t *troupe, slow_ref_t slow, quick_ref_t quick)
{
    slow_report_result_t result = { 0 };
    int32_t notes = 0;

    atomic_store(&flooders_left, FLOODERS);
    for (int32_t i = 0; i < FLOODERS; i++) {
        struct flooder initial = { slow, i, 0 };
        flooder_ref_t flooder;

        MUST(flooder_spawn(troupe, NULL, &initial, &flooder));
        MUST(flooder_go(troupe, flooder, (flooder_go_t){}));
    }
    for (int32_t n = 0; n < EACH; n++) {
        MUST(slow_put(troupe, slow, message_of(FLOODERS, n)));
        if (n % ASK_EVERY == 0)
            visit(troupe, quick, &notes);
    }
    MUST(troupe_serve_until(troupe, is_flooded, NULL, 2 * TEST_SOON_MS));
    MUST(slow_report(troupe, slow, (slow_report_t){}, TEST_SOON_MS, &result));
    CHECK_EQ(result.messages, (FLOODERS + 1) * EACH);
    CHECK_EQ(result.wrong, 0);
    CHECK(atomic_load(&refusals) > 0);
    CHECK_EQ(troupe_dead_letters_count(troupe), 0);
    CHECK(atomic_load(&bytes_most) < OUTBOX_BYTES + POOL_BYTES);
    visit(troupe, quick, &notes);
    MUST(quick_over(troupe, quick, (quick_over_t){}));
}

static int has_ended(void *arg)
{
    (void)arg;
    return atomic_load(&is_over);
}

int main(void)
{
    troupe_options_t options;
    troupe_spawn_options_t small = { .name = "slow", .mailbox_len_max = MAILBOX_LEN,
                                       .overflow = TROUPE_WAIT };
    char address[TEST_ADDRESS_BYTES];
    troupe_stats_t stats;
    slow_ref_t slow;
    quick_ref_t quick;
    troupe_t *troupe;
    int size;

    troupe_options_init(&options);
    options.outbox_bytes_max = OUTBOX_BYTES;
    options.parked_bytes_max = PARKED_BYTES;
    options.send_timeout_ms = TEST_SOON_MS;
    troupe = test_start(&size, &options);
    if (size < 2 || !test_has_workers(troupe)) {
        fprintf(stderr, "flow: two ranks and a worker are needed\n");
        return 77;
    }
    if (test_rank == 1) {
        MUST(slow_spawn_with(troupe, &small, NULL, &slow));
        MUST(quick_spawn(troupe, "quick", NULL, &quick));
        MUST(troupe_serve_until(troupe, has_ended, NULL, 3 * TEST_SOON_MS));
    } else if (test_rank == 0) {
        MUST(slow_resolve(troupe, test_address(address, 1, "slow"),
                          TEST_SOON_MS, &slow));
        MUST(quick_resolve(troupe, test_address(address, 1, "quick"),
                           TEST_SOON_MS, &quick));
        flood(troupe, slow, quick);
    }
    troupe_stats(troupe, &stats);
    CHECK_EQ((long long)stats.parked, 0);
    printf("rank %d: at most %lld bytes of messages, %d times refused\n",
           test_rank, (long long)atomic_load(&bytes_most),
           atomic_load(&refusals));
    return test_end(troupe);
}
