/* SPDX-License-Identifier: BSD-3-Clause */
/* The actor table: slots, generations, limits. */
#include "unit.h"

#include "actor/actor.h"

#define ACTORS_MAX 10000u /* more than two chunks' cells */
#define THREADS 4u
#define ROUNDS 20000u

static int setup(void **state)
{
    struct tri_actor_table *table = malloc(sizeof(*table));

    if (table == NULL || tri_actor_table_init(table, ACTORS_MAX) != 0)
        return -1;
    *state = table;
    return 0;
}

static int teardown(void **state)
{
    tri_actor_table_fini(*state);
    free(*state);
    return 0;
}

/* As spawn does: the generation makes it public. */
static struct tri_actor *spawn(struct tri_actor_table *table)
{
    struct tri_actor *actor = NULL;

    assert_int_equal(tri_actor_table_take(table, &actor), 0);
    tri_actor_generation_advance(actor);
    return actor;
}

/* As the end of an actor does. */
static void end(struct tri_actor_table *table, struct tri_actor *actor)
{
    tri_actor_generation_advance(actor);
    assert_true(tri_mailbox_release(&actor->mailbox));
    tri_actor_table_put(table, actor);
}

static void test_find(void **state)
{
    struct tri_actor_table *table = *state;
    struct tri_actor *actor = NULL;
    uint32_t slot, generation;

    assert_null(tri_actor_find(table, 0, 0));
    assert_null(tri_actor_find(table, 1, 1));
    assert_null(tri_actor_find(table, UINT32_MAX, 1));
    assert_int_equal(tri_actor_table_take(table, &actor), 0);
    slot = actor->slot;
    assert_int_not_equal(slot, 0); /* that is the node */
    assert_null(tri_actor_find(table, slot, 0));
    assert_null(tri_actor_find(table, slot, 1)); /* not public yet */
    generation = tri_actor_generation_advance(actor);
    assert_int_equal(generation & 1, 1);
    assert_ptr_equal(tri_actor_find(table, slot, generation), actor);
    assert_null(tri_actor_find(table, slot, generation + 1));
    assert_null(tri_actor_find(table, slot, generation + 2));
    end(table, actor);
    assert_null(tri_actor_find(table, slot, generation));
    assert_null(tri_actor_find(table, slot, generation + 1)); /* even */
}

static void test_slots_are_used_again(void **state)
{
    struct tri_actor_table *table = *state;
    struct tri_actor *actor = spawn(table);
    uint32_t slot = actor->slot;
    uint32_t before = atomic_load(&actor->generation);

    end(table, actor);
    assert_ptr_equal(spawn(table), actor);
    assert_int_equal(actor->slot, slot);
    assert_int_equal(atomic_load(&actor->generation), before + 2);
    assert_null(tri_actor_find(table, slot, before));
    assert_int_equal(tri_actor_table_len(table), 1);
    assert_int_equal(atomic_load(&table->alive), 1);
}

/* A cell with a stray in it is not taken, and not lost either. */
static void test_stray_in_a_free_cell(void **state)
{
    struct tri_actor_table *table = *state;
    struct tri_actor *actor = spawn(table), *other;
    struct tri_message stray = { 0 };
    uint32_t n;

    end(table, actor);
    assert_int_equal(tri_mailbox_push(&actor->mailbox, &stray, true),
                     TRI_PUSH_OWNER);
    other = spawn(table);
    assert_ptr_not_equal(other, actor);
    assert_ptr_equal(tri_mailbox_take(&actor->mailbox, &n), &stray);
    assert_true(tri_mailbox_release(&actor->mailbox));
    assert_ptr_equal(spawn(table), actor);
}

static void test_retired_slots(void **state)
{
    struct tri_actor_table *table = *state;
    struct tri_actor *actor = spawn(table);
    uint32_t slot = actor->slot;

    atomic_store(&actor->generation, UINT32_MAX - 2); /* odd: alive */
    assert_ptr_equal(tri_actor_find(table, slot, UINT32_MAX - 2), actor);
    end(table, actor);
    assert_int_equal(atomic_load(&table->alive), 0);
    assert_ptr_not_equal(spawn(table), actor); /* never again */
    assert_null(tri_actor_find(table, slot, UINT32_MAX - 2));
    assert_null(tri_actor_find(table, slot, UINT32_MAX));
    assert_null(tri_actor_find(table, slot, 1));

    actor = spawn(table);
    atomic_store(&actor->generation, UINT32_MAX - 4);
    end(table, actor);
    assert_ptr_equal(spawn(table), actor); /* its last life */
    assert_int_equal(atomic_load(&actor->generation), UINT32_MAX - 2);
}

static void test_actors_max(void **state)
{
    struct tri_actor_table *table = *state;
    struct tri_actor **actors = calloc(ACTORS_MAX, sizeof(struct tri_actor *));
    struct tri_actor *more;

    assert_non_null(actors);
    for (uint32_t i = 0; i < ACTORS_MAX; i++) {
        actors[i] = spawn(table);
        assert_int_equal(actors[i]->slot, i + 1);
    }
    assert_int_equal(tri_actor_table_take(table, &more), TROUPE_ELIMIT);
    assert_int_equal(tri_actor_table_len(table), ACTORS_MAX);
    end(table, actors[5000]);
    assert_ptr_equal(spawn(table), actors[5000]);
    assert_int_equal(tri_actor_table_take(table, &more), TROUPE_ELIMIT);
    for (uint32_t i = 0; i < ACTORS_MAX; i++)
        end(table, actors[i]);
    assert_int_equal(atomic_load(&table->alive), 0);
    free(actors);
}

/* Nobody gets a cell that somebody else has. */
static _Atomic uint32_t doubled;

static void *churn(void *arg)
{
    struct tri_actor_table *table = arg;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct tri_actor *actor;

        if (tri_actor_table_take(table, &actor) != 0) {
            atomic_fetch_add(&doubled, 1);
            break;
        }
        tri_actor_generation_advance(actor);
        if (actor->taken_len++ != 0) /* the owner's alone */
            atomic_fetch_add(&doubled, 1);
        actor->taken_len--;
        tri_actor_generation_advance(actor);
        if (!tri_mailbox_release(&actor->mailbox))
            atomic_fetch_add(&doubled, 1);
        tri_actor_table_put(table, actor);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct tri_actor_table *table = *state;
    pthread_t threads[THREADS];

    for (uint32_t i = 0; i < THREADS; i++)
        threads[i] = unit_thread(churn, table);
    for (uint32_t i = 0; i < THREADS; i++)
        unit_join(threads[i]);
    assert_int_equal(doubled, 0);
    assert_int_equal(atomic_load(&table->alive), 0);
    assert_true(tri_actor_table_len(table) <= THREADS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* A worker's cells: no cell twice, and all of them are accounted for. */
static void test_cells(void **state)
{
    static struct tri_actor *taken[1000];
    struct tri_actor_table table;
    struct tri_cells cells = { 0 };

    (void)state;
    assert_int_equal(tri_actor_table_init(&table, TRI_CELLS_ACTORS_MIN), 0);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < tri_array_len(taken); i++) {
            assert_int_equal(tri_cells_take(&table, &cells, &taken[i]), 0);
            assert_true(tri_mailbox_is_empty(&taken[i]->mailbox)); /* owned */
            for (size_t j = i > 100 ? i - 100 : 0; j < i; j++)
                assert_ptr_not_equal(taken[i], taken[j]);
        }
        assert_int_equal(atomic_load(&table.alive) - atomic_load(&cells.len),
                         tri_array_len(taken));
        for (size_t i = 0; i < tri_array_len(taken); i++) {
            assert_true(tri_mailbox_release(&taken[i]->mailbox));
            tri_cells_put(&table, &cells, taken[i]);
            assert_true(atomic_load(&cells.len) <= 2 * TRI_CELLS_BATCH);
        }
        assert_int_equal(atomic_load(&table.alive), atomic_load(&cells.len));
    }
    assert_true(tri_actor_table_len(&table) <=
                tri_array_len(taken) + TRI_CELLS_BATCH);
    tri_actor_table_fini(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_find),
        TEST(test_slots_are_used_again),
        TEST(test_stray_in_a_free_cell),
        TEST(test_retired_slots),
        TEST(test_actors_max),
        TEST(test_threads),
        cmocka_unit_test(test_cells),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
