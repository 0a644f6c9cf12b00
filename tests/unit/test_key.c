/* SPDX-License-Identifier: BSD-3-Clause */
/* The job's key: what its file may look like, who may have it. */
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/log.h"
#include "wire/key.h"

#define DIGITS                                                                 \
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static char folder[] = "/tmp/troupe-test-key-XXXXXX";
static char path[64], link_path[64];

static int setup(void **state)
{
    unit_group_setup(state);
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/key", folder);
    snprintf(link_path, sizeof(link_path), "%s/link", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    unlink(link_path);
    return rmdir(folder);
}

static void write_file(const char *text, mode_t mode)
{
    int fd;

    unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

/* What stderr gets while a file is read. */
static char logged[1024];

static int read_logged(const char *name, unsigned char key_p[TRI_KEY_BYTES])
{
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    int rc;

    assert_non_null(file);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    rc = tri_key_read(name, key_p);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    logged[fread(logged, 1, sizeof(logged) - 1, file)] = '\0';
    fclose(file);
    return rc;
}

/* Refused with a line that has the path and the reason, and not the key. */
static void assert_refused(const char *name, const char *reason)
{
    unsigned char key[TRI_KEY_BYTES] = { 42 };

    assert_int_equal(read_logged(name, key), TROUPE_EOPTION);
    if (strstr(logged, name) == NULL || strstr(logged, reason) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", logged, reason);
    assert_null(strstr(logged, "0001020304"));
    assert_null(strstr(logged, "1c1d1e"));
    assert_int_equal(key[0], 42);
}

static void assert_is_key(const unsigned char key[TRI_KEY_BYTES])
{
    for (unsigned i = 0; i < TRI_KEY_BYTES; i++)
        assert_int_equal(key[i], i);
}

static void test_good_files(void **state)
{
    static const char *const texts[] = {
        DIGITS,
        DIGITS "\n",
        " \t\r\n\v\f" DIGITS "\r\n\r\n",
        "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1f",
    };

    (void)state;
    for (size_t i = 0; i < tri_array_len(texts); i++) {
        unsigned char key[TRI_KEY_BYTES] = { 42 };

        write_file(texts[i], i % 2 ? 0600 : 0400);
        assert_int_equal(tri_key_read(path, key), 0);
        assert_is_key(key);
    }
}

static void test_bad_contents(void **state)
{
    static const char *const texts[] = {
        "",
        "\n",
        "0",
        DIGITS "0",
        DIGITS "00",
        DIGITS " 00",
        DIGITS "\n" DIGITS,
        "0x" DIGITS,
        "0001020304050607 8090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1",
        "\"" DIGITS "\"",
        "\xef\xbb\xbf" DIGITS,
    };
    char large[600];

    (void)state;
    for (size_t i = 0; i < tri_array_len(texts); i++) {
        write_file(texts[i], 0600);
        assert_refused(path, "64 hexadecimal digits");
    }
    /* White space has an end, too. */
    memset(large, ' ', sizeof(large));
    memcpy(large, DIGITS, strlen(DIGITS));
    large[sizeof(large) - 1] = '\0';
    write_file(large, 0600);
    assert_refused(path, "64 hexadecimal digits");
    large[256] = '\0';
    write_file(large, 0600);
    assert_int_equal(tri_key_read(path, (unsigned char[32]){ 0 }), 0);
}

static void test_rights(void **state)
{
    (void)state;
    for (mode_t bit = 01; bit <= 040; bit <<= 1) {
        write_file(DIGITS, 0600 | bit);
        assert_refused(path, "others than its owner");
    }
    write_file(DIGITS, 0666);
    assert_refused(path, "others than its owner");
}

static void test_owner(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("only root can give a file away\n");
        skip();
    }
    write_file(DIGITS, 0600);
    assert_int_equal(chown(path, 12345, 0), 0);
    assert_refused(path, "another user");
}

static void test_not_regular(void **state)
{
    (void)state;
    unlink(path);
    assert_refused(path, "No such file");
    assert_refused("", "No such file");
    assert_refused(folder, "not a regular file");
    assert_refused("/dev/zero", "not a regular file");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(path, "not a regular file"); /* without waiting */
}

/* What counts is the file at a link's end. */
static void test_links(void **state)
{
    unsigned char key[TRI_KEY_BYTES];

    (void)state;
    assert_int_equal(symlink("key", link_path), 0);
    write_file(DIGITS, 0600);
    assert_int_equal(tri_key_read(link_path, key), 0);
    assert_is_key(key);
    write_file(DIGITS, 0640);
    assert_refused(link_path, "others than its owner");
    unlink(path);
    assert_refused(link_path, "No such file");
    assert_int_equal(symlink("link", path), 0); /* a circle */
    assert_refused(link_path, "symbolic links");
}

static void test_random_and_forget(void **state)
{
    static const unsigned char zeros[TRI_KEY_BYTES];
    unsigned char *key = tri_key_create(), *other = tri_key_create();

    (void)state;
    assert_non_null(key);
    assert_non_null(other);
    assert_memory_equal(key, zeros, TRI_KEY_BYTES);
    assert_int_equal(tri_key_random(key), 0);
    assert_int_equal(tri_key_random(other), 0);
    assert_memory_not_equal(key, other, TRI_KEY_BYTES);
    assert_memory_not_equal(key, zeros, TRI_KEY_BYTES);
    tri_key_forget(key);
    assert_memory_equal(key, zeros, TRI_KEY_BYTES);
    tri_key_destroy(&key);
    assert_null(key);
    tri_key_destroy(&key);
    tri_key_destroy(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_files),
        cmocka_unit_test(test_bad_contents),
        cmocka_unit_test(test_rights),
        cmocka_unit_test(test_owner),
        cmocka_unit_test(test_not_regular),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_random_and_forget),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
