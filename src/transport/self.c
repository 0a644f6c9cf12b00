/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A transport inside one process: between nodes that live in it together
 * (tests), or from a node to itself. Plain: each record is allocated and goes
 * through a bounded list for each lane of each sender; one lock guards all of
 * it. Events are raised with the lock released.
 */

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/log.h"
#include "os/bell.h"
#include "transport/transport.h"

/* Records of one lane of one channel that wait at the receiver. */
#define QUEUE_MAX 64u
/* Records taken from one sender's data before the next one has its turn. */
#define TURN_RECORDS 64u

struct entry {
    STAILQ_ENTRY(entry) next;
    struct self_channel *channel; /* NULL: it was disconnected */
    struct tri_record record;
    _Alignas(8) unsigned char payload[];
};

STAILQ_HEAD(entries, entry);

/* One lane of a channel. */
struct lane {
    unsigned queued;
    bool waiting; /* said EFULL; `writable` is due */
    /* What the target did not take, when it is gone or given up. */
    struct entries left;
};

struct self_channel {
    struct tri_channel base;
    struct self *target;     /* NULL: it has closed */
    struct contact *contact; /* what the target has of us; NULL: likewise */
    void *context;
    struct entry *reserved;
    enum tri_lane reserved_lane;
    struct lane lanes[TRI_LANES];
    bool lost; /* the target's end is to be told */
    uint64_t node;
    struct self_channel *next;
};

/* Who sends to us; made when it connects, kept until we close. */
struct contact {
    uint64_t node;
    uint64_t nonce;
    unsigned channels; /* open ones */
    struct entries lanes[TRI_LANES];
    /* For poll. */
    bool asked;    /* `accept` was called */
    void *context; /* NULL: refused */
    bool refused;  /* the link did not take the first record of the data */
    bool ended;    /* and that was told */
    struct contact *next;
};

struct self {
    struct tri_transport base;
    struct tri_transport_config config;
    struct self_channel *channels;
    struct contact *contacts;
    struct entry *in_hand;       /* poll raises `record` for it */
    struct contact *urgent_turn; /* where the next poll begins; NULL: first */
    struct contact *data_turn;
    struct self *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct self *nodes;

static struct self *self_of(struct tri_transport *transport)
{
    return tri_container_of(transport, struct self, base);
}

static struct self_channel *channel_of(struct tri_channel *channel)
{
    return tri_container_of(channel, struct self_channel, base);
}

static int self_open(const struct tri_transport_config *config,
                     struct tri_transport **transport_p)
{
    struct self *self = calloc(1, sizeof(*self));

    if (!self) {
        tri_error("self: out of memory");
        return TROUPE_ENOMEM;
    }
    self->base.ops = &tri_transport_self;
    self->base.record_bytes_max = TRI_RECORD_BYTES_MAX;
    self->config = *config;
    pthread_mutex_lock(&lock);
    self->next = nodes;
    nodes = self;
    pthread_mutex_unlock(&lock);
    *transport_p = &self->base;
    return 0;
}

static void self_address(struct tri_transport *transport,
                         struct tri_address *address_p)
{
    uint64_t node = self_of(transport)->config.node;

    *address_p = (struct tri_address){ .bytes = sizeof(node) };
    memcpy(address_p->data, &node, sizeof(node));
}

/* --- channels ------------------------------------------------------------- */

/* What `target` has of the node, or shall have from now on. NULL: no memory. */
static struct contact *contact_locked(struct self *target,
                                      const struct self *self)
{
    struct contact *contact = target->contacts;

    while (contact && contact->node != self->config.node)
        contact = contact->next;
    if (contact)
        return contact;
    contact = calloc(1, sizeof(*contact));
    if (!contact)
        return NULL;
    contact->node = self->config.node;
    contact->nonce = self->config.job_nonce;
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        STAILQ_INIT(&contact->lanes[lane]);
    contact->next = target->contacts;
    target->contacts = contact;
    return contact;
}

static int attach_locked(struct self *self, struct self_channel *channel)
{
    struct self *target = nodes;

    while (target && target->config.node != channel->node)
        target = target->next;
    if (!target)
        return TROUPE_ENODE;
    channel->contact = contact_locked(target, self);
    if (!channel->contact)
        return TROUPE_ENOMEM;
    channel->contact->channels++;
    channel->contact->ended = false;
    channel->target = target;
    channel->next = self->channels;
    self->channels = channel;
    return 0;
}

static int self_connect(struct tri_transport *transport, uint64_t node,
                        const struct tri_address *address, void *peer,
                        struct tri_channel **channel_p)
{
    struct self_channel *channel;
    int error;

    if (address->bytes != sizeof(node) ||
        memcmp(address->data, &node, sizeof(node)) != 0)
        return TROUPE_ETRANSPORT;
    channel = calloc(1, sizeof(*channel));
    if (!channel)
        return TROUPE_ENOMEM;
    channel->base.transport = transport;
    channel->context = peer;
    channel->node = node;
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        STAILQ_INIT(&channel->lanes[lane].left);
    pthread_mutex_lock(&lock);
    error = attach_locked(self_of(transport), channel);
    pthread_mutex_unlock(&lock);
    if (error) {
        free(channel);
        return error;
    }
    *channel_p = &channel->base;
    return 0;
}

static void free_entries(struct entries *entries)
{
    while (!STAILQ_EMPTY(entries)) {
        struct entry *entry = STAILQ_FIRST(entries);

        STAILQ_REMOVE_HEAD(entries, next);
        free(entry);
    }
}

/* What it has sent stays with the target, but is nobody's any more. */
static void leave_target_locked(struct self_channel *channel)
{
    struct self *target = channel->target;
    struct entry *entry;

    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        STAILQ_FOREACH(entry, &channel->contact->lanes[lane], next)
    if (entry->channel == channel)
        entry->channel = NULL;
    if (target->in_hand && target->in_hand->channel == channel)
        target->in_hand->channel = NULL;
    channel->contact->channels--;
    tri_bell_ring(target->config.bell);
}

/* Frees a channel that is off its node's list. */
static void channel_free_locked(struct self_channel *channel)
{
    if (channel->target)
        leave_target_locked(channel);
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        free_entries(&channel->lanes[lane].left);
    free(channel->reserved);
    free(channel);
}

static void self_disconnect(struct tri_channel *base)
{
    struct self_channel *channel = channel_of(base);
    struct self_channel **link = &self_of(base->transport)->channels;

    pthread_mutex_lock(&lock);
    while (*link != channel)
        link = &(*link)->next;
    *link = channel->next;
    channel_free_locked(channel);
    pthread_mutex_unlock(&lock);
}

static int room_locked(struct self_channel *channel, struct lane *lane)
{
    if (!channel->target)
        return TROUPE_ENODE;
    if (lane->queued < QUEUE_MAX)
        return 0;
    lane->waiting = true;
    return TROUPE_EFULL;
}

static int self_reserve(struct tri_channel *base, enum tri_lane lane,
                        size_t bytes, struct tri_span *span_p)
{
    struct self_channel *channel = channel_of(base);
    int error;

    assert(bytes <= TRI_RECORD_BYTES_MAX);
    pthread_mutex_lock(&lock);
    error = room_locked(channel, &channel->lanes[lane]);
    pthread_mutex_unlock(&lock);
    if (error)
        return error;
    channel->reserved = malloc(sizeof(struct entry) + bytes);
    if (!channel->reserved)
        return TROUPE_ENOMEM;
    channel->reserved_lane = lane;
    span_p->record = &channel->reserved->record;
    span_p->payload = channel->reserved->payload;
    return 0;
}

static void self_commit(struct tri_channel *base)
{
    struct self_channel *channel = channel_of(base);
    struct lane *lane = &channel->lanes[channel->reserved_lane];
    struct entry *entry = channel->reserved;

    channel->reserved = NULL;
    entry->channel = channel;
    pthread_mutex_lock(&lock);
    lane->queued++;
    if (channel->target) {
        STAILQ_INSERT_TAIL(&channel->contact->lanes[channel->reserved_lane],
                           entry, next);
        tri_bell_ring(channel->target->config.bell);
    } else {
        STAILQ_INSERT_TAIL(&lane->left, entry, next);
    }
    pthread_mutex_unlock(&lock);
}

static uint64_t self_unread(struct tri_channel *base)
{
    uint64_t queued = 0;

    pthread_mutex_lock(&lock);
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        queued += channel_of(base)->lanes[lane].queued;
    pthread_mutex_unlock(&lock);
    return queued;
}

/* Takes back what a target has not taken of each channel, or of this one. */
static void take_back_locked(struct contact *contact,
                             const struct self_channel *channel)
{
    for (unsigned lane = 0; lane < TRI_LANES; lane++) {
        struct entries rest = STAILQ_HEAD_INITIALIZER(rest);
        struct entry *entry, *next;

        for (entry = STAILQ_FIRST(&contact->lanes[lane]); entry; entry = next) {
            next = STAILQ_NEXT(entry, next);
            if (entry->channel && (!channel || entry->channel == channel))
                STAILQ_INSERT_TAIL(&entry->channel->lanes[lane].left, entry,
                                   next);
            else
                STAILQ_INSERT_TAIL(&rest, entry, next);
        }
        STAILQ_INIT(&contact->lanes[lane]);
        STAILQ_CONCAT(&contact->lanes[lane], &rest);
    }
}

/* A target that still lives will not see what is told here. */
static void self_each_unread(struct tri_channel *base,
                             void (*unread)(void *context,
                                            const struct tri_record *record,
                                            const void *payload),
                             void *context)
{
    struct self_channel *channel = channel_of(base);
    struct entry *entry;

    pthread_mutex_lock(&lock);
    if (channel->contact)
        take_back_locked(channel->contact, channel);
    pthread_mutex_unlock(&lock);
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        STAILQ_FOREACH(entry, &channel->lanes[lane].left, next)
    unread(context, &entry->record, entry->payload);
}

/* --- polling -------------------------------------------------------------- */

static struct entry *take_hand_locked(struct self *self,
                                      struct entries *entries)
{
    struct entry *entry = STAILQ_FIRST(entries);

    assert(!self->in_hand);
    if (entry)
        STAILQ_REMOVE_HEAD(entries, next);
    self->in_hand = entry;
    return entry;
}

/* The sender's lane has room again. */
static void count_taken_locked(struct self_channel *channel, enum tri_lane lane)
{
    struct lane *counted = &channel->lanes[lane];

    counted->queued--;
    if (counted->waiting && counted->queued == QUEUE_MAX / 2)
        tri_bell_ring(self_of(channel->base.transport)->config.bell);
}

/* False: the link does not take it. */
static bool deliver(struct self *self, struct contact *contact,
                    enum tri_lane lane, const struct entry *entry)
{
    const struct tri_transport_events *events = &self->config.events;
    bool taken;

    if (contact->nonce != self->config.job_nonce) {
        events->garbage(events->context, "self: a node of another job");
        return true;
    }
    if (!tri_record_check(&entry->record, TRI_RECORD_BYTES_MAX)) {
        events->garbage(events->context, "self: malformed record");
        return true;
    }
    if (!contact->asked)
        contact->context = events->accept(events->context, contact->node);
    contact->asked = true;
    if (!contact->context)
        return true;
    taken = events->record(events->context, contact->context, lane,
                           &entry->record, entry->payload);
    assert(taken || lane == TRI_LANE_DATA);
    return taken;
}

/* False: there is none, or the link does not take it. */
static bool deliver_one(struct self *self, struct contact *contact,
                        enum tri_lane lane)
{
    struct entry *entry;
    bool taken;

    pthread_mutex_lock(&lock);
    entry = take_hand_locked(self, &contact->lanes[lane]);
    pthread_mutex_unlock(&lock);
    if (!entry)
        return false;
    taken = deliver(self, contact, lane, entry);
    pthread_mutex_lock(&lock);
    self->in_hand = NULL;
    if (!taken)
        STAILQ_INSERT_HEAD(&contact->lanes[lane], entry, next);
    else if (entry->channel)
        count_taken_locked(entry->channel, lane);
    pthread_mutex_unlock(&lock);
    if (taken)
        free(entry);
    else
        contact->refused = true;
    return taken;
}

/* Contacts are only added, in front, and only freed by close. */
static struct contact *first_contact(struct self *self)
{
    struct contact *first;

    pthread_mutex_lock(&lock);
    first = self->contacts;
    pthread_mutex_unlock(&lock);
    return first;
}

/* The one after it, and at last the first again. */
static struct contact *next_contact(struct self *self, struct contact *contact)
{
    return contact->next ? contact->next : first_contact(self);
}

static bool can_go_on(const struct self_channel *channel,
                      const struct lane *lane)
{
    return lane->waiting && (!channel->target || lane->queued <= QUEUE_MAX / 2);
}

static bool is_due_locked(const struct self_channel *channel)
{
    bool due = channel->lost;

    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        due |= can_go_on(channel, &channel->lanes[lane]);
    return due;
}

/* Raises what is due for one channel. False: for none. */
static bool tell_one(struct self *self)
{
    const struct tri_transport_events *events = &self->config.events;
    struct self_channel *channel;
    bool lost = false;
    void *context = NULL;
    uint64_t node = 0;

    pthread_mutex_lock(&lock);
    channel = self->channels;
    while (channel && !is_due_locked(channel))
        channel = channel->next;
    if (channel) {
        lost = channel->lost;
        node = channel->node;
        context = channel->context;
        channel->lost = false;
        for (unsigned lane = 0; lane < TRI_LANES && !lost; lane++)
            if (can_go_on(channel, &channel->lanes[lane]))
                channel->lanes[lane].waiting = false;
    }
    pthread_mutex_unlock(&lock);
    if (lost)
        events->lost(events->context, node, TRI_EVIDENCE_STRONG);
    else if (channel)
        events->writable(events->context, context);
    return channel;
}

static bool has_ended_locked(const struct contact *contact)
{
    if (contact->channels > 0 || contact->ended || !contact->context)
        return false;
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        if (!STAILQ_EMPTY(&contact->lanes[lane]))
            return false;
    return true;
}

static void tell_ended(struct self *self, struct contact *contact)
{
    const struct tri_transport_events *events = &self->config.events;
    bool ended;

    pthread_mutex_lock(&lock);
    ended = has_ended_locked(contact);
    contact->ended |= ended;
    pthread_mutex_unlock(&lock);
    if (ended && events->ended)
        events->ended(events->context, contact->context);
}

static unsigned poll_urgent(struct self *self, unsigned budget)
{
    struct contact *begin =
        self->urgent_turn ? self->urgent_turn : first_contact(self);
    struct contact *c = begin;
    unsigned n = 0;

    do {
        while (n < budget && deliver_one(self, c, TRI_LANE_CONTROL))
            n++;
        while (n < budget && deliver_one(self, c, TRI_LANE_REPLY))
            n++;
        c = next_contact(self, c);
    } while (c != begin && n < budget);
    self->urgent_turn = c;
    return n;
}

static unsigned poll_data(struct self *self, unsigned budget)
{
    struct contact *begin =
        self->data_turn ? self->data_turn : first_contact(self);
    struct contact *c = begin;
    unsigned n = 0;

    do {
        unsigned turn = (unsigned)tri_min(budget - n, TURN_RECORDS);

        for (; turn > 0 && !c->refused && deliver_one(self, c, TRI_LANE_DATA);
             turn--)
            n++;
        tell_ended(self, c);
        c = next_contact(self, c);
    } while (c != begin && n < budget);
    self->data_turn = c;
    return n;
}

/* Each kind of lane has the whole budget, so that a flood of one does not stop
 * the other. */
static unsigned self_poll(struct tri_transport *transport, unsigned budget)
{
    struct self *self = self_of(transport);
    unsigned n = 0;

    if (first_contact(self)) {
        n = poll_urgent(self, budget);
        n += poll_data(self, budget);
    }
    while (tell_one(self))
        ;
    return n;
}

static void self_resume(struct tri_transport *transport, void *peer)
{
    struct contact *c = first_contact(self_of(transport));

    for (; c; c = c->next)
        if (c->asked && c->context == peer)
            c->refused = false;
}

static bool self_pending(struct tri_transport *transport)
{
    struct self *self = self_of(transport);
    bool pending = false;

    pthread_mutex_lock(&lock);
    for (struct contact *c = self->contacts; c && !pending; c = c->next)
        pending = !STAILQ_EMPTY(&c->lanes[TRI_LANE_CONTROL]) ||
                  !STAILQ_EMPTY(&c->lanes[TRI_LANE_REPLY]) ||
                  (!STAILQ_EMPTY(&c->lanes[TRI_LANE_DATA]) && !c->refused) ||
                  has_ended_locked(c);
    for (struct self_channel *c = self->channels; c && !pending; c = c->next)
        pending = is_due_locked(c);
    pthread_mutex_unlock(&lock);
    return pending;
}

static int self_wait_fd(struct tri_transport *transport)
{
    (void)transport;
    return -1;
}

/* --- the end -------------------------------------------------------------- */

/* Gives their records back to those who sent to us. */
static void leave_senders_locked(struct self *self)
{
    for (struct contact *c = self->contacts; c; c = c->next)
        take_back_locked(c, NULL);
    for (struct self *other = nodes; other; other = other->next)
        for (struct self_channel *c = other->channels; c; c = c->next)
            if (c->target == self) {
                c->target = NULL;
                c->contact = NULL;
                c->lost = true;
                tri_bell_ring(other->config.bell);
            }
}

static void free_contacts(struct self *self)
{
    while (self->contacts) {
        struct contact *contact = self->contacts;

        self->contacts = contact->next;
        for (unsigned lane = 0; lane < TRI_LANES; lane++)
            free_entries(&contact->lanes[lane]);
        free(contact);
    }
}

static void self_close(struct tri_transport *transport)
{
    struct self *self = self_of(transport);
    struct self **link = &nodes;

    pthread_mutex_lock(&lock);
    while (*link != self)
        link = &(*link)->next;
    *link = self->next;
    while (self->channels) {
        struct self_channel *channel = self->channels;

        self->channels = channel->next;
        channel_free_locked(channel);
    }
    leave_senders_locked(self);
    pthread_mutex_unlock(&lock);
    free_contacts(self);
    free(self);
}

const struct tri_transport_ops tri_transport_self = {
    .name = "self",
    .open = self_open,
    .close = self_close,
    .address = self_address,
    .connect = self_connect,
    .disconnect = self_disconnect,
    .reserve = self_reserve,
    .commit = self_commit,
    .each_unread = self_each_unread,
    .unread = self_unread,
    .poll = self_poll,
    .pending = self_pending,
    .resume = self_resume,
    .wait_fd = self_wait_fd,
};
