/* SPDX-License-Identifier: BSD-3-Clause */
/* The registry's packets, and its table one call at a time. tests/sim drives
 * many of them. */
#include "unit.h"

#include "member/swim_core.h"
#include "name/registry_core.h"

enum { ME = 5, OTHER = 9, THIRD = 12 };

struct world {
    struct tri_registry *registry;
    uint64_t now_ns;
    struct tri_registry_writer sent; /* the last */
    uint64_t sent_to;
    uint32_t sends, added, removed, lost;
};

static void on_send(void *context, uint64_t to, const void *body, size_t bytes)
{
    struct world *world = context;

    world->sends++;
    world->sent_to = to;
    world->sent.bytes = (uint32_t)bytes;
    memcpy(world->sent.body, body, bytes);
}

static void on_changed(void *context, enum tri_registry_what what,
                       const struct tri_registry_entry *entry)
{
    struct world *world = context;

    (void)entry;
    world->added += what == TRI_REGISTRY_ADDED;
    world->removed += what == TRI_REGISTRY_REMOVED;
    world->lost += what == TRI_REGISTRY_LOST;
}

static const char *step(struct world *world, enum tri_registry_event_kind kind,
                        uint64_t node, const struct tri_registry_writer *packet)
{
    struct tri_registry_event event = { .kind = kind,
                                        .now_ns = world->now_ns,
                                        .node = node };

    if (packet != NULL) {
        event.body = packet->body;
        event.body_bytes = packet->bytes;
    }
    return tri_registry_step(world->registry, &event);
}

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    struct tri_registry_sink sink = { world, on_send, on_changed };
    struct tri_registry_config config;

    if (world == NULL)
        return -1;
    tri_registry_config_init(&config);
    config.node = ME;
    config.seed = 1;
    config.entries_max = 16;
    config.owners_max = 3;
    world->now_ns = 1;
    *state = world;
    if (tri_registry_create(&config, &sink, &world->registry) != 0)
        return -1;
    step(world, TRI_REGISTRY_JOINED, OTHER, NULL);
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;

    tri_registry_destroy(&world->registry);
    free(world);
    return 0;
}

static int add(struct world *world, const char *name, uint32_t slot,
               bool unique)
{
    struct tri_registry_claim claim = { .name = name,
                                        .slot = slot,
                                        .generation = 1,
                                        .unique = unique };

    return tri_registry_add(world->registry, world->now_ns, &claim);
}

/* A packet with one section of OTHER's; items: "name@version", '-' in front of
 * a withdrawn one, '!' of a unique one. */
static struct tri_registry_writer delta(uint64_t version, uint64_t collected,
                                        uint64_t base, uint64_t upto,
                                        const char *items, uint64_t counter)
{
    struct tri_registry_section section = { .owner = OTHER,
                                            .version = version,
                                            .collected = collected,
                                            .base = base,
                                            .upto = upto };
    struct tri_registry_writer writer;

    tri_registry_begin(&writer, TRI_REGISTRY_DELTA);
    assert_true(tri_registry_open_section(&writer));
    while (*items != '\0') {
        struct tri_registry_item item = { .slot = 7,
                                          .generation = 1,
                                          .stamp.counter = counter };
        char *end;

        if (*items == '-')
            item.flags = TRI_ENTRY_DELETED;
        if (*items == '!')
            item.flags = TRI_ENTRY_UNIQUE;
        items += item.flags != 0;
        item.name = items;
        item.name_len = (uint8_t)strcspn(items, "@");
        item.version = strtoull(items + item.name_len + 1, &end, 10);
        assert_true(tri_registry_write_item(&writer, &item));
        items = *end == ' ' ? end + 1 : end;
    }
    tri_registry_close_section(&writer, &section);
    return writer;
}

static void take(struct world *world, struct tri_registry_writer packet)
{
    assert_null(step(world, TRI_REGISTRY_PACKET, OTHER, &packet));
}

static uint32_t instances(struct world *world, const char *name)
{
    struct tri_registry_walk walk;
    const struct tri_registry_entry *entry =
        tri_registry_first(world->registry, name, strlen(name), &walk);
    uint32_t len = 0;

    for (; entry != NULL; entry = tri_registry_next(&walk))
        len++;
    return len;
}

static uint64_t reached(struct world *world)
{
    return tri_registry_owner_of(world->registry, OTHER)->version;
}

/* --- the table ------------------------------------------------------------ */

static void test_add_and_withdraw(void **state)
{
    struct world *world = *state;

    assert_int_equal(add(world, "a", 1, false), 0);
    assert_int_equal(add(world, "a", 2, false), TROUPE_EEXIST);
    assert_int_equal(add(world, "", 2, false), TROUPE_EINVAL);
    assert_int_equal(instances(world, "a"), 1);
    tri_registry_withdraw(world->registry, 1, "a", 2, 1); /* not its name */
    tri_registry_withdraw(world->registry, 1, "b", 1, 1);
    assert_int_equal(instances(world, "a"), 1);
    tri_registry_withdraw(world->registry, 1, "a", 1, 1);
    assert_int_equal(instances(world, "a"), 0);
    assert_int_equal(world->added, 1);
    assert_int_equal(world->removed, 1);
    assert_int_equal(add(world, "a", 2, false), 0);
    assert_int_equal(tri_registry_len(world->registry), 1);
}

static void test_unique_taken(void **state)
{
    struct world *world = *state;

    take(world, delta(2, 0, 0, 2, "!only@1 many@2", 1));
    assert_int_equal(add(world, "only", 1, false), TROUPE_EEXIST);
    assert_int_equal(add(world, "only", 1, true), TROUPE_EEXIST);
    assert_int_equal(add(world, "many", 1, true), TROUPE_EEXIST);
    assert_int_equal(add(world, "many", 1, false), 0);
    assert_int_equal(instances(world, "many"), 2);
    take(world, delta(3, 0, 2, 3, "-only@3", 1));
    assert_int_equal(add(world, "only", 1, true), 0);
}

/* The smaller stamp wins; the node id decides between equals. */
static void test_lost(void **state)
{
    struct world *world = *state;

    assert_int_equal(add(world, "a", 1, true), 0); /* counter 1, node 5 */
    assert_int_equal(add(world, "b", 2, true), 0); /* counter 2, node 5 */
    take(world, delta(1, 0, 0, 1, "!a@1", 1));     /* counter 1, node 9 */
    assert_int_equal(world->lost, 0);
    assert_int_equal(instances(world, "a"), 1); /* ours, for now */
    take(world, delta(2, 0, 1, 2, "!b@2", 1));
    assert_int_equal(world->lost, 1);
    assert_int_equal(instances(world, "b"), 1);
    /* an entry of many gives way to an earlier unique one */
    assert_int_equal(add(world, "c", 3, false), 0);
    take(world, delta(3, 0, 2, 3, "!c@3", 1));
    assert_int_equal(world->lost, 2);
}

static void test_members(void **state)
{
    struct world *world = *state;
    struct tri_registry_writer packet = delta(2, 0, 0, 2, "x@1 y@2", 1);

    take(world, packet);
    assert_int_equal(instances(world, "x"), 1);
    step(world, TRI_REGISTRY_SUSPECTED, OTHER, NULL);
    assert_true(tri_registry_owner_of(world->registry, OTHER)->suspect);
    assert_int_equal(instances(world, "x"), 1);
    step(world, TRI_REGISTRY_RECOVERED, OTHER, NULL);
    assert_false(tri_registry_owner_of(world->registry, OTHER)->suspect);
    step(world, TRI_REGISTRY_GONE, OTHER, NULL);
    assert_int_equal(instances(world, "x"), 0);
    assert_int_equal(world->removed, 2);
    assert_null(tri_registry_owner_of(world->registry, OTHER));
    /* what it sent before comes late, and by way of somebody else */
    step(world, TRI_REGISTRY_JOINED, THIRD, NULL);
    assert_null(step(world, TRI_REGISTRY_PACKET, OTHER, &packet));
    assert_null(step(world, TRI_REGISTRY_PACKET, THIRD, &packet));
    assert_int_equal(instances(world, "x"), 0);
    assert_int_equal(tri_registry_len(world->registry), 0);
}

/* --- versions ------------------------------------------------------------- */

/* A part is a prefix; what comes early waits; what comes twice does nothing. */
static void test_order(void **state)
{
    struct world *world = *state;

    world->sends = 0;
    take(world, delta(9, 0, 6, 9, "d@8 e@9", 1));
    assert_int_equal(reached(world), 0);
    assert_int_equal(instances(world, "e"), 0);
    assert_int_equal(world->sends, 1); /* asks for the rest */
    assert_int_equal(world->sent.body[0], TRI_REGISTRY_REQUEST);
    take(world, delta(9, 0, 0, 4, "a@2 b@4", 1));
    assert_int_equal(reached(world), 4);
    take(world, delta(9, 0, 4, 6, "-a@6", 1));
    assert_int_equal(reached(world), 9); /* with what came early */
    assert_int_equal(instances(world, "a"), 0);
    assert_int_equal(instances(world, "e"), 1);
    take(world, delta(4, 0, 0, 4, "a@2 b@4", 1)); /* late, again */
    assert_int_equal(reached(world), 9);
    assert_int_equal(instances(world, "a"), 0);
}

/* In the middle of a list taken anew nothing of before it counts. */
static void test_reset(void **state)
{
    struct world *world = *state;

    take(world, delta(3, 0, 0, 3, "x@1 stays@2 old@3", 1));
    take(world, delta(60, 50, 40, 60, "z@60", 1));
    assert_int_equal(reached(world), 3); /* not the whole */
    take(world, delta(60, 50, 0, 10, "a@5 stays@10", 1));
    assert_int_equal(reached(world), 10);
    assert_int_equal(instances(world, "old"), 1); /* until all is there */
    take(world, delta(20, 0, 5, 20, "x@20", 1));  /* of before; withdrawn */
    assert_int_equal(reached(world), 10);
    world->removed = 0;
    take(world, delta(60, 50, 10, 60, "z@60", 1));
    assert_int_equal(reached(world), 60);
    assert_int_equal(world->removed, 2); /* x and old */
    assert_int_equal(instances(world, "x"), 0);
    assert_int_equal(instances(world, "old"), 0);
    assert_int_equal(instances(world, "stays"), 1);
    assert_int_equal(instances(world, "z"), 1);
}

/* Who has reached it drops the tombstones that the owner has collected. */
static void test_collected(void **state)
{
    struct world *world = *state;

    take(world, delta(3, 0, 0, 3, "a@1 -b@2 -c@3", 1));
    assert_int_equal(tri_registry_len(world->registry), 3);
    take(world, delta(4, 2, 3, 4, "", 1));
    assert_int_equal(tri_registry_len(world->registry), 2);
    assert_int_equal(reached(world), 4);
    assert_int_equal(tri_registry_metrics(world->registry).resets, 0);
}

static void test_full(void **state)
{
    struct world *world = *state;
    char name[8];

    for (uint32_t i = 0; i < 14; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        assert_int_equal(add(world, name, i + 1, false), 0);
    }
    take(world, delta(4, 0, 0, 4, "a@1 b@2 c@3 d@4", 1));
    assert_int_equal(reached(world), 2); /* stands still */
    assert_int_equal(add(world, "more", 99, false), TROUPE_ELIMIT);
    step(world, TRI_REGISTRY_GONE, OTHER, NULL);
    assert_int_equal(add(world, "more", 99, false), 0);
}

static void test_owners_are_bounded(void **state)
{
    struct world *world = *state;

    step(world, TRI_REGISTRY_JOINED, THIRD, NULL);
    step(world, TRI_REGISTRY_JOINED, 77, NULL); /* no room */
    assert_null(tri_registry_owner_of(world->registry, 77));
    step(world, TRI_REGISTRY_GONE, THIRD, NULL);
    step(world, TRI_REGISTRY_JOINED, 77, NULL);
    assert_non_null(tri_registry_owner_of(world->registry, 77));
}

/* --- packets -------------------------------------------------------------- */

static void expect_wrong(struct tri_registry_writer packet, size_t at,
                         unsigned char value, const char *part)
{
    struct tri_registry_reader reader;
    const char *wrong;

    packet.body[at] = value;
    wrong = tri_registry_open(packet.body, packet.bytes, &reader);
    if (wrong == NULL || strstr(wrong, part) == NULL)
        fail_msg("byte %zu = %u: %s, not: %s", at, value,
                 wrong != NULL ? wrong : "accepted", part);
}

static void test_wrong_packets(void **state)
{
    /* header 8, section 48, entry 40 and the name */
    struct tri_registry_writer packet = delta(9, 3, 1, 9, "ab@5 c@9", 1);
    struct tri_registry_reader reader;

    (void)state;
    assert_null(tri_registry_open(packet.body, packet.bytes, &reader));
    for (size_t bytes = 0; bytes < packet.bytes; bytes++)
        assert_non_null(tri_registry_open(packet.body, bytes, &reader));
    expect_wrong(packet, 0, 0, "kind");
    expect_wrong(packet, 0, 6, "kind");
    expect_wrong(packet, 1, 2, "version");
    expect_wrong(packet, 2, 2, "cut off");
    expect_wrong(packet, 2, 0, "left over");
    expect_wrong(packet, 5, 1, "reserved");
    expect_wrong(packet, 8, 0, "make no sense");      /* owner 0 */
    expect_wrong(packet, 16, 8, "make no sense");     /* version below upto */
    expect_wrong(packet, 24, 10, "make no sense");    /* collected */
    expect_wrong(packet, 32, 10, "make no sense");    /* base */
    expect_wrong(packet, 32, 5, "out of order");
    expect_wrong(packet, 40, 8, "out of order");      /* upto */
    expect_wrong(packet, 48, 3, "cut off");           /* entries */
    expect_wrong(packet, 50, 4, "unknown flags");
    expect_wrong(packet, 53, 1, "reserved");
    expect_wrong(packet, 56, 9, "out of order");      /* the entry's version */
    expect_wrong(packet, 56 + 36, 8, "unknown flags");
    expect_wrong(packet, 56 + 37, 0, "a name");
    expect_wrong(packet, 56 + 37, 200, "cut off");
    expect_wrong(packet, 56 + 39, 1, "cut off");      /* tags */
    expect_wrong(packet, 56 + 40, ' ', "a name");
    packet.body[2] = 0;
    packet.body[0] = TRI_REGISTRY_DIGEST;
    assert_non_null(tri_registry_open(packet.body, 16, &reader));
}

static void test_transmissions(void **state)
{
    (void)state;
    assert_int_equal(tri_swim_transmissions(1, 0.05), 8);
    assert_int_equal(tri_swim_transmissions(8, 0.05), 10);
    assert_int_equal(tri_swim_transmissions(64, 0.05), 12);
    assert_int_equal(tri_swim_transmissions(1024, 0.05), 15);
    assert_int_equal(tri_swim_transmissions(4096, 0.05), 17);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_add_and_withdraw),
        TEST(test_unique_taken),
        TEST(test_lost),
        TEST(test_members),
        TEST(test_order),
        TEST(test_reset),
        TEST(test_collected),
        TEST(test_full),
        TEST(test_owners_are_bounded),
        cmocka_unit_test(test_wrong_packets),
        cmocka_unit_test(test_transmissions),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
