/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A member from view to view, as the agreement and the other members' reports
 * are made up: what is known of a step is not lost when the next view is too
 * small, nor is the last step of one that is alone, a host is lost once,
 * wherever its members are, who fetches the state is waited for, all give a
 * step up at the same time, who was not needed hears of the end whichever view
 * it is in, and a step without one of its reductions counts for nobody.
 */
#include "unit.h"

#include <troupe/member.h>

#include "tensor/training.h"

enum { MEMBERS = 4, OWN = 1 };

/* What comes next: a view, and what its members report. */
struct next {
    int rc;
    uint32_t active, losses;
    bool has_left;   /* who is gone */
    bool is_refused; /* its last member has registered something else */
    uint64_t undone; /* how often that has begun the step; it has the state.
                        0: it has none */
    int told;        /* a member cannot go on; 0: all can */
    int own;         /* this one cannot */
    bool is_spare;   /* this one is: then there are no reports */
    bool is_end;     /* the others say that they are done, with the view; */
    bool is_end_late; /* with the reports */
    uint64_t hosts[MEMBERS];
};

static const struct next *next;
static struct troupe_training training;
static int update_ms; /* the last one may have taken */
static struct tri_view_member list[MEMBERS];
static struct tri_view view;

int __wrap_troupe_group_update(troupe_group_t *, int, int, troupe_view_t *);
int __wrap_troupe_group_update(troupe_group_t *group, int collective,
                               int timeout_ms, troupe_view_t *view_p)
{
    (void)group;
    (void)collective;
    (void)view_p;
    update_ms = timeout_ms;
    for (uint32_t i = 0; i < next->active; i++)
        list[i] = (struct tri_view_member){
            .node = OWN + i,
            .host = next->hosts[i],
        };
    view = (struct tri_view){
        .epoch = view.epoch + 1,
        .len = next->active,
        .active = next->active,
        .index = next->is_spare ? (int32_t)next->active : 0,
        .losses = next->losses,
        .members = list,
    };
    if (next->is_end)
        atomic_store(&training.finished_said, true);
    if (next->is_spare)
        return next++->rc;
    return next->rc;
}

void __wrap_troupe_group_view(const troupe_group_t *, troupe_view_t *);
void __wrap_troupe_group_view(const troupe_group_t *group,
                              troupe_view_t *view_p)
{
    (void)group;
    *view_p = (troupe_view_t){
        .epoch = view.epoch,
        .active = view.active,
        .index = view.index,
        .losses = view.losses,
    };
}

const struct tri_view *__wrap_tri_view_adopted(const struct troupe_group *);
const struct tri_view *__wrap_tri_view_adopted(const struct troupe_group *group)
{
    (void)group;
    return &view;
}

/* The second word is the hash of what is registered, the fifth is how often the
 * step was begun, the sixth its number. */
enum { REGISTERED = 1, UNDONE = 4, COMMITTED = 5, FLAGS = 7 };

static uint64_t reported[FLAGS + 1]; /* by this member, the last time */

/* Others have no state, as a rule. */
int __wrap_troupe_allgather(troupe_group_t *, const void *, void *, size_t,
                            enum troupe_datatype, int);
int __wrap_troupe_allgather(troupe_group_t *group, const void *in, void *out,
                            size_t count, enum troupe_datatype type,
                            int timeout_ms)
{
    uint64_t *reports = out, *last;
    size_t words = count / sizeof(*reports);

    (void)group;
    (void)type;
    (void)timeout_ms;
    memset(out, 0, count * view.active);
    memcpy(out, in, count);
    for (uint32_t i = 1; i < view.active; i++) {
        reports[i * words] = OWN + i;
        reports[i * words + REGISTERED] = reports[REGISTERED];
    }
    memcpy(reported, in, sizeof(reported));
    last = &reports[(view.active - 1) * words];
    last[REGISTERED] += next->is_refused;
    if (next->undone > 0) {
        last[UNDONE] = next->undone;
        last[COMMITTED] = 0;
        last[FLAGS] = TRI_STEP_HAS_STATE;
    }
    if (next->is_end_late)
        atomic_store(&training.finished_said, true);
    next++;
    return next[-1].told != 0 ? next[-1].told : next[-1].own;
}

bool __wrap_tri_front_was_told(struct troupe_group *);
bool __wrap_tri_front_was_told(struct troupe_group *group)
{
    (void)group;
    return next[-1].told != 0;
}

static uint32_t renewed;

void __wrap_tri_view_renew(struct troupe_group *);
void __wrap_tri_view_renew(struct troupe_group *group)
{
    (void)group;
    renewed++;
}

/* All vote the same. */
int __wrap_troupe_allreduce(troupe_group_t *, const void *, void *, size_t,
                            enum troupe_datatype, enum troupe_op, int);
int __wrap_troupe_allreduce(troupe_group_t *group, const void *in, void *out,
                            size_t count, enum troupe_datatype type,
                            enum troupe_op op, int timeout_ms)
{
    (void)group;
    (void)op;
    (void)timeout_ms;
    memcpy(out, in, count * troupe_datatype_bytes(type));
    return 0;
}

int __wrap_troupe_member_get(troupe_from_t, uint64_t, troupe_member_t *);
int __wrap_troupe_member_get(troupe_from_t from, uint64_t node,
                             troupe_member_t *member_p)
{
    (void)from;
    *member_p = (troupe_member_t){
        .node = node,
        .state = next->has_left ? TROUPE_MEMBER_LEFT : TROUPE_MEMBER_DEAD,
    };
    return 0;
}

static int barriers;

int __wrap_troupe_barrier(troupe_group_t *, int);
int __wrap_troupe_barrier(troupe_group_t *group, int timeout_ms)
{
    (void)group;
    (void)timeout_ms;
    barriers++;
    return 0;
}

bool __wrap_tri_view_wants_boundary(const struct troupe_group *);
bool __wrap_tri_view_wants_boundary(const struct troupe_group *group)
{
    (void)group;
    return false;
}

static struct tri_runtime runtime;

static int setup(void **state)
{
    (void)state;
    memset(&training, 0, sizeof(training));
    view = (struct tri_view){ 0 };
    runtime.starter = pthread_self();
    runtime.node = OWN;
    training.runtime = &runtime;
    training.group = (struct troupe_group *)&view;
    training.events =
        calloc(TROUPE_TRAINING_EVENTS_MAX, sizeof(*training.events));
    troupe_training_options_init(&training.options);
    tri_step_core_init(&training.core, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(training.events);
    free(training.nodes);
    free(training.hosts);
    free(training.has_state_at);
    return 0;
}

/* A step of which this member has voted, alone, when its view was over. */
static void open_step(struct tri_reduction *reduction)
{
    struct tri_step_report report;

    tri_step_adopt(&training.core, 0);
    tri_step_report(&training.core, &report);
    tri_step_reconcile(&training.core, &report, 1);
    tri_step_begin(&training.core);
    training.core.epoch = 1;
    tri_step_prepared(&training.core);
    training.core.epoch = 0;
    training.step = (troupe_step_t){ .training = &training };
    training.is_open = true;
    training.is_over = true;
    training.reductions = reduction;
    training.reductions_len = training.reductions_ended = 1;
}

/* All know that it counts, and meet who is refused: too few are left then.
 * epochs: of one step each; 0: for ever. */
static void check_paused(uint64_t epochs)
{
    static const struct next views[] = {
        { .active = 2, .hosts = { 1, 2 }, .is_refused = true },
        { .active = 1, .hosts = { 1 }, .rc = TROUPE_EPAUSED },
        { .active = 2, .hosts = { 1, 2 } },
    };
    uint64_t data = 0, result = 42;
    struct tri_reduction reduction = { .data = &data,
                                       .result = (unsigned char *)&result,
                                       .bytes = sizeof(result) };
    int rc;

    training.options.samples = epochs;
    training.options.epochs = epochs;
    training.options.pause_timeout_ms = epochs == 0 ? 0 : TROUPE_FOREVER;
    assert_int_equal(tri_sampler_init(&training.sampler, &training.options),
                     0);
    open_step(&reduction);
    next = views;
    rc = troupe_step_commit(&training.step);
    if (epochs == 0) {
        assert_int_equal(rc, TROUPE_EPAUSED);
        assert_int_equal(data, 0);
        assert_int_equal(training.core.committed, 1);
        assert_int_equal(troupe_step_cancel(&training.step, 0),
                         TROUPE_EINVAL);
        next = &views[2];
        rc = troupe_step_commit(&training.step);
    }
    assert_int_equal(rc, TROUPE_COMMITTED);
    assert_int_equal(data, 42);
    assert_int_equal(training.stats.steps, 1);
    assert_int_equal(training.core.committed, 1);
    assert_false(training.is_open);
}

static void test_paused(void **state)
{
    (void)state;
    check_paused(0);
}

/* It was the last step. */
static void test_finished(void **state)
{
    troupe_step_t step;

    (void)state;
    check_paused(1);
    assert_int_equal(troupe_step_begin(&training, &step), TROUPE_FINISHED);
}

/* Too few are left, it alone; steps: so many in all. */
static void check_alone(uint64_t steps, int rc)
{
    static const struct next views[] = {
        { .active = 1, .hosts = { 1 }, .losses = 1, .rc = TROUPE_EPAUSED },
    };
    static uint64_t data, result = 42;
    static struct tri_reduction reduction = {
        .data = &data,
        .result = (unsigned char *)&result,
        .bytes = sizeof(result),
    };

    data = 0;
    training.options.samples = steps;
    training.options.epochs = 1;
    training.options.group.size_min = 2;
    training.options.pause_timeout_ms = 0;
    assert_int_equal(tri_sampler_init(&training.sampler, &training.options),
                     0);
    open_step(&reduction);
    next = views;
    assert_int_equal(troupe_step_commit(&training.step), rc);
    assert_int_equal(data, rc == TROUPE_COMMITTED ? 42 : 0);
}

/* All were prepared for the last step: it needs nobody any more. */
static void test_last_alone(void **state)
{
    troupe_step_t step;

    (void)state;
    check_alone(1, TROUPE_COMMITTED);
    assert_int_equal(training.core.committed, 1);
    assert_int_equal(troupe_step_begin(&training, &step), TROUPE_FINISHED);
}

/* Of another step it hears when there are enough. */
static void test_alone(void **state)
{
    static const struct next enough = { .active = 2, .hosts = { 1, 2 } };

    (void)state;
    check_alone(2, TROUPE_EPAUSED);
    next = &enough;
    assert_int_equal(troupe_step_commit(&training.step), TROUPE_COMMITTED);
}

static void test_hosts(void **state)
{
    static const struct next views[] = {
        { .active = 4, .hosts = { 20, 10, 20, 10 } },
        { .active = 2, .hosts = { 20, 20 }, .losses = 2 },
        { .active = 4, .hosts = { 20, 10, 20, 10 } },
        { .active = 2, .hosts = { 20, 20 }, .losses = 2 },
    };

    (void)state;
    next = views;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tri_training_settle(&training), 0);
        assert_ptr_equal(next, &views[i + 1]);
        assert_int_equal(tri_training_block_of(&training, 10)->until_ns != 0,
                         i == 3);
        assert_int_equal(tri_training_block_of(&training, 20)->until_ns, 0);
    }
}

/* Somebody died, but not there. */
static void test_host_left(void **state)
{
    static const struct next views[] = {
        { .active = 4, .hosts = { 20, 10, 20, 10 } },
        { .active = 2, .hosts = { 20, 20 }, .losses = 2, .has_left = true },
        { .active = 4, .hosts = { 20, 10, 20, 10 } },
        { .active = 2, .hosts = { 20, 20 }, .losses = 2, .has_left = true },
    };

    (void)state;
    next = views;
    for (int i = 0; i < 4; i++)
        assert_int_equal(tri_training_settle(&training), 0);
    assert_int_equal(tri_training_block_of(&training, 10)->losses_ns[1], 0);
}

/* Twice in five minutes, and again and again; then not for an hour. */
static void test_block(void **state)
{
    const uint64_t second_ns = 1000 * TRI_NS_PER_MS, hour_ns = 3600 * second_ns;
    struct tri_block block = { .host = 1 };
    uint64_t now_ns = second_ns;

    (void)state;
    assert_false(tri_training_block_loss(&block, now_ns));
    now_ns += 301 * second_ns;
    assert_false(tri_training_block_loss(&block, now_ns));
    for (uint64_t ms = 10000; ms <= 40000; ms *= 2) {
        now_ns += 299 * second_ns;
        assert_true(tri_training_block_loss(&block, now_ns));
        assert_int_equal(block.until_ns - now_ns, ms * TRI_NS_PER_MS);
    }
    now_ns = block.until_ns + hour_ns;
    assert_false(tri_training_block_loss(&block, now_ns));
    assert_true(tri_training_block_loss(&block, ++now_ns));
    assert_int_equal(block.until_ns - now_ns, 80000 * TRI_NS_PER_MS);
    now_ns = block.until_ns + hour_ns + 1;
    assert_false(tri_training_block_loss(&block, now_ns));
    assert_true(tri_training_block_loss(&block, ++now_ns));
    assert_int_equal(block.until_ns - now_ns, 10000 * TRI_NS_PER_MS);
}

/* Until the first commit with it; by how long its state takes. Who is refused
 * fetches nothing. */
static void test_fetching(void **state)
{
    enum { STEP_MS = 200, FETCH_MS = 3000, FETCH_BYTES = 30000000 };
    static const struct next views[] = {
        { .active = 1, .hosts = { 1 } },
        { .active = 2, .hosts = { 1, 2 } },
        { .active = 3, .hosts = { 1, 2, 3 }, .is_refused = true },
        { .active = 2, .hosts = { 1, 2 } },
    };
    static const int waits[] = { STEP_MS, STEP_MS + FETCH_MS,
                                 STEP_MS + FETCH_MS };
    troupe_step_t step;

    (void)state;
    training.options.step_timeout_ms = STEP_MS;
    training.states.replicated_bytes = FETCH_BYTES;
    next = views;
    for (size_t i = 0; i < tri_array_len(waits); i++) {
        assert_int_equal(troupe_step_begin(&training, &step), 0);
        assert_int_equal(tri_training_timeout_ms(&training), waits[i]);
        assert_int_equal(troupe_step_commit(&step), TROUPE_COMMITTED);
        assert_int_equal(tri_training_timeout_ms(&training), STEP_MS);
    }
    assert_ptr_equal(next, &views[4]);
    assert_int_equal(update_ms, STEP_MS);
}

/* The others have begun the step so often, this one never. */
static void check_undone(uint64_t undone, int rc, bool has_state)
{
    const struct next views[] = {
        { .active = 2, .hosts = { 1, 2 }, .undone = undone },
        { .active = 1, .hosts = { 1 } },
    };
    troupe_step_t step;

    barriers = 0;
    training.options.retries_max = 16;
    tri_step_core_init(&training.core, has_state);
    next = views;
    assert_int_equal(troupe_step_begin(&training, &step), rc);
    assert_int_equal(reported[UNDONE], 0);
    assert_int_equal(barriers, rc != 0); /* nobody goes before all know */
    if (rc != 0) {
        assert_int_equal(troupe_step_begin(&training, &step), rc);
        return;
    }
    assert_int_equal(step.retry, 0);
    assert_int_equal(troupe_step_commit(&step), TROUPE_COMMITTED);
    assert_int_equal(troupe_step_begin(&training, &step), 0);
    assert_int_equal(reported[UNDONE], 0);
    assert_int_equal(troupe_step_commit(&step), TROUPE_COMMITTED);
}

/* An elder, who was late, and who has just come: also before it fetches. */
static void test_others_give_up(void **state)
{
    (void)state;
    check_undone(17, TROUPE_EVIEW, true);
    (void)teardown(state);
    (void)setup(state);
    check_undone(17, TROUPE_EVIEW, false);
    (void)teardown(state);
    (void)setup(state);
    check_undone(16, 0, true);
}

/* A step whose view ends each time, before or after this member can vote. */
static void test_gives_up(void **state)
{
    static const struct next views[] = {
        { .active = 1, .hosts = { 1 } },
        { .active = 2, .hosts = { 1, 2 } },
        { .active = 2, .hosts = { 1, 2 } },
        { .active = 1, .hosts = { 1 } },
    };
    troupe_step_t step;

    (void)state;
    training.options.retries_max = 1;
    next = views;
    assert_int_equal(troupe_step_begin(&training, &step), 0);
    training.is_over = true;
    assert_int_equal(troupe_step_commit(&step), TROUPE_RETRY);
    assert_int_equal(troupe_step_begin(&training, &step), 0);
    assert_int_equal(reported[UNDONE], 1);
    training.is_over = true;
    assert_int_equal(troupe_step_cancel(&step, 0), TROUPE_RETRY);
    assert_int_equal(reported[UNDONE], 2);
    assert_int_equal(step.retry, 1);
    assert_int_equal(troupe_step_begin(&training, &step), TROUPE_EVIEW);
    assert_int_equal(reported[UNDONE], 2);
}

/* It is one of the options that all have alike. */
static void test_retries_max(void **state)
{
    static const struct next views[] = {
        { .active = 1, .hosts = { 1 } },
        { .active = 1, .hosts = { 1 } },
    };
    uint64_t registered;

    (void)state;
    next = views;
    assert_int_equal(tri_training_settle(&training), 0);
    registered = reported[REGISTERED];
    training.options.retries_max++;
    assert_int_equal(tri_training_settle(&training), 0);
    assert_int_not_equal(reported[REGISTERED], registered);
}

/* Others go on without a member that cannot; that one hears why. */
static void test_one_cannot_go_on(void **state)
{
    static const struct next views[] = {
        { .active = 3, .hosts = { 1, 2, 3 }, .told = TROUPE_ENOMEM },
        { .active = 2, .hosts = { 1, 2 }, .told = TROUPE_EMPI },
        { .active = 2, .hosts = { 1, 2 } },
        { .active = 2, .hosts = { 1, 2 }, .own = TROUPE_ENOMEM },
    };

    (void)state;
    next = views;
    renewed = 0;
    assert_int_equal(tri_training_settle(&training), 0);
    assert_ptr_equal(next, &views[3]);
    assert_int_equal(renewed, 2);
    assert_int_equal(tri_training_settle(&training), TROUPE_ENOMEM);
    assert_int_equal(renewed, 2);
}

/* A spare until the others left: nobody has the state any more. */
static void check_end(const struct next *last, int rc)
{
    const struct next views[] = {
        { .active = 2, .hosts = { 1, 2 }, .is_spare = true },
        *last,
    };
    troupe_step_t step;

    tri_step_core_init(&training.core, false);
    next = views;
    assert_int_equal(troupe_step_begin(&training, &step), rc);
    assert_int_equal(troupe_step_begin(&training, &step), rc);
    (void)teardown(NULL);
    (void)setup(NULL);
}

static void test_spare_hears_of_end(void **state)
{
    (void)state;
    check_end(&(struct next){ .active = 2, .is_spare = true, .is_end = true },
              TROUPE_FINISHED);
    check_end(&(struct next){ .active = 1, .is_end = true }, TROUPE_FINISHED);
    check_end(&(struct next){ .active = 1, .is_end_late = true },
              TROUPE_FINISHED);
    training.options.pause_timeout_ms = 0;
    check_end(&(struct next){ .active = 1, .rc = TROUPE_EPAUSED,
                              .is_end = true },
              TROUPE_FINISHED);
    check_end(&(struct next){ .active = 1 }, TROUPE_ENODE);
}

/* A program that does not look at what starting a reduction returned. */
static void test_not_started(void **state)
{
    static const struct next alone = { .active = 1, .hosts = { 1 } };
    troupe_step_t step;
    float data = 1;

    (void)state;
    next = &alone;
    assert_int_equal(troupe_step_begin(&training, &step), 0);
    (void)troupe_step_allreduce(&step, &data, SIZE_MAX, TROUPE_FLOAT,
                                TROUPE_SUM);
    assert_int_equal(troupe_step_allreduce(&step, &data, 0, TROUPE_FLOAT,
                                           TROUPE_SUM),
                     TROUPE_EINVAL);
    assert_int_equal(troupe_step_commit(&step), TROUPE_EINVAL);
    assert_int_equal(training.core.committed, 0);
    assert_int_equal(training.stats.steps, 0);
    assert_int_equal(troupe_step_begin(&training, &step), TROUPE_EINVAL);
}

/* One that does withdraws from the step, and goes on. */
static void test_not_started_cancelled(void **state)
{
    static const struct next views[] = {
        { .active = 1, .hosts = { 1 } },
        { .active = 1, .hosts = { 1 } },
        { .active = 1, .hosts = { 1 } },
    };
    troupe_step_t step;

    (void)state;
    next = views;
    assert_int_equal(troupe_step_begin(&training, &step), 0);
    assert_int_equal(troupe_step_allreduce(&step, NULL, 1, TROUPE_FLOAT,
                                           TROUPE_SUM),
                     TROUPE_EINVAL);
    assert_int_equal(troupe_step_cancel(&step, 0), TROUPE_RETRY);
    assert_int_equal(troupe_step_begin(&training, &step), 0);
    assert_int_equal(troupe_step_commit(&step), TROUPE_COMMITTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_paused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_finished, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hosts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_left, setup, teardown),
        cmocka_unit_test(test_block),
        cmocka_unit_test_setup_teardown(test_fetching, setup, teardown),
        cmocka_unit_test_setup_teardown(test_others_give_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gives_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retries_max, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_cannot_go_on, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_spare_hears_of_end, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_not_started, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_started_cancelled, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
