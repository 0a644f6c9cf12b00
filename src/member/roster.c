/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The table of members. How it can be read while it is written:
 *
 * writer                               reader
 *   sequence := odd     (relaxed)        s := sequence      (acquire), even
 *   words := …          (release)        copy of words      (acquire)
 *   sequence := even    (release)        sequence == s      (relaxed)
 *
 * A reader that saw any word of a write sees, through that word's release and
 * acquire, the odd number before it as well, and copies again. One that saw
 * none of it has the words of before; those are whole by the acquire of s. The
 * index of nodes is guarded in the same way by a number of its own.
 */

#include "member/roster_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "member/member.h"

_Static_assert((int)TRI_SWIM_ALIVE == (int)TROUPE_MEMBER_ALIVE &&
                   (int)TRI_SWIM_SUSPECT == (int)TROUPE_MEMBER_SUSPECT &&
                   (int)TRI_SWIM_DEAD == (int)TROUPE_MEMBER_DEAD &&
                   (int)TRI_SWIM_LEFT == (int)TROUPE_MEMBER_LEFT,
               "users see the core's states");
_Static_assert((int)TRI_SWIM_WEAK == (int)TROUPE_EVIDENCE_SILENCE &&
                   (int)TRI_SWIM_STRONG == (int)TROUPE_EVIDENCE_CONNECTION &&
                   (int)TRI_SWIM_PROOF == (int)TROUPE_EVIDENCE_PROOF,
               "users see the core's evidence");
_Static_assert(TRI_TAGS_MAX == TROUPE_MEMBER_TAGS_MAX &&
                   TRI_MEMBER_NAME_MAX == TROUPE_MEMBER_NAME_MAX,
               "what travels fits what users see");

/* --- sequences ------------------------------------------------------------ */

static uint32_t sequence_read(_Atomic uint32_t *sequence)
{
    uint32_t value;
    unsigned rounds = 0;

    while ((value = atomic_load_explicit(sequence, memory_order_acquire)) & 1) {
        if (++rounds < 64)
            tri_cpu_relax();
        else
            sched_yield(); /* the writer has lost its core */
    }
    return value;
}

static bool sequence_is(_Atomic uint32_t *sequence, uint32_t value)
{
    return atomic_load_explicit(sequence, memory_order_relaxed) == value;
}

static void sequence_step(_Atomic uint32_t *sequence)
{
    uint32_t value = atomic_load_explicit(sequence, memory_order_relaxed);

    atomic_store_explicit(sequence, value + 1, memory_order_release);
}

/* --- entries -------------------------------------------------------------- */

void tri_roster_read(struct tri_roster *roster, uint32_t place,
                     troupe_member_t *member_p)
{
    struct tri_roster_entry *entry = &roster->entries[place];
    uint64_t words[TRI_ROSTER_WORDS];
    uint32_t sequence;

    do {
        sequence = sequence_read(&entry->sequence);
        for (size_t i = 0; i < TRI_ROSTER_WORDS; i++)
            words[i] = atomic_load_explicit(&entry->words[i],
                                            memory_order_acquire);
    } while (!sequence_is(&entry->sequence, sequence));
    memcpy(member_p, words, sizeof(words));
}

void tri_roster_write_locked(struct tri_roster *roster, uint32_t place,
                             const troupe_member_t *member)
{
    struct tri_roster_entry *entry = &roster->entries[place];
    uint64_t words[TRI_ROSTER_WORDS];

    assert(tri_lock_is_held(&roster->write_lock));
    memcpy(words, member, sizeof(words));
    sequence_step(&entry->sequence);
    for (size_t i = 0; i < TRI_ROSTER_WORDS; i++)
        atomic_store_explicit(&entry->words[i], words[i],
                              memory_order_release);
    sequence_step(&entry->sequence);
}

static uint64_t node_at(struct tri_roster *roster, uint32_t place)
{
    return atomic_load_explicit(&roster->entries[place].words[0],
                                memory_order_acquire);
}

/* --- the index ------------------------------------------------------------ */

static uint32_t index_get(struct tri_roster *roster, uint32_t i)
{
    return atomic_load_explicit(&roster->index[i], memory_order_acquire);
}

static void index_set(struct tri_roster *roster, uint32_t i, uint32_t value)
{
    atomic_store_explicit(&roster->index[i], value, memory_order_release);
}

static uint32_t index_home(const struct tri_roster *roster, uint64_t node)
{
    return (uint32_t)tri_mix64(node) & roster->index_mask;
}

/* The index is never full; a look during a write may see it anyhow, and is
 * bounded. */
static uint32_t index_find(struct tri_roster *roster, uint64_t node)
{
    uint32_t i = index_home(roster, node);

    for (uint32_t n = 0; n <= roster->index_mask; n++) {
        uint32_t value = index_get(roster, i);

        if (value == 0)
            break;
        if (node_at(roster, value - 1) == node)
            return value - 1;
        i = (i + 1) & roster->index_mask;
    }
    return TRI_NO_PLACE;
}

uint32_t tri_roster_place_of(struct tri_roster *roster, uint64_t node)
{
    uint32_t sequence, place;

    do {
        sequence = sequence_read(&roster->index_sequence);
        place = index_find(roster, node);
    } while (!sequence_is(&roster->index_sequence, sequence));
    return place;
}

static void index_add(struct tri_roster *roster, uint64_t node, uint32_t place)
{
    uint32_t i = index_home(roster, node);

    while (index_get(roster, i) != 0)
        i = (i + 1) & roster->index_mask;
    index_set(roster, i, place + 1);
}

/* Those behind it that had to go further than here move up. */
static void index_remove(struct tri_roster *roster, uint64_t node)
{
    uint32_t mask = roster->index_mask;
    uint32_t i = index_home(roster, node);
    uint32_t value;

    while ((value = index_get(roster, i)) == 0 ||
           node_at(roster, value - 1) != node)
        i = (i + 1) & mask;
    for (uint32_t k = (i + 1) & mask; (value = index_get(roster, k)) != 0;
         k = (k + 1) & mask) {
        uint32_t home = index_home(roster, node_at(roster, value - 1));

        if (((k - home) & mask) < ((k - i) & mask))
            continue;
        index_set(roster, i, value);
        i = k;
    }
    index_set(roster, i, 0);
}

/* --- members -------------------------------------------------------------- */

static bool is_there(const troupe_member_t *member)
{
    return member->state == TROUPE_MEMBER_ALIVE ||
           member->state == TROUPE_MEMBER_SUSPECT;
}

static void set_member(struct tri_roster *roster, uint32_t place,
                       const troupe_member_t *member)
{
    tri_lock_acquire(&roster->write_lock);
    tri_roster_write_locked(roster, place, member);
    tri_lock_release(&roster->write_lock);
}

/* Who is gone longest, but for ranks of this job: those keep their place. */
static uint32_t oldest_gone(const struct tri_roster *roster)
{
    uint32_t oldest = TRI_NO_PLACE;

    for (uint32_t i = roster->job_size; i < roster->places_max; i++)
        if (roster->gone[i] != 0 &&
            (oldest == TRI_NO_PLACE || roster->gone[i] < roster->gone[oldest]))
            oldest = i;
    return oldest;
}

static uint32_t find_room(struct tri_roster *roster,
                          const struct tri_member_card *card)
{
    uint32_t len = atomic_load_explicit(&roster->places_len,
                                        memory_order_relaxed);

    if (card->job == roster->job && card->rank >= 0 &&
        (uint32_t)card->rank < roster->job_size &&
        node_at(roster, (uint32_t)card->rank) == 0)
        return (uint32_t)card->rank;
    return len < roster->places_max ? len : oldest_gone(roster);
}

static void take_place(struct tri_roster *roster, uint32_t place,
                       const struct tri_member_card *card)
{
    troupe_member_t member = {
        .node = card->node,
        .host = card->host,
        .job = card->job,
        .rank = card->rank,
        .state = TROUPE_MEMBER_ALIVE,
        .cores = card->cores,
    };
    size_t name_len = strnlen(card->name, TROUPE_MEMBER_NAME_MAX);
    uint64_t old = node_at(roster, place);

    memcpy(member.name, card->name, name_len);
    roster->cards[place] = *card;
    roster->gone[place] = 0;
    atomic_store_explicit(&roster->entries[place].placed, 0,
                          memory_order_relaxed);
    sequence_step(&roster->index_sequence);
    if (old != 0)
        index_remove(roster, old);
    set_member(roster, place, &member);
    index_add(roster, card->node, place);
    sequence_step(&roster->index_sequence);
    if (place >= atomic_load_explicit(&roster->places_len,
                                      memory_order_relaxed))
        atomic_store_explicit(&roster->places_len, place + 1,
                              memory_order_release);
    atomic_fetch_add_explicit(&roster->alive_len, 1, memory_order_relaxed);
}

int tri_roster_add(struct tri_roster *roster,
                   const struct tri_member_card *card)
{
    uint32_t place;

    if (card->node == 0)
        return TROUPE_EINVAL;
    if (tri_roster_place_of(roster, card->node) != TRI_NO_PLACE)
        return TROUPE_EEXIST;
    if (tri_roster_alive_len(roster) >= roster->members_max)
        return TROUPE_ELIMIT;
    place = find_room(roster, card);
    if (place == TRI_NO_PLACE)
        return TROUPE_ELIMIT;
    take_place(roster, place, card);
    return 0;
}

/* --- changes -------------------------------------------------------------- */

void tri_roster_changed(struct tri_roster *roster)
{
    atomic_fetch_add_explicit(&roster->changes, 1, memory_order_release);
    if (roster->runtime != NULL)
        tri_wake_guest(roster->runtime);
}

/* What users are told of a change; 0: nothing. */
static enum troupe_member_what what_of(uint8_t before, uint8_t after)
{
    switch (after) {
    case TRI_SWIM_ALIVE:
        if (before == TRI_SWIM_UNKNOWN)
            return TROUPE_MEMBER_JOINED;
        return before == TRI_SWIM_SUSPECT ? TROUPE_MEMBER_RECOVERED : 0;
    case TRI_SWIM_SUSPECT:
        return before == TRI_SWIM_SUSPECT ? 0 : TROUPE_MEMBER_SUSPECTED;
    case TRI_SWIM_DEAD:
        return TROUPE_MEMBER_DIED;
    case TRI_SWIM_LEFT:
        return TROUPE_MEMBER_PARTED;
    default:
        return 0;
    }
}

void tri_roster_change(struct tri_roster *roster, uint64_t node,
                       uint8_t before, uint8_t after, uint8_t evidence,
                       uint32_t incarnation)
{
    uint32_t place = tri_roster_place_of(roster, node);
    enum troupe_member_what what = what_of(before, after);
    troupe_member_t member;

    if (place == TRI_NO_PLACE || node == roster->node ||
        after == TRI_SWIM_UNKNOWN || after > TRI_SWIM_STATE_LAST)
        return;
    tri_roster_read(roster, place, &member);
    if (!is_there(&member))
        return; /* for good */
    member.state = after;
    member.incarnation = incarnation;
    member.evidence = after == TRI_SWIM_DEAD ? evidence
                                             : TROUPE_EVIDENCE_NONE;
    if (!is_there(&member)) {
        roster->gone[place] = ++roster->gone_count;
        atomic_fetch_sub_explicit(&roster->alive_len, 1, memory_order_relaxed);
    }
    set_member(roster, place, &member);
    if (before == TRI_SWIM_UNKNOWN && after == TRI_SWIM_SUSPECT)
        tri_roster_raise(roster, TROUPE_MEMBER_JOINED, place);
    if (what != 0)
        tri_roster_raise(roster, what, place);
}

void tri_roster_load(struct tri_roster *roster, uint64_t node, float load)
{
    uint32_t place = tri_roster_place_of(roster, node);
    troupe_member_t member;

    if (place == TRI_NO_PLACE)
        return;
    tri_lock_acquire(&roster->write_lock);
    tri_roster_read(roster, place, &member);
    member.load = load;
    tri_roster_write_locked(roster, place, &member);
    tri_lock_release(&roster->write_lock);
    atomic_store_explicit(&roster->entries[place].placed, 0,
                          memory_order_relaxed);
}

void tri_roster_tags(struct tri_roster *roster, uint64_t node,
                     const char *tags, size_t tags_len)
{
    uint32_t place = tri_roster_place_of(roster, node);
    troupe_member_t member;
    size_t len = tri_min(strnlen(tags, tags_len), TROUPE_MEMBER_TAGS_MAX);
    bool other;

    if (place == TRI_NO_PLACE)
        return;
    tri_lock_acquire(&roster->write_lock);
    tri_roster_read(roster, place, &member);
    other = strlen(member.tags) != len || memcmp(member.tags, tags, len) != 0;
    memset(member.tags, 0, sizeof(member.tags));
    memcpy(member.tags, tags, len);
    tri_roster_write_locked(roster, place, &member);
    tri_lock_release(&roster->write_lock);
    if (other)
        tri_roster_changed(roster);
}

void tri_roster_excluded(struct tri_roster *roster)
{
    if (atomic_exchange_explicit(&roster->excluded, 1, memory_order_relaxed))
        return;
    tri_roster_raise(roster, TROUPE_MEMBER_EXCLUDED,
                     tri_roster_place_of(roster, roster->node));
}

const struct tri_member_card *tri_roster_card(const struct tri_roster *roster,
                                              uint64_t node)
{
    uint32_t place = tri_roster_place_of((struct tri_roster *)(uintptr_t)roster,
                                         node);

    return place != TRI_NO_PLACE ? &roster->cards[place] : NULL;
}

struct tri_member_card *tri_roster_own_card(struct tri_roster *roster)
{
    return &roster->cards[tri_roster_place_of(roster, roster->node)];
}

/* --- looking -------------------------------------------------------------- */

bool tri_roster_next(struct tri_roster *roster, uint32_t *cursor_p,
                     troupe_member_t *member_p)
{
    /* acquire: pairs with the release of take_place */
    uint32_t len = atomic_load_explicit(&roster->places_len,
                                        memory_order_acquire);

    while (*cursor_p < len) {
        tri_roster_read(roster, (*cursor_p)++, member_p);
        if (member_p->node != 0)
            return true;
    }
    return false;
}

bool tri_roster_get(struct tri_roster *roster, uint64_t node,
                    troupe_member_t *member_p)
{
    uint32_t place = tri_roster_place_of(roster, node);
    troupe_member_t member;

    if (node == 0 || place == TRI_NO_PLACE)
        return false;
    tri_roster_read(roster, place, &member);
    if (member.node != node)
        return false; /* forgotten meanwhile */
    *member_p = member;
    return true;
}

bool tri_roster_find(struct tri_roster *roster, const char *name,
                     troupe_member_t *member_p, bool *gone_p)
{
    troupe_member_t member;
    uint32_t cursor = 0;
    bool found = false, gone = false;

    while (name[0] != '\0' && tri_roster_next(roster, &cursor, &member)) {
        if (strcmp(member.name, name) != 0)
            continue;
        gone |= !is_there(&member);
        if (is_there(&member) && (!found || member.node < member_p->node)) {
            *member_p = member;
            found = true;
        }
    }
    if (gone_p != NULL)
        *gone_p = gone;
    return found;
}

float tri_roster_load_at(struct tri_roster *roster, uint32_t place,
                         const troupe_member_t *member)
{
    uint32_t placed = atomic_load_explicit(&roster->entries[place].placed,
                                           memory_order_relaxed);

    return member->load + (float)placed / (float)tri_max(member->cores, 1);
}

float tri_roster_load_of(struct tri_roster *roster, uint64_t node)
{
    uint32_t place = tri_roster_place_of(roster, node);
    troupe_member_t member;

    if (place == TRI_NO_PLACE)
        return 0;
    tri_roster_read(roster, place, &member);
    return tri_roster_load_at(roster, place, &member);
}

void tri_roster_placed(struct tri_roster *roster, uint64_t node)
{
    uint32_t place = tri_roster_place_of(roster, node);

    if (place != TRI_NO_PLACE)
        atomic_fetch_add_explicit(&roster->entries[place].placed, 1,
                                  memory_order_relaxed);
}

uint32_t tri_roster_turn(struct tri_roster *roster)
{
    return atomic_fetch_add_explicit(&roster->turn, 1, memory_order_relaxed);
}

uint32_t tri_roster_alive_len(struct tri_roster *roster)
{
    return atomic_load_explicit(&roster->alive_len, memory_order_relaxed);
}

bool tri_roster_is_excluded(struct tri_roster *roster)
{
    return atomic_load_explicit(&roster->excluded, memory_order_relaxed) != 0;
}

void tri_roster_kick(struct tri_roster *roster)
{
    if (roster->runtime != NULL && roster->runtime->member != NULL)
        tri_member_kick(roster->runtime->member);
}

uint64_t tri_roster_changes(struct tri_roster *roster)
{
    return atomic_load_explicit(&roster->changes, memory_order_acquire);
}

/* --- life ----------------------------------------------------------------- */

static int allocate(struct tri_roster *roster)
{
    /* Untouched pages of these cost nothing. */
    roster->entries = calloc(roster->places_max, sizeof(*roster->entries));
    roster->cards = calloc(roster->places_max, sizeof(*roster->cards));
    roster->gone = calloc(roster->places_max, sizeof(*roster->gone));
    roster->index = calloc(roster->index_mask + 1, sizeof(*roster->index));
    if (roster->entries == NULL || roster->cards == NULL ||
        roster->gone == NULL || roster->index == NULL)
        return TROUPE_ENOMEM;
    return tri_roster_events_init(roster);
}

int tri_roster_create(const struct tri_roster_config *config,
                      struct tri_roster **roster_p)
{
    const struct tri_member_card *self = config->self;
    struct tri_roster *roster;
    int rc;

    if (self->node == 0 || self->size < 1 || self->rank < 0 ||
        self->rank >= self->size || config->members_max == 0 ||
        config->members_max > UINT32_MAX / 16)
        return TROUPE_EINVAL;
    roster = aligned_alloc(TRI_CACHE_LINE,
                           tri_align_up(sizeof(*roster), TRI_CACHE_LINE));
    if (roster == NULL)
        return TROUPE_ENOMEM;
    memset(roster, 0, sizeof(*roster));
    roster->runtime = config->runtime;
    roster->node = self->node;
    roster->job = self->job;
    roster->job_size = (uint32_t)self->size;
    roster->members_max = (uint32_t)tri_max(config->members_max,
                                            roster->job_size);
    roster->places_max = roster->job_size + 2 * roster->members_max;
    roster->index_mask = (uint32_t)tri_pow2_up(2ull * roster->places_max) - 1;
    atomic_store(&roster->places_len, roster->job_size);
    atomic_store(&roster->turn, (uint32_t)self->rank);
    rc = allocate(roster);
    if (rc == 0)
        rc = tri_roster_add(roster, self);
    if (rc == 0)
        *roster_p = roster;
    else
        tri_roster_destroy(&roster);
    return rc;
}

void tri_roster_destroy(struct tri_roster **roster_p)
{
    struct tri_roster *roster = *roster_p;

    if (roster == NULL)
        return;
    *roster_p = NULL;
    tri_spread_destroy(&roster->spread);
    tri_roster_events_fini(roster);
    free(roster->index);
    free(roster->gone);
    free(roster->cards);
    free(roster->entries);
    free(roster);
}
