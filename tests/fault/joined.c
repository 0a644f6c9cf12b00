/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A running mpirun job and two processes that joined it from outside: whatever
 * works between ranks works between them, both ways, until one is killed, one
 * leaves and the job itself ends. The argument is option transport.
 *
 * The joiners do what the job asks of their actors: "agent" is on each node.
 */
#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

#include "leave.h"
#include "puppet.h"

enum {
    RANKS = 3,
    JOINERS = 2,
    NODES = RANKS + JOINERS,
    KEYS = 20,
    RACES = 12,
    COUNTS = 2000,
    LARGE_BYTES = (3 << 20) + 17,
    NAP_MS = 300,
};

/* --- what all nodes have -------------------------------------------------- */

#define agent_messages(TELL, ASK)                                             \
    ASK(agent, find, (uint32_t policy; uint32_t key; char address[80];),      \
        (int32_t error; int32_t unused; troupe_ref_t ref;))                   \
    ASK(agent, list, (char prefix[64];),                                      \
        (uint64_t found; char tags[32];))                                     \
    ASK(agent, take, (int32_t unique; char name[64];),                        \
        (int32_t error; int32_t unused; troupe_ref_t ref;))                   \
    ASK(agent, breed, (uint64_t node; int32_t which; int32_t unused;),        \
        (int32_t error; int32_t unused; troupe_ref_t ref;))                   \
    ASK(agent, watch, (), (int32_t error;))                                   \
    ASK(agent, monitor, (troupe_ref_t ref;), (int32_t error;))                \
    ASK(agent, tie, (troupe_ref_t ref;), (int32_t error;))                    \
    ASK(agent, seen, (), (int32_t added; int32_t removed; int32_t lost;       \
                          int32_t downs; int32_t nodes; int32_t links;        \
                          int32_t letters; int32_t last;))                    \
    TELL(agent, count, (int64_t number;))                                     \
    ASK(agent, total, (), (int64_t number; int64_t wrong;))                   \
    TELL(agent, send_counts, (troupe_ref_t to; int64_t number;))              \
    TELL(agent, show, (uint64_t len; unsigned char bytes[];))                 \
    ASK(agent, give, (uint64_t len; unsigned char bytes[];),                  \
        (int32_t right; int32_t unused; unsigned char bytes[];))              \
    ASK(agent, fetch, (troupe_ref_t from;), (int32_t right; int32_t error;))  \
    TELL(agent, nap, ())                                                      \
    TELL(agent, chatter, (troupe_ref_t with;))                                \
    ASK(agent, hush, (), (int64_t rounds;))                                   \
    ASK(agent, never, (), (int32_t unused;))                                  \
    TELL(agent, leave, ())
TROUPE_PROTOCOL(agent)

/* The same name with other messages. */
#define odd_messages(TELL, ASK) ASK(odd, find, (int32_t x;), (int32_t y;))
TROUPE_PROTOCOL(odd)

struct agent {
    agent_seen_result_t seen;
    int64_t number, wrong, before, rounds;
    troupe_token_t fetching, never;
    troupe_ref_t chats_with;
    int32_t has_shown;
};

static void fill(unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)(i * 31 + (i >> 11));
}

static int is_filled(const unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != (unsigned char)(i * 31 + (i >> 11)))
            return 0;
    return 1;
}

static int find(troupe_from_t from, uint32_t policy, uint32_t key,
                const char *address, troupe_ref_t *ref_p)
{
    troupe_resolve_options_t options = { .policy = policy,
                                         .key = &key,
                                         .key_bytes = sizeof(key) };

    return troupe_resolve_with(from, address, &agent_protocol_, &options,
                               TEST_SOON_MS, ref_p);
}

static int on_find(troupe_self_t *self, struct agent *a,
                   const agent_find_t *m)
{
    agent_find_result_t result = { .error = 0 };

    (void)a;
    result.error = find(self, m->policy, m->key, m->address, &result.ref);
    return agent_find_reply(self, result);
}

static int on_list(troupe_self_t *self, struct agent *a,
                   const agent_list_t *m)
{
    agent_list_result_t result = { .found = 0 };
    troupe_name_t first;

    (void)a;
    result.found = troupe_names_list(self, m->prefix, &first, 1);
    if (result.found > 0)
        snprintf(result.tags, sizeof(result.tags), "%.31s", first.tags);
    return agent_list_reply(self, result);
}

static int on_watch(troupe_self_t *self, struct agent *a,
                    const agent_watch_t *m)
{
    uint32_t watch;

    (void)a, (void)m;
    return agent_watch_reply(
        self, (agent_watch_result_t){ troupe_names_watch(self, "w/",
                                                         &watch) });
}

static int on_name(troupe_self_t *self, struct agent *a,
                   const troupe_name_event_t *event)
{
    if (event->what == TROUPE_NAME_LOST)
        a->seen.lost++;
    else if (event->what == TROUPE_NAME_ADDED)
        a->seen.added++;
    else
        a->seen.removed++;
    troupe_wake(self);
    return 0;
}

static int on_monitor(troupe_self_t *self, struct agent *a,
                      const agent_monitor_t *m)
{
    agent_monitor_result_t result;

    (void)a;
    result.error = m->ref.slot != 0
                       ? troupe_monitor(self, m->ref, NULL)
                       : troupe_monitor_node(self, m->ref.node, NULL);
    return agent_monitor_reply(self, result);
}

static int on_tie(troupe_self_t *self, struct agent *a, const agent_tie_t *m)
{
    (void)a;
    return agent_tie_reply(
        self, (agent_tie_result_t){ troupe_link(self, m->ref) });
}

static int on_seen(troupe_self_t *self, struct agent *a,
                   const agent_seen_t *m)
{
    (void)m;
    return agent_seen_reply(self, a->seen);
}

static int on_undelivered(troupe_self_t *self, struct agent *a,
                          const troupe_dead_letter_t *letter)
{
    (void)self;
    a->seen.letters++;
    a->seen.last = letter->reason;
    return 0;
}

static int on_count(troupe_self_t *self, struct agent *a,
                    const agent_count_t *m)
{
    (void)self;
    a->wrong += m->number != 1 && m->number != a->before + 1;
    a->before = m->number;
    a->number++;
    return 0;
}

static int on_total(troupe_self_t *self, struct agent *a,
                    const agent_total_t *m)
{
    agent_total_result_t result = { a->number, a->wrong };

    (void)m;
    a->number = a->wrong = 0;
    return agent_total_reply(self, result);
}

/* A part at a time: a handler may find the outbox full. */
static int on_send_counts(troupe_self_t *self, struct agent *a,
                          const agent_send_counts_t *m)
{
    agent_send_counts_t rest = *m;
    int rc = 0;

    while (rc == 0 && a->rounds < m->number) {
        rc = agent_count(self, (agent_ref_t){ m->to },
                         (agent_count_t){ a->rounds + 1 });
        a->rounds += rc == 0;
    }
    if (rc == 0) {
        a->rounds = 0;
        return 0;
    }
    return rc == TROUPE_EFULL ? agent_send_counts(self, agent_self(self), rest)
                              : rc;
}

static int on_show(troupe_self_t *self, struct agent *a,
                   const agent_show_t *m)
{
    a->number++;
    a->wrong += troupe_tail_bytes(self) != m->len ||
                !is_filled(m->bytes, m->len);
    return 0;
}

static int on_give(troupe_self_t *self, struct agent *a,
                   const agent_give_t *m)
{
    size_t len = troupe_tail_bytes(self);
    agent_give_result_t *result = agent_give_result_new(self, LARGE_BYTES);
    int rc;

    (void)a;
    if (!result)
        return troupe_reply_error(self, TROUPE_ENOMEM);
    result->right = len == m->len && is_filled(m->bytes, len);
    fill(result->bytes, LARGE_BYTES);
    rc = troupe_reply_send(self, result);
    if (rc != 0)
        troupe_drop(result);
    return rc;
}

/* Untyped calls want one; what they invoke here needs none. */
static void no_then(void)
{
}

static int then_fetched(troupe_self_t *self, void *state, int error,
                        const void *outcome, void *arg, troupe_any_fn_t then)
{
    const agent_give_result_t *result = outcome;
    agent_fetch_result_t told = { .error = error };
    struct agent *a = state;

    (void)arg, (void)then;
    if (result)
        told.right = result->right &&
                     troupe_tail_bytes(self) == LARGE_BYTES &&
                     is_filled(result->bytes, LARGE_BYTES);
    return agent_fetch_reply_to(self, a->fetching, told);
}

static int on_nap(troupe_self_t *self, struct agent *a, const agent_nap_t *m)
{
    (void)self, (void)a, (void)m;
    usleep(NAP_MS * 1000); /* a handler that takes its time */
    return 0;
}

static int on_hush(troupe_self_t *self, struct agent *a,
                   const agent_hush_t *m)
{
    agent_hush_result_t result = { a->rounds };

    (void)m;
    a->chats_with = (troupe_ref_t){ .node = 0 };
    a->rounds = 0;
    return agent_hush_reply(self, result);
}

static int on_never(troupe_self_t *self, struct agent *a,
                    const agent_never_t *m)
{
    (void)m;
    a->never = troupe_reply_later(self);
    return 0;
}

static int on_leave(troupe_self_t *self, struct agent *a,
                    const agent_leave_t *m)
{
    (void)a, (void)m;
    troupe_exit(self);
    return 0;
}

static int on_take(troupe_self_t *self, struct agent *a,
                   const agent_take_t *m);
static int on_breed(troupe_self_t *self, struct agent *a,
                    const agent_breed_t *m);
static int on_fetch(troupe_self_t *self, struct agent *a,
                    const agent_fetch_t *m);
static int on_chatter(troupe_self_t *self, struct agent *a,
                      const agent_chatter_t *m);
static int on_down(troupe_self_t *self, struct agent *a,
                   const troupe_down_t *down);

TROUPE_ACTOR(agent, struct agent, .find = on_find, .list = on_list,
             .take = on_take, .breed = on_breed, .watch = on_watch,
             .monitor = on_monitor, .tie = on_tie, .seen = on_seen,
             .count = on_count, .total = on_total,
             .send_counts = on_send_counts, .show = on_show, .give = on_give,
             .fetch = on_fetch, .nap = on_nap, .chatter = on_chatter,
             .hush = on_hush, .never = on_never, .leave = on_leave,
             .on_name = on_name, .on_down = on_down,
             .on_undelivered = on_undelivered)
/* A link's end is its own. */
TROUPE_ACTOR_AS(blind, agent, struct agent, .tie = on_tie)

/* What no node registers, and what all have in another layout. */
static int receive_none(troupe_self_t *self, void *state, unsigned index,
                        const void *message)
{
    (void)self, (void)state, (void)index, (void)message;
    return index == TROUPE_ON_START || index == TROUPE_ON_STOP ? 0
                                                               : TROUPE_ETYPE;
}

static const troupe_class_t unknown_class = { "unknown", &agent_protocol_, 8,
                                              receive_none };
static const troupe_class_t odd_class = { "agent", &odd_protocol_,
                                          sizeof(struct agent),
                                          receive_none };

static int on_take(troupe_self_t *self, struct agent *a,
                   const agent_take_t *m)
{
    troupe_spawn_options_t options = { .name = m->name,
                                       .unique = (uint32_t)m->unique };
    agent_take_result_t result = { .error = 0 };
    agent_ref_t ref = { { 0 } };

    (void)a;
    result.error = agent_spawn_with(self, &options, NULL, &ref);
    result.ref = ref.ref;
    return agent_take_reply(self, result);
}

static int then_bred(troupe_self_t *self, void *state, int error,
                     const void *outcome, void *arg, troupe_any_fn_t then)
{
    agent_breed_result_t result = { .error = error };
    troupe_token_t token = *(troupe_token_t *)arg;

    (void)state, (void)then;
    free(arg);
    if (outcome)
        result.ref = *(const troupe_ref_t *)outcome;
    return agent_breed_reply_to(self, token, result);
}

static int on_breed(troupe_self_t *self, struct agent *a,
                    const agent_breed_t *m)
{
    const troupe_class_t *const classes[] = { &agent_class_, &unknown_class,
                                              &odd_class };
    troupe_token_t *token = malloc(sizeof(*token));
    int rc = TROUPE_ENOMEM;

    (void)a;
    if (token)
        rc = troupe_spawn_on_then(self, m->node, classes[m->which], NULL,
                                  NULL, TEST_SOON_MS, then_bred, no_then,
                                  token);
    if (rc != 0) {
        free(token);
        return troupe_reply_error(self, rc);
    }
    *token = troupe_reply_later(self); /* several may ask */
    return 0;
}

static int show_large(troupe_self_t *self, troupe_ref_t to)
{
    agent_show_t *show = agent_show_new(self, LARGE_BYTES);
    int rc;

    if (!show)
        return TROUPE_ENOMEM;
    show->len = LARGE_BYTES;
    fill(show->bytes, LARGE_BYTES);
    rc = agent_show_send(self, (agent_ref_t){ to }, show);
    if (rc != 0)
        troupe_drop(show);
    return rc;
}

/* A large tell, then a large ask with a large result. EFULL: to be called
 * again, since a handler does not wait. */
static int on_fetch(troupe_self_t *self, struct agent *a,
                    const agent_fetch_t *m)
{
    size_t bytes = sizeof(agent_give_t) + LARGE_BYTES;
    agent_give_t *give = malloc(bytes);
    int rc = give ? 0 : TROUPE_ENOMEM;

    if (rc == 0 && !a->has_shown)
        rc = show_large(self, m->from);
    a->has_shown = rc == 0;
    if (rc == 0) {
        give->len = LARGE_BYTES;
        fill(give->bytes, LARGE_BYTES);
        rc = troupe_ask_then(self, m->from,
                             &agent_protocol_.types[agent_give_index_], give,
                             bytes, TEST_SOON_MS, then_fetched, no_then, NULL);
    }
    free(give);
    if (rc != 0)
        return troupe_reply_error(self, rc);
    a->has_shown = 0;
    a->fetching = troupe_reply_later(self);
    return 0;
}

static int then_chat(troupe_self_t *self, void *state, int error,
                     const agent_total_result_t *result, void *arg)
{
    struct agent *a = state;

    (void)result, (void)arg;
    if (error != 0 || a->chats_with.node == 0)
        return 0;
    a->rounds++;
    return agent_total_then(self, (agent_ref_t){ a->chats_with },
                            (agent_total_t){}, TEST_SOON_MS, then_chat, NULL);
}

/* Asks again whenever it was answered. */
static int on_chatter(troupe_self_t *self, struct agent *a,
                      const agent_chatter_t *m)
{
    a->chats_with = m->with;
    return then_chat(self, a, 0, NULL, NULL);
}

/* Names tell on who has seen a node go. */
static int on_down(troupe_self_t *self, struct agent *a,
                   const troupe_down_t *down)
{
    char name[64];
    agent_ref_t ref;

    a->seen.last = down->reason;
    if (down->monitor == 0) {
        a->seen.links++;
    } else if (down->ref.slot != 0) {
        a->seen.downs++;
    } else {
        a->seen.nodes++;
        snprintf(name, sizeof(name), "down/%016" PRIx64, down->node);
        agent_spawn(self, name, NULL, &ref);
    }
    return 0;
}

/* --- the job -------------------------------------------------------------- */

struct known {
    uint64_t node;
    troupe_ref_t agent;
};

static troupe_t *troupe;
static struct known all[NODES]; /* the ranks, then the joiners */
static struct puppet puppets[JOINERS];
static int port;

static agent_ref_t agent_at(int place)
{
    return (agent_ref_t){ all[place].agent };
}

static void say_phase(const char *what)
{
    static double before_ms;
    double now_ms = test_now_ms();

    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        printf("%6.0f ms  %s\n", before_ms > 0 ? now_ms - before_ms : 0.0,
               what);
    fflush(stdout);
    before_ms = now_ms;
}

/* All ranks do it: a joiner, whose agent rank 0 makes. */
static void start_joiner(int place)
{
    troupe_spawn_options_t options = { .name = "agent", .tags = "joiner" };
    struct puppet *puppet = &puppets[place - RANKS];
    agent_ref_t ref;

    if (test_rank == 0) {
        puppet_spawn(puppet);
        puppet_start(puppet, "key_file=%s seeds=127.0.0.1:%d node_name=guest%d",
                     puppet_key_file(0), port, place);
        MUST(agent_spawn_on(troupe, puppet->node, &options, NULL,
                            TEST_SOON_MS, &ref));
        all[place].node = puppet->node;
        all[place].agent = ref.ref;
    }
    MPI_Bcast(&all[place], sizeof(all[place]), MPI_BYTE, 0, MPI_COMM_WORLD);
}

static void start_job(const char *transport)
{
    troupe_spawn_options_t spawn = { .name = "agent", .tags = "rank" };
    troupe_options_t options;
    struct known own;
    agent_ref_t ref;
    char listen[16];

    if (transport)
        setenv("TROUPE_TRANSPORT", transport, 1);
    troupe_options_init(&options);
    if (test_rank == 0) {
        port = puppet_free_port();
        options.key_file = puppet_key_file(0);
    }
    MPI_Bcast(&port, 1, MPI_INT, 0, MPI_COMM_WORLD);
    snprintf(listen, sizeof(listen), "%d", port);
    options.listen = listen;
    options.stop_timeout_ms = TEST_SOON_MS;
    options.send_timeout_ms = TEST_SOON_MS;
    MUST(troupe_start(&troupe, &options));
    MUST(agent_spawn_with(troupe, &spawn, NULL, &ref));
    own.node = troupe_node_id(troupe);
    own.agent = ref.ref;
    MPI_Allgather(&own, sizeof(own), MPI_BYTE, all, sizeof(own), MPI_BYTE,
                  MPI_COMM_WORLD);
}

/* --- waiting for names ---------------------------------------------------- */

static agent_list_result_t list_at(int place, const char *prefix)
{
    agent_list_result_t result = { .found = 0 };
    agent_list_t list = { "" };

    snprintf(list.prefix, sizeof(list.prefix), "%s", prefix);
    MUST(agent_list(troupe, agent_at(place), list, TEST_SOON_MS, &result));
    return result;
}

/* Until that node knows so many; returns the tags of one. */
static const char *await_names(int place, const char *prefix, uint64_t wanted)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    static agent_list_result_t result;

    result = list_at(place, prefix);
    while (result.found != wanted && test_now_ms() < end_ms) {
        troupe_serve(troupe, 1);
        result = list_at(place, prefix);
    }
    CHECK_EQ((long long)result.found, (long long)wanted);
    return result.tags;
}

static agent_find_result_t find_at(int place, uint32_t policy, uint32_t key,
                                   const char *address)
{
    agent_find_t question = { .policy = policy, .key = key };
    agent_find_result_t result = { .error = 1 };

    snprintf(question.address, sizeof(question.address), "%s", address);
    MUST(agent_find(troupe, agent_at(place), question, TEST_SOON_MS,
                    &result));
    return result;
}

static agent_take_result_t take_at(int place, int unique, const char *name)
{
    agent_take_t take = { .unique = unique };
    agent_take_result_t result = { .error = 1 };

    snprintf(take.name, sizeof(take.name), "%s", name);
    MUST(agent_take(troupe, agent_at(place), take, TEST_SOON_MS, &result));
    return result;
}

static agent_seen_result_t seen_at(int place)
{
    agent_seen_result_t seen = { 0 };

    MUST(agent_seen(troupe, agent_at(place), (agent_seen_t){}, TEST_SOON_MS,
                    &seen));
    return seen;
}

/* --- names ---------------------------------------------------------------- */

static int place_of(uint64_t node)
{
    for (int i = 0; i < NODES; i++)
        if (all[i].node == node)
            return i;
    return -1;
}

/* Whether each comes twice. */
static int turns_are_even(int at)
{
    int seen[NODES] = { 0 }, even = 1;

    for (int i = 0; i < 2 * NODES; i++) {
        agent_find_result_t found =
            find_at(at, TROUPE_RESOLVE_ROUND_ROBIN, 0, "actor:///agent");

        CHECK_EQ(found.error, 0);
        if (CHECK(place_of(found.ref.node) >= 0))
            seen[place_of(found.ref.node)]++;
    }
    for (int i = 0; i < NODES; i++)
        even &= seen[i] == 2;
    return even;
}

/* Whether there and here the key means the same. */
static int hashes_agree(int at, uint32_t key)
{
    agent_find_result_t found =
        find_at(at, TROUPE_RESOLVE_HASH, key, "actor:///agent");
    troupe_ref_t mine = { 0 };

    MUST(find(troupe, TROUPE_RESOLVE_HASH, key, "actor:///agent", &mine));
    return troupe_ref_equal(mine, found.ref);
}

/* Who stands still for a moment is suspected and left out, by some or by all:
 * what depends on that is looked at until nobody is. */
static void by_policies(int at)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    agent_find_result_t found;
    int good;

    do
        good = turns_are_even(at);
    while (!good && test_now_ms() < end_ms);
    CHECK(good);
    found = find_at(at, TROUPE_RESOLVE_LOCAL_FIRST, 0, "actor:///agent");
    CHECK_EQ(place_of(found.ref.node), at);
    for (uint32_t key = 0; key < KEYS; key++) {
        do
            good = hashes_agree(at, key);
        while (!good && test_now_ms() < end_ms);
        CHECK(good);
        found = find_at(at, key % 2 ? TROUPE_RESOLVE_RANDOM
                                    : TROUPE_RESOLVE_TWO_CHOICES, 0,
                        "actor:///agent");
        CHECK_EQ(found.error, 0);
        CHECK(place_of(found.ref.node) >= 0);
    }
}

static void by_addresses(void)
{
    char text[TROUPE_ADDRESS_BYTES + 40];
    troupe_ref_t ref = { 0 };

    for (int i = 0; i < NODES; i++) {
        snprintf(text, sizeof(text), "actor:///agent@%016" PRIx64,
                 all[i].node);
        MUST(troupe_resolve(troupe, text, &agent_protocol_, TEST_SOON_MS,
                            &ref));
        CHECK(troupe_ref_equal(ref, all[i].agent));
        for (int at = RANKS; at < NODES; at++)
            CHECK(troupe_ref_equal(find_at(at, 0, 0, text).ref,
                                   all[i].agent));
        CHECK_EQ(troupe_resolve(troupe, text, &odd_protocol_, TEST_SOON_MS,
                                &ref), TROUPE_ETYPE);
    }
    for (int i = RANKS; i < NODES; i++) {
        snprintf(text, sizeof(text), "actor://guest%d/agent", i);
        MUST(troupe_resolve(troupe, text, &agent_protocol_, TEST_SOON_MS,
                            &ref));
        CHECK(troupe_ref_equal(ref, all[i].agent));
    }
    /* It is rank 0 of a job of its own. */
    CHECK(troupe_ref_equal(find_at(RANKS, 0, 0, "actor://rank.0/agent").ref,
                           all[RANKS].agent));
    CHECK_EQ(find_at(RANKS, 0, 0, "actor://rank.1/agent").error,
             TROUPE_ENODE);
}

static void tags(void)
{
    troupe_spawn_options_t red = { .name = "t/red", .tags = "color=red" };
    troupe_spawn_options_t blue = { .name = "t/blue", .tags = "color=blue" };
    agent_ref_t ref;

    if (test_rank == 1) {
        MUST(agent_spawn_with(troupe, &red, NULL, &ref));
        MUST(agent_spawn_on(troupe, all[RANKS].node, &blue, NULL,
                            TEST_SOON_MS, &ref));
    }
    for (int i = 0; i < NODES; i++) {
        CHECK(strcmp(await_names(i, "t/red", 1), "color=red") == 0);
        CHECK(strcmp(await_names(i, "t/blue", 1), "color=blue") == 0);
    }
}

static void unique(void)
{
    if (test_rank == 0) {
        CHECK_EQ(take_at(0, 1, "u/rank").error, 0);
        CHECK_EQ(take_at(RANKS, 1, "u/joiner").error, 0);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    for (int i = 0; i < NODES; i++)
        await_names(i, "u/", 2);
    for (int i = 0; i < NODES; i++) {
        CHECK_EQ(take_at(i, 0, "u/rank").error, TROUPE_EEXIST);
        CHECK_EQ(take_at(i, 1, "u/joiner").error, TROUPE_EEXIST);
    }
}

/* A rank and a joiner at the same moment: of those that got it all but one
 * lose it. */
static void races(void)
{
    int got[RACES] = { 0 }, sums[RACES];
    agent_ref_t takers[RACES] = { { { 0 } } };
    double end_ms = test_now_ms() + TEST_SOON_MS;
    long long lost = 0, lost_all = 0, wanted = 0;
    char name[64];

    for (int i = 0; i < RACES; i++) {
        agent_take_result_t taken;

        snprintf(name, sizeof(name), "race/%d", i);
        MPI_Barrier(MPI_COMM_WORLD);
        taken = take_at(test_rank == 0 ? RANKS : test_rank, 1, name);
        CHECK(taken.error == 0 || taken.error == TROUPE_EEXIST);
        got[i] = taken.error == 0;
        takers[i].ref = taken.ref;
    }
    MPI_Allreduce(got, sums, RACES, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < RACES; i++) {
        CHECK(sums[i] >= 1);
        wanted += sums[i] - 1;
    }
    do {
        lost = 0;
        for (int i = 0; i < RACES; i++) {
            agent_seen_result_t seen = { 0 };

            if (got[i] && agent_seen(troupe, takers[i], (agent_seen_t){},
                                     TEST_SOON_MS, &seen) == 0)
                lost += seen.lost;
        }
        MPI_Allreduce(&lost, &lost_all, 1, MPI_LONG_LONG, MPI_SUM,
                      MPI_COMM_WORLD);
        MPI_Bcast(&end_ms, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    } while (lost_all < wanted && test_now_ms() < end_ms);
    CHECK_EQ(lost_all, wanted);
    for (int i = 0; i < NODES; i++)
        await_names(i, "race/", RACES);
    if (test_rank == 0)
        printf("           %lld of %d names taken twice\n", wanted, RACES);
}

static void await_seen(int place, int added, int removed)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    agent_seen_result_t seen = seen_at(place);

    while ((seen.added != added || seen.removed != removed) &&
           test_now_ms() < end_ms) {
        troupe_serve(troupe, 1);
        seen = seen_at(place);
    }
    CHECK_EQ(seen.added, added);
    CHECK_EQ(seen.removed, removed);
}

static void watches(void)
{
    static const int watchers[] = { 0, RANKS };
    agent_take_result_t made[2];

    if (test_rank == 0) {
        for (int i = 0; i < 2; i++) {
            agent_watch_result_t result = { -1 };

            MUST(agent_watch(troupe, agent_at(watchers[i]), (agent_watch_t){},
                             TEST_SOON_MS, &result));
            CHECK_EQ(result.error, 0);
        }
        made[0] = take_at(1, 0, "w/rank");
        made[1] = take_at(RANKS + 1, 0, "w/joiner");
        for (int i = 0; i < 2; i++)
            await_seen(watchers[i], 2, 0);
        for (int i = 0; i < 2; i++)
            MUST(agent_leave(troupe, (agent_ref_t){ made[i].ref },
                             (agent_leave_t){}));
        for (int i = 0; i < 2; i++)
            await_seen(watchers[i], 2, 2);
    }
}

/* --- messages ------------------------------------------------------------- */

static void check_total(int place, int64_t wanted)
{
    agent_total_result_t total = { -1, -1 };

    MUST(agent_total(troupe, agent_at(place), (agent_total_t){}, TEST_SOON_MS,
                     &total));
    CHECK_EQ(total.number, wanted);
    CHECK_EQ(total.wrong, 0);
}

/* Rank 0 to joiner and back, small ones in order. */
static void counts(void)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    agent_total_result_t total = { -1, -1 };
    int64_t number = 0, wrong = 0;

    if (test_rank != 0)
        return;
    for (int i = 0; i < COUNTS; i++)
        MUST(agent_count(troupe, agent_at(RANKS), (agent_count_t){ i + 1 }));
    check_total(RANKS, COUNTS);
    MUST(agent_send_counts(troupe, agent_at(RANKS),
                           (agent_send_counts_t){ all[0].agent, COUNTS }));
    while (number < COUNTS && test_now_ms() < end_ms) {
        MUST(agent_total(troupe, agent_at(0), (agent_total_t){}, TEST_SOON_MS,
                         &total));
        number += total.number;
        wrong += total.wrong;
        troupe_serve(troupe, 1);
    }
    CHECK_EQ(number, COUNTS);
    CHECK_EQ(wrong, 0);
}

static void fetch(int by, int from)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    agent_fetch_result_t result = { .error = 1 };
    int rc;

    do {
        rc = agent_fetch(troupe, agent_at(by),
                         (agent_fetch_t){ all[from].agent }, TEST_SOON_MS,
                         &result);
        troupe_serve(troupe, 1);
    } while (rc == TROUPE_EFULL && test_now_ms() < end_ms);
    MUST(rc);
    CHECK_EQ(result.error, 0);
    CHECK(result.right);
    check_total(from, 1);
}

static void large(void)
{
    for (int i = 0; i < RANKS; i++) {
        MPI_Barrier(MPI_COMM_WORLD);
        if (i != test_rank)
            continue;
        fetch(i, RANKS + i % JOINERS);
        fetch(RANKS + i % JOINERS, i);
    }
    if (test_rank == RANKS - 1)
        fetch(RANKS, RANKS + 1);
}

/* A drain waits for the joiner's handler. */
static void drain(void)
{
    double began_ms = test_now_ms();

    if (test_rank == 0) {
        MUST(agent_nap(troupe, agent_at(RANKS), (agent_nap_t){}));
        MUST(troupe_drain(troupe, TEST_SOON_MS));
        CHECK(test_now_ms() - began_ms >= NAP_MS);
    }
}

/* The job is quiet, whatever a joiner says meanwhile. */
static void quiesce(void)
{
    agent_hush_result_t hush = { 0 };

    if (test_rank == 0)
        MUST(agent_chatter(troupe, agent_at(RANKS),
                           (agent_chatter_t){ all[1].agent }));
    MPI_Barrier(MPI_COMM_WORLD);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(troupe_quiesce(troupe, TEST_SOON_MS), 0);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0) {
        MUST(agent_hush(troupe, agent_at(RANKS), (agent_hush_t){},
                        TEST_SOON_MS, &hush));
        CHECK(hush.rounds > 0);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    CHECK_EQ(troupe_quiesce(troupe, TEST_SOON_MS), 0);
}

/* --- spawning ------------------------------------------------------------- */

static int breed_at(int place, int on, int which, troupe_ref_t *ref_p)
{
    agent_breed_result_t result = { .error = 1 };

    MUST(agent_breed(troupe, agent_at(place),
                     (agent_breed_t){ .node = all[on].node, .which = which },
                     TEST_SOON_MS, &result));
    *ref_p = result.ref;
    return result.error;
}

/* Whether each node gets one; not, while one is suspected. */
static int spreads_evenly(void)
{
    troupe_place_t spread = { .policy = TROUPE_PLACE_SPREAD };
    int seen[NODES] = { 0 }, even = 1;
    agent_ref_t ref = { { 0 } };

    for (int i = 0; i < NODES; i++) {
        MUST(agent_spawn_at(troupe, &spread, NULL, NULL, TEST_SOON_MS, &ref));
        if (CHECK(place_of(ref.ref.node) >= 0))
            seen[place_of(ref.ref.node)]++;
    }
    for (int i = 0; i < NODES; i++)
        even &= seen[i] == 1;
    return even;
}

static void spawns(void)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    troupe_place_t guest = { .policy = TROUPE_PLACE_NAME, .name = "guest4" };
    odd_find_result_t odd;
    agent_ref_t ref = { { 0 } };
    int even;

    CHECK_EQ(breed_at(test_rank, RANKS, 0, &ref.ref), 0);
    CHECK(ref.ref.node == all[RANKS].node);
    CHECK_EQ(breed_at(RANKS, test_rank, 0, &ref.ref), 0);
    CHECK(ref.ref.node == all[test_rank].node);
    MUST(agent_spawn_at(troupe, &guest, NULL, NULL, TEST_SOON_MS, &ref));
    CHECK(ref.ref.node == all[RANKS + 1].node);
    do
        even = spreads_evenly();
    while (!even && test_now_ms() < end_ms);
    CHECK(even);
    MPI_Barrier(MPI_COMM_WORLD);
    CHECK_EQ(breed_at(test_rank, RANKS, 1, &ref.ref), TROUPE_ECLASS);
    CHECK_EQ(breed_at(test_rank, RANKS, 2, &ref.ref), TROUPE_ETYPE);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0) {
        CHECK_EQ(breed_at(RANKS, 1, 1, &ref.ref), TROUPE_ECLASS);
        CHECK_EQ(breed_at(RANKS, 1, 2, &ref.ref), TROUPE_ETYPE);
    }
    CHECK_EQ(odd_find(troupe, (odd_ref_t){ all[RANKS].agent },
                      (odd_find_t){ 1 }, TEST_SOON_MS, &odd), TROUPE_ETYPE);
}

/* --- ends ----------------------------------------------------------------- */

static void watch_over(int by, troupe_ref_t ref)
{
    agent_monitor_result_t result = { -1 };

    MUST(agent_monitor(troupe, agent_at(by), (agent_monitor_t){ ref },
                       TEST_SOON_MS, &result));
    CHECK_EQ(result.error, 0);
}

static void tie(agent_ref_t one, troupe_ref_t other)
{
    agent_tie_result_t result = { -1 };

    MUST(agent_tie(troupe, one, (agent_tie_t){ other }, TEST_SOON_MS,
                   &result));
    CHECK_EQ(result.error, 0);
}

static void await_downs(int place, agent_seen_result_t before)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    agent_seen_result_t seen = seen_at(place);

    while ((seen.downs == before.downs || seen.nodes == before.nodes ||
            seen.links == before.links) && test_now_ms() < end_ms) {
        troupe_serve(troupe, 1);
        seen = seen_at(place);
    }
    CHECK_EQ(seen.downs, before.downs + 1);
    CHECK_EQ(seen.nodes, before.nodes + 1);
    CHECK_EQ(seen.links, before.links + 1);
    CHECK_EQ(seen.last, TROUPE_ENODE);
}

/* A joiner of which everybody knows ends. */
static void joiner_ends(int place, void (*end)(struct puppet *))
{
    struct known known = all[place];
    agent_seen_result_t before = seen_at(test_rank);
    agent_ref_t blind;
    agent_never_result_t never;
    int reason = 0;

    watch_over(test_rank, known.agent);
    watch_over(test_rank, (troupe_ref_t){ .node = known.node });
    tie(agent_at(test_rank), known.agent);
    MUST(blind_spawn(troupe, NULL, NULL, &blind));
    tie(blind, known.agent);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank == 0)
        end(&puppets[place - RANKS]);
    else
        CHECK_EQ(agent_never(troupe, (agent_ref_t){ known.agent },
                             (agent_never_t){}, TEST_SOON_MS, &never),
                 TROUPE_ENODE);
    await_downs(test_rank, before);
    MUST(troupe_wait_down(troupe, blind.ref, TEST_SOON_MS, &reason));
    CHECK(reason == TROUPE_ELINKED || reason == TROUPE_ENOACTOR);
    CHECK_EQ(agent_never(troupe, (agent_ref_t){ known.agent },
                         (agent_never_t){}, TEST_SOON_MS, &never),
             TROUPE_ENODE);
    CHECK_EQ(agent_count(troupe, (agent_ref_t){ known.agent },
                         (agent_count_t){ 1 }), TROUPE_ENODE);
}

static void end_by_kill(struct puppet *puppet)
{
    puppet_kill(puppet, SIGKILL);
}

static void end_by_leave(struct puppet *puppet)
{
    puppet_must(puppet, "ok", "stop");
    puppet_end(puppet);
}

/* Its links may have ended before the list of members tells. */
static void await_state(uint64_t node, uint32_t state)
{
    double end_ms = test_now_ms() + TEST_SOON_MS;
    troupe_member_t member = { .state = 0 };

    MUST(troupe_member_get(troupe, node, &member));
    while (member.state != state && test_now_ms() < end_ms) {
        troupe_serve(troupe, 1);
        MUST(troupe_member_get(troupe, node, &member));
    }
    CHECK_EQ(member.state, state);
}

static void killed_and_back(void)
{
    struct known old = all[RANKS + 1];
    agent_never_result_t never;
    char text[64];
    troupe_ref_t ref;

    joiner_ends(RANKS + 1, end_by_kill);
    await_state(old.node, TROUPE_MEMBER_DEAD);
    await_names(test_rank, "agent", NODES - 1);
    await_names(RANKS, "agent", NODES - 1);
    MPI_Barrier(MPI_COMM_WORLD);
    start_joiner(RANKS + 1);
    CHECK(all[RANKS + 1].node != old.node);
    await_names(test_rank, "agent", NODES);
    await_names(RANKS, "agent", NODES);
    await_names(RANKS + 1, "agent", NODES);
    CHECK_EQ(agent_never(troupe, (agent_ref_t){ old.agent },
                         (agent_never_t){}, TEST_SOON_MS, &never),
             TROUPE_ENODE);
    snprintf(text, sizeof(text), "actor:///agent@%016" PRIx64, old.node);
    CHECK_EQ(troupe_resolve(troupe, text, NULL, TEST_SOON_MS, &ref),
             TROUPE_ENODE);
    snprintf(text, sizeof(text), "actor://guest%d/agent", RANKS + 1);
    MUST(troupe_resolve(troupe, text, NULL, TEST_SOON_MS, &ref));
    CHECK(troupe_ref_equal(ref, all[RANKS + 1].agent));
}

static void left(void)
{
    joiner_ends(RANKS + 1, end_by_leave);
    await_state(all[RANKS + 1].node, TROUPE_MEMBER_LEFT);
    await_names(test_rank, "agent", NODES - 1);
    await_names(RANKS, "agent", NODES - 1);
}

/* The job ends and a joiner stays. */
static void job_ends(void)
{
    struct puppet *joiner = &puppets[0];
    char ref[64];

    watch_over(RANKS, (troupe_ref_t){ .node = all[test_rank].node });
    MPI_Barrier(MPI_COMM_WORLD);
    MUST(troupe_stop(&troupe));
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_rank != 0)
        return;
    for (int i = 0; i < RANKS; i++) {
        puppet_must(joiner, "ok", "state %016" PRIx64 " left %d",
                    all[i].node, TEST_SOON_MS);
        snprintf(ref, sizeof(ref), "%016" PRIx64 " %u %u", all[i].node,
                 all[i].agent.slot, all[i].agent.generation);
        puppet_must(joiner, "TROUPE_ENODE", "ask %s %d", ref, TEST_SOON_MS);
    }
    puppet_must(joiner, "ok", "alive 1 %d", TEST_SOON_MS);
    puppet_must(joiner, "ok", "names 3 %d down/", TEST_SOON_MS);
    puppet_must(joiner, "ok", "names 1 %d agent", TEST_SOON_MS);
    puppet_must(joiner, "ok", "stop");
    puppet_end(joiner);
    unlink(puppet_key_file(0));
}

int main(int argc, char **argv)
{
    int size;

    puppet_main(argc, argv);
    MPI_Init(NULL, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    atexit(leave_failed);
    if (size != RANKS)
        puppet_fail("%d ranks are needed", RANKS);
    start_job(argc > 1 ? argv[1] : NULL);
    start_joiner(RANKS);
    start_joiner(RANKS + 1);
    for (int i = 0; i < NODES; i++)
        await_names(i, "agent", NODES);
    say_phase("names");
    /* one after the other, since turns are told */
    for (int i = 0; i < RANKS; i++) {
        MPI_Barrier(MPI_COMM_WORLD);
        if (i == test_rank)
            by_policies(i);
    }
    if (test_rank == 0)
        for (int i = RANKS; i < NODES; i++)
            by_policies(i);
    by_addresses();
    tags();
    say_phase("unique names");
    unique();
    races();
    say_phase("watches");
    watches();
    say_phase("small messages");
    counts();
    say_phase("large messages");
    large();
    say_phase("drain, quiesce");
    drain();
    quiesce();
    say_phase("spawns");
    spawns();
    say_phase("a joiner is killed and comes back");
    killed_and_back();
    say_phase("a joiner leaves");
    left();
    say_phase("the job ends");
    job_ends();
    leave();
}
