/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Agreement among many: how long it takes from the first news of a death until
 * all that live have the next view, and how many messages. The unchanged cores
 * on a virtual clock; a message costs its sender SEND_NS for each receiver, is
 * on its way for 50 to 100 us, and costs its receiver TAKE_NS; a node does one
 * thing at a time. Members of one host (HOST of them) hear of a death there
 * within a millisecond, with proof; the others from the agreement.
 */
#include "../unit/unit.h"

#include "group/agree_core.h"

#define NODES_MAX TRI_AGREE_MEMBERS_MAX
#define HOST 8u
#define SEND_NS 1000u
#define TAKE_NS 2000u
#define WAY_NS 50000u
#define MS 1000000ull
/* As src/group/view.c has it. */
#define ATTEMPT_NS (100 * MS)
#define SETTLE_NS (10 * MS)

struct packet {
    uint32_t refs;
    uint32_t bytes;
    unsigned char data[];
};

enum kind { LETTER, TICK, DEATH };

struct happening {
    uint64_t at_ns;
    uint64_t order; /* of equal times */
    enum kind kind;
    uint32_t node, from;
    struct packet *packet;
};

struct node {
    struct tri_agree *agree; /* NULL: dead */
    uint64_t busy_ns;
    uint64_t due_ns;         /* for which a tick is planned */
    uint64_t installed_ns;
    uint64_t messages;       /* sent and taken */
};

static struct {
    struct tri_random random;
    uint32_t len;
    struct node nodes[NODES_MAX];
    struct happening *heap;
    uint32_t heap_len, heap_max;
    uint64_t orders;
    uint64_t now_ns;
    uint64_t messages, bytes;
} world;

/* --- what happens when ---------------------------------------------------- */

static bool is_before(const struct happening *a, const struct happening *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void push(struct happening happening)
{
    uint32_t at = world.heap_len++;

    if (world.heap_len > world.heap_max) {
        world.heap_max = world.heap_max * 2 + 1024;
        world.heap = realloc(world.heap,
                             world.heap_max * sizeof(world.heap[0]));
        assert_non_null(world.heap);
    }
    happening.order = world.orders++;
    while (at > 0 && is_before(&happening, &world.heap[(at - 1) / 2])) {
        world.heap[at] = world.heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    world.heap[at] = happening;
}

static struct happening pop(void)
{
    struct happening first = world.heap[0];
    struct happening last = world.heap[--world.heap_len];
    uint32_t at = 0;

    for (uint32_t child = 1; child < world.heap_len; child = 2 * at + 1) {
        if (child + 1 < world.heap_len &&
            is_before(&world.heap[child + 1], &world.heap[child]))
            child++;
        if (!is_before(&world.heap[child], &last))
            break;
        world.heap[at] = world.heap[child];
        at = child;
    }
    world.heap[at] = last;
    return first;
}

/* --- nodes ---------------------------------------------------------------- */

static void post(uint32_t from, const struct tri_agree_send *send)
{
    struct node *node = &world.nodes[from];
    struct packet *packet = malloc(sizeof(*packet) + send->bytes);

    assert_non_null(packet);
    assert_true(send->to_len > 0);
    packet->refs = send->to_len;
    packet->bytes = (uint32_t)send->bytes;
    memcpy(packet->data, send->data, send->bytes);
    for (uint32_t i = 0; i < send->to_len; i++) {
        uint64_t way_ns = WAY_NS + tri_random_below(&world.random, WAY_NS);

        node->busy_ns += SEND_NS;
        push((struct happening){ .at_ns = node->busy_ns + way_ns,
                                 .kind = LETTER,
                                 .node = (uint32_t)send->to[i] - 1,
                                 .from = from,
                                 .packet = packet });
    }
    node->messages += send->to_len;
    world.messages += send->to_len;
    world.bytes += send->to_len * send->bytes;
}

static void step(uint32_t at, struct tri_agree_event event)
{
    struct node *node = &world.nodes[at];
    struct tri_agree_effects effects;
    uint64_t due_ns;

    event.now_ns = world.now_ns;
    tri_agree_step(node->agree, &event, &effects);
    for (uint32_t i = 0; i < effects.sends_len; i++)
        post(at, &effects.sends[i]);
    if (effects.installed)
        node->installed_ns = world.now_ns;
    due_ns = tri_agree_due_ns(node->agree);
    if (due_ns != UINT64_MAX && due_ns != node->due_ns)
        push((struct happening){ .at_ns = tri_max(due_ns, world.now_ns),
                                 .kind = TICK,
                                 .node = at });
    node->due_ns = due_ns;
}

static void forget(struct packet *packet)
{
    if (packet != NULL && --packet->refs == 0)
        free(packet);
}

/* In the order in which they come to the node, each when it has time. */
static void happen(const struct happening *happening)
{
    struct node *node = &world.nodes[happening->node];
    uint64_t begin_ns = tri_max(happening->at_ns, node->busy_ns);

    if (node->agree == NULL) {
        forget(happening->packet);
        return;
    }
    world.now_ns = node->busy_ns = begin_ns;
    if (happening->kind == LETTER) {
        node->busy_ns += TAKE_NS;
        node->messages++;
        step(happening->node,
             (struct tri_agree_event){ .kind = TRI_AGREE_MESSAGE,
                                       .node = happening->from + 1,
                                       .data = happening->packet->data,
                                       .bytes = happening->packet->bytes });
        forget(happening->packet);
    } else if (happening->kind == DEATH) {
        step(happening->node,
             (struct tri_agree_event){ .kind = TRI_AGREE_DEATH,
                                       .node = happening->from + 1,
                                       .proof = true });
    } else if (tri_agree_due_ns(node->agree) <= begin_ns) {
        node->due_ns = 0;
        step(happening->node,
             (struct tri_agree_event){ .kind = TRI_AGREE_TICK });
    }
}

/* --- a run ---------------------------------------------------------------- */

static void begin(uint64_t seed, uint32_t len)
{
    static uint64_t ids[NODES_MAX];
    struct tri_agree_config config = { .group = 7,
                                       .members_max = NODES_MAX,
                                       .proof = true,
                                       .attempt_ns = ATTEMPT_NS,
                                       .settle_ns = SETTLE_NS,
                                       .seed = seed };

    memset(&world, 0, sizeof(world));
    tri_random_init(&world.random, tri_mix64(seed));
    world.len = len;
    world.now_ns = MS;
    for (uint32_t i = 0; i < len; i++)
        ids[i] = i + 1;
    for (uint32_t i = 0; i < len; i++) {
        config.node = i + 1;
        assert_int_equal(tri_agree_create(&config, &world.nodes[i].agree), 0);
        assert_int_equal(tri_agree_begin(world.nodes[i].agree, ids, len), 0);
        step(i, (struct tri_agree_event){ .kind = TRI_AGREE_TICK });
    }
}

static void end(void)
{
    while (world.heap_len > 0)
        forget(world.heap[--world.heap_len].packet);
    free(world.heap);
    for (uint32_t i = 0; i < world.len; i++)
        if (world.nodes[i].agree != NULL)
            tri_agree_destroy(&world.nodes[i].agree);
}

/* It dies now; the others of its host hear of it. */
static void die(uint32_t at)
{
    uint32_t first = at / HOST * HOST;

    tri_agree_destroy(&world.nodes[at].agree);
    for (uint32_t i = first; i < first + HOST && i < world.len; i++)
        if (i != at)
            push((struct happening){
                .at_ns = world.now_ns + tri_random_below(&world.random, MS),
                .kind = DEATH,
                .node = i,
                .from = at });
}

/* All that live, in views of so many. */
static bool is_done(uint32_t members)
{
    for (uint32_t i = 0; i < world.len; i++)
        if (world.nodes[i].agree != NULL &&
            (tri_agree_view(world.nodes[i].agree)->len != members ||
             tri_agree_is_frozen(world.nodes[i].agree)))
            return false;
    return true;
}

/* Returns how many views there have been since. */
static uint32_t check_same(uint64_t since_epoch)
{
    const struct tri_agree_view *first = NULL;

    for (uint32_t i = 0; i < world.len; i++) {
        const struct tri_agree_view *view;

        if (world.nodes[i].agree == NULL)
            continue;
        view = tri_agree_view(world.nodes[i].agree);
        if (first == NULL)
            first = view;
        assert_int_equal(view->digest, first->digest);
        assert_int_equal(view->epoch, first->epoch);
    }
    assert_non_null(first);
    return (uint32_t)(first->epoch - since_epoch);
}

/* Deaths at once. Bounds: for each ballot five messages a member (and reports
 * of the hosts), five ways, and what the leader has to send and take. */
static void run(const char *what, uint32_t len, const uint32_t *dead,
                uint32_t deaths, uint32_t ballots)
{
    uint64_t start_ns = world.now_ns, most = 0, last_ns = 0, bound_ns;
    uint64_t epoch = tri_agree_view(world.nodes[dead[0]].agree)->epoch;
    uint32_t steps = 0, views;

    for (uint32_t i = 0; i < deaths; i++)
        die(dead[i]);
    while (!is_done(len - deaths)) {
        for (uint32_t i = 0; i < len && world.heap_len > 0; i++) {
            struct happening happening = pop();

            happen(&happening);
        }
        assert_true(++steps < 1000);
        assert_true(world.heap_len > 0);
    }
    views = check_same(epoch);
    for (uint32_t i = 0; i < len; i++)
        if (world.nodes[i].agree != NULL) {
            last_ns = tri_max(last_ns, world.nodes[i].installed_ns);
            most = tri_max(most, world.nodes[i].messages);
        }
    last_ns -= start_ns;
    bound_ns = MS + ballots * (5 * 2 * WAY_NS +
                               5ull * len * (SEND_NS + TAKE_NS));
    print_message("%-14s %4u members: %u views, %6.2f ms (bound %6.2f), %6llu "
                  "messages (%4.2f a member), %8llu bytes, leader %llu "
                  "messages\n",
                  what, len, views, (double)last_ns / 1e6,
                  (double)bound_ns / 1e6,
                  (unsigned long long)world.messages,
                  (double)world.messages / len,
                  (unsigned long long)world.bytes,
                  (unsigned long long)most);
    assert_true(views <= 2); /* what dies at once goes together */
    assert_true(last_ns <= bound_ns);
    assert_true(world.messages <=
                ballots * (5ull * len + 8 * deaths * HOST));
}

/* deaths 0: a tenth, on different hosts. */
static void run_all(const char *what, uint32_t first, uint32_t second,
                    uint32_t deaths, uint32_t ballots)
{
    static uint32_t dead[NODES_MAX / 10 + 1];
#if defined(TRI_SANITIZE_ADDRESS) || defined(TRI_SANITIZE_THREAD)
    static const uint32_t lens[] = { 64, 1024 };
#else
    static const uint32_t lens[] = { 64, 256, 1024, 2048 };
#endif
    uint64_t seed = unit_seed(what);

    for (size_t i = 0; i < tri_array_len(lens); i++) {
        uint32_t dead_len = deaths > 0 ? deaths : lens[i] / 10;

        for (uint32_t k = 2; k < dead_len; k++)
            dead[k] = 10 * k + 3;
        dead[0] = first;
        dead[1] = second;
        begin(seed, lens[i]);
        run(what, lens[i], dead, dead_len, ballots);
        end();
    }
}

static void test_one(void **state)
{
    (void)state;
    run_all("one dies", 42, 0, 1, 2);
}

static void test_leader(void **state)
{
    (void)state;
    run_all("leader dies", 0, 0, 1, 2);
}

/* On two hosts: the second is heard of within the first's ballot. */
static void test_two(void **state)
{
    (void)state;
    run_all("two die", 20, 42, 2, 3);
}

static void test_leader_and_next(void **state)
{
    (void)state;
    run_all("first two die", 0, 1, 2, 3);
}

/* The leader among them: one view or two for all of them. */
static void test_tenth(void **state)
{
    (void)state;
    run_all("a tenth die", 0, 13, 0, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_leader),
        cmocka_unit_test(test_two),
        cmocka_unit_test(test_leader_and_next),
        cmocka_unit_test(test_tenth),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
