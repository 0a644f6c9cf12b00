/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * What a registry tells those who ask: the rest of an owner's list, and what
 * differs between two registries.
 *
 *     DIGEST -> (differs) BUCKETS -> VERSIONS of the buckets that differ
 *            -> DELTA of what the other lacks, REQUEST of what we lack
 */

#include "name/registry_internal.h"

/* Packets that answer one request. */
#define REPLIES_MAX 8u
/* Lists of versions in one exchange of digests. */
#define LISTS_MAX 8u
/* Of digests: within this part of the interval they come at random. */
#define JITTER_PART 4u

/* --- answers -------------------------------------------------------------- */

static const struct tri_registry_entry *
first_after(const struct tri_registry_owner *owner, uint64_t version)
{
    const struct tri_registry_entry *entry = owner->newest;

    if (version == 0)
        return owner->oldest;
    while (entry != NULL && entry->version > version && entry->older != NULL &&
           entry->older->version > version)
        entry = entry->older;
    return entry != NULL && entry->version > version ? entry : NULL;
}

/* An answer being written, in up to REPLIES_MAX packets. */
struct reply {
    struct tri_registry *registry;
    uint64_t to;
    uint32_t left; /* packets that may still go */
    struct tri_registry_writer writer;
};

static void reply_begin(struct reply *reply, struct tri_registry *registry,
                        uint64_t to)
{
    reply->registry = registry;
    reply->to = to;
    reply->left = REPLIES_MAX;
    tri_registry_begin(&reply->writer, TRI_REGISTRY_DELTA);
}

static void reply_flush(struct reply *reply)
{
    if (tri_registry_items(&reply->writer) == 0 || reply->left == 0)
        return;
    tri_registry_send(reply->registry, reply->to, &reply->writer);
    reply->left--;
    tri_registry_begin(&reply->writer, TRI_REGISTRY_DELTA);
}

static bool reply_may_go_on(const struct reply *reply)
{
    return reply->left > 0 && reply->registry->credit > 0;
}

/* What there is after `base`, in as many packets as may go. */
static void reply_after(struct reply *reply,
                        const struct tri_registry_owner *owner, uint64_t base)
{
    const struct tri_registry_entry *entry = first_after(owner, base);
    bool done = false;

    while (!done && reply_may_go_on(reply)) {
        struct tri_registry_section section = tri_registry_section_of(owner);
        struct tri_registry_item item;

        if (!tri_registry_open_section(&reply->writer)) {
            reply_flush(reply);
            continue;
        }
        section.base = base;
        for (; entry != NULL; entry = entry->newer) {
            item = tri_registry_item_of(entry);
            if (!tri_registry_write_item(&reply->writer, &item))
                break;
            base = entry->version;
        }
        done = entry == NULL;
        section.upto = done ? owner->version : base;
        if (!done && reply->left == 1)
            section.flags = TRI_SECTION_MORE;
        tri_registry_close_section(&reply->writer, &section);
        if (!done)
            reply_flush(reply);
    }
}

/* What somebody lacks who is where the mark says. */
static void reply_mark(struct reply *reply,
                       const struct tri_registry_mark *mark)
{
    const struct tri_registry_owner *owner =
        tri_registry_owner(reply->registry, mark->owner);
    bool anew;

    if (owner == NULL || !tri_registry_is_whole(owner))
        return;
    anew = mark->version < owner->collected &&
           mark->collected < owner->collected;
    if (mark->version < owner->version || anew)
        reply_after(reply, owner, anew ? 0 : mark->version);
}

void tri_registry_take_request(struct tri_registry *registry, uint64_t from,
                         struct tri_registry_reader *reader)
{
    struct reply reply;

    reply_begin(&reply, registry, from);
    for (unsigned i = 0; i < reader->items && reply_may_go_on(&reply); i++) {
        struct tri_registry_mark mark;

        tri_registry_read_mark(reader, &mark);
        reply_mark(&reply, &mark);
    }
    reply_flush(&reply);
}

/* --- digests -------------------------------------------------------------- */

uint64_t tri_registry_digest_ns(struct tri_registry *registry)
{
    uint32_t log2_n = tri_log2_up(registry->members_len);
    uint64_t ns = registry->config.digest_ns * (log2_n > 5 ? log2_n - 4 : 1);

    if (registry->now_ns < registry->soon_until_ns)
        ns = registry->digest_gap_ns;
    registry->digest_gap_ns = tri_min(2 * registry->digest_gap_ns,
                                      registry->config.digest_soon_ns);
    return ns - ns / JITTER_PART +
           tri_random_next(&registry->random) % (2 * ns / JITTER_PART + 1);
}

void tri_registry_send_digest(struct tri_registry *registry)
{
    struct tri_registry_writer writer;

    registry->digest_due_ns =
        registry->now_ns + tri_registry_digest_ns(registry);
    if (tri_registry_others(registry) == 0)
        return;
    tri_registry_begin(&writer, TRI_REGISTRY_DIGEST);
    tri_registry_write_hash(&writer, tri_registry_digest(registry));
    registry->metrics.digests++;
    tri_registry_send(registry, tri_registry_random_other(registry), &writer);
}

void tri_registry_take_digest(struct tri_registry *registry, uint64_t from,
                        uint64_t hash)
{
    struct tri_registry_writer writer;

    if (hash == tri_registry_digest(registry) || registry->credit <= 0)
        return;
    tri_registry_begin(&writer, TRI_REGISTRY_BUCKET_HASHES);
    for (unsigned i = 0; i < TRI_REGISTRY_BUCKETS; i++)
        tri_registry_write_hash(&writer, registry->hashes[i]);
    tri_registry_send(registry, from, &writer);
}

/* Lists the versions of a bucket's owners, from `place` on. Returns where it
 * came to; *low: the first node id not listed yet. */
static uint32_t list_bucket(struct tri_registry *registry, uint64_t to,
                            uint32_t place, uint64_t *low, uint64_t high)
{
    struct tri_registry_writer writer;

    tri_registry_begin(&writer, TRI_REGISTRY_VERSIONS);
    for (; place < registry->members_len; place++) {
        const struct tri_registry_owner *owner = registry->members[place];
        struct tri_registry_mark mark = { owner->node, owner->version, 0 };

        if (owner->node > high)
            break;
        if (owner->version > 0 && !tri_registry_write_mark(&writer, &mark)) {
            high = owner->node - 1;
            break;
        }
    }
    tri_registry_set_range(&writer, *low, high);
    tri_registry_send(registry, to, &writer);
    *low = high + 1;
    return place;
}

void tri_registry_take_buckets(struct tri_registry *registry, uint64_t from,
                         struct tri_registry_reader *reader)
{
    uint64_t hashes[TRI_REGISTRY_BUCKETS];
    unsigned first =
        tri_random_below(&registry->random, TRI_REGISTRY_BUCKETS);
    uint32_t lists = 0;

    for (unsigned i = 0; i < TRI_REGISTRY_BUCKETS; i++)
        hashes[i] = tri_registry_read_hash(reader);
    for (unsigned i = 0; i < TRI_REGISTRY_BUCKETS; i++) {
        uint64_t bucket = (first + i) % TRI_REGISTRY_BUCKETS;
        uint64_t low = bucket << 58, high = low | (UINT64_MAX >> 6);
        uint32_t place = tri_registry_place(registry, low);

        if (hashes[bucket] == registry->hashes[bucket])
            continue;
        /* low passes high, or wraps to 0 behind the last bucket */
        while (low >> 58 == bucket && lists < LISTS_MAX &&
               registry->credit > 0) {
            place = list_bucket(registry, from, place, &low, high);
            lists++;
        }
    }
}

/* Compares one owner with what the other has of it. */
static void compare(struct tri_registry *registry, struct reply *reply,
                    struct tri_registry_writer *request,
                    struct tri_registry_owner *owner, uint64_t version)
{
    struct tri_registry_mark mark = { owner->node, version, 0 };

    if (version < owner->version) {
        if (reply_may_go_on(reply))
            reply_mark(reply, &mark);
        return;
    }
    if (version == owner->version || owner == registry->self)
        return;
    if (version > owner->known)
        owner->known = version;
    owner->source = reply->to;
    mark.version = owner->version;
    mark.collected = owner->collected;
    if (!registry->is_behind)
        registry->retry_ns = registry->now_ns + registry->config.retry_ns;
    registry->is_behind = true;
    if (tri_registry_write_mark(request, &mark))
        owner->asked_ns = registry->now_ns;
}

void tri_registry_take_versions(struct tri_registry *registry, uint64_t from,
                          struct tri_registry_reader *reader)
{
    uint32_t place = tri_registry_place(registry, reader->low);
    struct tri_registry_writer request;
    struct tri_registry_mark mark = { 0 };
    struct reply reply;
    unsigned read = 0;

    reply_begin(&reply, registry, from);
    tri_registry_begin(&request, TRI_REGISTRY_REQUEST);
    for (; place < registry->members_len &&
           registry->members[place]->node <= reader->high;
         place++) {
        struct tri_registry_owner *owner = registry->members[place];

        while (mark.owner < owner->node && read < reader->items) {
            tri_registry_read_mark(reader, &mark);
            read++;
        }
        compare(registry, &reply, &request, owner,
                mark.owner == owner->node ? mark.version : 0);
    }
    reply_flush(&reply);
    if (tri_registry_items(&request) > 0) {
        registry->metrics.requests++;
        tri_registry_send(registry, from, &request);
    }
}
