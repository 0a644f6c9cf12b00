/* SPDX-License-Identifier: BSD-3-Clause */
#include "unit.h"

#include "member/hello.h"
#include "member/join.h"

static struct tri_packet_key *key_create(unsigned char byte)
{
    unsigned char bytes[TRI_KEY_BYTES];
    struct tri_packet_key *key;

    memset(bytes, byte, sizeof(bytes));
    assert_int_equal(tri_packet_key_create(bytes, TRI_SEAL_AUTH, &key), 0);
    return key;
}

/* Field by field: what lies between the fields of a structure is nobody's. */
static void assert_cookie_equal(const struct tri_cookie *cookie,
                                const struct tri_cookie *wanted)
{
    assert_int_equal(cookie->slot, wanted->slot);
    assert_memory_equal(cookie->tag, wanted->tag, sizeof(cookie->tag));
}

static void bodies_come_back(void **state)
{
    struct tri_hello hello = { .interface = 0x01020304,
                               .strict = true,
                               .profile = TRI_SWIM_CLOUD,
                               .cluster_name = 0x1122334455667788,
                               .token = UINT64_MAX,
                               .cookie = { .slot = 77, .tag = { 1, 2, 3 } } };
    struct tri_refused refused = { .token = 9,
                                   .error = TROUPE_ECLUSTER,
                                   .cluster_name = 10 };
    unsigned char data[64];
    struct tri_cookie cookie;
    struct tri_refused said;
    struct tri_hello got;
    uint64_t token;

    (void)state;
    tri_hello_encode(&hello, data);
    assert_null(tri_hello_decode(data, TRI_HELLO_BYTES, &got));
    assert_int_equal(got.interface, hello.interface);
    assert_true(got.strict);
    assert_int_equal(got.profile, TRI_SWIM_CLOUD);
    assert_int_equal(got.cluster_name, hello.cluster_name);
    assert_int_equal(got.token, hello.token);
    assert_cookie_equal(&got.cookie, &hello.cookie);
    assert_null(tri_hello_decode(data, TRI_HELLO_BYTES + 5, &got));
    data[6] = 1;
    assert_non_null(tri_hello_decode(data, TRI_HELLO_BYTES, &got));
    data[6] = 0;
    data[4] = 2;
    assert_non_null(tri_hello_decode(data, TRI_HELLO_BYTES, &got));
    tri_challenge_encode(5, &hello.cookie, data);
    assert_null(tri_challenge_decode(data, TRI_CHALLENGE_BYTES, &token,
                                     &cookie));
    assert_int_equal(token, 5);
    assert_cookie_equal(&cookie, &hello.cookie);
    tri_refused_encode(&refused, data);
    assert_null(tri_refused_decode(data, TRI_REFUSED_BYTES, &said));
    assert_int_equal(said.error, TROUPE_ECLUSTER);
    assert_int_equal(said.token, 9);
    assert_int_equal(said.cluster_name, 10);
    refused.error = 0;
    tri_refused_encode(&refused, data);
    assert_non_null(tri_refused_decode(data, TRI_REFUSED_BYTES, &said));
    for (size_t n = 0; n < TRI_HELLO_BYTES; n++)
        assert_non_null(tri_hello_decode(data, n, &got));
    for (size_t n = 0; n < sizeof(data); n++) {
        if (n != TRI_CHALLENGE_BYTES)
            assert_non_null(tri_challenge_decode(data, n, &token, &cookie));
        if (n != TRI_REFUSED_BYTES)
            assert_non_null(tri_refused_decode(data, n, &said));
    }
}

/* A cookie is one address's, one node's, one seed's, for a while. */
static void cookies(void **state)
{
    struct tri_endpoint from = { .family = 4, .port = 7, .ip = { 10, 0, 0, 1 } };
    struct tri_endpoint other = from;
    struct tri_packet_key *key = key_create(1), *key2 = key_create(2);
    uint64_t now_ns = 5 * TRI_COOKIE_NS + 3;
    struct tri_cookie cookie, none = { .slot = 0 }, changed;

    (void)state;
    assert_int_equal(tri_cookie_make(key, &from, 42, now_ns, &cookie), 0);
    assert_true(tri_cookie_check(key, &from, 42, now_ns, &cookie));
    assert_true(
        tri_cookie_check(key, &from, 42, now_ns + TRI_COOKIE_NS, &cookie));
    assert_false(
        tri_cookie_check(key, &from, 42, now_ns + 2 * TRI_COOKIE_NS, &cookie));
    assert_false(
        tri_cookie_check(key, &from, 42, now_ns - TRI_COOKIE_NS, &cookie));
    assert_false(tri_cookie_check(key, &from, 43, now_ns, &cookie));
    assert_false(tri_cookie_check(key2, &from, 42, now_ns, &cookie));
    other.port++;
    assert_false(tri_cookie_check(key, &other, 42, now_ns, &cookie));
    other = from;
    other.ip[3]++;
    assert_false(tri_cookie_check(key, &other, 42, now_ns, &cookie));
    assert_false(tri_cookie_check(key, &from, 42, 0, &none));
    for (size_t i = 0; i < sizeof(cookie.tag); i++) {
        changed = cookie;
        changed.tag[i] ^= 1;
        assert_false(tri_cookie_check(key, &from, 42, now_ns, &changed));
    }
    tri_packet_key_destroy(&key);
    tri_packet_key_destroy(&key2);
}

static void peeks(void **state)
{
    unsigned char body[3] = { 7, 8, 9 }, data[TRI_PACKET_BYTES_MAX];
    struct tri_packet packet = { .kind = TRI_SWIM_JOIN,
                                 .source = 0x123456789,
                                 .counter = 1,
                                 .body = body,
                                 .body_bytes = sizeof(body) };
    size_t bytes = tri_packet_seal(NULL, &packet, data);
    struct tri_peek peek;

    (void)state;
    assert_true(tri_packet_peek(data, bytes, &peek));
    assert_int_equal(peek.version, TRI_PACKET_VERSION);
    assert_int_equal(peek.kind, TRI_SWIM_JOIN);
    assert_int_equal(peek.source, 0x123456789);
    assert_int_equal(peek.body_bytes, sizeof(body));
    assert_memory_equal(peek.body, body, sizeof(body));
    for (size_t n = 0; n < TRI_PACKET_HEADER_BYTES; n++)
        assert_false(tri_packet_peek(data, n, &peek));
    data[0]++;
    assert_false(tri_packet_peek(data, bytes, &peek));
}

static void seeds_are_checked(void **state)
{
    static const char *const good[] = {
        "a:1", "host.example:65535", "1.2.3.4:5,6.7.8.9:10", "[::1]:80",
        "[fe80::1]:7,b:8,",
    };
    static const char *const bad[] = {
        "",     "a",    ":1",      "a:",       "a:0",     "a:65536",
        "a:1x", "a:1,,b:2", "::1:80",  "[::1]",   "a:123456",
        "a:-1", ",a:1",
    };

    (void)state;
    for (size_t i = 0; i < tri_array_len(good); i++)
        assert_true(tri_seeds_are_valid(good[i]));
    for (size_t i = 0; i < tri_array_len(bad); i++)
        assert_false(tri_seeds_are_valid(bad[i]));
    assert_false(tri_seeds_are_valid("a:1,b:2,c:3,d:4,e:5,f:6,g:7,h:8,i:9,"
                                     "j:1,k:2,l:3,m:4,n:5,o:6,p:7,q:8"));
    assert_int_equal(tri_cluster_name_hash(NULL), 0);
    assert_int_equal(tri_cluster_name_hash(""), 0);
    assert_true(tri_cluster_name_hash("a") != tri_cluster_name_hash("b"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_come_back),
        cmocka_unit_test(cookies),
        cmocka_unit_test(peeks),
        cmocka_unit_test(seeds_are_checked),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
