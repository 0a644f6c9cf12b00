/* SPDX-License-Identifier: BSD-3-Clause */
/* Payloads of SPAWN: what is encoded is decoded; all else is refused. */
#include "unit.h"

#include "wire/spawn.h"

static const unsigned char state[] = { 1, 2, 3, 4, 5 };

static struct tri_spawn sample(void)
{
    return (struct tri_spawn){
        .class_name = "worker",
        .name = "a/b",
        .initial = state,
        .class_len = 6,
        .name_len = 3,
        .layout = 0x01020304,
        .state_bytes = sizeof(state),
        .initial_bytes = sizeof(state),
        .mailbox_len_max = 70000,
        .overflow = 3,
        .tags = "x=1",
        .tags_len = 3,
        .unique = true,
    };
}

static void test_round_trip(void **unused)
{
    struct tri_spawn spawn = sample(), got;
    unsigned char payload[64];
    size_t bytes = tri_spawn_bytes(&spawn);

    (void)unused;
    assert_int_equal(bytes, 28 + 6 + 3 + 3 + 5);
    tri_spawn_encode(&spawn, payload);
    assert_int_equal(payload[4], 4); /* little-endian */
    assert_true(tri_spawn_decode(payload, bytes, &got));
    assert_int_equal(got.class_len, 6);
    assert_memory_equal(got.class_name, "worker", 6);
    assert_int_equal(got.name_len, 3);
    assert_memory_equal(got.name, "a/b", 3);
    assert_int_equal(got.layout, spawn.layout);
    assert_int_equal(got.state_bytes, sizeof(state));
    assert_int_equal(got.initial_bytes, sizeof(state));
    assert_memory_equal(got.initial, state, sizeof(state));
    assert_int_equal(got.mailbox_len_max, 70000);
    assert_int_equal(got.overflow, 3);
    assert_true(got.unique);
    assert_int_equal(got.tags_len, 3);
    assert_memory_equal(got.tags, "x=1", 3);
    spawn.tags_len = 0;
    spawn.initial_bytes = 0;
    spawn.name_len = 0;
    tri_spawn_encode(&spawn, payload);
    assert_true(tri_spawn_decode(payload, 28 + 6, &got));
    assert_int_equal(got.initial_bytes, 0);
}

/* One byte less or more, another version, and the like. */
static void test_refused(void **unused)
{
    static const struct {
        size_t at;
        unsigned char value;
    } faults[] = { { 0, 0 },  { 0, 2 },  { 1, 1 },   { 2, 0 },  { 2, 7 },
                   { 2, 255 }, { 3, 4 }, { 8, 6 },   { 12, 1 }, { 12, 0 },
                   { 15, 255 }, { 24, 2 }, { 25, 4 }, { 26, 1 },
                   { 27, 1 }, { 28, ' ' }, { 33, 0 }, { 33, 0x7f } };
    struct tri_spawn spawn = sample(), got;
    unsigned char payload[64] = { 0 };
    size_t bytes = tri_spawn_bytes(&spawn);

    (void)unused;
    tri_spawn_encode(&spawn, payload);
    for (size_t n = 0; n < sizeof(payload); n++)
        assert_int_equal(tri_spawn_decode(payload, n, &got), n == bytes);
    for (size_t i = 0; i < tri_array_len(faults); i++) {
        tri_spawn_encode(&spawn, payload);
        payload[faults[i].at] = faults[i].value;
        assert_false(tri_spawn_decode(payload, bytes, &got));
    }
}

static void test_class_names(void **unused)
{
    char longest[TRI_CLASS_NAME_LEN_MAX + 1];

    (void)unused;
    memset(longest, 'x', sizeof(longest));
    assert_true(tri_class_name_is_valid("ns::worker<int>", 15));
    assert_true(tri_class_name_is_valid(longest, sizeof(longest) - 1));
    assert_false(tri_class_name_is_valid(longest, sizeof(longest)));
    assert_false(tri_class_name_is_valid("", 0));
    assert_false(tri_class_name_is_valid("a b", 3));
    assert_false(tri_class_name_is_valid("a\n", 2));
    assert_false(tri_class_name_is_valid("\xc3\xa4", 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_class_names),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
