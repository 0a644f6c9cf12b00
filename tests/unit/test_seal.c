/* SPDX-License-Identifier: BSD-3-Clause */
/* Seals: what was sealed opens, once it is what it was; all else does not. */
#include "unit.h"

#include <openssl/err.h>

#include "wire/frame.h"
#include "wire/seal.h"

#define HERE 0x0102030405060708ull
#define THERE 0x1112131415161718ull
#define NUMBER 0x4000000000000001ull
#define BYTES_MAX TRI_FRAME_BYTES_MAX
#define BODY_MAX (BYTES_MAX - TRI_FRAME_HEADER_BYTES - TRI_SEAL_TAG_BYTES)

static unsigned char key[TRI_KEY_BYTES];

/* Both ends, and the frame that travels between them. */
struct pair {
    enum tri_seal_mode mode;
    struct tri_seal *here, *there;
    unsigned char data[BYTES_MAX], before[BYTES_MAX];
};

static int setup(void **state)
{
    unit_group_setup(state);
    for (unsigned i = 0; i < TRI_KEY_BYTES; i++)
        key[i] = (unsigned char)i;
    return 0;
}

static struct tri_seal *seal_of(const unsigned char *of_key,
                                enum tri_seal_mode mode, uint64_t source,
                                uint64_t destination)
{
    struct tri_seal *seal = NULL;

    assert_int_equal(tri_seal_create(of_key, mode, source, destination, &seal),
                     0);
    assert_non_null(seal);
    return seal;
}

static void pair_init(struct pair *pair, enum tri_seal_mode mode)
{
    pair->mode = mode;
    pair->here = seal_of(key, mode, HERE, THERE);
    pair->there = seal_of(key, mode, THERE, HERE);
}

static void pair_fini(struct pair *pair)
{
    tri_seal_destroy(&pair->here);
    tri_seal_destroy(&pair->there);
    assert_null(pair->here);
}

static void seal_random(struct pair *pair, struct tri_random *random,
                        uint64_t number, size_t header, size_t body)
{
    for (size_t i = 0; i < header + body; i++)
        pair->before[i] = (unsigned char)tri_random_next(random);
    memcpy(pair->data, pair->before, header + body);
    assert_int_equal(
        tri_seal_close(pair->here, number, pair->data, header, body), 0);
}

static bool opens(const struct pair *pair, struct tri_seal *seal,
                  uint64_t number, size_t header, size_t body)
{
    static unsigned char copy[BYTES_MAX];
    size_t bytes = header + body + TRI_SEAL_TAG_BYTES;

    memcpy(copy, pair->data, bytes);
    if (!tri_seal_open(seal, number, copy, header, body))
        return false;
    assert_memory_equal(copy, pair->before, header + body);
    /* The tag is not touched. */
    assert_memory_equal(copy + header + body, pair->data + header + body,
                        TRI_SEAL_TAG_BYTES);
    return true;
}

/* --- derivation ----------------------------------------------------------- */

/* Computed apart from this code: HMAC-SHA256 by RFC 5869, in Python. */
static void test_derivation(void **state)
{
    static const struct {
        enum tri_seal_mode mode;
        uint64_t source, destination;
        const char *text;
    } cases[] = {
        { TRI_SEAL_AUTH, HERE, THERE,
          "643b0fa0ddc773d34a00ffbd8bb8853c47592088d0beb8a08c180f38d8118634" },
        { TRI_SEAL_AUTH, THERE, HERE,
          "69cb883cf7fd255f5f3dbedcbea0c5d33314876325678768d04089f6a937409a" },
        { TRI_SEAL_ENCRYPT, HERE, THERE,
          "b3b81481d070900011dbf28e311769c8580b19344ddc56598c76464e90effad5" },
        { TRI_SEAL_ENCRYPT, THERE, HERE,
          "0947e62790eaef46799ed0ffc4ab20e8d184eadeb0c1f5f071a0a79aa52af312" },
    };

    (void)state;
    for (size_t i = 0; i < tri_array_len(cases); i++) {
        unsigned char derived[TRI_KEY_BYTES], expected[TRI_KEY_BYTES];

        assert_int_equal(tri_seal_derive(key, cases[i].mode, cases[i].source,
                                         cases[i].destination, derived),
                         0);
        assert_true(
            tri_key_parse(cases[i].text, strlen(cases[i].text), expected));
        assert_memory_equal(derived, expected, TRI_KEY_BYTES);
    }
}

/* Whole frames of 16 bytes of header (0, 1, 2, ...) and 24 of body (100, 101,
 * ...), computed apart from this code: what travels does not change. */
static void test_known_frames(void **state)
{
    static const unsigned char auth_tag[TRI_SEAL_TAG_BYTES] = {
        0x08, 0x16, 0x53, 0x62, 0x90, 0xe9, 0x53, 0xf6,
        0xfe, 0x1f, 0x11, 0x83, 0x8c, 0x7b, 0x6b, 0xb8,
    };
    static const unsigned char encrypted[24 + TRI_SEAL_TAG_BYTES] = {
        0x49, 0x53, 0xf3, 0xa5, 0x3a, 0x77, 0x5f, 0x7a, 0x45, 0x09,
        0x7e, 0xb2, 0xe5, 0x7f, 0x26, 0xb7, 0xc9, 0x30, 0xb3, 0x98,
        0xd1, 0xcf, 0x48, 0x74, 0x87, 0x7c, 0x46, 0x1d, 0x39, 0x34,
        0x51, 0x57, 0x9c, 0xf6, 0xce, 0x1c, 0x5a, 0x2b, 0x34, 0xa0,
    };

    (void)state;
    for (int mode = TRI_SEAL_AUTH; mode <= TRI_SEAL_ENCRYPT; mode++) {
        unsigned char data[16 + 24 + TRI_SEAL_TAG_BYTES];
        struct pair pair;

        for (unsigned i = 0; i < 40; i++)
            data[i] = (unsigned char)(i < 16 ? i : 100 + i - 16);
        pair_init(&pair, (enum tri_seal_mode)mode);
        assert_int_equal(tri_seal_close(pair.here, NUMBER, data, 16, 24), 0);
        if (mode == TRI_SEAL_AUTH)
            assert_memory_equal(data + 40, auth_tag, sizeof(auth_tag));
        else
            assert_memory_equal(data + 16, encrypted, sizeof(encrypted));
        pair_fini(&pair);
    }
}

/* --- what opens ----------------------------------------------------------- */

static void test_round_trips(void **state)
{
    static const size_t bodies[] = { 0,   1,    15,   16,   17,      24,
                                     128, 1024, 4095, 8192, BODY_MAX };
    struct tri_random random;
    static struct pair pair;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    for (int mode = TRI_SEAL_AUTH; mode <= TRI_SEAL_ENCRYPT; mode++) {
        uint64_t number = NUMBER;

        pair_init(&pair, (enum tri_seal_mode)mode);
        for (size_t i = 0; i < tri_array_len(bodies); i++, number++) {
            size_t header = TRI_FRAME_HEADER_BYTES, body = bodies[i];

            seal_random(&pair, &random, number, header, body);
            assert_memory_equal(pair.data, pair.before, header);
            if (mode == TRI_SEAL_AUTH || body == 0)
                assert_memory_equal(pair.data, pair.before, header + body);
            else if (body >= 16)
                assert_memory_not_equal(pair.data + header,
                                        pair.before + header, body);
            /* Any number of times: numbers are the session's business. */
            assert_true(opens(&pair, pair.there, number, header, body));
            assert_true(opens(&pair, pair.there, number, header, body));
        }
        pair_fini(&pair);
    }
}

/* In both directions, in any order, at a seal's every number. */
static void test_numbers(void **state)
{
    static const uint64_t numbers[] = { UINT64_MAX, 0, 1, 1ull << 32,
                                        1ull << 62, 3, 2 };
    unsigned char data[64];

    (void)state;
    for (int mode = TRI_SEAL_AUTH; mode <= TRI_SEAL_ENCRYPT; mode++) {
        struct pair pair;

        pair_init(&pair, (enum tri_seal_mode)mode);
        for (size_t i = 0; i < tri_array_len(numbers); i++) {
            bool back = i % 2;
            struct tri_seal *from = back ? pair.there : pair.here;
            struct tri_seal *to = back ? pair.here : pair.there;

            memset(data, (int)i, sizeof(data));
            assert_int_equal(tri_seal_close(from, numbers[i], data, 16, 32), 0);
            assert_true(tri_seal_open(to, numbers[i], data, 16, 32));
            assert_int_equal(data[47], i);
        }
        pair_fini(&pair);
    }
}

/* The same frame under the same number is the same bytes; under another number
 * it is not. */
static void test_tags_differ(void **state)
{
    unsigned char tags[4][TRI_SEAL_TAG_BYTES];
    static const uint64_t numbers[] = { 1, 2, 1ull << 40, 1 };
    struct pair pair;

    (void)state;
    pair_init(&pair, TRI_SEAL_AUTH);
    for (int i = 0; i < 4; i++) {
        unsigned char data[16 + TRI_SEAL_TAG_BYTES] = { 0 };

        assert_int_equal(tri_seal_close(pair.here, numbers[i], data, 16, 0), 0);
        memcpy(tags[i], data + 16, TRI_SEAL_TAG_BYTES);
    }
    assert_memory_equal(tags[0], tags[3], TRI_SEAL_TAG_BYTES);
    assert_memory_not_equal(tags[0], tags[1], TRI_SEAL_TAG_BYTES);
    assert_memory_not_equal(tags[0], tags[2], TRI_SEAL_TAG_BYTES);
    pair_fini(&pair);
}

static void test_none(void **state)
{
    struct tri_seal *seal = seal_of(NULL, TRI_SEAL_NONE, HERE, THERE);
    unsigned char data[48], before[48];

    (void)state;
    memset(data, 3, sizeof(data));
    memset(before, 3, sizeof(before));
    assert_int_equal(tri_seal_close(seal, 1, data, 16, 16), 0);
    assert_memory_equal(data, before, sizeof(data));
    data[7] ^= 1;
    assert_true(tri_seal_open(seal, 1, data, 16, 16));
    tri_seal_destroy(&seal);
    tri_seal_destroy(&seal);
}

/* --- what does not -------------------------------------------------------- */

/* Each bit of header, body and tag; and the seal works on as before. */
static void test_flipped_bits(void **state)
{
    enum { HEADER = TRI_FRAME_HEADER_BYTES, BODY = 56 };
    struct tri_random random;
    static struct pair pair;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    for (int mode = TRI_SEAL_AUTH; mode <= TRI_SEAL_ENCRYPT; mode++) {
        pair_init(&pair, (enum tri_seal_mode)mode);
        seal_random(&pair, &random, NUMBER, HEADER, BODY);
        for (unsigned bit = 0; bit < 8 * (HEADER + BODY + TRI_SEAL_TAG_BYTES);
             bit++) {
            unsigned char mask = (unsigned char)(1u << bit % 8);

            pair.data[bit / 8] ^= mask;
            if (opens(&pair, pair.there, NUMBER, HEADER, BODY))
                fail_msg("mode %d: bit %u may be flipped", mode, bit);
            pair.data[bit / 8] ^= mask;
        }
        assert_true(opens(&pair, pair.there, NUMBER, HEADER, BODY));
        pair_fini(&pair);
    }
    assert_int_equal(ERR_peek_error(), 0);
}

static void test_random_changes(void **state)
{
    struct tri_random random;
    static struct pair pair;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    for (int mode = TRI_SEAL_AUTH; mode <= TRI_SEAL_ENCRYPT; mode++) {
        pair_init(&pair, (enum tri_seal_mode)mode);
        for (uint64_t number = 1; number < 500; number++) {
            size_t body = tri_random_next(&random) % (BODY_MAX + 1);
            size_t bytes = TRI_FRAME_HEADER_BYTES + body + TRI_SEAL_TAG_BYTES;
            size_t at = tri_random_next(&random) % bytes;
            unsigned char change =
                (unsigned char)(1 + tri_random_next(&random) % 255);

            seal_random(&pair, &random, number, TRI_FRAME_HEADER_BYTES, body);
            pair.data[at] ^= change;
            assert_false(
                opens(&pair, pair.there, number, TRI_FRAME_HEADER_BYTES, body));
            pair.data[at] ^= change;
            assert_true(
                opens(&pair, pair.there, number, TRI_FRAME_HEADER_BYTES, body));
        }
        pair_fini(&pair);
    }
}

/* Where header, body and tag begin is authenticated in encrypted frames; in
 * others the frame's length is, and the header has its own. */
static void test_other_sizes(void **state)
{
    struct tri_random random;
    static struct pair pair;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    for (int mode = TRI_SEAL_AUTH; mode <= TRI_SEAL_ENCRYPT; mode++) {
        pair_init(&pair, (enum tri_seal_mode)mode);
        seal_random(&pair, &random, NUMBER, 80, 64);
        assert_false(opens(&pair, pair.there, NUMBER, 80, 63));
        assert_false(opens(&pair, pair.there, NUMBER, 80, 65));
        assert_false(opens(&pair, pair.there, NUMBER, 80, 0));
        if (mode == TRI_SEAL_ENCRYPT) {
            assert_false(opens(&pair, pair.there, NUMBER, 64, 80));
            assert_false(opens(&pair, pair.there, NUMBER, 96, 48));
        }
        assert_true(opens(&pair, pair.there, NUMBER, 80, 64));
        pair_fini(&pair);
    }
}

static void assert_foreign(const struct pair *pair, const unsigned char *of_key,
                           enum tri_seal_mode mode, uint64_t source,
                           uint64_t destination)
{
    struct tri_seal *seal = seal_of(of_key, mode, source, destination);

    assert_false(opens(pair, seal, NUMBER, 80, 64));
    tri_seal_destroy(&seal);
}

static void test_foreign_frames(void **state)
{
    unsigned char other_key[TRI_KEY_BYTES];
    struct tri_random random;
    static struct pair pair;

    (void)state;
    tri_random_init(&random, unit_seed(__func__));
    for (int mode = TRI_SEAL_AUTH; mode <= TRI_SEAL_ENCRYPT; mode++) {
        enum tri_seal_mode own = (enum tri_seal_mode)mode;

        pair_init(&pair, own);
        seal_random(&pair, &random, NUMBER, 80, 64);
        assert_true(opens(&pair, pair.there, NUMBER, 80, 64));
        /* another number */
        assert_false(opens(&pair, pair.there, NUMBER + 1, 80, 64));
        assert_false(opens(&pair, pair.there, NUMBER ^ 1ull << 62, 80, 64));
        /* another direction: one's own frame sent back */
        assert_false(opens(&pair, pair.here, NUMBER, 80, 64));
        /* another sender, another receiver, other lives of them */
        assert_foreign(&pair, key, own, THERE, HERE + 1);
        assert_foreign(&pair, key, own, THERE ^ 1ull << 63, HERE);
        /* another mode */
        assert_foreign(&pair, key,
                       own == TRI_SEAL_AUTH ? TRI_SEAL_ENCRYPT : TRI_SEAL_AUTH,
                       THERE, HERE);
        /* another key, by any bit */
        for (unsigned bit = 0; bit < 8 * TRI_KEY_BYTES; bit++) {
            memcpy(other_key, key, sizeof(key));
            other_key[bit / 8] ^= (unsigned char)(1u << bit % 8);
            assert_foreign(&pair, other_key, own, THERE, HERE);
        }
        assert_true(opens(&pair, pair.there, NUMBER, 80, 64));
        pair_fini(&pair);
    }
}

/* A program that uses the crypto library finds its errors as it left them. */
static void test_error_queue_is_left_alone(void **state)
{
    unsigned char data[64] = { 0 };
    struct pair pair;

    (void)state;
    ERR_clear_error();
    ERR_raise(ERR_LIB_USER, 77);
    pair_init(&pair, TRI_SEAL_ENCRYPT);
    assert_false(tri_seal_open(pair.there, 1, data, 16, 32));
    assert_int_equal(tri_seal_close(pair.here, 1, data, 16, 32), 0);
    assert_true(tri_seal_open(pair.there, 1, data, 16, 32));
    pair_fini(&pair);
    assert_int_equal(ERR_GET_REASON(ERR_get_error()), 77);
    assert_int_equal(ERR_get_error(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_derivation),
        cmocka_unit_test(test_known_frames),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_tags_differ),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_random_changes),
        cmocka_unit_test(test_other_sizes),
        cmocka_unit_test(test_foreign_frames),
        cmocka_unit_test(test_error_queue_is_left_alone),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
