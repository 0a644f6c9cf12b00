/* SPDX-License-Identifier: BSD-3-Clause */
#include "sim_carrier.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/random.h"
#include "os/bell.h"
#include "wire/frame.h"

/* Chances in a thousand, for each frame. */
enum { LOST = 20, FAILED = 10, REPEATED = 20, LATE = 30, REFUSED = 20 };

/* Frames that wait at a receiver. */
#define INBOX_MAX 256u
/* Places that a late frame goes back. */
#define LATE_MAX 8u

struct sim_frame {
    TAILQ_ENTRY(sim_frame) next;
    size_t bytes;
    _Alignas(TRI_FRAME_ALIGN) unsigned char data[];
};

struct sim_line {
    struct tri_line base;
    TAILQ_ENTRY(sim_line) next;
    uint64_t node;
    void *peer;
    bool is_waiting;
};

/* A frame that was sent and not given back. */
struct sim_done {
    STAILQ_ENTRY(sim_done) next;
    struct tri_carrier_frame *frame;
    bool ok;
};

struct sim {
    struct tri_carrier base;
    struct tri_carrier_config config;
    TAILQ_ENTRY(sim) next;
    TAILQ_HEAD(sim_inbox, sim_frame) inbox;
    unsigned inbox_len;
    TAILQ_HEAD(, sim_line) lines;
    STAILQ_HEAD(, sim_done) done;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static TAILQ_HEAD(, sim) all = TAILQ_HEAD_INITIALIZER(all);
static struct tri_random chance;

void sim_carrier_seed(uint64_t seed)
{
    pthread_mutex_lock(&lock);
    tri_random_init(&chance, seed);
    pthread_mutex_unlock(&lock);
}

static bool happens_locked(unsigned in_thousand)
{
    return tri_random_below(&chance, 1000) < in_thousand;
}

static struct sim *find_locked(uint64_t node)
{
    struct sim *sim;

    TAILQ_FOREACH(sim, &all, next)
        if (sim->config.node == node)
            break;
    return sim;
}

/* --- sending -------------------------------------------------------------- */

static void arrive_locked(struct sim *to, const struct tri_carrier_frame *sent)
{
    struct sim_frame *frame = malloc(sizeof(*frame) + sent->bytes);
    struct sim_frame *before = TAILQ_LAST(&to->inbox, sim_inbox);

    if (!frame)
        return; /* lost */
    frame->bytes = sent->bytes;
    memcpy(frame->data, sent->data, sent->bytes);
    if (happens_locked(LATE)) /* behind others is what the others are: early */
        for (unsigned i = 0; before && i < LATE_MAX; i++)
            before = TAILQ_PREV(before, sim_inbox, next);
    if (before)
        TAILQ_INSERT_AFTER(&to->inbox, before, frame, next);
    else
        TAILQ_INSERT_HEAD(&to->inbox, frame, next);
    to->inbox_len++;
}

static int sim_send(struct tri_line *base, struct tri_carrier_frame *frame)
{
    struct sim_line *line = tri_container_of(base, struct sim_line, base);
    struct sim *sim = tri_container_of(base->carrier, struct sim, base);
    struct sim_done *done = malloc(sizeof(*done));
    struct sim *to;
    int rc = 0;

    pthread_mutex_lock(&lock);
    to = find_locked(line->node);
    if (!done || happens_locked(REFUSED) ||
        (to && to->inbox_len >= INBOX_MAX)) {
        line->is_waiting = true;
        free(done);
        rc = TROUPE_EFULL;
    } else {
        frame->line = base;
        *done = (struct sim_done){ .frame = frame,
                                   .ok = !happens_locked(FAILED) };
        STAILQ_INSERT_TAIL(&sim->done, done, next);
        if (to && done->ok && !happens_locked(LOST))
            arrive_locked(to, frame);
        if (to && done->ok && happens_locked(REPEATED))
            arrive_locked(to, frame);
        if (to)
            tri_bell_ring(to->config.bell);
    }
    tri_bell_ring(sim->config.bell);
    pthread_mutex_unlock(&lock);
    return rc;
}

static int sim_connect(struct tri_carrier *carrier, uint64_t node,
                       const struct tri_address *address, void *peer,
                       struct tri_line **line_p)
{
    struct sim *sim = tri_container_of(carrier, struct sim, base);
    struct sim_line *line;

    if (address->bytes != sizeof(node) ||
        memcmp(address->data, &node, sizeof(node)) != 0)
        return TROUPE_ETRANSPORT;
    line = calloc(1, sizeof(*line));
    if (!line)
        return TROUPE_ENOMEM;
    line->base.carrier = carrier;
    line->node = node;
    line->peer = peer;
    pthread_mutex_lock(&lock);
    TAILQ_INSERT_TAIL(&sim->lines, line, next);
    pthread_mutex_unlock(&lock);
    *line_p = &line->base;
    return 0;
}

static void sim_disconnect(struct tri_line *base)
{
    struct sim_line *line = tri_container_of(base, struct sim_line, base);
    struct sim *sim = tri_container_of(base->carrier, struct sim, base);

    pthread_mutex_lock(&lock);
    TAILQ_REMOVE(&sim->lines, line, next);
    pthread_mutex_unlock(&lock);
    free(line);
}

/* --- polling -------------------------------------------------------------- */

static void give_back(struct sim *sim)
{
    const struct tri_carrier_events *events = &sim->config.events;
    struct sim_done *done;

    for (;;) {
        pthread_mutex_lock(&lock);
        done = STAILQ_FIRST(&sim->done);
        if (done)
            STAILQ_REMOVE_HEAD(&sim->done, next);
        pthread_mutex_unlock(&lock);
        if (!done)
            return;
        events->sent(events->context, done->frame, done->ok);
        free(done);
    }
}

static void tell_writable(struct sim *sim)
{
    const struct tri_carrier_events *events = &sim->config.events;
    struct sim_line *line;
    void *peer = NULL;

    /* One a poll: the callback may make its line wait again. */
    pthread_mutex_lock(&lock);
    TAILQ_FOREACH(line, &sim->lines, next) {
        struct sim *to = find_locked(line->node);

        if (!line->is_waiting || (to && to->inbox_len >= INBOX_MAX))
            continue;
        line->is_waiting = false;
        peer = line->peer;
        break;
    }
    pthread_mutex_unlock(&lock);
    if (peer)
        events->writable(events->context, peer);
}

static unsigned sim_poll(struct tri_carrier *carrier, unsigned budget)
{
    struct sim *sim = tri_container_of(carrier, struct sim, base);
    const struct tri_carrier_events *events = &sim->config.events;
    unsigned n;

    give_back(sim);
    tell_writable(sim);
    for (n = 0; n < budget; n++) {
        struct sim_frame *frame;

        pthread_mutex_lock(&lock);
        frame = TAILQ_FIRST(&sim->inbox);
        if (frame) {
            TAILQ_REMOVE(&sim->inbox, frame, next);
            sim->inbox_len--;
        }
        pthread_mutex_unlock(&lock);
        if (!frame)
            break;
        events->frame(events->context, frame->data, frame->bytes);
        free(frame);
    }
    return n;
}

static bool sim_pending(struct tri_carrier *carrier, uint64_t *due_ns_p)
{
    struct sim *sim = tri_container_of(carrier, struct sim, base);
    struct sim_line *line;
    bool pending;

    *due_ns_p = UINT64_MAX;
    pthread_mutex_lock(&lock);
    pending = !TAILQ_EMPTY(&sim->inbox) || !STAILQ_EMPTY(&sim->done);
    TAILQ_FOREACH(line, &sim->lines, next)
        pending |= line->is_waiting;
    pthread_mutex_unlock(&lock);
    return pending;
}

static int sim_wait_fd(struct tri_carrier *carrier)
{
    (void)carrier;
    return -2;
}

/* --- life ----------------------------------------------------------------- */

static int sim_open(const struct tri_carrier_config *config,
                    struct tri_carrier **carrier_p)
{
    struct sim *sim = calloc(1, sizeof(*sim));

    if (!sim)
        return TROUPE_ENOMEM;
    sim->base.ops = &sim_carrier;
    sim->base.frame_bytes_max = TRI_FRAME_BYTES_MAX;
    sim->config = *config;
    TAILQ_INIT(&sim->inbox);
    TAILQ_INIT(&sim->lines);
    STAILQ_INIT(&sim->done);
    pthread_mutex_lock(&lock);
    TAILQ_INSERT_TAIL(&all, sim, next);
    pthread_mutex_unlock(&lock);
    *carrier_p = &sim->base;
    return 0;
}

static void sim_close(struct tri_carrier *carrier)
{
    struct sim *sim = tri_container_of(carrier, struct sim, base);
    struct sim_frame *frame;
    struct sim_line *line;
    struct sim_done *done;

    pthread_mutex_lock(&lock);
    TAILQ_REMOVE(&all, sim, next);
    pthread_mutex_unlock(&lock);
    while ((frame = TAILQ_FIRST(&sim->inbox)) != NULL) {
        TAILQ_REMOVE(&sim->inbox, frame, next);
        free(frame);
    }
    while ((line = TAILQ_FIRST(&sim->lines)) != NULL) {
        TAILQ_REMOVE(&sim->lines, line, next);
        free(line);
    }
    while ((done = STAILQ_FIRST(&sim->done)) != NULL) {
        STAILQ_REMOVE_HEAD(&sim->done, next);
        free(done);
    }
    free(sim);
}

static void sim_address(struct tri_carrier *carrier,
                        struct tri_address *address_p)
{
    struct sim *sim = tri_container_of(carrier, struct sim, base);

    *address_p = (struct tri_address){ .bytes = sizeof(sim->config.node) };
    memcpy(address_p->data, &sim->config.node, sizeof(sim->config.node));
}

static int sim_memory_add(struct tri_carrier *carrier,
                          struct tri_carrier_memory *memory)
{
    (void)carrier;
    (void)memory;
    return 0;
}

const struct tri_carrier_ops sim_carrier = {
    .name = "sim",
    .open = sim_open,
    .close = sim_close,
    .address = sim_address,
    .connect = sim_connect,
    .disconnect = sim_disconnect,
    .send = sim_send,
    .memory_add = sim_memory_add,
    .poll = sim_poll,
    .pending = sim_pending,
    .wait_fd = sim_wait_fd,
};
