/* SPDX-License-Identifier: BSD-3-Clause */
/* Options: defaults, the environment, every kind of bad value, the help. */
#include "unit.h"

#include "node/options.h"

static const char *const variables[] = {
    "TROUPE_WORKERS",           "TROUPE_TRANSPORT",
    "TROUPE_PROVIDER",          "TROUPE_INTERFACE",
    "TROUPE_SPIN_US",           "TROUPE_MAILBOX_LEN_MAX",
    "TROUPE_ACTORS_MAX",        "TROUPE_DEAD_LETTERS_MAX",
    "TROUPE_ASKS_MAX",          "TROUPE_MESSAGE_BYTES_MAX",
    "TROUPE_MEMORY_BYTES_MAX",  "TROUPE_OUTBOX_BYTES_MAX",
    "TROUPE_ASK_TIMEOUT_MS",    "TROUPE_STOP_TIMEOUT_MS",
    "TROUPE_LOG",               "TROUPE_PORT_RANGE",
    "TROUPE_SECURITY",          "TROUPE_KEY_FILE",
};

static int clean(void **state)
{
    (void)state;
    for (size_t i = 0; i < tri_array_len(variables); i++)
        unsetenv(variables[i]);
    return 0;
}

/* What stderr gets while options are resolved. */
static char logged[4096];

static int resolve(troupe_options_t *options)
{
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    size_t len;
    int rc;

    assert_non_null(file);
    assert_true(saved >= 0);
    fflush(stderr);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    rc = tri_options_resolve(options);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    len = fread(logged, 1, sizeof(logged) - 1, file);
    logged[len] = '\0';
    fclose(file);
    return rc;
}

static int resolve_with(const char *name, const char *value,
                        troupe_options_t *options)
{
    int rc;

    troupe_options_init(options);
    setenv(name, value, 1);
    rc = resolve(options);
    unsetenv(name);
    return rc;
}

static void test_defaults(void **state)
{
    troupe_options_t options;

    (void)state;
    troupe_options_init(&options);
    assert_int_equal(options.workers, -1);
    assert_string_equal(options.transport, "auto");
    assert_int_equal(options.mailbox_len_max, 1024);
    assert_true(options.memory_bytes_max == (size_t)4 << 30);
    assert_int_equal(resolve(&options), 0);
    assert_string_equal(options.transport, "auto");
    assert_null(options.interface);
    assert_null(options.port_range);
    assert_null(options.key_file);
    assert_string_equal(options.security, "auth");
    tri_options_fini(&options);
    assert_null(options.transport);
    tri_options_fini(&options); /* twice is once */
}

static void test_environment_wins(void **state)
{
    troupe_options_t options;
    char transport[] = "ring";

    (void)state;
    troupe_options_init(&options);
    options.transport = transport;
    options.workers = 3;
    options.spin_us = 7;
    setenv("TROUPE_WORKERS", "2", 1);
    setenv("TROUPE_TRANSPORT", "fabric", 1);
    setenv("TROUPE_INTERFACE", "lo", 1);
    assert_int_equal(resolve(&options), 0);
    assert_int_equal(options.workers, 2);
    assert_int_equal(options.spin_us, 7);
    assert_string_equal(options.transport, "fabric");
    assert_string_equal(options.interface, "lo");
    tri_options_fini(&options);
}

/* The program's strings are copied, and may go. */
static void test_strings_are_copied(void **state)
{
    troupe_options_t options;
    char transport[] = "ring";

    (void)state;
    troupe_options_init(&options);
    options.transport = transport;
    assert_int_equal(resolve(&options), 0);
    transport[0] = 'x';
    assert_string_equal(options.transport, "ring");
    tri_options_fini(&options);
}

static void test_suffixes(void **state)
{
    static const struct {
        const char *text;
        size_t value;
    } cases[] = {
        { "4096", 4096 },
        { "64K", 64u << 10 },
        { "3M", 3u << 20 },
        { "2G", (size_t)2 << 30 },
        { "  8192", 8192 },
    };
    troupe_options_t options;

    (void)state;
    for (size_t i = 0; i < tri_array_len(cases); i++) {
        assert_int_equal(resolve_with("TROUPE_OUTBOX_BYTES_MAX", cases[i].text,
                                      &options),
                         0);
        assert_true(options.outbox_bytes_max == cases[i].value);
        tri_options_fini(&options);
    }
}

static void test_bad_values(void **state)
{
    static const struct {
        const char *name, *value;
    } cases[] = {
        { "TROUPE_WORKERS", "" },
        { "TROUPE_WORKERS", "-2" },
        { "TROUPE_WORKERS", "63" },
        { "TROUPE_WORKERS", "many" },
        { "TROUPE_WORKERS", "2x" },
        { "TROUPE_WORKERS", "-1K" },
        { "TROUPE_WORKERS", "4294967297" },
        { "TROUPE_WORKERS", "99999999999999999999" },
        { "TROUPE_TRANSPORT", "" },
        { "TROUPE_TRANSPORT", "rin" },
        { "TROUPE_TRANSPORT", "ringer" },
        { "TROUPE_TRANSPORT", "auto|ring" },
        { "TROUPE_SPIN_US", "1000001" },
        { "TROUPE_MAILBOX_LEN_MAX", "0" },
        { "TROUPE_MAILBOX_LEN_MAX", "65536" },
        { "TROUPE_MAILBOX_LEN_MAX", "64K" },
        { "TROUPE_ACTORS_MAX", "-1" },
        { "TROUPE_DEAD_LETTERS_MAX", "2M" },
        { "TROUPE_ASKS_MAX", "0" },
        { "TROUPE_MESSAGE_BYTES_MAX", "63" },
        { "TROUPE_MESSAGE_BYTES_MAX", "3G" },
        { "TROUPE_MEMORY_BYTES_MAX", "1KB" },
        { "TROUPE_MEMORY_BYTES_MAX", "9999999999G" },
        { "TROUPE_MEMORY_BYTES_MAX", "1T" },
        { "TROUPE_OUTBOX_BYTES_MAX", "0x1000" },
        { "TROUPE_ASK_TIMEOUT_MS", "0" },
        { "TROUPE_STOP_TIMEOUT_MS", "2147483648" },
        { "TROUPE_LOG", "loud" },
        { "TROUPE_SECURITY", "" },
        { "TROUPE_SECURITY", "authenticate" },
        { "TROUPE_SECURITY", "NONE" },
        { "TROUPE_PORT_RANGE", "" },
        { "TROUPE_PORT_RANGE", "-" },
        { "TROUPE_PORT_RANGE", "7000" },
        { "TROUPE_PORT_RANGE", "7000-" },
        { "TROUPE_PORT_RANGE", "-7000" },
        { "TROUPE_PORT_RANGE", "7001-7000" },
        { "TROUPE_PORT_RANGE", "0-7000" },
        { "TROUPE_PORT_RANGE", "7000-65536" },
        { "TROUPE_PORT_RANGE", "4294967297-4294967298" },
        { "TROUPE_PORT_RANGE", "99999999999999999999-7000" },
        { "TROUPE_PORT_RANGE", "7000-7010 " },
        { "TROUPE_PORT_RANGE", "7000 - 7010" },
        { "TROUPE_PORT_RANGE", "+7000-7010" },
        { "TROUPE_PORT_RANGE", "7000-7010-7020" },
        { "TROUPE_PORT_RANGE", "any" },
    };
    troupe_options_t options;

    (void)state;
    for (size_t i = 0; i < tri_array_len(cases); i++) {
        if (resolve_with(cases[i].name, cases[i].value, &options) !=
            TROUPE_EOPTION)
            fail_msg("%s=%s was taken", cases[i].name, cases[i].value);
        /* the message has the name, the value, what is allowed */
        assert_non_null(strstr(logged, cases[i].name));
        assert_non_null(strstr(logged, cases[i].value));
        assert_non_null(strstr(logged, "allowed"));
        assert_null(options.transport); /* nothing is left to be freed */
    }
}

static void test_port_ranges(void **state)
{
    static const struct {
        const char *text;
        uint16_t first, last;
    } cases[] = {
        { NULL, 0, 0 },
        { "7000-7010", 7000, 7010 },
        { "1-65535", 1, 65535 },
        { "7000-7000", 7000, 7000 },
        { "007000-7001", 7000, 7001 },
    };
    troupe_options_t options;
    uint16_t first = 5, last = 6;

    (void)state;
    for (size_t i = 0; i < tri_array_len(cases); i++) {
        troupe_options_init(&options);
        options.port_range = cases[i].text;
        assert_int_equal(resolve(&options), 0);
        assert_true(tri_options_ports(options.port_range, &first, &last));
        assert_int_equal(first, cases[i].first);
        assert_int_equal(last, cases[i].last);
        tri_options_fini(&options);
    }
    assert_false(tri_options_ports("9-8", &first, &last));
    assert_int_equal(first, 7000);
}

static void test_program_is_checked_too(void **state)
{
    troupe_options_t options;

    (void)state;
    troupe_options_init(&options);
    options.workers = 1000;
    assert_int_equal(resolve(&options), TROUPE_EOPTION);
    assert_non_null(strstr(logged, "workers"));
    assert_non_null(strstr(logged, "1000"));
    troupe_options_init(&options);
    options.transport = "pigeon";
    options.message_bytes_max = 1; /* the second one is logged, too */
    assert_int_equal(resolve(&options), TROUPE_EOPTION);
    assert_non_null(strstr(logged, "pigeon"));
    assert_non_null(strstr(logged, "message_bytes_max"));
    troupe_options_init(&options);
    options.memory_bytes_max = SIZE_MAX; /* no limit */
    assert_int_equal(resolve(&options), 0);
    tri_options_fini(&options);
}

static void test_unknown_variable_is_named(void **state)
{
    troupe_options_t options;

    (void)state;
    assert_int_equal(resolve_with("TROUPE_WORKER", "2", &options), 0);
    assert_non_null(strstr(logged, "TROUPE_WORKER"));
    tri_options_fini(&options);
    assert_int_equal(resolve_with("TROUPE_TEST_ANY", "2", &options), 0);
    assert_null(strstr(logged, "TROUPE_TEST_ANY"));
    tri_options_fini(&options);
}

static void test_help_has_them_all(void **state)
{
    static char text[16384];
    FILE *stream = fmemopen(text, sizeof(text) - 1, "w");

    (void)state;
    assert_non_null(stream);
    troupe_options_help(stream);
    fclose(stream);
    for (size_t i = 0; i < tri_array_len(variables); i++)
        if (strstr(text, variables[i]) == NULL)
            fail_msg("no help for %s", variables[i]);
    assert_non_null(strstr(text, "auto|ring|fabric"));
    assert_non_null(strstr(text, "1 to 65535"));
    assert_non_null(strstr(text, "none|auth|encrypt"));
    assert_non_null(strstr(text, "first-last"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, clean, clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),
        TEST(test_environment_wins),
        TEST(test_strings_are_copied),
        TEST(test_suffixes),
        TEST(test_bad_values),
        TEST(test_port_ranges),
        TEST(test_program_is_checked_too),
        TEST(test_unknown_variable_is_named),
        TEST(test_help_has_them_all),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
