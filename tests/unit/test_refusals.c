/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was refused, by reason: equal texts in different places are one reason,
 * too many reasons are counted together, threads count at once and nothing is
 * lost, and a flood writes no flood of lines.
 */
#include "unit.h"

#include "base/log.h"
#include "link/refusals.h"

enum { THREADS = 4, EACH = 200000, TEXTS = TROUPE_REFUSALS_MAX + 20 };

static char texts[THREADS][TEXTS][24];

static struct tri_refusals refusals;

static int reset(void **state)
{
    (void)state;
    tri_log_level = TRI_LOG_ERROR;
    memset(&refusals, 0, sizeof(refusals));
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < TEXTS; i++)
            snprintf(texts[t][i], sizeof(texts[t][i]), "reason %d", i);
    return 0;
}

static uint64_t count_of(const char *reason)
{
    troupe_refusal_t all[TROUPE_REFUSALS_MAX];
    size_t len = tri_refusals_read(&refusals, all, TROUPE_REFUSALS_MAX);
    uint64_t count = 0;
    int found = 0;

    for (size_t i = 0; i < len; i++)
        if (strcmp(all[i].reason, reason) == 0) {
            count = all[i].count;
            found++;
        }
    assert_in_range(found, 0, 1);
    return count;
}

static void test_by_reason(void **state)
{
    troupe_refusal_t one;

    (void)state;
    assert_int_equal(tri_refusals_read(&refusals, &one, 1), 0);
    assert_int_equal(tri_refusals_total(&refusals), 0);
    for (int i = 0; i < 5; i++)
        tri_refusals_count(&refusals, texts[i % 2][0]);
    tri_refusals_count(&refusals, texts[0][1]);
    assert_int_equal(count_of("reason 0"), 5);
    assert_int_equal(count_of("reason 1"), 1);
    assert_int_equal(count_of("reason 2"), 0);
    assert_int_equal(tri_refusals_total(&refusals), 6);
    assert_int_equal(tri_refusals_read(&refusals, &one, 1), 1);
    assert_int_equal(tri_refusals_read(&refusals, NULL, 0), 0);
}

static void test_too_many_reasons(void **state)
{
    troupe_refusal_t all[TROUPE_REFUSALS_MAX + 1];

    (void)state;
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < TEXTS; i++)
            tri_refusals_count(&refusals, texts[0][i]);
    assert_int_equal(tri_refusals_read(&refusals, all, TROUPE_REFUSALS_MAX + 1),
                     TROUPE_REFUSALS_MAX);
    assert_int_equal(count_of(texts[0][TROUPE_REFUSALS_MAX - 2]), 3);
    assert_int_equal(count_of(texts[0][TROUPE_REFUSALS_MAX - 1]), 0);
    assert_int_equal(count_of("other reasons"),
                     3 * (TEXTS - (TROUPE_REFUSALS_MAX - 1)));
    assert_int_equal(tri_refusals_total(&refusals), 3 * TEXTS);
}

/* Each with texts of its own, in another order. */
static void *flood(void *arg)
{
    unsigned thread = (unsigned)(uintptr_t)arg;

    for (unsigned i = 0; i < EACH; i++)
        tri_refusals_count(&refusals, texts[thread][(i * 7 + thread * 5) % 50]);
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = unit_thread(flood, (void *)i);
    for (int i = 0; i < THREADS; i++)
        unit_join(threads[i]);
    assert_int_equal(tri_refusals_total(&refusals), THREADS * EACH);
    for (int i = 0; i < 50; i++)
        assert_int_equal(count_of(texts[0][i]), THREADS * EACH / 50);
}

static size_t lines_in(const char *text)
{
    size_t lines = 0;

    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* What `run` writes to stderr; for one caller at a time. */
static const char *stderr_of(void (*run)(void))
{
    static char text[65536];
    int before = dup(STDERR_FILENO);
    FILE *file = tmpfile();
    size_t len;

    assert_true(before >= 0 && file);
    dup2(fileno(file), STDERR_FILENO);
    run();
    dup2(before, STDERR_FILENO);
    close(before);
    rewind(file);
    len = fread(text, 1, sizeof(text) - 1, file);
    text[len] = '\0';
    fclose(file);
    return text;
}

static void flood_all(void)
{
    for (int i = 0; i < 100 * TEXTS; i++)
        tri_refusals_count(&refusals, texts[0][i % TEXTS]);
}

static void flood_two(void)
{
    for (int i = 0; i < 1000; i++)
        tri_refusals_count(&refusals, texts[0][i % 2]);
}

static void log_them(void)
{
    tri_refusals_log(&refusals);
}

static void test_lines(void **state)
{
    const char *text;

    (void)state;
    tri_log_level = TRI_LOG_WARN;
    assert_string_equal(stderr_of(log_them), ""); /* nothing, no line */
    assert_int_equal(lines_in(stderr_of(flood_two)), 2);
    text = stderr_of(log_them);
    assert_int_equal(lines_in(text), 1);
    assert_non_null(strstr(text, "1000 times"));
    assert_non_null(strstr(text, "reason 0: 500, reason 1: 500)"));
    assert_int_equal(lines_in(stderr_of(flood_all)), TROUPE_REFUSALS_MAX - 2);
    text = stderr_of(log_them);
    assert_int_equal(lines_in(text), 1); /* cut off, and says so */
    assert_non_null(strstr(text, "...)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_by_reason, reset),
        cmocka_unit_test_setup(test_too_many_reasons, reset),
        cmocka_unit_test_setup(test_threads, reset),
        cmocka_unit_test_setup(test_lines, reset),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
