/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Actors created on other nodes, by threads and by actors: small, large, with
 * a name, and every way in which it is refused.
 */
#include <stdatomic.h>

#include "test.h"

enum { LARGE_BYTES = 300000, ROUNDS = 50, OTHER = 77 };

#define child_messages(TELL, ASK)                                             \
    ASK(child, where, (), (uint64_t node; int64_t value; int32_t started;))   \
    ASK(child, breed, (uint64_t node; int32_t unknown;),                      \
        (child_ref_t ref; int32_t error;))
TROUPE_PROTOCOL(child)

struct child {
    int64_t value;
    int32_t started;
    troupe_token_t breeding;
};

struct large {
    int64_t value;
    unsigned char bytes[LARGE_BYTES];
};

static atomic_int threads_of_start; /* on_start runs as a turn, not in poll */

static int on_start(troupe_self_t *self, struct child *c)
{
    troupe_ref_t me = troupe_self_ref(self);

    c->started += me.node == troupe_node_id(self);
    atomic_fetch_add(&threads_of_start, 1);
    return 0;
}

static int on_where(troupe_self_t *self, struct child *c,
                    const child_where_t *m)
{
    (void)m;
    return child_where_reply(
        self, (child_where_result_t){ troupe_node_id(self), c->value,
                                      c->started });
}

static int on_breed(troupe_self_t *self, struct child *c,
                    const child_breed_t *m);

TROUPE_ACTOR(child, struct child, .on_start = on_start, .where = on_where,
             .breed = on_breed)

static int on_large_where(troupe_self_t *self, struct large *l,
                          const child_where_t *m)
{
    int32_t right = 0;

    (void)m;
    for (int i = 0; i < LARGE_BYTES; i++)
        right += l->bytes[i] == (unsigned char)(i * 7);
    return child_where_reply(
        self, (child_where_result_t){ troupe_node_id(self), l->value, right });
}

TROUPE_ACTOR_AS(large, child, struct large, .where = on_large_where)

static int fail_on_start(troupe_self_t *self, struct child *c)
{
    (void)self, (void)c;
    return TROUPE_E_USER;
}

TROUPE_ACTOR_AS(stillborn, child, struct child, .on_start = fail_on_start)

/* Of which only even ranks know. */
static int receive_none(troupe_self_t *self, void *state, unsigned index,
                        const void *message)
{
    (void)self, (void)state, (void)index, (void)message;
    return index == TROUPE_ON_START || index == TROUPE_ON_STOP ? 0
                                                               : TROUPE_ETYPE;
}

static const troupe_class_t secret_class = { "secret", &child_protocol_, 8,
                                             receive_none };
/* The same name with another state. */
static const troupe_class_t odd_child_class = { "child", &child_protocol_, 999,
                                                receive_none };

static int then_bred(troupe_self_t *self, void *state, int error,
                     const child_ref_t *ref, void *arg)
{
    struct child *c = state;
    child_breed_result_t result = { .error = error };

    if (ref)
        result.ref = *ref;
    CHECK(arg == &threads_of_start);
    return child_breed_reply_to(self, c->breeding, result);
}

static int then_untyped(troupe_self_t *self, void *state, int error,
                        const void *outcome, void *arg, troupe_any_fn_t then)
{
    (void)then;
    return then_bred(self, state, error, outcome, arg);
}

static int on_breed(troupe_self_t *self, struct child *c,
                    const child_breed_t *m)
{
    struct child initial = { .value = c->value + 1 };
    int rc;

    if (m->unknown)
        rc = troupe_spawn_on_then(self, m->node, &secret_class, NULL, NULL,
                                  TEST_SOON_MS, then_untyped,
                                  (troupe_any_fn_t)then_bred,
                                  &threads_of_start);
    else
        rc = child_spawn_on_then(self, m->node, NULL, &initial, TEST_SOON_MS,
                                 then_bred, &threads_of_start);
    if (rc != 0) /* `then` does not run */
        return child_breed_reply(self, (child_breed_result_t){ .error = rc });
    c->breeding = troupe_reply_later(self);
    return 0;
}

/* -------------------------------------------------------------------------- */

static void check_child(troupe_t *troupe, child_ref_t ref, uint64_t node,
                        int64_t value, int32_t started)
{
    child_where_result_t where = { 0 };

    CHECK(ref.ref.node == node);
    MUST(child_where(troupe, ref, (child_where_t){}, TEST_SOON_MS, &where));
    CHECK(where.node == node);
    CHECK_EQ(where.value, value);
    CHECK_EQ(where.started, started);
}

static void check_threads(troupe_t *troupe, uint64_t node)
{
    child_ref_t refs[ROUNDS], ref;
    struct large *large = calloc(1, sizeof(*large));

    for (int i = 0; i < ROUNDS; i++)
        MUST(child_spawn_on(troupe, node, NULL, &(struct child){ .value = i },
                            TEST_SOON_MS, &refs[i]));
    for (int i = 0; i < ROUNDS; i++)
        check_child(troupe, refs[i], node, i, 1);
    MUST(child_spawn_on(troupe, node, NULL, NULL, 0, &ref));
    check_child(troupe, ref, node, 0, 1);
    MUST(child_spawn_on(troupe, node, NULL, NULL, 0, NULL));
    large->value = -5;
    for (int i = 0; i < LARGE_BYTES; i++)
        large->bytes[i] = (unsigned char)(i * 7);
    MUST(large_spawn_on(troupe, node, NULL, large, TEST_SOON_MS, &ref));
    check_child(troupe, ref, node, -5, LARGE_BYTES);
    free(large);
}

static void check_actors(troupe_t *troupe, uint64_t node)
{
    child_breed_result_t bred = { .error = 1 };
    child_ref_t parent;

    MUST(child_spawn(troupe, NULL, &(struct child){ .value = 41 }, &parent));
    MUST(child_breed(troupe, parent, (child_breed_t){ node, 0 }, TEST_SOON_MS,
                     &bred));
    CHECK_EQ(bred.error, 0);
    check_child(troupe, bred.ref, node, 42, 1);
    MUST(child_breed(troupe, parent, (child_breed_t){ OTHER, 0 },
                     TEST_SOON_MS, &bred));
    CHECK_EQ(bred.error, TROUPE_ENODE);
}

static void check_names(troupe_t *troupe, uint64_t node)
{
    char name[64], address[128];
    troupe_spawn_options_t options = { .name = name, .mailbox_len_max = 100 };
    child_ref_t ref, found;

    snprintf(name, sizeof(name), "child/of.%d", test_rank);
    snprintf(address, sizeof(address), "actor://rank.%d/%s",
             troupe_rank_of(troupe, node), name);
    MUST(child_spawn_on(troupe, node, &options, NULL, TEST_SOON_MS, &ref));
    MUST(child_resolve(troupe, address, TEST_SOON_MS, &found));
    CHECK(troupe_ref_equal(ref.ref, found.ref));
    CHECK_EQ(child_spawn_on(troupe, node, &options, NULL, TEST_SOON_MS, &ref),
             TROUPE_EEXIST);
    options.name = "a name";
    CHECK_EQ(child_spawn_on(troupe, node, &options, NULL, TEST_SOON_MS, &ref),
             TROUPE_EINVAL);
    options.name = NULL;
    options.mailbox_len_max = 70000;
    CHECK_EQ(child_spawn_on(troupe, node, &options, NULL, TEST_SOON_MS, &ref),
             TROUPE_EINVAL);
}

static void check_refused(troupe_t *troupe, uint64_t node, int is_known)
{
    child_breed_result_t bred = { .error = 1 };
    troupe_ref_t ref;
    child_ref_t parent;
    int reason = 0, rc;

    rc = troupe_spawn_on(troupe, node, &secret_class, NULL, NULL, TEST_SOON_MS,
                         &ref);
    CHECK_EQ(rc, is_known ? 0 : TROUPE_ECLASS);
    MUST(child_spawn(troupe, NULL, NULL, &parent));
    MUST(child_breed(troupe, parent, (child_breed_t){ node, 1 }, TEST_SOON_MS,
                     &bred));
    CHECK_EQ(bred.error, is_known ? 0 : TROUPE_ECLASS);
    if (node != troupe_node_id(troupe))
        CHECK_EQ(troupe_spawn_on(troupe, node, &odd_child_class, NULL, NULL,
                                 TEST_SOON_MS, &ref),
                 TROUPE_ETYPE);
    CHECK_EQ(troupe_spawn_on(troupe, OTHER, &child_class_, NULL, NULL,
                             TEST_SOON_MS, &ref),
             TROUPE_ENODE);
    CHECK_EQ(troupe_spawn_on(troupe, node, &child_class_, NULL, NULL, -1, &ref),
             TROUPE_EINVAL);
    /* It was created, and then failed by itself. */
    MUST(troupe_spawn_on(troupe, node, &stillborn_class_, NULL, NULL,
                         TEST_SOON_MS, &ref));
    MUST(troupe_wait_down(troupe, ref, TEST_SOON_MS, &reason));
    CHECK(reason == TROUPE_E_USER || reason == TROUPE_ENOACTOR);
}

static void check_limit(troupe_t *troupe, uint64_t node)
{
    child_ref_t ref;
    int rc = 0;

    for (int i = 0; rc == 0 && i < 3000; i++)
        rc = child_spawn_on(troupe, node, NULL, NULL, TEST_SOON_MS, &ref);
    CHECK_EQ(rc, TROUPE_ELIMIT);
}

int main(void)
{
    char address[TEST_ADDRESS_BYTES];
    troupe_options_t options;
    child_ref_t own, next;
    troupe_t *troupe;
    int size, rank;

    troupe_options_init(&options);
    options.actors_max = 2000;
    troupe = test_start(&size, &options);
    rank = (test_rank + 1) % size;
    if (test_rank % 2 == 0)
        MUST(troupe_class_register(&secret_class));
    MUST(child_spawn(troupe, "own", NULL, &own));
    MUST(child_resolve(troupe, test_address(address, rank, "own"),
                       TEST_SOON_MS, &next));
    check_threads(troupe, next.ref.node);
    check_actors(troupe, next.ref.node);
    check_names(troupe, next.ref.node);
    check_refused(troupe, next.ref.node, rank % 2 == 0);
    CHECK(atomic_load(&threads_of_start) > 0);
    if (test_has_workers(troupe))
        MPI_Barrier(MPI_COMM_WORLD); /* others are done with us */
    if (test_rank == 0)
        check_limit(troupe, next.ref.node);
    return test_end(troupe);
}
