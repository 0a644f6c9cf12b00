/* SPDX-License-Identifier: BSD-3-Clause */
#include "group/agree_internal.h"

#include <stdlib.h>

/* --- small things --------------------------------------------------------- */

uint32_t tri_agree_place(const struct tri_agree *agree, uint64_t node)
{
    for (uint32_t i = 0; i < agree->view.len; i++)
        if (agree->members[i].node == node)
            return i;
    return NONE;
}

uint64_t tri_agree_patience_ns(struct tri_agree *agree, uint32_t doublings)
{
    uint64_t ns = agree->config.attempt_ns
                  << tri_min(doublings, DOUBLINGS_MAX);

    return ns + tri_random_next(&agree->random) % (ns / 4 + 1);
}

/* --- sending -------------------------------------------------------------- */

struct message *tri_agree_message(struct tri_agree *agree, enum kind kind)
{
    struct message *out = &agree->out;

    memset(out, 0, offsetof(struct message, list));
    out->kind = (uint8_t)kind;
    out->group = agree->config.group;
    out->epoch = agree->view.epoch;
    return out;
}

/* Sends what is too much is lost: as messages may be. */
static void send_encoded(struct tri_agree *agree, const uint64_t *to,
                         uint32_t to_len)
{
    struct tri_agree_effects *effects = agree->effects;
    unsigned char *data = agree->arena + agree->arena_len;
    size_t bytes;

    if (effects->sends_len == TRI_AGREE_SENDS_MAX ||
        ARENA_BYTES - agree->arena_len < TRI_AGREE_BYTES_MAX)
        return;
    bytes = tri_agree_encode(&agree->out, data);
    effects->sends[effects->sends_len++] = (struct tri_agree_send){
        .to = to,
        .to_len = to_len,
        .data = data,
        .bytes = bytes,
    };
    agree->arena_len += (uint32_t)bytes;
}

bool tri_agree_add_receiver(struct tri_agree *agree, uint64_t node)
{
    if (agree->receivers_len == RECEIVERS_MAX)
        return false;
    agree->receivers[agree->receivers_len++] = node;
    return true;
}

void tri_agree_send_receivers(struct tri_agree *agree, uint32_t first)
{
    if (agree->receivers_len > first)
        send_encoded(agree, agree->receivers + first,
                     agree->receivers_len - first);
}

void tri_agree_send_to(struct tri_agree *agree, uint64_t node)
{
    uint32_t first = agree->receivers_len;

    if (tri_agree_add_receiver(agree, node))
        tri_agree_send_receivers(agree, first);
}

void tri_agree_send_living(struct tri_agree *agree)
{
    uint32_t first = agree->receivers_len;

    for (uint32_t i = 0; i < agree->view.len; i++)
        if (i != agree->place && !set_has(&agree->dead, i))
            (void)tri_agree_add_receiver(agree, agree->members[i].node);
    tri_agree_send_receivers(agree, first);
}

/* --- joining -------------------------------------------------------------- */

void tri_agree_join_add(struct tri_agree *agree, struct joiner joiner)
{
    struct joins *joins = &agree->joins;
    uint32_t place = tri_agree_place(agree, joiner.node), at = 0;

    if (place != NONE && joiner.number <= agree->numbers[place])
        return;
    while (at < joins->len && joins->list[at].node < joiner.node)
        at++;
    if (at < joins->len && joins->list[at].node == joiner.node) {
        if (joins->list[at].number < joiner.number)
            joins->list[at].number = joiner.number;
        return;
    }
    if (joins->len == JOINS_MAX)
        return; /* it asks again */
    memmove(&joins->list[at + 1], &joins->list[at],
            (joins->len - at) * sizeof(joiner));
    joins->list[at] = joiner;
    joins->len++;
}

static void join_remove(struct tri_agree *agree, uint64_t node,
                        uint64_t number)
{
    struct joins *joins = &agree->joins;

    for (uint32_t i = 0; i < joins->len; i++)
        if (joins->list[i].node == node && joins->list[i].number <= number) {
            joins->len--;
            memmove(&joins->list[i], &joins->list[i + 1],
                    (joins->len - i) * sizeof(joins->list[0]));
            return;
        }
}

static void join_ask(struct tri_agree *agree)
{
    struct message *out = tri_agree_message(agree, JOIN);

    out->number = agree->join_number;
    if (agree->join_to != 0)
        tri_agree_send_to(agree, agree->join_to);
    else
        send_encoded(agree, NULL, 0);
    agree->join_due_ns =
        agree->now_ns + tri_agree_patience_ns(agree, agree->join_tries++);
}

/* A member's old life is over when a later one asks to join. */
static void on_join(struct tri_agree *agree, uint64_t node)
{
    struct joiner joiner = { node, agree->in.number };
    uint32_t place = tri_agree_place(agree, node);

    if (joiner.number == 0 || joiner.number == NUMBER_UNKNOWN)
        return;
    if (place != NONE && agree->numbers[place] == joiner.number) {
        if (agree->members[place].since == agree->view.epoch) {
            uint32_t first = agree->receivers_len;

            (void)tri_agree_add_receiver(agree, node);
            tri_agree_view_send(agree, first, 0);
        }
        return;
    }
    if (agree->config.closed) {
        tri_agree_message(agree, REFUSED)->number = joiner.number;
        tri_agree_send_to(agree, node);
        return;
    }
    if (place != NONE && agree->numbers[place] == NUMBER_UNKNOWN) {
        /* This may be old: it says, if the member here is not its life. */
        tri_agree_message(agree, REPORT)->ballot = agree->promised;
        tri_agree_send_to(agree, node);
        return;
    }
    if (place != NONE && agree->numbers[place] < joiner.number) {
        struct set gone = { { 0 } };

        set_add(&gone, place);
        (void)tri_agree_adopt_dead(agree, &gone, &gone);
    }
    tri_agree_join_add(agree, joiner);
    tri_agree_pursue(agree);
}

/* --- messages ------------------------------------------------------------- */

/* To one who takes this node for a member; in its view there may be an earlier
 * life of it. */
static void say_not_this_life(struct tri_agree *agree, uint64_t node)
{
    struct message *out = tri_agree_message(agree, GONE);

    out->flags = FLAG_AWAY;
    out->epoch = agree->in.epoch;
    out->number = agree->join_number;
    tri_agree_send_to(agree, node);
}

/* Who still joined in an epoch after the member's first is another life: it
 * would have promised meanwhile. */
static bool is_earlier_life(const struct tri_agree *agree, uint32_t place)
{
    if (agree->numbers[place] == NUMBER_UNKNOWN)
        return agree->in.epoch > agree->members[place].since;
    return agree->numbers[place] < agree->in.number;
}

static void on_gone(struct tri_agree *agree, uint64_t node, uint32_t place)
{
    struct set gone = { { 0 } };

    if ((agree->in.flags & FLAG_AWAY) == 0 && agree->in.number != 0)
        join_remove(agree, node, agree->in.number);
    if (place == NONE || agree->members[place].since > agree->in.epoch)
        return;
    if ((agree->in.flags & FLAG_AWAY) != 0 && !is_earlier_life(agree, place))
        return;
    set_add(&gone, place);
    if (tri_agree_adopt_dead(agree, &gone, &gone))
        tri_agree_pursue(agree);
}

/* The other has a view that is not here. */
static void on_later(struct tri_agree *agree, uint64_t node)
{
    const struct message *in = &agree->in;

    if (in->kind == VIEW) {
        if (in->epoch == agree->view.epoch + 1)
            tri_agree_view_on_list(agree);
    } else if (in->kind == EXCLUDED) {
        if (in->ballot < agree->promised &&
            (agree->config.ablate & TRI_AGREE_WITHOUT_GUARD_1) == 0)
            return;
        agree->next_len = 0;
        tri_agree_view_install(agree, in->epoch, 0, 0);
    } else {
        tri_agree_message(agree, REPORT)->ballot = agree->promised;
        tri_agree_send_to(agree, node);
    }
}

/* Of this epoch, from a member. */
static void on_current(struct tri_agree *agree, uint32_t place)
{
    struct message *in = &agree->in;

    if (in->ballot >> PLACE_BITS > agree->attempt)
        agree->attempt = in->ballot >> PLACE_BITS;
    switch ((enum kind)in->kind) {
    case PREPARE:
        tri_agree_on_prepare(agree, place);
        break;
    case PROMISE:
        (void)tri_agree_adopt_dead(agree, &in->dead, &in->proven);
        tri_agree_lead_promise(agree, place, in);
        break;
    case PROPOSE:
        tri_agree_on_propose(agree, place);
        break;
    case ACCEPT:
        tri_agree_lead_accept(agree, place, in->ballot);
        break;
    case REJECT:
        tri_agree_lead_reject(agree, in->accepted, in->ballot);
        break;
    case COMMIT:
        tri_agree_view_on_commit(agree);
        break;
    case REPORT:
        tri_agree_on_report(agree, place);
        break;
    default:
        break;
    }
}

/* Of an epoch that is over here: questions are answered. */
static void on_earlier(struct tri_agree *agree, uint64_t node)
{
    switch ((enum kind)agree->in.kind) {
    case PREPARE:
    case PROPOSE:
    case REPORT:
        tri_agree_view_answer_late(agree, node);
        break;
    default:
        break;
    }
}

static void on_message(struct tri_agree *agree,
                       const struct tri_agree_event *event)
{
    struct message *in = &agree->in;
    uint32_t place;

    if (event->node == agree->config.node || event->node == 0 ||
        !tri_agree_decode(event->data, event->bytes, in) ||
        in->group != agree->config.group)
        return;
    if (agree->place == NONE) {
        if (!agree->is_joining)
            return;
        if (in->kind == VIEW)
            tri_agree_view_on_list(agree);
        else if (in->kind == PREPARE || in->kind == PROPOSE ||
                 in->kind == REPORT)
            say_not_this_life(agree, event->node);
        else if (in->kind == REFUSED && in->number == agree->join_number)
            agree->effects->refused = true;
        return;
    }
    place = tri_agree_place(agree, event->node);
    if (in->kind == JOIN) {
        on_join(agree, event->node);
        return;
    }
    if (in->kind == GONE) {
        on_gone(agree, event->node, place);
        return;
    }
    if (place != NONE && set_has(&agree->proven, place) &&
        (agree->config.ablate & TRI_AGREE_WITHOUT_GUARD_2) == 0)
        return;
    if (in->epoch > agree->view.epoch)
        on_later(agree, event->node);
    else if (in->epoch < agree->view.epoch)
        on_earlier(agree, event->node);
    else if (place != NONE)
        on_current(agree, place);
}

/* --- other events --------------------------------------------------------- */

/* In case that it is added, by who does not know yet. */
static void remember_dead(struct tri_agree *agree, uint64_t node, bool proof)
{
    uint32_t at = agree->dead_nodes_next++ % DEAD_NODES_MAX;

    agree->dead_nodes[at].node = node;
    agree->dead_nodes[at].proof = proof;
}

static void on_death(struct tri_agree *agree, uint64_t node, bool proof)
{
    uint32_t place = tri_agree_place(agree, node);
    struct set dead = { { 0 } }, none = { { 0 } };

    join_remove(agree, node, NUMBER_UNKNOWN);
    remember_dead(agree, node, proof);
    if (place == NONE)
        return;
    set_add(&dead, place);
    if (tri_agree_adopt_dead(agree, &dead, proof ? &dead : &none))
        tri_agree_pursue(agree);
}

/* One life of it is over, not the node: it may join again, so it is not
 * remembered. A number that is not known here is of a member that was here
 * before this node: it heard from this node, and had no part any more. */
static void on_no_part(struct tri_agree *agree, uint64_t node, uint64_t number)
{
    uint32_t place = tri_agree_place(agree, node);
    struct set gone = { { 0 } };

    join_remove(agree, node, number);
    if (place == NONE || (agree->numbers[place] != NUMBER_UNKNOWN &&
                          agree->numbers[place] > number))
        return;
    set_add(&gone, place);
    if (tri_agree_adopt_dead(agree, &gone, &gone))
        tri_agree_pursue(agree);
}

static void on_quit(struct tri_agree *agree)
{
    struct message *out = tri_agree_message(agree, GONE);

    if (agree->is_joining) {
        out->number = agree->join_number;
        if (agree->join_to != 0)
            tri_agree_send_to(agree, agree->join_to);
        else
            send_encoded(agree, NULL, 0);
    } else if (agree->place != NONE) {
        tri_agree_send_living(agree);
    }
    agree->is_over = true;
}

static void on_tick(struct tri_agree *agree)
{
    if (agree->place == NONE) {
        if (agree->is_joining && agree->now_ns >= agree->join_due_ns)
            join_ask(agree);
        return;
    }
    if (agree->held != 0 && agree->now_ns >= agree->held_due_ns)
        tri_agree_held(agree, true);
    if (agree->is_new) {
        agree->is_new = false;
        tri_agree_pursue(agree);
        return;
    }
    tri_agree_lead_tick(agree);
    tri_agree_watch_tick(agree);
}

static void on_inside(struct tri_agree *agree,
                      const struct tri_agree_event *event)
{
    switch (event->kind) {
    case TRI_AGREE_BOUNDARY:
        tri_agree_boundary(agree, event->at);
        break;
    case TRI_AGREE_LEAVE:
        agree->wants_out = true;
        set_add(&agree->leaving, agree->place);
        tri_agree_pursue(agree);
        break;
    case TRI_AGREE_RENEW:
        tri_agree_renew(agree);
        break;
    case TRI_AGREE_AHEAD:
        tri_agree_message(agree, REPORT)->ballot = agree->promised;
        tri_agree_send_to(agree, event->node);
        break;
    case TRI_AGREE_KNOWN:
        tri_agree_held(agree, false);
        tri_agree_pursue(agree);
        break;
    default:
        break;
    }
}

void tri_agree_step(struct tri_agree *agree,
                    const struct tri_agree_event *event,
                    struct tri_agree_effects *effects)
{
    memset(effects, 0, sizeof(*effects));
    agree->effects = effects;
    agree->now_ns = event->now_ns;
    agree->arena_len = 0;
    agree->receivers_len = 0;
    if (agree->is_over)
        return;
    switch (event->kind) {
    case TRI_AGREE_TICK:
        on_tick(agree);
        break;
    case TRI_AGREE_MESSAGE:
        on_message(agree, event);
        break;
    case TRI_AGREE_DEATH:
        on_death(agree, event->node, event->proof);
        break;
    case TRI_AGREE_PART:
        on_death(agree, event->node, true);
        break;
    case TRI_AGREE_GONE:
        on_no_part(agree, event->node, event->number);
        break;
    case TRI_AGREE_QUIT:
        on_quit(agree);
        break;
    case TRI_AGREE_JOIN:
        if (agree->place != NONE)
            break;
        agree->is_joining = true;
        agree->join_to = event->node;
        agree->join_number = agree->now_ns + 1;
        agree->join_tries = 0;
        join_ask(agree);
        break;
    default:
        if (agree->place != NONE)
            on_inside(agree, event);
        else if (event->kind == TRI_AGREE_BOUNDARY)
            agree->is_at_boundary = event->at;
        break;
    }
}

/* --- life ----------------------------------------------------------------- */

int tri_agree_create(const struct tri_agree_config *config,
                     struct tri_agree **agree_p)
{
    struct tri_agree *agree;

    if (config->node == 0 || config->members_max == 0 ||
        config->members_max > TRI_AGREE_MEMBERS_MAX ||
        config->attempt_ns == 0)
        return TROUPE_EINVAL;
    agree = calloc(1, sizeof(*agree));
    if (agree == NULL)
        return TROUPE_ENOMEM;
    agree->config = *config;
    agree->place = NONE;
    agree->view.members = agree->members;
    tri_random_init(&agree->random,
                    tri_mix64(config->seed ^ config->node));
    *agree_p = agree;
    return 0;
}

void tri_agree_destroy(struct tri_agree **agree_p)
{
    free(*agree_p);
    *agree_p = NULL;
}

int tri_agree_begin(struct tri_agree *agree, const uint64_t *nodes,
                    uint32_t len)
{
    struct tri_agree_effects effects = { 0 };
    bool is_in = false;

    if (len == 0 || len > agree->config.members_max || agree->place != NONE)
        return TROUPE_EINVAL;
    for (uint32_t i = 0; i < len; i++) {
        if (nodes[i] == 0)
            return TROUPE_EINVAL;
        is_in = is_in || nodes[i] == agree->config.node;
        agree->next[i] = (struct tri_agree_member){ nodes[i], 1 };
        agree->next_numbers[i] = 0;
    }
    if (!is_in)
        return TROUPE_EINVAL;
    agree->next_len = len;
    agree->effects = &effects;
    tri_agree_view_install(agree, 1, 0, 0);
    return 0;
}

/* --- what users ask ------------------------------------------------------- */

bool tri_agree_mark(struct tri_agree *agree, uint64_t epoch, uint64_t mark)
{
    if (agree->place == NONE || agree->is_over || epoch != agree->view.epoch)
        return false;
    if (agree->is_frozen &&
        (agree->config.ablate & TRI_AGREE_WITHOUT_FREEZE) == 0)
        return false;
    assert(mark >= agree->mark);
    agree->mark = mark;
    return true;
}

const struct tri_agree_view *tri_agree_view(const struct tri_agree *agree)
{
    return &agree->view;
}

bool tri_agree_is_frozen(const struct tri_agree *agree)
{
    return agree->is_frozen;
}

bool tri_agree_wants_boundary(const struct tri_agree *agree)
{
    return agree->place != NONE && !agree->is_over &&
           (agree->gentle != 0 || tri_agree_has_changes(agree));
}

static uint64_t sooner(uint64_t due_ns, bool applies, uint64_t ns)
{
    return applies && ns < due_ns ? ns : due_ns;
}

uint64_t tri_agree_due_ns(const struct tri_agree *agree)
{
    uint64_t due_ns = UINT64_MAX;

    if (agree->is_over)
        return due_ns;
    if (agree->place == NONE)
        return sooner(due_ns, agree->is_joining, agree->join_due_ns);
    due_ns = sooner(due_ns, agree->is_new, agree->now_ns);
    due_ns = sooner(due_ns, agree->leader.phase != IDLE, agree->leader.due_ns);
    due_ns = sooner(due_ns, agree->settle_ns != 0, agree->settle_ns);
    due_ns = sooner(due_ns, agree->watch_ns != 0, agree->watch_ns);
    return sooner(due_ns, agree->held != 0, agree->held_due_ns);
}
