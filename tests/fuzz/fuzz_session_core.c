/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Two cores of a session with a network between them that loses, repeats and
 * reorders frames, fails sends and breaks, as the input says. In the end it
 * works: then all that was stored has to arrive, each once and in order, and
 * all frames have to come back. What a peer can do that does not keep to the
 * protocol is fuzz_session.c's.
 */

#include "fuzz.h"

#include "base/clock.h"
#include "link/session_core.h"

enum { STEPS_MAX = 500, NET_MAX = 128, ROUNDS_MAX = 4000, BURST_MAX = 4096 };

/* A frame of ours: its header as it left first. */
struct packet {
    struct tri_stored stored;
    struct tri_frame header;
};

struct held {
    struct tri_held held;
};

struct side {
    struct tri_session core;
    struct packet *in_flight[TRI_LANES * TRI_SESSION_FRAMES_MAX];
    unsigned in_flight_len;
    struct tri_frame net[NET_MAX]; /* on its way to the other side */
    unsigned net_len;
    uint64_t stored[TRI_LANES];
    uint64_t delivered[TRI_LANES];
    uint64_t unconsumed[TRI_LANES]; /* bytes */
    unsigned packets;               /* allocated */
};

static struct side sides[2];
static uint64_t now_ns;

static struct side *other(struct side *side)
{
    return side == &sides[0] ? &sides[1] : &sides[0];
}

static struct packet *packet_of(struct tri_stored *stored)
{
    return tri_container_of(stored, struct packet, stored);
}

static void free_packet(struct side *side, struct packet *packet)
{
    FUZZ_CHECK(side->packets > 0);
    side->packets--;
    free(packet);
}

static void check(struct side *side)
{
    FUZZ_CHECK(tri_session_check(&side->core) == NULL);
}

/* --- sending ---------------------------------------------------------------
 */

static void store(struct side *side, enum tri_lane lane, uint32_t bytes)
{
    struct packet *packet;

    if (!tri_session_may_store(&side->core, lane, bytes, now_ns))
        return;
    packet = calloc(1, sizeof(*packet));
    if (!packet)
        return;
    side->packets++;
    side->stored[lane]++;
    tri_session_store(&side->core, lane, &packet->stored, bytes, now_ns);
    FUZZ_CHECK(packet->stored.number == side->stored[lane]);
}

/* Puts a frame on the network; the oldest is lost when that is full. */
static void carry(struct side *side, const struct tri_frame *frame)
{
    if (side->net_len == NET_MAX) {
        memmove(side->net, side->net + 1, sizeof(side->net) - sizeof(*frame));
        side->net_len--;
    }
    side->net[side->net_len++] = *frame;
}

/* Hands over what is next. False: there is nothing. */
static bool send_next(struct side *side)
{
    struct tri_session_out out = tri_session_next(&side->core, now_ns);
    struct tri_frame frame = { .bytes = TRI_FRAME_HEADER_BYTES };
    struct packet *packet;
    bool is_new;

    if (out.what == TRI_SESSION_SEND_NOTHING)
        return false;
    if (out.what == TRI_SESSION_SEND_ACK) {
        tri_session_fill(&side->core, &out, &frame);
        tri_session_handed(&side->core, &out, &frame, now_ns);
        carry(side, &frame);
        return true;
    }
    packet = packet_of(out.stored);
    is_new = packet->stored.handed == 0;
    if (is_new) {
        tri_session_fill(&side->core, &out, &packet->header);
        packet->header.bytes = packet->stored.bytes;
    }
    FUZZ_CHECK(side->in_flight_len < tri_array_len(side->in_flight));
    side->in_flight[side->in_flight_len++] = packet;
    carry(side, &packet->header);
    tri_session_handed(&side->core, &out, is_new ? &packet->header : NULL,
                       now_ns);
    return true;
}

static void give_back(struct side *side, unsigned which, bool ok)
{
    struct packet *packet;

    if (side->in_flight_len == 0)
        return;
    which %= side->in_flight_len;
    packet = side->in_flight[which];
    side->in_flight[which] = side->in_flight[--side->in_flight_len];
    if (tri_session_given_back(&side->core, &packet->stored, ok, now_ns))
        free_packet(side, packet);
}

/* --- receiving -------------------------------------------------------------
 */

static void take(struct side *side, enum tri_lane lane, uint64_t number,
                 uint32_t bytes)
{
    FUZZ_CHECK(number == side->delivered[lane] + 1);
    side->delivered[lane] = number;
    side->unconsumed[lane] += bytes;
    FUZZ_CHECK(number <= other(side)->stored[lane]);
}

static void consume(struct side *side, enum tri_lane lane)
{
    uint64_t bytes = side->unconsumed[lane];

    side->unconsumed[lane] = 0;
    tri_session_consumed(&side->core, lane, bytes, now_ns);
}

static void hold(struct side *side, const struct tri_frame *frame)
{
    struct held *held = calloc(1, sizeof(*held));

    if (!held)
        return;
    held->held.number = frame->number;
    held->held.bytes = frame->bytes;
    tri_session_hold(&side->core, frame->lane, &held->held);
}

static void receive(struct side *side, const struct tri_frame *frame,
                    bool has_memory)
{
    struct tri_stored_list freed = STAILQ_HEAD_INITIALIZER(freed);
    struct tri_stored *stored;
    struct tri_held *held;
    enum tri_session_verdict verdict =
        tri_session_receive(&side->core, frame, now_ns, &freed);

    while ((stored = STAILQ_FIRST(&freed)) != NULL) {
        STAILQ_REMOVE_HEAD(&freed, next);
        free_packet(side, packet_of(stored));
    }
    FUZZ_CHECK((verdict == TRI_SESSION_NOTHING) <=
               (frame->kind == TRI_FRAME_ACK));
    if (verdict == TRI_SESSION_HOLD && has_memory)
        hold(side, frame);
    if (verdict != TRI_SESSION_DELIVER)
        return;
    take(side, frame->lane, frame->number, frame->bytes);
    while ((held = tri_session_next_held(&side->core, frame->lane)) != NULL) {
        take(side, frame->lane, held->number, held->bytes);
        free(tri_container_of(held, struct held, held));
    }
    if (frame->lane != TRI_LANE_DATA)
        consume(side, frame->lane);
}

/* A frame arrives from the side; is_again: and stays on the network. */
static void arrive(struct side *from, unsigned which, bool is_again,
                   bool has_memory)
{
    struct tri_frame frame;

    if (from->net_len == 0)
        return;
    which %= from->net_len;
    frame = from->net[which];
    if (!is_again) {
        from->net_len--;
        memmove(from->net + which, from->net + which + 1,
                (from->net_len - which) * sizeof(frame));
    }
    receive(other(from), &frame, has_memory);
}

/* --- the network as the input wants it ---------------------------------------
 */

static void store_many(struct side *side, unsigned how)
{
    unsigned n = 1 + how % 64;
    enum tri_lane lane = how % TRI_LANES;
    uint32_t bytes =
        how & 0x40 ? TRI_FRAME_BYTES_MAX : TRI_FRAME_HEADER_BYTES + how;

    while (n-- > 0)
        store(side, lane, bytes);
}

static void send_many(struct side *side, unsigned how)
{
    unsigned n = 1 + how % 32;

    while (n-- > 0 && side->in_flight_len < tri_array_len(side->in_flight) &&
           send_next(side))
        ;
}

static void arrive_many(struct side *from, unsigned how)
{
    unsigned n = 1 + how % 32;

    while (n-- > 0 && from->net_len > 0)
        arrive(from, 0, false, true);
}

static void step(struct side *side, unsigned what, unsigned how)
{
    switch (what) {
    case 0:
        store_many(side, how);
        break;
    case 1:
        send_many(side, how);
        break;
    case 2:
        arrive_many(side, how);
        break;
    case 3:
        arrive(side, how, how & 1, (how & 2) == 0);
        break;
    case 4: /* lost */
        if (side->net_len > 0)
            side->net_len -= how % side->net_len;
        break;
    case 5:
        give_back(side, how / 2, how & 1);
        break;
    case 6:
        if (how < 32)
            tri_session_broke(&side->core, now_ns);
        else
            now_ns += (uint64_t)how * TRI_NS_PER_MS / 16;
        break;
    default:
        consume(side, TRI_LANE_DATA);
        break;
    }
}

/* --- and as it should be -----------------------------------------------------
 */

static bool is_done(void)
{
    for (unsigned lane = 0; lane < TRI_LANES; lane++)
        for (unsigned i = 0; i < 2; i++)
            if (sides[i].delivered[lane] != sides[1 - i].stored[lane])
                return false;
    return tri_session_is_clear(&sides[0].core) &&
           tri_session_is_clear(&sides[1].core);
}

static void work(struct side *side)
{
    unsigned burst = 0;

    while (side->in_flight_len > 0)
        give_back(side, 0, true);
    while (send_next(side)) {
        FUZZ_CHECK(++burst < BURST_MAX);
        give_back(side, 0, true);
        while (side->net_len > 0)
            arrive(side, 0, false, true);
    }
    consume(side, TRI_LANE_DATA);
    check(side);
    check(other(side));
}

static void settle(void)
{
    unsigned rounds = 0;
    uint64_t due_ns;

    while (!is_done()) {
        FUZZ_CHECK(++rounds < ROUNDS_MAX);
        work(&sides[0]);
        work(&sides[1]);
        due_ns = tri_min(tri_session_due_ns(&sides[0].core),
                         tri_session_due_ns(&sides[1].core));
        /* Somebody has to wait for something. */
        FUZZ_CHECK(is_done() || due_ns != TRI_NS_NEVER);
        if (due_ns != TRI_NS_NEVER && due_ns > now_ns)
            now_ns = due_ns;
    }
}

/* A death: what is left comes back, all of it. */
static void end(struct side *side)
{
    struct tri_stored_list rest;
    struct tri_stored *stored, *next;
    struct tri_held *held;

    tri_session_end(&side->core, &rest);
    for (stored = STAILQ_FIRST(&rest); stored; stored = next) {
        next = STAILQ_NEXT(stored, next);
        if (!stored->in_flight)
            free_packet(side, packet_of(stored));
    }
    FUZZ_CHECK(tri_session_next(&side->core, UINT64_MAX - 1).what ==
               TRI_SESSION_SEND_NOTHING);
    while (side->in_flight_len > 0)
        give_back(side, 0, false);
    while ((held = tri_session_take_held(&side->core)) != NULL)
        free(tri_container_of(held, struct held, held));
    FUZZ_CHECK(side->packets == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    memset(sides, 0, sizeof(sides));
    now_ns = 1000 * TRI_NS_PER_MS;
    for (unsigned i = 0; i < 2; i++)
        tri_session_init(&sides[i].core, &tri_session_config_default);
    for (unsigned i = 0; bytes > 2 && i < STEPS_MAX; i++) {
        struct side *side = &sides[data[0] & 1];

        step(side, data[0] >> 1 & 7, data[1]);
        check(&sides[0]);
        check(&sides[1]);
        data += 2;
        bytes -= 2;
    }
    if (bytes == 0 || data[0] & 1)
        settle();
    end(&sides[0]);
    end(&sides[1]);
    return 0;
}
