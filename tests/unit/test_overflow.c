/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Full mailboxes of one process: each policy, and threads of the program that
 * wait for room.
 */
#include "unit.h"

#include <troupe.h>

enum { LIMIT = 16, MANY = 40, THREADS = 4, EACH = 20000, SOON_MS = 20000,
       SHORT_MS = 60 };

#define box_messages(TELL, ASK)                                               \
    TELL(box, put, (int32_t sender; int32_t number;))                         \
    TELL(box, hold, ())                                                       \
    TELL(box, flood, (box_ref_t to;))                                         \
    ASK(box, report, (), (int64_t count; int64_t sum; int64_t wrong;))
TROUPE_PROTOCOL(box)

struct box {
    int64_t count, sum, wrong;
    int32_t next[THREADS];
};

static atomic_int holding, released, flooded;
static int gaps_allowed;

static int on_put(troupe_self_t *self, struct box *b, const box_put_t *m)
{
    (void)self;
    b->wrong += gaps_allowed ? m->number < b->next[m->sender]
                             : m->number != b->next[m->sender];
    b->next[m->sender] = m->number + 1;
    b->count++;
    b->sum += m->number;
    return 0;
}

static int on_hold(troupe_self_t *self, struct box *b, const box_hold_t *m)
{
    (void)self, (void)b, (void)m;
    atomic_store(&holding, 1);
    while (!atomic_load(&released))
        sched_yield();
    return 0;
}

static int on_flood(troupe_self_t *self, struct box *b, const box_flood_t *m)
{
    int rc = 0;

    (void)b;
    for (int i = 0; i < MANY && rc == 0; i++)
        rc = box_put(self, m->to, (box_put_t){ 0, i });
    atomic_store(&flooded, rc);
    return 0;
}

static int on_report(troupe_self_t *self, struct box *b, const box_report_t *m)
{
    (void)m;
    return box_report_reply(self, (box_report_result_t){ b->count, b->sum,
                                                         b->wrong });
}

TROUPE_ACTOR(box, struct box, .put = on_put, .hold = on_hold,
             .flood = on_flood, .report = on_report)

/* --- helpers -------------------------------------------------------------- */

static troupe_t *start(int workers, uint32_t send_timeout_ms)
{
    troupe_options_t options;
    troupe_t *troupe;

    atomic_store(&holding, 0);
    atomic_store(&released, 0);
    atomic_store(&flooded, 0);
    gaps_allowed = 0;
    troupe_options_init(&options);
    options.workers = workers;
    options.send_timeout_ms = send_timeout_ms;
    assert_int_equal(troupe_start(&troupe, &options), 0);
    return troupe;
}

static box_ref_t spawn(troupe_t *troupe, enum troupe_overflow overflow)
{
    troupe_spawn_options_t options = { .mailbox_len_max = LIMIT,
                                       .overflow = overflow };
    box_ref_t box;

    assert_int_equal(box_spawn_with(troupe, &options, NULL, &box), 0);
    return box;
}

static int put(troupe_t *troupe, box_ref_t box, int number)
{
    return box_put(troupe, box, (box_put_t){ 0, number });
}

static box_report_result_t report(troupe_t *troupe, box_ref_t box)
{
    box_report_result_t result = { 0 };

    assert_int_equal(box_report(troupe, box, (box_report_t){}, SOON_MS,
                                &result),
                     0);
    return result;
}

static uint64_t dropped(troupe_t *troupe)
{
    troupe_stats_t stats;

    troupe_stats(troupe, &stats);
    return stats.dropped;
}

/* An ask that a policy refuses fails at once, with the reason. */
static void ask_in_vain(troupe_t *troupe, box_ref_t box)
{
    uint64_t begin_ns = tri_now_ns();

    assert_int_equal(box_report(troupe, box, (box_report_t){}, SOON_MS, NULL),
                     TROUPE_EFULL);
    assert_true(tri_now_ns() - begin_ns < SOON_MS / 2 * TRI_NS_PER_MS);
}

/* --- policies: without workers, nobody takes anything out ----------------- */

static void test_fail(void **state)
{
    troupe_t *troupe = start(0, SOON_MS);
    box_ref_t box = spawn(troupe, TROUPE_FAIL);

    (void)state;
    for (int i = 0; i < MANY; i++)
        assert_int_equal(put(troupe, box, i), i < LIMIT ? 0 : TROUPE_EFULL);
    ask_in_vain(troupe, box);
    assert_int_equal(troupe_serve(troupe, 0), 0);
    assert_int_equal(report(troupe, box).count, LIMIT);
    assert_int_equal(troupe_dead_letters_count(troupe), 0);
    assert_int_equal(dropped(troupe), 0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_drop_new(void **state)
{
    troupe_t *troupe = start(0, SOON_MS);
    box_ref_t box = spawn(troupe, TROUPE_DROP_NEW);

    (void)state;
    for (int i = 0; i < MANY; i++)
        assert_int_equal(put(troupe, box, i), 0);
    ask_in_vain(troupe, box);
    assert_int_equal(troupe_serve(troupe, 0), 0);
    assert_int_equal(report(troupe, box).sum, LIMIT * (LIMIT - 1) / 2);
    assert_int_equal(dropped(troupe), MANY - LIMIT);
    assert_int_equal(troupe_dead_letters_count(troupe), 0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_drop_old(void **state)
{
    troupe_t *troupe = start(0, SOON_MS);
    box_ref_t box = spawn(troupe, TROUPE_DROP_OLD);
    box_report_result_t result;

    (void)state;
    gaps_allowed = 1;
    for (int i = 0; i < MANY; i++)
        assert_int_equal(put(troupe, box, i), 0);
    result = report(troupe, box); /* the ask takes one more place */
    assert_int_equal(result.count, LIMIT - 1);
    assert_int_equal(result.wrong, 0);
    assert_int_equal(result.sum,
                     MANY * (MANY - 1) / 2 -
                         (MANY - LIMIT + 1) * (MANY - LIMIT) / 2);
    assert_int_equal(dropped(troupe), MANY - LIMIT + 1);
    assert_int_equal(troupe_dead_letters_count(troupe), 0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_dead_letter(void **state)
{
    troupe_t *troupe = start(0, SOON_MS);
    box_ref_t box = spawn(troupe, TROUPE_DEAD_LETTER);
    troupe_dead_letter_t letter;

    (void)state;
    for (int i = 0; i < MANY; i++)
        assert_int_equal(put(troupe, box, i), 0);
    assert_int_equal(troupe_dead_letters_count(troupe), MANY - LIMIT);
    assert_int_equal(troupe_dead_letters_take(troupe, &letter, 1), 1);
    assert_int_equal(letter.reason, TROUPE_EFULL);
    assert_true(troupe_ref_equal(letter.to, box.ref));
    ask_in_vain(troupe, box);
    assert_int_equal(troupe_serve(troupe, 0), 0);
    assert_int_equal(report(troupe, box).count, LIMIT);
    assert_int_equal(dropped(troupe), 0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_unknown_policy(void **state)
{
    troupe_t *troupe = start(0, SOON_MS);
    troupe_spawn_options_t options = { .mailbox_len_max = LIMIT,
                                       .overflow = TROUPE_DEAD_LETTER + 1 };
    box_ref_t box;

    (void)state;
    assert_int_equal(box_spawn_with(troupe, &options, NULL, &box),
                     TROUPE_EINVAL);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* --- waiting -------------------------------------------------------------- */

/* One line in main is enough, whoever runs the actor. */
static void test_wait(void **state)
{
    troupe_t *troupe = start(*(int *)*state, SOON_MS);
    box_ref_t box = spawn(troupe, TROUPE_WAIT);
    box_report_result_t result;

    for (int i = 0; i < EACH; i++)
        assert_int_equal(put(troupe, box, i), 0);
    for (int i = 0; i < MANY; i++) {
        box_put_t *m = box_put_new(troupe, 0);

        *m = (box_put_t){ 0, EACH + i };
        assert_int_equal(box_put_send(troupe, box, m), 0);
    }
    result = report(troupe, box);
    assert_int_equal(result.count, EACH + MANY);
    assert_int_equal(result.wrong, 0);
    assert_int_equal(troupe_dead_letters_count(troupe), 0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void fill(troupe_t *troupe, box_ref_t box)
{
    uint64_t end_ns = tri_deadline_ns(SOON_MS);

    assert_int_equal(box_hold(troupe, box, (box_hold_t){}), 0);
    while (!atomic_load(&holding) && tri_now_ns() < end_ns)
        sched_yield();
    assert_int_equal(atomic_load(&holding), 1);
    /* while it holds, its place in the mailbox counts or does not */
    for (int i = 0; i < LIMIT - 1; i++)
        assert_int_equal(put(troupe, box, i), 0);
}

static int put_until_full(troupe_t *troupe, box_ref_t box, int *number_p)
{
    int rc;

    while ((rc = put(troupe, box, *number_p)) == 0)
        ++*number_p;
    return rc;
}

/* The deadlines: of tells the option, of asks their own. */
static void test_deadline(void **state)
{
    troupe_t *troupe = start(1, SHORT_MS);
    box_ref_t box = spawn(troupe, TROUPE_WAIT);
    uint64_t begin_ns;
    int number = LIMIT - 1;

    (void)state;
    fill(troupe, box);
    assert_int_equal(put_until_full(troupe, box, &number), TROUPE_EFULL);
    begin_ns = tri_now_ns();
    assert_int_equal(put(troupe, box, number), TROUPE_EFULL);
    assert_true(tri_now_ns() - begin_ns >= SHORT_MS * TRI_NS_PER_MS);
    begin_ns = tri_now_ns();
    assert_int_equal(box_report(troupe, box, (box_report_t){}, 2 * SHORT_MS,
                                NULL),
                     TROUPE_EFULL);
    assert_true(tri_now_ns() - begin_ns >= 2 * SHORT_MS * TRI_NS_PER_MS);
    atomic_store(&released, 1);
    assert_int_equal(report(troupe, box).count, number);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* An actor that ends while somebody waits for room in it. */
static void *stop_and_release(void *arg)
{
    atomic_store(&released, 1);
    (void)arg;
    return NULL;
}

static void test_end_while_waiting(void **state)
{
    troupe_t *troupe = start(1, SOON_MS);
    box_ref_t box = spawn(troupe, TROUPE_WAIT);
    pthread_t thread;
    int number = LIMIT - 1, rc;

    (void)state;
    fill(troupe, box);
    assert_int_equal(troupe_stop_actor(troupe, box.ref), 0);
    thread = unit_thread(stop_and_release, NULL);
    rc = put_until_full(troupe, box, &number);
    unit_join(thread);
    assert_int_equal(rc, TROUPE_ENOACTOR);
    assert_int_equal(troupe_stop(&troupe), 0);
}

static void test_not_waiting(void **state)
{
    troupe_t *troupe = start(0, 0); /* by option */
    box_ref_t box = spawn(troupe, TROUPE_WAIT), floods;

    (void)state;
    for (int i = 0; i < MANY; i++)
        assert_int_equal(put(troupe, box, i), i < LIMIT ? 0 : TROUPE_EFULL);
    assert_int_equal(troupe_stop(&troupe), 0);
    troupe = start(0, SOON_MS); /* in a handler */
    box = spawn(troupe, TROUPE_WAIT);
    floods = spawn(troupe, TROUPE_WAIT);
    assert_int_equal(box_flood(troupe, floods, (box_flood_t){ box }), 0);
    assert_int_equal(report(troupe, floods).count, 0);
    assert_int_equal(atomic_load(&flooded), TROUPE_EFULL);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* --- threads -------------------------------------------------------------- */

struct sender {
    troupe_t *troupe;
    box_ref_t box;
    int index;
    atomic_int failed;
};

static void *send_each(void *arg)
{
    struct sender *sender = arg;

    for (int i = 0; i < EACH; i++)
        if (box_put(sender->troupe, sender->box,
                    (box_put_t){ sender->index, i }) != 0)
            atomic_store(&sender->failed, 1);
    return NULL;
}

static box_report_result_t send_all(troupe_t *troupe, box_ref_t box)
{
    static struct sender senders[THREADS];
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++) {
        senders[i] = (struct sender){ troupe, box, i, 0 };
        threads[i] = unit_thread(send_each, &senders[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        unit_join(threads[i]);
        assert_int_equal(senders[i].failed, 0);
    }
    return report(troupe, box);
}

static void test_waiting_threads(void **state)
{
    troupe_t *troupe = start(*(int *)*state, SOON_MS);
    box_report_result_t result = send_all(troupe, spawn(troupe, TROUPE_WAIT));

    assert_int_equal(result.count, THREADS * EACH);
    assert_int_equal(result.wrong, 0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* What is left of each thread's messages is in order; each is handled or
 * counted as dropped. */
static void test_drop_old_threads(void **state)
{
    troupe_t *troupe = start(2, SOON_MS);
    box_ref_t box = spawn(troupe, TROUPE_DROP_OLD);
    box_report_result_t result;

    (void)state;
    gaps_allowed = 1;
    result = send_all(troupe, box);
    assert_int_equal(result.wrong, 0);
    assert_int_equal(result.count + (int64_t)dropped(troupe), THREADS * EACH);
    assert_int_equal(troupe_stop(&troupe), 0);
}

int main(void)
{
    static int workers[] = { 0, 2 };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail),
        cmocka_unit_test(test_drop_new),
        cmocka_unit_test(test_drop_old),
        cmocka_unit_test(test_dead_letter),
        cmocka_unit_test(test_unknown_policy),
        cmocka_unit_test_prestate(test_wait, &workers[0]),
        cmocka_unit_test_prestate(test_wait, &workers[1]),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_end_while_waiting),
        cmocka_unit_test(test_not_waiting),
        cmocka_unit_test_prestate(test_waiting_threads, &workers[0]),
        cmocka_unit_test_prestate(test_waiting_threads, &workers[1]),
        cmocka_unit_test(test_drop_old_threads),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
