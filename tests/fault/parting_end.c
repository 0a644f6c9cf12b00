/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One end of a parting. The survivor has two threads, as a node has: one polls
 * and sends, the other one is the control thread and hears of deaths.
 */
#include "parting.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "../lib/usage.h"
#include "base/clock.h"
#include "link/session_internal.h"
#include "message/pool.h"
#include "os/bell.h"

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: seat %d, round %u: %s\n", __FILE__,        \
                    __LINE__, end.seat, end.round, #condition);                \
            _exit(EXIT_FAILURE);                                               \
        }                                                                      \
    } while (0)

enum {
    BUDGET = 64,
    BATCH = 16,          /* messages sent in a turn */
    OUTBOX = 160 << 20,  /* two large ones wait there */
    PAGE = 4096,         /* a stamp in each */
    THIRD = 0,           /* the survivor's ranks; victims follow */
    ECHOES = 8,          /* under way to the third */
    ECHO_BYTES_MAX = 100000,
    ROUND_TRIPS = 50,    /* after a death, before the next one */
#if defined(TRI_SANITIZE_ADDRESS)
    SLABS = 0,
#else
    SLABS = 1 << 20, /* message memory that is never given back */
#endif
    PULLED_MIN = 65536,
    NEVER_KEPT = 1 << 30, /* a size of which the pool has no block */
    UNTOLD_MAX = 512,    /* lines that a ring's reader may not have told of */
};

static struct end {
    struct parting_board *board;
    enum parting_seat seat;
    uint32_t round;
    struct tri_bell bell;
    struct tri_link link;
    struct tri_transport *transport;
    struct tri_peer *other; /* victim or survivor */
    uint64_t sent;     /* messages accepted for the other */
    struct tri_message *next; /* for it, or NULL */
    uint64_t received; /* from it */
    uint64_t received_bytes;
    uint64_t begun_bytes; /* and what there was of one that is not whole */
    /* survivor */
    unsigned echoes;
    uint64_t echoed;
    bool is_quiet; /* no new echoes */
    size_t baseline_bytes;
    size_t session_bytes;
    uint32_t baseline_fds;
    _Atomic uint32_t died;
    _Atomic uint32_t killed_round;
    _Atomic uint8_t letters[PARTING_IDS_MAX];
    _Atomic uint32_t by_pieces;
} end;

/* --- messages -------------------------------------------------------------- */

static void stamp(struct tri_message *message)
{
    for (uint32_t at = 0; at + 8 <= message->bytes; at += PAGE) {
        uint64_t word = tri_mix64((uint64_t)message->type << 32 | at);

        memcpy(message->payload + at, &word, sizeof(word));
    }
}

static void check_stamps(uint32_t type, const char *payload, uint32_t bytes)
{
    for (uint32_t at = 0; at + 8 <= bytes; at += PAGE) {
        uint64_t word;

        memcpy(&word, payload + at, sizeof(word));
        CHECK(word == tri_mix64((uint64_t)type << 32 | at));
    }
}

static struct tri_message *build(uint32_t id, uint32_t bytes)
{
    struct tri_record record = {
        .kind = id % 7 == 0 ? TRI_ASK : TRI_TELL,
        .slot = 1,
        .type = id,
        .sender_node = end.link.config.node,
        .ask = id % 7 == 0 ? id + 1u : 0,
        .total_bytes = bytes,
    };
    struct tri_message *message = tri_message_of_record(&record);

    CHECK(message != NULL);
    message->deadline_ms = tri_coarse_ms() + 100000;
    stamp(message);
    return message;
}

/* Sends a message, now and then by its record; owns it unless there is an
 * error. */
static int send_built(struct tri_peer *peer, struct tri_message *message,
                      enum tri_send_how how)
{
    struct tri_record record;
    int rc;

    if (message->bytes >= 200 || message->type % 2 != 0)
        return tri_link_send_message(peer, message, how);
    tri_record_of_message(message, &record);
    rc = tri_link_send(peer, &record, message->payload, how);
    if (rc == 0)
        tri_message_free(message);
    return rc;
}

static int send_one(struct tri_peer *peer, uint32_t id, uint32_t bytes)
{
    struct tri_message *message = build(id, bytes);
    int rc = send_built(peer, message, TRI_SEND_FORCED);

    if (rc != 0)
        tri_message_free(message);
    return rc;
}

/* --- events ---------------------------------------------------------------- */

static bool is_third(const struct tri_peer *peer)
{
    return end.seat == PARTING_THIRD ||
           (end.seat == PARTING_SURVIVOR && peer->rank == THIRD);
}

static void on_any(struct tri_peer *peer, uint32_t type, const char *payload,
                   uint32_t bytes)
{
    struct parting_board *board = end.board;

    check_stamps(type, payload, bytes);
    if (end.seat == PARTING_THIRD) {
        CHECK(send_one(peer, type, bytes) == 0);
        return;
    }
    if (is_third(peer)) {
        CHECK(type == (uint32_t)end.echoed);
        end.echoed++;
        end.echoes--;
        atomic_fetch_add(&board->round_trips, 1);
        return;
    }
    CHECK(type == (uint32_t)end.received);
    CHECK(bytes == parting_size(board->plan.seed, type));
    end.received++;
    end.received_bytes += bytes;
    if (end.seat == PARTING_VICTIM)
        atomic_store(&board->taken, end.received);
}

static void on_record(void *context, struct tri_peer *peer,
                      const struct tri_record *record, const void *payload)
{
    (void)context;
    on_any(peer, record->type, payload, record->bytes);
}

static void on_message(void *context, struct tri_peer *peer,
                       struct tri_message *message)
{
    (void)context;
    on_any(peer, message->type, message->payload, message->bytes);
    tri_message_free(message);
}

static bool on_unpark(void *context, struct tri_peer *peer,
                      struct tri_message *message)
{
    (void)context, (void)peer, (void)message;
    CHECK(!"nothing is parked");
    return true;
}

static void on_room(void *context)
{
    (void)context;
}

static void on_refused(void *context, struct tri_peer *peer,
                       const struct tri_record *record, int reason)
{
    (void)context, (void)peer, (void)record, (void)reason;
    CHECK(!"nothing is refused");
}

static void letter(struct tri_peer *peer, uint32_t id)
{
    CHECK(!is_third(peer));
    CHECK(id < PARTING_IDS_MAX);
    CHECK(peer == &end.link.peers[end.round]);
    atomic_fetch_add(&end.letters[id], 1);
}

static void on_undelivered(void *context, struct tri_peer *peer,
                           struct tri_message *message, int reason)
{
    (void)context;
    CHECK(reason == TROUPE_ENODE);
    letter(peer, message->type);
    tri_message_free(message);
}

static void on_lost(void *context, struct tri_peer *peer,
                    const struct tri_record *record, int reason)
{
    (void)context;
    CHECK(reason == TROUPE_ENODE);
    CHECK(record->kind == (record->type % 7 == 0 ? TRI_ASK : TRI_TELL));
    if (record->total_bytes > peer->transport->record_bytes_max)
        atomic_fetch_add(&end.by_pieces, 1);
    letter(peer, record->type);
}

static void on_died(void *context, struct tri_peer *peer)
{
    (void)context;
    CHECK(!is_third(peer));
    atomic_fetch_add(&end.died, 1);
}

/* --- turns ----------------------------------------------------------------- */

static void open_transport(void)
{
    const struct parting_board *board = end.board;
    struct tri_transport_config config = {
        .node = end.link.config.node,
        .job_nonce = board->nonce,
        .peers_max = 2, /* what is left of the dead would have no room */
        .bell = &end.bell,
        .provider = getenv("TROUPE_PROVIDER"),
        .interface = "127.0.0.1",
        .cma = board->mode.cma,
        .carrier = &tri_carrier_fabric,
        .seal = board->mode.seal,
        .key = board->key,
        .events = tri_link_transport_events(&end.link),
    };
    const struct tri_transport_ops *ops =
        board->mode.is_ring ? &tri_transport_ring : &tri_transport_session;

    CHECK(ops->open(&config, &end.transport) == 0);
    tri_link_add_transport(&end.link, end.transport);
}

static void open_end(struct parting_board *board, enum parting_seat seat,
                     uint32_t round)
{
    struct parting_seat_card *card = &board->seats[seat];
    struct tri_link_config config = {
        .peers_len = seat == PARTING_SURVIVOR ? PARTING_ROUNDS_MAX + 1 : 1,
        .outbox_bytes_max = OUTBOX,
        .parked_bytes_max = OUTBOX,
        .message_bytes_max = PARTING_LARGE,
        .events = { &end, on_record, on_message, on_unpark, on_room, on_refused,
                    on_undelivered, on_lost, on_died, NULL, NULL,
                    NULL },
    };

    end.board = board;
    end.seat = seat;
    end.round = round;
    CHECK(getrandom(&config.node, sizeof(config.node), 0) ==
          sizeof(config.node));
    CHECK(tri_bell_init(&end.bell) == 0);
    CHECK(tri_link_init(&end.link, &config) == 0);
    open_transport();
    card->node = config.node;
    end.transport->ops->address(end.transport, &card->address);
    atomic_store(&card->open_round, tri_max(round, 1));
}

static void control(void)
{
    if (end.transport->ops->control)
        end.transport->ops->control(end.transport);
}

static void sleep_a_little(void)
{
    int wait_fd = end.transport->ops->wait_fd(end.transport);
    struct pollfd fds[2] = { { .fd = end.bell.event_fd, .events = POLLIN },
                             { .fd = wait_fd, .events = POLLIN } };

    tri_bell_arm(&end.bell);
    if (!tri_link_pending(&end.link))
        poll(fds, 2, 1);
    tri_bell_disarm(&end.bell);
}

/* How much of the other's messages has arrived. */
static uint64_t received_bytes(void)
{
    const struct tri_arrival *arrival = &end.other->arrivals[TRI_LANE_DATA];

    return end.received_bytes +
           (arrival->partial != NULL ? arrival->partial_bytes : 0);
}

static bool turn(void)
{
    unsigned n;

    if (end.seat != PARTING_SURVIVOR)
        control();
    n = tri_link_poll(&end.link, BUDGET);
    if (end.other != NULL &&
        end.board->plan.victim_sends == (end.seat == PARTING_SURVIVOR)) {
        end.begun_bytes = tri_max(end.begun_bytes, received_bytes());
        atomic_store(&end.board->received_bytes, end.begun_bytes);
    }
    return n > 0;
}

/* Sends to the other until it takes no more. Returns what was said then. */
static int send_some(bool *any_p)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < BATCH && end.sent < PARTING_IDS_MAX; i++) {
        if (end.next == NULL)
            end.next = build((uint32_t)end.sent,
                             parting_size(end.board->plan.seed, end.sent));
        rc = send_built(end.other, end.next, TRI_SEND_BOUNDED);
        CHECK(rc == 0 || rc == TROUPE_EFULL || rc == TROUPE_ENODE);
        if (rc != 0)
            break;
        end.next = NULL;
        end.sent++;
        *any_p = true;
    }
    return rc;
}

/* --- victim and third ------------------------------------------------------- */

static void meet(uint32_t rank, enum parting_seat seat)
{
    const struct parting_seat_card *card = &end.board->seats[seat];

    tri_link_set_peer(&end.link, (int)rank, card->node, end.transport,
                      &card->address);
    if (seat != PARTING_THIRD)
        end.other = &end.link.peers[rank];
}

static void be_third(void)
{
    meet(0, PARTING_SURVIVOR);
    end.other = NULL;
    while (!atomic_load(&end.board->leave))
        if (!turn())
            sleep_a_little();
}

static void be_victim(void)
{
    const struct parting_plan *plan = &end.board->plan;

    meet(0, PARTING_SURVIVOR);
    while (atomic_load(&end.board->ready_round) != end.round)
        sleep_a_little();
    for (;;) {
        bool any = turn();

        if (plan->victim_sends)
            send_some(&any);
        else if (plan->stops && received_bytes() >= plan->end_bytes)
            raise(SIGSTOP);
        if (!any)
            sleep_a_little();
    }
}

/* --- survivor --------------------------------------------------------------- */

static void *run_control(void *arg)
{
    (void)arg;
    while (!atomic_load(&end.board->leave)) {
        uint32_t round = atomic_load(&end.board->dead_round);

        control();
        if (round > 0 && atomic_load(&end.killed_round) < round) {
            tri_link_kill(&end.link.peers[round]);
            atomic_store(&end.killed_round, round);
        }
        nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
    }
    return NULL;
}

static void survivor_turn(void)
{
    bool any = turn();

    while (!end.is_quiet && end.echoes < ECHOES) {
        uint32_t id = (uint32_t)end.echoed + end.echoes;
        uint32_t bytes = (uint32_t)tri_mix64(id) %
                         (id % 16 == 0 ? ECHO_BYTES_MAX : 500);

        CHECK(send_one(&end.link.peers[THIRD], id, bytes) == 0);
        end.echoes++;
        any = true;
    }
    if (!any)
        sleep_a_little();
}

#define UNTIL(condition)                                                       \
    do {                                                                       \
        uint64_t until_ns_ = tri_deadline_ns(PARTING_SOON_MS);                 \
                                                                               \
        while (!(condition)) {                                                 \
            survivor_turn();                                                   \
            CHECK((condition) || tri_now_ns() < until_ns_);                    \
        }                                                                      \
    } while (0)

/* Message memory without the blocks that the pool keeps for later. */
static size_t message_bytes(void)
{
    struct tri_message *message;

    tri_pool_init(0);
    message = tri_message_alloc(NEVER_KEPT);
    tri_pool_init(SIZE_MAX);
    CHECK(message == NULL);
    return tri_pool_bytes();
}

/* True when the transport has nothing of a victim any more. */
static bool is_forgotten(void)
{
    struct session_transport *session;

    for (int lane = 0; lane < TRI_LANES; lane++)
        if (end.other->arrivals[lane].partial != NULL)
            return false;
    if (end.board->mode.is_ring)
        return true;
    session = tri_session_transport_of(end.transport);
    return session->remotes_len <= 1 && !atomic_load(&session->has_closing);
}

static bool is_pulled(uint64_t id)
{
    return end.board->mode.is_ring && end.board->mode.cma == TRI_CMA_ON &&
           parting_size(end.board->plan.seed, id) >= PULLED_MIN;
}

/* One letter for each message that was accepted and not taken, and none for
 * those that the victim is known to have taken. */
static void check_letters(void)
{
    uint64_t taken = atomic_load(&end.board->taken);
    uint64_t first = end.sent; /* with a letter */

    CHECK(taken <= end.sent);
    for (uint64_t id = 0; id < PARTING_IDS_MAX; id++) {
        unsigned n = atomic_exchange(&end.letters[id], 0);

        CHECK(n == 0 || id < end.sent);
        CHECK(n <= 1);
        CHECK(n == 1 || id < taken || id >= end.sent);
        /* What is known to be taken comes first; an answer to a PULL passes
         * what the ring's reader tells of the others. */
        CHECK(n == 1 || id <= first || id >= end.sent || is_pulled(id));
        if (n == 1 && id < first)
            first = id;
        if (n == 1 && id < taken)
            atomic_fetch_add(&end.board->letters, 1);
    }
    CHECK(!end.board->mode.is_ring || first + UNTOLD_MAX >= taken);
    if (atomic_exchange(&end.by_pieces, 0) > 0)
        atomic_fetch_add(&end.board->pieces, 1);
}

static void check_memory(void)
{
    size_t bytes, session;

    end.is_quiet = true;
    UNTIL(end.echoes == 0 &&
          !tri_peer_is_waiting(&end.link.peers[THIRD]));
    bytes = message_bytes();
    if (end.baseline_bytes == 0)
        end.baseline_bytes = bytes;
    CHECK(bytes <= end.baseline_bytes + SLABS);
    UNTIL(end.baseline_fds == 0 ||
          usage_entries("/proc/self/fd") <= end.baseline_fds);
    end.baseline_fds = usage_entries("/proc/self/fd");
    if (!end.board->mode.is_ring) {
        session = tri_session_memory_bytes(end.transport);
        /* Frames lie in slabs that are kept: those that one round needed are
         * enough for all. */
        if (end.round <= 4)
            end.session_bytes = tri_max(end.session_bytes, session);
        CHECK(session <= end.session_bytes * 2);
        CHECK(tri_session_transport_of(end.transport)->pool.shared_len <= 8);
    }
    end.is_quiet = false;
}

static void check_round(void)
{
    uint64_t trips = atomic_load(&end.board->round_trips);

    CHECK(tri_peer_is_dead(end.other));
    CHECK(atomic_exchange(&end.died, 0) == 1);
    CHECK(send_one(end.other, 0, 100) == TROUPE_ENODE);
    CHECK(send_one(end.other, 1, 1 << 20) == TROUPE_ENODE);
    UNTIL(is_forgotten());
    if (end.begun_bytes > end.received_bytes)
        atomic_fetch_add(&end.board->partials, 1);
    check_letters();
    UNTIL(atomic_load(&end.board->round_trips) >= trips + ROUND_TRIPS);
    check_memory();
}

static void survive_round(uint32_t round)
{
    const struct parting_plan *plan = &end.board->plan;
    bool may_send;

    end.round = round;
    end.sent = end.received = end.received_bytes = end.begun_bytes = 0;
    UNTIL(atomic_load(&end.board->seats[PARTING_VICTIM].open_round) == round);
    meet(round, PARTING_VICTIM);
    if (plan->victim_sends && plan->survivor_greets) {
        CHECK(send_one(end.other, 0, parting_size(plan->seed, 0)) == 0);
        end.sent = 1;
    }
    atomic_store(&end.board->ready_round, round);
    may_send = !plan->victim_sends;
    while (atomic_load(&end.killed_round) != round) {
        bool any = false;

        if (may_send)
            may_send = send_some(&any) != TROUPE_ENODE;
        survivor_turn();
    }
    if (end.next != NULL)
        tri_message_free(end.next);
    end.next = NULL;
    check_round();
    end.other = NULL;
    atomic_store(&end.board->checked_round, round);
}

static void be_survivor(void)
{
    struct parting_board *board = end.board;
    pthread_t thread;
    uint32_t round = 0;

    meet(THIRD, PARTING_THIRD);
    CHECK(pthread_create(&thread, NULL, run_control, NULL) == 0);
    UNTIL(atomic_load(&board->round_trips) >= ROUND_TRIPS);
    check_memory();
    while (!atomic_load(&board->leave)) {
        if (atomic_load(&board->round) != round) {
            round = atomic_load(&board->round);
            survive_round(round);
        }
        survivor_turn();
    }
    pthread_join(thread, NULL);
}

void parting_end_run(struct parting_board *board, enum parting_seat seat,
                     uint32_t round)
{
    open_end(board, seat, round);
    while (atomic_load(&board->seats[PARTING_SURVIVOR].open_round) == 0 ||
           atomic_load(&board->seats[PARTING_THIRD].open_round) == 0)
        sleep_a_little();
    if (seat == PARTING_VICTIM)
        be_victim();
    else if (seat == PARTING_THIRD)
        be_third();
    else
        be_survivor();
    tri_link_fini(&end.link);
    tri_bell_fini(&end.bell);
    CHECK(message_bytes() <= SLABS);
    exit(EXIT_SUCCESS);
}
