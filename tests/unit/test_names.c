/* SPDX-License-Identifier: BSD-3-Clause */
/* Names of a node's actors, and who waits for them. */
#include "unit.h"

#include "actor/names.h"

#define MANY 1000u
#define STEPS 20000u
#define KEYS 300u

static int setup(void **state)
{
    struct tri_names *names = malloc(sizeof(*names));

    if (names == NULL || tri_names_init(names) != 0)
        return -1;
    *state = names;
    return 0;
}

static int teardown(void **state)
{
    tri_names_fini(*state);
    free(*state);
    return 0;
}

static troupe_ref_t ref_of(uint32_t slot)
{
    return (troupe_ref_t){ .node = 1, .slot = slot, .generation = 1 };
}

static struct tri_name *add(struct tri_names *names, const char *text,
                            uint32_t slot)
{
    struct tri_name_claim claim = { .text = text,
                                    .protocol = 7,
                                    .ref = ref_of(slot) };
    struct tri_lookup *answered = NULL;
    struct tri_name *name = NULL;

    assert_int_equal(tri_names_add(names, &claim, &name, &answered), 0);
    assert_null(answered);
    return name;
}

static void test_valid(void **state)
{
    char longest[TRI_NAME_LEN_MAX + 1];

    (void)state;
    memset(longest, 'x', sizeof(longest));
    assert_true(tri_name_is_valid("a", 1));
    assert_true(tri_name_is_valid("A-z_0.9/x", 9));
    assert_true(tri_name_is_valid(longest, TRI_NAME_LEN_MAX));
    assert_false(tri_name_is_valid(longest, TRI_NAME_LEN_MAX + 1));
    assert_false(tri_name_is_valid("", 0));
    assert_false(tri_name_is_valid("a b", 3));
    assert_false(tri_name_is_valid("a\0b", 3));
    assert_false(tri_name_is_valid("a@b", 3));
    assert_false(tri_name_is_valid("\xc3\xa4", 2));
    assert_true(tri_name_is_valid("ab@", 2)); /* only len of it counts */
}

static void test_add_find_remove(void **state)
{
    struct tri_names *names = *state;
    struct tri_lookup *answered = NULL;
    struct tri_name *other = NULL;
    struct tri_name *name = add(names, "counter", 5);
    struct tri_name_claim again = { .text = "counter", .ref = ref_of(6) };
    troupe_ref_t ref;

    assert_int_equal(tri_names_find(names, "counter", 0, &ref), 0);
    assert_true(troupe_ref_equal(ref, ref_of(5)));
    assert_int_equal(tri_names_find(names, "counter", 7, &ref), 0);
    assert_int_equal(tri_names_find(names, "counter", 8, &ref), TROUPE_ETYPE);
    assert_int_equal(tri_names_find(names, "counte", 0, &ref), TROUPE_ENONAME);
    assert_int_equal(tri_names_add(names, &again, &other, &answered),
                     TROUPE_EEXIST);
    assert_null(other);
    tri_names_remove(names, name);
    assert_int_equal(tri_names_find(names, "counter", 0, &ref),
                     TROUPE_ENONAME);
    add(names, "counter", 6);
    assert_int_equal(tri_names_find(names, "counter", 0, &ref), 0);
    assert_true(troupe_ref_equal(ref, ref_of(6)));
}

/* The table doubles several times and loses nothing. */
static void test_many(void **state)
{
    struct tri_names *names = *state;
    struct tri_name *added[MANY];
    troupe_ref_t ref;
    char text[32];

    for (uint32_t i = 0; i < MANY; i++) {
        snprintf(text, sizeof(text), "worker/%u", i);
        added[i] = add(names, text, i);
    }
    assert_true(names->buckets_len >= MANY / 2);
    for (uint32_t i = 0; i < MANY; i += 2)
        tri_names_remove(names, added[i]);
    for (uint32_t i = 0; i < MANY; i++) {
        snprintf(text, sizeof(text), "worker/%u", i);
        assert_int_equal(tri_names_find(names, text, 0, &ref),
                         i % 2 == 0 ? TROUPE_ENONAME : 0);
        if (i % 2 != 0)
            assert_int_equal(ref.slot, i);
    }
}

static struct tri_lookup lookup_of(const char *text, uint64_t ask,
                                   uint64_t deadline_ns)
{
    struct tri_lookup lookup = { .node = 3,
                                 .ask = ask,
                                 .deadline_ns = deadline_ns };

    snprintf(lookup.text, sizeof(lookup.text), "%s", text);
    return lookup;
}

static int look(struct tri_names *names, const char *text, uint64_t ask,
                uint64_t deadline_ns)
{
    struct tri_lookup lookup = lookup_of(text, ask, deadline_ns);
    troupe_ref_t ref;

    return tri_names_find_or_wait(names, &lookup, &ref);
}

static void test_lookups_wait(void **state)
{
    struct tri_names *names = *state;
    struct tri_lookup *answered = NULL;
    struct tri_name *name;
    struct tri_name_claim late = { .text = "late", .ref = ref_of(5) };
    uint64_t asks = 0;

    assert_int_equal(look(names, "late", 1, TRI_NS_NEVER), TROUPE_ENONAME);
    assert_int_equal(look(names, "late", 2, TRI_NS_NEVER), TROUPE_ENONAME);
    assert_int_equal(look(names, "other", 4, TRI_NS_NEVER), TROUPE_ENONAME);
    assert_int_equal(look(names, "past", 8, 1), TROUPE_ENONAME);
    assert_int_equal(names->lookups_len, 4);
    assert_int_equal(tri_names_add(names, &late, &name, &answered), 0);
    while (answered != NULL) {
        struct tri_lookup *next = answered->next;

        assert_string_equal(answered->text, "late");
        assert_int_equal(answered->node, 3);
        asks |= answered->ask;
        free(answered);
        answered = next;
    }
    assert_int_equal(asks, 1 | 2);
    assert_int_equal(names->lookups_len, 1); /* the one past its time went */
    assert_int_equal(look(names, "late", 16, TRI_NS_NEVER), 0);
    assert_int_equal(names->lookups_len, 1);
}

static void test_lookups_are_bounded(void **state)
{
    struct tri_names *names = *state;

    for (uint32_t i = 0; i < TRI_LOOKUPS_MAX; i++)
        assert_int_equal(look(names, "never", i, TRI_NS_NEVER),
                         TROUPE_ENONAME);
    assert_int_equal(look(names, "never", 0, TRI_NS_NEVER), TROUPE_ELIMIT);
    assert_int_equal(names->lookups_len, TRI_LOOKUPS_MAX);
}

/* Whose asker gave up long ago takes no place for ever. */
static void test_past_lookups_make_room(void **state)
{
    struct tri_names *names = *state;

    for (uint32_t i = 0; i < TRI_LOOKUPS_MAX; i++)
        assert_int_equal(look(names, "never", i, 1), TROUPE_ENONAME);
    assert_int_equal(look(names, "never", 0, TRI_NS_NEVER), TROUPE_ENONAME);
    assert_int_equal(names->lookups_len, 1);
}

/* Who tells others is asked first, and told of the end. */
struct others {
    int rc;
    uint32_t adding, removing;
};

static int on_adding(void *context, const struct tri_name_claim *claim)
{
    struct others *others = context;

    assert_string_equal(claim->text, "public");
    others->adding++;
    return others->rc;
}

static void on_removing(void *context, const char *text, troupe_ref_t ref)
{
    struct others *others = context;

    assert_string_equal(text, "public");
    assert_int_equal(ref.slot, 5);
    others->removing++;
}

static void test_hooks(void **state)
{
    struct tri_names *names = *state;
    struct others others = { .rc = TROUPE_EEXIST };
    struct tri_name_claim claim = { .text = "public", .ref = ref_of(5) };
    struct tri_lookup *answered = NULL;
    struct tri_name *name, *again;
    troupe_ref_t ref;

    names->hooks = (struct tri_names_hooks){ &others, on_adding, on_removing };
    assert_int_equal(tri_names_add(names, &claim, &name, &answered),
                     TROUPE_EEXIST);
    assert_int_equal(tri_names_find(names, "public", 0, &ref), TROUPE_ENONAME);
    others.rc = 0;
    assert_int_equal(tri_names_add(names, &claim, &name, &answered), 0);
    assert_int_equal(tri_names_add(names, &claim, &again, &answered),
                     TROUPE_EEXIST);
    assert_int_equal(others.adding, 2); /* not for what is here already */
    tri_names_remove(names, name);
    assert_int_equal(others.removing, 1);
}

/* A name that was lost is nobody's, until another takes it. */
static void test_unlist(void **state)
{
    struct tri_names *names = *state;
    struct tri_name *lost = add(names, "lost", 5);
    troupe_ref_t ref;

    tri_names_unlist(names, "lost", ref_of(6)); /* not its */
    assert_int_equal(tri_names_find(names, "lost", 0, &ref), 0);
    tri_names_unlist(names, "lost", ref_of(5));
    assert_int_equal(tri_names_find(names, "lost", 0, &ref), TROUPE_ENONAME);
    add(names, "lost", 6);
    tri_names_remove(names, lost);
    assert_int_equal(tri_names_find(names, "lost", 0, &ref), 0);
    assert_int_equal(ref.slot, 6);
    assert_int_equal(names->names_len, 1);
}

static void test_random(void **state)
{
    struct tri_names *names = *state;
    struct tri_name *model[KEYS] = { NULL };
    struct tri_random random;
    uint32_t len = 0;

    tri_random_init(&random, unit_seed("test_random"));
    for (uint32_t i = 0; i < STEPS; i++) {
        uint32_t key = tri_random_below(&random, KEYS);
        troupe_ref_t ref;
        char text[32];

        snprintf(text, sizeof(text), "key.%u", key);
        assert_int_equal(tri_names_find(names, text, 7, &ref),
                         model[key] != NULL ? 0 : TROUPE_ENONAME);
        if (model[key] != NULL) {
            assert_int_equal(ref.slot, key);
            tri_names_remove(names, model[key]);
            model[key] = NULL;
            len--;
        } else {
            model[key] = add(names, text, key);
            len++;
        }
        assert_int_equal(names->names_len, len);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        TEST(test_add_find_remove),
        TEST(test_many),
        TEST(test_lookups_wait),
        TEST(test_lookups_are_bounded),
        TEST(test_past_lookups_make_room),
        TEST(test_hooks),
        TEST(test_unlist),
        TEST(test_random),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
