/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the SWIM core does beside probes and rumours: digests that heal what
 * rumours missed, joining, leaving, and calling the dead and addresses.
 *
 * Digest:   DIGEST -->  differs: <-- BUCKETS
 *           STATE_REQ (the buckets that differ, ASK_BACK) -->
 *           <-- STATE, and a STATE_REQ for the same
 *   Entries go without cards; who meets nodes it does not know asks for those,
 *   by name, with cards: a STATE_REQ with rumours. A lost packet ends the
 *   exchange; the next one heals.
 *
 * Joining:  NONE --DO_JOIN--> SEEDS --STATE--> PULLING --all of it--> NONE
 *   JOIN to one seed after the other, in random order; after each round a
 *   pause (full jitter, doubling). A seed makes the joiner a member, tells so
 *   and answers: with the list, or in a larger cluster with some members
 *   (STATE, cursor 0), one of which is asked for the list, so that a mass join
 *   does not weigh on the seeds alone. Chunks are asked for by cursor, and
 *   asked for again when they do not come.
 *
 * Calling addresses: all whom a node knew may be gone while others, of whom it
 *   has not heard, live at their addresses. By rule A it judges nobody. So who
 *   hears nothing for long sends a JOIN now and then to an address: of a seed,
 *   or of one that it knows. Who is there and does not know it takes it in; the
 *   answer is that of a stranger, whose list is fetched:
 *   NONE --STATE of a stranger--> MERGING --all of it, or no answer--> NONE
 *   Who is heard by others calls no addresses: sides that fell apart, and hold
 *   members of each other for dead, are not to mix.
 */
#include "member/swim_internal.h"

#define PULL_TRIES_MAX 4
#define PULL_HELPERS_MAX 3
/* Who has no list to give may be joining, as we are, and wait for us: who was
 * put off so often in a row, which takes seconds, asks the seeds again. */
#define PULL_RETRIES_MAX 32
/* With more members the list does not come from the seed, but from one of
 * those that its answer names. */
#define SEED_SERVES_MAX 8u
/* Of suspects that are asked about together, so many are asked themselves. */
#define CALL_PINGS 4u
/* After a silence of so many periods, which no chance makes, all that we know
 * may be gone. */
#define LONELY_PERIODS 8u

/* --- STATE --------------------------------------------------------------------- */

static bool is_wanted(const struct record *record, uint64_t mask)
{
    if (mask == 0)
        return is_live(record->state);
    return (mask >> bucket_of(record->node) & 1) != 0;
}

/* One chunk from `start` on; returns where the next one starts. */
static uint32_t state_chunk(struct tri_swim *swim,
                            struct tri_swim_packet *packet, uint32_t start,
                            uint64_t mask, bool cards)
{
    uint32_t i;

    packet->start = start;
    packet->mask = mask;
    packet->flags = cards ? TRI_SWIM_CARDS : 0;
    for (i = start; i < swim->records_len; i++) {
        struct tri_rumour entry;

        if (!is_wanted(&swim->records[i], mask))
            continue;
        tri_swim_rumour_of(swim, i, 0, cards, &entry);
        if (!tri_swim_put(swim, packet, &entry))
            break;
    }
    packet->cursor = i < swim->records_len ? i : TRI_SWIM_CURSOR_END;
    return packet->cursor;
}

/* Up to `window` chunks. Returns true when the last one was among them. */
static bool state_send(struct tri_swim *swim, uint64_t to, uint32_t cursor,
                       uint64_t mask, bool cards, uint32_t window)
{
    struct tri_swim_packet *packet = NULL;

    while (window-- > 0 && cursor != TRI_SWIM_CURSOR_END) {
        struct tri_swim_packet *next =
            tri_swim_send(swim, TRI_SWIM_STATE, to);

        if (next == NULL)
            break;
        if (packet != NULL)
            packet->flags |= TRI_SWIM_MORE;
        packet = next;
        cursor = state_chunk(swim, packet, cursor, mask, cards);
    }
    return cursor == TRI_SWIM_CURSOR_END;
}

static void state_about(struct tri_swim *swim, uint64_t to, uint32_t index)
{
    struct tri_swim_packet *packet;
    struct tri_rumour entry;

    packet = tri_swim_send(swim, TRI_SWIM_STATE, to);
    if (packet == NULL)
        return;
    packet->flags = TRI_SWIM_CARDS;
    packet->target = swim->records[index].node;
    packet->cursor = TRI_SWIM_CURSOR_END;
    tri_swim_rumour_of(swim, index, 0, true, &entry);
    tri_swim_put(swim, packet, &entry);
}

static struct tri_swim_packet *request(struct tri_swim *swim, uint64_t to,
                                       uint32_t cursor, uint64_t mask,
                                       unsigned flags)
{
    struct tri_swim_packet *packet =
        tri_swim_send(swim, TRI_SWIM_STATE_REQ, to);

    if (packet == NULL)
        return NULL;
    packet->cursor = cursor;
    packet->mask = mask;
    packet->flags = (uint8_t)flags;
    return packet;
}

/* About one node; at most a few within a gossip interval, as rumours about it
 * come from all sides. */
void tri_swim_ask_about(struct tri_swim *swim, uint64_t to, uint64_t node)
{
    struct tri_swim_packet *packet;
    uint64_t pause_ns = swim->config.times.gossip / 8;

    if (swim->asked_ns != 0 && swim->now_ns < swim->asked_ns + pause_ns)
        return;
    packet = request(swim, to, 0, 0, TRI_SWIM_CARDS);
    if (packet == NULL)
        return;
    packet->target = node;
    swim->asked_ns = swim->now_ns;
}

bool tri_swim_last_call(struct tri_swim *swim, uint32_t index)
{
    uint64_t node = swim->records[index].node;
    uint32_t fanout = swim->config.fanout;

    if (swim->effects->sends_len + fanout + 1 > TRI_SWIM_SENDS_MAX)
        return false;
    tri_swim_ping(swim, index);
    for (uint32_t i = 0; i < fanout; i++) {
        uint32_t other = tri_swim_random_member(swim, node);
        struct tri_swim_packet *packet;

        if (other == NONE)
            break;
        packet = request(swim, swim->records[other].node, 0, 0, 0);
        packet->target = node;
    }
    return true;
}

uint32_t tri_swim_last_calls(struct tri_swim *swim, const uint32_t *indexes,
                             uint32_t len)
{
    uint32_t fanout = swim->config.fanout, named = 0;
    uint32_t pings = (uint32_t)tri_min(len, CALL_PINGS);
    uint64_t mask = 0;

    if (swim->effects->sends_len + fanout + pings > TRI_SWIM_SENDS_MAX)
        return 0;
    for (uint32_t i = 0; i < len; i++)
        mask |= 1ull << bucket_of(swim->records[indexes[i]].node);
    for (uint32_t i = 0; i < pings; i++)
        tri_swim_ping(swim, indexes[i]);
    for (uint32_t i = 0; i < fanout; i++) {
        uint32_t other =
            tri_swim_random_member(swim, swim->records[indexes[0]].node);
        struct tri_swim_packet *packet =
            request(swim, swim->records[other].node, 0, mask, 0);

        for (named = 0; named < len; named++) {
            struct tri_rumour suspect;

            tri_swim_rumour_of(swim, indexes[named], 0, false, &suspect);
            if (!tri_swim_put(swim, packet, &suspect))
                break;
        }
    }
    return named;
}

/* --- serving joiners --------------------------------------------------------------- */

/* A place among those served; NULL: all are taken. */
static struct session *session_of(struct tri_swim *swim, uint64_t node)
{
    struct session *found = NULL;

    for (uint32_t i = 0; i < swim->config.snapshots_max; i++) {
        struct session *session = &swim->sessions[i];

        if (session->node == node)
            return session;
        if (session->node == 0 || session->until_ns <= swim->now_ns)
            found = session;
    }
    return found;
}

static void retry_later(struct tri_swim *swim, uint64_t to, uint64_t least_ns)
{
    struct tri_swim_packet *packet =
        tri_swim_send(swim, TRI_SWIM_JOIN_RETRY, to);

    if (packet != NULL)
        packet->retry_ms = (uint32_t)((least_ns + random_ns(swim, least_ns)) /
                                          TRI_NS_PER_MS + 1);
}

/* The seed itself and some others, with cards, from a random place on. */
static void introduction(struct tri_swim *swim, uint64_t to)
{
    struct tri_swim_packet *packet =
        tri_swim_send(swim, TRI_SWIM_STATE, to);
    uint32_t at = tri_random_below(&swim->random, swim->records_len);
    struct tri_rumour entry;
    bool fits;

    if (packet == NULL)
        return;
    packet->flags = TRI_SWIM_CARDS;
    packet->start = packet->cursor = 0;
    tri_swim_rumour_of(swim, OWN, 0, true, &entry);
    fits = tri_swim_put(swim, packet, &entry);
    for (uint32_t i = 0; i < swim->records_len && fits; i++) {
        const struct record *record = &swim->records[at];

        if (at != OWN && record->node != to && is_live(record->state)) {
            tri_swim_rumour_of(swim, at, 0, true, &entry);
            fits = tri_swim_put(swim, packet, &entry);
        }
        at = at + 1 < swim->records_len ? at + 1 : 0;
    }
}

static void snapshot(struct tri_swim *swim, uint64_t to, uint32_t cursor,
                     struct session *session)
{
    session->node = to;
    session->until_ns = swim->now_ns + swim->config.times.period;
    if (state_send(swim, to, cursor, 0, true, WINDOW))
        session->node = 0;
}

/* Joiners that are members by now and ask again get the answer again. */
void tri_swim_on_join(struct tri_swim *swim,
                      const struct tri_swim_packet *packet)
{
    struct session *session = session_of(swim, packet->from);
    uint32_t index = tri_swim_find(swim, packet->from);
    uint64_t pause_ns = swim->config.times.join_backoff_min;
    struct tri_rumour newcomer = {
        .node = packet->from, .incarnation = packet->incarnation,
        .state = TRI_SWIM_ALIVE, .with_card = true,
    };

    if (swim->leaving || is_joining(swim)) {
        retry_later(swim, packet->from, pause_ns);
        return;
    }
    if (session == NULL && live_len(swim) <= SEED_SERVES_MAX) {
        retry_later(swim, packet->from, 2 * pause_ns);
        return;
    }
    if (index == NONE && !tri_swim_hear(swim, &newcomer, true)) {
        retry_later(swim, packet->from, swim->config.times.join_backoff_max);
        return;
    }
    if (live_len(swim) > SEED_SERVES_MAX)
        introduction(swim, packet->from);
    else
        snapshot(swim, packet->from, 0, session);
}

/* The members that a request names, with their cards if it wants them. */
static void state_named(struct tri_swim *swim,
                        const struct tri_swim_packet *names)
{
    bool cards = (names->flags & TRI_SWIM_CARDS) != 0;
    struct tri_swim_packet *packet = NULL;

    for (uint32_t i = 0; i < names->rumours_len; i++) {
        uint32_t index = tri_swim_find(swim, names->rumours[i].node);
        struct tri_rumour entry;

        if (index == NONE)
            continue;
        tri_swim_rumour_of(swim, index, 0, cards, &entry);
        if (packet != NULL && tri_swim_put(swim, packet, &entry))
            continue;
        packet = tri_swim_send(swim, TRI_SWIM_STATE, names->from);
        if (packet == NULL)
            return; /* a digest brings the rest */
        packet->flags = cards ? TRI_SWIM_CARDS : 0;
        packet->mask = names->mask;
        packet->cursor = TRI_SWIM_CURSOR_END;
        tri_swim_put(swim, packet, &entry);
    }
}

void tri_swim_on_state_req(struct tri_swim *swim,
                           const struct tri_swim_packet *packet)
{
    bool cards = (packet->flags & TRI_SWIM_CARDS) != 0;
    struct session *session;

    if (packet->target != 0) {
        uint32_t index = tri_swim_find(swim, packet->target);

        if (index != NONE)
            state_about(swim, packet->from, index);
        return;
    }
    if (packet->mask != 0 && packet->rumours_len > 0) {
        state_named(swim, packet);
        return;
    }
    if (packet->mask != 0) {
        state_send(swim, packet->from, packet->cursor, packet->mask, cards, 1);
        if ((packet->flags & TRI_SWIM_ASK_BACK) != 0)
            request(swim, packet->from, 0, packet->mask, 0);
        return;
    }
    session = session_of(swim, packet->from);
    if (session == NULL || is_joining(swim))
        retry_later(swim, packet->from, swim->config.times.join_backoff_min);
    else
        snapshot(swim, packet->from, packet->cursor, session);
}

/* --- joining ---------------------------------------------------------------------- */

/* How long an answer may take. */
static uint64_t answer_ns(const struct tri_swim *swim)
{
    return 2 * swim->config.times.timeout;
}

static void seeds_shuffle(struct tri_swim *swim)
{
    struct join *join = &swim->join;

    for (uint32_t i = join->seeds_len - 1; i > 0; i--) {
        uint32_t j = tri_random_below(&swim->random, i + 1);
        uint8_t other = join->seeds[j];

        join->seeds[j] = join->seeds[i];
        join->seeds[i] = other;
    }
}

void tri_swim_join_start(struct tri_swim *swim, uint32_t seeds_len)
{
    struct join *join = &swim->join;

    if (seeds_len == 0 || swim->leaving || swim->excluded)
        return;
    *join = (struct join){
        .phase = JOIN_SEEDS,
        .seeds_len = seeds_len < SEEDS_MAX ? seeds_len : SEEDS_MAX,
        .due_ns = swim->now_ns,
    };
    for (uint32_t i = 0; i < join->seeds_len; i++)
        join->seeds[i] = (uint8_t)i;
    seeds_shuffle(swim);
}

/* After a round a pause, from 0 to a limit that doubles (full jitter). */
static void seeds_tick(struct tri_swim *swim)
{
    const struct tri_swim_times *times = &swim->config.times;
    struct join *join = &swim->join;
    struct tri_swim_packet *packet;
    struct tri_rumour own;
    uint32_t index;

    if (join->seed_at == join->seeds_len) {
        uint64_t limit_ns = times->join_backoff_max;

        if (join->round < 16)
            limit_ns = min_u64(limit_ns, times->join_backoff_min
                                             << join->round);
        join->round++;
        join->seed_at = 0;
        seeds_shuffle(swim);
        join->due_ns = swim->now_ns + random_ns(swim, limit_ns);
        /* The answers may be what was lost: members that have heard of us
         * since then have the list, too. */
        index = tri_swim_random_member(swim, 0);
        if (index != NONE)
            request(swim, swim->records[index].node, 0, 0, TRI_SWIM_CARDS);
        return;
    }
    packet = tri_swim_send(swim, TRI_SWIM_JOIN, 0);
    if (packet == NULL)
        return;
    packet->seed = join->seeds[join->seed_at++];
    tri_swim_rumour_of(swim, OWN, 0, true, &own);
    tri_swim_put(swim, packet, &own);
    join->due_ns = swim->now_ns + answer_ns(swim);
}

/* Places in the list are the helper's own. */
static void pull_from_start(struct join *join)
{
    join->cursor = 0;
    join->window_end = 0;
    join->ahead_len = 0;
}

/* Whom we did not know answers no more: digests have to do. */
static void merge_end(struct tri_swim *swim)
{
    swim->join.phase = JOIN_NONE;
    tri_swim_digest_soon(swim);
}

/* The next part of the list. A helper that does not answer is left for
 * another; without any other, or when several did not answer, the seeds are
 * asked again: those that we know may all be gone. */
static void pull_tick(struct tri_swim *swim)
{
    struct join *join = &swim->join;
    uint32_t index = tri_swim_find(swim, join->helper);

    if (join->tries >= PULL_TRIES_MAX || index == NONE ||
        !is_live(swim->records[index].state)) {
        if (join->phase == JOIN_MERGING) {
            merge_end(swim);
            return;
        }
        index = tri_swim_random_member(swim, join->helper);
        if (index == NONE || join->helpers == PULL_HELPERS_MAX) {
            join->phase = JOIN_SEEDS;
            join->seed_at = join->seeds_len;
            join->due_ns = swim->now_ns;
            return;
        }
        join->helpers++;
        join->helper = swim->records[index].node;
        join->tries = 0;
        pull_from_start(join);
    }
    if (request(swim, join->helper, join->cursor, 0, TRI_SWIM_CARDS) == NULL)
        return;
    join->tries++;
    join->window_end = 0;
    join->due_ns = swim->now_ns + answer_ns(swim);
}

static void join_tick(struct tri_swim *swim)
{
    if (swim->join.phase == JOIN_NONE || swim->now_ns < swim->join.due_ns)
        return;
    if (swim->join.phase == JOIN_SEEDS)
        seeds_tick(swim);
    else
        pull_tick(swim);
}

/*
 * Members join. News of one go to those that are known, and when many join at
 * once these are few; so they compare lists, after pauses that double again to
 * the usual.
 */
void tri_swim_digest_soon(struct tri_swim *swim)
{
    uint64_t pause_ns = 2 * swim->config.times.period;

    if (swim->digest_pause_ns == pause_ns)
        return;
    swim->digest_pause_ns = pause_ns;
    swim->digest_ns = min_u64(swim->digest_ns,
                              swim->now_ns + random_ns(swim, pause_ns));
}

static void join_done(struct tri_swim *swim)
{
    swim->effects->joined = swim->join.phase == JOIN_PULLING;
    swim->join.phase = JOIN_NONE;
    tri_swim_digest_soon(swim);
}

void tri_swim_on_join_retry(struct tri_swim *swim,
                            const struct tri_swim_packet *packet)
{
    struct join *join = &swim->join;
    uint64_t pause_ns = min_u64(packet->retry_ms * TRI_NS_PER_MS,
                                2 * swim->config.times.join_backoff_max);

    if (join->phase == JOIN_SEEDS && join->seed_at > 0) {
        join->due_ns = swim->now_ns + pause_ns;
    } else if (join->phase >= JOIN_PULLING && packet->from == join->helper) {
        join->tries = PULL_TRIES_MAX;
        if (join->retries++ < PULL_RETRIES_MAX)
            join->helpers = 0;
        join->due_ns = swim->now_ns + pause_ns / 4;
    }
}

/* The first answer to a JOIN: we are a member, and say so, too. */
static void join_accepted(struct tri_swim *swim,
                          const struct tri_swim_packet *packet,
                          enum join_phase phase)
{
    struct join *join = &swim->join;

    join->phase = phase;
    join->helper = packet->from;
    join->tries = 0;
    join->helpers = 0;
    join->retries = 0;
    pull_from_start(join);
    join->due_ns = swim->now_ns + answer_ns(swim);
    tri_swim_rumour_start(swim, OWN, true);
}

bool tri_swim_merge_start(struct tri_swim *swim,
                          const struct tri_swim_packet *packet)
{
    uint64_t late_ns = swim->config.times.period;

    if (swim->join.phase != JOIN_NONE || swim->knocked_ns == 0 ||
        swim->now_ns > swim->knocked_ns + late_ns || packet->mask != 0 ||
        packet->target != 0)
        return false;
    swim->knocked_ns = 0;
    join_accepted(swim, packet, JOIN_MERGING);
    return true;
}

/* Chunks may arrive in any order; those behind a gap are remembered. */
static void chunk_take(struct join *join, uint32_t start, uint32_t end)
{
    uint32_t kept = 0;
    bool advanced = false;

    if (start > join->cursor) {
        if (join->ahead_len < WINDOW) {
            join->ahead[join->ahead_len].start = start;
            join->ahead[join->ahead_len++].end = end;
        }
        return;
    }
    if (end <= join->cursor)
        return;
    do { /* ends grow, so each turn takes one at least */
        advanced = false;
        join->cursor = end;
        for (uint32_t i = 0; i < join->ahead_len; i++)
            if (join->ahead[i].start <= join->cursor &&
                join->ahead[i].end > join->cursor) {
                end = join->ahead[i].end;
                advanced = true;
            }
    } while (advanced);
    for (uint32_t i = 0; i < join->ahead_len; i++)
        if (join->ahead[i].end > join->cursor)
            join->ahead[kept++] = join->ahead[i];
    join->ahead_len = kept;
    join->tries = 0;
    join->helpers = 0;
    join->retries = 0;
}

static void join_chunk(struct tri_swim *swim,
                       const struct tri_swim_packet *packet)
{
    struct join *join = &swim->join;

    if (packet->from != join->helper)
        return;
    if (packet->cursor == 0) { /* an introduction; to merge, it is of those
                                  that we want: no other would do */
        join->tries = join->phase == JOIN_MERGING ? 0 : PULL_TRIES_MAX;
        join->helpers = 0;
        join->due_ns = swim->now_ns;
        return;
    }
    if ((packet->flags & TRI_SWIM_MORE) == 0)
        join->window_end = packet->cursor;
    chunk_take(join, packet->start, packet->cursor);
    if (join->tries == 0)
        join->due_ns = swim->now_ns + answer_ns(swim);
    if (join->cursor == TRI_SWIM_CURSOR_END)
        join_done(swim);
    else if (join->cursor >= join->window_end && join->window_end != 0)
        join->due_ns = swim->now_ns;
}

/* Adds a node to those whose cards are wanted. */
static struct tri_swim_packet *ask_name(struct tri_swim *swim,
                                        struct tri_swim_packet *names,
                                        const struct tri_swim_packet *packet,
                                        const struct tri_rumour *entry)
{
    if (packet->mask == 0 || (packet->flags & TRI_SWIM_CARDS) != 0)
        return NULL;
    if (names == NULL)
        names = request(swim, packet->from, 0, packet->mask, TRI_SWIM_CARDS);
    if (names != NULL)
        tri_swim_put(swim, names, entry);
    return names;
}

void tri_swim_on_state(struct tri_swim *swim,
                       const struct tri_swim_packet *packet)
{
    bool snapshot_part = packet->mask == 0 && packet->target == 0;
    struct tri_swim_packet *names = NULL;

    if (snapshot_part && swim->join.phase == JOIN_SEEDS)
        join_accepted(swim, packet, JOIN_PULLING);
    for (uint32_t i = 0; i < packet->rumours_len; i++) {
        const struct tri_rumour *entry = &packet->rumours[i];

        if (is_live(entry->state) && !entry->with_card &&
            tri_swim_find(swim, entry->node) == NONE)
            names = ask_name(swim, names, packet, entry);
        else
            tri_swim_hear(swim, entry, packet->mask != 0);
        if (!snapshot_part)
            tri_swim_call_answered(swim, entry->node);
    }
    if (swim->excluded)
        return;
    if (snapshot_part && swim->join.phase != JOIN_NONE)
        join_chunk(swim, packet);
    else if (packet->mask != 0 && packet->cursor != TRI_SWIM_CURSOR_END)
        request(swim, packet->from, packet->cursor, packet->mask,
                packet->flags & TRI_SWIM_CARDS);
}

/* --- digests ------------------------------------------------------------------------ */

void tri_swim_on_digest(struct tri_swim *swim,
                        const struct tri_swim_packet *packet)
{
    struct tri_swim_packet *answer;
    uint64_t digest = tri_swim_digest(swim);

    if (packet->digest == digest)
        return;
    answer = tri_swim_send(swim, TRI_SWIM_BUCKETS_, packet->from);
    if (answer == NULL)
        return;
    answer->digest = digest;
    memcpy(answer->buckets, swim->buckets, sizeof(answer->buckets));
}

void tri_swim_on_buckets(struct tri_swim *swim,
                         const struct tri_swim_packet *packet)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < TRI_SWIM_BUCKETS; i++)
        if (packet->buckets[i] != swim->buckets[i])
            mask |= 1ull << i;
    if (mask != 0)
        request(swim, packet->from, 0, mask, TRI_SWIM_ASK_BACK);
}

static uint64_t digest_interval_ns(const struct tri_swim *swim)
{
    uint32_t log2 = tri_log2_up(live_len(swim));

    return swim->config.times.digest * (1 + (log2 > 5 ? log2 - 5 : 0));
}

/* The pause is drawn from 3/4 to 5/4 of the interval, so that nodes which
 * started together do not stay in step. */
static void digest_tick(struct tri_swim *swim)
{
    uint64_t interval_ns = digest_interval_ns(swim);
    struct tri_swim_packet *packet;
    uint32_t index;

    if (swim->now_ns < swim->digest_ns || swim->order_len == 0)
        return;
    index = tri_swim_random_member(swim, 0);
    packet = tri_swim_send(swim, TRI_SWIM_DIGEST, swim->records[index].node);
    if (packet == NULL)
        return;
    packet->digest = tri_swim_digest(swim);
    if (swim->digest_pause_ns != 0 && swim->digest_pause_ns < interval_ns) {
        interval_ns = swim->digest_pause_ns;
        swim->digest_pause_ns *= 2;
    }
    swim->digest_ns = swim->now_ns + interval_ns * 3 / 4 +
                      random_ns(swim, interval_ns / 2);
}

/* --- calling the dead ----------------------------------------------------------------- */

/* One whose card the caller has, from a random place on; NONE: there is none.
 */
static uint32_t random_met(struct tri_swim *swim,
                           bool (*suits)(const struct record *record))
{
    uint32_t len = swim->records_len;
    uint32_t at = tri_random_below(&swim->random, len);

    for (uint32_t i = 0; i < len; i++, at = at + 1 < len ? at + 1 : 0)
        if (at != OWN && !swim->records[at].unmet &&
            suits(&swim->records[at]))
            return at;
    return NONE;
}

static bool died_by_silence(const struct record *record)
{
    return record->state == TRI_SWIM_DEAD &&
           record->evidence != TRI_SWIM_PROOF;
}

/*
 * Somebody died by silence. Was it a cut, it may end soon, and the fewer are
 * left that have met the other side the longer it takes them to find it: so
 * they call soon, after pauses that double again to the usual.
 */
void tri_swim_announce_soon(struct tri_swim *swim)
{
    uint64_t pause_ns = 2 * swim->config.times.period;

    if (swim->announce_pause_ns == pause_ns)
        return;
    swim->announce_pause_ns = pause_ns;
    swim->announce_ns = min_u64(swim->announce_ns,
                                swim->now_ns + random_ns(swim, pause_ns));
}

/* The pause is drawn as that of digests. */
static void announce_wait(struct tri_swim *swim)
{
    uint64_t interval_ns = swim->config.times.announce;

    if (swim->announce_pause_ns != 0 &&
        swim->announce_pause_ns < interval_ns) {
        interval_ns = swim->announce_pause_ns;
        swim->announce_pause_ns *= 2;
    }
    swim->announce_ns =
        swim->now_ns + interval_ns * 3 / 4 + random_ns(swim, interval_ns / 2);
}

/* Each call is made with a chance of dead / alive, so each of the dead gets
 * about `fanout` of them, from all members. */
static void announce_tick(struct tri_swim *swim)
{
    uint32_t dead = swim->counts[TRI_SWIM_DEAD];
    uint32_t calls = (uint32_t)tri_min(dead, swim->config.fanout);

    if (dead == 0 || swim->now_ns < swim->announce_ns)
        return;
    announce_wait(swim);
    for (uint32_t i = 0; i < calls; i++) {
        uint32_t index;

        if (tri_random_below(&swim->random, live_len(swim)) >= dead)
            continue;
        index = random_met(swim, died_by_silence);
        if (index == NONE)
            return;
        tri_swim_send(swim, TRI_SWIM_ANNOUNCE, swim->records[index].node);
    }
}

/* --- calling addresses ------------------------------------------------------- */

static bool is_any(const struct record *record)
{
    (void)record;
    return true;
}

/* A JOIN to a seed, or to where somebody is or was that we know: another may
 * live there now. */
static void knock(struct tri_swim *swim)
{
    struct join *join = &swim->join;
    uint32_t index = random_met(swim, is_any);
    bool by_seed = join->seeds_len > 0 &&
                   (index == NONE || tri_random_below(&swim->random, 2) == 0);
    struct tri_swim_packet *packet;
    struct tri_rumour own;

    if (index == NONE && !by_seed)
        return;
    packet = tri_swim_send(swim, TRI_SWIM_JOIN, 0);
    if (packet == NULL)
        return;
    if (by_seed) {
        packet->seed =
            join->seeds[tri_random_below(&swim->random, join->seeds_len)];
    } else {
        packet->seed = TRI_SWIM_SEED_NONE;
        packet->target = swim->records[index].node;
    }
    tri_swim_rumour_of(swim, OWN, 0, true, &own);
    tri_swim_put(swim, packet, &own);
    swim->knocked_ns = swim->now_ns;
}

static uint64_t knock_due(const struct tri_swim *swim)
{
    bool knows_any = swim->join.seeds_len > 0 || swim->records_len > 1;
    uint64_t since_ns =
        swim->heard_ns + LONELY_PERIODS * swim->config.times.period;

    if (!knows_any || swim->join.phase != JOIN_NONE)
        return TRI_NS_NEVER;
    return swim->knock_pause_ns == 0 ? since_ns
                                     : tri_max(since_ns, swim->knock_ns);
}

/* After pauses that double, each from 3/4 to 5/4 of its length. */
static void knock_tick(struct tri_swim *swim)
{
    const struct tri_swim_times *times = &swim->config.times;
    uint64_t pause_ns = tri_max(times->period, swim->knock_pause_ns) * 2;

    if (swim->now_ns < knock_due(swim))
        return;
    swim->knock_pause_ns = min_u64(pause_ns, times->announce);
    swim->knock_ns = swim->now_ns + swim->knock_pause_ns * 3 / 4 +
                     random_ns(swim, swim->knock_pause_ns / 2);
    knock(swim);
}

/* --- leaving -------------------------------------------------------------------------- */

void tri_swim_leave_start(struct tri_swim *swim)
{
    struct tri_rumour left = {
        .node = swim->config.node, .state = TRI_SWIM_LEFT,
        .incarnation = swim->records[OWN].incarnation,
    };
    bool alone = swim->order_len == 0;

    if (swim->leaving || swim->excluded)
        return;
    swim->leaving = true;
    swim->join.phase = JOIN_NONE;
    tri_swim_probes_drop(swim);
    tri_swim_record_set(swim, OWN, &left);
    tri_swim_rumour_start(swim, OWN, false);
    if (swim->order_len <= TELL_ALL_MAX)
        swim->tell_at = 0;
    swim->linger_ns =
        alone ? swim->now_ns : swim->now_ns + swim->config.times.linger_max;
}

/* Enough: as often as any rumour; few members were told by name, and once more
 * in case that was lost. */
static bool is_told(const struct tri_swim *swim)
{
    const struct record *own = &swim->records[OWN];

    if (swim->tell_at != NONE)
        return false;
    if (own->rumour == NONE || swim->order_len == 0)
        return true;
    return swim->order_len <= TELL_ALL_MAX &&
           swim->rumours[own->rumour].sent >=
               2 * tri_min(swim->config.fanout, swim->order_len);
}

static void leave_tick(struct tri_swim *swim)
{
    if (!is_told(swim) && swim->now_ns < swim->linger_ns)
        return;
    swim->silent = true;
    swim->effects->left = true;
}

/* --- the clock ------------------------------------------------------------------------- */

uint64_t tri_swim_sync_due(const struct tri_swim *swim)
{
    uint64_t due_ns = TRI_NS_NEVER;

    if (swim->leaving)
        return is_told(swim) ? swim->now_ns : swim->linger_ns;
    if (swim->join.phase != JOIN_NONE)
        due_ns = swim->join.due_ns;
    if (swim->order_len > 0)
        due_ns = min_u64(due_ns, swim->digest_ns);
    if (swim->counts[TRI_SWIM_DEAD] > 0)
        due_ns = min_u64(due_ns, swim->announce_ns);
    return min_u64(due_ns, knock_due(swim));
}

void tri_swim_sync_tick(struct tri_swim *swim)
{
    if (swim->leaving) {
        leave_tick(swim);
        return;
    }
    join_tick(swim);
    digest_tick(swim);
    announce_tick(swim);
    knock_tick(swim);
}
