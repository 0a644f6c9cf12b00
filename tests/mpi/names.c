/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names across ranks: each finds what any spawned, by every policy and every
 * form of address; a unique name has one holder whoever takes it at the same
 * moment; what is withdrawn is gone everywhere; watchers see it all.
 */
#include <stdatomic.h>

#include "../mpi/test.h"

enum { RANKS_MAX = 16, ROUNDS = 8, KEYS = 40 };

#define worker_messages(TELL, ASK)                                            \
    ASK(worker, where, (), (int32_t rank;))                                   \
    ASK(worker, find, (int32_t unused; char address[64];),                    \
        (int32_t rc; int32_t unused; troupe_ref_t ref;))                      \
    ASK(worker, watch, (), (int32_t unused;))                                 \
    ASK(worker, leave, (), (int32_t unused;))
TROUPE_PROTOCOL(worker)

#define other_messages(TELL, ASK) TELL(other, nothing, ())
TROUPE_PROTOCOL(other)

struct worker {
    int32_t unused;
};

static atomic_int added, removed, lost; /* what on_name was told */

static int on_where(troupe_self_t *self, struct worker *w,
                    const worker_where_t *m)
{
    (void)w, (void)m;
    return worker_where_reply(self, (worker_where_result_t){ test_rank });
}

static int on_find(troupe_self_t *self, struct worker *w,
                   const worker_find_t *m)
{
    worker_find_result_t found = { .rc = 0 };

    (void)w;
    found.rc = troupe_resolve(self, m->address, &worker_protocol_, 0,
                              &found.ref);
    return worker_find_reply(self, found);
}

static int on_watch(troupe_self_t *self, struct worker *w,
                    const worker_watch_t *m)
{
    uint32_t watch;
    int rc = troupe_names_watch(self, "seen/", &watch);

    (void)w, (void)m;
    return rc != 0 ? rc
                   : worker_watch_reply(self, (worker_watch_result_t){ 0 });
}

static int on_name(troupe_self_t *self, struct worker *w,
                   const troupe_name_event_t *event)
{
    (void)w;
    if (event->what == TROUPE_NAME_LOST)
        CHECK(event->watch == 0 &&
              troupe_ref_equal(event->ref, troupe_self_ref(self)));
    else
        CHECK(event->watch != 0 && strncmp(event->name, "seen/", 5) == 0);
    atomic_fetch_add(event->what == TROUPE_NAME_ADDED     ? &added
                     : event->what == TROUPE_NAME_REMOVED ? &removed
                                                          : &lost,
                     1);
    troupe_wake(self);
    return 0;
}

static int on_leave(troupe_self_t *self, struct worker *w,
                    const worker_leave_t *m)
{
    (void)w, (void)m;
    troupe_exit(self);
    return worker_leave_reply(self, (worker_leave_result_t){ 0 });
}

TROUPE_ACTOR(worker, struct worker, .where = on_where, .find = on_find,
             .watch = on_watch, .leave = on_leave, .on_name = on_name)

/* --- waiting -------------------------------------------------------------- */

static size_t count(troupe_t *troupe, const char *prefix)
{
    return troupe_names_list(troupe, prefix, NULL, 0);
}

/* Until so many instances are known here. */
static void await_count(troupe_t *troupe, const char *prefix, size_t wanted)
{
    double end = test_now_ms() + TEST_SOON_MS;

    while (count(troupe, prefix) != wanted && test_now_ms() < end)
        troupe_serve(troupe, 1);
    CHECK_EQ((long long)count(troupe, prefix), (long long)wanted);
}

/* Ranks meet, and serve meanwhile. */
static void meet(troupe_t *troupe)
{
    MPI_Request request;
    int done = 0;

    MPI_Ibarrier(MPI_COMM_WORLD, &request);
    while (!done) {
        troupe_serve(troupe, 1);
        MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    }
}

static int rank_of(troupe_t *troupe, troupe_ref_t ref)
{
    return troupe_rank_of(troupe, ref.node);
}

/* --- policies ------------------------------------------------------------- */

static troupe_ref_t resolve(troupe_t *troupe, uint32_t policy, uint32_t key)
{
    troupe_resolve_options_t options = { .policy = policy,
                                         .key = &key,
                                         .key_bytes = sizeof(key) };
    troupe_ref_t ref = { 0 };

    MUST(troupe_resolve_with(troupe, "actor:///worker", &worker_protocol_,
                             &options, TEST_SOON_MS, &ref));
    return ref;
}

static int is_round_robin(troupe_t *troupe, int size)
{
    int seen[RANKS_MAX] = { 0 }, good = 1;

    for (int i = 0; i < size * ROUNDS; i++)
        seen[rank_of(troupe, resolve(troupe, TROUPE_RESOLVE_ROUND_ROBIN, 0))]++;
    for (int i = 0; i < size; i++)
        good &= seen[i] == ROUNDS;
    return good;
}

/* How many instances were chosen at all. */
static int kinds_of(troupe_t *troupe, int size, uint32_t policy)
{
    int seen[RANKS_MAX] = { 0 }, kinds = 0;

    for (int i = 0; i < 60 * size; i++)
        seen[rank_of(troupe, resolve(troupe, policy, 0))]++;
    for (int i = 0; i < size; i++)
        kinds += seen[i] > 0;
    return kinds;
}

static int is_random(troupe_t *troupe, int size)
{
    /* 1 - 1/size, to the power of 60 n */
    return kinds_of(troupe, size, TROUPE_RESOLVE_RANDOM) == size;
}

static int is_two_choices(troupe_t *troupe, int size)
{
    /* all but the one with the most to do, at least */
    return kinds_of(troupe, size, TROUPE_RESOLVE_TWO_CHOICES) > 1 || size == 2;
}

/* The same key is the same instance on all ranks. */
static int is_hash(troupe_t *troupe, int size)
{
    int mine[KEYS], lowest[KEYS], highest[KEYS], kinds = 0, good = 1;
    int seen[RANKS_MAX] = { 0 };

    for (uint32_t key = 0; key < KEYS; key++) {
        mine[key] = rank_of(troupe, resolve(troupe, TROUPE_RESOLVE_HASH, key));
        good &= rank_of(troupe, resolve(troupe, TROUPE_RESOLVE_HASH, key)) ==
                mine[key];
        seen[mine[key]]++;
    }
    for (int i = 0; i < size; i++)
        kinds += seen[i] > 0;
    MPI_Allreduce(mine, lowest, KEYS, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    MPI_Allreduce(mine, highest, KEYS, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    for (int key = 0; key < KEYS; key++)
        good &= lowest[key] == highest[key];
    return good && kinds > 1;
}

/* On all ranks, in one try. While a rank is silent, as it has no core, its
 * instance is passed over: then all try again. */
static int in_time(troupe_t *troupe, int size,
                   int (*is_good)(troupe_t *troupe, int size))
{
    double end = test_now_ms() + TEST_SOON_MS;
    int good, all, late;

    do {
        good = is_good(troupe, size);
        MPI_Allreduce(&good, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
        late = test_now_ms() > end;
        MPI_Bcast(&late, 1, MPI_INT, 0, MPI_COMM_WORLD);
    } while (!all && !late);
    return good;
}

static void check_policies(troupe_t *troupe, int size)
{
    troupe_resolve_options_t wrong = { .policy = TROUPE_RESOLVE_HASH + 1 };
    troupe_ref_t ref;

    for (int i = 0; i < ROUNDS; i++)
        CHECK_EQ(rank_of(troupe,
                         resolve(troupe, TROUPE_RESOLVE_LOCAL_FIRST, 0)),
                 test_rank);
    CHECK(in_time(troupe, size, is_round_robin));
    CHECK(in_time(troupe, size, is_random));
    CHECK(in_time(troupe, size, is_two_choices));
    CHECK(in_time(troupe, size, is_hash));
    CHECK_EQ(troupe_resolve_with(troupe, "actor:///worker", NULL, &wrong, 1,
                                 &ref),
             TROUPE_EINVAL);
    wrong.policy = TROUPE_RESOLVE_HASH; /* without a key */
    CHECK_EQ(troupe_resolve_with(troupe, "actor:///worker", NULL, &wrong, 1,
                                 &ref),
             TROUPE_EINVAL);
}

/* --- addresses ------------------------------------------------------------ */

static void expect(troupe_t *troupe, worker_ref_t asker, const char *address,
                   int rank)
{
    worker_find_t find = { .unused = 0 };
    worker_find_result_t found;
    worker_where_result_t where = { -1 };
    worker_ref_t ref = { { 0 } };

    CHECK_EQ(worker_resolve(troupe, address, TEST_SOON_MS, &ref), 0);
    MUST(worker_where(troupe, ref, (worker_where_t){}, TEST_SOON_MS, &where));
    CHECK_EQ(where.rank, rank);
    /* in a handler, from what is known here */
    snprintf(find.address, sizeof(find.address), "%s", address);
    MUST(worker_find(troupe, asker, find, TEST_SOON_MS, &found));
    CHECK_EQ(found.rc, 0);
    CHECK(troupe_ref_equal(found.ref, ref.ref));
}

static void expect_error(troupe_t *troupe, worker_ref_t asker,
                         const char *address, int error)
{
    worker_find_t find = { .unused = 0 };
    worker_find_result_t found;
    worker_ref_t ref;

    CHECK_EQ(worker_resolve(troupe, address, 50, &ref), error);
    snprintf(find.address, sizeof(find.address), "%s", address);
    MUST(worker_find(troupe, asker, find, TEST_SOON_MS, &found));
    CHECK_EQ(found.rc, error);
}

static void check_addresses(troupe_t *troupe, worker_ref_t mine, int size)
{
    char text[TEST_ADDRESS_BYTES], id[TROUPE_ADDRESS_BYTES];
    int last = size - 1;
    worker_ref_t ref;

    snprintf(text, sizeof(text), "actor:///worker@rank.%d", last);
    expect(troupe, mine, text, last);
    expect(troupe, mine, test_address(text, last, "worker"), last);
    MUST(worker_resolve(troupe, text, TEST_SOON_MS, &ref));
    snprintf(text, sizeof(text), "actor:///worker@%016llx",
             (unsigned long long)ref.ref.node);
    expect(troupe, mine, text, last);
    MUST(troupe_address_format(ref.ref, id, sizeof(id)));
    expect(troupe, mine, id, last);
    expect(troupe, mine, "actor:///only", 0);
    expect(troupe, mine, "actor:///worker@localhost", test_rank);
    expect_error(troupe, mine, "actor:///absent", TROUPE_ENONAME);
    expect_error(troupe, mine, "actor:///absent@rank.0", TROUPE_ENONAME);
    expect_error(troupe, mine, "actor:///foreign", TROUPE_ETYPE);
    expect_error(troupe, mine, "actor:///worker@nowhere", TROUPE_ENODE);
    expect_error(troupe, mine, "actor:///worker@rank.999", TROUPE_ENODE);
    expect_error(troupe, mine, "actor:///worker@0123456789abcdef",
                 TROUPE_ENODE);
    expect_error(troupe, mine, "actor://localhost/999999.1", TROUPE_ENOACTOR);
    expect_error(troupe, mine, "actor:///no name", TROUPE_EADDRESS);
}

/* --- unique names --------------------------------------------------------- */

static int spawn_unique(troupe_t *troupe, const char *name, const char *tags,
                        worker_ref_t *ref_p)
{
    troupe_spawn_options_t options = { .name = name,
                                       .unique = 1,
                                       .tags = tags };

    return worker_spawn_with(troupe, &options, NULL, ref_p);
}

static void check_taken(troupe_t *troupe)
{
    double end = test_now_ms() + TEST_SOON_MS;
    static troupe_name_t names[2];
    worker_ref_t none;

    CHECK_EQ(spawn_unique(troupe, "only", NULL, &none), TROUPE_EEXIST);
    CHECK_EQ(spawn_unique(troupe, "worker", NULL, &none), TROUPE_EEXIST);
    if (test_rank != 0) /* not even as one of many */
        CHECK_EQ(worker_spawn(troupe, "only", NULL, &none), TROUPE_EEXIST);
    do /* its rank may be silent for a while */
        CHECK_EQ((long long)troupe_names_list(troupe, "only", names, 2), 1);
    while (names[0].suspect != 0 && test_now_ms() < end &&
           troupe_serve(troupe, 1) == 0);
    CHECK(strcmp(names[0].name, "only") == 0 && names[0].unique == 1 &&
          names[0].suspect == 0 && strcmp(names[0].tags, "colour=red") == 0);
    CHECK_EQ(rank_of(troupe, names[0].ref), 0);
}

/* All take it at once: one has it in the end, the others know. */
static void check_race(troupe_t *troupe, int round)
{
    double end = test_now_ms() + TEST_SOON_MS;
    char name[32], address[TEST_ADDRESS_BYTES];
    worker_ref_t mine, holder;
    int has, all, late, rc;

    snprintf(name, sizeof(name), "race.%d", round);
    atomic_store(&lost, 0);
    meet(troupe);
    rc = spawn_unique(troupe, name, NULL, &mine);
    CHECK(rc == 0 || rc == TROUPE_EEXIST);
    do {
        meet(troupe);
        has = rc == 0 && atomic_load(&lost) == 0;
        MPI_Allreduce(&has, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
        late = test_now_ms() > end;
        MPI_Bcast(&late, 1, MPI_INT, 0, MPI_COMM_WORLD);
    } while (all > 1 && !late);
    CHECK_EQ(all, 1);
    await_count(troupe, name, 1);
    snprintf(address, sizeof(address), "actor:///%s", name);
    MUST(worker_resolve(troupe, address, TEST_SOON_MS, &holder));
    CHECK(!has || troupe_ref_equal(holder.ref, mine.ref));
}

/* --- the whole ------------------------------------------------------------ */

static void check_wrong_names(troupe_t *troupe)
{
    troupe_spawn_options_t options = { .unique = 1 };
    char name[TROUPE_NAME_BYTES + 1], tags[TROUPE_NAME_TAGS_MAX + 2];
    worker_ref_t none;

    CHECK_EQ(worker_spawn_with(troupe, &options, NULL, &none), TROUPE_EINVAL);
    CHECK_EQ(worker_spawn(troupe, "a b", NULL, &none), TROUPE_EINVAL);
    memset(name, 'x', sizeof(name));
    name[TROUPE_NAME_BYTES] = '\0';
    CHECK_EQ(worker_spawn(troupe, name, NULL, &none), TROUPE_EINVAL);
    memset(tags, 'x', sizeof(tags));
    tags[TROUPE_NAME_TAGS_MAX + 1] = '\0';
    options = (troupe_spawn_options_t){ .name = "tagged", .tags = tags };
    CHECK_EQ(worker_spawn_with(troupe, &options, NULL, &none), TROUPE_EINVAL);
}

/* Names come and go; all watchers have seen it. */
static void check_watch(troupe_t *troupe, worker_ref_t mine, int size)
{
    char name[32];
    worker_ref_t seen;

    MUST(worker_watch(troupe, mine, (worker_watch_t){}, TEST_SOON_MS, NULL));
    snprintf(name, sizeof(name), "seen/%d", test_rank);
    MUST(worker_spawn(troupe, name, NULL, &seen));
    await_count(troupe, "seen/", (size_t)size);
    meet(troupe);
    MUST(worker_leave(troupe, seen, (worker_leave_t){}, TEST_SOON_MS, NULL));
    await_count(troupe, "seen/", 0);
    for (double end = test_now_ms() + TEST_SOON_MS;
         atomic_load(&removed) < size && test_now_ms() < end;)
        troupe_serve(troupe, 1);
    CHECK_EQ(atomic_load(&added), size);
    CHECK_EQ(atomic_load(&removed), size);
}

static void check_withdrawn(troupe_t *troupe, worker_ref_t only)
{
    worker_ref_t ref;

    meet(troupe);
    if (test_rank == 0)
        MUST(worker_leave(troupe, only, (worker_leave_t){}, TEST_SOON_MS,
                          NULL));
    await_count(troupe, "only", 0);
    CHECK_EQ(worker_resolve(troupe, "actor:///only", 20, &ref),
             TROUPE_ENONAME);
    meet(troupe);
    /* it may be taken again, by anybody */
    if (test_rank == 1)
        MUST(spawn_unique(troupe, "only", NULL, &ref));
    MUST(worker_resolve(troupe, "actor:///only", TEST_SOON_MS, &ref));
    CHECK_EQ(rank_of(troupe, ref.ref), 1);
}

int main(void)
{
    worker_ref_t mine, only = { { 0 } }, found;
    int size;
    troupe_t *troupe = test_start(&size, NULL);

    if (size < 2 || size > RANKS_MAX)
        MUST(TROUPE_EINVAL);
    if (test_rank == 0) {
        const troupe_class_t *class = &worker_class_;
        troupe_class_t foreign = *class;
        static troupe_class_t kept;

        MUST(spawn_unique(troupe, "only", "colour=red", &only));
        kept = foreign;
        kept.protocol = &other_protocol_;
        kept.name = "foreign";
        MUST(troupe_spawn(troupe, &kept,
                          &(troupe_spawn_options_t){ .name = "foreign" }, NULL,
                          NULL));
    }
    /* waits until it is known here */
    MUST(worker_resolve(troupe, "actor:///only", TEST_SOON_MS, &found));
    MUST(worker_spawn(troupe, "worker", NULL, &mine));
    await_count(troupe, "worker", (size_t)size);
    await_count(troupe, "foreign", 1);
    check_policies(troupe, size);
    check_addresses(troupe, mine, size);
    check_taken(troupe);
    check_wrong_names(troupe);
    for (int round = 0; round < ROUNDS; round++)
        check_race(troupe, round);
    check_watch(troupe, mine, size);
    check_withdrawn(troupe, only);
    meet(troupe);
    return test_end(troupe);
}
