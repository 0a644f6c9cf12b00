/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What members say of themselves: as bytes, and the core that spreads it, step
 * by step. tests/sim/test_traits.c runs it among many.
 */
#include "unit.h"

#include "member/traits_core.h"

enum { OWN = 100, OTHER = 200, THIRD = 300, MEMBERS_MAX = 128 };

#define MS 1000000ull

/* --- bytes ---------------------------------------------------------------- */

static struct tri_traits_packet packet, copy;
static unsigned char body[TRI_TRAITS_BODY_MAX + 1];

static struct tri_traits traits_of(uint64_t node, uint64_t version, float load,
                                   const char *tags)
{
    struct tri_traits traits = { .node = node, .version = version,
                                 .load = load };

    traits.tags_len = (uint8_t)strlen(tags);
    memcpy(traits.tags, tags, traits.tags_len);
    return traits;
}

static size_t encode_news(void)
{
    memset(&packet, 0, sizeof(packet));
    packet.kind = TRI_TRAITS_NEWS;
    packet.len = 3;
    packet.news[0] = traits_of(1ull << 60, 7, 0.5f, "");
    packet.news[1] = traits_of(2, 1ull << 40, 0, "gpu=1 zone=a");
    packet.news[2] = traits_of(3, 1, 1e6f, "x");
    return tri_traits_encode(&packet, body);
}

static void test_news(void **state)
{
    size_t bytes = encode_news();

    (void)state;
    assert_int_equal(bytes, TRI_TRAITS_HEADER_BYTES +
                                3 * TRI_TRAITS_ENTRY_BYTES + 12 + 1);
    assert_null(tri_traits_decode(body, bytes, &copy));
    assert_int_equal(copy.len, 3);
    assert_memory_equal(copy.news, packet.news, 3 * sizeof(*copy.news));
    for (size_t i = 0; i <= TRI_TRAITS_BODY_MAX; i++)
        if (i != bytes)
            assert_non_null(tri_traits_decode(body, i, &copy));
}

static void test_wrong_news(void **state)
{
    static const uint32_t loads[] = { 0x7fc00000, 0x7f800000, 0xbf800000,
                                      0x7f000000 };
    size_t bytes = encode_news();

    (void)state;
    for (size_t i = 0; i < tri_array_len(loads); i++) {
        for (unsigned k = 0; k < 4; k++)
            body[TRI_TRAITS_HEADER_BYTES + 16 + k] =
                (unsigned char)(loads[i] >> 8 * k);
        assert_non_null(tri_traits_decode(body, bytes, &copy));
    }
    bytes = encode_news();
    body[bytes - 1] = 0; /* within tags */
    assert_non_null(tri_traits_decode(body, bytes, &copy));
    bytes = encode_news();
    memset(body + TRI_TRAITS_HEADER_BYTES + 8, 0, 8); /* version */
    assert_non_null(tri_traits_decode(body, bytes, &copy));
    bytes = encode_news();
    body[1] = TRI_TRAITS_WANT;
    assert_non_null(tri_traits_decode(body, bytes, &copy));
    bytes = encode_news();
    body[0] = TRI_TRAITS_KIND_LAST + 1;
    assert_non_null(tri_traits_decode(body, bytes, &copy));
    body[0] = 0;
    assert_non_null(tri_traits_decode(body, bytes, &copy));
}

static void test_known(void **state)
{
    size_t bytes;

    (void)state;
    memset(&packet, 0, sizeof(packet));
    packet.kind = TRI_TRAITS_HASH;
    packet.hash = 0x0123456789abcdefull;
    bytes = tri_traits_encode(&packet, body);
    assert_null(tri_traits_decode(body, bytes, &copy));
    assert_true(copy.hash == packet.hash);
    assert_non_null(tri_traits_decode(body, bytes - 1, &copy));
    packet.kind = TRI_TRAITS_KNOWN;
    packet.flags = TRI_TRAITS_WANT;
    packet.first = 1;
    packet.last = UINT64_MAX;
    packet.len = TRI_TRAITS_PAIRS_MAX;
    for (uint16_t i = 0; i < packet.len; i++)
        packet.pairs[i] = (struct tri_traits_pair){ .node = i + 1u,
                                                    .version = 2u * i };
    bytes = tri_traits_encode(&packet, body);
    assert_true(bytes <= TRI_TRAITS_BODY_MAX);
    assert_null(tri_traits_decode(body, bytes, &copy));
    assert_memory_equal(copy.pairs, packet.pairs,
                        packet.len * sizeof(*copy.pairs));
    assert_int_equal(copy.flags, TRI_TRAITS_WANT);
    assert_non_null(tri_traits_decode(body, bytes - 1, &copy));
    body[4 + 16 + 16] = 1; /* the second node is the first again */
    assert_non_null(tri_traits_decode(body, bytes, &copy));
    body[4 + 16 + 16] = 2;
    body[4] = 2; /* the first is out of range */
    assert_non_null(tri_traits_decode(body, bytes, &copy));
}

/* Any bytes: refused, or the same again when written. */
static void test_noise(void **state)
{
    static unsigned char again[TRI_TRAITS_BODY_MAX];
    struct tri_random random;

    (void)state;
    tri_random_init(&random, unit_seed("test_noise"));
    for (int i = 0; i < 200000; i++) {
        size_t bytes = encode_news();

        for (uint32_t k = tri_random_below(&random, 4); k > 0; k--)
            body[tri_random_below(&random, (uint32_t)bytes)] =
                (unsigned char)tri_random_next(&random);
        bytes -= tri_random_below(&random, 3);
        if (tri_traits_decode(body, bytes, &copy) != NULL)
            continue;
        assert_int_equal(tri_traits_encode(&copy, again), bytes);
        assert_memory_equal(again, body, bytes);
    }
}

/* --- the core ------------------------------------------------------------- */

struct fixture {
    struct tri_traits_core *core;
    uint64_t now_ns;
    struct tri_traits_effects effects;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct tri_traits_config config;

    tri_traits_config_init(&config);
    config.node = OWN;
    config.seed = 1;
    config.members_max = MEMBERS_MAX;
    assert_non_null(fixture);
    assert_int_equal(tri_traits_core_create(&config, &fixture->core), 0);
    fixture->now_ns = 1000 * MS;
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    tri_traits_core_destroy(&fixture->core);
    free(fixture);
    return 0;
}

static void step(struct fixture *fixture, struct tri_traits_event event)
{
    event.now_ns = fixture->now_ns;
    tri_traits_core_step(fixture->core, &event, &fixture->effects);
}

static void join(struct fixture *fixture, uint64_t node)
{
    step(fixture, (struct tri_traits_event){ .kind = TRI_TRAITS_JOINED,
                                             .node = node });
}

static void own(struct fixture *fixture, uint64_t version, const char *tags)
{
    struct tri_traits traits = traits_of(OWN, version, 0, tags);

    step(fixture, (struct tri_traits_event){ .kind = TRI_TRAITS_OWN,
                                             .traits = &traits });
}

static void hear(struct fixture *fixture, uint64_t from)
{
    step(fixture, (struct tri_traits_event){ .kind = TRI_TRAITS_PACKET,
                                             .node = from,
                                             .packet = &packet });
}

static void hear_news(struct fixture *fixture, uint64_t from,
                      struct tri_traits traits)
{
    memset(&packet, 0, sizeof(packet));
    packet.kind = TRI_TRAITS_NEWS;
    packet.len = 1;
    packet.news[0] = traits;
    hear(fixture, from);
}

/* To the next moment that something is due at. */
static bool pass(struct fixture *fixture)
{
    uint64_t due_ns = tri_traits_core_due_ns(fixture->core);

    if (due_ns == UINT64_MAX)
        return false;
    fixture->now_ns = tri_max(fixture->now_ns, due_ns);
    step(fixture, (struct tri_traits_event){ .kind = TRI_TRAITS_TICK });
    return true;
}

/* What a send is, decoded into `copy`. */
static uint8_t kind_of(struct fixture *fixture, uint32_t i)
{
    assert_null(tri_traits_decode(fixture->effects.sends[i].body,
                                  fixture->effects.sends[i].bytes, &copy));
    return copy.kind;
}

static void test_alone(void **state)
{
    struct fixture *fixture = *state;

    own(fixture, 1, "alone");
    assert_int_equal(fixture->effects.sends_len, 0);
    assert_false(pass(fixture));
    join(fixture, OTHER); /* and is told at once */
    assert_int_equal(fixture->effects.sends_len, 1);
    assert_int_equal(kind_of(fixture, 0), TRI_TRAITS_NEWS);
    assert_string_equal(copy.news[0].tags, "alone");
}

/* ceil((ln 2 + 7) / 0.95) = 9 times, then never again. */
static void test_count(void **state)
{
    struct fixture *fixture = *state;
    unsigned news = 0;

    join(fixture, OTHER);
    own(fixture, 1, "a");
    for (int i = 0; i < 60; i++) {
        for (uint32_t k = 0; k < fixture->effects.sends_len; k++)
            news += kind_of(fixture, k) == TRI_TRAITS_NEWS;
        assert_true(pass(fixture));
    }
    assert_int_equal(news, 9);
}

static void test_versions(void **state)
{
    struct fixture *fixture = *state;

    join(fixture, OTHER);
    hear_news(fixture, OTHER, traits_of(THIRD, 5, 1, "stranger"));
    assert_int_equal(fixture->effects.changes_len, 0);
    assert_null(tri_traits_core_get(fixture->core, THIRD));
    join(fixture, THIRD);
    hear_news(fixture, OTHER, traits_of(THIRD, 5, 1, "five"));
    assert_int_equal(fixture->effects.changes_len, 1);
    assert_string_equal(fixture->effects.changes[0]->tags, "five");
    hear_news(fixture, OTHER, traits_of(THIRD, 4, 1, "four"));
    assert_int_equal(fixture->effects.changes_len, 0);
    hear_news(fixture, OTHER, traits_of(THIRD, 5, 1, "other"));
    assert_int_equal(fixture->effects.changes_len, 0);
    assert_string_equal(tri_traits_core_get(fixture->core, THIRD)->tags,
                        "five");
    /* only this node says what this node is */
    hear_news(fixture, OTHER, traits_of(OWN, 9, 1, "not me"));
    assert_int_equal(fixture->effects.changes_len, 0);
    /* strangers say nothing */
    hear_news(fixture, 999, traits_of(THIRD, 6, 1, "six"));
    assert_int_equal(fixture->effects.changes_len, 0);
    step(fixture, (struct tri_traits_event){ .kind = TRI_TRAITS_GONE,
                                             .node = THIRD });
    assert_null(tri_traits_core_get(fixture->core, THIRD));
    hear_news(fixture, OTHER, traits_of(THIRD, 7, 1, "late"));
    assert_null(tri_traits_core_get(fixture->core, THIRD));
    assert_true(tri_traits_core_hash(fixture->core) == 0);
}

/* Who gives another hash is told what is known here, and learns the rest. */
static void test_exchange(void **state)
{
    struct fixture *fixture = *state;

    join(fixture, OTHER);
    join(fixture, THIRD);
    hear_news(fixture, OTHER, traits_of(THIRD, 5, 1, "five"));
    packet.kind = TRI_TRAITS_HASH;
    packet.len = 0;
    packet.hash = tri_traits_core_hash(fixture->core);
    while (fixture->now_ns < 5000 * MS)
        assert_true(pass(fixture)); /* until the gossip is over */
    hear(fixture, OTHER);
    assert_true(tri_traits_core_due_ns(fixture->core) > fixture->now_ns);
    packet.hash++;
    hear(fixture, OTHER);
    if (fixture->effects.sends_len == 0)
        assert_true(pass(fixture));
    assert_int_equal(kind_of(fixture, fixture->effects.sends_len - 1),
                     TRI_TRAITS_KNOWN);
    assert_int_equal(copy.flags, TRI_TRAITS_WANT);
    assert_int_equal(copy.len, 1);
    assert_true(copy.first == 0 && copy.last == UINT64_MAX);
    /* the other one lists something newer, and lacks what is known here */
    packet.kind = TRI_TRAITS_KNOWN;
    packet.flags = TRI_TRAITS_WANT;
    packet.first = 0;
    packet.last = UINT64_MAX;
    packet.len = 1;
    packet.pairs[0] = (struct tri_traits_pair){ .node = OTHER, .version = 3 };
    hear(fixture, OTHER);
    assert_true(fixture->effects.sends_len >= 2);
    assert_int_equal(kind_of(fixture, 0), TRI_TRAITS_NEWS);
    assert_int_equal(copy.news[0].node, THIRD);
    assert_int_equal(kind_of(fixture, 1), TRI_TRAITS_KNOWN);
    assert_int_equal(copy.flags, 0);
    /* of an unknown node: nothing to learn */
    packet.pairs[0].node = 77;
    hear(fixture, OTHER);
    for (uint32_t i = 0; i < fixture->effects.sends_len; i++)
        assert_int_not_equal(kind_of(fixture, i), TRI_TRAITS_KNOWN);
}

static void test_full(void **state)
{
    struct fixture *fixture = *state;

    for (uint64_t node = 1000; node < 1000 + 2 * MEMBERS_MAX; node++)
        join(fixture, node);
    assert_non_null(tri_traits_core_get(fixture->core,
                                        1000 + MEMBERS_MAX - 2));
    assert_null(tri_traits_core_get(fixture->core, 1000 + MEMBERS_MAX - 1));
    for (uint64_t node = 1000; node < 1000 + 2 * MEMBERS_MAX; node++)
        step(fixture, (struct tri_traits_event){ .kind = TRI_TRAITS_GONE,
                                                 .node = node });
    join(fixture, OTHER);
    assert_non_null(tri_traits_core_get(fixture->core, OTHER));
    assert_non_null(tri_traits_core_get(fixture->core, OWN));
}

static void test_config(void **state)
{
    struct tri_traits_config config;
    struct tri_traits_core *core;

    (void)state;
    tri_traits_config_init(&config);
    config.members_max = 4;
    assert_int_equal(tri_traits_core_create(&config, &core), TROUPE_EINVAL);
    config.node = OWN;
    config.loss = 1;
    assert_int_equal(tri_traits_core_create(&config, &core), TROUPE_EINVAL);
    config.loss = 0;
    config.bytes_per_s = 100;
    assert_int_equal(tri_traits_core_create(&config, &core), TROUPE_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_news),
        cmocka_unit_test(test_wrong_news),
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_noise),
        cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exchange, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test(test_config),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
