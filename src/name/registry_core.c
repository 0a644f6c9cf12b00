/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What registries tell each other, and when. registry_table.c holds what they
 * know, registry_digest.c answers; registry_core.h says what they promise.
 *
 *     news        new ---round at once---> passed on --rounds--> old
 *     of an owner  ^ registered, withdrawn, learned from news
 *
 *     behind      heard of a version --REQUEST--> DELTA, MORE --REQUEST--> DELTA
 *     an owner     no answer in retry_ns: somebody else, at last the owner
 */

#include <stdlib.h>
#include <string.h>

#include "member/swim_core.h"
#include "name/registry_internal.h"

#define MS 1000000ull
#define SECOND (1000 * MS)
/* Of packets, as membership takes it to be. */
#define LOSS 0.05
/* News packets in a step; each goes to `fanout` members. */
#define PUSHES_MAX 4u
/* Requests sent again in a step. */
#define RETRIES_MAX 16u
/* Members that ask somebody new for its names; others hear of them. */
#define ASKERS 8u
/* Until there is something to spend again. */
#define BROKE_NS (20 * MS)

void tri_registry_config_init(struct tri_registry_config *config)
{
    *config = (struct tri_registry_config){
        .entries_max = 65536,
        .owners_max = 1024,
        .fanout = 3,
        .budget_bytes = 64 * 1024,
        .burst_bytes = 1024 * 1024,
        .push_ns = 1 * MS,
        .gossip_ns = 100 * MS,
        .retry_ns = 50 * MS,
        .digest_first_ns = 20 * MS,
        .digest_soon_ns = 2 * SECOND,
        .digest_ns = 30 * SECOND,
        .soon_ns = 10 * SECOND,
        .tombstone_ns = 60 * SECOND,
        .tombstone_rumours = 10,
    };
}

/* --- times ---------------------------------------------------------------- */

/* How long withdrawn names are kept. */
static uint64_t tombstone_ns(const struct tri_registry *registry)
{
    uint64_t rumour_ns = (tri_log2_up(registry->members_len) + 3) *
                         registry->config.gossip_ns;

    return tri_max(registry->config.tombstone_ns,
                   registry->config.tombstone_rumours * rumour_ns);
}

/* --- sending -------------------------------------------------------------- */

static void earn(struct tri_registry *registry)
{
    uint64_t budget = registry->config.budget_bytes, earned;
    uint64_t ns = tri_min(registry->now_ns - registry->credit_ns,
                          1000 * SECOND);

    earned = ns * budget / SECOND;
    registry->credit += (int64_t)earned;
    registry->credit_ns += earned * SECOND / budget; /* parts of a byte stay */
    if (registry->credit < registry->config.burst_bytes)
        return;
    registry->credit = registry->config.burst_bytes;
    registry->credit_ns = registry->now_ns;
}

void tri_registry_send(struct tri_registry *registry, uint64_t to,
                    const struct tri_registry_writer *writer)
{
    assert(to != registry->config.node);
    registry->credit -= writer->bytes;
    registry->metrics.packets_out++;
    registry->metrics.bytes_out += writer->bytes;
    registry->sink.send(registry->sink.context, to, writer->body,
                        writer->bytes);
}

/* One of the other members; there has to be one. */
uint64_t tri_registry_random_other(struct tri_registry *registry)
{
    uint32_t i = tri_random_below(&registry->random,
                                  tri_registry_others(registry));

    if (i >= tri_registry_place(registry, registry->config.node))
        i++;
    return registry->members[i]->node;
}

/* --- asking --------------------------------------------------------------- */

static void ask(struct tri_registry *registry,
                struct tri_registry_owner *owner, uint64_t whom)
{
    struct tri_registry_mark mark = { owner->node, owner->version,
                                      owner->collected };
    struct tri_registry_writer writer;

    if (registry->credit <= 0)
        return; /* when it is time to ask again */
    tri_registry_begin(&writer, TRI_REGISTRY_REQUEST);
    tri_registry_write_mark(&writer, &mark);
    registry->metrics.requests++;
    tri_registry_send(registry, whom, &writer);
}

/* Asks who told of more than we have; again only after a while. */
static void want(struct tri_registry *registry,
                 struct tri_registry_owner *owner, uint64_t whom, bool again)
{
    uint64_t retry_ns = owner->asked_ns + registry->config.retry_ns;

    owner->source = whom;
    if (!registry->is_behind)
        registry->retry_ns = registry->now_ns + registry->config.retry_ns;
    registry->is_behind = true;
    if (!again && owner->asked_ns != 0 && registry->now_ns < retry_ns)
        return;
    owner->asked_ns = registry->now_ns;
    owner->asked = 0;
    ask(registry, owner, whom);
}

/* At first whom we heard it from, then anybody, then the owner. */
static uint64_t whom_to_ask(struct tri_registry *registry,
                            const struct tri_registry_owner *owner)
{
    if (owner->asked < 2 && tri_registry_owner(registry, owner->source) != NULL)
        return owner->source;
    return owner->asked % 2 == 0 ? owner->node
                                 : tri_registry_random_other(registry);
}

static void retry(struct tri_registry *registry)
{
    uint64_t retry_ns = registry->config.retry_ns;
    uint32_t asked = 0;

    registry->is_behind = false;
    for (uint32_t i = 0; i < registry->members_len; i++) {
        struct tri_registry_owner *owner = registry->members[i];

        if (owner->known <= owner->version || owner == registry->self)
            continue;
        registry->is_behind = true;
        if (asked >= RETRIES_MAX ||
            owner->asked_ns + retry_ns * (1 + owner->asked) > registry->now_ns)
            continue;
        asked++;
        owner->asked = owner->asked < 15 ? owner->asked + 1 : 14;
        owner->asked_ns = registry->now_ns;
        ask(registry, owner, whom_to_ask(registry, owner));
    }
    registry->retry_ns = registry->now_ns + retry_ns;
}

/* --- sections ------------------------------------------------------------- */

/*
 * The newest of an owner's news, as much as fits; who lacks what is before
 * them asks. False: no room for any.
 */
static bool write_newest(struct tri_registry_writer *writer,
                         const struct tri_registry_owner *owner)
{
    struct tri_registry_section section = tri_registry_section_of(owner);
    const struct tri_registry_entry *first = NULL;
    const struct tri_registry_entry *entry = owner->newest;
    size_t room = tri_registry_room(writer);
    size_t bytes = TRI_SECTION_BYTES;

    for (; entry != NULL && entry->version > owner->fresh_from;
         entry = entry->older) {
        struct tri_registry_item item = tri_registry_item_of(entry);

        bytes += tri_registry_item_bytes(&item);
        if (bytes > room)
            break;
        first = entry;
    }
    if (bytes > room && (first == NULL || tri_registry_items(writer) > 0))
        return false;
    if (!tri_registry_open_section(writer))
        return false;
    section.base = entry != NULL ? entry->version : 0;
    section.flags = TRI_SECTION_NEWS;
    for (entry = first; entry != NULL; entry = entry->newer) {
        struct tri_registry_item item = tri_registry_item_of(entry);

        tri_registry_write_item(writer, &item);
    }
    tri_registry_close_section(writer, &section);
    return true;
}

/* --- news ----------------------------------------------------------------- */

void tri_registry_news(struct tri_registry *registry,
                       struct tri_registry_owner *owner, uint64_t before)
{
    uint64_t soon_ns = tri_max(registry->now_ns,
                               registry->pushed_ns + registry->config.push_ns);

    if (tri_registry_others(registry) == 0)
        return;
    if (owner->left == 0)
        owner->fresh_from = before;
    owner->left = tri_swim_transmissions(registry->members_len, LOSS);
    owner->urgent = true;
    registry->push_gap_ns = registry->config.push_ns;
    if (!registry->has_news || registry->push_ns > soon_ns)
        registry->push_ns = soon_ns;
    registry->has_news = true;
}

/* Chooses other members, each once. Returns how many. */
static uint32_t choose(struct tri_registry *registry, uint64_t *nodes,
                       uint32_t len)
{
    uint32_t chosen = 0;

    len = (uint32_t)tri_min(len, tri_registry_others(registry));
    while (chosen < len) {
        uint64_t node = tri_registry_random_other(registry);
        uint32_t i = 0;

        while (i < chosen && nodes[i] != node)
            i++;
        if (i == chosen)
            nodes[chosen++] = node;
    }
    return chosen;
}

/* What of all news has to go at once still; and whether there is any. */
static bool look_for_news(struct tri_registry *registry)
{
    bool urgent = false;

    registry->has_news = false;
    for (uint32_t i = 0; i < registry->members_len; i++) {
        registry->has_news |= registry->members[i]->left > 0;
        urgent |= registry->members[i]->urgent;
    }
    return urgent;
}

/* Writes news of those whose turn it is; `copies`: how many will go out. */
static void write_news(struct tri_registry *registry,
                       struct tri_registry_writer *writer, uint32_t copies)
{
    uint32_t len = registry->members_len;

    for (uint32_t i = 0; i < len; i++) {
        struct tri_registry_owner *owner =
            registry->members[(registry->round_robin + i) % len];

        if (owner->left == 0)
            continue;
        if (tri_registry_is_whole(owner) && !write_newest(writer, owner)) {
            registry->round_robin = (registry->round_robin + i) % len;
            return;
        }
        owner->left -= (uint32_t)tri_min(owner->left, copies);
        owner->urgent = false;
    }
}

#define FANOUT_MAX 16u

static void forget_news(struct tri_registry *registry)
{
    registry->has_news = false;
    for (uint32_t i = 0; i < registry->members_len; i++) {
        registry->members[i]->left = 0;
        registry->members[i]->urgent = false;
    }
}

static void push(struct tri_registry *registry)
{
    uint64_t targets[FANOUT_MAX];
    bool urgent = true;

    if (tri_registry_others(registry) == 0) {
        forget_news(registry);
        return;
    }
    registry->pushed_ns = registry->now_ns;
    for (uint32_t n = 0; n < PUSHES_MAX && urgent && registry->has_news; n++) {
        struct tri_registry_writer writer;
        uint32_t len;

        if (registry->credit <= 0) {
            registry->push_ns = registry->now_ns + BROKE_NS;
            return;
        }
        len = choose(registry, targets, registry->config.fanout);
        tri_registry_begin(&writer, TRI_REGISTRY_DELTA);
        write_news(registry, &writer, len);
        for (uint32_t i = 0; i < len && tri_registry_items(&writer) > 0; i++)
            tri_registry_send(registry, targets[i], &writer);
        urgent = look_for_news(registry);
    }
    registry->push_ns = registry->now_ns + registry->push_gap_ns;
    if (!urgent)
        registry->push_gap_ns = tri_min(2 * registry->push_gap_ns,
                                        registry->config.gossip_ns);
}

/* --- what comes in -------------------------------------------------------- */

enum use {
    USELESS, /* from before a reset that we are in */
    EARLY,   /* we lack what is before it */
    USEFUL,
};

/* What can be done with a section; a reset is begun here. */
static enum use use_of(struct tri_registry *registry,
                       struct tri_registry_owner *owner,
                       const struct tri_registry_section *section)
{
    if (section->collected < owner->collected &&
        owner->version < owner->collected)
        return USELESS;
    if (section->collected > owner->version &&
        section->collected > owner->collected) {
        if (section->base != 0)
            return EARLY;
        registry->metrics.resets++;
        tri_registry_make_stale(owner);
        owner->collected = section->collected;
        tri_registry_set_version(registry, owner, 0);
    }
    return section->base <= owner->version ? USEFUL : EARLY;
}

/* Takes the entries that are new. False: the table is full. */
static bool take_items(struct tri_registry *registry,
                       struct tri_registry_owner *owner,
                       const struct tri_registry_section *section,
                       struct tri_registry_reader *reader)
{
    struct tri_registry_item item;
    bool has_room = true;

    for (unsigned i = 0; i < section->entries; i++) {
        struct tri_registry_entry *entry;

        tri_registry_read_item(reader, &item);
        if (!has_room || item.version <= owner->version)
            continue;
        entry = tri_registry_put(registry, owner, &item);
        has_room = entry != NULL;
        if (!has_room)
            continue;
        tri_registry_set_version(registry, owner, item.version);
        tri_registry_settle(registry, item.name, item.name_len);
    }
    return has_room;
}

static void skip_items(const struct tri_registry_section *section,
                       struct tri_registry_reader *reader)
{
    struct tri_registry_item item;

    for (unsigned i = 0; i < section->entries; i++)
        tri_registry_read_item(reader, &item);
}

/* After a section was taken up to its end. */
static void finish(struct tri_registry *registry,
                   struct tri_registry_owner *owner,
                   const struct tri_registry_section *section)
{
    if (owner->version < section->upto)
        tri_registry_set_version(registry, owner, section->upto);
    if (owner->version < owner->collected)
        return;
    tri_registry_sweep(registry, owner);
    if (section->collected > owner->collected &&
        owner->version >= section->collected) {
        tri_registry_collect(registry, owner, section->collected);
        owner->collected = section->collected;
    }
}

/* What a joiner learns of those who were here before is known to all others
 * and not passed on. */
static bool is_news(const struct tri_registry_owner *owner,
                    const struct tri_registry_section *section, uint64_t from)
{
    return (section->flags & TRI_SECTION_NEWS) != 0 || owner->pushed ||
           from == owner->node || (owner->version > 0 && !owner->pulled);
}

/* What became of the sections of a packet. */
struct taken {
    bool progress;
    bool early; /* one of them is to be tried again */
};

static void take_section(struct tri_registry *registry, uint64_t from,
                         const struct tri_registry_section *section,
                         struct tri_registry_reader *reader,
                         struct taken *taken)
{
    struct tri_registry_owner *owner =
        tri_registry_owner(registry, section->owner);
    uint64_t before;
    bool passes_on;
    enum use use;

    if (owner == NULL || owner == registry->self) {
        registry->metrics.unknown += owner == NULL;
        skip_items(section, reader);
        return;
    }
    before = owner->version;
    if (section->version > owner->known)
        owner->known = section->version;
    passes_on = is_news(owner, section, from);
    use = use_of(registry, owner, section);
    taken->early |= use == EARLY;
    if (use != USEFUL)
        skip_items(section, reader);
    else if (take_items(registry, owner, section, reader))
        finish(registry, owner, section);
    else
        owner->known = owner->version; /* until it is told again */
    taken->progress |= owner->version > before;
    /* of a long list, when all of it is there */
    if (owner->version > before && owner->version >= owner->known && passes_on)
        tri_registry_news(registry, owner, before);
    owner->pushed = passes_on && owner->version < owner->known;
    owner->pulled = !passes_on && owner->version < owner->known;
    if (owner->version >= owner->known)
        owner->asked_ns = 0;
    else if (section->version > owner->version)
        want(registry, owner, from,
             (section->flags & TRI_SECTION_MORE) != 0 &&
                 owner->version == section->upto);
}

static struct taken take_sections(struct tri_registry *registry, uint64_t from,
                                  struct tri_registry_reader *reader)
{
    struct taken taken = { false, false };

    for (unsigned i = 0; i < reader->items; i++) {
        struct tri_registry_section section;

        tri_registry_read_section(reader, &section);
        take_section(registry, from, &section, reader, &taken);
    }
    return taken;
}

/* Packets of one answer may overtake each other. */
static void keep(struct tri_registry *registry,
                 const struct tri_registry_event *event)
{
    struct tri_registry_early *early = &registry->early[registry->early_next];

    registry->early_next = (registry->early_next + 1) % TRI_REGISTRY_EARLY_MAX;
    early->from = event->node;
    early->bytes = (uint32_t)event->body_bytes;
    memcpy(early->body, event->body, event->body_bytes);
}

/* Tries what came early again. True: that led on. */
static bool take_early(struct tri_registry *registry)
{
    bool progress = false;

    for (uint32_t i = 0; i < TRI_REGISTRY_EARLY_MAX; i++) {
        struct tri_registry_early *early = &registry->early[i];
        struct tri_registry_reader reader;
        struct taken taken;

        if (early->bytes == 0 ||
            tri_registry_open(early->body, early->bytes, &reader) != NULL)
            continue;
        taken = take_sections(registry, early->from, &reader);
        if (!taken.early)
            early->bytes = 0;
        progress |= taken.progress;
    }
    return progress;
}

static void take_delta(struct tri_registry *registry,
                       const struct tri_registry_event *event,
                       struct tri_registry_reader *reader)
{
    struct taken taken = take_sections(registry, event->node, reader);

    if (taken.early)
        keep(registry, event);
    while (taken.progress)
        taken.progress = take_early(registry);
}

/* --- members -------------------------------------------------------------- */

/* Some ask who is new for its names; that is enough for all to hear them. */
static void greet(struct tri_registry *registry,
                  struct tri_registry_owner *owner)
{
    if (tri_random_below(&registry->random, registry->members_len) < ASKERS)
        ask(registry, owner, owner->node);
}

static void joined(struct tri_registry *registry, uint64_t node)
{
    struct tri_registry_owner *owner = tri_registry_owner_add(registry, node);

    if (owner == NULL)
        return;
    registry->soon_until_ns = registry->now_ns + registry->config.soon_ns;
    if (tri_registry_others(registry) == 1) { /* now there is somebody to ask */
        registry->digest_gap_ns = registry->config.digest_first_ns;
        registry->digest_due_ns =
            registry->now_ns + registry->config.push_ns;
    } else if (registry->digest_due_ns >
             registry->now_ns + registry->config.digest_soon_ns)
        registry->digest_due_ns =
            registry->now_ns + tri_registry_digest_ns(registry);
    greet(registry, owner);
}

static void set_suspect(struct tri_registry *registry, uint64_t node,
                        bool suspect)
{
    struct tri_registry_owner *owner = tri_registry_owner(registry, node);

    if (owner != NULL)
        owner->suspect = suspect;
}

static void gone(struct tri_registry *registry, uint64_t node)
{
    struct tri_registry_owner *owner = tri_registry_owner(registry, node);

    if (owner == NULL || owner == registry->self)
        return;
    for (uint32_t i = 0; i < TRI_REGISTRY_EARLY_MAX; i++)
        if (registry->early[i].from == node)
            registry->early[i].bytes = 0;
    tri_registry_owner_remove(registry, owner);
}

/* --- time ----------------------------------------------------------------- */

/* Forgets own withdrawn names that are old enough. A version of its own tells
 * the others to do so, too. */
static void collect(struct tri_registry *registry)
{
    struct tri_registry_owner *self = registry->self;
    uint64_t keep_ns = tombstone_ns(registry), before = self->version;
    const struct tri_registry_entry *entry = self->oldest;
    uint64_t upto = 0;

    registry->collect_ns = UINT64_MAX;
    for (; entry != NULL; entry = entry->newer) {
        if ((entry->flags & TRI_ENTRY_DELETED) == 0)
            continue;
        if (entry->deleted_ns + keep_ns > registry->now_ns) {
            /* not one by one */
            registry->collect_ns =
                tri_max(entry->deleted_ns + keep_ns,
                        registry->now_ns + keep_ns / 4);
            break;
        }
        upto = entry->version;
    }
    if (upto == 0)
        return;
    tri_registry_collect(registry, self, upto);
    self->collected = upto;
    tri_registry_set_version(registry, self, before + 1);
    tri_registry_news(registry, self, before);
}

static void tick(struct tri_registry *registry)
{
    if (registry->now_ns >= registry->collect_ns)
        collect(registry);
    if (registry->has_news && registry->now_ns >= registry->push_ns)
        push(registry);
    if (registry->is_behind && registry->now_ns >= registry->retry_ns)
        retry(registry);
    if (registry->now_ns >= registry->digest_due_ns)
        tri_registry_send_digest(registry);
}

uint64_t tri_registry_due_ns(const struct tri_registry *registry)
{
    uint64_t due_ns = UINT64_MAX;

    if (tri_registry_others(registry) > 0)
        due_ns = registry->digest_due_ns;
    if (registry->has_news)
        due_ns = tri_min(due_ns, registry->push_ns);
    if (registry->is_behind)
        due_ns = tri_min(due_ns, registry->retry_ns);
    return tri_min(due_ns, registry->collect_ns);
}

static const char *take_packet(struct tri_registry *registry,
                               const struct tri_registry_event *event)
{
    struct tri_registry_reader reader;
    const char *wrong =
        tri_registry_open(event->body, event->body_bytes, &reader);

    if (wrong != NULL)
        return wrong;
    if (tri_registry_owner(registry, event->node) == NULL ||
        event->node == registry->config.node) {
        registry->metrics.unknown++; /* a joiner that is not known yet */
        return NULL;
    }
    switch (reader.kind) {
    case TRI_REGISTRY_DIGEST:
        tri_registry_take_digest(registry, event->node, reader.hash);
        break;
    case TRI_REGISTRY_BUCKET_HASHES:
        tri_registry_take_buckets(registry, event->node, &reader);
        break;
    case TRI_REGISTRY_VERSIONS:
        tri_registry_take_versions(registry, event->node, &reader);
        break;
    case TRI_REGISTRY_REQUEST:
        tri_registry_take_request(registry, event->node, &reader);
        break;
    default:
        take_delta(registry, event, &reader);
        break;
    }
    return NULL;
}

const char *tri_registry_step(struct tri_registry *registry,
                              const struct tri_registry_event *event)
{
    tri_registry_pass_time(registry, event->now_ns);
    earn(registry);
    switch (event->kind) {
    case TRI_REGISTRY_TICK:
        tick(registry);
        return NULL;
    case TRI_REGISTRY_PACKET:
        return take_packet(registry, event);
    case TRI_REGISTRY_JOINED:
        joined(registry, event->node);
        return NULL;
    case TRI_REGISTRY_GONE:
        gone(registry, event->node);
        return NULL;
    default:
        set_suspect(registry, event->node,
                    event->kind == TRI_REGISTRY_SUSPECTED);
        return NULL;
    }
}

/* --- life ----------------------------------------------------------------- */

int tri_registry_create(const struct tri_registry_config *config,
                        const struct tri_registry_sink *sink,
                        struct tri_registry **registry_p)
{
    struct tri_registry *registry;
    int rc;

    if (config->node == 0 || config->entries_max == 0 ||
        config->owners_max == 0 || config->fanout == 0 ||
        config->fanout > FANOUT_MAX || config->budget_bytes == 0)
        return TROUPE_EINVAL;
    registry = calloc(1, sizeof(*registry));
    if (registry == NULL)
        return TROUPE_ENOMEM;
    registry->config = *config;
    registry->sink = *sink;
    tri_random_init(&registry->random, config->seed);
    registry->credit = config->burst_bytes;
    registry->digest_gap_ns = config->digest_soon_ns;
    registry->collect_ns = UINT64_MAX;
    rc = tri_registry_table_init(registry);
    if (rc != 0) {
        tri_registry_destroy(&registry);
        return rc;
    }
    registry->self = tri_registry_owner_add(registry, config->node);
    *registry_p = registry;
    return 0;
}

void tri_registry_destroy(struct tri_registry **registry_p)
{
    if (*registry_p == NULL)
        return;
    tri_registry_table_fini(*registry_p);
    free(*registry_p);
    *registry_p = NULL;
}

struct tri_registry_metrics
tri_registry_metrics(const struct tri_registry *registry)
{
    return registry->metrics;
}
