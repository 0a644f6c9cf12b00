/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Strictly unique names: of all that claim one at the same time one gets it,
 * round after round; it is free when its actor ends; and what is refused.
 */
#include "test.h"

enum { ROUNDS = 30 };

#define holder_messages(TELL, ASK)                                            \
    ASK(holder, take, (char name[64];), (int32_t rc;))                        \
    TELL(holder, end, ())
TROUPE_PROTOCOL(holder)

struct holder {
    int32_t unused;
};

static int on_take(troupe_self_t *self, struct holder *h,
                   const holder_take_t *m);

static int on_end(troupe_self_t *self, struct holder *h, const holder_end_t *m)
{
    (void)h, (void)m;
    troupe_exit(self);
    return 0;
}

TROUPE_ACTOR(holder, struct holder, .take = on_take, .end = on_end)

/* A handler cannot wait for the others. */
static int on_take(troupe_self_t *self, struct holder *h,
                   const holder_take_t *m)
{
    troupe_spawn_options_t strict = { .name = m->name,
                                      .unique = TROUPE_UNIQUE_STRICT };
    holder_ref_t ref;
    int rc = holder_spawn_with(self, &strict, NULL, &ref);

    (void)h;
    return holder_take_reply(self, (holder_take_result_t){ .rc = rc });
}

static troupe_t *troupe;
static int size;

static int spawn(const char *name, uint32_t unique, holder_ref_t *ref_p)
{
    troupe_spawn_options_t options = { .name = name, .unique = unique };

    return holder_spawn_with(troupe, &options, NULL, ref_p);
}

static int total(int value)
{
    int sum;

    MPI_Allreduce(&value, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    return sum;
}

static void end_of(holder_ref_t ref)
{
    int reason;

    MUST(holder_end(troupe, ref, (holder_end_t){}));
    MUST(troupe_wait_down(troupe, ref.ref, TEST_SOON_MS, &reason));
}

/* All at once; the one that gets it keeps it from all, until it ends. */
static void compete(int round)
{
    holder_ref_t ref, other;
    char name[64];
    int rc;

    snprintf(name, sizeof(name), "the/only/%d", round % 3);
    MPI_Barrier(MPI_COMM_WORLD);
    rc = spawn(name, TROUPE_UNIQUE_STRICT, &ref);
    if (rc != TROUPE_EEXIST)
        CHECK_EQ(rc, 0);
    CHECK_EQ(total(rc == 0), 1);
    CHECK_EQ(spawn(name, TROUPE_UNIQUE_STRICT, &other), TROUPE_EEXIST);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rc == 0)
        end_of(ref);
}

/* Now each has it in its turn: who asks next finds it free. */
static void one_after_the_other(void)
{
    holder_ref_t ref;

    for (int i = 0; i < size; i++) {
        if (i == test_rank) {
            MUST(spawn("in/turn", TROUPE_UNIQUE_STRICT, &ref));
            end_of(ref);
        }
        MPI_Barrier(MPI_COMM_WORLD);
    }
}

/* Whoever has it, by whatever right, has it. */
static void against_others(void)
{
    holder_ref_t plain, ref;

    if (test_rank == 0)
        MUST(spawn("plain", TROUPE_UNIQUE_NOT, &plain));
    MPI_Barrier(MPI_COMM_WORLD);
    CHECK_EQ(spawn("plain", TROUPE_UNIQUE_STRICT, &ref), TROUPE_EEXIST);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        end_of(plain);
    if (test_rank == size - 1)
        MUST(spawn("strict", TROUPE_UNIQUE_STRICT, &ref));
    MUST(holder_resolve(troupe, "actor:///strict", TEST_SOON_MS, &plain));
    CHECK(plain.ref.node != troupe_node_id(troupe) || test_rank == size - 1);
    CHECK_EQ(spawn("strict", TROUPE_UNIQUE_NOT, &plain), TROUPE_EEXIST);
    CHECK_EQ(spawn("strict", TROUPE_UNIQUE_SOON, &plain), TROUPE_EEXIST);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == size - 1)
        end_of(ref);
}

static void listed(void)
{
    troupe_name_t list[2];
    holder_ref_t ref;

    if (test_rank == 0)
        MUST(spawn("listed", TROUPE_UNIQUE_STRICT, &ref));
    MUST(holder_resolve(troupe, "actor:///listed", TEST_SOON_MS, &ref));
    CHECK_EQ((long long)troupe_names_list(troupe, "listed", list, 2), 1);
    CHECK_EQ(list[0].unique, TROUPE_UNIQUE_STRICT);
    MPI_Barrier(MPI_COMM_WORLD);
}

static void refused(void)
{
    uint64_t next = troupe_node_id(troupe), nodes[64];
    holder_ref_t ref, far;
    holder_take_t take = { .name = "by/handler" };
    holder_take_result_t taken;
    troupe_spawn_options_t strict = { .name = "far",
                                      .unique = TROUPE_UNIQUE_STRICT };

    MUST(holder_spawn(troupe, NULL, NULL, &ref));
    MUST(holder_take(troupe, ref, take, TEST_SOON_MS, &taken));
    CHECK_EQ(taken.rc, TROUPE_ECONTEXT);
    CHECK_EQ(spawn("x", TROUPE_UNIQUE_STRICT + 1, &far), TROUPE_EINVAL);
    MPI_Allgather(&next, 1, MPI_UINT64_T, nodes, 1, MPI_UINT64_T,
                  MPI_COMM_WORLD);
    next = nodes[(test_rank + 1) % size];
    if (size > 1)
        CHECK_EQ(holder_spawn_on(troupe, next, &strict, NULL, TEST_SOON_MS,
                                 &far),
                 TROUPE_EINVAL);
    end_of(ref);
}

int main(int argc, char **argv)
{
    troupe_options_t options;
    holder_ref_t ref;

    (void)argv;
    troupe_options_init(&options);
    options.strict_names = argc == 1;
    troupe = test_start(&size, &options);
    if (argc == 1) {
        for (int i = 0; i < ROUNDS; i++)
            compete(i);
        one_after_the_other();
        against_others();
        listed();
        refused();
    } else {
        CHECK_EQ(spawn("x", TROUPE_UNIQUE_STRICT, &ref), TROUPE_EOPTION);
        MUST(spawn("x", TROUPE_UNIQUE_NOT, &ref));
    }
    return test_end(troupe);
}
