/* SPDX-License-Identifier: BSD-3-Clause */
#include "agree_net.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "group/agree_internal.h"

#define NOBODY UINT32_MAX

static uint32_t below(struct agree_net *net, uint32_t n)
{
    return tri_random_below(&net->random, n);
}

void agree_net_failed(struct agree_net *net, const char *format, ...)
{
    va_list args;

    if (net->failure[0] != 0)
        return;
    va_start(args, format);
    vsnprintf(net->failure, sizeof(net->failure), format, args);
    va_end(args);
}

static uint32_t slot_of(const struct agree_net *net, uint64_t id)
{
    for (uint32_t i = 0; i < net->config.nodes; i++)
        if (net->nodes[i].id == id)
            return i;
    return NOBODY;
}

/* --- checks --------------------------------------------------------------- */

/* With proofs there may be another of the same members, of a side that nobody
 * is left of. */
static bool is_seen(struct agree_net *net, const struct agree_seen *seen,
                    const struct tri_agree_view *view)
{
    if (seen->digest != view->digest)
        return false;
    if (seen->mark == view->mark)
        return true;
    if (!net->config.proof)
        agree_net_failed(net, "epoch %u: two marks", (unsigned)view->epoch);
    return false;
}

static struct agree_seen *seen_of(struct agree_net *net,
                                  const struct tri_agree_view *view)
{
    struct agree_seen *seen = net->views;

    while (seen->digest != 0 && !is_seen(net, seen, view))
        if (++seen == net->views + AGREE_SEEN_MAX)
            abort();
    if (seen->digest != 0)
        return seen;
    seen->digest = view->digest;
    seen->mark = view->mark;
    seen->len = view->len;
    memcpy(seen->members, view->members, view->len * sizeof(seen->members[0]));
    return seen;
}

/* Invariant 5. */
static void check_order(struct agree_net *net, const struct agree_node *node,
                        const struct tri_agree_view *view)
{
    const struct agree_seen *last = node->view;
    uint32_t at = 0;

    for (uint32_t i = 0; i < view->len; i++) {
        const struct tri_agree_member *member = &view->members[i];
        uint32_t old = at;

        while (old < last->len && last->members[old].node != member->node)
            old++;
        if (old < last->len) {
            at = old + 1;
            if (member->since == last->members[old].since)
                continue;
        } else {
            at = last->len;
            if (member->since == view->epoch &&
                (i == 0 || view->members[i - 1].since < view->epoch ||
                 view->members[i - 1].node < member->node))
                continue;
        }
        agree_net_failed(net, "node %u: epoch %u: order, or since, of %u",
                         (unsigned)node->id, (unsigned)view->epoch,
                         (unsigned)member->node);
    }
}

static bool has_node(const struct agree_seen *view, uint64_t id)
{
    for (uint32_t i = 0; i < view->len; i++)
        if (view->members[i].node == id)
            return true;
    return false;
}

/* Whether `other` has come after the view from which `node` went another way,
 * and goes on without it. */
static bool has_been_left(const struct agree_node *node,
                          const struct agree_node *other, uint64_t epoch)
{
    const struct agree_seen *last = node->views[epoch - 1];

    return last != NULL && !has_node(last, other->id) &&
           !has_node(other->views[epoch], node->id);
}

/* Whether one has a node that was declared dead falsely, and the other has not:
 * that node, and who joined it, are the side that is wrong. */
static bool has_suspect_more(const struct agree_net *net,
                             const struct agree_seen *view,
                             const struct agree_seen *other)
{
    for (uint32_t i = 0; i < net->config.nodes; i++)
        if (net->nodes[i].is_suspect &&
            has_node(view, net->nodes[i].id) !=
                has_node(other, net->nodes[i].id))
            return true;
    return false;
}

/* Invariant 1. Where proofs count it holds for the living that nobody has
 * excluded: one that the others took for dead, or that did not answer, may find
 * all of its view dead, and itself alone, while those who came later live. */
static void check_one_view(struct agree_net *net,
                           const struct agree_node *node, uint64_t epoch)
{
    for (uint32_t i = 0; i < net->config.nodes; i++) {
        const struct agree_node *other = &net->nodes[i];

        if (other->views[epoch] == NULL ||
            other->views[epoch] == node->views[epoch])
            continue;
        if (net->config.proof &&
            (!other->is_alive || other->is_suspect || node->is_suspect ||
             has_suspect_more(net, node->views[epoch], other->views[epoch]) ||
             has_been_left(node, other, epoch) ||
             has_been_left(other, node, epoch)))
            continue;
        agree_net_failed(net, "epoch %u: nodes %u and %u: different views",
                         (unsigned)epoch, (unsigned)node->id,
                         (unsigned)other->id);
    }
}

/* Invariant 4. */
static void check_mark(struct agree_net *net, struct agree_node *node,
                       const struct tri_agree_view *view)
{
    node->view->has_next = true;
    node->view->next_mark = view->mark;
    if (view->mark < node->view->committed)
        agree_net_failed(net, "epoch %u: mark %u, but %u was committed",
                         (unsigned)view->epoch, (unsigned)view->mark,
                         (unsigned)node->view->committed);
    if (node->prepared < view->mark)
        agree_net_failed(net, "node %u: epoch %u: mark %u, prepared for %u",
                         (unsigned)node->id, (unsigned)view->epoch,
                         (unsigned)view->mark, (unsigned)node->prepared);
}

static void check_install(struct agree_net *net, struct agree_node *node)
{
    const struct tri_agree_view *view = tri_agree_view(node->agree);
    bool is_in = false;

    net->installs++;
    for (uint32_t i = 0; i < view->len; i++)
        is_in = is_in || view->members[i].node == node->id;
    if (!is_in || view->len > AGREE_NODES_MAX)
        agree_net_failed(net, "node %u: epoch %u is without it",
                         (unsigned)node->id, (unsigned)view->epoch);
    node->views[view->epoch] = seen_of(net, view);
    check_one_view(net, node, view->epoch);
    if (node->epoch != 0) {
        if (view->epoch != node->epoch + 1)
            agree_net_failed(net, "node %u: epoch %u after %u",
                             (unsigned)node->id, (unsigned)view->epoch,
                             (unsigned)node->epoch);
        check_order(net, node, view);
        check_mark(net, node, view);
    }
    node->view = seen_of(net, view);
    node->epoch = view->epoch;
    node->committed = node->prepared = view->mark;
    memset(node->seen, 0, sizeof(node->seen));
    node->prepared_at[view->epoch] = view->mark;
}

/* Invariant 3. Without guard 1 it is broken at once; what comes of it is what
 * is looked for then. */
static void check_promise(struct agree_net *net, struct agree_node *node)
{
    const struct tri_agree *agree = node->agree;

    if ((net->config.ablate & TRI_AGREE_WITHOUT_GUARD_1) != 0)
        return;
    if (agree->view.epoch != node->promised_epoch)
        node->promised = 0;
    if (agree->promised < node->promised || agree->accepted > agree->promised)
        agree_net_failed(net, "node %u: a promise was lowered",
                         (unsigned)node->id);
    node->promised = agree->promised;
    node->promised_epoch = agree->view.epoch;
}

/* --- steps ---------------------------------------------------------------- */

static void post(struct agree_net *net, uint32_t from, uint64_t id,
                 const struct tri_agree_send *send)
{
    uint32_t to = slot_of(net, id);
    struct agree_letter *letter;

    if (to == NOBODY || net->crash_after == 0 || net->nodes[from].is_crashing)
        return;
    if (net->crash_after != UINT32_MAX)
        net->crash_after--;
    net->nodes[from].is_crashing = ++net->posted == net->crash_at;
    if (net->letters_len == AGREE_LETTERS_MAX)
        return; /* lost */
    letter = &net->letters[net->letters_len++];
    letter->from = from;
    letter->to = to;
    letter->bytes = send->bytes;
    letter->data = malloc(send->bytes);
    memcpy(letter->data, send->data, send->bytes);
}

/* TROUPE_TEST_SIM_TRACE: what happens, on stderr. */
static bool is_traced(void)
{
    static int is = -1;

    if (is < 0)
        is = getenv("TROUPE_TEST_SIM_TRACE") != NULL;
    return is > 0;
}

static void print_message(const char *what, uint64_t node,
                          const unsigned char *data, size_t bytes)
{
    static const char *const names[] = {
        [PREPARE] = "PREPARE", [PROMISE] = "PROMISE",   [PROPOSE] = "PROPOSE",
        [ACCEPT] = "ACCEPT",   [REJECT] = "REJECT",     [COMMIT] = "COMMIT",
        [VIEW] = "VIEW",       [REPORT] = "REPORT",     [JOIN] = "JOIN",
        [REFUSED] = "REFUSED", [GONE] = "GONE",         [EXCLUDED] = "EXCLUDED",
    };
    static struct message message;

    if (!tri_agree_decode(data, bytes, &message))
        return;
    fprintf(stderr, "%s %u: %s flags %u epoch %u ballot %x mark %u accepted "
                    "%x dead %x proven %x removed %x added %u\n",
            what, (unsigned)node, names[message.kind], message.flags,
            (unsigned)message.epoch, (unsigned)message.ballot,
            (unsigned)message.mark, (unsigned)message.accepted,
            (unsigned)message.dead.bits[0], (unsigned)message.proven.bits[0],
            (unsigned)message.proposal.removed.bits[0],
            message.proposal.added.len);
}

static void trace(const struct agree_net *net, uint32_t at,
                  const struct tri_agree_event *event)
{
    static const char *const names[] = {
        "",      "TICK", "MESSAGE", "DEATH", "PART",  "BOUNDARY",
        "JOIN",  "LEAVE", "QUIT",   "RENEW", "AHEAD", "KNOWN",
    };
    const struct agree_node *node = &net->nodes[at];

    if (!is_traced())
        return;
    if (event->kind == TRI_AGREE_MESSAGE) {
        fprintf(stderr, "%u (epoch %u)", (unsigned)node->id,
                (unsigned)node->epoch);
        print_message(" from", event->node, event->data, event->bytes);
    } else {
        fprintf(stderr, "%u (epoch %u) %s node %u proof %d at %d\n",
                (unsigned)node->id, (unsigned)node->epoch, names[event->kind],
                (unsigned)event->node, event->proof, event->at);
    }
}

static void trace_send(const struct agree_net *net, uint32_t at,
                       const struct tri_agree_send *send)
{
    (void)net;
    (void)at;
    if (is_traced())
        print_message("    sends to", send->to_len > 0 ? send->to[0] : 0,
                      send->data, send->bytes);
}

/* A life that is over is as good as dead: others need not follow. */
static void forget_views(struct agree_node *node)
{
    memset(node->views, 0, sizeof(node->views));
}

static void end_life(struct agree_node *node)
{
    if (node->agree != NULL)
        tri_agree_destroy(&node->agree);
    node->epoch = 0;
    node->is_at_boundary = false;
    node->leaves = false;
    node->promised = 0;
}

void agree_net_step(struct agree_net *net, uint32_t at,
                    struct tri_agree_event event)
{
    struct agree_node *node = &net->nodes[at];
    struct tri_agree_effects effects;

    if (node->agree == NULL || !node->is_alive)
        return;
    event.now_ns = ++node->now_ns;
    trace(net, at, &event);
    tri_agree_step(node->agree, &event, &effects);
    for (uint32_t i = 0; i < effects.sends_len; i++) {
        const struct tri_agree_send *send = &effects.sends[i];

        trace_send(net, at, send);
        for (uint32_t j = 0; j < send->to_len; j++)
            post(net, at, send->to[j], send);
        for (uint32_t j = 0; j < net->config.nodes && send->to_len == 0; j++)
            if (j != at)
                post(net, at, net->nodes[j].id, send);
    }
    if (node->is_crashing)
        agree_net_crash(net, at);
    check_promise(net, node);
    if (tri_agree_view(node->agree)->epoch >= AGREE_EPOCHS_MAX) {
        agree_net_failed(net, "too many epochs");
        return;
    }
    /* Several at once: the last is looked at, in order. */
    if (effects.installed)
        check_install(net, node);
    if (effects.excluded || effects.parted) {
        if (effects.parted && !node->leaves)
            agree_net_failed(net, "node %u parted without its will",
                             (unsigned)node->id);
        node->is_over = true;
        if (effects.parted)
            forget_views(node);
        end_life(node);
    }
}

/* In the order sent, for who delivers by order. */
static struct agree_letter take(struct agree_net *net, uint32_t at)
{
    struct agree_letter letter = net->letters[at];

    net->letters_len--;
    memmove(&net->letters[at], &net->letters[at + 1],
            (net->letters_len - at) * sizeof(letter));
    return letter;
}

void agree_net_lose(struct agree_net *net, uint32_t at)
{
    free(take(net, at).data);
}

/* Who joins has no link with a node that it was told is dead; if that is false
 * it would be let in by a side that is wrong. */
static bool is_shut_off(const struct agree_net *net,
                        const struct agree_letter *letter)
{
    return net->nodes[letter->from].is_suspect &&
           net->nodes[letter->to].epoch == 0 &&
           net->nodes[letter->to].told[letter->from] != 0;
}

void agree_net_deliver(struct agree_net *net, uint32_t at)
{
    struct agree_letter letter = take(net, at);
    struct agree_node *node = &net->nodes[letter.to];

    net->messages++;
    if (node->is_alive && node->agree != NULL && !is_shut_off(net, &letter))
        agree_net_step(net, letter.to,
                       (struct tri_agree_event){
                           .kind = TRI_AGREE_MESSAGE,
                           .node = net->nodes[letter.from].id,
                           .data = letter.data,
                           .bytes = letter.bytes });
    free(letter.data);
}

void agree_net_crash(struct agree_net *net, uint32_t at)
{
    net->nodes[at].is_alive = false;
    net->crashes++;
}

void agree_net_tell(struct agree_net *net, uint32_t at, uint32_t of,
                    bool proof)
{
    struct agree_node *node = &net->nodes[at];
    uint8_t how = proof ? 2 : 1;

    if (node->told[of] >= how || at == of)
        return;
    node->told[of] = how;
    agree_net_step(net, at,
                   (struct tri_agree_event){ .kind = TRI_AGREE_DEATH,
                                             .node = net->nodes[of].id,
                                             .proof = proof });
}

/* --- lives ---------------------------------------------------------------- */

struct known_context {
    struct agree_net *net;
    uint32_t at;
};

static struct known_context contexts[AGREE_NODES_MAX];

static bool is_known(void *context, uint64_t id)
{
    const struct known_context *known = context;
    uint32_t of = slot_of(known->net, id);

    return of != NOBODY && known->net->nodes[known->at].known[of];
}

static void begin_life(struct agree_net *net, uint32_t at)
{
    struct agree_node *node = &net->nodes[at];
    struct tri_agree_config config = {
        .group = 77,
        .node = node->id,
        .members_max = AGREE_NODES_MAX,
        .proof = net->config.proof,
        .attempt_ns = AGREE_ATTEMPT_NS,
        .settle_ns = AGREE_ATTEMPT_NS / 2,
        .seed = net->config.seed,
        .is_known = is_known,
        .context = &contexts[at],
        .ablate = net->config.ablate,
    };

    contexts[at] = (struct known_context){ net, at };
    if (tri_agree_create(&config, &node->agree) != 0)
        abort();
    node->is_over = false;
}

void agree_net_init(struct agree_net *net,
                    const struct agree_net_config *config)
{
    uint64_t ids[AGREE_NODES_MAX];

    memset(net, 0, sizeof(*net));
    net->config = *config;
    net->crash_after = UINT32_MAX;
    tri_random_init(&net->random, tri_mix64(config->seed));
    for (uint32_t i = 0; i < config->nodes; i++) {
        net->nodes[i].id = ids[i] = i + 1;
        net->nodes[i].is_alive = true;
        net->nodes[i].now_ns = 1 + below(net, 1000);
        for (uint32_t j = 0; j < config->nodes; j++)
            net->nodes[i].known[j] =
                j < config->members || below(net, 3) > 0;
    }
    for (uint32_t i = 0; i < config->members; i++) {
        begin_life(net, i);
        if (tri_agree_begin(net->nodes[i].agree, ids, config->members) != 0)
            abort();
        check_install(net, &net->nodes[i]);
    }
}

void agree_net_fini(struct agree_net *net)
{
    while (net->letters_len > 0)
        agree_net_lose(net, 0);
    for (uint32_t i = 0; i < net->config.nodes; i++)
        end_life(&net->nodes[i]);
}

/* --- what may happen ------------------------------------------------------ */

static bool is_in(const struct agree_node *node)
{
    return node->is_alive && node->agree != NULL && node->epoch != 0;
}

static void pick_letter(struct agree_net *net)
{
    uint32_t at = below(net, net->letters_len), chance;
    const struct agree_letter *letter = &net->letters[at];
    uint64_t way = 1ull << (letter->from * 8 + letter->to);

    if ((net->cut & way) != 0) {
        if (below(net, 4) == 0)
            agree_net_lose(net, at);
        return;
    }
    chance = below(net, 100);
    if (chance < net->config.loss) {
        agree_net_lose(net, at);
        return;
    }
    if (chance < net->config.loss + net->config.doubles &&
        net->letters_len < AGREE_LETTERS_MAX) {
        struct agree_letter *twin = &net->letters[net->letters_len++];

        *twin = *letter;
        twin->data = malloc(letter->bytes);
        memcpy(twin->data, letter->data, letter->bytes);
    }
    agree_net_deliver(net, at);
}

void agree_net_ring(struct agree_net *net, uint32_t at)
{
    struct agree_node *node = &net->nodes[at];
    uint64_t due_ns;

    if (node->agree == NULL || !node->is_alive)
        return;
    due_ns = tri_agree_due_ns(node->agree);
    if (due_ns == UINT64_MAX)
        return;
    if (due_ns > node->now_ns)
        node->now_ns = due_ns;
    agree_net_step(net, at,
                   (struct tri_agree_event){ .kind = TRI_AGREE_TICK });
}

/* In the midst of a step, or after it. */
static void pick_crash(struct agree_net *net, uint32_t at)
{
    struct agree_node *node = &net->nodes[at];

    if (net->crashes >= net->config.crashes_max || !node->is_alive)
        return;
    if (below(net, 2) == 0) {
        uint32_t letter = 0;

        net->crash_after = below(net, 5);
        while (letter < net->letters_len && net->letters[letter].to != at)
            letter++;
        if (letter < net->letters_len)
            agree_net_deliver(net, letter);
        else
            agree_net_ring(net, at);
        net->crash_after = UINT32_MAX;
    }
    agree_net_crash(net, at);
}

static void pick_tell(struct agree_net *net, uint32_t at)
{
    uint32_t of = below(net, net->config.nodes);

    if (!net->nodes[of].is_alive)
        agree_net_tell(net, at, of, below(net, 3) > 0);
    else if (net->nodes[of].is_suspect)
        agree_net_tell(net, at, of, false);
}

static void pick_false_death(struct agree_net *net, uint32_t at)
{
    if (net->false_deaths >= net->config.false_deaths_max ||
        !is_in(&net->nodes[at]))
        return;
    net->false_deaths++;
    net->nodes[at].is_suspect = true;
}

/* A step's work is done. */
void agree_net_prepare(struct agree_net *net, uint32_t at)
{
    struct agree_node *node = &net->nodes[at];
    uint64_t next = node->committed + 1;

    if (node->prepared < next && !node->is_at_boundary &&
        tri_agree_mark(node->agree, node->epoch, next)) {
        node->prepared = next;
        node->prepared_at[node->epoch] = next;
    }
}

/* News of how far another is. */
static void look(struct agree_net *net, uint32_t at, uint32_t of)
{
    struct agree_node *node = &net->nodes[at];

    if (net->nodes[of].views[node->epoch] == node->view)
        node->seen[of] = net->nodes[of].prepared_at[node->epoch];
}

/* All are there. */
static void commit(struct agree_net *net, uint32_t at)
{
    struct agree_node *node = &net->nodes[at];
    struct agree_seen *view = node->view;
    uint64_t next = node->committed + 1;

    node->seen[at] = node->prepared;
    for (uint32_t i = 0; i < view->len; i++) {
        uint32_t slot = slot_of(net, view->members[i].node);

        if (slot == NOBODY || node->seen[slot] < next)
            return;
    }
    node->committed = next;
    if (view->committed < next)
        view->committed = next;
    if (view->has_next && view->next_mark < next)
        agree_net_failed(net, "node %u committed %u in epoch %u, whose end "
                              "has mark %u",
                         (unsigned)node->id, (unsigned)next,
                         (unsigned)node->epoch, (unsigned)view->next_mark);
}

void agree_net_vote(struct agree_net *net, uint32_t at)
{
    for (uint32_t i = 0; i < net->config.nodes; i++)
        look(net, at, i);
    commit(net, at);
}

static void pick_vote(struct agree_net *net, uint32_t at)
{
    if (!is_in(&net->nodes[at]))
        return;
    agree_net_prepare(net, at);
    for (uint32_t i = 0; i < net->config.nodes; i++)
        if (below(net, 2) == 0)
            look(net, at, i);
    commit(net, at);
}

static void set_boundary(struct agree_net *net, uint32_t at, bool is_at)
{
    if (net->nodes[at].agree == NULL)
        return;
    net->nodes[at].is_at_boundary = is_at;
    agree_net_step(net, at,
                   (struct tri_agree_event){ .kind = TRI_AGREE_BOUNDARY,
                                             .at = is_at });
}

void agree_net_join(struct agree_net *net, uint32_t at, uint32_t to)
{
    struct agree_node *node = &net->nodes[at];

    forget_views(node);
    begin_life(net, at);
    for (uint32_t i = 0; i < net->config.nodes; i++)
        if (node->told[i] != 0)
            agree_net_step(net, at,
                           (struct tri_agree_event){
                               .kind = TRI_AGREE_DEATH,
                               .node = net->nodes[i].id,
                               .proof = node->told[i] == 2 });
    agree_net_step(net, at,
                   (struct tri_agree_event){
                       .kind = TRI_AGREE_JOIN,
                       .node = to == at || to == net->config.nodes
                                   ? 0
                                   : net->nodes[to].id });
}

static void pick_churn(struct agree_net *net, uint32_t at)
{
    struct agree_node *node = &net->nodes[at];

    if (!node->is_alive || node->is_suspect ||
        net->churn >= net->config.churn)
        return;
    net->churn++;
    if (node->agree == NULL) {
        agree_net_join(net, at, below(net, net->config.nodes + 1));
    } else if (below(net, 4) == 0) {
        agree_net_step(net, at,
                       (struct tri_agree_event){ .kind = TRI_AGREE_RENEW });
    } else if (below(net, 3) > 0) {
        node->leaves = true;
        agree_net_step(net, at,
                       (struct tri_agree_event){ .kind = TRI_AGREE_LEAVE });
    } else {
        agree_net_step(net, at,
                       (struct tri_agree_event){ .kind = TRI_AGREE_QUIT });
        forget_views(node);
        end_life(node);
    }
}

static void pick_known(struct agree_net *net, uint32_t at)
{
    net->nodes[at].known[below(net, net->config.nodes)] = true;
    agree_net_step(net, at,
                   (struct tri_agree_event){ .kind = TRI_AGREE_KNOWN });
}

static void pick_cut(struct agree_net *net)
{
    uint32_t sides = below(net, 256);

    net->cut = 0;
    if (below(net, 2) == 0)
        return;
    for (uint32_t i = 0; i < 8; i++)
        for (uint32_t j = 0; j < 8; j++)
            if (((sides >> i) & 1) != ((sides >> j) & 1))
                net->cut |= 1ull << (i * 8 + j);
}

static void pick(struct agree_net *net)
{
    uint32_t at = below(net, net->config.nodes), what = below(net, 200);

    if (what < 100 && net->letters_len > 0)
        pick_letter(net);
    else if (what < 110)
        agree_net_ring(net, at);
    else if (what < 114)
        pick_crash(net, at);
    else if (what < 134)
        pick_tell(net, at);
    else if (what < 136)
        pick_false_death(net, at);
    else if (what < 160)
        pick_vote(net, at);
    else if (what < 180)
        set_boundary(net, at, !net->nodes[at].is_at_boundary);
    else if (what < 186)
        pick_churn(net, at);
    else if (what < 198)
        pick_known(net, at);
    else
        pick_cut(net);
}

/* --- calm ----------------------------------------------------------------- */

/* All true deaths are known and proven; who was declared dead is fenced. */
static void tell_all(struct agree_net *net)
{
    for (uint32_t i = 0; i < net->config.nodes; i++)
        if (net->nodes[i].is_suspect || net->nodes[i].agree == NULL)
            net->nodes[i].is_alive = false; /* no part in it any more */
    for (uint32_t i = 0; i < net->config.nodes; i++) {
        for (uint32_t j = 0; j < net->config.nodes; j++) {
            net->nodes[i].known[j] = true;
            if (!net->nodes[j].is_alive)
                agree_net_tell(net, i, j, true);
        }
        agree_net_step(net, i,
                       (struct tri_agree_event){ .kind = TRI_AGREE_KNOWN });
    }
}

/* All that live and take part, in one view of exactly them. */
bool agree_net_is_settled(const struct agree_net *net)
{
    const struct tri_agree_view *view = NULL;
    uint32_t count = 0;

    for (uint32_t i = 0; i < net->config.nodes; i++) {
        const struct agree_node *node = &net->nodes[i];

        if (!node->is_alive || node->agree == NULL)
            continue;
        if (node->epoch == 0 || tri_agree_is_frozen(node->agree))
            return false;
        if (view == NULL)
            view = tri_agree_view(node->agree);
        count++;
        if (tri_agree_view(node->agree)->digest != view->digest)
            return false;
    }
    return view == NULL || view->len == count;
}

static bool has_member(const struct agree_net *net)
{
    for (uint32_t i = 0; i < net->config.nodes; i++)
        if (is_in(&net->nodes[i]))
            return true;
    return false;
}

/* The next clock that rings, all being the same now. */
void agree_net_ring_next(struct agree_net *net)
{
    uint64_t first_ns = UINT64_MAX;
    uint32_t first = NOBODY;

    for (uint32_t i = 0; i < net->config.nodes; i++) {
        const struct agree_node *node = &net->nodes[i];
        uint64_t due_ns;

        if (node->agree == NULL || !node->is_alive)
            continue;
        due_ns = tri_agree_due_ns(node->agree);
        due_ns = due_ns > node->now_ns ? due_ns - node->now_ns : 0;
        if (tri_agree_due_ns(node->agree) != UINT64_MAX && due_ns < first_ns) {
            first_ns = due_ns;
            first = i;
        }
    }
    if (first == NOBODY)
        return;
    for (uint32_t i = 0; i < net->config.nodes; i++)
        net->nodes[i].now_ns += first_ns;
    agree_net_ring(net, first);
}

static void dump(struct agree_net *net)
{
    for (uint32_t i = 0; i < net->config.nodes; i++) {
        const struct agree_node *node = &net->nodes[i];

        if (node->is_alive && node->agree != NULL)
            fprintf(stderr,
                    "  node %u: epoch %u of %u, %s, phase %u, %s, mark %u\n",
                    (unsigned)node->id, (unsigned)node->epoch,
                    node->agree->view.len,
                    node->agree->is_frozen ? "frozen" : "free",
                    node->agree->leader.phase,
                    node->agree->is_joining ? "joining" : "in",
                    (unsigned)node->agree->mark);
    }
}

/* Steps until all have the same mark, and then a boundary. */
static void meet(struct agree_net *net)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < net->config.nodes; i++)
        if (is_in(&net->nodes[i]) && net->nodes[i].prepared > most)
            most = net->nodes[i].prepared;
    for (uint32_t i = 0; i < net->config.nodes; i++) {
        struct agree_node *node = &net->nodes[i];

        if (!is_in(node))
            continue;
        if (node->prepared < most) {
            set_boundary(net, i, false);
            if (is_in(node) &&
                tri_agree_mark(node->agree, node->epoch, most)) {
                node->prepared = most;
                node->prepared_at[node->epoch] = most;
            }
        }
        if (!node->is_at_boundary)
            set_boundary(net, i, true);
    }
}

/* Who is behind hears of a later epoch, from one that has it. */
static void tell_ahead(struct agree_net *net)
{
    for (uint32_t i = 0; i < net->config.nodes; i++)
        for (uint32_t j = 0; j < net->config.nodes; j++)
            if (is_in(&net->nodes[i]) && is_in(&net->nodes[j]) &&
                net->nodes[i].epoch < net->nodes[j].epoch)
                agree_net_step(net, i,
                               (struct tri_agree_event){
                                   .kind = TRI_AGREE_AHEAD,
                                   .node = net->nodes[j].id });
}

uint32_t agree_net_find(const struct agree_net *net, uint32_t from,
                        uint32_t to, uint8_t kind)
{
    uint32_t at = net->letters_len;

    while (at-- > 0) {
        const struct agree_letter *letter = &net->letters[at];

        if (letter->from == from && letter->to == to &&
            letter->data[1] == kind)
            return at;
    }
    return UINT32_MAX;
}

void agree_net_calm(struct agree_net *net)
{
    net->cut = 0;
    net->is_calm = true;
    tell_all(net);
    for (uint32_t i = 0; i < net->config.nodes; i++)
        if (net->nodes[i].epoch == 0) /* whom it asked may be dead */
            agree_net_step(net, i,
                           (struct tri_agree_event){ .kind = TRI_AGREE_JOIN });
    for (uint32_t turn = 0; turn < 600 && net->failure[0] == 0; turn++) {
        for (uint32_t i = 0; i < 1000 && net->letters_len > 0; i++)
            agree_net_deliver(net, below(net, net->letters_len));
        if (net->failure[0] != 0 || !has_member(net) ||
            agree_net_is_settled(net))
            return;
        if (turn % 8 == 0) {
            meet(net);
            tell_ahead(net);
        }
        tell_all(net);
        agree_net_ring_next(net);
    }
    if (net->failure[0] != 0 || !net->config.proof)
        return; /* or there may be no majority */
    dump(net);
    agree_net_failed(net, "no one view in the calm");
}

void agree_net_run(struct agree_net *net)
{
    for (uint32_t i = 0; i < net->config.steps && net->failure[0] == 0; i++)
        pick(net);
    if (net->failure[0] == 0)
        agree_net_calm(net);
}
