/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fetching state over a link that is made up, in a time that is made up: while
 * somebody else answers, too, data is taken of members that are asked alone;
 * over a slow link nothing is asked for twice; who says nothing is replaced.
 */
#include "unit.h"

#include "tensor/training.h"

enum {
    SOURCES_MAX = 16,
    STRANGER, /* the members are 1 to 16 */
    CHUNKS = 61,
    BYTES = CHUNKS * TRI_STATE_CHUNK_BYTES - 1000,
    QUEUE_MAX = 8,
    TICK_NS = 1000000,
};

/* Asked for, and not yet here. */
struct queue {
    struct tri_state_head wants[QUEUE_MAX];
    uint32_t len;
    uint64_t sent; /* bytes of the first one */
};

static struct tri_runtime runtime;
static struct troupe_training training;
static unsigned char data[BYTES];
static uint64_t now_ns;

static struct queue queues[SOURCES_MAX + 1];
static uint32_t asked[STRANGER + 1];
static uint32_t queued_most;
static uint64_t tick_bytes; /* of all together in a tick */
static uint64_t silent;     /* node that takes no part; 0: none */
static uint32_t lost;       /* so many wants that come next are */
static bool has_stranger;

/* What the state is, or is not. */
static unsigned char byte_of(uint64_t node, uint64_t offset)
{
    return (unsigned char)(offset * 7 + (node == STRANGER));
}

static void answer(uint64_t from, const struct tri_state_head *want)
{
    static unsigned char chunk[TRI_STATE_CHUNK_BYTES];
    struct tri_state_head have = *want;

    for (uint32_t i = 0; i < want->bytes; i++)
        chunk[i] = byte_of(from, want->offset + i);
    have.what = TRI_STATE_HAVE;
    have.hash = tri_state_hash(want->offset, chunk, want->bytes);
    tri_fetch_record_locked(&training, from, &have, chunk);
}

static bool has_more(uint64_t node)
{
    return queues[node].len > 0 && node != silent;
}

static void move(uint64_t node, uint64_t bytes)
{
    struct queue *queue = &queues[node];

    queue->sent += bytes;
    if (queue->sent < queue->wants[0].bytes)
        return;
    queue->sent = 0;
    if (has_stranger) /* who is faster */
        answer(STRANGER, &queue->wants[0]);
    answer(node, &queue->wants[0]);
    memmove(&queue->wants[0], &queue->wants[1],
            --queue->len * sizeof(queue->wants[0]));
}

/* All that have something to send get the same share of the link. */
static void tick(void)
{
    uint32_t senders = 0;

    now_ns += TICK_NS;
    for (uint64_t node = 1; node <= SOURCES_MAX; node++)
        senders += has_more(node);
    for (uint64_t node = 1; node <= SOURCES_MAX; node++)
        if (has_more(node))
            move(node, tick_bytes / senders);
}

/* --- what is made up ------------------------------------------------------ */

int __wrap_clock_gettime(clockid_t, struct timespec *);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
    (void)clock;
    ts->tv_sec = (time_t)(now_ns / 1000000000);
    ts->tv_nsec = (long)(now_ns % 1000000000);
    return 0;
}

int __wrap_tri_state_send(struct tri_runtime *, uint64_t,
                          const struct tri_state_head *, const void *,
                          enum tri_send_how);
int __wrap_tri_state_send(struct tri_runtime *of, uint64_t to,
                          const struct tri_state_head *head, const void *with,
                          enum tri_send_how how)
{
    struct queue *queue = &queues[to];

    (void)of;
    (void)with;
    (void)how;
    assert_true(to >= 1 && to <= SOURCES_MAX);
    asked[to]++;
    if (lost > 0) {
        lost--;
        return 0;
    }
    assert_true(queue->len < QUEUE_MAX);
    queue->wants[queue->len++] = *head;
    queued_most = (uint32_t)tri_max(queued_most, queue->len);
    return 0;
}

bool __wrap_tri_view_is_over(const struct troupe_group *);
bool __wrap_tri_view_is_over(const struct troupe_group *group)
{
    (void)group;
    return false;
}

bool __wrap_tri_seat_take(struct tri_runtime *, struct tri_seat *);
bool __wrap_tri_seat_take(struct tri_runtime *of, struct tri_seat *seat)
{
    (void)of;
    (void)seat;
    return true;
}

void __wrap_tri_seat_leave(struct tri_seat *);
void __wrap_tri_seat_leave(struct tri_seat *seat)
{
    (void)seat;
}

int __wrap_tri_wait(struct tri_seat *, bool (*)(void *), void *, uint64_t);
int __wrap_tri_wait(struct tri_seat *seat, bool (*done)(void *arg), void *arg,
                    uint64_t deadline_ns)
{
    (void)seat;
    do {
        tri_state_lock();
        tick();
        tri_state_unlock();
    } while (!done(arg) && now_ns < deadline_ns);
    return 0;
}

void __wrap_tri_wake_guest(struct tri_runtime *);
void __wrap_tri_wake_guest(struct tri_runtime *of)
{
    (void)of;
}

/* --- tests ---------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    memset(&training, 0, sizeof(training));
    memset(queues, 0, sizeof(queues));
    memset(asked, 0, sizeof(asked));
    memset(data, 0, sizeof(data));
    now_ns = 1000000000;
    queued_most = 0;
    tick_bytes = UINT64_MAX; /* a chunk of each */
    silent = 0;
    lost = 0;
    has_stranger = false;
    training.runtime = &runtime;
    training.states.len = 1;
    training.states.list[0] = (struct tri_state){
        .name = "weights",
        .data = data,
        .bytes = BYTES,
        .kind = TROUPE_REPLICATED,
    };
    training.states.replicated_bytes = BYTES;
    return 0;
}

/* How often was asked in all. */
static uint32_t fetch(uint32_t sources_len)
{
    uint64_t sources[SOURCES_MAX];
    uint32_t asked_len = 0;
    size_t wrong = 0;

    for (uint32_t i = 0; i < sources_len; i++)
        sources[i] = i + 1;
    assert_int_equal(tri_fetch_run(&training, sources, sources_len), 0);
    for (size_t i = 0; i < BYTES; i++)
        wrong += data[i] != byte_of(1, i);
    assert_int_equal(wrong, 0);
    assert_int_equal(training.stats.synced_bytes, BYTES);
    for (uint32_t i = 0; i <= SOURCES_MAX; i++)
        asked_len += asked[i];
    return asked_len;
}

static uint64_t bytes_of_tick(uint64_t bytes_s)
{
    return bytes_s / (1000000000 / TICK_NS);
}

static void test_of_members_alone(void **state)
{
    (void)state;
    has_stranger = true;
    assert_int_equal(fetch(2), CHUNKS);
    assert_true(asked[1] > 0 && asked[2] > 0);
}

/* Down to the slowest link that there is time for, and a tenth of that. */
static void test_a_slow_link_carries_nothing_twice(void **state)
{
    static const uint32_t lens[] = { 1, 2, 3, 8, SOURCES_MAX };

    for (size_t i = 0; i < tri_array_len(lens); i++)
        for (uint64_t bytes_s = 100000000; bytes_s >= 1000000; bytes_s /= 10) {
            setup(state);
            tick_bytes = bytes_of_tick(bytes_s);
            assert_int_equal(fetch(lens[i]), CHUNKS);
            assert_true(queued_most <= 4);
            assert_true(now_ns < (uint64_t)BYTES * 1100 / bytes_s * 1000000 +
                                     2000000000);
        }
}

static void test_who_says_nothing_is_replaced(void **state)
{
    uint64_t begun_ns;
    uint32_t asked_len;

    (void)state;
    tick_bytes = bytes_of_tick(1000000000);
    silent = 2;
    begun_ns = now_ns;
    asked_len = fetch(3);
    assert_int_equal(asked_len, CHUNKS + asked[2]);
    assert_true(asked[2] >= 1 && asked[2] <= 4);
    assert_true(now_ns - begun_ns < 1000 * TRI_NS_PER_MS);
}

/* Who is the only one is not asked for the same again and again. */
static void test_what_was_lost_is_asked_for_again(void **state)
{
    uint64_t begun_ns;

    (void)state;
    lost = 4;
    begun_ns = now_ns;
    assert_int_equal(fetch(1), CHUNKS + 4);
    assert_true(now_ns - begun_ns < 11000 * TRI_NS_PER_MS);
}

static void test_one_that_was_lost_of_two(void **state)
{
    uint64_t begun_ns;

    (void)state;
    lost = 1;
    begun_ns = now_ns;
    assert_int_equal(fetch(2), CHUNKS + 1);
    assert_true(now_ns - begun_ns < 1000 * TRI_NS_PER_MS);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_of_members_alone),
        TEST(test_a_slow_link_carries_nothing_twice),
        TEST(test_who_says_nothing_is_replaced),
        TEST(test_what_was_lost_is_asked_for_again),
        TEST(test_one_that_was_lost_of_two),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
