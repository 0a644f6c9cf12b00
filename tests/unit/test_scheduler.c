/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who runs when, under load and in the corners: churn of actors with stale
 * refs, handlers that compute, threads that wait aside, floods of messages
 * that no limit holds back.
 */
#include "unit.h"

#include <troupe.h>

#include "actor/runtime.h"

enum { SOON_MS = 20000, SLOTS = 64, BUDGET = 60000, COMPUTE_MS = 60,
       MAILBOX_LEN = 64 };

/* --- actors --------------------------------------------------------------- */

#define probe_messages(TELL, ASK)                                             \
    TELL(probe, put, (int64_t value;))                                        \
    TELL(probe, hold, (int32_t unused;))                                      \
    TELL(probe, compute, (probe_ref_t other;))                                \
    TELL(probe, answer, (int64_t value;))                                     \
    ASK(probe, later, (), (int64_t value;))
TROUPE_PROTOCOL(probe)

struct probe {
    troupe_token_t token;
};

static atomic_int starts, stops, puts_seen, asked, holding, released;

static int on_start(troupe_self_t *self, struct probe *p)
{
    (void)self, (void)p;
    atomic_fetch_add(&starts, 1);
    return 0;
}

static void on_stop(troupe_self_t *self, struct probe *p, int reason)
{
    (void)self, (void)p, (void)reason;
    atomic_fetch_add(&stops, 1);
}

static int on_put(troupe_self_t *self, struct probe *p, const probe_put_t *m)
{
    (void)self, (void)p, (void)m;
    atomic_fetch_add(&puts_seen, 1);
    return 0;
}

static int on_hold(troupe_self_t *self, struct probe *p, const probe_hold_t *m)
{
    (void)self, (void)p, (void)m;
    atomic_store(&holding, 1);
    while (!atomic_load(&released))
        usleep(100);
    return 0;
}

/* Computes for a while, tells somebody, computes on until that one ran. */
static int on_compute(troupe_self_t *self, struct probe *p,
                      const probe_compute_t *m)
{
    uint64_t until_ns = tri_deadline_ns(COMPUTE_MS);
    int rc;

    (void)p;
    while (tri_now_ns() < until_ns)
        tri_cpu_relax();
    rc = probe_put(self, m->other, (probe_put_t){ 1 });
    until_ns = tri_deadline_ns(SOON_MS / 2);
    while (atomic_load(&puts_seen) == 0 && tri_now_ns() < until_ns)
        usleep(100);
    atomic_store(&holding, atomic_load(&puts_seen) == 0 ? -1 : 1);
    return rc;
}

static int on_later(troupe_self_t *self, struct probe *p,
                    const probe_later_t *m)
{
    (void)m;
    p->token = troupe_reply_later(self);
    atomic_store(&asked, 1);
    troupe_wake(self);
    return 0;
}

static int on_answer(troupe_self_t *self, struct probe *p,
                     const probe_answer_t *m)
{
    return probe_later_reply_to(self, p->token,
                                (probe_later_result_t){ m->value });
}

TROUPE_ACTOR(probe, struct probe, .put = on_put, .hold = on_hold,
             .compute = on_compute, .later = on_later, .answer = on_answer,
             .on_start = on_start, .on_stop = on_stop)

/* --- helpers --------------------------------------------------------------- */

static troupe_t *running; /* for the teardown of a test that failed */

static troupe_t *start(int workers)
{
    troupe_options_t options;
    troupe_t *troupe = NULL;

    troupe_options_init(&options);
    options.workers = workers;
    options.actors_max = 4096; /* so few that no worker keeps free cells */
    options.mailbox_len_max = MAILBOX_LEN;
    options.log = "error";
    assert_int_equal(troupe_start(&troupe, &options), 0);
    running = troupe;
    starts = stops = puts_seen = asked = holding = released = 0;
    return troupe;
}

static void stop(void)
{
    assert_int_equal(troupe_stop(&running), 0);
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&released, 1);
    if (running != NULL)
        troupe_stop(&running);
    return 0;
}

static probe_ref_t spawn(troupe_t *troupe)
{
    probe_ref_t ref;

    assert_int_equal(probe_spawn(troupe, NULL, NULL, &ref), 0);
    return ref;
}

/* Without serving actors, which would be a worker more. */
static bool wait_until(bool (*done)(void *arg), void *arg)
{
    uint64_t deadline_ns = tri_deadline_ns(SOON_MS);

    while (!done(arg)) {
        if (tri_now_ns() >= deadline_ns)
            return false;
        usleep(200);
    }
    return true;
}

static bool is_set(void *arg)
{
    return atomic_load((atomic_int *)arg) != 0;
}

static bool has_no_actors(void *arg)
{
    troupe_stats_t stats;

    troupe_stats((troupe_t *)arg, &stats);
    return stats.actors == 0;
}

/* --- corners ------------------------------------------------------------------ */

/* An actor whose spawn failed was never there. */
static void test_failed_spawn_runs_nothing(void **state)
{
    troupe_t *troupe = start(2);
    probe_ref_t first, second;

    (void)state;
    assert_int_equal(probe_spawn(troupe, "only", NULL, &first), 0);
    assert_int_equal(probe_spawn(troupe, "only", NULL, &second),
                     TROUPE_EEXIST);
    assert_int_equal(troupe_stop_actor(troupe, first.ref), 0);
    assert_true(wait_until(has_no_actors, troupe));
    assert_int_equal(starts, 1);
    assert_int_equal(stops, 1);
    stop();
}

/* More than a mailbox can count, and the next actor of the cell is well. */
static void test_flood_of_stops(void **state)
{
    troupe_t *troupe = start(1);
    probe_ref_t flooded = spawn(troupe), next;

    (void)state;
    assert_int_equal(probe_hold(troupe, flooded, (probe_hold_t){ 0 }), 0);
    assert_true(wait_until(is_set, &holding));
    for (uint32_t i = 0; i < TRI_MAILBOX_LEN_MAX + 100; i++)
        assert_int_equal(troupe_stop_actor(troupe, flooded.ref), 0);
    atomic_store(&released, 1);
    assert_true(wait_until(has_no_actors, troupe));
    next = spawn(troupe);
    assert_int_equal(next.ref.slot, flooded.ref.slot);
    /* its mailbox counts from nothing */
    holding = released = 0;
    assert_int_equal(probe_put(troupe, next, (probe_put_t){ 1 }), 0);
    assert_true(wait_until(is_set, &puts_seen)); /* a turn of its own */
    assert_int_equal(probe_hold(troupe, next, (probe_hold_t){ 0 }), 0);
    assert_true(wait_until(is_set, &holding));
    for (int i = 0; i < MAILBOX_LEN; i++)
        assert_int_equal(probe_put(troupe, next, (probe_put_t){ 1 }), 0);
    assert_int_equal(probe_put(troupe, next, (probe_put_t){ 1 }),
                     TROUPE_EFULL);
    atomic_store(&released, 1);
    assert_true(wait_until(is_set, &puts_seen));
    stop();
}

/* The control thread went to sleep while a handler computed, and has to see
 * nevertheless that somebody waits behind that handler. */
static void test_behind_a_computing_handler(void **state)
{
    troupe_t *troupe = start(2);
    probe_ref_t busy = spawn(troupe), other = spawn(troupe);

    (void)state;
    assert_int_equal(probe_compute(troupe, busy, (probe_compute_t){ other }),
                     0);
    assert_true(wait_until(is_set, &holding));
    assert_int_equal(holding, 1);
    stop();
}

struct asker {
    troupe_t *troupe;
    probe_ref_t probe;
    probe_later_result_t result;
    uint64_t took_ns;
    int rc;
};

static void *ask_later(void *arg)
{
    struct asker *asker = arg;
    uint64_t begin_ns = tri_now_ns();

    asker->rc = probe_later(asker->troupe, asker->probe, (probe_later_t){},
                            2 * SOON_MS, &asker->result);
    asker->took_ns = tri_now_ns() - begin_ns;
    return NULL;
}

/* Somebody serves, and sleeps meanwhile. */
static bool guest_sleeps(void *arg)
{
    struct tri_scheduler *scheduler = &((struct tri_runtime *)arg)->scheduler;

    return atomic_load(&scheduler->guest_lock.held) != 0 &&
           (atomic_load(&scheduler->idle) >> scheduler->workers_len & 1) != 0;
}

/* It waited aside, got the seat when that was free, and slept in it: the
 * answer has to wake it. */
static void test_asker_that_waited_aside(void **state)
{
    troupe_t *troupe = start(1);
    struct asker asker = { .troupe = troupe, .probe = spawn(troupe) };
    probe_answer_t answer = { 77 };
    struct tri_seat seat;
    pthread_t thread;
    bool was_asked;

    (void)state;
    /* This thread has the seat until the other one asked, from aside. */
    assert_true(tri_seat_take((struct tri_runtime *)troupe, &seat));
    thread = unit_thread(ask_later, &asker);
    was_asked = wait_until(is_set, &asked);
    tri_seat_leave(&seat);
    assert_true(was_asked);
    assert_true(wait_until(guest_sleeps, troupe));
    assert_int_equal(probe_answer(troupe, asker.probe, answer), 0);
    unit_join(thread);
    assert_int_equal(asker.rc, 0);
    assert_int_equal(asker.result.value, 77);
    assert_true(asker.took_ns < SOON_MS * TRI_NS_PER_MS); /* it was woken */
    stop();
}

struct waits {
    troupe_t *troupe;
    atomic_int first, second;
    atomic_int is_aside, is_second;
    uint64_t took_ns;
    int rc;
};

static void *wait_twice(void *arg)
{
    struct waits *waits = arg;
    struct tri_seat seat;
    uint64_t begin_ns = tri_now_ns();

    atomic_store(&waits->is_aside,
                 !tri_seat_take((struct tri_runtime *)waits->troupe, &seat));
    waits->rc = tri_wait(&seat, is_set, &waits->first,
                         tri_deadline_ns(2 * SOON_MS));
    atomic_store(&waits->is_second, 1);
    waits->rc |= tri_wait(&seat, is_set, &waits->second,
                          tri_deadline_ns(2 * SOON_MS));
    waits->took_ns = tri_now_ns() - begin_ns;
    tri_seat_leave(&seat);
    return NULL;
}

/* As an ask does whose request had to wait: it was aside when it said who is to
 * be woken, and has the seat when it waits for the answer. */
static void test_second_wait_of_a_late_guest(void **state)
{
    troupe_t *troupe = start(1);
    struct waits waits = { .troupe = troupe };
    struct tri_seat seat;
    pthread_t thread;

    (void)state;
    assert_true(tri_seat_take((struct tri_runtime *)troupe, &seat));
    thread = unit_thread(wait_twice, &waits);
    assert_true(wait_until(is_set, &waits.is_aside));
    tri_seat_leave(&seat);
    assert_true(wait_until(guest_sleeps, troupe)); /* in the first one */
    atomic_store(&waits.first, 1);
    assert_true(wait_until(is_set, &waits.is_second));
    assert_true(wait_until(guest_sleeps, troupe));
    atomic_store(&waits.second, 1); /* nobody wakes it */
    unit_join(thread);
    assert_int_equal(waits.rc, 0);
    assert_true(waits.took_ns < SOON_MS * TRI_NS_PER_MS);
    stop();
}

/* --- churn ---------------------------------------------------------------------- */

#define hive_messages(TELL, ASK) TELL(hive, work, (uint64_t seed; uint32_t at;))
TROUPE_PROTOCOL(hive)

struct hive {
    int32_t unused;
};

static pthread_mutex_t refs_mutex = PTHREAD_MUTEX_INITIALIZER;
static hive_ref_t refs[SLOTS];
static atomic_int budget;
static _Atomic uint64_t hive_sent, hive_handled, hive_refused, hive_spawned;

static void hive_tell(troupe_from_t from, struct tri_random *random)
{
    uint32_t at = tri_random_below(random, SLOTS);
    hive_ref_t to;

    if (atomic_fetch_sub(&budget, 1) <= 0)
        return;
    pthread_mutex_lock(&refs_mutex);
    to = refs[at];
    pthread_mutex_unlock(&refs_mutex);
    atomic_fetch_add(&hive_sent, 1); /* first: it may be handled at once */
    if (hive_work(from, to, (hive_work_t){ tri_random_next(random), at }) !=
        0) {
        atomic_fetch_add(&hive_refused, 1);
        atomic_fetch_sub(&hive_sent, 1);
    }
}

static int hive_replace(troupe_from_t from, uint32_t at);

static int on_work(troupe_self_t *self, struct hive *h, const hive_work_t *m)
{
    struct tri_random random;
    int rc = 0;

    (void)h;
    tri_random_init(&random, m->seed);
    hive_tell(self, &random);
    hive_tell(self, &random);
    if (tri_random_below(&random, 16) == 0) {
        rc = hive_replace(self, m->at);
        troupe_exit(self);
    }
    atomic_fetch_add(&hive_handled, 1); /* last: what it sent is counted */
    return rc;
}

TROUPE_ACTOR(hive, struct hive, .work = on_work)

static int hive_replace(troupe_from_t from, uint32_t at)
{
    hive_ref_t ref;
    int rc = hive_spawn(from, NULL, NULL, &ref);

    if (rc != 0)
        return rc;
    atomic_fetch_add(&hive_spawned, 1);
    pthread_mutex_lock(&refs_mutex);
    refs[at] = ref;
    pthread_mutex_unlock(&refs_mutex);
    return 0;
}

static bool hive_is_done(void *arg)
{
    uint64_t dead = troupe_dead_letters_count(arg);

    return atomic_load(&hive_handled) + dead == atomic_load(&hive_sent);
}

static void run_hive(int workers)
{
    troupe_t *troupe = start(workers);
    uint64_t deadline_ns = tri_deadline_ns(3 * SOON_MS);
    struct tri_random random;

    tri_random_init(&random, unit_seed("hive"));
    hive_sent = hive_handled = hive_refused = hive_spawned = 0;
    budget = BUDGET;
    for (uint32_t i = 0; i < SLOTS; i++)
        assert_int_equal(hive_replace(troupe, i), 0);
    while (atomic_load(&budget) > 0 && tri_now_ns() < deadline_ns) {
        for (int i = 0; i < 20; i++)
            hive_tell(troupe, &random);
        assert_int_equal(troupe_serve(troupe, 0), 0);
    }
    assert_true(wait_until(hive_is_done, troupe));
    assert_true(atomic_load(&budget) <= 0);
    printf("hive: %llu sent, %llu handled, %llu refused at once, %llu actors\n",
           (unsigned long long)hive_sent, (unsigned long long)hive_handled,
           (unsigned long long)hive_refused, (unsigned long long)hive_spawned);
    stop();
}

static void test_hive(void **state)
{
    (void)state;
    run_hive(4);
    run_hive(1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, NULL, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_failed_spawn_runs_nothing),
        TEST(test_flood_of_stops),
        TEST(test_behind_a_computing_handler),
        TEST(test_asker_that_waited_aside),
        TEST(test_second_wait_of_a_late_guest),
        TEST(test_hive),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
