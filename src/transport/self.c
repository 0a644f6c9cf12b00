/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * A transport inside one process: between nodes that live in it together
 * (tests), or from a node to itself. Plain: each record is allocated and goes
 * through a bounded list; one lock guards all of it. Events are raised with
 * the lock released.
 */

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "os/bell.h"
#include "transport/transport.h"

/* Records of one channel that wait at the receiver. */
#define QUEUE_MAX 64u

struct entry {
    struct entry *next;
    struct self_channel *channel; /* NULL: it was disconnected */
    uint64_t node;                /* the sender's */
    uint64_t nonce;
    struct tri_record record;
    _Alignas(8) unsigned char payload[];
};

struct self_channel {
    struct tri_channel base;
    struct self *target; /* NULL: it has closed */
    void *context;
    struct entry *reserved;
    unsigned queued;
    bool waiting; /* said EFULL; `writable` is due */
    bool lost;    /* the target's end is to be told */
    uint64_t node;
    struct self_channel *next;
};

/* Who sends to us. */
struct contact {
    uint64_t node;
    void *context; /* NULL: refused */
    struct contact *next;
};

struct self {
    struct tri_transport base;
    struct tri_transport_config config;
    struct entry *first;
    struct entry **last;
    struct self_channel *channels;
    struct contact *contacts; /* poll's */
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
    self->last = &self->first;
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

static int self_connect(struct tri_transport *transport, uint64_t node,
                        const struct tri_address *address, void *peer,
                        struct tri_channel **channel_p)
{
    struct self *self = self_of(transport);
    struct self_channel *channel;
    struct self *target;

    if (address->bytes != sizeof(node) ||
        memcmp(address->data, &node, sizeof(node)) != 0)
        return TROUPE_ETRANSPORT;
    channel = calloc(1, sizeof(*channel));
    if (!channel)
        return TROUPE_ENOMEM;
    channel->base.transport = transport;
    channel->context = peer;
    channel->node = node;
    pthread_mutex_lock(&lock);
    for (target = nodes; target; target = target->next)
        if (target->config.node == node)
            break;
    channel->target = target;
    if (target) {
        channel->next = self->channels;
        self->channels = channel;
    }
    pthread_mutex_unlock(&lock);
    if (!target) {
        free(channel);
        return TROUPE_ENODE;
    }
    *channel_p = &channel->base;
    return 0;
}

/* Frees a channel that is off its node's list. */
static void channel_free_locked(struct self_channel *channel)
{
    if (channel->target)
        for (struct entry *e = channel->target->first; e; e = e->next)
            if (e->channel == channel)
                e->channel = NULL;
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

static int room_locked(struct self_channel *channel)
{
    if (!channel->target)
        return TROUPE_ENODE;
    if (channel->queued < QUEUE_MAX)
        return 0;
    channel->waiting = true;
    return TROUPE_EFULL;
}

static int self_reserve(struct tri_channel *base, enum tri_lane lane,
                        size_t bytes, struct tri_span *span_p)
{
    struct self_channel *channel = channel_of(base);
    int error;

    assert(bytes <= TRI_RECORD_BYTES_MAX);
    (void)lane;
    pthread_mutex_lock(&lock);
    error = room_locked(channel);
    pthread_mutex_unlock(&lock);
    if (error)
        return error;
    channel->reserved = malloc(sizeof(struct entry) + bytes);
    if (!channel->reserved)
        return TROUPE_ENOMEM;
    span_p->record = &channel->reserved->record;
    span_p->payload = channel->reserved->payload;
    return 0;
}

static void self_commit(struct tri_channel *base)
{
    struct self_channel *channel = channel_of(base);
    const struct tri_transport_config *config =
        &self_of(base->transport)->config;
    struct entry *entry = channel->reserved;
    struct self *target;

    channel->reserved = NULL;
    entry->next = NULL;
    entry->channel = channel;
    entry->node = config->node;
    entry->nonce = config->job_nonce;
    pthread_mutex_lock(&lock);
    target = channel->target;
    if (target) {
        *target->last = entry;
        target->last = &entry->next;
        channel->queued++;
        tri_bell_ring(target->config.bell);
    }
    pthread_mutex_unlock(&lock);
    if (!target)
        free(entry);
}

static uint64_t self_unread(struct tri_channel *base)
{
    uint64_t queued;

    pthread_mutex_lock(&lock);
    queued = channel_of(base)->queued;
    pthread_mutex_unlock(&lock);
    return queued;
}

static struct entry *take_locked(struct self *self)
{
    struct entry *entry = self->first;
    struct self_channel *channel;

    if (!entry)
        return NULL;
    self->first = entry->next;
    if (!self->first)
        self->last = &self->first;
    channel = entry->channel;
    if (channel) {
        channel->queued--;
        if (channel->waiting && channel->queued == QUEUE_MAX / 2)
            tri_bell_ring(self_of(channel->base.transport)->config.bell);
    }
    return entry;
}

/* What the link keeps for a sender; asks it at the first contact. */
static void *context_of(struct self *self, uint64_t node)
{
    const struct tri_transport_events *events = &self->config.events;
    struct contact *contact = self->contacts;

    while (contact && contact->node != node)
        contact = contact->next;
    if (!contact) {
        contact = malloc(sizeof(*contact));
        if (!contact)
            return NULL;
        contact->node = node;
        contact->context = events->accept(events->context, node);
        contact->next = self->contacts;
        self->contacts = contact;
    }
    return contact->context;
}

static void deliver(struct self *self, struct entry *entry)
{
    const struct tri_transport_events *events = &self->config.events;
    void *context = NULL;

    if (entry->nonce != self->config.job_nonce)
        events->garbage(events->context, "self: a node of another job");
    else if (!tri_record_check(&entry->record, TRI_RECORD_BYTES_MAX))
        events->garbage(events->context, "self: malformed record");
    else
        context = context_of(self, entry->node);
    if (context)
        events->record(events->context, context,
                       tri_lane_of(entry->record.kind), &entry->record,
                       entry->payload);
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
    for (channel = self->channels; channel; channel = channel->next)
        if (channel->lost ||
            (channel->waiting && channel->queued <= QUEUE_MAX / 2))
            break;
    if (channel) {
        lost = channel->lost;
        node = channel->node;
        context = channel->context;
        channel->lost = false;
        channel->waiting = false;
    }
    pthread_mutex_unlock(&lock);
    if (lost)
        events->lost(events->context, node, TRI_EVIDENCE_STRONG);
    else if (channel)
        events->writable(events->context, context);
    return channel;
}

static unsigned self_poll(struct tri_transport *transport, unsigned budget)
{
    struct self *self = self_of(transport);
    struct entry *entry;
    unsigned n;

    for (n = 0; n < budget; n++) {
        pthread_mutex_lock(&lock);
        entry = take_locked(self);
        pthread_mutex_unlock(&lock);
        if (!entry)
            break;
        deliver(self, entry);
        free(entry);
    }
    while (tell_one(self))
        ;
    return n;
}

static bool self_pending(struct tri_transport *transport)
{
    struct self *self = self_of(transport);
    bool pending;

    pthread_mutex_lock(&lock);
    pending = self->first;
    for (struct self_channel *c = self->channels; c && !pending; c = c->next)
        pending = c->lost || (c->waiting && c->queued <= QUEUE_MAX / 2);
    pthread_mutex_unlock(&lock);
    return pending;
}

static int self_wait_fd(struct tri_transport *transport)
{
    (void)transport;
    return -1;
}

static void drop_entries(struct self *self)
{
    while (self->first) {
        struct entry *entry = self->first;

        self->first = entry->next;
        free(entry);
    }
    while (self->contacts) {
        struct contact *contact = self->contacts;

        self->contacts = contact->next;
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
    for (struct self *other = nodes; other; other = other->next)
        for (struct self_channel *c = other->channels; c; c = c->next)
            if (c->target == self) {
                c->target = NULL;
                c->queued = 0;
                c->lost = true;
                tri_bell_ring(other->config.bell);
            }
    pthread_mutex_unlock(&lock);
    drop_entries(self);
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
    .unread = self_unread,
    .poll = self_poll,
    .pending = self_pending,
    .wait_fd = self_wait_fd,
};
