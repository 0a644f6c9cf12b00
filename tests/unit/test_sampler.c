/* SPDX-License-Identifier: BSD-3-Clause */
/* Which samples come when: each once an epoch, whatever happens to members. */
#include "unit.h"

#include "tensor/sampler.h"

static struct tri_sampler sampler_of(uint64_t samples, uint64_t batch,
                                     uint64_t seed, int last_batch)
{
    const troupe_training_options_t options = {
        .samples = samples,
        .batch = batch,
        .epochs = 3,
        .seed = seed,
        .last_batch = last_batch,
    };
    struct tri_sampler sampler;

    assert_int_equal(tri_sampler_init(&sampler, &options), 0);
    return sampler;
}

static void test_permutation(void **state)
{
    static const uint64_t sizes[] = { 1,  2,  3,   4,   5,    7,    16,
                                      17, 63, 255, 257, 1000, 4096, 5000 };

    (void)state;
    for (size_t i = 0; i < tri_array_len(sizes); i++) {
        const uint64_t n = sizes[i];
        unsigned char *seen = calloc(n, 1);

        for (uint64_t epoch = 0; epoch < 20; epoch++) {
            struct tri_sampler sampler = sampler_of(n, 1, n * 31 + 5, 0);

            memset(seen, 0, n);
            for (uint64_t place = 0; place < n; place++) {
                uint64_t x = tri_sampler_sample(&sampler, epoch, place);

                assert_true(x < n);
                assert_int_equal(seen[x]++, 0);
            }
        }
        free(seen);
    }
}

/* Whether each sample is about as often at each place, over many epochs; and
 * that seeds and epochs make a difference. */
static void test_shuffled(void **state)
{
    enum { N = 10, EPOCHS = 20000 };
    static uint32_t counts[N][N];
    struct tri_sampler sampler = sampler_of(N, 1, 42, 0);
    struct tri_sampler other = sampler_of(100000, 1, 1, 0);
    struct tri_sampler seeded = sampler_of(100000, 1, 2, 0);
    uint32_t same_epoch = 0, same_seed = 0;

    (void)state;
    for (uint64_t epoch = 0; epoch < EPOCHS; epoch++)
        for (uint64_t place = 0; place < N; place++)
            counts[place][tri_sampler_sample(&sampler, epoch, place)]++;
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++)
            assert_in_range(counts[i][j], EPOCHS / N * 85 / 100,
                            EPOCHS / N * 115 / 100);
    for (uint64_t i = 0; i < 1000; i++) {
        same_epoch += tri_sampler_sample(&other, 0, i) ==
                      tri_sampler_sample(&other, 1, i);
        same_seed += tri_sampler_sample(&other, 0, i) ==
                     tri_sampler_sample(&seeded, 0, i);
    }
    assert_true(same_epoch < 5 && same_seed < 5);
}

static void test_shares(void **state)
{
    struct tri_sampler sampler = sampler_of(1003, 100, 7, TROUPE_LAST_SHORT);
    struct tri_share share;

    (void)state;
    for (uint32_t members = 1; members <= 130; members++)
        for (uint64_t step = 0; step < 22; step++) {
            const uint64_t batch = step % 11 == 10 ? 3 : 100;
            uint64_t place = step % 11 * 100, sum = 0;
            double weights = 0;

            for (uint32_t i = 0; i < members; i++) {
                tri_sampler_share(&sampler, step, i, members, &share);
                assert_int_equal(share.epoch, step / 11);
                assert_int_equal(share.batch, batch);
                assert_int_equal(share.first, place);
                assert_in_range(share.samples, batch / members,
                                batch / members + 1);
                place += share.samples;
                sum += share.samples;
                weights += (double)share.samples / (double)share.batch;
            }
            assert_int_equal(sum, batch);
            assert_true(weights > 1 - 1e-12 && weights < 1 + 1e-12);
        }
}

static void test_last_batch(void **state)
{
    struct tri_sampler drop = sampler_of(1003, 100, 7, TROUPE_LAST_DROP);
    struct tri_sampler last = sampler_of(1003, 100, 7, TROUPE_LAST_SHORT);
    struct tri_sampler even = sampler_of(1000, 100, 7, TROUPE_LAST_SHORT);
    const troupe_training_options_t none = { .samples = 0, .epochs = 2 };
    struct tri_sampler free_running;

    (void)state;
    assert_false(tri_sampler_is_finished(&drop, 29));
    assert_true(tri_sampler_is_finished(&drop, 30));
    assert_false(tri_sampler_is_finished(&last, 32));
    assert_true(tri_sampler_is_finished(&last, 33));
    assert_true(tri_sampler_is_finished(&even, 30));
    assert_int_equal(tri_sampler_init(&free_running, &none), 0);
    assert_false(tri_sampler_is_finished(&free_running, UINT64_MAX));
}

static void test_refused(void **state)
{
    static const troupe_training_options_t bad[] = {
        { .samples = 10, .batch = 0 },
        { .samples = 10, .batch = 11, .last_batch = TROUPE_LAST_DROP },
        { .samples = 10, .batch = 1, .last_batch = 7 },
        { .samples = UINT64_MAX, .batch = 1 },
        { .samples = UINT64_MAX / 8, .batch = 1, .epochs = 100 },
    };
    struct tri_sampler sampler;

    (void)state;
    for (size_t i = 0; i < tri_array_len(bad); i++)
        assert_int_equal(tri_sampler_init(&sampler, &bad[i]), TROUPE_EINVAL);
}

/* Large numbers neither overflow nor leave the range. */
static void test_large(void **state)
{
    const uint64_t n = UINT64_MAX / 4;
    struct tri_sampler sampler = sampler_of(n, n / 3 - 1, 9, 1);
    struct tri_share share, next;

    (void)state;
    for (uint64_t i = 0; i < 1000; i++)
        assert_true(tri_sampler_sample(&sampler, i, n - 1 - i) < n);
    tri_sampler_share(&sampler, 2, UINT32_MAX - 2, UINT32_MAX, &share);
    tri_sampler_share(&sampler, 2, UINT32_MAX - 1, UINT32_MAX, &next);
    assert_int_equal(share.first + share.samples, next.first);
    assert_int_equal(next.first + next.samples, 3 * (n / 3 - 1));
}

/*
 * A training of three epochs, in which members die and come 100 times an epoch,
 * in the middle of steps as a rule, which are then aborted: each sample is
 * committed once an epoch.
 */
static void test_exactly_once(void **state)
{
    enum { N = 10007, BATCH = 37, EPOCHS = 3 };
    static unsigned char used[EPOCHS][N];
    struct tri_sampler sampler = sampler_of(N, BATCH, 3, TROUPE_LAST_SHORT);
    const uint64_t steps = (N + BATCH - 1) / BATCH;
    struct tri_random random;
    uint32_t members = 4, changes = 0;

    (void)state;
    tri_random_init(&random, unit_seed("exactly_once"));
    for (uint64_t step = 0; !tri_sampler_is_finished(&sampler, step);) {
        if (tri_random_below(&random, (uint32_t)steps) < 100) {
            members = 1 + tri_random_below(&random, 9);
            changes++;
            if (tri_random_below(&random, 4) > 0)
                continue; /* and the step is aborted */
        }
        for (uint32_t i = 0; i < members; i++) {
            struct tri_share share;

            tri_sampler_share(&sampler, step, i, members, &share);
            for (uint64_t s = 0; s < share.samples; s++) {
                uint64_t x = tri_sampler_sample(&sampler, share.epoch,
                                                share.first + s);

                assert_int_equal(used[share.epoch][x]++, 0);
            }
        }
        step++;
    }
    for (size_t epoch = 0; epoch < EPOCHS; epoch++)
        for (size_t x = 0; x < N; x++)
            assert_int_equal(used[epoch][x], 1);
    assert_true(changes > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutation), cmocka_unit_test(test_shuffled),
        cmocka_unit_test(test_shares),      cmocka_unit_test(test_last_batch),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_large),
        cmocka_unit_test(test_exactly_once),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
