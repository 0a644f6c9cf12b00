/* SPDX-License-Identifier: BSD-3-Clause */
/* Actors of one process, as a program uses them: the public API only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <troupe.h>

enum { SOON_MS = 10000, SHORT_MS = 50, BIG_BYTES = 6000 };

/* --- the actor that most tests use --------------------------------------- */

#define box_messages(TELL, ASK)                                               \
    TELL(box, put, (int64_t value;))                                          \
    ASK(box, sum, (), (int64_t sum; int64_t count;))                          \
    TELL(box, text, (uint32_t sum; unsigned char bytes[];))                   \
    ASK(box, texts, (uint32_t bytes_len;),                                    \
        (uint32_t right; unsigned char bytes[];))                             \
    TELL(box, resend, (box_ref_t to;))                                        \
    ASK(box, later, (box_ref_t by; int64_t value;), (int64_t value;))         \
    TELL(box, answer, (troupe_token_t token; int64_t value;))                 \
    ASK(box, pass, (box_ref_t to;), (troupe_ref_t sender; troupe_ref_t by;))  \
    ASK(box, refuse, (int32_t error;), (int32_t unused;))                     \
    ASK(box, silent, (), (int32_t unused;))                                   \
    ASK(box, crash, (int32_t error; int32_t depth;), (int32_t unused;))       \
    ASK(box, leave, (), (int64_t sum;))                                       \
    ASK(box, block, (), (int32_t error;))                                     \
    ASK(box, nobody_handles, (), (int32_t unused;))                           \
    TELL(box, big, (char bytes[BIG_BYTES];))
TROUPE_PROTOCOL(box)

struct box {
    int64_t sum, count;
    uint32_t right;
    const box_text_t *kept;
};

static atomic_long puts_seen;   /* by all boxes of a test */
static atomic_int stops_seen;   /* on_stop */
static atomic_int last_reason;  /* on_stop's */
static atomic_int last_undelivered;

static int on_put(troupe_self_t *self, struct box *b, const box_put_t *m)
{
    b->sum += m->value;
    b->count++;
    atomic_fetch_add(&puts_seen, 1);
    troupe_wake(self);
    return 0;
}

static int on_sum(troupe_self_t *self, struct box *b, const box_sum_t *m)
{
    (void)m;
    return box_sum_reply(self, (box_sum_result_t){ b->sum, b->count });
}

static int on_text(troupe_self_t *self, struct box *b, const box_text_t *m)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < troupe_tail_bytes(self); i++)
        sum += m->bytes[i];
    b->right += sum == m->sum;
    if (!b->kept)
        b->kept = troupe_keep(self);
    return 0;
}

static int on_resend(troupe_self_t *self, struct box *b, const box_resend_t *m)
{
    int rc = troupe_send(self, m->to.ref, (void *)b->kept);

    if (rc == 0)
        b->kept = NULL;
    return rc;
}

static int on_texts(troupe_self_t *self, struct box *b, const box_texts_t *m)
{
    box_texts_result_t *result = box_texts_result_new(self, m->bytes_len);

    if (!result)
        return troupe_reply_error(self, TROUPE_ENOMEM);
    result->right = b->right;
    memset(result->bytes, 7, m->bytes_len);
    return troupe_reply_send(self, result);
}

static int on_later(troupe_self_t *self, struct box *b, const box_later_t *m)
{
    troupe_token_t token = troupe_reply_later(self);
    box_answer_t answer = { .token = token, .value = m->value };

    (void)b;
    if (troupe_ref_is_none(m->by.ref))
        return 0; /* nobody will answer */
    return box_answer(self, m->by, answer);
}

static int on_answer(troupe_self_t *self, struct box *b, const box_answer_t *m)
{
    (void)b;
    return box_later_reply_to(self, m->token,
                              (box_later_result_t){ m->value });
}

static int on_pass(troupe_self_t *self, struct box *b, const box_pass_t *m)
{
    troupe_ref_t me = troupe_self_ref(self);

    (void)b;
    if (!troupe_ref_equal(m->to.ref, me))
        return box_forward(self, m->to);
    return box_pass_reply(self,
                          (box_pass_result_t){ troupe_sender(self), me });
}

static int on_refuse(troupe_self_t *self, struct box *b, const box_refuse_t *m)
{
    (void)b;
    return troupe_reply_error(self, m->error);
}

static int on_silent(troupe_self_t *self, struct box *b, const box_silent_t *m)
{
    (void)self, (void)b, (void)m;
    return 0;
}

static int fail_deep(troupe_self_t *self, int error, int depth)
{
    if (depth > 0)
        return fail_deep(self, error, depth - 1) + depth;
    if (error != 0)
        troupe_fail(self, error);
    return 0;
}

static int on_crash(troupe_self_t *self, struct box *b, const box_crash_t *m)
{
    (void)b;
    return m->depth > 0 ? fail_deep(self, m->error, m->depth) : m->error;
}

static int on_leave(troupe_self_t *self, struct box *b, const box_leave_t *m)
{
    (void)m;
    troupe_exit(self);
    return box_leave_reply(self, (box_leave_result_t){ b->sum });
}

static int on_block(troupe_self_t *self, struct box *b, const box_block_t *m)
{
    box_sum_result_t sum;
    int rc = box_sum(self, box_self(self), (box_sum_t){}, SOON_MS, &sum);

    (void)b, (void)m;
    return box_block_reply(self, (box_block_result_t){ rc });
}

static void on_stop(troupe_self_t *self, struct box *b, int reason)
{
    (void)self;
    troupe_drop(b->kept);
    atomic_store(&last_reason, reason);
    atomic_fetch_add(&stops_seen, 1);
    troupe_wake(self);
}

static int on_undelivered(troupe_self_t *self, struct box *b,
                          const troupe_dead_letter_t *letter)
{
    (void)b;
    atomic_store(&last_undelivered, letter->reason);
    troupe_wake(self);
    return 0;
}

TROUPE_ACTOR(box, struct box, .put = on_put, .sum = on_sum, .text = on_text,
             .texts = on_texts, .resend = on_resend, .later = on_later,
             .answer = on_answer, .pass = on_pass, .refuse = on_refuse,
             .silent = on_silent, .crash = on_crash, .leave = on_leave,
             .block = on_block, .on_stop = on_stop,
             .on_undelivered = on_undelivered)

/* --- helpers ------------------------------------------------------------- */

static troupe_options_t options_of(int workers)
{
    troupe_options_t options;

    troupe_options_init(&options);
    options.workers = workers;
    return options;
}

/* A test that failed has not stopped its node; the next one does it. */
static troupe_t *running;

static troupe_t *start_with(const troupe_options_t *options)
{
    troupe_t *troupe = NULL;

    if (running)
        troupe_stop(&running);
    atomic_store(&puts_seen, 0);
    atomic_store(&stops_seen, 0);
    atomic_store(&last_reason, 1);
    atomic_store(&last_undelivered, 0);
    assert_int_equal(troupe_start(&troupe, options), 0);
    assert_non_null(troupe);
    running = troupe;
    return troupe;
}

static troupe_t *start(int workers)
{
    troupe_options_t options = options_of(workers);

    return start_with(&options);
}

static void stop(troupe_t *troupe)
{
    running = NULL;
    assert_int_equal(troupe_stop(&troupe), 0);
    assert_null(troupe);
}

static box_ref_t spawn(troupe_t *troupe)
{
    box_ref_t ref;

    assert_int_equal(box_spawn(troupe, NULL, NULL, &ref), 0);
    return ref;
}

struct goal {
    atomic_long *counter;
    long value;
};

static int reached(void *arg)
{
    struct goal *goal = arg;

    return atomic_load(goal->counter) >= goal->value;
}

static void wait_puts(troupe_t *troupe, long value)
{
    struct goal goal = { &puts_seen, value };

    assert_int_equal(troupe_serve_until(troupe, reached, &goal, SOON_MS), 0);
}

static int is_nonzero(void *arg)
{
    return atomic_load((atomic_int *)arg) != 0;
}

static void wait_nonzero(troupe_t *troupe, atomic_int *value)
{
    assert_int_equal(troupe_serve_until(troupe, is_nonzero, value, SOON_MS),
                     0);
}

static int64_t sum_of(troupe_t *troupe, box_ref_t box)
{
    box_sum_result_t result;

    assert_int_equal(box_sum(troupe, box, (box_sum_t){}, SOON_MS, &result), 0);
    return result.sum;
}

static double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
}

/* --- messages ------------------------------------------------------------ */

static void test_tell_and_ask(void **state)
{
    int workers = *(int *)*state;
    troupe_t *troupe = start(workers);
    box_ref_t box = spawn(troupe);
    troupe_stats_t stats;
    struct box initial = { .sum = 40 };

    for (int i = 1; i <= 100; i++)
        assert_int_equal(box_put(troupe, box, (box_put_t){ i }), 0);
    assert_int_equal(sum_of(troupe, box), 5050);
    assert_int_equal(box_spawn(troupe, NULL, &initial, &box), 0);
    assert_int_equal(sum_of(troupe, box), 40);

    troupe_stats(troupe, &stats);
    assert_int_equal(stats.actors, 2);
    assert_int_equal(stats.workers, workers);
    assert_int_equal(troupe_rank(troupe), 0);
    assert_int_equal(troupe_size(troupe), 1);
    assert_int_equal(troupe_rank_of(troupe, box.ref.node), 0);
    assert_int_equal(troupe_rank_of(troupe, box.ref.node + 1), -1);
    assert_true(troupe_node_id(troupe) == box.ref.node);
    assert_int_equal(troupe_rank_alive(troupe, 0), 1);
    stop(troupe);
    assert_int_equal(atomic_load(&stops_seen), 2);
    assert_int_equal(atomic_load(&last_reason), 0);
}

static void test_reply_by_another(void **state)
{
    troupe_t *troupe = start(1);
    box_ref_t asked = spawn(troupe), answers = spawn(troupe);
    box_later_t m = { .by = answers, .value = 42 };
    box_later_result_t result;
    troupe_token_t nobody = { 0 };

    (void)state;
    assert_int_equal(box_later(troupe, asked, m, SOON_MS, &result), 0);
    assert_int_equal(result.value, 42);
    assert_int_equal(
        box_later_reply_to(troupe, nobody, (box_later_result_t){ 1 }),
        TROUPE_EINVAL);
    stop(troupe);
}

static void test_forward(void **state)
{
    troupe_t *troupe = start(1);
    box_ref_t first = spawn(troupe), second = spawn(troupe);
    box_pass_result_t result;

    (void)state;
    assert_int_equal(
        box_pass(troupe, first, (box_pass_t){ second }, SOON_MS, &result), 0);
    assert_true(troupe_ref_equal(result.by, second.ref));
    assert_true(result.sender.node == troupe_node_id(troupe));
    assert_int_equal(result.sender.slot, 0);
    stop(troupe);
}

static void test_program_error_travels(void **state)
{
    troupe_t *troupe = start(1);
    box_ref_t box = spawn(troupe);
    box_refuse_t m = { .error = TROUPE_E_USER - 7 };
    box_refuse_result_t result = { .unused = 99 };

    (void)state;
    assert_int_equal(box_refuse(troupe, box, m, SOON_MS, &result),
                     TROUPE_E_USER - 7);
    assert_int_equal(result.unused, 99); /* written on success only */
    assert_int_equal(sum_of(troupe, box), 0);
    stop(troupe);
}

static void test_no_reply(void **state)
{
    troupe_t *troupe = start(1);
    box_ref_t box = spawn(troupe);

    (void)state;
    assert_int_equal(box_silent(troupe, box, (box_silent_t){}, SOON_MS, NULL),
                     TROUPE_ENOREPLY);
    stop(troupe);
}

static void test_deadline(void **state)
{
    troupe_t *troupe = start(1);
    box_ref_t box = spawn(troupe);
    box_later_t never = { .value = 1 };
    double begin = now_ms();

    (void)state;
    assert_int_equal(box_later(troupe, box, never, SHORT_MS, NULL),
                     TROUPE_ETIMEDOUT);
    assert_true(now_ms() - begin >= SHORT_MS - 1);
    assert_int_equal(box_later(troupe, box, never, -1, NULL), TROUPE_EINVAL);
    assert_int_equal(sum_of(troupe, box), 0);
    stop(troupe);
}

static void test_blocking_ask_in_handler(void **state)
{
    troupe_t *troupe = start(1);
    box_ref_t box = spawn(troupe);
    box_block_result_t result;

    (void)state;
    assert_int_equal(
        box_block(troupe, box, (box_block_t){}, SOON_MS, &result), 0);
    assert_int_equal(result.error, TROUPE_ECONTEXT);
    stop(troupe);
}

/* --- variable-length parts ----------------------------------------------- */

static box_text_t *text_of(troupe_t *troupe, size_t bytes)
{
    box_text_t *text = box_text_new(troupe, bytes);

    assert_non_null(text);
    assert_int_equal(troupe_message_tail_bytes(text), bytes);
    assert_int_equal(text->sum, 0);
    for (size_t i = 0; i < bytes; i++) {
        text->bytes[i] = (unsigned char)i;
        text->sum += text->bytes[i];
    }
    return text;
}

static void test_tails(void **state)
{
    static const size_t sizes[] = { 0, 1, 63, 1000, 5000, 70000, 3000000 };
    size_t sizes_len = sizeof(sizes) / sizeof(sizes[0]);
    troupe_t *troupe = start(1);
    box_ref_t first = spawn(troupe), second = spawn(troupe);
    const box_texts_result_t *result = NULL;

    (void)state;
    for (size_t i = 0; i < sizes_len; i++) {
        box_text_t *text = text_of(troupe, sizes[i]);

        assert_int_equal(box_text_send(troupe, first, text), 0);
    }
    /* The first one that `first` got was kept; it goes on to `second`. */
    assert_int_equal(box_resend(troupe, first, (box_resend_t){ second }), 0);
    for (size_t i = 0; i < sizes_len; i++) {
        box_texts_t ask = { .bytes_len = (uint32_t)sizes[i] };

        assert_int_equal(
            box_texts_take(troupe, first, ask, SOON_MS, &result), 0);
        assert_int_equal(result->right, sizes_len);
        assert_int_equal(troupe_message_tail_bytes(result), sizes[i]);
        for (size_t j = 0; j < sizes[i]; j++)
            if (result->bytes[j] != 7)
                fail_msg("byte %zu of %zu is wrong", j, sizes[i]);
        troupe_drop(result);
    }
    assert_int_equal(
        box_texts_take(troupe, second, (box_texts_t){ 0 }, SOON_MS, &result),
        0);
    assert_int_equal(result->right, 1);
    troupe_drop(result);
    troupe_drop(text_of(troupe, 100)); /* made, never sent */
    troupe_drop(NULL);
    stop(troupe);
}

static void test_too_big(void **state)
{
    troupe_options_t options = options_of(1);
    troupe_t *troupe;
    box_ref_t box;
    box_texts_result_t result;
    static box_big_t big;

    (void)state;
    options.message_bytes_max = 4096;
    troupe = start_with(&options);
    box = spawn(troupe);
    assert_int_equal(box_big(troupe, box, big), TROUPE_ETOOBIG);
    assert_null(box_text_new(troupe, BIG_BYTES));
    assert_null(box_put_new(troupe, 1)); /* has no variable part */
    /* The callee cannot build it, and says so. */
    assert_int_equal(box_texts(troupe, box, (box_texts_t){ BIG_BYTES },
                               SOON_MS, &result),
                     TROUPE_ENOMEM);
    assert_int_equal(sum_of(troupe, box), 0);
    stop(troupe);
}

/* --- who is not there, who does not understand ---------------------------- */

static void test_unknown_refs(void **state)
{
    troupe_t *troupe = start(1);
    box_ref_t unknown = spawn(troupe), nobody = { { 0, 0, 0 } };
    box_put_t put = { 1 };

    (void)state;
    unknown.ref.generation++;
    assert_int_equal(box_put(troupe, unknown, put), TROUPE_ENOACTOR);
    unknown.ref.slot = UINT32_MAX;
    assert_int_equal(box_put(troupe, unknown, put), TROUPE_ENOACTOR);
    assert_int_equal(box_sum(troupe, unknown, (box_sum_t){}, SOON_MS, NULL),
                     TROUPE_ENOACTOR);
    unknown.ref.node++;
    assert_int_equal(box_put(troupe, unknown, put), TROUPE_ENODE);
    assert_int_not_equal(box_put(troupe, nobody, put), 0);
    stop(troupe);
}

/* workers = 0: nothing runs before this thread serves, so we know what is
 * queued behind what. */
static void test_stopped_actor(void **state)
{
    troupe_t *troupe = start(0);
    box_ref_t box = spawn(troupe);
    troupe_dead_letter_t letter;
    int rc;

    (void)state;
    assert_int_equal(box_put(troupe, box, (box_put_t){ 1 }), 0);
    assert_int_equal(troupe_stop_actor(troupe, box.ref), 0);
    rc = box_put(troupe, box, (box_put_t){ 2 });
    wait_nonzero(troupe, &stops_seen);
    assert_int_equal(atomic_load(&puts_seen), 1);
    assert_int_equal(atomic_load(&last_reason), 0);
    if (rc == 0) { /* it was let in, and came too late */
        assert_int_equal(troupe_dead_letters_count(troupe), 1);
        assert_int_equal(troupe_dead_letters_take(troupe, &letter, 1), 1);
        assert_int_equal(letter.reason, TROUPE_ENOACTOR);
        assert_int_equal(letter.is_ask, 0);
        assert_true(troupe_ref_equal(letter.to, box.ref));
    } else {
        assert_int_equal(rc, TROUPE_ENOACTOR);
    }
    assert_int_equal(box_put(troupe, box, (box_put_t){ 3 }),
                     TROUPE_ENOACTOR);
    assert_int_equal(box_sum(troupe, box, (box_sum_t){}, SOON_MS, NULL),
                     TROUPE_ENOACTOR);
    assert_int_equal(troupe_stop_actor(troupe, box.ref), TROUPE_ENOACTOR);
    stop(troupe);
}

/* What another program, built from another declaration, would send. */
static troupe_type_t other_put = {
    "box.put", "(int32_t value;)", NULL, sizeof(int32_t), 0, 0, 0, 0,
};
static troupe_type_t other_sum = {
    "box.sum", "()", "(double sum;)", 0, sizeof(double), 0, 1, 0,
};
static troupe_type_t other_types[] = {
    { "box.put", "(int32_t value;)", NULL, sizeof(int32_t), 0, 0, 0, 0 },
};
static troupe_protocol_t other_box = { "box", other_types, 1, 0 };

static void test_wrong_type(void **state)
{
    troupe_t *troupe = start(0);
    box_ref_t box = spawn(troupe);
    int32_t value = 1;
    double sum;
    troupe_dead_letter_t letter;
    int rc = troupe_tell(troupe, box.ref, &other_put, &value, sizeof(value));

    (void)state;
    if (rc == 0) {
        assert_int_equal(sum_of(troupe, box), 0);
        assert_int_equal(troupe_dead_letters_take(troupe, &letter, 1), 1);
        assert_int_equal(letter.reason, TROUPE_ETYPE);
    } else {
        assert_int_equal(rc, TROUPE_ETYPE);
    }
    assert_int_equal(
        troupe_ask(troupe, box.ref, &other_sum, NULL, 0, SOON_MS, &sum),
        TROUPE_ETYPE);
    assert_int_equal(box_nobody_handles(troupe, box, (box_nobody_handles_t){},
                                        SOON_MS, NULL),
                     TROUPE_ETYPE);
    assert_int_equal(sum_of(troupe, box), 0); /* the actor goes on */
    stop(troupe);
}

static void test_names(void **state)
{
    troupe_t *troupe = start(1);
    box_ref_t box, found;

    (void)state;
    assert_int_equal(box_spawn(troupe, "a/box_1", NULL, &box), 0);
    assert_int_equal(box_spawn(troupe, "a/box_1", NULL, &found),
                     TROUPE_EEXIST);
    assert_int_equal(box_spawn(troupe, "a box", NULL, &found), TROUPE_EINVAL);
    assert_int_equal(
        box_resolve(troupe, "actor://localhost/a/box_1", SOON_MS, &found), 0);
    assert_true(troupe_ref_equal(found.ref, box.ref));
    assert_int_equal(
        box_resolve(troupe, "actor://rank.0/a/box_1", SOON_MS, &found), 0);
    assert_true(troupe_ref_equal(found.ref, box.ref));
    assert_int_equal(
        box_resolve(troupe, "actor://rank.0/absent", SHORT_MS, &found),
        TROUPE_ENONAME);
    assert_int_equal(
        box_resolve(troupe, "actor://rank.1/box", SHORT_MS, &found),
        TROUPE_ENODE);
    assert_int_equal(box_resolve(troupe, "box", SHORT_MS, &found),
                     TROUPE_EADDRESS);
    assert_int_equal(box_resolve(troupe, "actor://rank.x/b", SHORT_MS, &found),
                     TROUPE_EADDRESS);
    assert_int_equal(troupe_resolve(troupe, "actor://rank.0/a/box_1",
                                    &other_box, SOON_MS, &found.ref),
                     TROUPE_ETYPE);
    assert_int_equal(troupe_resolve(troupe, "actor://rank.0/a/box_1", NULL,
                                    SOON_MS, &found.ref),
                     0);
    /* Who stops gives the name back. */
    assert_int_equal(box_leave(troupe, box, (box_leave_t){}, SOON_MS, NULL),
                     0);
    wait_nonzero(troupe, &stops_seen);
    assert_int_equal(box_spawn(troupe, "a/box_1", NULL, &box), 0);
    stop(troupe);
}

/* --- limits -------------------------------------------------------------- */

static void test_full_mailbox(void **state)
{
    troupe_t *troupe = start(0);
    troupe_spawn_options_t small = { .mailbox_len_max = 16,
                                       .overflow = TROUPE_FAIL };
    box_ref_t box;
    int64_t accepted = 0, sum = 0;
    int refused = 0;

    (void)state;
    assert_int_equal(box_spawn_with(troupe, &small, NULL, &box), 0);
    for (int round = 0; round < 20; round++) {
        for (int i = 1; i <= 40; i++) {
            int rc = box_put(troupe, box, (box_put_t){ i });

            if (rc == 0) {
                accepted++;
                sum += i;
            } else {
                assert_int_equal(rc, TROUPE_EFULL);
                refused++;
            }
        }
        wait_puts(troupe, accepted); /* and so there is room again */
    }
    assert_int_equal(accepted, 20 * 16);
    assert_int_equal(refused, 20 * 24);
    assert_int_equal(sum_of(troupe, box), sum);
    assert_int_equal(atomic_load(&puts_seen), accepted);
    stop(troupe);
}

static void test_exhausted_memory(void **state)
{
    enum { TEXT_BYTES = 100000, TRIES = 1000 };
    troupe_options_t options = options_of(0);
    troupe_t *troupe;
    box_ref_t box;
    uint32_t sent = 0;
    const box_texts_result_t *result = NULL;

    (void)state;
    options.memory_bytes_max = 8 << 20;
    options.message_bytes_max = 1 << 20;
    troupe = start_with(&options);
    box = spawn(troupe);
    for (int round = 0; round < 3; round++) {
        box_text_t *text;
        int i = 0;

        for (; i < TRIES; i++) {
            text = box_text_new(troupe, TEXT_BYTES);
            if (!text)
                break;
            memset(text->bytes, 0, TEXT_BYTES);
            assert_int_equal(box_text_send(troupe, box, text), 0);
            sent++;
        }
        assert_in_range(i, 10, TRIES - 1);
        /* Draining gives it back. */
        while (troupe_serve(troupe, 0) == 0 &&
               (text = box_text_new(troupe, 4 * TEXT_BYTES)) == NULL)
            ;
        troupe_drop(text);
    }
    assert_int_equal(
        box_texts_take(troupe, box, (box_texts_t){ 0 }, SOON_MS, &result), 0);
    assert_int_equal(result->right, sent);
    troupe_drop(result);
    stop(troupe);
}

static void test_actors_max(void **state)
{
    troupe_options_t options = options_of(1);
    troupe_t *troupe;
    box_ref_t boxes[11];
    int rc = 0, spawned = 0;

    (void)state;
    options.actors_max = 10;
    troupe = start_with(&options);
    while (spawned < 11 &&
           (rc = box_spawn(troupe, NULL, NULL, &boxes[spawned])) == 0)
        spawned++;
    assert_int_equal(spawned, 10);
    assert_int_equal(rc, TROUPE_ELIMIT);
    assert_int_equal(
        box_leave(troupe, boxes[3], (box_leave_t){}, SOON_MS, NULL), 0);
    wait_nonzero(troupe, &stops_seen);
    /* its place is free a moment after on_stop */
    while ((rc = box_spawn(troupe, NULL, NULL, &boxes[3])) == TROUPE_ELIMIT)
        troupe_serve(troupe, 1);
    assert_int_equal(rc, 0);
    stop(troupe);
}

/* What addresses can name, and nothing else. */
static void test_node_name(void **state)
{
    static const char *const good[] = { "a", "Box-7_b.site", "rank", "0x12",
                                        "123456789abcdef",
                                        "123456789abcdef01" };
    static const char *const bad[] = { "",        "a b",    "a/b",
                                       "a@b",     "\xc3\xa4", "localhost",
                                       "rank.3",  "rank.x", "rank.",
                                       "0123456789abcDEF" };
    char longest[TROUPE_MEMBER_NAME_MAX + 2];
    troupe_options_t options = options_of(0);
    troupe_member_t member;
    troupe_t *troupe = NULL;

    (void)state;
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    options.node_name = longest;
    assert_int_equal(troupe_start(&troupe, &options), TROUPE_EOPTION);
    longest[TROUPE_MEMBER_NAME_MAX] = '\0';
    assert_int_equal(troupe_start(&troupe, &options), 0);
    assert_int_equal(troupe_member_find(troupe, longest, &member), 0);
    stop(troupe);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        options.node_name = bad[i];
        assert_int_equal(troupe_start(&troupe, &options), TROUPE_EOPTION);
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        options.node_name = good[i];
        assert_int_equal(troupe_start(&troupe, &options), 0);
        assert_int_equal(troupe_member_find(troupe, good[i], &member), 0);
        stop(troupe);
    }
}

static void test_options(void **state)
{
    troupe_options_t options = options_of(-5);
    troupe_t *troupe = NULL, *second = NULL;
    char *text = NULL;
    size_t text_bytes = 0;
    FILE *stream = open_memstream(&text, &text_bytes);

    (void)state;
    assert_int_equal(troupe_start(&troupe, &options), TROUPE_EOPTION);
    assert_null(troupe);
    options = options_of(1);
    options.transport = "smoke signals";
    if (getenv("TROUPE_TRANSPORT") == NULL) /* else that one wins */
        assert_int_equal(troupe_start(&troupe, &options), TROUPE_EOPTION);
    options = options_of(1);
    options.mailbox_len_max = 70000;
    assert_int_equal(troupe_start(&troupe, &options), TROUPE_EOPTION);
    setenv("TROUPE_WORKERS", "many", 1);
    assert_int_equal(troupe_start(&troupe, NULL), TROUPE_EOPTION);
    setenv("TROUPE_WORKERS", "2", 1);
    troupe = start(1); /* the environment wins */
    unsetenv("TROUPE_WORKERS");
    troupe_stats_t stats;
    troupe_stats(troupe, &stats);
    assert_int_equal(stats.workers, 2);
    assert_int_equal(troupe_start(&second, NULL), TROUPE_EINVAL);
    stop(troupe);

    assert_non_null(stream);
    troupe_options_help(stream);
    fclose(stream);
    assert_non_null(strstr(text, "TROUPE_WORKERS"));
    assert_non_null(strstr(text, "TROUPE_MAILBOX_LEN_MAX"));
    assert_non_null(strstr(text, "TROUPE_TRANSPORT"));
    free(text);
    assert_non_null(strchr(troupe_version(), '.'));
}

/* --- failing, leaving ---------------------------------------------------- */

static void check_failure(troupe_t *troupe, box_crash_t how)
{
    box_ref_t fails = spawn(troupe), lives = spawn(troupe);

    atomic_store(&stops_seen, 0);
    assert_int_equal(box_crash(troupe, fails, how, SOON_MS, NULL),
                     TROUPE_EFAILED);
    wait_nonzero(troupe, &stops_seen);
    assert_int_equal(atomic_load(&stops_seen), 1);
    assert_int_equal(atomic_load(&last_reason), how.error);
    assert_int_equal(box_put(troupe, fails, (box_put_t){ 1 }),
                     TROUPE_ENOACTOR);
    assert_int_equal(sum_of(troupe, lives), 0);
}

static void test_failure(void **state)
{
    int workers = *(int *)*state;
    troupe_t *troupe = start(workers);

    check_failure(troupe, (box_crash_t){ TROUPE_E_USER - 1, 0 });
    check_failure(troupe, (box_crash_t){ TROUPE_EINVAL, 20 });
    stop(troupe);
}

static void test_exit(void **state)
{
    troupe_t *troupe = start(1);
    box_ref_t box = spawn(troupe);
    box_leave_result_t result;

    (void)state;
    assert_int_equal(box_put(troupe, box, (box_put_t){ 5 }), 0);
    assert_int_equal(
        box_leave(troupe, box, (box_leave_t){}, SOON_MS, &result), 0);
    assert_int_equal(result.sum, 5);
    wait_nonzero(troupe, &stops_seen);
    assert_int_equal(atomic_load(&last_reason), 0);
    assert_int_equal(box_put(troupe, box, (box_put_t){ 1 }),
                     TROUPE_ENOACTOR);
    stop(troupe);
}

/* --- an actor that asks --------------------------------------------------- */

#define caller_messages(TELL, ASK)                                            \
    ASK(caller, sum, (box_ref_t of;), (int32_t error; int64_t sum;))          \
    ASK(caller, wait, (box_ref_t on; int32_t timeout_ms;), (int32_t error;))  \
    ASK(caller, flood, (box_ref_t to; int32_t asks;), (int32_t error;))       \
    TELL(caller, vex, (box_ref_t victim;))
TROUPE_PROTOCOL(caller)

struct caller {
    troupe_token_t token;
    int outcomes;
};

static int then_sum(troupe_self_t *self, void *state, int error,
                    const box_sum_result_t *result, void *arg)
{
    struct caller *c = state;
    caller_sum_result_t answer = { .error = error };

    assert_ptr_equal(arg, &puts_seen);
    assert_true((error == 0) == (result != NULL));
    if (result)
        answer.sum = result->sum;
    c->outcomes++;
    return caller_sum_reply_to(self, c->token, answer);
}

static int caller_on_sum(troupe_self_t *self, struct caller *c,
                         const caller_sum_t *m)
{
    int rc = box_sum_then(self, m->of, (box_sum_t){}, SOON_MS, then_sum,
                          &puts_seen);

    if (rc != 0)
        return caller_sum_reply(self, (caller_sum_result_t){ .error = rc });
    c->token = troupe_reply_later(self);
    return 0;
}

static int then_wait(troupe_self_t *self, void *state, int error,
                     const box_later_result_t *result, void *arg)
{
    struct caller *c = state;

    (void)result, (void)arg;
    return caller_wait_reply_to(self, c->token,
                                (caller_wait_result_t){ error });
}

static int caller_on_wait(troupe_self_t *self, struct caller *c,
                          const caller_wait_t *m)
{
    int rc = box_later_then(self, m->on, (box_later_t){ .value = 1 },
                            m->timeout_ms, then_wait, NULL);

    if (rc != 0)
        return caller_wait_reply(self, (caller_wait_result_t){ rc });
    c->token = troupe_reply_later(self);
    return 0;
}

static int then_nothing(troupe_self_t *self, void *state, int error,
                        const box_later_result_t *result, void *arg)
{
    (void)self, (void)state, (void)error, (void)result, (void)arg;
    return 0;
}

static int caller_on_flood(troupe_self_t *self, struct caller *c,
                           const caller_flood_t *m)
{
    int rc = 0;

    (void)c;
    for (int i = 0; i < m->asks && rc == 0; i++)
        rc = box_later_then(self, m->to, (box_later_t){ .value = i }, SHORT_MS,
                            then_nothing, NULL);
    return caller_flood_reply(self, (caller_flood_result_t){ rc });
}

/* The victim has run neither message when this returns. */
static int caller_on_vex(troupe_self_t *self, struct caller *c,
                         const caller_vex_t *m)
{
    (void)c;
    troupe_stop_actor(self, m->victim.ref);
    box_put(self, m->victim, (box_put_t){ 1 });
    return 0;
}

static int caller_on_undelivered(troupe_self_t *self, struct caller *c,
                                 const troupe_dead_letter_t *letter)
{
    (void)c;
    atomic_store(&last_undelivered, letter->reason);
    troupe_wake(self);
    return 0;
}

TROUPE_ACTOR(caller, struct caller, .sum = caller_on_sum,
             .wait = caller_on_wait, .flood = caller_on_flood,
             .vex = caller_on_vex, .on_undelivered = caller_on_undelivered)

static void test_ask_then(void **state)
{
    int workers = *(int *)*state;
    troupe_t *troupe = start(workers);
    box_ref_t box = spawn(troupe);
    caller_ref_t caller;
    caller_sum_result_t sum;
    caller_wait_t wait = { box, SHORT_MS };
    caller_wait_result_t waited;

    assert_int_equal(caller_spawn(troupe, NULL, NULL, &caller), 0);
    assert_int_equal(box_put(troupe, box, (box_put_t){ 9 }), 0);
    assert_int_equal(
        caller_sum(troupe, caller, (caller_sum_t){ box }, SOON_MS, &sum), 0);
    assert_int_equal(sum.error, 0);
    assert_int_equal(sum.sum, 9);

    assert_int_equal(caller_wait(troupe, caller, wait, SOON_MS, &waited), 0);
    assert_int_equal(waited.error, TROUPE_ETIMEDOUT);

    assert_int_equal(box_leave(troupe, box, (box_leave_t){}, SOON_MS, NULL),
                     0);
    wait_nonzero(troupe, &stops_seen);
    assert_int_equal(
        caller_sum(troupe, caller, (caller_sum_t){ box }, SOON_MS, &sum), 0);
    assert_int_equal(sum.error, TROUPE_ENOACTOR);
    stop(troupe);
}

static void test_asks_max(void **state)
{
    troupe_options_t options = options_of(1);
    troupe_t *troupe;
    box_ref_t box;
    caller_ref_t caller;
    caller_flood_result_t result;

    (void)state;
    options.asks_max = 64;
    troupe = start_with(&options);
    box = spawn(troupe);
    assert_int_equal(caller_spawn(troupe, NULL, NULL, &caller), 0);
    assert_int_equal(caller_flood(troupe, caller, (caller_flood_t){ box, 100 },
                                  SOON_MS, &result),
                     0);
    assert_int_equal(result.error, TROUPE_ELIMIT);
    /* When those have timed out, there is room again. */
    do
        assert_int_equal(troupe_serve(troupe, SHORT_MS), 0);
    while (box_sum(troupe, box, (box_sum_t){}, SOON_MS, NULL) ==
           TROUPE_ELIMIT);
    assert_int_equal(sum_of(troupe, box), 0);
    stop(troupe);
}

static void test_undelivered(void **state)
{
    troupe_t *troupe = start(0);
    caller_ref_t caller;
    caller_vex_t vex = { spawn(troupe) };
    troupe_dead_letter_t letter;

    (void)state;
    assert_int_equal(caller_spawn(troupe, NULL, NULL, &caller), 0);
    assert_int_equal(caller_vex(troupe, caller, vex), 0);
    wait_nonzero(troupe, &last_undelivered);
    assert_int_equal(atomic_load(&last_undelivered), TROUPE_ENOACTOR);
    assert_int_equal(troupe_dead_letters_take(troupe, &letter, 1), 1);
    assert_true(troupe_ref_equal(letter.to, vex.victim.ref));
    assert_true(troupe_ref_equal(letter.sender, caller.ref));
    stop(troupe);
}

/* --- many ---------------------------------------------------------------- */

static void test_many_actors(void **state)
{
    enum { ACTORS = 100000 };
    troupe_options_t options = options_of(2);
    troupe_t *troupe;
    troupe_stats_t stats;
    box_ref_t *boxes = calloc(ACTORS, sizeof(*boxes));

    (void)state;
    assert_non_null(boxes);
    options.actors_max = ACTORS;
    troupe = start_with(&options);
    for (int i = 0; i < ACTORS; i++) {
        boxes[i] = spawn(troupe);
        assert_int_equal(box_put(troupe, boxes[i], (box_put_t){ i }), 0);
    }
    wait_puts(troupe, ACTORS);
    for (int i = 0; i < ACTORS; i += 9973)
        assert_int_equal(sum_of(troupe, boxes[i]), i);
    troupe_stats(troupe, &stats);
    assert_int_equal(stats.actors, ACTORS);
    stop(troupe);
    assert_int_equal(atomic_load(&stops_seen), ACTORS);
    free(boxes);
}

/* Senders race to receivers; each receiver counts what came out of order. */
enum { SENDERS = 8, RECEIVERS = 3, ITEMS = 20000, BURST = 50 };

#define line_messages(TELL, ASK)                                              \
    TELL(line, go, (int32_t sender; line_ref_t to[RECEIVERS];))               \
    TELL(line, item, (int32_t sender; int32_t number;))                       \
    ASK(line, wrong, (), (int64_t wrong; int64_t items;))
TROUPE_PROTOCOL(line)

struct line {
    line_go_t job; /* a sender's */
    int32_t sent[RECEIVERS];
    int32_t next[SENDERS]; /* a receiver's */
    int64_t wrong, items;
};

/* Sends bursts and comes back by a message to itself, so that senders and
 * receivers move between workers. A full mailbox is tried again. */
static int line_on_go(troupe_self_t *self, struct line *l, const line_go_t *m)
{
    int left = 0;

    for (int r = 0; r < RECEIVERS; r++) {
        for (int i = 0; i < BURST && l->sent[r] < ITEMS; i++) {
            line_item_t item = { m->sender, l->sent[r] };
            int rc = line_item(self, m->to[r], item);

            if (rc == TROUPE_EFULL)
                break;
            if (rc != 0)
                return rc;
            l->sent[r]++;
        }
        left += ITEMS - l->sent[r];
    }
    return left > 0 ? line_go(self, line_self(self), *m) : 0;
}

static int line_on_item(troupe_self_t *self, struct line *l,
                        const line_item_t *m)
{
    l->wrong += m->number != l->next[m->sender];
    l->next[m->sender] = m->number + 1;
    l->items++;
    atomic_fetch_add(&puts_seen, 1);
    if (m->number + 1 == ITEMS)
        troupe_wake(self);
    return 0;
}

static int line_on_wrong(troupe_self_t *self, struct line *l,
                         const line_wrong_t *m)
{
    (void)m;
    return line_wrong_reply(self, (line_wrong_result_t){ l->wrong, l->items });
}

TROUPE_ACTOR(line, struct line, .go = line_on_go, .item = line_on_item,
             .wrong = line_on_wrong)

static void test_order(void **state)
{
    int workers = *(int *)*state;
    troupe_t *troupe = start(workers);
    line_go_t go = { 0 };
    line_ref_t sender;
    line_wrong_result_t result;

    for (int r = 0; r < RECEIVERS; r++)
        assert_int_equal(line_spawn(troupe, NULL, NULL, &go.to[r]), 0);
    for (int s = 0; s < SENDERS; s++) {
        go.sender = s;
        assert_int_equal(line_spawn(troupe, NULL, NULL, &sender), 0);
        assert_int_equal(line_go(troupe, sender, go), 0);
    }
    struct goal goal = { &puts_seen, (long)SENDERS * RECEIVERS * ITEMS };
    assert_int_equal(troupe_serve_until(troupe, reached, &goal, 60000), 0);
    for (int r = 0; r < RECEIVERS; r++) {
        assert_int_equal(line_wrong(troupe, go.to[r], (line_wrong_t){},
                                    SOON_MS, &result),
                         0);
        assert_int_equal(result.wrong, 0);
        assert_int_equal(result.items, SENDERS * ITEMS);
    }
    stop(troupe);
}

/* --- serving and stopping ------------------------------------------------ */

static void test_no_workers(void **state)
{
    troupe_t *troupe = start(0);
    box_ref_t box = spawn(troupe);
    atomic_int never = 0;

    (void)state;
    assert_int_equal(box_put(troupe, box, (box_put_t){ 1 }), 0);
    usleep(20000); /* time enough for a thread that should not be there */
    assert_int_equal(atomic_load(&puts_seen), 0);
    assert_int_equal(troupe_serve(troupe, 0), 0);
    assert_int_equal(atomic_load(&puts_seen), 1);
    assert_int_equal(troupe_serve_until(troupe, is_nonzero, &never, SHORT_MS),
                     TROUPE_ETIMEDOUT);
    stop(troupe);
}

static void test_stop_delivers(void **state)
{
    int workers = *(int *)*state;
    troupe_t *troupe = start(workers);
    box_ref_t box = spawn(troupe);

    for (int i = 0; i < 500; i++)
        assert_int_equal(box_put(troupe, box, (box_put_t){ 1 }), 0);
    stop(troupe);
    assert_int_equal(atomic_load(&puts_seen), 500);
    assert_int_equal(atomic_load(&stops_seen), 1);
}

#define rock_messages(TELL, ASK) TELL(rock, sit, ())
TROUPE_PROTOCOL(rock)
struct rock {
    int unused;
};
static atomic_int rock_sits;

static int rock_on_sit(troupe_self_t *self, struct rock *r,
                       const rock_sit_t *m)
{
    (void)r, (void)m;
    atomic_store(&rock_sits, 1);
    troupe_wake(self);
    for (;;)
        pause();
    return 0;
}

TROUPE_ACTOR(rock, struct rock, .sit = rock_on_sit)

/* The default would be as late, or the machine stalled. */
enum { LATE = 5 };

/* 0: troupe_stop gave up in time and said so. */
static int stop_beside_rock(void)
{
    troupe_options_t options = options_of(1);
    troupe_t *troupe;
    rock_ref_t rock;
    double begin;

    options.stop_timeout_ms = 300;
    alarm(30);
    if (troupe_start(&troupe, &options) != 0 ||
        rock_spawn(troupe, NULL, NULL, &rock) != 0 ||
        rock_sit(troupe, rock, (rock_sit_t){}) != 0)
        return 1;
    /* The worker is to take it, not the thread that stops. */
    for (begin = now_ms(); !atomic_load(&rock_sits); usleep(1000))
        if (now_ms() - begin > SOON_MS)
            return 2;
    begin = now_ms();
    if (troupe_stop(&troupe) != TROUPE_ETIMEDOUT)
        return 3;
    if (troupe != NULL)
        return 4;
    return now_ms() - begin < 5000 ? 0 : LATE;
}

static void test_stop_gives_up(void **state)
{
    int status, tries = 3;

    (void)state;
    do {
        pid_t child = fork();

        if (child == 0)
            _exit(stop_beside_rock());
        assert_true(child > 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
    } while (WEXITSTATUS(status) == LATE && --tries > 0);
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- all of them --------------------------------------------------------- */

static int no_workers = 0, one_worker = 1, three_workers = 3;

#define WITH(test, workers) { #test " (" #workers ")", test, NULL, NULL, \
                              &workers }

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(test_tell_and_ask, no_workers),
        WITH(test_tell_and_ask, one_worker),
        WITH(test_tell_and_ask, three_workers),
        cmocka_unit_test(test_reply_by_another),
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_program_error_travels),
        cmocka_unit_test(test_no_reply),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_blocking_ask_in_handler),
        cmocka_unit_test(test_tails),
        cmocka_unit_test(test_too_big),
        cmocka_unit_test(test_unknown_refs),
        cmocka_unit_test(test_stopped_actor),
        cmocka_unit_test(test_wrong_type),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_full_mailbox),
        cmocka_unit_test(test_exhausted_memory),
        cmocka_unit_test(test_actors_max),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_node_name),
        WITH(test_failure, no_workers),
        WITH(test_failure, three_workers),
        cmocka_unit_test(test_exit),
        WITH(test_ask_then, no_workers),
        WITH(test_ask_then, three_workers),
        cmocka_unit_test(test_asks_max),
        cmocka_unit_test(test_undelivered),
        cmocka_unit_test(test_many_actors),
        WITH(test_order, no_workers),
        WITH(test_order, one_worker),
        WITH(test_order, three_workers),
        cmocka_unit_test(test_no_workers),
        WITH(test_stop_delivers, no_workers),
        WITH(test_stop_delivers, three_workers),
        cmocka_unit_test(test_stop_gives_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
