/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of members, its events, and the public calls on top. */
#include "unit.h"

#include <troupe.h>

#include "actor/runtime.h"
#include "member/roster.h"

enum {
    SELF = 1000, /* node ids of rank r of this job: SELF + r */
    OTHER = 5000,
    SIZE = 3,
    MEMBERS_MAX = 8,
    ROUNDS = 20000,
    READERS = 2,
    SOON_MS = 10000,
    SHORT_MS = 30,
    MS = 1000000,
};

static struct tri_member_card card_of(uint64_t node, int rank)
{
    struct tri_member_card card = {
        .node = node,
        .host = node * 3,
        .job = rank >= 0 ? SELF : node,
        .rank = rank >= 0 ? rank : 0,
        .size = rank >= 0 ? SIZE : 1,
        .cores = 2,
    };

    snprintf(card.name, sizeof(card.name), "name-%u", (unsigned)(node % 10));
    return card;
}

static struct tri_roster *roster_of(struct tri_runtime *runtime)
{
    struct tri_member_card self = card_of(SELF, 0);
    struct tri_roster_config config = {
        .runtime = runtime, .self = &self, .members_max = MEMBERS_MAX,
    };
    struct tri_roster *roster;

    assert_int_equal(tri_roster_create(&config, &roster), 0);
    return roster;
}

static int add(struct tri_roster *roster, uint64_t node, int rank)
{
    struct tri_member_card card = card_of(node, rank);

    return tri_roster_add(roster, &card);
}

static void join(struct tri_roster *roster, uint64_t node)
{
    assert_int_equal(add(roster, node, -1), 0);
    tri_roster_change(roster, node, TRI_SWIM_UNKNOWN, TRI_SWIM_ALIVE,
                      TRI_SWIM_NO_EVIDENCE, 0);
}

static void die(struct tri_roster *roster, uint64_t node)
{
    tri_roster_change(roster, node, TRI_SWIM_ALIVE, TRI_SWIM_DEAD,
                      TRI_SWIM_PROOF, 0);
}

static uint32_t state_of(struct tri_roster *roster, uint64_t node)
{
    troupe_member_t member;

    return tri_roster_get(roster, node, &member) ? member.state : 0;
}

/* --- the table ------------------------------------------------------------ */

static void test_order(void **state)
{
    static const uint64_t wanted[] = { SELF, SELF + 1, SELF + 2, OTHER + 9,
                                       OTHER };
    struct tri_roster *roster = roster_of(NULL);
    troupe_member_t member;
    uint32_t cursor = 0;

    (void)state;
    join(roster, OTHER + 9);
    assert_int_equal(add(roster, SELF + 2, 2), 0);
    join(roster, OTHER);
    assert_int_equal(add(roster, SELF + 1, 1), 0);
    assert_int_equal(add(roster, SELF + 1, 1), TROUPE_EEXIST);
    for (size_t i = 0; i < tri_array_len(wanted); i++) {
        assert_true(tri_roster_next(roster, &cursor, &member));
        assert_int_equal(member.node, wanted[i]);
        assert_int_equal(member.host, wanted[i] * 3);
        assert_int_equal(member.cores, 2);
    }
    assert_false(tri_roster_next(roster, &cursor, &member));
    assert_int_equal(tri_roster_alive_len(roster), 5);
    assert_int_equal(tri_roster_card(roster, OTHER)->host, OTHER * 3);
    assert_null(tri_roster_card(roster, 77));
    tri_roster_destroy(&roster);
    assert_null(roster);
}

static void test_states(void **state)
{
    struct tri_roster *roster = roster_of(NULL);
    troupe_member_t member;

    (void)state;
    join(roster, OTHER);
    tri_roster_change(roster, OTHER, TRI_SWIM_ALIVE, TRI_SWIM_SUSPECT,
                      TRI_SWIM_WEAK, 3);
    assert_int_equal(state_of(roster, OTHER), TROUPE_MEMBER_SUSPECT);
    assert_int_equal(tri_roster_alive_len(roster), 2);
    tri_roster_change(roster, OTHER, TRI_SWIM_SUSPECT, TRI_SWIM_ALIVE, 0, 4);
    assert_true(tri_roster_get(roster, OTHER, &member));
    assert_int_equal(member.state, TROUPE_MEMBER_ALIVE);
    assert_int_equal(member.incarnation, 4);
    assert_int_equal(member.evidence, TROUPE_EVIDENCE_NONE);
    tri_roster_change(roster, OTHER, TRI_SWIM_ALIVE, TRI_SWIM_DEAD,
                      TRI_SWIM_STRONG, 4);
    assert_true(tri_roster_get(roster, OTHER, &member));
    assert_int_equal(member.evidence, TROUPE_EVIDENCE_CONNECTION);
    assert_int_equal(tri_roster_alive_len(roster), 1);
    /* for good */
    tri_roster_change(roster, OTHER, TRI_SWIM_DEAD, TRI_SWIM_ALIVE, 0, 9);
    assert_int_equal(state_of(roster, OTHER), TROUPE_MEMBER_DEAD);
    /* about nobody, about itself, nonsense */
    die(roster, 77);
    die(roster, SELF);
    tri_roster_change(roster, SELF, 0, 200, 0, 0);
    assert_int_equal(state_of(roster, SELF), TROUPE_MEMBER_ALIVE);
    tri_roster_destroy(&roster);
}

static void test_find(void **state)
{
    struct tri_roster *roster = roster_of(NULL);
    troupe_member_t member;
    bool gone;

    (void)state;
    join(roster, OTHER + 13);
    join(roster, OTHER + 3);
    assert_true(tri_roster_find(roster, "name-3", &member, &gone));
    assert_int_equal(member.node, OTHER + 3);
    assert_false(gone);
    die(roster, OTHER + 3);
    assert_true(tri_roster_find(roster, "name-3", &member, &gone));
    assert_int_equal(member.node, OTHER + 13);
    assert_true(gone);
    die(roster, OTHER + 13);
    assert_false(tri_roster_find(roster, "name-3", &member, &gone));
    assert_true(gone);
    assert_false(tri_roster_find(roster, "", &member, NULL));
    assert_false(tri_roster_find(roster, "nobody", &member, &gone));
    assert_false(gone);
    tri_roster_destroy(&roster);
}

static void test_forgetting(void **state)
{
    struct tri_roster *roster = roster_of(NULL);
    uint64_t node = OTHER;

    (void)state;
    while (tri_roster_alive_len(roster) < MEMBERS_MAX)
        join(roster, node++);
    assert_int_equal(add(roster, node, -1), TROUPE_ELIMIT);
    /* room for as many dead: none is forgotten before they are that many */
    for (uint64_t dead = OTHER; dead < OTHER + 2 * MEMBERS_MAX; dead++) {
        die(roster, dead);
        join(roster, node++);
        assert_int_equal(state_of(roster, dead), TROUPE_MEMBER_DEAD);
        assert_int_equal(state_of(roster, node - 1), TROUPE_MEMBER_ALIVE);
    }
    assert_int_equal(state_of(roster, OTHER), 0);
    assert_int_equal(state_of(roster, OTHER + MEMBERS_MAX + 3),
                     TROUPE_MEMBER_DEAD);
    assert_int_equal(tri_roster_alive_len(roster), MEMBERS_MAX);
    /* a rank that died keeps its place, another can not have it */
    die(roster, node - 1);
    assert_int_equal(add(roster, SELF + 1, 1), 0);
    die(roster, SELF + 1);
    for (int i = 0; i < 3 * MEMBERS_MAX; i++) {
        join(roster, node++);
        die(roster, node - 1);
    }
    assert_int_equal(state_of(roster, SELF + 1), TROUPE_MEMBER_DEAD);
    tri_roster_destroy(&roster);
}

/* Joins and deaths at random: who is alive is always found. */
static void test_churn(void **state)
{
    struct tri_roster *roster = roster_of(NULL);
    uint64_t alive[MEMBERS_MAX];
    struct tri_random random;
    uint32_t len = 0;

    (void)state;
    tri_random_init(&random, unit_seed("test_churn"));
    for (int i = 0; i < ROUNDS; i++) {
        if (len == MEMBERS_MAX - 1 ||
            (len > 0 && tri_random_next(&random) & 1)) {
            uint32_t k = tri_random_below(&random, len);

            die(roster, alive[k]);
            alive[k] = alive[--len];
        } else {
            alive[len] = tri_random_next(&random);
            join(roster, alive[len++]);
        }
        assert_int_equal(tri_roster_alive_len(roster), len + 1);
        for (uint32_t k = 0; k < len; k++)
            assert_int_equal(state_of(roster, alive[k]), TROUPE_MEMBER_ALIVE);
    }
    tri_roster_destroy(&roster);
}

/* --- many threads --------------------------------------------------------- */

struct readers {
    struct tri_roster *roster;
    atomic_bool stop;
    atomic_uint wrong;
    atomic_ulong reads;
};

/* A member is read whole, or not at all. */
static bool is_whole(const troupe_member_t *member)
{
    char tags[32];

    snprintf(tags, sizeof(tags), "%llu", (unsigned long long)member->node);
    return member->host == member->node * 3 &&
           (member->tags[0] == '\0' || strcmp(member->tags, tags) == 0);
}

static void *read_all(void *arg)
{
    struct readers *readers = arg;
    troupe_member_t member;

    while (!atomic_load(&readers->stop)) {
        uint32_t cursor = 0, n = 0;
        bool self = false;

        while (tri_roster_next(readers->roster, &cursor, &member)) {
            atomic_fetch_add(&readers->wrong, !is_whole(&member));
            self |= member.node == SELF;
            n++;
        }
        atomic_fetch_add(&readers->wrong, !self || n > SIZE + 2 * MEMBERS_MAX);
        atomic_fetch_add(&readers->wrong,
                         !tri_roster_get(readers->roster, SELF, &member));
        atomic_fetch_add(&readers->reads, 1);
    }
    return NULL;
}

static void test_readers(void **state)
{
    struct readers readers = { .roster = roster_of(NULL) };
    pthread_t threads[READERS];
    char tags[32];

    (void)state;
    for (int i = 0; i < READERS; i++)
        threads[i] = unit_thread(read_all, &readers);
    for (uint64_t node = OTHER;
         node < OTHER + ROUNDS || atomic_load(&readers.reads) < 100; node++) {
        join(readers.roster, node);
        snprintf(tags, sizeof(tags), "%llu", (unsigned long long)node);
        tri_roster_tags(readers.roster, node, tags, strlen(tags));
        tri_roster_load(readers.roster, node, (float)node);
        die(readers.roster, node);
    }
    atomic_store(&readers.stop, true);
    for (int i = 0; i < READERS; i++)
        unit_join(threads[i]);
    assert_int_equal(atomic_load(&readers.wrong), 0);
    tri_roster_destroy(&readers.roster);
}

/* --- events --------------------------------------------------------------- */

static void assert_event(struct tri_roster *roster, uint32_t what,
                         uint64_t node, uint32_t lost)
{
    troupe_member_event_t event;

    assert_int_equal(tri_roster_take(roster, &event, 1), 1);
    assert_int_equal(event.what, what);
    assert_int_equal(event.member.node, node);
    assert_int_equal(event.lost, lost);
}

static void test_queue(void **state)
{
    static troupe_member_event_t events[TROUPE_MEMBER_EVENTS_MAX + 1];
    struct tri_roster *roster = roster_of(NULL);
    uint64_t changes = tri_roster_changes(roster);

    (void)state;
    assert_int_equal(tri_roster_take(roster, events, 1), 0);
    assert_int_equal(add(roster, SELF + 1, 1), 0); /* from the start */
    assert_int_equal(tri_roster_take(roster, events, 1), 0);
    join(roster, OTHER);
    assert_true(tri_roster_changes(roster) > changes);
    assert_int_equal(add(roster, OTHER + 1, -1), 0);
    tri_roster_change(roster, OTHER + 1, TRI_SWIM_UNKNOWN, TRI_SWIM_SUSPECT,
                      TRI_SWIM_WEAK, 0);
    tri_roster_change(roster, OTHER + 1, TRI_SWIM_SUSPECT, TRI_SWIM_ALIVE, 0,
                      1);
    die(roster, OTHER + 1);
    tri_roster_change(roster, OTHER, TRI_SWIM_ALIVE, TRI_SWIM_LEFT, 0, 1);
    tri_roster_excluded(roster);
    tri_roster_excluded(roster);
    assert_event(roster, TROUPE_MEMBER_JOINED, OTHER, 0);
    assert_event(roster, TROUPE_MEMBER_JOINED, OTHER + 1, 0);
    assert_event(roster, TROUPE_MEMBER_SUSPECTED, OTHER + 1, 0);
    assert_event(roster, TROUPE_MEMBER_RECOVERED, OTHER + 1, 0);
    assert_event(roster, TROUPE_MEMBER_DIED, OTHER + 1, 0);
    assert_event(roster, TROUPE_MEMBER_PARTED, OTHER, 0);
    assert_event(roster, TROUPE_MEMBER_EXCLUDED, SELF, 0);
    assert_int_equal(tri_roster_take(roster, events, 1), 0);
    assert_true(tri_roster_is_excluded(roster));
    for (uint64_t i = 0; i < TROUPE_MEMBER_EVENTS_MAX / 2 + 5; i++) {
        join(roster, OTHER + 10 + i);
        die(roster, OTHER + 10 + i);
    }
    assert_event(roster, TROUPE_MEMBER_JOINED, OTHER + 15, 10);
    assert_int_equal(tri_roster_take(roster, events,
                                     TROUPE_MEMBER_EVENTS_MAX + 1),
                     TROUPE_MEMBER_EVENTS_MAX - 1);
    assert_int_equal(events[0].what, TROUPE_MEMBER_DIED);
    assert_int_equal(events[0].lost, 0);
    tri_roster_destroy(&roster);
}

#define witness_messages(TELL, ASK)                                           \
    ASK(witness, seen, (),                                                    \
        (uint32_t what[64]; uint64_t node[64]; uint32_t len; uint32_t lost;))
TROUPE_PROTOCOL(witness)

struct witness {
    witness_seen_result_t seen;
};

static int on_seen(troupe_self_t *self, struct witness *w,
                   const witness_seen_t *m)
{
    (void)m;
    return witness_seen_reply(self, w->seen);
}

static int on_member(troupe_self_t *self, struct witness *w,
                     const troupe_member_event_t *event)
{
    (void)self;
    if (w->seen.len < tri_array_len(w->seen.what)) {
        w->seen.what[w->seen.len] = event->what;
        w->seen.node[w->seen.len++] = event->member.node;
    }
    w->seen.lost += event->lost;
    return 0;
}

TROUPE_ACTOR(witness, struct witness, .seen = on_seen, .on_member = on_member)

static troupe_t *start(void)
{
    troupe_t *troupe;

    assert_int_equal(troupe_start(&troupe, NULL), 0);
    return troupe;
}

static void run(struct tri_roster *roster)
{
    while (tri_roster_run(roster, 0) != TRI_NS_NEVER)
        ;
}

static void assert_seen(troupe_t *troupe, witness_ref_t ref, uint32_t len,
                        const uint32_t *what, const uint64_t *node)
{
    witness_seen_result_t seen;

    assert_int_equal(witness_seen(troupe, ref, (witness_seen_t){}, SOON_MS,
                                  &seen), 0);
    assert_int_equal(seen.len, len);
    assert_memory_equal(seen.what, what, len * sizeof(*what));
    assert_memory_equal(seen.node, node, len * sizeof(*node));
    assert_int_equal(seen.lost, 0);
}

/* Each hears of a member's joining before all else about it, and once. */
static void test_subscribers(void **state)
{
    enum { J = TROUPE_MEMBER_JOINED, D = TROUPE_MEMBER_DIED };
    static const uint32_t late_what[] = { J, D };
    static const uint64_t late_node[] = { OTHER + 2, OTHER };
    static const uint32_t early_what[] = { J, J, J, D };
    static const uint64_t early_node[] = { SELF, OTHER, OTHER + 2, OTHER };
    troupe_t *troupe = start();
    struct tri_roster *roster = roster_of((struct tri_runtime *)troupe);
    witness_ref_t late, early, gone;

    (void)state;
    assert_int_equal(witness_spawn(troupe, NULL, NULL, &late), 0);
    assert_int_equal(witness_spawn(troupe, NULL, NULL, &early), 0);
    assert_int_equal(witness_spawn(troupe, NULL, NULL, &gone), 0);
    join(roster, OTHER);
    join(roster, OTHER + 1);
    assert_int_equal(tri_roster_subscribe(roster, late.ref.slot,
                                          late.ref.generation, false), 0);
    assert_int_equal(tri_roster_subscribe(roster, early.ref.slot,
                                          early.ref.generation, true), 0);
    assert_int_equal(tri_roster_subscribe(roster, gone.ref.slot,
                                          gone.ref.generation, true), 0);
    tri_roster_unsubscribe(roster, gone.ref.slot, gone.ref.generation);
    /* before its replay begins: nothing of this one comes */
    tri_roster_unsubscribe(roster, late.ref.slot, late.ref.generation);
    die(roster, OTHER + 1);
    assert_int_equal(tri_roster_subscribe(roster, late.ref.slot,
                                          late.ref.generation, false), 0);
    join(roster, OTHER + 2);
    run(roster);
    die(roster, OTHER);
    assert_seen(troupe, late, 2, late_what, late_node);
    assert_seen(troupe, early, 4, early_what, early_node);
    assert_seen(troupe, gone, 0, late_what, late_node);
    tri_roster_destroy(&roster);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* Subscribers that ended make room for others, though no event has found that
 * they did. */
static void test_ended(void **state)
{
    troupe_t *troupe = start();
    struct tri_roster *roster = roster_of((struct tri_runtime *)troupe);
    witness_ref_t ref;

    (void)state;
    for (uint32_t i = 1; i < TRI_SUBSCRIBERS_MAX; i++) /* of no actor */
        assert_int_equal(tri_roster_subscribe(roster, 1u << 20 | i, 1, false),
                         0);
    assert_int_equal(witness_spawn(troupe, NULL, NULL, &ref), 0);
    assert_int_equal(tri_roster_subscribe(roster, ref.ref.slot,
                                          ref.ref.generation, true), 0);
    assert_int_equal(tri_roster_subscribe(roster, 7u << 20, 1, false), 0);
    join(roster, OTHER); /* those of no actor go */
    assert_int_equal(troupe_stop_actor(troupe, ref.ref), 0);
    run(roster);
    tri_roster_destroy(&roster);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* --- own load and tags ---------------------------------------------------- */

static void test_own(void **state)
{
    struct tri_roster *roster = roster_of(NULL);
    struct tri_traits traits;
    char long_tags[TROUPE_MEMBER_TAGS_MAX + 2];
    uint64_t now_ns = 1000ull * MS;
    float load;

    (void)state;
    assert_false(tri_roster_own_traits(roster, now_ns, &traits));
    tri_roster_load(roster, SELF, 4);
    assert_true(tri_roster_own_load(roster, now_ns, &load));
    assert_true(load > 3.9f && load < 4.1f);
    tri_roster_load(roster, SELF, 5); /* not more than a quarter */
    assert_false(tri_roster_own_load(roster, now_ns += 600 * MS, &load));
    tri_roster_load(roster, SELF, 6);
    assert_true(tri_roster_own_load(roster, now_ns, &load));
    tri_roster_load(roster, SELF, 0);
    assert_false(tri_roster_own_load(roster, now_ns += 400 * MS, &load));
    assert_true(tri_roster_own_load(roster, now_ns += 100 * MS, &load));
    memset(long_tags, 'x', sizeof(long_tags));
    long_tags[TROUPE_MEMBER_TAGS_MAX + 1] = '\0';
    assert_int_equal(tri_roster_own_tags(roster, long_tags), TROUPE_EINVAL);
    long_tags[TROUPE_MEMBER_TAGS_MAX] = '\0';
    assert_int_equal(tri_roster_own_tags(roster, long_tags), 0);
    assert_true(tri_roster_own_traits(roster, now_ns, &traits));
    assert_int_equal(traits.version, 1);
    assert_int_equal(traits.tags_len, TROUPE_MEMBER_TAGS_MAX);
    assert_string_equal(traits.tags, long_tags);
    assert_int_equal(tri_roster_own_tags(roster, "gpu"), 0);
    assert_false(tri_roster_own_traits(roster, now_ns += 50 * MS, &traits));
    assert_true(tri_roster_own_traits(roster, now_ns += 50 * MS, &traits));
    assert_int_equal(traits.version, 2);
    assert_string_equal(traits.tags, "gpu");
    assert_false(tri_roster_own_traits(roster, now_ns += 500 * MS, &traits));
    tri_roster_destroy(&roster);
}

/* What waits in mailboxes shows. Without workers nothing runs meanwhile. */
static void test_scheduler_load(void **state)
{
    enum { ACTORS = 3, MESSAGES = 20 };
    troupe_options_t options;
    struct tri_runtime *runtime;
    struct tri_load load;
    troupe_t *troupe;
    witness_ref_t refs[ACTORS];
    witness_seen_result_t seen;

    (void)state;
    troupe_options_init(&options);
    options.workers = 0;
    assert_int_equal(troupe_start(&troupe, &options), 0);
    runtime = (struct tri_runtime *)troupe;
    load = tri_scheduler_load(&runtime->scheduler);
    assert_int_equal(load.actors + load.messages, 0);
    for (int i = 0; i < ACTORS; i++) {
        assert_int_equal(witness_spawn(troupe, NULL, NULL, &refs[i]), 0);
        for (int k = 0; k < MESSAGES; k++)
            assert_int_equal(tri_actor_event(runtime, refs[i].ref.slot,
                                             refs[i].ref.generation,
                                             TROUPE_ON_DOWN, NULL, 0), 0);
    }
    load = tri_scheduler_load(&runtime->scheduler);
    assert_int_equal(load.actors, ACTORS);
    assert_int_equal(load.messages, ACTORS * MESSAGES);
    for (int i = 0; i < ACTORS; i++)
        assert_int_equal(witness_seen(troupe, refs[i], (witness_seen_t){},
                                      SOON_MS, &seen), 0);
    load = tri_scheduler_load(&runtime->scheduler);
    assert_int_equal(load.actors + load.messages, 0);
    assert_int_equal(troupe_stop(&troupe), 0);
}

/* --- public calls --------------------------------------------------------- */

static void test_alone(void **state)
{
    troupe_t *troupe = start();
    troupe_member_t members[2];
    troupe_place_t place = { .policy = TROUPE_PLACE_LEAST_LOADED };
    troupe_member_stats_t stats;
    char tags[TROUPE_MEMBER_TAGS_MAX + 2];
    uint64_t node;

    (void)state;
    memset(members, 0, sizeof(members));
    assert_int_equal(troupe_members(troupe, members, 2), 1);
    assert_int_equal(members[0].node, troupe_node_id(troupe));
    assert_int_equal(members[0].job, troupe_node_id(troupe));
    assert_int_equal(members[0].state, TROUPE_MEMBER_ALIVE);
    assert_true(members[0].cores >= 1);
    assert_int_equal(members[1].node, 0);
    assert_int_equal(troupe_members(troupe, NULL, 0), 1);
    assert_int_equal(troupe_members_alive(troupe), 1);
    assert_int_equal(troupe_member_get(troupe, 77, members), TROUPE_ENONODE);
    assert_int_equal(troupe_member_find(troupe, "nobody", members),
                     TROUPE_ENONODE);
    assert_int_equal(troupe_member_find(troupe, NULL, members), TROUPE_EINVAL);
    assert_int_equal(troupe_is_excluded(troupe), 0);
    memset(&stats, 0xff, sizeof(stats));
    troupe_member_stats(troupe, &stats); /* nobody to probe */
    assert_int_equal(stats.probes, 0);
    assert_int_equal(stats.packets_out, 0);
    assert_int_equal(stats.packets_in, 0);
    assert_int_equal(stats.health, 0);
    assert_int_equal(troupe_member_tag(troupe, "role=test"), 0);
    assert_int_equal(troupe_member_get(troupe, troupe_node_id(troupe), members),
                     0);
    assert_string_equal(members[0].tags, "role=test");
    memset(tags, 'x', sizeof(tags));
    tags[sizeof(tags) - 1] = '\0';
    assert_int_equal(troupe_member_tag(troupe, tags), TROUPE_EINVAL);
    assert_int_equal(troupe_member_tag(troupe, NULL), TROUPE_EINVAL);
    assert_int_equal(troupe_place(troupe, &place, &node), 0);
    assert_int_equal(node, troupe_node_id(troupe));
    place.policy = TROUPE_PLACE_RANK;
    place.rank = 1;
    assert_int_equal(troupe_place(troupe, &place, &node), TROUPE_ENONODE);
    assert_int_equal(troupe_place(troupe, NULL, &node), TROUPE_EINVAL);
    assert_int_equal(troupe_stop(&troupe), 0);
}

struct waiter {
    troupe_t *troupe;
    uint64_t node;
    atomic_int calls;
};

static int is_dead(void *arg)
{
    struct waiter *waiter = arg;
    troupe_member_t member;

    atomic_fetch_add(&waiter->calls, 1);
    return troupe_member_get(waiter->troupe, waiter->node, &member) == 0 &&
           member.state == TROUPE_MEMBER_DEAD;
}

/* Alone, the control thread changes nothing in the table. */
static void *join_and_die(void *arg)
{
    struct waiter *waiter = arg;
    struct tri_roster *roster = ((struct tri_runtime *)waiter->troupe)->roster;

    join(roster, waiter->node);
    while (atomic_load(&waiter->calls) == 0)
        sched_yield(); /* until the second wait has begun */
    die(roster, waiter->node);
    return NULL;
}

static void test_wait(void **state)
{
    struct waiter waiter = { .troupe = start(), .node = OTHER };
    troupe_t *troupe = waiter.troupe;
    troupe_member_event_t event;
    pthread_t thread;

    (void)state;
    assert_int_equal(troupe_members_wait(troupe, NULL, NULL, 1, 0), 0);
    assert_int_equal(troupe_members_wait(troupe, NULL, NULL, 2, 0),
                     TROUPE_ETIMEDOUT);
    assert_int_equal(troupe_members_wait(troupe, NULL, NULL, 2, SHORT_MS),
                     TROUPE_ETIMEDOUT);
    assert_int_equal(troupe_members_wait(troupe, NULL, NULL, 1, -2),
                     TROUPE_EINVAL);
    thread = unit_thread(join_and_die, &waiter);
    assert_int_equal(troupe_members_wait(troupe, NULL, NULL, 2, SOON_MS), 0);
    assert_int_equal(troupe_members_wait(troupe, is_dead, &waiter, 0,
                                         TROUPE_FOREVER), 0);
    unit_join(thread);
    /* asked at first, and when something changed: not all the time */
    assert_true(atomic_load(&waiter.calls) <= 4);
    assert_int_equal(troupe_member_events_take(troupe, &event, 1), 1);
    assert_int_equal(event.what, TROUPE_MEMBER_JOINED);
    assert_int_equal(troupe_member_events_take(troupe, &event, 1), 1);
    assert_int_equal(event.what, TROUPE_MEMBER_DIED);
    assert_int_equal(event.member.evidence, TROUPE_EVIDENCE_PROOF);
    assert_int_equal(troupe_stop(&troupe), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_forgetting),
        cmocka_unit_test(test_churn),
        cmocka_unit_test(test_readers),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_subscribers),
        cmocka_unit_test(test_ended),
        cmocka_unit_test(test_own),
        cmocka_unit_test(test_scheduler_load),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_wait),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
