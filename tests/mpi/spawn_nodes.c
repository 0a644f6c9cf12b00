/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A job grows: its last rank has MPI start two more processes, which join the
 * cluster by what they are told over MPI, talk to an actor of their parents,
 * and join a group that then sums over all.
 */
#include "test.h"

enum { CHILDREN = 2, MEMBERS_MAX = 16 };

#define host_messages(TELL, ASK)                                              \
    ASK(host, greet, (int32_t rank; int32_t size;), (int32_t guests;))        \
    ASK(host, finish, (int32_t members;), (int32_t unused;))
TROUPE_PROTOCOL(host)

struct host {
    int guests, finished;
    troupe_token_t waiting[MEMBERS_MAX];
};

static int on_greet(troupe_self_t *self, struct host *h, const host_greet_t *m)
{
    CHECK_EQ(m->size, CHILDREN);
    CHECK(m->rank >= 0 && m->rank < CHILDREN);
    return host_greet_reply(self, (host_greet_result_t){ ++h->guests });
}

/* Who closes a group changes its view: nobody does before all are done. */
static int on_finish(troupe_self_t *self, struct host *h,
                     const host_finish_t *m)
{
    h->waiting[h->finished++] = troupe_reply_later(self);
    for (int i = 0; h->finished == m->members && i < m->members; i++)
        CHECK_EQ(host_finish_reply_to(self, h->waiting[i],
                                      (host_finish_result_t){ 0 }),
                 0);
    return 0;
}

TROUPE_ACTOR(host, struct host, .greet = on_greet, .finish = on_finish)

/* Children may come in one after the other; who is in lets in the next. */
static void until_all_are_in(troupe_t *troupe, troupe_group_t *group,
                             int members)
{
    double end = test_now_ms() + TEST_SOON_MS;
    troupe_view_t view;

    troupe_group_view(group, &view);
    while ((int)view.len < members && test_now_ms() < end) {
        MUST(troupe_group_update(group, 1, TEST_SOON_MS, &view));
        troupe_serve(troupe, 1);
    }
    CHECK_EQ(view.len, members);
}

static void sum_over_all(troupe_t *troupe, host_ref_t host,
                         troupe_group_t *group, int members)
{
    int64_t one = 1, sum = 0;

    until_all_are_in(troupe, group, members);
    CHECK_EQ(troupe_allreduce(group, &one, &sum, 1, TROUPE_INT64, TROUPE_SUM,
                              TEST_SOON_MS),
             0);
    CHECK_EQ(sum, members);
    CHECK_EQ(host_finish(troupe, host, (host_finish_t){ members },
                         TEST_SOON_MS, NULL),
             0);
    troupe_group_close(&group);
}

/* --- children ------------------------------------------------------------- */

static int child(int parents)
{
    troupe_t *troupe;
    troupe_group_t *group;
    host_ref_t host;
    host_greet_result_t result;

    MUST(troupe_start(&troupe, NULL));
    test_rank = 100 + troupe_rank(troupe);
    CHECK_EQ(troupe_size(troupe), CHILDREN);
    MUST(host_resolve(troupe, "actor:///host", TEST_SOON_MS, &host));
    MUST(host_greet(troupe, host,
                    (host_greet_t){ troupe_rank(troupe), CHILDREN },
                    TEST_SOON_MS, &result));
    MUST(troupe_group_join(troupe, "grown", NULL, &group));
    sum_over_all(troupe, host, group, parents + CHILDREN);
    MUST(troupe_stop(&troupe));
    return test_status();
}

/* --- parents -------------------------------------------------------------- */

static void grow(troupe_t *troupe, const char *program, int size)
{
    char word[] = "child", text[16], *argv[] = { word, text, NULL };
    troupe_group_t *group;
    host_ref_t host;

    snprintf(text, sizeof(text), "%d", size);
    MUST(troupe_group_create(troupe, "grown", NULL, &group));
    /* One job's waits for them, the others' does not. */
    if (test_rank == size - 1)
        MUST(troupe_spawn_nodes(troupe, program, argv, CHILDREN,
                                size == 1 ? TEST_SOON_MS : 0));
    MUST(host_resolve(troupe, "actor:///host", TEST_SOON_MS, &host));
    sum_over_all(troupe, host, group, size + CHILDREN);
}

int main(int argc, char **argv)
{
    troupe_options_t options;
    host_ref_t host;
    troupe_t *troupe;
    int level, size;

    if (argc > 2 && strcmp(argv[1], "child") == 0)
        return child(atoi(argv[2]));
#if defined(MPICH_VERSION)
    printf("Debian's MPICH has no MPI_Comm_spawn that works: skipped\n");
    return 77;
#endif
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);

    /* Not without the option. */
    MUST(troupe_start(&troupe, NULL));
    CHECK_EQ(troupe_spawn_nodes(troupe, argv[0], NULL, CHILDREN, TEST_SOON_MS),
             TROUPE_EOPTION);
    MUST(troupe_stop(&troupe));

    troupe_options_init(&options);
    options.growable = 1;
    MUST(troupe_start(&troupe, &options));
    if (test_rank == 0)
        MUST(host_spawn(troupe, "host", NULL, &host));
    grow(troupe, argv[0], size);
    return test_end(troupe);
}
