/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Registries of up to 256 nodes on a virtual clock: random registrations and
 * withdrawals, loss, delay, reordering, duplication, partitions that heal,
 * crashes and joins, of which each node learns at another time. A seed is a
 * run.
 *
 * Safety, again and again: what a node holds is what the owner wrote, as of the
 * version that the node has reached; (collected, version) never goes back;
 * nothing is held of a node known to be gone. When all is quiet: all hold what
 * the owners hold, and of each unique name there is one.
 */
#include "../unit/unit.h"

#include "name/registry_core.h"

enum {
    NODES_MAX = 256,
    NAMES = 12,        /* a node writes */
    OPS_MAX = 4096,    /* of a node */
    ENTRIES_MAX = 8192,
    MS = 1000000,
    NODE_BASE = 1000,
};

#define SECOND (1000ull * MS)

/* What an owner once wrote. */
struct op {
    uint64_t version;
    uint32_t slot; /* 0: withdrawn */
    char name[16];
};

struct reached {
    uint64_t collected, version;
};

struct sim;

struct node {
    struct sim *sim;
    uint32_t index;
    uint64_t id;
    struct tri_registry *registry;
    struct op *ops;
    uint32_t ops_len;
    uint32_t slots;
    bool is_dead;
    bool knows_dead[NODES_MAX];
    struct reached reached[NODES_MAX];
    uint64_t tick_ns; /* posted */
};

enum what { ARRIVE, TICK, LEARN_DEATH, LEARN_JOIN, WRITE, CRASH, JOIN, CHECK };

struct event {
    uint64_t at_ns, order;
    enum what what;
    uint32_t node, other;
    uint32_t bytes;
    unsigned char *body;
};

struct sim {
    uint64_t seed, now_ns, order;
    struct tri_random random;
    struct node nodes[NODES_MAX];
    uint32_t len;
    struct event *heap;
    uint32_t heap_len, heap_max;
    /* what happens */
    uint32_t loss, duplicates; /* of 1000 */
    uint32_t delay_us, late;   /* late: of 1000, a hundred times as long */
    uint64_t faults_until_ns;
    uint64_t partition_ns, heal_ns;
    uint32_t uniques; /* of 1000 */
    uint64_t tombstone_ns, digest_ns;
    uint32_t entries_max;
    uint64_t packets, bytes, lost, checks, removed;
    uint64_t wanted_slot;  /* figures: who has it */
    uint32_t wanted_seen;
};

static uint32_t below(struct sim *sim, uint32_t n)
{
    return tri_random_below(&sim->random, n);
}

static void broken(const struct node *node, const char *what)
{
    fail_msg("seed %llu, node %u, %.3f ms: %s",
             (unsigned long long)node->sim->seed, node->index,
             (double)node->sim->now_ns / MS, what);
}

/* --- events --------------------------------------------------------------- */

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->order < b->order);
}

static struct event *post(struct sim *sim, enum what what, uint32_t node,
                          uint64_t at_ns)
{
    struct event event = { .at_ns = at_ns,
                           .order = sim->order++,
                           .what = what,
                           .node = node };
    uint32_t i = sim->heap_len++;

    if (sim->heap_len > sim->heap_max) {
        sim->heap_max = sim->heap_max * 2 + 1024;
        sim->heap = realloc(sim->heap, sim->heap_max * sizeof(*sim->heap));
        assert_non_null(sim->heap);
    }
    while (i > 0 && is_before(&event, &sim->heap[(i - 1) / 2])) {
        sim->heap[i] = sim->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    sim->heap[i] = event;
    return &sim->heap[i]; /* until the next one */
}

static struct event take(struct sim *sim)
{
    struct event first = sim->heap[0];
    struct event last = sim->heap[--sim->heap_len];
    uint32_t i = 0;

    for (;;) {
        uint32_t child = 2 * i + 1;

        if (child >= sim->heap_len)
            break;
        if (child + 1 < sim->heap_len &&
            is_before(&sim->heap[child + 1], &sim->heap[child]))
            child++;
        if (!is_before(&sim->heap[child], &last))
            break;
        sim->heap[i] = sim->heap[child];
        i = child;
    }
    sim->heap[i] = last;
    return first;
}

/* --- the net -------------------------------------------------------------- */

static bool is_faulty(const struct sim *sim)
{
    return sim->now_ns < sim->faults_until_ns;
}

static bool is_cut(const struct sim *sim, uint32_t a, uint32_t b)
{
    return sim->now_ns >= sim->partition_ns && sim->now_ns < sim->heal_ns &&
           a % 2 != b % 2;
}

static void carry(struct sim *sim, uint32_t from, uint32_t to,
                  const void *body, size_t bytes)
{
    uint64_t delay_us = 20 + below(sim, sim->delay_us);
    struct event *event;
    unsigned char *copy;

    if (is_faulty(sim) && below(sim, 1000) < sim->late)
        delay_us *= 100;
    copy = malloc(bytes);
    assert_non_null(copy);
    memcpy(copy, body, bytes);
    event = post(sim, ARRIVE, to, sim->now_ns + delay_us * 1000);
    event->other = from;
    event->body = copy;
    event->bytes = (uint32_t)bytes;
}

static void on_send(void *context, uint64_t to, const void *body, size_t bytes)
{
    struct node *node = context;
    struct sim *sim = node->sim;
    uint32_t target = (uint32_t)(to % NODE_BASE);

    assert_true(bytes <= TRI_REGISTRY_BODY_MAX);
    sim->packets++;
    sim->bytes += bytes;
    if (sim->nodes[target].is_dead || is_cut(sim, node->index, target))
        return;
    if (is_faulty(sim) && below(sim, 1000) < sim->loss)
        return;
    carry(sim, node->index, target, body, bytes);
    if (is_faulty(sim) && below(sim, 1000) < sim->duplicates)
        carry(sim, node->index, target, body, bytes);
}

/* --- what has to be true -------------------------------------------------- */

/* Ids are spread over the digest's buckets, and tell the index. */
static uint64_t id_of(uint32_t index)
{
    uint64_t spread = tri_mix64(index + 1) >> 1;

    return spread - spread % NODE_BASE + NODE_BASE + index;
}

static struct node *owner_of(struct sim *sim,
                             const struct tri_registry_entry *entry)
{
    return &sim->nodes[entry->owner->node % NODE_BASE];
}

/* The last thing written about the entry's name, up to a version. */
static const struct op *last_op(const struct node *owner, const char *name,
                                uint64_t version)
{
    for (uint32_t i = owner->ops_len; i-- > 0;)
        if (owner->ops[i].version <= version &&
            strcmp(owner->ops[i].name, name) == 0)
            return &owner->ops[i];
    return NULL;
}

static void note(struct node *node, const char *name, uint32_t slot)
{
    struct op *op = &node->ops[node->ops_len++];

    assert_true(node->ops_len < OPS_MAX);
    op->version =
        tri_registry_owner_of(node->registry, node->id)->version;
    op->slot = slot;
    strcpy(op->name, name);
}

static void on_changed(void *context, enum tri_registry_what what,
                       const struct tri_registry_entry *entry)
{
    struct node *node = context;
    struct node *owner = owner_of(node->sim, entry);
    const struct op *op;

    if (what == TRI_REGISTRY_LOST) {
        /* its deletion takes the next version */
        struct op *lost = &node->ops[node->ops_len++];

        assert_true(owner == node && node->ops_len < OPS_MAX);
        lost->version = entry->owner->version + 1;
        lost->slot = 0;
        strcpy(lost->name, entry->name);
        node->sim->lost++;
        return;
    }
    node->sim->removed += what == TRI_REGISTRY_REMOVED;
    if (what != TRI_REGISTRY_ADDED || owner == node)
        return;
    if (node->knows_dead[owner->index])
        broken(node, "an entry of a dead node appeared");
    op = last_op(owner, entry->name, entry->version);
    if (op == NULL || op->version != entry->version || op->slot != entry->slot)
        broken(node, "an entry that the owner did not write");
    if (entry->slot == node->sim->wanted_slot)
        node->sim->wanted_seen++;
}

static void check_entry(struct node *node,
                        const struct tri_registry_entry *entry)
{
    struct node *owner = owner_of(node->sim, entry);
    const struct op *op;

    if (node->knows_dead[owner->index])
        broken(node, "an entry of a dead node is held");
    if (entry->stale)
        return;
    op = last_op(owner, entry->name, entry->owner->version);
    if (op == NULL || op->slot != entry->slot)
        broken(node, "an entry is not what the owner wrote last");
}

static void check(struct node *node)
{
    const struct tri_registry_entry *entry;
    uint32_t index = 0;

    node->sim->checks++;
    while ((entry = tri_registry_each(node->registry, &index)) != NULL)
        check_entry(node, entry);
    for (uint32_t i = 0; i < node->sim->len; i++) {
        const struct tri_registry_owner *owner = tri_registry_owner_of(
            node->registry, node->sim->nodes[i].id);
        struct reached *reached = &node->reached[i];

        if (owner == NULL)
            continue;
        if (owner->collected < reached->collected ||
            (owner->collected == reached->collected &&
             owner->version < reached->version))
            broken(node, "a version went back");
        *reached = (struct reached){ owner->collected, owner->version };
    }
}

/* What a living owner holds is what all hold, and all of it. */
static void check_equal(struct node *node)
{
    const struct tri_registry_entry *entry;
    uint32_t index = 0, held = 0, written = 0;

    check(node);
    while ((entry = tri_registry_each(node->registry, &index)) != NULL)
        held++;
    for (uint32_t i = 0; i < node->sim->len; i++) {
        struct node *owner = &node->sim->nodes[i];

        if (owner->is_dead || owner->registry == NULL)
            continue;
        index = 0;
        while ((entry = tri_registry_each(owner->registry, &index)) != NULL)
            written += entry->owner->node == owner->id;
        if (tri_registry_owner_of(node->registry, owner->id)->version !=
            tri_registry_owner_of(owner->registry, owner->id)->version)
            broken(node, "it has not reached a version");
    }
    if (held != written)
        broken(node, "it does not hold what the owners do");
}

static void check_unique(struct node *node)
{
    const struct tri_registry_entry *entry;
    uint32_t index = 0;

    while ((entry = tri_registry_each(node->registry, &index)) != NULL) {
        struct tri_registry_walk walk;
        uint32_t other = 0, holders = 0;
        const struct tri_registry_entry *at;

        tri_registry_first(node->registry, entry->name, entry->name_len,
                           &walk);
        if (!walk.is_unique)
            continue;
        while ((at = tri_registry_each(node->registry, &other)) != NULL)
            holders += strcmp(at->name, entry->name) == 0;
        if (holders != 1)
            broken(node, "a unique name has several holders");
    }
}

/* --- what happens --------------------------------------------------------- */

static void plan_tick(struct node *node)
{
    uint64_t due_ns = tri_registry_due_ns(node->registry);

    if (due_ns == UINT64_MAX)
        return;
    due_ns = tri_max(due_ns, node->sim->now_ns);
    if (node->tick_ns > node->sim->now_ns && node->tick_ns <= due_ns)
        return; /* one comes before */
    node->tick_ns = due_ns;
    post(node->sim, TICK, node->index, due_ns);
}

static void step(struct node *node, enum tri_registry_event_kind kind,
                 uint64_t other, const void *body, size_t bytes)
{
    struct tri_registry_event event = { .kind = kind,
                                        .now_ns = node->sim->now_ns,
                                        .node = other,
                                        .body = body,
                                        .body_bytes = bytes };
    const char *wrong = tri_registry_step(node->registry, &event);

    if (wrong != NULL)
        broken(node, wrong);
    plan_tick(node);
}

/* Names are common to several nodes now and then. */
static void some_name(struct node *node, char name[16])
{
    struct sim *sim = node->sim;

    if (below(sim, 3) == 0)
        snprintf(name, 16, "shared.%u", below(sim, 4));
    else
        snprintf(name, 16, "own/%u", below(sim, NAMES));
}

static void write_some(struct node *node)
{
    struct sim *sim = node->sim;
    const struct op *op;
    char name[16];
    uint32_t index = 0;
    const struct tri_registry_entry *entry, *mine = NULL;

    some_name(node, name);
    while ((entry = tri_registry_each(node->registry, &index)) != NULL)
        if (entry->owner->node == node->id && strcmp(entry->name, name) == 0)
            mine = entry;
    op = last_op(node, name, UINT64_MAX);
    if ((op != NULL && op->slot != 0) != (mine != NULL))
        broken(node, "a node's own entry is not as it was written");
    if (mine != NULL) {
        tri_registry_withdraw(node->registry, sim->now_ns, name, mine->slot,
                              1);
        note(node, name, 0);
    } else {
        struct tri_registry_claim claim = {
            .name = name,
            .slot = ++node->slots,
            .generation = 1,
            .tags = below(sim, 2) == 0 ? "a=b" : NULL,
            .unique = name[0] == 's' && below(sim, 1000) < sim->uniques,
        };
        int rc = tri_registry_add(node->registry, sim->now_ns, &claim);

        if (rc == 0)
            note(node, name, claim.slot);
        else if (rc != TROUPE_EEXIST)
            broken(node, "a registration failed");
    }
    plan_tick(node);
}

static void start_node(struct sim *sim, uint32_t index)
{
    struct node *node = &sim->nodes[index];
    struct tri_registry_config config;
    struct tri_registry_sink sink = { node, on_send, on_changed };

    node->sim = sim;
    node->index = index;
    node->id = id_of(index);
    tri_registry_config_init(&config);
    config.node = node->id;
    config.seed = sim->seed * NODE_BASE + index;
    config.owners_max = NODES_MAX;
    config.entries_max = sim->entries_max ? sim->entries_max : ENTRIES_MAX;
    if (sim->tombstone_ns != 0) {
        config.tombstone_ns = sim->tombstone_ns;
        config.tombstone_rumours = 0;
    }
    if (sim->digest_ns != 0)
        config.digest_ns = sim->digest_ns;
    node->ops = calloc(OPS_MAX, sizeof(*node->ops));
    assert_non_null(node->ops);
    assert_int_equal(tri_registry_create(&config, &sink, &node->registry), 0);
}

static void learn_join(struct node *node, struct node *other)
{
    if (!node->is_dead && node->registry != NULL &&
        !node->knows_dead[other->index])
        step(node, TRI_REGISTRY_JOINED, other->id, NULL, 0);
}

/* The joiner knows all at once; they learn of it at some time. */
static void join(struct sim *sim, uint32_t index)
{
    struct node *node = &sim->nodes[index];

    start_node(sim, index);
    for (uint32_t i = 0; i < sim->len; i++) {
        if (i == index || sim->nodes[i].registry == NULL ||
            sim->nodes[i].is_dead)
            continue;
        learn_join(node, &sim->nodes[i]);
        post(sim, LEARN_JOIN, i, sim->now_ns + below(sim, 300) * MS)->other =
            index;
    }
}

static void crash(struct sim *sim, uint32_t index)
{
    sim->nodes[index].is_dead = true;
    for (uint32_t i = 0; i < sim->len; i++)
        if (i != index)
            post(sim, LEARN_DEATH, i, sim->now_ns + below(sim, 2000) * MS)
                ->other = index;
}

static void learn_death(struct node *node, uint32_t other)
{
    if (node->is_dead || node->registry == NULL)
        return;
    node->knows_dead[other] = true;
    step(node, TRI_REGISTRY_GONE, node->sim->nodes[other].id, NULL, 0);
    check(node);
}

static void handle(struct sim *sim, const struct event *event)
{
    struct node *node = &sim->nodes[event->node];

    switch (event->what) {
    case JOIN:
        join(sim, event->node);
        return;
    case CRASH:
        if (node->registry != NULL && !node->is_dead)
            crash(sim, event->node);
        return;
    case LEARN_DEATH:
        learn_death(node, event->other);
        return;
    case LEARN_JOIN:
        learn_join(node, &sim->nodes[event->other]);
        return;
    default:
        break;
    }
    if (node->is_dead || node->registry == NULL)
        return;
    if (event->what == ARRIVE)
        step(node, TRI_REGISTRY_PACKET, sim->nodes[event->other].id,
             event->body, event->bytes);
    else if (event->what == WRITE)
        write_some(node);
    else if (event->what == CHECK)
        check(node);
    else if (tri_registry_due_ns(node->registry) <= sim->now_ns)
        step(node, TRI_REGISTRY_TICK, 0, NULL, 0);
    else
        plan_tick(node);
}

static void run_until(struct sim *sim, uint64_t until_ns)
{
    while (sim->heap_len > 0 && sim->heap[0].at_ns <= until_ns) {
        struct event event = take(sim);

        sim->now_ns = event.at_ns;
        handle(sim, &event);
        free(event.body);
    }
    sim->now_ns = until_ns;
}

static struct sim *start(uint64_t seed, uint32_t len, uint32_t joiners)
{
    struct sim *sim = calloc(1, sizeof(*sim));

    assert_non_null(sim);
    sim->seed = seed;
    sim->now_ns = SECOND;
    sim->len = len + joiners;
    sim->delay_us = 100;
    tri_random_init(&sim->random, tri_mix64(seed + 1));
    return sim;
}

static void begin(struct sim *sim, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        start_node(sim, i);
    for (uint32_t i = 0; i < len; i++)
        for (uint32_t j = 0; j < len; j++)
            if (j != i)
                learn_join(&sim->nodes[i], &sim->nodes[j]);
}

static void end(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->len; i++) {
        tri_registry_destroy(&sim->nodes[i].registry);
        free(sim->nodes[i].ops);
    }
    while (sim->heap_len > 0)
        free(take(sim).body);
    free(sim->heap);
    free(sim);
}

/* --- runs ----------------------------------------------------------------- */

static void check_quiet(struct sim *sim)
{
    struct node *first = NULL;

    for (uint32_t i = 0; i < sim->len; i++) {
        struct node *node = &sim->nodes[i];

        if (node->is_dead || node->registry == NULL)
            continue;
        if (first == NULL)
            first = node;
        check_equal(node);
        if (tri_registry_digest(node->registry) !=
            tri_registry_digest(first->registry))
            broken(node, "digests differ");
    }
    if (first != NULL)
        check_unique(first);
}

/* Something of everything. */
static void run_seed(uint64_t seed)
{
    uint64_t faults_ns = 3 * SECOND, quiet_ns;
    struct tri_random random;
    struct sim *sim;
    uint32_t len, joiners, writes;

    tri_random_init(&random, tri_mix64(seed));
    len = tri_random_below(&random, 10) == 0
              ? 2 + tri_random_below(&random, 60)
              : 2 + tri_random_below(&random, 12);
    joiners = tri_random_below(&random, 4);
    sim = start(seed, len, joiners);
    sim->loss = tri_random_below(&random, 4) * 80;
    sim->duplicates = tri_random_below(&random, 3) * 50;
    sim->late = tri_random_below(&random, 3) * 50;
    sim->uniques = tri_random_below(&random, 3) * 400;
    sim->faults_until_ns = sim->now_ns + faults_ns;
    /* so short that lists are taken anew */
    sim->tombstone_ns = tri_random_below(&random, 2)
                            ? (1 + below(sim, 500)) * (uint64_t)MS
                            : 0;
    sim->digest_ns = 5 * SECOND;
    if (tri_random_below(&random, 3) == 0) {
        sim->partition_ns = sim->now_ns + below(sim, 1000) * MS;
        sim->heal_ns = sim->partition_ns + below(sim, 9000) * MS;
    }
    quiet_ns = tri_max(sim->faults_until_ns, sim->heal_ns);
    begin(sim, len);
    writes = len * (5 + below(sim, 40));
    for (uint32_t i = 0; i < writes; i++)
        post(sim, WRITE, below(sim, sim->len),
             sim->now_ns + below(sim, 3000) * MS + below(sim, MS));
    for (uint32_t i = 0; i < 40; i++)
        post(sim, CHECK, below(sim, sim->len),
             sim->now_ns + below(sim, 12000) * MS);
    for (uint32_t i = 0; i < joiners; i++)
        post(sim, JOIN, len + i, sim->now_ns + below(sim, 3000) * MS);
    for (uint32_t i = below(sim, 3); i > 0; i--)
        post(sim, CRASH, below(sim, len), sim->now_ns + below(sim, 3000) * MS);
    run_until(sim, quiet_ns + 90 * SECOND);
    check_quiet(sim);
    end(sim);
}

static uint32_t runs_of(uint32_t usual)
{
    const char *text = getenv("TROUPE_TEST_SIM_RUNS");

    return text != NULL ? (uint32_t)strtoul(text, NULL, 0) : usual;
}

static void test_everything(void **state)
{
    uint64_t seed = unit_seed("test_everything");

    (void)state;
    if (getenv("TROUPE_TEST_SEED") != NULL) {
        run_seed(seed);
        return;
    }
    for (uint32_t i = runs_of(200); i > 0; i--)
        run_seed(seed++);
}

/* The same seed is the same run. */
static void test_replay(void **state)
{
    uint64_t packets[2], bytes[2];
    uint64_t seed = unit_seed("test_replay");

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sim *sim = start(seed, 16, 0);

        sim->loss = 100;
        sim->faults_until_ns = 5 * SECOND;
        begin(sim, 16);
        for (uint32_t n = 0; n < 200; n++)
            post(sim, WRITE, below(sim, 16),
                 sim->now_ns + below(sim, 2000) * MS);
        run_until(sim, 20 * SECOND);
        packets[i] = sim->packets;
        bytes[i] = sim->bytes;
        end(sim);
    }
    assert_true(packets[0] == packets[1] && bytes[0] == bytes[1]);
}

/* 256 nodes, some of each fault. */
static void test_many_nodes(void **state)
{
    struct sim *sim = start(unit_seed("test_many_nodes"), NODES_MAX - 8, 8);

    (void)state;
    sim->loss = 50;
    sim->duplicates = 20;
    sim->late = 20;
    sim->uniques = 500;
    sim->faults_until_ns = 4 * SECOND;
    begin(sim, NODES_MAX - 8);
    for (uint32_t i = 0; i < 600; i++)
        post(sim, WRITE, below(sim, NODES_MAX),
             sim->now_ns + below(sim, 3000) * MS);
    for (uint32_t i = 0; i < 8; i++) {
        post(sim, JOIN, NODES_MAX - 8 + i, sim->now_ns + below(sim, 3000) * MS);
        post(sim, CRASH, below(sim, 200), sim->now_ns + below(sim, 3000) * MS);
    }
    run_until(sim, 400 * SECOND);
    check_quiet(sim);
    end(sim);
}

/* --- figures -------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

enum { ROUNDS = 40 };

/* How long a registration takes to reach all; bound_ms: the slowest. */
static void converge(uint32_t len, uint32_t loss, double bound_ms)
{
    struct sim *sim = start(7 + len, len, 0);
    uint64_t took[ROUNDS], begun_ns, packets;

    sim->loss = loss;
    sim->faults_until_ns = UINT64_MAX;
    begin(sim, len);
    run_until(sim, 20 * SECOND); /* the first digests */
    packets = sim->packets;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t writer = below(sim, len);
        struct tri_registry_claim claim = { .slot = 1000 + round,
                                            .generation = 1 };
        char name[16];

        snprintf(name, sizeof(name), "round.%u", round);
        claim.name = name;
        sim->wanted_slot = claim.slot;
        sim->wanted_seen = 0;
        begun_ns = sim->now_ns;
        assert_int_equal(tri_registry_add(sim->nodes[writer].registry,
                                          sim->now_ns, &claim),
                         0);
        note(&sim->nodes[writer], name, claim.slot);
        plan_tick(&sim->nodes[writer]);
        while (sim->wanted_seen < len - 1) {
            struct event event = take(sim);

            sim->now_ns = event.at_ns;
            handle(sim, &event);
            free(event.body);
        }
        took[round] = sim->now_ns - begun_ns;
        run_until(sim, sim->now_ns + 3 * SECOND);
    }
    qsort(took, ROUNDS, sizeof(*took), by_size);
    printf("%6u %5.1f %% %9.2f %9.2f %9.2f %9.1f\n", len, loss / 10.0,
           (double)took[ROUNDS / 2] / MS, (double)took[ROUNDS - 2] / MS,
           (double)took[ROUNDS - 1] / MS,
           (double)(sim->packets - packets) / ROUNDS / len);
    fflush(stdout);
    assert_true((double)took[ROUNDS - 1] / MS <= bound_ms);
    end(sim);
}

static void test_convergence(void **state)
{
    (void)state;
    printf(" nodes    loss    p50 ms    p98 ms    max ms  packets/node\n");
    converge(2, 0, 1);
    converge(8, 0, 10);
    converge(64, 0, 20);
    converge(256, 0, 50);
    converge(8, 50, 20);
    converge(64, 50, 50);
    converge(256, 50, 100);
}

/* A node that comes with many names, and one that comes to many. */
static void test_bulk(void **state)
{
    struct sim *sim = start(unit_seed("test_bulk"), 8, 1);
    uint64_t begun_ns;
    char name[32];

    (void)state;
    begin(sim, 8);
    run_until(sim, sim->now_ns + 20 * SECOND);
    for (uint32_t i = 0; i < 2000; i++) {
        struct tri_registry_claim claim = { .name = name,
                                            .slot = i + 1,
                                            .generation = 1 };

        snprintf(name, 16, "bulk/%u", i);
        assert_int_equal(
            tri_registry_add(sim->nodes[3].registry, sim->now_ns, &claim), 0);
        note(&sim->nodes[3], name, claim.slot);
    }
    plan_tick(&sim->nodes[3]);
    begun_ns = sim->now_ns;
    while (tri_registry_len(sim->nodes[7].registry) < 2000 ||
           tri_registry_len(sim->nodes[0].registry) < 2000) {
        run_until(sim, sim->now_ns + 10 * MS);
        assert_true(sim->now_ns - begun_ns < 60 * SECOND);
    }
    printf("2000 names at 8 nodes: %.1f s, %.1f KiB sent\n",
           (double)(sim->now_ns - begun_ns) / (double)SECOND,
           (double)sim->bytes / 1024);
    run_until(sim, sim->now_ns + 20 * SECOND);
    check_equal(&sim->nodes[5]);
    join(sim, 8);
    begun_ns = sim->now_ns;
    while (tri_registry_len(sim->nodes[8].registry) < 2000) {
        run_until(sim, sim->now_ns + 10 * MS);
        assert_true(sim->now_ns - begun_ns < 20 * SECOND);
    }
    printf("2000 names at a joiner: %.1f s\n",
           (double)(sim->now_ns - begun_ns) / (double)SECOND);
    end(sim);
}

/* Quiet nodes send next to nothing, and not more in a large cluster. */
static void test_idle(void **state)
{
    static const uint32_t lens[] = { 8, 64, 256 };

    (void)state;
    for (uint32_t i = 0; i < tri_array_len(lens); i++) {
        struct sim *sim = start(3, lens[i], 0);
        uint64_t bytes;
        double rate;

        begin(sim, lens[i]);
        for (uint32_t n = 0; n < lens[i]; n++)
            post(sim, WRITE, n, sim->now_ns + SECOND);
        run_until(sim, 300 * SECOND);
        bytes = sim->bytes;
        run_until(sim, 900 * SECOND);
        rate = (double)(sim->bytes - bytes) / 600 / lens[i];
        printf("idle, %u nodes: %.2f B/s a node\n", lens[i], rate);
        assert_true(rate < 2);
        end(sim);
    }
}

/* Withdrawn names do not fill tables for ever, theirs or others'. */
static void test_tombstones_go(void **state)
{
    struct sim *sim = start(unit_seed("test_tombstones_go"), 4, 0);

    (void)state;
    begin(sim, 4);
    for (uint32_t i = 0; i < 3000; i++) {
        char name[16];
        struct tri_registry_claim claim = { .name = name,
                                            .slot = i + 1,
                                            .generation = 1 };

        snprintf(name, sizeof(name), "gone/%u", i);
        assert_int_equal(
            tri_registry_add(sim->nodes[1].registry, sim->now_ns, &claim), 0);
        tri_registry_withdraw(sim->nodes[1].registry, sim->now_ns, name, i + 1,
                              1);
        plan_tick(&sim->nodes[1]);
    }
    run_until(sim, sim->now_ns + 30 * SECOND);
    assert_int_equal(tri_registry_len(sim->nodes[1].registry), 3000);
    run_until(sim, sim->now_ns + 120 * SECOND);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(tri_registry_len(sim->nodes[i].registry), 0);
    end(sim);
}

static uint32_t count_of(struct node *node, const char *prefix)
{
    const struct tri_registry_entry *entry;
    uint32_t index = 0, count = 0;

    while ((entry = tri_registry_each(node->registry, &index)) != NULL)
        count += strncmp(entry->name, prefix, strlen(prefix)) == 0;
    return count;
}

static void add_some(struct node *node, const char *prefix, uint32_t len)
{
    struct sim *sim = node->sim;

    for (uint32_t i = 0; i < len; i++) {
        char name[16];
        struct tri_registry_claim claim = { .name = name,
                                            .slot = ++node->slots,
                                            .generation = 1 };

        snprintf(name, sizeof(name), "%s%u", prefix, i);
        assert_int_equal(tri_registry_add(node->registry, sim->now_ns, &claim),
                         0);
        note(node, name, claim.slot);
    }
    plan_tick(node);
}

/*
 * A node that was cut off while names were withdrawn and their tombstones
 * collected takes the list anew: what was withdrawn goes, what stayed was never
 * away.
 */
static void test_reset(void **state)
{
    struct sim *sim = start(unit_seed("test_reset"), 3, 0);
    struct node *owner = &sim->nodes[0], *reader = &sim->nodes[1];

    (void)state;
    sim->tombstone_ns = SECOND;
    sim->digest_ns = SECOND;
    begin(sim, 3);
    add_some(owner, "stays/", 150);
    add_some(owner, "goes/", 150);
    run_until(sim, sim->now_ns + 5 * SECOND);
    assert_int_equal(count_of(reader, "goes/"), 150);
    sim->partition_ns = sim->now_ns;
    sim->heal_ns = sim->now_ns + 20 * SECOND;
    for (uint32_t i = 0; i < 150; i++) {
        char name[16];

        snprintf(name, sizeof(name), "goes/%u", i);
        tri_registry_withdraw(owner->registry, sim->now_ns, name, 151 + i, 1);
        note(owner, name, 0);
    }
    add_some(owner, "new/", 50);
    run_until(sim, sim->now_ns + 19 * SECOND);
    assert_int_equal(tri_registry_len(owner->registry), 200);
    assert_int_equal(count_of(reader, "goes/"), 150);
    sim->removed = 0;
    run_until(sim, sim->now_ns + 10 * SECOND);
    assert_int_equal(tri_registry_metrics(reader->registry).resets, 1);
    assert_int_equal(count_of(reader, "goes/"), 0);
    assert_int_equal(count_of(reader, "stays/"), 150);
    assert_int_equal(count_of(reader, "new/"), 50);
    assert_int_equal(sim->removed, 150);
    check_quiet(sim);
    end(sim);
}

/* A table that is full stands still, and goes on when there is room. */
static void test_full(void **state)
{
    struct sim *sim = start(unit_seed("test_full"), 3, 0);
    char name[16];
    struct tri_registry_claim claim = { .name = name, .generation = 1 };

    (void)state;
    sim->entries_max = 40;
    sim->tombstone_ns = SECOND;
    sim->digest_ns = 2 * SECOND;
    begin(sim, 3);
    for (uint32_t i = 0; i < 40; i++) {
        struct node *node = &sim->nodes[i % 2];

        claim.slot = i + 1;
        snprintf(name, sizeof(name), "fill/%u", i);
        assert_int_equal(
            tri_registry_add(node->registry, sim->now_ns, &claim), 0);
        note(node, name, claim.slot);
        plan_tick(node);
    }
    run_until(sim, sim->now_ns + 20 * SECOND);
    check_quiet(sim);
    snprintf(name, sizeof(name), "more");
    assert_int_equal(tri_registry_add(sim->nodes[2].registry, sim->now_ns,
                                      &claim),
                     TROUPE_ELIMIT);
    for (uint32_t i = 0; i < 20; i += 2) {
        snprintf(name, sizeof(name), "fill/%u", i);
        tri_registry_withdraw(sim->nodes[0].registry, sim->now_ns, name, i + 1,
                              1);
        note(&sim->nodes[0], name, 0);
    }
    plan_tick(&sim->nodes[0]);
    run_until(sim, sim->now_ns + 60 * SECOND);
    claim.slot = 77;
    snprintf(name, sizeof(name), "more");
    assert_int_equal(tri_registry_add(sim->nodes[2].registry, sim->now_ns,
                                      &claim),
                     0);
    note(&sim->nodes[2], name, claim.slot);
    plan_tick(&sim->nodes[2]);
    run_until(sim, sim->now_ns + 20 * SECOND);
    check_quiet(sim);
    end(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything), cmocka_unit_test(test_replay),
        cmocka_unit_test(test_many_nodes), cmocka_unit_test(test_convergence),
        cmocka_unit_test(test_bulk),       cmocka_unit_test(test_idle),
        cmocka_unit_test(test_tombstones_go), cmocka_unit_test(test_reset),
        cmocka_unit_test(test_full),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
