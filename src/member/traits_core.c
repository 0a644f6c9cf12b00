/* SPDX-License-Identifier: BSD-3-Clause */
#include "member/traits_core.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "member/swim_core.h"

#define NS_PER_S 1000000000ull
#define NEVER UINT64_MAX
/* More often than any transmission count. */
#define LEFT_MAX 63u
/* Exchanges of a new node that come ten times as often. */
#define EARLY_EXCHANGES 3u
/* Datagrams that answer one KNOWN; what is left comes with the next one. */
#define ANSWERS_MAX 8u
/* Tries for targets that are not this node and not the same. */
#define PICK_TRIES 8u

struct record {
    struct tri_traits traits;
    uint32_t next_free;
    uint8_t left;    /* transmissions to go */
    bool in_fresh;   /* is in the list of those */
};

/* Listing what is known here to somebody who knows otherwise. */
struct listing {
    uint64_t to;     /* 0: none */
    uint64_t cursor; /* node ids from here on */
};

struct tri_traits_core {
    struct tri_traits_config config;
    struct tri_random random;
    uint64_t now_ns;
    uint64_t hash;

    struct record *records;
    uint32_t records_len; /* ever used */
    uint32_t free_first;  /* + 1; 0: none */
    uint32_t *order;      /* records by node id */
    uint32_t len;         /* members, this one included */

    uint32_t *fresh; /* records to be passed on */
    uint32_t *scratch;
    uint32_t fresh_len;

    uint64_t round_ns;    /* of the last round of gossip, or part of a list */
    uint64_t exchange_ns; /* of the next */
    uint32_t exchanges;
    struct listing listing;

    uint64_t tokens; /* bytes that may be sent now, times NS_PER_S */
    struct tri_traits_packet packet;
};

/* --- the table ------------------------------------------------------------ */

/* Where a node is in the order, or would be. */
static uint32_t position_of(const struct tri_traits_core *core, uint64_t node)
{
    uint32_t low = 0, high = core->len;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (core->records[core->order[middle]].traits.node < node)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct record *record_at(const struct tri_traits_core *core,
                                uint32_t position)
{
    return &core->records[core->order[position]];
}

static struct record *record_of(const struct tri_traits_core *core,
                                uint64_t node)
{
    uint32_t position = position_of(core, node);

    return position < core->len &&
                   record_at(core, position)->traits.node == node
               ? record_at(core, position)
               : NULL;
}

/* Versions of 0 do not count: who said nothing is like who is not there. */
static uint64_t hash_of(const struct tri_traits *traits)
{
    return traits->version == 0
               ? 0
               : tri_mix64(traits->node ^ tri_mix64(traits->version));
}

static void add(struct tri_traits_core *core, uint64_t node)
{
    uint32_t position = position_of(core, node);
    uint32_t i;

    if (node == 0 || core->len == core->config.members_max ||
        record_of(core, node) != NULL)
        return;
    if (core->free_first != 0) {
        i = core->free_first - 1;
        core->free_first = core->records[i].next_free;
    } else {
        i = core->records_len++;
    }
    memmove(&core->order[position + 1], &core->order[position],
            (core->len - position) * sizeof(*core->order));
    core->order[position] = i;
    core->len++;
    memset(&core->records[i].traits, 0, sizeof(core->records[i].traits));
    core->records[i].traits.node = node;
    core->records[i].left = 0;
}

/* What is in the list of the fresh leaves it at the next round. */
static void drop(struct tri_traits_core *core, uint64_t node)
{
    struct record *record = record_of(core, node);
    uint32_t position = position_of(core, node);
    uint32_t i;

    if (record == NULL || node == core->config.node)
        return;
    i = core->order[position];
    core->hash ^= hash_of(&record->traits);
    record->traits.node = 0;
    record->left = 0;
    record->next_free = core->free_first;
    core->free_first = i + 1;
    core->len--;
    memmove(&core->order[position], &core->order[position + 1],
            (core->len - position) * sizeof(*core->order));
    if (core->listing.to == node)
        core->listing.to = 0;
}

/* --- what is fresh -------------------------------------------------------- */

/* As often as rumours about members. */
static uint8_t transmissions(const struct tri_traits_core *core)
{
    return (uint8_t)tri_min(
        tri_swim_transmissions(core->len, core->config.loss), LEFT_MAX);
}

static void set(struct tri_traits_core *core, struct record *record,
                const struct tri_traits *traits)
{
    core->hash ^= hash_of(&record->traits) ^ hash_of(traits);
    record->traits = *traits;
    record->left = transmissions(core);
    if (!record->in_fresh)
        core->fresh[core->fresh_len++] = (uint32_t)(record - core->records);
    record->in_fresh = true;
}

/* Those with most to go first; those with nothing to go leave. */
static void sort_fresh(struct tri_traits_core *core)
{
    uint32_t starts[LEFT_MAX + 2] = { 0 };
    uint32_t len = 0;

    for (uint32_t i = 0; i < core->fresh_len; i++) {
        struct record *record = &core->records[core->fresh[i]];

        if (record->left == 0) {
            record->in_fresh = false;
            continue;
        }
        core->scratch[len++] = core->fresh[i];
        starts[LEFT_MAX - record->left + 1]++;
    }
    for (uint32_t i = 1; i < tri_array_len(starts); i++)
        starts[i] += starts[i - 1];
    for (uint32_t i = 0; i < len; i++) {
        uint32_t left = core->records[core->scratch[i]].left;

        core->fresh[starts[LEFT_MAX - left]++] = core->scratch[i];
    }
    core->fresh_len = len;
}

/* --- sending -------------------------------------------------------------- */

static uint64_t tokens_max(const struct tri_traits_core *core)
{
    return (uint64_t)core->config.bytes_per_s * NS_PER_S / 2;
}

static void pass_time(struct tri_traits_core *core, uint64_t now_ns)
{
    uint64_t passed_ns;

    if (now_ns <= core->now_ns)
        return;
    passed_ns = tri_min(now_ns - core->now_ns, NS_PER_S);
    core->now_ns = now_ns;
    core->tokens = tri_min(core->tokens + passed_ns * core->config.bytes_per_s,
                           tokens_max(core));
}

/* The tokens of the largest datagram. */
static uint64_t tokens_of_one(const struct tri_traits_core *core)
{
    return (TRI_TRAITS_BODY_MAX + (uint64_t)core->config.overhead_bytes) *
           NS_PER_S;
}

/* Sends core->packet. False: it may not, now. */
static bool send(struct tri_traits_core *core, uint64_t to,
                 struct tri_traits_effects *effects)
{
    struct tri_traits_send *out = &effects->sends[effects->sends_len];

    if (effects->sends_len == TRI_TRAITS_SENDS_MAX ||
        core->tokens < tokens_of_one(core))
        return false;
    out->to = to;
    out->bytes = (uint32_t)tri_traits_encode(&core->packet, out->body);
    core->tokens -= (out->bytes + (uint64_t)core->config.overhead_bytes) *
                    NS_PER_S;
    effects->sends_len++;
    return true;
}

static void begin(struct tri_traits_core *core, enum tri_traits_kind kind)
{
    core->packet.kind = (uint8_t)kind;
    core->packet.flags = 0;
    core->packet.len = 0;
}

/* Adds to a packet of NEWS of so many bytes. False: it does not fit. */
static bool add_news(struct tri_traits_core *core,
                     const struct tri_traits *traits, size_t *bytes_p)
{
    if (core->packet.len == TRI_TRAITS_NEWS_MAX ||
        *bytes_p + tri_traits_bytes(traits) > TRI_TRAITS_BODY_MAX)
        return false;
    core->packet.news[core->packet.len++] = *traits;
    *bytes_p += tri_traits_bytes(traits);
    return true;
}

/* Another member at random; 0: none. */
static uint64_t pick(struct tri_traits_core *core)
{
    uint32_t own = position_of(core, core->config.node);
    uint32_t i;

    if (core->len < 2)
        return 0;
    i = tri_random_below(&core->random, core->len - 1);
    return record_at(core, i + (i >= own))->traits.node;
}

/* Up to fanout members, each once. Returns how many. */
static uint32_t pick_some(struct tri_traits_core *core, uint64_t *nodes,
                          uint32_t len_max)
{
    uint32_t n = 0;

    for (uint32_t tries = 0; n < len_max && tries < PICK_TRIES * len_max;
         tries++) {
        uint64_t node = pick(core);
        bool known = node == 0;

        for (uint32_t i = 0; i < n; i++)
            known |= nodes[i] == node;
        if (!known)
            nodes[n++] = node;
    }
    return n;
}

/* --- gossip --------------------------------------------------------------- */

static void gossip(struct tri_traits_core *core,
                   struct tri_traits_effects *effects)
{
    uint64_t nodes[TRI_TRAITS_SENDS_MAX];
    size_t bytes = TRI_TRAITS_HEADER_BYTES;
    uint32_t n, sent = 0;

    sort_fresh(core);
    if (core->fresh_len == 0)
        return;
    begin(core, TRI_TRAITS_NEWS);
    for (uint32_t i = 0; i < core->fresh_len; i++)
        if (!add_news(core, &core->records[core->fresh[i]].traits, &bytes))
            break;
    n = pick_some(core, nodes, (uint32_t)tri_min(core->config.fanout,
                                                 core->len - 1));
    while (sent < n && send(core, nodes[sent], effects))
        sent++;
    if (sent > 0)
        core->round_ns = core->now_ns;
    for (uint32_t i = 0; i < core->packet.len; i++) {
        struct record *record = &core->records[core->fresh[i]];

        record->left -= (uint8_t)tri_min(record->left, sent);
    }
}

/* --- exchange ------------------------------------------------------------- */

/* Tells a random member what all that is known here amounts to. */
static void offer(struct tri_traits_core *core,
                  struct tri_traits_effects *effects)
{
    bool early = core->exchanges < EARLY_EXCHANGES;
    uint64_t pause_ns = core->config.exchange_ns / (early ? 10 : 1);
    uint64_t to = pick(core);

    /* not all at once */
    core->exchange_ns = core->now_ns + pause_ns / 2 +
                        tri_random_next(&core->random) % pause_ns;
    if (to == 0)
        return;
    begin(core, TRI_TRAITS_HASH);
    core->packet.hash = core->hash;
    if (send(core, to, effects) && early)
        core->exchanges++;
}

/* Lists versions from `first` to at most `last`, as far as they fit. Returns
 * the last id that this covers. */
static uint64_t list(struct tri_traits_core *core, uint64_t first,
                     uint64_t last)
{
    begin(core, TRI_TRAITS_KNOWN);
    core->packet.first = first;
    core->packet.last = last;
    for (uint32_t i = position_of(core, first); i < core->len; i++) {
        const struct tri_traits *traits = &record_at(core, i)->traits;

        if (traits->node > last)
            break;
        if (traits->version == 0)
            continue;
        if (core->packet.len == TRI_TRAITS_PAIRS_MAX) {
            core->packet.last =
                core->packet.pairs[TRI_TRAITS_PAIRS_MAX - 1].node;
            break;
        }
        core->packet.pairs[core->packet.len++] = (struct tri_traits_pair){
            .node = traits->node, .version = traits->version };
    }
    return core->packet.last;
}

/* The next part of a listing. */
static void go_on_listing(struct tri_traits_core *core,
                          struct tri_traits_effects *effects)
{
    uint64_t last = list(core, core->listing.cursor, UINT64_MAX);

    core->packet.flags = TRI_TRAITS_WANT;
    if (!send(core, core->listing.to, effects))
        return;
    core->round_ns = core->now_ns;
    if (last == UINT64_MAX)
        core->listing.to = 0;
    else
        core->listing.cursor = last + 1;
}

/* The version that a list gives for a node; nodes come in ascending order. */
static uint64_t version_in(const struct tri_traits_packet *packet,
                           uint64_t node, uint16_t *cursor_p)
{
    while (*cursor_p < packet->len && packet->pairs[*cursor_p].node < node)
        (*cursor_p)++;
    return *cursor_p < packet->len && packet->pairs[*cursor_p].node == node
               ? packet->pairs[*cursor_p].version
               : 0;
}

/* Sends what the other lacks. */
static void teach(struct tri_traits_core *core, uint64_t to,
                  const struct tri_traits_packet *known,
                  struct tri_traits_effects *effects)
{
    size_t bytes = TRI_TRAITS_HEADER_BYTES;
    uint16_t cursor = 0;
    uint32_t answers = 0;

    begin(core, TRI_TRAITS_NEWS);
    for (uint32_t i = position_of(core, known->first);
         i < core->len && answers < ANSWERS_MAX; i++) {
        const struct tri_traits *traits = &record_at(core, i)->traits;

        if (traits->node > known->last)
            break;
        if (traits->version <= version_in(known, traits->node, &cursor) ||
            add_news(core, traits, &bytes))
            continue;
        if (!send(core, to, effects))
            return;
        answers++;
        begin(core, TRI_TRAITS_NEWS);
        bytes = TRI_TRAITS_HEADER_BYTES;
        add_news(core, traits, &bytes);
    }
    if (core->packet.len > 0 && answers < ANSWERS_MAX)
        send(core, to, effects);
}

/* Whether the other knows anything newer of a member. */
static bool is_lacking(const struct tri_traits_core *core,
                       const struct tri_traits_packet *known)
{
    for (uint16_t i = 0; i < known->len; i++) {
        const struct record *record = record_of(core, known->pairs[i].node);

        if (record != NULL && record->traits.node != core->config.node &&
            record->traits.version < known->pairs[i].version)
            return true;
    }
    return false;
}

/* --- events --------------------------------------------------------------- */

static void on_news(struct tri_traits_core *core,
                    const struct tri_traits_packet *packet,
                    struct tri_traits_effects *effects)
{
    for (uint16_t i = 0; i < packet->len; i++) {
        const struct tri_traits *traits = &packet->news[i];
        struct record *record = record_of(core, traits->node);

        if (record == NULL || traits->node == core->config.node ||
            traits->version <= record->traits.version)
            continue;
        set(core, record, traits);
        effects->changes[effects->changes_len++] = &record->traits;
    }
}

static void on_packet(struct tri_traits_core *core, uint64_t from,
                      const struct tri_traits_packet *packet,
                      struct tri_traits_effects *effects)
{
    if (record_of(core, from) == NULL || from == core->config.node)
        return; /* known as a member soon; the exchange makes up for it */
    switch (packet->kind) {
    case TRI_TRAITS_NEWS:
        on_news(core, packet, effects);
        break;
    case TRI_TRAITS_HASH:
        if (packet->hash != core->hash && core->listing.to == 0)
            core->listing = (struct listing){ .to = from };
        break;
    default: /* KNOWN */
        teach(core, from, packet, effects);
        if ((packet->flags & TRI_TRAITS_WANT) && is_lacking(core, packet)) {
            list(core, packet->first, packet->last);
            send(core, from, effects);
        }
    }
}

static void on_joined(struct tri_traits_core *core, uint64_t node)
{
    uint64_t soon_ns = core->now_ns + core->config.exchange_ns / 10;

    add(core, node);
    if (core->exchanges < EARLY_EXCHANGES && core->exchange_ns > soon_ns)
        core->exchange_ns = soon_ns;
}

static void on_own(struct tri_traits_core *core,
                   const struct tri_traits *traits)
{
    struct record *record = record_of(core, core->config.node);

    assert(traits->node == core->config.node);
    if (traits->version > record->traits.version)
        set(core, record, traits);
}

/* Does what is due, after every event. */
static void act(struct tri_traits_core *core,
                struct tri_traits_effects *effects)
{
    if (core->now_ns >= core->exchange_ns)
        offer(core, effects);
    if (core->len < 2 || core->now_ns < core->round_ns + core->config.gossip_ns)
        return;
    gossip(core, effects);
    if (core->listing.to != 0)
        go_on_listing(core, effects);
}

void tri_traits_core_step(struct tri_traits_core *core,
                          const struct tri_traits_event *event,
                          struct tri_traits_effects *effects)
{
    effects->sends_len = 0;
    effects->changes_len = 0;
    pass_time(core, event->now_ns);
    switch (event->kind) {
    case TRI_TRAITS_TICK:
        break;
    case TRI_TRAITS_PACKET:
        on_packet(core, event->node, event->packet, effects);
        break;
    case TRI_TRAITS_JOINED:
        on_joined(core, event->node);
        break;
    case TRI_TRAITS_GONE:
        drop(core, event->node);
        break;
    case TRI_TRAITS_OWN:
        on_own(core, event->traits);
        break;
    }
    act(core, effects);
}

/* --- looking -------------------------------------------------------------- */

uint64_t tri_traits_core_due_ns(const struct tri_traits_core *core)
{
    uint64_t due_ns = core->exchange_ns;
    uint64_t wanted = tokens_of_one(core);

    if (core->len < 2)
        return NEVER;
    if (core->fresh_len > 0 || core->listing.to != 0) {
        uint64_t round_ns = core->round_ns + core->config.gossip_ns;

        if (core->tokens < wanted)
            round_ns = tri_max(round_ns, core->now_ns + 1 +
                                             (wanted - core->tokens) /
                                                 core->config.bytes_per_s);
        due_ns = tri_min(due_ns, round_ns);
    }
    return due_ns;
}

const struct tri_traits *
tri_traits_core_get(const struct tri_traits_core *core, uint64_t node)
{
    const struct record *record = record_of(core, node);

    return record != NULL ? &record->traits : NULL;
}

uint64_t tri_traits_core_hash(const struct tri_traits_core *core)
{
    return core->hash;
}

/* --- life ----------------------------------------------------------------- */

void tri_traits_config_init(struct tri_traits_config *config)
{
    *config = (struct tri_traits_config){
        .loss = 0.05,
        .fanout = 3,
        .gossip_ns = NS_PER_S / 10,
        .exchange_ns = 10 * NS_PER_S,
        .bytes_per_s = 16384,
        .overhead_bytes = 108,
    };
}

int tri_traits_core_create(const struct tri_traits_config *config,
                           struct tri_traits_core **core_p)
{
    struct tri_traits_core *core;
    uint32_t len = config->members_max;

    if (config->node == 0 || len == 0 || config->fanout == 0 ||
        config->fanout > TRI_TRAITS_SENDS_MAX || config->exchange_ns < 10 ||
        config->bytes_per_s < 4 * TRI_TRAITS_BODY_MAX ||
        !(config->loss >= 0 && config->loss < 1))
        return TROUPE_EINVAL;
    core = calloc(1, sizeof(*core));
    if (core == NULL)
        return TROUPE_ENOMEM;
    core->config = *config;
    tri_random_init(&core->random, config->seed);
    core->records = calloc(len, sizeof(*core->records));
    core->order = calloc(len, sizeof(*core->order));
    core->fresh = calloc(len, sizeof(*core->fresh));
    core->scratch = calloc(len, sizeof(*core->scratch));
    if (core->records == NULL || core->order == NULL || core->fresh == NULL ||
        core->scratch == NULL) {
        tri_traits_core_destroy(&core);
        return TROUPE_ENOMEM;
    }
    core->tokens = tokens_max(core);
    core->exchange_ns = NEVER;
    add(core, config->node);
    *core_p = core;
    return 0;
}

void tri_traits_core_destroy(struct tri_traits_core **core_p)
{
    struct tri_traits_core *core = *core_p;

    if (core == NULL)
        return;
    *core_p = NULL;
    free(core->records);
    free(core->order);
    free(core->fresh);
    free(core->scratch);
    free(core);
}
