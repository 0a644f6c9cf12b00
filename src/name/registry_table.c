/* SPDX-License-Identifier: BSD-3-Clause */

/* The registry's table: owners by node id, their entries by version, all
 * entries by name. */

#include <stdlib.h>
#include <string.h>

#include "name/registry_internal.h"

int tri_registry_table_init(struct tri_registry *registry)
{
    uint64_t buckets = tri_pow2_up(registry->config.entries_max);

    registry->entries =
        calloc(registry->config.entries_max, sizeof(*registry->entries));
    registry->buckets = calloc(buckets, sizeof(*registry->buckets));
    registry->buckets_mask = (uint32_t)(buckets - 1);
    registry->owners =
        calloc(registry->config.owners_max, sizeof(*registry->owners));
    registry->members =
        calloc(registry->config.owners_max, sizeof(*registry->members));
    return registry->entries != NULL && registry->buckets != NULL &&
                   registry->owners != NULL && registry->members != NULL
               ? 0
               : TROUPE_ENOMEM;
}

void tri_registry_table_fini(struct tri_registry *registry)
{
    free(registry->entries);
    free(registry->buckets);
    free(registry->owners);
    free(registry->members);
}

/* --- owners --------------------------------------------------------------- */

uint32_t tri_registry_place(const struct tri_registry *registry, uint64_t node)
{
    uint32_t low = 0, high = registry->members_len;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (registry->members[middle]->node < node)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct tri_registry_owner *
tri_registry_owner(const struct tri_registry *registry, uint64_t node)
{
    uint32_t place = tri_registry_place(registry, node);

    return place < registry->members_len &&
                   registry->members[place]->node == node
               ? registry->members[place]
               : NULL;
}

const struct tri_registry_owner *
tri_registry_owner_of(const struct tri_registry *registry, uint64_t node)
{
    return tri_registry_owner(registry, node);
}

struct tri_registry_owner *tri_registry_owner_add(struct tri_registry *registry,
                                                  uint64_t node)
{
    uint32_t place = tri_registry_place(registry, node);
    struct tri_registry_owner *owner = registry->owners_free;

    if (place < registry->members_len &&
        registry->members[place]->node == node)
        return NULL;
    if (owner != NULL)
        registry->owners_free = owner->next;
    else if (registry->owners_used < registry->config.owners_max)
        owner = &registry->owners[registry->owners_used++];
    else
        return NULL;
    *owner = (struct tri_registry_owner){ .node = node };
    memmove(&registry->members[place + 1], &registry->members[place],
            (registry->members_len - place) * sizeof(*registry->members));
    registry->members[place] = owner;
    registry->members_len++;
    return owner;
}

static uint64_t hash_of(uint64_t node, uint64_t version)
{
    return version == 0 ? 0 : tri_mix64(node ^ tri_mix64(version));
}

void tri_registry_set_version(struct tri_registry *registry,
                              struct tri_registry_owner *owner,
                              uint64_t version)
{
    uint64_t *hash = &registry->hashes[owner->node >> 58];

    /* falls only in a reset */
    assert(version >= owner->version || owner->collected >= owner->version);
    *hash ^= hash_of(owner->node, owner->version) ^
             hash_of(owner->node, version);
    owner->version = version;
    if (owner->known < version)
        owner->known = version;
}

uint64_t tri_registry_digest(const struct tri_registry *registry)
{
    uint64_t digest = TRI_FNV64_OFFSET;

    for (unsigned i = 0; i < TRI_REGISTRY_BUCKETS; i++)
        digest = tri_mix64(digest ^ registry->hashes[i]);
    return digest;
}

/* --- entries -------------------------------------------------------------- */

static uint32_t name_hash(const char *name, size_t name_len)
{
    return tri_fnv32(TRI_FNV32_OFFSET, name, name_len);
}

static bool has_name(const struct tri_registry_entry *entry, uint32_t hash,
                     const char *name, size_t name_len)
{
    return entry->hash == hash && entry->name_len == name_len &&
           memcmp(entry->name, name, name_len) == 0;
}

static bool is_alive(const struct tri_registry_entry *entry)
{
    return (entry->flags & TRI_ENTRY_DELETED) == 0;
}

static void changed(struct tri_registry *registry, enum tri_registry_what what,
                    const struct tri_registry_entry *entry)
{
    registry->sink.changed(registry->sink.context, what, entry);
}

struct tri_registry_entry *
tri_registry_entry_of(struct tri_registry *registry,
                      const struct tri_registry_owner *owner, const char *name,
                      size_t name_len)
{
    uint32_t hash = name_hash(name, name_len);
    struct tri_registry_entry *entry =
        registry->buckets[hash & registry->buckets_mask];

    while (entry != NULL && (entry->owner != owner ||
                             !has_name(entry, hash, name, name_len)))
        entry = entry->next;
    return entry;
}

/* Of the owner's list. */
static void unlink_entry(struct tri_registry_entry *entry)
{
    struct tri_registry_owner *owner = entry->owner;

    if (entry->older != NULL)
        entry->older->newer = entry->newer;
    else
        owner->oldest = entry->newer;
    if (entry->newer != NULL)
        entry->newer->older = entry->older;
    else
        owner->newest = entry->older;
}

static void link_newest(struct tri_registry_entry *entry)
{
    struct tri_registry_owner *owner = entry->owner;

    assert(owner->newest == NULL || owner->newest->stale ||
           owner->newest->version < entry->version);
    entry->older = owner->newest;
    entry->newer = NULL;
    if (owner->newest != NULL)
        owner->newest->newer = entry;
    else
        owner->oldest = entry;
    owner->newest = entry;
}

static struct tri_registry_entry *take_free(struct tri_registry *registry)
{
    struct tri_registry_entry *entry = registry->entries_free;

    if (entry != NULL)
        registry->entries_free = entry->next;
    else if (registry->entries_used < registry->config.entries_max)
        entry = &registry->entries[registry->entries_used++];
    else
        return NULL;
    registry->entries_len++;
    return entry;
}

/* The entry is gone for everybody. */
static void drop(struct tri_registry *registry,
                 struct tri_registry_entry *entry)
{
    struct tri_registry_entry **link =
        &registry->buckets[entry->hash & registry->buckets_mask];

    if (entry->stale)
        entry->owner->stale_len--;
    if (!is_alive(entry) && entry->owner == registry->self)
        registry->tombstones--;
    unlink_entry(entry);
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    entry->owner = NULL;
    entry->flags = TRI_ENTRY_DELETED; /* for who walks the array */
    entry->next = registry->entries_free;
    registry->entries_free = entry;
    registry->entries_len--;
}

static struct tri_registry_entry *
insert(struct tri_registry *registry, struct tri_registry_owner *owner,
       const struct tri_registry_item *item)
{
    struct tri_registry_entry *entry = take_free(registry);
    struct tri_registry_entry **bucket;

    if (entry == NULL) {
        registry->metrics.full++;
        return NULL;
    }
    entry->owner = owner;
    entry->stale = false;
    entry->flags = TRI_ENTRY_DELETED;
    entry->hash = name_hash(item->name, item->name_len);
    entry->name_len = item->name_len;
    memcpy(entry->name, item->name, item->name_len);
    entry->name[item->name_len] = '\0';
    bucket = &registry->buckets[entry->hash & registry->buckets_mask];
    entry->next = *bucket;
    *bucket = entry;
    return entry;
}

static void fill(struct tri_registry_entry *entry,
                 const struct tri_registry_item *item)
{
    entry->version = item->version;
    entry->stamp = item->stamp;
    entry->slot = item->slot;
    entry->generation = item->generation;
    entry->protocol = item->protocol;
    entry->flags = item->flags;
    entry->tags_len = item->tags_len;
    if (item->tags_len > 0)
        memcpy(entry->tags, item->tags, item->tags_len);
    entry->tags[item->tags_len] = '\0';
}

static bool is_same_actor(const struct tri_registry_entry *entry,
                          const struct tri_registry_item *item)
{
    return (item->flags & TRI_ENTRY_DELETED) == 0 && is_alive(entry) &&
           entry->slot == item->slot && entry->generation == item->generation;
}

struct tri_registry_entry *
tri_registry_put(struct tri_registry *registry,
                 struct tri_registry_owner *owner,
                 const struct tri_registry_item *item)
{
    struct tri_registry_entry *entry =
        tri_registry_entry_of(registry, owner, item->name, item->name_len);
    bool same = entry != NULL && is_same_actor(entry, item);

    if (entry != NULL) {
        if (is_alive(entry) && !same)
            changed(registry, TRI_REGISTRY_REMOVED, entry);
        if (entry->stale)
            owner->stale_len--;
        if (!is_alive(entry) && owner == registry->self)
            registry->tombstones--;
        entry->stale = false;
        unlink_entry(entry);
    } else {
        entry = insert(registry, owner, item);
        if (entry == NULL)
            return NULL;
    }
    fill(entry, item);
    link_newest(entry);
    if (!is_alive(entry) && owner == registry->self)
        registry->tombstones++;
    if (registry->counter < item->stamp.counter)
        registry->counter = item->stamp.counter;
    if (is_alive(entry) && !same)
        changed(registry, TRI_REGISTRY_ADDED, entry);
    return entry;
}

struct tri_registry_item
tri_registry_item_of(const struct tri_registry_entry *entry)
{
    return (struct tri_registry_item){
        .version = entry->version,
        .stamp = entry->stamp,
        .slot = entry->slot,
        .generation = entry->generation,
        .protocol = entry->protocol,
        .flags = entry->flags,
        .name_len = (uint8_t)entry->name_len,
        .tags_len = entry->tags_len,
        .name = entry->name,
        .tags = entry->tags,
    };
}

/* --- many at once --------------------------------------------------------- */

void tri_registry_collect(struct tri_registry *registry,
                          struct tri_registry_owner *owner, uint64_t upto)
{
    struct tri_registry_entry *entry = owner->oldest;

    while (entry != NULL && (entry->stale || entry->version <= upto)) {
        struct tri_registry_entry *newer = entry->newer;

        if (!is_alive(entry) && !entry->stale)
            drop(registry, entry);
        entry = newer;
    }
}

void tri_registry_make_stale(struct tri_registry_owner *owner)
{
    struct tri_registry_entry *entry = owner->oldest;

    for (; entry != NULL; entry = entry->newer) {
        if (!entry->stale)
            owner->stale_len++;
        entry->stale = true;
    }
}

static void remove_entry(struct tri_registry *registry,
                         struct tri_registry_entry *entry)
{
    if (is_alive(entry))
        changed(registry, TRI_REGISTRY_REMOVED, entry);
    drop(registry, entry);
}

void tri_registry_sweep(struct tri_registry *registry,
                        struct tri_registry_owner *owner)
{
    struct tri_registry_entry *entry = owner->oldest;

    while (entry != NULL && owner->stale_len > 0) {
        struct tri_registry_entry *newer = entry->newer;

        if (entry->stale)
            remove_entry(registry, entry);
        entry = newer;
    }
}

void tri_registry_owner_remove(struct tri_registry *registry,
                               struct tri_registry_owner *owner)
{
    uint32_t place = tri_registry_place(registry, owner->node);

    assert(owner != registry->self && registry->members[place] == owner);
    while (owner->oldest != NULL)
        remove_entry(registry, owner->oldest);
    owner->collected = UINT64_MAX;
    tri_registry_set_version(registry, owner, 0);
    registry->members_len--;
    memmove(&registry->members[place], &registry->members[place + 1],
            (registry->members_len - place) * sizeof(*registry->members));
    owner->next = registry->owners_free;
    registry->owners_free = owner;
}

/* --- own entries ---------------------------------------------------------- */

static bool comes_before(const struct tri_registry_entry *a,
                         const struct tri_registry_entry *b)
{
    if (((a->flags ^ b->flags) & TRI_ENTRY_STRICT) != 0)
        return (a->flags & TRI_ENTRY_STRICT) != 0;
    if (a->stamp.epoch != b->stamp.epoch)
        return a->stamp.epoch < b->stamp.epoch;
    if (a->stamp.counter != b->stamp.counter)
        return a->stamp.counter < b->stamp.counter;
    return a->owner->node < b->owner->node;
}

int tri_registry_write(struct tri_registry *registry,
                       struct tri_registry_item *item)
{
    struct tri_registry_owner *self = registry->self;
    uint64_t before = self->version;

    item->version = before + 1;
    if (tri_registry_put(registry, self, item) == NULL)
        return TROUPE_ELIMIT;
    tri_registry_set_version(registry, self, item->version);
    tri_registry_news(registry, self, before);
    return 0;
}

static void write_deleted(struct tri_registry *registry,
                          struct tri_registry_entry *entry)
{
    struct tri_registry_item item = tri_registry_item_of(entry);

    item.flags |= TRI_ENTRY_DELETED;
    item.tags_len = 0;
    entry->deleted_ns = registry->now_ns;
    tri_registry_write(registry, &item); /* it has its place */
    if (registry->collect_ns == UINT64_MAX)
        registry->collect_ns =
            registry->now_ns + registry->config.tombstone_ns;
}

/* The living entry of another node that bars `mine` from its name. */
static bool is_barred(struct tri_registry *registry,
                      const struct tri_registry_entry *mine)
{
    const struct tri_registry_entry *entry =
        registry->buckets[mine->hash & registry->buckets_mask];

    for (; entry != NULL; entry = entry->next)
        if (entry != mine && is_alive(entry) && !entry->stale &&
            has_name(entry, mine->hash, mine->name, mine->name_len) &&
            ((entry->flags | mine->flags) & TRI_ENTRY_UNIQUE) != 0 &&
            (mine->flags & TRI_ENTRY_STRICT) == 0 && comes_before(entry, mine))
            return true;
    return false;
}

void tri_registry_settle(struct tri_registry *registry, const char *name,
                         size_t name_len)
{
    struct tri_registry_entry *mine =
        tri_registry_entry_of(registry, registry->self, name, name_len);

    if (mine == NULL || !is_alive(mine) || !is_barred(registry, mine))
        return;
    registry->metrics.lost++;
    changed(registry, TRI_REGISTRY_LOST, mine);
    write_deleted(registry, mine);
}

static bool is_taken(struct tri_registry *registry, const char *name,
                     size_t name_len, bool unique)
{
    struct tri_registry_walk walk;
    const struct tri_registry_entry *entry =
        tri_registry_first(registry, name, name_len, &walk);

    return entry != NULL && (unique || walk.is_unique);
}

int tri_registry_add(struct tri_registry *registry, uint64_t now_ns,
                     const struct tri_registry_claim *claim)
{
    size_t name_len = strlen(claim->name);
    size_t tags_len = claim->tags != NULL ? strlen(claim->tags) : 0;
    struct tri_registry_item item = {
        .stamp.counter = registry->counter + 1,
        .slot = claim->slot,
        .generation = claim->generation,
        .protocol = claim->protocol,
        .flags = (claim->unique ? TRI_ENTRY_UNIQUE : 0) |
                 (claim->strict ? TRI_ENTRY_STRICT : 0),
        .name_len = (uint8_t)name_len,
        .tags_len = (uint16_t)tags_len,
        .name = claim->name,
        .tags = claim->tags,
    };
    struct tri_registry_entry *mine;

    if (name_len == 0 || name_len > TRI_REGISTRY_NAME_MAX ||
        tags_len > TRI_REGISTRY_TAGS_MAX)
        return TROUPE_EINVAL;
    mine = tri_registry_entry_of(registry, registry->self, claim->name,
                                 name_len);
    if ((mine != NULL && is_alive(mine)) ||
        (!claim->strict &&
         is_taken(registry, claim->name, name_len, claim->unique)))
        return TROUPE_EEXIST;
    tri_registry_pass_time(registry, now_ns);
    return tri_registry_write(registry, &item);
}

void tri_registry_withdraw(struct tri_registry *registry, uint64_t now_ns,
                           const char *name, uint32_t slot,
                           uint32_t generation)
{
    struct tri_registry_entry *mine = tri_registry_entry_of(
        registry, registry->self, name, strlen(name));

    tri_registry_pass_time(registry, now_ns);
    if (mine != NULL && is_alive(mine) && mine->slot == slot &&
        mine->generation == generation)
        write_deleted(registry, mine);
}

void tri_registry_lose_strict(struct tri_registry *registry, uint64_t now_ns)
{
    tri_registry_pass_time(registry, now_ns);
    for (uint32_t i = 0; i < registry->entries_used; i++) {
        struct tri_registry_entry *entry = &registry->entries[i];

        if (!is_alive(entry) || entry->owner != registry->self ||
            (entry->flags & TRI_ENTRY_STRICT) == 0)
            continue;
        registry->metrics.lost++;
        changed(registry, TRI_REGISTRY_LOST, entry);
        write_deleted(registry, entry);
    }
}

/* --- looking -------------------------------------------------------------- */

static const struct tri_registry_entry *
skip_to_alive(const struct tri_registry_walk *walk,
              const struct tri_registry_entry *entry)
{
    while (entry != NULL &&
           (!is_alive(entry) ||
            !has_name(entry, walk->hash, walk->name, walk->name_len)))
        entry = entry->next;
    return entry;
}

const struct tri_registry_entry *
tri_registry_first(struct tri_registry *registry, const char *name,
                   size_t name_len, struct tri_registry_walk *walk_p)
{
    struct tri_registry_walk walk = {
        .registry = registry,
        .name = name,
        .name_len = name_len,
        .hash = name_hash(name, name_len),
    };
    const struct tri_registry_entry *first, *entry, *holder;

    first = skip_to_alive(
        &walk, registry->buckets[walk.hash & registry->buckets_mask]);
    holder = first;
    for (entry = first; entry != NULL;
         entry = skip_to_alive(&walk, entry->next)) {
        if ((entry->flags & TRI_ENTRY_UNIQUE) != 0)
            walk.is_unique = true;
        if (comes_before(entry, holder))
            holder = entry;
    }
    walk.at = walk.is_unique ? holder : first;
    *walk_p = walk;
    return walk.at;
}

const struct tri_registry_entry *
tri_registry_next(struct tri_registry_walk *walk)
{
    walk->at = walk->is_unique || walk->at == NULL
                   ? NULL
                   : skip_to_alive(walk, walk->at->next);
    return walk->at;
}

const struct tri_registry_entry *
tri_registry_each(const struct tri_registry *registry, uint32_t *index_p)
{
    while (*index_p < registry->entries_used) {
        const struct tri_registry_entry *entry =
            &registry->entries[(*index_p)++];

        if (is_alive(entry))
            return entry;
    }
    return NULL;
}

bool tri_registry_holds(struct tri_registry *registry,
                        const struct tri_registry_entry *entry)
{
    struct tri_registry_walk walk;
    const struct tri_registry_entry *first =
        tri_registry_first(registry, entry->name, entry->name_len, &walk);

    return !walk.is_unique || first == entry;
}

uint32_t tri_registry_len(const struct tri_registry *registry)
{
    return registry->entries_len;
}
