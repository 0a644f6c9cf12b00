/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every rank sees of the others: the list, tags, load, events; and where
 * it would put an actor.
 */
#include <stdatomic.h>

#include "test.h"

enum { LEN_MAX = 64, HOGS = 40, LOOK_MS = 5 };

static troupe_t *here;
static int size;

/* --- the list and its tags ------------------------------------------------ */

static void wanted_tags(char tags[TROUPE_MEMBER_TAGS_MAX + 1], int rank,
                        int round)
{
    snprintf(tags, TROUPE_MEMBER_TAGS_MAX + 1, "rank=%d round=%d", rank, round);
}

/* All members are alive and have the tags of this round. */
static int have_tags(void *arg)
{
    troupe_member_t members[LEN_MAX];
    char tags[TROUPE_MEMBER_TAGS_MAX + 1];
    int *round = arg;

    if (troupe_members(here, members, LEN_MAX) != (size_t)size)
        return 0;
    for (int i = 0; i < size; i++) {
        wanted_tags(tags, i, *round);
        if (members[i].state != TROUPE_MEMBER_ALIVE ||
            strcmp(members[i].tags, tags) != 0)
            return 0;
    }
    return 1;
}

static void check_list(void)
{
    troupe_member_t members[LEN_MAX];
    troupe_member_t member;

    CHECK_EQ((long long)troupe_members(here, members, LEN_MAX), size);
    CHECK_EQ((long long)troupe_members_alive(here), size);
    CHECK_EQ((long long)troupe_members(here, members, 1), size);
    for (int i = 0; i < size; i++) {
        CHECK_EQ(members[i].rank, i);
        CHECK(members[i].job == members[0].node);
        CHECK(members[i].cores >= 1);
        CHECK_EQ(troupe_rank_of(here, members[i].node), i);
        CHECK_EQ(troupe_member_get(here, members[i].node, &member), 0);
        CHECK(member.node == members[i].node);
    }
    CHECK(members[test_rank].node == troupe_node_id(here));
    CHECK_EQ(troupe_members_wait(here, NULL, NULL, (size_t)size, 0), 0);
    CHECK_EQ(troupe_members_wait(here, NULL, NULL, (size_t)size + 1, 20),
             TROUPE_ETIMEDOUT);
}

static void check_tags(void)
{
    char tags[TROUPE_MEMBER_TAGS_MAX + 1];

    for (int round = 0; round < 3; round++) {
        wanted_tags(tags, test_rank, round);
        CHECK_EQ(troupe_member_tag(here, tags), 0);
        CHECK_EQ(troupe_members_wait(here, have_tags, &round, 0,
                                     TEST_SOON_MS), 0);
        MPI_Barrier(MPI_COMM_WORLD);
    }
}

/* --- statistics ----------------------------------------------------------- */

/* A probe was answered; this much is there of each number. */
static int has_probed(void *arg)
{
    troupe_member_stats_t stats;

    (void)arg;
    troupe_member_stats(here, &stats);
    return stats.probes > 0 && stats.rtt_us > 0 && stats.packets_in > 0 &&
           stats.packets_out > 0;
}

static void check_stats(void)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    troupe_member_stats_t stats, later;

    while (size > 1 && !has_probed(NULL) && test_now_ms() < end_ms)
        troupe_serve(here, LOOK_MS);
    troupe_member_stats(here, &stats);
    CHECK_EQ(has_probed(NULL), size > 1);
    CHECK_EQ((long long)stats.deaths, 0);
    /* At most what fits into one datagram, at least a header and a tag. */
    CHECK(stats.bytes_out <= 1400 * stats.packets_out);
    CHECK(stats.bytes_out >= 56 * stats.packets_out);
    CHECK(stats.bytes_in <= 1400 * stats.packets_in);
    CHECK(stats.health <= 7);
    CHECK(stats.late_mean_ns <= stats.late_max_ns);
    troupe_member_stats(here, &later);
    CHECK(later.packets_out >= stats.packets_out);
    CHECK(later.probes >= stats.probes);
}

/* --- events --------------------------------------------------------------- */

#define crier_messages(TELL, ASK)                                             \
    ASK(crier, joined, (), (int32_t joined; int32_t others;))
TROUPE_PROTOCOL(crier)

struct crier {
    int32_t joined, others;
};

static int on_crier_start(troupe_self_t *self, struct crier *c)
{
    (void)c;
    return troupe_members_watch(self, 1);
}

static int on_crier_member(troupe_self_t *self, struct crier *c,
                           const troupe_member_event_t *event)
{
    (void)self;
    c->joined += event->what == TROUPE_MEMBER_JOINED;
    /* Who has no core for a second is silent for the others, and comes back. */
    c->others += event->what != TROUPE_MEMBER_JOINED &&
                 event->what != TROUPE_MEMBER_SUSPECTED &&
                 event->what != TROUPE_MEMBER_RECOVERED;
    return 0;
}

static int on_joined(troupe_self_t *self, struct crier *c,
                     const crier_joined_t *m)
{
    (void)m;
    return crier_joined_reply(self, (crier_joined_result_t){ c->joined,
                                                             c->others });
}

TROUPE_ACTOR(crier, struct crier, .on_start = on_crier_start,
             .on_member = on_crier_member, .joined = on_joined)

/* A subscriber is told of all that are there, once each. */
static void check_events(void)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    crier_joined_result_t seen = { .joined = 0 };
    crier_ref_t crier;

    MUST(crier_spawn(here, NULL, NULL, &crier));
    while (seen.joined < size && test_now_ms() < end_ms)
        MUST(crier_joined(here, crier, (crier_joined_t){}, TEST_SOON_MS,
                          &seen));
    CHECK_EQ(seen.joined, size);
    CHECK_EQ(seen.others, 0);
}

/* --- load and placement --------------------------------------------------- */

#define hog_messages(TELL, ASK) TELL(hog, again, (int32_t unused;))
TROUPE_PROTOCOL(hog)

struct hog {
    int32_t unused;
};

static atomic_int hot;

static int on_again(troupe_self_t *self, struct hog *h, const hog_again_t *m)
{
    (void)h, (void)m;
    return atomic_load(&hot) ? hog_again(self, hog_self(self), (hog_again_t){})
                             : 0;
}

TROUPE_ACTOR(hog, struct hog, .again = on_again)

static void start_hogs(void)
{
    hog_ref_t ref;

    atomic_store(&hot, 1);
    for (int i = 0; i < HOGS; i++) {
        MUST(hog_spawn(here, NULL, NULL, &ref));
        MUST(hog_again(here, ref, (hog_again_t){}));
    }
}

static float load_of(int rank)
{
    troupe_member_t members[LEN_MAX];

    troupe_members(here, members, LEN_MAX);
    return members[rank].load;
}

/* Load alone wakes nobody: looks now and then. */
static void await_load(int rank, int is_loaded)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    int good;

    while (!(good = (load_of(rank) > 0) == is_loaded) &&
           test_now_ms() < end_ms)
        troupe_serve(here, LOOK_MS);
    CHECK(good);
}

/* Who is silent just now is chosen after all others: then it is asked again. */
static void await_other_than(int rank)
{
    troupe_place_t place = { .policy = TROUPE_PLACE_LEAST_LOADED };
    double end_ms = test_now_ms() + TEST_SOON_MS;
    uint64_t node = 0;

    CHECK_EQ(troupe_place(here, &place, &node), 0);
    while (troupe_rank_of(here, node) == rank && test_now_ms() < end_ms) {
        troupe_serve(here, LOOK_MS);
        CHECK_EQ(troupe_place(here, &place, &node), 0);
    }
    CHECK(troupe_rank_of(here, node) != rank);
}

static void check_load(void)
{
    if (test_rank == 0)
        start_hogs();
    await_load(0, 1);
    if (size > 1)
        await_other_than(0);
    MPI_Barrier(MPI_COMM_WORLD);
    atomic_store(&hot, 0);
    await_load(0, 0);
}

static uint64_t place_one(void)
{
    troupe_place_t place = { .policy = TROUPE_PLACE_SPREAD };
    uint64_t node = troupe_node_id(here);

    CHECK_EQ(troupe_place(here, &place, &node), 0);
    return node;
}

static uint64_t spawn_one(void)
{
    troupe_place_t place = { .policy = TROUPE_PLACE_SPREAD };
    hog_ref_t ref = { .ref.node = troupe_node_id(here) };

    CHECK_EQ(hog_spawn_at(here, &place, NULL, NULL, TEST_SOON_MS, &ref), 0);
    return ref.ref.node;
}

/* Each once; or, while one is silent, in another turn. */
static void check_spread(uint64_t (*choose)(void))
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    unsigned long long chosen, all = (1ull << size) - 1;

    do {
        chosen = 0;
        for (int i = 0; i < size; i++)
            chosen |= 1ull << troupe_rank_of(here, choose());
    } while (chosen != all && test_now_ms() < end_ms &&
             troupe_serve(here, LOOK_MS) == 0);
    CHECK(chosen == all);
}

static void check_places(void)
{
    troupe_place_t place = { .policy = TROUPE_PLACE_RANK };
    uint64_t node = 0;

    check_spread(place_one);
    place.rank = size - 1;
    CHECK_EQ(troupe_place(here, &place, &node), 0);
    CHECK_EQ(troupe_rank_of(here, node), size - 1);
    place.rank = size;
    CHECK_EQ(troupe_place(here, &place, &node), TROUPE_ENONODE);
    place.policy = TROUPE_PLACE_SAME_HOST;
    CHECK_EQ(troupe_place(here, &place, &node), 0);
    CHECK(size == 1 || node != troupe_node_id(here));
}

/* Actors are created where a policy says: one on each. */
static void check_spawn_at(void)
{
    troupe_place_t place = { .policy = TROUPE_PLACE_RANK, .rank = size };
    hog_ref_t ref = { .ref.node = 0 };

    check_spread(spawn_one);
    CHECK_EQ(hog_spawn_at(here, &place, NULL, NULL, TEST_SOON_MS, &ref),
             TROUPE_ENONODE);
}

int main(void)
{
    char endpoint[TROUPE_ENDPOINT_MAX];

    here = test_start(&size, NULL);
    check_list();
    CHECK_EQ(troupe_endpoint(here, endpoint, sizeof(endpoint)),
             size > 1 ? 0 : TROUPE_ETRANSPORT);
    check_events();
    check_places();
    check_spawn_at();
    check_stats();
    if (size > 1) { /* alone nobody is told, and nobody looks */
        check_tags();
        check_load();
    }
    return test_end(here);
}
