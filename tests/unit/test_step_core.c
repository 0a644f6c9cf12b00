/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The step transaction: some cases by hand, and many runs of several members
 * that die, are shut out, join, cancel and fall behind at random, under an
 * agreement that is made up. Whatever was committed for a step, anywhere, by
 * the living or the dead, is the same. Only a step that none but the lost have
 * skipped is done by those that go on: they have not heard of it.
 */
#include "unit.h"

#include "tensor/step_core.h"

static struct tri_step_core core_at(uint64_t epoch)
{
    struct tri_step_core core;

    tri_step_core_init(&core, true);
    tri_step_adopt(&core, epoch);
    return core;
}

static void reconcile_alone(struct tri_step_core *core)
{
    struct tri_step_report report;

    tri_step_report(core, &report);
    tri_step_reconcile(core, &report, 1);
}

static void test_commit(void **state)
{
    struct tri_step_core core = core_at(1);

    (void)state;
    reconcile_alone(&core);
    for (uint64_t step = 0; step < 5; step++) {
        assert_int_equal(core.committed, step);
        tri_step_begin(&core);
        tri_step_prepared(&core);
        tri_step_voted(&core);
    }
    assert_int_equal(core.committed, 5);
}

static void test_over_while_open(void **state)
{
    struct tri_step_core core = core_at(1);
    struct tri_step_report reports[2];

    (void)state;
    reconcile_alone(&core);
    tri_step_begin(&core);
    assert_true(tri_step_over(&core));
    tri_step_adopt(&core, 2);
    tri_step_report(&core, &reports[0]);
    reports[1] = (struct tri_step_report){ 0, 1, TRI_STEP_HAS_STATE };
    assert_int_equal(tri_step_reconcile(&core, reports, 2), TRI_STEP_RETRY);
    assert_int_equal(core.committed, 0);
}

static struct tri_step_core prepared_at(uint64_t epoch)
{
    struct tri_step_core core = core_at(epoch);

    reconcile_alone(&core);
    tri_step_begin(&core);
    tri_step_prepared(&core);
    assert_false(tri_step_over(&core));
    tri_step_adopt(&core, epoch + 1);
    return core;
}

static enum tri_step_outcome with(struct tri_step_core *core,
                                  struct tri_step_report other)
{
    struct tri_step_report reports[2];

    tri_step_report(core, &reports[0]);
    reports[1] = other;
    return tri_step_reconcile(core, reports, 2);
}

static void test_over_while_prepared(void **state)
{
    const struct {
        struct tri_step_report other;
        enum tri_step_outcome outcome;
    } cases[] = {
        /* has committed it */
        { { 1, 0, TRI_STEP_HAS_STATE }, TRI_STEP_COMMIT },
        /* is prepared, too; or in another view */
        { { 0, 1, TRI_STEP_HAS_STATE }, TRI_STEP_COMMIT },
        { { 0, 2, TRI_STEP_HAS_STATE }, TRI_STEP_RETRY },
        { { 0, 0, TRI_STEP_HAS_STATE }, TRI_STEP_RETRY },
        /* has just come */
        { { 0, 0, 0 }, TRI_STEP_COMMIT },
        { { 7, 0, 0 }, TRI_STEP_COMMIT },
        /* withdraws */
        { { 0, 0, TRI_STEP_HAS_STATE | TRI_STEP_CANCELS }, TRI_STEP_RETRY },
        { { 0, 0,
            TRI_STEP_HAS_STATE | TRI_STEP_CANCELS | TRI_STEP_SKIPS },
          TRI_STEP_SKIP },
        { { 1, 0, TRI_STEP_HAS_STATE | TRI_STEP_WAS_SKIPPED },
          TRI_STEP_SKIP },
        { { 2, 0, TRI_STEP_HAS_STATE }, TRI_STEP_BROKEN },
    };

    (void)state;
    for (size_t i = 0; i < tri_array_len(cases); i++) {
        struct tri_step_core core = prepared_at(1);

        assert_int_equal(with(&core, cases[i].other), cases[i].outcome);
    }
}

static void test_joiner(void **state)
{
    struct tri_step_core core;

    (void)state;
    tri_step_core_init(&core, false);
    tri_step_adopt(&core, 9);
    assert_int_equal(with(&core, (struct tri_step_report){
                                     41, 0, TRI_STEP_HAS_STATE }),
                     TRI_STEP_SYNC);
    assert_int_equal(core.committed, 41);
    tri_step_synced(&core);
    tri_step_begin(&core);
    tri_step_prepared(&core);
    tri_step_voted(&core);
    assert_int_equal(core.committed, 42);
    tri_step_core_init(&core, false);
    tri_step_adopt(&core, 9);
    assert_int_equal(with(&core, (struct tri_step_report){ 0 }),
                     TRI_STEP_LOST);
}

/* A spare from the start has the state of no step but the first. */
static void test_spare(void **state)
{
    struct tri_step_core core = core_at(1);

    (void)state;
    tri_step_left_out(&core);
    tri_step_adopt(&core, 2);
    assert_int_equal(with(&core, (struct tri_step_report){
                                     30, 0, TRI_STEP_HAS_STATE }),
                     TRI_STEP_SYNC);
    assert_int_equal(core.committed, 30);
}

/* Who skipped it is gone; who came then tells who was late. */
static void test_joiner_tells_of_a_skip(void **state)
{
    struct tri_step_core joiner, late = core_at(1);
    struct tri_step_report report;

    (void)state;
    reconcile_alone(&late);
    tri_step_core_init(&joiner, false);
    tri_step_adopt(&joiner, 2);
    assert_int_equal(with(&joiner,
                          (struct tri_step_report){
                              0, 0,
                              TRI_STEP_HAS_STATE | TRI_STEP_CANCELS |
                                  TRI_STEP_SKIPS }),
                     TRI_STEP_SYNC);
    assert_int_equal(joiner.committed, 1);
    tri_step_synced(&joiner);
    tri_step_adopt(&joiner, 3);
    tri_step_report(&joiner, &report);
    tri_step_over(&late);
    tri_step_adopt(&late, 3);
    assert_int_equal(with(&late, report), TRI_STEP_SKIP);
}

/* Who withdraws is a step ahead of one that had not seen the vote's end: in a
 * second round they skip it together. */
static void test_skip_ahead(void **state)
{
    struct tri_step_core behind = prepared_at(1), ahead = core_at(1);
    struct tri_step_report reports[2];

    (void)state;
    reconcile_alone(&ahead);
    tri_step_begin(&ahead);
    tri_step_prepared(&ahead);
    tri_step_voted(&ahead);
    tri_step_begin(&ahead);
    tri_step_cancel(&ahead, true);
    assert_false(tri_step_over(&ahead));
    tri_step_adopt(&ahead, 2);
    for (int round = 0; round < 2; round++) {
        tri_step_report(&behind, &reports[0]);
        tri_step_report(&ahead, &reports[1]);
        assert_int_equal(tri_step_reconcile(&behind, reports, 2),
                         round == 0 ? TRI_STEP_COMMIT : TRI_STEP_SKIP);
        assert_int_equal(tri_step_reconcile(&ahead, reports, 2),
                         round == 0 ? TRI_STEP_NOTHING : TRI_STEP_SKIP);
        assert_int_equal(behind.phase, ahead.phase);
        assert_int_equal(ahead.phase,
                         round == 0 ? TRI_STEP_UNKNOWN : TRI_STEP_IDLE);
    }
    assert_int_equal(behind.committed, 2);
    assert_int_equal(ahead.committed, 2);
}

/* --- many members, at random -------------------------------------------------- */

enum {
    NODES = 48,     /* lives of a run */
    ALIVE_MAX = 6,
    STEPS_MAX = 400,
    SKIPPED = 77, /* instead of a result */
    EPOCHS_MAX = 4000,
};

/* What members have given to the collectives of an epoch. */
struct epoch {
    bool member[NODES];
    bool reported[NODES][2]; /* by round */
    struct tri_step_report reports[NODES][2];
    uint64_t reduced_of[NODES]; /* step + 1: the newest it gave data for */
    uint64_t voted_of[NODES];
};

struct node {
    bool alive;
    bool excluded; /* does not know that others went on */
    bool waits;    /* for the reports of others */
    bool sync_left;
    uint32_t round; /* of reports, in this view */
    struct tri_step_core core;
    uint64_t state; /* what the training has come to */
    uint64_t result; /* of the step it is prepared for */
    uint64_t retries;
};

struct world {
    struct tri_random random;
    struct epoch *epochs;
    uint64_t epoch; /* the newest */
    struct node nodes[NODES];
    uint32_t nodes_len;
    uint64_t results[STEPS_MAX]; /* what was committed; 0: nothing yet */
    uint64_t states[STEPS_MAX + 1];
    uint64_t committed, deaths, decided_late, skips;
};

static uint32_t below(struct world *world, uint32_t n)
{
    return tri_random_below(&world->random, n);
}

/* The agreement: all that live and are not shut out, and some more. */
static void next_view(struct world *world)
{
    struct epoch *epoch = &world->epochs[++world->epoch];

    assert_true(world->epoch < EPOCHS_MAX);
    for (uint32_t i = 0; i < world->nodes_len; i++)
        epoch->member[i] = world->nodes[i].alive && !world->nodes[i].excluded;
}

static void add_node(struct world *world, bool has_state)
{
    struct node *node = &world->nodes[world->nodes_len++];

    *node = (struct node){ .alive = true };
    tri_step_core_init(&node->core, has_state);
    if (has_state)
        node->state = 1;
}

static bool is_complete(struct world *world, const struct node *node,
                        const uint64_t of[NODES])
{
    struct epoch *epoch = &world->epochs[node->core.epoch];

    for (uint32_t i = 0; i < NODES; i++)
        if (epoch->member[i] && of[i] != node->core.committed + 1)
            return false;
    return true;
}

/* The sum: who took part, and in which step; never the same twice. */
static uint64_t sum_of(const struct world *world, const struct node *node)
{
    const struct epoch *epoch = &world->epochs[node->core.epoch];
    uint64_t sum = tri_mix64(node->core.epoch * 1000 + node->core.committed);

    for (uint32_t i = 0; i < NODES; i++)
        sum += epoch->member[i] ? tri_mix64(i + 1) : 0;
    return sum;
}

static bool is_newest_member(const struct world *world,
                             const struct node *node)
{
    return world->epochs[world->epoch].member[node - world->nodes];
}

/* Whether a member of its view has committed the step but itself. */
static bool have_others_committed(const struct world *world,
                                  const struct node *node, uint64_t step)
{
    const struct epoch *epoch = &world->epochs[node->core.epoch];

    for (uint32_t i = 0; i < world->nodes_len; i++)
        if (epoch->member[i] && &world->nodes[i] != node &&
            world->nodes[i].core.committed > step)
            return true;
    return false;
}

/* It has committed the step before its `committed`. */
static void check_committed(struct world *world, struct node *node,
                            uint64_t result)
{
    uint64_t step = node->core.committed - 1;

    assert_true(step < STEPS_MAX);
    if (result == SKIPPED && world->results[step] != 0 &&
        world->results[step] != SKIPPED && !is_newest_member(world, node))
        return; /* it is lost, and does not know */
    if (result != SKIPPED && world->results[step] == SKIPPED &&
        !have_others_committed(world, node, step))
        world->results[step] = world->states[step + 1] = 0;
    if (world->results[step] == 0)
        world->results[step] = result;
    assert_int_equal(world->results[step], result);
    node->state = tri_mix64(node->state + result);
    if (world->states[step + 1] == 0)
        world->states[step + 1] = node->state;
    assert_int_equal(world->states[step + 1], node->state);
    world->committed = tri_max(world->committed, step + 1);
}

static void conclude(struct world *world, struct node *node,
                     enum tri_step_outcome outcome)
{
    switch (outcome) {
    case TRI_STEP_COMMIT:
        world->decided_late++;
        check_committed(world, node, node->result);
        break;
    case TRI_STEP_SKIP:
        world->skips++;
        check_committed(world, node, SKIPPED);
        break;
    case TRI_STEP_SYNC:
        node->sync_left = true;
        break;
    case TRI_STEP_NOTHING:
    case TRI_STEP_RETRY:
        break;
    default:
        fail_msg("outcome %d", (int)outcome);
    }
}

static void say(struct world *world, struct node *node, uint32_t index)
{
    struct epoch *epoch = &world->epochs[node->core.epoch];

    assert_true(node->round < 2);
    tri_step_report(&node->core, &epoch->reports[index][node->round]);
    epoch->reported[index][node->round] = true;
    node->waits = true;
}

static void adopt(struct world *world, struct node *node, uint32_t index)
{
    if (node->core.phase != TRI_STEP_UNKNOWN)
        tri_step_over(&node->core);
    tri_step_adopt(&node->core, world->epoch);
    node->round = 0;
    say(world, node, index);
}

static void try_reports(struct world *world, struct node *node)
{
    struct epoch *epoch = &world->epochs[node->core.epoch];
    struct tri_step_report reports[NODES];
    uint32_t len = 0;

    for (uint32_t i = 0; i < NODES; i++) {
        if (!epoch->member[i])
            continue;
        if (!epoch->reported[i][node->round])
            return;
        reports[len++] = epoch->reports[i][node->round];
    }
    node->waits = false;
    conclude(world, node, tri_step_reconcile(&node->core, reports, len));
    if (node->core.phase == TRI_STEP_UNKNOWN) {
        node->round++;
        say(world, node, (uint32_t)(node - world->nodes));
    }
}

/* From one of its view that is as far, and is between begin and commit. */
static void try_sync(struct world *world, struct node *node)
{
    for (uint32_t i = 0; i < world->nodes_len; i++) {
        struct node *source = &world->nodes[i];

        if (source == node || !source->alive ||
            (source->core.flags & TRI_STEP_HAS_STATE) == 0 ||
            source->core.epoch != node->core.epoch ||
            source->core.phase == TRI_STEP_UNKNOWN)
            continue;
        assert_int_equal(source->core.committed, node->core.committed);
        node->state = source->state;
        node->sync_left = false;
        tri_step_synced(&node->core);
        return;
    }
}

static void move_on(struct world *world, struct node *node, uint32_t index)
{
    struct epoch *epoch = &world->epochs[node->core.epoch];

    switch (node->core.phase) {
    case TRI_STEP_UNKNOWN:
        if (node->waits)
            try_reports(world, node);
        break;
    case TRI_STEP_IDLE:
        if (node->sync_left) {
            try_sync(world, node);
            break;
        }
        tri_step_begin(&node->core);
        if (below(world, 200) == 0) {
            tri_step_cancel(&node->core, below(world, 2) == 0);
            next_view(world); /* so that the others hear of it */
        } else {
            epoch->reduced_of[index] = node->core.committed + 1;
        }
        break;
    case TRI_STEP_OPEN:
        if ((node->core.flags & TRI_STEP_CANCELS) ||
            !is_complete(world, node, epoch->reduced_of))
            break;
        node->result = sum_of(world, node);
        tri_step_prepared(&node->core);
        epoch->voted_of[index] = node->core.committed + 1;
        break;
    case TRI_STEP_PREPARED:
        if (!is_complete(world, node, epoch->voted_of))
            break;
        tri_step_voted(&node->core);
        check_committed(world, node, node->result);
        break;
    }
}

static uint32_t with_state(const struct world *world)
{
    uint32_t len = 0;

    for (uint32_t i = 0; i < world->nodes_len; i++)
        len += world->nodes[i].alive && !world->nodes[i].excluded &&
               (world->nodes[i].core.flags & TRI_STEP_HAS_STATE);
    return len;
}

static uint32_t members_alive(const struct world *world)
{
    uint32_t len = 0;

    for (uint32_t i = 0; i < world->nodes_len; i++)
        len += world->nodes[i].alive && !world->nodes[i].excluded;
    return len;
}

/* Somebody dies, is shut out, or comes; or the view is renewed. */
static void disturb(struct world *world)
{
    uint32_t what = below(world, 8);

    if (what < 4) {
        struct node *node = &world->nodes[below(world, world->nodes_len)];

        if (!node->alive || node->excluded || with_state(world) < 2)
            return;
        if (what == 0)
            node->excluded = true;
        else
            node->alive = false;
        world->deaths++;
        if (below(world, 3) == 0)
            return; /* the others find out with the next */
    } else if (what < 7 && world->nodes_len < NODES &&
               members_alive(world) < ALIVE_MAX) {
        add_node(world, false);
    } else if (what != 7) {
        return;
    }
    next_view(world);
}

static void run_world(struct world *world, uint64_t seed)
{
    tri_random_init(&world->random, seed);
    world->states[0] = 1;
    for (uint32_t i = 0; i < 4; i++)
        add_node(world, true);
    next_view(world);
    for (uint32_t turn = 0; turn < 20000 && world->committed < STEPS_MAX - 1;
         turn++) {
        uint32_t index = below(world, world->nodes_len);
        struct node *node = &world->nodes[index];

        if (below(world, 100) == 0)
            disturb(world);
        if (!node->alive)
            continue;
        if (node->core.epoch != world->epoch && !node->excluded &&
            world->epochs[world->epoch].member[index] &&
            below(world, 3) == 0)
            adopt(world, node, index);
        else
            move_on(world, node, index);
    }
}

static void test_random_worlds(void **state)
{
    const char *text = getenv("TROUPE_TEST_WORLDS");
    const uint32_t worlds = text != NULL ? (uint32_t)atoi(text) : 300;
    const uint64_t seed = unit_seed("random_worlds");
    struct world *world = malloc(sizeof(*world));
    struct epoch *epochs = malloc(EPOCHS_MAX * sizeof(*epochs));
    uint64_t committed = 0, deaths = 0, late = 0, skips = 0;

    (void)state;
    for (uint32_t i = 0; i < worlds; i++) {
        memset(world, 0, sizeof(*world));
        memset(epochs, 0, EPOCHS_MAX * sizeof(*epochs));
        world->epochs = epochs;
        run_world(world, seed + i);
        committed += world->committed;
        deaths += world->deaths;
        late += world->decided_late;
        skips += world->skips;
    }
    printf("%llu steps, %llu deaths, %llu commits after a death, %llu skips\n",
           (unsigned long long)committed, (unsigned long long)deaths,
           (unsigned long long)late, (unsigned long long)skips);
    /* all that the rules are for has happened */
    assert_true(committed > 10 * worlds && deaths > worlds);
    assert_true(worlds < 100 || (late > 0 && skips > 0));
    free(epochs);
    free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commit),
        cmocka_unit_test(test_over_while_open),
        cmocka_unit_test(test_over_while_prepared),
        cmocka_unit_test(test_joiner),
        cmocka_unit_test(test_joiner_tells_of_a_skip),
        cmocka_unit_test(test_skip_ahead),
        cmocka_unit_test(test_spare),
        cmocka_unit_test(test_random_worlds),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
