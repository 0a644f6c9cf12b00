/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * The membership driver's middle: what goes into the core, what comes out of
 * it, and when. A round of the control thread, in this order: processes that
 * ended are marked; all datagrams that are there; what other threads said;
 * then, and only if no datagram is left, the marked ones' deaths and the core's
 * timers, so that an answer that lies in the socket is never taken for silence,
 * and who left and ended meanwhile not for dead.
 */

#include "member/member_internal.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

/* Rounds in which datagrams alone are handled before a timer's turn comes
 * after all: a flood must not hold time up. */
#define ROUNDS_WITHOUT_TICK_MAX 8u
/* Ticks at once, when the core has more to say than fits in one. */
#define TICKS_MAX 64u
/* Between two looks for life in the link, at least. */
#define HEARD_NS (5 * TRI_NS_PER_MS)
#define REAP_NS (1000 * TRI_NS_PER_MS)

/* --- sending -------------------------------------------------------------- */

int tri_member_post(struct tri_member *member, const struct tri_packet *packet,
                    const struct tri_endpoint *to)
{
    unsigned char data[TRI_PACKET_BYTES_MAX];
    struct tri_packet numbered = *packet;
    size_t bytes;
    int rc;

    if (member->socket.own.family == 0 || to->family == 0)
        return TROUPE_ENODE;
    if (packet->body_bytes > TRI_PACKET_BODY_MAX)
        return TROUPE_ETOOBIG;
    numbered.counter = ++member->counter;
    tri_lock_acquire(&member->orders.lock);
    numbered.view_epoch = member->orders.view_epoch;
    numbered.view_digest = member->orders.view_digest;
    tri_lock_release(&member->orders.lock);
    bytes = tri_packet_seal(member->key, &numbered, data);
    rc = bytes == 0 ? TROUPE_ESYSTEM
                    : tri_udp_send(&member->socket, to, data, bytes);
    if (rc == 0)
        tri_member_count_out(member, bytes);
    return rc;
}

static const struct tri_member_card *card_of(void *context, uint64_t node)
{
    struct tri_member *member = context;

    return tri_roster_card(member->runtime->roster, node);
}

/* Where a packet goes: who is answered may be nobody's member. */
static const struct tri_endpoint *endpoint_of(struct tri_member *member,
                                              uint64_t node)
{
    struct tri_contact *contact = tri_contacts_find(&member->contacts, node);

    if (contact != NULL)
        return &contact->control;
    return member->arriving.swim != NULL &&
                   member->arriving.swim->from == node
               ? &member->arriving.from
               : NULL;
}

/* What cannot be sent is lost, as others are in the network. */
static void send_swim(struct tri_member *member,
                      const struct tri_swim_packet *swim)
{
    unsigned char body[TRI_PACKET_BODY_MAX];
    struct tri_packet packet = {
        .kind = swim->kind,
        .cluster = member->cluster,
        .source = member->node,
        .destination = swim->to,
        .body = body,
    };
    const struct tri_endpoint *to;
    uint32_t rumours_len;

    if (swim->kind == TRI_SWIM_JOIN) {
        tri_member_send_join(member, swim);
        return;
    }
    to = endpoint_of(member, swim->to);
    if (to == NULL)
        return;
    packet.body_bytes = (uint32_t)tri_packet_encode_swim(
        swim, card_of, member, body, &rumours_len);
    tri_member_post(member, &packet, to);
}

int tri_member_send(struct tri_member *member, uint8_t kind, uint64_t node,
                    const void *body, size_t bytes)
{
    struct tri_contact *contact = tri_contacts_find(&member->contacts, node);
    struct tri_packet packet = {
        .kind = kind,
        .cluster = member->cluster,
        .source = member->node,
        .destination = node,
        .body = body,
        .body_bytes = (uint32_t)tri_min(bytes, UINT32_MAX),
    };

    if (contact == NULL || contact->over || member->excluded)
        return TROUPE_ENODE;
    return tri_member_post(member, &packet, &contact->control);
}

/* --- members come and go -------------------------------------------------- */

/* The transport that reaches a member, and where. NULL: none. */
static struct tri_transport *way_to(struct tri_member *member,
                                    const struct tri_member_card *card,
                                    const struct tri_address **address_p)
{
    if (member->ring != NULL && card->host == member->host &&
        card->ring.bytes > 0) {
        *address_p = &card->ring;
        return member->ring;
    }
    *address_p = &card->fabric;
    return card->fabric.bytes > 0 ? member->fabric : NULL;
}

/* Who was forgotten by the core needs no contact either. */
static void forget_some(struct tri_member *member)
{
    struct tri_contact *contact;
    uint32_t i = 0;

    while ((contact = tri_contacts_next(&member->contacts, &i)) != NULL)
        if (contact->over && tri_swim_state_of(member->swim, contact->node) ==
                                 TRI_SWIM_UNKNOWN) {
            tri_contacts_remove(&member->contacts, contact);
            i--; /* another one may lie here now */
        }
}

static struct tri_contact *add_contact(struct tri_member *member,
                                       const struct tri_member_card *card)
{
    struct tri_contact *contact;

    if (member->contacts.len == member->contacts.len_max)
        forget_some(member);
    contact = tri_contacts_add(&member->contacts, card->node);
    if (contact != NULL)
        contact->control = card->control;
    return contact;
}

/* Makes a peer of a node that joined. Without one it is a member that no
 * message reaches: probes and names go on. */
static void add_peer(struct tri_member *member, struct tri_contact *contact,
                     const struct tri_member_card *card)
{
    const struct tri_address *address;
    struct tri_transport *transport = way_to(member, card, &address);
    int rc = TROUPE_ETRANSPORT;

    if (transport != NULL)
        rc = tri_link_add_peer(&member->runtime->link, card->node, transport,
                               address, &contact->peer);
    if (rc != 0)
        tri_error("messages cannot reach node %016llx, which joined: %s",
                  (unsigned long long)card->node, troupe_strerror(rc));
}

/* The card that came with the news of a node, or NULL. */
static const struct tri_member_card *arrived_card(struct tri_member *member,
                                                  uint64_t node)
{
    const struct tri_swim_packet *swim = member->arriving.swim;

    for (uint32_t i = 0; swim != NULL && i < swim->rumours_len; i++)
        if (swim->rumours[i].node == node && swim->rumours[i].with_card &&
            member->cards[i].node == node)
            return &member->cards[i];
    return NULL;
}

/*
 * A member that the roster has no room for. The core's opinion of it has to be
 * right all the same, as all others follow it: it is probed and answered. To
 * everybody else here it is as one that is gone: not listed, ENODE.
 */
static void admit_unlisted(struct tri_contact *contact, const char *where)
{
    if (contact->peer != NULL)
        tri_link_kill_for(contact->peer, "there is no room for it here");
    contact->peer = NULL;
    contact->over = true;
    tri_error("no room for node %016llx, which joined, at %s: messages cannot "
              "reach it from here, and it is not listed, as option nodes_max "
              "is too low here",
              (unsigned long long)contact->node, where);
}

/* False: it cannot be a member here. */
static bool admit(struct tri_member *member, uint64_t node)
{
    const struct tri_member_card *card = arrived_card(member, node);
    struct tri_contact *contact;
    char text[TRI_ENDPOINT_TEXT_BYTES];
    int rc;

    if (card == NULL)
        return false;
    tri_endpoint_print(&card->control, text);
    contact = add_contact(member, card);
    if (contact == NULL) {
        tri_error("no memory for node %016llx, which joined, at %s",
                  (unsigned long long)node, text);
        return false;
    }
    add_peer(member, contact, card);
    /* Who is listed can be sent to. */
    rc = tri_roster_add(member->runtime->roster, card);
    if (rc != 0 && rc != TROUPE_EEXIST) {
        admit_unlisted(contact, text);
        return false;
    }
    tri_info("node %016llx has joined, at %s", (unsigned long long)node, text);
    atomic_fetch_add(&member->others, 1);
    if (!tri_member_watch(member, contact, card))
        atomic_store(&member->orders.died, 1); /* looked at soon, not here */
    return true;
}

static const char *evidence_text(uint8_t evidence)
{
    switch (evidence) {
    case TRI_SWIM_PROOF:
        return "its process has ended";
    case TRI_SWIM_STRONG:
        return "its connections closed, and it does not answer";
    default:
        return "it does not answer";
    }
}

/* Ends what we have to do with a member that died or, why: NULL, left. */
static void part(struct tri_member *member, struct tri_contact *contact,
                 const char *why, bool end_link)
{
    struct tri_peer *peer = contact->peer;

    if (!contact->over && !contact->own_job)
        atomic_fetch_sub(&member->others, 1);
    contact->over = true;
    contact->peer = NULL; /* its slot will have another one some day */
    tri_member_unwatch(member, contact);
    if (peer == NULL || !end_link)
        return;
    if (why == NULL) /* what it sent is here: it waited for that */
        atomic_store(&peer->left, (1u << TRI_LANES) - 1);
    tri_link_kill_for(peer, why != NULL ? why : "it has left");
}

/* True: ranks that stop with us are not taken for dead or gone. */
static bool is_stopping_with_us(struct tri_member *member,
                                const struct tri_contact *contact,
                                const struct tri_swim_change *change)
{
    if (!contact->own_job || change->evidence == TRI_SWIM_PROOF)
        return false;
    return change->after == TRI_SWIM_LEFT
               ? atomic_load(&member->orders.stopping)
               : atomic_load(&member->orders.all_stopping);
}

static void log_change(const struct tri_swim_change *change)
{
    unsigned long long node = change->node;

    if (change->after == TRI_SWIM_DEAD)
        tri_info("node %016llx is dead: %s (says %016llx)", node,
                 evidence_text(change->evidence),
                 (unsigned long long)change->accuser);
    else if (change->after == TRI_SWIM_SUSPECT)
        tri_info("node %016llx is suspected: %s (says %016llx)", node,
                 evidence_text(change->evidence),
                 (unsigned long long)change->accuser);
}

static void apply_change(struct tri_member *member,
                         const struct tri_swim_change *change,
                         uint64_t now_ns)
{
    bool is_over = change->after == TRI_SWIM_DEAD ||
                   change->after == TRI_SWIM_LEFT;
    struct tri_contact *contact;

    if (change->node == member->node)
        return;
    if (change->before == TRI_SWIM_UNKNOWN &&
        (is_over || !admit(member, change->node)))
        return; /* its death is no news to who never knew it */
    contact = tri_contacts_find(&member->contacts, change->node);
    if (contact == NULL || contact->over)
        return;
    log_change(change);
    if (is_over)
        part(member, contact,
             change->after == TRI_SWIM_LEFT ? NULL
                                            : evidence_text(change->evidence),
             !is_stopping_with_us(member, contact, change));
    tri_roster_change(member->runtime->roster, change->node, change->before,
                      change->after, change->evidence, change->incarnation);
    for (uint32_t i = 0; i < member->clients_len; i++)
        if (member->clients[i].changed != NULL)
            member->clients[i].changed(member->clients[i].context, change,
                                       now_ns);
    member->clients_due_ns = 0;
}

/* The others hold us for dead: nothing is sent to them any more. */
static void exclude(struct tri_member *member)
{
    struct tri_contact *contact;
    uint32_t i = 0;

    if (member->excluded)
        return;
    member->excluded = true;
    tri_error("the other members hold this node for dead, for good: it was "
              "silent for too long, or cut off. It may stop, and start again "
              "with option seeds (and option mpi \"off\") as a new node");
    while ((contact = tri_contacts_next(&member->contacts, &i)) != NULL)
        part(member, contact, "to the others this node is dead", true);
    tri_roster_excluded(member->runtime->roster);
    member->clients_due_ns = 0; /* they look, too */
}

/* --- the core ------------------------------------------------------------- */

static void end_joining(struct tri_member *member)
{
    uint32_t runs = TRI_JOINING_RUNS;

    if (atomic_compare_exchange_strong(&member->orders.joining, &runs,
                                       TRI_JOINING_DONE))
        tri_unpark(&member->joiner);
}

static uint64_t own_view(struct tri_member *member)
{
    uint64_t epoch;

    tri_lock_acquire(&member->orders.lock);
    epoch = member->orders.view_epoch;
    tri_lock_release(&member->orders.lock);
    return epoch;
}

void tri_member_step(struct tri_member *member, struct tri_swim_event *event)
{
    struct tri_swim_effects *effects = &member->effects;

    tri_swim_set_view(member->swim, own_view(member));
    tri_swim_step(member->swim, event, effects);
    /* Changes first: who joined is told at once where it is answered. */
    for (uint32_t i = 0; i < effects->changes_len; i++)
        apply_change(member, &effects->changes[i], event->now_ns);
    for (uint32_t i = 0; i < effects->sends_len; i++)
        send_swim(member, &effects->sends[i]);
    if (effects->joined)
        end_joining(member);
    if (effects->left)
        atomic_store(&member->orders.leaving, TRI_LEAVING_DONE);
    if (effects->excluded)
        exclude(member);
}

void tri_member_evidence(struct tri_member *member, uint64_t node,
                         enum tri_swim_evidence evidence, uint64_t now_ns)
{
    struct tri_swim_event event = { .kind = TRI_SWIM_EVIDENCE,
                                    .now_ns = now_ns,
                                    .node = node,
                                    .evidence = evidence };

    if (!member->excluded)
        tri_member_step(member, &event);
}

/* Whom the link heard of lives. */
static void look_for_life(struct tri_member *member, uint64_t now_ns)
{
    struct tri_contact *contact;
    uint32_t i = 0;

    if (now_ns - member->heard_ns < HEARD_NS)
        return;
    member->heard_ns = now_ns;
    while ((contact = tri_contacts_next(&member->contacts, &i)) != NULL) {
        struct tri_swim_event event = { .kind = TRI_SWIM_HEARD,
                                        .now_ns = now_ns,
                                        .node = contact->node };
        uint64_t heard;

        if (contact->over || contact->peer == NULL)
            continue;
        heard = tri_peer_heard(contact->peer);
        if (heard == contact->heard)
            continue;
        contact->heard = heard;
        tri_member_step(member, &event);
    }
}

static void tick(struct tri_member *member, uint64_t now_ns)
{
    uint64_t due_ns = tri_swim_due_ns(member->swim);

    if (now_ns < due_ns)
        return;
    if (due_ns > 0)
        tri_member_count_late(member, now_ns - due_ns);
    look_for_life(member, now_ns);
    for (uint32_t i = 0; i < TICKS_MAX && !member->excluded; i++) {
        struct tri_swim_event event = { .kind = TRI_SWIM_TICK,
                                        .now_ns = now_ns };

        if (now_ns < tri_swim_due_ns(member->swim))
            return;
        tri_member_step(member, &event);
    }
}

/* --- orders --------------------------------------------------------------- */

static void order(struct tri_member *member)
{
    struct tri_scheduler *scheduler = &member->runtime->scheduler;

    atomic_store(&member->orders.any, 1);
    /* Not before there is a control thread's descriptor. */
    if (scheduler->runtime != NULL)
        tri_control_kick(scheduler);
}

void tri_member_kick(struct tri_member *member)
{
    order(member);
}

/* Whom the link ended without being told to. */
static void mark_dead_peers(struct tri_member *member)
{
    struct tri_contact *contact;
    uint32_t i = 0;

    while ((contact = tri_contacts_next(&member->contacts, &i)) != NULL)
        if (!contact->over && contact->peer != NULL &&
            tri_peer_is_dead(contact->peer))
            contact->ended = member->ends = true;
}

/* All that they said before was read. */
static void bury(struct tri_member *member, uint64_t now_ns)
{
    struct tri_contact *contact;
    uint32_t i = 0;

    if (!member->ends)
        return;
    member->ends = false;
    while ((contact = tri_contacts_next(&member->contacts, &i)) != NULL) {
        if (!contact->ended)
            continue;
        contact->ended = false;
        if (!contact->over)
            tri_member_evidence(member, contact->node, TRI_SWIM_PROOF, now_ns);
    }
}

static void take_suspects(struct tri_member *member, uint64_t now_ns)
{
    uint64_t suspects[TRI_SUSPECTS_MAX];
    uint32_t len;

    tri_lock_acquire(&member->orders.lock);
    len = member->orders.suspects_len;
    for (uint32_t i = 0; i < len; i++)
        suspects[i] = member->orders.suspects[i];
    member->orders.suspects_len = 0;
    tri_lock_release(&member->orders.lock);
    for (uint32_t i = 0; i < len; i++)
        tri_member_evidence(member, suspects[i], TRI_SWIM_STRONG, now_ns);
}

static void start_joining(struct tri_member *member, uint64_t now_ns)
{
    uint32_t wanted = TRI_JOINING_WANTED;
    struct tri_swim_event event = { .kind = TRI_SWIM_DO_JOIN,
                                    .now_ns = now_ns,
                                    .seeds_len = member->seeds.len };

    if (atomic_compare_exchange_strong(&member->orders.joining, &wanted,
                                       TRI_JOINING_RUNS))
        tri_member_step(member, &event);
}

/* What members of other jobs do from now on is no death that we are to tell
 * of: to them we are gone. */
static void part_from_others(struct tri_member *member)
{
    struct tri_contact *contact;
    uint32_t i = 0;

    while ((contact = tri_contacts_next(&member->contacts, &i)) != NULL)
        if (!contact->own_job && contact->peer != NULL)
            atomic_store(&contact->peer->left, (1u << TRI_LANES) - 1);
}

static void start_leaving(struct tri_member *member, uint64_t now_ns)
{
    uint32_t wanted = TRI_LEAVING_WANTED;
    struct tri_swim_event event = { .kind = TRI_SWIM_DO_LEAVE,
                                    .now_ns = now_ns };

    if (!atomic_compare_exchange_strong(&member->orders.leaving, &wanted,
                                        TRI_LEAVING_RUNS))
        return;
    part_from_others(member);
    if (member->excluded || member->socket.own.family == 0)
        atomic_store(&member->orders.leaving, TRI_LEAVING_DONE);
    else
        tri_member_step(member, &event);
}

static void take_orders(struct tri_member *member, uint64_t now_ns)
{
    /* Pairs with the store in order(): what was said before it is seen. */
    if (atomic_load_explicit(&member->orders.any, memory_order_relaxed) == 0 ||
        atomic_exchange(&member->orders.any, 0) == 0)
        return;
    member->clients_due_ns = 0;
    take_suspects(member, now_ns);
    start_joining(member, now_ns);
    start_leaving(member, now_ns);
}

/* --- a round -------------------------------------------------------------- */

static void run_clients(struct tri_member *member, uint64_t now_ns)
{
    uint64_t due_ns = TRI_NS_NEVER;

    if (now_ns < member->clients_due_ns)
        return;
    member->clients_due_ns = TRI_NS_NEVER;
    for (uint32_t i = 0; i < member->clients_len; i++)
        if (member->clients[i].tick != NULL)
            due_ns = tri_min(due_ns,
                             member->clients[i].tick(
                                 member->clients[i].context, now_ns));
    member->clients_due_ns = tri_min(member->clients_due_ns, due_ns);
}

/* Lets go of dead peers, now and then. Returns when to come again. */
static uint64_t reap(struct tri_member *member, uint64_t now_ns)
{
    struct tri_runtime *runtime = member->runtime;
    struct tri_link *link = &runtime->link;

    if (atomic_load_explicit(&link->deaths, memory_order_relaxed) ==
        link->reaped)
        return TRI_NS_NEVER;
    if (now_ns - member->reap_ns >= REAP_NS) {
        member->reap_ns = now_ns;
        if (tri_link_reap(link, now_ns))
            tri_poll_kick(&runtime->scheduler);
    }
    return member->reap_ns + REAP_NS;
}

static uint64_t run(struct tri_runtime *runtime, uint64_t now_ns, bool ready)
{
    struct tri_member *member = runtime->member;
    uint64_t due_ns = TRI_NS_NEVER;

    if (ready)
        member->more |= tri_member_look(member);
    if (atomic_load_explicit(&member->orders.died, memory_order_relaxed) &&
        atomic_exchange(&member->orders.died, 0))
        mark_dead_peers(member);
    if (member->more || (member->ends && member->socket.own.family != 0))
        member->more = tri_member_receive(member, now_ns);
    take_orders(member, now_ns);
    if (!member->more ||
        ++member->rounds_without_tick >= ROUNDS_WITHOUT_TICK_MAX) {
        member->rounds_without_tick = 0;
        bury(member, now_ns);
        tick(member, now_ns);
    }
    run_clients(member, now_ns);
    tri_member_publish(member);
    due_ns = tri_roster_run(runtime->roster, now_ns);
    due_ns = tri_min(due_ns, reap(member, now_ns));
    if (!member->excluded)
        due_ns = tri_min(due_ns, tri_swim_due_ns(member->swim));
    due_ns = tri_min(due_ns, member->clients_due_ns);
    return member->more || atomic_load(&member->orders.died) ? now_ns : due_ns;
}

/* --- for the layers above ------------------------------------------------- */

int tri_member_attach(struct tri_member *member,
                      const struct tri_member_client *client)
{
    struct tri_swim_change change = { .before = TRI_SWIM_UNKNOWN,
                                      .after = TRI_SWIM_ALIVE,
                                      .node = member->node };
    uint64_t now_ns = tri_now_ns();
    struct tri_contact *contact;
    uint32_t i = 0;

    if (member->clients_len == TRI_MEMBER_CLIENTS_MAX)
        return TROUPE_ELIMIT;
    member->clients[member->clients_len++] = *client;
    if (client->changed == NULL)
        return 0;
    client->changed(client->context, &change, now_ns);
    while ((contact = tri_contacts_next(&member->contacts, &i)) != NULL) {
        change.node = contact->node;
        client->changed(client->context, &change, now_ns);
    }
    return 0;
}

void tri_member_set_view(struct tri_member *member, uint64_t epoch,
                         uint64_t digest)
{
    tri_lock_acquire(&member->orders.lock);
    member->orders.view_epoch = epoch;
    member->orders.view_digest = digest;
    tri_lock_release(&member->orders.lock);
}

/* --- for the node --------------------------------------------------------- */

void tri_member_on_suspect(void *runtime, struct tri_peer *peer)
{
    struct tri_member *member = ((struct tri_runtime *)runtime)->member;
    struct tri_member_orders *orders;
    bool is_new = true;

    if (member == NULL)
        return;
    orders = &member->orders;
    tri_lock_acquire(&orders->lock);
    for (uint32_t i = 0; i < orders->suspects_len; i++)
        is_new &= orders->suspects[i] != peer->node;
    if (is_new && orders->suspects_len < TRI_SUSPECTS_MAX)
        orders->suspects[orders->suspects_len++] = peer->node;
    tri_lock_release(&orders->lock);
    if (is_new)
        order(member);
}

void tri_member_on_died(void *runtime, struct tri_peer *peer)
{
    struct tri_member *member = ((struct tri_runtime *)runtime)->member;

    (void)peer;
    if (member == NULL)
        return;
    atomic_store(&member->orders.died, 1);
    order(member);
}

void tri_member_stopping(struct tri_member *member, bool all)
{
    atomic_store(&member->orders.stopping, 1);
    if (all)
        atomic_store(&member->orders.all_stopping, 1);
}

bool tri_member_has_joined(const struct tri_member *member)
{
    return atomic_load(&member->others) > 0;
}

void tri_member_leave(struct tri_member *member)
{
    uint32_t none = TRI_LEAVING_NONE;

    if (atomic_compare_exchange_strong(&member->orders.leaving, &none,
                                       TRI_LEAVING_WANTED))
        order(member);
}

bool tri_member_has_left(const struct tri_member *member)
{
    return atomic_load(&member->orders.leaving) == TRI_LEAVING_DONE;
}

int tri_member_join(struct tri_member *member, uint64_t deadline_ns)
{
    const char *seeds = member->runtime->options.seeds;
    uint32_t joining;
    int error;

    atomic_store(&member->orders.joining, TRI_JOINING_WANTED);
    order(member);
    for (;;) {
        joining = atomic_load(&member->orders.joining);
        if (joining == TRI_JOINING_DONE)
            return 0;
        if (joining == TRI_JOINING_REFUSED || tri_now_ns() >= deadline_ns)
            break;
        tri_park(&member->joiner, deadline_ns);
    }
    error = joining == TRI_JOINING_REFUSED ? atomic_load(&member->join_error)
                                           : TROUPE_ENOSEED;
    tri_join_log(error, seeds != NULL ? seeds : "the seed",
                 member->runtime->options.cluster);
    return error;
}

/* --- opening -------------------------------------------------------------- */

static int open_keys(struct tri_member *member,
                     const struct tri_member_config *config)
{
    unsigned char secret[TRI_KEY_BYTES];
    int rc = config->key != NULL ? tri_packet_key_create(config->key,
                                                         config->security,
                                                         &member->key)
                                 : 0;

    if (rc == 0)
        rc = tri_key_random(secret);
    if (rc == 0)
        rc = tri_packet_key_create(secret, TRI_SEAL_NONE, &member->secret);
    tri_key_forget(secret);
    return rc;
}

static uint32_t card_bytes_of(void *context, uint64_t node)
{
    const struct tri_member_card *card = card_of(context, node);
    unsigned char data[TRI_CARD_BYTES_MAX];

    return card != NULL ? (uint32_t)tri_card_encode(card, data) : 0;
}

static int open_core(struct tri_member *member,
                     const struct tri_member_config *config)
{
    struct tri_swim_config swim;
    int rc;

    tri_swim_config_init(&swim, config->profile);
    swim.node = member->node;
    swim.seed = tri_random_next(&member->random);
    /* as many dead ones are remembered as can live */
    swim.members_max = config->nodes_max * 2;
    swim.packet_bytes_max = TRI_PACKET_BYTES_MAX;
    swim.header_bytes = TRI_PACKET_SWIM_BYTES;
    swim.rumour_bytes = TRI_PACKET_RUMOUR_BYTES;
    swim.card_bytes = TRI_CARD_BYTES_MAX;
    swim.card_bytes_of = card_bytes_of;
    swim.is_starved = tri_member_is_starved;
    swim.context = member;
    rc = tri_swim_create(&swim, &member->swim);
    return rc == 0 ? tri_contacts_init(&member->contacts, swim.members_max)
                   : rc;
}

static int open_epoll(struct tri_member *member)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = 0 };

    member->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (member->epoll_fd < 0 ||
        (member->socket.own.family != 0 &&
         epoll_ctl(member->epoll_fd, EPOLL_CTL_ADD, member->socket.fd,
                   &event) < 0)) {
        tri_error("membership: epoll: %m");
        return TROUPE_ESYSTEM;
    }
    return 0;
}

/* The job's ranks are members from the start. */
static int add_ranks(struct tri_member *member,
                     const struct tri_member_card *cards)
{
    struct tri_runtime *runtime = member->runtime;

    for (int i = 0; i < runtime->size; i++) {
        struct tri_contact *contact;
        int rc;

        if (i == runtime->rank)
            continue;
        rc = tri_roster_add(runtime->roster, &cards[i]);
        if (rc == 0)
            rc = tri_swim_add(member->swim, cards[i].node);
        contact = rc == 0 ? add_contact(member, &cards[i]) : NULL;
        if (contact == NULL)
            return rc != 0 ? rc : TROUPE_ELIMIT;
        contact->peer = &runtime->link.peers[i];
        contact->own_job = true;
        /* One that has ended already is found by the others, too. */
        if (!tri_member_watch(member, contact, &cards[i]))
            tri_link_kill(contact->peer);
    }
    return 0;
}

int tri_member_open(const struct tri_member_config *config)
{
    struct tri_runtime *runtime = config->runtime;
    struct tri_member *member = calloc(1, sizeof(*member));
    int rc;

    if (member == NULL)
        return TROUPE_ENOMEM;
    member->runtime = runtime;
    member->node = runtime->node;
    member->host = config->cards[runtime->rank].host;
    member->cluster = config->cluster;
    member->cluster_name = config->cluster_name;
    member->socket = *config->socket;
    config->socket->own.family = 0;
    member->nodes_max = config->nodes_max;
    member->profile = config->profile;
    member->ring = config->ring;
    member->fabric = config->fabric;
    if (config->seeds != NULL)
        member->seeds = *config->seeds;
    tri_random_init(&member->random, tri_mix64(member->node));
    member->token = tri_random_next(&member->random);
    member->epoll_fd = -1;
    runtime->member = member;
    rc = open_keys(member, config);
    if (rc == 0)
        rc = open_core(member, config);
    if (rc == 0)
        rc = open_epoll(member);
    if (rc == 0)
        rc = add_ranks(member, config->cards);
    if (rc != 0) {
        tri_member_close(&runtime->member);
        return rc;
    }
    runtime->control_fd = member->epoll_fd;
    runtime->control_run = run;
    return 0;
}

void tri_member_close(struct tri_member **member_p)
{
    struct tri_member *member = *member_p;

    if (member == NULL)
        return;
    tri_contacts_fini(&member->contacts);
    tri_udp_close(&member->socket);
    if (member->epoll_fd >= 0)
        close(member->epoll_fd);
    tri_swim_destroy(&member->swim);
    tri_packet_key_destroy(&member->key);
    tri_packet_key_destroy(&member->secret);
    free(member);
    *member_p = NULL;
}
