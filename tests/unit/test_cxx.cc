/* SPDX-License-Identifier: BSD-3-Clause */
/* C++ programs include troupe.h and use a typed protocol. */
#include <cstdio>
#include <cstring>

#include <troupe.h>

#define counter_messages(TELL, ASK)                                           \
    TELL(counter, add, (int64_t by;))                                         \
    TELL(counter, reset, ())                                                  \
    ASK(counter, read, (), (int64_t value;))
TROUPE_PROTOCOL(counter)

struct counter {
    int64_t value;
};

static int on_add(troupe_self_t *, counter *c, const counter_add_t *m)
{
    c->value += m->by;
    return 0;
}

static int on_reset(troupe_self_t *, counter *c, const counter_reset_t *)
{
    c->value = 0;
    return 0;
}

static int on_read(troupe_self_t *self, counter *c, const counter_read_t *)
{
    counter_read_result_t result = { c->value };

    return counter_read_reply(self, result);
}

static int on_down(troupe_self_t *, counter *, const troupe_down_t *)
{
    return 0;
}

/* The handlers in their order: on_start, on_stop, on_undelivered, on_down,
 * on_member, on_name, messages. */
TROUPE_ACTOR(counter, struct counter, nullptr, nullptr, nullptr, on_down,
             nullptr, nullptr, on_add, on_reset, on_read)

static int run(troupe_t *troupe)
{
    counter_ref_t hits;
    counter_read_result_t total;
    int rc = counter_spawn(troupe, "hits", nullptr, &hits);

    for (int i = 1; rc == 0 && i <= 4; i++) {
        if (i == 3)
            rc = counter_reset(troupe, hits, counter_reset_t{});
        if (rc == 0)
            rc = counter_add(troupe, hits, counter_add_t{ i });
    }
    if (rc == 0)
        rc = counter_read(troupe, hits, counter_read_t{}, 5000, &total);
    if (rc == 0 && total.value != 3 + 4)
        std::printf("total %lld\n", static_cast<long long>(total.value));
    return rc == 0 && total.value != 3 + 4 ? TROUPE_EFAILED : rc;
}

int main()
{
    troupe_t *troupe;
    int rc = troupe_start(&troupe, nullptr);

    if (rc == 0) {
        rc = run(troupe);
        int stop = troupe_stop(&troupe);
        rc = rc != 0 ? rc : stop;
    }
    if (rc != 0)
        std::printf("test_cxx: %s\n", troupe_strerror(rc));
    return rc == 0 ? 0 : 1;
}
