/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Strictly unique names: all nodes of the cluster are a group, and who wants a
 * name has all of its members say that they do not have it.
 *
 *     claimant                home of the name            member
 *     CLAIM(epoch, name) -->  POLL(epoch, name) ------->  has it? VOTE(epoch)
 *              <----------------------------------------
 *     OUTCOME(epoch): ours <--  all members: no
 *
 * The home is the member of the view with the highest hash of name and node. It
 * has one poll a name at a time, and remembers nothing of it: the members know
 * what they have. So there is nothing to be handed over when the view changes.
 *
 * Invariants:
 *   1. Of the nodes in the newest view at most one holds a name. A claim is won
 *      in one epoch: claimant, home and all members were in it when they asked,
 *      answered, and when the outcome came. A later poll of the same
 *      epoch is of the same home, whose records keep their order: the winner
 *      hears of its luck first. A poll of a later epoch is answered by who has
 *      installed that; it takes no outcome of before then, and so knows.
 *   2. Without all members no claim is won; so a minority wins none, as it gets
 *      no view without the others.
 *   3. Who is not in the view any more has lost its names when it learns that.
 *
 * Nothing is repeated but claims: when the view changes, and now and then.
 */

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "group/view_internal.h"
#include "member/member.h"
#include "member/roster.h"

/* Between two rounds of claiming: at first, and in the end. */
#define AGAIN_NS (5 * TRI_NS_PER_MS)
#define AGAIN_NS_MAX (100 * TRI_NS_PER_MS)
/* A poll whose claimant was silent for so long has no claimant any more. */
#define POLL_NS (5 * AGAIN_NS_MAX)
/* Between two requests to be let in. */
#define JOIN_NS (100 * TRI_NS_PER_MS)

/* --- the cluster's view --------------------------------------------------- */

static const struct tri_agree_view *view_locked(const struct tri_views *views)
{
    return tri_agree_view(views->claims.cluster->agree);
}

/* The place of a node; the view's len: it has none. */
static uint32_t place_of(const struct tri_agree_view *view, uint64_t node)
{
    uint32_t i = 0;

    while (i < view->len && view->members[i].node != node)
        i++;
    return i;
}

/* Rendezvous hashing: D. Thaler, C. Ravishankar, "Using name-based mappings to
 * increase hit rates", IEEE/ACM Transactions on Networking 6 (1), 1998. */
static uint64_t home_of(const struct tri_agree_view *view, const char *name)
{
    uint64_t hash = tri_fnv64(TRI_FNV64_OFFSET, name, strlen(name));
    uint64_t home = 0, most = 0;

    for (uint32_t i = 0; i < view->len; i++) {
        uint64_t node = view->members[i].node;
        uint64_t weight = tri_mix64(hash ^ tri_mix64(node));

        if (home == 0 || weight > most) {
            home = node;
            most = weight;
        }
    }
    return home;
}

/* --- saying --------------------------------------------------------------- */

static void take_locked(struct tri_views *views, uint64_t node,
                        enum tri_view_what what,
                        const struct tri_claim_note *note);

static void say_locked(struct tri_views *views, uint64_t to,
                       enum tri_view_what what,
                       const struct tri_claim_note *note)
{
    struct tri_record record = { .index = (uint16_t)what,
                                 .total_bytes = sizeof(*note),
                                 .ask = views->claims.cluster->id };

    if (to == views->runtime->node)
        take_locked(views, to, what, note);
    else
        tri_view_send(views, to, &record, note);
}

static struct tri_claim_note note_of(uint64_t epoch, uint64_t number,
                                     const char *name, int value)
{
    struct tri_claim_note note = { .epoch = epoch,
                                   .number = number,
                                   .value = value };

    memcpy(note.name, name, strlen(name));
    return note;
}

/* --- the home ------------------------------------------------------------- */

static bool is_forsaken(const struct tri_claim_poll *poll, uint64_t now_ns)
{
    return now_ns - poll->heard_ns > POLL_NS;
}

/* One of this name; or a free one, or NULL. Those of past epochs are free, and
 * for want of others those that no claimant asks about any more: votes for one
 * count until then. */
static struct tri_claim_poll *poll_of_locked(struct tri_views *views,
                                             uint64_t epoch, const char *name)
{
    struct tri_claims *claims = &views->claims;
    struct tri_claim_poll *free_one = NULL, *forsaken = NULL;
    uint64_t now_ns = tri_now_ns();

    if (claims->polls == NULL)
        claims->polls = calloc(TRI_CLAIM_POLLS_MAX, sizeof(*claims->polls));
    for (uint32_t i = 0; claims->polls != NULL && i < TRI_CLAIM_POLLS_MAX;
         i++) {
        struct tri_claim_poll *poll = &claims->polls[i];

        if (poll->number != 0 && poll->epoch != epoch)
            poll->number = 0;
        if (poll->number == 0)
            free_one = poll;
        else if (strcmp(poll->name, name) == 0)
            return poll;
        else if (is_forsaken(poll, now_ns))
            forsaken = poll;
    }
    return free_one != NULL ? free_one : forsaken;
}

/* A poll may end in here, when this node is the last to vote. */
static void ask_all_locked(struct tri_views *views, struct tri_claim_poll *poll)
{
    const struct tri_agree_view *view = view_locked(views);
    struct tri_claim_note note =
        note_of(poll->epoch, poll->number, poll->name, 0);

    for (uint32_t i = 0; i < view->len && poll->number == note.number; i++)
        if ((poll->votes[i / 64] >> i % 64 & 1) == 0)
            say_locked(views, view->members[i].node, TRI_VIEW_POLL, &note);
}

static void take_claim_locked(struct tri_views *views, uint64_t node,
                              const struct tri_claim_note *note)
{
    struct tri_claim_poll *poll = poll_of_locked(views, note->epoch,
                                                 note->name);
    uint64_t now_ns = tri_now_ns();

    if (home_of(view_locked(views), note->name) != views->runtime->node ||
        poll == NULL)
        return;
    if (poll->number == 0 || is_forsaken(poll, now_ns) ||
        (poll->claimant == node && poll->claim != note->number)) {
        memset(poll, 0, sizeof(*poll));
        poll->number = ++views->claims.numbers;
        poll->epoch = note->epoch;
        poll->claimant = node;
        poll->claim = note->number;
        memcpy(poll->name, note->name, sizeof(poll->name));
    } else if (poll->claimant != node) {
        return; /* one after the other: it claims again */
    }
    poll->heard_ns = now_ns;
    ask_all_locked(views, poll);
}

static void end_poll_locked(struct tri_views *views,
                            struct tri_claim_poll *poll, int value)
{
    struct tri_claim_note note =
        note_of(poll->epoch, poll->claim, poll->name, value);

    poll->number = 0;
    say_locked(views, poll->claimant, TRI_VIEW_OUTCOME, &note);
}

static void take_vote_locked(struct tri_views *views, uint64_t node,
                             const struct tri_claim_note *note)
{
    const struct tri_agree_view *view = view_locked(views);
    struct tri_claim_poll *poll = poll_of_locked(views, note->epoch,
                                                 note->name);
    uint32_t place = place_of(view, node);

    if (poll == NULL || poll->number == 0 || poll->number != note->number)
        return;
    if (note->value != 0) {
        end_poll_locked(views, poll, TROUPE_EEXIST);
        return;
    }
    if ((poll->votes[place / 64] >> place % 64 & 1) != 0)
        return;
    poll->votes[place / 64] |= 1ull << place % 64;
    if (++poll->votes_len == view->len)
        end_poll_locked(views, poll, 0);
}

/* --- all members ---------------------------------------------------------- */

static bool has_name_locked(struct tri_views *views, const char *name)
{
    troupe_ref_t ref;

    /* Its own claims first: who has won one may be about to add the name. */
    for (struct tri_claim *c = views->claims.list; c != NULL; c = c->next)
        if (c->outcome == 0 && strcmp(c->name, name) == 0)
            return true;
    return tri_names_find(&views->runtime->names, name, 0, &ref) == 0;
}

static void take_poll_locked(struct tri_views *views, uint64_t node,
                             const struct tri_claim_note *note)
{
    struct tri_claim_note vote = *note;

    vote.value = has_name_locked(views, note->name) ? TROUPE_EEXIST : 0;
    say_locked(views, node, TRI_VIEW_VOTE, &vote);
}

/* --- the claimant --------------------------------------------------------- */

static void take_outcome_locked(struct tri_views *views,
                                const struct tri_claim_note *note)
{
    for (struct tri_claim *c = views->claims.list; c != NULL; c = c->next)
        if (c->number == note->number && c->outcome == 1) {
            c->outcome = note->value == 0 ? 0 : TROUPE_EEXIST;
            tri_views_changed_locked(views);
        }
}

/* All that is said counts in the epoch that both are in. */
static void take_locked(struct tri_views *views, uint64_t node,
                        enum tri_view_what what,
                        const struct tri_claim_note *note)
{
    const struct troupe_group *cluster = views->claims.cluster;
    const struct tri_agree_view *view = view_locked(views);

    if (cluster->excluded || note->epoch != view->epoch ||
        place_of(view, node) == view->len)
        return;
    switch (what) {
    case TRI_VIEW_CLAIM:
        take_claim_locked(views, node, note);
        break;
    case TRI_VIEW_POLL:
        take_poll_locked(views, node, note);
        break;
    case TRI_VIEW_VOTE:
        take_vote_locked(views, node, note);
        break;
    default:
        take_outcome_locked(views, note);
        break;
    }
}

void tri_claims_note_locked(struct tri_views *views, uint64_t node,
                            const struct tri_record *record,
                            const void *payload)
{
    struct troupe_group *cluster = views->claims.cluster;
    struct tri_agree_event ahead = { .kind = TRI_AGREE_AHEAD, .node = node };
    struct tri_claim_note note;

    if (record->bytes == sizeof(note))
        memcpy(&note, payload, sizeof(note));
    if (record->bytes != sizeof(note) || note.reserved != 0 ||
        memchr(note.name, '\0', sizeof(note.name)) == NULL) {
        tri_refusals_count(&views->runtime->link.refusals, "a malformed VIEW");
        return;
    }
    if (cluster == NULL || cluster->id != record->ask)
        return;
    if (note.epoch > view_locked(views)->epoch)
        tri_view_step_locked(cluster, &ahead);
    take_locked(views, node, record->index, &note);
}

/* It is claimed again in each epoch. */
static bool is_decided(void *arg)
{
    struct tri_claim *claim = arg;

    return claim->outcome != 1;
}

struct claiming {
    struct tri_views *views;
    struct tri_claim *claim;
};

static bool is_time(void *arg)
{
    struct claiming *claiming = arg;
    const struct troupe_group *cluster = claiming->views->claims.cluster;

    return is_decided(claiming->claim) || cluster == NULL ||
           cluster->excluded || !tri_view_can_agree_locked(cluster) ||
           view_locked(claiming->views)->epoch != claiming->claim->epoch;
}

/* Why it cannot be won; 1: it can. */
static int hindrance_locked(const struct tri_views *views)
{
    const struct troupe_group *cluster = views->claims.cluster;

    if (cluster == NULL)
        return TROUPE_ESTOPPING;
    if (cluster->excluded)
        return TROUPE_EEXCLUDED;
    return tri_view_can_agree_locked(cluster) ? 1 : TROUPE_EPAUSED;
}

static int claim_once_locked(struct tri_views *views, struct tri_claim *claim)
{
    const struct tri_agree_view *view;
    struct tri_claim_note note;
    int rc = hindrance_locked(views);

    if (rc != 1)
        return rc;
    view = view_locked(views);
    claim->epoch = view->epoch;
    note = note_of(view->epoch, claim->number, claim->name, 0);
    if (view->len > 0)
        say_locked(views, home_of(view, claim->name), TRI_VIEW_CLAIM, &note);
    return claim->outcome;
}

static int claim_until(struct tri_views *views, struct tri_claim *claim,
                       struct tri_seat *seat, uint64_t deadline_ns)
{
    struct claiming claiming = { views, claim };
    uint64_t pause_ns = AGAIN_NS;
    int rc;

    do {
        tri_views_lock(views);
        rc = claim_once_locked(views, claim);
        tri_views_unlock(views);
        if (rc != 1)
            return rc;
        (void)tri_view_wait(views, seat, is_time, &claiming,
                            tri_min(tri_now_ns() + pause_ns, deadline_ns));
        pause_ns = tri_min(2 * pause_ns, AGAIN_NS_MAX);
    } while (tri_now_ns() < deadline_ns);
    tri_views_lock(views);
    rc = claim->outcome != 1 ? claim->outcome : hindrance_locked(views);
    if (rc == 1) /* and it is won no more */
        claim->outcome = rc = TROUPE_ETIMEDOUT;
    tri_views_unlock(views);
    return rc;
}

static void unlink_claim_locked(struct tri_views *views, uint64_t number)
{
    struct tri_claim **link = &views->claims.list;
    struct tri_claim *claim;

    while ((*link)->number != number)
        link = &(*link)->next;
    claim = *link;
    *link = claim->next;
    free(claim);
}

static int claim_name(struct tri_runtime *runtime, const char *name,
                      uint64_t *claim_p)
{
    struct tri_views *views = runtime->views;
    struct tri_claim *claim = calloc(1, sizeof(*claim));
    uint64_t deadline_ns = tri_deadline_ns(
        (int)runtime->options.ask_timeout_ms);
    struct tri_seat seat;
    uint64_t number;
    int rc;

    if (claim == NULL)
        return TROUPE_ENOMEM;
    memcpy(claim->name, name, strlen(name));
    claim->outcome = 1;
    tri_views_lock(views);
    number = claim->number = ++views->claims.numbers;
    claim->next = views->claims.list;
    views->claims.list = claim;
    tri_views_unlock(views);
    tri_seat_take(runtime, &seat);
    rc = claim_until(views, claim, &seat, deadline_ns);
    tri_seat_leave(&seat);
    if (rc == 0) {
        *claim_p = number;
        return 0;
    }
    tri_views_lock(views);
    unlink_claim_locked(views, number);
    tri_views_unlock(views);
    return rc;
}

static void lose_locked(struct tri_views *views)
{
    views->claims.to_lose = true;
    if (views->runtime->member != NULL)
        tri_member_kick(views->runtime->member);
}

/* The name is in the table, or will not be. */
static void claim_over(struct tri_runtime *runtime, uint64_t number)
{
    struct tri_views *views = runtime->views;

    tri_views_lock(views);
    unlink_claim_locked(views, number);
    if (views->claims.is_out)
        lose_locked(views); /* it came too late to be lost with the others */
    tri_views_unlock(views);
}

/* --- life ----------------------------------------------------------------- */

void tri_claims_out_locked(struct tri_views *views)
{
    views->claims.is_out = true;
    lose_locked(views);
}

/* Another member each time: only those that are in take it. */
static uint64_t next_member_locked(struct tri_views *views)
{
    struct tri_claims *claims = &views->claims;
    troupe_member_t member;

    for (int rounds = 0; rounds < 2; rounds++) {
        while (tri_roster_next(views->runtime->roster, &claims->join_cursor,
                               &member))
            if (member.node != views->runtime->node &&
                member.state == TROUPE_MEMBER_ALIVE)
                return member.node;
        claims->join_cursor = 0;
    }
    return 0;
}

uint64_t tri_claims_tick_locked(struct tri_views *views, uint64_t now_ns)
{
    struct troupe_group *cluster = views->claims.cluster;
    struct tri_agree_event join = { .kind = TRI_AGREE_JOIN };

    if (cluster == NULL || cluster->excluded || view_locked(views)->epoch != 0)
        return TRI_NS_NEVER;
    if (now_ns < views->claims.join_ns)
        return views->claims.join_ns;
    views->claims.join_ns = now_ns + JOIN_NS;
    join.node = next_member_locked(views);
    cluster->answerer = join.node;
    if (join.node != 0)
        tri_view_step_locked(cluster, &join);
    return views->claims.join_ns;
}

/* All ranks of the job know each other: their first view needs no word. */
static int begin_locked(struct troupe_group *cluster)
{
    struct tri_runtime *runtime = cluster->runtime;
    uint32_t len = (uint32_t)runtime->size;
    uint64_t *nodes = malloc(len * sizeof(*nodes));
    int rc;

    if (nodes == NULL)
        return TROUPE_ENOMEM;
    for (uint32_t i = 0; i < len; i++)
        nodes[i] = (int)i == runtime->rank ? runtime->node
                                           : runtime->link.peers[i].node;
    rc = tri_agree_begin(cluster->agree, nodes, len);
    free(nodes);
    return rc;
}

int tri_claims_open(struct tri_runtime *runtime, uint64_t cluster_id,
                    bool joins)
{
    static const char name[] = "*cluster"; /* no user's: see is_name */
    struct tri_views *views = runtime->views;
    uint64_t id = tri_fnv64(tri_mix64(cluster_id), name, sizeof(name)) | 1;
    struct troupe_group *cluster;
    int rc = tri_view_new(runtime, "cluster", NULL, &cluster);

    if (rc != 0)
        return rc;
    memcpy(cluster->name, name, sizeof(name));
    cluster->is_cluster = true;
    cluster->state = joins ? TRI_VIEW_JOINING : TRI_VIEW_MEMBER;
    tri_views_lock(views);
    rc = tri_view_make_core_locked(cluster, id, TRI_AGREE_MEMBERS_MAX);
    if (rc == 0 && !joins)
        rc = begin_locked(cluster);
    if (rc == 0)
        rc = tri_view_put_locked(views, cluster);
    if (rc == 0) {
        views->claims.cluster = cluster;
        tri_view_stand_if_idle_locked(cluster);
        tri_view_bury_locked(cluster);
        tri_view_announce_locked(views);
    }
    tri_views_unlock(views);
    if (rc != 0) {
        tri_view_free(cluster);
        return rc;
    }
    runtime->claim_name = claim_name;
    runtime->claim_over = claim_over;
    return 0;
}
