/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A front without a node: a member that cannot go on tells the others, once,
 * and who is told ends with the same error and tells nobody; and records of
 * groups that nobody knows do not pile up. Views and links are made up.
 */
#include "unit.h"

#include "message/pool.h"
#include "tensor/front.h"

enum { MEMBERS = 3, OWN = 1, GROUP = 7, EPOCH = 5 };

static struct tri_runtime runtime;
static struct tri_tensor tensor;
static struct tri_view_member members[MEMBERS];
static struct tri_peer peers[MEMBERS];
static struct tri_front *front;
static bool is_known; /* the group of any id */

/* What was sent. */
static uint32_t sent_len;
static uint32_t sent_to[MEMBERS];
static struct tri_coll_head sent_head;
static int32_t sent_error;

/* --- what is made up ------------------------------------------------------ */

int __wrap_tri_team_send(const struct tri_team *, uint32_t, uint8_t,
                         struct tri_coll_head *, const struct tri_piece *,
                         uint32_t);
int __wrap_tri_team_send(const struct tri_team *team, uint32_t member,
                         uint8_t kind, struct tri_coll_head *head,
                         const struct tri_piece *pieces, uint32_t pieces_len)
{
    assert_ptr_equal(team, &front->team);
    assert_int_equal(kind, TRI_COLL_CONTROL);
    assert_int_equal(pieces_len, 1);
    assert_int_equal(pieces[0].bytes, sizeof(sent_error));
    assert_true(sent_len < MEMBERS);
    sent_to[sent_len++] = member;
    sent_head = *head;
    memcpy(&sent_error, pieces[0].data, sizeof(sent_error));
    return 0;
}

struct troupe_group *__wrap_tri_view_find(struct tri_runtime *, uint64_t);
struct troupe_group *__wrap_tri_view_find(struct tri_runtime *of, uint64_t id)
{
    (void)of;
    (void)id;
    return is_known ? (struct troupe_group *)&tensor : NULL;
}

bool __wrap_tri_view_may_come(struct tri_runtime *, uint64_t);
bool __wrap_tri_view_may_come(struct tri_runtime *of, uint64_t id)
{
    (void)of;
    (void)id;
    return true;
}

const char *__wrap_tri_view_group_name(const struct troupe_group *);
const char *__wrap_tri_view_group_name(const struct troupe_group *group)
{
    (void)group;
    return "made-up";
}

/* --- fixture -------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    memset(&runtime, 0, sizeof(runtime));
    memset(&tensor, 0, sizeof(tensor));
    memset(peers, 0, sizeof(peers));
    sent_len = 0;
    is_known = true;
    runtime.tensor = &tensor;
    tensor.runtime = &runtime;
    tensor.backends = tri_backends;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        peers[i].node = 100 + i;
        members[i] = (struct tri_view_member){
            .node = 100 + i,
            .peer = i != OWN ? &peers[i] : NULL,
        };
    }
    front = tri_front_hold(&tensor, GROUP);
    assert_non_null(front);
    tri_front_release(front);
    front->members = members;
    front->team = (struct tri_team){
        .runtime = &runtime,
        .group_id = GROUP,
        .epoch = EPOCH,
        .len = MEMBERS,
        .index = OWN,
        .members = members,
    };
    front->has_team = true;
    front->is_elastic = true;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    while (tensor.fronts != NULL) {
        struct tri_front *next = tensor.fronts->next;

        tri_front_inbox_free(tensor.fronts);
        free(tensor.fronts);
        tensor.fronts = next;
    }
    return 0;
}

static void begin(struct troupe_collective *entry)
{
    memset(entry, 0, sizeof(*entry));
    tri_lock_acquire(&front->lock);
    front->issued++;
    tri_front_queue_locked(front, entry);
    tri_lock_release(&front->lock);
}

static void fails(uint8_t of, int error)
{
    tri_lock_acquire(&front->lock);
    tri_front_fail_locked(front, of, error);
    tri_lock_release(&front->lock);
}

/* A FAILED, of so many bytes. */
static void arrives(uint64_t group, uint32_t member, uint64_t epoch,
                    int32_t error, size_t bytes)
{
    struct tri_coll_head head = { .group = group,
                                  .epoch = epoch,
                                  .backend = TRI_BACKEND_FRONT,
                                  .what = TRI_FRONT_FAILED };
    struct tri_record record = { .kind = TRI_COLL_CONTROL };
    char payload[sizeof(head) + 8] = { 0 };

    memcpy(payload, &head, sizeof(head));
    memcpy(payload + sizeof(head), &error, sizeof(error));
    record.bytes = record.total_bytes = (uint32_t)(sizeof(head) + bytes);
    tri_front_record(&runtime, &peers[member], &record, payload);
}

static uint64_t refused(void)
{
    return tri_refusals_total(&runtime.link.refusals);
}

/* --- a member that cannot go on ------------------------------------------- */

static void test_tells_all_once(void **state)
{
    struct troupe_collective entry;

    (void)state;
    begin(&entry);
    fails(TRI_BACKEND_MPI, TROUPE_ENOMEM);
    assert_int_equal(front->ended, TROUPE_ENOMEM);
    assert_true(atomic_load(&entry.done));
    assert_int_equal(entry.rc, TROUPE_ENOMEM);
    assert_int_equal(sent_len, MEMBERS - 1);
    assert_int_equal(sent_to[0] + sent_to[1], 0 + 2);
    assert_int_equal(sent_head.what, TRI_FRONT_FAILED);
    assert_int_equal(sent_head.backend, TRI_BACKEND_FRONT);
    assert_int_equal(sent_error, TROUPE_ENOMEM);
    fails(TRI_BACKEND_MPI, TROUPE_EMPI);
    assert_int_equal(sent_len, MEMBERS - 1);
    assert_int_equal(front->ended, TROUPE_ENOMEM);
    assert_int_equal(front->broken, 0);
}

/* What all learn by themselves, or were told. */
static void test_tells_no_more_than_needed(void **state)
{
    static const int own[] = { TROUPE_EVIEW, TROUPE_ENODE, TROUPE_EMISMATCH,
                               TROUPE_ETIMEDOUT, TROUPE_ECANCELED };

    (void)state;
    for (size_t i = 0; i < tri_array_len(own); i++) {
        fails(TRI_BACKEND_FRONT, own[i]);
        assert_int_equal(front->ended, own[i]);
        front->ended = 0;
    }
    fails(TRI_BACKEND_NATIVE, TROUPE_EPROTO);
    assert_int_equal(front->ended, TROUPE_EPROTO);
    front->ended = 0;
    atomic_store(&peers[2].state, TRI_PEER_DEAD);
    fails(TRI_BACKEND_MPI, TROUPE_EMPI);
    assert_int_equal(front->ended, TROUPE_EMPI);
    assert_int_equal(sent_len, 0);
}

static void test_is_told(void **state)
{
    struct troupe_collective entry;

    (void)state;
    begin(&entry);
    arrives(GROUP, 2, EPOCH, TROUPE_EMPI, sizeof(int32_t));
    assert_int_equal(front->ended, TROUPE_EMPI);
    assert_int_equal(front->broken, 0);
    assert_true(atomic_load(&entry.done));
    assert_int_equal(entry.rc, TROUPE_EMPI);
    assert_int_equal(sent_len, 0);
    arrives(GROUP, 0, EPOCH, TROUPE_ENOMEM, sizeof(int32_t));
    assert_int_equal(front->ended, TROUPE_EMPI);
    assert_int_equal(refused(), 0);
}

static void test_a_fixed_group_is_broken(void **state)
{
    (void)state;
    front->is_elastic = false;
    arrives(GROUP, 0, EPOCH, TROUPE_ESYSTEM, sizeof(int32_t));
    assert_int_equal(front->broken, TROUPE_ESYSTEM);
    assert_int_equal(front->ended, TROUPE_ESYSTEM);
}

/* Also of another epoch, and after a death, which says more. */
static void test_refuses_what_makes_no_sense(void **state)
{
    static const int32_t errors[] = { 0, 1, INT32_MIN, TROUPE_EVIEW,
                                      TROUPE_ENODE, TROUPE_EMISMATCH,
                                      TROUPE_E_USER };
    uint64_t wanted = 0;

    (void)state;
    for (size_t i = 0; i < tri_array_len(errors); i++) {
        arrives(GROUP, 0, EPOCH, errors[i], sizeof(int32_t));
        assert_int_equal(refused(), ++wanted);
    }
    for (size_t bytes = 0; bytes <= 8; bytes++) {
        if (bytes == sizeof(int32_t))
            continue;
        arrives(GROUP, 0, EPOCH, TROUPE_EMPI, bytes);
        assert_int_equal(refused(), ++wanted);
    }
    arrives(GROUP, OWN, EPOCH, TROUPE_EMPI, sizeof(int32_t));
    assert_int_equal(refused(), ++wanted);
    arrives(GROUP, 0, EPOCH - 1, TROUPE_EMPI, sizeof(int32_t));
    atomic_store(&peers[2].state, TRI_PEER_DEAD);
    arrives(GROUP, 0, EPOCH, TROUPE_EMPI, sizeof(int32_t));
    assert_int_equal(refused(), wanted);
    assert_int_equal(front->ended, 0);
}

/* --- early records -------------------------------------------------------- */

static uint32_t fronts_len(void)
{
    uint32_t len = 0;

    for (struct tri_front *at = tensor.fronts; at != NULL; at = at->next)
        len++;
    return len;
}

static bool has_front(uint64_t group)
{
    struct tri_front *at = tensor.fronts;

    while (at != NULL && at->group_id != group)
        at = at->next;
    return at != NULL;
}

static void test_unknown_groups_are_bounded(void **state)
{
    const uint64_t first = 1000, last = first + 3 * TRI_FRONT_EARLY_MAX;

    (void)state;
    is_known = false;
    for (uint64_t group = first; group <= last; group++) {
        arrives(group, 0, EPOCH, TROUPE_EMPI, sizeof(int32_t));
        if (group == first + 1) /* its own program calls */
            tri_front_release(tri_front_hold(&tensor, group));
    }
    /* and the known one, and that which was called here */
    assert_int_equal(fronts_len(), TRI_FRONT_EARLY_MAX + 2);
    assert_true(has_front(GROUP));
    assert_false(has_front(first));
    assert_true(has_front(first + 1));
    assert_false(has_front(last - TRI_FRONT_EARLY_MAX));
    assert_true(has_front(last - TRI_FRONT_EARLY_MAX + 1));
    assert_int_equal(refused(), 2 * TRI_FRONT_EARLY_MAX);
    /* What came for those that are there is. */
    assert_int_equal(tensor.fronts->inbox_len, 1);
}

/* What came for a group that is closed before its first call goes with it. */
static void test_a_closed_group_leaves_nothing(void **state)
{
    (void)state;
    arrives(GROUP + 1, 0, EPOCH, TROUPE_EMPI, sizeof(int32_t));
    assert_int_equal(tensor.fronts->inbox_len, 1);
    tri_front_closed(&runtime, GROUP + 1);
    assert_false(has_front(GROUP + 1));
    assert_true(has_front(GROUP));
    tri_front_closed(&runtime, GROUP + 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_tells_all_once),
        TEST(test_tells_no_more_than_needed),
        TEST(test_is_told),
        TEST(test_a_fixed_group_is_broken),
        TEST(test_refuses_what_makes_no_sense),
        TEST(test_unknown_groups_are_bounded),
        TEST(test_a_closed_group_leaves_nothing),
    };

    tri_pool_init(64u << 20);
    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
