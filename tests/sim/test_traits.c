/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What members say of themselves, among many of them on a virtual clock: lost,
 * late, doubled and reordered datagrams, members that join and go. Checked
 * after every event: nothing known gets older or is of somebody who is gone;
 * nobody sends more than it may. At rest all know the same.
 */
#include "../unit/unit.h"

#include "member/traits_core.h"

enum { LEN_MAX = 256, FLIGHTS_MAX = 1 << 16, TAGS_LEN = 40 };

#define MS 1000000ull
#define S (1000 * MS)

struct flight {
    uint64_t at_ns;
    uint64_t from;
    uint32_t to; /* index */
    uint32_t bytes;
    unsigned char body[TRI_TRAITS_BODY_MAX];
};

struct member {
    struct tri_traits_core *core; /* NULL: gone, or not there yet */
    uint64_t node;
    uint64_t version; /* of its own */
    uint64_t sent_bytes;
    uint64_t born_ns;
    uint64_t *seen; /* versions of others, by index */
};

struct sim {
    struct tri_random random;
    uint64_t now_ns;
    uint32_t len; /* members ever */
    uint32_t loss_percent;
    uint32_t flights_len;
    uint64_t packets;
    struct member members[LEN_MAX];
    struct flight flights[FLIGHTS_MAX]; /* a heap, by time */
    struct tri_traits_effects effects;
    struct tri_traits_packet packet;
};

static struct sim *sim;

/* --- the network ---------------------------------------------------------- */

static void swap(uint32_t a, uint32_t b)
{
    struct flight flight = sim->flights[a];

    sim->flights[a] = sim->flights[b];
    sim->flights[b] = flight;
}

static void fly(uint64_t from, uint32_t to, const struct tri_traits_send *send)
{
    uint32_t i = sim->flights_len;
    struct flight *flight = &sim->flights[i];

    assert_true(sim->flights_len < FLIGHTS_MAX);
    sim->flights_len++;
    flight->at_ns = sim->now_ns + 10 * MS +
                    tri_random_below(&sim->random, 10) * MS;
    flight->from = from;
    flight->to = to;
    flight->bytes = send->bytes;
    memcpy(flight->body, send->body, send->bytes);
    for (; i > 0 && sim->flights[i].at_ns < sim->flights[(i - 1) / 2].at_ns;
         i = (i - 1) / 2)
        swap(i, (i - 1) / 2);
}

static void land(struct flight *flight_p)
{
    uint32_t i = 0, least;

    *flight_p = sim->flights[0];
    sim->flights[0] = sim->flights[--sim->flights_len];
    for (;; i = least) {
        least = i;
        for (uint32_t k = 2 * i + 1; k <= 2 * i + 2; k++)
            if (k < sim->flights_len &&
                sim->flights[k].at_ns < sim->flights[least].at_ns)
                least = k;
        if (least == i)
            return;
        swap(i, least);
    }
}

/* --- members -------------------------------------------------------------- */

static uint32_t index_of(uint64_t node)
{
    for (uint32_t i = 0; i < sim->len; i++)
        if (sim->members[i].node == node)
            return i;
    fail_msg("nobody is %llx", (unsigned long long)node);
    return 0;
}

static void check_changes(struct member *member)
{
    for (uint32_t i = 0; i < sim->effects.changes_len; i++) {
        const struct tri_traits *traits = sim->effects.changes[i];
        uint32_t k = index_of(traits->node);

        assert_true(traits->version > member->seen[k]);
        assert_true(traits->version <= sim->members[k].version);
        assert_non_null(tri_traits_core_get(member->core, traits->node));
        member->seen[k] = traits->version;
    }
}

/* All it ever sent: its share for all of its life, and one burst. */
static void check_budget(const struct member *member)
{
    uint64_t life_ms = (sim->now_ns - member->born_ns) / MS;

    assert_true(member->sent_bytes <= 16384 / 2 + 16384 * (life_ms + 1) / 1000);
}

static void step(uint32_t i, struct tri_traits_event event)
{
    struct member *member = &sim->members[i];

    event.now_ns = sim->now_ns;
    tri_traits_core_step(member->core, &event, &sim->effects);
    check_changes(member);
    for (uint32_t k = 0; k < sim->effects.sends_len; k++) {
        const struct tri_traits_send *send = &sim->effects.sends[k];
        uint32_t to = index_of(send->to);

        assert_int_not_equal(to, i);
        member->sent_bytes += send->bytes + 108;
        sim->packets++;
        if (tri_random_below(&sim->random, 100) < sim->loss_percent)
            continue;
        fly(member->node, to, send);
        if (tri_random_below(&sim->random, 100) < sim->loss_percent / 4)
            fly(member->node, to, send);
    }
    check_budget(member);
}

static void tell_all(enum tri_traits_event_kind kind, uint64_t node)
{
    for (uint32_t i = 0; i < sim->len; i++)
        if (sim->members[i].core != NULL && sim->members[i].node != node)
            step(i, (struct tri_traits_event){ .kind = kind, .node = node });
}

static uint32_t join(void)
{
    struct member *member = &sim->members[sim->len];
    struct tri_traits_config config;
    uint32_t self = sim->len++;

    tri_traits_config_init(&config);
    config.node = member->node = tri_random_next(&sim->random) | 1;
    config.seed = tri_random_next(&sim->random);
    config.members_max = LEN_MAX;
    assert_int_equal(tri_traits_core_create(&config, &member->core), 0);
    member->seen = calloc(LEN_MAX, sizeof(*member->seen));
    assert_non_null(member->seen);
    member->born_ns = sim->now_ns;
    for (uint32_t i = 0; i < self; i++)
        if (sim->members[i].core != NULL)
            step(self, (struct tri_traits_event){
                           .kind = TRI_TRAITS_JOINED,
                           .node = sim->members[i].node });
    tell_all(TRI_TRAITS_JOINED, member->node);
    return self;
}

static void leave(uint32_t i)
{
    tri_traits_core_destroy(&sim->members[i].core);
    tell_all(TRI_TRAITS_GONE, sim->members[i].node);
}

/* Says something new of itself. */
static void speak(uint32_t i)
{
    struct member *member = &sim->members[i];
    struct tri_traits traits = { .node = member->node,
                                 .version = ++member->version,
                                 .tags_len = TAGS_LEN };

    traits.load = (float)tri_random_below(&sim->random, 100);
    memset(traits.tags, 'a' + (int)tri_random_below(&sim->random, 26),
           TAGS_LEN);
    step(i, (struct tri_traits_event){ .kind = TRI_TRAITS_OWN,
                                       .traits = &traits });
}

/* --- time ----------------------------------------------------------------- */

static void arrive(void)
{
    static struct flight flight;
    struct member *member;

    land(&flight);
    member = &sim->members[flight.to];
    if (member->core == NULL)
        return;
    assert_null(tri_traits_decode(flight.body, flight.bytes, &sim->packet));
    step(flight.to, (struct tri_traits_event){ .kind = TRI_TRAITS_PACKET,
                                               .node = flight.from,
                                               .packet = &sim->packet });
}

/* The virtual clock goes on by a millisecond. */
static void tick(void)
{
    sim->now_ns += MS;
    while (sim->flights_len > 0 && sim->flights[0].at_ns <= sim->now_ns)
        arrive();
    for (uint32_t i = 0; i < sim->len; i++)
        if (sim->members[i].core != NULL &&
            tri_traits_core_due_ns(sim->members[i].core) <= sim->now_ns)
            step(i, (struct tri_traits_event){ .kind = TRI_TRAITS_TICK });
}

static void run(uint64_t duration_ns)
{
    for (uint64_t end_ns = sim->now_ns + duration_ns; sim->now_ns < end_ns;)
        tick();
}

static bool is_equal(void)
{
    const struct tri_traits_core *first = NULL;

    for (uint32_t i = 0; i < sim->len; i++) {
        const struct tri_traits_core *core = sim->members[i].core;

        if (core == NULL)
            continue;
        if (first == NULL)
            first = core;
        if (tri_traits_core_hash(core) != tri_traits_core_hash(first))
            return false;
    }
    return true;
}

/* Returns how long it took until all know the same, in ms. */
static uint64_t settle(uint64_t at_most_ns)
{
    uint64_t start_ns = sim->now_ns;

    while (!is_equal() && sim->now_ns < start_ns + at_most_ns)
        tick();
    assert_true(is_equal());
    return (sim->now_ns - start_ns) / MS;
}

/* --- tests ---------------------------------------------------------------- */

static void begin(const char *test, uint32_t len, uint32_t loss_percent)
{
    sim = calloc(1, sizeof(*sim));
    assert_non_null(sim);
    tri_random_init(&sim->random, unit_seed(test));
    sim->now_ns = S;
    sim->loss_percent = loss_percent;
    while (sim->len < len)
        join();
}

static void end(void)
{
    for (uint32_t i = 0; i < sim->len; i++) {
        tri_traits_core_destroy(&sim->members[i].core);
        free(sim->members[i].seen);
    }
    free(sim);
    sim = NULL;
}

/* One speaks: all know it within the gossip's time. */
static void test_gossip(void **state)
{
    static const uint32_t sizes[] = { 2, 3, 8, 64, 256 };

    (void)state;
    for (size_t i = 0; i < tri_array_len(sizes); i++) {
        begin("test_gossip", sizes[i], 5);
        run(10 * S);
        speak(0);
        printf("  %u members: all know after %llu ms\n", sizes[i],
               (unsigned long long)settle(3 * S));
        end();
    }
}

/* Nobody speaks: hardly anybody sends. */
static void test_rest(void **state)
{
    uint64_t packets;

    (void)state;
    begin("test_rest", 64, 0);
    run(30 * S);
    packets = sim->packets;
    run(100 * S);
    packets = sim->packets - packets;
    printf("  64 members at rest: %.2f datagrams in 10 s each\n",
           (double)packets / 64 / 10);
    assert_true(packets <= 64 * 15);
    end();
}

/* All speak all the time, much is lost, members come and go. */
static void test_storm(void **state)
{
    uint32_t alive = 24;

    (void)state;
    begin("test_storm", alive, 25);
    for (int round = 0; round < 600; round++) {
        uint32_t i = tri_random_below(&sim->random, sim->len);

        run(100 * MS);
        if (sim->members[i].core != NULL)
            speak(i);
        if (round % 20 == 0 && sim->len < LEN_MAX) {
            join();
            alive++;
        }
        if (round % 30 == 0 && sim->members[i].core != NULL && alive > 8) {
            leave(i);
            alive--;
        }
    }
    printf("  %u members after a storm: all know the same after %llu ms\n",
           alive, (unsigned long long)settle(180 * S));
    end();
}

/* Everybody at once has something to say: it takes longer, not more. */
static void test_all_speak(void **state)
{
    (void)state;
    begin("test_all_speak", 128, 5);
    run(5 * S);
    for (uint32_t i = 0; i < sim->len; i++)
        speak(i);
    printf("  128 members all speak: all know all after %llu ms\n",
           (unsigned long long)settle(180 * S));
    end();
}

/* Who joins learns what was said before. */
static void test_newcomer(void **state)
{
    uint32_t i;

    (void)state;
    begin("test_newcomer", 64, 5);
    for (i = 0; i < sim->len; i++)
        speak(i);
    settle(180 * S);
    run(30 * S);
    i = join();
    speak(i);
    printf("  a newcomer among 64 knows all after %llu ms\n",
           (unsigned long long)settle(15 * S));
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gossip),
        cmocka_unit_test(test_rest),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_all_speak),
        cmocka_unit_test(test_newcomer),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
