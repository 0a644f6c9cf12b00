/* SPDX-License-Identifier: BSD-3-Clause */
/* Addresses of actors: every form, and every way to get one wrong. */
#include "unit.h"

#include <troupe/name.h>

#include "actor/names.h"
#include "name/address.h"

#define ROUNDS 20000u

static struct tri_actor_address parse(const char *text)
{
    struct tri_actor_address address;
    struct tri_address_fault fault = { 0, "" };

    if (tri_actor_address_parse(text, &address, &fault) != 0)
        fail_msg("%s: at %zu: %s", text, fault.position, fault.reason);
    return address;
}

static void assert_text(const char *piece, size_t len, const char *wanted)
{
    assert_int_equal(len, strlen(wanted));
    assert_memory_equal(piece, wanted, len);
}

static void assert_name(const char *text, enum tri_place place,
                        const char *name)
{
    struct tri_actor_address address = parse(text);

    assert_int_equal(address.place, place);
    assert_non_null(address.name);
    assert_text(address.name, address.name_len, name);
}

static void assert_id(const char *text, enum tri_place place, uint32_t slot,
                      uint32_t generation)
{
    struct tri_actor_address address = parse(text);

    assert_int_equal(address.place, place);
    assert_null(address.name);
    assert_int_equal(address.slot, slot);
    assert_int_equal(address.generation, generation);
}

static void test_names(void **state)
{
    struct tri_actor_address address;

    (void)state;
    assert_name("actor:///hits", TRI_PLACE_ANY, "hits");
    assert_name("actor:///a/b.c_d-9", TRI_PLACE_ANY, "a/b.c_d-9");
    assert_name("actor:////rooted", TRI_PLACE_ANY, "/rooted");
    assert_name("actor:///7.3", TRI_PLACE_ANY, "7.3"); /* here: a name */
    assert_name("actor://localhost/hits", TRI_PLACE_LOCAL, "hits");
    assert_name("actor:///hits@localhost", TRI_PLACE_LOCAL, "hits");
    assert_name("actor://rank.3/a/b", TRI_PLACE_RANK, "a/b");
    assert_int_equal(parse("actor://rank.3/a").rank, 3);
    assert_int_equal(parse("actor:///a@rank.9999999").rank, 9999999);
    assert_name("actor:///7.3@rank.0", TRI_PLACE_RANK, "7.3");
    assert_name("actor:///a@00000000deadBEEF", TRI_PLACE_NODE, "a");
    assert_true(parse("actor:///a@00000000deadBEEF").node == 0xdeadbeef);
    assert_name("actor://fedcba9876543210/a", TRI_PLACE_NODE, "a");
    assert_name("actor:///a@worker-7.site", TRI_PLACE_MEMBER, "a");
    address = parse("actor://worker-7.site/x");
    assert_text(address.member, address.member_len, "worker-7.site");
    /* 15 and 17 digits are no node id */
    assert_name("actor://0123456789abcde/a", TRI_PLACE_MEMBER, "a");
    assert_name("actor://0123456789abcdef0/a", TRI_PLACE_MEMBER, "a");
}

static void test_ids(void **state)
{
    (void)state;
    assert_id("actor://localhost/12.3", TRI_PLACE_LOCAL, 12, 3);
    assert_id("actor://rank.2/1.4294967295", TRI_PLACE_RANK, 1, UINT32_MAX);
    assert_id("actor://0123456789abcdef/5.1", TRI_PLACE_NODE, 5, 1);
    assert_id("actor://worker/5.1", TRI_PLACE_MEMBER, 5, 1);
    /* nearly */
    assert_name("actor://localhost/12.", TRI_PLACE_LOCAL, "12.");
    assert_name("actor://localhost/.12", TRI_PLACE_LOCAL, ".12");
    assert_name("actor://localhost/1.2.3", TRI_PLACE_LOCAL, "1.2.3");
    assert_name("actor://localhost/12", TRI_PLACE_LOCAL, "12");
    assert_name("actor://localhost/1.2a", TRI_PLACE_LOCAL, "1.2a");
}

static void test_wrong(void **state)
{
    static const struct {
        const char *text;
        size_t position;
        const char *reason; /* a part of it */
    } wrongs[] = {
        { "", 0, "begins with actor://" },
        { "hits", 0, "begins with actor://" },
        { "actor", 5, "begins with actor://" },
        { "actor:/", 7, "begins with actor://" },
        { "Actor:///a", 0, "begins with actor://" },
        { "http://rank.0/a", 0, "begins with actor://" },
        { "actor://", 8, "node is missing" },
        { "actor:///", 9, "name is missing" },
        { "actor:///@rank.1", 9, "name is missing" },
        { "actor:///a@", 11, "node is missing" },
        { "actor:///a b", 10, "consists of" },
        { "actor:///a\xc3\xa4", 10, "consists of" },
        { "actor:///a@b@c", 12, "a node is" },
        { "actor:///a@b/c", 12, "a node is" },
        { "actor:///a@rank", 15, NULL }, /* a member of that name */
        { "actor://rank.0", 14, "are missing" },
        { "actor://localhost", 17, "are missing" },
        { "actor://rank.0/", 15, "name is missing" },
        { "actor://rank.0/a@rank.0", 16, "consists of" },
        { "actor://rank./a", 13, "number is missing" },
        { "actor://rank.x/a", 13, "decimal" },
        { "actor://rank.-1/a", 13, "decimal" },
        { "actor://rank.1x/a", 14, "decimal" },
        { "actor://rank.12345678/a", 20, "7 digits" },
        { "actor://0000000000000000/a", 8, "id 0" },
        { "actor://no de/a", 10, "a node is" },
        { "actor:///a@no:de", 13, "a node is" },
        { "actor://localhost/4294967296.1", 27, "4294967295" },
        { "actor://localhost/1.4294967296", 29, "4294967295" },
        { "actor://localhost/1.99999999999999999999999", 29, "4294967295" },
    };

    (void)state;
    for (size_t i = 0; i < tri_array_len(wrongs); i++) {
        size_t position = 999;
        const char *reason = "untouched";
        int rc = troupe_address_check(wrongs[i].text, &position, &reason);

        if (wrongs[i].reason == NULL) {
            assert_int_equal(rc, 0);
            assert_int_equal(position, 999);
            assert_string_equal(reason, "untouched");
            continue;
        }
        if (rc != TROUPE_EADDRESS || position != wrongs[i].position ||
            strstr(reason, wrongs[i].reason) == NULL)
            fail_msg("'%s': %d at %zu: %s", wrongs[i].text, rc, position,
                     reason);
    }
    assert_int_equal(troupe_address_check(NULL, NULL, NULL), TROUPE_EINVAL);
    assert_int_equal(troupe_address_check("x", NULL, NULL), TROUPE_EADDRESS);
}

/* The longest of everything, and one more. */
static void test_lengths(void **state)
{
    char text[512], name[TRI_NAME_LEN_MAX + 2];
    const char *reason;
    size_t position;

    (void)state;
    memset(name, 'n', sizeof(name));
    name[TRI_NAME_LEN_MAX] = '\0';
    snprintf(text, sizeof(text), "actor:///%s", name);
    assert_int_equal(parse(text).name_len, TROUPE_NAME_LEN_MAX);
    name[TRI_NAME_LEN_MAX] = 'n';
    name[TRI_NAME_LEN_MAX + 1] = '\0';
    snprintf(text, sizeof(text), "actor:///%s", name);
    assert_int_equal(troupe_address_check(text, &position, &reason),
                     TROUPE_EADDRESS);
    assert_int_equal(position, 9 + TRI_NAME_LEN_MAX);
    assert_non_null(strstr(reason, "255"));
    name[TROUPE_MEMBER_NAME_MAX] = '\0';
    snprintf(text, sizeof(text), "actor://%s/a", name);
    assert_int_equal(parse(text).member_len, TROUPE_MEMBER_NAME_MAX);
    snprintf(text, sizeof(text), "actor://%sn/a", name);
    assert_int_equal(troupe_address_check(text, &position, &reason),
                     TROUPE_EADDRESS);
    assert_int_equal(position, 8 + TROUPE_MEMBER_NAME_MAX);
}

static void test_format(void **state)
{
    troupe_ref_t ref = { 0xfedcba9876543210, UINT32_MAX, UINT32_MAX };
    char text[TROUPE_ADDRESS_BYTES];
    struct tri_random random;

    (void)state;
    assert_int_equal(troupe_address_format(ref, text, sizeof(text) - 1),
                     TROUPE_EINVAL);
    assert_int_equal(troupe_address_format(ref, NULL, sizeof(text)),
                     TROUPE_EINVAL);
    assert_int_equal(
        troupe_address_format((troupe_ref_t){ 0 }, text, sizeof(text)),
        TROUPE_EINVAL);
    assert_int_equal(troupe_address_format(ref, text, sizeof(text)), 0);
    assert_string_equal(
        text, "actor://fedcba9876543210/4294967295.4294967295");
    tri_random_init(&random, unit_seed("test_format"));
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct tri_actor_address address;

        ref = (troupe_ref_t){ tri_random_next(&random) | 1,
                              (uint32_t)tri_random_next(&random),
                              (uint32_t)tri_random_next(&random) };
        assert_int_equal(troupe_address_format(ref, text, sizeof(text)), 0);
        address = parse(text);
        assert_int_equal(address.place, TRI_PLACE_NODE);
        assert_true(address.node == ref.node);
        assert_int_equal(address.slot, ref.slot);
        assert_int_equal(address.generation, ref.generation);
    }
}

/* Whatever a byte is changed to: parsed, or refused at a place inside. */
static void test_random(void **state)
{
    static const char *const seeds[] = {
        "actor:///a/b@rank.12", "actor://0123456789abcdef/12.34",
        "actor://localhost/x",  "actor:///name@worker.7",
    };
    struct tri_random random;

    (void)state;
    tri_random_init(&random, unit_seed("test_random"));
    for (uint32_t i = 0; i < ROUNDS; i++) {
        char text[64];
        size_t position = SIZE_MAX;
        const char *reason = NULL;
        size_t len;

        strcpy(text, seeds[tri_random_below(&random, 4)]);
        len = strlen(text);
        for (int n = 0; n < 3; n++)
            text[tri_random_below(&random, (uint32_t)len)] =
                (char)tri_random_below(&random, 256);
        len = strlen(text);
        if (troupe_address_check(text, &position, &reason) == 0)
            continue;
        assert_true(position <= len);
        assert_non_null(reason);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),  cmocka_unit_test(test_ids),
        cmocka_unit_test(test_wrong),  cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_format), cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
