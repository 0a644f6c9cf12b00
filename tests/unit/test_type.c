/* SPDX-License-Identifier: BSD-3-Clause */
/* Identity of message types: what differs must have another hash. */
#include "unit.h"

#include "message/type.h"

static const troupe_type_t base = { "t.m", "(int64_t a;)", "(int32_t r;)",
                                    8,     4,              0, 2, 0 };

static uint32_t hash_of(troupe_type_t type)
{
    type.hash = 0;
    type.flags = 0;
    return tri_type_hash(&type);
}

static void test_all_that_counts(void **state)
{
    troupe_type_t t;
    uint32_t hash = hash_of(base);

    (void)state;
    assert_int_not_equal(hash, 0);
    assert_int_equal(hash_of(base), hash);
    t = base, t.name = "t.n";
    assert_int_not_equal(hash_of(t), hash);
    t = base, t.fields = "(int64_t b;)";
    assert_int_not_equal(hash_of(t), hash);
    t = base, t.result_fields = "(int32_t s;)";
    assert_int_not_equal(hash_of(t), hash);
    t = base, t.result_fields = NULL;
    assert_int_not_equal(hash_of(t), hash);
    t = base, t.bytes = 16;
    assert_int_not_equal(hash_of(t), hash);
    t = base, t.result_bytes = 8;
    assert_int_not_equal(hash_of(t), hash);
    t = base, t.index = 3;
    assert_int_not_equal(hash_of(t), hash);
}

/* Text must not slide from one field into the next. */
static void test_borders(void **state)
{
    troupe_type_t a = base, b = base;

    (void)state;
    a.name = "ab", a.fields = "c";
    b.name = "a", b.fields = "bc";
    assert_int_not_equal(hash_of(a), hash_of(b));
}

static void test_flags(void **state)
{
    static const struct {
        const char *fields, *result_fields;
        uint16_t flags;
    } cases[] = {
        { "()", NULL, 0 },
        { "(int32_t n; char b[];)", NULL, TROUPE_TYPE_TAIL },
        { "(char b[4];)", "(char b[4];)", 0 },
        { "()", "(uint32_t n; double x[];)", TROUPE_TYPE_RESULT_TAIL },
        { "(int n; char b[];)", "(int n; char b[];)",
          TROUPE_TYPE_TAIL | TROUPE_TYPE_RESULT_TAIL },
    };

    (void)state;
    for (size_t i = 0; i < tri_array_len(cases); i++) {
        troupe_type_t t = base;

        t.fields = cases[i].fields;
        t.result_fields = cases[i].result_fields;
        tri_type_hash(&t);
        assert_int_equal(t.flags, cases[i].flags);
        assert_true(tri_type_fits(&t, 8));
        assert_false(tri_type_fits(&t, 7));
        assert_true(tri_type_fits(&t, 9) ==
                    ((cases[i].flags & TROUPE_TYPE_TAIL) != 0));
        assert_true(tri_type_result_fits(&t, 4));
        assert_false(tri_type_result_fits(&t, 3));
        assert_true(tri_type_result_fits(&t, 1000) ==
                    ((cases[i].flags & TROUPE_TYPE_RESULT_TAIL) != 0));
    }
}

static uint32_t protocol_hash(const char *name, const troupe_type_t *types,
                              uint32_t len)
{
    troupe_type_t copies[4];
    troupe_protocol_t protocol = { name, copies, len, 0 };

    memcpy(copies, types, len * sizeof(*types));
    return tri_protocol_hash(&protocol);
}

static void test_protocols(void **state)
{
    troupe_type_t types[2] = { base, base };
    troupe_type_t swapped[2];
    uint32_t hash;

    (void)state;
    types[1].name = "t.other";
    swapped[0] = types[1], swapped[1] = types[0];
    hash = protocol_hash("t", types, 2);
    assert_int_not_equal(hash, 0);
    assert_int_equal(protocol_hash("t", types, 2), hash);
    assert_int_not_equal(protocol_hash("u", types, 2), hash);
    assert_int_not_equal(protocol_hash("t", types, 1), hash);
    assert_int_not_equal(protocol_hash("t", swapped, 2), hash);
}

/* First use by several threads at once: all see flags and hash complete. */
static troupe_type_t shared[2000];
static _Atomic uint32_t go, wrong;

static void *first_use(void *arg)
{
    (void)arg;
    while (!atomic_load(&go))
        sched_yield();
    for (size_t i = 0; i < tri_array_len(shared); i++)
        if (tri_type_hash(&shared[i]) == 0 ||
            __atomic_load_n(&shared[i].flags, __ATOMIC_RELAXED) !=
                TROUPE_TYPE_TAIL)
            atomic_fetch_add(&wrong, 1);
    return NULL;
}

static void test_first_use_at_once(void **state)
{
    pthread_t threads[3];

    (void)state;
    for (size_t i = 0; i < tri_array_len(shared); i++) {
        shared[i] = base;
        shared[i].fields = "(char b[];)";
    }
    for (size_t i = 0; i < tri_array_len(threads); i++)
        threads[i] = unit_thread(first_use, NULL);
    atomic_store(&go, 1);
    for (size_t i = 0; i < tri_array_len(threads); i++)
        unit_join(threads[i]);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_that_counts),
        cmocka_unit_test(test_borders),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_first_use_at_once),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
