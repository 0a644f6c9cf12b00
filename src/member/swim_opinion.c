/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What news do to the SWIM core's table.
 *
 * What is known against what is told ("=": of the same incarnation, ">": of a
 * higher one, "any": whatever it is; all else is old and changes nothing):
 *
 *   known \ told  ALIVE        SUSPECT              DEAD, LEFT
 *   unknown       added        added                remembered
 *   ALIVE         > taken      = > taken            any: taken
 *   SUSPECT       > refuted    = confirmed          any: taken
 *                              > a new suspicion
 *   DEAD, LEFT    never        never                never
 *
 * About this node: SUSPECT is refuted by a higher incarnation; DEAD, told by a
 * member, excludes it, as nobody can take it back.
 */
#include "member/swim_internal.h"

/* More last calls at a time are made together. */
#define CALLS_SINGLE_MAX 3u

/* ln n, n > 0: by the exponent and the series of artanh, so that a seed gives
 * the same run on every machine and libm is not needed. */
double tri_swim_ln(uint32_t n)
{
    uint32_t exponent = 31 - (uint32_t)__builtin_clz(n);
    double m = (double)n / (double)(1ull << exponent);
    double y = (m - 1) / (m + 1), power = y, sum = 0;

    for (unsigned i = 1; i <= 25; i += 2) {
        sum += power / i;
        power *= y * y;
    }
    return 2 * sum + exponent * 0.69314718055994530942;
}

uint32_t tri_swim_transmissions(uint32_t n, double loss)
{
    double m = (tri_swim_ln(n < 1 ? 1 : n) + 7) / (1 - loss);
    uint32_t floor = (uint32_t)m;

    floor += (double)floor < m;
    return floor < LEVELS ? floor : LEVELS - 1;
}

uint64_t tri_swim_suspicion_min_ns(const struct tri_swim_config *config,
                                   uint32_t n)
{
    double log = tri_swim_ln(n < 1 ? 1 : n) / 2.30258509299404568402;

    return (uint64_t)(config->alpha * (log > 1 ? log : 1) *
                      (double)config->times.period);
}

static void change_add(struct tri_swim *swim, uint32_t index, unsigned before,
                       uint64_t accuser)
{
    const struct record *record = &swim->records[index];
    struct tri_swim_effects *effects = swim->effects;

    if (index == OWN || effects->changes_len == TRI_SWIM_CHANGES_MAX)
        return; /* callers keep room */
    effects->changes[effects->changes_len++] = (struct tri_swim_change){
        .node = record->node,
        .accuser = accuser,
        .incarnation = record->incarnation,
        .before = (uint8_t)before,
        .after = record->state,
        .evidence = record->evidence,
    };
}

/* --- suspicion ------------------------------------------------------------- */

/*
 * Strong evidence asks for no confirmation; among few nobody could give any,
 * so silence has to last twice as long.
 */
static void suspicion_start(struct tri_swim *swim, uint32_t index)
{
    struct detail *detail = &swim->details[swim->records[index].detail];
    uint32_t n = live_len(swim), k = swim->config.alpha - 2;

    if (k > ACCUSERS_MAX - 1)
        k = ACCUSERS_MAX - 1;
    if (n < k + 2 || n <= 3 || !has_rule(swim, TRI_SWIM_WITHOUT_LIFEGUARD))
        k = 0;
    detail->confirmations = (uint8_t)k;
    detail->min_ns = tri_swim_suspicion_min_ns(&swim->config, n);
    detail->max_ns = detail->min_ns * swim->config.beta;
    if (swim->records[index].evidence == TRI_SWIM_STRONG ||
        !has_rule(swim, TRI_SWIM_WITHOUT_LIFEGUARD))
        detail->max_ns = detail->min_ns;
    else if (n <= 3)
        detail->min_ns = detail->max_ns = 2 * detail->min_ns;
}

/* max - (max - min) ln(C + 1) / ln(K + 1): Lifeguard, section IV. */
static uint64_t suspicion_decayed_ns(const struct detail *detail)
{
    uint32_t c = detail->accusers_len - 1u, k = detail->confirmations;
    double span = (double)(detail->max_ns - detail->min_ns);

    if (c >= k)
        return detail->since_ns + detail->min_ns;
    return detail->since_ns + detail->max_ns -
           (uint64_t)(span * tri_swim_ln(c + 1) / tri_swim_ln(k + 1));
}

/*
 * A refutation may have passed by while this node was away or deaf; and when
 * nobody else has declared the death long since, it probably did. Then the
 * suspect and some others are asked a period before the verdict, which has to
 * wait until one of them agrees.
 */
static bool wants_call(const struct tri_swim *swim,
                       const struct detail *detail)
{
    uint64_t end_ns = suspicion_decayed_ns(detail);
    bool is_late = end_ns - detail->since_ns > detail->min_ns * 3 / 2;

    return (is_late || detail->doubtful) && !detail->answered &&
           swim->order_len > 1 && has_rule(swim, TRI_SWIM_WITHOUT_RULE_A);
}

/* The verdict, or the call before it. */
static uint64_t suspicion_end_ns(const struct tri_swim *swim,
                                 const struct detail *detail)
{
    uint64_t end_ns = suspicion_decayed_ns(detail);
    uint64_t period_ns = swim->config.times.period;

    if (detail->called_ns == 0)
        return wants_call(swim, detail) ? end_ns - period_ns : end_ns;
    return tri_max(end_ns, detail->called_ns + period_ns);
}

void tri_swim_call_answered(struct tri_swim *swim, uint64_t node)
{
    uint32_t index = tri_swim_find(swim, node);

    struct detail *detail;

    if (index == NONE || swim->records[index].state != TRI_SWIM_SUSPECT)
        return;
    detail = &swim->details[swim->records[index].detail];
    detail->answered = detail->called_ns != 0;
}

static void suspicion_watch(struct tri_swim *swim, uint32_t index)
{
    const struct detail *detail = &swim->details[swim->records[index].detail];

    swim->suspects_due_ns =
        min_u64(swim->suspects_due_ns, suspicion_end_ns(swim, detail));
}

/* Another accuser. Returns true when it was not known, and counts. */
static bool suspicion_confirm(struct tri_swim *swim, uint32_t index,
                              const struct tri_rumour *news)
{
    struct record *record = &swim->records[index];
    struct detail *detail = &swim->details[record->detail];

    for (uint32_t i = 0; i < detail->accusers_len; i++)
        if (detail->accusers[i] == news->accuser)
            return false;
    if (detail->accusers_len > detail->confirmations)
        return false; /* enough */
    detail->accusers[detail->accusers_len++] = news->accuser;
    suspicion_watch(swim, index);
    return true;
}

void tri_swim_strong(struct tri_swim *swim, uint32_t index)
{
    struct record *record = &swim->records[index];
    struct detail *detail = &swim->details[record->detail];

    record->strong = true;
    if (record->state != TRI_SWIM_SUSPECT)
        return;
    record->evidence = TRI_SWIM_STRONG;
    detail->min_ns = tri_swim_suspicion_min_ns(&swim->config, live_len(swim));
    detail->max_ns = detail->min_ns;
    suspicion_watch(swim, index);
}

/* True: rule A forbids a death now. */
static bool is_deaf(const struct tri_swim *swim)
{
    uint64_t window_ns = swim->config.times.period;
    uint32_t n = live_len(swim);

    if (n <= 2 || !has_rule(swim, TRI_SWIM_WITHOUT_RULE_A))
        return false;
    if (n == 3)
        window_ns *= 2; /* there is one other to be heard from */
    return swim->heard_ns + window_ns < swim->now_ns || swim->heard == 0;
}

/* Who is silent for want of a core will speak, however long that takes. */
static bool is_starved(struct tri_swim *swim, const struct record *record)
{
    const struct tri_swim_config *config = &swim->config;
    struct detail *detail = &swim->details[record->detail];

    if (config->is_starved == NULL ||
        !config->is_starved(config->context, record->node))
        return false;
    detail->since_ns += swim->now_ns - suspicion_decayed_ns(detail) +
                        config->times.period;
    swim->metrics.starved++;
    return true;
}

/* A node that has heard nothing waits with its verdicts until it hears
 * something (heard in swim_core.c makes them due again). */
static void suspicions_postpone(struct tri_swim *swim)
{
    swim->postponed = true;
    swim->suspects_due_ns = TRI_NS_NEVER;
    swim->metrics.dropped_by_rule_a++;
    tri_swim_health_add(swim, 3);
}

void tri_swim_suspicions_shift(struct tri_swim *swim, uint64_t gap_ns)
{
    for (uint32_t i = 0; i < swim->suspects_len; i++) {
        const struct record *record = &swim->records[swim->suspects[i]];
        struct detail *detail = &swim->details[record->detail];

        detail->since_ns = min_u64(detail->since_ns + gap_ns, swim->now_ns);
        detail->doubtful = true;
        detail->answered = false;
    }
    if (swim->suspects_due_ns != TRI_NS_NEVER)
        swim->suspects_due_ns += gap_ns;
}

/* This suspect and those whose first call would come within a period. Returns
 * how many. */
static uint32_t calls_due(const struct tri_swim *swim, uint32_t index,
                          uint32_t called[TRI_SWIM_RUMOURS_MAX])
{
    uint64_t soon_ns = swim->now_ns + swim->config.times.period;
    uint32_t len = 0;

    called[len++] = index;
    for (uint32_t i = 0; i < swim->suspects_len; i++) {
        uint32_t other = swim->suspects[i];
        const struct detail *detail =
            &swim->details[swim->records[other].detail];

        if (other != index && len < TRI_SWIM_RUMOURS_MAX &&
            wants_call(swim, detail) &&
            suspicion_end_ns(swim, detail) <=
                (detail->called_ns == 0 ? soon_ns : swim->now_ns))
            called[len++] = other;
    }
    return len;
}

/* When a good part of a large cluster is gone, as many calls would be due at
 * once: then some others are asked about all of them in one packet. */
static void calls_make(struct tri_swim *swim, uint32_t index)
{
    uint32_t called[TRI_SWIM_RUMOURS_MAX];
    uint32_t len = calls_due(swim, index, called);

    if (len > CALLS_SINGLE_MAX)
        len = tri_swim_last_calls(swim, called, len);
    else
        len = tri_swim_last_call(swim, index) ? 1 : 0;
    for (uint32_t i = 0; i < len; i++)
        swim->details[swim->records[called[i]].detail].called_ns =
            swim->now_ns;
}

void tri_swim_suspicions_tick(struct tri_swim *swim)
{
    uint64_t due_ns = TRI_NS_NEVER;

    if (swim->now_ns < swim->suspects_due_ns)
        return;
    for (uint32_t i = 0; i < swim->suspects_len;) {
        uint32_t index = swim->suspects[i];
        struct record *record = &swim->records[index];
        struct detail *detail = &swim->details[record->detail];
        uint64_t end_ns = suspicion_end_ns(swim, detail);

        if (end_ns > swim->now_ns ||
            swim->effects->changes_len + 2 > TRI_SWIM_CHANGES_MAX) {
            due_ns = min_u64(due_ns, end_ns);
            i++;
        } else if (is_deaf(swim)) {
            suspicions_postpone(swim);
            return;
        } else if (wants_call(swim, detail)) {
            calls_make(swim, index);
            due_ns = min_u64(due_ns, suspicion_end_ns(swim, detail));
            i++;
        } else if (is_starved(swim, record)) {
            due_ns = min_u64(due_ns, suspicion_end_ns(swim, detail));
            i++;
        } else { /* the last suspect takes its place in the array */
            tri_swim_accuse(swim, index, TRI_SWIM_DEAD, record->evidence);
        }
    }
    swim->suspects_due_ns = due_ns;
}

/* --- about this node --------------------------------------------------------- */

static void refute(struct tri_swim *swim, const struct tri_rumour *news)
{
    struct record *own = &swim->records[OWN];
    struct tri_rumour alive = {
        .node = own->node, .state = TRI_SWIM_ALIVE,
        .incarnation = news->incarnation,
    };

    if (news->incarnation < own->incarnation) { /* was refuted already */
        if (own->rumour == NONE)
            tri_swim_rumour_start(swim, OWN, false);
        return;
    }
    if (alive.incarnation < UINT32_MAX)
        alive.incarnation++;
    tri_swim_record_set(swim, OWN, &alive);
    tri_swim_rumour_start(swim, OWN, false);
    swim->metrics.refutations++;
    tri_swim_health_add(swim, 1);
}

static void exclude(struct tri_swim *swim, const struct tri_rumour *news)
{
    struct tri_rumour dead = *news;

    if (dead.incarnation < swim->records[OWN].incarnation)
        dead.incarnation = swim->records[OWN].incarnation;
    swim->excluded = true;
    swim->effects->excluded = true;
    tri_swim_probes_drop(swim);
    tri_swim_record_set(swim, OWN, &dead);
}

static void hear_of_own(struct tri_swim *swim, const struct tri_rumour *news)
{
    if (swim->leaving || swim->excluded)
        return;
    if (news->state == TRI_SWIM_SUSPECT ||
        (news->state == TRI_SWIM_DEAD &&
         !has_rule(swim, TRI_SWIM_WITHOUT_FINALITY)))
        refute(swim, news);
    else if (!is_live(news->state))
        exclude(swim, news);
}

/* Views of one group (the upper half says which): what they agreed on since the
 * cluster fell apart decides, as only one side can have had a quorum. 0: they
 * say nothing. */
static int compare_views(uint64_t theirs, uint64_t ours)
{
    if (theirs == 0 || ours == 0 || theirs >> 32 != ours >> 32)
        return 0;
    return (theirs > ours) - (theirs < ours);
}

/* Members of our side: that are ALIVE, and to whom we are not dead. */
static uint32_t side_len(const struct tri_swim *swim)
{
    uint32_t len = 0;

    for (uint32_t i = 0; i < swim->records_len; i++)
        len += swim->records[i].state == TRI_SWIM_ALIVE &&
               !swim->records[i].turned;
    return len;
}

/*
 * Its side against ours. From a node that is dead here: the cluster fell
 * apart, and each side knows its own. The one that went on agreeing on views
 * goes on; without views the larger one, with equals the one that has the
 * lowest node id. Whoever is told by that one ends.
 * From a member: it was wrong about us, but can not take it back. If its side
 * is ours, the rumour is on its way to all; if it is a small one that a cut
 * has separated meanwhile, it is it that will be excluded. Who has told us
 * that is not of our side: else one whom all others have put out, and who
 * lists them still, would take itself for the larger side.
 */
void tri_swim_told_excluded(struct tri_swim *swim,
                            const struct tri_swim_packet *packet,
                            bool from_dead)
{
    uint32_t sender = tri_swim_find(swim, packet->from);
    uint64_t lowest = tri_swim_lowest(swim);
    struct tri_rumour dead = {
        .node = swim->config.node, .accuser = packet->from,
        .state = TRI_SWIM_DEAD, .evidence = TRI_SWIM_WEAK,
        .incarnation = swim->records[OWN].incarnation,
    };
    int views = compare_views(packet->view_epoch, swim->view_epoch);
    uint32_t ours;
    bool larger;

    if (swim->leaving || swim->excluded)
        return;
    if (!from_dead && sender != NONE) {
        swim->records[sender].turned = true;
        if (lowest == packet->from)
            lowest = swim->config.node; /* any above it will do */
    }
    ours = side_len(swim);
    larger = packet->alive_len != ours ? packet->alive_len > ours
                                       : packet->lowest <= lowest;
    if (views != 0)
        larger = views > 0;
    if (larger) {
        exclude(swim, &dead);
        if (from_dead)
            swim->winner = packet->from;
        swim->hints_len = from_dead ? 2 * swim->config.fanout : 0;
    } else if (from_dead) {
        tri_swim_send(swim, TRI_SWIM_EXCLUDED, packet->from);
    }
}

/*
 * A member was excluded by one whom we never met, as it died to our side
 * before we came: we can not ask it, and share the fate of our side. Others are
 * not told so by us, who have not heard it from the winner: it may be out by
 * now, and who joined since then would follow, and tell it on, for ever. Or a
 * seed remembers our id as that of a dead: whom we want to join has the say.
 */
void tri_swim_follow_excluded(struct tri_swim *swim,
                              const struct tri_swim_packet *packet)
{
    struct tri_rumour dead = {
        .node = swim->config.node, .accuser = packet->from,
        .state = TRI_SWIM_DEAD, .evidence = TRI_SWIM_WEAK,
        .incarnation = swim->records[OWN].incarnation,
    };

    if (swim->leaving || swim->excluded)
        return;
    exclude(swim, &dead);
}

/* --- about others ------------------------------------------------------------ */

static bool is_news(const struct tri_swim *swim, const struct record *record,
                    const struct tri_rumour *news)
{
    uint32_t known = record->incarnation, told = news->incarnation;

    if (!is_live(record->state))
        return record->state == TRI_SWIM_DEAD &&
               news->state == TRI_SWIM_ALIVE && told > known &&
               !has_rule(swim, TRI_SWIM_WITHOUT_FINALITY);
    switch (news->state) {
    case TRI_SWIM_ALIVE:
        return told > known;
    case TRI_SWIM_SUSPECT:
        return told > known ||
               (told == known && record->state == TRI_SWIM_ALIVE);
    default: /* DEAD, LEFT */
        return has_rule(swim, TRI_SWIM_WITHOUT_FINALITY) || told >= known;
    }
}

static uint8_t evidence_of(const struct record *record,
                           const struct tri_rumour *news)
{
    switch (news->state) {
    case TRI_SWIM_SUSPECT:
        return record->strong || news->evidence == TRI_SWIM_STRONG
                   ? TRI_SWIM_STRONG
                   : TRI_SWIM_WEAK;
    case TRI_SWIM_DEAD:
        return news->evidence == TRI_SWIM_NO_EVIDENCE ? TRI_SWIM_WEAK
                                                      : news->evidence;
    default:
        return TRI_SWIM_NO_EVIDENCE;
    }
}

static void take(struct tri_swim *swim, uint32_t index,
                 const struct tri_rumour *news, bool spread)
{
    struct record *record = &swim->records[index];
    unsigned before = record->state;
    struct tri_rumour now = *news;

    if (now.incarnation < record->incarnation)
        now.incarnation = record->incarnation;
    now.evidence = evidence_of(record, news);
    tri_swim_record_set(swim, index, &now);
    if (now.state == TRI_SWIM_SUSPECT) {
        suspicion_start(swim, index);
        suspicion_watch(swim, index);
    }
    if (now.state == TRI_SWIM_DEAD && now.evidence != TRI_SWIM_PROOF)
        tri_swim_announce_soon(swim);
    if (before != now.state)
        change_add(swim, index, before, now.accuser);
    if (spread)
        tri_swim_rumour_start(swim, index, false);
}

/* Of a dead unknown a record is made, so that old news do not revive it; it is
 * no news to users. */
static bool add(struct tri_swim *swim, const struct tri_rumour *news,
                bool spread)
{
    struct tri_rumour alive = {
        .node = news->node, .incarnation = news->incarnation,
        .state = TRI_SWIM_ALIVE,
    };
    bool lives = is_live(news->state);
    uint32_t index;

    if (lives && !news->with_card)
        return false;
    if (!lives && swim->records_len == swim->config.members_max)
        return false;
    index = tri_swim_record_add(swim, news->node);
    if (index == NONE) {
        swim->metrics.rumours_dropped++;
        return false;
    }
    if (swim->order_len == 0) /* no rest before the first probe of all */
        swim->probe_ns =
            swim->now_ns + random_ns(swim, swim->config.times.period);
    tri_swim_record_set(swim, index, lives ? &alive : news);
    swim->records[index].unmet = !lives;
    if (!lives)
        return true;
    change_add(swim, index, TRI_SWIM_UNKNOWN, 0);
    if (swim->join.phase == JOIN_NONE)
        tri_swim_digest_soon(swim);
    if (spread)
        tri_swim_rumour_start(swim, index, true);
    if (news->state == TRI_SWIM_SUSPECT)
        take(swim, index, news, spread);
    return true;
}

bool tri_swim_hear(struct tri_swim *swim, const struct tri_rumour *news,
                   bool spread)
{
    uint32_t index = tri_swim_find(swim, news->node);
    struct record *record;

    /* A newcomer that is suspected makes two changes. */
    if (swim->effects->changes_len + 2 > TRI_SWIM_CHANGES_MAX) {
        swim->metrics.rumours_dropped++;
        return false;
    }
    if (index == OWN) {
        hear_of_own(swim, news);
        return true;
    }
    if (index == NONE)
        return add(swim, news, spread);
    record = &swim->records[index];
    if (is_news(swim, record, news)) {
        take(swim, index, news, spread);
        return true;
    }
    if (record->state != TRI_SWIM_SUSPECT ||
        news->state != TRI_SWIM_SUSPECT ||
        news->incarnation != record->incarnation ||
        !suspicion_confirm(swim, index, news))
        return false;
    if (spread)
        tri_swim_rumour_start(swim, index, false);
    return true;
}

void tri_swim_accuse(struct tri_swim *swim, uint32_t index,
                     enum tri_swim_state state,
                     enum tri_swim_evidence evidence)
{
    struct tri_rumour news = {
        .node = swim->records[index].node,
        .incarnation = swim->records[index].incarnation,
        .accuser = swim->config.node,
        .state = (uint8_t)state,
        .evidence = (uint8_t)evidence,
    };
    unsigned before = swim->records[index].state;

    if (!tri_swim_hear(swim, &news, true))
        return;
    if (state == TRI_SWIM_DEAD)
        swim->metrics.deaths++;
    else if (before == TRI_SWIM_ALIVE)
        swim->metrics.suspicions++;
}
