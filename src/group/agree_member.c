/* SPDX-License-Identifier: BSD-3-Clause */
#include "group/agree_internal.h"

/* --- deaths --------------------------------------------------------------- */

void tri_agree_freeze(struct tri_agree *agree)
{
    if (agree->is_frozen)
        return;
    agree->is_frozen = true;
    agree->effects->frozen = true;
    agree->watches = 0;
}

/* Places of members, without this one. */
static void take_places(struct tri_agree *agree, const struct set *from,
                        struct set *set_p)
{
    memset(set_p, 0, sizeof(*set_p));
    for (uint32_t i = 0; i < agree->view.len; i++)
        if (i != agree->place && set_has(from, i))
            set_add(set_p, i);
}

bool tri_agree_adopt_dead(struct tri_agree *agree, const struct set *dead,
                          const struct set *proven)
{
    struct set others;
    bool is_news = false;

    if (set_has(dead, agree->place) && !agree->is_shunned)
        agree->is_shunned = is_news = true;
    take_places(agree, proven, &others);
    for (size_t i = 0; i < tri_array_len(others.bits); i++) {
        is_news = is_news || (others.bits[i] & ~agree->proven.bits[i]) != 0;
        agree->proven.bits[i] |= others.bits[i];
        agree->dead.bits[i] |= others.bits[i];
    }
    take_places(agree, dead, &others);
    for (size_t i = 0; i < tri_array_len(others.bits); i++) {
        is_news = is_news || (others.bits[i] & ~agree->dead.bits[i]) != 0;
        agree->dead.bits[i] |= others.bits[i];
    }
    if (set_is_empty(&agree->dead) || !is_news)
        return is_news;
    tri_agree_freeze(agree);
    if (memcmp(&agree->dead, &agree->proven, sizeof(agree->dead)) == 0)
        agree->settle_ns = agree->now_ns;
    else if (agree->settle_ns == 0)
        agree->settle_ns = agree->now_ns + agree->config.settle_ns;
    return is_news;
}

/* --- what there is to agree on -------------------------------------------- */

/* `out`: what is known here that a leader wants to know. */
static struct message *report(struct tri_agree *agree, enum kind kind)
{
    struct message *out = tri_agree_message(agree, kind);

    out->ballot = agree->promised;
    out->dead = agree->dead;
    out->proven = agree->proven;
    out->joins = agree->joins;
    if (agree->wants_out)
        out->flags |= FLAG_LEAVES;
    return out;
}

static bool has_reason(const struct tri_agree *agree)
{
    return agree->is_frozen || tri_agree_has_changes(agree);
}

static void watch(struct tri_agree *agree)
{
    agree->watch_ns = 0;
    if (has_reason(agree) && agree->leader.phase == IDLE)
        agree->watch_ns = agree->now_ns +
                          tri_agree_patience_ns(agree, agree->watches + 1);
}

void tri_agree_pursue(struct tri_agree *agree)
{
    uint32_t leader;

    if (agree->is_over || !has_reason(agree))
        return;
    leader = tri_agree_leader_place(agree);
    if (leader == agree->place || agree->leader.phase != IDLE)
        tri_agree_lead(agree);
    if (agree->is_over)
        return;
    leader = tri_agree_leader_place(agree);
    if (leader != agree->place && agree->leader.phase == IDLE &&
        has_reason(agree)) {
        report(agree, REPORT);
        tri_agree_send_to(agree, agree->members[leader].node);
    }
    watch(agree);
}

/* How many that live come before this one. */
static uint32_t rank(const struct tri_agree *agree)
{
    uint32_t before = 0;

    for (uint32_t i = 0; i < agree->place; i++)
        before += !set_has(&agree->dead, i);
    return before;
}

/* No outcome: asks the leader, then all, then leads itself. */
void tri_agree_watch_tick(struct tri_agree *agree)
{
    uint32_t leader;

    if (agree->watch_ns == 0 || agree->now_ns < agree->watch_ns)
        return;
    agree->watches++;
    leader = tri_agree_leader_place(agree);
    if (agree->is_frozen && agree->watches > ATTEMPTS_PATIENT + rank(agree)) {
        agree->watches = 0;
        tri_agree_lead_ballot(agree, false);
    } else if (agree->watches > 1 || leader == agree->place) {
        report(agree, REPORT);
        tri_agree_send_living(agree);
        if (leader == agree->place)
            tri_agree_lead(agree);
    } else {
        report(agree, REPORT);
        tri_agree_send_to(agree, agree->members[leader].node);
    }
    if (!agree->is_over)
        watch(agree);
}

void tri_agree_on_report(struct tri_agree *agree, uint32_t place)
{
    const struct message *in = &agree->in;
    bool is_news = tri_agree_adopt_dead(agree, &in->dead, &in->proven);

    if ((in->flags & FLAG_LEAVES) != 0)
        is_news = set_add(&agree->leaving, place) || is_news;
    for (uint32_t i = 0; i < in->joins.len; i++)
        tri_agree_join_add(agree, in->joins.list[i]);
    if (tri_agree_leader_place(agree) == agree->place || is_news)
        tri_agree_pursue(agree);
}

void tri_agree_renew(struct tri_agree *agree)
{
    /* Frozen: another view is on its way. */
    if (!agree->is_frozen)
        tri_agree_lead_ballot(agree, false);
}

/* --- promises ------------------------------------------------------------- */

static void step_down(struct tri_agree *agree, uint64_t ballot)
{
    if (ballot <= agree->leader.ballot ||
        (agree->config.ablate & TRI_AGREE_WITHOUT_GUARD_1) != 0)
        return;
    agree->leader.phase = IDLE;
}

static void reject(struct tri_agree *agree, uint64_t node, uint64_t ballot)
{
    struct message *out = tri_agree_message(agree, REJECT);

    out->accepted = ballot;
    out->ballot = agree->promised;
    tri_agree_send_to(agree, node);
}

void tri_agree_promise(struct tri_agree *agree, uint64_t ballot, bool gentle)
{
    uint32_t leader = (uint32_t)ballot & PLACE_MASK;
    struct message *out;

    assert(ballot >= agree->promised);
    agree->promised = ballot;
    agree->gentle = gentle ? ballot : 0;
    if (!gentle)
        tri_agree_freeze(agree);
    agree->watches = 0;
    out = report(agree, PROMISE);
    out->ballot = ballot;
    out->mark = agree->mark;
    out->accepted = agree->accepted;
    if (agree->accepted != 0)
        out->proposal = agree->accepted_proposal;
    if (gentle)
        out->flags |= FLAG_GENTLE;
    if (leader == agree->place) {
        tri_agree_lead_promise(agree, leader, out);
        return;
    }
    tri_agree_send_to(agree, agree->members[leader].node);
    watch(agree);
}

/* What a leader says with each ballot: who is dead. False: another one has been
 * promised more, and this one is told so. */
static bool follow(struct tri_agree *agree, uint32_t place)
{
    const struct message *in = &agree->in;
    struct set none = { { 0 } };

    (void)tri_agree_adopt_dead(
        agree, &in->dead,
        (agree->config.ablate & TRI_AGREE_WITHOUT_GUARD_3) != 0 ? &none
                                                                : &in->proven);
    if (in->ballot < agree->promised) {
        reject(agree, agree->members[place].node, in->ballot);
        return false;
    }
    step_down(agree, in->ballot);
    return true;
}

void tri_agree_on_prepare(struct tri_agree *agree, uint32_t place)
{
    const struct message *in = &agree->in;
    bool gentle = (in->flags & FLAG_GENTLE) != 0;
    uint64_t ballot = in->ballot;

    if ((ballot & PLACE_MASK) != place || ballot >> PLACE_BITS == 0)
        return;
    if (!follow(agree, place))
        return;
    if (gentle && !agree->is_frozen && !agree->is_at_boundary)
        agree->gentle = ballot;
    else
        tri_agree_promise(agree, ballot, gentle && !agree->is_frozen);
}

void tri_agree_boundary(struct tri_agree *agree, bool at)
{
    uint32_t leader = (uint32_t)agree->gentle & PLACE_MASK;
    struct message *out;

    if (at == agree->is_at_boundary)
        return;
    agree->is_at_boundary = at;
    if (agree->gentle == 0 || agree->is_frozen ||
        agree->gentle < agree->promised)
        return;
    if (at) {
        tri_agree_promise(agree, agree->gentle, true);
        return;
    }
    out = tri_agree_message(agree, PROMISE);
    out->ballot = agree->gentle;
    out->flags = FLAG_GENTLE | FLAG_AWAY;
    if (leader == agree->place)
        tri_agree_lead_promise(agree, leader, out);
    else
        tri_agree_send_to(agree, agree->members[leader].node);
}

/* --- acceptance ----------------------------------------------------------- */

static bool are_known(const struct tri_agree *agree,
                      const struct proposal *proposal)
{
    const struct tri_agree_config *config = &agree->config;

    for (uint32_t i = 0; i < proposal->added.len; i++)
        if (config->is_known != NULL &&
            proposal->added.list[i].node != config->node &&
            !config->is_known(config->context, proposal->added.list[i].node))
            return false;
    return true;
}

/* Whom nobody here knows after so long has died meanwhile. */
static void hold(struct tri_agree *agree, uint64_t ballot, bool gentle,
                 const struct proposal *proposal)
{
    if (agree->held == ballot)
        return;
    agree->held = ballot;
    agree->held_gentle = gentle;
    agree->held_proposal = *proposal;
    agree->held_due_ns =
        agree->now_ns + (agree->config.attempt_ns << ATTEMPTS_PATIENT);
}

void tri_agree_accept(struct tri_agree *agree, uint64_t ballot,
                      const struct proposal *proposal)
{
    uint32_t leader = (uint32_t)ballot & PLACE_MASK;

    agree->held = 0;
    agree->promised = ballot;
    agree->accepted = ballot;
    if (proposal != &agree->accepted_proposal)
        agree->accepted_proposal = *proposal;
    tri_agree_freeze(agree);
    agree->watches = 0;
    if (leader == agree->place) {
        tri_agree_lead_accept(agree, leader, ballot);
        return;
    }
    tri_agree_message(agree, ACCEPT)->ballot = ballot;
    tri_agree_send_to(agree, agree->members[leader].node);
    watch(agree);
}

/* A gentle one is accepted at the boundary of its promise only. */
static bool is_at(const struct tri_agree *agree,
                  const struct proposal *proposal)
{
    return (agree->is_frozen || agree->is_at_boundary) &&
           agree->mark == proposal->mark;
}

void tri_agree_held(struct tri_agree *agree, bool at_last)
{
    const struct proposal *proposal = &agree->held_proposal;
    uint64_t ballot = agree->held;

    if (ballot == 0 || (!at_last && !are_known(agree, proposal)))
        return;
    agree->held = 0;
    if (ballot < agree->promised)
        return;
    /* It may have gone on meanwhile. What is held is another's. */
    if (agree->held_gentle && !is_at(agree, proposal))
        reject(agree, agree->members[ballot & PLACE_MASK].node, ballot);
    else
        tri_agree_accept(agree, ballot, proposal);
}

void tri_agree_on_propose(struct tri_agree *agree, uint32_t place)
{
    const struct message *in = &agree->in;
    uint64_t ballot = in->ballot;
    bool gentle = (in->flags & FLAG_GENTLE) != 0 && ballot != agree->accepted;

    if ((ballot & PLACE_MASK) != place || ballot >> PLACE_BITS == 0 ||
        !tri_agree_view_is_sound(agree, &in->proposal))
        return;
    if (!follow(agree, place))
        return;
    if (gentle && !is_at(agree, &in->proposal)) {
        reject(agree, agree->members[place].node, ballot);
        return;
    }
    if (are_known(agree, &in->proposal))
        tri_agree_accept(agree, ballot, &in->proposal);
    else
        hold(agree, ballot, gentle, &in->proposal);
}
