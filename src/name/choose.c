/* SPDX-License-Identifier: BSD-3-Clause */

/* Which instance of a name: the policies of troupe_resolve_with. */

#include "member/roster.h"
#include "name/directory.h"
#include "transport/ring.h"

/* Where an instance is. Lower ones are taken first; NONE never. */
enum rank {
    RANK_HERE,
    RANK_HOST, /* this host */
    RANK_ANY,
    RANK_SUSPECT,
    RANK_NONE, /* dead, or not connected yet */
};

/* By its card: with a ring closed, or not wanted (option transport), it is not
 * how messages go there that says where it is. */
static bool is_of_host(const struct tri_runtime *runtime,
                       const struct tri_peer *peer)
{
    troupe_member_t own, other;

    if (peer->transport != NULL &&
        peer->transport->ops == &tri_transport_ring)
        return true;
    return runtime->roster != NULL &&
           tri_roster_get(runtime->roster, runtime->node, &own) &&
           tri_roster_get(runtime->roster, peer->node, &other) &&
           own.host == other.host;
}

/* The instances of a name, one after the other, and the choice so far. */
struct choice {
    struct tri_directory *directory;
    const struct tri_query *query;
    uint32_t policy;
    uint64_t key;   /* HASH */
    bool mismatch;  /* one has another protocol */
    enum rank rank; /* of the choice */
    uint32_t len;   /* instances of that rank */
    const struct tri_registry_entry *best, *second;
    uint64_t best_score;
    troupe_ref_t last; /* ROUND_ROBIN: whose turn it was */
};

static enum rank rank_of(const struct choice *choice,
                         const struct tri_registry_entry *entry)
{
    struct tri_runtime *runtime = choice->directory->runtime;
    bool is_here = entry->owner->node == runtime->node;
    struct tri_peer *peer =
        is_here ? NULL : tri_link_find(&runtime->link, entry->owner->node);

    if (!is_here && (peer == NULL || tri_peer_is_dead(peer)))
        return RANK_NONE;
    if (entry->owner->suspect)
        return RANK_SUSPECT;
    if (choice->policy != TROUPE_RESOLVE_LOCAL_FIRST)
        return RANK_ANY;
    if (is_here)
        return RANK_HERE;
    return is_of_host(runtime, peer) ? RANK_HOST : RANK_ANY;
}

/* Rendezvous hashing (Thaler, Ravishankar 1998): the highest wins; when one
 * goes, only what was its own moves. */
static uint64_t score_of(const struct choice *choice,
                         const struct tri_registry_entry *entry)
{
    return tri_mix64(choice->key ^ tri_mix64(entry->owner->node) ^
                     tri_mix64((uint64_t)entry->slot << 32 |
                               entry->generation));
}

/* The next one behind the last, or the first of all. */
static bool is_next(const struct choice *choice,
                    const struct tri_registry_entry *entry)
{
    troupe_ref_t ref = tri_directory_ref(entry);
    troupe_ref_t best = tri_directory_ref(choice->best);
    bool ref_behind = tri_directory_compare(ref, choice->last) > 0;
    bool best_behind = tri_directory_compare(best, choice->last) > 0;

    return ref_behind != best_behind ? ref_behind
                                     : tri_directory_compare(ref, best) < 0;
}

/* Two at random, each pair as probable as the other. */
static void draw_two(struct choice *choice,
                     const struct tri_registry_entry *entry)
{
    uint32_t drawn =
        tri_random_below(&choice->directory->random, choice->len);

    if (choice->second == NULL)
        choice->second = entry;
    else if (drawn == 0)
        choice->best = entry;
    else if (drawn == 1)
        choice->second = entry;
}

static void weigh(struct choice *choice,
                  const struct tri_registry_entry *entry)
{
    choice->len++;
    switch (choice->policy) {
    case TROUPE_RESOLVE_ROUND_ROBIN:
        if (is_next(choice, entry))
            choice->best = entry;
        break;
    case TROUPE_RESOLVE_HASH:
        if (score_of(choice, entry) > choice->best_score) {
            choice->best = entry;
            choice->best_score = score_of(choice, entry);
        }
        break;
    case TROUPE_RESOLVE_TWO_CHOICES:
        draw_two(choice, entry);
        break;
    default:
        if (tri_random_below(&choice->directory->random, choice->len) == 0)
            choice->best = entry;
        break;
    }
}

static void consider(struct choice *choice,
                     const struct tri_registry_entry *entry)
{
    const struct tri_query *query = choice->query;
    enum rank rank;

    if (query->node != 0 && entry->owner->node != query->node)
        return;
    if (query->protocol != 0 && entry->protocol != query->protocol) {
        choice->mismatch = true;
        return;
    }
    rank = rank_of(choice, entry);
    if (rank > choice->rank || rank == RANK_NONE)
        return;
    if (choice->best == NULL || rank < choice->rank) {
        choice->rank = rank;
        choice->len = 1;
        choice->best = entry;
        choice->second = NULL;
        choice->best_score = score_of(choice, entry);
    } else {
        weigh(choice, entry);
    }
}

static const struct tri_registry_entry *
less_loaded(const struct choice *choice)
{
    struct tri_roster *roster = choice->directory->runtime->roster;

    if (choice->second == NULL || roster == NULL)
        return choice->best;
    return tri_roster_load_of(roster, choice->second->owner->node) <
                   tri_roster_load_of(roster, choice->best->owner->node)
               ? choice->second
               : choice->best;
}

static void choice_init(struct choice *choice,
                        struct tri_directory *directory,
                        const struct tri_query *query)
{
    const troupe_resolve_options_t *options = query->options;

    *choice = (struct choice){ .directory = directory,
                               .query = query,
                               .rank = RANK_NONE };
    if (options == NULL)
        return;
    choice->policy = options->policy;
    if (options->policy == TROUPE_RESOLVE_HASH)
        choice->key =
            tri_fnv64(TRI_FNV64_OFFSET, options->key, options->key_bytes);
}

int tri_directory_find(struct tri_directory *directory,
                       const struct tri_query *query, troupe_ref_t *ref_p)
{
    uint32_t turn = tri_fnv32(TRI_FNV32_OFFSET, query->name, query->name_len) %
                    TRI_DIRECTORY_TURNS;
    const struct tri_registry_entry *entry;
    struct tri_registry_walk walk;
    struct choice choice;

    choice_init(&choice, directory, query);
    pthread_mutex_lock(&directory->mutex);
    choice.last = directory->turns[turn];
    entry = tri_registry_first(directory->registry, query->name,
                               query->name_len, &walk);
    for (; entry != NULL; entry = tri_registry_next(&walk))
        consider(&choice, entry);
    if (choice.best != NULL) {
        *ref_p = tri_directory_ref(less_loaded(&choice));
        if (choice.policy == TROUPE_RESOLVE_ROUND_ROBIN)
            directory->turns[turn] = *ref_p;
    }
    pthread_mutex_unlock(&directory->mutex);
    if (choice.best != NULL)
        return 0;
    return choice.mismatch ? TROUPE_ETYPE : TROUPE_ENONAME;
}
