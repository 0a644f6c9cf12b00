/* SPDX-License-Identifier: BSD-3-Clause */
/* The mailbox: its states one by one, then many senders and one owner. */
#include "unit.h"

#include "actor/mailbox.h"

#define PRODUCERS 4u
#define PER_PRODUCER 50000u
#define LIMIT 100u

static void box_init(struct tri_mailbox *box, uint32_t limit, bool idle)
{
    *box = (struct tri_mailbox){ .limit = limit };
    if (idle)
        assert_true(tri_mailbox_release(box));
}

static void test_states(void **state)
{
    struct tri_mailbox box;
    struct tri_message a = { 0 }, b = { 0 }, *first;
    uint32_t n;

    (void)state;
    box_init(&box, 10, true);
    assert_false(tri_mailbox_release(&box)); /* IDLE already */
    assert_int_equal(tri_mailbox_push(&box, &a, true), TRI_PUSH_OWNER);
    assert_false(tri_mailbox_claim(&box));
    assert_int_equal(tri_mailbox_push(&box, &b, true), TRI_PUSH_QUEUED);
    assert_false(tri_mailbox_is_empty(&box));
    assert_false(tri_mailbox_release(&box)); /* something is there */
    first = tri_mailbox_take(&box, &n);
    assert_int_equal(n, 2);
    assert_ptr_equal(first, &b); /* newest first */
    assert_ptr_equal(b.next, &a);
    assert_null(a.next);
    assert_true(tri_mailbox_is_empty(&box));
    assert_null(tri_mailbox_take(&box, &n));
    assert_int_equal(n, 0);
    assert_false(tri_mailbox_claim(&box)); /* still owned */
    assert_true(tri_mailbox_release(&box));
    assert_true(tri_mailbox_claim(&box));
    assert_int_equal(tri_mailbox_push(&box, &a, true), TRI_PUSH_QUEUED);
    assert_ptr_equal(tri_mailbox_take(&box, &n), &a);
    assert_null(a.next);
}

static void test_bound(void **state)
{
    static struct tri_message messages[12];
    struct tri_mailbox box;
    uint32_t n;

    (void)state;
    box_init(&box, 5, true);
    for (int i = 0; i < 5; i++)
        assert_int_not_equal(tri_mailbox_push(&box, &messages[i], true),
                             TRI_PUSH_FULL);
    assert_int_equal(tri_mailbox_push(&box, &messages[5], true),
                     TRI_PUSH_FULL);
    /* what must get through does */
    assert_int_equal(tri_mailbox_push(&box, &messages[5], false),
                     TRI_PUSH_QUEUED);
    tri_mailbox_take(&box, &n);
    assert_int_equal(n, 6);
    atomic_store(&box.backlog, 3); /* of them are not handled yet */
    assert_int_equal(tri_mailbox_push(&box, &messages[6], true),
                     TRI_PUSH_QUEUED);
    assert_int_equal(tri_mailbox_push(&box, &messages[7], true),
                     TRI_PUSH_QUEUED);
    assert_int_equal(tri_mailbox_push(&box, &messages[8], true),
                     TRI_PUSH_FULL);
    atomic_store(&box.backlog, 0);
    assert_int_equal(tri_mailbox_push(&box, &messages[8], true),
                     TRI_PUSH_QUEUED);
}

/* The count has 16 bits: more control messages than that are all kept. */
static void test_count_saturates(void **state)
{
    uint32_t len = TRI_MAILBOX_LEN_MAX + 100;
    struct tri_message *messages = calloc(len, sizeof(*messages));
    struct tri_message *message;
    struct tri_mailbox box;
    uint32_t n, counted = 0;

    (void)state;
    assert_non_null(messages);
    box_init(&box, TRI_MAILBOX_LEN_MAX, true);
    for (uint32_t i = 0; i < len; i++)
        tri_mailbox_push(&box, &messages[i], false);
    message = tri_mailbox_take(&box, &n);
    assert_int_equal(n, TRI_MAILBOX_LEN_MAX);
    for (; message != NULL; message = message->next)
        counted++;
    assert_int_equal(counted, len);
    assert_true(tri_mailbox_release(&box));
    free(messages);
}

/* --- threads ------------------------------------------------------------------ */

/*
 * Producers push; who becomes the owner hands the box to a little queue of
 * one place, as the scheduler does, and consumers run it.
 */
struct stage {
    struct tri_mailbox box;
    _Atomic uint32_t runnable; /* the box waits to be run */
    _Atomic uint32_t owners;
    _Atomic uint32_t wrong;
    _Atomic uint64_t pushed, handled, most;
    _Atomic uint32_t producers_left;
    uint32_t next[PRODUCERS]; /* owner: the number expected next */
    uint32_t producers;
    bool bounded;
};

struct item {
    uint32_t producer;
    uint32_t number;
    struct tri_message message; /* last: it ends in its payload */
};

static void schedule(struct stage *stage)
{
    if (atomic_exchange(&stage->runnable, 1) != 0)
        atomic_fetch_add(&stage->wrong, 1); /* two owners */
}

struct producer {
    struct stage *stage;
    struct item *items;
    uint32_t index;
};

static void *produce(void *arg)
{
    struct producer *producer = arg;
    struct stage *stage = producer->stage;

    for (uint32_t i = 0; i < PER_PRODUCER; i++) {
        struct item *item = &producer->items[i];
        enum tri_push rc;

        item->producer = producer->index;
        item->number = i;
        while ((rc = tri_mailbox_push(&stage->box, &item->message,
                                      stage->bounded)) == TRI_PUSH_FULL)
            sched_yield();
        atomic_fetch_add(&stage->pushed, 1);
        if (rc == TRI_PUSH_OWNER)
            schedule(stage);
    }
    atomic_fetch_sub(&stage->producers_left, 1);
    return NULL;
}

static void check_item(struct stage *stage, struct item *item)
{
    if (item->number != stage->next[item->producer]++)
        atomic_fetch_add(&stage->wrong, 1);
    atomic_fetch_add(&stage->handled, 1);
}

/* A turn as in run.c: take, reverse, handle, publish, release. */
static bool run_turn(struct stage *stage)
{
    struct tri_message *message, *next, *first = NULL;
    uint32_t n;

    if (atomic_fetch_add(&stage->owners, 1) != 0)
        atomic_fetch_add(&stage->wrong, 1);
    message = tri_mailbox_take(&stage->box, &n);
    atomic_store_explicit(&stage->box.backlog, n, memory_order_relaxed);
    for (; message != NULL; message = next) {
        next = message->next;
        message->next = first;
        first = message;
    }
    if (n > atomic_load(&stage->most))
        atomic_store(&stage->most, n);
    while (first != NULL) {
        next = first->next;
        check_item(stage, tri_container_of(first, struct item, message));
        first = next;
    }
    atomic_store_explicit(&stage->box.backlog, 0, memory_order_relaxed);
    atomic_fetch_sub(&stage->owners, 1);
    return !tri_mailbox_release(&stage->box);
}

static void *consume(void *arg)
{
    struct stage *stage = arg;
    uint64_t all = (uint64_t)stage->producers * PER_PRODUCER;

    while (atomic_load(&stage->handled) < all) {
        if (atomic_exchange(&stage->runnable, 0) == 0)
            sched_yield();
        else if (run_turn(stage))
            schedule(stage);
    }
    return NULL;
}

static void run_stage(uint32_t producers_len, uint32_t consumers_len,
                      bool bounded)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    struct producer producers[PRODUCERS];
    pthread_t threads[2 * PRODUCERS];
    uint32_t n = 0;

    assert_non_null(stage);
    box_init(&stage->box, LIMIT, true);
    stage->producers = producers_len;
    stage->bounded = bounded;
    atomic_store(&stage->producers_left, producers_len);
    for (uint32_t i = 0; i < producers_len; i++) {
        producers[i] = (struct producer){ stage, NULL, i };
        producers[i].items = calloc(PER_PRODUCER, sizeof(struct item));
        assert_non_null(producers[i].items);
        threads[n++] = unit_thread(produce, &producers[i]);
    }
    for (uint32_t i = 0; i < consumers_len; i++)
        threads[n++] = unit_thread(consume, stage);
    for (uint32_t i = 0; i < n; i++)
        unit_join(threads[i]);
    assert_int_equal(stage->wrong, 0);
    assert_int_equal(stage->handled, (uint64_t)producers_len * PER_PRODUCER);
    assert_int_equal(stage->pushed, stage->handled);
    if (bounded) /* in the box itself it is exact, whoever pushes */
        assert_true(stage->most <= LIMIT);
    assert_true(tri_mailbox_claim(&stage->box)); /* nobody owns it */
    for (uint32_t i = 0; i < producers_len; i++)
        free(producers[i].items);
    free(stage);
}

static void test_one_producer(void **state)
{
    (void)state;
    run_stage(1, 1, true);
}

static void test_producers(void **state)
{
    (void)state;
    run_stage(PRODUCERS, 1, true);
}

static void test_owners_by_turns(void **state)
{
    (void)state;
    run_stage(PRODUCERS, 2, true);
}

static void test_unbounded(void **state)
{
    (void)state;
    run_stage(PRODUCERS, 2, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_count_saturates),
        cmocka_unit_test(test_one_producer),
        cmocka_unit_test(test_producers),
        cmocka_unit_test(test_owners_by_turns),
        cmocka_unit_test(test_unbounded),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
