/* SPDX-License-Identifier: BSD-3-Clause */
#include "group/agree_internal.h"

/*
 *   IDLE --ballot--> PREPARING --all that live promised, Q--> PROPOSING
 *     ^  <------------- a higher ballot is promised ------------- |
 *     +---------------- commit: all that stay accepted, Q --------+
 *
 * Out of time, or with a larger PD that would make a quorum: another ballot.
 */

/* --- who, and about what -------------------------------------------------- */

/* The first that lives and does not leave; or else that lives. */
uint32_t tri_agree_leader_place(const struct tri_agree *agree)
{
    uint32_t leaver = agree->place;

    for (uint32_t i = agree->view.len; i-- > 0;)
        if (!set_has(&agree->dead, i) &&
            (i != agree->place || !agree->is_shunned))
            leaver = i;
    for (uint32_t i = 0; i < agree->view.len; i++)
        if (!set_has(&agree->dead, i) && !set_has(&agree->leaving, i) &&
            (i != agree->place || !agree->is_shunned))
            return i;
    return leaver;
}

static bool is_known(const struct tri_agree *agree, uint64_t node)
{
    return agree->config.is_known == NULL ||
           agree->config.is_known(agree->config.context, node);
}

/* Whether a joiner can be added to a list of `len`. */
static bool can_add(const struct tri_agree *agree, uint32_t len,
                    const struct joiner *joiner)
{
    return len < agree->config.members_max &&
           tri_agree_place(agree, joiner->node) == NONE &&
           is_known(agree, joiner->node);
}

bool tri_agree_has_changes(const struct tri_agree *agree)
{
    if (!set_is_empty(&agree->leaving))
        return true;
    for (uint32_t i = 0; i < agree->joins.len; i++)
        if (can_add(agree, agree->view.len, &agree->joins.list[i]))
            return true;
    return false;
}

static bool is_quorum(const struct tri_agree *agree, const struct set *set,
                      const struct set *proven)
{
    uint32_t len = agree->view.len, count = set_len(set);

    if (2 * count > len || (2 * count == len && set_has(set, 0)))
        return true;
    if (!agree->config.proof)
        return false;
    for (uint32_t i = 0; i < len; i++)
        if (!set_has(set, i) && !set_has(proven, i))
            return false;
    return true;
}

/* --- proposing ------------------------------------------------------------ */

static void build(struct tri_agree *agree)
{
    struct leader *leader = &agree->leader;
    struct proposal *proposal = &leader->proposal;
    uint32_t stay = 0;

    memset(proposal, 0, sizeof(*proposal));
    proposal->mark = agree->mark;
    for (uint32_t i = 0; i < agree->view.len; i++) {
        bool is_lost = set_has(&agree->dead, i) ||
                       !set_has(&leader->promised, i);

        if (is_lost || set_has(&agree->leaving, i)) {
            set_add(&proposal->removed, i);
            proposal->losses += is_lost;
        } else if (stay++ == 0 || leader->marks[i] < proposal->mark) {
            proposal->mark = leader->marks[i];
        }
    }
    for (uint32_t i = 0; i < agree->joins.len; i++)
        if (can_add(agree, stay + proposal->added.len, &agree->joins.list[i]))
            proposal->added.list[proposal->added.len++] =
                agree->joins.list[i];
}

static void propose(struct tri_agree *agree)
{
    struct leader *leader = &agree->leader;
    struct message *out;

    if (leader->best == 0)
        build(agree);
    leader->phase = PROPOSING;
    memset(&leader->accepted, 0, sizeof(leader->accepted));
    leader->due_ns =
        agree->now_ns + tri_agree_patience_ns(agree, leader->attempts);
    out = tri_agree_message(agree, PROPOSE);
    out->ballot = leader->ballot;
    out->flags = leader->gentle ? FLAG_GENTLE : 0;
    out->dead = agree->dead;
    out->proven = agree->proven;
    out->proposal = leader->proposal;
    tri_agree_send_living(agree);
    tri_agree_accept(agree, leader->ballot, &leader->proposal);
}

/* --- whether it is enough ------------------------------------------------- */

static bool has_all_living(const struct tri_agree *agree,
                           const struct set *set)
{
    for (uint32_t i = 0; i < agree->view.len; i++)
        if (!set_has(&agree->dead, i) && !set_has(set, i))
            return false;
    return true;
}

static bool has_all_staying(const struct tri_agree *agree)
{
    const struct leader *leader = &agree->leader;

    for (uint32_t i = 0; i < agree->view.len; i++)
        if (!set_has(&agree->dead, i) && !set_has(&leader->accepted, i) &&
            !set_has(&leader->proposal.removed, i))
            return false;
    return true;
}

static bool are_marks_equal(const struct tri_agree *agree)
{
    const struct leader *leader = &agree->leader;

    for (uint32_t i = 0; i < agree->view.len; i++)
        if (set_has(&leader->promised, i) && leader->marks[i] != agree->mark)
            return false;
    return true;
}

/* A quorum by this ballot's PD; or one by what is proven now, for which there
 * must be another ballot. */
static bool has_quorum(struct tri_agree *agree, const struct set *set,
                       bool *again_p)
{
    *again_p = false;
    if (is_quorum(agree, set, &agree->leader.proven))
        return true;
    *again_p = is_quorum(agree, set, &agree->proven);
    return false;
}

/* at_last: time is over, and patience. */
static void advance(struct tri_agree *agree, bool at_last)
{
    struct leader *leader = &agree->leader;
    bool again = false;

    if (leader->phase == PREPARING) {
        if (!at_last && !has_all_living(agree, &leader->promised))
            return;
        if (leader->gentle && !are_marks_equal(agree))
            return;
        if (has_quorum(agree, &leader->promised, &again))
            propose(agree);
    } else if (leader->phase == PROPOSING) {
        if ((!at_last || leader->proposal.added.len > 0) &&
            !has_all_staying(agree))
            return;
        if (has_quorum(agree, &leader->accepted, &again))
            tri_agree_view_commit(agree);
    }
    if (again)
        tri_agree_lead_ballot(agree, false);
}

/* --- ballots -------------------------------------------------------------- */

static void send_prepare(struct tri_agree *agree)
{
    const struct leader *leader = &agree->leader;
    struct message *out = tri_agree_message(agree, PREPARE);
    uint32_t first = agree->receivers_len;

    out->ballot = leader->ballot;
    out->flags = leader->gentle ? FLAG_GENTLE : 0;
    out->dead = agree->dead;
    out->proven = leader->proven;
    for (uint32_t i = 0; i < agree->view.len; i++)
        if (i != agree->place && !set_has(&agree->dead, i) &&
            !set_has(&leader->promised, i))
            (void)tri_agree_add_receiver(agree, agree->members[i].node);
    tri_agree_send_receivers(agree, first);
}

void tri_agree_lead_ballot(struct tri_agree *agree, bool gentle)
{
    struct leader *leader = &agree->leader;

    leader->phase = PREPARING;
    leader->gentle = gentle;
    leader->ballot = ++agree->attempt << PLACE_BITS | agree->place;
    leader->due_ns =
        agree->now_ns + tri_agree_patience_ns(agree, leader->attempts);
    leader->calls = 0;
    leader->proven = agree->proven;
    leader->best = 0;
    memset(&leader->promised, 0, sizeof(leader->promised));
    agree->watch_ns = 0;
    agree->promised = leader->ballot;
    agree->gentle = gentle ? leader->ballot : 0;
    send_prepare(agree);
    if (!gentle || agree->is_at_boundary)
        tri_agree_promise(agree, leader->ballot, gentle);
}

void tri_agree_lead(struct tri_agree *agree)
{
    struct leader *leader = &agree->leader;
    bool is_loss = agree->is_frozen;

    if (leader->phase != IDLE && leader->gentle)
        is_loss = !set_is_empty(&agree->dead);
    if (leader->phase != IDLE && (!is_loss || !leader->gentle)) {
        advance(agree, false);
    } else if (is_loss) {
        if (agree->now_ns >= agree->settle_ns) {
            agree->settle_ns = 0;
            tri_agree_lead_ballot(agree, false);
        }
    } else if (tri_agree_has_changes(agree)) {
        tri_agree_lead_ballot(agree, true);
    }
}

static void out_of_time(struct tri_agree *agree)
{
    struct leader *leader = &agree->leader;
    bool is_patient = leader->attempts < ATTEMPTS_PATIENT;
    uint64_t ballot = leader->ballot;

    if (leader->gentle && leader->phase == PREPARING) {
        leader->due_ns =
            agree->now_ns + tri_agree_patience_ns(agree, ++leader->calls);
        /* From all, as promises and what took them back may have crossed. */
        memset(&leader->promised, 0, sizeof(leader->promised));
        send_prepare(agree);
        if (agree->is_at_boundary)
            tri_agree_promise(agree, leader->ballot, true);
        return;
    }
    leader->attempts++;
    if (leader->attempts >= ATTEMPTS_NO_QUORUM &&
        !agree->has_said_no_quorum &&
        !is_quorum(agree,
                          leader->phase == PREPARING ? &leader->promised
                                                     : &leader->accepted,
                          &agree->proven)) {
        agree->has_said_no_quorum = true;
        agree->effects->no_quorum = true;
    }
    if (!is_patient) {
        uint64_t epoch = agree->view.epoch;
        enum phase phase = leader->phase;

        advance(agree, true);
        if (agree->is_over || agree->view.epoch != epoch ||
            leader->ballot != ballot || leader->phase != phase)
            return;
    }
    tri_agree_lead_ballot(agree, false);
}

void tri_agree_lead_tick(struct tri_agree *agree)
{
    struct leader *leader = &agree->leader;

    if (agree->settle_ns != 0 && agree->now_ns >= agree->settle_ns) {
        agree->settle_ns = 0;
        if (tri_agree_leader_place(agree) == agree->place)
            tri_agree_lead(agree);
    }
    if (leader->phase != IDLE && agree->now_ns >= leader->due_ns)
        out_of_time(agree);
}

/* --- answers -------------------------------------------------------------- */

static void send_propose_again(struct tri_agree *agree, uint32_t place)
{
    struct leader *leader = &agree->leader;
    struct message *out = tri_agree_message(agree, PROPOSE);

    out->ballot = leader->ballot;
    out->flags = leader->gentle ? FLAG_GENTLE : 0;
    out->dead = agree->dead;
    out->proven = agree->proven;
    out->proposal = leader->proposal;
    tri_agree_send_to(agree, agree->members[place].node);
}

void tri_agree_lead_promise(struct tri_agree *agree, uint32_t place,
                            const struct message *message)
{
    struct leader *leader = &agree->leader;

    if (leader->phase == IDLE || message->ballot != leader->ballot)
        return;
    if ((message->flags & FLAG_AWAY) != 0) {
        if (leader->phase == PREPARING)
            set_remove(&leader->promised, place);
        return;
    }
    if ((message->flags & FLAG_LEAVES) != 0)
        set_add(&agree->leaving, place);
    for (uint32_t i = 0; i < message->joins.len; i++)
        tri_agree_join_add(agree, message->joins.list[i]);
    if (leader->gentle && (message->flags & FLAG_GENTLE) == 0) {
        /* It is frozen: no boundary can make marks equal any more. */
        tri_agree_lead_ballot(agree, false);
        return;
    }
    if (leader->phase == PROPOSING) {
        if (place != agree->place && !set_has(&leader->accepted, place))
            send_propose_again(agree, place);
        return;
    }
    set_add(&leader->promised, place);
    leader->marks[place] = message->mark;
    if (message->accepted > leader->best &&
        (agree->config.ablate & TRI_AGREE_WITHOUT_ACCEPTED) == 0 &&
        tri_agree_view_is_sound(agree, &message->proposal)) {
        leader->best = message->accepted;
        leader->proposal = message->proposal;
    }
    tri_agree_lead(agree);
}

void tri_agree_lead_accept(struct tri_agree *agree, uint32_t place,
                           uint64_t ballot)
{
    struct leader *leader = &agree->leader;

    if (leader->phase != PROPOSING || ballot != leader->ballot)
        return;
    set_add(&leader->accepted, place);
    advance(agree, false);
}

void tri_agree_lead_reject(struct tri_agree *agree, uint64_t ballot,
                           uint64_t promised)
{
    struct leader *leader = &agree->leader;

    if (leader->phase == IDLE || ballot != leader->ballot)
        return;
    if (promised > ballot)
        tri_agree_lead_ballot(agree,
                              leader->gentle && leader->phase == PREPARING);
    else if (leader->gentle && leader->phase == PROPOSING)
        tri_agree_lead_ballot(agree, false);
}
