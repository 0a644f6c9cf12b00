/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The records of the SWIM core.
 *
 *  T1 A node has one record, or none; index finds it. Record 0 is this node.
 *  T2 order holds the ALIVE and SUSPECT records but this node's, once each;
 *     record.order is the place. What lies before order_at was probed in this
 *     round, the rest was not.
 *  T3 suspects holds the SUSPECT records; detail.place is the place.
 *  T4 counts[s] records are in state s; buckets are the XOR of the hashes of
 *     the ALIVE and SUSPECT ones. The dead are not in it, as some remember
 *     them longer than others.
 */
#include <stdlib.h>

#include "member/swim_internal.h"

int tri_swim_table_init(struct tri_swim *swim)
{
    uint32_t max = swim->config.members_max;
    uint64_t slots = tri_pow2_up((uint64_t)max + max / 2 + 1);

    swim->records = calloc(max, sizeof(swim->records[0]));
    swim->index = malloc(slots * sizeof(swim->index[0]));
    swim->order = calloc(max, sizeof(swim->order[0]));
    swim->details = calloc(max, sizeof(swim->details[0]));
    swim->suspects = calloc(max, sizeof(swim->suspects[0]));
    if (swim->records == NULL || swim->index == NULL || swim->order == NULL ||
        swim->details == NULL || swim->suspects == NULL)
        return TROUPE_ENOMEM;
    memset(swim->index, 0xff, slots * sizeof(swim->index[0]));
    swim->index_mask = (uint32_t)(slots - 1);
    swim->details_free = NONE;
    swim->suspects_due_ns = TRI_NS_NEVER;
    return 0;
}

void tri_swim_table_fini(struct tri_swim *swim)
{
    free(swim->records);
    free(swim->index);
    free(swim->order);
    free(swim->details);
    free(swim->suspects);
}

/* --- the index ------------------------------------------------------------ */

static uint32_t slot_of(const struct tri_swim *swim, uint64_t node)
{
    return (uint32_t)tri_mix64(node) & swim->index_mask;
}

uint32_t tri_swim_find(const struct tri_swim *swim, uint64_t node)
{
    uint32_t slot = slot_of(swim, node);

    while (swim->index[slot] != NONE) {
        if (swim->records[swim->index[slot]].node == node)
            return swim->index[slot];
        slot = (slot + 1) & swim->index_mask;
    }
    return NONE;
}

static void index_add(struct tri_swim *swim, uint32_t index)
{
    uint32_t slot = slot_of(swim, swim->records[index].node);

    while (swim->index[slot] != NONE)
        slot = (slot + 1) & swim->index_mask;
    swim->index[slot] = index;
}

/* Removes and closes the gap (Knuth, volume 3, 6.4, algorithm R). */
static void index_remove(struct tri_swim *swim, uint32_t index)
{
    uint32_t mask = swim->index_mask;
    uint32_t gap = slot_of(swim, swim->records[index].node);
    uint32_t slot;

    while (swim->index[gap] != index)
        gap = (gap + 1) & mask;
    swim->index[gap] = NONE;
    for (slot = (gap + 1) & mask; swim->index[slot] != NONE;
         slot = (slot + 1) & mask) {
        uint32_t moved = swim->index[slot];
        uint32_t home = slot_of(swim, swim->records[moved].node);

        if (((slot - home) & mask) < ((slot - gap) & mask))
            continue;
        swim->index[gap] = moved;
        swim->index[slot] = NONE;
        gap = slot;
    }
}

/* --- the order of probing ------------------------------------------------- */

static void order_put(struct tri_swim *swim, uint32_t place, uint32_t index)
{
    swim->order[place] = index;
    swim->records[index].order = place;
}

/* A newcomer goes to a random place: before order_at it counts as probed. */
static void order_insert(struct tri_swim *swim, uint32_t index)
{
    uint32_t end = swim->order_len++;
    uint32_t place = tri_random_below(&swim->random, end + 1);

    if (place < swim->order_at) {
        uint32_t gap = swim->order_at++;

        if (gap != end)
            order_put(swim, end, swim->order[gap]);
        order_put(swim, gap, swim->order[place]);
    } else if (place != end) {
        order_put(swim, end, swim->order[place]);
    }
    order_put(swim, place, index);
}

static void order_remove(struct tri_swim *swim, uint32_t index)
{
    uint32_t place = swim->records[index].order;
    uint32_t last = --swim->order_len;

    assert(place <= last && swim->order[place] == index);
    if (place < swim->order_at) {
        swim->order_at--;
        order_put(swim, place, swim->order[swim->order_at]);
        place = swim->order_at;
    }
    if (place != last)
        order_put(swim, place, swim->order[last]);
    swim->records[index].order = NONE;
}

uint32_t tri_swim_next_in_order(struct tri_swim *swim)
{
    if (swim->order_len == 0)
        return NONE;
    if (swim->order_at >= swim->order_len) {
        for (uint32_t i = swim->order_len - 1; i > 0; i--) {
            uint32_t j = tri_random_below(&swim->random, i + 1);
            uint32_t other = swim->order[j];

            order_put(swim, j, swim->order[i]);
            order_put(swim, i, other);
        }
        swim->order_at = 0;
    }
    return swim->order[swim->order_at++];
}

uint32_t tri_swim_random_member(struct tri_swim *swim, uint64_t except)
{
    uint32_t place, index;

    if (swim->order_len == 0)
        return NONE;
    place = tri_random_below(&swim->random, swim->order_len);
    index = swim->order[place];
    if (swim->records[index].node != except)
        return index;
    if (swim->order_len == 1)
        return NONE;
    place += 1 + tri_random_below(&swim->random, swim->order_len - 1);
    return swim->order[place % swim->order_len];
}

/* --- details --------------------------------------------------------------- */

static void detail_start(struct tri_swim *swim, struct record *record,
                         uint64_t accuser)
{
    struct detail *detail;

    if (record->detail == NONE) {
        record->detail = swim->details_free;
        if (record->detail == NONE)
            record->detail = swim->details_len++;
        else
            swim->details_free = swim->details[record->detail].place;
    }
    assert(record->detail < swim->config.members_max);
    detail = &swim->details[record->detail];
    *detail = (struct detail){ .since_ns = swim->now_ns, .place = NONE };
    detail->accusers[detail->accusers_len++] = accuser;
}

static void detail_end(struct tri_swim *swim, struct record *record)
{
    if (record->detail == NONE)
        return;
    swim->details[record->detail].place = swim->details_free;
    swim->details_free = record->detail;
    record->detail = NONE;
}

static void suspects_add(struct tri_swim *swim, uint32_t index)
{
    struct detail *detail = &swim->details[swim->records[index].detail];

    detail->place = swim->suspects_len;
    swim->suspects[swim->suspects_len++] = index;
}

static void suspects_remove(struct tri_swim *swim, uint32_t index)
{
    uint32_t place = swim->details[swim->records[index].detail].place;
    uint32_t last = swim->suspects[--swim->suspects_len];

    assert(swim->suspects[place] == index);
    swim->suspects[place] = last;
    swim->details[swim->records[last].detail].place = place;
    if (swim->suspects_len == 0)
        swim->suspects_due_ns = TRI_NS_NEVER;
}

/* --- records ---------------------------------------------------------------- */

static void digest_flip(struct tri_swim *swim, const struct record *record)
{
    if (is_live(record->state))
        swim->buckets[bucket_of(record->node)] ^=
            tri_mix64(tri_mix64(record->node) + record->incarnation + 1);
}

static void record_init(struct tri_swim *swim, uint32_t index, uint64_t node)
{
    swim->records[index] = (struct record){
        .node = node, .order = NONE, .rumour = NONE, .detail = NONE,
    };
    index_add(swim, index);
    swim->counts[TRI_SWIM_UNKNOWN]++;
}

/* The dead that is remembered longest, and long enough; or NONE. */
static uint32_t oldest_dead(struct tri_swim *swim)
{
    uint64_t oldest_ns = TRI_NS_NEVER;
    uint32_t oldest = NONE;

    if (swim->now_ns < swim->forget_ns)
        return NONE;
    for (uint32_t i = 1; i < swim->records_len; i++) {
        const struct record *record = &swim->records[i];

        if (is_live(record->state))
            continue;
        if (swim->details[record->detail].since_ns < oldest_ns) {
            oldest_ns = swim->details[record->detail].since_ns;
            oldest = i;
        }
    }
    if (oldest == NONE) {
        swim->forget_ns = swim->now_ns + swim->config.times.period;
    } else if (swim->now_ns - oldest_ns < swim->config.times.forget) {
        swim->forget_ns = oldest_ns + swim->config.times.forget;
        oldest = NONE;
    }
    return oldest;
}

static void record_forget(struct tri_swim *swim, uint32_t index)
{
    struct record *record = &swim->records[index];

    assert(index != OWN && !is_live(record->state));
    tri_swim_rumour_drop(swim, index);
    detail_end(swim, record);
    index_remove(swim, index);
    swim->counts[record->state]--;
}

uint32_t tri_swim_record_add(struct tri_swim *swim, uint64_t node)
{
    uint32_t index = swim->records_len;

    assert(tri_swim_find(swim, node) == NONE);
    if (index < swim->config.members_max) {
        swim->records_len++;
    } else {
        index = oldest_dead(swim);
        if (index == NONE)
            return NONE;
        record_forget(swim, index);
    }
    record_init(swim, index, node);
    return index;
}

static void lowest_update(struct tri_swim *swim, const struct record *record)
{
    if (record->state == TRI_SWIM_ALIVE)
        swim->lowest = min_u64(swim->lowest, record->node);
    else if (record->node == swim->lowest)
        swim->lowest_stale = true;
}

uint64_t tri_swim_lowest(struct tri_swim *swim)
{
    if (swim->lowest_stale) {
        swim->lowest = UINT64_MAX;
        swim->lowest_stale = false;
        for (uint32_t i = 0; i < swim->records_len; i++)
            if (swim->records[i].state == TRI_SWIM_ALIVE)
                swim->lowest = min_u64(swim->lowest, swim->records[i].node);
    }
    return swim->lowest;
}

void tri_swim_record_set(struct tri_swim *swim, uint32_t index,
                         const struct tri_rumour *news)
{
    struct record *record = &swim->records[index];
    bool lived = is_live(record->state), lives = is_live(news->state);

    assert(news->state != TRI_SWIM_UNKNOWN);
    digest_flip(swim, record);
    swim->counts[record->state]--;
    if (record->state == TRI_SWIM_SUSPECT)
        suspects_remove(swim, index);
    record->state = news->state;
    record->incarnation = news->incarnation;
    record->evidence = news->evidence;
    swim->counts[record->state]++;
    digest_flip(swim, record);
    lowest_update(swim, record);
    if (record->state == TRI_SWIM_ALIVE)
        detail_end(swim, record);
    else
        detail_start(swim, record, news->accuser);
    if (record->state == TRI_SWIM_SUSPECT)
        suspects_add(swim, index);
    if (index == OWN || lived == lives)
        return;
    record->strong = false;
    if (lives)
        order_insert(swim, index);
    else
        order_remove(swim, index);
}
