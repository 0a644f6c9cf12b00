/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every rank tells and asks every rank, itself too, in small messages and
 * larger ones between them: all arrive, once, in the order sent.
 */
#include "test.h"

enum {
    TELLS = 600,       /* from each rank to each */
    ASKS = 50,
    LARGE_EVERY = 37,  /* one in so many has a tail ... */
    LARGE_STEP = 1777, /* ... of a multiple of this */
    RANKS_MAX = 64,
};

#define hub_messages(TELL, ASK)                                               \
    TELL(hub, small, (int32_t sender; int32_t number;))                       \
    TELL(hub, large, (int32_t sender; int32_t number; unsigned char b[];))    \
    ASK(hub, add, (int64_t a; int64_t b;), (int64_t sum;))                    \
    ASK(hub, wait_for, (int64_t messages;), (int64_t wrong;))
TROUPE_PROTOCOL(hub)

struct hub {
    int32_t next[RANKS_MAX];
    int64_t messages, wrong, wanted;
    troupe_token_t waiting;
};

static int answer_when_complete(troupe_self_t *self, struct hub *h)
{
    if (h->wanted == 0 || h->messages < h->wanted)
        return 0;
    h->wanted = 0;
    return hub_wait_for_reply_to(self, h->waiting,
                                 (hub_wait_for_result_t){ h->wrong });
}

static int count(troupe_self_t *self, struct hub *h, int32_t sender,
                 int32_t number)
{
    h->messages++;
    if (sender < 0 || sender >= RANKS_MAX ||
        troupe_rank_of(self, troupe_sender(self).node) != sender ||
        number != h->next[sender]) {
        fprintf(stderr, "rank %d: number %d of rank %d, not %d\n", test_rank,
                number, sender, h->next[sender]);
        h->wrong++;
    } else {
        h->next[sender]++;
    }
    return answer_when_complete(self, h);
}

static int on_small(troupe_self_t *self, struct hub *h, const hub_small_t *m)
{
    return count(self, h, m->sender, m->number);
}

static size_t large_bytes(int32_t number)
{
    return (size_t)number / LARGE_EVERY * LARGE_STEP;
}

static int on_large(troupe_self_t *self, struct hub *h, const hub_large_t *m)
{
    size_t bytes = troupe_tail_bytes(self);

    h->wrong += bytes != large_bytes(m->number);
    for (size_t i = 0; i < bytes; i++)
        if (m->b[i] != (unsigned char)(i * 7 + m->number)) {
            h->wrong++;
            break;
        }
    return count(self, h, m->sender, m->number);
}

static int on_add(troupe_self_t *self, struct hub *h, const hub_add_t *m)
{
    (void)h;
    return hub_add_reply(self, (hub_add_result_t){ m->a + m->b });
}

static int on_wait_for(troupe_self_t *self, struct hub *h,
                       const hub_wait_for_t *m)
{
    h->wanted = m->messages;
    h->waiting = troupe_reply_later(self);
    return answer_when_complete(self, h);
}

TROUPE_ACTOR(hub, struct hub, .small = on_small, .large = on_large,
             .add = on_add, .wait_for = on_wait_for)

static void tell(troupe_t *troupe, hub_ref_t to, int32_t number)
{
    hub_large_t *large;
    size_t bytes = large_bytes(number);

    if (number % LARGE_EVERY != 0) {
        MUST(hub_small(troupe, to, (hub_small_t){ test_rank, number }));
        return;
    }
    large = hub_large_new(troupe, bytes);
    if (!large)
        MUST(TROUPE_ENOMEM);
    large->sender = test_rank;
    large->number = number;
    for (size_t i = 0; i < bytes; i++)
        large->b[i] = (unsigned char)(i * 7 + number);
    MUST(hub_large_send(troupe, to, large));
}

int main(void)
{
    char address[TEST_ADDRESS_BYTES];
    hub_ref_t hubs[RANKS_MAX], mine;
    hub_add_result_t sum;
    hub_wait_for_result_t result;
    int size;
    troupe_t *troupe = test_start(&size, NULL);

    if (size > RANKS_MAX)
        MUST(TROUPE_ELIMIT);
    MUST(hub_spawn(troupe, "hub", NULL, &mine));
    for (int i = 0; i < size; i++)
        MUST(hub_resolve(troupe, test_address(address, i, "hub"), TEST_SOON_MS,
                         &hubs[i]));
    for (int number = 0; number < TELLS; number++)
        for (int i = 0; i < size; i++)
            tell(troupe, hubs[(test_rank + i) % size], number);
    for (int n = 0; n < ASKS; n++)
        for (int i = 0; i < size; i++) {
            MUST(hub_add(troupe, hubs[i], (hub_add_t){ n, i * 1000 },
                         TEST_SOON_MS, &sum));
            CHECK_EQ(sum.sum, n + i * 1000);
        }
    MUST(hub_wait_for(troupe, mine, (hub_wait_for_t){ (int64_t)size * TELLS },
                      TEST_SOON_MS, &result));
    CHECK_EQ(result.wrong, 0);
    CHECK_EQ(troupe_dead_letters_count(troupe), 0);
    return test_end(troupe);
}
