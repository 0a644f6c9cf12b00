/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Groups: made over all ranks, over some, over a communicator; joined, left;
 * spares; and what is refused.
 */
#include "test.h"

enum { RANKS = 4, SHORT_MS = 300, GIVEN_UP = 4 };

static troupe_t *troupe;
static uint64_t nodes[RANKS];

/* Equal on all members; a member of `len`, at this place. */
static void check_view(const troupe_view_t *view, uint64_t epoch, uint32_t len,
                       int index)
{
    CHECK_EQ((long long)view->epoch, (long long)epoch);
    CHECK_EQ(view->len, len);
    CHECK_EQ(view->index, index);
    CHECK(view->digest != 0);
}

static void check_equal(uint64_t value)
{
    uint64_t least, most;

    MPI_Allreduce(&value, &least, 1, MPI_UINT64_T, MPI_MIN, MPI_COMM_WORLD);
    MPI_Allreduce(&value, &most, 1, MPI_UINT64_T, MPI_MAX, MPI_COMM_WORLD);
    CHECK(least == most);
}

static troupe_group_options_t options_of(uint32_t size_max, int timeout_ms)
{
    troupe_group_options_t options;

    troupe_group_options_init(&options);
    options.size_max = size_max;
    if (timeout_ms > 0)
        options.timeout_ms = timeout_ms;
    return options;
}

static void over_all(void)
{
    troupe_group_t *group, *other = NULL;
    troupe_view_t view;

    MUST(troupe_group_create(troupe, "all", NULL, &group));
    troupe_group_view(group, &view);
    check_view(&view, 1, RANKS, test_rank);
    CHECK_EQ(view.active, RANKS);
    CHECK_EQ(view.joined, RANKS);
    check_equal(view.digest);
    for (uint32_t i = 0; i < RANKS; i++)
        CHECK(troupe_group_node(group, i) == nodes[i]);
    CHECK(troupe_group_node(group, RANKS) == 0);
    CHECK_EQ(troupe_group_is_changing(group), 0);
    CHECK_EQ(troupe_group_update(group, 0, 0, &view), 0);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(troupe_group_update(group, 1, TEST_SOON_MS, &view), 0);
    check_view(&view, 1, RANKS, test_rank);
    MPI_Barrier(MPI_COMM_WORLD);
    CHECK_EQ(troupe_group_create(troupe, "all", NULL, &other), TROUPE_EEXIST);
    CHECK(other == NULL);
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
    CHECK(group == NULL);
    troupe_group_close(&group);
    troupe_group_close(NULL);
}

/* Who ran out of time at a boundary goes on with it: all are through as many,
 * whoever was late. */
static void late_at_boundary(void)
{
    troupe_group_t *group;
    troupe_view_t view;

    MUST(troupe_group_create(troupe, "late", NULL, &group));
    for (int late = 0; late < RANKS; late++) {
        if (test_rank != late)
            for (int i = 0; i < 2; i++)
                CHECK_EQ(troupe_group_update(group, 1, 20, NULL),
                         TROUPE_ETIMEDOUT);
        MPI_Barrier(MPI_COMM_WORLD);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(troupe_group_update(group, 1, TEST_SOON_MS, &view), 0);
    }
    check_view(&view, 1, RANKS, test_rank);
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
}

/* Some, in another order than that of the ranks. */
static void over_some(void)
{
    uint64_t list[] = { nodes[3], nodes[0], nodes[2] };
    static const int places[RANKS] = { 1, -1, 2, 0 };
    troupe_group_t *group;
    troupe_view_t view;

    if (places[test_rank] >= 0) {
        MUST(troupe_group_create_of(troupe, "some", list, 3, NULL, &group));
        troupe_group_view(group, &view);
        check_view(&view, 1, 3, places[test_rank]);
        CHECK_EQ(troupe_group_update(group, 1, TEST_SOON_MS, NULL), 0);
        troupe_group_close(&group);
    } else {
        CHECK_EQ(troupe_group_create_of(troupe, "some", list, 3, NULL, &group),
                 TROUPE_EINVAL);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

static void over_comm(void)
{
    troupe_group_t *group;
    troupe_view_t view;
    MPI_Comm half;

    MPI_Comm_split(MPI_COMM_WORLD, test_rank % 2, -test_rank, &half);
    /* the same name twice, among others */
    MUST(troupe_group_create_comm(troupe, "half", half, NULL, &group));
    troupe_group_view(group, &view);
    check_view(&view, 1, RANKS / 2, test_rank / 2 == 0);
    MPI_Comm_free(&half);
    troupe_group_close(&group);
    MPI_Barrier(MPI_COMM_WORLD);
}

static void refused(void)
{
    troupe_group_options_t options = options_of(0, 0);
    uint64_t twice[] = { nodes[test_rank], nodes[test_rank] };
    troupe_group_t *group = NULL;
    char name[TROUPE_GROUP_NAME_MAX + 2];

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    CHECK_EQ(troupe_group_create(troupe, name, NULL, &group), TROUPE_EINVAL);
    CHECK_EQ(troupe_group_create(troupe, "", NULL, &group), TROUPE_EINVAL);
    CHECK_EQ(troupe_group_create(troupe, "a b", NULL, &group), TROUPE_EINVAL);
    CHECK_EQ(troupe_group_create(troupe, NULL, NULL, &group), TROUPE_EINVAL);
    CHECK_EQ(troupe_group_create(NULL, "x", NULL, &group), TROUPE_EINVAL);
    CHECK_EQ(troupe_group_create(troupe, "x", NULL, NULL), TROUPE_EINVAL);
    CHECK_EQ(troupe_group_create_of(troupe, "x", twice, 2, NULL, &group),
             TROUPE_EINVAL);
    options.size_min = 0;
    CHECK_EQ(troupe_group_create(troupe, "x", &options, &group),
             TROUPE_EINVAL);
    options = options_of(0, 0);
    options.backend = "none";
    CHECK_EQ(troupe_group_create(troupe, "x", &options, &group),
             TROUPE_EINVAL);
    /* one wants something else than the others */
    options = options_of(0, 0);
    options.elastic = test_rank != 2;
    CHECK_EQ(troupe_group_create(troupe, "x", &options, &group),
             TROUPE_EMISMATCH);
    MPI_Barrier(MPI_COMM_WORLD);
    /* nobody has it; not all come */
    options = options_of(0, SHORT_MS);
    CHECK_EQ(troupe_group_join(troupe, "x", &options, &group),
             TROUPE_ETIMEDOUT);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank != 1)
        CHECK_EQ(troupe_group_create(troupe, "x", &options, &group),
                 TROUPE_ETIMEDOUT);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank != 0)
        CHECK_EQ(troupe_group_create(troupe, "x", &options, &group),
                 TROUPE_ETIMEDOUT);
    MPI_Barrier(MPI_COMM_WORLD);
    /* and then all do */
    MUST(troupe_group_create(troupe, "x", NULL, &group));
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* Boundary after boundary, until there are so many members. */
static void until_len(troupe_group_t *group, uint32_t len, troupe_view_t *view)
{
    double until_ms = test_now_ms() + TEST_SOON_MS;

    troupe_group_view(group, view);
    while (view->len != len && test_now_ms() < until_ms) {
        int rc = troupe_group_update(group, 1, TEST_SOON_MS, view);

        CHECK_EQ(rc, 0);
        if (rc != 0)
            return;
    }
    CHECK_EQ(view->len, len);
}

/* The last rank joins what the others have; then one of them leaves. */
static void join_and_leave(int leaver)
{
    troupe_group_t *group = NULL;
    troupe_view_t view;

    if (test_rank == RANKS - 1) {
        MUST(troupe_group_join(troupe, "grows", NULL, &group));
        troupe_group_view(group, &view);
        check_view(&view, 2, RANKS, RANKS - 1);
    } else {
        MUST(troupe_group_create_of(troupe, "grows", nodes, RANKS - 1, NULL,
                                    &group));
        until_len(group, RANKS, &view);
        check_view(&view, 2, RANKS, test_rank);
        CHECK_EQ(view.joined, 1);
        CHECK_EQ(view.losses, 0);
    }
    check_equal(view.digest);
    if (test_rank == leaver) {
        CHECK_EQ(troupe_group_leave(&group, TEST_SOON_MS), 0);
        CHECK(group == NULL);
    } else {
        until_len(group, RANKS - 1, &view);
        check_view(&view, 3, RANKS - 1, test_rank - (test_rank > leaver));
        CHECK_EQ(view.losses, 0);
        CHECK_EQ(view.joined, 0);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* Who gives up before the next boundary is neither awaited there nor missed,
 * whichever of them it has asked. */
static void give_up_joining(void)
{
    const uint64_t order[RANKS] = { nodes[3], nodes[0], nodes[1], nodes[2] };
    troupe_group_options_t options = options_of(0, SHORT_MS);
    troupe_group_t *group = NULL, *behind;
    troupe_view_t view;

    if (test_rank == RANKS - 1) {
        MPI_Barrier(MPI_COMM_WORLD);
        CHECK_EQ(troupe_group_join(troupe, "shy", &options, &group),
                 TROUPE_ETIMEDOUT);
    } else {
        MUST(troupe_group_create_of(troupe, "shy", nodes, RANKS - 1, NULL,
                                    &group));
        MPI_Barrier(MPI_COMM_WORLD);
    }
    /* It says so first, and then that all of this one have come. */
    MUST(troupe_group_create_of(troupe, "behind", order, RANKS, NULL,
                                &behind));
    for (int i = 0; group != NULL && i < 3; i++) {
        CHECK_EQ(troupe_group_update(group, 1, TEST_SOON_MS, &view), 0);
        CHECK_EQ(view.len, RANKS - 1);
        CHECK_EQ(view.losses, 0);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
    troupe_group_close(&behind);
    MPI_Barrier(MPI_COMM_WORLD);
}

static void not_to_join(void)
{
    troupe_group_options_t options = options_of(0, 0);
    troupe_group_t *group = NULL;

    options.elastic = 0;
    if (test_rank == RANKS - 1) {
        MPI_Barrier(MPI_COMM_WORLD);
        CHECK_EQ(troupe_group_join(troupe, "fixed", NULL, &group),
                 TROUPE_ELIMIT);
    } else {
        MUST(troupe_group_create_of(troupe, "fixed", nodes, RANKS - 1,
                                    &options, &group));
        MPI_Barrier(MPI_COMM_WORLD);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* Three are active; the fourth is a spare until one of them leaves. */
static void spares(void)
{
    troupe_group_options_t options = options_of(RANKS - 1, 0);
    troupe_group_t *group;
    troupe_view_t view;

    MUST(troupe_group_create(troupe, "spares", &options, &group));
    troupe_group_view(group, &view);
    check_view(&view, 1, RANKS, test_rank);
    CHECK_EQ(view.active, RANKS - 1);
    if (test_rank == RANKS - 1)
        CHECK_EQ(troupe_group_update(group, 1, SHORT_MS, &view),
                 TROUPE_ETIMEDOUT);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 1) {
        CHECK_EQ(troupe_group_leave(&group, TEST_SOON_MS), 0);
    } else {
        until_len(group, RANKS - 1, &view);
        check_view(&view, 2, RANKS - 1, test_rank - (test_rank > 1));
        CHECK_EQ(view.active, RANKS - 1);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    troupe_group_close(&group);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* Below size_min they pause, and go on when another one comes. */
static void pause_and_resume(void)
{
    troupe_group_options_t options = options_of(0, 0);
    troupe_group_t *group = NULL;
    troupe_view_t view;
    int rc;

    options.size_min = RANKS;
    if (test_rank == RANKS - 1) {
        MPI_Barrier(MPI_COMM_WORLD);
        MUST(troupe_group_join(troupe, "few", &options, &group));
        troupe_group_view(group, &view);
    } else {
        MUST(troupe_group_create_of(troupe, "few", nodes, RANKS - 1, &options,
                                    &group));
        rc = troupe_group_update(group, 0, SHORT_MS, &view);
        CHECK_EQ(rc, TROUPE_EPAUSED);
        MPI_Barrier(MPI_COMM_WORLD);
        CHECK_EQ(troupe_group_update(group, 0, TEST_SOON_MS, &view), 0);
    }
    check_view(&view, 2, RANKS, test_rank);
    check_equal(view.digest);
    troupe_group_close(&group);
    MPI_Barrier(MPI_COMM_WORLD);
}

static void events(void)
{
    troupe_group_event_t list[TROUPE_GROUP_EVENTS_MAX];
    size_t len = troupe_group_events_take(troupe, list,
                                          TROUPE_GROUP_EVENTS_MAX);
    int views = 0;

    for (size_t i = 0; i < len; i++) {
        CHECK_EQ(list[i].lost, 0);
        if (strcmp(list[i].name, "grows") != 0 ||
            list[i].what == TROUPE_GROUP_CHANGING)
            continue;
        CHECK_EQ(list[i].what, TROUPE_GROUP_VIEW);
        CHECK(list[i].view.epoch == 2 || list[i].view.epoch == 3);
        views++;
    }
    CHECK(views >= 1 || test_rank == 1);
    CHECK_EQ((long long)troupe_group_events_take(troupe, list, 1), 0);
}

int main(void)
{
    int size;

    troupe = test_start(&size, NULL);
    CHECK_EQ(size, RANKS);
    for (int i = 0; i < RANKS; i++)
        nodes[i] = troupe_node_id(troupe);
    MPI_Allgather(MPI_IN_PLACE, 0, MPI_UINT64_T, nodes, 1, MPI_UINT64_T,
                  MPI_COMM_WORLD);
    over_all();
    late_at_boundary();
    over_some();
    over_comm();
    refused();
    join_and_leave(1);
    join_and_leave(0);
    for (int i = 0; i < GIVEN_UP; i++)
        give_up_joining();
    not_to_join();
    spares();
    pause_and_resume();
    events();
    return test_end(troupe);
}
