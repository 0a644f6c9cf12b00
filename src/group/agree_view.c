/* SPDX-License-Identifier: BSD-3-Clause */
#include "group/agree_internal.h"

#include <endian.h>
#include <stdlib.h>

/* --- what follows --------------------------------------------------------- */

uint64_t tri_agree_view_digest(uint64_t epoch,
                               const struct tri_agree_member *members,
                               uint32_t len)
{
    uint64_t word = htole64(epoch);
    uint64_t digest = tri_fnv64(TRI_FNV64_OFFSET, &word, sizeof(word));

    for (uint32_t i = 0; i < len; i++) {
        word = htole64(members[i].node);
        digest = tri_fnv64(digest, &word, sizeof(word));
    }
    return digest;
}

bool tri_agree_view_is_sound(const struct tri_agree *agree,
                             const struct proposal *proposal)
{
    uint32_t len = agree->view.len;

    for (uint32_t i = len; i < TRI_AGREE_MEMBERS_MAX; i++)
        if (set_has(&proposal->removed, i))
            return false;
    for (uint32_t i = 0; i < proposal->added.len; i++)
        if (tri_agree_place(agree, proposal->added.list[i].node) != NONE)
            return false;
    return len - set_len(&proposal->removed) + proposal->added.len <=
           TRI_AGREE_MEMBERS_MAX;
}

void tri_agree_view_next(struct tri_agree *agree,
                         const struct proposal *proposal)
{
    uint32_t len = 0;

    for (uint32_t i = 0; i < agree->view.len; i++)
        if (!set_has(&proposal->removed, i)) {
            agree->next[len] = agree->members[i];
            agree->next_numbers[len++] = agree->numbers[i];
        }
    for (uint32_t i = 0; i < proposal->added.len; i++) {
        agree->next[len].node = proposal->added.list[i].node;
        agree->next[len].since = agree->view.epoch + 1;
        agree->next_numbers[len++] = proposal->added.list[i].number;
    }
    agree->next_len = len;
}

/* --- installing ----------------------------------------------------------- */

static uint32_t place_in_next(const struct tri_agree *agree, uint64_t node)
{
    for (uint32_t i = 0; i < agree->next_len; i++)
        if (agree->next[i].node == node)
            return i;
    return NONE;
}

/* What was known of the places, for those that stay. */
static void carry(const struct tri_agree *agree, const struct set *from,
                  struct set *to_p)
{
    memset(to_p, 0, sizeof(*to_p));
    for (uint32_t i = 0; i < agree->view.len; i++)
        if (set_has(from, i)) {
            uint32_t place = place_in_next(agree, agree->members[i].node);

            if (place != NONE)
                set_add(to_p, place);
        }
}

static void end(struct tri_agree *agree)
{
    agree->is_over = true;
    agree->leader.phase = IDLE;
    if (!agree->wants_out) {
        agree->effects->excluded = true;
        return;
    }
    /* So nobody waits for an answer of this node. */
    agree->effects->parted = true;
    tri_agree_message(agree, GONE);
    tri_agree_send_living(agree);
}

static void forget_epoch(struct tri_agree *agree)
{
    agree->is_shunned = false;
    agree->promised = 0;
    agree->accepted = 0;
    agree->held = 0;
    agree->gentle = 0;
    agree->is_frozen = false;
    agree->attempt = 0;
    agree->settle_ns = 0;
    agree->watch_ns = 0;
    agree->watches = 0;
    agree->has_said_no_quorum = false;
    agree->leader.phase = IDLE;
    agree->leader.ballot = 0;
    agree->leader.attempts = 0;
}

/* Joiners that are members now do not join any more. */
static void drop_joins(struct tri_agree *agree)
{
    uint32_t len = 0;

    for (uint32_t i = 0; i < agree->joins.len; i++) {
        struct joiner joiner = agree->joins.list[i];
        uint32_t place = tri_agree_place(agree, joiner.node);

        if (place == NONE || joiner.number > agree->numbers[place])
            agree->joins.list[len++] = joiner;
    }
    agree->joins.len = len;
}

static void add_dead_nodes(const struct tri_agree *agree, struct set *dead,
                             struct set *proven)
{
    for (size_t i = 0; i < tri_array_len(agree->dead_nodes); i++) {
        uint64_t node = agree->dead_nodes[i].node;
        uint32_t place = node == 0 ? NONE : tri_agree_place(agree, node);

        if (place == NONE)
            continue;
        set_add(dead, place);
        if (agree->dead_nodes[i].proof)
            set_add(proven, place);
    }
}

void tri_agree_view_install(struct tri_agree *agree, uint64_t epoch,
                            uint64_t mark, uint32_t losses)
{
    uint32_t place = place_in_next(agree, agree->config.node);
    struct set dead, proven, leaving;

    if (place == NONE) {
        end(agree);
        return;
    }
    assert(agree->place == NONE || epoch == agree->view.epoch + 1);
    carry(agree, &agree->dead, &dead);
    carry(agree, &agree->proven, &proven);
    carry(agree, &agree->leaving, &leaving);
    memcpy(agree->members, agree->next,
           agree->next_len * sizeof(agree->next[0]));
    memcpy(agree->numbers, agree->next_numbers,
           agree->next_len * sizeof(agree->next_numbers[0]));
    agree->view.epoch = epoch;
    agree->view.len = agree->next_len;
    agree->view.mark = mark;
    agree->view.losses = losses;
    agree->view.digest =
        tri_agree_view_digest(epoch, agree->members, agree->view.len);
    agree->place = place;
    agree->is_joining = false;
    agree->mark = mark;
    forget_epoch(agree);
    drop_joins(agree);
    memset(&agree->dead, 0, sizeof(agree->dead));
    memset(&agree->proven, 0, sizeof(agree->proven));
    agree->leaving = leaving;
    agree->effects->installed = true;
    agree->is_new = true;
    agree->effects->frozen = false;
    add_dead_nodes(agree, &dead, &proven);
    (void)tri_agree_adopt_dead(agree, &dead, &proven);
}

/* --- the outcome, to the others ------------------------------------------- */

void tri_agree_view_send(struct tri_agree *agree, uint32_t first,
                         uint64_t ballot)
{
    struct message *out = tri_agree_message(agree, VIEW);

    out->ballot = ballot;
    out->mark = agree->view.mark;
    out->digest = agree->view.digest;
    out->proposal.losses = agree->view.losses;
    out->list_len = agree->view.len;
    memcpy(out->list, agree->members, agree->view.len * sizeof(out->list[0]));
    memcpy(out->numbers, agree->numbers,
           agree->view.len * sizeof(out->numbers[0]));
    tri_agree_send_receivers(agree, first);
}

void tri_agree_view_commit(struct tri_agree *agree)
{
    const struct proposal *proposal = &agree->leader.proposal;
    uint64_t epoch = agree->view.epoch + 1;
    struct message *out = tri_agree_message(agree, COMMIT);
    uint32_t first;

    /* Guard 1: it would have stepped down. */
    assert(agree->promised == agree->leader.ballot ||
           (agree->config.ablate & TRI_AGREE_WITHOUT_GUARD_1) != 0);
    tri_agree_view_next(agree, proposal);
    out->ballot = agree->leader.ballot;
    out->proposal = *proposal;
    out->digest = tri_agree_view_digest(epoch, agree->next, agree->next_len);
    tri_agree_send_living(agree);
    tri_agree_view_install(agree, epoch, proposal->mark, proposal->losses);
    first = agree->receivers_len;
    for (uint32_t i = 0; i < agree->next_len; i++)
        if (agree->next[i].since == epoch)
            (void)tri_agree_add_receiver(agree, agree->next[i].node);
    if (!agree->is_over)
        tri_agree_view_send(agree, first, 0);
}

void tri_agree_view_on_commit(struct tri_agree *agree)
{
    const struct message *in = &agree->in;

    if ((in->ballot < agree->promised &&
         (agree->config.ablate & TRI_AGREE_WITHOUT_GUARD_1) == 0) ||
        !tri_agree_view_is_sound(agree, &in->proposal))
        return;
    tri_agree_view_next(agree, &in->proposal);
    if (tri_agree_view_digest(agree->view.epoch + 1, agree->next,
                              agree->next_len) != in->digest)
        return;
    tri_agree_view_install(agree, agree->view.epoch + 1, in->proposal.mark,
                           in->proposal.losses);
}

/* Whether a joiner is in the list, by this asking. */
static bool is_welcome(const struct tri_agree *agree)
{
    const struct message *in = &agree->in;

    for (uint32_t i = 0; i < in->list_len; i++)
        if (in->list[i].node == agree->config.node)
            return in->list[i].since == in->epoch &&
                   in->numbers[i] == agree->join_number;
    return false;
}

void tri_agree_view_on_list(struct tri_agree *agree)
{
    const struct message *in = &agree->in;

    if (in->epoch == 0 ||
        tri_agree_view_digest(in->epoch, in->list, in->list_len) != in->digest)
        return;
    if (agree->place == NONE) {
        if (!is_welcome(agree))
            return;
    } else if (in->ballot < agree->promised &&
               (agree->config.ablate & TRI_AGREE_WITHOUT_GUARD_1) == 0) {
        return;
    }
    for (uint32_t i = 0; i < in->list_len; i++) {
        uint32_t place = tri_agree_place(agree, in->list[i].node);

        agree->next[i] = in->list[i];
        agree->next_numbers[i] =
            in->epoch == 1                     ? 0
            : in->list[i].since == in->epoch   ? in->numbers[i]
            : place != NONE                    ? agree->numbers[place]
                                               : NUMBER_UNKNOWN;
    }
    agree->next_len = in->list_len;
    tri_agree_view_install(agree, in->epoch, in->mark, in->proposal.losses);
}

void tri_agree_view_answer_late(struct tri_agree *agree, uint64_t node)
{
    uint32_t place = tri_agree_place(agree, node);
    uint32_t first = agree->receivers_len;
    uint64_t ballot = agree->in.ballot;

    if (place == NONE) {
        tri_agree_message(agree, EXCLUDED)->ballot = ballot;
        tri_agree_send_to(agree, node);
    } else if (agree->in.epoch + 1 == agree->view.epoch &&
               agree->members[place].since < agree->view.epoch) {
        (void)tri_agree_add_receiver(agree, node);
        tri_agree_view_send(agree, first, ballot);
    }
}
