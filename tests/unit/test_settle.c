/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A member from view to view, as the agreement and the other members' reports
 * are made up: what is known of a step is not lost when the next view is too
 * small, and a host is lost once, wherever its members are.
 */
#include "unit.h"

#include "tensor/training.h"

enum { MEMBERS = 4, OWN = 1 };

/* What comes next: a view, and what its members report. */
struct next {
    int rc;
    uint32_t active, losses;
    bool is_refused; /* its last member has registered something else */
    uint64_t hosts[MEMBERS];
};

static const struct next *next;
static struct tri_view_member list[MEMBERS];
static struct tri_view view;

int __wrap_troupe_group_update(troupe_group_t *, int, int, troupe_view_t *);
int __wrap_troupe_group_update(troupe_group_t *group, int collective,
                               int timeout_ms, troupe_view_t *view_p)
{
    (void)group;
    (void)collective;
    (void)timeout_ms;
    (void)view_p;
    for (uint32_t i = 0; i < next->active; i++)
        list[i] = (struct tri_view_member){
            .node = OWN + i,
            .host = next->hosts[i],
        };
    view = (struct tri_view){
        .epoch = view.epoch + 1,
        .len = next->active,
        .active = next->active,
        .losses = next->losses,
        .members = list,
    };
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
        .losses = view.losses,
    };
}

const struct tri_view *__wrap_tri_view_adopted(const struct troupe_group *);
const struct tri_view *__wrap_tri_view_adopted(const struct troupe_group *group)
{
    (void)group;
    return &view;
}

/* Others have no state; the second word is the hash of what they registered. */
int __wrap_troupe_allgather(troupe_group_t *, const void *, void *, size_t,
                            enum troupe_datatype, int);
int __wrap_troupe_allgather(troupe_group_t *group, const void *in, void *out,
                            size_t count, enum troupe_datatype type,
                            int timeout_ms)
{
    uint64_t *reports = out;
    size_t words = count / sizeof(*reports);

    (void)group;
    (void)type;
    (void)timeout_ms;
    memset(out, 0, count * view.active);
    memcpy(out, in, count);
    for (uint32_t i = 1; i < view.active; i++) {
        reports[i * words] = OWN + i;
        reports[i * words + 1] = reports[1];
    }
    if (next->is_refused)
        reports[(view.active - 1) * words + 1]++;
    next++;
    return 0;
}

static struct troupe_training training;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_paused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_finished, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hosts, setup, teardown),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
