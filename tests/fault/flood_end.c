/* SPDX-License-Identifier: BSD-3-Clause */
/* One end of a flood: drives a transport as its link would, with one thread. */
#include "flood.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/random.h"
#include "os/bell.h"

#define POLL_BUDGET 64
#define SEND_BATCH 32 /* records of one lane in a turn */
#define SLEEP_MS_MAX 5
#define PAUSE_MS_MAX 20    /* data is not taken for so long */
#define PAUSE_EVERY 5000   /* records, about */
#define LOOK_EVERY 1024    /* turns between looks at our memory */
#define PATTERN_PERIOD 251 /* a prime: shifted payloads do not look alike */

enum { RECORD_ANY = 1, RECORD_LAST = 2 }; /* a record's type */

struct peer {
    struct end *end;
    unsigned seat;
    struct tri_channel *channel;
    uint64_t sent[TRI_LANES];
    uint64_t next[TRI_LANES]; /* awaited, less 1 */
    bool last_sent[TRI_LANES];
    bool last_received[TRI_LANES];
    bool is_paused;
    uint64_t paused_until_ns;
};

struct end {
    struct flood_board *board;
    struct flood_seat *mine;
    const struct flood_options *options;
    unsigned seat;
    struct tri_random random;
    struct tri_bell bell;
    struct tri_transport *transport;
    const struct tri_transport_ops *ops;
    struct peer peers[FLOOD_SEATS_MAX];
    uint64_t turns;
};

static unsigned char pattern[TRI_RECORD_BYTES_MAX + PATTERN_PERIOD];

static const uint8_t kind_of_lane[TRI_LANES] = {
    [TRI_LANE_CONTROL] = TRI_QUIESCE,
    [TRI_LANE_REPLY] = TRI_REPLY,
    [TRI_LANE_DATA] = TRI_TELL,
};

static void die(const struct end *end, const char *what, int error)
{
    fprintf(stderr, "end %u: %s: %s\n", end->seat, what,
            troupe_error_name(error));
    _exit(EXIT_FAILURE);
}

/* Mostly small; by the record's number, so that both sides know. */
static size_t size_of(const struct end *end, enum tri_lane lane,
                      uint64_t number)
{
    uint64_t random = tri_mix64(number * TRI_LANES + lane + 1);
    size_t max = end->transport->record_bytes_max;

    if (lane == TRI_LANE_CONTROL)
        return (random >> 32) % 200;
    if (random % 64 == 0)
        return max;
    if (random % 8 == 0)
        return (random >> 32) % (max + 1);
    return (random >> 32) % 300;
}

static const unsigned char *bytes_of(enum tri_lane lane, uint64_t number)
{
    return pattern + (number * TRI_LANES + lane) % PATTERN_PERIOD;
}

/* --- events -------------------------------------------------------------- */

static void *on_accept(void *context, uint64_t node)
{
    struct end *end = context;

    for (unsigned i = 0; i < end->board->seats_len; i++)
        if (i != end->seat && atomic_load(&end->board->seats[i].is_open) &&
            end->board->seats[i].node == node)
            return &end->peers[i];
    atomic_fetch_add(&end->mine->strangers, 1);
    return NULL;
}

static const struct tri_address *on_address(void *context, uint64_t node)
{
    struct end *end = context;

    for (unsigned i = 0; i < end->board->seats_len; i++) {
        const struct tri_address *address =
            &end->board->addresses[end->seat][i];

        if (atomic_load(&end->board->seats[i].is_open) &&
            end->board->seats[i].node == node)
            return address->bytes > 0 ? address : NULL;
    }
    return NULL;
}

static bool takes(struct peer *peer, enum tri_lane lane)
{
    struct end *end = peer->end;

    if (lane != TRI_LANE_DATA || !end->options->pauses || !end->ops->resume)
        return true;
    if (peer->is_paused)
        return false;
    if (tri_random_below(&end->random, PAUSE_EVERY) != 0)
        return true;
    peer->is_paused = true;
    peer->paused_until_ns =
        tri_deadline_ns((int)tri_random_below(&end->random, PAUSE_MS_MAX) + 1);
    return false;
}

static bool on_record(void *context, void *from, enum tri_lane lane,
                      const struct tri_record *record, const void *payload)
{
    struct end *end = context;
    struct flood_seat *mine = end->mine;
    struct peer *peer = from;
    uint64_t number = record->ask;

    if (!takes(peer, lane))
        return false;
    if (record->kind != kind_of_lane[lane] ||
        record->sender_node != end->board->seats[peer->seat].node ||
        record->bytes != size_of(end, lane, number) ||
        memcmp(payload, bytes_of(lane, number), record->bytes) != 0)
        atomic_fetch_add(&mine->wrong, 1);
    if (number <= peer->next[lane]) {
        atomic_fetch_add(&mine->repeated, 1);
    } else {
        atomic_fetch_add(&mine->lost, number - peer->next[lane] - 1);
        peer->next[lane] = number;
    }
    if (peer->last_received[lane])
        atomic_fetch_add(&mine->wrong, 1);
    if (record->type == RECORD_LAST)
        peer->last_received[lane] = true;
    atomic_fetch_add(&mine->received[lane], 1);
    atomic_fetch_add(&mine->received_from[peer->seat], 1);
    return true;
}

static void on_lost(void *context, uint64_t node, enum tri_evidence evidence)
{
    (void)context, (void)node, (void)evidence;
}

static void on_garbage(void *context, const char *reason)
{
    struct end *end = context;
    struct flood_reason *reasons = end->mine->reasons;
    int i = 0;

    atomic_fetch_add(&end->mine->garbage, 1);
    while (i < FLOOD_REASONS_MAX - 1 && reasons[i].count > 0 &&
           strncmp(reasons[i].text, reason, sizeof(reasons[i].text) - 1) != 0)
        i++;
    if (reasons[i].count == 0)
        snprintf(reasons[i].text, sizeof(reasons[i].text), "%s", reason);
    reasons[i].count++;
}

static void on_writable(void *context, void *peer)
{
    (void)context, (void)peer; /* each turn tries */
}

/* --- sending ------------------------------------------------------------- */

/* One record. 0, or what reserve said. */
static int send_one(struct end *end, struct peer *peer, enum tri_lane lane,
                    bool is_last)
{
    uint64_t number = peer->sent[lane] + 1;
    size_t bytes = size_of(end, lane, number);
    struct tri_span span;
    int rc = end->ops->reserve(peer->channel, lane, bytes, &span);

    if (rc != 0)
        return rc;
    *span.record = (struct tri_record){
        .kind = kind_of_lane[lane],
        .type = is_last ? RECORD_LAST : RECORD_ANY,
        .bytes = (uint32_t)bytes,
        .total_bytes = (uint32_t)bytes,
        .sender_node = end->mine->node,
        .ask = number,
    };
    memcpy(span.payload, bytes_of(lane, number), bytes);
    end->ops->commit(peer->channel);
    peer->sent[lane] = number;
    peer->last_sent[lane] = is_last;
    atomic_fetch_add(&end->mine->sent[lane], 1);
    return 0;
}

/* True when the next record of this lane is the last. */
static bool comes_last(const struct end *end, const struct peer *peer,
                       enum tri_lane lane, int way)
{
    if (way == FLOOD_WAY_BURST)
        return peer->sent[lane] + 1 >= end->options->burst;
    return atomic_load(&end->board->phase) >= FLOOD_LAST;
}

/* Returns true when anything was sent. */
static bool send_some(struct end *end, struct peer *peer, int way)
{
    bool sent = false;
    int rc = 0;

    for (int i = 0; i < TRI_LANES && rc != TROUPE_ENODE; i++) {
        enum tri_lane lane = (enum tri_lane)i;
        uint32_t batch = tri_random_below(&end->random, SEND_BATCH) + 1;

        for (rc = 0; rc == 0 && batch > 0 && !peer->last_sent[lane]; batch--) {
            rc = send_one(end, peer, lane, comes_last(end, peer, lane, way));
            sent = sent || rc == 0;
        }
        if (rc != 0 && rc != TROUPE_EFULL && rc != TROUPE_ENODE)
            die(end, "reserve", rc);
    }
    if (rc != TROUPE_ENODE && end->ops->flush)
        rc = end->ops->flush(peer->channel);
    if (rc == TROUPE_ENODE && way != FLOOD_WAY_GONE)
        atomic_fetch_add(&end->mine->refused, 1);
    return sent;
}

/* --- turns --------------------------------------------------------------- */

/* All ends begin at the same moment. */
static void wait_for_begin(struct end *end)
{
    uint64_t begin_ns = atomic_load(&end->board->begin_ns);
    struct timespec at = { .tv_sec = (time_t)(begin_ns / 1000000000u),
                           .tv_nsec = (long)(begin_ns % 1000000000u) };

    if (begin_ns > tri_now_ns())
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void ways_look(struct end *end)
{
    for (unsigned i = 0; i < end->board->seats_len; i++) {
        struct peer *peer = &end->peers[i];
        int way = atomic_load(&end->board->ways[end->seat][i]);
        int rc;

        if (way == FLOOD_WAY_CLOSED && peer->channel) {
            end->ops->disconnect(peer->channel);
            peer->channel = NULL;
        }
        if ((way != FLOOD_WAY_OPEN && way != FLOOD_WAY_BURST) || peer->channel)
            continue;
        wait_for_begin(end);
        rc = end->ops->connect(end->transport, end->board->seats[i].node,
                               &end->board->addresses[end->seat][i], peer,
                               &peer->channel);
        if (rc != 0)
            die(end, "connect", rc);
    }
}

static void pauses_look(struct end *end)
{
    for (unsigned i = 0; i < end->board->seats_len; i++) {
        struct peer *peer = &end->peers[i];

        if (!peer->is_paused || tri_now_ns() < peer->paused_until_ns)
            continue;
        peer->is_paused = false;
        end->ops->resume(end->transport, peer);
    }
}

static bool is_done(const struct end *end)
{
    for (unsigned i = 0; i < end->board->seats_len; i++) {
        const struct peer *peer = &end->peers[i];
        int way = atomic_load(&end->board->ways[end->seat][i]);

        if (way != FLOOD_WAY_OPEN && way != FLOOD_WAY_BURST)
            continue;
        for (int lane = 0; lane < TRI_LANES; lane++)
            if (!peer->last_sent[lane] || !peer->last_received[lane])
                return false;
    }
    return true;
}

/* As a poller sleeps: arms the bell, looks once more. */
static void sleep_a_little(struct end *end)
{
    int wait_fd = end->ops->wait_fd(end->transport);
    struct pollfd fds[2] = { { .fd = end->bell.event_fd, .events = POLLIN },
                             { .fd = wait_fd, .events = POLLIN } };
    int ms = wait_fd == -2 ? 1 : SLEEP_MS_MAX;

    tri_bell_arm(&end->bell);
    if (!end->ops->pending(end->transport))
        poll(fds, 2, ms);
    tri_bell_disarm(&end->bell);
}

static void memory_look(struct end *end)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long total = 0, pages = 0;

    if (!file)
        return;
    if (fscanf(file, "%ld %ld", &total, &pages) == 2)
        atomic_store(&end->mine->resident_kib,
                     (uint64_t)(pages * sysconf(_SC_PAGESIZE) / 1024));
    fclose(file);
}

static void turn(struct end *end)
{
    bool worked = false;

    ways_look(end);
    if (end->ops->control)
        end->ops->control(end->transport);
    for (unsigned i = 0; i < end->board->seats_len; i++) {
        int way = atomic_load(&end->board->ways[end->seat][i]);

        if (end->peers[i].channel && send_some(end, &end->peers[i], way))
            worked = true;
    }
    if (end->ops->poll(end->transport, POLL_BUDGET) > 0)
        worked = true;
    pauses_look(end);
    atomic_store(&end->mine->is_done, is_done(end));
    if (end->turns++ % LOOK_EVERY == 0)
        memory_look(end);
    if (!worked)
        sleep_a_little(end);
}

static void open_transport(struct end *end)
{
    struct tri_transport_config config = {
        .job_nonce = end->board->nonce,
        .peers_max = FLOOD_SEATS_MAX,
        .bell = &end->bell,
        .provider = end->options->provider,
        .interface = end->options->interface,
        .carrier = FLOOD_CARRIER,
        .seal = end->options->seal,
        .key = end->board->key,
        .port_first = end->options->port,
        .port_last = end->options->port,
        .events = { .context = end,
                    .accept = on_accept,
                    .address = on_address,
                    .record = on_record,
                    .lost = on_lost,
                    .garbage = on_garbage,
                    .writable = on_writable },
    };
    int rc;

    if (getrandom(&config.node, sizeof(config.node), 0) != sizeof(config.node))
        die(end, "getrandom", TROUPE_ESYSTEM);
    config.node |= 1;
    rc = tri_bell_init(&end->bell);
    if (rc != 0)
        die(end, "bell", rc);
    rc = end->ops->open(&config, &end->transport);
    if (rc != 0)
        die(end, "open", rc);
    end->mine->node = config.node;
    end->ops->address(end->transport, &end->mine->address);
    atomic_store(&end->mine->is_open, 1);
}

void flood_end_run(struct flood_board *board, unsigned seat,
                   const struct flood_options *options)
{
    static struct end end;

    end = (struct end){ .board = board,
                        .mine = &board->seats[seat],
                        .options = options,
                        .seat = seat,
                        .ops = &FLOOD_TRANSPORT };
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (unsigned char)(i % PATTERN_PERIOD);
    tri_random_init(&end.random, tri_mix64(board->seed + seat));
    for (unsigned i = 0; i < FLOOD_SEATS_MAX; i++)
        end.peers[i] = (struct peer){ .end = &end, .seat = i };
    if (options->enter)
        options->enter(board, seat);
    open_transport(&end);
    while (atomic_load(&board->phase) < FLOOD_LEAVE)
        turn(&end);
    end.ops->close(end.transport);
    tri_bell_fini(&end.bell);
    exit(EXIT_SUCCESS);
}
